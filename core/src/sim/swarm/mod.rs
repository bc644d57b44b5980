//! Random clusters with random faults, held to what must hold: a seed is a run, and a run that fails is a seed.
//!
//! ```text
//!   draw ──► chaos: the plan's faults ──► heal: all, or a core ──► agree, within a bound ──► peace, for a minute
//!            └────────────── checks after every turn (`check`) ───────────────────────────────────┘
//! ```
//!
//! Healing only a core, while the others stay broken in ways of their own, is TigerBeetle's idea: uniform healing hides
//! what one member with half a link does to the rest. `examples/swarm.rs` runs many seeds; docs/SWARM.md is for people.

mod coverage;
mod ears;
mod flow;
mod mail;
mod plan;
mod polls;
mod shrink;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::SocketAddr;

pub use coverage::{Coverage, EXEMPT, Moment, Point};
pub use ears::Tone;
pub use mail::How;
pub use plan::{Action, Clocks, Fault, Heal, Net, Plan, Plight, Sealing, Who};
pub use polls::{Of, Poll};
pub use shrink::shrink;

use self::ears::Ears;
use super::check::{Checks, Rule, Violation};
use super::transcript::Transcript;
use super::world::{Happening, address};
use super::{Loss, Network, NodeIndex, World};
use crate::config::{Config, Detector, Membership};
use crate::engine::Mutant;
use crate::id::RunId;
use crate::protocol::suspicion;
use crate::rhythm;
use crate::rng::mix;
use crate::time::{Duration, Instant};
use crate::view::{EventKind, MemberState};

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub seed: u64,
    /// Equal runs have equal traces.
    pub trace: u64,
    pub violation: Option<Violation>,
    pub coverage: Coverage,
    pub steps: u64,
    pub simulated: Duration,
    /// How long agreement took after the healing, and how long it was allowed to.
    pub agreed: Option<(Duration, Duration)>,
    /// The most packets that were sent in a second, for each node.
    pub busiest: u64,
}

/// Runs a plan. The same plan gives the same outcome.
pub fn run(plan: &Plan) -> Outcome {
    run_with(plan, None)
}

/// With a rule broken in every engine: the checks must notice.
pub fn run_with(plan: &Plan, mutant: Option<Mutant>) -> Outcome {
    let mut swarm = Swarm::new(plan, mutant);
    let violation = swarm.play().err();
    swarm.outcome(violation)
}

/// The whole run as text.
pub fn transcript(plan: &Plan) -> String {
    let mut swarm = Swarm::new(plan, None);
    swarm.transcript = Some(Transcript::of(&mut swarm.world));
    let end = swarm.play().err();
    let end = end.map_or("all is well".to_string(), |violation| violation.to_string());
    swarm.note(|| end);
    let Swarm { mut world, transcript, .. } = swarm;
    transcript.map_or(String::new(), |mut transcript| transcript.text(&mut world, true))
}

/// Runs a plan twice: a seed must be a run.
pub fn run_twice(plan: &Plan) -> Outcome {
    let (first, mut second) = (run(plan), run(plan));
    if first.violation.is_none() && first.trace != second.trace {
        let what = format!("its trace is {:016x} and then {:016x}", first.trace, second.trace);
        second.violation = Some(Violation { rule: Rule::Repeatable, at: second.simulated, node: None, what });
    }
    second
}

struct Swarm<'a> {
    plan: &'a Plan,
    config: Config,
    world: World,
    checks: Checks,
    began: Instant,
    /// Members by their number; the first is everybody's seed.
    ours: Vec<NodeIndex>,
    /// Second nodes of names, and those that no member lets in.
    twins: Vec<NodeIndex>,
    outsiders: Vec<NodeIndex>,
    addresses: usize,
    writes: u64,
    ears: Ears,
    mail: mail::Mail,
    polls: polls::Polls,
    flows: flow::Flows,
    coverage: Coverage,
    transcript: Option<Transcript>,
    /// Events read, and runs forgotten, by node.
    read: Vec<(usize, Vec<RunId>)>,
    agreed: Option<(Duration, Duration)>,
}

const STEP: Duration = Duration::from_millis(50);
const PEACE: Duration = Duration::from_secs(60);
/// Addresses that are nobody's by rights.
const SPARE: usize = 1_000;
const SEED_NAME: &str = "seed.example";

