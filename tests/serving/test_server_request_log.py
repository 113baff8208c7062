"""The request log of a real server: what was asked and answered is what is read."""

import http.client
import json
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from mlops_mini.prediction_log import Reader, Record, files
from mlops_mini.wire import PREDICT_METHOD, ModelSpec, PredictRequest, PredictResponse, fill_spec
from mlops_mini.wire_messages import EXACT
from tests.conformance.models import write_examples
from tests.once import made_once
from tests.serving.models import IDENTITIES
from tests.serving.servers import (
    Launcher,
    Server,
    copy_version,
    exchange,
    run_in_child,
    wait_until,
)
from tests.serving.test_request_log import odd_values
from tests.serving.test_server_versions import model_list, reload_request

StartServer = Callable[..., Server]
SERVICE = "/tensorflow.serving.PredictionService"


def config_text(prefix: Path, models: dict[str, Path], rate: float = 1.0) -> str:
    """Write a ModelServerConfig whose models share one log."""
    configs = [
        f"""config {{
              name: "{name}" base_path: "{path}" model_platform: "tensorflow"
              logging_config {{
                log_collector_config {{ type: "tfrecord" filename_prefix: "{prefix}" }}
                sampling_config {{ sampling_rate: {rate} }} }} }}"""
        for name, path in models.items()
    ]
    return f"model_config_list {{ {' '.join(configs)} }}"


def wait_for_records(prefix: Path, n_records: int) -> list[Record]:
    """Wait until that many requests are logged, and return their records."""

    def look() -> list[Record]:
        records = list(Reader(prefix)) if files(prefix) else []
        return records if len(records) >= n_records else []

    return wait_until(look, f"{n_records} records", pace_s=0.05)


class Logged:
    """A server with a log, and what is in that log."""

    def __init__(self, server: Server, prefix: Path) -> None:
        self.server = server
        self.prefix = prefix

    def record(self, request_id: str) -> Record:
        """Wait until a request is logged, and return its record."""

        def look() -> list[Record]:
            records = Reader(self.prefix) if files(self.prefix) else []
            return [record for record in records if record.request_id == request_id]

        (record,) = wait_until(look, f"the record of {request_id}", pace_s=0.05)
        return record

    def post(self, verb: str, body: Any, request_id: str) -> tuple[Any, Record]:
        """Ask over REST; return the answer's JSON and the record."""
        headers = {"X-Request-Id": request_id}
        answer = self.server.ask("POST", f"/v1/models/{verb}", json.dumps(body), headers)
        assert answer.status == 200, answer
        assert answer.headers["x-request-id"] == request_id
        return answer.json, self.record(request_id)

    def call(self, method: str, request: bytes, request_id: str) -> tuple[bytes, Record]:
        """Ask over gRPC; return the serialized answer and the record."""
        with grpc.insecure_channel(self.server.grpc) as channel:
            answer, call = channel.unary_unary(method).with_call(
                request, timeout=60, metadata=[("x-request-id", request_id)]
            )
        assert dict(call.trailing_metadata())["x-request-id"] == request_id
        return answer, self.record(request_id)


@pytest.fixture(scope="module")
def logged(toy_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logged]:
    """A server of the toy model and one of examples, of which all requests are logged."""

    def make(base: Path) -> None:
        run_in_child(write_examples, f"{base}/1", log_file=base / "build.log")

    examples = made_once(tmp_path_factory, "examples_alone", make)
    folder = tmp_path_factory.mktemp("logged")
    prefix = folder / "not" / "there" / "yet"
    served = {"m": toy_models / "toy", "examples": examples}
    (folder / "models.config").write_text(config_text(prefix, served))
    server = Launcher().serve(folder / "server", f"--model_config_file={folder}/models.config")
    server.opened()
    yield Logged(server, prefix)
    server.close()


