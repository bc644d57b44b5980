//! The sockets and timers of all nodes of one runtime, through one poller: on the thread that holds the
//! [`Wheel`](super::wheel::Wheel), which is "bruit-io", or another one that waits.
//!
//! A turn is: wait, obey commands, drain what is queued (within a budget), then fire the timers that are due. Draining
//! comes first, because a timer that fires while the answer to it lies unread in the socket would blame a peer for our
//! own lateness; and a timer that is late all the same is reported to its engine as our stall. What a turn costs does
//! not depend on how many nodes there are, but on how many of them have something to do.
//!
//! Here are turns, commands and timers; `datagrams` and `links` are what it does with the two kinds of sockets.

mod datagrams;
mod links;

use std::collections::BTreeSet;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use socket2::Socket;

use super::callbacks::panic_text;
use super::clock;
use super::fork::Listed;
use super::node::{Live, Shared};
use super::outgoing::Outgoing;
use super::poll::{Events, Interest};
use super::tcp::{LinkLimits, Links, Peers};
use super::team::{Command, Resolved, Threads};
use super::udp::{Receiver, Udp};
use crate::engine::Input;
use crate::id::RunId;
use crate::outbox::Outbox;
use crate::time::{Duration, Instant, Now};
use crate::wire::envelope::{Envelope, Sessions};

/// More than this in a turn is a flood: more than one lock's worth.
const FLOOD: usize = datagrams::AT_ONCE;

/// What a turn may drain before it looks at its timers.
const DRAIN_MAX: usize = 1024;
const DRAIN_TIME: Duration = Duration::from_millis(1);

/// How long a socket rests that fails again and again (no descriptors left, no memory): an event loop must not spin.
const REST: Duration = Duration::from_millis(100);

/// What a node gives to its driver, and sends by from other threads.
pub(crate) struct Wire {
    pub envelope: Envelope,
    /// None: everything goes by stream.
    pub udp: Option<Udp>,
    pub listener: Listed<Socket>,
    pub links: LinkLimits,
    pub datagram_max: usize,
    pub stall_threshold: Duration,
}

/// What a poller's key stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Udp(usize),
    Listener(usize),
    Link(usize),
}

impl Key {
    /// Slots and links are numbered from 0 without gaps; the largest number is the poller's own.
    fn number(self) -> usize {
        match self {
            Key::Udp(i) => 3 * i,
            Key::Listener(i) => 3 * i + 1,
            Key::Link(i) => 3 * i + 2,
        }
    }

    fn of(number: usize) -> Key {
        let i = number / 3;
        match number % 3 {
            0 => Key::Udp(i),
            1 => Key::Listener(i),
            _ => Key::Link(i),
        }
    }

    /// Of a node's own sockets.
    pub(super) fn socket(self, wire: &Wire) -> Option<&Socket> {
        match self {
            Key::Udp(_) => wire.udp.as_ref().map(Udp::socket),
            Key::Listener(_) => Some(&wire.listener),
            Key::Link(_) => None,
        }
    }

    pub(super) fn interest(self, readable: bool, writable: bool) -> Interest {
        Interest { key: self.number(), readable, writable }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Node(usize),
    Link(usize),
    /// A socket that failed has rested.
    Rested(Key),
}

/// After all other timers of the same time.
const LAST: Timer = Timer::Rested(Key::Link(usize::MAX));

/// A node, as its driver sees it.
struct Io {
    node: Arc<Shared>,
    wire: Arc<Wire>,
    sessions: Sessions,
    peers: Peers,
    armed: Option<Instant>,
    /// When the timer was set.
    since: Instant,
    /// The kernel's count of datagrams that it dropped, and ours.
    overflow: u32,
    overflow_known: u32,
}

type Timers = BTreeSet<(Instant, Timer)>;

impl Io {
    /// A timer that is overdue stays, to fire after what is being drained: else what is drained, which may move the
    /// deadline on, would hide that we are late.
    ///
    /// `now` is when the engine thought: we may have been held up since.
    fn arm(&mut self, timers: &mut Timers, slot: usize, deadline: Option<Instant>, now: Instant) {
        if self.armed.is_none_or(|at| at > now) {
            self.rearm(timers, slot, deadline, now);
        }
    }

