//! Questions to all members, or to some: asking, and how answers come to who asked.

use std::sync::{Arc, OnceLock, Weak};

use super::super::callbacks::Pass;
use super::super::fork::Born;
use super::super::inbox::{Bounds, Inbox, Woke};
use super::super::lock::Mutex;
use super::super::share::forked;
use super::{EVER, Live, Node, Shared, Wait, Wake};
use crate::engine::Question;
use crate::error::{Code, Error, Result};
use crate::id::{Epoch, NodeName, RunId};
use crate::message::{Answer, Body, Gathered};

/// Hears what becomes of a question.
pub(crate) type QueryFn = Box<dyn FnMut(Progress) + Send>;

/// One box for all that comes of one question; taken by who drops it.
pub(crate) type QueryHandler = Mutex<Option<QueryFn>>;

/// What comes of a question to many.
#[derive(Debug)]
pub enum Progress {
    Answer(Reply),
    /// A member has heard the question, where that was wanted.
    Heard(NodeName),
    /// Nothing more comes.
    End(Gathered),
}

/// What a member answered. It counts against `inbox_bytes` until it is dropped.
#[derive(Debug)]
pub struct Reply {
    answer: Answer,
    node: Weak<Shared>,
}

/// A question that gathers answers: an iterator of them, in the order in which they come, that ends when all who were asked have
/// answered or are gone, or at the deadline. Dropping it gives the question up.
pub struct Query {
    id: u64,
    inbox: Option<Arc<Inbox>>,
    node: Weak<Shared>,
    heard: Mutex<Vec<NodeName>>,
    gathered: OnceLock<Gathered>,
    born: Born,
}

/// Who gathers.
pub(super) enum Gatherer {
    Reader(Sink),
    Handler(Arc<QueryHandler>),
}

/// The node's end of a reader's queue.
pub(super) struct Sink(Arc<Inbox>);

impl Drop for Sink {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Node {
    /// Asks all members, or those that match. Their handlers are those of [`Node::on_message`], and
    /// [`Message::reply`](super::super::Message::reply) answers.
    ///
    /// `E_INVALID` for what is no name, tag or topic, and for more than 8 copies; `E_TOO_BIG` above `max_broadcast`; `E_LIMIT` where
    /// `max_queries` gather answers; `E_BUSY` as in [`Node::broadcast`], also after `wait`. Nothing is sent then.
    pub fn query(&self, question: &Question<'_>, wait: Wait) -> Result<Query> {
        self.shared().query(question, wait)
    }

    /// The same without an iterator: `f` hears each answer, and the end, as a callback does. It is dropped uncalled where the node
    /// stops first. The number is for [`Node::cancel`].
    pub fn query_start(&self, question: &Question<'_>, f: Box<dyn FnMut(Progress) + Send>) -> Result<u64> {
        let shared = self.shared();
        shared.check()?;
        shared.ready_to_call()?;
        shared.ask_many(question, Wait::Now, || Gatherer::Handler(Arc::new(Mutex::new(Some(f)))))
    }
}

impl Shared {
    fn query(self: &Arc<Self>, question: &Question<'_>, wait: Wait) -> Result<Query> {
        // Bounded by who was asked, and in bytes by the room that members are given.
        let bounds = Bounds { capacity: 1, members: 0, bytes: usize::MAX };
        let (inbox, born) = (Arc::new(Inbox::new(bounds, true)), Born::default());
        let id = self.ask_many(question, wait, || Gatherer::Reader(Sink(inbox.clone())))?;
        born.here();
        let node = Arc::downgrade(self);
        Ok(Query { id, inbox: Some(inbox), node, heard: Mutex::new(Vec::new()), gathered: OnceLock::new(), born })
    }

    fn ask_many(
        self: &Arc<Self>,
        question: &Question<'_>,
        wait: Wait,
        gatherer: impl FnOnce() -> Gatherer,
    ) -> Result<u64> {
        let question = Question { timeout: question.timeout.map(|time| time.min(EVER)), ..*question };
        let mut gatherer = Some(gatherer);
        self.send_patiently(&self.name(), wait, |live, now, out| {
            let id = live.engine.query(now, &question, out)?;
            live.gatherers.extend(gatherer.take().map(|make| (id, make())));
            Ok(id)
        })
    }

    /// Under the lock. True: something was queued for handlers.
    pub(super) fn gather(self: &Arc<Self>, live: &mut Live, id: u64, what: Told, wakes: &mut Vec<Wake>) -> bool {
        let progress = match what {
            Told::Answer(answer) => Progress::Answer(Reply { answer, node: Arc::downgrade(self) }),
            Told::Heard(by) => Progress::Heard(by),
            Told::End(gathered) => Progress::End(gathered),
        };
        let is_over = matches!(progress, Progress::End(_));
        match live.gatherers.get(&id) {
            None => false,
            Some(Gatherer::Reader(Sink(inbox))) => {
                inbox.push_progress(None, progress);
                wakes.push(Wake::Reader(inbox.clone()));
                if is_over {
                    // Its queue is closed after the lock.
                    wakes.extend(live.gatherers.remove(&id).map(Wake::Gathered));
                }
                false
            }
            Some(Gatherer::Handler(f)) => {
                self.inbox.push_progress(Some(f.clone()), progress);
                if is_over {
                    live.gatherers.remove(&id);
                }
                true
            }
        }
    }

