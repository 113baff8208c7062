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
from mlops_mini.serving import saved_model, servables
from tests.serving import models
from tests.serving.servers import run_in_child


def _load(path: Path, **how: Any) -> servables.Servable:
    return servables.load(path, name="m", version=1, **how)


def _run(
    servable: servables.Servable,
    signature: servables.LoadedSignature,
    *arrays: Any,
    timeout_ms: int | None = None,
) -> list[Any]:
    return servable.run(signature.inputs, signature.outputs, arrays, timeout_ms=timeout_ms)


def _check_calls(toys: Path) -> None:
    toy, slow = _load(toys / "toy/1"), _load(toys / "slow/1")
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
    assert "__saved_model_init_op" in toy.signature_defs


def test_a_signature_is_called_on_this_thread_or_on_the_pool(
    toy_models: Path, tmp_path: Path
) -> None:
    run_in_child(_check_calls, toy_models, log_file=tmp_path / "log")


def _check_odd(toys: Path, folder: Path) -> None:
    import tensorflow as tf

    text = folder / "session.pbtxt"
    text.write_text("inter_op_parallelism_threads: 3 allow_soft_placement: true")
    odd = _load(
        toys / "odd/1",
        tags=["odd", "tags"],
        intra_op_threads=2,
        session_config_file=str(text),
    )
    config = odd._close.__self__._config  # of its session
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
    with pytest.raises(UnimplementedError, match=r"sparse cannot be served: .* is a SparseTensor"):
        odd.signatures["sparse"].check_servable()
    with pytest.raises(NotFoundError, match=r"tags: { serve }. The SavedModel has: { odd tags }"):
        _load(toys / "odd/1")
    text.write_text("inter_op_parallelism_threads: many")
    with pytest.raises(InvalidArgumentError, match="Invalid protobuf file"):
        _load(toys / "odd/1", tags=["odd", "tags"], session_config_file=str(text))
    with pytest.raises(NotFoundError, match="No such file or directory"):
        _load(toys / "odd/1", tags=["odd", "tags"], session_config_file=str(folder / "none"))


def test_tags_session_flags_defaults_and_odd_types(toy_models: Path, tmp_path: Path) -> None:
    run_in_child(_check_odd, toy_models, tmp_path, log_file=tmp_path / "log")


def _check_ranks(toys: Path) -> None:
    convolution = _load(toys / "convolution/1")
    signature = convolution.signatures["serving_default"]
    for shape in ((), (1,), (1, 16), (1, 4, 4), (1, 4, 4, 1, 1)):
        shown = ",".join(map(str, shape))
        text = rf"^convolution input must be 4-dimensional: \[{shown}\]$"
        with pytest.raises(InvalidArgumentError, match=text):
            _run(convolution, signature, np.zeros(shape, np.float32))
    assert _run(convolution, signature, np.ones((2, 4, 4, 1), np.float32))[0].tolist() == [100, 100]
    # A model without such ops answers what its graph does not mind.
    toy = _load(toys / "toy/1")
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


def _check_inline(toys: Path) -> None:
    composite, slow = _load(toys / "composite/1"), _load(toys / "slow/1")
    count, default = (composite.signatures[name] for name in ("count", "serving_default"))
    for signature in (count, default, slow.signatures["serving_default"]):
        for _ in range(30):
            signature.costs.add(1, 1e-6)
    # What one number asks for may be anything: neither a loop nor a range is for the event loop.
    assert default.costs.inline_elements == 1
    assert count.costs.inline_elements == -1
    assert slow.signatures["serving_default"].costs.inline_elements == -1


def test_what_a_number_may_make_long_never_runs_on_the_event_loop(
    toy_models: Path, tmp_path: Path
) -> None:
    run_in_child(_check_inline, toy_models, log_file=tmp_path / "log")


