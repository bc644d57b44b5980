//! One trial: a scenario in the world of one seed, and what was seen of it.
//!
//! What nodes report is taken from them after each step, so times are exact; whether all agree is looked at once a
//! millisecond, and how stale tables are once in [`Scenario::sample`], at up to [`OBSERVERS`] nodes.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use super::net::{Loss, Network, unit};
use super::scenario::{FORM, Fault, Phase, Scenario, Topology, Until, Who};
use super::world::{self, NodeIndex, Traffic, World};
use crate::error::Result;
use crate::id::{NodeName, RunId};
use crate::rng::{Rng, mix};
use crate::time::{Duration, Instant};
use crate::view::{Event, EventKind, Member, MemberState};

/// Nodes whose tables are looked at for staleness: their share is that of all, nearly.
pub const OBSERVERS: usize = 64;

/// Between two looks at whether what is waited for has come true.
const LOOK: Duration = Duration::from_millis(1);

/// Probe intervals after the end of a node's fault in which its suspicions count for the fault. By feel: what was begun
/// during it has been refuted or has run out by then.
const GRACE: u32 = 10;

/// How long a node that leaves may take to tell, and then its process ends.
const LEAVE: Duration = Duration::from_secs(1);

/// Seeds of a node that joins later.
const SEEDS: usize = 3;

/// Steps between two looks at whether somebody wants the trial to end.
const STEPS: u32 = 4096;

const TELL: &str = "sim.tell";
const UPDATE: &str = "sim.update";

/// What was seen in one trial. Times of what happened are since the first phase began.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    pub seed: u64,
    /// The phase in which what it waited for did not come true; the trial ended there.
    pub failed: Option<String>,
    /// The first is `form`, where the scenario gives time for it.
    pub phases: Vec<Passed>,
    pub tells: Vec<Tell>,
    pub detections: Vec<Detection>,
    /// Events about nodes that ran and had no fault, nor were cut off.
    pub false_suspicions: u64,
    pub false_deaths: u64,
    /// Of these, as seen by nodes without a fault: Lifeguard's FP−.
    pub false_deaths_at_healthy: u64,
    pub staleness: Vec<Staleness>,
    /// Equal trials have equal traces.
    pub trace: u64,
}

/// A phase that is over.
#[derive(Clone, Debug, PartialEq)]
pub struct Passed {
    pub name: String,
    pub took: Duration,
    /// Whether what it waited for came true.
    pub fulfilled: Option<bool>,
    pub sent: Traffic,
    pub fates: world::Fates,
    /// Seconds that its nodes ran, all together.
    pub node_seconds: f64,
}

/// A rumor: something that one node wrote into its metadata.
#[derive(Clone, Debug, PartialEq)]
pub struct Tell {
    pub by: String,
    pub at: Duration,
    /// From then to its first packet: a gossip round is counted from there.
    pub first_sent: Duration,
    /// Who heard of it when after `at`, in that order.
    pub known: Vec<(String, Duration)>,
    /// Who ran all the time, and did not hear of it.
    pub unknown: Vec<String>,
}

/// How a fault of a node was noticed by the others.
#[derive(Clone, Debug, PartialEq)]
pub struct Detection {
    /// `kill`, `power_off`, `pause`, …
    pub fault: &'static str,
    pub node: String,
    pub at: Duration,
    /// When the first other one suspected it, and declared it dead; after `at`.
    pub suspected: Option<Duration>,
    pub first: Option<Duration>,
    /// When all others knew that ran all the time; `None` if one did not.
    pub all: Option<Duration>,
    pub knew: usize,
    pub of: usize,
}

/// How far tables are behind, at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Staleness {
    pub at: Duration,
    /// Of all pairs of a node and another that runs, or is thought to: the share that is wrong about that.
    pub members: f64,
    /// And the share that has old metadata of it.
    pub meta: f64,
    /// For how long there had been newer metadata, in seconds; mean over all pairs, those that are up to date included.
    pub age: f64,
}

