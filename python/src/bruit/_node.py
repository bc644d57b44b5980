"""The node: one member of a cluster, in this process."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from types import TracebackType
from typing import Any, Callable, NamedTuple, Optional, TypeVar, Union, overload

from bruit import _convert, _log, _message, _native
from bruit._bytestream import ByteStream, said
from bruit._convert import Duration, Key, MetaValue, OptionValue, seconds
from bruit._message import ALL_TOPICS, Data, Message, Reply, Sent
from bruit._native import Member, Members
from bruit._states import NODE_STATES, NodeState
from bruit._stream import KIND_BITS, EventStream, MessageStream, Query, Stream
from bruit.errors import BruitError, DeadlockError, ForkedError, InvalidError, NotFoundError, StateError, TimeoutError
from bruit.events import Event, EventsLost, Kinds, Raw, from_raw, mask

__all__ = ["Meta", "Node", "Subscription"]

SelfNode = TypeVar("SelfNode", bound="Node")
Handler = Callable[[Any], object]
Validator = Callable[[Message], bool]
MessageHandler = Callable[[Message], object]
StreamHandler = Callable[[ByteStream], object]
H = TypeVar("H", bound=Handler)

Want = Union[int, Callable[[Members], object]]
"""What `wait_for` waits for: that many alive members, or a question about `Members` with the answer yes."""

# How long the exit of the interpreter may wait for one node, or for one callback that runs.
_EXIT_SECONDS = 2.0


class Meta(MutableMapping[str, str]):
    """What a node tells the cluster about itself: ``node.meta["role"] = "db"``.

    Values are text, or bytes that come back as text with surrogate escapes (`Member.meta_bytes` has them as they are).
    All keys and values together fit in 64 KiB; what is small travels fastest. Each assignment is one update that every
    member hears of; `update` makes one update of several changes.
    """

    def __init__(self, node: NodeBase) -> None:
        self._node = node

    def _now(self) -> Mapping[str, str]:
        return self._node.local.meta if self._node.state is not NodeState.NEW else self._node._early_meta()

    def __getitem__(self, key: str) -> str:
        return self._now()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._now())

    def __len__(self) -> int:
        return len(self._now())

    def __repr__(self) -> str:
        return f"Meta({dict(self._now())!r})"

    def __setitem__(self, key: str, value: MetaValue) -> None:
        if value is None:
            raise TypeError(f"meta[{key!r}]: expected str or bytes; use del, or update({key}=None)")
        self.update({key: value})

    def __delitem__(self, key: str) -> None:
        if key not in self._now():
            raise KeyError(key)
        self.update({key: None})

    def update(  # type: ignore[override]
        self,
        changes: Union[Mapping[str, Optional[MetaValue]], Iterable[tuple[str, Optional[MetaValue]]]] = (),
        /,
        **more: Optional[MetaValue],
    ) -> None:
        """Set several at once, as one update; None deletes. `TooBigError` where it does not fit: nothing changed."""
        merged = {**dict(changes), **more}
        if merged:
            self._node._set_meta(
                [(key, None if value is None else _convert.meta_value(key, value)) for key, value in merged.items()]
            )

    def clear(self) -> None:
        """Delete all, as one update."""
        self.update({key: None for key in self._now()})


class Subscription:
    """A handler's registration, as `on_event`, `on_message` and their like return it.

    Calling it calls the handler, so it can be a decorator's result.
    """

    def __init__(
        self,
        callbacks: _Callbacks,
        fn: Handler,
        *,
        kinds: int = 0,
        topic: Optional[str] = None,
        judges: Optional[str] = None,
        streams: Optional[str] = None,
    ) -> None:
        self._callbacks = callbacks
        self._fn = fn
        self._kinds = kinds
        self._topic = topic
        self._judges = judges
        self._streams = streams
        self._active = True

    def __call__(self, what: Any) -> object:
        return self._fn(what)

    def __repr__(self) -> str:
        return f"<bruit.Subscription of {self._fn!r}{'' if self._active else ', canceled'}>"

    @property
    def active(self) -> bool:
        """False once canceled."""
        return self._active

    def cancel(self) -> None:
        """Hear no more. After it has returned the handler does not run: a call that runs on another thread is waited for.

        Inside the handler itself it returns at once. Again is allowed.
        """
        self._callbacks.cancel(self)

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()


class _Callbacks:
    """Runs one node's handlers, one call at a time, on one Python thread that takes events and messages from a queue.

    The thread is Python's own, so that no thread of the library ever waits for the interpreter. It refers to the queue
    but not to the node: a node that nobody refers to any more goes away although its handlers run.

    A call takes no lock, for there may be half a million of them a second. It says that it runs, then looks whether it may;
    who cancels says that it may not, then looks whether it runs. The same between the end of a call and who waits for it.
    """

    def __init__(self, queue: _native.Queue) -> None:
        self._queue = queue
        self._pid = os.getpid()
        self._subscriptions: list[Subscription] = []
        self._changed = threading.Condition()
        self._running: Optional[Subscription] = None
        self._waiting = 0
        self._thread: Optional[threading.Thread] = None
        self._closed = False

    def start(self, name: str) -> None:
        with self._changed:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name=f"bruit-py {name}", daemon=True)
                self._thread.start()

    def adopt(self, subscription: Subscription) -> None:
        with self._changed:
            # Listed first: a message that comes has its handler.
            self._subscriptions.append(subscription)
            try:
                if subscription._topic is not None:
                    self._queue.listen(subscription._topic)
                if subscription._judges is not None:
                    self._queue.judge(subscription._judges)
                if subscription._streams is not None:
                    self._queue.listen_to_streams(subscription._streams)
            except BaseException:
                self._subscriptions.remove(subscription)
                raise

    def cancel(self, subscription: Subscription) -> None:
        if os.getpid() != self._pid:
            # The lock may be held by a thread that does not exist here; nothing runs in this process anyway.
            subscription._active = False
            return
        with self._changed:
            subscription._active = False
            if subscription in self._subscriptions:
                self._subscriptions.remove(subscription)
                if subscription._topic is not None:
                    self._queue.ignore(subscription._topic)
                if subscription._judges is not None:
                    self._queue.judge_no_more(subscription._judges)
                if subscription._streams is not None:
                    self._queue.ignore_streams(subscription._streams)
            self._waiting += 1
            try:
                while self._running is subscription and not self.is_current():
                    self._changed.wait()
            finally:
                self._waiting -= 1

    def is_current(self) -> bool:
        """Are we in a callback of this node?"""
        return self._thread is threading.current_thread()

    def close(self) -> None:
        """No further call begins."""
        with self._changed:
            self._closed = True
        self._queue.close()

    def join(self, timeout: Optional[float]) -> bool:
        """Wait until the call that runs has ended. False when it did not in time."""
        thread = self._thread
        if thread is None or self.is_current():
            return True
        thread.join(timeout)
        return not thread.is_alive()

    def _run(self) -> None:
        while True:
            item = self._queue.take()
            if item is None:
                return
            if isinstance(item, Message):
                self._judge(item) if item._is_question else self._hear(item)
            elif isinstance(item, _native.Stream):
                self._hand_over(ByteStream(item))
            else:
                self._see(item)
            # Or the last one would stay alive until the next one comes, and with it what it refers to.
            del item

    def _see(self, raw: Raw) -> None:
        event = from_raw(raw)
        bit = KIND_BITS[raw[0]]
        for subscription in tuple(self._subscriptions):
            if subscription._kinds & bit:
                self._call(subscription, event)
            elif isinstance(event, EventsLost) and subscription._kinds:
                _log.say(logging.WARNING, "%d events were dropped before %r could see them", event.count, subscription._fn)

    def _hear(self, message: Message) -> None:
        topic, heard = message.topic, False
        for subscription in tuple(self._subscriptions):
            own = subscription._topic
            if own == topic or own == ALL_TOPICS:
                heard |= self._call(subscription, message)
        if not heard:
            _message.unheard(message)

    def _hand_over(self, stream: ByteStream) -> None:
        for subscription in tuple(self._subscriptions):
            if subscription._streams in (stream.topic, ALL_TOPICS) and self._call(subscription, stream):
                return
        # Its last handler was canceled while it waited.
        stream.close()

    def _judge(self, message: Message) -> None:
        accepted = True
        for subscription in tuple(self._subscriptions):
            if accepted and subscription._judges in (message.topic, ALL_TOPICS):
                accepted = self._accepts(subscription, message)
        _message.judge(message, accepted)

    def _accepts(self, subscription: Subscription, message: Message) -> bool:
        accepted = True

        def judge(message: Message) -> None:
            nonlocal accepted
            accepted = False
            accepted = _message.verdict(subscription._fn(message))

        self._call(subscription, message, judge)
        return accepted

    def _call(
        self, subscription: Subscription, what: Union[Event, Message, ByteStream], fn: Optional[Handler] = None
    ) -> bool:
        """False where the handler has not run."""
        self._running = subscription
        try:
            if self._closed or not subscription._active:
                return False
            outcome = (fn or subscription._fn)(what)
            if outcome is not None and isinstance(what, Message):
                _message.answer(what, outcome)
        except BaseException as error:
            # Never fatal, SystemExit included: this thread has other handlers to serve.
            _log.say(logging.ERROR, "handler %r failed on %r", subscription._fn, what, trace=True)
            if isinstance(what, Message):
                _message.fail(what, error)
            elif isinstance(what, ByteStream):
                what.fail(said(error))
        finally:
            self._running = None
            if self._waiting:
                with self._changed:
                    self._changed.notify_all()
        return True


class _Made(NamedTuple):
    """What the native node is made of: plain data, so that it can be made again."""

    options: list[tuple[str, str]]
    seeds: list[str]
    keys: list[Key]
    meta: list[tuple[str, bytes]]
    runtime: Optional[_native.Runtime]


class NodeBase:
    """What `bruit.Node` and `bruit.aio.Node` have in common: everything that does not wait."""

    def __init__(
        self,
        name: Optional[str] = None,
        *,
        bind: Optional[str] = None,
        advertise: Optional[str] = None,
        seeds: Union[str, Iterable[str]] = (),
        keys: Union[Key, Iterable[Key]] = (),
        cluster: Optional[str] = None,
        profile: Optional[str] = None,
        meta: Optional[Mapping[str, MetaValue]] = None,
        leave_timeout: Duration = 5.0,
        runtime: Optional[_native.Runtime] = None,
        log_level: int = logging.INFO,
        **options: OptionValue,
    ) -> None:
        plain = {"name": name, "bind": bind, "advertise": advertise, "cluster": cluster}
        # The profile first: it sets the defaults of the others.
        given: dict[str, OptionValue] = {} if profile is None else {"profile": profile}
        given.update({key: value for key, value in plain.items() if value is not None})
        given.update(options)
        if "dispatch" in given:
            raise InvalidError("dispatch: not an option here; use events(), aevents() or on_event()")
        self._leave_timeout = seconds(leave_timeout, "leave_timeout")
        self._made = _Made(
            [(key, _convert.option(key, value)) for key, value in given.items()],
            _convert.addresses(seeds, "seeds"),
            _convert.keys(keys),
            _convert.meta_items(meta or {}),
            runtime,
        )
        self._log_level = _log.native_level(log_level)
        self._make()

    def _make(self) -> None:
        self._native = _native.Node(*self._made, _log.ring(), self._log_level)
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._callbacks: Optional[_Callbacks] = None
        self._streams: weakref.WeakSet[Stream[Any]] = weakref.WeakSet()

    def _remake(self) -> None:
        """Before the start: another native node with the same listeners. A child may share nothing else with its parent."""
        subscriptions = self._callbacks._subscriptions if self._callbacks else []
        streams = list(self._streams)
        old = self._native
        self._make()
        for stream in streams:
            stream._reattach()
        # Its queues end with it, and whoever waits at one should find the stream at its new one.
        del old
        for subscription in subscriptions:
            subscription._callbacks = self._callbacks_made()
            subscription._callbacks.adopt(subscription)

    def _starting(self) -> _native.Pending:
        if self._pid != os.getpid() and self._native.state == 0:
            self._remake()
        _log.start()
        return self._native.start()

    def _started(self) -> None:
        with _running_lock:
            _running.add(self)
        if self._callbacks is not None:
            self._callbacks.start(self.name)

    # What it is.

    @property
    def name(self) -> str:
        """Unique in the cluster. Where none was given: host, process id and a random part, fixed by `start`."""
        return self._native.name

    @property
    def address(self) -> str:
        """Where others reach it, as ``"host:port"``. `StateError` before `start`."""
        return self._native.address

    @property
    def state(self) -> NodeState:
        """Where it is in its life. Never fails, except in a forked child (`ForkedError`)."""
        return NODE_STATES[self._native.state]

    def __repr__(self) -> str:
        cls = f"{type(self).__module__}.{type(self).__qualname__}".replace("._node.", ".")
        if not hasattr(self, "_native") or self._pid != os.getpid():
            return f"<{cls}>"
        state = self.state
        address = f" {self.address}" if state is NodeState.RUNNING else ""
        return f"<{cls} {self.name}{address} {state}>"

    # Members.

    @property
    def view(self) -> int:
        """The membership's version now; it grows with every change that an event reports."""
        return self._native.view

    def members(self) -> Members:
        """All members in every state, this node included: a shared immutable snapshot, sorted by name.

        `StateError` before `start`; after `stop` the last one.
        """
        return self._native.members()

    def member(self, name: str) -> Member:
        """One member by its name. `NotFoundError` (a `LookupError`) where none is listed; `members().get(name)` gives None."""
        found = self.members().get(name)
        if found is None:
            raise NotFoundError(f"no member {name!r}")
        return found

    @property
    def local(self) -> Member:
        """This node itself, as the others see it. `StateError` before `start`."""
        return self.members().local

    @property
    def meta(self) -> Meta:
        """What this node tells about itself; assignments reach every member."""
        # Made when asked for: kept, it and the node would hold each other.
        return Meta(self)

    def _set_meta(self, changes: list[tuple[str, Optional[bytes]]]) -> None:
        if self._native.state != 0:
            self._native.set_meta(changes)
            return
        # Not started: it becomes part of what a start announces.
        old = self._made
        merged: dict[str, Optional[bytes]] = {**dict(old.meta), **dict(changes)}
        self._made = old._replace(meta=[(key, value) for key, value in merged.items() if value is not None])
        try:
            self._remake()
        except BruitError:
            self._made = old
            raise

    def _early_meta(self) -> Mapping[str, str]:
        return {key: value.decode("utf-8", "surrogateescape") for key, value in self._made.meta}

    # Operating.

    def set(self, key: str, value: OptionValue) -> None:
        """Change an option that is marked live (`bruit.options`), as the constructor takes it. `StateError` for others."""
        text = _convert.option(key, value)
        self._native.set(key, text)
        if self._native.state == 0:
            self._made.options.append((key, text))

    def stats(self) -> dict[str, int]:
        """Every counter by name; `bruit.stats_doc` tells their meaning.

        Most only grow; those of what is there at the moment (links, sessions, rumors that wait, health) also go down.
        """
        return self._native.stats()

    # Events.

    def events(self, *, timeout: Optional[Duration] = None, buffer: int = 1024, kinds: Kinds = None) -> EventStream:
        """A stream of what happens from now on; before `start` it will see everything.

        `timeout`: end after so long a silence (None: never). `buffer`: how many events may wait, 1 or more; what does
        not fit is counted in an `EventsLost`. `kinds`: only these classes.
        """
        stream_buffer = int(buffer)
        if stream_buffer < 1:
            raise InvalidError(f"buffer = {buffer!r}: expected 1 or more")
        return EventStream(self, kinds, timeout, stream_buffer)

    def aevents(self, *, timeout: Optional[Duration] = None, buffer: int = 1024, kinds: Kinds = None) -> EventStream:
        """As `events`, to be read with ``async for``."""
        return self.events(timeout=timeout, buffer=buffer, kinds=kinds)

    # Messages.

    def messages(self, topic: str = ALL_TOPICS, *, timeout: Optional[Duration] = None) -> MessageStream:
        """A stream of the messages that come from now on under a topic, or under all (``"*"``).

        `timeout`: end after so long a silence (None: never). `InvalidError` for what is no topic.
        """
        return MessageStream(self, topic, timeout)

    def query(
        self,
        data: Data,
        *,
        topic: str = "",
        names: Iterable[str] = (),
        tags: Union[str, Iterable[str]] = (),
        timeout: Optional[Duration] = None,
        relay: int = 0,
        acks: bool = False,
        loopback: bool = False,
    ) -> Query:
        """Ask all other members, or those that match; the answers are an iterator, for ``for`` and for ``async for``.

            for reply in node.query(b"load?", tags="role=db"):
                print(reply.sender, reply.data)

        names: only these members. tags: only those with all of this metadata, ``"key"`` or ``"key=value"``.
        timeout: how long answers are gathered; None: as long as is usual in a cluster of this size.
        relay: each answer comes through so many other members as well, 0 to 8, against links that are lame in one direction.
        acks: who has heard the question says so: `Query.heard`. loopback: this node is asked, too.

        `LimitError`: `max_queries` gather answers. `BusyError`: as `broadcast`. `InvalidError`: no name, tag or topic.
        """
        tag_list = [tags] if isinstance(tags, str) else list(tags)
        patience = seconds(timeout, "timeout")
        asked = self._native.query(data, topic, list(names), tag_list, patience, relay, acks, loopback)
        return Query(self, topic, asked)

    def send_each(
        self,
        data: Data,
        *,
        to: Optional[Iterable[str]] = None,
        tag: Optional[str] = None,
        topic: str = "",
        reliable: bool = False,
        receipt: bool = False,
    ) -> dict[str, Sent]:
        """Send a message to several members, or to all others with a tag, ``"key"`` or ``"key=value"``; what became of each.

        As `send`, but it never waits for room, and what is wrong with one (`Sent.error`) does not keep it from the others.
        """
        if (to is None) == (tag is None):
            raise TypeError("send_each: expected either to or tag")
        if isinstance(to, str):
            raise TypeError("send_each: expected several names; send() is for one")
        names = None if to is None else list(to)
        if names == []:
            return {}
        told = self._native.send_each(names, tag, data, topic, reliable, receipt)
        return {member: Sent(number, error) for member, number, error in told}  # type: ignore[arg-type]

    def amessages(self, topic: str = ALL_TOPICS, *, timeout: Optional[Duration] = None) -> MessageStream:
        """As `messages`, to be read with ``async for``."""
        return self.messages(topic, timeout=timeout)

    # Inside.

    def _callbacks_made(self) -> _Callbacks:
        self._check_fork()
        with self._lock:
            if self._callbacks is None:
                self._callbacks = _Callbacks(self._native.handler_queue())
            return self._callbacks

    def _check_fork(self) -> None:
        if self._pid != os.getpid() and self._native.state != 0:
            raise ForkedError("this node was started by another process; a forked child can make one of its own")

    def _check_stop(self, timeout: Optional[float]) -> None:
        if timeout != 0 and self._callbacks is not None and self._callbacks.is_current():
            raise DeadlockError("stop() in a callback of the same node would wait for itself; use stop(timeout=0)")

    def _quiet(self) -> None:
        """No callback begins any more, and whoever waits for events looks up."""
        if self._callbacks is not None:
            self._callbacks.close()
        with self._lock:
            streams = list(self._streams)
        for stream in streams:
            stream._poke()

    def _stopped(self) -> None:
        with _running_lock:
            _running.discard(self)

    def _at_exit(self) -> None:
        """The interpreter ends with the node running: go without a word, but leave no thread that still wants the interpreter."""
        if self._pid != os.getpid():
            return
        try:
            stopping = self._native.stop(_EXIT_SECONDS)
            self._quiet()
            stopping.wait(_EXIT_SECONDS)
            if self._callbacks is not None:
                self._callbacks.join(_EXIT_SECONDS)
        except BruitError as error:
            _log.say(logging.WARNING, "%r at exit: %s", self, error)

    def __del__(self) -> None:
        native = getattr(self, "_native", None)
        if native is None or self._pid != os.getpid() or sys.is_finalizing():
            return
        if NODE_STATES[native.state] in (NodeState.RUNNING, NodeState.LEAVING, NodeState.LEFT):
            warnings.warn(f"unclosed node {self.name}", ResourceWarning, stacklevel=2, source=self)
        native.release()
        if self._callbacks is not None:
            self._callbacks.close()


