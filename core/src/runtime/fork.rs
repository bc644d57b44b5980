//! What becomes of us in a forked child: nothing works there, and nothing is kept from closing.
//!
//! Only the thread that forks lives on in the child. Our threads are gone, and a lock that one of them held stays
//! held for ever; so every call looks before it touches a lock whether it is in another process, and answers `E_FORKED`.
//! What it looks at is a word in a page that the kernel empties in every child (`MADV_WIPEONFORK`, Linux 4.14), also where
//! the fork was a bare system call; where there is no such page it is the process id, at the price of a system call. A handler
//! closes the sockets, so that a child that never calls exec does not keep our port. Handles that are dropped in the
//! child leak what they hold: its descriptors are closed already, and their numbers may be somebody else's by now.

use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, AtomicUsize, Ordering::*};

/// Descriptors that can be listed at once. More than that stay open in a child until it calls exec.
const LISTED_MAX: usize = 4096;

/// Descriptor + 1, or 0. A plain array of atomics, because the handler may not lock or allocate.
static LISTED: [AtomicI32; LISTED_MAX] = [const { AtomicI32::new(0) }; LISTED_MAX];
/// Where to look for room first.
static HINT: AtomicUsize = AtomicUsize::new(0);
/// How many forks lie between us and the first process.
static GENERATION: AtomicU32 = AtomicU32::new(0);
static INSTALLED: AtomicU32 = AtomicU32::new(0);
/// In the page that children find empty: the id of the process that filled it. Null before the first node, and where the
/// kernel has no such pages.
static MARK: AtomicPtr<AtomicU32> = AtomicPtr::new(ptr::null_mut());

/// Installs the handler, once per process.
pub(crate) fn install() {
    if INSTALLED.swap(1, AcqRel) == 0 {
        // SAFETY: `in_child` only uses atomics and close(2), which are async-signal-safe.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
        MARK.store(wiped_page().unwrap_or(ptr::null_mut()), Release);
    }
}

/// It is never given back.
#[cfg(target_os = "linux")]
fn wiped_page() -> Option<*mut AtomicU32> {
    let size = size_of::<AtomicU32>();
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a mapping of our own, at an address of the kernel's choosing.
    let page = unsafe { libc::mmap(ptr::null_mut(), size, access, kind, -1, 0) };
    if page == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: that mapping, whole.
    let wiped = unsafe { libc::madvise(page, size, libc::MADV_WIPEONFORK) } == 0;
    wiped.then_some(page.cast())
}

#[cfg(not(target_os = "linux"))]
fn wiped_page() -> Option<*mut AtomicU32> {
    None
}

/// Not 0, and not what it was in the process that we were forked from.
fn this_process() -> u32 {
    // SAFETY: null, or the page, which stays mapped; zero is a valid value.
    let Some(mark) = (unsafe { MARK.load(Acquire).as_ref() }) else { return std::process::id() };
    match mark.load(Relaxed) {
        0 => {
            let id = std::process::id();
            mark.store(id, Relaxed);
            id
        }
        id => id,
    }
}

pub(crate) fn generation() -> u32 {
    GENERATION.load(Acquire)
}

/// The process and, once it is taken, whether this is another one.
#[derive(Default)]
pub(crate) struct Born(AtomicU32);

impl Born {
    pub(crate) fn here(&self) {
        self.0.store(this_process(), Release);
    }

    pub(crate) fn nowhere(&self) {
        self.0.store(0, Release);
    }

    pub(crate) fn elsewhere(&self) -> bool {
        let process = self.0.load(Acquire);
        process != 0 && process != this_process()
    }
}

extern "C" fn in_child() {
    GENERATION.fetch_add(1, AcqRel);
    for slot in &LISTED {
        let fd = slot.swap(0, AcqRel) - 1;
        if fd >= 0 {
            // SAFETY: the descriptor is ours; its owner in this process leaks instead of closing it again.
            unsafe { libc::close(fd) };
        }
    }
}

/// A socket that is closed in forked children.
#[derive(Debug)]
pub(crate) struct Listed<T: AsRawFd> {
    socket: T,
    slot: Option<usize>,
}

impl<T: AsRawFd> Listed<T> {
    pub(crate) fn new(socket: T) -> Listed<T> {
        let mark = socket.as_raw_fd() + 1;
        let first = HINT.load(Relaxed);
        let slot = (0..LISTED_MAX)
            .map(|i| (first + i) % LISTED_MAX)
            .find(|&i| LISTED[i].compare_exchange(0, mark, AcqRel, Relaxed).is_ok());
        if let Some(i) = slot {
            HINT.store(i + 1, Relaxed);
        }
        Listed { socket, slot }
    }
}

impl<T: AsRawFd> Deref for Listed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.socket
    }
}

impl<T: AsRawFd> Drop for Listed<T> {
    /// Off the list before it is closed, so that the handler never closes somebody else's descriptor.
    fn drop(&mut self) {
        if let Some(i) = self.slot {
            LISTED[i].store(0, Release);
            HINT.store(i, Relaxed);
        }
    }
}
