"""Predict bodies of more than a quarter of a megabyte; on a thread, or in a process beside ours."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mlops_mini.errors import MlopsMiniError
from mlops_mini.serving import json_fast, json_request
from mlops_mini.serving.json_request import DecodedRequest

_FLOATS = {"float": np.float32, "double": np.float64}


def read_predict(
    body: bytes | memoryview, signatures: Mapping[str, Mapping[str, str]]
) -> tuple[str, DecodedRequest | MlopsMiniError | None]:
    """Read a body as `json_request.read_predict` does, plain numbers in a tenth of the time.

    >>> read_predict(b'{"instances": [1, 2]}', {"": {"x": "float"}})[1].inputs["x"]
    array([1., 2.], dtype=float32)
    """
    plain = json_fast.read_numbers(bytes(body))
    if plain is not None:
        dtypes = signatures.get(plain.signature_name, {})
        alias, dtype = next(iter(dtypes.items()), ("", ""))
        if len(dtypes) == 1 and dtype in _FLOATS:
            with np.errstate(over="ignore"):  # 1e39 becomes Infinity
                array = plain.blocks[0].astype(_FLOATS[dtype])
            request = DecodedRequest(is_rows=plain.is_rows, inputs={alias: array})
            return plain.signature_name, request
    return json_request.read_predict(body, signatures)
