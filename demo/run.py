"""The main demo: five programs, three in C and two in Python, keep track of one another.

    run.py NODE-PROGRAM        the compiled demo/node.c; node.py runs in the Python that runs this file

They form a cluster, one is killed with SIGKILL and comes back under its name, one leaves; every step has
to be seen by every node. Exit code 0 only then. Standard library only.
"""

import os
import pathlib
import secrets
import signal
import sys
import time

from cluster import Cluster, Failure

HERE = pathlib.Path(__file__).resolve().parent
NAMES = "abcde"
PYTHON_NODES = "bd"
VICTIM, LEAVER = "c", "d"
PATIENCE = 20  # seconds for one step; all of them take about eight together
LIMIT = 60  # seconds for all of it

COLOURS = {"alive": "32", "suspect": "33", "dead": "31", "left": "36"}


class Screen:
    """A timeline, and tables of who lists whom as what."""

    def __init__(self):
        self.zero = time.monotonic()
        self.colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ

    def paint(self, text, state, width=0):
        padded = f"{text:<{width}}"
        code = COLOURS.get(state)
        return f"\033[{code}m{padded}\033[0m" if code and self.colour else padded

    def say(self, text, at=None):
        print(f"{(at or time.monotonic()) - self.zero:9.3f} s  {text}", flush=True)

    def title(self, text):
        print(f"\n{text}", flush=True)

    def row(self, cluster, at=None):
        """One line: how many members each node lists, itself included."""
        counts = [cluster.children[name].lists() if name in cluster.children else 0 for name in NAMES]
        self.say("    ".join(f"{name} {count or '-'}" for name, count in zip(NAMES, counts)), at)

    def table(self, cluster):
        print(f"\n    {'lists':<13}" + "".join(f"{name:<10}" for name in NAMES))
        for name in NAMES:
            child = cluster.children.get(name)
            if child is None:
                continue
            cells = []
            for other in NAMES:
                seen = child.table.get(other)
                state = "alive" if other == name else seen.state if seen else "-"
                cells.append(self.paint("(self)" if other == name else state, state, 10))
            print(f"    {name} {'Python' if name in PYTHON_NODES else 'C':<11}" + "".join(cells).rstrip())
        sys.stdout.flush()


def milliseconds(times, since):
    """First and last of the observers, for people."""
    first, last = (1000 * (pick(times.values()) - since) for pick in (min, max))
    return first, last


