//! What news does to the table, to rumors, and to the application.

use alloc::vec::Vec;
use core::iter;

use super::frames::Speaker;
use super::mutant::Mutant;
use super::picture::Warning;
use super::{Engine, Life, cx};
use crate::collection::state::{Applied, State};
use crate::config::{Detector, Membership};
use crate::id::{Epoch, Incarnation, Peer, RunId, Version};
use crate::members::{self, Ruling};
use crate::outbox::{Destination, Outbox, Via};
use crate::protocol::Cx;
use crate::protocol::contest::Standing;
use crate::protocol::damping::{Accusation, Answer};
use crate::protocol::doubt;
use crate::protocol::rumor::{Aspect, Rumor};
use crate::protocol::suspicion::{self, Accused, Terms};
use crate::rng::mix;
use crate::time::{Duration, Now};
use crate::view::{EventKind, MemberState, changed};
use crate::wire::frame::{Entries, Frame, Record};

/// Suspects that are asked at once when a silence ends; the others hear of it with the next probe that they get.
const REMINDED_MAX: usize = 4;

/// How somebody is said to fare.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub run: RunId,
    pub status: MemberState,
    pub incarnation: Incarnation,
    /// Seconds since it came to be so; known of the dead and the left.
    pub age: u64,
}

impl Engine {
    /// A whole record.
    pub(super) fn hear_record(&mut self, now: Now, by: &Speaker, record: Record<'_>, out: &mut Outbox) {
        if record.run == self.members.local().run {
            let told = Told { run: record.run, status: MemberState::Alive, incarnation: record.incarnation, age: 0 };
            if record.epoch > self.members.local().epoch {
                // Our WELCOME was lost: others know us in a higher epoch than we do.
                self.surpass(now, Epoch(record.epoch.0 - 1));
            }
            return self.hear_of_us(now, by, told, out);
        }
        if record.name == &*self.members.local().name {
            return self.hear_of_namesake(now, record, out);
        }
        if let Some(peer) = self.members.find(record.run) {
            if self.members.get(peer).is_some_and(|e| *e.name != *record.name) {
                self.counters.unexpected += 1;
                return;
            }
            self.hear_again(now, peer, by, record, out);
        } else if let Some(peer) = self.members.find_name(record.name) {
            self.hear_of_other_run(now, peer, by, record, out);
        } else if by.run != record.run && Duration::from_secs(record.age) > self.out_of_touch(now) {
            // The teller has been away for longer than a death takes: see for ourselves.
            self.counters.probed_first += 1;
            self.contacts.call(cx!(self, now, out), record.addr, None);
            self.contact_tick(now, out);
        } else {
            self.hear_of_newcomer(now, by, record, out);
        }
    }

    fn hear_of_newcomer(&mut self, now: Now, by: &Speaker, record: Record<'_>, out: &mut Outbox) {
        if self.members.is_full() && !self.make_room(out) {
            self.counters.members_full += 1;
            return;
        }
        let mut entry = members::entry(&record, Engine::name(&record), MemberState::Alive, now.mono);
        if self.is(Mutant::Dreamer) {
            entry.run = RunId::new(mix(entry.run.get())).expect("mixing keeps what is not zero so");
        }
        let Some(peer) = self.members.insert(entry) else { return };
        self.newcomer = now.mono;
        self.introduce(now, peer, by, &record, out);
        self.spread(now, peer, Aspect::Record);
        self.rumors.hasten(now.mono, &self.config);
        self.report(EventKind::Join, peer, None, out);
        self.on_member_up(now, peer, false, out);
    }

