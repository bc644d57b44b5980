//! Messages as Python holds them, and the answers to its requests on their way back: to a thread that waits for one, or to
//! an event loop that waits for many.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bruit_core::error::{Code, Error, Result};
use bruit_core::message::{Body, Verdict};
use bruit_core::runtime;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyMemoryView};

use crate::SLICE;
use crate::errors::{OrRaise, error, exception};
use crate::node::Owner;

/// What a member said.
///
/// Held, it takes room that senders wait for (`inbox_bytes`): keep its `data` rather than itself. A request that is let go
/// without `reply` or `fail` raises `NoReplyError` where it was asked. It may outlive its node.
#[pyclass(frozen, module = "bruit")]
pub struct Message {
    /// None only while it is being dropped.
    inner: Option<runtime::Message>,
    owner: Arc<Owner>,
    data: PyOnceLock<Py<PyBytes>>,
    /// It came to be judged.
    question: bool,
}

impl Message {
    pub fn new(inner: runtime::Message, owner: Arc<Owner>) -> Message {
        Message { inner: Some(inner), owner, data: PyOnceLock::new(), question: false }
    }

    pub fn question(inner: runtime::Message, owner: Arc<Owner>) -> Message {
        Message { inner: Some(inner), owner, data: PyOnceLock::new(), question: true }
    }

    fn inner(&self) -> &runtime::Message {
        self.inner.as_ref().expect("there until dropped")
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        let inner = self.inner.take();
        if self.owner.is_forked() {
            std::mem::forget(inner);
        }
    }
}

#[pymethods]
impl Message {
    /// What was said.
    #[getter]
    fn data<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        self.data.get_or_init(py, || PyBytes::new(py, self.inner().data()).unbind()).bind(py).clone()
    }

    /// Under which topic; "" is the default one.
    #[getter]
    fn topic(&self) -> &str {
        self.inner().topic()
    }

    /// The name of the member that said it.
    #[getter]
    fn sender(&self) -> &str {
        self.inner().sender()
    }

    /// In which of its lives: see `Member.epoch`.
    #[getter]
    fn epoch(&self) -> u64 {
        self.inner().epoch().0
    }

    /// Was it asked, so that an answer is expected?
    #[getter]
    fn is_request(&self) -> bool {
        self.inner().is_request()
    }

    /// A request that has its answer: by this handler or another one.
    #[getter]
    fn is_answered(&self) -> bool {
        self.inner().is_answered()
    }

    /// Answer a request: from any thread, also later. `StateError` for what is no request, or is answered already; else
    /// as `Node.send`.
    fn reply(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        self.owner.check()?;
        let data = payload(data)?;
        let data = data.as_bytes();
        py.detach(|| self.inner().reply(data)).or_raise()
    }

    /// Answer a request with an error: a `RemoteError` with this text, or what else has this `code` and is about answers.
    #[pyo3(signature = (text = "", *, code = Code::Remote as i32))]
    fn fail(&self, py: Python<'_>, text: &str, code: i32) -> PyResult<()> {
        self.owner.check()?;
        let code = Code::from_number(code.into()).ok_or_else(|| error(Code::Invalid, "code: no such error"))?;
        py.detach(|| self.inner().fail(code, text)).or_raise()
    }

    /// For the package itself: it came to be judged, and not to be heard.
    #[getter]
    fn _is_question(&self) -> bool {
        self.question
    }

    /// For the package itself.
    fn _judge(&self, py: Python<'_>, accept: bool) -> PyResult<()> {
        self.owner.check()?;
        let verdict = if accept { Verdict::Accept } else { Verdict::Reject };
        py.detach(|| self.inner().judge(verdict)).or_raise()
    }

    fn __repr__(&self) -> String {
        let message = self.inner();
        let kind = if message.is_request() { "request" } else { "message" };
        let (topic, sender, len) = (message.topic(), message.sender(), message.data().len());
        format!("<bruit.Message: {kind} {topic:?} from {sender}, {len} B>")
    }
}

/// Of any object that has bytes, as `bytearray` and `memoryview`; `bytes` are taken as they are.
pub fn payload<'py>(data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    match data.cast::<PyBytes>() {
        Ok(bytes) => Ok(bytes.clone()),
        Err(_) => Ok(PyMemoryView::from(data)?.call_method0("tobytes")?.cast_into()?),
    }
}

