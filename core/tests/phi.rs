//! `detector = phi`: whole clusters that find their dead by heartbeats, in the simulated world; and one engine on a stage.

#![cfg(feature = "sim")]

mod stage;

use bruit_core::config::{Config, Detector, Milli, PhiModel};
use bruit_core::id::{Incarnation, RunId};
use bruit_core::outbox::{Destination, Via};
use bruit_core::sim::{Network, World};
use bruit_core::time::Duration;
use bruit_core::view::{EventKind, MemberState};
use bruit_core::wire::frame::{Beats, Frame, Runs};
use stage::{Stage, ms, run};

fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

fn phi() -> Config {
    let mut config = Config::new();
    config.detector = Detector::Phi;
    config
}

fn formed(seed: u64, n: usize, config: &Config) -> (World, Vec<usize>) {
    let mut world = World::new(seed);
    let nodes = world.cluster(n, config);
    world.run_until(secs(20), |w| w.all_list(&nodes, n)).expect("they find each other");
    // Until what was assumed has made room for what was seen.
    world.run_for(secs(30));
    (world, nodes)
}

/// When all of `nodes` hold `of` for dead.
fn dead_for_all(world: &mut World, nodes: &[usize], of: usize, limit: Duration) -> Option<Duration> {
    world.run_until(limit, |w| nodes.iter().all(|&i| w.state(i, of) == Some(MemberState::Dead)))
}

fn told(world: &World, nodes: &[usize], kind: EventKind) -> usize {
    nodes.iter().map(|&i| nodes.iter().map(|&of| world.count(i, kind, of)).sum::<usize>()).sum()
}

// ---- scenario 19

/// "Contacts every 1 s, threshold 8, then silence: dead between 8 and 30 s."
#[test]
fn who_falls_silent_is_dead_between_8_and_30_seconds_later() {
    for (seed, n) in [2, 3, 5, 20, 100].into_iter().enumerate() {
        let (mut world, nodes) = formed(seed as u64, n, &phi());
        let (victim, rest) = (nodes[n - 1], &nodes[..n - 1]);
        world.kill(victim);
        assert!(world.run_until(secs(8), |w| w.state(0, victim) == Some(MemberState::Dead)).is_none(), "{n} members");
        dead_for_all(&mut world, rest, victim, secs(22)).unwrap_or_else(|| panic!("{n} members"));
        for &i in rest {
            assert_eq!((world.count(i, EventKind::Suspect, victim), world.count(i, EventKind::Dead, victim)), (1, 1));
        }
        assert_eq!(told(&world, rest, EventKind::Suspect), 0, "{n} members: nobody else");
    }
}

/// "Below threshold again: live event."
#[test]
fn who_is_heard_again_is_alive_again() {
    for (n, until) in [2, 5].into_iter().flat_map(|n| [(n, MemberState::Suspect), (n, MemberState::Dead)]) {
        let (mut world, nodes) = formed(n as u64, n, &phi());
        let (victim, rest) = (nodes[n - 1], &nodes[..n - 1]);
        world.pause(victim);
        let so_for_all = |w: &mut World| rest.iter().all(|&i| w.state(i, victim) == Some(until));
        world.run_until(secs(30), so_for_all).expect("it is missed");
        world.resume(victim);
        world.run_until(secs(5), |w| w.all_list(&nodes, n)).expect("it refutes");
        assert!(rest.iter().all(|&i| world.count(i, EventKind::Alive, victim) == 1), "{n} members, {until:?}");
        let dead = rest.iter().map(|&i| world.count(i, EventKind::Dead, victim)).sum::<usize>();
        assert_eq!(dead, if until == MemberState::Dead { n - 1 } else { 0 });
        assert_eq!(told(&world, &[victim], EventKind::Suspect), 0, "and blames nobody for its own absence");
    }
}

/// "After a 1 h outage and 5 min of normal contact, silence is detected within 30 s again."
#[test]
fn after_an_hour_of_outage_the_detector_is_as_quick_as_before() {
    for n in [2, 6] {
        let mut config = phi();
        config.forget_dead = secs(3 * 3600);
        let (mut world, nodes) = formed(n as u64, n, &config);
        let (victim, rest) = (nodes[n - 1], &nodes[..n - 1]);
        world.part(rest, &[victim]);
        dead_for_all(&mut world, rest, victim, secs(40)).expect("an outage is noticed");
        world.run_for(secs(3600));
        world.heal();
        world.run_until(secs(90), |w| w.all_list(&nodes, n)).expect("they are together again");
        world.run_for(secs(300));
        world.kill(victim);
        dead_for_all(&mut world, rest, victim, secs(30)).expect("within 30 s");
    }
}

