//! The world: engines, the machines that they run on, and a clock that jumps to the next event.
//!
//! A step is one entry of the queue: a timer, a packet, or something that was planned. All that an engine does in its
//! turn leaves through [`Paths`], which says when it arrives, if it does. A machine may be paused (SIGSTOP), blocked in
//! its sends and receives, slow, or deaf for want of room, and its clock may run wrong.
//!
//! Packets travel unsealed unless [`World::sealed`] is set: what the envelope would refuse (damage, another run,
//! another cluster, another key) is refused here. Sealed, they go through the real envelope, at some ten times the cost.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::net::{Damage, Fate, Loss, Network, Paths, chance};
use super::queue::Queue;
use crate::config::{Config, Transport};
use crate::engine::{Engine, Identity, Inbound, Input, Mutant};
use crate::error::Result;
use crate::id::{Epoch, NodeName, RunId, Version};
use crate::message::{Body, Delivery, Manner, ToAll, Verdict};
use crate::outbox::{Completion, Destination, Outbox, Streamed, Via};
use crate::rng::{Rng, mix};
use crate::time::{Duration, Instant, Now, Wall, nanos};
use crate::view::{Event, EventKind, Member, MemberState, View};
use crate::wire::envelope::{self, Envelope, Limits, Opened, Reject, Sessions};
use crate::wire::frame::{Entries, Frame, Frames, Record};

/// Wall clock at the start of the world: any time does.
pub(super) const BIRTH: u64 = 1_700_000_000_000;

/// IPv4 and UDP headers of a datagram.
const UDP_IP: usize = 28;

/// Old datagrams that `replay` chooses from.
const RECORDED: usize = 64;

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
    fn mono(&self, at: Instant) -> Instant {
        let t = i128::from(at.as_nanos());
        Instant::from_nanos((i128::from(nanos(self.uptime)) + t + t * i128::from(self.drift_ppm) / 1_000_000) as u64)
    }

    /// The world's time when the monotonic clock shows `mono`, or the next moment after it.
    fn world(&self, mono: Instant) -> Instant {
        if *self == Clock::default() {
            return mono;
        }
        let t = i128::from(mono.as_nanos()) - i128::from(nanos(self.uptime));
        let rate = 1_000_000 + i128::from(self.drift_ppm);
        Instant::from_nanos(((t * 1_000_000).div_euclid(rate) + 1).max(0) as u64)
    }

    fn now(&self, at: Instant) -> Now {
        let wall = (BIRTH + at.as_nanos() / 1_000_000).saturating_add_signed(self.wall_ms);
        Now { mono: self.mono(at), wall: Wall(wall) }
    }
}

/// Packets and bytes as they left, by the kind of their first frame; headers and envelopes counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traffic {
    pub packets: [u64; KINDS],
    pub bytes: [u64; KINDS],
}

/// Frame kinds are below this.
pub const KINDS: usize = 64;

impl Default for Traffic {
    fn default() -> Traffic {
        Traffic { packets: [0; KINDS], bytes: [0; KINDS] }
    }
}

impl Traffic {
    pub fn all_packets(&self) -> u64 {
        self.packets.iter().sum()
    }

    pub fn all_bytes(&self) -> u64 {
        self.bytes.iter().sum()
    }

    pub fn add(&mut self, more: &Traffic) {
        for kind in 0..KINDS {
            self.packets[kind] += more.packets[kind];
            self.bytes[kind] += more.bytes[kind];
        }
    }

    /// What was added since `before`.
    pub fn since(&self, before: &Traffic) -> Traffic {
        let less = |now: &[u64; KINDS], then: &[u64; KINDS]| core::array::from_fn(|kind| now[kind] - then[kind]);
        Traffic { packets: less(&self.packets, &before.packets), bytes: less(&self.bytes, &before.bytes) }
    }
}

/// What became of packets: how many were sent, and what the network did to them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fates {
    pub sent: u64,
    /// By chance, by cuts, by what is blocked and by what is too large or too much.
    pub lost: u64,
    pub duplicated: u64,
    pub damaged: u64,
    /// Handed to a node that was there to take it.
    pub received: u64,
}

