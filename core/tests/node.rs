//! The handle: what its calls promise about life and death, threads, callbacks and forks, on real loopback sockets.
//! Every wait is for a fact, with one generous limit.

mod support;

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bruit_core::config::Config;
use bruit_core::error::Code;
use bruit_core::runtime::{Adopt, LogSink, Node, NodeState, Runtime, Stats, Wait};
use bruit_core::view::{Event, EventKind, MemberState};
use support::{LIMIT, Witness, all_list, cluster, config, eventually, free_address, set, until_all};

const FOR: Wait = Wait::For(LIMIT);

fn manual(name: &str, seeds: &[&str]) -> Config {
    let mut config = config(name, seeds);
    set(&mut config, "dispatch", "manual");
    config
}

fn started(config: &Config) -> Node {
    let node = Node::new(config, None).unwrap();
    node.start().unwrap();
    node
}

fn until(what: &str, fact: impl FnMut() -> bool) {
    eventually(what, fact, String::new);
}

fn code<T: std::fmt::Debug>(result: bruit_core::error::Result<T>) -> Code {
    result.expect_err("it must fail").code
}

/// Runs one `#[ignore]`d test of this file in a process of its own: for facts about a whole process.
fn in_own_process(test: &str) {
    let run = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&run.stdout).into_owned() + &String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success() && text.contains("1 passed"), "{text}");
}

fn count(dir: &str) -> usize {
    std::fs::read_dir(dir).unwrap().count()
}

fn our_threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|t| std::fs::read_to_string(t.ok()?.path().join("comm")).ok());
    names.map(|n| n.trim().to_owned()).filter(|n| n.starts_with("bruit-")).collect()
}

fn thread_id() -> i32 {
    // SAFETY: no arguments, and it cannot fail.
    unsafe { libc::gettid() }
}

/// Whether that thread of this process waits for something.
fn is_asleep(thread: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap_or_default();
    // Behind the name, which may contain anything.
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('S'))
}

// ---- life

#[test]
fn a_join_says_how_many_answered_and_a_crash_and_a_farewell_are_told_apart() {
    let nodes: Vec<Witness> = ["a", "b", "c"].iter().map(|name| Witness::start(&config(name, &[]))).collect();
    let (a, b) = (nodes[0].address(), nodes[1].address());
    assert_eq!(nodes[1].node.join(&[&a], FOR), Ok(1));
    assert_eq!(nodes[2].node.join(&[&a, &b], FOR), Ok(2));
    all_list(&nodes, 3);
    let mut nodes = nodes.into_iter();
    let (a, b, c) = (nodes.next().unwrap(), nodes.next().unwrap(), nodes.next().unwrap());
    b.crash();
    a.until("b is dead", |w| w.told(EventKind::Dead, "b"));
    c.until("for c too", |w| w.told(EventKind::Dead, "b"));
    assert_eq!(c.node.leave(FOR), Ok(()));
    assert_eq!(c.node.state(), NodeState::Left);
    assert_eq!(c.node.leave(FOR), Ok(()), "again: nothing to do");
    a.until("c has left", |w| w.told(EventKind::Left, "c"));
    assert_eq!(code(c.node.join(&["127.0.0.1:1"], FOR)), Code::State);
}

#[test]
fn a_restart_under_the_same_name_has_a_higher_epoch() {
    let mut nodes = cluster(2, |_| {});
    let seed = nodes[0].address();
    let before = nodes[0].view().find("n001").unwrap().clone();
    nodes.pop().unwrap().crash();
    nodes.push(Witness::start(&config("n001", &[&seed])));
    nodes[0].until("the new run is listed", |w| {
        w.view().find("n001").is_some_and(|m| m.state == MemberState::Alive && m.run != before.run)
    });
    assert!(nodes[0].view().find("n001").unwrap().epoch > before.epoch);
}

#[test]
fn each_state_refuses_what_it_cannot_do() {
    let node = Node::new(&config("a", &[]), None).unwrap();
    assert_eq!(node.state(), NodeState::New);
    assert_eq!(&*node.name(), "a");
    assert_eq!(code(node.address()), Code::State);
    assert_eq!(code(node.members()), Code::State);
    assert_eq!(code(node.join(&["127.0.0.1:1"], FOR)), Code::State);
    assert_eq!(code(node.leave(FOR)), Code::State);
    node.start().unwrap();
    assert_eq!(code(node.start()), Code::State);
    assert_eq!(node.state(), NodeState::Running);
    assert_eq!(code(node.join(&[], FOR)), Code::Invalid);
    assert_eq!(code(node.join(&["no port:x"], FOR)), Code::Address);
    assert_eq!(code(node.unsubscribe(77)), Code::NotFound);
    assert_eq!(code(node.stat("nothing")), Code::NotFound);
    assert_eq!(code(node.dispatch(0)), Code::State, "it has a thread for that");
    assert_eq!(code(node.event_fd()), Code::State);
    assert_eq!(code(node.set("bind", "127.0.0.1:1")), Code::State, "not a live option");
    assert_eq!(node.set("probe_interval", "300ms"), Ok(()));
    node.stop(FOR).unwrap();
    node.stop(FOR).unwrap();
    assert_eq!(node.stop(Wait::Now), Ok(()), "it has stopped");
    assert_eq!(node.state(), NodeState::Stopped);
    assert_eq!(code(node.start()), Code::State);
    assert_eq!(code(node.on_event(u32::MAX, Box::new(|_| {}))), Code::State);
    assert_eq!(code(node.set_meta(&[("k", None)])), Code::State);
    assert_eq!(node.members().unwrap().members.len(), 1, "the last view stays");
    node.free().unwrap();
}

