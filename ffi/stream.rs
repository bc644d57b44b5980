//! Byte streams.

use std::ffi::{c_char, c_int, c_void};
use std::ptr;
use std::sync::Arc;

use bruit_core::error::Result;
use bruit_core::runtime::Stream;

use crate::callback::{bruit_free_fn, subscribe};
use crate::convert::{Out, array, bytes, count, invalid, put_text, text, wait};
use crate::error::{Running, guard};
use crate::handle::Slab;
use crate::message::{check_flags, error_of, topic_of};
use crate::node::{bruit_node, node_of};

/// bruit_node_open_stream(): what either side writes is compressed on its way, where that is shorter.
pub const BRUIT_COMPRESS: u32 = 32;

/// bruit_stream_fd(): what is readable while bruit_stream_read() would not wait.
pub const BRUIT_STREAM_READ: c_int = 0;
/// What is readable, too, while bruit_stream_write() would not wait.
pub const BRUIT_STREAM_WRITE: c_int = 1;

/// A byte stream to a member, both ways. One thread may read it and another write it. It may outlive its node, and has ended then.
///
/// A token, not an address: NULL, a closed one and garbage are BRUIT_E_HANDLE.
pub struct bruit_stream;

/// Gets a stream that a member has opened. It is the callback's own, to be closed with bruit_stream_close(): there, or later
/// by any thread. The rules are those of bruit_event_fn; whoever reads to the end here keeps all other callbacks waiting.
pub type bruit_stream_fn = Option<unsafe extern "C" fn(stream: *mut bruit_stream, user: *mut c_void)>;

/// Opens a byte stream to a member, or to this node itself. Returns at once: where nobody takes it there, reading and writing
/// are BRUIT_E_NO_HANDLER.
///
/// \param member its name.
/// \param topic at most BRUIT_TOPIC_MAX bytes; NULL is "", the default topic.
/// \param flags bits BRUIT_COMPRESS.
/// \param stream receives the stream, to be closed with bruit_stream_close().
/// \return BRUIT_OK; BRUIT_E_NOT_FOUND: no such member; BRUIT_E_UNREACHABLE: dead, or has left; BRUIT_E_LIMIT: the option
///         "max_streams" or "max_member_streams" is reached; BRUIT_E_STATE: not running.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bruit_node_open_stream(
    node: *mut bruit_node,
    member: *const c_char,
    topic: *const c_char,
    flags: u32,
    stream: *mut *mut bruit_stream,
) -> c_int {
    guard(|| {
        let node = node_of(node)?;
        // SAFETY: NULL or texts, NULL or valid, as the caller promises.
        let (member, topic, out) = unsafe { (text("member", member)?, topic_of(topic)?, Out::new("stream", stream)?) };
        check_flags(flags, BRUIT_COMPRESS)?;
        let opened = node.open_stream(member, topic, flags & BRUIT_COMPRESS != 0)?;
        out.put(token(opened)?);
        Ok(0)
    })
}

/// Takes the streams that members open under a topic. Of several callbacks that match, the first gets the stream. Where there
/// is none, who opened it gets BRUIT_E_NO_HANDLER.
///
/// \param topic NULL is "", the default topic; "*" are all.
/// \param callback required.
/// \param user handed to the callback; may be NULL.
/// \param free_fn frees `user`; may be NULL. See bruit_free_fn.
/// \param subscription receives a number for bruit_node_unsubscribe(); may be NULL.
/// \return BRUIT_OK; BRUIT_E_STATE on a stopped node.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bruit_node_on_stream(
    node: *mut bruit_node,
    topic: *const c_char,
    callback: bruit_stream_fn,
    user: *mut c_void,
    free_fn: bruit_free_fn,
    subscription: *mut u64,
) -> c_int {
    // SAFETY: NULL or a text, NULL or valid, as the caller promises.
    unsafe {
        subscribe(node, topic, callback, user, free_fn, subscription, |node, topic, callback, user| {
            let take = move |stream: Stream| {
                // One that there is no room for is closed.
                let Ok(token) = token(stream) else { return };
                let _theirs = Running::a_callback();
                // SAFETY: the caller vouches for the callback and its data, which lives as long as `user`.
                callback(token, user.data());
            };
            node.on_stream(topic, Box::new(take))
        })
    }
}

/// Reads what there is: at least a byte, at most `cap`.
///
/// \param timeout_ms how long to wait for something: 0 not at all, -1 for ever.
/// \return how many bytes; 0 at the end; BRUIT_E_BUSY: nothing yet, with `timeout_ms` 0; BRUIT_E_TIMEOUT: nothing in time;
///         when all that has come is read: BRUIT_E_UNREACHABLE: the member is dead or has left; BRUIT_E_NO_HANDLER: nobody took the stream there;
///         BRUIT_E_LIMIT: it has too many; BRUIT_E_CANCELED: this node was stopped; BRUIT_E_REMOTE, and whatever else
///         bruit_stream_fail() was given there; BRUIT_E_CORRUPT: what came is no
///         compressed block; BRUIT_E_STATE: closed meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bruit_stream_read(
    stream: *mut bruit_stream,
    buf: *mut c_void,
    cap: usize,
    timeout_ms: c_int,
) -> c_int {
    guard(|| {
        let stream = stream_of(stream)?;
        let cap = cap.min(c_int::MAX as usize);
        // SAFETY: NULL or `cap` bytes, as the caller promises; nothing of them is read.
        unsafe { array("buf", buf.cast_const().cast::<u8>(), cap) }?;
        let wait = wait(timeout_ms)?;
        if cap == 0 {
            return Ok(0);
        }
        // SAFETY: as above: bytes that are the caller's to be written. They may be new, and bytes of any value are bytes.
        let buf = unsafe { std::slice::from_raw_parts_mut(buf.cast::<u8>(), cap) };
        stream.read(buf, wait).map(count)
    })
}

