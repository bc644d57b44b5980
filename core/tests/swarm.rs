//! Random clusters with random faults, held to what must hold: the first seeds of `make swarm`.

#![cfg(feature = "sim")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use bruit_core::engine::Mutant;
use bruit_core::sim::check::Rule;
use bruit_core::sim::swarm::{Coverage, Outcome, Plan, run_twice, run_with};

/// All that have to do with each other in one place: the seeds that together must meet everything.
const SEEDS: u64 = 300;

/// Every seed's outcome, by all cores.
fn outcomes(seeds: u64) -> Vec<Outcome> {
    let next = AtomicU64::new(0);
    let worker = || {
        let mine = std::iter::from_fn(|| Some(next.fetch_add(1, Ordering::Relaxed)).filter(|&seed| seed < seeds));
        mine.map(|seed| run_twice(&Plan::draw(seed))).collect::<Vec<_>>()
    };
    let cores = thread::available_parallelism().map_or(1, |n| n.get());
    thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a seed panicked: see above")).collect()
    })
}

#[test]
fn whatever_happens_what_must_hold_holds_and_everything_happens() {
    let mut coverage = Coverage::default();
    let mut failed = Vec::new();
    for outcome in outcomes(SEEDS) {
        coverage.add(&outcome.coverage);
        if let Some(violation) = outcome.violation {
            failed.push(format!("seed {}: {violation}\n  make swarm SEEDS=1 FIRST={}", outcome.seed, outcome.seed));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(coverage.missed().is_empty(), "never hit: {}", coverage.missed().join(", "));
}

/// Each broken rule, and which checks may notice it first.
const CAUGHT_BY: [(Mutant, &[Rule]); 17] = [
    (Mutant::DeadReturn, &[Rule::Transition]),
    (Mutant::LeftReturn, &[Rule::Transition]),
    (Mutant::Hasty, &[Rule::Transition]),
    (Mutant::Forgetful, &[Rule::Monotone]),
    (Mutant::Usurper, &[Rule::Owner]),
    (Mutant::Dreamer, &[Rule::Foreign]),
    (Mutant::Gullible, &[Rule::Own]),
    (Mutant::Resigned, &[Rule::Agreement, Rule::FalseDeath]),
    (Mutant::Secretive, &[Rule::Story]),
    (Mutant::Hoarder, &[Rule::Memory]),
    (Mutant::Babbler, &[Rule::Traffic]),
    (Mutant::Incurious, &[Rule::Agreement]),
    (Mutant::Nervous, &[Rule::Peace]),
    (Mutant::Parrot, &[Rule::Once]),
    (Mutant::Careless, &[Rule::Delivered]),
    (Mutant::Stammerer, &[Rule::Mail]),
    (Mutant::Credulous, &[Rule::Polls]),
];

#[test]
fn every_rule_that_is_broken_is_noticed_by_the_check_that_is_there_for_it() {
    assert_eq!(CAUGHT_BY.len(), Mutant::ALL.len());
    for (mutant, rules) in CAUGHT_BY {
        let noticed = (0..100).find_map(|seed| run_with(&Plan::draw(seed), Some(mutant)).violation.map(|v| (seed, v)));
        let (seed, violation) = noticed.unwrap_or_else(|| panic!("nobody notices {mutant:?}"));
        assert!(rules.contains(&violation.rule), "{mutant:?}, seed {seed}: {violation}");
    }
}
