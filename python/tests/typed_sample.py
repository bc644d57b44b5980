"""A user's program, as types see it. It is checked by mypy, never run."""

import asyncio
import io
import shutil
from datetime import timedelta
from typing import Optional

import bruit
import bruit.aio
import bruit.testing
from bruit import EventsLost, Member, MemberDead, MemberJoined


def describe(event: bruit.Event) -> Optional[str]:
    if isinstance(event, bruit.MemberEvent):
        member: Member = event.member
        return f"{member.name} {member.state.value} {member.meta.get('role', '-')}"
    if isinstance(event, EventsLost):
        return str(event.count)
    return None


def sync() -> int:
    key: str = bruit.generate_key()
    with bruit.Node("a", bind="127.0.0.1:0", keys=[key], meta={"role": "db"}, probe_interval=0.5) as node:
        view: int = node.wait_for(3, timeout="5s").view
        node.wait_for(lambda members: len(members.tagged("role=db")) > 1, timeout=timedelta(seconds=5))
        node.meta["role"] = "web"
        node.meta.update(zone="eu", role=None)
        names: list[str] = [member.name for member in node.members()]
        first: Member = node.members()[0]
        some: list[Member] = node.members()[1:]

        @node.on_event(kinds=(MemberJoined, MemberDead))
        def hear(event: bruit.MemberEvent) -> None:
            print(event.member.rtt or 0.0)

        subscription: bruit.Subscription = node.on_event(lambda event: None)
        subscription.cancel()
        hear.cancel()
        for event in node.events(timeout=1.0):
            print(describe(event))

        @node.on_message("sum")
        def add(message: bruit.Message) -> bytes:
            return message.data + message.sender.encode()

        @node.on_message
        def default(message: bruit.Message) -> None:
            message.reply(bytearray(b"x")) if message.is_request else None

        every: bruit.Subscription = node.on_message(lambda message: None, topic="*")
        other: bruit.Subscription = node.on_message("x", print)
        for subscription in (add, default, every, other):
            subscription.cancel()
        number: Optional[int] = node.send("b", memoryview(b"x"), topic="x", receipt=True, timeout="1s")
        answer: bytes = node.request("b", b"x", timeout=None).data

        @node.on_stream("copy")
        def keep(stream: bruit.ByteStream) -> None:
            with stream, open("copy", "wb") as file:
                shutil.copyfileobj(stream, file)

        with node.open_stream("b", "copy", compress=True, timeout="5s") as stream:
            stream.write(b"x")
            lines: list[bytes] = io.BufferedReader(stream).readlines()
            print(lines, stream.peer)
        keep.cancel()
        for message in node.messages("x", timeout=0):
            print(message.topic, message.epoch, number, answer)
        try:
            return node.join(["10.0.0.1"], timeout=1) + view + len(names) + len(some) + first.port
        except bruit.TimeoutError as error:
            return error.code


async def asynchronous() -> None:
    async with bruit.aio.Node(seeds="10.0.0.1:18946", cluster="demo") as node:
        members: bruit.Members = await node.wait_for(2)
        print(members.local.address)
        async for event in node.aevents(kinds=MemberJoined):
            print(describe(event))

        @node.on_event
        async def hear(event: bruit.Event) -> None:
            await asyncio.sleep(0)

        @node.on_message("sum")
        async def add(message: bruit.Message) -> bytes:
            return message.data

        @node.on_stream
        async def repeat(stream: bruit.aio.ByteStream) -> None:
            async for line in stream:
                await stream.write(line)

        async with await node.open_stream("b", timeout=1.5) as stream:
            await stream.write(await stream.readexactly(3))
        async for message in node.amessages():
            message.fail("not now")
        reply: bruit.Reply = await node.request("b", b"x", topic="sum")
        number: Optional[int] = await node.send("b", reply.data, reliable=True)
        print(number)
        answered: int = await node.join(["a", "b"], timeout=timedelta(seconds=1))
        print(answered)


def testing() -> None:
    with bruit.testing.cluster(3, profile="local") as nodes:
        node: bruit.Node = nodes[0]
        nodes.add("late").wait_for(4)
        print(node.name, bruit.options()["probe_interval"].doc)
