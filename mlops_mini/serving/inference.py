"""Answers a request, whatever it came by: knows models, signatures and formats, no HTTP, no gRPC.

Both edges call `ModelServer` and turn the errors it raises into a status of their own protocol. A
run that is known to be short happens right here on the event loop; any other goes to a worker
thread, so that one slow request never stops the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy.typing as npt

from mlops_mini.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError
from mlops_mini.serving import json_request, json_response, json_text
from mlops_mini.serving.lifecycle import ModelLifecycle, VersionStatus, not_served
from mlops_mini.serving.servables import Servable, Signature
from mlops_mini.wire import ModelSpec, PredictRequest, PredictResponse

Array = npt.NDArray[Any]

DEFAULT_SIGNATURE = "serving_default"
# The canonical names of google/rpc/code.proto, as the status route prints them.
_CODE_NAMES = {
    0: "OK", 1: "CANCELLED", 2: "UNKNOWN", 3: "INVALID_ARGUMENT", 4: "DEADLINE_EXCEEDED",
    5: "NOT_FOUND", 6: "ALREADY_EXISTS", 7: "PERMISSION_DENIED", 8: "RESOURCE_EXHAUSTED",
    9: "FAILED_PRECONDITION", 10: "ABORTED", 11: "OUT_OF_RANGE", 12: "UNIMPLEMENTED",
    13: "INTERNAL", 14: "UNAVAILABLE", 15: "DATA_LOSS", 16: "UNAUTHENTICATED",
}  # fmt: skip
_MAX_INLINE_ROWS = 64


class ModelServer:
    """What the server can be asked, in bytes and numpy.

    Every method raises an `MlopsMiniError` whose code and text are what TensorFlow Serving answers.
    """

    def __init__(self, models: Mapping[str, ModelLifecycle]) -> None:
        """Serve these models, by name."""
        self._models = models

    async def predict_json(
        self, body: bytes, *, name: str, version: int | None, version_label: str | None
    ) -> bytes:
        """Answer the body of a REST predict request with the body of its answer."""
        document = json_request.parse_object(body)
        signature_name = document.get("signature_name", "")
        if not isinstance(signature_name, str):
            raise InvalidArgumentError(
                f"JSON Value: {json_text.show(document)} not formatted correctly."
                " 'signature_name' key must be a string value."
            )
        with self._acquire(name, version, version_label) as servable:
            signature = servable.signatures.get(signature_name or DEFAULT_SIGNATURE)
            if signature is None:
                raise InvalidArgumentError(
                    f'Serving signature name: "{signature_name or DEFAULT_SIGNATURE}"'
                    " not found in signature def"
                )
            if not signature.inputs:
                raise InvalidArgumentError(
                    f"Failed to get input map for signature: {signature_name or 'DEFAULT'}"
                )
            request = json_request.decode_predict(document, signature.dtypes)
            arrays = [request.inputs[spec.alias] for spec in signature.inputs]
            outputs = await _run(servable, signature, arrays)
            return json_response.encode_predict(outputs, is_rows=request.is_rows)

    async def predict_proto(self, request_bytes: bytes) -> bytes:
        """Answer a serialized PredictRequest with a serialized PredictResponse."""
        request = PredictRequest.from_bytes(request_bytes)
        spec = request.model_spec
        if spec is None:
            raise InvalidArgumentError("Missing ModelSpec")
        if not spec.name:
            raise InvalidArgumentError("ModelSpec has no name specified.")
        with self._acquire(spec.name, spec.version, spec.version_label) as servable:
            key = spec.signature_name or DEFAULT_SIGNATURE
            signature = servable.signatures.get(key)
            if signature is None:
                raise FailedPreconditionError(f'Serving signature key "{key}" not found.')
            _check_inputs(signature, {*request.inputs, *request.unreadable})
            if request.unreadable:
                raise InvalidArgumentError(f"tensor parsing error: {request.unreadable[0]}")
            _check_filter(signature, request.output_filter)
            arrays = [request.inputs[spec.alias] for spec in signature.inputs]
            outputs = await _run(servable, signature, arrays)
            if request.output_filter:
                outputs = {alias: outputs[alias] for alias in request.output_filter}
            answered = ModelSpec(name=spec.name, version=servable.version, signature_name=key)
            return PredictResponse(model_spec=answered, outputs=outputs).to_bytes()

    def status_json(self, *, name: str, version: int | None) -> bytes:
        """Describe the state of a model's versions, highest first."""
        model = self._models.get(name)
        statuses = model.statuses() if model else []
        found = [s for s in statuses if version is None or s.version == version]
        if not found:
            what = "any versions of" if version is None else f"version {version} of"
            raise NotFoundError(f"Could not find {what} model {name}")
        listed = {"model_version_status": [_status_entry(status) for status in found]}
        return (json.dumps(listed, indent=1) + "\n").encode()

    def metadata_json(self, *, name: str, version: int | None, version_label: str | None) -> bytes:
        """Describe the signatures of a version."""
        from google.protobuf import json_format

        with self._acquire(name, version, version_label) as servable:
            signature_defs = {
                key: json_format.MessageToDict(
                    definition,
                    always_print_fields_with_no_presence=True,
                    preserving_proto_field_name=True,
                )
                for key, definition in sorted(servable.signature_defs.items())
            }
            spec = {"name": name, "version": str(servable.version), "signature_name": ""}
        metadata = {"signature_def": {"signature_def": signature_defs}}
        return (json.dumps({"model_spec": spec, "metadata": metadata}, indent=1) + "\n").encode()

    def _acquire(
        self, name: str, version: int | None, version_label: str | None
    ) -> AbstractContextManager[Servable]:
        if version_label:
            raise InvalidArgumentError(f"Unrecognized servable version label: {version_label}")
        model = self._models.get(name)
        if model is None:
            raise not_served(name, version)
        return model.acquire(version)


