//! Infection-style dissemination: news rides on whatever is sent anyway, and what was just heard for the
//! first time leaves at once.
//!
//! A rumor is *about* a member; its words are made from the member table when it is told, so it can never say
//! anything older than what we know. SWIM §4.1: each is told λ·log n times, those told least first. Departure
//! from it: news does not wait for the next ping. What is heard for the first time goes to `gossip_fanout` members
//! within `gossip_flush`, one datagram each, and then to as many each `gossip_interval` until it has been
//! told often enough; hearing it again changes nothing. A byte budget bounds what all this may send.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use crate::config::Config;
use crate::id::Peer;
use crate::rhythm::{self, Rhythm};
#[cfg(feature = "sim")]
use crate::time::Duration;
use crate::time::{Instant, nanos};

/// Rumors that may be waiting at once; the oldest of those told most give way. They are about members,
/// so what is lost here is found by anti-entropy.
pub const RUMORS_MAX: usize = 16_384;

/// Rumors too long for what room is left that are passed over before a packet is called full.
const MISFITS: usize = 3;

/// So many in the queues need not count any more before they are swept, however few there are that do.
const SPARE: usize = 32;

/// What about it is news.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Aspect {
    /// That it exists, with all that there is to know.
    Record,
    /// How it fares.
    Status,
    /// What it tells about itself.
    State,
    /// That it was away for a while.
    Stall,
}

impl Aspect {
    pub const ALL: [Aspect; 4] = [Aspect::Record, Aspect::Status, Aspect::State, Aspect::Stall];
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rumor {
    pub about: Peer,
    pub aspect: Aspect,
}

/// What became of an attempt to write a rumor into a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Yes,
    NoRoom,
    /// It is no news to this receiver: it is about itself.
    Idle,
    /// There is nothing to say any more.
    Moot,
}

/// One that is or was to be told, and which start of it that was.
type Waiting = (Rumor, u32);

/// Where thousands die at once each is told by each of those who are left: to tell one costs one look-up.
#[derive(Debug, Default)]
pub struct Rumors {
    /// By how often they were told; of those told as often, who came first goes first. What was stopped, or started anew, goes
    /// when its turn comes.
    queues: Vec<VecDeque<Waiting>>,
    /// In all queues.
    queued: usize,
    /// Which start of it counts.
    current: BTreeMap<Rumor, u32>,
    next_start: u32,
    /// Those that a packet has passed over, until it is full.
    aside: Vec<Waiting>,
    rhythm: Rhythm,
    budget: Budget,
}

/// A token bucket of bytes that holds one second's worth.
#[derive(Debug, Default)]
struct Budget {
    left: u64,
    at: Instant,
}

impl Rumors {
    /// Starts a rumor, or starts it anew.
    pub fn start(&mut self, now: Instant, config: &Config, rumor: Rumor) {
        self.stop(rumor);
        if self.current.len() >= RUMORS_MAX {
            self.drop_one();
        }
        if self.queued > 2 * (self.current.len() + SPARE) {
            self.sweep();
        }
        self.next_start = self.next_start.wrapping_add(1);
        self.current.insert(rumor, self.next_start);
        self.queue(0, (rumor, self.next_start));
        self.rhythm.quicken(now, config);
    }

    /// What was started just now is news of a newcomer.
    pub fn hasten(&mut self, now: Instant, config: &Config) {
        if !self.is_empty() {
            self.rhythm.hasten(now, config);
        }
    }

    /// What was to be said is moot, or said by another rumor.
    pub fn stop(&mut self, rumor: Rumor) {
        if self.current.remove(&rumor).is_some() && self.current.is_empty() {
            // With their room, which after a great join or death is much.
            self.queues.clear();
            self.queued = 0;
        }
    }

    /// Puts it last among those told as often.
    fn queue(&mut self, told: usize, waiting: Waiting) {
        if self.queues.len() <= told {
            self.queues.resize_with(told + 1, VecDeque::new);
        }
        self.queues[told].push_back(waiting);
        self.queued += 1;
    }

    /// Lets go of what does not count any more.
    fn sweep(&mut self) {
        let Rumors { queues, current, .. } = self;
        queues.iter_mut().for_each(|queue| queue.retain(|(rumor, start)| current.get(rumor) == Some(start)));
        self.queued = queues.iter().map(VecDeque::len).sum();
    }

    #[cfg(feature = "sim")]
    pub fn by_the_clock(&mut self, phase: Duration) {
        self.rhythm.by_the_clock(phase);
    }

    pub fn is_empty(&self) -> bool {
        self.current.is_empty()
    }

    pub fn len(&self) -> usize {
        self.current.len()
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.rhythm.deadline()
    }

    /// Whether it is time to send; sets the next time.
    pub fn is_due(&mut self, now: Instant, config: &Config) -> bool {
        if self.is_empty() {
            // At the time, and not before: who stops in between may start again.
            if self.deadline().is_some_and(|due| due <= now) {
                self.rhythm.rest();
            }
            return false;
        }
        self.rhythm.is_due(now, config)
    }

    /// Whether `bytes` more may be gossiped now.
    pub fn may_spend(&mut self, now: Instant, config: &Config, bytes: usize) -> bool {
        let rate = config.gossip_budget as u64;
        let gained = u128::from(nanos(now.since(self.budget.at))) * u128::from(rate) / 1_000_000_000;
        if gained > 0 {
            self.budget = Budget { left: (self.budget.left + gained.min(u128::from(rate)) as u64).min(rate), at: now };
        }
        let enough = bytes as u64 <= self.budget.left;
        if enough {
            self.budget.left -= bytes as u64;
        }
        enough
    }

