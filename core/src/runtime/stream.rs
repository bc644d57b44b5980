//! A byte stream as the application holds it: what has come and is not read, how far it may be written, and who waits for
//! either.
//!
//! ```text
//! engine ──Come──▶ chunks ──inflated, outside all locks──▶ reader        every quarter of a window: the other side may go on
//! writer ──chunks made, outside all locks──▶ engine                      as far as `limit`
//! ```

use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::time::Instant;

use super::fork::Born;
use super::lock::{Condvar, Mutex, MutexGuard};
use super::node::{Shared, Wait};
use super::share::forked;
use super::signal::Level;
use crate::error::{Code, Error, Result};
use crate::id::NodeName;
use crate::message::{Body, CHUNK_MAX, Chunk, StreamId, WEIGHT};
use crate::outbox::Streamed;
use crate::wire::cursor::cut;

pub(crate) type StreamFn = Box<dyn FnMut(Stream) + Send>;

/// Less than this is not written while more waits to be: else a window that opens bit by bit would be filled with crumbs.
/// Below a quarter of the smallest window, which is what the other side gives back at least.
const WORTH: usize = CHUNK_MAX / 4;

/// What [`Stream::fail`] says at most, in bytes.
pub const FAIL_TEXT_MAX: usize = 1024;

/// A byte stream to a member, both ways. It may be read on one thread and written on another. Dropping it is
/// [`Stream::close`], or [`Stream::fail`] in a panic.
pub struct Stream {
    pipe: Arc<Pipe>,
    born: Born,
}

/// What the application's end shares with the node.
pub(crate) struct Pipe {
    id: StreamId,
    peer: NodeName,
    topic: String,
    is_packed: bool,
    node: Weak<Shared>,
    state: Mutex<State>,
    /// Locked before the state. The part that is being read.
    open: Mutex<Open>,
    readable: Condvar,
    writable: Condvar,
    may_read: Level,
    may_write: Level,
}

struct State {
    chunks: VecDeque<Chunk>,
    /// Some of the open part is not read.
    rest: bool,
    /// Weight of what was read, and the engine does not know of.
    consumed: usize,
    /// So much is worth telling it.
    worth: usize,
    /// What was written, by weight, and may be.
    sent: u64,
    limit: u64,
    /// There is no more from us.
    finished: bool,
    /// There is no more to come.
    ended: bool,
    closed: bool,
    /// Why it is over.
    error: Option<Error>,
}

#[derive(Default)]
struct Open {
    part: Part,
    at: usize,
}

enum Part {
    Plain(Body),
    Inflated(Vec<u8>),
}

impl Stream {
    pub(crate) fn new(pipe: Arc<Pipe>) -> Stream {
        let born = Born::default();
        born.here();
        Stream { pipe, born }
    }

    /// The member at its other end.
    pub fn peer(&self) -> &NodeName {
        &self.pipe.peer
    }

    pub fn topic(&self) -> &str {
        &self.pipe.topic
    }

    /// What is written at either end is compressed on its way.
    pub fn is_compressed(&self) -> bool {
        self.pipe.is_packed
    }

    /// Reads what there is, at least a byte; 0 at the end. What came before an error is read first, then: `E_UNREACHABLE`
    /// where the member is dead or has left, `E_NO_HANDLER` where nobody listens to the topic there, `E_LIMIT` where
    /// it has too many streams, `E_CANCELED` where the other side has closed the stream, or this node was stopped,
    /// `E_REMOTE` where the other side has failed it; `E_CORRUPT` for what is no compressed block. `E_BUSY` with [`Wait::Now`] where there is nothing yet, `E_TIMEOUT`
    /// where nothing came in time.
    pub fn read(&self, into: &mut [u8], wait: Wait) -> Result<usize> {
        self.check()?;
        if into.is_empty() { Ok(0) } else { self.pipe.read(into, wait) }
    }

