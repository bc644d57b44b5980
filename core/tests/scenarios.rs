//! Clusters of real nodes on real loopback sockets, from the outside: what an application is promised, and
//! old bugs of other gossip libraries that must not be ours.
//!
//! Times are those of `support::config`, some five times quicker than `local`. Limits are generous: these tests
//! say that something happens, the benchmarks say how fast.

mod support;

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bruit_core::config::Config;
use bruit_core::error::Code;
use bruit_core::runtime::{Node, Runtime, Wait};
use bruit_core::view::{EventKind, MemberState};
use support::relay::Relay;
use support::{LIMIT, Witness, all_list, cluster, config, eventually, free_address, set, until_all};

// ---- finding one another

#[test]
fn two_nodes_find_each_other() {
    let nodes = cluster(2, |_| {});
    assert!(nodes[0].told(EventKind::Join, "n001"));
    assert_eq!(nodes[1].view().find("n000").unwrap().address.to_string(), nodes[0].address());
}

#[test]
fn three_nodes_that_know_only_the_first_find_one_another() {
    let nodes = cluster(3, |_| {});
    assert_eq!(nodes[2].told_about("n001"), [EventKind::Join], "once each");
}

#[test]
fn ten_nodes_join_one_seed_at_once() {
    let seed = Witness::start(&config("seed", &[]));
    let began = Instant::now();
    let join = |i: usize| {
        let node = Witness::start(&config(&format!("n{i}"), &[]));
        assert_eq!(node.node.join(&[&seed.address()], Wait::For(LIMIT)).expect("the seed answers"), 1);
        (node, began.elapsed())
    };
    let joined: Vec<(Witness, Duration)> = std::thread::scope(|scope| {
        let join = &join;
        let joins: Vec<_> = (0..10).map(|i| scope.spawn(move || join(i))).collect();
        joins.into_iter().map(|j| j.join().expect("no join failed")).collect()
    });
    let (mut nodes, times): (Vec<Witness>, Vec<Duration>) = joined.into_iter().unzip();
    nodes.push(seed);
    all_list(&nodes, 11);
    assert!(times.iter().max().unwrap() < &Duration::from_secs(10), "{times:?}");
}

#[test]
fn a_hundred_nodes_share_one_process_and_one_runtime() {
    let runtime = Runtime::new().unwrap();
    let start = |i: usize, seeds: &[&str]| {
        let mut config = config(&format!("n{i:03}"), seeds);
        set(&mut config, "probe_interval", "1s");
        set(&mut config, "gossip_interval", "50ms");
        Witness::start_on(&config, Some(runtime.clone()))
    };
    let mut nodes = vec![start(0, &[])];
    let seed = nodes[0].address();
    nodes.extend((1..100).map(|i| start(i, &[&seed])));
    all_list(&nodes, 100);
}

#[test]
fn a_seed_that_comes_up_late_is_found() {
    let address = free_address().to_string();
    let mut config_b = config("b", &[&address]);
    set(&mut config_b, "join_timeout", "300ms");
    let b = Witness::start(&config_b);
    let refused = b.node.join(&[&address], Wait::For(LIMIT));
    assert!(refused.is_err(), "nobody is there: {refused:?}");
    let mut config_a = config("a", &[]);
    set(&mut config_a, "bind", &address);
    let nodes = [Witness::start(&config_a), b];
    all_list(&nodes, 2);
}

#[test]
fn a_dead_seed_is_tried_until_it_is_back() {
    let address = free_address().to_string();
    let mut config_a = config("a", &[]);
    set(&mut config_a, "bind", &address);
    let a = Witness::start(&config_a);
    let b = Witness::start(&config("b", &[&address]));
    b.until("lists two", |w| w.alive() == 2);
    a.crash();
    b.until("a is dead", |w| w.state_of("a") == Some(MemberState::Dead));
    let nodes = [Witness::start(&config_a), b];
    all_list(&nodes, 2);
}

// ---- what members tell about themselves

