//! The threads of a runtime, and how to reach them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::dispatcher::Dispatcher;
use super::driver::{Driver, Key, Wire};
use super::fork::Born;
use super::lock::{Condvar, Mutex};
use super::node::Shared;
use super::poll::Poller;
use super::threads;
use super::wheel::{Awaited, Wheel};
use crate::error::Result;

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
    pub poller: Poller,
    pub wheel: Wheel,
    /// None: the driver has ended.
    pub commands: Mutex<Option<Vec<Command>>>,
    slots: Mutex<Slots>,
    pub dispatcher: Dispatcher,
    living: Mutex<Living>,
    ended: Condvar,
    pub born: Born,
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

    /// The driver has let go of it.
    pub(super) fn free_slot(&self, slot: usize) {
        self.slots.lock().free.push(slot);
    }

    fn watch(&self, slot: usize, wire: &Wire) -> io::Result<()> {
        self.watch_one(Key::Udp(slot), wire)?;
        self.watch_one(Key::Listener(slot), wire)
    }

    pub(super) fn watch_one(&self, key: Key, wire: &Wire) -> io::Result<()> {
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
