//! The world: nodes, a network that misbehaves as it is told to, and a clock that jumps to the next event.
//!
//! What travels is bytes: each engine's frames are encoded and decoded as on a real wire. The envelope is left
//! out; what it would refuse (a packet for another run) is refused here.

use alloc::collections::{BTreeMap, BinaryHeap};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::config::Config;
use crate::engine::{Engine, Identity, Inbound, Input};
use crate::id::{Epoch, NodeName, RunId};
use crate::outbox::{Completion, Destination, Outbox, Via};
use crate::rng::{Rng, mix};
use crate::time::{Duration, Instant, Now, Wall, nanos};
use crate::view::{Event, EventKind, MemberState, View};
use crate::wire::frame::Frames;

/// Wall clock at the start of the world: any time does.
const BIRTH: u64 = 1_700_000_000_000;

pub type NodeIndex = usize;

/// How the network treats every datagram.
#[derive(Clone, Debug)]
pub struct Faults {
    /// One-way delay: least and most.
    pub delay: (Duration, Duration),
    /// Of 1,000 datagrams so many are lost.
    pub loss: u32,
    /// And so many arrive twice.
    pub duplicate: u32,
    /// Datagrams arrive nowhere, streams do.
    pub udp_blocked: bool,
}

impl Default for Faults {
    fn default() -> Faults {
        Faults {
            delay: (Duration::from_micros(200), Duration::from_millis(2)),
            loss: 0,
            duplicate: 0,
            udp_blocked: false,
        }
    }
}

pub struct World {
    pub faults: Faults,
    /// The wall clock of nodes that start from now on is behind by that.
    pub clock_back: Duration,
    /// What host names resolve to; a seed that is none of them is an address.
    pub names: BTreeMap<String, Vec<SocketAddr>>,
    now: Instant,
    rng: Rng,
    seed: u64,
    queue: BinaryHeap<Reverse<(Instant, u64, u32)>>,
    parcels: Vec<Option<What>>,
    free: Vec<u32>,
    nodes: Vec<Node>,
    /// One-way cuts: from, to.
    cuts: Vec<(NodeIndex, NodeIndex)>,
    ties: u64,
    out: Outbox,
    runs: u64,
    /// Datagrams and their bytes, as they left.
    pub sent: (u64, u64),
    /// A hash over all that happened: equal runs have equal traces.
    pub trace: u64,
    /// One line a frame, where wanted.
    pub transcript: Option<Vec<String>>,
}

struct Node {
    engine: Engine,
    name: NodeName,
    addr: SocketAddr,
    run: RunId,
    up: bool,
    paused: bool,
    held: Vec<What>,
    wake: Instant,
    late_since: Option<Instant>,
    events: Vec<(Instant, Event)>,
    completions: Vec<Completion>,
    config: Arc<Config>,
}

#[derive(Clone, Debug)]
enum What {
    Wake(NodeIndex),
    Packet { to: SocketAddr, run: Option<RunId>, from: SocketAddr, sender: RunId, via: Via, frames: Vec<u8> },
    Unreachable { to: SocketAddr, sender: RunId, addr: SocketAddr, via: Via },
}

impl World {
    pub fn new(seed: u64) -> World {
        World {
            faults: Faults::default(),
            clock_back: Duration::ZERO,
            names: BTreeMap::new(),
            now: Instant::from_nanos(1_000_000_000),
            rng: Rng::new(seed),
            seed,
            queue: BinaryHeap::new(),
            parcels: Vec::new(),
            free: Vec::new(),
            nodes: Vec::new(),
            cuts: Vec::new(),
            ties: 0,
            out: Outbox::new(1400),
            runs: 0,
            sent: (0, 0),
            trace: seed,
            transcript: None,
        }
    }

    pub fn now(&self) -> Now {
        Now { mono: self.now, wall: Wall(BIRTH + self.now.as_nanos() / 1_000_000) }
    }

    /// A node that starts now. Its seeds in `config.seeds` are addresses.
    pub fn add(&mut self, name: &str, config: Config) -> NodeIndex {
        let i = self.nodes.len();
        let addr = address(i);
        let node = self.birth(name, addr, Arc::new(config));
        self.nodes.push(node);
        self.turn(i, |engine, now, out| engine.start(now, out));
        i
    }

