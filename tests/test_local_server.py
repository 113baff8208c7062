"""Our server as a child process: it starts, takes flags, answers, and ends with its starter."""

import contextlib
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest

from mlops_mini.errors import UnavailableError
from mlops_mini.local_server import LocalServer, run_script
from tests.serving.servers import run_in_child, wait_until

HOLD = """
import sys, time
from pathlib import Path
from mlops_mini.local_server import LocalServer
folder = Path(sys.argv[1])
with LocalServer(folder / "model", folder / "server") as server:
    print(server.process.pid, flush=True)
    time.sleep(600)
"""


def test_a_version_is_served_with_the_flags_that_were_given(
    toy_models: Path, tmp_path: Path
) -> None:
    with LocalServer(
        toy_models / "toy", tmp_path / "server", flags=["--rest_api_enable_cors_support"]
    ) as server:
        server.wait_until_served(1)
        with urllib.request.urlopen(server.rest_url) as answer:
            assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert not psutil.pid_exists(server.process.pid)


def test_what_else_its_folder_holds_stays(toy_models: Path, tmp_path: Path) -> None:
    (tmp_path / "addresses.json").write_text("somebody's own")

    for flags in ((), ("--max_num_load_retries=many",)):
        with contextlib.suppress(UnavailableError):
            LocalServer(toy_models / "toy", tmp_path, flags=flags).close()

    assert sorted(path.name for path in tmp_path.iterdir()) == ["addresses.json", "server.log"]
    assert (tmp_path / "addresses.json").read_text() == "somebody's own"


def test_a_server_that_cannot_start_says_why(toy_models: Path, tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"the model server exited 255; its last words: .*"):
        LocalServer(toy_models / "toy", tmp_path / "server", flags=["--max_num_load_retries=many"])


def serve_from_a_process_with_one_thread(toy_models: Path, folder: Path) -> None:
    import tensorflow  # noqa: F401, ICN001 - what a fork needn't import any more

    with LocalServer(toy_models / "toy", folder, is_awaited=False) as server:
        server.wait_until_served(1)
        process = psutil.Process(server.process.pid)
        assert process.cmdline() == psutil.Process().cmdline()
        with urllib.request.urlopen(server.rest_url) as answer:
            assert b"AVAILABLE" in answer.read()
    assert not process.is_running()
    assert "stopped" in (folder / "server.log").read_text()
    with pytest.raises(UnavailableError, match=r"exited 255; its last words: "):
        LocalServer(toy_models / "toy", folder, flags=["--max_num_load_retries=many"])
    assert [path.name for path in folder.iterdir()] == ["server.log"]


def test_it_is_a_fork_of_a_process_that_has_imported_tensorflow_and_has_one_thread(
    toy_models: Path, tmp_path: Path
) -> None:
    run_in_child(
        serve_from_a_process_with_one_thread,
        toy_models,
        tmp_path / "server",
        log_file=tmp_path / "log.txt",
    )


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_whoever_holds_it_takes_it_along(number: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()  # with nothing in it: what is served has no say
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as holder:
        server = psutil.Process(int(holder.stdout.readline()))

        holder.send_signal(number)

    assert holder.returncode != 0
    wait_until(
        lambda: not server.is_running() or server.status() == psutil.STATUS_ZOMBIE, "its end"
    )


def test_a_script_is_run_at_a_port_and_its_end_is_told(tmp_path: Path) -> None:
    script = tmp_path / "files.py"
    script.write_text(
        "import http.server, os, sys\n"
        "os.chdir(sys.argv[1])\n"
        "http.server.test(http.server.SimpleHTTPRequestHandler, port=int(sys.argv[2]),"
        " bind='127.0.0.1')\n"
    )
    process, url = run_script(script, str(tmp_path))
    with process, urllib.request.urlopen(f"{url}/files.py") as answer:
        assert b"http.server" in answer.read()

    script.write_text("raise SystemExit('no port is good enough')")
    with pytest.raises(UnavailableError, match="no port is good enough"):
        run_script(script)
