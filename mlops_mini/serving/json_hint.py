"""The hint beside TensorFlow Serving's error: what the model takes, with a body that it reads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from mlops_mini.serving.servables import CLASSIFY, DEFAULT_SIGNATURE, REGRESS, Servable

_MAX_VALUES = 64
# One value of each type that JSON has a form for.
_ZEROS: dict[str, Any] = {
    "string": "text",
    "bool": False,
    **dict.fromkeys(("float", "double"), 0.0),
    **dict.fromkeys(("int32", "int16", "int8", "uint8", "int64", "uint32", "uint64"), 0),
}


def predict_hint(servable: Servable, key: str) -> str:
    """Say what a signature takes, or which signatures there are if it is none of them.

    Args:
        servable: The version that was asked for.
        key: Name of the signature; empty for the default.
    """
    signature = servable.signatures.get(key or DEFAULT_SIGNATURE)
    if signature is None:
        return f"signatures of this model: {', '.join(sorted(servable.signatures))}"
    method = servable.signature_defs[signature.name].method_name
    if method in (CLASSIFY, REGRESS):
        verb = method.rpartition("/")[2]
        return f'{signature.name} takes serialized tf.Examples: use :{verb} with "examples"'
    inputs = {spec.alias: (spec.dtype, spec.shape) for spec in signature.inputs}
    return hint(inputs, signature.name)


def examples_hint(servable: Servable, method: str) -> str:
    """Say which signatures are made for a method, `CLASSIFY` or `REGRESS`."""
    verb = method.rpartition("/")[2]
    names = sorted(
        name
        for name, definition in servable.signature_defs.items()
        if definition.method_name == method
    )
    if not names:
        return f"no signature of this model is made for {verb}: use :predict"
    return f"made for {verb}: {', '.join(names)}; numbers of a float feature need a point: 2.0"


def hint(inputs: Mapping[str, tuple[str, Sequence[int] | None]], signature: str) -> str:
    """Say what a signature takes, with a body that it reads.

    Args:
        inputs: Element type and declared shape of each input, -1 for any size, None for any rank.
        signature: Its name.

    Returns:
        One line; without the body if an input has no form in JSON, or more values than a line
        should hold.

    >>> hint({"x": ("float", (-1, 2))}, "serving_default")
    'serving_default takes x: float [?,2]; for example {"instances":[{"x":[0.0,0.0]}]}'
    """
    listed = ", ".join(f"{a}: {dtype} {_declared(shape)}" for a, (dtype, shape) in inputs.items())
    text = f"{signature} takes {listed or 'no input: use gRPC'}"
    no_form = [alias for alias, (dtype, _) in inputs.items() if dtype not in _ZEROS]
    if no_form:
        return f"{text}; JSON has no form for {', '.join(no_form)}: use gRPC"
    sizes = {
        alias: [max(size, 1) for size in ((1,) if shape is None else shape)]
        for alias, (_, shape) in inputs.items()
    }
    if not inputs or sum(map(math.prod, sizes.values())) > _MAX_VALUES:
        return text
    columns = {
        alias: np.full(sizes[alias], _ZEROS[dtype], object).tolist()
        for alias, (dtype, _) in inputs.items()
    }
    body: dict[str, Any] = {} if signature == DEFAULT_SIGNATURE else {"signature_name": signature}
    if all(size and size[0] == 1 for size in sizes.values()):
        body["instances"] = [{alias: column[0] for alias, column in columns.items()}]
    else:
        body["inputs"] = columns
    return f"{text}; for example {orjson.dumps(body).decode()}"


def _declared(shape: Sequence[int] | None) -> str:
    if shape is None:
        return "of any shape"
    return f"[{','.join('?' if size < 0 else str(size) for size in shape)}]"
