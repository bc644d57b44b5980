//! Broadcasts along a tree that the messages themselves find.
//!
//! Plumtree (Leitão, Pereira, Rodrigues, SRDS 2007), over the links of an overlay. A message is pushed (GOSSIP) to *eager*
//! neighbours and announced (IHAVE) to *lazy* ones. At first all are eager. Who is given a message twice says PRUNE, and
//! that link becomes lazy on both sides: what is left is a tree. Who hears of a message that does not come asks for it
//! (GRAFT), and that link becomes eager: so the tree mends itself. A path that an announcement shows to be shorter takes
//! the place of the longer one.
//!
//! | of one message, at one member | then |
//! |---|---|
//! | missing: a later one came, or somebody has it | after `gossip_flush` one who has it is asked, and then the next |
//! | heard: delivered, once | kept in the [`window`], for those who missed it; pushed and announced |
//! | gone: out of everybody's window | said, as a [`Lost`] |
//!
//! Departures. A message is (origin, sequence), so that a gap is seen without an announcement, and announcements are ranges,
//! gathered for up to a `gossip_interval`; who has announced a message to us is not told that we have it. An origin that
//! broadcasts again and again gets a tree of its own, which begins as a copy of the one that all others share: one tree
//! for all would be twice as deep for most. Neighbours that have just met, and now and then some two members, compare how far
//! they have heard each origin (VECTOR): that finds the last message of a burst, and all that was said beyond a partition.

pub mod seen;
pub mod window;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use self::seen::{Mark, Seen};
use self::window::{Kept, Window};
use super::Cx;
use crate::id::{Epoch, NodeName, RunId};
use crate::members::Members;
use crate::message::{Body, Delivery, Manner};
use crate::outbox::{Destination, Via};
use crate::time::{Duration, Instant, nanos};
use crate::wire::frame::{Frame, Gossip, MARKS_MAX, Marks, SPANS_MAX, Spans};

/// Neighbours: a bit for each.
pub const LINKS_MAX: usize = 16;

/// Messages whose origin is not listed yet: so many wait for its record, of so many bytes, for so long.
pub const WAITING_MAX: usize = 256;
const WAITING_BYTES: usize = 1 << 20;
const WAITING_TIME: Duration = Duration::from_secs(5);

/// One GRAFT is answered by at most so many bytes; the rest is announced, and asked for when these are there.
const ANSWER_MAX: usize = 96 << 10;

/// Those who may have what is missing, of one origin.
const CLAIMS_MAX: usize = 24;

/// Larger payloads are worth an IDONTWANT.
const LARGE: usize = 1 << 10;

/// An origin with so many messages in the window has a tree of its own. Nobody derived it.
const OWN_AFTER: u64 = 2;

/// So many comparisons after the last news, at least: some ten minutes. Nobody derived it.
const COMPARISONS: u32 = 24;

/// In the shared tree a path must be shorter by so many hops to replace one (SRDS 2007 §4.2 has 7 for many senders): what is
/// shorter for one sender is longer for another.
const SHARED_THRESHOLD: u32 = 3;

/// A neighbour of the origin confirms each so many bytes, or each eighth of the window.
const CONFIRM_EVERY: usize = 32 << 10;

/// A message came.
#[derive(Debug)]
pub enum Heard {
    New(Delivery),
    /// Its origin is not listed: it is kept until its record comes, which somebody has to ask for.
    Unknown,
    Nothing,
}

/// Messages of one origin that nobody has any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    pub origin: RunId,
    pub first: u64,
    pub last: u64,
    /// So many of them: others in between were heard.
    pub count: u64,
}

/// What happened so often.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub delivered: u64,
    pub copies: u64,
    pub pushed: u64,
    pub repaired: u64,
    pub answered: u64,
    pub grafts: u64,
    pub prunes: u64,
    pub shortcuts: u64,
    pub gone: u64,
    pub lost: u64,
    pub before: u64,
    pub stale: u64,
    pub unlisted: u64,
    pub refused: u64,
    pub vectors: u64,
}

#[derive(Debug)]
struct Link {
    run: RunId,
    to: Destination,
    /// Up to which of our own messages it has said that it has them.
    confirmed: u64,
}

