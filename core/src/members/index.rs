//! Finds slots by a hash. Open addressing: a slot is in the first free cell from its home on.
//!
//! A cell is four bytes: the slot, and above it twelve bits of its hash, which tell it from nearly all others. So a
//! look-up reads one line here and one of the entry. Where a process has thousands of tables each line comes from memory,
//! and that is what a turn costs; a table that keeps hashes apart from slots, as hashbrown does, reads one more.

use alloc::vec::Vec;
use core::mem;

/// Bits of a slot; the rest of a cell is of the hash.
pub const SLOT_BITS: u32 = 20;

const SLOT: u32 = (1 << SLOT_BITS) - 1;

const EMPTY: u32 = u32::MAX;

/// Whoever calls gives the hash, and for changes a way to have that of others, because cells move.
#[derive(Debug, Default)]
pub struct Index {
    /// None, or a power of two of which a fifth is free at least.
    cells: Vec<u32>,
    used: usize,
}

impl Index {
    #[inline]
    pub fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        Some(self.cells[self.position(hash, is_it)?] & SLOT)
    }

    pub fn insert(&mut self, hash: u64, slot: u32, hash_of: impl Fn(u32) -> u64) {
        self.reserve(1, hash_of);
        self.put(hash, slot);
    }

    pub fn remove(&mut self, hash: u64, slot: u32, hash_of: impl Fn(u32) -> u64) {
        let Some(mut hole) = self.position(hash, |s| s == slot) else { return };
        let mask = self.cells.len() - 1;
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            if self.cells[at] == EMPTY {
                break;
            }
            // It may stand in the hole unless its home is after that.
            let home = hash_of(self.cells[at] & SLOT) as usize;
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(hole) & mask {
                self.cells[hole] = self.cells[at];
                hole = at;
            }
        }
        self.cells[hole] = EMPTY;
        self.used -= 1;
    }

    /// Room for so many more.
    pub fn reserve(&mut self, more: usize, hash_of: impl Fn(u32) -> u64) {
        let needed = (self.used + more) * 5 / 4 + 1;
        if needed <= self.cells.len() {
            return;
        }
        let cells = alloc::vec![EMPTY; needed.next_power_of_two().max(8)];
        self.used = 0;
        for cell in mem::replace(&mut self.cells, cells) {
            if cell != EMPTY {
                self.put(hash_of(cell & SLOT), cell & SLOT);
            }
        }
    }

    fn put(&mut self, hash: u64, slot: u32) {
        let mask = self.cells.len() - 1;
        let mut at = hash as usize & mask;
        while self.cells[at] != EMPTY {
            at = (at + 1) & mask;
        }
        self.cells[at] = tag(hash) | slot;
        self.used += 1;
    }

    #[inline]
    fn position(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<usize> {
        let mask = self.cells.len().checked_sub(1)?;
        let mut at = hash as usize & mask;
        loop {
            let cell = self.cells[at];
            if cell & !SLOT == tag(hash) && is_it(cell & SLOT) {
                return Some(at);
            }
            if cell == EMPTY {
                return None;
            }
            at = (at + 1) & mask;
        }
    }
}

/// The highest bits of a hash, whose lowest are its home. Never all of them, as in an empty cell.
fn tag(hash: u64) -> u32 {
    ((hash >> 32) as u32 & !SLOT).min(!SLOT - (1 << SLOT_BITS))
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;

    use super::*;
    use crate::rng::{Rng, mix};

    /// Hashes of few homes and few tags, so that many meet; and good ones.
    #[test]
    fn after_any_changes_everything_is_found_and_nothing_else() {
        for bits in [0x3, 0x8000_0000_0000_0001, 0xfff0_0000_0000_0007, u64::MAX] {
            let hash_of = |slot: u32| mix(u64::from(slot)) & bits | if slot == 9 { !0 << 52 } else { 0 };
            let (mut index, mut rng) = (Index::default(), Rng::new(bits));
            let mut model = BTreeMap::new();
            for turn in 0..5_000 {
                let slot = rng.below(300) as u32;
                match model.remove(&slot) {
                    Some(()) => index.remove(hash_of(slot), slot, hash_of),
                    None if model.len() < 200 => {
                        model.insert(slot, ());
                        index.insert(hash_of(slot), slot, hash_of);
                    }
                    None => {}
                }
                if turn % 16 == 0 {
                    for slot in 0..300 {
                        let found = index.find(hash_of(slot), |s| s == slot);
                        assert_eq!(found, model.contains_key(&slot).then_some(slot), "turn {turn}, slot {slot}");
                    }
                    assert_eq!(index.used, model.len());
                    assert!(index.cells.is_empty() || index.used * 5 <= index.cells.len() * 4);
                }
            }
        }
    }

    #[test]
    fn the_last_slot_is_one_like_any_other() {
        let mut index = Index::default();
        index.insert(!0, SLOT, |_| !0);
        assert_eq!(index.find(!0, |slot| slot == SLOT), Some(SLOT));
        assert_eq!(index.find(!0 << 1, |_| true), None);
    }

    #[test]
    fn what_is_reserved_is_not_moved() {
        let mut index = Index::default();
        index.reserve(10_000, |_| 0);
        let cells = index.cells.len();
        (0..10_000).for_each(|slot| index.insert(mix(slot.into()), slot, |_| unreachable!("nothing moves")));
        assert_eq!((index.cells.len(), index.used), (cells, 10_000));
        assert_eq!(cells, 16_384);
    }
}
