"""A digest of what a SavedModel answers, whatever its files look like.

Two exports of bit-identical weights differ in nearly every file: names carry running numbers, nodes
come in another order, the checkpoint is cut elsewhere. So the digest is made of what the files
mean: the signatures, the values of the variables, and the operations with their constants, among
them the vocabularies, means and variances that the preprocessing was given.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mlops_mini.errors import DataIntegrityError, NotFoundError

# Attributes that are names or hints; so are all that begin with _.
_NAMES = {"shared_name", "container", "debug_name", "frame_name", "config_proto", "executor_type"}
_VARIABLES = {"VarHandleOp", "VariableV2", "Variable"}
_BOOKKEEPING = ("_CHECKPOINTABLE_OBJECT_GRAPH", "save_counter")
# Under this name Keras stores all variables once more, in an order that each export draws anew.
_UNORDERED = "_all_variables/"


def model_digest(folder: Path) -> str:
    """Digest a SavedModel by what it answers.

    These count:

    - each signature: its name, the names, types and shapes of inputs and outputs, the defaults;
    - the operations that a signature or the start of the model reaches, with their attributes and
      constants: lookup vocabularies, means and variances, activations;
    - the value of every variable in the checkpoint, in the order of their names;
    - the contents of the assets, in the order of their names.

    These don't: names inside the graph, the order of its nodes, how the checkpoint is cut,
    `assets.extra`. Nor does the digest see which operation feeds which: it's the same for `a - b`
    and `b - a`, and if two constants of one signature change places.

    Args:
        folder: A SavedModel of any kind: Keras' export, `tf.saved_model.save`, TensorFlow 1. If it
            holds several graphs, the one tagged `serve` counts.

    Returns:
        SHA-256, 64 hex digits. Two exports of the same weights by the same TensorFlow have the same
        digest; another TensorFlow may write the same model with other operations.

    Raises:
        NotFoundError: There's no SavedModel in the folder.
        DataIntegrityError: Its files are damaged, or its variables or an asset are missing.

    >>> model_digest(Path("/tmp"))
    Traceback (most recent call last):
    mlops_mini.errors.NotFoundError: no SavedModel in /tmp: it has no saved_model.pb
    """
    graph = _graph(folder)
    starts = {name: _tensors(signature) for name, signature in graph.signature_def.items()}
    for name in ("saved_model_main_op", "legacy_init_op"):  # what TensorFlow 1 runs at the start
        starts[name] = list(graph.collection_def[name].node_list.value)
    nodes = {name: _reached(graph, tensors) for name, tensors in starts.items()}
    entry_points = [
        _hash(
            name.encode(),
            _interface(graph.signature_def[name]),
            _hash(*sorted(map(_digest_node, nodes[name]))),
        )
        for name in sorted(nodes)
    ]
    needs_variables = any(node.op in _VARIABLES for reached in nodes.values() for node in reached)
    return _hash(
        _hash(*entry_points),
        _hash(*_variables(folder, is_needed=needs_variables)),
        _hash(*_assets(folder, graph)),
    ).hex()


def check_digest(folder: Path, expected: str) -> None:
    """Make sure that a model is still the one that was chosen.

    Args:
        folder: A SavedModel.
        expected: Its `model_digest` when it was chosen.

    Raises:
        NotFoundError: There's no SavedModel in the folder.
        DataIntegrityError: It's another one.
    """
    if model_digest(folder) != expected:
        raise DataIntegrityError(
            f"the model in {folder} does not have the digest {expected!r}: it was replaced;"
            " choose a version anew"
        )


def _hash(*parts: bytes) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(b"%d:" % len(part))
        digest.update(part)
    return digest.digest()


def _graph(folder: Path) -> Any:
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    file = folder / "saved_model.pb"
    if not file.is_file():
        raise NotFoundError(f"no SavedModel in {folder}: it has no saved_model.pb")
    try:
        graphs = saved_model_pb2.SavedModel.FromString(file.read_bytes()).meta_graphs
        return next((g for g in graphs if "serve" in g.meta_info_def.tags), None) or graphs[0]
    except (DecodeError, IndexError) as exc:
        raise DataIntegrityError(f"{file} is no SavedModel: export the model again") from exc


def _tensors(signature: Any) -> list[str]:
    """Name the tensors of inputs and outputs; one that's sparse or composite has several."""
    names = []
    for info in (*signature.inputs.values(), *signature.outputs.values()):
        sparse = info.coo_sparse
        names += [info.name, sparse.values_tensor_name, sparse.indices_tensor_name]
        names += [sparse.dense_shape_tensor_name]
        names += [part.name for part in info.composite_tensor.components]
    return [name for name in names if name]


