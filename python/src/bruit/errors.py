"""The exceptions of bruit: one class for each error code of the library, all under `BruitError`.

Each is also the built-in exception that people expect, so that ``except TimeoutError`` or ``except OSError`` does what
it says. `code` is the number that the C interface uses for the same error (`BruitError.codes()` lists them all), and
`errno` the operating system's number where there is one. Unless a call's documentation says otherwise, a call that
raised has changed nothing; after a `TimeoutError` the work may go on.
"""

from __future__ import annotations

import builtins
import errno as _errno
from typing import Any, ClassVar, Optional

__all__ = [
    "AddressError",
    "AuthError",
    "BruitError",
    "BufferError",
    "BusyError",
    "CanceledError",
    "CorruptError",
    "DeadlockError",
    "FailedError",
    "ForkedError",
    "HandleError",
    "InvalidError",
    "IoError",
    "LimitError",
    "NoHandlerError",
    "NoQuorumError",
    "NoReplyError",
    "NotFoundError",
    "PanicError",
    "RefusedError",
    "RemoteError",
    "StateError",
    "TimeoutError",
    "TooBigError",
    "UnreachableError",
]


class BruitError(Exception):
    """What every exception of bruit is. `str()` of it says what was wrong and what was expected."""

    code: ClassVar[int] = 0
    """The number of this error in the C interface: negative, never reused. 0 for the base class."""

    name: ClassVar[str] = ""
    """Its name there: ``"E_TIMEOUT"``."""

    errno: Optional[int]
    """The operating system's number (`errno.EADDRINUSE`, …), or None."""

    _default_errno: ClassVar[Optional[int]] = None

    def __init__(self, text: str = "", errno: Optional[int] = None) -> None:
        super().__init__(text)
        self.text = text
        self.errno = errno or self._default_errno

    def __str__(self) -> str:
        return self.text

    def __reduce__(self) -> Any:
        return (type(self), (self.text, self.errno))

    @staticmethod
    def codes() -> dict[int, type[BruitError]]:
        """The class of each error code."""
        return dict(_BY_CODE)


class InvalidError(BruitError, ValueError):
    """An argument is out of range or malformed."""

    code = -1
    name = "E_INVALID"


class HandleError(BruitError, RuntimeError):
    """The object has been freed."""

    code = -2
    name = "E_HANDLE"


class StateError(BruitError, RuntimeError):
    """Not possible in this state: before `start`, after `stop`, or an option that cannot change while running."""

    code = -3
    name = "E_STATE"


class DeadlockError(BruitError, RuntimeError):
    """Called in a callback of the same node, where it would wait for itself."""

    code = -4
    name = "E_DEADLOCK"


class ForkedError(BruitError, RuntimeError):
    """The node was started by another process. A forked child cannot use it; it can make a node of its own."""

    code = -5
    name = "E_FORKED"


class TimeoutError(BruitError, builtins.TimeoutError):  # noqa: A001
    """Not finished in time. The work may go on, or may have happened."""

    code = -6
    name = "E_TIMEOUT"
    _default_errno = _errno.ETIMEDOUT
    characters_written: int
    """Of a write to a byte stream: how much was written in time. As `BlockingIOError` has it."""


class BufferError(BruitError, builtins.BufferError):  # noqa: A001
    """A buffer is too small."""

    code = -7
    name = "E_BUFFER"


class TooBigError(BruitError, ValueError):
    """Larger than the limit."""

    code = -8
    name = "E_TOO_BIG"


class NotFoundError(BruitError, LookupError):
    """No such thing."""

    code = -9
    name = "E_NOT_FOUND"


class AddressError(BruitError, OSError, ValueError):
    """Not an address, or a host name that does not resolve."""

    code = -10
    name = "E_ADDRESS"


class IoError(BruitError, OSError):
    """The operating system refused; `errno` says why (`EADDRINUSE`, `EACCES`, …)."""

    code = -11
    name = "E_IO"


class AuthError(BruitError, PermissionError):
    """A key is missing or wrong."""

    code = -12
    name = "E_AUTH"
    _default_errno = _errno.EACCES


class BusyError(BruitError, BlockingIOError):
    """No room, or another thread is at it; try again."""

    code = -13
    name = "E_BUSY"
    _default_errno = _errno.EAGAIN


class RefusedError(BruitError, ConnectionRefusedError):
    """The cluster refused this node: its name is in use, or its version is not accepted."""

    code = -14
    name = "E_REFUSED"
    _default_errno = _errno.ECONNREFUSED


class NoQuorumError(BruitError, RuntimeError):
    """Too few members can be reached."""

    code = -15
    name = "E_NO_QUORUM"


class CorruptError(BruitError, OSError):
    """Stored data is damaged."""

    code = -16
    name = "E_CORRUPT"


class FailedError(BruitError, RuntimeError):
    """The node has failed: every call raises this. Make a new one."""

    code = -17
    name = "E_FAILED"


class PanicError(BruitError, RuntimeError):
    """A bug in bruit; the node is unusable."""

    code = -18
    name = "E_PANIC"


class NoHandlerError(BruitError, LookupError):
    """Nobody listens to that topic there."""

    code = -19
    name = "E_NO_HANDLER"


class UnreachableError(BruitError, ConnectionError):
    """The member is dead or has left."""

    code = -20
    name = "E_UNREACHABLE"
    _default_errno = _errno.EHOSTUNREACH


class CanceledError(BruitError, RuntimeError):
    """Canceled by the caller, or because the node stopped."""

    code = -21
    name = "E_CANCELED"


class RemoteError(BruitError, RuntimeError):
    """The other side's handler failed."""

    code = -22
    name = "E_REMOTE"


class NoReplyError(BruitError, RuntimeError):
    """The other side's handler did not reply."""

    code = -23
    name = "E_NO_REPLY"


class LimitError(BruitError, RuntimeError):
    """A configured limit is reached."""

    code = -24
    name = "E_LIMIT"


_BY_CODE: dict[int, type[BruitError]] = {
    cls.code: cls for cls in list(globals().values()) if isinstance(cls, type) and issubclass(cls, BruitError) and cls.code
}


def from_code(code: int, text: str, errno: int = 0) -> BruitError:
    """The exception for an error code of the library. Codes that this version does not know become `BruitError`."""
    return _BY_CODE.get(code, BruitError)(text, errno or None)
