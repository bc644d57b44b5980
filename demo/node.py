"""One node of the demo, in Python: it joins, prints a line for each event, and leaves when told to (SIGTERM).

    node.py NAME KEY [SEED]       KEY is 64 hexadecimal digits, SEED the host:port of any node that runs

demo/node.c is the same program in C.
"""

import signal
import sys

import bruit


def main() -> None:
    name, key, *seeds = sys.argv[1:]
    # SystemExit unwinds the `with` block below, and leaving that block is leaving the cluster.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

    node = bruit.Node(name, bind="127.0.0.1:0", cluster="demo", keys=[bytes.fromhex(key)], seeds=seeds)
    events = node.events()  # made before the start, so it misses nothing
    try:
        with node:
            print("ready", name, node.address, flush=True)
            for event in events:
                if isinstance(event, bruit.MemberEvent):
                    member = event.member
                    print("event", event.kind, member.name, member.address, member.epoch, flush=True)
                else:
                    print("event", event.kind, flush=True)
    finally:
        print("bye", name, flush=True)


if __name__ == "__main__":
    main()
