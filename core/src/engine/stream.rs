//! Byte streams to a member, or to ourselves.

use alloc::format;
use alloc::string::String;

use super::{Engine, cx};
use crate::error::{Code, Error, Result};
use crate::id::RunId;
use crate::message::{Body, Chunk, StreamId, WEIGHT};
use crate::outbox::{Outbox, Streamed};
use crate::protocol::Cx;
use crate::protocol::lane::{Arrived, Letter};
use crate::protocol::stream::{FIRST, Full, Heard, Limits};
use crate::time::Now;
use crate::wire::frame::ItemKind;

/// STREAM_OPEN: parts may be compressed. STREAM_DATA: this one is. A frozen number: lz4 blocks after their length.
const PACKED: u32 = 1;

/// So much may be written to a stream that we opened, before its other side has said a word.
pub const FIRST_ROOM: u64 = FIRST;

/// What is said of a stream to its other end.
struct Word {
    kind: ItemKind,
    status: u32,
    after: u64,
    body: Body,
}

impl Word {
    fn bare(kind: ItemKind, after: u64) -> Word {
        Word { kind, status: 0, after, body: Body::read("", &[]) }
    }
}

impl Engine {
    /// Opens a byte stream to a member, or to ourselves, under the body's topic; its data is not used. What becomes of
    /// it, and of what is written at once, is told in [`Outbox::streams`].
    ///
    /// `E_NOT_FOUND` for an unknown name, `E_UNREACHABLE` for the dead and those who left, `E_LIMIT` at `max_streams`
    /// or `max_member_streams`. Nothing is opened then.
    pub fn open_stream(
        &mut self,
        now: Now,
        to: &str,
        body: Body,
        is_packed: bool,
        out: &mut Outbox,
    ) -> Result<StreamId> {
        let to = self.correspondent(to, &body)?;
        let Some(run) = to.run else { return Err(Error::new(Code::NotFound, "no such member")) };
        let window = self.config.stream_window as u64;
        let opened = self.streams.open(run, window, self.stream_limits());
        let id = opened.map_err(|full| {
            self.counters.streams_refused += 1;
            Error::new(Code::Limit, format!("{}; nothing was opened", self.why_full(full)))
        })?;
        self.streams.watch(now.mono, self.config.sync_interval);
        self.counters.streams_opened += 1;
        let status = u32::from(is_packed) * PACKED;
        self.say(now, id, Word { kind: ItemKind::STREAM_OPEN, status, after: window, body }, out);
        self.flush_stream(now, id, out);
        self.finish(now, out);
        Ok(id)
    }

    /// Sends more of a stream. The caller keeps to what [`Streamed::Room`] told, at first to [`FIRST_ROOM`], or the
    /// `limit` of who opened it: `E_BUSY` for what is beyond, and `E_STATE` where the stream has ended; of `chunks` those
    /// before are sent. Who leaves writes no more, and has written a part: what is not whole shall not look so.
    pub fn write_stream(&mut self, now: Now, id: StreamId, chunks: &[Chunk], out: &mut Outbox) -> Result<()> {
        if let Err(error) = self.must_be_member() {
            if !self.streams.contains(id) {
                return Err(error);
            }
            self.reset_stream(now, id, Code::Unreachable, "the member left before it had written all", out);
            let error = Error::new(
                Code::State,
                "the node has left: the stream is ended, and the other side told that it is not whole",
            );
            out.streams.push(Streamed::Ended { id, error: error.clone() });
            return Err(error);
        }
        let mut written = Ok(());
        for chunk in chunks {
            let Some(at) = self.streams.send(id, chunk.weight()) else {
                let code = if self.streams.contains(id) { Code::Busy } else { Code::State };
                written = Err(Error::new(code, "beyond the end of the stream, or of its window"));
                break;
            };
            self.counters.stream_bytes_sent += chunk.body.len() as u64;
            let (status, body) = (u32::from(chunk.is_packed) * PACKED, chunk.body.clone());
            self.say(now, id, Word { kind: ItemKind::STREAM_DATA, status, after: at, body }, out);
        }
        self.flush_stream(now, id, out);
        self.finish(now, out);
        written
    }