#[test]
fn a_start_that_fails_leaves_the_node_new() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let mut config = config("a", &[]);
    set(&mut config, "bind", &address.to_string());
    let node = Node::new(&config, None).unwrap();
    let error = node.start().unwrap_err();
    assert_eq!((error.code, error.errno), (Code::Io, libc::EADDRINUSE), "{error}");
    assert_eq!(node.state(), NodeState::New);
    drop(taken);
    // The port may have served a connection of another test for TCP.
    until("the port is free", || node.start().is_ok());
    assert_eq!(node.address().unwrap(), address);
}

#[test]
fn without_a_key_only_loopback_is_served() {
    let mut config = config("a", &[]);
    config.keys.clear();
    set(&mut config, "bind", "0.0.0.0:0");
    assert_eq!(code(Node::new(&config, None)), Code::Auth);
    set(&mut config, "bind", "127.0.0.1:0");
    set(&mut config, "dispatch", "manual");
    let node = started(&config);
    assert_eq!(node.next_event().unwrap().expect("a warning").kind, EventKind::Warning);
    let mut config = support::config("b", &[]);
    set(&mut config, "bind", "0.0.0.0:0");
    let address = started(&config).address().unwrap();
    assert!(!address.ip().is_unspecified() && address.port() != 0, "{address}");
}

#[test]
fn an_automatic_name_has_the_process_id_and_is_unique() {
    let names = [0, 1].map(|_| Node::new(&config("", &[]), None).unwrap().name().to_string());
    assert_ne!(names[0], names[1]);
    assert!(names[0].contains(&format!("-{}-", std::process::id())), "{}", names[0]);
}

#[test]
fn five_hundred_rounds_leave_nothing_behind() {
    in_own_process("rounds");
}

#[test]
#[ignore = "run by five_hundred_rounds_leave_nothing_behind"]
fn rounds() {
    let peer = started(&config("peer", &[]));
    let seed = peer.address().unwrap().to_string();
    let round = |i: usize| {
        let mut config = config(&format!("n{}", i % 10), &[&seed]);
        // A stop that waited for any of these would be late: it has a tenth of that.
        for key in ["join_timeout", "link_timeout", "probe_interval", "heal_interval", "sync_interval"] {
            set(&mut config, key, "10m");
        }
        if i.is_multiple_of(2) {
            set(&mut config, "dispatch", "manual");
        }
        let node = Node::new(&config, None).unwrap();
        node.on_event(u32::MAX, Box::new(|_| {})).unwrap();
        node.start().unwrap();
        if i.is_multiple_of(2) {
            node.event_fd().unwrap();
        }
        if i.is_multiple_of(5) {
            // A name in use is refused, and so may this be; what it leaves behind is the same.
            let _ = node.join(&[&seed], Wait::For(Duration::from_millis(50)));
        }
        node.stop(FOR).expect("in time");
    };
    round(0);
    let before = (count("/proc/self/fd"), our_threads().len());
    (1..=500).for_each(round);
    // The peer may hold links with the last ones for a moment.
    eventually(
        "as before",
        || (count("/proc/self/fd"), our_threads().len()) <= before,
        || format!("{before:?}, now {} descriptors and {:?}", count("/proc/self/fd"), our_threads()),
    );
    peer.stop(FOR).unwrap();
    until("no thread of ours is left", || our_threads().is_empty());
}

#[test]
fn a_process_has_a_handful_of_threads_and_they_hear_no_signals() {
    in_own_process("threads");
}

#[test]
#[ignore = "run by a_process_has_a_handful_of_threads_and_they_hear_no_signals"]
fn threads() {
    let runtime = Runtime::new().unwrap();
    let nodes: Vec<Node> = (0..50)
        .map(|i| {
            let node = Node::new(&config(&format!("n{i}"), &[]), Some(runtime.clone())).unwrap();
            node.on_event(u32::MAX, Box::new(|_| {})).unwrap();
            node.start().unwrap();
            node
        })
        .collect();
    until("the threads have names", || {
        let mut names = our_threads();
        names.sort();
        names == ["bruit-cb", "bruit-io"]
    });
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        if status.contains("bruit-") {
            let blocked = status.lines().find_map(|l| l.strip_prefix("SigBlk:")).unwrap().trim();
            let blocked = u64::from_str_radix(blocked, 16).unwrap();
            // All but KILL, STOP and the two that the C library keeps for itself.
            assert_eq!(!blocked & !(1 << 8) & !(1 << 18) & !(3 << 31), 0, "{blocked:x}");
        }
    }
    drop(runtime);
    for node in &nodes {
        node.stop(FOR).unwrap();
    }
    // The kernel lists a thread a moment longer than the one that joined it waits.
    until("the last one joins them", || our_threads().is_empty());
}

#[test]
fn dropping_the_last_handle_releases_the_node() {
    in_own_process("drop_releases");
}

