//! What is to happen, by time: a calendar queue that stays quick at a million pending entries.
//!
//! ```text
//!   now                 the window: 4,096 buckets of 262 µs, 1.07 s          later: whole windows, unsorted
//!    │                  ┌──┬──┬──┬──┬─ … ─┬──┐                               ┌─────┬─────┬─ …
//!   [due, sorted]  ◄─── │  │  │  │  │     │  │  ◄─────────────────────────── │     │     │
//!                       └──┴──┴──┴──┴─ … ─┴──┘                               └─────┴─────┴─ …
//! ```
//!
//! An entry is appended to the bucket of its time, and sorted only when its bucket's turn has come. Entries of one
//! time are in the order of their tie-breaks, which the world draws from its seed: whoever came first has no privilege.
//!
//! Brown (1988), "Calendar queues", with a fixed width: what is simulated here has a density that we know.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::time::Instant;

/// Nanoseconds of a bucket, as a power of two.
const WIDTH_BITS: u32 = 18;
/// Buckets of a window, as a power of two.
const BUCKET_BITS: u32 = 12;
const BUCKETS: usize = 1 << BUCKET_BITS;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    at: u64,
    tie: u64,
}

pub struct Queue<T> {
    /// Entries of buckets up to and including `cursor`, the next one last.
    due: Vec<(Key, T)>,
    /// The absolute number of the bucket that was opened last.
    cursor: u64,
    buckets: Vec<Vec<(Key, T)>>,
    /// Entries in `buckets`.
    soon: usize,
    /// Windows after the cursor's.
    later: BTreeMap<u64, Vec<(Key, T)>>,
    len: usize,
}

fn bucket(at: u64) -> u64 {
    at >> WIDTH_BITS
}

fn window(bucket: u64) -> u64 {
    bucket >> BUCKET_BITS
}

impl<T: Copy> Default for Queue<T> {
    fn default() -> Queue<T> {
        Queue {
            due: Vec::new(),
            cursor: 0,
            buckets: (0..BUCKETS).map(|_| Vec::new()).collect(),
            soon: 0,
            later: BTreeMap::new(),
            len: 0,
        }
    }
}