@pytest.mark.parametrize("signature", IDENTITIES)
def test_each_type_that_grpc_carries_is_logged_to_the_bit(logged: Logged, signature: str) -> None:
    names = {"float": "float32", "double": "float64", "string": "O", "half": "float16"}
    values = odd_values(np.dtype(names.get(signature, signature)))
    spec = ModelSpec(name="m", signature_name=signature)
    request = PredictRequest(model_spec=spec, inputs={"x": values}).to_bytes()

    answer, record = logged.call(PREDICT_METHOD, request, f"type {signature}")

    answered = PredictResponse.from_bytes(answer)
    assert (record.model, record.version, record.signature_name) == ("m", 1, signature)
    assert (record.method, record.sampling_rate) == ("predict", 1.0)
    for array, expected in (
        (record.inputs["x"], values),
        (record.outputs["y"], answered.outputs["y"]),
    ):
        assert (array.dtype, array.shape) == (expected.dtype, expected.shape)
        same = array.tolist() == expected.tolist()
        assert same if array.dtype.kind == "O" else array.tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("body", "inputs"),
    [
        ({"instances": [1.5, 2]}, {"x": np.float32([1.5, 2])}),
        ({"inputs": [1.5, 2]}, {"x": np.float32([1.5, 2])}),
        ({"inputs": {"x": [1.5]}, "signature_name": "double"}, {"x": np.float64([1.5])}),
        (
            {
                "signature_name": "several",
                "instances": [{"total": [1, 2], "n": 2**60, "text": {"b64": "/w=="}}],
            },
            {
                "total": np.float32([[1, 2]]),
                "n": np.int64([2**60]),
                "text": np.array([b"\xff"], object),
            },
        ),
    ],
    ids=["rows", "column", "columns", "rows of several"],
)
@pytest.mark.parametrize("time", ["first", "read the fast way"])
def test_a_predict_by_rest_is_logged_as_grpc_would_have_asked_it(
    logged: Logged, body: Any, inputs: dict[str, Any], time: str
) -> None:
    answer, record = logged.post("m:predict", body, f"{json.dumps(body)}, {time}")

    assert record.signature_name == body.get("signature_name", "serving_default")
    assert record.inputs.keys() == inputs.keys()
    for alias, array in inputs.items():
        assert record.inputs[alias].dtype == array.dtype
        assert record.inputs[alias].tolist() == array.tolist()
    if "y" in record.outputs:
        assert record.outputs["y"].tolist() in answer.values()


def test_classify_and_regress_by_rest_are_logged_with_their_examples(logged: Logged) -> None:
    body = {"examples": [{"x": 0.25}, {"n": 1}], "context": {"x": 0.5}, "signature_name": "regress"}
    regressed, regress = logged.post("examples:regress", body, "regress")
    classified, classify = logged.post("examples:classify", {"examples": [{"x": 0.25}]}, "classify")

    assert regress.outputs["outputs"].tolist() == regressed["results"] == [0.25, 1.5]
    assert [len(example) > 10 for example in regress.inputs["inputs"]] == [True, True]
    assert regress.signature_name == "regress"
    assert classified["results"] == [[["low", 0.75], ["high", 0.25]]]
    assert classify.outputs["classes"].tolist() == [[b"low", b"high"]]
    assert classify.outputs["scores"].tolist() == [[0.75, 0.25]]
    assert classify.signature_name == "serving_default"


def test_the_methods_for_examples_are_logged_as_they_came_by_grpc(logged: Logged) -> None:
    _, classify = logged.post("examples:classify", {"examples": [{"x": 0.25}]}, "for grpc")
    example = classify.inputs["inputs"][0]
    asked, both = EXACT["ExamplesRequest"](), EXACT["MultiInferenceRequest"]()
    asked.input.example_list.examples.append(example)
    both.input.example_list.examples.append(example)
    for method, key in (("regress", "regress"), ("classify", "serving_default")):
        task = both.tasks.add(method_name=f"tensorflow/serving/{method}")
        fill_spec(task.model_spec, ModelSpec(name="examples", signature_name=key))

    for name, request, outputs in (
        ("Classify", asked, {"classes": [[b"low", b"high"]], "scores": [[0.75, 0.25]]}),
        ("Regress", asked, {"outputs": [0.25]}),
        (
            "MultiInference",
            both,
            {
                "regress/outputs": [0.25],
                "serving_default/classes": [[b"low", b"high"]],
                "serving_default/scores": [[0.75, 0.25]],
            },
        ),
    ):
        key = "regress" if name == "Regress" else ""
        fill_spec(asked.model_spec, ModelSpec(name="examples", signature_name=key))
        _, record = logged.call(f"{SERVICE}/{name}", request.SerializeToString(), name)
        assert {alias: array.tolist() for alias, array in record.outputs.items()} == outputs
        assert record.inputs["inputs"].tolist() == [example]
        assert record.version == 1


def test_each_request_of_a_batch_is_logged_on_its_own(logged: Logged) -> None:
    n_clients, n_requests = 8, 40

    def ask(client: int) -> dict[str, float]:
        asked = {}
        with closing(http.client.HTTPConnection(logged.server.rest, timeout=60)) as connection:
            for number in range(client, n_clients * n_requests, n_clients):
                body = f'{{"instances": [{number}]}}'
                answer = exchange(connection, "POST", "/v1/models/m:predict", body)
                assert answer.json == {"predictions": [number / 2 + 2]}
                asked[answer.headers["x-request-id"]] = float(number)
        return asked

    with ThreadPoolExecutor(n_clients) as clients:
        asked = {k: v for of_one in clients.map(ask, range(n_clients)) for k, v in of_one.items()}

    assert len(asked) == n_clients * n_requests

    def look() -> dict[str, Record]:
        records = {r.request_id: r for r in Reader(logged.prefix) if r.request_id in asked}
        return records if len(records) == len(asked) else {}

    records = wait_until(look, "all records", pace_s=0.1)
    for request_id, number in asked.items():
        assert records[request_id].inputs["x"].tolist() == [number]
        assert records[request_id].outputs["y"].tolist() == [number / 2 + 2]


