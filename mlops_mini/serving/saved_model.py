"""A SavedModel read into a session, in pieces, so that answers go on while a large one loads.

TensorFlow's own loader imports a whole graph in one call that holds Python's interpreter lock: for
a ResNet half a second in which nothing is answered. Here only what the signatures, the restore and
the init op need is imported, and in pieces. A run of the restore and of the init op releases the
lock, and nothing else is run: a signature may have side effects.

What still holds the lock is parsing the file, and what cannot be cut: one large constant, one large
function, old-style loops. Weights belong in variables.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops_mini.errors import MlopsMiniError, NotFoundError, UnimplementedError, by_code

INIT_OP = "__saved_model_init_op"  # a signature that isn't one
_INIT_COLLECTIONS = ("saved_model_main_op", "legacy_init_op")
_PIECE_NODES, _PIECE_BYTES = 200, 4 * 2**20
_DATA_LOSS = 15


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedGraph:
    """What a session holds after a load.

    Attributes:
        signature_defs: The SavedModel's own description of its signatures, by name.
        ops: Names of the ops that a run of a signature can reach, by the signature's name.
    """

    signature_defs: Mapping[str, Any]
    ops: Mapping[str, Set[str]]


def load(session: Any, path: Path, tags: Sequence[str]) -> LoadedGraph:
    """Import a SavedModel's graph into an empty session, restore its variables, run its init op.

    Args:
        session: A `tf.compat.v1.Session` with a graph of its own.
        path: Version folder, with `saved_model.pb` (or `.pbtxt`) and `variables/`.
        tags: Exact tags of the graph to load.

    Raises:
        MlopsMiniError: There is no such graph, or the file is broken; in TensorFlow's words.
        Exception: Whatever TensorFlow raises for a graph that it cannot import, restore or init.
    """
    meta_graph = _meta_graph(_parse(path), tags)
    signature_defs = dict(meta_graph.signature_def.items())
    graph = _Graph(meta_graph.graph_def)
    saver, init_op = meta_graph.saver_def, _init_op(meta_graph)
    assets = {
        asset.tensor_info.name: str(path / "assets" / asset.filename)
        for asset in _assets(meta_graph)
    }
    roots = {
        key: _tensors(definition) for key, definition in signature_defs.items() if key != INIT_OP
    }
    others = [*assets, saver.restore_op_name, saver.filename_tensor_name, init_op]
    needed = graph.reach(itertools.chain(others, *roots.values()))
    graph.import_into(session.graph, needed, meta_graph.meta_info_def)
    variables = path / "variables" / "variables"
    if saver.restore_op_name and variables.with_name("variables.index").exists():
        feeds = {**assets, saver.filename_tensor_name: str(variables)}
        _run_op(session, saver.restore_op_name, feeds)
    if init_op:
        _run_op(session, init_op, assets)
    return LoadedGraph(
        signature_defs=signature_defs,
        ops={key: graph.ops(graph.reach(tensors)) for key, tensors in roots.items()},
    )


def _parse(path: Path) -> Any:
    from google.protobuf import text_format
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    binary, text = path / "saved_model.pb", path / "saved_model.pbtxt"
    try:
        if binary.is_file():
            return saved_model_pb2.SavedModel.FromString(binary.read_bytes())
        if text.is_file():
            return text_format.Parse(text.read_bytes(), saved_model_pb2.SavedModel())
    except DecodeError as exc:
        raise by_code(_DATA_LOSS, f"Can't parse {binary} as binary proto") from exc
    except (text_format.ParseError, UnicodeDecodeError) as exc:
        raise by_code(_DATA_LOSS, f"Can't parse {text} as text proto: {exc}") from exc
    if (path / "export.meta").is_file():
        raise UnimplementedError("Session Bundle is deprecated and removed.")
    raise NotFoundError(
        "Specified file path does not appear to contain a SavedModel bundle (should have a file"
        f" called `saved_model.pb`)\nSpecified file path: {path}"
    )


def _meta_graph(saved_model: Any, tags: Sequence[str]) -> Any:
    for meta_graph in saved_model.meta_graphs:
        if {*meta_graph.meta_info_def.tags} == {*tags}:
            return meta_graph
    there = [f"{{ {' '.join(graph.meta_info_def.tags)} }}" for graph in saved_model.meta_graphs]
    raise NotFoundError(
        f"Could not find meta graph def matching supplied tags: {{ {' '.join(tags)} }}. The"
        f" SavedModel has: {', '.join(there)}. To inspect available tag-sets in the SavedModel,"
        " please use the SavedModel CLI: `saved_model_cli`"
    )


def _init_op(meta_graph: Any) -> str:
    """Name the op that makes the model ready, such as the filling of its tables; empty for none."""
    if INIT_OP in meta_graph.signature_def:
        outputs = meta_graph.signature_def[INIT_OP].outputs
        return str(outputs[INIT_OP].name) if INIT_OP in outputs else ""
    for key in _INIT_COLLECTIONS:
        if key in meta_graph.collection_def:
            names = meta_graph.collection_def[key].node_list.value
            if len(names) != 1:
                raise MlopsMiniError(f"Expected exactly one main op in : {key}, got {len(names)}")
            return str(names[0])
    return ""


def _assets(meta_graph: Any) -> Iterable[Any]:
    """List which files are fed to the init op."""
    from tensorflow.core.protobuf import meta_graph_pb2

    if meta_graph.asset_file_def or "saved_model_assets" not in meta_graph.collection_def:
        return list(meta_graph.asset_file_def)
    packed = meta_graph.collection_def["saved_model_assets"].any_list.value
    return [meta_graph_pb2.AssetFileDef.FromString(asset.value) for asset in packed]


def _tensors(signature_def: Any) -> list[str]:
    """Name every tensor of a signature, the parts of composite ones too."""
    names = []
    for info in (*signature_def.inputs.values(), *signature_def.outputs.values()):
        sparse = info.coo_sparse
        parts = (
            sparse.values_tensor_name,
            sparse.indices_tensor_name,
            sparse.dense_shape_tensor_name,
        )
        names += [info.name, *parts, *(part.name for part in info.composite_tensor.components)]
    return names


def _run_op(session: Any, name: str, feeds: Mapping[str, str]) -> None:
    import numpy as np
    from tensorflow.core.protobuf import config_pb2

    options = config_pb2.CallableOptions(feed=list(feeds), target=[name.partition(":")[0]])
    run = session._make_callable_from_options(options)  # noqa: SLF001 - as in servables
    run(*(np.array(value.encode(), object) for value in feeds.values()))


class _Graph:
    """A GraphDef with its nodes and functions by name."""

    def __init__(self, graph_def: Any) -> None:
        self._versions = graph_def.versions
        self._nodes = {node.name: node for node in graph_def.node}
        self._functions = {f.signature.name: f for f in graph_def.library.function}
        self._gradients = {g.function_name: g for g in graph_def.library.gradient}

    def reach(self, tensors: Iterable[str]) -> dict[str, Any]:
        """Find the nodes that these tensors or ops are computed from, in no order, by name.

        A name that isn't there is left out: whoever asks for it is told so by TensorFlow.
        """
        reached: dict[str, Any] = {}
        waiting = [_node_name(tensor) for tensor in tensors]
        while waiting:
            name = waiting.pop()
            if name in reached or name not in self._nodes:
                continue
            reached[name] = self._nodes[name]
            waiting += map(_node_name, reached[name].input)
        return reached

    def ops(self, nodes: Mapping[str, Any]) -> Set[str]:
        """Name the ops of these nodes, and of the functions that they call."""
        bodies = [self._functions[name].node_def for name in self._called(nodes.values())]
        return {node.op for body in (nodes.values(), *bodies) for node in body}

    def _called(self, nodes: Iterable[Any]) -> list[str]:
        """Name the functions that nodes call, directly or through others."""
        called: dict[str, None] = {}
        waiting = list(_calls(nodes))
        while waiting:
            name = waiting.pop()
            if name in called or name not in self._functions:
                continue
            called[name] = None
            waiting += _calls(self._functions[name].node_def)
            if name in self._gradients:
                waiting.append(self._gradients[name].gradient_func)
        return list(called)

    def import_into(self, graph: Any, nodes: Mapping[str, Any], meta_info: Any) -> None:
        """Import these nodes, and the functions that they call, into an empty `tf.Graph`."""
        import tensorflow as tf

        producer = meta_info.stripped_op_list if meta_info.HasField("stripped_op_list") else None

        def import_functions(names: Iterable[str]) -> None:
            for name in names:
                piece = tf.compat.v1.GraphDef(versions=self._versions)
                piece.library.function.append(self._functions[name])
                if name in self._gradients:
                    piece.library.gradient.append(self._gradients[name])
                _import_piece(graph, piece, producer)

        called = self._called(nodes.values())
        ops = {node.op for node in nodes.values()}
        import_functions(name for name in called if name in ops)
        for piece_nodes in _pieces(nodes):
            piece = tf.compat.v1.GraphDef(versions=self._versions)
            piece.node.extend(piece_nodes)
            _import_piece(graph, piece, producer)
        # Last: where a function is known, each node that calls it infers the shapes of all of it.
        import_functions(name for name in called if name not in ops)


def _import_piece(graph: Any, piece: Any, producer: Any) -> None:
    """Import nodes that may take what earlier pieces have brought, under their own names.

    As `tf.import_graph_def`, which knows no control dependency on what was there before. Private to
    TensorFlow 2.21.
    """
    from tensorflow.python.client import pywrap_tf_session as c_api
    from tensorflow.python.framework import c_api_util, importer

    if producer is not None:
        importer._RemoveDefaultAttrs(producer, piece)  # noqa: SLF001
    here = {node.name for node in piece.node}
    scoped = c_api_util.ScopedTFImportGraphDefOptions()  # deletes what it holds
    options = scoped.options
    c_api.TF_ImportGraphDefOptionsSetUniquifyNames(options, False)
    c_api.TF_ImportGraphDefOptionsSetValidateColocationConstraints(options, False)
    for tensor in {tensor for node in piece.node for tensor in node.input}:
        name, _, index = tensor.partition(":")
        if _node_name(tensor) in here:
            continue
        operation = graph.get_operation_by_name(_node_name(tensor))
        if tensor[0] == "^":
            c_api.TF_ImportGraphDefOptionsRemapControlDependency(
                options,
                name[1:],
                operation._c_op,  # noqa: SLF001
            )
        else:
            output = operation.outputs[int(index or 0)]._as_tf_output()  # noqa: SLF001
            c_api.TF_ImportGraphDefOptionsAddInputMapping(options, name, int(index or 0), output)
    serialized = c_api.TF_NewBufferFromString(piece.SerializeToString())
    try:
        with graph._c_graph.get() as c_graph:  # noqa: SLF001
            results = c_api.TF_GraphImportGraphDefWithResults(c_graph, serialized, options)
        c_api_util.ScopedTFImportGraphDefResults(results)
    finally:
        c_api.TF_DeleteBuffer(serialized)
    graph._add_new_tf_operations(compute_devices=False)  # noqa: SLF001


def _node_name(tensor: str) -> str:
    """Name the node of a tensor or a control input.

    >>> _node_name("dense/MatMul:0"), _node_name("^init")
    ('dense/MatMul', 'init')
    """
    return tensor.removeprefix("^").partition(":")[0]


def _calls(nodes: Iterable[Any]) -> Iterator[str]:
    """Name what may be functions: in attributes, or a node's own op."""
    for node in nodes:
        yield node.op
        yield from _calls_in_attributes(node)


