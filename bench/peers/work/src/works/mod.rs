//! The works. Each returns one line of figures.

mod broadcast;
mod detect;
mod direct;
mod idle;

use crate::cluster::Cluster;
use crate::{Figures, Options, Peer, Usage};

pub use broadcast::{broadcast, bulk};
pub use detect::detect;
pub use direct::{direct, request};
pub use idle::idle;

/// So many nodes start at once, one seed: until each lists all.
pub fn join<P: Peer>(options: &Options) -> Result<String, String> {
    let usage = Usage::begin();
    let cluster = Cluster::<P>::form(options.nodes, &Options { settle: 0.0, ..options.clone() })?;
    let mut figures = Figures::default();
    figures.put("seconds", cluster.took.as_secs_f64());
    figures.put("cpu_ms_a_node", usage.cpu_seconds() * 1e3 / options.nodes as f64);
    Ok(figures.line())
}

/// Of sorted values.
fn at(values: &[f64], percent: usize) -> Option<f64> {
    values.get(values.len() * percent / 100).copied()
}
