//! Getting in touch: seeds, joins, and everybody we lost.
//!
//! A call to an address whose run is unknown is a handshake of two round trips. The first costs the called
//! nothing to remember (its cookie proves that we are where we say), the second makes us a member:
//!
//! ```text
//!   Hello ── HELLO ──► ◄── COOKIE ── Knock ── JOIN ──► ◄── WELCOME ── Pull ── TABLE_PULL ──► ◄── RECORD … TABLE_NEXT
//!     └──────────────────── REFUSED, or nothing until the call gives up ────────────────┘
//! ```
//!
//! Seeds are called in parallel at the start; while we are alone, again and again with back-off, for ever, and
//! their names are resolved each time. When all is well one address is called now and then all the same:
//! a seed that is no live member, a dead member, or the address of one that was forgotten. Hence any partition
//! heals, also when each side has forgotten the other (memberlist's issue 222 is what happens without). Who has heard
//! nobody for longer than a death takes doubts those that it lists, too: others may sit at their addresses by now.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;

use super::Cx;
use crate::config::Config;
use crate::error::Code;
use crate::id::RunId;
use crate::members::Members;
use crate::outbox::{Completion, Destination, Outbox, Via};
use crate::rng::Rng;
use crate::time::{Duration, Instant, nanos};
use crate::view::{Event, EventKind, MemberState};
use crate::wire::frame::COOKIE_LEN;

/// Calls under way at once. A join of more addresses waits for nobody: those beyond count as not answering.
pub const CALLS_MAX: usize = 1024;

/// A thousand members with one seed call it twice a second then (`heal_interval` of 30 s). Nobody derived it.
const CALM_MAX: u32 = 4;

#[derive(Debug)]
pub struct Contacts {
    calls: Vec<Call>,
    joins: Vec<Join>,
    seeds: Vec<Seed>,
    /// Addresses of members that died and were forgotten, oldest first.
    remembered: VecDeque<SocketAddr>,
    retry: Option<Instant>,
    backoff: Duration,
    heal: Instant,
    /// So many calls in a row found that all is one: the pauses between them double.
    calm: u32,
    heal_turn: u32,
    /// Whom we list may be gone.
    doubts: bool,
    /// How soon to call when we are told to hurry.
    hurry: Duration,
    hurried: Option<Instant>,
    next_join: u64,
    applied: bool,
}

#[derive(Debug)]
struct Call {
    addr: SocketAddr,
    stage: Stage,
    tries: u32,
    again: Instant,
    until: Instant,
    /// The joins, and the name in each, that wait for it.
    joins: Vec<(u64, usize)>,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Hello,
    Knock { run: RunId, cookie: [u8; COOKIE_LEN] },
    Pull { run: RunId, cursor: u32 },
}

/// An application's join: which of its names were answered.
#[derive(Debug)]
struct Join {
    id: u64,
    /// Calls still open, and whether one was answered.
    names: Vec<(usize, bool)>,
    until: Instant,
    refused: Option<String>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seed {
    failed: bool,
    /// Its name is being resolved, for a call to all its addresses or only to those that are no members.
    resolving: bool,
}

/// What to say to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Say {
    Hello { addr: SocketAddr, via: Via },
    Join { addr: SocketAddr, run: RunId, cookie: [u8; COOKIE_LEN], via: Via },
    TablePull { addr: SocketAddr, run: RunId, cursor: u32 },
}

impl Contacts {
    pub fn new(now: Instant, seeds: usize, heal: Duration, backoff: Duration) -> Contacts {
        Contacts {
            calls: Vec::new(),
            joins: Vec::new(),
            seeds: alloc::vec![Seed::default(); seeds],
            remembered: VecDeque::new(),
            retry: None,
            backoff,
            heal: now + heal,
            calm: 0,
            heal_turn: 0,
            doubts: false,
            hurry: backoff,
            hurried: None,
            next_join: 1,
            applied: false,
        }
    }

    /// Asks for all seeds. Called at the start, and again by ourselves.
    pub fn call_seeds(&mut self, cx: &mut Cx<'_>) {
        for (i, seed) in self.seeds.iter_mut().enumerate() {
            seed.resolving = true;
            cx.out.resolve.push(i);
        }
        let jitter = cx.rng.below(nanos(self.backoff) / 4 + 1);
        self.retry = Some(cx.now.mono + self.backoff + Duration::from_nanos(jitter));
        self.backoff = (self.backoff * 2).min(cx.config.seed_retry_max);
    }

