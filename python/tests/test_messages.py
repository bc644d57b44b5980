"""Messages: sending, asking and answering, in threads and in asyncio."""

from __future__ import annotations

import array
import asyncio
import gc
import logging
import os
import pickle
import signal
import sys
import threading
import weakref

import bruit
import bruit.aio
import pytest
from bruit.testing import cluster
from conftest import alone, asleep, until
from test_aio import run

EVERY_BYTE = bytes(range(256))


@pytest.fixture
def pair():
    """Two that know each other."""
    with cluster(2) as nodes:
        yield nodes


def hear(node, topic="*"):
    """What a node hears under a topic."""
    heard = []
    node.on_message(heard.append, topic=topic)
    return heard


def echo(node, topic="echo"):
    node.on_message(topic, lambda message: message.data)


def wait(heard, count, timeout=10.0):
    until(lambda: len(heard) >= count, timeout)
    return heard


def fill(node, to, size=10_000):
    """Send until there is no room there any more; the messages are numbered. How many went."""
    sent = 0
    with pytest.raises(BlockingIOError, match="send_queue"):
        while sent < 1_000:
            node.send(to, sent.to_bytes(4, "big") + bytes(size), reliable=True, timeout=0.1)
            sent += 1
    return sent


def stand_still(other):
    """Nothing is heard there from now on, and it counts as a member for a while."""
    os.kill(other.process.pid, signal.SIGSTOP)
    until(lambda: all(asleep(int(thread), other.process.pid, "T") for thread in os.listdir(f"/proc/{other.process.pid}/task")))


def number(message):
    return int.from_bytes(message.data[:4], "big")


# Sending.


def test_a_message_arrives_as_it_was_sent_and_with_its_sender(pair):
    """Scenario 31."""
    a, b = pair
    heard = hear(b, "chat")
    sent = [(EVERY_BYTE, False), (EVERY_BYTE, True), (b"", True), ("Grüße".encode() * 1_000, True)]
    for count, (data, reliable) in enumerate(sent, 1):
        assert a.send("n1", data, topic="chat", reliable=reliable) is None
        message = wait(heard, count)[-1]
        assert isinstance(message, bruit.Message)
        assert (message.data, message.topic, message.sender, message.epoch) == (data, "chat", "n0", a.local.epoch)
        assert not message.is_request and not message.is_answered
        assert message.data is message.data
    assert repr(heard[2]) == '<bruit.Message: message "chat" from n0, 0 B>'
    with pytest.raises(bruit.StateError):
        message.reply(b"nobody asked")


def test_anything_with_bytes_can_be_sent_and_nothing_else(pair):
    a, b = pair
    heard = hear(b)
    numbers = array.array("H", [1, 2])
    for data in (b"x", bytearray(b"x"), memoryview(b"xyz")[::2], numbers):
        a.send("n1", data, reliable=True)
    assert [message.data for message in wait(heard, 4)] == [b"x", b"x", b"xz", numbers.tobytes()]
    for wrong in ("text", 5, None, ["x"]):
        with pytest.raises(TypeError):
            a.send("n1", wrong)
        with pytest.raises(TypeError):
            a.request("n1", wrong)


def test_what_is_larger_than_a_datagram_arrives_and_what_is_too_large_is_refused(pair):
    """Scenario 33."""
    a, b = pair
    heard = hear(b)
    a.send("n1", b"\xe2\x82\xac" * 5_000)
    assert wait(heard, 1)[0].data == "€".encode() * 5_000
    with pytest.raises(bruit.TooBigError, match="max_message") as caught:
        a.send("n1", bytes((4 << 20) + 1), reliable=True)
    assert isinstance(caught.value, ValueError)


def test_what_cannot_be_sent_is_said_at_once(pair):
    a, b = pair
    with pytest.raises(LookupError, match="nobody"):
        a.send("nobody", b"")
    for topic in ("t" * 65, "a\nb"):
        with pytest.raises(bruit.InvalidError, match="topic"):
            a.send("n1", b"", topic=topic)
        with pytest.raises(bruit.InvalidError, match="topic"):
            a.on_message(print, topic=topic)
        with pytest.raises(bruit.InvalidError, match="topic"):
            a.messages(topic)
    with pytest.raises(bruit.InvalidError):
        a.send("n1", b"", timeout=-1)
    with pytest.raises(bruit.StateError):
        alone("new").send("n1", b"")
    with a.events(kinds=bruit.MemberLeft, timeout=10) as gone:
        b.leave()
        assert next(gone).member.name == "n1"
    with pytest.raises(ConnectionError, match="left"):
        a.send("n1", b"")


