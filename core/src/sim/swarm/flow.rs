//! What applications of the swarm write to byte streams, and what must come of it.
//!
//! The bytes of each way of each stream are known by their place, so whatever is read is checked at once: in order, each
//! once, none left out. A stream ends with all that was written or with an error, and where all are well again none is
//! still open. By their numbers some are compressed, some have nobody who listens, some are closed by who accepts them
//! before they are read, and some are read slowly.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::engine::FIRST_ROOM;
use crate::error::Code;
use crate::id::RunId;
use crate::message::{Body, Chunk, StreamId, WEIGHT};
use crate::outbox::Streamed;
use crate::sim::{NodeIndex, World};

/// Most bytes in one part here: small, so that there are many.
const PART: usize = 3_000;

#[derive(Default)]
pub(super) struct Flows {
    /// How much each side writes, by who opened it and its number.
    lengths: BTreeMap<(RunId, u64), [usize; 2]>,
    ends: BTreeMap<(RunId, StreamId), End>,
    /// Of ends: who read all to the end.
    whole: BTreeSet<(RunId, StreamId)>,
    read: Vec<Read>,
}

#[derive(Clone, Copy, Default)]
struct Read {
    run: Option<RunId>,
    news: usize,
    looks: u64,
}

/// One end of a stream, that is there.
struct End {
    limit: u64,
    /// By weight.
    sent: u64,
    written: usize,
    length: usize,
    finished: bool,
    come: usize,
    unread: usize,
    ended: bool,
}

impl Flows {
    /// Opens one, to write so much and to be written so much back.
    pub fn open(&mut self, world: &mut World, from: NodeIndex, to: NodeIndex, lengths: [usize; 2]) {
        let (run, name) = (world.run_id(from), world.name(to).clone());
        let body = Body::new("flow", &[]).expect("a valid topic");
        let packed = lengths[0].is_multiple_of(2);
        if let Ok(id) = world.call(from, |e, now, out| e.open_stream(now, &name, body, packed, out)) {
            self.lengths.insert((run, id.number), lengths);
            self.ends.insert((run, id), End::new(FIRST_ROOM, lengths[0]));
        }
    }

    /// Reads what `i` was told since, and lets its application go on.
    pub fn look(&mut self, world: &mut World, i: NodeIndex) -> Result<(), String> {
        let me = world.run_id(i);
        if self.read.len() <= i {
            self.read.resize(i + 1, Read::default());
        }
        if self.read[i].run != Some(me) {
            self.read[i] = Read { run: Some(me), ..Read::default() };
        }
        self.read[i].looks += 1;
        loop {
            let Some(news) = world.streams(i).get(self.read[i].news).cloned() else { break };
            self.read[i].news += 1;
            self.take(world, i, me, news)?;
        }
        if world.is_up(i) && world.is_running(i) {
            let ids: Vec<StreamId> = self.of(me).map(|((_, id), _)| *id).collect();
            ids.into_iter().for_each(|id| self.go_on(world, i, me, id));
        }
        Ok(())
    }

