//! Flap damping: who keeps dying and coming back stays away until its own link has been good for a while.
//!
//! A member behind a link that loses most packets, or that works for twenty seconds and fails for twenty, refutes every
//! suspicion and returns from every death; each time all others report it dead and alive again. Only it can
//! refute, and only it knows how its own probes fare. So it judges itself, by the penalties of RFC 2439 (route flap damping, §4):
//!
//! ```text
//! penalty   + 1 for each death that it learns of while its own probes fail and others live; halves every flap_half_life
//! hold      above SUPPRESS: it refutes nothing, accuses nobody, and goes on probing
//!           while held, probes that fail keep the penalty up
//! return    below REUSE: it refutes, as before
//! ```
//!
//! The first death costs nothing: a member that was paused, or cut off with its whole rack, is back at once. And where
//! its probes are answered the fault is not its own, however often others call it dead.
//!
//! A link can also be too bad to be useful and too good to die by: four packets of five lost leave enough to refute
//! each suspicion in time. Such a member is accused far more often than the average of the others, which it hears of as
//! everybody does; it then takes the next accusation for a verdict. Where all links are bad nobody stands out.

use crate::config::Config;
use crate::time::{Duration, Instant, nanos};

const DEATH: f64 = 1.0;
/// More than one death within a half-life.
const SUPPRESS: f64 = 1.5;
/// RFC 2439 §4.2: the reuse threshold is half the cutoff.
const REUSE: f64 = 0.75;
/// RFC 2439 §4.2's ceiling: nobody stays away for more than two half-lives once its link is good.
const CEILING: f64 = 3.0;
/// Accusations, halved every half-life, that are more than bad luck: where a quarter of it is the average, one of 200,000
/// members has so many by chance. A link that loses four packets of five brings them in some ten periods.
const ACCUSATIONS: f64 = 16.0;
/// One death is enough to count, if others do not die as well: when a partition heals, half of all are called dead.
const DEATHS: f64 = 1.0;
/// So many times the average of the others is no coincidence.
const OUTLIER: f64 = 4.0;

#[derive(Debug, Default)]
pub struct Damping {
    penalty: Score,
    /// Accusations of us, and of all others together.
    ours: Score,
    others: Score,
    held: bool,
}

/// A sum that halves every half-life.
#[derive(Clone, Copy, Debug, Default)]
struct Score {
    value: f64,
    at: Instant,
}

impl Score {
    fn get(&self, now: Instant, half_life: Duration) -> f64 {
        self.value * libm::exp2(-(nanos(now.since(self.at)) as f64) / nanos(half_life) as f64)
    }

    fn set(&mut self, now: Instant, value: f64) {
        *self = Score { value, at: now };
    }

    fn add(&mut self, now: Instant, half_life: Duration, more: f64) {
        self.set(now, self.get(now, half_life) + more);
    }
}

/// What to do about an accusation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Refute,
    /// Say nothing: we are better off dead for a while. `first`: as of now.
    Hold {
        first: bool,
    },
}

/// What we are accused of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accusation {
    Suspect,
    Dead,
}

impl Damping {
    /// Refutes nothing at present, and should accuse nobody.
    pub fn is_held(&self, now: Instant, config: &Config) -> bool {
        let half_life = config.flap_half_life;
        // Nobody may accuse us any more, who would make us look.
        self.held && !half_life.is_zero() && self.penalty.get(now, half_life) > REUSE
    }

    /// Somebody else died, or refuted so many accusations: its incarnation has grown by that.
    pub fn on_others(&mut self, now: Instant, config: &Config, accusations: u64) {
        if accusations > 0 && !config.flap_half_life.is_zero() {
            self.others.add(now, config.flap_half_life, accusations as f64);
        }
    }

    /// Most of our latest probes failed.
    pub fn on_failing(&mut self, now: Instant, config: &Config) {
        if self.held {
            let penalty = self.penalty.get(now, config.flap_half_life).max(SUPPRESS);
            self.penalty.set(now, penalty);
        }
    }

