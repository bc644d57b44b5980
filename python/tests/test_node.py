"""The life of a node, what it shows, and what it refuses."""

from __future__ import annotations

import errno
import os
import pickle
import socket
import threading
import time
import warnings

import bruit
import pytest
from bruit.testing import cluster
from conftest import alone, until


def test_a_life():
    node = alone("a", meta={"role": "db"})
    assert node.state is bruit.NodeState.NEW
    assert node.name == "a"
    assert repr(node) == "<bruit.Node a new>"
    with pytest.raises(bruit.StateError):
        print(node.address)
    with pytest.raises(bruit.StateError):
        node.members()
    with node:
        assert node.state == "running"
        assert node.address.startswith("127.0.0.1:")
        assert node.local.name == "a" and node.local.is_local and node.local.address == node.address
        assert node.local.meta == {"role": "db"}
        assert [member.name for member in node.members()] == ["a"]
        assert node.address in repr(node)
    assert node.state is bruit.NodeState.STOPPED
    node.stop()
    node.stop(0)
    with pytest.raises(bruit.StateError):
        node.join(["127.0.0.1:1"])
    with pytest.raises(bruit.StateError):
        node.leave()


def test_start_without_with():
    node = alone("a").start()
    try:
        assert node.state == "running"
        with pytest.raises(bruit.StateError):
            node.start()
    finally:
        node.stop()


def test_a_node_that_never_started_needs_no_end():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        alone("a")
        alone("b").stop()


def test_an_automatic_name():
    with alone() as node:
        assert str(os.getpid()) in node.name
        with alone() as other:
            assert node.name != other.name


def test_the_end_of_with_leaves_also_after_an_exception():
    with cluster(2) as (a, b):
        watching = b.events(kinds=bruit.MemberEvent, timeout=10)
        with pytest.raises(ZeroDivisionError), a:
            raise ZeroDivisionError
        assert isinstance(next(watching), bruit.MemberLeft)
        assert a.state == "stopped"


def test_a_keyboard_interrupt_stops_at_once():
    with cluster(2) as (a, b):
        watching = b.events(kinds=(bruit.MemberLeft, bruit.MemberDead), timeout=20)
        with pytest.raises(KeyboardInterrupt), a:
            raise KeyboardInterrupt
        assert a.state == "stopped"
        assert isinstance(next(watching), bruit.MemberDead)


