//! The library's tables, for Python to build on and to be tested against.

use bruit_core::config::{Config, OptionKind};
use bruit_core::error::Code;
use bruit_core::view::EventKind;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

/// Every error code: (number, name, text).
#[pyfunction]
pub fn error_codes() -> Vec<(i32, &'static str, &'static str)> {
    Code::ALL.iter().map(|&code| (code as i32, code.name(), code.describe())).collect()
}

/// Every kind of event and its bit in a subscription mask.
#[pyfunction]
pub fn event_kinds(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let kinds = PyDict::new(py);
    for kind in EventKind::ALL {
        kinds.set_item(kind.name(), kind.bit())?;
    }
    Ok(kinds)
}

/// Every option: (key, kind, unit, lan, wan, local, bounds, live, choices, source, doc, group).
#[pyfunction]
pub fn options(py: Python<'_>) -> PyResult<Vec<Bound<'_, PyTuple>>> {
    let row = |o: &'static bruit_core::config::OptionDesc| {
        let choices = PyTuple::new(py, o.choices)?;
        let kind = match o.kind {
            OptionKind::Text => "text",
            OptionKind::Bool => "bool",
            OptionKind::Count => "count",
            OptionKind::Size => "size",
            OptionKind::Duration => "duration",
            OptionKind::Ratio => "ratio",
            OptionKind::Choice => "choice",
        };
        (o.key, kind, o.unit, o.lan, o.wan, o.local, o.bounds, o.live, choices, o.source, o.doc, o.group)
            .into_pyobject(py)
    };
    Config::descs().iter().map(row).collect()
}

/// The meaning of every counter of `Node.stats`.
#[pyfunction]
pub fn stat_docs(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let docs = PyDict::new(py);
    for desc in bruit_core::runtime::Stats::all() {
        docs.set_item(desc.name, desc.doc)?;
    }
    Ok(docs)
}
