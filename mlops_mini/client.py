"""Ask a model server over REST or gRPC: numpy in, numpy out, no TensorFlow.

The same calls work against our server and against TensorFlow Serving.

    with RestClient("127.0.0.1:8501", model="churn") as client:
        client.predict({"plan": ["pro"], "monthly_usd": [40.0]})["probability"]

Behind a proxy that speaks TLS:

    RestClient("models.example:443", model="churn", tls=Tls(ca=Path("ca.pem")))
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Mapping
from typing import Any, Self, TypeVar
from urllib.parse import quote

from mlops_mini import client_answers, client_arguments, wire
from mlops_mini.client_answers import RAW, Metadata, Prediction
from mlops_mini.client_arguments import Array
from mlops_mini.errors import (
    DeadlineExceededError,
    FailedPreconditionError,
    HandshakeError,
    InternalError,
    InvalidArgumentError,
    MlopsMiniError,
    NotFoundError,
    UnavailableError,
    by_code,
)  # fmt: skip
from mlops_mini.tls import Tls, connection_error
from mlops_mini.wire import ModelSpec, PredictRequest, PredictResponse
from mlops_mini.wire_messages import EXACT, parse

Arrays = Mapping[str, Array]
Inputs = Mapping[str, Any]
T = TypeVar("T")

_POLL_S, _LEAST_S = 0.05, 0.001  # a limit of 0 s would mean none
_LOOK_S = 1.0  # what one look at the versions may take, however little time is left
# Canonical gRPC code of an HTTP status, where one status means one code; 400 is mostly this one.
# TensorFlow Serving itself neither redirects nor answers 502: those are a proxy's.
_CODES = {
    301: 9, 302: 9, 303: 9, 307: 9, 308: 9, 400: 3, 401: 16, 403: 7, 404: 5, 409: 6, 429: 8,
    499: 1, 501: 12, 502: 14, 503: 14, 504: 4,
}  # fmt: skip
_STATUS_METHOD = "/tensorflow.serving.ModelService/GetModelStatus"
_METADATA_METHOD = "/tensorflow.serving.PredictionService/GetModelMetadata"
_STATES = {10: "START", 20: "LOADING", 30: "AVAILABLE", 40: "UNLOADING", 50: "END"}
_CHANNEL = {
    "grpc.max_send_message_length": -1,
    "grpc.max_receive_message_length": -1,
    "grpc.enable_http_proxy": 0,  # else http_proxy takes calls to 127.0.0.1, too
    "grpc.initial_reconnect_backoff_ms": 100,  # so that a retry finds a server that is back
    "grpc.max_reconnect_backoff_ms": 1000,
}
_NO_CONNECTION = ("failed to connect to all addresses", "errors resolving")
_IS_CLOSED = "this client is closed: make a new one"


class Client(abc.ABC):
    """What both clients can do; every call may raise what `predict` does.

    Calls go straight to the address. Neither client uses a proxy that the environment names
    (`http_proxy`, `https_proxy`, `grpc_proxy`), whether `no_proxy` lists the address or not: those
    are for the way out into the internet, and a model server is rarely there. To go through a proxy
    in front of a server, give the proxy's address.
    """

    def __init__(
        self, address: str, *, model: str, retry_s: float = 1.0, tls: Tls | None = None
    ) -> None:
        """Point to a server; nothing is sent yet.

        Args:
            address: `host:port` of the API, an IPv6 host in brackets.
            model: Name of the model.
            retry_s: Seconds to go on asking while nobody answers, within the call's own
                `timeout_s`. All calls only read, so asking twice does no harm.
            tls: Which authorities to trust when the server speaks TLS; `Tls()` trusts the usual
                ones. Without it, nothing is encrypted.

        Raises:
            InvalidArgumentError: An argument has no meaning, or a file of `tls` cannot be used.
        """
        if tls is not None and not isinstance(tls, Tls):
            raise InvalidArgumentError(f"tls must be a Tls, such as Tls(ca=...), got {tls!r}")
        self.address = address
        self._model = client_arguments.text("the model's name", model)
        self._retry_s = client_arguments.seconds("retry_s", retry_s)
        self._tls = tls

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
            inputs: One array, or what numpy makes one of, per input alias. Numbers in Python's
                lists become the signature's own type. Over REST those in arrays do, too; over gRPC
                an array must be of that type.
            version: Exact version; without it and a label the highest one answers.
            label: Version label, such as `canary`.
            signature: Name of the signature.
            timeout_s: Seconds to wait for the answer; `math.inf` waits for days.

        Returns:
            One array per output alias, with the signature's element type, and the version.

        Raises:
            MlopsMiniError: What the server answers, in its own words under its own code, such as
                InvalidArgumentError or NotFoundError.
            InvalidArgumentError: An argument cannot be sent; nothing has been.
            DeadlineExceededError: No answer in time.
            UnavailableError: Nobody listens, or the connection broke; as `HandshakeError` if TLS
                or the port is the reason.
            InternalError: What answers is no model server.
        """
        limit_s = client_arguments.seconds("timeout_s", timeout_s)
        spec = self._spec(version, label, signature or "serving_default")
        return self._predict(inputs, spec, limit_s)

    def versions(self, *, timeout_s: float = 10.0) -> dict[int, str]:
        """Ask for the state of each version, such as `{2: "AVAILABLE", 1: "END"}`."""
        return self._versions(client_arguments.seconds("timeout_s", timeout_s))

    def metadata(
        self, *, version: int | None = None, label: str = "", timeout_s: float = 10.0
    ) -> Metadata:
        """Ask which signatures a version has; the versions are chosen as in `predict`."""
        limit_s = client_arguments.seconds("timeout_s", timeout_s)
        return self._metadata(self._spec(version, label), limit_s)

    @abc.abstractmethod
    def _predict(self, inputs: Inputs, spec: ModelSpec, timeout_s: float) -> Prediction: ...

    @abc.abstractmethod
    def _versions(self, timeout_s: float) -> dict[int, str]: ...

    @abc.abstractmethod
    def _metadata(self, spec: ModelSpec, timeout_s: float) -> Metadata: ...

    def _spec(self, version: int | None, label: str, signature: str = "") -> ModelSpec:
        if version is not None and label:
            raise InvalidArgumentError(f"ask for version {version} or label {label!r}, not both")
        return ModelSpec(
            name=self._model,
            version=None if version is None else client_arguments.whole_number("version", version),
            version_label=client_arguments.text("a label", label),
            signature_name=client_arguments.text("a signature's name", signature),
        )

    @abc.abstractmethod
    def close(self) -> None:
        """Close the connections."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def wait_until_available(self, version: int, *, timeout_s: float) -> None:
        """Return once a version is available; an error if late says what is there instead."""
        version = client_arguments.whole_number("version", version)
        timeout_s = client_arguments.seconds("timeout_s", timeout_s)
        states, deadline = {}, time.monotonic() + timeout_s
        while True:
            with contextlib.suppress(NotFoundError):
                states = self._versions(max(deadline - time.monotonic(), _LOOK_S))
            if states.get(version) == "AVAILABLE":
                return
            if time.monotonic() > deadline:
                raise DeadlineExceededError(
                    f"version {version} is not available after {timeout_s:.0f} s; the server has"
                    f" {states or 'no versions'}: its log says why"
                )
            time.sleep(_POLL_S)

    def _retried(self, ask: Callable[[float], T], timeout_s: float) -> T:
        """Call `ask` with the seconds that are left, again after growing pauses if unavailable."""
        if timeout_s <= 0:
            raise DeadlineExceededError(
                f"no time is left to ask {self.address}: timeout_s must be more than 0"
            )
        start, pause_s = time.monotonic(), _POLL_S
        while True:
            try:
                return ask(max(start + timeout_s - time.monotonic(), _LEAST_S))
            except HandshakeError:
                raise
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
        self,
        address: str,
        *,
        model: str,
        retry_s: float = 1.0,
        tls: Tls | None = None,
        max_connections: int = 8,
    ) -> None:
        """Point to a server, see `Client`; keep that many connections for threads that ask."""
        import urllib3

        super().__init__(address, model=model, retry_s=retry_s, tls=tls)
        self._path = f"/v1/models/{quote(model, safe='')}"
        host, port = client_arguments.host_and_port(address)
        maxsize = client_arguments.whole_number("max_connections", max_connections, least=1)
        options: dict[str, Any] = {"maxsize": maxsize, "block": True, "retries": False}
        if tls is None:
            self._pool = urllib3.HTTPConnectionPool(host, port, **options)
        else:
            options |= {"ssl_context": tls.context(), "server_hostname": tls.server_name or None}
            self._pool = urllib3.HTTPSConnectionPool(host, port, **options)
        self._known: dict[str, Metadata] = {}

    def _predict(self, inputs: Inputs, spec: ModelSpec, timeout_s: float) -> Prediction:
        deadline, path = time.monotonic() + timeout_s, self._versioned(spec)
        arrays = client_arguments.arrays(inputs)
        plain = {alias: client_arguments.to_json(alias, array) for alias, array in arrays.items()}
        body = json.dumps({"signature_name": spec.signature_name, "inputs": plain})
        known = self._known.get(path) or self._metadata(spec, timeout_s)
        while True:
            before, left_s = known, deadline - time.monotonic()
            answer = self._ask("POST", f"{path}:predict", body, left_s)
            if spec.version is None:
                known = self._metadata(spec, deadline - time.monotonic())
            if known == before:
                break
        with client_answers.reading(f"POST {path}:predict at {self.address}", answer):
            outputs, given = known.signatures[spec.signature_name].outputs, answer["outputs"]
            if len(outputs) == 1:  # TensorFlow Serving leaves the name of a lone output out
                given = {next(iter(outputs)): given}
            answered = {
                k: client_answers.from_json(given[k], info.dtype) for k, info in outputs.items()
            }
        return Prediction(answered, version=known.version)

    def _versions(self, timeout_s: float) -> dict[int, str]:
        answer = self._ask("GET", self._path, None, timeout_s)
        with client_answers.reading(f"GET {self._path} at {self.address}", answer):
            return {int(v["version"]): str(v["state"]) for v in answer["model_version_status"]}

    def _metadata(self, spec: ModelSpec, timeout_s: float) -> Metadata:
        path = self._versioned(spec)
        answer = self._ask("GET", f"{path}/metadata", None, timeout_s)
        with client_answers.reading(f"GET {path}/metadata at {self.address}", answer):
            signatures = client_answers.signatures(
                answer["metadata"]["signature_def"]["signature_def"]
            )
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
        except urllib3.exceptions.NewConnectionError as exc:  # of the time-outs, but it is none
            raise connection_error(where, str(exc), self._tls) from exc
        except (urllib3.exceptions.TimeoutError, urllib3.exceptions.EmptyPoolError) as exc:
            raise DeadlineExceededError(f"{where}: no answer in {timeout_s:.2g} s") from exc
        except urllib3.exceptions.ClosedPoolError as exc:
            raise FailedPreconditionError(f"{where}: {_IS_CLOSED}") from exc
        except urllib3.exceptions.DecodeError as exc:
            raise InternalError(f"{where} answered what cannot be unpacked: {exc}") from exc
        except urllib3.exceptions.HTTPError as exc:
            raise connection_error(where, str(exc), self._tls) from exc
        answered = f"{where} answered {response.status}"
        try:
            answer = json.loads(response.data.decode(*RAW))
        except (ValueError, RecursionError) as exc:
            answered = f"{answered} with no JSON: {response.data[:80]!r}"
            if response.status == 200:
                raise InternalError(f"{answered}; is it a model server's REST API?") from exc
            raise self._refusal(response, answered) from exc
        if response.status != 200:
            words = answer.get("error") if isinstance(answer, dict) else None
            if not isinstance(words, str) or not words:
                words = f"{answered}: {answer!r:.80}"
            raise self._refusal(response, words)
        return answer

    @staticmethod
    def _refusal(response: Any, words: str) -> MlopsMiniError:
        if 300 <= response.status < 400:
            words += f"; it points to {response.headers.get('Location')}: ask there"
        return by_code(_CODES.get(response.status, 13), words)

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()


class GrpcClient(Client):
    """Asks over gRPC. May be shared by threads.

    A signature's types are asked for once if numbers come in Python's lists, and again if the
    server refuses them.
    """

    def __init__(
        self, address: str, *, model: str, retry_s: float = 1.0, tls: Tls | None = None
    ) -> None:
        """Point to a server, see `Client`; `address` may also be `unix:path` or `dns:///name`."""
        import grpc

        super().__init__(address, model=model, retry_s=retry_s, tls=tls)
        target = client_arguments.grpc_target(address)
        self._known: dict[ModelSpec, Metadata] = {}
        options: list[tuple[str, Any]] = list(_CHANNEL.items())
        if tls is None:
            self._channel = grpc.insecure_channel(target, options=options)
        else:
            if tls.server_name:
                options.append(("grpc.ssl_target_name_override", tls.server_name))
            self._channel = grpc.secure_channel(target, tls.credentials(), options=options)

    def _predict(self, inputs: Inputs, spec: ModelSpec, timeout_s: float) -> Prediction:
        deadline, arrays = time.monotonic() + timeout_s, client_arguments.arrays(inputs)
        lists = [alias for alias in arrays if not hasattr(inputs[alias], "dtype")]
        if not any(arrays[alias].dtype.kind in "fiu" for alias in lists):
            return self._predict_arrays(arrays, spec, timeout_s)
        version = dataclasses.replace(spec, signature_name="")
        known = self._known.get(version) or self._metadata(version, timeout_s)
        while True:
            self._known[version] = known
            signature = known.signatures.get(spec.signature_name)
            taken = signature.inputs if signature is not None else {}
            dtypes = {alias: info.dtype for alias, info in taken.items()}
            fitting = client_arguments.fitting(arrays, lists, dtypes)
            try:
                return self._predict_arrays(fitting, spec, deadline - time.monotonic())
            except InvalidArgumentError:
                latest = self._metadata(version, deadline - time.monotonic())
                if latest.signatures == known.signatures:
                    raise
                known = latest

    def _predict_arrays(self, inputs: Arrays, spec: ModelSpec, timeout_s: float) -> Prediction:
        request = PredictRequest(model_spec=spec, inputs=inputs)
        data = self._call(wire.PREDICT_METHOD, request.to_bytes(), timeout_s)
        with client_answers.reading(f"{wire.PREDICT_METHOD} at {self.address}", data):
            response = PredictResponse.from_bytes(data)
            if not response.outputs:
                raise InvalidArgumentError("no outputs")
        return Prediction(response.outputs, version=response.model_spec.version)

    def _versions(self, timeout_s: float) -> dict[int, str]:
        request = EXACT["GetModelStatusRequest"](model_spec={"name": self._model})
        data = self._call(_STATUS_METHOD, request.SerializeToString(), timeout_s)
        with client_answers.reading(f"{_STATUS_METHOD} at {self.address}", data):
            statuses = parse(EXACT["GetModelStatusResponse"], data).model_version_status
            return {status.version: _STATES.get(status.state, "UNKNOWN") for status in statuses}

    def _metadata(self, spec: ModelSpec, timeout_s: float) -> Metadata:
        from google.protobuf.json_format import MessageToDict

        request = EXACT["GetModelMetadataRequest"](metadata_field=["signature_def"])
        wire.fill_spec(request.model_spec, spec)
        data = self._call(_METADATA_METHOD, request.SerializeToString(), timeout_s)
        with client_answers.reading(f"{_METADATA_METHOD} at {self.address}", data):
            answer = parse(EXACT["GetModelMetadataResponse"], data)
            packed = dict(answer.metadata)["signature_def"].value
            printed = MessageToDict(
                parse(EXACT["SignatureDefMap"], packed),
                preserving_proto_field_name=True,
                always_print_fields_with_no_presence=True,
            )
            return Metadata(
                answer.model_spec.version.value, client_answers.signatures(printed["signature_def"])
            )

    def _call(self, method: str, request: bytes, timeout_s: float) -> bytes:
        import grpc

        where = f"{method} at {self.address}"

        def once(left_s: float) -> bytes:
            try:
                return bytes(self._channel.unary_unary(method)(request, timeout=left_s))
            except grpc.RpcError as exc:
                code, words = exc.code().value[0], exc.details() or exc.code().name
                if code == UnavailableError.code and words.startswith(_NO_CONNECTION):
                    raise connection_error(where, words, self._tls) from exc
                raise by_code(code, words) from exc
            except ValueError as exc:
                raise FailedPreconditionError(f"{where}: {_IS_CLOSED}") from exc

        return self._retried(once, timeout_s)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()
