//! From one node to another.

use std::time::{Duration, Instant};

use super::at;
use crate::cluster::Cluster;
use crate::heard::message;
use crate::{Figures, Options, Peer, Usage};

/// Reliable messages that may be under way.
const WINDOW: u64 = 4_000;
const STILL: Duration = Duration::from_millis(1_500);

/// As many as the node takes. Who promises delivery has at most [`WINDOW`] under way; best effort has no limit, and loses.
pub fn direct<P: Peer>(options: &Options) -> Result<String, String> {
    let cluster = Cluster::<P>::form(2, options)?;
    let (tally, [a, b]) = (&cluster.tally, [&cluster.nodes[0], &cluster.nodes[1]]);
    let usage = Usage::begin();
    let end = usage.began + Duration::from_secs_f64(options.seconds);
    let mut said: u64 = 0;
    while Instant::now() < end {
        a.send(b, &message(0, said, options.bytes), options.reliable);
        said += 1;
        if options.reliable && tally.count() + WINDOW < said {
            tally.reach(said - WINDOW, STILL, end);
        }
    }
    tally.reach(said, STILL, Instant::now() + 4 * STILL);
    let (heard, seconds) = (tally.count() as f64, tally.last().saturating_duration_since(usage.began).as_secs_f64());
    let mut figures = Figures::default();
    figures.put("per_second", heard / seconds);
    figures.put("cpu_us", usage.cpu_seconds() * 1e6 / heard);
    figures.put("lost_percent", 100.0 * (1.0 - heard / said as f64));
    Ok(figures.line())
}

/// One question after the other.
pub fn request<P: Peer>(options: &Options) -> Result<String, String> {
    let cluster = Cluster::<P>::form(2, options)?;
    let (usage, mut times, data) = (Usage::begin(), Vec::new(), message(0, 0, options.bytes));
    while usage.elapsed().as_secs_f64() < options.seconds {
        let began = Instant::now();
        cluster.nodes[0].request(&cluster.nodes[1], &data);
        times.push(began.elapsed().as_secs_f64() * 1e6);
    }
    let mut figures = Figures::default();
    figures.put("cpu_us", usage.cpu_seconds() * 1e6 / times.len() as f64);
    times.sort_by(f64::total_cmp);
    figures.put("p50_us", at(&times, 50));
    figures.put("p99_us", at(&times, 99));
    Ok(figures.line())
}
