//! What applications say to each other: sending, asking, answering, and how it comes to the handlers.

use std::sync::Arc;
use std::sync::atomic::Ordering::*;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};

use super::super::callbacks::{Handler, Pass};
use super::super::inbox::{Inbox, Item};
use super::super::log::level;
use super::super::message::{AnswerFn, Message, MessageFn};
use super::super::stream::Stream;
use super::super::threads;
use super::super::wheel::Awaited;
use super::{EVER, Live, MessageQueue, MixedQueue, Node, Shared, Wait, Wake, receive};
use crate::engine::{Said, Sending};
use crate::error::{Code, Error, Result};
use crate::id::RunId;
use crate::message::{Body, Manner, ToAll, Weight};
use crate::outbox::Outbox;
use crate::time::{Duration, Now};

/// Who waits for an answer.
pub(super) enum Asker {
    Thread(threads::Id, Sender<Result<Body>>),
    Handler(AnswerFn),
}

/// One message of several.
#[derive(Clone, Debug)]
pub struct Parcel<'a> {
    pub to: To<'a>,
    pub body: Body,
    pub how: Sending,
}

/// To whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To<'a> {
    Member(&'a str),
    /// Each of these.
    Members(&'a [&'a str]),
    /// Live members with this metadata, `key` or `key=value`, but for ourselves.
    Holders(&'a str),
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// With the receipt's number, where one was wanted.
    ToMember(Option<u64>),
    /// To each by itself: in the order of the list, or of their names.
    ToMany(Vec<Each>),
}

/// What became of a message to one of several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Each {
    pub member: String,
    /// With the receipt's number, where one was wanted.
    pub result: Result<Option<u64>>,
}

fn submit(live: &mut Live, now: Now, parcel: &Parcel<'_>, out: &mut Outbox) -> Result<Sent> {
    let Parcel { to, body, how } = parcel;
    match to {
        To::Member(name) => live.engine.send(now, name, body.clone(), *how, out).map(Sent::ToMember),
        To::Members(names) => Ok(submit_each(live, now, names.iter().copied(), parcel, out)),
        To::Holders(tag) => {
            let view = live.engine.view(now);
            let holders = view.with(tag).filter(|member| !member.is_local);
            Ok(submit_each(live, now, holders.map(|member| &*member.name), parcel, out))
        }
    }
}

fn submit_each<'a>(
    live: &mut Live,
    now: Now,
    names: impl Iterator<Item = &'a str>,
    parcel: &Parcel<'_>,
    out: &mut Outbox,
) -> Sent {
    let mut each = |name: &str| {
        let result = live.engine.send(now, name, parcel.body.clone(), parcel.how, out);
        Each { member: name.into(), result }
    };
    Sent::ToMany(names.map(&mut each).collect())
}

impl Node {
    /// Sends a message to a member. With [`Sending::Receipt`] a RECEIPT event with the returned number says that the
    /// other node has it; "sent" alone means queued.
    ///
    /// `E_NOT_FOUND`: no such member; `E_UNREACHABLE`: dead, or has left; `E_TOO_BIG`: above `max_message`; `E_BUSY`:
    /// `send_queue` is full, and still was after `wait` (a WRITABLE event follows). Nothing is sent in these cases.
    pub fn send(&self, to: &str, topic: &str, data: &[u8], how: Sending, wait: Wait) -> Result<Option<u64>> {
        let body = Body::new(topic, data)?;
        self.shared().send_patiently(to, wait, |live, now, out| live.engine.send(now, to, body.clone(), how, out))
    }

    /// Says something to all members: each hears it once. Returns its number among this run's broadcasts.
    ///
    /// `E_TOO_BIG`: above `max_broadcast`; `E_BUSY`: the neighbours have yet to take what was said before, and still had
    /// after `wait` (a WRITABLE event about this node itself follows). Nothing is said then.
    pub fn broadcast(&self, topic: &str, data: &[u8], how: ToAll, wait: Wait) -> Result<u64> {
        let (shared, body) = (self.shared(), Body::new(topic, data)?);
        shared.send_patiently(&shared.name(), wait, |live, now, out| live.engine.broadcast(now, body.clone(), how, out))
    }

