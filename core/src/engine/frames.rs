//! What each frame means.

use alloc::format;
use core::net::SocketAddr;

use super::mutant::Mutant;
use super::news::Told;
use super::picture::Warning;
use super::{Engine, Inbound, Life, cx};
use crate::id::{Epoch, NodeName, Peer, RunId, Version};
use crate::outbox::{Destination, Outbox, Via};
use crate::protocol::Cx;
use crate::protocol::contest::Standing;
use crate::protocol::suspicion::Terms;
use crate::time::{Duration, Now};
use crate::view::MemberState;
use crate::wire::frame::{Frame, Frames, Record};
use crate::wire::{PROTOCOL_MAX, PROTOCOL_MIN};

/// Why a joiner is refused. Frozen numbers.
pub const REFUSED_PROTOCOL: u32 = 1;
pub const REFUSED_APP_VERSION: u32 = 2;
pub const REFUSED_NAME: u32 = 3;
pub const REFUSED_FULL: u32 = 4;
pub const REFUSED_MEMBERSHIP: u32 = 5;

/// Answers that look through the whole table, in one packet.
const SCANS_MAX: u32 = 64;

/// Pulls of metadata that are known to be under way. What is asked for beyond that may be asked for twice.
pub(super) const PULLS_MAX: usize = 1024;

/// Frames of a packet that are kept as they were read when it was checked; those after them are read again. Records, which
/// take the longest, are about 25 to a datagram.
const KEPT_MAX: usize = 32;

/// A packet of fewer bytes has few frames.
const FEW_BYTES: usize = 100;

/// Who speaks.
#[derive(Clone, Copy)]
pub(super) struct Speaker {
    pub run: RunId,
    pub from: SocketAddr,
    /// To answer the packet: back the way it came.
    pub back: Destination,
    /// To say more than was asked: at the address that it proved when it joined.
    pub home: Option<Destination>,
}

/// What one packet may make us answer. One answer may exceed the bytes, the next is not given: all of it is asked
/// for again. Without it one packet could make us send, or look through, ten thousand times its size.
struct Allowance {
    bytes: usize,
    scans: u32,
}

impl Allowance {
    fn has(&mut self, out: &Outbox) -> bool {
        self.scans = self.scans.saturating_sub(1);
        self.scans > 0 && out.bytes() < self.bytes
    }
}

impl Engine {
    pub(super) fn packet(&mut self, now: Now, packet: Inbound<'_>, out: &mut Outbox) {
        self.counters.packets_in += 1;
        // Read once. A short packet is most often one frame, and must not pay for a place for many.
        let (mut few, mut many);
        let kept: &mut [Frame<'_>] = if packet.frames.len() < FEW_BYTES {
            few = [Frame::Nack { seq: 0 }; 2];
            &mut few
        } else {
            many = [Frame::Nack { seq: 0 }; KEPT_MAX];
            &mut many
        };
        let Ok((first, rest)) = Frames::parse_into(packet.frames, kept) else {
            self.counters.malformed += 1;
            return;
        };
        let back = Destination { addr: packet.from, run: Some(packet.run), via: packet.via };
        let speaker = Speaker { run: packet.run, from: packet.from, back, home: self.home(packet.run, packet.via) };
        if speaker.home.is_some() && self.watches() {
            self.members.find(packet.run).into_iter().for_each(|peer| self.heartbeats.on_life(now.mono, peer));
        }
        let mut pinged = false;
        let mut allowance =
            Allowance { bytes: out.bytes() + self.config.sync_packets * self.config.max_datagram, scans: SCANS_MAX };
        // No loop: a chain that is asked for one after another costs a PING a tenth of its turn.
        first.iter().copied().chain(rest).for_each(|frame| {
            if packet.stranger != matches!(frame, Frame::Hello { .. }) {
                self.counters.unexpected += 1;
                return;
            }
            if matches!(frame, Frame::Ping { .. } | Frame::Heartbeats { .. }) {
                // From a stranger one is enough: many short ones would be answered by more than they brought.
                if pinged && speaker.home.is_none() {
                    self.counters.unexpected += 1;
                    return;
                }
                pinged = true;
            }
            self.frame(now, &speaker, packet.via, frame, &mut allowance, out);
        });
        if pinged {
            self.set_right(now, &speaker, out);
        }
    }