    /// A seed's addresses are known, or (none) its name does not resolve.
    pub fn on_resolved(&mut self, cx: &mut Cx<'_>, members: &Members, seed: usize, addrs: &[SocketAddr]) {
        let Some(entry) = self.seeds.get_mut(seed) else { return };
        if !core::mem::take(&mut entry.resolving) {
            return;
        }
        let mut called = false;
        for &addr in addrs {
            if !self.is_settled(members, addr) {
                called |= self.call(cx, addr, None);
            }
        }
        if !called {
            self.seeds[seed].failed = true;
        }
    }

    /// Where nobody lists all a seed is called for nothing, most often: who finds that it is connected with the seed waits longer
    /// before the next call, and else calls again soon.
    pub fn rest(&mut self, same: bool) {
        self.calm = if same { (self.calm + 1).min(CALM_MAX) } else { 0 };
    }

    /// Somebody was lost: if nobody takes its place, the next call shall be soon, unless that has been tried just now.
    pub fn on_loss(&mut self, now: Instant, config: &Config) {
        self.calm = 0;
        if self.hurried.is_none_or(|at| at + self.hurry * 4 < now) {
            self.hurry = config.seed_retry_min;
        }
    }

    /// Nobody has answered us for so long that those we list may be gone, or somebody has.
    pub fn doubt(&mut self, now: Instant, config: &Config, doubts: bool) {
        if doubts && !self.doubts {
            self.calm = 0;
            self.heal = self.heal.min(now + config.heal_interval);
        }
        self.doubts = doubts;
    }

    /// Whoever is there is in touch with us.
    fn is_settled(&self, members: &Members, addr: SocketAddr) -> bool {
        if self.doubts { members.local().is_at(addr) } else { members.is_at(addr) }
    }

    /// There is nobody left to turn to, and too few of us here: call now, and then less and less often.
    pub fn hurry(&mut self, now: Instant, config: &Config) {
        if self.heal > now + self.hurry {
            self.heal = now + self.hurry;
            self.hurried = Some(self.heal);
            self.hurry = (self.hurry * 2).min(config.heal_interval);
        }
    }

    /// Somebody's whole table has come.
    pub fn has_table(&self) -> bool {
        self.applied
    }

    /// The first picture is as complete as it can be made: a seed's table is applied, or every seed failed once.
    pub fn is_first_round_over(&self) -> bool {
        self.applied || (self.seeds.iter().all(|s| s.failed) && self.calls.is_empty())
    }

    /// Calls each name's addresses in parallel. The join ends by a [`Completion::Joined`].
    pub fn join(&mut self, cx: &mut Cx<'_>, members: &Members, names: &[Vec<SocketAddr>]) -> u64 {
        let id = self.next_join;
        self.next_join += 1;
        let until = cx.now.mono + cx.config.join_timeout;
        self.joins.push(Join { id, names: alloc::vec![(0, false); names.len()], until, refused: None });
        for (i, addrs) in names.iter().enumerate() {
            for &addr in addrs {
                if !members.local().is_at(addr) && self.call(cx, addr, Some((id, i))) {
                    let join = self.joins.last_mut().expect("pushed above");
                    join.names[i].0 += 1;
                }
            }
        }
        self.end_joins(cx);
        id
    }

    /// Calls one address unless it is being called already. False: no call is made.
    pub fn call(&mut self, cx: &mut Cx<'_>, addr: SocketAddr, join: Option<(u64, usize)>) -> bool {
        if let Some(call) = self.calls.iter_mut().find(|c| c.addr == addr && !matches!(c.stage, Stage::Pull { .. })) {
            call.joins.extend(join);
            return true;
        }
        if self.calls.len() == CALLS_MAX {
            return false;
        }
        let (again, until) = (cx.now.mono, cx.now.mono + cx.config.join_timeout);
        let joins = join.into_iter().collect();
        self.calls.push(Call { addr, stage: Stage::Hello, tries: 0, again, until, joins });
        true
    }

    /// The called one knows us not, and made us prove our address.
    pub fn on_cookie(&mut self, now: Instant, from: SocketAddr, run: RunId, cookie: [u8; COOKIE_LEN]) {
        if let Some(call) = self.calls.iter_mut().find(|c| c.addr == from && matches!(c.stage, Stage::Hello)) {
            call.stage = Stage::Knock { run, cookie };
            (call.tries, call.again) = (0, now);
        }
    }

