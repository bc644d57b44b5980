//! Membership in the simulated world: one fact a test.

#![cfg(feature = "sim")]

use core::time::Duration;

use bruit_core::config::Config;
use bruit_core::outbox::Completion;
use bruit_core::sim::world::address;
use bruit_core::sim::{Network, World};
use bruit_core::view::{EventKind, MemberState, changed};

fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

fn formed(seed: u64, n: usize) -> (World, Vec<usize>) {
    let mut world = World::new(seed);
    let nodes = world.cluster(n, &Config::new());
    let took = world.run_until(secs(20), |w| w.all_list(&nodes, n));
    assert!(took.is_some(), "{n} nodes did not find each other");
    (world, nodes)
}

#[test]
fn two_nodes_find_each_other_through_one_seed() {
    let (mut world, nodes) = formed(1, 2);
    assert_eq!(world.count(nodes[0], EventKind::Join, nodes[1]), 1);
    assert_eq!(world.count(nodes[1], EventKind::Join, nodes[0]), 1);
    world.run_for(secs(2));
    assert!(world.events(nodes[1]).iter().any(|(_, e)| e.kind == EventKind::Settled));
}

#[test]
fn nodes_that_start_at_once_all_list_each_other_soon() {
    for (n, limit) in [(10, 300), (50, 300), (200, 1000)] {
        for seed in 0..5 {
            let mut world = World::new(seed);
            let nodes = world.cluster(n, &Config::new());
            let took = world.run_until(secs(20), |w| w.all_list(&nodes, n)).expect("they find each other");
            assert!(took <= Duration::from_millis(limit), "{n} nodes, seed {seed}: {took:?}");
        }
    }
}

#[test]
fn an_idle_cluster_kills_nobody_and_says_little() {
    let (mut world, nodes) = formed(2, 20);
    world.run_for(secs(5));
    let before = world.traffic().all_packets();
    world.run_for(secs(100));
    let packets = (world.traffic().all_packets() - before) as f64 / 100.0 / 20.0;
    assert!(packets < 2.3, "{packets} packets a node and second");
    for &a in &nodes {
        for &b in &nodes {
            assert_eq!(world.count(a, EventKind::Suspect, b), 0);
        }
    }
}

#[test]
fn a_killed_node_is_suspected_then_dead_everywhere() {
    let mut times = Vec::new();
    for seed in 0..10 {
        let (mut world, mut nodes) = formed(seed, 50);
        world.run_for(secs(5) + Duration::from_millis(seed * 137));
        let victim = nodes.remove(7);
        world.kill(victim);
        let took = world
            .run_until(secs(20), |w| nodes.iter().all(|&i| w.state(i, victim) == Some(MemberState::Dead)))
            .expect("the dead are noticed");
        times.push(took);
        for &i in &nodes {
            assert_eq!(world.count(i, EventKind::Suspect, victim), 1);
            assert_eq!(world.count(i, EventKind::Dead, victim), 1);
        }
    }
    times.sort();
    assert!(times[5] <= Duration::from_millis(3300), "{times:?}");
}

#[test]
fn a_restart_replaces_the_old_run_at_once_and_leaves_no_duplicate() {
    for moved in [None, Some(address(777))] {
        let (mut world, nodes) = formed(3, 10);
        world.run_for(secs(3));
        world.kill(nodes[4]);
        world.run_for(Duration::from_millis(300));
        world.restart(nodes[4], moved);
        let took = world.run_until(secs(5), |w| {
            w.all_list(&nodes, 10) && nodes.iter().all(|&i| w.view(i).find("n4").unwrap().run == w.run_id(4))
        });
        assert!(took.is_some(), "moved: {moved:?}");
        world.run_for(secs(10));
        for &i in &nodes {
            assert_eq!(world.view(i).members.len(), 10);
            assert_eq!(world.count(i, EventKind::Dead, nodes[4]), 0);
        }
        let back =
            world.events(nodes[0]).iter().find(|(_, e)| e.kind == EventKind::Alive && e.changed & changed::EPOCH != 0);
        let event = &back.expect("a new run is told as such").1;
        assert!(event.before.as_ref().unwrap().epoch < event.member.as_ref().unwrap().epoch);
    }
}

