//! What nodes share: a pair of threads, and the outboxes that application calls borrow.

use std::sync::Arc;

use super::lock::Mutex;

use super::fork::Born;
use super::team::Threads;
use crate::error::{Code, Error, Result};
use crate::outbox::Outbox;

/// Outboxes kept for application calls. More callers at once make their own.
const OUTBOXES: usize = 4;

/// The threads that nodes share: one for sockets and timers, one for callbacks.
#[derive(Clone)]
pub struct Runtime(Arc<Handle>);

struct Handle(Option<Arc<Inner>>);

/// Outlives the `Runtime` handles while a node uses it.
pub(crate) struct Inner {
    born: Born,
    state: Mutex<State>,
    outboxes: Mutex<Vec<Outbox>>,
}

struct State {
    /// A `Runtime` handle exists.
    open: bool,
    /// Started and not yet stopped.
    nodes: usize,
    threads: Option<Arc<Threads>>,
}

impl Runtime {
    /// Starts nothing: the threads begin with the first node that starts, and end when the last such node
    /// has stopped and the last `Runtime` handle is gone.
    pub fn new() -> Result<Runtime> {
        Ok(Runtime(Arc::new(Handle(Some(Arc::new(Inner::new(true)))))))
    }

    pub(crate) fn inner(&self) -> Arc<Inner> {
        self.0.0.clone().expect("taken in drop only")
    }
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Runtime")
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let inner = self.0.take();
        if inner.as_ref().is_some_and(|inner| inner.is_elsewhere()) {
            // A forked child must not touch what the parent's threads may have locked.
            std::mem::forget(inner);
        } else if let Some(inner) = inner {
            inner.close();
        }
    }
}

impl Inner {
    pub(crate) fn new(open: bool) -> Inner {
        Inner {
            born: Born::default(),
            state: Mutex::new(State { open, nodes: 0, threads: None }),
            outboxes: Mutex::new(Vec::new()),
        }
    }

    /// Its threads live in another process.
    pub(crate) fn is_elsewhere(&self) -> bool {
        self.born.elsewhere()
    }

    /// For one node more. Followed by [`Inner::leave`] when it stops.
    pub(crate) fn enter(&self) -> Result<Arc<Threads>> {
        let mut state = self.state.lock();
        let threads = match &state.threads {
            Some(threads) => threads.clone(),
            None => {
                let threads = Threads::start().map_err(|e| Error::io("cannot start a thread", &e))?;
                self.born.here();
                state.threads.insert(threads).clone()
            }
        };
        state.nodes += 1;
        Ok(threads)
    }

    /// One node less. The last one gets the threads, which have been told to end.
    pub(crate) fn leave(&self) -> Option<Arc<Threads>> {
        let mut state = self.state.lock();
        state.nodes -= 1;
        state.end_unused()
    }

    fn close(&self) {
        let mut state = self.state.lock();
        state.open = false;
        state.end_unused();
    }

    pub(crate) fn outbox(&self, datagram_max: usize) -> Outbox {
        let mut out = self.outboxes.lock().pop().unwrap_or_else(|| Outbox::new(datagram_max));
        out.set_datagram_max(datagram_max);
        out
    }

    pub(crate) fn put_back(&self, mut out: Outbox) {
        out.clear();
        let mut outboxes = self.outboxes.lock();
        if outboxes.len() < OUTBOXES {
            outboxes.push(out);
        }
    }
}

impl State {
    fn end_unused(&mut self) -> Option<Arc<Threads>> {
        if self.open || self.nodes > 0 {
            return None;
        }
        let threads = self.threads.take()?;
        threads.exit();
        Some(threads)
    }
}

pub(crate) fn forked() -> Error {
    Error::new(Code::Forked, "the node was started by another process; make a new node in the child")
}