def test_reliable_messages_come_in_order_and_each_once(pair):
    a, b = pair
    with b.messages(timeout=10) as stream:

        def write(topic):
            for i in range(500):
                size = 50_000 if i % 100 == 0 else i
                a.send("n1", i.to_bytes(4, "big") + bytes(size), topic=topic, reliable=True, timeout=20)

        writers = [threading.Thread(target=write, args=(f"t{i}",)) for i in range(3)]
        for writer in writers:
            writer.start()
        heard = {}
        for _ in range(1_500):
            message = next(stream)
            heard.setdefault(message.topic, []).append(number(message))
        for writer in writers:
            writer.join()
        assert heard == {f"t{i}": list(range(500)) for i in range(3)}
        assert stream.next(0) is None


def test_a_receipt_says_that_the_other_node_has_it(pair):
    a, b = pair
    heard = hear(b)
    with a.events(kinds=bruit.Receipt, timeout=10) as receipts:
        numbers = [a.send("n1", data, receipt=True) for data in (b"small", bytes(300_000))]
        assert len(set(numbers)) == 2
        for number, receipt in zip(numbers, receipts):
            assert (receipt.id, receipt.arrived, receipt.member.name) == (number, True, "n1")
    assert [len(message.data) for message in wait(heard, 2)] == [5, 300_000]


def test_a_receipt_says_that_it_will_not_arrive(pair, outsider):
    (a, _), other = pair, outsider(pair, "other")
    stand_still(other)
    with a.events(kinds=bruit.Receipt, timeout=20) as receipts:
        number = a.send("other", b"x", receipt=True)
        other.kill()
        receipt = next(receipts)
        assert (receipt.id, receipt.arrived) == (number, False)


def test_who_does_not_read_makes_the_sender_wait_and_loses_nothing():
    with cluster(2, inbox_bytes="64KiB", send_queue="64KiB") as (a, b):
        go_on, heard = threading.Event(), []

        @b.on_message
        def slow(message):
            go_on.wait(20)
            heard.append(number(message))

        with a.events(kinds=bruit.Writable, timeout=20) as room:
            sent = fill(a, "n1")
            list(iter(lambda: room.next(0), None))
            with pytest.raises(bruit.BusyError):
                a.send("n1", bytes(10_000), reliable=True)
            waiting = threading.Thread(
                target=a.send, args=("n1", sent.to_bytes(4, "big") + bytes(10_000)), kwargs={"reliable": True, "timeout": 20}
            )
            waiting.start()
            go_on.set()
            waiting.join(20)
            assert next(room).member.name == "n1"
        assert wait(heard, sent + 1) == list(range(sent + 1))


def test_a_message_that_is_kept_takes_room_until_it_is_let_go():
    with cluster(2, inbox_bytes="64KiB", send_queue="64KiB") as (a, b):
        kept = hear(b)
        fill(a, "n1")
        kept.clear()
        a.send("n1", b"last", reliable=True, timeout=20)
        until(lambda: kept and kept[-1].data == b"last" or kept.clear())


def test_a_message_may_outlive_its_node():
    with cluster(2) as (a, b):
        heard = hear(b)
        a.send("n1", b"kept", reliable=True)
        wait(heard, 1)
    assert (heard[0].data, heard[0].sender) == (b"kept", "n0")


def test_what_goes_to_the_holders_of_a_tag_goes_to_them_only():
    """Scenario 35."""
    with cluster(4) as nodes:
        heard = [hear(node) for node in nodes]
        nodes[2].meta["role"] = "db"
        nodes[0].wait_for(lambda members: members.tagged("role=db"), timeout=10)
        for member in nodes[0].members().tagged("role=db"):
            nodes[0].send(member.name, b"for you", reliable=True)
        wait(heard[2], 1)
        for name in ("n1", "n2", "n3"):
            nodes[0].send(name, b"end", reliable=True)
        for each in heard[1:]:
            until(lambda each=each: each and each[-1].data == b"end")
        assert [len(each) for each in heard] == [0, 1, 2, 1]


def test_who_has_another_key_is_neither_heard_nor_let_in():
    """Scenario 34."""
    with cluster(1) as (a,), cluster(1) as (stranger,):
        heard = hear(a)
        with pytest.raises(bruit.BruitError):
            stranger.join([a.address], timeout=0.5)
        for call in (stranger.send, stranger.request):
            with pytest.raises(bruit.NotFoundError):
                call("b", b"")
        assert heard == [] and len(a.members()) == 1


# To all.