def test_what_fails_is_not_logged_but_says_its_id(logged: Logged) -> None:
    headers = {"X-Request-Id": "wrong"}
    answer = logged.server.ask("POST", "/v1/models/m:predict", b'{"instances": ["a"]}', headers)
    assert (answer.status, answer.headers["x-request-id"]) == (400, "wrong")
    with grpc.insecure_channel(logged.server.grpc) as channel:
        with pytest.raises(grpc.RpcError) as raised:
            channel.unary_unary(PREDICT_METHOD)(b"", metadata=[("x-request-id", "wrong")])
        assert dict(raised.value.trailing_metadata())["x-request-id"] == "wrong"

    logged.post("m:predict", {"instances": [1]}, "right")

    assert "wrong" not in [record.request_id for record in Reader(logged.prefix)]


def test_a_server_without_a_log_gives_no_ids(toy_server: Server) -> None:
    body = b'{"instances": [1]}'
    answer = toy_server.ask("POST", "/v1/models/m:predict", body, {"X-Request-Id": "me"})

    assert "x-request-id" not in answer.headers


def _read_with_tensorflow(path: str, expected_file: str) -> None:
    """Read a log as TensorFlow's documentation of TFRecord and PredictionLog says."""
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    expected = json.loads(Path(expected_file).read_text())
    found = {}
    for raw in tf.data.TFRecordDataset([path]):
        log = prediction_log_pb2.PredictionLog.FromString(raw.numpy())
        if log.WhichOneof("log_type") == "predict_log":
            request, response = log.predict_log.request, log.predict_log.response
            assert log.log_metadata.sampling_config.sampling_rate == 1.0
            assert list(log.log_metadata.saved_model_tags) == ["serve"]
            assert log.log_metadata.timestamp_secs > 1_700_000_000
            found[request.model_spec.version_label] = [
                log.log_metadata.model_spec.name,
                response.model_spec.version.value,
                response.model_spec.signature_name,
                list(request.inputs["x"].float_val),  # typed, as TensorFlow Serving makes them
                tf.make_ndarray(response.outputs["y"]).tolist(),
            ]
    assert found == expected, found


def test_tensorflows_own_tools_read_the_log_and_it_warms_a_model_up(
    toy_models: Path, tmp_path: Path, start_server: StartServer
) -> None:
    config = config_text(tmp_path / "m", {"m": toy_models / "toy"}).replace(
        "logging_config", 'version_labels { key: "stable" value: 1 } logging_config'
    )
    (tmp_path / "models.config").write_text(config)
    server = start_server(toy_models / "toy", f"--model_config_file={tmp_path}/models.config")
    assert server.predict({"instances": [1]}, "/labels/stable").json == {"predictions": [2.5]}
    assert server.predict({"instances": [2]}).json == {"predictions": [3.0]}
    assert server.stop() == 0
    (log,) = files(tmp_path / "m")
    assert log.suffix == ".tfrecord"

    expected = {
        "stable": ["m", 1, "serving_default", [1.0], [2.5]],
        "": ["m", 1, "serving_default", [2.0], [3.0]],
    }
    (tmp_path / "expected").write_text(json.dumps(expected))
    run_in_child(
        _read_with_tensorflow, str(log), str(tmp_path / "expected"), log_file=tmp_path / "child"
    )
    # https://www.tensorflow.org/tfx/serving/saved_model_warmup: "Warmup file name:
    # 'tf_serving_warmup_requests'; file location: assets.extra/; file format: TFRecord with each
    # record as a PredictionLog".
    copy_version(toy_models / "toy" / "1", tmp_path / "model" / "1")
    (tmp_path / "model" / "1" / "assets.extra").mkdir()
    shutil.copy(log, tmp_path / "model" / "1" / "assets.extra" / "tf_serving_warmup_requests")
    assert "Number of warmup records read: 2." in start_server(tmp_path / "model").err