    /// Fills one packet: those told least first, each at most once. SWIM §4.1: λ·log n times in all.
    pub fn fill(&mut self, config: &Config, live: usize, mut tell: impl FnMut(Rumor) -> Told) {
        if self.is_empty() {
            return;
        }
        let (limit, mut misfits) = (rhythm::times(config.retransmit_mult, live), 0);
        let mut aside = core::mem::take(&mut self.aside);
        // What is told on the way comes after these, and is not met again.
        let mut next = self.queues.first().map_or(0, VecDeque::len);
        for told in 0..self.queues.len() {
            let here = next;
            next = self.queues.get(told + 1).map_or(0, VecDeque::len);
            for _ in 0..here {
                let Some(waiting) = self.queues.get_mut(told).and_then(VecDeque::pop_front) else { break };
                self.queued -= 1;
                let (rumor, start) = waiting;
                if self.current.get(&rumor) != Some(&start) {
                    continue;
                }
                match tell(rumor) {
                    Told::Moot => self.stop(rumor),
                    Told::Idle => aside.push(waiting),
                    Told::NoRoom => {
                        self.queue(told, waiting);
                        misfits += 1;
                    }
                    Told::Yes if told + 1 >= limit => self.stop(rumor),
                    Told::Yes => self.queue(told + 1, waiting),
                }
                if misfits == MISFITS {
                    break;
                }
            }
            self.queued += aside.len();
            aside.drain(..).rev().for_each(|waiting| self.queues[told].push_front(waiting));
            if misfits == MISFITS {
                break;
            }
        }
        self.aside = aside;
    }

    /// The oldest of those told most.
    fn drop_one(&mut self) {
        while let Some((rumor, start)) = self.queues.iter_mut().rev().find_map(VecDeque::pop_front) {
            self.queued -= 1;
            if self.current.get(&rumor) == Some(&start) {
                return self.stop(rumor);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rumor(slot: u32) -> Rumor {
        Rumor { about: Peer { slot, generation: 0 }, aspect: Aspect::Status }
    }

    fn told(rumors: &mut Rumors, config: &Config, room: usize) -> Vec<u32> {
        let mut said = Vec::new();
        rumors.fill(config, 50, |r| {
            if said.len() == room {
                return Told::NoRoom;
            }
            said.push(r.about.slot);
            Told::Yes
        });
        said
    }

    /// SWIM §4.1: "elements that have been gossiped fewer times are preferred".
    #[test]
    fn those_told_least_go_first_and_none_twice_in_one_packet() {
        let (config, mut rumors) = (Config::new(), Rumors::default());
        (0..4).for_each(|i| rumors.start(Instant::ZERO, &config, rumor(i)));

        assert_eq!(told(&mut rumors, &config, 3), [0, 1, 2]);
        let second = told(&mut rumors, &config, 3);
        assert_eq!(second[0], 3, "told never before");
        assert_eq!(second.len(), 3);
    }

    /// SWIM §4.1: each is told λ·log n times, then rests.
    #[test]
    fn a_rumor_is_told_a_limited_number_of_times() {
        let (config, mut rumors) = (Config::new(), Rumors::default());
        rumors.start(Instant::ZERO, &config, rumor(1));
        let times = (0..100).filter(|_| !told(&mut rumors, &config, 9).is_empty()).count();

        assert_eq!(times, rhythm::times(config.retransmit_mult, 50));
        assert_eq!(times, 8);
        assert!(rumors.is_empty());
    }

    #[test]
    fn fresh_news_flushes_at_once_but_only_once_an_interval() {
        let (config, mut rumors) = (Config::new(), Rumors::default());
        let t = |ms: u64| Instant::from_nanos(ms * 1_000_000);
        rumors.start(t(100), &config, rumor(1));
        assert!(rumors.is_due(t(100), &config));

        rumors.start(t(101), &config, rumor(2));
        assert!(!rumors.is_due(t(101), &config));
        assert_eq!(rumors.deadline(), Some(t(110)));
        assert!(rumors.is_due(t(110), &config));
        assert_eq!(rumors.deadline(), Some(t(210)), "then at the gossip interval");
    }

    #[test]
    fn news_of_newcomers_flushes_five_rounds_ahead() {
        let (config, mut rumors) = (Config::new(), Rumors::default());
        let rounds = (100..=200).filter(|&ms| {
            let now = Instant::from_nanos(ms * 1_000_000);
            rumors.start(now, &config, rumor(ms as u32));
            rumors.hasten(now, &config);
            rumors.is_due(now, &config)
        });
        assert_eq!(rounds.collect::<Vec<_>>(), [100, 110, 120, 130, 140, 150, 200], "and one is paid for");
    }

    #[test]
    fn the_budget_bounds_the_bytes_of_a_second() {
        let (config, mut rumors) = (Config::new(), Rumors::default());
        let t = Instant::from_nanos(10_000_000_000);
        let sent = (0..1000).filter(|_| rumors.may_spend(t, &config, 1400)).count();
        assert_eq!(sent, config.gossip_budget / 1400);
        assert!(rumors.may_spend(t + core::time::Duration::from_millis(100), &config, 1400));
    }

    #[test]
    fn a_flood_of_rumors_is_bounded() {
        let (config, mut rumors) = (Config::new(), Rumors::default());
        (0..2 * RUMORS_MAX as u32).for_each(|i| rumors.start(Instant::ZERO, &config, rumor(i)));
        assert_eq!(rumors.len(), RUMORS_MAX);
    }
}