    /// There is no more to come from us.
    pub fn finish_stream(&mut self, now: Now, id: StreamId, out: &mut Outbox) {
        if let Some(at) = self.streams.finish(id) {
            self.counters.streams_done += u64::from(!self.streams.contains(id));
            self.say(now, id, Word::bare(ItemKind::STREAM_FIN, at), out);
            self.flush_stream(now, id, out);
            self.finish(now, out);
        }
    }

    /// So much of what has come was read, by [`Chunk::weight`].
    pub fn consumed_of_stream(&mut self, now: Now, id: StreamId, weight: usize, out: &mut Outbox) {
        if let Some(limit) = self.streams.read(id, weight) {
            self.say(now, id, Word::bare(ItemKind::STREAM_WINDOW, limit), out);
            self.flush_stream(now, id, out);
            self.finish(now, out);
        }
    }

    /// We have nothing to do with it any more: the other side reads what was written to its end, and what it writes is
    /// for nobody. It hears so.
    pub fn close_stream(&mut self, now: Now, id: StreamId, out: &mut Outbox) {
        let Some((fin, reset)) = self.streams.close(id) else { return };
        if let Some(at) = fin {
            self.say(now, id, Word::bare(ItemKind::STREAM_FIN, at), out);
        }
        if reset {
            self.say_reset(now, id, Code::Canceled, "the other side has closed the stream", out);
        }
        self.counters.streams_done += u64::from(!reset);
        self.flush_stream(now, id, out);
        self.finish(now, out);
    }

    /// Ends it for both sides: the other one gets this error in the place of what it has not read.
    pub fn reset_stream(&mut self, now: Now, id: StreamId, code: Code, text: &str, out: &mut Outbox) {
        if self.streams.end(id) {
            self.say_reset(now, id, code, text, out);
            self.flush_stream(now, id, out);
            self.finish(now, out);
        }
    }

    /// Of a stream that is opened now: what may come and not be read.
    pub fn stream_window(&self) -> usize {
        self.config.stream_window
    }

    /// There is still something to be said of it, by either side.
    pub fn has_stream(&self, id: StreamId) -> bool {
        self.streams.contains(id)
    }

    // --- what comes ---

    pub(super) fn on_stream_item(&mut self, now: Now, run: RunId, said: Arrived, out: &mut Outbox) {
        let Arrived { kind, id, status, after, body } = said;
        let id = StreamId { run, ours: id & 1 == 1, number: id >> 1 };
        if kind == ItemKind::STREAM_OPEN && !id.ours {
            return self.on_stream_open(now, id, status, after, body, out);
        }
        let heard = match kind {
            ItemKind::STREAM_DATA => self.streams.on_data(id, after, body.len() + WEIGHT),
            ItemKind::STREAM_WINDOW => self.streams.on_window(id, after),
            ItemKind::STREAM_FIN => self.streams.on_fin(id, after),
            ItemKind::STREAM_RESET => {
                if self.streams.end(id) {
                    self.counters.streams_reset += 1;
                    // Those two are about a call, which may be made again: whoever gets them for an end would try for ever.
                    let code = match Code::of_answer(-i64::from(status)) {
                        Code::Busy | Code::Timeout => Code::Remote,
                        code => code,
                    };
                    let error = Error::new(code, String::from_utf8_lossy(body.data()));
                    out.streams.push(Streamed::Ended { id, error });
                }
                return;
            }
            _ => {
                self.counters.unexpected += 1;
                return;
            }
        };
        match heard {
            Heard::Nothing => {}
            Heard::Data => {
                self.counters.stream_bytes_received += body.len() as u64;
                let chunk = Chunk { body, is_packed: status & PACKED != 0 };
                out.streams.push(Streamed::Come { id, chunk });
            }
            Heard::Room(limit) => out.streams.push(Streamed::Room { id, limit }),
            Heard::Ended { over } => {
                self.counters.streams_done += u64::from(over);
                out.streams.push(Streamed::Finished { id });
            }
            Heard::Unknown => {
                self.counters.streams_unknown += 1;
                self.say_reset(now, id, Code::Unreachable, "the stream has ended there: it had lost this node", out);
                self.flush_stream(now, id, out);
            }
            Heard::Broken => {
                self.counters.streams_broken += 1;
                let text = "a part of the stream is missing, or was sent beyond its window";
                self.say_reset(now, id, Code::Corrupt, text, out);
                self.flush_stream(now, id, out);
                out.streams.push(Streamed::Ended { id, error: Error::new(Code::Corrupt, text) });
            }
        }
    }