impl Fates {
    /// What was added since `before`.
    pub fn since(&self, before: &Fates) -> Fates {
        Fates {
            sent: self.sent - before.sent,
            lost: self.lost - before.lost,
            duplicated: self.duplicated - before.duplicated,
            damaged: self.damaged - before.damaged,
            received: self.received - before.received,
        }
    }
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

struct Node {
    engine: Engine,
    name: NodeName,
    addr: SocketAddr,
    run: RunId,
    clock: Clock,
    /// Whose packets it can open: label and key.
    label: u32,
    up: bool,
    /// And so is its machine.
    dark: bool,
    state: Machine,
    /// How long each input keeps it busy, and until when it is.
    service: Duration,
    busy: Instant,
    /// What waits to be read, and (blocked) to be sent.
    held: VecDeque<u32>,
    unsent: Vec<Unsent>,
    /// Lost for want of room since it was last told so.
    deaf: bool,
    /// When the engine wants its tick, and when the timer that counts is set for.
    deadline: Option<Instant>,
    timer: Option<Instant>,
    events: Vec<(Instant, Event)>,
    messages: Vec<(Instant, Delivery)>,
    completions: Vec<Completion>,
    streams: Vec<Streamed>,
    config: Arc<Config>,
    envelope: Option<Box<Envelope>>,
    sessions: Option<Box<Sessions>>,
    sent: (u64, u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Machine {
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

#[derive(Clone, Copy, Debug)]
enum What {
    Timer(u32),
    /// A slow node is ready for its next input.
    Ready(u32),
    Arrival(u32),
    Plan(u32),
}

/// A packet on its way.
struct Parcel {
    to: SocketAddr,
    run: Option<RunId>,
    from: SocketAddr,
    by: u32,
    sender: RunId,
    via: Via,
    kind: Kind,
    /// With room for the envelope's header, or sealed.
    bytes: Vec<u8>,
    /// Arrivals still to come, and one for being recorded.
    holders: u32,
}

/// A packet that a blocked machine could not send.
struct Unsent {
    parcel: u32,
    fate: Fate,
    since: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Packet,
    /// A closed port's answer.
    Unreachable,
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

    fn begin(&mut self, i: NodeIndex) {
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

    // --- what is to be seen ---

    pub fn view(&mut self, i: NodeIndex) -> Arc<View> {
        let now = self.nodes[i].clock.now(self.now);
        self.nodes[i].engine.view(now)
    }

    pub fn engine(&self, i: NodeIndex) -> &Engine {
        &self.nodes[i].engine
    }

    /// Nodes that ever were.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub fn is_up(&self, i: NodeIndex) -> bool {
        self.nodes[i].up
    }

    pub fn is_running(&self, i: NodeIndex) -> bool {
        self.nodes[i].up && self.nodes[i].state == Machine::Running
    }

    pub fn name(&self, i: NodeIndex) -> &NodeName {
        &self.nodes[i].name
    }

    pub fn config(&self, i: NodeIndex) -> &Arc<Config> {
        &self.nodes[i].config
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

    /// The same, and they are kept no longer.
    pub fn take_events(&mut self, i: NodeIndex) -> Vec<(Instant, Event)> {
        core::mem::take(&mut self.nodes[i].events)
    }

    /// What `i` was told, in all its runs.
    pub fn messages(&self, i: NodeIndex) -> &[(Instant, Delivery)] {
        &self.nodes[i].messages
    }

    /// The same, and they are kept no longer.
    pub fn take_messages(&mut self, i: NodeIndex) -> Vec<(Instant, Delivery)> {
        core::mem::take(&mut self.nodes[i].messages)
    }

    pub fn completions(&self, i: NodeIndex) -> &[Completion] {
        &self.nodes[i].completions
    }

    /// What became of byte streams of its present run.
    pub fn streams(&self, i: NodeIndex) -> &[Streamed] {
        &self.nodes[i].streams
    }

    /// Packets and bytes that `i` sent, in all its runs.
    pub fn sent_by(&self, i: NodeIndex) -> (u64, u64) {
        self.nodes[i].sent
    }

    /// What all sent since the world began.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// What became of it.
    pub fn fates(&self) -> Fates {
        self.fates
    }

    /// Entries of the queue that were worked off.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Entries that wait in the queue.
    pub fn pending(&self) -> usize {
        self.queue.len()
    }

    /// Packets that the envelope refused, or would have.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// The same by the envelope's reasons, in the order of `Reject::ALL`: of nodes that seal.
    pub fn rejects(&self) -> &[u64; Reject::ALL.len()] {
        &self.rejects
    }

    /// When the last packet that is on its way now will have arrived.
    pub fn last_arrival(&self) -> Instant {
        self.last_arrival
    }

    /// Packets that `i` has yet to read.
    pub fn held(&self, i: NodeIndex) -> usize {
        self.nodes[i].held.len()
    }

    /// Datagrams that were lost because a machine did not read them.
    pub fn overflowed(&self) -> u64 {
        self.overflowed
    }

    /// A hash over all that happened: equal runs have equal traces.
    pub fn trace(&self) -> u64 {
        mix(self.trace ^ mix(self.traffic.all_packets() ^ self.traffic.all_bytes().rotate_left(32)))
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

    /// Every node that runs, and has not left, lists exactly those, and suspects nobody.
    pub fn agree(&mut self) -> bool {
        let stays = |i: &NodeIndex| self.is_running(*i) && self.nodes[*i].engine.local().state == MemberState::Alive;
        let nodes: Vec<NodeIndex> = (0..self.nodes.len()).filter(stays).collect();
        let mut right = None;
        nodes.iter().all(|&i| self.lists_exactly(i, &nodes, &mut right))
    }

    /// It lists exactly `nodes`, and suspects none of them. `right` is the fingerprint of one that did, if any: names need not
    /// be looked up again.
    pub fn lists_exactly(&self, i: NodeIndex, nodes: &[NodeIndex], right: &mut Option<u64>) -> bool {
        let engine = &self.nodes[i].engine;
        if engine.live() != nodes.len() || engine.suspects() > 0 {
            return false;
        }
        let fingerprint = Some(engine.fingerprint());
        let alive = |&j: &NodeIndex| engine.state(&self.nodes[j].name) == Some(MemberState::Alive);
        if fingerprint != *right && !nodes.iter().all(alive) {
            return false;
        }
        *right = fingerprint;
        true
    }

    /// Events of one kind about one member that `i` saw.
    pub fn count(&self, i: NodeIndex, kind: EventKind, about: NodeIndex) -> usize {
        let name = &self.nodes[about].name;
        let about = |e: &Event| e.kind == kind && e.member.as_ref().is_some_and(|m| m.name == *name);
        self.nodes[i].events.iter().filter(|(_, e)| about(e)).count()
    }

    // --- births ---

    fn hatch(&mut self, addr: SocketAddr, name: &str, config: Config) -> NodeIndex {
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

    // --- steps ---

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

    /// A tick, if it is time for one. Whether it was.
    fn on_time(&mut self, i: NodeIndex) -> bool {
        let node = &mut self.nodes[i];
        let Some(deadline) = node.deadline.filter(|_| node.up) else { return false };
        if deadline > self.now {
            self.set_timer(i, deadline);
            return false;
        }
        // As the driver does: it tells first how late it is.
        let late = self.now.since(deadline);
        let stalled = self.candid && late > node.config.stall_threshold;
        if !node.service.is_zero() {
            node.busy = self.now + node.service;
        }
        let (held, stuck) = (node.unsent.len(), node.state == Machine::Hung { stuck: true });
        self.turn(i, |engine, now, out| {
            if stuck {
                return engine.tick_while_hung(now, out);
            }
            if stalled {
                engine.stalled(late);
            }
            engine.handle(now, Input::Tick, out);
        });
        if matches!(self.nodes[i].state, Machine::Hung { stuck: false }) {
            let probes = |u: &Unsent| {
                let frames =
                    Frames::parse(&self.parcels[u.parcel as usize].bytes[envelope::HEADER..]).expect("we wrote it");
                frames.into_iter().any(|f| matches!(f, Frame::Ping { .. } | Frame::PingReq { .. }))
            };
            if self.nodes[i].unsent[held..].iter().any(probes) {
                self.nodes[i].state = Machine::Hung { stuck: true };
                self.set_deadline(i);
            }
        }
        true
    }

    fn arrive(&mut self, parcel: u32) -> Option<NodeIndex> {
        let p = &self.parcels[parcel as usize];
        let Some(i) = self.at(p.to) else {
            self.nobody_there(parcel);
            return None;
        };
        let node = &mut self.nodes[i];
        let reads = node.state == Machine::Running;
        if reads && node.busy <= self.now && node.held.is_empty() {
            let service = node.service;
            if !service.is_zero() {
                node.busy = self.now + service;
            }
            self.take_in(i, parcel);
            return Some(i);
        }
        if p.via == Via::Datagram && node.held.len() >= self.receive_queue {
            node.deaf = true;
            self.overflowed += 1;
            self.drop_parcel(parcel);
            return None;
        }
        node.held.push_back(parcel);
        if reads && node.held.len() == 1 {
            let ready = node.busy;
            self.post(ready, What::Ready(i as u32));
        }
        None
    }

    /// Works off what is held, as far as the node's speed allows.
    fn serve(&mut self, i: NodeIndex) {
        let deaf = core::mem::take(&mut self.nodes[i].deaf);
        if deaf && self.candid && self.nodes[i].up {
            // What the system had to drop is its own fault: answers may have been among it.
            let lost = self.nodes[i].config.stall_threshold;
            self.nodes[i].engine.stalled(lost);
        }
        // Timers are not moved by what was read before them, or their lateness would not show.
        let deadline = self.nodes[i].deadline;
        while self.nodes[i].up && self.nodes[i].state == Machine::Running {
            let Some(parcel) = self.nodes[i].held.pop_front() else { break };
            let service = self.nodes[i].service;
            self.take_in(i, parcel);
            if !service.is_zero() {
                self.nodes[i].busy = self.now + service;
                if !self.nodes[i].held.is_empty() {
                    self.post(self.now + service, What::Ready(i as u32));
                }
                break;
            }
        }
        if let Some(due) = deadline.filter(|d| *d <= self.now && self.nodes[i].up) {
            self.nodes[i].deadline = Some(due);
            self.set_timer(i, due);
        }
    }

    fn nobody_there(&mut self, parcel: u32) {
        let p = &self.parcels[parcel as usize];
        let by = p.by as usize;
        let dark = index(p.to).and_then(|i| self.nodes.get(i)).is_none_or(|node| node.dark && node.addr == p.to);
        if dark || p.kind == Kind::Unreachable || self.nodes[by].run != p.sender {
            return self.drop_parcel(parcel);
        }
        // A closed port answers, unless the answer is lost like everything else.
        let answer = Parcel {
            to: p.from,
            run: Some(p.sender),
            from: p.to,
            by: p.by,
            sender: p.sender,
            via: p.via,
            kind: Kind::Unreachable,
            bytes: Vec::new(),
            holders: 1,
        };
        self.drop_parcel(parcel);
        let answer = self.keep(answer);
        self.post(self.now + Duration::from_millis(1), What::Arrival(answer));
    }

    /// What the envelope does, and then the engine.
    fn take_in(&mut self, i: NodeIndex, parcel: u32) {
        let mut bytes = core::mem::take(&mut self.parcels[parcel as usize].bytes);
        let p = &self.parcels[parcel as usize];
        let (from, by, via, sender, run) = (p.from, p.by as usize, p.via, p.sender, p.run);
        let node = &self.nodes[i];
        let mine = run.is_none_or(|run| run == node.run);
        self.fates.received += u64::from(p.kind == Kind::Packet);
        if p.kind == Kind::Unreachable {
            if mine {
                self.turn(i, |engine, now, out| engine.handle(now, Input::Unreachable { addr: from, via }, out));
            }
        } else if node.envelope.is_some() {
            self.open_and_take_in(i, from, via, &mut bytes.clone());
        } else if mine && node.label == self.nodes[by].label {
            let frames = &bytes[envelope::HEADER..];
            let packet = Inbound { from, run: sender, stranger: run.is_none(), via, frames };
            self.turn(i, |engine, now, out| engine.handle(now, Input::Packet(packet), out));
        } else {
            self.refused += 1;
        }
        if let (Some(run), Via::Stream, Kind::Packet) = (run.filter(|_| !mine), via, self.parcels[parcel as usize].kind)
        {
            // Another run has its address: it hangs up.
            self.break_link(by, run, Duration::from_millis(1));
        }
        core::mem::swap(&mut self.parcels[parcel as usize].bytes, &mut bytes);
        self.drop_parcel(parcel);
    }

    fn open_and_take_in(&mut self, i: NodeIndex, from: SocketAddr, via: Via, bytes: &mut [u8]) {
        let node = &mut self.nodes[i];
        let (Some(envelope), Some(sessions)) = (&node.envelope, &mut node.sessions) else { return };
        match envelope.open(sessions, node.clock.now(self.now).mono, bytes) {
            Ok(Opened { from: run, stranger, frames }) => {
                let packet = Inbound { from, run, stranger, via, frames };
                self.turn(i, |engine, now, out| engine.handle(now, Input::Packet(packet), out));
            }
            Err(reject) => {
                self.refused += 1;
                self.rejects[reject as usize] += 1;
            }
        }
    }

    /// One call into an engine, and all that comes of it.
    fn turn(&mut self, i: NodeIndex, call: impl FnOnce(&mut Engine, Now, &mut Outbox)) {
        let now = self.nodes[i].clock.now(self.now);
        let mut out = core::mem::replace(&mut self.out, Outbox::new(0));
        out.clear();
        out.set_datagram_max(self.nodes[i].config.max_datagram);
        call(&mut self.nodes[i].engine, now, &mut out);
        self.read_mail(i, now, &mut out);
        let resolve = core::mem::take(&mut out.resolve);
        for seed in resolve {
            let name = &self.nodes[i].config.seeds[seed];
            let addrs = self.names.get(name).cloned().unwrap_or_else(|| name.parse().into_iter().collect());
            self.nodes[i].engine.handle(now, Input::Resolved { seed, addrs: &addrs }, &mut out);
        }
        for event in out.events.drain(..) {
            self.trace = mix(self.trace ^ event.kind as u64 ^ event.view.rotate_left(17) ^ self.now.as_nanos());
            if let Some(watcher) = &mut self.watcher {
                watcher(self.now, i, &event);
            }
            if let Some(log) = &mut self.log {
                log.push((self.now, Happening::Event(i, self.nodes[i].run, event.clone())));
            }
            if let (Some(sessions), Some(member)) = (&mut self.nodes[i].sessions, &event.member) {
                // As the driver does: sessions of members are kept.
                event.before.iter().filter(|b| b.run != member.run).for_each(|b| sessions.set_member(b.run, false));
                sessions.set_member(member.run, event.kind != EventKind::Forgotten);
            }
            if self.keep_events {
                self.nodes[i].events.push((self.now, event));
            }
        }
        for message in out.messages.drain(..) {
            if let Manner::Broadcast { seq } = message.manner {
                self.trace = mix(self.trace ^ message.run.get() ^ seq.rotate_left(32) ^ self.now.as_nanos());
            }
            if let Manner::Query(query) = message.manner {
                self.trace = mix(self.trace ^ message.run.get() ^ !query.id ^ self.now.as_nanos());
            }
            if let Some(listener) = &mut self.listener {
                listener(self.now, i, &message);
            }
            if self.keep_events {
                self.nodes[i].messages.push((self.now, message));
            }
        }
        self.nodes[i].completions.append(&mut out.completions);
        self.nodes[i].streams.append(&mut out.streams);
        for question in out.questions.drain(..) {
            let verdict = self.judges.as_ref().and_then(|judges| (judges.verdict)(&question));
            if let (Some((verdict, after)), Manner::Broadcast { seq }) = (verdict, question.manner) {
                self.give_verdict(i, self.nodes[i].run, (question.run, seq), verdict, after);
            }
        }
        for p in 0..out.len() {
            let to = out.destination(p);
            let via = if self.nodes[i].config.transport == Transport::Tcp { Via::Stream } else { to.via };
            self.send(i, Destination { via, ..to }, &out.packets()[p].buf);
        }
        self.out = out;
        self.set_deadline(i);
    }

    fn set_deadline(&mut self, i: NodeIndex) {
        let node = &mut self.nodes[i];
        let deadline = match node.state {
            Machine::Hung { stuck: true } => node.engine.deadline_while_hung(),
            _ => node.engine.deadline(node.clock.mono(self.now)),
        };
        node.deadline = deadline.map(|at| node.clock.world(at));
        if let Some(at) = node.deadline {
            self.set_timer(i, at);
        }
    }

    /// An application that is done at once with what it is told, and answers with what it was asked.
    fn read_mail(&mut self, i: NodeIndex, now: Now, out: &mut Outbox) {
        let mut messages = core::mem::take(&mut out.messages);
        let (mut read, mut answers_read) = (0, 0);
        loop {
            let engine = &mut self.nodes[i].engine;
            if let Some(message) = messages.get(read) {
                read += 1;
                engine.consumed(now, message.weight(), out);
                // Where the asker is gone, nobody waits for it.
                let _ = match message.manner {
                    Manner::Request { id } => engine.reply(now, message.run, id, Ok(message.body.data()), out),
                    Manner::Query(query) if self.answers => {
                        engine.answer_query(now, message.run, query, Ok(message.body.data()), out)
                    }
                    _ => Ok(()),
                };
            } else if let Some(completion) = out.completions.get(answers_read) {
                answers_read += 1;
                if let Completion::Answered { answer, .. } = completion {
                    engine.consumed(now, answer.weight(), out);
                }
            } else {
                break;
            }
            // What there was no room for.
            messages.append(&mut out.messages);
        }
        out.messages = messages;
    }

    /// A timer that is set for an earlier time serves as well: it looks again.
    fn set_timer(&mut self, i: NodeIndex, at: Instant) {
        // A deadline that a tick does not move must not stop the world.
        let at = at.max(self.now + Duration::from_nanos(1));
        if self.nodes[i].timer.is_none_or(|timer| at < timer) {
            self.nodes[i].timer = Some(at);
            self.post(at, What::Timer(i as u32));
        }
    }

    fn send(&mut self, i: NodeIndex, to: Destination, buf: &[u8]) {
        let frames = &buf[envelope::HEADER..];
        self.trace = hash(mix(self.trace ^ i as u64), frames);
        if self.transcript.is_some() {
            self.write_down(i, to, frames);
        }
        let len = buf.len() + envelope::TAG + UDP_IP;
        let kind = usize::from(frames.first().copied().unwrap_or(0)).min(KINDS - 1);
        self.traffic.packets[kind] += 1;
        self.traffic.bytes[kind] += len as u64;
        let sent = &mut self.nodes[i].sent;
        *sent = (sent.0 + 1, sent.1 + len as u64);

        let receiver = self.at(to.addr).or_else(|| index(to.addr).filter(|&j| j < self.nodes.len()));
        let fate = self.paths.send(&mut self.rng, self.now, i, receiver, to.via, len);
        self.fates.sent += 1;
        self.fates.duplicated += u64::from(fate.arrivals[1].is_some());
        self.fates.damaged += u64::from(fate.damage.is_some());
        if let Some(log) = &mut self.log {
            let lost = fate.arrivals == [None, None] || receiver.is_some_and(|j| self.nodes[j].dark);
            let Node { run, addr, .. } = self.nodes[i];
            let letter = Letter { from: i, run, addr, to, frames: frames.to_vec(), lost };
            log.push((self.now, Happening::Packet(letter)));
        }
        if fate.arrivals == [None, None] {
            self.fates.lost += 1;
            if let (Via::Stream, Some(run)) = (to.via, to.run) {
                // TCP sends it again and again, and then gives up.
                let patience = self.nodes[i].config.link_timeout;
                self.break_link(i, run, patience);
            }
            return;
        }
        let mut bytes = match self.free.last() {
            Some(&free) => core::mem::take(&mut self.parcels[free as usize].bytes),
            None => Vec::new(),
        };
        bytes.clear();
        bytes.extend_from_slice(buf);
        let node = &self.nodes[i];
        match &node.envelope {
            Some(envelope) if to.via == Via::Stream => envelope.seal_record(to.run, &mut bytes),
            Some(envelope) => envelope.seal(to.run, &mut bytes),
            None => {}
        }
        match fate.damage {
            Some(_) if node.envelope.is_none() => {
                // The checksum would have seen it.
                self.refused += 1;
                return;
            }
            Some(Damage::Flip { bit }) => {
                let bit = bit % (bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            Some(Damage::Cut { len }) => bytes.truncate(len.min(bytes.len() - 1)),
            None => {}
        }
        let parcel = self.keep(Parcel {
            to: to.addr,
            run: to.run,
            from: node.addr,
            by: i as u32,
            sender: node.run,
            via: to.via,
            kind: Kind::Packet,
            bytes,
            holders: 0,
        });
        if to.via == Via::Datagram && self.paths.network.replay > 0.0 {
            self.record_and_replay(parcel);
        }
        if matches!(self.nodes[i].state, Machine::Blocked | Machine::Hung { .. }) {
            self.parcels[parcel as usize].holders += 1;
            let since = self.now;
            self.nodes[i].unsent.push(Unsent { parcel, fate, since });
            return;
        }
        self.dispatch(parcel, fate);
    }

    /// Puts a packet on its way.
    fn dispatch(&mut self, parcel: u32, fate: Fate) {
        for at in fate.arrivals.into_iter().flatten() {
            self.parcels[parcel as usize].holders += 1;
            self.post(at, What::Arrival(parcel));
        }
    }

    /// Keeps this datagram for later, and may send an old one again, to where it went then.
    fn record_and_replay(&mut self, parcel: u32) {
        self.parcels[parcel as usize].holders += 1;
        self.recorded.push_back(parcel);
        if self.recorded.len() > RECORDED {
            let oldest = self.recorded.pop_front().expect("there are some");
            self.drop_parcel(oldest);
        }
        if chance(&mut self.rng, self.paths.network.replay) {
            let old = self.recorded[self.rng.index(self.recorded.len())];
            self.parcels[old as usize].holders += 1;
            let at = self.now + self.paths.network.delay.draw(&mut self.rng);
            self.post(at, What::Arrival(old));
        }
    }

    /// Some time from now node `i` learns that its link with that run has ended.
    fn break_link(&mut self, i: NodeIndex, run: RunId, after: Duration) {
        // Who has nothing on it does not notice.
        if !self.nodes[i].engine.minds_link(run) || !self.breaking.insert((i, run)) {
            return;
        }
        let sender = self.nodes[i].run;
        self.after(after, move |world| {
            world.breaking.remove(&(i, run));
            let node = &world.nodes[i];
            if node.up && node.run == sender && node.state == Machine::Running {
                world.turn(i, |engine, now, out| engine.handle(now, Input::Severed { run, last: true }, out));
            }
        });
    }

    /// An application that stands still says it later.
    fn give_verdict(&mut self, i: NodeIndex, judge: RunId, id: (RunId, u64), verdict: Verdict, after: Duration) {
        self.after(after, move |world| {
            let node = &world.nodes[i];
            match node.state {
                _ if !node.up || node.run != judge => {}
                Machine::Running => world.turn(i, |e, now, out| e.validated(now, id.0, id.1, verdict, out)),
                _ => world.give_verdict(i, judge, id, verdict, Duration::from_millis(100)),
            }
        });
    }

    fn write_down(&mut self, i: NodeIndex, to: Destination, frames: &[u8]) {
        let Some(lines) = &mut self.transcript else { return };
        let ms = self.now.as_nanos() / 1_000_000;
        let via = if to.via == Via::Stream { " (stream)" } else { "" };
        for frame in Frames::parse(frames).expect("we wrote it") {
            lines.push(alloc::format!("{ms:>6} ms  {} → {}{via}  {frame}", self.nodes[i].name, to.addr.port()));
        }
    }

    // --- parcels ---

    fn keep(&mut self, parcel: Parcel) -> u32 {
        match self.free.pop() {
            Some(free) => {
                self.parcels[free as usize] = parcel;
                free
            }
            None => {
                self.parcels.push(parcel);
                (self.parcels.len() - 1) as u32
            }
        }
    }

    fn drop_parcel(&mut self, parcel: u32) {
        let p = &mut self.parcels[parcel as usize];
        p.holders = p.holders.saturating_sub(1);
        if p.holders == 0 {
            self.free.push(parcel);
        }
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

fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let mut chunks = bytes.chunks_exact(8);
    let mut hash = seed;
    for chunk in &mut chunks {
        hash = mix(hash ^ u64::from_le_bytes(chunk.try_into().expect("eight bytes")));
    }
    chunks.remainder().iter().fold(hash, |h, &b| mix(h ^ u64::from(b)))
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