#[test]
fn a_paused_node_comes_back_by_itself() {
    let (mut world, nodes) = formed(4, 10);
    world.run_for(secs(3));
    world.pause(nodes[3]);
    world.run_for(secs(20));
    assert_eq!(world.state(nodes[0], nodes[3]), Some(MemberState::Dead));
    world.resume(nodes[3]);
    let took = world.run_until(secs(5), |w| w.all_list(&nodes, 10)).expect("it refutes");
    assert!(took <= secs(2), "{took:?}");
    assert!(
        nodes.iter().all(|&i| i == 3 || world.count(3, EventKind::Dead, i) == 0),
        "it blames nobody for its own absence"
    );
}

#[test]
fn leaving_is_told_waited_for_and_final() {
    let (mut world, nodes) = formed(5, 10);
    world.run_for(secs(3));
    world.call(nodes[9], |e, now, out| e.leave(now, secs(5), out)).unwrap();
    world.run_until(secs(5), |w| !w.completions(nodes[9]).is_empty()).expect("leaving ends");
    assert_eq!(world.completions(nodes[9]).last(), Some(&Completion::LeaveDone { told: true }));
    let rest = &nodes[..9];
    world.run_until(secs(2), |w| rest.iter().all(|&i| w.state(i, 9) == Some(MemberState::Left))).expect("all know");
    world.kill(nodes[9]);
    world.run_for(secs(10));
    for &i in rest {
        assert_eq!(world.state(i, nodes[9]), Some(MemberState::Left));
        assert_eq!(world.count(i, EventKind::Left, nodes[9]), 1);
        assert_eq!(world.count(i, EventKind::Dead, nodes[9]), 0);
    }
}

/// As the workers of one server do. None may count another that leaves as somebody who will tell the rest.
#[test]
fn of_several_that_leave_at_once_all_are_seen_to_leave() {
    for seed in 0..40 {
        let (mut world, nodes) = formed(seed, 4);
        let leavers = &nodes[1..];
        for &i in leavers {
            world.call(i, |e, now, out| e.leave(now, secs(5), out)).unwrap();
        }
        let over = |w: &mut World| leavers.iter().all(|&i| !w.completions(i).is_empty());
        world.run_until(secs(5), over).expect("leaving ends");
        leavers.iter().for_each(|&i| world.kill(i));
        world.run_for(secs(1));
        for &i in leavers {
            assert_eq!(world.state(nodes[0], i), Some(MemberState::Left), "seed {seed}");
        }
    }
}

/// Let in, and gone before it heard so: it need not be found dead.
#[test]
fn who_leaves_while_it_joins_is_seen_to_leave() {
    let mut seen = 0;
    for micros in (0..6_000).step_by(100) {
        let (mut world, nodes) = formed(micros, 2);
        let mut config = Config::new();
        config.seeds = vec![world.address(nodes[0]).to_string()];
        let hasty = world.add("hasty", config);
        world.run_for(Duration::from_micros(micros));
        world.call(hasty, |e, now, out| e.leave(now, secs(5), out)).unwrap();
        world.run_until(secs(6), |w| !w.completions(hasty).is_empty()).expect("leaving ends");
        world.kill(hasty);
        world.run_for(secs(8));
        for &i in &nodes {
            seen += world.count(i, EventKind::Left, hasty);
            assert_eq!(world.count(i, EventKind::Dead, hasty), 0, "after {micros} us");
        }
    }
    assert!(seen > 0, "some were let in");
}

#[test]
fn a_lossy_network_kills_nobody() {
    for loss in [50, 200] {
        let (mut world, nodes) = formed(6, 10);
        world.set_network(Network::lossy(f64::from(loss) / 1000.0)).unwrap();
        world.run_for(secs(300));
        for &a in &nodes {
            for &b in &nodes {
                assert_eq!(world.count(a, EventKind::Dead, b), 0, "at {loss} of 1000 lost");
            }
        }
    }
}

