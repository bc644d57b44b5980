//! Runs many seeds of the swarm: `make swarm SEEDS=n FIRST=first`. docs/SWARM.md says what it does.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use bruit_core::rng::mix;
use bruit_core::sim::swarm::{Coverage, Outcome, Plan, run_twice, shrink, transcript};

/// So many seeds must hit every coverage point.
const FULL: u64 = 400;

/// Runs that a failing schedule may take to shrink.
const EFFORT: usize = 400;

struct Options {
    seeds: u64,
    first: u64,
    /// Prints every coverage point.
    table: bool,
    keep_going: bool,
    /// Prints the run of the smallest schedule that fails.
    transcript: bool,
    /// Prints nothing but a hash over all runs.
    hash: bool,
}

fn options() -> Result<Options, String> {
    let mut options =
        Options { seeds: FULL, first: 0, table: false, keep_going: false, transcript: false, hash: false };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || args.next().and_then(|n| n.parse().ok()).ok_or(format!("{arg} needs a number"));
        match arg.as_str() {
            "--seeds" => options.seeds = number()?,
            "--first" => options.first = number()?,
            "--coverage" => options.table = true,
            "--keep-going" => options.keep_going = true,
            "--transcript" => options.transcript = true,
            "--hash" => (options.hash, options.keep_going) = (true, true),
            _ => {
                return Err(format!(
                    "{arg}? usage: swarm [--seeds n] [--first seed] [--coverage] [--keep-going] [--transcript] [--hash]"
                ));
            }
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(text) => {
            eprintln!("{text}");
            return ExitCode::from(2);
        }
    };
    // A panic is a failure like another: it is caught, and told with its seed.
    std::panic::set_hook(Box::new(|_| {}));
    let mut total = Total::default();
    let failed = run_all(&options, &mut total);
    if options.hash {
        println!("{:016x}", total.hash());
        return ExitCode::SUCCESS;
    }
    total.print(&options);
    for seed in &failed {
        explain(*seed, options.transcript);
    }
    let missed = total.coverage.missed();
    let vacuous = options.seeds >= FULL && !missed.is_empty();
    if vacuous {
        println!("never hit: {}", missed.join(", "));
    }
    if failed.is_empty() && !vacuous { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A seed's outcome, or what it panicked with.
fn attempt(plan: &Plan) -> Result<Outcome, String> {
    catch_unwind(AssertUnwindSafe(|| run_twice(plan))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|s| s.to_string())).unwrap_or_default()
    })
}

fn failure(plan: &Plan) -> Option<String> {
    match attempt(plan) {
        Ok(outcome) => outcome.violation.map(|v| v.to_string()),
        Err(panic) => Some(format!("panicked: {panic}")),
    }
}

/// All seeds, on all cores. Returns those that failed.
fn run_all(options: &Options, total: &mut Total) -> Vec<u64> {
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let (send, receive) = mpsc::channel();
    let began = Instant::now();
    let mut failed = Vec::new();
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, |n| n.get()) {
            let (send, next, stop) = (send.clone(), &next, &stop);
            scope.spawn(move || {
                while !stop.load(Relaxed) {
                    let i = next.fetch_add(1, Relaxed);
                    if i >= options.seeds {
                        return;
                    }
                    let plan = Plan::draw(options.first + i);
                    if send.send((plan.seed, attempt(&plan))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(send);
        let mut told = Instant::now();
        for (seed, result) in receive {
            let failure = total.add(seed, result);
            if let Some(text) = failure {
                if !options.hash {
                    println!("seed {seed}: {text}");
                }
                failed.push(seed);
                stop.store(!options.keep_going, Relaxed);
            }
            if told.elapsed() >= Duration::from_secs(5) && !options.hash {
                told = Instant::now();
                let done = total.done;
                let left = began.elapsed().mul_f64((options.seeds - done.min(options.seeds)) as f64 / done as f64);
                println!(
                    "{done} of {} seeds, {} failed, {:.0} s left",
                    options.seeds,
                    failed.len(),
                    left.as_secs_f64()
                );
            }
        }
    });
    failed.sort_unstable();
    failed
}

#[derive(Default)]
struct Total {
    done: u64,
    traces: BTreeMap<u64, u64>,
    coverage: Coverage,
    steps: u64,
    simulated: Duration,
    /// The slowest agreement, as a share of its bound: (share, seed).
    slowest: (f64, u64),
    /// The most packets in a second and for each node: (packets, seed).
    busiest: (u64, u64),
    rules: BTreeMap<&'static str, u64>,
}

impl Total {
    /// Why it failed, if it did.
    fn add(&mut self, seed: u64, result: Result<Outcome, String>) -> Option<String> {
        self.done += 1;
        let outcome = match result {
            Ok(outcome) => outcome,
            Err(panic) => {
                *self.rules.entry("panic").or_default() += 1;
                return Some(format!("panicked: {panic}"));
            }
        };
        self.traces.insert(seed, outcome.trace);
        self.coverage.add(&outcome.coverage);
        self.steps += outcome.steps;
        self.simulated += outcome.simulated;
        self.busiest = self.busiest.max((outcome.busiest, seed));
        if let Some((took, bound)) = outcome.agreed {
            let share = took.as_secs_f64() / bound.as_secs_f64();
            self.slowest = if share > self.slowest.0 { (share, seed) } else { self.slowest };
        }
        if let Some(violation) = outcome.violation {
            *self.rules.entry(violation.rule.name()).or_default() += 1;
            return Some(violation.to_string());
        }
        None
    }

    /// Over all runs, whatever came of them: the same in every build and on every machine.
    fn hash(&self) -> u64 {
        self.traces.iter().fold(0, |hash, (seed, trace)| mix(mix(hash ^ seed) ^ trace))
    }

    fn print(&self, options: &Options) {
        if options.table {
            for (name, seeds, exempt) in self.coverage.table() {
                let why = exempt.map_or(String::new(), |why| format!("  cannot: {why}"));
                println!("{seeds:>8} {name}{why}");
            }
        }
        let (share, seed) = self.slowest;
        println!(
            "{} seeds passed, {} steps, {:.1} h simulated; slowest agreement {:.0} % of its bound (seed {seed}); traces {:016x}",
            self.done - self.rules.values().sum::<u64>(),
            self.steps,
            self.simulated.as_secs_f64() / 3600.0,
            share * 100.0,
            self.hash(),
        );
        println!("busiest second: {} packets for each node (seed {})", self.busiest.0, self.busiest.1);
        for (rule, n) in &self.rules {
            println!("{n} broke: {rule}");
        }
    }
}

/// All that is needed to look into a failure.
fn explain(seed: u64, as_text: bool) {
    let plan = Plan::draw(seed);
    let commit = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok();
    let commit = commit.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_string()).filter(|c| !c.is_empty());
    println!("\nseed {seed}, commit {}:\n{plan}", commit.as_deref().unwrap_or("unknown"));
    println!("fails: {}", failure(&plan).unwrap_or_else(|| "not any more".into()));
    println!("again: make swarm SEEDS=1 FIRST={seed}");
    let least = shrink(&plan, EFFORT, &mut |plan| failure(plan).is_some());
    println!("\nshrunk to:\n{least}");
    println!("fails: {}", failure(&least).unwrap_or_else(|| "not any more".into()));
    if as_text {
        println!("{}", transcript(&least));
    }
}
