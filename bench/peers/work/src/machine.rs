//! What this process uses of the machine. Linux only, as /proc is.

use std::time::{Duration, Instant};

/// Between two moments.
#[derive(Debug)]
pub struct Usage {
    pub began: Instant,
    cpu: f64,
    wire: (u64, u64),
}

impl Usage {
    pub fn begin() -> Usage {
        Usage { began: Instant::now(), cpu: cpu_seconds(), wire: loopback() }
    }

    pub fn cpu_seconds(&self) -> f64 {
        cpu_seconds() - self.cpu
    }

    /// Bytes and packets over loopback since then, headers included: of the whole network namespace, so they mean something only
    /// where this process has one of its own.
    pub fn wire(&self) -> (f64, f64) {
        let (bytes, packets) = loopback();
        ((bytes - self.wire.0) as f64, (packets - self.wire.1) as f64)
    }

    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}

/// User and system time of this process, all threads.
pub fn cpu_seconds() -> f64 {
    // SAFETY: all-zero is a valid `timespec`, and the call fills it.
    let time = unsafe {
        let mut time: libc::timespec = std::mem::zeroed();
        assert_eq!(libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time), 0);
        time
    };
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Memory of this process: all that is resident, and what of it are no pages of files.
pub fn resident_kb() -> (f64, f64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    (status_kb(&status, "VmRSS:"), status_kb(&status, "RssAnon:"))
}

fn status_kb(status: &str, field: &str) -> f64 {
    let line = status.lines().find(|line| line.starts_with(field)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).unwrap_or(f64::NAN)
}

/// Received bytes and packets.
fn loopback() -> (u64, u64) {
    let table = std::fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
    let line = table.lines().find_map(|line| line.trim_start().strip_prefix("lo:")).unwrap_or_default();
    let mut numbers = line.split_whitespace().map(|word| word.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}
