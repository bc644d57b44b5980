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
//!
//! This file is a message's way through a member. Beside it: `links`, the neighbours, and who is lazy; `flow`, how much
//! they have yet to take; `spread`, how a message goes on, which may also be by rumors and along no tree; `news`,
//! announcements; `repair`, what is missing; `vectors`, comparisons; `order`, what has to wait for others;
//! `judging`, what has to wait for a verdict; `origins`, who broadcasts, and `past`, who did.

pub mod flow;
mod judging;
pub mod links;
mod news;
mod order;
mod origins;
mod past;
mod ready;
mod repair;
pub mod seen;
mod spread;
mod vectors;
pub mod window;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use self::judging::Judging;
pub use self::links::LINKS_MAX;
use self::links::{Bringer, Links, Newest};
use self::order::{Order, Topics};
pub use self::origins::WAITING_MAX;
use self::origins::{Known, Origin, Waiting};
use self::past::Past;
use self::ready::Ready;
use self::seen::Mark;
pub use self::spread::HOT_MAX;
use self::spread::{Rumors, patience};
use self::window::{Kept, Window};
use super::Cx;
use crate::id::{NodeName, RunId};
use crate::members::Members;
use crate::message::{Body, Delivery, Manner};
use crate::outbox::Destination;
use crate::time::{Duration, Instant};
use crate::wire::frame::{Gossip, Way};
use crate::wire::question::Terms;

/// Larger payloads are worth an IDONTWANT.
const LARGE: usize = 1 << 10;

/// An origin with so many messages in the window has a tree of its own. Nobody derived it.
const OWN_AFTER: u64 = 2;

/// Messages of one origin that nobody has any more, or that we could not hand out.
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
    pub rounds: u64,
    pub slow: u64,
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
    pub forgotten: u64,
    pub held: u64,
    pub overrun: u64,
    pub judged: u64,
    pub late: u64,
    pub rejected: u64,
}

#[derive(Debug)]
pub struct Plumtree {
    born: Instant,
    links: Links,
    /// Neighbours that are lazy in the shared tree.
    shared: u16,
    newest: Newest,
    origins: BTreeMap<RunId, Origin>,
    past: Past,
    topics: Topics,
    order: Order,
    judging: Judging,
    ready: Ready,
    window: Window,
    rumors: Rumors,
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
    /// Of our own messages those up to here were told to somebody (rumors), or said while nobody was there: bytes.
    told: u64,
    alone: u64,
    /// Origins that are confirmed when others have caught up, or at the latest then.
    withheld: BTreeSet<RunId>,
    relief: Option<Instant>,
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
            newest: Newest { message: None, at: born, by: Bringer::Gone },
            origins: BTreeMap::new(),
            past: Past::default(),
            topics: Topics::default(),
            order: Order::default(),
            judging: Judging::default(),
            ready: Ready::default(),
            window: Window::default(),
            rumors: Rumors::default(),
            repairs: BTreeSet::new(),
            fresh: Vec::new(),
            announce: None,
            compare: None,
            pause: Duration::ZERO,
            comparisons: 0,
            cursor: None,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            told: 0,
            alone: 0,
            withheld: BTreeSet::new(),
            relief: None,
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

    /// What an origin is called, as far as it has said so.
    pub fn name(&self, origin: RunId) -> Option<&NodeName> {
        self.origins.get(&origin)?.who.as_ref().map(|(name, _)| name)
    }

    /// Origins, those that are gone included; messages that wait for their origin's record; and those that are still told.
    pub fn load(&self) -> (usize, usize, usize) {
        (self.origins.len() + self.past.len(), self.waiting.len(), self.rumors.len())
    }

    /// Bytes of what waits for those before it.
    pub fn held_bytes(&self) -> usize {
        self.order.bytes()
    }

    /// Bytes of what waits for a verdict.
    pub fn judged_bytes(&self) -> usize {
        self.judging.bytes()
    }

    /// What is to be handed out next, to an application that has room for so many bytes.
    pub fn heard(&mut self, room: usize) -> Option<Delivery> {
        self.ready.next(room)
    }

    /// The application is done with so many bytes of it.
    pub fn consumed(&mut self, bytes: usize) {
        self.ready.consumed(bytes);
    }

    pub fn hear_ourselves(&mut self, said: Delivery) {
        self.ready.push(said);
    }

    /// Bytes of what waits for the application.
    pub fn waiting_bytes(&self) -> usize {
        self.ready.bytes()
    }

    /// The application was too slow for these.
    pub fn overrun(&mut self, max: usize) -> Vec<Lost> {
        let lost = self.ready.trim(max);
        self.counts.overrun += lost.iter().map(|lost| lost.count).sum::<u64>();
        lost
    }

