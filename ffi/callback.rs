//! What C registers: a function, its user data, and what frees them.

use std::ffi::{c_char, c_int, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use bruit_core::error::Result;
use bruit_core::runtime::Node;

use crate::convert::{Out, invalid};
use crate::error::{Running, guard};
use crate::message::topic_of;
use crate::node::{bruit_node, node_of};

/// Frees the user data of a callback: called exactly once, after the last call of the callback has returned and when
/// none can follow, on any thread. Not called where the registration failed: then the data is still yours.
pub type bruit_free_fn = Option<unsafe extern "C" fn(user: *mut c_void)>;

/// User data, freed when this is dropped.
pub struct User {
    data: *mut c_void,
    free: bruit_free_fn,
    stage: Arc<AtomicU8>,
}

// SAFETY: bruit hands the pointer back, on whatever thread, and never looks behind it; the docs say so.
unsafe impl Send for User {}
// SAFETY: as above.
unsafe impl Sync for User {}

/// The registration is not over: should it fail, the data stays the caller's.
const OFFERED: u8 = 0;
/// Ours to free.
const TAKEN: u8 = 1;
/// Dropped before it was clear whose it is.
const DROPPED: u8 = 2;

impl User {
    /// Passes user data to `register`, inside of what it keeps; frees the data if that succeeds, whenever it is
    /// dropped.
    pub fn offer<T>(data: *mut c_void, free: bruit_free_fn, register: impl FnOnce(User) -> Result<T>) -> Result<T> {
        let stage = Arc::new(AtomicU8::new(OFFERED));
        let registered = register(User { data, free, stage: stage.clone() })?;
        // Another thread may have stopped the node or ended the subscription already.
        if stage.swap(TAKEN, Ordering::AcqRel) == DROPPED {
            free_now(data, free);
        }
        Ok(registered)
    }

    pub fn data(&self) -> *mut c_void {
        self.data
    }
}

impl Drop for User {
    fn drop(&mut self) {
        if self.stage.swap(DROPPED, Ordering::AcqRel) == TAKEN {
            free_now(self.data, self.free);
        }
    }
}

/// What all bruit_node_on_*() do that are about a topic; `register` gives the callback and its data to the node.
///
/// # Safety
/// `topic` is NULL or a text, `subscription` NULL or valid.
pub unsafe fn subscribe<F>(
    node: *mut bruit_node,
    topic: *const c_char,
    callback: Option<F>,
    user: *mut c_void,
    free_fn: bruit_free_fn,
    subscription: *mut u64,
    register: impl FnOnce(&Node, &str, F, User) -> Result<u64>,
) -> c_int {
    guard(|| {
        let node = node_of(node)?;
        // SAFETY: as promised.
        let (topic, subscription) = unsafe { (topic_of(topic)?, Out::optional(subscription)) };
        let callback = callback.ok_or_else(|| invalid("callback is NULL"))?;
        let id = User::offer(user, free_fn, |user| register(&node, topic, callback, user))?;
        subscription.put(id);
        Ok(0)
    })
}

fn free_now(data: *mut c_void, free: bruit_free_fn) {
    if let Some(free) = free {
        let _theirs = Running::a_callback();
        // SAFETY: the caller gave the two together; no callback that uses the data can follow.
        unsafe { free(data) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bruit_core::error::{Code, Error};
    use std::sync::atomic::AtomicUsize;

    unsafe extern "C" fn count(user: *mut c_void) {
        // SAFETY: every test passes a counter that outlives it.
        unsafe { &*user.cast::<AtomicUsize>() }.fetch_add(1, Ordering::Relaxed);
    }

    fn freed(register: impl FnOnce(User) -> Result<Option<User>>) -> (bool, usize) {
        let counter = AtomicUsize::new(0);
        let data = (&raw const counter).cast_mut().cast();
        let kept = User::offer(data, Some(count), register);
        let ok = kept.is_ok();
        drop(kept);
        (ok, counter.load(Ordering::Relaxed))
    }

    #[test]
    fn user_data_is_freed_once_and_never_when_registration_fails() {
        assert_eq!(freed(|user| Ok(Some(user))), (true, 1), "dropped later");
        assert_eq!(
            freed(|user| Ok({
                drop(user);
                None
            })),
            (true, 1),
            "dropped before the registration had returned"
        );
        assert_eq!(freed(|_| Err(Error::new(Code::State, "no"))), (false, 0));
    }
}
