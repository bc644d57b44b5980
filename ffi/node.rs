//! The node: its life, its identity, and what it may change while it runs.

use std::ffi::{c_char, c_int, c_void};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bruit_core::error::{Code, Error, Result};
use bruit_core::runtime::{Adopt, LogSink, MessageQueue, Node};
use bruit_core::view::Event;

use crate::config::{Settings, bruit_config, meta_value, settings_of};
use crate::convert::{Out, array, invalid, put_text, text, wait};
use crate::error::guard;
use crate::handle::Slab;

/// bruit_node_state(): made, not started.
pub const BRUIT_NODE_NEW: c_int = 0;
/// Started.
pub const BRUIT_NODE_RUNNING: c_int = 1;
/// Telling the others that it leaves.
pub const BRUIT_NODE_LEAVING: c_int = 2;
/// Has left, and is silent.
pub const BRUIT_NODE_LEFT: c_int = 3;
/// Stopped for good.
pub const BRUIT_NODE_STOPPED: c_int = 4;
/// Failed by a fault of bruit's own; free it.
pub const BRUIT_NODE_FAILED: c_int = 5;

/// timeout_ms of calls that wait: for ever.
pub const BRUIT_FOREVER: c_int = -1;

/// One member of one cluster. Every function is thread-safe.
///
/// A token, not an address: NULL, a freed one and garbage are BRUIT_E_HANDLE. In a child process that was
/// forked after bruit_node_start(), every call is BRUIT_E_FORKED.
pub struct bruit_node;

/// A key and its value.
#[repr(C)]
pub struct bruit_kv {
    /** sizeof(bruit_kv), the same in all elements of an array; 0 means the three fields below. */
    pub size: u32,
    /** 1 to 255 bytes of text without control characters and '='. */
    pub key: *const c_char,
    /** Any bytes; NULL deletes the key. */
    pub value: *const c_void,
    /** Bytes of `value`; not looked at where it is NULL. */
    pub len: usize,
}

/// Makes a node. Binds nothing and starts no thread, so it survives daemon(), fork(), chroot() and setuid().
///
/// \param config is copied.
/// \param out receives the node, to be given back with bruit_node_free() or bruit_node_release().
/// \return BRUIT_OK; BRUIT_E_INVALID, BRUIT_E_ADDRESS: options that do not fit together, bruit_last_error() names
///         them; BRUIT_E_TOO_BIG: all keys and values of the metadata are larger than the option "meta_max";
///         BRUIT_E_AUTH: an address that others can reach, and no key.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bruit_node_new(config: *const bruit_config, out: *mut *mut bruit_node) -> c_int {
    guard(|| {
        let settings = settings_of(config)?;
        // SAFETY: NULL or valid, as the caller promises.
        let out = unsafe { Out::new("out", out) }?;
        let token = NODES.insert(Arc::new(Handle::new(settings)?))?;
        out.put(std::ptr::without_provenance_mut(token));
        Ok(0)
    })
}

/// Binds, starts the threads, and begins to join the seeds, which it never stops trying. On failure the node is
/// still BRUIT_NODE_NEW, and can be started again.
///
/// \return BRUIT_OK; BRUIT_E_IO: bruit_last_errno() says whether it is EADDRINUSE or EACCES; BRUIT_E_ADDRESS:
///         "bind" or "advertise" does not resolve; BRUIT_E_STATE: it was started before.
#[unsafe(no_mangle)]
pub extern "C" fn bruit_node_start(node: *mut bruit_node) -> c_int {
    guard(|| {
        let handle = handle_of(node)?;
        handle.node.start()?;
        handle.started_by.store(std::process::id(), Ordering::Release);
        handle.forget_adopted();
        Ok(0)
    })
}

