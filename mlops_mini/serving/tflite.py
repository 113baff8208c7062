"""A `model.tflite` beside or instead of a SavedModel, run by LiteRT (ai-edge-litert).

Its signatures are those of its metadata `signature_defs_metadata`, with their aliases; a file
without them has one, `serving_default`, whose aliases are the names of the tensors. An interpreter
runs one request at a time and is prepared for one set of shapes, so there is a pool of them.

Source: tensorflow_serving/servables/tensorflow/tflite_session.cc
"""

from __future__ import annotations

import functools
import logging
import struct
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import numpy.typing as npt

from mlops_mini.errors import InternalError, InvalidArgumentError

logger = logging.getLogger(__name__)

Array = npt.NDArray[Any]

FILE = "model.tflite"
_DEFAULT_SIGNATURE, _PREDICT = "serving_default", "tensorflow/serving/predict"
_METADATA = b"signature_defs_metadata"
_MAX_IDLE_INTERPRETERS = 32
_BROKEN = (ValueError, TypeError, IndexError, KeyError, struct.error)


class TfLiteModel:
    """One loaded file.

    Attributes:
        signature_defs: Its signatures (`tensorflow.SignatureDef`), by name.
        ops: By the same names what its ops are called, `While` for WHILE.
    """

    def __init__(self, path: Path, n_threads: int) -> None:
        """Read a file.

        Args:
            path: The file.
            n_threads: Threads for one run.

        Raises:
            InvalidArgumentError: It is no TF Lite model, its signatures cannot be read, or it has
                an op that LiteRT doesn't know.
            InternalError: A signature names a tensor that isn't there.
        """
        self._content = path.read_bytes()
        self._n_threads = n_threads
        # Idle interpreters, the one used longest ago first, each with what it is prepared for.
        self._idle: deque[tuple[object, Any]] = deque()
        self._lock = threading.Lock()
        try:
            first = self._make_interpreter()
        except ValueError as exc:
            raise InvalidArgumentError(
                f"Cannot build FlatBufferModel from buffer. {path}: {exc}"
            ) from exc
        try:
            first.allocate_tensors()
        except RuntimeError as exc:
            raise InvalidArgumentError(f"Cannot build Interpreter from buffer. {exc}") from exc
        inputs, outputs = first.get_input_details(), first.get_output_details()
        self._inputs = {detail["name"]: detail["index"] for detail in inputs}
        self._outputs = {detail["name"]: detail["index"] for detail in outputs}
        self.signature_defs: Mapping[str, Any] = self._read_signatures() or _generate(
            inputs, outputs
        )
        names = {detail["op_name"] for detail in first._get_ops_details()}  # noqa: SLF001
        ops = {"".join(map(str.capitalize, name.split("_"))) for name in names}
        self.ops: Mapping[str, Set[str]] = dict.fromkeys(self.signature_defs, ops)

    def _make_interpreter(self) -> Any:
        from ai_edge_litert.interpreter import Interpreter

        return Interpreter(model_content=self._content, num_threads=self._n_threads)

    def _read_signatures(self) -> dict[str, Any]:
        """Read the signatures of the metadata, none if there are none."""
        from ai_edge_litert import schema_py_generated as schema
        from flatbuffers import flexbuffers
        from google.protobuf.message import DecodeError
        from tensorflow.core.protobuf import meta_graph_pb2

        model = schema.Model.GetRootAs(self._content, 0)
        entries = [model.Metadata(i) for i in range(model.MetadataLength())]
        buffers = [entry.Buffer() for entry in entries if entry.Name() == _METADATA]
        signatures: dict[str, Any] = {}
        try:
            for buffer in buffers:
                content = bytearray(model.Buffers(buffer).DataAsNumpy())
                listed = flexbuffers.GetRoot(content).AsMap
                for key, value in zip(listed.Keys, listed.Values, strict=True):
                    signature = meta_graph_pb2.SignatureDef.FromString(value.AsStringBytes)
                    signatures[key.AsKey] = signature
        except (*_BROKEN, DecodeError) as exc:
            raise InvalidArgumentError(
                f"Invalid SignatureDefs found in TfLite model: {exc}"
            ) from exc
        for signature in signatures.values():
            for kind, infos, known in (
                ("input", signature.inputs, self._inputs),
                ("output", signature.outputs, self._outputs),
            ):
                for alias, info in infos.items():
                    if info.name not in known:  # early converters left the `:0` out
                        info.name = info.name.partition(":")[0]
                    if info.name not in known:
                        raise InternalError(
                            f"Unknown tensor '{info.name}'.\n\tSignature {kind} {alias} references"
                            " an unknown tensor"
                        )
        return signatures

    def make_callable(
        self, feeds: Sequence[str], fetches: Sequence[str], _timeout_ms: int | None
    ) -> Callable[..., list[Any]]:
        """Make a function of one array for each tensor fed; a run cannot be given a limit."""
        inputs = [self._inputs[name] for name in feeds]
        outputs = [self._outputs[name] for name in fetches]
        return functools.partial(self._run, inputs, outputs)

    def _run(self, inputs: Sequence[int], outputs: Sequence[int], *arrays: Array) -> list[Any]:
        key = [(index, array.shape) for index, array in zip(inputs, arrays, strict=True)]
        interpreter = self._take(key)
        if interpreter is None:
            interpreter = self._make_interpreter()
            try:
                for index, shape in key:
                    interpreter.resize_tensor_input(index, shape)
                interpreter.allocate_tensors()
            except (RuntimeError, ValueError) as exc:
                shapes = ", ".join(str(list(shape)) for _, shape in key)
                raise InternalError(f"Failed to allocate tensors for inputs of {shapes}") from exc
        try:
            for index, array in zip(inputs, arrays, strict=True):
                interpreter.set_tensor(index, array)
            interpreter.invoke()
        except (RuntimeError, ValueError) as exc:
            raise InternalError(f"Failed to invoke TfLite interpreter: {exc}") from exc
        results = [interpreter.get_tensor(index) for index in outputs]
        with self._lock:
            self._idle.append((key, interpreter))
            if len(self._idle) > _MAX_IDLE_INTERPRETERS:
                self._idle.popleft()
        return results

    def _take(self, key: object) -> Any:
        """Take an idle interpreter that is prepared for these shapes, None if there is none."""
        with self._lock:
            for position, (prepared_for, interpreter) in enumerate(self._idle):
                if prepared_for == key:
                    del self._idle[position]
                    return interpreter
        return None

    def close(self) -> None:
        """Give the memory back."""
        with self._lock:
            self._idle.clear()


def _generate(
    inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Make up the one signature of a file without any."""
    import tensorflow as tf

    logger.warning("No signature def found in TFLite model. Generating one.")
    signature = tf.compat.v1.MetaGraphDef().signature_def[_DEFAULT_SIGNATURE]
    signature.method_name = _PREDICT
    for details, infos in ((inputs, signature.inputs), (outputs, signature.outputs)):
        for detail in details:
            info = infos[detail["name"].partition(":")[0]]
            info.name = detail["name"]
            info.dtype = tf.as_dtype(detail["dtype"]).as_datatype_enum
            signed = detail["shape_signature"]
            for size in signed if len(signed) else detail["shape"]:
                info.tensor_shape.dim.add(size=int(size))
    return {_DEFAULT_SIGNATURE: signature}
