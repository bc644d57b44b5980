//! Links: whom they lead to, how they come and go, and what is written to them and read.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;

use super::super::clock;
use super::super::log::level;
use super::super::node::Live;
use super::super::tcp::{Flow, Link, STRANGERS_MAX, Stage, Written};
use super::super::udp::is_passing;
use super::{Budget, Driver, Key, Timer};
use crate::engine::{Inbound, Input};
use crate::id::RunId;
use crate::outbox::{Outbox, Packet, Via};
use crate::time::Instant;
use crate::wire::envelope::Opened;

/// So many bytes from a link are to the budget what a datagram is.
const DATAGRAM: usize = 1400;

/// Bytes taken from a link at once, and how often in a turn.
const READ: usize = 64 << 10;
const READS_MAX: usize = 4;

/// Connections accepted in one turn.
const ACCEPTS_MAX: usize = 64;

impl Driver {
    /// Brings the packets that engines left for streams to their links.
    pub(super) fn send_streams(&mut self, slot: usize) {
        let Some(io) = self.nodes.get_mut(slot).and_then(Option::as_mut) else { return };
        let mut outgoing = std::mem::take(&mut self.outgoing);
        if io.node.take_outgoing(&mut outgoing) {
            for (run, is_member) in outgoing.marks.drain(..) {
                io.sessions.set_member(run, is_member);
            }
            self.enqueue(slot, outgoing.packets());
        }
        // Emptied. What is written from now on leaves its buffers there.
        std::mem::swap(&mut self.outgoing, &mut outgoing);
        let mut touched = std::mem::take(&mut self.touched);
        for id in touched.drain(..) {
            self.write(id);
        }
        self.touched = touched;
    }

    fn enqueue(&mut self, slot: usize, packets: impl Iterator<Item = Packet>) {
        for packet in packets {
            let Some(id) = self.link_for(slot, &packet) else {
                if let Some(io) = &self.nodes[slot] {
                    io.node.tally.records_dropped.fetch_add(1, Relaxed);
                }
                continue;
            };
            let (Some(io), Some(link)) = (&self.nodes[slot], self.links.get(id)) else { continue };
            if !link.enqueue(packet, io.wire.links.queue) {
                io.node.tally.records_dropped.fetch_add(1, Relaxed);
            } else if !self.touched.contains(&id) {
                self.touched.push(id);
            }
        }
    }

    /// The link of that run, or to that address; a new one where there is none.
    fn link_for(&mut self, slot: usize, packet: &Packet) -> Option<usize> {
        let io = self.nodes.get(slot)?.as_ref()?;
        if let Some(&id) = packet.to.run.and_then(|run| io.peers.by_run.get(&run)) {
            return Some(id);
        }
        if let Some(&id) = io.peers.by_addr.get(&packet.to.addr) {
            let bound = self.links.get(id).and_then(|link| link.run());
            if bound.is_none() || packet.to.run.is_none() {
                return Some(id);
            }
            // Another run lives there now.
            self.close(id);
        }
        self.dial(slot, packet.to.addr)
    }

    fn dial(&mut self, slot: usize, addr: SocketAddr) -> Option<usize> {
        self.make_room(slot);
        let now = clock::mono();
        let io = self.nodes.get(slot)?.as_ref()?;
        let (limits, tally) = (io.wire.links, &io.node.tally);
        match Link::dial(slot, addr, now, now + limits.timeout) {
            Ok(link) => {
                tally.links_dialed.fetch_add(1, Relaxed);
                self.put(slot, link)
            }
            Err(e) => {
                tally.links_refused.fetch_add(1, Relaxed);
                io.node.log(level::DEBUG, "bruit::link", || format!("cannot connect to {addr}: {e}"));
                None
            }
        }
    }