#[test]
fn a_link_cut_one_way_kills_nobody() {
    let (mut world, nodes) = formed(7, 10);
    world.cut(nodes[1], nodes[2]);
    world.run_for(secs(120));
    for &a in &nodes {
        assert_eq!(world.live(a), 10);
        assert_eq!(world.count(a, EventKind::Dead, nodes[2]) + world.count(a, EventKind::Dead, nodes[1]), 0);
    }
}

#[test]
fn a_partition_heals_even_when_each_side_has_forgotten_the_other() {
    for forget in [Duration::from_secs(3600), secs(20)] {
        let mut config = Config::new();
        config.forget_dead = forget;
        let mut world = World::new(8);
        let nodes = world.cluster(10, &config);
        world.run_until(secs(5), |w| w.all_list(&nodes, 10)).unwrap();
        world.part(&nodes[..4], &nodes[4..]);
        world.run_for(secs(60));
        assert!(world.all_list(&nodes[..4], 4) && world.all_list(&nodes[4..], 6));
        world.heal();
        world.run_until(secs(120), |w| w.all_list(&nodes, 10)).expect("it heals by itself");
    }
}

#[test]
fn a_full_restart_heals() {
    let (mut world, nodes) = formed(9, 10);
    nodes.iter().for_each(|&i| world.kill(i));
    world.run_for(secs(1));
    nodes.iter().for_each(|&i| world.restart(i, None));
    world.run_until(secs(10), |w| w.all_list(&nodes, 10)).expect("all come back");
}

#[test]
fn a_node_whose_seed_comes_late_keeps_trying() {
    let mut world = World::new(10);
    let mut config = Config::new();
    config.seeds = vec![address(1).to_string()];
    let a = world.add("a", config);
    world.run_for(secs(90));
    assert!(world.events(a).iter().any(|(_, e)| e.kind == EventKind::Settled), "every seed failed once");
    let b = world.add("b", Config::new());
    world.run_until(secs(60), |w| w.all_list(&[a, b], 2)).expect("it still tries");
}

#[test]
fn a_name_in_use_is_refused_and_listed_nowhere() {
    let (mut world, nodes) = formed(11, 3);
    world.run_for(secs(2));
    let twin = world.add("n1", Config::new());
    let seed = world.address(nodes[0]);
    world.call(twin, |e, now, out| e.join(now, &[vec![seed]], out)).unwrap();
    world.run_until(secs(10), |w| !w.completions(twin).is_empty()).unwrap();
    let Some(Completion::Joined { answered: 0, refused: Some(why), .. }) = world.completions(twin).last() else {
        panic!("{:?}", world.completions(twin));
    };
    assert!(why.contains("name in use"), "{why}");
    assert_eq!(world.view(nodes[0]).find("n1").unwrap().run, world.run_id(nodes[1]));
}

#[test]
fn when_two_clusters_with_one_name_merge_the_lower_epoch_yields() {
    let mut world = World::new(12);
    let a = world.add("a", Config::new());
    let old = world.add("twin", Config::new());
    world.call(old, |e, now, out| e.join(now, &[vec![address(0)]], out)).unwrap();
    world.run_for(secs(2));
    let b = world.add("b", Config::new());
    let new = world.add("twin", Config::new());
    world.call(new, |e, now, out| e.join(now, &[vec![address(2)]], out)).unwrap();
    world.run_for(secs(2));
    world.call(a, |e, now, out| e.join(now, &[vec![address(2)]], out)).unwrap();
    world
        .run_until(secs(20), |w| w.events(old).iter().any(|(_, e)| e.kind == EventKind::Conflict))
        .expect("it is told");
    world.run_for(secs(5));
    for i in [a, b] {
        assert_eq!(world.view(i).find("twin").unwrap().run, world.run_id(new));
        assert_eq!(world.live(i), 3);
    }
}

