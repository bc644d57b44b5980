//! What applications say to each other: to one, to some, or to all.

use alloc::format;
use alloc::sync::Arc;
use core::{fmt, iter};

use crate::error::{Code, Error};
use crate::id::{Epoch, NodeName, RunId};
use crate::time::Instant;

/// Longest topic, in bytes.
pub const TOPIC_MAX: usize = 64;

/// What a message weighs besides its bytes, wherever bytes are bounded: or empty ones would be bounded by nothing.
pub const WEIGHT: usize = 64;

/// Most bytes in one part of a stream: with all that goes around them, they fit in one record of a link.
pub const CHUNK_MAX: usize = 60 << 10;

/// A topic and what is said under it, in one allocation: a copy costs a pointer. Between the two a question to many has its
/// terms.
#[derive(Clone, PartialEq, Eq)]
pub struct Body {
    bytes: Arc<[u8]>,
    topic: u8,
    terms: u16,
}

impl Body {
    /// `E_INVALID` for a topic of more than [`TOPIC_MAX`] bytes or with control characters. The empty one is the
    /// default topic.
    pub fn new(topic: &str, data: &[u8]) -> Result<Body, Error> {
        if !is_topic(topic) {
            let text = format!("topic {topic:?}: expected at most {TOPIC_MAX} bytes without control characters");
            return Err(Error::new(Code::Invalid, text));
        }
        Ok(Body::read(topic, data))
    }

    /// A question to many. Its terms are shorter than 64 KiB.
    pub(crate) fn asking(topic: &str, terms: &[u8], data: &[u8]) -> Body {
        let terms_len = u16::try_from(terms.len()).expect("terms are bounded");
        if topic.is_empty() && terms.is_empty() {
            // As it is: up to 60 KiB of a stream would be zeros first.
            return Body { bytes: data.into(), topic: 0, terms: 0 };
        }
        // One allocation: a vector would have to move.
        let mut bytes: Arc<[u8]> = iter::repeat_n(0, topic.len() + terms.len() + data.len()).collect();
        let (head, tail) = Arc::get_mut(&mut bytes).expect("nobody else has it yet").split_at_mut(topic.len());
        head.copy_from_slice(topic.as_bytes());
        tail[..terms.len()].copy_from_slice(terms);
        tail[terms.len()..].copy_from_slice(data);
        Body { bytes, topic: topic.len() as u8, terms: terms_len }
    }

    /// The topic is valid: it was checked when the frame was read.
    pub(crate) fn read(topic: &str, data: &[u8]) -> Body {
        Body::asking(topic, &[], data)
    }

    pub fn topic(&self) -> &str {
        core::str::from_utf8(&self.bytes[..self.topic.into()]).expect("a topic is text")
    }

    pub fn data(&self) -> &[u8] {
        &self.bytes[usize::from(self.topic) + usize::from(self.terms)..]
    }

    /// Whom a question to many is for, as it goes over the wire; of all else nothing.
    pub(crate) fn terms(&self) -> &[u8] {
        &self.bytes[self.topic.into()..][..self.terms.into()]
    }

    pub fn is_under_topic_of(&self, other: &Body) -> bool {
        self.bytes[..self.topic.into()] == other.bytes[..other.topic.into()]
    }

    /// Bytes of all of it.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {} B", self.topic(), self.data().len())
    }
}

/// Whether they are one. The empty ones come first: what an empty string points to need not exist, and comparing vectors
/// with no byte of it costs hundreds of cycles on some machines.
#[cfg(feature = "std")]
pub(crate) fn is_same_topic(a: &str, b: &str) -> bool {
    a.len() == b.len() && (a.is_empty() || a == b)
}

pub(crate) fn is_topic(topic: &str) -> bool {
    topic.len() <= TOPIC_MAX && !topic.bytes().any(|b| b < 0x20 || b == 0x7f)
}

