//! The handle that an application holds, and what it shares with the threads that work for it.
//!
//! ```text
//! NEW ──start──▶ RUNNING ──leave──▶ LEAVING ──▶ LEFT
//!  │                └──────────┬────────┴─────────┘
//!  └──────────stop────────────▶ STOPPED          a panic under the engine's lock: FAILED, until stop
//! ```
//! One lock guards the engine, and covers thinking only: no system call, no callback, no crypto under it. What a call
//! concluded is carried out after it ([`Shared::act`]) by the thread that made the call. Three things are handed over
//! *under* it, because their order matters: events to the inbox, packets for streams to their links' queue, and
//! completions to those who wait for them; waking anybody comes later.
//!
//! Order of locks: control, then live, then those of the inbox, the queues, the outgoing packets. Callbacks run under
//! none of them.

mod judge;
mod query;
mod queue;
mod stream;
mod talk;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering::*};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant as Clock;

use super::lock::{Condvar, Mutex};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, select};

use super::address::{DEFAULT_PORT, Target};
use super::callbacks::{Callbacks, EventFn, LogSink, Pass, Shut, panic_text};
use super::dispatcher::Dispatcher;
use super::driver::{Command, Resolved, Threads, Wire};
use super::fork::{self, Born};
use super::inbox::{Bounds, Inbox, Woke};
use super::log::{LogRing, level};
use super::open::{self, Opened};
use super::outgoing::Outgoing;
use super::share::{Inner, Runtime, forked};
use super::stats::{Stats, Tally};
use super::stream::Pipe;
use super::wheel::Awaited;
use super::{clock, resolver, threads};
use crate::config::{self, Config};
use crate::engine::{Counters, Engine, Input};
use crate::error::{Code, Error, Result};
use crate::id::{NodeName, RunId};
use crate::message::{Body, StreamId};
use crate::outbox::{Completion, Outbox, Packet, Via};
use crate::time::{Duration, Instant, Now};
use crate::view::{Event, EventKind, View};
pub(crate) use query::QueryHandler;
use query::{Gatherer, Told};
pub use query::{Progress, Query, Reply};
use queue::Queue;
pub use queue::{EventQueue, Heard, MessageQueue, MixedQueue, Reader};
use talk::Asker;
pub use talk::{Each, Parcel, Sent, To};

/// Items that `dispatch` takes from the inbox at once.
const AT_ONCE: usize = 64;
/// How long `leave(Wait::Now)` tries to tell peers.
const LEAVE_TIME: Duration = Duration::from_secs(5);
/// What "for ever" means to an engine that wants a number.
const EVER: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a call may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Begin and return at once.
    Now,
    For(Duration),
    Forever,
}

impl Wait {
    /// `None`: for ever.
    pub(crate) fn deadline(self) -> Option<Clock> {
        match self {
            Wait::Now => Some(Clock::now()),
            Wait::For(d) => Clock::now().checked_add(d),
            Wait::Forever => None,
        }
    }
}

/// Where a node is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i32)]
pub enum NodeState {
    New = 0,
    Running = 1,
    Leaving = 2,
    Left = 3,
    Stopped = 4,
    Failed = 5,
}

/// Sockets that somebody else has opened and bound. `start` duplicates them; the caller keeps its own, and
/// closes them when it likes. They are made non-blocking, which the caller's descriptors share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Adopt {
    pub udp: Option<RawFd>,
    /// Listening already, or only bound.
    pub tcp: Option<RawFd>,
}

/// One member of one cluster. Handles are cheap to clone; dropping the last one is [`Node::release`].
#[derive(Clone)]
pub struct Node(Arc<Handle>);

/// What all handles of a node own together; the threads own the [`Shared`] alone.
struct Handle(Option<Arc<Shared>>);

impl Drop for Handle {
    fn drop(&mut self) {
        let shared = self.0.take();
        if shared.as_ref().is_some_and(|shared| shared.is_elsewhere()) {
            // A forked child leaks everything, rather than touch what other threads had locked.
            std::mem::forget(shared);
        } else if let Some(shared) = shared {
            shared.release();
        }
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Node").field(&self.name()).field(&self.state()).finish()
    }
}

impl Node {
    /// Validates the configuration; binds nothing and starts no thread. Without a runtime the node gets its own.
    pub fn new(config: &Config, runtime: Option<Runtime>) -> Result<Node> {
        Node::new_with(config, runtime, Adopt::default(), None)
    }

    pub fn new_with(config: &Config, runtime: Option<Runtime>, adopt: Adopt, log: Option<LogSink>) -> Result<Node> {
        config.validate()?;
        fork::install();
        let runtime = runtime.map_or_else(|| Arc::new(Inner::new(false)), |r| r.inner());
        if runtime.is_elsewhere() {
            return Err(forked());
        }
        Ok(Node(Arc::new(Handle(Some(Arc::new(Shared::new(config.clone(), runtime, adopt, log)?))))))
    }

    /// Binds, starts threads, begins to join the seeds, and never stops trying. On failure the node is still NEW.
    /// Once stopped a node does not start again: `E_STATE`.
    pub fn start(&self) -> Result<()> {
        self.shared().start()
    }

    /// Asks the contacts (`host:port`, or `host` with the default port) to let this node in; returns how many
    /// answered. With `Wait::Now`: `Ok(0)` at once, and a JOINED event follows. `E_TIMEOUT` where nobody answered in
    /// time: the seeds are called on, and names that do not resolve in time are joined when they do; `E_REFUSED` where
    /// somebody said no; `E_ADDRESS` where no name resolves.
    pub fn join(&self, contacts: &[&str], wait: Wait) -> Result<usize> {
        self.shared().join(contacts, wait)
    }

    /// Graceful: peers see LEFT. With `Wait::Now` a LEAVE_DONE event follows. After `E_TIMEOUT` the node has left all
    /// the same, but peers may take it for dead.
    pub fn leave(&self, wait: Wait) -> Result<()> {
        self.shared().leave(wait)
    }

    /// Abrupt and idempotent. After `Ok` no callback runs any more, their boxes are dropped and the threads joined.
    /// `Wait::Now` begins to stop and is legal anywhere: `E_TIMEOUT` where something is still ending.
    pub fn stop(&self, wait: Wait) -> Result<()> {
        self.shared().stop(wait)
    }

    /// `stop(Wait::Forever)`; `E_DEADLOCK` in a callback of this node.
    pub fn free(&self) -> Result<()> {
        self.shared().stop(Wait::Forever)
    }

    /// Begins to stop and returns; no further callback starts. Legal anywhere.
    pub fn release(&self) {
        if !self.shared().is_elsewhere() {
            self.shared().release();
        }
    }

    pub fn state(&self) -> NodeState {
        self.shared().state()
    }

    pub fn name(&self) -> NodeName {
        self.shared().name()
    }