    fn rearm(&mut self, timers: &mut Timers, slot: usize, deadline: Option<Instant>, now: Instant) {
        if self.armed != deadline {
            if let Some(at) = self.armed {
                timers.remove(&(at, Timer::Node(slot)));
            }
            if let Some(at) = deadline {
                timers.insert((at, Timer::Node(slot)));
            }
            (self.armed, self.since) = (deadline, now);
        }
    }

    /// How long a timer for `at` has been overdue. A deadline that was past when it was set is nobody's delay.
    fn late(&self, at: Instant, now: Instant) -> Duration {
        now.since(at.max(self.since))
    }
}

pub(crate) struct Driver {
    threads: Arc<Threads>,
    /// Those of the last turn; none while they are gone through.
    events: Option<Events>,
    nodes: Vec<Option<Io>>,
    links: Links,
    timers: Timers,
    /// Links that ended in this turn, by what they led to. Their nodes are not told yet.
    severed: Vec<(usize, RunId, bool)>,
    receiver: Receiver,
    outbox: Outbox,
    /// Empty: changes places with a node's.
    outgoing: Outgoing,
    /// Links that were given packets and have yet to write them.
    touched: Vec<usize>,
    scratch: Vec<u8>,
    /// Those of this turn that are not obeyed yet.
    commands: std::vec::IntoIter<Command>,
    exit: bool,
    /// In this process there are no threads of ours.
    elsewhere: bool,
    /// The last turn drained much.
    flooded: bool,
}

/// Tells a node that its sockets are closed, also where closing them panics.
struct Done(Option<Arc<Shared>>);

impl Drop for Done {
    fn drop(&mut self) {
        if let Some(node) = self.0.take() {
            node.driver_is_done();
        }
    }
}

impl Driver {
    pub(super) fn new(threads: Arc<Threads>) -> Driver {
        Driver {
            threads,
            events: None,
            nodes: Vec::new(),
            links: Links::default(),
            timers: BTreeSet::new(),
            severed: Vec::new(),
            receiver: Receiver::new(),
            outbox: Outbox::new(1400),
            outgoing: Outgoing::default(),
            touched: Vec::new(),
            scratch: Vec::new(),
            commands: Vec::new().into_iter(),
            exit: false,
            elsewhere: false,
            flooded: false,
        }
    }

    /// The thread "bruit-io". While another thread drives it stands by.
    pub(super) fn run(self) {
        let threads = self.threads.clone();
        let mut driver = Box::new(self);
        while !driver.exit {
            let passed = driver.round(None).and_then(|driver| threads.wheel.pass_round(driver));
            let Some(back) = passed else { return };
            driver = back;
        }
        // What comes too late is dropped, and with it the nodes that it names.
        threads.commands.lock().take();
        for slot in 0..driver.nodes.len() {
            driver.remove(slot);
        }
    }

    /// One time round: waits, at most so long, and does what there is to do. `None`: it has panicked, and is no more.
    pub(crate) fn round(mut self: Box<Driver>, limit: Option<Duration>) -> Option<Box<Driver>> {
        match catch_unwind(AssertUnwindSafe(|| self.work(limit))) {
            Ok(()) => Some(self),
            Err(panic) => {
                self.fail(&panic_text(&*panic));
                None
            }
        }
    }

    /// Our own thread shall end it.
    pub(crate) fn is_ending(&self) -> bool {
        self.exit
    }

    /// Two threads get on faster with what comes than one.
    pub(crate) fn is_flooded(&self) -> bool {
        self.flooded
    }

    /// The thread that drives has come out of its wait in a forked child.
    pub(crate) fn is_elsewhere(&self) -> bool {
        self.elsewhere
    }

    /// A panic outside the engines' locks. The links may be in any state, so all nodes have failed.
    fn fail(mut self: Box<Driver>, text: &str) {
        let threads = self.threads.clone();
        let nodes: Vec<Arc<Shared>> = self.nodes.iter().flatten().map(|io| io.node.clone()).collect();
        let unheard = std::mem::take(&mut self.commands);
        for node in &nodes {
            node.driver_failed(text);
        }
        // Their sockets are closed before anybody is told so.
        drop(self);
        let late = threads.commands.lock().take();
        for command in unheard.chain(late.into_iter().flatten()) {
            match command {
                Command::Add { node, .. } => {
                    node.driver_failed(text);
                    node.driver_is_done();
                }
                Command::Remove { node, .. } => drop(Done(node)),
                _ => {}
            }
        }
        nodes.into_iter().for_each(|node| node.driver_is_done());
    }

