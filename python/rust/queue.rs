//! A bounded queue of events for one reader, in a thread or in an event loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bruit_core::runtime::{self, Wait};
use bruit_core::view::Event;
use pyo3::prelude::*;

use crate::SLICE;
use crate::errors::OrRaise;
use crate::members::Member;
use crate::node::{Owner, seconds};

/// (kind, changed, view, member, before, id, count, status, text), for `bruit.events.from_raw`.
pub type Raw = (&'static str, u32, u64, Option<Member>, Option<Member>, u64, u64, i32, String);

#[pyclass(frozen, module = "bruit._native")]
pub struct EventQueue {
    /// None only while it is being dropped.
    queue: Option<runtime::EventQueue>,
    owner: Arc<Owner>,
    closed: AtomicBool,
}

impl EventQueue {
    pub fn new(queue: runtime::EventQueue, owner: Arc<Owner>) -> EventQueue {
        EventQueue { queue: Some(queue), owner, closed: AtomicBool::new(false) }
    }

    fn queue(&self) -> &runtime::EventQueue {
        self.queue.as_ref().expect("there until dropped")
    }

    fn pop(&self) -> Option<Raw> {
        let open = !self.closed.load(Ordering::Acquire);
        open.then(|| self.queue().try_next()).flatten().map(raw)
    }

    fn is_over(&self) -> bool {
        self.closed.load(Ordering::Acquire) || self.queue().is_closed()
    }
}

impl Drop for EventQueue {
    fn drop(&mut self) {
        let queue = self.queue.take();
        if self.owner.is_forked() {
            std::mem::forget(queue);
        }
    }
}

pub fn raw(event: Event) -> Raw {
    let member = |m: Option<Arc<bruit_core::view::Member>>| m.map(Member::new);
    let text = event.text.as_deref().unwrap_or_default().to_owned();
    let Event { kind, changed, view, id, count, status, .. } = event;
    (kind.name(), changed, view, member(event.member), member(event.before), id, count, status, text)
}

#[pymethods]
impl EventQueue {
    /// The next event, if one is there.
    fn try_next(&self) -> PyResult<Option<Raw>> {
        self.owner.check()?;
        Ok(self.pop())
    }

    /// The next event; None after so many seconds (None: wait for ever), or when the queue has ended.
    fn next(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<Raw>> {
        self.owner.check()?;
        let until = seconds(timeout)?.map(|d| Instant::now() + d);
        loop {
            let over = self.is_over();
            let event = self.pop();
            let left = until.map_or(Duration::MAX, |u| u.saturating_duration_since(Instant::now()));
            if event.is_some() || over || left.is_zero() {
                return Ok(event);
            }
            py.detach(|| self.queue().wait(Wait::For(left.min(SLICE))));
            py.check_signals()?;
        }
    }

    /// As `next`, but waits until the queue ends and sees no signal: for a thread of its own.
    fn take(&self, py: Python<'_>) -> PyResult<Option<Raw>> {
        self.owner.check()?;
        loop {
            let over = self.is_over();
            let event = self.pop();
            if event.is_some() || over {
                return Ok(event);
            }
            py.detach(|| self.queue().wait(Wait::Forever));
        }
    }

    /// Nothing more is given out, and whoever waits is woken.
    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        if !self.owner.is_forked() {
            self.queue().wakeup();
        }
    }

    /// Closed, or the node has stopped; what was queued before a stop can still be taken.
    #[getter]
    fn ended(&self) -> PyResult<bool> {
        self.owner.check()?;
        Ok(self.is_over())
    }

    /// Readable while events wait, and when the node has stopped. Never read or close it.
    fn fileno(&self) -> PyResult<i32> {
        self.owner.check()?;
        self.queue().fd().or_raise()
    }
}
