//! To all: the overlay and the tree on it.

use alloc::collections::BTreeSet;
use alloc::string::{String, ToString};

use super::frames::Speaker;
use super::mutant::Mutant;
use super::{Engine, Life, cx};
use crate::config::Broadcast;
use crate::error::{Code, Error, Result};
use crate::id::{Peer, RunId};
use crate::message::{Body, Manner, ToAll, Verdict};
use crate::outbox::{Destination, Outbox, Via};
use crate::protocol::Cx;
use crate::protocol::hyparview::{Change, NEIGHBOURS_MAX};
use crate::protocol::plumtree::flow::limit;
use crate::protocol::plumtree::{Counts, LINKS_MAX, Lost};
use crate::time::{Instant, Now};
use crate::view::{Event, EventKind};
use crate::wire::frame::{Frame, Record};

const _: () = assert!(NEIGHBOURS_MAX == LINKS_MAX, "every neighbour has a place in the tree");

/// Members that one which wakes wakes for certain.
const WOKEN: usize = 2;

impl Engine {
    /// Says it to all members. Returns its number among our broadcasts.
    ///
    /// `E_STATE` unless the node is a member; `E_TOO_BIG` beyond `max_broadcast`; `E_BUSY` while more than a quarter of `link_queue`,
    /// or half of `broadcast_window`, are on their way that a neighbour has yet to confirm, or (`broadcast = rumor`) that
    /// nobody was told yet: [`Completion::Writable`](crate::outbox::Completion) to ourselves says when
    /// that is over. On failure nothing was said.
    pub fn broadcast(&mut self, now: Now, body: Body, how: ToAll, out: &mut Outbox) -> Result<u64> {
        self.must_be_member()?;
        if body.len() > self.config.max_broadcast {
            let text = alloc::format!(
                "{} bytes: max_broadcast is {}; nothing was sent",
                body.len(),
                self.config.max_broadcast
            );
            return Err(Error::new(Code::TooBig, text));
        }
        if self.is_busy(now, limit(&self.config)) {
            self.counters.broadcasts_busy += 1;
            self.broadcaster_waits = true;
            return Err(Error::new(
                Code::Busy,
                "the neighbours have yet to take what was sent before; nothing was sent",
            ));
        }
        if self.config.broadcast == Broadcast::Tree {
            self.wake_overlay(now, false, out);
        }
        self.counters.broadcasts += 1;
        let said = self.tree.broadcast(cx!(self, now, out), &self.members, body, how.ordered);
        let Manner::Broadcast { seq } = said.manner else { unreachable!("a broadcast is one") };
        if how.loopback {
            self.tree.hear_ourselves(said);
        }
        self.finish(now, out);
        Ok(seq)
    }

    /// What others broadcast under these topics goes nowhere before [`Engine::validated`] says so; what is asked comes in
    /// [`Outbox::questions`]. Replaces the topics from before: what waits under others is accepted.
    pub fn validate(&mut self, now: Now, topics: BTreeSet<String>, out: &mut Outbox) {
        self.tree.judge(cx!(self, now, out), topics);
        self.finish(now, out);
    }

    /// The application's verdict on a question. One that comes twice, or unasked, is ignored.
    pub fn validated(&mut self, now: Now, origin: RunId, seq: u64, verdict: Verdict, out: &mut Outbox) {
        self.tree.on_verdict(cx!(self, now, out), origin, seq, verdict);
        self.finish(now, out);
    }

    fn is_busy(&mut self, now: Now, most: usize) -> bool {
        self.members.live_len() > 1 && self.tree.is_busy(now.mono, &self.config, &self.members, most)
    }

    /// Our neighbours in the overlay.
    pub fn neighbours(&self) -> &[RunId] {
        self.overlay.neighbours()
    }

