"""Help for the tests of others."""

from __future__ import annotations

import bruit
import pytest
from bruit.testing import cluster


def test_the_fixture(bruit_cluster):
    a, b = bruit_cluster(2)
    assert a.member(b.name).state == "alive"
    (c,) = bruit_cluster(1, names=["other"])
    assert [member.name for member in c.members()] == ["other"], "clusters do not hear each other"


def test_a_cluster_can_grow_and_stops():
    with cluster(1, names=["first"], meta={"x": "1"}) as nodes:
        late = nodes.add(meta={"x": "2"})
        nodes.wait()
        assert [node.name for node in nodes] == ["first", "n1"]
        assert nodes[0].member("n1").meta == {"x": "2"} and late.member("first").meta == {"x": "1"}
        late.stop()
        assert nodes.seeds() == [nodes[0].address]
    assert {node.state for node in nodes} == {bruit.NodeState.STOPPED}


def test_a_cluster_stops_when_the_test_fails():
    with pytest.raises(ZeroDivisionError), cluster(2) as nodes:
        raise ZeroDivisionError
    assert {node.state for node in nodes} == {bruit.NodeState.STOPPED}


def test_a_failing_option_leaves_nothing():
    with pytest.raises(bruit.InvalidError):
        with cluster(1, probe_intervall=1):
            pass