    /// A run that we know. Only its owner changes its address or versions, and raises the incarnation for it.
    fn hear_again(&mut self, now: Now, peer: Peer, by: &Speaker, record: Record<'_>, out: &mut Outbox) {
        let Some(entry) = self.members.get(peer) else { return };
        let (moved, older) = (!entry.is_at(record.addr), entry.epoch < record.epoch);
        match self.rule((entry.status, entry.incarnation), (MemberState::Alive, record.incarnation)) {
            Ruling::News => {
                let refuted = record.incarnation.0.saturating_sub(entry.incarnation.0);
                let before = self.picture(peer);
                self.damping.on_others(now.mono, &self.config, refuted);
                self.change(peer, |e| {
                    e.move_to(record.addr);
                    e.epoch = e.epoch.max(record.epoch);
                    e.app_version = record.app_version;
                    e.incarnation = record.incarnation;
                    e.hear(now.mono);
                });
                self.set_status(now, peer, MemberState::Alive, 0);
                self.take_state(now, by, &record, out);
                self.spread(now, peer, Aspect::Record);
                let kind = match before.as_ref().map(|b| b.state) {
                    Some(MemberState::Alive) if moved => Some(EventKind::Update),
                    Some(MemberState::Alive) | None => None,
                    Some(_) => Some(EventKind::Alive),
                };
                match kind {
                    Some(kind) => self.report(kind, peer, before, out),
                    None => self.touched(),
                }
                if kind == Some(EventKind::Alive) {
                    self.on_member_up(now, peer, false, out);
                }
            }
            Ruling::Known => {
                if Duration::from_secs(record.age) <= self.config.probe_interval * 2 {
                    self.members.note(peer).into_iter().for_each(|e| e.hear(now.mono));
                }
                if older {
                    // It learned of an earlier life that was ahead of it (see `surpass`).
                    self.change(peer, |e| e.epoch = record.epoch);
                    self.touched();
                    self.spread(now, peer, Aspect::Record);
                }
                self.take_state(now, by, &record, out);
            }
            Ruling::Stale => {
                self.accuse_back(now, peer, by, out);
            }
        }
    }

    /// Another life of a name that we know: the higher epoch wins, whatever the states.
    fn hear_of_other_run(&mut self, now: Now, peer: Peer, by: &Speaker, record: Record<'_>, out: &mut Outbox) {
        let Some(entry) = self.members.get(peer) else { return };
        let old = entry.run;
        if (record.epoch, record.run) < (entry.epoch, old) {
            if entry.is_live() || by.run == record.run {
                // It may be that run itself that speaks: it has lost its name and does not know.
                let told = self.telling.record(now.mono, &self.config, entry);
                out.send(by.back, &Frame::Record(Record { state: Entries(&[]), ..told }));
            } else {
                // A life before one that is over, too.
                out.send(by.back, &Frame::Dead { run: record.run, incarnation: record.incarnation, age: 0 });
            }
            return;
        }
        let before = self.picture(peer);
        self.doubts.end(peer);
        self.suspicions.clear(peer);
        self.probe.forget(old);
        self.part_with(old, out);
        self.lanes.forget(old);
        self.pulls.remove(&peer);
        self.change(peer, |e| e.begin(&record, now.mono));
        self.introduce(now, peer, by, &record, out);
        self.stalls.forget(peer);
        for aspect in Aspect::ALL {
            self.rumors.stop(Rumor { about: peer, aspect });
        }
        self.spread(now, peer, Aspect::Record);
        self.report(EventKind::Alive, peer, before, out);
        self.on_member_down(now, old, out);
        self.on_member_up(now, peer, false, out);
    }

    /// How a run is said to fare.
    pub(super) fn hear(
        &mut self,
        now: Now,
        by: &Speaker,
        told: Told,
        accusers: impl Iterator<Item = RunId>,
        out: &mut Outbox,
    ) {
        if told.run == self.members.local().run {
            return self.hear_of_us(now, by, told, out);
        }
        let Some(peer) = self.members.find(told.run) else {
            // Unknown, and dead or left: nothing to us. Unknown and alive: who is that?
            if told.status == MemberState::Alive && (by.home.is_some() || by.run == told.run) {
                let runs = self.telling.runs(iter::once(told.run));
                out.send(by.back, &Frame::Want { runs });
            }
            return;
        };
        let Some(entry) = self.members.get(peer) else { return };
        let hasty = self.is(Mutant::Hasty) || self.imitates_memberlist();
        match self.rule((entry.status, entry.incarnation), (told.status, told.incarnation)) {
            Ruling::News if told.status == MemberState::Dead && !hasty => {
                self.hear_of_death(now, peer, by, told, out);
            }
            Ruling::News => self.become_so(now, peer, told, accusers, out),
            Ruling::Known if told.status == MemberState::Suspect => {
                self.accuse(now, peer, told.incarnation, accusers);
            }
            Ruling::Known => {}
            Ruling::Stale if told.status == MemberState::Alive => self.accuse_back(now, peer, by, out),
            Ruling::Stale => {}
        }
    }

