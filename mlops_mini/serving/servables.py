"""A SavedModel made ready to run: the one engine for TF1, TF2 and Keras exports alike.

The graph is loaded into a TF1-style Session of its own, and each signature becomes two raw
callables, made once: one runs on the caller's thread (fast, cannot time out), one on TensorFlow's
own pool (can). `inline` says which of them fits: a model whose measured single run is short and
whose graph has no loop runs on the caller's thread.

`Session._make_callable_from_options` is private to TensorFlow 2.21. One function here uses it,
because the public calls check feeds against the placeholder's static shape, which TensorFlow
Serving does not, and cost tens of times more.
"""

from __future__ import annotations

import logging
import os
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlops_mini.errors import InvalidArgumentError, MlopsMiniError, NotFoundError, by_code
from mlops_mini.wire import DTYPES

logger = logging.getLogger(__name__)

Array = npt.NDArray[Any]
_Call = Callable[..., list[Any]]

_TAG_SERVE = "serve"
_INLINE_LIMIT_S = 1e-3
_N_WARMUP_RUNS = 5
# An op that may run long whatever the batch: never on the event loop.
_LOOPS = re.compile(r"(Stateless)?While$|Enter$|(Eager)?PyFunc")
# With oneDNN, these abort the process when they are fed a tensor of another rank.
_RANK_SENSITIVE = re.compile(r"Conv|Depthwise")
# What TensorFlow's Python side raises for a folder it can make nothing of, beside its own errors.
_NOT_LOADABLE = (OSError, RuntimeError, ValueError, TypeError, KeyError)
_DTYPES = {dtype.number: dtype for dtype in DTYPES}


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorSpec:
    """One named input or output of a signature.

    Attributes:
        alias: Name that clients use.
        tensor: Name in the graph.
        dtype: TensorFlow's lower-case name of the element type.
        numpy: The numpy type that is fed, or None where numpy has none.
        shape: Declared sizes, -1 where any size is allowed, or None if even the rank is unknown.
    """

    alias: str
    tensor: str
    dtype: str
    numpy: np.dtype[Any] | None
    shape: tuple[int, ...] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Signature:
    """One function of a SavedModel, inputs and outputs sorted by alias.

    Attributes:
        name: Key in the SavedModel, such as `serving_default`.
        inputs: What it takes.
        outputs: What it returns.
        is_inline: True if a run is short enough for the caller's thread.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    inline_call: _Call
    pooled_call: _Call
    is_inline: bool

    @property
    def dtypes(self) -> dict[str, str]:
        """Element type of each input, by alias."""
        return {spec.alias: spec.dtype for spec in self.inputs}


class Servable:
    """One loaded version of a model.

    Attributes:
        name: Name of the model.
        version: Number of the version.
        signatures: What it can be asked, by name.
        signature_defs: The SavedModel's own description of them (`tensorflow.SignatureDef`).
    """

    def __init__(
        self,
        *,
        name: str,
        version: int,
        session: Any,
        signature_defs: Mapping[str, Any],
        signatures: Mapping[str, Signature],
        needs_rank: bool,
    ) -> None:
        self.name = name
        self.version = version
        self.signatures = signatures
        self.signature_defs = signature_defs
        self._session = session
        self._needs_rank = needs_rank

    def run(self, signature: Signature, arrays: Sequence[Array], *, inline: bool) -> list[Array]:
        """Run one signature.

        Args:
            signature: One of `signatures`.
            arrays: One array per input, in the signature's order.
            inline: Run on this thread and without a time limit.

        Returns:
            One array per output, in the signature's order.

        Raises:
            InvalidArgumentError: An element type, or a rank that would abort the process.
            MlopsMiniError: What TensorFlow answered, under its own code and in its own words.
        """
        errors = _tensorflow().errors
        for index, (spec, array) in enumerate(zip(signature.inputs, arrays, strict=True)):
            self._check(index, spec, array)
        call = signature.inline_call if inline else signature.pooled_call
        try:
            results = call(*arrays)
        except errors.OpError as exc:
            raise by_code(exc.error_code, exc.message) from exc
        except UnicodeDecodeError as exc:  # TensorFlow's words quote an input that is no UTF-8
            raise InvalidArgumentError(exc.object.decode("utf-8", "surrogateescape")) from exc
        # A scalar comes as a bare value; text must not become numpy's, which cuts NUL bytes off.
        return [np.asarray(r, object if isinstance(r, bytes) else None) for r in results]

    def _check(self, index: int, spec: TensorSpec, array: Array) -> None:
        if array.dtype != spec.numpy:
            given = next((d.name for d in DTYPES if d.numpy == array.dtype), array.dtype.name)
            raise InvalidArgumentError(
                f"Expects arg[{index}] to be {spec.dtype} but {given} is provided"
            )
        if self._needs_rank and spec.shape is not None and array.ndim != len(spec.shape):
            raise InvalidArgumentError(
                f"convolution input must be {len(spec.shape)}-dimensional:"
                f" [{','.join(map(str, array.shape))}]"
            )

    def close(self) -> None:
        """Give the memory back. No run may be under way."""
        self.signatures = {}
        self._session.close()


def load(path: Path, *, name: str, version: int, timeout_ms: int) -> Servable:
    """Load one version folder and measure how long a run of it takes.

    Args:
        path: Folder that holds `saved_model.pb` and `variables/`.
        name: Name of the model.
        version: Number of the version.
        timeout_ms: Longest run of a pooled call, milliseconds.

    Raises:
        MlopsMiniError: TensorFlow could not load it; code and words are its own.
    """
    if not any((path / name).is_file() for name in ("saved_model.pb", "saved_model.pbtxt")):
        raise NotFoundError(
            "Specified file path does not appear to contain a SavedModel bundle (should have a file"
            f" called `saved_model.pb`)\nSpecified file path: {path}"
        )
    tf = _tensorflow()
    config = tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=1, inter_op_parallelism_threads=os.cpu_count() or 1
    )
    session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
    try:
        with session.graph.as_default():
            meta_graph = tf.compat.v1.saved_model.loader.load(session, [_TAG_SERVE], str(path))
        ops = _op_names(meta_graph.graph_def)
        may_inline = not any(_LOOPS.match(op) for op in ops)
        signatures = {
            key: _make_signature(session, key, definition, timeout_ms, may_inline)
            for key, definition in meta_graph.signature_def.items()
            if key != "__saved_model_init_op"
        }
    except tf.errors.OpError as exc:
        session.close()
        raise by_code(exc.error_code, exc.message) from exc
    except _NOT_LOADABLE as exc:
        session.close()
        raise MlopsMiniError(f"{path} cannot be loaded: {exc}") from exc
    return Servable(
        name=name,
        version=version,
        session=session,
        signature_defs=dict(meta_graph.signature_def.items()),
        signatures=signatures,
        needs_rank=any(_RANK_SENSITIVE.match(op) for op in ops),
    )


def _tensorflow() -> Any:
    """Import TensorFlow at its first use, with quiet native logs unless the user wants them."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf

    return tf