#[derive(Debug)]
struct Origin {
    name: NodeName,
    epoch: Epoch,
    seen: Seen,
    /// The highest that is known to exist.
    top: u64,
    /// The highest that came along a tree, and from where.
    pushed: u64,
    via: Option<u8>,
    /// Its own tree: the neighbours that are lazy in it.
    lazy: Option<u16>,
    /// Of messages up to this one no shortcut is made any more.
    settled: u64,
    pruned: Instant,
    /// What is to be announced.
    news: Option<(u64, u64)>,
    /// Bytes of its messages that are not confirmed, where it is a neighbour.
    unconfirmed: usize,
    heard: Instant,
    repair: Option<Box<Repair>>,
}

/// Something is missing.
#[derive(Debug)]
struct Repair {
    at: Instant,
    /// The first that is missing, and since when it has been the first.
    since: (u64, Instant),
    tries: u32,
    asked: Option<RunId>,
    /// Who has said to have one as high as this.
    claims: Vec<(RunId, u64)>,
    /// Who has said to have none as low as this.
    gone: Vec<(RunId, u64)>,
}

#[derive(Debug)]
struct Waiting {
    from: Destination,
    origin: RunId,
    seq: u64,
    hops: u32,
    sent: Instant,
    repair: bool,
    own: bool,
    body: Body,
    until: Instant,
}

#[derive(Debug)]
pub struct Plumtree {
    born: Instant,
    links: [Option<Link>; LINKS_MAX],
    /// Neighbours that are lazy in the shared tree.
    shared: u16,
    origins: BTreeMap<RunId, Origin>,
    window: Window,
    /// When something missing is asked for, by origin.
    repairs: BTreeSet<(Instant, RunId)>,
    /// Origins that have news to announce, and when that is done.
    fresh: Vec<RunId>,
    announce: Option<Instant>,
    /// When to compare vectors, the pause after that, and where the next vector begins.
    compare: Option<Instant>,
    pause: Duration,
    comparisons: u32,
    cursor: Option<RunId>,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    /// Our own messages that too few neighbours have confirmed: the bytes sent so far when each was.
    flight: VecDeque<(u64, u64)>,
    sent: u64,
    landed: u64,
    scratch: Vec<u8>,
    pub counts: Counts,
}

impl Plumtree {
    /// What was said before `born` is history, and none of our business.
    pub fn new(born: Instant) -> Plumtree {
        Plumtree {
            born,
            links: [const { None }; LINKS_MAX],
            shared: 0,
            origins: BTreeMap::new(),
            window: Window::default(),
            repairs: BTreeSet::new(),
            fresh: Vec::new(),
            announce: None,
            compare: None,
            pause: Duration::ZERO,
            comparisons: 0,
            cursor: None,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            flight: VecDeque::new(),
            sent: 0,
            landed: 0,
            scratch: Vec::new(),
            counts: Counts::default(),
        }
    }

    pub fn window_bytes(&self) -> usize {
        self.window.bytes()
    }

    /// How far one that we keep has come.
    pub fn hops(&self, origin: RunId, seq: u64) -> Option<u32> {
        self.window.get(origin, seq).map(|kept| kept.hops)
    }

    /// Origins, and messages that wait for their origin's record.
    pub fn load(&self) -> (usize, usize) {
        (self.origins.len(), self.waiting.len())
    }

    /// Links that are eager in the shared tree, for who looks at it from outside.
    pub fn eager(&self) -> impl Iterator<Item = RunId> {
        self.links
            .iter()
            .enumerate()
            .filter(|(slot, _)| self.shared >> slot & 1 == 0)
            .filter_map(|(_, l)| Some(l.as_ref()?.run))
    }

    // --- neighbours ---

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

    // --- our own ---

    /// Too much of ours is on its way: half of the neighbours have yet to confirm it. Slower ones are not waited for.
    pub fn is_busy(&self, most: usize) -> bool {
        self.sent - self.landed >= most as u64
    }

