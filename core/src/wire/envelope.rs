//! The envelope: what makes bytes from a socket a packet of this cluster, meant for this run, not seen before.
//!
//! ```text
//! offset  size  field      content (integers are little-endian)
//!      0     1  version    1; anything else is refused unread
//!      1     1  flags      bit 0 TO_STRANGER, bit 1 PLAIN, bit 2 RECORD; any other bit set: refused
//!      2     2  key id     HKDF-Expand(prk, "key id", 2); 0 with PLAIN
//!      4     8  session    the sender's run id, never 0
//!     12     6  counter    from 1, one up for each packet of the sender's lane (datagrams; stream records)
//!     18     n  frames     ChaCha20 ciphertext; in clear with PLAIN
//!   18+n    16  tag        Poly1305; with PLAIN the CRC-32 in 4 bytes, then 12 zero bytes
//!
//! prk              HKDF-Extract(salt = "bruit" ‖ label, ikm = key)                          RFC 5869 §2.2
//! session key      HKDF-Expand(prk, info = session (8 bytes), 32)                           RFC 5869 §2.3
//! nonce            lane (0 datagram, 1 record) ‖ 3 zero bytes ‖ counter (8 bytes)           RFC 8439 §2.3
//! associated data  header (18 bytes) ‖ run id of the receiver (8 bytes; 0 with TO_STRANGER) RFC 8439 §2.8
//! CRC-32           over label ‖ run id of the receiver ‖ header ‖ frames (IEEE 802.3, as in zlib)
//! ```
//!
//! Why so:
//!
//! - **A key for each run.** Nonces of one ChaCha20 key must never repeat (RFC 8439 §4), and members that share a key
//!   cannot agree on a counter. A run id is random, so a key derived from it has one user, who can simply count. A
//!   restart is another run: it starts over at 1 under another key, and needs nothing on disk.
//! - **The receiver's run id is authenticated, and not sent.** A recorded packet fails its tag at every other node and
//!   at the same node after a restart; the window below sees to the rest. The label goes into the salt, where it costs
//!   no byte, and changes the key id as well: packets of a foreign cluster are mostly refused before any derivation.
//! - **TO_STRANGER.** Who does not know the receiver's run id yet has nobody to address. Such a packet can be replayed
//!   at will, hence it may only carry HELLO, COOKIE and REFUSED (the engine's rule), and opens no session here.
//! - **Two lanes.** Streams wait for connects and retransmissions while datagrams pass them; with one counter a busy
//!   sender's records would fall out of the window. Each lane counts for itself and has its own window.
//! - **An exact window** as in RFC 4303 §3.4.3 (256 datagrams, 128 records), so that nothing is acted on twice and
//!   reordering costs nothing. RFC 6479's ring is faster for windows of thousands; four words shift as fast.
//! - **PLAIN** keeps the length and the code path, because without a key nobody counts bytes: a checksum against
//!   accidents, the label and run id against misdirection, the window against duplicates. Nothing against an attacker.
//!
//! A stranger costs: a header's look (nothing else while keys are configured and the key id is foreign), one key
//! derivation out of a bucket of `derive_rate` a second, one Poly1305. Memory it costs nothing before its tag is valid.

use alloc::vec::Vec;
use core::hash::Hasher;
use core::net::{IpAddr, SocketAddr};
use core::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashTable;
use ring::aead::{self, LessSafeKey, UnboundKey};
use ring::{hkdf, hmac};
use siphasher::sip::SipHasher13;

use crate::id::RunId;
use crate::time::{Duration, Instant, Now, nanos};

/// The layout's version, of the envelope alone. Frames inside bring their own.
pub const VERSION: u8 = 1;
/// Bytes before the frames.
pub const HEADER: usize = 18;
/// Bytes after the frames.
pub const TAG: usize = 16;
/// What an envelope adds to its frames.
pub const OVERHEAD: usize = HEADER + TAG;
/// Largest sealed envelope; only a stream carries one so large.
pub const ENVELOPE_MAX: usize = 1 << 20;

const _: () = assert!(OVERHEAD <= 48, "the design allows an envelope 48 bytes");

const TO_STRANGER: u8 = 1 << 0;
const PLAIN: u8 = 1 << 1;
const RECORD: u8 = 1 << 2;
const FLAGS: u8 = TO_STRANGER | PLAIN | RECORD;

/// The counter has 48 bits on the wire: 8.9 years at a million packets a second.
const COUNTER_END: u64 = 1 << 48;

/// What strangers may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sessions of runs that are not members; when full, the least recently used one goes. At least 1.
    pub max_sessions: usize,
    /// Session keys derived a second for runs without a session; what comes above is refused.
    pub derive_rate: usize,
}

/// A packet that is of this cluster, for this run, and new.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened<'a> {
    /// The sender; with keys, as certain as the key is secret.
    pub from: RunId,
    /// Addressed to nobody in particular, and perhaps a replay: only HELLO, COOKIE and REFUSED may be believed.
    pub stranger: bool,
    pub frames: &'a [u8],
}

macro_rules! rejects {
    ($($variant:ident, $name:literal, $doc:literal;)*) => {
        /// Why a packet was refused. The peer's fault or the network's: counted by reason, never answered.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reject { $(#[doc = $doc] $variant,)* }

        impl Reject {
            /// In the order of `self as usize`.
            pub const ALL: &'static [Reject] = &[$(Reject::$variant),*];

            pub const fn name(self) -> &'static str {
                match self { $(Reject::$variant => $name,)* }
            }

            pub const fn describe(self) -> &'static str {
                match self { $(Reject::$variant => $doc,)* }
            }
        }
    };
}