    /// Sends several messages under one lock. Each has an answer of its own, as from [`Node::send`] without waiting; to
    /// several members, or to the holders of a tag, one for each of them.
    pub fn submit(&self, parcels: &[Parcel<'_>]) -> Result<Vec<Result<Sent>>> {
        let shared = self.shared();
        shared.check()?;
        shared.call(|live, out, now| parcels.iter().map(|parcel| submit(live, now, parcel, out)).collect())
    }

    /// Asks a member, and waits for its answer. Errors besides those of `send`: `E_TIMEOUT` (the member may have acted),
    /// `E_NO_HANDLER`, `E_NO_REPLY`, `E_REMOTE` and what else the other handler says, `E_UNREACHABLE` as soon as
    /// the member is dead or has left, `E_LIMIT` where `max_requests` wait, `E_DEADLOCK` for a question to oneself in
    /// a callback, `E_CANCELED` where the node is stopped meanwhile.
    pub fn request(&self, to: &str, topic: &str, data: &[u8], wait: Wait) -> Result<Body> {
        self.shared().request(to, Body::new(topic, data)?, wait)
    }

    /// The same without waiting: `f` gets the answer, as a callback does. It is dropped uncalled where the node
    /// stops first. The number is for [`Node::cancel`].
    pub fn request_start(
        &self,
        to: &str,
        topic: &str,
        data: &[u8],
        timeout: Option<Duration>,
        f: Box<dyn FnOnce(Result<Body>) + Send>,
    ) -> Result<u64> {
        self.shared().request_start(to, Body::new(topic, data)?, timeout, f)
    }

    /// Whoever waits for that answer gets E_CANCELED. `E_NOT_FOUND` where the request has ended already.
    pub fn cancel(&self, request: u64) -> Result<()> {
        let shared = self.shared();
        shared.check()?;
        match shared.call(|live, out, _| live.engine.cancel(request, out))? {
            true => Ok(()),
            false => Err(Error::new(Code::NotFound, format!("request {request} has ended already"))),
        }
    }

    /// Registers a handler for the messages under a topic, or under all (`"*"`). Every handler that matches runs, in the
    /// order of registration. A request is answered by the first that does so. The box is dropped exactly once, after
    /// its last call has returned (on failure: at once).
    pub fn on_message(&self, topic: &str, f: Box<dyn FnMut(&Message) + Send>) -> Result<u64> {
        self.shared().on_message(topic, f)
    }

    /// A queue of its own for the messages under a topic, or under all (`"*"`), for one reader.
    pub fn message_queue(&self, topic: &str) -> Result<MessageQueue> {
        self.shared().message_queue(topic)
    }

    /// A queue of its own for the events of these kinds and for messages under the topics that it is told, in one order,
    /// for one reader.
    pub fn mixed_queue(&self, mask: u32, capacity: usize) -> Result<MixedQueue> {
        self.shared().mixed_queue(mask, capacity)
    }
}

impl Shared {
    /// Tries again when there is room in the queue to that member, or in our own for broadcasts.
    pub(super) fn send_patiently<T>(
        self: &Arc<Self>,
        to: &str,
        wait: Wait,
        mut send: impl FnMut(&mut Live, Now, &mut Outbox) -> Result<T>,
    ) -> Result<T> {
        self.check()?;
        let deadline = wait.deadline();
        // Most need not wait.
        let mut line: Option<(Sender<()>, Receiver<()>)> = None;
        loop {
            let sent = self.call(|live, out, now| {
                let sent = send(live, now, out);
                if wait != Wait::Now && is_busy(&sent) {
                    let (tell, _) = line.get_or_insert_with(|| bounded(1));
                    live.writers.entry(to.into()).or_default().push(tell.clone());
                }
                sent
            })?;
            let Some((tell, told)) = line.as_ref().filter(|_| is_busy(&sent)) else { return sent };
            match receive(told, deadline) {
                Ok(()) => {}
                Err(RecvTimeoutError::Timeout) => {
                    // Nobody may wait in vain for ever, one call after the other.
                    self.peek(|live| {
                        live.writers.values_mut().for_each(|all| all.retain(|other| !other.same_channel(tell)));
                        live.writers.retain(|_, all| !all.is_empty());
                    });
                    return sent;
                }
                Err(RecvTimeoutError::Disconnected) => return Err(self.interrupted()),
            }
        }
    }

    fn request(self: &Arc<Self>, to: &str, body: Body, wait: Wait) -> Result<Body> {
        self.check()?;
        if to == &*self.name() {
            self.check_outside()?;
        }
        let (deadline, timeout) = match wait {
            Wait::Now => return Err(Error::new(Code::Invalid, "a request needs time for its answer")),
            Wait::For(time) => (wait.deadline(), Some(time.min(EVER))),
            Wait::Forever => (None, None),
        };
        let (tell, told) = bounded(1);
        let own = threads::current();
        let id = self.ask(to, body, timeout, Asker::Thread(own, tell))?;
        let look = || match told.try_recv() {
            Err(TryRecvError::Empty) => None,
            found => Some(found.map_err(|_| RecvTimeoutError::Disconnected)),
        };
        match self.attend(Awaited::Answer(own), deadline, look, || receive(&told, deadline))? {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Timeout) => {
                let _ = self.call(|live, out, _| live.engine.cancel(id, out));
                // It may have come just now.
                told.try_recv()
                    .ok()
                    .filter(|answer| !is_canceled(answer))
                    .unwrap_or_else(|| Err(Error::new(Code::Timeout, format!("no answer from {to} in time"))))
            }
            Err(RecvTimeoutError::Disconnected) => Err(self.interrupted()),
        }
    }

