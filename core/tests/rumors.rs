//! Broadcasts by rumors (`broadcast = rumor`) in the simulated world: one fact a test.

#![cfg(feature = "sim")]

use std::collections::{BTreeMap, BTreeSet};

use bruit_core::config::{Broadcast, Config, Membership};
use bruit_core::engine::Counters;
use bruit_core::error::Code;
use bruit_core::id::RunId;
use bruit_core::message::{Manner, ToAll, Verdict};
use bruit_core::outbox::Completion;
use bruit_core::sim::{Judges, Network, World};
use bruit_core::time::Duration;
use bruit_core::view::EventKind;

const TREE: std::ops::RangeInclusive<usize> = 57..=60;
const OVERLAY: std::ops::RangeInclusive<usize> = 48..=54;

fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn rumors() -> Config {
    rumors_with(|_| {})
}

fn rumors_with(set: impl Fn(&mut Config)) -> Config {
    let mut config = Config::new();
    config.broadcast = Broadcast::Rumor;
    set(&mut config);
    config
}

fn formed(seed: u64, n: usize, config: impl Fn(usize) -> Config) -> (World, Vec<usize>) {
    let mut world = World::new(seed);
    let nodes: Vec<usize> = (0..n).map(|i| world.add(&format!("n{i}"), config(i))).collect();
    world.acquaint(&nodes);
    world.run_for(secs(1));
    (world, nodes)
}

type Said = BTreeSet<(RunId, u64)>;

fn say(world: &mut World, i: usize, said: &mut Said) {
    let seq = world.broadcast(i, "news", format!("by {i}").as_bytes()).expect("it may");
    said.insert((world.run_id(i), seq));
}

fn heard(world: &World, i: usize) -> BTreeMap<(RunId, u64), usize> {
    let mut heard = BTreeMap::new();
    for (_, message) in world.messages(i) {
        let Manner::Broadcast { seq } = message.manner else { continue };
        *heard.entry((message.run, seq)).or_default() += 1;
    }
    heard
}

/// Each was told each message once, but for its own, and nothing else.
fn check(world: &World, nodes: &[usize], said: &Said) {
    for &i in nodes {
        let heard = heard(world, i);
        assert!(heard.values().all(|&n| n == 1), "{} was told twice", world.name(i));
        let others: Said = said.iter().filter(|(run, _)| *run != world.run_id(i)).copied().collect();
        let missing = others.iter().filter(|id| !heard.contains_key(id)).count();
        assert_eq!((missing, heard.len()), (0, others.len()), "{} misses {missing}", world.name(i));
    }
}

fn all_have_heard(world: &World, nodes: &[usize], said: &Said) -> bool {
    nodes.iter().all(|&i| world.messages(i).len() >= said.iter().filter(|id| id.0 != world.run_id(i)).count())
}

fn sum(world: &World, nodes: &[usize], count: impl Fn(&Counters) -> u64) -> u64 {
    nodes.iter().map(|&i| count(world.engine(i).counters())).sum()
}

#[test]
fn all_hear_it_once_and_nobody_needs_a_neighbour() {
    for (n, limit) in [(2, 20), (3, 30), (10, 150), (100, 600), (1_000, 900)] {
        for seed in 0..3 {
            let (mut world, nodes) = formed(seed, n, |_| rumors());
            let mut said = Said::new();
            say(&mut world, nodes[0], &mut said);
            let took = world.run_until(secs(5), |world| all_have_heard(world, &nodes, &said));
            assert!(took.is_some_and(|took| took < ms(limit)), "{n} nodes, seed {seed}: {took:?}");
            world.run_for(secs(30));
            check(&world, &nodes, &said);
            assert_eq!(sum(&world, &nodes, |c| c.neighbours + c.broadcasts_repaired), 0);
            let packets = &world.traffic().packets;
            assert_eq!(TREE.chain(OVERLAY).map(|kind| packets[kind]).sum::<u64>(), 0, "no tree, and no overlay");
        }
    }
}

