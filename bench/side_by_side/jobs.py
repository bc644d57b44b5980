"""What runs in a round, in which order, and how: one entrant after the other, or all of them at the same time."""

from __future__ import annotations

import contextlib
import pathlib
import sys
from collections import Counter
from dataclasses import dataclass

from running import Run, attempt
from samples import Entrant, Figures, Results
from works import Work

# By name, with the program.
Entrants = dict[str, tuple[Entrant, tuple[str, ...]]]
COMPANY = pathlib.Path(__file__).resolve().parent / "company.py"


@dataclass(frozen=True)
class Job:
    """A work, and who does it: one entrant, or all of them at the same time."""

    work: Work
    who: tuple[str, ...]
    commands: tuple[tuple[str, ...], ...]

    def without(self, names: set[str]) -> Job:
        pairs = [(name, command) for name, command in zip(self.who, self.commands) if name not in names]
        return Job(self.work, tuple(name for name, _ in pairs), tuple(command for _, command in pairs))

    def run(self) -> dict[str, Figures | str]:
        with contextlib.ExitStack() as all_:
            # Also where somebody interrupts, nobody is left behind.
            runs = [all_.enter_context(Run(command, self.work.limit)) for command in self.commands]
            return {name: attempt(run) for name, run in zip(self.who, runs)}


def command_of(work: Work, program: tuple[str, ...], variant: str) -> tuple[str, ...]:
    if work.company:
        return (sys.executable, str(COMPANY), *work.words, *program)
    return (*program, *work.words, *((f"variant={variant}",) if work.words else ()))


def firsts(entrants: Entrants) -> set[str]:
    """The first variant of a peer is its default."""
    return set({entrant.peer: name for name, (entrant, _) in reversed(entrants.items())}.values())


def jobs_of(round_: int, entrants: Entrants, works: list[Work]) -> list[Job]:
    """Of one round: every other round runs backwards."""
    jobs = []
    defaults = firsts(entrants)
    for work in works:
        if work.once and round_ > 0:
            continue
        fit = [
            (name, command_of(work, program, entrant.variant))
            for name, (entrant, program) in entrants.items()
            if work.suits(entrant, name in defaults)
        ]
        if round_ % 2:
            fit.reverse()
        groups = [fit] if work.together else [[one] for one in fit]
        jobs += [Job(work, tuple(n for n, _ in group), tuple(c for _, c in group)) for group in groups if group] * work.times
    return jobs


def left_of(jobs: list[Job], results: Results) -> list[Job]:
    """What of a run is not in its results yet."""
    done = Counter({(job.work.name, name): results.trials(job.work.name, name) for job in jobs for name in job.who})
    left = list[Job]()
    for job in jobs:
        over = {name for name in job.who if done[job.work.name, name] > 0}
        done.subtract((job.work.name, name) for name in over)
        if over != set(job.who):
            left.append(job.without(over))
    return left
