//! SWIM (Das, Gupta, Motivala, DSN 2002): what it costs, how soon a crash is met, and who stays where a tenth is lost.

use std::sync::{Arc, Mutex};

use bruit_core::config::Config;
use bruit_core::rng::Rng;
use bruit_core::sim::world::KINDS;
use bruit_core::sim::{Network, NodeIndex, World};
use bruit_core::view::EventKind;

use super::lab::{Meter, Size, cluster, configured, each, mean, mean_cost, ms, quantile, secs, world};
use super::model::{self, Variant};
use super::table::{Baseline, Better, Cost, Paper, Row, Slack, Table};

/// Frame kinds, as in `wire/frame.rs`.
const PING: usize = 8;
const ACK: usize = 9;

/// SWIM §3.1 and §4.1: what follows from the algorithm alone. If the world does not give these, it is wrong.
pub fn formulas(size: Size) -> Table {
    let mut rows = Vec::new();
    let cases = [(0.05, 1), (0.1, 1), (0.2, 1), (0.1, 3), (0.2, 3)];
    let measured = each(cases.len(), |i| false_positives(3 + i as u64, cases[i].0, cases[i].1, size.pick(200, 2_000)));
    for (&(loss, k), measured) in cases.iter().zip(measured) {
        // Of the silent probes that make the figure, so many were counted: four deviations.
        let (figure, tolerance) = (predicted(loss, k as i32), 4.0 / measured.count.sqrt());
        rows.push(Row {
            paper: Paper::exactly(figure),
            baseline: Baseline::about(measured.rate, measured.rate * tolerance),
            ..Row::new(format!("false positives, {:.0} % loss, k = {k}", loss * 100.0), "per member and 1.58 periods")
        });
    }
    for lambda in [1.0, 1.5] {
        let n = 1_000;
        let figure = n as f64 - (n as f64).powf(2.0 - 2.0 * lambda);
        let infected = each(size.pick(50, 400), |i| model::infected(i as u64, n, lambda * (n as f64).ln()));
        rows.push(Row {
            paper: Paper::exactly(figure),
            baseline: Baseline::about(mean(&infected), 0.02 * figure),
            ..Row::new(format!("infected of {n} after {lambda} ln n periods"), "members")
        });
    }
    for n in [6, 56] {
        let theirs = each(size.pick(50, 400), |i| model::median_infection(i as u64, n));
        let ours = each(size.pick(4, 20), |i| median_infection(i as u64, n));
        rows.push(Row {
            paper: Some(Paper { figure: if n == 6 { 1.0 } else { 3.1 }, give: 0.0 }),
            baseline: Baseline::about(mean(&theirs), 0.3 * mean(&theirs)),
            ours: Some(mean(&ours)),
            slack: Slack::By(0.05),
            note: "news does not wait for the next ping here; Figure 3b, read off".to_owned(),
            ..Row::new(format!("news reaches half of {n} after"), "periods")
        });
    }
    Table {
        name: "swim-formulas",
        about: "SWIM §3.1, §4.1, Figure 3b: the world beside what is calculated. The engine without all that SWIM \
                has not, or (infected, news) a model of the paper's rounds."
            .to_owned(),
        rows,
    }
}

/// SWIM §3.1: `q_f (1 − q²) (1 − q_f q⁴)^k e^{q_f} / (e^{q_f} − 1)`, where nobody has failed.
fn predicted(loss: f64, k: i32) -> f64 {
    let (q, e) = (1.0 - loss, std::f64::consts::E);
    (1.0 - q * q) * (1.0 - q.powi(4)).powi(k) * e / (e - 1.0)
}

struct Measured {
    rate: f64,
    count: f64,
}

fn false_positives(seed: u64, loss: f64, k: usize, periods: u64) -> Measured {
    let config = configured(&[
        ("probe_order", "robin"),
        ("probe_adaptive", "false"),
        ("indirect_checks", &k.to_string()),
        ("stream_ping", "false"),
        ("suspicion_probes", "0"),
        ("local_health_max", "0"),
        ("nacks", "false"),
        // Suspicions last: here their number counts and not what becomes of them.
        ("suspicion_mult", "50.0"),
    ]);
    let n = 50;
    let mut world = world(seed);
    let nodes = cluster(&mut world, n, &config);
    world.set_network(Network::lossy(loss)).expect("a probability");
    world.run_for(secs(5));
    let silent = |w: &World| nodes.iter().map(|&i| w.engine(i).counters().silent).sum::<u64>();
    let before = silent(&world);
    world.run_for(secs(periods));
    let count = (silent(&world) - before) as f64;
    let e = std::f64::consts::E;
    Measured { rate: count / (n as f64 * periods as f64) * e / (e - 1.0), count }
}

