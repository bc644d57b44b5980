"""Whole clusters in one thread, in virtual time: what a configuration does before it meets a network.

The nodes are those that run on sockets, byte for byte; simulated are network, clocks and machines. A seed is a run.

    scenario = bruit.sim.Scenario(
        nodes=50,
        loss=0.1,
        phases=[
            bruit.sim.Phase("calm", 10),
            bruit.sim.Phase("crash", 60, kill=3, until="agree"),
        ],
    )
    report = scenario.run(trials=20)
    print(report)
    print(report.measures["kill: all know"].p99, "ms")

`compare` sets reports side by side, `bruit.sim.plot` draws them (``pip install bruit[plot]``), and `World` is for those
who want to act between two moments themselves.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Callable, Optional, Union

from bruit import _native
from bruit._convert import OPTIONS, Duration, MetaValue, OptionValue, meta_value, option, seconds
from bruit._native import Members
from bruit.errors import InvalidError, TimeoutError
from bruit.events import Event, from_raw

if TYPE_CHECKING:
    from bruit.sim import plot
else:

    def __getattr__(name):
        """`bruit.sim.plot` is there without an import of its own."""
        if name == "plot":
            import importlib

            return importlib.import_module("bruit.sim.plot")
        raise AttributeError(f"module 'bruit.sim' has no attribute {name!r}")


__all__ = [
    "Comparison",
    "Detection",
    "Kind",
    "Passed",
    "Phase",
    "Report",
    "Row",
    "Scenario",
    "Spread",
    "Staleness",
    "Tell",
    "Trial",
    "World",
    "compare",
    "plot",
]

Value = Union[OptionValue, Iterable[object]]
"""What stands behind a key: a number, a duration, text as in a scenario file, or a sequence of these."""

_DURATIONS = ("form", "sample", "for")


def _line(key: str, value: Value) -> str:
    """``key = value``, as a scenario file has it."""
    if "\n" in key or "=" in key or key.strip() != key or not key:
        raise InvalidError(f"{key!r}: expected a key")
    if key in _DURATIONS and isinstance(value, (int, float, timedelta)) and not isinstance(value, bool):
        text = _time(value, key)
    elif key in OPTIONS and isinstance(value, (str, bool, int, float, timedelta)):
        text = option(key, value)
    elif key == "names" and not isinstance(value, str) and isinstance(value, Iterable):
        text = ", ".join(map(str, value))
    else:
        text = _word(value, key)
    if "\n" in text or '"' in text:
        raise InvalidError(f"{key} = {text!r}: expected one line without quotes")
    # Quotes only where a reader of the line would take it for something else.
    return f'{key} = "{text}"' if text != text.strip() or "#" in text or not text else f"{key} = {text}"


def _time(value: Duration, key: str) -> str:
    span = seconds(value, key)
    if span is None or span != span:
        raise InvalidError(f"{key} = {value!r}: expected a duration")
    micros = round(span * 1e6)
    scale, unit = next(((scale, unit) for scale, unit in ((1_000_000, "s"), (1_000, "ms")) if micros % scale == 0), (1, "us"))
    return f"{micros // scale}{unit}"


def _word(value: object, key: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float)):
        return str(value)
    if isinstance(value, timedelta):
        return _time(value, key)
    if isinstance(value, Iterable):
        items = list(value)
        # Names are a list; everything else that comes together is words.
        named = all(isinstance(item, str) and item[:1].isalpha() for item in items)
        return (", " if named and key not in ("loss", "delay", "topology", "until") else " ").join(
            _word(item, key) for item in items
        )
    raise TypeError(f"{key}: expected a number, a duration or text, not {value!r}")


class Phase:
    """A part of a scenario: what happens begins with it, and ends with it where it can end.

    duration: how long it lasts; with `until` at most so long, and then the trial fails.
    until: ``"agree"`` (all that run list exactly those, and suspect nobody), or ``"reach 0.99"`` (so many of those that run
        know what was told).
    tell: these nodes change a key of their metadata; when others know of it is measured.
    updates: changes of metadata in a second, by random nodes.
    kill, power_off, restart, leave, pause, block: which nodes: a number, a share (``"10%"``), ``"all"``, or their names.
    join: how many new ones.
    slow: ``(which, "5ms")``: each input takes so long.
    ingress_loss, egress_loss: ``(which, 0.8)``.
    flip_flop: ``(which, "20s", "20s")``: deaf for so long, then well for so long, again and again.
    cut: ``"n1 > n2"``: nothing from the one reaches the other. partition: ``"50%"``, or sides with ``|`` between them.

    Whatever else a network has (`loss`, `delay`, `duplicate`, …) holds as long as the phase lasts.
    """

    def __init__(
        self, name: str, duration: Duration = 60.0, *, until: Optional[str] = None, tell: Optional[Value] = None, **what: Value
    ) -> None:
        self.name = name
        if "\n" in name or "]" in name:
            raise InvalidError(f"phase {name!r}: expected a name in one line")
        lines: dict[str, Value] = {"for": duration, **what}
        if until is not None:
            lines["until"] = until
        if tell is not None:
            lines["tell"] = tell
        self.text = "\n".join([f"[phase {name}]", *(_line(key, value) for key, value in lines.items())])

    def __repr__(self) -> str:
        return f"<bruit.sim.Phase {self.name}>"


class Scenario:
    """What a cluster is put through: who knows whom at the start, and then phases.

    nodes: how many there are at the start; `names` names the first ones, others are n0, n1, …
    topology: ``"one"`` (all have the first one for their seed), ``"full"``, ``"star"``, ``"line"``, ``"ring"``,
        ``"random 3"``, ``"none"``.
    form: how long they may take to find each other before the first phase; 0: it begins at once.
    sample: time between two looks at how stale tables are; 0: nobody looks.
    sealed: packets go through the real envelope, at some ten times the cost.
    trials, seed: of a run that says nothing else.

    Further keywords are properties of the network (`loss`, `delay`, `duplicate`, `reorder`, `mtu`, `bandwidth`, …) and
    options of the nodes, as `bruit.options` lists them. A mistake is an `InvalidError`, or `NotFoundError`, at once.
    """

    def __init__(self, nodes: int = 10, phases: Iterable[Phase] = (), **what: Value) -> None:
        lines = [_line("nodes", nodes), *(_line(key, value) for key, value in what.items())]
        self.text = "\n".join([*lines, *(phase.text for phase in phases)]) + "\n"
        """The scenario as a file has it."""
        _native.sim_check(self.text)

    @classmethod
    def parse(cls, text: str) -> Scenario:
        """A scenario from its text. Errors name the line."""
        _native.sim_check(text)
        made = cls.__new__(cls)
        made.text = text
        return made

    @classmethod
    def load(cls, path: Union[str, os.PathLike[str]]) -> Scenario:
        """A scenario from a file."""
        with open(path, encoding="utf-8") as file:
            return cls.parse(file.read())

    def run(self, *, trials: Optional[int] = None, seed: Optional[int] = None, jobs: int = 0) -> Report:
        """Run it; trial number t with seed + t.

        jobs: threads; 0: as many as the machine has cores. Ctrl-C ends the run.
        """
        for name, value in (("trials", trials), ("seed", seed), ("jobs", jobs)):
            if value is not None and value < 0:
                raise InvalidError(f"{name} = {value}: expected 0 or more")
        return Report(_native.sim_run(self.text, trials, seed, jobs))

    def __repr__(self) -> str:
        return f"<bruit.sim.Scenario {self.text.splitlines()[0] if self.text else ''}>"


@dataclass(frozen=True)
class Spread:
    """A distribution over trials. A percentile is a value that was measured.

    What never happened is later than all that did: it counts in percentiles and in the maximum, which are None then. The
    mean is over what there is.
    """

    unit: str
    n: int
    missing: int
    """How many never came."""
    mean: Optional[float]
    min: Optional[float]
    p50: Optional[float]
    p95: Optional[float]
    p99: Optional[float]
    max: Optional[float]


@dataclass(frozen=True)
class Kind:
    """What was sent of one kind of frame (the first of a packet counts), a node and second."""

    name: str
    packets: float
    bytes: float


@dataclass(frozen=True)
class Passed:
    """A phase of a trial that is over."""

    name: str
    took_ms: float
    fulfilled: Optional[bool]
    """Whether what it waited for came true."""
    node_seconds: float
    sent: int
    lost: int
    duplicated: int
    damaged: int
    received: int
    kinds: tuple[Kind, ...]


@dataclass(frozen=True)
class Tell:
    """A rumor, and who heard of it after how many milliseconds."""

    by: str
    at_ms: float
    first_sent_ms: float
    known: dict[str, float]
    unknown: tuple[str, ...]


@dataclass(frozen=True)
class Detection:
    """How the fault of a node was noticed: milliseconds after it."""

    fault: str
    node: str
    at_ms: float
    suspected_ms: Optional[float]
    first_ms: Optional[float]
    all_ms: Optional[float]
    """When all others knew; None where one never did."""
    knew: int
    of: int


@dataclass(frozen=True)
class Staleness:
    """How far tables are behind, at one moment: shares of all pairs of nodes, and a mean age."""

    at_ms: float
    members: float
    meta: float
    age_ms: float


@dataclass(frozen=True)
class Trial:
    """What was seen with one seed."""

    seed: int
    failed: Optional[str]
    """The phase in which what it waited for did not come true."""
    false_suspicions: int
    false_deaths: int
    false_deaths_at_healthy: int
    trace: str
    phases: tuple[Passed, ...]
    tells: tuple[Tell, ...]
    detections: tuple[Detection, ...]
    staleness: tuple[Staleness, ...]


class Report:
    """Many trials of one scenario, in figures. `str` gives the table."""

    def __init__(self, native: _native.SimReport) -> None:
        self._native = native
        self._dict: dict[str, Any] = json.loads(native.to_json())
        self.title: str = self._dict["title"]
        self.nodes: int = self._dict["nodes"]
        self.seed: int = self._dict["seed"]
        self.success_rate: float = self._dict["success_rate"]
        """The share of trials in which all came true that a phase waited for."""
        self.gossip_interval_ms: float = self._dict["gossip_interval_ms"]
        self.probe_interval_ms: float = self._dict["probe_interval_ms"]
        self.measures: dict[str, Spread] = {
            row["name"]: Spread(**{key: value for key, value in row.items() if key != "name"})
            for row in self._dict["measures"]
        }
        """All that is measured, in the order of the table."""
        self.kinds: tuple[Kind, ...] = tuple(Kind(**kind) for kind in self._dict["kinds"])
        self.trials: tuple[Trial, ...] = tuple(_trial(row) for row in self._dict["rows"])

    def assert_reaches(self, share: float = 1.0, *, within: Duration) -> None:
        """`AssertionError` unless each rumor of each trial reached that share of the nodes within that time."""
        span = seconds(within, "within")
        try:
            self._native.assert_reaches(share, 1e9 if span is None else span)
        except TimeoutError as late:
            raise AssertionError(str(late)) from None

    def to_dict(self) -> dict[str, Any]:
        """Everything, in types that JSON has. What never happened is None."""
        return json.loads(json.dumps(self._dict))  # type: ignore[no-any-return]

    def __str__(self) -> str:
        return str(self._native)

    def __repr__(self) -> str:
        return f"<bruit.sim.Report {self.title!r} {len(self.trials)} trials, {100 * self.success_rate:g} % succeeded>"


def _trial(row: dict[str, Any]) -> Trial:
    phases = (Passed(**{**p, "kinds": tuple(Kind(**kind) for kind in p["kinds"])}) for p in row["phases"])
    tells = (Tell(**{**tell, "unknown": tuple(tell["unknown"])}) for tell in row["tells"])
    return Trial(
        **{
            **row,
            "phases": tuple(phases),
            "tells": tuple(tells),
            "detections": tuple(Detection(**d) for d in row["detections"]),
            "staleness": tuple(Staleness(**s) for s in row["staleness"]),
        }
    )


@dataclass(frozen=True)
class Row:
    """One figure of all runs."""

    measure: str
    unit: str
    statistic: str
    """``"mean"``, ``"p50"``, ``"p99"`` or ``"max"``."""
    values: tuple[Optional[float], ...]
    ratios: tuple[Optional[float], ...]
    """To the first run's, where both have one."""


