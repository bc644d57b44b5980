//! Scenarios, trials and reports: what they say is what happened.

#![cfg(feature = "sim")]

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bruit_core::error::Code;
use bruit_core::sim::{Report, Run, Scenario, compare};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn scenario(text: &str) -> Scenario {
    Scenario::parse(text).unwrap()
}

fn run(text: &str, trials: usize) -> Report {
    scenario(text).run(&Run { trials: Some(trials), jobs: 2, ..Run::default() }).unwrap()
}

#[track_caller]
fn mean(report: &Report, measure: &str) -> f64 {
    let spread = report.measure(measure).unwrap_or_else(|| panic!("{measure} in\n{report}"));
    spread.mean.unwrap_or_else(|| panic!("{measure} in\n{report}"))
}

#[test]
fn a_seed_is_a_trial_however_many_run_at_once() {
    let scenario = scenario("nodes = 12\nloss = 0.1\n[phase a]\nfor = 5s\ntell = 2\nkill = 1\nupdates = 5");
    let run = |jobs, seed| scenario.run(&Run { trials: Some(4), seed: Some(seed), jobs, ..Run::default() }).unwrap();
    let (one, two) = (run(1, 7), run(2, 7));
    assert_eq!(one, two);
    assert_eq!(one.to_json(), two.to_json());
    let later = run(1, 8);
    assert_eq!(one.trials[1..], later.trials[..3], "trial t has seed + t");
    assert!(one.trials.windows(2).all(|pair| pair[0].trace != pair[1].trace));
}

#[test]
fn what_is_told_reaches_all_and_the_report_says_when() {
    let report = run("nodes = 50\n[phase calm]\nfor = 5s\n[phase news]\nfor = 10s\ntell = 1\nuntil = reach 1", 5);
    assert_eq!(report.success_rate(), 1.0);
    for trial in &report.trials {
        let [tell] = &trial.tells[..] else { panic!("{:?}", trial.tells) };
        assert_eq!((tell.known.len(), tell.unknown.len()), (49, 0));
        assert!(tell.known.windows(2).all(|pair| pair[0].1 <= pair[1].1));
        assert_eq!(tell.reached(1.0), tell.known.last().map(|(_, at)| *at));
        assert!(trial.phases.last().unwrap().took >= tell.reached(1.0).unwrap());
    }
    report.assert_reaches(1.0, ms(500)).unwrap();
    let late = report.assert_reaches(1.0, ms(1)).unwrap_err();
    assert!(late.code == Code::Timeout && late.text.starts_with("seed 1: what n"), "{late}");
    assert!(mean(&report, "reach 50 %") < mean(&report, "reach 100 %"));
    assert!(mean(&report, "rounds to 100 %") >= 1.0);
}

#[test]
fn a_crash_is_noticed_and_nobody_else_is_blamed() {
    let report = run("nodes = 20\nloss = 0.05\n[phase calm]\nfor = 5s\n[phase crash]\nkill = 2\nuntil = agree", 5);
    assert_eq!(report.success_rate(), 1.0, "{report}");
    for detection in report.trials.iter().flat_map(|trial| &trial.detections) {
        assert_eq!((detection.fault, detection.knew, detection.of), ("kill", detection.of, 18));
        assert!(detection.suspected <= detection.first && detection.first <= detection.all);
    }
    assert_eq!(report.measure("kill: all know").unwrap().n, 10, "two of each trial");
    assert!(mean(&report, "kill: all know") < 5_000.0);
    assert_eq!(mean(&report, "false deaths"), 0.0);
    assert!(report.trials.iter().all(|trial| trial.phases.iter().map(|p| &*p.name).eq(["form", "calm", "crash"])));
}

#[test]
fn a_frozen_process_counts_as_found_and_not_as_slandered() {
    let report =
        run("nodes = 10\n[phase a]\nfor = 5s\n[phase frozen]\nfor = 20s\npause = 1\n[phase back]\nuntil = agree", 3);
    assert_eq!(report.success_rate(), 1.0);
    assert_eq!(report.measure("pause: all know").unwrap().missing, 0);
    assert_eq!((mean(&report, "false deaths"), mean(&report, "false suspicions")), (0.0, 0.0));
}