    /// Where a live member is spoken to.
    pub(super) fn home(&self, run: RunId, via: Via) -> Option<Destination> {
        let entry = self.members.get(self.members.find(run)?)?;
        entry.is_live().then_some(Destination { addr: entry.addr(), run: Some(run), via })
    }

    fn frame(
        &mut self,
        now: Now,
        by: &Speaker,
        via: Via,
        frame: Frame<'_>,
        allowance: &mut Allowance,
        out: &mut Outbox,
    ) {
        match frame {
            // Getting in.
            Frame::Hello { protocol, app, .. } => self.on_hello(now, by, protocol, app, out),
            Frame::Cookie { cookie, observed } => {
                self.check_observed(now, observed, out);
                self.contacts.on_cookie(now.mono, by.from, by.run, cookie);
                self.contact_tick(now, out);
            }
            Frame::Refused { text, .. } => {
                if self.contacts.on_refused(cx!(self, now, out), by.from, by.run, text) {
                    self.warn(now, Warning::Refused, || format!("{} refused this node: {text}", by.from), out);
                }
            }
            Frame::Join { cookie, record, seeks } => {
                if self.cookies.accepts(now, by.from, by.run, &cookie) && record.run == by.run {
                    self.on_join(now, by, record, seeks, out);
                } else {
                    self.counters.cookies_bad += 1;
                }
            }
            Frame::Welcome { known_epoch, live, fingerprint } => {
                self.on_welcome(now, by, known_epoch, live, fingerprint, out);
            }

            // SWIM.
            Frame::Ping { seq, beat, fingerprint } => {
                let (beat, fingerprint) = self.on_ping_word(now, by, beat, fingerprint);
                out.send(by.back, &Frame::Ack { seq, beat, fingerprint });
                if self.is(Mutant::Babbler) {
                    self.probe.ask(cx!(self, now, out), &self.members, by.back);
                }
            }
            Frame::Ack { seq, beat, fingerprint } => self.on_ack(now, by, via, seq, beat, fingerprint, out),
            Frame::PingReq { seq, target, addr } => {
                if by.home.is_none() {
                    self.counters.unexpected += 1;
                    return;
                }
                let target = Destination { addr, run: Some(target), via: Via::Datagram };
                self.probe.on_ping_req(cx!(self, now, out), &self.members, by.back, seq, target);
            }
            Frame::Nack { seq } => {
                self.counters.nacks += 1;
                if self.probe.on_nack(by.run, seq) {
                    self.touch(now, out);
                }
            }

            // Heartbeats.
            Frame::Heartbeats { idle, fingerprint, beats } => {
                let Some(home) = by.home else { return };
                self.touch(now, out);
                self.heartbeats.on_idle(now.mono, idle);
                beats.iter().for_each(|(run, count)| self.on_heartbeat(now, run, count, allowance, out));
                self.antientropy.on_fingerprint(cx!(self, now, out), &self.members, home, fingerprint);
            }

            // News of members.
            Frame::Record(record) if self.may_hear(by, &record) => self.hear_record(now, by, record, out),
            Frame::Record(_) => self.counters.unexpected += 1,
            Frame::Alive { run, incarnation } => {
                let told = Told { run, status: MemberState::Alive, incarnation, age: 0 };
                self.hear(now, by, told, core::iter::empty(), out);
            }
            Frame::Suspect { run, incarnation, accusers } => {
                let told = Told { run, status: MemberState::Suspect, incarnation, age: 0 };
                self.hear(now, by, told, accusers.iter(), out);
            }
            Frame::Dead { run, incarnation, age } => {
                let told = Told { run, status: MemberState::Dead, incarnation, age };
                self.hear(now, by, told, core::iter::empty(), out);
            }
            Frame::Left { run, incarnation, age } => {
                let told = Told { run, status: MemberState::Left, incarnation, age };
                self.hear(now, by, told, core::iter::empty(), out);
            }
            Frame::Stalled { run, left } => self.hear_of_stall(now, run, Duration::from_secs(left)),
            Frame::State { run, base, to, reset, entries } => {
                self.hear_state(now, by, run, to, out, |state| state.apply(base, to, reset, entries));
            }
            Frame::StateNews { run, version } => self.hear_version(now, by, run, version, out),

            // Messages.
            Frame::Message { topic, data } if by.home.is_some() => self.on_message(by, topic, data, out),
            Frame::Item(item) if by.home.is_some() => self.on_item(now, by, item, out),
            Frame::ItemAck { lane, session, upto, room } => {
                // To where the member is, whatever way its answer came.
                let home = self.members.find(by.run).and_then(|p| self.members.get(p)).filter(|e| e.is_live());
                if let Some(home) = home.map(|e| e.to()) {
                    self.on_item_ack(now, home, (lane, session, upto, room), out);
                }
            }

            // The overlay and its tree.
            Frame::OverlayJoin
            | Frame::ForwardJoin { .. }
            | Frame::Neighbor { .. }
            | Frame::NeighborReply { .. }
            | Frame::Disconnect { .. }
            | Frame::Shuffle { .. }
            | Frame::ShuffleReply { .. }
            | Frame::Gossip(_)
            | Frame::Ihave(_)
            | Frame::Prune { .. }
            | Frame::Idontwant { .. }
            | Frame::Vector { .. }
            | Frame::Gone { .. } => match by.home {
                None => self.on_strangers_word(now, by, frame, out),
                Some(home) => self.on_broadcast_frame(now, by, home, frame, out),
            },

            // Answers that are larger than their questions: for members, at their own address.
            frame => match by.home {
                None => self.counters.unexpected += 1,
                Some(_) if !allowance.has(out) => self.counters.answers_cut += 1,
                Some(home) => self.answer(now, by, home, frame, out),
            },
        }
    }