    /// Says it to all. The number is its sequence.
    pub fn broadcast(&mut self, cx: &mut Cx<'_>, members: &Members, body: Body) -> Delivery {
        let now = cx.now.mono;
        let me = members.local();
        let (run, name, epoch) = (me.run, me.name.clone(), me.epoch);
        let origin = self.origins.entry(run).or_insert_with(|| Origin::new(name, epoch, now));
        let seq = origin.seen.top() + 1;
        origin.seen.insert(seq);
        (origin.top, origin.heard) = (seq, now);
        let delivery = origin.delivery(run, seq, &body);
        let own = seq > OWN_AFTER && self.window.get(run, seq - OWN_AFTER).is_some();
        if members.live_len() > 1 {
            self.sent += body.len() as u64;
            self.flight.push_back((seq, self.sent));
        }
        let kept = Kept { body, sent: now, hops: 0, by: None, had: 0 };
        self.pass_on(cx, run, seq, own, false, kept);
        delivery
    }

    /// A neighbour has our own messages up to `seq`.
    fn confirm(&mut self, members: &Members, run: RunId, seq: u64) {
        if let Some(link) = self.links.iter_mut().flatten().find(|link| link.run == run) {
            link.confirmed = link.confirmed.max(seq);
            self.land(members);
        }
    }

    /// Counts what half of the eager neighbours have confirmed as landed; where all are lazy, half of these.
    fn land(&mut self, members: &Members) {
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
        while let Some(&(_, sent)) = self.flight.front().filter(|&&(seq, _)| seq <= landed) {
            self.landed = sent;
            self.flight.pop_front();
        }
    }

    // --- others' ---

    /// A message, by a live member.
    pub fn on_gossip(&mut self, cx: &mut Cx<'_>, members: &Members, from: Destination, gossip: &Gossip<'_>) -> Heard {
        let now = cx.now.mono;
        let sent = now - Duration::from_millis(gossip.age);
        if gossip.age > 2 * cx.config.broadcast_keep.as_millis() as u64 {
            // Who it was may be forgotten, and that we had it.
            self.counts.stale += 1;
            return Heard::Nothing;
        }
        match self.know(cx, members, gossip.origin) {
            Known::Yes => {}
            Known::Unlisted => return self.wait(now, from, gossip, sent),
            Known::Full => {
                self.counts.refused += 1;
                return Heard::Nothing;
            }
        }
        self.hear(cx, from, gossip, sent)
    }

    fn hear(&mut self, cx: &mut Cx<'_>, from: Destination, gossip: &Gossip<'_>, sent: Instant) -> Heard {
        let now = cx.now.mono;
        let &Gossip { origin: run, seq, hops, repair, own, .. } = gossip;
        let slot = from.run.and_then(|run| self.slot(run));
        let bit = slot.map_or(0, |slot| 1 << slot);
        let origin = self.origins.get_mut(&run).expect("it was looked up, or made, just before");
        if sent < self.born && seq >= origin.seen.next() {
            // Said before we were here: so was everything before it.
            self.counts.before += 1;
            origin.top = origin.top.max(seq);
            origin.seen.skip(seq);
            self.settle(cx, run);
            return Heard::Nothing;
        }
        match origin.seen.insert(seq) {
            Mark::New => {}
            Mark::Full => {
                self.counts.refused += 1;
                origin.top = origin.top.max(seq);
                self.miss(cx, run, None, cx.config.gossip_flush);
                return Heard::Nothing;
            }
            Mark::Known => {
                self.counts.copies += 1;
                if let Some(kept) = self.window.get_mut(run, seq) {
                    kept.had |= bit;
                }
                if let Some(slot) = slot.filter(|_| !repair) {
                    self.prune(cx, run, slot, own);
                }
                return Heard::Nothing;
            }
        }
        (origin.top, origin.heard) = (origin.top.max(seq), now);
        let mut had = bit;
        for &(claimer, upto) in origin.repair.iter().flat_map(|repair| &repair.claims) {
            if upto >= seq {
                let slot = self.links.iter().position(|l| l.as_ref().is_some_and(|l| l.run == claimer));
                had |= slot.map_or(0, |slot| 1 << slot);
            }
        }
        if repair {
            self.counts.repaired += 1;
        } else if let Some(slot) = slot {
            if seq > origin.pushed {
                (origin.pushed, origin.via) = (seq, Some(slot));
            }
            // §3.5: what came along it first makes a link eager.
            *lazy_in(&mut self.shared, origin, own) &= !bit;
        }
        // By whatever way it came: the origin waits for its neighbours.
        if let Some(link) = self.links.iter().flatten().find(|link| link.run == run) {
            origin.unconfirmed += gossip.data.len() + 1;
            if origin.unconfirmed >= CONFIRM_EVERY.min(cx.config.broadcast_window / 8) {
                origin.unconfirmed = 0;
                cx.out.send(link.to, &Frame::Ihave { origin: run, first: seq, last: seq, hops, own });
            }
        }
        let body = Body::read(gossip.topic, gossip.data);
        let delivery = origin.delivery(run, seq, &body);
        self.counts.delivered += 1;
        let kept = Kept { body, sent, hops, by: slot.filter(|_| !repair), had };
        self.pass_on(cx, run, seq, own, repair, kept);
        self.settle(cx, run);
        Heard::New(delivery)
    }

