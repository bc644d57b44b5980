//! The application's code, and the rules under which it runs: one call at a time per node, never on a protocol
//! thread, never after the gate is closed; and every box is dropped once, after its last call has returned.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::*};
use std::time::Instant;

use super::lock::{Condvar, Mutex, MutexGuard};

use super::message::{AnswerFn, Message, MessageFn, VerdictFn};
use super::node::{Progress, QueryHandler};
use super::stream::{Stream, StreamFn};
use crate::error;
use crate::message::{ALL_TOPICS, Body, Verdict, is_same_topic};
use crate::view::Event;

thread_local! {
    /// Whose callbacks this thread is in, outermost first: (node, handler). A node may be stopped by a destructor that
    /// runs when this is gone already (a static of a C++ program): nobody is inside then.
    static INSIDE: RefCell<Vec<(u64, u64)>> = const { RefCell::new(Vec::new()) };
}

pub(crate) type EventFn = Box<dyn FnMut(&Event) + Send>;
type LogFn = dyn Fn(i32, &str, &str) + Send + Sync;

/// Where log lines go. Never called on a protocol thread: on the dispatcher, or in `Node::dispatch`.
pub struct LogSink {
    pub(crate) max_level: i32,
    pub(crate) call: Box<LogFn>,
}

impl LogSink {
    /// Levels are syslog's: 3 error, 4 warning, 6 info, 7 debug; 8 is trace. `f(level, target, text)`.
    pub fn new(max_level: i32, f: impl Fn(i32, &str, &str) + Send + Sync + 'static) -> LogSink {
        LogSink { max_level, call: Box::new(f) }
    }
}

impl std::fmt::Debug for LogSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogSink").field("max_level", &self.max_level).finish_non_exhaustive()
    }
}

pub(crate) struct Callbacks {
    node: u64,
    handlers: Mutex<Vec<Arc<Handler>>>,
    sink: Mutex<Option<Arc<LogSink>>>,
    /// All masks together.
    mask: AtomicU32,
    next: AtomicU64,
    gate: Mutex<Gate>,
    left: Condvar,
}

pub(crate) struct Handler {
    id: u64,
    wants: Wants,
    /// The number of the first item that is for it.
    from: u64,
    call: Mutex<Option<Call>>,
    gone: AtomicBool,
}

enum Wants {
    Events(u32),
    Topic(String),
    Streams(String),
    Verdicts(String),
}

enum Call {
    Event(EventFn),
    Message(MessageFn),
    Stream(StreamFn),
    Verdict(VerdictFn),
}

impl Handler {
    fn mask(&self) -> u32 {
        match self.wants {
            Wants::Events(mask) => mask,
            Wants::Topic(_) | Wants::Streams(_) | Wants::Verdicts(_) => 0,
        }
    }

    fn listens_to(&self, topic: &str) -> bool {
        matches!(&self.wants, Wants::Topic(own) if is_same_topic(own, topic) || own == ALL_TOPICS)
    }

    fn takes_streams_of(&self, topic: &str) -> bool {
        matches!(&self.wants, Wants::Streams(own) if own == topic || own == ALL_TOPICS)
    }

    fn judges(&self, topic: &str) -> bool {
        matches!(&self.wants, Wants::Verdicts(own) if own == topic || own == ALL_TOPICS)
    }
}

/// Who listens now.
pub(crate) struct Listeners<'a>(MutexGuard<'a, Vec<Arc<Handler>>>);

impl Listeners<'_> {
    pub(crate) fn any_for(&self, topic: &str) -> bool {
        self.0.iter().any(|h| h.listens_to(topic))
    }
}

struct Gate {
    open: bool,
    /// A thread is inside, running calls or dropping boxes.
    busy: bool,
}

/// Why a thread did not get in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shut {
    Busy,
    Closed,
}

/// The right to run this node's callbacks, until dropped.
pub(crate) struct Pass<'a>(&'a Callbacks);

