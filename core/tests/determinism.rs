//! A seed is a run, to the last counter; and large clusters form.

#![cfg(feature = "sim")]

use bruit_core::config::{Config, ProbeOrder};
use bruit_core::engine::Counters;
use bruit_core::rng::mix;
use bruit_core::sim::{Network, World};
use bruit_core::time::Duration;

fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

/// All that an eventful half minute leaves behind, in one number: bytes sent, events, counters, views.
fn eventful(seed: u64, config: &Config) -> u64 {
    let mut world = World::new(seed);
    world.set_network(Network { duplicate: 0.1, ..Network::lossy(0.15) }).unwrap();
    let mut nodes = world.cluster(14, config);
    world.run_for(secs(5));
    world.kill(nodes[3]);
    world.pause(nodes[4]);
    world.call(nodes[5], |e, now, out| e.set_meta(now, &[("k", Some(b"v")), ("l", Some(&[1; 3_000]))], out)).unwrap();
    world.run_for(secs(5));
    world.resume(nodes[4]);
    world.restart(nodes[3], None);
    world.part(&nodes[..6], &nodes[6..]);
    world.run_for(secs(8));
    world.heal();
    world.call(nodes[7], |e, now, out| e.leave(now, secs(2), out)).unwrap();
    let mut late = config.clone();
    late.seeds = vec![world.address(0).to_string()];
    nodes.push(world.add("late", late));
    world.run_for(secs(12));

    let mut hash = world.trace();
    for &i in &nodes {
        let counters = world.engine(i).counters().clone();
        for (_, _, value) in Counters::ALL {
            hash = mix(hash ^ value(&counters));
        }
        for m in world.view(i).members.iter() {
            let member = format!("{m:?}");
            hash = member.bytes().fold(hash, |hash, byte| mix(hash ^ u64::from(byte)));
        }
    }
    hash
}

#[test]
fn the_same_seed_is_the_same_run_to_the_last_counter() {
    let mut robin = Config::new();
    robin.probe_order = ProbeOrder::Robin;
    for config in [Config::new(), robin] {
        let runs: Vec<u64> = (0..4).map(|seed| eventful(seed, &config)).collect();
        let again: Vec<u64> = (0..4).map(|seed| eventful(seed, &config)).collect();
        assert_eq!(runs, again);
        assert!((0..4).all(|i| !runs[i + 1..].contains(&runs[i])), "another seed, another run");
    }
}

/// `n` nodes start at once and know the first. How long until each lists all, to the tenth of a second.
fn form(n: usize) -> Duration {
    let mut world = World::new(n as u64);
    let nodes = world.cluster(n, &Config::new());
    let began = world.now().mono;
    loop {
        world.run_for(Duration::from_millis(100));
        let took = world.now().mono.since(began);
        if world.all_list(&nodes, n) {
            return took;
        }
        assert!(took < secs(30), "{n} nodes do not find each other");
    }
}

#[test]
fn three_hundred_nodes_that_start_at_once_find_each_other() {
    let took = form(300);
    assert!(took <= secs(2), "{took:?}");
}

#[test]
fn a_thousand_nodes_that_start_at_once_find_each_other() {
    let took = form(1_000);
    assert!(took <= secs(10), "{took:?}");
}