    /// Whom we keep in mind for when a neighbour is lost.
    pub fn remembered(&self) -> impl Iterator<Item = RunId> + '_ {
        self.overlay.remembered()
    }

    /// Whether [`Input::Severed`](super::Input) of that run would change anything.
    pub fn minds_link(&self, run: RunId) -> bool {
        self.overlay.is_neighbour(run) || self.lanes.waiting(run) > 0
    }

    /// How far a broadcast that we keep has come.
    pub fn hops(&self, origin: RunId, seq: u64) -> Option<u32> {
        self.tree.hops(origin, seq)
    }

    /// Frames of the overlay and the tree, by a live member at its own address.
    pub(super) fn on_broadcast_frame(
        &mut self,
        now: Now,
        by: &Speaker,
        home: Destination,
        frame: Frame<'_>,
        out: &mut Outbox,
    ) {
        if !matches!(self.life, Life::Member) {
            return;
        }
        if self.config.broadcast == Broadcast::Tree || frame.is_of_overlay() {
            self.wake_overlay(now, true, out);
        }
        let (from, stream) = (by.run, Destination { via: Via::Stream, ..home });
        let (cx, members) = (cx!(self, now, out), &self.members);
        let change = match frame {
            Frame::OverlayJoin => self.overlay.on_join(cx, members, from),
            Frame::ForwardJoin { ttl, node } => self.overlay.on_forward_join(cx, members, from, ttl, node),
            Frame::Neighbor { urgent, record } => return self.on_neighbor(now, by, urgent, record, out),
            Frame::NeighborReply { accepted, record } => {
                return self.on_neighbor_reply(now, by, accepted, record, out);
            }
            Frame::Disconnect { instead } => self.overlay.on_disconnect(cx, members, from, instead),
            Frame::Shuffle { ttl, node, contacts } => {
                self.overlay.on_shuffle(cx, members, from, ttl, node, contacts);
                return;
            }
            Frame::ShuffleReply { contacts } => {
                self.overlay.on_shuffle_reply(cx, members, contacts);
                return;
            }
            frame => return self.on_tree_frame(now, from, stream, frame, out),
        };
        self.relink(now, change, None, out);
    }

    /// Chance wakes nearly all, and soon. For the others: each that wakes wakes those who follow on the ring.
    fn wake_overlay(&mut self, now: Now, called: bool, out: &mut Outbox) {
        if !self.overlay.wake(cx!(self, now, out), &self.members, called) {
            return;
        }
        self.tree.stir(cx!(self, now, out));
        for steps in 1..=WOKEN.min(self.members.live_len() - 1) {
            let next = self.members.ahead(steps).and_then(|place| self.members.standing_at(place));
            if let Some(to) = next.map(|(_, e)| e.to()) {
                self.tree.tell(cx!(self, now, out), to, true, false);
            }
        }
    }

    fn on_tree_frame(&mut self, now: Now, from: RunId, to: Destination, frame: Frame<'_>, out: &mut Outbox) {
        let careless = self.is(Mutant::Careless);
        let (cx, members) = (cx!(self, now, out), &self.members);
        match frame {
            Frame::Gossip(gossip) => {
                if !gossip.way.repair && !gossip.way.lot {
                    self.overlay.on_word(cx, members, from);
                }
                if gossip.way.repair && careless {
                    return;
                }
                // A sender's JOIN comes before its first message.
                if !self.tree.on_gossip(cx, members, to, &gossip) {
                    let runs = self.telling.runs(core::iter::once(gossip.origin));
                    cx.out.send(to, &Frame::Want { runs });
                }
            }
            Frame::Ihave(ihave) => self.tree.on_ihave(cx, members, from, ihave),
            Frame::Graft(graft) => self.tree.on_graft(cx, members, to, graft),
            Frame::Prune { origin, own } => self.tree.on_prune(cx, from, origin, own),
            Frame::Idontwant { origin, seq } => self.tree.on_idontwant(cx, members, from, origin, seq),
            Frame::Vector { ask, neighbour, marks } => {
                if neighbour {
                    self.overlay.on_word(cx, members, from);
                } else {
                    self.overlay.on_sign(from);
                }
                self.tree.on_vector(cx, members, to, ask, marks);
            }
            Frame::Gone { origin, upto, before, age } => {
                self.tree.on_gone(cx, from, origin, upto, before.then_some(age))
            }
            _ => self.counters.unexpected += 1,
        }
    }

    /// A link of the overlay is one of the tree.
    /// `met`: the new neighbour's record, where it brings one.
    pub(super) fn relink(&mut self, now: Now, change: Change, met: Option<(&Speaker, Record<'_>)>, out: &mut Outbox) {
        if let Some(run) = change.down {
            self.counters.neighbours_lost += 1;
            self.tree.on_down(run);
            self.repaint(run);
            self.estrange(now, run, out);
        }
        if let Some(run) = change.up {
            if let Some((by, record)) = met {
                self.befriend(now, by, record, out);
            }
            self.repaint(run);
            self.tree.on_up(cx!(self, now, out), &self.members, run);
        }
    }

    /// Somebody is listed that was not, or is alive again.
    pub(super) fn on_member_up(&mut self, now: Now, peer: Peer, by_us: bool, out: &mut Outbox) {
        let Some(run) = self.members.get(peer).map(|e| e.run) else { return };
        self.place(now, run, by_us, out);
        self.tree.on_record(cx!(self, now, out), &self.members, run);
        self.tree.on_newcomer(cx!(self, now, out));
    }

    /// A run is dead, has left, or was replaced.
    pub(super) fn on_member_down(&mut self, now: Now, run: RunId, out: &mut Outbox) {
        let change = self.overlay.on_gone(cx!(self, now, out), run);
        self.relink(now, change, None, out);
    }

    pub(super) fn on_link_severed(&mut self, now: Now, run: RunId, out: &mut Outbox) {
        if self.overlay.on_severed(cx!(self, now, out), run) {
            self.tree.on_severed(cx!(self, now, out), run);
        }
    }

    pub(super) fn on_stream_unreachable(&mut self, now: Now, addr: core::net::SocketAddr, out: &mut Outbox) {
        let change = self.overlay.on_unreachable(cx!(self, now, out), &self.members, addr);
        self.relink(now, change, None, out);
    }

    pub(super) fn broadcast_tick(&mut self, now: Now, out: &mut Outbox) {
        while let Some(run) = self.overlay.on_deadline(cx!(self, now, out), &self.members) {
            self.relink(now, Change { up: None, down: Some(run) }, None, out);
        }
        while let Some(run) = self.overlay.asks_again(cx!(self, now, out)) {
            self.tree.on_severed(cx!(self, now, out), run);
        }
        while let Some(lost) = self.tree.on_deadline(cx!(self, now, out), &self.members) {
            self.say_gap(lost, out);
        }
        if self.tree.compares(cx!(self, now, out), &self.members) {
            // A neighbour, or anybody: parts of an overlay that have no link with each other have members in common.
            let one = self.rng.index(2 * self.overlay.neighbours().len());
            let neighbour = self.overlay.neighbours().get(one).and_then(|&run| self.home(run, Via::Stream));
            let by_lot = neighbour.is_none();
            let to = neighbour.or_else(|| self.draw_one());
            to.into_iter().for_each(|to| self.tree.tell(cx!(self, now, out), to, true, !by_lot));
        }
    }

    fn say_gap(&mut self, lost: Lost, out: &mut Outbox) {
        let mut event = Event::new(EventKind::Gap, self.version);
        event.member = self.members.find(lost.origin).and_then(|peer| self.picture(peer));
        (event.id, event.count) = (lost.first, lost.count);
        // It may be known by nothing but what it says, and of it nothing may have come.
        let of =
            self.tree.name(lost.origin).map_or_else(|| alloc::format!("{:?}", lost.origin), |name| name.to_string());
        out.events.push(event.text(alloc::format!("{of} {} to {}", lost.first, lost.last)));
    }

    pub(super) fn broadcast_deadline(&self) -> Option<Instant> {
        let (overlay, tree) = (self.overlay.deadline(), self.tree.deadline(self.config.broadcast_keep));
        overlay.into_iter().chain(tree).min()
    }

    /// What was heard is handed out, as far as there is room. Who was refused may try again, when there is some room.
    pub(super) fn end_of_broadcasts(&mut self, now: Now, out: &mut Outbox) {
        for lost in self.tree.overrun(self.config.broadcast_window) {
            self.say_gap(lost, out);
        }
        let (parrot, first) = (self.is(Mutant::Parrot), out.messages.len());
        while let Some(delivery) = self.tree.heard(self.config.inbox_bytes) {
            let again = parrot && matches!(delivery.manner, Manner::Broadcast { seq } if seq % 4 == 1);
            out.messages.extend(again.then(|| delivery.clone()));
            out.messages.push(delivery);
        }
        if out.messages[first..].iter().any(|delivery| matches!(delivery.manner, Manner::Query(_))) {
            let heard = out.messages.split_off(first);
            heard.into_iter().for_each(|delivery| self.hear_question(now, delivery, out));
        }
        out.questions.append(self.tree.questions());
        if self.broadcaster_waits && !self.is_busy(now, limit(&self.config) / 2) {
            self.broadcaster_waits = false;
            self.report_writable(self.members.local().run, out);
        }
        self.count_broadcasts();
    }

    fn count_broadcasts(&mut self) {
        let Counts { delivered, copies, pushed, repaired, answered, .. } = self.tree.counts;
        let Counts { grafts, prunes, shortcuts, gone, lost, .. } = self.tree.counts;
        let Counts { before, stale, unlisted, refused, vectors, forgotten, held, overrun, .. } = self.tree.counts;
        let Counts { judged, late, rejected, rounds, slow, .. } = self.tree.counts;
        let counters = &mut self.counters;
        counters.neighbours = self.overlay.neighbours().len() as u64;
        counters.broadcast_window_bytes = self.tree.window_bytes() as u64;
        (counters.broadcasts_in, counters.broadcast_copies, counters.broadcast_pushes) = (delivered, copies, pushed);
        (counters.broadcasts_repaired, counters.broadcast_answers, counters.broadcasts_lost) =
            (repaired, answered, lost);
        (counters.broadcasts_before, counters.broadcasts_stale) = (before, stale);
        (counters.broadcasts_unlisted, counters.broadcasts_refused) = (unlisted, refused);
        (counters.grafts, counters.prunes, counters.shortcuts) = (grafts, prunes, shortcuts);
        (counters.gone, counters.vectors) = (gone, vectors);
        (counters.broadcasts_held, counters.rumor_rounds, counters.neighbours_slow) = (held, rounds, slow);
        counters.broadcasts_overrun = overrun;
        counters.broadcasts_waiting = self.tree.waiting_bytes() as u64;
        (counters.validations, counters.validations_late, counters.validations_rejected) = (judged, late, rejected);
        (counters.broadcast_origins, counters.origins_forgotten) = (self.tree.load().0 as u64, forgotten);
    }
}