/// Asks members of a cluster to let this node in, besides the seeds of the configuration.
///
/// \param addresses "host:port", or "host" with the usual port.
/// \param timeout_ms 0 = begin and return 0 at once, BRUIT_EVENT_JOINED follows; -1 = for ever, which is at
///         most the option "join_timeout".
/// \return how many answered (at least 1, when it waited); BRUIT_E_ADDRESS: malformed; BRUIT_E_TIMEOUT: none
///         has answered yet, the attempt goes on until "join_timeout" and ends with BRUIT_EVENT_JOINED;
///         BRUIT_E_REFUSED: all that answered refused; BRUIT_E_STATE: not running.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bruit_node_join(
    node: *mut bruit_node,
    addresses: *const *const c_char,
    count: usize,
    timeout_ms: c_int,
) -> c_int {
    guard(|| {
        let node = node_of(node)?;
        // SAFETY: NULL or `count` pointers, as the caller promises.
        let addresses = unsafe { array("addresses", addresses, count) }?;
        // SAFETY: each NULL or a text, as the caller promises.
        let contacts = addresses.iter().map(|&address| unsafe { text("an address", address) });
        let contacts: Vec<&str> = contacts.collect::<Result<_>>()?;
        if contacts.is_empty() {
            return Err(invalid("count is 0: expected at least one address"));
        }
        node.join(&contacts, wait(timeout_ms)?).map(crate::convert::count)
    })
}

/// Leaves gracefully: the others see LEFT instead of finding out. The node is silent afterwards; stop or free
/// it then.
///
/// \param timeout_ms 0 = begin and return at once, BRUIT_EVENT_LEAVE_DONE follows; -1 = until it is done.
/// \return BRUIT_OK: enough of the others know; BRUIT_E_TIMEOUT: they may know; the node goes silent all the
///         same; BRUIT_E_STATE: not running.
#[unsafe(no_mangle)]
pub extern "C" fn bruit_node_leave(node: *mut bruit_node, timeout_ms: c_int) -> c_int {
    guard(|| node_of(node)?.leave(wait(timeout_ms)?).map(|()| 0))
}

/// Stops at once: the others will find out (see bruit_node_leave() for the polite way). Idempotent. A stopped
/// node cannot be started again, but its last view can still be read.
///
/// \param timeout_ms 0 = begin to stop and return, which is legal anywhere, in callbacks too; -1 = until it has
///         stopped.
/// \return BRUIT_OK: stopped, no callback runs any more and user data is freed; BRUIT_E_TIMEOUT: still
///         stopping, no further callback starts, call again to wait; BRUIT_E_DEADLOCK: with a timeout, in a
///         callback of this node.
#[unsafe(no_mangle)]
pub extern "C" fn bruit_node_stop(node: *mut bruit_node, timeout_ms: c_int) -> c_int {
    guard(|| node_of(node)?.stop(wait(timeout_ms)?).map(|()| 0))
}

/// Stops the node, waits for that, and frees it. Of two threads that free one node, one gets BRUIT_E_HANDLE.
///
/// \return BRUIT_OK; BRUIT_E_DEADLOCK in a callback of this node, and nothing has happened:
///         bruit_node_release() is for there.
#[unsafe(no_mangle)]
pub extern "C" fn bruit_node_free(node: *mut bruit_node) -> c_int {
    guard(|| {
        node_of(node)?.free()?;
        NODES.remove(node.addr()).map(|_| 0)
    })
}

/// Gives the node up: no further callback starts, and it stops and frees itself on its own time. Never blocks,
/// and is legal anywhere. The handle is worthless when this returns.
///
/// A callback that is under way on another thread may still be running then; its user data is freed when it has
/// returned.
///
/// \return BRUIT_OK; BRUIT_E_HANDLE.
#[unsafe(no_mangle)]
pub extern "C" fn bruit_node_release(node: *mut bruit_node) -> c_int {
    guard(|| {
        handle_of(node)?;
        NODES.remove(node.addr())?.node.release();
        Ok(0)
    })
}

/// \return BRUIT_NODE_NEW, _RUNNING, _LEAVING, _LEFT, _STOPPED or _FAILED.
#[unsafe(no_mangle)]
pub extern "C" fn bruit_node_state(node: *const bruit_node) -> c_int {
    guard(|| Ok(node_of(node)?.state() as c_int))
}

