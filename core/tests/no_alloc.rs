//! A node in a quiet cluster takes no memory, packet after packet; and one that is busy gives back what it took.

mod stage;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;

use bruit_core::config::{Config, Detector};
use bruit_core::engine::{Engine, Identity, Inbound, Input};
use bruit_core::id::{Epoch, Incarnation, NodeName, RunId};
use bruit_core::outbox::{Outbox, Via};
use bruit_core::time::{Instant, Now, Wall};
use bruit_core::view::{EventKind, MemberState};
use bruit_core::wire::envelope::{Envelope, HEADER, Limits, Sessions};
use bruit_core::wire::frame::{Beats, Frame, Frames};
use stage::{Stage, addr, ms, name, record, run};

/// Counts what this thread allocates, and what it holds.
struct Counting;

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
    static HELD: Cell<i64> = const { Cell::new(0) };
}

fn count(calls: u64, bytes: i64) {
    CALLS.with(|c| c.set(c.get() + calls));
    HELD.with(|h| h.set(h.get() + bytes));
}

// SAFETY: hands every call on to the system's allocator, unchanged; the counters are plain cells without destructors.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size() as i64);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(0, -(layout.size() as i64));
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(1, new_size as i64 - layout.size() as i64);
        // SAFETY: as above.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

#[global_allocator]
static GLOBAL: Counting = Counting;

const PEERS: u64 = 20;

/// A node with its envelope, peers with theirs, and every buffer that a driver would keep.
struct Node {
    engine: Engine,
    envelope: Envelope,
    sessions: Sessions,
    peers: Vec<Envelope>,
    out: Outbox,
    packet: Vec<u8>,
    asked: Vec<(u64, u64)>,
    now: Instant,
}

fn envelope(i: u64) -> Envelope {
    let limits = Limits { max_sessions: 4096, derive_rate: 1000 };
    Envelope::new("label", &[[9; 32]], run(i), [i as u8; 32], limits)
}

impl Node {
    fn among_peers(config: Config) -> Node {
        let now = Instant::from_nanos(1_000_000_000_000);
        let me = Identity { name: NodeName::new("me").unwrap(), epoch: Epoch(1), run: run(0), address: addr(0) };
        let envelope_of_us = envelope(0);
        let mut node = Node {
            engine: Engine::new(Arc::new(config), me, Now { mono: now, wall: Wall(1) }, [1; 32]),
            sessions: envelope_of_us.sessions(),
            envelope: envelope_of_us,
            peers: (1..=PEERS).map(envelope).collect(),
            out: Outbox::new(1400),
            packet: Vec::with_capacity(2048),
            asked: Vec::with_capacity(64),
            now,
        };
        let mut out = Outbox::new(1400);
        node.engine.start(node.now(), &mut out);
        for i in 1..=PEERS {
            node.hear(i, &[Frame::Record(record(i, &name(i)))]);
        }
        node
    }

    fn now(&self) -> Now {
        Now { mono: self.now, wall: Wall(1) }
    }