impl<T: Copy> Queue<T> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn push(&mut self, at: Instant, tie: u64, what: T) {
        self.len += 1;
        let key = Key { at: at.as_nanos(), tie };
        let b = bucket(key.at);
        if b <= self.cursor {
            let place = self.due.partition_point(|(k, _)| *k > key);
            self.due.insert(place, (key, what));
        } else if window(b) == window(self.cursor) {
            self.buckets[b as usize % BUCKETS].push((key, what));
            self.soon += 1;
        } else {
            self.later.entry(window(b)).or_default().push((key, what));
        }
    }

    /// The next entry, if its time is not after `until`.
    pub fn pop(&mut self, until: Instant) -> Option<(Instant, T)> {
        while self.due.is_empty() {
            if !self.open_next(bucket(until.as_nanos())) {
                return None;
            }
        }
        if self.due.last().is_some_and(|(k, _)| k.at > until.as_nanos()) {
            return None;
        }
        let (key, what) = self.due.pop()?;
        self.len -= 1;
        Some((Instant::from_nanos(key.at), what))
    }

    /// Some that come soon; not always as many as there are.
    pub fn ahead(&self) -> impl Iterator<Item = T> {
        let next = (self.cursor + 1..self.cursor + 3).flat_map(|b| &self.buckets[b as usize % BUCKETS]);
        self.due.iter().rev().chain(next).map(|(_, what)| *what)
    }

    /// Nothing happens before this. Exact within the window, else the beginning of the window where something does.
    pub fn not_before(&self) -> Option<Instant> {
        if let Some((key, _)) = self.due.last() {
            return Some(Instant::from_nanos(key.at));
        }
        if self.soon > 0 {
            let end = (window(self.cursor) + 1) << BUCKET_BITS;
            let bucket = (self.cursor + 1..end).map(|b| &self.buckets[b as usize % BUCKETS]).find(|b| !b.is_empty())?;
            return bucket.iter().map(|(k, _)| Instant::from_nanos(k.at)).min();
        }
        let first = *self.later.first_key_value()?.0;
        Some(Instant::from_nanos(first << (BUCKET_BITS + WIDTH_BITS)))
    }

    /// Moves the cursor to the next bucket that has something in it, but not beyond `last`.
    fn open_next(&mut self, last: u64) -> bool {
        if self.soon == 0 {
            // Straight to the next window in which something happens.
            let Some((&next, _)) = self.later.first_key_value().filter(|(w, _)| **w <= window(last)) else {
                self.cursor = self.cursor.max(last.min(self.window_end()));
                return false;
            };
            for (key, what) in self.later.remove(&next).expect("it was just seen") {
                self.buckets[bucket(key.at) as usize % BUCKETS].push((key, what));
                self.soon += 1;
            }
            self.cursor = (next << BUCKET_BITS).saturating_sub(1);
        }
        // The first bucket of a window follows the last one of the window before.
        while self.cursor < last {
            self.cursor += 1;
            let bucket = &mut self.buckets[self.cursor as usize % BUCKETS];
            if !bucket.is_empty() {
                self.soon -= bucket.len();
                core::mem::swap(&mut self.due, bucket);
                self.due.sort_unstable_by(|(a, _), (b, _)| b.cmp(a));
                return true;
            }
        }
        false
    }

    /// The last bucket of the cursor's window.
    fn window_end(&self) -> u64 {
        ((window(self.cursor) + 1) << BUCKET_BITS) - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn at(nanos: u64) -> Instant {
        Instant::from_nanos(nanos)
    }

    /// Against a heap: the same entries in the same order, over gaps from nothing to hours, and while popping.
    #[test]
    fn entries_come_in_the_order_of_time_and_tie() {
        let mut rng = Rng::new(1);
        let (mut queue, mut heap) = (Queue::default(), alloc::collections::BinaryHeap::new());
        let mut now = 0;
        for i in 0..50_000u32 {
            let gap = [0, 1_000, 1_000_000, 40_000_000_000, 3_600_000_000_000][rng.index(5)];
            let (time, tie) = (now + rng.below(gap + 1), rng.below(4));
            queue.push(at(time), tie << 32 | u64::from(i), i);
            heap.push(core::cmp::Reverse((time, tie << 32 | u64::from(i), i)));
            if rng.chance(2, 3) {
                let until = now + rng.below(100_000_000);
                match queue.pop(at(until)) {
                    Some((time, what)) => {
                        let core::cmp::Reverse(first) = heap.pop().unwrap();
                        assert_eq!((time.as_nanos(), what), (first.0, first.2));
                        now = first.0;
                    }
                    None => {
                        assert!(heap.peek().is_none_or(|core::cmp::Reverse(first)| first.0 > until));
                        now = until;
                    }
                }
            }
            assert_eq!(queue.len(), heap.len());
            let first = heap.peek().map(|core::cmp::Reverse(first)| first.0);
            assert_eq!(queue.not_before().is_some(), first.is_some());
            assert!(queue.not_before().is_none_or(|t| t.as_nanos() <= first.unwrap()));
        }
        while let Some(core::cmp::Reverse(first)) = heap.pop() {
            let (time, what) = queue.pop(at(u64::MAX)).unwrap();
            assert_eq!((time.as_nanos(), what), (first.0, first.2));
        }
        assert!(queue.len() == 0 && queue.pop(at(u64::MAX)).is_none());
    }

    #[test]
    fn what_is_posted_for_now_while_looking_far_ahead_comes_first() {
        let mut queue = Queue::default();
        queue.push(at(100_000_000_000), 0, 'z');
        assert!(queue.pop(at(50_000_000_000)).is_none());
        queue.push(at(50_000_000_001), 0, 'a');
        assert_eq!(queue.pop(at(200_000_000_000)).unwrap().1, 'a');
        assert_eq!(queue.pop(at(200_000_000_000)).unwrap().1, 'z');
    }
}
