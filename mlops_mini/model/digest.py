"""A digest of what a SavedModel does, whatever its files look like.

Two exports of bit-identical weights differ in nearly every file: names carry running numbers, nodes
come in another order, the checkpoint is cut elsewhere. So the files are read for what they mean.
From each output of each signature the graph is followed back to the inputs, through the functions
it calls, and every operation on the way is digested with what goes into it: constants by their
value, variables by their value in the checkpoint, lookup tables by what fills them. Names of nodes,
functions and files have no say. No model is built and no operation run.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlops_mini.errors import DataIntegrityError, NotFoundError

_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
# Operations that fill what their first input points to: variables and lookup tables.
_FILLS = ("Assign", "InitializeTable", "LookupTableImport", "LookupTableInsert")
# Attributes that are names or hints; those that begin with _ are too.
_NAMES = {"shared_name", "container", "debug_name", "frame_name", "config_proto", "executor_type"}
_BOOKKEEPING = ("_CHECKPOINTABLE_OBJECT_GRAPH", "save_counter")


# Scope and name of a node, or what a value is where it comes from outside: input, argument, tensor
# of the checkpoint, asset.
_Key = tuple[Any, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Scope:
    """The nodes of the graph, or of one call of a function; `caller` is where it was called."""

    nodes: Mapping[str, Any]
    function: Any = None
    caller: _Key | None = None
    inner: "dict[str, _Scope]" = field(default_factory=dict)


def model_digest(folder: Path) -> str:
    """Digest a SavedModel by its meaning.

    Count: name, types and shapes of each signature; the structure, the constants and the attributes
    of all operations that its outputs depend on or that run for their effect; the contents of
    variables and lookup tables among them, assets included; the value of every variable in the
    checkpoint. Not counted: names inside the graph, the order of nodes, `assets.extra`, how the
    checkpoint is cut, that Keras stores a variable twice.

    Args:
        folder: A SavedModel of any kind: Keras' export, `tf.saved_model.save`, TensorFlow 1. Of
            several graphs the one tagged `serve` counts.

    Returns:
        SHA-256, 64 hex digits. Equal digests mean equal answers. The reverse need not hold: another
        TensorFlow may write the same model with other operations.

    Raises:
        NotFoundError: There is no SavedModel in the folder.
        DataIntegrityError: Its files are damaged, or a variable or asset is missing.

    >>> model_digest(Path("/tmp"))
    Traceback (most recent call last):
    mlops_mini.errors.NotFoundError: no SavedModel in /tmp: it has no saved_model.pb
    """
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    if not (folder / "saved_model.pb").is_file():
        raise NotFoundError(f"no SavedModel in {folder}: it has no saved_model.pb")
    try:
        graphs = saved_model_pb2.SavedModel.FromString(
            (folder / "saved_model.pb").read_bytes()
        ).meta_graphs
        graph = next((g for g in graphs if "serve" in g.meta_info_def.tags), None) or graphs[0]
    except (DecodeError, IndexError) as exc:
        raise DataIntegrityError(
            f"{folder}/saved_model.pb is no SavedModel: export the model again"
        ) from exc
    tensors = _checkpoint(folder)
    model = _Model(folder, graph, tensors)
    signatures = [
        _hash(name.encode(), _Signature(model, signature).digest())
        for name, signature in sorted(graph.signature_def.items())
        if not name.startswith("__saved_model")
    ]
    values = {value for name, value in tensors.items() if not name.startswith(_BOOKKEEPING)}
    return _hash(_hash(*signatures), _hash(*sorted(values))).hex()


def check_digest(folder: Path, expected: str) -> None:
    """Make sure that a model is the one that somebody meant.

    Args:
        folder: A SavedModel.
        expected: Its `model_digest` when it was chosen.

    Raises:
        NotFoundError: There is no SavedModel in the folder.
        DataIntegrityError: It is another one.
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


def _hash_array(array: Any) -> bytes:
    if array.dtype.kind in "OSU":
        texts = [t if isinstance(t, bytes) else str(t).encode() for t in array.ravel().tolist()]
        return _hash(b"string", str(array.shape).encode(), *texts)
    return _hash(str(array.dtype).encode(), str(array.shape).encode(), array.tobytes())


def _checkpoint(folder: Path) -> dict[str, bytes]:
    """Hash each tensor of the checkpoint, by name; nothing if there is none."""
    import numpy as np
    import tensorflow as tf

    prefix = folder / "variables" / "variables"
    if not prefix.with_suffix(".index").is_file():
        return {}
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        names = reader.get_variable_to_shape_map()
        return {name: _hash_array(np.asarray(reader.get_tensor(name))) for name in names}
    except (tf.errors.OpError, ValueError, RuntimeError, LookupError) as exc:
        text = str(exc).partition("\n")[0]
        raise DataIntegrityError(
            f"the checkpoint {prefix} is damaged ({text}): export the model again"
        ) from exc


