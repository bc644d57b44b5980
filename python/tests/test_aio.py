"""asyncio: nothing blocks the loop, and cancelling loses nothing."""

from __future__ import annotations

import asyncio
import functools
import logging
import threading

import bruit
import bruit.aio
import pytest
from bruit.testing import cluster


def run(test):
    """Run a coroutine as a test; no task may be left, and nothing may be said by the loop."""

    @functools.wraps(test)
    def wrapper(*args, **kwargs):
        async def main():
            complaints = []
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
            await test(*args, **kwargs)
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not left and not complaints

        asyncio.run(main())

    return wrapper


def alone(name=None, **options):
    return bruit.aio.Node(name, **{"bind": "127.0.0.1:0", "profile": "local", **options})


@run
async def test_a_life():
    node = alone("a", meta={"role": "db"})
    assert node.state == "new"
    async with node:
        assert node.state == "running" and node.local.meta == {"role": "db"}
        assert repr(node).startswith("<bruit.aio.Node a 127.0.0.1:")
        node.meta["zone"] = "eu"
        assert node.stats()
        with pytest.raises(bruit.StateError):
            await node.start()
    assert node.state == "stopped"
    await node.stop()
    await node.stop(0)
    with pytest.raises(bruit.StateError):
        await node.leave()


@run
async def test_join_wait_for_and_leave():
    async with alone("a") as a, alone("b") as b:
        assert await b.join([a.address], timeout=10) == 1
        members = await asyncio.gather(a.wait_for(2, timeout=10), b.wait_for(2, timeout=10))
        assert [len(found) for found in members] == [2, 2]
        with pytest.raises(TimeoutError, match="3 alive"):
            await a.wait_for(3, timeout=0.1)
        with pytest.raises(bruit.AddressError):
            await a.join("a b")
        watching = a.events(kinds=bruit.MemberEvent, timeout=10)
        await b.leave()
        assert isinstance(await watching.__anext__(), bruit.MemberLeft)


@run
async def test_events():
    async with alone("a") as a:
        async with alone("b", seeds=[a.address]) as b:
            stream = a.aevents(kinds=bruit.MemberEvent, timeout=10)
            await a.wait_for(2, timeout=10)
            b.meta["role"] = "db"
            seen = []
            async for event in stream:
                seen.append(type(event))
                if isinstance(event, bruit.MemberUpdated) and event.member.meta:
                    break
            assert bruit.MemberUpdated in seen
        async for event in stream:
            assert isinstance(event, bruit.MemberLeft)
            break


@run
async def test_a_stream_ends_after_silence():
    async with alone("a") as node:
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert [event async for event in node.aevents(kinds=bruit.MemberEvent, timeout="150ms")] == []
        assert loop.time() - began >= 0.14


@run
async def test_a_stream_ends_with_the_node():
    async with alone("a") as node:
        stream = node.events(kinds=bruit.MemberEvent)
        reading = asyncio.create_task(stream.__anext__())
        await asyncio.sleep(0)
        await node.stop()
        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(reading, 5)


@run
async def test_close_ends_the_wait_also_from_a_thread():
    async with alone("a") as node:
        for close in ("here", "thread"):
            stream = node.events(kinds=bruit.MemberEvent)
            reading = asyncio.create_task(stream.anext())
            await asyncio.sleep(0)
            if close == "here":
                stream.close()
            else:
                threading.Thread(target=stream.close).start()
            assert await asyncio.wait_for(reading, 5) is None


@run
async def test_the_loop_runs_while_a_call_waits():
    async with alone("a") as node:
        waiting = asyncio.create_task(node.wait_for(2, timeout=30))
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert not waiting.done()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting


def updates(node, count):
    """So many JoinDone events, as fast as they come."""
    for _ in range(count):
        node._native.join(["127.0.0.1:1"], 0.0)


