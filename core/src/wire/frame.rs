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
//! | 21 | STALLED | it was not scheduled for a while: be patient with it | run (8 B) · for so many seconds |
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
//!
//! Here is what there is; how it is written and read is in `frame/`: `body` has the fields of each kind in their order, `list` what a
//! frame has many of, `kind` the numbers, and `line` how transcripts show it.

mod body;
mod kind;
mod line;
mod list;

use core::net::SocketAddr;

pub use self::body::Frames;
pub use self::kind::kind_name;
pub use self::list::{Beats, Contacts, Entries, Entry, Marks, Runs, Spans, StateEntry, SummaryEntry};
use crate::id::{Epoch, Incarnation, RunId, Version};

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
    Stalled {
        run: RunId,
        left: u64,
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
}

/// A node that others may speak to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contact {
    pub run: RunId,
    pub addr: SocketAddr,
}

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

#[cfg(test)]
mod tests;
