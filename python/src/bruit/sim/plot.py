"""Pictures of reports, as matplotlib figures: ``pip install bruit[plot]``.

    reports = {"calm": calm.run(), "30 % loss": lossy.run()}
    bruit.sim.plot.save(bruit.sim.plot.infection(reports), "infection")     # infection.png and infection.svg

Each takes one report, or several by name. Colours are those of Okabe and Ito, which people see apart whose eyes see
colours differently; lines also differ in their dashes. No window is opened, and matplotlib's own state is left alone.
"""

from __future__ import annotations

import bisect
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Optional, Union

from bruit.sim import Report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["detection", "infection", "save", "staleness", "traffic"]

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)), (0, (3, 1, 1, 1)))

Reports = Union[Report, Mapping[str, Report]]


def infection(reports: Reports, *, title: Optional[str] = None) -> Figure:
    """The infection curve: which share of the nodes knows what was told, by the time since it was told.

    The line is the median over all rumors of all trials, the band around it goes from the 5th to the 95th percentile. Time
    is logarithmic: most hear within milliseconds, and the few that loss has hit are to be seen as well.
    """
    curves: dict[str, list[tuple[list[float], int]]] = {}
    for name, report in _named(reports).items():
        told = [tell for trial in report.trials for tell in trial.tells]
        if not told:
            raise ValueError(f"{name}: nothing was told; a phase with tell=1 does")
        curves[name] = [(sorted(tell.known.values()), 1 + len(tell.known) + len(tell.unknown)) for tell in told]
    heard = [t for curve in curves.values() for times, _ in curve for t in times]
    first, last = max(0.1, 0.8 * min(heard, default=1.0)), 1.1 * max(heard, default=10.0)
    grid = [first * (last / first) ** (i / 250) for i in range(251)]
    figure, axes = _figure(title)
    for at, (name, curve) in enumerate(curves.items()):
        shares = [[100.0 * (1 + bisect.bisect_right(times, t)) / of for times, of in curve] for t in grid]
        low, middle, high = ([_rank(share, p) for share in shares] for p in (0.05, 0.5, 0.95))
        axes.fill_between(grid, low, high, color=COLORS[at % len(COLORS)], alpha=0.2, linewidth=0, step="post")
        axes.step(grid, middle, where="post", label=name, **_style(at))
    axes.set_xlabel("time since it was told (ms, logarithmic)")
    axes.set_ylabel("nodes that know (%)")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlim(grid[0], grid[-1])
    axes.set_ylim(0, 103)
    _legend(axes, reports, "center right")
    return figure


def staleness(reports: Reports, *, title: Optional[str] = None) -> Figure:
    """How far tables are behind, over time: who is wrong about who is there, and whose metadata is old.

    Means over all trials, as shares of all pairs of nodes; phases of the first report stand above.
    """
    # Between title and picture stand the phases.
    figure, axes = _figure(title, pad=20)
    named = _named(reports)
    style = 0
    for name, report in named.items():
        series: dict[float, list[tuple[float, float]]] = {}
        for trial in report.trials:
            for sample in trial.staleness:
                series.setdefault(round(sample.at_ms, 3), []).append((sample.members, sample.meta))
        if not series:
            raise ValueError(f"{name}: nobody looked; sample=1.0 does")
        # A moment that few trials came to would be their mean and no longer that of all.
        full = [at for at in sorted(series) if len(series[at]) == len(report.trials)]
        prefix = "" if isinstance(reports, Report) else f"{name}: "
        for which, what in enumerate(("wrong about who is there", "old metadata")):
            values = [100.0 * sum(pair[which] for pair in series[at]) / len(series[at]) for at in full]
            axes.plot([at / 1000 for at in full], values, label=prefix + what, **_style(style))
            style += 1
    axes.set_xlabel("time since the first phase began (s)")
    axes.set_ylabel("pairs of nodes (%)")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    _phases(axes, next(iter(named.values())))
    axes.legend(frameon=False, loc="best")
    return figure


def detection(reports: Reports, *, fault: Optional[str] = None, title: Optional[str] = None) -> Figure:
    """A histogram of how long it took until a fault was noticed: first suspected, first declared dead, and known to all.

    fault: ``"kill"``, ``"pause"``, …; None: all of them.
    """
    figure, axes = _figure(title)
    shown: list[tuple[str, list[float]]] = []
    for name, report in _named(reports).items():
        prefix = "" if isinstance(reports, Report) else f"{name}: "
        found = [d for t in report.trials for d in t.detections if fault in (None, d.fault)]
        if not found:
            raise ValueError(f"{name}: no such fault; a phase with kill=1 has one")
        shown.append((f"{prefix}first SUSPECT", [d.suspected_ms / 1000 for d in found if d.suspected_ms is not None]))
        shown.append((f"{prefix}first DEAD", [d.first_ms / 1000 for d in found if d.first_ms is not None]))
        shown.append((f"{prefix}all know", [d.all_ms / 1000 for d in found if d.all_ms is not None]))
    values = [value for _, times in shown for value in times]
    if not values:
        raise ValueError("nobody noticed anything")
    width = max(values) / 30 or 0.1
    bins = [width * i for i in range(32)]
    for at, (name, times) in enumerate(shown):
        axes.hist(times, bins=bins, histtype="stepfilled", alpha=0.12, color=COLORS[at % len(COLORS)])
        axes.hist(times, bins=bins, histtype="step", label=name, **_style(at))
    axes.set_xlabel("time since the fault (s)")
    axes.set_xlim(left=0)
    axes.set_ylabel("faults (count)")
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False, loc="best")
    return figure


