//! Messages are numbered, and receivers count them: each number once.
//!
//! A message is its number and who said it, in hexadecimal, and noise: text, because some peers carry nothing else, in which
//! nothing returns soon, so that neither one message compresses nor a packet of them. What comes damaged counts as lost.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const HEADER: usize = 16;
const NOISE: usize = 4 << 20;
/// Larger than any message.
const STEP: usize = 65_521;

static NOISES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut chance = 0x9e37_79b9_7f4a_7c15_u64;
    let mut letter = || {
        // Xorshift.
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_"[(chance % 64) as usize]
    };
    (0..NOISE).map(|_| letter()).collect()
});

/// Before anything is measured.
pub fn prepare() {
    LazyLock::force(&NOISES);
}

/// Message `number` of node `origin`.
pub fn message(origin: usize, number: u64, bytes: usize) -> Vec<u8> {
    let mut data = format!("{number:08x}{origin:08x}").into_bytes();
    data.extend_from_slice(noise(number, bytes));
    data
}

/// Neighbours in a packet have nothing in common.
fn noise(number: u64, bytes: usize) -> &'static [u8] {
    let from = (number as usize * STEP) % (NOISE - STEP);
    &NOISES[from..from + bytes - HEADER]
}

/// What one node's application has heard. Clones are the same ears.
#[derive(Clone)]
pub struct Heard {
    node: usize,
    /// A bit for each number.
    numbers: Arc<Mutex<Vec<u64>>>,
    all: Arc<Tally>,
}

impl Heard {
    pub fn new(node: usize, all: &Arc<Tally>) -> Heard {
        Heard { node, numbers: Arc::default(), all: all.clone() }
    }

    /// Whether it is the first time, and somebody else's: what has to be forwarded where forwarding is the application's.
    pub fn take(&self, data: &[u8]) -> bool {
        let Some((number, origin)) = read(data) else { return false };
        if origin == self.node as u64 {
            return false;
        }
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        let mut numbers = lock(&self.numbers);
        if numbers.len() <= word {
            numbers.resize(word + 1, 0);
        }
        let is_new = numbers[word] & bit == 0;
        numbers[word] |= bit;
        drop(numbers);
        if is_new {
            self.all.add();
        } else {
            self.all.again.fetch_add(1, SeqCst);
        }
        is_new
    }
}

fn read(data: &[u8]) -> Option<(u64, u64)> {
    let [number, origin] = [data.get(..8)?, data.get(8..HEADER)?].map(hexadecimal);
    let number = number?;
    (data[HEADER..] == *noise(number, data.len())).then_some((number, origin?))
}

fn hexadecimal(digits: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Deliveries to all nodes of the process together.
#[derive(Debug)]
pub struct Tally {
    count: AtomicU64,
    /// Heard by a node that had heard it before.
    again: AtomicU64,
    awaited: AtomicU64,
    /// When `awaited` was reached, until somebody takes note.
    reached: Mutex<Option<Instant>>,
    tell: Condvar,
    began: Instant,
    /// Of the last delivery, in ns since `began`.
    last: AtomicU64,
}

impl Tally {
    pub fn new() -> Arc<Tally> {
        let (count, again, last) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        let (awaited, reached) = (AtomicU64::new(u64::MAX), Mutex::new(None));
        Arc::new(Tally { count, again, awaited, reached, tell: Condvar::new(), began: Instant::now(), last })
    }

    fn add(&self) {
        let now = Instant::now();
        self.last.store(now.duration_since(self.began).as_nanos() as u64, SeqCst);
        if self.count.fetch_add(1, SeqCst) + 1 >= self.awaited.load(SeqCst) {
            let mut reached = lock(&self.reached);
            if self.awaited.swap(u64::MAX, SeqCst) != u64::MAX {
                *reached = Some(now);
                self.tell.notify_all();
            }
        }
    }

    pub fn count(&self) -> u64 {
        self.count.load(SeqCst)
    }

    pub fn again(&self) -> u64 {
        self.again.load(SeqCst)
    }

    pub fn last(&self) -> Instant {
        self.began + Duration::from_nanos(self.last.load(SeqCst))
    }

    /// When there were so many; or nothing, where the count has stood still for `patience`, or `end` is over.
    pub fn reach(&self, wanted: u64, patience: Duration, end: Instant) -> Option<Instant> {
        let mut reached = lock(&self.reached);
        *reached = None;
        self.awaited.store(wanted, SeqCst);
        let mut seen = self.count();
        loop {
            if self.count() >= wanted {
                self.awaited.store(u64::MAX, SeqCst);
                return Some(reached.unwrap_or_else(|| self.last()));
            }
            let wait = patience.min(end.saturating_duration_since(Instant::now()));
            reached = self.tell.wait_timeout(reached, wait).unwrap_or_else(PoisonError::into_inner).0;
            let count = self.count();
            if count < wanted && (count == seen || Instant::now() >= end) {
                self.awaited.store(u64::MAX, SeqCst);
                return None;
            }
            seen = count;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
