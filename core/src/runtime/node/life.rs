//! How a node begins and ends.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::*;
use std::time::Instant as Clock;

use super::super::log::level;
use super::super::open::Opened;
use super::super::team::{Command, Threads};
use super::super::{clock, open, threads};
use super::{Control, Last, Live, NodeState, Phase, Shared, Started, Wait};
use crate::error::{Code, Error, Result};
use crate::id::NodeName;
use crate::view::{Event, EventKind};

impl Shared {
    pub(super) fn start(self: &Arc<Self>) -> Result<()> {
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

    pub(super) fn stop(self: &Arc<Self>, wait: Wait) -> Result<()> {
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

    pub(super) fn release(self: &Arc<Self>) {
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
    pub(super) fn fail(self: &Arc<Self>, live: Option<Live>, text: &str) {
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
}

struct Begun {
    address: SocketAddr,
    is_open_to_all: bool,
}

/// host-pid-random: workers forked from one parent never share a name.
pub(super) fn automatic_name() -> Result<NodeName> {
    let [a, b, c, d] = open::random::<4>()?;
    NodeName::new(&format!("{}-{}-{a:02x}{b:02x}{c:02x}{d:02x}", threads::hostname(), std::process::id()))
}