def test_a_broadcast_is_heard_by_all_once_and_by_oneself_on_request():
    with cluster(4) as nodes:
        heard = [hear(node, "news") for node in nodes]
        numbers = [nodes[0].broadcast(str(i).encode(), topic="news", timeout=10) for i in range(100)]
        assert len(set(numbers)) == 100
        nodes[0].broadcast(b"end", topic="news", loopback=True, timeout=10)
        for each, count in zip(heard, (1, 101, 101, 101)):
            wait(each, count)
        assert [message.data for message in heard[0]] == [b"end"]
        for each in heard[1:]:
            assert {message.data for message in each} == {b"end", *(str(i).encode() for i in range(100))}
            assert {message.sender for message in each} == {"n0"} and len(each) == 101
        with pytest.raises(bruit.TooBigError):
            nodes[0].broadcast(bytes(16 << 20))
        with pytest.raises(TypeError):
            nodes[0].broadcast("text")


def test_who_knows_its_neighbours_only_is_told_what_is_said_to_all():
    options = {"membership": "partial", "profile": "local", "bind": "127.0.0.1:0"}
    nodes = [bruit.Node("n0", **options)]
    try:
        nodes[0].start()
        for i in range(1, 8):
            nodes.append(bruit.Node(f"n{i}", seeds=[nodes[0].address], **options))
            nodes[i].start()
        for node in nodes:
            node.wait_for(lambda members: sum(member.is_neighbour for member in members) >= 3, timeout=20)
            assert not node.local.is_neighbour
        heard = [hear(node, "news") for node in nodes]
        nodes[7].broadcast(b"all", topic="news", loopback=True, timeout=10)
        for each in heard:
            wait(each, 1)
            assert [(message.sender, message.data) for message in each] == [("n7", b"all")]
    finally:
        for node in nodes:
            node.stop()


def test_what_is_said_in_order_is_heard_in_order():
    with cluster(4) as nodes:
        heard = [hear(node, "steps") for node in nodes]
        for i in range(200):
            nodes[0].broadcast(str(i).encode(), topic="steps", ordered=True, timeout=10)
            nodes[0].broadcast(b"aside", topic="other", timeout=10)
        for each in heard[1:]:
            wait(each, 200)
            assert [int(message.data) for message in each] == list(range(200))


def test_what_a_validator_rejects_is_not_heard_and_goes_no_further():
    with cluster(3) as nodes:
        heard = [hear(node, "news") for node in nodes]
        judged = []

        @nodes[1].on_validate("news")
        def judge(message):
            judged.append(message.data)
            return {b"bad": False, b"good": True}[message.data]

        for data in (b"bad", b"neither", b"good"):
            nodes[0].broadcast(data, topic="news", ordered=True, timeout=10)
        wait(heard[1], 1)
        wait(heard[2], 3)
        assert [message.data for message in heard[1]] == [b"good"]
        assert [message.data for message in heard[2]] == [b"bad", b"neither", b"good"], "by its own opinion"
        assert sorted(judged) == [b"bad", b"good", b"neither"]
        stats = nodes[1].stats()
        assert (stats["validations"], stats["validations_rejected"]) == (3, 2)
        judge.cancel()
        nodes[0].broadcast(b"bad", topic="news", timeout=10)
        wait(heard[1], 2)
        assert len(judged) == 3


# Handlers.


def test_handlers_hear_their_topic_in_the_order_of_their_registration(pair):
    a, b = pair
    heard, threads = [], set()

    def note(who):
        def handler(message):
            threads.add(threading.current_thread().name)
            heard.append(f"{who} {message.topic}")

        return handler

    b.on_message("x")(note("first"))
    b.on_message("*", note("all"))
    b.on_message(note("second"), topic="x")
    b.on_message(topic="y")(note("other"))
    b.on_message(note("default"))
    for topic in ("x", "", "unheard of", "y"):
        a.send("n1", b"!", topic=topic, reliable=True)
    wait(heard, 8)
    assert heard == ["first x", "all x", "second x", "all ", "default ", "all unheard of", "all y", "other y"]
    assert threads == {"bruit-py n1"}


def test_its_result_is_the_subscription_and_wrong_arguments_are_refused(pair):
    a, _ = pair

    @a.on_message
    def default(message):
        return message

    assert isinstance(default, bruit.Subscription) and default.active and default(5) == 5
    for wrong in ((5,), ("x", 5), (print, print), ("x", print, print)):
        with pytest.raises(TypeError):
            a.on_message(*wrong)
    with pytest.raises(TypeError, match="two topics"):
        a.on_message("x", topic="y")


def test_a_handler_can_be_removed_inside_itself_and_the_second_one_goes_on(pair):
    """Scenario 36."""
    a, b = pair
    heard = []

    @b.on_message("x")
    def once(message):
        heard.append("once")
        once.cancel()

    @b.on_message("x")
    def always(message):
        heard.append("always")

    for _ in range(3):
        a.send("n1", b"", topic="x", reliable=True)
    wait(heard, 4)
    assert heard == ["once", "always", "always", "always"]
    assert not once.active


