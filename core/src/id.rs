//! Who is who. Different things have different types, so that no call can mix them up.

use core::fmt;
use core::num::NonZeroU64;
use core::ops::Deref;

use ecow::EcoString;

use crate::error::{Code, Error};

/// Counters that peers send are refused above this: nobody counts that far, and it leaves room to add one.
pub const COUNTER_MAX: u64 = 1 << 62;

/// Longest node name, in bytes.
pub const NAME_MAX: usize = 255;

/// A member's name: 1 to 255 bytes of UTF-8 without control characters. Unique in a cluster.
///
/// 16 bytes. A short one, of up to 15, is in them; the copies of a longer one share it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(EcoString);

impl NodeName {
    /// `E_INVALID` for an empty, too long or unprintable name.
    pub fn new(name: &str) -> Result<NodeName, Error> {
        if Self::is_valid(name) {
            Ok(NodeName(name.into()))
        } else {
            Err(Error::new(
                Code::Invalid,
                alloc::format!("node name {name:?}: expected 1 to {NAME_MAX} bytes without control characters"),
            ))
        }
    }

    pub(crate) fn is_valid(name: &str) -> bool {
        // Most names are ASCII, and every record carries one: bytes are quicker to look at than characters.
        // All of them, without a way out on the way: that is done eight or more at a time.
        let plain = name.bytes().fold(true, |plain, b| plain & (0x20..0x7f).contains(&b));
        (1..=NAME_MAX).contains(&name.len()) && (plain || !name.chars().any(char::is_control))
    }
}

impl Deref for NodeName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Orders the runs of one name: the wall clock in milliseconds when the run began, or one more than
/// the epoch of a dead run that was ahead of it. A higher epoch always wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub u64);

impl Epoch {
    pub fn next(self) -> Epoch {
        Epoch((self.0 + 1).min(COUNTER_MAX))
    }
}

/// SWIM §4.2: raised by its owner alone, to refute a suspicion. Counts inside one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Incarnation(pub u64);

impl Incarnation {
    pub fn next(self) -> Incarnation {
        Incarnation((self.0 + 1).min(COUNTER_MAX))
    }
}

/// Drawn at random when a run begins and fixed for its life. Sealed packets, rumors and digests refer to members by it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(NonZeroU64);

impl RunId {
    pub fn new(id: u64) -> Option<RunId> {
        NonZeroU64::new(id).map(RunId)
    }

    pub fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{:016x}", self.0)
    }
}

/// A place in the member table. The generation tells a later tenant of the slot from the one meant.
///
/// 16 bits of it: nobody keeps a `Peer` while 65,536 others come and go in its slot. Rumors, suspicions and probes end
/// with their member; a grave that is mistaken for another's is one packet too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer {
    pub(crate) slot: u32,
    pub(crate) generation: u16,
}

/// Version of one member's metadata: the count of its changes in this run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version(pub u64);
