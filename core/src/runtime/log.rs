//! Log lines on their way out: a ring of their own, so that a flood of lines delays no event, and drops first.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::lock::Mutex;

/// Lines that wait at once; what comes then is dropped and counted.
const LINES_MAX: usize = 1024;

/// Syslog's levels.
pub(crate) mod level {
    pub const CRITICAL: i32 = 2;
    pub const ERROR: i32 = 3;
    pub const WARNING: i32 = 4;
    pub const INFO: i32 = 6;
    pub const DEBUG: i32 = 7;
}

#[derive(Debug)]
pub(crate) struct Line {
    pub level: i32,
    pub target: &'static str,
    pub text: String,
}

#[derive(Debug)]
pub(crate) struct LogRing {
    /// The least important level that is wanted; below 0: none.
    max_level: i32,
    lines: Mutex<VecDeque<Line>>,
    dropped: AtomicU64,
}

impl LogRing {
    pub(crate) fn new(max_level: Option<i32>) -> LogRing {
        LogRing { max_level: max_level.unwrap_or(-1), lines: Mutex::new(VecDeque::new()), dropped: AtomicU64::new(0) }
    }

    pub(crate) fn wants(&self, level: i32) -> bool {
        level <= self.max_level
    }

    /// True when the ring was empty, so that somebody must be told.
    pub(crate) fn push(&self, level: i32, target: &'static str, text: String) -> bool {
        let mut lines = self.lines.lock();
        if lines.len() >= LINES_MAX {
            self.dropped.fetch_add(1, Relaxed);
            return false;
        }
        lines.push_back(Line { level, target, text });
        lines.len() == 1
    }

    pub(crate) fn pop(&self) -> Option<Line> {
        self.lines.lock().pop_front()
    }

    pub(crate) fn len(&self) -> usize {
        self.lines.lock().len()
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}
