//! What time brings.

use super::mutant::Mutant;
use super::{Engine, Life, cx};
use crate::id::{Peer, RunId};
use crate::members::Entry;
use crate::outbox::{Destination, Outbox, Via};
use crate::protocol::Cx;
use crate::protocol::antientropy::Due;
use crate::protocol::contact::Say;
use crate::protocol::doubt::Due as Doubted;
use crate::protocol::rumor::{Aspect, Rumor, Told};
use crate::protocol::suspicion::Unrefuted;
use crate::time::{Duration, Instant, Now};
use crate::view::{Event, EventKind, MemberState};
use crate::wire::frame::Frame;
use crate::wire::{PROTOCOL_MAX, PROTOCOL_MIN};

/// The newly dead that are still told the news; of more than that, the latest.
pub(super) const GRAVES_MAX: usize = 64;

/// Entries are looked through for forgettable ones no more often than this.
const FORGET_EVERY: Duration = Duration::from_millis(500);

impl Engine {
    pub(super) fn tick(&mut self, now: Now, out: &mut Outbox) {
        if matches!(self.life, Life::Leaving { .. }) {
            return self.farewell(now, out);
        }
        self.own_up(now);
        while let Some(peer) = self.probe.on_deadline(cx!(self, now, out), &self.members) {
            self.on_silence(now, peer, out);
        }
        if self.probe.is_failing(now.mono, &self.config) {
            self.damping.on_failing(now.mono, &self.config);
        }
        while let Some(peer) = self.heartbeats.on_deadline(cx!(self, now, out), &self.members) {
            self.counters.silent += 1;
            self.suspect(now, peer, out);
            self.call_upon(now, peer, out);
        }
        while let Some(due) = self.doubts.on_deadline(now.mono) {
            match due {
                Doubted::Ask(peer) => self.ask(now, peer, out),
                Doubted::Suspect(peer) => {
                    self.suspect(now, peer, out);
                    self.doubts.end(peer);
                }
            }
        }
        let pace = self.pace();
        let heard = self.hearing.tick(now.mono, pace);
        while let Some(Unrefuted { peer, declared }) = self.suspicions.on_deadline(heard) {
            match self.watches() && !declared && self.heartbeats.is_heard(now.mono, peer) {
                // It is there, and does not know what is said of it.
                true => self.adjourn(now, peer, out),
                false => self.declare_dead(now, peer, out),
            }
        }
        match self.antientropy.on_deadline(cx!(self, now, out), &self.members) {
            Some(Due::Compare) => self.compare(now, out),
            Some(Due::Exchange) => {
                if let Some(with) = self.draw_one() {
                    self.exchange(now, with, out);
                }
            }
            None => {}
        }
        self.broadcast_tick(now, out);
        self.membership_tick(now, out);
        self.contact_tick(now, out);
        self.direct_tick(now, out);
        self.query_tick(now, out);
        self.stream_tick(now, out);
        self.forget(now, out);
        self.settle(now, out);
    }

    /// What every turn ends with: news that is due leaves, and rides on what is leaving anyway.
    pub(super) fn finish(&mut self, now: Now, out: &mut Outbox) {
        self.antientropy.watch(cx!(self, now, out), &self.members);
        self.lane_tick(now, out);
        self.tell_of_us(now, out);
        let piggyback = out.ridden..out.len();
        let silent = matches!(self.life, Life::Silent);
        if !silent && self.rumors.is_due(now.mono, &self.config) {
            self.gossip(now, out);
        }
        for i in piggyback {
            self.ride_along(now, i, out);
        }
        out.ridden = out.len();
        self.counters.outbox_dropped += out.dropped;
        self.counters.rumors_waiting = self.rumors.len() as u64;
        self.counters.streams = self.streams.len() as u64;
        self.counters.stream_bytes_waiting = self.lanes.streaming() as u64;
        self.counters.health = self.probe.health().into();
        self.end_of_broadcasts(now, out);
        if matches!(self.life, Life::Leaving { .. }) && self.farewell_is_over(now) {
            self.end_farewell(out);
        }
    }

    /// One datagram of news to each of `gossip_fanout` members.
    fn gossip(&mut self, now: Now, out: &mut Outbox) {
        let mut to = [None; crate::members::DRAW_MAX];
        let mut n = 0;
        self.members.draw(
            &mut self.rng,
            self.config.gossip_fanout,
            |_| false,
            |_, e| {
                to[n] = Some(e.to());
                n += 1;
            },
        );
        to[n] = self.visit_grave(now);
        for to in to.into_iter().flatten() {
            if !self.rumors.may_spend(now.mono, &self.config, self.config.max_datagram) {
                self.counters.gossip_over_budget += 1;
                return;
            }
            let Some(i) = out.add(to) else { return };
            self.ride_along(now, i, out);
            if out.is_blank(i) {
                out.remove_last();
                continue;
            }
        }
    }

    pub(super) fn bury(&mut self, now: Now, peer: Peer) {
        if self.graves.len() == GRAVES_MAX {
            self.graves.pop_front();
        }
        self.graves.push_back((now.mono, peer));
    }

