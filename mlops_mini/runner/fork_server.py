"""Processes for tasks: forked from one that has imported what takes long, and does nothing else.

Importing TensorFlow takes seconds, a fork milliseconds. The server imports what the next task is
said to need, and whatever tasks have imported in the course of their work so far. It only imports:
it starts no thread and runs no operation, so a child begins as if it had imported everything
itself. (Arrow's allocator and OpenBLAS start threads of their own, and see to them at a fork.) When
the process that started it is gone, however it died, it ends its children with all that they have
started, and itself.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import ctypes
import importlib
import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlops_mini import containers, processes
from mlops_mini.errors import MlopsMiniError, UnavailableError
from mlops_mini.runner import attempts, layout

# What is worth importing once: each takes over .1 s. Modules that a user may edit are not.
_PRELOADED = (
    "kfp.dsl.executor", "numpy", "pandas", "pandera.pandas", "pyarrow.parquet", "scipy.stats",
    "sklearn.metrics", "tensorflow", "keras",
)  # fmt: skip

_PR_SET_CHILD_SUBREAPER = 36

Future = concurrent.futures.Future[int]


@dataclass(slots=True)
class _Attempt:
    """An attempt that runs: the future of its exit status, and its process id once it has one."""

    done: Future = field(default_factory=concurrent.futures.Future)
    pid: int = 0


class ForkServer:
    """Starts attempts in processes of their own; `close` ends them all. Threads may share it."""

    def __init__(self, log_file: Path) -> None:
        """Make it; its process starts with the first attempt.

        Args:
            log_file: Receives what the server itself prints; attempts have logs of their own.
        """
        self._log_file = log_file
        self._lock = threading.Lock()
        self._attempts: dict[str, _Attempt] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    def start(
        self, folder: Path, *, at_once: Iterable[str] = (), later: Iterable[str] = ()
    ) -> Future:
        """Run the attempt in a folder; what it prints goes into `log.txt` there.

        It has this process's environment variables and module path as they are now.

        Args:
            folder: See `attempts.run`.
            at_once: Installed packages that it needs; those worth it are imported before it begins.
            later: Those that it may import in the course of its work; once it does, they are
                imported for all attempts that follow.

        Returns:
            Its exit status, once it has ended: 0 if `result.json` is written, -9 if it was killed.
            An `UnavailableError` if the server itself has ended.
        """
        job = {
            "folder": str(folder),
            "modules": _worth_importing({"kfp", *at_once}),
            "later": _worth_importing({*later}),
            "environment": {**os.environ, "_KFP_RUNTIME": "true"},
            "path": _absolute_path(),
        }
        attempt = _Attempt()
        with self._lock:
            if self._socket is None:
                self._start_server()
            self._attempts[str(folder)] = attempt
            try:
                self._say(job)
            except OSError as exc:
                del self._attempts[str(folder)]
                raise self._ended() from exc
        return attempt.done

    def warm_up(self) -> None:
        """Have the server import all that's worth it meanwhile, before there's any attempt."""
        with self._lock:
            if self._socket is None:
                self._start_server()
            # It may have ended just now; the next attempt starts another.
            with contextlib.suppress(OSError):
                self._say({"modules": _PRELOADED})

    def kill(self, folder: Path) -> None:
        """End an attempt and all that it has started."""
        with self._lock:
            attempt = self._attempts.get(str(folder))
        if attempt and attempt.pid:
            _kill_group(attempt.pid)

    def close(self) -> None:
        """End the server and its children."""
        with self._lock:
            server, self._socket = self._socket, None
        if server and self._process:
            # It may have ended just now.
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            self._process.wait()

    def _say(self, job: dict[str, Any]) -> None:
        self._socket.sendall(json.dumps(job).encode() + b"\n")  # type: ignore[union-attr]

    def _start_server(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs, self._log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mlops_mini.runner.fork_server", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(_absolute_path()),
                    "_KFP_RUNTIME": "true",
                },
                pass_fds=[theirs.fileno()],
                # A Ctrl-C is for the one who started us: it ends our children in good order.
                start_new_session=True,
            )
        self._socket, self._attempts = ours, {}
        listening = (ours, self._process, self._attempts)
        threading.Thread(target=self._listen, args=listening, daemon=True).start()

    def _listen(
        self,
        server: socket.socket,
        process: subprocess.Popen[bytes],
        attempts_there: dict[str, _Attempt],
    ) -> None:
        """Read what a server reports, and clean up after it once it has ended."""
        with server, server.makefile() as lines, contextlib.suppress(OSError):
            for line in lines:
                report = json.loads(line)
                if "pid" in report:
                    attempts_there[report["folder"]].pid = report["pid"]
                else:
                    with self._lock:
                        attempt = attempts_there.pop(report["folder"])
                    attempt.done.set_result(report["status"])
        process.wait()
        with self._lock:
            if self._socket is server:
                self._socket = None
            lost = {folder: attempts_there.pop(folder) for folder in list(attempts_there)}
        for folder, attempt in lost.items():
            # The attempt has died with the server, what it has started has not.
            if attempt.pid:
                _kill_group(attempt.pid)
            remove_container(Path(folder))
            attempt.done.set_exception(self._ended())

    def _ended(self) -> UnavailableError:
        return UnavailableError(
            f"the fork server has ended (log: {self._log_file}); was it killed, or memory full? "
            "Resume the run"
        )


def serve(connection: socket.socket) -> None:
    """Fork for each line that arrives and report each child's end, until the connection closes."""
    _adopt_orphans()
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    for wakes in (signal.SIGCHLD, signal.SIGUSR1):
        signal.signal(wakes, lambda *_: None)
    signal.set_wakeup_fd(woken)
    children: dict[int, str] = {}
    received = b""
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        selector.register(wake, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is connection:
                    data = connection.recv(65536)
                    if not data:
                        _end(children)
                        return
                    *lines, received = (received + data).split(b"\n")
                    for line in lines:
                        job = json.loads(line)
                        _import(job["modules"])
                        if _has_ended(connection):
                            break
                        if "folder" not in job:
                            continue
                        pid = _fork(job, [connection.fileno(), wake, woken])
                        children[pid] = job["folder"]
                        _say(connection, {"folder": job["folder"], "pid": pid})
                elif signal.SIGUSR1 in os.read(wake, 65536):
                    _import_what_they_import(children.values())
            for pid, status in _ended_children():
                # What the attempt has started and left behind ends with it.
                _kill_group(pid)
                _kill_orphans(children)
                if pid not in children:
                    continue
                folder, code = children.pop(pid), os.waitstatus_to_exitcode(status)
                remove_container(Path(folder))
                _say(connection, {"folder": folder, "status": code})


def _worth_importing(packages: Collection[str]) -> list[str]:
    return [name for name in _PRELOADED if name.partition(".")[0] in packages]


class _FirstImports:
    """Tells the server when an attempt imports a module that no attempt has imported before.

    The attempt goes on and imports it itself. The server does too meanwhile, for others.
    """

    def __init__(self, names: Iterable[str], folder: Path, server_pid: int) -> None:
        self._names = {*names}
        self._file = folder / layout.IMPORTS
        self._pids = server_pid, os.getpid()

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> None:
        """Return nothing, so that Python goes on to the finders after this one."""
        # What the component has forked itself is none of the server's business.
        if name in self._names and (os.getppid(), os.getpid()) == self._pids:
            self._names.discard(name)
            # The component may have taken the folder away; that must not keep it from importing.
            with contextlib.suppress(OSError):
                with self._file.open("a") as file:
                    file.write(f"{name}\n")
                os.kill(self._pids[0], signal.SIGUSR1)


def _import_what_they_import(folders: Iterable[str]) -> None:
    files = [Path(folder) / layout.IMPORTS for folder in folders]
    names = {name for file in files if file.exists() for name in file.read_text().splitlines()}
    # The component could write anything there.
    _import(name for name in _PRELOADED if name in names)


def _import(modules: Iterable[str]) -> None:
    for name in modules:
        # A component that needs it says so itself, in its own words.
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def _has_ended(connection: socket.socket) -> bool:
    """Tell whether the other side is gone, whatever it has sent before."""
    poll = select.poll()
    poll.register(connection, 0)
    return bool(poll.poll(0))


def _absolute_path() -> list[str]:
    return [str(Path(entry).resolve()) for entry in sys.path]


def _fork(job: dict[str, Any], descriptors: Iterable[int]) -> int:
    server_pid, folder = os.getpid(), Path(job["folder"])
    sys.stdout.flush()
    if pid := os.fork():
        # Both sides set it, so that whoever comes first, the group is there to be killed.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.setpgid(pid, pid)
        return pid
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        for woke in (signal.SIGCHLD, signal.SIGUSR1):
            signal.signal(woke, signal.SIG_DFL)
        os.setpgid(0, 0)
        processes.die_with_parent(server_pid)
        _adopt_orphans()
        for descriptor in descriptors:
            os.close(descriptor)
        with (folder / layout.LOG).open("ab") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        # What is printed is there, and in order, however the process ends.
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        os.environ.clear()
        os.environ.update(job["environment"])
        sys.path[:] = job["path"]
        if later := [name for name in job.get("later", ()) if name not in sys.modules]:
            sys.meta_path.insert(0, _FirstImports(later, folder, server_pid))
        importlib.invalidate_caches()
        work = folder / layout.WORK
        work.mkdir(exist_ok=True)
        os.chdir(work)
        attempts.run(folder, is_own_process=True)
        status = 0
    except BaseException:  # noqa: BLE001 - the process ends here, and its log must say why
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            # The component may have closed or replaced it.
            with contextlib.suppress(AttributeError, OSError, ValueError):
                stream.flush()
        os._exit(status)


def _ended_children() -> list[tuple[int, int]]:
    ended = []
    with contextlib.suppress(ChildProcessError):
        while (child := os.waitpid(-1, os.WNOHANG))[0]:
            ended.append(child)
    return ended


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def remove_container(attempt: Path) -> None:
    """Remove the container that an attempt has left because it was killed, if it had one."""
    if (attempt / layout.CONTAINER).exists():
        # An engine that has ended has ended its containers, too.
        with contextlib.suppress(MlopsMiniError):
            containers.remove(layout.container_label(attempt), is_coming=True)


def _end(attempts_there: Mapping[int, str]) -> None:
    """End all attempts with all that they have started, and wait until nothing is left."""
    for pid in attempts_there:
        _kill_group(pid)
    with contextlib.suppress(ChildProcessError):
        while True:
            # Each that ends may leave children of its own to us.
            _kill_orphans(())
            os.waitpid(-1, 0)
    for folder in attempts_there.values():
        remove_container(Path(folder))


def _adopt_orphans() -> None:
    """Become the parent of every process below this one whose own parent ends (Linux only).

    An attempt adopts what it has started, as a container does, and the server what an attempt
    leaves behind, be it in a session of its own. Where no kernel does it, as on macOS, what has
    left the attempt's process group by `setsid` goes on.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _kill_orphans(own: Collection[int]) -> None:
    """Kill the children of this process that it has not forked itself: attempts have left them."""
    for file in Path("/proc/self/task").glob("*/children"):
        for pid in map(int, file.read_text().split()):
            if pid not in own:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def _say(connection: socket.socket, report: dict[str, Any]) -> None:
    # If nobody listens any more, the end of the connection is the next thing to be read.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(json.dumps(report).encode() + b"\n")


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
    sys.stdout.flush()
    os._exit(0)  # What was imported for others takes seconds to be taken down.