impl Callbacks {
    pub(crate) fn new(node: u64, sink: Option<LogSink>) -> Callbacks {
        Callbacks {
            node,
            handlers: Mutex::new(Vec::new()),
            sink: Mutex::new(sink.map(Arc::new)),
            mask: AtomicU32::new(0),
            next: AtomicU64::new(1),
            gate: Mutex::new(Gate { open: true, busy: false }),
            left: Condvar::new(),
        }
    }

    /// This thread is in a callback of this node.
    pub(crate) fn inside(&self) -> bool {
        is_inside(|&(node, _)| node == self.node)
    }

    pub(crate) fn any(&self) -> bool {
        !self.handlers.lock().is_empty()
    }

    /// For a look at several messages: nobody comes or goes meanwhile.
    pub(crate) fn listeners(&self) -> Listeners<'_> {
        Listeners(self.handlers.lock())
    }

    /// Somebody takes the streams of this topic.
    pub(crate) fn takes_streams_of(&self, topic: &str) -> bool {
        self.handlers.lock().iter().any(|h| h.takes_streams_of(topic))
    }

    /// Somebody judges broadcasts under this topic.
    pub(crate) fn judges(&self, topic: &str) -> bool {
        self.handlers.lock().iter().any(|h| h.judges(topic))
    }

    pub(crate) fn judged_topics(&self) -> Vec<String> {
        let of = |h: &Arc<Handler>| if let Wants::Verdicts(topic) = &h.wants { Some(topic.clone()) } else { None };
        self.handlers.lock().iter().filter_map(of).collect()
    }

    /// Somebody listens to this kind.
    pub(crate) fn wants(&self, kind: u32) -> bool {
        self.mask.load(Acquire) & kind != 0
    }

    pub(crate) fn wants_nothing(&self) -> bool {
        self.mask.load(Acquire) == 0
    }

    /// For events from the number `from` on. `None` where the gate is closed; the box is dropped then.
    pub(crate) fn add(&self, mask: u32, from: u64, f: EventFn) -> Option<u64> {
        self.add_one(Wants::Events(mask), from, Call::Event(f))
    }

    /// The same for messages.
    pub(crate) fn listen(&self, topic: &str, from: u64, f: MessageFn) -> Option<u64> {
        self.add_one(Wants::Topic(topic.into()), from, Call::Message(f))
    }

    /// The same for streams that members open.
    pub(crate) fn take_streams(&self, topic: &str, from: u64, f: StreamFn) -> Option<u64> {
        self.add_one(Wants::Streams(topic.into()), from, Call::Stream(f))
    }

    /// For those that are to be judged.
    pub(crate) fn validate(&self, topic: &str, f: VerdictFn) -> Option<u64> {
        self.add_one(Wants::Verdicts(topic.into()), 0, Call::Verdict(f))
    }

    fn add_one(&self, wants: Wants, from: u64, call: Call) -> Option<u64> {
        let gate = self.gate.lock();
        if !gate.open {
            return None;
        }
        let id = self.next.fetch_add(1, Relaxed);
        let handler = Handler { id, wants, from, call: Mutex::new(Some(call)), gone: AtomicBool::new(false) };
        self.mask.fetch_or(handler.mask(), AcqRel);
        self.handlers.lock().push(Arc::new(handler));
        Some(id)
    }

    /// False where there is no such handler. Waits for a call that runs on another thread.
    pub(crate) fn remove(&self, id: u64) -> bool {
        let handler = {
            let mut handlers = self.handlers.lock();
            let Some(i) = handlers.iter().position(|h| h.id == id) else { return false };
            let handler = handlers.remove(i);
            self.mask.store(handlers.iter().fold(0, |all, h| all | h.mask()), Release);
            handler
        };
        handler.gone.store(true, Release);
        // In its own call the box is still in use: whoever runs it drops it on return.
        if !is_inside(|&at| at == (self.node, id)) {
            let f = handler.call.lock().take();
            self.drop_box(id, f);
        }
        true
    }

    pub(crate) fn enter(&self) -> Result<Pass<'_>, Shut> {
        let mut gate = self.gate.lock();
        match *gate {
            Gate { open: false, .. } => Err(Shut::Closed),
            Gate { busy: true, .. } => Err(Shut::Busy),
            _ => {
                gate.busy = true;
                Ok(Pass(self))
            }
        }
    }

    /// From here on no call starts. A running one goes on.
    pub(crate) fn close(&self) {
        self.gate.lock().open = false;
    }

    /// Drops all boxes unless a thread is inside, which will do it when it leaves. For callers that must not wait.
    pub(crate) fn clear_if_idle(&self) -> bool {
        let mut gate = self.gate.lock();
        if gate.busy {
            return false;
        }
        gate.busy = true;
        drop(gate);
        drop(Pass(self));
        true
    }

    /// Waits until nobody is inside, and all boxes are dropped. The gate must be closed.
    pub(crate) fn clear(&self, deadline: Option<Instant>) -> bool {
        let mut gate = self.gate.lock();
        while gate.busy {
            match deadline {
                None => self.left.wait(&mut gate),
                Some(at) => {
                    if self.left.wait_until(&mut gate, at).timed_out() && gate.busy {
                        return false;
                    }
                }
            }
        }
        gate.busy = true;
        drop(gate);
        drop(Pass(self));
        true
    }

    fn is_open(&self) -> bool {
        self.gate.lock().open
    }

    fn drop_all(&self) {
        let handlers = std::mem::take(&mut *self.handlers.lock());
        self.mask.store(0, Release);
        for handler in handlers {
            let f = handler.call.lock().take();
            self.drop_box(handler.id, f);
        }
        let sink = self.sink.lock().take();
        self.drop_box(0, sink);
    }

    /// Dropping is the application's code too.
    fn drop_box<T>(&self, handler: u64, f: T) {
        let _inside = Inside::enter(self.node, handler);
        let _ = catch_unwind(AssertUnwindSafe(|| drop(f)));
    }
}

