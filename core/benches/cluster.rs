//! Whole clusters on loopback, sealed with a key, with the defaults of the `lan` profile.
//!
//!     cargo bench --package bruit-core --bench cluster [-- NAME...]
//!
//! NAME: form50, form200, stop, freeze, idle, traffic; all of them where none is given. Each runs in a
//! process of its own, so that one does not disturb the memory or the CPU time of another.

mod report;

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bruit_core::config::Config;
use bruit_core::runtime::{Node, Runtime, Wait};
use bruit_core::view::{Event, EventKind};
use report::{Machine, Row, median, spread};

const BENCHES: &[(&str, fn())] = &[
    ("form50", || form(50)),
    ("form200", || form(200)),
    ("stop", stop),
    ("freeze", freeze),
    ("idle", idle),
    ("traffic", traffic),
];

/// As many as the machine has cores: each has one thread for sockets and timers.
const RUNTIMES: usize = 2;
const TRIALS: usize = 20;
const DEATHS: usize = 10;
/// After the last join, until rumors have stopped.
const SETTLE: Duration = Duration::from_secs(10);
const WATCH: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(60);

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["child", seed] => child(seed),
        ["only", name] => run(name),
        ref names => {
            Machine::measure().print();
            for (name, _) in BENCHES.iter().filter(|(name, _)| names.is_empty() || names.contains(name)) {
                println!("$ cargo bench --package bruit-core --bench cluster -- {name}");
                let status = this_program(&["only", name]).status().expect("this program can be started");
                assert!(status.success(), "{name}: {status}");
                println!();
            }
        }
    }
}

fn run(name: &str) {
    let (_, bench) = BENCHES.iter().find(|(known, _)| *known == name).expect("a name from the list");
    bench();
}

fn this_program(words: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("the system tells"));
    command.args(words);
    command
}

fn config(name: &str, seed: Option<&str>) -> Config {
    let mut config = Config::new();
    config.set("name", name).unwrap();
    config.set("bind", "127.0.0.1:0").unwrap();
    config.keys = vec![[7; 32]];
    config.seeds = seed.map(str::to_owned).into_iter().collect();
    config
}

fn runtimes(count: usize) -> Vec<Runtime> {
    (0..count).map(|_| Runtime::new().expect("threads can be had")).collect()
}

struct Cluster {
    runtimes: Vec<Runtime>,
    nodes: Vec<Node>,
    made: usize,
    deaths: Arc<Mutex<Vec<Instant>>>,
}

impl Cluster {
    /// `count` nodes started at once; returns when each lists all, and how long that took.
    fn form(count: usize, runtimes: Vec<Runtime>) -> (Cluster, Duration) {
        let mut cluster = Cluster { runtimes, nodes: Vec::new(), made: 0, deaths: Arc::default() };
        let begin = Instant::now();
        for _ in 0..count {
            cluster.start_one();
        }
        cluster.all_list(count);
        let took = begin.elapsed();
        (cluster, took)
    }

    fn start_one(&mut self) {
        let seed = self.nodes.first().map(|n| n.address().unwrap().to_string());
        let runtime = self.runtimes[self.made % self.runtimes.len()].clone();
        let node = Node::new(&config(&format!("n{:04}", self.made), seed.as_deref()), Some(runtime)).unwrap();
        self.made += 1;
        let deaths = self.deaths.clone();
        let note = move |_: &Event| deaths.lock().unwrap().push(Instant::now());
        node.on_event(EventKind::Dead.bit(), Box::new(note)).unwrap();
        node.start().unwrap();
        self.nodes.push(node);
    }

    fn all_list(&self, count: usize) {
        let end = Instant::now() + PATIENCE;
        for node in &self.nodes {
            while node.members().unwrap().live().count() != count {
                assert!(Instant::now() < end, "not all list {count} within {PATIENCE:?}");
                std::thread::sleep(Duration::from_micros(500));
            }
        }
    }

