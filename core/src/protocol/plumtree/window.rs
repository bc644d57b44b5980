//! What is kept of the broadcasts that were heard, for those who missed some: so many bytes, for so long.

use alloc::collections::{BTreeMap, VecDeque};

use crate::id::RunId;
use crate::message::Body;
use crate::time::{Duration, Instant};

/// What one more costs beside its bytes: its place, its line in the order, and its allocation.
const OVERHEAD: usize = size_of::<Option<Kept>>() + size_of::<(Instant, RunId, u64)>() + 16;

/// A gap of more than this is not kept room for: what was kept before it is dropped instead.
const GAP_MAX: u64 = 65_536;

#[derive(Clone, Debug)]
pub struct Kept {
    pub body: Body,
    /// The one of its topic that it comes after, where order is wanted; 0 is none.
    pub after: u64,
    /// When its origin said it, as far as is known: never earlier.
    pub sent: Instant,
    /// Bytes of its origin that have gone on from here, itself included.
    pub at: u64,
    /// How far it had come, and from which neighbour.
    pub hops: u32,
    pub by: Option<u8>,
    /// Neighbours that have it.
    pub had: u16,
}

#[derive(Debug, Default)]
struct Shelf {
    /// The sequence number of the first place.
    low: u64,
    places: VecDeque<Option<Kept>>,
    /// The highest of those that had to go, and when it was said.
    gone: (u64, Instant),
}

#[derive(Debug, Default)]
pub struct Window {
    shelves: BTreeMap<RunId, Shelf>,
    /// As they came.
    order: VecDeque<(Instant, RunId, u64)>,
    bytes: usize,
}

impl Window {
    /// Bytes, what keeping them costs included.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    pub fn get(&self, origin: RunId, seq: u64) -> Option<&Kept> {
        self.shelves.get(&origin)?.get(seq)
    }

    pub fn get_mut(&mut self, origin: RunId, seq: u64) -> Option<&mut Kept> {
        let shelf = self.shelves.get_mut(&origin)?;
        shelf.places.get_mut(usize::try_from(seq.checked_sub(shelf.low)?).ok()?)?.as_mut()
    }

    /// The first that may be here; everything before it is not.
    pub fn low(&self, origin: RunId) -> u64 {
        self.shelves.get(&origin).map_or(1, |shelf| shelf.low)
    }

    /// The last that may be here.
    pub fn high(&self, origin: RunId) -> u64 {
        self.shelves.get(&origin).map_or(0, |shelf| shelf.low + shelf.places.len() as u64 - 1)
    }

    pub fn holds_any_of(&self, origin: RunId) -> bool {
        self.shelves.get(&origin).is_some_and(|shelf| !shelf.places.is_empty())
    }

    /// Everything up to this was said before `since`, as far as can be told; and when it was.
    pub fn before(&self, origin: RunId, since: Instant) -> (u64, Instant) {
        let Some(shelf) = self.shelves.get(&origin) else { return (0, since) };
        let (gone, sent) = shelf.gone;
        if gone > 0 && sent >= since {
            return (0, since);
        }
        let (mut seq, mut before) = (shelf.low, (gone, sent));
        for place in &shelf.places {
            match place {
                Some(kept) if kept.sent >= since => break,
                Some(kept) => before = (seq, kept.sent),
                None => {}
            }
            seq += 1;
        }
        before
    }

    /// Keeps one, unless there is a reason not to: it counts among those that had to go then.
    pub fn keep(&mut self, now: Instant, origin: RunId, seq: u64, kept: Kept) {
        let shelf = self.shelves.entry(origin).or_default();
        let end = shelf.low + shelf.places.len() as u64;
        if shelf.places.is_empty() {
            shelf.low = shelf.low.max(seq);
        } else if seq > end + GAP_MAX {
            for kept in shelf.places.drain(..) {
                self.bytes -= kept.as_ref().map_or(size_of::<Option<Kept>>(), cost);
                shelf.gone = kept.map_or(shelf.gone, |kept| (end - 1, kept.sent.max(shelf.gone.1)));
            }
            shelf.low = seq;
        }
        if seq > shelf.gone.0 && shelf.low.saturating_sub(seq) <= GAP_MAX {
            // Later ones were quicker.
            while seq < shelf.low {
                shelf.places.push_front(None);
                shelf.low -= 1;
                self.bytes += size_of::<Option<Kept>>();
            }
        }
        let Some(at) = seq.checked_sub(shelf.low).map(|at| at as usize) else {
            shelf.gone = shelf.gone.max((seq, kept.sent));
            return;
        };
        while shelf.places.len() <= at {
            shelf.places.push_back(None);
            self.bytes += size_of::<Option<Kept>>();
        }
        if shelf.places[at].is_none() {
            self.bytes += cost(&kept) - size_of::<Option<Kept>>();
            shelf.places[at] = Some(kept);
            self.order.push_back((now, origin, seq));
        }
    }

    /// Drops what is too old, and of the rest the oldest until `most` bytes are left.
    pub fn trim(&mut self, now: Instant, most: usize, keep: Duration) {
        while let Some(&(since, origin, seq)) = self.order.front() {
            if self.bytes <= most && now.since(since) <= keep {
                return;
            }
            self.order.pop_front();
            let Some(shelf) = self.shelves.get_mut(&origin) else { continue };
            let Some(at) = seq.checked_sub(shelf.low).map(|at| at as usize) else { continue };
            if let Some(kept) = shelf.places.get_mut(at).and_then(Option::take) {
                self.bytes -= cost(&kept) - size_of::<Option<Kept>>();
                shelf.gone = shelf.gone.max((seq, kept.sent));
            }
            while shelf.places.front().is_some_and(Option::is_none) {
                shelf.places.pop_front();
                shelf.low += 1;
                self.bytes -= size_of::<Option<Kept>>();
            }
        }
    }

    /// One of them goes before its time.
    pub fn discard(&mut self, origin: RunId, seq: u64) {
        let Some(shelf) = self.shelves.get_mut(&origin) else { return };
        let Some(at) = seq.checked_sub(shelf.low).map(|at| at as usize) else { return };
        if let Some(kept) = shelf.places.get_mut(at).and_then(Option::take) {
            self.bytes -= cost(&kept) - size_of::<Option<Kept>>();
        }
    }

    /// When the oldest becomes too old.
    pub fn deadline(&self, keep: Duration) -> Option<Instant> {
        self.order.front().map(|&(since, ..)| since + keep)
    }

    /// Everything of that origin goes.
    pub fn forget(&mut self, origin: RunId) {
        for place in self.shelves.remove(&origin).into_iter().flat_map(|shelf| shelf.places) {
            self.bytes -= place.as_ref().map_or(size_of::<Option<Kept>>(), cost);
        }
    }

    /// That neighbour is none any more.
    pub fn vacate(&mut self, slot: u8) {
        for kept in self.shelves.values_mut().flat_map(|shelf| &mut shelf.places).flatten() {
            kept.had &= !(1 << slot);
            kept.by = kept.by.filter(|&by| by != slot);
        }
    }
}

