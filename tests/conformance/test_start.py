"""How a server starts, refuses to start, and stops: sections 2 and 5.1, as tables."""

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conformance.protos import Protos
from tests.conformance.served import Served
from tests.serving.servers import Launcher, Program, Server, free_ports, wait_until

_FAILED = "Failed to start server. Error: "
_A = 'config { name: "a" base_path: "/a" model_platform: "tensorflow" }'
_BATCHING = ["--batching_parameters_file=/dev/null", "--model_base_path=/a"]
# What ends a start with these words as soon as batching is on.
_ALL_THREADS = [
    f"--tensorflow_{name}_parallelism=1" for name in ("session", "intra_op", "inter_op")
]
_NO_BATCHING = (
    f"{_FAILED}INVALID_ARGUMENT: server_options.batching_parameters_file is set without setting"
    " server_options.enable_batching to true."
)
_NO_MODELS = (
    f"{_FAILED}INVALID_ARGUMENT: Both server_options.model_base_path and"
    " server_options.model_config_file are empty!"
)
SCRIPT = str(Path(sys.executable).with_name("mini-model-server"))
Start = Callable[..., Server]


@pytest.fixture
def start(launcher: Launcher, tmp_path: Path) -> Iterator[Start]:
    """Starts servers with the flags given, and ends them with the test."""
    started: list[Server] = []

    def launch(*flags: str, ports: bool = False) -> Server:
        how = launcher.serve if ports else launcher.start
        started.append(how(tmp_path / f"started_{len(started)}", *flags))
        return started[-1]

    yield launch
    for server in started:
        server.close()


@pytest.mark.parametrize(
    ("flags", "status", "text"),
    [
        (["--version"], 0, r"TensorFlow ModelServer: .+\nTensorFlow Library: .+\n$"),
        (["--help"], 255, "usage: "),
        *(
            ([f"--{flag}"], 255, "usage: ")
            for flag in (
                "port=5x", "port=", "port=1.5", "port=99999999999", "rest_api_port=x",
                "enable_batching=yes", "enable_batching=t", "enable_batching=",
                "max_num_load_retries=x", "load_retry_interval_micros=1s",
            )
        ),
        *(
            ([f"--enable_batching{value}", *_ALL_THREADS, *_BATCHING], 255, "INVALID_ARGUMENT: E")
            for value in ("", "=true", "=True", "=TRUE", "=1")
        ),
        *(
            ([f"--enable_batching={value}", *_BATCHING], 255, re.escape(_NO_BATCHING))
            for value in ("false", "0")
        ),
        (_BATCHING, 255, re.escape(_NO_BATCHING)),
        ([], 255, re.escape(_NO_MODELS)),
        (
            ["--port=0", "--model_base_path=/a"],
            255,
            re.escape(
                f"{_FAILED}INVALID_ARGUMENT: At least one of server_options.grpc_port or"
                " server_options.grpc_socket_path must be set."
            ),
        ),
    ],
    ids=str,
)  # fmt: skip
def test_flags_that_make_no_server_end_it_with_words_on_stdout(
    start: Start, flags: list[str], status: int, text: str
) -> None:
    launched = start(*flags)

    assert launched.ended() == status
    assert re.search(text, launched.out), launched.out
    assert ("usage: " in launched.out) == (text == "usage: ")


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ("model_config_list {", f"{_FAILED}INVALID_ARGUMENT: Invalid protobuf file: 'PATH'"),
        ("nothing: 1", f"{_FAILED}INVALID_ARGUMENT: Invalid protobuf file: 'PATH'"),
        (None, f"{_FAILED}NOT_FOUND: PATH; No such file or directory"),
        (
            f"model_config_list {{ {_A}, {_A} }}",
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
            f"model_config_list {{ {_A.replace('/a', 'rel/x')} }}",
            "Expected model a to have an absolute path or URI; got base_path()=rel/x",
        ),
        (
            f"model_config_list {{ {_A[:-1]} logging_config {{}} }} }}",
            "No request-logger-creator provided.",
        ),
    ],
)
def test_a_configuration_that_makes_no_sense_ends_it(
    start: Start, tmp_path: Path, config: str | None, text: str
) -> None:
    file = tmp_path / "models.config"
    if config is not None:
        file.write_text(config)

    launched = start(f"--model_config_file={file}", ports=True)

    assert launched.ended() == 255
    assert text.replace("PATH", str(file)) in launched.out
    words = "Error parsing text-format tensorflow.serving.ModelServerConfig: "
    assert (words in launched.err) == ("Invalid protobuf file" in text)