def test_after_the_last_handler_is_gone_nobody_listens(pair):
    a, b = pair
    with b.on_message("q", lambda message: b"1"), b.on_message("q", lambda message: b"2"):
        assert a.request("n1", b"", topic="q").data == b"1"
    with pytest.raises(bruit.NoHandlerError):
        a.request("n1", b"", topic="q", timeout=10)
    a.send("n1", b"", topic="q", reliable=True)
    until(lambda: b.stats()["messages_unheard"] == 2)


def test_a_request_that_waited_for_a_handler_that_is_gone_finds_none(pair):
    a, b = pair
    inside, go_on = threading.Event(), threading.Event()

    @b.on_message("slow")
    def slow(message):
        inside.set()
        go_on.wait(20)

    gone = b.on_message("q", lambda message: b"too late")
    a.send("n1", b"", topic="slow", reliable=True)
    assert inside.wait(10)
    thread, caught = asking(a, "n1", bruit.NoHandlerError, timeout=20)
    until(lambda: b.stats()["messages_received"] == 2)
    gone.cancel()
    go_on.set()
    thread.join(20)
    assert "any more" in str(caught[0])


def test_what_a_handler_raises_is_logged_fails_the_request_and_is_not_fatal(pair, caplog):
    a, b = pair
    heard = []

    @b.on_message("broken")
    def broken(message):
        heard.append(message.data)
        raise {b"exit": SystemExit}.get(message.data, KeyError)(f"no table {message.data!r}")

    with caplog.at_level(logging.ERROR, logger="bruit"):
        for data in (b"users", b"exit"):
            with pytest.raises(bruit.RemoteError, match="no table") as caught:
                a.request("n1", data, topic="broken", timeout=10)
            assert isinstance(caught.value, RuntimeError)
        assert "KeyError" in str(pytest.raises(bruit.RemoteError, a.request, "n1", b"", topic="broken", timeout=10).value)
        a.send("n1", b"no request", topic="broken", reliable=True)
        wait(heard, 4)
        # And whatever else this logger has to say.
        failures = until(lambda: len(found := [record for record in caplog.records if record.exc_info]) == 4 and found)
    assert [record.exc_info[0] for record in failures] == [KeyError, SystemExit, KeyError, KeyError]
    assert "broken" in failures[0].getMessage()


def test_a_members_arrival_is_heard_before_its_first_message():
    with cluster(1) as nodes:
        (a,) = nodes
        story = []
        a.on_event(lambda event: story.append(("joined", event.member.name)), kinds=bruit.MemberJoined)
        a.on_message("*", lambda message: story.append(("said", message.sender)))
        for number in range(1, 6):
            b = nodes.add()
            b.wait_for(lambda members: members.get("n0"), timeout=10)
            b.send("n0", b"hello", reliable=True)
            wait(story, 2 * number)
            assert story[-2:] == [("joined", b.name), ("said", b.name)]


def test_handlers_of_before_the_start_hear_and_metadata_does_not_disturb_them(pair):
    a, _ = pair
    late = bruit.Node("late", **{**pair.options, "seeds": pair.seeds()})
    heard, stream = hear(late, "x"), late.messages("x", timeout=10)
    late.meta["role"] = "db"
    with late:
        a.wait_for(lambda members: members.get("late"), timeout=10)
        a.send("late", b"hello", topic="x", reliable=True)
        assert wait(heard, 1)[0].data == next(stream).data == b"hello"


def test_no_handler_runs_after_stop_has_returned(pair):
    a, b = pair
    running, stopped, late = threading.Event(), threading.Event(), []

    @b.on_message
    def handler(message):
        running.set()
        if stopped.is_set():
            late.append(message)

    for _ in range(500):
        a.send("n1", b"x", reliable=True, timeout=10)
    assert running.wait(10)
    b.stop()
    stopped.set()
    assert late == [] and "bruit-py n1" not in [thread.name for thread in threading.enumerate()]


# Asking.


def test_a_question_gets_its_answer(pair):
    a, b = pair

    @b.on_message("sum")
    def add(message):
        return str(sum(map(int, message.data.split(b"+")))).encode()

    echo(b)
    reply = a.request("n1", b"2+3", topic="sum")
    assert reply == bruit.Reply(b"5", "n1", "sum") and pickle.loads(pickle.dumps(reply)) == reply
    large = os.urandom(1_000_000)
    assert a.request("n1", bytearray(large), topic="echo", timeout=20).data == large
    assert b.request("n1", b"4+5", topic="sum").data == b"9", "and to oneself"
    for data in (b"", EVERY_BYTE):
        assert a.request("n1", data, topic="echo", timeout=None).data == data