#[test]
fn each_side_sees_the_others_tags() {
    let nodes = cluster(2, |config| {
        let tags: [&str; 2] = if config.name == "n000" { ["taga", "tagb"] } else { ["tagb", "tagc"] };
        for tag in tags {
            config.set_meta(tag, Some(b"")).unwrap();
        }
    });
    until_all(&nodes, "tags have arrived", |w| {
        let view = w.view();
        ["tagb", "taga", "tagc"].map(|tag| view.with(tag).count()) == [2, 1, 1]
    });
    let seen: Vec<String> = nodes[0].view().find("n001").unwrap().meta.keys().map(|k| k.to_string()).collect();
    assert_eq!(seen, ["tagb", "tagc"]);
}

#[test]
fn metadata_that_changes_arrives_and_large_metadata_too() {
    let nodes = cluster(3, |_| {});
    let large = vec![0xab; 20_000];
    nodes[1].node.set_meta(&[("role", Some(b"db")), ("blob", Some(&large))]).unwrap();
    let has = |w: &Witness, key: &str, value: &[u8]| {
        w.view().find("n001").is_some_and(|m| m.meta.get(key).is_some_and(|v| **v == *value))
    };
    until_all(&nodes, "both keys arrived", |w| has(w, "role", b"db") && has(w, "blob", &large));
    nodes[1].node.set_meta(&[("role", None)]).unwrap();
    until_all(&nodes, "one key is gone", |w| {
        !w.view().find("n001").unwrap().meta.contains_key("role") && has(w, "blob", &large)
    });
}

// ---- who may not join

#[test]
fn an_application_version_below_the_minimum_is_refused_with_the_reason() {
    let mut config_a = config("a", &[]);
    set(&mut config_a, "app_version", "3");
    set(&mut config_a, "app_version_min", "2");
    let a = Witness::start(&config_a);
    let mut config_b = config("b", &[]);
    set(&mut config_b, "app_version", "1");
    let b = Witness::start(&config_b);
    let error = b.node.join(&[&a.address()], Wait::For(LIMIT)).expect_err("version 1 is too old");
    assert_eq!(error.code, Code::Refused, "{error}");
    assert!(error.text.contains("version"), "{error}");
    assert_eq!((a.alive(), b.alive()), (1, 1));
    assert!(a.state_of("b").is_none() && b.state_of("a").is_none());
}

#[test]
fn a_wrong_key_or_another_label_is_met_with_silence_and_counted() {
    let a = Witness::start(&config("a", &[]));
    let mut wrong_key = config("b", &[]);
    wrong_key.keys = vec![[8; 32]];
    let mut other_label = config("c", &[]);
    set(&mut other_label, "cluster", "elsewhere");
    for mut config in [wrong_key, other_label] {
        set(&mut config, "join_timeout", "500ms");
        let stranger = Witness::start(&config);
        let rejected = |w: &Witness| w.stat("rejected_key") + w.stat("rejected_tag");
        let before = rejected(&a);
        let error = stranger.node.join(&[&a.address()], Wait::For(LIMIT)).expect_err("it is a stranger");
        assert_eq!(error.code, Code::Timeout, "{error}");
        assert!(error.text.contains("key") && error.text.contains("cluster"), "names both causes: {error}");
        assert!(rejected(&a) > before, "silence, but counted");
        assert_eq!((a.alive(), stranger.alive()), (1, 1));
    }
}

#[test]
fn a_second_key_opens_what_the_first_seals() {
    let (old, new) = ([1; 32], [2; 32]);
    let with = |name: &str, keys: &[[u8; 32]], seeds: &[&str]| {
        let mut config = config(name, seeds);
        config.keys = keys.to_vec();
        Witness::start(&config)
    };
    let a = with("a", &[old, new], &[]);
    let address = a.address();
    let nodes = [a, with("b", &[new, old], &[&address]), with("c", &[old, new], &[&address])];
    all_list(&nodes, 3);
}

// ---- dying, leaving, coming back

