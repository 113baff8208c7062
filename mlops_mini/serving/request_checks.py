"""Whether a Predict request fits the signature that it asks for, in TensorFlow Serving's words.

Source: tensorflow_serving/servables/tensorflow/predict_util.cc
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from mlops_mini.errors import FailedPreconditionError, InternalError, InvalidArgumentError
from mlops_mini.serving.servables import (
    CLASSIFY,
    DEFAULT_SIGNATURE,
    PREDICT,
    REGRESS,
    LoadedSignature,
    Servable,
    TensorSpec,
)

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
