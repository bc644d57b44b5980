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
//! the members agree on who probes whom, without talking. A round counter rides on PING and ACK (`beat`, the
//! greatest one wins); in round r all members are ordered by a hash of (run, r), and each pings the next one.
//! So every member is pinged exactly once a round, and because the moment inside the round depends on the
//! *target*, exactly one period after the last time. A crash meets its first unanswered ping after 0.5
//! periods on average and 1.0 at worst, where independent lists give 1.0 and, at p99, 4.6. Where two
//! members' lists differ, only the neighbours of the difference in that order choose otherwise.
//!
//! Lifeguard §IV-A: a member whose own probes fail, or whose relays do not even answer NACK, or who is
//! late itself, has reason to doubt itself: `health` rises, and with it the timeouts and the time between probes.

use alloc::vec::Vec;

use super::Cx;
use crate::config::{Config, ProbeOrder};
use crate::id::{Peer, RunId};
use crate::members::{Entry, Members};
use crate::outbox::{Destination, Via};
use crate::rng::mix;
use crate::time::{Duration, Instant, nanos};
use crate::wire::frame::Frame;

/// Probes under way at once: the round's own and those that suspicions ask for. More are not begun.
const FLIGHTS_MAX: usize = 16;

/// Pings that we relay for others at once. A flood costs the flooder its answer, not us our memory.
const RELAYS_MAX: usize = 64;

/// Pings whose late ACK we still recognise.
const RECENT: usize = 32;

#[derive(Debug)]
pub struct Probe {
    plan: Plan,
    flights: Vec<Flight>,
    relays: Vec<Relay>,
    recent: [Option<Sent>; RECENT],
    robin: Vec<RunId>,
    seq: u64,
    /// What must be added to our own milliseconds to get the cluster's beat.
    offset: u64,
    health: u32,
}

/// The round's own probe: when, on the beat, and which target it was for when it was planned.
#[derive(Clone, Copy, Debug)]
struct Plan {
    round: u64,
    target: Option<RunId>,
    at: u64,
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
    Direct { until: Instant },
    Indirect { until: Instant, asked: u32, nacks: u32 },
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
}

/// An ACK that belongs to a ping of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Who is alive.
    pub run: RunId,
    /// From the target itself: the time it took.
    pub rtt: Option<Duration>,
    /// Its probe had already ended.
    pub late: bool,
    /// It answered the ping by stream and not the datagram.
    pub only_by_stream: bool,
}

impl Probe {
    pub fn new(first_seq: u64) -> Probe {
        Probe {
            plan: Plan { round: 0, target: None, at: 0, fingerprint: 0 },
            flights: Vec::new(),
            relays: Vec::new(),
            recent: [None; RECENT],
            robin: Vec::new(),
            seq: first_seq,
            offset: 0,
            health: 0,
        }
    }

    /// Lifeguard's local health multiplier, less one: 0 is healthy.
    pub fn health(&self) -> u32 {
        self.health
    }

    /// Something suggests that the fault is ours.
    pub fn doubt_ourselves(&mut self, by: u32, config: &Config) {
        self.health = (self.health + by).min(config.local_health_max as u32);
    }

    /// The cluster's clock, in milliseconds.
    pub fn beat(&self, now: Instant) -> u64 {
        (now.as_nanos() / 1_000_000).wrapping_add(self.offset)
    }

    /// The greatest beat wins, so all agree after one exchange with anybody.
    pub fn hear_beat(&mut self, now: Instant, beat: u64) {
        let ours = self.beat(now);
        if beat > ours {
            self.offset = self.offset.wrapping_add(beat - ours);
        }
    }

