//! One engine on a stage. The rest of its cluster is the test itself, which speaks as whom it likes, moves the
//! clock, and reads every packet that the engine wants sent.

#![allow(dead_code)] // Each test uses a part.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bruit_core::config::Config;
use bruit_core::engine::{Engine, Identity, Inbound, Input};
use bruit_core::id::{Epoch, Incarnation, NodeName, RunId, Version};
use bruit_core::outbox::{Completion, Destination, Outbox, PACKETS_MAX, Via};
use bruit_core::time::{Instant, Now, Wall};
use bruit_core::view::{Event, EventKind, MemberState};
use bruit_core::wire::frame::{Entries, Frame, Frames, Record};

/// Who is not the engine. Number 0 is the engine's own.
pub fn run(i: u64) -> RunId {
    RunId::new(0x1000 + i).unwrap()
}

pub fn addr(i: u64) -> SocketAddr {
    SocketAddr::new([10, 0, (i >> 8) as u8, i as u8].into(), 7000)
}

pub fn name(i: u64) -> String {
    format!("p{i}")
}

/// What `i` says of itself.
pub fn record(i: u64, name: &str) -> Record<'_> {
    Record {
        name,
        run: run(i),
        epoch: Epoch(1),
        incarnation: Incarnation(0),
        addr: addr(i),
        protocol: 1,
        app_version: 0,
        version: Version(0),
        age: 0,
        state: Entries(&[]),
    }
}

pub fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// One packet that the engine wanted sent.
#[derive(Clone, Debug)]
pub struct Sent {
    pub at: Instant,
    pub to: Destination,
    pub bytes: Vec<u8>,
}

impl Sent {
    pub fn frames(&self) -> Frames<'_> {
        Frames::parse(&self.bytes).expect("the engine writes what it can read")
    }
}

pub struct Stage {
    pub engine: Engine,
    pub now: Instant,
    pub sent: Vec<Sent>,
    pub events: Vec<Event>,
    pub completions: Vec<Completion>,
    out: Outbox,
    idle: u32,
}

impl Stage {
    pub fn new(config: Config) -> Stage {
        Stage::with_seed(config, 1)
    }

    pub fn with_seed(config: Config, seed: u8) -> Stage {
        Stage::of(0, "me", config, seed)
    }

    /// An engine that is somebody else.
    pub fn of(i: u64, name: &str, config: Config, seed: u8) -> Stage {
        let now = Instant::from_nanos(1_000_000_000_000);
        let me = Identity { name: NodeName::new(name).unwrap(), epoch: Epoch(1), run: run(i), address: addr(i) };
        let out = Outbox::new(config.max_datagram);
        let engine = Engine::new(Arc::new(config), me, Now { mono: now, wall: Wall(1) }, [seed; 32]);
        let mut stage =
            Stage { engine, now, sent: Vec::new(), events: Vec::new(), completions: Vec::new(), out, idle: 0 };
        stage.call(|engine, now, out| engine.start(now, out));
        stage
    }

    /// An engine that knows `1..=n` and has nothing left to say of them.
    pub fn among(n: u64, config: Config) -> Stage {
        let mut stage = Stage::new(config);
        stage.meet(1..=n);
        stage
    }

    pub fn meet(&mut self, who: impl Iterator<Item = u64>) {
        for i in who {
            self.hear(i, &[Frame::Record(record(i, &name(i)))]);
        }
        self.answering(ms(10_000), |_, _| true);
        self.sent.clear();
        self.events.clear();
    }

    pub fn now(&self) -> Now {
        Now { mono: self.now, wall: Wall(self.now.as_nanos() / 1_000_000) }
    }

    pub fn call<T>(&mut self, call: impl FnOnce(&mut Engine, Now, &mut Outbox) -> T) -> T {
        let now = self.now();
        self.out.clear();
        let result = call(&mut self.engine, now, &mut self.out);
        assert!(self.out.len() <= PACKETS_MAX);
        for p in 0..self.out.len() {
            let to = self.out.destination(p);
            let bytes = self.out.packets()[p].frames().to_vec();
            self.sent.push(Sent { at: self.now, to, bytes });
        }
        self.events.append(&mut self.out.events);
        self.completions.append(&mut self.out.completions);
        result
    }

    /// `i` says this, by datagram.
    pub fn hear(&mut self, i: u64, frames: &[Frame<'_>]) {
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| frame.write(&mut bytes));
        self.hear_bytes(i, false, Via::Datagram, &bytes);
    }

