//! The world: engines, the machines that they run on, and a clock that jumps to the next event.
//!
//! A step is one entry of the queue: a timer, a packet, or something that was planned. All that an engine does in its
//! turn leaves through [`Paths`], which says when it arrives, if it does. A machine may be paused (SIGSTOP), blocked in
//! its sends and receives, slow, or deaf for want of room, and its clock may run wrong.
//!
//! Packets travel unsealed unless [`World::sealed`] is set: what the envelope would refuse (damage, another run,
//! another cluster, another key) is refused here. Sealed, they go through the real envelope, at some ten times the cost.
//!
//! Here are the world, its network and its time; a machine and its node, a turn of an engine, packets on their way, and what is to be
//! seen have a file each.

mod machine;
mod packets;
mod seen;
mod turn;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};

pub use self::machine::Clock;
use self::machine::{Machine, Node};
use self::packets::Parcel;
pub use self::seen::{Fates, KINDS, Traffic};
use super::net::{Loss, Network, Paths};
use super::queue::Queue;
use crate::config::Config;
use crate::engine::{Engine, Inbound, Input, Mutant};
use crate::error::Result;
use crate::id::{RunId, Version};
use crate::message::{Body, Delivery, ToAll, Verdict};
use crate::outbox::{Destination, Outbox, Via};
use crate::rng::{Rng, mix};
use crate::time::{Duration, Instant, Now};
use crate::view::{Event, Member};
use crate::wire::envelope::Reject;
use crate::wire::frame::{Entries, Record};

/// Wall clock at the start of the world: any time does.
pub(super) const BIRTH: u64 = 1_700_000_000_000;

/// Steps that are looked ahead at once.
const WARM: usize = 16;

pub type NodeIndex = usize;

/// What happened at a moment that only the world sees: who wants to know is told at once.
pub type Watcher = Box<dyn FnMut(Instant, NodeIndex, &Event) + Send>;

/// Told each message as it is delivered.
pub type Listener = Box<dyn FnMut(Instant, NodeIndex, &Delivery) + Send>;

/// What happened, for those who want to read it all.
#[derive(Clone, Debug)]
pub enum Happening {
    Packet(Letter),
    Event(NodeIndex, RunId, Event),
}

/// A packet as it left.
#[derive(Clone, Debug)]
pub struct Letter {
    pub from: NodeIndex,
    pub run: RunId,
    pub addr: SocketAddr,
    pub to: Destination,
    pub frames: Vec<u8>,
    /// It gets lost on its way, or the machine that it goes to has no power.
    pub lost: bool,
}

/// Applications that validate.
#[derive(Clone, Debug)]
pub struct Judges {
    pub topics: BTreeSet<String>,
    /// When there is a verdict, if ever.
    pub verdict: fn(&Delivery) -> Option<(Verdict, Duration)>,
}

pub struct World {
    /// Clocks of nodes that are added from now on; a restart keeps its machine's.
    pub clock: Clock,
    /// Nodes that start from now on seal their packets with the real envelope.
    pub sealed: bool,
    /// What host names resolve to; a seed that is none of them is an address.
    pub names: BTreeMap<String, Vec<SocketAddr>>,
    /// Datagrams that a machine which does not read keeps; further ones are lost. Linux keeps some 270 small ones.
    pub receive_queue: usize,
    /// Whether `events` and `messages` keep what nodes report and hear. Large worlds may do without.
    pub keep_events: bool,
    /// Whether applications answer questions to many.
    pub answers: bool,
    /// Whether drivers tell their engines how late they are, and what the system dropped. Ours does, memberlist's does not.
    pub candid: bool,
    /// Told each event as it happens.
    pub watcher: Option<Watcher>,
    /// And each message.
    pub listener: Option<Listener>,
    /// All that happens, where wanted, until somebody takes it.
    pub log: Option<Vec<(Instant, Happening)>>,
    /// Engines that start from now on break this rule.
    pub(super) mutant: Option<Mutant>,
    /// What all applications think of what is broadcast.
    pub judges: Option<Judges>,
    /// One line a frame, where wanted.
    pub transcript: Option<Vec<String>>,
    now: Instant,
    rng: Rng,
    seed: u64,
    queue: Queue<What>,
    parcels: Vec<Parcel>,
    free: Vec<u32>,
    plans: Vec<Option<Plan>>,
    nodes: Vec<Node>,
    /// Nodes that are not at the address of their index.
    moved: BTreeMap<SocketAddr, NodeIndex>,
    labels: Vec<(String, Option<[u8; 32]>)>,
    paths: Paths,
    recorded: VecDeque<u32>,
    /// Links that have lost something, and that will end for it: whose, and to which run.
    breaking: BTreeSet<(NodeIndex, RunId)>,
    ties: u64,
    out: Outbox,
    runs: u64,
    traffic: Traffic,
    fates: Fates,
    steps: u64,
    /// Steps until caches are warmed again.
    cold: usize,
    refused: u64,
    rejects: [u64; Reject::ALL.len()],
    overflowed: u64,
    last_arrival: Instant,
    trace: u64,
}