#[test]
fn a_crash_is_suspected_then_declared_once_each_and_a_restart_is_alive_again() {
    let mut nodes = cluster(5, |_| {});
    let seed = nodes[0].address();
    let epoch = nodes[0].view().find("n004").unwrap().epoch;
    nodes.iter().for_each(Witness::forget_events);
    nodes.pop().unwrap().crash();
    until_all(&nodes, "n004 is dead", |w| w.state_of("n004") == Some(MemberState::Dead));
    until_all(&nodes, "and they were told", |w| w.told(EventKind::Dead, "n004"));
    for w in &nodes {
        assert_eq!(w.told_about("n004"), [EventKind::Suspect, EventKind::Dead], "{}", w.describe());
        w.forget_events();
    }

    nodes.push(Witness::start(&config("n004", &[&seed])));
    all_list(&nodes, 5);
    until_all(&nodes[..4], "and they were told", |w| w.told(EventKind::Alive, "n004"));
    for w in &nodes[..4] {
        assert_eq!(w.told_about("n004"), [EventKind::Alive], "{}", w.describe());
        assert!(w.view().find("n004").unwrap().epoch > epoch);
        assert_eq!(w.view().members.len(), 5, "no second entry");
    }
}

#[test]
fn a_leaver_is_listed_as_left_and_what_it_sent_before_does_not_revive_it() {
    let mut relay = Relay::new();
    let mut configs = ["a", "b", "c"].map(|name| config(name, &[]));
    for config in &mut configs {
        relay.add(config);
        set(config, "gossip_to_dead", "1s");
        set(config, "forget_left", "3s");
        config.seeds = vec![relay.front(0)];
    }
    let mut nodes: Vec<Witness> = configs.iter().map(Witness::start).collect();
    all_list(&nodes, 3);

    // What c sends to a gets stuck on the way, its farewell does not.
    relay.hold(2, 0);
    nodes[2].node.set_meta(&[("late", Some(b"news"))]).unwrap();
    nodes[1].until("b has heard it", |w| w.view().with("late=news").count() == 1);
    relay.hold_no_more();
    let c = nodes.pop().unwrap();
    c.node.leave(Wait::For(LIMIT)).expect("both acknowledge it");
    until_all(&nodes, "c has left", |w| w.state_of("c") == Some(MemberState::Left));
    c.crash();
    nodes.iter().for_each(Witness::forget_events);
    assert!(relay.release() > 0, "now it arrives");
    until_all(&nodes, "c is forgotten", |w| w.state_of("c").is_none());
    for w in &nodes {
        assert!(!w.told(EventKind::Alive, "c") && !w.told(EventKind::Join, "c"), "{}", w.describe());
        assert!(w.told(EventKind::Forgotten, "c"));
        assert!(!w.told(EventKind::Dead, "c"), "it said good-bye");
    }
}

#[test]
fn a_node_that_moves_to_another_port_keeps_its_one_entry() {
    let mut nodes = cluster(3, |_| {});
    let seed = nodes[0].address();
    let before = nodes[2].address();
    nodes.pop().unwrap().crash();
    nodes.push(Witness::start(&config("n002", &[&seed])));
    let after = nodes[2].address();
    assert_ne!(before, after);
    until_all(&nodes, "n002 is at its new address", |w| {
        let view = w.view();
        view.members.len() == 3
            && view.find("n002").is_some_and(|m| m.state == MemberState::Alive && m.address.to_string() == after)
    });
}

#[test]
fn all_nodes_restarted_at_once_form_again() {
    let addresses: Vec<String> = (0..5).map(|_| free_address().to_string()).collect();
    let seeds: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let start = || -> Vec<Witness> {
        let configs = addresses.iter().enumerate().map(|(i, address)| {
            let mut config = config(&format!("n{i}"), &seeds);
            set(&mut config, "bind", address);
            config
        });
        configs.map(|config| Witness::start(&config)).collect()
    };
    let nodes = start();
    all_list(&nodes, 5);
    let epochs: Vec<_> = nodes.iter().map(|w| w.view().local().epoch).collect();
    nodes.into_iter().for_each(Witness::crash);
    let nodes = start();
    all_list(&nodes, 5);
    for (w, old) in nodes.iter().zip(epochs) {
        assert!(w.view().local().epoch > old, "a new run has a higher epoch");
    }
}

