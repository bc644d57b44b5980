//! The thread on which callbacks run in THREAD dispatch mode: one per runtime, so that they are serial.

use std::collections::VecDeque;
use std::sync::Arc;

use super::lock::{Condvar, Mutex};

use super::node::Shared;
use super::team::Threads;
use super::wheel::Awaited;

/// Items of one node before it is the next one's turn.
const SHARE: usize = 64;

#[derive(Default)]
pub(crate) struct Dispatcher {
    state: Mutex<State>,
    ready: Condvar,
}

#[derive(Default)]
struct State {
    /// Nodes whose inbox has something, each at most once.
    queue: VecDeque<Arc<Shared>>,
    exit: bool,
}

impl Dispatcher {
    pub(crate) fn post(&self, node: Arc<Shared>) {
        {
            let mut state = self.state.lock();
            if state.exit {
                return;
            }
            state.queue.push_back(node);
        }
        self.ready.notify_one();
    }

    pub(crate) fn exit(&self) {
        let mut state = self.state.lock();
        state.exit = true;
        state.queue.clear();
        self.ready.notify_one();
    }

    pub(crate) fn run(&self, threads: &Threads) {
        // A child of a fork has no such thread.
        while let Ok(Some(node)) = threads.attend(Awaited::Callbacks, None, || self.look(), || self.next()) {
            if node.run_callbacks(SHARE) {
                node.post_to(self);
            }
        }
    }

    /// Sleeps until there is something to do. `None`: it is over.
    fn next(&self) -> Option<Arc<Shared>> {
        let mut state = self.state.lock();
        loop {
            match state.look() {
                Some(next) => return next,
                None => self.ready.wait(&mut state),
            }
        }
    }

    fn look(&self) -> Option<Option<Arc<Shared>>> {
        self.state.lock().look()
    }
}

impl State {
    fn look(&mut self) -> Option<Option<Arc<Shared>>> {
        if self.exit { Some(None) } else { self.queue.pop_front().map(Some) }
    }
}
