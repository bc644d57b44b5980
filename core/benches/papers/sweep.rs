//! The levers of failure detection, swept: how soon the dead are found, how often the living are called dead, what it
//! costs. One line of CSV a configuration; `bench/tuning.py` draws it, docs/TUNING.md says what was chosen.
//!
//!     cargo bench --package bruit-core --features sim --bench papers -- sweep PROFILE [lines | front POINTS | OPTION=VALUE,… …] > FILE
//!
//! `lines` varies one lever at a time from the profile's defaults, `front` draws all of them by lot. Fifty members that all
//! know each other; times are in periods where a profile's period is not 1 s. Virtual time and fixed seeds.

use std::fmt::Write as _;

use bruit_core::config::{Config, Profile};
use bruit_core::rng::Rng;
use bruit_core::sim::{Delay, Duration, Loss, Network, NodeIndex, World};
use bruit_core::view::EventKind;

use super::anomaly::{Fault, Trial};
use super::lab::{each, quantile};

const MEMBERS: usize = 50;

/// Each lever with the values it is given.
const LEVERS: &[(&str, &[f64], Kind)] = &[
    ("probe_timeout", &[0.15, 0.5, 0.7], Kind::Periods),
    ("probe_timeout_min", &[0.05, 0.2], Kind::Periods),
    ("suspicion_mult", &[0.5, 0.7, 1.5, 2.0, 4.0], Kind::Plain),
    ("suspicion_max_mult", &[1.0, 2.0, 6.0], Kind::Plain),
    ("suspicion_confirmations", &[0.0, 1.0, 2.0, 5.0], Kind::Whole),
    ("suspicion_probes", &[0.0, 2.0, 8.0], Kind::Whole),
    ("indirect_checks", &[1.0, 2.0, 5.0], Kind::Whole),
    ("local_health_max", &[0.0, 2.0, 4.0], Kind::Whole),
    ("gossip_interval", &[0.05, 0.15, 0.2, 0.4], Kind::Periods),
    ("gossip_fanout", &[2.0, 4.0], Kind::Whole),
    ("retransmit_mult", &[2.0, 3.0, 6.0, 8.0], Kind::Whole),
    ("probe_order", &[1.0], Kind::Order),
];

#[derive(Clone, Copy)]
enum Kind {
    /// Of the profile's `probe_interval`.
    Periods,
    Plain,
    Whole,
    Order,
}

fn text(kind: Kind, value: f64, period: Duration) -> String {
    match kind {
        Kind::Periods => format!("{}us", (period.as_micros() as f64 * value).round()),
        Kind::Plain => format!("{value:.3}"),
        Kind::Whole => format!("{value:.0}"),
        Kind::Order => if value == 0.0 { "permutation" } else { "robin" }.to_owned(),
    }
}

/// Where a profile is used.
fn network(profile: Profile) -> Network {
    let us = Duration::from_micros;
    let delay = match profile {
        Profile::Local => Delay::Uniform { least: us(20), most: us(100) },
        Profile::Lan => Delay::Uniform { least: us(200), most: us(2_000) },
        Profile::Wan => Delay::LogNormal { median: us(80_000), factor: 1.5 },
    };
    let loss = match profile {
        // A percent and a half, half of it in bursts of ten.
        Profile::Wan => Loss::Bursts { begin: 0.0015, end: 0.1, good: 0.0075, bad: 0.5 },
        Profile::Lan | Profile::Local => Loss::Iid(0.0),
    };
    Network { delay, loss, ..Network::default() }
}

