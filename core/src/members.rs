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

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::hash::Hasher;
use core::net::SocketAddr;

use hashbrown::HashTable;
use siphasher::sip::SipHasher13;

use crate::collection::state::State;
use crate::id::{Epoch, Incarnation, NodeName, Peer, RunId};
use crate::outbox::{Destination, Via};
use crate::rng::{Rng, mix};
use crate::time::{Duration, Instant};
use crate::view::{Member, MemberState};
use crate::wire::frame::Record;

#[derive(Debug)]
pub struct Entry {
    pub name: NodeName,
    pub run: RunId,
    pub epoch: Epoch,
    pub incarnation: Incarnation,
    pub addr: SocketAddr,
    pub status: MemberState,
    pub since: Instant,
    pub protocol: u32,
    pub app_version: u32,
    pub rtt: Rtt,
    /// What it tells about itself, as far as we have it.
    pub state: Box<State>,
    /// A pull for `state` is under way until then.
    pub pulling: Instant,
    /// The application's picture of this entry, until something changes.
    pub picture: Option<Arc<Member>>,
    generation: u32,
    live_at: u32,
}

impl Entry {
    pub fn is_live(&self) -> bool {
        self.status <= MemberState::Suspect
    }

    pub fn to(&self) -> Destination {
        Destination { addr: self.addr, run: Some(self.run), via: Via::Datagram }
    }
}

/// Smoothed round-trip time, RFC 6298 §2: mean and mean deviation, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rtt {
    mean: u32,
    deviation: u32,
}

impl Rtt {
    pub fn sample(&mut self, rtt: Duration) {
        let r = u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX).max(1);
        if self.mean == 0 {
            *self = Rtt { mean: r, deviation: r / 2 };
            return;
        }
        let (m, d, r) = (u64::from(self.mean), u64::from(self.deviation), u64::from(r));
        self.deviation = ((3 * d + m.abs_diff(r)) / 4) as u32;
        self.mean = ((7 * m + r) / 8).max(1) as u32;
    }

    pub fn mean(self) -> Duration {
        Duration::from_micros(self.mean.into())
    }

    /// RFC 6298: mean + 4 deviations. `None` before the first sample.
    pub fn timeout(self) -> Option<Duration> {
        (self.mean != 0).then(|| Duration::from_micros(u64::from(self.mean) + 4 * u64::from(self.deviation)))
    }
}

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

#[derive(Debug)]
pub struct Members {
    slots: Vec<Option<Entry>>,
    free: Vec<u32>,
    generations: Vec<u32>,
    by_run: HashTable<u32>,
    by_name: HashTable<u32>,
    /// Live slots in no order that means anything, for drawing peers by lot. Never in hash order.
    live: Vec<u32>,
    key: (u64, u64),
    max: usize,
    fingerprint: u64,
    me: Peer,
}

