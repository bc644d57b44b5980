//! How news, tables and metadata get around, and that they get everywhere.

#![cfg(feature = "sim")]

mod stage;

use bruit_core::config::Config;
use bruit_core::id::{Incarnation, RunId, Version};
use bruit_core::outbox::Via;
use bruit_core::rng::Rng;
use bruit_core::sim::World;
use bruit_core::time::Duration;
use bruit_core::view::EventKind;
use bruit_core::wire::frame::{Entries, Frame, Record, StateEntry};
use stage::{Stage, addr, ms, name, record, run};

fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

fn alive(i: u64, incarnation: u64) -> Frame<'static> {
    Frame::Alive { run: run(i), incarnation: Incarnation(incarnation) }
}

fn tells(frame: &Frame<'_>, about: RunId) -> bool {
    matches!(frame, Frame::Alive { run, .. } if *run == about)
}

// ---- rumors

/// Departure from SWIM §4.1, where news waits for a ping.
#[test]
fn news_leaves_within_a_flush_to_fanout_members_in_one_datagram_each() {
    let mut stage = Stage::among(30, Config::new());
    stage.silence(ms(100));
    stage.sent.clear();
    stage.hear(1, &[alive(2, 1), alive(3, 1), alive(4, 1), alive(9, 1)]);
    stage.silence(ms(10));
    let told: Vec<_> = stage.sent.iter().filter(|sent| sent.frames().any(|f| tells(&f, run(9)))).collect();
    assert_eq!(told.len(), 3, "gossip_fanout");
    let all = (2..=4).map(run);
    assert!(
        told.iter().all(|sent| all.clone().all(|r| sent.to.run == Some(r) || sent.frames().any(|f| tells(&f, r)))),
        "all of it in each, but for what the receiver knows of itself"
    );
    assert!((0..3).all(|i| told[i + 1..].iter().all(|other| other.to != told[i].to)), "different ones");
}

/// SWIM §4.1: λ·log n times, then it rests; hearing it again triggers nothing.
#[test]
fn news_is_told_lambda_log_n_times_and_hearing_it_again_changes_nothing() {
    for (n, times) in [(5, 4), (30, 8), (150, 12)] {
        let mut stage = Stage::among(n, Config::new());
        stage.hear(1, &[alive(2, 1)]);
        for _ in 0..20 {
            stage.answering(secs(1), |_, _| true);
            stage.hear(3, &[alive(2, 1)]);
        }
        assert_eq!(stage.said(|_, f| tells(f, run(2))), times, "{n} members");
    }
}

#[test]
fn gossip_never_takes_more_than_its_budget() {
    let mut config = Config::new();
    config.gossip_budget = 16 * 1024;
    let mut stage = Stage::among(100, config);
    let before = stage.sent.len();
    for turn in 1..=100 {
        let news: Vec<_> = (1..=100).map(|i| alive(i, turn)).collect();
        stage.hear(1, &news);
        stage.silence(ms(100));
    }
    let gossip = stage.sent[before..].iter().filter(|sent| sent.frames().all(|f| matches!(f, Frame::Alive { .. })));
    let bytes: usize = gossip.map(|sent| sent.bytes.len()).sum();
    assert!(bytes < 11 * 16 * 1024, "{bytes} bytes in ten seconds, and one second's worth saved up");
    assert!(stage.engine.counters().gossip_over_budget > 0);
}

#[test]
fn a_change_is_known_to_all_soon_and_told_once_to_each_application() {
    for (n, limit) in [(10, 110), (100, 500)] {
        let mut world = World::new(n as u64);
        let nodes = world.cluster(n, &Config::new());
        world.run_until(secs(20), |w| w.all_list(&nodes, n)).expect("they find each other");
        world.run_for(secs(5));
        world.call(nodes[1], |e, now, out| e.set_meta(now, &[("k", Some(b"v"))], out)).unwrap();
        let all = |w: &mut World| nodes.iter().all(|&i| w.view(i).find("n1").unwrap().has("k=v"));
        let took = world.run_until(secs(5), all).expect("all know");
        assert!(took <= ms(limit), "{n} members: {took:?}");
        world.run_for(secs(10));
        assert!(nodes.iter().all(|&i| i == nodes[1] || world.count(i, EventKind::Update, nodes[1]) == 1));
    }
}

// ---- tables