    fn answer(&mut self, now: Now, by: &Speaker, home: Destination, frame: Frame<'_>, out: &mut Outbox) {
        if let Frame::Graft(_) = frame {
            return self.on_broadcast_frame(now, by, home, frame, out);
        }
        let (cx, members, telling) = (cx!(self, now, out), &self.members, &mut self.telling);
        match frame {
            Frame::Digest { sums } => self.antientropy.on_digest(cx, members, telling, home, sums),
            Frame::Summary { bits, bucket, entries } => {
                self.antientropy.on_summary(cx, members, telling, home, bits, bucket, entries);
            }
            Frame::Want { runs } => {
                let most = out.bytes() + self.config.sync_packets * self.config.max_datagram;
                for run in runs.iter() {
                    if out.bytes() > most {
                        return;
                    }
                    self.tell(now, home, run, out);
                }
            }
            Frame::TablePull { cursor } => {
                self.counters.table_pulls += 1;
                self.antientropy.on_table_pull(cx, members, telling, home, cursor);
            }
            Frame::TableNext { cursor } => {
                if let Some(run) = home.run {
                    self.contacts.on_table_next(now.mono, run, cursor, self.config.join_timeout);
                }
                self.contact_tick(now, out);
            }
            Frame::StatePull { run, have } => {
                if let Some(entry) = members.find(run).and_then(|p| members.get(p)) {
                    if entry.state.version() > have {
                        self.counters.state_pulls += 1;
                        cx.out.send(home, &telling.state(entry, have));
                    }
                }
            }
            _ => self.counters.unexpected += 1,
        }
    }

