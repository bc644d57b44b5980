//! Host names, looked up on one thread per process, because the system's resolver blocks for as long as it likes.
//! The thread owns nothing of any node: answers are inputs like others. It is made when a first name is asked for,
//! and is the one thread that `stop` does not join.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicPtr, Ordering::*};

use crossbeam_channel::{Sender, TrySendError, bounded};

use super::{fork, threads};

/// Questions that wait at once. One more is answered with an error at once: whoever asks for seeds asks again.
const WAITING_MAX: usize = 1024;

type Done = Box<dyn FnOnce(io::Result<Vec<SocketAddr>>) + Send>;

struct Job {
    host: String,
    port: u16,
    done: Done,
}

struct Resolver {
    jobs: Sender<Job>,
    /// The thread lives in one process only.
    generation: u32,
}

/// Never freed: there is one, and one more after each fork.
static CURRENT: AtomicPtr<Resolver> = AtomicPtr::new(std::ptr::null_mut());

/// Calls `done` with the addresses, on the resolver's thread (or here, where it cannot be asked).
pub(crate) fn resolve(host: String, port: u16, done: impl FnOnce(io::Result<Vec<SocketAddr>>) + Send + 'static) {
    let resolver = match current() {
        Ok(resolver) => resolver,
        Err(e) => return done(Err(e)),
    };
    if let Err(e) = resolver.jobs.try_send(Job { host, port, done: Box::new(done) }) {
        let (TrySendError::Full(job) | TrySendError::Disconnected(job)) = e;
        (job.done)(Err(io::Error::other("too many names wait to be resolved")));
    }
}

fn current() -> io::Result<&'static Resolver> {
    let generation = fork::generation();
    let known = CURRENT.load(Acquire);
    // SAFETY: what is stored was leaked below, and is never freed or changed.
    if let Some(resolver) = unsafe { known.as_ref() }
        && resolver.generation == generation
    {
        return Ok(resolver);
    }
    let (jobs, queue) = bounded::<Job>(WAITING_MAX);
    let new = Box::into_raw(Box::new(Resolver { jobs, generation }));
    match CURRENT.compare_exchange(known, new, AcqRel, Acquire) {
        Ok(_) => {
            let spawned = threads::spawn("bruit-dns", move || {
                for job in queue {
                    let found = (job.host.as_str(), job.port).to_socket_addrs().map(Iterator::collect);
                    let _ = catch_unwind(AssertUnwindSafe(|| (job.done)(found)));
                }
            });
            if let Err(e) = spawned {
                // The next question tries again. Who has this one meanwhile finds its channel closed.
                CURRENT.store(std::ptr::null_mut(), Release);
                return Err(e);
            }
            // SAFETY: leaked above.
            Ok(unsafe { &*new })
        }
        Err(_) => {
            // Somebody else was faster.
            // SAFETY: `new` was not published; it is ours alone.
            drop(unsafe { Box::from_raw(new) });
            current()
        }
    }
}
