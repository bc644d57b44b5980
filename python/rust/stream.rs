//! A byte stream as Python holds it: reads and writes wait without the interpreter.

use std::time::{Duration, Instant};

use bruit_core::error::{Code, Error, Result};
use bruit_core::runtime::{self, Wait};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::SLICE;
use crate::errors::OrRaise;
use crate::message::payload;
use crate::node::seconds;

/// What one read makes room for at most: no part of a stream is larger.
const READ_MAX: usize = 64 << 10;

/// The library's own end looks after itself in a forked child, when it is dropped as well.
#[pyclass(frozen, module = "bruit._native")]
pub struct Stream(pub runtime::Stream);

#[pymethods]
impl Stream {
    #[getter]
    fn peer(&self) -> &str {
        self.0.peer()
    }

    #[getter]
    fn topic(&self) -> &str {
        self.0.topic()
    }

    #[getter]
    fn is_compressed(&self) -> bool {
        self.0.is_compressed()
    }

    /// At least a byte, none at the end. None: nothing yet, with a `timeout` of 0.
    fn read<'py>(&self, py: Python<'py>, size: usize, timeout: Option<f64>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let mut data = vec![0; size.min(READ_MAX)];
        let count = patiently(py, timeout, |wait| self.0.read(&mut data, wait))?;
        Ok(count.map(|count| PyBytes::new(py, &data[..count])))
    }

    /// As much as there is room for, at least a byte. None: no room, with a `timeout` of 0.
    fn write(&self, py: Python<'_>, data: &Bound<'_, PyAny>, timeout: Option<f64>) -> PyResult<Option<usize>> {
        let data = payload(data)?;
        let data = data.as_bytes();
        patiently(py, timeout, |wait| self.0.write(data, wait))
    }

    fn shutdown(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.0.shutdown()).or_raise()
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| self.0.close());
    }

    fn fail(&self, py: Python<'_>, text: &str) {
        py.detach(|| self.0.fail(Code::Remote, text));
    }

    /// Readable while `read` would not wait. Never read or close it.
    fn read_fd(&self) -> PyResult<i32> {
        self.0.read_fd().or_raise()
    }

    /// Readable, too, while `write` would not wait.
    fn write_fd(&self) -> PyResult<i32> {
        self.0.write_fd().or_raise()
    }
}

/// Waits in slices, between which signals are looked at: who gives up has read or written nothing.
fn patiently<T: Send>(
    py: Python<'_>,
    timeout: Option<f64>,
    mut call: impl FnMut(Wait) -> Result<T> + Send,
) -> PyResult<Option<T>> {
    let until = seconds(timeout)?.map(|time| Instant::now() + time);
    if timeout == Some(0.0) {
        return match py.detach(|| call(Wait::Now)) {
            Err(Error { code: Code::Busy, .. }) => Ok(None),
            done => done.map(Some).or_raise(),
        };
    }
    loop {
        let left = until.map_or(Duration::MAX, |until| until.saturating_duration_since(Instant::now()));
        match py.detach(|| call(Wait::For(left.min(SLICE)))) {
            Err(Error { code: Code::Timeout, .. }) if left > SLICE => py.check_signals()?,
            done => return done.map(Some).or_raise(),
        }
    }
}
