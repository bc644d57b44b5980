//! Those who broadcast: what we know of each, until it is gone; and what waits for its origin to be listed.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::flow::Takers;
use super::repair::Repair;
use super::seen::Seen;
use super::window::Kept;
use super::{Cx, Plumtree};
use crate::config::{Config, Membership};
use crate::id::{Epoch, NodeName, RunId};
use crate::members::Members;
use crate::message::{Body, Delivery, Manner};
use crate::outbox::Destination;
use crate::time::{Duration, Instant};
use crate::wire::frame::{Gossip, Way};

/// Messages whose origin is not listed yet: so many wait for its record, of so many bytes, for so long.
pub const WAITING_MAX: usize = 256;
const WAITING_BYTES: usize = 1 << 20;
const WAITING_TIME: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Origin {
    /// Not known yet where nobody lists it: its next GOSSIP says so.
    pub who: Option<(NodeName, Epoch)>,
    pub seen: Seen,
    /// The highest that is known to exist.
    pub top: u64,
    /// The highest that came along a tree, when, and from where.
    pub pushed: u64,
    pub pushed_at: Instant,
    pub via: Option<u8>,
    /// Its own tree: the neighbours that are lazy in it.
    pub lazy: Option<u16>,
    /// Of messages up to this one no shortcut is made any more.
    pub settled: u64,
    pub pruned: Instant,
    /// What is to be announced.
    pub news: Option<(u64, u64)>,
    /// Bytes of its messages that are not confirmed to who pushes them.
    pub unconfirmed: usize,
    /// Bytes of them that have gone on from here.
    pub passed: u64,
    pub takers: Takers,
    pub heard: Instant,
    pub repair: Option<Box<Repair>>,
}

#[derive(Debug)]
pub(super) struct Waiting {
    pub from: Destination,
    pub origin: RunId,
    pub seq: u64,
    pub hops: u32,
    pub sent: Instant,
    pub way: Way,
    pub body: Body,
    pub after: u64,
    pub until: Instant,
}

pub(super) enum Known {
    Yes,
    /// No member of that run is listed.
    Unlisted,
    Full,
}

impl Plumtree {
    /// Looks an origin up, or makes a place for it.
    pub(super) fn know(&mut self, cx: &Cx<'_>, members: &Members, run: RunId) -> Known {
        if self.origins.contains_key(&run) {
            return Known::Yes;
        }
        let who = match members.find(run).and_then(|peer| members.get(peer)) {
            Some(entry) => Some((entry.name.clone(), entry.epoch)),
            // Nobody lists all: they say who they are.
            None if cx.config.membership == Membership::Partial => None,
            None => return Known::Unlisted,
        };
        if self.origins.len() >= cx.config.max_origins {
            self.sweep(cx, members);
            if self.origins.len() >= cx.config.max_origins {
                return Known::Full;
            }
        }
        let mut origin = Origin::new(who, cx.now.mono);
        if let Some(seen) = self.past.take(run) {
            (origin.top, origin.seen) = (seen.top(), seen);
        }
        self.origins.insert(run, origin);
        self.trim_past(cx);
        Known::Yes
    }

    /// A sender's JOIN comes before its first message. `false`: it is the first that waits for that record.
    pub(super) fn wait(&mut self, now: Instant, from: Destination, gossip: &Gossip<'_>, sent: Instant) -> bool {
        let &Gossip { origin, seq, hops, way, topic, data, after, terms, .. } = gossip;
        let is_first = self.waiting.iter().all(|w| w.origin != origin);
        let waits = self.waiting.iter().any(|w| (w.origin, w.seq) == (origin, seq));
        if waits || self.past.contains(origin, seq) {
            self.counts.copies += 1;
        } else if self.waiting.len() == WAITING_MAX || self.waiting_bytes + terms.len() + data.len() > WAITING_BYTES {
            self.counts.unlisted += 1;
        } else {
            let body = Body::asking(topic, terms, data);
            self.waiting_bytes += body.len();
            let until = now + WAITING_TIME;
            self.waiting.push_back(Waiting { from, origin, seq, hops, sent, way, body, after, until });
        }
        !is_first
    }

