//! Every message there is. This file is the wire specification.
//!
//! A frame is `kind (u8) · length (varint) · body`; several share a packet. Kinds that a reader does not
//! know are skipped, so is what follows the fields that it knows; what is missing reads as zero.
//!
//! | kind | frame | sent | body |
//! |---:|---|---|---|
//! | 1 | HELLO | to an address whose run is unknown; frozen for all versions | protocol min, max · app version, least it accepts · name · epoch · zeros up to `HELLO_LEN` |
//! | 2 | COOKIE | answer to HELLO; never larger than it | cookie (16 B) · the address HELLO came from |
//! | 3 | REFUSED | answer to HELLO or JOIN; frozen | reason · text |
//! | 4 | JOIN | with the cookie: I want to be a member | cookie (16 B) · record · 0, or with `membership = partial` 1 + neighbours looked for |
//! | 5 | WELCOME | answer to JOIN | highest epoch known of your name by a run that is gone · live members · fingerprint (8 B), or the island's root |
//! | 8 | PING | SWIM §3.1: once a period, to its target | seq · beat · fingerprint (8 B, or none) |
//! | 9 | ACK | answer to PING, or relayed | seq · beat · fingerprint (8 B, or none) |
//! | 10 | PING_REQ | SWIM §3.1: to k members, when no ACK came | seq · target (8 B) · its address |
//! | 11 | NACK | Lifeguard §IV-A: the target did not answer me either | seq |
//! | 12 | HEARTBEATS | van Renesse et al. 1998, with `detector = phi`: once a period, to members by lot | idle (ms since a member with that detector was heard of) · fingerprint (8 B) · counts, newest first |
//! | 16 | RECORD | a member with all that is known of it | record |
//! | 17 | ALIVE | it refuted | run (8 B) · incarnation |
//! | 18 | SUSPECT | it did not answer | run (8 B) · incarnation · accusers (8 B each) |
//! | 19 | DEAD | a suspicion ran out | run (8 B) · incarnation · age |
//! | 20 | LEFT | it said good-bye | run (8 B) · incarnation · age |
//! | 24 | STATE | what changed in a member's metadata | run (8 B) · base · to · reset · entries |
//! | 25 | STATE_NEWS | it changed, by too much for a rumor | run (8 B) · version |
//! | 26 | STATE_PULL | then send it to me | run (8 B) · have |
//! | 32 | DIGEST | anti-entropy: sums over the live members, by bucket | sums (4 B each, their number a power of two) |
//! | 33 | SUMMARY | your bucket differs from mine: mine | log2 of the buckets · bucket · entries |
//! | 34 | WANT | tell me about these | runs (8 B each) |
//! | 35 | TABLE_PULL | a newcomer: the next part of the table | cursor |
//! | 36 | TABLE_NEXT | end of this part | next cursor, 0 at the end |
//! | 40 | MESSAGE | to one member, best effort | topic · data |
//! | 41 | ITEM | in a lane, in order, until it is acknowledged: a message or a part of one, or what a byte stream wants | flags · session · seq · kind · id · status · rest · after · topic · data |
//! | 42 | ITEM_ACK | all before this item of the lane have arrived, and so much more may come | flags · session · upto · room |
//! | 48 | OVERLAY_JOIN | HyParView §4.3: to a contact, by who has no neighbour | – |
//! | 49 | FORWARD_JOIN | it walks from there | steps left · who joins (run 8 B · address) |
//! | 50 | NEIGHBOR | HyParView §4.4: be my neighbour | flags · sender's record |
//! | 51 | NEIGHBOR_REPLY | | flags · sender's record |
//! | 52 | DISCONNECT | we are no neighbours any more | 0, or 1 and who took your place and may have room (run 8 B · address) |
//! | 53 | SHUFFLE | HyParView §4.4: it walks, and is answered where it ends | steps left · whose (run 8 B · address) · contacts |
//! | 54 | SHUFFLE_REPLY | | contacts |
//! | 56 | GOSSIP | a broadcast, passed on | origin (8 B) · sequence · hops · age in ms · flags · topic · data · so many before it the one that it comes after, or 0 · terms, where it is a question · its origin's name · epoch |
//! | 57 | IHAVE | Plumtree §3.7: to those who get no GOSSIP from us | origin (8 B) · first · last · hops of the last · 1 if it has a tree of its own |
//! | 58 | GRAFT | send me these; and henceforth GOSSIP | origin (8 B) · flags · for so many ms I have been here · spans |
//! | 59 | PRUNE | I have that already; henceforth IHAVE | origin (8 B) · 1 if it has a tree of its own |
//! | 60 | IDONTWANT | a large one has come, do not send it | origin (8 B) · sequence |
//! | 61 | VECTOR | what I have, by origin | flags · marks |
//! | 62 | GONE | of what you ask for I have no longer anything up to this | origin (8 B) · sequence · 1 if that was before you were here · age of the last in ms |
//!
//! record = length · (name · run 8 B · epoch · incarnation · address · protocol · app version · state version · age · state entries)
//! flags of NEIGHBOR: 1 I have no other, else if you have room; 2 a record follows, where there is no table of all · of NEIGHBOR_REPLY: 1 yes; 2 the same
//! · of GOSSIP: 1 it was asked for, or missed by who passes it on; 2 its origin has a tree of its own; 4 name and epoch follow, where there is no table of all; 8 along no tree, its receiver was drawn by lot · of GRAFT: 1 GOSSIP henceforth; 2 in the origin's own tree
//! · of VECTOR: 1 yours, too, please; 2 you are my neighbour · contact = run 8 B · address · span = first · how many more · mark = run 8 B · highest sequence
//! terms = the asker's number · for so many ms · 1: say that you heard it · copies of each answer, through others · names (each with its length) · tags
//! an item's kind: 0 message, 1 request, 2 reply to it, 3 answer to a broadcast question, 4 the question was heard, 5 one of these two for another member: its run 8 B · who says it 8 B · kind · data
//! count = run 8 B · heartbeats of that run · state entry = length · (key · version · 0, or 1 + value) · summary entry = length · (run 8 B · epoch · incarnation · state version)
//!
//! Ages are whole seconds since the subject was last known to be so; beats are milliseconds.

use core::fmt;
use core::net::SocketAddr;

use super::cursor::{Malformed, Read, Reader, Writer};
use super::question::Terms;
use crate::config::is_meta_key;
use crate::id::{Epoch, Incarnation, NodeName, RunId, Version};
use crate::message::is_topic;

/// A HELLO is padded to this, so that no answer to it is larger: neither COOKIE nor REFUSED.
pub const HELLO_LEN: usize = 96;

/// Longest text in a REFUSED, so that it fits in what HELLO paid for.
pub const REFUSED_TEXT_MAX: usize = HELLO_LEN - 8;

pub const COOKIE_LEN: usize = 16;

/// SUSPECT names at most so many accusers; more confirmations would not shorten a suspicion any more.
pub const ACCUSERS_MAX: usize = 8;

/// Counts of a HEARTBEATS: more than fit in the largest datagram.
pub const BEATS_MAX: usize = 1024;

/// Entries of a SUMMARY: members in one bucket of 128, for clusters larger than `max_members` allows by default.
pub const SUMMARY_MAX: usize = 2048;

/// Entries of a member's state: its keys, and the tombstones that it keeps.
pub const STATE_ENTRIES_MAX: usize = META_KEYS_MAX + 64;

/// Keys of one member's metadata.
pub const META_KEYS_MAX: usize = 1024;

/// Contacts of a SHUFFLE, far above what one with the paper's numbers has.
pub const CONTACTS_MAX: usize = 64;

/// Spans of a GRAFT. What does not fit is asked for next.
pub const SPANS_MAX: usize = 64;

/// Marks of a VECTOR: it fits in some datagrams.
pub const MARKS_MAX: usize = 1024;

