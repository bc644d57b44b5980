//! What the simulated world can do to machines and packets, fact by fact.

#![cfg(feature = "sim")]

use core::time::Duration;

use bruit_core::config::Config;
use bruit_core::sim::{Clock, Delay, Loss, Network, World};
use bruit_core::view::{EventKind, MemberState};

fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

fn formed(seed: u64, n: usize) -> (World, Vec<usize>) {
    formed_in(World::new(seed), n, &Config::new())
}

fn formed_in(mut world: World, n: usize, config: &Config) -> (World, Vec<usize>) {
    let nodes = world.cluster(n, config);
    world.run_until(secs(60), |w| w.all_list(&nodes, n)).expect("they find each other");
    world.run_for(secs(3));
    (world, nodes)
}

fn told(world: &World, nodes: &[usize], kind: EventKind) -> usize {
    nodes.iter().map(|&i| world.events(i).iter().filter(|(_, e)| e.kind == kind).count()).sum()
}

#[test]
fn a_refused_network_changes_nothing() {
    let mut world = World::new(1);
    world.set_network(Network::lossy(0.25)).unwrap();
    assert!(world.set_network(Network::lossy(f64::NAN)).is_err());
    assert_eq!(world.network(), Network::lossy(0.25));
    assert!(world.lose_ingress(0, Some(Loss::Iid(2.0))).is_err());
}

#[test]
fn clocks_that_run_wrong_and_machines_that_were_up_for_long_do_no_harm() {
    let mut world = World::new(2);
    let mut nodes = Vec::new();
    for i in 0..12u64 {
        world.clock = Clock {
            uptime: secs(i * 8_000_000),
            drift_ppm: if i % 2 == 0 { 50_000 } else { -50_000 },
            wall_ms: (i as i64 - 6) * 86_400_000,
        };
        let mut config = Config::new();
        config.seeds = (i > 0).then(|| world.address(nodes[0]).to_string()).into_iter().collect();
        nodes.push(world.add(&format!("n{i}"), config));
    }
    world.run_until(secs(60), |w| w.all_list(&nodes, 12)).expect("they find each other");
    for (&i, hours) in nodes.iter().zip(-5..) {
        world.step_wall(i, 3_600_000 * hours);
    }
    world.run_for(secs(300));
    assert_eq!(told(&world, &nodes, EventKind::Suspect), 0);
    world.kill(nodes[4]);
    world.restart(nodes[4], None);
    world.run_until(secs(60), |w| w.all_list(&nodes, 12)).expect("it is back, whatever its clock says");
}

#[test]
fn a_machine_without_power_says_nothing_and_a_closed_port_does() {
    let unreachable = |off: fn(&mut World, usize)| {
        let (mut world, nodes) = formed(3, 8);
        off(&mut world, nodes[5]);
        let died = world.run_until(secs(30), |w| w.all_list(&nodes[..5], 7)).expect("it is missed");
        (died, world)
    };
    let (killed, _) = unreachable(World::kill);
    let (dark, _) = unreachable(World::power_off);
    assert!(killed <= dark, "{killed:?} {dark:?}");
}

#[test]
fn a_paused_machine_reads_later_what_fits_and_loses_the_rest() {
    let (mut world, nodes) = formed(4, 30);
    world.receive_queue = 5;
    world.pause(nodes[3]);
    world.run_for(secs(8));
    assert!(world.overflowed() > 0);
    world.resume(nodes[3]);
    world.run_until(secs(30), |w| w.all_list(&nodes, 30)).expect("it is back");
}

#[test]
fn what_a_blocked_machine_sent_arrives_when_the_block_ends() {
    let (mut world, nodes) = formed(5, 10);
    world.block(nodes[2]);
    world.run_for(secs(20));
    assert_eq!(world.state(nodes[0], nodes[2]), Some(MemberState::Dead));
    world.resume(nodes[2]);
    world.run_until(secs(30), |w| w.all_list(&nodes, 10)).expect("it is back");
}

#[test]
fn a_slow_machine_is_served_one_at_a_time_and_lives() {
    let (mut world, nodes) = formed(6, 10);
    world.slow(nodes[1], Duration::from_millis(5));
    world.run_for(secs(120));
    assert_eq!(told(&world, &nodes, EventKind::Dead), 0);
    // Slower than its work: it cannot be told from a dead one, and comes back when it is quick again.
    world.slow(nodes[1], secs(4));
    world.run_for(secs(60));
    world.slow(nodes[1], Duration::ZERO);
    world.run_until(secs(60), |w| w.all_list(&nodes, 10)).expect("it is back");
}