    /// Peer `i` seals, we open, the engine hears, its answers are sealed.
    fn hear(&mut self, i: u64, frames: &[Frame<'_>]) {
        self.packet.clear();
        self.packet.resize(HEADER, 0);
        frames.iter().for_each(|frame| frame.write(&mut self.packet));
        self.peers[i as usize - 1].seal(Some(run(0)), &mut self.packet);
        let now = self.now();
        let opened = self.envelope.open(&mut self.sessions, self.now, &mut self.packet).expect("ours, and new");
        let from: SocketAddr = addr(i);
        let packet = Inbound { from, run: opened.from, stranger: false, via: Via::Datagram, frames: opened.frames };
        self.out.clear();
        self.engine.handle(now, Input::Packet(packet), &mut self.out);
        self.send();
    }

    fn tick(&mut self) {
        let now = self.now();
        self.out.clear();
        self.engine.handle(now, Input::Tick, &mut self.out);
        self.send();
    }

    /// Notes the pings, and seals everything.
    fn send(&mut self) {
        for packet in self.out.packets() {
            for frame in Frames::parse(packet.frames()).expect("well formed") {
                if let (Frame::Ping { seq, .. }, Some(to)) = (frame, packet.to.run) {
                    self.asked.push((to.get() - 0x1000, seq));
                }
            }
            self.envelope.seal(packet.to.run, &mut packet.buf);
        }
    }

    /// A period as it is in a quiet cluster: our ping and its answer, somebody's ping, and news that is none.
    fn period(&mut self, turn: u64) {
        let end = self.now + ms(1_000);
        while let Some(at) = self.engine.deadline(self.now).filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.tick();
            while let Some((i, seq)) = self.asked.pop() {
                self.hear(i, &[Frame::Ack { seq, beat: 0, fingerprint: 0 }]);
            }
        }
        self.now = end;
        let (i, about) = (1 + turn % PEERS, 1 + turn * 7 % PEERS);
        let (own, accusers) = (["p1", "p2", "p3"][turn as usize % 3], Default::default());
        self.hear(
            i,
            &[
                Frame::Ping { seq: turn, beat: 0, fingerprint: 0 },
                Frame::Alive { run: run(about), incarnation: Incarnation(0) },
                Frame::Record(record(1 + turn % 3, own)),
                Frame::Dead { run: RunId::new(77).expect("nobody"), incarnation: Incarnation(0), age: 1 },
                Frame::Suspect { run: run(PEERS), incarnation: Incarnation(0), accusers },
            ],
        );
    }
}

#[test]
fn a_quiet_cluster_costs_no_allocation() {
    let mut node = Node::among_peers(Config::new());
    // Refutes, so that what the period says of it is old.
    node.hear(PEERS, &[Frame::Alive { run: run(PEERS), incarnation: Incarnation(1) }]);
    (0..120).for_each(|turn| node.period(turn));
    let (calls, acks) = (CALLS.get(), node.engine.counters().acks);
    for turn in 120..420 {
        node.period(turn);
    }
    assert_eq!(CALLS.get() - calls, 0, "allocations in 300 periods");
    assert!(node.engine.counters().acks >= acks + 250);
    let view = node.engine.view(node.now());
    assert!(view.members.iter().all(|m| m.state == MemberState::Alive));
}

/// Each peer's heartbeat each second, told by one of them, and ours told to some.
#[test]
fn heartbeats_cost_no_allocation_once_windows_are_full() {
    let mut config = Config::new();
    (config.detector, config.phi_window) = (Detector::Phi, 32);
    let mut node = Node::among_peers(config);
    let mut beats = Vec::with_capacity(1_024);
    let mut second = |node: &mut Node, turn: u64| {
        let end = node.now + ms(1_000);
        while let Some(at) = node.engine.deadline(node.now).filter(|at| *at <= end) {
            node.now = node.now.max(at);
            node.tick();
            node.asked.clear();
        }
        node.now = end;
        beats.clear();
        (1..=PEERS).for_each(|i| Beats::push(&mut beats, run(i), 1 + turn));
        node.hear(1 + turn % PEERS, &[Frame::Heartbeats { idle: 0, fingerprint: 0, beats: Beats(&beats) }]);
    };
    (0..120).for_each(|turn| second(&mut node, turn));
    let calls = CALLS.get();
    (120..420).for_each(|turn| second(&mut node, turn));
    assert_eq!(CALLS.get() - calls, 0, "allocations in 300 periods");
    assert_eq!(node.engine.counters().suspicions, 0);
    assert!(node.engine.phi(node.now(), "p7").is_some());
}

/// Bytes that this thread holds more after `act` than before.
fn growth(act: impl FnOnce()) -> i64 {
    let before = HELD.get();
    act();
    HELD.get() - before
}

