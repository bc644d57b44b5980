//! Byte streams between two members: both ways, in order, each way no faster than it is read.
//!
//! ```text
//! who opens                            who accepts
//!   OPEN(topic, so far you may go) ──▶
//!   DATA(bytes) ─────────────────────▶   as far as it may go: FIRST, and what WINDOW says
//!   ◀────── WINDOW(so far you may go)    as its application reads
//!   FIN ─────────────────────────────▶   no more that way; the other way goes on
//!   ◀──────────────────────────── FIN    over
//!   ◀── RESET(why) ──▶                   by either side, at any time: over
//! ```
//! Windows as in HTTP/2 (RFC 9113 §5.2) and QUIC (RFC 9000 §4.1): what may be sent is told as a position in the stream, so
//! that nothing is counted twice. What is told is counted as it weighs, each DATA with [`WEIGHT`] besides its bytes: or a
//! window of single bytes would be bounded by nothing.
//!
//! What is said here arrives in order and once (`protocol::lane`), unless the two sides lost each other in between: one has
//! taken the other for dead, and ended its streams. The other learns so at the next word: about a stream that is not
//! known the answer is RESET. And since it may have nothing to say, who hears nothing of a stream for a while says
//! WINDOW once more. That every DATA names its position shows that nothing was left out.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::id::RunId;
use crate::message::{CHUNK_MAX, StreamId, WEIGHT};
use crate::time::{Duration, Instant};

/// So far the opener may go before it has heard anything.
pub const FIRST: u64 = 64 << 10;

const _: () = assert!((CHUNK_MAX + WEIGHT) as u64 <= FIRST);

#[derive(Debug, Default)]
pub struct Streams {
    last: u64,
    of: BTreeMap<StreamId, Stream>,
    /// When the silent ones are asked.
    due: Option<Instant>,
}

#[derive(Debug)]
struct Stream {
    /// What we have sent, and may send.
    sent: u64,
    limit: u64,
    /// There is no more from us.
    finished: bool,
    /// What has come, was read, and may come.
    come: u64,
    read: u64,
    told: u64,
    /// There is no more from there.
    ended: bool,
    window: u64,
    /// Since the silent ones were asked.
    heard: bool,
}

/// What a word about a stream comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    Nothing,
    /// It is the stream's next part.
    Data,
    /// It may be written up to there.
    Room(u64),
    /// There is no more. With `over` there was no more from us either, and it is forgotten.
    Ended {
        over: bool,
    },
    /// There is no such stream here.
    Unknown,
    /// Something is missing, or more than there was room for: the stream is forgotten.
    Broken,
}

/// Why there is no further stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    Node,
    Member,
    /// Its opener has it already.
    Taken,
}

/// How many there may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub streams: usize,
    pub of_one: usize,
}

impl Streams {
    pub fn len(&self) -> usize {
        self.of.len()
    }

    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    pub fn contains(&self, id: StreamId) -> bool {
        self.of.contains_key(&id)
    }

    // --- what we do ---

    /// With that member. It may send so much before we have read anything.
    pub fn open(&mut self, run: RunId, window: u64, limits: Limits) -> Result<StreamId, Full> {
        self.last += 1;
        self.add(StreamId { run, ours: true, number: self.last }, FIRST, window, window, limits)
    }

    /// Where in the stream something of this weight goes, which is sent now. `None`: it may not be, or not any more.
    pub fn send(&mut self, id: StreamId, weight: usize) -> Option<u64> {
        let stream = self.of.get_mut(&id).filter(|s| !s.finished && s.sent + weight as u64 <= s.limit)?;
        let at = stream.sent;
        stream.sent += weight as u64;
        Some(at)
    }

    /// There is no more from us: where that is. `None` where it was said before.
    pub fn finish(&mut self, id: StreamId) -> Option<u64> {
        let stream = self.of.get_mut(&id).filter(|s| !s.finished)?;
        stream.finished = true;
        let at = stream.sent;
        if stream.ended {
            self.of.remove(&id);
        }
        Some(at)
    }

    /// So much of it was read. Answers with how far the other side may go now, when that is worth telling.
    pub fn read(&mut self, id: StreamId, weight: usize) -> Option<u64> {
        let stream = self.of.get_mut(&id)?;
        stream.read = (stream.read + weight as u64).min(stream.come);
        let limit = stream.read + stream.window;
        if stream.ended || limit - stream.told < stream.window / 4 {
            return None;
        }
        stream.told = limit;
        Some(limit)
    }