    fn work(&mut self, limit: Option<Duration>) {
        let timer = self.timers.first().map(|&(at, _)| at.since(clock::mono()));
        self.turn([timer, limit].into_iter().flatten().min());
        // Late although everything is drained: something held us up since. What came meanwhile goes first.
        if self.timers.first().is_some_and(|&(at, _)| clock::mono().since(at) > LATE) && !self.exit && !self.elsewhere {
            self.turn(Some(Duration::ZERO));
        }
        if !self.elsewhere {
            self.fire();
            self.tell_severed();
            self.links.end_turn();
        }
    }

    fn turn(&mut self, timeout: Option<Duration>) {
        let mut events = self.events.take().unwrap_or_else(Events::new);
        self.threads.poller.wait(&mut events, timeout);
        // By a signal handler of the application's. What is locked here stays locked.
        self.elsewhere = self.threads.born.elsewhere();
        if self.elsewhere {
            return;
        }
        self.obey();
        let mut budget = Budget { left: DRAIN_MAX, until: clock::mono() + DRAIN_TIME };
        for event in events.iter() {
            match Key::of(event.key) {
                Key::Udp(slot) => self.datagrams(slot, event.failed, &mut budget),
                Key::Listener(slot) => self.accept(slot),
                Key::Link(id) => self.link(id, event.readable, event.writable, &mut budget),
            }
        }
        self.flooded = DRAIN_MAX - budget.left > FLOOD;
        self.events = Some(events);
        self.tell_severed();
        self.links.end_turn();
    }

    // --- commands ---

    fn obey(&mut self) {
        let commands = self.threads.commands.lock().as_mut().map(std::mem::take);
        self.commands = commands.unwrap_or_default().into_iter();
        while let Some(command) = self.commands.next() {
            match command {
                Command::Add { slot, node, wire } => self.add(slot, node, wire),
                Command::Remove { slot, node } => {
                    let _done = Done(node);
                    self.remove(slot);
                    self.threads.free_slot(slot);
                }
                Command::Poke { slot, node } => {
                    node.poked.store(false, std::sync::atomic::Ordering::SeqCst);
                    if self.holds(slot, &node) {
                        let now = clock::now();
                        let deadline = node.peek_deadline();
                        self.arm(slot, deadline, now);
                        self.send_streams(slot);
                    }
                }
                Command::Resolved { node, what } => {
                    if let Some(slot) = node.slot().filter(|&slot| self.holds(slot, &node)) {
                        self.resolved(slot, &what);
                    }
                }
                Command::Exit => self.exit = true,
                // Without the hook, that is, without words on stderr.
                #[cfg(test)]
                Command::Panic => std::panic::resume_unwind(Box::new("on purpose")),
            }
        }
    }

    fn holds(&self, slot: usize, node: &Arc<Shared>) -> bool {
        self.nodes.get(slot).and_then(Option::as_ref).is_some_and(|io| Arc::ptr_eq(&io.node, node))
    }

    fn add(&mut self, slot: usize, node: Arc<Shared>, wire: Arc<Wire>) {
        if self.nodes.len() <= slot {
            self.nodes.resize_with(slot + 1, || None);
        }
        self.nodes[slot] = Some(Io {
            sessions: wire.envelope.sessions(),
            node,
            wire,
            peers: Peers::default(),
            armed: None,
            since: Instant::ZERO,
            overflow: 0,
            overflow_known: 0,
        });
    }

    fn remove(&mut self, slot: usize) {
        let Some(io) = self.nodes.get_mut(slot).and_then(Option::take) else { return };
        io.node.tally.links.store(0, Relaxed);
        io.node.tally.sessions.store(0, Relaxed);
        for key in [Key::Udp(slot), Key::Listener(slot)] {
            // Fails for a socket that rests.
            let _ = key.socket(&io.wire).map(|socket| self.threads.poller.delete(socket));
            self.timers.retain(|&(_, timer)| timer != Timer::Rested(key));
        }
        if let Some(at) = io.armed {
            self.timers.remove(&(at, Timer::Node(slot)));
        }
        for &id in io.peers.by_addr.values() {
            if let Some(link) = self.links.take(id) {
                let _ = self.threads.poller.delete(&*link.socket);
                self.timers.remove(&(link.armed, Timer::Link(id)));
            }
        }
    }

