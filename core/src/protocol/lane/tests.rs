use alloc::format;
use alloc::string::String;
use alloc::vec;
use core::net::SocketAddr;

use super::*;
use crate::config::Config;
use crate::id::{Epoch, Incarnation, NodeName, Version};
use crate::members;
use crate::rng::Rng;
use crate::time::{Duration, Now, Wall};
use crate::view::MemberState;
use crate::wire::frame::{Entries, Frames, Record};

fn run(side: usize) -> RunId {
    RunId::new(side as u64 + 1).unwrap()
}

fn to(side: usize) -> Destination {
    let addr = SocketAddr::new([10, 0, 0, side as u8 + 1].into(), 7000);
    Destination { addr, run: Some(run(side)), via: Via::Datagram }
}

fn entry(side: usize) -> members::Entry {
    let name = format!("n{side}");
    let record = Record {
        name: &name,
        run: run(side),
        epoch: Epoch(1),
        incarnation: Incarnation(0),
        addr: to(side).addr,
        protocol: 1,
        app_version: 0,
        version: Version(0),
        age: 0,
        state: Entries(&[]),
    };
    members::entry(&record, NodeName::new(&name).unwrap(), MemberState::Alive, Instant::ZERO)
}

fn message(topic: &str, data: &[u8], receipt: Option<u64>) -> Letter {
    Letter { kind: ItemKind::MESSAGE, id: 0, status: 0, body: Body::new(topic, data).unwrap(), receipt }
}

/// Two members, and what is on its way between them.
struct Two {
    lanes: [Lanes; 2],
    members: [Members; 2],
    got: [Vec<Arrived>; 2],
    receipts: Vec<(u64, i32)>,
    /// (when, to whom, by what, frames), in no order.
    wire: Vec<(Instant, usize, Via, Vec<u8>)>,
    /// When the last bytes of the stream to each side arrive.
    stream: [Instant; 2],
    /// Of 100 datagrams.
    lost: u64,
    room: [u64; 2],
    fates: Vec<Fate>,
    sent_by: Vec<Via>,
    config: Config,
    rng: Rng,
    now: Instant,
}

impl Two {
    fn new(seed: u64) -> Two {
        let table = |side: usize| {
            let mut members = Members::new(entry(side), (1, 2), 10);
            members.insert(entry(1 - side)).unwrap();
            members
        };
        let config = Config::new();
        Two {
            lanes: [Lanes::default(), Lanes::default()],
            members: [table(0), table(1)],
            got: [vec![], vec![]],
            receipts: vec![],
            wire: vec![],
            stream: [Instant::ZERO; 2],
            lost: 0,
            room: [config.lane_window as u64; 2],
            fates: vec![],
            sent_by: vec![],
            config,
            rng: Rng::new(seed),
            now: Instant::from_nanos(1_000_000_000),
        }
    }

