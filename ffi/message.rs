//! Messages: sending, asking, answering, and who hears them.

use std::ffi::{CString, c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bruit_core::engine::Sending;
use bruit_core::error::{Code, Error, Result};
use bruit_core::id::NAME_MAX;
use bruit_core::message::{Body, Manner, TOPIC_MAX, ToAll, Verdict};
use bruit_core::runtime::{Each, Message, Parcel, Sent, To, Wait};

use crate::callback::{User, bruit_free_fn, subscribe};
use crate::convert::{Out, array, bytes, c_string, count, has_size, invalid, text, texts, wait};
use crate::error::{Running, guard};
use crate::node::{bruit_node, handle_of, node_of};

/// Longest topic, in bytes.
pub const BRUIT_TOPIC_MAX: usize = 64;

/// bruit_node_send(): in order, once, and sent again where a link has ended. Without it: in a datagram that may be lost.
pub const BRUIT_RELIABLE: u32 = 1;
/// Reliable, and BRUIT_EVENT_RECEIPT says when the member has it.
pub const BRUIT_RECEIPT: u32 = 2;
/// Waits for room, where BRUIT_E_BUSY would be the answer.
pub const BRUIT_WAIT: u32 = 4;

/// bruit_node_broadcast(): this node hears it as well.
pub const BRUIT_LOOPBACK: u32 = 8;
/// bruit_node_broadcast(): who hears it has heard before what this node has said like that under the same topic, or has been
/// told by BRUIT_EVENT_GAP that it is lost.
pub const BRUIT_ORDERED: u32 = 16;

/// bruit_message.flags: its sender waits for an answer: bruit_message_reply().
pub const BRUIT_MESSAGE_REQUEST: u32 = 1;
/// It came in order, and once.
pub const BRUIT_MESSAGE_RELIABLE: u32 = 2;
/// It was said to all members.
pub const BRUIT_MESSAGE_BROADCAST: u32 = 4;
/// It was asked of many, and so BRUIT_MESSAGE_REQUEST: answers are of use for a while only.
pub const BRUIT_MESSAGE_QUERY: u32 = 8;

/// What a member said, or answered. Valid during the callback that it is given to; bruit_message_ref() keeps it.
#[repr(C)]
pub struct bruit_message {
    /** How much of this struct the library filled. */
    pub size: u32,
    /** Bits BRUIT_MESSAGE_*. */
    pub flags: u32,
    /** The name of the member that said it. */
    pub sender: *const c_char,
    /** In which of its lives; 0 with an answer. */
    pub epoch: u64,
    /** Its topic; "" with an answer. */
    pub topic: *const c_char,
    /** What was said. */
    pub data: *const c_void,
    /** Bytes of it. */
    pub len: usize,
}

/// A message to be sent. Set it to zeros and `size` before filling it in.
#[repr(C)]
pub struct bruit_out {
    /** sizeof(bruit_out). */
    pub size: u32,
    /** Bits BRUIT_RELIABLE, BRUIT_RECEIPT. */
    pub flags: u32,
    /** To this member; */
    pub member: *const c_char,
    /** or, where that is NULL, to all others that are alive and have this metadata: "key" or "key=value"; */
    pub tag: *const c_char,
    /** or, where both are NULL, to each of these. */
    pub members: *const *const c_char,
    /** How many of them. */
    pub member_count: usize,
    /** Receive what became of each: BRUIT_OK or an error, and with BRUIT_RECEIPT its number. As many as members; may be NULL. */
    pub statuses: *mut c_int,
    /** Those numbers. */
    pub ids: *mut u64,
    /** At most BRUIT_TOPIC_MAX bytes; NULL is "", the default topic. */
    pub topic: *const c_char,
    /** What to say. */
    pub data: *const c_void,
    /** Bytes of it. */
    pub len: usize,
    /** Of a request: how long to wait for the answer; -1 for ever. */
    pub timeout_ms: c_int,
    /** Receives what became of it: BRUIT_OK, to several how many have it now in their queue, or an error where none has. */
    pub status: c_int,
    /** Receives the number of the receipt, with BRUIT_RECEIPT. */
    pub id: u64,
}

/// Hears messages. `message` is valid during the call only, unless it is kept with bruit_message_ref(). The rules are those
/// of bruit_event_fn; bruit_node_request() to the own node is BRUIT_E_DEADLOCK, too.
pub type bruit_message_fn = Option<unsafe extern "C" fn(message: *const bruit_message, user: *mut c_void)>;

/// Hears an answer. `status` is BRUIT_OK and `reply` the answer, or `reply` is NULL, `status` an error and `text` says more.
/// The rules are those of bruit_event_fn. Not called where the node stops first; `user` is freed all the same.
pub type bruit_reply_fn =
    Option<unsafe extern "C" fn(status: c_int, reply: *const bruit_message, text: *const c_char, user: *mut c_void)>;

/// Judges a broadcast before it goes on: not 0 accepts it, 0 rejects it. The rules are those of bruit_message_fn.
pub type bruit_validate_fn = Option<unsafe extern "C" fn(message: *const bruit_message, user: *mut c_void) -> c_int>;

/// Says something to all members. Each that lives hears it once; what one has missed for so long that nobody has it any more
/// is said to it by BRUIT_EVENT_GAP.
///
/// \param topic at most BRUIT_TOPIC_MAX bytes; NULL is "", the default topic.
/// \param flags bits BRUIT_LOOPBACK, BRUIT_ORDERED, BRUIT_WAIT.
/// \return BRUIT_OK; BRUIT_E_TOO_BIG: above the option "max_broadcast"; BRUIT_E_BUSY: the neighbours have yet to take what was
///         said before, BRUIT_EVENT_WRITABLE about this node follows; BRUIT_E_STATE: not running. Nothing is said then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bruit_node_broadcast(
    node: *mut bruit_node,
    topic: *const c_char,
    data: *const c_void,
    len: usize,
    flags: u32,
) -> c_int {
    guard(|| {
        let node = node_of(node)?;
        // SAFETY: NULL or a text, NULL or `len` bytes, as the caller promises.
        let (topic, data) = unsafe { (topic_of(topic)?, bytes("data", data, len)?) };
        check_flags(flags, BRUIT_LOOPBACK | BRUIT_ORDERED | BRUIT_WAIT)?;
        let how = ToAll { loopback: flags & BRUIT_LOOPBACK != 0, ordered: flags & BRUIT_ORDERED != 0 };
        node.broadcast(topic, data, how, patience(flags)).map(|_| 0)
    })
}

