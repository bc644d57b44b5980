"""kinship: SWIM in Rust below an asyncio interface, sealed with a key."""

from __future__ import annotations

import asyncio
import base64

from kinship import Cluster, Config, UserMessage
from work import About, Heard, Node, Plan, main

ABOUT = About(
    name="kinship",
    sealed="AEAD with one key of the cluster",
    broadcast="Cluster.broadcast: rides on gossip",
    reliable="",
    best_effort="Cluster.send: one datagram",
    request="",
    detects=True,
    variants={"default": "Config.lan", "local": "Config.local"},
)
KEY = base64.b64encode(bytes([7] * 32)).decode()


class Kinship:
    def __init__(self, cluster: Cluster, heard: Heard) -> None:
        self.cluster, self.heard = cluster, heard
        self.ears = asyncio.create_task(self.listen())

    async def listen(self) -> None:
        async for event in self.cluster.events():
            if isinstance(event, UserMessage):
                self.heard.take(event.data)

    def address(self) -> str:
        return str(self.cluster.local.addr)

    def live(self) -> int:
        return len(self.cluster.members())

    async def broadcast(self, data: bytes) -> None:
        await self.cluster.broadcast(data)

    async def send(self, to: Node, data: bytes, reliable: bool) -> None:
        assert isinstance(to, Kinship)
        await self.cluster.send(to.cluster.local.name, data)

    async def request(self, to: Node, data: bytes) -> None:
        raise NotImplementedError

    def processes(self) -> list[int]:
        return []


async def start(plan: Plan) -> Kinship:
    preset = Config.local if plan.variant == "local" else Config.lan
    seeds = [plan.seed] if plan.seed else []
    cluster = Cluster(preset(name=plan.name, bind="127.0.0.1:0", seeds=seeds, keys=[KEY]))
    await cluster.start()
    return Kinship(cluster, plan.heard)


if __name__ == "__main__":
    main(ABOUT, start)
