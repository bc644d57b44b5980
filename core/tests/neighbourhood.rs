//! `membership = partial` in the simulated world: one fact a test.

#![cfg(feature = "sim")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bruit_core::config::{Config, Membership};
use bruit_core::engine::Sending;
use bruit_core::error::Code;
use bruit_core::id::RunId;
use bruit_core::message::{Body, Manner};
use bruit_core::outbox::Completion;
use bruit_core::sim::{Loss, Network, NodeIndex, World};
use bruit_core::time::Duration;
use bruit_core::view::{EventKind, MemberState};

fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn partial() -> Config {
    let mut config = Config::new();
    config.membership = Membership::Partial;
    config
}

/// Each begins `pause` after the one before it, and knows the first.
fn grown(seed: u64, n: usize, pause: Duration, config: &Config) -> (World, Vec<NodeIndex>) {
    let mut world = World::new(seed);
    let mut nodes: Vec<NodeIndex> = Vec::new();
    for i in 0..n {
        let mut config = config.clone();
        config.seeds = nodes.first().map(|&first| world.address(first).to_string()).into_iter().collect();
        nodes.push(world.add(&format!("n{i}"), config));
        world.run_for(pause);
    }
    (world, nodes)
}

/// By index, and only of those among `nodes`.
fn neighbours(world: &World, nodes: &[NodeIndex]) -> Vec<Vec<usize>> {
    let by_run: BTreeMap<RunId, usize> = nodes.iter().enumerate().map(|(at, &i)| (world.run_id(i), at)).collect();
    let known = |run: &RunId| by_run.get(run).copied();
    nodes.iter().map(|&i| world.engine(i).neighbours().iter().filter_map(known).collect()).collect()
}

/// How many the first reaches.
fn reached(graph: &[Vec<usize>]) -> usize {
    let (mut seen, mut queue) = (BTreeSet::from([0]), VecDeque::from([0]));
    while let Some(at) = queue.pop_front() {
        queue.extend(graph[at].iter().filter(|&&next| seen.insert(next)));
    }
    seen.len()
}

fn is_whole(world: &World, nodes: &[NodeIndex]) -> bool {
    reached(&neighbours(world, nodes)) == nodes.len()
}

/// Links have two ends, views do not overlap, and nothing is larger than it may be.
fn check_views(world: &mut World, nodes: &[NodeIndex]) {
    // A link that is being exchanged for another has one end for as long as a word takes.
    let symmetric = |w: &mut World| {
        let graph = neighbours(w, nodes);
        (0..graph.len()).all(|a| graph[a].iter().all(|&b| graph[b].contains(&a)))
    };
    assert!(world.run_until(secs(5), symmetric).is_some(), "links have two ends");
    for &i in nodes {
        let engine = world.engine(i);
        let remembered: BTreeSet<RunId> = engine.remembered().collect();
        assert_eq!(remembered.len(), engine.remembered().count());
        assert!(engine.neighbours().iter().all(|run| !remembered.contains(run)), "active and passive are apart");
        assert!(!remembered.contains(&world.run_id(i)) && !engine.neighbours().contains(&world.run_id(i)));
        for load in engine.loads() {
            assert!(load.len <= load.max, "{}: {} {}", world.name(i), load.len, load.name);
        }
        let view = world.view(i);
        let flagged = view.members.iter().filter(|m| m.is_neighbour).count();
        assert_eq!(flagged, world.engine(i).neighbours().len(), "each neighbour is listed, and as one");
    }
}

/// Says something, and waits: how many others heard it? None twice.
fn told(world: &mut World, nodes: &[NodeIndex], by: usize) -> usize {
    let seq = world.broadcast(nodes[by], "news", b"to all").expect("it may");
    let (run, name) = (world.run_id(nodes[by]), world.name(nodes[by]).clone());
    world.run_for(secs(5));
    let hears = |&&i: &&NodeIndex| {
        let of = world.messages(i).iter().filter(|(_, m)| m.run == run && m.manner == Manner::Broadcast { seq });
        let heard: Vec<_> = of.collect();
        assert!(heard.len() <= 1, "{} was told twice", world.name(i));
        assert!(heard.iter().all(|(_, m)| m.from == name), "and by whom");
        heard.len() == 1
    };
    nodes.iter().filter(hears).count()
}

