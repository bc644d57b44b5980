//! The hot paths: each makes what it needs, and has its operations counted. Seeds, names and addresses are fixed, and time
//! is what we say it is.

// The same stage as in the tests of one engine.
#[path = "../../tests/stage/mod.rs"]
mod stage;

use std::hint::black_box;
use std::time::Duration;

use bruit_core::config::Config;
use bruit_core::engine::Sending::Reliable;
use bruit_core::engine::{Engine, Inbound, Input};
use bruit_core::id::Incarnation;
use bruit_core::message::{Body, Chunk, Delivery, Manner, Weight};
use bruit_core::outbox::{Completion, Outbox, Streamed, Via};
use bruit_core::sim::World;
use bruit_core::time::{Instant, Now};
use bruit_core::wire::envelope::{Envelope, HEADER, Limits, OVERHEAD, TAG};
use bruit_core::wire::frame::{Frame, Frames, Gossip, Way};
use stage::{Stage, addr, ms, name, record, run};

use super::counted;

/// The name that it is kept under, and what has it counted and says how many operations it was.
type Path = (&'static str, fn() -> u64);

pub const PATHS: &[Path] = &[
    ("PING in, ACK out: 1,000 members", || ping(1_000)),
    ("PING in, ACK out: 10,000 members", || ping(10_000)),
    ("a known ALIVE of a full datagram: 1,000 members", || update(alive)),
    ("a known RECORD of a full datagram: 1,000 members", || update(|i| bytes(&Frame::Record(record(i, &name(i)))))),
    ("a quiet second, ticks and our PING's ACK: 100 members", || quiet(100)),
    ("a quiet second, ticks and our PING's ACK: 10,000 members", || quiet(10_000)),
    ("when the next tick is due: 1,000 members", deadline),
    ("60 bytes sealed", || seal(60)),
    ("60 bytes opened", || open(60)),
    ("1,366 bytes sealed: a full datagram", || seal(DATAGRAM - OVERHEAD)),
    ("1,366 bytes opened: a full datagram", || open(DATAGRAM - OVERHEAD)),
    ("a best-effort message of 256 bytes in, handed out", message),
    ("a reliable message of 256 bytes sent, handed out, acknowledged", reliable),
    ("a request of 256 bytes and its reply", request),
    ("a broadcast of 256 bytes in, handed out, on to 4 neighbours", broadcast),
    ("16 KiB of a byte stream written, handed out, acknowledged", stream),
    ("a PING written", || written(&PING)),
    ("a PING read", || read(&PING)),
    ("a RECORD written", || written(&Frame::Record(record(7, "a-usual-name")))),
    ("a RECORD read", || read(&Frame::Record(record(7, "a-usual-name")))),
    ("a GOSSIP of 256 bytes written", || written(&Frame::Gossip(gossip(7, 1)))),
    ("a GOSSIP of 256 bytes read", || read(&Frame::Gossip(gossip(7, 1)))),
    ("a step of the simulator: 1,000 idle nodes", step),
];

const PING: Frame<'_> = Frame::Ping { seq: 1 << 20, beat: 5_000, fingerprint: u64::MAX };

const DATAGRAM: usize = 1400;

/// A usual message.
const DATA: &[u8] = &[7; 256];

/// What the compiler does not decide, and neither do we: the C library, and what its and ring's functions find in the
/// processor that valgrind shows them.
pub fn surroundings() -> String {
    #[cfg(target_env = "gnu")]
    let libc = {
        // SAFETY: a static string, ended by a zero.
        let version = unsafe { std::ffi::CStr::from_ptr(libc::gnu_get_libc_version()) };
        format!("glibc {}", version.to_string_lossy())
    };
    #[cfg(not(target_env = "gnu"))]
    let libc = "another C library than glibc";
    #[cfg(target_arch = "x86_64")]
    let vectors = if std::arch::is_x86_feature_detected!("avx2") { " with AVX2" } else { " without AVX2" };
    #[cfg(not(target_arch = "x86_64"))]
    let vectors = "";
    format!("{libc}, {}{vectors}", std::env::consts::ARCH)
}

// --- membership ---

fn ping(members: u64) -> u64 {
    let mut node = Node::among(members);
    let fingerprint = node.stage.engine.fingerprint();
    let ping = bytes(&Frame::Ping { seq: 1 << 20, beat: 5_000, fingerprint });
    // From members far apart in the table, one after another.
    repeat(200, |i| {
        node.hear(1 + i * 7919 % members, &ping);
        assert_eq!(node.out.len(), 1, "an ACK");
    })
}

fn alive(i: u64) -> Vec<u8> {
    bytes(&Frame::Alive { run: run(i), incarnation: Incarnation(0) })
}

/// Datagrams full of updates about members far apart in the table.
fn update(about: impl Fn(u64) -> Vec<u8>) -> u64 {
    let mut node = Node::among(1_000);
    let packet = |p: usize| {
        let (mut packet, mut updates) = (Vec::new(), 0);
        for update in (p * 31..).step_by(7919).map(|i| about(1 + i as u64 % 1_000)) {
            if packet.len() + update.len() > DATAGRAM - OVERHEAD {
                break;
            }
            packet.extend(update);
            updates += 1;
        }
        (packet, updates)
    };
    let packets: Vec<(Vec<u8>, u64)> = (0..21).map(packet).collect();
    repeat(20, |i| node.hear(1, &packets[i as usize].0));
    packets[1..].iter().map(|(_, updates)| updates).sum()
}

/// Its own ping is answered at once, and nobody pings it.
fn quiet(members: u64) -> u64 {
    const SECONDS: u64 = 60;
    let mut node = Node::among(members);
    // With the first ping come the buffers for it.
    spend(&mut node, 2, |work| work());
    spend(&mut node, SECONDS, counted);
    assert!(node.stage.engine.counters().acks >= SECONDS && node.stage.engine.suspects() == 0);
    SECONDS
}

fn spend(node: &mut Node, seconds: u64, how: fn(&mut dyn FnMut())) {
    let fingerprint = node.stage.engine.fingerprint();
    let end = node.stage.now + Duration::from_secs(seconds);
    let (mut ack, mut at) = (Vec::new(), node.deadline());
    while let Some(due) = at.filter(|at| *at <= end) {
        node.stage.now = due.max(node.stage.now);
        how(&mut || {
            node.tick();
            at = node.deadline();
        });
        let asked = node.out.frames().find_map(|(to, frame)| match frame {
            Frame::Ping { seq, .. } => Some((to.run?.get() - run(0).get(), seq)),
            _ => None,
        });
        let Some((who, seq)) = asked else { continue };
        ack.clear();
        Frame::Ack { seq, beat: 5_000, fingerprint }.write(&mut ack);
        how(&mut || {
            node.hear(who, &ack);
            at = node.deadline();
        });
    }
    node.stage.now = end;
}

fn deadline() -> u64 {
    let node = Node::among(1_000);
    repeat(10, |_| _ = black_box(node.deadline()))
}

// --- the envelope ---

fn envelope(i: u64) -> Envelope {
    let limits = Limits { max_sessions: 4096, derive_rate: 1000 };
    Envelope::new("label", &[[9; 32]], run(i), [i as u8; 32], limits)
}

/// As the outbox has them: with room in front and at the end.
fn packets(count: u64, len: usize) -> Vec<Vec<u8>> {
    let packet = || {
        let mut packet = Vec::with_capacity(HEADER + len + TAG);
        packet.resize(HEADER + len, 7);
        packet
    };
    (0..count).map(|_| packet()).collect()
}

fn seal(len: usize) -> u64 {
    let (ours, mut packets) = (envelope(0), packets(51, len));
    repeat(50, |i| ours.seal(Some(run(1)), &mut packets[i as usize]))
}

fn open(len: usize) -> u64 {
    let (ours, theirs) = (envelope(0), envelope(1));
    let (mut sessions, now) = (ours.sessions(), Instant::from_nanos(1_000_000_000));
    let mut packets = packets(51, len);
    packets.iter_mut().for_each(|packet| theirs.seal(Some(run(0)), packet));
    // With the first one the session is made.
    repeat(50, |i| assert!(ours.open(&mut sessions, now, &mut packets[i as usize]).is_ok()))
}

// --- messages ---

fn message() -> u64 {
    let mut node = Node::among(100);
    let message = bytes(&Frame::Message { topic: "news", data: DATA });
    repeat(200, |i| {
        node.hear(1 + i % 100, &message);
        node.serve();
        assert_eq!(node.messages, i + 1);
    })
}

/// In bursts, so that an acknowledgement is for some.
fn reliable() -> u64 {
    const BURST: u64 = 32;
    let (mut pair, body) = (Pair::new(), Body::new("news", DATA).expect("a topic"));
    let bursts = repeat(10, |_| {
        for _ in 0..BURST {
            pair.a.call(|e, now, out| e.send(now, "b", body.clone(), Reliable, out)).expect("there is room");
            exchange(&mut pair.a, &mut pair.b);
        }
        pair.pass(ms(20));
    });
    assert!(!pair.a.stage.engine.minds_link(run(B)), "all is acknowledged");
    assert_eq!(pair.b.messages, (bursts + 1) * BURST);
    bursts * BURST
}

fn request() -> u64 {
    let (mut pair, body) = (Pair::new(), Body::new("ask", DATA).expect("a topic"));
    let count = repeat(100, |_| {
        let limit = Some(ms(1_000));
        pair.a.call(|e, now, out| e.request(now, "b", body.clone(), limit, out)).expect("there is room");
        exchange(&mut pair.a, &mut pair.b);
        pair.pass(ms(1));
    });
    assert_eq!(pair.a.replies, count + 1);
    count
}

fn stream() -> u64 {
    const CHUNK: usize = 16 << 10;
    let (mut pair, topic) = (Pair::new(), Body::new("bytes", &[]).expect("a topic"));
    let id = pair.a.call(|e, now, out| e.open_stream(now, "b", topic, false, out)).expect("there is room");
    exchange(&mut pair.a, &mut pair.b);
    let chunk = [Chunk { body: Body::new("", &[7; CHUNK]).expect("no topic"), is_packed: false }];
    let count = repeat(100, |_| {
        pair.a.call(|e, now, out| e.write_stream(now, id, &chunk, out)).expect("there is room");
        exchange(&mut pair.a, &mut pair.b);
        pair.pass(ms(1));
    });
    assert_eq!(pair.b.streamed, (count + 1) * CHUNK as u64);
    count
}

fn gossip(origin: u64, seq: u64) -> Gossip<'static> {
    Gossip {
        origin: run(origin),
        seq,
        hops: 3,
        age: 2,
        way: Way::default(),
        topic: "news",
        data: DATA,
        after: 0,
        terms: &[],
        by: None,
    }
}