impl<'a> Swarm<'a> {
    fn new(plan: &'a Plan, mutant: Option<Mutant>) -> Swarm<'a> {
        let mut world = World::new(plan.seed);
        world.sealed = plan.sealing != Sealing::None;
        world.mutant = mutant;
        world.judges = Some(ears::judges());
        world.log = Some(Vec::new());
        Swarm {
            plan,
            config: plan.config(),
            began: world.now().mono,
            world,
            checks: Checks::default(),
            ours: Vec::new(),
            twins: Vec::new(),
            outsiders: Vec::new(),
            addresses: SPARE,
            writes: 0,
            ears: Ears::default(),
            mail: mail::Mail::default(),
            polls: polls::Polls::default(),
            flows: flow::Flows::default(),
            coverage: Coverage::default(),
            transcript: None,
            read: Vec::new(),
            agreed: None,
        }
    }

    fn outcome(mut self, violation: Option<Violation>) -> Outcome {
        for i in 0..self.world.len() {
            self.coverage.on_counters(self.world.engine(i).counters());
        }
        for (i, &n) in self.world.rejects().iter().enumerate() {
            if n > 0 {
                self.coverage.hit(Point::Reject(i));
            }
        }
        if self.flows.is_any_whole() {
            self.coverage.hit(Point::Moment(Moment::StreamWhole));
        }
        if self.world.overflowed() > 0 {
            self.coverage.hit(Point::Moment(Moment::Overflowed));
        }
        let mut coverage = Coverage::default();
        coverage.add(&self.coverage);
        Outcome {
            seed: self.plan.seed,
            trace: self.world.trace(),
            violation,
            coverage,
            steps: self.world.steps(),
            simulated: self.world.now().mono.since(self.began),
            agreed: self.agreed,
            busiest: self.checks.busiest(),
        }
    }

    fn play(&mut self) -> Result<(), Violation> {
        self.plan.faults.iter().for_each(|&fault| self.coverage.hit(Point::Fault(fault)));
        for _ in 0..self.plan.n {
            self.newcomer();
        }
        self.look_at_all()?;
        for &(at, action) in &self.plan.actions {
            self.run_until(self.began + at)?;
            self.note(|| format!("{action:?}"));
            self.act(action);
            self.look_at_all()?;
        }
        self.run_until(self.began + self.plan.chaos)?;
        let heal = &self.plan.heal;
        self.note(|| format!("heal {heal:?}"));
        self.heal();
        self.look_at_all()?;
        // What was on its way when the network was mended is still the old network's.
        self.run_until(self.world.last_arrival())?;
        self.agree()?;
        self.peace()
    }

    // --- steps ---

    fn run_until(&mut self, end: Instant) -> Result<(), Violation> {
        while let Some(step) = self.world.step(end) {
            if let Some(i) = step.node {
                self.look(i)?;
            }
        }
        Ok(())
    }

    fn look_at_all(&mut self) -> Result<(), Violation> {
        (0..self.world.len()).try_for_each(|i| self.look(i))
    }

    fn look(&mut self, i: NodeIndex) -> Result<(), Violation> {
        if self.world.is_up(i) {
            self.checks.after(&mut self.world, i)?;
        }
        if let Err(what) = self.mail.look(&self.world, i) {
            return Err(self.broken(Rule::Mail, Some(i), what));
        }
        if let Err(what) = self.polls.look(&self.world, i) {
            return Err(self.broken(Rule::Polls, Some(i), what));
        }
        if let Err(what) = self.flows.look(&mut self.world, i) {
            return Err(self.broken(Rule::Flow, Some(i), what));
        }
        self.read_log();
        if let Some(what) = self.ears.listen(&self.world, i) {
            return Err(self.broken(Rule::Once, Some(i), what));
        }
        if self.read.len() <= i {
            self.read.resize(i + 1, (0, Vec::new()));
        }
        let (read, forgotten) = &mut self.read[i];
        if *read == self.world.events(i).len() {
            return Ok(());
        }
        let mut left = false;
        for (_, event) in &self.world.events(i)[*read..] {
            self.coverage.on_event(event, forgotten);
            match (event.kind, &event.member) {
                (EventKind::Forgotten, Some(member)) => forgotten.push(member.run),
                (EventKind::LeaveDone, _) => left = true,
                _ => {}
            }
        }
        *read = self.world.events(i).len();
        // Most programs end when they have left; some stay, and say nothing any more.
        if left && mix(self.plan.seed ^ i as u64).is_multiple_of(2) {
            self.stop(i);
        }
        Ok(())
    }

    fn read_log(&mut self) {
        let mut log = self.world.log.replace(Vec::new()).unwrap_or_default();
        for (at, happening) in log.drain(..) {
            if let Happening::Packet(letter) = &happening {
                self.coverage.on_packet(letter);
            }
            if let Some(transcript) = &mut self.transcript {
                transcript.add(&self.world, at, happening);
            }
        }
        self.world.log = Some(log);
    }

    fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(transcript) = &mut self.transcript {
            transcript.note(&mut self.world, &text());
        }
    }

