"""The library's log goes to `logging`, in batches, and never holds anything up."""

from __future__ import annotations

import logging
import threading
import time

import bruit
from bruit import _log, _native
from conftest import alone, until


def test_the_library_logs_to_its_logger(caplog):
    with caplog.at_level(1, logger="bruit"):
        with alone("talker", log_level=1) as node:
            until(lambda: [record for record in caplog.records if record.bruit_node == node.name])
    record = next(record for record in caplog.records if record.bruit_node == "talker")
    assert record.name == "bruit" or record.name.startswith("bruit.")
    assert record.getMessage().startswith("talker: ")


def test_levels():
    assert _log.native_level(logging.INFO) == 6
    assert _log.native_level(logging.DEBUG) == 7
    assert _log.native_level(logging.WARNING) == 4
    assert _log.native_level(logging.ERROR) == 3
    assert _log.native_level(1) == 8
    assert _log.native_level(logging.CRITICAL + 1) == -1


def test_a_node_may_be_silent(caplog):
    with caplog.at_level(1, logger="bruit"):
        with alone("silent", log_level=logging.CRITICAL + 1) as node:
            node.events(kinds=bruit.Settled, timeout=5).next(5)
    assert not [record for record in caplog.records if getattr(record, "bruit_node", "") == "silent"]


class Slow(logging.Handler):
    """A handler that takes its time, and one that fails."""

    def __init__(self):
        super().__init__()
        self.go_on = threading.Event()
        self.inside = threading.Event()

    def emit(self, record):
        self.inside.set()
        self.go_on.wait(10)
        raise OSError("the disk is full")


def test_a_handler_that_blocks_or_raises_holds_nothing_up():
    logger, slow = logging.getLogger("bruit"), Slow()
    logger.addHandler(slow)
    old, logger.level = logger.level, 1
    try:
        began = time.monotonic()
        with alone("a", log_level=1) as a, alone("b", seeds=[a.address], log_level=1) as b:
            a.wait_for(2, timeout=10)
            b.wait_for(2, timeout=10)
            b.meta["role"] = "db"
            assert slow.inside.wait(10)
        assert time.monotonic() - began < 9
    finally:
        logger.level = old
        slow.go_on.set()
        logger.removeHandler(slow)


def test_a_handler_may_use_the_node(caplog):
    """A log handler that asks the node itself, which would deadlock were it called by a thread of the library."""
    nodes, seen = [], []

    class Curious(logging.Handler):
        def emit(self, record):
            seen.extend(len(node.members()) for node in nodes)

    logger, curious = logging.getLogger("bruit"), Curious()
    logger.addHandler(curious)
    old, logger.level = logger.level, 1
    try:
        with alone("a", log_level=1) as a:
            nodes.append(a)
            with alone("b", seeds=[a.address], log_level=1) as b:
                a.wait_for(2, timeout=10)
                b.wait_for(2, timeout=10)
            until(lambda: seen)
            nodes.clear()
    finally:
        logger.level = old
        logger.removeHandler(curious)


def test_a_ring_is_bounded_and_ends():
    ring = _native.LogRing(4)
    taken = []
    reader = threading.Thread(target=lambda: taken.append(ring.take(10)))
    reader.start()
    ring.close()
    reader.join(10)
    assert taken == [None]


def test_a_failing_handler_does_not_end_the_callbacks():
    """What a callback raises is logged; and when that raises too, the next callback still runs."""
    logger, heard = logging.getLogger("bruit"), []

    class Broken(logging.Handler):
        def emit(self, record):
            raise OSError("the disk is full")

    broken = Broken()
    logger.addHandler(broken)
    try:
        with alone("a") as node:

            @node.on_event(kinds=bruit.JoinDone)
            def handler(event):
                heard.append(event)
                raise ZeroDivisionError

            for count in (1, 2):
                node.join(["127.0.0.1:1"], timeout=0)
                until(lambda count=count: len(heard) == count)
    finally:
        logger.removeHandler(broken)