    fn at<T>(&mut self, side: usize, f: impl FnOnce(&mut Lanes, &mut Cx<'_>, &Members) -> T) -> T {
        let mut out = Outbox::new(1400);
        let now = Now { mono: self.now, wall: Wall(0) };
        let cx = &mut Cx { now, rng: &mut self.rng, config: &self.config, out: &mut out };
        let value = f(&mut self.lanes[side], cx, &self.members[side]);
        for packet in out.packets() {
            let (via, frames) = (packet.to.via, packet.frames().to_vec());
            self.sent_by.push(via);
            let delay = Duration::from_micros(100 + self.rng.below(20_000));
            if via == Via::Stream {
                self.stream[1 - side] = (self.now + delay).max(self.stream[1 - side] + Duration::from_nanos(1));
                self.wire.push((self.stream[1 - side], 1 - side, via, frames));
            } else if self.rng.below(100) >= self.lost {
                if self.rng.below(100) < self.lost {
                    self.wire.push((self.now + delay * 3, 1 - side, via, frames.clone()));
                }
                self.wire.push((self.now + delay, 1 - side, via, frames));
            }
        }
        self.receipts.extend(out.completions.into_iter().map(|completion| match completion {
            Completion::Received { id, status } => (id, status),
            other => panic!("{other:?}"),
        }));
        value
    }

    fn push(&mut self, side: usize, letter: Letter) -> bool {
        let room = self.room[side];
        self.at(side, |lanes, cx, _| lanes.push(cx, to(1 - side), letter, room))
    }

    /// The next thing that happens, unless it is later than `until`.
    fn step(&mut self, until: Instant) -> bool {
        let next = self.wire.iter().enumerate().min_by_key(|(_, w)| w.0).map(|(i, w)| (w.0, i));
        let timer = (0..2).filter_map(|side| self.lanes[side].deadline().map(|at| (at, side))).min();
        let at = [next.map(|n| n.0), timer.map(|t| t.0)].into_iter().flatten().min();
        let Some(at) = at.filter(|&at| at <= until) else {
            self.now = self.now.max(until);
            return false;
        };
        self.now = self.now.max(at);
        if let Some((_, i)) = next.filter(|n| n.0 == at) {
            let (_, side, via, frames) = self.wire.swap_remove(i);
            self.hear(side, via, &frames);
        } else if let Some((_, side)) = timer {
            let room = self.room[side];
            self.at(side, |lanes, cx, members| lanes.on_deadline(cx, members, room));
        }
        true
    }

    fn hear(&mut self, side: usize, via: Via, frames: &[u8]) {
        for frame in Frames::parse(frames).unwrap() {
            let (by, room) = (to(1 - side), self.room[side]);
            let mut arrived = core::mem::take(&mut self.got[side]);
            match frame {
                Frame::Item(item) => {
                    let fate = self.at(side, |l, cx, _| l.on_item(cx, run(1 - side), via, item, room, &mut arrived));
                    self.fates.push(fate);
                }
                Frame::ItemAck { lane, session, upto, room } => {
                    self.at(side, |l, cx, _| l.on_ack(cx, by, lane, session, upto, room));
                }
                other => panic!("{other}"),
            }
            self.got[side] = arrived;
            // What is due at once goes with this turn.
            self.at(side, |lanes, cx, members| lanes.on_deadline(cx, members, room));
        }
    }

    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.step(until) {}
    }

    /// The connection breaks, with all that is on it.
    fn sever(&mut self) {
        self.wire.retain(|w| w.2 != Via::Stream);
        for side in 0..2 {
            self.stream[side] = self.now;
            self.at(side, |lanes, cx, _| lanes.on_severed(cx, run(1 - side)));
        }
    }

    fn data(&self, side: usize) -> Vec<String> {
        self.got[side].iter().map(|a| String::from_utf8_lossy(a.body.data()).into_owned()).collect()
    }
}

const LONG: Duration = Duration::from_secs(600);

/// Whatever becomes of links and datagrams: each once, in the order of its topic, and whole.
#[test]
fn everything_arrives_once_and_in_the_order_of_its_topic() {
    for seed in 0..60 {
        let mut two = Two::new(seed);
        two.lost = [0, 30, 100][seed as usize % 3];
        let mut said: [BTreeMap<String, Vec<usize>>; 2] = Default::default();
        for i in 0..120u64 {
            let side = two.rng.index(2);
            let topic = format!("t{}", two.rng.below(3));
            let size = [0, 10, 300, 5_000, 20_000, 150_000][two.rng.index(6)];
            let mut data = vec![i as u8; size];
            data.extend_from_slice(&i.to_le_bytes());
            if two.push(side, message(&topic, &data, Some(i))) {
                said[side].entry(topic).or_default().push(i as usize);
            }
            let pause = Duration::from_micros(two.rng.below(8_000));
            two.run(pause);
            if two.rng.chance(1, 20) {
                two.sever();
            }
        }
        two.run(LONG);
        for (side, said) in said.iter().enumerate() {
            let mut heard: BTreeMap<String, Vec<usize>> = BTreeMap::new();
            for Arrived { body, .. } in &two.got[1 - side] {
                let (fill, number) = body.data().split_at(body.data().len() - 8);
                let i = u64::from_le_bytes(number.try_into().unwrap());
                assert!(fill.iter().all(|&b| b == i as u8));
                heard.entry(body.topic().into()).or_default().push(i as usize);
            }
            assert_eq!(heard, *said, "seed {seed}");
        }
        let mut receipts: Vec<u64> = two.receipts.iter().map(|r| r.0).collect();
        receipts.sort_unstable();
        let mut all: Vec<u64> = said.iter().flat_map(|s| s.values().flatten()).map(|&i| i as u64).collect();
        all.sort_unstable();
        assert_eq!(receipts, all, "one receipt for each");
        assert_eq!(two.lanes.each_ref().map(|l| l.deadline()), [None, None], "nothing is left to do");
        assert_eq!(two.lanes[0].waiting(run(1)), 0);
    }
}

