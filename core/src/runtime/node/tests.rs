use std::net::SocketAddr;
use std::sync::atomic::Ordering::*;
use std::sync::{Arc, OnceLock};

use crossbeam_channel::{Sender, bounded};

use super::super::callbacks::LogSink;
use super::super::log::level;
use super::super::share::Runtime;
use super::super::team::Command;
use super::super::{clock, resolver};
use super::thought::Thought;
use super::{Adopt, Node, NodeState, Wait};
use crate::config::Config;
use crate::error::Code;
use crate::outbox::Outbox;
use crate::time::{Duration, Instant};
use crate::view::EventKind;

fn settings(name: &str) -> Config {
    let mut config = Config::new();
    for (key, value) in [("name", name), ("bind", "127.0.0.1:0"), ("dispatch", "manual")] {
        config.set(key, value).unwrap();
    }
    config.keys = vec![[7; 32]];
    config
}

fn node(name: &str, runtime: &Runtime) -> Node {
    let node = Node::new(&settings(name), Some(runtime.clone())).unwrap();
    node.start().unwrap();
    node
}

#[test]
fn a_panic_under_the_lock_fails_its_node_and_no_other() {
    let runtime = Runtime::new().unwrap();
    let [bad, good] = ["bad", "good"].map(|name| node(name, &runtime));
    let address = bad.address().unwrap();
    // Without the hook, that is, without words on stderr.
    let broken = bad.shared().call(|_, _, _| std::panic::resume_unwind(Box::new("on purpose")));
    assert_eq!(broken.map(|()| 0).unwrap_err().code, Code::Failed);
    assert_eq!(bad.state(), NodeState::Failed);
    let told = std::iter::from_fn(|| bad.next_event().unwrap()).find(|e| e.kind == EventKind::Fatal);
    assert!(told.expect("a FATAL event").text.unwrap().contains("on purpose"));
    assert_eq!(bad.join(&["127.0.0.1:1"], Wait::Forever).unwrap_err().code, Code::Failed);
    assert_eq!(bad.members().unwrap_err().code, Code::Failed);
    assert_eq!(bad.set_meta(&[]).unwrap_err().code, Code::Failed);
    assert_eq!(bad.on_event(1, Box::new(|_| {})).unwrap_err().code, Code::Failed);
    assert_eq!(bad.stop(Wait::Forever), Ok(()));
    assert_eq!(bad.state(), NodeState::Stopped);
    std::net::UdpSocket::bind(address).expect("its port is free");

    let third = node("third", &runtime);
    assert_eq!(third.join(&[&good.address().unwrap().to_string()], Wait::Forever), Ok(1));
}

#[test]
fn what_was_queued_before_a_node_failed_is_read_and_then_nobody_waits() {
    let node = node("a", &Runtime::new().unwrap());
    let queue = node.queue(u32::MAX, 10).unwrap();
    let _ = node.shared().call(|_, _, _| std::panic::resume_unwind(Box::new("on purpose")));
    assert_eq!(node.wait(Wait::Forever), Ok(true));
    let last = std::iter::from_fn(|| node.next_event().unwrap()).last().unwrap();
    assert_eq!(last.kind, EventKind::Fatal);
    assert_eq!(node.wait(Wait::Forever).unwrap_err().code, Code::Failed);
    assert!(queue.wait(Wait::Forever) && queue.is_closed());
    assert_eq!(std::iter::from_fn(|| queue.try_next()).last().unwrap().kind, EventKind::Fatal);
    assert!(queue.wait(Wait::Forever), "the end");
    assert_eq!(node.queue(1, 1).unwrap_err().code, Code::Failed);
}

#[test]
fn a_driver_that_panics_fails_all_its_nodes_and_leaves_nobody_waiting() {
    let runtime = Runtime::new().unwrap();
    let nodes = ["a", "b"].map(|name| node(name, &runtime));
    let addresses = nodes.each_ref().map(|node| node.address().unwrap());
    let waiting = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| nodes[0].join(&[&dead_end().to_string()], Wait::Forever));
        while nodes[0].shared().peek(|live| live.joins.is_empty()).unwrap() {
            std::thread::yield_now();
        }
        nodes[0].shared().with_threads(|threads| _ = threads.command(Command::Panic));
        waiting.join().unwrap()
    });
    assert_eq!(waiting.unwrap_err().code, Code::Failed);
    for node in &nodes {
        while node.wait(Wait::Forever).is_ok_and(|items| items) {
            if let Some(event) = node.next_event().unwrap().filter(|e| e.kind == EventKind::Fatal) {
                assert!(event.text.unwrap().contains("on purpose"));
            }
        }
        assert_eq!(node.state(), NodeState::Failed);
        assert_eq!(node.set_meta(&[]).unwrap_err().code, Code::Failed);
    }
    for (node, address) in nodes.iter().zip(addresses) {
        assert_eq!(node.stop(Wait::Forever), Ok(()));
        assert_eq!(node.state(), NodeState::Stopped);
        std::net::UdpSocket::bind(address).expect("its port is free");
    }
    let late = Node::new(&settings("late"), Some(runtime.clone())).unwrap();
    assert_eq!(late.start().unwrap_err().code, Code::Io);
    assert_eq!(late.state(), NodeState::New);
}

