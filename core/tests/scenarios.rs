//! Clusters of real nodes on real loopback sockets, from the outside: what an application is promised, and
//! old bugs of other gossip libraries that must not be ours.
//!
//! Times are those of `support::config`, some five times quicker than `local`. Limits are generous: these tests
//! say that something happens, the benchmarks say how fast.

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bruit_core::config::Config;
use bruit_core::error::Code;
use bruit_core::runtime::{Runtime, Wait};
use bruit_core::view::{EventKind, MemberState};
use support::relay::Relay;
use support::{LIMIT, Witness, all_list, calm, cluster, config, eventually, free_address, set, until_all};

// ---- finding one another

#[test]
fn two_nodes_find_each_other() {
    let nodes = cluster(2, |_| {});
    nodes[0].until("it is told", |w| w.told(EventKind::Join, "n001"));
    assert_eq!(nodes[1].view().find("n000").unwrap().address.to_string(), nodes[0].address());
}

#[test]
fn three_nodes_that_know_only_the_first_find_one_another() {
    let nodes = cluster(3, |_| {});
    nodes[2].until("it is told of all", |w| w.told(EventKind::Join, "n000") && w.told(EventKind::Join, "n001"));
    assert_eq!(nodes[2].story("n001"), [EventKind::Join], "once each");
}