    /// `n` nodes that start at once and know only the first.
    pub fn cluster(&mut self, n: usize, config: &Config) -> Vec<NodeIndex> {
        let seed = address(self.nodes.len());
        (0..n)
            .map(|i| {
                let mut config = config.clone();
                config.seeds = if i == 0 { Vec::new() } else { alloc::vec![alloc::format!("{seed}")] };
                self.add(&alloc::format!("n{i}"), config)
            })
            .collect()
    }

    /// No word, no memory: gone.
    pub fn kill(&mut self, i: NodeIndex) {
        self.nodes[i].up = false;
        self.nodes[i].held.clear();
    }

    /// The same name in a new run; at another address if one is given.
    pub fn restart(&mut self, i: NodeIndex, addr: Option<SocketAddr>) {
        let (name, config) = (self.nodes[i].name.clone(), self.nodes[i].config.clone());
        let addr = addr.unwrap_or(self.nodes[i].addr);
        let events = core::mem::take(&mut self.nodes[i].events);
        self.nodes[i] = self.birth(&name, addr, config);
        self.nodes[i].events = events;
        self.turn(i, |engine, now, out| engine.start(now, out));
    }

    /// SIGSTOP: time passes, packets queue up.
    pub fn pause(&mut self, i: NodeIndex) {
        self.nodes[i].paused = true;
        self.nodes[i].late_since = Some(self.now);
    }

    /// SIGCONT: what was queued comes first, then the timers, late.
    pub fn resume(&mut self, i: NodeIndex) {
        self.nodes[i].paused = false;
        let since = self.nodes[i].late_since.take();
        for what in core::mem::take(&mut self.nodes[i].held) {
            self.happen(what);
        }
        let lost = since.map_or(Duration::ZERO, |s| self.now.since(s));
        self.turn(i, |engine, now, out| {
            engine.stalled(lost);
            engine.handle(now, Input::Tick, out);
        });
    }

    /// Nothing from `a` reaches `b` any more; the other way is another cut.
    pub fn cut(&mut self, a: NodeIndex, b: NodeIndex) {
        self.cuts.push((a, b));
    }

    /// Nothing passes between the two sides.
    pub fn part(&mut self, left: &[NodeIndex], right: &[NodeIndex]) {
        for &a in left {
            for &b in right {
                self.cuts.extend([(a, b), (b, a)]);
            }
        }
    }

    pub fn heal(&mut self) {
        self.cuts.clear();
    }

    /// An application call.
    pub fn call<T>(&mut self, i: NodeIndex, call: impl FnOnce(&mut Engine, Now, &mut Outbox) -> T) -> T {
        let mut result = None;
        self.turn(i, |engine, now, out| result = Some(call(engine, now, out)));
        result.expect("the turn ran it")
    }