/// Buckets of a DIGEST: 2^BUCKET_BITS_MAX sums of 4 bytes still fit in the smallest datagram.
pub const BUCKET_BITS_MAX: u32 = 7;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    Hello {
        protocol: (u32, u32),
        app: (u32, u32),
        name: &'a str,
        epoch: Epoch,
    },
    Cookie {
        cookie: [u8; COOKIE_LEN],
        observed: SocketAddr,
    },
    Refused {
        reason: u32,
        text: &'a str,
    },
    /// `seeks`: with `membership = partial`, how many neighbours it looks for.
    Join {
        cookie: [u8; COOKIE_LEN],
        record: Record<'a>,
        seeks: Option<u32>,
    },
    Welcome {
        known_epoch: Epoch,
        live: u64,
        fingerprint: u64,
    },
    Ping {
        seq: u64,
        beat: u64,
        fingerprint: u64,
    },
    Ack {
        seq: u64,
        beat: u64,
        fingerprint: u64,
    },
    PingReq {
        seq: u64,
        target: RunId,
        addr: SocketAddr,
    },
    Nack {
        seq: u64,
    },
    Heartbeats {
        idle: u64,
        fingerprint: u64,
        beats: Beats<'a>,
    },
    Record(Record<'a>),
    Alive {
        run: RunId,
        incarnation: Incarnation,
    },
    Suspect {
        run: RunId,
        incarnation: Incarnation,
        accusers: Runs<'a>,
    },
    Dead {
        run: RunId,
        incarnation: Incarnation,
        age: u64,
    },
    Left {
        run: RunId,
        incarnation: Incarnation,
        age: u64,
    },
    State {
        run: RunId,
        base: Version,
        to: Version,
        reset: bool,
        entries: Entries<'a>,
    },
    StateNews {
        run: RunId,
        version: Version,
    },
    StatePull {
        run: RunId,
        have: Version,
    },
    Digest {
        sums: &'a [u8],
    },
    Summary {
        bits: u32,
        bucket: u32,
        entries: Entries<'a>,
    },
    Want {
        runs: Runs<'a>,
    },
    TablePull {
        cursor: u32,
    },
    TableNext {
        cursor: u32,
    },
    Message {
        topic: &'a str,
        data: &'a [u8],
    },
    Item(Item<'a>),
    ItemAck {
        lane: Lane,
        session: u64,
        upto: u64,
        room: u64,
    },
    OverlayJoin,
    ForwardJoin {
        ttl: u32,
        node: Contact,
    },
    Neighbor {
        urgent: bool,
        record: Option<Record<'a>>,
    },
    NeighborReply {
        accepted: bool,
        record: Option<Record<'a>>,
    },
    Disconnect {
        instead: Option<Contact>,
    },
    Shuffle {
        ttl: u32,
        node: Contact,
        contacts: Contacts<'a>,
    },
    ShuffleReply {
        contacts: Contacts<'a>,
    },
    Gossip(Gossip<'a>),
    Ihave(Ihave),
    Graft(Graft<'a>),
    Prune {
        origin: RunId,
        own: bool,
    },
    Idontwant {
        origin: RunId,
        seq: u64,
    },
    Vector {
        ask: bool,
        neighbour: bool,
        marks: Marks<'a>,
    },
    Gone {
        origin: RunId,
        upto: u64,
        before: bool,
        age: u64,
    },
}

/// A message in a lane, or a part of one. Parts of one message follow each other; the last has `rest` 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    pub lane: Lane,
    /// Acknowledge it at once.
    pub prompt: bool,
    /// Counts how often the sender's run has begun to send to somebody: with the first item of a later session all earlier ones are
    /// over, in every lane.
    pub session: u64,
    pub seq: u64,
    /// Items before it that belong to messages which are not acknowledged as a whole. All before those have arrived.
    pub behind: u64,
    pub kind: ItemKind,
    /// The question's, as its asker counts. A stream's: twice its opener's number, and 1 more on the way back to its opener.
    pub id: u64,
    /// A reply's: 0, or an error code without its sign. So is STREAM_RESET's; STREAM_OPEN and STREAM_DATA: flags.
    pub status: u32,
    /// Bytes of the message that are in later items.
    pub rest: u64,
    /// In the lane for large messages: items of the lane for small ones that must be handed out before it. Of a stream: what
    /// of it comes before; with STREAM_OPEN and STREAM_WINDOW up to where it may go.
    pub after: u64,
    pub topic: &'a str,
    pub data: &'a [u8],
}

/// A broadcast on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gossip<'a> {
    pub origin: RunId,
    /// Counts its origin's broadcasts.
    pub seq: u64,
    /// How often it was passed on; the origin's neighbours read 1.
    pub hops: u32,
    /// Milliseconds since it was said.
    pub age: u64,
    pub way: Way,
    pub topic: &'a str,
    pub data: &'a [u8],
    /// The one of this origin and topic that it comes after, where order is wanted; 0 is none.
    pub after: u64,
    /// [`Terms`] that were read once; of what is no question nothing.
    pub terms: &'a [u8],
    /// What its origin is called and how old it is, for those who do not list it.
    pub by: Option<(&'a str, Epoch)>,
}

/// How a broadcast comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// It was asked for, or missed by who passes it on: it says nothing about the tree.
    pub repair: bool,
    /// Along its origin's own tree.
    pub own: bool,
    /// Along no tree: its receiver was drawn by lot.
    pub lot: bool,
}

/// What somebody has of an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ihave {
    pub origin: RunId,
    /// All from here on are new there.
    pub first: u64,
    pub last: u64,
    /// How far the last has come.
    pub hops: u32,
    /// Its origin has a tree of its own.
    pub own: bool,
}

/// What somebody misses of an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Graft<'a> {
    pub origin: RunId,
    /// And wants to be given what comes next.
    pub grow: bool,
    /// In the origin's own tree.
    pub own: bool,
    /// Milliseconds since it began to listen.
    pub here: u64,
    pub spans: Spans<'a>,
}

/// What a message in a lane is. Unknown numbers are handed on, and refused by who acts on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemKind(pub u32);

impl ItemKind {
    pub const MESSAGE: ItemKind = ItemKind(0);
    pub const REQUEST: ItemKind = ItemKind(1);
    pub const REPLY: ItemKind = ItemKind(2);
    /// To a question to many.
    pub const ANSWER: ItemKind = ItemKind(3);
    pub const HEARD: ItemKind = ItemKind(4);
    /// One of the two, by way of another member.
    pub const RELAY: ItemKind = ItemKind(5);
    /// I want a byte stream both ways, under this topic.
    pub const STREAM_OPEN: ItemKind = ItemKind(8);
    /// Some of its bytes.
    pub const STREAM_DATA: ItemKind = ItemKind(9);
    /// You may send up to here; or just: are you still there?
    pub const STREAM_WINDOW: ItemKind = ItemKind(10);
    /// There are no more bytes from me.
    pub const STREAM_FIN: ItemKind = ItemKind(11);
    /// I have nothing to do with it any more.
    pub const STREAM_RESET: ItemKind = ItemKind(12);

    pub const OF_STREAMS: [(ItemKind, &'static str); 5] = [
        (ItemKind::STREAM_OPEN, "STREAM_OPEN"),
        (ItemKind::STREAM_DATA, "STREAM_DATA"),
        (ItemKind::STREAM_WINDOW, "STREAM_WINDOW"),
        (ItemKind::STREAM_FIN, "STREAM_FIN"),
        (ItemKind::STREAM_RESET, "STREAM_RESET"),
    ];
}

/// Which of the lanes between two members. None waits for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Of small messages.
    Small,
    /// Of messages in parts.
    Bulk,
    /// Of byte streams.
    Stream,
}

impl Lane {
    pub const ALL: [Lane; 3] = [Lane::Small, Lane::Bulk, Lane::Stream];

