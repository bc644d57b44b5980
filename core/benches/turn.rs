//! One engine turn: a ping in and its ACK out; a full packet of known updates; turns of many nodes with large tables.
//! Nanoseconds and allocations, the envelope and the sockets apart.
//!
//!     cargo bench --package bruit-core --bench turn

mod report;

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bruit_core::config::Config;
use bruit_core::engine::{Engine, Identity, Inbound, Input};
use bruit_core::id::{Epoch, Incarnation, NodeName, RunId, Version};
use bruit_core::outbox::{Outbox, Via};
use bruit_core::rng::mix;
use bruit_core::time::{Instant, Now, Wall};
use bruit_core::wire::envelope;
use bruit_core::wire::frame::{Entries, Frame, Record};
use report::{Machine, Row};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is handed to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller's promise is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static GLOBAL: Counting = Counting;

const DATAGRAM: usize = 1400;

/// Many short ones: on a busy machine some are left alone.
const ROUNDS: usize = 20;

/// Time that this thread has been running, in nanoseconds: what others run meanwhile does not count.
fn cpu_ns() -> f64 {
    // SAFETY: all-zero is a valid `timespec`, and the call fills it.
    let time = unsafe {
        let mut time: libc::timespec = std::mem::zeroed();
        assert_eq!(libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time), 0);
        time
    };
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

fn main() {
    println!("$ cargo bench --package bruit-core --bench turn");
    let machine = Machine::measure();
    machine.print();
    for n in [100, 1_000, 10_000] {
        turn(&machine, n);
    }
    for n in [1_000, 10_000] {
        read(&machine, n, "ALIVE", |bench, i| bench.alive(i));
        read(&machine, n, "RECORD", |bench, i| bench.record(i));
    }
    crowd(200, 10_000);
}

/// Many nodes in one process, each with a full table: what a simulation of a large cluster does. No table is in the cache
/// when its turn comes.
fn crowd(nodes: usize, members: usize) {
    let names: Vec<String> = (0..members).map(|i| format!("node-{i}")).collect();
    let runs = runs(members);
    let record = |i: usize| record(&names[i], runs[i], i);
    let mut fill = f64::MAX;
    let mut engines: Vec<Engine> = (0..nodes)
        .map(|i| {
            let me = Identity {
                name: NodeName::new(&format!("me-{i}")).expect("a name"),
                epoch: Epoch(1),
                run: RunId::new(i as u64 + 1).expect("not zero"),
                address: "10.0.0.1:7000".parse().expect("an address"),
            };
            let mut engine = Engine::new(Arc::new(Config::new()), me, at(0), [7; 32]);
            engine.start(at(0), &mut Outbox::new(DATAGRAM));
            let start = cpu_ns();
            assert_eq!(engine.acquaint(at(0), (0..members).map(record)), members);
            fill = fill.min((cpu_ns() - start) / members as f64);
            engine
        })
        .collect();
    Row {
        what: &format!("a table of {members} members from the start: a member"),
        value: fill,
        unit: "ns",
        reach: None,
        detail: format!("{members} tables of {members}: {:.1} s", fill * (members * members) as f64 / 1e9),
        others: "",
    }
    .print();
    let (ping, mut out, mut best) =
        (frame(&Frame::Ping { seq: 1, beat: 5, fingerprint: 1 }), Outbox::new(DATAGRAM), f64::MAX);
    for round in 0..ROUNDS {
        let turns = 250 * nodes;
        let start = cpu_ns();
        for i in 0..turns {
            out.clear();
            let run = runs[(i * 7919 + round) % members];
            let from: SocketAddr = ([10, 1, 0, 1], 7000).into();
            let packet = Inbound { from, run, stranger: false, via: Via::Datagram, frames: &ping };
            engines[i % nodes].handle(at(1), Input::Packet(packet), &mut out);
            black_box(&out);
        }
        best = best.min((cpu_ns() - start) / turns as f64);
    }
    Row {
        what: &format!("one turn of each of {nodes} nodes with {members} members"),
        value: best,
        unit: "ns",
        reach: None,
        detail: "bound by the memory: each turn finds its table out of the cache".to_owned(),
        others: "",
    }
    .print();
}

fn runs(n: usize) -> Vec<RunId> {
    (0..n as u64).map(|i| RunId::new(mix(i + 5) | 1).expect("not zero")).collect()
}

fn record(name: &str, run: RunId, i: usize) -> Record<'_> {
    Record {
        name,
        run,
        epoch: Epoch(1_700_000_000_000 + i as u64),
        incarnation: Incarnation(0),
        addr: ([10, 1, (i / 250) as u8, (i % 250) as u8 + 1], 7000).into(),
        protocol: 1,
        app_version: 0,
        version: Version(0),
        age: 0,
        state: Entries(&[]),
    }
}

