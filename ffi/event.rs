//! Events: who hears them, and where.

use std::ffi::{CString, c_char, c_int, c_void};
use std::ptr;
use std::sync::Arc;

use bruit_core::view::{Event, EventKind, Member};

use crate::callback::{User, bruit_free_fn};
use crate::convert::{Out, c_string, count, invalid, wait};
use crate::error::{Running, guard};
use crate::members::{Shown, bruit_member};
use crate::node::{bruit_node, handle_of, node_of};

/// A name that was not listed is alive; with membership = partial: it is a neighbour of this node now.
pub const BRUIT_EVENT_JOIN: u32 = 1;
/// Metadata or the address changed; `changed` says which.
pub const BRUIT_EVENT_UPDATE: u32 = 2;
/// A member does not answer; others are asked about it.
pub const BRUIT_EVENT_SUSPECT: u32 = 4;
/// A member refuted a suspicion, or is back: from death, or as a new run with a higher epoch (then `changed` has
/// BRUIT_CHANGED_EPOCH).
pub const BRUIT_EVENT_ALIVE: u32 = 8;
/// A suspicion ran out; with membership = partial: a neighbour of this node does not answer.
pub const BRUIT_EVENT_DEAD: u32 = 16;
/// A member left gracefully.
pub const BRUIT_EVENT_LEFT: u32 = 32;
/// A member has been dead or left for so long that it is listed no more (options "forget_dead", "forget_left"); with
/// membership = partial also: it is well, and no neighbour of this node any more.
pub const BRUIT_EVENT_FORGOTTEN: u32 = 64;
/// Another run with a higher epoch holds this node's name; this node has stopped announcing itself.
pub const BRUIT_EVENT_CONFLICT: u32 = 128;
/// The first view is complete: a seed's table is applied, or every seed failed once, and three gossip intervals
/// brought nobody new.
pub const BRUIT_EVENT_SETTLED: u32 = 256;
/// A join ended; `count` contacts answered.
pub const BRUIT_EVENT_JOINED: u32 = 512;
/// Peers know that this node left, or the time for telling them is over (then `status` is BRUIT_E_TIMEOUT).
pub const BRUIT_EVENT_LEAVE_DONE: u32 = 1024;
/// The inbox was full; `count` items were dropped.
pub const BRUIT_EVENT_OVERFLOW: u32 = 2048;
/// Something is wrong around this node; `text` says what.
pub const BRUIT_EVENT_WARNING: u32 = 4096;
/// The node has failed by a fault of bruit's own, `text` says why. Calls that would need it answer BRUIT_E_FAILED:
/// bruit_node_join(), _leave(), _set(), _set_meta(), _on_event() and _members(). Those that look at it, hear its last
/// events or end it do what they always do.
pub const BRUIT_EVENT_FATAL: u32 = 8192;
/// The member has the message that was sent with BRUIT_RECEIPT and this `id`; or will not have it, `status` says why.
pub const BRUIT_EVENT_RECEIPT: u32 = 16384;
/// After BRUIT_E_BUSY there is room again for messages to the member.
pub const BRUIT_EVENT_WRITABLE: u32 = 32768;
/// `count` broadcasts of `member` were missed, and nobody has them any more; `id` is the sequence of the first.
pub const BRUIT_EVENT_GAP: u32 = 65536;
/// A mask for every kind, those of later versions included: ignore a kind that you do not know.
pub const BRUIT_EVENT_ALL: u32 = 0xFFFF_FFFF;

/// Bits of bruit_event.changed: the member's state differs from `before`.
pub const BRUIT_CHANGED_STATE: u32 = 1;
/// Its metadata differs.
pub const BRUIT_CHANGED_META: u32 = 2;
/// Its address differs.
pub const BRUIT_CHANGED_ADDRESS: u32 = 4;
/// It is another run of the same name.
pub const BRUIT_CHANGED_EPOCH: u32 = 8;
/// It refuted something.
pub const BRUIT_CHANGED_INCARNATION: u32 = 16;