    fn request_start(self: &Arc<Self>, to: &str, body: Body, timeout: Option<Duration>, f: AnswerFn) -> Result<u64> {
        self.check()?;
        self.ready_to_call()?;
        self.ask(to, body, timeout.map(|time| time.min(EVER)), Asker::Handler(f))
    }

    fn ask(self: &Arc<Self>, to: &str, body: Body, timeout: Option<Duration>, asker: Asker) -> Result<u64> {
        self.call(|live, out, now| {
            let id = live.engine.request(now, to, body, timeout, out)?;
            live.askers.insert(id, asker);
            Ok(id)
        })?
    }

    fn on_message(self: &Arc<Self>, topic: &str, f: MessageFn) -> Result<u64> {
        self.check()?;
        // Refuses what is no topic.
        Body::new(topic, &[])?;
        if self.state() == super::NodeState::Failed {
            return Err(self.why_not());
        }
        let id = self.callbacks.listen(topic, self.inbox.mark(), f).ok_or_else(|| self.why_not())?;
        self.ready_to_call().map(|()| id).inspect_err(|_| _ = self.callbacks.remove(id))
    }

    /// A message's handler answers, or is not going to.
    pub(crate) fn answer(self: &Arc<Self>, run: RunId, manner: Manner, said: Said<'_>) -> Result<()> {
        self.check()?;
        self.call(|live, out, now| match manner {
            Manner::Request { id } => live.engine.reply(now, run, id, said, out),
            Manner::Query(query) => live.engine.answer_query(now, run, query, said, out),
            _ => Err(Error::new(Code::State, "nobody waits for an answer to this message")),
        })?
    }

    // --- what comes ---

    /// Under the lock: what nobody listens to goes no further, and who asked it is told.
    pub(super) fn sift(&self, live: &mut Live, now: Now, out: &mut Outbox) {
        if out.messages.is_empty() {
            return;
        }
        let mut messages = std::mem::take(&mut out.messages);
        let mut unheard = Weight::default();
        let (queues, listeners) = (self.queues.lock(), self.callbacks.listeners());
        messages.retain(|message| {
            let topic = message.body.topic();
            if listeners.any_for(topic) || queues.iter().any(|queue| queue.listens_to(topic)) {
                return true;
            }
            unheard += message.weight();
            self.tally.messages_unheard.fetch_add(1, Relaxed);
            let text = format!("nobody listens to {topic:?} there");
            let no = Err((Code::NoHandler, text.as_str()));
            // Who has no room for the answer finds out in time.
            let _ = match message.manner {
                Manner::Request { id } => live.engine.reply(now, message.run, id, no, out),
                Manner::Query(query) => live.engine.answer_query(now, message.run, query, no, out),
                _ => Ok(()),
            };
            false
        });
        drop((queues, listeners));
        // None came of the answers.
        debug_assert!(out.messages.is_empty());
        if unheard != Weight::default() {
            live.engine.consumed(now, unheard, out);
            // For which there was no room before.
            self.sift(live, now, out);
            messages.append(&mut out.messages);
        }
        out.messages = messages;
    }

    /// Under the lock, after the events: messages to their queues.
    pub(super) fn queue_messages(self: &Arc<Self>, out: &mut Outbox) {
        if out.messages.is_empty() {
            return;
        }
        let messages = out.messages.drain(..).map(|delivery| Message::new(delivery, self));
        let queues = self.queues.lock();
        if queues.is_empty() {
            // The handlers', then, or nothing would have been left of them.
            return self.inbox.push_messages(messages);
        }
        let listeners = self.callbacks.listeners();
        let mut takers: Vec<&Inbox> = Vec::with_capacity(2);
        for message in messages {
            let topic = message.topic();
            takers.clear();
            takers.extend(queues.iter().filter(|q| q.listens_to(topic)).map(|q| &q.inbox));
            // Who listened a moment ago may be gone: then the dispatcher finds out.
            takers.extend((listeners.any_for(topic) || takers.is_empty()).then_some(&self.inbox));
            give(&takers, message, |inbox, message| inbox.push_messages([message]));
        }
    }

    /// The application has let go of so many bytes.
    pub(crate) fn free(&self, weight: Weight) {
        for (freed, bytes) in self.freed.iter().zip([weight.direct, weight.broadcasts]) {
            if bytes > 0 {
                freed.fetch_add(bytes, Relaxed);
            }
        }
    }

