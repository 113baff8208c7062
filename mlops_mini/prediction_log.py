"""What a model was asked and has answered: TensorFlow Serving's PredictionLog records, in files.

The model server writes them (`serving.request_log`), monitoring reads them, without TensorFlow. The
files are TFRecord files of `tensorflow.serving.PredictionLog`, so TensorFlow Serving's own tools
read them too: one that is renamed to `tf_serving_warmup_requests` warms a model up. That message
has no field for a request's id, nor for its time beyond whole seconds; both are in fields of our
own of its LogMetadata, `request_id = 1001` and `time_us = 1002`, which other readers skip.

A log is all files of a prefix, such as `/logs/m`: `/logs/m-20261129T221512.000042Z-4711.tfrecord`
was begun then by process 4711. While a file is being written its name ends in `.unfinished`; it
keeps that name if its server is killed.

Source: tensorflow_serving/apis/{prediction_log,logging}.proto; the framing is that of
https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
"""

from __future__ import annotations

import logging
import os
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c
import numpy as np
import numpy.typing as npt

from mlops_mini import wire
from mlops_mini.errors import InvalidArgumentError, NotFoundError
from mlops_mini.wire import ModelSpec, PredictRequest, PredictResponse
from mlops_mini.wire_messages import EXACT, parse

logger = logging.getLogger(__name__)

Array = npt.NDArray[Any]
_Exchange = tuple[ModelSpec, Mapping[str, Array], Mapping[str, Array]]