def test_without_features_not_one_of_them_is_in_the_file(
    toy_models: Path, tmp_path: Path, start_server: StartServer
) -> None:
    prefix = tmp_path / "m"
    flags = (f"--request_log_prefix={prefix}", "--request_log_leave_out_features")
    server = start_server(toy_models / "toy", *flags)
    for _ in range(3):
        server.predict({"instances": [1234.5678]})
    several = {"total": [[1234.5, 8765.25]], "n": [987654321], "text": ["Ada Lovelace"]}
    server.predict({"inputs": {**several}, "signature_name": "checked"})  # refused
    arrays = {"x": np.array([b"1815.25"], object)}
    spec = ModelSpec(name="m", signature_name="to_number")
    with grpc.insecure_channel(server.grpc) as channel:
        request = PredictRequest(model_spec=spec, inputs=arrays).to_bytes()
        channel.unary_unary(PREDICT_METHOD)(request, timeout=60)

    records = wait_for_records(prefix, 4)

    written = b"".join(file.read_bytes() for file in files(prefix))
    for number in (1234.5678, 1234.5, 8765.25, 987654321):
        for dtype in (np.float32, np.float64, np.int64):
            assert np.array(number).astype(dtype).tobytes() not in written
    assert b"1815" not in written
    assert b"Ada" not in written
    assert [dict(record.inputs) for record in records] == [{}] * 4
    assert [record.outputs["y"].tolist() for record in records] == [
        *[[np.float32(619.2839)]] * 3,
        [1815.25],
    ]


def test_a_full_disk_stops_no_answer_and_is_said_once(
    toy_models: Path, tmp_path: Path, start_server: StartServer
) -> None:
    prefix = tmp_path / "m"
    server = start_server(toy_models / "toy", f"--request_log_prefix={prefix}")
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    row = b'{"instances": [%s]}' % b",".join([b"1"] * 500)  # 2,000 bytes of floats
    full_at = len(server.err) + 20_000  # its log is a file too
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (full_at, most))

    def is_full() -> bool:
        assert server.predict(row).status == 200
        return "cannot be written (File too large)" in server.err

    wait_until(is_full, "the disk to be full")
    for _ in range(20):
        assert server.predict(row).status == 200
    assert server.err.count("request log") == 1
    assert all(file.stat().st_size <= full_at for file in files(prefix))
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (most, most))

    def is_written_again() -> bool:
        server.predict(row)
        return "is written again" in server.err

    wait_until(is_written_again, "the log to be written again")
    assert server.stop() == 0
    reader = Reader(prefix)
    assert {len(record.outputs["y"]) for record in reader} == {500}
    assert reader.n_skipped == 0  # what did not fit has left nothing behind


def test_after_a_kill_all_whole_records_are_read(
    toy_models: Path, tmp_path: Path, start_server: StartServer
) -> None:
    prefix = tmp_path / "m"
    server = start_server(toy_models / "toy", f"--request_log_prefix={prefix}")
    server.predict({"instances": [1]})
    wait_for_records(prefix, 1)

    assert server.stop(signal.SIGKILL) == -9

    (file,) = files(prefix)
    assert file.suffix == ".unfinished"
    whole = file.read_bytes()
    file.write_bytes(whole + whole[: len(whole) // 2])  # as if it had been writing
    reader = Reader(prefix)
    assert [record.outputs["y"].tolist() for record in reader] == [[2.5]]
    assert (reader.n_skipped, reader.n_skipped_bytes) == (1, len(whole) // 2)


def test_a_log_that_cannot_be_written_ends_the_start_and_refuses_a_reload(
    toy_models: Path, tmp_path: Path, start_server: StartServer
) -> None:
    (tmp_path / "file").touch()
    launched = Launcher().serve(
        tmp_path / "server",
        f"--model_base_path={toy_models}/toy",
        f"--request_log_prefix={tmp_path}/file/m",
    )
    assert launched.ended() == 255
    words = f"the request log {tmp_path}/file/m-*.tfrecord cannot be written"
    assert words in launched.out

    server = start_server(toy_models / "toy")
    bad, good, never = (
        config_text(prefix, {"m": toy_models / "toy"}, rate)
        for prefix, rate in ((tmp_path / "file" / "m", 1), (tmp_path / "m", 1), (tmp_path / "n", 0))
    )
    with grpc.insecure_channel(server.grpc) as channel:
        reload = channel.unary_unary("/tensorflow.serving.ModelService/HandleReloadConfigRequest")
        with pytest.raises(grpc.RpcError, match="cannot be written"):
            reload(reload_request(bad), timeout=60)
        answer = server.predict({"instances": [1]})
        assert answer.status == 200
        assert "x-request-id" not in answer.headers
        reload(reload_request(good), timeout=60)
        answer = server.predict({"instances": [1]})
        (record,) = wait_for_records(tmp_path / "m", 1)
        assert record.request_id == answer.headers["x-request-id"]
        reload(reload_request(never), timeout=60)
        assert "x-request-id" not in server.predict({"instances": [1]}).headers
        body, mine = b'{"instances": [1]}', {"X-Request-Id": "mine"}
        answer = server.ask("POST", "/v1/models/m:predict", body, mine)
        assert answer.headers["x-request-id"] == "mine"  # though it isn't logged
        reload(reload_request(model_list(m=toy_models / "toy")), timeout=60)
        assert "x-request-id" not in server.predict({"instances": [1]}).headers