/// Sends a message to a member. BRUIT_OK means that it is queued.
///
/// \param member its name; the own one is allowed.
/// \param topic at most BRUIT_TOPIC_MAX bytes; NULL is "", the default topic.
/// \param flags bits BRUIT_RELIABLE, BRUIT_WAIT; for a receipt see bruit_node_submit().
/// \return BRUIT_OK; BRUIT_E_NOT_FOUND: no such member; BRUIT_E_UNREACHABLE: dead, or has left; BRUIT_E_TOO_BIG: above the
///         option "max_message"; BRUIT_E_BUSY: the option "send_queue" is reached, BRUIT_EVENT_WRITABLE follows;
///         BRUIT_E_STATE: not running. Nothing is sent then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bruit_node_send(
    node: *mut bruit_node,
    member: *const c_char,
    topic: *const c_char,
    data: *const c_void,
    len: usize,
    flags: u32,
) -> c_int {
    guard(|| {
        let node = node_of(node)?;
        // SAFETY: NULL or texts, NULL or `len` bytes, as the caller promises.
        let (member, topic, data) = unsafe { (text("member", member)?, topic_of(topic)?, bytes("data", data, len)?) };
        check_flags(flags, BRUIT_RELIABLE | BRUIT_RECEIPT | BRUIT_WAIT)?;
        node.send(member, topic, data, sending(flags), patience(flags)).map(|_| 0)
    })
}