#[test]
#[ignore = "run by dropping_the_last_handle_releases_the_node"]
fn drop_releases() {
    let node = Node::new(&config("a", &[]), None).unwrap();
    let dropped = Arc::new(());
    let guard = dropped.clone();
    node.on_event(u32::MAX, Box::new(move |_| drop(guard.clone()))).unwrap();
    node.start().unwrap();
    let other = node.clone();
    drop(node);
    assert_eq!(other.state(), NodeState::Running);
    let address = other.address().unwrap();
    drop(other);
    assert_eq!(Arc::strong_count(&dropped), 1, "the box is dropped");
    until("the port is free", || UdpSocket::bind(address).is_ok());
    until("the threads end", || our_threads().is_empty());
}

// ---- sockets

#[test]
fn tcp_alone_makes_a_cluster_too() {
    let nodes = cluster(3, |config| set(config, "transport", "tcp"));
    for w in &nodes {
        assert_eq!(w.stat("datagrams_out"), 0);
        assert!(w.stat("records_out") > 0);
        UdpSocket::bind(w.address()).expect("no UDP socket is bound");
    }
    let mut nodes = nodes;
    nodes.pop().unwrap().crash();
    until_all(&nodes, "n002 is dead", |w| w.state_of("n002") == Some(MemberState::Dead));
    assert!(nodes.iter().all(|w| w.stat("links") <= 4), "links are kept and used both ways");
}

#[test]
fn a_refused_port_is_learned_from_the_kernel() {
    let nobody = free_address();
    let mut config_a = config("a", &[&nobody.to_string()]);
    set(&mut config_a, "seed_retry_max", "100ms");
    let a = Witness::start(&config_a);
    a.until("ICMP says so", |w| w.stat("unreachable") > 0);
    set(&mut config_a, "name", "b");
    set(&mut config_a, "transport", "tcp");
    let b = Witness::start(&config_a);
    b.until("connect says so", |w| w.stat("links_refused") > 0);
}

#[test]
fn ipv6_works_and_one_socket_serves_both_families() {
    if UdpSocket::bind("[::1]:0").is_err() {
        eprintln!("skipped: this machine has no IPv6");
        return;
    }
    let mut config_a = config("a", &[]);
    let port = free_address().port();
    set(&mut config_a, "bind", &format!("[::]:{port}"));
    set(&mut config_a, "advertise", &format!("[::1]:{port}"));
    let a = Witness::start(&config_a);
    assert_eq!(a.address(), format!("[::1]:{port}"));
    let mut config_b = config("b", &[]);
    set(&mut config_b, "bind", "[::1]:0");
    let b = Witness::start(&config_b);
    assert_eq!(b.node.join(&[&a.address()], FOR), Ok(1));
    b.until("lists two", |w| w.alive() == 2);
    // Over IPv4 into the same socket. That c cannot reach the others at ::1 is the price of its own bind.
    let mut config_c = config("c", &[]);
    config_c.seeds.clear();
    let c = Witness::start(&config_c);
    assert_eq!(c.node.join(&[&format!("127.0.0.1:{port}")], FOR), Ok(1));
}

#[test]
fn sockets_of_somebody_else_are_used_and_left_to_them() {
    let address = free_address();
    let (udp, tcp) = (UdpSocket::bind(address).unwrap(), TcpListener::bind(address).unwrap());
    let adopt = Adopt { udp: Some(udp.as_raw_fd()), tcp: Some(tcp.as_raw_fd()) };
    let node = Node::new_with(&config("a", &[]), None, adopt, None).unwrap();
    node.start().unwrap();
    assert_eq!(node.address().unwrap(), address);
    let b = Witness::start(&config("b", &[]));
    assert_eq!(b.node.join(&[&address.to_string()], FOR), Ok(1));
    node.stop(FOR).unwrap();
    assert_eq!(udp.local_addr().unwrap(), address, "still open");
    let bad = Node::new_with(&config("a", &[]), None, Adopt { udp: Some(1_000_000), tcp: None }, None).unwrap();
    assert_eq!(code(bad.start()), Code::Io);
    assert_eq!(bad.state(), NodeState::New);
}

#[test]
fn names_are_resolved_on_the_way() {
    let a = Witness::start(&config("a", &[]));
    let port = a.node.address().unwrap().port();
    let b = Witness::start(&config("b", &[]));
    assert_eq!(b.node.join(&[&format!("localhost:{port}")], FOR), Ok(1));
    let c = Witness::start(&config("c", &[&format!("localhost:{port}")]));
    c.until("its seed is a name", |w| w.alive() == 3);
    let d = Witness::start(&config("d", &[]));
    assert_eq!(d.node.join(&[&format!("localhost:{port}")], Wait::Now), Ok(0));
    d.until("it joined meanwhile", |w| w.alive() == 4);
    d.until("it is told so", |w| w.events().iter().any(|e| e.kind == EventKind::Joined && e.count == 1));
}

#[test]
fn garbage_is_counted_and_survived() {
    let a = Witness::start(&config("a", &[]));
    let address: SocketAddr = a.address().parse().unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    for len in [0, 1, 17, 33, 34, 1400, 9300] {
        udp.send_to(&vec![0xff; len], address).unwrap();
    }
    a.until("datagrams are rejected", |w| w.stat("packets_rejected") >= 6 && w.stat("datagrams_too_large") == 1);
    use std::io::{Read, Write};
    let mut tcp = std::net::TcpStream::connect(address).unwrap();
    tcp.write_all(&[0xff; 100]).unwrap();
    tcp.set_read_timeout(Some(LIMIT)).unwrap();
    assert!(matches!(tcp.read(&mut [0]), Ok(0) | Err(_)), "a promise of 4 GiB ends the connection");
    // Strangers who say nothing at all are sent away too.
    let mut silent = std::net::TcpStream::connect(address).unwrap();
    silent.set_read_timeout(Some(LIMIT)).unwrap();
    assert_eq!(silent.read(&mut [0]).unwrap(), 0);
    assert!(a.stat("links_timed_out") >= 1);
    let b = Witness::start(&config("b", &[]));
    assert_eq!(b.node.join(&[&a.address()], FOR), Ok(1));
}

