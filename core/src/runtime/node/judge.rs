//! Validation: broadcasts that the application looks at before they go on.

use std::sync::Arc;

use super::super::inbox::Inbox;
use super::super::message::{Message, VerdictFn};
use super::talk::give;
use super::{Live, Node, Shared};
use crate::error::Result;
use crate::message::{Body, Delivery, Manner, Verdict};
use crate::outbox::Outbox;
use crate::time::Now;

impl Node {
    /// Registers a handler that judges what others broadcast under a topic, or under all (`"*"`), before it goes on: what
    /// it rejects is neither handed out nor passed on. Where several match, all have to accept; one that panics rejects.
    /// It runs where other handlers run; what has no verdict within `validation_timeout` is offered to others, and pushed
    /// on to nobody. Ends with [`Node::unsubscribe`]: what waits then is accepted.
    pub fn on_validate(&self, topic: &str, f: Box<dyn FnMut(&Message) -> Verdict + Send>) -> Result<u64> {
        self.shared().on_validate(topic, f)
    }
}

impl Shared {
    fn on_validate(self: &Arc<Self>, topic: &str, f: VerdictFn) -> Result<u64> {
        self.check()?;
        // Refuses what is no topic.
        Body::new(topic, &[])?;
        if self.state() == super::NodeState::Failed {
            return Err(self.why_not());
        }
        let id = self.callbacks.validate(topic, f).ok_or_else(|| self.why_not())?;
        self.ready_to_call().inspect_err(|_| _ = self.callbacks.remove(id))?;
        self.tell_judged();
        Ok(id)
    }

    /// The engine is told which topics are judged. A node that is not started hears it then.
    pub(super) fn tell_judged(self: &Arc<Self>) {
        let _ = self.call(|live, out, now| {
            let mut topics = self.callbacks.judged_topics();
            self.queues.lock().iter().for_each(|queue| topics.extend(queue.judged_topics()));
            live.engine.validate(now, topics.into_iter().collect(), out);
        });
    }

    pub(crate) fn judged(self: &Arc<Self>, asked: &Delivery, verdict: Verdict) -> Result<()> {
        let Manner::Broadcast { seq } = asked.manner else { return Ok(()) };
        self.call(|live, out, now| live.engine.validated(now, asked.run, seq, verdict, out))
    }

    /// Under the lock: what nobody judges any more goes on.
    pub(super) fn sift_questions(&self, live: &mut Live, now: Now, out: &mut Outbox) {
        let free = |question: &Delivery| self.judges_of(question.body.topic()) == 0;
        while let Some(at) = out.questions.iter().position(free) {
            let Delivery { run, manner: Manner::Broadcast { seq }, .. } = out.questions.remove(at) else { continue };
            live.engine.validated(now, run, seq, Verdict::Accept, out);
        }
    }

    fn judges_of(&self, topic: &str) -> usize {
        let queues = self.queues.lock().iter().filter(|queue| queue.judges(topic)).count();
        queues + usize::from(self.callbacks.judges(topic))
    }

    /// Under the lock: questions to those who judge.
    pub(super) fn queue_questions(self: &Arc<Self>, out: &mut Outbox) {
        for delivery in out.questions.drain(..) {
            let queues = self.queues.lock();
            let topic = delivery.body.topic();
            let mut judges: Vec<&Inbox> = queues.iter().filter(|q| q.judges(topic)).map(|q| &q.inbox).collect();
            judges.extend(self.callbacks.judges(topic).then_some(&self.inbox));
            let message = Message::to_be_judged(delivery, self, judges.len());
            give(&judges, message, Inbox::push_question);
        }
    }
}
