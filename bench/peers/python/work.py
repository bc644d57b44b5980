"""The works of bench/peers/work for peers that have a Python interface: same words, same figures, same loops.

A peer's program gives `main` its `About` and a function that starts a node.
"""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Optional, Protocol

PATIENCE = 60.0
BROADCAST_WINDOW, DIRECT_WINDOW = 1_000, 4_000
# What has not moved for so long is lost.
STILL, AFTER = 2.5, 6.0
OWN_NUMBER = 65_000

HEADER, NOISE, STEP = 16, 4 << 20, 65_521
LETTERS = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_"
NOISES = os.urandom(NOISE).translate(LETTERS * 4)

Figures = dict[str, Optional[float]]


@dataclass(frozen=True)
class About:
    name: str
    sealed: str
    broadcast: str
    reliable: str
    best_effort: str
    request: str
    detects: bool
    variants: dict[str, str]
    joined: str = "each lists all"


@dataclass
class Options:
    nodes: int = 10
    bytes: int = 256
    trials: int = 1
    messages: int = 100_000
    seconds: float = 3.0
    settle: float = 1.0
    reliable: bool = True
    seed: str = ""
    name: str = "n0"
    variant: str = ""

    @classmethod
    def parse(cls, words: Sequence[str]) -> Options:
        options = cls()
        kinds = {known.name: type(getattr(options, known.name)) for known in fields(cls)}
        for word in words:
            name, _, value = word.partition("=")
            if name not in kinds:
                raise Failure(f"no option is called {name!r}")
            kind = kinds[name]
            setattr(options, name, value == "true" if kind is bool else kind(value))
        return options


class Failure(Exception):
    """A work could not be done; the text says why."""


class Node(Protocol):
    """One node. It begins to join when it is started, and does not wait for that."""

    def address(self) -> str: ...

    def live(self) -> int: ...

    async def broadcast(self, data: bytes) -> None: ...

    async def send(self, to: Node, data: bytes, reliable: bool) -> None: ...

    async def request(self, to: Node, data: bytes) -> None: ...

    def processes(self) -> Sequence[int]:
        """Beside this one."""


@dataclass(frozen=True)
class Plan:
    name: str
    seed: str
    nodes: int
    variant: str
    heard: Heard


Start = Callable[[Plan], Awaitable[Node]]


def message(origin: int, number: int, size: int) -> bytes:
    return b"%08x%08x" % (number, origin) + noise(number, size)


def noise(number: int, size: int) -> bytes:
    start = number * STEP % (NOISE - STEP)
    return NOISES[start : start + size - HEADER]


class Tally:
    """Deliveries to all nodes together."""

    def __init__(self) -> None:
        self.count, self.again, self.last, self.awaited = 0, 0, time.perf_counter(), 1 << 62
        self.reached = asyncio.Event()

    def add(self) -> None:
        self.count, self.last = self.count + 1, time.perf_counter()
        if self.count >= self.awaited:
            self.reached.set()

    async def reach(self, wanted: int, patience: float, end: float) -> Optional[float]:
        """When there were so many; or nothing, where the count has stood still for so long, or the end is over."""
        self.awaited, seen = wanted, self.count
        self.reached.clear()
        while self.count < wanted:
            try:
                await asyncio.wait_for(self.reached.wait(), max(0.0, min(patience, end - time.perf_counter())))
            except asyncio.TimeoutError:
                if self.count < wanted and (self.count == seen or time.perf_counter() >= end):
                    return None
                seen = self.count
        return self.last


class Heard:
    """What one node's application has heard."""

    def __init__(self, node: int, tally: Tally) -> None:
        self.node, self.tally, self.numbers = node, tally, set[int]()

    def take(self, data: bytes) -> bool:
        """Whether it is the first time, and somebody else's."""
        try:
            number, origin = int(data[:8], 16), int(data[8:HEADER], 16)
        except ValueError:
            return False
        if origin == self.node or data[HEADER:] != noise(number, len(data)):
            return False
        if number in self.numbers:
            self.tally.again += 1
            return False
        self.numbers.add(number)
        self.tally.add()
        return True


