"""Members in processes of their own that die, leave and come back."""

from __future__ import annotations

import signal

import bruit
from bruit.testing import cluster


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
