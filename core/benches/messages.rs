//! Messages between two nodes of one process over loopback, sealed: throughput, round trips, callbacks. Each beside what the
//! kernel does with the same bytes in the same run.
//!
//!     cargo bench --package bruit-core --bench messages                  all rows
//!     cargo bench --package bruit-core --bench messages -- 'to all'      those with that in their names

mod report;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::*};
use std::thread;
use std::time::{Duration, Instant};

use bruit_core::config::Config;
use bruit_core::engine::Sending::{BestEffort, Reliable};
use bruit_core::message::ToAll;
use bruit_core::runtime::{Node, Wait};
use report::{Machine, Row, median, number};

const TIME: Duration = Duration::from_secs(3);
const ROUNDS: usize = 3;
const LONG: Wait = Wait::For(Duration::from_secs(60));

fn node(name: &str, seed: Option<&Node>, change: impl Fn(&mut Config)) -> Node {
    let mut config = Config::new();
    for (key, value) in [("name", name), ("bind", "127.0.0.1:0"), ("recv_buffer", "4MiB")] {
        config.set(key, value).expect("an option");
    }
    config.keys = vec![[7; 32]];
    config.seeds.extend(seed.map(|seed| seed.address().expect("started").to_string()));
    change(&mut config);
    let node = Node::new(&config, None).expect("valid");
    node.start().expect("starts");
    node
}

/// Two that know each other.
fn pair(change: impl Fn(&mut Config)) -> [Node; 2] {
    let a = node("a", None, &change);
    let b = node("b", Some(&a), &change);
    while [&a, &b].iter().any(|n| n.members().expect("started").members.len() < 2) {
        thread::yield_now();
    }
    [a, b]
}

/// CPU time of the whole process.
fn cpu() -> Duration {
    // SAFETY: all-zero is a valid `timespec`, and the call fills it.
    let time = unsafe {
        let mut time: libc::timespec = std::mem::zeroed();
        assert_eq!(libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time), 0);
        time
    };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

struct Flow {
    per_second: f64,
    cpu_us: f64,
    sent: u64,
    received: u64,
}

/// One thread sends as fast as it may; what the other node's handler hears is counted.
fn stream(size: usize, how: bruit_core::engine::Sending) -> Flow {
    let [a, b] = pair(|_| {});
    let received = Arc::new(AtomicU64::new(0));
    let count = received.clone();
    b.on_message("", Box::new(move |_| _ = count.fetch_add(1, Relaxed))).expect("running");
    let data = vec![7; size];
    let (began, cpu_began, mut sent) = (Instant::now(), cpu(), 0);
    while began.elapsed() < TIME {
        for _ in 0..64 {
            a.send("b", "", &data, how, LONG).expect("there is room in time");
            sent += 1;
        }
    }
    // Reliable messages are awaited, the others lost.
    let mut last = (received.load(Relaxed), Instant::now());
    while last.0 < sent && (how == Reliable || last.1.elapsed() < Duration::from_millis(200)) {
        let now = received.load(Relaxed);
        if now != last.0 {
            last = (now, Instant::now());
        }
        thread::sleep(Duration::from_micros(200));
    }
    let (time, used) = (last.1.duration_since(began), cpu() - cpu_began);
    let received = last.0;
    Flow {
        per_second: received as f64 / time.as_secs_f64(),
        cpu_us: used.as_secs_f64() * 1e6 / received as f64,
        sent,
        received,
    }
}

/// The kernel's: a TCP connection, writes of 64 KiB, in bytes a second.
fn raw_tcp() -> f64 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = listener.local_addr().expect("bound");
    let sender = thread::spawn(move || {
        let mut socket = TcpStream::connect(address).expect("listening");
        let (data, began) = (vec![7; 64 << 10], Instant::now());
        while began.elapsed() < TIME {
            socket.write_all(&data).expect("it is read");
        }
    });
    let (mut socket, _) = listener.accept().expect("it connects");
    let (mut data, mut bytes, began) = (vec![0; 64 << 10], 0, Instant::now());
    loop {
        match socket.read(&mut data).expect("open") {
            0 => break,
            n => bytes += n,
        }
    }
    sender.join().expect("it ends");
    bytes as f64 / began.elapsed().as_secs_f64()
}

