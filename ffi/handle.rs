//! Handles that cannot dangle. What C holds as a `bruit_node *` is no address but a token: the
//! number of a slot and the slot's generation. It is looked up, never followed, so that NULL, garbage,
//! a second free and a use after free are error codes.
//!
//! A lookup takes no lock: a child process may have been forked while another thread held it. A slot's
//! state is one word, `generation | phase | readers`; whoever sees the right generation in phase LIVE
//! counts itself in, clones the `Arc`, and counts itself out.

use std::cell::UnsafeCell;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use bruit_core::error::{Code, Error, Result};

const CHUNK: usize = 64;
const CHUNKS: usize = 1024;
/// More objects of one kind than this are refused with `E_LIMIT`. Slots are used again; their chunks are never freed.
const SLOTS_MAX: usize = CHUNK * CHUNKS;

// Token, from the low end: 1 (so that it is no aligned address) | kind | slot | generation.
const KIND_BITS: u32 = 3;
const SLOT_BITS: u32 = 16;
const GENERATION_SHIFT: u32 = 1 + KIND_BITS + SLOT_BITS;
/// 44 bits on a 64-bit machine, 12 on a 32-bit one: so many reuses of one slot before a stale token could match
/// again. Kept to 32 so that it fits its half of the state.
const GENERATION_BITS: u32 = if usize::BITS - GENERATION_SHIFT < 32 { usize::BITS - GENERATION_SHIFT } else { 32 };
const GENERATION_MASK: u64 = (1 << GENERATION_BITS) - 1;
const _: () = assert!(SLOTS_MAX == 1 << SLOT_BITS);

// State, from the low end: readers (30) | phase (2) | generation (32).
const READERS: u64 = (1 << 30) - 1;
const FREE: u64 = 0 << 30;
const LIVE: u64 = 1 << 30;
/// Being filled or emptied.
const BUSY: u64 = 2 << 30;
const PHASE: u64 = 3 << 30;

struct Slot<T> {
    state: AtomicU64,
    value: UnsafeCell<Option<Arc<T>>>,
}

type Chunk<T> = [Slot<T>; CHUNK];

/// All live objects of one kind.
pub struct Slab<T> {
    kind: usize,
    name: &'static str,
    chunks: [AtomicPtr<Chunk<T>>; CHUNKS],
    /// Where to look for a free slot first.
    hint: AtomicUsize,
}

// SAFETY: a slot's value is written only by the thread that moved it to BUSY (and saw no reader), and read only
// by threads that are counted as readers of a LIVE slot.
unsafe impl<T: Send + Sync> Sync for Slab<T> {}

impl<T> Slab<T> {
    /// `kind` (0 to 7) keeps tokens of one slab from being taken for those of another.
    pub const fn new(kind: usize, name: &'static str) -> Slab<T> {
        assert!(kind < 1 << KIND_BITS);
        Slab { kind, name, chunks: [const { AtomicPtr::new(ptr::null_mut()) }; CHUNKS], hint: AtomicUsize::new(0) }
    }

    /// Keeps `value` and returns its token, which is never 0.
    pub fn insert(&self, value: Arc<T>) -> Result<usize> {
        let start = self.hint.load(Ordering::Relaxed);
        for index in (start..SLOTS_MAX).chain(0..start) {
            let slot = self.slot_or_make(index);
            let state = slot.state.load(Ordering::Relaxed);
            if state & PHASE != FREE {
                continue;
            }
            // A free slot's state may change between the look and the grab; then the next slot will do.
            if slot.state.compare_exchange(state, state | BUSY, Ordering::Acquire, Ordering::Relaxed).is_err() {
                continue;
            }
            // SAFETY: BUSY and without readers, the slot is ours alone.
            unsafe { *slot.value.get() = Some(value) };
            slot.state.store((state & !PHASE) | LIVE, Ordering::Release);
            self.hint.store((index + 1) % SLOTS_MAX, Ordering::Relaxed);
            return Ok(self.token(index, state >> 32));
        }
        Err(Error::new(Code::Limit, format!("{SLOTS_MAX} objects of kind {} exist already", self.name)))
    }

    /// `E_HANDLE` unless `token` is one of ours and not yet removed.
    pub fn get(&self, token: usize) -> Result<Arc<T>> {
        let (slot, generation) = self.find(token)?;
        let mut state = slot.state.load(Ordering::Relaxed);
        loop {
            if state >> 32 != generation || state & PHASE != LIVE {
                return Err(self.unknown(token));
            }
            match slot.state.compare_exchange_weak(state, state + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => state = now,
            }
        }
        // SAFETY: counted as a reader of a LIVE slot, whose value nobody writes until we are out again.
        let value = unsafe { (*slot.value.get()).clone() };
        slot.state.fetch_sub(1, Ordering::Release);
        value.ok_or_else(|| self.unknown(token))
    }

