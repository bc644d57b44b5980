//! From the library's error to the Python exception of the same code.

use bruit_core::error::{Code, Error};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// The exception that `bruit.errors.from_code` makes of it.
pub fn exception(error: &Error) -> PyErr {
    static FROM_CODE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    Python::attach(|py| {
        let made = FROM_CODE
            .import(py, "bruit.errors", "from_code")
            .and_then(|from_code| from_code.call1((error.code as i32, error.text.as_str(), error.errno)));
        match made {
            Ok(exception) => PyErr::from_value(exception),
            Err(failed) => failed,
        }
    })
}

pub fn error(code: Code, text: &str) -> PyErr {
    exception(&Error::new(code, text))
}

pub trait OrRaise<T> {
    fn or_raise(self) -> PyResult<T>;
}

impl<T> OrRaise<T> for Result<T, Error> {
    fn or_raise(self) -> PyResult<T> {
        self.map_err(|e| exception(&e))
    }
}
