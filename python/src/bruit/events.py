"""What happens in a cluster, as small immutable objects.

Every event is a frozen dataclass: ``match`` takes it apart, ``==`` compares it, ``pickle`` carries it. `view` is the
version of the membership in which the event is contained: a snapshot whose `Members.view` is not smaller already shows
it.

    match event:
        case MemberJoined(member):
            print(member.name, "is here")
        case MemberDead(Member(name="db")):
            failover()
        case EventsLost(count):
            resync(node.members())
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Optional, Union

if TYPE_CHECKING:
    from bruit._native import Member

__all__ = [
    "BroadcastsLost",
    "Changed",
    "Event",
    "EventsLost",
    "Gap",
    "JoinDone",
    "LeaveDone",
    "MemberDead",
    "MemberEvent",
    "MemberForgotten",
    "MemberJoined",
    "MemberLeft",
    "MemberRecovered",
    "MemberSuspect",
    "MemberUpdated",
    "NameConflict",
    "NodeFailed",
    "Receipt",
    "Settled",
    "Warned",
    "Writable",
]


class Changed(enum.IntFlag):
    """In what a member differs from what it was before the event."""

    NOTHING = 0
    STATE = 1
    META = 2
    ADDRESS = 4
    EPOCH = 8
    INCARNATION = 16


class Event:
    """What every event is.

    For `kinds=` arguments it stands for all events, as `MemberEvent` stands for all that tell about a member.
    """

    kind: ClassVar[str] = ""
    """The event's name in the C interface: ``"JOIN"``. Empty for `Event` and `MemberEvent` themselves."""

    view: int


@dataclass(frozen=True)
class MemberEvent(Event):
    """Something happened to a member. Never about the node itself."""

    member: Member
    """The member as it is now."""
    before: Optional[Member] = None
    """The member as it was, or None where it was not listed."""
    changed: Changed = Changed.NOTHING
    """In what the two differ."""
    view: int = 0
    __match_args__ = ("member", "before", "changed", "view")


@dataclass(frozen=True)
class MemberJoined(MemberEvent):
    """A name that was not listed is alive."""

    kind = "JOIN"
    __match_args__ = ("member", "before", "changed", "view")


@dataclass(frozen=True)
class MemberUpdated(MemberEvent):
    """Its metadata or its address changed; `changed` says which."""

    kind = "UPDATE"
    __match_args__ = ("member", "before", "changed", "view")


@dataclass(frozen=True)
class MemberSuspect(MemberEvent):
    """Does not answer; others are asked, and it may yet refute the suspicion."""

    kind = "SUSPECT"
    __match_args__ = ("member", "before", "changed", "view")


@dataclass(frozen=True)
class MemberRecovered(MemberEvent):
    """Refuted a suspicion, or is back: from death, or as a new run with a higher epoch (`restarted`)."""

    kind = "ALIVE"
    __match_args__ = ("member", "before", "changed", "view")

    @property
    def restarted(self) -> bool:
        """True where another run of the same name has taken the place of the one before."""
        return Changed.EPOCH in self.changed


@dataclass(frozen=True)
class MemberDead(MemberEvent):
    """A suspicion ran out without an answer."""

    kind = "DEAD"
    __match_args__ = ("member", "before", "changed", "view")


@dataclass(frozen=True)
class MemberLeft(MemberEvent):
    """Left gracefully."""

    kind = "LEFT"
    __match_args__ = ("member", "before", "changed", "view")


@dataclass(frozen=True)
class MemberForgotten(MemberEvent):
    """Dead or left for so long that it is listed no more."""

    kind = "FORGOTTEN"
    __match_args__ = ("member", "before", "changed", "view")


@dataclass(frozen=True)
class NameConflict(Event):
    """Another run with a higher epoch holds this node's name; this node has stopped announcing itself."""

    kind = "CONFLICT"
    member: Optional[Member] = None
    """The other one, where it is known."""
    text: str = ""
    view: int = 0
    __match_args__ = ("member", "text", "view")


@dataclass(frozen=True)
class Settled(Event):
    """The first view is complete.

    A seed's table is applied, or every seed failed once, and three gossip intervals brought nobody new.
    """

    kind = "SETTLED"
    view: int = 0
    __match_args__ = ("view",)


@dataclass(frozen=True)
class JoinDone(Event):
    """A join ended; `answered` of the addresses let this node in."""

    kind = "JOINED"
    answered: int = 0
    id: int = 0
    text: str = ""
    view: int = 0
    __match_args__ = ("answered", "id", "text", "view")


@dataclass(frozen=True)
class LeaveDone(Event):
    """Peers know that this node left; or the time for telling them was over, then `told` is false."""

    kind = "LEAVE_DONE"
    told: bool = True
    view: int = 0
    __match_args__ = ("told", "view")