    /// A packet, as if `from` had sent it to `to` and the envelope had let it through.
    pub fn inject(&mut self, from: NodeIndex, to: NodeIndex, frames: &[u8]) {
        let (sender, run) = (self.nodes[from].run, self.nodes[to].run);
        let (from, to) = (self.nodes[from].addr, self.nodes[to].addr);
        self.happen(What::Packet { to, run: Some(run), from, sender, via: Via::Datagram, frames: frames.into() });
    }

    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.queue.peek().is_some_and(|Reverse((at, ..))| *at <= end) {
            self.step();
        }
        self.now = end;
    }

    /// Runs until `done`, for at most `time`. How long it took, or `None`.
    pub fn run_until(&mut self, time: Duration, mut done: impl FnMut(&mut World) -> bool) -> Option<Duration> {
        let (start, end) = (self.now, self.now + time);
        loop {
            if done(self) {
                return Some(self.now.since(start));
            }
            let next = self.queue.peek().map(|Reverse((at, ..))| *at).filter(|at| *at <= end);
            let Some(next) = next else {
                self.now = end;
                return None;
            };
            // All of one instant, or at least a millisecond, between two looks.
            let until = next.max(self.now + Duration::from_millis(1)).min(end);
            while self.queue.peek().is_some_and(|Reverse((at, ..))| *at <= until) {
                self.step();
            }
            self.now = self.now.max(until);
        }
    }

    pub fn view(&mut self, i: NodeIndex) -> Arc<View> {
        let now = self.now();
        self.nodes[i].engine.view(now)
    }

    pub fn engine(&self, i: NodeIndex) -> &Engine {
        &self.nodes[i].engine
    }

    pub fn address(&self, i: NodeIndex) -> SocketAddr {
        self.nodes[i].addr
    }

    pub fn run_id(&self, i: NodeIndex) -> RunId {
        self.nodes[i].run
    }

    pub fn events(&self, i: NodeIndex) -> &[(Instant, Event)] {
        &self.nodes[i].events
    }

    pub fn completions(&self, i: NodeIndex) -> &[Completion] {
        &self.nodes[i].completions
    }

    /// Members that `i` lists as alive, itself included.
    pub fn live(&mut self, i: NodeIndex) -> usize {
        self.view(i).members.iter().filter(|m| m.state == MemberState::Alive).count()
    }

    /// What `i` thinks of `of`.
    pub fn state(&mut self, i: NodeIndex, of: NodeIndex) -> Option<MemberState> {
        let name = self.nodes[of].name.clone();
        self.view(i).find(&name).map(|m| m.state)
    }

    /// Every node of `nodes` lists exactly `n` members as alive.
    pub fn all_list(&mut self, nodes: &[NodeIndex], n: usize) -> bool {
        nodes.iter().all(|&i| self.live(i) == n)
    }

    /// Events of one kind about one member that `i` saw.
    pub fn count(&self, i: NodeIndex, kind: EventKind, about: NodeIndex) -> usize {
        let name = &self.nodes[about].name;
        let about = |e: &Event| e.kind == kind && e.member.as_ref().is_some_and(|m| m.name == *name);
        self.nodes[i].events.iter().filter(|(_, e)| about(e)).count()
    }

    fn birth(&mut self, name: &str, addr: SocketAddr, config: Arc<Config>) -> Node {
        self.runs += 1;
        let run = RunId::new(mix(self.seed ^ mix(self.runs)).max(1)).expect("at least one");
        let name = NodeName::new(name).expect("a valid name");
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.rng.next_u64().to_le_bytes());
        let now = self.now();
        let clock = now.wall.0.saturating_sub(nanos(self.clock_back) / 1_000_000);
        let me = Identity { name: name.clone(), epoch: Epoch(clock), run, address: addr };
        Node {
            engine: Engine::new(config.clone(), me, now, seed),
            name,
            addr,
            run,
            up: true,
            paused: false,
            held: Vec::new(),
            wake: Instant::ZERO,
            late_since: None,
            events: Vec::new(),
            completions: Vec::new(),
            config,
        }
    }

    fn step(&mut self) {
        let Some(Reverse((at, _, parcel))) = self.queue.pop() else { return };
        self.now = self.now.max(at);
        let what = self.parcels[parcel as usize].take().expect("queued once");
        self.free.push(parcel);
        self.happen(what);
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Wake(i) => {
                let node = &self.nodes[i];
                if node.up && !node.paused && node.wake <= self.now {
                    self.turn(i, |engine, now, out| engine.handle(now, Input::Tick, out));
                }
            }
            What::Packet { to, run, from, sender, via, frames } => {
                let Some(i) = self.at(to) else {
                    // A closed port answers, unless the answer is lost like everything else.
                    self.post(Duration::from_millis(1), What::Unreachable { to: from, sender, addr: to, via });
                    return;
                };
                if self.nodes[i].paused {
                    self.nodes[i].held.push(What::Packet { to, run, from, sender, via, frames });
                    return;
                }
                if run.is_some_and(|run| run != self.nodes[i].run) {
                    return;
                }
                let packet = Inbound { from, run: sender, stranger: run.is_none(), via, frames: &frames };
                self.turn(i, |engine, now, out| engine.handle(now, Input::Packet(packet), out));
            }
            What::Unreachable { to, sender, addr, via } => {
                let Some(i) = self.at(to).filter(|&i| self.nodes[i].run == sender && !self.nodes[i].paused) else {
                    return;
                };
                self.turn(i, |engine, now, out| engine.handle(now, Input::Unreachable { addr, via }, out));
            }
        }
    }

    /// One call into an engine, and all that comes of it.
    fn turn(&mut self, i: NodeIndex, call: impl FnOnce(&mut Engine, Now, &mut Outbox)) {
        let now = self.now();
        let mut out = core::mem::replace(&mut self.out, Outbox::new(0));
        out.clear();
        out.set_datagram_max(self.nodes[i].config.max_datagram);
        call(&mut self.nodes[i].engine, now, &mut out);
        let resolve = core::mem::take(&mut out.resolve);
        for seed in resolve {
            let name = &self.nodes[i].config.seeds[seed];
            let addrs = self.names.get(name).cloned().unwrap_or_else(|| name.parse().into_iter().collect());
            self.nodes[i].engine.handle(now, Input::Resolved { seed, addrs: &addrs }, &mut out);
        }
        for event in out.events.drain(..) {
            self.trace = mix(self.trace ^ event.kind as u64 ^ event.view.rotate_left(17) ^ self.now.as_nanos());
            self.nodes[i].events.push((self.now, event));
        }
        self.nodes[i].completions.append(&mut out.completions);
        for p in 0..out.len() {
            let (to, frames) = (out.destination(p), out.packets()[p].frames().to_vec());
            self.send(i, to, frames);
        }
        self.out = out;
        if let Some(at) = self.nodes[i].engine.deadline(now.mono) {
            if at != self.nodes[i].wake || at <= self.now {
                self.nodes[i].wake = at;
                self.post(at.since(self.now), What::Wake(i));
            }
        }
    }

    fn send(&mut self, i: NodeIndex, to: Destination, frames: Vec<u8>) {
        self.trace = frames
            .chunks(8)
            .fold(mix(self.trace ^ i as u64), |t, c| mix(t ^ c.iter().fold(0, |v, &b| v << 8 | u64::from(b))));
        if let Some(lines) = &mut self.transcript {
            let ms = self.now.as_nanos() / 1_000_000;
            let via = if to.via == Via::Stream { " (stream)" } else { "" };
            for frame in Frames::parse(&frames).expect("we wrote it") {
                lines.push(alloc::format!("{ms:>6} ms  {} → {}{via}  {frame}", self.nodes[i].name, to.addr.port()));
            }
        }
        self.sent.0 += 1;
        self.sent.1 += frames.len() as u64;
        if self.at(to.addr).is_some_and(|j| self.cuts.contains(&(i, j))) {
            return;
        }
        let datagram = to.via == Via::Datagram;
        if datagram && (self.faults.udp_blocked || self.rng.chance(self.faults.loss.into(), 1000)) {
            return;
        }
        let copies = if datagram && self.rng.chance(self.faults.duplicate.into(), 1000) { 2 } else { 1 };
        for _ in 0..copies {
            let (least, most) = self.faults.delay;
            let mut delay = least + Duration::from_nanos(self.rng.below(nanos(most.saturating_sub(least)) + 1));
            if !datagram {
                delay *= 3; // A connection must be made first.
            }
            let (from, sender) = (self.nodes[i].addr, self.nodes[i].run);
            let frames = frames.clone();
            self.post(delay, What::Packet { to: to.addr, run: to.run, from, sender, via: to.via, frames });
        }
    }

    fn post(&mut self, after: Duration, what: What) {
        self.ties += 1;
        let parcel = self.free.pop().unwrap_or_else(|| {
            self.parcels.push(None);
            (self.parcels.len() - 1) as u32
        });
        self.parcels[parcel as usize] = Some(what);
        // Equal times are ordered by the seed, not by who came first.
        self.queue.push(Reverse((self.now + after, mix(self.ties ^ self.seed), parcel)));
    }

    fn at(&self, addr: SocketAddr) -> Option<NodeIndex> {
        let port = addr.port();
        let guess = usize::from(port).checked_sub(10_000).filter(|&i| i < self.nodes.len());
        let here = |&i: &usize| self.nodes[i].up && self.nodes[i].addr == addr;
        guess.filter(here).or_else(|| (0..self.nodes.len()).find(here))
    }
}

/// Where the i-th node lives.
pub fn address(i: NodeIndex) -> SocketAddr {
    let (high, low) = (i / 50_000, i % 50_000);
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1 + high as u8)), 10_000 + low as u16)
}