    /// Pushes a message that is new here to the eager neighbours, and keeps it to be announced to the others.
    fn pass_on(&mut self, cx: &mut Cx<'_>, run: RunId, seq: u64, own: bool, repair: bool, mut kept: Kept) {
        let now = cx.now.mono;
        let origin = self.origins.get_mut(&run).expect("it was looked up, or made, just before");
        if !own && !repair {
            // It has said nothing for a while, and begins anew.
            origin.lazy = None;
        }
        let lazy = *lazy_in(&mut self.shared, origin, own);
        // Whoever pushes to us while we repair has it most likely.
        let skip = kept.had | if repair { origin.via.map_or(0, |via| 1 << via) } else { 0 };
        let is_unsettled = now.since(origin.pruned) < cx.config.gossip_interval * 10;
        let gossip = Gossip {
            origin: run,
            seq,
            hops: kept.hops + 1,
            age: now.since(kept.sent).as_millis() as u64,
            repair,
            own,
            topic: kept.body.topic(),
            data: kept.body.data(),
        };
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
        self.window.keep(now, run, seq, kept);
        self.window.trim(now, cx.config.broadcast_window, cx.config.broadcast_keep);
        if self.announce.is_none() {
            let half = cx.config.gossip_interval / 2;
            self.announce = Some(now + half + Duration::from_nanos(cx.rng.below(nanos(half) + 1)));
        }
        self.stir(cx);
    }

    /// There is news: some others may have missed it.
    fn stir(&mut self, cx: &mut Cx<'_>) {
        let soon = cx.config.gossip_interval * 10;
        self.comparisons = COMPARISONS;
        if self.pause != soon || self.compare.is_none() {
            self.pause = soon;
            let at = cx.now.mono + soon / 2 + Duration::from_nanos(cx.rng.below(nanos(soon) + 1));
            self.compare = Some(self.compare.map_or(at, |old| old.min(at)));
        }
    }