#[test]
fn each_member_tells_it_so_many_times_and_no_more() {
    let mult = 3;
    let (mut world, nodes) = formed(1, 50, |_| rumors_with(|c| c.rumor_mult = mult));
    let mut said = Said::new();
    say(&mut world, nodes[7], &mut said);
    world.run_for(secs(60));
    check(&world, &nodes, &said);
    for &i in &nodes {
        // λ · ⌈log10 51⌉.
        assert_eq!(world.engine(i).counters().broadcast_pushes, 2 * mult as u64, "{}", world.name(i));
    }
}

/// Swarm seed 10001689: two members told each other the same large messages four times each, for minutes.
#[test]
fn what_only_a_link_carries_is_told_no_more_often_than_there_are_others() {
    for (n, origin, others) in [(2, 1, 0), (3, 2, 1), (4, 3, 2), (6, 4, 4)] {
        let (mut world, nodes) = formed(3, n, |_| rumors());
        world.broadcast(nodes[0], "", &[7; 13_000]).expect("there is room");
        world.run_for(secs(60));
        for &i in &nodes {
            let told = if i == nodes[0] { origin } else { others };
            assert_eq!(world.engine(i).counters().broadcast_pushes, told, "{} of {n}", world.name(i));
            let still = world.engine(i).loads().into_iter().find(|load| load.name == "broadcasts still told");
            assert_eq!(still.map(|load| load.len), Some(0), "{} of {n}", world.name(i));
            assert_eq!(world.messages(i).len(), usize::from(i != nodes[0]));
        }
    }
}

/// It was held in readiness until the window closed, since nobody tells the origin.
#[test]
fn where_nobody_lists_all_a_rumor_that_the_neighbours_know_is_over() {
    let config = |_| rumors_with(|c| c.membership = Membership::Partial);
    let (mut world, nodes) = formed(4, 12, config);
    let mut said = Said::new();
    for &i in &nodes {
        say(&mut world, i, &mut said);
    }
    world.run_for(secs(10));
    check(&world, &nodes, &said);
    for &i in &nodes {
        let still = world.engine(i).loads().into_iter().find(|load| load.name == "broadcasts still told");
        assert_eq!(still.map(|load| load.len), Some(0), "{}", world.name(i));
    }
}

#[test]
fn a_round_tells_fanout_members_a_batch() {
    let config = || rumors_with(|c| (c.rumor_fanout, c.rumor_batch, c.rumor_mult) = (2, 4_096, 1));
    let (mut world, nodes) = formed(2, 9, |_| config());
    for _ in 0..40 {
        world.broadcast(nodes[0], "", &[7; 1_000]).expect("there is room");
    }
    let pushed = |world: &World| world.engine(nodes[0]).counters().broadcast_pushes;
    world.run_for(ms(1));
    assert_eq!(pushed(&world), 2 * 4, "four fit");
    world.run_for(config().gossip_interval);
    assert!(pushed(&world) <= 3 * 2 * 4, "{}", pushed(&world));
    world.run_for(secs(10));
    assert!(nodes[1..].iter().all(|&i| world.messages(i).len() == 40));
}

#[test]
fn loss_duplicates_and_reordering_delay_and_lose_nothing() {
    for loss in [0.05, 0.3, 0.5] {
        let (mut world, nodes) = formed(5, 20, |_| rumors());
        world.set_network(Network { duplicate: 0.3, reorder: 0.3, ..Network::lossy(loss) }).unwrap();
        let mut said = Said::new();
        for k in 0..50 {
            say(&mut world, nodes[k % 20], &mut said);
            world.run_for(ms(100));
        }
        world.set_network(Network::default()).unwrap();
        world.run_for(secs(60));
        check(&world, &nodes, &said);
    }
}

/// gossiper's is gone after ten rounds, even where it was made.
#[test]
fn what_was_said_in_a_partition_is_told_when_it_heals() {
    for (seed, parted) in [(1, secs(2)), (2, secs(8)), (3, secs(40)), (4, secs(120))] {
        let (mut world, nodes) = formed(seed, 6, |_| rumors());
        let mut said = Said::new();
        world.part(&nodes[..3], &nodes[3..]);
        for k in 0..20 {
            say(&mut world, nodes[k % 6], &mut said);
            world.run_for(parted / 20);
        }
        world.heal();
        assert!(!all_have_heard(&world, &nodes, &said));
        let took = world.run_until(secs(60), |world| all_have_heard(world, &nodes, &said));
        assert!(took.is_some(), "{parted:?}");
        check(&world, &nodes, &said);
    }
}

