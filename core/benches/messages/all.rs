//! To all: ten nodes, one of which speaks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bruit_core::message::ToAll;
use bruit_core::runtime::Node;

use crate::nodes::{Count, LONG, cluster, cpu};
use crate::{Flow, TIME};

const TEN: usize = 10;
const OTHERS: u64 = TEN as u64 - 1;

/// What has not come then is lost.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Ten {
    nodes: Vec<Node>,
    /// By the nine others, all together: each hears each once.
    heard: Arc<Count>,
    said: u64,
    data: Vec<u8>,
}

impl Ten {
    /// With a tree that has formed.
    pub fn new(size: usize) -> Ten {
        let (nodes, heard) = (cluster(TEN, |_| {}), Arc::new(Count::default()));
        for node in &nodes {
            let count = heard.clone();
            node.on_message("", Box::new(move |_| count.add())).expect("running");
        }
        let mut ten = Ten { nodes, heard, said: 0, data: vec![7; size] };
        ten.for_a_time(Duration::from_millis(500));
        ten
    }

    fn say(&mut self) {
        self.nodes[0].broadcast("", &self.data, ToAll::default(), LONG).expect("there is room in time");
        self.said += 1;
    }

    /// As much as it may.
    pub fn for_a_time(&mut self, time: Duration) -> Flow {
        let began = Instant::now();
        self.measured(|ten| {
            while began.elapsed() < time {
                (0..16).for_each(|_| ten.say());
            }
        })
    }

    /// So many, as fast as it may.
    pub fn burst(&mut self, count: usize) -> Flow {
        self.measured(|ten| (0..count).for_each(|_| ten.say()))
    }

    fn measured(&mut self, say: impl FnOnce(&mut Ten)) -> Flow {
        let (before, heard_before, began, cpu_began) = (self.said, self.heard.now(), Instant::now(), cpu());
        say(self);
        let sent = OTHERS * (self.said - before);
        let received = self.heard.reach(heard_before + sent, PATIENCE) - heard_before;
        let lost = received < sent;
        let time = began.elapsed() - if lost { PATIENCE } else { Duration::ZERO };
        if lost {
            let all = |name| self.nodes.iter().filter_map(|node| node.stat(name).ok()).sum::<u64>();
            let (overrun, gone) = (all("broadcasts_overrun"), all("broadcasts_lost"));
            eprintln!(
                "lost since the start: {overrun} for which an application was too slow, {gone} that GAP events told of"
            );
        }
        Flow {
            per_second: (self.said - before) as f64 / time.as_secs_f64(),
            cpu_us: (cpu() - cpu_began).as_secs_f64() * 1e6 / received as f64,
            sent,
            received,
        }
    }

    /// One at a time: microseconds until the last has heard it, sorted.
    pub fn latencies(&mut self) -> Vec<f64> {
        let (began, mut times) = (Instant::now(), Vec::new());
        while began.elapsed() < TIME {
            let (at, before) = (Instant::now(), self.heard.now());
            self.say();
            if self.heard.reach(before + OTHERS, PATIENCE) == before + OTHERS {
                times.push(at.elapsed().as_secs_f64() * 1e6);
            }
        }
        times.sort_by(f64::total_cmp);
        times
    }
}
