//! How long things may take, where that is the protocol's affair and no machine's: in the simulated world's time,
//! over many seeds, with the defaults of the `lan` profile.

#![cfg(feature = "sim")]

use bruit_core::config::Config;
use bruit_core::id::{Epoch, Incarnation, Version};
use bruit_core::outbox::Completion;
use bruit_core::sim::world::address;
use bruit_core::sim::{Network, World};
use bruit_core::time::{Duration, Instant};
use bruit_core::view::{EventKind, MemberState};
use bruit_core::wire::frame::{Entries, Frame, Record};

const SEEDS: std::ops::Range<u64> = 0..20;

fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

/// A cluster that has nothing left to tell.
fn quiet(seed: u64, n: usize, config: &Config) -> (World, Vec<usize>) {
    let mut world = World::new(seed);
    let nodes = world.cluster(n, config);
    world.run_until(secs(20), |w| w.all_list(&nodes, n)).expect("they find each other");
    world.run_for(secs(10) + Duration::from_millis(seed * 97 % 1000));
    (world, nodes)
}

fn with_seed(node: usize) -> Config {
    let mut config = Config::new();
    config.seeds = vec![address(node).to_string()];
    config
}

fn told(world: &World, nodes: &[usize], kind: EventKind) -> usize {
    nodes.iter().map(|&i| world.events(i).iter().filter(|(_, e)| e.kind == kind).count()).sum()
}

#[test]
fn two_find_each_other_within_five_seconds_and_three_within_ten() {
    for (n, limit) in [(2, secs(5)), (3, secs(10))] {
        for (loss, seed) in [0, 50].into_iter().flat_map(|loss| SEEDS.map(move |seed| (loss, seed))) {
            let mut world = World::new(seed);
            world.set_network(Network::lossy(f64::from(loss) / 1000.0)).unwrap();
            let nodes = world.cluster(n, &Config::new());
            let took = world.run_until(limit, |w| w.all_list(&nodes, n));
            assert!(took.is_some(), "{n} nodes, {loss} of 1000 lost, seed {seed}");
        }
    }
}

#[test]
fn ten_joins_of_one_seed_take_under_two_seconds_on_average_and_under_five_at_worst() {
    for loss in [0, 50] {
        let mut times: Vec<Duration> = Vec::new();
        for seed in SEEDS {
            let mut world = World::new(seed);
            world.set_network(Network::lossy(f64::from(loss) / 1000.0)).unwrap();
            let bootstrap = world.add("bootstrap", Config::new());
            let at = world.address(bootstrap);
            let joiners: Vec<usize> = (0..10).map(|i| world.add(&format!("n{i}"), Config::new())).collect();
            for &i in &joiners {
                world.call(i, |e, now, out| e.join(now, &[vec![at]], out)).unwrap();
            }
            let began = world.now().mono;
            let mut ended: Vec<Option<Instant>> = vec![None; joiners.len()];
            let all = world.run_until(secs(5), |w| {
                let now = w.now().mono;
                for (&i, ended) in joiners.iter().zip(&mut ended) {
                    if ended.is_none() && !w.completions(i).is_empty() {
                        *ended = Some(now);
                    }
                }
                ended.iter().all(Option::is_some)
            });
            assert!(all.is_some(), "seed {seed}, {loss} of 1000 lost: a join took more than 5 s");
            for &i in &joiners {
                assert!(matches!(world.completions(i), [Completion::Joined { answered: 1, .. }]), "seed {seed}");
            }
            times.extend(ended.into_iter().flatten().map(|at| at.since(began)));
        }
        let mean = times.iter().sum::<Duration>() / times.len() as u32;
        assert!(mean < secs(2), "{loss} of 1000 lost: {mean:?}");
    }
}

#[test]
fn tags_are_seen_by_the_other_side_within_two_seconds() {
    for seed in SEEDS {
        let mut world = World::new(seed);
        let tagged = |mut config: Config, tags: [&str; 2]| {
            tags.iter().for_each(|tag| config.set_meta(tag, Some(b"")).unwrap());
            config
        };
        let a = world.add("a", tagged(Config::new(), ["taga", "tagb"]));
        let b = world.add("b", tagged(with_seed(a), ["tagb", "tagc"]));
        let seen = |w: &mut World, i| {
            let view = w.view(i);
            ["tagb", "taga", "tagc"].map(|tag| view.with(tag).count()) == [2, 1, 1]
        };
        world.run_until(secs(2), |w| seen(w, a) && seen(w, b)).unwrap_or_else(|| panic!("seed {seed}"));
        let view = world.view(a);
        assert!(view.find("b").unwrap().meta.keys().map(|key| &**key).eq(["tagb", "tagc"]));
    }
}

