"""From the library's log to `logging`: logger ``bruit``, and ``bruit.<part>`` below it.

The library's threads write into a bounded native ring and never wait for Python: a full ring drops, and the count of
what it dropped is logged. One daemon thread of ours takes batches out of it and hands them to `logging`. It starts with
the first node and ends with the process.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import Optional

from bruit import _native

logger = logging.getLogger("bruit")
logger.addHandler(logging.NullHandler())

TRACE = 5
"""The level of the library's finest log lines, below `logging.DEBUG`."""

_RING_LINES = 4096
_BATCH_LINES = 256

# By syslog number; 8 is trace.
_LEVELS = (
    logging.CRITICAL,
    logging.CRITICAL,
    logging.CRITICAL,
    logging.ERROR,
    logging.WARNING,
    logging.INFO,
    logging.INFO,
    logging.DEBUG,
    TRACE,
)

_lock = threading.Lock()
_ring = _native.LogRing(_RING_LINES)
_thread: Optional[threading.Thread] = None


def native_level(level: int) -> int:
    """The syslog number up to which the library should log, for a level of `logging`. -1: nothing."""
    return max((number for number, ours in enumerate(_LEVELS) if ours >= level), default=-1)


def ring() -> _native.LogRing:
    return _ring


def start() -> None:
    global _thread
    with _lock:
        if _thread is None:
            _thread = threading.Thread(target=_forward, args=(_ring,), name="bruit-log", daemon=True)
            _thread.start()


def flush_and_end() -> None:
    """At exit: hand over what is there, and let the thread end before the interpreter does."""
    thread = _thread
    _ring.close()
    if thread is not None:
        thread.join(1.0)


def _forward(ring: _native.LogRing) -> None:
    while True:
        batch = ring.take(_BATCH_LINES)
        if batch is None:
            return
        lines, dropped = batch
        for level, target, text, node in lines:
            _emit(_LEVELS[min(level, 8)], target, text, node)
        if dropped:
            _emit(logging.WARNING, "", f"{dropped} log lines dropped", "")


def _emit(level: int, target: str, text: str, node: str) -> None:
    # `bruit::node` of the library is `bruit.node` here.
    part = target.replace("::", ".")
    to = logging.getLogger(part) if part.startswith("bruit.") else logger
    say(level, "%s%s", f"{node}: " if node else "", text, to=to, node=node)


def say(level: int, text: str, *args: object, to: logging.Logger = logger, node: str = "", trace: bool = False) -> None:
    """Log, whatever a handler does. One that raises is the application's affair: it must not end a thread of ours."""
    try:
        if to.isEnabledFor(level):
            to.log(level, text, *args, exc_info=trace, extra={"bruit_node": node})
    except Exception:
        pass


def _after_fork_in_child() -> None:
    """The thread stayed in the parent, and its ring and lock with it."""
    global _lock, _ring, _thread
    _lock = threading.Lock()
    _ring = _native.LogRing(_RING_LINES)
    _thread = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
