//! One or more frames of every kind, small and extreme.
#![allow(dead_code)] // Each test uses a part.

use bruit_core::id::{COUNTER_MAX, Epoch, Incarnation, RunId, Version};
use bruit_core::wire::frame::{
    Beats, Contact, Contacts, Entries, Frame, Gossip, Graft, Ihave, Item, ItemKind, Lane, Marks, Record, Runs, Spans,
    StateEntry, SummaryEntry, Way,
};
use bruit_core::wire::question::{Terms, Texts};

/// What frames borrow.
pub struct Stock {
    pub runs: Vec<u8>,
    pub state: Vec<u8>,
    pub summary: Vec<u8>,
    pub sums: Vec<u8>,
    pub beats: Vec<u8>,
    pub contacts: Vec<u8>,
    pub spans: Vec<u8>,
    pub marks: Vec<u8>,
    pub terms: Vec<u8>,
    pub long_name: String,
}

pub fn run(id: u64) -> RunId {
    RunId::new(id).unwrap()
}

impl Stock {
    pub fn new() -> Stock {
        let (mut runs, mut state, mut summary, mut beats) = Default::default();
        let (mut contacts, mut spans, mut marks) = Default::default();
        for addr in ["10.0.0.1:18946", "[2001:db8::1]:65535"] {
            Contacts::push(&mut contacts, Contact { run: run(addr.len() as u64), addr: addr.parse().unwrap() });
        }
        for (first, last) in [(1, 1), (300, 300_000), (COUNTER_MAX - 1, COUNTER_MAX)] {
            Spans::push(&mut spans, first, last);
            Marks::push(&mut marks, run(last), last);
        }
        for id in [1, 0x0123_4567_89ab_cdef, u64::MAX] {
            Beats::push(&mut beats, run(id), id >> 2);
            Runs::push(&mut runs, run(id));
            let entry = SummaryEntry {
                run: run(id),
                epoch: Epoch(7),
                incarnation: Incarnation(id >> 2),
                version: Version(300),
            };
            Entries::push(&mut summary, &entry);
        }
        let long = [7; 200];
        for (key, version, value) in [("role", 1, Some(&b"db"[..])), ("gone", 300, None), ("long", 301, Some(&long))] {
            Entries::push(&mut state, &StateEntry { key, version: Version(version), value });
        }
        let (mut names, mut tags, mut terms) = Default::default();
        ["a", "b"].iter().for_each(|name| Texts::push(&mut names, name));
        ["db", "zone=eu"].iter().for_each(|tag| Texts::push(&mut tags, tag));
        Terms { id: 9, patience: 1_600, acks: true, relay: 3, names: Texts(&names), tags: Texts(&tags) }
            .write(&mut terms);
        let sums = [0u32, 1, 0xdead_beef, u32::MAX].iter().flat_map(|sum| sum.to_le_bytes()).collect();
        Stock { runs, state, summary, sums, beats, contacts, spans, marks, terms, long_name: "é".repeat(127) + "n" }
    }