#[test]
fn metadata_is_seen_by_all_small_and_large() {
    let (mut world, nodes) = formed(13, 10);
    world.run_for(secs(2));
    let large = vec![7u8; 50_000];
    world.call(nodes[2], |e, now, out| e.set_meta(now, &[("role", Some(b"db"))], out)).unwrap();
    let has = |w: &mut World, i: usize, key: &str| w.view(i).find("n2").unwrap().meta.get(key).map(|v| v.len());
    world.run_until(secs(2), |w| nodes.iter().all(|&i| has(w, i, "role") == Some(2))).expect("small");
    world.call(nodes[2], |e, now, out| e.set_meta(now, &[("blob", Some(&large))], out)).unwrap();
    world.run_until(secs(2), |w| nodes.iter().all(|&i| has(w, i, "blob") == Some(50_000))).expect("large");
    world.call(nodes[2], |e, now, out| e.set_meta(now, &[("role", None)], out)).unwrap();
    world.run_until(secs(2), |w| nodes.iter().all(|&i| has(w, i, "role").is_none())).expect("deleted");
    for &i in nodes.iter().filter(|&&i| i != 2) {
        assert_eq!(world.count(i, EventKind::Update, nodes[2]), 3);
    }
    let mut config = Config::new();
    config.seeds = vec![address(0).to_string()];
    let late = world.add("late", config);
    world
        .run_until(secs(5), |w| w.view(late).find("n2").is_some_and(|m| m.meta.contains_key("blob")))
        .expect("a newcomer, too");
}

#[test]
fn a_joiner_of_another_version_is_told_why_and_listed_nowhere() {
    let mut world = World::new(14);
    let mut config = Config::new();
    (config.app_version, config.app_version_min) = (5, 4);
    let host = world.add("host", config.clone());
    config.app_version = 3;
    config.app_version_min = 0;
    let guest = world.add("guest", config);
    world.call(guest, |e, now, out| e.join(now, &[vec![address(0)]], out)).unwrap();
    world.run_until(secs(5), |w| !w.completions(guest).is_empty()).unwrap();
    let Some(Completion::Joined { answered: 0, refused: Some(why), .. }) = world.completions(guest).last() else {
        panic!()
    };
    assert!(why.contains("app version"), "{why}");
    assert_eq!(world.view(host).members.len(), 1);
}

#[test]
fn where_udp_is_blocked_streams_keep_everybody_alive() {
    let (mut world, nodes) = formed(15, 6);
    world.run_for(secs(2));
    world.set_network(Network { udp_blocked: true, ..Network::default() }).unwrap();
    world.run_for(secs(60));
    assert!(world.all_list(&nodes, 6));
    assert!(nodes.iter().any(|&i| world.events(i).iter().any(|(_, e)| e.kind == EventKind::Warning)));
}

#[test]
fn the_dead_are_forgotten_and_remembered_by_address_only() {
    let mut config = Config::new();
    config.forget_dead = secs(10);
    let mut world = World::new(16);
    let nodes = world.cluster(5, &config);
    world.run_until(secs(5), |w| w.all_list(&nodes, 5)).unwrap();
    world.kill(nodes[4]);
    world.run_for(secs(30));
    assert_eq!(world.view(nodes[0]).members.len(), 4);
    assert_eq!(world.count(nodes[0], EventKind::Forgotten, nodes[4]), 1);
}

/// No seeds, and nobody is listed any more: only addresses that were remembered can bring the halves together.
#[test]
fn halves_that_forgot_each_other_find_together_by_remembered_addresses() {
    for seed in 0..5 {
        let mut config = Config::new();
        config.forget_dead = secs(20);
        let mut world = World::new(seed);
        let nodes: Vec<usize> = (0..6).map(|i| world.add(&format!("n{i}"), config.clone())).collect();
        let first = world.address(nodes[0]);
        for &i in &nodes[1..] {
            world.call(i, |e, now, out| e.join(now, &[vec![first]], out)).unwrap();
        }
        world.run_until(secs(10), |w| w.all_list(&nodes, 6)).expect("they find each other");
        world.part(&nodes[..3], &nodes[3..]);
        world.run_for(secs(120));
        assert!(nodes.iter().all(|&i| world.view(i).members.len() == 3), "the others are forgotten");
        world.heal();
        world.run_until(secs(300), |w| w.all_list(&nodes, 6)).expect("they find together");
    }
}