#[test]
fn what_nobody_keeps_any_more_is_said() {
    let keep = secs(20);
    let (mut world, nodes) = formed(6, 6, |_| rumors_with(|c| c.broadcast_keep = keep));
    let mut said = Said::new();
    say(&mut world, nodes[0], &mut said);
    world.run_for(secs(1));
    world.part(&nodes[..5], &nodes[5..]);
    for _ in 0..10 {
        world.broadcast(nodes[0], "news", b"x").expect("it may");
        world.run_for(secs(1));
    }
    world.run_for(keep * 3);
    world.heal();
    world.run_for(secs(120));
    let gaps = world.events(nodes[5]).iter().filter(|(_, event)| event.kind == EventKind::Gap);
    assert_eq!(gaps.map(|(_, event)| event.count).sum::<u64>(), 10);
}

#[test]
fn where_nobody_lists_all_neighbours_are_told() {
    for n in [2, 5, 60] {
        let config = || rumors_with(|c| c.membership = Membership::Partial);
        let mut world = World::new(n as u64);
        let mut nodes: Vec<usize> = Vec::new();
        for i in 0..n {
            let mut config = config();
            config.seeds = nodes.first().map(|&first| world.address(first).to_string()).into_iter().collect();
            nodes.push(world.add(&format!("n{i}"), config));
            world.run_for(ms(20));
        }
        world.run_for(secs(30));
        let mut said = Said::new();
        for k in 0..30 {
            say(&mut world, nodes[k * 7 % n], &mut said);
            world.run_for(ms(30));
        }
        let took = world.run_until(secs(20), |world| all_have_heard(world, &nodes, &said));
        assert!(took.is_some_and(|took| took < secs(2)), "{n}: {took:?}");
        check(&world, &nodes, &said);
        let copies = sum(&world, &nodes, |c| c.broadcast_pushes);
        assert!(copies <= 30 * (n * config().active_view) as u64, "no neighbour is told twice: {copies}");
    }
}

#[test]
fn members_of_both_kinds_hear_each_other() {
    for membership in [Membership::Full, Membership::Partial] {
        for trees in [1, 10, 19] {
            let config = |i: usize| {
                let broadcast = if i < trees { Broadcast::Tree } else { Broadcast::Rumor };
                rumors_with(|c| (c.broadcast, c.membership) = (broadcast, membership))
            };
            let mut world = World::new(trees as u64);
            let mut nodes: Vec<usize> = Vec::new();
            for i in 0..20 {
                let mut config = config(i);
                config.seeds = nodes.first().map(|&first| world.address(first).to_string()).into_iter().collect();
                nodes.push(world.add(&format!("n{i}"), config));
                world.run_for(ms(20));
            }
            world.run_for(secs(10));
            let mut said = Said::new();
            for k in 0..40 {
                say(&mut world, nodes[k % 20], &mut said);
                world.run_for(ms(50));
            }
            world.run_for(secs(30));
            check(&world, &nodes, &said);
        }
    }
}

#[test]
fn a_burst_arrives_whole_and_who_says_too_much_is_told_when_there_is_room() {
    let (mut world, nodes) = formed(3, 10, |_| rumors());
    let (mut said, mut busy) = (0u32, 0);
    while said < 1_000 {
        match world.broadcast(nodes[0], "", &[7; 1_000]) {
            Ok(_) => said += 1,
            Err(error) => {
                assert_eq!(error.code, Code::Busy);
                busy += 1;
                let writable = |world: &mut World| {
                    let completions = world.completions(nodes[0]);
                    completions.iter().filter(|c| matches!(c, Completion::Writable { .. })).count() == busy
                };
                assert!(world.run_until(secs(5), writable).is_some(), "after {said}");
            }
        }
    }
    assert!(busy > 0, "a quarter of link_queue is 256 KiB");
    world.run_for(secs(30));
    assert!(nodes[1..].iter().all(|&i| heard(&world, i).values().filter(|&&n| n == 1).count() == 1_000));
}

