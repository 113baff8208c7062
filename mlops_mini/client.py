"""Ask a model server over REST or gRPC: numpy in, numpy out, no TensorFlow.

The same calls work against our server and against TensorFlow Serving.

    with RestClient("127.0.0.1:8501", model="flights") as client:
        client.predict({"carrier": ["UA"], "distance": [1400.0]})["probability"]
"""

from __future__ import annotations

import abc
import base64
import json
import time
from collections.abc import Mapping
from typing import Any, Self
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from mlops_mini.errors import (
    DeadlineExceededError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    UnavailableError,
    by_code,
)
from mlops_mini.wire import PREDICT_METHOD, ModelSpec, PredictRequest, PredictResponse

Array = npt.NDArray[Any]

_DEFAULT_SIGNATURE = "serving_default"
_POLL_S = 0.05
# Canonical gRPC code of an HTTP status, where one status means one code; 400 is mostly this one.
_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 409: 6, 429: 8, 499: 1, 501: 12, 503: 14, 504: 4}
_DTYPES = {
    "DT_FLOAT": np.float32, "DT_DOUBLE": np.float64, "DT_INT32": np.int32, "DT_UINT8": np.uint8,
    "DT_INT16": np.int16, "DT_INT8": np.int8, "DT_STRING": np.object_, "DT_INT64": np.int64,
    "DT_BOOL": np.bool_, "DT_UINT16": np.uint16, "DT_UINT32": np.uint32, "DT_UINT64": np.uint64,
}  # fmt: skip


class Prediction(dict[str, Array]):
    """An answer: one array per output alias.

    Attributes:
        version: The version of the model that answered, where the protocol says it: over gRPC, or
            when it was asked for.
    """

    def __init__(self, outputs: Mapping[str, Array], *, version: int | None) -> None:
        super().__init__(outputs)
        self.version = version