    /// A run is listed: what waited for that is heard now.
    pub fn on_record(&mut self, cx: &mut Cx<'_>, members: &Members, run: RunId) {
        while let Some(at) = self.waiting.iter().position(|w| w.origin == run) {
            let Some(w) = self.waiting.remove(at) else { return };
            self.waiting_bytes -= w.body.len();
            if !matches!(self.know(cx, members, run), Known::Yes) {
                self.counts.refused += 1;
                continue;
            }
            let Waiting { seq, hops, sent, way, after, .. } = w;
            let (topic, terms, data) = (w.body.topic(), w.body.terms(), w.body.data());
            let gossip = Gossip { origin: run, seq, hops, age: 0, way, topic, data, after, terms, by: None };
            self.hear(cx, w.from, &gossip, sent);
        }
    }

    /// Origins that are listed no more, have long said nothing, and miss nothing any more: all that is kept of them is what was seen.
    pub(super) fn sweep(&mut self, cx: &Cx<'_>, members: &Members) {
        // Where nobody lists all, that says nothing: none goes until there is no room.
        if cx.config.membership == Membership::Partial && self.origins.len() < cx.config.max_origins {
            return;
        }
        let term = cx.config.broadcast_keep * 2;
        let is_over = |run: &RunId, origin: &Origin| {
            members.find(*run).is_none()
                && cx.now.mono.since(origin.heard) > term
                && origin.repair.is_none()
                && !self.judging.concerns_any_of(*run)
        };
        let over: Vec<RunId> = self.origins.iter().filter(|(run, o)| is_over(run, o)).map(|(&run, _)| run).collect();
        for run in over {
            let Some(origin) = self.origins.remove(&run) else { continue };
            self.window.forget(run);
            self.past.put(run, origin.seen);
        }
        self.trim_past(cx);
    }

    /// Who is here has the better right to a place.
    fn trim_past(&mut self, cx: &Cx<'_>) {
        let room = cx.config.max_origins.saturating_sub(self.origins.len());
        self.counts.forgotten += self.past.trim(room) as u64;
    }
}

impl Origin {
    pub(super) fn new(who: Option<(NodeName, Epoch)>, now: Instant) -> Origin {
        Origin {
            who,
            seen: Seen::default(),
            top: 0,
            pushed: 0,
            pushed_at: now,
            via: None,
            lazy: None,
            settled: 0,
            pruned: now,
            news: None,
            unconfirmed: 0,
            passed: 0,
            takers: None,
            heard: now,
            repair: None,
        }
    }

    /// `None` as long as nobody has said who it is.
    pub(super) fn delivery(&self, run: RunId, manner: Manner, body: &Body) -> Option<Delivery> {
        let (from, epoch) = self.who.clone()?;
        Some(Delivery { from, epoch, run, manner, body: body.clone() })
    }

    /// What rides on each of its messages where nobody lists all.
    pub(super) fn signature(&self, config: &Config) -> Option<(&str, Epoch)> {
        let (name, epoch) = self.who.as_ref().filter(|_| config.membership == Membership::Partial)?;
        Some((name, *epoch))
    }

    /// One of its messages, for somebody else.
    pub(super) fn gossip<'a>(
        &'a self,
        config: &Config,
        now: Instant,
        (origin, seq): (RunId, u64),
        kept: &'a Kept,
        way: Way,
    ) -> Gossip<'a> {
        let Kept { body, after, sent, hops, .. } = kept;
        Gossip {
            origin,
            seq,
            hops: hops + 1,
            age: now.since(*sent).as_millis() as u64,
            way,
            topic: body.topic(),
            data: body.data(),
            after: *after,
            terms: body.terms(),
            by: self.signature(config),
        }
    }
}