#[test]
fn a_flood_of_silent_connections_costs_the_flooder() {
    let a = Witness::start(&config("a", &[]));
    let address: SocketAddr = a.address().parse().unwrap();
    let flood: Vec<_> = (0..300).filter_map(|_| std::net::TcpStream::connect(address).ok()).collect();
    a.until("some are sent away", |w| w.stat("strangers_refused") > 0);
    assert!(a.stat("links") <= 256);
    let b = Witness::start(&config("b", &[]));
    assert_eq!(b.node.join(&[&a.address()], FOR), Ok(1));
    a.until("the others go in time", |w| w.stat("links_timed_out") > 0 && w.stat("links") < 100);
    drop(flood);
}

#[test]
fn a_process_without_descriptors_goes_on_and_does_not_spin() {
    in_own_process("no_descriptors");
}

#[test]
#[ignore = "run by a_process_without_descriptors_goes_on_and_does_not_spin"]
fn no_descriptors() {
    let nodes = cluster(2, |_| {});
    let address: SocketAddr = nodes[0].address().parse().unwrap();
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is ours to write and to read.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) }, 0);
    let before = limit.rlim_cur;
    limit.rlim_cur = count("/proc/self/fd") as u64 + 10;
    // SAFETY: as above.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
    let mut clients = Vec::new();
    nodes[0].until("nothing can be accepted", |w| {
        clients.extend(std::net::TcpStream::connect(address));
        w.stat("accept_errors") > 0
    });
    let (acks, errors) = (nodes[0].stat("acks"), nodes[0].stat("accept_errors"));
    nodes[0].until("datagrams go on", |w| w.stat("acks") > acks + 3);
    assert!(nodes[0].stat("accept_errors") < errors + 500, "it spins");
    limit.rlim_cur = before;
    // SAFETY: as above.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
    drop(clients);
    let mut by_stream = config("c", &[&nodes[0].address()]);
    set(&mut by_stream, "transport", "tcp");
    let c = Witness::start(&by_stream);
    c.until("streams are back", |w| w.alive() == 3);
}

// ---- events

#[test]
fn a_manual_node_runs_callbacks_where_it_is_asked_to() {
    let a = started(&config("a", &[]));
    let node = Node::new(&manual("b", &[&a.address().unwrap().to_string()]), None).unwrap();
    let (tell, told) = channel();
    let id = node
        .on_event(
            EventKind::Join.bit(),
            Box::new(move |e: &Event| {
                tell.send((std::thread::current().id(), e.member.clone().unwrap().name.to_string())).unwrap();
            }),
        )
        .unwrap();
    node.start().unwrap();
    let fd = node.event_fd().unwrap();
    assert_eq!(poll(fd, 60_000), 1, "readable while items wait");
    assert_eq!(poll(fd, 0), 1, "level, not edge");
    assert_eq!(node.wait(Wait::Now), Ok(true));
    assert_eq!(node.dispatch(0), Ok(1));
    assert_eq!(poll(fd, 0), 0);
    assert_eq!(node.wait(Wait::Now), Ok(false));
    assert_eq!(told.try_recv().unwrap(), (std::thread::current().id(), "a".into()));
    node.wakeup().unwrap();
    assert_eq!(poll(fd, 0), 1);
    assert_eq!(node.wait(FOR), Ok(false), "woken, and nothing there");
    assert_eq!(poll(fd, 0), 0);
    assert_eq!(node.dispatch(0), Ok(0));
    node.unsubscribe(id).unwrap();
    // Without handlers events are pulled.
    a.set_meta(&[("k", Some(b"v"))]).unwrap();
    while node.wait(FOR).unwrap() {
        if node.next_event().unwrap().is_some_and(|e| e.kind == EventKind::Update) {
            break;
        }
    }
    let (tell, waiting) = channel();
    let waiter = {
        let node = node.clone();
        std::thread::spawn(move || {
            tell.send(thread_id()).unwrap();
            // Whatever else happens to this small cluster goes first.
            loop {
                assert!(node.wait(Wait::Forever)?, "neither woken nor out of time");
                node.next_event()?;
            }
        })
    };
    let waiting = waiting.recv().unwrap();
    until("it waits", || is_asleep(waiting));
    node.stop(FOR).unwrap();
    assert_eq!(code::<()>(waiter.join().unwrap()), Code::State, "a stop ends a wait");
    assert_eq!(code(node.wait(FOR)), Code::State);
}

fn poll(fd: i32, timeout_ms: i32) -> i32 {
    let mut pollfd = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd, ours.
    unsafe { libc::poll(&mut pollfd, 1, timeout_ms) }
}