    /// We lost `lost` while others may have answered: their time is given back to them.
    pub fn give_back(&mut self, lost: Duration) {
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
        let round = (members.live_len() > 1).then(|| {
            let wait = self.plan.at.saturating_sub(self.beat(now));
            // A plan whose time was computed on another beat is never more than its rounds away.
            let most = period(config) * (2 + u64::from(self.health));
            now + Duration::from_millis(wait.min(most))
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
                    let stage = self.ask_others(cx, members, self.flights[i], entry);
                    self.flights[i].stage = stage;
                }
                Stage::Indirect { asked, nacks, .. } => {
                    let flight = self.flights.swap_remove(i);
                    // Lifeguard §IV-A: relays that can answer NACK and do not speak against us, not the target.
                    let doubt = if cx.config.nacks && asked > 0 { asked - nacks.min(asked) } else { 1 };
                    self.doubt_ourselves(doubt, cx.config);
                    return Some(flight.peer);
                }
            }
        }
        self.round(cx, members);
        None
    }

    /// SWIM §3.1: in each period, one member is pinged.
    fn round(&mut self, cx: &mut Cx<'_>, members: &Members) {
        if members.live_len() < 2 {
            return;
        }
        let beat = self.beat(cx.now.mono);
        let period = period(cx.config);
        let stale = self.plan.at > beat + period * (2 + u64::from(self.health));
        if self.plan.target.is_none() || stale {
            self.plan_from(cx, members, beat / period);
        }
        if self.plan.at > beat {
            return;
        }
        if self.plan.fingerprint != members.fingerprint() && beat / period == self.plan.round {
            // The list changed since: choose again, and wait where the new target is due later in the round.
            self.plan_from(cx, members, self.plan.round);
            if self.plan.at > beat {
                return;
            }
        }
        let target = self.plan.target.and_then(|run| members.find(run)).and_then(|p| Some((p, members.get(p)?)));
        if let Some((peer, entry)) = target.filter(|(_, e)| e.is_live()) {
            self.ping(cx, members, peer, entry);
        }
        let next = (self.plan.round + 1 + u64::from(self.health)).max(beat / period);
        self.plan_from(cx, members, next);
        if self.plan.at <= beat {
            self.plan_from(cx, members, beat / period + 1);
        }
    }

    fn plan_from(&mut self, cx: &mut Cx<'_>, members: &Members, round: u64) {
        let period = period(cx.config);
        let target = match cx.config.probe_order {
            ProbeOrder::Permutation => successor(members, round).map(|run| (run, phase(run, period))),
            ProbeOrder::Robin => self.next_in_robin(cx, members).map(|run| (run, phase(members.local().run, period))),
        };
        self.plan = Plan {
            round,
            target: target.map(|t| t.0),
            at: round * period + target.map_or(0, |t| t.1),
            fingerprint: members.fingerprint(),
        };
    }

    /// SWIM §4.3: a walk over a list in random order, shuffled anew when it ends, pings everybody within 2n − 1 periods.
    fn next_in_robin(&mut self, cx: &mut Cx<'_>, members: &Members) -> Option<RunId> {
        for refill in [true, false] {
            while let Some(run) = self.robin.pop() {
                if members.find(run).and_then(|p| members.get(p)).is_some_and(Entry::is_live) {
                    return Some(run);
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
        let seq = self.ask(cx, members, entry.to());
        let until = cx.now.mono + self.patience(cx.config, entry);
        self.flights.push(Flight { seq, peer, run: entry.run, stage: Stage::Direct { until } });
    }

    /// Pings without consequence: to compare notes, to give a suspect its chance.
    pub fn nudge(&mut self, cx: &mut Cx<'_>, members: &Members, entry: &Entry) {
        self.ask(cx, members, entry.to());
    }

    /// The same, to a run that need not be in the table. Returns the ping's number.
    pub fn ask(&mut self, cx: &mut Cx<'_>, members: &Members, to: Destination) -> u64 {
        self.seq += 1;
        let seq = self.seq;
        let ping = Frame::Ping { seq, beat: self.beat(cx.now.mono), fingerprint: members.fingerprint() };
        cx.out.send(to, &ping);
        if let Some(run) = to.run {
            self.recent[seq as usize % RECENT] = Some(Sent { seq, run, at: cx.now.mono });
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

    /// SWIM §3.1: k members are asked to ping the target. Beside them a ping by stream, because a network that
    /// swallows datagrams is a misconfiguration and not a death.
    fn ask_others(&mut self, cx: &mut Cx<'_>, members: &Members, flight: Flight, target: &Entry) -> Stage {
        let mut asked = 0;
        let request = Frame::PingReq { seq: flight.seq, target: flight.run, addr: target.addr };
        let (rng, out) = (&mut *cx.rng, &mut *cx.out);
        members.draw(
            rng,
            cx.config.indirect_checks,
            |e| e.run == flight.run,
            |_, relay| {
                out.send(relay.to(), &request);
                asked += 1;
            },
        );
        if cx.config.stream_ping {
            let to = Destination { via: Via::Stream, ..target.to() };
            let (beat, fingerprint) = (self.beat(cx.now.mono), members.fingerprint());
            cx.out.send(to, &Frame::Ping { seq: flight.seq, beat, fingerprint });
        }
        let until = cx.now.mono + cx.config.probe_indirect_timeout * (self.health + 1);
        Stage::Indirect { until, asked, nacks: 0 }
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
        let ping = Frame::Ping { seq: self.seq, beat: self.beat(cx.now.mono), fingerprint: members.fingerprint() };
        cx.out.send(target, &ping);
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
        let direct = from == run;
        let only_by_stream = flight
            .is_some_and(|i| direct && via == Via::Stream && matches!(self.flights[i].stage, Stage::Indirect { .. }));
        if let Some(i) = flight {
            self.flights.swap_remove(i);
            self.health = self.health.saturating_sub(1);
        }
        let rtt = sent.filter(|_| direct && via == Via::Datagram).map(|s| cx.now.mono.since(s.at));
        if rtt.is_some() {
            self.recent[seq as usize % RECENT] = None;
        }
        Some(Answer { run, rtt, late: flight.is_none(), only_by_stream })
    }

    /// A relay is well, and could not reach the target either.
    pub fn on_nack(&mut self, seq: u64) {
        if let Some(flight) = self.flights.iter_mut().find(|f| f.seq == seq) {
            if let Stage::Indirect { nacks, .. } = &mut flight.stage {
                *nacks += 1;
            }
        }
    }

    /// The system says that nobody listens at `addr`: the direct stage need not be waited out. It is not
    /// proof of death: a firewall can say so, too.
    pub fn on_unreachable(&mut self, cx: &mut Cx<'_>, members: &Members, addr: core::net::SocketAddr) {
        let now = cx.now.mono;
        for flight in &mut self.flights {
            if let Stage::Direct { until } = &mut flight.stage {
                if members.get(flight.peer).is_some_and(|e| e.addr == addr) {
                    *until = now;
                }
            }
        }
        for relay in self.relays.iter_mut().filter(|r| r.target.addr == addr) {
            relay.nack_at = relay.nack_at.map(|_| now);
        }
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

fn period(config: &Config) -> u64 {
    (nanos(config.probe_interval) / 1_000_000).max(1)
}

/// Where in a round a member is pinged: the same for all who may do it.
fn phase(run: RunId, period: u64) -> u64 {
    ((u128::from(mix(run.get())) * u128::from(period)) >> 64) as u64
}

/// The member after us when all are ordered by a hash of (run, round).
fn successor(members: &Members, round: u64) -> Option<RunId> {
    let key = mix(round.wrapping_add(0x5851_f42d_4c95_7f2d));
    let me = members.local().run;
    let ours = mix(me.get() ^ key);
    let others = members.live().map(|(_, e)| e.run).filter(|&run| run != me);
    others.min_by_key(|run| mix(run.get() ^ key).wrapping_sub(ours))
}
