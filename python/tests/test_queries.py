"""Questions to many, messages to several, and what a reader that is too slow is told."""

from __future__ import annotations

import asyncio

import bruit
import bruit.aio
import pytest
from bruit.events import from_raw


@pytest.fixture
def three():
    with bruit.Node("a", bind="127.0.0.1:0", profile="local") as a:
        others = [
            bruit.Node(name, bind="127.0.0.1:0", profile="local", seeds=[a.address], meta=meta)
            for name, meta in (("b", {"role": "db"}), ("c", {}))
        ]
        with others[0] as b, others[1] as c:
            for node in (a, b, c):
                node.wait_for(3, timeout=30)
            yield a, b, c


def answering(*nodes):
    for node in nodes:
        node.on_message("name", lambda message, name=node.name: name.encode())


def test_a_query_is_an_iterator_of_answers_that_ends_with_the_last(three):
    a, b, c = three
    answering(b, c)
    query = a.query(b"?", topic="name", timeout=30, relay=1, acks=True)
    assert {reply.sender: reply.data for reply in query} == {"b": b"b", "c": b"c"}
    assert query.ended
    gathered = query.gathered
    assert (gathered.asked, gathered.answered, gathered.gone, gathered.in_time) == (2, 2, 0, True)
    assert [reply.sender for reply in a.query(b"?", topic="name", tags="role=db", timeout=30)] == ["b"]
    assert [reply.sender for reply in a.query(b"?", topic="name", names=["c"], timeout=30)] == ["c"]
    assert list(a.query(b"?", topic="name", tags=["nothing"], timeout=30)) == []


def test_who_does_not_answer_is_a_reply_with_an_error(three):
    a, b, c = three

    @b.on_message("sum")
    def fails(message):
        raise ValueError("not a sum")

    replies = {reply.sender: reply for reply in a.query(b"?", topic="sum", timeout=30)}
    assert isinstance(replies["b"].error, bruit.RemoteError) and "not a sum" in str(replies["b"].error)
    assert isinstance(replies["c"].error, bruit.NoHandlerError)


def test_a_query_that_is_closed_is_given_up(three):
    a, b, _ = three
    kept = b.messages("late")
    with a.query(b"?", topic="late", names=["b"], timeout=30) as query:
        message = kept.next(30)
        assert message.is_request
    assert query.ended and query.next(30) is None
    with pytest.raises(bruit.InvalidError):
        a.query(b"?", relay=9)


def test_async_for_gathers_answers(three):
    a, b, c = three
    answering(b, c)

    async def main():
        async with bruit.aio.Node("d", bind="127.0.0.1:0", profile="local", seeds=[a.address]) as d:
            await d.wait_for(4, timeout=30)
            query = d.query(b"?", topic="name", names=["b", "c"], timeout=30)
            return sorted([reply.sender async for reply in query])

    assert asyncio.run(main()) == ["b", "c"]


def test_a_message_to_several_has_a_result_for_each(three):
    a, b, c = three
    heard = [node.messages("x") for node in (b, c)]
    sent = a.send_each(b"hello", to=["b", "nobody", "c"], topic="x", receipt=True)
    assert list(sent) == ["b", "nobody", "c"]
    assert sent["b"].receipt is not None and sent["c"].receipt is not None
    assert isinstance(sent["nobody"].error, bruit.NotFoundError)
    assert [stream.next(30).data for stream in heard] == [b"hello", b"hello"]
    assert list(a.send_each(b"hello", tag="role=db", topic="x", reliable=True)) == ["b"]
    assert a.send_each(b"hello", to=[]) == {}
    with pytest.raises(TypeError):
        a.send_each(b"hello")
    with pytest.raises(TypeError):
        a.send_each(b"hello", to="b")


def test_a_gap_names_what_was_missed():
    gap = from_raw(("GAP", 0, 7, None, None, 12, 3, 0, "12 to 15"))
    assert isinstance(gap, bruit.Gap)
    assert (gap.first, gap.count, gap.view) == (12, 3, 7)