    /// Writes as much as there is room for, at least a byte, and says how much that was. Errors: those of `read`, and
    /// `E_STATE` after [`Stream::shutdown`]. `E_BUSY` with [`Wait::Now`] where the other side has yet to read what was
    /// written before, `E_TIMEOUT` where it did not in time: then nothing was written.
    pub fn write(&self, data: &[u8], wait: Wait) -> Result<usize> {
        self.check()?;
        if data.is_empty() { Ok(0) } else { self.pipe.write(data, wait) }
    }

    /// There is no more to come from here: the other side reads to the end. Reading goes on.
    pub fn shutdown(&self) -> Result<()> {
        self.check()?;
        self.pipe.shutdown();
        Ok(())
    }

    /// The other side reads what was written to its end, and can write no more. What waits to be read is let go, and
    /// whoever waits in `read` or `write` gets `E_STATE`.
    pub fn close(&self) {
        if !self.born.elsewhere() {
            self.pipe.close();
        }
    }

    /// Ends it for both sides, as something that is not whole: the other one reads what has come there, and then gets this
    /// error, as does who writes; [`Code::Remote`] is the usual one, and what `E_BUSY` and `E_TIMEOUT` arrive as. The text is cut to [`FAIL_TEXT_MAX`]. Here it is closed.
    /// Nothing happens where it has ended already.
    pub fn fail(&self, code: Code, text: &str) {
        if !self.born.elsewhere() {
            self.pipe.fail(code, cut(text, FAIL_TEXT_MAX));
        }
    }

    /// Readable while `read` would not wait. Never read or close it; it closes with the stream.
    pub fn read_fd(&self) -> Result<RawFd> {
        self.check()?;
        self.pipe.may_read.fd(|| self.pipe.state.lock().would_read()).map_err(no_descriptor)
    }

    /// Readable while `write` would not wait.
    pub fn write_fd(&self) -> Result<RawFd> {
        self.check()?;
        self.pipe.may_write.fd(|| self.pipe.state.lock().would_write()).map_err(no_descriptor)
    }

    /// Nobody took it.
    pub(crate) fn refuse(self, text: &str) {
        self.pipe.refuse(text);
    }

    /// The other side is not to be told: the node is stopping.
    pub(crate) fn settle(&self) {
        self.pipe.state.lock().closed = true;
    }

    fn check(&self) -> Result<()> {
        if self.born.elsewhere() { Err(forked()) } else { Ok(()) }
    }
}

fn no_descriptor(cause: io::Error) -> Error {
    Error::io("cannot make a descriptor", &cause)
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.born.elsewhere() {
            // What other threads had locked, or was open, is the parent's.
            std::mem::forget(self.pipe.clone());
        } else if std::thread::panicking() {
            self.fail(Code::Remote, "who had the stream there has panicked");
        } else {
            self.pipe.close();
        }
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("peer", self.peer()).field("topic", &self.topic()).finish_non_exhaustive()
    }
}

impl io::Read for &Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        Stream::read(self, into, Wait::Forever).map_err(io_error)
    }
}

impl io::Write for &Stream {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        Stream::write(self, data, Wait::Forever).map_err(io_error)
    }

    /// Nothing is held back.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl io::Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        io::Read::read(&mut &*self, into)
    }
}