/// From one of five neighbours, and to the others.
fn broadcast() -> u64 {
    let mut node = Node::among(100);
    for i in 1..=5 {
        node.hear_by(i, Via::Stream, &bytes(&Frame::Neighbor { urgent: true, record: None }));
    }
    assert_eq!(node.stage.engine.neighbours().len(), 5);
    // What is said now is none of what was said before it came.
    node.stage.now = node.stage.now + ms(1_000);
    let frames: Vec<Vec<u8>> = (1..=201).map(|seq| bytes(&Frame::Gossip(gossip(7, seq)))).collect();
    repeat(200, |i| {
        node.hear_by(1, Via::Stream, &frames[i as usize]);
        // Now and then the neighbour that it came from is told as well, how much of it has come.
        assert!((4..=5).contains(&node.out.len()));
        node.serve();
        assert_eq!(node.messages, i + 1);
    })
}

// --- frames ---

fn written(frame: &Frame<'_>) -> u64 {
    let mut buf = Vec::with_capacity(DATAGRAM);
    repeat(10, |_| {
        buf.clear();
        black_box(frame).write(&mut buf);
    })
}

fn read(frame: &Frame<'_>) -> u64 {
    let bytes = bytes(frame);
    repeat(10, |_| {
        let mut frames = Frames::parse(black_box(&bytes)).expect("well formed");
        assert!(black_box(frames.next()).is_some());
    })
}

