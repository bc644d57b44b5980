"""What the runner of `make bench-peers` makes of figures; no peer is built or run here."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "side_by_side"))

import company  # noqa: E402
import jobs  # noqa: E402
import page  # noqa: E402
import peers  # noqa: E402
import pictures  # noqa: E402
import running  # noqa: E402
import table  # noqa: E402
from samples import Entrant, Results, Summary, Trouble, number, outcome  # noqa: E402
from works import PROBES, TABLES, WORKS, Column, Table, idle_columns  # noqa: E402

RATE = Column("flood", "rate", "a second", "messages a second", more_is_better=True)
TIME = Column("flood", "ms", "ms", "until all have heard")
FLOOD = Table("Flood", "Much is said.", (RATE, TIME))


def entrant(peer: str, **changes: object) -> Entrant:
    texts = dict.fromkeys(("version", "configuration", "language", "sealed", "reliable", "best_effort", "request"), "")
    usual = {"variant": "default", "joined": "each lists all", "broadcast": "yes", "detects": True}
    return Entrant(peer=peer, **{**texts, **usual, **changes})


def results(**rounds: list[tuple[float, float]]) -> Results:
    made = Results("2026-11-22 10:00 UTC", {"processor": "two"}, 3, quick=False)
    for name, figures in rounds.items():
        made.entrants[name] = entrant(name)
        for rate, ms in figures:
            made.add("flood", name, {"rate": rate, "ms": ms})
    return made


def test_a_summary_is_the_median_with_the_least_and_the_most() -> None:
    assert Summary.of([5.0, 1.0, 9.0]) == Summary(5.0, 1.0, 9.0, 3)
    assert Summary.of([4.0, 2.0]).median == 3.0


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (999.96, "1,000"), (123456.0, "123,000"), (12.34, "12.3"), (0.18043, "0.180"), (0.00012, "0.00012")],
)
def test_numbers_have_three_digits_that_matter(value: float, text: str) -> None:
    assert number(value) == text


def test_a_line_of_figures_is_understood() -> None:
    assert outcome('{"figures": {"ms": 1, "lost": null}}') == {"ms": 1.0, "lost": None}


@pytest.mark.parametrize("line", ["", "[]", '{"figures": {"ms": "1"}}', '{"error": "no port is free"}'])
def test_a_line_of_anything_else_is_trouble(line: str) -> None:
    with pytest.raises(Trouble):
        outcome(line)


def test_what_is_missing_in_a_round_is_missing_in_the_median() -> None:
    made = results(bruit=[(1, 1), (3, 3)])
    made.add("flood", "bruit", {"rate": None, "ms": 5})
    assert made.summary("flood", "bruit", "rate") == Summary(2, 1, 3, 2)
    assert made.summary("flood", "bruit", "ms") == Summary(3, 1, 5, 3)
    assert made.summary("flood", "other", "ms") is None


def test_a_file_holds_all_of_a_run(tmp_path: pathlib.Path) -> None:
    made = results(bruit=[(1, 2)], other=[(3, 4)])
    made.add("flood", "other", "it ended with -9")
    made.absent["third"] = "there is no go"
    made.save(tmp_path / "one.json")
    assert Results.load(tmp_path / "one.json") == made


def test_a_file_of_another_format_is_refused(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "old.json"
    path.write_text('{"format": 0}')
    with pytest.raises(Trouble):
        Results.load(path)


def test_where_more_is_better_who_has_less_loses() -> None:
    made = results(bruit=[(100, 1)], quick=[(300, 2)], quicker=[(400, 3)], slow=[(50, 4)])
    assert [name for name, _ in table.losses(made, RATE)] == ["quicker", "quick"]
    assert table.losses(made, TIME) == []
    assert table.verdict(made, FLOOD) == [
        "bruit loses 1 of 2 columns:",
        "",
        "- messages a second: bruit 100, quicker 400, quick 300.",
    ]


def test_a_loss_inside_the_spread_says_so() -> None:
    made = results(bruit=[(100, 1), (300, 1), (200, 1)], other=[(210, 2), (205, 2), (220, 2)])
    assert table.loss_text(made, RATE) == "messages a second: bruit 200, other 210 (ranges overlap)"


def test_one_in_a_hundred_is_no_difference() -> None:
    made = results(bruit=[(1000, 2.0)], other=[(1009, 1.99)])
    assert table.losses(made, RATE) == [] and table.losses(made, TIME) == []


def test_nothing_lost_is_said_too() -> None:
    assert table.verdict(results(bruit=[(2, 1)], other=[(1, 2)]), FLOOD) == ["bruit loses no column of this table."]
    assert table.verdict(results(other=[(1, 2)]), FLOOD) == ["bruit is not in this table."]


@pytest.mark.parametrize("peer", ["bruit", "bruit-wheel"])
def test_variants_and_other_languages_of_bruit_are_no_rivals(peer: str) -> None:
    made = results(bruit=[(1, 1)], tuned=[(9, 1)])
    made.entrants["tuned"].peer = peer
    assert table.losses(made, RATE) == []


def test_a_table_has_a_row_for_each_who_has_a_figure() -> None:
    made = results(bruit=[(1000, 1), (3000, 2)], other=[(10, 8)])
    made.entrants["silent"] = entrant("silent")
    assert table.rows(made, FLOOD) == [("bruit", ["2,000 (1,000–3,000)", "1.50 (1.00–2.00)"]), ("other", ["10.0", "8.00"])]


def test_trials_that_failed_stand_below_the_table() -> None:
    made = results(bruit=[(1, 1)], other=[(1, 1)])
    made.add("flood", "other", "no result after 100 s")
    assert "other, flood: 1 of 2 trials failed; no result after 100 s" in table.plain(made, FLOOD)
    assert "- other, flood: 1 of 2 trials failed; no result after 100 s" in table.markdown(made, FLOOD)


def test_who_has_failed_twice_and_never_done_it_is_not_tried_again() -> None:
    made = results(bruit=[(1, 1)])
    for name in ("bruit", "bruit", "other"):
        made.add("flood", name, "no result after 100 s")
    assert made.hopeless("flood") == set()
    made.add("flood", "other", "no result after 100 s")
    assert made.hopeless("flood") == {"other"}
    assert table.failed(made, FLOOD)[1] == "other, flood: failed whenever it was tried; no result after 100 s"


def test_the_page_says_who_is_absent_and_where_bruit_loses() -> None:
    made = Results("2026-11-22 10:00 UTC", {"processor": "two"}, 3, quick=True, note="Others used the machine.")
    made.entrants = {"bruit": entrant("bruit", sealed="AEAD"), "other": entrant("other")}
    made.absent["third"] = "there is no go"
    made.add("join-50", "bruit", {"seconds": 2.0})
    made.add("join-50", "other", {"seconds": 1.0})
    text = page.page(made, "bench/results/one.json")
    assert "- third: there is no go" in text and "- Others used the machine." in text
    assert "in clear" in text and "a quick run" in text
    assert text.index("50 nodes join: bruit 2.00, other 1.00") < text.index("| other |  | 1.00 |")


def test_a_picture_has_each_entrant_and_is_the_same_again(tmp_path: pathlib.Path) -> None:
    pytest.importorskip("matplotlib")
    made = Results("2026-11-22 10:00 UTC", {"processor": "two"}, 2, quick=False)
    made.entrants = {"bruit": entrant("bruit"), "other": entrant("other")}
    for name, seconds in (("bruit", 0.1), ("bruit", 0.2), ("other", 4.0)):
        made.add("join-50", name, {"seconds": seconds})
    drawn = [pictures.draw(made, tmp_path / name)[1].read_text() for name in ("one", "two")]
    assert "bruit" in drawn[0] and "other" in drawn[0] and drawn[0] == drawn[1]


def test_every_column_is_a_figure_of_a_work() -> None:
    works = {work.name for work in WORKS} | {"footprint"}
    columns = [column for table_ in TABLES for column in table_.columns]
    assert {column.work for column in columns} <= works
    assert len({(column.work, column.figure) for column in columns}) == len(columns)


def test_a_work_is_for_those_who_can_do_it() -> None:
    flood = next(work for work in WORKS if work.name == "broadcast-10")
    deaths = next(work for work in WORKS if work.name == "detect-50")
    mute = entrant("mute", broadcast="", detects=True)
    assert not flood.suits(mute, is_default=True) and deaths.suits(mute, is_default=True)
    assert flood.suits(entrant("loud"), is_default=False) and not deaths.suits(entrant("loud"), is_default=False)


def test_a_death_is_tried_twice_in_each_round_by_all_at_the_same_time() -> None:
    entrants = {name: (entrant(name), (name,)) for name in ("bruit", "other")}
    deaths = [work for work in WORKS if work.name == "detect-50"]
    assert [job.who for job in jobs.jobs_of(0, entrants, deaths)] == 2 * [("bruit", "other")]
    assert [job.who for job in jobs.jobs_of(1, entrants, deaths)] == 2 * [("other", "bruit")]


def test_a_sealed_variant_is_the_default_and_what_seals_it(monkeypatch: pytest.MonkeyPatch) -> None:
    about = {"name": "other", "sealed": "", "detects": True, "variants": {"default": "lan", "sealed": "AES-GCM"}}
    about.update(dict.fromkeys(("joined", "broadcast", "reliable", "best_effort", "request"), "yes"))
    monkeypatch.setattr(peers, "run", lambda *_, **__: json.dumps(about))
    found = peers.Program(("peer",), "1.0", "Rust", {}).entrants("other")
    plain, sealed = (found[name][0] for name in ("other", "other sealed"))
    assert (plain.sealed, plain.configuration) == ("", "lan")
    assert (sealed.sealed, sealed.configuration) == ("AES-GCM", "lan")
    suited = {work.name for work in WORKS if work.suits(sealed, is_default=False)}
    assert {"direct-reliable-256", "broadcast-50"} < suited and not {"busy", "start", "detect-50", "idle-100"} & suited


def test_a_program_that_hangs_is_ended() -> None:
    told = running.attempt(running.Run([sys.executable, "-c", "import time; time.sleep(60)"], limit=0.2))
    assert told == "no result after 0 s"


def test_a_program_that_dies_is_quoted() -> None:
    told = running.attempt(running.Run([sys.executable, "-c", "raise SystemExit('no port is free')"], limit=30))
    assert isinstance(told, str) and "no port is free" in told


MEMBER = """
import json, sys
print(json.dumps({"address": "here"}), flush=True)
others = [word for word in sys.argv if word.startswith("seed=")]
print(json.dumps({"live": 2 if others else 1}), flush=True)
sys.stdin.read()
"""


def test_a_cold_start_ends_with_the_first_member() -> None:
    figures = company.start([sys.executable, "-c", MEMBER], {})
    assert list(figures) == ["first_member_ms"] and figures["first_member_ms"] > 0


def test_who_lists_fewer_than_before_has_told_of_a_death() -> None:
    with company.Company([sys.executable, "-c", MEMBER]) as all_of_them:
        one = all_of_them.start(2)
        all_of_them.pump(lambda: one.live == 1)
        for live in (3, 1, 2):
            all_of_them.lines.put((0.0, one, {"live": live}))
        all_of_them.pump(lambda: one.live == 2)
        assert all_of_them.losses == 2


def test_members_on_a_busy_machine_are_beside_hogs_and_a_meter() -> None:
    options = {"nodes": 1.0, "settle": 0.5, "seconds": 0.2, "hogs": 1.0}
    figures = company.busy([sys.executable, "-c", MEMBER], options)
    assert figures["false_deaths"] == 0 and figures["longest_stall_s"] >= 0


def test_members_that_do_not_find_each_other_are_trouble() -> None:
    with pytest.raises(RuntimeError, match="did not find each other"):
        company.busy([sys.executable, "-c", MEMBER], {"nodes": 2.0, "settle": 0.1, "seconds": 0.1, "hogs": 1.0})


@pytest.mark.parametrize("stranger", [False, True])
def test_a_hog_has_the_session_it_should_and_ends_with_who_started_it(stranger: bool) -> None:
    words = f"import os, company; pid = company.hog({stranger}).pid; print(pid, os.getsid(pid))"
    folder = {**os.environ, "PYTHONPATH": str(pathlib.Path(company.__file__).parent)}
    done = subprocess.run([sys.executable, "-c", words], env=folder, capture_output=True, text=True, timeout=60, check=True)
    process, session = map(int, done.stdout.split())
    assert session == (process if stranger else os.getsid(0))
    end = time.monotonic() + 60
    while is_running(process) and time.monotonic() < end:
        time.sleep(0.01)
    assert not is_running(process)


def is_running(process: int) -> bool:
    """Who has ended and was not yet waited for does not run."""
    try:
        return pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_who_is_ended_leaves_no_program_behind() -> None:
    words = (
        "import running, sys; running.leave_nobody_behind()\n"
        "with running.Run([sys.executable, '-c', 'import time; time.sleep(600)'], 600) as run:\n"
        "    print(run.process.pid, flush=True)\n"
        "    run.figures()\n"
    )
    folder = {**os.environ, "PYTHONPATH": str(pathlib.Path(running.__file__).parent)}
    with subprocess.Popen([sys.executable, "-c", words], env=folder, stdout=subprocess.PIPE, text=True) as runner:
        assert runner.stdout is not None
        process = int(runner.stdout.readline())
        assert is_running(process)
        runner.terminate()
        assert runner.wait(60) == 128 + signal.SIGTERM
    assert not is_running(process)


def test_a_quick_run_has_no_variants_but_sealed_ones() -> None:
    flood = next(work for work in WORKS if work.name == "broadcast-10")
    tuned, sealed = entrant("other", variant="tuned"), entrant("other", variant="sealed")
    assert flood.suits(tuned, is_default=False) and not flood.in_quick().suits(tuned, is_default=False)
    assert flood.in_quick().suits(sealed, is_default=False)


def test_the_busy_machine_is_a_minute_of_each_round_in_a_full_run() -> None:
    work = next(work for work in WORKS if work.name == "busy")
    assert "seconds=20" in work.words and work.in_full().words[-1] == "seconds=60" and not work.once
    assert jobs.command_of(work.in_full(), ("peer",), "default")[-2:] == ("seconds=60", "peer")


def test_a_run_goes_on_where_it_was_interrupted() -> None:
    made = results(bruit=[], other=[])
    made.add("join-10", "bruit", {"seconds": 1})
    made.add("join-10", "other", "no result")
    made.add("idle-10", "bruit", {"packets": 1})
    entrants = {name: (entrant(name), (name,)) for name in ("bruit", "other")}
    works = [next(work for work in WORKS if work.name == name) for name in ("join-10", "idle-10")]
    both = [job for round_ in range(2) for job in jobs.jobs_of(round_, entrants, works)]
    left = [(job.work.name, job.who) for job in jobs.left_of(both, made)]
    assert left == [
        ("idle-10", ("other",)),
        ("join-10", ("other",)),
        ("join-10", ("bruit",)),
        ("idle-10", ("other", "bruit")),
    ]


def test_it_is_said_where_there_were_fewer_rounds() -> None:
    made = results(bruit=[], other=[])
    for name, trials in (("bruit", 3), ("other", 1)):
        for _ in range(trials):
            made.add("start", name, {"first_member_ms": 1})
    start = next(one for one in TABLES if one.title == "Cold start")
    assert table.fewer(made, start) == ["start: 1 of 3 trials by other"]
    made.add("start", "other", "no result")
    made.add("start", "other", "no result")
    assert table.fewer(made, start) == [] and table.notes(made, start) == ["other, start: 2 of 3 trials failed; no result"]


def test_a_loss_says_why() -> None:
    made = results(bruit=[(1, 1)], other=[(1, 1)])
    made.add("idle-10", "bruit", {"packets": 2})
    made.add("idle-10", "other", {"packets": 1})
    column = next(one for one in idle_columns(10) if one.figure == "packets")
    assert table.loss_text(made, column) == f"{column.what}: bruit 2.00, other 1.00. Why: {PROBES}"
    assert table.loss_text(made, replace(column, why="")) == f"{column.what}: bruit 2.00, other 1.00"


def test_of_what_is_rare_the_mean_counts() -> None:
    made = results(bruit=[(1, 1)], other=[(1, 1)])
    for deaths in (0, 0, 6):
        made.add("busy", "bruit", {"false_deaths": deaths, "longest_stall_s": 1})
        made.add("busy", "other", {"false_deaths": 0, "longest_stall_s": 1})
    busy = next(one for one in TABLES if one.title == "Busy machine")
    assert table.rows(made, busy) == [("bruit", ["2.00 (0–6.00)", "1.00"]), ("other", ["0", "1.00"])]
    assert table.verdict(made, busy)[0] == "bruit loses 1 of 1 columns:"


def test_nobody_loses_by_what_the_members_went_through() -> None:
    made = results(bruit=[(1, 1)], other=[(1, 1)])
    for name, stall in (("bruit", 1.5), ("other", 0.5)):
        made.add("busy", name, {"false_deaths": 0, "longest_stall_s": stall})
    busy = next(one for one in TABLES if one.title == "Busy machine")
    assert table.verdict(made, busy) == ["bruit loses no column of this table."] and table.compared(made, busy) == 1
    assert table.rows(made, busy) == [("bruit", ["0", "1.50"]), ("other", ["0", "0.500"])]
