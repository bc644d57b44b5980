"""A byte stream as a file, for threads; and what it has in common with that for asyncio."""

from __future__ import annotations

import io
import time
from types import TracebackType
from typing import TYPE_CHECKING, Optional, Union

from bruit import _native
from bruit._convert import Duration, seconds
from bruit.errors import TimeoutError

if TYPE_CHECKING:
    from _typeshed import MaybeNone, ReadableBuffer, WriteableBuffer

# What one call of the library is given at most.
_PART = 256 << 10


class End:
    """What both kinds have in common."""

    def __init__(self, native: _native.Stream, timeout: Optional[Duration]) -> None:
        self._native = native
        self.timeout = timeout

    @property
    def timeout(self) -> Optional[float]:
        """How many seconds one call may wait; None: for ever. May be set, also as a `timedelta` or a text such as "200ms"."""
        return self._timeout

    @timeout.setter
    def timeout(self, timeout: Optional[Duration]) -> None:
        self._timeout = seconds(timeout, "timeout")

    @property
    def peer(self) -> str:
        """The name of the member at the other end."""
        return self._native.peer

    @property
    def topic(self) -> str:
        """Under which topic it was opened."""
        return self._native.topic

    @property
    def is_compressed(self) -> bool:
        """Does what is written at either end travel compressed?"""
        return self._native.is_compressed

    def __repr__(self) -> str:
        return f"<bruit byte stream {self.topic!r} with {self.peer}>"


class ByteStream(End, io.RawIOBase):
    """A byte stream to a member, both ways: a raw binary file that cannot seek.

        with node.open_stream("b", topic="copy") as stream, open("data", "rb") as file:
            shutil.copyfileobj(file, stream)

    Wrap it in `io.BufferedReader` to read lines or exact sizes, in `io.TextIOWrapper` over `io.BufferedRWPair` for text.
    One thread may read while another writes.

    What ends it is raised after what came before was read: `UnreachableError` where the member is dead or has left,
    `NoHandlerError` where nobody takes streams of this topic there, `LimitError` where it has too many; `CanceledError`
    where the other side has closed it and this one writes, or where this node was stopped; `RemoteError` where the other side
    has failed it; `CorruptError` for what is no compressed block. `StateError` for a stream that was closed here, and for
    writing after `write_eof`. `TimeoutError` where `timeout` is over; with a `timeout` of 0 what would wait returns None,
    as of any raw file.
    """

    def __init__(self, native: _native.Stream, timeout: Optional[Duration] = None) -> None:
        io.RawIOBase.__init__(self)
        End.__init__(self, native, timeout)

    def readable(self) -> bool:
        """True."""
        return True

    def writable(self) -> bool:
        """True, also after `write_eof`."""
        return True

    def read(self, size: Optional[int] = -1, /) -> Union[bytes, MaybeNone]:
        """What there is, at least a byte and at most `size`; ``b""`` at the end. Without a size: all, to the end."""
        if size is None or size < 0:
            return self.readall()
        return self._native.read(size, self._timeout)

    def readinto(self, buffer: WriteableBuffer, /) -> Union[int, MaybeNone]:
        """The same into a buffer: how many bytes, 0 at the end."""
        view = memoryview(buffer).cast("B")
        data = self._native.read(len(view), self._timeout)
        if data is None:
            return None
        view[: len(data)] = data
        return len(data)

    def readall(self) -> Union[bytes, MaybeNone]:
        """All, to the end."""
        parts: list[bytes] = []
        while data := self._native.read(_PART, self._timeout):
            parts.append(data)
        return b"".join(parts) if parts or data is not None else None

    def write(self, data: ReadableBuffer, /) -> Union[int, MaybeNone]:
        """All of it; it is copied. How many bytes that were.

        No faster than the other side reads: what has come there and is not read is bounded (`stream_window`). Where `timeout` is
        over first, the `TimeoutError` has `characters_written`; with a `timeout` of 0 less may be written than was given.
        """
        given, written = flat(data), 0
        left = self._timeout
        # 0 is not at all, None for ever.
        until = time.monotonic() + left if left else None
        while written < len(given):
            if until is not None:
                left = max(0.001, until - time.monotonic())
            try:
                count = self._native.write(given[written : written + _PART], left)
            except TimeoutError as error:
                error.characters_written = written
                raise
            if count is None:
                return written or None
            written += count
        return written

    def write_eof(self) -> None:
        """Nothing more comes from here: the other side reads to the end, and may go on writing."""
        self._native.shutdown()

    def close(self) -> None:
        """End both ways; whoever waits in it gets a `StateError`. The other side still reads what was written before."""
        if not self.closed:
            self._native.close()
            super().close()

    def fail(self, text: str) -> None:
        """End both ways as something that is not whole: who reads or writes there gets a `RemoteError` with this text,
        after what came before. Leaving a ``with`` block by an exception does so.
        """
        self._native.fail(text)
        self.close()

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        if error is not None:
            self._native.fail(said(error))
        self.close()

    def read_fd(self) -> int:
        """For `select` and its like: readable while `read` would not wait. Never read or close it; it closes with the stream."""
        return self._native.read_fd()

    def write_fd(self) -> int:
        """The same for `write`: *readable* while it would not wait."""
        return self._native.write_fd()


def said(error: BaseException) -> str:
    """For the other side."""
    return f"{type(error).__name__}: {error}"


def flat(data: ReadableBuffer) -> Union[bytes, memoryview]:
    """Byte after byte, so that pieces can be cut from it; where that is possible, without a copy."""
    if isinstance(data, bytes):
        return data
    view = memoryview(data)
    return view.cast("B") if view.c_contiguous and view.nbytes else memoryview(view.tobytes())
