"""Messages for handlers and readers, answers for askers, and how a handler's outcome becomes an answer."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Optional, Union

from bruit import _log
from bruit._native import Message
from bruit.errors import BruitError, NoHandlerError

__all__ = ["Data", "Gathered", "Message", "Reply", "Sent"]

Data = Union[bytes, bytearray, memoryview]
"""What a message carries; any other object with a buffer is taken as well."""

ALL_TOPICS = "*"


@dataclass(frozen=True)
class Reply:
    """The answer to a request."""

    data: bytes
    """What was answered."""
    sender: str
    """Who was asked."""
    topic: str = ""
    """Under which topic."""
    error: Optional[BruitError] = None
    """Of a query: why this member does not answer; `data` is empty then."""


@dataclass(frozen=True)
class Gathered:
    """How a query ended."""

    asked: int
    """Members that it was for, as far as this node knew them."""
    answered: int
    """Those that answered, also with an error."""
    heard: int
    """Those that said that they heard it, with `acks`."""
    gone: int
    """Those that were dead or had left before they answered."""
    in_time: bool
    """All who were asked have answered or are gone; else the time was over first, or it was given up."""


@dataclass(frozen=True)
class Sent:
    """What became of a message to one of several."""

    receipt: Optional[int] = None
    """Its number, where one was wanted."""
    error: Optional[BruitError] = None
    """Why it was not sent."""


def topic_and_handler(
    what: Union[str, Callable[..., object], None], fn: Optional[Callable[..., object]], topic: Optional[str]
) -> tuple[str, Optional[Callable[..., object]]]:
    """Of the arguments of `on_message`: a topic and a handler, either of which may be missing, in either form."""
    if isinstance(what, str):
        if topic is not None:
            raise TypeError(f"on_message: two topics, {what!r} and {topic!r}")
        topic = what
    elif what is not None:
        if fn is not None:
            raise TypeError("on_message: expected a topic and a handler")
        fn = what
    if fn is not None and not callable(fn):
        raise TypeError(f"on_message: expected a callable, not {fn!r}")
    return topic or "", fn


def answer(message: Message, outcome: object) -> None:
    """What a handler returned. Bytes are the answer to a request, if it has none yet."""
    if not message.is_request:
        return
    if isinstance(outcome, (bytes, bytearray, memoryview)):
        if not message.is_answered:
            message.reply(outcome)
    elif isinstance(outcome, str):
        raise TypeError("the handler of a request returned str; expected bytes, or None")


def fail(message: Message, error: BaseException) -> None:
    """What a handler raised: `RemoteError` there."""
    if message.is_request and not message.is_answered:
        _fail(message, f"{type(error).__name__}: {error}")


def verdict(outcome: object) -> bool:
    """What a validator returned."""
    if not isinstance(outcome, bool):
        raise TypeError(f"expected True or False, not {outcome!r}")
    return outcome


def judge(message: Message, accepted: bool) -> None:
    try:
        message._judge(accepted)
    except BruitError as failed:
        # Another has rejected it, or the node is about to be gone.
        _log.say(logging.DEBUG, "%r is judged already: %s", message, failed)


def unheard(message: Message) -> None:
    """Its last handler was canceled while it waited."""
    if message.is_request and not message.is_answered:
        _fail(message, f"nobody listens to {message.topic!r} there any more", NoHandlerError.code)


def _fail(message: Message, text: str, code: Optional[int] = None) -> None:
    try:
        if code is None:
            message.fail(text)
        else:
            message.fail(text, code=code)
    except BruitError as failed:
        # Who asked is gone, or this node is about to be; or it is answered by now.
        _log.say(logging.DEBUG, "%r could not be failed: %s", message, failed)
