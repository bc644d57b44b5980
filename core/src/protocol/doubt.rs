//! Between silence and suspicion, where there are too few who could be asked to try.
//!
//! SWIM §3.1 asks k others because a probe along one path fails now and then. Of two members each has only its own eyes: at 30 % loss one
//! ping in two is not answered, and a suspicion of one period has little more than one question in it. So who was silent is asked again and
//! again, before anybody is told:
//!
//! ```text
//!   silent ───► doubt, asked again and again ───► suspicion, told
//!                 │ ack, own or relayed      │ another's suspicion is told: we accuse, too
//!                 └──────► forgotten         └──────► suspicion
//! ```
//!
//! The doubter loses no time by it: its suspicion counts from the beginning of the doubt. What remains of it is for others to confirm, and
//! for the accused to refute. Others hear of it later by as much as the doubt lasted.

use alloc::vec::Vec;

use crate::config::Config;
use crate::id::Peer;
use crate::time::{Duration, Instant};

/// Doubts at once; who is silent beyond that is suspected at once. With up to 16 for `indirect_checks`, they are of clusters of few.
pub const DOUBTS_MAX: usize = 16;

/// Of the shortest suspicion, in percent. Nobody derived it: with more of it the accused has no time left to refute.
const LASTS: u32 = 70;

/// Of one doubt, however great `indirect_checks` is.
const QUESTIONS_MAX: usize = 16;

#[derive(Debug, Default)]
pub struct Doubts(Vec<Doubt>);

#[derive(Debug)]
struct Doubt {
    peer: Peer,
    /// By the clock of `hearing`.
    since: Instant,
    until: Instant,
    /// When to ask it the next time.
    ask: Instant,
    gap: Duration,
}

/// How long to doubt, and how often to ask within that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    lasts: Duration,
    questions: u32,
}

/// What its time has come for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    Ask(Peer),
    /// It has had its chance. Its doubt is there until it is ended.
    Suspect(Peer),
}

impl Doubts {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Somebody was silent. `heard`: what the clock of `hearing` shows. False: there is no room for one more.
    pub fn begin(&mut self, now: Instant, heard: Instant, span: Span, peer: Peer) -> bool {
        if self.0.iter().any(|d| d.peer == peer) {
            return true;
        }
        if self.0.len() == DOUBTS_MAX {
            return false;
        }
        self.0.push(Doubt { peer, since: heard, until: now + span.lasts, ask: now, gap: span.lasts / span.questions });
        true
    }

    /// It answered, or others know more. Since when it was doubted.
    pub fn end(&mut self, peer: Peer) -> Option<Instant> {
        let i = self.0.iter().position(|d| d.peer == peer)?;
        Some(self.0.swap_remove(i).since)
    }

    /// We lost `lost` while others may have answered.
    pub fn give_back(&mut self, lost: Duration) {
        self.0.iter_mut().for_each(|d| d.until = d.until + lost);
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.0.iter().map(|d| d.ask.min(d.until)).min()
    }

    /// Call until it returns `None`, and end the doubts that are over.
    pub fn on_deadline(&mut self, now: Instant) -> Option<Due> {
        let doubt = self.0.iter_mut().find(|d| d.ask.min(d.until) <= now)?;
        if doubt.until <= now {
            return Some(Due::Suspect(doubt.peer));
        }
        doubt.ask = now + doubt.gap;
        Some(Due::Ask(doubt.peer))
    }
}

/// A doubt asks `indirect_checks` times for each member that a probe would have asked to try and that there is not, and as often for
/// itself. `None`: there are enough, it is for them to find out. `shortest`: what a suspicion lasts at least.
pub fn span(config: &Config, live: usize, shortest: Duration) -> Option<Span> {
    let k = config.indirect_checks;
    let missing = k.saturating_sub(live.saturating_sub(2));
    (missing > 0)
        .then(|| Span { lasts: shortest * LASTS / 100, questions: (k * (1 + missing)).min(QUESTIONS_MAX) as u32 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    fn peer(slot: u32) -> Peer {
        Peer { slot, generation: 0 }
    }

    const SPAN: Span = Span { lasts: Duration::from_millis(700), questions: 7 };

    fn begun() -> Doubts {
        let mut doubts = Doubts::default();
        assert!(doubts.begin(at(100), at(90), SPAN, peer(1)));
        doubts
    }

    #[test]
    fn the_fewer_can_be_asked_to_try_the_more_often_the_silent_are_asked() {
        let mut config = Config::new();
        config.indirect_checks = 3;
        let second = Duration::from_secs(1);
        let questions = |live| span(&config, live, second).map(|span| span.questions);
        assert_eq!([2, 3, 4, 5, 100].map(questions), [Some(12), Some(9), Some(6), None, None]);
        assert_eq!(span(&config, 2, second).map(|span| span.lasts), Some(second * 7 / 10));
        config.indirect_checks = 16;
        assert_eq!(span(&config, 2, second).map(|span| span.questions), Some(16));
        config.indirect_checks = 0;
        assert_eq!(span(&config, 2, second), None, "nobody is to be asked");
    }

    #[test]
    fn who_does_not_answer_is_asked_again_and_again_and_then_suspected() {
        let mut doubts = begun();
        let mut asked = 0;
        while doubts.deadline().unwrap() < at(800) {
            assert_eq!(doubts.on_deadline(doubts.deadline().unwrap()), Some(Due::Ask(peer(1))));
            asked += 1;
        }
        assert_eq!(asked, 7);
        assert_eq!(doubts.on_deadline(at(800)), Some(Due::Suspect(peer(1))));
        assert_eq!(doubts.end(peer(1)), Some(at(90)), "from then on its suspicion counts");
        assert_eq!((doubts.deadline(), doubts.len()), (None, 0));
    }

    #[test]
    fn who_answers_is_doubted_no_more() {
        let mut doubts = begun();
        assert!(doubts.end(peer(1)).is_some());
        assert_eq!((doubts.on_deadline(at(900)), doubts.end(peer(1))), (None, None));
    }

    #[test]
    fn time_in_which_we_were_away_does_not_count() {
        let mut doubts = begun();
        doubts.give_back(Duration::from_millis(500));
        assert_eq!(doubts.on_deadline(at(900)), Some(Due::Ask(peer(1))));
        assert_eq!(doubts.on_deadline(at(1_300)), Some(Due::Suspect(peer(1))));
    }

    #[test]
    fn a_second_silence_changes_nothing_and_there_is_room_for_some() {
        let mut doubts = begun();
        assert!(doubts.begin(at(500), at(500), SPAN, peer(1)));
        assert_eq!(doubts.len(), 1);
        let begun = (2..40).filter(|&i| doubts.begin(at(500), at(500), SPAN, peer(i))).count();
        assert_eq!(begun, DOUBTS_MAX - 1);
    }
}
