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

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::hash::Hasher;
use core::net::SocketAddr;

use hashbrown::HashTable;
use siphasher::sip::SipHasher13;

use crate::collection::state::SparseState;
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
    /// When we last knew it alive at first hand, or by somebody who was in touch.
    pub heard: Instant,
    pub protocol: u32,
    pub app_version: u32,
    pub rtt: Rtt,
    /// What it tells about itself, as far as we have it.
    pub state: SparseState,
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
            // The table is most of a node's memory: it grows by an eighth, not by its double.
            if self.slots.len() == self.slots.capacity() {
                self.slots.reserve_exact((self.slots.len() / 8).max(8));
            }
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

    /// Equal tables of live members have equal fingerprints: what is summed is (run, epoch, incarnation,
    /// state version). Suspicion does not count, because it passes; the dead do not, because each forgets them in its own time.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Up to `k` different live members but us and those `skip` names, by lot.
    pub fn draw(&self, rng: &mut Rng, k: usize, skip: impl Fn(&Entry) -> bool, mut each: impl FnMut(Peer, &Entry)) {
        let n = self.live.len();
        let (mut taken, k) = (0, k.min(DRAW_MAX));
        let mut offer = |slot: u32| {
            let (peer, entry) = self.at(slot);
            if taken < k && peer != self.me && !skip(entry) {
                taken += 1;
                each(peer, entry);
            }
            taken < k
        };
        // Few: all of them in random order. Many: by lot, drawing again what was drawn before.
        let mut slots = [u32::MAX; 4 * DRAW_MAX];
        if n <= slots.len() {
            slots[..n].copy_from_slice(&self.live);
            for i in 0..n {
                slots.swap(i, i + rng.index(n - i));
                if !offer(slots[i]) {
                    return;
                }
            }
            return;
        }
        for i in 0..slots.len() {
            let slot = self.live[rng.index(n)];
            if slots[..i].contains(&slot) {
                continue;
            }
            slots[i] = slot;
            if !offer(slot) {
                return;
            }
        }
    }

    /// The dead or left member that has been so for the longest: it makes room in a full table.
    pub fn oldest_gone(&self) -> Option<Peer> {
        self.iter()
            .filter(|(_, e)| !e.is_live() && e.run != self.local().run)
            .min_by_key(|(_, e)| e.since)
            .map(|(p, _)| p)
    }

    pub fn is_full(&self) -> bool {
        self.listed() >= self.max
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
        heard: since,
        protocol: record.protocol,
        app_version: record.app_version,
        rtt: Rtt::default(),
        state: SparseState::default(),
        pulling: Instant::ZERO,
        picture: None,
        generation: 0,
        live_at: 0,
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;
    use alloc::format;
    use alloc::vec;

    use super::*;
    use crate::id::Version;
    use crate::wire::frame::Entries;
    use MemberState::{Alive, Dead, Left, Suspect};

    fn run(id: u64) -> RunId {
        RunId::new(id).unwrap()
    }

    fn newcomer(id: u64) -> Entry {
        let name = format!("n{id}");
        let record = Record {
            name: &name,
            run: run(id),
            epoch: Epoch(1),
            incarnation: Incarnation(0),
            addr: "10.0.0.1:1".parse().unwrap(),
            protocol: 1,
            app_version: 0,
            version: Version(0),
            age: 0,
            state: Entries(&[]),
        };
        entry(&record, NodeName::new(&name).unwrap(), Alive, Instant::ZERO)
    }

    fn table(max: usize) -> Members {
        Members::new(newcomer(1), (1, 2), max)
    }

    /// SWIM §4.2, row by row as the page above draws it: what is told at a lower, the same and a higher incarnation.
    #[test]
    fn the_ruling_is_the_table_on_the_page() {
        use Ruling::{Known, News, Stale};
        let rows = [
            (Alive, Alive, [Stale, Known, News]),
            (Alive, Suspect, [Stale, News, News]),
            (Alive, Dead, [Stale, News, News]),
            (Alive, Left, [News, News, News]),
            (Suspect, Alive, [Stale, Stale, News]),
            (Suspect, Suspect, [Stale, Known, News]),
            (Suspect, Dead, [Stale, News, News]),
            (Suspect, Left, [News, News, News]),
            (Dead, Alive, [Stale, Stale, News]),
            (Dead, Suspect, [Stale, Stale, Stale]),
            (Dead, Dead, [Stale, Known, News]),
            (Dead, Left, [News, News, News]),
            (Left, Alive, [Stale, Stale, Stale]),
            (Left, Suspect, [Stale, Stale, Stale]),
            (Left, Dead, [Stale, Stale, Stale]),
            (Left, Left, [Known, Known, Known]),
        ];
        for (known, told, rulings) in rows {
            for (told_at, expected) in [4, 5, 6].into_iter().zip(rulings) {
                let ruled = ruling((known, Incarnation(5)), (told, Incarnation(told_at)));
                assert_eq!(ruled, expected, "{known:?} 5, told {told:?} {told_at}");
            }
        }
    }

    /// A suspicion of somebody who was declared dead in an earlier incarnation is heard by some and not by others;
    /// when it has ended, in whichever way, they agree again. Nothing else depends on the order.
    #[test]
    fn in_whatever_order_news_comes_all_agree_once_suspicions_have_ended() {
        let news: Vec<_> =
            [Alive, Suspect, Dead].into_iter().flat_map(|s| (0..3).map(move |i| (s, Incarnation(i)))).collect();
        let hear = |known, told| if ruling(known, told) == Ruling::News { told } else { known };
        let mut rng = Rng::new(1);
        for _ in 0..2_000 {
            let mut heard: Vec<_> = (0..6).map(|_| news[rng.index(news.len())]).collect();
            let one = heard.iter().fold((Alive, Incarnation(0)), |known, &told| hear(known, told));
            rng.shuffle(&mut heard);
            let other = heard.iter().fold((Alive, Incarnation(0)), |known, &told| hear(known, told));

            assert!(one == other || one.0 == Suspect || other.0 == Suspect, "{heard:?}: {one:?} {other:?}");
            let last = one.1.max(other.1);
            for end in [(Alive, Incarnation(last.0 + 1)), (Dead, last)] {
                assert_eq!(hear(one, end), hear(other, end), "{heard:?}");
            }
        }
    }

    #[test]
    fn a_slot_that_was_given_away_is_not_found_by_its_old_tenants_peer() {
        let mut members = table(10);
        let old = members.insert(newcomer(2)).unwrap();
        members.remove(old).unwrap();
        let new = members.insert(newcomer(3)).unwrap();

        assert_eq!(old.slot, new.slot);
        assert!(members.get(old).is_none() && members.note(old).is_none() && members.remove(old).is_none());
        assert_eq!(members.update(old, |_| ()), None);
        assert_eq!(members.get(new).unwrap().run, run(3));
    }

    #[test]
    fn a_full_table_takes_nobody_in_until_somebody_goes() {
        let mut members = table(3);
        let peer = members.insert(newcomer(2)).unwrap();
        members.insert(newcomer(3)).unwrap();
        assert_eq!(members.insert(newcomer(4)), None);
        assert_eq!(members.listed(), 3);

        members.remove(peer);
        assert!(members.insert(newcomer(4)).is_some());
    }

    /// All that the table keeps beside its entries equals a recount.
    fn check(members: &Members, model: &BTreeMap<u64, Peer>) {
        assert_eq!(members.listed(), model.len());
        let live: Vec<u64> = members.iter().filter(|(_, e)| e.is_live()).map(|(_, e)| e.run.get()).collect();
        let mut listed: Vec<u64> = members.live().map(|(_, e)| e.run.get()).collect();
        assert_eq!((listed.len(), members.live_len()), (live.len(), live.len()));
        listed.sort_unstable();
        let mut sorted = live;
        sorted.sort_unstable();
        assert_eq!(listed, sorted);

        let recount = members.iter().fold(0u64, |sum, (_, e)| sum.wrapping_add(summand(e)));
        assert_eq!(members.fingerprint(), recount);
        for bits in [0, 3, 7] {
            let mut sums = vec![0; 1 << bits];
            members.sums(bits, &mut sums);
            let all = sums.iter().fold(0u32, |all, &sum| all.wrapping_add(sum));
            assert_eq!(all, recount as u32, "the buckets add up");
        }
        for (&id, &peer) in model {
            assert_eq!(members.get(peer).map(|e| e.run), Some(run(id)));
            assert_eq!(members.find(run(id)), Some(peer));
            assert_eq!(members.find_name(&members.get(peer).unwrap().name), Some(peer));
        }
    }

    #[test]
    fn after_ten_thousand_random_changes_every_index_equals_a_recount() {
        let (mut members, mut rng) = (table(50), Rng::new(7));
        let mut model = BTreeMap::from([(1, members.me())]);
        for turn in 0..10_000u64 {
            let (id, state) = (2 + rng.below(80), [Alive, Suspect, Dead, Left][rng.index(4)]);
            match (rng.index(8), model.get(&id).copied()) {
                (0..=2, None) => {
                    let known = members.find_name(&format!("n{id}")).is_some();
                    if let Some(peer) = (!known).then(|| members.insert(newcomer(id))).flatten() {
                        model.insert(id, peer);
                    }
                }
                (3, Some(peer)) => {
                    assert_eq!(members.remove(peer).unwrap().run, run(id));
                    model.remove(&id);
                    assert_eq!((members.find(run(id)), members.get(peer).is_none()), (None, true));
                }
                // The same name in another run.
                (4, Some(peer)) => {
                    let next = 1_000 + turn;
                    members.update(peer, |e| e.run = run(next));
                    model.remove(&id);
                    model.insert(next, peer);
                    assert_eq!(members.find(run(id)), None);
                }
                (_, Some(peer)) => {
                    members.update(peer, |e| {
                        e.status = state;
                        e.incarnation.0 += 1;
                        e.state.set(&[("turn", Some(&[turn as u8 / 2]))], 100).unwrap();
                    });
                }
                (_, None) => assert_eq!(members.find(run(id)), None),
            }
            if turn % 8 == 0 || turn > 9_900 {
                check(&members, &model);
            }
        }
        assert!(model.len() > 10);
    }

    #[test]
    fn equal_tables_have_equal_fingerprints_in_whatever_order_they_were_filled() {
        let (mut a, mut b) = (table(100), Members::new(newcomer(1), (3, 4), 100));
        (2..50).for_each(|id| assert!(a.insert(newcomer(id)).is_some()));
        (2..50).rev().for_each(|id| assert!(b.insert(newcomer(id)).is_some()));
        assert_eq!(a.fingerprint(), b.fingerprint());

        let (in_a, in_b) = (a.find(run(9)).unwrap(), b.find(run(9)).unwrap());
        a.update(in_a, |e| e.status = Suspect);
        assert_eq!(a.fingerprint(), b.fingerprint(), "suspicion passes, and does not count");
        a.update(in_a, |e| e.status = Dead);
        b.remove(in_b);
        assert_eq!(a.fingerprint(), b.fingerprint(), "the dead are forgotten in each one's own time");
    }

    #[test]
    fn a_draw_gives_different_live_members_and_never_us() {
        let (mut members, mut rng) = (table(100), Rng::new(3));
        let peers: Vec<Peer> = (2..40).map(|id| members.insert(newcomer(id)).unwrap()).collect();
        members.update(peers[0], |e| e.status = Dead);
        let mut counts = BTreeMap::new();
        for _ in 0..4_000 {
            let mut drawn = Vec::new();
            members.draw(&mut rng, 3, |e| e.run == run(5), |_, e| drawn.push(e.run.get()));
            drawn.sort_unstable();
            drawn.dedup();
            assert_eq!(drawn.len(), 3);
            drawn.iter().for_each(|id| *counts.entry(*id).or_insert(0) += 1);
        }
        assert!([1, 2, 5].iter().all(|id| !counts.contains_key(id)), "us, the dead and the skipped");
        assert_eq!(counts.len(), 36);
        assert!(counts.values().all(|n| (230..440).contains(n)), "each about 333 times: {counts:?}");
    }

    #[test]
    fn round_trips_are_smoothed_as_in_rfc_6298() {
        let mut rtt = Rtt::default();
        assert_eq!(rtt.timeout(), None);
        rtt.sample(Duration::from_millis(8));
        assert_eq!((rtt.mean(), rtt.timeout()), (Duration::from_millis(8), Some(Duration::from_millis(24))));
        rtt.sample(Duration::from_millis(16));
        // 7/8 · 8 + 1/8 · 16 = 9; 3/4 · 4 + 1/4 · 8 = 5.
        assert_eq!((rtt.mean(), rtt.timeout()), (Duration::from_millis(9), Some(Duration::from_millis(29))));
    }
}
