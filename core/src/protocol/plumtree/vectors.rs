//! How far each origin was heard, compared with neighbours, and now and then with anybody.

use super::links::Link;
use super::origins::Known;
use super::spread::patience;
use super::{Cx, Plumtree};
use crate::config::Broadcast;
use crate::id::RunId;
use crate::members::Members;
use crate::outbox::Destination;
use crate::time::{Duration, nanos};
use crate::wire::frame::{Frame, MARKS_MAX, Marks};

/// So many comparisons after the last news, at least: some ten minutes. Nobody derived it.
const COMPARISONS: u32 = 24;

impl Plumtree {
    /// There is news, that some others may have missed; or we have just woken, and may have.
    pub fn stir(&mut self, cx: &mut Cx<'_>) {
        let soon = cx.config.gossip_interval * 10;
        self.comparisons = COMPARISONS;
        if self.pause != soon || self.compare.is_none() {
            self.pause = soon;
            let at = cx.now.mono + soon / 2 + Duration::from_nanos(cx.rng.below(nanos(soon) + 1));
            self.compare = Some(self.compare.map_or(at, |old| old.min(at)));
        }
    }

    /// Somebody is listed, or back. With links it is compared with as soon as there is one; by rumors it is met by chance, so soon.
    pub fn on_newcomer(&mut self, cx: &mut Cx<'_>) {
        if cx.config.broadcast == Broadcast::Rumor && !self.origins.is_empty() {
            self.stir(cx);
        }
    }

    /// Whether it is time to compare with somebody. Rarer and rarer after the last news, and never without any.
    pub fn compares(&mut self, cx: &mut Cx<'_>, members: &Members) -> bool {
        if self.compare.is_none_or(|at| at > cx.now.mono) {
            return false;
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(cx.config.sync_interval.max(pause));
        let jitter = Duration::from_nanos(cx.rng.below(nanos(self.pause) / 4 + 1));
        // What is kept is worth comparing; and when it is not kept any more, that it was there.
        self.comparisons = self.comparisons.saturating_sub(1);
        let goes_on = self.comparisons > 0 || !self.window.is_empty();
        self.compare = goes_on.then_some(cx.now.mono + self.pause - jitter);
        self.sweep(cx, members);
        true
    }

    /// How far we have heard each origin: also those of whom nothing is left, so that who missed it learns that it is lost.
    pub fn tell(&mut self, cx: &mut Cx<'_>, to: Destination, ask: bool, neighbour: bool) {
        self.scratch.clear();
        let mut n = 0;
        let from = self.cursor.take().or(RunId::new(1)).expect("one is not zero");
        for (&run, origin) in self.origins.range(from..).chain(self.origins.range(..from)) {
            if n == MARKS_MAX {
                // The next one begins where this one ends.
                self.cursor = Some(run);
                break;
            }
            Marks::push(&mut self.scratch, run, origin.seen.top());
            n += 1;
        }
        if ask || n > 0 {
            self.counts.vectors += 1;
            cx.out.send(to, &Frame::Vector { ask, neighbour, marks: Marks(&self.scratch) });
        }
    }

    pub fn on_vector(&mut self, cx: &mut Cx<'_>, members: &Members, from: Destination, ask: bool, marks: Marks<'_>) {
        let Some(by) = from.run else { return };
        // What was said before there was a link is not on its way along it.
        let is_new = |link: &Link| cx.now.mono.since(link.since) < cx.config.gossip_interval;
        let wait = if self.link(by).is_some_and(is_new) { Duration::ZERO } else { patience(cx.config) };
        for (run, seq) in marks.iter() {
            if run == members.local().run {
                self.on_taken(cx, members, by, run, seq);
            } else if matches!(self.know(cx, members, run), Known::Yes) {
                self.miss(cx, run, Some((by, seq)), wait);
            }
        }
        if ask {
            self.tell(cx, from, false, false);
        }
    }
}