    fn resolved(&mut self, slot: usize, what: &Resolved) {
        let now = clock::now();
        match what {
            Resolved::Seed(seed, addrs) => {
                self.think(slot, now, |live, out| {
                    live.engine.handle(now, Input::Resolved { seed: *seed, addrs }, out);
                });
            }
            Resolved::Contacts(names) => {
                self.think(slot, now, |live, out| {
                    // Refused only where the node has left meanwhile.
                    let _ = live.engine.join(now, names, out);
                });
            }
        }
    }

    /// Takes a failing socket out of the poller for a while. (Its errors would be reported whatever one asks for.)
    fn rest(&mut self, key: Key, slot: usize) {
        let Some(io) = self.nodes.get(slot).and_then(Option::as_ref) else { return };
        if let Some(socket) = key.socket(&io.wire)
            && self.threads.poller.delete(socket).is_ok()
        {
            self.timers.insert((clock::mono() + REST, Timer::Rested(key)));
        }
    }

    // --- thinking ---

    /// Asks the engine, and does what follows.
    fn think(&mut self, slot: usize, now: Now, f: impl FnOnce(&mut Live, &mut Outbox)) {
        let Some(io) = self.nodes.get_mut(slot).and_then(Option::as_mut) else { return };
        self.outbox.set_datagram_max(io.wire.datagram_max);
        let Some(thought) = io.node.think(&mut self.outbox, now, f) else { return };
        let deadline = io.node.act(&mut self.outbox, now, thought.after);
        io.arm(&mut self.timers, slot, deadline, now.mono);
        self.send_streams(slot);
    }

    fn arm(&mut self, slot: usize, deadline: Option<Instant>, now: Now) {
        if let Some(io) = self.nodes.get_mut(slot).and_then(Option::as_mut) {
            io.arm(&mut self.timers, slot, deadline, now.mono);
        }
    }

    // --- timers ---

    fn fire(&mut self) {
        let now = clock::now();
        // Each timer once: a deadline that stays in the past must not keep us from the sockets.
        let due: Vec<(Instant, Timer)> = self.timers.range(..=(now.mono, LAST)).copied().collect();
        for (at, timer) in due {
            if !self.timers.remove(&(at, timer)) {
                continue;
            }
            match timer {
                Timer::Node(slot) => self.tick(slot, at),
                Timer::Link(id) => self.link_timer(id, now.mono),
                Timer::Rested(key) => {
                    let (Key::Udp(slot) | Key::Listener(slot) | Key::Link(slot)) = key;
                    if let Some(io) = self.nodes.get(slot).and_then(Option::as_ref) {
                        let watched = self.threads.watch_one(key, &io.wire);
                        if watched.is_err_and(|e| e.kind() != io::ErrorKind::AlreadyExists) {
                            self.timers.insert((now.mono + REST, timer));
                        }
                    }
                }
            }
        }
    }

    fn tick(&mut self, slot: usize, at: Instant) {
        let now = clock::now();
        let Some(io) = self.nodes.get_mut(slot).and_then(Option::as_mut) else { return };
        io.armed = None;
        let late = io.late(at, now.mono);
        let stalled = late > io.wire.stall_threshold;
        if stalled {
            io.node.tally.late_ticks.fetch_add(1, Relaxed);
        }
        self.think(slot, now, |live, out| {
            if stalled {
                live.engine.stalled(late);
            }
            live.engine.handle(now, Input::Tick, out);
        });
        // A deadline that a tick does not move would be a bug; it shall cost the node its punctuality, not a core.
        let soonest = now.mono + SOONEST;
        if let Some(io) = self.nodes.get_mut(slot).and_then(Option::as_mut)
            && io.armed.is_some_and(|at| at < soonest)
        {
            io.rearm(&mut self.timers, slot, Some(soonest), now.mono);
        }
    }
}

/// A turn that is later than this looks at the sockets once more before it fires timers.
const LATE: Duration = Duration::from_millis(5);

/// After a tick the next one is not sooner.
const SOONEST: Duration = Duration::from_micros(200);

/// What is left of a turn's time for draining.
struct Budget {
    left: usize,
    until: Instant,
}

impl Budget {
    fn take(&mut self, n: usize) -> bool {
        self.left = self.left.saturating_sub(n);
        self.left > 0 && clock::mono() < self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back_as_what_they_were() {
        for key in [Key::Udp(0), Key::Listener(0), Key::Link(0), Key::Udp(7), Key::Listener(900), Key::Link(12_345)] {
            assert_eq!(Key::of(key.number()), key);
        }
    }
}