def test_a_question_without_an_answer_says_why(pair):
    """Scenario 32."""
    a, b = pair
    kept = hear(b, "later")

    @b.on_message("fails")
    def fails(message):
        message.fail("no such table")

    b.on_message("silent", lambda message: None)
    b.on_message("busy", lambda message: message.fail("later", code=bruit.LimitError.code))
    b.on_message("text", lambda message: "text")

    def ask(topic, timeout=20.0, to="n1"):
        with pytest.raises(bruit.BruitError) as caught:
            a.request(to, b"?", topic=topic, timeout=timeout)
        return caught.value

    assert (type(ask("fails")), str(ask("fails"))) == (bruit.RemoteError, "no such table")
    assert type(ask("nobody")) is bruit.NoHandlerError and "nobody" in str(ask("nobody"))
    assert type(ask("silent")) is bruit.NoReplyError
    assert type(ask("text")) is bruit.RemoteError and "expected bytes" in str(ask("text"))
    assert type(ask("busy")) is bruit.LimitError
    assert isinstance(ask("later", 0.05), TimeoutError)
    wait(kept, 1)[0].reply(b"late")
    until(lambda: a.stats()["replies_late"] == 1)
    assert type(ask("", to="who")) is bruit.NotFoundError
    assert type(ask("", 0)) is bruit.InvalidError
    with pytest.raises(bruit.InvalidError):
        kept[0].fail("", code=5)


def test_a_question_is_answered_once_and_later_from_any_thread(pair):
    a, b = pair
    outcomes = []

    @b.on_message("q")
    def later(message):
        assert message.is_request and not message.is_answered

        def answer():
            message.reply(b"later")
            outcomes.append(message.is_answered)
            for again in (lambda: message.reply(b"again"), lambda: message.fail("again")):
                with pytest.raises(bruit.StateError, match="already"):
                    again()
            outcomes.append("once")

        threading.Thread(target=answer).start()

    assert a.request("n1", b"", topic="q", timeout=20).data == b"later"
    wait(outcomes, 2)
    assert outcomes == [True, "once"]


def test_the_first_handler_that_answers_wins(pair):
    a, b = pair
    ran = []
    b.on_message("q", lambda message: ran.append("watches"))
    b.on_message("q", lambda message: b"first")
    b.on_message("q", lambda message: b"second")
    b.on_message("q", lambda message: ran.append(message.is_answered))
    assert a.request("n1", b"", topic="q").data == b"first"
    wait(ran, 2)
    assert ran == ["watches", True]


def test_a_question_that_is_let_go_is_answered_at_once(pair):
    a, b = pair
    kept = hear(b, "q")
    threading.Thread(target=lambda: (wait(kept, 1), kept.clear()), daemon=True).start()
    with pytest.raises(bruit.NoReplyError):
        a.request("n1", b"", topic="q", timeout=20)


def test_a_question_in_a_handler_is_no_deadlock_unless_it_is_to_oneself(pair):
    a, b = pair
    echo(b)
    found = []

    @a.on_message("go")
    def go(message):
        found.append(a.request("n1", b"other", topic="echo", timeout=10).data)
        with pytest.raises(bruit.DeadlockError):
            a.request("n0", b"own", topic="go")
        found.append("own")

    b.send("n0", b"", topic="go", reliable=True)
    wait(found, 2)
    assert found == [b"other", "own"]


def asking(node, to, error, **options):
    """Ask in a thread of its own; that error is what ends it. Its list of what was caught."""
    caught = []

    def ask():
        with pytest.raises(error) as raised:
            node.request(to, b"?", topic="q", **options)
        caught.append(raised.value)

    thread = threading.Thread(target=ask)
    thread.start()
    return thread, caught


def test_who_leaves_midway_ends_what_it_was_asked(pair):
    a, b = pair
    kept = hear(b, "q")
    thread, caught = asking(a, "n1", bruit.UnreachableError, timeout=None)
    wait(kept, 1)
    b.leave()
    thread.join(20)
    assert isinstance(caught[0], ConnectionError)


def test_who_dies_midway_ends_what_it_was_asked(pair, outsider):
    (a, _), other = pair, outsider(pair, "other")
    stand_still(other)
    thread, caught = asking(a, "other", bruit.UnreachableError, timeout=None)
    until(lambda: a.stats()["requests"] == 1)
    other.kill()
    thread.join(20)
    assert caught