impl io::Write for Stream {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        io::Write::write(&mut &*self, data)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn io_error(error: Error) -> io::Error {
    let kind = match error.code {
        Code::Unreachable | Code::Canceled | Code::Remote => io::ErrorKind::ConnectionReset,
        Code::NoHandler => io::ErrorKind::ConnectionRefused,
        Code::State => io::ErrorKind::BrokenPipe,
        Code::Corrupt => io::ErrorKind::InvalidData,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

impl Pipe {
    /// `limit`: so much may be written. `window`: so much may come and wait.
    pub(crate) fn new(
        node: &Arc<Shared>,
        id: StreamId,
        peer: NodeName,
        topic: &str,
        is_packed: bool,
        (limit, window): (u64, usize),
    ) -> Arc<Pipe> {
        let state = State {
            chunks: VecDeque::new(),
            rest: false,
            consumed: 0,
            worth: window / 4,
            sent: 0,
            limit,
            finished: false,
            ended: false,
            closed: false,
            error: None,
        };
        Arc::new(Pipe {
            id,
            peer,
            topic: topic.into(),
            is_packed,
            node: Arc::downgrade(node),
            state: Mutex::new(state),
            open: Mutex::new(Open::default()),
            readable: Condvar::new(),
            writable: Condvar::new(),
            may_read: Level::default(),
            may_write: Level::default(),
        })
    }

    // --- the node's side ---

    /// Under the engine's lock. [`Pipe::announce`] follows.
    pub(crate) fn take(&self, node: &Shared, news: Streamed) {
        let mut state = self.state.lock();
        match news {
            Streamed::Opened { .. } => {}
            // What came too late is let go, and its window closes.
            Streamed::Come { .. } if state.closed => {}
            Streamed::Come { chunk, .. } => {
                node.tally.stream_bytes_unread.fetch_add(chunk.body.len() as u64, Relaxed);
                state.chunks.push_back(chunk);
            }
            Streamed::Finished { .. } => state.ended = true,
            Streamed::Room { limit, .. } => state.limit = limit,
            Streamed::Ended { error, .. } => state.error = Some(error),
        }
    }

    pub(crate) fn end(&self, error: Error) {
        self.state.lock().error.get_or_insert(error);
    }

    /// Wakes who waits, after the lock.
    pub(crate) fn announce(&self) {
        self.readable.notify_all();
        self.writable.notify_all();
        self.level();
    }

    fn level(&self) {
        self.may_read.set(|| self.state.lock().would_read());
        self.may_write.set(|| self.state.lock().would_write());
    }

    // --- the application's side ---

    fn read(&self, into: &mut [u8], wait: Wait) -> Result<usize> {
        let deadline = wait.deadline();
        loop {
            let mut open = self.open.lock();
            let count = open.copy(into);
            if count > 0 {
                self.state.lock().rest = !open.is_empty();
                drop(open);
                self.announce_rest();
                return Ok(count);
            }
            let mut state = self.state.lock();
            if let Some(chunk) = state.next() {
                let told = state.take_consumed();
                drop(state);
                self.forget_bytes(chunk.body.len());
                match self.open_part(chunk) {
                    Ok(part) => *open = Open { part, at: 0 },
                    Err(error) => {
                        drop(open);
                        return Err(self.corrupt(error));
                    }
                }
                drop(open);
                self.consumed(told);
                continue;
            }
            drop(open);
            if let Some(end) = state.end_of_reading() {
                return end.map(|()| 0);
            }
            self.wait(&self.readable, &mut state, wait, deadline, State::would_read, "nothing to read")?;
        }
    }

    fn write(&self, data: &[u8], wait: Wait) -> Result<usize> {
        let (deadline, mut state) = (wait.deadline(), self.state.lock());
        let lens = loop {
            state.may_still_write()?;
            let lens = state.reserve(data.len());
            if !lens.is_empty() {
                break lens;
            }
            let text = "the other side has yet to read what was written (stream_window)";
            self.wait(&self.writable, &mut state, wait, deadline, State::would_write, text)?;
        };
        drop(state);
        let (mut rest, mut chunks, mut saved) = (data, Vec::with_capacity(lens.len()), 0);
        for len in lens {
            let (now, later) = rest.split_at(len);
            let chunk = if self.is_packed { pack(now) } else { None };
            let chunk = chunk.unwrap_or_else(|| Chunk { body: Body::read("", now), is_packed: false });
            saved += len - chunk.body.len();
            chunks.push(chunk);
            rest = later;
        }
        let written = match self.node.upgrade() {
            Some(node) => node.write_to_stream(self.id, &chunks),
            None => Err(Error::new(Code::Canceled, "the node was stopped")),
        };
        let mut state = self.state.lock();
        state.sent -= saved as u64;
        if let Err(error) = written {
            // It ended meanwhile, and that says more.
            return Err(state.error.clone().unwrap_or(error));
        }
        drop(state);
        self.level();
        Ok(data.len() - rest.len())
    }

    fn shutdown(&self) {
        let before = std::mem::replace(&mut self.state.lock().finished, true);
        if let (false, Some(node)) = (before, self.node.upgrade()) {
            node.finish_stream(self.id);
        }
        self.announce();
    }

    fn close(&self) {
        self.let_go(|node| node.close_stream(self.id));
    }

    fn fail(&self, code: Code, text: &str) {
        self.let_go(|node| node.reset_stream(self.id, code, text));
    }

    fn refuse(&self, text: &str) {
        self.fail(Code::NoHandler, text);
    }

    fn let_go(&self, tell: impl FnOnce(&Arc<Shared>)) {
        let left = {
            let mut state = self.state.lock();
            if std::mem::replace(&mut state.closed, true) {
                return;
            }
            std::mem::take(&mut state.chunks)
        };
        self.forget_bytes(left.iter().map(|chunk| chunk.body.len()).sum());
        if let Some(node) = self.node.upgrade() {
            tell(&node);
        }
        self.announce();
    }

    /// The other side has sent what it should not have.
    fn corrupt(&self, error: Error) -> Error {
        self.end(error.clone());
        if let Some(node) = self.node.upgrade() {
            node.reset_stream(self.id, error.code, &error.text);
        }
        self.announce();
        error
    }

    // --- the parts ---

    /// Until something is so, or the time is over.
    fn wait(
        &self,
        changed: &Condvar,
        state: &mut MutexGuard<'_, State>,
        wait: Wait,
        deadline: Option<Instant>,
        is_so: fn(&State) -> bool,
        text: &str,
    ) -> Result<()> {
        if wait == Wait::Now {
            return Err(Error::new(Code::Busy, text));
        }
        match deadline {
            None => changed.wait(state),
            Some(at) => {
                if changed.wait_until(state, at).timed_out() && !is_so(state) {
                    return Err(Error::new(Code::Timeout, text));
                }
            }
        }
        Ok(())
    }

    fn announce_rest(&self) {
        if self.state.lock().would_read() {
            // For another reader.
            self.readable.notify_one();
        }
        self.may_read.set(|| self.state.lock().would_read());
    }

    fn open_part(&self, chunk: Chunk) -> Result<Part> {
        match chunk.is_packed {
            false => Ok(Part::Plain(chunk.body)),
            true if self.is_packed => unpack(chunk.body.data()).map(Part::Inflated).ok_or_else(not_packed),
            true => Err(not_packed()),
        }
    }

    fn consumed(&self, told: Option<usize>) {
        if let (Some(weight), Some(node)) = (told, self.node.upgrade()) {
            node.consumed_of_stream(self.id, weight);
        }
    }

    fn forget_bytes(&self, bytes: usize) {
        if let Some(node) = self.node.upgrade() {
            node.tally.stream_bytes_unread.fetch_sub(bytes as u64, Relaxed);
        }
    }
}

impl State {
    fn next(&mut self) -> Option<Chunk> {
        let chunk = self.chunks.pop_front()?;
        self.consumed += chunk.weight();
        self.rest = true;
        Some(chunk)
    }

    fn take_consumed(&mut self) -> Option<usize> {
        (self.consumed >= self.worth).then(|| std::mem::take(&mut self.consumed))
    }

    fn would_read(&self) -> bool {
        self.rest || !self.chunks.is_empty() || self.end_of_reading().is_some()
    }

    /// With nothing left to read.
    fn end_of_reading(&self) -> Option<Result<()>> {
        if self.closed {
            Some(Err(closed()))
        } else if self.ended {
            Some(Ok(()))
        } else {
            self.error.clone().map(Err)
        }
    }

    fn would_write(&self) -> bool {
        self.limit - self.sent >= (WORTH + WEIGHT) as u64 || self.may_still_write().is_err()
    }

    fn may_still_write(&self) -> Result<()> {
        if self.closed {
            return Err(closed());
        }
        if self.finished {
            return Err(Error::new(Code::State, "the stream is shut down for writing"));
        }
        self.error.clone().map_or(Ok(()), Err)
    }

    /// Takes room for as much as there is: the lengths of the parts.
    fn reserve(&mut self, len: usize) -> Vec<usize> {
        let (mut lens, mut left) = (Vec::new(), len);
        while left > 0 {
            let room = ((self.limit - self.sent) as usize).saturating_sub(WEIGHT);
            let part = left.min(CHUNK_MAX).min(room);
            if part < left.min(WORTH) {
                break;
            }
            self.sent += (part + WEIGHT) as u64;
            lens.push(part);
            left -= part;
        }
        lens
    }
}

fn closed() -> Error {
    Error::new(Code::State, "the stream is closed")
}

fn not_packed() -> Error {
    Error::new(Code::Corrupt, "a part of the stream is no compressed block; it has ended")
}

impl Default for Part {
    fn default() -> Part {
        Part::Inflated(Vec::new())
    }
}

impl Open {
    fn bytes(&self) -> &[u8] {
        match &self.part {
            Part::Plain(body) => &body.data()[self.at..],
            Part::Inflated(data) => &data[self.at..],
        }
    }

    fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }

    fn copy(&mut self, into: &mut [u8]) -> usize {
        let bytes = self.bytes();
        let count = bytes.len().min(into.len());
        into[..count].copy_from_slice(&bytes[..count]);
        self.at += count;
        if count > 0 && self.is_empty() {
            *self = Open::default();
        }
        count
    }
}

/// As an lz4 block after its length, if that is shorter.
fn pack(data: &[u8]) -> Option<Chunk> {
    let packed = lz4_flex::block::compress_prepend_size(data);
    (packed.len() < data.len()).then(|| Chunk { body: Body::read("", &packed), is_packed: true })
}

/// `None` for what is no such block, or larger than a part may be: no room is made for it before that is known.
fn unpack(data: &[u8]) -> Option<Vec<u8>> {
    let (len, block) = data.split_first_chunk()?;
    let len = u32::from_le_bytes(*len) as usize;
    if len == 0 || len > CHUNK_MAX {
        return None;
    }
    let mut inflated = vec![0; len];
    let count = lz4_flex::block::decompress_into(block, &mut inflated).ok()?;
    (count == len).then_some(inflated)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_out_as_it_was() {
        let data: Vec<u8> = (0..CHUNK_MAX).map(|i| (i / 100) as u8).collect();
        let chunk = pack(&data).expect("it gets shorter");
        assert!(chunk.is_packed && chunk.body.len() < data.len() / 4);
        assert_eq!(unpack(chunk.body.data()), Some(data));
        let noise: Vec<u8> = (0..1000u64).map(|i| crate::rng::mix(i) as u8).collect();
        assert!(pack(&noise).is_none(), "it goes as it is");
    }

    #[test]
    fn what_is_no_block_of_ours_is_refused() {
        let good = lz4_flex::block::compress_prepend_size(&[7; 1000]);
        let huge = [&(CHUNK_MAX as u32 + 1).to_le_bytes()[..], &good[4..]].concat();
        let more = [&1001u32.to_le_bytes()[..], &good[4..]].concat();
        let less = [&999u32.to_le_bytes()[..], &good[4..]].concat();
        for bad in [&[][..], &[1, 0, 0], &[0; 4], &huge, &more, &less, &good[..good.len() - 1], &[255; 4]] {
            assert_eq!(unpack(bad), None);
        }
    }
}