#[test]
fn a_second_dispatcher_is_busy_and_a_nested_one_a_deadlock() {
    let node = Node::new(&manual("a", &[]), None).unwrap();
    let (entered, wait_entered) = sync_channel(0);
    let (go, wait_go) = sync_channel::<()>(0);
    let inner = node.clone();
    node.on_event(
        EventKind::Settled.bit(),
        Box::new(move |_| {
            let codes = [code(inner.dispatch(0)), code(inner.wait(FOR)), code(inner.free()), code(inner.stop(FOR))];
            entered.send(codes).unwrap();
            wait_go.recv().unwrap();
        }),
    )
    .unwrap();
    node.start().unwrap();
    assert_eq!(node.wait(FOR), Ok(true));
    std::thread::scope(|scope| {
        let dispatcher = scope.spawn(|| node.dispatch(0));
        assert_eq!(wait_entered.recv().unwrap(), [Code::Deadlock; 4]);
        assert_eq!(code(node.dispatch(0)), Code::Busy);
        go.send(()).unwrap();
        assert_eq!(dispatcher.join().unwrap(), Ok(1));
    });
    // The handler holds a handle of its own node: stop breaks that circle.
    node.stop(FOR).unwrap();
}

#[test]
fn a_callback_may_wait_for_a_join_and_may_unsubscribe_itself() {
    let a = started(&config("a", &[]));
    let address = a.address().unwrap().to_string();
    let node = Node::new(&config("b", &[]), None).unwrap();
    let (tell, told) = channel();
    let (inner, id) = (node.clone(), Arc::new(Mutex::new(0)));
    let own = id.clone();
    *id.lock().unwrap() = node
        .on_event(
            EventKind::Settled.bit(),
            Box::new(move |_| {
                let joined = inner.join(&[&address], Wait::For(Duration::from_secs(30)));
                let unsubscribed = inner.unsubscribe(*own.lock().unwrap());
                tell.send((joined, unsubscribed)).unwrap();
            }),
        )
        .unwrap();
    node.start().unwrap();
    assert_eq!(told.recv_timeout(LIMIT).unwrap(), (Ok(1), Ok(())));
    until("its box is dropped", || told.try_recv() == Err(std::sync::mpsc::TryRecvError::Disconnected));
    assert_eq!(code(node.unsubscribe(*id.lock().unwrap())), Code::NotFound);
    node.stop(FOR).unwrap();
}

#[test]
fn unsubscribing_waits_for_a_running_call() {
    let node = Node::new(&config("a", &[]), None).unwrap();
    let (entered, wait_entered) = channel();
    let (go, wait_go) = channel::<()>();
    let done = Arc::new(AtomicBool::new(false));
    let finished = done.clone();
    let id = node
        .on_event(
            u32::MAX,
            Box::new(move |_| {
                entered.send(()).unwrap();
                let _ = wait_go.recv();
                finished.store(true, SeqCst);
            }),
        )
        .unwrap();
    node.start().unwrap();
    wait_entered.recv_timeout(LIMIT).unwrap();
    std::thread::scope(|scope| {
        let (tell, waiting) = channel();
        let (node, done) = (&node, &done);
        scope.spawn(move || {
            tell.send(thread_id()).unwrap();
            node.unsubscribe(id).unwrap();
            assert!(done.load(SeqCst), "returned while a call was running");
        });
        let waiting = waiting.recv().unwrap();
        until("it waits", || is_asleep(waiting));
        go.send(()).unwrap();
        drop(go);
    });
    assert!(wait_entered.try_recv().is_err(), "no call after it returned");
}

#[test]
fn stop_is_bounded_and_after_it_nothing_runs() {
    let node = Node::new(&config("a", &[]), None).unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    let (entered, wait_entered) = channel();
    let (go, wait_go) = channel::<()>();
    let counted = calls.clone();
    node.on_event(
        u32::MAX,
        Box::new(move |_| {
            counted.fetch_add(1, SeqCst);
            let _ = entered.send(());
            let _ = wait_go.recv();
        }),
    )
    .unwrap();
    node.start().unwrap();
    wait_entered.recv_timeout(LIMIT).unwrap();
    assert_eq!(code(node.stop(Wait::Now)), Code::Timeout);
    assert_eq!(code(node.stop(Wait::For(Duration::from_millis(20)))), Code::Timeout);
    assert_eq!(Arc::strong_count(&calls), 2, "the box is in use");
    assert_eq!(node.state(), NodeState::Stopped);
    drop(go);
    assert_eq!(node.stop(FOR), Ok(()));
    assert_eq!(Arc::strong_count(&calls), 1, "the box is dropped");
    assert_eq!(calls.load(SeqCst), 1);
}

#[test]
fn a_callback_may_stop_or_release_its_own_node() {
    for release in [false, true] {
        let node = Node::new(&config("a", &[]), None).unwrap();
        let (tell, told) = channel();
        let inner = node.clone();
        node.on_event(
            u32::MAX,
            Box::new(move |_| {
                if release {
                    inner.release();
                    tell.send(Code::Timeout).unwrap();
                } else {
                    tell.send(code(inner.stop(Wait::Now))).unwrap();
                }
            }),
        )
        .unwrap();
        node.start().unwrap();
        assert_eq!(told.recv_timeout(LIMIT).unwrap(), Code::Timeout);
        assert_eq!(node.stop(FOR), Ok(()));
        assert!(told.recv().is_err(), "the box is dropped");
    }
}

#[test]
fn a_stop_ends_waiting_calls() {
    let nobody = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut config = config("a", &[]);
    set(&mut config, "join_timeout", "60s");
    let node = started(&config);
    let address = nobody.local_addr().unwrap().to_string();
    std::thread::scope(|scope| {
        let join = scope.spawn(|| node.join(&[&address], Wait::Forever));
        let mut buf = [0; 2000];
        nobody.recv(&mut buf).expect("the join has begun");
        node.stop(FOR).unwrap();
        assert_eq!(code(join.join().unwrap()), Code::Canceled);
    });
}

