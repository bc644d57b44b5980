//! A bounded queue of events, of messages, of streams, or of all of them, for one reader: in a thread or in an event loop.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bruit_core::error::Code;
use bruit_core::runtime::{self, Heard, Reader, Wait};
use bruit_core::view::Event;
use pyo3::prelude::*;

use crate::SLICE;
use crate::errors::{OrRaise, error};
use crate::members::Member;
use crate::message::Message;
use crate::node::{Owner, seconds};
use crate::stream::Stream;

/// (kind, changed, view, member, before, id, count, status, text), for `bruit.events.from_raw`.
pub type Raw = (&'static str, u32, u64, Option<Member>, Option<Member>, u64, u64, i32, String);

#[pyclass(frozen, module = "bruit._native")]
pub struct Queue {
    /// None only while it is being dropped.
    of: Option<Of>,
    owner: Arc<Owner>,
    closed: AtomicBool,
}

pub enum Of {
    Events(runtime::EventQueue),
    Messages(runtime::MessageQueue),
    Mixed(runtime::MixedQueue),
}

#[derive(IntoPyObject)]
pub enum Got {
    Event(Raw),
    Message(Message),
    Stream(Stream),
}

impl Deref for Of {
    type Target = Reader;

    fn deref(&self) -> &Reader {
        match self {
            Of::Events(queue) => queue,
            Of::Messages(queue) => queue,
            Of::Mixed(queue) => queue,
        }
    }
}

impl Of {
    fn try_next(&self) -> Option<Heard> {
        match self {
            Of::Events(queue) => queue.try_next().map(Heard::Event),
            Of::Messages(queue) => queue.try_next().map(Heard::Message),
            Of::Mixed(queue) => queue.try_next(),
        }
    }
}

impl Queue {
    pub fn new(of: Of, owner: Arc<Owner>) -> Queue {
        Queue { of: Some(of), owner, closed: AtomicBool::new(false) }
    }

    fn of(&self) -> &Of {
        self.of.as_ref().expect("there until dropped")
    }

    fn mixed(&self) -> PyResult<&runtime::MixedQueue> {
        self.owner.check()?;
        match self.of() {
            Of::Mixed(queue) => Ok(queue),
            _ => Err(error(Code::Invalid, "what this queue listens to does not change")),
        }
    }

    fn pop(&self) -> Option<Got> {
        let open = !self.closed.load(Ordering::Acquire);
        let heard = open.then(|| self.of().try_next()).flatten()?;
        match heard {
            Heard::Event(event) => Some(Got::Event(raw(event))),
            Heard::Message(message) => Some(Got::Message(Message::new(message, self.owner.clone()))),
            Heard::Question(message) => Some(Got::Message(Message::question(message, self.owner.clone()))),
            Heard::Stream(stream) => Some(Got::Stream(Stream(stream))),
        }
    }

    fn is_over(&self) -> bool {
        self.closed.load(Ordering::Acquire) || self.of().is_closed()
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let of = self.of.take();
        if self.owner.is_forked() {
            std::mem::forget(of);
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
impl Queue {
    /// The next item, if one is there.
    fn try_next(&self) -> PyResult<Option<Got>> {
        self.owner.check()?;
        Ok(self.pop())
    }

    /// The next item; None after so many seconds (None: wait for ever), or when the queue has ended.
    fn next(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<Got>> {
        self.owner.check()?;
        let until = seconds(timeout)?.map(|d| Instant::now() + d);
        loop {
            let over = self.is_over();
            let got = self.pop();
            let left = until.map_or(Duration::MAX, |u| u.saturating_duration_since(Instant::now()));
            if got.is_some() || over || left.is_zero() {
                return Ok(got);
            }
            py.detach(|| self.of().wait(Wait::For(left.min(SLICE))));
            py.check_signals()?;
        }
    }

    /// As `next`, but waits until the queue ends and sees no signal: for a thread of its own.
    fn take(&self, py: Python<'_>) -> PyResult<Option<Got>> {
        self.owner.check()?;
        loop {
            let over = self.is_over();
            let got = self.pop();
            if got.is_some() || over {
                return Ok(got);
            }
            py.detach(|| self.of().wait(Wait::Forever));
        }
    }

    /// Of a queue for handlers: messages under this topic come, too. As often as it was called, `ignore` has to be.
    fn listen(&self, topic: &str) -> PyResult<()> {
        self.mixed()?.listen(topic).or_raise()
    }

    fn ignore(&self, topic: &str) -> PyResult<()> {
        self.mixed()?.ignore(topic);
        Ok(())
    }

    /// The same for streams that members open.
    fn listen_to_streams(&self, topic: &str) -> PyResult<()> {
        self.mixed()?.listen_to_streams(topic).or_raise()
    }

    fn ignore_streams(&self, topic: &str) -> PyResult<()> {
        self.mixed()?.ignore_streams(topic);
        Ok(())
    }

    /// The same for what others broadcast, before it goes on.
    fn judge(&self, py: Python<'_>, topic: &str) -> PyResult<()> {
        let queue = self.mixed()?;
        py.detach(|| queue.judge(topic)).or_raise()
    }

    fn judge_no_more(&self, py: Python<'_>, topic: &str) -> PyResult<()> {
        let queue = self.mixed()?;
        py.detach(|| queue.judge_no_more(topic));
        Ok(())
    }

    /// Nothing more comes, what waits is let go, and whoever waits is woken.
    fn close(&self, py: Python<'_>) {
        self.closed.store(true, Ordering::Release);
        if !self.owner.is_forked() {
            py.detach(|| self.of().close());
        }
    }

    /// Closed, or the node has stopped; what was queued before a stop can still be taken.
    #[getter]
    fn ended(&self) -> PyResult<bool> {
        self.owner.check()?;
        Ok(self.is_over())
    }

    /// How many were dropped so far, because they found no room.
    #[getter]
    fn lost(&self) -> PyResult<u64> {
        self.owner.check()?;
        Ok(self.of().lost())
    }

    /// Readable while items wait, and when the node has stopped. Never read or close it.
    fn fileno(&self) -> PyResult<i32> {
        self.owner.check()?;
        self.of().fd().or_raise()
    }
}
