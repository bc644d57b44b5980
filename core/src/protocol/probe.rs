//! SWIM's failure detector with Lifeguard's local health.
//!
//! Once a period each member pings one other. No ACK in time: k members are asked to ping it too, and it is
//! pinged once more by stream. No ACK from anywhere: it is silent, and what follows from that is not decided here.
//!
//! ```text
//!          ping              timeout: ping_req × k, stream ping          timeout
//!   plan ────────► Direct ─────────────────────────────────► Indirect ───────────► Silent
//!                    │ ack                                       │ ack, own or relayed
//!                    └────────────► answered ◄───────────────────┘
//! ```
//!
//! Departure from SWIM §4.3 (each member walks a shuffled list of its own): with `probe_order = permutation`
//! the members agree on who probes whom, without talking. All who know the same members have them on the same ring,
//! and a round counter rides on PING and ACK (`beat`, the greatest one wins); in round r each pings the member s
//! places after itself, where s is a hash of r between 1 and n − 1. So every member is pinged exactly once a round,
//! and because the moment inside the round depends on the *target*, exactly one period after the last time. A
//! crash meets its first unanswered ping after 0.5 periods on average and 1.0 at worst, where independent lists
//! give 1.0 and, at p99, 4.6.
//!
//! Where members' lists differ by a few, which they do while news is under way, so do the ranks and s: in that round some
//! are pinged by two and some by nobody. With independent lists it is always so, for 37 % are pinged by nobody; here it
//! is 8 % where half of all know one member more than the others. And s is another in the next round, so it
//! meets others. (An order of all by a hash of run and round, with each pinging the next, is disturbed only beside
//! the difference. But to find the next, all members must be looked at: among 10,000 that took longer than the rest
//! of what an idle node does.)
//!
//! Lifeguard §IV-A: a member whose own probes fail, or whose relays do not even answer NACK, or who is
//! late itself, has reason to doubt itself: `health` rises, and with it the timeouts and the time between probes.
//!
//! Departure: when most members die at once most relays do, too; the survivors would doubt themselves nine-fold, and need
//! minutes to see it. So whoever answered us last is among those who are asked, and its NACK clears us: the others died with
//! the target. Who is cleared looks at two more members at once, and finds from silent one to silent one what died together.
//!
//! Whose turn it is to be pinged, and when, is in `round`.

mod round;

use alloc::vec::Vec;

use self::round::Plan;
use super::Cx;
use crate::config::Config;
use crate::id::{Peer, RunId};
use crate::members::{DRAW_MAX, Entry, Members};
use crate::outbox::{Destination, Via};
use crate::time::{Duration, Instant};
use crate::view::MemberState;
use crate::wire::frame::Frame;

/// Probes under way at once: the round's own and those that suspicions ask for. More are not begun.
pub const FLIGHTS_MAX: usize = 16;

/// Pings that we relay for others at once. A flood costs the flooder its answer, not us our memory.
pub const RELAYS_MAX: usize = 64;

/// Pings whose late ACK we still recognise.
const RECENT: usize = 32;

/// Whom we ping at once where one was silent.
const LOOK_AROUND: usize = 2;

#[derive(Debug)]
pub struct Probe {
    plan: Option<Plan>,
    flights: Vec<Flight>,
    relays: Vec<Relay>,
    recent: [Option<Sent>; RECENT],
    robin: Vec<RunId>,
    seq: u64,
    /// Beat and fingerprint that PINGs carry, where they are not the table's.
    word: Option<(u64, u64)>,
    /// What must be added to our own milliseconds to get the cluster's beat.
    offset: u64,
    health: u32,
    /// How our latest probes fared, a bit each: set where no answer came in time by the direct way.
    missed: u8,
    /// When the latest of them was decided.
    judged: Instant,
    /// Who answered last. It is asked first to help: most often somebody who can.
    answered: Option<RunId>,
    /// So many probes since then ended without a word from anybody.
    unheard: u32,
    /// Who did not answer the last one that was missed: once more says something about it, and nothing about our link.
    silent: Option<RunId>,
    /// Who answered by stream, as long as it has not answered by datagram, too.
    streamed: Option<RunId>,
}