    /// The advertised address; `E_STATE` before start.
    pub fn address(&self) -> Result<SocketAddr> {
        let shared = self.shared();
        shared.check()?;
        shared.started.get().map(|s| s.address).ok_or_else(|| shared.why_not())
    }

    /// Changes an option that is marked live; `E_STATE` for others.
    pub fn set(&self, key: &str, value: &str) -> Result<()> {
        let shared = self.shared();
        shared.check()?;
        let mut config = shared.config.lock();
        let new = Arc::new(config.set_live(key, value)?);
        match shared.peek(|live| live.engine.reconfigure(clock::mono(), new.clone())) {
            // Not started yet: then with the new value.
            None if shared.state() != NodeState::New => return Err(shared.why_not()),
            _ => {}
        }
        *config = new;
        drop(config);
        shared.poke_driver();
        Ok(())
    }

    /// Several keys at once are one UPDATE at the peers; `None` deletes.
    pub fn set_meta(&self, changes: &[(&str, Option<&[u8]>)]) -> Result<()> {
        let shared = self.shared();
        shared.check()?;
        shared.call(|live, out, now| live.engine.set_meta(now, changes, out))?
    }

    /// Registers a handler for the kinds in `mask` (bits of `EventKind`): for what happens from now on, not for what is
    /// queued already. (An OVERFLOW is for all handlers, whatever it counts.) The box is dropped exactly once, after its
    /// last call has returned (on failure: at once).
    pub fn on_event(&self, mask: u32, f: Box<dyn FnMut(&Event) + Send>) -> Result<u64> {
        self.shared().on_event(mask, f)
    }

    /// Also inside the handler itself. After it returned no call runs: a call on another thread is waited for.
    pub fn unsubscribe(&self, subscription: u64) -> Result<()> {
        let shared = self.shared();
        shared.check()?;
        if shared.callbacks.remove(subscription) {
            shared.tell_judged();
            Ok(())
        } else {
            Err(Error::new(Code::NotFound, format!("no subscription {subscription}")))
        }
    }

    /// Manual mode: readable while items wait. Never read or close it.
    pub fn event_fd(&self) -> Result<RawFd> {
        let shared = self.shared();
        shared.check_manual()?;
        shared.inbox.fd().map_err(|e| Error::io("cannot make an event descriptor", &e))
    }

    /// Manual mode: runs callbacks here, at most `max`; `max <= 0`: what was queued at entry. Returns how many events
    /// it took. `E_BUSY` while another thread does it.
    pub fn dispatch(&self, max: i32) -> Result<usize> {
        self.shared().dispatch(max)
    }

    /// Manual mode: true when items wait, false after the time or a `wakeup`.
    pub fn wait(&self, wait: Wait) -> Result<bool> {
        let shared = self.shared();
        shared.check_manual()?;
        shared.check_outside()?;
        let deadline = wait.deadline();
        match shared.wait(deadline)? {
            Woke::Items => Ok(true),
            Woke::Wakeup | Woke::Timeout => Ok(false),
            Woke::Closed => Err(shared.why_not()),
        }
    }

    /// Ends a `wait` on another thread, and makes the descriptor readable until the next `dispatch`.
    pub fn wakeup(&self) -> Result<()> {
        let shared = self.shared();
        shared.check_manual()?;
        shared.inbox.wakeup();
        shared.call_readers();
        Ok(())
    }

    /// Manual mode: takes the next event out of the inbox instead of running handlers.
    pub fn next_event(&self) -> Result<Option<Event>> {
        let shared = self.shared();
        shared.check_manual()?;
        shared.inbox.noticed();
        if let Ok(pass) = shared.callbacks.enter()
            && shared.drain_log(&pass)
        {
            shared.poke_reader();
        }
        Ok(shared.inbox.pop())
    }

    /// A queue of events of its own for one reader, in either mode.
    pub fn queue(&self, mask: u32, capacity: usize) -> Result<EventQueue> {
        self.shared().queue(mask, capacity)
    }

    /// All members; costs a pointer while nothing changes. After a stop: the last view.
    pub fn members(&self) -> Result<Arc<View>> {
        let shared = self.shared();
        shared.check()?;
        let now = clock::now();
        match shared.peek(|live| live.engine.view(now)) {
            Some(view) => Ok(view),
            None if shared.state() == NodeState::Failed => Err(shared.why_not()),
            None => shared.last.lock().view.clone().ok_or_else(|| shared.why_not()),
        }
    }

    /// The version of the current view; 0 before start.
    pub fn view(&self) -> u64 {
        self.shared().version.load(Acquire)
    }

    pub fn stats(&self) -> Result<Stats> {
        self.shared().stats()
    }

    /// One counter by name; `E_NOT_FOUND`.
    pub fn stat(&self, name: &str) -> Result<u64> {
        let stats = self.stats()?;
        stats.get(name).ok_or_else(|| Error::new(Code::NotFound, format!("no counter {name:?}")))
    }

    #[cfg(test)]
    pub(crate) fn threads(&self) -> Option<Arc<Threads>> {
        self.shared().control.lock().threads.clone()
    }

    fn shared(&self) -> &Arc<Shared> {
        self.0.0.as_ref().expect("taken in drop only")
    }
}

/// A node, as its handles and its threads see it.
pub(crate) struct Shared {
    config: Mutex<Arc<Config>>,
    is_manual: bool,
    datagram_max: usize,
    adopt: Adopt,
    first_name: NodeName,
    /// The process that made it.
    maker: u32,
    started: OnceLock<Started>,
    runtime: Arc<Inner>,
    born: Born,
    state: AtomicI32,
    control: Mutex<Control>,
    changed: Condvar,
    live: Mutex<Option<Live>>,
    /// For those who wait for something else than a completion. The sending end goes when the node stops.
    ending: (Mutex<Option<Sender<()>>>, Receiver<()>),
    version: AtomicU64,
    outgoing: Mutex<Outgoing>,
    has_outgoing: AtomicBool,
    slot: AtomicUsize,
    pub poked: AtomicBool,
    inbox: Inbox,
    /// Threads that wait for it.
    readers: AtomicUsize,
    queues: Mutex<Vec<Arc<Queue>>>,
    callbacks: Callbacks,
    /// Seeds whose names the resolver looks up. A slow one is not asked again meanwhile.
    asked: Mutex<BTreeSet<usize>>,
    /// In the dispatcher's queue.
    posted: AtomicBool,
    log: LogRing,
    last: Mutex<Last>,
    pub tally: Tally,
    /// Bytes of messages, direct and broadcast, that the application has let go of, and the engine does not know of.
    freed: [AtomicUsize; 2],
    /// So many are worth telling it.
    freed_worth: usize,
}

/// Fixed by a start that succeeded.
struct Started {
    name: NodeName,
    address: SocketAddr,
}