@dataclass
class Cluster:
    nodes: list[Node] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    took: float = 0.0

    @classmethod
    async def form(cls, start: Start, count: int, settle: float, variant: str) -> Cluster:
        cluster, began = cls(), time.perf_counter()
        for i in range(count):
            seed = cluster.nodes[0].address() if i else ""
            cluster.nodes.append(await start(Plan(f"n{i}", seed, count, variant, Heard(i, cluster.tally))))
        await cluster.all_list(count, began + PATIENCE)
        cluster.took = time.perf_counter() - began
        await asyncio.sleep(settle)
        return cluster

    async def all_list(self, count: int, end: float) -> None:
        for i, node in enumerate(self.nodes):
            while (live := node.live()) != count:
                if time.perf_counter() > end:
                    ready = sum(other.live() == count for other in self.nodes)
                    raise Failure(f"{ready} of {len(self.nodes)} were ready after {PATIENCE:.0f} s; n{i} listed {live}")
                await asyncio.sleep(0.001)

    def processes(self) -> list[int]:
        return [process for node in self.nodes for process in node.processes()]


class Usage:
    """What has been used since then, by this process and by those of its nodes."""

    def __init__(self, cluster: Optional[Cluster] = None) -> None:
        self.cluster, self.began, self.cpu, self.wire = cluster, time.perf_counter(), cpu_seconds(cluster), loopback()

    def cpu_seconds(self) -> float:
        return cpu_seconds(self.cluster) - self.cpu

    def crossed(self) -> tuple[float, float]:
        sizes, packets = loopback()
        return sizes - self.wire[0], packets - self.wire[1]