impl Shelf {
    fn get(&self, seq: u64) -> Option<&Kept> {
        self.places.get(usize::try_from(seq.checked_sub(self.low)?).ok()?)?.as_ref()
    }
}

fn cost(kept: &Kept) -> usize {
    kept.body.len() + OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(id: u64) -> RunId {
        RunId::new(id).unwrap()
    }

    fn at(s: u64) -> Instant {
        Instant::from_nanos(s * 1_000_000_000)
    }

    fn kept(sent: u64) -> Kept {
        Kept { body: Body::read("", &[7; 100]), after: 0, sent: at(sent), at: 0, hops: 1, by: None, had: 0 }
    }

    #[test]
    fn the_oldest_of_all_goes_first_and_the_bytes_add_up() {
        let mut window = Window::default();
        for seq in 1..=10 {
            window.keep(at(seq), run(seq % 2 + 1), seq, kept(seq));
        }
        let each = window.bytes();
        window.trim(at(10), each * 4 / 10, Duration::from_secs(60));
        assert!(window.get(run(1), 4).is_none() && window.get(run(1), 8).is_some() && window.get(run(2), 9).is_some());
        assert!(window.bytes() <= each * 4 / 10);
        window.trim(at(70), usize::MAX, Duration::from_secs(60));
        assert!(window.get(run(2), 9).is_none() && window.get(run(1), 10).is_some());
        window.forget(run(1));
        assert_eq!(window.bytes(), 0);
        window.trim(at(100), 0, Duration::ZERO);
        assert!(window.is_empty());
    }

    #[test]
    fn what_is_gone_is_below_the_first_place_and_never_kept_again() {
        let mut window = Window::default();
        (1..=5).for_each(|seq| window.keep(at(seq), run(1), seq, kept(seq)));
        window.trim(at(63), usize::MAX, Duration::from_secs(60));
        assert_eq!((window.low(run(1)), window.high(run(1))), (3, 5));
        window.keep(at(63), run(1), 2, kept(2));
        assert!(window.get(run(1), 2).is_none());
    }

    #[test]
    fn a_newcomer_is_told_what_was_said_before_it_came() {
        let mut window = Window::default();
        (1..=5).for_each(|seq| window.keep(at(seq), run(1), seq, kept(seq)));
        assert_eq!([0, 1, 3, 9].map(|s| window.before(run(1), at(s)).0), [0, 0, 2, 5]);
        window.trim(at(63), usize::MAX, Duration::from_secs(60));
        assert_eq!(window.before(run(1), at(4)), (3, at(3)));
        assert_eq!(window.before(run(1), at(2)).0, 0, "it was here then, and may have missed some");
    }

    #[test]
    fn a_leap_in_a_sequence_costs_no_memory() {
        let mut window = Window::default();
        window.keep(at(1), run(1), 1, kept(1));
        window.keep(at(2), run(1), 1 << 40, kept(2));
        assert!(window.bytes() < 1_000 && window.get(run(1), 1 << 40).is_some() && window.get(run(1), 1).is_none());
    }
}
