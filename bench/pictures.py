"""Draws the pictures of docs/SIMULATOR.md from the scenarios in examples/sim: docs/images/*.png and *.svg.

    python bench/pictures.py [FOLDER]      in a Python that has bruit[plot]; a minute
"""

import pathlib
import sys

from bruit import sim
from bruit.sim import plot

ROOT = pathlib.Path(__file__).resolve().parent.parent
SCENARIOS = ROOT / "examples" / "sim"


def report(name, **run):
    return sim.Scenario.load(SCENARIOS / f"{name}.scn").run(**run)


def main():
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images"
    folder.mkdir(parents=True, exist_ok=True)
    rumors = {"no loss": report("rumor", trials=50), "30 % loss": report("loss", trials=50)}
    crash, apart = report("crash", trials=60), report("partition")
    pictures = {
        "infection": plot.infection(rumors, title="A rumor among 100 nodes"),
        "detection": plot.detection(crash, title="Three of 50 nodes crash, 5 % loss"),
        "staleness": plot.staleness(apart, title="Two halves of 40 nodes are apart for a minute"),
        "traffic": plot.traffic(crash, title="Three of 50 nodes crash: what is sent"),
    }
    for name, figure in pictures.items():
        for path in plot.save(figure, folder / name):
            print(f"{path}: {path.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
