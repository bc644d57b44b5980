//! What was heard of those who are gone, so that nothing is heard twice when one comes back.
//!
//! A copy lasts as long as what holds it: the queue of a line, a link that stands still, a member that was stopped. No time
//! bounds that, so these marks are dropped for want of room only, and of who went first.

use alloc::collections::{BTreeMap, VecDeque};

use super::seen::Seen;
use crate::id::RunId;

#[derive(Debug, Default)]
pub(super) struct Past {
    seen: BTreeMap<RunId, Seen>,
    /// As they went.
    order: VecDeque<RunId>,
}

impl Past {
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    pub fn contains(&self, origin: RunId, seq: u64) -> bool {
        self.seen.get(&origin).is_some_and(|seen| seen.contains(seq))
    }

    pub fn put(&mut self, origin: RunId, seen: Seen) {
        if self.seen.insert(origin, seen).is_none() {
            self.order.push_back(origin);
        }
    }

    /// It is back.
    pub fn take(&mut self, origin: RunId) -> Option<Seen> {
        let seen = self.seen.remove(&origin)?;
        self.order.retain(|&run| run != origin);
        Some(seen)
    }

    /// Forgets until so many are left. Returns how many that were.
    pub fn trim(&mut self, most: usize) -> usize {
        let over = self.seen.len().saturating_sub(most);
        for origin in self.order.drain(..over) {
            self.seen.remove(&origin);
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_went_first_is_forgotten_first_and_who_is_back_is_not_in_the_past() {
        let (mut past, run) = (Past::default(), |id| RunId::new(id).unwrap());
        for id in 1..=5 {
            let mut seen = Seen::default();
            seen.skip(id);
            past.put(run(id), seen);
        }
        assert_eq!(past.take(run(2)).map(|seen| seen.next()), Some(3));
        assert_eq!((past.trim(3), past.len()), (1, 3));
        let known: alloc::vec::Vec<bool> = (1..=5).map(|id| past.contains(run(id), 1)).collect();
        assert_eq!(known, [false, false, true, true, true]);
        past.put(run(2), Seen::default());
        assert_eq!((past.trim(2), past.contains(run(3), 1), past.contains(run(5), 5)), (2, false, true));
    }
}