def test_stopping_the_asker_ends_its_wait(pair):
    a, b = pair
    kept = hear(b, "q")
    thread, caught = asking(a, "n1", bruit.CanceledError, timeout=None)
    wait(kept, 1)
    a.stop()
    thread.join(10)
    assert caught


def test_a_thousand_questions_at_once_are_matched_right(pair):
    """Scenario 32: a hundred threads, ten each."""
    a, b = pair
    echo(b)
    wrong = []

    def ask(number):
        for i in range(10):
            data = f"{number} {i}".encode()
            if a.request("n1", data, topic="echo", timeout=30).data != data:
                wrong.append(data)

    askers = [threading.Thread(target=ask, args=(number,)) for number in range(100)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert wrong == [] and a.stats()["requests"] == 1_000


WAITS = """
    import sys, bruit
    from bruit.testing import cluster

    with cluster(2, inbox_bytes="64KiB", send_queue="64KiB") as (a, b):
        kept = []
        b.on_message("*", kept.append)
        try:
            while sys.argv[1] == "send":
                a.send("n1", bytes(10_000), reliable=True, timeout=0.1)
        except bruit.BusyError:
            pass
        print("waits")
        try:
            if sys.argv[1] == "request":
                a.request("n1", b"", timeout=None)
            elif sys.argv[1] == "messages":
                next(a.messages())
            else:
                a.send("n1", bytes(10_000), reliable=True, timeout=60)
        except KeyboardInterrupt:
            print("interrupted")
        kept.clear()
"""


@pytest.mark.parametrize("call", ["request", "messages", "send"])
def test_ctrl_c_ends_every_wait(script, call):
    waiting = script(WAITS, call)
    waiting.expect("waits")
    waiting.until_it_waits()
    waiting.send(2)
    assert waiting.succeed().endswith("interrupted\n")


def test_other_threads_run_while_one_waits_for_an_answer(pair):
    """The answer comes from a handler on a thread of the same interpreter."""
    a, b = pair
    counted = []

    @b.on_message("q")
    def slow(message):
        counted.append(sum(range(10_000)))
        return b"done"

    assert a.request("n1", b"", topic="q", timeout=20).data == b"done" and counted


def test_threads_and_descriptors_do_not_add_up(pair):
    a, b = pair
    echo(b)
    a.on_message("y", print)
    a.request("n1", b"", topic="echo", timeout=20)
    before = (len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd")))
    for number in range(200):
        a.request("n1", str(number).encode(), topic="echo", timeout=20)
        a.on_message("x", print).cancel()
        b.messages("x").close()
    until(lambda: (len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))) <= before)


def test_nothing_is_kept_of_what_was_said_and_asked(pair):
    a, b = pair

    data, count = b"x" * 1_000, []
    before = sys.getrefcount(data)

    def handler(message):
        count.append(sys.getrefcount(message.data))
        return message.data

    subscription = b.on_message("q", handler)
    for _ in range(50):
        a.send("n1", data, topic="q", reliable=True)
        assert a.request("n1", data, topic="q", timeout=20).data == data
    assert sys.getrefcount(data) == before and len(set(wait(count, 100))) == 1
    subscription.cancel()
    handler_gone = weakref.ref(handler)
    del subscription, handler
    gc.collect()
    assert handler_gone() is None


def test_a_node_goes_away_although_its_message_handlers_run():
    node = alone("a").start()
    node.on_message("*", print)
    node.messages()
    gone = weakref.ref(node)
    with pytest.warns(ResourceWarning, match="unclosed node"):
        del node
        gc.collect()
    assert gone() is None
    until(lambda: "bruit-py a" not in [thread.name for thread in threading.enumerate()])


def test_in_a_forked_child_nothing_of_the_parents_is_touched(script):
    done = script(
        """
        import os, bruit
        from bruit.testing import cluster

        with cluster(2) as (a, b):
            questions = []
            b.on_message("q", questions.append)
            stream = b.messages("x")
            import threading
            answers = []
            asking = threading.Thread(target=lambda: answers.append(a.request("n1", b"?", topic="q", timeout=20).data))
            asking.start()
            while not questions:
                pass
            child = os.fork()
            if child == 0:
                for call in (lambda: a.send("n1", b""), lambda: a.request("n1", b""), lambda: questions[0].reply(b"child"),
                             lambda: next(stream), lambda: a.on_message(print), lambda: a.messages()):
                    try:
                        call()
                    except bruit.ForkedError:
                        print("forked")
                questions.clear()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            questions[0].reply(b"parent")
            asking.join()
            print(answers)
        """
    ).succeed()
    assert done == "forked\n" * 6 + "[b'parent']\n"


# Streams.


