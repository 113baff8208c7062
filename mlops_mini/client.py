"""Ask a model server over REST or gRPC: numpy in, numpy out, no TensorFlow.

The same calls work against our server and against TensorFlow Serving.

    with RestClient("127.0.0.1:8501", model="flights") as client:
        client.predict({"carrier": ["UA"], "distance": [1400.0]})["probability"]
"""

from __future__ import annotations

import abc
import base64
import contextlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeVar
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
from google.protobuf.json_format import MessageToDict

from mlops_mini import wire
from mlops_mini.errors import (
    DeadlineExceededError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    UnavailableError,
    by_code,
)  # fmt: skip
from mlops_mini.wire import DTYPES, EXACT, ModelSpec, PredictRequest, PredictResponse

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]
T = TypeVar("T")

_POLL_S, _LEAST_S = 0.05, 0.001  # a limit of 0 s would mean none
# Canonical gRPC code of an HTTP status, where one status means one code; 400 is mostly this one.
_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 409: 6, 429: 8, 499: 1, 501: 12, 503: 14, 504: 4}
_STATUS_METHOD = "/tensorflow.serving.ModelService/GetModelStatus"
_METADATA_METHOD = "/tensorflow.serving.PredictionService/GetModelMetadata"
_STATES = {10: "START", 20: "LOADING", 30: "AVAILABLE", 40: "UNLOADING", 50: "END"}
_NAMES = {key: d.name for d in DTYPES for key in (d.number, f"DT_{d.name.upper()}")}
_RAW = ("utf-8", "surrogateescape")  # JSON strings of ours may hold any bytes
_CHANNEL = {
    "grpc.max_send_message_length": -1,
    "grpc.max_receive_message_length": -1,
    "grpc.initial_reconnect_backoff_ms": 100,  # so that a retry finds a server that is back
    "grpc.max_reconnect_backoff_ms": 1000,
}
_NUMPY = {dtype.name: dtype.numpy for dtype in DTYPES}


class Prediction(dict[str, Array]):
    """An answer: one array per output alias.

    Attributes:
        version: The version of the model that answered.
    """

    def __init__(self, outputs: Mapping[str, Array], *, version: int | None) -> None:
        super().__init__(outputs)
        self.version = version


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What a signature says about one tensor.

    Attributes:
        dtype: TensorFlow's name of the element type, such as `float` or `string`.
        shape: Sizes, -1 where any will do; None if not even the rank is known.
    """

    dtype: str
    shape: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Signature:
    """One way to ask a model: its tensors by alias."""

    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]


@dataclass(frozen=True, slots=True)
class Metadata:
    """What one version of a model takes and gives, by name of the signature."""

    version: int
    signatures: Mapping[str, Signature]


class Client(abc.ABC):
    """What both clients can do; every call may raise what `predict` does."""

    def __init__(self, address: str, *, model: str, retry_s: float = 1.0) -> None:
        """Point to a server; nothing is sent yet.

        Args:
            address: `host:port` of the API.
            model: Name of the model.
            retry_s: Seconds to go on asking while nobody answers, within the call's own
                `timeout_s`. All calls only read, so asking twice does no harm.
        """
        self.address = address
        self._model = model
        self._retry_s = retry_s

    def predict(
        self,
        inputs: Mapping[str, Any],
        *,
        version: int | None = None,
        label: str = "",
        signature: str = "serving_default",
        timeout_s: float = 10.0,
    ) -> Prediction:
        """Ask for a prediction.

        Args:
            inputs: One array, or what numpy makes one of, per input alias. Over REST the type of
                the numbers is the signature's own; over gRPC it must be the signature's.
            version: Exact version; without it and a label the highest one answers.
            label: Version label, such as `canary`.
            signature: Name of the signature.
            timeout_s: Seconds to wait for the answer.

        Returns:
            One array per output alias, with the signature's element type, and the version.

        Raises:
            MlopsMiniError: What the server answers, in its own words under its own code, such as
                InvalidArgumentError or NotFoundError; DeadlineExceededError without an answer in
                time, UnavailableError when nobody listens or the connection broke.
        """
        spec = self._spec(version, label, signature or "serving_default")
        return self._predict({k: _as_array(v) for k, v in inputs.items()}, spec, timeout_s)

    @abc.abstractmethod
    def versions(self, *, timeout_s: float = 10.0) -> dict[int, str]:
        """Ask for the state of each version, such as `{2: "AVAILABLE", 1: "END"}`."""

    def metadata(
        self, *, version: int | None = None, label: str = "", timeout_s: float = 10.0
    ) -> Metadata:
        """Ask which signatures a version has; the versions are chosen as in `predict`."""
        return self._metadata(self._spec(version, label), timeout_s)

    @abc.abstractmethod
    def _predict(self, inputs: Arrays, spec: ModelSpec, timeout_s: float) -> Prediction: ...

    @abc.abstractmethod
    def _metadata(self, spec: ModelSpec, timeout_s: float) -> Metadata: ...

    def _spec(self, version: int | None, label: str, name: str = "") -> ModelSpec:
        if version is not None and label:
            raise InvalidArgumentError(f"ask for version {version} or label {label!r}, not both")
        model = self._model
        return ModelSpec(name=model, version=version, version_label=label, signature_name=name)

    @abc.abstractmethod
    def close(self) -> None:
        """Give the connections back."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def wait_until_available(self, version: int, *, timeout_s: float) -> None:
        """Return once a version is available; an error if late says what is there instead."""
        states, deadline = {}, time.monotonic() + timeout_s
        while True:
            with contextlib.suppress(NotFoundError):
                states = self.versions()
            if states.get(version) == "AVAILABLE":
                return
            if time.monotonic() > deadline:
                raise DeadlineExceededError(
                    f"version {version} is not available after {timeout_s:.0f} s; the server has"
                    f" {states or 'no versions'}: its log says why"
                )
            time.sleep(_POLL_S)

    def _retried(self, ask: Callable[[float], T], timeout_s: float) -> T:
        """Ask with the seconds that are left, again with growing pauses while unavailable."""
        start, pause_s = time.monotonic(), _POLL_S
        while True:
            try:
                return ask(max(start + timeout_s - time.monotonic(), _LEAST_S))
            except UnavailableError:
                if time.monotonic() + pause_s >= start + min(self._retry_s, timeout_s):
                    raise
            time.sleep(pause_s)
            pause_s *= 2


