//! Our neighbours: which of them are lazy, in which tree, and how much of what we said they have.

use super::origins::Origin;
use super::window::Kept;
use super::{Cx, Plumtree};
use crate::id::RunId;
use crate::members::Members;
use crate::outbox::{Destination, Via};
use crate::wire::frame::{Frame, Graft, Ihave, Spans};

/// Neighbours: a bit for each.
pub const LINKS_MAX: usize = 16;

/// In the shared tree a path must be shorter by so many hops to replace one (SRDS 2007 §4.2 has 7 for many senders): what is
/// shorter for one sender is longer for another.
const SHARED_THRESHOLD: u32 = 3;

#[derive(Debug)]
pub(super) struct Link {
    pub run: RunId,
    pub to: Destination,
    /// Up to which of our own messages it has said that it has them.
    pub confirmed: u64,
}

impl Plumtree {
    /// §3.5: a new neighbour is eager, in all trees. One of the two asks what the other has heard.
    pub fn on_up(&mut self, cx: &mut Cx<'_>, members: &Members, run: RunId) {
        let Some(to) = stream(members, run) else { return };
        if self.slot(run).is_some() {
            return;
        }
        let Some(slot) = self.links.iter().position(Option::is_none) else { return };
        self.links[slot] = Some(Link { run, to, confirmed: 0 });
        self.shared &= !(1 << slot);
        for lazy in self.origins.values_mut().filter_map(|origin| origin.lazy.as_mut()) {
            *lazy &= !(1 << slot);
        }
        if members.local().run < run {
            self.tell(cx, to, true, true);
        }
    }

    pub fn on_down(&mut self, members: &Members, run: RunId) {
        let Some(slot) = self.slot(run) else { return };
        self.links[slot as usize] = None;
        self.window.vacate(slot);
        for origin in self.origins.values_mut() {
            origin.via = origin.via.filter(|&via| via != slot);
        }
        self.land(members);
    }

    /// What was on its way to or from it may be lost.
    pub fn on_severed(&mut self, cx: &mut Cx<'_>, run: RunId) {
        if let Some(to) = self.link(run).map(|link| link.to) {
            self.tell(cx, to, true, true);
        }
    }

    // --- which are lazy ---

    pub(super) fn prune(&mut self, cx: &mut Cx<'_>, run: RunId, slot: u8, own: bool) {
        let (Some(origin), Some(link)) = (self.origins.get_mut(&run), &self.links[slot as usize]) else { return };
        // Those on their way are one reason, and not many; but a PRUNE may be lost.
        let again = cx.now.mono.since(origin.pruned) >= cx.config.gossip_interval;
        let lazy = lazy_in(&mut self.shared, origin, own);
        if *lazy >> slot & 1 == 0 || again {
            *lazy |= 1 << slot;
            origin.pruned = cx.now.mono;
            self.counts.prunes += 1;
            cx.out.send(link.to, &Frame::Prune { origin: run, own });
        }
    }

    pub fn on_prune(&mut self, members: &Members, from: RunId, run: RunId, own: bool) {
        let (Some(slot), Some(origin)) = (self.slot(from), self.origins.get_mut(&run)) else { return };
        *lazy_in(&mut self.shared, origin, own) |= 1 << slot;
        if run == members.local().run {
            self.land(members);
        }
    }

    /// §3.8: it would have come sooner by way of who announces it.
    pub(super) fn optimise(&mut self, cx: &mut Cx<'_>, slot: u8, ihave: Ihave) {
        let Ihave { origin: run, last: seq, hops, own, .. } = ihave;
        let Some(&Kept { hops: ours, by: Some(by), .. }) = self.window.get(run, seq) else { return };
        let Some(origin) = self.origins.get_mut(&run) else { return };
        let threshold = if own { 0 } else { SHARED_THRESHOLD };
        if by == slot || seq <= origin.settled || hops + 1 + threshold >= ours || own != origin.lazy.is_some() {
            return;
        }
        let (Some(old), Some(new)) = (&self.links[by as usize], &self.links[slot as usize]) else { return };
        origin.settled = origin.seen.top();
        let lazy = lazy_in(&mut self.shared, origin, own);
        *lazy = *lazy & !(1 << slot) | 1 << by;
        self.counts.shortcuts += 1;
        cx.out.send(new.to, &Frame::Graft(Graft { origin: run, grow: true, own, here: 0, spans: Spans(&[]) }));
        cx.out.send(old.to, &Frame::Prune { origin: run, own });
    }

    // --- how much they have ---

    /// Too much of ours is on its way: half of the neighbours have yet to confirm it. Slower ones are not waited for.
    pub fn is_busy(&self, most: usize) -> bool {
        self.sent - self.landed >= most as u64
    }

    /// A neighbour has our own messages up to `seq`.
    pub(super) fn confirm(&mut self, members: &Members, run: RunId, seq: u64) {
        if let Some(link) = self.links.iter_mut().flatten().find(|link| link.run == run) {
            link.confirmed = link.confirmed.max(seq);
            self.land(members);
        }
    }

    /// Counts what half of the eager neighbours have confirmed as landed; where all are lazy, half of these.
    pub(super) fn land(&mut self, members: &Members) {
        let lazy = self.lazy(members.local().run, true);
        let (mut confirmed, mut n) = ([0; LINKS_MAX], 0);
        let is_eager = |slot: usize| lazy >> slot & 1 == 0;
        let any = (0..LINKS_MAX).any(|slot| self.links[slot].is_some() && is_eager(slot));
        for (slot, link) in self.links.iter().enumerate() {
            if let Some(link) = link.as_ref().filter(|_| is_eager(slot) || !any) {
                confirmed[n] = link.confirmed;
                n += 1;
            }
        }
        confirmed[..n].sort_unstable();
        // Half of them have at least this. Where nobody is left nothing is waited for.
        let landed = match n {
            0 if members.live_len() == 1 => u64::MAX,
            0 => 0,
            n => confirmed[n / 2],
        };
        self.landed(landed);
    }

    /// Of our own messages those up to `seq` are on their way no more.
    pub(super) fn landed(&mut self, seq: u64) {
        while let Some(&(_, sent)) = self.flight.front().filter(|&&(first, _)| first <= seq) {
            self.landed = sent;
            self.flight.pop_front();
        }
    }

    pub(super) fn slot(&self, run: RunId) -> Option<u8> {
        self.links.iter().position(|link| link.as_ref().is_some_and(|link| link.run == run)).map(|slot| slot as u8)
    }

    pub(super) fn link(&self, run: RunId) -> Option<&Link> {
        self.links.iter().flatten().find(|link| link.run == run)
    }

    pub(super) fn lazy(&self, run: RunId, own: bool) -> u16 {
        self.origins.get(&run).and_then(|origin| origin.lazy).filter(|_| own).unwrap_or(self.shared)
    }
}

/// Those who are lazy in the tree of one origin, or in the one that all others share.
pub(super) fn lazy_in<'a>(shared: &'a mut u16, origin: &'a mut Origin, own: bool) -> &'a mut u16 {
    if own { origin.lazy.get_or_insert(*shared) } else { shared }
}

pub(super) fn stream(members: &Members, run: RunId) -> Option<Destination> {
    let entry = members.get(members.find(run)?).filter(|e| e.is_live())?;
    Some(Destination { via: Via::Stream, ..entry.to() })
}
