//! A descriptor that is readable while it is raised: what an application puts into its own poll loop.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::OnceLock;

use super::lock::Mutex;

/// One that says what is so, once somebody has asked for it.
#[derive(Debug, Default)]
pub(crate) struct Level {
    signal: OnceLock<Signal>,
    /// What it says. Locked before what it is about, and while the signal is changed: who changes that under the
    /// engine's lock waits for no system call.
    raised: Mutex<bool>,
}

impl Level {
    pub(crate) fn fd(&self, is_so: impl FnOnce() -> bool) -> io::Result<RawFd> {
        if self.signal.get().is_none() {
            let _ = self.signal.set(Signal::new()?);
        }
        self.set(is_so);
        Ok(self.signal.get().map_or(-1, |s| s.as_raw_fd()))
    }

    pub(crate) fn set(&self, is_so: impl FnOnce() -> bool) {
        let Some(signal) = self.signal.get() else { return };
        let mut raised = self.raised.lock();
        let wanted = is_so();
        if wanted != *raised {
            *raised = wanted;
            if wanted { signal.raise() } else { signal.lower() }
        }
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod imp {
    use super::*;
    use std::os::fd::{FromRawFd, OwnedFd};

    #[derive(Debug)]
    pub(crate) struct Signal(OwnedFd);

    impl Signal {
        pub(crate) fn new() -> io::Result<Signal> {
            // SAFETY: no pointers.
            let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            // SAFETY: a fresh descriptor that nobody else owns.
            Ok(Signal(unsafe { OwnedFd::from_raw_fd(fd) }))
        }

        pub(crate) fn raise(&self) {
            let one = 1u64;
            // SAFETY: eight bytes are read from `one`. It fails only where the counter is full, that is, raised.
            unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), 8) };
        }

        pub(crate) fn lower(&self) {
            let mut count = 0u64;
            // SAFETY: eight bytes are written to `count`. It fails only where the signal was down.
            unsafe { libc::read(self.0.as_raw_fd(), (&raw mut count).cast(), 8) };
        }
    }

    impl AsRawFd for Signal {
        fn as_raw_fd(&self) -> RawFd {
            self.0.as_raw_fd()
        }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod imp {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[derive(Debug)]
    pub(crate) struct Signal(UnixStream, UnixStream);

    impl Signal {
        pub(crate) fn new() -> io::Result<Signal> {
            let (near, far) = UnixStream::pair()?;
            near.set_nonblocking(true)?;
            far.set_nonblocking(true)?;
            Ok(Signal(near, far))
        }

        pub(crate) fn raise(&self) {
            let _ = (&self.1).write(&[1]);
        }

        pub(crate) fn lower(&self) {
            while matches!((&self.0).read(&mut [0; 64]), Ok(64)) {}
        }
    }

    impl AsRawFd for Signal {
        fn as_raw_fd(&self) -> RawFd {
            self.0.as_raw_fd()
        }
    }
}

pub(crate) use imp::Signal;