    fn put(&mut self, slot: usize, mut link: Link) -> Option<usize> {
        let is_stranger = matches!(link.stage, Stage::Stranger { .. });
        // One peer address may connect to two of ours. There is one link to an address, and who has proven itself stays.
        if let Some(&old) = self.nodes.get(slot)?.as_ref()?.peers.by_addr.get(&link.peer) {
            let is_proven = self.links.get(old).is_some_and(|old| !matches!(old.stage, Stage::Stranger { .. }));
            if is_proven && is_stranger {
                return None;
            }
            self.close(old);
        }
        let io = self.nodes.get_mut(slot)?.as_mut()?;
        let id = self.links.next_id();
        let interest = Key::Link(id).interest(true, link.awaits_room);
        if self.threads.poller.add(&*link.socket, interest).is_err() {
            io.node.tally.links_broken.fetch_add(1, Relaxed);
            return None;
        }
        link.armed = link.deadline(io.wire.links.idle);
        self.timers.insert((link.armed, Timer::Link(id)));
        io.peers.strangers += usize::from(is_stranger);
        io.peers.by_addr.insert(link.peer, id);
        io.node.tally.links.store(io.peers.by_addr.len() as u64, Relaxed);
        self.links.put(link);
        Some(id)
    }

    /// Closes the least recently used link where `max_links` is reached. Strangers have a limit of their own.
    fn make_room(&mut self, slot: usize) {
        let Some(io) = self.nodes.get(slot).and_then(Option::as_ref) else { return };
        if io.peers.by_addr.len().saturating_sub(io.peers.strangers) < io.wire.links.links.max(1) {
            return;
        }
        let oldest = io
            .peers
            .by_addr
            .values()
            .filter_map(|&id| self.links.get(id).map(|link| (link.stage, link.has_work(), link.last, id)))
            .filter(|(stage, ..)| !matches!(stage, Stage::Stranger { .. }))
            .min_by_key(|&(_, has_work, last, id)| (has_work, last, id));
        if let Some((.., id)) = oldest {
            io.node.tally.links_evicted.fetch_add(1, Relaxed);
            self.close(id);
        }
    }

    fn close(&mut self, id: usize) {
        let Some(link) = self.links.take(id) else { return };
        let _ = self.threads.poller.delete(&*link.socket);
        let Some(io) = self.nodes.get_mut(link.node).and_then(Option::as_mut) else { return };
        self.timers.remove(&(link.armed, Timer::Link(id)));
        io.peers.strangers -= usize::from(matches!(link.stage, Stage::Stranger { .. }));
        if io.peers.by_addr.get(&link.peer) == Some(&id) {
            io.peers.by_addr.remove(&link.peer);
        }
        if let Some(run) = link.leads_to() {
            let last = io.peers.by_run.get(&run).is_none_or(|&current| current == id);
            if last {
                io.peers.by_run.remove(&run);
            }
            self.severed.push((link.node, run, last));
        }
        io.node.tally.links.store(io.peers.by_addr.len() as u64, Relaxed);
        io.node.tally.records_dropped.fetch_add(link.unsent() as u64, Relaxed);
    }

    pub(super) fn tell_severed(&mut self) {
        // Telling it may close others: those are told in the next turn, which their engines' deadlines bring.
        for (slot, run, last) in std::mem::take(&mut self.severed) {
            let now = clock::now();
            self.think(slot, now, |live, out| live.engine.handle(now, Input::Severed { run, last }, out));
        }
    }

    fn broken(&mut self, id: usize, why: &dyn std::fmt::Display) {
        let Some(link) = self.links.get(id) else { return };
        let (peer, node) = (link.peer, link.node);
        if let Some(io) = self.nodes.get(node).and_then(Option::as_ref) {
            io.node.tally.links_broken.fetch_add(1, Relaxed);
            io.node.log(level::DEBUG, "bruit::link", || format!("link with {peer} ended: {why}"));
        }
        self.close(id);
    }

