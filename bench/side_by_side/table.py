"""Results as tables, and as words: above each table stands where bruit loses."""

from __future__ import annotations

import statistics
import textwrap
from dataclasses import replace
from typing import Optional

from samples import Entrant, Results, Summary, number
from works import WORKS, Column, Table

OURS = "bruit"
LISTS_ALL = "each lists all"


def cell(summary: Optional[Summary]) -> str:
    if summary is None:
        return ""
    if summary.rounds == 1 or summary.least == summary.most:
        return number(summary.median)
    return f"{number(summary.median)} ({number(summary.least)}–{number(summary.most)})"


def summary(results: Results, column: Column, name: str) -> Optional[Summary]:
    found = results.summary(column.work, name, column.figure)
    if found is None or not column.is_rare:
        return found
    return replace(found, median=statistics.mean(results.values(column.work, name, column.figure)))


def rows(results: Results, table: Table) -> list[tuple[str, list[str]]]:
    """By entrant, for those who have any figure of it."""
    found = []
    for name in results.entrants:
        cells = [cell(summary(results, column, name)) for column in table.columns]
        if any(cells):
            found.append((name, cells))
    return found


def is_ours(entrant: Entrant) -> bool:
    """Also under another language: bruit is no rival of its own."""
    return entrant.peer.partition("-")[0] == OURS


def losses(results: Results, column: Column) -> list[tuple[str, Summary]]:
    """Who has a better median than bruit, the best first. Less than one in a hundred is no difference."""
    ours = summary(results, column, OURS)
    if ours is None or column.is_circumstance:
        return []
    better = []
    for name, entrant in results.entrants.items():
        theirs = summary(results, column, name)
        if is_ours(entrant) or theirs is None:
            continue
        if theirs.median > 1.01 * ours.median if column.more_is_better else 1.01 * theirs.median < ours.median:
            better.append((name, theirs))
    return sorted(better, key=lambda pair: pair[1].median, reverse=column.more_is_better)


def loss_text(results: Results, column: Column) -> Optional[str]:
    better = losses(results, column)
    ours = summary(results, column, OURS)
    if not better or ours is None:
        return None
    notes = [apart(ours, theirs) + lesser(results, column, name) for name, theirs in better]
    named = ", ".join(f"{name} {number(theirs.median)}{note}" for (name, theirs), note in zip(better, notes))
    return f"{column.what}: {OURS} {number(ours.median)}, {named}" + (f". Why: {column.why}" if column.why else "")


def apart(ours: Summary, theirs: Summary) -> str:
    """Where the rounds of both overlap, the medians alone do not settle it."""
    overlap = ours.least <= theirs.most and theirs.least <= ours.most
    return " (ranges overlap)" if overlap and ours.rounds > 1 else ""


def lesser(results: Results, column: Column, name: str) -> str:
    """Who waits for less than a list of all has joined sooner."""
    joined = results.entrants[name].joined
    return f" ({joined})" if column.waits_for_lists and joined != LISTS_ALL else ""


def verdict(results: Results, table: Table) -> list[str]:
    """Where bruit loses, in sentences for people."""
    lost = [text for column in table.columns if (text := loss_text(results, column))]
    if lost:
        told = [line for text in lost for line in filled(f"- {text}.", "  ")]
        return [f"bruit loses {len(lost)} of {compared(results, table)} columns:", "", *told]
    return ["bruit loses no column of this table."] if compared(results, table) else ["bruit is not in this table."]


def compared(results: Results, table: Table) -> int:
    columns = [column for column in table.columns if not column.is_circumstance]
    return sum(summary(results, column, OURS) is not None for column in columns)


def failed(results: Results, table: Table) -> list[str]:
    """Trials without a figure, and why."""
    told = []
    for work in dict.fromkeys(column.work for column in table.columns):
        for name, why in results.failures.get(work, {}).items():
            trials = results.trials(work, name)
            count = f"{len(why)} of {trials} trials failed" if trials > len(why) else "failed whenever it was tried"
            told.append(f"{name}, {work}: {count}; {why[0]}")
    return told


def fewer(results: Results, table: Table) -> list[str]:
    """Where a run was cut, or had no variants in some rounds: who did a work less often than there are rounds."""
    told = []
    for work in WORKS:
        if work.once or work.name not in {column.work for column in table.columns}:
            continue
        wanted = results.rounds * work.times
        counts = {name: results.trials(work.name, name) for name in results.samples.get(work.name, {})}
        for count in sorted({count for count in counts.values() if count < wanted}):
            names = [name for name in results.entrants if counts.get(name) == count]
            who = "all" if len(names) == len(counts) else ", ".join(names)
            told.append(f"{work.name}: {count} of {wanted} trials by {who}")
    return told


def notes(results: Results, table: Table) -> list[str]:
    return [*failed(results, table), *fewer(results, table)]


def plain(results: Results, table: Table) -> str:
    """For a terminal."""
    lines = [["", *(column.heading for column in table.columns)], *([name, *cells] for name, cells in rows(results, table))]
    widths = [max(len(line[at]) for line in lines) for at in range(len(lines[0]))]
    # Names to the left, figures to the right.
    shown = ["  ".join([first.ljust(widths[0]), *map(str.rjust, rest, widths[1:])]) for first, *rest in lines]
    return "\n".join([f"== {table.title}", *verdict(results, table), *shown, *notes(results, table), ""])


def markdown(results: Results, table: Table) -> str:
    head = ["| | " + " | ".join(column.heading for column in table.columns) + " |", "|---|" + "---:|" * len(table.columns)]
    body = [f"| {name} | " + " | ".join(cells) + " |" for name, cells in rows(results, table)]
    return "\n".join(
        [f"## {table.title}", "", *filled(table.text), "", *verdict(results, table), "", *head, *body, ""]
        + [line for text in notes(results, table) for line in filled(f"- {text}", "  ")]
        + ([""] if notes(results, table) else [])
    )


def filled(text: str, indent: str = "") -> list[str]:
    """In lines of the width that the documentation has."""
    return textwrap.wrap(text, 130, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
