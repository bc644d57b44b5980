//! A cluster in which nothing happens.

use std::thread::sleep;
use std::time::Duration;

use crate::cluster::Cluster;
use crate::machine::resident_kb;
use crate::{Figures, Options, Peer, Usage};

pub fn idle<P: Peer>(options: &Options) -> Result<String, String> {
    let before = resident_kb();
    let cluster = Cluster::<P>::form(options.nodes, options)?;
    let usage = Usage::begin();
    sleep(Duration::from_secs_f64(options.seconds));
    let (nodes, seconds) = (cluster.nodes.len() as f64, usage.elapsed().as_secs_f64());
    let (bytes, packets) = usage.wire();
    let mut figures = Figures::default();
    figures.put("cpu_percent", 100.0 * usage.cpu_seconds() / seconds / nodes);
    figures.put("wire_bytes", bytes / seconds / nodes);
    figures.put("packets", packets / seconds / nodes);
    let (resident, own) = resident_kb();
    figures.put("resident_kb", (resident - before.0) / nodes);
    figures.put("own_kb", (own - before.1) / nodes);
    Ok(figures.line())
}
