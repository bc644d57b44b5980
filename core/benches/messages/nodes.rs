//! Nodes to measure with, and how many messages they have heard.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use bruit_core::config::Config;
use bruit_core::runtime::{Node, Wait};
use bruit_core::view::EventKind;

pub const LONG: Wait = Wait::For(Duration::from_secs(60));

pub fn node(name: &str, seed: Option<&Node>, change: impl Fn(&mut Config)) -> Node {
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

/// So many that know each other.
pub fn cluster(count: usize, change: impl Fn(&mut Config)) -> Vec<Node> {
    let mut nodes = vec![node("n0", None, &change)];
    for i in 1..count {
        nodes.push(node(&format!("n{i}"), Some(&nodes[0]), &change));
    }
    for node in &nodes {
        let arrivals = node.queue(EventKind::Join.bit(), count).expect("running");
        while node.members().expect("started").members.len() < count {
            assert!(arrivals.wait(LONG), "they find each other");
            while arrivals.try_next().is_some() {}
        }
    }
    nodes
}

/// "n0" and "n1".
pub fn pair(change: impl Fn(&mut Config)) -> [Node; 2] {
    cluster(2, change).try_into().unwrap_or_else(|_| unreachable!("there are two"))
}

/// Counts on any thread; one waits for a number of it.
#[derive(Debug, Default)]
pub struct Count {
    now: AtomicU64,
    wanted: AtomicU64,
    waiter: Mutex<Option<Thread>>,
}

impl Count {
    pub fn now(&self) -> u64 {
        self.now.load(SeqCst)
    }

    pub fn add(&self) {
        if self.now.fetch_add(1, SeqCst) + 1 == self.wanted.load(SeqCst)
            && let Some(waiter) = &*self.waiter.lock().expect("nobody panics with it")
        {
            waiter.unpark();
        }
    }

    /// Waits until it has got there, or stands still for so long. What it is then.
    pub fn reach(&self, wanted: u64, patience: Duration) -> u64 {
        *self.waiter.lock().expect("nobody panics with it") = Some(thread::current());
        self.wanted.store(wanted, SeqCst);
        let (mut seen, mut since) = (self.now(), Instant::now());
        // Who was woken may have been so for what it wanted before.
        while seen < wanted && since.elapsed() < patience {
            thread::park_timeout(patience - since.elapsed().min(patience));
            let now = self.now();
            if now != seen {
                (seen, since) = (now, Instant::now());
            }
        }
        seen
    }
}

/// CPU time of the whole process.
pub fn cpu() -> Duration {
    // SAFETY: all-zero is a valid `timespec`, and the call fills it.
    let time = unsafe {
        let mut time: libc::timespec = std::mem::zeroed();
        assert_eq!(libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time), 0);
        time
    };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
