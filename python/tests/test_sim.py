"""The simulator: scenarios, reports, worlds and pictures."""

from __future__ import annotations

import json
import pathlib
import signal
from datetime import timedelta
from typing import Any

import bruit
import pytest
from bruit import sim
from bruit.sim import Phase, Scenario, World, compare

SCENARIOS = pathlib.Path(__file__).parents[2] / "examples" / "sim"


@pytest.fixture(scope="module")
def report() -> sim.Report:
    phases = [Phase("calm", 5, updates=5), Phase("crash", 60, kill=2, tell=1, until="agree")]
    return Scenario(nodes=20, title="a crash", loss=0.05, sample=0.5, phases=phases).run(trials=4, seed=3)


def test_a_report_has_what_was_measured(report):
    assert (report.title, report.nodes, report.seed, report.success_rate) == ("a crash", 20, 3, 1.0)
    assert (report.gossip_interval_ms, report.probe_interval_ms) == (100.0, 1000.0)
    assert [trial.seed for trial in report.trials] == [3, 4, 5, 6]
    know = report.measures["kill: all know"]
    assert (know.unit, know.n, know.missing) == ("ms", 8, 0)
    assert know.min <= know.p50 <= know.p95 <= know.p99 <= know.max
    values = [found.all_ms for trial in report.trials for found in trial.detections]
    assert know.mean == pytest.approx(sum(values) / 8) and know.max == max(values)
    for trial in report.trials:
        assert [phase.name for phase in trial.phases] == ["form", "calm", "crash"]
        assert trial.failed is None and trial.phases[2].fulfilled is True and trial.phases[1].fulfilled is None
        (tell,) = trial.tells
        assert len(tell.known) == 17 and tell.unknown == ()
        assert list(tell.known.values()) == sorted(tell.known.values())
        assert {found.fault for found in trial.detections} == {"kill"}
        assert all(0 <= sample.members <= 1 for sample in trial.staleness)
        assert any(kind.name == "PING" for kind in trial.phases[1].kinds)
    assert report.measures["lost on the way"].mean == pytest.approx(5, abs=1)
    assert "kill: all know" in str(report) and "100 % succeeded" in repr(report)


def test_a_report_goes_into_json_and_out_again(report):
    found = report.to_dict()
    assert json.loads(json.dumps(found)) == found
    found["rows"].clear()
    assert len(report.to_dict()["rows"]) == 4, "it is the caller's own"


def test_a_seed_is_a_run_on_any_number_of_threads(report):
    scenario = Scenario(8, [Phase("a", 3, tell=1)], loss=0.2)
    one, two = scenario.run(trials=3, jobs=1), scenario.run(trials=3, jobs=2)
    assert one.to_dict() == two.to_dict()
    assert scenario.run(trials=1, seed=2).trials[0] == one.trials[1]


def test_reach_is_asserted(report):
    report.assert_reaches(0.5, within="5s")
    with pytest.raises(AssertionError, match=r"seed 3: what n\d+ told should have reached 100 % of all within 1 ms"):
        report.assert_reaches(within=0.001)
    with pytest.raises(bruit.InvalidError, match="nothing was told"):
        Scenario(3, form=0, phases=[Phase("a", 1)]).run(trials=1).assert_reaches(within=1)


def test_what_never_happened_is_none():
    report = Scenario(4, topology="none", form=2, title="nobody").run(trials=2)
    form = report.measures["form"]
    assert (report.success_rate, form.missing, form.mean, form.p50, form.max) == (0.0, 2, None, None, None)
    assert [trial.failed for trial in report.trials] == ["form", "form"]


def test_runs_are_compared(report):
    other = Scenario(20, [Phase("calm", 5), Phase("crash", 60, kill=2, until="agree")]).run(trials=2)
    comparison = compare({"lossy": report, "clean": other})
    assert comparison.runs == ("lossy", "clean")
    row = next(row for row in comparison.rows if (row.measure, row.statistic) == ("kill: first dead", "mean"))
    values = [r.measures["kill: first dead"].mean for r in (report, other)]
    assert row.values == pytest.approx(values) and row.ratios == pytest.approx((1.0, values[1] / values[0]))
    told = next(row for row in comparison.rows if row.measure == "reach 100 %")
    assert told.values[1] is None and told.ratios[1] is None, "nothing was told there"
    assert "lossy" in str(comparison)
    with pytest.raises(bruit.InvalidError):
        compare({})


@pytest.mark.parametrize("path", sorted(SCENARIOS.glob("*.scn")), ids=lambda path: path.stem)
def test_scenario_files_are_read(path):
    scenario = Scenario.load(path)
    assert scenario.text == path.read_text()
    assert Scenario.parse(scenario.text).text == scenario.text