type Plan = Box<dyn FnOnce(&mut World) + Send>;

#[derive(Clone, Copy, Debug)]
enum What {
    Timer(u32),
    /// A slow node is ready for its next input.
    Ready(u32),
    Arrival(u32),
    Plan(u32),
}

impl World {
    pub fn new(seed: u64) -> World {
        World {
            clock: Clock::default(),
            sealed: false,
            names: BTreeMap::new(),
            receive_queue: 270,
            keep_events: true,
            answers: true,
            candid: true,
            watcher: None,
            listener: None,
            log: None,
            mutant: None,
            judges: None,
            transcript: None,
            now: Instant::from_nanos(1_000_000_000),
            rng: Rng::new(seed),
            seed,
            queue: Queue::default(),
            parcels: Vec::new(),
            free: Vec::new(),
            plans: Vec::new(),
            nodes: Vec::new(),
            moved: BTreeMap::new(),
            labels: Vec::new(),
            paths: Paths::new(),
            recorded: VecDeque::new(),
            breaking: BTreeSet::new(),
            ties: 0,
            out: Outbox::new(1400),
            runs: 0,
            traffic: Traffic::default(),
            fates: Fates::default(),
            steps: 0,
            cold: 0,
            refused: 0,
            rejects: [0; Reject::ALL.len()],
            overflowed: 0,
            last_arrival: Instant::ZERO,
            trace: seed,
        }
    }

    // --- nodes ---

    /// A node that starts now. Its seeds in `config.seeds` are addresses, or `names`.
    pub fn add(&mut self, name: &str, config: Config) -> NodeIndex {
        self.add_at(address(self.nodes.len()), name, config)
    }

