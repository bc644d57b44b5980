//! Heartbeats by gossip, and who has been silent for too long.
//!
//! van Renesse, Minsky, Hayden 1998 ("A Gossip-Style Failure Detection Service"): each member counts. Once a
//! `probe_interval` it raises its own count and tells `gossip_fanout` others, by lot, the counts that it knows. A count that
//! is higher than the one known is a heartbeat of that member, whoever told it.
//!
//! ```text
//!            HEARTBEATS: our count, then those that rose most recently, as many as fit in one datagram
//!   us ────────────────────────────► 3 others, once a period
//!   them ──► a count rose: a sample for its member, and its silence begins anew      any packet from itself: the latter only
//!            φ of the silence reaches the threshold: suspected, and what follows from that is not decided here
//! ```
//!
//! Departure from that paper, where the whole list goes out: what one period costs has a bound, so counts of the
//! members that rose longest ago wait for the next one, as in Scuttlebutt. Some 110 fit; with several hundred members each
//! still hears of each other one every few periods, and the detector learns that this is what its intervals are.
//!
//! A member that has another detector beats along while some have this one: `idle` says how long ago one of them was
//! heard of, and after [`IDLE_MAX`] periods without them nobody beats any more.

use alloc::vec::Vec;

use super::{Arrivals, Limit, Premises};
use crate::config::{Config, Detector, Milli};
use crate::id::{Peer, RunId};
use crate::members::Members;
use crate::protocol::Cx;
use crate::rng::mix;
use crate::time::{Duration, Instant, nanos};
use crate::wire::envelope::OVERHEAD;
use crate::wire::frame::{Beats, Frame};

/// Periods without a member that watches after which the others stop. Longer than its own news may take to get here.
const IDLE_MAX: u32 = 16;

/// Beats leave at one of so many moments of a period, which the run decides: nodes of one machine wake together.
const GRID: u64 = 16;

/// What HEARTBEATS needs beside its counts, and room for news that rides on it: above all, what its receiver is accused of.
const ROOM: usize = 32 + 128;

/// The largest count: run and varint.
const BEAT_MAX: usize = 8 + 10;

#[derive(Debug)]
pub struct Heartbeats {
    count: u64,
    /// When it was last raised.
    at: Instant,
    /// When a member that watches was last known to be there. We may be one.
    watched: Option<Instant>,
    /// By slot of the member table. Empty while nobody beats.
    watches: Vec<Option<Watch>>,
    /// What the table of live members was when `watches` last followed it.
    followed: u64,
    /// Orders the rises of counts.
    rises: u64,
    /// No deadline lies before that.
    check: Option<Instant>,
    /// Time that we lost and did not give back yet.
    lost: Duration,
    terms: Terms,
    /// Kept between uses: (rise, slot) of each count, and the counts of one frame.
    order: Vec<(u64, u32)>,
    beats: Vec<u8>,
}

#[derive(Debug)]
struct Watch {
    peer: Peer,
    run: RunId,
    count: u64,
    /// The number of its last rise; 0 before the first.
    rise: u64,
    arrivals: Arrivals,
    /// When it is silent for too long. `None`: it was said already.
    deadline: Option<Instant>,
}

/// What the options say, worked out once for each value of theirs.
#[derive(Clone, Copy, Debug)]
struct Terms {
    premises: Premises,
    threshold: Milli,
    limit: Limit,
}

impl Terms {
    fn new(config: &Config) -> Terms {
        let (premises, threshold) = (premises(config), config.phi_threshold);
        Terms { premises, threshold, limit: Limit::new(premises.model, f64::from(threshold.0) / 1000.0) }
    }
}

impl Heartbeats {
    pub fn new(config: &Config, now: Instant) -> Heartbeats {
        Heartbeats {
            count: 0,
            at: now,
            watched: None,
            watches: Vec::new(),
            followed: 0,
            rises: 0,
            check: None,
            lost: Duration::ZERO,
            terms: Terms::new(config),
            order: Vec::new(),
            beats: Vec::new(),
        }
    }

    /// The longest silence of somebody of whom nothing is known yet.
    pub fn patience(&self, config: &Config) -> Duration {
        if config.detector != Detector::Phi {
            return Duration::ZERO;
        }
        Arrivals::new(Instant::ZERO, &self.terms.premises).deadline(self.terms.limit).since(Instant::ZERO)
    }

