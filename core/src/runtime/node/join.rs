//! Coming and going: joins, farewells, and the names of contacts on their way to addresses.

use std::net::SocketAddr;
use std::sync::atomic::Ordering::*;
use std::sync::{Arc, Weak};
use std::time::Instant as Clock;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded, select};

use super::super::address::{DEFAULT_PORT, Target};
use super::super::lock::Mutex;
use super::super::log::level;
use super::super::resolver;
use super::super::team::Resolved;
use super::{Answered, EVER, NodeState, Shared, Wait, receive};
use crate::error::{Code, Error, Result};
use crate::time::Duration;

/// How long `leave(Wait::Now)` tries to tell peers.
const LEAVE_TIME: Duration = Duration::from_secs(5);

/// How much longer than the engine a farewell waits: for where nobody has come to its timer in time.
const GRACE: Duration = Duration::from_secs(1);

impl Shared {
    pub(super) fn join(self: &Arc<Self>, contacts: &[&str], wait: Wait) -> Result<usize> {
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

    pub(super) fn leave(self: &Arc<Self>, wait: Wait) -> Result<()> {
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
        // The engine keeps the time and says when it is over: who hears E_TIMEOUT finds the node LEFT.
        match receive(&told, deadline.and_then(|at| at.checked_add(GRACE))) {
            Ok(true) => Ok(()),
            Ok(false) | Err(RecvTimeoutError::Timeout) => Err(Error::new(Code::Timeout, untold)),
            Err(RecvTimeoutError::Disconnected) => Err(self.interrupted()),
        }
    }

    /// Literals (and what is no address at all) are answered here; names go to the resolver.
    pub(super) fn resolve_seeds(self: &Arc<Self>, seeds: &[usize]) -> Vec<(usize, Vec<SocketAddr>)> {
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

    /// The node ended while somebody waited.
    pub(super) fn interrupted(&self) -> Error {
        match self.state() {
            NodeState::Failed => self.why_not(),
            _ => Error::new(Code::Canceled, "the node was stopped meanwhile"),
        }
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