#[test]
fn a_table_kept_from_events_alone_is_the_view() {
    let mut nodes = cluster(6, |_| {});
    let seed = nodes[0].address();
    // Nodes 1 to 5 in turn leave or crash, and come back.
    for turn in 0..15 {
        let i = 1 + turn % 5;
        let name = format!("n{i:03}");
        let gone = nodes.remove(i);
        let leaves = turn % 2 == 0;
        if leaves {
            gone.node.leave(Wait::For(LIMIT)).unwrap();
        }
        gone.crash();
        let expected = if leaves { MemberState::Left } else { MemberState::Dead };
        until_all(&nodes, &format!("{name} is {expected:?}"), |w| w.state_of(&name) == Some(expected));
        nodes.insert(i, Witness::start(&config(&name, &[&seed])));
        all_list(&nodes, 6);
    }
    until_all(&nodes, "events and views agree", |w| {
        let mut table = BTreeMap::new();
        for event in w.events() {
            let Some(member) = event.member else { continue };
            match event.kind {
                EventKind::Forgotten => table.remove(&*member.name.to_string()),
                _ => table.insert(member.name.to_string(), (member.state, member.epoch, member.address)),
            };
        }
        let view = w.view();
        let others = view.members.iter().filter(|m| !m.is_local);
        table == others.map(|m| (m.name.to_string(), (m.state, m.epoch, m.address))).collect()
    });
}

// ---- networks that lose, cut and repeat

/// Nodes behind a relay, once each lists all. Only datagrams: a stream would find its way around a cut.
fn behind_relay(count: usize, adjust: impl Fn(&mut Config)) -> (Relay, Vec<Witness>) {
    let mut relay = Relay::new();
    relay.refuse_streams();
    let nodes: Vec<Witness> = (0..count)
        .map(|i| {
            let mut config = config(&format!("n{i:03}"), &[]);
            adjust(&mut config);
            relay.add(&mut config);
            config.seeds = vec![relay.front(0)];
            Witness::start(&config)
        })
        .collect();
    all_list(&nodes, count);
    (relay, nodes)
}

fn nobody_died(nodes: &[Witness]) {
    for w in nodes {
        let deaths: Vec<_> = w.events().into_iter().filter(|e| e.kind == EventKind::Dead).collect();
        assert!(deaths.is_empty(), "{}", w.describe());
    }
}

#[test]
fn lost_packets_kill_nobody() {
    let (relay, nodes) = behind_relay(10, |config| set(config, "suspicion_mult", "4"));
    // One packet, which between quiet nodes is a probe or its answer.
    relay.drop_next(0, 1, 1);
    eventually("it was dropped", || relay.dropped() == 1, String::new);
    nobody_died(&nodes);
    // Then every fifth, by lot, for as long as it takes to lose a few hundred.
    relay.lose(20);
    eventually("many were dropped", || relay.dropped() > 400, || format!("{} dropped", relay.dropped()));
    nobody_died(&nodes);
    relay.lose(0);
    all_list(&nodes, 10);
}

#[test]
fn a_member_that_one_node_cannot_reach_stays_alive_for_all() {
    let (relay, nodes) = behind_relay(4, |_| {});
    let answers = nodes[0].stat("acks");
    relay.cut(0, 1);
    // Each answer is a probe's end: n001 is among those probed a few times over.
    eventually("n000 goes on probing", || nodes[0].stat("acks") > answers + 30, || nodes[0].describe());
    nobody_died(&nodes);
    all_list(&nodes, 4);
}

#[test]
fn a_partition_heals_by_itself_after_both_sides_declared_each_other_dead() {
    let (relay, nodes) = behind_relay(6, |_| {});
    relay.part(&[0, 1, 2], &[3, 4, 5]);
    until_all(&nodes, "each side lists three", |w| w.alive() == 3);
    until_all(&nodes, "and the others as dead", |w| {
        w.view().members.iter().filter(|m| m.state == MemberState::Dead).count() == 3
    });
    relay.heal();
    all_list(&nodes, 6);
}

