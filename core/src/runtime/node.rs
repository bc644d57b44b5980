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
//! This page has the handle's calls and the parts. `life` begins and ends them, `join` brings a node among others, `thought`
//! asks the engine, `hear` carries what happens to handlers and queues; `talk`, `query`, `judge` and `stream` are what
//! applications say to each other, each with the handle's calls for it.
//!
//! Order of locks: control, then live, then those of the inbox, the queues, the outgoing packets. Callbacks run under
//! none of them.

mod hear;
mod join;
mod judge;
mod life;
mod query;
mod queue;
mod stream;
mod talk;
mod thought;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering::*};
use std::sync::{Arc, OnceLock};
use std::time::Instant as Clock;

use super::lock::{Condvar, Mutex};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::callbacks::{Callbacks, LogSink};
use super::clock;
use super::driver::Wire;
use super::fork::{self, Born};
use super::inbox::{Bounds, Inbox, Woke};
use super::log::LogRing;
use super::outgoing::Outgoing;
use super::share::{Inner, Runtime, forked};
use super::stats::{Stats, Tally};
use super::stream::Pipe;
use super::team::Threads;
use crate::config::{self, Config};
use crate::engine::{Counters, Engine};
use crate::error::{Code, Error, Result};
use crate::id::NodeName;
use crate::message::StreamId;
use crate::time::{Duration, Instant};
use crate::view::{Event, View};
use life::automatic_name;
pub(crate) use query::QueryHandler;
use query::{Gatherer, Told};
pub use query::{Progress, Query, Reply};
use queue::Queue;
pub use queue::{EventQueue, Heard, MessageQueue, MixedQueue, Reader};
use talk::Asker;
pub use talk::{Each, Parcel, Sent, To};
use thought::Wake;

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

fn receive<T>(from: &Receiver<T>, deadline: Option<Clock>) -> std::result::Result<T, RecvTimeoutError> {
    match deadline {
        Some(at) => from.recv_deadline(at),
        None => from.recv().map_err(|_| RecvTimeoutError::Disconnected),
    }
}

#[cfg(test)]
mod tests;