/// What the engine's lock guards. There is none before start, after stop, and in FAILED.
pub(crate) struct Live {
    pub engine: Engine,
    wire: Arc<Wire>,
    joins: BTreeMap<u64, Sender<Answered>>,
    leavers: Vec<Sender<bool>>,
    askers: BTreeMap<u64, Asker>,
    gatherers: BTreeMap<u64, Gatherer>,
    /// Those who wait for room in a member's queue.
    writers: BTreeMap<String, Vec<Sender<()>>>,
    /// Byte streams of which something may still come, or be said.
    streams: BTreeMap<StreamId, Arc<Pipe>>,
    /// What the driver has set its timer to.
    armed: Option<Instant>,
}

struct Answered {
    count: usize,
    refused: Option<String>,
}

/// What is left of an engine that has ended.
#[derive(Default)]
struct Last {
    view: Option<Arc<View>>,
    counters: Counters,
}

struct Control {
    phase: Phase,
    threads: Option<Arc<Threads>>,
    /// The driver has been told to let go of the node.
    removed: bool,
    /// It has done so.
    driver_done: bool,
    /// The runtime's threads, which end with this node.
    ending: Option<Arc<Threads>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    New,
    /// Sockets are being opened, outside the lock. A stop that comes meanwhile is carried out at the end.
    Starting {
        stop: bool,
    },
    Live,
    Stopping,
    Stopped,
}

/// The answer of a call on the engine, and what is to be done about it.
pub(crate) struct Thought<T> {
    pub value: T,
    pub after: After,
}

pub(crate) struct After {
    wire: Arc<Wire>,
    deadline: Option<Instant>,
    poke: bool,
    /// Something was queued for readers.
    tell: bool,
    wakes: Vec<Wake>,
}

enum Wake {
    Joined(Sender<Answered>, Answered),
    Left(Sender<bool>, bool),
    Replied(threads::Id, Sender<Result<Body>>, Result<Body>),
    Writable(Sender<()>),
    /// Of a question to many.
    Reader(Arc<Inbox>),
    /// It is over, and its queue closes.
    Gathered(Gatherer),
    Stream(Arc<Pipe>),
}

/// Who thinks: the driver sees to timers and links itself, others must tell it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Driver,
    Application,
}