rejects! {
    Short, "short", "shorter than an empty envelope";
    Version, "version", "another version of the envelope, or no envelope at all";
    Flags, "flags", "a flag that this version does not know";
    Session, "session", "the sender's run id is 0";
    Loopback, "loopback", "sent by this very run";
    Mode, "mode", "sealed where no key is configured, or in clear where one is";
    Key, "key", "a key that is not in the keyring, or another cluster's label";
    Replay, "replay", "a counter seen before, or older than the window";
    DeriveLimit, "derive_limit", "an unknown sender, above derive_rate a second";
    Tag, "tag", "the tag is wrong: damaged, forged, replayed from elsewhere, or for another run";
    Checksum, "checksum", "the checksum is wrong: damaged, another cluster's, or for another run";
}

/// One node's sealing side, shared by its threads, and the keys to open what others sealed.
pub struct Envelope {
    run: RunId,
    suite: Suite,
    counters: [AtomicU64; 2],
    limits: Limits,
    /// Keys the session table's hash, so that nobody can choose run ids that collide.
    hash_key: [u64; 2],
}

enum Suite {
    /// A checksum that has already taken in the label.
    Plain(crc32fast::Hasher),
    /// The first key seals, all of them open.
    Keyed { own: [u8; 32], keys: Vec<Key> },
}

struct Key {
    id: u16,
    prk: hkdf::Prk,
}

impl Envelope {
    /// `keys`: the first seals, all open; without any, packets go in clear with a checksum. `run` must be random and
    /// fresh, since it is what keeps nonces from repeating. `secret`: 32 random bytes, for this run alone.
    pub fn new(label: &str, keys: &[[u8; 32]], run: RunId, secret: [u8; 32], limits: Limits) -> Envelope {
        let suite = match keys.first() {
            None => {
                let mut crc = crc32fast::Hasher::new();
                crc.update(label.as_bytes());
                Suite::Plain(crc)
            }
            Some(first) => Suite::Keyed {
                own: Key::new(label, first).session(run),
                keys: keys.iter().map(|key| Key::new(label, key)).collect(),
            },
        };
        let hash = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), b"bruit session table");
        let hash = hash.as_ref();
        let hash_key = [le64(&hash[..8]), le64(&hash[8..16])];
        Envelope { run, suite, counters: [AtomicU64::new(1), AtomicU64::new(1)], limits, hash_key }
    }

    /// The table that [`open`](Envelope::open) works on. One for each envelope: whoever reads the socket owns it.
    pub fn sessions(&self) -> Sessions {
        let keys = match &self.suite {
            Suite::Plain(_) => 1,
            Suite::Keyed { keys, .. } => keys.len(),
        };
        Sessions::new(self.limits, self.hash_key, keys)
    }

    /// Seals a datagram in place. `buf` holds [`HEADER`] bytes of room, then the frames; it grows by [`TAG`].
    /// `to` is the receiver's run, or none where it is not known yet.
    ///
    /// After 2^48 packets `buf` comes back empty: a run falls silent rather than use a nonce twice.
    ///
    /// # Panics
    /// Where `buf` is shorter than [`HEADER`].
    pub fn seal(&self, to: Option<RunId>, buf: &mut Vec<u8>) {
        self.seal_in(Lane::Datagram, to, buf);
    }

    /// The same for a stream record. Records to one receiver should leave in the order in which they were sealed.
    pub fn seal_record(&self, to: Option<RunId>, buf: &mut Vec<u8>) {
        self.seal_in(Lane::Record, to, buf);
    }

    fn seal_in(&self, lane: Lane, to: Option<RunId>, buf: &mut Vec<u8>) {
        let counter = self.counters[lane as usize].fetch_add(1, Ordering::Relaxed);
        if counter >= COUNTER_END {
            buf.clear();
            return;
        }
        let key_id = match &self.suite {
            Suite::Plain(_) => 0,
            Suite::Keyed { keys, .. } => keys[0].id,
        };
        let plain = matches!(self.suite, Suite::Plain(_));
        let head = Header { lane, stranger: to.is_none(), plain, key_id, run: self.run, counter };
        let (header, frames) = buf.split_at_mut(HEADER);
        header.copy_from_slice(&head.bytes());
        let bound = Bound::new(&head, to);
        let tag = match &self.suite {
            Suite::Plain(crc) => bound.checksum(crc, frames),
            Suite::Keyed { own, .. } => bound.encrypt(own, &head, frames),
        };
        buf.extend_from_slice(&tag);
    }

    /// Verifies and decrypts in place. After `Err`, `bytes` hold nothing of use, and (but for the derivation spent)
    /// `sessions` are as before.
    pub fn open<'a>(&self, sessions: &mut Sessions, now: Instant, bytes: &'a mut [u8]) -> Result<Opened<'a>, Reject> {
        let head = Header::read(bytes)?;
        if head.run == self.run {
            return Err(Reject::Loopback);
        }
        let Some((frames, tag)) = bytes[HEADER..].split_last_chunk_mut() else { return Err(Reject::Short) };
        let bound = Bound::new(&head, (!head.stranger).then_some(self.run));
        match &self.suite {
            Suite::Plain(crc) if head.plain => open_plain(crc, sessions, &head, &bound, frames, tag)?,
            Suite::Keyed { keys, .. } if !head.plain => open_sealed(keys, sessions, now, &head, &bound, frames, tag)?,
            _ => return Err(Reject::Mode),
        }
        Ok(Opened { from: head.run, stranger: head.stranger, frames })
    }
}

