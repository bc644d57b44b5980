"""Options, durations, keys and metadata: what is taken, and what the refusal says."""

from __future__ import annotations

import base64
import datetime

import bruit
import pytest
from bruit._convert import option, seconds
from conftest import alone


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (None, None),
        (0, 0.0),
        (1.5, 1.5),
        ("200ms", 0.2),
        ("1.5s", 1.5),
        ("2m", 120.0),
        ("1h", 3600.0),
        ("10us", 1e-5),
        (" 3 s ", 3.0),
        (datetime.timedelta(milliseconds=250), 0.25),
        (float("inf"), None),
    ],
)
def test_durations(given, found):
    assert seconds(given, "timeout") == (None if found is None else pytest.approx(found))


@pytest.mark.parametrize("wrong", ["5", "five", "5 parsecs", "", "-1s", -1, float("nan"), datetime.timedelta(-1)])
def test_a_wrong_duration_is_a_value_error(wrong):
    with pytest.raises(bruit.InvalidError, match="timeout"):
        seconds(wrong, "timeout")


@pytest.mark.parametrize("wrong", [True, b"1s", [1]])
def test_a_wrong_type_is_a_type_error(wrong):
    with pytest.raises(TypeError, match="timeout"):
        seconds(wrong, "timeout")


def test_an_unknown_option_names_the_nearest():
    with pytest.raises(ValueError, match="probe_intervall.*probe_interval'") as caught:
        alone(probe_intervall="1s")
    assert isinstance(caught.value, bruit.InvalidError)
    with pytest.raises(ValueError, match="bruit.options"):
        alone(zzzzzzzzzz=1)


def test_the_table_of_options():
    table = bruit.options()
    interval = table["probe_interval"]
    assert interval.kind == "duration" and interval.live and interval.lan == "1s" and interval.doc
    assert table["transport"].choices == ("both", "tcp")
    assert all(row.doc and row.group and row.key == key for key, row in table.items())


def test_values_of_every_kind():
    assert option("probe_interval", 0.25) == "250000us"
    assert option("probe_interval", datetime.timedelta(seconds=2)) == "2000000us"
    assert option("probe_interval", "2s") == "2s"
    assert option("suspicion_mult", 1.5) == "1.500"
    assert option("indirect_checks", 4) == "4"
    assert option("max_datagram", 1200) == "1200"
    assert option("insecure_plaintext", True) == "true"


@pytest.mark.parametrize(
    ("key", "wrong"), [("probe_interval", True), ("indirect_checks", 1.5), ("nacks", 1), ("name", 5), ("name", b"a")]
)
def test_a_value_of_the_wrong_kind_is_a_type_error(key, wrong):
    with pytest.raises(TypeError, match=key):
        option(key, wrong)


def test_all_kinds_reach_the_library():
    alone(probe_interval=0.5, probe_timeout="100ms", suspicion_mult=2, indirect_checks=2, max_datagram="1KiB", nacks=False)
    with pytest.raises(bruit.InvalidError, match="indirect_checks"):
        alone(indirect_checks=10**9)
    with pytest.raises(bruit.InvalidError, match="profile"):
        alone(profile="moon")
    with pytest.raises(bruit.InvalidError, match="dispatch"):
        alone(dispatch="manual")


def test_keys():
    key = bruit.generate_key()
    raw = base64.b64decode(key)
    assert len(raw) == 32 and key != bruit.generate_key()
    alone(keys=key)
    alone(keys=raw)
    alone(keys=[key, raw, raw.hex(), bytearray(32)])


@pytest.mark.parametrize("wrong", ["secretsecret", b"secretsecret", ["secretsecret"], [b"secretsecret"]])
def test_a_wrong_key_is_refused_without_being_shown(wrong):
    with pytest.raises(bruit.InvalidError) as caught:
        alone(keys=wrong)
    assert "secret" not in str(caught.value)


def test_a_key_of_another_type_is_a_type_error():
    with pytest.raises(TypeError, match="keys"):
        alone(keys=[5])


def test_a_reachable_address_wants_a_key():
    with pytest.raises(bruit.AuthError):
        bruit.Node("a", bind="0.0.0.0:0")
    bruit.Node("a", bind="0.0.0.0:0", insecure_plaintext=True)


def test_addresses_and_names_are_checked():
    with pytest.raises(bruit.AddressError):
        alone(bind="nonsense")
    with pytest.raises(bruit.AddressError):
        alone(seeds=["a b:c"])
    with pytest.raises(TypeError, match="seeds"):
        alone(seeds=[("127.0.0.1", 1)])
    with pytest.raises(bruit.InvalidError):
        alone("\n")
    with pytest.raises(TypeError):
        alone(5)


def test_one_seed_needs_no_list():
    alone(seeds="127.0.0.1:1")
