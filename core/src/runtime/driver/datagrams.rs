//! Datagrams: out of the socket, opened outside the lock, some at a time to the engine; and what the kernel says of those
//! that we sent.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;

use super::super::clock;
use super::super::udp::is_passing;
use super::{Budget, Driver, Io, Key};
use crate::engine::{Inbound, Input};
use crate::outbox::Via;
use crate::time::Now;
use crate::wire::envelope::Opened;

/// Datagrams handed to the engine under one lock. Few, because their answers share one outbox.
pub(super) const AT_ONCE: usize = 8;

impl Driver {
    pub(super) fn datagrams(&mut self, slot: usize, has_errors: bool, budget: &mut Budget) {
        if has_errors {
            self.errors(slot);
        }
        let mut failures = 0;
        while let Some(io) = self.nodes.get_mut(slot).and_then(Option::as_mut) {
            let Some(udp) = &io.wire.udp else { return };
            match self.receiver.receive(udp, &mut io.overflow) {
                Ok(()) => {
                    failures = 0;
                    self.batch(slot);
                    if self.receiver.drained() || !budget.take(self.receiver.len()) {
                        return;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) => {
                    io.node.tally.receive_errors.fetch_add(1, Relaxed);
                    failures += 1;
                    if is_passing(&e) && failures < 8 {
                        self.errors(slot);
                    } else {
                        return self.rest(Key::Udp(slot), slot);
                    }
                }
            }
        }
    }

    /// Opens the datagrams outside the lock, and hands some at a time to the engine under one lock.
    fn batch(&mut self, slot: usize) {
        let now = clock::now();
        let Some(io) = self.nodes[slot].as_mut() else { return };
        let lost = io.overflow.wrapping_sub(io.overflow_known);
        io.overflow_known = io.overflow;
        io.node.tally.receive_overflow.fetch_add(u64::from(lost), Relaxed);
        // What the kernel had to drop is our fault: answers may have been among it.
        let mut stall = (lost > 0).then_some(io.wire.stall_threshold);

        let mut datagrams = self.receiver.datagrams();
        loop {
            let mut opened: [Option<Inbound<'_>>; AT_ONCE] = [const { None }; AT_ONCE];
            let places = &mut opened.iter_mut();
            for (from, bytes) in &mut datagrams {
                let Some(inbound) = Self::opened(io, now, from, bytes) else { continue };
                *places.next().expect("the loop ends with the last place") = Some(inbound);
                if places.len() == 0 {
                    break;
                }
            }
            if opened[0].is_none() {
                break;
            }
            self.outbox.set_datagram_max(io.wire.datagram_max);
            let thought = io.node.think(&mut self.outbox, now, |live, out| {
                if let Some(lost) = stall.take() {
                    live.engine.stalled(lost);
                }
                for inbound in opened.iter().flatten() {
                    live.engine.handle(now, Input::Packet(*inbound), out);
                }
            });
            let Some(thought) = thought else { break };
            let deadline = io.node.act(&mut self.outbox, now, thought.after);
            io.arm(&mut self.timers, slot, deadline, now.mono);
        }
        drop(datagrams);
        io.node.tally.sessions.store(io.sessions.len() as u64, Relaxed);
        self.send_streams(slot);
    }

    fn opened<'a>(io: &mut Io, now: Now, from: SocketAddr, bytes: Option<&'a mut [u8]>) -> Option<Inbound<'a>> {
        let tally = &io.node.tally;
        let Some(bytes) = bytes else {
            tally.datagrams_too_large.fetch_add(1, Relaxed);
            return None;
        };
        tally.datagrams_in.fetch_add(1, Relaxed);
        tally.datagram_bytes_in.fetch_add(bytes.len() as u64, Relaxed);
        match io.wire.envelope.open(&mut io.sessions, now.mono, bytes) {
            Ok(Opened { from: run, stranger, frames }) => {
                Some(Inbound { from, run, stranger, via: Via::Datagram, frames })
            }
            Err(reject) => {
                tally.rejects[reject as usize].fetch_add(1, Relaxed);
                None
            }
        }
    }

    /// What the kernel learned about datagrams that we sent.
    fn errors(&mut self, slot: usize) {
        let mut unreachable = Vec::new();
        {
            let Some(io) = self.nodes.get(slot).and_then(Option::as_ref) else { return };
            let Some(udp) = &io.wire.udp else { return };
            udp.errors(|to, refused| {
                if refused {
                    io.node.tally.unreachable.fetch_add(1, Relaxed);
                    unreachable.push(to);
                } else {
                    io.node.tally.path_errors.fetch_add(1, Relaxed);
                }
            });
        }
        if unreachable.is_empty() {
            return;
        }
        let now = clock::now();
        self.think(slot, now, |live, out| {
            for &addr in &unreachable {
                live.engine.handle(now, Input::Unreachable { addr, via: Via::Datagram }, out);
            }
        });
    }
}
