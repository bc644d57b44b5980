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

mod index;

use alloc::vec::Vec;
use core::cmp::Ordering;
use core::fmt;
use core::hash::Hasher;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use index::{Index, SLOT_BITS};
use siphasher::sip::SipHasher13;

use crate::collection::state::SparseState;
use crate::id::{Epoch, Incarnation, NodeName, Peer, RunId};
use crate::outbox::{Destination, Via};
use crate::rng::{Rng, mix};
use crate::time::{Duration, Instant};
use crate::view::MemberState;
use crate::wire::frame::{BUCKET_BITS_MAX, Record};

/// One member. The table is most of a node's memory, and a simulated cluster of 10,000 has 10^8 of these: what is not
/// needed of every member at every time is elsewhere (pictures, pulls under way).
#[derive(Debug)]
pub struct Entry {
    pub name: NodeName,
    pub run: RunId,
    pub epoch: Epoch,
    pub incarnation: Incarnation,
    pub since: Instant,
    /// What it tells about itself, as far as we have it.
    pub state: SparseState,
    pub rtt: Rtt,
    /// The second in which we last knew it alive, at first hand or by somebody who was in touch.
    heard: u32,
    pub app_version: u32,
    /// The protocol that it speaks; `u16::MAX` stands for whatever is above it, too.
    pub protocol: u16,
    generation: u16,
    pub status: MemberState,
    addr: Packed,
}

// 16 bytes of it are the name; where addresses have 64 bits and their high ones first, it takes 24.
const _: () = assert!(size_of::<Entry>() <= 80 + size_of::<NodeName>() && size_of::<NodeName>() <= 24);
const _: () = assert!(size_of::<Option<Entry>>() == size_of::<Entry>(), "an empty slot is told by a run of zero");

impl Entry {
    pub fn is_live(&self) -> bool {
        self.status <= MemberState::Suspect
    }

    pub fn to(&self) -> Destination {
        Destination { addr: self.addr(), run: Some(self.run), via: Via::Datagram }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr.unpack()
    }

    /// It is reached at `addr`; a scope or flow label there does not count.
    pub fn is_at(&self, addr: SocketAddr) -> bool {
        self.addr == Packed::from(addr)
    }

    pub fn move_to(&mut self, addr: SocketAddr) {
        self.addr = addr.into();
    }

    /// It is alive.
    pub fn hear(&mut self, now: Instant) {
        self.heard = second(now);
    }

    /// We have not heard of it since `at`. Whole seconds are compared: who was heard in the very second of `at` may
    /// be thought younger by a second than it is, but nobody is thought older.
    pub fn is_unheard_since(&self, at: Instant) -> bool {
        self.heard < second(at)
    }

    /// Another life of the same name begins: all that is known of it is in the record, but for its metadata.
    pub fn begin(&mut self, record: &Record<'_>, now: Instant) {
        let name = self.name.clone();
        *self = Entry { generation: self.generation, ..entry(record, name, MemberState::Alive, now) };
    }
}

/// An address as the wire has it: without scope and flow label, in 19 bytes and not 32.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Packed {
    ip: [u8; 16],
    port: [u8; 2],
    is_v4: bool,
}

impl From<SocketAddr> for Packed {
    fn from(addr: SocketAddr) -> Packed {
        let (ip, is_v4) = match addr.ip() {
            // As a mapped one, but told from it.
            IpAddr::V4(ip) => (ip.to_ipv6_mapped(), true),
            IpAddr::V6(ip) => (ip, false),
        };
        Packed { ip: ip.octets(), port: addr.port().to_ne_bytes(), is_v4 }
    }
}

impl Packed {
    fn unpack(self) -> SocketAddr {
        let ip = match self.ip {
            [.., a, b, c, d] if self.is_v4 => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
            ip => IpAddr::V6(Ipv6Addr::from(ip)),
        };
        SocketAddr::new(ip, u16::from_ne_bytes(self.port))
    }
}

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.unpack().fmt(f)
    }
}

