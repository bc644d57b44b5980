"""Works of several processes: each is the program's `member`, one node. Prints one line of JSON, as the programs do.

    company.py start COMMAND...                     one runs; another starts: milliseconds until it lists the first
    company.py busy nodes=10 settle=40 seconds=60 hogs=1 COMMAND...
                                                    members beside programs that never rest, so many in their session and so
                                                    many in others: false deaths
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence

PATIENCE = 60.0


Lines = queue.Queue[tuple[float, "Member", dict[str, object]]]


class Member:
    """One process. Its lines come into a queue with the moment at which they came."""

    def __init__(self, command: Sequence[str], words: Sequence[str], lines: Lines) -> None:
        self.began, self.live, self.address = time.monotonic(), 0, ""
        pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
        self.process = subprocess.Popen([*command, "member", *words], stdin=pipe, stdout=pipe, stderr=nothing, text=True)
        threading.Thread(target=self._read, args=(lines,), daemon=True).start()

    def _read(self, lines: Lines) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            try:
                lines.put((time.monotonic(), self, json.loads(line)))
            except ValueError:
                pass


class Company:
    """Members that know each other through the first."""

    def __init__(self, command: Sequence[str]) -> None:
        self.command, self.members = command, list[Member]()
        self.lines: Lines = queue.Queue()
        # Times that somebody listed fewer than before.
        self.losses = 0

    def __enter__(self) -> Company:
        return self

    def __exit__(self, *_: object) -> None:
        for member in self.members:
            member.process.kill()
            member.process.wait()

    def start(self, nodes: int) -> Member:
        words = [f"name=n{len(self.members)}", f"nodes={nodes}"]
        if self.members:
            words.append(f"seed={self.members[0].address}")
        member = Member(self.command, words, self.lines)
        self.members.append(member)
        return member

    def pump(self, done: Callable[[], bool], seconds: float = PATIENCE) -> float:
        """Takes lines until that is so, or the time is over; the moment of the last line."""
        end, at = time.monotonic() + seconds, time.monotonic()
        while not done() and (left := end - time.monotonic()) > 0:
            try:
                at, member, said = self.lines.get(timeout=left)
            except queue.Empty:
                break
            if isinstance(address := said.get("address"), str):
                member.address = address
            if isinstance(live := said.get("live"), int):
                self.losses += max(0, member.live - live)
                member.live = live
        return at


def start(command: Sequence[str], _: dict[str, float]) -> dict[str, float]:
    with Company(command) as company:
        first = company.start(2)
        company.pump(lambda: bool(first.address))
        second = company.start(2)
        at = company.pump(lambda: second.live >= 2)
        if second.live < 2:
            raise RuntimeError(f"it listed nobody within {PATIENCE:.0f} s")
        return {"first_member_ms": 1e3 * (at - second.began)}


# Never rests, and does not outlive who started it.
HOG = """
import os, sys
while os.getppid() == int(sys.argv[1]):
    for _ in range(1_000_000):
        pass
"""


def hog(stranger: bool) -> subprocess.Popen[bytes]:
    """In the session of the members, as what else their user runs, or in one of its own, as other users' programs are. Linux
    shares processors between sessions first: one that has a hog waits as a whole for those of others."""
    command, nothing = [sys.executable, "-c", HOG, str(os.getpid())], subprocess.DEVNULL
    return subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=stranger)


class Meter(threading.Thread):
    """Wants to run every 10 ms, in the session of the members; the longest that it was kept waiting beyond that.

    As many as there are members: some processes of a session wait for seconds while others do not wait at all."""

    STEP = 0.01

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.longest, self.over = 0.0, threading.Event()

    def run(self) -> None:
        at = time.monotonic()
        while not self.over.wait(self.STEP):
            now = time.monotonic()
            self.longest, at = max(self.longest, now - at - self.STEP), now


def busy(command: Sequence[str], options: dict[str, float]) -> dict[str, float]:
    nodes, settle, hogs = int(options["nodes"]), options["settle"], list[subprocess.Popen[bytes]]()
    calm, meters = time.monotonic() + settle, [Meter() for _ in range(nodes)]
    with Company(command) as company:
        try:
            first = company.start(nodes)
            company.pump(lambda: bool(first.address), calm - time.monotonic())
            for _ in range(nodes - 1):
                company.start(nodes)
            company.pump(lambda: all(member.live >= nodes for member in company.members), calm - time.monotonic())
            if not all(member.live >= nodes for member in company.members):
                raise RuntimeError(f"they did not find each other within {settle:.0f} s")
            # All entrants have this moment in common: nobody's hogs disturb who is still looking for the others.
            company.pump(lambda: False, calm - time.monotonic())
            company.losses = 0
            hogs = [hog(stranger) for stranger in (False, True) for _ in range(int(options["hogs"]))]
            for meter in meters:
                meter.start()
            company.pump(lambda: False, options["seconds"])
            return {"false_deaths": float(company.losses), "longest_stall_s": max(meter.longest for meter in meters)}
        finally:
            for meter in meters:
                meter.over.set()
            for one in hogs:
                one.kill()
                one.wait()


def main(words: Sequence[str]) -> int:
    work, options, rest = words[0], dict[str, float](), list(words[1:])
    while rest and "=" in rest[0] and "/" not in rest[0]:
        name, value = rest.pop(0).split("=")
        options[name] = float(value)
    try:
        figures = {"start": start, "busy": busy}[work](rest, options)
    except RuntimeError as trouble:
        print(json.dumps({"error": str(trouble)}))
        return 1
    print(json.dumps({"figures": figures}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