/// How something is said to all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ToAll {
    /// We hear it as well.
    pub loopback: bool,
    /// Whoever hears it has heard before, or been told that it is lost, what we said as ordered under the same topic before.
    pub ordered: bool,
}

/// A byte stream, as long as both of its ends run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId {
    /// With whom.
    pub run: RunId,
    /// We have opened it.
    pub ours: bool,
    /// Counts the streams of who opened it.
    pub number: u64,
}

impl StreamId {
    /// All with that member lie between these two.
    pub(crate) fn first(run: RunId) -> StreamId {
        StreamId { run, ours: false, number: 0 }
    }

    pub(crate) fn last(run: RunId) -> StreamId {
        StreamId { run, ours: true, number: u64::MAX }
    }
}

/// Some bytes of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Without a topic.
    pub body: Body,
    /// Its bytes are a compressed block.
    pub is_packed: bool,
}

impl Chunk {
    /// What it counts against its stream's window.
    pub fn weight(&self) -> usize {
        self.body.len() + WEIGHT
    }
}

/// The topic of who listens to all.
pub const ALL_TOPICS: &str = "*";

/// What the application thinks of a message before it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Accept,
    /// It counts as seen, and is neither handed out nor passed on nor offered.
    Reject,
}

/// What a member has told us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Who said it first; with a broadcast not who passed it on.
    pub from: NodeName,
    pub epoch: Epoch,
    pub run: RunId,
    pub manner: Manner,
    pub body: Body,
}

impl Delivery {
    /// What it counts for until the application is done with it.
    pub fn weight(&self) -> Weight {
        let bytes = self.body.len() + WEIGHT;
        match self.manner {
            Manner::Broadcast { .. } => Weight { broadcasts: bytes, direct: 0 },
            Manner::BestEffort | Manner::Reliable | Manner::Request { .. } | Manner::Query(_) => Weight::direct(bytes),
        }
    }
}

/// Bytes of messages, each sort bounded by `inbox_bytes`: by what was said to us alone its senders are held up, by
/// broadcasts nobody is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weight {
    pub direct: usize,
    pub broadcasts: usize,
}

impl Weight {
    fn direct(bytes: usize) -> Weight {
        Weight { direct: bytes, broadcasts: 0 }
    }
}

impl core::ops::AddAssign for Weight {
    fn add_assign(&mut self, other: Weight) {
        self.direct += other.direct;
        self.broadcasts += other.broadcasts;
    }
}

/// How it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// To us, in a datagram that may be lost, doubled or overtaken.
    BestEffort,
    /// To us, in the order of its sender and topic, at most once.
    Reliable,
    /// To us, and an answer is waited for. `id` is the asker's.
    Request { id: u64 },
    /// To all. `seq` counts the origin's broadcasts in this run.
    Broadcast { seq: u64 },
    /// To all that it is meant for, and answers are gathered for a while.
    Query(Query),
}

/// What an answer to a question to many needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// The asker's number.
    pub id: u64,
    /// Later answers find nobody who waits for them.
    pub until: Instant,
    /// Members through which the answer goes once more.
    pub relay: u32,
}

/// What one member answers to a question to many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub from: NodeName,
    pub epoch: Epoch,
    pub run: RunId,
    pub said: Result<Body, Error>,
}

impl Answer {
    /// What it counts against `inbox_bytes` until the application is done with it.
    pub fn weight(&self) -> Weight {
        Weight::direct(WEIGHT + self.said.as_ref().map_or_else(|e| e.text.len(), Body::len))
    }
}

/// What came of a question to many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gathered {
    /// Members that it was for, as far as we knew when it was asked.
    pub asked: usize,
    /// Who has answered; also with an error.
    pub answered: usize,
    /// Who has said that it has heard it, where that was wanted.
    pub heard: usize,
    /// Who was dead or had left before it answered.
    pub gone: usize,
    /// Why it ended: all who were asked have answered or are gone; or time was over (E_TIMEOUT), or it was given up (E_CANCELED).
    pub why: Option<Code>,
}