/// Sends several messages at once, to members, to lists of them or to the holders of a tag: one lock and one wake for all of
/// them. Never waits.
///
/// \param outs receive a `status` each, which is what bruit_node_send() would return, and with BRUIT_RECEIPT an `id`.
/// \return how many of them were sent; what is wrong with the others is in their `status`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bruit_node_submit(node: *mut bruit_node, outs: *mut bruit_out, count: usize) -> c_int {
    guard(|| {
        let node = node_of(node)?;
        // SAFETY: NULL or `count` elements with texts and bytes, as the caller promises.
        let all = unsafe { array("outs", outs.cast_const(), count) }?;
        // SAFETY: as above.
        let lists: Vec<Result<Vec<&str>>> = all.iter().map(|out| unsafe { list(out) }).collect();
        let parcels: Vec<Result<Parcel<'_>>> = all
            .iter()
            .zip(&lists)
            // SAFETY: as above.
            .map(|(out, list)| list.clone().and_then(|_| unsafe { parcel(out, list.as_deref().unwrap_or(&[])) }))
            .collect();
        let good: Vec<Parcel<'_>> = parcels.iter().filter_map(|parcel| parcel.as_ref().ok().cloned()).collect();
        let mut sent = node.submit(&good)?.into_iter();
        let results: Vec<Result<Sent>> = parcels
            .into_iter()
            .map(|parcel| parcel.and_then(|_| sent.next().unwrap_or(Ok(Sent::ToMember(None)))))
            .collect();
        let mut done = 0;
        for (n, result) in results.into_iter().enumerate() {
            let (status, id) = match result {
                Ok(Sent::ToMember(receipt)) => (0, receipt),
                Ok(Sent::ToMany(each)) => {
                    // SAFETY: `n` is one of `count` elements, whose places have room for all its members.
                    unsafe { put_each(&*outs.add(n), &each) };
                    let queued = each.iter().filter(|each| each.result.is_ok()).count();
                    let failed = each.iter().find_map(|each| each.result.as_ref().err()).filter(|_| queued == 0);
                    (failed.map_or(crate::convert::count(queued), |e| e.code as c_int), None)
                }
                Err(e) => (e.code as c_int, None),
            };
            done += usize::from(status >= 0);
            // SAFETY: `n` is one of `count` elements, which are the caller's to be written.
            unsafe {
                (&raw mut (*outs.add(n)).status).write(status);
                (&raw mut (*outs.add(n)).id).write(id.unwrap_or(0));
            }
        }
        Ok(crate::convert::count(done))
    })
}

/// Asks a member, and waits for its answer.
///
/// \param timeout_ms not 0; -1 until it answers, or is dead or leaves.
/// \param reply receives the answer, to be given back with bruit_message_unref(). May be NULL.
/// \return BRUIT_OK; what bruit_node_send() returns; BRUIT_E_TIMEOUT: no answer in time, the member may have acted;
///         BRUIT_E_NO_HANDLER: nobody listens to the topic there; BRUIT_E_NO_REPLY: who does has not replied;
///         BRUIT_E_REMOTE, and whatever else it says: bruit_last_error() has its text; BRUIT_E_LIMIT: the option
///         "max_requests" is reached; BRUIT_E_CANCELED: the node was stopped meanwhile; BRUIT_E_DEADLOCK: of the own
///         node, in a callback of it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bruit_node_request(
    node: *mut bruit_node,
    member: *const c_char,
    topic: *const c_char,
    data: *const c_void,
    len: usize,
    timeout_ms: c_int,
    reply: *mut *mut bruit_message,
) -> c_int {
    guard(|| {
        let node = node_of(node)?;
        // SAFETY: NULL or texts, NULL or `len` bytes, NULL or valid, as the caller promises.
        let (member, topic, data) = unsafe { (text("member", member)?, topic_of(topic)?, bytes("data", data, len)?) };
        let answer = node.request(member, topic, data, wait(timeout_ms)?)?;
        if !reply.is_null() {
            // SAFETY: valid, as the caller promises.
            unsafe { reply.write(Held::answer(member, answer).keep()) };
        }
        Ok(0)
    })
}

