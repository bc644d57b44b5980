//! The sockets and timers of all nodes of one runtime, through one poller: on the thread that holds the [`Wheel`], which is
//! "bruit-io", or one of the application's that waits.
//!
//! A turn is: wait, obey commands, drain what is queued (within a budget), then fire the timers that are due. Draining
//! comes first, because a timer that fires while the answer to it lies unread in the socket would blame a peer for our
//! own lateness; and a timer that is late all the same is reported to its engine as our stall. What a turn costs does
//! not depend on how many nodes there are, but on how many of them have something to do.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;

use super::lock::{Condvar, Mutex};
use socket2::Socket;

use super::callbacks::panic_text;
use super::dispatcher::Dispatcher;
use super::fork::{Born, Listed};
use super::log::level;
use super::node::{Live, Shared};
use super::outgoing::Outgoing;
use super::poll::{Events, Interest, Poller};
use super::tcp::{Flow, Link, LinkLimits, Links, Peers, STRANGERS_MAX, Stage, Written};
use super::udp::{Receiver, Udp, is_passing};
use super::wheel::{Awaited, Wheel};
use super::{clock, threads};
use crate::engine::{Inbound, Input};
use crate::error::Result;
use crate::id::RunId;
use crate::outbox::{Outbox, Packet, Via};
use crate::time::{Duration, Instant, Now};
use crate::wire::envelope::{Envelope, Opened, Sessions};

/// More than this in a turn is a flood: more than one lock's worth.
const FLOOD: usize = AT_ONCE;

/// What a turn may drain before it looks at its timers.
const DRAIN_MAX: usize = 1024;
const DRAIN_TIME: Duration = Duration::from_millis(1);

/// Datagrams handed to the engine under one lock. Few, because their answers share one outbox.
const AT_ONCE: usize = 8;

/// So many bytes from a link are to the budget what a datagram is.
const DATAGRAM: usize = 1400;

/// Bytes taken from a link at once, and how often in a turn.
const READ: usize = 64 << 10;
const READS_MAX: usize = 4;

/// Connections accepted in one turn.
const ACCEPTS_MAX: usize = 64;

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

pub(crate) enum Command {
    Add {
        slot: usize,
        node: Arc<Shared>,
        wire: Arc<Wire>,
    },
    /// The node is told when it is done; None: a node that could not start.
    Remove {
        slot: usize,
        node: Option<Arc<Shared>>,
    },
    /// Another thread has changed its deadline, or left packets for links.
    Poke {
        slot: usize,
        node: Arc<Shared>,
    },
    Resolved {
        node: Arc<Shared>,
        what: Resolved,
    },
    Exit,
    #[cfg(test)]
    Panic,
}

/// What the resolver found.
pub(crate) enum Resolved {
    Seed(usize, Vec<SocketAddr>),
    /// The contacts of a join that nobody waits for.
    Contacts(Vec<Vec<SocketAddr>>),
}

/// A runtime's threads, and how to reach them.
pub(crate) struct Threads {
    poller: Poller,
    pub wheel: Wheel,
    /// None: the driver has ended.
    commands: Mutex<Option<Vec<Command>>>,
    slots: Mutex<Slots>,
    pub dispatcher: Dispatcher,
    living: Mutex<Living>,
    ended: Condvar,
    born: Born,
}

#[derive(Default)]
struct Slots {
    free: Vec<usize>,
    next: usize,
}

#[derive(Default)]
struct Living {
    count: usize,
    dispatching: bool,
    exit: bool,
    handles: Vec<JoinHandle<()>>,
}

impl Threads {
    pub(crate) fn start() -> io::Result<Arc<Threads>> {
        let threads = Arc::new(Threads {
            poller: Poller::new()?,
            wheel: Wheel::new(),
            commands: Mutex::new(Some(Vec::new())),
            slots: Mutex::new(Slots::default()),
            dispatcher: Dispatcher::default(),
            living: Mutex::new(Living::default()),
            ended: Condvar::new(),
            born: Born::default(),
        });
        threads.born.here();
        threads.spawn("bruit-io", |threads| Driver::new(threads).run())?;
        Ok(threads)
    }