/// Something that happened. Fields that do not apply are 0 or NULL.
///
/// Events about one member come in order. They are about other members only, except BRUIT_EVENT_CONFLICT,
/// _LEAVE_DONE and _FATAL. Membership events are never lost: when the application is behind, those about one
/// member are merged, `changed` and `before` then span all of them.
#[repr(C)]
pub struct bruit_event {
    /** How much of this struct the library filled. */
    pub size: u32,
    /** One of BRUIT_EVENT_*. */
    pub kind: u32,
    /** Bits BRUIT_CHANGED_*: in what `member` differs from `before`. */
    pub changed: u32,
    /** Bits; none are defined yet. */
    pub flags: u32,
    /** The version of the view with this event in it, to compare with bruit_members_view(). */
    pub view: u64,
    /** The member as it is now. */
    pub member: *const bruit_member,
    /** The member as it was; NULL for BRUIT_EVENT_JOIN. */
    pub before: *const bruit_member,
    /** JOINED: numbers the calls of bruit_node_join() on this node, in the order in which they began; RECEIPT: the number
     *  that bruit_node_send() gave; GAP: the first sequence that was missed; others: 0. */
    pub id: u64,
    /** How many (JOINED, OVERFLOW, GAP). */
    pub count: u64,
    /** BRUIT_OK or an error code. */
    pub status: i32,
    /** For people. */
    pub text: *const c_char,
}

/// Hears events. `event` and all that it leads to is valid during the call only.
///
/// Calls are serial: never two at once for one node. In dispatch mode "thread" they come on the runtime's
/// dispatcher thread, in mode "manual" on the thread that calls bruit_node_dispatch(). No lock of bruit is
/// held. Everything may be called but bruit_node_free(), bruit_node_dispatch(), bruit_node_wait(), and
/// bruit_node_stop() with a timeout, on the same node: BRUIT_E_DEADLOCK. A C++ exception or longjmp must not
/// leave the callback.
pub type bruit_event_fn = Option<unsafe extern "C" fn(event: *const bruit_event, user: *mut c_void)>;

/// The name of a kind of event: "JOIN". Never NULL, never freed; "UNKNOWN" for other numbers.
#[unsafe(no_mangle)]
pub extern "C" fn bruit_event_name(kind: u32) -> *const c_char {
    match kind {
        BRUIT_EVENT_JOIN => c"JOIN",
        BRUIT_EVENT_UPDATE => c"UPDATE",
        BRUIT_EVENT_SUSPECT => c"SUSPECT",
        BRUIT_EVENT_ALIVE => c"ALIVE",
        BRUIT_EVENT_DEAD => c"DEAD",
        BRUIT_EVENT_LEFT => c"LEFT",
        BRUIT_EVENT_FORGOTTEN => c"FORGOTTEN",
        BRUIT_EVENT_CONFLICT => c"CONFLICT",
        BRUIT_EVENT_SETTLED => c"SETTLED",
        BRUIT_EVENT_JOINED => c"JOINED",
        BRUIT_EVENT_LEAVE_DONE => c"LEAVE_DONE",
        BRUIT_EVENT_OVERFLOW => c"OVERFLOW",
        BRUIT_EVENT_WARNING => c"WARNING",
        BRUIT_EVENT_FATAL => c"FATAL",
        BRUIT_EVENT_RECEIPT => c"RECEIPT",
        BRUIT_EVENT_WRITABLE => c"WRITABLE",
        BRUIT_EVENT_GAP => c"GAP",
        _ => c"UNKNOWN",
    }
    .as_ptr()
}