def _check_pieces(folder: Path) -> None:
    import tensorflow as tf

    v1 = tf.compat.v1
    models.write_large(f"{folder}/large")
    models.write_constants(f"{folder}/constants")
    with v1.Graph().as_default(), v1.Session() as session:
        v1.disable_control_flow_v2()
        x = v1.placeholder(tf.float32, [None], "x")
        with tf.control_dependencies([tf.debugging.assert_less(x, 100.0), tf.no_op("nothing")]):
            start = tf.identity(x, "a/b")
        _, looped = v1.while_loop(lambda i, _: i < 3, lambda i, y: (i + 1, y * 2.0), [0, start])
        v1.saved_model.simple_save(session, f"{folder}/looped", {"x": x}, {"y": looped})
        controlled = tf.identity(start, "a")
        v1.saved_model.simple_save(session, f"{folder}/plain", {"x": x}, {"y": controlled})
    sizes: list[int] = []
    whole = saved_model._import_piece

    def counted(graph: Any, piece: Any, producer: Any) -> None:
        sizes.append(piece.ByteSize())
        whole(graph, piece, producer)

    saved_model._import_piece = counted
    asked = {"large": [1.0, 2.0], "constants": [[1.0] * 1000], "looped": [1.0, 2.0], "plain": [3.0]}
    right = {"large": [1.0, 2.0], "constants": [38e6], "looped": [8.0, 16.0], "plain": [3.0]}
    for name, values in asked.items():
        servable = _load(folder / name)
        signature = servable.signatures["serving_default"]
        (y,) = _run(servable, signature, np.float32(values), timeout_ms=0)
        assert y.tolist() == right[name]
        servable.close()
    assert max(sizes) < 10 * 2**20  # of 150 MB
    assert len(sizes) > 20


def test_a_large_graph_is_imported_in_pieces_and_means_the_same(tmp_path: Path) -> None:
    run_in_child(_check_pieces, tmp_path, log_file=tmp_path / "log")


def _count_leaks(toys: Path) -> None:
    counts = []
    for _ in range(4):
        servable = _load(toys / "numbered/1")
        signature = servable.signatures["serving_default"]
        assert _run(servable, signature, np.float32([0]))[0].tolist() == [1.0]
        servable.close()
        counts.append([len(list(Path("/proc/self", name).iterdir())) for name in ("fd", "task")])
    assert counts[1] == counts[-1], counts


def test_loading_and_closing_leaks_neither_files_nor_threads(
    toy_models: Path, tmp_path: Path
) -> None:
    run_in_child(_count_leaks, toy_models, log_file=tmp_path / "log")


def _check_broken(toys: Path, folder: Path) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    def change(edit: Any) -> Path:
        saved = saved_model_pb2.SavedModel()
        saved.ParseFromString((toys / "numbered/1/saved_model.pb").read_bytes())
        edit(saved.meta_graphs[0])
        (folder / "saved_model.pb").write_bytes(saved.SerializeToString())
        return folder

    def lose_tag(meta_graph: Any) -> None:
        meta_graph.meta_info_def.tags[:] = ["train"]

    def lose_tensor(meta_graph: Any) -> None:
        meta_graph.signature_def["serving_default"].inputs["x"].name = "no_such_tensor:0"

    def lose_op(meta_graph: Any) -> None:
        for node in meta_graph.graph_def.node:
            node.op = "NoSuchOp"

    with pytest.raises(NotFoundError, match=r"^Could not find meta graph def matching"):
        _load(change(lose_tag))
    with pytest.raises(MlopsMiniError, match=r"^Op type not registered"):
        _load(change(lose_op))
    (folder / "saved_model.pb").write_bytes(b"no protobuf \xff\xff")
    with pytest.raises(MlopsMiniError, match=r"^Can't parse .*saved_model.pb as binary proto") as e:
        _load(folder)
    assert e.value.code == 15
    # What is wrong with one signature is said when that one is asked.
    servable = _load(change(lose_tensor))
    with pytest.raises(MlopsMiniError, match="no_such_tensor"):
        _run(servable, servable.signatures["serving_default"], np.float32([0]), timeout_ms=0)


def test_whatever_is_wrong_with_a_model_is_one_of_our_errors(
    toy_models: Path, tmp_path: Path
) -> None:
    run_in_child(_check_broken, toy_models, tmp_path, log_file=tmp_path / "log")
