"""docs/PEERS.md, out of a result file."""

from __future__ import annotations

from samples import Results, number
from table import LISTS_ALL, filled, markdown, rows
from works import MACHINE, TABLES

LIMITS = (
    ("udp_256_per_second", "datagrams of 256 bytes that one thread received a second, sent one by one by another"),
    ("udp_1400_per_second", "the same with 1,400 bytes"),
    ("udp_256_cpu_us", "CPU for each of 256 bytes, both threads, µs"),
    ("udp_round_trip_us", "64 bytes there and back between two threads, p50, µs"),
    ("tcp_bytes_per_second", "bytes a second over one TCP connection"),
    ("copy_1400_ns", "copying 1,400 bytes, ns"),
    ("seal_and_open_256_ns", "sealing and opening 256 bytes with ChaCha20-Poly1305, ns"),
    ("seal_and_open_1400_ns", "the same with 1,400 bytes, ns"),
)


def page(results: Results, source: str) -> str:
    tables = [markdown(results, table) for table in TABLES if rows(results, table)]
    return "\n".join([*opening(results, source), *entrants(results), *tables, *limits(results)])


def opening(results: Results, source: str) -> list[str]:
    kind = "a quick run" if results.quick else "a full run"
    described = "; ".join(f"{key}: {value}" for key, value in results.machine.items())
    paragraph = (
        "The same work, in one run, on one machine, one program for each, measured by the same loops. Of each figure: the median "
        "of the rounds, with the least and the most. **Ratios are what carries over to another machine**, and CPU is steadier "
        f"than time. This page is generated from [{source}](../{source}). What bruit loses stands above each table."
    )
    points = [
        f"When: {results.made}, {kind} of {results.rounds} rounds, {number(results.minutes)} minutes.",
        f"Where: {described}.",
        "How to repeat it: `make bench-peers`, or `make bench-peers ARGS=--quick`; `ARGS=--help` tells the rest.",
        "Rounds are interleaved: each work is done by all entrants before the next one, in the opposite order in every other "
        "round. Works that are mostly waiting (deaths, idling, the busy machine) are done by all at the same time.",
        "All nodes of a cluster live in one process, on two threads of the peer's runtime where it has one, and talk over "
        "loopback in a network namespace of their own; who is killed, and who lives on the busy machine, has its own process.",
        "Nothing of bruit's sealing or checking is switched off. Peers run with the defaults of their documentation; variants "
        "are named. Who sends in clear by default and can do otherwise is measured sealed, too, where that costs something.",
        *([results.note] if results.note else []),
    ]
    bullets = [line for point in points for line in filled(f"- {point}", "  ")]
    picture = "![Six figures of each: bars, the best above](images/peers.png)"
    return ["# bruit and its peers, side by side", "", *filled(paragraph), "", picture, "", *bullets, ""]


def entrants(results: Results) -> list[str]:
    lines = ["## Who was measured", "", "| | version | configuration | traffic | a broadcast is |", "|---|---|---|---|---|"]
    for name, entrant in results.entrants.items():
        sealed, broadcast = entrant.sealed or "in clear", entrant.broadcast or "none"
        lines.append(f"| {name} | {entrant.language}, {entrant.version} | {entrant.configuration} | {sealed} | {broadcast} |")
    lines.append("")
    odd = [f"{name}: {entrant.joined}" for name, entrant in results.entrants.items() if entrant.joined != LISTS_ALL]
    if odd:
        lines += [f"What counts as joined elsewhere than by listing all: {'; '.join(odd)}.", ""]
    if results.absent:
        lines += ["Absent:", "", *(f"- {name}: {reason}" for name, reason in results.absent.items()), ""]
    return lines


def limits(results: Results) -> list[str]:
    lines = ["## The machine itself", "", "In the same run, once in each round.", "", "| | |", "|---|---:|"]
    for figure, text in LIMITS:
        if summary := results.summary(MACHINE.name, MACHINE.name, figure):
            lines.append(f"| {text} | {number(summary.median)} ({number(summary.least)}–{number(summary.most)}) |")
    return [*lines, ""]