#[test]
fn no_more_addresses_are_remembered_than_configured() {
    let mut config = Config::new();
    (config.forget_dead, config.max_remembered) = (secs(5), 1);
    let mut world = World::new(21);
    let nodes: Vec<usize> = (0..4).map(|i| world.add(&format!("n{i}"), config.clone())).collect();
    let first = world.address(nodes[0]);
    for &i in &nodes[1..] {
        world.call(i, |e, now, out| e.join(now, &[vec![first]], out)).unwrap();
    }
    world.run_until(secs(10), |w| w.all_list(&nodes, 4)).expect("they find each other");
    // Dead one after the other, and forgotten: of three addresses the last stays.
    for &i in &nodes[1..] {
        world.kill(i);
        world.run_until(secs(30), |w| w.state(nodes[0], i).is_none()).expect("it is forgotten");
    }
    world.transcript = Some(Vec::new());
    world.run_for(secs(300));
    let called = |i: usize| {
        let to = format!(" → {}", world.address(i).port());
        world.transcript.as_ref().unwrap().iter().filter(|line| line.contains(&to) && line.contains("HELLO")).count()
    };
    assert_eq!((called(nodes[1]), called(nodes[2])), (0, 0));
    assert!(called(nodes[3]) > 0);
}

// ---- seeds

#[test]
fn a_name_is_all_its_addresses_and_is_looked_up_each_time() {
    let mut world = World::new(30);
    let mut config = Config::new();
    config.seeds = vec!["peers.example:1".into()];
    let nobody = "10.9.9.9:1".parse().unwrap();
    world.names.insert("peers.example:1".into(), vec![nobody]);
    let lone = world.add("lone", config.clone());
    world.run_for(secs(5));
    assert_eq!(world.live(lone), 1, "it starts alone");

    // The name leads somewhere else now, and one of two addresses answers.
    let host = world.add("host", Config::new());
    let at = world.address(host);
    world.names.insert("peers.example:1".into(), vec![nobody, at]);
    world.run_until(secs(60), |w| w.all_list(&[lone, host], 2)).expect("it keeps trying");
}

#[test]
fn a_dead_seed_delays_no_other_and_a_join_counts_names() {
    let mut world = World::new(31);
    let (host, other) = (world.add("host", Config::new()), world.add("other", Config::new()));
    let (a, b) = (world.address(host), world.address(other));
    let dead = "10.9.9.9:1".parse().unwrap();
    let guest = world.add("guest", Config::new());
    let began = world.now().mono;
    world.call(guest, |e, now, out| e.join(now, &[vec![dead], vec![dead, a], vec![b]], out)).unwrap();
    world.run_until(secs(1), |w| w.live(guest) == 3).expect("the living answer at once");
    world.run_until(secs(30), |w| !w.completions(guest).is_empty()).expect("the join ends");
    let took = world.now().mono.since(began);
    assert!(took <= Config::new().join_timeout + secs(1), "{took:?}");
    assert!(matches!(world.completions(guest), [Completion::Joined { answered: 2, .. }]), "of three names two");
}

// ---- the end of a node's days, and the first

#[test]
fn leaving_ends_in_time_when_nobody_answers_and_says_so() {
    let (mut world, nodes) = formed(32, 4);
    nodes[..3].iter().for_each(|&i| world.pause(i));
    world.call(nodes[3], |e, now, out| e.leave(now, secs(2), out)).unwrap();
    world.run_until(secs(2) + Duration::from_millis(50), |w| !w.completions(nodes[3]).is_empty()).expect("in time");
    assert_eq!(world.completions(nodes[3]).last(), Some(&Completion::LeaveDone { told: false }));
    let (_, done) = world.events(nodes[3]).iter().find(|(_, e)| e.kind == EventKind::LeaveDone).expect("an event too");
    assert_ne!(done.status, 0);
}