/// Asks a member; the answer comes to a callback.
///
/// \param out whom, what, and how long to wait; `tag` is BRUIT_E_INVALID. Its status and id are not written.
/// \param callback required.
/// \param user handed to the callback; may be NULL.
/// \param free_fn frees `user`; may be NULL. See bruit_free_fn.
/// \param id receives a number for bruit_node_cancel(); may be NULL.
/// \return BRUIT_OK; what bruit_node_send() returns; BRUIT_E_LIMIT: the option "max_requests" is reached.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bruit_node_request_start(
    node: *mut bruit_node,
    out: *const bruit_out,
    callback: bruit_reply_fn,
    user: *mut c_void,
    free_fn: bruit_free_fn,
    id: *mut u64,
) -> c_int {
    guard(|| {
        let node = node_of(node)?;
        // SAFETY: NULL or an element with texts and bytes, NULL or valid, as the caller promises.
        let (all, id) = unsafe { (array("out", out, 1)?, Out::optional(id)) };
        let callback = callback.ok_or_else(|| invalid("callback is NULL"))?;
        let out = &all[0];
        // SAFETY: as above.
        let Parcel { to, body, .. } = unsafe { parcel(out, &[]) }?;
        let To::Member(member) = to else { return Err(invalid("member is NULL: a request is for one member")) };
        let timeout = match wait(out.timeout_ms)? {
            Wait::Now => return Err(invalid("timeout_ms is 0: a request needs time for its answer")),
            Wait::For(time) => Some(time),
            Wait::Forever => None::<Duration>,
        };
        let name = member.to_string();
        let number = User::offer(user, free_fn, |user| {
            let hear = move |answer: Result<Body>| {
                let _theirs = Running::a_callback();
                match answer {
                    Ok(body) => {
                        let mut held = Held::answer(&name, body);
                        let shown = held.show();
                        // SAFETY: the caller vouches for the callback and its data, which lives as long as `user`.
                        unsafe { callback(0, shown, c"".as_ptr(), user.data()) };
                    }
                    Err(e) => {
                        let words: CString = c_string(&e.text);
                        // SAFETY: as above.
                        unsafe { callback(e.code as c_int, ptr::null(), words.as_ptr(), user.data()) };
                    }
                }
            };
            node.request_start(member, body.topic(), body.data(), timeout, Box::new(hear))
        })?;
        id.put(number);
        Ok(0)
    })
}

/// Gives a request of bruit_node_request_start() up: its callback hears BRUIT_E_CANCELED.
///
/// \return BRUIT_OK; BRUIT_E_NOT_FOUND: it has ended already.
#[unsafe(no_mangle)]
pub extern "C" fn bruit_node_cancel(node: *mut bruit_node, id: u64) -> c_int {
    guard(|| node_of(node)?.cancel(id).map(|()| 0))
}

/// Subscribes to the messages under a topic. All callbacks that match hear a message, in the order of their subscription.
/// Of messages that nobody listens to, a request is answered with BRUIT_E_NO_HANDLER, and the rest is dropped.
///
/// \param topic NULL is "", the default topic; "*" are all.
/// \param callback required.
/// \param user handed to the callback; may be NULL.
/// \param free_fn frees `user`; may be NULL. See bruit_free_fn.
/// \param subscription receives a number for bruit_node_unsubscribe(); may be NULL.
/// \return BRUIT_OK; BRUIT_E_STATE on a stopped node.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bruit_node_on_message(
    node: *mut bruit_node,
    topic: *const c_char,
    callback: bruit_message_fn,
    user: *mut c_void,
    free_fn: bruit_free_fn,
    subscription: *mut u64,
) -> c_int {
    // SAFETY: NULL or a text, NULL or valid, as the caller promises.
    unsafe {
        subscribe(node, topic, callback, user, free_fn, subscription, |node, topic, callback, user| {
            // SAFETY: the caller vouches for the callback and its data, which lives as long as `user`.
            let hear = move |message: &Message| show(message, |shown| callback(shown, user.data()));
            node.on_message(topic, Box::new(hear))
        })
    }
}

/// Judges what others broadcast under a topic, before it goes on: what is rejected is neither handed out here nor passed on or
/// offered to others. Where several match, all have to accept. What has no verdict within the option "validation_timeout" is
/// offered to others, and pushed on to nobody. bruit_node_unsubscribe() ends it: what waits then is accepted.
///
/// \param topic NULL is "", the default topic; "*" are all.
/// \param callback required. It runs where other callbacks do.
/// \param user handed to the callback; may be NULL.
/// \param free_fn frees `user`; may be NULL. See bruit_free_fn.
/// \param subscription receives a number for bruit_node_unsubscribe(); may be NULL.
/// \return BRUIT_OK; BRUIT_E_STATE on a stopped node.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bruit_node_on_validate(
    node: *mut bruit_node,
    topic: *const c_char,
    callback: bruit_validate_fn,
    user: *mut c_void,
    free_fn: bruit_free_fn,
    subscription: *mut u64,
) -> c_int {
    // SAFETY: NULL or a text, NULL or valid, as the caller promises.
    unsafe {
        subscribe(node, topic, callback, user, free_fn, subscription, |node, topic, callback, user| {
            let judge = move |message: &Message| {
                // SAFETY: the caller vouches for the callback and its data, which lives as long as `user`.
                let accepts = show(message, |shown| callback(shown, user.data())) != 0;
                if accepts { Verdict::Accept } else { Verdict::Reject }
            };
            node.on_validate(topic, Box::new(judge))
        })
    }
}

