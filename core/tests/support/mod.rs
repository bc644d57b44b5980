//! What the scenario tests share: quick nodes that keep a journal of their events, and waiting for facts.
//!
//! Nothing here sleeps for a guessed while: a test names a fact and waits for it, with one generous limit.

// Each test binary uses its own part of this.
#![allow(dead_code)]

pub mod relay;

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bruit_core::config::Config;
use bruit_core::runtime::{Node, Runtime, Stats, Wait};
use bruit_core::view::{Event, EventKind, MemberState, View};

pub const KEY: [u8; 32] = [7; 32];

/// No fact that is going to be true takes so long, not even on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Waits until `fact` holds; fails the test with `what` and `state()` after [`LIMIT`].
pub fn eventually(what: &str, mut fact: impl FnMut() -> bool, state: impl Fn() -> String) {
    let end = Instant::now() + LIMIT;
    while !fact() {
        assert!(Instant::now() < end, "not within {LIMIT:?}: {what}\n{}", state());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A sealed node on a free loopback port with timers five times as quick as `local`.
pub fn config(name: &str, seeds: &[&str]) -> Config {
    let mut config = Config::new();
    for (key, value) in [
        ("name", name),
        ("bind", "127.0.0.1:0"),
        ("profile", "local"),
        ("probe_interval", "200ms"),
        ("probe_timeout", "80ms"),
        ("probe_indirect_timeout", "80ms"),
        ("gossip_interval", "20ms"),
        ("seed_retry_min", "50ms"),
        ("seed_retry_max", "500ms"),
        ("heal_interval", "500ms"),
        ("sync_interval", "2s"),
        ("join_timeout", "2s"),
    ] {
        set(&mut config, key, value);
    }
    config.keys = vec![KEY];
    config.seeds = seeds.iter().map(|seed| (*seed).to_owned()).collect();
    config
}

/// Timers that a busy machine keeps as well: for what must *not* happen, such as a suspicion or a lost name.
pub fn calm(config: &mut Config) {
    for (key, value) in [
        ("probe_interval", "1s"),
        ("probe_timeout", "900ms"),
        ("probe_timeout_min", "900ms"),
        ("probe_indirect_timeout", "900ms"),
        ("join_timeout", "30s"),
    ] {
        set(config, key, value);
    }
}

pub fn set(config: &mut Config, key: &str, value: &str) {
    config.set(key, value).unwrap_or_else(|e| panic!("{key} = {value}: {e}"));
}

/// A loopback address whose UDP and TCP ports were both free a moment ago, and that nobody gets who asks for any free
/// port: below those that systems give away by themselves. So it is still free when its node comes back to it.
pub fn free_address() -> SocketAddr {
    const LOWEST: u32 = 10_000;
    const COUNT: u32 = 20_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        // Test processes that run at once begin at different places.
        let turn = std::process::id().wrapping_mul(137).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let addr = SocketAddr::from(([127, 0, 0, 1], (LOWEST + turn % COUNT) as u16));
        if UdpSocket::bind(addr).is_ok() && TcpListener::bind(addr).is_ok() {
            return addr;
        }
    }
}

/// A running node with all that it was told since before its start. Dropping it stops it abruptly, as a crash would.
pub struct Witness {
    pub node: Node,
    events: Arc<Mutex<Vec<Event>>>,
}

impl Witness {
    pub fn start(config: &Config) -> Witness {
        Witness::start_on(config, None)
    }

    pub fn start_on(config: &Config, runtime: Option<Runtime>) -> Witness {
        let node = Node::new(config, runtime).expect("the configuration is valid");
        let events = Arc::new(Mutex::new(Vec::new()));
        let journal = events.clone();
        node.on_event(u32::MAX, Box::new(move |event: &Event| journal.lock().unwrap().push(event.clone())))
            .expect("a new node takes subscriptions");
        node.start().expect("the node starts");
        Witness { node, events }
    }

    pub fn name(&self) -> String {
        self.node.name().to_string()
    }

    pub fn address(&self) -> String {
        self.node.address().expect("it was started").to_string()
    }

    pub fn view(&self) -> Arc<View> {
        self.node.members().expect("it was started")
    }

    /// How many members, itself included, it lists as alive.
    pub fn alive(&self) -> usize {
        self.view().members.iter().filter(|m| m.state == MemberState::Alive).count()
    }

    pub fn state_of(&self, name: &str) -> Option<MemberState> {
        self.view().find(name).map(|m| m.state)
    }

    pub fn stat(&self, name: &str) -> u64 {
        self.node.stat(name).unwrap_or_else(|e| panic!("counter {name}: {e}"))
    }

    /// Packets that were refused, for whatever reason.
    pub fn rejected(&self) -> u64 {
        let stats = self.node.stats().expect("it was started");
        Stats::all().iter().filter(|d| d.name.starts_with("rejected_")).map(|d| d.get(&stats)).sum()
    }

    /// The kinds of the events about one member, in order.
    pub fn told_about(&self, name: &str) -> Vec<EventKind> {
        let events = self.events.lock().unwrap();
        events.iter().filter(|e| e.member.as_ref().is_some_and(|m| &*m.name == name)).map(|e| e.kind).collect()
    }

    /// The same without false alarms, which 80 ms of a busy machine may raise: a SUSPECT that an ALIVE takes back.
    pub fn story(&self, name: &str) -> Vec<EventKind> {
        let mut story = Vec::new();
        for kind in self.told_about(name) {
            if kind == EventKind::Alive && story.last() == Some(&EventKind::Suspect) {
                story.pop();
            } else {
                story.push(kind);
            }
        }
        story
    }

    pub fn told(&self, kind: EventKind, name: &str) -> bool {
        self.told_about(name).contains(&kind)
    }

    pub fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap().clone()
    }

    pub fn forget_events(&self) {
        self.events.lock().unwrap().clear();
    }

    /// Stops without a word to anybody, and waits until its ports are free.
    pub fn crash(self) {
        self.node.stop(Wait::For(LIMIT)).expect("a node can be stopped");
    }

    pub fn until(&self, what: &str, mut fact: impl FnMut(&Witness) -> bool) {
        eventually(what, || fact(self), || self.describe());
    }

    pub fn describe(&self) -> String {
        let view = self.view();
        let members: Vec<String> = view
            .members
            .iter()
            .map(|m| format!("{} {:?} {} epoch {} #{}", m.name, m.state, m.address, m.epoch.0, m.incarnation.0))
            .collect();
        let events: Vec<String> = self
            .events
            .lock()
            .unwrap()
            .iter()
            .map(|e| match (&e.member, &e.text) {
                (Some(m), _) => format!("{} {}", e.kind.name(), m.name),
                (None, Some(text)) => format!("{}: {text}", e.kind.name()),
                (None, None) => e.kind.name().to_owned(),
            })
            .collect();
        format!("{} lists\n    {}\n  and was told {}", self.name(), members.join("\n    "), events.join(", "))
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        let _ = self.node.stop(Wait::For(LIMIT));
    }
}

/// Waits until each of them lists `count` members as alive.
pub fn all_list(nodes: &[Witness], count: usize) {
    until_all(nodes, &format!("each lists {count} alive"), |w| w.alive() == count);
}

pub fn until_all(nodes: &[Witness], what: &str, mut fact: impl FnMut(&Witness) -> bool) {
    eventually(
        what,
        || nodes.iter().all(&mut fact),
        || nodes.iter().map(Witness::describe).collect::<Vec<_>>().join("\n"),
    );
}

/// `count` nodes, the first one the seed of the others, once each of them lists all.
pub fn cluster(count: usize, adjust: impl Fn(&mut Config)) -> Vec<Witness> {
    let mut nodes: Vec<Witness> = Vec::new();
    for i in 0..count {
        let seeds: Vec<String> = nodes.first().map(Witness::address).into_iter().collect();
        let seeds: Vec<&str> = seeds.iter().map(String::as_str).collect();
        let mut config = config(&format!("n{i:03}"), &seeds);
        adjust(&mut config);
        nodes.push(Witness::start(&config));
    }
    all_list(&nodes, count);
    nodes
}
