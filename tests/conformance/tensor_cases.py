"""Which tensors Predict takes over gRPC, and how it answers them: 4.2, type by type.

What a TensorProto means was read off TensorFlow's own `tf.io.parse_tensor`.
"""

import base64
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from ml_dtypes import bfloat16

from tests.conformance.grpc_cases import GrpcCase, floats, spec, tensor

# A signature that returns its input, its typed field, two values, and these as numpy has them.
TYPES: tuple[tuple[str, str, list[Any], npt.NDArray[Any] | None], ...] = (
    ("float", "float_val", [1.5, "NaN"], np.array([1.5, np.nan], np.float32)),
    ("double", "double_val", [0.1, "-Infinity"], np.array([0.1, -np.inf], np.float64)),
    ("int32", "int_val", [-(2**31), 2**31 - 1], np.array([-(2**31), 2**31 - 1], np.int32)),
    ("int16", "int_val", [-(2**15), 2**15 - 1], np.array([-(2**15), 2**15 - 1], np.int16)),
    ("int8", "int_val", [-128, 127], np.array([-128, 127], np.int8)),
    ("uint8", "int_val", [1, 255], np.array([1, 255], np.uint8)),
    ("uint16", "int_val", [1, 65535], np.array([1, 65535], np.uint16)),
    (
        "int64",
        "int64_val",
        ["9007199254740993", str(-(2**63))],
        np.array([2**53 + 1, -(2**63)]),
    ),
    ("uint32", "uint32_val", [1, 2**32 - 1], np.array([1, 2**32 - 1], np.uint32)),
    ("uint64", "uint64_val", ["1", str(2**64 - 1)], np.array([1, 2**64 - 1], np.uint64)),
    ("bool", "bool_val", [False, True], np.array([False, True], np.bool_)),
    ("string", "string_val", ["YQA=", "/w=="], None),
    ("half", "half_val", [15360, 49152], np.array([1, -2], np.float16)),
    ("bfloat16", "half_val", [16256, 49152], np.array([1, -2], bfloat16)),
    (
        "complex64",
        "scomplex_val",
        [1.0, -2.0, 0.5, 0.25],
        np.array([1 - 2j, 0.5 + 0.25j], np.complex64),
    ),
    (
        "complex128",
        "dcomplex_val",
        [0.1, 2.0, 0.3, -4.0],
        np.array([0.1 + 2j, 0.3 - 4j], np.complex128),
    ),
)
_ZEROS: dict[str, Any] = {"bool": False, "string": "", "int64": "0", "uint64": "0"}


def _echoes(signature: str, sent: Any, answered: Any) -> GrpcCase:
    name = "kinds" if signature == "bfloat16" else "toy"
    return GrpcCase(
        section="4.2",
        method="Predict",
        request={"model_spec": spec(name, signature), "inputs": {"x": sent}},
        answer={
            "outputs": {"y": answered},
            "model_spec": spec(name, signature, version="1"),
        },
    )


def _refused(signature: str, sent: Any, text: str = "tensor parsing error: x") -> GrpcCase:
    name = "kinds" if signature == "bfloat16" else "toy"
    return GrpcCase(
        section="4.2",
        method="Predict",
        request={"model_spec": spec(name, signature), "inputs": {"x": sent}},
        code="INVALID_ARGUMENT",
        answer=text,
    )


def each_type() -> Iterator[GrpcCase]:
    """Typed fields and content, too few, too many and no values, scalars and nothing at all."""
    for signature, field, values, array in TYPES:
        n = len(values) // 2  # a complex number is a pair

        def typed(values: list[Any], shape: list[int], field: str = field, **more: Any) -> Any:
            return tensor(signature.upper(), (field, values), shape, **more)  # noqa: B023

        both = typed(values, [2])
        yield _echoes(signature, both, both)
        yield _echoes(signature, typed(values, [1, 2]), typed(values, [1, 2]))
        yield _echoes(signature, typed(values, [4]), typed(values + values[n:] * 2, [4]))
        yield _echoes(signature, typed(values, [1]), typed(values[:n], [1]))
        yield _echoes(signature, typed(values[:n], []), typed(values[:n], []))
        yield _echoes(signature, typed(values, []), typed(values[:n], []))
        yield _echoes(signature, typed([], [0]), typed([], [0]))
        yield _echoes(signature, typed(values, [2, 0]), typed([], [2, 0]))
        zero = _ZEROS.get(signature, 0.0 if "complex" in signature else 0)
        yield _echoes(signature, typed([], [2]), typed([zero] * 2 * n, [2]))
        yield _echoes(signature, typed([], []), typed([zero] * n, []))
        other = "int64_val" if field != "int64_val" else "float_val"
        yield _echoes(signature, typed([5], [1], other), typed([zero] * n, [1]))
        yield _refused(signature, typed(values, [-1]))
        yield _refused(signature, typed(values, [2, -3]))
        content = b"\2\1a\0\xff" if array is None else array.tobytes()  # text: lengths, bytes
        in_base64 = base64.b64encode(content).decode()
        yield _echoes(signature, typed([], [2], tensor_content=in_base64), both)
        yield _echoes(signature, typed(values[:n], [2], tensor_content=in_base64), both)
        for wrong in (content[:-1], content + b"\0", content + content):
            sent = typed(values, [2], tensor_content=base64.b64encode(wrong).decode())
            yield _refused(signature, sent)
        wanted = "double" if signature == "float" else "float"
        yield _refused(wanted, both, f"Expects arg[0] to be {wanted} but {signature} is provided")
        yield _refused(
            signature,
            tensor(wanted.upper(), (f"{wanted}_val", [1.0])),
            f"Expects arg[0] to be {signature} but {wanted} is provided",
        )