#[derive(Clone, Copy, Debug)]
struct Flight {
    seq: u64,
    peer: Peer,
    run: RunId,
    stage: Stage,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Direct {
        until: Instant,
    },
    /// `sure`: who answered last before that was asked to help; `cleared`: and said NACK.
    Indirect {
        until: Instant,
        asked: u32,
        nacks: u32,
        sure: Option<RunId>,
        cleared: bool,
    },
}

/// A ping that we sent on another's behalf.
#[derive(Clone, Copy, Debug)]
struct Relay {
    seq: u64,
    target: Destination,
    origin: Destination,
    origin_seq: u64,
    nack_at: Option<Instant>,
    until: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    seq: u64,
    run: RunId,
    at: Instant,
    /// It was a probe and no mere question.
    probe: bool,
}

/// An ACK that belongs to a ping of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Who is alive.
    pub run: RunId,
    /// From the target itself: the time it took.
    pub rtt: Option<Duration>,
    /// To a probe that had already ended.
    pub late: bool,
    /// It answered the ping by stream, and not the datagram or not yet.
    pub by_stream: bool,
    /// And so did the last that answered by stream: its answer to the datagram never came.
    pub again: bool,
}

impl Probe {
    pub fn new(first_seq: u64) -> Probe {
        Probe {
            plan: None,
            flights: Vec::new(),
            relays: Vec::new(),
            recent: [None; RECENT],
            robin: Vec::new(),
            seq: first_seq,
            word: None,
            offset: 0,
            health: 0,
            missed: 0,
            judged: Instant::ZERO,
            answered: None,
            unheard: 0,
            silent: None,
            streamed: None,
        }
    }

    /// Lifeguard's local health multiplier, less one: 0 is healthy.
    pub fn health(&self) -> u32 {
        self.health
    }

    /// Two of our latest three probes were not answered directly: whoever else has trouble, we have. Where there are no
    /// rounds the latest may be of long ago, and says nothing.
    pub fn is_failing(&self, now: Instant, config: &Config) -> bool {
        let longest = config.probe_interval * (2 + config.local_health_max as u32) + self.longest(config);
        (self.missed & 0b111).count_ones() >= 2 && now.since(self.judged) <= longest
    }

    /// Probes and relays under way, and members still to be probed in this robin.
    pub fn load(&self) -> (usize, usize, usize) {
        (self.flights.len(), self.relays.len(), self.robin.len())
    }

    /// Something suggests that the fault is ours.
    pub fn doubt_ourselves(&mut self, by: u32, config: &Config) {
        self.health = (self.health + by).min(config.local_health_max as u32);
    }

    /// We lost `lost` while others may have answered: their time is given back to them.
    pub fn give_back(&mut self, lost: Duration) {
        // What we missed then says nothing about the link.
        self.missed = 0;
        for flight in &mut self.flights {
            match &mut flight.stage {
                Stage::Direct { until } | Stage::Indirect { until, .. } => *until = *until + lost,
            }
        }
    }

    pub fn deadline(&self, config: &Config, members: &Members, now: Instant) -> Option<Instant> {
        let flights = self.flights.iter().map(|f| match f.stage {
            Stage::Direct { until } | Stage::Indirect { until, .. } => until,
        });
        let relays = self.relays.iter().map(|r| r.nack_at.unwrap_or(r.until));
        let round = self.next_round(config, members, now);
        flights.chain(relays).chain(round).min()
    }