// --- the simulator ---

/// Engines included.
fn step() -> u64 {
    let mut world = World::new(1);
    world.keep_events = false;
    let nodes: Vec<usize> = (0..1_000).map(|i| world.add(&name(i), Config::new())).collect();
    world.acquaint(&nodes);
    world.run_for(ms(2_000));
    let before = world.steps();
    counted(&mut || world.run_for(ms(1_000)));
    world.steps() - before
}

// --- the parts ---

/// Counts so many. The first, of one more, is not counted: buffers have their size then.
fn repeat(count: u64, mut work: impl FnMut(u64)) -> u64 {
    work(0);
    (1..=count).for_each(|i| counted(&mut || work(i)));
    count
}

fn bytes(frame: &Frame<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.write(&mut bytes);
    bytes
}

/// A member that knows all others from the start, and its application.
struct Node {
    i: u64,
    stage: Stage,
    out: Outbox,
    /// Room for what is handed out.
    taken: Vec<Delivery>,
    /// What the application has had.
    messages: u64,
    replies: u64,
    streamed: u64,
}

impl Node {
    fn among(members: u64) -> Node {
        Node::new(0, "me", (1..=members).map(|i| (i, name(i))).collect())
    }

    fn new(i: u64, own: &str, others: Vec<(u64, String)>) -> Node {
        let mut stage = Stage::of(i, own, Config::new(), 1);
        let records = others.iter().map(|(i, name)| record(*i, name));
        assert_eq!(stage.call(|e, now, _| e.acquaint(now, records)), others.len());
        Node { i, stage, out: Outbox::new(DATAGRAM), taken: Vec::new(), messages: 0, replies: 0, streamed: 0 }
    }