impl Tell {
    /// When `share` of all knew, who told included. `None`: never.
    pub fn reached(&self, share: f64) -> Option<Duration> {
        let all = 1 + self.known.len() + self.unknown.len();
        let enough = (libm::ceil(share * all as f64) as usize).clamp(1, all);
        match enough {
            1 => Some(Duration::ZERO),
            _ => self.known.get(enough - 2).map(|(_, at)| *at),
        }
    }

    /// In gossip intervals since it was first sent, rounded up.
    pub fn rounds(&self, share: f64, interval: Duration) -> Option<u64> {
        let took = self.reached(share)?.saturating_sub(self.first_sent);
        Some(took.as_nanos().div_ceil(interval.as_nanos().max(1)).max(1) as u64)
    }
}

/// Somebody wants it to end.
pub(super) struct Stopped;

/// Runs one trial of a scenario that is valid.
pub(super) fn run(scenario: &Scenario, seed: u64, stop: &AtomicBool) -> core::result::Result<Trial, Stopped> {
    let mut runner = Runner::new(scenario, seed, stop);
    runner.begin();
    let mut failed = None;
    if !scenario.form.is_zero() {
        let form = Phase { until: Some(Until::Agree), ..Phase::new(FORM, scenario.form) };
        failed = (!runner.phase(&form)?).then(|| FORM.to_string());
    }
    runner.measure();
    for phase in &scenario.phases {
        if failed.is_none() && !runner.phase(phase)? {
            failed = Some(phase.name.clone());
        }
    }
    Ok(runner.end(failed))
}

struct Runner<'a> {
    scenario: &'a Scenario,
    world: World,
    rng: Rng,
    stop: &'a AtomicBool,
    nodes: Vec<Standing>,
    names: BTreeMap<NodeName, NodeIndex>,
    /// By name, as views list them.
    order: Vec<NodeIndex>,
    observers: Vec<NodeIndex>,
    agenda: BTreeMap<(Instant, u64), Act>,
    acts: u64,
    /// When the first phase began, once it did.
    began: Option<Instant>,
    grace: Duration,
    rumors: Vec<Rumor>,
    crashes: Vec<Crash>,
    /// Something has happened since we last looked.
    fresh: bool,
    /// Who others should find alive, what their tables' fingerprint is where one is known to be right, and the place of
    /// who was last seen to lag behind.
    running: Vec<NodeIndex>,
    right: Option<u64>,
    laggard: usize,
    /// Node time up to `counted`.
    node_seconds: f64,
    counted: Instant,
    seen: Trial,
}

/// How a node really is.
struct Standing {
    /// It was started, and has not been ended, nor left.
    up: bool,
    /// Its own fault, from which it has not recovered.
    fault: Option<&'static str>,
    /// Cut off from others.
    apart: bool,
    /// When its last trouble ended.
    well: Option<Instant>,
    crash: Option<usize>,
    /// When it made its updates.
    written: Vec<Instant>,
}

struct Rumor {
    by: NodeIndex,
    id: u64,
    at: Instant,
    sent_before: u64,
    first_sent: Option<Instant>,
    known: BTreeMap<NodeIndex, Instant>,
    /// All others that ran.
    of: Vec<NodeIndex>,
}

struct Crash {
    fault: &'static str,
    node: NodeIndex,
    run: RunId,
    at: Instant,
    suspected: Option<Instant>,
    dead: BTreeMap<NodeIndex, Instant>,
    of: Vec<NodeIndex>,
    closed: bool,
}

enum Act {
    Update,
    Sample,
    /// Deaf now, or well again.
    Flip {
        who: Vec<NodeIndex>,
        deaf: bool,
        times: (Duration, Duration),
    },
    /// Who left ends.
    Gone(NodeIndex),
}

