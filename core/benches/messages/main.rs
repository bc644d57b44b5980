//! Messages between nodes of one process over loopback, sealed: throughput, round trips, streams. Each beside what the kernel does
//! with the same bytes in the same run. Callbacks into C and Python are counted by `bench/callbacks.c` and `bench/callbacks.py`.
//!
//!     cargo bench --package bruit-core --bench messages                  all rows
//!     cargo bench --package bruit-core --bench messages -- 'to all'      those with that in their names

#[path = "../report/mod.rs"]
mod report;

mod all;
mod kernel;
mod nodes;
mod one;

use std::cell::LazyCell;
use std::time::Duration;

use bruit_core::engine::Sending::{BestEffort, Reliable};
use report::{Row, median, number};

const TIME: Duration = Duration::from_secs(3);
const ROUNDS: usize = 3;

/// What was said, and what came of it.
struct Flow {
    per_second: f64,
    /// For each that was heard.
    cpu_us: f64,
    sent: u64,
    received: u64,
}

fn main() {
    let only = std::env::args().skip(1).find(|arg| !arg.starts_with("--")).unwrap_or_default();
    let wanted = |row: &&str| row.contains(&only);
    println!("messages: nodes of one process, loopback, sealed; medians of {ROUNDS} rounds of {TIME:?}\n");
    // Measured where a row is put beside them.
    let tcp = LazyCell::new(|| said("the kernel: TCP, 64 KiB writes: bytes a second", middle(kernel::tcp)));
    let udp = LazyCell::new(|| said("the kernel: UDP of 256 B, received a second", middle(|| kernel::udp(256))));
    for (what, size, reach, others) in [
        (
            "reliable, 256 B: messages a second",
            256,
            800_000.0,
            "memberlist (Go) 9,200, memberlist (Rust) 35,000, kinship (Python) 5,400",
        ),
        ("reliable, 16 KiB: messages a second", 16 << 10, 61_000.0, "memberlist (Go) 2,500, uncompressed 14,000"),
    ] {
        if wanted(&what) {
            let flow = middle_flow(|| one::send(size, Reliable));
            assert_eq!(flow.sent, flow.received, "none is lost");
            let share = ratio(flow.per_second * size as f64, *tcp);
            let detail = format!(
                "{:.2} us of CPU each, both nodes together; {share} of the kernel's bytes a second",
                flow.cpu_us
            );
            Row { what, value: flow.per_second, unit: "/s", reach: Some(reach), detail, others }.print_more();
        }
    }
    for what in ["best effort, 256 B: received a second"].iter().filter(|row| wanted(row)) {
        let flow = middle_flow(|| one::send(256, BestEffort));
        let (heard, share) = (100.0 * flow.received as f64 / flow.sent as f64, ratio(flow.per_second, *udp));
        let detail =
            format!("{:.2} us of CPU each; {share} of the kernel's; {} % of those sent", flow.cpu_us, number(heard));
        let others = "memberlist (Go) 14,000, memberlist (Rust) 340,000 sent with up to 27 % lost";
        Row { what, value: flow.per_second, unit: "/s", reach: Some(0.45 * *udp), detail, others }.print_more();
    }
    for what in
        ["byte stream: MB a second", "byte stream of text, compressed: MB a second"].iter().filter(|row| wanted(row))
    {
        let compress = what.contains("compressed");
        let text = b"The quick brown fox jumps over the lazy dog. ".repeat(1456);
        let data = if compress { &text[..] } else { &[7; 64 << 10] };
        let rate = middle(|| one::stream(data, compress));
        let detail = format!("written 64 KiB at a time; {} of the kernel's bytes a second", ratio(rate, *tcp));
        Row { what, value: rate / 1e6, unit: "MB/s", reach: None, detail, others: "" }.print_more();
    }
    to_all(&wanted);
    for (what, is_manual, share) in
        [("request and reply, thread mode: p50", false, 2.2), ("request and reply, manual mode: p50", true, 1.5)]
    {
        if wanted(&what) {
            let mut rounds: Vec<_> = (0..ROUNDS).map(|_| one::round_trips(is_manual)).collect();
            let in_kernels = |[ours, kernels]: &[Vec<f64>; 2]| at(ours, 50) / at(kernels, 50);
            rounds.sort_by(|a, b| in_kernels(a).total_cmp(&in_kernels(b)));
            let [half, worst] = [50, 99].map(|percent| at(&rounds[ROUNDS / 2][0], percent));
            let [kernel, kernels_worst] = [50, 99].map(|percent| at(&rounds[ROUNDS / 2][1], percent));
            let shares =
                format!("{} and {} of the kernel's ping-pong", ratio(half, kernel), ratio(worst, kernels_worst));
            let detail = format!(
                "p99 {} us; {shares}, which takes {} and {} us in the same run",
                number(worst),
                number(kernel),
                number(kernels_worst)
            );
            Row { what, value: half, unit: "us", reach: Some(share * kernel), detail, others: "" }.print();
        }
    }
    for what in ["request and reply, 64 at once"].iter().filter(|row| wanted(row)) {
        let value = middle(|| one::questions(64));
        let (reach, detail) = (Some(200_000.0), String::new());
        Row { what, value, unit: "/s", reach, detail, others: "" }.print_more();
    }
}