    /// Departure from SWIM §4.2, where Confirm overrides at once: who suspects behind a bad link, and gets its verdict
    /// through but not its suspicion, would kill the living. A death that we did not see coming is a suspicion, for as
    /// long as a refutation may need to get here, and as long as whoever stalls is to be given.
    /// Nearly all have heard of the suspicion long before, and lose no time.
    fn hear_of_death(&mut self, now: Now, peer: Peer, by: &Speaker, told: Told, out: &mut Outbox) {
        if self.members.get(peer).is_some_and(|e| e.status == MemberState::Alive) {
            let suspect = Told { status: MemberState::Suspect, ..told };
            self.become_so(now, peer, suspect, iter::once(by.run), out);
        }
        // Who says so may not have heard that it stalls.
        let patience = self.stalls.patience(now.mono, &self.config, self.members.live_len(), peer);
        let (pace, grace) = (self.pace(), patience.max(self.config.probe_interval));
        if self.suspicions.hasten(self.hearing.time(now.mono, pace), peer, grace) {
            self.become_so(now, peer, told, iter::empty(), out);
        }
    }

    pub(super) fn become_so(
        &mut self,
        now: Now,
        peer: Peer,
        told: Told,
        accusers: impl Iterator<Item = RunId>,
        out: &mut Outbox,
    ) {
        let before = self.picture(peer);
        let known = self.members.get(peer).map_or(told.incarnation, |e| e.incarnation);
        let died = u64::from(told.status == MemberState::Dead);
        self.damping.on_others(now.mono, &self.config, told.incarnation.0.saturating_sub(known.0) + died);
        self.change(peer, |e| {
            e.incarnation = e.incarnation.max(told.incarnation);
            if told.status == MemberState::Alive {
                e.hear(now.mono);
            }
        });
        self.set_status(now, peer, told.status, told.age);
        if told.status >= MemberState::Dead {
            self.part_with(told.run, out);
        }
        let kind = match told.status {
            MemberState::Alive => EventKind::Alive,
            MemberState::Suspect => EventKind::Suspect,
            MemberState::Dead => EventKind::Dead,
            MemberState::Left => EventKind::Left,
        };
        if told.status == MemberState::Suspect {
            self.counters.suspicions += 1;
            self.accuse(now, peer, told.incarnation, accusers);
            self.lend_a_probe(now, peer, out);
        }
        self.rumors.stop(Rumor { about: peer, aspect: Aspect::Record });
        self.spread(now, peer, Aspect::Status);
        let kept = self.is(Mutant::Secretive) && kind == EventKind::Suspect;
        match kept || before.as_ref().is_some_and(|b| b.state == told.status) {
            true => self.touched(),
            false => self.report(kind, peer, before, out),
        }
        match told.status {
            MemberState::Alive => self.on_member_up(now, peer, false, out),
            MemberState::Suspect => {}
            MemberState::Dead | MemberState::Left => self.on_member_down(now, told.run, out),
        }
    }

    /// Our own probe got no answer, from it or anybody we asked. Where few could be asked, it is asked again first.
    pub(super) fn doubt(&mut self, now: Now, peer: Peer, out: &mut Outbox) {
        let (live, heard) = (self.members.live_len(), self.hearing.time(now.mono, self.pace()));
        let alive = self.members.get(peer).is_some_and(|e| e.status == MemberState::Alive);
        let shortest = suspicion::timeout(&self.config, live, usize::MAX);
        let span = doubt::span(&self.config, live, shortest).filter(|_| alive && !self.imitates_memberlist());
        if !span.is_some_and(|span| self.doubts.begin(now.mono, heard, span, peer)) {
            self.suspect(now, peer, out);
        }
    }

    /// Somebody has been silent for too long.
    pub(super) fn suspect(&mut self, now: Now, peer: Peer, out: &mut Outbox) {
        if self.damping.is_held(now.mono, &self.config) {
            return;
        }
        let me = self.members.local().run;
        let Some(entry) = self.members.get(peer) else { return };
        let incarnation = if self.is(Mutant::Usurper) { entry.incarnation.next() } else { entry.incarnation };
        let told = Told { run: entry.run, status: MemberState::Suspect, incarnation, age: 0 };
        match entry.status {
            MemberState::Alive => self.become_so(now, peer, told, iter::once(me), out),
            MemberState::Suspect => self.accuse(now, peer, told.incarnation, iter::once(me)),
            MemberState::Dead | MemberState::Left => {}
        }
    }