    fn broken(&self, rule: Rule, node: Option<NodeIndex>, what: String) -> Violation {
        let at = self.world.now().mono.since(self.began);
        Violation { rule, at, node: node.map(|i| self.world.name(i).clone()), what }
    }

    // --- nodes ---

    /// One more of ours.
    fn newcomer(&mut self) {
        let who = self.ours.len();
        let mut config = self.config.clone();
        for (_, key, value) in self.plan.odd.iter().filter(|(odd, ..)| *odd == who) {
            config.set(key, value).expect("drawn within the bounds");
        }
        if who == 0 {
            let at = self.world.len();
            self.world.names.insert(SEED_NAME.into(), alloc::vec![address(at)]);
        } else {
            config.seeds = self.seeds();
            let others = self.plan.seeds.min(who - 1);
            config.seeds.extend((1..=others).map(|i| address(i).to_string()));
        }
        self.world.clock = self.plan.clock(self.world.len());
        let node = self.world.add(&format!("n{}", self.world.len()), config);
        self.ours.push(node);
    }

    fn seeds(&self) -> Vec<String> {
        alloc::vec![if self.plan.named { SEED_NAME.into() } else { address(0).to_string() }]
    }

    fn who(&self, who: Who) -> NodeIndex {
        self.ours[who % self.ours.len()]
    }

    fn is_anchor(&self, i: NodeIndex) -> bool {
        self.ours[0] == i
    }

    fn stop(&mut self, i: NodeIndex) {
        if self.world.is_up(i) {
            self.ears.stop(&self.world, i);
            self.coverage.on_counters(self.world.engine(i).counters());
            self.world.kill(i);
        }
    }

    fn spare_address(&mut self) -> SocketAddr {
        self.addresses += 1;
        address(self.addresses)
    }

    /// A new run of that name, where it was unless somebody is there now.
    fn restart(&mut self, i: NodeIndex, moves: bool) {
        self.stop(i);
        let addr = self.world.address(i);
        let taken = (0..self.world.len()).any(|j| j != i && self.world.is_up(j) && self.world.address(j) == addr);
        let moves = moves && (self.plan.named || !self.is_anchor(i));
        let addr = (moves || taken).then(|| self.spare_address());
        self.world.restart(i, addr);
        if self.is_anchor(i) {
            self.world.names.insert(SEED_NAME.into(), alloc::vec![self.world.address(i)]);
        }
    }

    /// Takes part: it has neither left nor lost its name.
    fn is_member(&mut self, i: NodeIndex) -> bool {
        let now = self.world.now().mono;
        self.world.is_up(i)
            && self.world.engine(i).deadline(now).is_some()
            && self.world.view(i).local().state == MemberState::Alive
    }

    // --- faults ---

