"""Child processes that end with their parent, and free ports that nobody has to know.

A server started by a loop, a test or a notebook must not outlive it, however it dies. Each child is
started through this very module: it asks the kernel for a signal at its parent's death (Linux), or
leaves a watcher behind (elsewhere), and then becomes the command, under the same process id and in
the same process group, so that a Ctrl-C reaches it too.
"""

from __future__ import annotations

import ctypes
import logging
import multiprocessing.context
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from mlops_mini.errors import DeadlineExceededError, UnavailableError

logger = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
_POLL_S = 0.02
T = TypeVar("T")


class ChildProcess:
    """A running child; closing it, or leaving its `with`, ends it.

    Start it from a thread that lives as long as the child should: Linux signals the child when the
    *thread* that started it ends.
    """

    def __init__(
        self,
        command: Sequence[str] | Callable[[], int],
        *,
        name: str,
        log_file: Path,
        env: Mapping[str, str] | None = None,
        stop_timeout_s: float = 15.0,
    ) -> None:
        """Start the command.

        Args:
            command: Program and arguments, without a shell. Or a function, which returns the exit
                status: the child is a fork of this process then, so see `may_fork`.
            name: What messages call it, such as "the model server".
            log_file: Receives stdout and stderr of the child, appended.
            env: Variables set on top of this process's own.
            stop_timeout_s: Seconds that `close` leaves between SIGTERM and SIGKILL.
        """
        self.name = name
        self.log_file = log_file
        self._stop_timeout_s = stop_timeout_s
        self._process: subprocess.Popen[bytes] | _Fork
        if callable(command):
            given = (command, os.getpid(), log_file, env or {})
            self._process = _Fork(target=_run, args=given, daemon=True)
            self._process.start()
            return
        bootstrap = [sys.executable, "-m", "mlops_mini.processes", str(os.getpid()), *command]
        with log_file.open("ab") as log:
            self._process = subprocess.Popen(
                bootstrap,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **(env or {})},
            )

    @property
    def pid(self) -> int:
        """Process id of the command itself."""
        return int(self._process.pid or 0)

    def check_alive(self, *, grace_s: float = 0.0) -> None:
        """Do nothing while the child runs.

        Args:
            grace_s: Seconds to wait for its end, when something tells that it is ending.

        Raises:
            UnavailableError: It has ended; the message has its exit status and last log lines.
        """
        try:
            status = self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            return
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"exited {status}"
        lines = self.log_file.read_text(errors="replace").strip().splitlines()
        last = f"; its last words: {lines[-1]}" if lines else ""
        raise UnavailableError(f"{self.name} {how}{last} (log: {self.log_file})")

    def wait_for(self, look: Callable[[], T | None], *, what: str, timeout_s: float) -> T:
        """Call `look` until it returns something.

        Args:
            look: Returns None as long as there is nothing yet.
            what: Completes the message "waited 60 s for ...".
            timeout_s: Seconds to go on looking.

        Raises:
            UnavailableError: The child ended meanwhile.
            DeadlineExceededError: Nothing was there in time.
        """
        deadline = time.monotonic() + timeout_s
        while (result := look()) is None:
            self.check_alive()
            if time.monotonic() > deadline:
                raise DeadlineExceededError(
                    f"waited {timeout_s:.0f} s for {what}; the log may say why: {self.log_file}"
                )
            time.sleep(_POLL_S)
        return result

    def wait_for_end(self, *, timeout_s: float) -> None:
        """Wait for a child that ends by itself; `close` it if it doesn't in time.

        Args:
            timeout_s: Seconds to wait.
        """
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.close()

    def close(self) -> None:
        """Ask the child to stop (SIGTERM), and kill it if it does not."""
        if self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(self._stop_timeout_s)
        except subprocess.TimeoutExpired:
            logger.warning("%s ignored SIGTERM, killing it: pid=%d", self.name, self.pid)
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> ChildProcess:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


class _Fork(multiprocessing.context.ForkProcess):
    """A fork of this process, under the names that `Popen` has."""

    def poll(self) -> int | None:
        return self.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self.join(timeout)
        if self.exitcode is None:
            raise subprocess.TimeoutExpired(self.name, timeout or 0.0)
        return self.exitcode


def _run(
    command: Callable[[], int], parent_pid: int, log_file: Path, env: Mapping[str, str]
) -> None:
    die_with_parent(parent_pid)
    with log_file.open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    os.environ.update(env)
    sys.exit(command())


def may_fork() -> bool:
    """Tell whether a fork of this process is all that it is: it has no thread but this one.

    Always false where no one tells how many threads there are, as on macOS.
    """
    return len(list(Path("/proc").glob("self/task/*"))) == 1


@contextmanager
def native_stderr_to(log_file: Path) -> Iterator[None]:
    """Send what compiled libraries write to stderr into a file; Python's own stays where it is.

    TensorFlow's native part logs its start on file descriptor 2, whatever log level is set.
    Handlers of `logging` that were made before still write to the descriptor: make them inside.

    Args:
        log_file: Overwritten.
    """
    original, python_stderr = os.dup(2), sys.stderr
    with log_file.open("wb") as log, os.fdopen(os.dup(2), "w", buffering=1) as stderr:
        sys.stderr = stderr
        os.dup2(log.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr = python_stderr
            os.dup2(original, 2)
            os.close(original)


def die_with_parent(parent_pid: int) -> None:
    """Arrange for this process to be killed when its parent has died, also if that was just now."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    else:
        watch_parent(parent_pid)
    if os.getppid() != parent_pid:
        os._exit(1)


def watch_parent(parent_pid: int) -> None:
    """Fork a watcher that kills this process once its parent is gone (where no kernel does it)."""
    child_pid = os.getpid()
    if os.fork():
        return
    while os.getppid() == child_pid:
        try:
            os.kill(parent_pid, 0)
        except ProcessLookupError:
            os.kill(child_pid, signal.SIGKILL)
        time.sleep(_POLL_S * 10)
    os._exit(0)


if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606 - no shell is the point