    /// The dispatcher begins when there is something to dispatch to.
    pub(crate) fn start_dispatcher(self: &Arc<Threads>) -> io::Result<()> {
        let mut living = self.living.lock();
        if living.dispatching || living.exit {
            return Ok(());
        }
        living.dispatching = true;
        drop(living);
        let spawned = self.spawn("bruit-cb", |threads| threads.dispatcher.run(&threads));
        // The next one tries again.
        spawned.inspect_err(|_| self.living.lock().dispatching = false)
    }

    fn spawn(self: &Arc<Threads>, name: &str, f: fn(Arc<Threads>)) -> io::Result<()> {
        let (threads, mut living) = (self.clone(), self.living.lock());
        let handle = threads::spawn(name, move || {
            let ending = Ending(threads);
            f(ending.0.clone());
        })?;
        living.count += 1;
        living.handles.push(handle);
        Ok(())
    }

    /// False: the driver has ended, and does nothing any more.
    pub(crate) fn command(&self, command: Command) -> bool {
        let heard = self.commands.lock().as_mut().map(|commands| commands.push(command)).is_some();
        self.poller.notify();
        heard
    }

    /// Waits until `look` finds what is awaited: drives meanwhile if that is for the better, and sleeps for the rest of the
    /// time. Whoever makes something to be found calls [`Threads::call`] then.
    pub(crate) fn attend<T>(
        &self,
        awaited: Awaited,
        deadline: Option<std::time::Instant>,
        mut look: impl FnMut() -> Option<T>,
        sleep: impl FnOnce() -> T,
    ) -> Result<T> {
        if let Some(found) = look() {
            return Ok(found);
        }
        let mut visit = self.wheel.visit(awaited);
        let found = visit.drive(deadline, &mut look)?;
        Ok(found.unwrap_or_else(sleep))
    }

    /// What somebody may wait for in [`Threads::attend`] can be found.
    pub(crate) fn call(&self, awaited: Awaited) {
        if self.wheel.call(awaited) {
            self.poller.notify();
        }
    }

    /// Whatever somebody waits for who drives: it shall look.
    pub(crate) fn call_all(&self) {
        if self.wheel.has_guest() {
            self.poller.notify();
        }
    }

    /// Hands a node's sockets to the driver.
    pub(crate) fn add(&self, node: &Arc<Shared>, wire: Arc<Wire>) -> io::Result<usize> {
        let slot = {
            let mut slots = self.slots.lock();
            slots.free.pop().unwrap_or_else(|| {
                slots.next += 1;
                slots.next - 1
            })
        };
        // Before the poller knows the sockets, so that no event comes for a slot that the driver does not know.
        if !self.command(Command::Add { slot, node: node.clone(), wire: wire.clone() }) {
            return Err(io::Error::other("the runtime's thread has failed; make a new runtime"));
        }
        self.watch(slot, &wire).inspect_err(|_| {
            self.command(Command::Remove { slot, node: None });
        })?;
        Ok(slot)
    }

    fn watch(&self, slot: usize, wire: &Wire) -> io::Result<()> {
        self.watch_one(Key::Udp(slot), wire)?;
        self.watch_one(Key::Listener(slot), wire)
    }

    fn watch_one(&self, key: Key, wire: &Wire) -> io::Result<()> {
        key.socket(wire).map_or(Ok(()), |socket| self.poller.add(socket, key.interest(true, false)))
    }

    /// Lets both threads come to their end.
    pub(crate) fn exit(&self) {
        self.living.lock().exit = true;
        self.dispatcher.exit();
        self.command(Command::Exit);
    }

