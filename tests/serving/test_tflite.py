"""TF Lite models behind the same two APIs, and what becomes of files that are none."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from mlops_mini.wire import PREDICT_METHOD, ModelSpec, PredictRequest, PredictResponse
from tests.once import made_once
from tests.serving.servers import Answer, Launcher, Server, run_in_child

# Models of the server below, each with a `model.tflite`; but for `saved`, which has none, and for
# `both`, which has a SavedModel beside it.
MODELS = (
    "plain", "named", "old_names", "texts", "both", "saved", "damaged", "empty", "half", "stranger",
    "no_signatures",
)  # fmt: skip

PLATFORM = 'model_platform: "tensorflow"'


def write_models(base: str) -> None:
    """Convert 0.5 x + 2, and an identity of texts, and write them in many ways."""
    import flatbuffers
    import tensorflow as tf
    from ai_edge_litert import schema_py_generated as schema
    from flatbuffers import flexbuffers

    def convert(function: Any, *specs: Any) -> bytes:
        concrete = tf.function(function).get_concrete_function(*specs)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], tf.Module())
        content: bytes = converter.convert()
        return content

    def with_metadata(content: bytes, metadata: bytes, *, is_old: bool = False) -> bytes:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
        for tensor in model.subgraphs[0].tensors if is_old else ():
            tensor.name = tensor.name.removesuffix(b":0")  # as early converters did
        entry, buffer = schema.MetadataT(), schema.BufferT()
        buffer.data = np.frombuffer(metadata, np.uint8)
        model.buffers.append(buffer)
        entry.name, entry.buffer = b"signature_defs_metadata", len(model.buffers) - 1
        model.metadata.append(entry)
        builder = flatbuffers.Builder()
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())

    def signatures(**outputs: str) -> bytes:
        builder = flexbuffers.Builder()
        with builder.Map():
            for key, output in outputs.items():
                meta_graph = tf.compat.v1.MetaGraphDef()
                signature = meta_graph.signature_def[key]
                signature.method_name = "tensorflow/serving/predict"
                for infos, alias, name in (
                    (signature.inputs, "x", "serving_default_x:0"),
                    (signature.outputs, "y", output),
                ):
                    infos[alias].name, infos[alias].dtype = name, 1
                    infos[alias].tensor_shape.dim.add(size=-1)
                builder.Key(key)
                builder._WriteBlob(  # as TensorFlow does in C++: bytes as a string
                    signature.SerializeToString(), append_zero=True, type_=flexbuffers.Type.STRING
                )
        return bytes(builder.Finish())

    half = convert(lambda x: {"y": 0.5 * x + 2.0}, tf.TensorSpec([None], tf.float32, "x"))
    texts = convert(lambda s: {"t": tf.identity(s)}, tf.TensorSpec([None], tf.string, "s"))
    output = "PartitionedCall:0"
    files = {
        "plain": half,
        "named": with_metadata(half, signatures(serving_default=output, other=output)),
        "old_names": with_metadata(half, signatures(serving_default=output), is_old=True),
        "texts": texts,
        "both": half,
        "damaged": b"\0" * 8 + half[8:],
        "empty": b"",
        "half": half[: len(half) // 2],
        "stranger": with_metadata(half, signatures(serving_default="nobody:0")),
        "no_signatures": with_metadata(half, b"\xff" * 20),
    }
    for name, content in files.items():
        version = Path(base, name, "1")
        version.mkdir(parents=True)
        (version / "model.tflite").write_bytes(content)
    for name in ("both", "saved"):
        x = tf.TensorSpec([None], tf.float32, "x")
        signature = tf.function(lambda x: {"y": x * 10.0}).get_concrete_function(x)
        tf.saved_model.save(
            tf.Module(), f"{base}/{name}/1", signatures={"serving_default": signature}
        )


@pytest.fixture(scope="session")
def lite_models(tmp_path_factory: pytest.TempPathFactory) -> Path:

    def make(base: Path) -> None:
        run_in_child(write_models, str(base), log_file=base / "build.log")

    return made_once(tmp_path_factory, "lite_models", make)


@pytest.fixture(scope="module")
def lite(lite_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of all of them that prefers TF Lite."""
    folder = tmp_path_factory.mktemp("lite")
    configs = [
        f'config {{ name: "{name}" base_path: "{lite_models / name}" {PLATFORM} }}'
        for name in MODELS
    ]
    (folder / "models.config").write_text(f"model_config_list {{ {' '.join(configs)} }}")
    server = Launcher().serve(
        folder / "server",
        f"--model_config_file={folder}/models.config",
        "--prefer_tflite_model=true",
        "--max_num_load_retries=0",
    )
    server.opened()
    yield server
    server.close()


def ask(server: Server, model: str, body: Any) -> Answer:
    return server.ask("POST", f"/v1/models/{model}:predict", json.dumps(body))


def call(server: Server, spec: ModelSpec, inputs: dict[str, Any]) -> PredictResponse:
    with grpc.insecure_channel(server.grpc) as channel:
        request = PredictRequest(model_spec=spec, inputs=inputs).to_bytes()
        answer = channel.unary_unary(PREDICT_METHOD)(request, timeout=60)
        return PredictResponse.from_bytes(answer)