/// A newcomer and a cluster of 2,000 who all know the same: whomever it speaks to, one engine answers for it. Of 1,000
/// datagrams `loss` are lost, either way. How long until it knows everybody.
fn catch_up(loss: u64) -> Duration {
    const MEMBERS: u64 = 2_000;
    let mut rng = Rng::new(loss);
    let mut cluster = Stage::new(Config::new());
    (1..=MEMBERS).for_each(|i| cluster.hear(i, &[Frame::Record(record(i, &name(i)))]));
    let newcomer = MEMBERS + 1;
    let mut late = Stage::of(newcomer, "late", Config::new(), 2);
    let began = late.now;
    late.call(|e, now, out| e.join(now, &[vec![addr(0)]], out)).unwrap();
    while late.engine.counters().deaths == 0 && late.call(|e, now, _| e.view(now)).members.len() < 2_002 {
        for question in std::mem::take(&mut late.sent) {
            if question.to.via == Via::Datagram && rng.chance(loss, 1_000) {
                continue;
            }
            cluster.sent.clear();
            cluster.hear_bytes(newcomer, question.to.run.is_none(), question.to.via, &question.bytes);
            let speaker = question.to.run.map_or(0, |run| run.get() - 0x1000);
            for answer in cluster.sent.iter().filter(|sent| sent.to.addr == addr(newcomer)) {
                if answer.to.via == Via::Stream || !rng.chance(loss, 1_000) {
                    late.hear_bytes(speaker, false, answer.to.via, &answer.bytes);
                }
            }
        }
        late.silence(ms(1));
        cluster.now = late.now;
        assert!(late.now.since(began) < secs(60), "{}", late.call(|e, now, _| e.view(now)).members.len());
    }
    assert_eq!(late.engine.counters().deaths, 0);
    late.now.since(began)
}

#[test]
fn a_newcomer_gets_a_table_of_two_thousand_whatever_is_lost_on_the_way() {
    for (loss, limit) in [(0, ms(100)), (100, secs(3)), (300, secs(8))] {
        let took = catch_up(loss);
        assert!(took <= limit, "{loss} of 1000 lost: {took:?}");
    }
}

#[test]
fn a_part_of_the_table_is_bounded_and_says_where_to_go_on() {
    let mut stage = Stage::among(600, Config::new());
    let (mut cursor, mut records, mut parts) = (0, 0, 0);
    loop {
        stage.sent.clear();
        stage.hear(1, &[Frame::TablePull { cursor }]);
        parts += 1;
        records += stage.said(|to, f| to.run == Some(run(1)) && matches!(f, Frame::Record(_)));
        let answer: Vec<_> = stage.sent.iter().filter(|sent| sent.to.run == Some(run(1))).collect();
        assert!(answer.len() <= 10, "sync_packets, nearly: {}", answer.len());
        let next = answer.last().unwrap().frames().find_map(|f| match f {
            Frame::TableNext { cursor } => Some(cursor),
            _ => None,
        });
        cursor = next.expect("at the end of the part");
        if cursor == 0 {
            break;
        }
    }
    assert!(parts > 2);
    assert_eq!(records, 600, "ourselves and all others but the asker");
}

#[test]
fn what_rumors_missed_is_found_by_comparing_notes() {
    let mut world = World::new(4);
    let nodes = world.cluster(20, &Config::new());
    world.run_until(secs(20), |w| w.all_list(&nodes, 20)).expect("they find each other");
    world.run_for(secs(5));
    // Cut off from everybody while the news goes round, and for too short to be noticed much.
    world.part(&nodes[19..], &nodes[..19]);
    world.call(nodes[1], |e, now, out| e.set_meta(now, &[("k", Some(b"v"))], out)).unwrap();
    world.run_for(ms(900));
    world.heal();
    let took = world.run_until(secs(20), |w| w.view(nodes[19]).find("n1").unwrap().has("k=v")).expect("it is mended");
    assert!(took <= secs(4), "{took:?}");
}

// ---- metadata

fn entry(key: &str, version: u64, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    Entries::push(&mut bytes, &StateEntry { key, version: Version(version), value: Some(value) });
    bytes
}

