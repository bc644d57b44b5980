//! Who exists and how they fare: the member table, and SWIM's rule for which news overrides which.
//!
//! One entry a name. Its run says which life of that name is meant: a run with a higher epoch replaces the
//! entry whatever its state (a restart), a lower one is stale. Inside one run SWIM §4.2 decides by incarnation:
//!
//! | known ↓, told → | Alive i' | Suspect i' | Dead i' | Left i' |
//! |---|---|---|---|---|
//! | Alive i | i' > i | i' ≥ i | i' ≥ i | always |
//! | Suspect i | i' > i | i' > i (equal: one more accuser) | i' ≥ i | always |
//! | Dead i | i' > i | never | i' > i | always |
//! | Left | never | never | never | never |
//!
//! Departure from SWIM §4.2, where Confirm is final: a member that was declared dead by mistake comes
//! back by raising its incarnation, because a false death must not need a restart.
//!
//! Here are the rule and the table; what the table keeps of a member is in `entry`, and how it finds one in `index`.

mod entry;
mod index;

use alloc::vec::Vec;
use core::cmp::Ordering;
use core::hash::Hasher;
use core::net::SocketAddr;

use siphasher::sip::SipHasher13;

use self::entry::Packed;
pub use self::entry::{Entry, Rtt, entry};
use self::index::{Index, SLOT_BITS};
use crate::id::{Incarnation, Peer, RunId};
use crate::rng::{Rng, mix};
use crate::view::MemberState;
use crate::wire::frame::BUCKET_BITS_MAX;

/// What news about one run amounts to, given what is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// It overrides what was known.
    News,
    /// Equal to what is known; nothing to do but count an accuser.
    Known,
    /// What is known overrides it.
    Stale,
}

/// SWIM §4.2's order as one table; the page above draws it.
pub fn ruling(known: (MemberState, Incarnation), told: (MemberState, Incarnation)) -> Ruling {
    use MemberState::{Alive, Dead, Left, Suspect};
    let ((status, i), (told, j)) = (known, told);
    match (status, told) {
        (Left, Left) => Ruling::Known,
        (Left, _) => Ruling::Stale,
        (_, Left) => Ruling::News,
        (Alive, Suspect) | (Alive | Suspect, Dead) if j == i => Ruling::News,
        (Dead, Suspect) => Ruling::Stale,
        _ if j > i => Ruling::News,
        _ if j == i && status == told => Ruling::Known,
        _ => Ruling::Stale,
    }
}

/// A place on the ring, on which live members stand in the order of a hash of their runs. It is a slot with the highest
/// bits of that hash: what most look-ups on the ring want is there, and the entry, which in a large table is never
/// in the cache, need not be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(u32);

/// No configuration may ask for more members.
pub const MEMBERS_MAX: usize = 1 << SLOT_BITS;

/// The ring has 2^12 parts, so finely does a place tell where it is.
pub const PART_BITS: u32 = 32 - SLOT_BITS;

impl Place {
    fn new(run: RunId, slot: u32) -> Place {
        Place(part(run) << SLOT_BITS | slot)
    }

    fn slot(self) -> u32 {
        self.0 & ((1 << SLOT_BITS) - 1)
    }

    pub fn part(self) -> u32 {
        self.0 >> SLOT_BITS
    }
}

/// In which part of the ring a run stands: the same on every node.
pub fn part(run: RunId) -> u32 {
    (mix(run.get()) >> (64 - PART_BITS)) as u32
}

#[derive(Debug)]
pub struct Members {
    slots: Vec<Option<Entry>>,
    /// Empty slots, each as the peer that its next tenant will be.
    free: Vec<Peer>,
    by_run: Index,
    by_name: Index,
    /// The live members. Who knows the same has the same ring.
    ring: Vec<Place>,
    /// Our own place on it.
    rank: usize,
    /// The slots of the dead and the left, in order.
    gone: Vec<u32>,
    key: (u64, u64),
    max: usize,
    me: Peer,
    fingerprint: u64,
    /// What the fingerprint sums, by bucket.
    sums: [u32; 1 << BUCKET_BITS_MAX],
}

impl Members {
    /// A table that knows only us.
    pub fn new(me: Entry, key: (u64, u64), max: usize) -> Members {
        let mut members = Members {
            slots: Vec::new(),
            free: Vec::new(),
            by_run: Index::default(),
            by_name: Index::default(),
            ring: Vec::new(),
            rank: 0,
            gone: Vec::new(),
            key,
            max: max.min(MEMBERS_MAX),
            me: Peer { slot: 0, generation: 0 },
            fingerprint: 0,
            sums: [0; 1 << BUCKET_BITS_MAX],
        };
        members.insert(me);
        members
    }

