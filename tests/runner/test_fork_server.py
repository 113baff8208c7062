"""The server that forks attempts: what a child inherits, and what happens when somebody dies."""

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlops_mini.errors import UnavailableError
from mlops_mini.runner.fork_server import ForkServer
from tests.serving.servers import wait_until


@pytest.fixture
def forks(tmp_path: Path) -> Iterator[ForkServer]:
    server = ForkServer(tmp_path / "fork_server.log")
    yield server
    server.close()


def attempt(tmp_path: Path, body: str, *, name: str = "attempt") -> Path:
    """Make the folder of an attempt at a component with this body; it returns a string."""
    folder = tmp_path / name
    folder.mkdir(parents=True)
    lines = ("import os, sys, time, threading, subprocess", "def f() -> str:", *body.split("\n"))
    job = {
        "task": "task 'f'",
        "container": {
            "command": ["\n".join([*lines[:2], *(f"    {line}" for line in lines[2:])])],
            "args": ["--function_to_execute", "f"],
        },
        "component": {"outputDefinitions": {"parameters": {"Output": {"parameterType": "STRING"}}}},
        "executor_input": {
            "inputs": {},
            "outputs": {
                "parameters": {"Output": {"outputFile": str(folder / "Output")}},
                "outputFile": str(folder / "executor_output.json"),
            },
        },
        "python": "",
        "image": "",
        "mounts": {},
    }
    (folder / "job.json").write_text(json.dumps(job))
    return folder


def result(forks: ForkServer, folder: Path) -> Any:
    """Run an attempt; what its component returns."""
    assert forks.start(folder).result(timeout=60) == 0, (folder / "log.txt").read_text()
    made = json.loads((folder / "result.json").read_text())
    assert made["error"] == ""
    return made["parameters"]["Output"]


def waiting(tmp_path: Path, name: str = "waiting") -> Path:
    """Make an attempt that leaves a child, says both process ids, and waits to be killed."""
    body = (
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"with open({str(tmp_path / f'{name}.pids')!r}, 'a') as file:\n"
        "    file.write(f'{os.getpid()} {child.pid} \\n')\n"
        "time.sleep(600)"
    )
    return attempt(tmp_path, body, name=name)


def pids_of(tmp_path: Path, name: str = "waiting") -> list[int]:
    file = tmp_path / f"{name}.pids"
    wait_until(lambda: file.exists() and file.read_text().endswith(" \n"), "the process ids")
    return [int(pid) for pid in file.read_text().split()]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


# What a child inherits.


def test_an_attempt_has_the_variables_and_the_module_path_of_its_moment(
    forks: ForkServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLOPS_MINI_TEST_GONE", "1")
    assert result(forks, attempt(tmp_path, "return 'server is up'", name="first"))
    monkeypatch.delenv("MLOPS_MINI_TEST_GONE")
    monkeypatch.setenv("MLOPS_MINI_TEST_NEW", "é =\n1")
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "written_later.py").write_text("x = 'found'")
    monkeypatch.syspath_prepend(tmp_path / "modules")
    body = (
        "import written_later\n"
        "gone, new = map(os.environ.get, ('MLOPS_MINI_TEST_GONE', 'MLOPS_MINI_TEST_NEW'))\n"
        "return f'{written_later.x} {gone} {new}'"
    )

    assert result(forks, attempt(tmp_path, body)) == "found None é =\n1"


def test_what_an_attempt_starts_does_not_find_our_modules_by_a_variable(
    forks: ForkServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)

    assert result(forks, attempt(tmp_path, "return str(os.environ.get('PYTHONPATH'))")) == "None"


def test_an_attempt_begins_in_an_empty_folder_of_its_own_and_reads_no_input(
    forks: ForkServer, tmp_path: Path
) -> None:
    body = "return repr((os.getcwd(), os.listdir(), sys.stdin.read()))"
    folder = attempt(tmp_path, body, name="ü, 'quoted' and spaced")

    assert result(forks, folder) == repr((str(folder / "work"), [], ""))


def test_an_attempt_has_no_socket_or_pipe_of_the_server_and_none_is_left_in_it(
    forks: ForkServer, tmp_path: Path
) -> None:
    body = (
        "def kinds(pid):\n"
        "    names = (f'/proc/{pid}/fd/{fd}' for fd in os.listdir(f'/proc/{pid}/fd'))\n"
        "    links = [os.readlink(name) for name in names if os.path.lexists(name)]\n"
        "    return sorted(link.split(':')[0] for link in links)\n"
        "return repr((kinds('self'), kinds(os.getppid())))"
    )
    seen = [eval(result(forks, attempt(tmp_path, body, name=f"{i}"))) for i in range(3)]

    assert not {"socket", "pipe"} & set(seen[0][0])
    assert seen[0][1] == seen[1][1] == seen[2][1]