    /// We are accused in our present incarnation. `failing`: most of our latest probes failed. `live`: members, us included.
    pub fn on_accused(
        &mut self,
        now: Instant,
        config: &Config,
        accusation: Accusation,
        failing: bool,
        live: usize,
    ) -> Answer {
        let half_life = config.flap_half_life;
        if half_life.is_zero() {
            self.held = false;
            return Answer::Refute;
        }
        if self.held {
            self.held = self.penalty.get(now, half_life) > REUSE;
            return if self.held { Answer::Hold { first: false } } else { Answer::Refute };
        }
        self.ours.add(now, half_life, 1.0);
        if !failing {
            return Answer::Refute;
        }
        match accusation {
            Accusation::Dead if self.stands_out(now, half_life, live, DEATHS) => {
                let penalty = self.penalty.get(now, half_life) + DEATH;
                self.penalty.set(now, penalty.min(CEILING));
            }
            Accusation::Suspect if self.stands_out(now, half_life, live, ACCUSATIONS) => self.penalty.set(now, CEILING),
            Accusation::Dead | Accusation::Suspect => {}
        }
        self.held = self.penalty.get(now, half_life) > SUPPRESS;
        if self.held { Answer::Hold { first: true } } else { Answer::Refute }
    }

    fn stands_out(&self, now: Instant, half_life: Duration, live: usize, least: f64) -> bool {
        let ours = self.ours.get(now, half_life);
        let average = self.others.get(now, half_life) / live.saturating_sub(1).max(1) as f64;
        ours >= least && ours > OUTLIER * average
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIVE: usize = 100;

    fn at(secs: u64) -> Instant {
        Instant::from_nanos(secs * 1_000_000_000)
    }

    fn config() -> Config {
        let mut config = Config::new();
        config.flap_half_life = Duration::from_secs(60);
        config
    }

    fn dead(d: &mut Damping, secs: u64, failing: bool) -> Answer {
        d.on_accused(at(secs), &config(), Accusation::Dead, failing, LIVE)
    }

    #[test]
    fn one_death_costs_nothing_and_a_second_within_a_half_life_does() {
        let mut d = Damping::default();
        assert_eq!(dead(&mut d, 100, true), Answer::Refute);
        assert_eq!(dead(&mut d, 140, true), Answer::Hold { first: true });
        assert_eq!(dead(&mut d, 141, true), Answer::Hold { first: false });
        let mut d = Damping::default();
        assert_eq!(dead(&mut d, 100, true), Answer::Refute);
        assert_eq!(dead(&mut d, 300, true), Answer::Refute, "long ago");
    }

    #[test]
    fn deaths_that_are_not_our_fault_do_not_count() {
        let mut d = Damping::default();
        assert!((1..50).all(|i| dead(&mut d, i, false) == Answer::Refute));
    }

    /// 1.63 after the second death; below 0.75 after 1.12 half-lives, unless probes fail meanwhile.
    #[test]
    fn who_is_held_returns_when_its_probes_were_answered_for_long_enough() {
        for (failing_at, back) in [(None, 140 + 68), (Some(180), 180 + 60)] {
            let mut d = Damping::default();
            dead(&mut d, 100, true);
            dead(&mut d, 140, true);
            if let Some(secs) = failing_at {
                d.on_failing(at(secs), &config());
            }
            let returned = (141..400).find(|&secs| dead(&mut d, secs, false) == Answer::Refute);
            assert_eq!(returned, Some(back));
            assert!(!d.is_held(at(back), &config()));
        }
    }

    /// Others may list it as alive again, by way of a join, and never accuse it any more: it accused nobody from then on.
    #[test]
    fn who_is_held_accuses_again_when_its_time_is_over_also_where_nobody_speaks_of_it() {
        let mut d = Damping::default();
        dead(&mut d, 100, true);
        dead(&mut d, 140, true);
        assert!(d.is_held(at(200), &config()));
        assert!(!d.is_held(at(210), &config()));
    }

    #[test]
    fn who_is_accused_far_more_than_others_takes_it_for_a_verdict() {
        let accused = |others: u64, failing: bool| {
            let mut d = Damping::default();
            d.on_others(at(100), &config(), others);
            (0..20).map(|_| d.on_accused(at(100), &config(), Accusation::Suspect, failing, LIVE)).collect::<Vec<_>>()
        };
        assert_eq!(accused(0, true)[14..16], [Answer::Refute, Answer::Hold { first: true }]);
        assert!(accused(0, false).iter().all(|a| *a == Answer::Refute), "its own probes are answered");
        assert!(accused(500, true).iter().all(|a| *a == Answer::Refute), "so are all others");
    }

    #[test]
    fn zero_switches_it_off() {
        let (mut d, mut config) = (Damping::default(), config());
        config.flap_half_life = Duration::ZERO;
        for secs in 0..50 {
            assert_eq!(d.on_accused(at(secs), &config, Accusation::Dead, true, LIVE), Answer::Refute);
        }
    }
}