    /// One of the newly dead, by lot: if it lives, it hears what is said of it, and refutes.
    fn visit_grave(&mut self, now: Now) -> Option<Destination> {
        let term = self.config.gossip_to_dead;
        while self.graves.front().is_some_and(|&(since, _)| now.mono.since(since) >= term) {
            self.graves.pop_front();
        }
        let (_, peer) = *self.graves.get(self.rng.index(self.graves.len()))?;
        self.members.get(peer).filter(|e| e.status == MemberState::Dead).map(|e| e.to())
    }

    /// Fills what room a packet has left with news: first what its receiver is accused of, so that it can
    /// refute at once (Lifeguard §IV-C, the buddy system), then what was told least.
    fn ride_along(&mut self, now: Now, i: usize, out: &mut Outbox) {
        // In a quiet cluster nobody is looked up for it.
        if self.rumors.is_empty() && self.suspicions.is_empty() && self.members.gone().next().is_none() {
            return;
        }
        let to = out.destination(i);
        let Some(peer) = to.run.and_then(|run| self.members.find(run)) else { return };
        let Engine { members, suspicions, stalls, telling, config, rumors, .. } = self;
        // News is for members, at the address that we know: an answer to a replayed HELLO must not carry it away.
        if members.get(peer).is_none_or(|e| !e.is_at(to.addr)) {
            return;
        }
        if let Some(entry) = members.get(peer).filter(|e| is_accused(e.status) && config.buddy) {
            out.try_append(i, &telling.status(now.mono, entry, suspicions.accusers(peer)));
        }
        if rumors.is_empty() || to.via == Via::Stream {
            return;
        }
        let live = members.live_len();
        rumors.fill(config, live, |rumor| {
            let Some(entry) = members.get(rumor.about) else { return Told::Moot };
            if rumor.about == peer && (config.buddy || !is_accused(entry.status)) {
                // Nobody else is there to be told.
                return if live == 2 { Told::Moot } else { Told::Idle };
            }
            let fits = match rumor.aspect {
                Aspect::Record if entry.is_live() => {
                    out.try_append(i, &Frame::Record(telling.record(now.mono, config, entry)))
                }
                Aspect::Record | Aspect::Status => {
                    out.try_append(i, &telling.status(now.mono, entry, suspicions.accusers(rumor.about)))
                }
                Aspect::State if entry.is_live() => out.try_append(i, &telling.state_news(config, entry)),
                Aspect::Stall if entry.is_live() => match stalls.left(now.mono, rumor.about) {
                    Some(left) => out.try_append(i, &Frame::Stalled { run: entry.run, left: left.as_secs() }),
                    None => return Told::Moot,
                },
                Aspect::State | Aspect::Stall => return Told::Moot,
            };
            match fits {
                true => Told::Yes,
                false => Told::NoRoom,
            }
        });
    }

    /// News has died down: does one member, by lot, agree with us?
    fn compare(&mut self, now: Now, out: &mut Outbox) {
        if self.is(Mutant::Incurious) {
            return;
        }
        if let Some(to) = self.draw_one() {
            self.probe.ask(cx!(self, now, out), &self.members, to);
        }
    }

    pub(super) fn draw_one(&mut self) -> Option<Destination> {
        let mut drawn = None;
        self.members.draw(&mut self.rng, 1, |_| false, |_, e| drawn = Some(e.to()));
        drawn
    }

    /// Says what is due in calls under way.
    pub(super) fn contact_tick(&mut self, now: Now, out: &mut Outbox) {
        let doubts = self.is_out_of_touch(now);
        self.contacts.doubt(now.mono, &self.config, doubts);
        while let Some(say) = self.contacts.on_deadline(cx!(self, now, out), &self.members) {
            let seeks = self.seeks(now);
            let me = self.members.local();
            match say {
                Say::Hello { addr, via } => {
                    let app = (self.config.app_version, self.config.app_version_min);
                    let hello =
                        Frame::Hello { protocol: (PROTOCOL_MIN, PROTOCOL_MAX), app, name: &me.name, epoch: me.epoch };
                    out.send(Destination { addr, run: None, via }, &hello);
                }
                Say::Join { addr, run, cookie, via } => {
                    let record = self.telling.record(now.mono, &self.config, me);
                    out.send(Destination { addr, run: Some(run), via }, &Frame::Join { cookie, record, seeks });
                }
                Say::TablePull { addr, run, cursor } => {
                    let to = Destination { addr, run: Some(run), via: Via::Datagram };
                    out.send(to, &Frame::TablePull { cursor });
                }
            }
        }
    }

    /// Makes sure that the time to forget the newly dead is not slept through.
    pub(super) fn look_for_forgettable(&mut self, now: Now) {
        // It may have been dead for long when we heard of it.
        let soon = now.mono + FORGET_EVERY;
        self.forget = Some(self.forget.map_or(soon, |at| at.min(soon)));
    }

