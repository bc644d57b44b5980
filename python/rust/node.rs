//! The node: convert, call, report.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bruit_core::config::Config;
use bruit_core::engine::{Question, Sending};
use bruit_core::error::{Code, Error, Result};
use bruit_core::message::{Body, ToAll};
use bruit_core::runtime::{self, Adopt, Each, LogSink, NodeState, Parcel, Sent, Stats, To, Wait};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};

use crate::SLICE;
use crate::errors::{OrRaise, error, exception};
use crate::log::LogRing;
use crate::members::Members;
use crate::message::{self, Answers, payload};
use crate::pending::Pending;
use crate::query::Query;
use crate::queue::{Of, Queue};
use crate::stream::Stream;

/// Threads that several nodes share: give the same one to each. It ends with the last of them.
#[pyclass(frozen, module = "bruit")]
pub struct Runtime(runtime::Runtime);

#[pymethods]
impl Runtime {
    #[new]
    fn new() -> PyResult<Runtime> {
        Ok(Runtime(runtime::Runtime::new().or_raise()?))
    }
}

/// The process that started a node; 0 until then.
pub struct Owner(AtomicU32);

impl Owner {
    /// Is this a child of that process? Then even dropping would touch what is the parent's.
    pub fn is_forked(&self) -> bool {
        let pid = self.0.load(Ordering::Relaxed);
        pid != 0 && pid != std::process::id()
    }

    pub fn check(&self) -> PyResult<()> {
        if self.is_forked() { Err(error(Code::Forked, Code::Forked.describe())) } else { Ok(()) }
    }
}

#[pyclass(frozen, module = "bruit._native")]
pub struct Node {
    /// None only while it is being dropped.
    node: Option<runtime::Node>,
    owner: Arc<Owner>,
    /// How many events may wait for the handlers.
    handlers_capacity: usize,
    /// What log lines name it. An automatic name is certain after the start only.
    name: Arc<Mutex<String>>,
}

impl Node {
    fn node(&self) -> PyResult<&runtime::Node> {
        self.owner.check()?;
        Ok(self.node.as_ref().expect("there until dropped"))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let node = self.node.take();
        if self.owner.is_forked() {
            std::mem::forget(node);
        }
        // Else dropping the last handle releases the node, which never blocks.
    }
}

