"""Draws a result file: docs/images/peers.png and .svg. Each panel is one figure of a table, each bar an entrant."""

from __future__ import annotations

import pathlib
from typing import Any

from samples import Results, number
from table import is_ours
from works import TABLES, Column

# Work, figure, and what it is in words for somebody who sees nothing else.
PANELS = (
    ("join-50", "seconds", "50 nodes join, s"),
    ("detect-50", "all_s", "a death is known to 50, s"),
    ("broadcast-10", "p50_ms", "broadcast to 10, p50, ms"),
    ("broadcast-10", "per_second", "broadcasts to 10 a second"),
    ("broadcast-10", "cpu_us", "broadcast: CPU each, µs"),
    ("idle-100", "cpu_percent", "idle, 100 nodes: CPU, %"),
)
COLOR, OUR_COLOR = "#B0B0B0", "#0072B2"


def draw(results: Results, base: pathlib.Path) -> list[pathlib.Path]:
    """Where matplotlib is not there: nothing."""
    try:
        import matplotlib
        import matplotlib.figure
    except ImportError:
        return []
    figure = matplotlib.figure.Figure(figsize=(10, 7.2), layout="constrained")
    for axes, (work, name, title) in zip(figure.subplots(2, 3).flat, PANELS):
        panel(axes, results, column(work, name), title)
    figure.suptitle("bruit and its peers: median, least and most of the rounds; logarithmic", fontsize=11)
    base.parent.mkdir(parents=True, exist_ok=True)
    written = [base.with_suffix(ending) for ending in (".png", ".svg")]
    # The same results give the same file: no date, and text stays text.
    with matplotlib.rc_context({"svg.hashsalt": "bruit", "svg.fonttype": "none"}):
        figure.savefig(written[0], dpi=110, metadata={"Software": None})
        figure.savefig(written[1], metadata={"Date": None, "Creator": None})
    return written


def column(work: str, figure: str) -> Column:
    return next(c for table in TABLES for c in table.columns if (c.work, c.figure) == (work, figure))


def panel(axes: Any, results: Results, column: Column, title: str) -> None:
    """The best above. Who has no such figure, or none above zero, has no bar."""
    found = {name: summary for name in results.entrants if (summary := results.summary(column.work, name, column.figure))}
    shown = sorted((item for item in found.items() if item[1].least > 0), key=lambda item: item[1].median)
    if not column.more_is_better:
        shown.reverse()
    for at, (name, summary) in enumerate(shown):
        span = [[summary.median - summary.least], [summary.most - summary.median]]
        color = OUR_COLOR if is_ours(results.entrants[name]) else COLOR
        axes.barh(at, summary.median, xerr=span, color=color, height=0.7, error_kw={"elinewidth": 0.8, "ecolor": "#404040"})
        axes.annotate(f" {number(summary.median)}", (summary.most, at), va="center", fontsize=7)
    axes.set_yticks(range(len(shown)), [name for name, _ in shown], fontsize=8)
    axes.set_xscale("log")
    axes.xaxis.set_minor_formatter("")
    if shown:
        least, most = min(s.least for _, s in shown), max(s.most for _, s in shown)
        # Bars of a logarithmic axis begin somewhere; figures stand beside them.
        axes.set_xlim(least / 2, most * 6)
    better = "more is better" if column.more_is_better else "less is better"
    axes.set_title(f"{title}\n({better})", fontsize=9, loc="left")
    axes.tick_params(axis="x", labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