fn open_plain(
    crc: &crc32fast::Hasher,
    sessions: &mut Sessions,
    head: &Header,
    bound: &Bound,
    frames: &[u8],
    tag: &[u8; TAG],
) -> Result<(), Reject> {
    if head.key_id != 0 {
        return Err(Reject::Key);
    }
    let known = sessions.find(head.run, 0);
    if known.is_some_and(|slot| sessions.has_seen(slot, head)) {
        return Err(Reject::Replay);
    }
    if bound.checksum(crc, frames) != *tag {
        return Err(Reject::Checksum);
    }
    sessions.accept(known, head, 0, [0; 32]);
    Ok(())
}

fn open_sealed(
    keys: &[Key],
    sessions: &mut Sessions,
    now: Instant,
    head: &Header,
    bound: &Bound,
    frames: &mut [u8],
    tag: &[u8; TAG],
) -> Result<(), Reject> {
    let mut verdict = Reject::Key;
    // Two keys of a ring share their id once in 65,536 rings. Then both are tried.
    let mut candidates = keys.iter().enumerate().filter(|(_, key)| key.id == head.key_id).peekable();
    while let Some((index, key)) = candidates.next() {
        let known = sessions.find(head.run, index);
        if known.is_some_and(|slot| sessions.has_seen(slot, head)) {
            return Err(Reject::Replay);
        }
        let session_key = match known {
            Some(slot) => sessions.key(slot),
            None if sessions.may_derive(now, head.run) => key.session(head.run),
            None => return Err(Reject::DeriveLimit),
        };
        // A wrong key leaves nothing for the next one to open.
        let kept = candidates.peek().map(|_| frames.to_vec());
        if bound.decrypt(&session_key, head, frames, tag) {
            sessions.accept(known, head, index, session_key);
            return Ok(());
        }
        kept.iter().for_each(|kept| frames.copy_from_slice(kept));
        verdict = Reject::Tag;
    }
    Err(verdict)
}

impl Key {
    fn new(label: &str, key: &[u8; 32]) -> Key {
        let salt = [b"bruit", label.as_bytes()].concat();
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, &salt).extract(key);
        let id = u16::from_le_bytes(expand(&prk, b"key id"));
        Key { id, prk }
    }

    fn session(&self, run: RunId) -> [u8; 32] {
        expand(&self.prk, &run.get().to_le_bytes())
    }
}

/// HKDF-Expand.
fn expand<const N: usize>(prk: &hkdf::Prk, info: &[u8]) -> [u8; N] {
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let mut key = [0; N];
    let info = [info];
    let made = prk.expand(&info, Length(N)).expect("HKDF gives up to 8,160 bytes");
    made.fill(&mut key).expect("as long as was asked for");
    key
}

/// Which of a sender's two counters. The number is the first byte of the nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    Datagram = 0,
    Record = 1,
}

struct Header {
    lane: Lane,
    stranger: bool,
    plain: bool,
    key_id: u16,
    run: RunId,
    counter: u64,
}

impl Header {
    fn bytes(&self) -> [u8; HEADER] {
        let mut flags = 0;
        flags |= if self.stranger { TO_STRANGER } else { 0 };
        flags |= if self.plain { PLAIN } else { 0 };
        flags |= if self.lane == Lane::Record { RECORD } else { 0 };
        let mut bytes = [0; HEADER];
        bytes[0] = VERSION;
        bytes[1] = flags;
        bytes[2..4].copy_from_slice(&self.key_id.to_le_bytes());
        bytes[4..12].copy_from_slice(&self.run.get().to_le_bytes());
        bytes[12..18].copy_from_slice(&self.counter.to_le_bytes()[..6]);
        bytes
    }

    /// Of a whole envelope: what is shorter than an empty one is no envelope.
    fn read(bytes: &[u8]) -> Result<Header, Reject> {
        if bytes.len() < OVERHEAD {
            return Err(Reject::Short);
        }
        if bytes[0] != VERSION {
            return Err(Reject::Version);
        }
        let flags = bytes[1];
        if flags & !FLAGS != 0 {
            return Err(Reject::Flags);
        }
        Ok(Header {
            lane: if flags & RECORD == 0 { Lane::Datagram } else { Lane::Record },
            stranger: flags & TO_STRANGER != 0,
            plain: flags & PLAIN != 0,
            key_id: u16::from_le_bytes([bytes[2], bytes[3]]),
            run: RunId::new(le64(&bytes[4..12])).ok_or(Reject::Session)?,
            counter: le64(&bytes[12..18]),
        })
    }

    fn nonce(&self) -> aead::Nonce {
        let mut nonce = [0; 12];
        nonce[0] = self.lane as u8;
        nonce[4..].copy_from_slice(&self.counter.to_le_bytes());
        aead::Nonce::assume_unique_for_key(nonce)
    }
}

/// Made for each packet: 25 ns, where a kept one would be 16 times as large as its key.
fn cipher(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&aead::CHACHA20_POLY1305, key).expect("a key of 32 bytes"))
}

/// What the tag binds the frames to: the header, and after it the receiver.
struct Bound([u8; HEADER + 8]);

impl Bound {
    fn new(head: &Header, to: Option<RunId>) -> Bound {
        let mut bytes = [0; HEADER + 8];
        bytes[..HEADER].copy_from_slice(&head.bytes());
        bytes[HEADER..].copy_from_slice(&to.map_or(0, RunId::get).to_le_bytes());
        Bound(bytes)
    }

