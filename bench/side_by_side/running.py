"""Runs programs: in a network of their own where that can be had, never for ever, and never leaving one behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import cache

from samples import Figures, Trouble, outcome

# Loopback alone, and what crosses it is counted for this program alone.
ALONE = ("unshare", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")

# Figures that mean nothing where other programs share the loopback device.
OF_THE_WIRE = ("wire_bytes", "packets")


@cache
def can_be_alone() -> bool:
    try:
        return subprocess.run([*ALONE, "true"], capture_output=True, timeout=10, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def leave_nobody_behind() -> None:
    """Who is ended ends its programs, as who is interrupted does."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


class Run:
    """A program that was started. Ended and waited for at the end of the `with` block, with all its children."""

    def __init__(self, command: Sequence[str], limit: float) -> None:
        self.began, self.limit, self.is_over = time.monotonic(), limit, False
        words = [*ALONE, *command] if can_be_alone() else list(command)
        self.process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_over:
            # Its number may be another's by now.
            return
        self.is_over = True
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.communicate()

    def figures(self) -> Figures:
        """Waits for its line."""
        try:
            said, complaint = self.process.communicate(timeout=max(0.1, self.began + self.limit - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise Trouble(f"no result after {self.limit:.0f} s") from None
        lines = said.strip().splitlines()
        if not lines:
            last = complaint.strip().splitlines()[-1:] or ["nothing"]
            raise Trouble(f"ended with {self.process.returncode} and said {last[0][:200]!r}")
        figures = outcome(lines[-1])
        if not can_be_alone():
            figures.update({name: None for name in OF_THE_WIRE if name in figures})
        return figures


def attempt(run: Run) -> Figures | str:
    """Its figures, or what went wrong."""
    try:
        with run:
            return run.figures()
    except Trouble as trouble:
        return str(trouble)
