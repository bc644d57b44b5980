//! What is missing, by origin: it is asked for, here and there, until it has come or is lost.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::links::{LINKS_MAX, lazy_in, stream};
use super::origins::Known;
use super::seen::Seen;
use super::spread::patience;
use super::window::Window;
use super::{Cx, Lost, Plumtree};
use crate::config::Membership;
use crate::id::RunId;
use crate::members::Members;
use crate::outbox::Destination;
use crate::time::{Duration, Instant};
use crate::wire::frame::{Frame, Graft, Ihave, SPANS_MAX, Spans, Way};

/// One GRAFT is answered by at most so many bytes; the rest is announced, and asked for when these are there.
const ANSWER_MAX: usize = 96 << 10;

/// Those who may have what is missing, of one origin.
const CLAIMS_MAX: usize = 24;

/// Something is missing.
#[derive(Debug)]
pub(super) struct Repair {
    pub at: Instant,
    /// The first that is missing, since when it has been the first, and the last that there was then.
    pub first: u64,
    pub since: Instant,
    pub last: u64,
    pub tries: u32,
    pub asked: Option<RunId>,
    /// Who has said to have one as high as this.
    pub claims: Vec<(RunId, u64)>,
    /// Who has said to have none as low as this.
    pub gone: Vec<(RunId, u64)>,
}

impl Plumtree {
    /// More of an origin may be missing: it is asked for after `wait`.
    pub(super) fn miss(&mut self, cx: &mut Cx<'_>, run: RunId, claim: Option<(RunId, u64)>, wait: Duration) {
        let Some(origin) = self.origins.get_mut(&run) else { return };
        origin.top = origin.top.max(claim.map_or(0, |(_, upto)| upto));
        if origin.seen.next() > origin.top {
            return;
        }
        let at = cx.now.mono + wait;
        let (repairs, first, last, since) = (&mut self.repairs, origin.seen.next(), origin.top, cx.now.mono);
        let repair = origin.repair.get_or_insert_with(|| {
            repairs.insert((at, run));
            Box::new(Repair { at, first, since, last, tries: 0, asked: None, claims: Vec::new(), gone: Vec::new() })
        });
        if let Some((from, upto)) = claim {
            note(&mut repair.claims, from, upto);
        }
        if at < repair.at {
            self.repairs.remove(&(repair.at, run));
            self.repairs.insert((at, run));
            repair.at = at;
        }
    }

    pub(super) fn misses_any_of(&self, run: RunId) -> bool {
        self.origins.get(&run).is_some_and(|origin| origin.seen.next() <= origin.top)
    }

    /// Something came, or does not count any more: is anything missing still?
    pub(super) fn settle(&mut self, cx: &mut Cx<'_>, run: RunId) {
        let Some(origin) = self.origins.get_mut(&run) else { return };
        if origin.seen.next() > origin.top {
            if let Some(repair) = origin.repair.take() {
                self.repairs.remove(&(repair.at, run));
            }
        } else if origin.repair.is_none() {
            self.miss(cx, run, None, patience(cx.config));
        }
    }