    fn on_stream_open(&mut self, now: Now, id: StreamId, flags: u32, limit: u64, body: Body, out: &mut Outbox) {
        let window = self.config.stream_window as u64;
        let refused = if flags & !PACKED != 0 {
            Some((Code::Invalid, String::from("the stream was opened with flags that are not known there")))
        } else if self.must_be_member().is_err() {
            Some((Code::Unreachable, String::from("the member is leaving")))
        } else {
            let full = self.streams.on_open(id, limit, window, self.stream_limits()).err();
            full.map(|full| (Code::Limit, self.why_full(full)))
        };
        if let Some((code, text)) = refused {
            self.counters.streams_refused += 1;
            self.say_reset(now, id, code, &text, out);
            return self.flush_stream(now, id, out);
        }
        self.streams.watch(now.mono, self.config.sync_interval);
        self.counters.streams_accepted += 1;
        let Some(from) = self.members.find(id.run).and_then(|peer| self.members.get(peer)) else { return };
        let from = from.name.clone();
        out.streams.push(Streamed::Opened { id, from, body, is_packed: flags & PACKED != 0, limit });
        if window > FIRST {
            self.say(now, id, Word::bare(ItemKind::STREAM_WINDOW, window), out);
            self.flush_stream(now, id, out);
        }
    }

    // --- what time and members bring ---

    /// Who has lost us, and has nothing to say, would never be told.
    pub(super) fn stream_tick(&mut self, now: Now, out: &mut Outbox) {
        for (id, limit) in self.streams.on_deadline(now.mono, self.config.sync_interval) {
            self.say(now, id, Word::bare(ItemKind::STREAM_WINDOW, limit), out);
            self.flush_stream(now, id, out);
        }
    }

    /// That run is over, or counts as over.
    pub(super) fn end_streams(&mut self, run: RunId, out: &mut Outbox) {
        for id in self.streams.fail(run) {
            self.counters.streams_unreachable += 1;
            let error = Error::new(Code::Unreachable, "the member is dead or has left");
            out.streams.push(Streamed::Ended { id, error });
        }
    }

    // --- the parts ---

    fn stream_limits(&self) -> Limits {
        Limits { streams: self.config.max_streams, of_one: self.config.max_member_streams }
    }

    fn why_full(&self, full: Full) -> String {
        let name = &self.members.local().name;
        match full {
            Full::Node => format!("{name} has {} byte streams open (max_streams)", self.config.max_streams),
            Full::Member => {
                let most = self.config.max_member_streams;
                format!("{name} has {most} byte streams open with that member (max_member_streams)")
            }
            Full::Taken => String::from("that byte stream is open already"),
        }
    }

    fn say_reset(&mut self, now: Now, id: StreamId, code: Code, text: &str, out: &mut Outbox) {
        let status = (code as i32).unsigned_abs();
        let body = Body::read("", text.as_bytes());
        self.say(now, id, Word { kind: ItemKind::STREAM_RESET, status, after: 0, body }, out);
    }

    /// To the other end of a stream, in the order of what is said. [`Engine::flush_stream`] follows.
    fn say(&mut self, now: Now, id: StreamId, word: Word, out: &mut Outbox) {
        let Word { kind, status, after, body } = word;
        let number = id.number << 1 | u64::from(!id.ours);
        if id.run == self.members.local().run {
            // Its other end is here as well.
            return self.on_stream_item(now, id.run, Arrived { kind, id: number, status, after, body }, out);
        }
        if self.members.find(id.run).is_some() {
            self.lanes.push_of_stream(id.run, Letter { kind, id: number, status, body, receipt: None }, after);
        }
    }

    fn flush_stream(&mut self, now: Now, id: StreamId, out: &mut Outbox) {
        let to = self.members.find(id.run).and_then(|peer| self.members.get(peer)).filter(|e| e.is_live());
        if let Some(to) = to.map(|e| e.to()) {
            let room = self.room();
            self.lanes.flush(cx!(self, now, out), to, room);
        }
    }
}
