use alloc::collections::BTreeMap;
use alloc::format;
use core::net::SocketAddr;

use super::round::target;
use super::*;
use crate::config::ProbeOrder;
use crate::id::{Epoch, Incarnation, NodeName, Version};
use crate::members;
use crate::outbox::Outbox;
use crate::rng::Rng;
use crate::time::{Now, Wall};
use crate::wire::frame::{Entries, Record};

fn run(id: u64) -> RunId {
    RunId::new(id).unwrap()
}

fn addr(id: u64) -> SocketAddr {
    SocketAddr::new([10, 0, 0, id as u8].into(), 7000)
}

fn to(id: u64) -> Destination {
    Destination { addr: addr(id), run: Some(run(id)), via: Via::Datagram }
}

fn entry(id: u64) -> Entry {
    let name = format!("n{id}");
    let record = Record {
        name: &name,
        run: run(id),
        epoch: Epoch(1),
        incarnation: Incarnation(0),
        addr: addr(id),
        protocol: 1,
        app_version: 0,
        version: Version(0),
        age: 0,
        state: Entries(&[]),
    };
    members::entry(&record, NodeName::new(&name).unwrap(), MemberState::Alive, Instant::ZERO)
}

/// The table of member `me` of `1..=n`.
fn table(me: u64, n: u64) -> Members {
    let mut members = Members::new(entry(me), (1, 2), 1000);
    (1..=n).filter(|&id| id != me).for_each(|id| assert!(members.insert(entry(id)).is_some()));
    members
}

/// Member 1 of `n`, and its clock.
struct Prober {
    probe: Probe,
    members: Members,
    config: Config,
    rng: Rng,
    out: Outbox,
    now: Instant,
}

fn prober(n: u64) -> Prober {
    let now = Instant::from_nanos(1_000_000_000_000);
    let (config, out) = (Config::new(), Outbox::new(1400));
    Prober { probe: Probe::new(0), members: table(1, n), config, rng: Rng::new(1), out, now }
}