/// In periods: from the first to the median member's hearing of a change.
fn median_infection(seed: u64, n: usize) -> f64 {
    let mut world = world(seed);
    let nodes = cluster(&mut world, n, &Config::new());
    let heard = Arc::new(Mutex::new(Vec::new()));
    let ear = heard.clone();
    world.watcher = Some(Box::new(move |at, _, event| {
        if event.kind == EventKind::Update {
            ear.lock().expect("one thread uses it").push(at);
        }
    }));
    let began = world.now().mono;
    world
        .call(nodes[n / 2], |engine, now, out| engine.set_meta(now, &[("key", Some(b"value"))], out))
        .expect("small metadata");
    world.run_for(secs(10));
    let heard = heard.lock().expect("one thread uses it");
    assert_eq!(heard.len(), n - 1, "all hear of it, once");
    heard[n / 2 - 1].since(began).as_secs_f64()
}

/// SWIM §5.1, Figure 2.
pub fn load(size: Size) -> Table {
    let sizes = size.pick(&[10, 30, 100, 300, 1_000][..], &[10, 30, 100, 300, 1_000, 3_000, 10_000]);
    let periods = 60;
    let mut rows = Vec::new();
    for &n in sizes {
        let seed = n as u64;
        // Two tables of 10,000 times 10,000 are too much for most machines.
        let mut loads = each(if n < 10_000 { 2 } else { 1 }, |i| match i {
            0 => idle(seed, n, periods, &Config::new()),
            _ => idle(seed, n, periods, &configured(&[("probe_order", "robin")])),
        });
        let ours = loads.swap_remove(0);
        let theirs = loads.pop();
        rows.push(Row {
            paper: Some(Paper { figure: 2.0, give: 0.05 }),
            baseline: theirs.as_ref().and_then(|theirs| Baseline::about(theirs.probes, 0.05)),
            ours: Some(ours.probes),
            reach: Some(2.05),
            slack: Slack::By(0.01),
            ..Row::new(format!("N = {n}: PING and ACK"), "per member and period")
        });
        rows.push(Row {
            baseline: theirs.map(|theirs| Baseline { value: theirs.all, within: None, cost: Some(theirs.cost) }),
            ours: Some(ours.all),
            reach: Some(2.6),
            slack: Slack::By(0.02),
            cost: Some(ours.cost),
            note: ours.others,
            ..Row::new(format!("N = {n}: all kinds"), "per member and period")
        });
    }
    let about = format!(
        "SWIM §5.1, Figure 2: packets that a member sends in a period of an idle cluster that loses nothing, over \
         {periods} periods. The algorithm here: the engine with probe_order = robin."
    );
    Table { name: "swim-load", about, rows }
}

struct Load {
    probes: f64,
    all: f64,
    others: String,
    cost: Cost,
}

fn idle(seed: u64, n: usize, periods: u64, config: &Config) -> Load {
    let mut world = world(seed);
    cluster(&mut world, n, config);
    let (meter, before) = (Meter::start(&world), world.traffic().clone());
    world.run_for(secs(periods));
    let after = world.traffic();
    let of = |kind: usize| (after.packets[kind] - before.packets[kind]) as f64 / (n as f64 * periods as f64);
    let others: Vec<String> = (0..KINDS)
        .filter(|&kind| kind != PING && kind != ACK && of(kind) > 0.0)
        .map(|kind| format!("{} {:.3}", kind_name(kind), of(kind)))
        .collect();
    Load {
        probes: of(PING) + of(ACK),
        all: (0..KINDS).map(of).sum(),
        others: if others.is_empty() { String::new() } else { format!("besides {}", others.join(", ")) },
        cost: meter.cost(&world, n),
    }
}