    /// Call until it returns `None`. A peer that it returns answered neither us nor anybody we asked.
    pub fn on_deadline(&mut self, cx: &mut Cx<'_>, members: &Members) -> Option<Peer> {
        self.relays_on_deadline(cx);
        let now = cx.now.mono;
        while let Some(i) = self.flights.iter().position(|f| match f.stage {
            Stage::Direct { until } | Stage::Indirect { until, .. } => until <= now,
        }) {
            let Some(entry) = members.get(self.flights[i].peer).filter(|e| e.run == self.flights[i].run && e.is_live())
            else {
                self.flights.swap_remove(i);
                continue;
            };
            match self.flights[i].stage {
                Stage::Direct { .. } => {
                    if self.silent.replace(self.flights[i].run) != Some(self.flights[i].run) {
                        (self.missed, self.judged) = (self.missed << 1 | 1, now);
                    }
                    let stage = self.ask_others(cx, members, self.flights[i], entry);
                    self.flights[i].stage = stage;
                }
                Stage::Indirect { asked, nacks, cleared, .. } => {
                    self.unheard += u32::from(nacks == 0);
                    let flight = self.flights.swap_remove(i);
                    // Lifeguard §IV-A: relays that can answer NACK and do not speak against us, not the target.
                    let helpers = asked.min(cx.config.indirect_checks as u32);
                    match cx.config.nacks && asked > 0 {
                        true if cleared => {
                            self.health = self.health.saturating_sub(1);
                            self.look_around(cx, members);
                        }
                        true => self.doubt_ourselves(helpers - nacks.min(helpers), cx.config),
                        false => self.doubt_ourselves(1, cx.config),
                    }
                    return Some(flight.peer);
                }
            }
        }
        self.round(cx, members);
        None
    }

    /// Where one is silent others may be: machines fail together. If they do, whom we find here leads to others again.
    fn look_around(&mut self, cx: &mut Cx<'_>, members: &Members) {
        let mut drawn = [None; LOOK_AROUND];
        let mut free = drawn.iter_mut();
        let fresh = |e: &Entry| e.status == MemberState::Alive && self.flights.iter().all(|f| f.run != e.run);
        members.draw(
            cx.rng,
            LOOK_AROUND,
            |e| !fresh(e),
            |peer, _| free.next().into_iter().for_each(|place| *place = Some(peer)),
        );
        for (peer, entry) in drawn.into_iter().flatten().filter_map(|peer| Some((peer, members.get(peer)?))) {
            self.ping(cx, members, peer, entry);
        }
    }

    /// Pings a member and takes its silence seriously. One that is being probed already is left at that.
    pub fn ping(&mut self, cx: &mut Cx<'_>, members: &Members, peer: Peer, entry: &Entry) {
        if self.flights.len() == FLIGHTS_MAX || self.flights.iter().any(|f| f.run == entry.run) {
            return;
        }
        let seq = self.send(cx, members, entry.to(), true);
        let until = cx.now.mono + self.patience(cx.config, entry);
        self.flights.push(Flight { seq, peer, run: entry.run, stage: Stage::Direct { until } });
    }

    /// Pings without consequence: to compare notes, to give a suspect its chance, to see who holds a name.
    pub fn ask(&mut self, cx: &mut Cx<'_>, members: &Members, to: Destination) {
        self.send(cx, members, to, false);
    }

    /// What PINGs carry from now on in the place of the cluster's beat and the table's fingerprint.
    pub fn say(&mut self, beat: u64, fingerprint: u64) {
        self.word = Some((beat, fingerprint));
    }