class Node(NodeBase):
    """One member of a cluster.

        with bruit.Node("a", bind="127.0.0.1:0", seeds=["10.0.0.1:18946"], keys=[key]) as node:
            node.wait_for(3, timeout=5)
            for event in node.events():
                ...

    ``with`` starts it, and at the end leaves (for at most `leave_timeout`) and stops it, also after an exception;
    after a `KeyboardInterrupt` it stops at once. Nothing is bound and no thread runs before `start`, so a node can be made
    before a process forks or drops its privileges.

    name: unique in the cluster, 1 to 255 bytes; None makes one of host, process id and chance.
    bind: where to listen, ``"host:port"``, UDP and TCP; port 0 takes any. Without keys it has to be a loopback address,
        unless `insecure_plaintext` is set.
    advertise: where others reach it, if that is not `bind`.
    seeds: addresses of some members; it never stops trying them.
    keys: each 32 bytes, or their base64 (`bruit.generate_key`). The first one seals, all of them open.
    cluster: a label; nodes of another label are never heard.
    profile: ``"lan"`` (default), ``"wan"`` or ``"local"``: the set of defaults.
    meta: what it tells about itself; see `meta`.
    leave_timeout: how long the end of ``with`` may take to tell the others.
    runtime: a `bruit.Runtime` whose threads it shares with other nodes; None: its own.
    log_level: up to which detail the library logs to the logger ``bruit``; a level of `logging`.
    options: every key of `bruit.options`. `InvalidError` (a `ValueError`) names the nearest for one that is unknown.

    All methods may be called from any thread. In a callback everything is allowed but a `stop` that waits.
    After a fork every method raises `ForkedError` in the child.
    """

    def start(self) -> Node:
        """Bind, start the threads, begin to join the seeds, and never stop trying.

        `IoError` with its `errno` where the address cannot be had; the node is still new then. An exception of a signal's
        handler, as `KeyboardInterrupt`, stops it.
        """
        try:
            self._starting().wait_result()
        except BruitError:
            raise
        except BaseException:
            self._native.stop(0.0)
            raise
        self._started()
        return self

    def join(self, addresses: Union[str, Iterable[str]], timeout: Optional[Duration] = None) -> int:
        """Contact members at these addresses now; how many let us in.

        Waits for the first complete answer of each, or `join_timeout`. `timeout` None: as long as that; 0: begin, return 0
        at once, and a `JoinDone` event follows. `TimeoutError` when nobody answered in time (the work may go on),
        `RefusedError` when they did not want this node.
        """
        pending = self._native.join(_convert.addresses(addresses, "addresses"), seconds(timeout, "timeout"))
        return pending.wait_result()

    def leave(self, timeout: Optional[Duration] = 5.0) -> None:
        """Leave gracefully: the others see LEFT, not DEAD. Stop it afterwards.

        `TimeoutError` when not enough members have confirmed in time: the node has left all the same. 0: begin and
        return; a `LeaveDone` event follows.
        """
        self._native.leave(seconds(timeout, "timeout")).wait_result()

    def stop(self, timeout: Optional[Duration] = 5.0) -> None:
        """Stop at once, without a word to the others (they find out). Again is allowed.

        When it returns no callback runs and none will. `TimeoutError` when a callback did not end in time; call it again.
        0: begin and return, which is allowed everywhere. `DeadlockError` where a callback of the same node waits for it.
        """
        patience = seconds(timeout, "timeout")
        self._check_fork()
        self._check_stop(patience)
        began = time.monotonic()
        stopping = self._native.stop(patience)
        self._quiet()
        stopping.wait_result()
        self._stopped()
        if self._callbacks is not None and patience != 0:
            left = None if patience is None else max(0.0, patience - (time.monotonic() - began))
            if not self._callbacks.join(left):
                raise TimeoutError(f"stop: a callback of {self.name} still runs after {timeout!r}")

    def wait_for(self, want: Want, timeout: Optional[Duration] = None) -> Members:
        """Wait until at least so many members are alive, this node included, or until ``want(members)`` is true.

        The members of that moment. `TimeoutError` when it did not come true in time, `StateError` when the node
        stopped meanwhile.
        """
        patience = seconds(timeout, "timeout")
        until = None if patience is None else time.monotonic() + patience
        with self.events(buffer=1) as changes:
            while True:
                members = self.members()
                if satisfied(want, members):
                    return members
                left = None if until is None else max(0.0, until - time.monotonic())
                if changes.next(left) is None:
                    raise ended(self) if changes.ended else not_in_time(want, members, timeout)

    @overload
    def on_event(self, fn: Handler, *, kinds: Kinds = None) -> Subscription: ...
    @overload
    def on_event(self, fn: None = None, *, kinds: Kinds = None) -> Callable[[Handler], Subscription]: ...
    def on_event(
        self, fn: Optional[Handler] = None, *, kinds: Kinds = None
    ) -> Union[Subscription, Callable[[Handler], Subscription]]:
        """Call ``fn(event)`` for every event of these kinds; also a decorator, with or without arguments.

        Handlers of a node run one after another on a daemon thread of its own, in the order of registration; before `start`
        they will see everything. What they raise is logged, never fatal. In a handler everything is allowed but a `stop`
        of the same node that waits.
        """
        if fn is None:
            return lambda given: self.on_event(given, kinds=kinds)
        if not callable(fn):
            raise TypeError(f"on_event: expected a callable, not {fn!r}")
        return self._subscribed(fn, kinds=mask(kinds, KIND_BITS))

    def _subscribed(self, fn: Handler, **wants: Any) -> Subscription:
        callbacks = self._callbacks_made()
        subscription = Subscription(callbacks, fn, **wants)
        callbacks.adopt(subscription)
        if self._native.state != 0:
            callbacks.start(self.name)
        return subscription

    def send(
        self,
        to: str,
        data: Data,
        *,
        topic: str = "",
        reliable: bool = False,
        receipt: bool = False,
        timeout: Optional[Duration] = None,
    ) -> Optional[int]:
        """Send a message to a member, this node included. When it returns the message is queued.

        data: bytes, or any object with a buffer; it is copied.
        topic: at most 64 bytes; "" is the default topic.
        reliable: once, and in the order of its topic, as long as both nodes live and know each other. Else, if it fits in one, it
            goes in a datagram, which may be lost or overtaken.
        receipt: reliable, and the number that is returned comes back in a `Receipt` event when the other node has it.
        timeout: how long to wait for room where too much waits for that member (`send_queue`); None: not at all.

        `BusyError`: no room in time; a `Writable` event follows. `NotFoundError`: no such member. `UnreachableError`: dead, or
        has left. `TooBigError`: above `max_message`. In all of them nothing is sent.
        """
        return self._native.send(to, data, topic, reliable, receipt, _convert.patience(timeout))

    def broadcast(
        self,
        data: Data,
        *,
        topic: str = "",
        loopback: bool = False,
        ordered: bool = False,
        timeout: Optional[Duration] = None,
    ) -> int:
        """Say something to all members, and with `loopback` to oneself; each hears it once. Its number among those of this node.

        ordered: whoever hears it has heard before, or was told by a `Gap` event that it is lost, what this node has said like
            that under the same topic.

        Who has missed some that nobody has any more gets a `Gap` event. `timeout`: how long to wait for room; None: not at all.
        `BusyError`: the neighbours have yet to take what was said before; a `Writable` event about this node itself follows.
        `TooBigError`: above `max_broadcast`. In both cases nothing is said.
        """
        return self._native.broadcast(data, topic, loopback, ordered, _convert.patience(timeout))

    def request(self, to: str, data: Data, *, topic: str = "", timeout: Optional[Duration] = 1.0) -> Reply:
        """Ask a member, and wait for its answer: ``node.request("b", b"2+3", topic="sum").data``.

        `TimeoutError`: no answer in time (None: wait for ever); the member may have acted, or may yet. `NoHandlerError`: nobody
        listens to that topic there. `RemoteError`: its handler failed; the text says how. `NoReplyError`: its handler did not
        answer. `UnreachableError`: dead, or has left, also meanwhile. `LimitError`: `max_requests` wait already.
        `CanceledError`: this node was stopped meanwhile. `DeadlockError`: in a callback, to oneself. And those of `send`.
        """
        patience = seconds(timeout, "timeout")
        if self._callbacks is not None and self._callbacks.is_current() and to == self.name:
            raise DeadlockError("request() to oneself in a callback would wait for itself")
        return Reply(self._native.request(to, data, topic, patience), to, topic)

    @overload
    def on_message(self, what: MessageHandler, *, topic: Optional[str] = None) -> Subscription: ...
    @overload
    def on_message(self, what: str, fn: MessageHandler) -> Subscription: ...
    @overload
    def on_message(self, what: str, fn: None = None) -> Callable[[MessageHandler], Subscription]: ...
    @overload
    def on_message(self, what: None = None, *, topic: Optional[str] = None) -> Callable[[MessageHandler], Subscription]: ...
    def on_message(self, what: Any = None, fn: Any = None, *, topic: Optional[str] = None) -> Any:
        """Call ``fn(message)`` for every message under a topic, or under all (``"*"``); also a decorator.

            @node.on_message("sum")
            def add(message):
                return str(sum(map(int, message.data.split(b"+")))).encode()

        Every handler that matches runs, in the order of registration. They share a thread with the handlers of events, and
        one order: a member's `MemberJoined` comes before its first message. A request (`Message.is_request`) is answered by
        the first handler that returns bytes, or calls `Message.reply` or `Message.fail`, there or later. An exception is
        logged, and fails the request: `RemoteError` for who asked.
        """
        topic, handler = _message.topic_and_handler(what, fn, topic)
        if handler is None:
            return lambda given: self.on_message(given, topic=topic)
        return self._subscribed(handler, topic=topic)

    @overload
    def on_validate(self, what: Validator, *, topic: Optional[str] = None) -> Subscription: ...
    @overload
    def on_validate(self, what: str, fn: Validator) -> Subscription: ...
    @overload
    def on_validate(self, what: str, fn: None = None) -> Callable[[Validator], Subscription]: ...
    @overload
    def on_validate(self, what: None = None, *, topic: Optional[str] = None) -> Callable[[Validator], Subscription]: ...
    def on_validate(self, what: Any = None, fn: Any = None, *, topic: Optional[str] = None) -> Any:
        """Ask ``fn(message)`` about each broadcast of others under a topic, or under all (``"*"``), before it goes on.

            @node.on_validate("news")
            def is_signed(message):
                return check(message.data)

        True accepts it. False rejects it, and so does an exception, which is logged: it is neither heard here nor passed on
        or offered to others. Where several match, all have to accept. What has no verdict within `validation_timeout` is
        offered to others, and pushed on to nobody. `Subscription.cancel` ends it: what waits then is accepted.
        """
        topic, handler = _message.topic_and_handler(what, fn, topic)
        if handler is None:
            return lambda given: self.on_validate(given, topic=topic)
        return self._subscribed(handler, judges=topic)

    def open_stream(
        self, member: str, topic: str = "", *, compress: bool = False, timeout: Optional[Duration] = None
    ) -> ByteStream:
        """Open a byte stream to a member, this node included: a file to read and write, for as long as both nodes run.

        compress: what either side writes travels as lz4 blocks where that is shorter.
        timeout: how long each read and each write of it may wait; None: for ever. See `ByteStream.timeout`.

        It returns at once: that nobody takes it there is found by reading or writing. `NotFoundError`: no such member.
        `UnreachableError`: dead, or has left. `LimitError`: `max_streams` or `max_member_streams` are open.
        """
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
        """Call ``fn(stream)`` for each `ByteStream` that a member opens under a topic, or under all (``"*"``); also a decorator.

            @node.on_stream("copy")
            def keep(stream):
                threading.Thread(target=store, args=(stream,)).start()

        Of several handlers that match, the first gets it. The stream is the handler's own, for as long as it likes, and
        closes when nobody refers to it any more; what the handler raises fails it (`ByteStream.fail`). All handlers of a
        node share a thread: one that reads and writes for long keeps the others waiting, and hands it to another thread
        rather.
        """
        topic, handler = _message.topic_and_handler(what, fn, topic)
        if handler is None:
            return lambda given: self.on_stream(given, topic=topic)
        return self._subscribed(handler, streams=topic)

    def __enter__(self: SelfNode) -> SelfNode:
        if self._native.state == 0:
            self.start()
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        try:
            if self._native.state == 1 and not (kind is not None and issubclass(kind, KeyboardInterrupt)):
                try:
                    self.leave(self._leave_timeout)
                except BruitError as failed:
                    # Nobody to tell, or not in time: the node goes all the same.
                    _log.say(logging.INFO, "%s: %s", self.name, failed)
        finally:
            self._end(error)

    def _end(self, error: Optional[BaseException]) -> None:
        in_callback = self._callbacks is not None and self._callbacks.is_current()
        try:
            self.stop(0 if in_callback else 5.0)
        except TimeoutError as failed:
            if error is None:
                raise
            _log.say(logging.WARNING, "%s", failed)


def satisfied(want: Want, members: Members) -> bool:
    if callable(want):
        return bool(want(members))
    return len(members.alive) >= want


def ended(node: NodeBase) -> BruitError:
    return StateError(f"wait_for: {node.name} has stopped")


def not_in_time(want: Want, members: Members, timeout: object) -> TimeoutError:
    what = "the condition" if callable(want) else f"{want} alive members"
    seen = ", ".join(f"{member.name} {member.state}" for member in members[:20])
    more = ", …" if len(members) > 20 else ""
    return TimeoutError(f"wait_for: not {what} within {timeout!r}; seen: {seen}{more}")


_running_lock = threading.RLock()
_running: weakref.WeakSet[NodeBase] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    for node in list(_running):
        node._at_exit()
    _log.flush_and_end()


def _after_fork_in_child() -> None:
    global _running_lock, _running
    _running_lock = threading.RLock()
    _running = weakref.WeakSet()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