class RestClient(Client):
    """Asks over REST, in the column form (`inputs`). May be shared by threads.

    REST does not say which version answered, nor the types of its numbers. So the metadata is asked
    for before and after a prediction, unless a version is named, and the prediction again if it
    has changed between the two.
    """

    def __init__(
        self, address: str, *, model: str, retry_s: float = 1.0, max_connections: int = 8
    ) -> None:
        """Point to a server, see `Client`; keep that many connections for threads that ask."""
        import urllib3

        super().__init__(address, model=model, retry_s=retry_s)
        self._path = f"/v1/models/{quote(model, safe='')}"
        self._pool = urllib3.HTTPConnectionPool(
            *_split(address), maxsize=max_connections, block=True, retries=False
        )
        self._known: dict[str, Metadata] = {}

    def _predict(self, inputs: Arrays, spec: ModelSpec, timeout_s: float) -> Prediction:
        deadline, path = time.monotonic() + timeout_s, self._versioned(spec)
        plain = {alias: _plain(array) for alias, array in inputs.items()}
        body = json.dumps({"signature_name": spec.signature_name, "inputs": plain})
        known = self._known.get(path) or self._metadata(spec, timeout_s)
        while True:
            before, left_s = known, deadline - time.monotonic()
            answer = self._ask("POST", f"{path}:predict", body, left_s)["outputs"]
            if spec.version is None:
                known = self._metadata(spec, deadline - time.monotonic())
            if known == before:
                break
        outputs = known.signatures[spec.signature_name].outputs
        if len(outputs) == 1:  # TensorFlow Serving leaves the name of a lone output out
            answer = {next(iter(outputs)): answer}
        arrays = {alias: _to_array(answer[alias], info.dtype) for alias, info in outputs.items()}
        return Prediction(arrays, version=known.version)

    def versions(self, *, timeout_s: float = 10.0) -> dict[int, str]:
        """Ask for the state of each version."""
        answer = self._ask("GET", self._path, None, timeout_s)
        return {int(v["version"]): v["state"] for v in answer["model_version_status"]}

    def _metadata(self, spec: ModelSpec, timeout_s: float) -> Metadata:
        path = self._versioned(spec)
        answer = self._ask("GET", f"{path}/metadata", None, timeout_s)
        signatures = _signatures(answer["metadata"]["signature_def"]["signature_def"])
        self._known[path] = Metadata(int(answer["model_spec"]["version"]), signatures)
        return self._known[path]

    def _versioned(self, spec: ModelSpec) -> str:
        if spec.version is not None:
            return f"{self._path}/versions/{spec.version}"
        label = spec.version_label
        return f"{self._path}/labels/{quote(label, safe='')}" if label else self._path

    def _ask(self, method: str, path: str, body: str | None, timeout_s: float) -> Any:
        return self._retried(lambda left_s: self._ask_once(method, path, body, left_s), timeout_s)

    def _ask_once(self, method: str, path: str, body: str | None, timeout_s: float) -> Any:
        import urllib3

        where = f"{method} {path} at {self.address}"
        try:
            response = self._pool.request(
                method, path, body=body, timeout=timeout_s, pool_timeout=timeout_s
            )
        except (urllib3.exceptions.ReadTimeoutError, urllib3.exceptions.EmptyPoolError) as exc:
            raise DeadlineExceededError(f"{where}: no answer in {timeout_s:.2g} s") from exc
        except urllib3.exceptions.HTTPError as exc:
            raise UnavailableError(f"{where}: no model server answers ({exc})") from exc
        try:
            answer = json.loads(response.data.decode(*_RAW))
        except ValueError as exc:
            raise InternalError(
                f"{where} answered {response.status} with no JSON: {response.data[:80]!r}"
            ) from exc
        if response.status != 200:
            text = answer.get("error", "") if isinstance(answer, dict) else str(answer)
            raise by_code(_CODES.get(response.status, 13), text)
        return answer

    def close(self) -> None:
        """Give the connections back."""
        self._pool.close()


