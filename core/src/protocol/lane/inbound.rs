//! One lane as it comes in: what is next, what came before its time, and a message whose parts are still coming.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::{Arrived, Fate};
use crate::message::{Body, WEIGHT};
use crate::time::Instant;
use crate::wire::frame::Item;

#[derive(Debug, Default)]
pub(super) struct In {
    /// Anything has come.
    pub begun: bool,
    pub next: u64,
    pub held: BTreeMap<u64, Held>,
    pub held_bytes: usize,
    partial: Option<Partial>,
    /// Bytes taken since the last acknowledgement.
    pub owed: usize,
    pub ack: Option<Instant>,
    /// The room that was told last.
    pub told: u64,
    /// The last item came by stream, and so the acknowledgement goes.
    pub by_stream: bool,
}

#[derive(Debug)]
pub(super) struct Held {
    pub arrived: Arrived,
    pub rest: u64,
}

/// The parts of a message so far. Without `data` it is larger than a message may be, and only counted through.
#[derive(Debug)]
pub(super) struct Partial {
    first: u64,
    topic: Body,
    data: Option<Vec<u8>>,
}

impl In {
    /// Nothing has come, and this is what is next.
    pub(super) fn from(next: u64) -> In {
        In { next, ..In::default() }
    }

    /// What is held, and the part of a message, would come again.
    pub(super) fn mark(&self) -> u64 {
        self.partial.as_ref().map_or(self.next, |partial| partial.first)
    }

    /// All before it have arrived, whether we know of them or not.
    pub(super) fn begin_at(&mut self, base: u64) {
        if self.next < base {
            (self.next, self.partial) = (base, None);
            while let Some(first) = self.held.first_entry().filter(|first| *first.key() < base) {
                self.held_bytes -= first.remove().arrived.body.len() + WEIGHT;
            }
        }
    }

    pub(super) fn hold(&mut self, item: &Item<'_>, window: usize) -> Fate {
        let len = item.topic.len() + item.data.len() + WEIGHT;
        if item.seq < self.next || self.held.contains_key(&item.seq) {
            return Fate::Seen;
        }
        // The next one always finds room: else nothing would move any more.
        if item.seq > self.next && self.held_bytes + len > window {
            return Fate::Refused;
        }
        let body = Body::read(item.topic, item.data);
        let arrived = Arrived { kind: item.kind, id: item.id, status: item.status, after: item.after, body };
        self.held_bytes += len;
        self.held.insert(item.seq, Held { arrived, rest: item.rest });
        Fate::Taken
    }

    pub(super) fn take(&mut self, item: &Item<'_>, max: usize, arrived: &mut Vec<Arrived>) {
        let first = self.next;
        self.next += 1;
        self.owed += item.topic.len() + item.data.len() + WEIGHT;
        let body = match self.partial.take() {
            None if item.rest == 0 => Body::read(item.topic, item.data),
            begun => {
                let topic = || Partial { first, topic: Body::read(item.topic, &[]), data: Some(Vec::new()) };
                let mut partial = begun.unwrap_or_else(topic);
                let fits = |have: usize| ((have + item.data.len()) as u64).saturating_add(item.rest) <= max as u64;
                partial.data = partial.data.filter(|data| fits(data.len()));
                if let Some(data) = &mut partial.data {
                    data.extend_from_slice(item.data);
                }
                if item.rest > 0 {
                    self.partial = Some(partial);
                    return;
                }
                let Some(data) = partial.data else { return };
                Body::read(partial.topic.topic(), &data)
            }
        };
        arrived.push(Arrived { kind: item.kind, id: item.id, status: item.status, after: item.after, body });
    }
}
