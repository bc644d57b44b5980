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

use alloc::vec::Vec;

use super::Cx;
use crate::config::{Config, Detector, Membership, ProbeOrder};
use crate::id::{COUNTER_MAX, Peer, RunId};
use crate::members::{self, DRAW_MAX, Entry, Members, PART_BITS, Place};
use crate::outbox::{Destination, Via};
use crate::rng::mix;
use crate::time::{Duration, Instant, nanos};
use crate::view::MemberState;
use crate::wire::frame::Frame;

/// Probes under way at once: the round's own and those that suspicions ask for. More are not begun.
pub const FLIGHTS_MAX: usize = 16;

/// Pings that we relay for others at once. A flood costs the flooder its answer, not us our memory.
pub const RELAYS_MAX: usize = 64;

/// Moments of a period at which its ping may leave.
const GRID: u64 = 16;

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

/// The round's own probe.
#[derive(Clone, Copy, Debug)]
struct Plan {
    round: u64,
    /// When, on the beat.
    at: u64,
    /// Where the target stands, on the ring that had this fingerprint. Who is next in a shuffled list is asked when
    /// its time has come.
    target: Option<Place>,
    fingerprint: u64,
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

    /// Reads the entry of the next target and the place of the one after it. What it returns means nothing.
    pub fn warm(&self, members: &Members) -> u64 {
        let Some(plan) = &self.plan else { return 0 };
        let after = target(members, plan.round + 1) == plan.target;
        let entry = plan.target.and_then(|place| members.standing_at(place));
        entry.map_or(0, |(_, e)| e.epoch.0) + u64::from(after)
    }

    /// The cluster's clock, in milliseconds.
    pub fn beat(&self, now: Instant) -> u64 {
        (now.as_nanos() / 1_000_000).wrapping_add(self.offset)
    }

