"""Predict, whatever it came by: knows models, signatures and arrays, no JSON, no HTTP, no gRPC.

Both edges read a request into arrays, call `Predictor` and write the arrays of its answer. A run
that is known to be short is made right here on the event loop, any other on a worker thread, so
that one slow request never stops the rest. A request whose time is over is answered at once, also
while its run cannot be stopped.

Source: tensorflow_serving/apis/predict.proto
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from mlops_mini import wire
from mlops_mini.errors import FailedPreconditionError, InternalError, InvalidArgumentError
from mlops_mini.serving import lifecycle, servables
from mlops_mini.serving.lifecycle import ModelLifecycle
from mlops_mini.serving.run_costs import INLINE_LIMIT_S
from mlops_mini.serving.servables import (
    CLASSIFY,
    DEFAULT_SIGNATURE,
    PREDICT,
    REGRESS,
    LoadedSignature,
    Servable,
    TensorSpec,
)
from mlops_mini.serving.workers import Workers
from mlops_mini.wire import ModelSpec, PredictRequest, PredictResponse

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class CheckedRun:
    """A run that may be made: what to feed and what to fetch.

    Attributes:
        signature: The signature that is run.
        arrays: One array per input of the signature.
        outputs: The outputs wanted.
    """

    signature: LoadedSignature
    arrays: Sequence[Array]
    outputs: Sequence[TensorSpec]


class Predictor:
    """Answers Predict.

    Every method raises an `MlopsMiniError` whose code and text are what TensorFlow Serving answers.
    """

    def __init__(
        self, models: Mapping[str, ModelLifecycle], workers: Workers, *, check_method: bool = False
    ) -> None:
        """Answer for these models.

        Args:
            models: The models by name; others may change it at any time.
            workers: Where slow runs are made.
            check_method: Refuse signatures that were exported for another method.
        """
        self._models = models
        self._workers = workers
        self._check_method = check_method

    async def predict(
        self, request: PredictRequest, *, timeout_s: float | None = None
    ) -> PredictResponse:
        """Answer a request that names its model.

        Args:
            request: The request.
            timeout_s: Longest run, seconds; None for no limit.
        """
        with contextlib.ExitStack() as hold:
            servable = hold.enter_context(lifecycle.acquire(self._models, request.model_spec))
            asked = request.model_spec or ModelSpec(name="")  # without one nothing is acquired
            outputs = await self.run(
                servable,
                asked.signature_name,
                request.inputs,
                unreadable=request.unreadable,
                output_filter=request.output_filter,
                timeout_s=timeout_s,
                hold=hold,
            )
            answered = ModelSpec(
                name=asked.name,
                version=servable.version,
                signature_name=asked.signature_name or DEFAULT_SIGNATURE,
            )
        return PredictResponse(model_spec=answered, outputs=outputs)

    async def run(
        self,
        servable: Servable,
        signature_name: str,
        inputs: Mapping[str, Array],
        *,
        unreadable: Sequence[str] = (),
        output_filter: Sequence[str] = (),
        timeout_s: float | None,
        hold: contextlib.ExitStack,
    ) -> dict[str, Array]:
        """Check a request against its signature and run that.

        Args:
            servable: The version that was asked for, acquired.
            signature_name: The signature asked for; empty for the default.
            inputs: One array per input alias.
            unreadable: Aliases of inputs that were sent and cannot become arrays.
            output_filter: Aliases of the outputs wanted; empty means all.
            timeout_s: Longest run, seconds; None for no limit.
            hold: Holds the servable. If the time is over before the run is, the run takes it along,
                so that the version is not unloaded under its feet.

        Returns:
            One array per output alias.
        """
        checked = check_run(
            servable,
            signature_name,
            inputs,
            unreadable=unreadable,
            output_filter=output_filter,
            check_method=self._check_method,
        )
        costs, n_elements = checked.signature.costs, _n_elements(checked.arrays)
        # What fetches other outputs is a callable of its own, which takes long to make.
        is_short = n_elements <= costs.inline_elements and not output_filter
        if is_short and costs.is_warm:
            results = _timed_run(servable, checked, n_elements, None)
        else:
            timeout_ms = None if is_short else servables.limit_ms(timeout_s)
            run = (_timed_run, servable, checked, n_elements, timeout_ms)
            results = await self._workers.run(*run, timeout_s=timeout_s, hold=hold)
            costs.is_warm |= is_short
        return {spec.alias: array for spec, array in zip(checked.outputs, results, strict=True)}


def check_run(
    servable: Servable,
    signature_name: str,
    inputs: Mapping[str, Array],
    *,
    unreadable: Sequence[str] = (),
    output_filter: Sequence[str] = (),
    check_method: bool = False,
) -> CheckedRun:
    """Check a request against its signature; arguments are those of `Predictor`.

    Raises:
        FailedPreconditionError: There is no such signature.
        InvalidArgumentError: Inputs or outputs do not fit it.
        InternalError: The signature was exported for another method.
        UnimplementedError: The signature cannot be served.
    """
    key = signature_name or DEFAULT_SIGNATURE
    signature = servable.signatures.get(key)
    if signature is None:
        raise FailedPreconditionError(f'Serving signature key "{key}" not found.')
    signature.check_servable()
    method = servable.signature_defs[key].method_name
    if check_method and method not in (PREDICT, CLASSIFY, REGRESS):
        raise InternalError(
            "Expected prediction signature method_name to be one of"
            f" {{{PREDICT}, {CLASSIFY}, {REGRESS}}}. Was: {method}"
        )
    _check_inputs(signature, {*inputs, *unreadable}, {*unreadable})
    _check_filter(signature, output_filter)
    fed = {**signature.defaults, **inputs}
    outputs = {spec.alias: spec for spec in signature.outputs}
    return CheckedRun(
        signature,
        [fed[spec.alias] for spec in signature.inputs],
        [outputs[alias] for alias in output_filter or outputs],
    )


def _check_inputs(signature: LoadedSignature, given: set[str], unreadable: set[str]) -> None:
    needed = {spec.alias for spec in signature.inputs}
    if len(given) > len(needed) or (len(given) < len(needed) and not signature.defaults):
        raise InvalidArgumentError(
            f"input size does not match signature: {len(given)}!={len(needed)}"
            f" len({_braced(given)}) != len({_braced(needed)})."
            f" Sent extra: {_braced(given - needed)}."
            f" Missing but required: {_braced(needed - given)}."
        )
    for spec in signature.inputs:
        if spec.alias not in given and spec.alias not in signature.defaults:
            raise InvalidArgumentError(
                f"Signature input alias: {spec.alias}(feed name: {spec.tensor}) not found in"
                " request and no default value provided. Inputs expected to be in the request"
                f" {_braced(given)}, or default input alias set:"
                f" {','.join(sorted(signature.defaults))}"
            )
        if spec.alias in unreadable:
            raise InvalidArgumentError(f"tensor parsing error: {spec.alias}")
    if given - needed:
        raise InvalidArgumentError(
            "Inputs contains invalid name. Used request inputs:"
            f" {','.join(sorted(given & needed))}, request input: {','.join(sorted(given))}"
        )


def _check_filter(signature: LoadedSignature, output_filter: Sequence[str]) -> None:
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


def _braced(names: Iterable[str]) -> str:
    return f"{{{','.join(sorted(names))}}}"


def _timed_run(
    servable: Servable, checked: CheckedRun, n_elements: int, timeout_ms: int | None
) -> list[Array]:
    """Run a signature, here if there is no limit, and let its costs be learned from."""
    costs, began = checked.signature.costs, time.perf_counter()
    try:
        return servable.run(
            checked.signature.inputs, checked.outputs, checked.arrays, timeout_ms=timeout_ms
        )
    finally:
        seconds = time.perf_counter() - began
        # A short one more of those that are known to be short says nothing new.
        is_usual = timeout_ms is None and costs.is_warm and seconds < INLINE_LIMIT_S
        if not is_usual:
            costs.add(n_elements, seconds)


def _n_elements(arrays: Sequence[Array]) -> int:
    """Count what is fed; a text counts as its bytes and one more."""
    n_elements = sum([array.size for array in arrays])
    texts = [array for array in arrays if array.dtype == object]
    return n_elements + sum(map(wire.text_bytes, texts))
