//! A question to many, as its reader has it: answers come out of it one by one, as out of a queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bruit_core::runtime::{self, Progress, Wait};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::SLICE;
use crate::errors::{OrRaise, exception};
use crate::node::{Owner, seconds};

#[pyclass(frozen, module = "bruit._native")]
pub struct Query {
    /// None only while it is being dropped.
    query: Option<runtime::Query>,
    owner: Arc<Owner>,
    closed: AtomicBool,
}

/// Who answers; the answer, or an exception.
type Answer<'py> = (String, Bound<'py, PyBytes>, Option<Bound<'py, PyAny>>);

impl Query {
    pub fn new(query: runtime::Query, owner: Arc<Owner>) -> Query {
        Query { query: Some(query), owner, closed: AtomicBool::new(false) }
    }

    fn query(&self) -> &runtime::Query {
        self.query.as_ref().expect("there until dropped")
    }

    fn is_over(&self) -> bool {
        self.closed.load(Ordering::Acquire) || self.query().is_over()
    }

    /// The next answer. Of all else that comes the question keeps a record.
    fn pop<'py>(&self, py: Python<'py>, wait: Wait) -> Option<Answer<'py>> {
        if self.closed.load(Ordering::Acquire) {
            return None;
        }
        let mut wait = wait;
        loop {
            match py.detach(|| self.query().progress(wait))? {
                Progress::Answer(reply) => {
                    let error = reply.result().err().map(|e| exception(e).into_value(py).into_bound(py).into_any());
                    return Some((reply.sender().to_string(), PyBytes::new(py, reply.data()), error));
                }
                Progress::Heard(_) => wait = Wait::Now,
                Progress::End(_) => return None,
            }
        }
    }
}

impl Drop for Query {
    fn drop(&mut self) {
        let query = self.query.take();
        if self.owner.is_forked() {
            std::mem::forget(query);
        }
    }
}

#[pymethods]
impl Query {
    /// The next answer, if one is there.
    fn try_next<'py>(&self, py: Python<'py>) -> PyResult<Option<Answer<'py>>> {
        self.owner.check()?;
        Ok(self.pop(py, Wait::Now))
    }

    /// The next answer; None after so many seconds (None: wait for ever), or when the question has ended.
    fn next<'py>(&self, py: Python<'py>, timeout: Option<f64>) -> PyResult<Option<Answer<'py>>> {
        self.owner.check()?;
        let until = seconds(timeout)?.map(|d| Instant::now() + d);
        loop {
            let left = until.map_or(Duration::MAX, |u| u.saturating_duration_since(Instant::now()));
            let wait = if left.is_zero() { Wait::Now } else { Wait::For(left.min(SLICE)) };
            let answer = self.pop(py, wait);
            if answer.is_some() || self.is_over() || left.is_zero() {
                return Ok(answer);
            }
            py.check_signals()?;
        }
    }

    /// Gives the question up; whoever waits is woken.
    fn close(&self, py: Python<'_>) {
        self.closed.store(true, Ordering::Release);
        if !self.owner.is_forked() {
            py.detach(|| {
                self.query().cancel();
                self.query().wakeup();
            });
        }
    }

    #[getter]
    fn ended(&self) -> PyResult<bool> {
        self.owner.check()?;
        Ok(self.is_over())
    }

    /// Readable while something waits, and when the question has ended. Never read or close it.
    fn fileno(&self) -> PyResult<i32> {
        self.owner.check()?;
        self.query().fd().or_raise()
    }

    /// Who has said so far that it heard the question.
    fn heard(&self) -> Vec<String> {
        self.query().heard().iter().map(ToString::to_string).collect()
    }

    /// (asked, answered, heard, gone, why it ended: 0 or an error code), once it has.
    fn gathered(&self) -> Option<(usize, usize, usize, usize, i32)> {
        let all = self.query().gathered()?;
        Some((all.asked, all.answered, all.heard, all.gone, all.why.map_or(0, |code| code as i32)))
    }
}
