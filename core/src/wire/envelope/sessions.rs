//! Whom we have heard, and what of it: no packet is acted on twice.

use alloc::vec::Vec;
use core::hash::Hasher;

use hashbrown::HashTable;
use siphasher::sip::SipHasher13;

use super::Limits;
use super::header::{Header, Lane};
use crate::id::RunId;
use crate::time::{Duration, Instant, nanos};

/// Whom we have heard: for each sender its derived key and what of it was received.
///
/// A session of a member stays. Those of others stay until `max_sessions` are there and they are the least recently
/// used; a recorded packet of a run whose session is gone would open it anew, so they are not dropped before that.
/// About 130 bytes each.
pub struct Sessions {
    slots: Vec<Session>,
    /// Slot numbers by run id.
    index: HashTable<u32>,
    members: HashTable<RunId>,
    hash_key: [u64; 2],
    /// Keys in the ring: a run may have a session under each.
    keys: usize,
    limits: Limits,
    /// Ends of the list of non-members, in the order of their use.
    newest: u32,
    oldest: u32,
    /// Length of that list.
    evictable: usize,
    /// First of the unused slots, chained through `older`.
    vacant: u32,
    derive_members: Bucket,
    derive_strangers: Bucket,
}

struct Session {
    run: RunId,
    key: [u8; 32],
    datagrams: Window<4>,
    records: Window<2>,
    newer: u32,
    older: u32,
    key_index: u16,
    member: bool,
}

const _: () = assert!(size_of::<Session>() == 120, "the table's docs promise about 130 bytes with the index");

/// No slot.
const NONE: u32 = u32::MAX;

impl Sessions {
    pub(super) fn new(limits: Limits, hash_key: [u64; 2], keys: usize) -> Sessions {
        Sessions {
            slots: Vec::new(),
            index: HashTable::new(),
            members: HashTable::new(),
            hash_key,
            keys,
            limits: Limits { max_sessions: limits.max_sessions.max(1), ..limits },
            newest: NONE,
            oldest: NONE,
            evictable: 0,
            vacant: NONE,
            derive_members: Bucket::default(),
            derive_strangers: Bucket::default(),
        }
    }

    /// Sessions of members are never evicted. May come before the session does.
    pub fn set_member(&mut self, run: RunId, member: bool) {
        self.mark(run, member);
        self.shrink_to(self.limits.max_sessions);
    }

    /// The run is gone for good: no member any more, and first in line when room is needed.
    pub fn forget(&mut self, run: RunId) {
        self.mark(run, false);
        for key in 0..self.keys {
            if let Some(slot) = self.find(run, key) {
                self.unlink(slot);
                self.link_oldest(slot);
            }
        }
        self.shrink_to(self.limits.max_sessions);
    }

    pub fn len(&self) -> usize {
        self.index.len()
    }

    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    fn mark(&mut self, run: RunId, member: bool) {
        let hash = self.hash(run);
        match self.members.find_entry(hash, |&r| r == run) {
            Err(_) if member => {
                let hash_key = self.hash_key;
                self.members.insert_unique(hash, run, |&r| hash_run(hash_key, r));
            }
            Ok(entry) if !member => {
                entry.remove();
            }
            _ => {}
        }
        for key in 0..self.keys {
            let Some(slot) = self.find(run, key) else { continue };
            if self.at(slot).member != member {
                self.at_mut(slot).member = member;
                if member { self.unlink(slot) } else { self.link_newest(slot) }
            }
        }
    }

    pub(super) fn find(&self, run: RunId, key: usize) -> Option<u32> {
        let fits = |&slot: &u32| {
            let session = self.at(slot);
            session.run == run && usize::from(session.key_index) == key
        };
        self.index.find(self.hash(run), fits).copied()
    }

    pub(super) fn key(&self, slot: u32) -> [u8; 32] {
        self.at(slot).key
    }

    /// Packets to strangers are outside of the windows: they go to everybody, and anybody can repeat them.
    pub(super) fn has_seen(&self, slot: u32, head: &Header) -> bool {
        let session = self.at(slot);
        !head.stranger
            && match head.lane {
                Lane::Datagram => session.datagrams.has_seen(head.counter),
                Lane::Record => session.records.has_seen(head.counter),
            }
    }

    /// Members draw from a bucket of their own, or else a flood of invented run ids would keep them out when we are new.
    pub(super) fn may_derive(&mut self, now: Instant, run: RunId) -> bool {
        let rate = self.limits.derive_rate;
        if self.is_member(run) { self.derive_members.take(now, rate) } else { self.derive_strangers.take(now, rate) }
    }

