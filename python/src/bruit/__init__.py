"""bruit: know your peers. Gossip membership, failure detection, shared metadata and messages, inside your program.

    import bruit

    with bruit.Node("a", bind="127.0.0.1:0", seeds=["127.0.0.1:18946"]) as node:
        for event in node.events():
            match event:
                case bruit.MemberJoined(member):
                    print(member.name, member.meta.get("role"), "is here")
                case bruit.MemberDead(member):
                    print(member.name, "is gone")

`Node` is the handle of one member; `bruit.aio.Node` is the same for asyncio. `bruit.testing` makes clusters for tests.
Nothing needs a server: the nodes talk to each other by UDP and TCP.
"""

from __future__ import annotations

from collections.abc import Sequence as _Sequence
from typing import TYPE_CHECKING

try:
    from bruit import _native
except ImportError as _error:  # pragma: no cover - only where the interpreter does not take it
    if "subinterpreter" in str(_error):
        raise ImportError(
            "bruit cannot be used in a subinterpreter: its threads and its atfork handler belong to the process. "
            "Import it in the main interpreter"
        ) from _error
    raise

from bruit import errors, events
from bruit._bytestream import ByteStream
from bruit._convert import Duration, Key, Option, OptionValue, generate_key, options
from bruit._message import Gathered, Reply, Sent
from bruit._native import Member, Members, Message, Runtime
from bruit._node import Meta, Node, Subscription
from bruit._states import MemberState, NodeState
from bruit._stream import EventStream, MessageStream, Query
from bruit.errors import (
    AddressError,
    AuthError,
    BruitError,
    BufferError,
    BusyError,
    CanceledError,
    CorruptError,
    DeadlockError,
    FailedError,
    ForkedError,
    HandleError,
    InvalidError,
    IoError,
    LimitError,
    NoHandlerError,
    NoQuorumError,
    NoReplyError,
    NotFoundError,
    PanicError,
    RefusedError,
    RemoteError,
    StateError,
    TimeoutError,
    TooBigError,
    UnreachableError,
)
from bruit.events import (
    BroadcastsLost,
    Changed,
    Event,
    EventsLost,
    Gap,
    JoinDone,
    LeaveDone,
    MemberDead,
    MemberEvent,
    MemberForgotten,
    MemberJoined,
    MemberLeft,
    MemberRecovered,
    MemberSuspect,
    MemberUpdated,
    NameConflict,
    NodeFailed,
    Receipt,
    Settled,
    Warned,
    Writable,
)

if TYPE_CHECKING:
    from bruit import aio, sim, testing
else:

    def __getattr__(name):
        """`bruit.aio`, `bruit.sim` and `bruit.testing` are there without an import of their own, and cost nothing until then."""
        if name in ("aio", "sim", "testing"):
            import importlib

            return importlib.import_module(f"bruit.{name}")
        raise AttributeError(f"module 'bruit' has no attribute {name!r}")


__version__: str = _native.__version__

__all__ = [
    "AddressError",
    "AuthError",
    "BroadcastsLost",
    "BruitError",
    "BufferError",
    "BusyError",
    "ByteStream",
    "CanceledError",
    "Changed",
    "CorruptError",
    "DeadlockError",
    "Duration",
    "Event",
    "EventStream",
    "EventsLost",
    "FailedError",
    "ForkedError",
    "Gap",
    "Gathered",
    "HandleError",
    "InvalidError",
    "IoError",
    "JoinDone",
    "Key",
    "LeaveDone",
    "LimitError",
    "Member",
    "MemberDead",
    "MemberEvent",
    "MemberForgotten",
    "MemberJoined",
    "MemberLeft",
    "MemberRecovered",
    "MemberState",
    "MemberSuspect",
    "MemberUpdated",
    "Members",
    "Message",
    "MessageStream",
    "Meta",
    "NameConflict",
    "NoHandlerError",
    "NoQuorumError",
    "NoReplyError",
    "Node",
    "NodeFailed",
    "NodeState",
    "NotFoundError",
    "Option",
    "OptionValue",
    "PanicError",
    "Query",
    "Receipt",
    "RefusedError",
    "RemoteError",
    "Reply",
    "Runtime",
    "Sent",
    "Settled",
    "StateError",
    "Subscription",
    "TimeoutError",
    "TooBigError",
    "UnreachableError",
    "Warned",
    "Writable",
    "__version__",
    "aio",
    "errors",
    "events",
    "generate_key",
    "options",
    "sim",
    "stats_doc",
    "testing",
]

_Sequence.register(Members)


def stats_doc() -> dict[str, str]:
    """What each counter of `Node.stats` counts."""
    return _native.stat_docs()
