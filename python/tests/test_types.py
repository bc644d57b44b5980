"""The stubs say what the module is, and a user's program passes `mypy --strict`."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import bruit
import pytest

pytest.importorskip("mypy")

HERE = pathlib.Path(__file__).parent
# The interpreter's own flags would fail mypy for its own warnings.
ENV = {key: value for key, value in os.environ.items() if key != "PYTHONWARNINGS"}


def run(*args: object, cwd: pathlib.Path) -> None:
    done = subprocess.run(
        [sys.executable, *map(str, args)], cwd=cwd, env=ENV, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(300)
def test_stubtest():
    run(
        "-m",
        "mypy.stubtest",
        "bruit",
        "--allowlist",
        HERE / "stubtest-allow.txt",
        "--ignore-unused-allowlist",
        "--mypy-config-file",
        HERE.parent / "pyproject.toml",
        cwd=HERE.parent,
    )


@pytest.mark.timeout(300)
def test_the_package_and_a_sample_pass_mypy_strict(tmp_path):
    run("-m", "mypy", "--cache-dir", tmp_path, "--config-file", "pyproject.toml", "src", cwd=HERE.parent)
    run("-m", "mypy", "--strict", "--cache-dir", tmp_path, HERE / "typed_sample.py", cwd=tmp_path)


def test_it_says_that_it_is_typed():
    assert (pathlib.Path(bruit.__file__).parent / "py.typed").exists()


def test_all_is_complete_and_documented():
    for name in bruit.__all__:
        value = getattr(bruit, name)
        if isinstance(value, type) or callable(value):
            assert value.__doc__ or name in ("Duration", "Key", "OptionValue"), name
    assert set(bruit.errors.__all__) | set(bruit.events.__all__) <= set(bruit.__all__)
    public = {"start", "join", "leave", "stop", "wait_for", "events", "aevents", "on_event", "members", "member", "local"}
    public |= {"send", "broadcast", "request", "on_message", "messages", "amessages"}
    public |= {"open_stream", "on_stream", "query", "send_each"}
    public |= {"meta", "set", "stats", "view", "name", "address", "state"}
    for cls in (bruit.Node, __import__("bruit.aio").aio.Node):
        for name in public:
            assert getattr(cls, name).__doc__, name
    for cls in (bruit.Member, bruit.Members, bruit.Message, bruit.MessageStream, bruit.ByteStream, bruit.aio.ByteStream):
        # `closed` is the io module's.
        assert all(getattr(cls, name).__doc__ for name in dir(cls) if not name.startswith("_") and name != "closed"), cls