    fn act(&mut self, action: Action) {
        let all: Vec<NodeIndex> = (0..self.world.len()).collect();
        let world = &mut self.world;
        let ours = &self.ours;
        let who = |who: Who| ours[who % ours.len()];
        match action {
            Action::Net(net) => {
                let mut network = world.network();
                match net {
                    Net::Loss(loss) => network.loss = loss,
                    Net::Duplicate(p) => network.duplicate = p,
                    Net::Reorder(p) => network.reorder = p,
                    Net::Delay(delay) => network.delay = delay,
                    Net::Corrupt(p) => network.corrupt = p,
                    Net::Truncate(p) => network.truncate = p,
                    Net::Replay(p) => network.replay = p,
                    Net::Mtu(mtu) => network.mtu = Some(mtu),
                    Net::Bandwidth(rate, queue) => (network.bandwidth, network.queue) = (Some(rate), queue),
                    Net::UdpBlocked => network.udp_blocked = true,
                    Net::TcpBlocked => network.tcp_blocked = true,
                    Net::Calm => network = Network::default(),
                }
                world.set_network(network).expect("drawn within the bounds");
            }
            Action::Cut(a, b) => world.cut(who(a), who(b)),
            Action::Split(a, b) => {
                world.cut(who(a), who(b));
                world.cut(who(b), who(a));
            }
            Action::Part(sides) => {
                let (left, right): (Vec<_>, Vec<_>) = all.iter().partition(|&&i| sides >> (i % 64) & 1 == 1);
                world.part(&left, &right);
            }
            Action::Ring => {
                let n = ours.len();
                for (a, b) in (0..n).flat_map(|a| (0..n).map(move |b| (a, b))) {
                    if a != b && (a + 1) % n != b && (b + 1) % n != a {
                        world.cut(ours[a], ours[b]);
                    }
                }
            }
            Action::Bridge(b) => {
                let bridge = who(b);
                let (left, right): (Vec<_>, Vec<_>) = ours.iter().filter(|&&i| i != bridge).partition(|&&i| i % 2 == 0);
                world.part(&left, &right);
            }
            Action::LoseIn(i, loss) => world.lose_ingress(who(i), Some(loss)).expect("drawn within the bounds"),
            Action::LoseOut(i, loss) => world.lose_egress(who(i), Some(loss)).expect("drawn within the bounds"),
            Action::Heal => world.heal(),
            Action::Kill(i) => self.stop(self.who(i)),
            Action::PowerOff(i) => {
                let i = self.who(i);
                self.stop(i);
                self.world.power_off(i);
            }
            Action::Restart(i) => self.restart(self.who(i), false),
            Action::Move(i) => self.restart(self.who(i), true),
            Action::Rename(i) => {
                let i = self.who(i);
                if self.world.is_up(i) {
                    self.stop(i);
                    let name = format!("n{}", self.world.len());
                    let tenant = self.world.replace(i, &name);
                    self.ours.iter_mut().filter(|o| **o == i).for_each(|o| *o = tenant);
                }
            }
            Action::StepWall(i, ms) => world.step_wall(who(i), ms),
            Action::Twin(i) => {
                let i = self.who(i);
                let (name, mut config) = (self.world.name(i).clone(), Config::clone(self.world.config(i)));
                config.seeds = self.seeds();
                let addr = self.spare_address();
                let twin = self.world.add_at(addr, &name, config);
                self.twins.push(twin);
            }
            Action::Tenant(i) => {
                let i = self.who(i);
                if self.world.is_up(i) && !self.is_anchor(i) {
                    self.stop(i);
                    let mut config = self.config.clone();
                    config.seeds = self.seeds();
                    // By its label, by its key, or in clear where we are not.
                    match mix(self.plan.seed) % 3 {
                        0 if !config.keys.is_empty() => config.keys = Vec::new(),
                        1 if !config.keys.is_empty() => config.keys = alloc::vec![[9; 32]],
                        _ => config.cluster = "another".into(),
                    }
                    let (addr, name) = (self.world.address(i), format!("x{}", self.world.len()));
                    let tenant = self.world.add_at(addr, &name, config);
                    self.outsiders.push(tenant);
                }
            }
            Action::Outdated => {
                let mut config = self.config.clone();
                config.seeds = self.seeds();
                // Too old, or of the kind that we are not.
                match mix(self.plan.seed ^ 5) % 3 {
                    0 if self.plan.is_partial() => config.membership = Membership::Full,
                    0 if config.detector == Detector::Swim => config.membership = Membership::Partial,
                    _ => (config.app_version, config.app_version_min) = (1, 1),
                }
                let (addr, name) = (self.spare_address(), format!("old{}", self.world.len()));
                let old = self.world.add_at(addr, &name, config);
                self.outsiders.push(old);
            }
            Action::Pause(i) if world.is_running(who(i)) => world.pause(who(i)),
            Action::Block(i) if world.is_running(who(i)) => world.block(who(i)),
            Action::Resume(i) if world.is_up(who(i)) && !world.is_running(who(i)) => world.resume(who(i)),
            Action::Slow(i, ms) => world.slow(who(i), Duration::from_millis(ms)),
            Action::Buffer(len) => world.receive_queue = len,
            Action::Herd(size) => (0..size).for_each(|_| self.newcomer()),
            // An application on a stopped machine does nothing either.
            Action::Leave(i, timeout) if world.is_running(who(i)) => {
                let _ = world.call(who(i), |e, now, out| e.leave(now, timeout, out));
            }
            Action::JoinBy(i, by) if world.is_running(who(i)) => {
                let at = world.address(who(by));
                let _ = world.call(who(i), |e, now, out| e.join(now, &[alloc::vec![at]], out));
            }
            Action::Meta(i, bytes) if world.is_running(who(i)) => {
                self.writes += 1;
                let key = format!("k{}", bytes % 5);
                let value = alloc::vec![self.writes as u8; bytes];
                let _ = world.call(who(i), |e, now, out| e.set_meta(now, &[(&key, Some(&value))], out));
            }
            Action::Storm(i, times) if world.is_running(who(i)) => {
                for _ in 0..times {
                    self.writes += 1;
                    let value = self.writes.to_le_bytes();
                    let _ = world.call(who(i), |e, now, out| e.set_meta(now, &[("load", Some(&value))], out));
                }
            }
            Action::Send { from, to, how, len, times } if world.is_running(who(from)) => {
                let (from, to) = (who(from), who(to));
                (0..times).for_each(|_| self.mail.say(world, from, to, how, len));
            }
            Action::Ask(i, poll) if world.is_running(who(i)) => self.polls.ask(world, who(i), poll),
            Action::Flow { from, to, lengths } if world.is_running(who(from)) => {
                let (from, to) = (who(from), who(to));
                self.flows.open(&mut self.world, from, to, lengths);
            }
            Action::Unset(i) if world.is_running(who(i)) => {
                let gone: Vec<(String, Option<&[u8]>)> = (0..5).map(|k| (format!("k{k}"), None)).collect();
                let gone: Vec<(&str, Option<&[u8]>)> = gone.iter().map(|(k, v)| (k.as_str(), *v)).collect();
                let _ = world.call(who(i), |e, now, out| e.set_meta(now, &gone, out));
            }
            Action::Say(i, bytes, times, tone) if world.is_running(who(i)) => {
                let by = who(i);
                for _ in 0..times {
                    self.ears.say(&mut self.world, by, bytes, tone);
                }
            }
            Action::Pause(_)
            | Action::Block(_)
            | Action::Resume(_)
            | Action::Leave(..)
            | Action::JoinBy(..)
            | Action::Meta(..)
            | Action::Storm(..)
            | Action::Unset(_)
            | Action::Say(..)
            | Action::Ask(..)
            | Action::Send { .. }
            | Action::Flow { .. } => {}
        }
    }

