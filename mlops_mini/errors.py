"""Every error that mlops_mini raises on purpose.

::

    MlopsMiniError                   catch this one to catch them all
    ├── InvalidArgumentError         what was asked makes no sense, whatever is there
    ├── FailedPreconditionError      it would make sense if something else were done first
    │   └── DataIntegrityError       a file is not what its checksum or its schema says
    ├── NotFoundError                what was asked for is not there
    ├── AlreadyExistsError           what was to be made is there already
    ├── PermissionDeniedError        whoever asks may not have it
    ├── ResourceExhaustedError       disk, memory, queue or quota is full
    ├── AbortedError                 something under way ended before its goal
    ├── DeadlineExceededError        it took longer than allowed
    ├── UnavailableError             nobody answers, now; try again later
    │   └── HandshakeError           somebody is there, but client and server do not fit: TLS, port
    ├── UnimplementedError           understood, but not offered
    └── InternalError                our own fault, or the model's: the log says more

Each class has the canonical gRPC code of its meaning; only the two edges of the model server turn
it into an HTTP or gRPC status. A message says what was asked, what is there, and the way out.
"""

# The canonical names of google/rpc/code.proto, by number.
CODE_NAMES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND",
    "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED",
    "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip


class MlopsMiniError(Exception):
    """Root of the tree.

    Attributes:
        code: Canonical gRPC status code, 1 to 16 (google/rpc/code.proto).
        hint: What would have been right, where the message has no room for it: on the wire the
            message is TensorFlow Serving's own.
    """

    code: int = 2
    hint: str = ""


class InvalidArgumentError(MlopsMiniError):
    """What was asked makes no sense, whatever is there."""

    code = 3


class FailedPreconditionError(MlopsMiniError):
    """It would make sense if something else were done first."""

    code = 9


class DataIntegrityError(FailedPreconditionError):
    """A file is not what its checksum or its schema says."""


class NotFoundError(MlopsMiniError):
    """What was asked for is not there."""

    code = 5


class AlreadyExistsError(MlopsMiniError):
    """What was to be made is there already."""

    code = 6


class PermissionDeniedError(MlopsMiniError):
    """Whoever asks may not have it."""

    code = 7


class ResourceExhaustedError(MlopsMiniError):
    """Disk, memory, queue or quota is full."""

    code = 8


class AbortedError(MlopsMiniError):
    """Something under way ended before its goal."""

    code = 10


class DeadlineExceededError(MlopsMiniError):
    """It took longer than allowed."""

    code = 4


class UnavailableError(MlopsMiniError):
    """Nobody answers, now; try again later."""

    code = 14


class HandshakeError(UnavailableError):
    """Somebody is there, but client and server do not fit, so trying again cannot help.

    The TLS that the client was given is not the server's, or the port is another protocol's.
    """


class UnimplementedError(MlopsMiniError):
    """Understood, but not offered."""

    code = 12


class InternalError(MlopsMiniError):
    """Our own fault, or the model's: the log says more."""

    code = 13


def by_code(code: int, message: str) -> MlopsMiniError:
    """Make the error of a canonical code, as a client does with a status from the wire.

    Args:
        code: Canonical gRPC status code; one without a class of its own gives a `MlopsMiniError`
            that carries it.
        message: The text to show.

    Returns:
        The error, not raised.

    >>> by_code(5, "Servable not found for request: Latest(m)")
    NotFoundError('Servable not found for request: Latest(m)')
    """
    for cls in MlopsMiniError.__subclasses__():
        if cls.code == code:
            return cls(message)
    error = MlopsMiniError(message)
    error.code = code
    return error
