"""TensorFlow's ProfilerService: where the time of the runs goes, as an XPlane file for TensorBoard.

Made with TensorFlow's own profiler of this process. Its own server of this service would listen on
every address, on a port of its own.

Source: tensorflow/core/profiler/rpc/profiler_service_impl.cc and profiler_service.proto
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from pathlib import Path
from typing import Any

from mlops_mini.errors import InternalError, PermissionDeniedError, UnimplementedError
from mlops_mini.serving.servables import tensorflow
from mlops_mini.serving.workers import Workers
from mlops_mini.wire_messages import EXACT, parse


class Profiler:
    """Answers Profile, Terminate and Monitor in bytes, in the words of the original."""

    def __init__(self, workers: Workers, *, may_write: bool = False) -> None:
        """Profile nothing yet.

        Args:
            workers: Where slow work is done.
            may_write: Let requests profile. They name the folder of this machine that is written.
        """
        self._workers = workers
        self._may_write = may_write
        self._running: dict[str, asyncio.Event] = {}  # by session, set to end it
        self._ending: asyncio.Future[bytes] | None = None

    async def profile(self, request_bytes: bytes, *_: Any) -> bytes:
        """Trace for as long as a serialized ProfileRequest says, and write what was seen.

        Raises:
            PermissionDeniedError: Requests may not write.
            InternalError: A profile is running already, or the file cannot be written.
        """
        if not self._may_write:
            raise PermissionDeniedError(
                "this server lets no request profile, because other machines reach it: start it"
                " with --enable_model_management, or with an --ssl_config_file that has"
                " client_verify"
            )
        request = parse(EXACT["ProfileRequest"], request_bytes)
        trace = await self._workers.do(_Trace, request.opts)
        end = self._running.setdefault(request.session_id, asyncio.Event())
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(request.opts.duration_ms / 1000):
                    await end.wait()
        except asyncio.CancelledError:  # the client has gone
            self._ending = asyncio.ensure_future(self._workers.do(trace.end))
            raise
        finally:
            self._running.pop(request.session_id, None)
        return await self._workers.do(_save, request, trace)

    async def terminate(self, request_bytes: bytes, *_: Any) -> bytes:
        """End the profile of a session before its time; a session that is unknown is fine."""
        request = parse(EXACT["TerminateRequest"], request_bytes)
        if request.session_id in self._running:
            self._running[request.session_id].set()
        return b""

    async def monitor(self, *_: Any) -> bytes:
        """Refuse, as the original does without an accelerator."""
        raise UnimplementedError("unimplemented.")


class _Trace:
    """A trace that is being taken until its `end`."""

    def __init__(self, options: Any) -> None:
        tf = tensorflow()
        from tensorflow.python.profiler.internal import _pywrap_profiler

        self._session = _pywrap_profiler.ProfilerSession()
        self._folder = tempfile.TemporaryDirectory()
        levels = ("host_tracer_level", "device_tracer_level", "python_tracer_level")
        try:
            self._session.start(self._folder.name, {k: getattr(options, k) for k in levels})
        except tf.errors.AlreadyExistsError as exc:
            self._folder.cleanup()
            raise InternalError("Another profiling session active.") from exc

    def end(self) -> bytes:
        """Return what was seen, a serialized XSpace: TensorFlow gives it as a file only."""
        with self._folder as folder:
            self._session.export_to_tb()
            return b"".join(file.read_bytes() for file in Path(folder).rglob("*.xplane.pb"))


def _save(request: Any, trace: _Trace) -> bytes:
    """End a trace, write it where the request says, return a ProfileResponse."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    xspace = trace.end()
    if request.repository_root:
        host = request.host_name.replace(":", "_")
        file = Path(request.repository_root, request.session_id, f"{host}.xplane.pb")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(xspace)
        except OSError as exc:
            raise InternalError(f"{file.parent}; {exc.strerror}") from exc
    planes = xplane_pb2.XSpace.FromString(xspace).planes
    is_empty = not any(line.events for plane in planes for line in plane.lines)
    return bytes(EXACT["ProfileResponse"](empty_trace=is_empty).SerializeToString())
