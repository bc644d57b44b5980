//! One node says something to all; what counts is what the others have heard.

use std::time::{Duration, Instant};

use super::at;
use crate::cluster::Cluster;
use crate::heard::message;
use crate::machine::resident_kb;
use crate::{Figures, Options, Peer, Usage};

/// Messages that may be under way, so that nobody is asked to hold more than that.
const WINDOW: u64 = 1_000;
/// What has not moved for so long is lost: longer than any peer's gossip interval.
const STILL: Duration = Duration::from_millis(2_500);
/// For what is under way when the time is over.
const AFTER: Duration = Duration::from_secs(6);

/// First one at a time, then as many as it takes.
pub fn broadcast<P: Peer>(options: &Options) -> Result<String, String> {
    let cluster = Cluster::<P>::form(options.nodes, options)?;
    let mut figures = Figures::default();
    let said = latencies(&cluster, options, &mut figures);
    flood(&cluster, options, said, &mut figures);
    Ok(figures.line())
}

/// By turns: until the last has heard it. Returns how many were said.
fn latencies<P: Peer>(cluster: &Cluster<P>, options: &Options, figures: &mut Figures) -> u64 {
    const AT_MOST: u64 = 200;
    let others = options.nodes as u64 - 1;
    let (mut times, mut said, mut missed) = (Vec::new(), 0, 0);
    let end = Instant::now() + Duration::from_secs_f64(options.seconds);
    while Instant::now() < end && said < AT_MOST {
        let origin = said as usize % options.nodes;
        let (before, began) = (cluster.tally.count(), Instant::now());
        cluster.nodes[origin].broadcast(&message(origin, said, options.bytes));
        said += 1;
        match cluster.tally.reach(before + others, 2 * STILL, Instant::now() + AFTER) {
            Some(reached) => times.push(reached.duration_since(began).as_secs_f64() * 1e3),
            None => missed += others - (cluster.tally.count() - before).min(others),
        }
    }
    times.sort_by(f64::total_cmp);
    figures.put("p50_ms", at(&times, 50));
    figures.put("worst_ms", times.last().copied());
    figures.put("said_singly", said as f64);
    figures.put("lost_singly_percent", 100.0 * missed as f64 / (said * others) as f64);
    said
}

fn flood<P: Peer>(cluster: &Cluster<P>, options: &Options, first: u64, figures: &mut Figures) {
    let others = options.nodes as f64 - 1.0;
    let flow = flow(cluster, options, first, u64::MAX);
    let heard = flow.heard as f64;
    figures.put("per_second", heard / others / flow.seconds);
    figures.put("cpu_us", flow.cpu_seconds * 1e6 / heard);
    figures.put("lost_percent", 100.0 * (1.0 - heard / (flow.said as f64 * others)));
    figures.put("said", flow.said as f64);
    figures.put("heard_again", cluster.tally.again() as f64);
    figures.put("wire_bytes", flow.wire.0 / heard);
    figures.put("packets", flow.wire.1 / heard);
}

/// What came of saying much.
struct Flow {
    said: u64,
    heard: u64,
    seconds: f64,
    cpu_seconds: f64,
    wire: (f64, f64),
}

/// As fast as the node takes it, with at most [`WINDOW`] under way; numbers from `first` on.
fn flow<P: Peer>(cluster: &Cluster<P>, options: &Options, first: u64, at_most: u64) -> Flow {
    let (others, tally) = (cluster.nodes.len() as u64 - 1, &cluster.tally);
    let (before, usage) = (tally.count(), Usage::begin());
    let end = usage.began + Duration::from_secs_f64(options.seconds);
    let (mut said, mut given_up) = (0, 0);
    while said < at_most && Instant::now() < end {
        cluster.nodes[0].broadcast(&message(0, first + said, options.bytes));
        said += 1;
        let wanted = before + (said.saturating_sub(WINDOW) * others).saturating_sub(given_up);
        if tally.count() < wanted && tally.reach(wanted, STILL, end).is_none() && Instant::now() < end {
            given_up = said * others - (tally.count() - before);
        }
    }
    tally.reach(before + said * others, STILL, Instant::now() + AFTER);
    let seconds = tally.last().saturating_duration_since(usage.began).as_secs_f64();
    Flow { said, heard: tally.count() - before, seconds, cpu_seconds: usage.cpu_seconds(), wire: usage.wire() }
}

/// So many, and what the process holds afterwards.
pub fn bulk<P: Peer>(options: &Options) -> Result<String, String> {
    let cluster = Cluster::<P>::form(options.nodes, options)?;
    let (before, _) = resident_kb();
    let flow = flow(&cluster, options, 0, options.messages);
    let mut figures = Figures::default();
    figures.put("heard", flow.heard as f64 / (options.nodes as f64 - 1.0));
    let grown = (resident_kb().0 - before) / options.nodes as f64;
    figures.put("grown_kb_a_node", grown);
    // Who is slower than that holds less because it has heard less.
    let is_whole = flow.said == options.messages;
    figures.put("grown_kb_a_node_after_all", is_whole.then_some(grown));
    Ok(figures.line())
}
