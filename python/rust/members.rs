//! Members and snapshots of them. They share the library's own immutable data; what Python asks for is made then.

use std::sync::Arc;
use std::time::Duration;

use bruit_core::id::{Epoch, Incarnation, NodeName, RunId};
use bruit_core::time::Instant;
use bruit_core::view::{self, MemberState, Meta, View};
use pyo3::exceptions::{PyIndexError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyMapping, PyMappingProxy, PySlice, PyString, PyTuple, PyType};

use crate::errors::OrRaise;

/// One member as it was when the snapshot or the event was made.
///
/// Equal to, and hashed as, every other picture of the same run of the same name: by (name, epoch).
#[pyclass(frozen, module = "bruit")]
pub struct Member {
    inner: Arc<view::Member>,
    /// Known in snapshots only.
    rtt: Option<Duration>,
    age: Option<Duration>,
    meta: PyOnceLock<Py<PyMappingProxy>>,
    meta_bytes: PyOnceLock<Py<PyMappingProxy>>,
}

impl Member {
    pub fn new(inner: Arc<view::Member>) -> Member {
        Member { inner, rtt: None, age: None, meta: PyOnceLock::new(), meta_bytes: PyOnceLock::new() }
    }

    fn in_view(view: &View, at: usize) -> Member {
        let inner = view.members[at].clone();
        let age = view.taken.since(inner.since);
        let rtt = view.rtt.get(at).copied().filter(|rtt| !rtt.is_zero());
        Member { rtt, age: Some(age), ..Member::new(inner) }
    }
}