impl Pass<'_> {
    /// Runs the handlers that want this event; answers with the text of panics.
    pub(crate) fn run(&self, number: u64, event: &Event) -> Vec<String> {
        let wants = |h: &Arc<Handler>| h.mask() & event.kind.bit() != 0 && h.from <= number;
        let handlers: Vec<Arc<Handler>> = self.0.handlers.lock().iter().filter(|h| wants(h)).cloned().collect();
        let call = |call: &mut Call| {
            if let Call::Event(f) = call {
                f(event);
            }
        };
        handlers.iter().filter_map(|handler| self.run_one(handler, call)).collect()
    }

    /// Those who listen to anything now: for several messages at once.
    pub(crate) fn listeners(&self) -> Vec<Arc<Handler>> {
        self.0.handlers.lock().iter().filter(|h| matches!(h.wants, Wants::Topic(_))).cloned().collect()
    }

    /// Runs those of the listeners that want this message. False: there are none.
    pub(crate) fn hear(
        &self,
        listeners: &[Arc<Handler>],
        number: u64,
        message: &Message,
        mut panicked: impl FnMut(String),
    ) -> bool {
        let mut heard = false;
        let wants = |h: &Arc<Handler>| h.from <= number && h.listens_to(message.topic()) && !h.gone.load(Acquire);
        for handler in listeners.iter().filter(|h| wants(h)) {
            heard = true;
            let call = |call: &mut Call| {
                if let Call::Message(f) = call {
                    f(message);
                }
            };
            self.run_one(handler, call).into_iter().for_each(&mut panicked);
        }
        heard
    }

    /// Gives a stream to the first that takes it, and back where there is none; and the text of a panic.
    pub(crate) fn give(&self, number: u64, stream: Stream) -> (Option<Stream>, Option<String>) {
        let takes = |h: &&Arc<Handler>| h.from <= number && h.takes_streams_of(stream.topic());
        let handlers: Vec<Arc<Handler>> = self.0.handlers.lock().iter().filter(takes).cloned().collect();
        let mut stream = Some(stream);
        for handler in handlers {
            let panicked = self.run_one(&handler, |call| {
                if let (Call::Stream(f), Some(stream)) = (call, stream.take()) {
                    f(stream);
                }
            });
            if stream.is_none() {
                return (None, panicked);
            }
        }
        (stream, None)
    }

    /// Asks those who judge this message until one rejects it; who panics does.
    pub(crate) fn judge(&self, message: &Message, mut panicked: impl FnMut(String)) -> Verdict {
        let judges = |h: &Arc<Handler>| h.judges(message.topic());
        let handlers: Vec<Arc<Handler>> = self.0.handlers.lock().iter().filter(|h| judges(h)).cloned().collect();
        for handler in &handlers {
            let mut verdict = Verdict::Accept;
            let call = |call: &mut Call| {
                if let Call::Verdict(f) = call {
                    verdict = Verdict::Reject;
                    verdict = f(message);
                }
            };
            self.run_one(handler, call).into_iter().for_each(&mut panicked);
            if verdict == Verdict::Reject {
                return verdict;
            }
        }
        Verdict::Accept
    }

    /// Answers with the text of a panic.
    pub(crate) fn answer(&self, f: AnswerFn, answer: error::Result<Body>) -> Option<String> {
        if !self.0.is_open() {
            self.0.drop_box(0, f);
            return None;
        }
        let _inside = Inside::enter(self.0.node, 0);
        catch_unwind(AssertUnwindSafe(|| f(answer))).err().map(|panic| panic_text(&*panic))
    }

    /// What becomes of a question; `last`: the box goes afterwards.
    pub(crate) fn progress(&self, f: &QueryHandler, progress: Progress, last: bool) -> Option<String> {
        let mut place = f.lock();
        let mut panicked = None;
        if self.0.is_open()
            && let Some(call) = place.as_mut()
        {
            let _inside = Inside::enter(self.0.node, 0);
            panicked = catch_unwind(AssertUnwindSafe(|| call(progress))).err().map(|panic| panic_text(&*panic));
        }
        if last || !self.0.is_open() {
            let f = place.take();
            drop(place);
            self.0.drop_box(0, f);
        }
        panicked
    }

    fn run_one(&self, handler: &Arc<Handler>, run: impl FnOnce(&mut Call)) -> Option<String> {
        if !self.0.is_open() {
            return None;
        }
        let mut call = handler.call.lock();
        if handler.gone.load(Acquire) {
            return None;
        }
        let mut panicked = None;
        if let Some(call) = call.as_mut() {
            let _inside = Inside::enter(self.0.node, handler.id);
            panicked = catch_unwind(AssertUnwindSafe(|| run(call))).err().map(|panic| panic_text(&*panic));
        }
        // It has unsubscribed itself.
        if handler.gone.load(Acquire) {
            let f = call.take();
            drop(call);
            self.0.drop_box(handler.id, f);
        }
        panicked
    }

    pub(crate) fn log(&self, level: i32, target: &str, text: &str) {
        if !self.0.is_open() {
            return;
        }
        let sink = self.0.sink.lock().clone();
        if let Some(sink) = sink {
            let _inside = Inside::enter(self.0.node, 0);
            let _ = catch_unwind(AssertUnwindSafe(|| (sink.call)(level, target, text)));
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.0.is_open()
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        loop {
            let mut gate = self.0.gate.lock();
            let nothing_left = gate.open || (self.0.handlers.lock().is_empty() && self.0.sink.lock().is_none());
            if nothing_left {
                gate.busy = false;
                self.0.left.notify_all();
                return;
            }
            drop(gate);
            self.0.drop_all();
        }
    }
}

fn is_inside(which: impl Fn(&(u64, u64)) -> bool) -> bool {
    INSIDE.try_with(|stack| stack.borrow().iter().any(which)).unwrap_or(false)
}

struct Inside;

impl Inside {
    fn enter(node: u64, handler: u64) -> Inside {
        let _ = INSIDE.try_with(|stack| stack.borrow_mut().push((node, handler)));
        Inside
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let _ = INSIDE.try_with(|stack| stack.borrow_mut().pop());
    }
}

pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).into()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without a text".into()
    }
}