    // --- healing ---

    fn heal(&mut self) {
        self.world.set_network(Network::default()).expect("the default is valid");
        self.world.heal();
        self.world.receive_queue = 270;
        if mix(self.plan.seed ^ 1).is_multiple_of(2) || matches!(self.plan.heal, Heal::Core { .. }) {
            // An administrator finds the doubles.
            self.twins.clone().into_iter().for_each(|i| self.stop(i));
        }
        let all: Vec<NodeIndex> = (0..self.world.len()).collect();
        for i in all.into_iter() {
            if self.world.is_up(i) && !self.world.is_running(i) {
                self.world.resume(i);
            }
            self.world.slow(i, Duration::ZERO);
        }
        let restart = !matches!(self.plan.heal, Heal::All { restart: false });
        for who in 0..self.ours.len() {
            let i = self.ours[who];
            if self.is_member(i) {
                continue;
            }
            self.stop(i);
            if restart || who == 0 {
                // Whoever took its name makes room for it.
                let namesakes = self.twins.iter().copied().filter(|&t| self.world.name(t) == self.world.name(i));
                namesakes.collect::<Vec<_>>().into_iter().for_each(|t| self.stop(t));
                self.restart(i, false);
            }
        }
        match &self.plan.heal {
            Heal::All { .. } => self.coverage.hit(Point::Moment(Moment::HealedAll)),
            Heal::Core { members, plights } => {
                self.coverage.hit(Point::Moment(Moment::HealedCore));
                for who in (0..self.plan.n).filter(|who| members >> who & 1 == 0) {
                    self.inflict(self.ours[who], plights[who]);
                }
            }
        }
    }

    /// A fault that stays.
    fn inflict(&mut self, i: NodeIndex, plight: Plight) {
        let others: Vec<NodeIndex> = (0..self.world.len()).filter(|&j| j != i).collect();
        let world = &mut self.world;
        match plight {
            Plight::Down => self.stop(i),
            Plight::Paused => world.pause(i),
            Plight::Blocked => world.block(i),
            Plight::Mute => others.iter().for_each(|&j| world.cut(i, j)),
            Plight::Deaf => others.iter().for_each(|&j| world.cut(j, i)),
            Plight::Half => others.iter().filter(|&&j| j % 2 == i % 2).for_each(|&j| {
                world.cut(i, j);
                world.cut(j, i);
            }),
            Plight::LosesIn => world.lose_ingress(i, Some(Loss::Iid(0.8))).expect("a probability"),
            Plight::LosesOut => world.lose_egress(i, Some(Loss::Iid(0.8))).expect("a probability"),
            Plight::Slow => world.slow(i, Duration::from_secs(4)),
        }
    }

    // --- the end ---

