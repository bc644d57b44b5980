//! Our neighbours: which of them are lazy, in which tree.

use super::flow::Taker;
use super::origins::Origin;
use super::window::Kept;
use super::{Cx, Plumtree};
use crate::id::RunId;
use crate::members::Members;
use crate::outbox::{Destination, Via};
use crate::rng::mix;
use crate::time::Instant;
use crate::wire::frame::{Frame, Graft, Ihave, Spans};

/// Neighbours: a bit for each.
pub const LINKS_MAX: usize = 16;

/// In the shared tree a path must be shorter by so many hops more to replace one: what is shorter for one sender is longer for
/// another. SRDS 2007 §4.2 has 7 for many senders; where only what is newest says so, and when it is everywhere, 1 makes the
/// shallowest trees.
const SHARED_THRESHOLD: u32 = 1;

/// What is newest in the shared tree.
#[derive(Clone, Copy, Debug)]
pub(super) struct Newest {
    /// Its origin and number.
    pub message: Option<(RunId, u64)>,
    pub at: Instant,
    pub by: Bringer,
}

/// Who brought it: a neighbour, or one that is none any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bringer {
    Ourselves,
    Link(u8),
    Gone,
}

pub(super) type Links = [Option<Link>; LINKS_MAX];

#[derive(Debug)]
pub(super) struct Link {
    pub run: RunId,
    pub to: Destination,
    /// Which messages are announced here: a number that both ends agree on.
    pub turn: u64,
    /// Since when it is there.
    pub since: Instant,
}

impl Plumtree {
    /// §3.5: a new neighbour is eager, in all trees. One of the two asks what the other has heard.
    pub fn on_up(&mut self, cx: &mut Cx<'_>, members: &Members, run: RunId) {
        let Some(to) = stream(members, run) else { return };
        if self.slot(run).is_some() {
            return;
        }
        let Some(slot) = self.links.iter().position(Option::is_none) else { return };
        let turn = mix(members.local().run.get() ^ run.get());
        self.links[slot] = Some(Link { run, to, turn, since: cx.now.mono });
        self.shared &= !(1 << slot);
        for lazy in self.origins.values_mut().filter_map(|origin| origin.lazy.as_mut()) {
            *lazy &= !(1 << slot);
        }
        self.serve(members.local().run, slot);
        if members.local().run < run {
            self.tell(cx, to, true, true);
        }
    }

    pub fn on_down(&mut self, run: RunId) {
        let Some(slot) = self.slot(run) else { return };
        self.links[slot as usize] = None;
        self.window.vacate(slot);
        if self.newest.by == Bringer::Link(slot) {
            self.newest.by = Bringer::Gone;
        }
        for origin in self.origins.values_mut() {
            origin.via = origin.via.filter(|&via| via != slot);
            origin.takers.iter_mut().for_each(|takers| takers[slot as usize] = Taker::default());
        }
    }

    /// What was on its way to or from it may be lost.
    pub fn on_severed(&mut self, cx: &mut Cx<'_>, run: RunId) {
        if let Some(to) = self.link(run).map(|link| link.to) {
            self.tell(cx, to, true, true);
        }
    }

    // --- which are lazy ---

    /// Whether that neighbour brought what is newest in that tree, or may as well have. Departure from §3.5: neither side cuts such
    /// a link. Messages of several senders are under way at the same time, and copies of each say something else about the
    /// tree: links that are all spared by one of them, the newest, still reach everybody.
    fn is_held(&self, slot: u8, run: RunId, own: bool) -> bool {
        let bringer = match self.origins.get(&run).filter(|origin| own && origin.lazy.is_some()) {
            Some(origin) if origin.pushed == 0 => Bringer::Ourselves,
            Some(origin) => origin.via.map_or(Bringer::Gone, Bringer::Link),
            None => self.newest.by,
        };
        match bringer {
            Bringer::Ourselves => false,
            Bringer::Gone => true,
            Bringer::Link(by) => by == slot,
        }
    }

    pub(super) fn prune(&mut self, cx: &mut Cx<'_>, run: RunId, slot: u8, own: bool) {
        if self.is_held(slot, run, own) {
            return;
        }
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

    /// §3.5: what came along it first makes a link eager. The other side may have heard, or be about to hear, that it is lazy.
    pub(super) fn brought(&mut self, cx: &mut Cx<'_>, (run, seq): (RunId, u64), slot: u8, own: bool) {
        if !own {
            self.newest = Newest { message: Some((run, seq)), at: cx.now.mono, by: Bringer::Link(slot) };
        }
        let Some(origin) = self.origins.get_mut(&run) else { return };
        let lazy = lazy_in(&mut self.shared, origin, own);
        if *lazy >> slot & 1 == 1 {
            *lazy &= !(1 << slot);
            self.grow(cx, run, slot, own);
        }
    }

    fn grow(&mut self, cx: &mut Cx<'_>, run: RunId, slot: u8, own: bool) {
        if let Some(link) = &self.links[slot as usize] {
            self.counts.grafts += 1;
            cx.out.send(link.to, &graft(run, own));
        }
    }

    pub fn on_prune(&mut self, cx: &mut Cx<'_>, from: RunId, run: RunId, own: bool) {
        let Some(slot) = self.slot(from) else { return };
        if self.is_held(slot, run, own) {
            self.grow(cx, run, slot, own);
        } else if let Some(origin) = self.origins.get_mut(&run) {
            *lazy_in(&mut self.shared, origin, own) |= 1 << slot;
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
        // Paths that two messages show to be shorter may be shorter by way of each other: where all shorten those of one, and it is
        // not the next one's turn already, what is left is connected.
        let is_newest = self.newest.message == Some((run, seq)) && self.newest.by == Bringer::Link(by);
        let is_everywhere = cx.now.mono.since(self.newest.at) >= cx.config.gossip_interval / 3;
        if !(own || is_newest && is_everywhere) {
            return;
        }
        let (Some(old), Some(_)) = (&self.links[by as usize], &self.links[slot as usize]) else { return };
        origin.settled = origin.seen.top();
        let lazy = lazy_in(&mut self.shared, origin, own);
        *lazy = *lazy & !(1 << slot) | 1 << by;
        if !own {
            self.newest.by = Bringer::Link(slot);
        }
        self.counts.shortcuts += 1;
        cx.out.send(old.to, &Frame::Prune { origin: run, own });
        self.grow(cx, run, slot, own);
    }

    pub(super) fn slot(&self, run: RunId) -> Option<u8> {
        self.links.iter().position(|link| link.as_ref().is_some_and(|link| link.run == run)).map(|slot| slot as u8)
    }

    pub(super) fn link(&self, run: RunId) -> Option<&Link> {
        self.links.iter().flatten().find(|link| link.run == run)
    }
}

/// Those who are lazy in the tree of one origin, or in the one that all others share.
pub(super) fn lazy_in<'a>(shared: &'a mut u16, origin: &'a mut Origin, own: bool) -> &'a mut u16 {
    if own { origin.lazy.get_or_insert(*shared) } else { shared }
}

/// Makes a link eager, and asks for nothing.
fn graft(origin: RunId, own: bool) -> Frame<'static> {
    Frame::Graft(Graft { origin, grow: true, own, here: 0, spans: Spans(&[]) })
}

pub(super) fn stream(members: &Members, run: RunId) -> Option<Destination> {
    let entry = members.get(members.find(run)?).filter(|e| e.is_live())?;
    Some(Destination { via: Via::Stream, ..entry.to() })
}