    /// What the application has let go of, if it is worth telling.
    pub(super) fn take_freed(&self) -> Option<Weight> {
        let worth = self.freed.iter().any(|freed| freed.load(Relaxed) >= self.freed_worth);
        worth.then(|| {
            let [direct, broadcasts] = self.freed.each_ref().map(|freed| freed.swap(0, Relaxed));
            Weight { direct, broadcasts }
        })
    }

    /// Members may send more.
    pub(super) fn settle(self: &Arc<Self>) {
        if let Some(weight) = self.take_freed() {
            let _ = self.call(|live, out, now| live.engine.consumed(now, weight, out));
        }
    }

    // --- how it comes to the handlers ---

    /// The next items: an event alone, so that those behind it may yet fold; messages together.
    pub(super) fn run_some(
        self: &Arc<Self>,
        pass: &Pass<'_>,
        mark: u64,
        max: usize,
        batch: &mut Vec<(u64, Item)>,
    ) -> usize {
        self.inbox.pop_before(mark, max, batch);
        let count = batch.len();
        let mut listeners: Option<Vec<Arc<Handler>>> = None;
        for (number, item) in batch.drain(..) {
            match item {
                Item::Event(event) => self.run_handlers(pass, number, &event),
                Item::Answer(f, answer) => {
                    pass.answer(f, answer).into_iter().for_each(|text| self.handler_panicked("an answer", &text));
                }
                Item::Progress(f, progress) => {
                    if let Some(f) = f {
                        self.run_progress(pass, &f, progress);
                    }
                }
                Item::Stream(stream) => self.give_stream(pass, number, stream),
                Item::Question(message) => {
                    let verdict = pass.judge(&message, |text| self.handler_panicked("validation", &text));
                    // Where it was rejected before, or is judged no more, nobody waits for it.
                    let _ = message.judge(verdict);
                }
                Item::Message(message) => {
                    let listeners = listeners.get_or_insert_with(|| pass.listeners());
                    let heard = pass.hear(listeners, number, &message, |text| {
                        self.handler_panicked("messages", &text);
                    });
                    if heard {
                        continue;
                    }
                    self.tally.messages_unheard.fetch_add(1, Relaxed);
                    if message.is_request() {
                        let text = format!("nobody listens to {:?} there any more", message.topic());
                        let _ = message.fail(Code::NoHandler, &text);
                    }
                }
            }
        }
        self.settle();
        count
    }

    fn give_stream(self: &Arc<Self>, pass: &Pass<'_>, number: u64, stream: Stream) {
        let (left, panicked) = pass.give(number, stream);
        panicked.into_iter().for_each(|text| self.handler_panicked("streams", &text));
        if let Some(stream) = left.filter(|_| pass.is_open()) {
            self.tally.streams_unheard.fetch_add(1, Relaxed);
            let text = format!("nobody listens to streams of {:?} there any more", stream.topic());
            stream.refuse(&text);
        }
    }

    pub(super) fn handler_panicked(self: &Arc<Self>, what: &str, text: &str) {
        self.tally.handler_panics.fetch_add(1, Relaxed);
        self.log(level::ERROR, "bruit::node", || format!("a handler of {what} panicked: {text}"));
    }

    /// Whoever waits for these is woken after the lock.
    pub(super) fn wake_asker(&self, live: &mut Live, id: u64, answer: Result<Body>, wakes: &mut Vec<Wake>) -> bool {
        match live.askers.remove(&id) {
            Some(Asker::Thread(thread, waiter)) => wakes.push(Wake::Replied(thread, waiter, answer)),
            Some(Asker::Handler(f)) => {
                self.inbox.push_answer(f, answer);
                return true;
            }
            None => {}
        }
        false
    }

    pub(super) fn wake_writers(&self, live: &mut Live, to: &str, wakes: &mut Vec<Wake>) {
        let waiters = live.writers.remove(to).unwrap_or_default();
        wakes.extend(waiters.into_iter().map(Wake::Writable));
    }
}

/// To each of them, and the message itself to the last: here, under the lock, it must not end, for its end is a call.
pub(super) fn give(takers: &[&Inbox], message: Message, push: fn(&Inbox, Message)) {
    let Some((last, others)) = takers.split_last() else { return };
    others.iter().for_each(|inbox| push(inbox, message.clone()));
    push(last, message);
}

fn is_busy<T>(result: &Result<T>) -> bool {
    matches!(result, Err(Error { code: Code::Busy, .. }))
}

fn is_canceled<T>(result: &Result<T>) -> bool {
    matches!(result, Err(Error { code: Code::Canceled, .. }))
}