def test_without_metadata_tensors_names_are_the_aliases(lite: Server) -> None:
    inputs = {"serving_default_x": np.float32([2, 4])}

    response = call(lite, ModelSpec(name="plain"), inputs)

    assert response.outputs["PartitionedCall"].tolist() == [3, 4]
    assert (response.model_spec.version, response.model_spec.signature_name) == (
        1,
        "serving_default",
    )
    metadata = lite.ask("GET", "/v1/models/plain/metadata").json["metadata"]["signature_def"]
    described = metadata["signature_def"]["serving_default"]
    assert described["method_name"] == "tensorflow/serving/predict"
    x = described["inputs"]["serving_default_x"]
    assert (x["name"], x["dtype"]) == ("serving_default_x:0", "DT_FLOAT")
    assert [dim["size"] for dim in x["tensor_shape"]["dim"]] == ["-1"]
    assert "No signature def found in TFLite model" in lite.err


@pytest.mark.parametrize("model", ["named", "old_names"])
def test_with_metadata_its_aliases_count_and_batches_may_have_any_size(
    lite: Server, model: str
) -> None:
    assert ask(lite, model, {"instances": [2.0]}).json == {"predictions": [3.0]}
    for n_rows in (1, 5, 300, 5):
        x = np.arange(n_rows, dtype=np.float32)
        answer = call(lite, ModelSpec(name=model), {"x": x}).outputs["y"]
        assert answer.tolist() == (x / 2 + 2).tolist()
    assert ask(lite, model, {"inputs": {"x": []}}).json == {"outputs": []}


def test_several_signatures_are_served(lite: Server) -> None:
    spec = ModelSpec(name="named", signature_name="other")
    assert call(lite, spec, {"x": np.float32([2])}).outputs["y"].tolist() == [3]
    answer = ask(lite, "named", {"instances": [2.0], "signature_name": "third"})
    assert (answer.status, "not found in signature def" in answer.json["error"]) == (400, True)


def test_texts_keep_their_bytes(lite: Server) -> None:
    texts = np.array([b"a\0", b"", b"\xff", b"x" * 1000], object)

    response = call(lite, ModelSpec(name="texts"), {"serving_default_s": texts})

    assert [array.tolist() for array in response.outputs.values()] == [texts.tolist()]


def test_many_clients_get_their_own_answers(lite: Server) -> None:

    def one(number: int) -> bool:
        rows = [float(number)] * (1 + number % 7)
        answer = ask(lite, "named", {"instances": rows})
        return bool(answer.json == {"predictions": [number / 2 + 2] * len(rows)})

    with ThreadPoolExecutor(8) as clients:
        assert all(clients.map(one, range(200)))


def test_wrong_requests_are_refused_and_the_next_is_answered(lite: Server) -> None:
    for inputs, code in (
        ({"x": np.float64([1])}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"z": np.float32([1])}, grpc.StatusCode.INVALID_ARGUMENT),
    ):
        with pytest.raises(grpc.RpcError) as raised:
            call(lite, ModelSpec(name="named"), inputs)
        assert raised.value.code() == code
        assert ask(lite, "named", {"instances": [2.0]}).json == {"predictions": [3.0]}


def test_a_version_without_the_file_is_served_as_a_saved_model(lite: Server) -> None:
    assert ask(lite, "saved", {"instances": [2.0]}).json == {"predictions": [20.0]}
    answer = call(lite, ModelSpec(name="both"), {"serving_default_x": np.float32([2])})
    assert answer.outputs["PartitionedCall"].tolist() == [3]


def test_without_the_flag_the_saved_model_is_served(
    lite_models: Path, start_server: Callable[..., Server]
) -> None:
    server = start_server(lite_models / "both")
    assert server.predict({"instances": [2.0]}).json == {"predictions": [20.0]}


@pytest.mark.parametrize(
    ("model", "code", "words"),
    [
        ("damaged", "INVALID_ARGUMENT", "Cannot build FlatBufferModel from buffer."),
        ("empty", "INVALID_ARGUMENT", "Cannot build FlatBufferModel from buffer."),
        ("half", "INVALID_ARGUMENT", "Cannot build FlatBufferModel from buffer."),
        (
            "stranger",
            "INTERNAL",
            "Unknown tensor 'nobody'.\n\tSignature output y references an unknown tensor",
        ),
        ("no_signatures", "INVALID_ARGUMENT", "Invalid SignatureDefs found in TfLite model: "),
    ],
)
def test_a_file_that_cannot_be_served_says_why_and_others_serve(
    lite: Server, model: str, code: str, words: str
) -> None:
    (version,) = lite.ask("GET", f"/v1/models/{model}").json["model_version_status"]

    assert (version["state"], version["status"]["error_code"]) == ("END", code)
    assert words in version["status"]["error_message"]
    assert ask(lite, model, {"instances": [2.0]}).status == 404