    /// We are in. `pull`: its table is worth pulling. True if we had called.
    pub fn on_welcome(&mut self, cx: &mut Cx<'_>, run: RunId, pull: bool) -> bool {
        let mine = |c: &Call| matches!(c.stage, Stage::Knock { run: r, .. } if r == run);
        let Some(i) = self.calls.iter().position(mine) else { return false };
        let call = &mut self.calls[i];
        for (id, name) in core::mem::take(&mut call.joins) {
            if let Some(join) = self.joins.iter_mut().find(|j| j.id == id) {
                join.names[name].0 -= 1;
                join.names[name].1 = true;
            }
        }
        let addr = call.addr;
        if pull {
            (call.stage, call.tries, call.again) = (Stage::Pull { run, cursor: 0 }, 0, cx.now.mono);
            call.until = cx.now.mono + cx.config.join_timeout;
        } else {
            self.calls.swap_remove(i);
            self.applied = true;
        }
        self.remembered.retain(|&a| a != addr);
        self.backoff = cx.config.seed_retry_min;
        self.end_joins(cx);
        true
    }

    /// A part of the table has come; 0 was the last.
    /// `patience`: how long the next part may take.
    pub fn on_table_next(&mut self, now: Instant, from: RunId, cursor: u32, patience: Duration) {
        let mine =
            |c: &Call| matches!(c.stage, Stage::Pull { run, cursor: c } if run == from && (cursor == 0 || c < cursor));
        let Some(i) = self.calls.iter().position(mine) else { return };
        if cursor == 0 {
            self.calls.swap_remove(i);
            self.applied = true;
        } else {
            let call = &mut self.calls[i];
            (call.stage, call.tries, call.again) = (Stage::Pull { run: from, cursor }, 0, now);
            call.until = now + patience;
        }
    }

    /// It will not have us. True if we had called.
    pub fn on_refused(&mut self, cx: &mut Cx<'_>, from: SocketAddr, run: RunId, text: &str) -> bool {
        let mine = |c: &Call| match c.stage {
            Stage::Hello => c.addr == from,
            Stage::Knock { run: r, .. } => r == run,
            Stage::Pull { .. } => false,
        };
        let Some(i) = self.calls.iter().position(mine) else { return false };
        for &(id, _) in &self.calls[i].joins {
            if let Some(join) = self.joins.iter_mut().find(|j| j.id == id) {
                join.refused.get_or_insert_with(|| text.into());
            }
        }
        self.end_call(i);
        self.end_joins(cx);
        true
    }

