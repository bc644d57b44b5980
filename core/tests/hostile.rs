//! Packets that no engine would send. They are counted and cost their sender an answer; they cost us neither a
//! panic nor memory without a bound, and nothing that we say afterwards is unreadable.

mod samples;
mod stage;

use bruit_core::config::{Config, Detector};
use bruit_core::engine::{Inbound, Input};
use bruit_core::id::{COUNTER_MAX, Epoch, Incarnation, RunId, Version};
use bruit_core::outbox::Via;
use bruit_core::rng::Rng;
use bruit_core::time::Instant;
use bruit_core::view::EventKind;
use bruit_core::wire::envelope::{Envelope, HEADER, Limits};
use bruit_core::wire::frame::{Beats, Entries, Frame, Frames, Record, Runs};
use samples::{Stock, encoded};
use stage::{Stage, addr, ms, name, record, run};

const MEMBERS_MAX: usize = 64;

/// A frame that a member might send, about anybody, the engine included. Numbers are small, so that they meet.
fn plausible(rng: &mut Rng, bytes: &mut Vec<u8>) {
    let (i, small) = (rng.below(100), rng.below(6));
    let (run, incarnation, version) = (run(i), Incarnation(small), Version(rng.below(6)));
    let runs = run.get().to_le_bytes();
    let (own, other) = (name(i), name(rng.below(100)));
    let mut beats = Vec::new();
    Beats::push(&mut beats, run, rng.below(1 << 20));
    match rng.index(16) {
        0 | 1 => Frame::Record(Record { epoch: Epoch(small), incarnation, version, ..record(i, &own) }),
        2 => Frame::Record(Record { epoch: Epoch(small), age: 1 << small, ..record(i, &other) }),
        3 => Frame::Record(Record { epoch: Epoch(small), addr: addr(rng.below(3)), ..record(i, "me") }),
        4 | 5 => Frame::Alive { run, incarnation },
        6 => Frame::Suspect { run, incarnation, accusers: Runs(&runs) },
        7 => Frame::Dead { run, incarnation, age: small },
        8 if small == 0 => Frame::Left { run, incarnation, age: 0 },
        8 | 9 => Frame::Ping { seq: small, beat: rng.below(1 << 40), fingerprint: rng.next_u64() },
        10 => Frame::PingReq { seq: small, target: run, addr: addr(i) },
        11 => Frame::State { run, base: Version(small), to: version, reset: rng.chance(1, 2), entries: Entries(&[]) },
        12 => Frame::StateNews { run, version },
        13 => Frame::Heartbeats { idle: 1 << small, fingerprint: rng.next_u64(), beats: Beats(&beats) },
        14 => Frame::Stalled { run, left: 60 * small },
        _ => Frame::Want { runs: Runs(&runs) },
    }
    .write(bytes);
}

/// A random packet: noise, frames of which some bytes are changed, or frames that look as they should.
fn packet(rng: &mut Rng, samples: &[Vec<u8>], bytes: &mut Vec<u8>) {
    bytes.clear();
    if rng.chance(1, 8) {
        bytes.extend((0..rng.index(40)).map(|_| rng.next_u64() as u8));
        return;
    }
    for _ in 0..=rng.index(4) {
        if rng.chance(1, 4) {
            bytes.extend_from_slice(&samples[rng.index(samples.len())]);
        } else {
            plausible(rng, bytes);
        }
    }
    if rng.chance(1, 4) {
        let at = rng.index(bytes.len());
        bytes[at] = [rng.next_u64() as u8, 0, 1, 0x7f, 0x80, 0xff][rng.index(6)];
    }
}