/// "A peer known only by hearsay and unreachable is declared dead."
#[test]
fn who_was_only_told_of_dies_as_well() {
    let (mut world, nodes) = formed(1, 4, &phi());
    // It joins by the first, and is gone before anybody else has heard it.
    let mut config = phi();
    config.seeds = vec![world.address(0).to_string()];
    let ghost = world.add("ghost", config);
    world.cut(ghost, nodes[1]);
    world.cut(ghost, nodes[2]);
    world.cut(ghost, nodes[3]);
    world.run_until(secs(2), |w| w.state(0, ghost).is_some()).expect("it is let in");
    world.kill(ghost);
    world.run_until(secs(2), |w| w.state(3, ghost).is_some()).expect("others are told");
    dead_for_all(&mut world, &nodes, ghost, secs(60)).expect("nobody lives by hearsay");
    world.run_for(secs(60));
    assert_eq!(told(&world, &nodes, EventKind::Suspect), 0);
}

// ---- what a cluster goes through

#[test]
fn a_quiet_cluster_suspects_nobody_under_loss() {
    for (seed, n, loss) in [(1, 3, 0.3), (2, 10, 0.3), (3, 60, 0.2), (4, 150, 0.1)] {
        let mut world = World::new(seed);
        world.set_network(Network::lossy(loss)).unwrap();
        let nodes = world.cluster(n, &phi());
        world.run_until(secs(30), |w| w.all_list(&nodes, n)).expect("they find each other");
        world.run_for(secs(if n > 100 { 60 } else { 300 }));
        assert_eq!(told(&world, &nodes, EventKind::Suspect), 0, "{n} members, {loss} lost");
    }
}

#[test]
fn with_straight_heartbeats_and_the_normal_model_death_takes_seconds() {
    for n in [2, 4] {
        let mut config = phi();
        config.phi_model = PhiModel::Normal;
        let (mut world, nodes) = formed(n as u64, n, &config);
        world.run_for(secs(120));
        assert_eq!(told(&world, &nodes, EventKind::Suspect), 0);
        world.kill(nodes[n - 1]);
        let took = dead_for_all(&mut world, &nodes[..n - 1], nodes[n - 1], secs(10)).expect("it is noticed");
        // 1.56 s of silence, of which up to one had passed, and one at least to refute.
        assert!(took > ms(1_500) && took < secs(6), "{took:?}");
    }
}

#[test]
fn a_restart_is_no_death() {
    let (mut world, nodes) = formed(5, 6, &phi());
    world.restart(nodes[5], None);
    world.run_until(secs(5), |w| w.all_list(&nodes, 6)).expect("it is back");
    world.run_for(secs(120));
    assert_eq!(told(&world, &nodes, EventKind::Suspect) + told(&world, &nodes, EventKind::Dead), 0);
}

#[test]
fn both_sides_of_a_partition_find_together_again() {
    for time in [10, 25, 60, 600] {
        let n = 8;
        let (mut world, nodes) = formed(time, n, &phi());
        let (left, right) = nodes.split_at(3);
        world.part(left, right);
        world.run_for(secs(time));
        if time >= 60 {
            assert!(world.all_list(left, 3) && world.all_list(right, 5), "each side has buried the other");
        }
        world.heal();
        world.run_until(secs(90), |w| w.all_list(&nodes, n)).unwrap_or_else(|| panic!("after {time} s"));
        world.run_for(secs(60));
        assert!(world.all_list(&nodes, n));
    }
}

/// Silence between two is not silence of one: others pass its heartbeats on.
#[test]
fn a_cut_between_two_kills_neither() {
    let (mut world, nodes) = formed(7, 5, &phi());
    world.cut(nodes[0], nodes[1]);
    world.cut(nodes[1], nodes[0]);
    world.run_for(secs(300));
    assert_eq!(told(&world, &nodes, EventKind::Suspect), 0);
}

#[test]
fn leaving_is_told_and_no_death() {
    let (mut world, nodes) = formed(8, 6, &phi());
    world.call(nodes[5], |engine, now, out| engine.leave(now, secs(2), out)).unwrap();
    let left = |w: &mut World| nodes[..5].iter().all(|&i| w.state(i, 5) == Some(MemberState::Left));
    world.run_until(secs(3), left).expect("all are told");
    world.run_for(secs(60));
    assert_eq!(told(&world, &nodes, EventKind::Suspect) + told(&world, &nodes, EventKind::Dead), 0);
}