def _interface(signature: Any) -> bytes:
    """Write down a signature as its callers know it, without the tensors behind it."""
    public = type(signature).FromString(signature.SerializeToString())
    for info in (*public.inputs.values(), *public.outputs.values()):
        for tensors in ("name", "coo_sparse", "composite_tensor"):
            info.ClearField(tensors)
    return bytes(public.SerializeToString(deterministic=True))


def _reached(graph: Any, tensors: Iterable[str]) -> list[Any]:
    """Find the nodes that some tensors depend on, and all those of the functions they call."""
    main = {node.name: node for node in graph.graph_def.node}
    # In the graph an asset is a constant with the path that it had on another machine.
    assets = {asset.tensor_info.name.partition(":")[0] for asset in graph.asset_file_def}
    waiting, seen = list(tensors), set(assets)
    nodes = []
    while waiting:
        name = waiting.pop().lstrip("^").partition(":")[0]
        if name not in seen:
            seen.add(name)
            nodes.append(main[name])
            waiting += main[name].input
    functions = {f.signature.name: f.node_def for f in graph.graph_def.library.function}
    for node in nodes:  # it grows on the way
        called = [node.op]
        for value in node.attr.values():
            called += [value.func.name, *(function.name for function in value.list.func)]
        for name in called:
            nodes += functions.pop(name, ())
    return nodes


def _digest_node(node: Any) -> bytes:
    """Digest an operation by its kind and attributes; a constant's value is one of them."""
    return _hash(
        node.op.encode(),
        *(
            _hash(name.encode(), value.SerializeToString(deterministic=True))
            for name, value in sorted(node.attr.items())
            if not (
                name in _NAMES or name.startswith("_") or value.HasField("func") or value.list.func
            )
        ),
    )


def _variables(folder: Path, *, is_needed: bool) -> list[bytes]:
    """Digest the tensors of the checkpoint."""
    import tensorflow as tf

    prefix = folder / "variables" / "variables"
    if not prefix.with_suffix(".index").is_file():
        if is_needed:
            raise DataIntegrityError(f"{folder} lacks the variables of its graph: export it again")
        return []
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        digests = [
            ("" if name.startswith(_UNORDERED) else name, _digest_array(reader.get_tensor(name)))
            for name in reader.get_variable_to_shape_map()
            if not name.startswith(_BOOKKEEPING)
        ]
    except (tf.errors.OpError, ValueError, RuntimeError, LookupError) as exc:
        reason = str(exc).partition("\n")[0]
        raise DataIntegrityError(
            f"the checkpoint {prefix} is damaged ({reason}): export the model again"
        ) from exc
    return [digest for _, digest in sorted(digests)]


def _digest_array(values: Any) -> bytes:
    import numpy as np

    array = np.asarray(values)
    content = repr(array.tolist()).encode() if array.dtype.hasobject else array.tobytes()
    return _hash(str(array.dtype).encode(), str(array.shape).encode(), content)


def _assets(folder: Path, graph: Any) -> list[bytes]:
    names = sorted(asset.filename for asset in graph.asset_file_def)
    missing_names = [name for name in names if not (folder / "assets" / name).is_file()]
    if missing_names:
        raise DataIntegrityError(f"{folder} lacks the assets {missing_names}: export it again")
    return [_hash((folder / "assets" / name).read_bytes()) for name in names]