#[pymethods]
impl Node {
    #[new]
    fn new(
        options: Vec<(String, String)>,
        seeds: Vec<String>,
        keys: Vec<Bound<'_, PyAny>>,
        meta: Vec<(String, Bound<'_, PyBytes>)>,
        runtime: Option<&Bound<'_, Runtime>>,
        log: &LogRing,
        log_level: i32,
    ) -> PyResult<Node> {
        let mut config = Config::new();
        for (key, value) in &options {
            config.set(key, value).or_raise()?;
        }
        for seed in &seeds {
            config.add_seed(seed).or_raise()?;
        }
        for key in &keys {
            match key.cast::<PyString>() {
                Ok(text) => config.add_key_text(&text.to_cow()?).or_raise()?,
                Err(_) => config.add_key(key.cast::<PyBytes>()?.as_bytes()).or_raise()?,
            }
        }
        for (key, value) in &meta {
            config.set_meta(key, Some(value.as_bytes())).or_raise()?;
        }
        let name: Arc<Mutex<String>> = Arc::default();
        let (ring, named) = (log.ring(), name.clone());
        let sink = (log_level >= 0).then(|| {
            LogSink::new(log_level, move |level, target, text| {
                let node = named.lock().expect("nobody panics with it").clone();
                ring.push((level, target.to_owned(), text.to_owned(), node));
            })
        });
        let runtime = runtime.map(|r| r.get().0.clone());
        // As the library's own inbox has. Membership events fold into each other when many wait, so that this is room
        // for all of them; but here other events count as well.
        let handlers_capacity = config.inbox_capacity.max(4 * config.max_members);
        let node = runtime::Node::new_with(&config, runtime, Adopt::default(), sink).or_raise()?;
        *name.lock().expect("nobody panics with it") = node.name().to_string();
        Ok(Node { node: Some(node), owner: Arc::new(Owner(AtomicU32::new(0))), handlers_capacity, name })
    }

    /// Begin to start: where it shall listen may be a host name that has to be looked up.
    fn start(&self) -> PyResult<Pending> {
        let (node, owner, name) = (self.node()?.clone(), self.owner.clone(), self.name.clone());
        Pending::spawn(move || {
            node.start()?;
            owner.0.store(std::process::id(), Ordering::Relaxed);
            *name.lock().expect("nobody panics with it") = node.name().to_string();
            Ok(0)
        })
    }

    /// Begin to join; a `timeout` of 0 ends at once with 0.
    fn join(&self, addresses: Vec<String>, timeout: Option<f64>) -> PyResult<Pending> {
        let (node, wait) = (self.node()?.clone(), wait(timeout)?);
        self.begin(wait, move || {
            let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
            node.join(&addresses, wait).map(|answered| answered as u64)
        })
    }

    fn leave(&self, timeout: Option<f64>) -> PyResult<Pending> {
        let (node, wait) = (self.node()?.clone(), wait(timeout)?);
        self.begin(wait, move || node.leave(wait).map(|()| 0))
    }

    fn stop(&self, timeout: Option<f64>) -> PyResult<Pending> {
        let (node, wait) = (self.node()?.clone(), wait(timeout)?);
        self.begin(wait, move || match node.stop(wait) {
            // Nobody asked to wait.
            Err(Error { code: Code::Timeout, .. }) if wait == Wait::Now => Ok(0),
            result => result.map(|()| 0),
        })
    }

    /// Stop without waiting for anything, from anywhere.
    fn release(&self, py: Python<'_>) -> PyResult<()> {
        let node = self.node()?;
        py.detach(|| node.release());
        Ok(())
    }

    #[getter]
    fn name(&self) -> PyResult<String> {
        Ok(self.node()?.name().to_string())
    }

    #[getter]
    fn address(&self) -> PyResult<String> {
        self.node()?.address().map(|a| a.to_string()).or_raise()
    }

    #[getter]
    fn state(&self) -> PyResult<i32> {
        Ok(self.node()?.state() as i32)
    }

    #[getter]
    fn view(&self, py: Python<'_>) -> PyResult<u64> {
        let node = self.node()?;
        Ok(py.detach(|| node.view()))
    }

    fn members(&self, py: Python<'_>) -> PyResult<Members> {
        let node = self.node()?;
        Ok(Members(py.detach(|| node.members()).or_raise()?))
    }

    fn set(&self, py: Python<'_>, key: &str, value: &str) -> PyResult<()> {
        let node = self.node()?;
        py.detach(|| node.set(key, value)).or_raise()
    }

    fn set_meta(&self, py: Python<'_>, changes: Vec<(String, Option<Bound<'_, PyBytes>>)>) -> PyResult<()> {
        let node = self.node()?;
        let changes: Vec<(&str, Option<&[u8]>)> =
            changes.iter().map(|(key, value)| (key.as_str(), value.as_ref().map(|v| v.as_bytes()))).collect();
        py.detach(|| node.set_meta(&changes)).or_raise()
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let node = self.node()?;
        let stats = py.detach(|| node.stats()).or_raise()?;
        let found = PyDict::new(py);
        for desc in Stats::all() {
            found.set_item(desc.name, desc.get(&stats))?;
        }
        Ok(found)
    }

    /// With a `timeout` (None: for ever) wait for room.
    #[expect(clippy::too_many_arguments, reason = "keywords in Python")]
    fn send(
        &self,
        py: Python<'_>,
        to: &str,
        data: &Bound<'_, PyAny>,
        topic: &str,
        reliable: bool,
        receipt: bool,
        timeout: Option<f64>,
    ) -> PyResult<Option<u64>> {
        let (node, data) = (self.node()?, payload(data)?);
        let data = data.as_bytes();
        patiently(py, timeout, |wait| node.send(to, topic, data, sending(reliable, receipt), wait))
    }

