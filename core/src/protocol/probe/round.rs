//! Whose turn it is: SWIM's rounds, on a beat that all agree on.

use super::super::Cx;
use super::Probe;
use crate::config::{Config, Detector, Membership, ProbeOrder};
use crate::id::{COUNTER_MAX, Peer};
use crate::members::{self, Entry, Members, PART_BITS, Place};
use crate::rng::mix;
use crate::time::{Duration, Instant, nanos};

/// Moments of a period at which its ping may leave.
const GRID: u64 = 16;

/// The round's own probe.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    round: u64,
    /// When, on the beat.
    at: u64,
    /// Where the target stands, on the ring that had this fingerprint. Who is next in a shuffled list is asked when
    /// its time has come.
    target: Option<Place>,
    fingerprint: u64,
}

impl Probe {
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

    /// When the next round begins, where there are rounds.
    pub(super) fn next_round(&self, config: &Config, members: &Members, now: Instant) -> Option<Instant> {
        has_rounds(config, members).then(|| {
            let wait = self.plan.map_or(0, |plan| plan.at.saturating_sub(self.beat(now)));
            // A plan whose time was computed on another beat is never more than its rounds away.
            let most = period(config) * (2 + u64::from(self.health));
            on_grid(now + Duration::from_millis(wait.min(most)), config)
        })
    }

    /// SWIM §3.1: in each period, one member is pinged.
    pub(super) fn round(&mut self, cx: &mut Cx<'_>, members: &Members) {
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
    pub(super) fn next_in_robin<'m>(&mut self, cx: &mut Cx<'_>, members: &'m Members) -> Option<(Peer, &'m Entry)> {
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

    /// Reads the entry of the next target and the place of the one after it. What it returns means nothing.
    pub fn warm(&self, members: &Members) -> u64 {
        let Some(plan) = &self.plan else { return 0 };
        let after = target(members, plan.round + 1) == plan.target;
        let entry = plan.target.and_then(|place| members.standing_at(place));
        entry.map_or(0, |(_, e)| e.epoch.0) + u64::from(after)
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
pub(super) fn target(members: &Members, round: u64) -> Option<Place> {
    let others = members.live_len().checked_sub(1).filter(|&n| n > 0)?;
    let lot = mix(round.wrapping_add(0x5851_f42d_4c95_7f2d));
    // In proportion to the ring: where lists differ by d members, this differs by at most d.
    let steps = 1 + ((u128::from(lot) * others as u128) >> 64) as usize;
    members.ahead(steps)
}