def test_a_stream_has_the_messages_of_its_topic_and_ends(pair):
    a, b = pair
    one, every = b.messages("x", timeout=10), b.messages(timeout=0.2)
    for topic in ("x", "y", "x"):
        a.send("n1", topic.encode(), topic=topic, reliable=True)
    assert [next(one).topic for _ in range(2)] == ["x", "x"]
    assert [message.data for message in every] == [b"x", b"y", b"x"]
    assert repr(one).startswith("<bruit.MessageStream of <bruit.Node n1")
    assert one.next(0) is None and not one.ended
    one.close()
    assert one.ended and list(one) == []
    b.stop()
    assert every.ended and list(every) == []


def test_who_closes_a_stream_lets_go_of_the_questions_in_it_and_listens_no_more(pair):
    a, b = pair
    questions = b.messages("q")
    thread, caught = asking(a, "n1", bruit.NoReplyError, timeout=20)
    until(lambda: b.stats()["messages_received"] == 1)
    questions.close()
    thread.join(20)
    assert caught
    with pytest.raises(bruit.NoHandlerError):
        a.request("n1", b"", topic="q", timeout=20)


def test_who_reads_a_question_from_a_stream_answers_it(pair):
    a, b = pair
    questions = b.messages("q", timeout=20)

    def serve():
        for question in questions:
            if question.data == b"end":
                question.fail("enough")
                return
            question.reply(question.data.upper())

    serving = threading.Thread(target=serve)
    serving.start()
    assert a.request("n1", b"shout", topic="q", timeout=20).data == b"SHOUT"
    with pytest.raises(bruit.RemoteError, match="enough"):
        a.request("n1", b"end", topic="q", timeout=20)
    serving.join()


def test_best_effort_that_nobody_reads_drops_its_oldest_and_it_is_counted():
    with cluster(2, inbox_bytes="64KiB") as (a, b):
        stream = b.messages(timeout=0)
        for i in range(200):
            a.send("n1", i.to_bytes(4, "big") + bytes(1_000))
            # A burst would be lost in the socket already.
            until(lambda i=i: b.stats()["messages_received"] > i)
        kept = [number(message) for message in stream]
        assert 60 <= len(kept) <= 65 and kept == list(range(200 - len(kept), 200))
        assert b.stats()["events_dropped"] == 200 - len(kept)
        assert stream.lost == 200 - len(kept)


# asyncio.


class Two:
    """Two that know each other, for asyncio."""

    def __init__(self, **options):
        self.a = bruit.aio.Node("a", **{"bind": "127.0.0.1:0", "profile": "local", **options})
        self.options = options

    async def __aenter__(self):
        await self.a.start()
        given = {"bind": "127.0.0.1:0", "profile": "local", "seeds": [self.a.address], **self.options}
        self.b = await bruit.aio.Node("b", **given).start()
        await asyncio.gather(self.a.wait_for(2, timeout=10), self.b.wait_for(2, timeout=10))
        return self.a, self.b

    async def __aexit__(self, *_):
        await asyncio.gather(self.a.stop(), self.b.stop())


@run
async def test_asyncio_sends_and_reads():
    async with Two() as (a, b):
        stream = b.amessages("chat", timeout=10)
        receipts = a.events(kinds=bruit.Receipt, timeout=10)
        assert await a.send("b", b"1", topic="chat", reliable=True) is None
        number = await a.send("b", b"2", topic="chat", receipt=True)
        assert (await receipts.__anext__()).id == number
        seen = []
        async for message in stream:
            seen.append((message.data, message.sender))
            if len(seen) == 2:
                break
        assert seen == [(b"1", "a"), (b"2", "a")]
        with pytest.raises(bruit.NotFoundError):
            await a.send("nobody", b"")


@run
async def test_asyncio_broadcasts():
    async with Two() as (a, b):
        stream = b.amessages("news", timeout=10)
        await a.broadcast(b"to all", topic="news", timeout=10)
        async for message in stream:
            assert (message.data, message.sender) == (b"to all", "a")
            break


@run
async def test_asyncio_asks_and_answers():
    async with Two() as (a, b):

        @b.on_message("sum")
        async def add(message):
            await asyncio.sleep(0)
            return str(sum(map(int, message.data.split(b"+")))).encode()

        b.on_message(lambda message: message.data.upper())

        @b.on_message("broken")
        async def broken(message):
            raise KeyError("no such table")

        b.on_message("silent", lambda message: None)
        assert await a.request("b", b"2+3", topic="sum", timeout=10) == bruit.Reply(b"5", "b", "sum")
        assert (await a.request("b", b"loud", timeout=10)).data == b"LOUD"
        for topic, wanted in (("broken", bruit.RemoteError), ("silent", bruit.NoReplyError), ("no", bruit.NoHandlerError)):
            with pytest.raises(wanted):
                await a.request("b", b"", topic=topic, timeout=20)
        with pytest.raises(TypeError):
            await a.request("b", "text")
        with pytest.raises(bruit.InvalidError):
            await a.request("b", b"", timeout=0)