impl<'a> Runner<'a> {
    fn new(scenario: &'a Scenario, seed: u64, stop: &'a AtomicBool) -> Runner<'a> {
        let mut world = World::new(seed);
        world.sealed = scenario.sealed;
        world.set_network(scenario.network).expect("a valid scenario has valid networks");
        let counted = world.now().mono;
        Runner {
            scenario,
            world,
            // Not the world's: what happens to the nodes does not depend on what they do.
            rng: Rng::new(mix(seed ^ 0x7363_656e_6172_696f)),
            stop,
            nodes: Vec::new(),
            names: BTreeMap::new(),
            order: Vec::new(),
            observers: Vec::new(),
            agenda: BTreeMap::new(),
            acts: 0,
            began: None,
            grace: scenario.config.probe_interval * GRACE,
            rumors: Vec::new(),
            crashes: Vec::new(),
            fresh: true,
            running: Vec::new(),
            right: None,
            laggard: 0,
            node_seconds: 0.0,
            counted,
            seen: Trial {
                seed,
                failed: None,
                phases: Vec::new(),
                tells: Vec::new(),
                detections: Vec::new(),
                false_suspicions: 0,
                false_deaths: 0,
                false_deaths_at_healthy: 0,
                staleness: Vec::new(),
                trace: 0,
            },
        }
    }

    fn begin(&mut self) {
        for i in 0..self.scenario.nodes {
            let known = self.scenario.known(i, &mut self.rng);
            self.add(&known);
        }
        let mut observers: Vec<NodeIndex> = (0..self.nodes.len()).collect();
        if self.scenario.topology == Topology::Full {
            self.world.acquaint(&observers);
        }
        self.rng.shuffle(&mut observers);
        observers.truncate(OBSERVERS);
        self.observers = observers;
    }

    fn measure(&mut self) {
        self.began = Some(self.now());
        self.plan(Duration::ZERO, Act::Sample);
    }

    /// Whether all came true that it waited for.
    fn phase(&mut self, phase: &Phase) -> core::result::Result<bool, Stopped> {
        let began = self.now();
        self.count_time();
        let (sent, fates, node_seconds) = (self.world.traffic().clone(), self.world.fates(), self.node_seconds);
        self.set_network(phase.network.unwrap_or(self.scenario.network));
        for fault in &phase.faults {
            self.befall(fault);
        }
        if let Some(who) = &phase.tell {
            self.pick(who, |node| node.up).into_iter().for_each(|i| self.tell(i));
        }
        if phase.updates > 0.0 {
            self.plan_update(phase.updates);
        }
        let fulfilled = self.advance(began + phase.duration, phase)?;
        self.relieve();
        self.count_time();
        self.seen.phases.push(Passed {
            name: phase.name.clone(),
            took: self.now().since(began),
            fulfilled: phase.until.map(|_| fulfilled),
            sent: self.world.traffic().since(&sent),
            fates: self.world.fates().since(&fates),
            node_seconds: self.node_seconds - node_seconds,
        });
        Ok(fulfilled)
    }

    /// Until `end`, or until what the phase waits for is true.
    fn advance(&mut self, end: Instant, phase: &Phase) -> core::result::Result<bool, Stopped> {
        self.fresh = true;
        loop {
            if phase.until.is_some_and(|until| self.holds(until)) {
                return Ok(true);
            }
            let now = self.now();
            if now >= end {
                return Ok(phase.until.is_none());
            }
            let mut next = self.agenda.first_key_value().map_or(end, |((at, _), _)| (*at).min(end));
            if phase.until.is_some() {
                next = next.min(now + LOOK);
            }
            self.run(next)?;
            while let Some(entry) = self.agenda.first_entry().filter(|entry| entry.key().0 <= next) {
                let act = entry.remove();
                self.act(act, phase.updates);
            }
        }
    }

    fn run(&mut self, end: Instant) -> core::result::Result<(), Stopped> {
        let mut steps = 0;
        loop {
            if steps % STEPS == 0 && self.stop.load(Ordering::Relaxed) {
                return Err(Stopped);
            }
            steps += 1;
            let Some(step) = self.world.step(end) else { return Ok(()) };
            if let Some(i) = step.node {
                self.hear(i);
            }
        }
    }

    fn end(mut self, failed: Option<String>) -> Trial {
        let began = self.began.unwrap_or(self.now());
        (0..self.crashes.len()).for_each(|c| self.close(c));
        for rumor in core::mem::take(&mut self.rumors) {
            let name = |i: NodeIndex| self.world.name(i).to_string();
            let mut known: Vec<(Instant, NodeIndex)> = rumor.known.iter().map(|(&i, &at)| (at, i)).collect();
            known.sort_unstable();
            let unknown = rumor.of.iter().filter(|i| self.runs(**i) && !rumor.known.contains_key(i));
            let tell = Tell {
                by: name(rumor.by),
                at: rumor.at.since(began),
                first_sent: rumor.first_sent.map_or(Duration::ZERO, |at| at.since(rumor.at)),
                unknown: unknown.map(|&i| name(i)).collect(),
                known: known.into_iter().map(|(at, i)| (name(i), at.since(rumor.at))).collect(),
            };
            self.seen.tells.push(tell);
        }
        self.seen.failed = failed;
        self.seen.trace = self.world.trace();
        self.seen
    }

    // --- what befalls nodes

    fn add(&mut self, known: &[NodeIndex]) -> NodeIndex {
        let name = self.scenario.name(self.nodes.len());
        let mut config = self.scenario.config.clone();
        config.seeds = known.iter().map(|&j| world::address(j).to_string()).collect();
        self.count_time();
        let i = self.world.add(&name, config);
        self.nodes.push(Standing { up: true, fault: None, apart: false, well: None, crash: None, written: Vec::new() });
        let name = self.world.name(i).clone();
        let place = self.order.partition_point(|&j| *self.world.name(j) < name);
        self.order.insert(place, i);
        self.names.insert(name, i);
        self.truth_changed();
        self.hear(i);
        i
    }

    fn befall(&mut self, fault: &Fault) {
        match fault {
            Fault::Kill(who) => self.strike(who, "kill", |runner, i| runner.world.kill(i)),
            Fault::PowerOff(who) => self.strike(who, "power_off", |runner, i| runner.world.power_off(i)),
            Fault::Pause(who) => self.strike(who, "pause", |runner, i| runner.world.pause(i)),
            Fault::Block(who) => self.strike(who, "block", |runner, i| runner.world.block(i)),
            Fault::Slow(who, service) => self.strike(who, "slow", |runner, i| runner.world.slow(i, *service)),
            Fault::Ingress(who, loss) => self.strike(who, "ingress_loss", |runner, i| runner.deafen(i, Some(*loss))),
            Fault::Egress(who, loss) => self.strike(who, "egress_loss", |runner, i| {
                runner.world.lose_egress(i, Some(*loss)).expect("a valid scenario has valid losses");
            }),
            Fault::FlipFlop { who, deaf, well } => {
                let mut chosen = Vec::new();
                self.strike(who, "flip_flop", |_, i| chosen.push(i));
                self.plan(Duration::ZERO, Act::Flip { who: chosen, deaf: true, times: (*deaf, *well) });
            }
            Fault::Restart(who) => {
                for i in self.pick(who, |node| !node.up) {
                    self.restart(i);
                }
            }
            Fault::Leave(who) => {
                for i in self.pick(who, |node| node.up && node.fault.is_none()) {
                    self.leave(i);
                }
            }
            Fault::Join(more) => {
                for _ in 0..*more {
                    let known = self.pick(&Who::Some(SEEDS), |node| node.up && node.fault.is_none());
                    self.add(&known);
                }
            }
            Fault::Cut { from, to } => {
                let (from, to) = (self.pick(from, |node| node.up), self.pick(to, |node| node.up));
                for &a in &from {
                    to.iter().filter(|&&b| b != a).for_each(|&b| self.world.cut(a, b));
                }
                from.iter().chain(&to).for_each(|&i| self.nodes[i].apart = true);
            }
            Fault::Partition(sides) => {
                let mut rest: Vec<NodeIndex> = (0..self.nodes.len()).collect();
                for side in sides {
                    let side: Vec<_> =
                        self.pick(side, |node| node.up).into_iter().filter(|i| rest.contains(i)).collect();
                    rest.retain(|i| !side.contains(i));
                    self.world.part(&side, &rest);
                }
                self.nodes.iter_mut().for_each(|node| node.apart = true);
            }
        }
        self.truth_changed();
    }

    /// A fault of single nodes, which others ought to notice.
    fn strike(&mut self, who: &Who, fault: &'static str, mut how: impl FnMut(&mut Self, NodeIndex)) {
        for i in self.pick(who, |node| node.up && node.fault.is_none()) {
            self.count_time();
            let others = (0..self.nodes.len()).filter(|&j| j != i && self.runs(j)).collect();
            how(self, i);
            self.nodes[i].up = self.world.is_up(i);
            self.nodes[i].fault = Some(fault);
            self.nodes[i].crash = Some(self.crashes.len());
            let (run, at) = (self.world.run_id(i), self.now());
            self.crashes.push(Crash {
                fault,
                node: i,
                run,
                at,
                suspected: None,
                dead: BTreeMap::new(),
                of: others,
                closed: false,
            });
        }
    }

    /// The phase is over, and with it all that can end.
    fn relieve(&mut self) {
        self.world.heal();
        self.set_network(self.scenario.network);
        self.agenda.retain(|_, act| matches!(act, Act::Sample | Act::Gone(_)));
        let now = self.now();
        for i in 0..self.nodes.len() {
            if !self.nodes[i].up {
                continue;
            }
            if self.nodes[i].fault.is_some() {
                self.world.slow(i, Duration::ZERO);
                self.world.resume(i);
                self.hear(i);
                self.recover(i);
            }
            if core::mem::take(&mut self.nodes[i].apart) {
                self.nodes[i].well = Some(now);
            }
        }
        self.truth_changed();
    }

    fn recover(&mut self, i: NodeIndex) {
        if let Some(crash) = self.nodes[i].crash.take() {
            self.close(crash);
        }
        self.nodes[i].fault = None;
        self.nodes[i].well = Some(self.now());
    }

    fn restart(&mut self, i: NodeIndex) {
        self.count_time();
        self.recover(i);
        self.world.restart(i, None);
        self.nodes[i].up = true;
        self.hear(i);
        // As an application does that has something to say.
        if !self.nodes[i].written.is_empty() {
            self.write(i, UPDATE, self.nodes[i].written.len() as u64);
        }
    }

    fn leave(&mut self, i: NodeIndex) {
        let left = self.world.call(i, |engine, now, out| engine.leave(now, LEAVE, out));
        if left.is_ok() {
            self.count_time();
            self.nodes[i].up = false;
            self.plan(LEAVE, Act::Gone(i));
        }
        self.hear(i);
    }

    fn deafen(&mut self, i: NodeIndex, loss: Option<Loss>) {
        self.world.lose_ingress(i, loss).expect("a valid scenario has valid losses");
    }

    fn pick(&mut self, who: &Who, mut may: impl FnMut(&Standing) -> bool) -> Vec<NodeIndex> {
        let mut all: Vec<NodeIndex> = (0..self.nodes.len()).filter(|&i| may(&self.nodes[i])).collect();
        let most = match who {
            Who::All => return all,
            Who::Named(names) => {
                all.retain(|&i| names.iter().any(|name| **name == **self.world.name(i)));
                return all;
            }
            Who::Some(n) => *n,
            Who::Share(share) => {
                let running = self.nodes.iter().filter(|node| node.up).count();
                libm::ceil(share * running as f64) as usize
            }
        };
        self.rng.shuffle(&mut all);
        all.truncate(most);
        all.sort_unstable();
        all
    }

    // --- work

    fn tell(&mut self, i: NodeIndex) {
        let id = self.rumors.len() as u64 + 1;
        let of = (0..self.nodes.len()).filter(|&j| j != i && self.runs(j)).collect();
        let (at, sent_before) = (self.now(), self.world.sent_by(i).0);
        self.rumors.push(Rumor { by: i, id, at, sent_before, first_sent: None, known: BTreeMap::new(), of });
        self.write(i, TELL, id);
    }

    fn write(&mut self, i: NodeIndex, key: &str, value: u64) {
        let mut value = format!("{value}").into_bytes();
        value.resize(value.len().max(self.scenario.payload), b'.');
        let changes = [(key, Some(&value[..]))];
        // A node that has left, or lost its name, has nothing to say.
        let _: Result<()> = self.world.call(i, |engine, now, out| engine.set_meta(now, &changes, out));
        self.hear(i);
    }

    fn plan_update(&mut self, rate: f64) {
        let gap = -libm::log(1.0 - unit(&mut self.rng)) / rate;
        // An hour is more than any phase waits for its next one.
        self.plan(Duration::from_nanos((gap.min(3600.0) * 1e9) as u64), Act::Update);
    }

    fn plan(&mut self, after: Duration, act: Act) {
        self.acts += 1;
        self.agenda.insert((self.now() + after, self.acts), act);
    }

    fn act(&mut self, act: Act, rate: f64) {
        match act {
            Act::Update => {
                if let Some(&i) = self.pick(&Who::Some(1), |node| node.up && node.fault.is_none()).first() {
                    let now = self.now();
                    self.nodes[i].written.push(now);
                    self.write(i, UPDATE, self.nodes[i].written.len() as u64);
                }
                self.plan_update(rate);
            }
            Act::Sample => {
                if !self.scenario.sample.is_zero() {
                    self.look();
                    self.plan(self.scenario.sample, Act::Sample);
                }
            }
            Act::Flip { who, deaf, times } => {
                who.iter().for_each(|&i| self.deafen(i, deaf.then_some(Loss::Iid(1.0))));
                let lasts = if deaf { times.0 } else { times.1 };
                self.plan(lasts, Act::Flip { who, deaf: !deaf, times });
            }
            Act::Gone(i) => self.world.kill(i),
        }
    }

    // --- what is to be seen

    fn now(&self) -> Instant {
        self.world.now().mono
    }

    /// Whether others should find it alive.
    fn runs(&self, i: NodeIndex) -> bool {
        self.nodes[i].up && self.world.is_running(i)
    }

    fn is_well(&self, i: NodeIndex) -> bool {
        let node = &self.nodes[i];
        let recovered = node.well.is_none_or(|well| self.now() >= well + self.grace);
        node.up && node.fault.is_none() && !node.apart && recovered
    }

    /// What nodes should agree on has changed.
    fn truth_changed(&mut self) {
        self.running = (0..self.nodes.len()).filter(|&j| self.runs(j)).collect();
        self.right = None;
        self.fresh = true;
    }

    fn count_time(&mut self) {
        let up = self.nodes.iter().filter(|node| node.up).count();
        self.node_seconds += up as f64 * self.now().since(self.counted).as_secs_f64();
        self.counted = self.now();
    }

    fn set_network(&mut self, network: Network) {
        self.world.set_network(network).expect("a valid scenario has valid networks");
    }

    /// Takes what `i` reports.
    fn hear(&mut self, i: NodeIndex) {
        for rumor in self.rumors.iter_mut().filter(|rumor| rumor.by == i && rumor.first_sent.is_none()) {
            if self.world.sent_by(i).0 > rumor.sent_before {
                rumor.first_sent = Some(self.world.now().mono);
            }
        }
        for (at, event) in self.world.take_events(i) {
            self.fresh = true;
            let Event { kind, member: Some(member), .. } = event else { continue };
            let Some(&about) = self.names.get(&member.name) else { continue };
            if about == i {
                continue;
            }
            self.hear_rumors(i, at, about, &member);
            match kind {
                EventKind::Suspect => self.accused(
                    i,
                    about,
                    &member,
                    |crash| {
                        crash.suspected.get_or_insert(at);
                    },
                    |seen, _| seen.false_suspicions += 1,
                ),
                EventKind::Dead => self.accused(
                    i,
                    about,
                    &member,
                    |crash| {
                        crash.dead.entry(i).or_insert(at);
                    },
                    |seen, healthy| {
                        seen.false_deaths += 1;
                        seen.false_deaths_at_healthy += u64::from(healthy);
                    },
                ),
                _ => {}
            }
        }
    }

    fn hear_rumors(&mut self, i: NodeIndex, at: Instant, about: NodeIndex, member: &Member) {
        if self.rumors.iter().all(|rumor| rumor.by != about) {
            return;
        }
        let Some(told) = number(member, TELL) else { return };
        for rumor in self.rumors.iter_mut().filter(|rumor| rumor.by == about && rumor.id <= told) {
            rumor.known.entry(i).or_insert(at);
        }
    }

    /// `about` is suspected or dead, as `i` says: rightly, or not.
    fn accused(
        &mut self,
        i: NodeIndex,
        about: NodeIndex,
        member: &Member,
        rightly: impl FnOnce(&mut Crash),
        falsely: impl FnOnce(&mut Trial, bool),
    ) {
        match self.nodes[about].crash {
            Some(crash) if self.crashes[crash].run == member.run => rightly(&mut self.crashes[crash]),
            None if self.began.is_some() && self.is_well(about) && self.world.run_id(about) == member.run => {
                let healthy = self.is_well(i);
                falsely(&mut self.seen, healthy);
            }
            _ => {}
        }
    }

    /// What is known of a crash is all that will be.
    fn close(&mut self, crash: usize) {
        if core::mem::replace(&mut self.crashes[crash].closed, true) {
            return;
        }
        let Crash { fault, node, at, suspected, ref dead, ref of, .. } = self.crashes[crash];
        let began = self.began.unwrap_or(at);
        let of: Vec<NodeIndex> = of.iter().copied().filter(|&i| self.runs(i)).collect();
        let knew: Vec<Instant> = of.iter().filter_map(|i| dead.get(i)).copied().collect();
        let all = (knew.len() == of.len()).then(|| knew.iter().max().map(|last| last.since(at))).flatten();
        self.seen.detections.push(Detection {
            fault,
            node: self.world.name(node).to_string(),
            at: at.since(began),
            suspected: suspected.map(|first| first.since(at)),
            first: dead.values().min().map(|first| first.since(at)),
            all,
            knew: knew.len(),
            of: of.len(),
        });
    }

    fn holds(&mut self, until: Until) -> bool {
        core::mem::take(&mut self.fresh)
            && match until {
                Until::Agree => self.agree(),
                Until::Reach(share) => self.reached(share),
            }
    }

    fn reached(&self, share: f64) -> bool {
        self.rumors.iter().all(|rumor| {
            let (mut all, mut know) = (1, 1);
            for &i in rumor.of.iter().filter(|&&i| self.runs(i)) {
                all += 1;
                know += usize::from(rumor.known.contains_key(&i));
            }
            know as f64 >= share * all as f64
        })
    }

    fn agree(&mut self) -> bool {
        // Who lagged behind last time does so still, most times.
        let n = self.running.len();
        for k in 0..n {
            let at = (self.laggard + k) % n;
            if !self.world.lists_exactly(self.running[at], &self.running, &mut self.right) {
                self.laggard = at;
                return false;
            }
        }
        true
    }

    fn look(&mut self) {
        let now = self.now();
        let (mut pairs, mut wrong, mut old, mut age) = (0u64, 0u64, 0u64, 0.0);
        for at in 0..self.observers.len() {
            let i = self.observers[at];
            if !self.runs(i) {
                continue;
            }
            let view = self.world.view(i);
            let mut listed = view.members.iter().peekable();
            for &j in &self.order {
                while listed.peek().is_some_and(|m| m.name < *self.world.name(j)) {
                    listed.next();
                }
                if j == i {
                    continue;
                }
                let member = listed.peek().filter(|m| m.name == *self.world.name(j) && m.state <= MemberState::Suspect);
                let runs = self.runs(j);
                pairs += u64::from(runs || member.is_some());
                wrong += u64::from(runs != member.is_some());
                if let Some(member) = member.filter(|_| runs) {
                    let known = number(member, UPDATE).unwrap_or(0) as usize;
                    if let Some(newer) = self.nodes[j].written.get(known) {
                        old += 1;
                        age += now.since(*newer).as_secs_f64();
                    }
                }
            }
        }
        let of = |count: f64| if pairs == 0 { 0.0 } else { count / pairs as f64 };
        let at = now.since(self.began.unwrap_or(now));
        let (members, meta, age) = (of(wrong as f64), of(old as f64), of(age));
        self.seen.staleness.push(Staleness { at, members, meta, age });
    }
}

/// What `write` wrote.
fn number(member: &Member, key: &str) -> Option<u64> {
    let value = core::str::from_utf8(member.meta.get(key)?).ok()?;
    value.trim_end_matches('.').parse().ok()
}
