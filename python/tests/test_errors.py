"""Exceptions: one class for each error code of the library, and each one the built-in that people expect."""

from __future__ import annotations

import builtins
import errno
import pickle

import bruit
import pytest
from bruit import _native, errors


def test_every_error_code_has_a_class_of_its_name():
    for code, name, _ in _native.error_codes():
        cls = bruit.BruitError.codes()[code]
        assert cls.code == code
        assert cls.name == name
        words = name.removeprefix("E_") if hasattr(str, "removeprefix") else name[2:]
        assert cls.__name__ == "".join(word.capitalize() for word in words.split("_")) + "Error"
        assert getattr(bruit, cls.__name__) is cls
    assert len(bruit.BruitError.codes()) == len(_native.error_codes())


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("InvalidError", ValueError),
        ("StateError", RuntimeError),
        ("DeadlockError", RuntimeError),
        ("ForkedError", RuntimeError),
        ("TimeoutError", builtins.TimeoutError),
        ("BufferError", builtins.BufferError),
        ("TooBigError", ValueError),
        ("NotFoundError", LookupError),
        ("AddressError", ValueError),
        ("AddressError", OSError),
        ("IoError", OSError),
        ("AuthError", PermissionError),
        ("BusyError", BlockingIOError),
        ("RefusedError", ConnectionRefusedError),
        ("UnreachableError", ConnectionError),
        ("FailedError", RuntimeError),
    ],
)
def test_each_is_the_built_in_that_people_expect(name, builtin):
    cls = getattr(bruit, name)
    assert issubclass(cls, builtin)
    assert issubclass(cls, bruit.BruitError)


def test_every_class_is_also_a_built_in_one():
    for cls in bruit.BruitError.codes().values():
        assert len(cls.__bases__) > 1, cls


@pytest.mark.parametrize("cls", bruit.BruitError.codes().values(), ids=lambda cls: cls.__name__)
def test_text_errno_and_pickle(cls):
    error = cls("what and why", errno.EADDRINUSE)
    assert str(error) == "what and why"
    assert error.errno == errno.EADDRINUSE
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.errno, again.code) == (cls, "what and why", errno.EADDRINUSE, cls.code)


def test_errno_is_none_unless_there_is_one():
    assert errors.from_code(-1, "x").errno is None
    assert errors.from_code(-6, "x").errno == errno.ETIMEDOUT


def test_an_unknown_code_is_still_an_error_of_bruit():
    assert type(errors.from_code(-999, "later")) is bruit.BruitError
