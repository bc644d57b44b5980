"""Handlers: on which thread, in which order, how they end, and what they may do."""

from __future__ import annotations

import logging
import threading
import weakref

import bruit
import pytest
from bruit.testing import cluster
from conftest import alone, until


def provoke(node):
    """One event about itself: a JoinDone."""
    node.join(["127.0.0.1:1"], timeout=0)


def test_handlers_run_in_order_on_one_thread_of_the_node():
    with cluster(1) as nodes:
        (a,) = nodes
        heard = []
        a.on_event(lambda event: heard.append((1, event, threading.current_thread().name)))
        a.on_event(lambda event: heard.append((2, event, threading.current_thread().name)), kinds=bruit.MemberJoined)
        nodes.add("late")
        until(lambda: any(number == 2 for number, _, _ in heard))
        at = next(i for i, (number, _, _) in enumerate(heard) if number == 2)
        assert heard[at - 1] == (1, *heard[at][1:])
        assert {name for _, _, name in heard} == {"bruit-py n0"}


def test_before_the_start_they_see_everything():
    heard = []
    node = alone("a")
    node.on_event(heard.append)
    with node:
        until(lambda: any(isinstance(event, bruit.Settled) for event in heard))


def test_it_is_a_decorator():
    with alone("a") as node:
        done = threading.Event()

        @node.on_event
        def one(event):
            pass

        @node.on_event(kinds=bruit.JoinDone)
        def two(event):
            done.set()
            return 7

        provoke(node)
        assert done.wait(10)
        assert isinstance(two, bruit.Subscription) and two.active
        assert two(bruit.Settled()) == 7
        with pytest.raises(TypeError):
            node.on_event(5)
        with pytest.raises(TypeError):
            node.on_event(print, kinds=int)


def test_what_a_handler_raises_is_logged_and_not_fatal(caplog):
    with alone("a") as node:
        heard = []

        def broken(event):
            raise SystemExit("not from here") if heard else ZeroDivisionError("on purpose")

        node.on_event(broken, kinds=bruit.JoinDone)
        node.on_event(heard.append, kinds=bruit.JoinDone)
        with caplog.at_level(logging.ERROR, logger="bruit"):
            provoke(node)
            until(lambda: len(heard) == 1)
            provoke(node)
            until(lambda: len(heard) == 2)
            failures = until(lambda: len(found := [r for r in caplog.records if r.exc_info]) == 2 and found)
        assert [record.exc_info[0] for record in failures] == [ZeroDivisionError, SystemExit]
        assert "broken" in failures[0].getMessage()


def test_after_cancel_has_returned_it_does_not_run():
    with alone("a") as node:
        inside, go_on, ran = threading.Event(), threading.Event(), []

        @node.on_event(kinds=bruit.JoinDone)
        def slow(event):
            ran.append(event)
            inside.set()
            go_on.wait(10)

        provoke(node)
        assert inside.wait(10)
        canceling = threading.Thread(target=slow.cancel)
        canceling.start()
        canceling.join(0.1)
        assert canceling.is_alive(), "cancel waits for the call that runs"
        go_on.set()
        canceling.join(10)
        assert not canceling.is_alive() and not slow.active
        heard = []
        node.on_event(heard.append, kinds=bruit.JoinDone)
        provoke(node)
        until(lambda: heard)
        assert len(ran) == 1
        slow.cancel()


def test_cancel_inside_itself_and_of_another():
    with alone("a") as node:
        heard = []
        later = None

        @node.on_event(kinds=bruit.JoinDone)
        def once(event):
            heard.append("once")
            once.cancel()
            later.cancel()

        later = node.on_event(lambda event: heard.append("later"), kinds=bruit.JoinDone)
        with node.on_event(lambda event: heard.append("last"), kinds=bruit.JoinDone):
            provoke(node)
            until(lambda: "last" in heard)
            provoke(node)
            until(lambda: heard.count("last") == 2)
        assert heard == ["once", "last", "last"]