    /// All that we know of one run: how it fares, or its record.
    pub(super) fn tell(&mut self, now: Now, to: Destination, run: RunId, out: &mut Outbox) {
        let Some(entry) = self.members.find(run).and_then(|p| self.members.get(p)) else { return };
        if entry.is_live() {
            out.send(to, &Frame::Record(self.telling.record(now.mono, &self.config, entry)));
        } else {
            out.send(to, &self.telling.status(now.mono, entry, core::iter::empty()));
        }
    }

    /// A stranger. Nothing is remembered of it; it must show that it gets what we send there.
    fn on_hello(&mut self, now: Now, by: &Speaker, protocol: (u32, u32), app: (u32, u32), out: &mut Outbox) {
        if let Some((reason, text)) = self.incompatible(protocol, app) {
            self.counters.joins_refused += 1;
            out.send(by.back, &Frame::Refused { reason, text: &text });
            return;
        }
        let cookie = self.cookies.cookie(now, by.from, by.run);
        out.send(by.back, &Frame::Cookie { cookie, observed: by.from });
    }

    fn incompatible(&self, protocol: (u32, u32), app: (u32, u32)) -> Option<(u32, alloc::string::String)> {
        if protocol.0 > PROTOCOL_MAX || protocol.1 < PROTOCOL_MIN {
            let text = format!("protocol {}-{}, here {PROTOCOL_MIN}-{PROTOCOL_MAX}", protocol.0, protocol.1);
            return Some((REFUSED_PROTOCOL, text));
        }
        let (ours, least) = (self.config.app_version, self.config.app_version_min);
        if app.0 < least || ours < app.1 {
            let text = format!("app version {}>={}, here {ours}>={least}", app.0, app.1);
            return Some((REFUSED_APP_VERSION, text));
        }
        None
    }

    /// A joiner at a proven address. It is let in unless somebody alive holds its name elsewhere.
    fn on_join(&mut self, now: Now, by: &Speaker, record: Record<'_>, seeks: Option<u32>, out: &mut Outbox) {
        if let Some(text) = self.other_membership(seeks) {
            self.counters.joins_refused += 1;
            out.send(by.back, &Frame::Refused { reason: REFUSED_MEMBERSHIP, text: &text });
            return;
        }
        if record.name == &*self.members.local().name {
            return self.refuse_name(now, by, self.members.me(), out);
        }
        let mut known = Epoch(0);
        let listed = self.members.find_name(record.name);
        if let Some((peer, entry)) = listed.and_then(|peer| Some((peer, self.members.get(peer)?))) {
            let elsewhere = entry.is_live() && !entry.is_at(record.addr);
            if entry.run == record.run {
                // It asks again, because our answer was lost: it may have been given a higher epoch meanwhile.
                known = Epoch(entry.epoch.0.saturating_sub(1));
            } else if !elsewhere {
                known = entry.epoch;
            } else {
                let (holder, at, epoch) = (entry.run, entry.to(), entry.epoch);
                match self.contest(now, holder, at, self.probe.longest(&self.config), out) {
                    Standing::Ask | Standing::Waiting => return,
                    Standing::Answered => return self.refuse_name(now, by, peer, out),
                    Standing::Silent => known = epoch,
                }
            }
        } else if !self.has_place(out) {
            self.counters.joins_refused += 1;
            out.send(by.back, &Frame::Refused { reason: REFUSED_FULL, text: "the cluster is full (max_members)" });
            return;
        }
        self.counters.joins_accepted += 1;
        // Its clock may have gone back: it is told, and takes a higher epoch. Until then it has that of its next life.
        let epoch = if record.epoch <= known { known.next() } else { record.epoch };
        self.let_in(now, by, Record { epoch, age: 0, ..record }, known, seeks, out);
    }