/// Takes messages without a callback, for programs that would rather pull; in either dispatch mode. The first call
/// subscribes to all topics: call it once before bruit_node_start() to hear everything. Callbacks hear the same messages.
///
/// \param out receives the messages, each to be given back with bruit_message_unref().
/// \param cap at most so many.
/// \param timeout_ms how long to wait for the first: 0 not at all, -1 for ever.
/// \return how many; 0 after the timeout; BRUIT_E_STATE on a stopped node without messages.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bruit_node_recv(
    node: *mut bruit_node,
    out: *mut *mut bruit_message,
    cap: usize,
    timeout_ms: c_int,
) -> c_int {
    guard(|| {
        let handle = handle_of(node)?;
        // SAFETY: NULL or `cap` places, as the caller promises; they are only written.
        unsafe { array("out", out.cast_const(), cap) }?;
        let wait = wait(timeout_ms)?;
        let queue = handle.pulled()?;
        if wait != Wait::Now && queue.is_empty() {
            queue.wait(wait);
        }
        let mut taken = 0;
        while taken < cap
            && let Some(message) = queue.try_next()
        {
            // SAFETY: `taken` is one of `cap` places.
            unsafe { out.add(taken).write(Held::message(message).keep()) };
            taken += 1;
        }
        if taken == 0 && queue.is_closed() {
            return Err(Error::new(Code::State, "the node is stopped"));
        }
        Ok(count(taken))
    })
}

/// Keeps a message beyond its callback, without a copy of its data. It may outlive the node, and counts against the
/// option "inbox_bytes" as long as it is kept.
///
/// \return what to hold instead of `message`, until bruit_message_unref(); NULL for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bruit_message_ref(message: *const bruit_message) -> *mut bruit_message {
    if message.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: the caller promises that it is one of ours and valid: then it is the first field of a `Held`.
    let held = unsafe { &*message.cast::<Held>() };
    if held.refs.load(Ordering::Acquire) == ON_THE_STACK {
        return held.again().keep();
    }
    held.refs.fetch_add(1, Ordering::AcqRel);
    message.cast_mut()
}

/// Gives back what bruit_message_ref(), bruit_node_request() or bruit_node_recv() gave. A request that is given back
/// without an answer is answered with BRUIT_E_NO_REPLY. NULL is allowed; once too often is undefined.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bruit_message_unref(message: *mut bruit_message) {
    guard(|| {
        if message.is_null() {
            return Ok(0);
        }
        let held = message.cast::<Held>();
        // SAFETY: one of ours and valid, as the caller promises; freed by the last one.
        unsafe {
            if (*held).refs.fetch_sub(1, Ordering::AcqRel) == 1 {
                drop(Box::from_raw(held));
            }
        }
        Ok(0)
    });
}

/// Answers a request, in its callback or later, from any thread. Without it, and once nobody keeps the message, the
/// requester gets BRUIT_E_NO_REPLY at once.
///
/// \return BRUIT_OK; BRUIT_E_STATE: no request, or answered already; BRUIT_E_UNREACHABLE: who asked is gone;
///         BRUIT_E_TOO_BIG, BRUIT_E_BUSY: as with bruit_node_send(); then it may be tried again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bruit_message_reply(message: *const bruit_message, data: *const c_void, len: usize) -> c_int {
    guard(|| {
        // SAFETY: NULL or one of ours, NULL or `len` bytes, as the caller promises.
        let (message, data) = unsafe { (message_of(message)?, bytes("data", data, len)?) };
        message.reply(data).map(|()| 0)
    })
}