/// Ten thousand nodes that all know each other then fit in 12 GiB.
#[test]
fn a_member_of_a_full_table_takes_125_bytes() {
    const N: u64 = 10_000;
    let names: Vec<String> = (0..=N).map(name).collect();
    let mut stage = Stage::new(Config::new());
    let grown = growth(|| {
        let records = (1..=N).map(|i| record(i, &names[i as usize]));
        assert_eq!(stage.call(|engine, now, _| engine.acquaint(now, records)), N as usize);
    });
    println!("{grown} bytes for {N} members");
    assert!(grown <= 125 * N as i64, "{grown} bytes for {N} members");

    // Nor does it take more for being at work: probes, a death, and what is said of it.
    let grown = growth(|| {
        stage.answering(ms(30_000), |i, _| i != 7);
        stage.hear(3, &[Frame::Dead { run: run(7), incarnation: Incarnation(0), age: 0 }]);
        stage.answering(ms(30_000), |i, _| i != 7);
        assert_eq!(stage.told(EventKind::Dead, 7), 1);
        (stage.sent, stage.events) = Default::default();
    });
    assert_eq!(stage.engine.live(), N as usize);
    assert!(grown < 64 * 1024, "{grown} bytes more");
}

#[test]
fn pictures_of_members_are_kept_from_the_first_look_on_and_shared_by_all_views() {
    const N: i64 = 1_000;
    let mut stage = Stage::new(Config::new());
    let meet = |stage: &mut Stage, who: std::ops::Range<u64>| {
        for i in who {
            stage.hear(i, &[Frame::Record(record(i, &name(i)))]);
            assert_eq!(stage.told(EventKind::Join, i), 1);
            stage.events.clear();
        }
        stage.answering(ms(60_000), |_, _| true);
        (stage.sent, stage.events) = Default::default();
    };
    let unseen = growth(|| meet(&mut stage, 1..1 + N as u64));
    assert!(unseen < 220 * N, "{unseen} bytes for {N} members that nobody looked at");
    let (mut first, mut second) = (None, None);
    let seen = growth(|| first = Some(stage.engine.view(stage.now())));
    assert!(seen > 120 * N, "{seen} bytes for pictures of {N}");
    stage.hear(1, &[Frame::Alive { run: run(1), incarnation: Incarnation(1) }]);
    let again = growth(|| second = Some(stage.engine.view(stage.now())));
    assert!(again < 48 * N, "{again} bytes for a second view in which one member differs");
    let (first, second) = (first.unwrap(), second.unwrap());
    let same = first.members.iter().zip(second.members.iter()).filter(|(a, b)| Arc::ptr_eq(a, b)).count();
    assert_eq!(same as i64, N);
}

#[test]
fn a_node_alone_may_change_its_metadata_for_ever() {
    let mut stage = Stage::new(Config::new());
    let mut change = |times: u32| {
        for i in 0..times {
            let value = [b'0' + (i % 10) as u8];
            stage.call(|e, now, out| e.set_meta(now, &[("k", Some(&value))], out)).unwrap();
        }
    };
    change(1_000);
    let grown = growth(|| change(50_000));
    assert!(grown < 16 * 1024, "{grown} bytes after 50,000 changes");
}

#[test]
fn a_member_that_comes_and_goes_for_ever_takes_no_memory() {
    let mut stage = Stage::among(10, Config::new());
    let mut flap = |from: u64, to: u64| {
        for incarnation in from..to {
            let accuser = run(3).get().to_le_bytes();
            let accusers = bruit_core::wire::frame::Runs(&accuser);
            stage.hear(1, &[Frame::Suspect { run: run(2), incarnation: Incarnation(incarnation), accusers }]);
            stage.hear(2, &[Frame::Alive { run: run(2), incarnation: Incarnation(incarnation + 1) }]);
            stage.sent.clear();
            stage.events.clear();
        }
    };
    flap(0, 1_000);
    let grown = growth(|| flap(1_000, 20_000));
    assert!(grown < 64 * 1024, "{grown} bytes after 19,000 suspicions");
}