/// Ten nodes; what counts is heard by all.
fn to_all(wanted: &impl Fn(&&str) -> bool) {
    let rate = "iroh-gossip 17,000 to 24,000, up to 1.4 % lost in 4 of 9 bursts; memberlist (Go) 14, tuned 1,320, with 60 kB datagrams 8,600";
    let rows: [(_, usize, &dyn Fn() -> Flow); 3] = [
        ("to all ten, 256 B: broadcasts a second", ROUNDS, &|| all::Ten::new(256).for_a_time(TIME)),
        ("to all ten, 256 B, for 30 s: broadcasts a second", 1, &|| all::Ten::new(256).for_a_time(10 * TIME)),
        ("to all ten, 256 B, 300,000 in a burst: broadcasts a second", ROUNDS, &|| all::Ten::new(256).burst(300_000)),
    ];
    for (what, rounds, run) in rows {
        if wanted(&what) {
            let mut flows: Vec<Flow> = (0..rounds).map(|_| run()).collect();
            let lost: Vec<String> = flows.iter().map(|flow| number((flow.sent - flow.received) as f64)).collect();
            flows.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
            let flow = &flows[rounds / 2];
            let detail = format!(
                "{:.2} us of CPU for each delivery, all ten together (reach 1.00); of {} deliveries lost: {}",
                flow.cpu_us,
                number(flow.sent as f64),
                lost.join(", "),
            );
            // Five times iroh-gossip's, which were measured on another day.
            Row { what, value: flow.per_second, unit: "/s", reach: Some(100_000.0), detail, others: rate }.print_more();
        }
    }
    for what in ["to all ten, 256 B: until the last has heard it, p50"].iter().filter(|row| wanted(row)) {
        let (half, worst) = middle_times(|| all::Ten::new(256).latencies());
        let verdict = if worst <= 1000.0 { "OK" } else { "behind" };
        let detail = format!("p99 {} us, reach 1,000 us: {verdict}", number(worst));
        let others = "p50 and p99: iroh-gossip 460 and 1,200, memberlist (Go) 300,000 and 690,000, chitchat 1,900,000";
        Row { what, value: half, unit: "us", reach: Some(250.0), detail, others }.print();
    }
}

fn said(what: &str, value: f64) -> f64 {
    Row { what, value, unit: "", reach: None, detail: String::new(), others: "" }.print();
    value
}

fn middle(f: impl Fn() -> f64) -> f64 {
    median(&mut (0..ROUNDS).map(|_| f()).collect::<Vec<_>>())
}

/// The one in the middle of several.
fn middle_flow(f: impl Fn() -> Flow) -> Flow {
    let mut flows: Vec<Flow> = (0..ROUNDS).map(|_| f()).collect();
    flows.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
    flows.swap_remove(ROUNDS / 2)
}

/// p50 and p99 of the round in the middle; each round is sorted.
fn middle_times(f: impl Fn() -> Vec<f64>) -> (f64, f64) {
    let mut rounds: Vec<Vec<f64>> = (0..ROUNDS).map(|_| f()).collect();
    rounds.sort_by(|a, b| at(a, 50).total_cmp(&at(b, 50)));
    let times = &rounds[ROUNDS / 2];
    (at(times, 50), at(times, 99))
}

/// Of sorted times.
fn at(times: &[f64], percent: usize) -> f64 {
    times[times.len() * percent / 100]
}

fn ratio(ours: f64, theirs: f64) -> String {
    format!("{:.2} x", ours / theirs)
}