    pub fn hear_bytes(&mut self, i: u64, stranger: bool, via: Via, frames: &[u8]) {
        let packet = Inbound { from: addr(i), run: run(i), stranger, via, frames };
        self.call(|engine, now, out| engine.handle(now, Input::Packet(packet), out));
    }

    pub fn unreachable(&mut self, i: u64) {
        let input = Input::Unreachable { addr: addr(i), via: Via::Datagram };
        self.call(|engine, now, out| engine.handle(now, input, out));
    }

    /// Time passes, and nobody says anything.
    pub fn silence(&mut self, time: Duration) {
        self.answering(time, |_, _| false);
    }

    /// The deadline has come. Doing what it was for, the engine puts it off: else a driver would never sleep.
    fn tick(&mut self, at: Instant) {
        self.idle = if at > self.now { 0 } else { self.idle + 1 };
        assert!(self.idle < 1_000, "at {:?} the engine wants a tick again and again", self.now);
        self.now = self.now.max(at);
        self.call(|engine, now, out| engine.handle(now, Input::Tick, out));
    }

    /// Time passes; each ping is answered at once by those who are `well`, by what way they like.
    pub fn answering(&mut self, time: Duration, mut well: impl FnMut(u64, Via) -> bool) {
        let end = self.now + time;
        let mut heard = self.sent.len();
        loop {
            let most = heard + 1_000;
            while heard < self.sent.len() {
                assert!(heard < most, "at {:?} an answer leads to a ping, again and again", self.now);
                let sent = self.sent[heard].clone();
                heard += 1;
                let Some(i) = sent.to.run.and_then(|run| run.get().checked_sub(0x1000)) else { continue };
                if sent.to.addr != addr(i) || !well(i, sent.to.via) {
                    continue;
                }
                for frame in sent.frames() {
                    if let Frame::Ping { seq, .. } = frame {
                        let mut ack = Vec::new();
                        Frame::Ack { seq, beat: 0, fingerprint: 0 }.write(&mut ack);
                        self.hear_bytes(i, false, sent.to.via, &ack);
                    }
                }
            }
            match self.engine.deadline(self.now).filter(|at| *at <= end) {
                Some(at) => self.tick(at),
                None => break,
            }
        }
        self.now = end;
    }

    /// Time passes until the engine says something that `wanted` recognises. That packet is the last of `sent`, nearly.
    pub fn until<T>(&mut self, limit: Duration, mut wanted: impl FnMut(&Sent, Frame<'_>) -> Option<T>) -> Option<T> {
        let (end, mut seen) = (self.now + limit, 0);
        loop {
            for sent in &self.sent[seen..] {
                if let Some(found) = sent.frames().find_map(|frame| wanted(sent, frame)) {
                    return Some(found);
                }
            }
            seen = self.sent.len();
            let at = self.engine.deadline(self.now).filter(|at| *at <= end)?;
            self.tick(at);
        }
    }

    /// The next ping to anybody by datagram: to whom, and its number.
    pub fn next_ping(&mut self) -> (u64, u64) {
        self.sent.clear();
        let ping = |sent: &Sent, frame: Frame<'_>| match frame {
            Frame::Ping { seq, .. } if sent.to.via == Via::Datagram => Some((sent.to.run?.get() - 0x1000, seq)),
            _ => None,
        };
        self.until(ms(20_000), ping).expect("a ping each period")
    }

    /// How often the engine said something like it.
    pub fn said(&self, wanted: impl Fn(&Destination, &Frame<'_>) -> bool) -> usize {
        self.sent.iter().map(|sent| sent.frames().filter(|frame| wanted(&sent.to, frame)).count()).sum()
    }

    pub fn state(&mut self, i: u64) -> Option<MemberState> {
        let now = self.now();
        self.engine.view(now).find(&name(i)).map(|m| m.state)
    }

    pub fn told(&self, kind: EventKind, i: u64) -> usize {
        let about = |e: &&Event| e.kind == kind && e.member.as_ref().is_some_and(|m| *m.name == *name(i));
        self.events.iter().filter(about).count()
    }

    /// Bytes that left for `to`, by any way.
    pub fn bytes_to(&self, to: SocketAddr) -> usize {
        self.sent.iter().filter(|sent| sent.to.addr == to).map(|sent| sent.bytes.len()).sum()
    }
}
