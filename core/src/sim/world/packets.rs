//! Packets: what leaves an engine on its way to another's, through the network and what stands for the envelope.

use alloc::vec::Vec;
use core::net::SocketAddr;

use super::super::net::{Damage, Fate, chance};
use super::machine::{Machine, Node};
use super::{Happening, KINDS, Letter, NodeIndex, What, World, index};
use crate::engine::{Inbound, Input};
use crate::id::RunId;
use crate::outbox::{Destination, Via};
use crate::rng::mix;
use crate::time::{Duration, Instant};
use crate::wire::envelope::{self, Opened};
use crate::wire::frame::Frames;

/// IPv4 and UDP headers of a datagram.
const UDP_IP: usize = 28;

/// Old datagrams that `replay` chooses from.
const RECORDED: usize = 64;

/// A packet on its way.
pub(super) struct Parcel {
    pub to: SocketAddr,
    pub run: Option<RunId>,
    pub from: SocketAddr,
    pub by: u32,
    pub sender: RunId,
    pub via: Via,
    pub kind: Kind,
    /// With room for the envelope's header, or sealed.
    pub bytes: Vec<u8>,
    /// Arrivals still to come, and one for being recorded.
    pub holders: u32,
}

/// A packet that a blocked machine could not send.
pub(super) struct Unsent {
    pub parcel: u32,
    pub fate: Fate,
    pub since: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Packet,
    /// A closed port's answer.
    Unreachable,
}

impl World {
    pub(super) fn send(&mut self, i: NodeIndex, to: Destination, buf: &[u8]) {
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
    pub(super) fn dispatch(&mut self, parcel: u32, fate: Fate) {
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
    pub(super) fn break_link(&mut self, i: NodeIndex, run: RunId, after: Duration) {
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

    fn write_down(&mut self, i: NodeIndex, to: Destination, frames: &[u8]) {
        let Some(lines) = &mut self.transcript else { return };
        let ms = self.now.as_nanos() / 1_000_000;
        let via = if to.via == Via::Stream { " (stream)" } else { "" };
        for frame in Frames::parse(frames).expect("we wrote it") {
            lines.push(alloc::format!("{ms:>6} ms  {} → {}{via}  {frame}", self.nodes[i].name, to.addr.port()));
        }
    }

    pub(super) fn arrive(&mut self, parcel: u32) -> Option<NodeIndex> {
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
    pub(super) fn serve(&mut self, i: NodeIndex) {
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

    pub(super) fn drop_parcel(&mut self, parcel: u32) {
        let p = &mut self.parcels[parcel as usize];
        p.holders = p.holders.saturating_sub(1);
        if p.holders == 0 {
            self.free.push(parcel);
        }
    }
}

fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let mut chunks = bytes.chunks_exact(8);
    let mut hash = seed;
    for chunk in &mut chunks {
        hash = mix(hash ^ u64::from_le_bytes(chunk.try_into().expect("eight bytes")));
    }
    chunks.remainder().iter().fold(hash, |h, &b| mix(h ^ u64::from(b)))
}
