//! What is new here, told to those who are not given it: by its number only.

use super::links::lazy_in;
use super::origins::Known;
use super::spread::patience;
use super::{Cx, Plumtree};
use crate::id::RunId;
use crate::members::Members;
use crate::time::Duration;
use crate::wire::frame::{Frame, Ihave};

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
            let (first, last) = (first.max(self.window.low(run)), last.min(self.window.high(run)));
            for (slot, link) in self.links.iter().enumerate().filter(|&(slot, _)| lazy >> slot & 1 == 1) {
                let Some(link) = link else { continue };
                let unknown = |seq: &u64| self.window.get(run, *seq).filter(|kept| kept.had >> slot & 1 == 0);
                let mut news = (first..=last).filter(|seq| unknown(seq).is_some());
                let Some(first) = news.next() else { continue };
                let last = news.next_back().unwrap_or(first);
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