impl Prober {
    fn with<T>(&mut self, act: impl FnOnce(&mut Probe, &mut Cx<'_>, &Members) -> T) -> T {
        let now = Now { mono: self.now, wall: Wall(0) };
        let mut cx = Cx { now, rng: &mut self.rng, config: &self.config, out: &mut self.out };
        act(&mut self.probe, &mut cx, &self.members)
    }

    /// Pings member `id`. Returns the ping's number.
    fn ping(&mut self, id: u64) -> u64 {
        self.with(|probe, cx, members| {
            let peer = members.find(run(id)).unwrap();
            probe.ping(cx, members, peer, members.get(peer).unwrap());
            probe.seq
        })
    }

    /// Lets time pass. Who was silent?
    fn wait(&mut self, ms: u64) -> Option<Peer> {
        self.now = self.now + Duration::from_millis(ms);
        self.with(|probe, cx, members| probe.on_deadline(cx, members))
    }

    fn ack(&mut self, from: u64, seq: u64) -> Option<Answer> {
        self.with(|probe, cx, _| probe.on_ack(cx, run(from), seq, 0, Via::Datagram))
    }

    /// To whom such a frame went since the last look.
    fn sent(&mut self, wanted: impl Fn(&Frame<'_>) -> bool) -> Vec<Destination> {
        let sent = self.out.frames().filter(|(_, f)| wanted(f)).map(|(to, _)| to).collect();
        self.out.clear();
        sent
    }

    fn relayed(&mut self) -> usize {
        self.sent(|f| matches!(f, Frame::PingReq { .. })).len()
    }
}

/// SWIM §3.1.
#[test]
fn a_silent_target_is_pinged_through_k_others() {
    let mut p = prober(20);
    let seq = p.ping(2);
    assert_eq!(p.sent(|f| matches!(f, Frame::Ping { .. })), [to(2)]);

    assert_eq!(p.wait(300), None);
    let asked = p.sent(|f| *f == Frame::PingReq { seq, target: run(2), addr: addr(2) });
    assert_eq!(asked.len(), p.config.indirect_checks);
    assert!(asked.iter().all(|relay| *relay != to(2) && *relay != to(1)));
    assert!((0..2).all(|i| !asked[i + 1..].contains(&asked[i])), "k different ones");
}

#[test]
fn the_stream_is_tried_beside_the_relays() {
    for stream_ping in [true, false] {
        let mut p = prober(5);
        p.config.stream_ping = stream_ping;
        let seq = p.ping(2);
        p.sent(|_| true);
        p.wait(300);
        let sent = p.sent(|f| matches!(f, Frame::Ping { seq: s, .. } if *s == seq));
        let by_stream = Destination { via: Via::Stream, ..to(2) };
        assert_eq!(sent.contains(&by_stream), stream_ping);
    }
}

#[test]
fn who_answers_neither_us_nor_anybody_is_silent_after_both_stages_and_not_before() {
    let mut p = prober(5);
    let target = p.members.find(run(2)).unwrap();
    p.ping(2);
    assert_eq!(p.wait(299), None);
    assert_eq!(p.relayed(), 0);
    assert_eq!(p.wait(1), None);
    assert!(p.relayed() > 0);
    assert_eq!(p.wait(299), None);
    assert_eq!(p.wait(1), Some(target));
    assert_eq!(p.wait(0), None, "it is said once");
}

#[test]
fn an_ack_in_either_stage_ends_the_probe() {
    for wait in [100, 400] {
        let mut p = prober(5);
        let seq = p.ping(2);
        p.wait(wait);
        let answer = p.ack(2, seq).unwrap();
        assert_eq!((answer.run, answer.late), (run(2), false));
        assert_eq!(answer.rtt, Some(Duration::from_millis(wait)));
        assert_eq!(p.wait(600 - wait), None);
        assert_eq!(p.ack(2, seq), None, "once");
    }
}

#[test]
fn an_ack_relayed_counts_for_the_target_and_tells_no_round_trip() {
    let mut p = prober(5);
    let seq = p.ping(2);
    p.wait(300);
    let answer = p.ack(3, seq).unwrap();
    assert_eq!((answer.run, answer.rtt, answer.late), (run(2), None, false));
    assert_eq!(p.wait(300), None);
}

#[test]
fn a_late_ack_is_told_as_late() {
    let mut p = prober(5);
    let seq = p.ping(2);
    p.wait(300);
    assert!(p.wait(300).is_some());
    assert!(p.ack(2, seq).unwrap().late);
    assert_eq!(p.ack(2, 999), None, "nothing that we asked");
}

/// SWIM §3.1, the relay's side.
#[test]
fn a_relay_passes_the_ack_on_under_the_askers_number() {
    let mut p = prober(5);
    p.with(|probe, cx, members| probe.on_ping_req(cx, members, to(3), 77, to(2)));
    assert_eq!(p.sent(|f| matches!(f, Frame::Ping { .. })), [to(2)]);

    let seq = p.probe.seq;
    assert_eq!(p.ack(2, seq), None, "not our own");
    assert_eq!(p.sent(|f| matches!(f, Frame::Ack { seq: 77, .. })), [to(3)]);
    p.wait(300);
    assert!(p.sent(|f| matches!(f, Frame::Nack { .. })).is_empty());
}

/// Lifeguard §IV-A: at 80 % of the timeout.
#[test]
fn a_relay_whose_target_is_silent_answers_nack_and_a_late_ack_all_the_same() {
    let mut p = prober(5);
    p.with(|probe, cx, members| probe.on_ping_req(cx, members, to(3), 77, to(2)));
    let seq = p.probe.seq;
    p.wait(239);
    assert!(p.sent(|f| matches!(f, Frame::Nack { .. })).is_empty());
    p.wait(1);
    assert_eq!(p.sent(|f| *f == Frame::Nack { seq: 77 }), [to(3)]);
    p.wait(100);
    assert!(p.sent(|f| matches!(f, Frame::Nack { .. })).is_empty(), "once");
    p.ack(2, seq);
    assert_eq!(p.sent(|f| matches!(f, Frame::Ack { seq: 77, .. })), [to(3)]);
}

/// Lifeguard §IV-A: each relay that does not even answer NACK is a reason to doubt ourselves.
#[test]
fn missing_nacks_speak_against_us_and_answers_for_us() {
    for nacks in 0..=3 {
        let mut p = prober(20);
        let seq = p.ping(2);
        p.wait(300);
        (0..nacks).for_each(|_| assert!(p.probe.on_nack(run(3), seq)));
        p.wait(300);
        assert_eq!(p.probe.health(), 3 - nacks);
    }
    let mut p = prober(5);
    p.probe.doubt_ourselves(100, &p.config);
    assert_eq!(p.probe.health(), p.config.local_health_max as u32);
    for left in (0..8).rev() {
        let seq = p.ping(2);
        p.ack(2, seq);
        assert_eq!(p.probe.health(), left);
    }
}

/// Who was well before the target fell silent, and says NACK, shows that so are we.
#[test]
fn who_is_cleared_and_found_one_silent_looks_at_two_more() {
    for (by, health, pings) in [(3, 1, 2), (4, 4, 0)] {
        let mut p = prober(20);
        let seq = p.ping(3);
        p.ack(3, seq);
        p.probe.doubt_ourselves(2, &p.config);
        let seq = p.ping(2);
        p.wait(900);
        assert!(p.probe.on_nack(run(by), seq));
        p.sent(|_| true);
        assert!(p.wait(900).is_some());
        let begun = p.sent(|f| matches!(f, Frame::Ping { seq: s, .. } if *s > seq)).len();
        assert_eq!((p.probe.health(), begun), (health, pings), "NACK from {by}");
    }
}

#[test]
fn who_answered_last_is_asked_to_help_and_more_are_where_nobody_answers() {
    let mut p = prober(60);
    p.config.probe_interval = Duration::from_secs(100_000);
    let seq = p.ping(9);
    p.ack(9, seq);
    for id in 10..20 {
        let seq = p.ping(id);
        let unheard = p.probe.unheard as usize;
        p.wait(10_000);
        let helpers = p.sent(|f| matches!(f, Frame::PingReq { seq: s, .. } if *s == seq));
        assert_eq!((helpers.len(), helpers[0]), ((3 + 3 * unheard).min(16), to(9)), "{unheard} without a word");
        p.wait(10_000);
        assert!(p.probe.unheard as usize > unheard);
    }
}

/// Lifeguard §IV-A: who doubts itself waits longer, by 1 + health.
#[test]
fn doubt_stretches_both_stages() {
    let mut p = prober(5);
    p.probe.doubt_ourselves(2, &p.config);
    p.ping(2);
    p.sent(|_| true);
    p.wait(899);
    assert_eq!(p.relayed(), 0);
    p.wait(1);
    assert!(p.relayed() > 0);
    assert_eq!(p.wait(899), None);
    assert!(p.wait(1).is_some());
}

#[test]
fn the_direct_stage_follows_the_round_trips_that_were_measured() {
    let mut p = prober(5);
    for _ in 0..10 {
        let seq = p.ping(2);
        p.now = p.now + Duration::from_millis(40);
        let rtt = p.ack(2, seq).unwrap().rtt.unwrap();
        let peer = p.members.find(run(2)).unwrap();
        p.members.note(peer).unwrap().rtt.sample(rtt);
    }
    p.ping(2);
    p.sent(|_| true);
    p.wait(99);
    assert_eq!(p.relayed(), 0, "never shorter than probe_timeout_min");
    p.wait(1);
    assert!(p.relayed() > 0);
}

#[test]
fn unreachable_ends_the_direct_stage_and_not_the_probe() {
    let mut p = prober(5);
    p.ping(2);
    p.with(|probe, cx, members| probe.on_unreachable(cx, members, addr(3)));
    p.wait(0);
    assert_eq!(p.relayed(), 0, "somebody else");
    p.with(|probe, cx, members| probe.on_unreachable(cx, members, addr(2)));
    assert_eq!(p.wait(0), None);
    assert!(p.relayed() > 0);
    p.with(|probe, cx, members| probe.on_unreachable(cx, members, addr(2)));
    assert_eq!(p.wait(299), None, "the others get their time");
    assert!(p.wait(1).is_some());
}

#[test]
fn time_that_we_lost_is_given_back() {
    let mut p = prober(5);
    let seq = p.ping(2);
    p.now = p.now + Duration::from_secs(20);
    p.probe.give_back(Duration::from_secs(20));
    assert_eq!(p.wait(299), None);
    assert_eq!(p.relayed(), 0);
    assert!(!p.ack(2, seq).unwrap().late);
}

/// Who is held back accuses nobody: in a small cluster one that was gone for good kept its penalty up, and it stayed away
/// for ever (seed 200033).
#[test]
fn one_that_never_answers_says_nothing_of_our_link() {
    let mut p = prober(5);
    let failing = |p: &Prober| p.probe.is_failing(p.now, &p.config);
    for _ in 0..3 {
        p.ping(2);
        p.wait(300);
        p.wait(300);
    }
    assert!(!failing(&p));
    p.ping(3);
    p.wait(300);
    assert!(failing(&p), "but two of them do");
}

#[test]
fn nothing_more_is_expected_of_the_dead() {
    let mut p = prober(5);
    p.ping(2);
    p.probe.forget(run(2));
    assert_eq!(p.wait(300), None);
    assert_eq!(p.wait(300), None);
    assert_eq!(p.relayed(), 0);
}

#[test]
fn a_flood_of_requests_is_bounded() {
    let mut p = prober(5);
    for seq in 0..1000 {
        p.with(|probe, cx, members| probe.on_ping_req(cx, members, to(3), seq, to(2)));
    }
    assert_eq!(p.probe.relays.len(), RELAYS_MAX);
    p.wait(2_000);
    assert!(p.probe.relays.is_empty());
    for id in (2..=5).cycle().take(100) {
        p.ping(id);
    }
    assert!(p.probe.flights.len() <= FLIGHTS_MAX);
}

fn targeted(members: &Members, round: u64) -> RunId {
    members.standing_at(target(members, round).unwrap()).unwrap().1.run
}

/// The members agree without talking: in each round everybody pings one and is pinged by one, nobody itself.
#[test]
fn in_every_round_each_member_is_pinged_exactly_once() {
    for n in [2, 3, 5, 10, 57, 200] {
        let tables: Vec<Members> = (1..=n).map(|me| table(me, n)).collect();
        for round in [0, 1, 2, 1_000_000, u64::MAX] {
            let mut pinged = BTreeMap::new();
            for members in &tables {
                let target = targeted(members, round);
                assert_ne!(target, members.local().run);
                *pinged.entry(target).or_insert(0) += 1;
            }
            assert_eq!(pinged.len() as u64, n, "{n} members, round {round}");
        }
    }
}

#[test]
fn the_order_is_another_in_each_round() {
    let members = table(1, 50);
    let mut counts = BTreeMap::new();
    (0..5_000).for_each(|round| *counts.entry(targeted(&members, round)).or_insert(0) += 1);
    assert_eq!(counts.len(), 49);
    assert!(counts.values().all(|n| (60..150).contains(n)), "each about 102 times: {counts:?}");
}

/// Over many rounds: the share of (member, round) that nobody pinged, that more than one pinged, and the most rounds
/// that one waited.
fn left_out(tables: &[Members], rounds: u64) -> (f64, f64, u64) {
    let mut last: BTreeMap<RunId, u64> = tables.iter().map(|members| (members.local().run, 0)).collect();
    let (mut none, mut more, mut longest) = (0, 0, 0);
    for round in 1..=rounds {
        let mut pinged: BTreeMap<RunId, u32> = last.keys().map(|&run| (run, 0)).collect();
        for members in tables {
            // Somebody whom only a few know is none of those that are counted.
            pinged.entry(targeted(members, round)).and_modify(|n| *n += 1);
        }
        for (run, times) in pinged {
            none += u64::from(times == 0);
            more += u64::from(times > 1);
            if times > 0 {
                longest = longest.max(round - last.insert(run, round).expect("all are in it"));
            }
        }
    }
    let all = (rounds * tables.len() as u64) as f64;
    (none as f64 / all, more as f64 / all, longest)
}

/// News is under way: half of all know some members more than the others. Rumors take less than a round to reach
/// all; here nobody ever hears, and still nobody waits for long.
#[test]
fn lists_that_differ_by_a_few_leave_out_few_and_none_for_long() {
    let (n, mut rng) = (200, Rng::new(1));
    for (differ, most) in [(0, 0.0), (1, 0.11), (2, 0.16), (10, 0.3)] {
        let tables: Vec<Members> = (1..=n).map(|me| table(me, n + if rng.chance(1, 2) { differ } else { 0 })).collect();
        let (none, more, longest) = left_out(&tables, 500);
        println!(
            "{differ} of {n} known to half: pinged by none {none:.3}, by several {more:.3}; longest wait {longest}"
        );
        assert!(none <= most && more <= most, "{differ}: {none} by none, {more} by several");
        assert!(longest <= 15, "{differ}: {longest} rounds");
    }
}

/// Each lacks others, by lot: no worse than independent choice, where 1/e are pinged by nobody.
#[test]
fn lists_that_have_little_to_do_with_each_other_starve_nobody() {
    let (n, mut rng) = (200, Rng::new(2));
    for lack in [1, 10, 50] {
        let tables: Vec<Members> = (1..=n)
            .map(|me| {
                let mut members = table(me, n);
                for id in (1..=n).filter(|&id| id != me) {
                    if rng.chance(lack, 100) {
                        members.remove(members.find(run(id)).unwrap());
                    }
                }
                members
            })
            .collect();
        let (none, more, longest) = left_out(&tables, 500);
        println!("each lacks {lack} %: pinged by none {none:.3}, by several {more:.3}; longest wait {longest}");
        assert!(none < 0.40, "{lack} %: {none} by none");
        assert!(longest <= 20, "{lack} %: {longest} rounds");
    }
}

/// SWIM §4.3: "worst case … 2n − 1 protocol periods".
#[test]
fn robin_pings_everybody_within_two_n_less_one_periods() {
    let (mut p, n) = (prober(12), 12);
    p.config.probe_order = ProbeOrder::Robin;
    let mut last: BTreeMap<RunId, u64> = (2..=n).map(|id| (run(id), 0)).collect();
    for period in 1..=500 {
        let target = p.with(|probe, cx, members| probe.next_in_robin(cx, members).unwrap().1.run);
        let wait = period - last.insert(target, period).expect("a member, and not us");
        assert!(wait < 2 * n, "{wait} periods");
    }
    assert!(last.values().all(|&at| 500 - at < 2 * n));
}

#[test]
fn the_greatest_beat_wins() {
    let mut p = prober(2);
    let ours = p.probe.beat(p.now);
    p.probe.hear_beat(p.now, ours - 1);
    assert_eq!(p.probe.beat(p.now), ours);
    p.probe.hear_beat(p.now, ours + 5_000);
    assert_eq!(p.probe.beat(p.now), ours + 5_000);
}

/// One packet with a beat at the end of time would spread to all, and the next beat is one that readers refuse.
#[test]
fn no_beat_takes_the_cluster_to_the_end_of_time() {
    let mut p = prober(2);
    p.probe.hear_beat(p.now, crate::id::COUNTER_MAX);
    assert!(p.probe.beat(p.now) < crate::id::COUNTER_MAX / 2, "else all would refuse our pings");
}
