//! What one member tells about itself: keys and values that only it writes.
//!
//! Every change takes the next version, so one number says what a replica knows, and the entries above
//! it are what the replica lacks (Scuttlebutt §3: only the newest value of a key is kept, so a delta has
//! no holes). A deleted key leaves a tombstone; when there are too many, the oldest go, and `floor`
//! remembers how far that went: a replica below the floor is given the whole state at once, and replaces
//! its own by it. That is why nothing deleted can come back (chitchat's issues 110 and 161 are what
//! happens without).

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::{Deref, DerefMut};

use crate::config::check_meta_key;
use crate::error::{Code, Error, Result};
use crate::id::Version;
use crate::view::Meta;
use crate::wire::frame::{Entries, META_KEYS_MAX, StateEntry};

/// All keys and values of one member, in bytes. What peers claim beyond it is refused, whatever our own `meta_max` says:
/// if members differed in what they take, their tables would never agree.
pub const STATE_MAX: usize = 64 << 10;

/// Tombstones kept. Beyond it the oldest go, and replicas that are that far behind get the whole state.
const TOMBSTONES_MAX: usize = 64;

#[derive(Debug, Default)]
pub struct State {
    slots: BTreeMap<Arc<str>, Slot>,
    version: Version,
    floor: Version,
    /// The version before the last change: a rumor carries what came after it.
    base: Version,
}

#[derive(Debug)]
struct Slot {
    version: Version,
    value: Option<Arc<[u8]>>,
}

/// A state that most often is empty, and takes memory only when it is not.
#[derive(Debug, Default)]
pub struct SparseState(Option<Box<State>>);

impl Deref for SparseState {
    type Target = State;

    fn deref(&self) -> &State {
        static EMPTY: State =
            State { slots: BTreeMap::new(), version: Version(0), floor: Version(0), base: Version(0) };
        self.0.as_deref().unwrap_or(&EMPTY)
    }
}

impl DerefMut for SparseState {
    fn deref_mut(&mut self) -> &mut State {
        self.0.get_or_insert_default()
    }
}

/// What came of a delta.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// We are at its `to` now.
    Changed,
    /// Nothing that we did not have.
    Known,
    /// It starts above what we have: something is missing and must be pulled.
    Gap,
    /// It would exceed `STATE_MAX` or `META_KEYS_MAX`.
    TooBig,
}

impl State {
    pub fn version(&self) -> Version {
        self.version
    }

    pub fn base(&self) -> Version {
        self.base
    }

    /// The owner's write: all changes at once, one new version each. `None` deletes.
    /// `E_TOO_BIG` where all keys and values together would exceed `max` bytes, `E_INVALID` for a bad key: nothing changed.
    pub fn set(&mut self, changes: &[(&str, Option<&[u8]>)], max: usize) -> Result<bool> {
        // The last of several changes to one key is the one that counts.
        let changes: BTreeMap<&str, Option<&[u8]>> = changes.iter().copied().collect();
        for key in changes.keys() {
            check_meta_key(key)?;
        }
        let (size, keys) = self.size_with(changes.iter().map(|(&k, &v)| (k, v)));
        if size > max || keys > META_KEYS_MAX {
            let text = alloc::format!(
                "metadata would take {size} bytes in {keys} keys, the limits are {max} and {META_KEYS_MAX}; nothing changed"
            );
            return Err(Error::new(Code::TooBig, text));
        }
        let before = self.version;
        for (key, value) in changes {
            if self.get(key).map(|v| &**v) == value {
                continue;
            }
            self.version.0 += 1;
            self.slots.insert(key.into(), Slot { version: self.version, value: value.map(Into::into) });
        }
        if self.version == before {
            return Ok(false);
        }
        self.base = before;
        self.bury();
        Ok(true)
    }

    /// A replica's write.
    pub fn apply(&mut self, base: Version, to: Version, reset: bool, entries: Entries<'_>) -> Applied {
        if to <= self.version {
            return Applied::Known;
        }
        if !reset && base > self.version {
            return Applied::Gap;
        }
        let had = self.version;
        let news = entries.iter::<StateEntry<'_>>().filter(|e| reset || e.version > had);
        let news: BTreeMap<&str, StateEntry<'_>> = news.map(|e| (e.key, e)).collect();
        let nothing = State::default();
        let start = if reset { &nothing } else { &*self };
        let (size, keys) = start.size_with(news.values().map(|e| (e.key, e.value)));
        if size > STATE_MAX || keys > META_KEYS_MAX {
            return Applied::TooBig;
        }
        if reset {
            self.slots.clear();
            self.floor = to;
        }
        for entry in news.values() {
            let slot = Slot { version: entry.version, value: entry.value.map(Into::into) };
            self.slots.insert(entry.key.into(), slot);
        }
        self.base = had;
        self.version = to;
        self.bury();
        Applied::Changed
    }

