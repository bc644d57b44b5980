"""A node's events, or messages, as an iterator, for ``for`` and for ``async for``."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any, Callable, Generic, Optional, TypeVar

from bruit import _native
from bruit._convert import Duration, seconds
from bruit._message import Gathered, Reply
from bruit._native import Message
from bruit.events import Event, Kinds, from_raw, mask

if TYPE_CHECKING:
    import asyncio

    from bruit._node import NodeBase

KIND_BITS: dict[str, int] = _native.event_kinds()


T = TypeVar("T")
S = TypeVar("S", bound="Stream[Any]")


class Stream(Generic[T]):
    """What `EventStream` and `MessageStream` have in common."""

    def __init__(self, node: NodeBase, timeout: Optional[Duration]) -> None:
        self._node = node
        self._timeout = seconds(timeout, "timeout")
        self._lock = threading.RLock()
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._waiters: set[asyncio.Future[bool]] = set()
        self._pid = os.getpid()
        self._queue = self._attached()

    def _open(self, native: _native.Node) -> _native.Queue:
        raise NotImplementedError

    def _made(self, item: Any) -> T:
        """Of what the queue gives."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<bruit.{type(self).__name__} of {self._node!r}>"

    def _attached(self) -> _native.Queue:
        queue = self._open(self._node._native)
        with self._node._lock:
            self._node._streams.add(self)
        return queue

    def _reattach(self) -> None:
        """The node's native part is another one than it was. Whoever waits goes on waiting, for what the new one has."""
        queue = self._attached()
        if self._pid != os.getpid():
            # Whoever waited did so in the parent, in a loop whose descriptors are still the parent's too.
            self._pid, self._lock, self._loop, self._waiters = os.getpid(), threading.RLock(), None, set()
        with self._lock:
            old, self._queue = self._queue, queue
            loop = self._loop if self._waiters else None
        if loop is not None:
            self._in_loop(loop, self._moved, loop, old)

    @property
    def ended(self) -> bool:
        """Closed, or the node has stopped. What came before a stop can still be read."""
        return self._queue.ended

    def close(self) -> None:
        """End the stream; whoever waits in it is woken. What was not read is dropped."""
        self._queue.close()
        if self._node._pid == os.getpid():
            self._poke()

    def __enter__(self: S) -> S:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self: S) -> S:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    # Threads: the wait happens in the native queue, without the GIL, and notices Ctrl-C.

    def __iter__(self: S) -> S:
        return self

    def __next__(self) -> T:
        item = self._next(self._timeout)
        if item is None:
            raise StopIteration
        return item

    def next(self, timeout: Optional[Duration] = None) -> Optional[T]:
        """The next one, or None after `timeout` (None: wait for ever) or when the stream has ended."""
        return self._next(seconds(timeout, "timeout"))

    def _next(self, timeout: Optional[float]) -> Optional[T]:
        while True:
            queue = self._queue
            item = queue.next(timeout)
            if item is not None:
                return self._made(item)
            if queue is self._queue:
                return None

    # asyncio: the loop watches the queue's descriptor itself, so no thread is in between.

    def __aiter__(self: S) -> S:
        return self

    async def __anext__(self) -> T:
        item = await self.anext(self._timeout)
        if item is None:
            raise StopAsyncIteration
        return item

    async def anext(self, timeout: Optional[Duration] = None) -> Optional[T]:
        """As `next`, for coroutines. Cancelling it loses nothing."""
        import asyncio

        loop = asyncio.get_running_loop()
        patience = seconds(timeout, "timeout")
        until = None if patience is None else loop.time() + patience
        while True:
            # No await between taking one and returning it: that is what makes cancelling safe.
            queue = self._queue
            ended = queue.ended
            item = queue.try_next()
            if item is not None:
                return self._made(item)
            if queue is self._queue and (ended or not await self._readable(loop, until)):
                return None

    async def _readable(self, loop: asyncio.AbstractEventLoop, until: Optional[float]) -> bool:
        """Wait until something may be there; False when `until` has passed."""
        waiter: asyncio.Future[bool] = loop.create_future()
        self._watch(loop, waiter)
        timer = None if until is None else loop.call_at(until, _resolve, waiter, False)
        try:
            return await waiter
        finally:
            if timer is not None:
                timer.cancel()
            self._unwatch(loop, waiter)

    def _watch(self, loop: asyncio.AbstractEventLoop, waiter: asyncio.Future[bool]) -> None:
        with self._lock:
            if self._waiters and self._loop is not loop:
                raise RuntimeError(f"this {type(self).__name__} is being awaited in another event loop")
            self._loop = loop
            self._waiters.add(waiter)
        loop.add_reader(self._queue.fileno(), self._wake)
        if self._queue.ended:
            self._wake()

    def _unwatch(self, loop: asyncio.AbstractEventLoop, waiter: asyncio.Future[bool]) -> None:
        with self._lock:
            self._waiters.discard(waiter)
            idle = not self._waiters
        if idle:
            loop.remove_reader(self._queue.fileno())

    def _wake(self) -> None:
        """In the loop: let every waiter look again. The descriptor stays readable until they have, so it goes unwatched."""
        with self._lock:
            waiters, loop = list(self._waiters), self._loop
        if loop is not None:
            loop.remove_reader(self._queue.fileno())
        for waiter in waiters:
            _resolve(waiter, True)

    def _moved(self, loop: asyncio.AbstractEventLoop, old: _native.Queue) -> None:
        """In the loop: that queue is not read any more.

        It lives until here, because a closed descriptor cannot be taken from a loop, and its number may soon be another's.
        """
        loop.remove_reader(old.fileno())
        self._wake()

    def _poke(self) -> None:
        """From any thread: the node stopped or the stream was closed, which the descriptor does not tell."""
        with self._lock:
            loop = self._loop if self._waiters else None
        if loop is not None:
            self._in_loop(loop, self._wake)

    def _in_loop(self, loop: asyncio.AbstractEventLoop, call: Callable[..., None], *arguments: object) -> None:
        try:
            loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:
            pass  # The loop is closed, and with it everybody who waited there.