#[test]
fn clusters_of_any_size_come_together_and_hear_each_other_once() {
    for (n, pause) in [(2, 0), (3, 50), (5, 0), (6, 0), (7, 0), (10, 200), (50, 0), (50, 20), (300, 0)] {
        for seed in 0..if n > 100 { 1 } else { 4 } {
            let (mut world, nodes) = grown(seed, n, ms(pause), &partial());
            let took = world.run_until(secs(10), |w| is_whole(w, &nodes));
            assert!(took.is_some(), "{n} nodes, seed {seed}: in one piece");
            world.run_for(secs(30));
            check_views(&mut world, &nodes);
            let graph = neighbours(&world, &nodes);
            let missing: usize = graph.iter().map(|g| 5.min(n - 1) - g.len()).sum();
            assert!(missing <= 2 + n / 50, "{n} nodes, seed {seed}: {missing} links are missing");
            for by in [0, n / 2, n - 1] {
                assert_eq!(told(&mut world, &nodes, by), n - 1, "{n} nodes, seed {seed}");
            }
            let roots: BTreeSet<RunId> = nodes.iter().map(|&i| world.engine(i).island()).collect();
            assert_eq!(roots.into_iter().collect::<Vec<_>>(), [nodes.iter().map(|&i| world.run_id(i)).min().unwrap()]);
        }
    }
}

/// It sends them on: a thousand who come at once push nobody out again and again.
#[test]
fn a_thousand_who_join_at_one_contact_do_not_wear_it_out() {
    let (mut world, nodes) = grown(1, 1_001, Duration::ZERO, &partial());
    world.run_for(secs(20));
    assert!(is_whole(&world, &nodes));
    check_views(&mut world, &nodes);
    let lost = world.engine(nodes[0]).counters().neighbours_lost;
    assert!(lost <= 300, "{lost} neighbours came and went at the contact");
    let (packets, _) = world.sent_by(nodes[0]);
    assert!(packets <= 15 * 1_000, "{packets} packets: each joiner costs some");
    assert_eq!(told(&mut world, &nodes, 1_000), 1_000);
}

/// A link whose other end does not answer any more is no link, though nobody has closed it.
#[test]
fn a_neighbour_that_falls_silent_is_dropped_and_replaced_in_time() {
    for seed in 0..10 {
        let (mut world, nodes) = grown(seed, 40, ms(20), &partial());
        world.run_for(secs(20));
        let silent = nodes[7];
        let run = world.run_id(silent);
        let theirs: Vec<NodeIndex> =
            nodes.iter().copied().filter(|&i| world.engine(i).neighbours().contains(&run)).collect();
        assert!(theirs.len() >= 4);
        // Its connections stay open, and what is sent there is taken.
        world.pause(silent);
        let config = Config::new();
        let bound = config.probe_interval + config.probe_timeout + config.probe_indirect_timeout + ms(100);
        let dropped = |w: &mut World| theirs.iter().all(|&i| !w.engine(i).neighbours().contains(&run));
        assert!(world.run_until(bound, dropped).is_some(), "seed {seed}: within {bound:?}");
        world.run_for(secs(5));
        for &i in &theirs {
            assert_eq!(world.state(i, silent), Some(MemberState::Dead));
            assert_eq!(world.count(i, EventKind::Dead, silent), 1);
            assert!(world.engine(i).neighbours().len() >= 4, "another has its place");
        }
        let others: Vec<NodeIndex> = nodes.iter().copied().filter(|&i| i != silent).collect();
        assert!(others.iter().filter(|i| !theirs.contains(i)).all(|&i| world.count(i, EventKind::Dead, silent) == 0));
        // It comes back by itself.
        world.resume(silent);
        assert!(world.run_until(secs(60), |w| is_whole(w, &nodes)).is_some(), "seed {seed}");
        world.run_for(secs(5));
        check_views(&mut world, &nodes);
        assert_eq!(told(&mut world, &nodes, 7), 39);
    }
}