/// Subscribes to events. Subscribed before bruit_node_start(), a callback hears everything from the first event
/// on; one that comes later hears what happens from then on, and finds what was before in a snapshot.
///
/// \param mask the kinds wanted: BRUIT_EVENT_* or'ed together, or BRUIT_EVENT_ALL. Unknown bits, and none, are
///         BRUIT_E_INVALID.
/// \param callback required.
/// \param user handed to the callback; may be NULL.
/// \param free_fn frees `user`; may be NULL. See bruit_free_fn.
/// \param subscription receives a number for bruit_node_unsubscribe(); may be NULL.
/// \return BRUIT_OK; BRUIT_E_STATE on a stopped node.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bruit_node_on_event(
    node: *mut bruit_node,
    mask: u32,
    callback: bruit_event_fn,
    user: *mut c_void,
    free_fn: bruit_free_fn,
    subscription: *mut u64,
) -> c_int {
    guard(|| {
        let node = node_of(node)?;
        let mask = kinds(mask)?;
        let callback = callback.ok_or_else(|| invalid("callback is NULL"))?;
        // SAFETY: NULL or valid, as the caller promises.
        let subscription = unsafe { Out::optional(subscription) };
        let id = User::offer(user, free_fn, |user| {
            node.on_event(
                mask,
                Box::new(move |event| {
                    let shown = ShownEvent::new(event);
                    let _theirs = Running::a_callback();
                    // SAFETY: the caller vouches for the callback and its data, which lives as long as `user`.
                    unsafe { callback(&raw const shown.event, user.data()) };
                }),
            )
        })?;
        subscription.put(id);
        Ok(0)
    })
}

/// Ends a subscription. After this has returned, its callback does not run and will not run again: a call that
/// is under way on another thread is waited for. Inside its own callback it returns at once, and that call is
/// the last.
///
/// \return BRUIT_OK; BRUIT_E_NOT_FOUND where there is no such subscription (any more).
#[unsafe(no_mangle)]
pub extern "C" fn bruit_node_unsubscribe(node: *mut bruit_node, subscription: u64) -> c_int {
    guard(|| node_of(node)?.unsubscribe(subscription).map(|()| 0))
}

/// A descriptor for poll, epoll and event loops, of a node in dispatch mode "manual": readable while events
/// wait. Level-triggered. Call bruit_node_dispatch() when it is readable; never read, write or close it. The
/// same descriptor for the node's whole life, from before bruit_node_start() until it is freed.
///
/// \return the descriptor; BRUIT_E_STATE on a node in mode "thread".
#[unsafe(no_mangle)]
pub extern "C" fn bruit_node_event_fd(node: *const bruit_node) -> c_int {
    guard(|| node_of(node)?.event_fd())
}

/// Runs callbacks for waiting events on the calling thread; of a node in dispatch mode "manual". Never waits.
///
/// \param max at most so many events; 0 or less: what was waiting when the call began.
/// \return how many events were taken; BRUIT_E_BUSY while another thread is at it; BRUIT_E_STATE on a node in
///         mode "thread"; BRUIT_E_DEADLOCK in a callback of this node.
#[unsafe(no_mangle)]
pub extern "C" fn bruit_node_dispatch(node: *mut bruit_node, max: c_int) -> c_int {
    guard(|| handle_of(node)?.dispatch(max).map(count))
}

/// Waits until an event waits, for programs without an event loop; of a node in dispatch mode "manual".
///
/// \param timeout_ms 0 = just look, -1 = for ever.
/// \return 1 where events wait, or lines for the log callback, which bruit_node_dispatch() hands over, too, and does
///         not count; 0 after the timeout and after bruit_node_wakeup(); BRUIT_E_STATE on a stopped node without
///         events, and on a node in mode "thread"; BRUIT_E_DEADLOCK in a callback of this node.
#[unsafe(no_mangle)]
pub extern "C" fn bruit_node_wait(node: *mut bruit_node, timeout_ms: c_int) -> c_int {
    guard(|| node_of(node)?.wait(wait(timeout_ms)?).map(c_int::from))
}

/// Ends a bruit_node_wait() of another thread, or the next one where none is under way; makes the event descriptor
/// readable until the next bruit_node_dispatch(). Not for signal handlers.
///
/// \return BRUIT_OK; BRUIT_E_STATE on a node in mode "thread".
#[unsafe(no_mangle)]
pub extern "C" fn bruit_node_wakeup(node: *mut bruit_node) -> c_int {
    guard(|| node_of(node)?.wakeup().map(|()| 0))
}

