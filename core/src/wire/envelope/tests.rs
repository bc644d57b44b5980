extern crate std;

use alloc::vec;

use proptest::prelude::*;

use super::*;
use crate::rng::Rng;
use crate::time::{Duration, Now, Wall};

const KEY: [u8; 32] = [3; 32];
const OLD_KEY: [u8; 32] = [4; 32];
const LIMITS: Limits = Limits { max_sessions: 8, derive_rate: 1000 };
const T0: Instant = Instant::from_nanos(1_000_000_000);

struct Node {
    envelope: Envelope,
    sessions: Sessions,
}

impl Node {
    fn of(label: &str, keys: &[[u8; 32]], id: u64, limits: Limits) -> Node {
        let envelope = Envelope::new(label, keys, run(id), [9; 32], limits);
        let sessions = envelope.sessions();
        Node { envelope, sessions }
    }

    fn new(id: u64) -> Node {
        Node::of("test", &[KEY], id, LIMITS)
    }

    fn plain(id: u64) -> Node {
        Node::of("test", &[], id, LIMITS)
    }

    fn seal(&self, to: u64, frames: &[u8]) -> Vec<u8> {
        let mut buf = room(frames);
        self.envelope.seal(RunId::new(to), &mut buf);
        buf
    }

    fn seal_record(&self, to: u64, frames: &[u8]) -> Vec<u8> {
        let mut buf = room(frames);
        self.envelope.seal_record(RunId::new(to), &mut buf);
        buf
    }

    fn open_at(&mut self, now: Instant, packet: &[u8]) -> Result<(RunId, bool, Vec<u8>), Reject> {
        let mut bytes = packet.to_vec();
        self.envelope.open(&mut self.sessions, now, &mut bytes).map(|o| (o.from, o.stranger, o.frames.to_vec()))
    }

    fn open(&mut self, packet: &[u8]) -> Result<(RunId, bool, Vec<u8>), Reject> {
        self.open_at(T0, packet)
    }
}

fn run(id: u64) -> RunId {
    RunId::new(id).unwrap()
}