def _calls_in_attributes(node: Any) -> Iterator[str]:
    for attribute in node.attr.values():
        kind = attribute.WhichOneof("value")
        if kind == "func":
            yield attribute.func.name
        elif kind == "list":
            yield from (function.name for function in attribute.list.func)


def _pieces(nodes: Mapping[str, Any]) -> Iterator[list[Any]]:
    """Cut nodes into lists that are imported one after another, each after what it takes.

    No cut comes between `a/b` and a later `a`: an import refuses a name in which others lie.
    A graph with an old-style loop is not cut at all.
    """
    order = _in_order(nodes)
    if len(order) < len(nodes):
        yield list(nodes.values())
        return
    piece: list[Any] = []
    n_bytes = 0
    placed, waited_for = set[str](), set[str]()
    for name in order:
        node, size = nodes[name], nodes[name].ByteSize()
        is_call = any(_calls_in_attributes(node))  # which checks the shapes of a whole function
        is_full = is_call or len(piece) >= _PIECE_NODES or n_bytes + size > _PIECE_BYTES
        if piece and is_full and not waited_for:
            yield piece
            piece, n_bytes = [], 0
        piece.append(node)
        n_bytes += _PIECE_BYTES if is_call else size
        placed.add(name)
        waited_for = (waited_for | (nodes.keys() & _scopes(name))) - placed
    yield piece


def _scopes(name: str) -> set[str]:
    """List the names that a name lies in.

    >>> sorted(_scopes("net/dense/MatMul"))
    ['net', 'net/dense']
    """
    parts = name.split("/")
    return {"/".join(parts[:n]) for n in range(1, len(parts))}


def _in_order(nodes: Mapping[str, Any]) -> list[str]:
    """Order names so that each comes after what it takes, and not long before it is taken.

    Kahn's algorithm, from the outputs backwards; nodes on a cycle, and before it, are left out.
    """
    sources = {
        name: {_node_name(tensor) for tensor in node.input} & nodes.keys()
        for name, node in nodes.items()
    }
    n_takers = dict.fromkeys(nodes, 0)
    for name in itertools.chain.from_iterable(sources.values()):
        n_takers[name] += 1
    ready = [name for name, n in n_takers.items() if not n]
    order = []
    while ready:
        order.append(ready.pop())
        for source in sources[order[-1]]:
            n_takers[source] -= 1
            if not n_takers[source]:
                ready.append(source)
    return order[::-1]
