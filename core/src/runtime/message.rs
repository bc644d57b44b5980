//! A message as the application holds it: no copy of the bytes, however many hold it, and for a request the way back.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::*};
use std::sync::{Arc, Weak};

use super::node::Shared;
use crate::engine;
use crate::error::{Code, Error, Result};
use crate::id::{Epoch, NodeName, RunId};
use crate::message::{Body, Delivery, Manner, Verdict};

pub(crate) type MessageFn = Box<dyn FnMut(&Message) + Send>;
pub(crate) type VerdictFn = Box<dyn FnMut(&Message) -> Verdict + Send>;
pub(crate) type AnswerFn = Box<dyn FnOnce(Result<Body>) + Send>;

/// What a member said. Clones share it; it may outlive the node.
///
/// Its bytes count against `inbox_bytes` until the last clone is gone. A request whose last clone goes
/// without [`Message::reply`] or [`Message::fail`] is answered with E_NO_REPLY then.
#[derive(Clone)]
pub struct Message(Arc<Said>);

struct Said {
    delivery: Delivery,
    node: Weak<Shared>,
    /// Nobody waits for an answer, or has one.
    settled: AtomicBool,
    /// Verdicts that are still wanted.
    judges: AtomicUsize,
}

impl Message {
    pub(crate) fn new(delivery: Delivery, node: &Arc<Shared>) -> Message {
        let settled = AtomicBool::new(!wants_answer(delivery.manner));
        Message(Arc::new(Said { delivery, node: Arc::downgrade(node), settled, judges: AtomicUsize::new(0) }))
    }

    /// One that goes on when so many have accepted it.
    pub(crate) fn to_be_judged(delivery: Delivery, node: &Arc<Shared>, judges: usize) -> Message {
        let (settled, judges) = (AtomicBool::new(true), AtomicUsize::new(judges));
        Message(Arc::new(Said { delivery, node: Arc::downgrade(node), settled, judges }))
    }

    pub fn topic(&self) -> &str {
        self.0.delivery.body.topic()
    }

    pub fn data(&self) -> &[u8] {
        self.0.delivery.body.data()
    }

    pub fn body(&self) -> &Body {
        &self.0.delivery.body
    }

    /// The member that said it; of a broadcast its origin.
    pub fn sender(&self) -> &NodeName {
        &self.0.delivery.from
    }

    /// In which of its lives.
    pub fn epoch(&self) -> Epoch {
        self.0.delivery.epoch
    }

    pub fn run(&self) -> RunId {
        self.0.delivery.run
    }

    pub fn manner(&self) -> Manner {
        self.0.delivery.manner
    }

    /// Its sender waits for an answer: ours alone, or that of many.
    pub fn is_request(&self) -> bool {
        wants_answer(self.manner())
    }

    /// It was asked of many. Answers come in time for so long.
    pub fn is_query(&self) -> bool {
        matches!(self.manner(), Manner::Query(_))
    }

    /// A request that was answered: by us, or by whom we share it with.
    pub fn is_answered(&self) -> bool {
        self.is_request() && self.0.settled.load(Acquire)
    }

    /// Answers a request: from any thread, also later. `E_STATE` for what is no request, or is answered; else as
    /// [`Node::send`](super::Node::send).
    pub fn reply(&self, data: &[u8]) -> Result<()> {
        self.answer(Ok(data))
    }

    /// The requester gets this error; [`Code::Remote`] is the usual one. Codes that speak of its own node or handles, such as
    /// `E_STATE` and `E_PANIC`, arrive as that.
    pub fn fail(&self, code: Code, text: &str) -> Result<()> {
        self.answer(Err((code, text)))
    }

    fn answer(&self, answer: engine::Said<'_>) -> Result<()> {
        if !self.is_request() {
            return Err(Error::new(Code::State, "nobody waits for an answer to this message"));
        }
        let Some(node) = self.0.node.upgrade() else {
            return Err(Error::new(Code::State, "the node that heard the request is gone"));
        };
        if self.0.settled.swap(true, AcqRel) {
            return Err(Error::new(Code::State, "the request is answered already"));
        }
        // One that could not be sent (too big, no room) may be tried again.
        node.answer(self.run(), self.manner(), answer).inspect_err(|_| self.0.settled.store(false, Release))
    }

    /// What is thought of a message that is to be judged, by one of those who are asked: from any thread, also later. All
    /// have to accept it. `E_STATE` for one that is not, or not any more. Where the last clone goes before, it is accepted.
    pub fn judge(&self, verdict: Verdict) -> Result<()> {
        let left = match verdict {
            Verdict::Accept => self.0.judges.fetch_update(AcqRel, Acquire, |left| left.checked_sub(1)),
            Verdict::Reject => Ok(self.0.judges.swap(0, AcqRel)).and_then(|left| if left > 0 { Ok(1) } else { Err(0) }),
        };
        let left = left.map_err(|_| Error::new(Code::State, "nobody waits for a verdict on this message"))?;
        match (left, self.0.node.upgrade()) {
            (1, Some(node)) => node.judged(&self.0.delivery, verdict),
            _ => Ok(()),
        }
    }

    /// Nobody is to be told: the node is stopping.
    pub(crate) fn settle(&self) {
        self.0.settled.store(true, Release);
        self.0.judges.store(0, Release);
    }
}

fn wants_answer(manner: Manner) -> bool {
    matches!(manner, Manner::Request { .. } | Manner::Query(_))
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.delivery.fmt(f)
    }
}

impl Drop for Said {
    fn drop(&mut self) {
        let Some(node) = self.node.upgrade() else { return };
        node.free(self.delivery.weight());
        if *self.judges.get_mut() > 0 {
            let _ = node.judged(&self.delivery, Verdict::Accept);
        }
        if !*self.settled.get_mut() {
            let text = "the handler did not reply";
            let _ = node.answer(self.delivery.run, self.delivery.manner, Err((Code::NoReply, text)));
        }
    }
}