impl Shared {
    fn new(config: Config, runtime: Arc<Inner>, adopt: Adopt, log: Option<LogSink>) -> Result<Shared> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let first_name = if config.name.is_empty() { automatic_name()? } else { NodeName::new(&config.name)? };
        let bounds = Bounds {
            capacity: config.inbox_capacity,
            members: config.inbox_capacity.max(4 * config.max_members),
            bytes: config.inbox_bytes,
        };
        let ending = bounded(0);
        Ok(Shared {
            is_manual: config.dispatch == config::Dispatch::Manual,
            datagram_max: config.max_datagram,
            adopt,
            first_name,
            maker: std::process::id(),
            started: OnceLock::new(),
            runtime,
            born: Born::default(),
            state: AtomicI32::new(NodeState::New as i32),
            control: Mutex::new(Control {
                phase: Phase::New,
                threads: None,
                removed: false,
                driver_done: false,
                ending: None,
            }),
            changed: Condvar::new(),
            live: Mutex::new(None),
            ending: (Mutex::new(Some(ending.0)), ending.1),
            version: AtomicU64::new(0),
            outgoing: Mutex::new(Outgoing::default()),
            has_outgoing: AtomicBool::new(false),
            slot: AtomicUsize::new(usize::MAX),
            poked: AtomicBool::new(false),
            inbox: Inbox::new(bounds, false),
            readers: AtomicUsize::new(0),
            queues: Mutex::new(Vec::new()),
            log: LogRing::new(log.as_ref().map(|sink| sink.max_level)),
            callbacks: Callbacks::new(NEXT.fetch_add(1, Relaxed), log),
            asked: Mutex::new(BTreeSet::new()),
            posted: AtomicBool::new(false),
            last: Mutex::new(Last::default()),
            tally: Tally::default(),
            freed: Default::default(),
            freed_worth: config.inbox_bytes / 64,
            config: Mutex::new(Arc::new(config)),
        })
    }

    // --- what every call begins with ---

    fn is_elsewhere(&self) -> bool {
        self.born.elsewhere() || self.runtime.is_elsewhere()
    }

    /// Before any lock.
    fn check(&self) -> Result<()> {
        if self.is_elsewhere() { Err(forked()) } else { Ok(()) }
    }

    fn check_manual(&self) -> Result<()> {
        self.check()?;
        if self.is_manual {
            Ok(())
        } else {
            Err(Error::new(Code::State, "the node dispatches on its own thread; set dispatch = manual for this"))
        }
    }

    fn check_outside(&self) -> Result<()> {
        if self.callbacks.inside() {
            Err(Error::new(Code::Deadlock, "called in a callback of the same node"))
        } else {
            Ok(())
        }
    }

    fn state(&self) -> NodeState {
        match self.state.load(Acquire) {
            1 => NodeState::Running,
            2 => NodeState::Leaving,
            3 => NodeState::Left,
            4 => NodeState::Stopped,
            5 => NodeState::Failed,
            _ => NodeState::New,
        }
    }

    /// Out of STOPPED there is no way: a stop may have come between a thought and what it concluded.
    fn set_state(&self, new: NodeState) {
        let stays = |old| (old != NodeState::Stopped as i32).then_some(new as i32);
        let _ = self.state.fetch_update(AcqRel, Acquire, stays);
    }

    fn name(&self) -> NodeName {
        self.started.get().map_or(&self.first_name, |s| &s.name).clone()
    }

    /// Why a call that needs a running engine finds none.
    fn why_not(&self) -> Error {
        match self.state() {
            NodeState::Failed => Error::new(Code::Failed, "the node has failed; stop it and make a new one"),
            NodeState::New => Error::new(Code::State, "the node is not started"),
            NodeState::Stopped => Error::new(Code::State, "the node is stopped"),
            state => Error::new(Code::State, format!("not possible while the node is {state:?}")),
        }
    }

    // --- life ---

    fn start(self: &Arc<Self>) -> Result<()> {
        self.check()?;
        {
            let mut control = self.control.lock();
            if control.phase != Phase::New {
                return Err(match control.phase {
                    Phase::Starting { .. } => Error::new(Code::State, "another thread is starting the node"),
                    Phase::Live => Error::new(Code::State, "the node is started already"),
                    _ => Error::new(Code::State, "a stopped node does not start again; make a new one"),
                });
            }
            control.phase = Phase::Starting { stop: false };
        }
        let config = self.config.lock().clone();
        // Children of a fork must not share the name that their parent drew.
        let is_drawn_anew = config.name.is_empty() && std::process::id() != self.maker;
        let name = if is_drawn_anew { automatic_name() } else { Ok(self.first_name.clone()) };
        let opened = name.and_then(|name| {
            let opened = open::open(&config, self.adopt, &name)?;
            Ok((name, opened))
        });
        let begun = self.begin(opened)?;
        if begun.is_open_to_all {
            let text = "no key is configured: whoever reaches this node can join, read and forge";
            self.log(level::WARNING, "bruit::node", || text.into());
            self.tell(&Event::new(EventKind::Warning, 0).text(text));
        }
        self.log(level::INFO, "bruit::node", || format!("{} started at {}", self.name(), begun.address));
        // An error here means that somebody has stopped the node already.
        self.tell_judged();
        let _ = self.call(|live, out, now| live.engine.start(now, out));
        Ok(())
    }

    /// Commits to what was opened, or goes back to NEW.
    fn begin(self: &Arc<Self>, opened: Result<(NodeName, Opened)>) -> Result<Begun> {
        let mut control = self.control.lock();
        if control.phase == (Phase::Starting { stop: true }) {
            control.phase = Phase::Stopped;
            self.changed.notify_all();
            return Err(Error::new(Code::Canceled, "the node was stopped while it started"));
        }
        let begun = opened.and_then(|(name, opened)| {
            let threads = self.runtime.enter()?;
            let begun = self.begin_on(&threads, name, opened);
            match &begun {
                Ok(_) => control.threads = Some(threads),
                Err(_) => {
                    *self.live.lock() = None;
                    self.born.nowhere();
                    // They have nothing to do, and end by themselves.
                    self.runtime.leave();
                }
            }
            begun
        });
        control.phase = if begun.is_ok() { Phase::Live } else { Phase::New };
        begun
    }

    fn begin_on(self: &Arc<Self>, threads: &Arc<Threads>, name: NodeName, opened: Opened) -> Result<Begun> {
        if !self.is_manual && (self.callbacks.any() || self.log.wants(level::CRITICAL)) {
            threads.start_dispatcher().map_err(|e| Error::io("cannot start a thread", &e))?;
        }
        let Opened { wire, engine, address, is_open_to_all } = opened;
        let wire = Arc::new(wire);
        let mut live = Live {
            engine,
            wire: wire.clone(),
            joins: BTreeMap::new(),
            leavers: Vec::new(),
            askers: BTreeMap::new(),
            gatherers: BTreeMap::new(),
            writers: BTreeMap::new(),
            streams: BTreeMap::new(),
            armed: None,
        };
        self.version.store(live.engine.view_version(), Release);
        {
            // What was set while the sockets were being opened. What comes later finds the engine.
            let config = self.config.lock();
            live.engine.reconfigure(clock::mono(), config.clone());
            *self.live.lock() = Some(live);
        }
        self.born.here();
        let slot = threads.add(self, wire).map_err(|e| Error::io("cannot watch the sockets", &e))?;
        self.slot.store(slot, Release);
        let _ = self.started.set(Started { name, address });
        // Or the driver has failed meanwhile.
        let (new, running) = (NodeState::New as i32, NodeState::Running as i32);
        let _ = self.state.compare_exchange(new, running, AcqRel, Acquire);
        Ok(Begun { address, is_open_to_all })
    }

    fn stop(self: &Arc<Self>, wait: Wait) -> Result<()> {
        self.check()?;
        if self.callbacks.inside() {
            if wait != Wait::Now {
                return self.check_outside();
            }
            self.begin_stop();
            return Err(Error::new(Code::Timeout, "the node stops when this callback has returned"));
        }
        let deadline = wait.deadline();
        self.begin_stop();
        if self.finish_stop(deadline) {
            Ok(())
        } else {
            Err(Error::new(Code::Timeout, "the node is still stopping; stop it again to wait for it"))
        }
    }

    fn release(self: &Arc<Self>) {
        self.begin_stop();
        self.callbacks.clear_if_idle();
    }

    /// Nothing new begins from here on. Never blocks.
    fn begin_stop(self: &Arc<Self>) {
        let threads = {
            let mut control = self.control.lock();
            match control.phase {
                Phase::New => control.phase = Phase::Stopped,
                Phase::Starting { .. } => control.phase = Phase::Starting { stop: true },
                Phase::Live => {
                    control.phase = Phase::Stopping;
                    self.remove_from_driver(&mut control);
                    control.ending = self.runtime.leave();
                }
                Phase::Stopping | Phase::Stopped => {}
            }
            self.set_state(NodeState::Stopped);
            control.threads.take()
        };
        self.callbacks.close();
        self.inbox.close();
        self.close_queues();
        self.ending.0.lock().take();
        let live = self.live.lock().take();
        self.bury(live);
        threads.iter().for_each(|threads| threads.call_all());
    }

    fn remove_from_driver(self: &Arc<Self>, control: &mut Control) {
        if let Some(threads) = control.threads.as_ref().filter(|_| !control.removed) {
            control.removed = true;
            let command = Command::Remove { slot: self.slot.load(Acquire), node: Some(self.clone()) };
            control.driver_done |= !threads.command(command);
        }
    }

    /// Keeps what may still be asked for, and drops the rest: with it go those who wait for completions.
    fn bury(&self, live: Option<Live>) {
        let Some(mut live) = live else { return };
        let now = clock::now();
        for pipe in std::mem::take(&mut live.streams).into_values() {
            pipe.end(self.interrupted());
            pipe.announce();
        }
        let _ = catch_unwind(AssertUnwindSafe(|| {
            let view = live.engine.view(now);
            *self.last.lock() = Last { view: Some(view), counters: live.engine.counters().clone() };
            drop(live);
        }));
    }

    fn finish_stop(&self, deadline: Option<Clock>) -> bool {
        if !self.callbacks.clear(deadline) {
            return false;
        }
        let mut control = self.control.lock();
        while !(control.phase == Phase::Stopped || control.phase == Phase::Stopping && control.driver_done) {
            match deadline {
                None => self.changed.wait(&mut control),
                Some(at) => {
                    if self.changed.wait_until(&mut control, at).timed_out() {
                        return false;
                    }
                }
            }
        }
        let ending = control.ending.clone();
        drop(control);
        if !ending.is_none_or(|threads| threads.join(deadline)) {
            return false;
        }
        let mut control = self.control.lock();
        control.phase = Phase::Stopped;
        control.ending = None;
        true
    }

    /// The driver has closed its side.
    pub(crate) fn driver_is_done(&self) {
        self.control.lock().driver_done = true;
        self.changed.notify_all();
    }

    /// The driver has ended by a panic.
    pub(crate) fn driver_failed(self: &Arc<Self>, text: &str) {
        let mut guard = self.live.lock();
        let live = guard.take();
        if live.is_some() {
            self.set_state(NodeState::Failed);
            drop(guard);
            self.fail(live, text);
        }
    }

    /// A panic under the engine's lock: this node has failed, others go on.
    fn fail(self: &Arc<Self>, live: Option<Live>, text: &str) {
        self.bury(live);
        let text = format!("a bug in bruit: {text}");
        self.tell(&Event::new(EventKind::Fatal, self.version.load(Acquire)).text(text.as_str()));
        self.log(level::CRITICAL, "bruit::node", || text);
        // What is queued can still be read, and nothing follows.
        self.inbox.close();
        self.close_queues();
        self.ending.0.lock().take();
        self.with_threads(|threads| threads.call_all());
        self.remove_from_driver(&mut self.control.lock());
    }

    // --- thinking ---

    /// On the driver's thread. None: there is no engine any more.
    pub(crate) fn think<T>(
        self: &Arc<Self>,
        out: &mut Outbox,
        now: Now,
        f: impl FnOnce(&mut Live, &mut Outbox) -> T,
    ) -> Option<Thought<T>> {
        self.think_as(Who::Driver, out, now, f)
    }

    /// An application's call, with an outbox from the pool; what follows is done here.
    fn call<T>(self: &Arc<Self>, f: impl FnOnce(&mut Live, &mut Outbox, Now) -> T) -> Result<T> {
        let now = clock::now();
        let mut out = self.runtime.outbox(self.datagram_max);
        let thought = self.think_as(Who::Application, &mut out, now, |live, out| f(live, out, now));
        let value = thought.map(|Thought { value, after }| {
            self.act_as(Who::Application, &mut out, now, after);
            value
        });
        self.runtime.put_back(out);
        value.ok_or_else(|| self.why_not())
    }

    /// A look at the engine that sends nothing.
    fn peek<T>(self: &Arc<Self>, f: impl FnOnce(&mut Live) -> T) -> Option<T> {
        let mut guard = self.live.lock();
        let live = guard.as_mut()?;
        match catch_unwind(AssertUnwindSafe(|| f(live))) {
            Ok(value) => Some(value),
            Err(panic) => {
                let live = guard.take();
                self.set_state(NodeState::Failed);
                drop(guard);
                self.fail(live, &panic_text(&*panic));
                None
            }
        }
    }

    fn think_as<T>(
        self: &Arc<Self>,
        who: Who,
        out: &mut Outbox,
        now: Now,
        f: impl FnOnce(&mut Live, &mut Outbox) -> T,
    ) -> Option<Thought<T>> {
        out.clear();
        self.peek(|live| {
            if let Some(weight) = self.take_freed() {
                live.engine.consumed(now, weight, out);
            }
            let value = f(live, out);
            self.sift_questions(live, now, out);
            self.sift(live, now, out);
            self.sift_streams(live, now, out);
            let (mut wakes, answers) = self.complete(live, out);
            let opened = self.hand_out_streams(live, out, &mut wakes);
            let asked = !out.messages.is_empty() || !out.questions.is_empty();
            let tell = answers || opened || !out.events.is_empty() || asked;
            let has_outgoing = self.hand_over(live, out);
            self.version.store(live.engine.view_version(), Release);
            let deadline = live.engine.deadline(now.mono);
            let poke = match who {
                Who::Driver => {
                    live.armed = deadline;
                    false
                }
                Who::Application => {
                    has_outgoing || deadline.is_some_and(|at| live.armed.is_none_or(|armed| at < armed))
                }
            };
            Thought { value, after: After { wire: live.wire.clone(), deadline, poke, tell, wakes } }
        })
    }

    /// Finds those who wait for what has ended. They are woken after the lock. True: answers were queued for handlers.
    fn complete(self: &Arc<Self>, live: &mut Live, out: &mut Outbox) -> (Vec<Wake>, bool) {
        let (mut wakes, mut answers) = (Vec::new(), false);
        for completion in out.completions.drain(..) {
            match completion {
                Completion::Joined { id, answered, refused } => {
                    if let Some(waiter) = live.joins.remove(&id) {
                        wakes.push(Wake::Joined(waiter, Answered { count: answered, refused }));
                    }
                }
                Completion::LeaveDone { told } => {
                    self.set_state(NodeState::Left);
                    wakes.extend(live.leavers.drain(..).map(|waiter| Wake::Left(waiter, told)));
                }
                Completion::Replied { id, answer } => answers |= self.wake_asker(live, id, answer, &mut wakes),
                Completion::Answered { id, answer } => {
                    answers |= self.gather(live, id, Told::Answer(answer), &mut wakes);
                }
                Completion::Heard { id, by } => answers |= self.gather(live, id, Told::Heard(by), &mut wakes),
                Completion::Gathered { id, gathered } => {
                    answers |= self.gather(live, id, Told::End(gathered), &mut wakes);
                }
                Completion::Writable { to } => self.wake_writers(live, &to, &mut wakes),
                // An event says it.
                Completion::Received { .. } => {}
            }
        }
        (wakes, answers)
    }

    /// Under the lock: events and messages to their queues, and packets for streams to the driver, each in its order.
    fn hand_over(self: &Arc<Self>, live: &Live, out: &mut Outbox) -> bool {
        let mut marks = Vec::new();
        for event in &out.events {
            self.queue_event(event);
            note_runs(event, &mut marks);
        }
        self.queue_questions(out);
        self.queue_messages(out);
        let by_stream = |p: &Packet| p.to.via == Via::Stream || live.wire.udp.is_none();
        if marks.is_empty() && !out.packets().iter().any(by_stream) {
            return false;
        }
        let mut outgoing = self.outgoing.lock();
        outgoing.marks.append(&mut marks);
        for packet in out.packets().iter_mut().filter(|p| by_stream(p)) {
            if !outgoing.add(packet) {
                self.tally.records_dropped.fetch_add(1, Relaxed);
            }
        }
        self.has_outgoing.store(true, Release);
        true
    }

    /// Carries out what the engine concluded, on the driver's thread. Answers with the engine's deadline.
    pub(crate) fn act(self: &Arc<Self>, out: &mut Outbox, now: Now, after: After) -> Option<Instant> {
        self.act_as(Who::Driver, out, now, after)
    }

    fn act_as(self: &Arc<Self>, who: Who, out: &mut Outbox, now: Now, mut after: After) -> Option<Instant> {
        loop {
            for wake in std::mem::take(&mut after.wakes) {
                // Who has given up waiting is not missed.
                let _ = match wake {
                    Wake::Joined(waiter, answered) => waiter.try_send(answered).is_ok(),
                    Wake::Left(waiter, told) => waiter.try_send(told).is_ok(),
                    Wake::Replied(thread, waiter, answer) => {
                        let told = waiter.try_send(answer).is_ok();
                        self.with_threads(|threads| threads.call(Awaited::Answer(thread)));
                        told
                    }
                    Wake::Writable(waiter) => waiter.try_send(()).is_ok(),
                    Wake::Reader(inbox) => {
                        inbox.announce();
                        true
                    }
                    Wake::Gathered(gatherer) => {
                        drop(gatherer);
                        true
                    }
                    Wake::Stream(pipe) => {
                        pipe.announce();
                        true
                    }
                };
            }
            self.send(&after.wire, out);
            out.events.iter().for_each(|event| self.log_event(event));
            if after.tell {
                self.announce();
            }
            if after.poke {
                self.poke_driver();
            }
            if out.resolve.is_empty() {
                return after.deadline;
            }
            let literals = self.resolve_seeds(&std::mem::take(&mut out.resolve));
            if literals.is_empty() {
                return after.deadline;
            }
            let thought = self.think_as(who, out, now, |live, out| {
                for (seed, addrs) in &literals {
                    live.engine.handle(now, Input::Resolved { seed: *seed, addrs }, out);
                }
            });
            match thought {
                Some(thought) => after = thought.after,
                None => return None,
            }
        }
    }

    fn send(&self, wire: &Wire, out: &mut Outbox) {
        let Some(udp) = &wire.udp else { return };
        let mut any = false;
        for packet in out.packets().iter_mut().filter(|p| p.to.via == Via::Datagram && !p.buf.is_empty()) {
            wire.envelope.seal(packet.to.run, &mut packet.buf);
            any = true;
        }
        if any {
            let sent = udp.send(out.packets());
            self.tally.datagrams_out.fetch_add(sent.datagrams, Relaxed);
            self.tally.datagram_bytes_out.fetch_add(sent.bytes, Relaxed);
            self.tally.datagrams_failed.fetch_add(sent.failed, Relaxed);
        }
    }

    /// Literals (and what is no address at all) are answered here; names go to the resolver.
    fn resolve_seeds(self: &Arc<Self>, seeds: &[usize]) -> Vec<(usize, Vec<SocketAddr>)> {
        let config = self.config.lock().clone();
        let mut known = Vec::new();
        for &seed in seeds {
            let text = config.seeds.get(seed).map_or("", String::as_str);
            match Target::parse(text, DEFAULT_PORT) {
                Ok(Target::Literal(addr)) => known.push((seed, vec![addr])),
                Err(_) => known.push((seed, Vec::new())),
                Ok(Target::Name { host, port }) => {
                    if !self.asked.lock().insert(seed) {
                        continue;
                    }
                    let question = Question { node: Arc::downgrade(self), seed };
                    let name = host.clone();
                    resolver::resolve(host, port, move |found| {
                        if let Some(node) = question.node.upgrade() {
                            drop(question);
                            let addrs = node.found(&name, found);
                            node.tell_driver(Resolved::Seed(seed, addrs));
                        }
                    });
                }
            }
        }
        known
    }

    fn found(self: &Arc<Self>, name: &str, found: std::io::Result<Vec<SocketAddr>>) -> Vec<SocketAddr> {
        found.unwrap_or_else(|e| {
            self.tally.names_unresolved.fetch_add(1, Relaxed);
            self.log(level::DEBUG, "bruit::node", || format!("{name} does not resolve: {e}"));
            Vec::new()
        })
    }

    // --- the driver's side ---

    pub(crate) fn slot(&self) -> Option<usize> {
        Some(self.slot.load(Acquire)).filter(|&slot| slot != usize::MAX)
    }

    pub(crate) fn peek_deadline(self: &Arc<Self>) -> Option<Instant> {
        let now = clock::mono();
        self.peek(|live| {
            live.armed = live.engine.deadline(now);
            live.armed
        })
        .flatten()
    }

    /// For what waits for links; `empty` stays in its place. False: nothing does.
    pub(crate) fn take_outgoing(&self, empty: &mut Outgoing) -> bool {
        let has_some = self.has_outgoing.swap(false, AcqRel);
        if has_some {
            std::mem::swap(&mut *self.outgoing.lock(), empty);
        }
        has_some
    }

    fn poke_driver(self: &Arc<Self>) {
        if let Some(slot) = self.slot()
            && !self.poked.swap(true, SeqCst)
        {
            self.with_threads(|threads| _ = threads.command(Command::Poke { slot, node: self.clone() }));
        }
    }

    fn tell_driver(self: &Arc<Self>, what: Resolved) {
        self.with_threads(|threads| _ = threads.command(Command::Resolved { node: self.clone(), what }));
    }

    fn with_threads(&self, f: impl FnOnce(&Arc<Threads>)) {
        let threads = self.control.lock().threads.clone();
        if let Some(threads) = threads {
            f(&threads);
        }
    }

    // --- calls that wait ---

    /// Until the inbox has something.
    fn wait(&self, deadline: Option<Clock>) -> Result<Woke> {
        self.readers.fetch_add(1, SeqCst);
        let woke = self.attend(self.items(), deadline, || self.inbox.look(), || self.inbox.wait(deadline));
        self.readers.fetch_sub(1, SeqCst);
        woke
    }

    fn attend<T>(
        &self,
        awaited: Awaited,
        deadline: Option<Clock>,
        look: impl FnMut() -> Option<T>,
        sleep: impl FnOnce() -> T,
    ) -> Result<T> {
        let threads = self.control.lock().threads.clone();
        match threads {
            Some(threads) => threads.attend(awaited, deadline, look, sleep),
            // Not started, or stopped.
            None => Ok(sleep()),
        }
    }

    fn items(&self) -> Awaited {
        Awaited::Items(&raw const *self as usize)
    }

    /// After the inbox has got something: who drives while it waits for that has to look. (The inbox's lock lies between
    /// what it gets and this look at the number, as between the number and a reader's look: one of both sees the other.)
    fn call_readers(&self) {
        if self.readers.load(SeqCst) > 0 {
            self.with_threads(|threads| threads.call(self.items()));
        }
    }

    fn poke_reader(&self) {
        self.inbox.poke();
        self.call_readers();
    }

    fn join(self: &Arc<Self>, contacts: &[&str], wait: Wait) -> Result<usize> {
        self.check()?;
        if self.state() != NodeState::Running {
            return Err(self.why_not());
        }
        if contacts.is_empty() {
            return Err(Error::new(Code::Invalid, "no address to join; expected host:port"));
        }
        let targets = contacts.iter().map(|text| Target::parse(text, DEFAULT_PORT)).collect::<Result<Vec<_>>>()?;
        if wait == Wait::Now {
            return self.join_later(targets);
        }
        let deadline = wait.deadline();
        let (names, goes_on) = self.resolve_contacts(targets, deadline)?;
        if names.iter().all(Vec::is_empty) {
            return Err(if goes_on {
                Error::new(Code::Timeout, format!("not resolved in time, still trying: {}", contacts.join(", ")))
            } else {
                Error::new(Code::Address, format!("no contact resolves: {}", contacts.join(", ")))
            });
        }
        let (tell, told) = bounded(1);
        self.call(|live, out, now| {
            let id = live.engine.join(now, &names, out)?;
            live.joins.insert(id, tell);
            Ok(())
        })??;
        let nobody = || {
            Error::new(
                Code::Timeout,
                format!(
                    "nobody answered at {}; if they are up, their cluster label or keys may differ from ours",
                    contacts.join(", ")
                ),
            )
        };
        match receive(&told, deadline) {
            Ok(Answered { count: 0, refused: Some(text) }) => Err(Error::new(Code::Refused, text)),
            Ok(Answered { count: 0, .. }) | Err(RecvTimeoutError::Timeout) => Err(nobody()),
            Ok(Answered { count, .. }) => Ok(count),
            Err(RecvTimeoutError::Disconnected) => Err(self.interrupted()),
        }
    }

    fn join_later(self: &Arc<Self>, targets: Vec<Target>) -> Result<usize> {
        let contacts = self.look_up(targets, None);
        let known = {
            let mut contacts = contacts.lock();
            if contacts.left > 0 { Vec::new() } else { std::mem::take(&mut contacts.found) }
        };
        if !known.is_empty() {
            self.call(|live, out, now| live.engine.join(now, &known, out))??;
        }
        Ok(0)
    }

    /// Waits for the resolver where there are host names. Those that it has not found in time are joined when it has;
    /// true: there are such.
    fn resolve_contacts(
        self: &Arc<Self>,
        targets: Vec<Target>,
        deadline: Option<Clock>,
    ) -> Result<(Vec<Vec<SocketAddr>>, bool)> {
        let limit = Clock::now().checked_add(self.config.lock().join_timeout);
        let until = [deadline, limit].into_iter().flatten().min();
        let (tell, told) = bounded(1);
        let contacts = self.look_up(targets, Some(tell));
        if contacts.lock().left > 0 {
            let timeout = until.map_or(EVER, |at| at.saturating_duration_since(Clock::now()));
            select! {
                recv(told) -> _ => {}
                recv(self.ending.1) -> _ => return Err(self.interrupted()),
                default(timeout) => {}
            }
        }
        let mut contacts = contacts.lock();
        contacts.waiter = None;
        Ok((std::mem::take(&mut contacts.found), contacts.left > 0))
    }

    fn look_up(self: &Arc<Self>, targets: Vec<Target>, waiter: Option<Sender<()>>) -> Arc<Mutex<Contacts>> {
        let mut found = Vec::new();
        let mut unknown = Vec::new();
        for target in targets {
            match target {
                Target::Literal(addr) => found.push(vec![addr]),
                Target::Name { host, port } => unknown.push((host, port)),
            }
        }
        let contacts = Arc::new(Mutex::new(Contacts { left: unknown.len(), found, waiter }));
        for (host, port) in unknown {
            let (node, contacts, name) = (Arc::downgrade(self), contacts.clone(), host.clone());
            resolver::resolve(host, port, move |found| {
                let Some(node) = node.upgrade() else { return };
                let addrs = node.found(&name, found);
                let mut contacts = contacts.lock();
                contacts.found.push(addrs);
                contacts.left -= 1;
                if contacts.left > 0 {
                    return;
                }
                match contacts.waiter.take() {
                    Some(waiter) => _ = waiter.try_send(()),
                    None => node.tell_driver(Resolved::Contacts(std::mem::take(&mut contacts.found))),
                }
            });
        }
        contacts
    }

    fn leave(self: &Arc<Self>, wait: Wait) -> Result<()> {
        self.check()?;
        let deadline = wait.deadline();
        let timeout = match wait {
            Wait::Now => LEAVE_TIME,
            Wait::For(d) => d.min(EVER),
            Wait::Forever => EVER,
        };
        let (tell, told) = bounded(1);
        let begun = self.call(|live, out, now| match self.state() {
            NodeState::Left => Ok(false),
            NodeState::Leaving => {
                live.leavers.push(tell);
                Ok(true)
            }
            _ => {
                live.engine.leave(now, timeout, out)?;
                self.set_state(NodeState::Leaving);
                live.leavers.push(tell);
                Ok(true)
            }
        })?;
        if !begun? || wait == Wait::Now {
            return Ok(());
        }
        let untold = "left, but not enough peers acknowledged it; others may take this node for dead";
        match receive(&told, deadline) {
            Ok(true) => Ok(()),
            Ok(false) | Err(RecvTimeoutError::Timeout) => Err(Error::new(Code::Timeout, untold)),
            Err(RecvTimeoutError::Disconnected) => Err(self.interrupted()),
        }
    }

    /// The node ended while somebody waited.
    fn interrupted(&self) -> Error {
        match self.state() {
            NodeState::Failed => self.why_not(),
            _ => Error::new(Code::Canceled, "the node was stopped meanwhile"),
        }
    }

    // --- events ---

    /// Queues an event of the runtime's own, and wakes its readers.
    fn tell(self: &Arc<Self>, event: &Event) {
        {
            // Under the engine's lock like all events, so that the order is one.
            let _live = self.live.lock();
            self.queue_event(event);
        }
        self.announce();
    }

    fn queue_event(&self, event: &Event) {
        let kind = event.kind.bit();
        // Somebody who has no handlers pulls.
        if self.callbacks.wants(kind) || (self.is_manual && self.callbacks.wants_nothing()) {
            self.inbox.push(event);
            self.tally.events.fetch_add(1, Relaxed);
        }
        for queue in self.queues.lock().iter().filter(|q| q.mask & kind != 0) {
            queue.inbox.push(event);
            self.tally.events.fetch_add(1, Relaxed);
        }
    }

    /// After the lock: wakes those for whom something was queued.
    fn announce(self: &Arc<Self>) {
        if self.is_manual {
            self.inbox.announce();
            self.call_readers();
        } else if !self.inbox.is_empty() {
            self.post();
        }
        // Not under their lock, which events are queued under.
        let queues = self.queues.lock().clone();
        for queue in queues {
            queue.inbox.announce();
        }
    }

    fn close_queues(&self) {
        let queues = {
            let mut queues = self.queues.lock();
            queues.iter().for_each(|queue| self.keep_losses(queue));
            std::mem::take(&mut *queues)
        };
        for queue in queues {
            queue.inbox.close();
        }
    }

    /// Of a queue that ends. Under the lock of the queues, so that nobody counts it twice.
    fn keep_losses(&self, queue: &Queue) {
        let (dropped, coalesced) = queue.inbox.losses();
        self.tally.events_dropped.fetch_add(dropped, Relaxed);
        self.tally.events_coalesced.fetch_add(coalesced, Relaxed);
    }

    fn post(self: &Arc<Self>) {
        if !self.posted.load(Acquire) {
            self.with_threads(|threads| {
                self.post_to(&threads.dispatcher);
                threads.call(Awaited::Callbacks);
            });
        }
    }

    pub(crate) fn post_to(self: &Arc<Self>, dispatcher: &Dispatcher) {
        if !self.posted.swap(true, SeqCst) {
            dispatcher.post(self.clone());
        }
    }

    /// On the dispatcher's thread. True: there is more.
    pub(crate) fn run_callbacks(self: &Arc<Self>, max: usize) -> bool {
        self.posted.store(false, SeqCst);
        let Ok(pass) = self.callbacks.enter() else { return false };
        let mut has_lines = self.drain_log(&pass);
        let (mut left, mut batch) = (max, Vec::new());
        while left > 0 {
            if !pass.is_open() {
                return false;
            }
            let count = self.run_some(&pass, u64::MAX, left, &mut batch);
            if count == 0 {
                return has_lines;
            }
            has_lines = self.drain_log(&pass);
            left -= count;
        }
        true
    }

    fn dispatch(self: &Arc<Self>, max: i32) -> Result<usize> {
        self.check_manual()?;
        self.check_outside()?;
        let pass = match self.callbacks.enter() {
            Ok(pass) => pass,
            Err(Shut::Busy) => return Err(Error::new(Code::Busy, "another thread is dispatching")),
            Err(Shut::Closed) => return Err(self.why_not()),
        };
        self.inbox.noticed();
        let mark = self.inbox.mark();
        let max = if max <= 0 { usize::MAX } else { max as usize };
        let mut count = 0;
        let mut has_lines = self.drain_log(&pass);
        let mut batch = Vec::new();
        while count < max && pass.is_open() {
            match self.run_some(&pass, mark, (max - count).min(AT_ONCE), &mut batch) {
                0 => break,
                some => count += some,
            }
            has_lines = self.drain_log(&pass);
        }
        if has_lines {
            self.poke_reader();
        }
        Ok(count)
    }

    fn run_handlers(self: &Arc<Self>, pass: &Pass<'_>, number: u64, event: &Event) {
        for text in pass.run(number, event) {
            self.handler_panicked(event.kind.name(), &text);
        }
    }

    fn on_event(self: &Arc<Self>, mask: u32, f: EventFn) -> Result<u64> {
        self.check()?;
        let known = EventKind::ALL.iter().fold(0, |all, kind| all | kind.bit());
        if mask & !known != 0 && mask != u32::MAX {
            return Err(Error::new(Code::Invalid, format!("unknown event bits {:#x}", mask & !known)));
        }
        if self.state() == NodeState::Failed {
            return Err(self.why_not());
        }
        let id = self.callbacks.add(mask, self.inbox.mark(), f).ok_or_else(|| self.why_not())?;
        // After it was added: a start that goes on meanwhile sees either the handler or nothing of the threads.
        self.ready_to_call().map(|()| id).inspect_err(|_| _ = self.callbacks.remove(id))
    }

    /// There is a thread to call handlers on, once the node is started.
    fn ready_to_call(&self) -> Result<()> {
        let mut ready = Ok(());
        if !self.is_manual {
            self.with_threads(|threads| ready = threads.start_dispatcher());
        }
        ready.map_err(|e| Error::io("cannot start a thread", &e))
    }

    // --- telling ---

    pub(crate) fn log(self: &Arc<Self>, level: i32, target: &'static str, text: impl FnOnce() -> String) {
        if self.log.wants(level) && self.log.push(level, target, text()) {
            if self.is_manual {
                self.poke_reader();
            } else {
                self.post();
            }
        }
    }

    /// What waits now, and not what is written meanwhile: a sink may cause lines itself. True: there are more.
    fn drain_log(&self, pass: &Pass<'_>) -> bool {
        for _ in 0..self.log.len() {
            let Some(line) = self.log.pop() else { break };
            pass.log(line.level, line.target, &line.text);
        }
        self.log.len() > 0
    }

    fn log_event(self: &Arc<Self>, event: &Event) {
        let level = match event.kind {
            EventKind::Warning | EventKind::Conflict => level::WARNING,
            EventKind::Update => level::DEBUG,
            _ => level::INFO,
        };
        self.log(level, "bruit::member", || describe(event));
    }

    fn stats(self: &Arc<Self>) -> Result<Stats> {
        self.check()?;
        let engine = self.peek(|live| live.engine.counters().clone());
        let engine = engine.unwrap_or_else(|| self.last.lock().counters.clone());
        let queues = self.queues.lock();
        let mut runtime = self.tally.read();
        for inbox in queues.iter().map(|queue| &queue.inbox).chain([&self.inbox]) {
            let (dropped, coalesced) = inbox.losses();
            runtime.events_dropped += dropped;
            runtime.events_coalesced += coalesced;
        }
        drop(queues);
        runtime.log_dropped = self.log.dropped();
        Ok(Stats { engine, runtime })
    }
}