    /// We lost `lost` while heartbeats may have come: it is no silence of theirs.
    pub fn give_back(&mut self, lost: Duration) {
        self.lost += lost;
    }

    pub fn deadline(&self, config: &Config, members: &Members, now: Instant) -> Option<Instant> {
        if members.live_len() < 2 || !self.beats(config, now) {
            return None;
        }
        let next = self.next(config, members);
        let due = self.check.filter(|_| config.detector == Detector::Phi).map_or(next, |at| at.min(next));
        // Who begins to beat only now is not late, however long ago the last beat was.
        Some(due.max(now))
    }

    /// Call until it returns `None`. A peer that it returns has been silent for longer than the threshold allows.
    pub fn on_deadline(&mut self, cx: &mut Cx<'_>, members: &Members) -> Option<Peer> {
        let now = cx.now.mono;
        if members.live_len() < 2 || !self.beats(cx.config, now) {
            self.watches = Vec::new();
            self.followed = 0;
            self.check = None;
            self.lost = Duration::ZERO;
            return None;
        }
        self.heed(cx.config, now);
        if self.next(cx.config, members) <= now {
            self.beat(cx, members);
        }
        self.overdue(cx.config, now)
    }

    /// A member told what it knows. `idle`: milliseconds since it knew of a member that watches.
    pub fn on_idle(&mut self, now: Instant, idle: u64) {
        let then = now - Duration::from_millis(idle);
        self.watched = Some(self.watched.map_or(then, |at| at.max(then)));
    }

    /// A count of a live member, which is not us. Whether it was news.
    pub fn on_count(&mut self, now: Instant, peer: Peer, run: RunId, count: u64) -> bool {
        let Terms { premises, limit, .. } = self.terms;
        let rise = self.rises + 1;
        let watch = self.watch(now, peer, run);
        if count <= watch.count {
            return false;
        }
        watch.count = count;
        watch.rise = rise;
        watch.arrivals.arrive(now, &premises);
        let deadline = watch.arrivals.deadline(limit);
        watch.deadline = Some(deadline);
        self.rises = rise;
        self.expect(deadline);
        true
    }

    /// A sign of life from itself that is no heartbeat.
    pub fn on_life(&mut self, now: Instant, peer: Peer) {
        let limit = self.terms.limit;
        let watch = self.watches.get_mut(peer.slot as usize).and_then(Option::as_mut).filter(|w| w.peer == peer);
        if let Some(watch) = watch {
            watch.arrivals.live(now);
            let deadline = watch.arrivals.deadline(limit);
            watch.deadline = Some(deadline);
            self.expect(deadline);
        }
    }

    /// Its silence is no longer than the threshold allows.
    pub fn is_heard(&self, now: Instant, peer: Peer) -> bool {
        let watch = self.watches.get(peer.slot as usize).and_then(Option::as_ref).filter(|w| w.peer == peer);
        watch.and_then(|w| w.deadline).is_some_and(|at| now < at)
    }

    /// Of one whom we watch.
    pub fn phi(&self, now: Instant, peer: Peer) -> Option<f64> {
        let watch = self.watches.get(peer.slot as usize)?.as_ref().filter(|w| w.peer == peer)?;
        Some(watch.arrivals.phi(now, self.terms.premises.model))
    }

    /// Whether counts are raised and told.
    fn beats(&self, config: &Config, now: Instant) -> bool {
        let most = config.probe_interval * IDLE_MAX;
        config.detector == Detector::Phi || self.watched.is_some_and(|at| now.since(at) < most)
    }

    fn next(&self, config: &Config, members: &Members) -> Instant {
        let period = nanos(config.probe_interval).max(1);
        let phase = mix(members.local().run.get()) % GRID * (period / GRID);
        let rounds = self.at.as_nanos().saturating_sub(phase) / period;
        Instant::from_nanos(phase.saturating_add((rounds + 1).saturating_mul(period)))
    }

    fn expect(&mut self, deadline: Instant) {
        self.check = Some(self.check.map_or(deadline, |at| at.min(deadline)));
    }

