//! The engine alone, without sockets or sealing: nanoseconds and allocations.
//!
//!     cargo bench --package bruit-core --bench engine

#[path = "../tests/support/pair.rs"]
mod pair;
mod report;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

use bruit_core::id::{Incarnation, RunId};
use bruit_core::wire::frame::Frame;
use pair::{DATAGRAM, Pair, name, record, run};
use report::{Machine, Row};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: hands every call on to the system's allocator, unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static GLOBAL: Counting = Counting;

const ROUNDS: u32 = 200_000;
/// What the envelope takes of a datagram.
const SEALED: usize = DATAGRAM - bruit_core::wire::envelope::OVERHEAD;

fn main() {
    println!("$ cargo bench --package bruit-core --bench engine");
    let machine = Machine::measure();
    machine.print();
    turn(&machine);
    for members in [1_000, 10_000] {
        read(&machine, members, "ALIVE", |run, _| Frame::Alive { run, incarnation: Incarnation(0) });
        read(&machine, members, "RECORD", |run, name| Frame::Record(record(run, name)));
    }
}

fn turn(machine: &Machine) {
    let mut pair = Pair::settled(0);
    let ping = pair.ping();
    let now = pair.now;
    let (ns, allocations) = per_round(|| pair.give_b(now, &ping));
    assert_eq!(pair.b.out.packets().len(), 1, "an ACK");
    Row {
        what: "one engine turn: PING in, ACK out",
        value: ns,
        unit: "ns",
        reach: Some(100.0),
        detail: format!("{allocations} allocations; {}", machine.in_copies(ns)),
        others: "others: foca, a whole probe cycle (ping out, ack in, timer), 345 ns at 100 members, 2,210 at 10,000",
    }
    .print();
}

/// A full datagram about members that are known already, in the state in which they are known.
fn read<'a>(machine: &Machine, members: u64, kind: &str, frame: impl Fn(RunId, &'a str) -> Frame<'a>) {
    let mut pair = Pair::settled(members);
    let mut packet = Vec::new();
    let mut updates = 0;
    // A stride through the table, as random news would be.
    for i in (0..members).map(|i| i * 7919 % members) {
        let before = packet.len();
        frame(run(i), Box::leak(name(i).into_boxed_str())).write(&mut packet);
        if packet.len() > SEALED {
            packet.truncate(before);
            break;
        }
        updates += 1;
    }
    let now = pair.now;
    let (ns, allocations) = per_round(|| pair.give_b(now, &packet));
    let each = ns / f64::from(updates);
    Row {
        what: &format!("{members} members: a known {kind} of a full datagram"),
        value: each,
        unit: "ns",
        reach: Some(80.0),
        detail: format!(
            "{updates} in {DATAGRAM} B, {ns:.0} ns, {allocations} allocations; {}",
            machine.in_copies(each)
        ),
        others: "others: foca 640 ns at 1,000 members, 7,080 at 10,000",
    }
    .print();
}

/// Median of eleven measurements, and the allocations of one round.
fn per_round(mut round: impl FnMut()) -> (f64, u64) {
    (0..1000).for_each(|_| round());
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    round();
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
    let mut nanos: Vec<f64> = (0..11)
        .map(|_| {
            let begin = std::time::Instant::now();
            (0..ROUNDS / 11).for_each(|_| round());
            begin.elapsed().as_nanos() as f64 / f64::from(ROUNDS / 11)
        })
        .collect();
    (report::median(&mut nanos), allocations)
}
