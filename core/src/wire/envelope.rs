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
//!
//! Here is how packets are sealed and opened; the header and what the tag binds, whom we have heard and what of it, and cookies
//! have a file each.

mod cookie;
mod header;
mod sessions;

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use ring::{hkdf, hmac};

pub use self::cookie::{COOKIE, CookieJar};
use self::header::{Bound, Header, Lane};
pub use self::sessions::Sessions;
use crate::id::RunId;
use crate::time::Instant;

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

/// At most 8 bytes.
fn le64(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests;
