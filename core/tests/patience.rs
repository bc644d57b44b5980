//! Whoever says that it was not scheduled is given more time to refute, and so is everybody where many say so.

#![cfg(feature = "sim")]

use bruit_core::config::Config;
use bruit_core::rng::Rng;
use bruit_core::sim::{NodeIndex, World};
use bruit_core::time::Duration;
use bruit_core::view::EventKind;

const NODES: usize = 10;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn formed(seed: u64, n: usize, config: &Config) -> (World, Vec<NodeIndex>) {
    let mut world = World::new(seed);
    let nodes = world.cluster(n, config);
    world.run_until(ms(20_000), |w| w.all_list(&nodes, n)).expect("they find each other");
    world.run_for(ms(3_000));
    (world, nodes)
}

fn stall(world: &mut World, node: NodeIndex, lasts: u64) {
    world.pause(node);
    world.run_for(ms(lasts));
    world.resume(node);
    world.run_for(ms(8_000));
}

fn deaths(world: &World, nodes: &[NodeIndex]) -> usize {
    nodes.iter().flat_map(|&by| nodes.iter().map(move |&of| world.count(by, EventKind::Dead, of))).sum()
}

fn impatient() -> Config {
    let mut config = Config::new();
    config.set("stall_patience", "0").unwrap();
    config
}

#[test]
fn who_has_stalled_before_may_stall_for_longer() {
    let died = |config: &Config| {
        let (mut world, nodes) = formed(1, NODES, config);
        for lasts in [600, 1_200, 2_000, 3_500, 6_000] {
            stall(&mut world, nodes[3], lasts);
        }
        assert!(world.all_list(&nodes, NODES));
        deaths(&world, &nodes)
    };
    assert_eq!(died(&Config::new()), 0);
    assert!(died(&impatient()) >= NODES - 1, "without it nearly all hold it for dead at least once");
}

#[test]
fn where_many_have_stalled_others_may_as_well() {
    let died = |before: usize| {
        let (mut world, nodes) = formed(2, 40, &Config::new());
        for &node in &nodes[..before] {
            stall(&mut world, node, 2_000);
        }
        let so_far = deaths(&world, &nodes);
        stall(&mut world, nodes[30], 4_000);
        deaths(&world, &nodes) - so_far
    };
    assert_eq!(died(5), 0, "an eighth of them have");
    assert!(died(2) > 30, "two of forty say nothing about the others");
}

/// It has heard of nobody's stalls, calls whoever is away for longer than a suspicion dead, and says so to all.
#[test]
fn who_has_not_heard_of_a_stall_does_not_decide_for_the_others() {
    let (mut world, nodes) = formed(4, NODES, &Config::new());
    (2..5).for_each(|i| stall(&mut world, nodes[i], 3_900));
    let so_far = deaths(&world, &nodes);
    let mut hasty = impatient();
    hasty.set("suspicion_mult", "0.5").unwrap();
    hasty.seeds.push(world.address(nodes[0]).to_string());
    let newcomer = world.add("newcomer", hasty);
    let all: Vec<NodeIndex> = nodes.iter().copied().chain([newcomer]).collect();
    world.run_until(ms(20_000), |w| w.all_list(&all, NODES + 1)).expect("it is let in");
    stall(&mut world, nodes[7], 6_000);
    assert_eq!(world.count(newcomer, EventKind::Dead, nodes[7]), 1, "it knows no better");
    assert_eq!(deaths(&world, &nodes), so_far, "and nobody believes it");
    assert!(world.all_list(&all, NODES + 1));
}

#[test]
fn stalls_are_forgotten() {
    let (mut world, nodes) = formed(3, NODES, &Config::new());
    (1..5).for_each(|i| stall(&mut world, nodes[i], 3_000));
    world.run_for(ms(300_000));
    let gone = nodes[7];
    world.power_off(gone);
    let others: Vec<NodeIndex> = nodes.iter().copied().filter(|&i| i != gone).collect();
    let known = |w: &mut World| others.iter().all(|&by| w.count(by, EventKind::Dead, gone) == 1);
    world.run_until(ms(4_500), known).expect("as soon as if nobody had ever stalled");
}

/// A machine with too much to do: each member runs for some seconds, and is then away for a quarter of a second, or, half as
/// often each, for twice, four, eight, 16 or 32 times that.
fn starved(seed: u64, config: &Config) -> usize {
    let (mut world, nodes) = formed(seed, NODES, config);
    let mut rng = Rng::new(seed);
    let mut next: Vec<(u64, bool)> = nodes.iter().map(|_| (rng.below(10_000), true)).collect();
    for now in (0..300_000).step_by(50) {
        for (&node, (at, runs)) in nodes.iter().zip(&mut next) {
            if now < *at {
                continue;
            }
            let lasts = match *runs {
                true => 250 << rng.next_u64().trailing_zeros().min(5),
                false => 2_000 + rng.below(10_000),
            };
            if *runs {
                world.pause(node)
            } else {
                world.resume(node)
            }
            (*at, *runs) = (now + lasts, !*runs);
        }
        world.run_for(ms(50));
    }
    deaths(&world, &nodes)
}

#[test]
fn on_a_starved_machine_nearly_nobody_is_held_for_dead() {
    let of = |config: &Config| (0..6).map(|seed| starved(seed, config)).sum::<usize>();
    let (patient, before) = (of(&Config::new()), of(&impatient()));
    println!("deaths seen in 6 × 5 minutes: {before} without, {patient} with");
    assert!(before > 500, "there it does happen: {before}");
    assert!(patient * 10 < before, "{patient} of {before}");
}