    fn accuse(&mut self, now: Now, peer: Peer, incarnation: Incarnation, accusers: impl Iterator<Item = RunId>) {
        let (me, live) = (self.members.local().run, self.members.live_len());
        let heard = self.hearing.time(now.mono, self.pace());
        // Whom we doubt we accuse as well, and have done so since then.
        let doubted = self.doubts.end(peer);
        let accusers = accusers.chain(doubted.map(|_| me));
        let since = doubted.map_or(heard, |since| since.min(heard));
        let terms = Terms { live, patience: self.stalls.patience(now.mono, &self.config, live, peer) };
        match self.suspicions.accuse(since, &self.config, terms, peer, incarnation, accusers) {
            // Lifeguard §IV-B: independent confirmations are gossiped on.
            Accused::New | Accused::Confirmed => self.spread(now, peer, Aspect::Status),
            Accused::Known => {}
        }
    }

    /// A ping that has no consequence but its answer.
    pub(super) fn ask(&mut self, now: Now, peer: Peer, out: &mut Outbox) {
        if let Some(to) = self.members.get(peer).map(|e| e.to()) {
            self.probe.ask(cx!(self, now, out), &self.members, to);
        }
    }

    /// We were not scheduled for a while: others are told.
    pub(super) fn own_up(&mut self, now: Now) {
        let me = self.members.me();
        let heeded = self.config.membership == Membership::Full && self.config.stall_patience.0 > 0;
        if self.stalls.on_tick(now.mono, me) && heeded && matches!(self.life, Life::Member) {
            self.counters.stalls_told += 1;
            self.spread(now, me, Aspect::Stall);
        }
    }

    /// Somebody was not scheduled for a while, and shall have more time to refute.
    pub(super) fn hear_of_stall(&mut self, now: Now, run: RunId, left: Duration) {
        let Some(peer) = self.members.find(run).filter(|&peer| peer != self.members.me()) else { return };
        // Also while it is held for dead: it may be on its way back.
        if self.stalls.hear(now.mono, peer, left) {
            self.spread(now, peer, Aspect::Stall);
        }
    }

    /// A suspicion asks others to look at once: those whom a hash of (us, accused) chooses, `suspicion_probes` of all.
    fn lend_a_probe(&mut self, now: Now, peer: Peer, out: &mut Outbox) {
        let Some(entry) = self.members.get(peer) else { return };
        let me = self.members.local().run;
        let lot = mix(me.get() ^ mix(entry.run.get() ^ entry.incarnation.0));
        let share = (self.config.suspicion_probes as u128) << 64;
        if u128::from(lot) * (self.members.live_len() as u128) < share {
            match self.config.detector {
                Detector::Swim => self.probe.ping(cx!(self, now, out), &self.members, peer, entry),
                // Its answer is a sign of life, and no answer is no news.
                Detector::Phi => self.probe.ask(cx!(self, now, out), &self.members, entry.to()),
            }
        }
    }

    /// A suspect gets its chance to refute: by stream as well, because a network that swallows datagrams is no death.
    pub(super) fn call_upon(&mut self, now: Now, peer: Peer, out: &mut Outbox) {
        let Some(entry) = self.members.get(peer).filter(|e| e.status == MemberState::Suspect) else { return };
        let to = entry.to();
        self.probe.ask(cx!(self, now, out), &self.members, to);
        if self.config.stream_ping {
            self.probe.ask(cx!(self, now, out), &self.members, Destination { via: Via::Stream, ..to });
        }
    }

    /// We can hear again. What we said meanwhile may have reached nobody, and what was answered did not reach us.
    pub(super) fn remind_suspects(&mut self, now: Now, out: &mut Outbox) {
        let suspects: Vec<Peer> = self.suspicions.soonest().take(REMINDED_MAX).collect();
        for peer in suspects {
            self.ask(now, peer, out);
        }
    }

    /// A suspicion ran out against somebody who is heard all the same: it begins anew.
    pub(super) fn adjourn(&mut self, now: Now, peer: Peer, out: &mut Outbox) {
        let Some(entry) = self.members.get(peer).filter(|e| e.status == MemberState::Suspect) else { return };
        self.accuse(now, peer, entry.incarnation, iter::empty());
        self.call_upon(now, peer, out);
    }