    fn encrypt(&self, key: &[u8; 32], head: &Header, frames: &mut [u8]) -> [u8; TAG] {
        let tag = cipher(key)
            .seal_in_place_separate_tag(head.nonce(), aead::Aad::from(&self.0), frames)
            .expect("frames are far below ChaCha20's 256 GiB");
        let mut bytes = [0; TAG];
        bytes.copy_from_slice(tag.as_ref());
        bytes
    }

    /// False, and `frames` zero, where the tag does not fit.
    fn decrypt(&self, key: &[u8; 32], head: &Header, frames: &mut [u8], tag: &[u8; TAG]) -> bool {
        let aad = aead::Aad::from(&self.0);
        cipher(key).open_in_place_separate_tag(head.nonce(), aad, (*tag).into(), frames, 0..).is_ok()
    }

    fn checksum(&self, label: &crc32fast::Hasher, frames: &[u8]) -> [u8; TAG] {
        let mut crc = label.clone();
        crc.update(&self.0[HEADER..]);
        crc.update(&self.0[..HEADER]);
        crc.update(frames);
        let mut tag = [0; TAG];
        tag[..4].copy_from_slice(&crc.finalize().to_le_bytes());
        tag
    }
}

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
    fn new(limits: Limits, hash_key: [u64; 2], keys: usize) -> Sessions {
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

    fn find(&self, run: RunId, key: usize) -> Option<u32> {
        let fits = |&slot: &u32| {
            let session = self.at(slot);
            session.run == run && usize::from(session.key_index) == key
        };
        self.index.find(self.hash(run), fits).copied()
    }

    fn key(&self, slot: u32) -> [u8; 32] {
        self.at(slot).key
    }

    /// Packets to strangers are outside of the windows: they go to everybody, and anybody can repeat them.
    fn has_seen(&self, slot: u32, head: &Header) -> bool {
        let session = self.at(slot);
        !head.stranger
            && match head.lane {
                Lane::Datagram => session.datagrams.has_seen(head.counter),
                Lane::Record => session.records.has_seen(head.counter),
            }
    }

    /// Members draw from a bucket of their own, or else a flood of invented run ids would keep them out when we are new.
    fn may_derive(&mut self, now: Instant, run: RunId) -> bool {
        let rate = self.limits.derive_rate;
        if self.is_member(run) { self.derive_members.take(now, rate) } else { self.derive_strangers.take(now, rate) }
    }

    /// The tag was valid.
    fn accept(&mut self, known: Option<u32>, head: &Header, key_index: usize, key: [u8; 32]) {
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

/// Makes and checks cookies: proof that who asks receives what is sent to its address. Nothing is stored for it.
///
/// A cookie is HMAC-SHA-256 (period, IP address, run id) under a secret of this run, cut to 16 bytes, as in RFC 6347
/// §4.2.1 and RFC 7296 §2.6. The port is left out: a joiner goes on by stream where datagrams are lost. It holds in its period of 10 s and in the next: a joiner has at least 10 s to answer.
#[derive(Clone)]
pub struct CookieJar {
    key: hmac::Key,
}

/// Length of a cookie.
pub const COOKIE: usize = 16;

const COOKIE_PERIOD: Duration = Duration::from_secs(10);

impl CookieJar {
    /// `secret`: 32 random bytes. May be the one that the envelope has.
    pub fn new(secret: [u8; 32]) -> CookieJar {
        CookieJar { key: hmac::Key::new(hmac::HMAC_SHA256, &secret) }
    }

    /// For `run`, which claims to be at `addr`.
    pub fn cookie(&self, now: Now, addr: SocketAddr, run: RunId) -> [u8; COOKIE] {
        self.made_in(period(now), addr, run)
    }

    pub fn accepts(&self, now: Now, addr: SocketAddr, run: RunId, cookie: &[u8]) -> bool {
        let this = period(now);
        // Compared by their own authentication codes, which takes the same time whatever the cookie.
        let given = hmac::sign(&self.key, cookie);
        cookie.len() == COOKIE
            && [Some(this), this.checked_sub(1)]
                .into_iter()
                .flatten()
                .any(|period| hmac::verify(&self.key, &self.made_in(period, addr, run), given.as_ref()).is_ok())
    }

    fn made_in(&self, period: u64, addr: SocketAddr, run: RunId) -> [u8; COOKIE] {
        // A dual-stack socket sees the IPv4 address a.b.c.d as ::ffff:a.b.c.d.
        let ip = match addr.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let mut mac = hmac::Context::with_key(&self.key);
        mac.update(b"bruit cookie");
        mac.update(&period.to_le_bytes());
        mac.update(&ip.octets());
        mac.update(&run.get().to_le_bytes());
        let mut cookie = [0; COOKIE];
        cookie.copy_from_slice(&mac.sign().as_ref()[..COOKIE]);
        cookie
    }
}

fn period(now: Now) -> u64 {
    now.mono.as_nanos() / nanos(COOKIE_PERIOD)
}

/// By SipHash-1-3.
fn hash_run(key: [u64; 2], run: RunId) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(key[0], key[1]);
    hasher.write_u64(run.get());
    hasher.finish()
}

/// At most 8 bytes.
fn le64(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use alloc::vec;

    use proptest::prelude::*;

    use super::*;
    use crate::rng::Rng;
    use crate::time::Wall;

    const KEY: [u8; 32] = [3; 32];
    const OLD_KEY: [u8; 32] = [4; 32];
    const LIMITS: Limits = Limits { max_sessions: 8, derive_rate: 1000 };
    const T0: Instant = Instant::from_nanos(1_000_000_000);

    struct Node {
        envelope: Envelope,
        sessions: Sessions,
    }

    impl Node {
        fn of(label: &str, keys: &[[u8; 32]], id: u64, limits: Limits) -> Node {
            let envelope = Envelope::new(label, keys, run(id), [9; 32], limits);
            let sessions = envelope.sessions();
            Node { envelope, sessions }
        }

        fn new(id: u64) -> Node {
            Node::of("test", &[KEY], id, LIMITS)
        }

        fn plain(id: u64) -> Node {
            Node::of("test", &[], id, LIMITS)
        }

        fn seal(&self, to: u64, frames: &[u8]) -> Vec<u8> {
            let mut buf = room(frames);
            self.envelope.seal(RunId::new(to), &mut buf);
            buf
        }

        fn seal_record(&self, to: u64, frames: &[u8]) -> Vec<u8> {
            let mut buf = room(frames);
            self.envelope.seal_record(RunId::new(to), &mut buf);
            buf
        }

        fn open_at(&mut self, now: Instant, packet: &[u8]) -> Result<(RunId, bool, Vec<u8>), Reject> {
            let mut bytes = packet.to_vec();
            self.envelope.open(&mut self.sessions, now, &mut bytes).map(|o| (o.from, o.stranger, o.frames.to_vec()))
        }

        fn open(&mut self, packet: &[u8]) -> Result<(RunId, bool, Vec<u8>), Reject> {
            self.open_at(T0, packet)
        }
    }

    fn run(id: u64) -> RunId {
        RunId::new(id).unwrap()
    }

    fn room(frames: &[u8]) -> Vec<u8> {
        [&[0; HEADER], frames].concat()
    }

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
    }

    /// The bytes were computed apart from this code, with Python's `cryptography` (ChaCha20Poly1305, HKDFExpand), `hmac`
    /// and `zlib.crc32`, from the table atop this file.
    #[test]
    fn the_bytes_are_those_of_the_table() {
        let key: [u8; 32] = core::array::from_fn(|i| i as u8);
        let (me, to) = (0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210);
        let keyed = Node::of("golden", &[key], me, LIMITS);
        let datagram = "0100278defcdab89674523010100000000008c1b783d6b9201c47409790bb7e1ee75abb6029caa";
        let record = "0104278defcdab8967452301010000000000a63550c0a62f605ea8aa771b1b31ae17655732615a";
        let to_stranger = "0101278defcdab89674523010200000000006a762309df0702bc283b91d0ca5897c432a8bf32f8";
        assert_eq!(keyed.seal(to, b"bruit"), hex(datagram));
        assert_eq!(keyed.seal_record(to, b"bruit"), hex(record));
        assert_eq!(keyed.seal(0, b"bruit"), hex(to_stranger));

        let plain = Node::of("golden", &[], me, LIMITS);
        let in_clear = "01020000efcdab89674523010100000000006272756974929ac01c000000000000000000000000";
        assert_eq!(plain.seal(to, b"bruit"), hex(in_clear));

        let now = Now { mono: T0 + Duration::from_secs(38), wall: Wall(0) };
        let cookie = CookieJar::new([7; 32]).cookie(now, "192.0.2.1:18946".parse().unwrap(), run(me));
        assert_eq!(cookie[..], hex("836e1eeb2bdb7371f28ef9922a588b4e"));
    }

    #[test]
    fn what_is_sealed_for_a_run_opens_there_and_names_its_sender() {
        let (a, mut b) = (Node::new(1), Node::new(2));
        assert_eq!(b.open(&a.seal(2, b"news")), Ok((run(1), false, b"news".to_vec())));
        assert_eq!(b.open(&a.seal_record(2, b"more")), Ok((run(1), false, b"more".to_vec())));
        assert_eq!(b.open(&a.seal(2, b"")), Ok((run(1), false, vec![])));
        assert_eq!(b.sessions.len(), 1);
    }

    #[test]
    fn frames_are_not_readable_in_a_sealed_packet() {
        let packet = Node::new(1).seal(2, b"top secret frames");
        assert!(!packet.windows(4).any(|w| b"top secret frames".windows(4).any(|v| v == w)));
    }

    #[test]
    fn sealing_into_reserved_room_does_not_reallocate() {
        let node = Node::new(1);
        let mut buf = Vec::with_capacity(OVERHEAD + 5);
        buf.extend_from_slice(&room(b"bruit"));
        let place = buf.as_ptr();
        node.envelope.seal(Some(run(2)), &mut buf);
        assert_eq!((buf.as_ptr(), buf.len()), (place, OVERHEAD + 5));
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        for (a, mut b) in [(Node::new(1), Node::new(2)), (Node::plain(1), Node::plain(2))] {
            for packet in [a.seal(2, b"frames"), a.seal(0, b"frames"), a.seal_record(2, b"frames")] {
                for bit in 0..packet.len() * 8 {
                    let mut bent = packet.clone();
                    bent[bit / 8] ^= 1 << (bit % 8);
                    assert!(b.open(&bent).is_err(), "bit {bit}");
                }
                assert!(b.sessions.len() <= 1);
                b.open(&packet).unwrap();
            }
        }
    }

    #[test]
    fn every_truncation_and_every_extension_is_refused() {
        for (a, mut b) in [(Node::new(1), Node::new(2)), (Node::plain(1), Node::plain(2))] {
            let packet = a.seal(2, b"some frames");
            for len in 0..packet.len() {
                let refused = b.open(&packet[..len]).unwrap_err();
                assert_eq!(refused == Reject::Short, len < OVERHEAD, "{len}");
            }
            assert!(b.open(&[&packet[..], &[0]].concat()).is_err());
            b.open(&packet).unwrap();
        }
    }

    #[test]
    fn a_refused_packet_tells_nothing() {
        let (a, mut b) = (Node::new(1), Node::new(2));
        let mut packet = a.seal(3, b"for somebody else");
        let before = packet.clone();
        assert_eq!(b.envelope.open(&mut b.sessions, T0, &mut packet), Err(Reject::Tag));
        let frames = HEADER..packet.len() - TAG;
        assert!(packet[frames.clone()] == before[frames.clone()] || packet[frames].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn a_recorded_packet_is_worthless_at_the_same_node_at_another_and_after_a_restart() {
        for (keys, wrong) in [(&[KEY][..], Reject::Tag), (&[], Reject::Checksum)] {
            let [a, mut b, mut other, mut restarted] = [1, 2, 3, 4].map(|id| Node::of("test", keys, id, LIMITS));
            for packet in [a.seal(2, b"once"), a.seal_record(2, b"once")] {
                b.open(&packet).unwrap();
                assert_eq!(b.open(&packet), Err(Reject::Replay));
                assert_eq!(other.open(&packet), Err(wrong));
                assert_eq!(restarted.open(&packet), Err(wrong));
            }
        }
    }

    #[test]
    fn another_label_is_refused() {
        let mut b = Node::of("blue", &[KEY], 2, LIMITS);
        assert_eq!(b.open(&Node::of("green", &[KEY], 1, LIMITS).seal(2, b"x")), Err(Reject::Key));
        let mut b = Node::of("blue", &[], 2, LIMITS);
        assert_eq!(b.open(&Node::of("green", &[], 1, LIMITS).seal(2, b"x")), Err(Reject::Checksum));
        assert!(b.sessions.is_empty());
    }

    #[test]
    fn a_key_that_shares_its_id_with_ours_is_refused_by_the_tag() {
        let mut b = Node::new(2);
        let mut packet = Node::of("test", &[OLD_KEY], 1, LIMITS).seal(2, b"x");
        let Suite::Keyed { keys, .. } = &b.envelope.suite else { unreachable!() };
        packet[2..4].copy_from_slice(&keys[0].id.to_le_bytes());
        assert_eq!(b.open(&packet), Err(Reject::Tag));
        assert!(b.sessions.is_empty());
    }

    #[test]
    fn keys_that_share_an_id_are_both_tried() {
        let mut b = Node::of("test", &[OLD_KEY, KEY], 2, LIMITS);
        let Suite::Keyed { keys, .. } = &mut b.envelope.suite else { unreachable!() };
        keys[0].id = keys[1].id;
        let a = Node::new(1);
        b.open(&a.seal(2, b"x")).unwrap();
        b.open(&a.seal(2, b"y")).unwrap();
        assert_eq!(b.sessions.len(), 1);
    }

    #[test]
    fn the_first_key_seals_and_all_open() {
        let (old, mut both) = (Node::of("test", &[OLD_KEY], 1, LIMITS), Node::of("test", &[KEY, OLD_KEY], 2, LIMITS));
        let mut new = Node::new(3);
        both.open(&old.seal(2, b"under the old key")).unwrap();
        new.open(&both.seal(3, b"under the new key")).unwrap();
        assert_eq!(new.open(&old.seal(3, b"x")), Err(Reject::Key));
    }

    #[test]
    fn plain_and_keyed_nodes_refuse_each_other() {
        assert_eq!(Node::new(2).open(&Node::plain(1).seal(2, b"x")), Err(Reject::Mode));
        assert_eq!(Node::plain(2).open(&Node::new(1).seal(2, b"x")), Err(Reject::Mode));
    }

    #[test]
    fn a_packet_of_our_own_is_refused() {
        let mut a = Node::new(1);
        assert_eq!(a.open(&a.seal(1, b"x")), Err(Reject::Loopback));
        assert_eq!(a.open(&a.seal(0, b"x")), Err(Reject::Loopback));
    }

    #[test]
    fn foreign_versions_unknown_flags_and_run_zero_are_named() {
        let (a, mut b) = (Node::new(1), Node::new(2));
        for (at, value, refused) in [(0, 2, Reject::Version), (1, 8, Reject::Flags), (4, 0, Reject::Session)] {
            let mut packet = a.seal(2, b"x");
            packet[at] = value;
            assert_eq!(b.open(&packet), Err(refused));
        }
    }

    #[test]
    fn packets_to_strangers_open_no_session_and_may_come_twice() {
        for (a, mut b) in [(Node::new(1), Node::new(2)), (Node::plain(1), Node::plain(2))] {
            let hello = a.seal(0, b"hello");
            for _ in 0..2 {
                assert_eq!(b.open(&hello), Ok((run(1), true, b"hello".to_vec())));
                assert!(b.sessions.is_empty());
            }
        }
    }

    #[test]
    fn reordering_within_the_window_is_accepted_and_beyond_it_refused() {
        let (a, mut b) = (Node::new(1), Node::new(2));
        let datagrams: Vec<_> = (0..257).map(|_| a.seal(2, b"d")).collect();
        let records: Vec<_> = (0..129).map(|_| a.seal_record(2, b"r")).collect();
        for packets in [datagrams, records] {
            let (oldest, within) = packets.split_first().unwrap();
            for packet in within.iter().rev() {
                b.open(packet).unwrap();
            }
            assert_eq!(b.open(oldest), Err(Reject::Replay));
            assert!(within.iter().all(|packet| b.open(packet) == Err(Reject::Replay)));
        }
    }

    #[test]
    fn datagrams_that_overtake_a_record_do_not_push_it_out_of_the_window() {
        let (a, mut b) = (Node::new(1), Node::new(2));
        let slow = a.seal_record(2, b"was waiting for a connect");
        for _ in 0..1000 {
            b.open(&a.seal(2, b"d")).unwrap();
        }
        b.open(&slow).unwrap();
    }

    #[test]
    fn derivations_for_strangers_are_capped_a_second_and_known_senders_go_on() {
        let mut b = Node::of("test", &[KEY], 2, Limits { derive_rate: 5, ..LIMITS });
        let known = Node::new(1);
        b.open(&known.seal(2, b"x")).unwrap();
        let forged = |id| {
            let mut packet = known.seal(2, b"x");
            packet[4..12].copy_from_slice(&u64::to_le_bytes(id));
            packet
        };
        let mut refused: Vec<_> = (100..110).map(|id| b.open(&forged(id)).unwrap_err()).collect();
        assert_eq!(refused.split_off(4), [Reject::DeriveLimit; 6]);
        assert_eq!(refused, [Reject::Tag; 4]);
        b.open(&known.seal(2, b"y")).unwrap();

        let late = Node::new(3).seal(2, b"z");
        assert_eq!(b.open_at(T0 + Duration::from_millis(199), &late), Err(Reject::DeriveLimit));
        b.open_at(T0 + Duration::from_millis(200), &late).unwrap();
        assert_eq!(b.sessions.len(), 2);
    }

    #[test]
    fn a_flood_of_invented_ids_does_not_keep_a_member_out() {
        let mut b = Node::of("test", &[KEY], 2, Limits { derive_rate: 5, ..LIMITS });
        for id in 100..110 {
            let _ = b.open(&Node::new(id).seal(3, b"not for us"));
        }
        b.sessions.set_member(run(1), true);
        b.open(&Node::new(1).seal(2, b"x")).unwrap();
        assert_eq!(b.open(&Node::new(4).seal(2, b"x")), Err(Reject::DeriveLimit));
    }

    #[test]
    fn eviction_takes_the_least_recently_used_and_never_a_member() {
        let mut b = Node::of("test", &[KEY], 99, Limits { max_sessions: 3, ..LIMITS });
        b.sessions.set_member(run(1), true);
        let nodes: Vec<_> = (1..=5).map(Node::new).collect();
        let packets: Vec<_> = nodes.iter().map(|node| node.seal(99, b"x")).collect();
        for packet in &packets[..4] {
            b.open(packet).unwrap();
        }
        b.open(&nodes[1].seal(99, b"2 is used again, so 3 is the oldest")).unwrap();
        b.open(&packets[4]).unwrap();
        assert_eq!(b.sessions.len(), 4);
        let kept = [1, 2, 3, 4, 5].map(|id| b.sessions.find(run(id), 0).is_some());
        assert_eq!(kept, [true, true, false, true, true]);
        assert_eq!(b.open(&packets[0]), Err(Reject::Replay));
    }

    #[test]
    fn a_forgotten_member_keeps_its_window_until_room_is_needed_and_then_goes_first() {
        let mut b = Node::of("test", &[KEY], 99, Limits { max_sessions: 2, ..LIMITS });
        b.sessions.set_member(run(1), true);
        let packets: Vec<_> = (1..=3).map(|id| Node::new(id).seal(99, b"x")).collect();
        b.open(&packets[1]).unwrap();
        b.open(&packets[0]).unwrap();
        b.sessions.forget(run(1));
        assert_eq!(b.open(&packets[0]), Err(Reject::Replay));
        b.open(&packets[2]).unwrap();
        assert!(b.sessions.find(run(1), 0).is_none());
        assert!(b.sessions.find(run(2), 0).is_some());
    }

    #[test]
    fn a_run_falls_silent_before_its_counter_repeats() {
        let (a, mut b) = (Node::new(1), Node::new(2));
        a.envelope.counters[0].store(COUNTER_END - 1, Ordering::Relaxed);
        b.open(&a.seal(2, b"the last")).unwrap();
        assert!(a.seal(2, b"one more").is_empty());
        assert!(a.seal(2, b"and another").is_empty());
        b.open(&a.seal_record(2, b"the other lane goes on")).unwrap();
    }

    #[test]
    fn threads_never_share_a_counter() {
        let node = Node::new(1);
        let seal = || (0..1000).map(|_| node.seal(2, b"")[12..18].to_vec()).collect::<Vec<_>>();
        let mut counters = std::thread::scope(|scope| {
            let other = scope.spawn(seal);
            [seal(), other.join().unwrap()].concat()
        });
        counters.sort();
        counters.dedup();
        assert_eq!(counters.len(), 2000);
    }

    #[test]
    fn random_datagrams_are_refused_without_harm() {
        let mut rng = Rng::new(7);
        let limits = Limits { derive_rate: usize::MAX, ..LIMITS };
        for keys in [&[KEY][..], &[]] {
            let (a, mut b) = (Node::of("test", keys, 1, limits), Node::of("test", keys, 2, limits));
            let sample = a.seal(2, &[0; 40]);
            for _ in 0..50_000 {
                let mut bytes: Vec<u8> = (0..rng.index(100)).map(|_| rng.next_u64() as u8).collect();
                // Half of them get far: a good header, or a part of it.
                let copied = rng.index(2 * HEADER).min(bytes.len());
                bytes[..copied].copy_from_slice(&sample[..copied]);
                assert!(b.open(&bytes).is_err());
            }
            assert!(b.sessions.is_empty());
        }
    }

    #[test]
    fn reasons_are_indexed_by_their_own_number_and_named_apart() {
        for (i, reject) in Reject::ALL.iter().enumerate() {
            assert_eq!(*reject as usize, i);
            assert!(Reject::ALL[..i].iter().all(|other| other.name() != reject.name()));
        }
    }

    #[test]
    fn a_bucket_holds_a_second_and_fills_steadily() {
        let mut bucket = Bucket::default();
        let taken = |bucket: &mut Bucket, now| (0..100).filter(|_| bucket.take(now, 10)).count();
        assert_eq!(taken(&mut bucket, Instant::ZERO), 10);
        assert_eq!(taken(&mut bucket, Instant::ZERO + Duration::from_millis(250)), 2);
        assert_eq!(taken(&mut bucket, Instant::ZERO), 0, "a clock that went back gives nothing");
        assert_eq!(taken(&mut bucket, Instant::ZERO + Duration::from_secs(3600)), 10);
        assert!(!bucket.take(T0, 0));
    }

    mod cookies {
        use super::*;

        fn at(seconds: u64) -> Now {
            Now { mono: Instant::ZERO + Duration::from_secs(seconds), wall: Wall(0) }
        }

        fn addr(text: &str) -> SocketAddr {
            text.parse().unwrap()
        }

        #[test]
        fn hold_in_their_period_and_the_next() {
            let jar = CookieJar::new([1; 32]);
            let a = addr("192.0.2.1:7");
            for (made, first_refused) in [(0, 20), (9, 20), (10, 30), (19, 30)] {
                let cookie = jar.cookie(at(made), a, run(1));
                assert!((made..first_refused).all(|t| jar.accepts(at(t), a, run(1), &cookie)), "{made}");
                assert!(!jar.accepts(at(first_refused), a, run(1), &cookie));
                assert!(!jar.accepts(at(3600), a, run(1), &cookie));
            }
            let early = jar.cookie(at(10), a, run(1));
            assert!(!jar.accepts(at(9), a, run(1), &early), "made in the future");
        }

        #[test]
        fn are_refused_at_another_address_for_another_run_and_by_another_node() {
            let (jar, other) = (CookieJar::new([1; 32]), CookieJar::new([2; 32]));
            let a = addr("192.0.2.1:7");
            let cookie = jar.cookie(at(5), a, run(1));
            assert!(jar.clone().accepts(at(5), a, run(1), &cookie));
            assert!(jar.accepts(at(5), addr("192.0.2.1:8"), run(1), &cookie), "the same host by stream");
            assert!(!jar.accepts(at(5), addr("192.0.2.2:7"), run(1), &cookie));
            assert!(!jar.accepts(at(5), addr("[2001:db8::1]:7"), run(1), &cookie));
            assert!(!jar.accepts(at(5), a, run(2), &cookie));
            assert!(!other.accepts(at(5), a, run(1), &cookie));
        }

        #[test]
        fn know_an_ipv4_address_in_its_ipv6_form() {
            let jar = CookieJar::new([1; 32]);
            let cookie = jar.cookie(at(5), addr("192.0.2.1:7"), run(1));
            assert!(jar.accepts(at(5), addr("[::ffff:192.0.2.1]:7"), run(1), &cookie));
        }

        #[test]
        fn of_another_length_or_with_any_bit_flipped_are_refused() {
            let jar = CookieJar::new([1; 32]);
            let a = addr("192.0.2.1:7");
            let cookie = jar.cookie(at(5), a, run(1));
            for len in 0..COOKIE {
                assert!(!jar.accepts(at(5), a, run(1), &cookie[..len]));
            }
            assert!(!jar.accepts(at(5), a, run(1), &[&cookie[..], &[0]].concat()));
            for bit in 0..COOKIE * 8 {
                let mut bent = cookie;
                bent[bit / 8] ^= 1 << (bit % 8);
                assert!(!jar.accepts(at(5), a, run(1), &bent));
            }
        }
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
        fn whatever_is_sealed_opens(
            label in ".{0,40}",
            key: Option<[u8; 32]>,
            from in 1..u64::MAX / 2,
            to in u64::MAX / 2..,
            frames in proptest::collection::vec(any::<u8>(), 0..3000),
            record: bool,
            stranger: bool,
        ) {
            let keys = Vec::from_iter(key);
            let a = Node::of(&label, &keys, from, LIMITS);
            let mut b = Node::of(&label, &keys, to, LIMITS);
            let receiver = if stranger { 0 } else { to };
            let packet = if record { a.seal_record(receiver, &frames) } else { a.seal(receiver, &frames) };
            prop_assert_eq!(packet.len(), frames.len() + OVERHEAD);
            prop_assert_eq!(b.open(&packet), Ok((run(from), stranger, frames)));
        }

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
            let limits = Limits { max_sessions: 3, ..LIMITS };
            let mut table = Sessions::new(limits, [1, 2], 1);
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
                model.shrink(limits.max_sessions);
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
