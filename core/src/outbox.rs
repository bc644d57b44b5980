//! What one call wants done. The caller owns the outbox, and sends after the engine's lock is released.
//!
//! A tray of packets that are kept between calls: frames to one destination share a packet while they
//! fit, header and tag room is there from the start, and sealing happens in place.

use alloc::vec::Vec;
use core::net::SocketAddr;

use crate::error::Error;
use crate::id::{NodeName, RunId};
use crate::message::{Answer, Body, Chunk, Delivery, Gathered, StreamId};
use crate::view::Event;
use crate::wire::frame::Frame;
use crate::wire::{envelope, stream};

/// Packets that one call may fill. What comes after is dropped and counted; every protocol repeats itself.
pub const PACKETS_MAX: usize = 128;

/// Frames for one link are put together up to this size; one alone may be larger. A link's first record has to be small
/// enough for a peer that does not trust us yet.
pub const TOGETHER_MAX: usize = 64 << 10;

/// Packets of that size whose memory an outbox keeps.
const LARGE_MAX: usize = 8;

const _: () = assert!(TOGETHER_MAX + envelope::OVERHEAD <= stream::RECORD_MAX_STRANGER);

/// To whom. Without a run id the packet is sealed for a stranger, and only HELLO, COOKIE and REFUSED may be in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    pub addr: SocketAddr,
    pub run: Option<RunId>,
    pub via: Via,
}

/// By what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Via {
    /// A datagram; at most `max_datagram` with its envelope.
    Datagram,
    /// The pooled link to that member, opened where there is none.
    Stream,
}

/// Frames for one destination: `HEADER` bytes of room, then the frames. The driver seals it in place.
#[derive(Clone, Debug)]
pub struct Packet {
    pub to: Destination,
    pub buf: Vec<u8>,
}

impl Packet {
    pub fn frames(&self) -> &[u8] {
        &self.buf[envelope::HEADER..]
    }
}

/// A call that somebody may be waiting for has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Completion {
    /// `answered` of the contacts let us in; `refused` holds the first refusal's text.
    Joined { id: u64, answered: usize, refused: Option<alloc::string::String> },
    /// Enough peers acknowledged that we left, or the deadline passed (`told` is false).
    LeaveDone { told: bool },
    /// That member has a message for which a receipt was wanted (`status` 0), or will not have it (an error code).
    Received { id: u64, status: i32 },
    /// A request has ended: with the answer, or without one.
    Replied { id: u64, answer: core::result::Result<Body, Error> },
    /// A member has answered a question to many.
    Answered { id: u64, answer: Answer },
    /// A member has heard a question to many.
    Heard { id: u64, by: NodeName },
    /// No more answers to that question.
    Gathered { id: u64, gathered: Gathered },
    /// After a refusal there is room again for messages to that member.
    Writable { to: NodeName },
}

/// What became of a byte stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Streamed {
    /// A member has opened it, under the body's topic. `limit`: so much may be written before it is told more.
    Opened { id: StreamId, from: NodeName, body: Body, is_packed: bool, limit: u64 },
    /// More of it has come.
    Come { id: StreamId, chunk: Chunk },
    /// There is no more to come.
    Finished { id: StreamId },
    /// It may be written up to there, by weight.
    Room { id: StreamId, limit: u64 },
    /// It is over, without a FIN that was not told before.
    Ended { id: StreamId, error: Error },
}

#[derive(Debug)]
pub struct Outbox {
    packets: Vec<Packet>,
    used: usize,
    datagram_max: usize,
    /// Packets that news has been put on already.
    pub ridden: usize,
    pub dropped: u64,
    pub events: Vec<Event>,
    /// For the application, after the events.
    pub messages: Vec<Delivery>,
    /// Broadcasts that wait for a verdict: [`Engine::validated`](crate::engine::Engine::validated).
    pub questions: Vec<Delivery>,
    pub completions: Vec<Completion>,
    /// Of byte streams.
    pub streams: Vec<Streamed>,
    /// Seeds whose names want resolving (index into `Config::seeds`); answered by `Input::Resolved`.
    pub resolve: Vec<usize>,
}

impl Outbox {
    /// `datagram_max`: the largest datagram, envelope included.
    pub fn new(datagram_max: usize) -> Outbox {
        Outbox {
            packets: Vec::new(),
            used: 0,
            ridden: 0,
            datagram_max,
            dropped: 0,
            events: Vec::new(),
            messages: Vec::new(),
            questions: Vec::new(),
            completions: Vec::new(),
            streams: Vec::new(),
            resolve: Vec::new(),
        }
    }

