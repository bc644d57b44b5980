//! Nodes of one process that find each other.

use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::heard::Tally;
use crate::{Heard, Options, PATIENCE, Peer};

/// What a node is told when it is started.
pub struct Plan {
    pub name: String,
    /// Through whom it joins: what [`Peer::address`] said there.
    pub seed: Option<String>,
    /// How many nodes there will be, for those who want to be told.
    pub nodes: usize,
    pub variant: String,
    /// To be given every message that comes.
    pub heard: Heard,
}

pub struct Cluster<P> {
    pub nodes: Vec<P>,
    pub tally: Arc<Tally>,
    /// From the first start until each lists all.
    pub took: Duration,
}

impl<P: Peer> Cluster<P> {
    /// All start at once, each knows the first. An error where not all list all in time.
    pub fn form(count: usize, options: &Options) -> Result<Cluster<P>, String> {
        let (tally, began) = (Tally::new(), Instant::now());
        let mut cluster = Cluster { nodes: Vec::with_capacity(count), tally, took: Duration::ZERO };
        for i in 0..count {
            let plan = Plan {
                name: format!("n{i}"),
                seed: cluster.nodes.first().map(P::address),
                nodes: count,
                variant: options.variant.clone(),
                heard: Heard::new(i, &cluster.tally),
            };
            cluster.nodes.push(P::start(plan)?);
        }
        cluster.all_list(count, began + PATIENCE)?;
        cluster.took = began.elapsed();
        sleep(Duration::from_secs_f64(options.settle));
        Ok(cluster)
    }

    /// One node after the other, so that looking costs little.
    pub fn all_list(&self, count: usize, end: Instant) -> Result<(), String> {
        for (i, node) in self.nodes.iter().enumerate() {
            while node.live() != count {
                if Instant::now() > end {
                    let ready = self.nodes.iter().filter(|node| node.live() == count).count();
                    return Err(format!(
                        "{ready} of {} were ready after {PATIENCE:?}; n{i} listed {}",
                        self.nodes.len(),
                        node.live()
                    ));
                }
                sleep(Duration::from_millis(1));
            }
        }
        Ok(())
    }
}