@pytest.mark.parametrize("most, is_enough", [(2, False), (1000, True)])
def test_what_may_wait_for_a_handler_follows_from_the_options(most, is_enough):
    """As in C: `inbox_capacity`, or four events for each of `max_members`, for none about a member may be lost."""
    with alone("a", inbox_capacity=16, max_members=most) as node:
        inside, go_on, heard = threading.Event(), threading.Event(), []

        @node.on_event(kinds=(bruit.JoinDone, bruit.EventsLost))
        def slow(event):
            heard.append(event)
            inside.set()
            go_on.wait(20)

        provoke(node)
        assert inside.wait(10)
        with node.events(kinds=bruit.JoinDone, timeout=10) as done:
            for _ in range(40):
                provoke(node)
                assert next(done)
        go_on.set()
        until(lambda: len(heard) + sum(event.count - 1 for event in heard if isinstance(event, bruit.EventsLost)) >= 41)
        assert any(isinstance(event, bruit.EventsLost) for event in heard) != is_enough


def test_stop_in_a_callback():
    node = alone("a").start()
    seen = []

    @node.on_event(kinds=bruit.JoinDone)
    def stop(event):
        try:
            node.stop()
        except bruit.DeadlockError as error:
            seen.append(error)
        node.stop(timeout=0)
        seen.append(node.state)

    provoke(node)
    until(lambda: len(seen) == 2)
    assert isinstance(seen[0], RuntimeError)
    assert seen[1] in ("stopped", "running", "leaving")
    node.stop()
    assert node.state == "stopped"


def test_the_end_of_with_in_a_callback():
    node = alone("a").start()
    ended = threading.Event()

    @node.on_event(kinds=bruit.JoinDone)
    def end(event):
        with node:
            pass
        ended.set()

    provoke(node)
    assert ended.wait(15)
    node.stop()


def test_other_calls_work_in_a_callback():
    with cluster(1) as nodes:
        (a,) = nodes
        b = alone("b", keys=nodes.options["keys"], cluster=nodes.options["cluster"])
        with b:
            found = []

            @a.on_event(kinds=bruit.JoinDone)
            def everything(event):
                if not found:
                    a.meta["seen"] = "yes"
                    found.append((a.join([b.address], timeout=10), len(a.wait_for(2, timeout=10)), a.stats() != {}))

            provoke(a)
            until(lambda: found)
            assert found == [(1, 2, True)]


@pytest.mark.parametrize("again", range(10))
def test_no_callback_runs_after_stop_has_returned(again):
    node = alone("a").start()
    running, stopped, late = threading.Event(), threading.Event(), []

    @node.on_event
    def handler(event):
        running.set()
        if stopped.is_set():
            late.append(event)

    for _ in range(20):
        provoke(node)
    assert running.wait(10)
    node.stop()
    stopped.set()
    assert "bruit-py a" not in [thread.name for thread in threading.enumerate()]
    assert late == []


def test_stop_waits_for_a_callback_and_says_when_it_cannot():
    node = alone("a").start()
    inside, go_on = threading.Event(), threading.Event()

    @node.on_event(kinds=bruit.JoinDone)
    def slow(event):
        inside.set()
        go_on.wait(20)

    provoke(node)
    assert inside.wait(10)
    with pytest.raises(TimeoutError, match="callback"):
        node.stop(timeout=0.1)
    go_on.set()
    node.stop()


def test_deleting_the_node_while_its_callback_runs():
    inside, go_on, after = threading.Event(), threading.Event(), threading.Event()

    def handler(event):
        inside.set()
        go_on.wait(20)
        after.set()

    node = alone("a").start()
    node.on_event(handler, kinds=bruit.JoinDone)
    provoke(node)
    assert inside.wait(10)
    gone = weakref.ref(node)
    with pytest.warns(ResourceWarning, match="unclosed node"):
        del node
    assert gone() is None, "a running callback does not keep the node"
    go_on.set()
    assert after.wait(10)
    until(lambda: "bruit-py a" not in [thread.name for thread in threading.enumerate()])


def test_deleting_the_node_in_its_callback():
    nodes = [alone("a").start()]
    only_here, done = threading.Event(), threading.Event()

    def handler(event):
        only_here.wait(10)
        with pytest.warns(ResourceWarning):
            nodes.clear()
        done.set()

    nodes[0].on_event(handler, kinds=bruit.JoinDone)
    provoke(nodes[0])
    only_here.set()
    assert done.wait(10)
    until(lambda: "bruit-py a" not in [thread.name for thread in threading.enumerate()])