def test_one_attempt_leaves_nothing_behind_for_the_next(forks: ForkServer, tmp_path: Path) -> None:
    body = (
        "os.chdir('/'); os.environ['MLOPS_MINI_TEST_LEFT'] = '1'; sys.path.clear()\n"
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "sys.modules['left'] = sys\n"
        "return 'done'"
    )
    look = (
        "import signal\n"
        "return repr(('MLOPS_MINI_TEST_LEFT' in os.environ, 'left' in sys.modules,"
        " {signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGUSR1)} == {signal.SIG_DFL},"
        " os.getcwd()))"
    )
    assert result(forks, attempt(tmp_path, body, name="one")) == "done"

    folder = attempt(tmp_path, look, name="two")

    assert result(forks, folder) == repr((False, False, True, str(folder / "work")))


def test_the_server_only_imports_and_has_no_thread_but_its_libraries_own(
    forks: ForkServer, tmp_path: Path
) -> None:
    names = "numpy pandas pandera pyarrow scipy sklearn tensorflow keras"
    body = (
        "def threads(pid):\n"
        "    tasks = f'/proc/{pid}/task'\n"
        "    return [open(f'{tasks}/{t}/comm').read().strip() for t in os.listdir(tasks)]\n"
        "loaded = [name for name in ('tensorflow', 'pandera', 'sklearn') if name in sys.modules]\n"
        "return repr((loaded, threads('self'), threads(os.getppid())))"
    )
    folder = attempt(tmp_path, body)

    assert forks.start(folder, at_once=names.split()).result(timeout=120) == 0
    said = json.loads((folder / "result.json").read_text())["parameters"]["Output"]
    loaded, ours, of_the_server = eval(said)

    assert loaded == ["tensorflow", "pandera", "sklearn"]
    assert len(ours) == 1
    # Arrow's allocator has one that knows of forks; OpenBLAS ends its own at the first fork.
    assert [name for name in of_the_server if name != "jemalloc_bg_thd"] == ours


def loaded_in(forks: ForkServer, folder: Path, **packages: list[str]) -> str:
    """Run an attempt that may import these packages; what it returns."""
    assert forks.start(folder, **packages).result(timeout=60) == 0
    return str(json.loads((folder / "result.json").read_text())["parameters"]["Output"])


def test_what_an_attempt_may_import_is_imported_for_others_once_one_of_them_does(
    forks: ForkServer, tmp_path: Path
) -> None:
    look = "return str('sklearn.metrics' in sys.modules)"
    may = {"later": ["sklearn", "tensorflow"]}
    before = loaded_in(forks, attempt(tmp_path, look, name="before"), **may)
    imports = attempt(tmp_path, "import sklearn.metrics as m\nreturn m.__name__", name="imports")

    assert loaded_in(forks, imports, **may) == "sklearn.metrics"

    after = loaded_in(forks, attempt(tmp_path, look, name="after"))
    never = "return str('tensorflow' in sys.modules)"
    assert (before, after) == ("False", "True")
    assert loaded_in(forks, attempt(tmp_path, never, name="never"), **may) == "False"


def test_a_server_that_was_warmed_up_has_imported_before_the_first_attempt(
    forks: ForkServer, tmp_path: Path
) -> None:
    forks.warm_up()
    loaded = "return str([each in sys.modules for each in ('keras', 'sklearn.metrics')])"

    assert loaded_in(forks, attempt(tmp_path, loaded)) == "[True, True]"


@pytest.mark.parametrize(
    "rude", ["os.mkdir('../imports.txt')", "os.closerange(3, 100)", "sys.meta_path[:1] = []"]
)
def test_an_import_succeeds_though_the_server_cannot_be_told(
    rude: str, forks: ForkServer, tmp_path: Path
) -> None:
    body = f"{rude}\nimport sklearn.metrics\nreturn sklearn.metrics.__name__"
    folder = attempt(tmp_path, body)

    assert loaded_in(forks, folder, later=["sklearn"]) == "sklearn.metrics"


def test_what_a_component_has_forked_tells_the_server_nothing(
    forks: ForkServer, tmp_path: Path
) -> None:
    body = (
        "if not (child := os.fork()):\n    import sklearn.metrics\n    os._exit(0)\n"
        "os.waitpid(child, 0)\n"
        "return str(os.path.exists('../imports.txt'))"
    )

    assert loaded_in(forks, attempt(tmp_path, body), later=["sklearn"]) == "False"


# What a component does to its process.


@pytest.mark.parametrize(
    "rude",
    [
        "sys.stdout.close()",
        "sys.stdout = sys.stderr = None",
        "os.close(1); os.close(2)",
        "os.closerange(3, 100)",
        "threading.Thread(target=time.sleep, args=(600,), daemon=True).start()",
        "import concurrent.futures as f; sys.p = f.ThreadPoolExecutor(); sys.p.submit(int)",
        "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
        "os.kill(os.fork() or os.getpid(), 9)",
        "os.setsid() if os.getpgid(0) != os.getpid() else None",
    ],
)
def test_a_rude_component_still_ends_well_and_the_server_lives(
    rude: str, forks: ForkServer, tmp_path: Path
) -> None:
    assert result(forks, attempt(tmp_path, f"{rude}\nreturn 'done'", name="rude")) == "done"
    assert result(forks, attempt(tmp_path, "return 'alive'", name="next")) == "alive"