    /// The greatest beat wins, so all agree after one exchange with anybody.
    pub fn hear_beat(&mut self, now: Instant, beat: u64) {
        let ours = self.beat(now);
        // Beyond that nobody's beat would be readable any more: one broken clock must not stop all.
        if beat > ours && beat <= COUNTER_MAX / 2 {
            self.offset = self.offset.wrapping_add(beat - ours);
        }
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
        let round = has_rounds(config, members).then(|| {
            let wait = self.plan.map_or(0, |plan| plan.at.saturating_sub(self.beat(now)));
            // A plan whose time was computed on another beat is never more than its rounds away.
            let most = period(config) * (2 + u64::from(self.health));
            on_grid(now + Duration::from_millis(wait.min(most)), config)
        });
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

    /// SWIM §3.1: in each period, one member is pinged.
    fn round(&mut self, cx: &mut Cx<'_>, members: &Members) {
        if !has_rounds(cx.config, members) {
            return;
        }
        let beat = self.beat(cx.now.mono);
        let period = period(cx.config);
        // A plan on another beat is none.
        let soon = |plan: &Plan| plan.at <= beat + period * (2 + u64::from(self.health));
        let mut plan = self.plan.filter(soon).unwrap_or_else(|| Plan::of(beat / period, cx.config, members));
        if plan.at <= beat && plan.fingerprint != members.fingerprint() {
            // The list changed since: choose again, and wait where the new target is due later in the round.
            plan = Plan::of(plan.round, cx.config, members);
        }
        if plan.at <= beat {
            let target = match plan.target {
                Some(place) => members.standing_at(place),
                None => self.next_in_robin(cx, members),
            };
            if let Some((peer, entry)) = target.filter(|(_, e)| e.is_live()) {
                self.ping(cx, members, peer, entry);
            }
            let next = (plan.round + 1 + u64::from(self.health)).max(beat / period);
            plan = Plan::of(next, cx.config, members);
            // Behind by more than the grid: the rounds that we missed are left out.
            if plan.at + period / GRID < beat {
                plan = Plan::of(beat / period + 1, cx.config, members);
            }
        }
        self.plan = Some(plan);
    }

    /// SWIM §4.3: a walk over a list in random order, shuffled anew when it ends, pings everybody within 2n − 1 periods.
    fn next_in_robin<'m>(&mut self, cx: &mut Cx<'_>, members: &'m Members) -> Option<(Peer, &'m Entry)> {
        for refill in [true, false] {
            while let Some(run) = self.robin.pop() {
                let found = members.find(run).and_then(|peer| Some((peer, members.get(peer)?)));
                if found.is_some_and(|(_, e)| e.is_live()) {
                    return found;
                }
            }
            if refill {
                let me = members.local().run;
                self.robin.extend(members.live().map(|(_, e)| e.run).filter(|&run| run != me));
                cx.rng.shuffle(&mut self.robin);
            }
        }
        None
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

/// Another detector leaves us the questions: who is it, does it agree, has it heard what is said of it.
fn has_rounds(config: &Config, members: &Members) -> bool {
    let lists_all = config.membership == Membership::Full;
    members.live_len() > 1 && config.detector == Detector::Swim && lists_all
}

impl Plan {
    fn of(round: u64, config: &Config, members: &Members) -> Plan {
        // Where in a round a member is pinged is the same for all who may do it.
        let (target, part) = match config.probe_order {
            ProbeOrder::Permutation => {
                let target = target(members, round);
                (target, target.map_or(0, Place::part))
            }
            ProbeOrder::Robin => (None, members::part(members.local().run)),
        };
        let period = period(config);
        let phase = (u64::from(part) * period) >> PART_BITS;
        Plan { round, at: round * period + phase, target, fingerprint: members.fingerprint() }
    }
}

fn period(config: &Config) -> u64 {
    (nanos(config.probe_interval) / 1_000_000).max(1)
}

/// A round's ping leaves at the next sixteenth of a period by this machine's clock, so that all nodes of a machine wake
/// for their pings together: of what an idle node costs, waking is the most. Nothing else waits for it.
fn on_grid(at: Instant, config: &Config) -> Instant {
    let grid = (nanos(config.probe_interval) / GRID).max(1);
    Instant::from_nanos(at.as_nanos().div_ceil(grid) * grid)
}

/// The member whose turn it is to be pinged by us: as many places after us as all are after theirs.
fn target(members: &Members, round: u64) -> Option<Place> {
    let others = members.live_len().checked_sub(1).filter(|&n| n > 0)?;
    let lot = mix(round.wrapping_add(0x5851_f42d_4c95_7f2d));
    // In proportion to the ring: where lists differ by d members, this differs by at most d.
    let steps = 1 + ((u128::from(lot) * others as u128) >> 64) as usize;
    members.ahead(steps)
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;
    use alloc::format;
    use core::net::SocketAddr;

    use super::*;
    use crate::id::{Epoch, Incarnation, NodeName, Version};
    use crate::outbox::Outbox;
    use crate::rng::Rng;
    use crate::time::{Now, Wall};
    use crate::view::MemberState;
    use crate::wire::frame::{Entries, Record};

    fn run(id: u64) -> RunId {
        RunId::new(id).unwrap()
    }

    fn addr(id: u64) -> SocketAddr {
        SocketAddr::new([10, 0, 0, id as u8].into(), 7000)
    }

    fn to(id: u64) -> Destination {
        Destination { addr: addr(id), run: Some(run(id)), via: Via::Datagram }
    }

    fn entry(id: u64) -> Entry {
        let name = format!("n{id}");
        let record = Record {
            name: &name,
            run: run(id),
            epoch: Epoch(1),
            incarnation: Incarnation(0),
            addr: addr(id),
            protocol: 1,
            app_version: 0,
            version: Version(0),
            age: 0,
            state: Entries(&[]),
        };
        members::entry(&record, NodeName::new(&name).unwrap(), MemberState::Alive, Instant::ZERO)
    }

    /// The table of member `me` of `1..=n`.
    fn table(me: u64, n: u64) -> Members {
        let mut members = Members::new(entry(me), (1, 2), 1000);
        (1..=n).filter(|&id| id != me).for_each(|id| assert!(members.insert(entry(id)).is_some()));
        members
    }

    /// Member 1 of `n`, and its clock.
    struct Prober {
        probe: Probe,
        members: Members,
        config: Config,
        rng: Rng,
        out: Outbox,
        now: Instant,
    }

    fn prober(n: u64) -> Prober {
        let now = Instant::from_nanos(1_000_000_000_000);
        let (config, out) = (Config::new(), Outbox::new(1400));
        Prober { probe: Probe::new(0), members: table(1, n), config, rng: Rng::new(1), out, now }
    }

    impl Prober {
        fn with<T>(&mut self, act: impl FnOnce(&mut Probe, &mut Cx<'_>, &Members) -> T) -> T {
            let now = Now { mono: self.now, wall: Wall(0) };
            let mut cx = Cx { now, rng: &mut self.rng, config: &self.config, out: &mut self.out };
            act(&mut self.probe, &mut cx, &self.members)
        }

        /// Pings member `id`. Returns the ping's number.
        fn ping(&mut self, id: u64) -> u64 {
            self.with(|probe, cx, members| {
                let peer = members.find(run(id)).unwrap();
                probe.ping(cx, members, peer, members.get(peer).unwrap());
                probe.seq
            })
        }

        /// Lets time pass. Who was silent?
        fn wait(&mut self, ms: u64) -> Option<Peer> {
            self.now = self.now + Duration::from_millis(ms);
            self.with(|probe, cx, members| probe.on_deadline(cx, members))
        }

        fn ack(&mut self, from: u64, seq: u64) -> Option<Answer> {
            self.with(|probe, cx, _| probe.on_ack(cx, run(from), seq, 0, Via::Datagram))
        }

        /// To whom such a frame went since the last look.
        fn sent(&mut self, wanted: impl Fn(&Frame<'_>) -> bool) -> Vec<Destination> {
            let sent = self.out.frames().filter(|(_, f)| wanted(f)).map(|(to, _)| to).collect();
            self.out.clear();
            sent
        }

        fn relayed(&mut self) -> usize {
            self.sent(|f| matches!(f, Frame::PingReq { .. })).len()
        }
    }

    /// SWIM §3.1.
    #[test]
    fn a_silent_target_is_pinged_through_k_others() {
        let mut p = prober(20);
        let seq = p.ping(2);
        assert_eq!(p.sent(|f| matches!(f, Frame::Ping { .. })), [to(2)]);

        assert_eq!(p.wait(300), None);
        let asked = p.sent(|f| *f == Frame::PingReq { seq, target: run(2), addr: addr(2) });
        assert_eq!(asked.len(), p.config.indirect_checks);
        assert!(asked.iter().all(|relay| *relay != to(2) && *relay != to(1)));
        assert!((0..2).all(|i| !asked[i + 1..].contains(&asked[i])), "k different ones");
    }

    #[test]
    fn the_stream_is_tried_beside_the_relays() {
        for stream_ping in [true, false] {
            let mut p = prober(5);
            p.config.stream_ping = stream_ping;
            let seq = p.ping(2);
            p.sent(|_| true);
            p.wait(300);
            let sent = p.sent(|f| matches!(f, Frame::Ping { seq: s, .. } if *s == seq));
            let by_stream = Destination { via: Via::Stream, ..to(2) };
            assert_eq!(sent.contains(&by_stream), stream_ping);
        }
    }

    #[test]
    fn who_answers_neither_us_nor_anybody_is_silent_after_both_stages_and_not_before() {
        let mut p = prober(5);
        let target = p.members.find(run(2)).unwrap();
        p.ping(2);
        assert_eq!(p.wait(299), None);
        assert_eq!(p.relayed(), 0);
        assert_eq!(p.wait(1), None);
        assert!(p.relayed() > 0);
        assert_eq!(p.wait(299), None);
        assert_eq!(p.wait(1), Some(target));
        assert_eq!(p.wait(0), None, "it is said once");
    }

    #[test]
    fn an_ack_in_either_stage_ends_the_probe() {
        for wait in [100, 400] {
            let mut p = prober(5);
            let seq = p.ping(2);
            p.wait(wait);
            let answer = p.ack(2, seq).unwrap();
            assert_eq!((answer.run, answer.late), (run(2), false));
            assert_eq!(answer.rtt, Some(Duration::from_millis(wait)));
            assert_eq!(p.wait(600 - wait), None);
            assert_eq!(p.ack(2, seq), None, "once");
        }
    }

    #[test]
    fn an_ack_relayed_counts_for_the_target_and_tells_no_round_trip() {
        let mut p = prober(5);
        let seq = p.ping(2);
        p.wait(300);
        let answer = p.ack(3, seq).unwrap();
        assert_eq!((answer.run, answer.rtt, answer.late), (run(2), None, false));
        assert_eq!(p.wait(300), None);
    }

    #[test]
    fn a_late_ack_is_told_as_late() {
        let mut p = prober(5);
        let seq = p.ping(2);
        p.wait(300);
        assert!(p.wait(300).is_some());
        assert!(p.ack(2, seq).unwrap().late);
        assert_eq!(p.ack(2, 999), None, "nothing that we asked");
    }

    /// SWIM §3.1, the relay's side.
    #[test]
    fn a_relay_passes_the_ack_on_under_the_askers_number() {
        let mut p = prober(5);
        p.with(|probe, cx, members| probe.on_ping_req(cx, members, to(3), 77, to(2)));
        assert_eq!(p.sent(|f| matches!(f, Frame::Ping { .. })), [to(2)]);

        let seq = p.probe.seq;
        assert_eq!(p.ack(2, seq), None, "not our own");
        assert_eq!(p.sent(|f| matches!(f, Frame::Ack { seq: 77, .. })), [to(3)]);
        p.wait(300);
        assert!(p.sent(|f| matches!(f, Frame::Nack { .. })).is_empty());
    }

    /// Lifeguard §IV-A: at 80 % of the timeout.
    #[test]
    fn a_relay_whose_target_is_silent_answers_nack_and_a_late_ack_all_the_same() {
        let mut p = prober(5);
        p.with(|probe, cx, members| probe.on_ping_req(cx, members, to(3), 77, to(2)));
        let seq = p.probe.seq;
        p.wait(239);
        assert!(p.sent(|f| matches!(f, Frame::Nack { .. })).is_empty());
        p.wait(1);
        assert_eq!(p.sent(|f| *f == Frame::Nack { seq: 77 }), [to(3)]);
        p.wait(100);
        assert!(p.sent(|f| matches!(f, Frame::Nack { .. })).is_empty(), "once");
        p.ack(2, seq);
        assert_eq!(p.sent(|f| matches!(f, Frame::Ack { seq: 77, .. })), [to(3)]);
    }

    /// Lifeguard §IV-A: each relay that does not even answer NACK is a reason to doubt ourselves.
    #[test]
    fn missing_nacks_speak_against_us_and_answers_for_us() {
        for nacks in 0..=3 {
            let mut p = prober(20);
            let seq = p.ping(2);
            p.wait(300);
            (0..nacks).for_each(|_| assert!(p.probe.on_nack(run(3), seq)));
            p.wait(300);
            assert_eq!(p.probe.health(), 3 - nacks);
        }
        let mut p = prober(5);
        p.probe.doubt_ourselves(100, &p.config);
        assert_eq!(p.probe.health(), p.config.local_health_max as u32);
        for left in (0..8).rev() {
            let seq = p.ping(2);
            p.ack(2, seq);
            assert_eq!(p.probe.health(), left);
        }
    }

    /// Who was well before the target fell silent, and says NACK, shows that so are we.
    #[test]
    fn who_is_cleared_and_found_one_silent_looks_at_two_more() {
        for (by, health, pings) in [(3, 1, 2), (4, 4, 0)] {
            let mut p = prober(20);
            let seq = p.ping(3);
            p.ack(3, seq);
            p.probe.doubt_ourselves(2, &p.config);
            let seq = p.ping(2);
            p.wait(900);
            assert!(p.probe.on_nack(run(by), seq));
            p.sent(|_| true);
            assert!(p.wait(900).is_some());
            let begun = p.sent(|f| matches!(f, Frame::Ping { seq: s, .. } if *s > seq)).len();
            assert_eq!((p.probe.health(), begun), (health, pings), "NACK from {by}");
        }
    }

    #[test]
    fn who_answered_last_is_asked_to_help_and_more_are_where_nobody_answers() {
        let mut p = prober(60);
        p.config.probe_interval = Duration::from_secs(100_000);
        let seq = p.ping(9);
        p.ack(9, seq);
        for id in 10..20 {
            let seq = p.ping(id);
            let unheard = p.probe.unheard as usize;
            p.wait(10_000);
            let helpers = p.sent(|f| matches!(f, Frame::PingReq { seq: s, .. } if *s == seq));
            assert_eq!((helpers.len(), helpers[0]), ((3 + 3 * unheard).min(16), to(9)), "{unheard} without a word");
            p.wait(10_000);
            assert!(p.probe.unheard as usize > unheard);
        }
    }

    /// Lifeguard §IV-A: who doubts itself waits longer, by 1 + health.
    #[test]
    fn doubt_stretches_both_stages() {
        let mut p = prober(5);
        p.probe.doubt_ourselves(2, &p.config);
        p.ping(2);
        p.sent(|_| true);
        p.wait(899);
        assert_eq!(p.relayed(), 0);
        p.wait(1);
        assert!(p.relayed() > 0);
        assert_eq!(p.wait(899), None);
        assert!(p.wait(1).is_some());
    }

    #[test]
    fn the_direct_stage_follows_the_round_trips_that_were_measured() {
        let mut p = prober(5);
        for _ in 0..10 {
            let seq = p.ping(2);
            p.now = p.now + Duration::from_millis(40);
            let rtt = p.ack(2, seq).unwrap().rtt.unwrap();
            let peer = p.members.find(run(2)).unwrap();
            p.members.note(peer).unwrap().rtt.sample(rtt);
        }
        p.ping(2);
        p.sent(|_| true);
        p.wait(99);
        assert_eq!(p.relayed(), 0, "never shorter than probe_timeout_min");
        p.wait(1);
        assert!(p.relayed() > 0);
    }

    #[test]
    fn unreachable_ends_the_direct_stage_and_not_the_probe() {
        let mut p = prober(5);
        p.ping(2);
        p.with(|probe, cx, members| probe.on_unreachable(cx, members, addr(3)));
        p.wait(0);
        assert_eq!(p.relayed(), 0, "somebody else");
        p.with(|probe, cx, members| probe.on_unreachable(cx, members, addr(2)));
        assert_eq!(p.wait(0), None);
        assert!(p.relayed() > 0);
        p.with(|probe, cx, members| probe.on_unreachable(cx, members, addr(2)));
        assert_eq!(p.wait(299), None, "the others get their time");
        assert!(p.wait(1).is_some());
    }

    #[test]
    fn time_that_we_lost_is_given_back() {
        let mut p = prober(5);
        let seq = p.ping(2);
        p.now = p.now + Duration::from_secs(20);
        p.probe.give_back(Duration::from_secs(20));
        assert_eq!(p.wait(299), None);
        assert_eq!(p.relayed(), 0);
        assert!(!p.ack(2, seq).unwrap().late);
    }

    /// Who is held back accuses nobody: in a small cluster one that was gone for good kept its penalty up, and it stayed away
    /// for ever (seed 200033).
    #[test]
    fn one_that_never_answers_says_nothing_of_our_link() {
        let mut p = prober(5);
        let failing = |p: &Prober| p.probe.is_failing(p.now, &p.config);
        for _ in 0..3 {
            p.ping(2);
            p.wait(300);
            p.wait(300);
        }
        assert!(!failing(&p));
        p.ping(3);
        p.wait(300);
        assert!(failing(&p), "but two of them do");
    }

    #[test]
    fn nothing_more_is_expected_of_the_dead() {
        let mut p = prober(5);
        p.ping(2);
        p.probe.forget(run(2));
        assert_eq!(p.wait(300), None);
        assert_eq!(p.wait(300), None);
        assert_eq!(p.relayed(), 0);
    }

    #[test]
    fn a_flood_of_requests_is_bounded() {
        let mut p = prober(5);
        for seq in 0..1000 {
            p.with(|probe, cx, members| probe.on_ping_req(cx, members, to(3), seq, to(2)));
        }
        assert_eq!(p.probe.relays.len(), RELAYS_MAX);
        p.wait(2_000);
        assert!(p.probe.relays.is_empty());
        for id in (2..=5).cycle().take(100) {
            p.ping(id);
        }
        assert!(p.probe.flights.len() <= FLIGHTS_MAX);
    }

    fn targeted(members: &Members, round: u64) -> RunId {
        members.standing_at(target(members, round).unwrap()).unwrap().1.run
    }

    /// The members agree without talking: in each round everybody pings one and is pinged by one, nobody itself.
    #[test]
    fn in_every_round_each_member_is_pinged_exactly_once() {
        for n in [2, 3, 5, 10, 57, 200] {
            let tables: Vec<Members> = (1..=n).map(|me| table(me, n)).collect();
            for round in [0, 1, 2, 1_000_000, u64::MAX] {
                let mut pinged = BTreeMap::new();
                for members in &tables {
                    let target = targeted(members, round);
                    assert_ne!(target, members.local().run);
                    *pinged.entry(target).or_insert(0) += 1;
                }
                assert_eq!(pinged.len() as u64, n, "{n} members, round {round}");
            }
        }
    }

    #[test]
    fn the_order_is_another_in_each_round() {
        let members = table(1, 50);
        let mut counts = BTreeMap::new();
        (0..5_000).for_each(|round| *counts.entry(targeted(&members, round)).or_insert(0) += 1);
        assert_eq!(counts.len(), 49);
        assert!(counts.values().all(|n| (60..150).contains(n)), "each about 102 times: {counts:?}");
    }

    /// Over many rounds: the share of (member, round) that nobody pinged, that more than one pinged, and the most rounds
    /// that one waited.
    fn left_out(tables: &[Members], rounds: u64) -> (f64, f64, u64) {
        let mut last: BTreeMap<RunId, u64> = tables.iter().map(|members| (members.local().run, 0)).collect();
        let (mut none, mut more, mut longest) = (0, 0, 0);
        for round in 1..=rounds {
            let mut pinged: BTreeMap<RunId, u32> = last.keys().map(|&run| (run, 0)).collect();
            for members in tables {
                // Somebody whom only a few know is none of those that are counted.
                pinged.entry(targeted(members, round)).and_modify(|n| *n += 1);
            }
            for (run, times) in pinged {
                none += u64::from(times == 0);
                more += u64::from(times > 1);
                if times > 0 {
                    longest = longest.max(round - last.insert(run, round).expect("all are in it"));
                }
            }
        }
        let all = (rounds * tables.len() as u64) as f64;
        (none as f64 / all, more as f64 / all, longest)
    }

    /// News is under way: half of all know some members more than the others. Rumors take less than a round to reach
    /// all; here nobody ever hears, and still nobody waits for long.
    #[test]
    fn lists_that_differ_by_a_few_leave_out_few_and_none_for_long() {
        let (n, mut rng) = (200, Rng::new(1));
        for (differ, most) in [(0, 0.0), (1, 0.11), (2, 0.16), (10, 0.3)] {
            let tables: Vec<Members> =
                (1..=n).map(|me| table(me, n + if rng.chance(1, 2) { differ } else { 0 })).collect();
            let (none, more, longest) = left_out(&tables, 500);
            println!(
                "{differ} of {n} known to half: pinged by none {none:.3}, by several {more:.3}; longest wait {longest}"
            );
            assert!(none <= most && more <= most, "{differ}: {none} by none, {more} by several");
            assert!(longest <= 15, "{differ}: {longest} rounds");
        }
    }

    /// Each lacks others, by lot: no worse than independent choice, where 1/e are pinged by nobody.
    #[test]
    fn lists_that_have_little_to_do_with_each_other_starve_nobody() {
        let (n, mut rng) = (200, Rng::new(2));
        for lack in [1, 10, 50] {
            let tables: Vec<Members> = (1..=n)
                .map(|me| {
                    let mut members = table(me, n);
                    for id in (1..=n).filter(|&id| id != me) {
                        if rng.chance(lack, 100) {
                            members.remove(members.find(run(id)).unwrap());
                        }
                    }
                    members
                })
                .collect();
            let (none, more, longest) = left_out(&tables, 500);
            println!("each lacks {lack} %: pinged by none {none:.3}, by several {more:.3}; longest wait {longest}");
            assert!(none < 0.40, "{lack} %: {none} by none");
            assert!(longest <= 20, "{lack} %: {longest} rounds");
        }
    }

    /// SWIM §4.3: "worst case … 2n − 1 protocol periods".
    #[test]
    fn robin_pings_everybody_within_two_n_less_one_periods() {
        let (mut p, n) = (prober(12), 12);
        p.config.probe_order = ProbeOrder::Robin;
        let mut last: BTreeMap<RunId, u64> = (2..=n).map(|id| (run(id), 0)).collect();
        for period in 1..=500 {
            let target = p.with(|probe, cx, members| probe.next_in_robin(cx, members).unwrap().1.run);
            let wait = period - last.insert(target, period).expect("a member, and not us");
            assert!(wait < 2 * n, "{wait} periods");
        }
        assert!(last.values().all(|&at| 500 - at < 2 * n));
    }

    #[test]
    fn the_greatest_beat_wins() {
        let mut p = prober(2);
        let ours = p.probe.beat(p.now);
        p.probe.hear_beat(p.now, ours - 1);
        assert_eq!(p.probe.beat(p.now), ours);
        p.probe.hear_beat(p.now, ours + 5_000);
        assert_eq!(p.probe.beat(p.now), ours + 5_000);
    }

    /// One packet with a beat at the end of time would spread to all, and the next beat is one that readers refuse.
    #[test]
    fn no_beat_takes_the_cluster_to_the_end_of_time() {
        let mut p = prober(2);
        p.probe.hear_beat(p.now, crate::id::COUNTER_MAX);
        assert!(p.probe.beat(p.now) < crate::id::COUNTER_MAX / 2, "else all would refuse our pings");
    }
}
