"""bruit as its Python users have it: the installed wheel, its asyncio interface, a key, and the defaults of its `lan` profile."""

from __future__ import annotations

import bruit
import bruit.aio
from work import About, Heard, Node, Plan, main

ABOUT = About(
    name="bruit (Python)",
    sealed="ChaCha20-Poly1305, one key of the cluster",
    broadcast="Node.broadcast: a tree, repaired by digests",
    reliable="Node.send, reliable",
    best_effort="Node.send, best effort",
    request="Node.request",
    detects=True,
    variants={"default": "profile lan, bruit.aio"},
)
KEY, LONG = bytes([7] * 32), 20.0
LIVE = (bruit.MemberState.ALIVE, bruit.MemberState.SUSPECT)
# As bench/peers/bruit has them.
RUNTIMES = [bruit.Runtime(), bruit.Runtime()]


class Bruit:
    def __init__(self, node: bruit.aio.Node, heard: Heard) -> None:
        self.node, self.heard, self.view, self.listed = node, heard, -1, 0
        node.on_message("", self.hear)
        node.on_message("echo", self.echo)

    def hear(self, message: bruit.Message) -> None:
        self.heard.take(message.data)

    def echo(self, message: bruit.Message) -> bytes:
        return message.data

    def address(self) -> str:
        return self.node.address

    def live(self) -> int:
        if self.view != self.node.view:
            members = self.node.members()
            self.view, self.listed = members.view, sum(member.state in LIVE for member in members)
        return self.listed

    async def broadcast(self, data: bytes) -> None:
        await self.node.broadcast(data, timeout=LONG)

    async def send(self, to: Node, data: bytes, reliable: bool) -> None:
        assert isinstance(to, Bruit)
        await self.node.send(to.node.name, data, reliable=reliable, timeout=LONG)

    async def request(self, to: Node, data: bytes) -> None:
        assert isinstance(to, Bruit)
        await self.node.request(to.node.name, data, topic="echo", timeout=LONG)

    def processes(self) -> list[int]:
        return []


async def start(plan: Plan) -> Bruit:
    runtime = RUNTIMES[sum(plan.name.encode()) % len(RUNTIMES)]
    seeds = [plan.seed] if plan.seed else []
    node = bruit.aio.Node(plan.name, bind="127.0.0.1:0", seeds=seeds, keys=[KEY], runtime=runtime)
    await node.start()
    return Bruit(node, plan.heard)


if __name__ == "__main__":
    main(ABOUT, start)