    /// A node that starts now at that address, where nobody may be.
    pub fn add_at(&mut self, addr: SocketAddr, name: &str, config: Config) -> NodeIndex {
        let i = self.hatch(addr, name, config);
        self.begin(i);
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

    /// Each of these knows all of them from now on, as if they had met long ago; metadata they have yet to ask for.
    pub fn acquaint(&mut self, nodes: &[NodeIndex]) {
        let members: Vec<Member> = nodes.iter().map(|&i| self.nodes[i].engine.local()).collect();
        for &i in nodes {
            self.turn(i, |engine, now, _| {
                engine.acquaint(now, members.iter().map(record));
            });
        }
    }

    // --- the network ---

    /// What the network does from now on. `E_INVALID` for what is no probability; nothing changes then.
    pub fn set_network(&mut self, network: Network) -> Result<()> {
        network.validate()?;
        self.paths.network = network;
        Ok(())
    }

    pub fn network(&self) -> Network {
        self.paths.network
    }

    /// Datagrams to `i` get lost like that, on top of what the network does; `None`: no longer.
    pub fn lose_ingress(&mut self, i: NodeIndex, loss: Option<Loss>) -> Result<()> {
        loss.map_or(Ok(()), |loss| loss.validate())?;
        self.paths.ingress(i, loss);
        Ok(())
    }

    /// Datagrams from `i` get lost like that, on top of what the network does; `None`: no longer.
    pub fn lose_egress(&mut self, i: NodeIndex, loss: Option<Loss>) -> Result<()> {
        loss.map_or(Ok(()), |loss| loss.validate())?;
        self.paths.egress(i, loss);
        Ok(())
    }

    /// Nothing from `a` reaches `b` any more; the other way is another cut.
    pub fn cut(&mut self, a: NodeIndex, b: NodeIndex) {
        self.paths.cut(a, b);
    }

    /// Nothing passes between the two sides.
    pub fn part(&mut self, left: &[NodeIndex], right: &[NodeIndex]) {
        self.paths.part(left, right);
    }

    /// Cuts, partitions and nodes' own losses end. The network's faults stay.
    pub fn heal(&mut self) {
        self.paths.heal();
    }

    // --- time ---

    /// The world's time, and that of machines whose clocks are right.
    pub fn now(&self) -> Now {
        Clock::default().now(self.now)
    }

    /// Something that happens later.
    pub fn after(&mut self, time: Duration, plan: impl FnOnce(&mut World) + Send + 'static) {
        self.plans.push(Some(Box::new(plan)));
        let plan = What::Plan((self.plans.len() - 1) as u32);
        self.post(self.now + time, plan);
    }

    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end).is_some() {}
    }

    /// Runs until `done`, for at most `time`. How long it took, or `None`.
    pub fn run_until(&mut self, time: Duration, mut done: impl FnMut(&mut World) -> bool) -> Option<Duration> {
        let (start, end) = (self.now, self.now + time);
        loop {
            if done(self) {
                return Some(self.now.since(start));
            }
            let Some(next) = self.queue.not_before().filter(|at| *at <= end) else {
                self.now = end;
                return None;
            };
            // All of one instant, or at least a millisecond, between two looks.
            let until = next.max(self.now + Duration::from_millis(1)).min(end);
            while self.step(until).is_some() {}
        }
    }

    /// The next thing that happens, if it does before `end`; else it is `end`. Says at which node, if at one.
    pub fn step(&mut self, end: Instant) -> Option<Step> {
        let Some((at, what)) = self.queue.pop(end) else {
            self.now = self.now.max(end);
            return None;
        };
        self.now = self.now.max(at);
        self.steps += 1;
        self.warm_up();
        Some(Step { node: self.happen(at, what) })
    }

    fn happen(&mut self, at: Instant, what: What) -> Option<NodeIndex> {
        match what {
            What::Timer(i) => {
                let i = i as usize;
                let node = &mut self.nodes[i];
                if node.timer != Some(at) {
                    return None;
                }
                node.timer = None;
                if !node.up || node.state == Machine::Paused {
                    return None;
                }
                if node.busy > self.now {
                    let busy = node.busy;
                    self.set_timer(i, busy);
                    return None;
                }
                self.on_time(i).then_some(i)
            }
            What::Ready(i) => {
                let i = i as usize;
                self.serve(i);
                self.nodes[i].up.then_some(i)
            }
            What::Arrival(parcel) => self.arrive(parcel),
            What::Plan(plan) => {
                let plan = self.plans[plan as usize].take().expect("planned once");
                plan(self);
                None
            }
        }
    }

    /// Many tables fit in no cache. What some steps will look for is looked for at once, so that they wait together.
    fn warm_up(&mut self) {
        if self.cold > 0 {
            self.cold -= 1;
            return;
        }
        let mut seen = 0;
        for what in self.queue.ahead().take(WARM) {
            self.cold += 1;
            let (i, sender) = match what {
                What::Timer(i) => (i as usize, None),
                What::Arrival(parcel) => {
                    let p = &self.parcels[parcel as usize];
                    let Some(i) = index(p.to).filter(|&i| i < self.nodes.len()) else { continue };
                    (i, Some(p.sender))
                }
                What::Ready(_) | What::Plan(_) => continue,
            };
            seen ^= self.nodes[i].engine.warm(sender);
        }
        core::hint::black_box(seen);
    }

    // --- application calls, and packets from nowhere ---

    /// An application call.
    pub fn call<T>(&mut self, i: NodeIndex, call: impl FnOnce(&mut Engine, Now, &mut Outbox) -> T) -> T {
        let mut result = None;
        self.turn(i, |engine, now, out| result = Some(call(engine, now, out)));
        result.expect("the turn ran it")
    }

    /// Says it to all, but for itself.
    pub fn broadcast(&mut self, i: NodeIndex, topic: &str, data: &[u8]) -> Result<u64> {
        self.say(i, topic, data, ToAll::default())
    }

    pub fn say(&mut self, i: NodeIndex, topic: &str, data: &[u8], how: ToAll) -> Result<u64> {
        let body = Body::new(topic, data)?;
        self.call(i, |engine, now, out| engine.broadcast(now, body, how, out))
    }

    /// A packet, as if `from` had sent it to `to` and the envelope had let it through.
    pub fn inject(&mut self, from: NodeIndex, to: NodeIndex, frames: &[u8]) {
        let packet = Inbound {
            from: self.nodes[from].addr,
            run: self.nodes[from].run,
            stranger: false,
            via: Via::Datagram,
            frames,
        };
        self.turn(to, |engine, now, out| engine.handle(now, Input::Packet(packet), out));
    }

    fn post(&mut self, at: Instant, what: What) {
        self.ties += 1;
        if let What::Arrival(_) = what {
            self.last_arrival = self.last_arrival.max(at);
        }
        // Equal times are ordered by the seed, not by who came first.
        self.queue.push(at.max(self.now), mix(self.ties ^ self.seed), what);
    }

    fn at(&self, addr: SocketAddr) -> Option<NodeIndex> {
        let here = |&i: &NodeIndex| self.nodes[i].up && self.nodes[i].addr == addr;
        let guess = index(addr).filter(|&i| i < self.nodes.len());
        guess.filter(here).or_else(|| self.moved.get(&addr).copied().filter(here))
    }
}

/// What a step was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Whose engine had its turn.
    pub node: Option<NodeIndex>,
}

/// What its member says of itself, but for its metadata.
fn record(m: &Member) -> Record<'_> {
    Record {
        name: &m.name,
        run: m.run,
        epoch: m.epoch,
        incarnation: m.incarnation,
        addr: m.address,
        protocol: m.protocol,
        app_version: m.app_version,
        version: Version(0),
        age: 0,
        state: Entries(&[]),
    }
}

/// Nodes of one host address.
const PORTS: usize = 50_000;

/// Where the i-th node lives.
pub fn address(i: NodeIndex) -> SocketAddr {
    let (high, low) = (i / PORTS, i % PORTS);
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1 + high as u8)), 10_000 + low as u16)
}

/// Whose address that is by rights.
fn index(addr: SocketAddr) -> Option<NodeIndex> {
    let IpAddr::V4(ip) = addr.ip() else { return None };
    let [10, 0, 0, host] = ip.octets() else { return None };
    let low = usize::from(addr.port()).checked_sub(10_000).filter(|&low| low < PORTS)?;
    Some(usize::from(host.checked_sub(1)?) * PORTS + low)
}
