//! What is to be handed out, in the order in which it was heard.
//!
//! The application has at most `inbox_bytes` of broadcasts that it is not done with. The rest waits here, within
//! `broadcast_window`, and nobody is held up by it: the tree goes on. Beyond that the oldest are given up, a quarter at once,
//! so that a slow reader is told of few large gaps and not of many small ones.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use super::Lost;
use crate::message::{Delivery, Manner, WEIGHT};

#[derive(Debug, Default)]
pub(super) struct Ready {
    waiting: VecDeque<Delivery>,
    /// Of those that wait, and of those that the application has.
    bytes: usize,
    handed: usize,
}

impl Ready {
    pub fn push(&mut self, delivery: Delivery) {
        self.bytes += size(&delivery);
        self.waiting.push_back(delivery);
    }

    /// The next one, while the application has less than `room`.
    pub fn next(&mut self, room: usize) -> Option<Delivery> {
        if self.handed >= room {
            return None;
        }
        let delivery = self.waiting.pop_front()?;
        self.bytes -= size(&delivery);
        self.handed += delivery.weight().broadcasts;
        Some(delivery)
    }

    /// The application is done with so many bytes.
    pub fn consumed(&mut self, bytes: usize) {
        self.handed = self.handed.saturating_sub(bytes);
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What has to go beyond `max` bytes.
    pub fn trim(&mut self, max: usize) -> Vec<Lost> {
        if self.bytes <= max {
            return Vec::new();
        }
        let mut lost: BTreeMap<_, Lost> = BTreeMap::new();
        while self.bytes > max - max / 4
            && let Some(delivery) = self.waiting.pop_front()
        {
            self.bytes -= size(&delivery);
            // Who asks many, asks for a while only: they are not told.
            let Manner::Broadcast { seq } = delivery.manner else { continue };
            let origin = delivery.run;
            let of_it = lost.entry(origin).or_insert(Lost { origin, first: seq, last: seq, count: 0 });
            (of_it.first, of_it.last, of_it.count) = (of_it.first.min(seq), of_it.last.max(seq), of_it.count + 1);
        }
        lost.into_values().collect()
    }
}

fn size(delivery: &Delivery) -> usize {
    delivery.body.len() + WEIGHT
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Epoch, NodeName, RunId};
    use crate::message::Body;

    fn said(origin: u64, seq: u64) -> Delivery {
        let (from, run) = (NodeName::new("a").unwrap(), RunId::new(origin).unwrap());
        Delivery { from, epoch: Epoch(1), run, manner: Manner::Broadcast { seq }, body: Body::read("", &[7; 36]) }
    }

    const EACH: usize = 36 + WEIGHT;

    #[test]
    fn the_application_is_handed_what_it_has_room_for_and_the_rest_when_it_is_done_with_that() {
        let mut ready = Ready::default();
        (1..=5).for_each(|seq| ready.push(said(1, seq)));
        assert_eq!((ready.next(2 * EACH), ready.next(2 * EACH)), (Some(said(1, 1)), Some(said(1, 2))));
        assert_eq!((ready.next(2 * EACH), ready.bytes()), (None, 3 * EACH));
        ready.consumed(EACH);
        assert_eq!((ready.next(2 * EACH), ready.next(2 * EACH)), (Some(said(1, 3)), None));
        assert!(ready.trim(2 * EACH).is_empty());
    }

    #[test]
    fn what_waits_too_long_is_given_up_from_the_oldest_on_and_said_by_origin() {
        let mut ready = Ready::default();
        for seq in 1..=8 {
            ready.push(said(2, seq));
            ready.push(said(1, 10 * seq));
        }
        let lost = ready.trim(12 * EACH);
        let [one, two] = [1, 2].map(|origin| RunId::new(origin).unwrap());
        let expected =
            [Lost { origin: one, first: 10, last: 30, count: 3 }, Lost { origin: two, first: 1, last: 4, count: 4 }];
        assert_eq!((&lost[..], ready.bytes()), (&expected[..], 9 * EACH));
        assert_eq!(ready.next(usize::MAX), Some(said(1, 40)));
    }
}
