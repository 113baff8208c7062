"""How the gRPC edge reads its channel arguments; the rest is in the conformance suite."""

import pytest

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.serving import grpc_api


def test_channel_arguments_are_numbers_where_they_read_as_int32() -> None:
    assert grpc_api._options("a=1,b=x,c=-5,d=9999999999,e=,f=1=2") == [
        ("a", 1), ("b", "x"), ("c", -5), ("d", "9999999999"), ("e", ""), ("f", "1=2"),
    ]  # fmt: skip
    assert grpc_api._options("") == []
    with pytest.raises(InvalidArgumentError, match="--grpc_channel_arguments: b is no key=value"):
        grpc_api._options("a=1,b")