#[test]
fn a_handler_that_panics_is_logged_and_goes_on() {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let journal = lines.clone();
    let sink = LogSink::new(7, move |level, target, text| {
        journal.lock().unwrap().push((
            level,
            target.to_owned(),
            text.to_owned(),
            std::thread::current().name().map(str::to_owned),
        ));
    });
    let node = Node::new_with(&config("a", &[]), None, Adopt::default(), Some(sink)).unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    node.on_event(
        u32::MAX,
        Box::new(move |_| {
            counted.fetch_add(1, SeqCst);
            std::panic::resume_unwind(Box::new("on purpose"));
        }),
    )
    .unwrap();
    node.start().unwrap();
    let b = Witness::start(&config("b", &[&node.address().unwrap().to_string()]));
    until("it is called again", || calls.load(SeqCst) >= 2);
    let has = |level: i32, part: &str| {
        let lines = lines.lock().unwrap();
        assert!(lines.iter().all(|l| l.3.as_deref() == Some("bruit-cb")), "on a protocol thread: {lines:?}");
        lines.iter().any(|l| l.0 == level && l.2.contains(part))
    };
    until("the panic is logged", || has(3, "on purpose"));
    until("the start is logged", || has(6, "a started at 127.0.0.1:"));
    until("the join is logged", || has(6, "JOIN b at"));
    until("both are counted", || node.stat("handler_panics").unwrap() >= 2);
    drop(b);
    node.stop(FOR).unwrap();
    let len = lines.lock().unwrap().len();
    assert_eq!(Arc::strong_count(&lines), 1, "the sink is dropped; {len} lines");
}

#[test]
fn a_queue_is_one_readers_own_and_says_what_it_lost() {
    let a = Witness::start(&config("a", &[]));
    let all = a.node.queue(u32::MAX, 1000).unwrap();
    let small = a.node.queue(EventKind::Update.bit() | EventKind::Join.bit(), 1).unwrap();
    let b = Witness::start(&config("b", &[&a.address()]));
    a.until("b is there", |w| w.alive() == 2);
    for i in 0..6u8 {
        b.node.set_meta(&[("i", Some(&[i]))]).unwrap();
        a.until("it has arrived", |w| w.view().find("b").is_some_and(|m| m.meta.get("i").is_some_and(|v| **v == [i])));
    }
    assert!(all.wait(FOR));
    assert_eq!(poll(all.fd().unwrap(), 0), 1);
    let kinds = |queue: &bruit_core::runtime::EventQueue| {
        std::iter::from_fn(|| queue.try_next()).map(|e| (e.kind, e.count)).collect::<Vec<_>>()
    };
    until("all is queued", || all.len() >= 7);
    let seen = kinds(&all);
    assert!(seen.contains(&(EventKind::Join, 0)) && seen.iter().filter(|k| k.0 == EventKind::Update).count() >= 6);
    assert_eq!(poll(all.fd().unwrap(), 0), 0);
    // Six updates are one to a reader who is behind. The join had to go.
    assert_eq!(kinds(&small), [(EventKind::Overflow, 1), (EventKind::Update, 0)]);
    a.node.stop(FOR).unwrap();
    assert!(all.wait(Wait::Forever) && all.is_closed());
    assert_eq!(poll(all.fd().unwrap(), 0), 1, "the end is readable");
    assert_eq!(code(a.node.queue(1, 1)), Code::State);
}

#[test]
fn handlers_see_only_what_their_mask_says() {
    let node = Node::new(&config("a", &[]), None).unwrap();
    let (tell, told) = channel();
    node.on_event(EventKind::Join.bit() | EventKind::Dead.bit(), Box::new(move |e: &Event| tell.send(e.kind).unwrap()))
        .unwrap();
    node.start().unwrap();
    let b = Witness::start(&config("b", &[&node.address().unwrap().to_string()]));
    assert_eq!(told.recv_timeout(LIMIT), Ok(EventKind::Join));
    b.crash();
    assert_eq!(told.recv_timeout(LIMIT), Ok(EventKind::Dead), "not the suspicion");
    assert_eq!(code(node.on_event(1 << 30, Box::new(|_| {}))), Code::Invalid);
}

#[test]
fn every_counter_can_be_read_by_name() {
    let nodes = cluster(2, |_| {});
    let stats = nodes[0].node.stats().unwrap();
    for desc in Stats::all() {
        assert!(!desc.doc.is_empty());
        nodes[0].stat(desc.name);
    }
    assert!(stats.get("datagrams_in").unwrap() > 0 && stats.get("packets_in").unwrap() > 0);
}

// ---- forks

#[test]
fn a_forked_child_can_use_nothing_but_can_make_its_own() {
    in_own_process("forks");
}

#[test]
fn children_of_a_busy_process_get_along() {
    in_own_process("busy_forks");
}