/// Answers a request with an error.
///
/// \param code what bruit_node_request() returns there: BRUIT_E_REMOTE is the usual one. Codes that speak of the asker's own
///        node or handles (BRUIT_E_HANDLE, _STATE, _DEADLOCK, _FORKED, _BUFFER, _FAILED, _PANIC) arrive as that.
/// \param words what bruit_last_error() says there; may be NULL.
/// \return as bruit_message_reply(); BRUIT_E_INVALID: not an error code.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bruit_message_fail(message: *const bruit_message, code: c_int, words: *const c_char) -> c_int {
    guard(|| {
        // SAFETY: NULL or one of ours, NULL or a text, as the caller promises.
        let (message, (code, words)) = unsafe { (message_of(message)?, error_of(code, words)?) };
        message.fail(code, words).map(|()| 0)
    })
}

/// An error for the other side; NULL is what the code means.
pub(crate) unsafe fn error_of<'a>(code: c_int, words: *const c_char) -> Result<(Code, &'a str)> {
    let code =
        Code::from_number(code.into()).ok_or_else(|| invalid(format!("code is {code}: expected one of BRUIT_E_*")))?;
    // SAFETY: NULL or a text, as the caller promises.
    let words = if words.is_null() { code.describe() } else { unsafe { text("words", words) }? };
    Ok((code, words))
}

pub(crate) unsafe fn topic_of<'a>(topic: *const c_char) -> Result<&'a str> {
    // SAFETY: NULL or a text, as the caller promises.
    if topic.is_null() { Ok("") } else { unsafe { text("topic", topic) } }
}

/// Of those bits and no others.
pub(crate) fn check_flags(flags: u32, known: u32) -> Result<()> {
    match flags & !known {
        0 => Ok(()),
        unknown => Err(invalid(format!("flags has unknown bits: {unknown:#x}"))),
    }
}

fn patience(flags: u32) -> Wait {
    if flags & BRUIT_WAIT != 0 { Wait::Forever } else { Wait::Now }
}

fn sending(flags: u32) -> Sending {
    match (flags & BRUIT_RECEIPT != 0, flags & BRUIT_RELIABLE != 0) {
        (true, _) => Sending::Receipt,
        (false, true) => Sending::Reliable,
        (false, false) => Sending::BestEffort,
    }
}

/// # Safety
/// Its members are NULL or so many texts that stay as they are.
unsafe fn list(out: &bruit_out) -> Result<Vec<&str>> {
    has_size::<bruit_out>(out.size, "bruit_out")?;
    // SAFETY: as promised.
    unsafe { texts("members", out.members, out.member_count) }
}

/// # Safety
/// Its places are NULL or have room for all its members. Of the holders of a tag nobody knows before how many they are.
unsafe fn put_each(out: &bruit_out, each: &[Each]) {
    for (n, Each { result, .. }) in each.iter().enumerate().take(out.member_count) {
        // SAFETY: as promised.
        unsafe {
            if !out.statuses.is_null() {
                out.statuses.add(n).write(result.as_ref().map_or_else(|e| e.code as c_int, |_| 0));
            }
            if !out.ids.is_null() {
                out.ids.add(n).write(result.as_ref().ok().copied().flatten().unwrap_or(0));
            }
        }
    }
}

/// # Safety
/// Its pointers are NULL or lead to texts and bytes that stay as they are.
unsafe fn parcel<'a>(out: &'a bruit_out, list: &'a [&'a str]) -> Result<Parcel<'a>> {
    has_size::<bruit_out>(out.size, "bruit_out")?;
    // SAFETY: as promised.
    let (topic, data) = unsafe { (topic_of(out.topic)?, bytes("data", out.data, out.len)?) };
    // SAFETY: as promised.
    let to = match (out.member.is_null(), out.tag.is_null(), out.member_count) {
        (false, true, 0) => To::Member(unsafe { text("member", out.member) }?),
        (true, false, 0) => To::Holders(unsafe { text("tag", out.tag) }?),
        (true, true, 1..) => To::Members(list),
        _ => return Err(invalid("expected a member, or a tag, or members")),
    };
    check_flags(out.flags, BRUIT_RELIABLE | BRUIT_RECEIPT)?;
    Ok(Parcel { to, body: Body::new(topic, data)?, how: sending(out.flags) })
}