/// The question's end, which always comes: the answer, or E_CANCELED where the library drops it with the node.
struct Question<F: FnOnce(Result<Body>) + Send>(Option<F>);

impl<F: FnOnce(Result<Body>) + Send> Question<F> {
    fn end(&mut self, answer: Result<Body>) {
        if let Some(tell) = self.0.take() {
            tell(answer);
        }
    }
}

impl<F: FnOnce(Result<Body>) + Send> Drop for Question<F> {
    fn drop(&mut self) {
        self.end(Err(Error::new(Code::Canceled, "the node has stopped")));
    }
}

/// Begins a request; `tell` hears its end exactly once, also where it could not begin.
fn ask(
    node: &runtime::Node,
    (to, topic, data): (&str, &str, &[u8]),
    timeout: Option<Duration>,
    tell: impl FnOnce(Result<Body>) + Send + 'static,
) -> Result<u64> {
    if timeout == Some(Duration::ZERO) {
        return Err(Error::new(Code::Invalid, "timeout = 0: a request needs time for its answer"));
    }
    let mut question = Question(Some(tell));
    node.request_start(to, topic, data, timeout, Box::new(move |answer| question.end(answer)))
}

/// Asks and waits. A signal's exception cancels the request.
pub fn request<'py>(
    py: Python<'py>,
    node: &runtime::Node,
    letter: (&str, &str, &[u8]),
    timeout: Option<Duration>,
) -> PyResult<Bound<'py, PyBytes>> {
    let (tell, mut told) = mpsc::channel();
    let id = py.detach(|| ask(node, letter, timeout, move |answer| _ = tell.send(answer))).or_raise()?;
    loop {
        let next;
        (told, next) = py.detach(move || {
            let next = told.recv_timeout(SLICE);
            (told, next)
        });
        match next {
            Ok(answer) => return Ok(PyBytes::new(py, answer.or_raise()?.data())),
            Err(RecvTimeoutError::Disconnected) => return Err(error(Code::Canceled, "the node has stopped")),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if let Err(interrupt) = py.check_signals() {
            // It has ended just now, or is canceled.
            let _ = py.detach(|| node.cancel(id));
            return Err(interrupt);
        }
    }
}

/// Answers for an event loop, which watches its descriptor: (token, the bytes or the exception).
#[pyclass(frozen, module = "bruit._native")]
pub struct Answers {
    come: Arc<Come>,
    ready: UnixStream,
}

struct Come {
    answers: Mutex<Vec<(u64, Result<Body>)>>,
    notify: UnixStream,
}

impl Answers {
    pub fn ask(
        &self,
        node: &runtime::Node,
        letter: (&str, &str, &[u8]),
        timeout: Option<Duration>,
        token: u64,
    ) -> Result<u64> {
        let come = self.come.clone();
        ask(node, letter, timeout, move |answer| come.push(token, answer))
    }
}

impl Come {
    fn push(&self, token: u64, answer: Result<Body>) {
        let mut answers = self.answers.lock().expect("nobody panics with it");
        answers.push((token, answer));
        if answers.len() == 1 {
            // A full pipe is readable.
            let _ = (&self.notify).write(&[1]);
        }
    }
}

#[pymethods]
impl Answers {
    #[new]
    fn new() -> PyResult<Answers> {
        let pair = UnixStream::pair().and_then(|(ready, notify)| {
            ready.set_nonblocking(true)?;
            notify.set_nonblocking(true)?;
            Ok((ready, notify))
        });
        let (ready, notify) = pair.map_err(|e| exception(&Error::io("cannot make a socket pair", &e)))?;
        Ok(Answers { come: Arc::new(Come { answers: Mutex::default(), notify }), ready })
    }

    /// Those that have come.
    fn take<'py>(&self, py: Python<'py>) -> Vec<(u64, Bound<'py, PyAny>)> {
        // Before they are taken: who comes later writes again.
        let _ = (&self.ready).read(&mut [0; 64]);
        let come = std::mem::take(&mut *self.come.answers.lock().expect("nobody panics with it"));
        let converted = |answer: Result<Body>| match answer {
            Ok(body) => PyBytes::new(py, body.data()).into_any(),
            Err(e) => exception(&e).into_value(py).into_bound(py).into_any(),
        };
        come.into_iter().map(|(token, answer)| (token, converted(answer))).collect()
    }

    /// Readable while some have come.
    fn fileno(&self) -> i32 {
        self.ready.as_raw_fd()
    }
}
