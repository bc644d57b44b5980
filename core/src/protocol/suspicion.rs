//! Between silence and death: a suspicion gives the accused time to refute, and others time to agree.
//!
//! Lifeguard §IV-B: the fewer members have accused it independently, the longer it has. The first accusation
//! alone starts at `max`; with K confirmations it is down to `min`:
//!
//! ```text
//! timeout = max − (max − min) · ln(c + 1) / ln(K + 1)      min = α · max(1, log10 n) · period,  max = β · min
//! ```
//!
//! It counts from the beginning of the suspicion, or from the last time that the accused answered us itself, by a clock
//! that is slow while we hear nobody (`hearing`). Where fewer than K others exist, K is what there is.
//! Each accuser is named in the rumor, so that members add up the same confirmations in whatever order they hear of them.

use alloc::collections::{BTreeMap, BTreeSet};

use crate::config::Config;
use crate::id::{Incarnation, Peer, RunId};
use crate::time::{Duration, Instant, nanos};
use crate::wire::frame::ACCUSERS_MAX;

/// At most one a live member, so `max_members` bounds it.
#[derive(Debug, Default)]
pub struct Suspicions {
    of: BTreeMap<Peer, Suspicion>,
    /// When the time of each is over. Every turn asks for the first of them, also while a tenth of all are suspected.
    due: BTreeSet<(Instant, Peer)>,
}

#[derive(Clone, Copy, Debug)]
struct Suspicion {
    incarnation: Incarnation,
    accusers: [Option<RunId>; ACCUSERS_MAX],
    begun: Instant,
    deadline: Instant,
    /// More accusers do not change its time any more.
    hastened: bool,
}

/// What its time depends on, beside who accuses it.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Live members.
    pub live: usize,
    /// It lasts for so long at least.
    pub patience: Duration,
}

/// What an accusation amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accused {
    /// The first against this incarnation.
    New,
    /// One more accuser, while that still counts: worth telling.
    Confirmed,
    Known,
}

/// Who did not refute in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unrefuted {
    pub peer: Peer,
    /// Others have declared it dead already.
    pub declared: bool,
}

impl Suspicions {
    /// When the suspicion began elsewhere is not told: each member gives the full time.
    pub fn accuse(
        &mut self,
        now: Instant,
        config: &Config,
        terms: Terms,
        peer: Peer,
        incarnation: Incarnation,
        accusers: impl Iterator<Item = RunId>,
    ) -> Accused {
        let fresh = self.of.get(&peer).is_none_or(|s| s.incarnation < incarnation);
        if fresh {
            self.clear(peer);
            let accusers = [None; ACCUSERS_MAX];
            self.of.insert(peer, Suspicion { incarnation, accusers, begun: now, deadline: now, hastened: false });
        }
        let suspicion = self.of.get_mut(&peer).expect("it was there, or was inserted");
        let most = (config.suspicion_confirmations + 1).min(ACCUSERS_MAX);
        let mut added = false;
        for accuser in accusers {
            let room = suspicion.accusers[..most].iter().position(Option::is_none);
            if let (Some(i), false) = (room, suspicion.accusers.contains(&Some(accuser))) {
                suspicion.accusers[i] = Some(accuser);
                added = true;
            }
        }
        let confirmations = suspicion.accusers.iter().flatten().count().saturating_sub(1);
        let deadline = match suspicion.hastened {
            true => suspicion.deadline,
            false => suspicion.begun + timeout(config, terms.live, confirmations).max(terms.patience),
        };
        let before = core::mem::replace(&mut suspicion.deadline, deadline);
        self.due.remove(&(before, peer));
        self.due.insert((deadline, peer));
        match (fresh, added) {
            (true, _) => Accused::New,
            (false, true) => Accused::Confirmed,
            (false, false) => Accused::Known,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    pub fn len(&self) -> usize {
        self.of.len()
    }

    /// Others have given it all its time already. Here it gets `grace`, from when we first suspected it. Whether that is over.
    pub fn hasten(&mut self, now: Instant, peer: Peer, grace: Duration) -> bool {
        let Some(suspicion) = self.of.get_mut(&peer) else { return false };
        let deadline = suspicion.deadline.min(suspicion.begun + grace);
        let before = core::mem::replace(&mut suspicion.deadline, deadline);
        suspicion.hastened = true;
        self.due.remove(&(before, peer));
        self.due.insert((deadline, peer));
        deadline <= now
    }

    /// Refuted, dead, gone or replaced.
    pub fn clear(&mut self, peer: Peer) {
        if let Some(suspicion) = self.of.remove(&peer) {
            self.due.remove(&(suspicion.deadline, peer));
        }
    }

    /// Who accuses it, for the rumor.
    pub fn accusers(&self, peer: Peer) -> impl Iterator<Item = RunId> + '_ {
        self.of.get(&peer).into_iter().flat_map(|s| s.accusers.iter().flatten().copied())
    }

    /// We have heard of it since: it lives, and gets its whole time again. What others have declared stands.
    pub fn renew(&mut self, now: Instant, config: &Config, terms: Terms, peer: Peer, incarnation: Incarnation) {
        if let Some(suspicion) = self.of.get_mut(&peer).filter(|s| !s.hastened) {
            suspicion.begun = now;
            self.accuse(now, config, terms, peer, incarnation, core::iter::empty());
        }
    }

    /// Who is suspected: first whose time is over first.
    pub fn soonest(&self) -> impl Iterator<Item = Peer> + '_ {
        self.due.iter().map(|&(_, peer)| peer)
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.due.first().map(|&(at, _)| at)
    }

