"""Warm-up as section 7 says: what loads, what fails the load, and how it is told."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.conformance import models
from tests.conformance.grpc_cases import ONE, X, floats, spec
from tests.conformance.protos import Protos
from tests.conformance.served import Served
from tests.conformance.version_plays import Stage
from tests.serving.servers import Launcher, copy_version, run_in_child, wait_until

_GOOD = {"predict_log": {"request": {"model_spec": {"name": "other", "version": 9}, "inputs": X}}}
_ZZ = {"predict_log": {"request": {"model_spec": spec(signature="zz"), "inputs": X}}}
_CLASSIFY = {"classify_log": {"request": {"model_spec": spec("examples"), "input": ONE}}}
_REGRESS = {"regress_log": {"request": {"model_spec": spec("e", "regress"), "input": ONE}}}
_TASK = {"model_spec": spec("e", "regress"), "method_name": "tensorflow/serving/regress"}
_MULTI = {"multi_inference_log": {"request": {"tasks": [_TASK], "input": ONE}}}
_WRONG = {"classify_log": {"request": {"model_spec": spec("e", "regress"), "input": ONE}}}
_ONE = {"predict_log": {"request": {"model_spec": spec("zz"), "inputs": {"x": floats(1)}}}}
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


# Flags, and how often each of two records is run.
FLAGS = {
    (): 1,
    ("--num_request_iterations_for_warmup=0",): 1,
    ("--num_request_iterations_for_warmup=3",): 3,
    ("--enable_model_warmup=false",): 0,
}


def write_counting(folder: str) -> None:
    """Answers how many numbers above 0 it was ever asked for."""
    import tensorflow as tf

    module = tf.Module()
    module.count = tf.Variable(0.0)

    def count(x: Any) -> dict[str, Any]:
        asked = tf.reduce_sum(tf.cast(x > 0, tf.float32))
        return {"count": module.count.assign_add(asked) + tf.zeros_like(x)}

    vector = tf.TensorSpec([None], tf.float32, "x")
    signature = tf.function(count, input_signature=[vector]).get_concrete_function()
    tf.saved_model.save(module, folder, signatures={"serving_default": signature})


class Warmed:
    """Starts a server without models, then has it load some, each with a warm-up file."""

    def __init__(self, launcher: Launcher, known: Protos, folder: Path, *flags: str) -> None:
        self.stage = Stage(
            launcher, folder, known, folder, "--model_config_file_poll_wait_seconds=1",
            "--max_num_load_retries=0", *flags,
        )  # fmt: skip
        self.stage.write("model_config_list {}")
        self.stage.start()
        self.served = Served(*self.stage.server.opened(), known)

    def load(self, models_and_records: dict[str, tuple[Path, Any]]) -> None:
        text = ""
        for name, (version, records) in models_and_records.items():
            base = self.stage.folder / name
            base.mkdir()
            copy_version(version, base / "1")
            file = base / "1/assets.extra/tf_serving_warmup_requests"
            file.parent.mkdir()
            if isinstance(records, bytes):
                file.write_bytes(records)
            else:
                logs = [
                    log
                    if isinstance(log, bytes)
                    else self.stage.protos.message("PredictionLog", log).SerializeToString()
                    for log in records
                ]
                log_file = self.stage.folder / "records.log"
                run_in_child(models.write_records, str(file), logs, log_file=log_file)
            text = self.stage.configure(name)
        self.stage.write(text)

    def status(self, name: str) -> Any:
        """Wait until the version is loaded or has failed, and return its status."""

        def ended() -> Any:
            reply = self.served.ask("GET", f"/v1/models/{name}")
            assert reply.status in (200, 404), reply
            found = reply.json.get("model_version_status", [{}])[0]
            return found if found.get("state") in ("AVAILABLE", "END") else None

        return wait_until(ended, f"{name} to be loaded or not")

    def close(self) -> None:
        self.served.close()
        self.stage.close()


@pytest.fixture(scope="module")
def warmed(
    launcher: Launcher,
    table_models: Path,
    serving_protos: Protos,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Warmed]:
    """One server with a model for each case."""
    folder = tmp_path_factory.mktemp("warmed")
    with closing(Warmed(launcher, serving_protos, folder)) as made:
        made.load(
            {
                name: (table_models / model / "1", records)
                for name, (model, records, _) in CASES.items()
            }
        )
        yield made


@pytest.mark.parametrize("name", CASES)
def test_a_record_that_fails_fails_the_load(warmed: Warmed, name: str) -> None:
    text = CASES[name][2]

    status = warmed.status(name)

    assert status["state"] == ("END" if text else "AVAILABLE"), status
    assert text in status["status"]["error_message"]
    assert (status["status"]["error_code"] == "OK") == (not text)


@pytest.fixture(scope="module")
def counting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("counting")
    run_in_child(write_counting, str(folder / "1"), log_file=folder / "build.log")
    return folder / "1"


@pytest.mark.parametrize("flags", FLAGS, ids=str)
def test_each_record_is_run_as_often_as_told_before_the_version_answers(
    launcher: Launcher,
    serving_protos: Protos,
    counting: Path,
    tmp_path: Path,
    flags: tuple[str, ...],
) -> None:
    with closing(Warmed(launcher, serving_protos, tmp_path, *flags)) as made:
        made.load({"m": (counting, [_ONE] * 2)})
        assert made.status("m")["state"] == "AVAILABLE"
        reply = made.served.ask("POST", "/v1/models/m:predict", '{"instances": [0]}')

    assert reply.json == {"predictions": [2.0 * FLAGS[flags]]}


def test_a_broken_file_fails_nothing_where_warm_up_is_off(
    launcher: Launcher, serving_protos: Protos, counting: Path, tmp_path: Path
) -> None:
    flag = "--enable_model_warmup=false"
    with closing(Warmed(launcher, serving_protos, tmp_path, flag)) as made:
        made.load({"m": (counting, CASES["corrupted"][1])})

        assert made.status("m")["state"] == "AVAILABLE"
