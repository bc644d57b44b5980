//! Which sockets are ready. One system call for each wait, however long the list: level-triggered, so that nothing is
//! armed again after an event.
//!
//! Departure from the plan to use the crate `polling` everywhere: per wait it sets a timerfd, arms it, reads its
//! notifier and arms that again, five calls in all where epoll needs one; an idle node does little else than wait.
//! Elsewhere than on Linux it does the work.

use std::io;
use std::os::fd::AsRawFd;

use crate::time::Duration;

/// Events taken at once.
const EVENTS: usize = 256;

/// One socket that is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ready {
    pub key: usize,
    pub readable: bool,
    pub writable: bool,
    /// Something waits in the error queue.
    pub failed: bool,
}

/// What one wants to know about a socket. Errors are always told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interest {
    pub key: usize,
    pub readable: bool,
    pub writable: bool,
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod imp {
    use super::*;
    use crate::runtime::signal::Signal;
    use std::mem::MaybeUninit;
    use std::os::fd::{FromRawFd, OwnedFd};
    use std::sync::atomic::{AtomicBool, Ordering::*};

    /// The key of the notifier.
    const NOTIFY: u64 = u64::MAX;

    pub(crate) struct Poller {
        epoll: OwnedFd,
        notifier: Signal,
        notified: AtomicBool,
        /// The kernel knows timeouts in nanoseconds (5.11 and later).
        precise: AtomicBool,
    }

    pub(crate) struct Events {
        list: Box<[MaybeUninit<libc::epoll_event>; EVENTS]>,
        len: usize,
    }

    impl Events {
        pub(crate) fn new() -> Events {
            Events { list: Box::new([MaybeUninit::uninit(); EVENTS]), len: 0 }
        }

        fn raw(&self) -> impl Iterator<Item = libc::epoll_event> + '_ {
            // SAFETY: the kernel has written the first `len`.
            self.list[..self.len].iter().map(|event| unsafe { event.assume_init() })
        }

        fn have_notification(&self) -> bool {
            self.raw().any(|event| event.u64 == NOTIFY)
        }

        pub(crate) fn iter(&self) -> impl Iterator<Item = Ready> + '_ {
            self.raw().filter_map(|event| {
                let has = |bits: i32| event.events & bits as u32 != 0;
                (event.u64 != NOTIFY).then(|| Ready {
                    key: event.u64 as usize,
                    readable: has(libc::EPOLLIN | libc::EPOLLHUP | libc::EPOLLERR),
                    writable: has(libc::EPOLLOUT | libc::EPOLLHUP | libc::EPOLLERR),
                    failed: has(libc::EPOLLERR),
                })
            })
        }
    }

    impl Poller {
        pub(crate) fn new() -> io::Result<Poller> {
            // SAFETY: no pointers.
            let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            // SAFETY: a fresh descriptor that nobody else owns.
            let epoll = unsafe { OwnedFd::from_raw_fd(fd) };
            let notifier = Signal::new()?;
            let poller = Poller { epoll, notifier, notified: AtomicBool::new(false), precise: AtomicBool::new(true) };
            poller.control(libc::EPOLL_CTL_ADD, poller.notifier.as_raw_fd(), libc::EPOLLIN, NOTIFY)?;
            Ok(poller)
        }

        /// `socket` must be deleted before it is closed: where a forked child holds a copy, it would be reported on.
        pub(crate) fn add(&self, socket: &impl AsRawFd, interest: Interest) -> io::Result<()> {
            self.control(libc::EPOLL_CTL_ADD, socket.as_raw_fd(), bits(interest), interest.key as u64)
        }

        pub(crate) fn modify(&self, socket: &impl AsRawFd, interest: Interest) -> io::Result<()> {
            self.control(libc::EPOLL_CTL_MOD, socket.as_raw_fd(), bits(interest), interest.key as u64)
        }

        pub(crate) fn delete(&self, socket: &impl AsRawFd) -> io::Result<()> {
            self.control(libc::EPOLL_CTL_DEL, socket.as_raw_fd(), 0, 0)
        }

        fn control(&self, what: i32, fd: i32, events: i32, key: u64) -> io::Result<()> {
            let mut event = libc::epoll_event { events: events as u32, u64: key };
            // SAFETY: the event is only read. A descriptor that is none fails.
            let rc = unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), what, fd, &mut event) };
            if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
        }

        /// Ends a wait, now or the next one.
        pub(crate) fn notify(&self) {
            if !self.notified.swap(true, SeqCst) {
                self.notifier.raise();
            }
        }

        /// `None`: until something happens. May end early.
        pub(crate) fn wait(&self, events: &mut Events, timeout: Option<Duration>) {
            let n = self.wait_precisely(events, timeout).unwrap_or_else(|| self.wait_coarsely(events, timeout));
            events.len = usize::try_from(n).unwrap_or(0);
            if events.have_notification() {
                // In this order: who finds it set, and does not raise, has left his command before, and we look after.
                self.notifier.lower();
                self.notified.store(false, SeqCst);
            }
        }

        fn wait_precisely(&self, events: &mut Events, timeout: Option<Duration>) -> Option<i64> {
            if !self.precise.load(Relaxed) || cfg!(not(target_pointer_width = "64")) {
                return None;
            }
            let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            let mut until = std::ptr::null();
            if let Some(timeout) = timeout {
                time.tv_sec = libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX);
                time.tv_nsec = timeout.subsec_nanos() as _;
                until = &raw const time;
            }
            // SAFETY: the kernel writes at most EVENTS events into `list`, and reads `time`. The call has no wrapper in
            // some C libraries. (On 32-bit it takes 64-bit times; there the coarse wait is used.)
            let n = unsafe {
                libc::syscall(
                    libc::SYS_epoll_pwait2,
                    self.epoll.as_raw_fd(),
                    events.list.as_mut_ptr(),
                    EVENTS as libc::c_int,
                    until,
                    std::ptr::null::<libc::sigset_t>(),
                    0usize,
                )
            };
            if n < 0 && io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
                // An old kernel, or a filter that does not know the call.
                self.precise.store(false, Relaxed);
                return None;
            }
            Some(n)
        }

        fn wait_coarsely(&self, events: &mut Events, timeout: Option<Duration>) -> i64 {
            // Rounded up: waking before the deadline would be waking twice.
            let ms = timeout.map_or(-1, |t| i32::try_from(t.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX));
            // SAFETY: the kernel writes at most EVENTS events into `list`.
            i64::from(unsafe {
                libc::epoll_wait(self.epoll.as_raw_fd(), events.list.as_mut_ptr().cast(), EVENTS as libc::c_int, ms)
            })
        }
    }

    fn bits(interest: Interest) -> i32 {
        let read = if interest.readable { libc::EPOLLIN } else { 0 };
        let write = if interest.writable { libc::EPOLLOUT } else { 0 };
        read | write
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod imp {
    use super::*;
    use polling::{Event, PollMode};
    use std::num::NonZeroUsize;
    use std::os::fd::BorrowedFd;

    pub(crate) struct Poller(polling::Poller);
    pub(crate) struct Events(polling::Events);

    impl Events {
        pub(crate) fn new() -> Events {
            Events(polling::Events::with_capacity(NonZeroUsize::new(EVENTS).expect("not zero")))
        }

        pub(crate) fn iter(&self) -> impl Iterator<Item = Ready> + '_ {
            self.0.iter().map(|event| Ready {
                key: event.key,
                readable: event.readable,
                writable: event.writable,
                failed: event.is_err() != Some(false),
            })
        }
    }

    impl Poller {
        pub(crate) fn new() -> io::Result<Poller> {
            polling::Poller::new().map(Poller)
        }

        pub(crate) fn add(&self, socket: &impl AsRawFd, interest: Interest) -> io::Result<()> {
            // SAFETY: the driver deletes every socket before it drops it.
            unsafe { self.0.add_with_mode(&socket.as_raw_fd(), event(interest), PollMode::Level) }
        }

        pub(crate) fn modify(&self, socket: &impl AsRawFd, interest: Interest) -> io::Result<()> {
            self.0.modify_with_mode(borrow(socket), event(interest), PollMode::Level)
        }

        pub(crate) fn delete(&self, socket: &impl AsRawFd) -> io::Result<()> {
            self.0.delete(borrow(socket))
        }

        pub(crate) fn notify(&self) {
            let _ = self.0.notify();
        }

        pub(crate) fn wait(&self, events: &mut Events, timeout: Option<Duration>) {
            events.0.clear();
            let _ = self.0.wait(&mut events.0, timeout);
        }
    }

    fn event(interest: Interest) -> Event {
        Event::new(interest.key, interest.readable, interest.writable)
    }

    fn borrow(socket: &impl AsRawFd) -> BorrowedFd<'_> {
        // SAFETY: `socket` is open, and lives as long as the borrow.
        unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) }
    }
}

pub(crate) use imp::{Events, Poller};