#[test]
fn what_is_left_after_many_fail_at_once_finds_together() {
    for (share, power) in [(50, false), (80, false), (90, false), (95, false), (50, true), (80, true)] {
        let n = 400;
        let (mut world, nodes) = grown(share, n, ms(5), &partial());
        world.run_for(secs(60));
        // The seed is among those who are left: whoever has lost all others finds it.
        let stays = |at: usize| at % 100 < 100 - share as usize;
        let left: Vec<NodeIndex> = (0..n).filter(|&at| stays(at)).map(|at| nodes[at]).collect();
        for at in (0..n).filter(|&at| !stays(at)) {
            match power {
                true => world.power_off(nodes[at]),
                false => world.kill(nodes[at]),
            }
        }
        let took = world.run_until(secs(60), |w| is_whole(w, &left));
        println!("{share} % {}: whole after {took:?}", if power { "lost power" } else { "killed" });
        assert!(took.is_some(), "{share} %: in one piece again");
        world.run_for(secs(30));
        check_views(&mut world, &left);
        assert_eq!(told(&mut world, &left, 0), left.len() - 1);
    }
}

/// Long after each has forgotten that the other was.
#[test]
fn two_sides_that_lived_by_themselves_for_long_find_together() {
    for seed in 0..5 {
        let mut config = partial();
        (config.forget_dead, config.shuffle_interval) = (secs(20), secs(5));
        let (mut world, nodes) = grown(seed, 60, ms(10), &config);
        world.run_for(secs(20));
        let (left, right) = nodes.split_at(25);
        world.part(left, right);
        world.run_for(secs(1_200));
        assert!(is_whole(&world, left) && is_whole(&world, right));
        assert_ne!(world.engine(left[0]).island(), world.engine(right[0]).island());
        let (before, met) = (told(&mut world, &nodes, 0), |w: &World| {
            nodes.iter().map(|&i| w.engine(i).counters().islands).sum::<u64>()
        });
        assert_eq!(before, 24, "only its own side hears it");
        world.heal();
        let took = world.run_until(secs(300), |w| is_whole(w, &nodes));
        assert!(took.is_some(), "seed {seed}: in one piece");
        world.run_for(secs(120));
        assert!(met(&world) > 0);
        check_views(&mut world, &nodes);
        assert_eq!(told(&mut world, &nodes, 40), 59);
        let roots: BTreeSet<RunId> = nodes.iter().map(|&i| world.engine(i).island()).collect();
        assert_eq!(roots.len(), 1);
    }
}

/// Nine with three places each, all at once through one contact: partisan's issue 75 left an island of three.
#[test]
fn no_island_is_left_where_all_come_at_once() {
    for seed in 0..60 {
        let mut config = partial();
        config.active_view = 3;
        let (mut world, nodes) = grown(seed, 9, Duration::ZERO, &config);
        world.set_network(Network { loss: Loss::Iid(0.2), ..Network::default() }).expect("it may");
        world.run_for(secs(10));
        world.set_network(Network::default()).expect("it may");
        assert!(world.run_until(secs(120), |w| is_whole(w, &nodes)).is_some(), "seed {seed}");
    }
}