class _Model:
    """The graph with its functions and checkpoint, and what fills its variables and tables."""

    def __init__(self, folder: Path, graph: Any, tensors: Mapping[str, bytes]) -> None:
        self.folder = folder
        self.tensors = tensors
        self.functions = {f.signature.name: f for f in graph.graph_def.library.function}
        self.main = _Scope({node.name: node for node in graph.graph_def.node})
        self.assets = {
            asset.tensor_info.name.partition(":")[0]: asset.filename
            for asset in graph.asset_file_def
        }
        starts = [graph.saver_def.restore_op_name]
        if "__saved_model_init_op" in graph.signature_def:
            outputs = graph.signature_def["__saved_model_init_op"].outputs
            starts += [info.name for info in outputs.values()]
        for name in {"saved_model_main_op", "legacy_init_op"} & set(graph.collection_def):
            starts += graph.collection_def[name].node_list.value
        self.fillers: dict[_Key, list[_Key]] = {}
        for scope, name in self._run_by({_node_name(start) for start in starts if start}):
            node = scope.nodes[name]
            if node.op.startswith(_FILLS):
                filled, _ = self.source(scope, node.input[0], {}, {})
                self.fillers.setdefault(filled, []).append((scope, name))

    def body(self, function: str, caller: _Key | None = None) -> _Scope:
        """The nodes of a function, as called at one place or as such."""
        definition = self.functions[function]
        return _Scope({node.name: node for node in definition.node_def}, definition, caller)

    def called(self, scope: _Scope, name: str) -> _Scope | None:
        """What a node calls; None where it is a plain operation."""
        node = scope.nodes[name]
        function = node.attr["f"].func.name if node.op in _CALLS else node.op
        if function in self.functions and name not in scope.inner:
            scope.inner[name] = self.body(function, (scope, name))
        return scope.inner.get(name)

    def source(
        self, scope: _Scope, text: str, feeds: Mapping[str, str], calls: dict[_Key, None]
    ) -> tuple[_Key, str]:
        """Follow an input to the operation that makes it, and note the calls on the way.

        Returns:
            The operation, and which of its outputs.
        """
        while True:
            name, _, output = text.lstrip("^").partition(":")
            if scope is self.main and f"{name}:{output or 0}" in feeds:
                return ("input", feeds[f"{name}:{output or 0}"]), ""
            if name not in scope.nodes:  # an argument of the function
                arguments = [argument.name for argument in scope.function.signature.input_arg]
                if scope.caller is None:
                    return ("argument", str(arguments.index(name))), ""
                text = scope.caller[0].nodes[scope.caller[1]].input[arguments.index(name)]
                scope = scope.caller[0]
                continue
            node, position = scope.nodes[name], int(output.rpartition(":")[2] or 0)
            inner = self.called(scope, name)
            if inner is not None and not text.startswith("^"):
                calls[scope, name] = None
                result = inner.function.signature.output_arg[position].name
                scope, text = inner, inner.function.ret[result]
            elif node.op == "Identity" and len(node.input) == 1:
                text = node.input[0]
            elif node.op == "RestoreV2":
                names, slices = (self._texts(scope, node.input[i]) for i in (1, 2))
                return ("tensor", names[position], slices[position]), ""
            elif scope is self.main and name in self.assets:
                return ("asset", self.assets[name]), ""
            else:
                return (scope, name), output or "0"

    def outside(self, kind: str, name: str, *further: str) -> bytes:
        """Digest what comes from outside of the graph."""
        if kind == "tensor" and name in self.tensors:
            return _hash(kind.encode(), self.tensors[name], *(text.encode() for text in further))
        asset = self.folder / "assets" / name
        if kind == "asset" and asset.is_file():
            return _hash(kind.encode(), asset.read_bytes())
        if kind in {"tensor", "asset"}:
            raise DataIntegrityError(
                f"{self.folder} lacks the {kind} {name!r} that its graph reads: export it again"
            )
        return _hash(kind.encode(), name.encode())

    def _texts(self, scope: _Scope, text: str) -> list[str]:
        import tensorflow as tf

        (holder, name), _ = self.source(scope, text, {}, {})
        tensor = tf.make_ndarray(holder.nodes[name].attr["value"].tensor)
        return [each.decode() for each in tensor.ravel().tolist()]

    def _run_by(self, starts: set[str]) -> set[_Key]:
        """Find all that runs when these nodes of the main graph do, inside of functions too."""
        waiting: list[_Key] = [(self.main, name) for name in starts]
        seen = set(waiting)
        while waiting:
            scope, name = waiting.pop()
            inner = self.called(scope, name)
            further = {(scope, _node_name(text)) for text in scope.nodes[name].input}
            further |= {(inner, other) for other in inner.nodes} if inner else set()
            new = {key for key in further - seen if key[1] in key[0].nodes}
            waiting += new
            seen |= new
        return seen