    fn hear(&mut self, i: u64, frames: &[u8]) {
        self.hear_by(i, Via::Datagram, frames);
    }

    fn hear_by(&mut self, i: u64, via: Via, frames: &[u8]) {
        let packet = Inbound { from: addr(i), run: run(i), stranger: false, via, frames };
        self.call(|e, now, out| e.handle(now, Input::Packet(packet), out));
    }

    fn tick(&mut self) {
        self.call(|e, now, out| e.handle(now, Input::Tick, out));
    }

    fn call<T>(&mut self, call: impl FnOnce(&mut Engine, Now, &mut Outbox) -> T) -> T {
        let now = self.stage.now();
        self.out.clear();
        call(&mut self.stage.engine, now, &mut self.out)
    }

    fn deadline(&self) -> Option<Instant> {
        self.stage.engine.deadline(self.stage.now)
    }

    /// The application takes what there is for it, and answers what it is asked with the question.
    fn serve(&mut self) {
        let now = self.stage.now();
        let Node { stage: Stage { engine, .. }, out, taken, .. } = self;
        std::mem::swap(taken, &mut out.messages);
        let mut weight = Weight::default();
        for message in taken.drain(..) {
            self.messages += 1;
            weight += message.weight();
            if let Manner::Request { id } = message.manner {
                engine.reply(now, message.run, id, Ok(message.body.data()), out).expect("the asker lives");
            }
        }
        if weight != Weight::default() {
            engine.consumed(now, weight, out);
        }
        while let Some(streamed) = out.streams.pop() {
            if let Streamed::Come { id, chunk } = streamed {
                self.streamed += chunk.body.len() as u64;
                engine.consumed_of_stream(now, id, chunk.weight(), out);
            }
        }
        let is_reply = |c: &Completion| matches!(c, Completion::Replied { answer: Ok(_), .. });
        self.replies += out.completions.drain(..).filter(is_reply).count() as u64;
    }
}

/// Two of a hundred, who hear what they say to each other.
struct Pair {
    a: Node,
    b: Node,
}

const A: u64 = 101;
const B: u64 = 102;

impl Pair {
    fn new() -> Pair {
        let node = |i: u64, own: &str, other: (u64, &str)| {
            let others = (1..=98).map(|i| (i, name(i))).chain([(other.0, other.1.to_owned())]);
            Node::new(i, own, others.collect())
        };
        Pair { a: node(A, "a", (B, "b")), b: node(B, "b", (A, "a")) }
    }

    fn pass(&mut self, time: Duration) {
        let Pair { a, b } = self;
        (a.stage.now, b.stage.now) = (a.stage.now + time, b.stage.now + time);
        tick_if_due(a, b);
        tick_if_due(b, a);
    }
}

fn tick_if_due(one: &mut Node, other: &mut Node) {
    if one.deadline().is_some_and(|at| at <= one.stage.now) {
        one.tick();
        exchange(one, other);
    }
}

/// What `one` has said is heard, and what is said to that, until nobody has more to say.
fn exchange(one: &mut Node, other: &mut Node) {
    let (mut says, mut hears) = (one, other);
    while !says.out.packets().is_empty() {
        hears.out.clear();
        for packet in says.out.packets().iter().filter(|packet| packet.to.run == Some(run(hears.i))) {
            let (from, run) = (addr(says.i), run(says.i));
            let packet = Inbound { from, run, stranger: false, via: packet.to.via, frames: packet.frames() };
            hears.stage.engine.handle(hears.stage.now(), Input::Packet(packet), &mut hears.out);
        }
        hears.serve();
        (says, hears) = (hears, says);
    }
}