#[test]
fn who_leaves_is_listed_so_within_a_second_until_it_is_forgotten_whatever_arrives_late() {
    let mut config = Config::new();
    config.forget_left = secs(30);
    for (n, seed) in [2, 10].into_iter().flat_map(|n| SEEDS.map(move |seed| (n, seed))) {
        let (mut world, nodes) = quiet(seed, n, &config);
        let (leaver, rest) = (nodes[n - 1], &nodes[..n - 1]);
        let record = world.view(leaver).local().clone();
        world.call(leaver, |e, now, out| e.leave(now, secs(5), out)).unwrap();
        let left = |w: &mut World| rest.iter().all(|&i| w.state(i, leaver) == Some(MemberState::Left));
        world.run_until(secs(1), left).unwrap_or_else(|| panic!("{n} nodes, seed {seed}"));
        world.run_until(secs(5), |w| !w.completions(leaver).is_empty()).expect("leaving ends");
        world.kill(leaver);

        // What it said before it left, and was held up on the way.
        let run = record.run;
        let late = [
            Frame::State { run, base: Version(0), to: Version(7), reset: true, entries: Entries(&[]) },
            Frame::Alive { run, incarnation: Incarnation(record.incarnation.0) },
            Frame::Record(Record {
                name: &record.name,
                run,
                epoch: Epoch(record.epoch.0),
                incarnation: record.incarnation,
                addr: record.address,
                protocol: record.protocol,
                app_version: 0,
                version: Version(7),
                age: 0,
                state: Entries(&[]),
            }),
        ];
        for frame in &late {
            let mut bytes = Vec::new();
            frame.write(&mut bytes);
            rest.iter().for_each(|&i| world.inject(leaver, i, &bytes));
            world.run_for(secs(2));
            assert!(left(&mut world), "{n} nodes, seed {seed}: {frame}");
        }
        world.run_for(secs(30));
        assert!(rest.iter().all(|&i| world.state(i, leaver).is_none()), "{n} nodes, seed {seed}: forgotten");
        assert_eq!(told(&world, rest, EventKind::Dead), 0);
    }
}

#[test]
fn a_join_of_nobody_ends_and_a_seed_that_comes_up_is_found_within_the_retry_time() {
    let config = Config::new();
    for (seed, down) in SEEDS.flat_map(|seed| [1, 7, 60, 300].map(|down| (seed, down))) {
        let mut world = World::new(seed);
        // The address of the next node to be added.
        let node = world.add("node", with_seed(1));
        world.call(node, |e, now, out| e.join(now, &[vec![address(1)]], out)).unwrap();
        world.run_until(config.join_timeout, |w| !w.completions(node).is_empty()).expect("the join ends");
        assert!(matches!(world.completions(node), [Completion::Joined { answered: 0, .. }]), "nobody is there");
        world.run_for(secs(down));
        let late = world.add("seed", Config::new());
        // The longest pause with its jitter, and one handshake.
        let limit = config.seed_retry_max * 5 / 4 + secs(1);
        let took = world.run_until(limit, |w| w.all_list(&[node, late], 2));
        assert!(took.is_some(), "seed {seed}, after {down} s");
    }
}

/// What leaves within one millisecond: between quiet nodes that is one ping or its answer.
#[test]
fn one_lost_ping_is_not_even_a_suspicion() {
    for seed in SEEDS {
        let (mut world, nodes) = quiet(seed, 10, &Config::new());
        let before = world.traffic().all_packets();
        world.set_network(Network::lossy(1.0)).unwrap();
        world.run_until(secs(5), |w| w.traffic().all_packets() > before).expect("somebody pings");
        world.set_network(Network::lossy(0.0)).unwrap();
        world.run_for(secs(20));
        assert_eq!(told(&world, &nodes, EventKind::Suspect), 0, "seed {seed}");
    }
}

#[test]
fn a_fifth_of_all_packets_lost_for_five_minutes_kills_nobody() {
    for seed in SEEDS {
        let (mut world, nodes) = quiet(seed, 10, &Config::new());
        world.set_network(Network::lossy(0.2)).unwrap();
        world.run_for(secs(300));
        world.set_network(Network::lossy(0.0)).unwrap();
        // Suspicions that are open yet may end as they like, and none may end in a death.
        world.run_until(secs(60), |w| w.all_list(&nodes, 10)).unwrap_or_else(|| panic!("seed {seed}"));
        assert_eq!(told(&world, &nodes, EventKind::Dead), 0, "seed {seed}");
    }
}
