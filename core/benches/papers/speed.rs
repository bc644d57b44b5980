//! How fast the simulated world is: the only figures that depend on the machine.

use std::sync::LazyLock;
use std::time::Instant;

use bruit_core::config::Config;

use super::lab::{Size, cluster, secs, world};
use super::table::{Better, Row, Slack, Table};

pub fn speed(size: Size) -> Table {
    let mut rows = Vec::new();
    for &(n, seconds, events, real_time) in
        size.pick(&[(1_000, 300, 2e6, 150.0)][..], &[(1_000, 300, 2e6, 150.0), (10_000, 20, 1e6, 15.0)])
    {
        let before = resident_gib();
        let mut world = world(1);
        cluster(&mut world, n, &Config::new());
        // The best of five: what disturbs never helps.
        let (mut speed, mut ratio) = (0.0, 0.0);
        for _ in 0..5 {
            let (steps, began) = (world.steps(), cpu_seconds());
            world.run_for(secs(seconds / 5));
            let took = cpu_seconds() - began;
            speed = f64::max(speed, (world.steps() - steps) as f64 / took);
            ratio = f64::max(ratio, (seconds / 5) as f64 / took);
        }
        let row = |what: &str, unit, ours, reach| Row {
            what: format!("{n} members that all know each other: {what}"),
            unit,
            better: Better::More,
            paper: None,
            baseline: None,
            ours: Some(ours),
            reach: Some(reach),
            slack: Slack::Machine,
            cost: None,
            note: String::new(),
        };
        rows.push(row("events", "per second", speed, events));
        rows.push(row("simulated time", "times real time", ratio, real_time));
        if let (10_000.., Some(before), Some(now)) = (n, before, resident_gib()) {
            rows.push(Row { better: Better::Less, ..row("memory", "GiB", now - before, 12.0) });
        }
    }
    let about =
        "An idle cluster; an event is a timer or a packet. Seconds are those in which one core was ours; the best of five stretches.".to_owned();
    Table { name: "speed", about, rows }
}

/// Memory of this process; on Linux.
pub fn resident_gib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / (1024.0 * 1024.0))
}

/// What this thread has used of a core: others' work on the same machine does not count. Elsewhere than on Linux it does.
fn cpu_seconds() -> f64 {
    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
    let used = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanos = used.and_then(|text| text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()));
    nanos.map_or_else(|| BEGAN.elapsed().as_secs_f64(), |ns| ns / 1e9)
}
