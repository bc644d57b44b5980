"""What is installed: one wheel for every CPython from 3.9 on."""

from __future__ import annotations

import importlib.metadata

from bruit import _native


def test_its_tag():
    wheel = importlib.metadata.distribution("bruit").read_text("WHEEL")
    tags = [line.split(": ")[1] for line in wheel.splitlines() if line.startswith("Tag: ")]
    assert tags and all(tag.startswith("cp39-abi3-") for tag in tags), tags


def test_its_module_is_for_the_stable_interface():
    assert _native.__file__.endswith(".abi3.so")
