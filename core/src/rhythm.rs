//! When gossip leaves, and how often: what is new soon, and what was told before again each `gossip_interval`, a few times.
//!
//! What is new leaves at once where nothing did lately, else `gossip_flush` after the last round, so that a burst is told
//! together. Each round pays for an interval, at most one ahead: so often they come in a storm, and no more often. Newcomers come
//! in crowds when a cluster starts, and nobody works with whom it does not list: for their sake rounds come up to five ahead.
//!
//! The interval adapts, where `gossip_interval_max` allows it, as in paularlott/gossip: a round that comes later than it should by
//! more than an interval shows that this process has too much to do, and makes the interval 1.25 times as long as that. One that is
//! late by less than 0.8 intervals brings it half-way back. What is late there is its own cycle, and here whatever the driver was busy with.

use crate::config::Config;
#[cfg(feature = "sim")]
use crate::time::nanos;
use crate::time::{Duration, Instant};

/// Rounds that may be ahead of what they pay for, and those of newcomers. With 5 in the place of 1, members that join at once through
/// one list each other after 0.12 s and not 0.20 (50 of them, simulated), or 0.41 and not 0.64 (200), by as many packets. Among
/// thousands it is too early for most of a crowd: 2,000 take 0.6 s and not 0.2 where nothing holds them up, 0.9 with 8.
const AHEAD: u32 = 1;
const AHEAD_FOR_NEWCOMERS: u32 = 5;

#[derive(Debug, Default)]
pub struct Rhythm {
    due: Option<Instant>,
    last: Option<Instant>,
    paid: Instant,
    /// More than `gossip_interval`, while rounds are late.
    extra: Duration,
    #[cfg(feature = "sim")]
    clock: Option<Duration>,
}

impl Rhythm {
    /// Something is new.
    pub fn quicken(&mut self, now: Instant, config: &Config) {
        self.bring_forward(now, config, AHEAD);
    }

    /// What is new is a member that nobody knew.
    pub fn hasten(&mut self, now: Instant, config: &Config) {
        self.bring_forward(now, config, AHEAD_FOR_NEWCOMERS);
    }

    fn bring_forward(&mut self, now: Instant, config: &Config, ahead: u32) {
        let gathered = self.last.map_or(now, |last| last + config.gossip_flush);
        let soon = now.max(gathered).max(self.paid - self.interval(config) * ahead);
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
        let Some(due) = self.due.filter(|&due| due <= now) else { return false };
        self.adapt(now.since(due), config);
        self.last = Some(now);
        self.paid = self.paid.max(now) + self.interval(config);
        self.due = Some(now + self.interval(config));
        true
    }

    fn interval(&self, config: &Config) -> Duration {
        config.gossip_interval + self.extra
    }

    fn adapt(&mut self, late: Duration, config: &Config) {
        let room = config.gossip_interval_max.saturating_sub(config.gossip_interval);
        let interval = self.interval(config);
        if late > interval {
            self.extra = (late * 5 / 4).saturating_sub(config.gossip_interval);
        } else if late < interval * 4 / 5 {
            self.extra /= 2;
        }
        self.extra = self.extra.min(room);
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

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// The pause after a round that was late by so much.
    fn pause(rhythm: &mut Rhythm, config: &Config, late: u64) -> Duration {
        let now = rhythm.deadline().unwrap_or(Instant::from_nanos(1_000_000_000)) + ms(late);
        assert!(rhythm.is_due(now, config));
        rhythm.deadline().expect("there is a next one").since(now)
    }

    fn begun(most: Duration) -> (Rhythm, Config) {
        let (mut rhythm, mut config) = (Rhythm::default(), Config::new());
        config.gossip_interval_max = most;
        rhythm.quicken(Instant::from_nanos(1_000_000_000), &config);
        (rhythm, config)
    }

    #[test]
    fn late_rounds_come_less_often_and_punctual_ones_bring_it_back() {
        let (mut rhythm, config) = begun(ms(400));
        let pauses = [0, 100, 120, 140, 120, 1_000, 320, 319, 0, 0].map(|late| pause(&mut rhythm, &config, late));
        // 120 is late by more than 100: 150. 140 and 120 are between 0.8 and 1 intervals. The bound is 400, and from 320 on it stays.
        let expected = [1_000, 1_000, 1_500, 1_500, 1_500, 4_000, 4_000, 2_500, 1_750, 1_375];
        assert_eq!(pauses, expected.map(|tenths| Duration::from_micros(tenths * 100)));
    }

    #[test]
    fn without_a_bound_of_its_own_the_interval_is_what_it_is() {
        for most in [0, 50, 100] {
            let (mut rhythm, config) = begun(ms(most));
            assert!([0, 500, 5_000].iter().all(|&late| pause(&mut rhythm, &config, late) == config.gossip_interval));
        }
    }

    #[test]
    fn a_time_is_more_for_each_digit() {
        assert_eq!([1, 9, 10, 99, 100].map(|n| times(4, n)), [4, 4, 8, 8, 12]);
    }
}
