"""Node programs as child processes: starts them, reads their lines, and never leaves one behind.

Used by the demo (run.py) and by the soak test (bench/soak.py). Standard library only.
"""

import queue
import signal
import subprocess
import sys
import threading
import time


class Seen:
    """What one observer was told about one member."""

    def __init__(self, state, epoch, at):
        self.state, self.epoch, self.at = state, epoch, at


# The state in which each event leaves its member.
STATES = {
    "JOIN": "alive",
    "UPDATE": None,
    "ALIVE": "alive",
    "SUSPECT": "suspect",
    "DEAD": "dead",
    "LEFT": "left",
    "FORGOTTEN": "gone",
}


class Child:
    """One run of one node program."""

    def __init__(self, cluster, name, command, nice=0):
        self.name = name
        self.address = None
        self.table = {}  # member name -> Seen
        self.said_bye = False
        if nice:
            command = ["nice", "-n", str(nice), *command]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        self.reader = threading.Thread(target=self._read, args=(cluster.lines,), daemon=True)
        self.reader.start()

    def _read(self, lines):
        for line in self.process.stdout:
            lines.put((time.monotonic(), self, line.split()))

    def lists(self, state="alive"):
        """How many members, itself included, this node lists in that state."""
        own = 1 if state == "alive" and self.address else 0
        return own + sum(1 for name, seen in self.table.items() if name != self.name and seen.state == state)


class Failure(Exception):
    """A step was not seen; the text says which."""


class Cluster:
    """Children by name. Use as a context manager: leaving it, for whatever reason, kills what still runs."""

    def __init__(self):
        self.lines = queue.Queue()
        self.children = {}  # name -> Child that runs now
        self.all = []  # every Child that was ever started
        self.events = []  # (time, observer's Child, kind, member, epoch)
        self.on_event = None

    def __enter__(self):
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: sys.exit(1))
        return self

    def __exit__(self, *_):
        for child in self.all:
            if child.process.poll() is None:
                child.process.kill()
        for child in self.all:
            child.process.wait()

    def start(self, name, command, nice=0):
        child = Child(self, name, command, nice)
        self.children[name] = child
        self.all.append(child)
        return child

    def forget(self, name):
        """The caller has ended that child, or is about to."""
        return self.children.pop(name)

    def pump(self, done, what, seconds):
        """Reads lines until `done()`; raises Failure with `what` after that many seconds."""
        end = time.monotonic() + seconds
        while not done():
            left = end - time.monotonic()
            if left <= 0:
                raise Failure(f"not within {seconds} s: {what}")
            for child in self.children.values():
                if child.process.poll() is not None and not child.said_bye and self.lines.empty():
                    raise Failure(f"{child.name} ended with exit code {child.process.returncode} while waiting: {what}")
            try:
                self._take(*self.lines.get(timeout=min(left, 0.2)))
            except queue.Empty:
                pass

    def watch(self, seconds):
        """Reads lines for that long."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            try:
                self._take(*self.lines.get(timeout=left))
            except queue.Empty:
                pass

    def _take(self, at, child, words):
        word = words[0] if words else ""
        if word == "ready":
            child.address = words[2]
        elif word == "bye":
            child.said_bye = True
        elif word == "event" and len(words) == 5:
            _, kind, member, _address, epoch = words
            epoch = int(epoch)
            self.events.append((at, child, kind, member, epoch))
            state = STATES.get(kind)
            if state:
                child.table[member] = Seen(state, epoch, at)
            if self.on_event:
                self.on_event(at, child, kind, member, epoch)

    def told(self, kind, member, since=0.0):
        """The first time that each running observer was told this about that member: {observer: time}."""
        times = {}
        for at, child, event, about, _epoch in self.events:
            if at >= since and event == kind and about == member and self.children.get(child.name) is child:
                times.setdefault(child.name, at)
        return times
