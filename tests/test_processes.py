"""Real processes: what a child does when its parent stops, fails, or is killed."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from mlops_mini.errors import DeadlineExceededError, UnavailableError
from mlops_mini.processes import ChildProcess
from tests.serving.servers import wait_until

FOREVER = "import time; time.sleep(600)"


def _python(code: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(code)]


def _is_running(pid: int) -> bool:
    """True while the process lives; one that waits to be collected (Z) does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_the_child_is_the_command_itself(tmp_path: Path) -> None:
    code = "import os; print(os.getpid(), os.getpgrp(), os.environ['WORD'], flush=True); "
    log = tmp_path / "log"
    with ChildProcess(
        _python(code + FOREVER), name="the child", log_file=log, env={"WORD": "yes"}
    ) as child:
        words = child.wait_for(lambda: log.read_text().split() or None, what="it", timeout_s=120)

        assert words == [str(child.pid), str(os.getpgrp()), "yes"]
        child.check_alive()
    assert not _is_running(child.pid)


@pytest.mark.parametrize("way", ["die_with_parent", "watch_parent"])
def test_a_child_dies_when_its_parent_is_killed(way: str, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    child = f"""
        import os, pathlib, time
        from mlops_mini import processes
        processes.{way}(os.getppid())
        unfinished = pathlib.Path({str(pid_file)!r} + ".new")
        unfinished.write_text(str(os.getpid()))
        unfinished.rename({str(pid_file)!r})
        time.sleep(600)
    """
    parent = subprocess.Popen(_python(f"import subprocess; subprocess.run({_python(child)!r})"))
    wait_until(pid_file.exists, "the child")
    pid = int(pid_file.read_text())
    assert _is_running(pid)

    parent.kill()
    parent.wait()

    wait_until(lambda: not _is_running(pid), "the child's end")


def test_a_child_process_dies_when_its_parent_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    parent = subprocess.Popen(
        _python(
            f"""
            import pathlib, time
            from mlops_mini.processes import ChildProcess
            code = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
            log = pathlib.Path({str(log)!r})
            child = ChildProcess([{sys.executable!r}, "-c", code], name="it", log_file=log)
            time.sleep(600)
            """
        )
    )
    pid = int(wait_until(lambda: log.exists() and log.read_text(), "the child's pid"))
    assert _is_running(pid)

    parent.send_signal(signal.SIGKILL)
    parent.wait()

    wait_until(lambda: not _is_running(pid), "the child's end")


def test_a_watcher_ends_with_the_child_it_watches(tmp_path: Path) -> None:
    code = """
        import os
        from mlops_mini import processes
        processes.watch_parent(os.getppid())
        print(open(f"/proc/self/task/{os.getpid()}/children").read(), flush=True)
    """
    ended = subprocess.run(_python(code), capture_output=True, text=True, timeout=60, check=True)

    watcher = int(ended.stdout)
    wait_until(lambda: not _is_running(watcher), "the watcher's end")


def test_a_child_whose_parent_died_before_it_looked_ends_at_once() -> None:
    code = "from mlops_mini import processes; processes.die_with_parent(1 << 30)"

    assert subprocess.run(_python(code), timeout=60, check=False).returncode == 1


def test_closing_asks_politely(tmp_path: Path) -> None:
    code = """
        import signal, sys, time
        signal.signal(signal.SIGTERM, lambda *_: (print("goodbye", flush=True), sys.exit(0)))
        print("ready", flush=True)
        time.sleep(600)
    """
    log = tmp_path / "log"
    child = ChildProcess(_python(code), name="the child", log_file=log)
    child.wait_for(lambda: "ready" in log.read_text() or None, what="it", timeout_s=120)

    child.close()
    child.close()  # nothing more to do

    assert log.read_text() == "ready\ngoodbye\n"
    with pytest.raises(UnavailableError, match=r"exited 0; its last words: goodbye"):
        child.check_alive()


def test_closing_kills_a_child_that_does_not_listen(tmp_path: Path) -> None:
    code = """
        import signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("ready", flush=True)
        time.sleep(600)
    """
    log = tmp_path / "log"
    child = ChildProcess(_python(code), name="the child", log_file=log, stop_timeout_s=0.1)
    child.wait_for(lambda: "ready" in log.read_text() or None, what="it", timeout_s=120)

    child.close()

    with pytest.raises(UnavailableError, match="was killed by SIGKILL; its last words: ready"):
        child.check_alive()


def test_an_ended_child_tells_its_status_and_last_words(tmp_path: Path) -> None:
    code = "import sys; print('one'); print('no such model'); sys.exit(3)"
    with (
        ChildProcess(_python(code), name="the child", log_file=tmp_path / "log") as child,
        pytest.raises(UnavailableError) as raised,
    ):
        child.wait_for(lambda: None, what="its end", timeout_s=120)

    assert str(raised.value) == (
        f"the child exited 3; its last words: no such model (log: {tmp_path / 'log'})"
    )


def test_a_command_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with (
        ChildProcess(["no-such-command"], name="the child", log_file=tmp_path / "log") as child,
        pytest.raises(
            UnavailableError, match=r"the child exited 1; its last words: FileNotFoundError"
        ),
    ):
        child.wait_for(lambda: None, what="its end", timeout_s=120)


def test_an_end_that_is_near_may_be_waited_for(tmp_path: Path) -> None:
    child = ChildProcess(_python("import sys; sys.exit(4)"), name="it", log_file=tmp_path / "log")

    with pytest.raises(UnavailableError, match=r"^it exited 4 \(log: "):
        child.check_alive(grace_s=30)


def test_waiting_ends_at_the_deadline(tmp_path: Path) -> None:
    with (
        ChildProcess(_python(FOREVER), name="the child", log_file=tmp_path / "log") as child,
        pytest.raises(DeadlineExceededError, match=r"waited 0 s for a sign; the log may say why"),
    ):
        child.wait_for(lambda: None, what="a sign", timeout_s=0.1)
