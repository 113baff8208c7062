"""A SavedModel made ready to run: the one engine for TF1, TF2 and Keras exports alike.

The graph is loaded into a TF1-style Session of its own. A run goes through a raw callable, made at
its first use for these feeds, fetches and time limit: on the caller's thread (fast, cannot time
out) or on TensorFlow's own pool (can). Which of them fits is learned from the requests, see
`run_costs`; a load runs nothing but the restore and the init op.

`Session._make_callable_from_options` is private to TensorFlow 2.21. One function here uses it,
because the public calls check feeds against the placeholder's static shape, which TensorFlow
Serving does not, and cost tens of times more.
"""

from __future__ import annotations

import functools
import importlib
import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlops_mini.errors import (
    InvalidArgumentError,
    MlopsMiniError,
    NotFoundError,
    UnimplementedError,
    by_code,
)
from mlops_mini.serving import saved_model, tflite
from mlops_mini.serving.batching_options import Batching
from mlops_mini.serving.json_fast import InputLayout
from mlops_mini.serving.json_text import show_shape
from mlops_mini.serving.run_costs import RunCosts
from mlops_mini.serving.tflite import TfLiteModel
from mlops_mini.wire import BY_NUMBER, DTYPES

logger = logging.getLogger(__name__)

Array = npt.NDArray[Any]
_Call = Callable[..., list[Any]]

DEFAULT_SIGNATURE = "serving_default"
# For which of the methods a signature was exported (the `method_name` of its SignatureDef).
PREDICT = "tensorflow/serving/predict"
CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"