/// What is measured of one configuration. Times in periods.
#[derive(Default)]
struct Measured {
    columns: Vec<(&'static str, f64)>,
}

/// Crashes, one after another: until the first, and all others, say DEAD.
fn crashes(config: &Config, network: Network, seed: u64) -> Vec<(f64, f64)> {
    let period = config.probe_interval;
    let mut world = World::new(seed);
    world.set_network(network).expect("probabilities");
    let mut nodes: Vec<NodeIndex> = (0..MEMBERS).map(|i| world.add(&format!("n{i}"), config.clone())).collect();
    world.acquaint(&nodes);
    world.run_for(period * 10);
    let mut times = Vec::new();
    let mut rng = Rng::new(seed);
    for _ in 0..8 {
        world.run_for(period * 2 + period * rng.below(1_000) as u32 / 1_000);
        let victim = nodes.swap_remove(rng.index(nodes.len()));
        let died = world.now().mono;
        world.power_off(victim);
        let mut first = f64::NAN;
        let all = world.run_until(period * 120, |w| {
            let told = nodes.iter().filter(|&&i| w.count(i, EventKind::Dead, victim) > 0).count();
            if told > 0 && first.is_nan() {
                first = w.now().mono.since(died).as_secs_f64() / period.as_secs_f64();
            }
            told == nodes.len()
        });
        times.push((first, all.map_or(f64::INFINITY, |d| d.as_secs_f64() / period.as_secs_f64())));
    }
    times
}

/// What one configuration is put through: a name, and how many runs of a trial.
fn stress(config: &Config, network: Network) -> Vec<(&'static str, Vec<Trial>)> {
    let period = config.probe_interval;
    let trial = |fault, anomalous, lasts: f64, between: f64, seed| Trial {
        config: config.clone(),
        network,
        members: MEMBERS,
        fault,
        memberlist: None,
        anomalous,
        lasts: period.mul_f64(lasts),
        between: Some(period.mul_f64(between)),
        watch: period * 60,
        seed,
    };
    let grid = |fault| {
        let mut trials = Vec::new();
        for (k, &c) in [1, 4, 8, 16].iter().enumerate() {
            for (l, &d) in [0.5, 2.0, 8.0, 33.0].iter().enumerate() {
                for (m, &i) in [0.001, 0.064, 1.0, 4.0].iter().enumerate() {
                    if (k + l + m) % 2 == 0 {
                        trials.push(trial(fault, c, d, i, (k * 16 + l * 4 + m) as u64));
                    }
                }
            }
        }
        trials
    };
    let lossy = |loss| {
        let worse = Network { loss, ..network };
        (0..2).map(|seed| Trial { network: worse, ..trial(Fault::None, 0, 60.0, 1.0, 900 + seed) }).collect()
    };
    let slow = |ms| Fault::Slow(Duration::from_secs_f64(ms / 1_000.0 * period.as_secs_f64()));
    let slowed =
        [5.0, 20.0, 60.0].iter().enumerate().map(|(k, &of)| trial(slow(of), 8, 60.0, 5.0, 70 + k as u64)).collect();
    vec![
        ("blocked", grid(Fault::Block)),
        ("stopped", grid(Fault::Pause)),
        ("loss10", lossy(Loss::Iid(0.1))),
        ("loss20", lossy(Loss::Iid(0.2))),
        ("loss30", lossy(Loss::Iid(0.3))),
        // A quarter of all, in bursts of twenty datagrams of a path.
        ("bursts", lossy(Loss::Bursts { begin: 0.0167, end: 0.05, good: 0.0, bad: 1.0 })),
        ("slow", slowed),
    ]
}

fn measure(config: &Config, network: Network) -> Measured {
    let mut columns = Vec::new();
    let mut times: Vec<(f64, f64)> = (0..4).flat_map(|seed| crashes(config, network, 40 + seed)).collect();
    let mut first: Vec<f64> = times.iter().map(|t| t.0).collect();
    let mut all: Vec<f64> = times.drain(..).map(|t| t.1).collect();
    columns.push(("first_p50", quantile(&mut first, 0.5)));
    columns.push(("first_max", quantile(&mut first, 1.0)));
    columns.push(("all_p50", quantile(&mut all, 0.5)));
    columns.push(("all_max", quantile(&mut all, 1.0)));
    let (mut dead, mut hours) = (0.0, 0.0);
    for (name, trials) in stress(config, network) {
        let (mut fp, mut outside, mut suspects, mut time, mut bytes, mut packets) = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0);
        for trial in &trials {
            let o = trial.run();
            let (of, s) = (MEMBERS as f64, o.seconds / config.probe_interval.as_secs_f64());
            fp += o.false_dead as f64;
            outside += o.false_dead_outside as f64;
            suspects += o.false_suspect as f64;
            time += s * of;
            bytes += o.bytes as f64;
            packets += o.packets as f64;
        }
        let names: [&'static str; 5] = match name {
            "blocked" => ["blocked_fp", "blocked_fp_outside", "blocked_suspects", "blocked_bytes", "blocked_packets"],
            "stopped" => ["stopped_fp", "stopped_fp_outside", "stopped_suspects", "stopped_bytes", "stopped_packets"],
            "loss10" => ["loss10_fp", "loss10_fp_outside", "loss10_suspects", "loss10_bytes", "loss10_packets"],
            "loss20" => ["loss20_fp", "loss20_fp_outside", "loss20_suspects", "loss20_bytes", "loss20_packets"],
            "loss30" => ["loss30_fp", "loss30_fp_outside", "loss30_suspects", "loss30_bytes", "loss30_packets"],
            "bursts" => ["bursts_fp", "bursts_fp_outside", "bursts_suspects", "bursts_bytes", "bursts_packets"],
            _ => ["slow_fp", "slow_fp_outside", "slow_suspects", "slow_bytes", "slow_packets"],
        };
        // An hour of one member has 3,600 periods, whatever they are.
        let per_hour = 3_600.0 / time;
        dead += fp;
        hours += time / 3_600.0;
        let values = [fp * per_hour, outside * per_hour, suspects * per_hour, bytes / time, packets / time];
        columns.extend(names.into_iter().zip(values));
    }
    columns.push(("false_dead", dead / hours));
    let mut world = World::new(3);
    world.set_network(network).expect("probabilities");
    let nodes: Vec<NodeIndex> = (0..MEMBERS).map(|i| world.add(&format!("n{i}"), config.clone())).collect();
    world.acquaint(&nodes);
    world.run_for(config.probe_interval * 10);
    let before = world.traffic().all_bytes();
    world.run_for(config.probe_interval * 60);
    columns.push(("idle_bytes", (world.traffic().all_bytes() - before) as f64 / 60.0 / MEMBERS as f64));
    Measured { columns }
}