    /// A suspicion ran out. The dead are told, too: if it is not true they will say so.
    pub(super) fn declare_dead(&mut self, now: Now, peer: Peer, out: &mut Outbox) {
        let Some(entry) = self.members.get(peer).filter(|e| e.status == MemberState::Suspect) else { return };
        let (to, told) =
            (entry.to(), Told { run: entry.run, status: MemberState::Dead, incarnation: entry.incarnation, age: 0 });
        self.become_so(now, peer, told, iter::empty(), out);
        if let Some(entry) = self.members.get(peer).filter(|_| self.config.buddy) {
            out.send(to, &self.telling.status(now.mono, entry, iter::empty()));
        }
    }

    pub(super) fn set_status(&mut self, now: Now, peer: Peer, status: MemberState, age: u64) {
        self.change(peer, |e| {
            if e.status != status {
                e.status = status;
                e.since = now.mono - Duration::from_secs(age);
            }
        });
        if status != MemberState::Suspect {
            self.doubts.end(peer);
            self.suspicions.clear(peer);
        }
        if status == MemberState::Alive {
            self.heartbeats.on_life(now.mono, peer);
        }
        if status >= MemberState::Dead {
            if status == MemberState::Dead {
                self.counters.deaths += 1;
                self.bury(now, peer);
            }
            if let Some(run) = self.members.get(peer).map(|e| e.run) {
                self.probe.forget(run);
            }
            self.look_for_forgettable(now);
        }
    }

    /// SWIM §4.2: only we can raise our incarnation, and we do so to refute.
    fn hear_of_us(&mut self, now: Now, by: &Speaker, told: Told, out: &mut Outbox) {
        let ours = self.members.local().incarnation;
        let accused = matches!(told.status, MemberState::Suspect | MemberState::Dead);
        if accused && told.incarnation < ours && matches!(self.life, Life::Member) && !self.imitates_memberlist() {
            // Refuted already, but this one has not heard it: nobody else will tell it while it holds us for dead.
            out.send(by.back, &Frame::Alive { run: told.run, incarnation: ours });
            return;
        }
        let refute = match told.status {
            MemberState::Suspect | MemberState::Dead => told.incarnation >= ours,
            // Somebody tells of an incarnation that we never had. Outdo it, or we could not refute.
            MemberState::Alive => told.incarnation > ours,
            MemberState::Left => false,
        };
        if !refute || !matches!(self.life, Life::Member) || (accused && self.holds_back(now, told.status, out)) {
            return;
        }
        if self.is(Mutant::Resigned) {
            return;
        }
        if told.status != MemberState::Alive {
            self.counters.refutations += 1;
            // Lifeguard §IV-A: having to refute is a reason to doubt ourselves.
            self.probe.doubt_ourselves(1, &self.config);
        }
        let (me, believes) = (self.members.me(), self.is(Mutant::Gullible));
        self.change(me, |e| {
            e.incarnation = told.incarnation.max(ours).next();
            e.status = if believes { told.status } else { e.status };
        });
        self.touched();
        self.spread(now, me, Aspect::Status);
    }

    /// Our own link is so bad that we had better not come back yet.
    fn holds_back(&mut self, now: Now, status: MemberState, out: &mut Outbox) -> bool {
        let accusation = if status == MemberState::Dead { Accusation::Dead } else { Accusation::Suspect };
        let (failing, live) = (self.probe.is_failing(now.mono, &self.config), self.members.live_len());
        match self.damping.on_accused(now.mono, &self.config, accusation, failing, live) {
            Answer::Refute => return false,
            Answer::Hold { first } if first => {
                let text =
                    || "others hold this node for dead, again: it comes back when its probes are answered".into();
                self.warn(now, Warning::Held, text, out);
            }
            Answer::Hold { .. } => {}
        }
        self.counters.held_back += 1;
        true
    }

    /// A run of our own name. If it is over, we outdo its epoch; if it lives and is ahead, the name is lost.
    fn hear_of_namesake(&mut self, now: Now, record: Record<'_>, out: &mut Outbox) {
        let me = self.members.local();
        if (record.epoch, record.run) < (me.epoch, me.run) {
            return;
        }
        if me.is_at(record.addr) {
            // Where we are now, nobody else is.
            return self.surpass(now, record.epoch);
        }
        let at = Destination { addr: record.addr, run: Some(record.run), via: Via::Datagram };
        // Others list it: were it dead, they would find out within this time.
        let patience = self.probe.longest(&self.config) + suspicion::timeout(&self.config, self.members.live_len(), 0);
        match self.contest(now, record.run, at, patience, out) {
            Standing::Ask | Standing::Waiting => {}
            Standing::Silent => self.surpass(now, record.epoch),
            Standing::Answered => self.lose_name(now, record, out),
        }
    }