    fn of(flags: u8) -> Lane {
        match (flags & STREAM != 0, flags & BULK != 0) {
            (true, _) => Lane::Stream,
            (false, true) => Lane::Bulk,
            (false, false) => Lane::Small,
        }
    }

    fn flags(self) -> u8 {
        match self {
            Lane::Small => 0,
            Lane::Bulk => BULK,
            Lane::Stream => STREAM,
        }
    }
}

const BULK: u8 = 1;
const PROMPT: u8 = 2;
const STREAM: u8 = 4;

/// A node that others may speak to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contact {
    pub run: RunId,
    pub addr: SocketAddr,
}

/// Contacts one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Contacts<'a>(pub &'a [u8]);

/// Stretches of a sequence, (first, last), one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Spans<'a>(pub &'a [u8]);

/// How far sequences have been heard, one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Marks<'a>(pub &'a [u8]);

/// Everything that a node must know to list a member. Small metadata comes along in `state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    pub name: &'a str,
    pub run: RunId,
    pub epoch: Epoch,
    pub incarnation: Incarnation,
    pub addr: SocketAddr,
    pub protocol: u32,
    pub app_version: u32,
    pub version: Version,
    pub age: u64,
    /// The whole state at `version`, or nothing where it is too large and wants pulling.
    pub state: Entries<'a>,
}

/// Length-prefixed records one after another, checked when the frame was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Entries<'a>(pub &'a [u8]);

/// Run ids one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Runs<'a>(pub &'a [u8]);

/// How far members have counted, one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Beats<'a>(pub &'a [u8]);

/// One key of a member's metadata; `None` is a deleted one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateEntry<'a> {
    pub key: &'a str,
    pub version: Version,
    pub value: Option<&'a [u8]>,
}

/// What one member's bucket holds about another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SummaryEntry {
    pub run: RunId,
    pub epoch: Epoch,
    pub incarnation: Incarnation,
    pub version: Version,
}

macro_rules! kinds {
    ($($name:ident = $kind:literal;)*) => {
        $(const $name: u8 = $kind;)*

        /// What a kind is called in the table above.
        pub const fn kind_name(kind: u8) -> Option<&'static str> {
            match kind {
                $($name => Some(stringify!($name)),)*
                _ => None,
            }
        }
    };
}

kinds! {
    HELLO = 1; COOKIE = 2; REFUSED = 3; JOIN = 4; WELCOME = 5;
    PING = 8; ACK = 9; PING_REQ = 10; NACK = 11; HEARTBEATS = 12;
    RECORD = 16; ALIVE = 17; SUSPECT = 18; DEAD = 19; LEFT = 20;
    STATE = 24; STATE_NEWS = 25; STATE_PULL = 26;
    DIGEST = 32; SUMMARY = 33; WANT = 34; TABLE_PULL = 35; TABLE_NEXT = 36;
    MESSAGE = 40; ITEM = 41; ITEM_ACK = 42;
    OVERLAY_JOIN = 48; FORWARD_JOIN = 49; NEIGHBOR = 50; NEIGHBOR_REPLY = 51; DISCONNECT = 52;
    SHUFFLE = 53; SHUFFLE_REPLY = 54;
    GOSSIP = 56; IHAVE = 57; GRAFT = 58; PRUNE = 59; IDONTWANT = 60; VECTOR = 61; GONE = 62;
}

impl<'a> Frame<'a> {
    /// Appends the frame to `buf`.
    #[inline]
    pub fn write(&self, buf: &mut alloc::vec::Vec<u8>) {
        let mut w = Writer(buf);
        w.byte(self.kind());
        w.prefixed(|w| self.write_body(w));
    }

    /// It is about who is whose neighbour.
    pub const fn is_of_overlay(&self) -> bool {
        matches!(self.kind(), OVERLAY_JOIN..=SHUFFLE_REPLY)
    }

    pub const fn kind(&self) -> u8 {
        match self {
            Frame::Hello { .. } => HELLO,
            Frame::Cookie { .. } => COOKIE,
            Frame::Refused { .. } => REFUSED,
            Frame::Join { .. } => JOIN,
            Frame::Welcome { .. } => WELCOME,
            Frame::Ping { .. } => PING,
            Frame::Ack { .. } => ACK,
            Frame::PingReq { .. } => PING_REQ,
            Frame::Nack { .. } => NACK,
            Frame::Heartbeats { .. } => HEARTBEATS,
            Frame::Record(_) => RECORD,
            Frame::Alive { .. } => ALIVE,
            Frame::Suspect { .. } => SUSPECT,
            Frame::Dead { .. } => DEAD,
            Frame::Left { .. } => LEFT,
            Frame::State { .. } => STATE,
            Frame::StateNews { .. } => STATE_NEWS,
            Frame::StatePull { .. } => STATE_PULL,
            Frame::Digest { .. } => DIGEST,
            Frame::Summary { .. } => SUMMARY,
            Frame::Want { .. } => WANT,
            Frame::TablePull { .. } => TABLE_PULL,
            Frame::TableNext { .. } => TABLE_NEXT,
            Frame::Message { .. } => MESSAGE,
            Frame::Item(_) => ITEM,
            Frame::ItemAck { .. } => ITEM_ACK,
            Frame::OverlayJoin => OVERLAY_JOIN,
            Frame::ForwardJoin { .. } => FORWARD_JOIN,
            Frame::Neighbor { .. } => NEIGHBOR,
            Frame::NeighborReply { .. } => NEIGHBOR_REPLY,
            Frame::Disconnect { .. } => DISCONNECT,
            Frame::Shuffle { .. } => SHUFFLE,
            Frame::ShuffleReply { .. } => SHUFFLE_REPLY,
            Frame::Gossip(_) => GOSSIP,
            Frame::Ihave(_) => IHAVE,
            Frame::Graft(_) => GRAFT,
            Frame::Prune { .. } => PRUNE,
            Frame::Idontwant { .. } => IDONTWANT,
            Frame::Vector { .. } => VECTOR,
            Frame::Gone { .. } => GONE,
        }
    }