#[test]
fn who_leaves_is_said_to_have_left_and_who_was_exchanged_is_forgotten_in_silence() {
    let (mut world, nodes) = grown(3, 30, ms(50), &partial());
    world.run_for(secs(120));
    let leaver = nodes[12];
    let run = world.run_id(leaver);
    let theirs: Vec<NodeIndex> =
        nodes.iter().copied().filter(|&i| world.engine(i).neighbours().contains(&run)).collect();
    world.call(leaver, |engine, now, out| engine.leave(now, secs(2), out)).expect("it is a member");
    world.run_for(secs(3));
    assert!(theirs.iter().all(|&i| world.count(i, EventKind::Left, leaver) == 1));
    assert!(nodes.iter().all(|&i| world.count(i, EventKind::Dead, leaver) == 0));
    let told = world.completions(leaver).iter().any(|c| matches!(c, Completion::LeaveDone { told: true }));
    assert!(told, "and it knows that they know");
    world.kill(leaver);
    // Nobody has died, and nobody is said to have: neighbours that others took the place of are only listed no more.
    let of_kind = |kind: EventKind| {
        nodes.iter().map(|&i| world.events(i).iter().filter(|(_, e)| e.kind == kind).count()).sum::<usize>()
    };
    assert_eq!((of_kind(EventKind::Dead), of_kind(EventKind::Suspect)), (0, 0));
    assert!(of_kind(EventKind::Forgotten) > 0);
    let stays: Vec<NodeIndex> = nodes.iter().copied().filter(|&i| i != leaver).collect();
    world.run_for(secs(30));
    check_views(&mut world, &stays);
}

#[test]
fn what_a_neighbour_tells_about_itself_is_known_and_a_stranger_cannot_be_written_to() {
    let (mut world, nodes) = grown(4, 60, ms(20), &partial());
    world.run_for(secs(60));
    let (me, run) = (nodes[20], world.run_id(nodes[20]));
    let is_mine = |w: &World, i: NodeIndex| w.engine(i).neighbours().contains(&run);
    let friend = *nodes.iter().find(|&&i| is_mine(&world, i)).expect("it has some");
    let lists = |w: &mut World, i: NodeIndex| w.state(me, i).is_some();
    let stranger = *nodes.iter().find(|&&i| !lists(&mut world, i)).expect("it does not list all");

    world.call(friend, |engine, now, out| engine.set_meta(now, &[("role", Some(b"db"))], out)).expect("it may");
    world.run_for(secs(1));
    assert!(world.view(me).find(world.name(friend)).is_some_and(|m| m.has("role=db")));

    let (name, unknown) = (world.name(friend).to_string(), world.name(stranger).to_string());
    let body = || Body::new("chat", b"hello").expect("it fits");
    let sent = world.call(me, |engine, now, out| engine.send(now, &name, body(), Sending::Reliable, out));
    assert!(sent.is_ok());
    let asked = world.call(me, |engine, now, out| engine.request(now, &name, body(), Some(secs(5)), out));
    let refused = world.call(me, |engine, now, out| engine.send(now, &unknown, body(), Sending::Reliable, out));
    assert_eq!(refused.map_err(|e| e.code), Err(Code::NotFound));
    world.run_for(secs(1));
    assert!(world.messages(friend).iter().any(|(_, m)| m.run == run && m.manner == Manner::Reliable));
    let id = asked.expect("it is listed");
    let replied = |c: &Completion| matches!(c, Completion::Replied { id: i, answer: Ok(_) } if *i == id);
    assert!(world.completions(me).iter().any(replied));
}

#[test]
fn a_new_run_takes_its_names_place_and_metadata_that_is_large_is_fetched() {
    let (mut world, nodes) = grown(5, 12, ms(50), &partial());
    world.run_for(secs(20));
    let large = vec![b'x'; 3_000];
    let set = |w: &mut World| {
        w.call(nodes[3], |engine, now, out| engine.set_meta(now, &[("large", Some(&large))], out)).expect("it may");
    };
    set(&mut world);
    world.run_for(secs(1));
    let knows = |w: &mut World, i: NodeIndex| {
        let view = w.view(i);
        view.find("n3").filter(|m| m.is_neighbour).map(|m| m.meta.get("large").is_some_and(|v| v.len() == 3_000))
    };
    let mine: Vec<bool> = nodes.iter().filter_map(|&i| knows(&mut world, i)).collect();
    assert!(mine.len() >= 4 && mine.iter().all(|&known| known), "{mine:?}");
    world.restart(nodes[3], None);
    world.run_for(secs(40));
    check_views(&mut world, &nodes);
    assert_eq!(told(&mut world, &nodes, 3), 11);
    set(&mut world);
    world.run_for(secs(1));
    let mine: Vec<bool> = nodes.iter().filter_map(|&i| knows(&mut world, i)).collect();
    assert!(mine.len() >= 4 && mine.iter().all(|&known| known), "{mine:?}");
}

