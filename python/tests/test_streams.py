"""Byte streams: as files in threads, and in asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import io
import json
import logging
import os
import queue
import random
import select
import shutil
import threading

import bruit
import bruit.aio
import pytest
from bruit.testing import cluster
from conftest import alone, until
from test_aio import run
from test_messages import Two

MB = 1_000_000
WINDOW = 1 << 20
NOISE = random.Random(7).randbytes(MB)
TEXT = b"The quick brown fox jumps over the lazy dog. " * (MB // 45)


@pytest.fixture
def pair():
    """Two that know each other."""
    with cluster(2) as nodes:
        yield nodes


def accepted(node, topic=""):
    """The streams that members open there."""
    come = queue.Queue()
    node.on_stream(topic, come.put)
    return come


def both_ends(a, b, topic="", **options):
    come = accepted(b, topic)
    near = a.open_stream(b.name, topic, timeout=20, **options)
    far = come.get(timeout=20)
    far.timeout = 20
    return near, far


def echo(stream):
    """Give everything back, on a thread."""

    def work():
        with stream:
            shutil.copyfileobj(stream, stream)

    threading.Thread(target=work).start()


def in_thread(call):
    """Its outcome: what it returns, or the exception, when it is asked for."""
    done = queue.Queue()

    def work():
        try:
            done.put(call())
        except BaseException as error:
            done.put(error)

    threading.Thread(target=work, daemon=True).start()
    return lambda: done.get(timeout=20)


def resident():
    """Bytes of memory that this process has."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# As a file.


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("data", [NOISE, TEXT], ids=["noise", "text"])
def test_what_is_written_is_read_at_the_other_end(pair, data, compress):
    a, b = pair
    b.on_stream("echo", echo)
    before = a.stats()["stream_bytes_sent"]
    with a.open_stream("n1", "echo", compress=compress, timeout=20) as stream:
        assert (stream.peer, stream.topic, stream.is_compressed, stream.timeout) == ("n1", "echo", compress, 20)
        reading = in_thread(stream.readall)
        assert stream.write(data) == len(data)
        stream.write_eof()
        assert reading() == data
    sent = a.stats()["stream_bytes_sent"] - before
    assert sent < len(data) // 4 if compress and data is TEXT else sent == len(data)
    until(lambda: a.stats()["streams"] == b.stats()["streams"] == 0)


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.timeout(180)
def test_a_hundred_megabytes_pass_both_ways_at_once_and_none_of_it_is_kept(pair, compress):
    a, b = pair
    near, far = both_ends(a, b, compress=compress)
    parts = (NOISE, TEXT)
    wanted = hashlib.sha256()
    for number in range(100):
        wanted.update(parts[number % 2])
    before, most, unread = resident(), 0, 0

    def write(stream):
        for number in range(100):
            stream.write(parts[number % 2])
        stream.write_eof()
        return "written"

    def read(stream):
        seen, buffer = hashlib.sha256(), bytearray(70_000)
        while count := stream.readinto(buffer):
            seen.update(memoryview(buffer)[:count])
        return seen.hexdigest()

    over = threading.Event()

    def watch():
        nonlocal most, unread
        while not over.wait(0.002):
            most = max(most, resident())
            unread = max(unread, a.stats()["stream_bytes_unread"], b.stats()["stream_bytes_unread"])

    watching = in_thread(watch)
    writing = [in_thread(lambda stream=stream: write(stream)) for stream in (near, far)]
    reading = [in_thread(lambda stream=stream: read(stream)) for stream in (near, far)]
    assert [end() for end in reading] == [wanted.hexdigest()] * 2
    assert [end() for end in writing] == ["written"] * 2
    over.set()
    watching()
    assert 0 < unread <= WINDOW
    assert most - before < 40 * MB
    until(lambda: a.stats()["streams"] == b.stats()["streams"] == 0)


def test_it_is_a_file_for_all_that_takes_files(pair, tmp_path):
    a, b = pair
    near, far = both_ends(a, b)
    assert isinstance(near, io.RawIOBase) and near.readable() and near.writable() and not near.seekable()
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(TEXT)
    with near, source.open("rb") as file:
        copying = in_thread(lambda: shutil.copyfileobj(file, near) or near.write_eof())
        with target.open("wb") as kept:
            shutil.copyfileobj(far, kept)
        assert copying() is None and target.read_bytes() == TEXT
        assert far.write(memoryview(b"a1b2c3")[::2]) == 3 and far.write(bytearray(b"\nsecond\n")) == 8
        far.write(b"0123456789rest")
        far.write_eof()
        buffered = io.BufferedReader(near)
        assert [buffered.readline(), buffered.readline(), buffered.read(10), buffered.read()] == [
            b"abc\n",
            b"second\n",
            b"0123456789",
            b"rest",
        ]
    assert near.closed and buffered.closed
    with pytest.raises(ValueError):
        buffered.read()