/// The node's name: the option "name", or the one that was made up when the node was.
///
/// \param buf receives the name, NUL-terminated: BRUIT_NAME_MAX + 1 bytes always suffice. May be NULL where
///         `cap` is 0.
/// \param len receives the length without the NUL; on BRUIT_E_BUFFER the size that `buf` needs. May be NULL.
/// \return BRUIT_OK; BRUIT_E_BUFFER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bruit_node_name(
    node: *const bruit_node,
    buf: *mut c_char,
    cap: usize,
    len: *mut usize,
) -> c_int {
    guard(|| {
        let name = node_of(node)?.name();
        // SAFETY: NULL or `cap` bytes, NULL or valid, as the caller promises.
        unsafe { put_text(&name, buf, cap, len) }
    })
}

/// The address that the others are told, with the port that was really bound: "10.0.0.7:18946".
///
/// \param buf receives the address, NUL-terminated: 64 bytes always suffice. May be NULL where `cap` is 0.
/// \param len receives the length without the NUL; on BRUIT_E_BUFFER the size that `buf` needs. May be NULL.
/// \return BRUIT_OK; BRUIT_E_STATE before bruit_node_start(); BRUIT_E_BUFFER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bruit_node_address(
    node: *const bruit_node,
    buf: *mut c_char,
    cap: usize,
    len: *mut usize,
) -> c_int {
    guard(|| {
        let address = node_of(node)?.address()?.to_string();
        // SAFETY: NULL or `cap` bytes, NULL or valid, as the caller promises.
        unsafe { put_text(&address, buf, cap, len) }
    })
}

/// Changes an option of this node, if it is one of those that are marked live (BRUIT_OPTION_LIVE). On failure
/// nothing is changed.
///
/// \return BRUIT_OK; BRUIT_E_NOT_FOUND: no such option; BRUIT_E_STATE: not a live one; BRUIT_E_INVALID:
///         bruit_last_error() says what is expected.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bruit_node_set(node: *mut bruit_node, key: *const c_char, value: *const c_char) -> c_int {
    guard(|| {
        let node = node_of(node)?;
        // SAFETY: NULL or texts, as the caller promises.
        let (key, value) = unsafe { (text("key", key)?, text("value", value)?) };
        node.set(key, value).map(|()| 0)
    })
}

/// Changes this node's metadata. All keys of one call change together: the others see one UPDATE.
///
/// \param changes keys and values, copied; a value of NULL deletes its key, whatever its `len` is.
/// \return BRUIT_OK; BRUIT_E_TOO_BIG: all keys and values together would be larger than the option "meta_max";
///         BRUIT_E_INVALID: a malformed key; BRUIT_E_STATE: not running (bruit_config_set_meta() is for before the
///         start). Nothing is changed then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bruit_node_set_meta(node: *mut bruit_node, changes: *const bruit_kv, count: usize) -> c_int {
    guard(|| {
        let node = node_of(node)?;
        // SAFETY: NULL or `count` elements of which each has texts and bytes, as the caller promises.
        let changes = unsafe { changes_of(changes, count) }?;
        node.set_meta(&changes).map(|()| 0)
    })
}

pub struct Handle {
    node: Node,
    /// The thread that is in `dispatch`, or 0.
    dispatcher: AtomicUsize,
    /// The process that started it, or 0. Core tests it as well, but not where it has no error to give.
    started_by: AtomicU32,
    /// Duplicates of adopted sockets, until `start` has duplicated them in turn.
    adopted: Mutex<Vec<Arc<OwnedFd>>>,
    /// What bruit_node_recv() takes from, once it was called.
    pulled: Mutex<Option<Arc<MessageQueue>>>,
}

impl Handle {
    fn new(settings: Settings) -> Result<Handle> {
        let Settings { config, udp, tcp, runtime, log } = settings;
        let raw = |fd: &Option<Arc<OwnedFd>>| fd.as_ref().map(|fd| fd.as_raw_fd());
        let adopt = Adopt { udp: raw(&udp), tcp: raw(&tcp) };
        let log = log.map(|log| LogSink::new(log.max_level, move |level, target, text| log.write(level, target, text)));
        let node = Node::new_with(&config, runtime, adopt, log)?;
        let adopted = Mutex::new(udp.into_iter().chain(tcp).collect());
        Ok(Handle {
            node,
            dispatcher: AtomicUsize::new(0),
            started_by: AtomicU32::new(0),
            adopted,
            pulled: Mutex::new(None),
        })
    }

