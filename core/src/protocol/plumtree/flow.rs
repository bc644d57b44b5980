//! How much of what goes along a tree is on its way, from hop to hop, so that nobody is given more than it can take.
//!
//! Who is pushed messages confirms each 32 KiB of an origin's to whoever pushes them, and each burst of a neighbour's own to that
//! one. Whoever has pushed more than [`limit`] beyond what one of those below has confirmed does not confirm any more
//! itself; and where that is the origin, its application has to wait. So the slowest sets the pace, and nothing of what is
//! missed leaves the window.
//!
//! But not for long. Who takes longer than [`PATIENCE`] for what it was pushed is slow, and not waited for until it has caught up: what
//! it misses is repaired, or said to be gone.

use alloc::boxed::Box;

use super::links::LINKS_MAX;
use super::origins::Origin;
use super::{Cx, Plumtree};
use crate::config::{Broadcast, Config};
use crate::id::RunId;
use crate::members::Members;
use crate::time::Instant;
use crate::wire::frame::{Frame, Ihave};

/// So many gossip intervals. Nobody derived it: a process on a busy machine may not run for a good part of it.
const PATIENCE: u32 = 5;

/// A confirmation is worth so many bytes at least.
const CONFIRM_EVERY: usize = 32 << 10;

/// One of those that an origin's messages are pushed to. Positions count the bytes of that origin that have come by here.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Taker {
    /// What it has confirmed, if it ever has.
    at: Option<u64>,
    /// It was found to be behind then, and has to get as far.
    behind: Option<(Instant, u64)>,
    slow: bool,
}

pub(super) type Takers = Option<Box<[Taker; LINKS_MAX]>>;

/// Bytes that may be on their way to a neighbour: with more the links' queues would be full of them.
pub fn limit(config: &Config) -> usize {
    (config.link_queue / 4).min(config.broadcast_window / 2)
}

/// Bytes that are confirmed at once.
fn portion(config: &Config) -> usize {
    CONFIRM_EVERY.min(limit(config) / 4)
}

impl Origin {
    /// Until when those further down are waited for, if any has yet to take so much.
    fn held_up(&mut self, now: Instant, config: &Config, shared: u16, most: usize, slow: &mut u64) -> Option<Instant> {
        let lazy = self.lazy.unwrap_or(shared);
        let mut until: Option<Instant> = None;
        for (slot, taker) in self.takers.as_deref_mut()?.iter_mut().enumerate() {
            let Some(at) = taker.at.filter(|_| lazy >> slot & 1 == 0 && self.via != Some(slot as u8)) else { continue };
            let missing = self.passed.saturating_sub(at);
            if taker.slow {
                taker.slow = missing >= limit(config) as u64 / 2;
            } else if missing >= most as u64 {
                let (since, _) = *taker.behind.get_or_insert((now, self.passed));
                let patience = since + config.gossip_interval * PATIENCE;
                if now < patience {
                    until = Some(until.map_or(patience, |at| at.min(patience)));
                } else {
                    (taker.slow, taker.behind) = (true, None);
                    *slow += 1;
                }
            }
        }
        until
    }
}

impl Plumtree {
    /// Too much of ours is on its way: a neighbour has yet to confirm it, or (rumors) nobody was told it.
    pub fn is_busy(&mut self, now: Instant, config: &Config, members: &Members, most: usize) -> bool {
        let Some(origin) = self.origins.get_mut(&members.local().run) else { return false };
        if config.broadcast == Broadcast::Rumor {
            return origin.passed - self.told >= most as u64;
        }
        if self.links.iter().all(Option::is_none) {
            return origin.passed - self.alone >= most as u64;
        }
        let until = origin.held_up(now, config, self.shared, most, &mut self.counts.slow);
        self.relieve(until);
        until.is_some()
    }

    /// Nobody is there: nothing is on its way.
    pub(super) fn is_alone(&mut self, me: RunId) {
        self.alone = self.origins.get(&me).map_or(0, |origin| origin.passed);
        self.told = self.alone;
    }

    /// What we say goes to one more; what it has missed it asks for.
    pub(super) fn serve(&mut self, me: RunId, slot: usize) {
        let is_first = self.links.iter().flatten().count() == 1;
        let Some(origin) = self.origins.get_mut(&me) else { return };
        let at = Some(if is_first { self.alone } else { origin.passed });
        origin.takers.get_or_insert_default()[slot] = Taker { at, ..Taker::default() };
    }

    /// Confirms what has come of an origin, if that is enough and those further down keep pace. `all`: however little.
    pub(super) fn acknowledge(&mut self, cx: &mut Cx<'_>, run: RunId, all: bool) {
        let least = if all { 1 } else { portion(cx.config) };
        let Some(origin) = self.origins.get_mut(&run).filter(|origin| origin.unconfirmed >= least) else { return };
        let until = origin.held_up(cx.now.mono, cx.config, self.shared, limit(cx.config), &mut self.counts.slow);
        if until.is_some() {
            self.withheld.insert(run);
            return self.relieve(until);
        }
        self.withheld.remove(&run);
        let pusher = origin.via.and_then(|via| self.links[via as usize].as_ref()).filter(|link| link.run != run);
        let asked = pusher.filter(|_| !all);
        if pusher.is_none() || asked.is_some() {
            origin.unconfirmed = 0;
        }
        let (last, own) = (origin.seen.top(), origin.lazy.is_some());
        let hops = self.window.get(run, last).map_or(1, |kept| kept.hops);
        for link in self.links.iter().flatten().filter(|link| link.run == run).chain(asked) {
            cx.out.send(link.to, &Frame::Ihave(Ihave { origin: run, first: last, last, hops, own }));
        }
    }

    /// A neighbour has an origin's messages up to `last`.
    pub(super) fn on_taken(&mut self, cx: &mut Cx<'_>, members: &Members, from: RunId, run: RunId, last: u64) {
        let Some(slot) = self.slot(from) else { return };
        let Some(origin) = self.origins.get_mut(&run) else { return };
        let is_pushed = origin.lazy.unwrap_or(self.shared) >> slot & 1 == 0;
        if run != members.local().run && (!is_pushed || origin.passed < CONFIRM_EVERY as u64) {
            return;
        }
        let at = match self.window.get(run, last) {
            Some(kept) => kept.at,
            None if last > self.window.high(run) => origin.passed,
            // What it lacks is more than we keep.
            None => self.window.get(run, self.window.low(run)).map_or(origin.passed, |kept| kept.at),
        };
        let taker = &mut origin.takers.get_or_insert_default()[slot as usize];
        taker.at = taker.at.max(Some(at));
        taker.behind = taker.behind.filter(|&(_, target)| taker.at < Some(target));
        if self.withheld.contains(&run) {
            self.acknowledge(cx, run, false);
        }
    }

    /// Patience with somebody is at an end.
    pub(super) fn relieve_late(&mut self, cx: &mut Cx<'_>) {
        if self.relief.take_if(|at| *at <= cx.now.mono).is_some() {
            for run in core::mem::take(&mut self.withheld) {
                self.acknowledge(cx, run, false);
            }
        }
    }

    fn relieve(&mut self, until: Option<Instant>) {
        self.relief = self.relief.into_iter().chain(until).min();
    }
}