impl Members {
    /// A table that knows only us.
    pub fn new(me: Entry, key: (u64, u64), max: usize) -> Members {
        let mut members = Members {
            slots: Vec::new(),
            free: Vec::new(),
            generations: Vec::new(),
            by_run: HashTable::new(),
            by_name: HashTable::new(),
            live: Vec::new(),
            key,
            max,
            fingerprint: 0,
            me: Peer { slot: 0, generation: 0 },
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

    /// Changes an entry through `change`, keeping the fingerprint and the live list true.
    pub fn update<T>(&mut self, peer: Peer, change: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        let entry = self.slots.get_mut(peer.slot as usize)?.as_mut().filter(|e| e.generation == peer.generation)?;
        let before = summand(entry);
        let (was_live, run) = (entry.is_live(), entry.run);
        let result = change(entry);
        self.fingerprint = self.fingerprint.wrapping_sub(before).wrapping_add(summand(entry));
        let (is_live, now_run) = (entry.is_live(), entry.run);
        if run != now_run {
            self.unindex_run(run, peer.slot);
            self.index_run(now_run, peer.slot);
        }
        match (was_live, is_live) {
            (true, false) => self.unlist(peer.slot),
            (false, true) => self.list(peer.slot),
            _ => {}
        }
        Some(result)
    }

    /// Touches what is no part of the fingerprint: round trips, pictures, pull marks.
    pub fn note(&mut self, peer: Peer) -> Option<&mut Entry> {
        self.slots.get_mut(peer.slot as usize)?.as_mut().filter(|e| e.generation == peer.generation)
    }

    #[inline]
    pub fn find(&self, run: RunId) -> Option<Peer> {
        let slots = &self.slots;
        let slot =
            *self.by_run.find(self.hash_run(run), |&s| slots[s as usize].as_ref().is_some_and(|e| e.run == run))?;
        Some(Peer { slot, generation: self.generations[slot as usize] })
    }

    pub fn find_name(&self, name: &str) -> Option<Peer> {
        let slots = &self.slots;
        let same = |&s: &u32| slots[s as usize].as_ref().is_some_and(|e| *e.name == *name);
        let slot = *self.by_name.find(self.hash_name(name), same)?;
        Some(Peer { slot, generation: self.generations[slot as usize] })
    }

    /// `None` where the table is full: a cluster larger than `max_members` is a configuration error, and
    /// a peer that invents members must not take our memory.
    pub fn insert(&mut self, mut entry: Entry) -> Option<Peer> {
        debug_assert!(self.find_name(&entry.name).is_none() && self.find(entry.run).is_none());
        if self.listed() >= self.max {
            return None;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.generations.push(0);
            (self.slots.len() - 1) as u32
        });
        let generation = self.generations[slot as usize];
        entry.generation = generation;
        self.fingerprint = self.fingerprint.wrapping_add(summand(&entry));
        let (run, live, hash) = (entry.run, entry.is_live(), self.hash_name(&entry.name));
        self.slots[slot as usize] = Some(entry);
        let (slots, key) = (&self.slots, self.key);
        self.by_name.insert_unique(hash, slot, |&s| hash_name(key, &slots[s as usize].as_ref().expect("indexed").name));
        self.index_run(run, slot);
        if live {
            self.list(slot);
        }
        Some(Peer { slot, generation })
    }

    pub fn remove(&mut self, peer: Peer) -> Option<Entry> {
        self.get(peer)?;
        let entry = self.slots[peer.slot as usize].take()?;
        self.fingerprint = self.fingerprint.wrapping_sub(summand(&entry));
        if entry.is_live() {
            let at = entry.live_at as usize;
            self.live.swap_remove(at);
            self.relist(at);
        }
        let hash = self.hash_name(&entry.name);
        if let Ok(found) = self.by_name.find_entry(hash, |&s| s == peer.slot) {
            found.remove();
        }
        self.unindex_run(entry.run, peer.slot);
        self.generations[peer.slot as usize] = peer.generation.wrapping_add(1);
        self.free.push(peer.slot);
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

    pub fn live(&self) -> impl Iterator<Item = (Peer, &Entry)> {
        self.live.iter().map(|&s| self.at(s))
    }

    /// Entries, whatever their state.
    pub fn listed(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Live members, ourselves included.
    pub fn live_len(&self) -> usize {
        self.live.len()
    }

    /// Equal tables of live members have equal fingerprints: what is summed is (run, incarnation, state
    /// version). Suspicion does not count, because it passes; the dead do not, because each forgets them in its own time.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Up to `k` different live members but us and those `skip` names, by lot.
    pub fn draw(&self, rng: &mut Rng, k: usize, skip: impl Fn(&Entry) -> bool, mut each: impl FnMut(Peer, &Entry)) {
        let n = self.live.len();
        let (mut taken, mut drawn) = (0, [u32::MAX; DRAW_MAX]);
        let k = k.min(DRAW_MAX);
        // Drawing with rejection: cheap while k is far below n, and bounded where it is not.
        for _ in 0..3 * n.min(4 * DRAW_MAX) {
            if taken == k {
                return;
            }
            let slot = self.live[rng.index(n)];
            let (peer, entry) = self.at(slot);
            if peer == self.me || drawn[..taken].contains(&slot) || skip(entry) {
                continue;
            }
            drawn[taken] = slot;
            taken += 1;
            each(peer, entry);
        }
    }

    /// Sums over the live members whose run falls in each of `2^bits` buckets.
    pub fn sums(&self, bits: u32, sums: &mut [u32]) {
        sums.fill(0);
        for (_, entry) in self.live() {
            let sum = &mut sums[bucket(entry.run, bits) as usize];
            *sum = sum.wrapping_add(summand(entry) as u32);
        }
    }

    fn at(&self, slot: u32) -> (Peer, &Entry) {
        let entry = self.slots[slot as usize].as_ref().expect("listed slots are taken");
        (Peer { slot, generation: entry.generation }, entry)
    }

    fn list(&mut self, slot: u32) {
        self.live.push(slot);
        self.relist(self.live.len() - 1);
    }

    fn unlist(&mut self, slot: u32) {
        let at = self.slots[slot as usize].as_ref().expect("listed").live_at as usize;
        self.live.swap_remove(at);
        self.relist(at);
    }

    fn relist(&mut self, at: usize) {
        if let Some(&slot) = self.live.get(at) {
            self.slots[slot as usize].as_mut().expect("listed").live_at = at as u32;
        }
    }

    fn index_run(&mut self, run: RunId, slot: u32) {
        let (slots, key) = (&self.slots, self.key);
        let hash = self.hash_run(run);
        self.by_run.insert_unique(hash, slot, |&s| hash_run(key, slots[s as usize].as_ref().expect("indexed").run));
    }

    fn unindex_run(&mut self, run: RunId, slot: u32) {
        let hash = self.hash_run(run);
        if let Ok(found) = self.by_run.find_entry(hash, |&s| s == slot) {
            found.remove();
        }
    }

    fn hash_run(&self, run: RunId) -> u64 {
        hash_run(self.key, run)
    }

    fn hash_name(&self, name: &str) -> u64 {
        hash_name(self.key, name)
    }
}

/// Most members that `draw` gives at once.
pub const DRAW_MAX: usize = 16;

/// Which bucket of a digest a run falls in: the same on every node.
pub fn bucket(run: RunId, bits: u32) -> u32 {
    if bits == 0 { 0 } else { (mix(run.get()) >> (64 - bits)) as u32 }
}

fn summand(entry: &Entry) -> u64 {
    if !entry.is_live() {
        return 0;
    }
    mix(mix(entry.run.get() ^ entry.incarnation.0.rotate_left(32)) ^ entry.state.version().0)
}

fn hash_run(key: (u64, u64), run: RunId) -> u64 {
    mix(run.get() ^ key.0)
}

fn hash_name(key: (u64, u64), name: &str) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(key.0, key.1);
    hasher.write(name.as_bytes());
    hasher.finish()
}

/// An entry for a member that we have just heard of.
pub fn entry(record: &Record<'_>, name: NodeName, status: MemberState, since: Instant) -> Entry {
    Entry {
        name,
        run: record.run,
        epoch: record.epoch,
        incarnation: record.incarnation,
        addr: record.addr,
        status,
        since,
        protocol: record.protocol,
        app_version: record.app_version,
        rtt: Rtt::default(),
        state: Box::default(),
        pulling: Instant::ZERO,
        picture: None,
        generation: 0,
        live_at: 0,
    }
}