    fn forget(&mut self, now: Now, out: &mut Outbox) {
        if self.forget.is_none_or(|at| now.mono < at) {
            return;
        }
        let term = |status| match status {
            MemberState::Dead => Some(self.config.forget_dead),
            MemberState::Left => Some(self.config.forget_left),
            MemberState::Alive | MemberState::Suspect => None,
        };
        let ends = self.members.gone().filter_map(|(peer, e)| Some((peer, e.since + term(e.status)?)));
        let (mut over, mut next): (alloc::vec::Vec<Peer>, Option<Instant>) = Default::default();
        for (peer, end) in ends.filter(|&(peer, _)| peer != self.members.me()) {
            if end <= now.mono {
                over.push(peer);
            } else {
                next = Some(next.map_or(end, |n| n.min(end)));
            }
        }
        self.forget = next.map(|n| n.max(now.mono + FORGET_EVERY));
        for peer in over {
            self.strike_off(peer, out);
        }
    }

    /// Makes room in a full table by forgetting before its time who has been gone for the longest.
    pub(super) fn make_room(&mut self, out: &mut Outbox) -> bool {
        let gone = self.members.oldest_gone();
        gone.into_iter().for_each(|peer| self.strike_off(peer, out));
        gone.is_some()
    }

    pub(super) fn strike_off(&mut self, peer: Peer, out: &mut Outbox) {
        let picture = self.picture(peer);
        self.pictures.forget(peer);
        self.stalls.forget(peer);
        for aspect in Aspect::ALL {
            self.rumors.stop(Rumor { about: peer, aspect });
        }
        if let Some(entry) = self.members.remove(peer) {
            self.lanes.forget(entry.run);
            if entry.status == MemberState::Dead {
                let most = if self.is(Mutant::Hoarder) { usize::MAX } else { self.config.max_remembered };
                self.contacts.remember(entry.addr(), most);
            }
        }
        self.touched();
        let mut event = Event::new(EventKind::Forgotten, self.version);
        event.member = picture;
        out.events.push(event);
    }

    /// When we may be able to say SETTLED.
    pub(super) fn settling(&self) -> Option<Instant> {
        let waits = !self.settled && self.contacts.is_first_round_over();
        waits.then(|| self.newcomer + self.config.gossip_interval * 3)
    }

    fn settle(&mut self, now: Now, out: &mut Outbox) {
        if self.settling().is_some_and(|at| at <= now.mono) {
            self.settled = true;
            out.events.push(Event::new(EventKind::Settled, self.version));
        }
    }

    /// Tells some that we leave, others each time, until enough have acknowledged.
    fn farewell(&mut self, now: Now, out: &mut Outbox) {
        let pace = self.config.probe_timeout_min;
        let Life::Leaving { again, told, .. } = &mut self.life else { return };
        if now.mono < *again {
            return;
        }
        *again = now.mono + pace;
        let mut to = [None; crate::members::DRAW_MAX];
        let mut n = 0;
        self.members.draw(
            &mut self.rng,
            self.config.leave_fanout,
            |e| told.contains(&e.run),
            |_, e| {
                to[n] = Some(e.to());
                n += 1;
            },
        );
        for to in to.into_iter().flatten() {
            let left = self.telling.status(now.mono, self.members.local(), core::iter::empty());
            out.send(to, &left);
            self.probe.ask(cx!(self, now, out), &self.members, to);
        }
    }

    pub(super) fn on_farewell_answer(&mut self, run: RunId) {
        if let Life::Leaving { told, .. } = &mut self.life {
            if !told.contains(&run) {
                told.push(run);
            }
        }
    }

    /// Enough of those who stay know that we leave. Half of a few are enough: one may be dead and not yet known to be.
    /// Who leaves as well counts on neither side: two that tell only each other would be missed by all the rest.
    fn is_farewell_heard(&self) -> bool {
        let Life::Leaving { told, .. } = &self.life else { return false };
        let stays =
            |run: &&RunId| self.members.find(**run).and_then(|p| self.members.get(p)).is_some_and(Entry::is_live);
        let others = self.members.live_len();
        told.iter().filter(stays).count() >= self.config.leave_fanout.min(others.div_ceil(2))
    }

    fn farewell_is_over(&self, now: Now) -> bool {
        matches!(self.life, Life::Leaving { until, .. } if until <= now.mono) || self.is_farewell_heard()
    }

    pub(super) fn end_farewell(&mut self, out: &mut Outbox) {
        if !matches!(self.life, Life::Leaving { .. }) {
            return;
        }
        let told = self.is_farewell_heard();
        self.life = Life::Silent;
        self.part_with_all(out);
        out.completions.push(crate::outbox::Completion::LeaveDone { told });
        let mut event = Event::new(EventKind::LeaveDone, self.version);
        event.status = if told { 0 } else { crate::error::Code::Timeout as i32 };
        out.events.push(event);
    }
}

fn is_accused(status: MemberState) -> bool {
    matches!(status, MemberState::Suspect | MemberState::Dead)
}