/// The parent's threads wait in many places when it forks. None of that may be found by the children's own nodes.
/// (With locks that keep their waiters in a table of the process, one child in five hung or crashed.)
#[test]
#[ignore = "run by children_of_a_busy_process_get_along"]
fn busy_forks() {
    let nodes: Vec<Witness> = (0..6).map(|i| Witness::start(&config(&format!("parent{i}"), &[]))).collect();
    let seed = nodes[0].address();
    for w in &nodes {
        for _ in 0..4 {
            let queue = w.node.queue(u32::MAX, 10).unwrap();
            std::thread::spawn(move || while queue.wait(Wait::Forever) && queue.try_next().is_some() {});
        }
    }
    // One that drives while it waits.
    let driving = started(&manual("driving", &[&seed]));
    driving.on_message("", Box::new(|m| _ = m.reply(&[]))).unwrap();
    let waiting = driving.clone();
    std::thread::spawn(move || while waiting.wait(Wait::Forever).is_ok() && waiting.dispatch(0).is_ok() {});
    let asking = nodes[0].node.clone();
    until("it is there", || asking.members().unwrap().find("driving").is_some());
    std::thread::spawn(move || while asking.request("driving", "", b"", FOR).is_ok() {});
    for round in 0..15 {
        let children: Vec<_> = (0..3)
            .map(|i| {
                // SAFETY: the child only uses this library, and leaves by _exit.
                let child = unsafe { libc::fork() };
                if child == 0 {
                    let fine = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                        let own = Node::new(&config(&format!("child{round}-{i}"), &[&seed]), None).unwrap();
                        own.on_event(u32::MAX, Box::new(|_| {})).unwrap();
                        // Before the start: all of the parent's nodes may be found at once.
                        let queue = own.queue(EventKind::Join.bit(), 100).unwrap();
                        own.start().unwrap();
                        assert!(queue.wait(FOR), "it finds the parent");
                        assert_eq!(queue.try_next().map(|e| e.kind), Some(EventKind::Join));
                        own.stop(FOR).unwrap();
                    }));
                    // SAFETY: no destructor of the parent's may run here.
                    unsafe { libc::_exit(i32::from(fine.is_err())) };
                }
                child
            })
            .collect();
        for child in children {
            let mut status = -1;
            until("the child ends", || {
                // SAFETY: our own child.
                unsafe { libc::waitpid(child, &mut status, libc::WNOHANG) == child }
            });
            assert_eq!(status, 0, "round {round}");
        }
    }
}

#[test]
#[ignore = "run by a_forked_child_can_use_nothing_but_can_make_its_own"]
fn forks() {
    let runtime = Runtime::new().unwrap();
    let node = Node::new(&config("parent", &[]), Some(runtime.clone())).unwrap();
    node.on_event(u32::MAX, Box::new(|_| {})).unwrap();
    node.start().unwrap();
    let queue = node.queue(u32::MAX, 10).unwrap();
    let idle = Node::new(&config("idle", &[]), Some(runtime.clone())).unwrap();
    let address = node.address().unwrap();
    let seed = address.to_string();
    let [mut read, mut write] = [0; 2];
    let mut pipe = [0; 2];
    // SAFETY: two descriptors are written.
    assert_eq!(unsafe { libc::pipe(pipe.as_mut_ptr()) }, 0);
    (read, write) = (pipe[0].max(read), pipe[1].max(write));
    // SAFETY: the child only uses this library, and leaves by _exit.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let fine = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            assert_eq!(code(node.members()), Code::Forked);
            assert_eq!(code(node.join(&[&seed], FOR)), Code::Forked);
            assert_eq!(code(node.leave(FOR)), Code::Forked);
            assert_eq!(code(node.stop(FOR)), Code::Forked);
            assert_eq!(code(node.free()), Code::Forked);
            assert_eq!(code(node.set_meta(&[])), Code::Forked);
            assert_eq!(code(node.stats()), Code::Forked);
            assert_eq!(code(node.on_event(1, Box::new(|_| {}))), Code::Forked);
            assert_eq!(code(node.unsubscribe(1)), Code::Forked);
            assert_eq!(code(node.dispatch(1)), Code::Forked);
            assert_eq!(code(node.queue(1, 1)), Code::Forked);
            assert_eq!(code(idle.start()), Code::Forked, "its threads are elsewhere");
            assert_eq!(queue.try_next().map(|e| e.kind), None);
            assert!(queue.wait(Wait::Forever) && queue.is_closed());
            node.release();
            drop((node, queue, idle, runtime));
            // A node of the child's own, beside the parent's.
            let own = Witness::start(&config("child", &[]));
            assert_eq!(own.node.join(&[&seed], FOR), Ok(1));
            assert_eq!(own.node.join(&[&format!("localhost:{}", address.port())], FOR), Ok(1));
            own.node.leave(FOR).unwrap();
            own.node.stop(FOR).unwrap();
        }));
        let verdict = [u8::from(fine.is_ok())];
        // SAFETY: one byte out, and then nothing but waiting for the parent to kill us: the child stays, to show
        // that it does not hold the port.
        unsafe {
            libc::write(write, verdict.as_ptr().cast(), 1);
            loop {
                libc::pause();
            }
        }
    }
    let mut verdict = [0];
    // SAFETY: one byte is written to `verdict`.
    assert_eq!(unsafe { libc::read(read, verdict.as_mut_ptr().cast(), 1) }, 1);
    assert_eq!(verdict, [1], "the child found something else; its words are above");
    assert_eq!(node.state(), NodeState::Running);
    until("the child came and went", || {
        node.members().unwrap().find("child").is_some_and(|m| m.state == MemberState::Left)
    });
    node.stop(FOR).unwrap();
    drop((UdpSocket::bind(address).expect("free"), TcpListener::bind(address).expect("free")));
    // SAFETY: our own child.
    unsafe {
        libc::kill(child, libc::SIGKILL);
        libc::waitpid(child, &mut 0, 0);
    }
}