@dataclass(frozen=True)
class EventsLost(Event):
    """The reader was too slow: `count` events, or best-effort messages, were dropped here.

    `Node.members` shows what is true now.
    """

    kind = "OVERFLOW"
    count: int = 0
    view: int = 0
    __match_args__ = ("count", "view")


@dataclass(frozen=True)
class Warned(Event):
    """Something is wrong around this node, such as UDP that is blocked; `text` says what."""

    kind = "WARNING"
    text: str = ""
    view: int = 0
    __match_args__ = ("text", "view")


@dataclass(frozen=True)
class BroadcastsLost(Event):
    """`count` broadcasts of `member` were missed, from number `first` on, and nobody has them any more."""

    kind = "GAP"
    member: Optional[Member] = None
    first: int = 0
    count: int = 0
    view: int = 0
    __match_args__ = ("member", "first", "count", "view")


@dataclass(frozen=True)
class NodeFailed(Event):
    """The node has failed, by a bug of ours: every call raises `FailedError`."""

    kind = "FATAL"
    text: str = ""
    view: int = 0
    __match_args__ = ("text", "view")


@dataclass(frozen=True)
class Receipt(Event):
    """The member has the message that `Node.send(..., receipt=True)` gave this `id`; or will not have it, then `arrived`
    is false."""

    kind = "RECEIPT"
    id: int = 0
    arrived: bool = True
    member: Optional[Member] = None
    view: int = 0
    __match_args__ = ("id", "arrived", "member", "view")


@dataclass(frozen=True)
class Gap(Event):
    """Broadcasts of `member` that nobody has any more were missed: `count` of them, the first with the number `first`."""

    kind = "GAP"
    member: Optional[Member] = None
    first: int = 0
    count: int = 0
    view: int = 0
    __match_args__ = ("member", "first", "count", "view")


@dataclass(frozen=True)
class Writable(Event):
    """After a `BusyError` there is room again for messages to that member; of the node itself: for broadcasts."""

    kind = "WRITABLE"
    member: Optional[Member] = None
    view: int = 0
    __match_args__ = ("member", "view")


MEMBER_EVENTS: dict[str, type[MemberEvent]] = {cls.kind: cls for cls in MemberEvent.__subclasses__()}
CLASSES: dict[str, type[Event]] = {cls.kind: cls for cls in Event.__subclasses__() if cls.kind}
CLASSES.update(MEMBER_EVENTS)

Kinds = Union[type[Event], Iterable[type[Event]], None]
"""Which events: one class, several, or None for all. A base class stands for all that derive from it."""

# (kind, changed, view, member, before, id, count, status, text), as the native queue gives them.
Raw = tuple[str, int, int, "Optional[Member]", "Optional[Member]", int, int, int, str]


def from_raw(raw: Raw) -> Event:
    kind, changed, view, member, before, ident, count, status, text = raw
    made: Any
    if kind in MEMBER_EVENTS:
        assert member is not None
        made = MEMBER_EVENTS[kind](member, before, Changed(changed), view)
    elif kind == "CONFLICT":
        made = NameConflict(member, text, view)
    elif kind == "SETTLED":
        made = Settled(view)
    elif kind == "JOINED":
        made = JoinDone(count, ident, text, view)
    elif kind == "LEAVE_DONE":
        made = LeaveDone(status == 0, view)
    elif kind == "OVERFLOW":
        made = EventsLost(count, view)
    elif kind == "RECEIPT":
        made = Receipt(ident, status == 0, member, view)
    elif kind == "GAP":
        made = Gap(member, ident, count, view)
    elif kind == "WRITABLE":
        made = Writable(member, view)
    elif kind == "GAP":
        made = BroadcastsLost(member, ident, count, view)
    elif kind == "FATAL":
        made = NodeFailed(text, view)
    else:
        # WARNING; and what a later core adds before this table knows it, which must not end a stream.
        made = Warned(text or kind, view)
    event: Event = made
    return event


def mask(kinds: Kinds, bits: dict[str, int]) -> int:
    """The subscription mask for `kinds`, by the native table of names and bits."""
    if kinds is None:
        return sum(bits.values())
    wanted = (kinds,) if isinstance(kinds, type) else tuple(kinds)
    for cls in wanted:
        if not (isinstance(cls, type) and issubclass(cls, Event)):
            raise TypeError(f"kinds: expected event classes such as bruit.MemberJoined, not {cls!r}")
    chosen = sum(bit for name, bit in bits.items() if name in CLASSES and issubclass(CLASSES[name], wanted))
    if not chosen:
        raise ValueError("kinds: expected at least one event class")
    return chosen