    /// On the thread of callbacks.
    pub(super) fn run_progress(self: &Arc<Self>, pass: &Pass<'_>, f: &Arc<QueryHandler>, progress: Progress) {
        let is_over = matches!(progress, Progress::End(_));
        pass.progress(f, progress, is_over)
            .into_iter()
            .for_each(|text| self.handler_panicked("answers to a question to many", &text));
    }
}

/// What the engine says of a question.
pub(super) enum Told {
    Answer(Answer),
    Heard(NodeName),
    End(Gathered),
}

impl Query {
    /// For [`Node::cancel`].
    pub fn id(&self) -> u64 {
        self.id
    }

    /// What comes next; `None` after the time, after [`Query::wakeup`], and when the question has ended.
    pub fn progress(&self, wait: Wait) -> Option<Progress> {
        if self.born.elsewhere() || self.gathered.get().is_some() {
            return None;
        }
        let inbox = self.inbox();
        if !matches!(inbox.wait(wait.deadline()), Woke::Items) {
            return None;
        }
        inbox.noticed();
        let progress = inbox.pop_progress();
        match &progress {
            Some(Progress::End(gathered)) => _ = self.gathered.set(*gathered),
            Some(Progress::Heard(by)) => self.heard.lock().push(by.clone()),
            Some(Progress::Answer(_)) | None => {}
        }
        if let Some(node) = self.node.upgrade() {
            node.settle();
        }
        progress
    }

    /// Members that have said that they heard the question, so far as was read.
    pub fn heard(&self) -> Vec<NodeName> {
        self.heard.lock().clone()
    }

    /// How it ended; `None` while it has not, and where the node was stopped first.
    pub fn gathered(&self) -> Option<Gathered> {
        self.gathered.get().copied()
    }

    /// All that comes has been read.
    pub fn is_over(&self) -> bool {
        self.gathered.get().is_some() || self.born.elsewhere() || (self.inbox().is_closed() && self.inbox().is_empty())
    }

    /// No more answers, but for those that are there.
    pub fn cancel(&self) {
        let node = if self.born.elsewhere() { None } else { self.node.upgrade() };
        if let Some(node) = node {
            let _ = node.call(|live, out, _| live.engine.cancel(self.id, out));
        }
    }

    /// Ends a wait on another thread.
    pub fn wakeup(&self) {
        if !self.born.elsewhere() {
            self.inbox().wakeup();
        }
    }

    /// Readable while something waits, and when the question has ended. Never read or close it; it closes with the query.
    pub fn fd(&self) -> Result<std::os::fd::RawFd> {
        if self.born.elsewhere() {
            return Err(forked());
        }
        self.inbox().fd().map_err(|e| Error::io("cannot make an event descriptor", &e))
    }

    fn inbox(&self) -> &Inbox {
        self.inbox.as_ref().expect("taken in drop only")
    }
}

impl Iterator for Query {
    type Item = Reply;

    fn next(&mut self) -> Option<Reply> {
        while !self.is_over() {
            if let Some(Progress::Answer(reply)) = self.progress(Wait::Forever) {
                return Some(reply);
            }
        }
        None
    }
}

impl std::fmt::Debug for Query {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Query").field("id", &self.id).field("gathered", &self.gathered.get()).finish_non_exhaustive()
    }
}

impl Drop for Query {
    fn drop(&mut self) {
        if self.born.elsewhere() {
            std::mem::forget((self.inbox.take(), std::mem::take(&mut self.node)));
        } else if self.gathered.get().is_none() {
            self.cancel();
        }
    }
}

impl Reply {
    /// Who answers.
    pub fn sender(&self) -> &NodeName {
        &self.answer.from
    }

    /// In which of its lives.
    pub fn epoch(&self) -> Epoch {
        self.answer.epoch
    }

    pub fn run(&self) -> RunId {
        self.answer.run
    }

    /// The answer; or why there is none: E_NO_HANDLER, E_NO_REPLY, or what the handler says.
    pub fn result(&self) -> std::result::Result<&Body, &Error> {
        self.answer.said.as_ref()
    }

    /// The answer's bytes; of an error none.
    pub fn data(&self) -> &[u8] {
        self.answer.said.as_ref().map_or(&[], Body::data)
    }

    pub fn code(&self) -> Option<Code> {
        self.answer.said.as_ref().err().map(|e| e.code)
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(node) = self.node.upgrade() {
            node.free(self.answer.weight());
        }
    }
}
