"""Members in processes of their own that die, leave and come back."""

from __future__ import annotations

import signal
import time

import bruit
import pytest
from bruit.testing import cluster
from conftest import alone, asleep, until


def kinds_until(stream, last, name):
    """The kinds of events about that member up to one of kind `last`, and that event.

    Of it alone: on a busy machine anybody may be suspected for a moment.
    """
    seen = []
    for event in stream:
        if event.member.name != name:
            continue
        seen.append(type(event))
        if isinstance(event, last):
            return seen, event
    raise AssertionError(f"no {last} in {seen}")


def test_kill_9_is_suspected_then_dead(outsider):
    with cluster(2) as nodes:
        victim = outsider(nodes, "victim", meta={"role": "victim"})
        streams = [node.events(kinds=bruit.MemberEvent, timeout=20) for node in nodes]
        victim.kill()
        for stream in streams:
            seen, event = kinds_until(stream, bruit.MemberDead, "victim")
            assert seen == [bruit.MemberSuspect, bruit.MemberDead]
            assert (event.member.name, event.member.epoch, event.member.state) == ("victim", victim.epoch, "dead")
            assert event.before.state == "suspect" and bruit.Changed.STATE in event.changed
            assert event.member.meta == {"role": "victim"}
        assert nodes[0].member("victim").state is bruit.MemberState.DEAD
        assert nodes[0].members().tagged("role=victim") == []


def test_a_graceful_end_is_seen_as_left(outsider):
    with cluster(2) as nodes:
        guest = outsider(nodes, "guest")
        stream = nodes[0].events(kinds=bruit.MemberEvent, timeout=20)
        guest.leave()
        seen, event = kinds_until(stream, bruit.MemberLeft, "guest")
        assert seen == [bruit.MemberLeft] and event.member.name == "guest"
        assert nodes[0].member("guest").state == "left"


def test_restarted_after_kill_9_it_has_a_higher_epoch(outsider):
    with cluster(2) as nodes:
        victim = outsider(nodes, "victim")
        stream = nodes[0].events(kinds=bruit.MemberEvent, timeout=20)
        victim.kill()
        kinds_until(stream, bruit.MemberDead, "victim")
        again = outsider(nodes, "victim")
        _, event = kinds_until(stream, (bruit.MemberRecovered, bruit.MemberJoined), "victim")
        assert again.epoch > victim.epoch
        assert (event.member.name, event.member.epoch) == ("victim", again.epoch)
        if isinstance(event, bruit.MemberRecovered):
            assert event.restarted and event.before.epoch == victim.epoch
        assert event.member != bruit.Member("victim", epoch=victim.epoch)


def test_restarted_before_anybody_noticed(outsider):
    with cluster(2) as nodes:
        victim = outsider(nodes, "victim")
        victim.kill()
        again = outsider(nodes, "victim")
        assert again.epoch > victim.epoch
        for node in nodes:
            node.wait_for(3, timeout=20)


def test_a_stopped_process_is_suspected_and_refutes(outsider):
    with cluster(2) as nodes:
        sleeper = outsider(nodes, "sleeper")
        stream = nodes[0].events(kinds=bruit.MemberEvent, timeout=20)
        sleeper.send(signal.SIGSTOP)
        try:
            kinds_until(stream, bruit.MemberSuspect, "sleeper")
        finally:
            sleeper.send(signal.SIGCONT)
        _, event = kinds_until(stream, bruit.MemberRecovered, "sleeper")
        assert event.member.name == "sleeper" and event.member.epoch == sleeper.epoch


def test_leaving_unheard_is_a_timeout(outsider):
    with cluster(1) as nodes:
        sleeper = outsider(nodes, "sleeper")
        sleeper.send(signal.SIGSTOP)
        pid = sleeper.process.pid
        until(lambda: asleep(pid, pid, "T"))
        with pytest.raises(TimeoutError, match="acknowledged"):
            nodes[0].leave(timeout=0.2)
        assert nodes[0].state == "left"


def test_a_name_in_use_is_refused():
    with cluster(2) as nodes:
        holder = nodes[1].local
        with alone(**{**nodes.options, "name": "n1"}) as twin:
            for node in nodes:
                with pytest.raises(ConnectionRefusedError, match="name in use") as caught:
                    twin.join([node.address], timeout=20)
                assert isinstance(caught.value, bruit.RefusedError)
            assert len(twin.members()) == 1
        assert [(len(node.members()), node.member("n1")) for node in nodes] == [(2, holder)] * 2


def test_of_two_namesakes_whose_clusters_merge_the_older_is_told():
    with cluster(2, names=["a", "twin"]) as nodes:
        # Epochs are in milliseconds: of two runs of one, chance decides which is the older.
        until(lambda: time.time_ns() // 1_000_000 > nodes[1].local.epoch)
        with cluster(2, names=["b", "twin"], **nodes.options) as others:
            told = [node.events(kinds=bruit.NameConflict, timeout=20) for node in nodes]
            assert nodes[0].join([others[0].address], timeout=20) == 1
            conflict = next(told[1])
            assert conflict.member.run == others[1].local.run != nodes[1].local.run
            for node in (nodes[0], *others):
                node.wait_for(lambda members: len(members.alive) == 3, timeout=20)
                assert node.member("twin") == others[1].local
