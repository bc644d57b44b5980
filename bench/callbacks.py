"""Callbacks a second into Python: messages are queued first, and then what it takes to call a handler for all of them.

callbacks.py      in a Python that has an optimised bruit
"""

import statistics
import threading
import time

import bruit

MESSAGES = 40_000
ROUNDS = 15
REACH = 400_000


def measure() -> float:
    is_open, is_over, heard, size = threading.Event(), threading.Event(), 0, 0

    def hear(message: bruit.Message) -> None:
        nonlocal heard, size
        if heard == 0:
            is_open.wait()
        heard += 1
        size += len(message.data)
        if heard == MESSAGES:
            is_over.set()

    with bruit.Node("self", bind="127.0.0.1:0") as node:
        node.on_message(hear)
        data = bytes(256)
        for _ in range(MESSAGES):
            node.send("self", data, reliable=True)
        began = time.perf_counter()
        is_open.set()
        is_over.wait()
        took = time.perf_counter() - began
        assert size == MESSAGES * len(data)
        return MESSAGES / took


def main() -> None:
    print(f"\ncallbacks: a node that tells itself {MESSAGES} messages of 256 B, medians of {ROUNDS} rounds\n")
    rate = statistics.median(measure() for _ in range(ROUNDS))
    verdict = "OK" if rate >= REACH else "behind"
    print(f"{'callbacks into Python':<58} {rate / 1e6:>9.2f} million/s  reach {REACH / 1e6} million/s: {verdict}")


main()