#[test]
fn metadata_and_lost_news_arrive_without_probes() {
    let (mut world, nodes) = formed(9, 8, &phi());
    world.part(&nodes[..1], &nodes[7..]);
    world.call(nodes[0], |e, now, out| e.set_meta(now, &[("k", Some(b"v"))], out)).unwrap();
    world.run_for(secs(3));
    world.heal();
    let all = |w: &mut World| nodes.iter().all(|&i| w.view(i).find("n0").is_some_and(|m| m.meta.contains_key("k")));
    world.run_until(secs(10), all).expect("a fingerprint that comes with heartbeats shows what is missing");
}

/// How the two sorts share a cluster: who probes also beats, while somebody wants to hear it.
#[test]
fn swim_and_phi_members_live_together_and_both_find_the_dead() {
    for phis in [1, 5, 9] {
        let mut world = World::new(phis);
        let mut nodes = Vec::new();
        for i in 0..10 {
            let mut config = if i < phis { phi() } else { Config::new() };
            config.seeds = nodes.first().map(|&first| world.address(first).to_string()).into_iter().collect();
            nodes.push(world.add(&format!("n{i}"), config));
        }
        world.run_until(secs(20), |w| w.all_list(&nodes, 10)).expect("they find each other");
        world.run_for(secs(300));
        assert_eq!(told(&world, &nodes, EventKind::Suspect), 0, "{phis} with phi: nobody healthy is suspected");
        for victim in [nodes[9], nodes[5]] {
            world.kill(victim);
            let rest: Vec<usize> = nodes.iter().copied().filter(|&i| i != victim).collect();
            dead_for_all(&mut world, &rest, victim, secs(30)).expect("both find the dead");
            world.restart(victim, None);
            world.run_until(secs(20), |w| w.all_list(&nodes, 10)).expect("it is back");
            world.run_for(secs(30));
        }
    }
}

#[test]
fn when_the_last_phi_member_is_gone_nobody_beats_any_more() {
    let mut world = World::new(1);
    let first = world.add("n0", phi());
    let mut config = Config::new();
    config.seeds = vec![world.address(first).to_string()];
    let rest: Vec<usize> = (1..12).map(|i| world.add(&format!("n{i}"), config.clone())).collect();
    world.run_for(secs(30));
    let beats = |world: &mut World| {
        world.transcript = Some(Vec::new());
        world.run_for(secs(5));
        world.transcript.take().unwrap().iter().filter(|line| line.contains("HEARTBEATS")).count()
    };
    assert!(beats(&mut world) > 150, "12 members, each to 3 in a second");
    world.kill(first);
    world.run_for(secs(60));
    assert!(world.all_list(&rest, 11));
    assert_eq!(beats(&mut world), 0);
}

// ---- one engine

const FEW: &[u64] = &[1, 2, 3, 4, 5];

fn beats(counts: &[(u64, u64)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    counts.iter().for_each(|&(i, count)| Beats::push(&mut bytes, run(i), count));
    bytes
}

fn heartbeats(beats: &[u8]) -> Frame<'_> {
    Frame::Heartbeats { idle: 0, fingerprint: 0, beats: Beats(beats) }
}

/// Members 1 to 5 that beat each second, but for those who are silent: all told by 1.
fn beating(stage: &mut Stage, time: Duration, silent: &[u64]) {
    let second = stage.now.as_nanos() / 1_000_000_000;
    for s in 0..time.as_secs() {
        let counts: Vec<(u64, u64)> = FEW.iter().filter(|i| !silent.contains(i)).map(|&i| (i, second + s)).collect();
        stage.hear(1, &[heartbeats(&beats(&counts))]);
        stage.answering(secs(1), |i, _| !silent.contains(&i));
    }
}

fn accusation(frame: &Frame<'_>, i: u64) -> bool {
    matches!(frame, Frame::Suspect { run: r, .. } if *r == run(i))
}

#[test]
fn once_a_period_our_count_goes_to_a_few_and_nobody_is_probed() {
    let mut stage = Stage::among(20, phi());
    let counts = |stage: &Stage| -> Vec<(RunId, u64)> {
        let first = |sent: &stage::Sent| match sent.frames().next() {
            Some(Frame::Heartbeats { beats, .. }) => beats.iter().next(),
            _ => None,
        };
        stage.sent.iter().filter_map(first).collect()
    };
    stage.silence(secs(5));
    let told = counts(&stage);
    assert!(told.iter().all(|(who, _)| *who == run(0)));
    let first = told[0].1;
    let expected: Vec<u64> = (first..first + 5).flat_map(|count| [count; 3]).collect();
    assert_eq!(told.iter().map(|(_, count)| *count).collect::<Vec<_>>(), expected, "to 3 in each of 5 periods");
    assert_eq!(stage.said(|_, frame| matches!(frame, Frame::Ping { .. } | Frame::PingReq { .. })), 0);
}