def test_values_are_written_as_a_file_has_them():
    phase = Phase(
        "all",
        timedelta(seconds=1.5),
        kill=["n2", "b"],
        pause="10%",
        slow=(["n3", "n4"], "5ms"),
        block=1,
        ingress_loss=(1, 0.8),
        flip_flop=("n5", timedelta(seconds=2), "1s"),
        loss=("bursts", 0.1, 0.1, 0, 1),
        udp_blocked=True,
        partition="30% | n2",
    )
    scenario = Scenario(9, [phase], names=["first", "b"], probe_interval=0.5, title="x # y", form=0, **{"meta.role": "db"})
    assert scenario.text.splitlines() == [
        "nodes = 9",
        "names = first, b",
        "probe_interval = 500000us",
        'title = "x # y"',
        "form = 0s",
        "meta.role = db",
        "[phase all]",
        "for = 1500ms",
        "kill = n2, b",
        "pause = 10%",
        "slow = n3, n4 5ms",
        "block = 1",
        "ingress_loss = 1 0.8",
        "flip_flop = n5 2s 1s",
        "loss = bursts 0.1 0.1 0 1",
        "udp_blocked = true",
        "partition = 30% | n2",
    ]


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: Scenario(0), "nodes = 0"),
        (lambda: Scenario(3, loss=1.5), "from 0 to 1"),
        (lambda: Scenario(3, loss=float("nan")), "from 0 to 1"),
        (lambda: Scenario(3, los=0.1), 'is "loss" meant'),
        (lambda: Scenario(3, probe_intervall=1), 'is "probe_interval" meant'),
        (lambda: Scenario(3, topology="mesh"), "expected full, one"),
        (lambda: Scenario(3, [Phase("a", 1, kill=4)]), "there are 3"),
        (lambda: Scenario(3, [Phase("a", 1, kil=1)]), 'is "kill" meant'),
        (lambda: Scenario(3, [Phase("a", -1)]), "not negative"),
        (lambda: Scenario(3, [Phase("a", 1), Phase("a", 1)]), "another one of that name"),
        (lambda: Scenario(3, [Phase("a", 1, until="reach 1")]), "nothing is told"),
        (lambda: Scenario(3, [Phase("a]\nkill = 1", 1)]), "one line"),
        (lambda: Scenario(3, title="a\nnodes = 9"), "one line"),
        (lambda: Scenario.parse("nodes = 3\n[phase a]\nfor = 1"), "line 3: for = "),
        (lambda: Scenario(3).run(trials=0), "trials = 0"),
        (lambda: Scenario(3).run(trials=-1), "trials = -1"),
    ],
)
def test_mistakes_are_refused_at_the_door(make, words):
    with pytest.raises((bruit.InvalidError, bruit.NotFoundError), match=words):
        make()


def test_what_is_no_value_is_a_type_error():
    with pytest.raises(TypeError, match="loss: expected a number"):
        Scenario(3, loss=object())  # type: ignore[arg-type]


def test_ctrl_c_ends_a_run(script):
    program = script("""
        from bruit.sim import Phase, Scenario
        scenario = Scenario(50, [Phase("long", "100h")])
        print("running")
        try:
            scenario.run(trials=4)
        except KeyboardInterrupt:
            print("interrupted")
    """)
    program.expect("running")
    program.until_it_waits()
    program.send(signal.SIGINT)
    assert "interrupted" in program.succeed()


def test_ctrl_c_ends_a_worlds_run(script):
    program = script("""
        import signal, threading
        from bruit.sim import World
        world = World()
        world.cluster(20)
        threading.Timer(0.3, signal.raise_signal, [signal.SIGINT]).start()
        try:
            world.run_for("1000h")
        except KeyboardInterrupt:
            print("interrupted", world.now > 1)
    """)
    assert "interrupted True" in program.succeed()


def test_the_interpreter_is_free_while_a_scenario_runs(script):
    program = script("""
        import threading
        from bruit.sim import Phase, Scenario
        turns, over = [], threading.Event()
        def work():
            while not over.is_set():
                turns.append(1)
        other = threading.Thread(target=work)
        other.start()
        before = len(turns)
        Scenario(60, [Phase("a", 60)]).run(trials=1)
        print("turns", len(turns) - before)
        over.set()
        other.join()
    """)
    assert int(program.expect("turns")) > 1000
    program.succeed()


def test_a_world_is_moved_by_hand():
    world = World(7, probe_interval=0.5, probe_timeout=0.2)
    nodes = world.cluster(6)
    assert len(world) == 6 and world.run_until_agree(10) < 5
    world.set_meta(nodes[1], role="db")
    world.run_until(lambda w: w.members(nodes[5]).tagged("role=db"), 5)
    world.run_for(3)
    world.kill(nodes[2])
    before = world.now
    took = world.run_until_agree("20s")
    assert 0.5 < took < 10 and world.now == pytest.approx(before + took)
    assert world.agree() and not world.is_running(nodes[2])
    members = world.members(nodes[0])
    assert members.get(world.name(nodes[2])).state == "dead" and members.local.address == world.address(nodes[0])
    at, last = next((at, e) for at, e in world.events(nodes[0]) if isinstance(e, bruit.MemberDead))
    assert before < at <= world.now and last.member.name == "n2"
    world.restart(nodes[2])
    world.run_until_agree(30)
    packets, size = world.traffic()["PING"]
    assert packets > 0 and size > 28 * packets