    /// Who must agree, and on whom: each name's one holder. A twin is out when it is silent, or alone.
    fn core(&mut self) -> Vec<NodeIndex> {
        let well = |who: usize| match &self.plan.heal {
            Heal::Core { members, .. } if who < self.plan.n => members >> who & 1 == 1,
            _ => true,
        };
        let ours: Vec<NodeIndex> = (0..self.ours.len()).filter(|&who| well(who)).map(|who| self.ours[who]).collect();
        let twins = self.twins.clone();
        let up: Vec<NodeIndex> = ours.into_iter().chain(twins).filter(|&i| self.is_member(i)).collect();
        let judge = self.world.view(self.ours[0]);
        let holds = |world: &World, i: NodeIndex| judge.find(world.name(i)).is_some_and(|m| m.run == world.run_id(i));
        let mut core: Vec<NodeIndex> = Vec::new();
        for &i in &up {
            let doubles = up.iter().filter(|&&j| self.world.name(j) == self.world.name(i)).count();
            if doubles == 1 || holds(&self.world, i) {
                core.push(i);
            }
        }
        core
    }

    /// How long it may take after the healing until all agree.
    ///
    /// - local health recovers by one for each probe that is answered, and stretches the pause before the next:
    ///   (S + 1)(S + 2) / 2 periods;
    /// - the dead are found, and the last differences mended, in O(log n) periods; without `sync_on_mismatch` in as many
    ///   exchanges;
    /// - a suspicion lasts at most as long as one that nobody confirms; with `detector = phi` it begins when the silence is
    ///   some multiple of intervals, none of which counts as longer than ten periods;
    /// - who is held back for flapping returns within two half-lives;
    /// - who is alone calls its seeds within `seed_retry_max` and its jitter; two parts that forgot each other
    ///   meet when a member of one calls a seed in the other: one call in three is to a seed, one of `seeds` by lot.
    fn bound(&self) -> Duration {
        let config = &self.config;
        let log = (usize::BITS - self.world.len().leading_zeros()) + 1;
        let health = config.local_health_max as u32 + 1;
        let period = config.probe_interval;
        let recovery = period * (health * (health + 1) / 2);
        let mismatch = config.sync_on_mismatch && self.plan.odd.is_empty();
        let mending = period * (8 * log) + if mismatch { Duration::ZERO } else { config.sync_interval * (4 * log) };
        let verdict = suspicion::timeout(config, self.world.len(), 0)
            + (config.probe_timeout + config.probe_indirect_timeout) * health;
        let lots = 1 + 11 * self.plan.seeds as u32;
        let meeting = config.heal_interval * (3 * lots) + config.seed_retry_max * 5 / 4 + config.join_timeout * 2;
        let silence = match config.detector {
            Detector::Swim => Duration::ZERO,
            Detector::Phi => period * (10 * 24 * config.phi_threshold.0 / 10_000),
        };
        let flapping = config.flap_half_life * 2;
        // Clocks may be slow by 5 %.
        (recovery + mending + verdict + silence + meeting + flapping) * 11 / 10
    }

    fn agree(&mut self) -> Result<(), Violation> {
        let (start, bound) = (self.world.now().mono, self.bound());
        loop {
            let core = self.core();
            match self.difference(&core) {
                None => break,
                Some((i, what)) if self.world.now().mono.since(start) >= bound => {
                    let what = format!("after {:.0} s of health: {what}", bound.as_secs_f64());
                    return Err(self.broken(Rule::Agreement, Some(i), what));
                }
                Some(_) => self.run_until(self.world.now().mono + STEP)?,
            }
        }
        self.agreed.get_or_insert((self.world.now().mono.since(start), bound));
        Ok(())
    }

    /// The first thing that is wrong with the neighbours of who knows nobody else: links have two ends, both well; views are
    /// apart; all are connected, and know it.
    fn flaw(&mut self, core: &[NodeIndex]) -> Option<(NodeIndex, String)> {
        let ours: BTreeMap<RunId, NodeIndex> = core.iter().map(|&i| (self.world.run_id(i), i)).collect();
        let world = &self.world;
        for &i in core {
            let neighbours = world.engine(i).neighbours();
            if let Some(run) = world.engine(i).remembered().find(|run| neighbours.contains(run)) {
                return Some((i, format!("has {run:?} in both views")));
            }
            for run in neighbours {
                let Some(&other) = ours.get(run) else { return Some((i, format!("has {run:?} for a neighbour"))) };
                if !world.engine(other).neighbours().contains(&world.run_id(i)) {
                    return Some((i, format!("is no neighbour of {}, its own", world.name(other))));
                }
            }
        }
        let (mut seen, mut queue) = (BTreeSet::from([core[0]]), alloc::vec![core[0]]);
        while let Some(i) = queue.pop() {
            queue.extend(world.engine(i).neighbours().iter().map(|run| ours[run]).filter(|&j| seen.insert(j)));
        }
        if let Some(&i) = core.iter().find(|i| !seen.contains(i)) {
            return Some((i, format!("is not connected with {}", world.name(core[0]))));
        }
        let root = world.engine(core[0]).island();
        let other = core.iter().find(|&&i| world.engine(i).island() != root);
        other.map(|&i| (i, "thinks that it is on another island".into()))
    }