fn bombard(seed: u64, packets: u32) {
    let mut config = Config::new();
    config.detector = if seed.is_multiple_of(2) { Detector::Swim } else { Detector::Phi };
    config.max_members = MEMBERS_MAX;
    let (mut stage, mut rng, mut bytes) = (Stage::among(10, config.clone()), Rng::new(seed), Vec::new());
    let mut malformed = 0;
    let stock = Stock::new();
    let samples: Vec<Vec<u8>> = stock.frames().iter().map(|(_, frame)| encoded(frame)).collect();
    for turn in 0..packets {
        packet(&mut rng, &samples, &mut bytes);
        let via = if rng.chance(1, 8) { Via::Stream } else { Via::Datagram };
        stage.hear_bytes(rng.below(100), rng.chance(1, 16), via, &bytes);
        if turn % 16 == 0 {
            stage.answering(ms(rng.below(40)), |i, _| i % 8 != 0);
        }
        if stage.engine.deadline(stage.now).is_none() {
            // Somebody of its name lives, and is ahead of it: it hears nothing any more.
            return;
        }
        if turn % 64 == 0 {
            for sent in stage.sent.drain(..) {
                Frames::parse(&sent.bytes).expect("the engine writes what it can read");
            }
            if stage.events.iter().any(|e| e.kind == EventKind::Conflict) {
                // It was talked out of its name, as a member's word can do. The next one takes its place.
                malformed += stage.engine.counters().malformed;
                stage = Stage::among(10, config.clone());
            }
            stage.events.clear();
            let view = stage.call(|engine, now, _| engine.view(now));
            assert!(view.members.len() <= MEMBERS_MAX);
        }
    }
    let counters = stage.engine.counters();
    assert!(malformed + counters.malformed > u64::from(packets) / 20, "{counters:?}");
    assert!(counters.rumors_waiting <= 3 * MEMBERS_MAX as u64);
}

/// Each seed by itself, a few of them at once.
fn on_threads(seeds: u64, each: fn(u64)) {
    const THREADS: u64 = 4;
    std::thread::scope(|scope| {
        for first in 0..THREADS {
            scope.spawn(move || (first..seeds).step_by(THREADS as usize).for_each(each));
        }
    });
}

#[test]
fn a_million_random_packets_never_panic_an_engine_nor_fill_its_memory() {
    on_threads(100, |seed| bombard(seed, 10_000));
}

#[test]
#[ignore = "minutes: for a soak"]
fn ten_million_random_packets_never_panic_an_engine() {
    on_threads(1_000, |seed| bombard(seed, 10_000));
}

/// Noise, and what a member sealed with some of it changed, before any frame is read.
fn bombard_envelope(seed: u64, datagrams: u32) {
    let limits = Limits { max_sessions: 64, derive_rate: 1_000 };
    let mut rng = Rng::new(seed);
    let keys: &[[u8; 32]] = if seed.is_multiple_of(2) { &[[7; 32], [8; 32]] } else { &[] };
    let of = |i: u64| Envelope::new("label", keys, run(i), [i as u8; 32], limits);
    let (theirs, ours) = (of(1), of(0));
    let (mut sessions, mut bytes, mut opened) = (ours.sessions(), Vec::new(), 0);
    for turn in 0..datagrams {
        bytes.clear();
        // Some twenty a millisecond: more strangers than `derive_rate` allows.
        let now = Instant::from_nanos(u64::from(turn) * 50_000);
        if rng.chance(1, 2) {
            bytes.extend((0..rng.index(64)).map(|_| rng.next_u64() as u8));
        } else {
            bytes.resize(HEADER, 0);
            Frame::Nack { seq: rng.next_u64() }.write(&mut bytes);
            theirs.seal(rng.chance(7, 8).then(|| run(0)), &mut bytes);
        }
        for _ in 0..rng.index(3).min(bytes.len()) {
            // In the header more often than not: that is what is looked at first.
            let most = if rng.chance(3, 4) { HEADER.min(bytes.len()) } else { bytes.len() };
            let at = rng.index(most);
            bytes[at] = [rng.next_u64() as u8, 0, 1, 0xff][rng.index(4)];
        }
        if rng.chance(1, 8) {
            bytes.truncate(rng.index(bytes.len() + 1));
        }
        if let Ok(read) = ours.open(&mut sessions, now, &mut bytes) {
            Frames::parse(read.frames).expect("nobody has changed what opens");
            opened += 1;
        }
        assert!(sessions.len() <= 64);
    }
    assert!(opened > datagrams / 20, "{opened} opened");
}