def _op_names(graph_def: Any) -> set[str]:
    nodes = [graph_def.node, *(function.node_def for function in graph_def.library.function)]
    return {node.op for group in nodes for node in group}


def _make_signature(
    session: Any, key: str, definition: Any, timeout_ms: int, may_inline: bool
) -> Signature:
    inputs, outputs = _tensor_specs(definition.inputs), _tensor_specs(definition.outputs)
    calls = [
        _make_callable(session, inputs, outputs, timeout_ms=limit) for limit in (None, timeout_ms)
    ]
    return Signature(
        name=key,
        inputs=inputs,
        outputs=outputs,
        inline_call=calls[0],
        pooled_call=calls[1],
        is_inline=may_inline and _measure_run_s(calls[1], inputs) < _INLINE_LIMIT_S,
    )


def _tensor_specs(infos: Mapping[str, Any]) -> tuple[TensorSpec, ...]:
    def describe(alias: str) -> TensorSpec:
        info = infos[alias]
        dtype = _DTYPES.get(info.dtype)
        shape = info.tensor_shape
        return TensorSpec(
            alias=alias,
            tensor=info.name,
            dtype=dtype.name if dtype else _tensorflow().as_dtype(info.dtype).name,
            numpy=dtype.numpy if dtype else None,
            shape=None if shape.unknown_rank else tuple(dim.size for dim in shape.dim),
        )

    return tuple(map(describe, sorted(infos)))


def _make_callable(
    session: Any,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    *,
    timeout_ms: int | None,
) -> _Call:
    """Make the raw callable: on the calling thread without a limit, else on the pool with one."""
    from tensorflow.core.protobuf import config_pb2

    options = config_pb2.CallableOptions(
        feed=[spec.tensor for spec in inputs], fetch=[spec.tensor for spec in outputs]
    )
    if timeout_ms is None:
        options.run_options.inter_op_thread_pool = -1
    else:
        options.run_options.timeout_in_ms = timeout_ms
    call: _Call = session._make_callable_from_options(options)  # noqa: SLF001 - see module docstring
    return call


def _measure_run_s(call: _Call, inputs: Sequence[TensorSpec]) -> float:
    """Median seconds of a run on one example of zeros; infinite if the model refuses them."""
    feeds = []
    for spec in inputs:
        if spec.numpy is None or spec.shape is None:
            return float("inf")
        feed = np.zeros([max(size, 1) for size in spec.shape], spec.numpy)
        feeds.append(feed if spec.dtype != "string" else np.full(feed.shape, b"", object))
    errors = _tensorflow().errors
    times_s = []
    try:
        for _ in range(_N_WARMUP_RUNS):
            began = time.perf_counter()
            call(*feeds)
            times_s.append(time.perf_counter() - began)
    except errors.OpError as exc:
        logger.info("runs of this signature go to a worker thread: %s", exc.message)
        return float("inf")
    return statistics.median(times_s[1:])
