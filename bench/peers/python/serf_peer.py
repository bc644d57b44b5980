"""serf: an agent of its own for each node, spoken to over its RPC. What is sent is a user event; a question is a query.

CPU and memory are those of the agents and of this process, which is their application.
"""

from __future__ import annotations

import asyncio
import base64
import ctypes
import signal
import socket
from collections.abc import Callable
from typing import Any, Optional

import msgpack
from work import About, Failure, Node, Plan, main

ABOUT = About(
    name="serf",
    sealed="AES-GCM with one key of the cluster",
    broadcast="RPC event: a user event",
    reliable="",
    best_effort="",
    request="RPC query to one node",
    detects=True,
    variants={"default": "profile lan, one agent process a node"},
)
KEY = base64.b64encode(bytes([7] * 32)).decode()
ALIVE = {b"member-join": True, b"member-leave": False, b"member-failed": False, b"member-reap": False}

Record = dict[bytes, Any]
Hear = Callable[[Record], None]


def with_us() -> None:
    """In the agent, before it begins: it ends when we do, however we end."""
    set_death_signal = 1
    ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)


def free_port() -> int:
    for _ in range(100):
        with socket.socket(type=socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
            udp.bind(("127.0.0.1", 0))
            try:
                tcp.bind(udp.getsockname())
            except OSError:
                continue
            return int(udp.getsockname()[1])
    raise Failure("no port is free for both UDP and TCP")


class Serf:
    def __init__(self, plan: Plan) -> None:
        self.plan, self.heard = plan, plan.heard
        self.alive, self.next = {plan.name.encode()}, 0
        self.place = f"127.0.0.1:{free_port()}"
        # By the number of the request: whether a body follows, and what to do with it.
        self.expected: dict[int, tuple[bool, Optional[Hear]]] = {}

    async def start(self) -> Serf:
        rpc = free_port()
        words = ["-bind", self.place, "-rpc-addr", f"127.0.0.1:{rpc}", "-node", self.plan.name, "-encrypt", KEY]
        words += ["-log-level", "err"]
        if self.plan.seed:
            words += ["-retry-join", self.plan.seed, "-retry-interval", "1s"]
        nothing = asyncio.subprocess.DEVNULL
        command = ["serf", "agent", *words]
        self.agent = await asyncio.create_subprocess_exec(*command, stdout=nothing, stderr=nothing, preexec_fn=with_us)
        for _ in range(500):
            try:
                self.reader, self.writer = await asyncio.open_connection("127.0.0.1", rpc)
                break
            except OSError:
                await asyncio.sleep(0.02)
        else:
            raise Failure("the agent does not answer")
        self.ears = asyncio.create_task(self.listen())
        self.call("handshake", {"Version": 1})
        self.call("stream", {"Type": "*"}, self.on_event)
        self.call("members", None, self.on_members)
        return self

    def call(self, name: str, body: Any, hear: Optional[Hear] = None) -> None:
        """Asks the agent. What answers is heard, if anybody listens; a body comes with the first answer of `members` only."""
        self.next += 1
        self.expected[self.next] = (name == "members", hear)
        self.writer.write(msgpack.packb({"Command": name, "Seq": self.next}))
        if body is not None:
            self.writer.write(msgpack.packb(body))

    async def listen(self) -> None:
        unpacker, whose = msgpack.Unpacker(raw=True), None
        while chunk := await self.reader.read(65_536):
            unpacker.feed(chunk)
            for said in unpacker:
                if whose:
                    whose(said)
                    whose = None
                    continue
                number = said[b"Seq"]
                has_body, hear = self.expected[number]
                if hear is None:
                    del self.expected[number]
                elif has_body:
                    whose = hear
                else:
                    # What comes under this number from now on has a body.
                    self.expected[number] = (True, hear)

    def on_members(self, said: Record) -> None:
        self.alive |= {member[b"Name"] for member in said[b"Members"] if member[b"Status"] == b"alive"}

    def on_event(self, event: Record) -> None:
        kind = event[b"Event"]
        if kind == b"user":
            self.heard.take(event[b"Payload"])
        elif kind == b"query":
            self.call("respond", {"ID": event[b"ID"], "Payload": event[b"Payload"]})
        elif kind in ALIVE:
            names = {member[b"Name"] for member in event[b"Members"]}
            self.alive = self.alive | names if ALIVE[kind] else self.alive - names

    def address(self) -> str:
        return self.place

    def live(self) -> int:
        return len(self.alive)

    async def broadcast(self, data: bytes) -> None:
        self.call("event", {"Name": "said", "Payload": data, "Coalesce": False})
        await self.writer.drain()

    async def send(self, to: Node, data: bytes, reliable: bool) -> None:
        raise NotImplementedError

    async def request(self, to: Node, data: bytes) -> None:
        assert isinstance(to, Serf)
        answered = asyncio.Event()

        def hear(said: Record) -> None:
            if said[b"Type"] == b"response":
                answered.set()

        query = {"FilterNodes": [to.plan.name], "Name": "echo", "Payload": data, "RequestAck": False, "Timeout": 5 * 10**9}
        self.call("query", query, hear)
        await asyncio.wait_for(answered.wait(), 6)

    def processes(self) -> list[int]:
        return [self.agent.pid]


async def start(plan: Plan) -> Serf:
    return await Serf(plan).start()


if __name__ == "__main__":
    main(ABOUT, start)
