//! Byte streams: opening them, who hears of those that members open, and how what comes finds its reader.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::super::stream::{Pipe, Stream, StreamFn};
use super::{Live, Node, Shared, Wake};
use crate::engine::FIRST_ROOM;
use crate::error::{Code, Result};
use crate::message::{Body, Chunk, StreamId};
use crate::outbox::{Outbox, Streamed};
use crate::time::Now;

impl Node {
    /// Opens a byte stream to a member, or to this node itself, under a topic. Returns at once: what nobody takes there
    /// ends with `E_NO_HANDLER`. With `compress` what either side writes travels as lz4 blocks where that is shorter.
    ///
    /// `E_NOT_FOUND`: no such member; `E_UNREACHABLE`: dead, or has left; `E_LIMIT`: `max_streams` or `max_member_streams`
    /// is reached. Nothing is opened then.
    pub fn open_stream(&self, to: &str, topic: &str, compress: bool) -> Result<Stream> {
        self.shared().open_stream(to, Body::new(topic, &[])?, compress)
    }

    /// Registers a handler for the streams that members open under a topic, or under all (`"*"`). The first that matches
    /// gets the stream, which is its own: it may read and write there, or hand it to another thread, which keeps
    /// other handlers from waiting. The box is dropped as [`Node::on_message`]'s.
    pub fn on_stream(&self, topic: &str, f: StreamFn) -> Result<u64> {
        self.shared().on_stream(topic, f)
    }
}

impl Shared {
    fn open_stream(self: &Arc<Self>, to: &str, body: Body, is_packed: bool) -> Result<Stream> {
        self.check()?;
        let topic = body.topic().to_owned();
        self.call(|live, out, now| {
            let id = live.engine.open_stream(now, to, body, is_packed, out)?;
            let peer = crate::id::NodeName::new(to)?;
            let pipe = Pipe::new(self, id, peer, &topic, is_packed, (FIRST_ROOM, live.engine.stream_window()));
            live.streams.insert(id, pipe.clone());
            Ok(Stream::new(pipe))
        })?
    }

    fn on_stream(self: &Arc<Self>, topic: &str, f: StreamFn) -> Result<u64> {
        self.check()?;
        // Refuses what is no topic.
        Body::new(topic, &[])?;
        if self.state() == super::NodeState::Failed {
            return Err(self.why_not());
        }
        let id = self.callbacks.take_streams(topic, self.inbox.mark(), f).ok_or_else(|| self.why_not())?;
        self.ready_to_call().map(|()| id).inspect_err(|_| _ = self.callbacks.remove(id))
    }

    // --- what an application does with its end ---

    pub(crate) fn write_to_stream(self: &Arc<Self>, id: StreamId, chunks: &[Chunk]) -> Result<()> {
        self.check()?;
        self.call(|live, out, now| live.engine.write_stream(now, id, chunks, out))?
    }

    /// A node that has stopped has nobody to tell.
    pub(crate) fn consumed_of_stream(self: &Arc<Self>, id: StreamId, weight: usize) {
        let _ = self.call(|live, out, now| live.engine.consumed_of_stream(now, id, weight, out));
    }

    pub(crate) fn finish_stream(self: &Arc<Self>, id: StreamId) {
        let _ = self.call(|live, out, now| {
            live.engine.finish_stream(now, id, out);
            forget_if_over(live, id);
        });
    }

    pub(crate) fn close_stream(self: &Arc<Self>, id: StreamId) {
        let _ = self.call(|live, out, now| {
            live.engine.close_stream(now, id, out);
            forget_if_over(live, id);
        });
    }

    pub(crate) fn reset_stream(self: &Arc<Self>, id: StreamId, code: Code, text: &str) {
        let _ = self.call(|live, out, now| {
            live.engine.reset_stream(now, id, code, text, out);
            forget_if_over(live, id);
        });
    }

    // --- what comes ---

    /// Under the lock: what nobody listens to goes no further, and who opened it is told.
    pub(super) fn sift_streams(&self, live: &mut Live, now: Now, out: &mut Outbox) {
        if out.streams.is_empty() {
            return;
        }
        let (mut news, mut unheard) = (std::mem::take(&mut out.streams), Vec::new());
        news.retain(|news| match news {
            Streamed::Opened { id, body, .. } => {
                let topic = body.topic();
                let heard = self.callbacks.takes_streams_of(topic)
                    || self.queues.lock().iter().any(|queue| queue.takes_streams_of(topic));
                if !heard {
                    unheard.push(*id);
                    self.tally.streams_unheard.fetch_add(1, Relaxed);
                    let text = format!("nobody listens to streams of {topic:?} there");
                    live.engine.reset_stream(now, *id, Code::NoHandler, &text, out);
                }
                heard
            }
            Streamed::Come { id, .. }
            | Streamed::Finished { id }
            | Streamed::Room { id, .. }
            | Streamed::Ended { id, .. } => !unheard.contains(id),
        });
        news.append(&mut out.streams);
        out.streams = news;
    }

    /// Under the lock: what has come to its readers, who are woken after it. True: new streams were queued for handlers.
    pub(super) fn hand_out_streams(self: &Arc<Self>, live: &mut Live, out: &mut Outbox, wakes: &mut Vec<Wake>) -> bool {
        let (mut opened, mut over) = (false, Vec::new());
        for news in out.streams.drain(..) {
            let id = match &news {
                Streamed::Opened { id, .. }
                | Streamed::Come { id, .. }
                | Streamed::Finished { id }
                | Streamed::Room { id, .. }
                | Streamed::Ended { id, .. } => *id,
            };
            if let Streamed::Opened { from, body, is_packed, limit, .. } = &news {
                let window = live.engine.stream_window();
                let pipe = Pipe::new(self, id, from.clone(), body.topic(), *is_packed, (*limit, window));
                live.streams.insert(id, pipe.clone());
                self.queue_stream(Stream::new(pipe));
                opened = true;
            }
            let Some(pipe) = live.streams.get(&id) else { continue };
            pipe.take(self, news);
            if !matches!(wakes.last(), Some(Wake::Stream(last)) if Arc::ptr_eq(last, pipe)) {
                wakes.push(Wake::Stream(pipe.clone()));
            }
            if !live.engine.has_stream(id) {
                over.push(id);
            }
        }
        // Not before all of it is handed out: the engine was through with it before its last word.
        over.into_iter().for_each(|id| _ = live.streams.remove(&id));
        opened
    }

    fn queue_stream(&self, stream: Stream) {
        let unqueued = if self.callbacks.takes_streams_of(stream.topic()) {
            self.inbox.push_stream(stream)
        } else {
            let queues = self.queues.lock();
            let queue = queues.iter().find(|queue| queue.takes_streams_of(stream.topic()));
            match queue {
                Some(queue) => queue.inbox.push_stream(stream),
                None => Some(stream),
            }
        };
        if let Some(stream) = unqueued {
            // Its queue has been closed just now; under this lock nobody can be told.
            stream.settle();
        }
    }
}

/// Nothing more will be said of it.
fn forget_if_over(live: &mut Live, id: StreamId) {
    if !live.engine.has_stream(id) {
        live.streams.remove(&id);
    }
}
