//! The library's log lines on their way to Python: a bounded ring between its threads and a thread of Python's.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use pyo3::prelude::*;

/// (syslog level, target, text, node)
pub type Line = (i32, String, String, String);

#[pyclass(frozen, module = "bruit._native")]
pub struct LogRing {
    ring: Arc<Ring>,
}

pub struct Ring {
    capacity: usize,
    state: Mutex<State>,
    filled: Condvar,
    dropped: AtomicU64,
}

struct State {
    lines: VecDeque<Line>,
    closed: bool,
}

impl LogRing {
    pub fn ring(&self) -> Arc<Ring> {
        self.ring.clone()
    }
}

impl Ring {
    /// Never waits: not for room, and not for long for the lock.
    pub fn push(&self, line: Line) {
        // Held for a push or for the swap of two queues. In a forked child it may be held for ever.
        let free = || self.state.try_lock().ok();
        let Some(mut state) = free().or_else(|| {
            std::thread::yield_now();
            free()
        }) else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        };
        if state.closed || state.lines.len() >= self.capacity {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        state.lines.push_back(line);
        self.filled.notify_one();
    }
}

#[pymethods]
impl LogRing {
    #[new]
    fn new(capacity: usize) -> LogRing {
        let state = Mutex::new(State { lines: VecDeque::new(), closed: false });
        LogRing { ring: Arc::new(Ring { capacity, state, filled: Condvar::new(), dropped: AtomicU64::new(0) }) }
    }

    /// Wait for lines and take at most `most` of them, with the number that was dropped since; None when closed and empty.
    ///
    /// Does not look at signals: it is for a thread of its own.
    fn take(&self, py: Python<'_>, most: usize) -> Option<(Vec<Line>, u64)> {
        py.detach(|| {
            let state = self.ring.state.lock().expect("nobody panics with it");
            let mut state =
                self.ring.filled.wait_while(state, |s| s.lines.is_empty() && !s.closed).expect("nobody panics with it");
            let count = state.lines.len().min(most);
            let lines: Vec<Line> = state.lines.drain(..count).collect();
            let done = lines.is_empty() && state.closed;
            drop(state);
            (!done).then(|| (lines, self.ring.dropped.swap(0, Ordering::Relaxed)))
        })
    }

    /// No more lines; `take` gives what is there, then None.
    fn close(&self, py: Python<'_>) {
        py.detach(|| {
            self.ring.state.lock().expect("nobody panics with it").closed = true;
            self.ring.filled.notify_all();
        });
    }
}
