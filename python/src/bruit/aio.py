"""bruit for asyncio: the same names; what waits is a coroutine.

    async with bruit.aio.Node("a", bind="127.0.0.1:0", seeds=[...]) as node:
        await node.wait_for(3, timeout=5)
        async for event in node.events():
            ...
        print((await node.request("b", b"2+3", topic="sum")).data)

Nothing here blocks the event loop, and events, messages and answers go from the library to the loop through a descriptor
that the loop watches, without a thread in between. Cancelling is safe everywhere: a cancelled wait for an event or a
message loses none, a cancelled `request` is cancelled in the library, and a cancelled `join`, `leave` or `stop` goes on by
itself, as after its `TimeoutError`; a cancelled `start` stops the node.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import weakref
from collections.abc import Awaitable, Iterable
from types import TracebackType
from typing import Any, Callable, Optional, TypeVar, Union, cast, overload

from bruit import _convert, _log, _message, _native
from bruit._aiostream import ByteStream
from bruit._bytestream import said
from bruit._convert import Duration, seconds
from bruit._message import Data, Message, Reply
from bruit._native import Members
from bruit._node import Handler, MessageHandler, NodeBase, Want, ended, not_in_time, satisfied
from bruit._stream import EventStream, MessageStream, Stream
from bruit.errors import BruitError, BusyError, TimeoutError
from bruit.events import Event, Kinds, Writable

__all__ = ["ByteStream", "EventStream", "MessageStream", "Node", "Subscription"]

SelfNode = TypeVar("SelfNode", bound="Node")
StreamHandler = Callable[[ByteStream], object]
Validator = Callable[[Message], Union[bool, Awaitable[bool]]]
T = TypeVar("T")


class Node(NodeBase):
    """One member of a cluster, for asyncio. Its arguments and methods are those of `bruit.Node`.

    ``async with`` starts it, and at the end leaves (for at most `leave_timeout`) and stops it, also after an exception or
    when its task is cancelled; after a `KeyboardInterrupt` it stops at once.
    """

    def _make(self) -> None:
        super()._make()
        # The tasks outlive the native node of before a start, as their streams do.
        self._handlers: set[asyncio.Task[None]] = getattr(self, "_handlers", set())
        self._asking: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Asking] = weakref.WeakKeyDictionary()

    async def start(self) -> Node:
        """As `bruit.Node.start`. Cancelled, it stops the node."""
        try:
            await _ended(self._starting())
        except BruitError:
            raise
        except BaseException:
            self._native.stop(0.0)
            raise
        self._started()
        return self

    async def join(self, addresses: Union[str, Iterable[str]], timeout: Optional[Duration] = None) -> int:
        """As `bruit.Node.join`. Cancelled, it goes on by itself."""
        return await _ended(self._native.join(_convert.addresses(addresses, "addresses"), seconds(timeout, "timeout")))

    async def leave(self, timeout: Optional[Duration] = 5.0) -> None:
        """As `bruit.Node.leave`. Cancelled, it goes on by itself."""
        await _ended(self._native.leave(seconds(timeout, "timeout")))

    async def stop(self, timeout: Optional[Duration] = 5.0) -> None:
        """As `bruit.Node.stop`. Streams end; a handler that still runs after the timeout is cancelled.

        Cancelled itself, it goes on by itself.
        """
        self._check_fork()
        loop = asyncio.get_running_loop()
        patience = seconds(timeout, "timeout")
        until = None if patience is None else loop.time() + patience
        stopping = self._native.stop(patience)
        self._quiet()
        await _ended(stopping)
        self._stopped()
        this = asyncio.current_task()
        if handlers := {task for task in self._handlers if task is not this and task.get_loop() is loop}:
            _, late = await asyncio.wait(handlers, timeout=None if until is None else max(0.0, until - loop.time()))
            for task in late:
                task.cancel()

    async def wait_for(self, want: Want, timeout: Optional[Duration] = None) -> Members:
        """As `bruit.Node.wait_for`."""
        loop = asyncio.get_running_loop()
        patience = seconds(timeout, "timeout")
        until = None if patience is None else loop.time() + patience
        with self.events(buffer=1) as changes:
            while True:
                members = self.members()
                if satisfied(want, members):
                    return members
                left = None if until is None else max(0.0, until - loop.time())
                if await changes.anext(left) is None:
                    raise ended(self) if changes.ended else not_in_time(want, members, timeout)

    @overload
    def on_event(self, fn: Handler, *, kinds: Kinds = None) -> Subscription: ...
    @overload
    def on_event(self, fn: None = None, *, kinds: Kinds = None) -> Callable[[Handler], Subscription]: ...
    def on_event(
        self, fn: Optional[Handler] = None, *, kinds: Kinds = None
    ) -> Union[Subscription, Callable[[Handler], Subscription]]:
        """Call ``fn(event)`` in this event loop for every event of these kinds; await what it returns, if that can be.

        A handler's calls come one after another, each when the one before has ended. What it raises is logged, never fatal.
        A node with a handler lives until it is stopped, or its last handler canceled, also when nobody holds it any more.
        """
        if fn is None:
            return lambda given: self.on_event(given, kinds=kinds)
        if not callable(fn):
            raise TypeError(f"on_event: expected a callable, not {fn!r}")
        return self._subscribed(Subscription(fn, self.events(kinds=kinds)))

    def _subscribed(self, subscription: Subscription) -> Subscription:
        self._handlers.add(subscription._task)
        subscription._task.add_done_callback(self._handlers.discard)
        return subscription

    async def send(
        self,
        to: str,
        data: Data,
        *,
        topic: str = "",
        reliable: bool = False,
        receipt: bool = False,
        timeout: Optional[Duration] = None,
    ) -> Optional[int]:
        """As `bruit.Node.send`. Cancelled while it waits for room, it has sent nothing."""

        return await self._patiently(lambda: self._native.send(to, data, topic, reliable, receipt, 0.0), timeout)

    async def broadcast(
        self,
        data: Data,
        *,
        topic: str = "",
        loopback: bool = False,
        ordered: bool = False,
        timeout: Optional[Duration] = None,
    ) -> int:
        """As `bruit.Node.broadcast`. Cancelled while it waits for room, it has said nothing."""
        return await self._patiently(lambda: self._native.broadcast(data, topic, loopback, ordered, 0.0), timeout)

    async def _patiently(self, now: Callable[[], T], timeout: Optional[Duration]) -> T:
        """Send when there is room."""
        patience = _convert.patience(timeout)
        try:
            return now()
        except BusyError:
            if patience == 0:
                raise
        loop = asyncio.get_running_loop()
        until = None if patience is None else loop.time() + patience
        with self.events(kinds=Writable) as room:
            while True:
                try:
                    return now()
                except BusyError:
                    left = None if until is None else max(0.0, until - loop.time())
                    if left == 0:
                        raise
                # Of this member or another one; or the node has stopped, which the next try finds.
                await room.anext(left)

    async def request(self, to: str, data: Data, *, topic: str = "", timeout: Optional[Duration] = 1.0) -> Reply:
        """As `bruit.Node.request`. Cancelled, the request is as well; the member may act on it all the same."""
        patience = seconds(timeout, "timeout")
        loop = asyncio.get_running_loop()
        with self._lock:
            asking = self._asking.get(loop) or self._asking.setdefault(loop, _Asking())
        return Reply(await asking.ask(self._native, to, data, topic, patience), to, topic)

    @overload
    def on_message(self, what: MessageHandler, *, topic: Optional[str] = None) -> Subscription: ...
    @overload
    def on_message(self, what: str, fn: MessageHandler) -> Subscription: ...
    @overload
    def on_message(self, what: str, fn: None = None) -> Callable[[MessageHandler], Subscription]: ...
    @overload
    def on_message(self, what: None = None, *, topic: Optional[str] = None) -> Callable[[MessageHandler], Subscription]: ...
    def on_message(self, what: Any = None, fn: Any = None, *, topic: Optional[str] = None) -> Any:
        """As `bruit.Node.on_message`, in this event loop: what the handler returns is awaited, if that can be.

        A handler's calls come one after another, each when the one before has ended; one that takes its time should begin a
        task, which answers with `Message.reply`. Several handlers do not wait for each other.
        """
        topic, handler = _message.topic_and_handler(what, fn, topic)
        if handler is None:
            return lambda given: self.on_message(given, topic=topic)
        return self._subscribed(Subscription(handler, self.messages(topic)))

    @overload
    def on_validate(self, what: Validator, *, topic: Optional[str] = None) -> Subscription: ...
    @overload
    def on_validate(self, what: str, fn: Validator) -> Subscription: ...
    @overload
    def on_validate(self, what: str, fn: None = None) -> Callable[[Validator], Subscription]: ...
    @overload
    def on_validate(self, what: None = None, *, topic: Optional[str] = None) -> Callable[[Validator], Subscription]: ...
    def on_validate(self, what: Any = None, fn: Any = None, *, topic: Optional[str] = None) -> Any:
        """As `bruit.Node.on_validate`, in this event loop: the verdict is awaited, if that can be.

        One message is judged after the other. A call that is cancelled, by `Subscription.cancel` or by itself, accepts.
        """
        topic, handler = _message.topic_and_handler(what, fn, topic)
        if handler is None:
            return lambda given: self.on_validate(given, topic=topic)
        return self._subscribed(_Validation(handler, _Judged(self, topic)))

    async def open_stream(
        self, member: str, topic: str = "", *, compress: bool = False, timeout: Optional[Duration] = None
    ) -> ByteStream:
        """As `bruit.Node.open_stream`; what it returns is read and written with ``await``."""
        patience = seconds(timeout, "timeout")
        return ByteStream(self._native.open_stream(member, topic, compress), patience)

    @overload
    def on_stream(self, what: StreamHandler, *, topic: Optional[str] = None) -> Subscription: ...
    @overload
    def on_stream(self, what: str, fn: StreamHandler) -> Subscription: ...
    @overload
    def on_stream(self, what: str, fn: None = None) -> Callable[[StreamHandler], Subscription]: ...
    @overload
    def on_stream(self, what: None = None, *, topic: Optional[str] = None) -> Callable[[StreamHandler], Subscription]: ...
    def on_stream(self, what: Any = None, fn: Any = None, *, topic: Optional[str] = None) -> Any:
        """Call ``fn(stream)`` in this event loop for each `ByteStream` that a member opens under a topic, or under all (``"*"``).

            @node.on_stream("echo")
            async def echo(stream):
                async for line in stream:
                    await stream.write(line)

        Each call is a task of its own, as asyncio's servers have it: one does not wait for another. The stream is the
        handler's own, and closes when nobody refers to it any more; what the handler raises fails it (`ByteStream.fail`).
        `Subscription.cancel` ends no call that is under way; `stop` waits for them, and cancels those that are late.
        """
        topic, handler = _message.topic_and_handler(what, fn, topic)
        if handler is None:
            return lambda given: self.on_stream(given, topic=topic)
        return self._subscribed(_StreamSubscription(handler, _Opened(self, topic), self._handlers))

    async def __aenter__(self: SelfNode) -> SelfNode:
        if self._native.state == 0:
            await self.start()
        return self

    async def __aexit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        try:
            if self._native.state == 1 and not (kind is not None and issubclass(kind, KeyboardInterrupt)):
                try:
                    await self.leave(self._leave_timeout)
                except BruitError as failed:
                    _log.say(logging.INFO, "%s: %s", self.name, failed)
        except BaseException:
            # Cancelled a second time: go without another await.
            self._native.stop(0.0)
            self._quiet()
            self._stopped()
            raise
        try:
            await self.stop(5.0)
        except TimeoutError as failed:
            if error is None:
                raise
            _log.say(logging.WARNING, "%s", failed)


class Subscription:
    """A handler's registration: a task in the event loop that reads a stream. Calling it calls the handler."""

    def __init__(self, fn: Handler, stream: Stream[Any]) -> None:
        self._fn = fn
        self._stream = stream
        self._task = asyncio.get_running_loop().create_task(self._run())

    def __call__(self, what: Any) -> object:
        return self._fn(what)

    def __repr__(self) -> str:
        return f"<bruit.aio.Subscription of {self._fn!r}{'' if self.active else ', ended'}>"

    @property
    def active(self) -> bool:
        """False once canceled, or when the node has stopped."""
        return not self._task.done()

    def cancel(self) -> None:
        """Hear no more; a call that is under way is cancelled, unless this is it."""
        self._stream.close()
        if self._task is not asyncio.current_task():
            self._task.cancel()

    async def _run(self) -> None:
        while (what := await self._stream.anext()) is not None:
            await self._call(what)
            # Or the last one would stay alive until the next one comes: a request would wait for its answer.
            del what

    async def _call(self, what: Union[Event, Message, ByteStream]) -> None:
        try:
            outcome = self._fn(what)
            if inspect.isawaitable(outcome):
                outcome = await outcome
            if isinstance(what, Message):
                _message.answer(what, outcome)
        except Exception as error:
            _log.say(logging.ERROR, "handler %r failed on %r", self._fn, what, trace=True)
            if isinstance(what, Message):
                _message.fail(what, error)
            elif isinstance(what, ByteStream):
                what.fail(said(error))


