//! What those who are no members can make us do: little, and never more than they paid for.

mod stage;

use bruit_core::config::Config;
use bruit_core::engine::{Inbound, Input};
use bruit_core::id::{Epoch, Incarnation};
use bruit_core::outbox::{Completion, Via};
use bruit_core::view::EventKind;
use bruit_core::wire::frame::{COOKIE_LEN, Entries, Frame, Record, Runs, StateEntry};
use stage::{Stage, addr, ms, name, record, run};

/// A number that no member has.
const STRANGER: u64 = 200;

fn encoded(frames: &[Frame<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frames.iter().for_each(|frame| frame.write(&mut bytes));
    bytes
}

fn hello(name: &str) -> Frame<'_> {
    Frame::Hello { protocol: (1, 1), app: (0, 0), name, epoch: Epoch(1) }
}

/// What the engine answers to a packet of a stranger, of which it knows nothing or who knows nothing of it.
fn answer(stage: &mut Stage, stranger: bool, packet: &[u8]) -> usize {
    stage.sent.clear();
    stage.hear_bytes(STRANGER, stranger, Via::Datagram, packet);
    stage.sent.iter().map(|sent| sent.bytes.len()).sum()
}

/// The cookie that `i` gets for its HELLO.
fn cookie(stage: &mut Stage, i: u64) -> [u8; COOKIE_LEN] {
    stage.sent.clear();
    stage.hear_bytes(i, true, Via::Datagram, &encoded(&[hello("x")]));
    let cookie = stage.sent[0].frames().find_map(|f| match f {
        Frame::Cookie { cookie, .. } => Some(cookie),
        _ => None,
    });
    cookie.expect("a cookie")
}

#[test]
fn a_hello_is_answered_with_no_more_than_it_brought() {
    let mut stage = Stage::among(20, Config::new());
    let packet = encoded(&[hello("x")]);
    let answered = answer(&mut stage, true, &packet);
    assert!(answered > 0 && answered <= packet.len());
    let foreign = Frame::Hello { protocol: (900, u32::MAX), app: (u32::MAX, u32::MAX), name: "x", epoch: Epoch(1) };
    let packet = encoded(&[foreign]);
    let answered = answer(&mut stage, true, &packet);
    assert!(answered > 0 && answered <= packet.len(), "also the refusal");
}

/// A HELLO without its padding has not paid for an answer.
#[test]
fn a_hello_that_is_too_short_is_not_answered_by_more() {
    let mut stage = Stage::among(3, Config::new());
    // Kind, length, versions, name, epoch: and no zeros after it.
    let short = [1, 7, 1, 1, 0, 0, 1, b'x', 1];
    assert!(answer(&mut stage, true, &short) <= short.len());
    let many = short.repeat(100);
    assert!(answer(&mut stage, true, &many) <= many.len());
}

/// Both sides: who is called says why not, and the caller gives up on it and says so.
#[test]
fn another_protocol_is_refused_with_the_reason_and_listed_nowhere() {
    let mut stage = Stage::among(3, Config::new());
    stage.sent.clear();
    let foreign = Frame::Hello { protocol: (7, 9), app: (0, 0), name: "x", epoch: Epoch(1) };
    stage.hear_bytes(STRANGER, true, Via::Datagram, &encoded(&[foreign]));
    let reason =
        |f: &Frame<'_>| matches!(f, Frame::Refused { reason: 1, text } if text.contains("7-9") && text.contains("1-1"));
    assert_eq!(stage.said(|to, f| to.addr == addr(STRANGER) && reason(f)), 1);
    assert_eq!(stage.engine.counters().joins_refused, 1);
    assert_eq!(stage.told(EventKind::Join, STRANGER), 0);

    let mut joiner = Stage::new(Config::new());
    joiner.call(|engine, now, out| engine.join(now, &[vec![addr(1)]], out)).unwrap();
    joiner.hear(1, &[Frame::Refused { reason: 1, text: "protocol 1-1, here 7-9" }]);
    joiner.silence(ms(30_000));
    let refused = |c: &Completion| matches!(c, Completion::Joined { answered: 0, refused: Some(text), .. } if text.contains("7-9"));
    assert!(joiner.completions.iter().any(refused), "{:?}", joiner.completions);
    assert!(joiner.state(1).is_none());
}