    /// Says it to all. The number is its sequence.
    pub fn broadcast(&mut self, cx: &mut Cx<'_>, members: &Members, body: Body, ordered: bool) -> Delivery {
        let now = cx.now.mono;
        let me = members.local();
        let (run, who) = (me.run, (me.name.clone(), me.epoch));
        let origin = self.origins.entry(run).or_insert_with(|| Origin::new(Some(who), now));
        let seq = origin.seen.top() + 1;
        origin.seen.insert(seq);
        (origin.top, origin.heard) = (seq, now);
        let delivery = origin.delivery(run, Manner::Broadcast { seq }, &body).expect("we know who we are");
        let own = seq > OWN_AFTER && self.window.get(run, seq - OWN_AFTER).is_some();
        let after = if ordered { self.topics.say(body.topic(), seq) } else { 0 };
        let kept = Kept { body, after, sent: now, at: 0, hops: 0, by: None, had: 0 };
        if !own {
            self.newest = Newest { message: Some((run, seq)), at: now, by: Bringer::Ourselves };
        }
        self.pass_on(cx, run, seq, Way { own, ..Way::default() }, kept);
        if members.live_len() == 1 {
            self.is_alone(run);
        }
        delivery
    }

    // --- others' ---

    /// A message, by a live member. `false`: its origin is not listed, and it is kept until its record comes, which
    /// somebody has to ask for.
    pub fn on_gossip(&mut self, cx: &mut Cx<'_>, members: &Members, from: Destination, gossip: &Gossip<'_>) -> bool {
        let now = cx.now.mono;
        let sent = now - Duration::from_millis(gossip.age);
        if gossip.age > 2 * cx.config.broadcast_keep.as_millis() as u64 {
            // Nobody keeps it any more; that we had it may be forgotten, too.
            self.counts.stale += 1;
            return true;
        }
        match self.know(cx, members, gossip.origin) {
            Known::Yes => {}
            Known::Unlisted => return self.wait(now, from, gossip, sent),
            Known::Full => {
                self.counts.refused += 1;
                return true;
            }
        }
        self.hear(cx, from, gossip, sent);
        true
    }