    fn take(&mut self, world: &mut World, i: NodeIndex, me: RunId, news: Streamed) -> Result<(), String> {
        match news {
            Streamed::Opened { id, limit, .. } => {
                let Some(&[_, back]) = self.lengths.get(&(id.run, id.number)) else {
                    return Err(format!("{id:?} is opened, by nobody"));
                };
                if id.number % 7 == 3 {
                    world.call(i, |e, now, out| e.reset_stream(now, id, Code::NoHandler, "nobody listens", out));
                } else if self.ends.insert((me, id), End::new(limit, back)).is_some() {
                    return Err(format!("{id:?} is opened for the second time"));
                }
            }
            Streamed::Come { id, chunk } => {
                let Some(end) = self.ends.get_mut(&(me, id)) else { return Ok(()) };
                let salt = salt(id, !id.ours);
                for &byte in chunk.body.data() {
                    if byte != byte_at(salt, end.come) {
                        return Err(format!("byte {} of {id:?} is another than was written", end.come));
                    }
                    end.come += 1;
                }
                end.unread += chunk.weight();
                if end.ended {
                    return Err(format!("more of {id:?} after its end"));
                }
                if !id.ours && id.number % 7 == 5 {
                    self.ends.remove(&(me, id));
                    world.call(i, |e, now, out| e.close_stream(now, id, out));
                }
            }
            Streamed::Finished { id } => {
                let Some(end) = self.ends.get_mut(&(me, id)) else { return Ok(()) };
                let opener = if id.ours { me } else { id.run };
                let expected = self.lengths[&(opener, id.number)][usize::from(id.ours)];
                let closed = id.ours && id.number % 7 == 5;
                if end.come != expected && !closed {
                    return Err(format!("{id:?} ends after {} of {expected} bytes", end.come));
                }
                end.ended = true;
            }
            Streamed::Room { id, limit } => {
                self.ends.entry((me, id)).and_modify(|end| end.limit = limit);
            }
            Streamed::Ended { id, .. } => {
                self.ends.remove(&(me, id));
            }
        }
        Ok(())
    }

    /// Writes what it may, and reads what has come.
    fn go_on(&mut self, world: &mut World, i: NodeIndex, me: RunId, id: StreamId) {
        let is_slow = id.number.is_multiple_of(3) && !self.read[i].looks.is_multiple_of(16);
        let Some(end) = self.ends.get_mut(&(me, id)) else { return };
        if end.unread > 0 && !is_slow {
            let weight = core::mem::take(&mut end.unread);
            world.call(i, |e, now, out| e.consumed_of_stream(now, id, weight, out));
        }
        let (salt, mut chunks) = (salt(id, id.ours), Vec::new());
        while end.written < end.length {
            let len = PART.min(end.length - end.written);
            if end.sent + (len + WEIGHT) as u64 > end.limit {
                break;
            }
            let data: Vec<u8> = (end.written..end.written + len).map(|at| byte_at(salt, at)).collect();
            chunks.push(Chunk { body: Body::new("", &data).expect("no topic"), is_packed: false });
            end.sent += (len + WEIGHT) as u64;
            end.written += len;
        }
        let is_last = end.written == end.length && !end.finished;
        if !chunks.is_empty() {
            // A node that leaves writes no more, and its streams end.
            let _ = world.call(i, |e, now, out| e.write_stream(now, id, &chunks, out));
        }
        if is_last {
            end.finished = true;
            world.call(i, |e, now, out| e.finish_stream(now, id, out));
        }
        if end.finished && end.ended {
            self.ends.remove(&(me, id));
            self.whole.insert((me, id));
        }
    }

    /// A stream that `i` still has.
    pub fn waits(&self, world: &World, i: NodeIndex) -> Option<String> {
        let me = world.run_id(i);
        self.of(me).next().map(|((_, id), end)| {
            format!("still has {id:?}: wrote {} of {}, has read {}", end.written, end.length, end.come)
        })
    }

    fn of(&self, me: RunId) -> impl Iterator<Item = (&(RunId, StreamId), &End)> {
        let least = StreamId::first(RunId::new(1).expect("not zero"));
        self.ends.range((me, least)..).take_while(move |((run, _), _)| *run == me)
    }

    pub fn is_used(&self) -> bool {
        !self.lengths.is_empty()
    }

    /// Some were read to their end.
    pub fn is_any_whole(&self) -> bool {
        !self.whole.is_empty()
    }
}

impl End {
    fn new(limit: u64, length: usize) -> End {
        End { limit, sent: 0, written: 0, length, finished: false, come: 0, unread: 0, ended: false }
    }
}

/// Of what who opened it writes, or of the way back.
fn salt(id: StreamId, of_opener: bool) -> u64 {
    id.number * 2 + u64::from(of_opener)
}

fn byte_at(salt: u64, at: usize) -> u8 {
    (salt.wrapping_mul(0x9e37_79b9) ^ (at as u64).wrapping_mul(0x2545_f491_4f6c_dd1d) >> 23) as u8
}
