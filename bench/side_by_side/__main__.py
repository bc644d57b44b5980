"""bruit and its peers on the same works, in one run: `make bench-peers`.

Builds or installs each peer below build/peers (the first time takes a quarter of an hour), measures, prints tables, and writes
bench/results/NAME.json, docs/PEERS.md and its pictures.
"""

from __future__ import annotations

import argparse
import datetime
import os
import pathlib
import platform
import sys
import time

from jobs import Entrants, Job, firsts, jobs_of, left_of
from page import page
from peers import PEERS, ROOT, machine
from pictures import draw
from running import can_be_alone, leave_nobody_behind
from samples import Figures, Results, Trouble, number
from table import plain, rows
from works import FOOTPRINT, MACHINE, TABLES, WORKS, Work

RESULTS = ROOT / "bench" / "results"
PAGE = ROOT / "docs" / "PEERS.md"
PICTURE = ROOT / "docs" / "images" / "peers"


class Progress:
    """Says what is done, and how long the rest takes if it goes on as before."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self.began = total, 0, time.monotonic()
        # Seconds that a job of a work has taken, where one is over.
        self.took: dict[str, list[float]] = {}

    def step(self, job: Job, outcomes: dict[str, Figures | str], seconds: float, rest: list[Job]) -> None:
        self.done += 1
        self.took.setdefault(job.work.name, []).append(seconds)
        left = sum(self.expected(other) for other in rest)
        said = "; ".join(f"{name}: {brief(outcome)}" for name, outcome in outcomes.items()) or "failed before, not tried again"
        print(f"[{self.done:>3}/{self.total}] {clock(left)} left  {job.work.name:<22} {said}", flush=True)

    def expected(self, job: Job) -> float:
        known = self.took.get(job.work.name) or [seconds for all_ in self.took.values() for seconds in all_]
        return sum(known) / len(known)


def clock(seconds: float) -> str:
    return f"{int(seconds) // 60:>3}:{int(seconds) % 60:02}"


def brief(outcome: Figures | str) -> str:
    if isinstance(outcome, str):
        return outcome
    return ", ".join(f"{name} {number(value)}" for name, value in list(outcome.items())[:4] if value is not None)


def prepare(wanted: list[str], results: Results) -> Entrants:
    """Builds what can be had."""
    entrants: Entrants = {}
    for peer in wanted:
        print(f"== {peer}: building or installing what is missing", flush=True)
        try:
            program = PEERS[peer]()
            found = program.entrants(peer)
        except (Trouble, OSError, ValueError) as trouble:
            print(f"   absent: {trouble}", flush=True)
            results.absent[peer] = str(trouble)
            continue
        entrants.update(found)
        results.entrants.update({name: entrant for name, (entrant, _) in found.items()})
        default = next(iter(found))
        results.samples.get(FOOTPRINT, {}).pop(default, None)
        results.add(FOOTPRINT, default, program.footprint)
    return entrants


def measure(results: Results, entrants: Entrants, works: list[Work], rounds: int, path: pathlib.Path, resumes: bool) -> None:
    """Saved after each job: who interrupts a run keeps what it has, and can go on with it."""
    limits = machine()
    jobs = []
    for round_ in range(rounds):
        jobs += [Job(MACHINE, (MACHINE.name,), (limits,)), *jobs_of(round_, entrants, works)]
    if resumes:
        jobs = left_of(jobs, results)
    progress, began, before = Progress(len(jobs)), time.monotonic(), results.minutes
    for at, job in enumerate(jobs):
        started = time.monotonic()
        outcomes = job.without(results.hopeless(job.work.name)).run()
        for name, outcome in outcomes.items():
            results.add(job.work.name, name, outcome)
        results.minutes = before + (time.monotonic() - began) / 60
        results.save(path)
        progress.step(job, outcomes, time.monotonic() - started, jobs[at + 1 :])


def this_machine() -> dict[str, str]:
    processor = platform.machine()
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            processor = line.split(":", 1)[1].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = os.getloadavg()[0]
    return {
        "processor": f"{os.cpu_count()} × {processor}",
        "memory": f"{memory:.0f} GiB",
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "load of others at the start": f"{load:.1f}",
    }


def shown(results: Results) -> str:
    return "\n".join(plain(results, table) for table in TABLES if rows(results, table))


def write_page(results: Results, source: pathlib.Path) -> None:
    PAGE.write_text(page(results, str(source.relative_to(ROOT))), encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)} is generated from {source.relative_to(ROOT)}")
    drawn = draw(results, PICTURE)
    print("no matplotlib, no picture" if not drawn else "drawn: " + ", ".join(str(path.relative_to(ROOT)) for path in drawn))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="within an hour: two rounds, fewer works, no variants but sealed")
    parser.add_argument("--rounds", type=int, help="rather than five, or two where it is quick")
    parser.add_argument("--peers", default=",".join(PEERS), help="some of them, with commas between: %(default)s")
    names = ", ".join(work.name for work in WORKS)
    parser.add_argument("--works", default="", help=f"those whose names begin so, with commas between: {names}")
    parser.add_argument("--name", help="of the result file; today's date where not given")
    parser.add_argument("--note", default="", help="what a reader should know about this run")
    text = "do these works again for that result file, beside what else it has"
    parser.add_argument("--again", metavar="FILE", type=pathlib.Path, help=text)
    text = "go on with that result file where its run was interrupted, with as many rounds as it was to have"
    parser.add_argument("--resume", metavar="FILE", type=pathlib.Path, help=text)
    parser.add_argument("--no-variants", action="store_true", help="peers with their defaults only")
    parser.add_argument("--page", metavar="FILE", type=pathlib.Path, help="measure nothing: write the page from that result file")
    parser.add_argument("--no-page", action="store_true", help="leave docs/PEERS.md as it is")
    options = parser.parse_args()
    leave_nobody_behind()
    if options.page:
        results = Results.load(options.page)
        print(shown(results))
        write_page(results, options.page.resolve())
        return 0
    wanted = options.peers.split(",")
    if unknown := [name for name in wanted if name not in PEERS]:
        parser.error(f"no peer is called {unknown[0]}; there are {', '.join(PEERS)}")
    chosen = tuple(options.works.split(","))
    now = datetime.datetime.now(datetime.timezone.utc)
    rounds = options.rounds or (2 if options.quick else 5)
    results = Results(now.strftime("%Y-%m-%d %H:%M UTC"), this_machine(), rounds, options.quick, options.note)
    path = options.resume or options.again or RESULTS / f"{options.name or now.strftime('%Y-%m-%d')}.json"
    if options.resume or options.again:
        results = Results.load(path)
    if options.resume:
        rounds = results.rounds
    works = [work.in_quick() if results.quick else work.in_full() for work in WORKS if work.name.startswith(chosen)]
    works = [work for work in works if work.quick or not results.quick]
    results.forget([work.name for work in works if options.again])
    entrants = prepare(wanted, results)
    if options.no_variants:
        entrants = {name: one for name, one in entrants.items() if name in firsts(entrants)}
    if not can_be_alone():
        print("no network namespace can be had: what crosses the wire is not counted")
    measure(results, entrants, works, rounds, path.resolve(), resumes=bool(options.resume))
    print(shown(results))
    print(f"{path} holds every round")
    if not options.no_page:
        write_page(results, path.resolve())
    return 0


if __name__ == "__main__":
    sys.exit(main())
