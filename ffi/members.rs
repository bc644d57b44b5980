//! Views of the cluster. A snapshot holds core's shared view; what C wants to see of it (texts with a NUL) is made
//! when it is first asked for, in runs of members, so that taking one costs no more than core's view, which is made
//! once for all who ask for it between two changes.

use std::ffi::{c_char, c_int, c_void};
use std::sync::{Arc, OnceLock};

use bruit_core::error::{Code, Error, Result};
use bruit_core::view::{Member, MemberState, Meta, View};

use crate::convert::{Out, invalid, text};
use crate::error::{guard, guard_or, guard_ptr};
use crate::node::{bruit_node, node_of};

/// bruit_member.state: it answers.
pub const BRUIT_MEMBER_ALIVE: u32 = 1;
/// It did not answer a probe, and may yet refute the suspicion.
pub const BRUIT_MEMBER_SUSPECT: u32 = 2;
/// The suspicion ran out.
pub const BRUIT_MEMBER_DEAD: u32 = 3;
/// It said good-bye.
pub const BRUIT_MEMBER_LEFT: u32 = 4;

/// A bit of bruit_member.flags: this is the node itself.
pub const BRUIT_MEMBER_LOCAL: u32 = 1;
/// A bit of bruit_member.flags: the node has a link with it in the overlay.
pub const BRUIT_MEMBER_NEIGHBOUR: u32 = 2;

/// Longest node name, in bytes, without the NUL.
pub const BRUIT_NAME_MAX: usize = 255;

/// All members at one moment: immutable, sorted by name, shared between snapshots of one view.
///
/// Take one with bruit_node_members(), free it with bruit_members_free(). It may be used by several threads at
/// once and may outlive its node.
pub struct bruit_members {
    view: Arc<View>,
    /// Every `RUN` members.
    runs: Box<[OnceLock<Box<[Shown]>>]>,
}

/// What bruit keeps behind a bruit_member.
pub struct bruit_member_data {
    /// Name, address and IP, each with a NUL.
    text: Box<[u8]>,
    meta: Arc<Meta>,
    meta_shown: OnceLock<ShownMeta>,
}

/// One member as it was when the snapshot or event was made. Owned by that snapshot or event, and gone with it.
#[repr(C)]
pub struct bruit_member {
    /** How much of this struct the library filled. */
    pub size: u32,
    /** BRUIT_MEMBER_ALIVE, _SUSPECT, _DEAD or _LEFT. */
    pub state: u32,
    /** Bits: BRUIT_MEMBER_LOCAL, BRUIT_MEMBER_NEIGHBOUR. */
    pub flags: u32,
    /** UDP and TCP port. */
    pub port: u32,
    /** Unique in the cluster; 1 to BRUIT_NAME_MAX bytes of UTF-8. */
    pub name: *const c_char,
    /** IP and port: "10.0.0.7:18946", "[fd00::7]:18946". */
    pub address: *const c_char,
    /** The IP alone: "10.0.0.7", "fd00::7". */
    pub ip: *const c_char,
    /** Tells the runs of one name apart; a later run has a higher one. */
    pub epoch: u64,
    /** How often, in this run, it refuted a suspicion. */
    pub incarnation: u64,
    /** For how long it has been in `state`, by this node's clock; 0 in events. */
    pub state_age_ms: u64,
    /** Round-trip time of probes, smoothed; 0 where unknown, as in events. */
    pub rtt_us: u64,
    /** Version of bruit's protocol that it speaks. */
    pub protocol: u32,
    /** Its option "app_version". */
    pub app_version: u32,
    /** For bruit_member_meta() and its like. */
    pub data: *const bruit_member_data,
}

/// The name of a member's state: "ALIVE". Never NULL, never freed; "UNKNOWN" for other numbers.
#[unsafe(no_mangle)]
pub extern "C" fn bruit_member_state_name(state: u32) -> *const c_char {
    match state {
        BRUIT_MEMBER_ALIVE => c"ALIVE",
        BRUIT_MEMBER_SUSPECT => c"SUSPECT",
        BRUIT_MEMBER_DEAD => c"DEAD",
        BRUIT_MEMBER_LEFT => c"LEFT",
        _ => c"UNKNOWN",
    }
    .as_ptr()
}