_IMPORTING = threading.Lock()
_MAX_CALLABLES = 256
# Ops that may take long, or make much, whatever the size of the input: never on the event loop.
_UNBOUNDED = re.compile(
    r"(Stateless)?While$|Enter$|(Eager)?PyFunc|Range$|LinSpace$|Fill$|Tile$|BroadcastTo$|Decode"
)
# Ops that the registry calls stateful, but whose answer depends on nothing that a run changes.
_READERS = {
    "VarHandleOp", "ReadVariableOp", "VariableV2", "Variable", "ResourceGather", "ResourceGatherNd",
    "HashTableV2", "HashTable", "LookupTableFindV2", "LookupTableFind", "LookupTableSizeV2",
    # What these call is looked at on its own.
    "StatefulPartitionedCall", "PartitionedCall", "Assert", "If", "Case", "While",
}  # fmt: skip
# With oneDNN, these abort the process when they are fed a tensor of another rank.
_RANK_SENSITIVE = re.compile(r"Conv|Depthwise")
# What TensorFlow's Python side raises for a folder it can make nothing of, beside its own errors.
_NOT_LOADABLE = (OSError, RuntimeError, ValueError, TypeError, KeyError)
# What a session adds to the words of an op that failed while a model was restored.
_SESSION_WORDS = re.compile(r"\n\t \[\[\{\{(function_)?node .*", re.DOTALL)


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorSpec:
    """One named input or output of a signature.

    Attributes:
        alias: Name that clients use.
        tensor: Name in the graph.
        dtype: TensorFlow's lower-case name of the element type.
        numpy: The numpy type that is fed, or None for a type that neither API can carry.
        shape: Declared sizes, -1 where any size is allowed, or None if even the rank is unknown.
    """

    alias: str
    tensor: str
    dtype: str
    numpy: np.dtype[Any] | None
    shape: tuple[int, ...] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedSignature:
    """One function of a SavedModel, inputs and outputs sorted by alias.

    Attributes:
        name: Key in the SavedModel, such as `serving_default`.
        inputs: Its inputs.
        outputs: Its outputs.
        costs: How long its runs take.
        defaults: Values of inputs that a gRPC client may leave out, by alias.
        is_stateless: Whether no run can see or change what another one has done.
        may_batch: Whether it looks as if rows of several requests could be run together.
        layout: What its inputs are, if batches can be made of plain bodies.
        unservable: Why it cannot be served, empty if it can. If not, its inputs and outputs are
            left out here.
        input_dtypes: The numpy types of the inputs.
        output_aliases: The aliases of the outputs.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    costs: RunCosts = field(default_factory=RunCosts)
    defaults: Mapping[str, Array] = field(default_factory=dict)
    is_stateless: bool = False
    may_batch: bool = False
    layout: InputLayout | None = None
    unservable: str = ""
    input_dtypes: tuple[np.dtype[Any] | None, ...] = field(init=False)
    output_aliases: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        """List what every request asks for."""
        object.__setattr__(self, "input_dtypes", tuple([spec.numpy for spec in self.inputs]))
        object.__setattr__(self, "output_aliases", tuple([spec.alias for spec in self.outputs]))

    def check_servable(self) -> None:
        """Raise an UnimplementedError if it cannot be served."""
        if self.unservable:
            raise UnimplementedError(f"signature {self.name} cannot be served: {self.unservable}")

    @property
    def dtypes(self) -> dict[str, str]:
        """Element type of each input, by alias."""
        return {spec.alias: spec.dtype for spec in self.inputs}


class Servable:
    """One loaded version of a model.

    Attributes:
        name: Name of the model.
        version: Number of the version.
        batching: How its requests are run together.
        signatures: Its signatures, by name.
        dtypes: Element types of the inputs of each signature; under "" those of the default one.
        layouts: The same of their layouts.
        signature_defs: The SavedModel's own description of them (`tensorflow.SignatureDef`).
    """

    def __init__(
        self,
        *,
        name: str,
        version: int,
        graph: saved_model.LoadedGraph | TfLiteModel,
        make_callable: Callable[[tuple[str, ...], tuple[str, ...], int | None], _Call],
        close: Callable[[], None],
        batching: Batching = "unasked",
    ) -> None:
        self.name = name
        self.version = version
        self.batching = batching
        self.signature_defs = graph.signature_defs
        self._close = close
        self._op_error: type[Any] = tensorflow().errors.OpError
        self._needs_rank = any(map(_RANK_SENSITIVE.match, frozenset().union(*graph.ops.values())))
        self._callable = functools.lru_cache(_MAX_CALLABLES)(make_callable)
        self.signatures = {key: self._make_signature(key, ops) for key, ops in graph.ops.items()}
        self._tensors = {
            key: (
                tuple([spec.tensor for spec in signature.inputs]),
                tuple([spec.tensor for spec in signature.outputs]),
            )
            for key, signature in self.signatures.items()
        }
        self.dtypes = {key: signature.dtypes for key, signature in self.signatures.items()}
        self.dtypes[""] = self.dtypes.get(DEFAULT_SIGNATURE, {})
        self.layouts = {key: signature.layout for key, signature in self.signatures.items()}
        self.layouts[""] = self.layouts.get(DEFAULT_SIGNATURE)

    def run(
        self,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        arrays: Sequence[Array],
        *,
        timeout_ms: int | None,
    ) -> list[Array]:
        """Run the graph once.

        Args:
            inputs: The inputs of one of `signatures`.
            outputs: The outputs to compute.
            arrays: One array per input.
            timeout_ms: Longest run, milliseconds, 0 for no limit; None runs on this thread, where
                no limit would hold.

        Returns:
            One array per output.

        Raises:
            InvalidArgumentError: An element type, or a rank that would abort the process.
            MlopsMiniError: What TensorFlow answered, under its own code and in its own words.
        """
        self.check(inputs, arrays)
        feeds = tuple([spec.tensor for spec in inputs])
        fetches = tuple([spec.tensor for spec in outputs])
        return self._call(feeds, fetches, timeout_ms, arrays)

    def run_signature(
        self, signature: LoadedSignature, arrays: Sequence[Array], *, timeout_ms: int | None
    ) -> list[Array]:
        """Run a signature, all outputs, on arrays of its own types and ranks; else as `run`."""
        return self._call(*self._tensors[signature.name], timeout_ms, arrays)

    def prepare(self, signature: LoadedSignature, timeout_ms: int | None) -> None:
        """Make what `run_signature` needs, which takes longer than most runs."""
        self._callable(*self._tensors[signature.name], timeout_ms)

    def _call(
        self,
        feeds: tuple[str, ...],
        fetches: tuple[str, ...],
        timeout_ms: int | None,
        arrays: Sequence[Array],
    ) -> list[Array]:
        try:
            results = self._callable(feeds, fetches, timeout_ms)(*arrays)
        except self._op_error as exc:
            raise by_code(exc.error_code, exc.message) from exc
        except UnicodeDecodeError as exc:  # TensorFlow's words quote an input that is no UTF-8
            raise InvalidArgumentError(exc.object.decode("utf-8", "surrogateescape")) from exc
        # A scalar comes as a bare value; text must not become numpy's, which cuts NUL bytes off.
        return [np.asarray(r, object if isinstance(r, bytes) else None) for r in results]

    def check(self, inputs: Sequence[TensorSpec], arrays: Sequence[Array]) -> None:
        """Refuse an element type, or a rank that would abort the process, as `run` does."""
        for index, (spec, array) in enumerate(zip(inputs, arrays, strict=True)):
            self._check(index, spec, array)

    def _check(self, index: int, spec: TensorSpec, array: Array) -> None:
        if array.dtype != spec.numpy:
            given = next((d.name for d in DTYPES if d.numpy == array.dtype), array.dtype.name)
            raise InvalidArgumentError(
                f"Expects arg[{index}] to be {spec.dtype} but {given} is provided"
            )
        if self._needs_rank and spec.shape is not None and array.ndim != len(spec.shape):
            raise InvalidArgumentError(
                f"convolution input must be {len(spec.shape)}-dimensional:"
                f" {show_shape(array.shape)}"
            )

    def _make_signature(self, key: str, ops: Set[str]) -> LoadedSignature:
        definition = self.signature_defs[key]
        try:
            inputs, outputs = _tensor_specs(definition.inputs), _tensor_specs(definition.outputs)
            defaults = {
                alias: tensorflow().make_ndarray(tensor)
                for alias, tensor in definition.defaults.items()
            }
        except (UnimplementedError, TypeError, ValueError) as exc:
            logger.warning(
                "signature %s of {name: %s version: %d} cannot be served: %s",
                key, self.name, self.version, exc,
            )  # fmt: skip
            return LoadedSignature(name=key, inputs=(), outputs=(), unservable=str(exc))
        if self._needs_rank and any(spec.shape is None for spec in inputs):
            logger.warning(
                "signature %s of {name: %s version: %d} declares no rank for an input: with another"
                " one than its convolution takes, a request ends this process",
                key, self.name, self.version,
            )  # fmt: skip
        costs = RunCosts(may_inline=not any(map(_UNBOUNDED.match, ops)))
        has_free_rows = all(spec.shape and spec.shape[0] == -1 for spec in (*inputs, *outputs))
        layout = InputLayout.of([(s.alias, s.dtype, s.numpy, s.shape) for s in inputs])
        return LoadedSignature(
            name=key,
            inputs=inputs,
            outputs=outputs,
            costs=costs,
            defaults=defaults,
            is_stateless=_is_stateless(ops),
            may_batch=bool(inputs) and has_free_rows and _is_stateless(ops),
            layout=None if defaults or any(spec.shape == () for spec in outputs) else layout,
        )

    def close(self) -> None:
        """Give the memory back. No run may be under way."""
        self.signatures = {}
        self._callable.cache_clear()
        self._close()


def load(
    path: Path,
    *,
    name: str,
    version: int,
    tags: Sequence[str] = ("serve",),
    intra_op_threads: int = 0,
    inter_op_threads: int = 0,
    session_config_file: str = "",
    batching: Batching = "unasked",
    prefer_tflite: bool = False,
) -> Servable:
    """Load one version folder; only its init op is run.

    Args:
        path: Folder that holds `saved_model.pb` and `variables/`.
        name: Name of the model.
        version: Number of the version.
        tags: Tags of the SavedModel's graph.
        intra_op_threads: Threads within an op; 0 means what the file says, else 1.
        inter_op_threads: Threads for ops; 0 means what the file says, else one per CPU.
        session_config_file: A `tensorflow.ConfigProto` as text.
        batching: How requests are to be run together.
        prefer_tflite: Load `model.tflite` instead, if it's there.

    Raises:
        MlopsMiniError: TensorFlow could not load it; code and words are its own.
    """
    tf = tensorflow()
    config = _session_config(session_config_file, intra_op_threads, inter_op_threads)
    if prefer_tflite and (path / tflite.FILE).is_file():
        lite = TfLiteModel(path / tflite.FILE, n_threads=config.intra_op_parallelism_threads)
        make, close = lite.make_callable, lite.close
        return Servable(
            name=name,
            version=version,
            graph=lite,
            make_callable=make,
            close=close,
            batching=batching,
        )
    session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
    try:
        graph = saved_model.load(session, path, tags)
        make_callable = functools.partial(_make_callable, session)
        return Servable(
            name=name,
            version=version,
            graph=graph,
            make_callable=make_callable,
            close=session.close,
            batching=batching,
        )
    except tf.errors.OpError as exc:
        session.close()
        raise by_code(exc.error_code, _SESSION_WORDS.sub("", exc.message)) from exc
    except MlopsMiniError:
        session.close()
        raise
    except _NOT_LOADABLE as exc:
        session.close()
        raise MlopsMiniError(f"{path} cannot be loaded: {exc}") from exc


def _session_config(file: str, intra_op_threads: int, inter_op_threads: int) -> Any:
    from google.protobuf import text_format

    config = tensorflow().compat.v1.ConfigProto(
        intra_op_parallelism_threads=1, inter_op_parallelism_threads=os.cpu_count() or 1
    )
    if file:
        try:
            text_format.Merge(Path(file).read_text(encoding="utf-8"), config)
        except OSError as exc:
            raise NotFoundError(f"{file}; {exc.strerror}") from exc
        except text_format.ParseError as exc:
            raise InvalidArgumentError(f"Invalid protobuf file: '{file}': {exc}") from exc
    if intra_op_threads > 0:
        config.intra_op_parallelism_threads = intra_op_threads
    if inter_op_threads > 0:
        config.inter_op_parallelism_threads = inter_op_threads
    return config


def limit_ms(timeout_s: float | None) -> int:
    """Turn a deadline into the limit of a run: each limit has a callable, so there are few of them.

    >>> [limit_ms(timeout_s) for timeout_s in (None, 0.9, 30.0)]
    [0, 1024, 32768]
    """
    return 0 if timeout_s is None else 1 << max(int(timeout_s * 1000), 0).bit_length()


def _is_stateless(ops: Set[str]) -> bool:
    """Say whether no run can see or change what another one has done; an unknown op may."""
    from tensorflow.python.framework import op_def_registry

    definitions = map(op_def_registry.get, ops - _READERS)
    return all(d is not None and not d.is_stateful for d in definitions)


def tensorflow() -> Any:
    """Import TensorFlow at its first use, without native logs unless `TF_CPP_MIN_LOG_LEVEL` is set.

    Its import prints some lines whatever that says, before native logging is set up: what is
    written to stderr meanwhile is dropped.
    """
    with _IMPORTING:
        if "tensorflow" not in sys.modules and "TF_CPP_MIN_LOG_LEVEL" not in os.environ:
            os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
            stderr = os.dup(2)
            try:
                with open(os.devnull, "w") as nowhere:  # noqa: PTH123 - it's no path
                    os.dup2(nowhere.fileno(), 2)
                importlib.import_module("tensorflow")
            finally:
                os.dup2(stderr, 2)
                os.close(stderr)
        return importlib.import_module("tensorflow")


def _tensor_specs(infos: Mapping[str, Any]) -> tuple[TensorSpec, ...]:
    def describe(alias: str) -> TensorSpec:
        info = infos[alias]
        kind = info.WhichOneof("encoding")
        if kind != "name":  # None where a composite's description is empty
            what = "SparseTensor" if kind == "coo_sparse" else "composite tensor (ragged or alike)"
            raise UnimplementedError(
                f"{alias} is a {what}, which the protocol cannot carry: export it as plain tensors"
            )
        known, shape = BY_NUMBER.get(info.dtype), info.tensor_shape
        return TensorSpec(
            alias=alias,
            tensor=info.name,
            dtype=known.name if known else tensorflow().as_dtype(info.dtype).name,
            numpy=known.numpy if known else None,
            shape=None if shape.unknown_rank else tuple(dim.size for dim in shape.dim),
        )

    return tuple(map(describe, sorted(infos)))


def _make_callable(
    session: Any, feeds: tuple[str, ...], fetches: tuple[str, ...], timeout_ms: int | None
) -> _Call:
    """Make the raw callable: on the calling thread for None, else on the pool with a limit."""
    from tensorflow.core.protobuf import config_pb2

    options = config_pb2.CallableOptions(feed=feeds, fetch=fetches)
    if timeout_ms is None:
        options.run_options.inter_op_thread_pool = -1
    else:
        options.run_options.timeout_in_ms = timeout_ms
    call: _Call = session._make_callable_from_options(options)  # noqa: SLF001 - see module docstring
    return call
