"""How requests are run together: TensorFlow Serving's BatchingParameters, read and checked.

Without any flag, requests that come together are run together where that can't change an answer
(`batching`). `--enable_batching` replaces this by TensorFlow Serving's own batches with their
limits (`batch_scheduler`), and `--enable_batching=false` runs every request on its own.

Source: tensorflow_serving/servables/tensorflow/session_bundle_config.proto
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.serving import model_config
from mlops_mini.serving.config import ServerConfig

PER_MODEL_FILE = "batching_params.pbtxt"  # in a version's folder
_INTEGER, _BOOLEAN, _TEXT = (f"google.protobuf.{n}Value" for n in ("Int64", "Bool", "String"))
_FIELDS = {
    "max_batch_size": _INTEGER,
    "batch_timeout_micros": _INTEGER,
    "max_enqueued_batches": _INTEGER,
    "num_batch_threads": _INTEGER,
    "thread_pool_name": _TEXT,
    "allowed_batch_sizes": "int64",
    "pad_variable_length_inputs": "bool",
    "enable_large_batch_splitting": _BOOLEAN,
    "max_execution_batch_size": _INTEGER,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchingOptions:
    """The limits of batches; sizes count rows.

    Attributes:
        max_batch_size: Of a request, and of a batch unless `max_execution_batch_size` says less.
        batch_timeout_micros: How long a batch may wait for more rows, microseconds.
        max_enqueued_batches: Batches of one signature that may wait, the one that fills included.
        num_batch_threads: Batches of all models that run at the same time.
        allowed_batch_sizes: Sizes to which batches are padded; none pads nothing.
        pad_variable_length_inputs: Pad other dimensions than the first to the longest in a batch.
        enable_large_batch_splitting: Cut requests that are larger than a batch.
        max_execution_batch_size: Largest batch that is run if large requests are cut; 0 for the
            largest request.

    >>> BatchingOptions(max_batch_size=8, allowed_batch_sizes=(2, 8)).padded(3)
    8
    >>> BatchingOptions(max_batch_size=8, allowed_batch_sizes=(4,))
    Traceback (most recent call last):
    mlops_mini.errors.InvalidArgumentError: Last entry in allowed_batch_sizes must match
    max_batch_size; last entry was 4; expected 8
    """

    max_batch_size: int = 1000
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    num_batch_threads: int = os.cpu_count() or 1
    allowed_batch_sizes: tuple[int, ...] = ()
    pad_variable_length_inputs: bool = False
    enable_large_batch_splitting: bool = False
    max_execution_batch_size: int = 0

    def __post_init__(self) -> None:
        for name in ("max_batch_size", "num_batch_threads"):
            if getattr(self, name) < 1:
                raise InvalidArgumentError(f"{name} must be positive; was {getattr(self, name)}")
        # TensorFlow Serving takes 0 batches for 1, unless large requests are cut.
        if self.enable_large_batch_splitting and not self.max_enqueued_batches:
            raise InvalidArgumentError("max_enqueued_batches must be positive; was 0")
        for name in ("batch_timeout_micros", "max_enqueued_batches", "max_execution_batch_size"):
            if getattr(self, name) < 0:
                raise InvalidArgumentError(
                    f"{name} must be non-negative; was {getattr(self, name)}"
                )
        sizes = self.allowed_batch_sizes
        if sizes and sizes[-1] != self.max_batch_size:
            raise InvalidArgumentError(
                "Last entry in allowed_batch_sizes must match max_batch_size; last entry was"
                f" {sizes[-1]}; expected {self.max_batch_size}"
            )
        if (
            self.enable_large_batch_splitting
            and self.max_execution_batch_size > self.max_batch_size
        ):
            raise InvalidArgumentError(
                "When enable_large_batch_splitting is true, input_batch_size_limit must be greater"
                " than or equal to max_execution_batch_size."
            )

    @property
    def max_run_rows(self) -> int:
        """The most rows that are run together, padding not counted."""
        if self.enable_large_batch_splitting and self.max_execution_batch_size:
            return self.max_execution_batch_size
        return self.max_batch_size

    def padded(self, n_rows: int) -> int:
        """Say to how many rows a batch of so many is padded."""
        return next((size for size in self.allowed_batch_sizes if size >= n_rows), n_rows)


# `unasked` is how requests are run without any flag, `alone` what --enable_batching=false says.
Batching = BatchingOptions | Literal["unasked", "alone"]


def common(server_config: ServerConfig) -> Batching:
    """Find out how requests are run, of all models that have no parameters of their own.

    Raises:
        NotFoundError: The file that the flags name isn't there, or can't be read.
        InvalidArgumentError: It does not parse, or asks for what cannot be.
    """
    if server_config.enable_batching is None:
        return "unasked"
    if not server_config.enable_batching:
        return "alone"
    file = server_config.batching_parameters_file
    return _read(Path(file)) if file else BatchingOptions()


def of_version(common: Batching, folder: Path, *, is_per_model: bool) -> Batching:
    """Find out how requests to one version are run.

    Args:
        common: As the function of that name says.
        folder: The version's folder.
        is_per_model: Take the file in that folder instead of `common`, if batches are asked for;
            where there is none, requests are run alone. The threads stay those of `common`.

    Raises:
        InvalidArgumentError: The file does not parse, or asks for what cannot be.
    """
    if not (is_per_model and isinstance(common, BatchingOptions)):
        return common
    file = folder / PER_MODEL_FILE
    return _read(file) if file.exists() else "alone"


def _read(file: Path) -> BatchingOptions:
    message = model_config.read_text(file, "BatchingParameters", _FIELDS)
    values: dict[str, Any] = {}
    for name, kind in _FIELDS.items():
        if name == "allowed_batch_sizes":
            values[name] = tuple(message.allowed_batch_sizes)
        elif kind == "bool":
            values[name] = getattr(message, name)
        elif kind != _TEXT and message.HasField(name):
            values[name] = getattr(message, name).value
    return BatchingOptions(**values)
