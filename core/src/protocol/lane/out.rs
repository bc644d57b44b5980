//! One lane on its way out: what waits, what is under way, and when that is sent again.

use alloc::collections::VecDeque;

use super::super::Cx;
use super::{DOUBLINGS, Letter};
use crate::message::WEIGHT;
use crate::outbox::{Destination, Via};
use crate::time::{Duration, Instant};
use crate::wire::frame::{Frame, Item, Lane};

/// What may be on its way before the receiver has said how much it takes.
const ROOM_FIRST: u64 = 64 << 10;

#[derive(Debug)]
pub(super) struct Out {
    /// Of `queue[0]`, the first of a message.
    pub base: u64,
    /// All before it are acknowledged, as the other side said last.
    pub acked: u64,
    /// The next to be sent.
    sent: u64,
    pub queue: VecDeque<Queued>,
    pub bytes: usize,
    /// Bytes from `acked` to `sent`.
    pub flying: usize,
    pub room: u64,
    /// The one item under way went by datagram.
    loose: bool,
    pub tries: u32,
    /// Links that ended since anything was acknowledged.
    pub severed: u32,
    pub again: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Queued {
    pub letter: Letter,
    from: usize,
    to: usize,
    after: u64,
}

impl Out {
    pub(super) fn new() -> Out {
        Out {
            base: 0,
            acked: 0,
            sent: 0,
            queue: VecDeque::new(),
            bytes: 0,
            flying: 0,
            room: ROOM_FIRST,
            loose: false,
            tries: 0,
            severed: 0,
            again: None,
        }
    }

    /// In parts of at most so many bytes.
    pub(super) fn push(&mut self, letter: Letter, after: u64, part: usize) {
        let len = letter.body.data().len();
        let mut from = 0usize;
        loop {
            let to = len.min(from.saturating_add(part));
            let part = Queued { letter: letter.clone(), from, to, after };
            self.bytes += part.len();
            self.queue.push_back(part);
            from = to;
            if from == len {
                return;
            }
        }
    }

    /// `settled`: see [`Pair::settled`].
    pub(super) fn flush(
        &mut self,
        cx: &mut Cx<'_>,
        to: Destination,
        lane: Lane,
        session: u64,
        settled: u64,
    ) -> Option<Via> {
        let unsent = self.queue.len() - (self.sent - self.base) as usize;
        if unsent == 0 {
            return None;
        }
        let alone = self.flying == 0 && unsent == 1 && lane == Lane::Small && self.tries == 0;
        if self.loose {
            self.rewind();
        }
        self.loose = alone;
        let via = if alone { Via::Datagram } else { Via::Stream };
        while let Some(item) = self.queue.get((self.sent - self.base) as usize) {
            let len = item.len();
            if (self.flying + len) as u64 > self.room {
                break;
            }
            let mut frame = item.item(lane, session, self.sent, self.sent - self.base);
            if lane == Lane::Bulk && frame.after <= settled {
                frame.after = 0;
            }
            cx.out.send(Destination { via, ..to }, &Frame::Item(frame));
            self.flying += len;
            self.sent += 1;
        }
        if self.again.is_none() {
            self.arm(cx.now.mono, if self.loose { cx.config.gossip_interval } else { cx.config.probe_interval });
        }
        Some(via)
    }

    /// When it is sent again, if nothing is acknowledged.
    pub(super) fn arm(&mut self, now: Instant, pause: Duration) {
        self.again = (!self.queue.is_empty()).then(|| now + pause * (1 << self.tries.min(DOUBLINGS)));
    }

    /// What was on its way is sent again.
    pub(super) fn rewind(&mut self) {
        (self.sent, self.flying, self.loose) = (self.acked, 0, false);
    }

    /// True where anything more is acknowledged than was.
    pub(super) fn forget(&mut self, upto: u64, mut receipt: impl FnMut(u64)) -> bool {
        let before = self.acked;
        let upto = upto.min(self.base + self.queue.len() as u64);
        let len = |seq: u64| self.queue[(seq - self.base) as usize].len();
        if upto < before {
            // An old word, or it has lost the beginning of a message.
            self.flying += (upto..before).map(len).sum::<usize>();
        } else {
            self.flying -= (before..upto.min(self.sent)).map(len).sum::<usize>();
            self.sent = self.sent.max(upto);
        }
        self.acked = upto;
        while let Some(parts) = self.queue.front().map(Queued::parts) {
            if self.base + parts as u64 > upto {
                break;
            }
            for part in self.queue.drain(..parts) {
                self.bytes -= part.len();
                part.letter.receipt.filter(|_| part.is_last()).into_iter().for_each(&mut receipt);
            }
            self.base += parts as u64;
        }
        self.loose &= self.flying > 0;
        if self.queue.is_empty() {
            self.again = None;
        }
        upto > before
    }
}

impl Queued {
    pub(super) fn len(&self) -> usize {
        self.to - self.from + WEIGHT
    }

    pub(super) fn is_last(&self) -> bool {
        self.to == self.letter.body.data().len()
    }

    /// Of the message that this is the first part of.
    fn parts(&self) -> usize {
        if self.is_last() { 1 } else { self.letter.body.data().len().div_ceil(self.to) }
    }

    fn item(&self, lane: Lane, session: u64, seq: u64, behind: u64) -> Item<'_> {
        let Letter { kind, id, status, body, receipt } = &self.letter;
        Item {
            lane,
            prompt: receipt.is_some() && self.is_last(),
            session,
            seq,
            behind,
            kind: *kind,
            id: *id,
            status: *status,
            rest: (body.data().len() - self.to) as u64,
            after: self.after,
            topic: if self.from == 0 { body.topic() } else { "" },
            data: &body.data()[self.from..self.to],
        }
    }
}