fn room(frames: &[u8]) -> Vec<u8> {
    [&[0; HEADER], frames].concat()
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

/// The bytes were computed apart from this code, with Python's `cryptography` (ChaCha20Poly1305, HKDFExpand), `hmac`
/// and `zlib.crc32`, from the table atop `envelope.rs`.
#[test]
fn the_bytes_are_those_of_the_table() {
    let key: [u8; 32] = core::array::from_fn(|i| i as u8);
    let (me, to) = (0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210);
    let keyed = Node::of("golden", &[key], me, LIMITS);
    let datagram = "0100278defcdab89674523010100000000008c1b783d6b9201c47409790bb7e1ee75abb6029caa";
    let record = "0104278defcdab8967452301010000000000a63550c0a62f605ea8aa771b1b31ae17655732615a";
    let to_stranger = "0101278defcdab89674523010200000000006a762309df0702bc283b91d0ca5897c432a8bf32f8";
    assert_eq!(keyed.seal(to, b"bruit"), hex(datagram));
    assert_eq!(keyed.seal_record(to, b"bruit"), hex(record));
    assert_eq!(keyed.seal(0, b"bruit"), hex(to_stranger));

    let plain = Node::of("golden", &[], me, LIMITS);
    let in_clear = "01020000efcdab89674523010100000000006272756974929ac01c000000000000000000000000";
    assert_eq!(plain.seal(to, b"bruit"), hex(in_clear));

    let now = Now { mono: T0 + Duration::from_secs(38), wall: Wall(0) };
    let cookie = CookieJar::new([7; 32]).cookie(now, "192.0.2.1:18946".parse().unwrap(), run(me));
    assert_eq!(cookie[..], hex("836e1eeb2bdb7371f28ef9922a588b4e"));
}

#[test]
fn what_is_sealed_for_a_run_opens_there_and_names_its_sender() {
    let (a, mut b) = (Node::new(1), Node::new(2));
    assert_eq!(b.open(&a.seal(2, b"news")), Ok((run(1), false, b"news".to_vec())));
    assert_eq!(b.open(&a.seal_record(2, b"more")), Ok((run(1), false, b"more".to_vec())));
    assert_eq!(b.open(&a.seal(2, b"")), Ok((run(1), false, vec![])));
    assert_eq!(b.sessions.len(), 1);
}

#[test]
fn frames_are_not_readable_in_a_sealed_packet() {
    let packet = Node::new(1).seal(2, b"top secret frames");
    assert!(!packet.windows(4).any(|w| b"top secret frames".windows(4).any(|v| v == w)));
}

#[test]
fn sealing_into_reserved_room_does_not_reallocate() {
    let node = Node::new(1);
    let mut buf = Vec::with_capacity(OVERHEAD + 5);
    buf.extend_from_slice(&room(b"bruit"));
    let place = buf.as_ptr();
    node.envelope.seal(Some(run(2)), &mut buf);
    assert_eq!((buf.as_ptr(), buf.len()), (place, OVERHEAD + 5));
}

#[test]
fn every_flipped_bit_is_refused() {
    for (a, mut b) in [(Node::new(1), Node::new(2)), (Node::plain(1), Node::plain(2))] {
        for packet in [a.seal(2, b"frames"), a.seal(0, b"frames"), a.seal_record(2, b"frames")] {
            for bit in 0..packet.len() * 8 {
                let mut bent = packet.clone();
                bent[bit / 8] ^= 1 << (bit % 8);
                assert!(b.open(&bent).is_err(), "bit {bit}");
            }
            assert!(b.sessions.len() <= 1);
            b.open(&packet).unwrap();
        }
    }
}

#[test]
fn every_truncation_and_every_extension_is_refused() {
    for (a, mut b) in [(Node::new(1), Node::new(2)), (Node::plain(1), Node::plain(2))] {
        let packet = a.seal(2, b"some frames");
        for len in 0..packet.len() {
            let refused = b.open(&packet[..len]).unwrap_err();
            assert_eq!(refused == Reject::Short, len < OVERHEAD, "{len}");
        }
        assert!(b.open(&[&packet[..], &[0]].concat()).is_err());
        b.open(&packet).unwrap();
    }
}

#[test]
fn a_refused_packet_tells_nothing() {
    let (a, mut b) = (Node::new(1), Node::new(2));
    let mut packet = a.seal(3, b"for somebody else");
    let before = packet.clone();
    assert_eq!(b.envelope.open(&mut b.sessions, T0, &mut packet), Err(Reject::Tag));
    let frames = HEADER..packet.len() - TAG;
    assert!(packet[frames.clone()] == before[frames.clone()] || packet[frames].iter().all(|&byte| byte == 0));
}

#[test]
fn a_recorded_packet_is_worthless_at_the_same_node_at_another_and_after_a_restart() {
    for (keys, wrong) in [(&[KEY][..], Reject::Tag), (&[], Reject::Checksum)] {
        let [a, mut b, mut other, mut restarted] = [1, 2, 3, 4].map(|id| Node::of("test", keys, id, LIMITS));
        for packet in [a.seal(2, b"once"), a.seal_record(2, b"once")] {
            b.open(&packet).unwrap();
            assert_eq!(b.open(&packet), Err(Reject::Replay));
            assert_eq!(other.open(&packet), Err(wrong));
            assert_eq!(restarted.open(&packet), Err(wrong));
        }
    }
}

#[test]
fn another_label_is_refused() {
    let mut b = Node::of("blue", &[KEY], 2, LIMITS);
    assert_eq!(b.open(&Node::of("green", &[KEY], 1, LIMITS).seal(2, b"x")), Err(Reject::Key));
    let mut b = Node::of("blue", &[], 2, LIMITS);
    assert_eq!(b.open(&Node::of("green", &[], 1, LIMITS).seal(2, b"x")), Err(Reject::Checksum));
    assert!(b.sessions.is_empty());
}

#[test]
fn a_key_that_shares_its_id_with_ours_is_refused_by_the_tag() {
    let mut b = Node::new(2);
    let mut packet = Node::of("test", &[OLD_KEY], 1, LIMITS).seal(2, b"x");
    let Suite::Keyed { keys, .. } = &b.envelope.suite else { unreachable!() };
    packet[2..4].copy_from_slice(&keys[0].id.to_le_bytes());
    assert_eq!(b.open(&packet), Err(Reject::Tag));
    assert!(b.sessions.is_empty());
}

#[test]
fn keys_that_share_an_id_are_both_tried() {
    let mut b = Node::of("test", &[OLD_KEY, KEY], 2, LIMITS);
    let Suite::Keyed { keys, .. } = &mut b.envelope.suite else { unreachable!() };
    keys[0].id = keys[1].id;
    let a = Node::new(1);
    b.open(&a.seal(2, b"x")).unwrap();
    b.open(&a.seal(2, b"y")).unwrap();
    assert_eq!(b.sessions.len(), 1);
}

#[test]
fn the_first_key_seals_and_all_open() {
    let (old, mut both) = (Node::of("test", &[OLD_KEY], 1, LIMITS), Node::of("test", &[KEY, OLD_KEY], 2, LIMITS));
    let mut new = Node::new(3);
    both.open(&old.seal(2, b"under the old key")).unwrap();
    new.open(&both.seal(3, b"under the new key")).unwrap();
    assert_eq!(new.open(&old.seal(3, b"x")), Err(Reject::Key));
}

#[test]
fn plain_and_keyed_nodes_refuse_each_other() {
    assert_eq!(Node::new(2).open(&Node::plain(1).seal(2, b"x")), Err(Reject::Mode));
    assert_eq!(Node::plain(2).open(&Node::new(1).seal(2, b"x")), Err(Reject::Mode));
}

#[test]
fn a_packet_of_our_own_is_refused() {
    let mut a = Node::new(1);
    assert_eq!(a.open(&a.seal(1, b"x")), Err(Reject::Loopback));
    assert_eq!(a.open(&a.seal(0, b"x")), Err(Reject::Loopback));
}

#[test]
fn foreign_versions_unknown_flags_and_run_zero_are_named() {
    let (a, mut b) = (Node::new(1), Node::new(2));
    for (at, value, refused) in [(0, 2, Reject::Version), (1, 8, Reject::Flags), (4, 0, Reject::Session)] {
        let mut packet = a.seal(2, b"x");
        packet[at] = value;
        assert_eq!(b.open(&packet), Err(refused));
    }
}

#[test]
fn packets_to_strangers_open_no_session_and_may_come_twice() {
    for (a, mut b) in [(Node::new(1), Node::new(2)), (Node::plain(1), Node::plain(2))] {
        let hello = a.seal(0, b"hello");
        for _ in 0..2 {
            assert_eq!(b.open(&hello), Ok((run(1), true, b"hello".to_vec())));
            assert!(b.sessions.is_empty());
        }
    }
}

#[test]
fn reordering_within_the_window_is_accepted_and_beyond_it_refused() {
    let (a, mut b) = (Node::new(1), Node::new(2));
    let datagrams: Vec<_> = (0..257).map(|_| a.seal(2, b"d")).collect();
    let records: Vec<_> = (0..129).map(|_| a.seal_record(2, b"r")).collect();
    for packets in [datagrams, records] {
        let (oldest, within) = packets.split_first().unwrap();
        for packet in within.iter().rev() {
            b.open(packet).unwrap();
        }
        assert_eq!(b.open(oldest), Err(Reject::Replay));
        assert!(within.iter().all(|packet| b.open(packet) == Err(Reject::Replay)));
    }
}

#[test]
fn datagrams_that_overtake_a_record_do_not_push_it_out_of_the_window() {
    let (a, mut b) = (Node::new(1), Node::new(2));
    let slow = a.seal_record(2, b"was waiting for a connect");
    for _ in 0..1000 {
        b.open(&a.seal(2, b"d")).unwrap();
    }
    b.open(&slow).unwrap();
}

#[test]
fn derivations_for_strangers_are_capped_a_second_and_known_senders_go_on() {
    let mut b = Node::of("test", &[KEY], 2, Limits { derive_rate: 5, ..LIMITS });
    let known = Node::new(1);
    b.open(&known.seal(2, b"x")).unwrap();
    let forged = |id| {
        let mut packet = known.seal(2, b"x");
        packet[4..12].copy_from_slice(&u64::to_le_bytes(id));
        packet
    };
    let mut refused: Vec<_> = (100..110).map(|id| b.open(&forged(id)).unwrap_err()).collect();
    assert_eq!(refused.split_off(4), [Reject::DeriveLimit; 6]);
    assert_eq!(refused, [Reject::Tag; 4]);
    b.open(&known.seal(2, b"y")).unwrap();

    let late = Node::new(3).seal(2, b"z");
    assert_eq!(b.open_at(T0 + Duration::from_millis(199), &late), Err(Reject::DeriveLimit));
    b.open_at(T0 + Duration::from_millis(200), &late).unwrap();
    assert_eq!(b.sessions.len(), 2);
}

#[test]
fn a_flood_of_invented_ids_does_not_keep_a_member_out() {
    let mut b = Node::of("test", &[KEY], 2, Limits { derive_rate: 5, ..LIMITS });
    for id in 100..110 {
        let _ = b.open(&Node::new(id).seal(3, b"not for us"));
    }
    b.sessions.set_member(run(1), true);
    b.open(&Node::new(1).seal(2, b"x")).unwrap();
    assert_eq!(b.open(&Node::new(4).seal(2, b"x")), Err(Reject::DeriveLimit));
}

#[test]
fn eviction_takes_the_least_recently_used_and_never_a_member() {
    let mut b = Node::of("test", &[KEY], 99, Limits { max_sessions: 3, ..LIMITS });
    b.sessions.set_member(run(1), true);
    let nodes: Vec<_> = (1..=5).map(Node::new).collect();
    let packets: Vec<_> = nodes.iter().map(|node| node.seal(99, b"x")).collect();
    for packet in &packets[..4] {
        b.open(packet).unwrap();
    }
    b.open(&nodes[1].seal(99, b"2 is used again, so 3 is the oldest")).unwrap();
    b.open(&packets[4]).unwrap();
    assert_eq!(b.sessions.len(), 4);
    let kept = [1, 2, 3, 4, 5].map(|id| b.sessions.find(run(id), 0).is_some());
    assert_eq!(kept, [true, true, false, true, true]);
    assert_eq!(b.open(&packets[0]), Err(Reject::Replay));
}

#[test]
fn a_forgotten_member_keeps_its_window_until_room_is_needed_and_then_goes_first() {
    let mut b = Node::of("test", &[KEY], 99, Limits { max_sessions: 2, ..LIMITS });
    b.sessions.set_member(run(1), true);
    let packets: Vec<_> = (1..=3).map(|id| Node::new(id).seal(99, b"x")).collect();
    b.open(&packets[1]).unwrap();
    b.open(&packets[0]).unwrap();
    b.sessions.forget(run(1));
    assert_eq!(b.open(&packets[0]), Err(Reject::Replay));
    b.open(&packets[2]).unwrap();
    assert!(b.sessions.find(run(1), 0).is_none());
    assert!(b.sessions.find(run(2), 0).is_some());
}

#[test]
fn a_run_falls_silent_before_its_counter_repeats() {
    let (a, mut b) = (Node::new(1), Node::new(2));
    a.envelope.counters[0].store(COUNTER_END - 1, Ordering::Relaxed);
    b.open(&a.seal(2, b"the last")).unwrap();
    assert!(a.seal(2, b"one more").is_empty());
    assert!(a.seal(2, b"and another").is_empty());
    b.open(&a.seal_record(2, b"the other lane goes on")).unwrap();
}

#[test]
fn threads_never_share_a_counter() {
    let node = Node::new(1);
    let seal = || (0..1000).map(|_| node.seal(2, b"")[12..18].to_vec()).collect::<Vec<_>>();
    let mut counters = std::thread::scope(|scope| {
        let other = scope.spawn(seal);
        [seal(), other.join().unwrap()].concat()
    });
    counters.sort();
    counters.dedup();
    assert_eq!(counters.len(), 2000);
}

#[test]
fn random_datagrams_are_refused_without_harm() {
    let mut rng = Rng::new(7);
    let limits = Limits { derive_rate: usize::MAX, ..LIMITS };
    for keys in [&[KEY][..], &[]] {
        let (a, mut b) = (Node::of("test", keys, 1, limits), Node::of("test", keys, 2, limits));
        let sample = a.seal(2, &[0; 40]);
        for _ in 0..50_000 {
            let mut bytes: Vec<u8> = (0..rng.index(100)).map(|_| rng.next_u64() as u8).collect();
            // Half of them get far: a good header, or a part of it.
            let copied = rng.index(2 * HEADER).min(bytes.len());
            bytes[..copied].copy_from_slice(&sample[..copied]);
            assert!(b.open(&bytes).is_err());
        }
        assert!(b.sessions.is_empty());
    }
}

#[test]
fn reasons_are_indexed_by_their_own_number_and_named_apart() {
    for (i, reject) in Reject::ALL.iter().enumerate() {
        assert_eq!(*reject as usize, i);
        assert!(Reject::ALL[..i].iter().all(|other| other.name() != reject.name()));
    }
}

proptest! {
    #[test]
    fn whatever_is_sealed_opens(
        label in ".{0,40}",
        key: Option<[u8; 32]>,
        from in 1..u64::MAX / 2,
        to in u64::MAX / 2..,
        frames in proptest::collection::vec(any::<u8>(), 0..3000),
        record: bool,
        stranger: bool,
    ) {
        let keys = Vec::from_iter(key);
        let a = Node::of(&label, &keys, from, LIMITS);
        let mut b = Node::of(&label, &keys, to, LIMITS);
        let receiver = if stranger { 0 } else { to };
        let packet = if record { a.seal_record(receiver, &frames) } else { a.seal(receiver, &frames) };
        prop_assert_eq!(packet.len(), frames.len() + OVERHEAD);
        prop_assert_eq!(b.open(&packet), Ok((run(from), stranger, frames)));
    }
}