    /// Makes the token worthless. Of several threads that remove one token, one gets the value.
    pub fn remove(&self, token: usize) -> Result<Arc<T>> {
        let (slot, generation) = self.find(token)?;
        let mut state = slot.state.load(Ordering::Relaxed);
        loop {
            if state >> 32 != generation || state & PHASE != LIVE {
                return Err(self.unknown(token));
            }
            let busy = (state & !PHASE) | BUSY;
            match slot.state.compare_exchange_weak(state, busy, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => state = now,
            }
        }
        // Readers stay for the clone of an Arc. One that a fork cut off in the middle would stay for ever: then the
        // slot is given up, and costs a reference.
        for _ in 0..10_000 {
            if slot.state.load(Ordering::Acquire) & READERS == 0 {
                // SAFETY: BUSY and without readers, the slot is ours alone.
                let value = unsafe { (*slot.value.get()).take() };
                slot.state.store((((generation + 1) & GENERATION_MASK) << 32) | FREE, Ordering::Release);
                self.hint.fetch_min(self.index(token), Ordering::Relaxed);
                return value.ok_or_else(|| self.unknown(token));
            }
            std::thread::yield_now();
        }
        // SAFETY: BUSY slots are not written by anybody else, and reading an Arc to clone it is what readers do, too.
        unsafe { (*slot.value.get()).clone() }.ok_or_else(|| self.unknown(token))
    }

    fn unknown(&self, token: usize) -> Error {
        let what = if token == 0 { "is NULL" } else { "is none of ours, or was freed" };
        Error::new(Code::Handle, format!("{} handle {what}", self.name))
    }

    fn token(&self, index: usize, generation: u64) -> usize {
        // The mask keeps it within usize.
        (generation as usize) << GENERATION_SHIFT | index << (1 + KIND_BITS) | self.kind << 1 | 1
    }

    fn index(&self, token: usize) -> usize {
        token >> (1 + KIND_BITS) & (SLOTS_MAX - 1)
    }

    fn find(&self, token: usize) -> Result<(&Slot<T>, u64)> {
        let index = self.index(token);
        let generation = (token >> GENERATION_SHIFT) as u64;
        let chunk = self.chunks[index / CHUNK].load(Ordering::Acquire);
        if token & ((1 << (1 + KIND_BITS)) - 1) != self.kind << 1 | 1 || chunk.is_null() {
            return Err(self.unknown(token));
        }
        // SAFETY: chunks are made by `slot_or_make` and live for ever.
        Ok((unsafe { &(&*chunk)[index % CHUNK] }, generation))
    }

    fn slot_or_make(&self, index: usize) -> &Slot<T> {
        let place = &self.chunks[index / CHUNK];
        let mut chunk = place.load(Ordering::Acquire);
        if chunk.is_null() {
            let slot = || Slot { state: AtomicU64::new(1 << 32 | FREE), value: UnsafeCell::new(None) };
            let made: Box<Chunk<T>> = Box::new(std::array::from_fn(|_| slot()));
            let made = Box::into_raw(made);
            chunk = match place.compare_exchange(ptr::null_mut(), made, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => made,
                Err(other) => {
                    // SAFETY: `made` was not published.
                    drop(unsafe { Box::from_raw(made) });
                    other
                }
            };
        }
        // SAFETY: chunks live for ever.
        unsafe { &(&*chunk)[index % CHUNK] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_worth_nothing_after_its_removal() {
        static SLAB: Slab<u32> = Slab::new(1, "test");
        let token = SLAB.insert(Arc::new(7)).unwrap();
        assert_eq!(*SLAB.get(token).unwrap(), 7);
        assert_eq!(*SLAB.remove(token).unwrap(), 7);
        assert_eq!(SLAB.get(token).unwrap_err().code, Code::Handle);
        assert_eq!(SLAB.remove(token).unwrap_err().code, Code::Handle);
        // The slot's next tenant has another token.
        let next = SLAB.insert(Arc::new(8)).unwrap();
        assert_ne!(next, token);
        assert_eq!(SLAB.get(token).unwrap_err().code, Code::Handle);
    }

    #[test]
    fn garbage_and_tokens_of_another_kind_are_refused() {
        static ONE: Slab<u32> = Slab::new(1, "one");
        static TWO: Slab<u32> = Slab::new(2, "two");
        let token = ONE.insert(Arc::new(1)).unwrap();
        TWO.insert(Arc::new(2)).unwrap();
        assert!(TWO.get(token).is_err());
        for garbage in [0, 1, 2, 3, usize::MAX, usize::MAX - 1, &raw const ONE as usize, token ^ 1, token + 16] {
            assert_eq!(ONE.get(garbage).unwrap_err().code, Code::Handle);
        }
    }

    #[test]
    fn threads_that_race_for_a_token_get_one_value_between_them() {
        static SLAB: Slab<String> = Slab::new(3, "race");
        for round in 0..200 {
            let token = SLAB.insert(Arc::new(format!("{round}"))).unwrap();
            let winners: usize = std::thread::scope(|scope| {
                let racers: Vec<_> = (0..4)
                    .map(|_| {
                        scope.spawn(move || {
                            if let Ok(value) = SLAB.get(token) {
                                assert_eq!(*value, format!("{round}"));
                            }
                            usize::from(SLAB.remove(token).is_ok())
                        })
                    })
                    .collect();
                racers.into_iter().map(|racer| racer.join().unwrap()).sum()
            });
            assert_eq!(winners, 1);
        }
    }

    #[test]
    fn slots_beyond_the_first_chunk_are_found() {
        static SLAB: Slab<usize> = Slab::new(4, "many");
        let tokens: Vec<usize> = (0..CHUNK * 3).map(|n| SLAB.insert(Arc::new(n)).unwrap()).collect();
        for (n, token) in tokens.iter().enumerate() {
            assert_eq!(*SLAB.get(*token).unwrap(), n);
        }
    }
}