    pub fn me(&self) -> Peer {
        self.me
    }

    pub fn local(&self) -> &Entry {
        self.get(self.me).expect("we are always in our own table")
    }

    pub fn get(&self, peer: Peer) -> Option<&Entry> {
        self.slots.get(peer.slot as usize)?.as_ref().filter(|e| e.generation == peer.generation)
    }

    /// Changes an entry through `change`, keeping fingerprint, sums and ring true.
    pub fn update<T>(&mut self, peer: Peer, change: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        let entry = self.slots.get_mut(peer.slot as usize)?.as_mut().filter(|e| e.generation == peer.generation)?;
        let (was, was_live, before) = (entry.run, entry.is_live(), summand(entry));
        let result = change(entry);
        let (is, is_live, after) = (entry.run, entry.is_live(), summand(entry));
        if (was, before) != (is, after) {
            self.count(was, before.wrapping_neg());
            self.count(is, after);
        }
        if was != is {
            self.unindex_run(was, peer.slot);
            self.index_run(is, peer.slot);
        }
        if (was, was_live) != (is, is_live) {
            self.unlist(peer.slot, was, was_live);
            self.list(peer.slot, is, is_live);
        }
        Some(result)
    }

    /// Touches what neither the fingerprint nor an index knows of: round trips, and when it was heard.
    pub fn note(&mut self, peer: Peer) -> Option<&mut Entry> {
        self.slots.get_mut(peer.slot as usize)?.as_mut().filter(|e| e.generation == peer.generation)
    }

    #[inline]
    pub fn find(&self, run: RunId) -> Option<Peer> {
        let slot = self.by_run.find(hash_run(self.key, run), |s| seated(&self.slots, s).run == run)?;
        Some(self.at(slot).0)
    }

    pub fn find_name(&self, name: &str) -> Option<Peer> {
        let slot = self.by_name.find(hash_name(self.key, name), |s| *seated(&self.slots, s).name == *name)?;
        Some(self.at(slot).0)
    }

    /// `None` where the table is full: a cluster larger than `max_members` is a configuration error, and
    /// a peer that invents members must not take our memory. Also where its name or run is listed already.
    pub fn insert(&mut self, entry: Entry) -> Option<Peer> {
        let (run, is_live) = (entry.run, entry.is_live());
        let peer = self.seat(entry)?;
        self.list(peer.slot, run, is_live);
        Some(peer)
    }

    /// `insert` for many, of whom at least `least` will come: they are sorted once, and memory is taken once. How many
    /// were taken in?
    pub fn insert_all(&mut self, least: usize, entries: impl Iterator<Item = Entry>) -> usize {
        let before = self.listed();
        let more = least.min(self.max.saturating_sub(before));
        self.slots.reserve_exact(more.saturating_sub(self.free.len()));
        self.ring.reserve_exact(more);
        let (slots, key) = (&self.slots, self.key);
        self.by_run.reserve(more, |s| hash_run(key, seated(slots, s).run));
        self.by_name.reserve(more, |s| hash_name(key, &seated(slots, s).name));
        for entry in entries {
            let (run, is_live) = (entry.run, entry.is_live());
            match self.seat(entry) {
                Some(peer) if is_live => self.ring.push(Place::new(run, peer.slot)),
                Some(peer) => self.gone.push(peer.slot),
                None => {}
            }
        }
        let slots = &self.slots;
        let key = |p: &Place| mix(seated(slots, p.slot()).run.get());
        self.ring.sort_unstable_by(|a, b| a.part().cmp(&b.part()).then_with(|| key(a).cmp(&key(b))));
        self.gone.sort_unstable();
        self.rank = self.place(self.me.slot, self.local().run);
        self.listed() - before
    }

    pub fn remove(&mut self, peer: Peer) -> Option<Entry> {
        self.get(peer)?;
        let entry = self.slots[peer.slot as usize].take()?;
        self.count(entry.run, summand(&entry).wrapping_neg());
        self.unlist(peer.slot, entry.run, entry.is_live());
        let (slots, key) = (&self.slots, self.key);
        self.by_name.remove(hash_name(key, &entry.name), peer.slot, |s| hash_name(key, &seated(slots, s).name));
        self.unindex_run(entry.run, peer.slot);
        self.free.push(Peer { generation: peer.generation.wrapping_add(1), ..peer });
        Some(entry)
    }

    /// All entries, in slot order.
    pub fn iter(&self) -> impl Iterator<Item = (Peer, &Entry)> {
        self.from_slot(0)
    }