/// `SETTLED`: somebody's table is applied, then three gossip intervals without a new member; once.
#[test]
fn settled_comes_once_after_the_table_and_three_quiet_intervals() {
    for (seed, loss) in (0..20).flat_map(|seed| [(seed, 0), (seed, 200)]) {
        let (mut world, nodes) = formed(seed, 12);
        world.run_for(secs(3));
        world.set_network(Network::lossy(f64::from(loss) / 1000.0)).unwrap();
        let mut config = Config::new();
        config.seeds = vec![world.address(nodes[0]).to_string()];
        let late = world.add("late", config.clone());
        let settled = |w: &World| -> Vec<_> {
            w.events(late).iter().filter(|(_, e)| e.kind == EventKind::Settled).map(|(at, _)| *at).collect()
        };
        world.run_until(secs(60), |w| !settled(w).is_empty()).expect("it settles");
        assert_eq!(world.live(late), 13, "seed {seed}, loss {loss}: nobody is missing");
        let join = |e: &&(_, bruit_core::view::Event)| e.1.kind == EventKind::Join;
        let last = world.events(late).iter().filter(join).map(|(at, _)| *at).max().unwrap();
        assert!(settled(&world)[0].since(last) >= config.gossip_interval * 3, "seed {seed}, loss {loss}");
        world.add("later", config.clone());
        world.run_for(secs(20));
        assert_eq!(settled(&world).len(), 1);
    }
}

/// A first cluster of two is a table too.
#[test]
fn settled_in_a_cluster_of_two_means_both_are_listed() {
    for seed in 0..40 {
        let mut world = World::new(seed);
        world.set_network(Network::lossy(0.2)).unwrap();
        let nodes = world.cluster(2, &Config::new());
        let is_settled = |w: &World| w.events(nodes[1]).iter().any(|(_, e)| e.kind == EventKind::Settled);
        world.run_until(secs(120), |w| is_settled(w)).expect("it settles");
        let refused = world.events(nodes[1]).iter().any(|(_, e)| e.kind == EventKind::Warning);
        assert!(world.engine(nodes[1]).live() == 2 || refused, "seed {seed}");
    }
}

#[test]
fn a_shorter_term_for_the_dead_counts_for_those_that_are_dead() {
    let (mut world, nodes) = formed(33, 4);
    world.kill(nodes[3]);
    world.run_until(secs(20), |w| w.state(nodes[0], nodes[3]) == Some(MemberState::Dead)).expect("it is noticed");
    let mut config = Config::new();
    config.forget_dead = secs(1);
    world.call(nodes[0], |e, now, _| e.reconfigure(now.mono, std::sync::Arc::new(config)));
    world.run_for(secs(2));
    assert_eq!((world.state(nodes[0], nodes[3]), world.state(nodes[1], nodes[3])), (None, Some(MemberState::Dead)));
}

#[test]
fn a_seed_is_a_run() {
    let run = |seed| {
        let mut world = World::new(seed);
        world.set_network(Network { duplicate: 0.05, ..Network::lossy(0.1) }).unwrap();
        let nodes = world.cluster(12, &Config::new());
        world.run_for(secs(10));
        world.kill(nodes[3]);
        world.run_for(secs(10));
        world.restart(nodes[3], None);
        world.run_for(secs(10));
        (world.trace(), world.steps())
    };
    assert_eq!(run(42), run(42));
    assert_ne!(run(42), run(43));
}

/// Taking a view of a quiet cluster copies no list of members, however often it is done.
#[test]
fn views_share_their_members_until_something_changes() {
    let (mut world, nodes) = formed(40, 5);
    world.run_for(secs(10));
    let first = world.view(nodes[0]);
    world.run_for(secs(10));
    let second = world.view(nodes[0]);
    assert!(std::sync::Arc::ptr_eq(&first.members, &second.members));
    assert!(second.taken > first.taken && second.rtt.iter().filter(|rtt| !rtt.is_zero()).count() == 4);
    world.call(nodes[1], |e, now, out| e.set_meta(now, &[("k", Some(b"v"))], out)).unwrap();
    world.run_for(secs(2));
    let third = world.view(nodes[0]);
    let changed = first.members.iter().zip(third.members.iter()).filter(|(a, b)| !std::sync::Arc::ptr_eq(a, b)).count();
    assert_eq!(changed, 1, "the others are the same pictures");
}
