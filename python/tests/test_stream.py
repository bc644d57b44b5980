"""A stream of events, read by threads."""

from __future__ import annotations

import threading
import time

import bruit
import pytest
from bruit.testing import cluster
from conftest import alone, asleep, until


def test_it_ends_after_so_much_silence_and_can_go_on():
    with cluster(1) as nodes:
        (a,) = nodes
        stream = a.events(kinds=bruit.MemberEvent, timeout=0.1)
        assert list(stream) == []
        nodes.add("late")
        nodes.wait()
        assert [type(event) for event in stream][:1] == [bruit.MemberJoined]


def test_it_begins_when_it_is_made():
    with cluster(1) as nodes:
        stream = nodes[0].events(kinds=bruit.MemberJoined, timeout=5)
        nodes.add("late")
        nodes.wait()
        assert next(stream).member.name == "late"


def test_before_the_start_it_sees_everything():
    node = alone("a", seeds=[])
    stream = node.events(timeout=10)
    with node:
        assert any(isinstance(event, bruit.Settled) for event in take(stream, 1, bruit.Settled))


def test_metadata_before_the_start_disturbs_nobody_who_waits():
    node = alone("a")
    stream, seen = node.events(kinds=bruit.Settled), []
    reader = threading.Thread(target=lambda: seen.append(stream.next(30)))
    reader.start()
    until(lambda: asleep(reader.native_id))
    for number in range(20):
        node.meta["number"] = str(number)
    with node:
        reader.join(20)
        assert [type(event) for event in seen] == [bruit.Settled]


def take(stream, count, kind):
    found = []
    for event in stream:
        if isinstance(event, kind):
            found.append(event)
            if len(found) == count:
                return found
    raise AssertionError(f"only {found}")


def test_it_ends_with_the_node_and_gives_what_came_before():
    with cluster(2) as nodes:
        a, b = nodes
        stream = a.events()
        b.leave()
        b.stop()
        a.wait_for(lambda members: members.get("n1").state == "left", timeout=10)
        a.stop()
        kinds = [type(event) for event in stream]
        assert bruit.MemberLeft in kinds
        assert stream.ended
        assert list(stream) == []


def test_a_reader_that_is_too_slow_is_told():
    with alone("a") as node:
        stream = node.events(buffer=1)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                # Nobody is there; each ends with a JoinDone.
                node.join(["127.0.0.1:1"], timeout=5)
        lost = next(stream)
        assert isinstance(lost, bruit.EventsLost) and lost.count >= 2
        assert isinstance(next(stream), bruit.JoinDone)
    with pytest.raises(bruit.InvalidError):
        node.events(buffer=0)


def test_close_wakes_the_reader():
    with alone("a") as node:
        stream = node.events()
        seen = []
        reader = threading.Thread(target=lambda: seen.extend(stream))
        reader.start()
        until(lambda: asleep(reader.native_id))
        stream.close()
        reader.join(5)
        assert not reader.is_alive()
        assert stream.next(0) is None and stream.ended


def test_next_with_a_timeout():
    with alone("a") as node, node.events(kinds=bruit.MemberEvent) as stream:
        began = time.monotonic()
        assert stream.next("150ms") is None
        assert time.monotonic() - began >= 0.14
        assert stream.next(0) is None


def test_several_streams_see_the_same():
    with cluster(1) as nodes:
        streams = [nodes[0].events(kinds=bruit.MemberJoined, timeout=5) for _ in range(3)]
        nodes.add("late")
        assert [next(stream).member.name for stream in streams] == ["late"] * 3


def test_a_stream_keeps_its_node():
    stream = alone("a").start().events(timeout=0.2)
    list(stream)
    assert not stream.ended
    stream._node.stop()
    assert stream.ended


def test_many_readers_and_a_stop():
    with alone("a") as node:
        stream = node.events()
        readers = [threading.Thread(target=list, args=(stream,)) for _ in range(8)]
        for reader in readers:
            reader.start()
        until(lambda: all(asleep(reader.native_id) for reader in readers))
        node.stop()
        for reader in readers:
            reader.join(5)
        assert not any(reader.is_alive() for reader in readers)
