//! Queues of events or messages that an application reads at its own pace, beside the handlers.

use std::ops::Deref;
use std::os::fd::RawFd;
use std::sync::{Arc, Weak};

use super::super::fork::Born;
use super::super::inbox::{Bounds, Inbox, Item, Woke};
use super::super::lock::Mutex;
use super::super::message::Message;
use super::super::share::forked;
use super::super::stream::Stream;
use super::{NodeState, Shared, Wait};
use crate::error::{Code, Error, Result};
use crate::message::{ALL_TOPICS, Body, is_same_topic};
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

/// A queue of events and of messages in the order in which they came, for one reader that calls handlers by itself: on a
/// thread that this library does not have, as an interpreter's. Its topics may change. Bounds as of the other two.
#[derive(Debug)]
pub struct MixedQueue(Reader);

/// What a [`MixedQueue`] has.
#[derive(Debug)]
pub enum Heard {
    Event(Event),
    Message(Message),
    Stream(Stream),
    /// It wants [`Message::judge`].
    Question(Message),
}

/// One reader's end of a queue.
pub struct Reader {
    queue: Option<Arc<Queue>>,
    node: Weak<Shared>,
    born: Born,
}

pub(crate) struct Queue {
    /// Of events; 0 for messages.
    pub mask: u32,
    /// One that is listened to twice is there twice.
    topics: Mutex<Vec<String>>,
    /// Of streams that members open.
    streams: Mutex<Vec<String>>,
    /// The same of those that are judged.
    judged: Mutex<Vec<String>>,
    pub inbox: Inbox,
}

impl Queue {
    fn new(mask: u32, topic: Option<&str>, capacity: usize, bytes: usize) -> Queue {
        let topics = Mutex::new(topic.map(String::from).into_iter().collect());
        Queue {
            mask,
            topics,
            streams: Mutex::default(),
            judged: Mutex::default(),
            inbox: Inbox::new(Bounds { capacity, members: 0, bytes }, true),
        }
    }

    pub fn listens_to(&self, topic: &str) -> bool {
        self.topics.lock().iter().any(|own| is_same_topic(own, topic) || own == ALL_TOPICS)
    }

    pub fn takes_streams_of(&self, topic: &str) -> bool {
        self.streams.lock().iter().any(|own| own == topic || own == ALL_TOPICS)
    }

    pub fn judges(&self, topic: &str) -> bool {
        self.judged.lock().iter().any(|own| own == topic || own == ALL_TOPICS)
    }

