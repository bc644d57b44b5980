"""What a run leaves behind: figures by work and entrant, and what is said of them."""

from __future__ import annotations

import json
import math
import pathlib
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Optional

FORMAT = 1

# The variant of a peer that sends in clear otherwise, and is as its default else.
SEALED = "sealed"

Figures = dict[str, Optional[float]]


class Trouble(Exception):
    """A program did not do its work; the text says what it said."""


@dataclass
class Entrant:
    """A peer in one of its variants: what is measured beside others."""

    peer: str
    variant: str
    version: str
    configuration: str
    language: str
    sealed: str
    joined: str
    broadcast: str
    reliable: str
    best_effort: str
    request: str
    detects: bool


@dataclass
class Results:
    """All of one run. The file of it is these fields as JSON."""

    made: str
    machine: dict[str, str]
    rounds: int
    quick: bool
    note: str = ""
    minutes: float = 0.0
    entrants: dict[str, Entrant] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    # Work, entrant, one for each round that succeeded.
    samples: dict[str, dict[str, list[Figures]]] = field(default_factory=dict)
    # Work, entrant, what was said in rounds that failed.
    failures: dict[str, dict[str, list[str]]] = field(default_factory=dict)

    def add(self, work: str, entrant: str, outcome: Figures | str) -> None:
        if isinstance(outcome, str):
            self.failures.setdefault(work, {}).setdefault(entrant, []).append(outcome)
        else:
            self.samples.setdefault(work, {}).setdefault(entrant, []).append(outcome)

    def forget(self, works: Sequence[str]) -> None:
        for work in works:
            self.samples.pop(work, None)
            self.failures.pop(work, None)

    def hopeless(self, work: str) -> set[str]:
        """Who failed twice, and has never done it: to try again would cost minutes."""
        failed = self.failures.get(work, {})
        return {name for name, why in failed.items() if len(why) > 1} - set(self.samples.get(work, {}))

    def trials(self, work: str, entrant: str) -> int:
        return len(self.samples.get(work, {}).get(entrant, [])) + len(self.failures.get(work, {}).get(entrant, []))

    def values(self, work: str, entrant: str, figure: str) -> list[float]:
        rounds = self.samples.get(work, {}).get(entrant, [])
        return [value for figures in rounds if (value := figures.get(figure)) is not None]

    def summary(self, work: str, entrant: str, figure: str) -> Optional[Summary]:
        values = self.values(work, entrant, figure)
        return Summary.of(values) if values else None

    def save(self, path: pathlib.Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"format": FORMAT, **asdict(self)}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: pathlib.Path) -> Results:
        read = json.loads(path.read_text(encoding="utf-8"))
        if read.pop("format", None) != FORMAT:
            raise Trouble(f"{path}: not a result file of format {FORMAT}")
        entrants = {name: Entrant(**entrant) for name, entrant in read.pop("entrants").items()}
        return cls(**read, entrants=entrants)


@dataclass(frozen=True)
class Summary:
    """Of the rounds of one figure."""

    median: float
    least: float
    most: float
    rounds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Summary:
        return cls(statistics.median(values), min(values), max(values), len(values))


def outcome(line: str) -> Figures:
    """Of the line that a program printed."""
    try:
        said: Any = json.loads(line)
    except ValueError:
        raise Trouble(f"no JSON: {line[:200]!r}") from None
    if not isinstance(said, dict):
        raise Trouble(f"no object: {line[:200]!r}")
    if "error" in said:
        raise Trouble(str(said["error"]))
    figures = said.get("figures")
    if not isinstance(figures, dict) or not all(value is None or isinstance(value, (int, float)) for value in figures.values()):
        raise Trouble(f"no figures: {line[:200]!r}")
    return {str(name): None if value is None else float(value) for name, value in figures.items()}


def number(value: float) -> str:
    """Three digits that matter, and commas."""
    if value == 0:
        return "0"
    value = float(f"{value:.3g}")
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}" if digits < 3 or abs(value) >= 0.001 else f"{value:.3g}"