@run
async def test_a_cancelled_wait_loses_no_event():
    async with alone("a") as node:
        stream = node.events(kinds=bruit.JoinDone, timeout=10)
        wanted, seen = 60, []
        updates(node, wanted)
        turn = 0
        while len(seen) < wanted:
            reading = asyncio.create_task(stream.__anext__())
            turn += 1
            for _ in range(turn % 4):
                await asyncio.sleep(0)
            if turn % 2:
                reading.cancel()
            try:
                seen.append(await reading)
            except asyncio.CancelledError:
                pass
        ids = [event.id for event in seen]
        assert len(ids) == len(set(ids)) == wanted and ids == sorted(ids)


@run
async def test_a_timeout_around_a_wait_loses_no_event():
    async with alone("a") as node:
        stream = node.events(kinds=bruit.JoinDone)
        wanted, seen = 40, []
        for turn in range(wanted):
            updates(node, 1)
            while len(seen) <= turn:
                try:
                    seen.append(await asyncio.wait_for(stream.__anext__(), 0.0002))
                except asyncio.TimeoutError:
                    pass
        ids = [event.id for event in seen]
        assert len(set(ids)) == wanted and ids == sorted(ids)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(stream.__anext__(), 0.01)


@run
async def test_two_tasks_may_wait_on_one_stream():
    async with alone("a") as node:
        stream = node.events(kinds=bruit.JoinDone)
        both = [asyncio.create_task(stream.__anext__()) for _ in range(2)]
        await asyncio.sleep(0)
        updates(node, 2)
        first, second = await asyncio.wait_for(asyncio.gather(*both), 10)
        assert first.id != second.id


@run
async def test_a_cancelled_join_goes_on_by_itself():
    async with alone("a") as a, alone("b") as b:
        done = b.events(kinds=bruit.JoinDone, timeout=10)
        joining = asyncio.create_task(b.join([a.address], timeout=10))
        await asyncio.sleep(0)
        joining.cancel()
        await asyncio.gather(joining, return_exceptions=True)
        assert (await done.__anext__()).answered == 1
        await b.wait_for(2, timeout=10)


@run
async def test_a_cancelled_block_stops_its_node():
    nodes = []

    async def work():
        async with alone("a") as node:
            nodes.append(node)
            async for _ in node.events():
                pass

    working = asyncio.create_task(work())
    while not nodes:
        await asyncio.sleep(0.001)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert nodes[0].state == "stopped"


@run
async def test_handlers_run_in_the_loop():
    async with alone("a") as node:
        heard, thread = [], threading.current_thread()

        @node.on_event(kinds=bruit.JoinDone)
        async def slow(event):
            assert threading.current_thread() is thread
            await asyncio.sleep(0.001)
            heard.append(("slow", event.id))

        quick = node.on_event(lambda event: heard.append(("quick", event.id)), kinds=bruit.JoinDone)

        @node.on_event(kinds=bruit.JoinDone)
        def once(event):
            heard.append(("once", event.id))
            once.cancel()

        updates(node, 2)
        while len(heard) < 5:
            await asyncio.sleep(0.001)
        assert sorted(name for name, _ in heard) == ["once", "quick", "quick", "slow", "slow"]
        quick.cancel()
        slow.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not quick.active and not slow.active and not once.active


def test_what_a_handler_raises_is_logged_and_not_fatal(caplog):
    @run
    async def test():
        async with alone("a") as node:
            heard = []

            @node.on_event(kinds=bruit.JoinDone)
            def broken(event):
                heard.append(event)
                raise ZeroDivisionError

            updates(node, 2)
            while len(heard) < 2:
                await asyncio.sleep(0.001)

    with caplog.at_level(logging.ERROR, logger="bruit"):
        test()
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ZeroDivisionError] * 2


@run
async def test_stop_waits_for_handlers_and_cancels_those_that_stay():
    inside, ended = asyncio.Event(), []

    async def handler(event, node, stays):
        inside.set()
        try:
            await asyncio.sleep(60 if stays else 0.05)
            ended.append("done")
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    for stays, timeout in (False, 10), (True, 0.1):
        node = await alone("a").start()
        node.on_event(functools.partial(handler, node=node, stays=stays), kinds=bruit.JoinDone)
        inside.clear()
        updates(node, 1)
        await asyncio.wait_for(inside.wait(), 10)
        await node.stop(timeout)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert ended == ["done", "cancelled"]