def test_text_goes_both_ways_over_a_pair_of_buffers(pair):
    a, b = pair
    near, far = both_ends(a, b)
    here, there = (io.TextIOWrapper(io.BufferedRWPair(end, end), encoding="utf-8", newline="\n") for end in (near, far))
    here.write("Grüße\n")
    here.flush()
    assert there.readline() == "Grüße\n"
    there.write("zurück\n")
    there.flush()
    assert here.readline() == "zurück\n"
    here.close()
    assert near.closed and there.readline() == ""
    there.close()


def test_each_way_ends_by_itself(pair):
    a, b = pair
    near, far = both_ends(a, b)
    near.write(b"question")
    near.write_eof()
    assert far.readall() == b"question" and far.read(10) == b""
    with pytest.raises(bruit.StateError):
        near.write(b"more")
    far.write(b"answer")
    far.close()
    assert near.readall() == b"answer" and near.readinto(bytearray(5)) == 0
    near.close()
    near.close()
    until(lambda: a.stats()["streams"] == b.stats()["streams"] == 0)


def test_who_does_not_read_makes_the_writer_wait(pair):
    a, b = pair
    near, far = both_ends(a, b)
    near.timeout = "200ms"
    with pytest.raises(TimeoutError) as caught:
        near.write(bytes(10 * MB))
    written = caught.value.characters_written
    assert isinstance(caught.value, bruit.TimeoutError) and 0 < written <= WINDOW
    near.timeout = 0
    # The other side may have said late that there is more room.
    while (more := near.write(bytes(MB))) is not None:
        written += more
    assert near.read(1) is None and near.readinto(bytearray(1)) is None and near.readall() is None and near.write(b"") == 0
    near.timeout = 0.05
    with pytest.raises(TimeoutError):
        near.read(1)
    with pytest.raises(bruit.InvalidError):
        near.timeout = -1
    assert near.timeout == 0.05
    near.write_eof()
    assert far.readall() == bytes(written)


def test_what_cannot_be_opened_is_said(pair):
    a, b = pair
    with pytest.raises(LookupError, match="nobody"):
        a.open_stream("nobody")
    with pytest.raises(bruit.InvalidError):
        a.open_stream("n1", timeout=-1)
    for topic in ("t" * 65, "a\nb"):
        with pytest.raises(bruit.InvalidError):
            a.open_stream("n1", topic)
        with pytest.raises(bruit.InvalidError):
            a.on_stream(topic, print)
    with pytest.raises(bruit.StateError):
        alone("new").open_stream("n1")
    with a.open_stream("n1", "unheard", timeout=20) as stream, pytest.raises(bruit.NoHandlerError, match="unheard"):
        stream.read(1)
    a.set("max_member_streams", 1)
    held = a.open_stream("n1", "unheard")
    with pytest.raises(bruit.LimitError):
        while True:
            held = (held, a.open_stream("n1", "unheard"))


def test_a_stream_to_oneself_is_a_stream(node):
    node.on_stream("echo", echo)
    with node.open_stream("a", "echo", timeout=20) as stream:
        stream.write(b"hello")
        stream.write_eof()
        assert stream.read() == b"hello"


# Handlers.


def test_the_first_handler_that_matches_gets_it_until_it_is_canceled(pair):
    a, b = pair
    first, every = queue.Queue(), queue.Queue()

    @b.on_stream("one")
    def take(stream):
        first.put(stream)

    b.on_stream(every.put, topic="*")
    assert isinstance(take, bruit.Subscription)
    kept = [a.open_stream("n1", "one"), a.open_stream("n1", "two")]
    assert first.get(timeout=20).topic == "one" and every.get(timeout=20).topic == "two"
    take.cancel()
    kept.append(a.open_stream("n1", "one"))
    assert every.get(timeout=20).topic == "one" and first.empty()
    with pytest.raises(TypeError):
        b.on_stream("one", 5)


def test_a_stream_that_nobody_keeps_is_closed(pair):
    a, b = pair
    b.on_stream("dropped", lambda stream: None)
    with a.open_stream("n1", "dropped", timeout=20) as stream:
        assert stream.read() == b""
        with pytest.raises(bruit.CanceledError):
            while True:
                stream.write(bytes(1_000))
    near, far = both_ends(a, b)
    del near
    gc.collect()
    assert far.read() == b""