    /// The link has come to a new stage. Its timer stays: it comes too early then, and sees so by itself.
    pub(super) fn open(&mut self, id: usize, now: Instant, run: Option<RunId>) {
        let Some(link) = self.links.get(id) else { return };
        let Some(io) = self.nodes.get_mut(link.node).and_then(Option::as_mut) else { return };
        io.peers.strangers -= usize::from(matches!(link.stage, Stage::Stranger { .. }));
        link.stage = Stage::Open { run };
        link.last = now;
        if let Some(run) = run {
            // The newest link of a run is the one that works.
            io.peers.by_run.insert(run, id);
        }
    }

    pub(super) fn accept(&mut self, slot: usize) {
        for _ in 0..ACCEPTS_MAX {
            let Some(io) = self.nodes.get(slot).and_then(Option::as_ref) else { return };
            let now = clock::mono();
            match Link::accept(slot, &io.wire.listener, now, now + io.wire.links.timeout) {
                Ok(None) => return,
                Ok(Some(_)) if io.peers.strangers >= STRANGERS_MAX => {
                    io.node.tally.strangers_refused.fetch_add(1, Relaxed);
                }
                Ok(Some(link)) => {
                    io.node.tally.links_accepted.fetch_add(1, Relaxed);
                    self.put(slot, link);
                }
                // The peer was gone before we came.
                Err(e) if e.kind() == io::ErrorKind::ConnectionAborted || is_passing(&e) => {}
                Err(e) => {
                    io.node.tally.accept_errors.fetch_add(1, Relaxed);
                    io.node.log(level::WARNING, "bruit::link", || format!("cannot accept connections: {e}"));
                    return self.rest(Key::Listener(slot), slot);
                }
            }
        }
    }

    pub(super) fn link(&mut self, id: usize, readable: bool, writable: bool, budget: &mut Budget) {
        let Some(link) = self.links.get(id) else { return };
        if let Stage::Connecting { .. } = link.stage {
            match link.socket.take_error() {
                Ok(None) if writable => self.open(id, clock::mono(), None),
                Ok(None) => return,
                Ok(Some(e)) | Err(e) => return self.refused(id, &e),
            }
        }
        if writable {
            self.write(id);
        }
        if readable {
            self.read(id, budget);
        }
    }

    fn refused(&mut self, id: usize, why: &io::Error) {
        let Some(link) = self.links.get(id) else { return };
        let (slot, addr) = (link.node, link.peer);
        self.close(id);
        let Some(io) = self.nodes.get(slot).and_then(Option::as_ref) else { return };
        io.node.tally.links_refused.fetch_add(1, Relaxed);
        io.node.log(level::DEBUG, "bruit::link", || format!("cannot connect to {addr}: {why}"));
        if why.kind() == io::ErrorKind::ConnectionRefused {
            let now = clock::now();
            self.think(slot, now, |live, out| {
                live.engine.handle(now, Input::Unreachable { addr, via: Via::Stream }, out);
            });
        }
    }

    fn write(&mut self, id: usize) {
        let Some(link) = self.links.get(id) else { return };
        let Some(io) = self.nodes.get(link.node).and_then(Option::as_ref) else { return };
        if matches!(link.stage, Stage::Connecting { .. }) {
            return;
        }
        let mut done = Written::default();
        let flow = link.write(&io.wire.envelope, &mut done, |buf| self.outgoing.keep(buf));
        io.node.tally.records_out.fetch_add(done.records, Relaxed);
        io.node.tally.record_bytes_out.fetch_add(done.bytes, Relaxed);
        match flow {
            Ok(flow) => {
                let awaits_room = flow == Flow::Blocked;
                if link.awaits_room != awaits_room {
                    link.awaits_room = awaits_room;
                    let interest = Key::Link(id).interest(true, awaits_room);
                    let _ = self.threads.poller.modify(&*link.socket, interest);
                }
                if done.bytes > 0 {
                    link.last = clock::mono();
                }
            }
            Err(e) => self.broken(id, &e),
        }
    }

