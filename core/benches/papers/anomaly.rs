//! Lifeguard §V: members that all know each other, and some of them, in lock-step, do not get to their packets for a while.
//!
//! *Threshold*: one anomaly; how soon are those who are in it found? *Interval*: anomalies of D with pauses of I between
//! them for two minutes; how often is somebody outside declared dead, and what is sent? FP counts DEAD about a member
//! outside wherever it is raised, FP− only where it is raised outside.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use bruit_core::config::Config;
use bruit_core::rng::{Rng, mix};
use bruit_core::sim::{Duration, Network, NodeIndex, World};
use bruit_core::time::Instant;
use bruit_core::view::EventKind;

/// Before the anomaly.
pub const QUIET: Duration = Duration::from_secs(15);
/// A run's length after that, at least.
pub const WATCH: Duration = Duration::from_secs(120);

/// What is wrong with those in the anomaly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// As memberlist, which the paper measured, has it: the loop that sends waits in its first send, the timers of
    /// suspicions go on.
    Hang,
    /// Sends and receives wait, all timers go on.
    Block,
    /// Nothing goes on: what a driver of one thread makes of it.
    Pause,
    /// Each packet takes that long.
    Slow(Duration),
    /// Nothing is wrong: what the network does to all is enough.
    None,
}

#[derive(Clone, Debug)]
pub struct Trial {
    pub config: Config,
    pub network: Network,
    pub members: usize,
    pub fault: Fault,
    /// They are memberlist's agents, and spend so much on each packet.
    pub memberlist: Option<Duration>,
    /// C: how many are in the anomaly.
    pub anomalous: usize,
    /// D.
    pub lasts: Duration,
    /// I; `None`: the threshold experiment.
    pub between: Option<Duration>,
    pub watch: Duration,
    pub seed: u64,
}

#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// FP and FP−.
    pub false_dead: u64,
    pub false_dead_outside: u64,
    /// Suspicions of members outside, raised anywhere.
    pub false_suspect: u64,
    /// Of each that was found: seconds from the anomaly's begin until the first outside, and all outside, said DEAD.
    pub first: Vec<f64>,
    pub full: Vec<f64>,
    pub packets: u64,
    pub bytes: u64,
    pub seconds: f64,
}

/// What the events tell, while they happen.
struct Tally {
    outside: Vec<bool>,
    healthy: usize,
    begun: Instant,
    outcome: Outcome,
    /// By member: who outside has said DEAD of it, and when first and last.
    found: Vec<(BTreeSet<NodeIndex>, Option<Instant>, Option<Instant>)>,
    /// Whoever thinks ill of whom.
    ill: BTreeSet<(NodeIndex, NodeIndex)>,
}

impl Tally {
    fn note(&mut self, at: Instant, by: NodeIndex, kind: EventKind, about: NodeIndex) {
        match kind {
            EventKind::Suspect | EventKind::Dead => drop(self.ill.insert((by, about))),
            EventKind::Alive | EventKind::Join => drop(self.ill.remove(&(by, about))),
            _ => {}
        }
        match (kind, self.outside[about]) {
            (EventKind::Dead, true) => {
                self.outcome.false_dead += 1;
                self.outcome.false_dead_outside += u64::from(self.outside[by]);
            }
            (EventKind::Suspect, true) => self.outcome.false_suspect += 1,
            (EventKind::Dead, false) if self.outside[by] => {
                let (by_whom, first, full) = &mut self.found[about];
                first.get_or_insert(at);
                if by_whom.insert(by) && by_whom.len() == self.healthy {
                    *full = Some(at);
                }
            }
            _ => {}
        }
    }
}

impl Trial {
    pub fn run(&self) -> Outcome {
        let mut world = World::new(self.seed);
        world.keep_events = false;
        world.candid = self.memberlist.is_none();
        world.set_network(self.network).expect("probabilities");
        let nodes: Vec<NodeIndex> =
            (0..self.members).map(|i| world.add(&format!("n{i}"), self.config.clone())).collect();
        world.acquaint(&nodes);
        if let Some(work) = self.memberlist {
            for &i in &nodes {
                world.call(i, |engine, _, _| engine.imitate_memberlist());
                world.slow(i, work);
            }
        }
        let mut lot: Vec<NodeIndex> = nodes.clone();
        Rng::new(mix(self.seed ^ 0x0dd5)).shuffle(&mut lot);
        let inside: Vec<NodeIndex> = lot[..self.anomalous].to_vec();
        let mut outside = vec![true; self.members];
        inside.iter().for_each(|&i| outside[i] = false);
        let tally = Arc::new(Mutex::new(Tally {
            outside,
            healthy: self.members - self.anomalous,
            begun: world.now().mono,
            outcome: Outcome::default(),
            found: vec![Default::default(); self.members],
            ill: BTreeSet::new(),
        }));
        let told = tally.clone();
        world.watcher = Some(Box::new(move |at, by, event| {
            let about = event.member.as_ref().and_then(|m| m.name[1..].parse().ok());
            if let Some(about) = about {
                told.lock().expect("one thread").note(at, by, event.kind, about);
            }
        }));
        let start = world.now().mono;
        world.run_for(QUIET);
        let begun = world.now().mono;
        tally.lock().expect("one thread").begun = begun;
        match self.between {
            None => {
                self.begin(&mut world, &inside);
                world.run_for(self.lasts);
                self.end(&mut world, &inside);
                while world.now().mono.since(begun) < self.watch && !tally.lock().expect("one thread").ill.is_empty() {
                    world.run_for(Duration::from_millis(250));
                }
            }
            Some(between) => {
                while world.now().mono.since(begun) < self.watch {
                    self.begin(&mut world, &inside);
                    world.run_for(self.lasts);
                    self.end(&mut world, &inside);
                    world.run_for(between);
                }
            }
        }
        world.watcher = None;
        let tally = Arc::into_inner(tally).and_then(|t| t.into_inner().ok()).expect("the world let go of it");
        let mut outcome = tally.outcome;
        for (_, first, full) in &tally.found {
            outcome.first.extend(first.map(|at| at.since(tally.begun).as_secs_f64()));
            outcome.full.extend(full.map(|at| at.since(tally.begun).as_secs_f64()));
        }
        outcome.packets = world.traffic().all_packets();
        outcome.bytes = world.traffic().all_bytes();
        outcome.seconds = world.now().mono.since(start).as_secs_f64();
        outcome
    }

    fn begin(&self, world: &mut World, inside: &[NodeIndex]) {
        for &i in inside {
            match self.fault {
                Fault::Hang => world.hang(i),
                Fault::Block => world.block(i),
                Fault::Pause => world.pause(i),
                Fault::Slow(service) => world.slow(i, service),
                Fault::None => {}
            }
        }
    }

    fn end(&self, world: &mut World, inside: &[NodeIndex]) {
        for &i in inside {
            match self.fault {
                Fault::Hang | Fault::Block | Fault::Pause => world.resume(i),
                Fault::Slow(_) => world.slow(i, Duration::ZERO),
                Fault::None => {}
            }
        }
    }
}