#[test]
fn counts_are_passed_on_the_newest_first_in_one_datagram() {
    let n = 200;
    let mut stage = Stage::among(n, phi());
    for i in 1..=n {
        stage.hear(1, &[heartbeats(&beats(&[(i, 1_000_000)]))]);
    }
    stage.silence(secs(1));
    let told = stage.sent.iter().find_map(|sent| match sent.frames().next() {
        Some(Frame::Heartbeats { beats, .. }) => Some((sent.bytes.len(), beats.iter().collect::<Vec<_>>())),
        _ => None,
    });
    let (bytes, told) = told.expect("heartbeats each second");
    assert!((90..=120).contains(&told.len()), "{} counts", told.len());
    assert!((1_150..=1_260).contains(&bytes), "{bytes} bytes: news has room as well");
    let expected: Vec<RunId> = core::iter::once(0).chain((1..=n).rev()).map(run).take(told.len()).collect();
    assert_eq!(told.iter().map(|(run, _)| *run).collect::<Vec<_>>(), expected);
}

#[test]
fn silence_is_suspected_told_to_the_suspect_and_then_a_death() {
    let mut stage = Stage::among(5, phi());
    beating(&mut stage, secs(60), &[]);
    stage.sent.clear();
    beating(&mut stage, secs(17), &[2]);
    assert_eq!((stage.told(EventKind::Suspect, 2), stage.engine.counters().silent), (0, 0));
    beating(&mut stage, secs(2), &[2]);
    assert_eq!((stage.state(2), stage.engine.counters().silent), (Some(MemberState::Suspect), 1));
    for via in [Via::Datagram, Via::Stream] {
        let to_it =
            |to: &Destination, frame: &Frame<'_>| to.run == Some(run(2)) && to.via == via && accusation(frame, 2);
        assert!(stage.said(to_it) > 0, "{via:?}");
    }
    beating(&mut stage, secs(4), &[2]);
    assert_eq!(stage.state(2), Some(MemberState::Dead));
    assert!(FEW.iter().filter(|&&i| i != 2).all(|&i| stage.told(EventKind::Suspect, i) == 0));
}

/// It does not refute, because it has not heard: it is asked as long as its heartbeats come, and not buried.
#[test]
fn a_suspect_whose_heartbeats_come_is_not_declared_dead() {
    let mut stage = Stage::among(5, phi());
    beating(&mut stage, secs(30), &[]);
    let accuser = run(3).get().to_le_bytes();
    stage.hear(3, &[Frame::Suspect { run: run(2), incarnation: Incarnation(0), accusers: Runs(&accuser) }]);
    stage.sent.clear();
    beating(&mut stage, secs(60), &[]);
    assert_eq!((stage.state(2), stage.told(EventKind::Dead, 2)), (Some(MemberState::Suspect), 0));
    assert!(stage.said(|to, frame| to.run == Some(run(2)) && accusation(frame, 2)) >= 60, "with each heartbeat");
    stage.hear(2, &[Frame::Alive { run: run(2), incarnation: Incarnation(1) }]);
    assert_eq!(stage.state(2), Some(MemberState::Alive));
    beating(&mut stage, secs(60), &[]);
    assert_eq!((stage.told(EventKind::Suspect, 2), stage.told(EventKind::Alive, 2)), (1, 1));
}

/// Those who declared it dead may hear better than we do. It has as long to refute as with the other detector.
#[test]
fn a_death_that_others_declared_does_not_wait_for_our_own_phi() {
    let mut stage = Stage::among(5, phi());
    beating(&mut stage, secs(60), &[]);
    let accuser = run(3).get().to_le_bytes();
    stage.hear(3, &[Frame::Suspect { run: run(2), incarnation: Incarnation(0), accusers: Runs(&accuser) }]);
    stage.hear(3, &[Frame::Dead { run: run(2), incarnation: Incarnation(0), age: 0 }]);
    assert_eq!(stage.state(2), Some(MemberState::Suspect));
    beating(&mut stage, secs(2), &[2]);
    assert_eq!(stage.state(2), Some(MemberState::Dead));
}