    fn lose_name(&mut self, now: Now, record: Record<'_>, out: &mut Outbox) {
        self.end_farewell(out);
        self.contacts.abandon(out);
        self.life = Life::Silent;
        let winner = members::entry(&record, Engine::name(&record), MemberState::Alive, now.mono);
        self.conflict(&winner, out);
    }

    /// The metadata that a run is introduced with: the JOIN or ALIVE that follows shows it.
    fn introduce(&mut self, now: Now, peer: Peer, by: &Speaker, record: &Record<'_>, out: &mut Outbox) {
        if record.state.0.is_empty() {
            return self.take_state(now, by, record, out);
        }
        let mut applied = Applied::Known;
        self.change(peer, |e| applied = e.state.apply(Version(0), record.version, true, record.state));
        self.counters.state_refused += u64::from(applied == Applied::TooBig);
    }

    /// Takes what a record says of the metadata of a member that is listed.
    fn take_state(&mut self, now: Now, by: &Speaker, record: &Record<'_>, out: &mut Outbox) {
        if record.version == Version(0) {
            return;
        }
        if record.state.0.is_empty() {
            return self.hear_version(now, by, record.run, record.version, out);
        }
        self.hear_state(now, by, record.run, record.version, out, |s| {
            s.apply(Version(0), record.version, true, record.state)
        });
    }

    /// A change of somebody's metadata.
    pub(super) fn hear_state(
        &mut self,
        now: Now,
        by: &Speaker,
        run: RunId,
        to: Version,
        out: &mut Outbox,
        apply: impl FnOnce(&mut State) -> Applied,
    ) {
        let Some(peer) = self.members.find(run).filter(|&p| p != self.members.me()) else { return };
        let known = |e: &members::Entry| e.state.version() >= to || !e.is_live();
        if self.members.get(peer).is_none_or(known) {
            return;
        }
        let before = self.picture(peer);
        match self.members.update(peer, |e| apply(&mut e.state)) {
            Some(Applied::Changed) => {
                self.pictures.forget(peer);
                self.pulls.remove(&peer);
                self.spread(now, peer, Aspect::State);
                self.report(EventKind::Update, peer, before, out);
            }
            Some(Applied::Gap) => {
                self.pull_state(now, by, peer, out);
            }
            Some(Applied::TooBig) => self.counters.state_refused += 1,
            Some(Applied::Known) | None => {}
        }
    }

    /// There is more to know of somebody's metadata than we have: pull it from whoever told.
    pub(super) fn hear_version(&mut self, now: Now, by: &Speaker, run: RunId, version: Version, out: &mut Outbox) {
        let Some(peer) = self.members.find(run).filter(|&p| p != self.members.me()) else { return };
        if self.members.get(peer).is_none_or(|e| e.state.version() >= version) {
            return;
        }
        self.pull_state(now, by, peer, out);
    }

    /// Nobody has answered us for longer than the slowest death takes.
    pub(super) fn is_out_of_touch(&self, now: Now) -> bool {
        let quiet = self.telling.quiet(now.mono);
        // Every ACK and every tick ask: the logarithms are for a silence that may be long enough.
        quiet > self.config.probe_interval * 10 && quiet > self.out_of_touch(now)
    }

    /// For longer than the slowest death takes.
    pub(super) fn out_of_touch(&self, now: Now) -> Duration {
        let max = suspicion::timeout(&self.config, self.members.live_len().max(100), 0);
        max + self.stalls.longest(now.mono, &self.config)
            + self.heartbeats.patience(&self.config)
            + self.config.probe_interval * 10
    }
}

/// In what two pictures of one member differ.
pub(super) fn difference(before: &crate::view::Member, after: &crate::view::Member) -> u32 {
    let bit = |differs: bool, bit: u32| if differs { bit } else { 0 };
    bit(before.state != after.state, changed::STATE)
        | bit(before.meta != after.meta, changed::META)
        | bit(before.address != after.address, changed::ADDRESS)
        | bit(before.epoch != after.epoch, changed::EPOCH)
        | bit(before.incarnation != after.incarnation, changed::INCARNATION)
}
