"""Records of requests: written whole, beside the answering, whatever becomes of the disk."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlops_mini.errors import FailedPreconditionError
from mlops_mini.prediction_log import Reader, files
from mlops_mini.serving.model_config import LogConfig, ModelConfig
from mlops_mini.serving.request_log import RequestLog
from mlops_mini.wire import DTYPES, ModelSpec, PredictRequest, PredictResponse
from mlops_mini.wire_messages import EXACT
from tests.serving.servers import wait_until

ANSWERED = ModelSpec(name="m", version=3, signature_name="s")
MakeLog = Callable[..., RequestLog]


@pytest.fixture
def make_log(tmp_path: Path) -> Iterator[MakeLog]:
    """Makes a log of model m, all requests, files `log/m-*`, and closes it."""
    made: list[RequestLog] = []

    def make(prefix: Path = tmp_path / "log" / "m", **settings: Any) -> RequestLog:
        made.append(RequestLog(**settings))
        log = LogConfig(prefix=prefix, sampling_rate=1.0)
        made[-1].configure([ModelConfig(name="m", base_path="/m", request_log=log)])
        return made[-1]

    yield make
    for log in made:
        log.close()


def add(log: RequestLog, number: float, *, method: str = "predict") -> None:
    """Log a request that asked a number."""
    arrays = {"x": np.float32([number])}
    request = PredictRequest(model_spec=ANSWERED, inputs=arrays).to_bytes()
    response = PredictResponse(model_spec=ANSWERED, outputs=arrays).to_bytes()
    config = log.sampled("m")
    assert config is not None
    log.add(config, method, ANSWERED, log.identify(b""), request, response)


def numbers(records: Reader) -> list[float]:
    return [float(record.inputs["x"][0]) for record in records]


def odd_values(dtype: np.dtype[Any]) -> Any:
    """List values of which every bit counts: zeros, NaNs with payloads, subnormals, limits."""
    if dtype.kind == "O":
        return np.array([b"", b"\0", b"a\0", "\u00e9".encode(), b"\xff\xfe", b"x" * 300], object)
    if dtype == np.bool_:
        return np.array([True, False, True])
    patterns = np.random.default_rng(7).bytes(64 * dtype.itemsize)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return np.append(
            np.array([limits.min, limits.max, 0], dtype), np.frombuffer(patterns, dtype)
        )
    part = np.dtype({8: np.float32, 16: np.float64}[dtype.itemsize]) if dtype.kind == "c" else dtype
    word = np.dtype(f"u{part.itemsize}")
    nans = np.array([np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0], part).view(word)
    nans[:2] |= word.type(5)  # a payload
    bits = np.concatenate([nans, np.array([1, 2], word), np.frombuffer(patterns, word)])
    return bits.view(dtype)


@pytest.mark.parametrize("dtype", [dtype.numpy for dtype in DTYPES], ids=str)
@pytest.mark.parametrize("by", ["grpc", "grpc, typed", "rest"])
def test_every_type_comes_back_to_the_bit(make_log: MakeLog, dtype: Any, by: str) -> None:
    values = odd_values(dtype)
    shaped = values[: len(values) // 2 * 2].reshape(2, -1)
    arrays = {"x": shaped, "scalar": values[:1].reshape(()), "none": values[:0]}
    log = make_log()
    config = log.sampled("m")
    assert config is not None

    if by == "rest":
        log.add_predict(config, b"me", ModelSpec(name="m"), 3, arrays, arrays)
    else:
        request = PredictRequest(model_spec=ModelSpec(name="m", version_label="l"), inputs=arrays)
        response = PredictResponse(model_spec=ANSWERED, outputs=arrays)
        messages = request.to_bytes(as_content=by == "grpc"), response.to_bytes(as_content=True)
        log.add(config, "predict", ANSWERED, b"me", *messages)
    log.close()

    (record,) = Reader(config.prefix)
    for logged in (record.inputs, record.outputs):
        assert logged.keys() == arrays.keys()
        for alias, array in arrays.items():
            assert (logged[alias].dtype, logged[alias].shape) == (array.dtype, array.shape)
            same = logged[alias].tolist() == array.tolist()
            assert same if dtype.kind == "O" else logged[alias].tobytes() == array.tobytes()


def test_the_methods_that_take_examples_are_read_back(make_log: MakeLog) -> None:
    log = make_log()
    config = log.sampled("m")
    assert config is not None
    asked, both = EXACT["ExamplesRequest"](), EXACT["MultiInferenceRequest"]()
    asked.input.example_list_with_context.context = b"context "
    asked.input.example_list_with_context.examples.extend([b"one", b"two"])
    both.input.example_list.examples.append(b"three")
    classified, regressed = EXACT["ClassificationResponse"](), EXACT["RegressionResponse"]()
    for label, score in ((b"\xff", 0.25), (b"", np.nan)):
        row = classified.result.classifications.add()
        row.classes.add(label=label, score=score)
        row.classes.add(label=b"b", score=1)
        regressed.result.regressions.add(value=score)
    multi = EXACT["MultiInferenceResponse"]()
    multi.results.add(regression_result=regressed.result).model_spec.signature_name = "r"
    multi.results.add(classification_result=classified.result).model_spec.signature_name = "c"

    for method, request, response in (
        ("classify", asked, classified),
        ("regress", asked, regressed),
        ("multi_inference", both, multi),
    ):
        messages = request.SerializeToString(), response.SerializeToString()
        log.add(config, method, ANSWERED, b"me", *messages)
    log.close()

    classify, regress, multi_inference = Reader(config.prefix)
    examples = [b"context one", b"context two"]
    assert classify.inputs["inputs"].tolist() == regress.inputs["inputs"].tolist() == examples
    assert classify.outputs["classes"].tolist() == [[b"\xff", b"b"], [b"", b"b"]]
    np.testing.assert_array_equal(classify.outputs["scores"], np.float32([[0.25, 1], [np.nan, 1]]))
    np.testing.assert_array_equal(regress.outputs["outputs"], np.float32([0.25, np.nan]))
    assert multi_inference.inputs["inputs"].tolist() == [b"three"]
    assert sorted(multi_inference.outputs) == ["c/classes", "c/scores", "r/outputs"]
    assert {record.version for record in (classify, regress, multi_inference)} == {3}


def test_without_features_not_one_is_in_the_file(make_log: MakeLog) -> None:
    log = make_log(leave_out_features=True)
    config = log.sampled("m")
    assert config is not None
    secret = np.float32([1234.5678])
    inputs = {"x": secret, "name": np.array([b"Ada Lovelace"], object)}
    log.add_predict(config, b"me", ModelSpec(name="m"), 3, inputs, {"y": np.float32([0.5])})
    request = PredictRequest(model_spec=ANSWERED, inputs=inputs, output_filter=["y"]).to_bytes()
    log.add(config, "predict", ANSWERED, b"me", request, b"")
    for method in ("classify", "regress"):
        asked = EXACT["ExamplesRequest"]()
        asked.input.example_list.examples.append(b"Ada Lovelace" + secret.tobytes())
        log.add(config, method, ANSWERED, b"me", asked.SerializeToString(), b"")
    both = EXACT["MultiInferenceRequest"]()
    both.tasks.add(method_name="tensorflow/serving/regress").model_spec.name = "m"
    both.input.example_list.examples.append(b"Ada Lovelace" + secret.tobytes())
    log.add(config, "multi_inference", ANSWERED, b"me", both.SerializeToString(), b"")
    log.close()

    (file,) = files(config.prefix)
    written = file.read_bytes()

    assert b"Ada" not in written
    assert secret.tobytes() not in written
    assert secret.astype(np.float64).tobytes() not in written
    records = list(Reader(config.prefix))
    assert [dict(record.inputs) for record in records] == [{}] * 5
    assert records[0].outputs["y"] == [0.5]
    assert {(record.request_id, record.model, record.version) for record in records} == {
        ("me", "m", 3)
    }


def test_a_file_ends_at_its_size_and_the_next_begins(make_log: MakeLog, tmp_path: Path) -> None:
    log = make_log(rotate_bytes=1)
    for number in range(3):
        add(log, number)
        n_written = number + 1
        wait_until(lambda n=n_written: log.records_written == n, "the record")

    names = [file.name for file in files(tmp_path / "log" / "m")]
    assert len(names) == 3
    assert all(name.endswith(".tfrecord") for name in names)
    assert numbers(Reader(tmp_path / "log" / "m")) == [0, 1, 2]


def test_a_file_ends_at_its_age_also_if_nothing_comes(make_log: MakeLog, tmp_path: Path) -> None:
    log = make_log(rotate_s=0.1)
    add(log, 1)

    (file,) = wait_until(
        lambda: [f for f in files(tmp_path / "log" / "m") if f.suffix == ".tfrecord"], "its end"
    )
    assert numbers(Reader(file)) == [1]
    assert not list(file.parent.glob("*.unfinished"))


def test_models_may_share_a_log(tmp_path: Path) -> None:
    log = RequestLog()
    config = LogConfig(prefix=tmp_path / "both", sampling_rate=1.0)
    log.configure(ModelConfig(name=n, base_path="/m", request_log=config) for n in ("a", "b"))
    for name in "abab":
        log.add_predict(config, b"", ModelSpec(name=name), 1, {}, {})
    log.close()

    assert [record.model for record in Reader(config.prefix)] == ["a", "b", "a", "b"]
    assert log.counts == {("a", "OK"): 2, ("b", "OK"): 2}
    assert len(files(config.prefix)) == 1


def test_requests_are_sampled_at_the_models_rate() -> None:
    log = RequestLog()
    for rate in (0.0, 1.0, 0.1):
        config = LogConfig(prefix=Path("/log/m"), sampling_rate=rate)
        log.configure([ModelConfig(name="m", base_path="/m", request_log=config)])
        n_sampled = sum(log.sampled("m") is not None for _ in range(10_000))
        assert abs(n_sampled - rate * 10_000) <= (200 if rate == 0.1 else 0)  # six deviations
        assert log.sampled("other") is None


def test_ids_are_given_only_while_something_is_logged(make_log: MakeLog) -> None:
    log, other = make_log(), make_log()

    ids = [log.identify(b"") for _ in range(1000)] + [other.identify(b"")]

    assert len({*ids}) == 1001
    assert log.identify(b"me") == b"me"
    log.configure([ModelConfig(name="m", base_path="/m")])
    assert log.identify(b"") == log.identify(b"me") == b""


def test_a_log_slower_than_the_requests_drops_counts_and_says_so_once(
    make_log: MakeLog, caplog: pytest.LogCaptureFixture
) -> None:
    log, may_go_on, has_begun = make_log(max_waiting=5), threading.Event(), threading.Event()
    config = log.sampled("m")
    assert config is not None

    class SlowArrays(dict[str, Any]):
        """What is written is asked for by the thread that writes: it waits here."""

        def items(self) -> Any:
            has_begun.set()
            may_go_on.wait(60)
            return super().items()

    log.add_predict(config, b"", ModelSpec(name="m"), 1, SlowArrays(), {})
    assert has_begun.wait(60)
    for number in range(8):
        add(log, number)

    assert (log.records_written, log.records_dropped) == (0, 3)
    assert log.counts["m", "RESOURCE_EXHAUSTED"] == 3
    (message,) = caplog.messages
    assert message.startswith("the request log is slower than the requests: 5 wait")
    may_go_on.set()
    wait_until(lambda: log.records_written == 6, "the rest")
    add(log, 9)
    log.close()
    _, *others = Reader(config.prefix)
    assert [float(record.inputs["x"][0]) for record in others] == [0, 1, 2, 3, 4, 9]


def test_a_log_that_cannot_be_made_again_drops_and_goes_on_when_it_can(
    make_log: MakeLog, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "log"
    log = make_log(rotate_bytes=1)
    folder.write_text("a file where the folder should be")
    for number in range(3):
        add(log, number)
    wait_until(lambda: log.records_dropped == 3, "the three")
    assert log.counts == {("m", "UNAVAILABLE"): 3}
    (message,) = caplog.messages
    assert message == (
        f"the request log {folder}/m cannot be written (File exists): requests are answered,"
        " records are dropped and counted"
    )

    folder.unlink()

    def is_written() -> bool:
        add(log, 5)
        return log.records_written > 0

    wait_until(is_written, "the first that is written again")
    log.close()
    assert {*numbers(Reader(folder / "m"))} == {5}
    assert "is written again" in caplog.messages[1]
    assert len(caplog.messages) == 2


def test_a_file_that_somebody_removes_is_begun_anew(make_log: MakeLog, tmp_path: Path) -> None:
    log = make_log()
    add(log, 1)
    wait_until(lambda: log.records_written, "the first")
    (file,) = files(tmp_path / "log" / "m")

    file.unlink()
    add(log, 2)
    log.close()

    assert numbers(Reader(tmp_path / "log" / "m")) == [2]


def test_a_request_that_cannot_be_logged_takes_no_other_along(
    make_log: MakeLog, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = make_log()

    add(log, 1)
    add(log, 2, method="no_method")
    add(log, 3)
    log.close()

    assert numbers(Reader(tmp_path / "log" / "m")) == [1, 3]
    assert log.counts == {("m", "OK"): 2, ("m", "INTERNAL"): 1}
    assert "a request of m cannot be logged" in caplog.messages


def test_a_folder_is_made_or_refused_before_anything_is_logged(tmp_path: Path) -> None:
    log = RequestLog()

    def check(prefix: Path) -> None:
        config = LogConfig(prefix=prefix, sampling_rate=1.0)
        log.check([ModelConfig(name="m", base_path="/m", request_log=config)])

    check(tmp_path / "a" / "b" / "m")
    assert list((tmp_path / "a" / "b").iterdir()) == []
    (tmp_path / "file").touch()
    for prefix in (tmp_path / "file" / "m", Path("/proc/m"), Path("/proc/none/m")):
        with pytest.raises(FailedPreconditionError, match="choose another filename_prefix"):
            check(prefix)