    /// The tag was valid.
    pub(super) fn accept(&mut self, known: Option<u32>, head: &Header, key_index: usize, key: [u8; 32]) {
        if head.stranger {
            return;
        }
        let slot = match known {
            Some(slot) => {
                self.touch(slot);
                slot
            }
            None => self.insert(head.run, key_index, key),
        };
        let session = self.at_mut(slot);
        match head.lane {
            Lane::Datagram => session.datagrams.mark(head.counter),
            Lane::Record => session.records.mark(head.counter),
        }
    }

    fn insert(&mut self, run: RunId, key_index: usize, key: [u8; 32]) -> u32 {
        let member = self.is_member(run);
        if !member {
            self.shrink_to(self.limits.max_sessions - 1);
        }
        let session = Session {
            run,
            key,
            datagrams: Window::default(),
            records: Window::default(),
            newer: NONE,
            older: NONE,
            key_index: key_index as u16,
            member,
        };
        let slot = self.vacant;
        let slot = if slot == NONE {
            // By an eighth, not by its double: of an idle node's memory this is a good part.
            if self.slots.len() == self.slots.capacity() {
                self.slots.reserve_exact((self.slots.len() / 8).max(8));
            }
            self.slots.push(session);
            (self.slots.len() - 1) as u32
        } else {
            self.vacant = self.at(slot).older;
            *self.at_mut(slot) = session;
            slot
        };
        let (hash, hash_key, slots) = (self.hash(run), self.hash_key, &self.slots);
        self.index.insert_unique(hash, slot, |&s| hash_run(hash_key, slots[s as usize].run));
        if !member {
            self.link_newest(slot);
        }
        slot
    }

    /// A flood of keyed strangers costs older strangers their sessions, not us our memory.
    fn shrink_to(&mut self, evictable: usize) {
        while self.evictable > evictable {
            let slot = self.oldest;
            self.unlink(slot);
            if let Ok(entry) = self.index.find_entry(self.hash(self.at(slot).run), |&s| s == slot) {
                entry.remove();
            }
            self.at_mut(slot).older = self.vacant;
            self.vacant = slot;
        }
    }

    fn touch(&mut self, slot: u32) {
        if !self.at(slot).member && self.newest != slot {
            self.unlink(slot);
            self.link_newest(slot);
        }
    }

    fn link_newest(&mut self, slot: u32) {
        self.join(slot, self.newest);
        self.join(NONE, slot);
        self.evictable += 1;
    }

    fn link_oldest(&mut self, slot: u32) {
        self.join(self.oldest, slot);
        self.join(slot, NONE);
        self.evictable += 1;
    }

    fn unlink(&mut self, slot: u32) {
        self.join(self.at(slot).newer, self.at(slot).older);
        self.evictable -= 1;
    }

    /// Makes two sessions neighbours in the list; `NONE` stands for its end.
    fn join(&mut self, newer: u32, older: u32) {
        match newer {
            NONE => self.newest = older,
            _ => self.at_mut(newer).older = older,
        }
        match older {
            NONE => self.oldest = newer,
            _ => self.at_mut(older).newer = newer,
        }
    }

    fn is_member(&self, run: RunId) -> bool {
        self.members.find(self.hash(run), |&r| r == run).is_some()
    }

    fn hash(&self, run: RunId) -> u64 {
        hash_run(self.hash_key, run)
    }

    fn at(&self, slot: u32) -> &Session {
        &self.slots[slot as usize]
    }

    fn at_mut(&mut self, slot: u32) -> &mut Session {
        &mut self.slots[slot as usize]
    }
}

/// Which of the last `64 * W` counters were received: bit `i` stands for `highest - i`.
struct Window<const W: usize> {
    highest: u64,
    seen: [u64; W],
}

impl<const W: usize> Default for Window<W> {
    fn default() -> Self {
        Window { highest: 0, seen: [0; W] }
    }
}

impl<const W: usize> Window<W> {
    /// Also of what is too old to tell, and of 0, which nobody sends.
    fn has_seen(&self, counter: u64) -> bool {
        if counter > self.highest {
            return false;
        }
        let back = self.highest - counter;
        counter == 0 || back >= 64 * W as u64 || self.seen[back as usize / 64] >> (back % 64) & 1 == 1
    }

    /// `counter` was not seen.
    fn mark(&mut self, counter: u64) {
        if counter > self.highest {
            self.shift(counter - self.highest);
            self.highest = counter;
        }
        let back = (self.highest - counter) as usize;
        self.seen[back / 64] |= 1 << (back % 64);
    }

    fn shift(&mut self, by: u64) {
        let words = usize::try_from(by / 64).unwrap_or(W);
        let bits = by % 64;
        for i in (0..W).rev() {
            let word = |back: usize| i.checked_sub(back).map_or(0, |from| self.seen[from]);
            self.seen[i] = match bits {
                0 => word(words),
                _ => word(words) << bits | word(words.saturating_add(1)) >> (64 - bits),
            };
        }
    }
}