    fn prune(&mut self, cx: &mut Cx<'_>, run: RunId, slot: u8, own: bool) {
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

    // --- announcements ---

    fn announce(&mut self, cx: &mut Cx<'_>) {
        self.announce = None;
        for run in core::mem::take(&mut self.fresh) {
            let Some(origin) = self.origins.get_mut(&run) else { continue };
            let Some((first, last)) = origin.news.take() else { continue };
            let own = origin.lazy.is_some();
            let lazy = *lazy_in(&mut self.shared, origin, own);
            if let Some(link) = self.links.iter().flatten().find(|link| link.run == run)
                && core::mem::take(&mut origin.unconfirmed) > 0
            {
                // What is left of a burst is confirmed, too.
                cx.out.send(link.to, &Frame::Ihave { origin: run, first: last, last, hops: 1, own });
            }
            let (first, last) = (first.max(self.window.low(run)), last.min(self.window.high(run)));
            for (slot, link) in self.links.iter().enumerate().filter(|&(slot, _)| lazy >> slot & 1 == 1) {
                let Some(link) = link else { continue };
                let unknown = |seq: &u64| self.window.get(run, *seq).filter(|kept| kept.had >> slot & 1 == 0);
                let mut news = (first..=last).filter(|seq| unknown(seq).is_some());
                let Some(first) = news.next() else { continue };
                let last = news.next_back().unwrap_or(first);
                let hops = unknown(&last).map_or(0, |kept| kept.hops);
                cx.out.send(link.to, &Frame::Ihave { origin: run, first, last, hops, own });
            }
        }
    }

    /// `from` has messages up to `last`, and those from `first` on are new there.
    #[allow(clippy::too_many_arguments)] // A frame's fields, not a design.
    pub fn on_ihave(
        &mut self,
        cx: &mut Cx<'_>,
        members: &Members,
        from: RunId,
        run: RunId,
        first: u64,
        last: u64,
        hops: u32,
        own: bool,
    ) {
        if run == members.local().run {
            return self.confirm(members, from, last);
        }
        if !matches!(self.know(cx, members, run), Known::Yes) {
            return;
        }
        let slot = self.slot(from);
        if let Some(slot) = slot {
            for seq in first.max(self.window.low(run))..=last.min(self.window.high(run)) {
                self.window.get_mut(run, seq).into_iter().for_each(|kept| kept.had |= 1 << slot);
            }
            self.optimise(cx, run, slot, last, hops, own);
        }
        let origin = self.origins.get_mut(&run).expect("we know it");
        let was_asked = origin.repair.as_ref().is_some_and(|repair| repair.asked == Some(from));
        let wait = if was_asked { Duration::ZERO } else { cx.config.gossip_flush };
        self.miss(cx, run, Some((from, last)), wait);
    }

    /// §3.8: it would have come sooner by way of who announces it.
    fn optimise(&mut self, cx: &mut Cx<'_>, run: RunId, slot: u8, seq: u64, hops: u32, own: bool) {
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
        cx.out.send(new.to, &Frame::Graft { origin: run, grow: true, own, here: 0, spans: Spans(&[]) });
        cx.out.send(old.to, &Frame::Prune { origin: run, own });
    }

    pub fn on_idontwant(&mut self, cx: &mut Cx<'_>, members: &Members, from: RunId, run: RunId, seq: u64) {
        if let (Some(slot), Some(kept)) = (self.slot(from), self.window.get_mut(run, seq)) {
            kept.had |= 1 << slot;
        } else if run != members.local().run && matches!(self.know(cx, members, run), Known::Yes) {
            self.miss(cx, run, Some((from, seq)), cx.config.gossip_interval);
        }
    }

    // --- repair ---

    /// More of an origin may be missing: it is asked for after `wait`.
    fn miss(&mut self, cx: &mut Cx<'_>, run: RunId, claim: Option<(RunId, u64)>, wait: Duration) {
        let Some(origin) = self.origins.get_mut(&run) else { return };
        origin.top = origin.top.max(claim.map_or(0, |(_, upto)| upto));
        if origin.seen.next() > origin.top {
            return;
        }
        let at = cx.now.mono + wait;
        let (repairs, since) = (&mut self.repairs, (origin.seen.next(), cx.now.mono));
        let repair = origin.repair.get_or_insert_with(|| {
            repairs.insert((at, run));
            Box::new(Repair { at, since, tries: 0, asked: None, claims: Vec::new(), gone: Vec::new() })
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

    /// Something came, or does not count any more: is anything missing still?
    fn settle(&mut self, cx: &mut Cx<'_>, run: RunId) {
        let Some(origin) = self.origins.get_mut(&run) else { return };
        if origin.seen.next() > origin.top {
            if let Some(repair) = origin.repair.take() {
                self.repairs.remove(&(repair.at, run));
            }
        } else if origin.repair.is_none() {
            self.miss(cx, run, None, cx.config.gossip_flush);
        }
    }

    /// Asks for what is missing of one origin, now that its time has come; or finds that it is lost.
    fn ask(&mut self, cx: &mut Cx<'_>, members: &Members, run: RunId) -> Option<Lost> {
        let now = cx.now.mono;
        let origin = self.origins.get_mut(&run)?;
        let repair = origin.repair.as_mut()?;
        self.repairs.remove(&(repair.at, run));
        let first = origin.seen.next();
        if repair.since.0 != first {
            (repair.since, repair.tries) = ((first, now), 0);
        }
        let gone = |run: RunId| repair.gone.iter().find(|(r, _)| *r == run).map_or(0, |&(_, upto)| upto);
        // All neighbours say so; or one does, and the others have been asked for long; or it is older than anybody keeps anything.
        let mut lost = self.links.iter().flatten().map(|link| gone(link.run)).min().unwrap_or(0);
        let waited = now.since(repair.since.1);
        if waited > cx.config.probe_interval * 10
            && repair.tries as usize > 2 * LINKS_MAX.min(self.links.iter().flatten().count())
        {
            lost = lost.max(repair.gone.iter().map(|&(_, upto)| upto).max().unwrap_or(0));
        }
        if waited > cx.config.broadcast_keep {
            lost = lost.max(origin.seen.missing(origin.top).next().map_or(0, |(_, last)| last));
        }
        let lost = lost.min(origin.top);
        if lost >= first {
            let count = origin.seen.missing(lost).map(|(first, last)| last - first + 1).sum();
            let last = origin.seen.missing(lost).last().map_or(lost, |(_, last)| last);
            origin.seen.skip(lost);
            self.counts.lost += count;
            repair.at = now;
            self.repairs.insert((now, run));
            self.settle(cx, run);
            self.stir(cx);
            return Some(Lost { origin: run, first, last, count });
        }
        // A hole in what is being pushed: whoever pushes has it. Else who says to have it, and then everybody.
        let is_hole = first < origin.pushed;
        let pusher = origin.via.filter(|_| is_hole).and_then(|via| self.links[via as usize].as_ref());
        let has = |&&(run, upto): &&(RunId, u64)| upto >= first && gone(run) < first;
        let links = self.links.iter().flatten().map(|link| link.run).filter(|&run| gone(run) < first);
        let mut candidates: [Option<RunId>; 1 + CLAIMS_MAX + LINKS_MAX] = [None; 1 + CLAIMS_MAX + LINKS_MAX];
        let mut n = 0;
        for run in pusher.map(|l| l.run).into_iter().chain(repair.claims.iter().filter(has).map(|c| c.0)).chain(links) {
            if !candidates[..n].contains(&Some(run)) && stream(members, run).is_some() {
                candidates[n] = Some(run);
                n += 1;
            }
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
        for (first, last) in origin.seen.missing(origin.top).take(SPANS_MAX) {
            Spans::push(&mut self.scratch, first, last);
        }
        if let Some(slot) = slot.filter(|_| grow) {
            *lazy_in(&mut self.shared, origin, own) &= !(1 << slot);
        }
        self.counts.grafts += 1;
        // Longer than true by what a question may be on its way: what comes too much is known by its age.
        let here = (now.since(self.born) + Duration::from_secs(1)).as_millis() as u64;
        let spans = Spans(&self.scratch);
        if let Some(to) = stream(members, whom) {
            cx.out.send(to, &Frame::Graft { origin: run, grow, own, here, spans });
        }
        None
    }

    #[allow(clippy::too_many_arguments)] // A frame's fields, not a design.
    pub fn on_graft(
        &mut self,
        cx: &mut Cx<'_>,
        from: Destination,
        run: RunId,
        grow: bool,
        own: bool,
        here: u64,
        spans: Spans<'_>,
    ) {
        let now = cx.now.mono;
        let slot = from.run.and_then(|run| self.slot(run));
        let Some(origin) = self.origins.get_mut(&run) else { return };
        // Who has missed all since may not know of the tree.
        let own = own || origin.lazy.is_some();
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
                    cx.out.send(from, &Frame::Ihave { origin: run, first: seq, last, hops: kept.hops, own });
                    return;
                }
                bytes += kept.body.len();
                kept.had |= slot.map_or(0, |slot| 1 << slot);
                self.counts.answered += 1;
                let age = now.since(kept.sent).as_millis() as u64;
                let (topic, data) = (kept.body.topic(), kept.body.data());
                let hops = kept.hops + 1;
                let answer = Gossip { origin: run, seq, hops, age, repair: true, own, topic, data };
                cx.out.send(from, &Frame::Gossip(answer));
            }
        }
        // After what is there, or that would count as gone.
        if let Some(gone) = gone(&origin.seen, &self.window, run, spans).filter(|&gone| gone > before) {
            self.counts.gone += 1;
            cx.out.send(from, &Frame::Gone { origin: run, upto: gone, before: false, age: 0 });
        }
    }

    pub fn on_gone(&mut self, cx: &mut Cx<'_>, from: RunId, run: RunId, upto: u64, before: Option<u64>) {
        let Some(origin) = self.origins.get_mut(&run) else { return };
        if let Some(age) = before {
            // Our question may have been on its way for long: it is we who know since when we are here.
            if cx.now.mono - Duration::from_millis(age) < self.born {
                origin.seen.skip(upto.min(origin.top));
                self.settle(cx, run);
            }
            return;
        } else if let Some(repair) = &mut origin.repair {
            note(&mut repair.gone, from, upto);
        }
        self.miss(cx, run, None, Duration::ZERO);
    }

    // --- vectors ---

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
        for (run, seq) in marks.iter() {
            if run == members.local().run {
                self.confirm(members, by, seq);
            } else if matches!(self.know(cx, members, run), Known::Yes) {
                self.miss(cx, run, Some((by, seq)), cx.config.gossip_flush);
            }
        }
        if ask {
            self.tell(cx, from, false, false);
        }
    }

    // --- origins ---

    /// Looks an origin up, or makes a place for it.
    fn know(&mut self, cx: &Cx<'_>, members: &Members, run: RunId) -> Known {
        if self.origins.contains_key(&run) {
            return Known::Yes;
        }
        let Some(entry) = members.find(run).and_then(|peer| members.get(peer)) else { return Known::Unlisted };
        if self.origins.len() >= cx.config.max_origins {
            self.sweep(cx, members);
            if self.origins.len() >= cx.config.max_origins {
                return Known::Full;
            }
        }
        self.origins.insert(run, Origin::new(entry.name.clone(), entry.epoch, cx.now.mono));
        Known::Yes
    }

    /// A sender's JOIN comes before its first message.
    fn wait(&mut self, now: Instant, from: Destination, gossip: &Gossip<'_>, sent: Instant) -> Heard {
        let &Gossip { origin, seq, hops, repair, own, topic, data, .. } = gossip;
        let is_first = self.waiting.iter().all(|w| w.origin != origin);
        let waits = self.waiting.iter().any(|w| (w.origin, w.seq) == (origin, seq));
        if waits {
            self.counts.copies += 1;
        } else if self.waiting.len() == WAITING_MAX || self.waiting_bytes + data.len() > WAITING_BYTES {
            self.counts.unlisted += 1;
        } else {
            let body = Body::read(topic, data);
            self.waiting_bytes += body.len();
            let until = now + WAITING_TIME;
            self.waiting.push_back(Waiting { from, origin, seq, hops, sent, repair, own, body, until });
        }
        if is_first { Heard::Unknown } else { Heard::Nothing }
    }

    /// A run is listed: what waited for that is heard now.
    pub fn on_record(&mut self, cx: &mut Cx<'_>, members: &Members, run: RunId, mut each: impl FnMut(Delivery)) {
        while let Some(at) = self.waiting.iter().position(|w| w.origin == run) {
            let Some(w) = self.waiting.remove(at) else { return };
            self.waiting_bytes -= w.body.len();
            if !matches!(self.know(cx, members, run), Known::Yes) {
                self.counts.refused += 1;
                continue;
            }
            let Waiting { seq, hops, sent, repair, own, .. } = w;
            let (topic, data) = (w.body.topic(), w.body.data());
            let gossip = Gossip { origin: run, seq, hops, age: 0, repair, own, topic, data };
            if let Heard::New(delivery) = self.hear(cx, w.from, &gossip, sent) {
                each(delivery);
            }
        }
    }

    /// Forgets origins that are listed no more, when all that they said is too old to be heard again.
    fn sweep(&mut self, cx: &Cx<'_>, members: &Members) {
        let term = cx.config.broadcast_keep * 2;
        let is_over =
            |run: &RunId, origin: &Origin| members.find(*run).is_none() && cx.now.mono.since(origin.heard) > term;
        let over: Vec<RunId> = self.origins.iter().filter(|(run, o)| is_over(run, o)).map(|(&run, _)| run).collect();
        for run in over {
            if let Some(repair) = self.origins.remove(&run).and_then(|origin| origin.repair) {
                self.repairs.remove(&(repair.at, run));
            }
            self.window.forget(run);
        }
    }

    fn tidy(&mut self, cx: &Cx<'_>) {
        self.window.trim(cx.now.mono, cx.config.broadcast_window, cx.config.broadcast_keep);
        while let Some(w) = self.waiting.front().filter(|w| w.until <= cx.now.mono) {
            self.waiting_bytes -= w.body.len();
            self.counts.unlisted += 1;
            self.waiting.pop_front();
        }
    }

    // --- time ---

    pub fn deadline(&self, keep: Duration) -> Option<Instant> {
        let repair = self.repairs.first().map(|&(at, _)| at);
        let waiting = self.waiting.front().map(|w| w.until);
        [repair, self.announce, self.compare, waiting, self.window.deadline(keep)].into_iter().flatten().min()
    }

    /// Does what is due. Called until it returns `None`: each loss.
    pub fn on_deadline(&mut self, cx: &mut Cx<'_>, members: &Members) -> Option<Lost> {
        let now = cx.now.mono;
        if self.announce.is_some_and(|at| at <= now) {
            self.announce(cx);
        }
        while let Some(&(_, run)) = self.repairs.first().filter(|&&(at, _)| at <= now) {
            if let Some(lost) = self.ask(cx, members, run) {
                return Some(lost);
            }
        }
        self.tidy(cx);
        None
    }

    // --- small things ---

    fn slot(&self, run: RunId) -> Option<u8> {
        self.links.iter().position(|link| link.as_ref().is_some_and(|link| link.run == run)).map(|slot| slot as u8)
    }

    fn link(&self, run: RunId) -> Option<&Link> {
        self.links.iter().flatten().find(|link| link.run == run)
    }

    fn lazy(&self, run: RunId, own: bool) -> u16 {
        self.origins.get(&run).and_then(|origin| origin.lazy).filter(|_| own).unwrap_or(self.shared)
    }
}

enum Known {
    Yes,
    /// No member of that run is listed.
    Unlisted,
    Full,
}

impl Origin {
    fn new(name: NodeName, epoch: Epoch, now: Instant) -> Origin {
        Origin {
            name,
            epoch,
            seen: Seen::default(),
            top: 0,
            pushed: 0,
            via: None,
            lazy: None,
            settled: 0,
            pruned: now,
            news: None,
            unconfirmed: 0,
            heard: now,
            repair: None,
        }
    }

    fn delivery(&self, run: RunId, seq: u64, body: &Body) -> Delivery {
        Delivery {
            from: self.name.clone(),
            epoch: self.epoch,
            run,
            manner: Manner::Broadcast { seq },
            body: body.clone(),
        }
    }
}

/// Those who are lazy in the tree of one origin, or in the one that all others share.
fn lazy_in<'a>(shared: &'a mut u16, origin: &'a mut Origin, own: bool) -> &'a mut u16 {
    if own { origin.lazy.get_or_insert(*shared) } else { shared }
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

fn stream(members: &Members, run: RunId) -> Option<Destination> {
    let entry = members.get(members.find(run)?).filter(|e| e.is_live())?;
    Some(Destination { via: Via::Stream, ..entry.to() })
}

/// The highest that each has said.
fn note(said: &mut Vec<(RunId, u64)>, by: RunId, upto: u64) {
    if let Some((_, known)) = said.iter_mut().find(|(run, _)| *run == by) {
        *known = upto.max(*known);
    } else if said.len() < CLAIMS_MAX {
        said.push((by, upto));
    }
}