#[test]
fn what_does_not_come_true_fails_the_trial_and_is_never() {
    let report = run(
        "nodes = 6\nform = 0\n[phase apart]\nfor = 30s\npartition = 50%\nuntil = agree\n[phase after]\nfor = 1s",
        2,
    );
    assert_eq!(report.success_rate(), 0.0);
    for trial in &report.trials {
        assert_eq!(trial.failed.as_deref(), Some("apart"));
        assert!(trial.phases.iter().all(|passed| passed.name != "after"), "the trial ended");
    }
    let apart = report.measure("apart").unwrap();
    assert_eq!((apart.n, apart.missing, apart.mean, apart.p50), (2, 2, None, None));
    assert!(report.to_string().contains("never"));
    let report = run("nodes = 3\ntopology = none\nform = 5s", 1);
    assert_eq!(report.trials[0].failed.as_deref(), Some("form"), "nobody knows anybody");
}

#[test]
fn news_outlives_a_partition() {
    let text = "nodes = 20\n[phase calm]\nfor = 3s\n[phase apart]\nfor = 1s\npartition = 50%\ntell = 1\n\
                [phase healed]\nuntil = reach 1";
    let report = run(text, 5);
    assert_eq!(report.success_rate(), 1.0, "{report}");
    assert!(report.measure("reach 50 %").unwrap().max < Some(1_000.0));
    assert!(report.measure("reach 100 %").unwrap().min > Some(1_000.0), "not before it healed");
}

#[test]
fn every_topology_becomes_one_cluster() {
    for topology in ["full", "one", "star", "line", "ring", "random 2"] {
        let report = run(&format!("nodes = 15\ntopology = {topology}\nform = 90s"), 3);
        assert_eq!(report.success_rate(), 1.0, "{topology}: {report}");
        let alone = run(&format!("nodes = 1\ntopology = {topology}\nform = 5s"), 1);
        assert_eq!(alone.success_rate(), 1.0, "{topology}");
    }
}

/// In one trial each, whatever it is; then all is well again.
#[test]
fn every_fault_ends_with_its_phase() {
    for fault in [
        "kill = 2",
        "power_off = 20%",
        "pause = n3, n4",
        "block = 1",
        "slow = 2 200ms",
        "ingress_loss = 2 1",
        "egress_loss = 2 bursts 0.3 0.3 0 1",
        "flip_flop = 1 2s 1s",
        "cut = 1 > all",
        "cut = n1 > n2",
        "partition = 30%",
        "partition = 30% | 30%",
        "join = 3",
        "leave = 2",
        "restart = n5",
        "loss = 0.9",
        "delay = exponential 10ms 100ms",
        "udp_blocked = true",
        "duplicate = 0.5",
    ] {
        let text = format!(
            "nodes = 10\nseed = 5\n[phase calm]\nfor = 3s\n[phase trouble]\nfor = 12s\n{fault}\n\
             [phase after]\nfor = 5s\nrestart = all\n[phase well]\nfor = 120s\nuntil = agree\n[phase told]\ntell = 1\nuntil = reach 1"
        );
        let report = run(&text, 1);
        assert_eq!(report.success_rate(), 1.0, "{fault}: {report}");
    }
}

#[test]
fn tables_go_stale_where_news_cannot_come_and_are_mended() {
    let text = "nodes = 16\nsample = 500ms\n[phase calm]\nfor = 5s\nupdates = 10\n\
                [phase apart]\nfor = 20s\nupdates = 10\npartition = 50%\n[phase well]\nfor = 60s\nuntil = agree\n[phase calm again]\nfor = 5s";
    let report = run(text, 2);
    for trial in &report.trials {
        let at = |s: u64| trial.staleness.iter().find(|sample| sample.at >= Duration::from_secs(s)).unwrap();
        assert_eq!(at(4).members, 0.0);
        assert!(at(4).meta < 0.1 && at(4).age < 0.1, "{:?}", at(4));
        assert!(at(24).members > 0.4, "half of the cluster counts the other half as dead: {:?}", at(24));
        let last = trial.staleness.last().unwrap();
        assert_eq!((last.members, last.meta, last.age), (0.0, 0.0, 0.0));
    }
    assert_eq!(mean(&report, "false deaths"), 0.0, "who is cut off is not slandered");
}

