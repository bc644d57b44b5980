//! Locks that a forked child can make anew.
//!
//! Not `parking_lot`: it keeps the threads that wait in one table of the process. A fork copies that table with all who
//! waited in the parent, and their memory is soon somebody else's: in the child a node of its own then hangs or crashes
//! at its first wait (seen with Python's multiprocessing). The locks of std are a word of memory each, and nothing else.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering::*};
use std::sync::{self, PoisonError};
use std::time::Instant;

/// A lock that does not poison: a panic under it is handled where it is caught.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(sync::Mutex<T>);

pub(crate) struct MutexGuard<'a, T>(Option<sync::MutexGuard<'a, T>>);

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Mutex<T> {
        Mutex(sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard(Some(self.0.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

const HELD: &str = "given away only inside a wait";

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect(HELD)
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect(HELD)
    }
}

/// Waking costs a system call only where somebody waits.
#[derive(Debug, Default)]
pub(crate) struct Condvar {
    of_std: sync::Condvar,
    /// Changed under the waiters' mutex, so who has changed under it what they wait for sees them here.
    waiters: AtomicUsize,
}

impl Condvar {
    pub(crate) const fn new() -> Condvar {
        Condvar { of_std: sync::Condvar::new(), waiters: AtomicUsize::new(0) }
    }

    pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        let held = guard.0.take().expect(HELD);
        self.waiters.fetch_add(1, Relaxed);
        guard.0 = Some(self.of_std.wait(held).unwrap_or_else(PoisonError::into_inner));
        self.waiters.fetch_sub(1, Relaxed);
    }

    /// Waits until it is woken, or `at` has come.
    pub(crate) fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, at: Instant) -> TimedOut {
        let held = guard.0.take().expect(HELD);
        let left = at.saturating_duration_since(Instant::now());
        self.waiters.fetch_add(1, Relaxed);
        let (held, result) = self.of_std.wait_timeout(held, left).unwrap_or_else(PoisonError::into_inner);
        self.waiters.fetch_sub(1, Relaxed);
        guard.0 = Some(held);
        TimedOut(result.timed_out())
    }

    pub(crate) fn notify_one(&self) {
        if self.waiters.load(Relaxed) > 0 {
            self.of_std.notify_one();
        }
    }

    pub(crate) fn notify_all(&self) {
        if self.waiters.load(Relaxed) > 0 {
            self.of_std.notify_all();
        }
    }
}

pub(crate) struct TimedOut(bool);

impl TimedOut {
    pub(crate) fn timed_out(&self) -> bool {
        self.0
    }
}