    /// We have nothing to do with it any more. Answers with what the other side has to be told: (FIN, and at what place; RESET).
    pub fn close(&mut self, id: StreamId) -> Option<(Option<u64>, bool)> {
        let stream = self.of.remove(&id)?;
        Some(((!stream.finished).then_some(stream.sent), !stream.ended))
    }

    /// Forgets it. False where there is none.
    pub fn end(&mut self, id: StreamId) -> bool {
        self.of.remove(&id).is_some()
    }

    /// Forgets all that there are with a member.
    pub fn fail(&mut self, run: RunId) -> Vec<StreamId> {
        let ids: Vec<StreamId> = self.of.range(StreamId::first(run)..=StreamId::last(run)).map(|(&id, _)| id).collect();
        ids.iter().for_each(|id| _ = self.of.remove(id));
        ids
    }

    // --- what the other side does ---

    /// It opens one, and takes as much before it has read anything. With `Ok` it may go as far as `window`.
    pub fn on_open(&mut self, id: StreamId, limit: u64, window: u64, limits: Limits) -> Result<StreamId, Full> {
        if self.of.contains_key(&id) {
            return Err(Full::Taken);
        }
        self.add(id, limit, FIRST.max(window), window, limits)
    }

    pub fn on_data(&mut self, id: StreamId, at: u64, weight: usize) -> Heard {
        let Some(stream) = self.hear(id) else { return Heard::Unknown };
        let upto = at.saturating_add(weight as u64);
        if stream.ended || at != stream.come || upto > stream.told {
            self.of.remove(&id);
            return Heard::Broken;
        }
        stream.come = upto;
        Heard::Data
    }

    pub fn on_window(&mut self, id: StreamId, limit: u64) -> Heard {
        match self.hear(id) {
            None => Heard::Unknown,
            Some(stream) if limit <= stream.limit => Heard::Nothing,
            Some(stream) => {
                stream.limit = limit;
                Heard::Room(limit)
            }
        }
    }

    pub fn on_fin(&mut self, id: StreamId, at: u64) -> Heard {
        let Some(stream) = self.hear(id) else { return Heard::Unknown };
        if stream.ended || at != stream.come {
            self.of.remove(&id);
            return Heard::Broken;
        }
        stream.ended = true;
        let over = stream.finished;
        if over {
            self.of.remove(&id);
        }
        Heard::Ended { over }
    }

    // --- what time brings ---