    pub fn frames(&self) -> Vec<(&'static str, Frame<'_>)> {
        let (v4, v6) = ("10.0.0.1:18946".parse().unwrap(), "[2001:db8::1]:65535".parse().unwrap());
        let (id, most) = (run(0x0123_4567_89ab_cdef), COUNTER_MAX);
        let small = Record {
            name: "a",
            run: id,
            epoch: Epoch(1_700_000_000_000),
            incarnation: Incarnation(0),
            addr: v4,
            protocol: 1,
            app_version: 0,
            version: Version(0),
            age: 0,
            state: Entries(&[]),
        };
        let large = Record {
            name: &self.long_name,
            run: run(u64::MAX),
            epoch: Epoch(most),
            incarnation: Incarnation(most),
            addr: v6,
            protocol: u32::MAX,
            app_version: u32::MAX,
            version: Version(most),
            age: most,
            state: Entries(&self.state),
        };
        let item = Item {
            lane: Lane::Small,
            prompt: false,
            session: 1,
            seq: 7,
            behind: 2,
            kind: ItemKind::REQUEST,
            id: 9,
            status: 0,
            rest: 0,
            after: 0,
            topic: "chat",
            data: b"hello",
        };
        let part = Item {
            lane: Lane::Bulk,
            prompt: true,
            session: most,
            seq: most,
            behind: most,
            kind: ItemKind(u32::MAX),
            id: u64::MAX,
            status: u32::MAX,
            rest: u64::MAX,
            after: most,
            topic: "0123456789012345678901234567890123456789012345678901234567890123",
            data: &self.runs,
        };
        let data = Item {
            lane: Lane::Stream,
            prompt: false,
            session: 2,
            seq: 3,
            behind: 0,
            kind: ItemKind::STREAM_DATA,
            id: 5,
            status: 1,
            rest: 0,
            after: 70_000,
            topic: "",
            data: b"hello",
        };
        let fingerprint = 0x1122_3344_5566_7788;
        let (runs, entries) = (Runs(&self.runs), Entries(&self.state));
        vec![
            ("HELLO", Frame::Hello { protocol: (1, 1), app: (0, 0), name: "a", epoch: small.epoch }),
            (
                "HELLO longest",
                Frame::Hello {
                    protocol: (u32::MAX, u32::MAX),
                    app: (u32::MAX, u32::MAX),
                    name: &self.long_name,
                    epoch: Epoch(most),
                },
            ),
            ("COOKIE", Frame::Cookie { cookie: *b"0123456789abcdef", observed: v4 }),
            ("COOKIE v6", Frame::Cookie { cookie: [255; 16], observed: v6 }),
            ("REFUSED", Frame::Refused { reason: 3, text: "name in use: a" }),
            ("JOIN", Frame::Join { cookie: *b"0123456789abcdef", record: small, seeks: None }),
            ("JOIN partial", Frame::Join { cookie: *b"0123456789abcdef", record: small, seeks: Some(5) }),
            ("WELCOME", Frame::Welcome { known_epoch: Epoch(9), live: 300, fingerprint }),
            ("PING", Frame::Ping { seq: 1, beat: 1_000, fingerprint }),
            ("PING largest", Frame::Ping { seq: u64::MAX, beat: most, fingerprint: u64::MAX }),
            ("ACK", Frame::Ack { seq: 300, beat: 1_000, fingerprint }),
            ("PING_REQ", Frame::PingReq { seq: 2, target: id, addr: v4 }),
            ("NACK", Frame::Nack { seq: 2 }),
            ("HEARTBEATS", Frame::Heartbeats { idle: 0, fingerprint, beats: Beats(&self.beats) }),
            ("HEARTBEATS of nobody", Frame::Heartbeats { idle: most, fingerprint: 0, beats: Beats(&[]) }),
            ("RECORD", Frame::Record(small)),
            ("RECORD largest", Frame::Record(large)),
            ("ALIVE", Frame::Alive { run: id, incarnation: Incarnation(1) }),
            ("SUSPECT", Frame::Suspect { run: id, incarnation: Incarnation(1), accusers: runs }),
            ("SUSPECT by nobody", Frame::Suspect { run: id, incarnation: Incarnation(1), accusers: Runs(&[]) }),
            ("DEAD", Frame::Dead { run: id, incarnation: Incarnation(1), age: 3 }),
            ("LEFT", Frame::Left { run: id, incarnation: Incarnation(most), age: most }),
            ("STALLED", Frame::Stalled { run: id, left: 180 }),
            ("STATE", Frame::State { run: id, base: Version(1), to: Version(301), reset: false, entries }),
            (
                "STATE reset",
                Frame::State { run: id, base: Version(0), to: Version(2), reset: true, entries: Entries(&[]) },
            ),
            ("STATE_NEWS", Frame::StateNews { run: id, version: Version(2) }),
            ("STATE_PULL", Frame::StatePull { run: id, have: Version(1) }),
            ("DIGEST", Frame::Digest { sums: &self.sums }),
            ("DIGEST of one bucket", Frame::Digest { sums: &self.sums[..4] }),
            ("SUMMARY", Frame::Summary { bits: 2, bucket: 3, entries: Entries(&self.summary) }),
            ("WANT", Frame::Want { runs }),
            ("TABLE_PULL", Frame::TablePull { cursor: 300 }),
            ("TABLE_NEXT", Frame::TableNext { cursor: u32::MAX }),
            ("MESSAGE", Frame::Message { topic: "chat", data: b"hello" }),
            ("MESSAGE of nothing", Frame::Message { topic: "", data: b"" }),
            ("ITEM", Frame::Item(item)),
            ("ITEM largest", Frame::Item(part)),
            ("ITEM of a stream", Frame::Item(data)),
            ("ITEM_ACK", Frame::ItemAck { lane: Lane::Small, session: 1, upto: 8, room: 65_536 }),
            ("ITEM_ACK largest", Frame::ItemAck { lane: Lane::Bulk, session: most, upto: most, room: u64::MAX }),
            ("OVERLAY_JOIN", Frame::OverlayJoin),
            ("FORWARD_JOIN", Frame::ForwardJoin { ttl: 6, node: Contact { run: id, addr: v4 } }),
            ("NEIGHBOR", Frame::Neighbor { urgent: false, record: None }),
            ("NEIGHBOR urgent", Frame::Neighbor { urgent: true, record: Some(small) }),
            ("NEIGHBOR_REPLY", Frame::NeighborReply { accepted: true, record: None }),
            ("NEIGHBOR_REPLY with a record", Frame::NeighborReply { accepted: true, record: Some(small) }),
            ("DISCONNECT", Frame::Disconnect { instead: None }),
            ("DISCONNECT instead", Frame::Disconnect { instead: Some(Contact { run: id, addr: v4 }) }),
            (
                "SHUFFLE",
                Frame::Shuffle { ttl: 300, node: Contact { run: id, addr: v6 }, contacts: Contacts(&self.contacts) },
            ),
            ("SHUFFLE_REPLY", Frame::ShuffleReply { contacts: Contacts(&self.contacts) }),
            (
                "GOSSIP",
                Frame::Gossip(Gossip {
                    origin: id,
                    seq: 1,
                    hops: 1,
                    age: 0,
                    way: Way::default(),
                    topic: "",
                    data: b"hello",
                    after: 0,
                    terms: &[],
                    by: None,
                }),
            ),
            (
                "GOSSIP a question",
                Frame::Gossip(Gossip {
                    origin: id,
                    seq: 2,
                    hops: 1,
                    age: 0,
                    way: Way::default(),
                    topic: "load",
                    data: b"?",
                    after: 0,
                    terms: &self.terms,
                    by: None,
                }),
            ),
            (
                "GOSSIP largest",
                Frame::Gossip(Gossip {
                    origin: run(u64::MAX),
                    seq: most,
                    hops: u32::MAX,
                    age: u64::MAX,
                    way: Way { repair: true, own: true, lot: true },
                    topic: "a topic of some length",
                    data: &self.state,
                    after: 1,
                    terms: &self.terms,
                    by: Some((small.name, small.epoch)),
                }),
            ),
            ("IHAVE", Frame::Ihave(Ihave { origin: id, first: 1, last: 300, hops: 9, own: true })),
            (
                "GRAFT",
                Frame::Graft(Graft { origin: id, grow: true, own: false, here: 60_000, spans: Spans(&self.spans) }),
            ),
            ("GRAFT of nothing", Frame::Graft(Graft { origin: id, grow: true, own: true, here: 0, spans: Spans(&[]) })),
            ("PRUNE", Frame::Prune { origin: id, own: true }),
            ("IDONTWANT", Frame::Idontwant { origin: id, seq: 300 }),
            ("VECTOR", Frame::Vector { ask: true, neighbour: true, marks: Marks(&self.marks) }),
            ("VECTOR of nothing", Frame::Vector { ask: false, neighbour: false, marks: Marks(&[]) }),
            ("GONE", Frame::Gone { origin: id, upto: 300, before: false, age: 0 }),
            ("GONE before", Frame::Gone { origin: id, upto: most, before: true, age: 300_000 }),
        ]
    }
}