/// A token bucket that holds one second's worth, kept as the time at which it will be full again.
#[derive(Default)]
struct Bucket {
    full: Instant,
}

impl Bucket {
    fn take(&mut self, now: Instant, rate: usize) -> bool {
        const SECOND: Duration = Duration::from_secs(1);
        let Some(price) = nanos(SECOND).checked_div(rate as u64) else { return false };
        let full = self.full.max(now) + Duration::from_nanos(price);
        let taken = full.since(now) <= SECOND;
        if taken {
            self.full = full;
        }
        taken
    }
}

/// By SipHash-1-3.
fn hash_run(key: [u64; 2], run: RunId) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(key[0], key[1]);
    hasher.write_u64(run.get());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    extern crate std;

    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { max_sessions: 3, derive_rate: 1000 };

    fn run(id: u64) -> RunId {
        RunId::new(id).unwrap()
    }

    #[test]
    fn a_bucket_holds_a_second_and_fills_steadily() {
        let mut bucket = Bucket::default();
        let taken = |bucket: &mut Bucket, now| (0..100).filter(|_| bucket.take(now, 10)).count();
        assert_eq!(taken(&mut bucket, Instant::ZERO), 10);
        assert_eq!(taken(&mut bucket, Instant::ZERO + Duration::from_millis(250)), 2);
        assert_eq!(taken(&mut bucket, Instant::ZERO), 0, "a clock that went back gives nothing");
        assert_eq!(taken(&mut bucket, Instant::ZERO + Duration::from_secs(3600)), 10);
        assert!(!bucket.take(Instant::ZERO, 0));
    }

    /// The table as it would be written without care for speed: sessions in the order of their use, oldest first.
    #[derive(Default)]
    struct PlainTable {
        members: Vec<u64>,
        sessions: Vec<u64>,
    }

    impl PlainTable {
        fn shrink(&mut self, max: usize) {
            while self.sessions.iter().filter(|id| !self.members.contains(id)).count() > max {
                let oldest = self.sessions.iter().position(|id| !self.members.contains(id)).unwrap();
                self.sessions.remove(oldest);
            }
        }
    }

    proptest! {
        #[test]
        fn the_window_is_exact(steps in proptest::collection::vec((0u64..400, any::<bool>(), 0u64..100), 1..300)) {
            let mut window = Window::<4>::default();
            let mut seen = std::collections::BTreeSet::from([0]);
            let mut highest = 0u64;
            for (distance, back, leap) in steps {
                let leap = if leap == 0 { 1 << 40 } else { 0 };
                let counter = if back { highest.saturating_sub(distance) } else { highest + distance + leap };
                let refused = seen.contains(&counter) || highest >= 256 + counter;
                prop_assert_eq!(window.has_seen(counter), refused, "{} of {}", counter, highest);
                if !refused {
                    window.mark(counter);
                    seen.insert(counter);
                    highest = highest.max(counter);
                }
            }
        }

        #[test]
        fn the_table_does_what_the_plain_one_does(ops in proptest::collection::vec((0u8..6, 1u64..12), 1..200)) {
            let mut table = Sessions::new(LIMITS, [1, 2], 1);
            let mut model = PlainTable::default();
            for (op, id) in ops {
                let member = model.members.contains(&id);
                match op {
                    0..=2 => {
                        let head = Header {
                            lane: Lane::Datagram, stranger: false, plain: false, key_id: 0, run: run(id), counter: 1,
                        };
                        let known = table.find(run(id), 0);
                        prop_assert_eq!(known.is_some(), model.sessions.contains(&id));
                        table.accept(known, &head, 0, [id as u8; 32]);
                        model.sessions.retain(|&other| other != id);
                        model.sessions.push(id);
                    }
                    3 => {
                        table.set_member(run(id), true);
                        if !member {
                            model.members.push(id);
                        }
                    }
                    4 => {
                        table.set_member(run(id), false);
                        model.members.retain(|&other| other != id);
                        if member && model.sessions.contains(&id) {
                            model.sessions.retain(|&other| other != id);
                            model.sessions.push(id);
                        }
                    }
                    _ => {
                        table.forget(run(id));
                        model.members.retain(|&other| other != id);
                        if model.sessions.contains(&id) {
                            model.sessions.retain(|&other| other != id);
                            model.sessions.insert(0, id);
                        }
                    }
                }
                model.shrink(LIMITS.max_sessions);
                prop_assert_eq!(table.len(), model.sessions.len());
                for &id in &model.sessions {
                    let slot = table.find(run(id), 0);
                    prop_assert_eq!(slot.map(|slot| table.key(slot)), Some([id as u8; 32]));
                }
                prop_assert!(table.slots.len() <= 11, "unused slots are used again");
            }
        }
    }
}