class _Judged(Stream[Message]):
    """What others broadcast under a topic, before it goes on."""

    def __init__(self, node: NodeBase, topic: str) -> None:
        self._topic = topic
        super().__init__(node, None)

    def _open(self, native: _native.Node) -> _native.Queue:
        return native.validation_queue(self._topic)

    def _made(self, item: Any) -> Message:
        return cast(Message, item)


class _Validation(Subscription):
    """What its calls return is a verdict."""

    async def _call(self, message: Any) -> None:
        # Who does not come to an end has not rejected it.
        accepted = True
        try:
            verdict = self._fn(message)
            if inspect.isawaitable(verdict):
                verdict = await verdict
            accepted = _message.verdict(verdict)
        except Exception:
            accepted = False
            _log.say(logging.ERROR, "handler %r failed on %r", self._fn, message, trace=True)
        finally:
            _message.judge(message, accepted)


class _Opened(Stream[ByteStream]):
    """The streams that members open under a topic."""

    def __init__(self, node: NodeBase, topic: str) -> None:
        self._topic = topic
        super().__init__(node, None)

    def _open(self, native: _native.Node) -> _native.Queue:
        return native.stream_queue(self._topic)

    def _made(self, item: Any) -> ByteStream:
        return ByteStream(item)


class _StreamSubscription(Subscription):
    """Its calls do not wait for each other."""

    def __init__(self, fn: Handler, stream: _Opened, running: set[asyncio.Task[None]]) -> None:
        self._calls = running
        super().__init__(fn, stream)

    async def _run(self) -> None:
        while (stream := await self._stream.anext()) is not None:
            call = asyncio.get_running_loop().create_task(self._call(stream))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)
            # Or it would stay open until the next one comes.
            del stream, call


