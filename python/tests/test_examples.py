"""The programs in examples/python do what they say."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest
from conftest import WARNINGS, Script

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples" / "python"


class Example(Script):
    """One of them, in a process of its own that is spoken to."""

    def __init__(self, name: str, *args: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-u", *WARNINGS, str(EXAMPLES / name), *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines = []

    def type(self, line: str) -> None:
        assert self.process.stdin is not None
        print(line, file=self.process.stdin, flush=True)


@pytest.fixture
def example():
    started = []

    def start(name, *args):
        started.append(Example(name, *args))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.communicate()


def test_asyncio_chat(example):
    ann = example("asyncio_chat.py", "ann", "127.0.0.1:0")
    address = ann.expect("* ann at")
    bob = example("asyncio_chat.py", "bob", "127.0.0.1:0", address)
    ann.expect("* bob is alive")
    bob.expect("* ann is alive")
    ann.type("hello, grüezi")
    assert bob.expect("ann: ") == "hello, grüezi"
    bob.type("/ping ann")
    assert bob.expect("* ann ").startswith("is here and has heard 0")
    bob.type("good morning")
    assert ann.expect("bob: ") == "good morning"
    ann.type("/ping nobody")
    assert "nobody" in ann.expect("* nobody: ")
    # The end of its input is its end.
    bob.process.stdin.close()
    bob.process.stdin = None
    ann.expect("* bob is left")
    assert bob.finish()[0] == 0


def test_fanout(example):
    first = example("fanout.py", "work", "w1", "127.0.0.1:0")
    address = first.expect("w1 at")
    second = example("fanout.py", "work", "w2", "127.0.0.1:0", address)
    second.expect("w2 at")
    tell = example("fanout.py", "tell", address, "pause")
    assert tell.finish()[0] == 0
    assert first.expect("w1 is told to ") == "pause"
    ask = example("fanout.py", "ask", address)
    ask.expect("w1=0")
    assert ask.finish()[0] == 0
    assert first.expect("w1 does ") == "the dishes"