def test_a_world_is_the_same_again_for_the_same_seed():
    def trace(seed: int) -> Any:
        world = World(seed)
        nodes = world.cluster(5)
        world.network(loss=0.3, delay=("normal", "20ms", "5ms"))
        world.run_for(5)
        world.leave(nodes[4])
        world.run_for(5)
        return world.trace, [world.events(i) for i in nodes]

    assert trace(1) == trace(1)
    assert trace(1)[0] != trace(2)[0]


def test_a_partition_in_a_world_heals():
    world = World(3)
    nodes = world.cluster(6)
    world.run_until_agree(10)
    world.partition(nodes[:3], nodes[3:])
    world.run_for(30)
    assert not world.agree() and len(world.members(nodes[0]).alive) == 3
    world.heal()
    world.run_until_agree(120)
    world.pause(nodes[1])
    world.run_until(lambda w: len(w.members(nodes[0]).alive) == 5, 20)
    world.resume(nodes[1])
    world.cut(nodes[0], nodes[1])
    world.slow(nodes[2], "1ms")
    world.run_until_agree(60)


def test_a_sealed_world_works_with_keys_and_without_a_transcript_keeps_none():
    world = World(4, sealed=True)
    nodes = world.cluster(3)
    world.record()
    world.run_until_agree(10)
    assert any("HELLO" in line or "JOIN" in line or "PING" in line for line in world.transcript())
    assert World(1).transcript() == [] and nodes == [0, 1, 2]


def test_mistakes_with_a_world_are_refused():
    world = World()
    world.add("a")
    for call in (world.kill, world.members, world.events, world.name, world.resume):
        with pytest.raises(IndexError, match="node 1 of 1"):
            call(1)
    with pytest.raises(IndexError):
        world.partition([0], [7])
    with pytest.raises(IndexError):
        world.add("b", seeds=[4])
    with pytest.raises(bruit.InvalidError, match="node name"):
        world.add("x" * 300)
    with pytest.raises(bruit.InvalidError, match="probe_interval"):
        world.add("b", probe_interval="1")
    with pytest.raises(bruit.InvalidError, match="from 0 to 1"):
        world.network(loss=2)
    with pytest.raises(bruit.NotFoundError, match='is "loss" meant'):
        world.network(lost=0.1)
    with pytest.raises(bruit.TimeoutError, match="virtual time"):
        world.run_until(lambda w: False, 0.1)
    world.add("b")
    with pytest.raises(bruit.TimeoutError, match="did not agree"):
        world.run_until_agree(1)
    assert len(world) == 2


# ---- pictures


def test_without_matplotlib_a_picture_says_what_to_install(script):
    program = script("""
        import sys
        sys.modules["matplotlib"] = None
        from bruit.sim import Phase, Scenario, plot
        report = Scenario(3, [Phase("a", 2, tell=1)]).run(trials=1)
        try:
            plot.infection(report)
        except ImportError as e:
            print(e)
    """)
    assert "pip install bruit[plot]" in program.succeed()


def test_pictures_are_written_as_png_and_svg(report, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed; pip install bruit[plot]")
    from bruit.sim import plot

    other = Scenario(20, [Phase("calm", 5), Phase("crash", 60, kill=2, tell=1, until="agree")]).run(trials=2)
    both = {"lossy": report, "clean": other}
    words = {
        "infection": ("nodes that know (%)", "(ms, logarithmic)"),
        "staleness": ("pairs of nodes (%)", "(s)"),
        "detection": ("faults (count)", "(s)"),
        "traffic": ("(B/s)", "PING"),
    }
    for name, labels in words.items():
        draw = getattr(plot, name)
        draw(report)
        png, svg = plot.save(draw(both, title="Two runs"), tmp_path / f"{name}.svg")
        assert (png.name, svg.name) == (f"{name}.png", f"{name}.svg")
        assert png.read_bytes().startswith(b"\x89PNG")
        text = svg.read_text()
        assert all(word in text for word in (*labels, "lossy", "clean", "Two runs")), name
        again = plot.save(draw(both, title="Two runs"), tmp_path / f"{name}-again")
        assert again[1].read_text() == text, "the same picture again"
    quiet = Scenario(3, form=0, sample=0, phases=[Phase("a", 1)]).run(trials=1)
    for draw in (plot.infection, plot.staleness, plot.detection):
        with pytest.raises(ValueError):
            draw(quiet)