pub fn encoded(frame: &Frame<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.write(&mut bytes);
    bytes
}

/// Which kind of `KINDS`. A new kind does not compile until it is listed here, and so has samples.
pub fn kind(frame: &Frame<'_>) -> usize {
    match frame {
        Frame::Hello { .. } => 0,
        Frame::Cookie { .. } => 1,
        Frame::Refused { .. } => 2,
        Frame::Join { .. } => 3,
        Frame::Welcome { .. } => 4,
        Frame::Ping { .. } => 5,
        Frame::Ack { .. } => 6,
        Frame::PingReq { .. } => 7,
        Frame::Nack { .. } => 8,
        Frame::Record(_) => 9,
        Frame::Alive { .. } => 10,
        Frame::Suspect { .. } => 11,
        Frame::Dead { .. } => 12,
        Frame::Left { .. } => 13,
        Frame::State { .. } => 14,
        Frame::StateNews { .. } => 15,
        Frame::StatePull { .. } => 16,
        Frame::Digest { .. } => 17,
        Frame::Summary { .. } => 18,
        Frame::Want { .. } => 19,
        Frame::TablePull { .. } => 20,
        Frame::TableNext { .. } => 21,
        Frame::Heartbeats { .. } => 22,
        Frame::Message { .. } => 23,
        Frame::Item(_) => 24,
        Frame::ItemAck { .. } => 25,
        Frame::OverlayJoin => 26,
        Frame::ForwardJoin { .. } => 27,
        Frame::Neighbor { .. } => 28,
        Frame::NeighborReply { .. } => 29,
        Frame::Disconnect { .. } => 30,
        Frame::Shuffle { .. } => 31,
        Frame::ShuffleReply { .. } => 32,
        Frame::Gossip(_) => 33,
        Frame::Ihave(_) => 34,
        Frame::Graft(_) => 35,
        Frame::Prune { .. } => 36,
        Frame::Idontwant { .. } => 37,
        Frame::Vector { .. } => 38,
        Frame::Gone { .. } => 39,
        Frame::Stalled { .. } => 40,
    }
}

pub const KINDS: usize = 41;
