//! Two engines in one thread, and a clock that we turn: for tests and benchmarks of what an engine makes of frames.

// Each user has use for its own part of this.
#![allow(dead_code)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bruit_core::config::Config;
use bruit_core::engine::{Engine, Identity, Inbound, Input};
use bruit_core::id::{Epoch, Incarnation, NodeName, RunId, Version};
use bruit_core::outbox::{Outbox, Via};
use bruit_core::time::{Instant, Now, Wall};
use bruit_core::wire::frame::{Entries, Frame, Record};

pub const DATAGRAM: usize = 1400;

/// An engine with its address and what it wants done.
pub struct Side {
    pub engine: Engine,
    pub out: Outbox,
    pub addr: SocketAddr,
    pub run: RunId,
}

/// Two engines and a clock that we turn.
pub struct Pair {
    pub a: Side,
    pub b: Side,
    pub now: Now,
}

impl Side {
    fn new(name: &str, id: u64, now: Now) -> Side {
        let mut config = Config::new();
        config.max_members = 100_000;
        let addr = SocketAddr::from(([127, 0, 0, 1], id as u16));
        let me = Identity {
            name: NodeName::new(name).unwrap(),
            epoch: Epoch(1),
            run: RunId::new(id).unwrap(),
            address: addr,
        };
        let engine = Engine::new(Arc::new(config), me, now, [id as u8; 32]);
        Side { engine, out: Outbox::new(DATAGRAM), addr, run: RunId::new(id).unwrap() }
    }
}

impl Pair {
    /// Two that know each other, and b also so many that do not exist.
    pub fn settled(members: u64) -> Pair {
        let now = Now { mono: Instant::from_nanos(1), wall: Wall(1) };
        let mut pair = Pair { a: Side::new("a", 65_001, now), b: Side::new("b", 65_002, now), now };
        for side in [&mut pair.a, &mut pair.b] {
            side.engine.start(now, &mut side.out);
        }
        let contact = pair.b.addr;
        pair.a.engine.join(now, &[vec![contact]], &mut pair.a.out).expect("it is running");
        // Long enough for every rumor of the beginning to have been told for the last time.
        for _ in 0..3_000 {
            pair.step(Duration::from_millis(10));
        }
        assert!(pair.a.engine.is_member(pair.b.run) && pair.b.engine.is_member(pair.a.run), "they found each other");
        for i in 0..members {
            let mut packet = Vec::new();
            Frame::Record(record(run(i), &name(i))).write(&mut packet);
            pair.give_b(pair.now, &packet);
        }
        assert_eq!(pair.b.engine.view(pair.now).members.len() as u64, members + 2);
        pair
    }

    /// Carries what both have to say, then lets time pass.
    pub fn step(&mut self, time: Duration) {
        for _ in 0..4 {
            carry(&mut self.a, &mut self.b, self.now);
            carry(&mut self.b, &mut self.a, self.now);
        }
        self.now.mono = self.now.mono + time;
        for side in [&mut self.a, &mut self.b] {
            if side.engine.deadline(self.now.mono).is_some_and(|at| at <= self.now.mono) {
                side.engine.handle(self.now, Input::Tick, &mut side.out);
            }
        }
    }

    /// The frames of a packet from a that b answers with one packet, and with no other effect.
    pub fn ping(&mut self) -> Vec<u8> {
        loop {
            self.now.mono = self.now.mono + Duration::from_millis(10);
            self.a.engine.handle(self.now, Input::Tick, &mut self.a.out);
            let packets: Vec<Vec<u8>> = self.a.out.packets().iter().map(|p| p.frames().to_vec()).collect();
            self.a.out.clear();
            for packet in packets {
                self.give_b(self.now, &packet);
                if self.b.out.packets().len() == 1 {
                    return packet;
                }
            }
        }
    }

    pub fn give_b(&mut self, now: Now, frames: &[u8]) {
        let b = &mut self.b;
        b.out.clear();
        let (from, run) = (self.a.addr, self.a.run);
        let packet = Inbound { from, run, stranger: false, via: Via::Datagram, frames };
        b.engine.handle(now, Input::Packet(packet), &mut b.out);
    }
}

fn carry(from: &mut Side, to: &mut Side, now: Now) {
    for packet in from.out.packets().iter().filter(|p| p.to.addr == to.addr) {
        let stranger = packet.to.run.is_none();
        let inbound = Inbound { from: from.addr, run: from.run, stranger, via: packet.to.via, frames: packet.frames() };
        to.engine.handle(now, Input::Packet(inbound), &mut to.out);
    }
    from.out.clear();
}

/// Run ids are random: neighbours in the table must not be neighbours in memory.
pub fn run(i: u64) -> RunId {
    RunId::new((i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)).unwrap()
}

pub fn name(i: u64) -> String {
    format!("member-{i:05}")
}

/// An alive member at incarnation 0, without metadata.
pub fn record(run: RunId, name: &str) -> Record<'_> {
    let addr = SocketAddr::from(([10, 0, (run.get() >> 8) as u8, run.get() as u8], 18946));
    Record {
        name,
        run,
        epoch: Epoch(1),
        incarnation: Incarnation(0),
        addr,
        protocol: 1,
        app_version: 0,
        version: Version(0),
        age: 0,
        state: Entries(&[]),
    }
}