    pub fn dispatch(&self, max: c_int) -> Result<usize> {
        // Whoever comes second is refused by core, and leaves the first one's mark alone.
        let _mark = Mark::leave(&self.dispatcher);
        self.node.dispatch(max)
    }

    /// Callbacks of the thread that dispatches may pull as well; others would take events out of its order.
    pub fn next_event(&self) -> Result<Option<Event>> {
        match self.dispatcher.load(Ordering::Acquire) {
            0 => {}
            thread if thread == this_thread() => {}
            _ => return Err(Error::new(Code::Busy, "another thread is dispatching")),
        }
        self.node.next_event()
    }

    pub fn pulled(&self) -> Result<Arc<MessageQueue>> {
        // It guards a pointer, and whoever panicked has left it whole.
        let mut pulled = self.pulled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = &*pulled {
            return Ok(queue.clone());
        }
        let queue = Arc::new(self.node.message_queue("*")?);
        *pulled = Some(queue.clone());
        Ok(queue)
    }

    /// Else the port would stay bound after a stop.
    fn forget_adopted(&self) {
        // Only a second `start` could hold the lock, and it would do the same.
        if let Ok(mut adopted) = self.adopted.try_lock() {
            adopted.clear();
        }
    }
}

/// This thread dispatches, until dropped.
struct Mark<'a>(Option<&'a AtomicUsize>);

impl Mark<'_> {
    fn leave(place: &AtomicUsize) -> Mark<'_> {
        let first = place.compare_exchange(0, this_thread(), Ordering::AcqRel, Ordering::Relaxed).is_ok();
        Mark(first.then_some(place))
    }
}

impl Drop for Mark<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.0 {
            place.store(0, Ordering::Release);
        }
    }
}

/// Never 0, and valid also while the thread is torn down.
fn this_thread() -> usize {
    // SAFETY: it takes nothing and cannot fail.
    unsafe { libc::pthread_self() as usize }
}

static NODES: Slab<Handle> = Slab::new(3, "node");

/// The way into every call on a node: no lock has been touched when a forked child is turned away here.
pub fn handle_of(node: *const bruit_node) -> Result<Arc<Handle>> {
    let handle = NODES.get(node.addr())?;
    match handle.started_by.load(Ordering::Acquire) {
        0 => Ok(handle),
        pid if pid == std::process::id() => Ok(handle),
        pid => Err(Error::new(Code::Forked, format!("the node was started by process {pid}; this is a child of it"))),
    }
}

pub fn node_of(node: *const bruit_node) -> Result<Node> {
    handle_of(node).map(|handle| handle.node.clone())
}

/// A key, and its new value or none.
type Change<'a> = (&'a str, Option<&'a [u8]>);

/// The three fields of the first version of the struct, read at the distance that the caller's version of it has.
///
/// # Safety
/// `changes` is NULL or leads to `count` elements with valid texts and bytes, which stay as they are for `'a`.
unsafe fn changes_of<'a>(changes: *const bruit_kv, count: usize) -> Result<Vec<Change<'a>>> {
    // SAFETY: promised by the caller; the first element has at least the fields of the first version.
    let Some(first) = (unsafe { array("changes", changes, count.min(1)) })?.first() else {
        return Err(invalid("count is 0: expected at least one key"));
    };
    let (size, least) = (first.size as usize, size_of::<bruit_kv>());
    let stride = if size == 0 { least } else { size };
    if stride < least || stride % align_of::<bruit_kv>() != 0 || count > isize::MAX as usize / stride {
        return Err(invalid(format!("bruit_kv.size is {size}, count is {count}: expected sizeof(bruit_kv)")));
    }
    (0..count)
        .map(|n| {
            // SAFETY: within the array, as the caller promises.
            let kv = unsafe { &*changes.byte_add(n * stride) };
            if kv.size != first.size {
                return Err(invalid("bruit_kv.size differs within one array"));
            }
            // SAFETY: promised by the caller.
            Ok(unsafe { (text("key", kv.key)?, meta_value(kv.value, kv.len)?) })
        })
        .collect()
}