class GrpcClient(Client):
    """Asks over gRPC. May be shared by threads."""

    def __init__(self, address: str, *, model: str, retry_s: float = 1.0) -> None:
        """Point to a server, see `Client`; `address` is `host:port` or `unix:path`."""
        import grpc

        super().__init__(address, model=model, retry_s=retry_s)
        self._channel = grpc.insecure_channel(address, options=list(_CHANNEL.items()))

    def _predict(self, inputs: Arrays, spec: ModelSpec, timeout_s: float) -> Prediction:
        request = PredictRequest(model_spec=spec, inputs=inputs)
        data = self._call(wire.PREDICT_METHOD, request.to_bytes(), timeout_s)
        response = PredictResponse.from_bytes(data)
        return Prediction(response.outputs, version=response.model_spec.version)

    def versions(self, *, timeout_s: float = 10.0) -> dict[int, str]:
        """Ask for the state of each version."""
        request = EXACT["StatusRequest"](model_spec={"name": self._model})
        data = self._call(_STATUS_METHOD, request.SerializeToString(), timeout_s)
        found = EXACT["StatusResponse"].FromString(data).versions
        return {version.number: _STATES.get(version.state, "UNKNOWN") for version in found}

    def _metadata(self, spec: ModelSpec, timeout_s: float) -> Metadata:
        request = EXACT["MetadataRequest"](metadata_field=["signature_def"])
        wire.fill_spec(request.model_spec, spec)
        data = self._call(_METADATA_METHOD, request.SerializeToString(), timeout_s)
        answer = EXACT["MetadataResponse"].FromString(data)
        packed = EXACT["Signatures"].FromString(answer.metadata["signature_def"].value)
        found = MessageToDict(
            packed, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        return Metadata(answer.model_spec.version.value, _signatures(found["signatures"]))

    def _call(self, method: str, request: bytes, timeout_s: float) -> bytes:
        import grpc

        call = self._channel.unary_unary(method)

        def once(left_s: float) -> bytes:
            try:
                return bytes(call(request, timeout=left_s))
            except grpc.RpcError as exc:
                raise by_code(exc.code().value[0], exc.details() or exc.code().name) from exc

        return self._retried(once, timeout_s)

    def close(self) -> None:
        """Give the connection back."""
        self._channel.close()


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdigit():
        raise InvalidArgumentError(f"{address!r} is no address: use host:port")
    return host, int(port)


def _signatures(found: Mapping[str, Any]) -> dict[str, Signature]:
    """Read a SignatureDefMap as protobuf JSON prints it, with names or numbers of types."""

    def read(tensors: Mapping[str, Any]) -> dict[str, TensorInfo]:
        read = {}
        for alias, info in tensors.items():
            shape = info.get("tensor_shape", {"dim": []})
            sizes = tuple(int(dim["size"]) for dim in shape["dim"])
            known = None if shape.get("unknown_rank") else sizes
            read[alias] = TensorInfo(_NAMES.get(info["dtype"], "invalid"), known)
        return read

    return {name: Signature(read(s["inputs"]), read(s["outputs"])) for name, s in found.items()}


def _as_array(value: Any) -> Array:
    """Make an array of what the caller gave; numpy's own string types would cut NUL bytes off."""
    try:
        array = np.asarray(value)
        is_text = array.dtype.kind in "SU" and not isinstance(value, np.ndarray)
        return np.array(value, dtype=object) if is_text else array
    except ValueError as exc:
        raise InvalidArgumentError(f"an input is no array: {exc}") from exc


def _plain(array: Array) -> Any:
    """Turn an array into JSON's terms; `bytes` become base64 objects, NaN stays bare."""
    if array.dtype.kind not in "fiubOSU":
        raise InvalidArgumentError(f"JSON has no form for an array of dtype {array.dtype}")

    def encode(item: Any) -> Any:
        if isinstance(item, list):
            return [encode(part) for part in item]
        if isinstance(item, bytes):
            return {"b64": base64.b64encode(item).decode()}
        if array.dtype.kind == "O" and not isinstance(item, (str, int, float)):
            raise InvalidArgumentError(f"JSON has no form for {item!r}: send numbers or text")
        return item

    return encode(array.tolist()) if array.dtype.kind in "OS" else array.tolist()


def _to_array(value: Any, dtype: str) -> Array:
    if dtype != "string":
        return np.array(value, dtype=_NUMPY.get(dtype))
    array = np.array(value, dtype=object)
    for index, item in np.ndenumerate(array):
        text = isinstance(item, str)
        array[index] = item.encode(*_RAW) if text else base64.b64decode(item["b64"])
    return array