/// The table atop `wire/frame.rs`.
fn kind_name(kind: usize) -> String {
    let names = [
        (1, "HELLO"),
        (2, "COOKIE"),
        (4, "JOIN"),
        (5, "WELCOME"),
        (10, "PING_REQ"),
        (11, "NACK"),
        (16, "RECORD"),
        (17, "ALIVE"),
        (18, "SUSPECT"),
        (19, "DEAD"),
        (20, "LEFT"),
        (32, "DIGEST"),
        (33, "SUMMARY"),
        (34, "WANT"),
        (35, "TABLE_PULL"),
        (36, "TABLE_NEXT"),
    ];
    names.iter().find(|(k, _)| *k == kind).map_or_else(|| format!("kind {kind}"), |(_, name)| (*name).to_owned())
}

/// SWIM §3.1 and §4.3: from a crash to the first ping that it does not answer.
pub fn first_ping(size: Size) -> Table {
    let (worlds, crashes) = size.pick((6, 40), (30, 40));
    let of = |config: &Config| -> Vec<f64> {
        each(worlds, |i| waits(50 + i as u64, 100, crashes, config)).into_iter().flatten().collect()
    };
    let mut rounds: Vec<f64> = each(size.pick(500, 5_000), |i| model::rounds_until_pinged(i as u64, 100));
    let mut robin = of(&configured(&[("probe_order", "robin")]));
    let mut ours = of(&Config::new());
    let e = std::f64::consts::E;
    let wide = size.pick(2.0, 1.0);
    let rows = vec![
        Row {
            paper: Paper::exactly(e / (e - 1.0)),
            baseline: Baseline::about(mean(&rounds), 0.06 * wide),
            note: format!("p99 {:.1}", quantile(&mut rounds, 0.99)),
            ..Row::new("synchronous rounds, random targets, mean", "periods")
        },
        Row {
            paper: Paper::exactly(1.0),
            baseline: Baseline::about(mean(&robin), 0.1 * wide),
            ours: Some(mean(&ours)),
            reach: Some(0.6),
            slack: Slack::By(0.05),
            ..Row::new("mean", "periods")
        },
        Row {
            paper: Paper::exactly(4.6),
            baseline: Baseline::about(quantile(&mut robin, 0.99), 0.8 * wide),
            ours: Some(quantile(&mut ours, 0.99)),
            reach: Some(1.2),
            slack: Slack::By(0.1),
            note: format!(
                "the longest of {}: {:.1} periods in SWIM's order, {:.2} in ours",
                ours.len(),
                quantile(&mut robin, 1.0),
                quantile(&mut ours, 1.0)
            ),
            ..Row::new("p99", "periods")
        },
    ];
    let about = format!(
        "SWIM §3.1, §4.3: {} crashes among 100 members, one after another. 1.0 and 4.6 are what independent, \
         unsynchronised lists give by calculation. The algorithm here: the engine with probe_order = robin.",
        worlds * crashes
    );
    Table { name: "swim-first-ping", about, rows }
}

fn waits(seed: u64, n: usize, crashes: usize, config: &Config) -> Vec<f64> {
    let mut world = world(seed);
    let mut nodes = cluster(&mut world, n, config);
    let mut rng = Rng::new(seed);
    let mut wait = |_| {
        world.run_for(secs(8) + ms(rng.below(1_000)));
        let victim = nodes.swap_remove(rng.index(nodes.len()));
        let began = world.now().mono.as_nanos() / 1_000_000;
        world.power_off(victim);
        world.transcript = Some(Vec::new());
        let ping = format!("→ {}  PING ", world.address(victim).port());
        loop {
            world.run_for(ms(5));
            let lines = world.transcript.as_mut().expect("set above");
            if let Some(line) = lines.iter().find(|line| line.contains(&ping)) {
                let at: u64 =
                    line.trim_start().split(' ').next().and_then(|ms| ms.parse().ok()).expect("a line's time");
                world.transcript = None;
                return at.saturating_sub(began) as f64 / 1_000.0;
            }
            lines.clear();
        }
    };
    (0..crashes).map(&mut wait).collect()
}

/// Members that join one after another, SWIM §5.3.
const JOINERS: usize = 17;

