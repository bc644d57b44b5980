//! Clusters that begin with full tables: nobody joined, and all is as if they had.

#![cfg(feature = "sim")]

use core::time::Duration;

use bruit_core::config::Config;
use bruit_core::id::Version;
use bruit_core::sim::World;
use bruit_core::view::{EventKind, MemberState};
use bruit_core::wire::frame::{Entries, Record};

fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

/// `n` nodes of which each knows all, and none has a seed.
fn acquainted(seed: u64, n: usize, config: &Config) -> (World, Vec<usize>) {
    let mut world = World::new(seed);
    let nodes: Vec<usize> = (0..n).map(|i| world.add(&format!("n{i}"), config.clone())).collect();
    let locals: Vec<_> = nodes.iter().map(|&i| world.engine(i).local()).collect();
    let record = |i: usize| Record {
        name: &locals[i].name,
        run: locals[i].run,
        epoch: locals[i].epoch,
        incarnation: locals[i].incarnation,
        addr: locals[i].address,
        protocol: locals[i].protocol,
        app_version: 0,
        version: Version(0),
        age: 0,
        state: Entries(&[]),
    };
    for &i in &nodes {
        let new = world.call(i, |engine, now, _| engine.acquaint(now, (0..n).map(record)));
        assert_eq!(new, n - 1, "all but ourselves");
    }
    (world, nodes)
}

fn agree(world: &World, nodes: &[usize], live: usize) -> bool {
    let fingerprint = world.engine(nodes[0]).fingerprint();
    nodes.iter().all(|&i| (world.engine(i).live(), world.engine(i).fingerprint()) == (live, fingerprint))
}

#[test]
fn acquainted_nodes_agree_from_the_first_moment_and_say_no_more_than_any_idle_cluster() {
    let (mut world, nodes) = acquainted(1, 40, &Config::new());
    assert!(agree(&world, &nodes, 40));
    world.run_for(secs(2));
    let before = world.traffic().all_packets();
    world.run_for(secs(60));
    let packets = (world.traffic().all_packets() - before) as f64 / 60.0 / 40.0;
    assert!(packets < 2.3, "{packets} packets a node and second");
    assert!(agree(&world, &nodes, 40));
    for &i in &nodes {
        assert!(world.events(i).iter().all(|(_, e)| e.kind == EventKind::Settled), "node {i} has nothing to tell");
        assert_eq!(world.engine(i).counters().acks_late, 0);
        assert!(world.engine(i).counters().acks >= 59, "it probes, once a second");
    }
}

#[test]
fn acquainted_nodes_find_the_dead_among_them() {
    let (mut world, mut nodes) = acquainted(2, 40, &Config::new());
    let dead: Vec<usize> = [31, 17, 4].map(|i| nodes.remove(i)).to_vec();
    dead.iter().for_each(|&i| world.kill(i));
    // What can be asked without a view is what a view shows.
    let told = |world: &mut World, i: usize| {
        let view = world.view(i);
        let engine = world.engine(i);
        assert!(view.members.iter().all(|m| engine.state(&m.name) == Some(m.state)));
        assert_eq!(engine.suspects(), view.live().filter(|m| m.state == MemberState::Suspect).count());
        assert_eq!(format!("{:?}", engine.local()), format!("{:?}", *view.local()));
        assert_eq!((engine.state("nobody"), engine.live()), (None, view.live().count()));
        engine.suspects()
    };
    let suspected: usize = (0..30)
        .map(|_| {
            world.run_for(Duration::from_millis(100));
            nodes.iter().map(|&i| told(&mut world, i)).sum::<usize>()
        })
        .sum();
    assert!(suspected > 0);
    let took = world.run_until(secs(20), |w| agree(w, &nodes, 37));
    assert!(took.is_some_and(|took| took < secs(8)), "{took:?}");
    for &i in &nodes {
        for &gone in &dead {
            assert_eq!(world.count(i, EventKind::Dead, gone), 1);
        }
        assert!(nodes.iter().all(|&other| world.engine(i).state(&format!("n{other}")) == Some(MemberState::Alive)));
    }
}

/// After a restart: what was known of another life gives way to what the member says now.
#[test]
fn what_was_known_from_the_start_is_overridden_by_news() {
    let (mut world, nodes) = acquainted(3, 10, &Config::new());
    world.run_for(secs(3));
    world.kill(nodes[4]);
    let mut config = Config::new();
    config.seeds = vec![world.address(nodes[0]).to_string()];
    world.restart(nodes[4], None);
    // It begins without a seed and without a table: one other calls it.
    let newcomer = world.add("late", config);
    let everybody: Vec<usize> = nodes.iter().copied().chain([newcomer]).filter(|&i| i != nodes[4]).collect();
    let took = world.run_until(secs(60), |w| everybody.iter().all(|&i| w.engine(i).live() == 10));
    assert!(took.is_some(), "{:?}", everybody.iter().map(|&i| world.engine(i).live()).collect::<Vec<_>>());
}

#[test]
fn who_is_listed_already_and_who_has_no_name_is_left_out() {
    let (mut world, nodes) = acquainted(4, 5, &Config::new());
    let known = world.view(nodes[1]).local().clone();
    let record = Record {
        name: "n2",
        run: known.run,
        epoch: known.epoch,
        incarnation: known.incarnation,
        addr: known.address,
        protocol: 1,
        app_version: 0,
        version: Version(0),
        age: 0,
        state: Entries(&[]),
    };
    let before = world.engine(nodes[0]).fingerprint();
    let new_run = bruit_core::id::RunId::new(77).unwrap();
    let records = [record, Record { run: new_run, ..record }, Record { name: "a\nb", run: new_run, ..record }];
    assert_eq!(world.call(nodes[0], |engine, now, _| engine.acquaint(now, records.into_iter())), 0);
    assert_eq!(world.engine(nodes[0]).fingerprint(), before);
    let new = Record { name: "new", run: new_run, ..record };
    assert_eq!(world.call(nodes[0], |engine, now, _| engine.acquaint(now, [new].into_iter())), 1);
    assert!(world.view(nodes[0]).find("new").is_some_and(|m| m.address == known.address));
}