def test_what_a_handler_raises_is_logged_and_fails_the_stream(pair, caplog):
    a, b = pair
    kept = []

    @b.on_stream
    def fail(stream):
        kept.append(stream)
        raise KeyError("oops")

    with caplog.at_level(logging.ERROR, "bruit"), a.open_stream("n1", timeout=20) as stream:
        with pytest.raises(bruit.RemoteError, match="KeyError: 'oops'"):
            stream.read()
        until(lambda: kept[0].closed)
    assert "oops" in caplog.text and "byte stream '' with n0" in caplog.text


def test_a_handler_of_before_the_start_takes_streams_and_metadata_does_not_disturb_it():
    with cluster(1) as nodes:
        node = bruit.Node("late", **{**nodes.options, "seeds": nodes.seeds()})
        come = accepted(node, "x")
        node.meta["role"] = "db"
        with node:
            nodes[0].wait_for(2, timeout=20)
            with nodes[0].open_stream("late", "x") as stream:
                stream.write(b"hello")
                assert come.get(timeout=20).read(5) == b"hello"


# The end.


def test_closing_ends_the_wait_of_another_thread(pair):
    a, b = pair
    near, far = both_ends(a, b)
    far.timeout = None
    waiting = in_thread(lambda: far.read(1))
    far.close()
    assert isinstance(waiting(), bruit.StateError)
    with pytest.raises(bruit.StateError):
        far.read(1)
    with pytest.raises(bruit.StateError):
        far.write(b"x")
    assert near.read() == b""


def test_stopping_the_node_ends_its_streams(pair):
    a, b = pair
    near, far = both_ends(a, b)
    near.timeout = None
    waiting = in_thread(lambda: near.read(1))
    a.stop()
    assert isinstance(waiting(), bruit.CanceledError)
    with pytest.raises(bruit.CanceledError):
        near.write(b"x")
    far.close()
    del far


DYING = """
    import json, sys, bruit

    with bruit.Node(**json.loads(sys.argv[1])) as node:
        node.wait_for(2, timeout=15)
        stream = node.open_stream("n0", "last", timeout=20)
        stream.write(b"last words")
        print("said")
        stream.read()
"""


def test_who_dies_ends_its_streams_and_what_it_said_is_heard(script):
    with cluster(1) as nodes:
        come = accepted(nodes[0], "last")
        dying = script(DYING, json.dumps({**nodes.options, "seeds": nodes.seeds(), "name": "dying"}))
        dying.expect("said")
        stream = come.get(timeout=20)
        assert stream.peer == "dying"
        dying.process.kill()
        with pytest.raises(ConnectionError) as caught:
            while True:
                assert stream.read(100) == b"last words"
        assert isinstance(caught.value, bruit.UnreachableError)
        with pytest.raises(bruit.UnreachableError):
            stream.write(b"x")


# Threads, descriptors, processes.


def test_its_descriptors_say_what_would_not_wait(pair):
    a, b = pair
    near, far = both_ends(a, b)
    with pytest.raises(io.UnsupportedOperation):
        near.fileno()
    assert select.select([far.read_fd()], [], [], 0)[0] == [] and select.select([near.write_fd()], [], [], 20)[0]
    near.write(b"x")
    assert select.select([far.read_fd()], [], [], 20)[0]
    assert far.read(1) == b"x" and not select.select([far.read_fd()], [], [], 0)[0]
    near.timeout = 0
    # The other side may yet say that there is more room.
    until(lambda: near.write(bytes(100_000)) is None and not select.select([near.write_fd()], [], [], 0)[0])
    near.close()
    assert far.read(1) == b"\0"


def test_nothing_is_left_of_streams_that_were_closed(pair):
    a, b = pair
    b.on_stream("echo", echo)

    def use():
        with a.open_stream("n1", "echo", timeout=20) as stream:
            stream.read_fd(), stream.write_fd()
            stream.write(b"x")
            assert stream.read(1) == b"x"

    def there():
        return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))

    use()
    before = there()
    for _ in range(200):
        use()
    until(lambda: there() <= before)
    until(lambda: a.stats()["streams"] == b.stats()["streams"] == 0)


WAITS = """
    import sys, bruit
    from bruit.testing import cluster

    with cluster(2) as (a, b):
        kept = []
        b.on_stream("", kept.append)
        stream = a.open_stream("n1")
        print("waits")
        try:
            stream.read(1) if sys.argv[1] == "read" else stream.write(bytes(100_000_000))
        except KeyboardInterrupt:
            print("interrupted")
"""


