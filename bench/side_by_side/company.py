"""Works of several processes: each is the program's `member`, one node. Prints one line of JSON, as the programs do.

    company.py start COMMAND...                     one runs; another starts: milliseconds until it lists the first
    company.py busy nodes=10 seconds=40 hogs=1 COMMAND...   members beside programs that never rest: false deaths
"""

from __future__ import annotations

import json
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


def busy(command: Sequence[str], options: dict[str, float]) -> dict[str, float]:
    nodes, hogs = int(options["nodes"]), list[subprocess.Popen[bytes]]()
    with Company(command) as company:
        try:
            first = company.start(nodes)
            company.pump(lambda: bool(first.address))
            for _ in range(nodes - 1):
                company.start(nodes)
            company.pump(lambda: all(member.live >= nodes for member in company.members))
            if not all(member.live >= nodes for member in company.members):
                raise RuntimeError(f"they did not find each other within {PATIENCE:.0f} s")
            company.losses = 0
            hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(int(options["hogs"]))]
            company.pump(lambda: False, options["seconds"])
            return {"false_deaths": float(company.losses)}
        finally:
            for hog in hogs:
                hog.kill()
                hog.wait()


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