    /// Is the holder of a name there? It is asked by datagram and by stream, and probed as any member is, through others,
    /// because a few lost packets must not cost it its name.
    pub(super) fn contest(
        &mut self,
        now: Now,
        holder: RunId,
        at: Destination,
        patience: Duration,
        out: &mut Outbox,
    ) -> Standing {
        let standing = self.contests.standing(now.mono, holder, patience);
        if matches!(standing, Standing::Ask | Standing::Waiting) {
            for via in [Via::Datagram, Via::Stream] {
                self.probe.ask(cx!(self, now, out), &self.members, Destination { via, ..at });
            }
        }
        if let (Standing::Ask, Some(peer)) = (standing, self.members.find(holder)) {
            if let Some(entry) = self.members.get(peer) {
                self.probe.ping(cx!(self, now, out), &self.members, peer, entry);
            }
        }
        standing
    }

    /// We are in touch with the cluster. Whether we were not, and now remind all suspects.
    pub(super) fn touch(&mut self, now: Now, out: &mut Outbox) -> bool {
        let long = self.is_out_of_touch(now);
        self.telling.touch(now.mono, long);
        let pace = self.pace();
        let silent = self.hearing.on_answer(now.mono, pace);
        if silent {
            self.remind_suspects(now, out);
        }
        silent
    }

    /// Who takes part under that name elsewhere hears of its holder, too: it may be the one that has lost it.
    fn refuse_name(&mut self, now: Now, by: &Speaker, holder: Peer, out: &mut Outbox) {
        self.counters.joins_refused += 1;
        let Some(holder) = self.members.get(holder) else { return };
        let text = format!("name in use: {}", holder.name);
        out.send(by.back, &Frame::Refused { reason: REFUSED_NAME, text: &text });
        out.send(by.back, &Frame::Record(self.telling.record(now.mono, &self.config, holder)));
    }

    #[allow(clippy::too_many_arguments)] // A frame's fields, not a design.
    fn on_ack(&mut self, now: Now, by: &Speaker, via: Via, seq: u64, beat: u64, fingerprint: u64, out: &mut Outbox) {
        self.contests.on_answer(by.run);
        let Some(answer) = self.probe.on_ack(cx!(self, now, out), by.run, seq, beat, via) else { return };
        self.counters.acks += 1;
        self.counters.acks_late += u64::from(answer.late);
        let reminded = self.touch(now, out);
        self.on_farewell_answer(answer.run);
        let Some(peer) = self.members.find(answer.run) else { return };
        self.doubts.end(peer);
        // A relay may vouch for a member; who else has our name must say so itself.
        self.contests.on_answer(answer.run);
        if self.is(Mutant::Nervous) && seq.is_multiple_of(32) {
            self.suspect(now, peer, out);
        }
        if let Some(entry) = self.members.note(peer) {
            entry.hear(now.mono);
            if let Some(rtt) = answer.rtt {
                entry.rtt.sample(rtt);
            }
        }
        let Some(entry) = self.members.get(peer) else { return };
        let itself = by.run == answer.run && self.config.buddy && !self.imitates_memberlist();
        if entry.status == MemberState::Suspect && itself {
            // Whatever is said of it. It has heard of that with our ping; others may know better, and will say so.
            let heard = self.hearing.time(now.mono, self.pace());
            let live = self.members.live_len();
            let terms = Terms { live, patience: self.stalls.patience(now.mono, &self.config, live, peer) };
            self.suspicions.renew(heard, &self.config, terms, peer, entry.incarnation);
        }
        self.counters.acks_by_stream += u64::from(answer.by_stream);
        if answer.again {
            let text = format!("{} answers by TCP and not by UDP: datagrams are lost on the way", entry.name);
            self.warn(now, Warning::UdpBlocked, || text, out);
        } else if answer.late && !reminded && entry.status == MemberState::Suspect && self.config.buddy {
            // It is slow and not dead. This ping carries the suspicion, so its next answer carries the refutation.
            self.probe.ask(cx!(self, now, out), &self.members, entry.to());
        }
        if by.run == answer.run && !self.is(Mutant::Incurious) {
            self.on_ack_word(now, by, beat, fingerprint, out);
        }
    }

