//! What SWIM and Lifeguard say about finding the dead and sparing the living, one sentence a test. The probe's own
//! mechanics are tested beside it, in `protocol/probe.rs`.

#![cfg(feature = "sim")]

mod stage;

use std::collections::BTreeMap;

use bruit_core::config::{Config, ProbeOrder};
use bruit_core::id::{Incarnation, RunId};
use bruit_core::outbox::Via;
use bruit_core::sim::{Network, World};
use bruit_core::time::Duration;
use bruit_core::view::{EventKind, MemberState};
use bruit_core::wire::frame::{Frame, Runs};
use stage::{Stage, ms, run};

fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

fn formed(seed: u64, n: usize, config: &Config) -> (World, Vec<usize>) {
    let mut world = World::new(seed);
    let nodes = world.cluster(n, config);
    world.run_until(secs(20), |w| w.all_list(&nodes, n)).expect("they find each other");
    world.run_for(secs(3));
    (world, nodes)
}

fn suspect(i: u64, incarnation: u64, accusers: &[u8]) -> Frame<'_> {
    Frame::Suspect { run: run(i), incarnation: Incarnation(incarnation), accusers: Runs(accusers) }
}

fn id(i: u64) -> [u8; 8] {
    run(i).get().to_le_bytes()
}

/// When each PING by datagram was sent, in ms: by whom, to whose port.
fn pings(transcript: &[String]) -> Vec<(u64, String, String)> {
    let ping = |line: &String| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [at, _, by, _, port, "PING", ..] = words[..] else { return None };
        Some((at.parse().ok()?, by.to_owned(), port.to_owned()))
    };
    transcript.iter().filter_map(ping).collect()
}

// ---- probing

#[test]
fn in_a_quiet_cluster_each_member_is_pinged_once_a_period_at_the_same_time_of_it() {
    for n in [2, 7, 50] {
        let (mut world, nodes) = formed(n as u64, n, &Config::new());
        world.transcript = Some(Vec::new());
        world.run_for(secs(10));
        let (mut times, mut by): (BTreeMap<String, Vec<u64>>, BTreeMap<String, u64>) = Default::default();
        for (at, who, port) in pings(world.transcript.as_ref().unwrap()) {
            times.entry(port).or_default().push(at);
            *by.entry(who).or_default() += 1;
        }
        assert_eq!(times.len(), nodes.len());
        for (port, times) in &times {
            // They leave at sixteenths of a period.
            assert!(times.windows(2).all(|w| w[1].abs_diff(w[0] + 1000) <= 63), "{n} members, {port}: {times:?}");
        }
        assert!(by.values().all(|pings| (9..=11).contains(pings)), "and each pings once a period: {by:?}");
    }
}

/// Each member is pinged one period after the last time, so a crash waits for half a period on average, and one at worst.
#[test]
fn a_crash_meets_its_first_unanswered_ping_within_a_period() {
    let mut waits = Vec::new();
    for seed in 0..12 {
        let (mut world, nodes) = formed(seed, 16, &Config::new());
        world.transcript = Some(Vec::new());
        for victim in &nodes[1..11] {
            world.run_for(ms(37 * seed + 211));
            world.kill(*victim);
            let (died, port) = (world.now().mono.as_nanos() / 1_000_000, world.address(*victim).port().to_string());
            world.transcript.as_mut().unwrap().clear();
            world.run_for(ms(1_500));
            let pings = pings(world.transcript.as_ref().unwrap());
            let first = pings.iter().find(|(_, _, to)| *to == port).map(|(at, ..)| at - died);
            waits.push(first.expect("somebody pings it"));
            world.restart(*victim, None);
            world.run_until(secs(10), |w| w.all_list(&nodes, 16)).expect("it is back");
            world.run_for(secs(2));
        }
    }
    waits.sort_unstable();
    let mean = waits.iter().sum::<u64>() / waits.len() as u64;
    assert!(mean <= 600, "mean {mean} ms");
    assert!(waits[waits.len() * 99 / 100] <= 1_200, "{waits:?}");
}

