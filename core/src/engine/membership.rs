//! Whom a member knows. There are two memberships, and this page is where they differ; everything else is the same engine.
//!
//! | | `full` | `partial` |
//! |---|---|---|
//! | the table lists | everybody | ourselves, our neighbours, who was one a short while ago, and the dead of late |
//! | its bound | `max_members` | [`KNOWN_MAX`] |
//! | somebody is listed by | a RECORD, whoever tells it | being a neighbour: NEIGHBOR and its reply bring their sender's record |
//! | who joins | is listed, and told of by rumors | is taken for a neighbour, or sent on to others; nobody else hears of it |
//! | news | rumors, of all | of ourselves, to our neighbours, by stream |
//! | what was missed is found by | fingerprints of the table | the record that NEIGHBOR brings again with each shuffle |
//! | the dead are found by | a probe of somebody each period; a suspicion, told to all | questions to the neighbours ([`Keepalive`]), each a whole probe, relays and stream included |
//! | then | all agree that it is dead | we hold it for dead, and look for another neighbour |
//! | it is back | by refuting, in a higher incarnation | by speaking to us |
//! | PING and ACK carry | the cluster's beat, the table's fingerprint | root and beat of our [`Island`] |
//! | parts find together by | calls to the dead and to seeds: tables are merged | the same calls; where the root is another, each side makes room for a link |
//! | the overlay | sleeps until something is broadcast | is what there is |
//!
//! What is the same: how a stranger gets in, seals, lanes, questions, the views' own exchange, trees and repair. A broadcast's origin
//! is known by its name, which rides along where nobody lists all.
//!
//! Members of the two kinds do not understand each other: one that would have to list all hears of a few, and the other of
//! all. So the joiner says which it is, and is refused with the reason.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use core::iter;

use super::frames::Speaker;
use super::news::Told;
use super::{Engine, Life, cx};
use crate::config::{Config, Membership};
use crate::id::{Epoch, Peer, RunId};
use crate::outbox::{Destination, Outbox, Via};
use crate::protocol::Cx;
use crate::protocol::hyparview::{Change, NEIGHBOURS_MAX};
use crate::protocol::island::Island;
use crate::protocol::keepalive::Keepalive;
use crate::protocol::rumor::{Aspect, Rumor};
use crate::time::{Instant, Now};
use crate::view::{EventKind, MemberState};
use crate::wire::frame::{Contact, Frame, Record};

/// Entries of a table that does not list all.
pub const KNOWN_MAX: usize = 128;

/// Those who are no neighbours any more, and still known.
pub const ACQUAINTANCES_MAX: usize = 32;

const _: () = assert!(2 * (1 + NEIGHBOURS_MAX + ACQUAINTANCES_MAX) < KNOWN_MAX, "the living always have a place");

/// What a node with `membership = partial` keeps beside its views.
#[derive(Debug)]
pub(super) struct Neighbourhood {
    keepalive: Keepalive,
    island: Island,
    /// Listed as alive, and no neighbours: until when, the oldest first.
    acquaintances: VecDeque<(Instant, RunId)>,
    /// We are not what our neighbours were told.
    changed: bool,
}

impl Neighbourhood {
    pub fn new(now: Instant, me: RunId) -> Neighbourhood {
        let (keepalive, island) = (Keepalive::default(), Island::new(now, me));
        Neighbourhood { keepalive, island, acquaintances: VecDeque::new(), changed: false }
    }

    pub fn acquaintances(&self) -> usize {
        self.acquaintances.len()
    }
}

/// Who speaks of being neighbours.
struct Introduced<'a> {
    node: Contact,
    /// Where it is answered.
    back: Destination,
    /// Its record, where it has to bring one.
    met: Option<Record<'a>>,
}

/// Entries that the table may have.
pub(super) fn table_max(config: &Config) -> usize {
    match config.membership {
        Membership::Full => config.max_members.max(1),
        Membership::Partial => KNOWN_MAX,
    }
}

impl Engine {
    /// The smallest run that we are connected with, as far as we know; with `membership = partial` only.
    pub fn island(&self) -> RunId {
        self.neighbourhood.island.root()
    }

    // --- getting in ---

    pub(super) fn start_membership(&mut self, now: Now, out: &mut Outbox) {
        if self.config.membership == Membership::Partial {
            self.overlay.wake(cx!(self, now, out), &self.members, true);
        }
    }

    /// How many neighbours a JOIN of ours asks for; it also says which kind we are.
    pub(super) fn seeks(&self, now: Now) -> Option<u32> {
        match self.config.membership {
            Membership::Full => None,
            Membership::Partial => Some(self.overlay.seeks(now.mono, &self.config)),
        }
    }

