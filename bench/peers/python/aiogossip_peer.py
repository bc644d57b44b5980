"""aiogossip: asyncio, UDP; who has joined is known from handshakes, and is asked every 15 s whether it is there."""

from __future__ import annotations

import asyncio

from aiogossip.message_pb2 import Message
from aiogossip.peer import Peer
from work import About, Heard, Node, Plan, main

ABOUT = About(
    name="aiogossip",
    sealed="",
    broadcast="Peer.publish without peers",
    reliable="",
    best_effort="Peer.publish to one peer: one datagram",
    request="Peer.request",
    detects=True,
    variants={"default": "fanout 5"},
)


class Aiogossip:
    def __init__(self, plan: Plan) -> None:
        loop = asyncio.get_running_loop()
        self.peer = Peer(host="127.0.0.1", port=0, peer_id=plan.name, loop=loop)
        self.heard: Heard = plan.heard
        self.peer.subscribe("said")(self.hear)
        self.peer.response("echo")(self.echo)
        if plan.seed:
            self.peer.connect(plan.seed)

    async def hear(self, message: Message) -> None:
        self.heard.take(message.payload)

    async def echo(self, message: Message) -> Message:
        return Message(payload=message.payload)

    def address(self) -> str:
        return str(self.peer.DSN)

    def live(self) -> int:
        graph = self.peer.gossip.topology.g
        return sum(1 for node in graph.nodes if graph.nodes[node].get("reachable", True))

    async def broadcast(self, data: bytes) -> None:
        await self.peer.publish("said", Message(payload=data))

    def addressed(self, to: Node, data: bytes) -> tuple[Message, list[bytes]]:
        assert isinstance(to, Aiogossip)
        message = Message(payload=data)
        message.routing.src_id, message.routing.dst_id = self.peer.peer_id, to.peer.peer_id
        return message, [to.peer.peer_id]

    async def send(self, to: Node, data: bytes, reliable: bool) -> None:
        message, peers = self.addressed(to, data)
        message.kind.append(Message.Kind.PUB)
        await self.peer.publish("said", message, peers=peers)

    async def request(self, to: Node, data: bytes) -> None:
        message, peers = self.addressed(to, data)
        async for answer in await self.peer.request("echo", message, peers=peers):
            if Message.Kind.RES in answer.kind:
                return

    def processes(self) -> list[int]:
        return []


async def start(plan: Plan) -> Aiogossip:
    return Aiogossip(plan)


if __name__ == "__main__":
    main(ABOUT, start)
