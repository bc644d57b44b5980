//! A driver's thread that stands still, wherever it is in its turn, notices that, and counts the loss as its own
//! fault. It is held up where this program can reach it: whenever it asks for memory.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::net::{TcpListener, UdpSocket};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use support::{Witness, config, free_address, set};

/// Well above `stall_threshold`, and longer than any timer of this test.
const STALL: Duration = Duration::from_millis(250);

/// The thread to hold up, and how many more times it may ask for memory before that. 0: it is not held up.
static DRIVER: AtomicI32 = AtomicI32::new(0);
static LEFT: AtomicU32 = AtomicU32::new(0);

struct Stalling;

#[global_allocator]
static ALLOCATOR: Stalling = Stalling;

// SAFETY: all is the system's, at times later.
unsafe impl GlobalAlloc for Stalling {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: no arguments.
        if LEFT.load(SeqCst) > 0 && DRIVER.load(SeqCst) == unsafe { libc::gettid() } && LEFT.fetch_sub(1, SeqCst) == 1 {
            std::thread::sleep(STALL);
        }
        // SAFETY: the caller's promises are the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }
}

/// The numbers of the threads of that name.
fn threads(name: &str) -> Vec<i32> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap());
    let named = |comm: String| comm.trim() == name;
    let found = tasks.filter(|task| std::fs::read_to_string(task.path().join("comm")).is_ok_and(named));
    found.map(|task| task.file_name().to_str().unwrap().parse().unwrap()).collect()
}

/// A node that calls this seed again and again, and so has always something due, is held up at one place after another.
fn notices_all_stalls(seed: &str) {
    // One driver at a time.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut config = config("a", &[seed]);
    for (key, value) in [("seed_retry_max", "50ms"), ("heal_interval", "100ms"), ("join_timeout", "100ms")] {
        set(&mut config, key, value);
    }
    let a = Witness::start(&config);
    a.until("it calls", |w| w.stat("datagrams_out") > 3 && threads("bruit-io").len() == 1);
    DRIVER.store(threads("bruit-io")[0], SeqCst);
    for nth in 1..=12 {
        let before = (a.stat("late_ticks"), a.stat("stalls"));
        LEFT.store(nth, SeqCst);
        a.until("it was held up", |_| LEFT.load(SeqCst) == 0);
        a.until(&format!("it has noticed that it was held up at allocation {nth}"), |w| {
            w.stat("late_ticks") > before.0 && w.stat("stalls") > before.1
        });
    }
}

#[test]
fn a_driver_that_stands_still_notices_it_wherever_it_is() {
    // A seed that takes everything and answers nothing.
    let (udp, _tcp) = loop {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()) {
            break (udp, tcp);
        }
    };
    notices_all_stalls(&udp.local_addr().unwrap().to_string());
}

#[test]
fn a_driver_that_stands_still_notices_it_also_where_refusals_come_first() {
    notices_all_stalls(&free_address().to_string());
}