    /// Whom we have asked to let us in, and who may have done so: its answer is on its way.
    pub fn knocking(&self) -> impl Iterator<Item = Destination> + '_ {
        self.calls.iter().filter_map(|call| match call.stage {
            Stage::Knock { run, .. } => Some(Destination { addr: call.addr, run: Some(run), via: Via::Datagram }),
            _ => None,
        })
    }

    /// We leave: whoever waits for a join need not wait any longer.
    pub fn abandon(&mut self, out: &mut Outbox) {
        self.calls.clear();
        for join in self.joins.drain(..) {
            let answered = join.names.iter().filter(|n| n.1).count();
            out.completions.push(Completion::Joined { id: join.id, answered, refused: join.refused });
        }
    }

    /// Nobody listens there.
    pub fn on_unreachable(&mut self, cx: &mut Cx<'_>, addr: SocketAddr, via: Via) {
        // UDP alone may be blocked; the stream's refusal, or both, ends the call.
        let dead = |c: &Call| c.addr == addr && matches!(c.stage, Stage::Hello) && (via == Via::Stream || c.tries < 2);
        if via == Via::Stream {
            if let Some(i) = self.calls.iter().position(dead) {
                self.end_call(i);
                self.end_joins(cx);
            }
        } else if let Some(call) = self.calls.iter_mut().find(|c| dead(c)) {
            call.again = cx.now.mono;
        }
    }

    /// A member was forgotten. Its address is not.
    pub fn remember(&mut self, addr: SocketAddr, max: usize) {
        if max == 0 || self.remembered.contains(&addr) {
            return;
        }
        if self.remembered.len() >= max {
            self.remembered.pop_front();
        }
        self.remembered.push_back(addr);
    }

    /// Calls under way, and addresses remembered.
    pub fn load(&self) -> (usize, usize) {
        (self.calls.len(), self.remembered.len())
    }

    pub fn deadline(&self, members: &Members) -> Option<Instant> {
        let calls = self.calls.iter().map(|c| c.again.min(c.until));
        let joins = self.joins.iter().map(|j| j.until);
        let alone = members.live_len() < 2;
        let retry = self.retry.filter(|_| alone && !self.seeds.is_empty());
        calls.chain(joins).chain(retry).chain(core::iter::once(self.heal)).min()
    }

    /// Call until it returns `None`.
    pub fn on_deadline(&mut self, cx: &mut Cx<'_>, members: &Members) -> Option<Say> {
        let now = cx.now.mono;
        while let Some(i) = self.calls.iter().position(|c| c.until <= now) {
            self.end_call(i);
        }
        self.end_joins(cx);
        if members.live_len() < 2 && !self.seeds.is_empty() && self.retry.is_some_and(|at| at <= now) {
            self.call_seeds(cx);
        }
        if self.heal <= now {
            self.heal(cx, members);
        }
        let i = self.calls.iter().position(|c| c.again <= now)?;
        let call = &mut self.calls[i];
        call.tries += 1;
        // At the probe's pace, then at half of it: each stage must get through a network that loses a third.
        call.again = now + cx.config.probe_timeout * call.tries.min(2);
        // Every second try goes by stream, in case datagrams are swallowed.
        let via = if call.tries.is_multiple_of(2) { Via::Stream } else { Via::Datagram };
        let addr = call.addr;
        Some(match call.stage {
            Stage::Hello => Say::Hello { addr, via },
            Stage::Knock { run, cookie } => Say::Join { addr, run, cookie, via },
            Stage::Pull { run, cursor } => Say::TablePull { addr, run, cursor },
        })
    }

    /// Calls one address out of three kinds in turn: a seed, a dead member (or one in doubt), a forgotten one.
    fn heal(&mut self, cx: &mut Cx<'_>, members: &Members) {
        let interval = nanos(cx.config.heal_interval) << self.calm;
        self.heal = cx.now.mono + Duration::from_nanos(interval - cx.rng.below(interval / 4 + 1));
        for _ in 0..3 {
            self.heal_turn = (self.heal_turn + 1) % 3;
            let addr = match self.heal_turn {
                0 if !self.seeds.is_empty() => {
                    let i = cx.rng.index(self.seeds.len());
                    self.seeds[i].resolving = true;
                    cx.out.resolve.push(i);
                    return;
                }
                1 => {
                    let dead = members.gone().filter(|(_, e)| e.status == MemberState::Dead);
                    let me = members.local().run;
                    let live = self.doubts.then(|| members.live());
                    let doubted = live.into_iter().flatten().filter(|(_, e)| e.run != me);
                    pick(cx.rng, dead.chain(doubted).map(|(_, e)| e.addr()))
                }
                _ => pick(cx.rng, self.remembered.iter().copied()),
            };
            if let Some(addr) = addr.filter(|&a| !self.is_settled(members, a)) {
                self.call(cx, addr, None);
                return;
            }
        }
    }

    fn end_call(&mut self, i: usize) {
        let call = self.calls.swap_remove(i);
        for (id, name) in call.joins {
            if let Some(join) = self.joins.iter_mut().find(|j| j.id == id) {
                join.names[name].0 -= 1;
            }
        }
        if self.calls.is_empty() {
            self.seeds.iter_mut().filter(|s| !s.resolving).for_each(|s| s.failed = true);
        }
    }

    fn end_joins(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now.mono;
        self.joins.retain_mut(|join| {
            let over = join.until <= now || join.names.iter().all(|&(open, answered)| answered || open == 0);
            if over {
                let answered = join.names.iter().filter(|n| n.1).count();
                let (id, refused) = (join.id, join.refused.take());
                let mut event = Event::new(EventKind::Joined, 0);
                (event.id, event.count) = (id, answered as u64);
                if let (0, Some(text)) = (answered, &refused) {
                    event.status = Code::Refused as i32;
                    event = event.text(text.as_str());
                }
                cx.out.events.push(event);
                cx.out.completions.push(Completion::Joined { id, answered, refused });
            }
            !over
        });
    }
}

/// One of them by lot.
fn pick(rng: &mut Rng, addrs: impl Iterator<Item = SocketAddr>) -> Option<SocketAddr> {
    let mut picked = None;
    for (i, addr) in addrs.enumerate() {
        if rng.index(i + 1) == 0 {
            picked = Some(addr);
        }
    }
    picked
}