#[test]
fn runs_stand_side_by_side_with_their_ratios() {
    let few = run("nodes = 10\n[phase a]\nfor = 10s\ntell = 1", 2);
    let many = run("nodes = 40\n[phase a]\nfor = 10s\ntell = 1\nkill = 1", 2);
    let comparison = compare(&[("few", &few), ("many", &many)]);
    let row = |measure: &str, statistic: &str| {
        comparison.rows.iter().find(|row| row.measure == measure && row.statistic == statistic).unwrap()
    };
    let reach = row("reach 100 %", "mean");
    let [a, b] = [&few, &many].map(|report| mean(report, "reach 100 %"));
    assert_eq!(reach.values, [Some(a), Some(b)]);
    assert_eq!(reach.ratios, [Some(1.0), Some(b / a)]);
    assert_eq!(row("kill: first dead", "mean").values[0], None, "nobody was killed there");
    assert!(row("PING packets", "mean").values.iter().all(|value| value.is_some_and(|v| (0.5..1.5).contains(&v))));
    let text = comparison.to_string();
    assert!(text.contains("few") && text.contains("(x"), "{text}");
}

#[test]
fn a_run_can_be_stopped() {
    let (stop, done) = (AtomicBool::new(true), AtomicUsize::new(0));
    let scenario = scenario("nodes = 30\n[phase a]\nfor = 1h");
    let e = scenario.run(&Run { stop: Some(&stop), done: Some(&done), ..Run::default() }).unwrap_err();
    assert_eq!((e.code, done.load(Ordering::Relaxed)), (Code::Canceled, 0));
}

/// What the documentation shows: each does what it says, in a small version.
#[test]
fn the_scenarios_that_come_along_succeed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/sim");
    let mut seen = 0;
    for file in std::fs::read_dir(&folder).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|e| e != "scn") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let mut scenario = Scenario::parse(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(!scenario.title.is_empty(), "{}", path.display());
        scenario.nodes = scenario.nodes.min(40);
        let report = scenario.run(&Run { trials: Some(2), jobs: 2, ..Run::default() }).unwrap();
        assert_eq!(report.success_rate(), 1.0, "{}: {report}", path.display());
        seen += 1;
    }
    assert!(seen >= 4, "{seen}");
}

/// `make sim`, as far as it is ours.
#[test]
fn the_shell_runs_files_and_options_and_writes_json() {
    let sim = |words: &[&str]| {
        let cargo = ["run", "--quiet", "--package", "bruit-core", "--features", "sim", "--example", "sim", "--"];
        let done = std::process::Command::new(env!("CARGO")).args(cargo).args(words).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (done.status.code(), text(done.stdout), text(done.stderr))
    };
    let (code, out, errors) = sim(&["nodes=8", "loss=0.1", "kill=1", "until=agree", "trials=2", "jobs=1"]);
    assert_eq!((code, &*errors), (Some(0), ""));
    assert!(out.starts_with("options: 8 nodes, 2 trials from seed 1, 100 % succeeded"), "{out}");

    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/sim");
    let file = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let json = std::env::temp_dir().join(format!("bruit-sim-{}.json", std::process::id()));
    let to = format!("json={}", json.display());
    let (code, out, errors) = sim(&[&file("rumor.scn"), &file("loss.scn"), "nodes=10", "trials=1", "seed=9", &to]);
    assert_eq!((code, &*errors), (Some(0), ""));
    assert!(out.contains("a rumor at 30 % loss: 10 nodes, 1 trials from seed 9") && out.contains(" (x"), "{out}");
    let written = std::fs::read_to_string(&json).unwrap();
    std::fs::remove_file(&json).unwrap();
    assert!(
        written.starts_with("{\"comparison\":{\"runs\":[\"rumor\",\"loss\"]")
            && written.contains("\"loss\":{\"title\"")
    );

    let (code, out, _) = sim(&["nodes=2", "topology=none", "form=2s", "trials=1"]);
    assert!(code == Some(1) && out.contains("seed 1 failed in phase \"form\""), "{out}");
    for (words, expected) in [
        (&["nodes=0"][..], "nodes = 0"),
        (&["lost=0.1"], "is \"loss\" meant?"),
        (&["nothing.scn"], "nothing.scn"),
        (&[&file("crash.scn"), "kill=1"], "belongs into a phase"),
        (&[&file("crash.scn"), "nodes=2"], "3 nodes: there are 2"),
        (&[], "expected scenario files"),
    ] {
        let (code, _, errors) = sim(words);
        assert!(code == Some(2) && errors.contains(expected), "{words:?}: {errors}");
    }
}