#[test]
fn a_million_random_datagrams_never_panic_an_envelope() {
    on_threads(20, |seed| bombard_envelope(seed, 50_000));
}

/// The engine can be read by its peers: what it sends to a member that pings it, and in its own pings.
fn still_speaks(stage: &mut Stage) {
    stage.sent.clear();
    stage.hear(1, &[Frame::Ping { seq: 7, beat: 0, fingerprint: 0 }]);
    stage.silence(ms(3_000));
    assert!(stage.said(|_, frame| matches!(frame, Frame::Ack { seq: 7, .. })) == 1);
    assert!(stage.said(|_, frame| matches!(frame, Frame::Ping { .. })) > 0);
}

/// The counters that peers raise together end at 2^62, and one more than that is refused by all. So nobody may be
/// talked into going there.
#[test]
fn nobody_can_be_talked_into_a_counter_that_others_refuse() {
    let most = Incarnation(COUNTER_MAX);
    for frame in [
        Frame::Ping { seq: 1, beat: COUNTER_MAX, fingerprint: 0 },
        Frame::Ack { seq: 1, beat: COUNTER_MAX, fingerprint: 0 },
        Frame::Alive { run: run(0), incarnation: most },
        Frame::Suspect { run: run(0), incarnation: most, accusers: Runs(&[]) },
        Frame::Dead { run: run(0), incarnation: most, age: 0 },
        Frame::Welcome { known_epoch: Epoch(COUNTER_MAX), live: 1, fingerprint: 0 },
        Frame::Record(Record { name: "me", epoch: Epoch(COUNTER_MAX), addr: addr(0), ..record(1, "") }),
    ] {
        let mut stage = Stage::among(3, Config::new());
        stage.hear(1, &[frame]);
        still_speaks(&mut stage);
    }
}

#[test]
fn a_flood_of_invented_members_ends_at_max_members() {
    let mut config = Config::new();
    config.max_members = MEMBERS_MAX;
    let mut stage = Stage::among(3, config);
    for i in 100..1_000 {
        stage.hear(1, &[Frame::Record(record(i, &name(i)))]);
    }
    let view = stage.call(|engine, now, _| engine.view(now));
    assert_eq!(view.members.len(), MEMBERS_MAX);
    assert_eq!(stage.engine.counters().members_full, 900 + 4 - MEMBERS_MAX as u64);
}

#[test]
fn one_packet_never_asks_for_more_packets_than_the_outbox_holds() {
    let mut stage = Stage::among(40, Config::new());
    let mut wants = Vec::new();
    for _ in 0..10_000 {
        Runs::push(&mut wants, run(5));
    }
    let (want, pull) = (encoded(&Frame::Want { runs: Runs(&wants) }), encoded(&Frame::TablePull { cursor: 0 }));
    let packet = [want.repeat(3), pull.repeat(300)].concat();
    let sent = Inbound { from: addr(1), run: run(1), stranger: false, via: Via::Stream, frames: &packet };
    stage.call(|engine, now, out| engine.handle(now, Input::Packet(sent), out));
    let most = bruit_core::outbox::PACKETS_MAX * bruit_core::wire::envelope::ENVELOPE_MAX;
    assert!(stage.bytes_to(addr(1)) < most);
}

#[test]
fn run_ids_of_nobody_are_answered_little_and_remembered_nowhere() {
    let mut stage = Stage::among(3, Config::new());
    for id in 0..1_000 {
        stage.hear(
            500 + id,
            &[Frame::Alive { run: RunId::new((1 << 40) + id + 1).unwrap(), incarnation: Incarnation(1) }],
        );
    }
    let view = stage.call(|engine, now, _| engine.view(now));
    assert_eq!(view.members.len(), 4);
    assert!(stage.sent.iter().all(|sent| sent.bytes.len() <= 16));
}
