use alloc::vec::Vec;
use core::net::Ipv6Addr;

use super::super::cursor::{Malformed, Read, Reader, Writer};
use super::kind::*;
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
    let mut beyond = Vec::new();
    Spans::push(&mut beyond, crate::id::COUNTER_MAX, crate::id::COUNTER_MAX + 1);
    let graft = Graft { origin: run(9), grow: false, own: false, here: 0, spans: Spans(&beyond) };
    let malformed: &[(&str, Vec<u8>)] = &[
        ("a kind without a length", alloc::vec![PING]),
        ("a length without its bytes", alloc::vec![PING, 5, 1]),
        ("run zero", raw(ALIVE, &zero)),
        ("half a run", raw(ALIVE, &id[..4])),
        ("a counter that nobody reaches", raw(ALIVE, &far)),
        ("a span that ends beyond them", encoded(&Frame::Graft(graft))),
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