    /// Waits for both threads; a thread that calls it does not wait for itself. False: not in time.
    pub(crate) fn join(&self, deadline: Option<std::time::Instant>) -> bool {
        let mut living = self.living.lock();
        let own = usize::from(living.handles.iter().any(threads::is_current));
        while living.count > own {
            match deadline {
                None => self.ended.wait(&mut living),
                Some(at) => {
                    if self.ended.wait_until(&mut living, at).timed_out() && living.count > own {
                        return false;
                    }
                }
            }
        }
        let handles = std::mem::take(&mut living.handles);
        drop(living);
        for handle in handles.into_iter().filter(|h| !threads::is_current(h)) {
            let _ = handle.join();
        }
        true
    }
}

/// Counts a thread out, however it ends.
struct Ending(Arc<Threads>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.living.lock().count -= 1;
        self.0.ended.notify_all();
    }
}

/// What a poller's key stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
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
    fn socket(self, wire: &Wire) -> Option<&Socket> {
        match self {
            Key::Udp(_) => wire.udp.as_ref().map(Udp::socket),
            Key::Listener(_) => Some(&wire.listener),
            Key::Link(_) => None,
        }
    }

    fn interest(self, readable: bool, writable: bool) -> Interest {
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
    fn new(threads: Arc<Threads>) -> Driver {
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
    fn run(self) {
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
                    self.threads.slots.lock().free.push(slot);
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

    // --- datagrams ---

    fn datagrams(&mut self, slot: usize, has_errors: bool, budget: &mut Budget) {
        if has_errors {
            self.errors(slot);
        }
        let mut failures = 0;
        while let Some(io) = self.nodes.get_mut(slot).and_then(Option::as_mut) {
            let Some(udp) = &io.wire.udp else { return };
            match self.receiver.receive(udp, &mut io.overflow) {
                Ok(()) => {
                    failures = 0;
                    self.batch(slot);
                    if self.receiver.drained() || !budget.take(self.receiver.len()) {
                        return;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) => {
                    io.node.tally.receive_errors.fetch_add(1, Relaxed);
                    failures += 1;
                    if is_passing(&e) && failures < 8 {
                        self.errors(slot);
                    } else {
                        return self.rest(Key::Udp(slot), slot);
                    }
                }
            }
        }
    }

    /// Opens the datagrams outside the lock, and hands some at a time to the engine under one lock.
    fn batch(&mut self, slot: usize) {
        let now = clock::now();
        let Some(io) = self.nodes[slot].as_mut() else { return };
        let lost = io.overflow.wrapping_sub(io.overflow_known);
        io.overflow_known = io.overflow;
        io.node.tally.receive_overflow.fetch_add(u64::from(lost), Relaxed);
        // What the kernel had to drop is our fault: answers may have been among it.
        let mut stall = (lost > 0).then_some(io.wire.stall_threshold);

        let mut datagrams = self.receiver.datagrams();
        loop {
            let mut opened: [Option<Inbound<'_>>; AT_ONCE] = [const { None }; AT_ONCE];
            let places = &mut opened.iter_mut();
            for (from, bytes) in &mut datagrams {
                let Some(inbound) = Self::opened(io, now, from, bytes) else { continue };
                *places.next().expect("the loop ends with the last place") = Some(inbound);
                if places.len() == 0 {
                    break;
                }
            }
            if opened[0].is_none() {
                break;
            }
            self.outbox.set_datagram_max(io.wire.datagram_max);
            let thought = io.node.think(&mut self.outbox, now, |live, out| {
                if let Some(lost) = stall.take() {
                    live.engine.stalled(lost);
                }
                for inbound in opened.iter().flatten() {
                    live.engine.handle(now, Input::Packet(*inbound), out);
                }
            });
            let Some(thought) = thought else { break };
            let deadline = io.node.act(&mut self.outbox, now, thought.after);
            io.arm(&mut self.timers, slot, deadline, now.mono);
        }
        drop(datagrams);
        io.node.tally.sessions.store(io.sessions.len() as u64, Relaxed);
        self.send_streams(slot);
    }

    fn opened<'a>(io: &mut Io, now: Now, from: SocketAddr, bytes: Option<&'a mut [u8]>) -> Option<Inbound<'a>> {
        let tally = &io.node.tally;
        let Some(bytes) = bytes else {
            tally.datagrams_too_large.fetch_add(1, Relaxed);
            return None;
        };
        tally.datagrams_in.fetch_add(1, Relaxed);
        tally.datagram_bytes_in.fetch_add(bytes.len() as u64, Relaxed);
        match io.wire.envelope.open(&mut io.sessions, now.mono, bytes) {
            Ok(Opened { from: run, stranger, frames }) => {
                Some(Inbound { from, run, stranger, via: Via::Datagram, frames })
            }
            Err(reject) => {
                tally.rejects[reject as usize].fetch_add(1, Relaxed);
                None
            }
        }
    }

    /// What the kernel learned about datagrams that we sent.
    fn errors(&mut self, slot: usize) {
        let mut unreachable = Vec::new();
        {
            let Some(io) = self.nodes.get(slot).and_then(Option::as_ref) else { return };
            let Some(udp) = &io.wire.udp else { return };
            udp.errors(|to, refused| {
                if refused {
                    io.node.tally.unreachable.fetch_add(1, Relaxed);
                    unreachable.push(to);
                } else {
                    io.node.tally.path_errors.fetch_add(1, Relaxed);
                }
            });
        }
        if unreachable.is_empty() {
            return;
        }
        let now = clock::now();
        self.think(slot, now, |live, out| {
            for &addr in &unreachable {
                live.engine.handle(now, Input::Unreachable { addr, via: Via::Datagram }, out);
            }
        });
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

    // --- links ---

    /// Brings the packets that engines left for streams to their links.
    fn send_streams(&mut self, slot: usize) {
        let Some(io) = self.nodes.get_mut(slot).and_then(Option::as_mut) else { return };
        let mut outgoing = std::mem::take(&mut self.outgoing);
        if io.node.take_outgoing(&mut outgoing) {
            for (run, is_member) in outgoing.marks.drain(..) {
                io.sessions.set_member(run, is_member);
            }
            self.enqueue(slot, outgoing.packets());
        }
        // Emptied. What is written from now on leaves its buffers there.
        std::mem::swap(&mut self.outgoing, &mut outgoing);
        let mut touched = std::mem::take(&mut self.touched);
        for id in touched.drain(..) {
            self.write(id);
        }
        self.touched = touched;
    }

    fn enqueue(&mut self, slot: usize, packets: impl Iterator<Item = Packet>) {
        for packet in packets {
            let Some(id) = self.link_for(slot, &packet) else {
                if let Some(io) = &self.nodes[slot] {
                    io.node.tally.records_dropped.fetch_add(1, Relaxed);
                }
                continue;
            };
            let (Some(io), Some(link)) = (&self.nodes[slot], self.links.get(id)) else { continue };
            if !link.enqueue(packet, io.wire.links.queue) {
                io.node.tally.records_dropped.fetch_add(1, Relaxed);
            } else if !self.touched.contains(&id) {
                self.touched.push(id);
            }
        }
    }

    /// The link of that run, or to that address; a new one where there is none.
    fn link_for(&mut self, slot: usize, packet: &Packet) -> Option<usize> {
        let io = self.nodes.get(slot)?.as_ref()?;
        if let Some(&id) = packet.to.run.and_then(|run| io.peers.by_run.get(&run)) {
            return Some(id);
        }
        if let Some(&id) = io.peers.by_addr.get(&packet.to.addr) {
            let bound = self.links.get(id).and_then(|link| link.run());
            if bound.is_none() || packet.to.run.is_none() {
                return Some(id);
            }
            // Another run lives there now.
            self.close(id);
        }
        self.dial(slot, packet.to.addr)
    }

    fn dial(&mut self, slot: usize, addr: SocketAddr) -> Option<usize> {
        self.make_room(slot);
        let now = clock::mono();
        let io = self.nodes.get(slot)?.as_ref()?;
        let (limits, tally) = (io.wire.links, &io.node.tally);
        match Link::dial(slot, addr, now, now + limits.timeout) {
            Ok(link) => {
                tally.links_dialed.fetch_add(1, Relaxed);
                self.put(slot, link)
            }
            Err(e) => {
                tally.links_refused.fetch_add(1, Relaxed);
                io.node.log(level::DEBUG, "bruit::link", || format!("cannot connect to {addr}: {e}"));
                None
            }
        }
    }

    fn put(&mut self, slot: usize, mut link: Link) -> Option<usize> {
        let is_stranger = matches!(link.stage, Stage::Stranger { .. });
        // One peer address may connect to two of ours. There is one link to an address, and who has proven itself stays.
        if let Some(&old) = self.nodes.get(slot)?.as_ref()?.peers.by_addr.get(&link.peer) {
            let is_proven = self.links.get(old).is_some_and(|old| !matches!(old.stage, Stage::Stranger { .. }));
            if is_proven && is_stranger {
                return None;
            }
            self.close(old);
        }
        let io = self.nodes.get_mut(slot)?.as_mut()?;
        let id = self.links.next_id();
        let interest = Key::Link(id).interest(true, link.awaits_room);
        if self.threads.poller.add(&*link.socket, interest).is_err() {
            io.node.tally.links_broken.fetch_add(1, Relaxed);
            return None;
        }
        link.armed = link.deadline(io.wire.links.idle);
        self.timers.insert((link.armed, Timer::Link(id)));
        io.peers.strangers += usize::from(is_stranger);
        io.peers.by_addr.insert(link.peer, id);
        io.node.tally.links.store(io.peers.by_addr.len() as u64, Relaxed);
        self.links.put(link);
        Some(id)
    }

    /// Closes the least recently used link where `max_links` is reached. Strangers have a limit of their own.
    fn make_room(&mut self, slot: usize) {
        let Some(io) = self.nodes.get(slot).and_then(Option::as_ref) else { return };
        if io.peers.by_addr.len().saturating_sub(io.peers.strangers) < io.wire.links.links.max(1) {
            return;
        }
        let oldest = io
            .peers
            .by_addr
            .values()
            .filter_map(|&id| self.links.get(id).map(|link| (link.stage, link.has_work(), link.last, id)))
            .filter(|(stage, ..)| !matches!(stage, Stage::Stranger { .. }))
            .min_by_key(|&(_, has_work, last, id)| (has_work, last, id));
        if let Some((.., id)) = oldest {
            io.node.tally.links_evicted.fetch_add(1, Relaxed);
            self.close(id);
        }
    }

    fn close(&mut self, id: usize) {
        let Some(link) = self.links.take(id) else { return };
        let _ = self.threads.poller.delete(&*link.socket);
        let Some(io) = self.nodes.get_mut(link.node).and_then(Option::as_mut) else { return };
        self.timers.remove(&(link.armed, Timer::Link(id)));
        io.peers.strangers -= usize::from(matches!(link.stage, Stage::Stranger { .. }));
        if io.peers.by_addr.get(&link.peer) == Some(&id) {
            io.peers.by_addr.remove(&link.peer);
        }
        if let Some(run) = link.leads_to() {
            let last = io.peers.by_run.get(&run).is_none_or(|&current| current == id);
            if last {
                io.peers.by_run.remove(&run);
            }
            self.severed.push((link.node, run, last));
        }
        io.node.tally.links.store(io.peers.by_addr.len() as u64, Relaxed);
        io.node.tally.records_dropped.fetch_add(link.unsent() as u64, Relaxed);
    }

    fn tell_severed(&mut self) {
        // Telling it may close others: those are told in the next turn, which their engines' deadlines bring.
        for (slot, run, last) in std::mem::take(&mut self.severed) {
            let now = clock::now();
            self.think(slot, now, |live, out| live.engine.handle(now, Input::Severed { run, last }, out));
        }
    }

    fn broken(&mut self, id: usize, why: &dyn std::fmt::Display) {
        let Some(link) = self.links.get(id) else { return };
        let (peer, node) = (link.peer, link.node);
        if let Some(io) = self.nodes.get(node).and_then(Option::as_ref) {
            io.node.tally.links_broken.fetch_add(1, Relaxed);
            io.node.log(level::DEBUG, "bruit::link", || format!("link with {peer} ended: {why}"));
        }
        self.close(id);
    }

    /// The link has come to a new stage. Its timer stays: it comes too early then, and sees so by itself.
    fn open(&mut self, id: usize, now: Instant, run: Option<RunId>) {
        let Some(link) = self.links.get(id) else { return };
        let Some(io) = self.nodes.get_mut(link.node).and_then(Option::as_mut) else { return };
        io.peers.strangers -= usize::from(matches!(link.stage, Stage::Stranger { .. }));
        link.stage = Stage::Open { run };
        link.last = now;
        if let Some(run) = run {
            // The newest link of a run is the one that works.
            io.peers.by_run.insert(run, id);
        }
    }

    fn accept(&mut self, slot: usize) {
        for _ in 0..ACCEPTS_MAX {
            let Some(io) = self.nodes.get(slot).and_then(Option::as_ref) else { return };
            let now = clock::mono();
            match Link::accept(slot, &io.wire.listener, now, now + io.wire.links.timeout) {
                Ok(None) => return,
                Ok(Some(_)) if io.peers.strangers >= STRANGERS_MAX => {
                    io.node.tally.strangers_refused.fetch_add(1, Relaxed);
                }
                Ok(Some(link)) => {
                    io.node.tally.links_accepted.fetch_add(1, Relaxed);
                    self.put(slot, link);
                }
                // The peer was gone before we came.
                Err(e) if e.kind() == io::ErrorKind::ConnectionAborted || is_passing(&e) => {}
                Err(e) => {
                    io.node.tally.accept_errors.fetch_add(1, Relaxed);
                    io.node.log(level::WARNING, "bruit::link", || format!("cannot accept connections: {e}"));
                    return self.rest(Key::Listener(slot), slot);
                }
            }
        }
    }

    fn link(&mut self, id: usize, readable: bool, writable: bool, budget: &mut Budget) {
        let Some(link) = self.links.get(id) else { return };
        if let Stage::Connecting { .. } = link.stage {
            match link.socket.take_error() {
                Ok(None) if writable => self.open(id, clock::mono(), None),
                Ok(None) => return,
                Ok(Some(e)) | Err(e) => return self.refused(id, &e),
            }
        }
        if writable {
            self.write(id);
        }
        if readable {
            self.read(id, budget);
        }
    }

    fn refused(&mut self, id: usize, why: &io::Error) {
        let Some(link) = self.links.get(id) else { return };
        let (slot, addr) = (link.node, link.peer);
        self.close(id);
        let Some(io) = self.nodes.get(slot).and_then(Option::as_ref) else { return };
        io.node.tally.links_refused.fetch_add(1, Relaxed);
        io.node.log(level::DEBUG, "bruit::link", || format!("cannot connect to {addr}: {why}"));
        if why.kind() == io::ErrorKind::ConnectionRefused {
            let now = clock::now();
            self.think(slot, now, |live, out| {
                live.engine.handle(now, Input::Unreachable { addr, via: Via::Stream }, out);
            });
        }
    }

    fn write(&mut self, id: usize) {
        let Some(link) = self.links.get(id) else { return };
        let Some(io) = self.nodes.get(link.node).and_then(Option::as_ref) else { return };
        if matches!(link.stage, Stage::Connecting { .. }) {
            return;
        }
        let mut done = Written::default();
        let flow = link.write(&io.wire.envelope, &mut done, |buf| self.outgoing.keep(buf));
        io.node.tally.records_out.fetch_add(done.records, Relaxed);
        io.node.tally.record_bytes_out.fetch_add(done.bytes, Relaxed);
        match flow {
            Ok(flow) => {
                let awaits_room = flow == Flow::Blocked;
                if link.awaits_room != awaits_room {
                    link.awaits_room = awaits_room;
                    let interest = Key::Link(id).interest(true, awaits_room);
                    let _ = self.threads.poller.modify(&*link.socket, interest);
                }
                if done.bytes > 0 {
                    link.last = clock::mono();
                }
            }
            Err(e) => self.broken(id, &e),
        }
    }

    fn read(&mut self, id: usize, budget: &mut Budget) {
        self.scratch.resize(READ, 0);
        for _ in 0..READS_MAX {
            let Some(link) = self.links.get(id) else { return };
            let n = match io::Read::read(&mut &*link.socket, &mut self.scratch) {
                Ok(0) => return self.broken(id, &"closed by the peer"),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return self.broken(id, &e),
            };
            self.received(id, n);
            // The rest is still readable in the next turn.
            if !budget.take(1 + n / DATAGRAM) || n < READ {
                return;
            }
        }
    }

    /// `scratch[..n]` has come from that link.
    fn received(&mut self, id: usize, n: usize) {
        let now = clock::now();
        let Some(link) = self.links.get(id) else { return };
        let (slot, peer, bound) = (link.node, link.peer, link.run());
        let mut reader = std::mem::take(&mut link.reader);
        let Some(io) = self.nodes.get_mut(slot).and_then(Option::as_mut) else { return };
        io.node.tally.record_bytes_in.fetch_add(n as u64, Relaxed);

        let mut owner = bound;
        let mut foreign = false;
        let pushed = reader.push(&mut self.scratch[..n], |record| {
            let (node, tally) = (&io.node, &io.node.tally);
            tally.records_in.fetch_add(1, Relaxed);
            let Opened { from: run, stranger, frames } = match io.wire.envelope.open(&mut io.sessions, now.mono, record)
            {
                Ok(opened) => opened,
                Err(reject) => {
                    tally.rejects[reject as usize].fetch_add(1, Relaxed);
                    return false;
                }
            };
            foreign |= owner.is_some_and(|owner| owner != run);
            if foreign {
                return false;
            }
            // What was sealed for nobody may be a replay, and proves nothing about who holds this connection.
            if !stranger {
                owner = Some(run);
            }
            let inbound = Inbound { from: peer, run, stranger, via: Via::Stream, frames };
            self.outbox.set_datagram_max(io.wire.datagram_max);
            let handle = |live: &mut Live, out: &mut Outbox| live.engine.handle(now, Input::Packet(inbound), out);
            if let Some(thought) = node.think(&mut self.outbox, now, handle) {
                let deadline = node.act(&mut self.outbox, now, thought.after);
                io.arm(&mut self.timers, slot, deadline, now.mono);
            }
            !stranger
        });
        io.node.tally.sessions.store(io.sessions.len() as u64, Relaxed);
        if let Some(link) = self.links.get(id) {
            link.reader = reader;
            link.last = now.mono;
        }
        if owner != bound {
            self.open(id, now.mono, owner);
        }
        if let Err(e) = pushed {
            self.broken(id, &e);
        } else if foreign {
            self.broken(id, &"a record of another run");
        }
        self.make_room_after(slot, owner != bound);
        self.send_streams(slot);
    }

    /// An accepted link counts against `max_links` when it stops being a stranger's.
    fn make_room_after(&mut self, slot: usize, grew: bool) {
        let Some(io) = self.nodes.get(slot).and_then(Option::as_ref) else { return };
        if grew && io.peers.by_addr.len().saturating_sub(io.peers.strangers) > io.wire.links.links.max(1) {
            self.make_room(slot);
        }
    }

    fn link_timer(&mut self, id: usize, now: Instant) {
        let Some(link) = self.links.get(id) else { return };
        let Some(io) = self.nodes.get(link.node).and_then(Option::as_ref) else { return };
        let deadline = link.deadline(io.wire.links.idle);
        if deadline > now {
            link.armed = deadline;
            self.timers.insert((deadline, Timer::Link(id)));
            return;
        }
        if !matches!(link.stage, Stage::Open { .. }) {
            io.node.tally.links_timed_out.fetch_add(1, Relaxed);
            let peer = link.peer;
            io.node.log(level::DEBUG, "bruit::link", || format!("link with {peer} timed out"));
        }
        self.close(id);
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