#[test]
fn ten_nodes_join_one_seed_at_once() {
    let seed = Witness::start(&config("seed", &[]));
    let join = |i: usize| {
        let mut config = config(&format!("n{i}"), &[]);
        set(&mut config, "join_timeout", "30s");
        let node = Witness::start(&config);
        assert_eq!(node.node.join(&[&seed.address()], Wait::For(LIMIT)).expect("the seed answers"), 1);
        node
    };
    let mut nodes: Vec<Witness> = std::thread::scope(|scope| {
        let join = &join;
        let joins: Vec<_> = (0..10).map(|i| scope.spawn(move || join(i))).collect();
        joins.into_iter().map(|j| j.join().expect("no join failed")).collect()
    });
    nodes.push(seed);
    all_list(&nodes, 11);
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
fn a_name_in_use_is_refused_with_the_reason_and_its_holder_stays() {
    let nodes = cluster(2, calm);
    let holder = nodes[1].view().local().clone();
    let mut config = config("n001", &[]);
    calm(&mut config);
    let twin = Witness::start(&config);
    for asked in &nodes {
        let error = twin.node.join(&[&asked.address()], Wait::For(LIMIT)).expect_err("the name is taken");
        assert_eq!(error.code, Code::Refused, "{error}");
        assert!(error.text.contains("name in use"), "{error}");
    }
    twin.until("it is warned", |w| {
        w.events().iter().any(|e| {
            e.kind == EventKind::Warning && e.text.as_ref().is_some_and(|text| text.contains("refused this node"))
        })
    });
    for w in &nodes {
        let view = w.view();
        assert_eq!(view.members.len(), 2, "{}", w.describe());
        assert_eq!(view.find("n001").unwrap().run, holder.run);
    }
    assert_eq!(twin.view().members.len(), 1, "{}", twin.describe());
}

#[test]
fn when_clusters_merge_in_which_one_name_lives_twice_the_older_run_is_told_and_falls_silent() {
    let start = |name: &str, seeds: &[&str]| {
        let mut config = config(name, seeds);
        calm(&mut config);
        Witness::start(&config)
    };
    let a = start("a", &[]);
    let old = start("twin", &[&a.address()]);
    a.until("lists two", |w| w.alive() == 2);
    // Epochs are in milliseconds: of two runs of one, chance decides which is the older.
    let ms = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    old.until("is older", |w| w.view().local().epoch.0 < ms());
    let b = start("b", &[]);
    let new = start("twin", &[&b.address()]);
    b.until("lists two", |w| w.alive() == 2);
    let (old_run, new_run) = (old.view().local().run, new.view().local().run);
    assert_ne!(old_run, new_run);
    assert!(old.view().local().epoch < new.view().local().epoch);

    assert_eq!(a.node.join(&[&b.address()], Wait::For(LIMIT)), Ok(1));
    old.until("it is told", |w| w.told(EventKind::Conflict, "twin"));
    let conflict = old.events().into_iter().find(|e| e.kind == EventKind::Conflict).unwrap();
    assert_eq!(conflict.member.unwrap().run, new_run);
    let nodes = [a, b, new];
    until_all(&nodes, "the new run is the one", |w| {
        w.alive() == 3 && w.view().find("twin").is_some_and(|m| m.run == new_run)
    });
    assert!(!nodes[2].told(EventKind::Conflict, "twin"), "one of the two keeps the name");
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
    nodes.pop().unwrap().crash();
    until_all(&nodes, "n004 is dead", |w| w.state_of("n004") == Some(MemberState::Dead));
    let mut story = vec![EventKind::Join, EventKind::Suspect, EventKind::Dead];
    until_all(&nodes, "and they were told", |w| w.told(EventKind::Dead, "n004"));
    for w in &nodes {
        assert_eq!(w.story("n004"), story, "{}", w.describe());
    }

    nodes.push(Witness::start(&config("n004", &[&seed])));
    all_list(&nodes, 5);
    story.push(EventKind::Alive);
    until_all(&nodes[..4], "and they were told", |w| w.story("n004").len() >= story.len());
    for w in &nodes[..4] {
        assert_eq!(w.story("n004"), story, "{}", w.describe());
        assert!(w.view().find("n004").unwrap().epoch > epoch);
        assert_eq!(w.view().members.len(), 5, "no second entry");
    }
}

/// Heartbeats each 100 ms and a threshold of 8: a silence of 1.84 s is suspected.
#[test]
fn with_detector_phi_who_falls_silent_is_dead_and_who_is_heard_again_is_alive() {
    let phi = |config: &mut Config| {
        let times = [("probe_timeout_min", "50ms"), ("probe_interval", "100ms"), ("phi_min_deviation", "50ms")];
        times.into_iter().chain([("detector", "phi")]).for_each(|(key, value)| set(config, key, value));
    };
    let mut nodes = cluster(4, phi);
    let seed = nodes[0].address();
    nodes.pop().unwrap().crash();
    until_all(&nodes, "they were told that n003 is dead", |w| w.told(EventKind::Dead, "n003"));
    let mut story = vec![EventKind::Join, EventKind::Suspect, EventKind::Dead];
    for w in &nodes {
        assert_eq!(w.story("n003"), story, "{}", w.describe());
        let probed = w.stat("acks") + w.stat("nacks");
        assert!(probed < w.stat("packets_in") / 2, "{probed} answers: heartbeats are what it lives by");
    }
    let mut config = config("n003", &[&seed]);
    phi(&mut config);
    nodes.push(Witness::start(&config));
    all_list(&nodes, 4);
    story.push(EventKind::Alive);
    until_all(&nodes[..3], "and they were told", |w| w.story("n003") == story);
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
    // The news goes to both a few times over; what else there is to say is an answer to a ping at most.
    eventually("it is stuck", || relay.held() >= 4, || nodes[2].describe());
    relay.hold_no_more();
    let c = nodes.pop().unwrap();
    c.node.leave(Wait::For(LIMIT)).expect("both acknowledge it");
    until_all(&nodes, "c has left", |w| w.told(EventKind::Left, "c"));
    c.crash();
    nodes.iter().for_each(Witness::forget_events);
    assert!(relay.release() > 0, "now it arrives");
    until_all(&nodes, "c is forgotten", |w| w.told(EventKind::Forgotten, "c"));
    for w in &nodes {
        assert!(!w.told(EventKind::Alive, "c") && !w.told(EventKind::Join, "c"), "{}", w.describe());
        assert_eq!(w.state_of("c"), None);
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

/// Waits until no suspicion is open any more; none may have ended in a death.
fn nobody_died(nodes: &[Witness]) {
    all_list(nodes, nodes.len());
    for w in nodes {
        assert_eq!(w.stat("deaths"), 0, "{}", w.describe());
    }
}

/// A suspect has two seconds at least, and a busy machine time to let it refute.
fn patient(config: &mut Config) {
    set(config, "suspicion_mult", "10");
}

/// Waits until each of them has had so many answers to its pings.
fn until_all_have_probed(nodes: &[Witness], times: u64) {
    let before: Vec<u64> = nodes.iter().map(|w| w.stat("acks")).collect();
    for (w, before) in nodes.iter().zip(before) {
        w.until("it goes on probing", |w| w.stat("acks") >= before + times);
    }
}

#[test]
fn lost_packets_kill_nobody() {
    let (relay, nodes) = behind_relay(10, patient);
    // One packet, which between quiet nodes is a probe or its answer.
    relay.drop_next(0, 1, 1);
    eventually("it was dropped", || relay.dropped() == 1, String::new);
    until_all_have_probed(&nodes, 10);
    nobody_died(&nodes);
    // Then every fifth, by lot, for as long as it takes to lose a few hundred.
    relay.lose(20);
    eventually("many were dropped", || relay.dropped() > 400, || format!("{} dropped", relay.dropped()));
    relay.lose(0);
    nobody_died(&nodes);
}

#[test]
fn a_member_that_one_node_cannot_reach_stays_alive_for_all() {
    let (relay, nodes) = behind_relay(4, patient);
    relay.cut(0, 1);
    // n001 is among those probed a few times over.
    until_all_have_probed(&nodes, 30);
    assert!(relay.dropped() > 0);
    nobody_died(&nodes);
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

/// Not a test of its own: the program that `a_process_frozen_for_twenty_seconds_…` runs as a child. It tells how it
/// fares whenever it is sent a line, and ends with its input.
#[test]
#[ignore = "run by a_process_frozen_for_twenty_seconds_dies_and_comes_back_by_itself"]
fn child_node() {
    let Ok(seed) = std::env::var("BRUIT_TEST_CHILD_SEED") else { return };
    let mut config = config("child", &[&seed]);
    calm(&mut config);
    let node = Witness::start(&config);
    for line in std::io::stdin().lines() {
        line.expect("the parent writes lines");
        let accused = node.events().iter().filter(|e| matches!(e.kind, EventKind::Suspect | EventKind::Dead)).count();
        let [acks, stalls, late_ticks] = ["acks", "stalls", "late_ticks"].map(|name| node.stat(name));
        println!("\nreport {acks} {stalls} {late_ticks} {accused}");
    }
}

/// How the child fares.
#[derive(Debug)]
struct Report {
    acks: u64,
    stalls: u64,
    late_ticks: u64,
    /// Suspicions and deaths of others that it was told of.
    accused: u64,
}

struct ChildNode {
    process: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl ChildNode {
    fn start(seed: &str) -> ChildNode {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_node", "--ignored", "--nocapture"])
            .env("BRUIT_TEST_CHILD_SEED", seed)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (questions, answers) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        ChildNode { process, questions, answers: BufReader::new(answers) }
    }

    fn signal(&self, number: i32) {
        // SAFETY: `kill` takes numbers only; the child is ours and not yet waited for.
        assert_eq!(unsafe { libc::kill(self.process.id() as i32, number) }, 0);
    }

    fn report(&mut self) -> Report {
        self.questions.write_all(b"\n").unwrap();
        let mut line = String::new();
        while !line.starts_with("report ") {
            line.clear();
            assert!(self.answers.read_line(&mut line).unwrap() > 0, "the child has ended");
        }
        let numbers: Vec<u64> = line.split_whitespace().skip(1).map(|n| n.parse().unwrap()).collect();
        let &[acks, stalls, late_ticks, accused] = &numbers[..] else { panic!("{line}") };
        Report { acks, stalls, late_ticks, accused }
    }
}

impl Drop for ChildNode {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_process_frozen_for_twenty_seconds_dies_and_comes_back_by_itself() {
    let nodes = cluster(3, calm);
    let mut child = ChildNode::start(&nodes[0].address());
    all_list(&nodes, 4);
    let before = nodes[0].view().find("child").unwrap().clone();
    let report_before = child.report();
    let frozen = Instant::now();
    child.signal(libc::SIGSTOP);
    until_all(&nodes, "the child is dead", |w| w.state_of("child") == Some(MemberState::Dead));
    eventually("twenty seconds are over", || frozen.elapsed() >= Duration::from_secs(20), String::new);
    child.signal(libc::SIGCONT);
    all_list(&nodes, 4);
    let after = nodes[0].view().find("child").unwrap().clone();
    assert_eq!(before.run, after.run, "the same run");
    assert!(after.incarnation > before.incarnation, "it refuted its death");

    // What it believes of the others because it stood still shows within its next few probes.
    let acks = child.report().acks;
    eventually("the child goes on probing", || child.report().acks >= acks + 6, String::new);
    let report = child.report();
    assert!(report.stalls > report_before.stalls && report.late_ticks > report_before.late_ticks, "{report:?}");
    assert_eq!(report.accused, report_before.accused, "{report:?}");
    for w in &nodes {
        for other in &nodes {
            assert!(!w.told(EventKind::Dead, &other.name()), "{}", w.describe());
        }
    }
}