def traffic(reports: Reports, *, least: float = 0.005, title: Optional[str] = None) -> Figure:
    """Bytes a node and second, by the kind of a packet's first frame.

    least: kinds below this share of all bytes in every report are summed up as "others".
    """
    named = _named(reports)
    totals = {name: sum(kind.bytes for kind in report.kinds) or 1.0 for name, report in named.items()}
    large: dict[str, float] = {}
    for name, report in named.items():
        for kind in report.kinds:
            if kind.bytes >= least * totals[name]:
                large[kind.name] = max(large.get(kind.name, 0.0), kind.bytes)
    kinds = sorted(large, key=lambda kind: large[kind])
    rows = ["others", *kinds]
    figure, axes = _figure(title, height=1.2 + 0.28 * len(rows) * max(1, len(named)) ** 0.6)
    thick = 0.8 / len(named)
    for at, (name, report) in enumerate(named.items()):
        sent = {kind.name: kind.bytes for kind in report.kinds}
        others = sum(value for kind, value in sent.items() if kind not in large)
        values = [others, *(sent.get(kind, 0.0) for kind in kinds)]
        places = [row + (len(named) - 1 - 2 * at) * thick / 2 for row in range(len(rows))]
        bars = axes.barh(places, values, height=thick, label=name, color=COLORS[at % len(COLORS)])
        labels = [f"{value:.0f}" if value >= 100 else f"{value:.3g}" for value in values]
        axes.bar_label(bars, labels=labels, padding=3, fontsize=8)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xlabel("bytes sent by a node in a second (B/s)")
    axes.set_xlim(right=1.12 * max(max(large.values(), default=1.0), 1e-9))
    axes.grid(axis="y", visible=False)
    _legend(axes, reports, "lower right")
    return figure


def save(figure: Figure, path: Union[str, os.PathLike[str]]) -> tuple[pathlib.Path, pathlib.Path]:
    """Write it as PNG and as SVG; an ending of `path` is replaced. Returns both paths.

    The same figure gives the same SVG again: no date is in it, and its text stays text.
    """
    matplotlib = _matplotlib()
    base = pathlib.Path(path)
    base = base.with_suffix("") if base.suffix in (".png", ".svg") else base
    png, svg = base.with_name(base.name + ".png"), base.with_name(base.name + ".svg")
    with matplotlib.rc_context({"svg.hashsalt": "bruit", "svg.fonttype": "none"}):
        figure.savefig(png, dpi=110, metadata={"Software": None})
        figure.savefig(svg, metadata={"Date": None, "Creator": None})
    return png, svg


def _matplotlib() -> Any:
    try:
        import matplotlib
        import matplotlib.figure
    except ImportError as e:
        raise ImportError("bruit.sim.plot needs matplotlib: pip install bruit[plot]") from e
    return matplotlib


def _figure(title: Optional[str], height: float = 3.6, pad: float = 8) -> tuple[Figure, Any]:
    figure: Figure = _matplotlib().figure.Figure(figsize=(6.4, height), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(alpha=0.3, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if title:
        axes.set_title(title, fontsize=11, loc="left", pad=pad)
    return figure, axes


def _named(reports: Reports) -> dict[str, Report]:
    named = {reports.title or "scenario": reports} if isinstance(reports, Report) else dict(reports)
    if not named:
        raise ValueError("expected a report")
    return named


def _legend(axes: Any, reports: Reports, place: str) -> None:
    if not isinstance(reports, Report):
        axes.legend(frameon=False, loc=place)


def _style(at: int) -> dict[str, Any]:
    return {"color": COLORS[at % len(COLORS)], "linestyle": DASHES[at % len(DASHES)], "linewidth": 1.8}


def _phases(axes: Any, report: Report) -> None:
    """Lines where phases begin, at their median, and their names above."""
    began = 0.0
    names = [passed.name for passed in report.trials[0].phases if passed.name != "form"]
    right = axes.get_xlim()[1]
    for number, name in enumerate(names):
        took = sorted(p.took_ms / 1000 for trial in report.trials for p in trial.phases if p.name == name)
        if began >= right:
            break
        if number:
            axes.axvline(began, color="#888888", linewidth=0.8, linestyle=":")
        lasts = took[len(took) // 2] if took else 0.0
        # A name that is wider than its phase would cover the next one's.
        if lasts > right * 0.013 * len(name):
            middle = (began + min(began + lasts, right)) / 2
            axes.text(middle, 1.01, name, transform=axes.get_xaxis_transform(), ha="center", va="bottom", fontsize=9)
        began += lasts


def _rank(values: Sequence[float], p: float) -> float:
    return sorted(values)[max(1, math.ceil(p * len(values))) - 1]