    /// To several, or to the holders of a tag: (member, receipt, exception) of each. Never waits.
    #[expect(clippy::too_many_arguments, reason = "keywords in Python")]
    fn send_each<'py>(
        &self,
        py: Python<'py>,
        members: Option<Vec<String>>,
        tag: Option<String>,
        data: &Bound<'_, PyAny>,
        topic: &str,
        reliable: bool,
        receipt: bool,
    ) -> PyResult<Vec<SentRaw<'py>>> {
        let (node, data) = (self.node()?, payload(data)?);
        let body = Body::new(topic, data.as_bytes()).or_raise()?;
        let names: Vec<&str> = members.iter().flatten().map(String::as_str).collect();
        let to = tag.as_deref().map_or(To::Members(&names), To::Holders);
        let parcel = Parcel { to, body, how: sending(reliable, receipt) };
        let mut sent = py.detach(|| node.submit(&[parcel])).or_raise()?;
        let Some(Sent::ToMany(each)) = sent.pop().transpose().or_raise()? else { return Ok(Vec::new()) };
        let raised = |e: Error| exception(&e).into_value(py).into_bound(py).into_any();
        let told = each.into_iter().map(|Each { member, result }| match result {
            Ok(receipt) => (member, receipt, None),
            Err(e) => (member, None, Some(raised(e))),
        });
        Ok(told.collect())
    }

    /// Ask all, or those that match.
    #[expect(clippy::too_many_arguments, reason = "keywords in Python")]
    fn query(
        &self,
        py: Python<'_>,
        data: &Bound<'_, PyAny>,
        topic: &str,
        names: Vec<String>,
        tags: Vec<String>,
        timeout: Option<f64>,
        relay: usize,
        acks: bool,
        loopback: bool,
    ) -> PyResult<Query> {
        let (node, data) = (self.node()?, payload(data)?);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
        let (data, timeout) = (data.as_bytes(), seconds(timeout)?);
        let question = Question { topic, data, names: &names, tags: &tags, timeout, relay, acks, loopback };
        let query = py.detach(|| node.query(&question, Wait::Now)).or_raise()?;
        Ok(Query::new(query, self.owner.clone()))
    }

    /// The same to all.
    fn broadcast(
        &self,
        py: Python<'_>,
        data: &Bound<'_, PyAny>,
        topic: &str,
        loopback: bool,
        ordered: bool,
        timeout: Option<f64>,
    ) -> PyResult<u64> {
        let (node, data) = (self.node()?, payload(data)?);
        let data = data.as_bytes();
        patiently(py, timeout, |wait| node.broadcast(topic, data, ToAll { loopback, ordered }, wait))
    }

    /// Ask and wait for the answer.
    fn request<'py>(
        &self,
        py: Python<'py>,
        to: &str,
        data: &Bound<'py, PyAny>,
        topic: &str,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let (node, data) = (self.node()?, payload(data)?);
        message::request(py, node, (to, topic, data.as_bytes()), seconds(timeout)?)
    }

    /// Ask; the answer comes to `answers`, under `token`. What it returns is for `cancel`.
    #[expect(clippy::too_many_arguments, reason = "keywords in Python")]
    fn request_start(
        &self,
        py: Python<'_>,
        to: &str,
        data: &Bound<'_, PyAny>,
        topic: &str,
        timeout: Option<f64>,
        answers: &Bound<'_, Answers>,
        token: u64,
    ) -> PyResult<u64> {
        let (node, data, timeout) = (self.node()?, payload(data)?, seconds(timeout)?);
        let (data, answers) = (data.as_bytes(), answers.get());
        py.detach(|| answers.ask(node, (to, topic, data), timeout, token)).or_raise()
    }

    fn cancel(&self, py: Python<'_>, request: u64) -> PyResult<()> {
        let node = self.node()?;
        py.detach(|| node.cancel(request)).or_raise()
    }

    fn queue(&self, py: Python<'_>, mask: u32, capacity: usize) -> PyResult<Queue> {
        let node = self.node()?;
        let queue = py.detach(|| node.queue(mask, capacity)).or_raise()?;
        Ok(Queue::new(Of::Events(queue), self.owner.clone()))
    }

    fn message_queue(&self, py: Python<'_>, topic: &str) -> PyResult<Queue> {
        let node = self.node()?;
        let queue = py.detach(|| node.message_queue(topic)).or_raise()?;
        Ok(Queue::new(Of::Messages(queue), self.owner.clone()))
    }

    /// For handlers: all events, and the messages and streams that it is told to `listen` to. As large as they need it to lose no
    /// membership event.
    fn handler_queue(&self, py: Python<'_>) -> PyResult<Queue> {
        let (node, capacity) = (self.node()?, self.handlers_capacity);
        let queue = py.detach(|| node.mixed_queue(u32::MAX, capacity)).or_raise()?;
        Ok(Queue::new(Of::Mixed(queue), self.owner.clone()))
    }

    /// For the streams that members open under a topic.
    fn stream_queue(&self, py: Python<'_>, topic: &str) -> PyResult<Queue> {
        let node = self.node()?;
        let queue = py.detach(|| {
            let queue = node.mixed_queue(0, 1)?;
            queue.listen_to_streams(topic).map(|()| queue)
        });
        Ok(Queue::new(Of::Mixed(queue.or_raise()?), self.owner.clone()))
    }

    /// For what others broadcast under a topic, before it goes on.
    fn validation_queue(&self, py: Python<'_>, topic: &str) -> PyResult<Queue> {
        let node = self.node()?;
        let queue = py.detach(|| {
            let queue = node.mixed_queue(0, 1)?;
            queue.judge(topic).map(|()| queue)
        });
        Ok(Queue::new(Of::Mixed(queue.or_raise()?), self.owner.clone()))
    }

    fn open_stream(&self, py: Python<'_>, member: &str, topic: &str, compress: bool) -> PyResult<Stream> {
        let node = self.node()?;
        py.detach(|| node.open_stream(member, topic, compress)).map(Stream).or_raise()
    }
}