/// The contacts of a join on their way to addresses.
struct Contacts {
    /// Host names that the resolver works on.
    left: usize,
    found: Vec<Vec<SocketAddr>>,
    /// Told when none is left. None: nobody waits, and the driver joins.
    waiter: Option<Sender<()>>,
}

/// A seed's name that is being looked up, until it is answered or given up.
struct Question {
    node: Weak<Shared>,
    seed: usize,
}

impl Drop for Question {
    fn drop(&mut self) {
        if let Some(node) = self.node.upgrade() {
            node.asked.lock().remove(&self.seed);
        }
    }
}

struct Begun {
    address: SocketAddr,
    is_open_to_all: bool,
}

/// host-pid-random: workers forked from one parent never share a name.
fn automatic_name() -> Result<NodeName> {
    let [a, b, c, d] = open::random::<4>()?;
    NodeName::new(&format!("{}-{}-{a:02x}{b:02x}{c:02x}{d:02x}", threads::hostname(), std::process::id()))
}

fn receive<T>(from: &Receiver<T>, deadline: Option<Clock>) -> std::result::Result<T, RecvTimeoutError> {
    match deadline {
        Some(at) => from.recv_deadline(at),
        None => from.recv().map_err(|_| RecvTimeoutError::Disconnected),
    }
}

/// Sessions of members are kept; so the driver must know who is one.
fn note_runs(event: &Event, marks: &mut Vec<(RunId, bool)>) {
    let Some(member) = &event.member else { return };
    if let Some(before) = event.before.as_ref().filter(|b| b.run != member.run) {
        marks.push((before.run, false));
    }
    marks.push((member.run, event.kind != EventKind::Forgotten));
}

fn describe(event: &Event) -> String {
    let kind = event.kind.name();
    let text = event.text.as_deref().unwrap_or("");
    match &event.member {
        Some(member) => format!("{kind} {} at {} {text}", member.name, member.address),
        None if event.kind == EventKind::Joined => format!("{kind} by {} contacts {text}", event.count),
        None => format!("{kind} {text}"),
    }
    .trim_end()
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
