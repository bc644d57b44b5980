"""The false-death soak: a busy machine must not make a live node look dead.

    soak.py NODE-PROGRAM [MINUTES]       MINUTES: 30 where not given; fractions are fine

Twenty processes of demo/node.c in one cluster, every third at nice 19, beside eight CPU hogs. DEAD events about
nodes that run are counted and must be 0. At the end one node is killed: a detector that never fires would
pass as well. Exit code 0 only if both held. Standard library only.
"""

import pathlib
import secrets
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "demo"))
from cluster import Cluster, Failure  # noqa: E402

NODES, HOGS = 20, 8
PATIENCE = 120  # seconds for the cluster to form, and to see a real death, on a machine that we overload


def soak(program, minutes, cluster):
    key = secrets.token_hex(32)
    names = [f"n{i:02}" for i in range(NODES)]
    first = cluster.start(names[0], [program, names[0], key])
    cluster.pump(lambda: first.address, "the first node is ready", PATIENCE)
    for i, name in enumerate(names[1:], 1):
        cluster.start(name, [program, name, key, first.address], nice=19 if i % 3 == 0 else 0)
    running = cluster.children.values()
    cluster.pump(lambda: all(c.lists() == NODES for c in running), f"each lists {NODES}", PATIENCE)

    start = time.monotonic()
    formed = len(cluster.events)
    print(f"{NODES} nodes, {sum(1 for i in range(1, NODES) if i % 3 == 0)} of them at nice 19, {HOGS} hogs, "
          f"{minutes:g} minutes", flush=True)
    while (elapsed := time.monotonic() - start) < 60 * minutes:
        cluster.watch(min(60, 60 * minutes - elapsed))
        counts = {kind: sum(1 for e in cluster.events[formed:] if e[2] == kind) for kind in ("SUSPECT", "ALIVE", "DEAD")}
        print(f"  {(time.monotonic() - start) / 60:6.1f} min: {counts['SUSPECT']} SUSPECT, {counts['ALIVE']} refuted, "
              f"{counts['DEAD']} DEAD events about nodes that run", flush=True)
    false_deaths = counts["DEAD"]

    victim = cluster.forget(names[-1])
    killed = time.monotonic()
    victim.process.kill()
    survivors = set(names[:-1])
    cluster.pump(lambda: survivors <= cluster.told("DEAD", victim.name, killed).keys(), "a real death is seen by all",
                 PATIENCE)
    seen = cluster.told("DEAD", victim.name, killed).values()
    print(f"a real death, same load: first DEAD after {min(seen) - killed:.2f} s, all after {max(seen) - killed:.2f} s")
    return false_deaths


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    minutes = float(sys.argv[2]) if len(sys.argv) == 3 else 30.0
    hogs = []
    with Cluster() as cluster:
        try:
            hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(HOGS)]
            false_deaths = soak(sys.argv[1], minutes, cluster)
        except Failure as failure:
            sys.exit(f"FAILED: {failure}")
        finally:
            for hog in hogs:
                hog.kill()
                hog.wait()
    print(f"false deaths: {false_deaths} (reach: 0) {'OK' if false_deaths == 0 else 'FAILED'}")
    sys.exit(false_deaths != 0)


if __name__ == "__main__":
    main()