    /// Asks for what is missing of one origin, now that its time has come; or finds that it is lost.
    pub(super) fn ask(&mut self, cx: &mut Cx<'_>, members: &Members, run: RunId) -> Option<Lost> {
        let now = cx.now.mono;
        let origin = self.origins.get_mut(&run)?;
        let repair = origin.repair.as_mut()?;
        self.repairs.remove(&(repair.at, run));
        let first = origin.seen.next();
        if repair.first != first {
            (repair.first, repair.since, repair.last, repair.tries) = (first, now, origin.top, 0);
        }
        let gone = |run: RunId| repair.gone.iter().find(|(r, _)| *r == run).map_or(0, |&(_, upto)| upto);
        // All neighbours say so; or one does, and the others have been asked for long; or it is older than anybody keeps anything.
        let mut lost = self.links.iter().flatten().map(|link| gone(link.run)).min().unwrap_or(0);
        let waited = now.since(repair.since);
        if waited > cx.config.probe_interval * 10
            && repair.tries as usize > 2 * LINKS_MAX.min(self.links.iter().flatten().count())
        {
            lost = lost.max(repair.gone.iter().map(|&(_, upto)| upto).max().unwrap_or(0));
        }
        if waited > cx.config.broadcast_keep {
            lost = lost.max(repair.last);
        }
        let lost = lost.min(origin.top);
        if lost >= first {
            let count = origin.seen.missing(lost).map(|(first, last)| last - first + 1).sum();
            let last = origin.seen.missing(lost).last().map_or(lost, |(_, last)| last);
            self.counts.lost += count;
            repair.at = now;
            self.repairs.insert((now, run));
            self.skip(cx, run, lost);
            self.stir(cx);
            return Some(Lost { origin: run, first, last, count });
        }
        // A hole in what is being pushed: whoever pushes has it. Else who says to have it, and then everybody.
        // Where nobody pushes what is new it is no hole: the tree goes by here.
        let is_cut = origin.top > origin.pushed && now.since(origin.pushed_at) > cx.config.gossip_interval;
        let is_hole = first < origin.pushed && !is_cut;
        let pusher = origin.via.filter(|_| is_hole).and_then(|via| self.links[via as usize].as_ref());
        // The first that is missing beyond what it has no more.
        let next = |run: RunId| {
            let gone = gone(run);
            let (first, _) = origin.seen.missing(origin.top).find(|&(_, last)| last > gone)?;
            Some(first.max(gone + 1))
        };
        let has = |&&(run, upto): &&(RunId, u64)| next(run).is_some_and(|seq| seq <= upto);
        let links = self.links.iter().flatten().map(|link| link.run).filter(|&run| next(run).is_some());
        let mut candidates: [Option<RunId>; 1 + CLAIMS_MAX + LINKS_MAX] = [None; 1 + CLAIMS_MAX + LINKS_MAX];
        let mut n = 0;
        for run in pusher.map(|l| l.run).into_iter().chain(repair.claims.iter().filter(has).map(|c| c.0)).chain(links) {
            if !candidates[..n].contains(&Some(run)) && stream(members, run).is_some() {
                candidates[n] = Some(run);
                n += 1;
            }
        }
        if n == 0 && cx.config.membership == Membership::Full {
            // Who has claimed it is gone, and we have no neighbours: anybody may have it.
            members.draw(cx.rng, 1, |e| gone(e.run) >= first, |_, e| candidates[0] = Some(e.run));
            n = candidates[0].map_or(0, |_| 1);
        }
        let whom = (n > 0).then(|| candidates[repair.tries as usize % n]).flatten();
        let base = cx.config.gossip_interval.max(cx.config.gossip_flush * 2);
        // The first round asks everybody in turn; then it gets slower.
        let rounds = repair.tries.checked_div(n as u32).unwrap_or(repair.tries);
        repair.tries = repair.tries.saturating_add(1);
        repair.asked = whom;
        repair.at = now + base * (1 << rounds.min(6));
        self.repairs.insert((repair.at, run));
        let whom = whom?;
        let slot = self.links.iter().position(|l| l.as_ref().is_some_and(|l| l.run == whom));
        let grow = !is_hole && slot.is_some();
        let own = origin.lazy.is_some();
        self.scratch.clear();
        let from = next(whom).unwrap_or(first);
        for (first, last) in origin.seen.missing(origin.top).filter(|&(_, last)| last >= from).take(SPANS_MAX) {
            Spans::push(&mut self.scratch, first.max(from), last);
        }
        if let Some(slot) = slot.filter(|_| grow) {
            *lazy_in(&mut self.shared, origin, own) &= !(1 << slot);
        }
        self.counts.grafts += 1;
        // Longer than true by what a question may be on its way: what comes too much is known by its age.
        let here = (now.since(self.born) + Duration::from_secs(1)).as_millis() as u64;
        let spans = Spans(&self.scratch);
        if let Some(to) = stream(members, whom) {
            cx.out.send(to, &Frame::Graft(Graft { origin: run, grow, own, here, spans }));
        }
        None
    }