    /// The largest datagram from here on; nodes that share an outbox may differ in it.
    pub fn set_datagram_max(&mut self, datagram_max: usize) {
        self.datagram_max = datagram_max;
    }

    /// Empties the outbox and keeps its room.
    pub fn clear(&mut self) {
        self.used = 0;
        self.ridden = 0;
        self.dropped = 0;
        self.events.clear();
        self.messages.clear();
        self.questions.clear();
        self.completions.clear();
        self.streams.clear();
        self.resolve.clear();
    }

    pub fn packets(&mut self) -> &mut [Packet] {
        &mut self.packets[..self.used]
    }

    pub fn is_empty(&self) -> bool {
        let told = self.events.is_empty() && self.messages.is_empty() && self.completions.is_empty();
        let told = told && self.streams.is_empty() && self.questions.is_empty();
        self.used == 0 && told && self.resolve.is_empty()
    }

    /// Appends a frame to the packet that is open for `to`, or to a new one. A frame too large for a
    /// datagram goes by stream.
    pub fn send(&mut self, to: Destination, frame: &Frame<'_>) {
        if let Some(i) = self.open(to) {
            let buf = &mut self.packets[i].buf;
            let len = buf.len();
            frame.write(buf);
            if self.packets[i].buf.len() + envelope::TAG <= self.limit(to.via) {
                return;
            }
            self.packets[i].buf.truncate(len);
        }
        let Some(i) = self.add(to) else { return };
        frame.write(&mut self.packets[i].buf);
        if self.packets[i].buf.len() + envelope::TAG > self.limit(to.via) {
            debug_assert!(self.packets[i].buf.len() + envelope::TAG <= envelope::ENVELOPE_MAX, "frames are bounded");
            self.packets[i].to.via = Via::Stream;
        }
    }

    /// Like `send`, but in a packet of its own, so that rumors of another choice can ride on it.
    pub fn add(&mut self, to: Destination) -> Option<usize> {
        if self.used == PACKETS_MAX {
            self.dropped += 1;
            return None;
        }
        if self.used == self.packets.len() {
            self.packets.push(Packet { to, buf: Vec::with_capacity(self.datagram_max) });
        }
        let packet = &mut self.packets[self.used];
        packet.to = to;
        packet.buf.clear();
        packet.buf.resize(envelope::HEADER, 0);
        // Many large answers must not cost their memory for ever.
        packet.buf.shrink_to(if self.used < LARGE_MAX { TOGETHER_MAX } else { self.datagram_max.max(4096) });
        self.used += 1;
        Some(self.used - 1)
    }

    /// Appends to packet `i` if the frame fits; says whether it did.
    pub fn try_append(&mut self, i: usize, frame: &Frame<'_>) -> bool {
        let limit = self.limit(self.packets[i].to.via);
        let buf = &mut self.packets[i].buf;
        let len = buf.len();
        frame.write(buf);
        let fits = buf.len() + envelope::TAG <= limit;
        if !fits {
            buf.truncate(len);
        }
        fits
    }

    /// No frame is in packet `i`.
    pub fn is_blank(&self, i: usize) -> bool {
        self.packets[i].frames().is_empty()
    }

    /// Takes the last packet back.
    pub fn remove_last(&mut self) {
        self.used -= 1;
    }

    /// Bytes in all packets.
    pub fn bytes(&self) -> usize {
        self.packets[..self.used].iter().map(|p| p.buf.len()).sum()
    }

    /// What else this turn has to say shall have room, too.
    pub fn is_half_full(&self) -> bool {
        self.used >= PACKETS_MAX / 2
    }

    pub fn len(&self) -> usize {
        self.used
    }

    pub fn destination(&self, i: usize) -> Destination {
        self.packets[i].to
    }

    fn open(&self, to: Destination) -> Option<usize> {
        (0..self.used).rev().find(|&i| self.packets[i].to == to)
    }

    fn limit(&self, via: Via) -> usize {
        match via {
            Via::Datagram => self.datagram_max,
            Via::Stream => TOGETHER_MAX,
        }
    }

    /// What was sent, read back through the real decoder. For tests and transcripts.
    pub fn frames(&self) -> impl Iterator<Item = (Destination, Frame<'_>)> {
        self.packets[..self.used]
            .iter()
            .flat_map(|p| crate::wire::frame::Frames::parse(p.frames()).expect("we wrote it").map(move |f| (p.to, f)))
    }
}
