"""Warm-up as section 7 says: what loads, what fails the load, and how it is told."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.conformance import models
from tests.conformance.grpc_cases import ONE, X, spec
from tests.conformance.protos import Protos
from tests.conformance.served import Served
from tests.serving.servers import Server, copy_version, run_in_child, wait_until

_GOOD = {"predict_log": {"request": {"model_spec": {"name": "other", "version": 9}, "inputs": X}}}
_ZZ = {"predict_log": {"request": {"model_spec": spec(signature="zz"), "inputs": X}}}
_CLASSIFY = {"classify_log": {"request": {"model_spec": spec("examples"), "input": ONE}}}
_REGRESS = {"regress_log": {"request": {"model_spec": spec("e", "regress"), "input": ONE}}}
_TASK = {"model_spec": spec("e", "regress"), "method_name": "tensorflow/serving/regress"}
_MULTI = {"multi_inference_log": {"request": {"tasks": [_TASK], "input": ONE}}}
_WRONG = {"classify_log": {"request": {"model_spec": spec("e", "regress"), "input": ONE}}}
_SMALL = "numbered"
# Name of the model: which it is, its records (or the bytes of the whole file), how the load ends.
CASES: dict[str, tuple[str, Any, str]] = {
    "good": (_SMALL, [_GOOD] * 3, ""),
    "nothing": (_SMALL, [], ""),
    "empty_log": (_SMALL, [{}, {"log_metadata": {}}], ""),
    "thousand": (_SMALL, [_GOOD] * 1000, ""),
    "classified": ("examples", [_CLASSIFY], ""),
    "regressed": ("examples", [_REGRESS], ""),
    "multi": ("examples", [_MULTI], ""),
    "zz": (_SMALL, [_GOOD, _ZZ], 'Serving signature key "zz" not found.'),
    "wrong_input": (_SMALL, [{"predict_log": {"request": {"inputs": {}}}}], "input size does not"),
    "wrong_example": ("examples", [_WRONG], "Expected classification signature outputs to contain"),
    "session": (_SMALL, [{"session_run_log": {}}], "Unsupported log_type for warmup: 5"),
    "corrupted": (
        _SMALL,
        b"this is no TFRecord file at all",
        (
            "corrupted record at 0 (Is this even a TFRecord file?). Please verify your warmup data"
            " is in TFRecord format."
        ),
    ),
    "no_log": (_SMALL, [b"\xff\xff"], "Failed to parse warmup record: "),
    "too_many": (
        _SMALL,
        [_GOOD] * 1001,
        "Number of warmup records exceeds the maximum (1000) at ",
    ),
}


@pytest.fixture(scope="module")
def warmed(
    table_models: Path, serving_protos: Protos, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """One server with a model for each case."""
    base = tmp_path_factory.mktemp("warmed")
    config = "model_config_list {"
    for name, (model, records, _) in CASES.items():
        (base / name).mkdir()
        copy_version(table_models / model / "1", base / name / "1")
        file = base / name / "1/assets.extra/tf_serving_warmup_requests"
        file.parent.mkdir()
        if isinstance(records, bytes):
            file.write_bytes(records)
        else:
            logs = [
                log
                if isinstance(log, bytes)
                else serving_protos.message("PredictionLog", log).SerializeToString()
                for log in records
            ]
            run_in_child(models.write_records, str(file), logs, log_file=base / "records.log")
        config += (
            f' config {{ name: "{name}" base_path: "{base}/{name}" model_platform: "tensorflow" }}'
        )
    (base / "models.config").write_text(config + " }")
    flags = (f"--model_config_file={base}/models.config", "--max_num_load_retries=0")
    with (
        closing(Server.start(base / "unused", base / "server", *flags)) as server,
        closing(Served(server.rest, server.grpc, serving_protos)) as served,
    ):
        yield served


@pytest.mark.parametrize("name", CASES)
def test_a_record_that_fails_fails_the_load(warmed: Served, name: str) -> None:
    text = CASES[name][2]

    def ended() -> Any:
        reply = warmed.ask("GET", f"/v1/models/{name}")
        assert reply.status in (200, 404), reply
        found = reply.json.get("model_version_status", [{}])[0]
        return found if found.get("state") in ("AVAILABLE", "END") else None

    status = wait_until(ended, f"{name} to be loaded or not")

    assert status["state"] == ("END" if text else "AVAILABLE"), status
    assert text in status["status"]["error_message"]
    assert (status["status"]["error_code"] == "OK") == (not text)
