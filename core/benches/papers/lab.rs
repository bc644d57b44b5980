//! What the experiments share: clusters that have come to rest, seeds side by side, what things cost.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use bruit_core::config::Config;
use bruit_core::id::Version;
use bruit_core::sim::{Duration, NodeIndex, World};
use bruit_core::view::Member;
use bruit_core::wire::frame::{Entries, Record};

use super::table::Cost;

/// How much is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// What every change has to pass: a minute or so.
    Short,
    /// As large as the papers.
    Full,
}

impl Size {
    pub fn name(self) -> &'static str {
        self.pick("short", "full")
    }

    pub fn pick<T>(self, short: T, full: T) -> T {
        match self {
            Size::Short => short,
            Size::Full => full,
        }
    }
}

pub const fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

pub const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// The results of jobs 0 to n, in order. As many run at once as there are cores.
pub fn each<T: Send>(n: usize, job: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let workers = std::thread::available_parallelism().map_or(1, |cores| cores.get()).min(n);
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, Relaxed);
                    if i >= n {
                        return;
                    }
                    let result = job(i);
                    done.lock().expect("no job has panicked").push((i, result));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("no job has panicked");
    done.sort_by_key(|(i, _)| *i);
    done.into_iter().map(|(_, result)| result).collect()
}

/// An empty world that keeps no events.
pub fn world(seed: u64) -> World {
    let mut world = World::new(seed);
    world.keep_events = false;
    world
}

/// `n` nodes of which each knows all from the first moment, and no seed, some seconds later.
pub fn cluster(world: &mut World, n: usize, config: &Config) -> Vec<NodeIndex> {
    let first = world.len();
    let nodes: Vec<NodeIndex> = (first..first + n).map(|i| world.add(&format!("n{i}"), config.clone())).collect();
    let locals: Vec<Arc<Member>> = nodes.iter().map(|&i| world.view(i).local().clone()).collect();
    let record = |at: usize| Record {
        name: &locals[at].name,
        run: locals[at].run,
        epoch: locals[at].epoch,
        incarnation: locals[at].incarnation,
        addr: locals[at].address,
        protocol: locals[at].protocol,
        app_version: locals[at].app_version,
        version: Version(0),
        age: 0,
        state: Entries(&[]),
    };
    for &i in &nodes {
        world.call(i, |engine, now, _| engine.acquaint(now, (0..n).map(record)));
    }
    world.run_for(secs(3));
    assert!(all_list(world, &nodes, n));
    nodes
}

pub fn all_list(world: &World, nodes: &[NodeIndex], n: usize) -> bool {
    nodes.iter().all(|&i| world.engine(i).live() == n)
}

/// What is sent from now on.
pub struct Meter {
    packets: u64,
    bytes: u64,
    began: bruit_core::time::Instant,
}

impl Meter {
    pub fn start(world: &World) -> Meter {
        let traffic = world.traffic();
        Meter { packets: traffic.all_packets(), bytes: traffic.all_bytes(), began: world.now().mono }
    }

    /// Per member and second.
    pub fn cost(&self, world: &World, members: usize) -> Cost {
        let (now, traffic) = (Meter::start(world), world.traffic());
        let share = 1.0 / (now.began.since(self.began).as_secs_f64() * members as f64);
        Cost {
            packets: (traffic.all_packets() - self.packets) as f64 * share,
            bytes: (traffic.all_bytes() - self.bytes) as f64 * share,
        }
    }
}

/// The mean of what several runs cost.
pub fn mean_cost(costs: impl ExactSizeIterator<Item = Cost>) -> Cost {
    let share = 1.0 / costs.len() as f64;
    costs.fold(Cost { packets: 0.0, bytes: 0.0 }, |sum, cost| Cost {
        packets: sum.packets + cost.packets * share,
        bytes: sum.bytes + cost.bytes * share,
    })
}

pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The smallest value that a share `q` of all does not exceed. Sorts them.
pub fn quantile(values: &mut [f64], q: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() as f64 * q).ceil() as usize).clamp(1, values.len()) - 1]
}

/// memberlist's LAN profile, as far as our engine can be memberlist: it has neither `beat`s nor fingerprints, probes
/// by a shuffled list, and waits for its push-pull.
pub fn memberlist() -> Config {
    configured(&[
        ("probe_order", "robin"),
        ("probe_timeout", "500ms"),
        ("probe_adaptive", "false"),
        ("probe_indirect_timeout", "500ms"),
        ("indirect_checks", "3"),
        ("suspicion_mult", "4.0"),
        ("suspicion_max_mult", "6.0"),
        ("suspicion_confirmations", "3"),
        ("suspicion_probes", "0"),
        ("gossip_interval", "200ms"),
        ("gossip_flush", "200ms"),
        ("gossip_fanout", "3"),
        ("retransmit_mult", "4"),
        ("sync_interval", "30s"),
        ("sync_on_mismatch", "false"),
        ("gossip_to_dead", "30s"),
        ("flap_half_life", "0"),
    ])
}

/// The defaults with these options changed.
pub fn configured(options: &[(&str, &str)]) -> Config {
    let mut config = Config::new();
    for (key, value) in options {
        config.set(key, value).expect("an option of the table, within its bounds");
    }
    config.insecure_plaintext = true;
    config.validate().expect("options that make sense together");
    config
}