    fn hear(&mut self, cx: &mut Cx<'_>, from: Destination, gossip: &Gossip<'_>, sent: Instant) {
        let now = cx.now.mono;
        let &Gossip { origin: run, seq, hops, way, after, .. } = gossip;
        let slot = from.run.and_then(|run| self.slot(run));
        let bit = slot.map_or(0, |slot| 1 << slot);
        // What says something about the tree.
        let along = slot.filter(|_| !way.repair && !way.lot);
        let origin = self.origins.get_mut(&run).expect("it was looked up, or made, just before");
        let said = gossip.by.and_then(|(name, epoch)| Some((NodeName::new(name).ok()?, epoch)));
        if origin.who.is_none() {
            origin.who = said;
        }
        if origin.who.is_none() {
            self.counts.unlisted += 1;
            return;
        }
        if sent < self.born && seq >= origin.seen.next() {
            // Said before we were here: so was everything before it.
            self.counts.before += 1;
            origin.top = origin.top.max(seq);
            self.skip(cx, run, seq);
            return;
        }
        let waits = after > 0 && !self.order.is_open(run, &origin.seen, after);
        // A question is passed on by all: who asks waits.
        let is_judged = self.judging.concerns(gossip.topic) && Terms::read(gossip.terms).is_err();
        let len = gossip.topic.len() + gossip.data.len();
        let is_full = waits && self.order.bytes() + len > cx.config.broadcast_window
            || is_judged && self.judging.bytes() + len > cx.config.validation_bytes;
        match if is_full && !origin.seen.contains(seq) { Mark::Full } else { origin.seen.insert(seq) } {
            Mark::New => {}
            Mark::Full => {
                self.counts.refused += 1;
                origin.top = origin.top.max(seq);
                // There is room again when a verdict comes, or what is before it: not at once.
                self.miss(cx, run, None, cx.config.gossip_interval.max(patience(cx.config)));
                return;
            }
            Mark::Known => {
                self.counts.copies += 1;
                let kept = self.window.get_mut(run, seq);
                let other =
                    kept.as_ref().is_some_and(|kept| kept.hops == 0 || kept.by.is_some_and(|by| along != Some(by)));
                kept.into_iter().for_each(|kept| kept.had |= bit);
                self.judging.note(run, seq, bit);
                // Who has missed a part was given it on request before it comes along the tree: that is no reason to cut the tree.
                let only = origin.via.is_none_or(|via| along == Some(via));
                if let Some(slot) = along.filter(|_| other || !only) {
                    self.prune(cx, run, slot, way.own);
                }
                return;
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
        origin.unconfirmed += len + 1;
        if way.repair {
            self.counts.repaired += 1;
        } else if let Some(slot) = along {
            if seq > origin.pushed {
                (origin.pushed, origin.pushed_at, origin.via) = (seq, now, Some(slot));
            }
            self.brought(cx, (run, seq), slot, way.own);
        }
        let body = Body::asking(gossip.topic, gossip.terms, gossip.data);
        let manner = match Terms::read(body.terms()) {
            Ok(question) => Manner::Query(question.query(sent)),
            Err(_) => Manner::Broadcast { seq },
        };
        let origin = self.origins.get(&run).expect("as above");
        let delivery = origin.delivery(run, manner, &body).expect("it was asked for above");
        let kept = Kept { body, after, sent, at: 0, hops, by: along, had };
        if is_judged {
            self.counts.judged += 1;
            self.order.block(run, seq);
            let until = now + cx.config.validation_timeout;
            self.judging.ask((run, seq), delivery, kept, way, until);
        } else {
            self.hand_out(run, seq, after, delivery);
            self.pass_on(cx, run, seq, way, kept);
        }
        if let Some(by) = from.run.filter(|_| way.lot && !way.repair && self.misses_any_of(run)) {
            // Whoever tells it by lot has what came before, most likely.
            self.miss(cx, run, Some((by, seq)), patience(cx.config));
        }
        self.acknowledge(cx, run, false);
        self.settle(cx, run);
    }

    /// To the application, when its turn has come.
    fn hand_out(&mut self, run: RunId, seq: u64, after: u64, delivery: Delivery) {
        let Some(origin) = self.origins.get(&run) else { return };
        self.counts.delivered += 1;
        self.order.unblock(run, seq);
        if after > 0 && !self.order.is_open(run, &origin.seen, after) {
            self.counts.held += 1;
            self.order.hold(run, seq, after, Some(delivery));
        } else {
            self.ready.push(delivery);
            self.order.release(run, &origin.seen, seq..=seq, &mut self.ready);
        }
    }

    /// It is not handed out; what comes after it may be, when its turn would have come.
    fn hold_back(&mut self, run: RunId, seq: u64, after: u64) {
        self.order.unblock(run, seq);
        let Some(origin) = self.origins.get(&run) else { return };
        if after > 0 && !self.order.is_open(run, &origin.seen, after) {
            self.order.hold(run, seq, after, None);
        } else {
            self.order.release(run, &origin.seen, seq..=seq, &mut self.ready);
        }
    }

    /// All up to `seq` is given up, or none of our business.
    fn skip(&mut self, cx: &mut Cx<'_>, run: RunId, seq: u64) {
        let Some(origin) = self.origins.get_mut(&run) else { return };
        origin.seen.skip(seq);
        self.order.release(run, &origin.seen, 0..=seq, &mut self.ready);
        self.settle(cx, run);
    }

    // --- time ---

    pub fn deadline(&self, keep: Duration) -> Option<Instant> {
        let repair = self.repairs.first().map(|&(at, _)| at);
        let waiting = self.waiting.front().map(|w| w.until);
        let (window, late, rumors) = (self.window.deadline(keep), self.judging.deadline(), self.rumors.deadline());
        let all = [repair, self.announce, self.compare, waiting, window, late, rumors, self.relief];
        all.iter().flatten().min().copied()
    }

    /// Does what is due. Called until it returns `None`: each loss.
    pub fn on_deadline(&mut self, cx: &mut Cx<'_>, members: &Members) -> Option<Lost> {
        let now = cx.now.mono;
        if self.announce.is_some_and(|at| at <= now) {
            self.announce(cx);
        }
        self.relieve_late(cx);
        self.tell_rumors(cx, members);
        self.offer_late(cx);
        while let Some(&(_, run)) = self.repairs.first().filter(|&&(at, _)| at <= now) {
            if let Some(lost) = self.ask(cx, members, run) {
                return Some(lost);
            }
        }
        self.tidy(cx);
        None
    }

    fn tidy(&mut self, cx: &Cx<'_>) {
        self.window.trim(cx.now.mono, cx.config.broadcast_window, cx.config.broadcast_keep);
        while let Some(w) = self.waiting.front().filter(|w| w.until <= cx.now.mono) {
            self.waiting_bytes -= w.body.len();
            self.counts.unlisted += 1;
            self.waiting.pop_front();
        }
    }
}