/// The kernel's: datagrams of that size, one call each way for each, received a second.
fn raw_udp(size: usize) -> f64 {
    let to = UdpSocket::bind("127.0.0.1:0").expect("loopback");
    let from = UdpSocket::bind("127.0.0.1:0").expect("loopback");
    from.connect(to.local_addr().expect("bound")).expect("loopback");
    to.set_read_timeout(Some(Duration::from_millis(200))).expect("an option");
    let sender = thread::spawn(move || {
        let (data, began) = (vec![7; size], Instant::now());
        while began.elapsed() < TIME {
            for _ in 0..64 {
                let _ = from.send(&data);
            }
        }
    });
    let (mut data, mut received, began) = (vec![0; 2048], 0u64, Instant::now());
    while to.recv(&mut data).is_ok() {
        received += 1;
    }
    let time = began.elapsed() - Duration::from_millis(200);
    sender.join().expect("it ends");
    received as f64 / time.as_secs_f64()
}

/// Ten nodes; one of them says so much to all as it may. What the nine others hear is counted.
fn to_all(size: usize) -> Flow {
    let first = node("n0", None, |_| {});
    let mut nodes = vec![first];
    for i in 1..10 {
        nodes.push(node(&format!("n{i}"), Some(&nodes[0]), |_| {}));
    }
    while nodes.iter().any(|n| n.members().expect("started").members.len() < nodes.len()) {
        thread::sleep(Duration::from_millis(1));
    }
    let counts: Vec<Arc<AtomicU64>> = nodes.iter().map(|_| Arc::default()).collect();
    for (node, count) in nodes.iter().zip(&counts) {
        let count = count.clone();
        node.on_message("", Box::new(move |_| _ = count.fetch_add(1, Relaxed))).expect("running");
    }
    let heard = || counts[1..].iter().map(|count| count.load(Relaxed)).min().expect("nine");
    let data = vec![7; size];
    let mut said = 0;
    let mut say = |until: Instant| {
        while Instant::now() < until {
            for _ in 0..16 {
                nodes[0].broadcast("", &data, ToAll::default(), LONG).expect("there is room in time");
                said += 1;
            }
        }
        // What is on its way arrives; what is lost is found by who compares the counts.
        let mut last = (heard(), Instant::now());
        while last.0 < said && last.1.elapsed() < Duration::from_secs(20) {
            thread::sleep(Duration::from_micros(100));
            let now = heard();
            if now != last.0 {
                last = (now, Instant::now());
            }
        }
        said
    };
    // The tree forms.
    let before = say(Instant::now() + Duration::from_millis(500));
    let (began, cpu_began) = (Instant::now(), cpu());
    let sent = say(began + TIME) - before;
    let (time, used) = (began.elapsed(), cpu() - cpu_began);
    let received = counts[1..].iter().map(|count| count.load(Relaxed)).sum::<u64>() - 9 * before;
    if received < 9 * sent {
        for (node, count) in nodes.iter().zip(&counts) {
            let lost = node.stats().expect("running").engine.broadcasts_lost;
            eprintln!("{} heard {} of {}, gave up {lost}", node.name(), count.load(Relaxed), before + sent);
        }
    }
    Flow {
        per_second: sent as f64 / time.as_secs_f64(),
        cpu_us: used.as_secs_f64() * 1e6 / received as f64,
        sent: 9 * sent,
        received,
    }
}

