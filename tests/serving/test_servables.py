"""The engine itself, in child processes: pytest's own never imports TensorFlow."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlops_mini.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    MlopsMiniError,
    NotFoundError,
    UnimplementedError,
)
from mlops_mini.serving import servables
from tests.serving.servers import run_in_child


def _load(path: Path, **how: Any) -> servables.Servable:
    return servables.load(path, name="m", version=1, timeout_ms=30_000, **how)


def _run(
    servable: servables.Servable,
    signature: servables.Signature,
    *arrays: Any,
    timeout_ms: int | None = None,
) -> list[Any]:
    return servable.run(signature.inputs, signature.outputs, arrays, timeout_ms=timeout_ms)


def _check_calls(models: Path) -> None:
    toy, slow = _load(models / "toy/1"), _load(models / "slow/1")
    several, mixed = toy.signatures["several"], toy.signatures["mixed"]
    n, text, total = np.int64([1]), np.array([b"a"], object), np.float32([[1, 2]])
    assert [spec.alias for spec in several.inputs] == ["n", "text", "total"]
    for limit in (None, 0, 30_000):
        answer = _run(toy, several, n, text, total, timeout_ms=limit)
        assert [array.tolist() for array in answer] == [[2], [b"aa"], [b"a"], [4.0]]
        y, z = _run(toy, mixed, np.float32([1]), timeout_ms=limit)
        assert (y.tolist(), z.tolist()) == ([1.0], [1.0, 1.0])
        with pytest.raises(InvalidArgumentError, match="to be float but double is provided"):
            _run(toy, mixed, np.float64([1]), timeout_ms=limit)
    only_z = toy.run(mixed.inputs, mixed.outputs[1:], [np.float32([1])], timeout_ms=0)
    assert [array.tolist() for array in only_z] == [[1.0, 1.0]]
    counting = slow.signatures["serving_default"]
    with pytest.raises(DeadlineExceededError, match="Timed out waiting for notification"):
        _run(slow, counting, np.int32([2**30]), timeout_ms=500)
    assert _run(slow, counting, np.int32([3]), timeout_ms=500)[0].tolist() == [3]
    # The event loop is for short runs: not for loops, not for what a trial run could not measure.
    assert toy.signatures["serving_default"].is_inline
    assert not counting.is_inline
    assert not toy.signatures["to_number"].is_inline
    assert "__saved_model_init_op" in toy.signature_defs


def test_a_signature_is_called_on_this_thread_or_on_the_pool(
    toy_models: Path, tmp_path: Path
) -> None:
    run_in_child(_check_calls, toy_models, log_file=tmp_path / "log")


def _check_odd(models: Path, folder: Path) -> None:
    import tensorflow as tf

    text = folder / "session.pbtxt"
    text.write_text("inter_op_parallelism_threads: 3 allow_soft_placement: true")
    odd = _load(
        models / "odd/1",
        tags=["odd", "tags"],
        intra_op_threads=2,
        session_config_file=str(text),
    )
    config = odd._session._config
    assert (config.intra_op_parallelism_threads, config.inter_op_parallelism_threads) == (2, 3)
    assert config.allow_soft_placement
    default = odd.signatures["serving_default"]
    assert default.defaults["step"].tolist() == 1.0
    y, z = _run(odd, default, np.array(1, np.float32), np.float32([2]))
    assert (y.tolist(), z.tolist()) == ([3.0], [3.0])
    brain = odd.signatures["brain"]
    assert brain.inputs[0].dtype == "bfloat16"
    x = np.array([1.5], tf.bfloat16.as_numpy_dtype)
    assert [float(v) for v in _run(odd, brain, x)[0]] == [3.0]
    # A sparse input has no single tensor: the model is served, that signature is not.
    with pytest.raises(MlopsMiniError):
        _run(odd, odd.signatures["sparse"], np.float32([[1, 2]]), timeout_ms=0)
    with pytest.raises(MlopsMiniError, match="tags"):
        _load(models / "odd/1")
    text.write_text("inter_op_parallelism_threads: many")
    with pytest.raises(InvalidArgumentError, match="Invalid protobuf file"):
        _load(models / "odd/1", tags=["odd", "tags"], session_config_file=str(text))
    with pytest.raises(NotFoundError, match="No such file or directory"):
        _load(models / "odd/1", tags=["odd", "tags"], session_config_file=str(folder / "none"))


def test_tags_session_flags_defaults_and_odd_types(toy_models: Path, tmp_path: Path) -> None:
    run_in_child(_check_odd, toy_models, tmp_path, log_file=tmp_path / "log")


def _check_ranks(models: Path) -> None:
    convolution = _load(models / "convolution/1")
    signature = convolution.signatures["serving_default"]
    for shape in ((), (1,), (1, 16), (1, 4, 4), (1, 4, 4, 1, 1)):
        shown = ",".join(map(str, shape))
        text = rf"^convolution input must be 4-dimensional: \[{shown}\]$"
        with pytest.raises(InvalidArgumentError, match=text):
            _run(convolution, signature, np.zeros(shape, np.float32))
    assert _run(convolution, signature, np.ones((2, 4, 4, 1), np.float32))[0].tolist() == [100, 100]
    # A model without such ops answers what its graph does not mind.
    toy = _load(models / "toy/1")
    scalar = np.array(2, np.float32)
    assert _run(toy, toy.signatures["serving_default"], scalar)[0].tolist() == 3.0


def test_only_a_convolution_minds_the_rank(toy_models: Path, tmp_path: Path) -> None:
    run_in_child(_check_ranks, toy_models, log_file=tmp_path / "log")


def test_an_old_bundle_and_an_empty_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"called `saved_model.pb`\)\nSpecified file path: /"):
        _load(tmp_path)
    (tmp_path / "export.meta").touch()
    with pytest.raises(UnimplementedError, match=r"^Session Bundle is deprecated"):
        _load(tmp_path)


def _count_leaks(models: Path) -> None:
    counts = []
    for _ in range(4):
        servable = _load(models / "numbered/1")
        signature = servable.signatures["serving_default"]
        assert _run(servable, signature, np.float32([0]))[0].tolist() == [1.0]
        servable.close()
        counts.append([len(list(Path("/proc/self", name).iterdir())) for name in ("fd", "task")])
    assert counts[1] == counts[-1], counts


def test_loading_and_closing_leaks_neither_files_nor_threads(
    toy_models: Path, tmp_path: Path
) -> None:
    run_in_child(_count_leaks, toy_models, log_file=tmp_path / "log")


def _check_broken(models: Path, folder: Path) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    def change(edit: Any) -> Path:
        saved = saved_model_pb2.SavedModel()
        saved.ParseFromString((models / "numbered/1/saved_model.pb").read_bytes())
        edit(saved.meta_graphs[0])
        (folder / "saved_model.pb").write_bytes(saved.SerializeToString())
        return folder

    def lose_tag(meta_graph: Any) -> None:
        meta_graph.meta_info_def.tags[:] = ["train"]

    def lose_tensor(meta_graph: Any) -> None:
        meta_graph.signature_def["serving_default"].inputs["x"].name = "no_such_tensor:0"

    def lose_op(meta_graph: Any) -> None:
        meta_graph.graph_def.node[0].op = "NoSuchOp"

    for edit in (lose_tag, lose_tensor, lose_op):
        with pytest.raises(MlopsMiniError) as raised:
            _load(change(edit))
        assert str(raised.value), edit


def test_whatever_is_wrong_with_a_model_is_one_of_our_errors(
    toy_models: Path, tmp_path: Path
) -> None:
    run_in_child(_check_broken, toy_models, tmp_path, log_file=tmp_path / "log")