def test_threads_that_are_no_daemons_finish_before_the_outputs_are_read(
    forks: ForkServer, tmp_path: Path
) -> None:
    file = str(tmp_path / "attempt" / "Output")
    body = (
        f"def write():\n    time.sleep(.2)\n    open({file!r}, 'w').write('late')\n"
        "threading.Thread(target=write).start()"
    )

    assert result(forks, attempt(tmp_path, body)) == "late"


def test_what_was_printed_is_in_the_log_in_order_however_the_process_ends(
    forks: ForkServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    body = "print('one')\nprint('two', file=sys.stderr)\nprint('three')\nos.kill(os.getpid(), 9)"
    folder = attempt(tmp_path, body)

    assert forks.start(folder).result(timeout=60) == -9
    assert (folder / "log.txt").read_text().split() == ["one", "two", "three"]


def test_what_an_attempt_has_started_ends_with_it_and_no_zombie_stays(
    forks: ForkServer, tmp_path: Path
) -> None:
    done = forks.start(waiting(tmp_path))
    pids = pids_of(tmp_path)
    server = int(Path(f"/proc/{pids[0]}/stat").read_text().rpartition(")")[2].split()[1])

    forks.kill(tmp_path / "waiting")

    assert done.result(timeout=60) == -9
    wait_until(lambda: not any(map(is_running, pids)), "their end")
    children = Path(f"/proc/{server}/task/{server}/children")
    wait_until(lambda: children.read_text() == "", "the end of their last traces")


# Who dies.


def test_a_killed_server_takes_all_with_it_and_the_next_attempt_starts_another(
    forks: ForkServer, tmp_path: Path
) -> None:
    lost = [forks.start(waiting(tmp_path, name)) for name in ("one", "two")]
    pids = [*pids_of(tmp_path, "one"), *pids_of(tmp_path, "two")]
    server = int(Path(f"/proc/{pids[0]}/stat").read_text().rpartition(")")[2].split()[1])

    os.kill(server, signal.SIGKILL)

    for done in lost:
        with pytest.raises(UnavailableError, match=r"fork server.*log.*Resume"):
            done.result(timeout=60)
    wait_until(lambda: not any(map(is_running, pids)), "the end of all")
    assert not Path(f"/proc/{server}").exists()  # not even as a zombie
    assert result(forks, attempt(tmp_path, "return 'anew'")) == "anew"
    gc.collect()  # a process that nobody waited for would warn now


def test_close_ends_what_runs_and_may_be_called_at_any_time(tmp_path: Path) -> None:
    forks = ForkServer(tmp_path / "fork_server.log")
    forks.close()
    done = forks.start(waiting(tmp_path))
    pids = pids_of(tmp_path)
    server = int(Path(f"/proc/{pids[0]}/stat").read_text().rpartition(")")[2].split()[1])

    forks.close()
    forks.close()

    with pytest.raises(UnavailableError):
        done.result(timeout=60)
    wait_until(lambda: not any(map(is_running, pids)), "the end of all")
    assert result(forks, attempt(tmp_path, "return 'opened again'")) == "opened again"
    wait_until(lambda: not is_running(server), "the end of the first server")
    forks.close()


def test_close_does_not_mind_a_server_that_has_just_died(tmp_path: Path) -> None:
    for i in range(5):
        forks = ForkServer(tmp_path / "fork_server.log")
        said = result(forks, attempt(tmp_path, "return str(os.getppid())", name=f"{i}"))
        server = int(said)
        os.kill(server, signal.SIGKILL)
        forks.close()
        assert not Path(f"/proc/{server}").exists()


def test_many_threads_may_share_it(forks: ForkServer, tmp_path: Path) -> None:
    said: list[str] = []

    def work(i: int) -> None:
        said.extend(
            result(forks, attempt(tmp_path, f"return '{i}.{k}'", name=f"{i}.{k}")) for k in range(5)
        )

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)

    assert sorted(said) == [f"{i}.{k}" for i in range(6) for k in range(5)]


def test_nothing_is_started_any_more_when_the_runner_died_while_the_server_imported(
    tmp_path: Path,
) -> None:
    gate, marked = tmp_path / "gate", tmp_path / "imported"
    (tmp_path / "slow_import.py").write_text(
        "import time\nfrom pathlib import Path\n"
        f"Path({str(marked)!r}).touch()\n"
        f"while not Path({str(gate)!r}).exists():\n    time.sleep(.01)\n"
    )
    folders = [attempt(tmp_path, "return ''", name=name) for name in ("one", "two")]
    ours, theirs = socket.socketpair()
    with theirs:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlops_mini.runner.fork_server", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
        )
    with ours:
        for folder in folders:
            job = {"folder": str(folder), "modules": ["slow_import"]}
            job |= {"environment": dict(os.environ), "path": sys.path}
            ours.sendall(json.dumps(job).encode() + b"\n")
        wait_until(marked.exists, "the import")
    gate.touch()

    assert server.wait(timeout=60) == 0
    assert [(folder / "log.txt").exists() for folder in folders] == [False, False]