def odd() -> Iterator[GrpcCase]:
    """Values that do not fit their type, and what is no tensor."""
    for signature, given, kept in (
        ("uint8", [-1, 256], [255, 0]),
        ("int8", [128, 255], [-128, -1]),
        ("uint16", [65541, -1], [5, 65535]),
        ("int16", [32768], [-32768]),
    ):
        wrapped = tensor(signature.upper(), ("int_val", kept))
        yield _echoes(signature, tensor(signature.upper(), ("int_val", given)), wrapped)
    half_a_pair = tensor("COMPLEX64", ("scomplex_val", [1.0, 2.0, 3.0]), [2])
    whole = tensor("COMPLEX64", ("scomplex_val", [1.0, 2.0, 1.0, 2.0]), [2])
    yield _echoes("complex64", half_a_pair, whole)
    long = base64.b64encode(b"x" * 200).decode()
    in_base64 = base64.b64encode(b"\0\xc8\1" + b"x" * 200).decode()
    yield _echoes(
        "string",
        tensor("STRING", ("string_val", []), [2], tensor_content=in_base64),
        tensor("STRING", ("string_val", ["", long])),
    )
    for sent in (
        floats(1.5) | {"version_number": 7},
        floats(1.5) | {"tensor_shape": {"dim": [{"size": 1, "name": "rows"}]}},
        floats(1.5) | {"int_val": [7], "string_val": ["YQ=="]},
    ):
        yield _echoes("float", sent, floats(1.5))
    yield _echoes("float", {"dtype": "DT_FLOAT"}, floats(0.0, shape=[]))
    no_rank = {"tensor_shape": {"unknown_rank": True}}
    yield _echoes("float", floats(1.5) | no_rank, floats(1.5, shape=[]))
    for signature in ("float", "string"):  # of nothing, no content is wrong
        empty = tensor(signature.upper(), ("", []), [0])
        yield _echoes(signature, empty | {"tensor_content": "AAA="}, empty)
    yield _refused("bool", tensor("BOOL", ("", []), [2], tensor_content="AgA="))  # a 2
    for broken in (
        {},
        {"dtype": "DT_INVALID", "float_val": [1]},
        {"dtype": "DT_FLOAT_REF", "float_val": [1]},
        {"dtype": 99, "tensor_shape": {"dim": [{"size": 1}]}},
        floats(shape=[2**62, 2**62]),
        floats(shape=[1] * 300),
        {"dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": 1}]}, "tensor_content": "AAA="},
    ):
        yield _refused("float", broken)
    for content in (b"\1\1a", b"\1\1abc", b"\1", b"\x80", b"\xff" * 12):
        sent = tensor("STRING", ("string_val", []), [2])
        yield _refused("string", sent | {"tensor_content": base64.b64encode(content).decode()})
    # The graph, not the edge, is asked about shapes.
    for shape in ([2], [2, 1], [1, 2, 1], []):
        answered = floats(*[2.5] * int(np.prod(shape)), shape=shape)
        yield GrpcCase(
            section="4.2",
            method="Predict",
            request={
                "model_spec": spec("half_plus_two"),
                "inputs": {"x": floats(1, shape=shape)},
            },
            answer={
                "outputs": {"y": answered},
                "model_spec": spec("half_plus_two", "serving_default", version="123"),
            },
        )


ALL = [case for table in (each_type, odd) for case in table()]
