"""TensorFlow's own profiler client, asked of our server."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from mlops_mini.wire_messages import EXACT
from tests.serving.servers import Server, run_in_child, wait_until

SERVICE = "/tensorflow.ProfilerService"


def _trace(address: str, folder: str, names_file: str) -> None:
    """Trace a server as TensorFlow's documentation says, and name the events that are read back."""
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    tf.profiler.experimental.client.trace(
        f"grpc://{address}", folder, 1000, num_tracing_attempts=10
    )
    names = []
    for file in Path(folder).glob("plugins/profile/*/*.xplane.pb"):
        for plane in xplane_pb2.XSpace.FromString(file.read_bytes()).planes:
            names += [m.name for m in plane.event_metadata.values()]
    Path(names_file).write_text("\n".join(names))


def profile_request(folder: Path, session: str, duration_ms: int) -> bytes:
    request = EXACT["ProfileRequest"](
        repository_root=str(folder), session_id=session, host_name="127.0.0.1:8500"
    )
    request.opts.duration_ms, request.opts.host_tracer_level = duration_ms, 2
    return bytes(request.SerializeToString())


@pytest.fixture
def channel(toy_server: Server) -> Any:
    with grpc.insecure_channel(toy_server.grpc) as channel:
        yield channel


def test_tensorflows_own_client_takes_a_trace_that_shows_the_runs(
    toy_server: Server, tmp_path: Path
) -> None:
    is_over = threading.Event()

    def ask() -> None:
        while not is_over.is_set():
            assert toy_server.predict({"instances": [2.0, 3.0, 4.0]}).status == 200

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        try:
            arguments = (toy_server.grpc, str(tmp_path / "trace"), str(tmp_path / "names"))
            run_in_child(_trace, *arguments, log_file=tmp_path / "log")
        finally:
            is_over.set()
        asking.result()

    names = (tmp_path / "names").read_text()
    assert "ExecutorState::Process" in names or "SessionRun" in names or "Mul" in names, names


def test_a_second_profile_is_refused_in_the_originals_words_and_the_first_can_be_ended(
    toy_server: Server, channel: Any, tmp_path: Path
) -> None:
    profile = channel.unary_unary(f"{SERVICE}/Profile")
    long_request = profile_request(tmp_path, "first", 600_000)
    first = profile.future(long_request, timeout=120)

    def is_refused() -> bool:
        nonlocal first
        if first.done():  # the second came first
            first = profile.future(long_request, timeout=120)
        second = profile.future(profile_request(tmp_path, "second", 1), timeout=120)
        return second.exception() is not None and (second.code(), second.details()) == (
            grpc.StatusCode.INTERNAL,
            "Another profiling session active.",
        )

    wait_until(is_refused, "the first to have begun")
    assert toy_server.predict({"instances": [2.0]}).status == 200  # nobody waits for it
    terminate = channel.unary_unary(f"{SERVICE}/Terminate")
    request = EXACT["TerminateRequest"](session_id="first").SerializeToString()
    assert terminate(request, timeout=60) == b""
    EXACT["ProfileResponse"].FromString(first.result())
    assert (tmp_path / "first" / "127.0.0.1_8500.xplane.pb").is_file()
    assert terminate(request, timeout=60) == b""  # it knows no such session any more


def test_a_client_that_goes_takes_its_profile_along(channel: Any, tmp_path: Path) -> None:
    profile = channel.unary_unary(f"{SERVICE}/Profile")
    with pytest.raises(grpc.RpcError, match="DEADLINE_EXCEEDED"):
        profile(profile_request(tmp_path, "gone", 600_000), timeout=0.5)

    def is_free() -> bool:
        return profile.future(profile_request(tmp_path, "next", 1)).exception() is None

    wait_until(is_free, "the profiler to be free")


def test_what_the_original_refuses_is_refused(channel: Any) -> None:
    for method, request, code, words in (
        ("Monitor", b"", grpc.StatusCode.UNIMPLEMENTED, "unimplemented."),
        (
            "Profile",
            profile_request(Path("/proc/none"), "s", 1),
            grpc.StatusCode.INTERNAL,
            "No such file or directory",
        ),
        ("Profile", b"\xff", grpc.StatusCode.INVALID_ARGUMENT, "are not a ProfileRequest"),
    ):
        with pytest.raises(grpc.RpcError) as raised:
            channel.unary_unary(f"{SERVICE}/{method}")(request, timeout=60)
        assert raised.value.code() == code
        assert words in raised.value.details()


def test_there_is_none_for_other_machines_nor_if_it_is_switched_off(
    toy_models: Path, tmp_path: Path, start_server: Callable[..., Server]
) -> None:
    for flag, code in (
        ("--bind_address=0.0.0.0", grpc.StatusCode.PERMISSION_DENIED),
        ("--enable_profiler=false", grpc.StatusCode.UNIMPLEMENTED),
    ):
        server = start_server(toy_models / "toy", flag)
        with grpc.insecure_channel(server.grpc) as channel:
            profile = channel.unary_unary(f"{SERVICE}/Profile")
            with pytest.raises(grpc.RpcError) as raised:
                profile(profile_request(tmp_path, "s", 1), timeout=60)
        assert raised.value.code() == code
    assert not (tmp_path / "s").exists()