@pytest.mark.parametrize("call", ["read", "write"])
def test_ctrl_c_ends_every_wait(script, call):
    waiting = script(WAITS, call)
    waiting.expect("waits")
    waiting.until_it_waits()
    waiting.send(2)
    assert waiting.succeed().endswith("interrupted\n")


def test_in_a_forked_child_a_stream_is_not_touched(script):
    done = script(
        """
        import os, bruit
        from bruit.testing import cluster

        with cluster(2) as (a, b):
            kept = []
            b.on_stream("", kept.append)
            stream = a.open_stream("n1", timeout=20)
            stream.write(b"x")
            while not kept:
                pass
            child = os.fork()
            if child == 0:
                for call in (lambda: stream.read(1), lambda: stream.write(b"y"), stream.write_eof, stream.read_fd,
                             lambda: a.open_stream("n1"), lambda: a.on_stream("", print)):
                    try:
                        call()
                    except bruit.ForkedError:
                        print("forked")
                stream.close()
                kept.clear()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            stream.write(b"z")
            stream.close()
            print(kept[0].readall())
        """
    ).succeed()
    assert done == "forked\n" * 6 + "b'xz'\n"


# asyncio.


async def opened(a, b, topic="", **options):
    come = asyncio.get_running_loop().create_future()
    taking = b.on_stream(topic, come.set_result)
    near = await a.open_stream(b.name, topic, timeout=20, **options)
    far = await asyncio.wait_for(come, 20)
    taking.cancel()
    return near, far


@run
async def test_asyncio_reads_and_writes():
    async with Two() as (a, b):

        @b.on_stream("lines")
        async def shout(stream):
            assert isinstance(stream, bruit.aio.ByteStream)
            async for line in stream:
                await stream.write(line.upper())
            stream.write_eof()

        async with await a.open_stream("b", "lines", timeout=20) as stream:
            assert (stream.peer, stream.topic, stream.is_compressed, stream.is_closing()) == ("b", "lines", False, False)
            await stream.write(b"one\ntwo\n" + b"three")
            assert await stream.readexactly(2) == b"ON"
            assert await stream.readline() == b"E\n"
            assert await stream.readexactly(0) == await stream.read(0) == b""
            stream.write_eof()
            assert [line async for line in stream] == [b"TWO\n", b"THREE"]
            assert await stream.read() == await stream.read(10) == await stream.readline() == b""
            with pytest.raises(bruit.StateError):
                await stream.write(b"more")
        assert stream.is_closing()
        await stream.wait_closed()
        with pytest.raises(bruit.StateError):
            await stream.read(1)


@run
async def test_asyncio_says_what_was_missing_and_what_was_too_long():
    async with Two() as (a, b):
        near, far = await opened(a, b)
        await near.write(b"abc")
        near.write_eof()
        with pytest.raises(asyncio.IncompleteReadError) as caught:
            await far.readexactly(5)
        assert caught.value.partial == b"abc"
        await far.write(b"x" * 70_000 + b"\n")
        with pytest.raises(ValueError, match="newline") as long:
            await near.readline()
        assert isinstance(long.value, bruit.TooBigError)
        assert await near.readexactly(70_001) == b"x" * 70_000 + b"\n"
        near.close()
        far.close()


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.timeout(180)
@run
async def test_a_hundred_megabytes_pass_in_one_loop_and_it_keeps_running(compress):
    async with Two() as (a, b):
        near, far = await opened(a, b, compress=compress)
        wanted = hashlib.sha256()
        for number in range(100):
            wanted.update((NOISE, TEXT)[number % 2])
        before, most, unread, turns, over = resident(), 0, 0, 0, False

        async def write(stream):
            for number in range(100):
                await stream.write((NOISE, TEXT)[number % 2])
            stream.write_eof()

        async def read(stream):
            seen = hashlib.sha256()
            while part := await stream.read(100_000):
                seen.update(part)
            return seen.hexdigest()

        async def watch():
            nonlocal most, unread, turns
            while not over:
                turns += 1
                most, unread = max(most, resident()), max(unread, a.stats()["stream_bytes_unread"])
                await asyncio.sleep(0)

        watching = asyncio.create_task(watch())
        done = await asyncio.gather(write(near), write(far), read(near), read(far))
        over = True
        await watching
        assert done[2:] == [wanted.hexdigest()] * 2
        # Others have their turns all the while: how many depends on how much the system hands over at once.
        assert turns > 100 and 0 < unread <= WINDOW and most - before < 40 * MB
        near.close()
        far.close()