/// A refutation is a sign of life; silence after it is a new one.
#[test]
fn who_refutes_and_falls_silent_again_is_suspected_again() {
    let mut stage = Stage::among(5, phi());
    beating(&mut stage, secs(60), &[]);
    beating(&mut stage, secs(20), &[2]);
    assert_eq!(stage.told(EventKind::Suspect, 2), 1);
    stage.hear(3, &[Frame::Alive { run: run(2), incarnation: Incarnation(1) }]);
    assert_eq!(stage.state(2), Some(MemberState::Alive));
    beating(&mut stage, secs(18), &[2]);
    assert_eq!(stage.told(EventKind::Suspect, 2), 1);
    beating(&mut stage, secs(6), &[2]);
    assert_eq!((stage.told(EventKind::Suspect, 2), stage.state(2)), (2, Some(MemberState::Dead)));
}

#[test]
fn any_packet_straight_from_a_member_ends_its_silence() {
    let mut stage = Stage::among(5, phi());
    beating(&mut stage, secs(60), &[]);
    for _ in 0..6 {
        beating(&mut stage, secs(15), &[2]);
        stage.hear(2, &[Frame::Nack { seq: 1 }]);
    }
    assert_eq!(stage.told(EventKind::Suspect, 2), 0);
    assert!(stage.engine.phi(stage.now(), "p2").unwrap() < 0.1);
}

/// It was away for an hour. So was everybody's voice.
#[test]
fn our_own_absence_is_nobodys_silence() {
    let mut stage = Stage::among(5, phi());
    beating(&mut stage, secs(60), &[]);
    stage.now = stage.now + secs(3600);
    stage.engine.stalled(secs(3600));
    stage.silence(secs(12));
    assert!(FEW.iter().all(|&i| stage.told(EventKind::Suspect, i) == 0));
    stage.silence(secs(10));
    assert!(FEW.iter().all(|&i| stage.told(EventKind::Suspect, i) == 1), "now it is theirs");
}

#[test]
fn a_ping_is_answered_and_a_heartbeat_of_the_dead_and_of_strangers_is_set_right() {
    let mut stage = Stage::among(5, phi());
    stage.hear(2, &[Frame::Ping { seq: 7, beat: 0, fingerprint: 0 }]);
    assert_eq!(stage.said(|to, frame| to.run == Some(run(2)) && matches!(frame, Frame::Ack { seq: 7, .. })), 1);
    let accuser = run(1).get().to_le_bytes();
    stage.hear(1, &[Frame::Suspect { run: run(3), incarnation: Incarnation(0), accusers: Runs(&accuser) }]);
    beating(&mut stage, secs(2), &[3]);
    stage.hear(1, &[Frame::Dead { run: run(3), incarnation: Incarnation(0), age: 0 }]);
    assert_eq!(stage.state(3), Some(MemberState::Dead));
    stage.sent.clear();
    let its = beats(&[(3, 9)]);
    stage.hear(3, &[heartbeats(&its)]);
    let dead = |frame: &Frame<'_>| matches!(frame, Frame::Dead { run: r, .. } if *r == run(3));
    assert!(stage.said(|to, frame| to.run == Some(run(3)) && dead(frame)) >= 1, "it hears that it is dead");
    stage.sent.clear();
    stage.hear(77, &[heartbeats(&its), heartbeats(&its)]);
    assert_eq!(stage.said(|to, frame| to.run == Some(run(77)) && matches!(frame, Frame::Want { .. })), 1);
    assert_eq!(stage.bytes_to(stage::addr(77)) / 20, 0, "less than it brought");
}

/// A beat that was due while nobody listened would look to a driver as if it had been held up since.
#[test]
fn who_begins_to_beat_again_is_not_late() {
    for config in [phi(), Config::new()] {
        let mut stage = Stage::new(config);
        stage.silence(secs(100));
        stage.hear(1, &[Frame::Record(stage::record(1, "p1"))]);
        stage.hear(1, &[heartbeats(&beats(&[(1, 5)]))]);
        assert!(stage.engine.deadline(stage.now).unwrap() >= stage.now);
        stage.silence(secs(100));
        stage.hear(1, &[heartbeats(&beats(&[(1, 105)]))]);
        assert!(stage.engine.deadline(stage.now).unwrap() >= stage.now);
    }
}

#[test]
fn a_changed_threshold_holds_from_then_on() {
    let mut stage = Stage::among(5, phi());
    beating(&mut stage, secs(60), &[]);
    let mut config = phi();
    config.phi_threshold = Milli(3_000);
    stage.call(|engine, now, _| engine.reconfigure(now.mono, config.into()));
    beating(&mut stage, secs(5), &[2]);
    assert_eq!(stage.told(EventKind::Suspect, 2), 0);
    beating(&mut stage, secs(1), &[2]);
    assert_eq!(stage.told(EventKind::Suspect, 2), 1, "after 3 · ln 10 s");
}