/// Who was cut off for long is forgotten, and never knew: it goes on where it was.
#[test]
fn nothing_arrives_twice_or_in_pieces_where_one_forgets_the_other_now_and_then() {
    let mut lost = 0;
    for seed in 0..200 {
        let mut two = Two::new(seed);
        two.lost = [0, 30, 100][seed as usize % 3];
        for i in 0..60u64 {
            let size = [0, 10, 300, 20_000, 150_000][two.rng.index(5)];
            let mut data = vec![i as u8; size];
            data.extend_from_slice(&i.to_le_bytes());
            let topic = format!("t{}", two.rng.below(3));
            assert!(two.push(0, message(&topic, &data, Some(i))));
            let pause = Duration::from_micros(two.rng.below(8_000));
            two.run(pause);
            if two.rng.chance(1, 12) {
                two.lanes[1].forget(run(0));
            }
        }
        two.run(LONG);
        let mut heard: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for Arrived { body, .. } in &two.got[1] {
            let (fill, number) = body.data().split_at(body.data().len() - 8);
            let i = u64::from_le_bytes(number.try_into().unwrap());
            assert!(fill.iter().all(|&b| b == i as u8), "seed {seed}: {i} is broken");
            heard.entry(body.topic().into()).or_default().push(i);
        }
        assert!(heard.values().all(|numbers| numbers.is_sorted_by(|a, b| a < b)), "seed {seed}: {heard:?}");
        two.receipts.sort_unstable();
        assert_eq!(two.receipts.len(), 60, "seed {seed}: one receipt for each");
        for (i, &(id, status)) in two.receipts.iter().enumerate() {
            lost += u32::from(status != 0);
            let arrived = heard.values().any(|numbers| numbers.contains(&id));
            assert_eq!((id, arrived), (i as u64, status == 0), "seed {seed}: status {status}");
        }
    }
    assert_eq!(lost, 0, "nor is anything lost");
}

#[test]
fn one_small_message_goes_by_datagram_and_what_follows_it_takes_it_along() {
    let mut two = Two::new(1);
    two.lost = 100;
    assert!(two.push(0, message("", b"first", None)));
    assert_eq!(two.sent_by, [Via::Datagram]);
    assert!(two.push(0, message("", b"second", None)));
    assert_eq!(two.sent_by, [Via::Datagram, Via::Stream]);
    two.run(Duration::from_millis(90));
    assert_eq!(two.data(1), ["first", "second"], "long before anything is sent again for want of an answer");
}

#[test]
fn a_small_message_overtakes_a_large_one_of_another_topic_only() {
    let mut two = Two::new(1);
    two.push(0, message("a", &[7; 1 << 20], None));
    two.push(0, message("a", b"after the large one", None));
    two.push(0, message("b", b"small", None));
    two.run(LONG);
    let order: Vec<(&str, usize)> = two.got[1].iter().map(|a| (a.body.topic(), a.body.data().len())).collect();
    assert_eq!(order, [("b", 5), ("a", 1 << 20), ("a", 19)]);
}

#[test]
fn a_full_queue_refuses_and_an_empty_one_takes_anything() {
    let mut two = Two::new(1);
    two.config.send_queue = 100_000;
    assert!(two.push(0, message("", &[0; 300_000], None)));
    assert!(!two.push(0, message("", b"x", None)));
    assert!(two.push(0, message("another topic", b"x", None)), "beside it");
    two.run(LONG);
    assert!(two.push(0, message("", b"x", None)));
}

#[test]
fn nothing_is_sent_that_there_is_no_room_for() {
    let mut two = Two::new(1);
    two.room = [0; 2];
    for i in 0..200u32 {
        two.push(0, message("", &[i as u8; 1000], None));
    }
    two.run(Duration::from_secs(20));
    let before = two.got[1].len();
    assert!((1..120).contains(&before), "the first room, and then one at a time to ask for more: {before}");
    assert!(!two.fates.contains(&Fate::Refused));
    two.room = [two.config.lane_window as u64; 2];
    let room = two.room[1];
    two.at(1, |lanes, cx, _| lanes.on_room(cx, room));
    two.run(Duration::from_secs(2));
    assert_eq!(two.got[1].len(), 200, "as soon as it is told of room");
}