/// SWIM §4.3, the other order.
#[test]
fn with_probe_order_robin_each_pings_everybody_within_two_n_less_one_periods() {
    let mut config = Config::new();
    config.probe_order = ProbeOrder::Robin;
    let n = 8;
    let (mut world, _) = formed(1, n, &config);
    world.transcript = Some(Vec::new());
    world.run_for(secs(90));
    let mut last: BTreeMap<(String, String), u64> = BTreeMap::new();
    let mut longest = 0;
    for (at, by, to) in pings(world.transcript.as_ref().unwrap()) {
        if let Some(before) = last.insert((by, to), at) {
            longest = longest.max(at - before);
        }
    }
    assert_eq!(last.len(), n * (n - 1));
    assert!(longest <= (2 * n as u64 - 1) * 1000 + 10, "{longest} ms");
}

#[test]
fn a_quiet_cluster_says_two_things_a_member_and_period() {
    for n in [10, 100] {
        let (mut world, _) = formed(3, n, &Config::new());
        world.run_for(secs(5));
        let before = world.traffic().all_packets();
        world.run_for(secs(60));
        let each = (world.traffic().all_packets() - before) as f64 / 60.0 / n as f64;
        assert!(each <= 2.05, "{n} members: {each:.3} packets a member and period");
    }
}

// ---- suspecting

#[test]
fn who_is_silent_is_suspected_and_then_dead() {
    let mut stage = Stage::among(5, Config::new());
    let mut periods = 0;
    while stage.told(EventKind::Suspect, 2) == 0 {
        stage.answering(secs(1), |i, _| i != 2);
        periods += 1;
        assert!(periods < 50, "its turn comes");
    }
    assert_eq!((stage.state(2), stage.told(EventKind::Dead, 2)), (Some(MemberState::Suspect), 0));
    stage.answering(secs(6), |i, _| i != 2);
    assert_eq!(stage.state(2), Some(MemberState::Dead));
    for i in [1, 3, 4, 5] {
        assert_eq!(stage.told(EventKind::Suspect, i), 0);
    }
    let told =
        |frame: &Frame<'_>| matches!(frame, Frame::Suspect { run: r, .. } | Frame::Dead { run: r, .. } if *r == run(2));
    assert!(stage.said(|to, frame| to.run != Some(run(2)) && told(frame)) > 5, "others are told");
}

#[test]
fn who_answers_by_stream_only_lives_and_a_warning_says_so() {
    let mut stage = Stage::among(5, Config::new());
    stage.answering(secs(30), |i, via| i != 2 || via == Via::Stream);
    assert_eq!(stage.told(EventKind::Suspect, 2), 0);
    assert!(stage.engine.counters().acks_by_stream > 0);
    assert!(stage.events.iter().any(|e| e.kind == EventKind::Warning));
}

/// Late is not dead: a suspect that answers late gets a ping with the suspicion on it, and so can refute.
#[test]
fn a_late_ack_blames_nobody_and_gets_the_suspicion_told() {
    let mut stage = Stage::among(5, Config::new());
    let (i, seq) = stage.next_ping();
    stage.answering(ms(2_500), |j, _| j != i);
    assert_eq!(stage.state(i), Some(MemberState::Suspect));
    stage.sent.clear();
    stage.hear(i, &[Frame::Ack { seq, beat: 0, fingerprint: 0 }]);
    let about = |frame: &Frame<'_>| matches!(frame, Frame::Suspect { run: r, .. } if *r == run(i));
    assert_eq!(stage.said(|to, frame| to.run == Some(run(i)) && matches!(frame, Frame::Ping { .. })), 1);
    assert_eq!(stage.said(|to, frame| to.run == Some(run(i)) && about(frame)), 1);
    stage.hear(i, &[Frame::Alive { run: run(i), incarnation: Incarnation(1) }]);
    assert_eq!(stage.state(i), Some(MemberState::Alive));
}

/// The answer to that ping is no reason for the next one: else the two would play ping-pong as fast as the network can.
#[test]
fn a_suspect_that_answers_and_does_not_refute_is_not_pinged_again_and_again() {
    let mut stage = Stage::among(5, Config::new());
    let (i, seq) = stage.next_ping();
    stage.answering(ms(2_500), |j, _| j != i);
    assert_eq!(stage.state(i), Some(MemberState::Suspect));
    stage.sent.clear();
    stage.hear(i, &[Frame::Ack { seq, beat: 0, fingerprint: 0 }]);
    for _ in 0..20 {
        let to_it = stage.sent.drain(..).filter(|sent| sent.to.run == Some(run(i))).collect::<Vec<_>>();
        for frame in to_it.iter().flat_map(|sent| sent.frames()) {
            if let Frame::Ping { seq, .. } = frame {
                stage.hear(i, &[Frame::Ack { seq, beat: 0, fingerprint: 0 }]);
            }
        }
    }
    assert!(stage.sent.is_empty(), "no end of it");
}