def cpu_seconds(cluster: Optional[Cluster]) -> float:
    total = time.process_time()
    for process in cluster.processes() if cluster else []:
        words = pathlib.Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
        total += (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
    return total


def resident_kb(cluster: Optional[Cluster] = None) -> tuple[float, float]:
    """Memory: all that is resident, and what of it are no pages of files."""
    all_ = own = 0.0
    for process in ["self", *map(str, cluster.processes() if cluster else [])]:
        lines = map(str.split, pathlib.Path(f"/proc/{process}/status").read_text().splitlines())
        status = {words[0]: words[1] for words in lines if len(words) > 1}
        all_, own = all_ + float(status["VmRSS:"]), own + float(status["RssAnon:"])
    return all_, own


def loopback() -> tuple[float, float]:
    for line in pathlib.Path("/proc/self/net/dev").read_text().splitlines():
        device, _, numbers = line.partition(":")
        if device.strip() == "lo":
            size, packets = numbers.split()[:2]
            return float(size), float(packets)
    return 0.0, 0.0


async def join(start: Start, o: Options) -> Figures:
    usage = Usage()
    cluster = await Cluster.form(start, o.nodes, 0.0, o.variant)
    cpu = cpu_seconds(cluster) - usage.cpu
    return {"seconds": cluster.took, "cpu_ms_a_node": cpu * 1e3 / o.nodes}


async def broadcast(start: Start, o: Options) -> Figures:
    cluster = await Cluster.form(start, o.nodes, o.settle, o.variant)
    figures: Figures = {}
    said = await latencies(cluster, o, figures)
    await flood(cluster, o, said, figures)
    return figures


async def latencies(cluster: Cluster, o: Options, figures: Figures) -> int:
    """One at a time, by turns: until the last has heard it. Returns how many were said."""
    others, said, missed, times = o.nodes - 1, 0, 0, list[float]()
    end = time.perf_counter() + o.seconds
    while time.perf_counter() < end and said < 200:
        origin, before, began = said % o.nodes, cluster.tally.count, time.perf_counter()
        await cluster.nodes[origin].broadcast(message(origin, said, o.bytes))
        said += 1
        reached = await cluster.tally.reach(before + others, 2 * STILL, began + AFTER)
        if reached is None:
            missed += before + others - cluster.tally.count
        else:
            times.append(1e3 * (reached - began))
    figures.update(said_singly=said, lost_singly_percent=100 * missed / (said * others))
    if times:
        figures.update(p50_ms=statistics.median(times), worst_ms=max(times))
    return said


async def flow(cluster: Cluster, o: Options, first: int, at_most: int) -> tuple[int, int, float, Usage]:
    """As fast as the node takes it, with at most a window under way. Said, heard, seconds, and what was used."""
    others, tally, usage = len(cluster.nodes) - 1, cluster.tally, Usage(cluster)
    before, said, given_up, end = tally.count, 0, 0, usage.began + o.seconds
    while said < at_most and time.perf_counter() < end:
        await cluster.nodes[0].broadcast(message(0, first + said, o.bytes))
        said += 1
        if said % 16 == 0:
            # Others of this process have their turn.
            await asyncio.sleep(0)
        wanted = before + max(0, said - BROADCAST_WINDOW) * others - given_up
        if tally.count < wanted and await tally.reach(wanted, STILL, end) is None and time.perf_counter() < end:
            given_up = said * others - (tally.count - before)
    await tally.reach(before + said * others, STILL, time.perf_counter() + AFTER)
    return said, tally.count - before, tally.last - usage.began, usage


async def flood(cluster: Cluster, o: Options, first: int, figures: Figures) -> None:
    said, heard, seconds, usage = await flow(cluster, o, first, 1 << 40)
    others = o.nodes - 1
    figures.update(said=said, lost_percent=100 * (1 - heard / (said * others)))
    if heard:
        sizes, packets = usage.crossed()
        figures.update(per_second=heard / others / seconds, cpu_us=usage.cpu_seconds() * 1e6 / heard)
        figures.update(wire_bytes=sizes / heard, packets=packets / heard, heard_again=cluster.tally.again)


async def bulk(start: Start, o: Options) -> Figures:
    cluster = await Cluster.form(start, o.nodes, o.settle, o.variant)
    before, _ = resident_kb(cluster)
    said, heard, _, _ = await flow(cluster, o, 0, o.messages)
    grown = (resident_kb(cluster)[0] - before) / o.nodes
    after_all = grown if said == o.messages else None
    return {"heard": heard / (o.nodes - 1), "grown_kb_a_node": grown, "grown_kb_a_node_after_all": after_all}


async def direct(start: Start, o: Options) -> Figures:
    cluster = await Cluster.form(start, 2, o.settle, o.variant)
    tally, usage, said = cluster.tally, Usage(cluster), 0
    while time.perf_counter() < usage.began + o.seconds:
        await cluster.nodes[0].send(cluster.nodes[1], message(0, said, o.bytes), o.reliable)
        said += 1
        if said % 16 == 0:
            await asyncio.sleep(0)
        if o.reliable and tally.count + DIRECT_WINDOW < said:
            await tally.reach(said - DIRECT_WINDOW, STILL, usage.began + o.seconds)
    await tally.reach(said, STILL, time.perf_counter() + AFTER)
    if not tally.count:
        raise Failure("nothing was heard")
    seconds = tally.last - usage.began
    cpu = usage.cpu_seconds() * 1e6 / tally.count
    return {"per_second": tally.count / seconds, "cpu_us": cpu, "lost_percent": 100 * (1 - tally.count / said)}


async def request(start: Start, o: Options) -> Figures:
    cluster = await Cluster.form(start, 2, o.settle, o.variant)
    usage, times, data = Usage(cluster), list[float](), message(0, 0, o.bytes)
    while time.perf_counter() < usage.began + o.seconds:
        began = time.perf_counter()
        await cluster.nodes[0].request(cluster.nodes[1], data)
        times.append(1e6 * (time.perf_counter() - began))
    times.sort()
    cpu = usage.cpu_seconds() * 1e6 / len(times)
    return {"cpu_us": cpu, "p50_us": times[len(times) // 2], "p99_us": times[len(times) * 99 // 100]}


async def idle(start: Start, o: Options) -> Figures:
    before, own_before = resident_kb()
    cluster = await Cluster.form(start, o.nodes, o.settle, o.variant)
    usage = Usage(cluster)
    await asyncio.sleep(o.seconds)
    seconds, (sizes, packets) = time.perf_counter() - usage.began, usage.crossed()
    after, own_after = resident_kb(cluster)
    return {
        "cpu_percent": 100 * usage.cpu_seconds() / seconds / o.nodes,
        "wire_bytes": sizes / seconds / o.nodes,
        "packets": packets / seconds / o.nodes,
        "resident_kb": (after - before) / o.nodes,
        "own_kb": (own_after - own_before) / o.nodes,
    }


async def detect(start: Start, o: Options) -> Figures:
    """A member is killed, in a process of its own; the others are looked at until they know."""
    cluster = await Cluster.form(start, o.nodes - 1, 0.0, o.variant)
    first, all_, untold = list[float](), list[float](), 0
    for trial in range(o.trials):
        words = [f"seed={cluster.nodes[0].address()}", f"name=victim{trial}", f"nodes={o.nodes}", f"variant={o.variant}"]
        command = [sys.executable, *sys.argv[:1], "member", *words]
        pipe = asyncio.subprocess.PIPE
        victim = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=asyncio.subprocess.DEVNULL)
        try:
            await cluster.all_list(o.nodes, time.perf_counter() + PATIENCE)
            await asyncio.sleep(o.settle + 0.37 * trial)
        finally:
            began = time.perf_counter()
            victim.kill()
            await victim.wait()
        told: dict[int, float] = {}
        while len(told) < len(cluster.nodes) and time.perf_counter() < began + PATIENCE:
            for i, node in enumerate(cluster.nodes):
                if i not in told and node.live() < o.nodes:
                    told[i] = time.perf_counter() - began
            await asyncio.sleep(0.01)
        untold += len(cluster.nodes) - len(told)
        first += [min(told.values())] if told else []
        all_ += [max(told.values())] if len(told) == len(cluster.nodes) else []
        if trial + 1 < o.trials:
            await cluster.all_list(o.nodes - 1, time.perf_counter() + PATIENCE)
    figures: Figures = {"untold": untold}
    if first:
        figures["first_s"] = statistics.median(first)
    if all_:
        figures.update(all_s=statistics.median(all_), worst_s=max(all_))
    return figures


async def member(start: Start, o: Options) -> None:
    """One node, until standard input ends. A line whenever the number of members that it lists has changed."""
    node = await start(Plan(o.name, o.seed, o.nodes, o.variant, Heard(OWN_NUMBER, Tally())))
    print(json.dumps({"address": node.address()}), flush=True)
    over = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    listed = 0
    while not over.done():
        if (live := node.live()) != listed:
            print(json.dumps({"live": live}), flush=True)
            listed = live
        # The first other member is what a cold start waits for.
        await asyncio.sleep(0.001 if listed < 2 else 0.005)


WORKS = {
    "join": join,
    "broadcast": broadcast,
    "bulk": bulk,
    "direct": direct,
    "request": request,
    "idle": idle,
    "detect": detect,
}


def main(about: About, start: Start) -> None:
    work, words = (sys.argv[1] if len(sys.argv) > 1 else ""), sys.argv[2:]
    status = 0
    try:
        options = Options.parse(words)
        if work == "about":
            print(json.dumps(asdict(about)))
        elif work == "member":
            asyncio.run(member(start, options))
        elif work in WORKS:
            print(json.dumps({"figures": asyncio.run(WORKS[work](start, options))}))
        else:
            raise Failure(f"no work is called {work!r}")
    except (Failure, OSError, ValueError) as failure:
        print(json.dumps({"error": str(failure)}))
        status = 1
    # Without closing anything: nobody waits for a good-bye.
    sys.stdout.flush()
    os._exit(status)
