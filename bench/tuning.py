"""Draws the pictures of docs/TUNING.md from the sweeps of `cargo bench … --bench papers -- sweep PROFILE`.

python bench/tuning.py FOLDER [OUT]     FOLDER holds lan.csv, wan.csv, local.csv; in a Python that has bruit[plot]
"""

import csv
import pathlib
import sys

from bruit.sim import plot

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Levers that a picture tells apart, with the sign of their points; all others are in one grey crowd.
DEATHS = {
    "suspicion_mult": "o",
    "suspicion_max_mult": "s",
    "suspicion_confirmations": "^",
    "local_health_max": "D",
    "indirect_checks": "v",
}
SUSPICIONS = {
    "indirect_checks": "v",
    "gossip_interval": "o",
    "retransmit_mult": "s",
    "gossip_fanout": "^",
    "local_health_max": "D",
}
PROFILES = ("lan", "wan", "local")


def points(path):
    with open(path, newline="", encoding="utf-8") as file:
        return [(row["changed"], row) for row in csv.DictReader(file)]


def short(value):
    """``1.500`` is 1.5, and 400000us is 400ms."""
    value = f"{float(value[:-2]) / 1000:g}ms" if value.endswith("us") else value
    return value.rstrip("0").rstrip(".") if "." in value and value[-1].isdigit() else value


def swept(folder, title, levers, x, y, xlabel, ylabel):
    """One panel a profile: each point is one lever moved, all others as they are at the start."""
    figure, _ = plot._figure(None)
    figure.clear()
    figure.set_size_inches(9.6, 4.0)
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    panels = figure.subplots(1, 3, sharey=True)
    for axes, profile in zip(panels, PROFILES):
        axes.grid(alpha=0.3, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(profile, fontsize=10, loc="left")
        rows = points(folder / f"{profile}.csv")
        others = [row for changed, row in rows if changed and changed.split("=")[0] not in {*levers, "chosen"}]
        axes.plot([x(r) for r in others], [y(r) for r in others], ".", color="#999999", label="the other levers")
        for at, (lever, marker) in enumerate(levers.items()):
            mine = [(x(r), y(r), c.split("=")[1]) for c, r in rows if c.startswith(f"{lever}=")]
            mine.sort()
            axes.plot(
                [p[0] for p in mine],
                [p[1] for p in mine],
                marker,
                color=plot.COLORS[at],
                markersize=5,
                alpha=0.9,
                label=lever,
            )
            for px, py, value in mine:
                axes.annotate(
                    short(value),
                    (px, py),
                    textcoords="offset points",
                    xytext=(4, 3),
                    fontsize=7,
                    color=plot.COLORS[at],
                )
        default = next(row for changed, row in rows if not changed)
        chosen = next((row for changed, row in rows if changed == "chosen"), default)
        axes.plot(x(default), y(default), "*", color="#000000", markersize=12, label="start")
        axes.plot(x(chosen), y(chosen), "*", color="#FFFFFF", markeredgecolor="#000000", markersize=12, label="chosen")
        if any(y(row) == 0 for _, row in rows):
            axes.set_yscale("symlog", linthresh=0.01)
            axes.set_ylim(bottom=-0.003)
        else:
            axes.set_yscale("log")
        axes.set_xlabel(xlabel)
    panels[0].set_ylabel(ylabel)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside lower center", ncols=4, fontsize=8)
    return figure


def main():
    folder = pathlib.Path(sys.argv[1])
    out = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else ROOT / "docs" / "images"
    number = lambda key: lambda row: float(row[key])  # noqa: E731
    pictures = {
        "tuning-deaths": swept(
            folder,
            "False deaths against detection: one lever moved at a time",
            DEATHS,
            number("first_p50"),
            number("false_dead"),
            "first DEAD, median (periods)",
            "false deaths (a member, 3,600 periods)",
        ),
        "tuning-suspicions": swept(
            folder,
            "False suspicions against traffic at 20 % loss: one lever moved at a time",
            SUSPICIONS,
            number("loss20_bytes"),
            number("loss20_suspects"),
            "sent (bytes a member and period)",
            "suspicions (a member, 3,600 periods)",
        ),
    }
    for name, figure in pictures.items():
        for path in plot.save(figure, out / name):
            print(f"{path}: {path.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