#[test]
fn a_large_one_goes_by_stream() {
    let (mut world, nodes) = formed(4, 10, |_| rumors());
    world.broadcast(nodes[0], "", &vec![7; 200_000]).expect("it is below max_broadcast");
    let all = |world: &mut World| nodes[1..].iter().all(|&i| world.messages(i).len() == 1);
    let took = world.run_until(secs(5), all);
    assert!(took.is_some_and(|took| took < secs(1)), "{took:?}");
}

#[test]
fn ordered_ones_are_heard_as_they_were_said() {
    let (mut world, nodes) = formed(9, 12, |_| rumors());
    world.set_network(Network { reorder: 0.5, ..Network::lossy(0.3) }).unwrap();
    for k in 0..100u32 {
        let ordered = ToAll { ordered: true, ..ToAll::default() };
        world.say(nodes[0], "log", &k.to_be_bytes(), ordered).expect("it may");
        world.run_for(ms(10));
    }
    world.set_network(Network::default()).unwrap();
    world.run_for(secs(30));
    let numbers: Vec<[u8; 4]> = (0..100u32).map(u32::to_be_bytes).collect();
    for &i in &nodes[1..] {
        let heard: Vec<&[u8]> = world.messages(i).iter().map(|(_, m)| m.body.data()).collect();
        assert_eq!(heard, numbers, "{}", world.name(i));
    }
    assert!(sum(&world, &nodes, |c| c.broadcasts_held) > 0);
}

#[test]
fn what_is_rejected_is_told_by_its_origin_only() {
    let mut world = World::new(1);
    let verdict = |question: &bruit_core::message::Delivery| {
        let verdict = if question.body.data() == b"no" { Verdict::Reject } else { Verdict::Accept };
        Some((verdict, ms(5)))
    };
    world.judges = Some(Judges { topics: ["judged".to_string()].into(), verdict });
    let nodes: Vec<usize> = (0..20).map(|i| world.add(&format!("n{i}"), rumors())).collect();
    world.acquaint(&nodes);
    world.run_for(secs(1));
    world.broadcast(nodes[0], "judged", b"yes").expect("it may");
    world.run_for(secs(10));
    assert!(nodes[1..].iter().all(|&i| world.messages(i).len() == 1));
    let before = sum(&world, &nodes[1..], |c| c.broadcast_pushes);
    world.broadcast(nodes[0], "judged", b"no").expect("it may");
    world.run_for(secs(60));
    assert!(nodes[1..].iter().all(|&i| world.messages(i).len() == 1), "nobody hears it");
    assert_eq!(sum(&world, &nodes[1..], |c| c.broadcast_pushes), before);
}

/// Rounds of a member that each packet keeps busy for three intervals, in ten seconds of talk and in ten more when it is quick again.
fn rounds_of_a_slow_one(seed: u64, most: Duration) -> [u64; 2] {
    let config = || rumors_with(|c| (c.gossip_interval, c.gossip_interval_max) = (ms(20), most));
    let (mut world, nodes) = formed(seed, 20, |_| config());
    let mut said = Said::new();
    world.slow(nodes[0], ms(60));
    let mut rounds = [0; 2];
    for rounds in &mut rounds {
        let before = world.engine(nodes[0]).counters().rumor_rounds;
        for k in 0..40 {
            say(&mut world, nodes[k % 20], &mut said);
            world.run_for(ms(250));
        }
        *rounds = world.engine(nodes[0]).counters().rumor_rounds - before;
        world.slow(nodes[0], Duration::ZERO);
        world.run_for(secs(5));
    }
    world.run_for(secs(30));
    check(&world, &nodes, &said);
    rounds
}

#[test]
fn who_is_slow_gossips_less_often_where_it_may_and_as_often_as_ever_when_it_is_quick_again() {
    let rounds = |most: Duration| {
        let each = (0..10).map(|seed| rounds_of_a_slow_one(seed, most));
        each.fold([0, 0], |sum, rounds| [sum[0] + rounds[0], sum[1] + rounds[1]])
    };
    let [fixed, adaptive] = [Duration::ZERO, ms(200)].map(rounds);
    println!("rounds: {fixed:?}, adaptive {adaptive:?}");
    assert!(adaptive[0] * 20 <= fixed[0] * 19, "{adaptive:?} {fixed:?}");
    assert!(adaptive[1] * 20 >= fixed[1] * 19, "{adaptive:?} {fixed:?}");
}
