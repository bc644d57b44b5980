//! The Python module `bruit._native`: the node of bruit-core, its members, events and messages, as thin Python objects.
//!
//! What people import is written in Python, in `src/bruit`, on top of this. Three rules keep interpreter and library
//! apart:
//!
//! 1. No thread of the library ever waits for the interpreter. Events and messages come out of queues that Python threads read; log
//!    lines go into a ring that a Python thread empties.
//! 2. No thread waits for the library while it holds the interpreter: whatever may block runs inside `detach`, in slices
//!    between which signals are looked at, so that Ctrl-C ends it.
//! 3. In a forked child nothing of the parent's is touched: calls raise, and objects are forgotten instead of dropped.

mod errors;
mod log;
mod members;
mod message;
mod node;
mod pending;
mod query;
mod queue;
mod sim;
mod stream;
mod tables;

use pyo3::exceptions::PyImportError;
use pyo3::prelude::*;

/// A function, not a `mod`: that one adds its classes before any code of ours runs. In a subinterpreter their types would
/// then be made there, and the main interpreter, which shares our statics, would go on with them.
#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    main_interpreter_only()?;
    module.add_class::<log::LogRing>()?;
    module.add_class::<members::Member>()?;
    module.add_class::<members::Members>()?;
    module.add_class::<message::Answers>()?;
    module.add_class::<message::Message>()?;
    module.add_class::<node::Node>()?;
    module.add_class::<node::Runtime>()?;
    module.add_class::<pending::Pending>()?;
    module.add_class::<query::Query>()?;
    module.add_class::<queue::Queue>()?;
    module.add_class::<sim::SimReport>()?;
    module.add_class::<sim::SimWorld>()?;
    module.add_class::<stream::Stream>()?;
    module.add_function(wrap_pyfunction!(sim::sim_check, module)?)?;
    module.add_function(wrap_pyfunction!(sim::sim_compare, module)?)?;
    module.add_function(wrap_pyfunction!(sim::sim_run, module)?)?;
    module.add_function(wrap_pyfunction!(tables::error_codes, module)?)?;
    module.add_function(wrap_pyfunction!(tables::event_kinds, module)?)?;
    module.add_function(wrap_pyfunction!(tables::options, module)?)?;
    module.add_function(wrap_pyfunction!(tables::stat_docs, module)?)?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))
}

/// Python 3.12 refuses by itself where an interpreter has its own lock, but not where it shares that of the main one.
fn main_interpreter_only() -> PyResult<()> {
    // SAFETY: the thread is attached, since a module is being imported in it.
    let id = unsafe { pyo3::ffi::PyInterpreterState_GetID(pyo3::ffi::PyInterpreterState_Get()) };
    if id == 0 { Ok(()) } else { Err(PyImportError::new_err("bruit._native: not in a subinterpreter")) }
}

/// Between two looks at the signals: what Ctrl-C waits for at most.
const SLICE: std::time::Duration = std::time::Duration::from_millis(100);
