"""A predict body read in one go, wherever that is done: here, in a thread, in another process."""

from __future__ import annotations

from collections.abc import Mapping

from mlops_mini.errors import MlopsMiniError
from mlops_mini.serving import json_request


def read_predict(
    body: bytes | memoryview, signatures: Mapping[str, Mapping[str, str]], *, quick: bool = False
) -> tuple[str, json_request.DecodedRequest | MlopsMiniError | None]:
    """Turn a predict body into arrays, as the signature that it asks for has them.

    Args:
        body: The body.
        signatures: Element types as in `decode_predict`, by signature; empty stands for the
            default one.
        quick: Raise `NotQuickError` where it takes more than some milliseconds.

    Returns:
        The signature asked for, and what it is asked; or why that does not fit; or None if there is
        no such signature, or it has no inputs.

    Raises:
        InvalidArgumentError: As `parse_object` and `signature_name` do: which model is asked does
            not matter then.

    >>> read_predict(b'{"instances": [1, 2]}', {"": {"x": "float"}})[1].inputs["x"]
    array([1., 2.], dtype=float32)
    """
    document = json_request.parse_object(bytes(body), quick=quick)
    name = json_request.signature_name(document)
    dtypes = signatures.get(name)
    if not dtypes:
        return name, None
    try:
        return name, json_request.decode_predict(document, dtypes, quick=quick)
    except MlopsMiniError as exc:
        return name, exc