    /// A joiner of the other kind hears why it is refused.
    pub(super) fn other_membership(&self, seeks: Option<u32>) -> Option<String> {
        let theirs = if seeks.is_some() { Membership::Partial } else { Membership::Full };
        let name = |m: Membership| if m == Membership::Full { "full" } else { "partial" };
        let ours = self.config.membership;
        (theirs != ours).then(|| format!("membership = {}, here {}", name(theirs), name(ours)))
    }

    /// Whether one more may be let in, of a name that is not listed.
    pub(super) fn has_place(&mut self, out: &mut Outbox) -> bool {
        match self.config.membership {
            Membership::Full => !self.members.is_full() || self.make_room(out),
            Membership::Partial => true,
        }
    }

    /// A joiner may come in. `known`: an epoch of its name that is over.
    pub(super) fn let_in(
        &mut self,
        now: Now,
        by: &Speaker,
        record: Record<'_>,
        known: Epoch,
        seeks: Option<u32>,
        out: &mut Outbox,
    ) {
        match self.config.membership {
            Membership::Full => {
                let joiner = Speaker { home: Some(by.back), ..*by };
                self.hear_record(now, &joiner, record, out);
                if let Some(peer) = self.members.find(record.run) {
                    self.on_member_up(now, peer, true, out);
                }
                let (live, fingerprint) = (self.members.live_len() as u64, self.members.fingerprint());
                out.send(by.back, &Frame::Welcome { known_epoch: known, live, fingerprint });
                self.tell(now, by.back, self.members.local().run, out);
            }
            Membership::Partial => {
                let (live, fingerprint) = (self.members.live_len() as u64, self.island().get());
                out.send(by.back, &Frame::Welcome { known_epoch: known, live, fingerprint });
                if let Some(n) = seeks.filter(|&n| n > 0 && self.may_be_listed(&record)) {
                    let node = Contact { run: record.run, addr: record.addr };
                    let change = self.overlay.admit(cx!(self, now, out), &self.members, node, n);
                    self.relink(now, change, Some((by, record)), out);
                }
            }
        }
    }

    /// We are in.
    pub(super) fn on_welcome(
        &mut self,
        now: Now,
        by: &Speaker,
        known: Epoch,
        live: u64,
        fingerprint: u64,
        out: &mut Outbox,
    ) {
        // The first table, or nearly everything differs: pull it. Else the differences are found by digest.
        let mine = self.members.live_len() as u64;
        let most = !self.contacts.has_table() || mine * 4 <= live;
        let lists_all = self.config.membership == Membership::Full;
        let pull = lists_all && fingerprint != self.members.fingerprint() && most;
        if !self.contacts.on_welcome(cx!(self, now, out), by.run, pull) {
            return;
        }
        self.surpass(now, known);
        self.touch(now, out);
        if !lists_all {
            self.compare_islands(now, by, fingerprint, out);
        } else if !pull && live > 1 {
            self.exchange(now, by.back, out);
        }
        self.contact_tick(now, out);
    }

    /// Whom we have called is connected with somebody else than we are: each side makes room for one link.
    fn compare_islands(&mut self, now: Now, by: &Speaker, root: u64, out: &mut Outbox) {
        let same = self.island().get() == root || self.overlay.neighbours().is_empty();
        self.contacts.rest(same);
        if !same {
            self.counters.islands += 1;
            let was_asked = self.overlay.seeks(now.mono, &self.config) > 0;
            self.overlay.open_up(now.mono + self.config.join_timeout);
            if !was_asked {
                self.contacts.call(cx!(self, now, out), by.from, None);
            }
        }
    }