    /// From here on the silent ones are asked so often.
    pub fn watch(&mut self, now: Instant, every: Duration) {
        if self.due.is_none() {
            self.due = Some(now + every);
        }
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// Those of which nothing was heard: and how far the other side may go, to say it again.
    pub fn on_deadline(&mut self, now: Instant, every: Duration) -> Vec<(StreamId, u64)> {
        if self.due.is_none_or(|at| now < at) {
            return Vec::new();
        }
        self.due = (!self.of.is_empty()).then(|| now + every);
        let silent = self.of.iter_mut().filter_map(|(&id, stream)| {
            let heard = core::mem::take(&mut stream.heard);
            (!heard).then_some((id, stream.told))
        });
        silent.collect()
    }

    // --- the parts ---

    fn add(&mut self, id: StreamId, limit: u64, told: u64, window: u64, limits: Limits) -> Result<StreamId, Full> {
        if self.of.len() >= limits.streams {
            return Err(Full::Node);
        }
        if self.of.range(StreamId::first(id.run)..=StreamId::last(id.run)).count() >= limits.of_one {
            return Err(Full::Member);
        }
        let stream =
            Stream { sent: 0, limit, finished: false, come: 0, read: 0, told, ended: false, window, heard: true };
        self.of.insert(id, stream);
        Ok(id)
    }

    fn hear(&mut self, id: StreamId) -> Option<&mut Stream> {
        let stream = self.of.get_mut(&id)?;
        stream.heard = true;
        Some(stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: u64 = 100_000;
    const LIMITS: Limits = Limits { streams: 3, of_one: 2 };

    fn run(id: u64) -> RunId {
        RunId::new(id).unwrap()
    }

    /// Both ends of one stream.
    fn open() -> (Streams, StreamId, Streams, StreamId) {
        let (mut near, mut far) = (Streams::default(), Streams::default());
        let id = near.open(run(2), WINDOW, LIMITS).unwrap();
        let there = StreamId { run: run(1), ours: false, number: id.number };
        assert_eq!(far.on_open(there, WINDOW, WINDOW, LIMITS), Ok(there));
        (near, id, far, there)
    }

    #[test]
    fn nothing_is_sent_beyond_what_was_told() {
        let (mut near, id, mut far, there) = open();
        assert_eq!(near.send(id, FIRST as usize), Some(0));
        assert_eq!(near.send(id, 1), None);
        assert_eq!(far.on_data(there, 0, FIRST as usize), Heard::Data);
        assert_eq!(near.on_window(id, WINDOW), Heard::Room(WINDOW));
        assert_eq!(near.on_window(id, WINDOW), Heard::Nothing, "said again");
        assert_eq!(near.send(id, (WINDOW - FIRST) as usize), Some(FIRST));
        assert_eq!(far.on_data(there, FIRST, (WINDOW - FIRST) as usize), Heard::Data);
        // Little by little it is not worth a word; nor is what was never sent.
        assert_eq!(far.read(there, 20_000), None);
        assert_eq!(far.read(there, 5_000), Some(WINDOW + 25_000));
        assert_eq!(far.read(there, usize::MAX >> 1), Some(2 * WINDOW));
        assert_eq!(near.send(id, 1), None);
        // The way back has a window of its own.
        assert_eq!(far.send(there, WINDOW as usize), Some(0));
        assert_eq!(far.send(there, 1), None);
    }

    #[test]
    fn who_sends_more_than_it_may_or_leaves_something_out_has_broken_the_stream() {
        for (at, weight) in [(0, WINDOW as usize + 1), (1, 5), (u64::MAX, 5)] {
            let (_, _, mut far, there) = open();
            assert_eq!(far.on_data(there, at, weight), Heard::Broken);
            assert_eq!(far.on_data(there, 0, 5), Heard::Unknown, "it is forgotten");
        }
        let (_, _, mut far, there) = open();
        assert_eq!(far.on_fin(there, 1), Heard::Broken);
        let (_, _, mut far, there) = open();
        assert_eq!(far.on_fin(there, 0), Heard::Ended { over: false });
        assert_eq!(far.on_data(there, 0, 5), Heard::Broken, "after its end");
    }

    #[test]
    fn each_way_ends_by_itself_and_with_the_second_the_stream() {
        let (mut near, id, mut far, there) = open();
        assert_eq!(near.send(id, 100), Some(0));
        assert_eq!(near.finish(id), Some(100));
        assert_eq!((near.finish(id), near.send(id, 1)), (None, None));
        assert_eq!(far.on_data(there, 0, 100), Heard::Data);
        assert_eq!(far.on_fin(there, 100), Heard::Ended { over: false });
        assert_eq!(far.send(there, 7), Some(0), "the other way goes on");
        assert_eq!(far.finish(there), Some(7));
        assert!(far.is_empty());
        assert_eq!(near.on_data(id, 0, 7), Heard::Data);
        assert_eq!(near.on_fin(id, 7), Heard::Ended { over: true });
        assert!(near.is_empty());
    }

    #[test]
    fn who_closes_says_what_the_other_side_does_not_know() {
        let (mut near, id, mut far, there) = open();
        assert_eq!(near.close(id), Some((Some(0), true)), "its end, and that it does not read any more");
        assert_eq!(near.close(id), None);
        assert_eq!(far.on_fin(there, 0), Heard::Ended { over: false });
        assert_eq!(far.close(there), Some((Some(0), false)));
    }

    #[test]
    fn there_are_no_more_than_there_may_be() {
        let (mut near, id, ..) = open();
        near.open(run(2), WINDOW, LIMITS).unwrap();
        assert_eq!(near.open(run(2), WINDOW, LIMITS), Err(Full::Member));
        let third = near.open(run(3), WINDOW, LIMITS).unwrap();
        assert_eq!(near.open(run(4), WINDOW, LIMITS), Err(Full::Node));
        assert_eq!(near.on_open(third, 0, WINDOW, LIMITS), Err(Full::Taken));
        assert_eq!(near.fail(run(2)).len(), 2);
        assert!(!near.contains(id) && near.contains(third));
    }

    #[test]
    fn who_hears_nothing_asks() {
        let (mut near, id, ..) = open();
        let (start, every) = (Instant::from_nanos(0), Duration::from_secs(30));
        near.watch(start, every);
        assert_eq!(near.on_deadline(start + every, every), [], "it is new");
        assert_eq!(near.on_deadline(start + every, every), [], "not yet");
        assert_eq!(near.on_deadline(start + every * 2, every), [(id, WINDOW)]);
        near.on_window(id, WINDOW);
        assert_eq!(near.on_deadline(start + every * 3, every), []);
        near.end(id);
        assert_eq!(near.on_deadline(start + every * 4, every), []);
        assert_eq!(near.deadline(), None, "nobody is left to ask");
    }
}