class Client(abc.ABC):
    """What both clients can do."""

    @abc.abstractmethod
    def predict(
        self,
        inputs: Mapping[str, Any],
        *,
        version: int | None = None,
        label: str = "",
        signature: str = _DEFAULT_SIGNATURE,
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
            InvalidArgumentError: The server refuses the inputs; the text is its own.
            NotFoundError: It has no such model or version.
            DeadlineExceededError: No answer in time.
            UnavailableError: Nobody listens at the address, or the connection broke.
            MlopsMiniError: Any other status, under its own code.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Give the connections back."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


class RestClient(Client):
    """Asks over REST, in the column form (`inputs`). May be shared by threads."""

    def __init__(self, address: str, *, model: str, max_connections: int = 8) -> None:
        """Point to a server; nothing is sent yet.

        Args:
            address: `host:port` of the REST API.
            model: Name of the model.
            max_connections: Connections that are kept for threads that ask at once.
        """
        import urllib3

        self.address = address
        self._path = f"/v1/models/{quote(model, safe='')}"
        self._pool = urllib3.HTTPConnectionPool(
            *_split(address), maxsize=max_connections, block=True, retries=False
        )
        self._outputs: dict[tuple[str, str], dict[str, str]] = {}

    def predict(
        self,
        inputs: Mapping[str, Any],
        *,
        version: int | None = None,
        label: str = "",
        signature: str = _DEFAULT_SIGNATURE,
        timeout_s: float = 10.0,
    ) -> Prediction:
        """Ask for a prediction, see `Client.predict`."""
        target = self._path + _target(version, label)
        body = {"signature_name": signature, "inputs": {k: _plain(v) for k, v in inputs.items()}}
        answer = self._ask("POST", f"{target}:predict", json.dumps(body), timeout_s)["outputs"]
        dtypes = self._output_dtypes(target, signature, timeout_s)
        if not _has_outputs(answer, dtypes):  # another version answers by now
            self._outputs.pop((target, signature), None)
            dtypes = self._output_dtypes(target, signature, timeout_s)
            if not _has_outputs(answer, dtypes):
                raise UnavailableError(
                    f"model {self._path} changes its version just now: the answer does not have"
                    f" the outputs {sorted(dtypes)}; ask again"
                )
        if len(dtypes) == 1:  # TensorFlow Serving leaves the name of a lone output out
            answer = {next(iter(dtypes)): answer}
        arrays = {alias: _to_array(answer[alias], dtypes[alias]) for alias in answer}
        return Prediction(arrays, version=version)

    def versions(self, *, timeout_s: float = 10.0) -> dict[int, str]:
        """Ask for the state of each version, such as `{2: "AVAILABLE", 1: "END"}`."""
        answer = self._ask("GET", self._path, None, timeout_s)
        return {int(v["version"]): v["state"] for v in answer["model_version_status"]}

    def wait_until_available(self, version: int, *, timeout_s: float) -> None:
        """Return once a version is available.

        Raises:
            DeadlineExceededError: It is not in time; the message says what is there.
            UnavailableError: Nobody listens at the address.
        """
        deadline = time.monotonic() + timeout_s
        while (states := self._states()).get(version) != "AVAILABLE":
            if time.monotonic() > deadline:
                raise DeadlineExceededError(
                    f"version {version} is not available after {timeout_s:.0f} s; the server has"
                    f" {states or 'no versions'}: its log says why"
                )
            time.sleep(_POLL_S)

    def _states(self) -> dict[int, str]:
        try:
            return self.versions()
        except NotFoundError:
            return {}

    def _output_dtypes(self, target: str, signature: str, timeout_s: float) -> dict[str, str]:
        """Names and types of a signature's outputs, asked for once."""
        known = self._outputs.get((target, signature))
        if known is None:
            answer = self._ask("GET", f"{target}/metadata", None, timeout_s)
            definition = answer["metadata"]["signature_def"]["signature_def"].get(signature, {})
            known = {k: v["dtype"] for k, v in definition.get("outputs", {}).items()}
            self._outputs[target, signature] = known
        return known

    def _ask(self, method: str, path: str, body: str | None, timeout_s: float) -> Any:
        import urllib3

        try:
            response = self._pool.request(method, path, body=body, timeout=timeout_s)
        except urllib3.exceptions.ReadTimeoutError as exc:
            raise DeadlineExceededError(
                f"{method} {path} at {self.address}: no answer in {timeout_s:g} s"
            ) from exc
        except urllib3.exceptions.HTTPError as exc:
            raise UnavailableError(
                f"{method} {path}: no model server answers at {self.address} ({exc})"
            ) from exc
        try:
            answer = json.loads(response.data.decode("utf-8", "surrogateescape"))
        except ValueError as exc:
            raise InternalError(
                f"{method} {path} at {self.address} answered {response.status} with no JSON:"
                f" {response.data[:80]!r}"
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

    def __init__(self, address: str, *, model: str) -> None:
        """Point to a server; nothing is sent yet.

        Args:
            address: `host:port` of the gRPC API.
            model: Name of the model.
        """
        import grpc

        no_limit = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        self.address = address
        self._model = model
        self._channel = grpc.insecure_channel(address, options=no_limit)
        self._call = self._channel.unary_unary(PREDICT_METHOD)

    def predict(
        self,
        inputs: Mapping[str, Any],
        *,
        version: int | None = None,
        label: str = "",
        signature: str = _DEFAULT_SIGNATURE,
        timeout_s: float = 10.0,
    ) -> Prediction:
        """Ask for a prediction, see `Client.predict`."""
        import grpc

        _check_choice(version, label)
        spec = ModelSpec(
            name=self._model, version=version, version_label=label, signature_name=signature
        )
        arrays = {alias: _as_array(value) for alias, value in inputs.items()}
        request = PredictRequest(model_spec=spec, inputs=arrays)
        try:
            answer = self._call(request.to_bytes(), timeout=timeout_s)
        except grpc.RpcError as exc:
            raise by_code(exc.code().value[0], exc.details() or exc.code().name) from exc
        response = PredictResponse.from_bytes(answer)
        return Prediction(response.outputs, version=response.model_spec.version)

    def close(self) -> None:
        """Give the connection back."""
        self._channel.close()


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise InvalidArgumentError(f"{address!r} is no address: use host:port")
    return host, int(port)


def _check_choice(version: int | None, label: str) -> None:
    if version is not None and label:
        raise InvalidArgumentError(f"ask for version {version} or label {label!r}, not both")


def _target(version: int | None, label: str) -> str:
    _check_choice(version, label)
    if version is not None:
        return f"/versions/{version}"
    return f"/labels/{quote(label, safe='')}" if label else ""


def _as_array(value: Any) -> Array:
    """Make an array of what the caller gave; numpy's own string types would cut NUL bytes off."""
    try:
        array = np.asarray(value)
        is_text = array.dtype.kind in "SU" and not isinstance(value, np.ndarray)
        return np.array(value, dtype=object) if is_text else array
    except ValueError as exc:
        raise InvalidArgumentError(f"an input is no array: {exc}") from exc


def _plain(value: Any) -> Any:
    """Turn an array into JSON's terms; `bytes` become base64 objects, NaN stays bare."""
    array = _as_array(value)
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


def _has_outputs(answer: Any, dtypes: Mapping[str, str]) -> bool:
    """True if an answer in column form can be that of a signature with these outputs."""
    is_named = isinstance(answer, dict) and answer.keys() != {"b64"}
    return answer.keys() == dtypes.keys() if is_named else len(dtypes) == 1


def _to_array(value: Any, dtype: str) -> Array:
    if dtype != "DT_STRING":
        return np.array(value, dtype=_DTYPES.get(dtype))
    array = np.array(value, dtype=object)
    for index, item in np.ndenumerate(array):
        array[index] = _to_bytes(item)
    return array


def _to_bytes(item: Any) -> bytes:
    return (
        base64.b64decode(item["b64"])
        if isinstance(item, dict)
        else str(item).encode("utf-8", "surrogateescape")
    )