@dataclass(frozen=True, kw_only=True)
class Started:
    """A server that serves version 4 as m: its flags, and patterns in what it writes, in order."""

    flags: tuple[str, ...] = ()
    out: str = ""
    theirs: str = ""
    ours: str | None = None
    restored_by: tuple[str, ...] = ()


_BUILT = "Building single TensorFlow model file config:  model_name: m model_base_path: <BASE>\n"
_LOADED = r"Successfully loaded servable version \{name: m version: 4\}"
_OPENED = (
    r"Running gRPC ModelServer at <HOST>:<GRPC> \.\.\.",
    r"Exporting HTTP/REST API at:localhost:<REST> \.\.\.",
    r"NET_LOG: Entering the event loop \.\.\.",
)
_RARE = (
    "--num_tflite_pools=1", "--num_tflite_interpreters_per_pool=1", "--num_unload_threads=1",
    "--flush_filesystem_caches=false", "--remove_unused_fields_from_bundle_metagraph=false",
    "--per_process_gpu_memory_fraction=0.5", "--num_load_threads=2", "--enable_profiler=false",
    "--xla_cpu_compilation_enabled=false", "--rest_api_num_threads=4", "--grpc_max_threads=4",
    "--saved_model_tags=serve", "--rest_api_timeout_in_ms=1000", "--use_alts_credentials=false",
    "--skip_initialize_tpu=false", "--enable_signature_method_name_check=false",
)  # fmt: skip
_CHANNEL = "grpc.max_connection_age_ms=2000,grpc.lb_policy_name=grpclb,grpc.so_reuseaddr=1"
STARTED = {
    "the lines that scripts wait for": Started(
        theirs=".*".join((_BUILT, _LOADED, *_OPENED)).replace("<HOST>", r"0\.0\.0\.0"),
        ours=".*".join((_BUILT, _LOADED, *_OPENED)).replace("<HOST>", r"127\.0\.0\.1"),
        restored_by=("--bind_address=0.0.0.0",),
    ),
    "unknown arguments": Started(
        flags=("--color=red", "--zz", "-port=1"),
        out=r"^unknown argument: --color=red\n(?!.*unknown argument).*usage: ",
        theirs=_LOADED,
    ),
    "flags that are rarely used": Started(flags=_RARE, theirs=_LOADED),
    "gRPC channel arguments": Started(
        flags=(f"--grpc_channel_arguments={_CHANNEL}",), theirs=_LOADED
    ),
}


@pytest.mark.parametrize(
    ("name", "is_restored"),
    [(name, False) for name in STARTED]
    + [(name, True) for name, started in STARTED.items() if started.restored_by],
)
def test_it_starts_and_says_so(
    launcher: Launcher,
    start: Start,
    table_models: Path,
    serving_protos: Protos,
    name: str,
    is_restored: bool,
) -> None:
    case = STARTED[name]
    if is_restored and not launcher.is_ours:
        pytest.skip("these flags are ours alone")
    base = table_models / "numbered"
    flags = (f"--model_base_path={base}", "--model_name=m", *case.flags)

    launched = start(*flags, *(case.restored_by if is_restored else ()), ports=True)
    rest, grpc = launched.opened()

    with closing(Served(rest, grpc, serving_protos)) as served:

        def answer() -> bool:
            reply = served.ask("POST", "/v1/models/m:predict", '{"instances": [0]}')
            return reply.status == 200 and reply.json == {"predictions": [4.0]}

        wait_until(answer, "version 4")
        # A usual way to wait for a server is to look for `Servable` in this answer.
        idiom = served.call("Predict", {"model_spec": {"name": "zz"}})
    assert idiom[:2] == ("NOT_FOUND", "Servable not found for request: Latest(zz)")
    pattern = case.theirs
    if launcher.is_ours and case.ours is not None and not is_restored:
        pattern = case.ours
    for word, value in (("<BASE>", str(base)), ("<GRPC>", grpc), ("<REST>", rest)):
        pattern = pattern.replace(word, re.escape(value.rpartition(":")[2]))
    assert re.search(pattern, launched.err, re.DOTALL), launched.err
    assert re.search(case.out, launched.out, re.DOTALL), launched.out