    /// Entries from a slot on: the cursor of a table transfer.
    pub fn from_slot(&self, first: u32) -> impl Iterator<Item = (Peer, &Entry)> {
        self.slots.iter().enumerate().skip(first as usize).filter_map(|(slot, e)| {
            let e = e.as_ref()?;
            Some((Peer { slot: slot as u32, generation: e.generation }, e))
        })
    }

    /// In the order of the ring.
    pub fn live(&self) -> impl Iterator<Item = (Peer, &Entry)> {
        self.ring.iter().map(|p| self.at(p.slot()))
    }

    /// The dead and the left, in slot order.
    pub fn gone(&self) -> impl Iterator<Item = (Peer, &Entry)> {
        self.gone.iter().map(|&s| self.at(s))
    }

    /// Slots, taken or empty: all peers' are below it.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Entries, whatever their state.
    pub fn listed(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// A live member, or we, are reached there. Looks at every slot.
    pub fn is_at(&self, addr: SocketAddr) -> bool {
        let addr = Packed::from(addr);
        self.slots.iter().flatten().any(|e| e.addr == addr && e.is_live())
    }

    /// Live members, ourselves included.
    pub fn live_len(&self) -> usize {
        self.ring.len()
    }

    /// So many places after us on the ring.
    pub fn ahead(&self, steps: usize) -> Option<Place> {
        Some(self.ring[(self.rank + steps).checked_rem(self.ring.len())?])
    }

    /// Who stands there, for a place that was taken from the ring as it is now: the fingerprint tells.
    pub fn standing_at(&self, place: Place) -> Option<(Peer, &Entry)> {
        let entry = self.slots.get(place.slot() as usize)?.as_ref()?;
        Some((Peer { slot: place.slot(), generation: entry.generation }, entry))
    }

    /// Equal tables of live members have equal fingerprints: what is summed is (run, epoch, incarnation,
    /// state version). Suspicion does not count, because it passes; the dead do not, because each forgets them in its own time.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Up to `k` different live members but us and those `skip` names, by lot.
    pub fn draw(&self, rng: &mut Rng, k: usize, skip: impl Fn(&Entry) -> bool, mut each: impl FnMut(Peer, &Entry)) {
        let n = self.ring.len();
        let (mut taken, k) = (0, k.min(DRAW_MAX));
        let mut offer = |place: Place| {
            let (peer, entry) = self.at(place.slot());
            if taken < k && peer != self.me && !skip(entry) {
                taken += 1;
                each(peer, entry);
            }
            taken < k
        };
        // Few: all of them in random order. Many: by lot, drawing again what was drawn before.
        let mut drawn = [Place(u32::MAX); 4 * DRAW_MAX];
        if n <= drawn.len() {
            drawn[..n].copy_from_slice(&self.ring);
            for i in 0..n {
                drawn.swap(i, i + rng.index(n - i));
                if !offer(drawn[i]) {
                    return;
                }
            }
            return;
        }
        for i in 0..drawn.len() {
            let place = self.ring[rng.index(n)];
            if drawn[..i].contains(&place) {
                continue;
            }
            drawn[i] = place;
            if !offer(place) {
                return;
            }
        }
    }

    /// The dead or left member that has been so for the longest: it makes room in a full table.
    pub fn oldest_gone(&self) -> Option<Peer> {
        self.gone().filter(|&(peer, _)| peer != self.me).min_by_key(|(_, e)| e.since).map(|(p, _)| p)
    }

    pub fn is_full(&self) -> bool {
        self.listed() >= self.max
    }

    /// Sums over the live members whose run falls in each of `2^bits` buckets.
    pub fn sums(&self, bits: u32, sums: &mut [u32]) {
        for (sum, parts) in sums.iter_mut().zip(self.sums.chunks_exact(1 << (BUCKET_BITS_MAX - bits))) {
            *sum = parts.iter().fold(0, |sum, part| sum.wrapping_add(*part));
        }
    }

    /// The live members in one of `2^bits` buckets: a stretch of the ring.
    pub fn in_bucket(&self, bits: u32, which: u32) -> impl Iterator<Item = (Peer, &Entry)> {
        let bucket = move |place: &Place| place.part() >> (PART_BITS - bits);
        let first = self.ring.partition_point(|place| bucket(place) < which);
        self.ring[first..].iter().take_while(move |&place| bucket(place) == which).map(|place| self.at(place.slot()))
    }

    fn at(&self, slot: u32) -> (Peer, &Entry) {
        let entry = seated(&self.slots, slot);
        (Peer { slot, generation: entry.generation }, entry)
    }

    /// Gives an entry its slot and finds it by name and run from now on. Where it stands is the caller's to note.
    fn seat(&mut self, mut entry: Entry) -> Option<Peer> {
        let (slots, key) = (&self.slots, self.key);
        let (by_name, by_run) = (hash_name(key, &entry.name), hash_run(key, entry.run));
        let is_known = self.by_run.find(by_run, |s| seated(slots, s).run == entry.run).is_some()
            || self.by_name.find(by_name, |s| seated(slots, s).name == entry.name).is_some();
        if is_known || self.is_full() {
            return None;
        }
        let peer = self.free.pop().unwrap_or_else(|| {
            make_room(&mut self.slots);
            self.slots.push(None);
            Peer { slot: (self.slots.len() - 1) as u32, generation: 0 }
        });
        let slots = &self.slots;
        self.by_name.insert(by_name, peer.slot, |s| hash_name(key, &seated(slots, s).name));
        self.by_run.insert(by_run, peer.slot, |s| hash_run(key, seated(slots, s).run));
        entry.generation = peer.generation;
        self.count(entry.run, summand(&entry));
        self.slots[peer.slot as usize] = Some(entry);
        Some(peer)
    }

    /// Adds to what is summed over the live members.
    fn count(&mut self, run: RunId, summand: u64) {
        self.fingerprint = self.fingerprint.wrapping_add(summand);
        let sum = &mut self.sums[bucket(run, BUCKET_BITS_MAX) as usize];
        *sum = sum.wrapping_add(summand as u32);
    }

    fn list(&mut self, slot: u32, run: RunId, is_live: bool) {
        if !is_live {
            let at = self.gone.partition_point(|&s| s < slot);
            self.gone.insert(at, slot);
            return;
        }
        let at = self.place(slot, run);
        make_room(&mut self.ring);
        self.ring.insert(at, Place::new(run, slot));
        if slot == self.me.slot {
            self.rank = at;
        } else if at <= self.rank {
            self.rank += 1;
        }
    }

    fn unlist(&mut self, slot: u32, run: RunId, was_live: bool) {
        if !was_live {
            self.gone.retain(|&s| s != slot);
            return;
        }
        let at = self.place(slot, run);
        debug_assert_eq!(self.ring[at], Place::new(run, slot));
        self.ring.remove(at);
        if at < self.rank {
            self.rank -= 1;
        }
    }

    /// Where on the ring such a run is, or would be. What `slot` itself holds is not looked at: it may be another run by now.
    fn place(&self, slot: u32, run: RunId) -> usize {
        let key = |run: RunId| mix(run.get());
        self.ring.partition_point(|p| match p.part().cmp(&part(run)) {
            Ordering::Equal => p.slot() != slot && key(seated(&self.slots, p.slot()).run) < key(run),
            order => order.is_lt(),
        })
    }

    fn index_run(&mut self, run: RunId, slot: u32) {
        let (slots, key) = (&self.slots, self.key);
        self.by_run.insert(hash_run(key, run), slot, |s| hash_run(key, seated(slots, s).run));
    }

    fn unindex_run(&mut self, run: RunId, slot: u32) {
        let (slots, key) = (&self.slots, self.key);
        self.by_run.remove(hash_run(key, run), slot, |s| hash_run(key, seated(slots, s).run));
    }
}

/// The entry in a slot that an index names.
fn seated(slots: &[Option<Entry>], slot: u32) -> &Entry {
    slots[slot as usize].as_ref().expect("indexed slots are taken")
}

/// Room for one more: the table is most of a node's memory, and grows by an eighth, not by its double.
fn make_room<T>(table: &mut Vec<T>) {
    if table.len() == table.capacity() {
        table.reserve_exact((table.len() / 8).max(8));
    }
}

/// Most members that `draw` gives at once.
pub const DRAW_MAX: usize = 16;

/// Which of `2^bits` buckets of a digest a run falls in: each is a stretch of the ring.
fn bucket(run: RunId, bits: u32) -> u32 {
    part(run) >> (PART_BITS - bits)
}

const _: () = assert!(BUCKET_BITS_MAX <= PART_BITS);

fn summand(entry: &Entry) -> u64 {
    if !entry.is_live() {
        return 0;
    }
    let life = mix(entry.run.get() ^ entry.epoch.0);
    mix(mix(life ^ entry.incarnation.0) ^ entry.state.version().0)
}

fn hash_run(key: (u64, u64), run: RunId) -> u64 {
    mix(run.get() ^ key.0)
}

fn hash_name(key: (u64, u64), name: &str) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(key.0, key.1);
    hasher.write(name.as_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests;