/// They would not understand each other.
#[test]
fn a_member_of_the_other_kind_is_refused_and_hears_why() {
    for (first, second, why) in [
        (Config::new(), partial(), "membership = partial, here full"),
        (partial(), Config::new(), "membership = full, here partial"),
    ] {
        let mut world = World::new(1);
        let host = world.add("host", first);
        let mut config = second;
        config.seeds = vec![world.address(host).to_string()];
        let guest = world.add("guest", config);
        world.run_for(secs(60));
        assert_eq!((world.live(host), world.live(guest)), (1, 1));
        let warned = world.events(guest).iter().any(|(_, event)| {
            event.kind == EventKind::Warning && event.text.as_ref().is_some_and(|text| text.contains(why))
        });
        assert!(warned, "{:?}", world.events(guest));
        assert!(world.engine(host).counters().joins_refused > 0);
    }
}

/// What comes late to a large and talkative cluster hears what is said from then on, and is not told of gaps.
#[test]
fn a_newcomer_hears_what_is_said_from_then_on_and_misses_nothing_from_before() {
    let (mut world, mut nodes) = grown(6, 60, ms(10), &partial());
    world.run_for(secs(10));
    for &by in &nodes[..20] {
        world.broadcast(by, "news", b"early").expect("it may");
        world.run_for(ms(100));
    }
    world.run_for(secs(400));
    let mut config = partial();
    config.seeds = vec![world.address(nodes[0]).to_string()];
    let newcomers: Vec<NodeIndex> = (60..80).map(|i| world.add(&format!("n{i}"), config.clone())).collect();
    nodes.extend(&newcomers);
    world.run_for(secs(20));
    for by in 0..20 {
        assert_eq!(told(&mut world, &nodes, by), 79);
    }
    world.run_for(secs(60));
    for &i in &newcomers {
        assert_eq!(world.messages(i).len(), 20);
        assert_eq!(world.events(i).iter().filter(|(_, e)| e.kind == EventKind::Gap).count(), 0, "{}", world.name(i));
    }
}

/// No node keeps more than its views, however many there are.
#[test]
fn what_a_node_keeps_does_not_grow_with_the_cluster() {
    let most = |n: usize| {
        let (mut world, nodes) = grown(8, n, ms(5), &partial());
        world.run_for(secs(90));
        let size = |&i: &NodeIndex| world.engine(i).loads().iter().map(|load| load.len).sum::<usize>();
        nodes.iter().map(size).max().unwrap_or(0)
    };
    let (small, large) = (most(100), most(800));
    assert!(large <= small + 40, "{small} things at 100 nodes, {large} at 800");
}

/// Its epoch is that of a clock that has gone back, and those who remember its last life will not have it: they say why, and it
/// outdoes that one. (Seeds 400689, 500190, 500762 of the swarm.)
#[test]
fn who_restarts_with_a_clock_gone_back_is_taken_in_by_who_remembers_it() {
    for n in [2, 6] {
        let (mut world, nodes) = grown(1, n, secs(1), &partial());
        world.run_for(secs(10));
        world.step_wall(nodes[0], -3_600_000);
        world.restart(nodes[0], None);
        world.run_until(secs(60), |w| is_whole(w, &nodes)).expect("all are connected");
        assert!(world.events(nodes[0]).iter().all(|(_, e)| e.kind != EventKind::Conflict));
        let sent = |w: &World| nodes.iter().map(|&i| w.sent_by(i).0).sum::<u64>();
        world.run_for(secs(20));
        let before = sent(&world);
        world.run_for(secs(60));
        assert!(sent(&world) - before < 60 * 10 * n as u64, "and it is quiet again");
    }
}