def test_one_port_for_both_apis_serves_grpc_alone(
    launcher: Launcher, tmp_path: Path, table_models: Path, serving_protos: Protos
) -> None:
    # Of ours the script, which is asked while it imports TensorFlow to load the model.
    program = Launcher(launcher.binary or str(Path(sys.executable).with_name("mini-model-server")))
    (port,) = free_ports(1)
    ports = [f"--port={port}", f"--rest_api_port={port}"]
    flags = [f"--model_base_path={table_models}/numbered", "--model_name=m", *ports]
    address = f"127.0.0.1:{port}"
    request = {"model_spec": {"name": "m"}, "metadata_field": ["signature_def"]}
    with (
        closing(program.start(tmp_path, *flags)) as ran,
        closing(Served(address, address, serving_protos)) as served,
    ):
        wait_until(lambda: served.call("GetModelMetadata", request)[0] == "OK", "gRPC")

        assert "Exporting HTTP/REST API" not in ran.err


DIFFERENT = {  # flags: words of TensorFlow Serving on stdout, and of ours on stderr
    "a relative path": (
        ["--model_base_path=rel/path", "--model_name=m"],
        "Expected model m to have an absolute path or URI; got base_path()=rel/path",
        f"Could not find base path {Path.cwd()}/rel/path for servable m ",
    ),
    "a blank for the equals sign": (
        ["--model_name", "zz", "--model_base_path=/a"],
        "unknown argument: --model_name\n",
        "model_name: zz model_base_path: /a\n",
    ),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_what_ours_takes_and_theirs_does_not(launcher: Launcher, start: Start, name: str) -> None:
    flags, theirs, ours = DIFFERENT[name]

    launched = start(*flags, ports=True)

    if launcher.is_ours:
        launched.opened()
        wait_until(lambda: ours in launched.err, ours)
    else:
        wait_until(lambda: theirs in launched.out, theirs)


@pytest.mark.parametrize(
    ("number", "theirs", "ours"),
    [
        (signal.SIGTERM, -signal.SIGTERM, 0),
        (signal.SIGINT, -signal.SIGINT, 0),
        (signal.SIGKILL, -signal.SIGKILL, -signal.SIGKILL),
    ],
)
def test_a_signal_ends_it_and_leaves_no_child_and_no_port(
    launcher: Launcher, table_models: Path, number: int, theirs: int, ours: int
) -> None:
    rest, grpc = free_ports(2)
    flags = [
        f"--model_base_path={table_models / 'numbered'}", f"--port={grpc}",
        f"--rest_api_port={rest}",
    ]  # fmt: skip
    pipe = subprocess.PIPE
    process = Program([launcher.binary or SCRIPT, *flags], stdout=pipe, stderr=pipe)
    try:
        wait_until(lambda: _is_open(rest), "the REST port")
        process.send_signal(number)
        process.communicate(timeout=30)  # both pipes end: no child holds one
    finally:
        process.kill()
        process.wait()

    assert process.returncode == (ours if launcher.is_ours else theirs)
    for port in (rest, grpc):
        assert not _is_open(port)
        socket.create_server(("127.0.0.1", port)).close()


def _is_open(port: int) -> bool:
    with socket.socket() as asker:
        return asker.connect_ex(("127.0.0.1", port)) == 0


def test_a_file_that_does_not_parse_ends_stderr_too(launcher: Launcher, tmp_path: Path) -> None:
    file = tmp_path / "models.config"
    file.write_text("model_config_list {")
    argv = [launcher.binary or SCRIPT, f"--model_config_file={file}"]

    ended = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)

    assert ended.returncode == 255
    assert "Error parsing text-format tensorflow.serving.ModelServerConfig: " in ended.stderr
    assert ended.stdout.endswith(f"{_FAILED}INVALID_ARGUMENT: Invalid protobuf file: '{file}'\n")