    /// Seconds from `since` to the first and to the last node's DEAD event.
    fn deaths(&self, since: Instant) -> (f64, f64) {
        let end = Instant::now() + PATIENCE;
        loop {
            let deaths = self.deaths.lock().unwrap();
            if deaths.len() >= self.nodes.len() {
                let seconds = |at: &Instant| at.duration_since(since).as_secs_f64();
                return (seconds(&deaths[0]), seconds(&deaths[deaths.len() - 1]));
            }
            drop(deaths);
            assert!(Instant::now() < end, "not all saw the death within {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn stop(self) {
        self.nodes.iter().for_each(|node| {
            let _ = node.stop(Wait::Now);
        });
        self.nodes.iter().for_each(|node| node.stop(Wait::For(PATIENCE)).unwrap());
    }
}

fn form(count: usize) {
    let machine = Machine::measure();
    let mut seconds: Vec<f64> = (0..TRIALS)
        .map(|_| {
            let (cluster, took) = Cluster::form(count, runtimes(RUNTIMES));
            cluster.stop();
            took.as_secs_f64()
        })
        .collect();
    let middle = median(&mut seconds);
    Row {
        what: &format!("{count} nodes start at once, one seed: each lists {count}"),
        value: middle,
        unit: "s",
        reach: Some(if count == 50 { 0.3 } else { 1.0 }),
        detail: format!("{}; {}", spread(&mut seconds, "s"), machine.in_round_trips(middle)),
        others: match count {
            50 => "others: memberlist (Go) 1.0 to 1.2, foca 0.81 (30 in 3 of 7 runs), memberlist (Rust) 0.65, chitchat 6.0, kinship 3.4 s",
            _ => "others: memberlist (Go) 6.1 s (143 s in 1 of 3)",
        },
    }
    .print();
}

fn stop() {
    let (mut cluster, _) = Cluster::form(50, runtimes(RUNTIMES));
    let (mut first, mut all) = (Vec::new(), Vec::new());
    for trial in 0..DEATHS {
        settle(trial);
        cluster.deaths.lock().unwrap().clear();
        let victim = cluster.nodes.pop().expect("there are fifty");
        let begin = Instant::now();
        victim.stop(Wait::For(PATIENCE)).unwrap();
        let (a, b) = cluster.deaths(begin);
        first.push(a);
        all.push(b);
        cluster.start_one();
        cluster.all_list(50);
    }
    report_deaths(
        "one of 50 stops, ports closed",
        [Some(3.0), Some(3.3)],
        first,
        all,
        "others, first / all: memberlist (Go) 8.7 / 9.0, memberlist (Rust) 4.3 / 4.6, foca 8.6 / 10.3, chitchat 8.0 / 11.0, kinship 9.0 / 9.0 s",
    );
    cluster.stop();
}

fn freeze() {
    let (cluster, _) = Cluster::form(49, runtimes(RUNTIMES));
    let seed = cluster.nodes[0].address().unwrap().to_string();
    let (mut first, mut all) = (Vec::new(), Vec::new());
    for trial in 0..DEATHS {
        let mut frozen = this_program(&["child", &seed]).stdin(Stdio::piped()).spawn().unwrap();
        cluster.all_list(50);
        settle(trial);
        cluster.deaths.lock().unwrap().clear();
        let begin = Instant::now();
        signal(&frozen, libc::SIGSTOP);
        let (a, b) = cluster.deaths(begin);
        first.push(a);
        all.push(b);
        frozen.kill().unwrap();
        frozen.wait().unwrap();
    }
    report_deaths(
        "one of 50 freezes, ports open",
        [None, Some(3.5)],
        first,
        all,
        "others, all: memberlist (Rust) 14.5 (0.8.5) and 9.3 (0.9-pre) s",
    );
    cluster.stop();
}

/// Another moment of the probe interval for each trial, so that they do not all begin at the same one.
fn settle(trial: usize) {
    std::thread::sleep(Duration::from_millis(2000 + 1000 * trial as u64 / DEATHS as u64));
}

fn report_deaths(what: &str, reach: [Option<f64>; 2], mut first: Vec<f64>, mut all: Vec<f64>, others: &str) {
    for (who, seconds, reach) in [("first DEAD", &mut first, reach[0]), ("all DEAD", &mut all, reach[1])] {
        let what = format!("{what}: {who}");
        let others = if who == "all DEAD" { others } else { "" };
        let detail = spread(seconds, "s");
        Row { what: &what, value: median(seconds), unit: "s", reach, detail, others }.print();
    }
}

/// The process that `freeze` stops: one node, until its standard input ends.
fn child(seed: &str) {
    let node = Node::new(&config("frozen", Some(seed)), None).unwrap();
    node.start().unwrap();
    let _ = std::io::stdin().read(&mut [0]);
}

fn signal(child: &Child, number: i32) {
    // SAFETY: `kill` takes numbers only; the child is ours and not yet waited for.
    assert_eq!(unsafe { libc::kill(child.id() as i32, number) }, 0);
}

fn idle() {
    let threads = runtimes(1);
    let bare = resident_kb();
    // What a first node brings into memory, code above all, is no cost of the hundredth.
    Cluster::form(2, threads.clone()).0.stop();
    let before = resident_kb();
    let (cluster, _) = Cluster::form(100, threads);
    std::thread::sleep(SETTLE);
    let memory = (resident_kb() - before) / 100.0;
    let (cpu, begin) = (cpu_seconds(), Instant::now());
    std::thread::sleep(WATCH);
    let percent = 100.0 * (cpu_seconds() - cpu) / begin.elapsed().as_secs_f64() / 100.0;
    Row {
        what: "100 nodes, idle: CPU of one core a node",
        value: percent,
        unit: "%",
        reach: Some(0.006),
        detail: String::new(),
        others: "others: memberlist (Go) 0.032, memberlist (Rust) 0.041 and foca 0.0056 at N = 50, chitchat 0.045 %",
    }
    .print();
    Row {
        what: "100 nodes, one runtime: resident memory a node",
        value: memory,
        unit: "kB",
        reach: Some(64.0),
        detail: format!("beside {:.0} kB of the process for code, threads and buffers", before - bare),
        others: "others: memberlist (Go) 325, memberlist (Rust) 196 and foca 28 at N = 50, chitchat 1,228 kB",
    }
    .print();
    cluster.stop();
}

fn traffic() {
    /// IPv4 and UDP.
    const HEADERS: u64 = 28;
    let (cluster, _) = Cluster::form(50, runtimes(RUNTIMES));
    std::thread::sleep(SETTLE);
    let sent = || -> (u64, u64) {
        cluster.nodes.iter().fold((0, 0), |(packets, bytes), node| {
            (packets + node.stat("datagrams_out").unwrap(), bytes + node.stat("datagram_bytes_out").unwrap())
        })
    };
    let ((packets, bytes), begin) = (sent(), Instant::now());
    std::thread::sleep(WATCH);
    let (packets, bytes) = (sent().0 - packets, sent().1 - bytes);
    let per_node = 50.0 * begin.elapsed().as_secs_f64();
    Row {
        what: "50 nodes, idle: sent a node, IP and UDP headers included",
        value: (bytes + HEADERS * packets) as f64 / per_node,
        unit: "B/s",
        reach: Some(260.0),
        detail: format!("{:.1} packets/s a node, sealed", packets as f64 / per_node),
        others: "others: memberlist (Go) 148, memberlist (Rust) 230, foca 110, chitchat 15,500 B/s; chitchat and foca unsealed",
    }
    .print();
    cluster.stop();
}

fn resident_kb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("Linux has it");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).expect("a number of kB")
}

fn cpu_seconds() -> f64 {
    // SAFETY: all-zero is a valid `rusage`, and the call fills it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_SELF, &mut usage), 0);
        usage
    };
    let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}