    /// Writes into `buf` what a replica at `have` lacks. True: it must replace what it has.
    pub fn delta(&self, have: Version, buf: &mut Vec<u8>) -> bool {
        buf.clear();
        let reset = have < self.floor || have == Version(0);
        for (key, slot) in &self.slots {
            if if reset { slot.value.is_some() } else { slot.version > have } {
                Entries::push(buf, &StateEntry { key, version: slot.version, value: slot.value.as_deref() });
            }
        }
        reset
    }

    /// `key` alone asks whether the key is there; `key=value` compares its value.
    pub fn has(&self, tag: &str) -> bool {
        match tag.split_once('=') {
            None => self.get(tag).is_some(),
            Some((key, value)) => self.get(key).is_some_and(|v| **v == *value.as_bytes()),
        }
    }

    pub fn meta(&self) -> Meta {
        self.slots.iter().filter_map(|(k, s)| Some((k.clone(), s.value.clone()?))).collect()
    }

    /// Bytes of all keys and values.
    pub fn size(&self) -> usize {
        self.slots.iter().filter_map(|(k, s)| Some(k.len() + s.value.as_ref()?.len())).sum()
    }

    /// Bytes and keys that there would be after these changes.
    fn size_with<'a>(&self, changes: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>) -> (usize, usize) {
        let mut size = self.size();
        let mut keys = self.slots.values().filter(|s| s.value.is_some()).count();
        for (key, value) in changes {
            if let Some(old) = self.get(key) {
                size -= key.len() + old.len();
                keys -= 1;
            }
            if let Some(new) = value {
                size += key.len() + new.len();
                keys += 1;
            }
        }
        (size, keys)
    }

    fn get(&self, key: &str) -> Option<&Arc<[u8]>> {
        self.slots.get(key)?.value.as_ref()
    }

    fn bury(&mut self) {
        let mut dead: Vec<Version> = self.slots.values().filter(|s| s.value.is_none()).map(|s| s.version).collect();
        if dead.len() <= TOMBSTONES_MAX {
            return;
        }
        dead.sort_unstable();
        let last = dead[dead.len() - TOMBSTONES_MAX - 1];
        self.slots.retain(|_, s| s.value.is_some() || s.version > last);
        self.floor = self.floor.max(last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pull(owner: &State, replica: &mut State) -> Applied {
        let mut buf = Vec::new();
        let reset = owner.delta(replica.version(), &mut buf);
        replica.apply(replica.version(), owner.version(), reset, Entries(&buf))
    }

    #[test]
    fn a_delta_brings_a_replica_to_the_owners_version() {
        let (mut owner, mut replica) = (State::default(), State::default());
        owner.set(&[("role", Some(b"db")), ("zone", Some(b"eu"))], 100).unwrap();
        assert_eq!(pull(&owner, &mut replica), Applied::Changed);

        owner.set(&[("role", Some(b"web")), ("zone", None)], 100).unwrap();
        assert_eq!(pull(&owner, &mut replica), Applied::Changed);

        assert_eq!(replica.meta(), owner.meta());
        assert_eq!(replica.meta().len(), 1);
        assert_eq!(pull(&owner, &mut replica), Applied::Known);
    }

    #[test]
    fn a_delta_from_above_what_we_have_is_a_gap() {
        let mut replica = State::default();
        assert_eq!(replica.apply(Version(3), Version(4), false, Entries(&[])), Applied::Gap);
        assert_eq!(replica.version(), Version(0));
    }

    #[test]
    fn a_deleted_key_never_comes_back_even_when_its_tombstone_is_gone() {
        let (mut owner, mut replica) = (State::default(), State::default());
        owner.set(&[("ghost", Some(b"boo")), ("keep", Some(b"1"))], 10_000).unwrap();
        pull(&owner, &mut replica);
        owner.set(&[("ghost", None)], 10_000).unwrap();
        for i in 0..2 * TOMBSTONES_MAX {
            let key = alloc::format!("k{i}");
            owner.set(&[(&key, Some(b"x"))], 10_000).unwrap();
            owner.set(&[(&key, None)], 10_000).unwrap();
        }

        pull(&owner, &mut replica);

        assert!(owner.slots.len() <= TOMBSTONES_MAX + 1);
        assert_eq!(replica.meta(), owner.meta());
        assert!(!replica.meta().contains_key("ghost"));
    }

    #[test]
    fn a_refused_write_changes_nothing() {
        let mut owner = State::default();
        owner.set(&[("a", Some(b"1"))], 10).unwrap();
        assert_eq!(owner.set(&[("a", None), ("b", Some(&[0; 20]))], 10).unwrap_err().code, Code::TooBig);
        assert_eq!(owner.set(&[("", Some(b"1"))], 10).unwrap_err().code, Code::Invalid);
        assert_eq!((owner.version(), owner.size()), (Version(1), 2));
        assert!(!owner.set(&[("a", Some(b"1"))], 10).unwrap(), "the same value again is no change");
    }
}