def demo(program, cluster, screen):
    key = secrets.token_hex(32)
    results = []
    shown = 0.0

    def report(at, child, kind, member, _epoch):
        nonlocal shown
        if cluster.children.get(child.name) is not child:
            return
        if kind in ("SUSPECT", "DEAD", "LEFT", "ALIVE"):
            screen.say(f"{child.name} sees {member} {screen.paint(kind, kind.lower())}", at)
        elif kind == "JOIN" and not results and at - shown > 0.01:
            shown = at
            screen.row(cluster, at)

    cluster.on_event = report

    def start(name, seed=None):
        command = [sys.executable, str(HERE / "node.py")] if name in PYTHON_NODES else [program]
        child = cluster.start(name, [*command, name, key, *([seed] if seed else [])])
        return child

    def others(name):
        return [child for child in cluster.children.values() if child.name != name]

    def all_told(kind, member, since, what):
        expected = {child.name for child in others(member)}
        cluster.pump(lambda: expected <= cluster.told(kind, member, since).keys(), what, PATIENCE)
        return cluster.told(kind, member, since)

    screen.title("1. Five processes start; four know only the address of a. How many members does each node list?")
    first = start("a")
    cluster.pump(lambda: first.address, "a is ready", PATIENCE)
    screen.say(f"a is at {first.address}")
    began = time.monotonic()
    for name in NAMES[1:]:
        start(name, first.address)
    running = cluster.children.values()
    cluster.pump(lambda: all(child.lists() == 5 for child in running), "each of the five lists five", PATIENCE)
    took = 1000 * (time.monotonic() - began)
    screen.row(cluster)
    screen.table(cluster)
    results.append(("formed: each lists five (start of four processes included)", None, took))

    screen.title(f"2. {VICTIM} is killed with SIGKILL. It cannot say good-bye; the others find out.")
    victim = cluster.forget(VICTIM)
    old_epoch = first.table[VICTIM].epoch
    killed = time.monotonic()
    victim.process.kill()
    screen.say(f"kill -9 {VICTIM}")
    dead = all_told("DEAD", VICTIM, killed, f"DEAD {VICTIM} at four nodes")
    suspect = cluster.told("SUSPECT", VICTIM, killed)
    ever = cluster.told("SUSPECT", VICTIM)
    late = [name for name in dead if not ever.get(name, dead[name] + 1) <= dead[name]]
    if late:
        raise Failure(f"DEAD without SUSPECT before it at {late}")
    screen.table(cluster)
    if suspect:
        results.append(("SUSPECT after the kill", *milliseconds(suspect, killed)))
    results.append(("DEAD after the kill", *milliseconds(dead, killed)))

    screen.title(f"3. {VICTIM} starts again: the same name, another process, another port.")
    back = time.monotonic()
    reborn = start(VICTIM, first.address)
    alive = all_told("ALIVE", VICTIM, back, f"{VICTIM} is back at four nodes")
    cluster.pump(lambda: reborn.lists() == 5, f"the new {VICTIM} lists five", PATIENCE)
    epochs = {child.table[VICTIM].epoch for child in others(VICTIM)}
    if len(epochs) != 1 or not min(epochs) > old_epoch:
        raise Failure(f"epochs of {VICTIM}: {old_epoch} before, {sorted(epochs)} after; expected one, higher")
    screen.say(f"epoch {old_epoch} became {epochs.pop()}")
    screen.table(cluster)
    results.append(("back, with a higher epoch (start of the process included)", *milliseconds(alive, back)))

    screen.title(f"4. {LEAVER} is asked to leave (SIGTERM). Nobody has to suspect anything.")
    leaver = cluster.forget(LEAVER)
    asked = time.monotonic()
    leaver.process.terminate()
    left = all_told("LEFT", LEAVER, asked, f"LEFT {LEAVER} at four nodes")
    if leaver.process.wait(PATIENCE) != 0:
        raise Failure(f"{LEAVER} ended with exit code {leaver.process.returncode}")
    screen.table(cluster)
    results.append(("LEFT after the request", *milliseconds(left, asked)))

    # A SUSPECT is a question: on a busy machine it is asked about nodes that run, and they answer it.
    wrong = [
        f"{child.name} was told DEAD about {member}"
        for at, child, kind, member, _ in cluster.events
        if kind == "DEAD" and (member != VICTIM or not killed <= at <= back)
    ]
    if wrong:
        raise Failure("about a node that ran: " + "; ".join(wrong))

    screen.title("5. The rest leaves too.")
    cluster.on_event = None
    for child in list(cluster.children.values()):
        child.process.send_signal(signal.SIGTERM)
        code = child.process.wait(PATIENCE)
        screen.say(f"{child.name} left, exit code {code}")
        cluster.forget(child.name)
        if code != 0:
            raise Failure(f"{child.name} ended with exit code {code}")
    return results


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    screen = Screen()
    print("bruit: five processes on 127.0.0.1, three in C, two in Python, one key")
    with Cluster() as cluster:
        try:
            results = demo(sys.argv[1], cluster, screen)
            took = time.monotonic() - screen.zero
            if took > LIMIT:
                raise Failure(f"{took:.1f} s in all; it is to be seen in {LIMIT}")
        except Failure as failure:
            screen.table(cluster)
            print(f"FAILED: {failure}", file=sys.stderr)
            sys.exit(1)
    print(f"\n{'Summary':<62}{'first, ms':>10}{'all, ms':>10}")
    for what, first, last in results:
        print(f"  {what:<60}{'' if first is None else format(first, '.0f'):>10}{last:>10.0f}")
    print(f"\nEvery step was seen by every node; {took:.1f} s in all.")


if __name__ == "__main__":
    main()
