"""Work on messages of many megabytes, done in a process of its own.

A parser written in C holds Python's interpreter lock until it is done: with a body of 100 MB for
half a second, in which nothing is answered, also if it runs in a thread. So such a body is read,
and such an answer written, by a child process. Bytes and arrays go to it and come back in pieces,
each of which holds the lock for a moment only.

The child is started at the first large message, is used by one caller at a time, and ends with its
parent, when its input ends. It doesn't know TensorFlow.
"""

from __future__ import annotations

import pickle
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any, BinaryIO, TypeVar, cast

import numpy as np

from mlops_mini.errors import InternalError, MlopsMiniError

T = TypeVar("T")

_PIECE_BYTES = 2**20
_OUR_FAULTS = (ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)


class LargeMessages:
    """The child process; `close` it at the end. All methods may be called from any thread."""

    def __init__(self) -> None:
        """Start nothing yet."""
        self._child: subprocess.Popen[bytes] | None = None
        self._turn = threading.Lock()

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function of a module in the child; bytes and arrays are not copied on the way.

        Returns:
            What the function returned; bytes as a `memoryview`.

        Raises:
            MlopsMiniError: What the function raised, or an `InternalError` if the child has ended.
        """
        with self._turn:
            if self._child is not None and self._child.poll() is not None:
                self._forget()
            if self._child is None:
                self._child = subprocess.Popen(
                    [sys.executable, "-m", __name__],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,  # a reader of our stderr would wait for its end too
                    bufsize=0,
                )
            try:
                _send(self._child.stdin, (function, [_lend(argument) for argument in arguments]))
                result = _receive(self._child.stdout)
            except (OSError, EOFError) as exc:
                raise InternalError(
                    "the process that reads large messages has ended with status"
                    f" {self._forget()}: is there enough memory?"
                ) from exc
        if isinstance(result, Exception):
            raise result
        answer: T = result
        return answer

    def _forget(self) -> int:
        """Close the pipes of a child that ends or has ended, and return its status."""
        child, self._child = cast("subprocess.Popen[bytes]", self._child), None
        with child:
            pass
        return child.returncode

    def close(self) -> None:
        """End the child; a call under way fails."""
        if self._child is not None:
            self._child.kill()
            self._forget()


def _lend(value: Any) -> Any:
    """Let bytes travel beside the pickle instead of in it."""
    return pickle.PickleBuffer(value) if isinstance(value, bytes) else value


def _send(pipe: Any, message: Any) -> None:
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
    parts = [memoryview(head), *(buffer.raw() for buffer in buffers)]
    sizes = [part.nbytes for part in parts]
    pipe.write(struct.pack(f"<q{len(sizes)}q", len(sizes), *sizes))
    for part in parts:
        position = 0
        while position < part.nbytes:
            position += pipe.write(part[position : position + _PIECE_BYTES])


def _receive(pipe: Any) -> Any:
    (n_parts,) = struct.unpack("<q", _read(pipe, 8))
    sizes = struct.unpack(f"<{n_parts}q", _read(pipe, 8 * n_parts))
    head, *buffers = [_read(pipe, size) for size in sizes]
    return pickle.loads(head, buffers=buffers)  # noqa: S301 - from our own child, or parent


def _read(pipe: Any, n_bytes: int) -> memoryview:
    view = np.empty(n_bytes, np.uint8).data  # a bytearray would be filled with zeros first
    position = 0
    while position < n_bytes:
        n_read = pipe.readinto(view[position : position + _PIECE_BYTES])
        if not n_read:
            raise EOFError
        position += n_read
    return view


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer calls until the input ends."""
    while True:
        try:
            function, arguments = _receive(requests)
        except EOFError:
            return
        try:
            result = function(*arguments)
        except MlopsMiniError as exc:
            result = exc
        except _OUR_FAULTS as exc:
            result = InternalError(f"{type(exc).__name__}: {exc}")
        _send(answers, _lend(result))


if __name__ == "__main__":
    with open(0, "rb", buffering=0) as source, open(1, "wb", buffering=0) as target:
        serve(source, target)