/// Answers to pings that were not probes (comparing notes, nudging, leaving) are not late.
#[test]
fn acks_late_counts_late_answers_only() {
    let mut stage = Stage::among(10, Config::new());
    stage.answering(secs(10), |_, _| true);
    stage.hear(3, &[Frame::Alive { run: run(4), incarnation: Incarnation(7) }]);
    stage.answering(secs(10), |_, _| true);
    assert_eq!(stage.engine.counters().acks_late, 0);
}

/// Lifeguard §IV-C.
#[test]
fn a_ping_to_a_suspect_carries_the_suspicion() {
    for buddy in [true, false] {
        let mut config = Config::new();
        (config.buddy, config.suspicion_probes) = (buddy, 0);
        (config.suspicion_mult.0, config.indirect_checks) = (20_000, 0);
        let mut stage = Stage::among(3, config);
        let accuser = id(1);
        stage.hear(1, &[suspect(2, 0, &accuser)]);
        // Until the rumor has been told often enough.
        stage.answering(secs(10), |_, _| true);
        stage.sent.clear();
        stage.answering(secs(20), |_, _| true);
        let to_it: Vec<_> =
            stage.sent.iter().filter(|s| s.to.run == Some(run(2)) && s.to.via == Via::Datagram).collect();
        let pinged = to_it.iter().filter(|s| s.frames().any(|f| matches!(f, Frame::Ping { .. })));
        let says = |f| matches!(f, Frame::Suspect { run: r, .. } if r == run(2));
        let carry: Vec<bool> = pinged.map(|s| s.frames().any(says)).collect();
        assert!(carry.len() >= 3 && carry.iter().all(|&carries| carries == buddy), "buddy {buddy}: {carry:?}");
    }
}

/// Lifeguard §IV-B: each independent accuser shortens the time, and is told on.
#[test]
fn confirmations_by_others_bring_death_sooner() {
    let mut ends = Vec::new();
    for accusers in [1, 2, 4] {
        let mut config = Config::new();
        config.suspicion_probes = 0;
        let mut stage = Stage::among(20, config);
        let began = stage.now;
        for by in 3..3 + accusers {
            stage.hear(by, &[suspect(2, 0, &id(by))]);
        }
        while stage.state(2) != Some(MemberState::Dead) {
            stage.answering(ms(10), |_, _| true);
            assert!(stage.now.since(began) < secs(20));
        }
        ends.push(stage.now.since(began).as_millis());
    }
    assert!(ends[0] > ends[1] && ends[1] > ends[2], "{ends:?}");
    assert!(ends[2].abs_diff(1_322) <= 20, "min = log10(21) periods: {ends:?}");
    assert!(ends[0].abs_diff(3 * 1_322) <= 20, "max = 3 · min: {ends:?}");
}

#[test]
fn those_whom_a_lot_chooses_look_at_once_when_they_hear_of_a_suspicion() {
    let mut looked = 0;
    for seed in 0..40 {
        let mut stage = Stage::among(20, Config::new());
        let target = 1 + seed % 20;
        stage.hear(21, &[suspect(target, seed, &id(21))]);
        looked += stage.said(|to, f| to.run == Some(run(target)) && matches!(f, Frame::Ping { .. }));
    }
    // suspicion_probes of live members: 4 of 21.
    assert!((2..=16).contains(&looked), "{looked} of 40");
}

#[test]
fn unreachable_brings_the_indirect_stage_forward_and_never_the_death() {
    let mut stage = Stage::among(5, Config::new());
    let (i, _) = stage.next_ping();
    stage.unreachable(i);
    stage.silence(Duration::ZERO);
    let asked = |stage: &Stage| stage.said(|_, f| matches!(f, Frame::PingReq { target, .. } if *target == run(i)));
    assert!(asked(&stage) > 0, "at once");
    for _ in 0..50 {
        stage.unreachable(i);
    }
    assert_eq!(stage.told(EventKind::Suspect, i), 0);
    stage.answering(ms(310), |j, _| j != i);
    assert_eq!(stage.state(i), Some(MemberState::Suspect), "when the others had their time");
    (0..50).for_each(|_| stage.unreachable(i));
    stage.answering(ms(900), |j, _| j != i);
    assert_eq!(stage.state(i), Some(MemberState::Suspect), "and the accused has all of its own");
}