/// Takes a snapshot of the members: the node itself, the living, the suspected, and the dead and left until they are
/// forgotten. The first snapshot after a change, or after a second, costs time for each member; all others of that
/// moment share it, and cost the same for any number of members.
///
/// \param out receives the snapshot, to be freed with bruit_members_free().
/// \return BRUIT_OK; BRUIT_E_STATE before the node was started for the first time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bruit_node_members(node: *const bruit_node, out: *mut *mut bruit_members) -> c_int {
    guard(|| {
        // SAFETY: NULL or valid, as the caller promises.
        let out = unsafe { Out::new("out", out) }?;
        let view = node_of(node)?.members()?;
        out.put(Box::into_raw(Box::new(bruit_members::new(view))));
        Ok(0)
    })
}

/// Frees a snapshot and all members that were taken from it. NULL is allowed; freeing one twice is undefined.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bruit_members_free(members: *mut bruit_members) {
    guard(|| {
        if !members.is_null() {
            // SAFETY: made by `bruit_node_members`, and freed once, as the caller promises.
            drop(unsafe { Box::from_raw(members) });
        }
        Ok(0)
    });
}

/// The version of the current view, which every change that an event reports counts up. An event whose `view` is not
/// above that of a snapshot is already in the snapshot.
///
/// \return the version; 0 before the node was started, or where the call failed (see bruit_last_error()).
#[unsafe(no_mangle)]
pub extern "C" fn bruit_node_view(node: *const bruit_node) -> u64 {
    guard_or(0, || Ok(node_of(node)?.view()))
}

/// The number of members in a snapshot, this node and the dead and left included; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bruit_members_len(members: *const bruit_members) -> usize {
    // SAFETY: NULL or a snapshot, as the caller promises.
    guard_or(0, || Ok(unsafe { snapshot(members) }?.view.members.len()))
}

/// The version of a snapshot, to compare with bruit_event.view; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bruit_members_view(members: *const bruit_members) -> u64 {
    // SAFETY: NULL or a snapshot, as the caller promises.
    guard_or(0, || Ok(unsafe { snapshot(members) }?.view.version))
}

/// The node itself; NULL for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bruit_members_local(members: *const bruit_members) -> *const bruit_member {
    guard_ptr(|| {
        // SAFETY: NULL or a snapshot, as the caller promises.
        let members = unsafe { snapshot(members) }?;
        Ok(members.show(members.view.local))
    })
}

/// The member at `index`, in order of names; NULL from bruit_members_len() on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bruit_members_at(members: *const bruit_members, index: usize) -> *const bruit_member {
    guard_ptr(|| {
        // SAFETY: NULL or a snapshot, as the caller promises.
        let members = unsafe { snapshot(members) }?;
        let len = members.view.members.len();
        if index >= len {
            return Err(Error::new(Code::NotFound, format!("no member at {index}: the snapshot has {len}")));
        }
        Ok(members.show(index))
    })
}

/// The member of that name, in whatever state; NULL where there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bruit_members_find(members: *const bruit_members, name: *const c_char) -> *const bruit_member {
    guard_ptr(|| {
        // SAFETY: NULL or a snapshot, NULL or a text, as the caller promises.
        let (members, name) = unsafe { (snapshot(members)?, text("name", name)?) };
        match members.view.position(name) {
            Some(index) => Ok(members.show(index)),
            None => Err(Error::new(Code::NotFound, format!("no member has the name {name:?}"))),
        }
    })
}