/// The second of an instant: 136 years of them.
fn second(at: Instant) -> u32 {
    u32::try_from(at.as_nanos() / 1_000_000_000).unwrap_or(u32::MAX)
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

/// An entry for a member that we have just heard of.
pub fn entry(record: &Record<'_>, name: NodeName, status: MemberState, since: Instant) -> Entry {
    Entry {
        name,
        run: record.run,
        epoch: record.epoch,
        incarnation: record.incarnation,
        since,
        state: SparseState::default(),
        rtt: Rtt::default(),
        heard: second(since),
        app_version: record.app_version,
        protocol: u16::try_from(record.protocol).unwrap_or(u16::MAX),
        generation: 0,
        status,
        addr: record.addr.into(),
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

    fn record_of(name: &str, id: u64) -> Record<'_> {
        Record {
            name,
            run: run(id),
            epoch: Epoch(1),
            incarnation: Incarnation(0),
            addr: "10.0.0.1:1".parse().unwrap(),
            protocol: 1,
            app_version: 0,
            version: Version(0),
            age: 0,
            state: Entries(&[]),
        }
    }

    fn newcomer(id: u64) -> Entry {
        let name = format!("n{id}");
        entry(&record_of(&name, id), NodeName::new(&name).unwrap(), Alive, Instant::ZERO)
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

    /// Addresses of both families, the mapped one among them, and the largest numbers.
    #[test]
    fn an_entry_keeps_of_an_address_what_the_wire_keeps() {
        let mut members = table(10);
        let me = members.me();
        for addr in ["10.0.0.1:1", "[::ffff:10.0.0.1]:1", "[::]:65535", "255.255.255.255:65535", "[fe80::1%3]:7"] {
            let addr: SocketAddr = addr.parse().unwrap();
            members.note(me).unwrap().move_to(addr);
            let kept = members.local().addr();
            assert_eq!(kept, SocketAddr::new(addr.ip(), addr.port()), "without the scope");
            assert!(members.local().is_at(addr) && members.local().is_at(kept) && members.is_at(addr));
            assert!(!members.is_at("10.0.0.9:1".parse().unwrap()));
        }
        assert_ne!(
            Packed::from("10.0.0.1:1".parse::<SocketAddr>().unwrap()),
            Packed::from("[::ffff:10.0.0.1]:1".parse::<SocketAddr>().unwrap())
        );
    }

    #[test]
    fn a_protocol_of_the_far_future_is_not_taken_for_an_old_one() {
        for (told, kept) in [(1, 1), (65_535, 65_535), (65_537, 65_535), (u32::MAX, 65_535)] {
            let record = Record { protocol: told, ..record_of("n", 1) };
            assert_eq!(entry(&record, NodeName::new("n").unwrap(), Alive, Instant::ZERO).protocol, kept);
        }
    }

    #[test]
    fn nobody_is_thought_to_be_unheard_for_longer_than_it_is() {
        let at = |ms: u64| Instant::from_nanos(ms * 1_000_000);
        let mut entry = newcomer(2);
        for (heard, asked, unheard) in
            [(5_999, 6_000, true), (5_000, 5_999, false), (5_999, 5_000, false), (0, 0, false)]
        {
            entry.hear(at(heard));
            assert_eq!(entry.is_unheard_since(at(asked)), unheard, "heard at {heard} ms, asked for {asked}");
        }
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
        let places: Vec<u64> = members.live().map(|(_, e)| mix(e.run.get())).collect();
        assert!(places.is_sorted(), "the ring is in order");
        let gone: Vec<u32> = members.gone().map(|(peer, _)| peer.slot).collect();
        assert!(gone.is_sorted() && members.gone().all(|(_, e)| !e.is_live()));
        assert_eq!(gone.len() + places.len(), members.listed());
        if members.local().is_live() {
            let here = members.ahead(0).and_then(|place| members.standing_at(place)).map(|(peer, _)| peer);
            assert_eq!(here, Some(members.me()), "we know our place");
        }

        let recount = members.iter().fold(0u64, |sum, (_, e)| sum.wrapping_add(summand(e)));
        assert_eq!(members.fingerprint(), recount);
        for bits in [0, 3, 7] {
            let mut sums = vec![0; 1 << bits];
            members.sums(bits, &mut sums);
            let all = sums.iter().fold(0u32, |all, &sum| all.wrapping_add(sum));
            assert_eq!(all, recount as u32, "the buckets add up");
            for (which, &sum) in sums.iter().enumerate() {
                let mut listed = 0;
                let in_bucket = members.in_bucket(bits, which as u32).inspect(|_| listed += 1);
                assert_eq!(in_bucket.fold(0u32, |all, (_, e)| all.wrapping_add(summand(e) as u32)), sum);
                let belongs = |e: &Entry| e.is_live() && bucket(e.run, bits) == which as u32;
                assert_eq!(listed, members.iter().filter(|(_, e)| belongs(e)).count());
            }
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
    fn many_at_once_are_the_same_as_one_by_one() {
        let mut rng = Rng::new(5);
        let (mut at_once, mut one_by_one) = (table(400), table(400));
        let gone = |id: u64| Entry { status: if id.is_multiple_of(7) { Dead } else { Alive }, ..newcomer(id) };
        for members in [&mut at_once, &mut one_by_one] {
            (2..20).for_each(|id| assert!(members.insert(gone(id)).is_some()));
            (5..9).for_each(|id| assert!(members.remove(members.find(run(id)).unwrap()).is_some()));
        }
        // Ourselves and some that are known are among them, and more than there is room for.
        let mut ids: Vec<u64> = (1..600).collect();
        rng.shuffle(&mut ids);
        assert_eq!(at_once.insert_all(1_000, ids.iter().map(|&id| gone(id))), 400 - 15);
        assert_eq!(ids.iter().filter(|&&id| one_by_one.insert(gone(id)).is_some()).count(), 400 - 15);
        assert_eq!(at_once.fingerprint(), one_by_one.fingerprint());
        let model = |members: &Members| members.iter().map(|(peer, e)| (e.run.get(), peer)).collect::<BTreeMap<_, _>>();
        assert_eq!(model(&at_once), model(&one_by_one));
        check(&at_once, &model(&at_once));
        assert!(at_once.ring == one_by_one.ring && at_once.rank == one_by_one.rank && at_once.gone == one_by_one.gone);
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
