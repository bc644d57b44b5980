"""The pytest plugin of bruit: the fixture `bruit_cluster`. It is there wherever bruit is installed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Callable

import pytest

from bruit.testing import Cluster, cluster


@pytest.fixture
def bruit_cluster() -> Iterator[Callable[..., Cluster]]:
    """Makes clusters as `bruit.testing.cluster` does, and stops them after the test: ``a, b, c = bruit_cluster(3)``."""
    with contextlib.ExitStack() as stack:

        def make(n: int, **options: Any) -> Cluster:
            return stack.enter_context(cluster(n, **options))

        yield make
