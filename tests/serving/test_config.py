import dataclasses
import re
from pathlib import Path

import pytest

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.serving import config
from tools import model_server_page

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


def test_a_body_of_less_than_nothing_is_refused_at_the_start() -> None:
    with pytest.raises(InvalidArgumentError, match="--rest_max_body_bytes=-1 is no size"):
        config.parse_flags([BASE, "--rest_max_body_bytes=-1"])


def test_a_server_without_models_is_refused_in_tensorflow_servings_words() -> None:
    with pytest.raises(InvalidArgumentError, match=r"model_base_path and .* are empty!"):
        config.parse_flags([])


def test_port_0_is_refused_unless_an_address_file_tells_the_port() -> None:
    with pytest.raises(InvalidArgumentError, match=r"At least one of server_options\.grpc_port"):
        config.parse_flags([BASE, "--port=0"])

    assert config.parse_flags([BASE, "--port=0", "--address_file=/tmp/a"])[0].port == 0


@pytest.mark.parametrize("test", [test for _, _, test in model_server_page.WISHES])
def test_what_the_page_says_of_wishes_has_its_test(test: str) -> None:
    file, _, name = test.partition("::")

    assert f"\ndef {name}(" in (Path(__file__).parents[1] / file).read_text()


@pytest.mark.parametrize(
    ("argument", "flag"),
    [
        ("--model_config=/m", "model_config_file"),
        ("--rest-api-port=8501", "rest_api_port"),
        ("-port=1", "port"),
        ("--model_base_paht", "model_base_path"),
        ("--zz=1", ""),
        ("model_base_path=/m", ""),
    ],
)
def test_an_unknown_argument_that_is_like_a_flag_names_it(argument: str, flag: str) -> None:
    line = f"{argument}: did you mean --{flag}?\n" if flag else ""

    assert config.suggestion(argument) == line


def test_the_usage_lists_every_flag_with_its_default() -> None:
    usage = config.usage()

    for flag in ("--port=8500", "--rest_api_port=0", "--model_name='default'"):
        assert flag in usage


def test_the_page_about_the_server_is_what_the_code_says() -> None:
    assert model_server_page.PAGE.read_text() == model_server_page.page()


@pytest.mark.parametrize("flag", re.findall(r"--(\w+)", str(model_server_page.DIFFERENCES)))
def test_a_flag_that_restores_the_original_exists(flag: str) -> None:
    assert flag in {f.name for f in dataclasses.fields(config.ServerConfig)} | {"name"}


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("--enable_model_warmup", True),
        ("--enable_model_warmup=True", True),
        ("--enable_model_warmup=TRUE", True),
        ("--enable_model_warmup=1", True),
        ("--enable_model_warmup=false", False),
        ("--enable_model_warmup=0", False),
        ("--load_retry_interval_micros=9223372036854775807", 2**63 - 1),
        ("--load_retry_interval_micros=-1", -1),
        ("--per_process_gpu_memory_fraction=0.25", 0.25),
    ],
)
def test_values_are_read_as_their_flags_type(argument: str, value: object) -> None:
    parsed, _ = config.parse_flags([BASE, argument])

    read = getattr(parsed, argument[2:].partition("=")[0])
    assert (read, type(read)) == (value, type(value))


@pytest.mark.parametrize(
    "argument",
    ["--enable_model_warmup=yes", "--enable_model_warmup=t", "--enable_model_warmup=",
     "--load_retry_interval_micros=9223372036854775808", "--per_process_gpu_memory_fraction=x"],
)  # fmt: skip
def test_a_value_of_another_type_is_refused(argument: str) -> None:
    with pytest.raises(config.UsageError, match=argument[2:].partition("=")[0]):
        config.parse_flags([BASE, argument])


def test_a_boolean_does_not_take_the_next_argument() -> None:
    parsed, unknown = config.parse_flags([BASE, "--enable_batching", "false"])

    assert parsed.enable_batching
    assert unknown == ["false"]


def test_batching_parameters_need_batching_in_tensorflow_servings_words() -> None:
    argv = [BASE, "--batching_parameters_file=/b"]
    with pytest.raises(InvalidArgumentError) as raised:
        config.parse_flags(argv)

    assert str(raised.value) == (
        "server_options.batching_parameters_file is set without setting"
        " server_options.enable_batching to true."
    )
    assert config.parse_flags([*argv, "--enable_batching"])[0].inert == []


@pytest.mark.parametrize(
    ("argument", "value"), [("", None), ("--enable_batching", True), ("--enable_batching=0", False)]
)
def test_to_leave_batching_out_is_not_to_switch_it_off(argument: str, value: bool | None) -> None:
    assert config.parse_flags([BASE, *filter(None, [argument])])[0].enable_batching is value


def test_all_three_kinds_of_parallelism_at_once_are_refused() -> None:
    names = ("session", "intra_op", "inter_op")
    argv = [BASE, *(f"--tensorflow_{name}_parallelism=2" for name in names)]
    config.parse_flags(argv[:-1])
    with pytest.raises(InvalidArgumentError, match=r"You cannot configure all\.$"):
        config.parse_flags(argv)


def test_a_unix_socket_or_a_configuration_file_is_enough() -> None:
    parsed, _ = config.parse_flags(
        ["--model_config_file=/c", "--port=0", "--grpc_socket_path=/run/s"]
    )

    assert (parsed.port, parsed.grpc_socket_path, parsed.model_base_path) == (0, "/run/s", "")