    pub fn judged_topics(&self) -> Vec<String> {
        self.judged.lock().clone()
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

impl MixedQueue {
    pub fn try_next(&self) -> Option<Heard> {
        if self.0.born.elsewhere() {
            return None;
        }
        self.inbox().noticed();
        let mut batch = Vec::with_capacity(1);
        self.inbox().pop_before(u64::MAX, 1, &mut batch);
        if let Some(node) = self.0.node.upgrade() {
            node.settle();
        }
        batch.pop().and_then(|(_, item)| match item {
            Item::Event(event) => Some(Heard::Event(event)),
            Item::Message(message) => Some(Heard::Message(message)),
            Item::Stream(stream) => Some(Heard::Stream(stream)),
            Item::Question(message) => Some(Heard::Question(message)),
            // Those go to the inbox of the node itself.
            Item::Answer(..) | Item::Progress(..) => None,
        })
    }

    /// Messages under this topic, or under all (`"*"`), come from now on. As often as it was called,
    /// [`MixedQueue::ignore`] has to be.
    pub fn listen(&self, topic: &str) -> Result<()> {
        self.add(topic, |queue| &queue.topics)
    }

    /// The same for streams that members open.
    pub fn listen_to_streams(&self, topic: &str) -> Result<()> {
        self.add(topic, |queue| &queue.streams)
    }

    fn add(&self, topic: &str, list: fn(&Queue) -> &Mutex<Vec<String>>) -> Result<()> {
        // Refuses what is no topic.
        Body::new(topic, &[])?;
        if self.0.born.elsewhere() {
            return Err(forked());
        }
        list(self.0.queue()).lock().push(topic.into());
        Ok(())
    }

    /// Broadcasts of others under this topic, or under all (`"*"`), come as questions from now on: see
    /// [`Node::on_validate`](super::Node::on_validate). As often as it was called, [`MixedQueue::judge_no_more`] has to be.
    pub fn judge(&self, topic: &str) -> Result<()> {
        // Refuses what is no topic.
        Body::new(topic, &[])?;
        if self.0.born.elsewhere() {
            return Err(forked());
        }
        self.0.queue().judged.lock().push(topic.into());
        self.0.node.upgrade().iter().for_each(Shared::tell_judged);
        Ok(())
    }

    /// What waits is accepted, unless others judge it.
    pub fn judge_no_more(&self, topic: &str) {
        if !self.0.born.elsewhere() {
            let mut judged = self.0.queue().judged.lock();
            if let Some(i) = judged.iter().position(|own| own == topic) {
                judged.remove(i);
            }
            drop(judged);
            self.0.node.upgrade().iter().for_each(Shared::tell_judged);
        }
    }

    /// Those that wait already stay.
    pub fn ignore(&self, topic: &str) {
        self.remove(topic, |queue| &queue.topics);
    }

    /// The same for streams.
    pub fn ignore_streams(&self, topic: &str) {
        self.remove(topic, |queue| &queue.streams);
    }

    fn remove(&self, topic: &str, list: fn(&Queue) -> &Mutex<Vec<String>>) {
        if !self.0.born.elsewhere() {
            let mut topics = list(self.0.queue()).lock();
            if let Some(i) = topics.iter().position(|own| own == topic) {
                topics.remove(i);
            }
        }
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

impl Deref for MixedQueue {
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

    /// Nothing comes any more, and what waits is let go; whoever waits is told that it has ended. Dropping it does the same.
    pub fn close(&self) {
        if self.born.elsewhere() {
            return;
        }
        self.unregister();
        self.inbox().close();
        let mut left = Vec::new();
        self.inbox().pop_before(u64::MAX, usize::MAX, &mut left);
        while !left.is_empty() {
            // Requests among them are answered here, outside of all locks.
            left.clear();
            self.inbox().pop_before(u64::MAX, usize::MAX, &mut left);
        }
        if let Some(node) = self.node.upgrade() {
            node.settle();
        }
    }

    /// Closed, or the node has stopped: what is queued can still be taken, nothing will follow.
    pub fn is_closed(&self) -> bool {
        self.born.elsewhere() || self.inbox().is_closed()
    }

    /// How many were dropped so far, because they found no room.
    pub fn lost(&self) -> u64 {
        if self.born.elsewhere() { 0 } else { self.inbox().losses().0 }
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

    fn unregister(&self) {
        let (Some(queue), Some(node)) = (&self.queue, self.node.upgrade()) else { return };
        {
            let mut queues = node.queues.lock();
            let Some(i) = queues.iter().position(|q| Arc::ptr_eq(q, queue)) else { return };
            node.keep_losses(&queues.remove(i));
        }
        if !queue.judged_topics().is_empty() {
            node.tell_judged();
        }
    }

    fn queue(&self) -> &Queue {
        self.queue.as_ref().expect("taken in drop only")
    }

    fn inbox(&self) -> &Inbox {
        &self.queue().inbox
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reader")
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if self.born.elsewhere() {
            std::mem::forget((self.queue.take(), std::mem::take(&mut self.node)));
        } else {
            // The lock ends before the queue, whose messages may have something to say.
            self.unregister();
        }
    }
}

impl Shared {
    pub(super) fn queue(self: &Arc<Self>, mask: u32, capacity: usize) -> Result<EventQueue> {
        has_room(capacity)?;
        self.add_queue(Queue::new(mask, None, capacity, 0)).map(EventQueue)
    }

    pub(super) fn message_queue(self: &Arc<Self>, topic: &str) -> Result<MessageQueue> {
        // Refuses what is no topic.
        Body::new(topic, &[])?;
        let bytes = self.config.lock().inbox_bytes;
        self.add_queue(Queue::new(0, Some(topic), 1, bytes)).map(MessageQueue)
    }

    pub(super) fn mixed_queue(self: &Arc<Self>, mask: u32, capacity: usize) -> Result<MixedQueue> {
        has_room(capacity)?;
        let bytes = self.config.lock().inbox_bytes;
        self.add_queue(Queue::new(mask, None, capacity, bytes)).map(MixedQueue)
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

fn has_room(capacity: usize) -> Result<()> {
    match capacity {
        0 => Err(Error::new(Code::Invalid, "a queue needs room for one event at least")),
        _ => Ok(()),
    }
}