class _Signature:
    """Digests one signature: what its outputs depend on, and what its calls do besides."""

    def __init__(self, model: _Model, signature: Any) -> None:
        self.model = model
        self.signature = signature
        self.feeds = {
            tensor: f"{alias}/{i}"
            for alias, info in signature.inputs.items()
            for i, tensor in enumerate(_tensors(info))
        }
        self.known: dict[_Key, bytes] = {}
        self.calls: dict[_Key, None] = {}  # as a set that keeps the order

    def digest(self) -> bytes:
        said = [self.signature.method_name.encode()]
        for infos in (self.signature.inputs, self.signature.outputs):
            for alias, info in sorted(infos.items()):
                shape = info.tensor_shape.SerializeToString(deterministic=True)
                said += [alias.encode(), str(info.dtype).encode(), shape]
        for alias, default in sorted(self.signature.defaults.items()):
            said += [alias.encode(), default.SerializeToString(deterministic=True)]
        for _, info in sorted(self.signature.outputs.items()):
            said += [self._value(self.model.main, text) for text in _tensors(info)]
        effects: dict[_Key, bytes] = {}
        while new := [call for call in self.calls if call not in effects]:  # they may call others
            effects |= {(scope, name): self._value(scope, f"^{name}") for scope, name in new}
        return _hash(*said, _hash(*sorted(set(effects.values()))))

    def _source(self, scope: _Scope, text: str) -> tuple[_Key, str]:
        return self.model.source(scope, text, self.feeds, self.calls)

    def _value(self, scope: _Scope, text: str) -> bytes:
        """Digest a tensor, after all that it depends on; without recursion, for graphs are deep."""
        wanted, output = self._source(scope, text)
        waiting, begun = [wanted], set()
        while waiting:
            key = waiting[-1]
            if key in self.known or key in begun:
                waiting.pop()
                if key not in self.known:
                    self.known[key] = self._digest_node(key)
            else:
                begun.add(key)
                waiting += [
                    other
                    for where, texts in self._inputs(key)
                    for other in (self._source(where, each)[0] for each in texts)
                    if other not in begun
                ]
        return _hash(self.known[wanted], output.encode())

    def _inputs(self, key: _Key) -> list[tuple[_Scope, list[str]]]:
        """List what a node reads and waits for; of a call, what it runs for its effect."""
        if not isinstance(key[0], _Scope):
            return []
        scope, name = key
        texts = list(scope.nodes[name].input)
        if inner := self.model.called(scope, name):
            waits = [text for text in texts if text.startswith("^")]
            return [(scope, waits), (inner, _effects(inner))]
        fillers = self.model.fillers.get(key, ())
        return [(scope, texts), *((s, list(s.nodes[n].input[1:])) for s, n in fillers)]

    def _digest_node(self, key: _Key) -> bytes:
        if not isinstance(key[0], _Scope):
            return self.model.outside(*key)
        scope, name = key
        node = scope.nodes[name]
        said = []
        for where, texts in self._inputs(key):
            # A loop of TensorFlow 1 comes back to a node that is not yet known.
            found = [(text, self._source(where, text)) for text in texts]
            values = [(t, _hash(self.known.get(k, b"loop"), out.encode())) for t, (k, out) in found]
            data = [value for text, value in values if not text.startswith("^")]
            said.append(_hash(*data, *sorted({v for t, v in values if t.startswith("^")})))
        if self.model.called(scope, name):
            return _hash(b"call", *said)
        attributes = [
            _hash(attribute.encode(), self._attribute(value))
            for attribute, value in sorted(node.attr.items())
            if attribute not in _NAMES and not attribute.startswith("_")
        ]
        return _hash(node.op.encode(), _hash(*attributes), said[0], *sorted(said[1:]))

    def _attribute(self, value: Any) -> bytes:
        import tensorflow as tf

        if value.HasField("tensor"):
            return _hash_array(tf.make_ndarray(value.tensor))
        functions = value.list.func or ([value.func] if value.HasField("func") else [])
        if not functions:
            return bytes(value.SerializeToString(deterministic=True))
        said = []
        for body in (self.model.body(function.name) for function in functions):
            results = [body.function.ret[out.name] for out in body.function.signature.output_arg]
            said += [self._value(body, text) for text in results]
            said += sorted(self._value(body, text) for text in _effects(body))
        return _hash(*said)


def _effects(scope: _Scope) -> list[str]:
    return [f"^{name}" for name in scope.function.control_ret.values()]


def _node_name(text: str) -> str:
    return text.lstrip("^").partition(":")[0]


def _tensors(info: Any) -> list[str]:
    """Name the tensors of an input or output, more than one if it is sparse or of several parts."""
    sparse = info.coo_sparse
    parts = [part.name for part in info.composite_tensor.components]
    names = [info.name, sparse.values_tensor_name, sparse.indices_tensor_name]
    return [name for name in (*names, sparse.dense_shape_tensor_name, *parts) if name]