    #[inline]
    fn write_body(&self, w: &mut Writer<'_>) {
        match *self {
            Frame::Hello { protocol, app, name, epoch } => {
                let start = w.0.len();
                [protocol.0, protocol.1, app.0, app.1].iter().for_each(|&v| w.varint(v.into()));
                w.text(name);
                w.varint(epoch.0);
                let len = (w.0.len() - start).max(HELLO_LEN);
                w.0.resize(start + len, 0);
            }
            Frame::Cookie { cookie, observed } => {
                w.0.extend_from_slice(&cookie);
                w.addr(observed);
            }
            Frame::Refused { reason, text } => {
                w.varint(reason.into());
                w.text(cut(text, REFUSED_TEXT_MAX));
            }
            Frame::Join { cookie, record, seeks } => {
                w.0.extend_from_slice(&cookie);
                record.write(w);
                w.varint(seeks.map_or(0, |n| 1 + u64::from(n)));
            }
            Frame::Welcome { known_epoch, live, fingerprint } => {
                w.varint(known_epoch.0);
                w.varint(live);
                w.0.extend_from_slice(&fingerprint.to_le_bytes());
            }
            Frame::Ping { seq, beat, fingerprint } | Frame::Ack { seq, beat, fingerprint } => {
                w.varint(seq);
                w.varint(beat);
                // Left out only because nothing follows it; a field added after it brings it back.
                if fingerprint != 0 {
                    w.0.extend_from_slice(&fingerprint.to_le_bytes());
                }
            }
            Frame::PingReq { seq, target, addr } => {
                w.varint(seq);
                w.run(target);
                w.addr(addr);
            }
            Frame::Nack { seq } => w.varint(seq),
            Frame::Heartbeats { idle, fingerprint, beats } => {
                w.varint(idle);
                w.0.extend_from_slice(&fingerprint.to_le_bytes());
                w.bytes(beats.0);
            }
            Frame::Record(record) => record.write(w),
            Frame::Alive { run, incarnation } => {
                w.run(run);
                w.varint(incarnation.0);
            }
            Frame::Suspect { run, incarnation, accusers } => {
                w.run(run);
                w.varint(incarnation.0);
                w.bytes(accusers.0);
            }
            Frame::Dead { run, incarnation, age } | Frame::Left { run, incarnation, age } => {
                w.run(run);
                w.varint(incarnation.0);
                w.varint(age);
            }
            Frame::State { run, base, to, reset, entries } => {
                w.run(run);
                w.varint(base.0);
                w.varint(to.0);
                w.byte(reset.into());
                w.bytes(entries.0);
            }
            Frame::StateNews { run, version } | Frame::StatePull { run, have: version } => {
                w.run(run);
                w.varint(version.0);
            }
            Frame::Digest { sums } => w.bytes(sums),
            Frame::Summary { bits, bucket, entries } => {
                w.varint(bits.into());
                w.varint(bucket.into());
                w.bytes(entries.0);
            }
            Frame::Want { runs } => w.bytes(runs.0),
            Frame::TablePull { cursor } | Frame::TableNext { cursor } => w.varint(cursor.into()),
            Frame::Message { topic, data } => {
                w.text(topic);
                w.bytes(data);
            }
            Frame::Item(item) => item.write(w),
            Frame::ItemAck { lane, session, upto, room } => {
                w.byte(lane.flags());
                [session, upto, room].into_iter().for_each(|v| w.varint(v));
            }
            Frame::OverlayJoin => {}
            Frame::Disconnect { instead } => {
                w.byte(instead.is_some().into());
                instead.iter().for_each(|node| node.write(w));
            }
            Frame::ForwardJoin { ttl, node } => {
                w.varint(ttl.into());
                node.write(w);
            }
            Frame::Neighbor { urgent: yes, record } | Frame::NeighborReply { accepted: yes, record } => {
                w.byte(flags(yes, record.is_some()));
                record.iter().for_each(|record| record.write(w));
            }
            Frame::Shuffle { ttl, node, contacts } => {
                w.varint(ttl.into());
                node.write(w);
                w.bytes(contacts.0);
            }
            Frame::ShuffleReply { contacts } => w.bytes(contacts.0),
            Frame::Gossip(gossip) => gossip.write(w),
            Frame::Ihave(Ihave { origin, first, last, hops, own }) => {
                w.run(origin);
                w.varint(first);
                w.varint(last);
                w.varint(hops.into());
                w.byte(own.into());
            }
            Frame::Graft(Graft { origin, grow, own, here, spans }) => {
                w.run(origin);
                w.byte(flags(grow, own));
                w.varint(here);
                w.bytes(spans.0);
            }
            Frame::Prune { origin, own } => {
                w.run(origin);
                w.byte(own.into());
            }
            Frame::Idontwant { origin, seq } => {
                w.run(origin);
                w.varint(seq);
            }
            Frame::Vector { ask, neighbour, marks } => {
                w.byte(flags(ask, neighbour));
                w.bytes(marks.0);
            }
            Frame::Gone { origin, upto, before, age } => {
                w.run(origin);
                w.varint(upto);
                w.byte(before.into());
                w.varint(age);
            }
        }
    }

    #[inline]
    fn read_body(kind: u8, r: &mut Reader<'a>) -> Read<Option<Frame<'a>>> {
        Ok(Some(match kind {
            // One without its padding has not paid for an answer.
            HELLO if r.len() < HELLO_LEN => return Err(Malformed),
            HELLO => Frame::Hello {
                protocol: (r.short()?, r.short()?),
                app: (r.short()?, r.short()?),
                name: name(r)?,
                epoch: Epoch(r.counter()?),
            },
            COOKIE => Frame::Cookie { cookie: cookie(r)?, observed: r.addr()? },
            REFUSED => Frame::Refused { reason: r.short()?, text: r.text()? },
            JOIN => {
                let (cookie, record) = (cookie(r)?, Record::read(r)?);
                Frame::Join { cookie, record, seeks: r.short()?.checked_sub(1) }
            }
            WELCOME => Frame::Welcome { known_epoch: Epoch(r.counter()?), live: r.varint()?, fingerprint: fixed(r)? },
            PING => Frame::Ping { seq: r.varint()?, beat: r.counter()?, fingerprint: fixed(r)? },
            ACK => Frame::Ack { seq: r.varint()?, beat: r.counter()?, fingerprint: fixed(r)? },
            PING_REQ => Frame::PingReq { seq: r.varint()?, target: r.run()?, addr: r.addr()? },
            NACK => Frame::Nack { seq: r.varint()? },
            HEARTBEATS => Frame::Heartbeats { idle: r.counter()?, fingerprint: fixed(r)?, beats: Beats::read(r)? },
            RECORD => Frame::Record(Record::read(r)?),
            ALIVE => Frame::Alive { run: r.run()?, incarnation: Incarnation(r.counter()?) },
            SUSPECT => Frame::Suspect {
                run: r.run()?,
                incarnation: Incarnation(r.counter()?),
                accusers: Runs::read(r, ACCUSERS_MAX)?,
            },
            DEAD => Frame::Dead { run: r.run()?, incarnation: Incarnation(r.counter()?), age: r.counter()? },
            LEFT => Frame::Left { run: r.run()?, incarnation: Incarnation(r.counter()?), age: r.counter()? },
            STATE => Frame::State {
                run: r.run()?,
                base: Version(r.counter()?),
                to: Version(r.counter()?),
                reset: r.byte()? != 0,
                entries: Entries::read::<StateEntry<'_>>(r, STATE_ENTRIES_MAX)?,
            },
            STATE_NEWS => Frame::StateNews { run: r.run()?, version: Version(r.counter()?) },
            STATE_PULL => Frame::StatePull { run: r.run()?, have: Version(r.counter()?) },
            DIGEST => {
                let sums = r.bytes()?;
                let buckets = sums.len() / 4;
                if sums.len() % 4 != 0 || !buckets.is_power_of_two() || buckets > 1 << BUCKET_BITS_MAX {
                    return Err(Malformed);
                }
                Frame::Digest { sums }
            }
            SUMMARY => {
                let (bits, bucket) = (r.short()?, r.short()?);
                if bits > BUCKET_BITS_MAX || bucket >> bits != 0 {
                    return Err(Malformed);
                }
                Frame::Summary { bits, bucket, entries: Entries::read::<SummaryEntry>(r, SUMMARY_MAX)? }
            }
            WANT => Frame::Want { runs: Runs::read(r, usize::MAX)? },
            TABLE_PULL => Frame::TablePull { cursor: r.short()? },
            TABLE_NEXT => Frame::TableNext { cursor: r.short()? },
            MESSAGE => Frame::Message { topic: topic(r)?, data: r.bytes()? },
            ITEM => Frame::Item(Item::read(r)?),
            ITEM_ACK => Frame::ItemAck {
                lane: Lane::of(r.byte()?),
                session: r.counter()?,
                upto: r.counter()?,
                room: r.varint()?,
            },
            OVERLAY_JOIN => Frame::OverlayJoin,
            FORWARD_JOIN => Frame::ForwardJoin { ttl: r.short()?, node: Contact::read(r)? },
            NEIGHBOR => {
                let (urgent, record) = with_record(r)?;
                Frame::Neighbor { urgent, record }
            }
            NEIGHBOR_REPLY => {
                let (accepted, record) = with_record(r)?;
                Frame::NeighborReply { accepted, record }
            }
            DISCONNECT => {
                let (instead, _) = bits(r)?;
                Frame::Disconnect { instead: instead.then(|| Contact::read(r)).transpose()? }
            }
            SHUFFLE => Frame::Shuffle { ttl: r.short()?, node: Contact::read(r)?, contacts: Contacts::read(r)? },
            SHUFFLE_REPLY => Frame::ShuffleReply { contacts: Contacts::read(r)? },
            GOSSIP => Frame::Gossip(Gossip::read(r)?),
            IHAVE => {
                let (origin, first, last) = (r.run()?, r.counter()?, r.counter()?);
                if first > last {
                    return Err(Malformed);
                }
                Frame::Ihave(Ihave { origin, first, last, hops: r.short()?, own: bits(r)?.0 })
            }
            GRAFT => {
                let (origin, (grow, own)) = (r.run()?, bits(r)?);
                Frame::Graft(Graft { origin, grow, own, here: r.varint()?, spans: Spans::read(r)? })
            }
            PRUNE => Frame::Prune { origin: r.run()?, own: bits(r)?.0 },
            IDONTWANT => Frame::Idontwant { origin: r.run()?, seq: r.counter()? },
            VECTOR => {
                let (ask, neighbour) = bits(r)?;
                Frame::Vector { ask, neighbour, marks: Marks::read(r)? }
            }
            GONE => Frame::Gone { origin: r.run()?, upto: r.counter()?, before: bits(r)?.0, age: r.varint()? },
            _ => return Ok(None),
        }))
    }
}

/// A whole packet's frames. Checked to the last byte before the first frame is handed out, so that no
/// packet is ever half applied.
#[derive(Clone, Copy, Debug)]
pub struct Frames<'a>(Reader<'a>);

