//! What members say of their own stalls, and the time that others give them for it.
//!
//! A process that gets no CPU for four seconds is silent for four seconds, and no detector that needs three can tell that from a
//! death. But who stalls does so again: the machine has too much to do, or the process a share of it that is too small. Lifeguard
//! §IV-A lets such a member doubt its own probes. It knows more: how long it was away. So it says so, and others are patient:
//!
//! ```text
//!   own driver late by LEAST or more ───► STALLED, a piece of news ───► its suspicions last stall_patience times that, at least
//!                                           │ forgotten by half each HALF_LIFE, by everybody alike: nothing is told again
//! ```
//!
//! Members of one machine stall one after another. Where an eighth of all have said so, and two at least, the others are
//! given as much time as these: the first stall of somebody is not his death where it was announced by his neighbours'.
//!
//! A bad link is no stall: there timers come in time, and nothing is said.

use alloc::collections::{BTreeMap, BTreeSet};

use crate::config::Config;
use crate::id::Peer;
use crate::time::{Duration, Instant, nanos};

/// Shorter ones fit into the shortest suspicion.
const LEAST: Duration = Duration::from_millis(500);

/// Stalls from LEAST on, from twice that, and so on. Those of the last grade are taken to be at most twice as long as it begins, 8 s.
const GRADES: u32 = 4;

/// A stall counts as half as long after this time: chosen by feel, as `flap_half_life` is.
const HALF_LIFE: Duration = Duration::from_secs(60);

/// Who says more than we know by less than this repeats what we know.
const NEWS: Duration = Duration::from_secs(15);

/// What many say is looked up no more often than this.
const REVIEW: Duration = Duration::from_secs(1);

/// At most one a listed member.
#[derive(Debug, Default)]
pub struct Stalls {
    /// Until when its stall is remembered: a HALF_LIFE for each grade.
    of: BTreeMap<Peer, Instant>,
    order: BTreeSet<(Instant, Peer)>,
    /// What many say: when it was looked up, and until when that is remembered.
    common: Option<(Instant, Instant)>,
    /// Our own, since the last tick.
    own: Duration,
}

impl Stalls {
    /// We were away for so long.
    pub fn note(&mut self, lost: Duration) {
        self.own = self.own.max(lost);
    }

    /// Whether we have something to say of ourselves.
    pub fn on_tick(&mut self, now: Instant, me: Peer) -> bool {
        let grade = grade(core::mem::take(&mut self.own));
        grade > self.grade(now, me) && self.hear(now, me, HALF_LIFE * grade)
    }

    /// It says that its stall is to be remembered for so long. Whether that is news.
    pub fn hear(&mut self, now: Instant, peer: Peer, left: Duration) -> bool {
        let until = now + left.min(HALF_LIFE * GRADES);
        let known = self.of.get(&peer).copied().unwrap_or(now).max(now);
        if until < known + NEWS {
            return false;
        }
        self.forget(peer);
        while let Some(&(_, over)) = self.order.first().filter(|&&(until, _)| until <= now) {
            self.forget(over);
        }
        self.of.insert(peer, until);
        self.order.insert((until, peer));
        true
    }

    /// Its run is over.
    pub fn forget(&mut self, peer: Peer) {
        if let Some(until) = self.of.remove(&peer) {
            self.order.remove(&(until, peer));
        }
    }

    pub fn len(&self) -> usize {
        self.of.len()
    }

    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// What is to be said of it.
    pub fn left(&self, now: Instant, peer: Peer) -> Option<Duration> {
        self.of.get(&peer).map(|until| until.since(now)).filter(|left| *left >= NEWS)
    }

    /// How long it has to refute at least, as one of `live` members.
    pub fn patience(&mut self, now: Instant, config: &Config, live: usize, peer: Peer) -> Duration {
        if self.is_empty() {
            return Duration::ZERO;
        }
        let grade = self.grade(now, peer).max(remembered(now, self.common(now, live)));
        patience(config, grade)
    }

    /// The most that anybody has.
    pub fn longest(&self, now: Instant, config: &Config) -> Duration {
        patience(config, self.order.last().map_or(0, |&(until, _)| remembered(now, until)))
    }

    fn grade(&self, now: Instant, peer: Peer) -> u32 {
        self.of.get(&peer).map_or(0, |&until| remembered(now, until))
    }

    fn common(&mut self, now: Instant, live: usize) -> Instant {
        if let Some((_, until)) = self.common.filter(|&(at, _)| now.since(at) < REVIEW) {
            return until;
        }
        let many = (live / 8).max(2);
        let until = self.order.iter().rev().nth(many - 1).map_or(Instant::ZERO, |&(until, _)| until);
        self.common = Some((now, until));
        until
    }
}