/// # Safety
/// NULL, or one of ours and valid.
unsafe fn message_of<'a>(message: *const bruit_message) -> Result<&'a Message> {
    if message.is_null() {
        return Err(invalid("message is NULL"));
    }
    // SAFETY: as promised, and then the first field of a `Held`.
    match unsafe { &(*message.cast::<Held>()).said } {
        Said::Message(message) => Ok(message),
        Said::Answer(_) => Err(Error::new(Code::State, "an answer is not answered")),
    }
}

/// In a callback, and gone with it.
const ON_THE_STACK: usize = 0;

/// A message that C can look at.
#[repr(C)]
pub(crate) struct Held {
    /// First, so that its address is that of the whole.
    shown: bruit_message,
    refs: AtomicUsize,
    said: Said,
    sender: [MaybeUninit<u8>; NAME_MAX + 1],
    topic: [MaybeUninit<u8>; TOPIC_MAX + 1],
}

enum Said {
    Message(Message),
    Answer(Body),
}

const _: () = assert!(BRUIT_TOPIC_MAX == TOPIC_MAX);

impl Held {
    fn message(message: Message) -> Held {
        let flags = match message.manner() {
            Manner::BestEffort => 0,
            Manner::Broadcast { .. } => BRUIT_MESSAGE_BROADCAST,
            Manner::Reliable => BRUIT_MESSAGE_RELIABLE,
            Manner::Request { .. } => BRUIT_MESSAGE_RELIABLE | BRUIT_MESSAGE_REQUEST,
            Manner::Query(_) => BRUIT_MESSAGE_REQUEST | BRUIT_MESSAGE_QUERY,
        };
        let (epoch, sender) = (message.epoch().0, message.sender().clone());
        Held::new(flags, &sender, epoch, Said::Message(message))
    }

    pub(crate) fn answer(from: &str, body: Body) -> Held {
        Held::new(BRUIT_MESSAGE_RELIABLE, from, 0, Said::Answer(body))
    }

    fn new(flags: u32, from: &str, epoch: u64, said: Said) -> Held {
        let shown = bruit_message {
            size: size_of::<bruit_message>() as u32,
            flags,
            sender: ptr::null(),
            epoch,
            topic: ptr::null(),
            data: ptr::null(),
            len: 0,
        };
        let (sender, topic) = ([MaybeUninit::uninit(); NAME_MAX + 1], [MaybeUninit::uninit(); TOPIC_MAX + 1]);
        let mut held = Held { shown, refs: AtomicUsize::new(ON_THE_STACK), said, sender, topic };
        put(&mut held.sender, from);
        held
    }

    /// Once it is where it stays.
    pub(crate) fn show(&mut self) -> *const bruit_message {
        let body = match &self.said {
            Said::Message(message) => message.body(),
            Said::Answer(body) => body,
        };
        put(&mut self.topic, body.topic());
        let data = body.data();
        self.shown.sender = self.sender.as_ptr().cast();
        self.shown.topic = self.topic.as_ptr().cast();
        self.shown.data = data.as_ptr().cast();
        self.shown.len = data.len();
        ptr::from_ref(self).cast()
    }

    fn keep(self) -> *mut bruit_message {
        let mut held = Box::new(self);
        *held.refs.get_mut() = 1;
        held.show();
        Box::into_raw(held).cast()
    }

    fn again(&self) -> Held {
        let said = match &self.said {
            Said::Message(message) => Said::Message(message.clone()),
            Said::Answer(body) => Said::Answer(body.clone()),
        };
        let mut held = Held::new(self.shown.flags, "", self.shown.epoch, said);
        held.sender = self.sender;
        held
    }
}

/// For a call into C.
fn show<T>(message: &Message, call: impl FnOnce(*const bruit_message) -> T) -> T {
    let mut held = Held::message(message.clone());
    let shown = held.show();
    let _theirs = Running::a_callback();
    call(shown)
}

/// A NUL-terminated copy. A name or a topic with a NUL in it does not exist.
fn put<const N: usize>(place: &mut [MaybeUninit<u8>; N], text: &str) {
    let (copy, end) = place.split_at_mut(text.len());
    for (to, from) in copy.iter_mut().zip(text.bytes()) {
        to.write(from);
    }
    end[0].write(0);
}