/// Takes one event without a callback, for programs that would rather pull; of a node in dispatch mode
/// "manual". Without any subscription all kinds of events come; once there are some, only the kinds that one of
/// them asks for. Their callbacks do not run for an event that is taken: use either this or bruit_node_dispatch().
///
/// \param out receives the event, to be freed with bruit_event_free(). It may outlive the node.
/// \return 1 with an event, 0 where none waits (`out` is not written); BRUIT_E_STATE on a node in mode
///         "thread"; BRUIT_E_BUSY while another thread is in bruit_node_dispatch().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bruit_node_next_event(node: *mut bruit_node, out: *mut *const bruit_event) -> c_int {
    guard(|| {
        let handle = handle_of(node)?;
        // SAFETY: NULL or valid, as the caller promises.
        let out = unsafe { Out::new("out", out) }?;
        let Some(event) = handle.next_event()? else { return Ok(0) };
        out.put(Box::into_raw(Box::new(ShownEvent::new(&event))).cast());
        Ok(1)
    })
}

/// Frees an event of bruit_node_next_event(), with its members. Not for events that a callback is given. NULL
/// is allowed; freeing one twice is undefined.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bruit_event_free(event: *const bruit_event) {
    guard(|| {
        if !event.is_null() {
            // SAFETY: made by `bruit_node_next_event`, whose boxes begin with the event; freed once, as promised.
            drop(unsafe { Box::from_raw(event.cast_mut().cast::<ShownEvent>()) });
        }
        Ok(0)
    });
}

/// An event that C can look at.
#[repr(C)]
struct ShownEvent {
    /// First, so that its address is that of the whole.
    event: bruit_event,
    _member: Option<Arc<Shown>>,
    _before: Option<Arc<Shown>>,
    _text: Option<CString>,
}

impl ShownEvent {
    fn new(event: &Event) -> ShownEvent {
        let show = |member: &Option<Arc<Member>>| member.as_ref().map(|member| Arc::new(Shown::new(member, 0, 0)));
        let (member, before) = (show(&event.member), show(&event.before));
        let pointer = |shown: &Option<Arc<Shown>>| shown.as_ref().map_or(ptr::null(), |s| &raw const s.shown);
        let text = event.text.as_ref().map(|text| c_string(text));
        let event = bruit_event {
            size: size_of::<bruit_event>() as u32,
            kind: event.kind.bit(),
            changed: event.changed,
            flags: 0,
            view: event.view,
            member: pointer(&member),
            before: pointer(&before),
            id: event.id,
            count: event.count,
            status: event.status,
            text: text.as_ref().map_or(ptr::null(), |text| text.as_ptr()),
        };
        ShownEvent { event, _member: member, _before: before, _text: text }
    }
}

fn kinds(mask: u32) -> bruit_core::error::Result<u32> {
    let all = EventKind::ALL.iter().fold(0, |all, kind| all | kind.bit());
    match mask {
        BRUIT_EVENT_ALL => Ok(all),
        0 => Err(invalid("mask is 0: it would hear nothing")),
        _ if mask & !all != 0 => Err(invalid(format!("mask has unknown bits: {:#x}", mask & !all))),
        _ => Ok(mask),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;

    #[test]
    fn every_kind_has_its_constant_and_name() {
        let source = include_str!("event.rs");
        for kind in EventKind::ALL {
            let line = format!("pub const BRUIT_EVENT_{}: u32 = {};", kind.name(), kind.bit());
            assert!(source.contains(&line), "{line}");
            // SAFETY: never NULL.
            let name = unsafe { CStr::from_ptr(bruit_event_name(kind.bit())) };
            assert_eq!(name.to_str().unwrap(), kind.name());
        }
    }

    #[test]
    fn a_mask_has_known_bits_or_all() {
        assert_eq!(kinds(BRUIT_EVENT_JOIN | BRUIT_EVENT_DEAD).unwrap(), 17);
        assert_eq!(kinds(BRUIT_EVENT_ALL).unwrap().count_ones() as usize, EventKind::ALL.len());
        assert!(kinds(0).is_err());
        assert!(kinds(1 << 31).is_err());
    }
}