UNFINISHED = ".unfinished"
_NAME = re.compile(rf"-\d{{8}}T\d{{6}}\.\d{{6}}Z-\d+\.tfrecord(?:{UNFINISHED})?")
_HEADER = struct.Struct("<QI")
_CRC = struct.Struct("<I")
_SEARCHED_BYTES = 2**16
_HIGH_BYTES_OF_A_LENGTH = bytes(4)  # no message has 4 GiB


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One request that was answered.

    Attributes:
        method: `predict`, `classify`, `regress` or `multi_inference`.
        request_id: The client's, or the server's; empty in files that others have written.
        time_s: When it was answered, seconds since 1970-01-01 UTC; 0 where the file doesn't say.
        model: Name of the model.
        version: The version that answered; None where the file doesn't say.
        signature_name: Its signature.
        sampling_rate: The share of all requests that were logged, 0 to 1.
        inputs: One array per input alias, strings as objects of `bytes`; empty where features are
            left out. Of all methods but Predict the serialized `tf.Example`s, shape [n], under
            `inputs`, each behind the common context if there is one.
        outputs: One array per output alias. Classify has `classes` and `scores`, shape
            [n, n_classes], Regress `outputs`, shape [n]; MultiInference the same behind the
            signature's name and a slash.
    """

    method: str
    request_id: str
    time_s: float
    model: str
    version: int | None
    signature_name: str
    sampling_rate: float
    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]

    @classmethod
    def from_bytes(cls, data: bytes) -> Record:
        """Read a serialized PredictionLog.

        Raises:
            InvalidArgumentError: It is none, or of a kind that the model server doesn't log.
        """
        log = parse(EXACT["PredictionLog"], data)
        methods = [m for m in _READERS if log.HasField(f"{m}_log")]
        if not methods:
            raise InvalidArgumentError("a PredictionLog of another kind, or of none")
        exchange, metadata = getattr(log, f"{methods[0]}_log"), log.log_metadata
        spec, inputs, outputs = _READERS[methods[0]](exchange.request, exchange.response)
        if spec.version is None:  # files that others have written may lack the response
            spec = wire.read_spec(metadata) or spec
        return cls(
            method=methods[0],
            request_id=metadata.request_id.decode("utf-8", "surrogateescape"),
            time_s=metadata.time_us / 1e6 or float(metadata.timestamp_secs),
            model=spec.name,
            version=spec.version,
            signature_name=spec.signature_name,
            sampling_rate=metadata.sampling_config.sampling_rate,
            inputs=inputs,
            outputs=outputs,
        )


class Reader:
    """Iterates over the records of a log, oldest file first, with one record in memory.

    A record that is cut off (its server was killed, or is still writing), that has changed, or that
    is no PredictionLog, is skipped, with one warning for each file; so is whatever lies between.

    Attributes:
        n_skipped: Stretches that were skipped so far.
        n_skipped_bytes: How long they were together.
        positions: By file, without its `.unfinished`, where the last record ended that was read.
            Handed to another reader, it goes on from there.
    """

    def __init__(self, log: Path, *, positions: Mapping[str, int] | None = None) -> None:
        """Read the files of a prefix that are there now, or one file.

        Args:
            log: The prefix, such as `/logs/m`, or a file of any name.
            positions: Where to begin in each file, in bytes; at the start of those left out.

        Raises:
            NotFoundError: There is no such file.
        """
        self.n_skipped = 0
        self.n_skipped_bytes = 0
        self.positions = dict(positions or {})
        self._files = [log] if log.is_file() else files(log)
        if not self._files:
            raise NotFoundError(f"no file {log}, nor one of a log of that name: {log}-*.tfrecord")

    def __iter__(self) -> Iterator[Record]:
        for path in self._files:
            yield from self._read(path)

    def _read(self, path: Path) -> Iterator[Record]:
        first, n_before, n_bytes_before = -1, self.n_skipped, self.n_skipped_bytes
        name = path.name.removesuffix(UNFINISHED)
        # `end`: of the last record that could be read, or skipped whole
        position = end = self.positions.get(name, 0)
        with _open(path) as file:
            size = os.fstat(file.fileno()).st_size
            while position < size:
                data = _record_at(file, position, size)
                record = None
                if data is not None:
                    try:
                        record = Record.from_bytes(data)
                    except InvalidArgumentError as exc:
                        logger.debug("%s, at byte %d of %s", exc, position, path)
                if record is None:
                    first = position if first < 0 else first
                    start, position = position, _next_header(file, position + 1, size)
                    self.n_skipped += start == end
                    self.n_skipped_bytes += position - start
                    continue
                position = end = file.tell()
                self.positions[name] = position
                yield record
        if self.n_skipped > n_before:
            logger.warning(
                "%s: skipped %d stretches that are no records, %d bytes, the first at byte %d",
                path, self.n_skipped - n_before, self.n_skipped_bytes - n_bytes_before, first,
            )  # fmt: skip


def files(prefix: Path) -> list[Path]:
    """List the files of a log, oldest first, also those that are being written."""
    try:
        paths = sorted(prefix.parent.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    start = prefix.name
    return [
        path
        for path in paths
        if path.name.startswith(start) and _NAME.fullmatch(path.name, len(start))
    ]


def ends(log: Path) -> dict[str, int]:
    """Tell how long each file of a log is by now, as `Reader` takes positions."""
    return {path.name.removesuffix(UNFINISHED): path.stat().st_size for path in files(log)}


def frame(data: bytes) -> bytes:
    """Frame one record as a TFRecord file holds it.

    >>> len(frame(b"abc"))
    19
    """
    length = struct.pack("<Q", len(data))
    return b"".join([length, _masked_crc(length), data, _masked_crc(data)])


def _masked_crc(data: bytes) -> bytes:
    crc: int = google_crc32c.value(data)
    return _CRC.pack(((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError:  # finished since it was listed
        return path.with_name(path.name.removesuffix(UNFINISHED)).open("rb")


def _record_at(file: BinaryIO, position: int, size: int) -> bytes | None:
    """Read the record at a position, None if there is no whole one."""
    file.seek(position)
    header = file.read(_HEADER.size)
    if len(header) < _HEADER.size or _masked_crc(header[:8]) != header[8:]:
        return None
    n_bytes = _HEADER.unpack(header)[0]
    if position + _HEADER.size + n_bytes + _CRC.size > size:
        return None
    data = file.read(n_bytes)
    return data if file.read(_CRC.size) == _masked_crc(data) else None


def _next_header(file: BinaryIO, position: int, size: int) -> int:
    """Find where the next record may begin; `size` if nowhere."""
    while position < size:
        file.seek(position)
        searched = file.read(_SEARCHED_BYTES)
        high = searched.find(_HIGH_BYTES_OF_A_LENGTH, 4)
        while high >= 0:
            header = searched[high - 4 : high + 8]
            if len(header) == _HEADER.size and _masked_crc(header[:8]) == header[8:]:
                return position + high - 4
            high = searched.find(_HIGH_BYTES_OF_A_LENGTH, high + 1)
        if len(searched) < _SEARCHED_BYTES:
            break
        position += len(searched) - _HEADER.size + 1
    return size


def _predict(request: bytes, response: bytes) -> _Exchange:
    asked, answered = PredictRequest.from_bytes(request), PredictResponse.from_bytes(response)
    if asked.unreadable:
        raise InvalidArgumentError(f"tensor parsing error: {asked.unreadable[0]}")
    spec = answered.model_spec if answered.model_spec.name else asked.model_spec
    return spec or answered.model_spec, asked.inputs, answered.outputs


def _classify(request: bytes, response: bytes) -> _Exchange:
    asked = parse(EXACT["ExamplesRequest"], request)
    answered = parse(EXACT["ClassificationResponse"], response)
    return _spec(answered, asked), _examples(asked), _classes(answered.result)


def _regress(request: bytes, response: bytes) -> _Exchange:
    asked = parse(EXACT["ExamplesRequest"], request)
    answered = parse(EXACT["RegressionResponse"], response)
    return _spec(answered, asked), _examples(asked), _regressions(answered.result)


def _multi_inference(request: bytes, response: bytes) -> _Exchange:
    asked = parse(EXACT["MultiInferenceRequest"], request)
    results = parse(EXACT["MultiInferenceResponse"], response).results
    spec, outputs = _spec(*asked.tasks[:1]), dict[str, Array]()
    for result in results:
        spec = wire.read_spec(result) or spec
        is_regression = result.HasField("regression_result")
        values = (
            _regressions(result.regression_result)
            if is_regression
            else _classes(result.classification_result)
        )
        outputs.update({f"{spec.signature_name}/{alias}": v for alias, v in values.items()})
    return spec, _examples(asked), outputs


_READERS = {
    "predict": _predict,
    "classify": _classify,
    "regress": _regress,
    "multi_inference": _multi_inference,
}


def _spec(*messages: Any) -> ModelSpec:
    """Read which model is meant from the first message that says it."""
    return next(filter(None, map(wire.read_spec, messages)), ModelSpec(name=""))


def _examples(request: Any) -> dict[str, Array]:
    """Read the examples of a request, each behind the common context."""
    sent = request.input
    if not request.HasField("input"):
        return {}
    context, listed = b"", sent.example_list.examples
    if sent.HasField("example_list_with_context"):
        context = sent.example_list_with_context.context
        listed = sent.example_list_with_context.examples
    examples = np.empty(len(listed), object)
    examples[:] = [context + example for example in listed]
    return {"inputs": examples}


def _classes(result: Any) -> dict[str, Array]:
    rows = [list(row.classes) for row in result.classifications]
    n_classes = len(rows[0]) if rows else 0
    if any(len(row) != n_classes for row in rows):
        raise InvalidArgumentError("its examples have different numbers of classes")
    classes = np.empty((len(rows), n_classes), object)
    classes[:] = [[c.label for c in row] for row in rows]
    scores = np.array([[c.score for c in row] for row in rows], np.float32)
    return {"classes": classes, "scores": scores.reshape(classes.shape)}


def _regressions(result: Any) -> dict[str, Array]:
    return {"outputs": np.array([r.value for r in result.regressions], np.float32)}