    fn read(&mut self, id: usize, budget: &mut Budget) {
        self.scratch.resize(READ, 0);
        for _ in 0..READS_MAX {
            let Some(link) = self.links.get(id) else { return };
            let n = match io::Read::read(&mut &*link.socket, &mut self.scratch) {
                Ok(0) => return self.broken(id, &"closed by the peer"),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return self.broken(id, &e),
            };
            self.received(id, n);
            // The rest is still readable in the next turn.
            if !budget.take(1 + n / DATAGRAM) || n < READ {
                return;
            }
        }
    }

    /// `scratch[..n]` has come from that link.
    fn received(&mut self, id: usize, n: usize) {
        let now = clock::now();
        let Some(link) = self.links.get(id) else { return };
        let (slot, peer, bound) = (link.node, link.peer, link.run());
        let mut reader = std::mem::take(&mut link.reader);
        let Some(io) = self.nodes.get_mut(slot).and_then(Option::as_mut) else { return };
        io.node.tally.record_bytes_in.fetch_add(n as u64, Relaxed);

        let mut owner = bound;
        let mut foreign = false;
        let pushed = reader.push(&mut self.scratch[..n], |record| {
            let (node, tally) = (&io.node, &io.node.tally);
            tally.records_in.fetch_add(1, Relaxed);
            let Opened { from: run, stranger, frames } = match io.wire.envelope.open(&mut io.sessions, now.mono, record)
            {
                Ok(opened) => opened,
                Err(reject) => {
                    tally.rejects[reject as usize].fetch_add(1, Relaxed);
                    return false;
                }
            };
            foreign |= owner.is_some_and(|owner| owner != run);
            if foreign {
                return false;
            }
            // What was sealed for nobody may be a replay, and proves nothing about who holds this connection.
            if !stranger {
                owner = Some(run);
            }
            let inbound = Inbound { from: peer, run, stranger, via: Via::Stream, frames };
            self.outbox.set_datagram_max(io.wire.datagram_max);
            let handle = |live: &mut Live, out: &mut Outbox| live.engine.handle(now, Input::Packet(inbound), out);
            if let Some(thought) = node.think(&mut self.outbox, now, handle) {
                let deadline = node.act(&mut self.outbox, now, thought.after);
                io.arm(&mut self.timers, slot, deadline, now.mono);
            }
            !stranger
        });
        io.node.tally.sessions.store(io.sessions.len() as u64, Relaxed);
        if let Some(link) = self.links.get(id) {
            link.reader = reader;
            link.last = now.mono;
        }
        if owner != bound {
            self.open(id, now.mono, owner);
        }
        if let Err(e) = pushed {
            self.broken(id, &e);
        } else if foreign {
            self.broken(id, &"a record of another run");
        }
        self.make_room_after(slot, owner != bound);
        self.send_streams(slot);
    }

    /// An accepted link counts against `max_links` when it stops being a stranger's.
    fn make_room_after(&mut self, slot: usize, grew: bool) {
        let Some(io) = self.nodes.get(slot).and_then(Option::as_ref) else { return };
        if grew && io.peers.by_addr.len().saturating_sub(io.peers.strangers) > io.wire.links.links.max(1) {
            self.make_room(slot);
        }
    }

    pub(super) fn link_timer(&mut self, id: usize, now: Instant) {
        let Some(link) = self.links.get(id) else { return };
        let Some(io) = self.nodes.get(link.node).and_then(Option::as_ref) else { return };
        let deadline = link.deadline(io.wire.links.idle);
        if deadline > now {
            link.armed = deadline;
            self.timers.insert((deadline, Timer::Link(id)));
            return;
        }
        if !matches!(link.stage, Stage::Open { .. }) {
            io.node.tally.links_timed_out.fetch_add(1, Relaxed);
            let peer = link.peer;
            io.node.log(level::DEBUG, "bruit::link", || format!("link with {peer} timed out"));
        }
        self.close(id);
    }
}