fn turn(machine: &Machine, members: usize) {
    let mut bench = Bench::new(members);
    let ping = frame(&Frame::Ping { seq: 1, beat: 5, fingerprint: 1 });
    // From members far apart in the table, one after another.
    let (ns, allocations) = bench.measure(250_000, 1, |i| (i * 7919, &ping));
    assert_eq!(bench.out.packets().len(), 1, "an ACK");
    Row {
        what: &format!("one engine turn of {members} members: PING in, ACK out"),
        value: ns,
        unit: "ns",
        reach: Some(100.0),
        detail: format!("{allocations} allocations; {}", machine.in_copies(ns)),
        others: match members {
            100 => "others: foca, a whole probe cycle (ping out, ack in, timer), 345 ns",
            1_000 => "others: foca 861 ns",
            _ => "others: foca 2,210 ns",
        },
    }
    .print();
}

fn read(machine: &Machine, members: usize, kind: &str, update: impl Fn(&Bench, usize) -> Vec<u8>) {
    let mut bench = Bench::new(members);
    let (packets, per_packet) = bench.packets(update);
    let (ns, allocations) = bench.measure(5_000, per_packet, |i| (0, &packets[i % packets.len()]));
    Row {
        what: &format!("{members} members: a known {kind} of a full datagram"),
        value: ns,
        unit: "ns",
        reach: Some(80.0),
        detail: format!("{per_packet} in {DATAGRAM} B, {allocations} allocations; {}", machine.in_copies(ns)),
        others: if members == 1_000 { "others: foca 640 ns" } else { "others: foca 7,080 ns" },
    }
    .print();
}

struct Bench {
    engine: Engine,
    out: Outbox,
    runs: Vec<RunId>,
    now: u64,
}

impl Bench {
    fn new(n: usize) -> Bench {
        let me = Identity {
            name: NodeName::new("me").expect("a name"),
            epoch: Epoch(1),
            run: RunId::new(1).expect("not zero"),
            address: "10.0.0.1:7000".parse().expect("an address"),
        };
        let runs = runs(n);
        let engine = Engine::new(Arc::new(Config::new()), me, at(0), [7; 32]);
        let mut bench = Bench { engine, out: Outbox::new(DATAGRAM), runs, now: 1 };
        bench.engine.start(at(0), &mut bench.out);
        for i in 0..n {
            let record = bench.record(i);
            bench.receive(i, &record);
        }
        // Until everything is told: a quiet cluster.
        while bench.engine.counters().rumors_waiting > 0 {
            bench.now += 100;
            bench.out.clear();
            bench.engine.handle(at(bench.now), Input::Tick, &mut bench.out);
        }
        bench
    }

    fn receive(&mut self, sender: usize, frames: &[u8]) {
        self.out.clear();
        let run = self.runs[sender % self.runs.len()];
        let from: SocketAddr = ([10, 1, 0, 1], 7000).into();
        let packet = Inbound { from, run, stranger: false, via: Via::Datagram, frames };
        self.engine.handle(at(self.now), Input::Packet(packet), &mut self.out);
    }

    /// The best of all rounds: nanoseconds an update, and allocations in the whole of the last round.
    fn measure<'a>(
        &mut self,
        turns: usize,
        updates: usize,
        packet: impl Fn(usize) -> (usize, &'a Vec<u8>),
    ) -> (f64, u64) {
        let mut best = f64::MAX;
        let mut allocations = 0;
        for _ in 0..ROUNDS {
            let (before, start) = (ALLOCATIONS.load(Relaxed), cpu_ns());
            for i in 0..turns {
                let (sender, frames) = packet(i);
                self.receive(sender, frames);
                black_box(&self.out);
            }
            best = best.min((cpu_ns() - start) / (turns * updates) as f64);
            allocations = ALLOCATIONS.load(Relaxed) - before;
        }
        (best, allocations)
    }

    /// 200 packets full of updates about members far apart in the table.
    fn packets(&self, update: impl Fn(&Bench, usize) -> Vec<u8>) -> (Vec<Vec<u8>>, usize) {
        let mut count = 0;
        let packets = (0..200).map(|p| {
            let mut packet = Vec::new();
            for i in (p * 31..).step_by(7919) {
                let update = update(self, i % self.runs.len());
                if packet.len() + update.len() > DATAGRAM - envelope::OVERHEAD {
                    break;
                }
                packet.extend(update);
                count += 1;
            }
            packet
        });
        (packets.collect(), count / 200)
    }

    fn alive(&self, i: usize) -> Vec<u8> {
        frame(&Frame::Alive { run: self.runs[i], incarnation: Incarnation(0) })
    }

    fn record(&self, i: usize) -> Vec<u8> {
        frame(&Frame::Record(record(&format!("node-{i}"), self.runs[i], i)))
    }
}

fn at(ms: u64) -> Now {
    Now { mono: Instant::from_nanos(1_000_000_000 + ms * 1_000_000), wall: Wall(1_700_000_000_000 + ms) }
}

fn frame(frame: &Frame<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.write(&mut bytes);
    bytes
}