#[test]
fn a_panic_on_the_driver_fails_its_node_and_no_other() {
    let runtime = Runtime::new().unwrap();
    let [bad, good] = ["bad", "good"].map(|name| node(name, &runtime));
    let waiting = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| bad.join(&[&dead_end().to_string()], Wait::Forever));
        while bad.shared().peek(|live| live.joins.is_empty()).unwrap() {
            std::thread::yield_now();
        }
        let mut out = Outbox::new(1400);
        let thought = bad.shared().think(&mut out, clock::now(), |_, _| std::panic::resume_unwind(Box::new(7)));
        assert!(thought.map(|t: Thought<()>| t.value).is_none());
        waiting.join().unwrap()
    });
    assert_eq!(waiting.unwrap_err().code, Code::Failed);
    assert_eq!(node("third", &runtime).join(&[&good.address().unwrap().to_string()], Wait::Forever), Ok(1));
}

#[test]
fn nothing_leads_out_of_stopped() {
    let node = node("a", &Runtime::new().unwrap());
    assert_eq!(node.stop(Wait::Forever), Ok(()));
    for state in [NodeState::Leaving, NodeState::Left, NodeState::Failed] {
        node.shared().set_state(state);
        assert_eq!(node.state(), NodeState::Stopped);
    }
}

#[test]
fn a_deadline_that_is_past_when_it_is_set_is_not_our_delay() {
    let node = node("a", &Runtime::new().unwrap());
    // Its timer is set to the beginning of time.
    node.shared().peek(|live| live.engine.reconfigure(Instant::ZERO, node.shared().config.lock().clone())).unwrap();
    node.shared().poke_driver();
    while node.shared().poked.load(Acquire) {
        std::thread::yield_now();
    }
    // What stops it is obeyed after the tick.
    assert_eq!(node.stop(Wait::Forever), Ok(()));
    assert_eq!(node.stat("late_ticks"), Ok(0));
}

/// Keeps the resolver from everything that is asked later, until it is dropped.
fn busy_resolver() -> Sender<()> {
    let (busy, over) = bounded(0);
    resolver::resolve("127.0.0.1".into(), 1, move |_| _ = over.recv());
    busy
}

#[test]
fn a_join_whose_names_resolve_too_late_goes_on_by_itself() {
    let runtime = Runtime::new().unwrap();
    let [a, b] = ["a", "b"].map(|name| node(name, &runtime));
    let busy = busy_resolver();
    let contact = format!("localhost:{}", a.address().unwrap().port());
    let early = b.join(&[&contact], Wait::For(Duration::from_millis(20)));
    assert_eq!(early.unwrap_err().code, Code::Timeout);
    drop(busy);
    while b.members().unwrap().members.len() < 2 {
        std::thread::yield_now();
    }
}

#[test]
fn a_seed_whose_name_resolves_slowly_is_asked_for_once() {
    let mut config = settings("a");
    config.seeds = vec!["localhost:1".into()];
    let node = Node::new(&config, None).unwrap();
    let busy = busy_resolver();
    for _ in 0..3 {
        assert!(node.shared().resolve_seeds(&[0]).is_empty());
    }
    assert_eq!(Arc::weak_count(node.shared()), 1, "one question");
    drop(busy);
    while Arc::weak_count(node.shared()) > 0 {
        std::thread::yield_now();
    }
    assert!(node.shared().asked.lock().is_empty(), "it may be asked again");
}

#[test]
fn a_log_sink_that_causes_lines_keeps_nobody_for_ever() {
    let own = Arc::new(OnceLock::<Node>::new());
    let node = own.clone();
    let sink = LogSink::new(level::INFO, move |_, _, _| {
        node.get().unwrap().shared().log(level::INFO, "test", || "again".into());
    });
    let node = own.get_or_init(|| Node::new_with(&settings("a"), None, Adopt::default(), Some(sink)).unwrap());
    node.shared().log(level::INFO, "test", || "first".into());
    for _ in 0..3 {
        assert_eq!(node.wait(Wait::Forever), Ok(true), "the line that the last one caused");
        assert_eq!(node.dispatch(0), Ok(0));
    }
    node.free().unwrap();
}

/// An address that takes datagrams and never answers.
fn dead_end() -> SocketAddr {
    static SOCKET: OnceLock<std::net::UdpSocket> = OnceLock::new();
    SOCKET.get_or_init(|| std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).local_addr().unwrap()
}