    /// The first thing on which they do not agree.
    fn difference(&mut self, core: &[NodeIndex]) -> Option<(NodeIndex, String)> {
        if self.plan.is_partial() {
            return self.flaw(core);
        }
        let whole = matches!(self.plan.heal, Heal::All { .. });
        let first = self.world.engine(self.ours[0]).fingerprint();
        for &i in core {
            let view = self.world.view(i);
            let live = view.live().count();
            if whole && live != core.len() {
                let names: Vec<&str> = view.live().map(|m| &*m.name).collect();
                return Some((i, format!("lists {live} members of {}: {}", core.len(), names.join(" "))));
            }
            if whole && self.world.engine(i).fingerprint() != first {
                return Some((i, "its fingerprint is another".into()));
            }
            for &j in core {
                let own = self.world.view(j);
                let own = own.local();
                let Some(said) = view.find(&own.name) else { return Some((i, format!("does not list {}", own.name))) };
                let same = (said.run, said.epoch, said.incarnation, said.address, said.state)
                    == (own.run, own.epoch, own.incarnation, own.address, own.state);
                if !same || said.meta != own.meta {
                    let text = |m: &crate::view::Member| {
                        format!(
                            "{:?} {:?} epoch {} inc {} at {} with {} keys",
                            m.state,
                            m.run,
                            m.epoch.0,
                            m.incarnation.0,
                            m.address,
                            m.meta.len()
                        )
                    };
                    return Some((i, format!("knows {} as {}, it is {}", own.name, text(said), text(own))));
                }
            }
        }
        for twin in self.twins.clone() {
            if core.contains(&twin) || !self.world.is_up(twin) {
                continue;
            }
            self.coverage.hit(Point::Moment(Moment::Silenced));
            if self.is_member(twin) && self.world.live(twin) > 1 {
                return Some((twin, "has a name that another holds, and takes part".into()));
            }
        }
        None
    }

    fn peace(&mut self) -> Result<(), Violation> {
        // Suspicions and probes of the bad times may still end.
        let config = &self.config;
        let rest = suspicion::timeout(config, self.world.len(), 0)
            + config.probe_interval * (config.local_health_max as u32 + 4);
        self.run_until(self.world.now().mono + rest)?;
        if self.flows.is_used() {
            // Who was taken for dead, and has nothing to say, asks so often.
            self.run_until(self.world.now().mono + self.config.sync_interval * 3)?;
        }
        self.end_rumors()?;
        self.agree()?;
        let core = self.core();
        let before: Vec<usize> = core.iter().map(|&i| self.world.events(i).len()).collect();
        let sent: u64 = core.iter().map(|&i| self.world.sent_by(i).0).sum();
        self.run_until(self.world.now().mono + PEACE)?;
        let partial = self.plan.is_partial();
        let whole = matches!(self.plan.heal, Heal::All { .. });
        let open = core.iter().find_map(|&i| self.flows.waits(&self.world, i).filter(|_| whole).map(|what| (i, what)));
        if let Some((i, what)) = open {
            return Err(self.broken(Rule::Flow, Some(i), what));
        }
        let waits = core.iter().find_map(|&i| self.mail.waits(&self.world, i).filter(|_| whole).map(|what| (i, what)));
        if let Some((i, what)) = waits {
            return Err(self.broken(Rule::Mail, Some(i), what));
        }
        let waits = core.iter().find_map(|&i| self.polls.waits(&self.world, i).map(|what| (i, what)));
        if let Some((i, what)) = waits {
            return Err(self.broken(Rule::Polls, Some(i), what));
        }
        // Where the accused is not told of it with the next ping, one member with half a link may outrun its refutation.
        // So may it where who missed a refutation does not notice that it differs from the others, or has no time to: with
        // no confirmations to wait for, a suspicion is as short as it can be.
        let warned = core.iter().all(|&i| {
            let config = self.world.config(i);
            config.buddy && config.sync_on_mismatch && config.suspicion_confirmations > 0
        });
        for (&i, before) in core.iter().zip(before) {
            for (_, event) in &self.world.events(i)[before..] {
                let about = event.member.as_ref().map_or("", |m| &*m.name);
                let run = event.member.as_ref().map(|m| m.run);
                let of_core = core.iter().any(|&j| Some(self.world.run_id(j)) == run);
                if event.kind == EventKind::Dead && of_core && warned {
                    return Err(self.broken(
                        Rule::FalseDeath,
                        Some(i),
                        format!("holds {about} for dead, which is well"),
                    ));
                }
                let calm = matches!(
                    event.kind,
                    EventKind::Forgotten
                        | EventKind::Settled
                        | EventKind::Warning
                        | EventKind::Gap
                        | EventKind::Writable
                );
                // Who lacks a neighbour goes on looking for one, and so others change theirs: they get to know somebody, and
                // what is waited for from who is known no more ends.
                let calm = calm
                    || partial
                        && matches!(
                            event.kind,
                            EventKind::Join | EventKind::Alive | EventKind::Update | EventKind::Receipt
                        )
                    // Who is asked about again only now may have been over for long.
                    || partial && event.kind == EventKind::Dead && !of_core;
                if whole && !calm {
                    let what = format!("reports {} {about} in time of peace", event.kind.name());
                    return Err(self.broken(Rule::Peace, Some(i), what));
                }
            }
        }
        let others = self.twins.iter().chain(&self.outsiders).any(|&i| self.world.is_up(i));
        let sent = core.iter().map(|&i| self.world.sent_by(i).0).sum::<u64>() - sent;
        if whole && !others && sent > self.quiet(core.len()) {
            let what =
                format!("{} nodes sent {sent} packets in a minute; {} are enough", core.len(), self.quiet(core.len()));
            return Err(self.broken(Rule::Peace, None, what));
        }
        self.agree()?;
        let missed = self.ears.missed(&self.world, &core, self.plan.clocks == Clocks::Wrong);
        match missed {
            Some((i, what)) => Err(self.broken(Rule::Delivered, Some(i), what)),
            None => Ok(()),
        }
    }