impl<'a> Frames<'a> {
    pub fn parse(bytes: &'a [u8]) -> Read<Frames<'a>> {
        let mut r = Reader::new(bytes);
        while !r.is_empty() {
            read_frame(&mut r)?;
        }
        Ok(Frames(Reader::new(bytes)))
    }

    /// `parse` that keeps the first frames as it reads them, so that they need not be read again: as many as `kept` has
    /// room for. The rest of the packet is checked, too, and is the second part.
    pub fn parse_into<'b>(bytes: &'a [u8], kept: &'b mut [Frame<'a>]) -> Read<(&'b [Frame<'a>], Frames<'a>)> {
        let (mut r, mut n) = (Reader::new(bytes), 0);
        while n < kept.len() && !r.is_empty() {
            if let Some(frame) = read_frame(&mut r)? {
                kept[n] = frame;
                n += 1;
            }
        }
        Ok((&kept[..n], Frames::parse(r.rest())?))
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Frame<'a>;

    fn next(&mut self) -> Option<Frame<'a>> {
        while !self.0.is_empty() {
            if let Some(frame) = read_frame(&mut self.0).expect("checked by parse") {
                return Some(frame);
            }
        }
        None
    }
}

/// `None` is a kind that we do not know.
#[inline]
fn read_frame<'a>(r: &mut Reader<'a>) -> Read<Option<Frame<'a>>> {
    let kind = r.byte()?;
    if r.is_empty() {
        return Err(Malformed);
    }
    Frame::read_body(kind, &mut Reader::new(r.bytes()?))
}

impl<'a> Record<'a> {
    fn write(&self, w: &mut Writer<'_>) {
        w.prefixed(|w| {
            w.text(self.name);
            w.run(self.run);
            w.varint(self.epoch.0);
            w.varint(self.incarnation.0);
            w.addr(self.addr);
            w.varint(self.protocol.into());
            w.varint(self.app_version.into());
            w.varint(self.version.0);
            w.varint(self.age);
            w.bytes(self.state.0);
        });
    }

    fn read(r: &mut Reader<'a>) -> Read<Record<'a>> {
        let r = &mut Reader::new(r.bytes()?);
        Ok(Record {
            name: name(r)?,
            run: r.run()?,
            epoch: Epoch(r.counter()?),
            incarnation: Incarnation(r.counter()?),
            addr: r.addr()?,
            protocol: r.short()?,
            app_version: r.short()?,
            version: Version(r.counter()?),
            age: r.counter()?,
            state: Entries::read::<StateEntry<'_>>(r, STATE_ENTRIES_MAX)?,
        })
    }
}

impl<'a> Item<'a> {
    #[inline]
    fn write(&self, w: &mut Writer<'_>) {
        w.byte(self.lane.flags() | (u8::from(self.prompt) * PROMPT));
        [self.session, self.seq, self.behind, self.kind.0.into(), self.id, self.status.into(), self.rest, self.after]
            .into_iter()
            .for_each(|v| w.varint(v));
        w.text(self.topic);
        w.bytes(self.data);
    }

    #[inline]
    fn read(r: &mut Reader<'a>) -> Read<Item<'a>> {
        let flags = r.byte()?;
        let (session, seq, behind) = (r.counter()?, r.counter()?, r.varint()?);
        if behind > seq {
            return Err(Malformed);
        }
        Ok(Item {
            lane: Lane::of(flags),
            prompt: flags & PROMPT != 0,
            session,
            seq,
            behind,
            kind: ItemKind(r.short()?),
            id: r.varint()?,
            status: r.short()?,
            rest: r.varint()?,
            after: r.counter()?,
            topic: topic(r)?,
            data: r.bytes()?,
        })
    }
}

/// Reads one element of [`Entries`].
pub trait Entry<'a>: Sized {
    fn read(r: &mut Reader<'a>) -> Read<Self>;
    fn write(&self, w: &mut Writer<'_>);
}

impl<'a> Entry<'a> for StateEntry<'a> {
    fn read(r: &mut Reader<'a>) -> Read<StateEntry<'a>> {
        let (key, version) = (r.text()?, Version(r.counter()?));
        if !is_meta_key(key) {
            return Err(Malformed);
        }
        let value = if r.value::<bool>()? { Some(r.bytes()?) } else { None };
        Ok(StateEntry { key, version, value })
    }

    fn write(&self, w: &mut Writer<'_>) {
        w.text(self.key);
        w.varint(self.version.0);
        w.byte(self.value.is_some().into());
        if let Some(value) = self.value {
            w.bytes(value);
        }
    }
}

impl<'a> Entry<'a> for SummaryEntry {
    fn read(r: &mut Reader<'a>) -> Read<SummaryEntry> {
        Ok(SummaryEntry {
            run: r.run()?,
            epoch: Epoch(r.counter()?),
            incarnation: Incarnation(r.counter()?),
            version: Version(r.counter()?),
        })
    }

    fn write(&self, w: &mut Writer<'_>) {
        w.run(self.run);
        w.varint(self.epoch.0);
        w.varint(self.incarnation.0);
        w.varint(self.version.0);
    }
}

impl<'a> Entries<'a> {
    fn read<E: Entry<'a>>(r: &mut Reader<'a>, max: usize) -> Read<Entries<'a>> {
        let entries = Entries(r.bytes()?);
        let mut rest = Reader::new(entries.0);
        let mut count = 0;
        while !rest.is_empty() {
            E::read(&mut Reader::new(rest.bytes()?))?;
            count += 1;
        }
        if count > max { Err(Malformed) } else { Ok(entries) }
    }

    /// Appends one entry to a buffer that will become `Entries`.
    pub fn push<E: Entry<'a>>(buf: &mut alloc::vec::Vec<u8>, entry: &E) {
        Writer(buf).prefixed(|w| entry.write(w));
    }

    pub fn iter<E: Entry<'a>>(self) -> impl Iterator<Item = E> {
        let mut rest = Reader::new(self.0);
        core::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let body = rest.bytes().expect("checked when the frame was read");
            Some(E::read(&mut Reader::new(body)).expect("checked when the frame was read"))
        })
    }
}

impl<'a> Runs<'a> {
    fn read(r: &mut Reader<'a>, max: usize) -> Read<Runs<'a>> {
        let bytes = r.bytes()?;
        if bytes.len() % 8 != 0 || bytes.len() / 8 > max {
            return Err(Malformed);
        }
        Ok(Runs(bytes))
    }

    pub fn push(buf: &mut alloc::vec::Vec<u8>, run: RunId) {
        Writer(buf).run(run);
    }

    /// Zero is nobody, and is left out.
    pub fn iter(self) -> impl Iterator<Item = RunId> + 'a {
        self.0.chunks_exact(8).filter_map(|c| RunId::new(u64::from_le_bytes(c.try_into().expect("eight bytes"))))
    }
}