#[test]
fn what_is_larger_than_a_message_may_be_is_counted_through() {
    let mut two = Two::new(1);
    two.push(0, message("", &[0; 100_000], None));
    two.push(0, message("", b"next", None));
    two.config.max_message = 50_000;
    two.run(LONG);
    assert_eq!(two.data(1), ["next"]);
}

#[test]
fn who_is_gone_has_not_received() {
    let mut two = Two::new(1);
    two.push(0, message("", b"x", Some(5)));
    let mut out = Outbox::new(1400);
    two.lanes[0].fail(run(1), Code::Unreachable, &mut out);
    assert_eq!(out.completions, [Completion::Received { id: 5, status: Code::Unreachable as i32 }]);
    assert_eq!((two.lanes[0].deadline(), two.lanes[0].waiting(run(1))), (None, 0));
    // And what is sent when it is back is not taken for what it has had.
    two.wire.clear();
    two.push(0, message("", b"y", None));
    two.run(LONG);
    assert_eq!(two.data(1), ["y"]);
}

/// Seed 600044 of the swarm.
#[test]
fn what_was_under_way_to_who_was_held_for_dead_does_not_come_after_what_is_sent_next() {
    let mut two = Two::new(1);
    two.push(0, message("t", &vec![1; SMALL_MAX + 1], None));
    let late = core::mem::take(&mut two.wire);
    two.lanes[0].fail(run(1), Code::Unreachable, &mut Outbox::new(1400));
    two.push(0, message("t", b"next", None));
    two.run(LONG);
    two.wire = late;
    two.run(LONG);
    assert_eq!(two.data(1), ["next"]);
}

/// Seed 703537 of the swarm.
#[test]
fn an_old_acknowledgement_says_nothing() {
    let mut two = Two::new(1);
    for i in 0..3u8 {
        two.push(0, message("", &[b'a' + i], None));
        two.run(LONG);
    }
    two.room[1] = 0;
    two.push(0, message("", b"d", None));
    two.run(Duration::from_millis(60));
    assert_eq!(two.data(1), ["a", "b", "c", "d"]);
    two.wire.clear();
    for _ in 0..20 {
        let old = Frame::ItemAck { lane: Lane::Small, session: 1, upto: 1, room: 1 << 16 };
        let mut bytes = vec![];
        old.write(&mut bytes);
        two.hear(0, Via::Stream, &bytes);
        two.wire.clear();
        two.run(Duration::from_secs(5));
    }
    two.run(LONG);
    assert_eq!((two.data(1), two.lanes[0].waiting(run(1))), (["a", "b", "c", "d"].map(String::from).to_vec(), 0));
}

/// Nothing is left of what it knew, not even how far it had come.
#[test]
fn who_remembers_nothing_gets_what_was_under_way_whole() {
    let mut two = Two::new(1);
    two.push(0, message("a", b"small", None));
    two.run(LONG);
    two.push(0, message("b", &vec![b'x'; 10 * SMALL_MAX], Some(1)));
    two.push(0, message("c", &vec![b'y'; 2 * SMALL_MAX], Some(2)));
    while two.got[1].is_empty() || two.lanes[1].of[&run(0)].inbound[BULK].next < 5 {
        assert!(two.step(Instant::from_nanos(u64::MAX)));
    }
    two.lanes[1] = Lanes::default();
    two.run(LONG);
    assert_eq!(two.data(1), ["small".into(), "x".repeat(10 * SMALL_MAX), "y".repeat(2 * SMALL_MAX)]);
    assert_eq!(two.receipts, [(1, 0), (2, 0)]);
}

#[test]
fn who_has_forgotten_us_is_written_to_anew() {
    let mut two = Two::new(1);
    two.push(0, message("", b"x", None));
    two.run(LONG);
    two.lanes[1].forget(run(0));
    two.push(0, message("", b"y", None));
    two.run(LONG);
    assert_eq!(two.data(1), ["x", "y"]);
}
