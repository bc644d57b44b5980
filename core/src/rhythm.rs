//! When gossip leaves, and how often: what is new soon, and what was told before again each `gossip_interval`, a few times.
//!
//! What is new leaves at once where nothing did lately, else `gossip_flush` after the last round, so that a burst is told
//! together. Each round pays for an interval, at most one ahead: so often they come in a storm, and no more often.

use crate::config::Config;
use crate::time::Instant;
#[cfg(feature = "sim")]
use crate::time::{Duration, nanos};

#[derive(Debug, Default)]
pub struct Rhythm {
    due: Option<Instant>,
    last: Option<Instant>,
    paid: Instant,
    #[cfg(feature = "sim")]
    clock: Option<Duration>,
}

impl Rhythm {
    /// Something is new.
    pub fn quicken(&mut self, now: Instant, config: &Config) {
        let gathered = self.last.map_or(now, |last| last + config.gossip_flush);
        let soon = now.max(gathered).max(self.paid - config.gossip_interval);
        let at = self.stroke(now, config).unwrap_or(soon);
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// There is nothing to say any more.
    pub fn rest(&mut self) {
        self.due = None;
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// Whether it is time for a round; sets the time of the next.
    pub fn is_due(&mut self, now: Instant, config: &Config) -> bool {
        let is_due = self.due.is_some_and(|due| due <= now);
        if is_due {
            self.last = Some(now);
            self.paid = self.paid.max(now) + config.gossip_interval;
            self.due = Some(now + config.gossip_interval);
        }
        is_due
    }

    /// For the simulator (`engine/foreign.rs`): nothing leaves between the strokes of a clock.
    #[cfg(feature = "sim")]
    pub fn by_the_clock(&mut self, phase: Duration) {
        self.clock = Some(phase);
    }

    #[cfg(feature = "sim")]
    fn stroke(&self, now: Instant, config: &Config) -> Option<Instant> {
        let (first, beat) = (Instant::ZERO + self.clock?, nanos(config.gossip_interval));
        Some(first + Duration::from_nanos((nanos(now.since(first)) / beat + 1) * beat))
    }

    #[cfg(not(feature = "sim"))]
    fn stroke(&self, _: Instant, _: &Config) -> Option<Instant> {
        None
    }
}

const TIMES_MAX: usize = 128;

/// SWIM §4.1: λ · ⌈log10(n + 1)⌉ times by each of n.
pub fn times(mult: usize, n: usize) -> usize {
    let digits = n.max(1).ilog10() as usize + 1;
    (mult * digits).clamp(1, TIMES_MAX)
}