impl<'a> Beats<'a> {
    fn read(r: &mut Reader<'a>) -> Read<Beats<'a>> {
        let beats = Beats(r.bytes()?);
        let (mut rest, mut count) = (Reader::new(beats.0), 0);
        while !rest.is_empty() {
            rest.run()?;
            rest.counter()?;
            count += 1;
        }
        if count > BEATS_MAX { Err(Malformed) } else { Ok(beats) }
    }

    pub fn push(buf: &mut alloc::vec::Vec<u8>, run: RunId, count: u64) {
        Writer(buf).run(run);
        Writer(buf).varint(count);
    }

    pub fn iter(self) -> impl Iterator<Item = (RunId, u64)> + 'a {
        let mut rest = Reader::new(self.0);
        core::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let checked = "checked when the frame was read";
            Some((rest.run().expect(checked), rest.counter().expect(checked)))
        })
    }
}

impl<'a> Gossip<'a> {
    fn write(&self, w: &mut Writer<'_>) {
        w.run(self.origin);
        w.varint(self.seq);
        w.varint(self.hops.into());
        w.varint(self.age);
        let Way { repair, own, lot } = self.way;
        w.byte(flags(repair, own) | u8::from(self.by.is_some()) << 2 | u8::from(lot) << 3);
        w.text(self.topic);
        w.bytes(self.data);
        w.varint(if self.after > 0 { self.seq - self.after } else { 0 });
        w.bytes(self.terms);
        if let Some((name, epoch)) = self.by {
            w.text(name);
            w.varint(epoch.0);
        }
    }

    fn read(r: &mut Reader<'a>) -> Read<Gossip<'a>> {
        let (origin, seq, hops, age) = (r.run()?, r.counter()?, r.short()?, r.varint()?);
        let (flags, topic) = (r.byte()?, r.text()?);
        let way = Way { repair: flags & 1 != 0, own: flags & 2 != 0, lot: flags & 8 != 0 };
        if !is_topic(topic) {
            return Err(Malformed);
        }
        let (data, back, terms) = (r.bytes()?, r.varint()?, r.bytes()?);
        let after = match back {
            0 => 0,
            back => seq.checked_sub(back).filter(|&after| after > 0).ok_or(Malformed)?,
        };
        if !terms.is_empty() {
            Terms::read(terms)?;
        }
        let by = if flags & 4 != 0 { Some((name(r)?, Epoch(r.counter()?))) } else { None };
        Ok(Gossip { origin, seq, hops, age, way, topic, data, after, terms, by })
    }
}

impl Contact {
    fn write(&self, w: &mut Writer<'_>) {
        w.run(self.run);
        w.addr(self.addr);
    }

    fn read(r: &mut Reader<'_>) -> Read<Contact> {
        Ok(Contact { run: r.run()?, addr: r.addr()? })
    }
}

impl<'a> Contacts<'a> {
    fn read(r: &mut Reader<'a>) -> Read<Contacts<'a>> {
        let bytes = r.bytes()?;
        count(bytes, CONTACTS_MAX, Contact::read).map(|()| Contacts(bytes))
    }

    pub fn push(buf: &mut alloc::vec::Vec<u8>, contact: Contact) {
        contact.write(&mut Writer(buf));
    }

    pub fn iter(self) -> impl Iterator<Item = Contact> + 'a {
        each(self.0, Contact::read)
    }
}

impl<'a> Spans<'a> {
    fn read(r: &mut Reader<'a>) -> Read<Spans<'a>> {
        let bytes = r.bytes()?;
        count(bytes, SPANS_MAX, span).map(|()| Spans(bytes))
    }

    pub fn push(buf: &mut alloc::vec::Vec<u8>, first: u64, last: u64) {
        Writer(buf).varint(first);
        Writer(buf).varint(last - first);
    }

    pub fn iter(self) -> impl Iterator<Item = (u64, u64)> + 'a {
        each(self.0, span)
    }
}

fn span(r: &mut Reader<'_>) -> Read<(u64, u64)> {
    let (first, more) = (r.counter()?, r.counter()?);
    Ok((first, first + more))
}

impl<'a> Marks<'a> {
    fn read(r: &mut Reader<'a>) -> Read<Marks<'a>> {
        let bytes = r.bytes()?;
        count(bytes, MARKS_MAX, mark).map(|()| Marks(bytes))
    }

    pub fn push(buf: &mut alloc::vec::Vec<u8>, run: RunId, seq: u64) {
        Writer(buf).run(run);
        Writer(buf).varint(seq);
    }

    pub fn iter(self) -> impl Iterator<Item = (RunId, u64)> + 'a {
        each(self.0, mark)
    }
}

fn mark(r: &mut Reader<'_>) -> Read<(RunId, u64)> {
    Ok((r.run()?, r.counter()?))
}

/// Checks elements that are one after another.
fn count<'a, T>(bytes: &'a [u8], max: usize, read: impl Fn(&mut Reader<'a>) -> Read<T>) -> Read<()> {
    let (mut rest, mut count) = (Reader::new(bytes), 0);
    while !rest.is_empty() {
        read(&mut rest)?;
        count += 1;
    }
    if count > max { Err(Malformed) } else { Ok(()) }
}

fn each<'a, T>(bytes: &'a [u8], read: impl Fn(&mut Reader<'a>) -> Read<T>) -> impl Iterator<Item = T> {
    let mut rest = Reader::new(bytes);
    core::iter::from_fn(move || (!rest.is_empty()).then(|| read(&mut rest).expect("checked when the frame was read")))
}

fn flags(first: bool, second: bool) -> u8 {
    u8::from(first) | u8::from(second) << 1
}

/// None where the body has ended.
fn bits(r: &mut Reader<'_>) -> Read<(bool, bool)> {
    let flags = if r.is_empty() { 0 } else { r.byte()? };
    Ok((flags & 1 != 0, flags & 2 != 0))
}

/// Yes or no, and the sender's record where it brings one.
fn with_record<'a>(r: &mut Reader<'a>) -> Read<(bool, Option<Record<'a>>)> {
    let (yes, has_record) = bits(r)?;
    Ok((yes, has_record.then(|| Record::read(r)).transpose()?))
}

fn name<'a>(r: &mut Reader<'a>) -> Read<&'a str> {
    let name = r.text()?;
    if NodeName::is_valid(name) { Ok(name) } else { Err(Malformed) }
}

fn topic<'a>(r: &mut Reader<'a>) -> Read<&'a str> {
    let topic = r.text()?;
    if is_topic(topic) { Ok(topic) } else { Err(Malformed) }
}

fn cookie(r: &mut Reader<'_>) -> Read<[u8; COOKIE_LEN]> {
    r.take(COOKIE_LEN)?.try_into().map_err(|_| Malformed)
}

fn fixed(r: &mut Reader<'_>) -> Read<u64> {
    if r.is_empty() {
        return Ok(0);
    }
    Ok(u64::from_le_bytes(r.take(8)?.try_into().map_err(|_| Malformed)?))
}

