//! The papers' experiments in the simulated world: each paper's own algorithm first, then ours on the same seeds.
//!
//!     cargo bench --package bruit-core --features sim --bench papers -- [full] [experiment…]
//!
//! All of it is virtual time and fixed seeds: the figures are the same on every machine, but for those of `speed`.
//! `BRUIT_UPDATE=1` accepts this run's figures as those that the next one must not fall behind.

#[path = "../report/mod.rs"]
mod report;

mod anomaly;
mod herd;
mod lab;
mod lifeguard;
mod model;
mod partial;
mod phi;
mod rapid;
mod rumor;
mod speed;
mod sweep;
mod swim;
mod table;
mod tree;

use std::process::ExitCode;

use lab::Size;
use table::{Last, Slack, Table, Verdict};

/// By name.
type Experiment = (&'static str, fn(Size) -> Table);

const EXPERIMENTS: &[Experiment] = &[
    ("swim-formulas", swim::formulas),
    ("swim-load", swim::load),
    ("swim-first-ping", swim::first_ping),
    ("swim-joins", swim::joins),
    ("rapid-faults", rapid::faults),
    ("rapid-crashes", rapid::crashes),
    ("herd", herd::herd),
    ("lifeguard-latency", lifeguard::latency),
    ("lifeguard", lifeguard::false_positives),
    ("phi", phi::accrual),
    ("rumor", rumor::rounds),
    ("tree", tree::stable),
    ("tree-failures", tree::failures),
    ("partial", partial::views),
    ("partial-failures", partial::failures),
    ("speed", speed::speed),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    if let Some(("sweep", rest)) = args.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        sweep::sweep(rest);
        return ExitCode::SUCCESS;
    }
    let size = if args.iter().any(|arg| arg == "full") { Size::Full } else { Size::Short };
    let wanted: Vec<&String> = args.iter().filter(|arg| *arg != "full").collect();
    if let Some(unknown) = wanted.iter().find(|name| EXPERIMENTS.iter().all(|(known, _)| known != **name)) {
        let known: Vec<&str> = EXPERIMENTS.iter().map(|e| e.0).collect();
        eprintln!("{unknown}: no such experiment; there are full, {}", known.join(", "));
        return ExitCode::FAILURE;
    }
    let update = std::env::var("BRUIT_UPDATE").is_ok_and(|v| v == "1");
    let mut last = Last::read(size.name());
    let (mut failures, mut short, mut tables) = (Vec::new(), 0, Vec::new());
    for (name, run) in EXPERIMENTS.iter().filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|w| w == name)) {
        let began = std::time::Instant::now();
        let table = run(size);
        assert_eq!(table.name, *name, "asked for and printed by one name");
        let verdicts: Vec<Verdict> = table.rows.iter().map(|row| row.verdict(last.of(&table, row))).collect();
        println!("## {name}\n\n{}\n\n{}", table.about, table.text(&verdicts));
        eprintln!("({name}: {:.1} s)\n", began.elapsed().as_secs_f64());
        for (row, verdict) in table.rows.iter().zip(&verdicts) {
            match verdict {
                Verdict::Reached => {}
                // A slow machine is no failure.
                Verdict::FallsShort => short += usize::from(matches!(row.slack, Slack::By(_))),
                Verdict::NoLast | Verdict::BehindLast(_) if update => {}
                failure => failures.push(format!("{name}: {}: {failure:?}", row.what)),
            }
        }
        if !update {
            let missing = last.missing(&table).into_iter();
            failures.extend(missing.map(|what| format!("{name}: {what}: no longer measured")));
        }
        tables.push(table);
    }
    if update {
        last.update(&tables);
        if size == Size::Full {
            table::write_down(&tables, &last);
        }
    }
    for failure in &failures {
        println!("failed: {failure}");
    }
    println!("{} failed, {short} fall short of what we reach for", failures.len());
    match failures.is_empty() && (short == 0 || size == Size::Short) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
