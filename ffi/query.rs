//! Questions to all members, or to some.

use std::ffi::{CString, c_char, c_int, c_void};
use std::ptr;

use bruit_core::engine::Question;
use bruit_core::error::Result;
use bruit_core::runtime::{Progress, Wait};

use crate::callback::{User, bruit_free_fn};
use crate::convert::{Out, array, bytes, c_string, has_size, invalid, texts, wait};
use crate::error::{Running, bruit_strerror, guard};
use crate::message::{BRUIT_LOOPBACK, Held, bruit_message, check_flags, topic_of};
use crate::node::{bruit_node, node_of};

/// bruit_query.flags: who has heard the question says so, whether it answers or not: BRUIT_ANSWER_HEARD.
pub const BRUIT_ACKS: u32 = 32;

/// bruit_answer.kind: a member has answered, or says why it does not.
pub const BRUIT_ANSWER_REPLY: u32 = 1;
/// A member has heard the question, with BRUIT_ACKS.
pub const BRUIT_ANSWER_HEARD: u32 = 2;
/// The last call: nothing more comes.
pub const BRUIT_ANSWER_END: u32 = 3;

/// A question to all other members, or to some. Set it to zeros and `size` before filling it in.
#[repr(C)]
pub struct bruit_query {
    /** sizeof(bruit_query). */
    pub size: u32,
    /** Bits BRUIT_ACKS, BRUIT_LOOPBACK. */
    pub flags: u32,
    /** At most BRUIT_TOPIC_MAX bytes; NULL is "", the default topic. */
    pub topic: *const c_char,
    /** What to ask. */
    pub data: *const c_void,
    /** Bytes of it. */
    pub len: usize,
    /** Only these members; none: all. */
    pub names: *const *const c_char,
    /** How many names. */
    pub name_count: usize,
    /** Only members with all of this metadata, each "key" or "key=value". */
    pub tags: *const *const c_char,
    /** How many tags. */
    pub tag_count: usize,
    /** How long answers are gathered; 0: as long as is usual in a cluster of this size (option "query_timeout_mult"). */
    pub timeout_ms: c_int,
    /** Members through which each answer comes once more, against links that are lame in one direction: 0 to 8. */
    pub relay: u32,
}

/// What comes of a question. Valid during the callback that it is given to.
#[repr(C)]
pub struct bruit_answer {
    /** How much of this struct the library filled. */
    pub size: u32,
    /** BRUIT_ANSWER_*. */
    pub kind: u32,
    /** Whose it is; "" at the end. */
    pub sender: *const c_char,
    /** The answer, which bruit_message_ref() keeps; NULL where there is none. */
    pub reply: *const bruit_message,
    /** BRUIT_OK. Of a reply: why there is none, as bruit_node_request() says it. At the end: BRUIT_E_TIMEOUT where some had not answered in
    time, BRUIT_E_CANCELED. */
    pub status: c_int,
    /** Always 0. */
    pub reserved: u32,
    /** What is said about it, or "". */
    pub text: *const c_char,
    /** At the end: members that were asked, as far as this node knew them. */
    pub asked: usize,
    /** Those that have answered, also with an error. */
    pub answered: usize,
    /** Those that have said that they heard the question. */
    pub heard: usize,
    /** Those that were dead or had left before they answered. */
    pub gone: usize,
}

/// Hears what comes of a question: its answers, and at last the end. The rules are those of bruit_event_fn. Not called again
/// where the node stops first; `user` is freed all the same.
pub type bruit_query_fn = Option<unsafe extern "C" fn(answer: *const bruit_answer, user: *mut c_void)>;