    /// They may become neighbours.
    pub(super) fn keep_in_mind<'a>(&mut self, now: Now, records: impl Iterator<Item = Record<'a>>) -> usize {
        // Nothing is said in this turn.
        let mut out = Outbox::new(self.config.max_datagram);
        let before = self.overlay.load().1;
        for Record { run, addr, .. } in records {
            self.overlay.suggest(cx!(self, now, &mut out), &self.members, Contact { run, addr });
        }
        self.overlay.load().1 - before
    }

    // --- who is listed ---

    /// Whether to listen to a record: where not all are listed, only to what its owner says, and only if we know it; or to who holds
    /// our own name.
    pub(super) fn may_hear(&self, by: &Speaker, record: &Record<'_>) -> bool {
        match self.config.membership {
            Membership::Full => true,
            Membership::Partial if *record.name == *self.members.local().name => true,
            Membership::Partial => by.run == record.run && by.home.is_some(),
        }
    }

    /// It is whom we know, or nobody has a better right to its name.
    fn may_be_listed(&self, record: &Record<'_>) -> bool {
        let known = self.members.find(record.run).and_then(|peer| self.members.get(peer));
        known.is_none_or(|e| *e.name == *record.name && e.status != MemberState::Left) && self.holder(record).is_none()
    }

    /// The run with a better right to its name.
    fn holder(&self, record: &Record<'_>) -> Option<Peer> {
        let peer = self.members.find_name(record.name)?;
        let holder = self.members.get(peer).filter(|holder| holder.run != record.run)?;
        (peer == self.members.me() || (holder.epoch, holder.run) > (record.epoch, record.run)).then_some(peer)
    }

    /// Who cannot be listed is told who holds its name: if that one is gone, it outdoes it; else the name is lost.
    fn object(&mut self, now: Now, to: Destination, record: &Record<'_>, out: &mut Outbox) {
        if let Some(holder) = self.holder(record).and_then(|peer| self.members.get(peer)) {
            out.send(to, &Frame::Record(self.telling.record(now.mono, &self.config, holder)));
        }
    }

    /// NEIGHBOR, by anybody.
    pub(super) fn on_neighbor(
        &mut self,
        now: Now,
        by: &Speaker,
        urgent: bool,
        record: Option<Record<'_>>,
        out: &mut Outbox,
    ) {
        let Some(Introduced { node, back, met }) = self.introduced(by, record) else {
            return self.counters.unexpected += 1;
        };
        if let Some(record) = met.as_ref().filter(|record| !self.may_be_listed(record)) {
            self.overlay.answer(cx!(self, now, out), &self.members, back, false);
            return self.object(now, back, record, out);
        }
        let change = self.overlay.on_neighbor(cx!(self, now, out), &self.members, node, back, urgent);
        self.end_of_talk(now, by, change, met, out);
    }

    /// NEIGHBOR_REPLY, by anybody.
    pub(super) fn on_neighbor_reply(
        &mut self,
        now: Now,
        by: &Speaker,
        accepted: bool,
        record: Option<Record<'_>>,
        out: &mut Outbox,
    ) {
        let Some(Introduced { node, back, met }) = self.introduced(by, record) else {
            return self.counters.unexpected += 1;
        };
        let unfit = met.as_ref().filter(|record| !self.may_be_listed(record));
        if let Some(record) = unfit.filter(|_| accepted) {
            out.send(back, &Frame::Disconnect { instead: None });
            self.object(now, back, record, out);
        }
        let fits = unfit.is_none();
        let change = self.overlay.on_reply(cx!(self, now, out), &self.members, node, accepted && fits);
        self.end_of_talk(now, by, change, met, out);
    }

    fn introduced<'a>(&self, by: &Speaker, record: Option<Record<'a>>) -> Option<Introduced<'a>> {
        let back = Destination { via: Via::Stream, ..by.home.unwrap_or(by.back) };
        match self.config.membership {
            Membership::Full => {
                Some(Introduced { node: Contact { run: by.run, addr: by.home?.addr }, back, met: None })
            }
            Membership::Partial => {
                let record = record.filter(|record| record.run == by.run)?;
                let node = Contact { run: by.run, addr: record.addr };
                Some(Introduced { node, back, met: Some(Record { age: 0, ..record }) })
            }
        }
    }

    fn end_of_talk(&mut self, now: Now, by: &Speaker, change: Change, met: Option<Record<'_>>, out: &mut Outbox) {
        let Some(record) = met else { return self.relink(now, change, None, out) };
        self.relink(now, change, Some((by, record)), out);
        if change.up.is_none() && by.home.is_some() && self.may_be_listed(&record) {
            // Each shuffle brings it again, with all that it tells about itself.
            self.hear_record(now, by, record, out);
        }
    }

    /// A neighbour is listed as long as it is one.
    pub(super) fn befriend(&mut self, now: Now, by: &Speaker, record: Record<'_>, out: &mut Outbox) {
        let home = Destination { addr: record.addr, run: Some(record.run), via: by.back.via };
        let peer = self.members.find(record.run);
        match peer.filter(|&peer| self.members.get(peer).is_some_and(|e| !e.is_live())) {
            Some(peer) => self.revive(now, peer, out),
            None => self.hear_record(now, &Speaker { home: Some(home), ..*by }, record, out),
        }
        self.neighbourhood.acquaintances.retain(|&(_, run)| run != record.run);
        self.neighbourhood.keepalive.watch(now.mono, record.run, self.config.probe_interval);
    }

    /// Who was a neighbour stays known for a while: what was on its way arrives, and questions are answered.
    pub(super) fn estrange(&mut self, now: Now, run: RunId, out: &mut Outbox) {
        if self.config.membership == Membership::Full {
            return;
        }
        self.neighbourhood.keepalive.forget(run);
        self.contacts.on_loss(now.mono, &self.config);
        let Some(peer) = self.members.find(run) else { return };
        let Some(entry) = self.members.get(peer).filter(|e| e.is_live()) else { return };
        // It may have parted from us; it may be dead.
        self.probe.ping(cx!(self, now, out), &self.members, peer, entry);
        self.acquaint_with(now, run, out);
    }

    fn acquaint_with(&mut self, now: Now, run: RunId, out: &mut Outbox) {
        let acquaintances = &mut self.neighbourhood.acquaintances;
        acquaintances.retain(|&(_, known)| known != run);
        acquaintances.push_back((now.mono + self.config.link_idle, run));
        while let Some(&(until, run)) = self.neighbourhood.acquaintances.front() {
            if until > now.mono && self.neighbourhood.acquaintances.len() <= ACQUAINTANCES_MAX {
                return;
            }
            self.neighbourhood.acquaintances.pop_front();
            self.dismiss(run, out);
        }
    }

    /// Nothing is wrong with it; it is only none of ours.
    fn dismiss(&mut self, run: RunId, out: &mut Outbox) {
        let Some(peer) = self.members.find(run) else { return };
        if self.members.get(peer).is_some_and(|e| e.is_live()) && !self.overlay.is_neighbour(run) {
            self.part_with(run, out);
            self.strike_off(peer, out);
        }
    }

    /// It was held for dead, and speaks to us.
    fn revive(&mut self, now: Now, peer: Peer, out: &mut Outbox) {
        let before = self.picture(peer);
        if before.as_ref().is_some_and(|b| b.state == MemberState::Dead) {
            self.change(peer, |e| e.hear(now.mono));
            self.set_status(now, peer, MemberState::Alive, 0);
            self.report(EventKind::Alive, peer, before, out);
            self.on_member_up(now, peer, false, out);
        }
    }

    /// Somebody is listed, or alive again.
    pub(super) fn place(&mut self, now: Now, run: RunId, by_us: bool, out: &mut Outbox) {
        match self.config.membership {
            Membership::Full => {
                let change = self.overlay.on_member(cx!(self, now, out), &self.members, run, by_us);
                self.relink(now, change, None, out);
            }
            Membership::Partial if !self.overlay.is_neighbour(run) => self.acquaint_with(now, run, out),
            Membership::Partial => {}
        }
    }

    // --- how they fare ---

    /// Our own probe got no answer, from it or anybody we asked.
    pub(super) fn on_silence(&mut self, now: Now, peer: Peer, out: &mut Outbox) {
        self.counters.silent += 1;
        if self.config.membership == Membership::Full {
            return self.doubt(now, peer, out);
        }
        if let Some(entry) = self.members.get(peer).filter(|e| e.is_live()) {
            let told = Told { run: entry.run, status: MemberState::Dead, incarnation: entry.incarnation, age: 0 };
            self.become_so(now, peer, told, iter::empty(), out);
        }
    }

    /// What comes with a PING: what goes back with the ACK.
    pub(super) fn on_ping_word(&mut self, now: Now, by: &Speaker, beat: u64, word: u64) -> (u64, u64) {
        if self.config.membership == Membership::Partial {
            self.hear_word(now, by, beat, word);
            // Who is no member may be told by anybody: it is nothing that it can use.
            return by.home.map_or((0, 0), |_| self.word(now));
        }
        self.probe.hear_beat(now.mono, beat);
        // To a stranger the shortest: with the question that follows it must not be larger than the ping.
        match by.home {
            Some(_) => (self.probe.beat(now.mono), self.members.fingerprint()),
            None => (0, 0),
        }
    }

    /// What comes with an ACK of its target's own.
    pub(super) fn on_ack_word(&mut self, now: Now, by: &Speaker, beat: u64, word: u64, out: &mut Outbox) {
        let Some(home) = by.home else { return };
        match self.config.membership {
            Membership::Full => self.antientropy.on_fingerprint(cx!(self, now, out), &self.members, home, word),
            Membership::Partial => self.hear_word(now, by, beat, word),
        }
    }

    fn hear_word(&mut self, now: Now, by: &Speaker, beat: u64, root: u64) {
        if self.overlay.is_neighbour(by.run) {
            self.neighbourhood.keepalive.hear(now.mono, by.run, self.config.probe_interval);
            if let Some(root) = RunId::new(root) {
                self.neighbourhood.island.hear(now.mono, root, beat);
            }
        }
    }

    fn word(&mut self, now: Now) -> (u64, u64) {
        let (root, beat) = self.neighbourhood.island.word(now.mono, self.config.probe_interval);
        self.probe.say(beat, root.get());
        (beat, root.get())
    }

    /// A ping from somebody who is no live member in our table. True: that was all.
    pub(super) fn set_straight(&mut self, now: Now, by: &Speaker, out: &mut Outbox) -> bool {
        if self.config.membership == Membership::Full {
            return false;
        }
        match self.members.find(by.run) {
            None => self.counters.unknown_sender += 1,
            Some(peer) => self.revive(now, peer, out),
        }
        if !self.overlay.is_neighbour(by.run) {
            // It may hold us for a neighbour; or it asks for somebody who does.
            out.send(by.back, &Frame::Disconnect { instead: None });
        }
        true
    }

    /// Frames of the overlay and the tree, by somebody who is no live member in our table.
    pub(super) fn on_strangers_word(&mut self, now: Now, by: &Speaker, frame: Frame<'_>, out: &mut Outbox) {
        if self.config.membership == Membership::Full || !matches!(self.life, Life::Member) {
            self.counters.unexpected += 1;
            return;
        }
        if let Some(home) = self.home(by.run, by.back.via) {
            // It has become one by what was said earlier in this packet.
            return self.on_broadcast_frame(now, &Speaker { home: Some(home), ..*by }, home, frame, out);
        }
        match frame {
            Frame::Neighbor { urgent, record } => self.on_neighbor(now, by, urgent, record, out),
            Frame::NeighborReply { accepted, record } => self.on_neighbor_reply(now, by, accepted, record, out),
            Frame::ShuffleReply { contacts } => {
                self.overlay.on_shuffle_reply(cx!(self, now, out), &self.members, contacts);
            }
            Frame::Disconnect { .. } => {}
            _ => {
                self.counters.unexpected += 1;
                out.send(by.back, &Frame::Disconnect { instead: None });
            }
        }
    }

    // --- news ---

    /// What has changed about a member is told.
    pub(super) fn spread(&mut self, now: Now, about: Peer, aspect: Aspect) {
        match self.config.membership {
            Membership::Full => self.rumors.start(now.mono, &self.config, Rumor { about, aspect }),
            Membership::Partial => self.neighbourhood.changed |= about == self.members.me(),
        }
    }

    /// All whom we list are told of ourselves, if there is something to tell.
    pub(super) fn tell_of_us(&mut self, now: Now, out: &mut Outbox) {
        if !core::mem::take(&mut self.neighbourhood.changed) {
            return;
        }
        let Engine { members, telling, config, .. } = self;
        let me = members.local();
        for (_, entry) in members.live().filter(|(_, e)| e.run != me.run) {
            let to = Destination { via: Via::Stream, ..entry.to() };
            match me.is_live() {
                true => out.send(to, &Frame::Record(telling.record(now.mono, config, me))),
                false => out.send(to, &telling.status(now.mono, me, iter::empty())),
            }
        }
    }

    // --- time ---

    pub(super) fn membership_deadline(&self) -> Option<Instant> {
        let acquaintance = self.neighbourhood.acquaintances.front().map(|&(until, _)| until);
        self.neighbourhood.keepalive.deadline().into_iter().chain(acquaintance).min()
    }

    /// After the overlay's own.
    pub(super) fn membership_tick(&mut self, now: Now, out: &mut Outbox) {
        if self.config.membership == Membership::Full {
            return;
        }
        if self.overlay.was_stuck(&self.config) {
            self.contacts.hurry(now.mono, &self.config);
        }
        let interval = self.config.probe_interval;
        while let Some(run) = self.neighbourhood.keepalive.on_deadline(now.mono, interval) {
            self.word(now);
            let Some(peer) = self.members.find(run) else { continue };
            if let Some(entry) = self.members.get(peer).filter(|e| e.is_live()) {
                self.probe.ping(cx!(self, now, out), &self.members, peer, entry);
            }
        }
        while let Some(&(_, run)) = self.neighbourhood.acquaintances.front().filter(|&&(until, _)| until <= now.mono) {
            self.neighbourhood.acquaintances.pop_front();
            self.dismiss(run, out);
        }
    }
}