#[test]
fn a_recorded_packet_is_worthless_at_its_target_elsewhere_and_after_a_restart() {
    let mut relay = Relay::new();
    relay.refuse_streams();
    let mut configs: Vec<_> = ["a", "b", "c"].iter().map(|name| config(name, &[])).collect();
    for config in &mut configs {
        relay.add(config);
        config.seeds = vec![relay.front(0)];
    }
    let mut nodes: Vec<Witness> = configs.iter().map(Witness::start).collect();
    all_list(&nodes, 3);
    relay.record();
    let to_b = || relay.recorded().into_iter().filter(|p| p.from == 0 && p.to == 1).collect::<Vec<_>>();
    eventually("a has sent something to b", || to_b().len() >= 3, String::new);
    let packet = to_b().swap_remove(0);

    // The packet has arrived once; the same bytes again are a replay.
    let replays = nodes[1].stat("rejected_replay");
    relay.inject(0, 1, &packet.bytes);
    eventually("b rejects it", || nodes[1].stat("rejected_replay") > replays, || nodes[1].describe());
    // At c they are sealed for another run.
    let tags = nodes[2].stat("rejected_tag");
    relay.inject(0, 2, &packet.bytes);
    eventually("c rejects it", || nodes[2].stat("rejected_tag") > tags, || nodes[2].describe());
    // And so they are for b's next run, at the same address.
    nodes.remove(1).crash();
    nodes.insert(1, Witness::start(&configs[1]));
    all_list(&nodes, 3);
    let tags = nodes[1].stat("rejected_tag");
    relay.inject(0, 1, &packet.bytes);
    eventually("the new b rejects it", || nodes[1].stat("rejected_tag") > tags, || nodes[1].describe());
    all_list(&nodes, 3);

    // A flipped bit, wherever it is, is no packet either.
    let alive = to_b().pop().expect("it goes on sending");
    let before = nodes[1].rejected();
    for i in 0..alive.bytes.len() {
        let mut bent = alive.bytes.clone();
        bent[i] ^= 1 << (i % 8);
        relay.inject(0, 1, &bent);
    }
    let sent = alive.bytes.len() as u64;
    eventually("all are rejected", || nodes[1].rejected() >= before + sent, || nodes[1].describe());
    all_list(&nodes, 3);
}

// ---- a process that stands still

/// Not a test of its own: the program that `frozen_for_twenty_seconds` runs as a child, in this same executable.
#[test]
fn child_node() {
    let Ok(seed) = std::env::var("BRUIT_TEST_CHILD_SEED") else { return };
    let node = Node::new(&config("child", &[&seed]), None).unwrap();
    node.start().unwrap();
    loop {
        std::thread::park();
    }
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_process_frozen_for_twenty_seconds_dies_and_comes_back_by_itself() {
    let nodes = cluster(3, |_| {});
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_node", "--nocapture"])
        .env("BRUIT_TEST_CHILD_SEED", nodes[0].address())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let child = Killed(child);
    all_list(&nodes, 4);
    let before = nodes[0].view().find("child").unwrap().clone();
    let signal = |number| {
        // SAFETY: `kill` takes numbers only; the child is ours and not yet waited for.
        assert_eq!(unsafe { libc::kill(child.0.id() as i32, number) }, 0);
    };
    let frozen = Instant::now();
    signal(libc::SIGSTOP);
    until_all(&nodes, "the child is dead", |w| w.state_of("child") == Some(MemberState::Dead));
    eventually("twenty seconds are over", || frozen.elapsed() >= Duration::from_secs(20), String::new);
    signal(libc::SIGCONT);
    all_list(&nodes, 4);
    let after = nodes[0].view().find("child").unwrap().clone();
    assert_eq!(before.run, after.run, "the same run");
    assert!(after.incarnation > before.incarnation, "it refuted its death");
    // What it believed about the others while it stood still does no harm.
    for w in &nodes {
        for other in &nodes {
            assert!(!w.told(EventKind::Dead, &other.name()), "{}", w.describe());
        }
    }
}