// ---- found by reviews

#[test]
#[cfg(target_os = "linux")] // Others have one loopback address.
fn one_peer_address_has_one_link_whatever_it_connects_to() {
    use socket2::{Domain, Socket, Type};
    let mut config = config("a", &[]);
    set(&mut config, "bind", "0.0.0.0:0");
    set(&mut config, "insecure_plaintext", "true");
    set(&mut config, "link_timeout", "10s");
    config.keys.clear();
    let a = Witness::start(&config);
    let port = a.node.address().unwrap().port();
    let connect = |from: SocketAddr, to: &str| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&from.into()).unwrap();
        socket.connect(&format!("{to}:{port}").parse::<SocketAddr>().unwrap().into()).unwrap();
        socket
    };
    let first = connect("127.0.0.1:0".parse().unwrap(), "127.0.0.1");
    let from = first.local_addr().unwrap().as_socket().unwrap();
    a.until("the first is there", |w| w.stat("links_accepted") == 1);
    let second = connect(from, "127.0.0.2");
    a.until("so is the second", |w| w.stat("links_accepted") == 2);
    first.set_read_timeout(Some(LIMIT)).unwrap();
    let ended = std::io::Read::read(&mut &first, &mut [0]);
    assert!(ended.is_ok_and(|n| n == 0), "a stranger gives way to the next one");
    assert_eq!(a.stat("links_timed_out"), 0, "and at once");
    a.until("one is left", |w| w.stat("links") == 1);
    drop(second);
    a.until("both are gone", |w| w.stat("links") == 0);
    let mut by_stream = config.clone();
    for (key, value) in [("name", "b"), ("bind", "127.0.0.1:0"), ("transport", "tcp")] {
        set(&mut by_stream, key, value);
    }
    let b = Witness::start(&by_stream);
    assert_eq!(b.node.join(&[&format!("127.0.0.1:{port}")], FOR), Ok(1));
}

/// As a static of a C++ program stops its node at exit: when the thread's own values are gone already.
#[test]
fn a_node_can_be_stopped_by_a_destructor_that_runs_late() {
    struct Late(Option<(Node, std::sync::mpsc::Sender<bruit_core::error::Result<()>>)>);
    impl Drop for Late {
        fn drop(&mut self) {
            let (node, tell) = self.0.take().unwrap();
            tell.send(node.stop(FOR)).unwrap();
        }
    }
    thread_local!(static LATE: std::cell::RefCell<Late> = const { std::cell::RefCell::new(Late(None)) });
    let (tell, told) = channel();
    std::thread::spawn(move || {
        // What is made first is dropped last.
        LATE.with_borrow_mut(|late| {
            let node = started(&config("a", &[]));
            let gone = node.on_event(u32::MAX, Box::new(|_| {})).unwrap();
            node.unsubscribe(gone).unwrap();
            late.0 = Some((node, tell));
        });
    });
    assert_eq!(told.recv_timeout(LIMIT).unwrap(), Ok(()));
}

#[test]
fn an_automatic_name_is_the_same_before_and_after_the_start() {
    let node = Node::new(&config("", &[]), None).unwrap();
    let name = node.name();
    node.start().unwrap();
    assert_eq!(node.name(), name);
}

#[test]
fn a_node_that_has_stopped_has_no_links() {
    let mut nodes = cluster(2, |config| set(config, "transport", "tcp"));
    let w = nodes.pop().unwrap();
    assert!(w.stat("links") > 0);
    w.node.stop(FOR).unwrap();
    assert_eq!(w.stat("links"), 0);
}

#[test]
fn what_queues_get_and_lose_is_counted_also_when_they_are_gone() {
    let node = started(&config("a", &[]));
    let small = node.queue(EventKind::Update.bit() | EventKind::Join.bit(), 1).unwrap();
    let counts = || ["events", "events_dropped", "events_coalesced"].map(|name| node.stat(name).unwrap());
    assert_eq!(counts(), [0, 0, 0]);
    let b = Witness::start(&config("b", &[&node.address().unwrap().to_string()]));
    until("b is there", || counts()[0] == 1);
    for i in 0..3u8 {
        b.node.set_meta(&[("i", Some(&[i]))]).unwrap();
        until("it has arrived", || counts()[0] == 2 + u64::from(i));
    }
    assert_eq!(counts(), [4, 1, 2], "the join went, and three updates are one");
    drop(small);
    assert_eq!(counts(), [4, 1, 2]);
    let _other = node.queue(u32::MAX, 1).unwrap();
    node.stop(FOR).unwrap();
    assert_eq!(counts()[1..], [1, 2]);
}

#[test]
fn a_handler_that_comes_later_hears_what_happens_from_then_on() {
    let node = started(&manual("a", &[]));
    let b = Witness::start(&config("b", &[&node.address().unwrap().to_string()]));
    assert_eq!(node.wait(FOR), Ok(true), "b is there, and nobody has been told");
    let heard = Arc::new(Mutex::new(Vec::new()));
    let journal = heard.clone();
    node.on_event(u32::MAX, Box::new(move |e: &Event| journal.lock().unwrap().push(e.kind))).unwrap();
    b.node.leave(FOR).unwrap();
    until("b has left", || {
        node.dispatch(0).unwrap();
        heard.lock().unwrap().contains(&EventKind::Left)
    });
    assert!(!heard.lock().unwrap().contains(&EventKind::Join));
}