/// Members that carry a tag, among those that are alive or suspected, in order of names.
///
/// \param key_or_key_value "role" finds those that have the key at all, "role=db" those with this value.
/// \param out receives up to `cap` members, which belong to the snapshot; may be NULL where `cap` is 0.
/// \return how many there are, which may be more than `cap`; 0 also where the call failed (see bruit_last_error()).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bruit_members_with(
    members: *const bruit_members,
    key_or_key_value: *const c_char,
    out: *mut *const bruit_member,
    cap: usize,
) -> usize {
    guard_or(0, || {
        // SAFETY: NULL or a snapshot, NULL or a text, as the caller promises.
        let (members, tag) = unsafe { (snapshot(members)?, text("key_or_key_value", key_or_key_value)?) };
        if out.is_null() && cap > 0 {
            return Err(invalid(format!("out is NULL, with a capacity of {cap}")));
        }
        let mut found = 0;
        for (index, member) in members.view.members.iter().enumerate() {
            if member.state <= MemberState::Suspect && member.has(tag) {
                if found < cap {
                    // SAFETY: `out` has room for `cap` pointers, as the caller promises.
                    unsafe { out.add(found).write(members.show(index)) };
                }
                found += 1;
            }
        }
        Ok(found)
    })
}

/// One value of a member's metadata.
///
/// \param value receives the value, which belongs to the member; a NUL that `len` does not count follows it, so
///         that text can be used as it is. May be NULL.
/// \param len receives its length in bytes. May be NULL.
/// \return BRUIT_OK; BRUIT_E_NOT_FOUND where the member does not have the key.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bruit_member_meta(
    member: *const bruit_member,
    key: *const c_char,
    value: *mut *const c_void,
    len: *mut usize,
) -> c_int {
    guard(|| {
        // SAFETY: NULL or a member, NULL or a text, as the caller promises.
        let (meta, key) = unsafe { (meta_of(member)?, text("key", key)?) };
        let at = meta.entries.binary_search_by(|entry| meta.key(entry).cmp(key.as_bytes()));
        let Ok(at) = at else {
            return Err(Error::new(Code::NotFound, format!("the member has no key {key:?}")));
        };
        let entry = &meta.entries[at];
        // SAFETY: NULL or valid, as the caller promises.
        let (value, len) = unsafe { (Out::optional(value), Out::optional(len)) };
        value.put(meta.value(entry));
        len.put(entry.len);
        Ok(0)
    })
}

/// The number of keys in a member's metadata; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bruit_member_meta_len(member: *const bruit_member) -> usize {
    // SAFETY: NULL or a member, as the caller promises.
    guard_or(0, || Ok(unsafe { meta_of(member) }?.entries.len()))
}

/// A member's metadata by number, in order of keys.
///
/// \param index below bruit_member_meta_len().
/// \param key receives the key. May be NULL.
/// \param value, len as in bruit_member_meta().
/// \return BRUIT_OK; BRUIT_E_NOT_FOUND from bruit_member_meta_len() on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bruit_member_meta_at(
    member: *const bruit_member,
    index: usize,
    key: *mut *const c_char,
    value: *mut *const c_void,
    len: *mut usize,
) -> c_int {
    guard(|| {
        // SAFETY: NULL or a member, as the caller promises.
        let meta = unsafe { meta_of(member) }?;
        let Some(entry) = meta.entries.get(index) else {
            let len = meta.entries.len();
            return Err(Error::new(Code::NotFound, format!("no key at {index}: the member has {len}")));
        };
        // SAFETY: NULL or valid, as the caller promises.
        let (key, value, len) = unsafe { (Out::optional(key), Out::optional(value), Out::optional(len)) };
        key.put(meta.text[entry.key..].as_ptr().cast());
        value.put(meta.value(entry));
        len.put(entry.len);
        Ok(0)
    })
}

/// A member that C can look at. `shown` leads into `data`, which stays where it is when this moves.
pub struct Shown {
    pub shown: bruit_member,
    /// Keeps alive what `shown` points to.
    _data: Arc<bruit_member_data>,
}

// SAFETY: the pointers lead into `_data`, which is immutable but for its OnceLock.
unsafe impl Send for Shown {}
// SAFETY: as above.
unsafe impl Sync for Shown {}

