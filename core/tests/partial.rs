//! `membership = partial` on real loopback sockets, sealed: nobody lists all, and all hear what is said to all.

mod support;

use std::sync::{Arc, Mutex};

use bruit_core::config::Config;
use bruit_core::engine::Sending;
use bruit_core::error::Code;
use bruit_core::message::ToAll;
use bruit_core::runtime::{Runtime, Wait};
use bruit_core::view::EventKind;
use support::{LIMIT, Witness, config, eventually, set};

const LONG: Wait = Wait::For(LIMIT);

/// What one node heard: by whom, and what.
type Heard = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

fn partial(name: &str, seeds: &[&str]) -> Config {
    let mut config = config(name, seeds);
    for (key, value) in [
        ("membership", "partial"),
        ("probe_interval", "1s"),
        ("probe_timeout", "300ms"),
        ("probe_indirect_timeout", "300ms"),
        ("shuffle_interval", "2s"),
        ("link_timeout", "10s"),
    ] {
        set(&mut config, key, value);
    }
    config
}

fn listening(nodes: &[Witness]) -> Vec<Heard> {
    nodes
        .iter()
        .map(|witness| {
            let heard = Heard::default();
            let note = heard.clone();
            let hear = move |m: &bruit_core::runtime::Message| {
                note.lock().unwrap().push((m.sender().to_string(), m.data().to_vec()));
            };
            witness.node.on_message("news", Box::new(hear)).unwrap();
            heard
        })
        .collect()
}

fn neighbours(witness: &Witness) -> Vec<String> {
    witness.view().members.iter().filter(|m| m.is_neighbour).map(|m| m.name.to_string()).collect()
}

/// All are told what one says: each once.
fn all_hear(nodes: &[Witness], heard: &[Heard], by: usize, what: &[u8]) {
    heard.iter().for_each(|h| h.lock().unwrap().clear());
    nodes[by].node.broadcast("news", what, ToAll { loopback: true, ..ToAll::default() }, LONG).unwrap();
    let said = (nodes[by].name(), what.to_vec());
    let count = |h: &Heard| h.lock().unwrap().iter().filter(|m| **m == said).count();
    let state = || nodes.iter().map(Witness::describe).collect::<Vec<_>>().join("\n");
    eventually("all hear it", || heard.iter().all(|h| count(h) >= 1), state);
    assert!(heard.iter().all(|h| count(h) == 1), "once");
}

#[test]
fn thirty_nodes_that_know_their_neighbours_only_hear_each_other_once_also_when_some_die() {
    let runtime = Runtime::new().unwrap();
    let start =
        |i: usize, seeds: &[&str]| Witness::start_on(&partial(&format!("n{i:02}"), seeds), Some(runtime.clone()));
    let mut nodes = vec![start(0, &[])];
    let seed = nodes[0].address();
    nodes.extend((1..30).map(|i| start(i, &[&seed])));
    let has_some = |w: &Witness| (3..=5).contains(&neighbours(w).len());
    support::until_all(&nodes, "each has neighbours", has_some);
    assert!(nodes.iter().any(|w| w.view().members.len() < 30), "nobody needs to list all");
    let heard = listening(&nodes);
    all_hear(&nodes, &heard, 29, b"all are here");

    // One that is listed can be spoken to, and others not.
    let view = nodes[3].view();
    let friend = view.members.iter().find(|m| m.is_neighbour).expect("it has some").name.to_string();
    nodes[3].node.send(&friend, "chat", b"hello", Sending::Reliable, Wait::Now).unwrap();
    let stranger = (0..30).map(|i| format!("n{i:02}")).find(|name| view.find(name).is_none());
    if let Some(stranger) = stranger {
        let refused = nodes[3].node.send(&stranger, "chat", b"hello", Sending::Reliable, Wait::Now);
        assert_eq!(refused.map_err(|e| e.code), Err(Code::NotFound));
    }

    for _ in 0..8 {
        nodes.remove(11).crash();
    }
    let mut heard = heard;
    heard.drain(11..19);
    let gone = |name: &String| ("n11".."n19").contains(&name.as_str());
    let replaced = |w: &Witness| has_some(w) && !neighbours(w).iter().any(gone);
    support::until_all(&nodes, "the dead are replaced", replaced);
    all_hear(&nodes, &heard, 5, b"some are left");
}

#[test]
fn who_lists_all_and_who_does_not_refuse_each_other() {
    for (first, second, why) in [
        (config("all", &[]), partial("few", &[]), "membership = partial, here full"),
        (partial("few", &[]), config("all", &[]), "membership = full, here partial"),
    ] {
        let host = Witness::start(&first);
        let mut config = second;
        config.seeds = vec![host.address()];
        let guest = Witness::start(&config);
        let warned = |w: &Witness| {
            w.events().iter().any(|event| {
                event.kind == EventKind::Warning && event.text.as_ref().is_some_and(|text| text.contains(why))
            })
        };
        guest.until("it is told why", warned);
        assert_eq!((host.alive(), guest.alive()), (1, 1));
        assert!(host.stat("joins_refused") > 0);
    }
}
