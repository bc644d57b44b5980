//! Machines, and the nodes on them: how they begin and end, stand still, hang and are slow, and how their clocks run.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::SocketAddr;

use super::super::net::chance;
use super::packets::Unsent;
use super::{BIRTH, NodeIndex, World, address};
use crate::config::Config;
use crate::engine::{Engine, Identity};
use crate::id::{Epoch, NodeName, RunId};
use crate::message::Delivery;
use crate::outbox::{Completion, Streamed};
use crate::rng::mix;
use crate::time::{Duration, Instant, Now, Wall, nanos};
use crate::view::Event;
use crate::wire::envelope::{Envelope, Limits, Sessions};

/// How one machine's clocks differ from the world's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// What its monotonic clock showed when the world began.
    pub uptime: Duration,
    /// It runs fast (or, below zero, slow) by so many parts in a million.
    pub drift_ppm: i64,
    /// Its wall clock is ahead (or behind) by so many milliseconds.
    pub wall_ms: i64,
}

impl Clock {
    pub(super) fn mono(&self, at: Instant) -> Instant {
        let t = i128::from(at.as_nanos());
        Instant::from_nanos((i128::from(nanos(self.uptime)) + t + t * i128::from(self.drift_ppm) / 1_000_000) as u64)
    }

    /// The world's time when the monotonic clock shows `mono`, or the next moment after it.
    pub(super) fn world(&self, mono: Instant) -> Instant {
        if *self == Clock::default() {
            return mono;
        }
        let t = i128::from(mono.as_nanos()) - i128::from(nanos(self.uptime));
        let rate = 1_000_000 + i128::from(self.drift_ppm);
        Instant::from_nanos(((t * 1_000_000).div_euclid(rate) + 1).max(0) as u64)
    }

    pub(super) fn now(&self, at: Instant) -> Now {
        let wall = (BIRTH + at.as_nanos() / 1_000_000).saturating_add_signed(self.wall_ms);
        Now { mono: self.mono(at), wall: Wall(wall) }
    }
}