#[test]
fn a_hello_leaves_nothing_behind() {
    let mut stage = Stage::among(5, Config::new());
    let view = stage.call(|engine, _, _| engine.view_version());
    for i in 0..10_000 {
        stage.hear_bytes(STRANGER + i, true, Via::Datagram, &encoded(&[hello("x")]));
        stage.sent.clear();
    }
    assert_eq!(stage.call(|engine, _, _| engine.view_version()), view);
    assert!(stage.events.is_empty());
    stage.silence(ms(90));
    assert_eq!(stage.bytes_to(addr(STRANGER)), 0);
}

#[test]
fn a_packet_for_nobody_in_particular_may_only_say_hello() {
    let mut stage = Stage::among(5, Config::new());
    let name = name(STRANGER);
    let packets = [
        Frame::Ping { seq: 1, beat: 0, fingerprint: 0 },
        Frame::Record(record(STRANGER, &name)),
        Frame::Dead { run: run(2), incarnation: Incarnation(0), age: 0 },
        Frame::TablePull { cursor: 0 },
        Frame::Join { cookie: [0; COOKIE_LEN], record: record(STRANGER, &name), seeks: None },
    ];
    let before = stage.engine.counters().unexpected;
    assert_eq!(answer(&mut stage, true, &encoded(&packets)), 0);
    assert_eq!(stage.engine.counters().unexpected, before + packets.len() as u64);
    assert_eq!(stage.told(EventKind::Dead, 2) + stage.told(EventKind::Join, STRANGER), 0);
    // And a hello to us by name of our run is none.
    assert_eq!(answer(&mut stage, false, &encoded(&[hello("x")])), 0);
}

// ---- cookies

#[test]
fn with_its_cookie_a_stranger_gets_in() {
    let (mut stage, name) = (Stage::among(5, Config::new()), name(STRANGER));
    let cookie = cookie(&mut stage, STRANGER);
    stage.hear(STRANGER, &[Frame::Join { cookie, record: record(STRANGER, &name), seeks: None }]);
    assert_eq!(stage.told(EventKind::Join, STRANGER), 1);
    assert_eq!(stage.said(|to, f| to.run == Some(run(STRANGER)) && matches!(f, Frame::Welcome { .. })), 1);
}

#[test]
fn a_cookie_is_good_for_one_run_at_one_address_for_a_while() {
    let (mut stage, name) = (Stage::among(5, Config::new()), name(STRANGER));
    let cookie = cookie(&mut stage, STRANGER);
    let knock = |stage: &mut Stage, from: u64, by: u64, cookie, wait| {
        stage.now = stage.now + ms(wait);
        let bad = stage.engine.counters().cookies_bad;
        let frames = encoded(&[Frame::Join { cookie, record: record(STRANGER, &name), seeks: None }]);
        let packet = Inbound { from: addr(from), run: run(by), stranger: false, via: Via::Datagram, frames: &frames };
        stage.call(|engine, now, out| engine.handle(now, Input::Packet(packet), out));
        stage.engine.counters().cookies_bad - bad
    };
    let mut bent = cookie;
    bent[3] ^= 1;
    assert_eq!(knock(&mut stage, STRANGER, STRANGER, bent, 0), 1, "forged");
    assert_eq!(knock(&mut stage, STRANGER + 1, STRANGER, cookie, 0), 1, "from another address");
    assert_eq!(knock(&mut stage, STRANGER, STRANGER + 1, cookie, 0), 1, "of another run");
    let mut other = Stage::with_seed(Config::new(), 2);
    assert_eq!(knock(&mut other, STRANGER, STRANGER, cookie, 0), 1, "of another node");
    assert_eq!(knock(&mut stage, STRANGER, STRANGER, cookie, 25_000), 1, "after too long");
    assert_eq!(stage.told(EventKind::Join, STRANGER), 0);
}

#[test]
fn a_join_that_tells_of_somebody_else_is_refused() {
    let (mut stage, name) = (Stage::among(5, Config::new()), name(STRANGER + 1));
    let cookie = cookie(&mut stage, STRANGER);
    stage.hear(STRANGER, &[Frame::Join { cookie, record: record(STRANGER + 1, &name), seeks: None }]);
    assert_eq!((stage.engine.counters().cookies_bad, stage.told(EventKind::Join, STRANGER + 1)), (1, 0));
}

