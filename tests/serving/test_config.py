import pytest

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.serving import config

BASE = "--model_base_path=/models/m"


def test_defaults_are_those_of_tensorflow_serving() -> None:
    parsed, unknown = config.parse_flags([BASE])

    assert unknown == []
    assert (parsed.port, parsed.rest_api_port, parsed.model_name) == (8500, 0, "default")
    assert parsed.rest_api_timeout_in_ms == 30_000
    assert parsed.file_system_poll_wait_seconds == 1


def test_both_spellings_of_a_value_are_read() -> None:
    parsed, _ = config.parse_flags([BASE, "--port=1", "--rest_api_port", "2", "--model_name=a=b"])

    assert (parsed.port, parsed.rest_api_port, parsed.model_name) == (1, 2, "a=b")


def test_a_negative_value_may_stand_apart() -> None:
    parsed, _ = config.parse_flags([BASE, "--file_system_poll_wait_seconds", "-1"])

    assert parsed.file_system_poll_wait_seconds == -1


def test_the_last_of_two_values_counts() -> None:
    assert config.parse_flags([BASE, "--port=1", "--port=2"])[0].port == 2


def test_unknown_arguments_are_named_in_order_and_the_rest_is_read() -> None:
    parsed, unknown = config.parse_flags(["--zz=1", "extra", "-port=3", BASE, "--port=4"])

    assert unknown == ["--zz=1", "extra", "-port=3"]
    assert parsed.port == 4


@pytest.mark.parametrize(
    "argument",
    ["--port=5x", "--port=", "--port", "--port=1.0", "--port=0x10", "--port=+1", "--port= 1",
     "--port=2147483648", "--port=" + "9" * 5000, "--port=\u0661", "--model_name"],
)  # fmt: skip
def test_a_value_that_does_not_read_is_refused(argument: str) -> None:
    with pytest.raises(config.UsageError, match=argument.lstrip("-").partition("=")[0]):
        config.parse_flags([BASE, argument])


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_number_that_is_no_port_is_refused(port: int) -> None:
    with pytest.raises(InvalidArgumentError, match=f"--rest_api_port={port} is no port"):
        config.parse_flags([BASE, f"--rest_api_port={port}"])


def test_a_server_without_models_is_refused_in_tensorflow_servings_words() -> None:
    with pytest.raises(InvalidArgumentError, match=r"model_base_path and .* are empty!"):
        config.parse_flags([])


def test_port_0_is_refused_unless_an_address_file_tells_the_port() -> None:
    with pytest.raises(InvalidArgumentError, match=r"At least one of server_options\.grpc_port"):
        config.parse_flags([BASE, "--port=0"])

    assert config.parse_flags([BASE, "--port=0", "--address_file=/tmp/a"])[0].port == 0


def test_the_usage_lists_every_flag_with_its_default() -> None:
    usage = config.usage()

    for flag in ("--port=8500", "--rest_api_port=0", "--model_name='default'"):
        assert flag in usage
