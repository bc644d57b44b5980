"""Events and members are values: they compare, hash, pickle and match."""

from __future__ import annotations

import collections
import copy
import pickle
import sys
import textwrap

import bruit
import pytest
from bruit import _native
from bruit.events import CLASSES, from_raw, mask

B = bruit.Member("b", epoch=7, address="127.0.0.1:4000", state="suspect", meta={"role": "db", "raw": b"\xff"})


def test_a_member_is_hashed_and_compared_by_name_and_epoch():
    same_run = bruit.Member("b", epoch=7, state="dead", address="127.0.0.1:5000")
    next_run = bruit.Member("b", epoch=8)
    assert B == same_run
    assert hash(B) == hash(same_run) == hash(("b", 7))
    assert B != next_run
    assert len({B, same_run, next_run}) == 2
    assert B != "b"


def test_a_member_cannot_be_changed():
    with pytest.raises(AttributeError):
        B.name = "c"
    with pytest.raises(TypeError):
        B.meta["role"] = "web"


def test_what_a_member_tells():
    assert (B.name, B.epoch, B.address, B.ip, B.port) == ("b", 7, "127.0.0.1:4000", "127.0.0.1", 4000)
    assert B.state is bruit.MemberState.SUSPECT
    assert B.state == "suspect"
    assert f"{B.state}" == "suspect"
    assert dict(B.meta) == {"role": "db", "raw": "\udcff"}
    assert dict(B.meta_bytes) == {"role": b"db", "raw": b"\xff"}
    for mapping in (B.meta, B.meta_bytes, collections.ChainMap(dict(B.meta))):
        assert bruit.Member("c", meta=mapping).meta_bytes == B.meta_bytes
    for wrong in ({"a": 1}, {1: "a"}, [("a", "b")], "ab"):
        with pytest.raises(TypeError):
            bruit.Member("c", meta=wrong)
    assert B.has("role") and B.has("role=db") and not B.has("role=web")
    assert B.rtt is None and B.state_age is None
    assert repr(B) == "<bruit.Member b suspect 127.0.0.1:4000 epoch=7>"


@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_member_can_be_pickled_and_copied(clone):
    again = clone(bruit.Member("b", epoch=7, run=9, incarnation=3, app_version=2, meta=dict(B.meta_bytes), rtt=0.25))
    assert again == B
    assert (again.run, again.incarnation, again.app_version, again.rtt) == (9, 3, 2, 0.25)
    assert again.meta_bytes == B.meta_bytes


@pytest.mark.parametrize(
    "wrong", [{"state": "gone"}, {"address": "here"}, {"run": 0}, {"name": ""}, {"rtt": -1.0}], ids=lambda w: next(iter(w))
)
def test_a_member_is_checked(wrong):
    with pytest.raises(ValueError):
        bruit.Member(**{"name": "b", **wrong})


EVENTS = [
    *(cls(B, None, bruit.Changed.META, 3) for cls in bruit.MemberEvent.__subclasses__()),
    bruit.NameConflict(B, "twice", 1),
    bruit.Settled(2),
    bruit.JoinDone(2, 1),
    bruit.LeaveDone(False),
    bruit.EventsLost(17),
    bruit.Warned("UDP is blocked"),
    bruit.BroadcastsLost(B, 3, 2),
    bruit.NodeFailed("a bug"),
    bruit.Receipt(7, True, B),
    bruit.Writable(B),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda e: type(e).__name__)
def test_events_are_values(event):
    again = pickle.loads(pickle.dumps(event))
    assert again == event
    assert hash(again) == hash(event)
    assert isinstance(event, bruit.Event)
    assert repr(event).startswith(type(event).__name__ + "(")
    with pytest.raises(AttributeError):
        event.view = 5
    assert event.__match_args__[0] != "view" or isinstance(event, bruit.Settled)


def test_every_kind_of_the_library_has_a_class():
    assert set(CLASSES) == set(_native.event_kinds())
    for name in _native.event_kinds():
        cls = CLASSES[name]
        member = B if issubclass(cls, bruit.MemberEvent) else None
        assert type(from_raw((name, 0, 1, member, None, 0, 0, 0, ""))) is cls


def test_the_mask_of_a_base_class_is_that_of_all_under_it():
    bits = _native.event_kinds()
    assert mask(None, bits) == mask(bruit.Event, bits) == sum(bits.values())
    assert mask(bruit.MemberDead, bits) == bits["DEAD"]
    assert mask((bruit.MemberDead, bruit.MemberLeft), bits) == bits["DEAD"] | bits["LEFT"]
    assert mask(bruit.MemberEvent, bits) & (bits["SETTLED"] | bits["FATAL"]) == 0
    with pytest.raises(TypeError):
        mask(int, bits)
    with pytest.raises(TypeError):
        mask("DEAD", bits)
    with pytest.raises(ValueError):
        mask((), bits)


def test_a_restart_is_told_from_a_refutation():
    assert bruit.MemberRecovered(B, changed=bruit.Changed.STATE | bruit.Changed.EPOCH).restarted
    assert not bruit.MemberRecovered(B, changed=bruit.Changed.STATE | bruit.Changed.INCARNATION).restarted


@pytest.mark.skipif(sys.version_info < (3, 10), reason="match is of Python 3.10")
def test_match():
    source = """
        def what(event):
            match event:
                case bruit.MemberJoined(member):
                    return f"{member.name} joined"
                case bruit.MemberDead(bruit.Member(name="b")):
                    return "b is dead"
                case bruit.MemberDead(bruit.Member(name)):
                    return f"{name} is dead"
                case bruit.MemberUpdated(changed=bruit.Changed.META):
                    return "meta"
                case bruit.EventsLost(count):
                    return f"{count} lost"
                case bruit.MemberEvent(member):
                    return f"{member.name} {type(event).__name__}"
                case bruit.Event():
                    return "other"
    """
    scope = {"bruit": bruit}
    exec(textwrap.dedent(source), scope)
    what = scope["what"]
    assert what(bruit.MemberJoined(B)) == "b joined"
    assert what(bruit.MemberDead(B)) == "b is dead"
    assert what(bruit.MemberDead(bruit.Member("c"))) == "c is dead"
    assert what(bruit.MemberUpdated(B, B, bruit.Changed.META)) == "meta"
    assert what(bruit.EventsLost(3)) == "3 lost"
    assert what(bruit.MemberLeft(B)) == "b MemberLeft"
    assert what(bruit.Settled()) == "other"