/// Two have nobody to ask: without doubts (`protocol/doubt.rs`) one removes the other every twenty minutes or so of this.
#[test]
fn where_few_can_be_asked_who_answers_now_and_then_is_not_removed() {
    for (seed, n) in [(0, 2), (1, 2), (4, 2), (9, 2), (11, 3), (1, 4)] {
        let (mut world, nodes) = formed(seed, n, &Config::new());
        world.set_network(Network::lossy(0.3)).expect("a probability");
        world.run_for(secs(600));
        for (&i, &j) in nodes.iter().flat_map(|i| nodes.iter().map(move |j| (i, j))) {
            assert_eq!(
                world.count(i, EventKind::Dead, j),
                0,
                "seed {seed}: {} removed {}",
                world.name(i),
                world.name(j)
            );
        }
    }
}

/// A period until it is asked, 400 ms until nobody answered, and a suspicion of a second; 700 ms more until others have heard.
#[test]
fn the_doubt_among_few_does_not_delay_the_first_verdict() {
    for (n, worst) in [(2, 2_400), (3, 3_200), (4, 3_200)] {
        for seed in 0..10 {
            let (mut world, nodes) = formed(seed, n, &Config::new());
            world.run_for(ms(97 * seed));
            let (dead, others) = nodes.split_last().expect("there are some");
            world.power_off(*dead);
            let known = |w: &mut World, i: usize| w.state(i, *dead) == Some(MemberState::Dead);
            let first = world.run_until(secs(10), |w| others.iter().any(|&i| known(w, i))).expect("somebody says so");
            let rest = world.run_until(secs(10), |w| others.iter().all(|&i| known(w, i))).expect("and all hear it");
            assert!(first <= ms(2_500), "{n} members, seed {seed}: {first:?}");
            assert!(first + rest <= ms(worst), "{n} members, seed {seed}: {first:?} and {rest:?}");
        }
    }
}

// ---- refuting

/// SWIM §4.2.
#[test]
fn the_accused_refutes_by_a_higher_incarnation_and_doubts_itself() {
    let mut stage = Stage::among(5, Config::new());
    assert_eq!(stage.engine.health(), 0);
    stage.hear(1, &[suspect(0, 0, &id(1))]);
    stage.silence(ms(20));
    let refuted = |f: &Frame<'_>| matches!(f, Frame::Alive { run: r, incarnation: Incarnation(1) } if *r == run(0));
    assert!(stage.said(|_, f| refuted(f)) >= 3);
    assert_eq!((stage.engine.health(), stage.engine.counters().refutations), (1, 1));
    stage.hear(1, &[suspect(0, 0, &id(1))]);
    assert_eq!(stage.engine.counters().refutations, 1, "that one is refuted already");
    stage.hear(1, &[Frame::Dead { run: run(0), incarnation: Incarnation(9), age: 0 }]);
    stage.silence(ms(120));
    assert!(stage.said(|_, f| matches!(f, Frame::Alive { incarnation: Incarnation(10), .. })) > 0, "also the death");
}

/// A refutation is told a few times and then rests. Whoever missed it still says that we are suspect or dead, and must
/// hear it again: memberlist's issue 345 from the other side.
#[test]
fn an_accusation_that_was_refuted_before_is_answered_with_the_refutation() {
    for accusation in [suspect(0, 0, &id(1)), Frame::Dead { run: run(0), incarnation: Incarnation(0), age: 0 }] {
        let mut stage = Stage::among(5, Config::new());
        stage.hear(1, &[suspect(0, 0, &id(1))]);
        stage.answering(secs(20), |_, _| true);
        assert_eq!(stage.engine.counters().rumors_waiting, 0);
        stage.sent.clear();
        stage.hear(3, &[accusation]);
        stage.silence(ms(20));
        let to_it = stage.said(|to, f| {
            to.run == Some(run(3)) && matches!(f, Frame::Alive { run: r, incarnation: Incarnation(1) } if *r == run(0))
        });
        assert_eq!(to_it, 1, "{accusation}");
    }
}

