"""A chat without a server. What is typed goes to everybody who is there; "/ping NAME" asks one for an answer.

python asyncio_chat.py ann 127.0.0.1:7001
python asyncio_chat.py bob 127.0.0.1:7002 127.0.0.1:7001
"""

import asyncio
import sys
import time

import bruit
import bruit.aio


async def lines():
    """Of standard input, without a thread that waits for them."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield line.decode().strip()


async def say(node, text):
    """To all who are alive. Who dies meanwhile need not stop the others from hearing it."""
    others = [member.name for member in node.members().alive if not member.is_local]
    sent = (node.send(name, text.encode(), topic="chat", reliable=True, timeout=5) for name in others)
    for name, outcome in zip(others, await asyncio.gather(*sent, return_exceptions=True)):
        if isinstance(outcome, bruit.BruitError):
            print(f"* {name} does not hear it: {outcome}", flush=True)


async def ping(node, name):
    began = time.perf_counter()
    try:
        reply = await node.request(name, b"", topic="ping", timeout=5)
        print(f"* {name} {reply.data.decode()}, {(time.perf_counter() - began) * 1e3:.1f} ms", flush=True)
    except bruit.BruitError as error:
        print(f"* {name}: {error}", flush=True)


async def main(name, bind, *seeds):
    heard = 0
    node = bruit.aio.Node(name, bind=bind, seeds=seeds)

    @node.on_message("chat")
    def hear(message):
        nonlocal heard
        heard += 1
        print(f"{message.sender}: {message.data.decode()}", flush=True)

    @node.on_message("ping")
    async def answer(message):
        return f"is here and has heard {heard}".encode()

    # Before the start: who is there already is reported then.
    @node.on_event(kinds=(bruit.MemberJoined, bruit.MemberDead, bruit.MemberLeft))
    def notice(event):
        print(f"* {event.member.name} is {event.member.state}", flush=True)

    async with node:
        print(f"* {name} at {node.address}", flush=True)
        async for line in lines():
            if line.startswith("/ping "):
                await ping(node, line[len("/ping ") :])
            elif line:
                await say(node, line)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    asyncio.run(main(*sys.argv[1:]))