/// Microseconds, sorted.
fn round_trips() -> Vec<f64> {
    let [a, b] = pair(|_| {});
    b.on_message("", Box::new(|m| m.reply(m.data()).expect("its asker waits"))).expect("running");
    let mut times = Vec::new();
    let began = Instant::now();
    while began.elapsed() < TIME {
        let at = Instant::now();
        a.request("b", "", b"ping", LONG).expect("an answer");
        times.push(at.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    times
}

/// Answers a second with so many questions under way.
fn questions(at_once: usize) -> f64 {
    let [a, b] = pair(|_| {});
    b.on_message("", Box::new(|m| m.reply(m.data()).expect("its asker waits"))).expect("running");
    let (done, began) = (Arc::new(AtomicU64::new(0)), Instant::now());
    let mut asked = 0;
    while began.elapsed() < TIME {
        while asked - done.load(Acquire) < at_once as u64 {
            let done = done.clone();
            let f = move |answer: bruit_core::Result<_>| {
                answer.expect("an answer");
                done.fetch_add(1, Release);
            };
            a.request_start("b", "", b"ping", None, Box::new(f)).expect("there is room");
            asked += 1;
        }
        thread::yield_now();
    }
    done.load(Acquire) as f64 / began.elapsed().as_secs_f64()
}

fn middle(f: impl Fn() -> f64) -> f64 {
    median(&mut (0..ROUNDS).map(|_| f()).collect::<Vec<_>>())
}

fn main() {
    let only = std::env::args().skip(1).find(|arg| !arg.starts_with("--")).unwrap_or_default();
    let wanted = |row: &str| row.contains(&only);
    let machine = Machine::measure();
    println!("messages: two nodes in one process, loopback, sealed; medians of {ROUNDS} rounds of {TIME:?}\n");
    let (tcp, udp) = (middle(raw_tcp), middle(|| raw_udp(256)));
    println!(
        "the kernel, in the same run: TCP {} MB/s, UDP of 256 B {}/s received, ping-pong {:?}\n",
        number(tcp / 1e6),
        number(udp),
        machine.udp_round_trip
    );
    for (row, size, reach) in [
        ("reliable, 256 B: messages a second", 256, 800_000.0),
        ("reliable, 16 KiB: messages a second", 16 << 10, 61_000.0),
    ] {
        if wanted(row) {
            let flow = middle_flow(|| stream(size, Reliable));
            assert_eq!(flow.sent, flow.received, "none is lost");
            let share = ratio(flow.per_second * size as f64, tcp);
            more(row, &flow, reach, &format!("{share} of the kernel's bytes a second"));
        }
    }
    let row = "best effort, 256 B: received a second";
    if wanted(row) {
        let flow = middle_flow(|| stream(256, BestEffort));
        let heard = number(100.0 * flow.received as f64 / flow.sent as f64);
        let share = ratio(flow.per_second, udp);
        more(row, &flow, 0.45 * udp, &format!("{share} of the kernel's; {heard} % of those sent"));
    }
    let row = "to all ten, 256 B: broadcasts a second";
    if wanted(row) {
        let flow = middle_flow(|| to_all(256));
        assert_eq!(flow.sent, flow.received, "each hears all, once");
        // Five times iroh-gossip's 17,000 to 24,000, which were measured on another day.
        more(row, &flow, 100_000.0, "CPU is for each delivery, all ten nodes together");
    }
    let row = "request and reply, thread mode: p50";
    if wanted(row) {
        let mut times: Vec<Vec<f64>> = (0..ROUNDS).map(|_| round_trips()).collect();
        times.sort_by(|a, b| a[a.len() / 2].total_cmp(&b[b.len() / 2]));
        let times = &times[ROUNDS / 2];
        let (half, worst) = (times[times.len() / 2], times[times.len() * 99 / 100]);
        let kernel = machine.udp_round_trip.as_secs_f64() * 1e6;
        let shares = format!("{} and {} of the kernel's ping-pong", ratio(half, kernel), ratio(worst, kernel));
        Row {
            what: row,
            value: half,
            unit: "us",
            reach: Some(2.2 * kernel),
            detail: format!("p99 {} us; {shares}", number(worst)),
            others: "",
        }
        .print();
    }
    let row = "request and reply, 64 at once";
    if wanted(row) {
        let rate = middle(|| questions(64));
        let verdict = if rate >= 200_000.0 { "OK" } else { "behind" };
        println!("{row:<58} {:>9} /s         reach 200,000: {verdict}", number(rate));
    }
}

/// The one in the middle of several.
fn middle_flow(f: impl Fn() -> Flow) -> Flow {
    let mut flows: Vec<Flow> = (0..ROUNDS).map(|_| f()).collect();
    flows.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
    flows.swap_remove(ROUNDS / 2)
}

fn ratio(ours: f64, theirs: f64) -> String {
    format!("{:.2} x", ours / theirs)
}

/// More is better.
fn more(what: &str, flow: &Flow, reach: f64, detail: &str) {
    let verdict = if flow.per_second >= reach { "OK" } else { "behind" };
    println!("{what:<58} {:>9} /s         reach {}: {verdict}", number(flow.per_second), number(reach));
    println!("    {:.2} us of CPU each, both nodes together; {detail}", flow.cpu_us);
}
