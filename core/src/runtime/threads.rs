//! How our threads begin: named, and deaf to signals, which belong to the program that we are a guest in.

use std::io;
use std::mem::MaybeUninit;
use std::os::unix::thread::JoinHandleExt;
use std::thread::{Builder, JoinHandle};

/// Said, because std would otherwise ask the environment. Only touched pages cost.
const STACK: usize = 2 << 20;

pub(crate) fn spawn(name: &str, f: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let old = block_signals();
    let thread = Builder::new().name(name.into()).stack_size(STACK).spawn(f);
    restore_signals(&old);
    thread
}

/// The caller is that thread. Not by `thread::current`, which panics in destructors that run late.
pub(crate) fn is_current(thread: &JoinHandle<()>) -> bool {
    // SAFETY: both are threads that have not been joined.
    unsafe { libc::pthread_equal(thread.as_pthread_t(), libc::pthread_self()) != 0 }
}

/// Which thread, while it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Id(libc::pthread_t);

pub(crate) fn current() -> Id {
    // SAFETY: no arguments, and it cannot fail.
    Id(unsafe { libc::pthread_self() })
}

/// A thread inherits the mask of the one that makes it.
fn block_signals() -> libc::sigset_t {
    let (mut all, mut old) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    // SAFETY: sigfillset and pthread_sigmask write the sets that they are given; the how-argument is valid, so
    // pthread_sigmask cannot fail.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), old.as_mut_ptr());
        old.assume_init()
    }
}

fn restore_signals(old: &libc::sigset_t) {
    // SAFETY: `old` came from pthread_sigmask.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, old, std::ptr::null_mut()) };
}

/// The machine's name, for automatic node names.
pub(crate) fn hostname() -> String {
    let mut buf = [0u8; 256];
    // SAFETY: gethostname writes at most the given length into `buf`.
    unsafe { libc::gethostname(buf.as_mut_ptr().cast(), buf.len() - 1) };
    let len = buf.iter().position(|&b| b == 0).unwrap_or(0);
    let name: String = String::from_utf8_lossy(&buf[..len]).chars().filter(|c| !c.is_control()).take(48).collect();
    if name.is_empty() { "node".into() } else { name }
}