/// Real envelopes: damage, replays and truncation are refused by them, and nobody suffers.
#[test]
fn sealed_clusters_live_with_damage_and_replays() {
    let mut world = World::new(7);
    world.sealed = true;
    world
        .set_network(Network { corrupt: 0.05, truncate: 0.05, replay: 0.1, duplicate: 0.05, ..Network::default() })
        .unwrap();
    let mut config = Config::new();
    config.keys = vec![[7; 32]];
    let (mut world, nodes) = formed_in(world, 8, &config);
    world.run_for(secs(60));
    assert!(world.refused() > 100, "{}", world.refused());
    assert!(world.all_list(&nodes, 8));
    assert_eq!(told(&world, &nodes, EventKind::Dead), 0);
    world.restart(nodes[3], None);
    world.run_until(secs(30), |w| w.all_list(&nodes, 8)).expect("a new run, a new session");
}

/// By label or by key; sealed or not; also where one takes over the other's address.
#[test]
fn clusters_that_share_a_network_never_meet() {
    for sealed in [false, true] {
        let mut world = World::new(8);
        world.sealed = sealed;
        let mut all = Vec::new();
        for cluster in 0..3u8 {
            let mut config = Config::new();
            config.cluster = if cluster == 1 { "other".into() } else { "one".into() };
            config.keys = vec![[u8::from(cluster == 2) + 1; 32]];
            // Everybody has everybody's first node for a seed.
            config.seeds = (0..3).map(|c| bruit_core::sim::world::address(c * 5).to_string()).collect();
            let nodes: Vec<usize> = (0..5).map(|i| world.add(&format!("n{cluster}-{i}"), config.clone())).collect();
            all.push(nodes);
        }
        world.run_for(secs(20));
        let old = all[0].pop().unwrap();
        world.kill(old);
        let mut config = bruit_core::Config::clone(world.config(all[1][0]));
        config.seeds = vec![world.address(all[1][0]).to_string()];
        let tenant = world.add_at(world.address(old), "tenant", config);
        world.run_for(secs(60));
        assert!(world.all_list(&all[0], 4) && world.all_list(&all[2], 5));
        assert!(world.all_list(&all[1], 6) && world.all_list(&[tenant], 6));
        assert!(world.refused() > 0);
    }
}

#[test]
fn another_name_in_the_same_place_is_another_member() {
    let (mut world, nodes) = formed(9, 6);
    let tenant = world.replace(nodes[3], "tenant");
    assert_eq!(world.address(tenant), world.address(nodes[3]));
    let staying: Vec<usize> = nodes.iter().copied().filter(|&i| i != nodes[3]).chain([tenant]).collect();
    world.run_until(secs(30), |w| w.all_list(&staying, 6)).expect("the old one is gone and the new one there");
}

#[test]
fn what_is_planned_happens_when_it_is_due() {
    let (mut world, nodes) = formed(10, 4);
    let (at, i) = (world.now().mono, nodes[2]);
    world.after(secs(5), move |w| w.kill(i));
    world.run_for(Duration::from_millis(4_999));
    assert!(world.is_up(i));
    world.run_for(Duration::from_millis(1));
    assert!(!world.is_up(i));
    assert_eq!(world.now().mono.since(at), secs(5));
}

#[test]
fn a_wide_area_works_with_its_profile() {
    let mut config = Config::new();
    config.set("profile", "wan").unwrap();
    let mut world = World::new(11);
    let delay = Delay::LogNormal { median: Duration::from_millis(80), factor: 1.5 };
    world.set_network(Network { delay, ..Network::lossy(0.02) }).unwrap();
    let (mut world, nodes) = formed_in(world, 15, &config);
    world.run_for(secs(300));
    assert_eq!(told(&world, &nodes, EventKind::Dead), 0);
    world.power_off(nodes[8]);
    let rest: Vec<usize> = nodes.iter().copied().filter(|&i| i != nodes[8]).collect();
    world.run_until(secs(60), |w| w.all_list(&rest, 14)).expect("it is missed");
}