async def _run(
    servable: Servable, signature: Signature, arrays: Sequence[Array]
) -> dict[str, Array]:
    n_rows = max((len(array) for array in arrays if array.ndim), default=1)
    if signature.is_inline and n_rows <= _MAX_INLINE_ROWS:
        results = servable.run(signature, arrays, inline=True)
    else:
        results = await _to_the_end(
            asyncio.to_thread(servable.run, signature, arrays, inline=False)
        )
    aliases = [spec.alias for spec in signature.outputs]
    return dict(zip(aliases, results, strict=True))


async def _to_the_end(run: Coroutine[Any, Any, list[Array]]) -> list[Array]:
    """Await a run on a worker thread, also when nobody waits for its answer any more.

    The thread cannot be stopped, and a version that is let go may be unloaded under its feet.
    """
    task = asyncio.create_task(run)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({task})
        raise


def _check_inputs(signature: Signature, given: set[str]) -> None:
    needed = {spec.alias for spec in signature.inputs}
    if len(given) != len(needed):
        raise InvalidArgumentError(
            f"input size does not match signature: {len(given)}!={len(needed)}"
            f" len({_braced(given)}) != len({_braced(needed)})."
            f" Sent extra: {_braced(given - needed)}."
            f" Missing but required: {_braced(needed - given)}."
        )
    for spec in signature.inputs:
        if spec.alias not in given:
            raise InvalidArgumentError(
                f"Signature input alias: {spec.alias}(feed name: {spec.tensor}) not found in"
                " request and no default value provided. Inputs expected to be in the request"
                f" {_braced(given)}, or default input alias set: "
            )


def _check_filter(signature: Signature, output_filter: Sequence[str]) -> None:
    known = {spec.alias for spec in signature.outputs}
    seen: set[str] = set()
    for alias in output_filter:
        if alias not in known:
            raise InvalidArgumentError(
                f"output tensor alias not found in signature: {alias} Outputs expected to be in the"
                f" set {_braced(known)}."
            )
        if alias in seen:
            raise InvalidArgumentError(f"duplicate output tensor alias: {alias}")
        seen.add(alias)


def _braced(names: set[str]) -> str:
    return f"{{{','.join(sorted(names))}}}"


def _status_entry(status: VersionStatus) -> dict[str, Any]:
    return {
        "version": str(status.version),
        "state": status.state.name,
        "status": {
            "error_code": _CODE_NAMES.get(status.error_code, "UNKNOWN"),
            "error_message": status.error_message,
        },
    }