/// The longest part of `text` that fits in `max` bytes.
fn cut(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// One line for traces and transcripts.
impl fmt::Display for Frame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Frame::Hello { protocol, app, name, epoch } => {
                write!(
                    f,
                    "HELLO {name} epoch {} protocol {}-{} app {}>={}",
                    epoch.0, protocol.0, protocol.1, app.0, app.1
                )
            }
            Frame::Cookie { observed, .. } => write!(f, "COOKIE seen-as {observed}"),
            Frame::Refused { reason, text } => write!(f, "REFUSED {reason} {text:?}"),
            Frame::Join { record, seeks: None, .. } => write!(f, "JOIN {record}"),
            Frame::Join { record, seeks: Some(n), .. } => write!(f, "JOIN {record} seeks {n}"),
            Frame::Welcome { known_epoch, live, .. } => write!(f, "WELCOME live {live} known-epoch {}", known_epoch.0),
            Frame::Ping { seq, .. } => write!(f, "PING {seq}"),
            Frame::Ack { seq, .. } => write!(f, "ACK {seq}"),
            Frame::PingReq { seq, target, addr } => write!(f, "PING_REQ {seq} {target:?} {addr}"),
            Frame::Nack { seq } => write!(f, "NACK {seq}"),
            Frame::Heartbeats { idle, beats, .. } => write!(f, "HEARTBEATS of {} idle {idle}ms", beats.iter().count()),
            Frame::Record(record) => write!(f, "RECORD {record}"),
            Frame::Alive { run, incarnation } => write!(f, "ALIVE {run:?} {}", incarnation.0),
            Frame::Suspect { run, incarnation, accusers } => {
                write!(f, "SUSPECT {run:?} {} by {}", incarnation.0, accusers.iter().count())
            }
            Frame::Dead { run, incarnation, age } => write!(f, "DEAD {run:?} {} age {age}s", incarnation.0),
            Frame::Left { run, incarnation, age } => write!(f, "LEFT {run:?} {} age {age}s", incarnation.0),
            Frame::State { run, base, to, reset, entries } => {
                let n = entries.iter::<StateEntry<'_>>().count();
                write!(f, "STATE {run:?} {}..{} {n} keys{}", base.0, to.0, if reset { " reset" } else { "" })
            }
            Frame::StateNews { run, version } => write!(f, "STATE_NEWS {run:?} {}", version.0),
            Frame::StatePull { run, have } => write!(f, "STATE_PULL {run:?} {}", have.0),
            Frame::Digest { sums } => write!(f, "DIGEST of {} buckets", sums.len() / 4),
            Frame::Summary { bits, bucket, entries } => {
                write!(f, "SUMMARY {bucket}/{} {} members", 1u32 << bits, entries.iter::<SummaryEntry>().count())
            }
            Frame::Want { runs } => write!(f, "WANT {}", runs.iter().count()),
            Frame::TablePull { cursor } => write!(f, "TABLE_PULL {cursor}"),
            Frame::TableNext { cursor } => write!(f, "TABLE_NEXT {cursor}"),
            Frame::Message { topic, data } => write!(f, "MESSAGE {topic:?} {} B", data.len()),
            Frame::Item(item) => write!(f, "{item}"),
            Frame::ItemAck { lane, session, upto, room } => {
                write!(f, "ITEM_ACK {} {session} upto {upto} room {room}", lane_name(lane))
            }
            Frame::OverlayJoin => write!(f, "OVERLAY_JOIN"),
            Frame::ForwardJoin { ttl, node } => write!(f, "FORWARD_JOIN {:?} ttl {ttl}", node.run),
            Frame::Neighbor { urgent, .. } => write!(f, "NEIGHBOR{}", if urgent { " urgent" } else { "" }),
            Frame::NeighborReply { accepted, .. } => {
                write!(f, "NEIGHBOR_REPLY {}", if accepted { "yes" } else { "no" })
            }
            Frame::Disconnect { instead: None } => write!(f, "DISCONNECT"),
            Frame::Disconnect { instead: Some(node) } => write!(f, "DISCONNECT instead {:?}", node.run),
            Frame::Shuffle { ttl, node, contacts } => {
                write!(f, "SHUFFLE of {:?} ttl {ttl} {} contacts", node.run, contacts.iter().count())
            }
            Frame::ShuffleReply { contacts } => write!(f, "SHUFFLE_REPLY {} contacts", contacts.iter().count()),
            Frame::Gossip(Gossip { origin, seq, hops, way, topic, data, after, terms, .. }) => {
                let how = [(way.repair, " repair"), (way.lot, " by lot")].map(|(is, how)| if is { how } else { "" });
                write!(f, "GOSSIP {origin:?} {seq} hops {hops}{} {topic:?} {} B", how.concat(), data.len())?;
                if after > 0 {
                    write!(f, " after {after}")?;
                }
                Terms::read(terms).map_or(Ok(()), |terms| write!(f, ", question {}", terms.id))
            }
            Frame::Ihave(Ihave { origin, first, last, hops, .. }) => {
                write!(f, "IHAVE {origin:?} {first}..{last} hops {hops}")
            }
            Frame::Graft(Graft { origin, grow, spans, .. }) => {
                write!(f, "GRAFT {origin:?}{}", if grow { " grow" } else { "" })?;
                spans.iter().try_for_each(|(first, last)| write!(f, " {first}..{last}"))
            }
            Frame::Prune { origin, own } => write!(f, "PRUNE {origin:?}{}", if own { " own" } else { "" }),
            Frame::Idontwant { origin, seq } => write!(f, "IDONTWANT {origin:?} {seq}"),
            Frame::Vector { ask, marks, .. } => {
                write!(f, "VECTOR of {}{}", marks.iter().count(), if ask { " ask" } else { "" })
            }
            Frame::Gone { origin, upto, before, .. } => {
                write!(f, "GONE {origin:?} up to {upto}{}", if before { " before" } else { "" })
            }
        }
    }
}

fn lane_name(lane: Lane) -> &'static str {
    match lane {
        Lane::Small => "small",
        Lane::Bulk => "bulk",
        Lane::Stream => "stream",
    }
}

impl fmt::Display for Item<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Item { kind, id, rest, topic, data, .. } = self;
        write!(f, "ITEM {} {} {}: ", lane_name(self.lane), self.session, self.seq)?;
        match *kind {
            ItemKind::MESSAGE => write!(f, "message")?,
            ItemKind::REQUEST => write!(f, "request {id}")?,
            ItemKind::REPLY => write!(f, "reply {id} status {}", self.status)?,
            ItemKind::ANSWER => write!(f, "answer {id} status {}", self.status)?,
            ItemKind::HEARD => write!(f, "heard {id}")?,
            ItemKind::RELAY => write!(f, "relay {id}")?,
            ItemKind(other) => match ItemKind::OF_STREAMS.iter().find(|(known, _)| known == kind) {
                Some((_, name)) => write!(f, "{name} {id} status {} at {}", self.status, self.after)?,
                None => write!(f, "kind {other}")?,
            },
        }
        write!(f, " {topic:?} {} B", data.len())?;
        if *rest > 0 { write!(f, ", {rest} B follow") } else { Ok(()) }
    }
}