@run
async def test_a_thousand_questions_in_one_loop_take_no_thread_and_are_matched_right():
    async with Two() as (a, b):
        b.on_message("echo", lambda message: message.data)
        await a.request("b", b"", topic="echo", timeout=20)
        before = len(os.listdir("/proc/self/task"))
        asked = [asyncio.create_task(a.request("b", str(n).encode(), topic="echo", timeout=30)) for n in range(1_000)]
        await asyncio.sleep(0)
        assert len(os.listdir("/proc/self/task")) == before
        replies = await asyncio.gather(*asked)
        assert [reply.data for reply in replies] == [str(n).encode() for n in range(1_000)]


@run
async def test_a_cancelled_question_is_cancelled_and_the_others_are_not():
    async with Two() as (a, b):
        questions = b.messages("q", timeout=10)
        first, second = (asyncio.create_task(a.request("b", data, topic="q", timeout=30)) for data in (b"1", b"2"))
        heard = {}
        for _ in range(2):
            question = await questions.anext()
            heard[question.data] = question
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(a.request("b", b"3", topic="q", timeout=30), 0.05)
        heard[b"1"].reply(b"nobody waits")
        heard[b"2"].reply(b"answer")
        assert (await second).data == b"answer"
        while a.stats()["replies_late"] < 1:
            await asyncio.sleep(0.001)


@run
async def test_stopping_the_node_ends_the_questions_of_its_tasks():
    async with Two() as (a, b):
        questions = b.messages("q", timeout=10)
        asking = [asyncio.create_task(a.request("b", b"", topic="q", timeout=None)) for _ in range(3)]
        kept = [await questions.anext() for _ in range(3)]
        await a.stop()
        for outcome in await asyncio.gather(*asking, return_exceptions=True):
            assert isinstance(outcome, bruit.CanceledError)
        assert len(kept) == 3


@run
async def test_asyncio_waits_for_room():
    async with Two(inbox_bytes="64KiB", send_queue="64KiB") as (a, b):
        stream, sent = b.messages(timeout=10), 0
        with pytest.raises(BlockingIOError):
            while sent < 1_000:
                await a.send("b", sent.to_bytes(4, "big") + bytes(10_000), reliable=True, timeout=0.1)
                sent += 1
        waiting = asyncio.create_task(a.send("b", sent.to_bytes(4, "big") + bytes(10_000), reliable=True, timeout=20))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        seen = [number(await stream.__anext__()) for _ in range(sent + 1)]
        await waiting
        assert seen == list(range(sent + 1))


@run
async def test_a_cancelled_wait_loses_no_message():
    async with Two() as (a, b):
        stream, wanted, seen, turn = b.messages(timeout=10), 60, [], 0
        for number in range(wanted):
            await a.send("b", str(number).encode(), reliable=True, timeout=10)
        while len(seen) < wanted:
            reading = asyncio.create_task(stream.__anext__())
            turn += 1
            for _ in range(turn % 4):
                await asyncio.sleep(0)
            if turn % 2:
                reading.cancel()
            try:
                seen.append(int((await reading).data))
            except asyncio.CancelledError:
                pass
        assert seen == list(range(wanted))


@run
async def test_a_handler_in_the_loop_can_cancel_itself_and_answer_later():
    async with Two() as (a, b):
        tasks = []

        @b.on_message("q")
        async def once(message):
            once.cancel()

            async def later():
                await asyncio.sleep(0.001)
                message.reply(b"later")

            tasks.append(asyncio.create_task(later()))

        assert (await a.request("b", b"", topic="q", timeout=20)).data == b"later"
        await asyncio.gather(*tasks)
        tasks.clear()
        with pytest.raises(bruit.NoHandlerError):
            await a.request("b", b"", topic="q", timeout=20)


def test_one_node_answers_in_two_loops():
    """Each loop has a descriptor of its own."""

    async def main():
        async with Two() as (a, b):
            b.on_message(lambda message: message.data)
            other = []

            def elsewhere():
                other.append(asyncio.run(a.request("b", b"elsewhere", timeout=20)).data)

            there = asyncio.get_running_loop().run_in_executor(None, elsewhere)
            here = await a.request("b", b"here", timeout=20)
            await there
            assert (here.data, other) == (b"here", [b"elsewhere"])

    asyncio.run(main())
