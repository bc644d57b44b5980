//! What is new here, told to those who are not given it: by its number only.
//!
//! A member has three such neighbours on average, and needs one of them to notice that something did not come. So, in an
//! origin's own tree, once it is settled, three of five lazy links carry the announcement of a message, and with the next
//! message others do: 0.9 n announcements in the place of 1.5 n, of the paper's 3 n. Where by chance none comes it is the
//! next message that tells, or the comparison of vectors a second or two later. As long as paths are being shortened, in
//! the shared tree, where nobody knows when the next message comes, and where an announcement is of many messages, all do.

use super::links::lazy_in;
use super::origins::Known;
use super::spread::patience;
use super::{Cx, Plumtree};
use crate::id::RunId;
use crate::members::Members;
use crate::time::Duration;
use crate::wire::frame::{Frame, Ihave};

/// So many messages after a path was shortened here no more of that is expected. With 3, 6 and 10 trees become as shallow as fast.
const SETTLED: u64 = 3;
/// An announcement of so many messages is worth a packet on every link. Chosen.
const FEW: u64 = 4;

impl Plumtree {
    pub(super) fn announce(&mut self, cx: &mut Cx<'_>) {
        self.announce = None;
        for run in core::mem::take(&mut self.fresh) {
            // What is left of a burst is confirmed, too.
            self.acknowledge(cx, run, true);
            let Some(origin) = self.origins.get_mut(&run) else { continue };
            let Some((first, last)) = origin.news.take() else { continue };
            let own = origin.lazy.is_some();
            let lazy = *lazy_in(&mut self.shared, origin, own);
            let is_settled = own && last > origin.settled + SETTLED;
            let (first, last) = (first.max(self.window.low(run)), last.min(self.window.high(run)));
            let linked = self.links.iter().enumerate().filter(|&(slot, _)| lazy >> slot & 1 == 1);
            for (slot, link) in linked.filter_map(|(slot, link)| Some((slot, link.as_ref()?))) {
                let unknown = |seq: &u64| self.window.get(run, *seq).filter(|kept| kept.had >> slot & 1 == 0);
                let mut news = (first..=last).filter(|seq| unknown(seq).is_some());
                let Some(first) = news.next() else { continue };
                let last = news.next_back().unwrap_or(first);
                if is_settled && last - first < FEW && !has_turn(link.turn, last) {
                    continue;
                }
                let hops = unknown(&last).map_or(0, |kept| kept.hops);
                cx.out.send(link.to, &Frame::Ihave(Ihave { origin: run, first, last, hops, own }));
            }
        }
    }

    /// `from` has messages up to `last`, and those from `first` on are new there.
    pub fn on_ihave(&mut self, cx: &mut Cx<'_>, members: &Members, from: RunId, ihave: Ihave) {
        let Ihave { origin: run, first, last, .. } = ihave;
        if run == members.local().run {
            return self.on_taken(cx, members, from, run, last);
        }
        if !matches!(self.know(cx, members, run), Known::Yes) {
            return;
        }
        let slot = self.slot(from);
        if let Some(slot) = slot {
            for seq in first.max(self.window.low(run))..=last.min(self.window.high(run)) {
                self.window.get_mut(run, seq).into_iter().for_each(|kept| kept.had |= 1 << slot);
            }
            self.optimise(cx, slot, ihave);
            self.on_taken(cx, members, from, run, last);
        }
        let origin = self.origins.get_mut(&run).expect("we know it");
        let was_asked = origin.repair.as_ref().is_some_and(|repair| repair.asked == Some(from));
        let wait = if was_asked { Duration::ZERO } else { patience(cx.config) };
        self.miss(cx, run, Some((from, last)), wait);
    }

    pub fn on_idontwant(&mut self, cx: &mut Cx<'_>, members: &Members, from: RunId, run: RunId, seq: u64) {
        if let (Some(slot), Some(kept)) = (self.slot(from), self.window.get_mut(run, seq)) {
            kept.had |= 1 << slot;
        } else if run != members.local().run && matches!(self.know(cx, members, run), Known::Yes) {
            self.miss(cx, run, Some((from, seq)), cx.config.gossip_interval);
        }
    }
}

/// This link announces what ends with `last`. Both ends think so.
fn has_turn(turn: u64, last: u64) -> bool {
    turn.wrapping_add(last) % 5 < 3
}