impl Shown {
    pub fn new(member: &Member, state_age_ms: u64, rtt_us: u64) -> Shown {
        let (address, ip) = (member.address.to_string(), member.address.ip().to_string());
        let name: &str = &member.name;
        let text = [name, "\0", &address, "\0", &ip, "\0"].concat().into_bytes().into_boxed_slice();
        let data = Arc::new(bruit_member_data { text, meta: member.meta.clone(), meta_shown: OnceLock::new() });
        let at = |offset: usize| data.text[offset..].as_ptr().cast::<c_char>();
        let shown = bruit_member {
            size: size_of::<bruit_member>() as u32,
            state: member.state as u32,
            flags: flags(member),
            port: member.address.port().into(),
            name: at(0),
            address: at(name.len() + 1),
            ip: at(name.len() + address.len() + 2),
            epoch: member.epoch.0,
            incarnation: member.incarnation.0,
            state_age_ms,
            rtt_us,
            protocol: member.protocol,
            app_version: member.app_version,
            data: Arc::as_ptr(&data),
        };
        Shown { shown, _data: data }
    }
}

fn flags(member: &Member) -> u32 {
    let bit = |is: bool, bit: u32| if is { bit } else { 0 };
    bit(member.is_local, BRUIT_MEMBER_LOCAL) | bit(member.is_neighbour, BRUIT_MEMBER_NEIGHBOUR)
}

/// Members are made visible to C in runs of so many: a guess between one allocation each and all at once.
const RUN: usize = 32;

impl bruit_members {
    fn new(view: Arc<View>) -> bruit_members {
        let runs = view.members.len().div_ceil(RUN);
        bruit_members { view, runs: (0..runs).map(|_| OnceLock::new()).collect() }
    }

    fn show(&self, index: usize) -> *const bruit_member {
        let run = self.runs[index / RUN].get_or_init(|| {
            let first = index / RUN * RUN;
            let members = self.view.members.iter().zip(&self.view.rtt).skip(first).take(RUN);
            members
                .map(|(member, rtt)| {
                    let age = self.view.taken.since(member.since);
                    Shown::new(member, age.as_millis() as u64, rtt.as_micros() as u64)
                })
                .collect()
        });
        &raw const run[index % RUN].shown
    }
}

unsafe fn snapshot<'a>(members: *const bruit_members) -> Result<&'a bruit_members> {
    // SAFETY: NULL or a snapshot that is not freed meanwhile, as the caller promises.
    unsafe { members.as_ref() }.ok_or_else(|| invalid("members is NULL"))
}

/// Metadata with a NUL after every key and value.
struct ShownMeta {
    text: Box<[u8]>,
    /// Sorted by key, as the map was.
    entries: Box<[Entry]>,
}

struct Entry {
    key: usize,
    key_len: usize,
    value: usize,
    len: usize,
}

impl ShownMeta {
    fn new(meta: &Meta) -> ShownMeta {
        let mut text = Vec::new();
        let mut entries = Vec::with_capacity(meta.len());
        for (key, value) in meta {
            let entry =
                Entry { key: text.len(), key_len: key.len(), value: text.len() + key.len() + 1, len: value.len() };
            text.extend_from_slice(key.as_bytes());
            text.push(0);
            text.extend_from_slice(value);
            text.push(0);
            entries.push(entry);
        }
        ShownMeta { text: text.into(), entries: entries.into() }
    }

    fn key(&self, entry: &Entry) -> &[u8] {
        &self.text[entry.key..entry.key + entry.key_len]
    }

    fn value(&self, entry: &Entry) -> *const c_void {
        self.text[entry.value..].as_ptr().cast()
    }
}

unsafe fn meta_of<'a>(member: *const bruit_member) -> Result<&'a ShownMeta> {
    // SAFETY: NULL or a member whose snapshot or event is not freed meanwhile, as the caller promises.
    let data = unsafe { member.as_ref() }.ok_or_else(|| invalid("member is NULL"))?.data;
    // SAFETY: set by `Shown::new`; NULL where somebody made up a member.
    let data = unsafe { data.as_ref() }.ok_or_else(|| invalid("member is none of bruit's"))?;
    Ok(data.meta_shown.get_or_init(|| ShownMeta::new(&data.meta)))
}