/// Its clock has gone back, and its WELCOME was lost: when it knocks again it is told its epoch all the same.
#[test]
fn a_joiner_behind_its_own_past_is_told_so_each_time_it_knocks() {
    let (mut stage, old) = (Stage::new(Config::new()), name(STRANGER));
    stage.hear(1, &[Frame::Record(Record { epoch: Epoch(50), ..record(1, &old) })]);
    stage.hear(2, &[Frame::Suspect { run: run(1), incarnation: Incarnation(0), accusers: Runs(&[]) }]);
    stage.silence(ms(1_000));
    stage.hear(2, &[Frame::Dead { run: run(1), incarnation: Incarnation(0), age: 0 }]);
    let cookie = cookie(&mut stage, STRANGER);
    for time in ["first", "second"] {
        stage.sent.clear();
        stage.hear(
            STRANGER,
            &[Frame::Join { cookie, record: Record { epoch: Epoch(9), ..record(STRANGER, &old) }, seeks: None }],
        );
        assert_eq!(stage.said(|_, f| matches!(f, Frame::Welcome { known_epoch: Epoch(50), .. })), 1, "the {time} time");
    }
}

// ---- those who have the key, and are no members

/// Nothing that a non-member sends makes us send it more: a packet's source address is only what it says it is.
#[test]
fn a_packet_from_a_non_member_gets_no_large_answer() {
    let (own, mut state, mut runs) = (name(STRANGER), Vec::new(), Vec::new());
    Entries::push(&mut state, &StateEntry { key: "k", version: bruit_core::id::Version(1), value: Some(&[7; 200]) });
    (1..=20).for_each(|i| Runs::push(&mut runs, run(i)));
    let (first, least) = (name(1), Epoch(0));
    let packets: &[(&str, Vec<Frame<'_>>)] = &[
        ("a ping", vec![Frame::Ping { seq: 1, beat: 1_000_000, fingerprint: 7 }]),
        ("many pings", vec![Frame::Ping { seq: 1, beat: 0, fingerprint: 0 }; 100]),
        ("a table pull", vec![Frame::TablePull { cursor: 0 }]),
        ("a want", vec![Frame::Want { runs: Runs(&runs) }]),
        ("a digest", vec![Frame::Digest { sums: &[0; 4] }]),
        ("a summary", vec![Frame::Summary { bits: 0, bucket: 0, entries: Entries(&[]) }]),
        ("a ping request", vec![Frame::PingReq { seq: 1, target: run(2), addr: addr(2) }]),
        ("a state pull", vec![Frame::StatePull { run: run(1), have: bruit_core::id::Version(0) }]),
        ("an older life of a member", vec![Frame::Record(Record { epoch: least, ..record(STRANGER, &first) })]),
        ("news of strangers", vec![Frame::Alive { run: run(STRANGER + 5), incarnation: Incarnation(1) }; 20]),
        ("its own record", vec![Frame::Record(record(STRANGER, &own))]),
    ];
    for (what, frames) in packets {
        let mut stage = Stage::among(20, Config::new());
        let own_state = Record { version: bruit_core::id::Version(1), state: Entries(&state), ..record(1, &first) };
        stage.hear(1, &[Frame::Record(own_state)]);
        stage.answering(ms(10_000), |_, _| true);
        no_more_than_it_brought(&mut stage, what, &encoded(frames));
    }
    // As short as a ping can be.
    no_more_than_it_brought(&mut Stage::among(20, Config::new()), "the shortest pings", &[8, 0].repeat(600));
}

fn no_more_than_it_brought(stage: &mut Stage, what: &str, packet: &[u8]) {
    stage.sent.clear();
    stage.hear_bytes(STRANGER, false, Via::Datagram, packet);
    let answered = stage.bytes_to(addr(STRANGER));
    let packets = stage.sent.iter().filter(|sent| sent.to.addr == addr(STRANGER)).count();
    // An envelope of 34 bytes is around each, and a question of 11 may follow.
    assert!(answered + 34 * packets <= packet.len() + 34 + 16, "{what}: {} bytes get {answered}", packet.len());
}

/// A restart at an address: the new run's first words to those who do not know it yet are questions, not members' talk.
#[test]
fn an_unknown_sender_is_asked_who_it_is() {
    let mut stage = Stage::among(3, Config::new());
    stage.hear(STRANGER, &[Frame::Ping { seq: 4, beat: 0, fingerprint: 0 }]);
    let to_it = |f: &Frame<'_>| matches!(f, Frame::Want { runs } if runs.iter().eq([run(STRANGER)]));
    assert_eq!(stage.said(|to, f| to.addr == addr(STRANGER) && to_it(f)), 1);
    assert_eq!(stage.engine.counters().unknown_sender, 1);
}
