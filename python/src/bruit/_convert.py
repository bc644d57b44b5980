"""From what people write in Python to what the library takes: option values with units, durations, keys, metadata."""

from __future__ import annotations

import base64
import difflib
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Optional, Union

from bruit import _native
from bruit.errors import InvalidError

Duration = Union[int, float, str, timedelta]
"""Seconds, a `timedelta`, or a string with a unit: ``0.2``, ``timedelta(milliseconds=200)``, ``"200ms"``."""

OptionValue = Union[str, bool, int, float, timedelta]
"""What an option takes. Durations are `Duration`; sizes are bytes or ``"64KiB"``."""

Key = Union[bytes, str]
"""32 bytes, or the text of them: base64, as `generate_key` makes it, or hex."""

MetaValue = Union[str, bytes]

KEY_LEN = 32

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([a-zµ]+)\s*")


@dataclass(frozen=True)
class Option:
    """One option of a node, as `bruit.options` lists them."""

    key: str
    kind: str
    """``"text"``, ``"bool"``, ``"count"``, ``"size"``, ``"duration"``, ``"ratio"`` or ``"choice"``."""
    unit: str
    lan: str
    """The default in the profile ``"lan"``, which is the default profile."""
    wan: str
    local: str
    bounds: str
    live: bool
    """True where `Node.set` can change it while the node runs."""
    choices: tuple[str, ...]
    source: str
    """Where the default comes from."""
    doc: str
    group: str


OPTIONS: dict[str, Option] = {row[0]: Option(*row) for row in _native.options()}


def options() -> dict[str, Option]:
    """Every option that `Node` takes as a keyword: its kind, unit, defaults, bounds and meaning."""
    return dict(OPTIONS)


def generate_key() -> str:
    """A new random key as base64 text (32 bytes), for the `keys` of every node of a cluster.

    Keep it as you keep a password: whoever has it can join, read and forge.
    """
    return base64.b64encode(secrets.token_bytes(KEY_LEN)).decode("ascii")


def seconds(value: Optional[Duration], what: str) -> Optional[float]:
    """A duration in seconds; None stays None, which stands for ever."""
    if value is None:
        return None
    if isinstance(value, timedelta):
        found = value.total_seconds()
    elif isinstance(value, str):
        parts = _DURATION.fullmatch(value)
        if parts is None or parts[2] not in _UNITS:
            raise InvalidError(f"{what} = {value!r}: expected a duration such as 0.2, '200ms', '1.5s' or a timedelta")
        found = float(parts[1]) * _UNITS[parts[2]]
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        found = float(value)
    else:
        raise TypeError(f"{what}: expected seconds, a timedelta or a string such as '200ms', not {value!r}")
    if not found >= 0:
        raise InvalidError(f"{what} = {value!r}: expected a duration that is not negative")
    return found if found < 1e9 else None


def patience(timeout: Optional[Duration]) -> Optional[float]:
    """How long to wait for room: `seconds`, but None is not at all."""
    return 0.0 if timeout is None else seconds(timeout, "timeout")


def option(key: str, value: OptionValue) -> str:
    """The text of an option's value. `InvalidError` names the nearest option where there is none such."""
    known = OPTIONS.get(key)
    if known is None:
        near = difflib.get_close_matches(key, OPTIONS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "bruit.options() lists them all"
        raise InvalidError(f"unknown option {key!r}: {hint}")
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        if known.kind == "bool":
            return "true" if value else "false"
    elif known.kind == "duration" and isinstance(value, (int, float, timedelta)):
        span = seconds(value, key)
        if span is None:
            raise InvalidError(f"{key} = {value!r}: expected a duration within bounds ({known.bounds})")
        return f"{round(span * 1e6)}us"
    elif known.kind == "ratio" and isinstance(value, (int, float)):
        return f"{value:.3f}"
    elif known.kind in ("count", "size") and isinstance(value, int):
        return str(value)
    raise TypeError(f"{key}: expected a {known.kind}, not {value!r}")


def keys(given: Union[Key, Iterable[Key]]) -> list[Key]:
    """The keyring: the first key seals, all of them open. What a key is made of is checked by the library."""
    if isinstance(given, (bytes, bytearray, memoryview, str)):
        return keys((given if isinstance(given, str) else bytes(given),))
    found: list[Key] = []
    for key in given:
        if not isinstance(key, (bytes, bytearray, memoryview, str)):
            # Its value is not named: it is a secret, even when it is malformed.
            raise TypeError(f"keys: expected 32 bytes or their base64 each, not {type(key).__name__}")
        found.append(key if isinstance(key, str) else bytes(key))
    return found


def addresses(given: Union[str, Iterable[str]], what: str) -> list[str]:
    found = [given] if isinstance(given, str) else list(given)
    for address in found:
        if not isinstance(address, str):
            raise TypeError(f"{what}: expected addresses such as 'host:port', not {address!r}")
    return found


def meta_value(key: str, value: MetaValue) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise TypeError(f"meta[{key!r}]: expected str or bytes, not {value!r}")


def meta_items(given: Mapping[str, MetaValue]) -> list[tuple[str, bytes]]:
    return [(key, meta_value(key, value)) for key, value in given.items()]
