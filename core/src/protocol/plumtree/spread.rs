//! How a message that is new here goes on. There are two ways, and this page is where they differ.
//!
//! | | `broadcast = tree` | `broadcast = rumor` |
//! |---|---|---|
//! | goes to | eager neighbours | `rumor_fanout` members by lot, in each round; where nobody lists all, neighbours that may not have it |
//! | when | at once | in rounds, a [`Rhythm`]: soon for the first time, then each `gossip_interval` |
//! | how often | once | `rumor_mult` · ⌈log10(n + 1)⌉ times; in one round only, where it was missed before; what only a link carries, no more often than there are others but its origin |
//! | by | the link with that neighbour | a datagram, where it fits; to each member `rumor_batch` in a round |
//! | announced to | lazy neighbours | nobody: what all missed is found by comparing vectors |
//! | a gap is asked for after | `gossip_flush` | two `gossip_interval`: it is on its way, most likely |
//! | too much is on its way while | a neighbour has yet to confirm it ([`flow`](super::flow)) | it was not told once |
//!
//! Rumors are as in Demers et al. (PODC 1987) and memberlist: those told least go first, and nobody says that it knows one. With
//! a table of all they need no overlay, and it sleeps. All else is the same: numbers, windows, order, verdicts, and repair.
//!
//! Members of both kinds understand each other. What comes along a tree is told on as a rumor, and a rumor is pushed along the tree.

use alloc::collections::BTreeMap;
use core::ops::Bound;

use super::links::{LINKS_MAX, lazy_in};
use super::window::Kept;
use super::{Cx, LARGE, Plumtree};
use crate::config::{Broadcast, Config, Membership};
use crate::id::RunId;
use crate::members::Members;
use crate::outbox::{Destination, Via};
use crate::rhythm::{self, Rhythm};
use crate::time::{Duration, Instant, nanos};
use crate::wire::frame::{Frame, Way};

/// Messages that may wait to be told again. Beyond it those told most give way: they are known by now, or are found by comparing.
pub const HOT_MAX: usize = 65_536;

/// What is still told.
#[derive(Debug, Default)]
pub(super) struct Rumors {
    rhythm: Rhythm,
    /// By how often it was told, and then as they came.
    hot: BTreeMap<(u32, u64), Hot>,
    turns: u64,
}

#[derive(Clone, Copy, Debug)]
struct Hot {
    id: (RunId, u64),
    /// Others have it, most likely: one round is enough.
    repair: bool,
}

/// How long a gap may be nothing but another order.
pub(super) fn patience(config: &Config) -> Duration {
    match config.broadcast {
        Broadcast::Tree => config.gossip_flush,
        Broadcast::Rumor => config.gossip_interval * 2,
    }
}

/// Who is told in a round, and which of our links leads there.
#[derive(Clone, Copy, Debug)]
struct Listener {
    to: Destination,
    slot: Option<u8>,
}

impl Rumors {
    pub fn deadline(&self) -> Option<Instant> {
        self.rhythm.deadline()
    }

    pub fn len(&self) -> usize {
        self.hot.len()
    }

    fn add(&mut self, now: Instant, config: &Config, hot: Hot) {
        if self.hot.len() == HOT_MAX {
            self.hot.pop_last();
        }
        self.put(0, hot);
        self.rhythm.quicken(now, config);
    }

    fn put(&mut self, told: u32, hot: Hot) {
        self.turns += 1;
        self.hot.insert((told, self.turns), hot);
    }
}

impl Plumtree {
    /// It is kept for those who miss it, and goes on.
    pub(super) fn pass_on(&mut self, cx: &mut Cx<'_>, run: RunId, seq: u64, way: Way, mut kept: Kept) {
        // Where it had to wait, its origin may be gone.
        let Some(origin) = self.origins.get_mut(&run) else { return };
        origin.passed += kept.body.len() as u64;
        kept.at = origin.passed;
        match cx.config.broadcast {
            Broadcast::Tree => self.push(cx, run, seq, way, &mut kept),
            Broadcast::Rumor => {
                self.rumors.add(cx.now.mono, cx.config, Hot { id: (run, seq), repair: way.repair });
            }
        }
        self.window.keep(cx.now.mono, run, seq, kept);
        self.window.trim(cx.now.mono, cx.config.broadcast_window, cx.config.broadcast_keep);
        self.stir(cx);
    }

    // --- along a tree ---