#[pymethods]
impl Member {
    #[classattr]
    #[pyo3(name = "__match_args__")]
    fn match_args(py: Python<'_>) -> PyResult<Bound<'_, PyTuple>> {
        PyTuple::new(py, ["name"])
    }

    #[new]
    #[pyo3(signature = (name, *, state = "alive", address = "127.0.0.1:0", epoch = 0, run = 1, incarnation = 0,
        protocol = 0, app_version = 0, meta = None, is_local = false, is_neighbour = false, rtt = None,
        state_age = None))]
    #[expect(clippy::too_many_arguments, reason = "keywords in Python; what pickle and tests build one from")]
    fn py_new(
        name: &str,
        state: &str,
        address: &str,
        epoch: u64,
        run: u64,
        incarnation: u64,
        protocol: u32,
        app_version: u32,
        meta: Option<&Bound<'_, PyMapping>>,
        is_local: bool,
        is_neighbour: bool,
        rtt: Option<f64>,
        state_age: Option<f64>,
    ) -> PyResult<Member> {
        let mut pairs = Meta::new();
        for item in meta.map(PyMappingMethods::items).transpose()?.iter().flatten() {
            let (key, value): (String, Bound<'_, PyAny>) = item.extract()?;
            let value: Vec<u8> = match value.cast::<PyString>() {
                Ok(text) => {
                    text.call_method1("encode", ("utf-8", "surrogateescape"))?.cast::<PyBytes>()?.as_bytes().to_vec()
                }
                Err(_) => value.extract()?,
            };
            pairs.insert(key.into(), value.into());
        }
        let duration = |seconds: Option<f64>| {
            seconds
                .map(|s| Duration::try_from_secs_f64(s).map_err(|e| PyValueError::new_err(e.to_string())))
                .transpose()
        };
        let inner = view::Member {
            name: NodeName::new(name).or_raise()?,
            state: state_named(state)?,
            address: address
                .parse()
                .map_err(|_| PyValueError::new_err(format!("address {address:?}: expected ip:port")))?,
            epoch: Epoch(epoch),
            run: RunId::new(run).ok_or_else(|| PyValueError::new_err("run: expected 1 or more"))?,
            incarnation: Incarnation(incarnation),
            since: Instant::ZERO,
            protocol,
            app_version,
            meta: Arc::new(pairs),
            is_local,
            is_neighbour,
        };
        Ok(Member { rtt: duration(rtt)?, age: duration(state_age)?, ..Member::new(Arc::new(inner)) })
    }

    /// Unique in the cluster: 1 to 255 bytes.
    #[getter]
    fn name(&self) -> &str {
        &self.inner.name
    }

    /// How it fares.
    #[getter]
    fn state<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        static STATE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        STATE.import(py, "bruit._states", "MemberState")?.call1((state_name(self.inner.state),))
    }

    /// Where it is reached, by UDP and TCP: ``"ip:port"``.
    #[getter]
    fn address(&self) -> String {
        self.inner.address.to_string()
    }

    /// The host part of `address`.
    #[getter]
    fn ip(&self) -> String {
        self.inner.address.ip().to_string()
    }

    /// The port part of `address`.
    #[getter]
    fn port(&self) -> u16 {
        self.inner.address.port()
    }

    /// Orders the runs of one name: a restarted node has a higher one.
    #[getter]
    fn epoch(&self) -> u64 {
        self.inner.epoch.0
    }

    /// Drawn by chance for each run.
    #[getter]
    fn run(&self) -> u64 {
        self.inner.run.get()
    }

    /// How often it had to refute in this run that it is gone.
    #[getter]
    fn incarnation(&self) -> u64 {
        self.inner.incarnation.0
    }

    /// The protocol version that it speaks.
    #[getter]
    fn protocol(&self) -> u32 {
        self.inner.protocol
    }

    /// What its application said in `app_version`.
    #[getter]
    fn app_version(&self) -> u32 {
        self.inner.app_version
    }

    /// What it tells about itself, as text; bytes that are not UTF-8 come as surrogate escapes.
    #[getter]
    fn meta<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyMappingProxy>> {
        let made = self.meta.get_or_try_init(py, || {
            let dict = PyDict::new(py);
            for (key, value) in self.inner.meta.iter() {
                let value = PyBytes::new(py, value);
                dict.set_item(
                    &**key,
                    PyString::from_encoded_object(&value, Some(c"utf-8"), Some(c"surrogateescape"))?,
                )?;
            }
            PyResult::Ok(PyMappingProxy::new(py, dict.as_mapping()).unbind())
        })?;
        Ok(made.bind(py).clone())
    }

    /// What it tells about itself, as it is.
    #[getter]
    fn meta_bytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyMappingProxy>> {
        let made = self.meta_bytes.get_or_try_init(py, || {
            let dict = PyDict::new(py);
            for (key, value) in self.inner.meta.iter() {
                dict.set_item(&**key, PyBytes::new(py, value))?;
            }
            PyResult::Ok(PyMappingProxy::new(py, dict.as_mapping()).unbind())
        })?;
        Ok(made.bind(py).clone())
    }

    /// Is it the node that was asked?
    #[getter]
    fn is_local(&self) -> bool {
        self.inner.is_local
    }

    /// Has the node that was asked a link with it in the overlay?
    #[getter]
    fn is_neighbour(&self) -> bool {
        self.inner.is_neighbour
    }

    /// Round-trip time in seconds; None while unknown, and in events.
    #[getter]
    fn rtt(&self) -> Option<f64> {
        self.rtt.map(|d| d.as_secs_f64())
    }

    /// For how many seconds it had been in its state when the snapshot was taken; None in events.
    #[getter]
    fn state_age(&self) -> Option<f64> {
        self.age.map(|d| d.as_secs_f64())
    }

    /// Whether it carries a tag: ``key``, or ``key=value``.
    fn has(&self, tag: &str) -> bool {
        self.inner.has(tag)
    }

    fn __eq__(&self, other: &Bound<'_, Member>) -> bool {
        let other = &other.get().inner;
        self.inner.name == other.name && self.inner.epoch == other.epoch
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        PyTuple::new(py, [self.name().into_pyobject(py)?.into_any(), self.epoch().into_pyobject(py)?.into_any()])?
            .hash()
    }

    fn __repr__(&self) -> String {
        let m = &self.inner;
        format!("<bruit.Member {} {} {} epoch={}>", m.name, state_name(m.state), m.address, m.epoch.0)
    }

    fn __getnewargs_ex__<'py>(&self, py: Python<'py>) -> PyResult<((&str,), Bound<'py, PyDict>)> {
        let meta = PyDict::new(py);
        for (key, value) in self.inner.meta.iter() {
            meta.set_item(&**key, PyBytes::new(py, value))?;
        }
        let keywords = PyDict::new(py);
        keywords.set_item("state", state_name(self.inner.state))?;
        keywords.set_item("address", self.address())?;
        keywords.set_item("epoch", self.epoch())?;
        keywords.set_item("run", self.run())?;
        keywords.set_item("incarnation", self.incarnation())?;
        keywords.set_item("protocol", self.protocol())?;
        keywords.set_item("app_version", self.app_version())?;
        keywords.set_item("meta", meta)?;
        keywords.set_item("is_local", self.is_local())?;
        keywords.set_item("is_neighbour", self.is_neighbour())?;
        keywords.set_item("rtt", self.rtt())?;
        keywords.set_item("state_age", self.state_age())?;
        Ok(((self.name(),), keywords))
    }
}