    /// Call until it returns `None`.
    pub fn on_deadline(&mut self, now: Instant) -> Option<Unrefuted> {
        let &(_, peer) = self.due.first().filter(|&&(at, _)| at <= now)?;
        let declared = self.of.get(&peer).is_some_and(|s| s.hastened);
        self.clear(peer);
        Some(Unrefuted { peer, declared })
    }
}

/// How long a suspicion with so many confirmations lasts among `live` members.
pub fn timeout(config: &Config, live: usize, confirmations: usize) -> Duration {
    let n = live.max(1) as f64;
    let min =
        nanos(config.probe_interval) as f64 * f64::from(config.suspicion_mult.0) / 1000.0 * libm::log10(n).max(1.0);
    let max = min * f64::from(config.suspicion_max_mult.0) / 1000.0;
    // Neither the accused nor the first accuser can confirm.
    let k = config.suspicion_confirmations.min(live.saturating_sub(2));
    let share = if k == 0 { 1.0 } else { libm::log(confirmations.min(k) as f64 + 1.0) / libm::log(k as f64 + 1.0) };
    Duration::from_nanos((max - (max - min) * share).max(min) as u64)
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    fn peer(slot: u32) -> Peer {
        Peer { slot, generation: 0 }
    }

    fn among(live: usize) -> Terms {
        Terms { live, patience: Duration::ZERO }
    }

    fn run(id: u64) -> RunId {
        RunId::new(id).unwrap()
    }

    /// Lifeguard §IV-B: Suspicion falls logarithmically from max to min as K confirmations come in.
    #[test]
    fn each_confirmation_shortens_the_suspicion_by_less() {
        let config = Config::new();
        let t: Vec<u128> = (0..=4).map(|c| timeout(&config, 100, c).as_millis()).collect();

        assert_eq!(t[0], 6_000, "max = 3 · min");
        assert_eq!(t[3], 2_000, "min = 1 · log10(100) · 1 s");
        assert_eq!(t[4], t[3], "more than K do not count");
        assert!(t[0] - t[1] > t[1] - t[2] && t[1] - t[2] > t[2] - t[3]);
    }

    #[test]
    fn where_nobody_else_can_confirm_the_least_time_is_given_at_once() {
        let config = Config::new();
        assert_eq!(timeout(&config, 2, 0), config.probe_interval);
        assert!(timeout(&config, 3, 0) > timeout(&config, 3, 1));
        assert_eq!(timeout(&config, 3, 1), config.probe_interval);
    }

    #[test]
    fn the_same_accuser_counts_once_and_order_does_not_matter() {
        let (config, now) = (Config::new(), Instant::from_nanos(5));
        let (mut a, mut b) = (Suspicions::default(), Suspicions::default());
        let accuse = |s: &mut Suspicions, by: &[u64]| {
            s.accuse(now, &config, among(50), peer(1), Incarnation(3), by.iter().map(|&id| run(id)))
        };

        assert_eq!(accuse(&mut a, &[7]), Accused::New);
        assert_eq!(accuse(&mut a, &[7]), Accused::Known);
        assert_eq!(accuse(&mut a, &[8, 7]), Accused::Confirmed);
        assert_eq!(accuse(&mut b, &[8]), Accused::New);
        assert_eq!(accuse(&mut b, &[7]), Accused::Confirmed);

        assert_eq!(a.deadline(), b.deadline());
    }

    #[test]
    fn who_is_to_be_given_time_has_it_however_many_confirm() {
        let (config, patience) = (Config::new(), Duration::from_secs(4));
        let mut s = Suspicions::default();
        for by in 7..12 {
            let terms = Terms { live: 50, patience };
            s.accuse(Instant::ZERO, &config, terms, peer(1), Incarnation(3), core::iter::once(run(by)));
        }
        assert_eq!(s.deadline(), Some(Instant::ZERO + patience));
    }

    #[test]
    fn a_higher_incarnation_starts_the_time_anew() {
        let config = Config::new();
        let mut s = Suspicions::default();
        let accuse = |s: &mut Suspicions, at: u64, i: u64| {
            s.accuse(Instant::from_nanos(at), &config, among(2), peer(1), Incarnation(i), core::iter::once(run(7)))
        };
        accuse(&mut s, 0, 1);
        let first = s.deadline().unwrap();

        assert_eq!(accuse(&mut s, 400_000_000, 2), Accused::New);
        assert_eq!(s.deadline().unwrap(), first + Duration::from_millis(400));
        assert_eq!(s.on_deadline(first), None);
        assert_eq!(s.on_deadline(first + Duration::from_secs(1)), Some(Unrefuted { peer: peer(1), declared: false }));
        assert_eq!(s.deadline(), None);
    }

    #[test]
    fn of_many_suspicions_each_ends_in_its_own_time() {
        let config = Config::new();
        let mut s = Suspicions::default();
        let at = |ms: u64| Instant::from_nanos(ms * 1_000_000);
        for i in 0..50 {
            s.accuse(at(u64::from(i * 7 % 50)), &config, among(2), peer(i), Incarnation(0), core::iter::once(run(99)));
        }
        s.clear(peer(0));
        let mut ended = Vec::new();
        for ms in 1_000..1_100 {
            assert!(s.deadline().is_none_or(|next| next >= at(ms)));
            ended.extend(core::iter::from_fn(|| s.on_deadline(at(ms))).map(|ended| ended.peer));
        }
        let began: Vec<Peer> = (1..50).map(|ms| peer((0..50).find(|i| i * 7 % 50 == ms).unwrap())).collect();
        assert_eq!(ended, began, "in the order in which they began");
        assert!(s.of.is_empty() && s.due.is_empty());
    }
}