impl Node {
    fn begin(&self, wait: Wait, call: impl FnOnce() -> Result<u64> + Send + 'static) -> PyResult<Pending> {
        match wait {
            Wait::Now => Pending::ready(Python::attach(|py| py.detach(call))),
            Wait::For(_) | Wait::Forever => Pending::spawn(call),
        }
    }
}

/// A duration in seconds, as the Python side has checked it: not negative and not huge. None is for ever.
pub fn seconds(timeout: Option<f64>) -> PyResult<Option<Duration>> {
    let checked = timeout.map(|s| Duration::try_from_secs_f64(s).map_err(|e| error(Code::Invalid, &e.to_string())));
    checked.transpose()
}

/// A member, the receipt's number, an exception.
type SentRaw<'py> = (String, Option<u64>, Option<Bound<'py, PyAny>>);

fn sending(reliable: bool, receipt: bool) -> Sending {
    match (receipt, reliable) {
        (true, _) => Sending::Receipt,
        (false, true) => Sending::Reliable,
        (false, false) => Sending::BestEffort,
    }
}

/// Waits for room in slices, between which signals are looked at: who gives up has sent nothing.
fn patiently<T: Send>(py: Python<'_>, timeout: Option<f64>, send: impl Fn(Wait) -> Result<T> + Sync) -> PyResult<T> {
    let until = seconds(timeout)?.map(|d| Instant::now() + d);
    loop {
        let left = until.map_or(Duration::MAX, |u| u.saturating_duration_since(Instant::now()));
        let wait = if left.is_zero() { Wait::Now } else { Wait::For(left.min(SLICE)) };
        match py.detach(|| send(wait)) {
            Err(Error { code: Code::Busy, .. }) if wait != Wait::Now => py.check_signals()?,
            sent => return sent.or_raise(),
        }
    }
}

fn wait(timeout: Option<f64>) -> PyResult<Wait> {
    Ok(match seconds(timeout)? {
        None => Wait::Forever,
        Some(Duration::ZERO) => Wait::Now,
        Some(time) => Wait::For(time),
    })
}

// The numbers that `bruit._states.NODE_STATES` relies on.
const _: () = assert!(NodeState::New as i32 == 0 && NodeState::Running as i32 == 1 && NodeState::Failed as i32 == 5);
