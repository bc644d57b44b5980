//! Queues of events or messages that an application reads at its own pace, beside the handlers.

use std::ops::Deref;
use std::os::fd::RawFd;
use std::sync::{Arc, Weak};

use super::super::callbacks::ALL_TOPICS;
use super::super::fork::Born;
use super::super::inbox::{Bounds, Inbox, Woke};
use super::super::message::Message;
use super::super::share::forked;
use super::{NodeState, Shared, Wait};
use crate::error::{Code, Error, Result};
use crate::message::Body;
use crate::view::Event;

/// A bounded queue of events for one reader. Overflow drops the oldest and says so in one OVERFLOW event.
/// Membership events coalesce when the reader is behind. Dropping it unregisters it.
#[derive(Debug)]
pub struct EventQueue(Reader);

/// A queue of the messages under one topic, for one reader. Requests in it count as heard; who drops one unanswered
/// answers E_NO_REPLY. Best-effort messages and broadcasts that it has no room for push out the oldest of their kind.
/// Dropping it unregisters it.
#[derive(Debug)]
pub struct MessageQueue(Reader);

/// One reader's end of a queue.
pub struct Reader {
    queue: Option<Arc<Queue>>,
    node: Weak<Shared>,
    born: Born,
}

pub(crate) struct Queue {
    /// Of events; 0 for messages.
    pub mask: u32,
    topic: Option<String>,
    pub inbox: Inbox,
}

impl Queue {
    pub fn events(mask: u32, capacity: usize) -> Queue {
        Queue { mask, topic: None, inbox: Inbox::new(Bounds { capacity, members: 0, bytes: 0 }, true) }
    }

    pub fn messages(topic: &str, bytes: usize) -> Queue {
        Queue { mask: 0, topic: Some(topic.into()), inbox: Inbox::new(Bounds { capacity: 1, members: 0, bytes }, true) }
    }

    pub fn listens_to(&self, topic: &str) -> bool {
        self.topic.as_deref().is_some_and(|own| own == topic || own == ALL_TOPICS)
    }
}

impl EventQueue {
    pub fn try_next(&self) -> Option<Event> {
        if self.0.born.elsewhere() {
            return None;
        }
        self.inbox().noticed();
        self.inbox().pop()
    }
}

impl MessageQueue {
    pub fn try_next(&self) -> Option<Message> {
        if self.0.born.elsewhere() {
            return None;
        }
        self.inbox().noticed();
        let message = self.inbox().pop_message();
        if let Some(node) = self.0.node.upgrade() {
            node.settle();
        }
        message
    }
}

impl Deref for EventQueue {
    type Target = Reader;

    fn deref(&self) -> &Reader {
        &self.0
    }
}

impl Deref for MessageQueue {
    type Target = Reader;

    fn deref(&self) -> &Reader {
        &self.0
    }
}

impl Reader {
    /// True when something waits or the queue has ended; false after the time, or a `wakeup`.
    pub fn wait(&self, wait: Wait) -> bool {
        self.born.elsewhere() || matches!(self.inbox().wait(wait.deadline()), Woke::Items | Woke::Closed)
    }

    /// Ends a `wait` on another thread.
    pub fn wakeup(&self) {
        if !self.born.elsewhere() {
            self.inbox().wakeup();
        }
    }

    /// The node has stopped: what is queued can still be taken, nothing will follow.
    pub fn is_closed(&self) -> bool {
        self.born.elsewhere() || self.inbox().is_closed()
    }

    /// How many items wait.
    pub fn len(&self) -> usize {
        if self.born.elsewhere() { 0 } else { self.inbox().len() }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Readable while items wait, and when the queue has ended. Never read or close it; it closes with the queue.
    pub fn fd(&self) -> Result<RawFd> {
        if self.born.elsewhere() {
            return Err(forked());
        }
        self.inbox().fd().map_err(|e| Error::io("cannot make an event descriptor", &e))
    }

    fn inbox(&self) -> &Inbox {
        &self.queue.as_ref().expect("taken in drop only").inbox
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reader")
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let queue = self.queue.take();
        if self.born.elsewhere() {
            std::mem::forget((queue, std::mem::take(&mut self.node)));
        } else if let (Some(queue), Some(node)) = (queue, self.node.upgrade()) {
            // The lock ends before the queue, whose messages may have something to say.
            let mut queues = node.queues.lock();
            if let Some(i) = queues.iter().position(|q| Arc::ptr_eq(q, &queue)) {
                node.keep_losses(&queues.remove(i));
            }
        }
    }
}

impl Shared {
    pub(super) fn queue(self: &Arc<Self>, mask: u32, capacity: usize) -> Result<EventQueue> {
        if capacity == 0 {
            return Err(Error::new(Code::Invalid, "a queue needs room for one event at least"));
        }
        self.add_queue(Queue::events(mask, capacity)).map(EventQueue)
    }

    pub(super) fn message_queue(self: &Arc<Self>, topic: &str) -> Result<MessageQueue> {
        // Refuses what is no topic.
        Body::new(topic, &[])?;
        let bytes = self.config.lock().inbox_bytes;
        self.add_queue(Queue::messages(topic, bytes)).map(MessageQueue)
    }

    fn add_queue(self: &Arc<Self>, queue: Queue) -> Result<Reader> {
        self.check()?;
        let (queue, born) = (Arc::new(queue), Born::default());
        born.here();
        {
            let mut queues = self.queues.lock();
            // `stop` sets the state before it closes the queues that it finds.
            if self.state() >= NodeState::Stopped {
                return Err(self.why_not());
            }
            queues.push(queue.clone());
        }
        Ok(Reader { queue: Some(queue), node: Arc::downgrade(self), born })
    }
}