fn state_name(state: MemberState) -> &'static str {
    match state {
        MemberState::Alive => "alive",
        MemberState::Suspect => "suspect",
        MemberState::Dead => "dead",
        MemberState::Left => "left",
    }
}

fn state_named(name: &str) -> PyResult<MemberState> {
    [MemberState::Alive, MemberState::Suspect, MemberState::Dead, MemberState::Left]
        .into_iter()
        .find(|&state| state_name(state) == name)
        .ok_or_else(|| PyValueError::new_err(format!("state {name:?}: expected alive, suspect, dead or left")))
}

/// All members at one moment, sorted by name: an immutable sequence of `Member`.
#[pyclass(frozen, sequence, module = "bruit")]
pub struct Members(pub Arc<View>);

impl Members {
    fn which(&self, which: impl Fn(&view::Member) -> bool) -> Vec<Member> {
        let members = self.0.members.iter().enumerate();
        members.filter(|(_, m)| which(m)).map(|(at, _)| Member::in_view(&self.0, at)).collect()
    }
}

#[pymethods]
impl Members {
    /// Its version: an event whose `view` is not greater is already in here.
    #[getter]
    fn view(&self) -> u64 {
        self.0.version
    }

    /// The node that was asked.
    #[getter]
    fn local(&self) -> Member {
        Member::in_view(&self.0, self.0.local)
    }

    /// Those that are alive.
    #[getter]
    fn alive(&self) -> Vec<Member> {
        self.which(|m| m.state == MemberState::Alive)
    }

    /// The member of that name, or None.
    fn get(&self, name: &str) -> Option<Member> {
        self.0.position(name).map(|at| Member::in_view(&self.0, at))
    }

    /// Members that are alive or suspect and carry a tag: ``key``, or ``key=value``.
    fn tagged(&self, tag: &str) -> Vec<Member> {
        self.which(|m| m.state <= MemberState::Suspect && m.has(tag))
    }

    /// Where that member is. `ValueError` where it is not.
    fn index(&self, member: &Bound<'_, PyAny>) -> PyResult<usize> {
        let found = self.0.position(&member.cast::<Member>()?.get().inner.name);
        match found {
            Some(at) if self.0.members[at].epoch == member.cast::<Member>()?.get().inner.epoch => Ok(at),
            _ => Err(PyValueError::new_err("not in these members")),
        }
    }

    /// 1 where that member is here, else 0.
    fn count(&self, member: &Bound<'_, PyAny>) -> usize {
        usize::from(self.index(member).is_ok())
    }

    fn __len__(&self) -> usize {
        self.0.members.len()
    }

    fn __getitem__<'py>(&self, py: Python<'py>, index: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let len = self.0.members.len();
        if let Ok(slice) = index.cast::<PySlice>() {
            let at = slice.indices(len as isize)?;
            let picked =
                (0..at.slicelength).map(|i| Member::in_view(&self.0, (at.start + i as isize * at.step) as usize));
            return picked.collect::<Vec<_>>().into_pyobject(py);
        }
        let Ok(index) = index.extract::<isize>() else {
            return Err(PyTypeError::new_err("expected an index or a slice; get(name) finds a member by its name"));
        };
        let at = if index < 0 { index + len as isize } else { index };
        if !(0..len as isize).contains(&at) {
            return Err(PyIndexError::new_err(format!("index {index} of {len} members")));
        }
        Ok(Member::in_view(&self.0, at as usize).into_pyobject(py)?.into_any())
    }

    /// A member, or a name.
    fn __contains__(&self, what: &Bound<'_, PyAny>) -> bool {
        match what.extract::<String>() {
            Ok(name) => self.0.position(&name).is_some(),
            Err(_) => self.index(what).is_ok(),
        }
    }

    fn __repr__(&self) -> String {
        let names: Vec<String> =
            self.0.members.iter().take(8).map(|m| format!("{} {}", m.name, state_name(m.state))).collect();
        let more = if self.0.members.len() > 8 { ", …" } else { "" };
        format!("<bruit.Members view={} [{}{}]>", self.0.version, names.join(", "), more)
    }
}