    /// Rumors of the bad times are told to their end: each a few times, and of large ones one in a round.
    fn end_rumors(&mut self) -> Result<(), Violation> {
        let config = &self.config;
        let times = rhythm::times(config.rumor_mult, self.world.len()) as u32;
        // A clock may be slow.
        let round = config.gossip_interval.max(config.gossip_interval_max) * 11 / 10;
        let (i, hot) = self.hottest();
        let end = self.world.now().mono + round * times * (hot as u32 + 1);
        while self.hottest().1 > 0 {
            if self.world.now().mono > end {
                let what = format!("told {hot} rumors when all agreed, and still tells {}", self.hottest().1);
                return Err(self.broken(Rule::Peace, Some(i), what));
            }
            self.run_until(self.world.now().mono + round)?;
        }
        Ok(())
    }

    /// Who still tells the most rumors, and how many.
    fn hottest(&mut self) -> (NodeIndex, usize) {
        let core = self.core();
        let hot = |i: NodeIndex| {
            let loads = self.world.engine(i).loads();
            loads.iter().find(|load| load.name == "broadcasts still told").map_or(0, |load| load.len)
        };
        core.into_iter().map(|i| (i, hot(i))).max_by_key(|&(_, hot)| hot).unwrap_or_default()
    }

    /// Packets that `n` nodes may send in a minute of peace: a ping and its answer each period, a digest each
    /// `sync_interval`, and a call each `heal_interval` that is repeated until it is given up; clocks may be fast. An overlay that
    /// is awake costs something, too.
    fn quiet(&self, n: usize) -> u64 {
        let config = &self.config;
        let each = |interval: Duration| PEACE.as_secs_f64() * 1.4 / interval.as_secs_f64();
        let tries = 2.0 + config.join_timeout.as_secs_f64() / (2.0 * config.probe_timeout.as_secs_f64());
        let heartbeats = if config.detector == Detector::Phi { 1.1 * config.gossip_fanout as f64 } else { 0.0 };
        let a_node = 2.2 * PEACE.as_secs_f64() / config.probe_interval.as_secs_f64()
            + each(config.sync_interval)
            + tries * each(config.heal_interval)
            + heartbeats * PEACE.as_secs_f64() / config.probe_interval.as_secs_f64()
            + 10.0;
        // Shuffles with their walks, vectors, and looking for neighbours where all have enough.
        let overlay = 40.0 + 20.0 * each(config.shuffle_interval) + 4.0 * each(config.sync_interval);
        let a_node =
            a_node + if self.ears.is_used() || self.polls.is_used() || self.plan.is_partial() { overlay } else { 0.0 };
        // Each neighbour is asked, and some change; a seed is called though it is well.
        let links = config.active_view as f64 * 6.0 * PEACE.as_secs_f64() / config.probe_interval.as_secs_f64();
        let a_node = a_node + if self.plan.is_partial() { links + 4.0 * each(config.heal_interval) } else { 0.0 };
        (a_node * n as f64) as u64
    }
}
