//! One engine turn: a ping in and its ACK out; a full packet of known updates. Nanoseconds and allocations, the envelope
//! and the sockets apart. `cargo bench -p bruit-core --bench turn`

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
use bruit_core::wire::frame::{Entries, Frame, Record};

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

fn main() {
    let clock = calibrate();
    println!("machine: one dependent hash step (3 multiplications' latency) {clock:.2} ns");
    for n in [100, 1_000, 10_000] {
        let mut bench = Bench::new(n);
        let ping = frame(&Frame::Ping { seq: 1, beat: 5, fingerprint: 1 });
        let (ns, allocations) = bench.measure(1_000_000, 1, |i| (i * 7919, &ping));
        println!("{n:>6} members: ping in, ack out       {ns:7.1} ns = {:5.1} steps, {allocations} allocations", ns / clock);

        let kinds: [(&str, &dyn Fn(&Bench, usize) -> Vec<u8>); 2] =
            [("ALIVE ", &|b, i| b.alive(i)), ("RECORD", &|b, i| b.record(i))];
        for (kind, update) in kinds {
            let (packets, per_packet) = bench.packets(update);
            let (ns, allocations) = bench.measure(20_000, per_packet, |i| (0, &packets[i % packets.len()]));
            println!(
                "{n:>6} members: known {kind}, {per_packet:>3}/packet {ns:7.1} ns an update = {:5.1} steps, {allocations} allocations",
                ns / clock
            );
        }
    }
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
        let runs = (0..n as u64).map(|i| RunId::new(mix(i + 5) | 1).expect("not zero")).collect();
        let engine = Engine::new(Arc::new(Config::new()), me, at(0), [7; 32]);
        let mut bench = Bench { engine, out: Outbox::new(1400), runs, now: 1 };
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

    /// The best of five rounds: nanoseconds an update, and allocations in all of the last round.
    fn measure<'a>(&mut self, turns: usize, updates: usize, packet: impl Fn(usize) -> (usize, &'a Vec<u8>)) -> (f64, u64) {
        let mut best = f64::MAX;
        let mut allocations = 0;
        for _ in 0..5 {
            let (before, start) = (ALLOCATIONS.load(Relaxed), std::time::Instant::now());
            for i in 0..turns {
                let (sender, frames) = packet(i);
                self.receive(sender, frames);
                black_box(&self.out);
            }
            best = best.min(start.elapsed().as_nanos() as f64 / (turns * updates) as f64);
            allocations = ALLOCATIONS.load(Relaxed) - before;
        }
        (best, allocations)
    }

    /// 200 packets full of updates about members far apart in the table.
    fn packets(&self, update: &dyn Fn(&Bench, usize) -> Vec<u8>) -> (Vec<Vec<u8>>, usize) {
        let mut count = 0;
        let packets = (0..200).map(|p| {
            let mut packet = Vec::new();
            for i in (p * 31..).step_by(7919) {
                let update = update(self, i % self.runs.len());
                if packet.len() + update.len() > 1400 - 34 {
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
        frame(&Frame::Record(Record {
            name: &format!("node-{i}"),
            run: self.runs[i],
            epoch: Epoch(1_700_000_000_000 + i as u64),
            incarnation: Incarnation(0),
            addr: ([10, 1, (i / 250) as u8, (i % 250) as u8 + 1], 7000).into(),
            protocol: 1,
            app_version: 0,
            version: Version(0),
            age: 0,
            state: Entries(&[]),
        }))
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

/// Nanoseconds of one `mix`, each waiting for the last: what this machine is worth today.
fn calibrate() -> f64 {
    let n = 20_000_000u64;
    let start = std::time::Instant::now();
    black_box((0..n).fold(1, |z, _| mix(black_box(z))));
    start.elapsed().as_nanos() as f64 / n as f64
}