@dataclass(frozen=True)
class Comparison:
    """Reports side by side. `str` gives the table."""

    runs: tuple[str, ...]
    rows: tuple[Row, ...]
    text: str

    def __str__(self) -> str:
        return self.text


def compare(reports: Mapping[str, Report]) -> Comparison:
    """Named reports side by side, with ratios to the first."""
    if not reports:
        raise InvalidError("expected reports to compare")
    raw, text = _native.sim_compare([(name, report._native) for name, report in reports.items()])
    found = json.loads(raw)
    rows = (Row(**{**row, "values": tuple(row["values"]), "ratios": tuple(row["ratios"])}) for row in found["rows"])
    return Comparison(tuple(found["runs"]), tuple(rows), text)


class World:
    """Simulated nodes, and a clock that moves when you say so. Nodes go by their index.

    sealed: packets go through the real envelope.
    options: of every node that is added, unless `add` says otherwise.
    """

    def __init__(self, seed: int = 1, *, sealed: bool = False, **options: OptionValue) -> None:
        self._native = _native.SimWorld(seed, sealed)
        self._options = options

    def add(self, name: Optional[str] = None, *, seeds: Sequence[int] = (), **options: OptionValue) -> int:
        """A node that starts now, with these nodes as its seeds. Returns its index."""
        return self._add(name, seeds, options)

    def _add(self, name: Optional[str], seeds: Sequence[int], options: Mapping[str, OptionValue]) -> int:
        lines = [(key, option(key, value)) for key, value in {**self._options, **options}.items()]
        return self._native.add(name or f"n{len(self)}", lines, list(seeds))

    def cluster(self, n: int, **options: OptionValue) -> list[int]:
        """`n` nodes that start at once and know only the first."""
        first = self._add(None, [], options)
        return [first, *(self._add(None, [first], options) for _ in range(n - 1))]

    def kill(self, i: int) -> None:
        """No word, no memory: gone. Its machine says so to who sends there."""
        self._native.kill(i)

    def power_off(self, i: int) -> None:
        """The whole machine is gone: nothing answers."""
        self._native.power_off(i)

    def restart(self, i: int) -> None:
        """The same name in a new run, with nothing remembered."""
        self._native.restart(i)

    def pause(self, i: int) -> None:
        """SIGSTOP: time passes, packets queue up."""
        self._native.pause(i)

    def block(self, i: int) -> None:
        """Whatever it sends or receives hangs; its timers run."""
        self._native.block(i)

    def resume(self, i: int) -> None:
        """The end of a pause, or of a block."""
        self._native.resume(i)

    def slow(self, i: int, service: Duration) -> None:
        """From now on each input keeps it busy for that long; 0: no longer."""
        self._native.slow(i, _span(service, "service"))

    def leave(self, i: int, timeout: Duration = 1.0) -> None:
        """It says good-bye, and is silent then."""
        self._native.leave(i, _span(timeout, "timeout"))

    def set_meta(self, i: int, **changes: Optional[MetaValue]) -> None:
        """Change keys of its metadata; None deletes."""
        self._native.set_meta(i, [(k, None if v is None else meta_value(k, v)) for k, v in changes.items()])

    def network(self, **properties: Value) -> None:
        """What the network does from now on: `loss`, `delay`, … as in a `Scenario`; the rest is as by default."""
        self._native.network([(key, _word(value, key)) for key, value in properties.items()])

    def partition(self, left: Iterable[int], right: Iterable[int]) -> None:
        """Nothing passes between the two sides, until `heal`."""
        self._native.partition(list(left), list(right))

    def cut(self, a: int, b: int) -> None:
        """Nothing from `a` reaches `b`, until `heal`; the other way is another cut."""
        self._native.cut(a, b)

    def heal(self) -> None:
        """Cuts and partitions end."""
        self._native.heal()

    def run_for(self, time: Duration) -> None:
        """Let so much virtual time pass."""
        self._native.run_for(_span(time, "time"))

    def run_until(self, condition: Callable[[World], object], timeout: Duration, *, step: Duration = 0.01) -> float:
        """Run until `condition(world)` is true, which is looked at every `step`. Returns the seconds that it took.

        `TimeoutError` where it does not come true within `timeout`.
        """
        began, span, each = self.now, _span(timeout, "timeout"), _span(step, "step")
        if not each:
            raise InvalidError("step = 0: expected a time between two looks")
        while not condition(self):
            left = began + span - self.now
            if left <= 0:
                raise TimeoutError(f"the condition did not come true within {span:g} s of virtual time")
            self.run_for(min(each, left))
        return self.now - began

    def run_until_agree(self, timeout: Duration) -> float:
        """Run until all that run list exactly those that run, and suspect nobody. Returns the seconds that it took.

        `TimeoutError` where they do not within `timeout`.
        """
        span = _span(timeout, "timeout")
        took = self._native.run_until_agree(span)
        if took is None:
            raise TimeoutError(f"they did not agree within {span:g} s of virtual time")
        return took

    def agree(self) -> bool:
        """Whether all that run list exactly those that run, and suspect nobody."""
        return self._native.agree()

    def members(self, i: int) -> Members:
        """What `i` knows now."""
        return self._native.members(i)

    def events(self, i: int) -> list[tuple[float, Event]]:
        """What `i` has reported, and when: seconds of virtual time."""
        return [(at, from_raw(raw)) for at, raw in self._native.events(i)]

    def name(self, i: int) -> str:
        """What it is called."""
        return self._native.name(i)

    def address(self, i: int) -> str:
        """Where it is reached: ``"ip:port"``."""
        return self._native.address(i)

    def is_running(self, i: int) -> bool:
        """Not killed, paused or blocked."""
        return self._native.is_running(i)

    def traffic(self) -> dict[str, tuple[int, int]]:
        """Packets and bytes that all have sent, by the kind of a packet's first frame."""
        return self._native.traffic()

    def record(self) -> None:
        """From now on `transcript` has a line for each frame."""
        self._native.record()

    def transcript(self) -> list[str]:
        """One line a frame, since `record`."""
        return self._native.transcript()

    @property
    def now(self) -> float:
        """Virtual time, in seconds."""
        return self._native.now

    @property
    def trace(self) -> int:
        """A hash over all that happened: equal runs have equal ones."""
        return self._native.trace

    def __len__(self) -> int:
        return len(self._native)


def _span(value: Duration, what: str) -> float:
    span = seconds(value, what)
    if span is None:
        raise InvalidError(f"{what} = {value!r}: expected a duration that ends")
    return span
