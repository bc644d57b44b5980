//! The clocks, read here and nowhere else.

use crate::time::{Instant, Now, Wall};

/// `CLOCK_BOOTTIME` goes on while the machine sleeps, so that a suspend counts as lost time; elsewhere, and on
/// kernels that refuse it, the plain monotonic clock.
pub(crate) fn now() -> Now {
    Now { mono: mono(), wall: wall() }
}

pub(crate) fn mono() -> Instant {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Some(nanos) = read(libc::CLOCK_BOOTTIME) {
        return Instant::from_nanos(nanos);
    }
    Instant::from_nanos(read(libc::CLOCK_MONOTONIC).unwrap_or(0))
}

fn wall() -> Wall {
    Wall(read(libc::CLOCK_REALTIME).unwrap_or(0) / 1_000_000)
}

fn read(clock: libc::clockid_t) -> Option<u64> {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `t` is ours to write.
    let rc = unsafe { libc::clock_gettime(clock, &mut t) };
    (rc == 0).then(|| t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64)
}
