"""One server is asked for its health every 10 ms, whatever else it has to do meanwhile."""

import json
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from mlops_mini.wire import PREDICT_METHOD, ModelSpec, PredictRequest
from mlops_mini.wire_messages import EXACT
from tests.serving import models
from tests.serving.pulse import Pulse, noise_s
from tests.serving.servers import Server, copy_version, run_in_child, wait_until
from tests.serving.test_server_versions import model_list

LIMIT_S = 0.05
MOST_ROUNDS = 3  # what the server does itself is there in every round, the neighbors' noise is not
WIDE = np.full((1, 12_000), 0.7, np.float32)
UNLIMITED = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


@pytest.mark.slow
def test_nothing_that_a_server_does_keeps_others_waiting(toy_models: Path, tmp_path: Path) -> None:
    base, large = tmp_path / "other", tmp_path / "large"
    base.mkdir()
    run_in_child(models.write_large, str(large), log_file=tmp_path / "build.log")
    file = tmp_path / "models.config"
    file.write_text(model_list(m=toy_models / "toy", wide=toy_models / "wide", other=base))
    flags = (f"--model_config_file={file}", "--rest_api_timeout_in_ms=200")
    server = Server.start(base, tmp_path / "server", *flags)
    channel = grpc.insecure_channel(server.grpc, options=UNLIMITED)
    predict = channel.unary_unary(PREDICT_METHOD)

    def load() -> None:
        copy_version(large, base / "1")
        wait_until(lambda: "AVAILABLE" in state(server), "the load", timeout_s=120)

    def unload() -> None:
        shutil.rmtree(base / "1")
        wait_until(lambda: "END" in state(server), "the unload", timeout_s=120)

    def send_100_mb() -> None:
        body = b'{"inputs":[' + b"0.12345678901234567," * 5_200_000 + b"0]}"
        assert server.predict(body).status == 200

    def send_wide() -> None:
        request = PredictRequest(model_spec=ModelSpec(name="wide"), inputs={"x": WIDE})
        predict(request.to_bytes(), timeout=120)

    def send_past_the_limit() -> None:
        rows = {"instances": WIDE.tolist()}
        assert ask_wide(server, rows) == 504
        request = PredictRequest(model_spec=ModelSpec(name="wide"), inputs={"x": WIDE})
        with pytest.raises(grpc.RpcError) as raised:
            predict(request.to_bytes(), timeout=0.2)
        assert raised.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED

    def send_lengths_without_end() -> None:
        with pytest.raises(grpc.RpcError, match="tensor parsing error: x"):
            predict(endless_lengths(), timeout=120)

    try:
        for name, small in [("m", np.ones(1)), ("wide", np.ones((1, 2)))] * 25:
            spec, inputs = ModelSpec(name=name), {"x": np.float32(small)}  # not for large ones
            predict(PredictRequest(model_spec=spec, inputs=inputs).to_bytes(), timeout=120)
        with Pulse(server) as pulse:
            quiet = pulse.during(lambda: time.sleep(1))
            # Where the machine alone makes an answer late, the server is not asked for more.
            limit_s = max(LIMIT_S, 10 * statistics.median(quiet), 2 * noise_s())
            longest: dict[str, float] = {}
            for _ in range(MOST_ROUNDS):
                for work in (
                    load, unload, send_100_mb, send_wide, send_past_the_limit,
                    send_lengths_without_end,
                ):  # fmt: skip
                    name, seconds = work.__name__, max(pulse.during(work))
                    longest[name] = min(longest.get(name, seconds), seconds)
                late = {name: seconds for name, seconds in longest.items() if seconds > limit_s}
                if not late:
                    break
    finally:
        channel.close()
        server.close()

    assert not late, f"limit {limit_s:.3f} s, longest answers {longest}"


def state(server: Server) -> str:
    """Describe the versions of the model `other`."""
    return server.ask("GET", "/v1/models/other").body.decode()


def ask_wide(server: Server, body: Any) -> int:
    return server.ask("POST", "/v1/models/wide:predict", json.dumps(body)).status


def endless_lengths() -> bytes:
    """Write 250 KB of a text tensor in which the first length never ends."""
    request = EXACT["PredictRequest"]()
    request.model_spec.name = "m"
    request.model_spec.signature_name = "string"
    tensor = request.inputs["x"]
    tensor.dtype, tensor.tensor_content = 7, b"\xff" * 250_000
    tensor.tensor_shape.dim.add(size=1)
    return bytes(request.SerializeToString())
