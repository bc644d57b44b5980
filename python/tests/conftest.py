"""What the tests share: scripts in processes of their own, and waiting for conditions instead of for time."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from typing import Any, Callable, Optional

import bruit
import pytest
from bruit.testing import Cluster

# A background job of a shell begins with SIGINT ignored, and so would every program that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A process that forks with threads running is warned of by Python 3.12 and later; that is what these tests do.
WARNINGS = ["-W", "error", "-W", "ignore:This process:DeprecationWarning"]


def until(condition: Callable[[], Any], timeout: float = 10.0) -> Any:
    """Wait until `condition()` is true and return its value."""
    end = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.005)
    return value


def asleep(thread: Optional[int], process: object = "self", state: str = "S") -> bool:
    """Does that thread wait in the kernel? For one that is known to be on its way into a wait. `state` "T": stopped."""
    with open(f"/proc/{process}/task/{thread}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] == state


class Script:
    """A Python program in a process of its own; its standard output line by line."""

    def __init__(self, code: str, *args: str, check_output: bool = True) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-u", *WARNINGS, "-c", textwrap.dedent(code), *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONFAULTHANDLER": "1"},
        )
        self.lines: list[str] = []

    def expect(self, wanted: str, timeout: float = 20.0) -> str:
        """Read until a line begins with `wanted`; the rest of that line."""
        assert self.process.stdout is not None
        watchdog = threading.Timer(timeout, self.process.send_signal, [signal.SIGABRT])
        watchdog.start()
        try:
            for line in self.process.stdout:
                self.lines.append(line)
                if line.startswith(wanted):
                    return line[len(wanted) :].strip()
        finally:
            watchdog.cancel()
        _, errors = self.process.communicate(timeout=10)
        raise AssertionError(f"no {wanted!r} in {self.lines!r}; errors: {errors}")

    def threads(self) -> list[str]:
        """The names of its threads."""
        found = []
        for thread in os.listdir(f"/proc/{self.process.pid}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{self.process.pid}/task/{thread}/comm") as name:
                found.append(name.read().strip())
        return found

    def until_it_waits(self) -> None:
        """Until its main thread waits: for the one thing that it can wait for after its last line."""
        until(lambda: asleep(self.process.pid, self.process.pid), 20)

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def finish(self, timeout: float = 20.0) -> tuple[int, str, str]:
        """Its exit code, output and errors. A process that hangs shows where (faulthandler) and fails the test."""
        try:
            out, errors = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)
            out, errors = self.process.communicate(timeout=10)
            raise AssertionError(f"hangs after {''.join(self.lines)}{out}\n{errors}") from None
        return self.process.returncode, "".join(self.lines) + out, errors

    def succeed(self, timeout: float = 20.0) -> str:
        """Its output; it must have ended well, and said nothing on its standard error."""
        code, out, errors = self.finish(timeout)
        assert (code, errors) == (0, ""), f"exit code {code}\n{out}\n{errors}"
        return out


@pytest.fixture
def script() -> Iterator[Callable[..., Script]]:
    """Starts scripts, and ends those that are left."""
    started: list[Script] = []

    def start(code: str, *args: str) -> Script:
        started.append(Script(code, *args))
        return started[-1]

    yield start
    for one in started:
        with contextlib.suppress(ProcessLookupError):
            one.process.kill()
        one.process.communicate()


# A node in a process of its own: a member of the cluster whose options are given as an argument.
MEMBER = """
    import json, sys
    import bruit

    options = json.loads(sys.argv[1])
    with bruit.Node(**options) as node:
        node.wait_for(2, timeout=15)
        print("up", node.local.epoch)
        sys.stdin.read()
    print("gone")
"""


class Outsider(Script):
    """A member in a process of its own, which can be killed, or told to leave."""

    def __init__(self, nodes: Cluster, name: str, **options: Any) -> None:
        import json

        given = {**nodes.options, "seeds": nodes.seeds(), "name": name, **options}
        self.process = subprocess.Popen(
            [sys.executable, "-u", *WARNINGS, "-c", textwrap.dedent(MEMBER), json.dumps(given)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines = []
        self.epoch = int(self.expect("up"))

        def is_known(members: bruit.Members) -> bool:
            member = members.get(name)
            return member is not None and (member.epoch, member.state) == (self.epoch, "alive")

        for node in nodes:
            node.wait_for(is_known, timeout=20)

    def kill(self) -> None:
        """kill -9: no good-bye."""
        self.process.kill()
        self.process.wait()

    def leave(self) -> None:
        """Let it end by itself, gracefully."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.stdin = None
        self.expect("gone")
        self.process.wait(10)


@pytest.fixture
def outsider() -> Iterator[Callable[..., Outsider]]:
    """Starts members in processes of their own."""
    started: list[Outsider] = []

    def start(nodes: Cluster, name: str, **options: Any) -> Outsider:
        started.append(Outsider(nodes, name, **options))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.communicate()


@pytest.fixture
def node() -> Iterator[bruit.Node]:
    """One running node, alone."""
    with alone("a") as running:
        yield running


def alone(name: Optional[str] = None, **options: Any) -> bruit.Node:
    """A node for itself on the loopback interface."""
    return bruit.Node(name, **{"bind": "127.0.0.1:0", "profile": "local", **options})