    /// Somebody's heartbeat, from itself or passed on.
    fn on_heartbeat(&mut self, now: Now, run: RunId, count: u64, allowance: &mut Allowance, out: &mut Outbox) {
        let me = self.members.me();
        let Some(peer) = self.members.find(run).filter(|&peer| peer != me) else { return };
        let Some(entry) = self.members.note(peer).filter(|e| e.is_live()) else { return };
        if !self.heartbeats.on_count(now.mono, peer, run, count) {
            return;
        }
        entry.hear(now.mono);
        if entry.status == MemberState::Suspect && allowance.has(out) {
            // It lives. This ping carries the suspicion, and its answer the refutation.
            let to = entry.to();
            self.probe.ask(cx!(self, now, out), &self.members, to);
        }
    }

    /// A ping or a heartbeat came from somebody who is not, or no longer, a live member in our table. A stranger is asked who
    /// it is; the dead are told that they are dead, and refute it.
    fn set_right(&mut self, now: Now, by: &Speaker, out: &mut Outbox) {
        if matches!(self.life, Life::Leaving { .. }) || self.set_straight(now, by, out) {
            return;
        }
        match self.members.find(by.run) {
            None => {
                self.counters.unknown_sender += 1;
                let runs = self.telling.runs(core::iter::once(by.run));
                out.send(by.back, &Frame::Want { runs });
            }
            Some(peer) => self.accuse_back(now, peer, by, out),
        }
    }

    /// memberlist's issue 345: stale news that is dropped in silence leaves a node dead for ever. Answered are
    /// members, and who speaks of itself: at the address that it proved when it joined.
    pub(super) fn accuse_back(&mut self, now: Now, peer: Peer, by: &Speaker, out: &mut Outbox) {
        let Some(entry) = self.members.get(peer).filter(|e| !e.is_live() && !self.imitates_memberlist()) else {
            return;
        };
        let itself = (entry.run == by.run).then_some(Destination { via: by.back.via, ..entry.to() });
        let Some(to) = by.home.or(itself) else { return };
        self.counters.accused_back += 1;
        out.send(to, &self.telling.status(now.mono, entry, core::iter::empty()));
    }

    fn check_observed(&mut self, now: Now, observed: SocketAddr, out: &mut Outbox) {
        let ours = self.members.local().addr();
        if observed.ip() != ours.ip() && !observed.ip().is_loopback() {
            let text = || format!("others see this node at {}, it advertises {ours}", observed.ip());
            self.warn(now, Warning::Address, text, out);
        }
    }

    pub(super) fn exchange(&mut self, now: Now, with: Destination, out: &mut Outbox) {
        if self.is(Mutant::Incurious) {
            return;
        }
        self.counters.exchanges += 1;
        self.antientropy.exchange(cx!(self, now, out), &self.members, with);
    }

    /// Somebody of our name, in an epoch that is over, was ahead of us.
    pub(super) fn surpass(&mut self, now: Now, known: Epoch) {
        let me = self.members.me();
        if known < self.members.local().epoch {
            return;
        }
        self.change(me, |e| e.epoch = known.next());
        self.announce(now);
    }

    pub(super) fn name(record: &Record<'_>) -> NodeName {
        NodeName::new(record.name).expect("checked when the frame was read")
    }

    /// Asks whoever told for what we lack of somebody's metadata.
    pub(super) fn pull_state(&mut self, now: Now, by: &Speaker, peer: Peer, out: &mut Outbox) {
        let Some(from) = by.home else { return };
        let Some(entry) = self.members.get(peer) else { return };
        if self.pulls.get(&peer).is_some_and(|&until| now.mono < until) {
            return;
        }
        if self.pulls.len() >= PULLS_MAX {
            self.pulls.retain(|_, until| now.mono < *until);
        }
        if self.pulls.len() < PULLS_MAX {
            self.pulls.insert(peer, now.mono + self.config.gossip_interval * 2);
        }
        let (run, have): (RunId, Version) = (entry.run, entry.state.version());
        out.send(from, &Frame::StatePull { run, have });
    }
}