    /// To the eager neighbours at once; to the others it will be announced.
    fn push(&mut self, cx: &mut Cx<'_>, run: RunId, seq: u64, way: Way, kept: &mut Kept) {
        let (now, Way { own, repair, .. }) = (cx.now.mono, way);
        let Some(origin) = self.origins.get_mut(&run) else { return };
        if !own && !repair {
            // It has said nothing for a while, and begins anew.
            origin.lazy = None;
        }
        let lazy = *lazy_in(&mut self.shared, origin, own);
        // Whoever pushes to us while we repair has it most likely.
        let skip = kept.had | if repair { origin.via.map_or(0, |via| 1 << via) } else { 0 };
        let is_unsettled = now.since(origin.pruned) < cx.config.gossip_interval * 10;
        let eager = |slot: usize| (lazy | skip) >> slot & 1 == 0;
        if kept.body.len() > LARGE && kept.hops > 0 && is_unsettled {
            for (_, link) in self.links.iter().enumerate().filter(|&(slot, _)| eager(slot)) {
                // Ahead of the payload: whoever has yet to get it from elsewhere need not send it to us.
                link.iter().for_each(|link| cx.out.send(link.to, &Frame::Idontwant { origin: run, seq }));
            }
        }
        let mut pushed = 0;
        for (slot, link) in self.links.iter().enumerate().filter(|&(slot, _)| eager(slot)) {
            if let Some(link) = link {
                let gossip = origin.gossip(cx.config, now, (run, seq), kept, Way { lot: false, ..way });
                cx.out.send(link.to, &Frame::Gossip(gossip));
                self.counts.pushed += 1;
                pushed |= 1 << slot;
            }
        }
        kept.had |= pushed;
        let news = origin.news.get_or_insert((seq, seq));
        *news = (news.0.min(seq), news.1.max(seq));
        if *news == (seq, seq) {
            self.fresh.push(run);
        }
        if self.announce.is_none() {
            let half = cx.config.gossip_interval / 2;
            self.announce = Some(now + half + Duration::from_nanos(cx.rng.below(nanos(half) + 1)));
        }
    }

    // --- by rumors ---

    /// A round, if it is time for one.
    pub(super) fn tell_rumors(&mut self, cx: &mut Cx<'_>, members: &Members) {
        if !self.rumors.rhythm.is_due(cx.now.mono, cx.config) {
            return;
        }
        let mut told_all = self.rumors.hot.is_empty();
        if !told_all {
            let listeners = self.listeners(cx, members);
            // Who comes later compares what it has heard.
            told_all = listeners[0].is_none();
            self.counts.rounds += u64::from(!told_all);
            for Listener { to, slot } in listeners.into_iter().flatten() {
                self.tell_one(cx, members, to, slot);
            }
        }
        if told_all {
            self.rumors.hot.clear();
            self.rumors.rhythm.rest();
        }
        let me = members.local().run;
        let untold = self.rumors.hot.range(..(1, 0)).find(|(_, hot)| hot.id.0 == me);
        let kept = untold.and_then(|(_, hot)| self.window.get(me, hot.id.1));
        let passed = self.origins.get(&me).map_or(0, |origin| origin.passed);
        self.told = kept.map_or(passed, |kept| kept.at - kept.body.len() as u64);
    }

    /// By lot: of all, where there is a table of all; else of the neighbours.
    fn listeners(&self, cx: &mut Cx<'_>, members: &Members) -> [Option<Listener>; LINKS_MAX] {
        let (mut listeners, mut n) = ([None; LINKS_MAX], 0);
        let mut add = |listener| {
            listeners[n] = Some(listener);
            n += 1;
        };
        let fanout = cx.config.rumor_fanout.min(LINKS_MAX);
        match cx.config.membership {
            Membership::Full => {
                members.draw(cx.rng, fanout, |_| false, |_, e| add(Listener { to: e.to(), slot: None }));
            }
            Membership::Partial => {
                for (slot, link) in self.links.iter().enumerate() {
                    let Some(link) = link else { continue };
                    add(Listener { to: Destination { via: Via::Datagram, ..link.to }, slot: Some(slot as u8) });
                }
                cx.rng.shuffle(&mut listeners[..n]);
                listeners[fanout..].fill(None);
            }
        }
        listeners
    }

    /// What one member is told in a round.
    fn tell_one(&mut self, cx: &mut Cx<'_>, members: &Members, to: Destination, slot: Option<u8>) {
        let (me, limit) = (members.local().run, rhythm::times(cx.config.rumor_mult, members.live_len()));
        let linked = self.links.iter().enumerate().fold(0, |all, (slot, link)| all | u16::from(link.is_some()) << slot);
        let (mut at, mut bytes, last) = (Bound::Unbounded, 0, self.rumors.turns);
        while let Some((&place, &hot)) = self.rumors.hot.range((at, Bound::Unbounded)).next() {
            at = Bound::Excluded(place);
            let ((told, turn), (run, seq)) = (place, hot.id);
            if turn > last {
                continue;
            }
            let (Some(kept), Some(origin)) = (self.window.get_mut(run, seq), self.origins.get(&run)) else {
                self.rumors.hot.remove(&place);
                continue;
            };
            let bit = slot.map_or(0, |slot| 1 << slot);
            let others = members.live_len().saturating_sub(1 + usize::from(run != me));
            if to.run == Some(run) || kept.had & bit != 0 {
                kept.had |= bit;
                let all_know = if slot.is_some() { kept.had & linked == linked } else { others == 0 };
                if all_know {
                    self.rumors.hot.remove(&place);
                }
                continue;
            }
            if bytes > 0 && bytes + kept.body.len() > cx.config.rumor_batch || cx.out.is_half_full() {
                return;
            }
            bytes += kept.body.len();
            let by_link = kept.body.len() > cx.config.max_datagram;
            kept.had |= bit;
            let way = Way { repair: hot.repair, own: false, lot: true };
            cx.out.send(to, &Frame::Gossip(origin.gossip(cx.config, cx.now.mono, hot.id, kept, way)));
            self.counts.pushed += 1;
            self.rumors.hot.remove(&place);
            let most = if hot.repair { limit.min(cx.config.rumor_fanout) } else { limit };
            // A link loses nothing: among few, all were told.
            let most = if by_link { most.min(others) } else { most };
            if (told as usize) + 1 < most {
                self.rumors.put(told + 1, hot);
            }
        }
    }
}
