//! Which broadcasts of one origin were seen: all up to some number, and some stretches above it.

use alloc::vec::Vec;

/// Stretches above the first gap. What would make another is taken for lost on its way: it is asked for again.
pub const STRETCHES_MAX: usize = 256;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// All below it were seen. The first number is 1.
    next: u64,
    /// First and last of each, in order; between two of them is always something that was not seen.
    above: Vec<(u64, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    New,
    Known,
    /// There is no room for another stretch; it counts as not seen.
    Full,
}

impl Default for Seen {
    fn default() -> Seen {
        Seen { next: 1, above: Vec::new() }
    }
}

impl Seen {
    /// The first that was not seen.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The highest that was seen; 0 where none was.
    pub fn top(&self) -> u64 {
        self.above.last().map_or(self.next - 1, |&(_, last)| last)
    }

    pub fn stretches(&self) -> usize {
        self.above.len()
    }

    pub fn contains(&self, seq: u64) -> bool {
        let at = self.above.partition_point(|&(_, last)| last < seq);
        seq < self.next || self.above.get(at).is_some_and(|&(first, _)| first <= seq)
    }

    /// Each of them was seen.
    pub fn covers(&self, first: u64, last: u64) -> bool {
        let at = self.above.partition_point(|&(_, end)| end < last);
        last < self.next || self.above.get(at).is_some_and(|&(from, _)| from <= first)
    }

    pub fn insert(&mut self, seq: u64) -> Mark {
        if self.contains(seq) {
            return Mark::Known;
        }
        if seq == self.next {
            self.next += 1;
            self.join();
            return Mark::New;
        }
        let at = self.above.partition_point(|&(_, last)| last < seq);
        let (below, above) =
            (at > 0 && self.above[at - 1].1 + 1 == seq, self.above.get(at).is_some_and(|a| a.0 == seq + 1));
        match (below, above) {
            (true, true) => {
                self.above[at - 1].1 = self.above[at].1;
                self.above.remove(at);
            }
            (true, false) => self.above[at - 1].1 = seq,
            (false, true) => self.above[at].0 = seq,
            (false, false) if self.above.len() == STRETCHES_MAX => return Mark::Full,
            (false, false) => self.above.insert(at, (seq, seq)),
        }
        Mark::New
    }

    /// All up to `seq` count as seen from now on.
    pub fn skip(&mut self, seq: u64) {
        self.next = self.next.max(seq + 1);
        self.join();
    }

    /// What is missing up to `top`, as stretches.
    pub fn missing(&self, top: u64) -> impl Iterator<Item = (u64, u64)> {
        let ends = self.above.iter().map(|&(first, _)| first - 1).chain([u64::MAX]);
        let begins = [self.next].into_iter().chain(self.above.iter().map(|&(_, last)| last + 1));
        begins.zip(ends).map(move |(first, last)| (first, last.min(top))).take_while(|(first, last)| first <= last)
    }

    fn join(&mut self) {
        while let Some(&(first, last)) = self.above.first().filter(|&&(first, _)| first <= self.next) {
            debug_assert!(first > 0);
            self.next = self.next.max(last + 1);
            self.above.remove(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;

    use super::*;
    use crate::rng::Rng;

    #[test]
    fn it_knows_what_a_set_would_know() {
        let rng = &mut Rng::new(7);
        for _ in 0..200 {
            let (mut seen, mut model) = (Seen::default(), BTreeSet::new());
            for _ in 0..rng.below(120) {
                let seq = 1 + rng.below(60);
                if rng.chance(1, 30) {
                    seen.skip(seq);
                    model.extend(1..=seq);
                } else {
                    let mark = if model.insert(seq) { Mark::New } else { Mark::Known };
                    assert_eq!(seen.insert(seq), mark);
                }
                assert!((1..70).all(|seq| seen.contains(seq) == model.contains(&seq)));
                let (first, last) = (1 + rng.below(60), 1 + rng.below(60));
                let covered = (first..=last).all(|seq| model.contains(&seq));
                assert!(first > last || seen.covers(first, last) == covered);
                assert_eq!(seen.top(), model.last().copied().unwrap_or(0));
                let missing: Vec<u64> = seen.missing(64).flat_map(|(first, last)| first..=last).collect();
                assert!(missing.into_iter().eq((1..=64).filter(|seq| !model.contains(seq))));
            }
        }
    }

    #[test]
    fn what_there_is_no_room_for_counts_as_not_seen() {
        let mut seen = Seen::default();
        for i in 1..=STRETCHES_MAX as u64 {
            assert_eq!(seen.insert(2 * i), Mark::New);
        }
        assert_eq!((seen.insert(9_999), seen.contains(9_999)), (Mark::Full, false));
        assert_eq!((seen.insert(1), seen.next(), seen.stretches()), (Mark::New, 3, STRETCHES_MAX - 1));
        assert_eq!(seen.insert(9_999), Mark::New);
    }
}
