//! A call that takes time and is under way: start, join, leave or stop.
//!
//! It runs on a short-lived thread of its own, because the interpreter's thread may have to look at signals, or run an
//! event loop, in the meantime. Whoever gives up waiting leaves it alone; it ends by its timeout, or when the node stops.

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use bruit_core::error::{Code, Error, Result};
use pyo3::prelude::*;

use crate::SLICE;
use crate::errors::{OrRaise, error, exception};
use crate::node::seconds;

#[pyclass(frozen, module = "bruit._native")]
pub struct Pending {
    shared: Arc<Shared>,
    /// Reads end of file, once the call has ended.
    done: UnixStream,
    pid: u32,
}

struct Shared {
    result: Mutex<Option<Result<u64>>>,
    ended: Condvar,
}

impl Pending {
    /// Runs `call` on a thread.
    pub fn spawn(call: impl FnOnce() -> Result<u64> + Send + 'static) -> PyResult<Pending> {
        let (pending, notify) = Pending::new(None)?;
        let shared = pending.shared.clone();
        let run = move || {
            let result = call();
            *shared.result.lock().expect("nobody panics with it") = Some(result);
            shared.ended.notify_all();
            drop(notify);
        };
        match std::thread::Builder::new().name("bruit-wait".into()).spawn(run) {
            Ok(_) => Ok(pending),
            Err(e) => Err(exception(&Error::io("cannot start a thread", &e))),
        }
    }

    /// It has ended already.
    pub fn ready(result: Result<u64>) -> PyResult<Pending> {
        Ok(Pending::new(Some(result))?.0)
    }

    fn new(result: Option<Result<u64>>) -> PyResult<(Pending, UnixStream)> {
        let (done, notify) = UnixStream::pair().map_err(|e| exception(&Error::io("cannot make a socket pair", &e)))?;
        let shared = Arc::new(Shared { result: Mutex::new(result), ended: Condvar::new() });
        Ok((Pending { shared, done, pid: std::process::id() }, notify))
    }
}

#[pymethods]
impl Pending {
    /// Readable once it has ended.
    fn fileno(&self) -> i32 {
        self.done.as_raw_fd()
    }

    /// Wait until it has ended, for at most so many seconds (None: for ever). Ctrl-C interrupts the wait, not the call.
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        if std::process::id() != self.pid {
            return Err(error(Code::Forked, "this call was begun by another process"));
        }
        let until = seconds(timeout)?.map(|d| Instant::now() + d);
        loop {
            let left = until.map_or(Duration::MAX, |u| u.saturating_duration_since(Instant::now()));
            let ended = py.detach(|| {
                let result = self.shared.result.lock().expect("nobody panics with it");
                let waited = self.shared.ended.wait_timeout_while(result, left.min(SLICE), |r| r.is_none());
                waited.expect("nobody panics with it").0.is_some()
            });
            if ended || left.is_zero() {
                return Ok(ended);
            }
            py.check_signals()?;
        }
    }

    /// What it returned, or its exception. `StateError` while it is under way.
    fn result(&self) -> PyResult<u64> {
        match &*self.shared.result.lock().expect("nobody panics with it") {
            Some(result) => result.clone().or_raise(),
            None => Err(error(Code::State, "still under way")),
        }
    }

    /// `wait` for ever, then `result`.
    fn wait_result(&self, py: Python<'_>) -> PyResult<u64> {
        self.wait(py, None)?;
        self.result()
    }
}