    fn question(&self, seq: u64, now: Instant, members: &Members) -> Frame<'static> {
        let (beat, fingerprint) = self.word.unwrap_or_else(|| (self.beat(now), members.fingerprint()));
        Frame::Ping { seq, beat, fingerprint }
    }

    fn send(&mut self, cx: &mut Cx<'_>, members: &Members, to: Destination, probe: bool) -> u64 {
        self.seq += 1;
        let seq = self.seq;
        cx.out.send(to, &self.question(seq, cx.now.mono, members));
        if let Some(run) = to.run {
            self.recent[seq as usize % RECENT] = Some(Sent { seq, run, at: cx.now.mono, probe });
        }
        seq
    }

    /// How long the direct stage lasts: RFC 6298's timeout where round trips are known, within the configured bounds.
    fn patience(&self, config: &Config, entry: &Entry) -> Duration {
        let base = match entry.rtt.timeout() {
            Some(t) if config.probe_adaptive => t.clamp(config.probe_timeout_min, config.probe_timeout),
            _ => config.probe_timeout,
        };
        base * (self.health + 1)
    }

    /// How long a probe takes that nobody answers.
    pub fn longest(&self, config: &Config) -> Duration {
        (config.probe_timeout + config.probe_indirect_timeout) * (self.health + 1)
    }

    /// SWIM §3.1: k members are asked to ping the target. Beside them a ping by stream, because a network that
    /// swallows datagrams is a misconfiguration and not a death.
    fn ask_others(&mut self, cx: &mut Cx<'_>, members: &Members, flight: Flight, target: &Entry) -> Stage {
        let mut asked = 0;
        let request = Frame::PingReq { seq: flight.seq, target: flight.run, addr: target.addr() };
        let (rng, out) = (&mut *cx.rng, &mut *cx.out);
        let mut ask = |relay: &Entry| {
            out.send(relay.to(), &request);
            asked += 1;
        };
        // NACKs tell how we are ourselves (SWIM has none): who answered last will again, if we are well. Of others few may be
        // left: who hears nobody asks more of them.
        let unheard = if cx.config.nacks { self.unheard as usize } else { 0 };
        let most = (cx.config.indirect_checks * (1 + unheard)).min(DRAW_MAX);
        let sure = self.answered.filter(|&run| run != flight.run && cx.config.nacks && most > 0);
        let sure = sure.and_then(|run| members.get(members.find(run)?)).filter(|e| e.is_live());
        sure.into_iter().for_each(&mut ask);
        let skip = |e: &Entry| e.run == flight.run || sure.is_some_and(|sure| sure.run == e.run);
        members.draw(rng, most - usize::from(sure.is_some()), skip, |_, relay| ask(relay));
        if cx.config.stream_ping {
            let to = Destination { via: Via::Stream, ..target.to() };
            cx.out.send(to, &self.question(flight.seq, cx.now.mono, members));
        }
        let until = cx.now.mono + cx.config.probe_indirect_timeout * (self.health + 1);
        Stage::Indirect { until, asked, nacks: 0, sure: sure.map(|e| e.run), cleared: false }
    }

    /// Another cannot reach `target` and asks us to try.
    pub fn on_ping_req(
        &mut self,
        cx: &mut Cx<'_>,
        members: &Members,
        origin: Destination,
        seq: u64,
        target: Destination,
    ) {
        if self.relays.len() == RELAYS_MAX {
            return;
        }
        self.seq += 1;
        cx.out.send(target, &self.question(self.seq, cx.now.mono, members));
        let wait = cx.config.probe_indirect_timeout;
        self.relays.push(Relay {
            seq: self.seq,
            target,
            origin,
            origin_seq: seq,
            // Lifeguard §IV-A: NACK at 80 % of the timeout.
            nack_at: Some(cx.now.mono + wait * 4 / 5),
            until: cx.now.mono + wait * 4,
        });
    }

    /// `None`: it answers nothing that we asked.
    pub fn on_ack(&mut self, cx: &mut Cx<'_>, from: RunId, seq: u64, beat: u64, via: Via) -> Option<Answer> {
        self.hear_beat(cx.now.mono, beat);
        if let Some(i) = self.relays.iter().position(|r| r.seq == seq && r.target.run == Some(from)) {
            let relay = self.relays.swap_remove(i);
            cx.out.send(relay.origin, &Frame::Ack { seq: relay.origin_seq, beat, fingerprint: 0 });
            return None;
        }
        let sent = self.recent[seq as usize % RECENT].filter(|s| s.seq == seq);
        let flight = self.flights.iter().position(|f| f.seq == seq);
        let run = flight.map(|i| self.flights[i].run).or_else(|| sent.map(|s| s.run))?;
        (self.answered, self.unheard) = (Some(from), 0);
        let direct = from == run;
        let by_stream = flight
            .is_some_and(|i| direct && via == Via::Stream && matches!(self.flights[i].stage, Stage::Indirect { .. }));
        if let Some(i) = flight {
            let flight = self.flights.swap_remove(i);
            self.health = self.health.saturating_sub(1);
            if matches!(flight.stage, Stage::Direct { .. }) {
                (self.missed, self.judged) = (self.missed << 1, cx.now.mono);
            }
        }
        let rtt = sent.filter(|_| direct && via == Via::Datagram).map(|s| cx.now.mono.since(s.at));
        if rtt.is_some() {
            self.recent[seq as usize % RECENT] = None;
            self.streamed = self.streamed.filter(|&streamed| streamed != run);
        }
        let again = by_stream && self.streamed.replace(run).is_some();
        Some(Answer { run, rtt, late: flight.is_none() && sent.is_some_and(|s| s.probe), by_stream, again })
    }

    /// A relay is well, and could not reach the target either.
    /// False: it answers nothing that we asked.
    pub fn on_nack(&mut self, from: RunId, seq: u64) -> bool {
        let flight = self.flights.iter_mut().find(|f| f.seq == seq);
        if let Some(Flight { stage: Stage::Indirect { nacks, sure, cleared, .. }, .. }) = flight {
            *nacks += 1;
            *cleared |= *sure == Some(from);
            (self.answered, self.unheard) = (Some(from), 0);
            return true;
        }
        false
    }

    /// The system says that nobody listens at `addr`: the direct stage need not be waited out. It is not
    /// proof of death: a firewall can say so, too.
    pub fn on_unreachable(&mut self, cx: &mut Cx<'_>, members: &Members, addr: core::net::SocketAddr) {
        let now = cx.now.mono;
        for flight in &mut self.flights {
            if let Stage::Direct { until } = &mut flight.stage {
                if members.get(flight.peer).is_some_and(|e| e.is_at(addr)) {
                    *until = now;
                }
            }
        }
        for relay in self.relays.iter_mut().filter(|r| r.target.addr == addr) {
            relay.nack_at = relay.nack_at.map(|_| now);
        }
    }

    /// For the simulator (`engine/foreign.rs`): ends, as unanswered, one probe whose whole time is over, whatever its stage.
    #[cfg(feature = "sim")]
    pub fn give_up(&mut self, cx: &mut Cx<'_>, members: &Members) -> Option<Peer> {
        let (now, whole) = (cx.now.mono, cx.config.probe_interval * (self.health + 1));
        let begun = |f: &Flight| self.recent[f.seq as usize % RECENT].filter(|s| s.seq == f.seq).map(|s| s.at);
        let over = |f: &Flight| begun(f).is_none_or(|at| at + whole <= now);
        let flight = self.flights.swap_remove(self.flights.iter().position(over)?);
        if let (Stage::Direct { .. }, Some(entry)) = (flight.stage, members.get(flight.peer)) {
            self.ask_others(cx, members, flight, entry);
        }
        let doubt = if cx.config.nacks { cx.config.indirect_checks as u32 } else { 1 };
        self.doubt_ourselves(doubt, cx.config);
        Some(flight.peer)
    }

    /// Its run is over, or it was declared dead: nothing more is expected of it.
    pub fn forget(&mut self, run: RunId) {
        self.flights.retain(|f| f.run != run);
    }

    fn relays_on_deadline(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now.mono;
        for relay in &mut self.relays {
            if relay.nack_at.is_some_and(|at| at <= now) {
                relay.nack_at = None;
                if cx.config.nacks {
                    cx.out.send(relay.origin, &Frame::Nack { seq: relay.origin_seq });
                }
            }
        }
        self.relays.retain(|r| now < r.until);
    }
}

#[cfg(test)]
mod tests;