/// Writes as much as there is room for: at least a byte, at most `len`. The data is copied before this returns.
///
/// \param timeout_ms how long to wait for room: 0 not at all, -1 for ever.
/// \return how many bytes; BRUIT_E_BUSY: no room, with `timeout_ms` 0; BRUIT_E_TIMEOUT: none in time; BRUIT_E_STATE: shut down
///         or closed; BRUIT_E_CANCELED: the other side has closed it; and what ends bruit_stream_read().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bruit_stream_write(
    stream: *mut bruit_stream,
    data: *const c_void,
    len: usize,
    timeout_ms: c_int,
) -> c_int {
    guard(|| {
        let stream = stream_of(stream)?;
        // SAFETY: NULL or `len` bytes, as the caller promises.
        let data = unsafe { bytes("data", data, len.min(c_int::MAX as usize)) }?;
        stream.write(data, wait(timeout_ms)?).map(count)
    })
}

/// A descriptor for poll(), epoll and event loops. Wait for it to be readable, in either case; never read or close it. It
/// closes with the stream.
///
/// \param which BRUIT_STREAM_READ or BRUIT_STREAM_WRITE.
/// \return the descriptor; BRUIT_E_IO: there is none left.
#[unsafe(no_mangle)]
pub extern "C" fn bruit_stream_fd(stream: *const bruit_stream, which: c_int) -> c_int {
    guard(|| {
        let stream = stream_of(stream)?;
        match which {
            BRUIT_STREAM_READ => stream.read_fd(),
            BRUIT_STREAM_WRITE => stream.write_fd(),
            _ => Err(invalid(format!("which is {which}: expected BRUIT_STREAM_READ or BRUIT_STREAM_WRITE"))),
        }
    })
}

/// The name of the member at the other end.
///
/// \param buf receives the name, NUL-terminated. May be NULL where `cap` is 0.
/// \param len receives the length without the NUL; on BRUIT_E_BUFFER the size that `buf` needs. May be NULL.
/// \return BRUIT_OK; BRUIT_E_BUFFER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bruit_stream_peer(
    stream: *const bruit_stream,
    buf: *mut c_char,
    cap: usize,
    len: *mut usize,
) -> c_int {
    guard(|| {
        let stream = stream_of(stream)?;
        // SAFETY: NULL or `cap` bytes, NULL or valid, as the caller promises.
        unsafe { put_text(stream.peer(), buf, cap, len) }
    })
}

/// The topic that it was opened under.
///
/// \param buf receives the topic, NUL-terminated: BRUIT_TOPIC_MAX + 1 bytes suffice. May be NULL where `cap` is 0.
/// \param len receives the length without the NUL; on BRUIT_E_BUFFER the size that `buf` needs. May be NULL.
/// \return BRUIT_OK; BRUIT_E_BUFFER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bruit_stream_topic(
    stream: *const bruit_stream,
    buf: *mut c_char,
    cap: usize,
    len: *mut usize,
) -> c_int {
    guard(|| {
        let stream = stream_of(stream)?;
        // SAFETY: NULL or `cap` bytes, NULL or valid, as the caller promises.
        unsafe { put_text(stream.topic(), buf, cap, len) }
    })
}

/// There is no more to come from here: the other side reads to the end, and may go on writing.
///
/// \return BRUIT_OK.
#[unsafe(no_mangle)]
pub extern "C" fn bruit_stream_shutdown(stream: *mut bruit_stream) -> c_int {
    guard(|| stream_of(stream)?.shutdown().map(|()| 0))
}

/// Ends both ways, and the handle: the other side reads what was written to its end, and what it writes is BRUIT_E_CANCELED.
/// A read or write that waits on another thread is BRUIT_E_STATE. Legal anywhere, and never waits.
///
/// \return BRUIT_OK; BRUIT_E_HANDLE.
#[unsafe(no_mangle)]
pub extern "C" fn bruit_stream_close(stream: *mut bruit_stream) -> c_int {
    guard(|| {
        // Whoever waits in it has it as well.
        STREAMS.remove(stream.addr())?.close();
        Ok(0)
    })
}

/// Ends both ways as something that is not whole: the other side reads what has come there, and then gets this error, as does
/// who writes. Here reading and writing are BRUIT_E_STATE from now on, and bruit_stream_close() is still to be called. Nothing
/// happens where it has ended already. Legal anywhere, and never waits.
///
/// \param code what bruit_stream_read() returns there: BRUIT_E_REMOTE is the usual one, and what BRUIT_E_BUSY and BRUIT_E_TIMEOUT arrive as.
/// \param words what bruit_last_error() says there, cut to 1,024 bytes; may be NULL.
/// \return BRUIT_OK; BRUIT_E_INVALID: not an error code.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bruit_stream_fail(stream: *mut bruit_stream, code: c_int, words: *const c_char) -> c_int {
    guard(|| {
        let stream = stream_of(stream)?;
        // SAFETY: NULL or a text, as the caller promises.
        let (code, words) = unsafe { error_of(code, words) }?;
        stream.fail(code, words);
        Ok(0)
    })
}

static STREAMS: Slab<Stream> = Slab::new(4, "stream");

fn token(stream: Stream) -> Result<*mut bruit_stream> {
    STREAMS.insert(Arc::new(stream)).map(ptr::without_provenance_mut)
}

fn stream_of(stream: *const bruit_stream) -> Result<Arc<Stream>> {
    STREAMS.get(stream.addr())
}
