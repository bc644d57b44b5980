//! The clock by which the accused are given their time to refute.
//!
//! A refutation that we cannot hear does not count as missing. Who is cut off, starved, or stuck in the kernel sees
//! everybody else fall silent at once; it would declare them dead when their time is over, and tell it to all as soon
//! as it is back. Lifeguard §IV makes such a member slower to accuse. This takes away the time that nobody could use:
//!
//! ```text
//! somebody answers us, now and then       1 s a second
//! nobody has, for QUIET periods           1 s in 1 + min(S · β, members − 2) seconds
//! we were not there (a late driver)       stands still
//! ```
//!
//! An answer is an ACK, a NACK or a heartbeat, from anybody: our question got out, and we can hear. It goes on
//! slowly because all others may be dead in fact, the sooner believed the fewer they are. Of two members neither
//! knows better. S is `local_health_max`; times β, so that it slows down also those suspicions that others had
//! confirmed before.

use crate::config::Config;
use crate::time::{Duration, Instant, nanos};

#[derive(Debug)]
pub struct Hearing {
    /// It showed `shows` at `at`.
    shows: Instant,
    at: Instant,
    /// What it showed at the last tick.
    ticked: Instant,
    /// The time since then was lost.
    stands: bool,
    answered: Instant,
}

/// How it runs.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    quiet: Duration,
    slow: u32,
}

impl Pace {
    /// Among `live` members.
    pub fn among(live: usize, config: &Config) -> Pace {
        let slow = config.local_health_max * config.suspicion_max_mult.0 as usize / 1000;
        // QUIET: a probe a period, and a quarter for its answer to be late.
        Pace { quiet: config.probe_interval * 5 / 4, slow: 1 + slow.min(live.saturating_sub(2)) as u32 }
    }

    /// As everybody's clock runs.
    pub fn plain() -> Pace {
        Pace { quiet: Duration::ZERO, slow: 1 }
    }
}

impl Hearing {
    pub fn new(now: Instant) -> Hearing {
        Hearing { shows: now, at: now, ticked: now, stands: false, answered: now }
    }

    /// What it shows.
    pub fn time(&mut self, now: Instant, pace: Pace) -> Instant {
        let heard = now.min(self.answered + pace.quiet).since(self.at);
        let unheard = now.since(self.at).saturating_sub(heard);
        self.shows = self.shows + heard + unheard / pace.slow;
        self.at = self.at.max(now);
        self.shows
    }

    /// What it shows when the driver has said how late it is.
    pub fn tick(&mut self, now: Instant, pace: Pace) -> Instant {
        if core::mem::take(&mut self.stands) {
            (self.shows, self.at) = (self.shows.min(self.ticked), now);
        }
        self.ticked = self.time(now, pace);
        self.ticked
    }

    /// Somebody answered. Whether that ends a silence.
    pub fn on_answer(&mut self, now: Instant, pace: Pace) -> bool {
        self.time(now, pace);
        let silent = pace.slow > 1 && now.since(self.answered) > pace.quiet;
        self.answered = now;
        silent
    }

    /// The driver was away since the last tick: what has been read since then was not read in time.
    pub fn stand(&mut self) {
        self.stands = true;
    }

    /// When it will show `shown`, if nobody answers until then.
    pub fn when(&self, shown: Instant, pace: Pace) -> Instant {
        let left = shown.since(self.shows);
        let heard = left.min((self.answered + pace.quiet).since(self.at));
        let unheard = nanos(left - heard).saturating_mul(pace.slow.into());
        self.at + heard + Duration::from_nanos(unheard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// QUIET, with the default period.
    const QUIET: u64 = 1_250;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    fn pace(live: usize) -> Pace {
        let mut config = Config::new();
        config.probe_interval = Duration::from_secs(1);
        config.local_health_max = 8;
        config.suspicion_max_mult.0 = 3_000;
        Pace::among(live, &config)
    }

    #[test]
    fn it_runs_true_while_somebody_answers() {
        let mut clock = Hearing::new(at(0));
        for ms in (0..10_000).step_by(700) {
            assert!(!clock.on_answer(at(ms), pace(100)));
            assert_eq!(clock.time(at(ms + 300), pace(100)), at(ms + 300));
        }
        assert_eq!(clock.when(at(10_300), pace(100)), at(10_300));
    }

    #[test]
    fn in_a_silence_it_runs_the_slower_the_more_members_are_silent() {
        for (live, slow) in [(2, 1), (3, 2), (5, 4), (10, 9), (1_000, 25)] {
            let mut clock = Hearing::new(at(0));
            assert_eq!(clock.time(at(QUIET + 900 * slow), pace(live)), at(QUIET + 900));
            let due = clock.when(at(10_000), pace(live));
            assert_eq!(due, at(QUIET + (10_000 - QUIET) * slow));
            assert!(clock.time(at(QUIET + (10_000 - QUIET) * slow - 30), pace(live)) < at(10_000));
            let due = clock.when(at(10_000), pace(live));
            assert_eq!(clock.time(due, pace(live)), at(10_000));
            assert_eq!(clock.on_answer(due, pace(live)), slow > 1);
        }
    }

    #[test]
    fn an_answer_lets_it_run_true_again_from_where_it_is() {
        let mut clock = Hearing::new(at(0));
        clock.on_answer(at(QUIET + 2_500), pace(50));
        assert_eq!(clock.time(at(QUIET + 3_500), pace(50)), at(QUIET + 100 + 1_000));
    }

    #[test]
    fn it_stands_while_the_driver_is_away_whatever_is_read_before_it_says_so() {
        let mut clock = Hearing::new(at(0));
        assert_eq!(clock.tick(at(1_000), pace(50)), at(1_000));
        clock.on_answer(at(31_000), pace(50));
        clock.time(at(31_010), pace(50));
        clock.stand();
        assert_eq!(clock.tick(at(31_010), pace(50)), at(1_000));
        assert_eq!(clock.tick(at(31_510), pace(50)), at(1_500));
    }
}
