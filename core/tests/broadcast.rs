//! Broadcasts in the simulated world: one fact a test.

#![cfg(feature = "sim")]

use std::collections::{BTreeMap, BTreeSet};

use bruit_core::config::Config;
use bruit_core::id::RunId;
use bruit_core::message::Manner;
use bruit_core::sim::{Network, World};
use bruit_core::time::Duration;

fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn formed(seed: u64, n: usize, config: &Config) -> (World, Vec<usize>) {
    let mut world = World::new(seed);
    let nodes: Vec<usize> = (0..n).map(|i| world.add(&format!("n{i}"), config.clone())).collect();
    world.acquaint(&nodes);
    world.run_for(secs(1));
    (world, nodes)
}

/// How often `i` was told each message.
fn heard(world: &World, i: usize) -> BTreeMap<(RunId, u64), usize> {
    let mut heard = BTreeMap::new();
    for (_, message) in world.messages(i) {
        let Manner::Broadcast { seq } = message.manner else { continue };
        *heard.entry((message.run, seq)).or_default() += 1;
    }
    heard
}

/// Each of `nodes` was told each of `said` once, but for its own, and nothing else.
fn check(world: &World, nodes: &[usize], said: &BTreeSet<(RunId, u64)>) {
    for &i in nodes {
        let heard = heard(world, i);
        assert!(heard.values().all(|&n| n == 1), "{} was told twice", world.name(i));
        let others = said.iter().filter(|(run, _)| *run != world.run_id(i)).copied();
        let missing: Vec<(RunId, u64)> = others.filter(|id| !heard.contains_key(id)).collect();
        assert!(missing.is_empty(), "{} misses {} of {}: {missing:?}", world.name(i), missing.len(), said.len());
        assert!(heard.keys().all(|id| said.contains(id)));
    }
}

fn say(world: &mut World, i: usize, said: &mut BTreeSet<(RunId, u64)>) {
    let seq = world.broadcast(i, "news", format!("by {i}").as_bytes()).expect("it may");
    said.insert((world.run_id(i), seq));
}

fn sum(world: &World, nodes: &[usize], count: impl Fn(&bruit_core::engine::Counters) -> u64) -> u64 {
    nodes.iter().map(|&i| count(world.engine(i).counters())).sum()
}

/// Everybody's neighbours: symmetric, as many as may be, never itself.
fn check_overlay(world: &World, nodes: &[usize], active: usize) {
    let by_run: BTreeMap<RunId, usize> = nodes.iter().map(|&i| (world.run_id(i), i)).collect();
    let mut missing = 0;
    for &i in nodes {
        let neighbours = world.engine(i).neighbours();
        assert!(neighbours.len() <= active && !neighbours.contains(&world.run_id(i)));
        for run in neighbours {
            let other = by_run.get(run).expect("a live member");
            assert!(world.engine(*other).neighbours().contains(&world.run_id(i)), "{i} and {other}");
        }
        missing += active.min(nodes.len() - 1) - neighbours.len();
    }
    assert!(missing <= 2 + nodes.len() / 50, "{missing} links are missing");
}

#[test]
fn who_never_broadcasts_has_no_overlay() {
    let (mut world, nodes) = formed(1, 20, &Config::new());
    world.run_for(secs(60));
    assert_eq!(sum(&world, &nodes, |c| c.neighbours + c.vectors), 0);
    assert!((48..64).all(|kind| world.traffic().packets[kind] == 0));
}

#[test]
fn the_first_broadcast_wakes_all_and_reaches_all_once() {
    for (n, limit) in [(2, 50), (3, 50), (5, 100), (10, 150), (50, 300), (300, 500)] {
        for seed in 0..5 {
            let (mut world, nodes) = formed(seed, n, &Config::new());
            let mut said = BTreeSet::new();
            say(&mut world, nodes[0], &mut said);
            let all = |w: &mut World| nodes[1..].iter().all(|&i| !w.messages(i).is_empty());
            let took = world.run_until(secs(10), all);
            assert!(took.is_some_and(|t| t < ms(limit)), "{n} nodes, seed {seed}: {took:?}");
            world.run_for(secs(60));
            check(&world, &nodes, &said);
            check_overlay(&world, &nodes, 5);
        }
    }
}

#[test]
fn a_tree_that_has_formed_carries_each_message_once() {
    let (mut world, nodes) = formed(2, 100, &Config::new());
    let mut said = BTreeSet::new();
    for _ in 0..20 {
        say(&mut world, nodes[0], &mut said);
        world.run_for(ms(200));
    }
    let before = sum(&world, &nodes, |c| c.broadcast_pushes + c.broadcast_answers);
    for _ in 0..100 {
        say(&mut world, nodes[0], &mut said);
        world.run_for(ms(200));
    }
    let pushes = sum(&world, &nodes, |c| c.broadcast_pushes + c.broadcast_answers) - before;
    assert!(pushes <= 100 * 99 * 101 / 100, "{pushes}");
    check(&world, &nodes, &said);
}

#[test]
fn many_senders_at_once_reach_all() {
    for seed in 0..5 {
        let (mut world, nodes) = formed(seed, 30, &Config::new());
        let mut said = BTreeSet::new();
        for _ in 0..20 {
            nodes.iter().for_each(|&i| say(&mut world, i, &mut said));
            world.run_for(ms(20));
        }
        world.run_for(secs(5));
        check(&world, &nodes, &said);
    }
}

#[test]
fn what_was_said_in_a_partition_is_told_when_it_heals() {
    for (seed, parted) in [(1, secs(2)), (2, secs(8)), (3, secs(40)), (4, secs(120))] {
        let (mut world, nodes) = formed(seed, 6, &Config::new());
        let mut said = BTreeSet::new();
        say(&mut world, nodes[0], &mut said);
        world.run_for(secs(2));
        world.part(&nodes[..3], &nodes[3..]);
        let pause = parted / 20;
        for k in 0..20 {
            say(&mut world, nodes[k % 6], &mut said);
            world.run_for(pause);
        }
        let across = nodes[..3].iter().flat_map(|&i| world.messages(i)).filter(|(_, m)| *m.from == *"n3").count();
        assert_eq!(across, 0, "they stay inside");
        world.heal();
        let all = |w: &mut World| {
            nodes.iter().all(|&i| w.messages(i).len() >= said.iter().filter(|s| s.0 != w.run_id(i)).count())
        };
        let took = world.run_until(secs(60), all);
        check(&world, &nodes, &said);
        assert!(took.is_some(), "{parted:?}");
        println!("{parted:?}: {took:?}");
    }
}

#[test]
fn loss_delays_and_loses_nothing() {
    for loss in [0.05, 0.3] {
        let (mut world, nodes) = formed(5, 20, &Config::new());
        world.set_network(Network { duplicate: 0.3, reorder: 0.3, ..Network::lossy(loss) }).unwrap();
        let mut said = BTreeSet::new();
        for k in 0..50 {
            say(&mut world, nodes[k % 20], &mut said);
            world.run_for(ms(100));
        }
        world.set_network(Network::default()).unwrap();
        world.run_for(secs(60));
        check(&world, &nodes, &said);
    }
}