@run
async def test_metadata_before_the_start_disturbs_nobody_who_waits():
    """It makes another native node, with queues of its own."""
    node = alone("a")
    stream = node.events(kinds=bruit.Settled)
    waiting = [asyncio.create_task(stream.anext(30)) for _ in range(2)]
    inside, ended = asyncio.Event(), []

    @node.on_event(kinds=bruit.Settled)
    async def handler(event):
        inside.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(event)

    await asyncio.sleep(0)
    node.meta["role"] = "db"
    await asyncio.sleep(0.001)
    # And from another thread.
    await asyncio.get_running_loop().run_in_executor(None, node.meta.update, {"zone": "eu"})
    async with node:
        assert node.local.meta == {"role": "db", "zone": "eu"}
        done, _ = await asyncio.wait(waiting, timeout=20, return_when=asyncio.FIRST_COMPLETED)
        assert [type(task.result()) for task in done] == [bruit.Settled]
        await asyncio.wait_for(inside.wait(), 20)
        await node.stop(0.1)
    assert [type(task.result()) for task in waiting].count(type(None)) == 1
    await asyncio.sleep(0)
    assert len(ended) == 1, "stop knows the handlers of before the start"


@run
async def test_a_handler_may_stop_its_node():
    stopped = asyncio.Event()
    node = await alone("a").start()

    @node.on_event(kinds=bruit.JoinDone)
    async def handler(event):
        await node.stop(10)
        stopped.set()

    updates(node, 1)
    await asyncio.wait_for(stopped.wait(), 10)
    assert node.state == bruit.NodeState.STOPPED


def test_a_stream_belongs_to_one_loop_at_a_time():
    with cluster(1) as nodes:
        stream = nodes[0].events(kinds=bruit.MemberEvent)
        other = asyncio.new_event_loop()
        task = other.create_task(stream.anext(20))
        other.run_until_complete(asyncio.sleep(0.01))
        with pytest.raises(RuntimeError, match="another event loop"):
            asyncio.run(stream.anext(1))
        task.cancel()
        other.run_until_complete(asyncio.gather(task, return_exceptions=True))
        other.close()
        assert asyncio.run(stream.anext(0.01)) is None


def test_with_another_loop_implementation():
    uvloop = pytest.importorskip("uvloop")

    async def main():
        async with alone("a") as a, alone("b", seeds=[a.address]) as b:
            await a.wait_for(2, timeout=10)
            stream = a.events(kinds=bruit.MemberUpdated, timeout=10)
            b.meta["role"] = "db"
            assert (await stream.__anext__()).member.meta == {"role": "db"}

    loop = uvloop.new_event_loop()
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


@run
async def test_validators_are_awaited_and_what_they_reject_is_not_heard():
    async with alone("a") as a, alone("b") as b:
        await b.join([a.address], timeout=10)
        await asyncio.gather(a.wait_for(2, timeout=10), b.wait_for(2, timeout=10))
        judged, open_up, begun = [], asyncio.Event(), asyncio.Event()

        @b.on_validate("news")
        async def judge(message):
            judged.append(message.data)
            if message.data == b"slow":
                begun.set()
                await open_up.wait()
            return {b"bad": False, b"neither": "yes"}.get(message.data, True)

        with b.messages("news") as heard:
            for data in (b"bad", b"neither", b"good"):
                await a.broadcast(data, topic="news", ordered=True, timeout=10)
            assert (await heard.anext(10)).data == b"good"
            # The loop goes on while one is judged, and what is being judged when the judge is cancelled is accepted.
            await a.broadcast(b"slow", topic="news", timeout=10)
            await asyncio.wait_for(begun.wait(), 10)
            judge.cancel()
            assert (await heard.anext(10)).data == b"slow"
            await a.broadcast(b"bad", topic="news", timeout=10)
            assert (await heard.anext(10)).data == b"bad"
            assert (sorted(judged[:3]), judged[3:]) == ([b"bad", b"good", b"neither"], [b"slow"])
