//! The Python module `bruit._native`: the node of bruit-core, its members and events, as thin Python objects.
//!
//! What people import is written in Python, in `src/bruit`, on top of this. Three rules keep interpreter and library
//! apart:
//!
//! 1. No thread of the library ever waits for the interpreter. Events come out of queues that Python threads read; log
//!    lines go into a ring that a Python thread empties.
//! 2. No thread waits for the library while it holds the interpreter: whatever may block runs inside `detach`, in slices
//!    between which signals are looked at, so that Ctrl-C ends it.
//! 3. In a forked child nothing of the parent's is touched: calls raise, and objects are forgotten instead of dropped.

mod errors;
mod log;
mod members;
mod node;
mod pending;
mod queue;
mod tables;

use pyo3::exceptions::PyImportError;
use pyo3::prelude::*;

#[pymodule]
mod _native {
    #[pymodule_export]
    use crate::log::LogRing;
    #[pymodule_export]
    use crate::members::{Member, Members};
    #[pymodule_export]
    use crate::node::{Node, Runtime};
    #[pymodule_export]
    use crate::pending::Pending;
    #[pymodule_export]
    use crate::queue::EventQueue;
    #[pymodule_export]
    use crate::tables::{error_codes, event_kinds, options, stat_docs};

    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        crate::main_interpreter_only()?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}

/// Python 3.12 refuses by itself where an interpreter has its own lock, but not where it shares that of the main one.
fn main_interpreter_only() -> PyResult<()> {
    // SAFETY: the thread is attached, since a module is being imported in it.
    let id = unsafe { pyo3::ffi::PyInterpreterState_GetID(pyo3::ffi::PyInterpreterState_Get()) };
    if id == 0 { Ok(()) } else { Err(PyImportError::new_err("bruit._native: not in a subinterpreter")) }
}

/// Between two looks at the signals: what Ctrl-C waits for at most.
const SLICE: std::time::Duration = std::time::Duration::from_millis(100);
