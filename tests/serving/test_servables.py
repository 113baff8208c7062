"""The engine itself, in child processes: pytest's own never imports TensorFlow."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlops_mini.errors import DeadlineExceededError, InvalidArgumentError, MlopsMiniError
from mlops_mini.serving import servables
from tests.serving.servers import run_in_child


def _load(path: Path, timeout_ms: int = 30_000) -> servables.Servable:
    return servables.load(path, name="m", version=1, timeout_ms=timeout_ms)


def _check_calls(models: Path) -> None:
    toy, slow = _load(models / "toy/1"), _load(models / "slow/1", timeout_ms=50)
    several, mixed = toy.signatures["several"], toy.signatures["mixed"]
    n, text, total = np.int64([1]), np.array([b"a"], object), np.float32([[1, 2]])
    assert [spec.alias for spec in several.inputs] == ["n", "text", "total"]
    for inline in (True, False):
        answer = toy.run(several, [n, text, total], inline=inline)
        assert [array.tolist() for array in answer] == [[2], [b"aa"], [b"a"], [4.0]]
        y, z = toy.run(mixed, [np.float32([1])], inline=inline)
        assert (y.tolist(), z.tolist()) == ([1.0], [1.0, 1.0])
        with pytest.raises(InvalidArgumentError, match="to be float but double is provided"):
            toy.run(mixed, [np.float64([1])], inline=inline)
    counting = slow.signatures["serving_default"]
    with pytest.raises(DeadlineExceededError, match="Timed out waiting for notification"):
        slow.run(counting, [np.int32([2**30])], inline=False)
    assert slow.run(counting, [np.int32([3])], inline=False)[0].tolist() == [3]
    # The event loop is for short runs: not for loops, not for what a trial run could not measure.
    assert toy.signatures["serving_default"].is_inline
    assert not counting.is_inline
    assert not toy.signatures["to_number"].is_inline
    assert "__saved_model_init_op" in toy.signature_defs


def test_a_signature_is_called_on_this_thread_or_on_the_pool(
    toy_models: Path, tmp_path: Path
) -> None:
    run_in_child(_check_calls, toy_models, log_file=tmp_path / "log")


def _count_leaks(models: Path) -> None:
    counts = []
    for _ in range(4):
        servable = _load(models / "numbered/1")
        signature = servable.signatures["serving_default"]
        assert servable.run(signature, [np.float32([0])], inline=True)[0].tolist() == [1.0]
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