impl fmt::Display for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} epoch {} inc {} at {}", self.name, self.run, self.epoch.0, self.incarnation.0, self.addr)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;
    use core::net::Ipv6Addr;

    use super::*;
    use crate::id::NAME_MAX;

    fn run(id: u64) -> RunId {
        RunId::new(id).unwrap()
    }

    fn encoded(frame: &Frame<'_>) -> Vec<u8> {
        let mut buf = Vec::new();
        frame.write(&mut buf);
        buf
    }

    fn decoded(bytes: &[u8]) -> Read<Vec<Frame<'_>>> {
        Ok(Frames::parse(bytes)?.collect())
    }

    /// A frame from its kind and body.
    fn raw(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut buf = alloc::vec![kind];
        Writer(&mut buf).bytes(body);
        buf
    }

    fn record(name: &str) -> Record<'_> {
        Record {
            name,
            run: run(7),
            epoch: Epoch(1),
            incarnation: Incarnation(2),
            addr: "10.0.0.1:99".parse().unwrap(),
            protocol: 1,
            app_version: 3,
            version: Version(4),
            age: 5,
            state: Entries(&[]),
        }
    }

    #[test]
    fn a_hello_pays_for_every_answer() {
        let far = SocketAddr::new(Ipv6Addr::from([0xff; 16]).into(), u16::MAX);
        let cookie = encoded(&Frame::Cookie { cookie: [0xff; COOKIE_LEN], observed: far }).len();
        for (name, number) in [("a", 0), (&*"n".repeat(NAME_MAX), u32::MAX)] {
            let epoch = Epoch(u64::from(number) << 30);
            let hello = encoded(&Frame::Hello { protocol: (number, number), app: (number, number), name, epoch }).len();
            assert!(cookie <= hello);
            for text in ["", &"x".repeat(1000), &"é".repeat(1000), &"字".repeat(1000)] {
                assert!(encoded(&Frame::Refused { reason: number, text }).len() <= hello, "{text:.9} for {name:.9}");
            }
        }
    }

    #[test]
    fn a_refusal_is_cut_between_characters() {
        for text in ["x", &"x".repeat(200), &"é".repeat(200), &"a字".repeat(200)] {
            let bytes = encoded(&Frame::Refused { reason: 1, text });
            let [Frame::Refused { text: read, .. }] = decoded(&bytes).unwrap()[..] else { panic!() };
            assert!(text.starts_with(read) && read.len() + 3 >= REFUSED_TEXT_MAX.min(text.len()), "{read}");
        }
    }

    #[test]
    fn kinds_that_are_not_known_are_skipped() {
        let (ping, nack) = (Frame::Ping { seq: 1, beat: 2, fingerprint: 3 }, Frame::Nack { seq: 4 });
        for kind in [0, 6, 7, 13, 30, 99, 255] {
            let packet = [encoded(&ping), raw(kind, b"of another age"), encoded(&nack)].concat();
            assert_eq!(decoded(&packet), Ok(alloc::vec![ping, nack]), "kind {kind}");
        }
    }

    /// An older node ends its frames sooner. What it does not say is zero.
    #[test]
    fn what_an_older_node_does_not_say_is_zero() {
        let id = run(9).get().to_le_bytes();
        let is = |kind, body: &[u8], frame| assert_eq!(decoded(&raw(kind, body)), Ok(alloc::vec![frame]));
        is(PING, &[5], Frame::Ping { seq: 5, beat: 0, fingerprint: 0 });
        is(ACK, &[5, 6], Frame::Ack { seq: 5, beat: 6, fingerprint: 0 });
        is(NACK, &[], Frame::Nack { seq: 0 });
        is(REFUSED, &[3], Frame::Refused { reason: 3, text: "" });
        is(HEARTBEATS, &[5], Frame::Heartbeats { idle: 5, fingerprint: 0, beats: Beats(&[]) });
        is(ALIVE, &id, Frame::Alive { run: run(9), incarnation: Incarnation(0) });
        is(SUSPECT, &id, Frame::Suspect { run: run(9), incarnation: Incarnation(0), accusers: Runs(&[]) });
        is(DEAD, &id, Frame::Dead { run: run(9), incarnation: Incarnation(0), age: 0 });
        is(STATE_NEWS, &id, Frame::StateNews { run: run(9), version: Version(0) });
        is(WANT, &[], Frame::Want { runs: Runs(&[]) });
        is(TABLE_PULL, &[], Frame::TablePull { cursor: 0 });
    }

    /// A newer node says more at the end: of a body, of a record, of an entry.
    #[test]
    fn what_a_newer_node_adds_is_ignored() {
        let mut state = Vec::new();
        Entries::push(&mut state, &StateEntry { key: "role", version: Version(4), value: Some(b"db") });
        let frame = Frame::Record(Record { state: Entries(&state), ..record("a") });
        let bytes = encoded(&frame);
        let mut body = Reader::new(&bytes[1..]);
        let inner = Reader::new(body.bytes().unwrap()).bytes().unwrap();

        let mut longer = Vec::new();
        Writer(&mut longer).prefixed(|w| w.0.extend_from_slice(&[inner, b"new in the record"].concat()));
        longer.extend_from_slice(b"new in the body");
        assert_eq!(decoded(&raw(RECORD, &longer)), Ok(alloc::vec![frame]));

        let mut entry = Vec::new();
        let content = Reader::new(&state).bytes().unwrap();
        Writer(&mut entry).bytes(&[content, b"new in the entry"].concat());
        let known = StateEntry { key: "role", version: Version(4), value: Some(b"db") };
        assert!(Entries(&entry).iter::<StateEntry<'_>>().eq([known]));
    }

    #[test]
    fn what_cannot_be_true_is_malformed() {
        let id = run(9).get().to_le_bytes();
        let (zero, accusers) = ([0u8; 8], [1u8; 8 * (ACCUSERS_MAX + 1)]);
        let mut too_many = [&id[..], &[0], &[accusers.len() as u8]].concat();
        too_many.extend_from_slice(&accusers);
        let mut far = id.to_vec();
        Writer(&mut far).varint(crate::id::COUNTER_MAX + 1);
        let malformed: &[(&str, Vec<u8>)] = &[
            ("a kind without a length", alloc::vec![PING]),
            ("a length without its bytes", alloc::vec![PING, 5, 1]),
            ("run zero", raw(ALIVE, &zero)),
            ("half a run", raw(ALIVE, &id[..4])),
            ("a counter that nobody reaches", raw(ALIVE, &far)),
            ("more accusers than count", raw(SUSPECT, &too_many)),
            ("a count of nobody", raw(HEARTBEATS, &[&[0][..], &[0; 8], &[9], &zero, &[1]].concat())),
            ("half a member that counts", raw(HEARTBEATS, &[&[0][..], &[0; 8], &[4], &id[..4]].concat())),
            ("nobody's name", encoded(&Frame::Record(record("")))),
            ("a name with a line in it", encoded(&Frame::Record(record("a\nb")))),
            ("a digest of no buckets", raw(DIGEST, &[1])),
            ("a digest of three", raw(DIGEST, &[&[1, 12][..], &[0; 12]].concat())),
            ("a digest of a bucket and a half", raw(DIGEST, &[&[1, 6][..], &[0; 6]].concat())),
            ("a bucket beyond the last", raw(SUMMARY, &[2, 4])),
            ("more buckets than there may be", raw(SUMMARY, &[BUCKET_BITS_MAX as u8 + 1, 0])),
            ("an address of family 5", raw(PING_REQ, &[&[1][..], &id, &[5, 0, 0, 0, 0, 1, 1]].concat())),
            ("port zero", raw(PING_REQ, &[&[1][..], &id, &[4, 10, 0, 0, 1, 0, 0]].concat())),
        ];
        for (what, bytes) in malformed {
            assert_eq!(decoded(bytes), Err(Malformed), "{what}");
        }
    }

    /// No frame of a malformed packet is ever acted on.
    #[test]
    fn a_packet_is_read_whole_or_not_at_all() {
        let packet = [encoded(&Frame::Nack { seq: 1 }), raw(ALIVE, &[1, 2, 3])].concat();
        assert!(Frames::parse(&packet).is_err());
        assert_eq!(decoded(&[]), Ok(Vec::new()));
        for room in 0..4 {
            let mut kept = alloc::vec![Frame::Nack { seq: 0 }; room];
            assert!(Frames::parse_into(&packet, &mut kept).is_err(), "room for {room}");
        }
    }

    #[test]
    fn frames_that_are_kept_and_those_that_are_read_again_are_the_packet() {
        let nacks: Vec<Frame<'_>> = (1..=5).map(|seq| Frame::Nack { seq }).collect();
        let packet = nacks.iter().flat_map(|nack| [raw(99, b"unknown"), encoded(nack)].concat()).collect::<Vec<u8>>();
        for room in 0..8 {
            let mut kept = alloc::vec![Frame::Nack { seq: 0 }; room];
            let (first, rest) = Frames::parse_into(&packet, &mut kept).unwrap();
            assert_eq!(first.len(), room.min(5));
            assert_eq!(first.iter().copied().chain(rest).collect::<Vec<_>>(), nacks, "room for {room}");
        }
    }
}