def test_an_address_in_use_is_an_os_error():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        node = alone("a", bind=f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(OSError) as caught:
            node.start()
        assert caught.value.errno == errno.EADDRINUSE
        assert isinstance(caught.value, bruit.IoError)
        assert node.state == "new"


def test_an_unclosed_node_is_warned_of_and_goes():
    node = alone("a").start()
    address = node.address
    with pytest.warns(ResourceWarning, match="unclosed node a"):
        del node

    def is_free():
        host, port = address.split(":")
        with socket.socket() as again:
            again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                again.bind((host, int(port)))
            except OSError:
                return False
        return True

    until(is_free)


def test_join():
    with alone("a") as a, alone("b") as b:
        assert b.join([a.address], timeout=10) == 1
        assert a.wait_for(2, timeout=10)
        b.wait_for(2, timeout=10)
        assert b.join(a.address) == 1


def test_join_at_once_and_an_event_follows():
    with alone("a") as a, alone("b") as b:
        done = b.events(kinds=bruit.JoinDone, timeout=10)
        assert b.join([a.address], timeout=0) == 0
        event = next(done)
        assert (type(event), event.answered) == (bruit.JoinDone, 1)


def test_join_to_nobody_times_out():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with alone("a") as node:
            with pytest.raises(TimeoutError) as caught:
                node.join([f"127.0.0.1:{silent.getsockname()[1]}"], timeout="300ms")
            assert isinstance(caught.value, bruit.TimeoutError)
            assert caught.value.errno == errno.ETIMEDOUT


def test_join_refuses_nonsense():
    with alone("a") as node:
        with pytest.raises(bruit.AddressError):
            node.join(["a b c"])
        with pytest.raises(TypeError):
            node.join([7])
        with pytest.raises(TypeError):
            node.join(["127.0.0.1:1"], timeout=[])


def test_a_cluster_sees_itself():
    with cluster(3) as nodes:
        for node in nodes:
            members = node.members()
            assert [member.name for member in members] == ["n0", "n1", "n2"]
            assert len(members) == 3 == len(members.alive)
            assert members.local == node.local == node.member(node.name)
            assert {member.epoch for member in members} == {other.local.epoch for other in nodes}
            assert members.view <= node.view
        assert nodes[0].member("n1").address == nodes[1].address
        assert nodes[0].member("n1").state_age >= 0


def test_members_are_a_sequence():
    with cluster(3) as (a, _, _):
        members = a.members()
        assert members[0].name == "n0" and members[-1].name == "n2"
        assert [member.name for member in members[1:]] == ["n1", "n2"]
        assert [member.name for member in members[::-1]] == ["n2", "n1", "n0"]
        assert [member.name for member in reversed(members)] == ["n2", "n1", "n0"]
        assert "n1" in members and members[1] in members and "x" not in members and 5 not in members
        assert bruit.Member("n1") not in members
        assert members.get("n1") == members[1] and members.get("x") is None
        assert members.index(members[2]) == 2 and members.count(members[2]) == 1
        with pytest.raises(IndexError):
            members[3]
        with pytest.raises(TypeError):
            members["n1"]
        with pytest.raises(ValueError):
            members.index(bruit.Member("n1"))
        with pytest.raises(LookupError) as caught:
            a.member("nobody")
        assert isinstance(caught.value, bruit.NotFoundError)
        import collections.abc

        assert isinstance(members, collections.abc.Sequence)
        assert "n2 alive" in repr(members)
        assert pickle.loads(pickle.dumps(list(members))) == list(members)


def test_metadata_is_a_mapping_and_an_update_is_one_event():
    with cluster(2) as (a, b):
        a.meta["role"] = "db"
        a.meta["zone"] = "eu"
        b.wait_for(lambda members: members.tagged("role=db") and members.tagged("zone=eu"), timeout=10)
        changes = b.events(kinds=bruit.MemberUpdated, timeout=20)
        a.meta.update({"raw": b"\xff\x00"}, zone="us", role=None)
        event = next(changes)
        assert event.member.meta == {"raw": "\udcff\x00", "zone": "us"}
        assert event.before.meta == {"role": "db", "zone": "eu"}
        assert event.changed == bruit.Changed.META
        assert event.member.meta_bytes["raw"] == b"\xff\x00"
        assert dict(a.meta) == {"raw": "\udcff\x00", "zone": "us"}
        assert len(a.meta) == 2 and "raw" in a.meta and a.meta.get("role") is None
        assert a.meta.pop("zone") == "us"
        after = next(changes)
        assert (after.before.meta, after.member.meta) == (event.member.meta, {"raw": "\udcff\x00"})
        a.meta.clear()
        assert dict(a.meta) == {} and repr(a.meta) == "Meta({})"
        b.wait_for(lambda members: not members.get("n0").meta, timeout=10)


def test_metadata_refuses_what_it_cannot_hold():
    with alone("a", meta={"keep": "1"}) as node:
        with pytest.raises(KeyError):
            del node.meta["role"]
        with pytest.raises(KeyError):
            node.meta["role"]
        with pytest.raises(TypeError):
            node.meta["role"] = None
        with pytest.raises(TypeError):
            node.meta["role"] = 5
        with pytest.raises(bruit.TooBigError):
            node.meta["role"] = "x" * 100_000
        with pytest.raises(ValueError):
            node.meta["a=b"] = "x"
        assert dict(node.meta) == {"keep": "1"}


def test_metadata_before_the_start():
    node = alone("a", meta={"role": "db", "zone": "eu"})
    node.meta.update(role="web", zone=None, rack="7")
    assert dict(node.meta) == {"role": "web", "rack": "7"}
    with node:
        assert dict(node.meta) == {"role": "web", "rack": "7"}


def test_wait_for():
    with cluster(2) as (a, b):
        assert len(a.wait_for(2)) == 2
        assert a.wait_for(lambda members: "n1" in members, timeout=5).get("n1") == b.local
        began = time.monotonic()
        with pytest.raises(TimeoutError, match="3 alive members.*n0 alive, n1 alive"):
            a.wait_for(3, timeout="200ms")
        assert 0.19 < time.monotonic() - began < 5


def test_wait_for_wakes_when_it_comes_true():
    with cluster(1) as nodes:
        found = []
        waiting = threading.Thread(target=lambda: found.append(len(nodes[0].wait_for(2, timeout=20))))
        waiting.start()
        nodes.add("late")
        waiting.join(20)
        assert found == [2]


def test_wait_for_ends_when_the_node_stops():
    with alone("a") as node:
        threading.Timer(0.1, node.stop).start()
        with pytest.raises(bruit.StateError):
            node.wait_for(2, timeout=20)


def test_the_view_counts_every_event():
    with cluster(1) as nodes:
        (a,) = nodes
        stream = a.events(timeout=10)
        nodes.add("late")
        event = next(event for event in stream if isinstance(event, bruit.MemberJoined))
        assert event.member.name == "late"
        assert 0 < event.view <= a.members().view


def test_options_that_are_live():
    with alone("a") as node:
        node.set("probe_interval", 2.0)
        node.set("probe_interval", "3s")
        with pytest.raises(bruit.StateError):
            node.set("bind", "127.0.0.1:0")
        with pytest.raises(bruit.InvalidError):
            node.set("probe_interval", "never")
        with pytest.raises(bruit.InvalidError, match="probe_interval"):
            node.set("probe_intervall", 1)


def test_stats():
    with cluster(2) as (a, _):
        first = a.stats()
        assert set(first) == set(bruit.stats_doc()) and all(isinstance(value, int) for value in first.values())
        until(lambda: any(a.stats()[name] > first[name] for name in first))
        assert all(bruit.stats_doc().values())


def test_many_nodes_share_the_threads_of_a_runtime():
    before = threads()
    runtime = bruit.Runtime()
    with cluster(8, runtime=runtime, timeout=20) as nodes:
        assert len(nodes) == 8
        assert threads() - before <= 4
    del runtime, nodes
    until(lambda: threads() <= before)


def threads():
    return len(os.listdir("/proc/self/task"))


def test_nothing_is_left_behind():
    with alone("warm"):
        pass
    until(lambda: "bruit-io" not in names())
    before = (threads(), len(os.listdir("/proc/self/fd")))
    for _ in range(20):
        with alone() as node:
            node.on_event(lambda event: None)
            node.events()
    until(lambda: (threads(), len(os.listdir("/proc/self/fd"))) <= before)


def names():
    found = []
    for task in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{task}/comm") as comm:
                found.append(comm.read().strip())
        except OSError:
            pass
    return found


def test_restart_under_the_same_name():
    with cluster(2) as nodes:
        a, b = nodes
        first = b.local.epoch
        watching = a.events(kinds=bruit.MemberEvent, timeout=15)
        b.leave()
        b.stop()
        assert isinstance(next(watching), bruit.MemberLeft)
        again = nodes.add("n1")
        event = next(watching)
        assert isinstance(event, (bruit.MemberRecovered, bruit.MemberJoined))
        assert event.member.name == "n1" and event.member.epoch > first
        assert event.member != event.before
        again.wait_for(2, timeout=10)