/// The profile's defaults with these options changed; `None` where they do not fit together.
fn configured(profile: &str, options: &[(String, String)]) -> Option<Config> {
    let mut config = Config::new();
    config.insecure_plaintext = true;
    config.set("profile", profile).expect("a profile");
    for (key, value) in options {
        config.set(key, value).ok()?;
    }
    if config.probe_timeout_min > config.probe_timeout {
        config.probe_timeout_min = config.probe_timeout;
    }
    config.gossip_flush = config.gossip_flush.min(config.gossip_interval);
    config.validate().ok()?;
    Some(config)
}

fn points(profile: &str, words: &[String]) -> Vec<Vec<(String, String)>> {
    let period = configured(profile, &[]).expect("the defaults").probe_interval;
    match words.first().map(String::as_str) {
        None | Some("lines") => {
            let mut points = vec![Vec::new()];
            for (key, values, kind) in LEVERS {
                points.extend(values.iter().map(|&v| vec![((*key).to_owned(), text(*kind, v, period))]));
            }
            points
        }
        Some("front") => {
            let n: usize = words.get(1).and_then(|n| n.parse().ok()).unwrap_or(100);
            let mut rng = Rng::new(1);
            let mut points = Vec::new();
            while points.len() < n {
                let point: Vec<(String, String)> = LEVERS
                    .iter()
                    .map(|(key, values, kind)| {
                        ((*key).to_owned(), text(*kind, values[rng.index(values.len())], period))
                    })
                    .collect();
                if configured(profile, &point).is_some() {
                    points.push(point);
                }
            }
            points
        }
        Some(_) => words
            .iter()
            .map(|word| {
                let pairs = word.split(',').filter_map(|pair| pair.split_once('='));
                pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
            })
            .collect(),
    }
}

pub fn sweep(args: &[String]) {
    let (profile, words) = args.split_first().expect("a profile: lan, wan or local");
    let points = points(profile, words);
    let results = each(points.len(), |k| {
        let config = configured(profile, &points[k])?;
        let measured = measure(&config, network(config.profile));
        eprintln!("{} of {}", k + 1, points.len());
        Some((config, measured))
    });
    let mut heading = true;
    for (point, result) in points.iter().zip(results) {
        let Some((config, measured)) = result else { continue };
        if heading {
            let names: Vec<&str> = measured.columns.iter().map(|c| c.0).collect();
            let levers: Vec<&str> = LEVERS.iter().map(|l| l.0).collect();
            println!("changed,{},{}", levers.join(","), names.join(","));
            heading = false;
        }
        let changed: Vec<String> = point.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let mut line = if point.len() > 6 { String::new() } else { changed.join(" ") };
        for (key, _, _) in LEVERS {
            write!(line, ",{}", config.get(key).expect("an option")).expect("into a string");
        }
        for (_, value) in &measured.columns {
            write!(line, ",{value:.5}").expect("into a string");
        }
        println!("{line}");
    }
}
