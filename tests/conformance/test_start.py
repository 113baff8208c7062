"""What a server says when it is started wrongly: sections 2 and 5.1, as a table."""

from pathlib import Path

import pytest

from tests.serving.servers import start_main

_FAILED = "Failed to start server. Error: "
_A = 'config { name: "a" base_path: "/a" model_platform: "tensorflow" }'


def _ended(arguments: list[str], log_file: Path) -> tuple[int | None, str]:
    process = start_main(arguments, log_file)
    process.join(60)
    status = process.exitcode
    process.kill()
    return status, log_file.read_text()


@pytest.mark.parametrize(
    ("flags", "status", "text"),
    [
        (["--version"], 0, "TensorFlow ModelServer: "),
        (["--version"], 0, "TensorFlow Library: "),
        (["--help"], 255, "usage: "),
        (["--port=5x"], 255, "usage: "),
        (["--port="], 255, "usage: "),
        (["--enable_batching=yes"], 255, "usage: "),
        (["--enable_batching=t"], 255, "usage: "),
        (["--rest_api_port=1.5"], 255, "usage: "),
        (
            [],
            255,
            (
                f"{_FAILED}INVALID_ARGUMENT: Both server_options.model_base_path and"
                " server_options.model_config_file are empty!"
            ),
        ),
        (
            ["--port=0", "--model_base_path=/a"],
            255,
            (
                f"{_FAILED}INVALID_ARGUMENT: At least one of server_options.grpc_port or"
                " server_options.grpc_socket_path must be set."
            ),
        ),
        (
            ["--batching_parameters_file=/b", "--model_base_path=/a"],
            255,
            (
                f"{_FAILED}INVALID_ARGUMENT: server_options.batching_parameters_file is set without"
                " setting server_options.enable_batching to true."
            ),
        ),
    ],
)
def test_flags_that_make_no_sense_end_it(
    tmp_path: Path, flags: list[str], status: int, text: str
) -> None:
    ended, log = _ended(flags, tmp_path / "log")

    assert ended == status
    assert text in log


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ("model_config_list {", "Error parsing text-format tensorflow.serving.ModelServerConfig: "),
        ("model_config_list {", f"{_FAILED}INVALID_ARGUMENT: Invalid protobuf file: 'PATH'"),
        ("nothing: 1", f"{_FAILED}INVALID_ARGUMENT: Invalid protobuf file: 'PATH'"),
        (None, f"{_FAILED}NOT_FOUND: PATH; No such file or directory"),
        (
            f"model_config_list {{ {_A} {_A} }}",
            "Illegal to list model a multiple times in config list",
        ),
        (
            'model_config_list { config { name: "a" base_path: "/a" } }',
            (
                "Illegal setting neither ModelServerConfig::model_type (deprecated) nor"
                " ModelServerConfig::model_platform, model name is a"
            ),
        ),
        (
            (
                'model_config_list { config { name: "a" base_path: "/a" model_type: TENSORFLOW'
                ' model_platform: "tensorflow" } }'
            ),
            "Illegal setting both ",
        ),
        (
            'model_config_list { config { name: "a" base_path: "/a" model_platform: "pytorch" } }',
            "Model a requests unsupported platform pytorch",
        ),
        (
            (
                'model_config_list { config { name: "a" base_path: "rel/x"'
                ' model_platform: "tensorflow" } }'
            ),
            "Expected model a to have an absolute path or URI; got base_path()=rel/x",
        ),
    ],
)
def test_a_configuration_that_makes_no_sense_ends_it(
    tmp_path: Path, config: str | None, text: str
) -> None:
    file = tmp_path / "models.config"
    if config is not None:
        file.write_text(config)

    ended, log = _ended(
        [f"--model_config_file={file}", "--port=0", f"--address_file={tmp_path}/addresses"],
        tmp_path / "log",
    )

    assert ended == 255, log
    assert text.replace("PATH", str(file)) in log
