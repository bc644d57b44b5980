"""Clusters for tests: real nodes on the loopback interface, fast timers, a key and a label of their own.

    with bruit.testing.cluster(3) as nodes:
        nodes[0].meta["role"] = "db"
        nodes[1].wait_for(lambda members: members.tagged("role=db"), timeout=5)

With pytest the fixture `bruit_cluster` (from the plugin that comes with this package) does the same:

    def test_something(bruit_cluster):
        a, b, c = bruit_cluster(3)
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Sequence
from typing import Any, Optional

from bruit._convert import Duration, generate_key
from bruit._node import Node

__all__ = ["Cluster", "cluster"]


class Cluster(list[Node]):
    """The running nodes of a test, in the order in which they were started, named n0, n1, …"""

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__()
        self._made = 0
        self.options: dict[str, Any] = {
            "bind": "127.0.0.1:0",
            "profile": "local",
            "cluster": f"test-{secrets.token_hex(6)}",
            "keys": [generate_key()],
            **options,
        }
        """The keywords that its nodes are made with; for further nodes, sync or asyncio, in this process or another."""

    def seeds(self) -> list[str]:
        """Addresses of up to three of its running nodes."""
        return [node.address for node in self if node.state == "running"][:3]

    def add(self, name: Optional[str] = None, **options: Any) -> Node:
        """Start one more node, with the others as its seeds. It joins while you go on; see `wait`."""
        given = {"seeds": self.seeds(), **self.options, **options}
        node = Node(name or f"n{self._made}", **given)
        self._made += 1
        node.start()
        self.append(node)
        return node

    def wait(self, timeout: Duration = 10.0) -> None:
        """Wait until every running node sees every other one alive, and nobody else. `TimeoutError` where it did not."""
        running = [node for node in self if node.state == "running"]
        names = sorted(node.name for node in running)
        for node in running:
            node.wait_for(lambda members: [member.name for member in members.alive] == names, timeout)

    def stop(self) -> None:
        """Stop all of them, without a word to each other."""
        for node in self:
            node.stop(timeout=0)
        for node in self:
            node.stop()


@contextlib.contextmanager
def cluster(n: int, *, names: Sequence[str] = (), timeout: Duration = 10.0, **options: Any) -> Iterator[Cluster]:
    """`n` nodes that know each other; stopped at the end.

    names: what to call them, instead of n0, n1, …
    timeout: how long they may take to find each other; `TimeoutError` after that.
    options: as for `bruit.Node`, for all of them.
    """
    made = Cluster(options)
    try:
        for number in range(n):
            made.add(names[number] if number < len(names) else None)
        made.wait(timeout)
        yield made
    finally:
        made.stop()