/// Asks all other members, or those that match, and gathers their answers for a while. There it is a message as those of
/// bruit_node_request(), with the flag BRUIT_MESSAGE_QUERY. It ends when all that were asked have answered or are gone, or when the
/// time is over.
///
/// \param query whom to ask, and what.
/// \param callback required.
/// \param user handed to the callback; may be NULL.
/// \param free_fn frees `user`; may be NULL. See bruit_free_fn.
/// \param id receives a number for bruit_node_cancel(); may be NULL.
/// \return BRUIT_OK; BRUIT_E_INVALID: no name, tag or topic, or too many copies; BRUIT_E_TOO_BIG: above the option "max_broadcast", or
///         names and tags of more than 16 KiB; BRUIT_E_LIMIT: the option "max_queries" is reached; BRUIT_E_BUSY: as
///         bruit_node_broadcast(). Nothing is said then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bruit_node_query_start(
    node: *mut bruit_node,
    query: *const bruit_query,
    callback: bruit_query_fn,
    user: *mut c_void,
    free_fn: bruit_free_fn,
    id: *mut u64,
) -> c_int {
    guard(|| {
        let node = node_of(node)?;
        // SAFETY: NULL or an element with texts and bytes, NULL or valid, as the caller promises.
        let (all, id) = unsafe { (array("query", query, 1)?, Out::optional(id)) };
        let callback = callback.ok_or_else(|| invalid("callback is NULL"))?;
        let query = &all[0];
        // SAFETY: as above.
        let (names, tags) = unsafe {
            has_size::<bruit_query>(query.size, "bruit_query")?;
            (texts("names", query.names, query.name_count)?, texts("tags", query.tags, query.tag_count)?)
        };
        // SAFETY: as above.
        let question = unsafe { question(query, &names, &tags) }?;
        let number = User::offer(user, free_fn, |user| {
            let hear = move |progress: Progress| {
                let _theirs = Running::a_callback();
                // SAFETY: the caller vouches for the callback and its data, which lives as long as `user`.
                show(&progress, |answer| unsafe { callback(answer, user.data()) });
            };
            node.query_start(&question, Box::new(hear))
        })?;
        id.put(number);
        Ok(0)
    })
}

/// # Safety
/// Its pointers are NULL or lead to texts and bytes that stay as they are.
unsafe fn question<'a>(query: &'a bruit_query, names: &'a [&'a str], tags: &'a [&'a str]) -> Result<Question<'a>> {
    check_flags(query.flags, BRUIT_ACKS | BRUIT_LOOPBACK)?;
    // SAFETY: as promised.
    let (topic, data) = unsafe { (topic_of(query.topic)?, bytes("data", query.data, query.len)?) };
    let timeout = match wait(query.timeout_ms)? {
        Wait::Now => None,
        Wait::For(time) => Some(time),
        Wait::Forever => return Err(invalid("timeout_ms is -1: answers are gathered for a while, not for ever")),
    };
    let (acks, loopback) = (query.flags & BRUIT_ACKS != 0, query.flags & BRUIT_LOOPBACK != 0);
    Ok(Question { topic, data, names, tags, timeout, relay: query.relay as usize, acks, loopback })
}

fn show(progress: &Progress, call: impl FnOnce(*const bruit_answer)) {
    let mut answer = bruit_answer {
        size: size_of::<bruit_answer>() as u32,
        kind: BRUIT_ANSWER_END,
        sender: c"".as_ptr(),
        reply: ptr::null(),
        status: 0,
        reserved: 0,
        text: c"".as_ptr(),
        asked: 0,
        answered: 0,
        heard: 0,
        gone: 0,
    };
    let (sender, words): (CString, CString);
    let mut held;
    match progress {
        Progress::Answer(reply) => {
            answer.kind = BRUIT_ANSWER_REPLY;
            sender = c_string(reply.sender());
            answer.sender = sender.as_ptr();
            match reply.result() {
                Ok(body) => {
                    held = Held::answer(reply.sender(), body.clone());
                    answer.reply = held.show();
                }
                Err(e) => {
                    words = c_string(&e.text);
                    (answer.status, answer.text) = (e.code as c_int, words.as_ptr());
                }
            }
        }
        Progress::Heard(by) => {
            answer.kind = BRUIT_ANSWER_HEARD;
            sender = c_string(by);
            answer.sender = sender.as_ptr();
        }
        Progress::End(gathered) => {
            answer.status = gathered.why.map_or(0, |code| code as c_int);
            answer.text = gathered.why.map_or(c"".as_ptr(), |code| bruit_strerror(code as c_int));
            (answer.asked, answer.answered) = (gathered.asked, gathered.answered);
            (answer.heard, answer.gone) = (gathered.heard, gathered.gone);
        }
    }
    call(&raw const answer);
}
