//! Members with a bad link: they are removed and stay removed, nobody else is, and they return when the link is good.
//! The cases of Rapid §7 (Suresh et al., ATC 2018), at a small part of its size; the whole is in the paper experiments.

#![cfg(feature = "sim")]

use core::time::Duration;

use bruit_core::config::Config;
use bruit_core::sim::{Loss, World};
use bruit_core::view::{EventKind, MemberState};

const N: usize = 60;
const BAD: usize = 2;

fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

/// A calm cluster: its nodes, the bad ones first.
fn calm(seed: u64) -> (World, Vec<usize>) {
    let mut world = World::new(seed);
    let mut nodes = world.cluster(N, &Config::new());
    world.run_until(secs(60), |w| w.all_list(&nodes, N)).expect("they find each other");
    world.run_for(secs(10));
    nodes.rotate_left(7);
    (world, nodes)
}

/// Deaths of healthy members at healthy members, and how often a bad one came back, at worst.
fn toll(world: &World, nodes: &[usize]) -> (usize, usize) {
    let (bad, good) = nodes.split_at(BAD);
    let deaths = good.iter().flat_map(|&i| good.iter().map(move |&j| (i, j)));
    let wrong = deaths.map(|(i, j)| world.count(i, EventKind::Dead, j)).sum();
    let died = bad.iter().flat_map(|&j| good.iter().map(move |&i| world.count(i, EventKind::Dead, j)));
    (wrong, died.max().unwrap_or(0).saturating_sub(1))
}

fn removed(world: &mut World, nodes: &[usize]) -> bool {
    let (bad, good) = nodes.split_at(BAD);
    good.iter().all(|&i| bad.iter().all(|&j| world.state(i, j) == Some(MemberState::Dead)))
}

/// Which way a bad node's packets get lost.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    In,
    Out,
    Both,
}

fn lose(world: &mut World, i: usize, way: Way, loss: Option<Loss>) {
    if way != Way::Out {
        world.lose_ingress(i, loss).unwrap();
    }
    if way != Way::In {
        world.lose_egress(i, loss).unwrap();
    }
}

#[test]
fn who_loses_four_packets_of_five_is_removed_once_and_returns_when_its_link_is_good() {
    for (seed, way) in [(1, Way::In), (2, Way::Out), (3, Way::Both)] {
        let (mut world, nodes) = calm(seed);
        for &i in &nodes[..BAD] {
            lose(&mut world, i, way, Some(Loss::Iid(0.8)));
        }
        let took = world.run_until(secs(300), |w| removed(w, &nodes));
        assert!(took.is_some(), "{way:?}, seed {seed}: still listed after five minutes");
        for _ in 0..4 {
            world.run_for(secs(30));
            assert!(removed(&mut world, &nodes), "{way:?}, seed {seed}: back with a bad link");
        }
        let (wrong, returns) = toll(&world, &nodes);
        assert_eq!(wrong, 0, "{way:?}, seed {seed}: a healthy member was called dead");
        assert!(returns <= 1, "{way:?}, seed {seed}: came back {returns} times");
        for &i in &nodes[..BAD] {
            lose(&mut world, i, way, None);
        }
        world
            .run_until(secs(240), |w| w.all_list(&nodes, N))
            .unwrap_or_else(|| panic!("{way:?}, seed {seed}: gone for ever"));
    }
}

#[test]
fn who_is_deaf_for_twenty_seconds_of_forty_comes_back_once_at_most() {
    for seed in 10..12 {
        let (mut world, nodes) = calm(seed);
        for round in 0..6 {
            for &i in &nodes[..BAD] {
                lose(&mut world, i, Way::In, Some(Loss::Iid(1.0)));
            }
            world.run_for(secs(20));
            assert!(removed(&mut world, &nodes), "seed {seed}, round {round}: not missed in twenty seconds");
            nodes[..BAD].iter().for_each(|&i| lose(&mut world, i, Way::In, None));
            world.run_for(secs(20));
        }
        let (wrong, returns) = toll(&world, &nodes);
        assert_eq!(wrong, 0, "seed {seed}: a healthy member was called dead");
        assert!(returns <= 1, "seed {seed}: came back {returns} times");
        world.run_until(secs(240), |w| w.all_list(&nodes, N)).unwrap_or_else(|| panic!("seed {seed}: gone for ever"));
    }
}

/// Where all links are bad nobody stands out, and nobody is sent away.
#[test]
fn a_network_that_loses_a_third_of_everything_keeps_its_members() {
    for seed in 20..22 {
        let (mut world, nodes) = calm(seed);
        world.set_network(bruit_core::sim::Network::lossy(0.3)).unwrap();
        world.run_for(secs(120));
        let held: u64 = nodes.iter().map(|&i| world.engine(i).counters().held_back).sum();
        assert_eq!(held, 0, "seed {seed}");
    }
}