/// Not told in the paper. Such that the last one joins before the 175th second, and that its three figures come out.
const PACE: u64 = 10;

const END: u64 = 175;

/// SWIM §5.3.
pub fn joins(size: Size) -> Table {
    let runs = size.pick(10, 60);
    let mut rows = Vec::new();
    for (variant, name, figure) in [
        (Variant::Basic, "detection alone, by multicast", 2.0),
        (Variant::Infection, "infection, no suspicion", 4.0),
        (Variant::Suspicion, "suspicion", 12.0),
    ] {
        let runs = each(200, |i| model::joins(i as u64, variant, JOINERS, PACE, END, 0.1));
        let mut sizes: Vec<f64> = runs.iter().map(|run| run.size).collect();
        let cost = mean_cost(runs.iter().map(|run| run.cost));
        let (low, high) = (quantile(&mut sizes, 0.05), quantile(&mut sizes, 0.95));
        rows.push(Row {
            paper: Paper::exactly(figure),
            baseline: Some(Baseline { value: mean(&sizes), within: Some(low..=high), cost: Some(cost) }),
            note: format!("the mean, p5 and p95 of {} runs; the paper has one", runs.len()),
            ..Row::new(format!("10 % loss, SWIM: {name}"), "members")
        });
    }
    for loss in [0.1, 0.3] {
        let results = each(runs, |i| join(i as u64, loss));
        let least = results.iter().map(|r| r.size).min().expect("there are runs");
        let theirs = each(runs, |i| model::joins(i as u64, Variant::Suspicion, JOINERS, PACE, END, loss));
        let sizes: Vec<f64> = theirs.iter().map(|run| run.size).collect();
        let deaths: usize = results.iter().map(|r| r.deaths).sum();
        let percent = loss * 100.0;
        rows.push(Row {
            better: Better::More,
            paper: (loss == 0.1).then_some(Paper { figure: 12.0, give: 0.0 }),
            baseline: Some(Baseline {
                value: mean(&sizes),
                within: None,
                cost: Some(mean_cost(theirs.iter().map(|run| run.cost))),
            }),
            ours: Some(least as f64),
            reach: Some(JOINERS as f64),
            cost: Some(mean_cost(results.iter().map(|r| r.cost))),
            note: format!("the least that any member of any of {runs} runs lists"),
            ..Row::new(format!("{percent:.0} % loss, ours beside suspicion"), "members")
        });
        rows.push(Row {
            ours: Some(deaths as f64),
            reach: Some(0.0),
            slack: Slack::By(if loss > 0.2 { 3.0 } else { 0.0 }),
            note: "each member that removes one of the others counts, also where it takes it back".to_owned(),
            ..Row::new(format!("{percent:.0} % loss, ours: removed by mistake"), "removals in all runs")
        });
    }
    let about = format!(
        "SWIM §5.3: {JOINERS} members join, one each {PACE} s (the paper does not say how fast; at this pace its three \
         figures come out), and are counted after {END} s. The algorithm here: a model of SWIM with the constants of §5."
    );
    Table { name: "swim-joins", about, rows }
}

struct Joined {
    size: usize,
    deaths: usize,
    cost: Cost,
}

fn join(seed: u64, loss: f64) -> Joined {
    let mut world = world(seed);
    world.set_network(Network::lossy(loss)).expect("a probability");
    let deaths = Arc::new(Mutex::new(0));
    let ear = deaths.clone();
    world.watcher = Some(Box::new(move |_, _, event| {
        *ear.lock().expect("one thread uses it") += usize::from(event.kind == EventKind::Dead)
    }));
    let mut nodes: Vec<NodeIndex> = Vec::new();
    let meter = Meter::start(&world);
    for i in 0..JOINERS {
        let mut config = Config::new();
        config.seeds = nodes.first().map(|&first| world.address(first).to_string()).into_iter().collect();
        nodes.push(world.add(&format!("n{i}"), config));
        world.run_for(secs(PACE));
    }
    world.run_for(secs(END - PACE * JOINERS as u64));
    let size = nodes.iter().map(|&i| world.engine(i).live()).min().expect("there are some");
    let deaths = *deaths.lock().expect("one thread uses it");
    Joined { size, deaths, cost: meter.cost(&world, JOINERS) }
}