class _Asking:
    """The requests of one event loop that wait for their answers: one descriptor for all of them."""

    def __init__(self) -> None:
        self._answers = _native.Answers()
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._asked = 0

    async def ask(self, native: _native.Node, to: str, data: Data, topic: str, timeout: Optional[float]) -> bytes:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bytes] = loop.create_future()
        self._asked += 1
        token = self._asked
        if not self._waiting:
            # What came after its asker was cancelled.
            self._answers.take()
            loop.add_reader(self._answers.fileno(), self._come)
        self._waiting[token] = answer
        try:
            request = native.request_start(to, data, topic, timeout, self._answers, token)
            try:
                return await answer
            except asyncio.CancelledError:
                with contextlib.suppress(BruitError):
                    native.cancel(request)
                raise
        finally:
            del self._waiting[token]
            if not self._waiting:
                loop.remove_reader(self._answers.fileno())

    def _come(self) -> None:
        for token, answer in self._answers.take():
            waiter = self._waiting.get(token)
            if waiter is None or waiter.done():
                continue
            if isinstance(answer, bytes):
                waiter.set_result(answer)
            else:
                waiter.set_exception(answer)


async def _ended(pending: _native.Pending) -> int:
    """Wait for a call that is under way on a thread of the library; the loop watches its descriptor."""
    loop = asyncio.get_running_loop()
    if not pending.wait(0.0):
        done = loop.create_future()
        loop.add_reader(pending.fileno(), _resolve, done)
        try:
            await done
        finally:
            loop.remove_reader(pending.fileno())
        # The result is stored before the descriptor tells of it.
    return pending.result()


def _resolve(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)