    /// What came to be since the last time: a changed option, time that we lost.
    fn heed(&mut self, config: &Config, now: Instant) {
        let changed = self.terms.premises != premises(config) || self.terms.threshold != config.phi_threshold;
        if !changed && self.lost.is_zero() {
            return;
        }
        if changed {
            self.terms = Terms::new(config);
        }
        let (lost, limit) = (core::mem::take(&mut self.lost), self.terms.limit);
        for watch in self.watches.iter_mut().flatten() {
            watch.arrivals.give_back(lost, now);
            watch.deadline = watch.deadline.map(|_| watch.arrivals.deadline(limit));
        }
        self.check = Some(now);
    }

    /// Raises our count, and tells some.
    fn beat(&mut self, cx: &mut Cx<'_>, members: &Members) {
        let now = cx.now.mono;
        self.count += 1;
        self.at = now;
        self.follow(now, members);
        let idle = match cx.config.detector {
            Detector::Phi => Duration::ZERO,
            // However long packets take, what they tell grows old on the way: else we would keep each other beating.
            Detector::Swim => self.watched.map_or(Duration::ZERO, |at| now.since(at)) + cx.config.probe_interval / 16,
        };
        self.collect(cx.config, members.local().run);
        let frame = Frame::Heartbeats {
            idle: idle.as_millis() as u64,
            fingerprint: members.fingerprint(),
            beats: Beats(&self.beats),
        };
        let (rng, out) = (&mut *cx.rng, &mut *cx.out);
        members.draw(rng, cx.config.gossip_fanout, |_| false, |_, e| out.send(e.to(), &frame));
    }

    /// Our count, and those that rose most recently.
    fn collect(&mut self, config: &Config, me: RunId) {
        self.order.clear();
        let known = self.watches.iter().enumerate().filter_map(|(slot, w)| Some((slot, w.as_ref()?)));
        self.order.extend(known.filter(|(_, w)| w.rise > 0).map(|(slot, w)| (w.rise, slot as u32)));
        self.order.sort_unstable_by(|a, b| b.cmp(a));
        self.beats.clear();
        Beats::push(&mut self.beats, me, self.count);
        let most = config.max_datagram.saturating_sub(OVERHEAD + ROOM + BEAT_MAX);
        for &(_, slot) in &self.order {
            let Some(watch) = &self.watches[slot as usize] else { continue };
            if self.beats.len() > most {
                return;
            }
            Beats::push(&mut self.beats, watch.run, watch.count);
        }
    }

    /// Watches whom the table lists as live, and nobody else.
    fn follow(&mut self, now: Instant, members: &Members) {
        if self.followed == members.fingerprint() {
            return;
        }
        self.followed = members.fingerprint();
        for watch in &mut self.watches {
            let listed = |w: &Watch| members.get(w.peer).is_some_and(|e| e.is_live() && e.run == w.run);
            if watch.as_ref().is_some_and(|w| !listed(w)) {
                *watch = None;
            }
        }
        for (peer, entry) in members.live().filter(|(peer, _)| *peer != members.me()) {
            self.watch(now, peer, entry.run);
        }
        self.check = Some(now);
    }

    /// The watch over that run of that member. One over an earlier tenant of the slot, or an earlier run, ends.
    fn watch(&mut self, now: Instant, peer: Peer, run: RunId) -> &mut Watch {
        let slot = peer.slot as usize;
        if self.watches.len() <= slot {
            self.watches.resize_with(slot + 1, || None);
        }
        let Terms { premises, limit, .. } = &self.terms;
        let watch = &mut self.watches[slot];
        if watch.as_ref().is_some_and(|w| w.peer != peer || w.run != run) {
            *watch = None;
        }
        watch.get_or_insert_with(|| {
            let arrivals = Arrivals::new(now, premises);
            let deadline = Some(arrivals.deadline(*limit));
            Watch { peer, run, count: 0, rise: 0, arrivals, deadline }
        })
    }

    fn overdue(&mut self, config: &Config, now: Instant) -> Option<Peer> {
        if config.detector != Detector::Phi || self.check.is_none_or(|at| now < at) {
            return None;
        }
        let silent = self.watches.iter_mut().flatten().find(|w| w.deadline.is_some_and(|at| at <= now));
        if let Some(watch) = silent {
            watch.deadline = None;
            return Some(watch.peer);
        }
        self.check = self.watches.iter().flatten().filter_map(|w| w.deadline).min();
        None
    }
}

/// Who beats along for others learns nothing.
fn premises(config: &Config) -> Premises {
    let premises = Premises::of(config);
    match config.detector {
        Detector::Phi => premises,
        Detector::Swim => Premises { window: 0, ..premises },
    }
}
