"""A byte stream for asyncio."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING, Any, Optional, TypeVar

from bruit import _native
from bruit._bytestream import End, flat, said
from bruit._convert import Duration
from bruit.errors import TimeoutError, TooBigError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

# What one call of the library is given at most: it may have to be compressed, and the loop waits meanwhile.
_PART = 64 << 10

# Who never has to wait lets others run after so many bytes.
_TURN = 256 << 10

# As asyncio's own.
_LINE_MAX = 64 << 10

SelfStream = TypeVar("SelfStream", bound="ByteStream")


class ByteStream(End):
    """A byte stream to a member, both ways, in the manner of asyncio's own.

        async with await node.open_stream("b", topic="chat") as stream:
            await stream.write(b"hello\\n")
            print(await stream.readline())

    One task may read while another writes. The loop watches the stream's descriptors while somebody waits, and no thread is in
    between. What a cancelled read has taken is there for the next one. Errors are those of `bruit.ByteStream`.
    """

    def __init__(self, native: _native.Stream, timeout: Optional[Duration] = None) -> None:
        super().__init__(native, timeout)
        self._ahead = bytearray()
        """Taken from the library, and not returned yet."""
        self._awaited: set[int] = set()
        self._since_turn = 0
        self._is_closed = False
        self._closing: list[asyncio.Future[None]] = []

    # Reading.

    async def read(self, size: int = -1) -> bytes:
        """What there is, at least a byte and at most `size`; ``b""`` at the end. Without a size: all, to the end."""
        if size < 0:
            while part := await self._part(_PART):
                self._ahead += part
            return self._taken(len(self._ahead))
        if self._ahead or size == 0:
            return self._taken(size)
        return await self._part(size)

    async def readexactly(self, size: int) -> bytes:
        """So many bytes. `asyncio.IncompleteReadError` has the rest where the end comes first."""
        if size < 0:
            raise ValueError(f"readexactly: expected a size, not {size!r}")
        while (missing := size - len(self._ahead)) > 0:
            part = await self._part(missing)
            if not part:
                raise asyncio.IncompleteReadError(self._taken(size), size)
            self._ahead += part
        return self._taken(size)

    async def readline(self) -> bytes:
        """To the next newline, or to the end. `TooBigError` (a `ValueError`) where none comes for 64 KiB; nothing is lost."""
        seen = 0
        while (end := self._ahead.find(b"\n", seen)) < 0:
            seen = len(self._ahead)
            if seen >= _LINE_MAX:
                raise TooBigError(f"readline: no newline in {seen} bytes")
            part = await self._part(_LINE_MAX)
            if not part:
                return self._taken(seen)
            self._ahead += part
        return self._taken(end + 1)

    def __aiter__(self: SelfStream) -> SelfStream:
        """Line by line, as a file's."""
        return self

    async def __anext__(self) -> bytes:
        line = await self.readline()
        if not line:
            raise StopAsyncIteration
        return line

    def _taken(self, size: int) -> bytes:
        data = bytes(self._ahead[:size])
        del self._ahead[:size]
        return data

    async def _part(self, size: int) -> bytes:
        """What comes next. Nothing is awaited after it has been taken: that is what makes cancelling safe."""
        until = self._until()
        await self._others_turn()
        while (data := self._native.read(size, 0.0)) is None:
            await self._ready(self._native.read_fd(), until)
        self._since_turn += len(data)
        return data

    # Writing.

    async def write(self, data: ReadableBuffer) -> None:
        """All of it, no faster than the other side reads: see `bruit.ByteStream.write`. Cancelled, it has written some of it."""
        given, written, until = flat(data), 0, self._until()
        while written < len(given):
            await self._others_turn()
            count = self._native.write(given[written : written + _PART], 0.0)
            if count is not None:
                written += count
                self._since_turn += count
                continue
            try:
                await self._ready(self._native.write_fd(), until)
            except TimeoutError as error:
                error.characters_written = written
                raise

    def write_eof(self) -> None:
        """Nothing more comes from here: the other side reads to the end, and may go on writing."""
        self._native.shutdown()

    # Ending.

    def close(self) -> None:
        """End both ways; whoever waits in it gets a `StateError`. The other side still reads what was written before."""
        self._is_closed = True
        self._native.close()
        for waiter in self._closing:
            try:
                waiter.get_loop().call_soon_threadsafe(_resolve, waiter, None)
            except RuntimeError:
                pass  # That loop is closed.

    def fail(self, text: str) -> None:
        """End both ways as something that is not whole: see `bruit.ByteStream.fail`."""
        self._native.fail(text)
        self.close()

    def is_closing(self) -> bool:
        """Was it closed?"""
        return self._is_closed

    async def wait_closed(self) -> None:
        """Wait until it is closed, here."""
        if self._is_closed:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._closing.append(waiter)
        try:
            await waiter
        finally:
            self._closing.remove(waiter)

    async def __aenter__(self: SelfStream) -> SelfStream:
        return self

    async def __aexit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        if error is not None:
            self._native.fail(said(error))
        self.close()

    # Waiting.

    def _until(self) -> Optional[float]:
        return None if self._timeout is None else asyncio.get_running_loop().time() + self._timeout

    async def _others_turn(self) -> None:
        if self._since_turn >= _TURN:
            self._since_turn = 0
            await asyncio.sleep(0)

    async def _ready(self, descriptor: int, until: Optional[float]) -> None:
        loop = asyncio.get_running_loop()
        if descriptor in self._awaited:
            raise RuntimeError(f"{self!r} is being awaited by another task")
        ready = loop.create_future()
        self._awaited.add(descriptor)
        loop.add_reader(descriptor, _resolve, ready, True)
        timer = None if until is None else loop.call_at(until, _resolve, ready, False)
        try:
            in_time = await ready
        finally:
            self._awaited.discard(descriptor)
            loop.remove_reader(descriptor)
            if timer is not None:
                timer.cancel()
        self._since_turn = 0
        if not in_time:
            raise TimeoutError(f"{self!r}: nothing to read, or no room to write, within {self._timeout} s")


def _resolve(waiter: asyncio.Future[Any], value: object) -> None:
    if not waiter.done():
        waiter.set_result(value)