/// SWIM §4.2: "only" its owner raises an incarnation; the same for epochs.
#[test]
fn nobody_is_ever_told_of_an_incarnation_that_its_owner_has_not_reached() {
    for seed in 0..6 {
        let (mut world, nodes) = formed(seed, 8, &Config::new());
        world.set_network(Network { duplicate: 0.1, ..Network::lossy(0.3) }).unwrap();
        world.pause(3);
        for turn in 0..200 {
            world.run_for(ms(100));
            if turn % 50 == 25 {
                world.resume(3);
            } else if turn % 50 == 49 {
                world.pause(3);
            }
            let own: Vec<_> = nodes.iter().map(|&i| world.view(i).local().clone()).collect();
            for &i in &nodes {
                for m in world.view(i).members.iter() {
                    let owner = own.iter().find(|o| o.run == m.run).expect("one of ours");
                    assert!(m.incarnation <= owner.incarnation && m.epoch <= owner.epoch, "seed {seed}: {m:?}");
                }
            }
        }
    }
}

// ---- our own fault

#[test]
fn a_node_that_stood_still_accuses_nobody() {
    for (seed, stalled) in [100, 700, 1_500, 5_000, 60_000].into_iter().enumerate() {
        for n in [2, 10] {
            let (mut world, nodes) = formed(seed as u64, n, &Config::new());
            for _ in 0..4 {
                world.pause(0);
                world.run_for(ms(stalled));
                world.resume(0);
                world.run_for(secs(8));
            }
            let blamed: usize = nodes.iter().map(|&i| world.count(0, EventKind::Suspect, i)).sum();
            assert_eq!(blamed, 0, "{n} members, {stalled} ms");
            assert!(world.all_list(&nodes, n), "{n} members, {stalled} ms");
        }
    }
}

#[test]
fn a_node_that_hears_nobody_doubts_itself_before_the_others_and_recovers() {
    let (mut world, nodes) = formed(5, 10, &Config::new());
    for &i in &nodes[1..] {
        world.cut(i, 0);
    }
    world.run_for(secs(6));
    assert!(world.engine(0).health() >= 3, "{}", world.engine(0).health());
    assert!((1..10).all(|i| world.engine(i).health() <= 1));
    world.heal();
    world.run_for(secs(150));
    assert_eq!(world.engine(0).health(), 0);
    assert!(world.all_list(&nodes, 10));
}

// ---- who may say what

#[test]
fn a_recorded_packet_does_no_harm_a_second_time() {
    let (mut world, nodes) = formed(7, 6, &Config::new());
    world.kill(nodes[5]);
    world.run_until(secs(10), |w| w.state(0, nodes[5]) == Some(MemberState::Dead)).expect("it is noticed");
    world.restart(nodes[5], None);
    world.run_until(secs(10), |w| w.all_list(&nodes, 6)).expect("it is back");
    let old: RunId = world.run_id(nodes[4]);
    let frames: Vec<Vec<u8>> = [
        Frame::Suspect { run: old, incarnation: Incarnation(0), accusers: Runs(&[]) },
        Frame::Ping { seq: 1, beat: 1, fingerprint: 1 },
        Frame::Ack { seq: 1, beat: 1, fingerprint: 1 },
        Frame::Nack { seq: 1 },
    ]
    .iter()
    .map(|frame| {
        let mut bytes = Vec::new();
        frame.write(&mut bytes);
        bytes
    })
    .collect();
    for _ in 0..50 {
        for packet in &frames {
            world.inject(nodes[1], nodes[2], packet);
        }
        world.run_for(ms(200));
    }
    world.run_for(secs(5));
    assert!(world.all_list(&nodes, 6));
    assert!(nodes.iter().all(|&i| world.count(i, EventKind::Dead, nodes[4]) == 0));
}

/// Their refutations could not be heard. In Lifeguard §V nearly all false verdicts come from those who are cut off.
#[test]
fn who_is_cut_off_for_long_declares_nobody_dead() {
    let (mut world, nodes) = formed(11, 20, &Config::new());
    world.block(nodes[7]);
    world.run_for(secs(30));
    world.resume(nodes[7]);
    world.run_for(secs(10));
    for &i in nodes.iter().filter(|&&i| i != nodes[7]) {
        assert!(
            nodes.iter().all(|&by| world.count(by, EventKind::Dead, i) == 0),
            "who could hear the others was right"
        );
    }
    assert!(world.all_list(&nodes, 20));
}