    pub fn on_graft(&mut self, cx: &mut Cx<'_>, members: &Members, from: Destination, graft: Graft<'_>) {
        let Graft { origin: run, grow, own, here, spans } = graft;
        let now = cx.now.mono;
        let slot = from.run.and_then(|run| self.slot(run));
        if let Some((_, last)) = spans.iter().last().filter(|_| run != members.local().run) {
            self.hear_of(cx, members, run, last);
        }
        let Some(origin) = self.origins.get_mut(&run) else { return };
        // Who has missed all since may not know of the tree.
        let own = own || !spans.0.is_empty() && origin.lazy.is_some();
        if let Some(slot) = slot.filter(|_| grow) {
            *lazy_in(&mut self.shared, origin, own) &= !(1 << slot);
        }
        let Some((first, _)) = spans.iter().next() else { return };
        let (before, sent) = self.window.before(run, now - Duration::from_millis(here));
        if before >= first {
            self.counts.before += 1;
            let age = now.since(sent).as_millis() as u64;
            cx.out.send(from, &Frame::Gone { origin: run, upto: before, before: true, age });
        }
        let (low, high) = (self.window.low(run).max(before + 1), self.window.high(run));
        let mut bytes = 0;
        for (first, last) in spans.iter() {
            for seq in first.max(low)..=last.min(high) {
                let Some(kept) = self.window.get_mut(run, seq) else { continue };
                if bytes > 0 && bytes + kept.body.len() > ANSWER_MAX {
                    let last = last.min(high);
                    cx.out.send(from, &Frame::Ihave(Ihave { origin: run, first: seq, last, hops: kept.hops, own }));
                    return;
                }
                bytes += kept.body.len();
                kept.had |= slot.map_or(0, |slot| 1 << slot);
                self.counts.answered += 1;
                let way = Way { repair: true, own, lot: false };
                let answer = origin.gossip(cx.config, now, (run, seq), kept, way);
                cx.out.send(from, &Frame::Gossip(answer));
            }
        }
        // After what is there, or that would count as gone.
        // What waits for a verdict may yet be had.
        let judged = self.judging.first_of(run).map_or(u64::MAX, |seq| seq - 1);
        let gone = gone(&origin.seen, &self.window, run, spans).map(|gone| gone.min(judged));
        if let Some(gone) = gone.filter(|&gone| gone > before && gone >= first) {
            self.counts.gone += 1;
            cx.out.send(from, &Frame::Gone { origin: run, upto: gone, before: false, age: 0 });
        }
    }

    /// Who asks for one knows that it was said. What is lost all look for at the same time, then, and not one after the other.
    fn hear_of(&mut self, cx: &mut Cx<'_>, members: &Members, run: RunId, seq: u64) {
        if !matches!(self.know(cx, members, run), Known::Yes) {
            return;
        }
        let origin = self.origins.get_mut(&run).expect("we know it");
        if seq > origin.top {
            origin.top = seq;
            self.miss(cx, run, None, cx.config.gossip_interval);
        }
    }

    pub fn on_gone(&mut self, cx: &mut Cx<'_>, from: RunId, run: RunId, upto: u64, before: Option<u64>) {
        let Some(origin) = self.origins.get_mut(&run) else { return };
        if let Some(age) = before {
            // Our question may have been on its way for long: it is we who know since when we are here.
            if cx.now.mono - Duration::from_millis(age) < self.born {
                let upto = upto.min(origin.top);
                self.skip(cx, run, upto);
                // It is not for us, but others who were here may have missed it.
                self.stir(cx);
            }
            return;
        } else if upto < origin.seen.next() {
            // Nothing that we miss: asked again at once it would say the same.
            return;
        } else if let Some(repair) = &mut origin.repair {
            note(&mut repair.gone, from, upto);
        }
        self.miss(cx, run, None, Duration::ZERO);
    }
}

/// Up to where all that is asked for was seen, and some of it is kept no longer. Of what we have not seen ourselves we cannot
/// say that it is gone.
fn gone(seen: &Seen, window: &Window, run: RunId, spans: Spans<'_>) -> Option<u64> {
    let (low, high) = (window.low(run), window.high(run));
    let (mut upto, mut some) = (0, false);
    for (first, last) in spans.iter() {
        let (below, above) = (last.min(low.max(1) - 1), first.max(high + 1));
        if first <= below {
            if !seen.covers(first, below) {
                break;
            }
            (upto, some) = (below, true);
        }
        for seq in first.max(low)..=last.min(high) {
            let kept = window.get(run, seq).is_some();
            if !kept && !seen.contains(seq) {
                return some.then_some(upto);
            }
            (upto, some) = (seq, some || !kept);
        }
        if above <= last {
            if !seen.covers(above, last) {
                break;
            }
            (upto, some) = (last, true);
        }
    }
    some.then_some(upto)
}

/// The highest that each has said.
fn note(said: &mut Vec<(RunId, u64)>, by: RunId, upto: u64) {
    if let Some((_, known)) = said.iter_mut().find(|(run, _)| *run == by) {
        *known = upto.max(*known);
    } else if said.len() < CLAIMS_MAX {
        said.push((by, upto));
    }
}