@run
async def test_a_cancelled_read_loses_nothing_and_leaves_nothing():
    async with Two() as (a, b):
        near, far = await opened(a, b)
        seen, turn = b"", 0
        writing = asyncio.create_task(near.write(bytes(range(250)) * 40))
        while len(seen) < 10_000:
            turn += 1
            reading = asyncio.create_task(far.readexactly(100) if turn % 3 else far.read(100))
            for _ in range(turn % 4):
                await asyncio.sleep(0)
            if turn % 2:
                reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                seen += await reading
        await writing
        assert seen == bytes(range(250)) * 40
        loop, descriptor = asyncio.get_running_loop(), far._native.read_fd()
        waiting = asyncio.create_task(far.read(1))
        await asyncio.sleep(0)
        assert far._awaited == {descriptor}
        with pytest.raises(RuntimeError, match="another task"):
            await far.read(1)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert not far._awaited and not loop.remove_reader(descriptor)
        near.close()
        assert await far.read() == b""
        far.close()


@run
async def test_asyncio_waits_no_longer_than_it_may():
    async with Two() as (a, b):
        near, far = await opened(a, b)
        near.timeout = 0.05
        with pytest.raises(bruit.TimeoutError):
            await near.read(1)
        with pytest.raises(TimeoutError) as caught:
            await near.write(bytes(10 * MB))
        written = caught.value.characters_written
        assert 0 < written <= WINDOW
        near.close()
        assert await far.read() == bytes(written)
        far.close()


@run
async def test_closing_ends_the_waits_in_the_loop():
    async with Two() as (a, b):
        near, far = await opened(a, b)
        reading, closing = asyncio.create_task(far.read(1)), asyncio.create_task(far.wait_closed())
        await asyncio.sleep(0)
        far.close()
        with pytest.raises(bruit.StateError):
            await asyncio.wait_for(reading, 20)
        await asyncio.wait_for(closing, 20)
        assert await near.read() == b""
        with pytest.raises(bruit.CanceledError):
            while True:
                await near.write(bytes(1_000))
        near.close()


@run
async def test_handlers_in_the_loop_do_not_wait_for_each_other():
    async with Two() as (a, b):
        come = asyncio.Queue()

        @b.on_stream("")
        async def hold(stream):
            await come.put(stream)
            await stream.read()

        streams = [await a.open_stream("b") for _ in range(10)]
        for _ in streams:
            await asyncio.wait_for(come.get(), 20)
        hold.cancel()
        late = await a.open_stream("b", timeout=20)
        with pytest.raises(bruit.NoHandlerError):
            await late.read()
        for stream in (*streams, late):
            stream.close()


def test_what_is_not_whole_does_not_look_so(pair):
    a, b = pair
    near, half = both_ends(a, b, "half")
    with pytest.raises(ZeroDivisionError), near:
        near.write(b"the first half")
        assert half.read(100) == b"the first half"
        raise ZeroDivisionError("division by zero")
    with pytest.raises(bruit.RemoteError, match="ZeroDivisionError: division by zero"):
        half.read()
    with pytest.raises(bruit.RemoteError):
        half.write(b"x")
    half.fail("too late")


def test_what_a_handler_in_the_loop_raises_fails_its_stream(caplog):
    @run
    async def test():
        async with Two() as (a, b):

            @b.on_stream
            async def fail(stream):
                await stream.read(1)
                raise KeyError("oops")

            async with await a.open_stream("b", timeout=20) as stream:
                await stream.write(b"x")
                with pytest.raises(bruit.RemoteError, match="KeyError: 'oops'"):
                    await stream.read()

    with caplog.at_level(logging.ERROR, "bruit"):
        test()
    assert "oops" in caplog.text


@run
async def test_stopping_the_node_ends_the_streams_of_its_tasks():
    async with Two() as (a, b):
        near, far = await opened(a, b)
        reading = asyncio.create_task(near.read(1))
        await asyncio.sleep(0)
        await a.stop()
        with pytest.raises(bruit.CanceledError):
            await asyncio.wait_for(reading, 20)
        far.close()


@run
async def test_a_stream_that_no_task_keeps_is_closed():
    async with Two() as (a, b):
        near, far = await opened(a, b)
        near.close()
        del near
        gc.collect()
        assert await far.read() == b""
        far.close()
        near, far = await opened(a, b)
        del near
        gc.collect()
        assert await far.read() == b""
        del far
        gc.collect()
        end = asyncio.get_running_loop().time() + 20
        while a.stats()["streams"] or b.stats()["streams"]:
            assert asyncio.get_running_loop().time() < end
            await asyncio.sleep(0)