class EventStream(Stream[Event]):
    """The events of one node, in order, from the moment it was made.

    Iterate it with ``for`` or with ``async for``. It ends when the node has stopped or failed and everything before
    that was read (having left is no end: `Node.stop` follows); when it was closed; or after `timeout` without an event,
    and then it can be iterated again.
    Up to `buffer` events wait in it. A reader that is slower than that gets an `EventsLost` with the number dropped
    (whatever `kinds` it asked for), and should look at `Node.members`.

    Nothing is lost by cancelling an ``__anext__``: an event is only taken from the stream when it is returned.
    """

    def __init__(self, node: NodeBase, kinds: Kinds, timeout: Optional[Duration], buffer: int) -> None:
        self._bits = mask(kinds, KIND_BITS)
        self._buffer = buffer
        super().__init__(node, timeout)

    def _open(self, native: _native.Node) -> _native.Queue:
        return native.queue(self._bits, self._buffer)

    def _made(self, item: Any) -> Event:
        return from_raw(item)


class MessageStream(Stream[Message]):
    """The messages that a node gets under one topic, or under all, from the moment it was made.

    Iterate it with ``for`` or with ``async for``; it ends as an `EventStream` does. Nothing is lost by cancelling an
    ``__anext__``. A slow reader makes the senders of reliable messages and of requests wait; of best-effort messages
    and broadcasts those that wait longest are dropped (`inbox_bytes`): `lost` says how many.

    Requests come as well: whoever reads one answers it, with `Message.reply` or `Message.fail`.
    """

    def __init__(self, node: NodeBase, topic: str, timeout: Optional[Duration]) -> None:
        self._topic = topic
        super().__init__(node, timeout)

    def _open(self, native: _native.Node) -> _native.Queue:
        return native.message_queue(self._topic)

    @property
    def lost(self) -> int:
        """How many messages were dropped so far, because this stream was read too slowly."""
        return self._queue.lost

    def _made(self, item: Any) -> Message:
        message: Message = item
        return message


class Query(Stream[Reply]):
    """A question to many: an iterator of the answers, for ``for`` and for ``async for``, in the order in which they come.

    It ends when all who were asked have answered or are gone, or when the time is over; `gathered` says then how. A member
    that does not answer is a `Reply` with an `error`. `close`, or the end of a ``with``, gives the question up.
    """

    def __init__(self, node: NodeBase, topic: str, query: _native.Query) -> None:
        self._topic = topic
        self._query = query
        super().__init__(node, None)

    def _open(self, native: _native.Node) -> Any:
        return self._query

    def _made(self, item: Any) -> Reply:
        sender, data, error = item
        return Reply(data, sender, self._topic, error)

    @property
    def heard(self) -> list[str]:
        """Members that have said that they heard the question (`acks`), as far as was read."""
        return self._query.heard()

    @property
    def gathered(self) -> Optional[Gathered]:
        """How it ended; None while it has not, and where the node was stopped first."""
        told = self._query.gathered()
        return None if told is None else Gathered(*told[:4], in_time=told[4] == 0)


def _resolve(waiter: asyncio.Future[Any], value: bool) -> None:
    if not waiter.done():
        waiter.set_result(value)