#[test]
fn a_delta_with_a_gap_before_it_is_pulled_from_the_teller() {
    let mut stage = Stage::among(5, Config::new());
    let (first, third) = (entry("a", 1, b"1"), entry("c", 3, b"3"));
    stage.hear(
        2,
        &[Frame::State { run: run(2), base: Version(0), to: Version(1), reset: true, entries: Entries(&first) }],
    );
    stage.sent.clear();
    let news = Frame::State { run: run(2), base: Version(2), to: Version(3), reset: false, entries: Entries(&third) };
    stage.hear(4, &[news]);
    let pull = Frame::StatePull { run: run(2), have: Version(1) };
    assert_eq!(stage.said(|to, f| to.run == Some(run(4)) && *f == pull), 1);
    stage.hear(5, &[news]);
    assert_eq!(stage.said(|_, f| *f == pull), 1, "one pull at a time");

    let missing = [entry("b", 2, b"2"), third.clone()].concat();
    stage.hear(
        4,
        &[Frame::State { run: run(2), base: Version(1), to: Version(3), reset: false, entries: Entries(&missing) }],
    );
    let view = stage.call(|e, now, _| e.view(now));
    let member = view.find(&name(2)).unwrap();
    assert!(["a=1", "b=2", "c=3"].iter().all(|tag| member.has(tag)), "{:?}", member.meta);
}

#[test]
fn a_pull_that_is_not_answered_is_made_again() {
    let mut stage = Stage::among(5, Config::new());
    let news = Frame::StateNews { run: run(2), version: Version(9) };
    let pull = Frame::StatePull { run: run(2), have: Version(0) };
    let mut pulls = 0;
    for i in [1, 3, 4, 5] {
        stage.hear(i, &[news]);
        stage.answering(ms(1_000), |_, _| true);
        pulls = stage.said(|_, f| *f == pull);
    }
    assert!(pulls >= 4, "{pulls}");
}

#[test]
fn a_pull_is_answered_with_what_is_missing_and_no_more() {
    let mut stage = Stage::among(5, Config::new());
    for (key, value) in [("a", b"1"), ("b", b"2"), ("c", b"3")] {
        stage.call(|e, now, out| e.set_meta(now, &[(key, Some(value))], out)).unwrap();
    }
    for (have, missing) in [(0, 3), (1, 2), (2, 1)] {
        stage.sent.clear();
        stage.hear(1, &[Frame::StatePull { run: run(0), have: Version(have) }]);
        let answered = stage.sent.iter().flat_map(|sent| sent.frames()).find_map(|f| match f {
            Frame::State { to: Version(3), entries, base, .. } if base == Version(have) => {
                Some(entries.iter::<StateEntry<'_>>().count())
            }
            _ => None,
        });
        assert_eq!(answered, Some(missing), "from version {have}");
    }
    stage.sent.clear();
    stage.hear(1, &[Frame::StatePull { run: run(0), have: Version(3) }]);
    assert_eq!(stage.said(|_, f| matches!(f, Frame::State { .. })), 0, "nothing is missing");
}

#[test]
fn what_is_too_large_for_a_rumor_is_announced_and_pulled_by_stream() {
    let mut stage = Stage::among(5, Config::new());
    stage.call(|e, now, out| e.set_meta(now, &[("blob", Some(&[7; 40_000]))], out)).unwrap();
    stage.answering(secs(2), |_, _| true);
    assert!(stage.said(|_, f| matches!(f, Frame::StateNews { version: Version(1), .. })) > 0);
    assert!(stage.sent.iter().all(|sent| sent.bytes.len() < 1_400));
    stage.sent.clear();
    stage.hear(1, &[Frame::StatePull { run: run(0), have: Version(0) }]);
    let answer = stage.sent.iter().find(|sent| sent.bytes.len() > 40_000).expect("the whole state");
    assert_eq!((answer.to.via, answer.to.run), (Via::Stream, Some(run(1))));
}

#[test]
fn metadata_of_an_introduction_is_there_when_the_join_is_reported() {
    let (mut stage, state, own) = (Stage::among(3, Config::new()), entry("role", 1, b"db"), name(9));
    stage.hear(1, &[Frame::Record(Record { version: Version(1), state: Entries(&state), ..record(9, &own) })]);
    let join = stage.events.iter().find(|e| e.kind == EventKind::Join).expect("it is reported");
    assert!(join.member.as_ref().unwrap().has("role=db"));
    assert_eq!(stage.events.len(), 1, "and there is no update to tell of");
}

/// Who was introduced without metadata has an UPDATE coming, also where a whole record brings the first of it.
#[test]
fn the_first_metadata_of_a_member_that_is_listed_is_an_update() {
    let mut stage = Stage::among(3, Config::new());
    let (name, entries) = (name(2), entry("role", 1, b"db"));
    let told = Record { version: Version(1), state: Entries(&entries), ..record(2, &name) };
    stage.hear(2, &[Frame::Record(told)]);
    assert_eq!(stage.told(EventKind::Update, 2), 1);
    let now = stage.now();
    assert!(stage.engine.view(now).find(&name).is_some_and(|m| m.meta.get("role").is_some()));
}