fn patience(config: &Config, grade: u32) -> Duration {
    match grade {
        0 => Duration::ZERO,
        _ => LEAST * (1 << grade) * config.stall_patience.0 / 1000,
    }
}

fn grade(lost: Duration) -> u32 {
    let times = nanos(lost) / nanos(LEAST);
    times.checked_ilog2().map_or(0, |log| (log + 1).min(GRADES))
}

fn remembered(now: Instant, until: Instant) -> u32 {
    nanos(until.since(now)).div_ceil(nanos(HALF_LIFE)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Instant {
        Instant::from_nanos(s * 1_000_000_000)
    }

    fn peer(slot: u32) -> Peer {
        Peer { slot, generation: 0 }
    }

    fn stalled(stalls: &mut Stalls, now: Instant, peer: Peer, ms: u64) -> bool {
        stalls.note(Duration::from_millis(ms));
        stalls.on_tick(now, peer)
    }

    /// In milliseconds, in a cluster so large that nobody's stall is everybody's.
    fn patience_of(stalls: &mut Stalls, now: Instant, slot: u32) -> u128 {
        stalls.patience(now, &Config::new(), 1_000, peer(slot)).as_millis()
    }

    #[test]
    fn who_stalls_is_given_two_to_four_times_as_long_and_half_of_it_a_minute_later() {
        for (ms, patience) in [(499, 0), (500, 2_000), (999, 2_000), (1_000, 4_000), (3_999, 8_000), (60_000, 16_000)] {
            let mut stalls = Stalls::default();
            assert_eq!(stalled(&mut stalls, at(5), peer(1), ms), patience > 0, "{ms} ms");
            assert_eq!(patience_of(&mut stalls, at(6), 1), patience, "{ms} ms");
            assert_eq!(patience_of(&mut stalls, at(66), 1), if patience > 2_000 { patience / 2 } else { 0 }, "{ms} ms");
            assert_eq!(patience_of(&mut stalls, at(246), 1), 0);
            assert_eq!(patience_of(&mut stalls, at(6), 2), 0, "and nobody else");
        }
    }

    #[test]
    fn only_worse_stalls_are_news() {
        let mut stalls = Stalls::default();
        assert!(stalled(&mut stalls, at(0), peer(1), 1_500));
        assert!(!stalled(&mut stalls, at(1), peer(1), 1_900), "of the same grade");
        assert!(!stalled(&mut stalls, at(2), peer(1), 600), "a lesser one");
        assert!(!stalls.on_tick(at(3), peer(1)), "none");
        assert!(stalled(&mut stalls, at(4), peer(1), 2_000));
        assert!(stalled(&mut stalls, at(130), peer(1), 2_000), "half of it was forgotten, and more");
    }

    #[test]
    fn what_is_passed_on_is_no_news_to_who_passed_it_on() {
        let (mut a, mut b) = (Stalls::default(), Stalls::default());
        assert!(stalled(&mut a, at(0), peer(1), 5_000));
        let told = a.left(at(1), peer(1)).unwrap();
        assert!(b.hear(at(3), peer(1), told), "it took two seconds");
        assert!(!a.hear(at(6), peer(1), b.left(at(4), peer(1)).unwrap()), "and so did the way back");
        assert_eq!(a.left(at(230), peer(1)), None, "what is over soon is told to nobody");
        assert!(b.hear(at(3), peer(2), Duration::MAX), "as much as can be said");
        assert_eq!(patience_of(&mut b, at(4), 2), 16_000);
    }

    #[test]
    fn where_an_eighth_stalls_and_two_at_least_all_are_given_time() {
        let give = |live: usize, stalled: u32| {
            let (mut stalls, config) = (Stalls::default(), Config::new());
            (0..stalled).for_each(|i| assert!(stalls.hear(at(0), peer(i), HALF_LIFE * 2)));
            stalls.patience(at(1), &config, live, peer(99)).as_millis()
        };
        assert_eq!([give(10, 1), give(10, 2), give(64, 7), give(64, 8)], [0, 4_000, 0, 4_000]);
    }

    #[test]
    fn what_is_over_takes_no_room() {
        let mut stalls = Stalls::default();
        (0..50).for_each(|i| assert!(stalls.hear(at(u64::from(i)), peer(i), HALF_LIFE)));
        assert!(stalls.hear(at(90), peer(99), HALF_LIFE));
        assert_eq!(stalls.len(), 20, "those of the last minute");
        stalls.forget(peer(99));
        assert_eq!((stalls.len(), stalls.order.len()), (19, 19));
    }
}