pub(super) struct Node {
    pub engine: Engine,
    pub name: NodeName,
    pub addr: SocketAddr,
    pub run: RunId,
    pub clock: Clock,
    /// Whose packets it can open: label and key.
    pub label: u32,
    pub up: bool,
    /// And so is its machine.
    pub dark: bool,
    pub state: Machine,
    /// How long each input keeps it busy, and until when it is.
    pub service: Duration,
    pub busy: Instant,
    /// What waits to be read, and (blocked) to be sent.
    pub held: VecDeque<u32>,
    pub unsent: Vec<Unsent>,
    /// Lost for want of room since it was last told so.
    pub deaf: bool,
    /// When the engine wants its tick, and when the timer that counts is set for.
    pub deadline: Option<Instant>,
    pub timer: Option<Instant>,
    pub events: Vec<(Instant, Event)>,
    pub messages: Vec<(Instant, Delivery)>,
    pub completions: Vec<Completion>,
    pub streams: Vec<Streamed>,
    pub config: Arc<Config>,
    pub envelope: Option<Box<Envelope>>,
    pub sessions: Option<Box<Sessions>>,
    pub sent: (u64, u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Machine {
    Running,
    /// SIGSTOP: nothing happens.
    Paused,
    /// Sends and receives hang; timers go on.
    Blocked,
    /// So do they here, and `stuck`, whoever probes waits in a send: then only suspicions go on.
    Hung {
        stuck: bool,
    },
}

impl World {
    /// No word, no memory: gone. Its machine says so to who sends there.
    pub fn kill(&mut self, i: NodeIndex) {
        if self.nodes[i].up {
            let run = self.nodes[i].run;
            for j in self.paths.linked_with(i) {
                self.break_link(j, run, Duration::from_millis(1));
            }
        }
        self.end(i);
    }

    fn end(&mut self, i: NodeIndex) {
        self.nodes[i].up = false;
        self.nodes[i].dark = false;
        self.moved.retain(|_, at| *at != i);
        self.paths.forget(i);
        for parcel in core::mem::take(&mut self.nodes[i].held) {
            self.drop_parcel(parcel);
        }
        for unsent in core::mem::take(&mut self.nodes[i].unsent) {
            self.drop_parcel(unsent.parcel);
        }
    }

    /// The whole machine is gone: nothing answers any more.
    pub fn power_off(&mut self, i: NodeIndex) {
        self.end(i);
        self.nodes[i].dark = true;
    }

    /// The same name in a new run, with nothing remembered; at another address if one is given.
    pub fn restart(&mut self, i: NodeIndex, addr: Option<SocketAddr>) {
        self.revive(i, addr);
        self.begin(i);
    }

    pub(super) fn begin(&mut self, i: NodeIndex) {
        let topics = self.judges.as_ref().map(|judges| judges.topics.clone());
        self.turn(i, |engine, now, out| {
            topics.into_iter().for_each(|topics| engine.validate(now, topics, out));
            engine.start(now, out);
        });
    }

    /// Another name in its place, at its address: the tenant after it. Returns the new node.
    pub fn replace(&mut self, i: NodeIndex, name: &str) -> NodeIndex {
        let (addr, config) = (self.nodes[i].addr, Config::clone(&self.nodes[i].config));
        self.kill(i);
        self.add_at(addr, name, config)
    }

    /// SIGSTOP: time passes, packets queue up.
    pub fn pause(&mut self, i: NodeIndex) {
        self.nodes[i].state = Machine::Paused;
    }

    /// Lifeguard §V's anomaly: whatever it sends or receives hangs; its timers run. Ended by `resume`.
    pub fn block(&mut self, i: NodeIndex) {
        self.nodes[i].state = Machine::Blocked;
    }

    /// Lifeguard §V's anomaly as it meets memberlist: who probes waits in its first send and fails when that ends,
    /// while the timers of suspicions go on. Ended by `resume`.
    pub fn hang(&mut self, i: NodeIndex) {
        self.nodes[i].state = Machine::Hung { stuck: false };
    }

    /// SIGCONT, or the end of a block: what was queued comes first, then timers, late.
    pub fn resume(&mut self, i: NodeIndex) {
        let stuck = self.nodes[i].state == (Machine::Hung { stuck: true }) && self.nodes[i].up;
        self.nodes[i].state = Machine::Running;
        for Unsent { parcel, mut fate, since } in core::mem::take(&mut self.nodes[i].unsent) {
            for at in fate.arrivals.iter_mut().flatten() {
                // The way is as long as it would have been.
                *at = self.now + at.since(since);
            }
            self.dispatch(parcel, fate);
            self.drop_parcel(parcel);
        }
        // Who sends and who receives are two goroutines: either may be the first.
        let sender_first = stuck && chance(&mut self.rng, 0.5);
        if sender_first {
            self.turn(i, |engine, now, out| engine.unhang(now, out));
        }
        self.serve(i);
        if stuck && !sender_first {
            self.turn(i, |engine, now, out| engine.unhang(now, out));
        }
        self.on_time(i);
    }

    /// From now on each input keeps it busy for that long; others wait their turn. Zero: as quick as thought.
    pub fn slow(&mut self, i: NodeIndex, service: Duration) {
        self.nodes[i].service = service;
    }

    /// An administrator, or NTP, sets its wall clock.
    pub fn step_wall(&mut self, i: NodeIndex, by_ms: i64) {
        self.nodes[i].clock.wall_ms += by_ms;
    }

    pub(super) fn hatch(&mut self, addr: SocketAddr, name: &str, config: Config) -> NodeIndex {
        let i = self.nodes.len();
        let node = self.birth(name, addr, Arc::new(config), self.clock);
        self.nodes.push(node);
        self.settle_at(i, addr);
        i
    }

    fn revive(&mut self, i: NodeIndex, addr: Option<SocketAddr>) {
        let (name, config) = (self.nodes[i].name.clone(), self.nodes[i].config.clone());
        let addr = addr.unwrap_or(self.nodes[i].addr);
        self.kill(i);
        let mut node = self.birth(&name, addr, config, self.nodes[i].clock);
        node.events = core::mem::take(&mut self.nodes[i].events);
        node.messages = core::mem::take(&mut self.nodes[i].messages);
        node.sent = self.nodes[i].sent;
        node.service = self.nodes[i].service;
        self.nodes[i] = node;
        self.settle_at(i, addr);
    }

    fn settle_at(&mut self, i: NodeIndex, addr: SocketAddr) {
        if addr != address(i) {
            self.moved.insert(addr, i);
        }
    }

    fn birth(&mut self, name: &str, addr: SocketAddr, config: Arc<Config>, clock: Clock) -> Node {
        self.runs += 1;
        let run = RunId::new(mix(self.seed ^ mix(self.runs)).max(1)).expect("at least one");
        let name = NodeName::new(name).expect("a valid name");
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.rng.next_u64().to_le_bytes());
        let now = clock.now(self.now);
        let me = Identity { name: name.clone(), epoch: Epoch(now.wall.0), run, address: addr };
        let envelope = self.sealed.then(|| {
            let limits = Limits { max_sessions: config.max_sessions, derive_rate: config.derive_rate };
            Box::new(Envelope::new(&config.cluster, &config.keys, run, seed, limits))
        });
        let sessions = envelope.as_ref().map(|envelope| Box::new(envelope.sessions()));
        let mut engine = Engine::new(config.clone(), me, now, seed);
        engine.mutate(self.mutant);
        Node {
            engine,
            name,
            addr,
            run,
            clock,
            label: self.label(&config),
            up: true,
            dark: false,
            state: Machine::Running,
            service: Duration::ZERO,
            busy: self.now,
            held: VecDeque::new(),
            unsent: Vec::new(),
            deaf: false,
            deadline: None,
            timer: None,
            events: Vec::new(),
            messages: Vec::new(),
            completions: Vec::new(),
            streams: Vec::new(),
            config,
            envelope,
            sessions,
            sent: (0, 0),
        }
    }

    /// Equal labels and keys have equal numbers.
    fn label(&mut self, config: &Config) -> u32 {
        let label = (config.cluster.clone(), config.keys.first().copied());
        let known = self.labels.iter().position(|l| *l == label);
        known.unwrap_or_else(|| {
            self.labels.push(label);
            self.labels.len() - 1
        }) as u32
    }
}
