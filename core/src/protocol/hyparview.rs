//! The overlay: each member has a few neighbours, and the links between them connect all.
//!
//! HyParView (Leitão, Pereira, Rodrigues, DSN 2007). The *active view* holds the neighbours. Links are symmetric, so that
//! all have equally many, and nobody is left that no one speaks to. The *passive view* is a random sample of the rest,
//! kept fresh by shuffles, from which a lost neighbour is replaced at once.
//!
//! ```text
//!   A ── OVERLAY_JOIN ──► B           nobody is A's neighbour: B takes it, and drops one if it must
//!        B ── FORWARD_JOIN ──► …      to all of B's neighbours, and on by chance; whoever it ends at takes A, too
//!   A ── NEIGHBOR ──► C               one is missing: C takes A if it has room, or if A has no other neighbour
//!   A ◄─ NEIGHBOR_REPLY ── C          no: the next one is asked
//!   A ── DISCONNECT ──► D             D had to make room for another
//!   A ── SHUFFLE ──► … ── SHUFFLE_REPLY ──► A
//! ```
//!
//! It sleeps until it is wanted: the first broadcast wakes its sender, and every frame of these its receiver, and so all
//! within some round trips. A cluster that broadcasts nothing has no overlay and pays nothing for it.
//!
//! Departures, all because there is a member table behind the views. A neighbour that the table loses is gone at once. Where
//! the passive view has nobody left the table is drawn from, so that any loss is survived. A newcomer is taken in by
//! whoever let it into the cluster, with no word of its own; and each of the others asks it with a chance of 1 in n, which
//! also links the halves of a cluster that finds together again: views that are full on both sides would never try.

use alloc::vec::Vec;

use super::Cx;
use crate::id::RunId;
use crate::members::{Entry, Members};
use crate::outbox::{Destination, Via};
use crate::time::{Duration, Instant, nanos};
use crate::wire::frame::{Contact, Contacts, Frame};

/// ARWL and PRWL of §5.1: steps of a FORWARD_JOIN, and how many are left when it passes by a passive view.
const ACTIVE_WALK: u32 = 6;
const PASSIVE_WALK: u32 = 3;

/// k_a and k_p of §5.1: what a SHUFFLE takes of either view, beside its sender.
const SHUFFLED_ACTIVE: usize = 3;
const SHUFFLED_PASSIVE: usize = 4;

/// No configuration may ask for more neighbours.
pub const NEIGHBOURS_MAX: usize = 16;

/// Questions under way at once.
pub const ASKED_MAX: usize = 64;

/// So many refusals, one after another, and then a pause; after long pauses fewer. Where one in ten has room, that is enough.
const REFUSALS: u32 = 30;

/// Who could not be reached, or had no room, is not asked again at once. Nobody derived it.
const FAILED_MAX: usize = 64;

/// What an input did to the active view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    pub up: Option<RunId>,
    pub down: Option<RunId>,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    run: RunId,
    until: Instant,
    /// If it accepts, another neighbour makes room.
    insists: bool,
}

#[derive(Clone, Copy, Debug)]
struct Doubt {
    run: RunId,
    /// Until when it may show that it is there.
    until: Instant,
    /// When it may be asked once more, and whether the link has ended again since it was asked.
    next: Instant,
    again: bool,
}

#[derive(Debug, Default)]
pub struct Hyparview {
    awake: bool,
    active: Vec<RunId>,
    passive: Vec<RunId>,
    /// NEIGHBORs without a reply.
    asked: Vec<Asked>,
    /// Neighbours whose link has ended, or who are asked how they are.
    doubted: Vec<Doubt>,
    failed: Vec<RunId>,
    /// What the last SHUFFLE took along: it makes room for what comes back.
    shuffled: Vec<RunId>,
    /// When to look for neighbours again. Refusals make the pauses longer.
    fill: Option<Instant>,
    pause: Duration,
    refusals: u32,
    shuffle: Option<Instant>,
    scratch: Vec<u8>,
}

impl Hyparview {
    pub fn is_awake(&self) -> bool {
        self.awake
    }

    pub fn neighbours(&self) -> &[RunId] {
        &self.active
    }

    pub fn is_neighbour(&self, run: RunId) -> bool {
        self.active.contains(&run)
    }

    /// Neighbours, passive view, questions under way.
    pub fn load(&self) -> (usize, usize, usize) {
        (self.active.len(), self.passive.len(), self.asked.len() + self.doubted.len())
    }

    /// Somebody wants neighbours, or (`called`) has asked us to be one. Whether we slept until now. §4.3: the first joins by a
    /// contact, here one by lot; the others were asked by somebody, and look for more at once.
    pub fn wake(&mut self, cx: &mut Cx<'_>, members: &Members, called: bool) -> bool {
        if self.awake {
            return false;
        }
        self.awake = true;
        self.shuffle = Some(cx.now.mono + jittered(cx, cx.config.shuffle_interval));
        self.look_around(cx);
        if let Some(contact) = self.draw(cx, members).filter(|_| !called) {
            cx.out.send(contact, &Frame::OverlayJoin);
        }
        true
    }

    pub fn deadline(&self) -> Option<Instant> {
        let due = |doubt: &Doubt| if doubt.again { doubt.next.min(doubt.until) } else { doubt.until };
        let (asked, doubted) = (self.asked.iter().map(|a| a.until), self.doubted.iter().map(due));
        asked.chain(doubted).chain(self.fill).chain(self.shuffle).min()
    }

    /// Does what is due. Called until it returns `None`: each neighbour that is given up.
    pub fn on_deadline(&mut self, cx: &mut Cx<'_>, members: &Members) -> Option<RunId> {
        let now = cx.now.mono;
        while let Some(at) = self.asked.iter().position(|asked| asked.until <= now) {
            let Asked { run, .. } = self.asked.swap_remove(at);
            self.fail(run);
            self.look_around(cx);
        }
        if let Some(&Doubt { run, .. }) = self.doubted.iter().find(|doubt| doubt.until <= now) {
            self.fail(run);
            return self.lose(cx, run).down;
        }
        if self.fill.is_some_and(|at| at <= now) {
            self.fill(cx, members);
        }
        if self.shuffle.is_some_and(|at| at <= now) {
            self.shuffle = Some(now + jittered(cx, cx.config.shuffle_interval));
            self.shuffle(cx, members);
            self.ask_after(cx, members);
        }
        None
    }

    // --- joining ---

    /// §4.3: it is taken in any case, and walks on from all other neighbours. `joiner` is a live member.
    pub fn on_join(&mut self, cx: &mut Cx<'_>, members: &Members, joiner: RunId) -> Change {
        let Some(entry) = entry(members, joiner) else { return Change::default() };
        let node = Contact { run: joiner, addr: entry.addr() };
        for &run in self.active.iter().filter(|run| **run != joiner) {
            if let Some(to) = datagram(members, run) {
                cx.out.send(to, &Frame::ForwardJoin { ttl: ACTIVE_WALK, node });
            }
        }
        self.court(cx, members, joiner)
    }

    /// §4.3, Algorithm 1.
    pub fn on_forward_join(
        &mut self,
        cx: &mut Cx<'_>,
        members: &Members,
        from: RunId,
        ttl: u32,
        node: Contact,
    ) -> Change {
        let joiner = node.run;
        if joiner == members.local().run || entry(members, joiner).is_none() || self.is_neighbour(joiner) {
            return Change::default();
        }
        let next = self.pick(cx, |run| run != from && run != joiner);
        match next.and_then(|next| datagram(members, next)) {
            Some(next) if ttl > 0 && self.active.len() > 1 => {
                if ttl == PASSIVE_WALK {
                    self.remember(cx, members, joiner);
                }
                cx.out.send(next, &Frame::ForwardJoin { ttl: ttl.min(ACTIVE_WALK) - 1, node });
                Change::default()
            }
            // Departure: it is asked first. When many join at once it may have found others meanwhile, and none of ours
            // shall have to go for that.
            _ => {
                self.ask(cx, members, joiner, false, true);
                Change::default()
            }
        }
    }

    /// A member is listed that was not, or was dead. `by_us`: we have let it in.
    pub fn on_member(&mut self, cx: &mut Cx<'_>, members: &Members, run: RunId, by_us: bool) -> Change {
        if !self.awake || self.is_neighbour(run) {
            return Change::default();
        }
        self.failed.retain(|&failed| failed != run);
        if by_us {
            return self.on_join(cx, members, run);
        }
        if self.missing(cx, members) > 0 {
            self.look_around(cx);
        } else if cx.rng.below(members.live_len() as u64) == 0 {
            return self.court(cx, members, run);
        }
        Change::default()
    }

    /// Takes it at once and tells it so: it has no choice.
    fn court(&mut self, cx: &mut Cx<'_>, members: &Members, run: RunId) -> Change {
        let change = self.take(cx, members, run);
        if let (Some(_), Some(to)) = (change.up, stream(members, run)) {
            cx.out.send(to, &Frame::Neighbor { urgent: true });
        }
        change
    }

    // --- neighbours ---

    pub fn on_neighbor(&mut self, cx: &mut Cx<'_>, members: &Members, from: RunId, urgent: bool) -> Change {
        self.trust(from);
        let known = self.is_neighbour(from);
        let accepted = known || urgent || self.has_room(cx);
        let change = if accepted { self.take(cx, members, from) } else { Change::default() };
        if let Some(to) = stream(members, from) {
            cx.out.send(to, &Frame::NeighborReply { accepted });
        }
        change
    }

    pub fn on_reply(&mut self, cx: &mut Cx<'_>, members: &Members, from: RunId, accepted: bool) -> Change {
        self.trust(from);
        let asked = self.asked.iter().position(|asked| asked.run == from).map(|at| self.asked.swap_remove(at));
        if self.is_neighbour(from) {
            if accepted {
                return Change::default();
            }
            // Words of two conversations have crossed: it is none of ours, and we are none of its.
            self.part(cx, members, from);
            return self.lose(cx, from);
        }
        if !accepted {
            self.remember(cx, members, from);
            self.refusals += 1;
            self.avoid(from);
            self.look_around(cx);
            return Change::default();
        }
        if asked.is_some_and(|asked| asked.insists || self.has_room(cx)) {
            return self.take(cx, members, from);
        }
        // Others were quicker; or we have asked too long ago, or have parted from it since.
        self.part(cx, members, from);
        Change::default()
    }

    pub fn on_disconnect(&mut self, cx: &mut Cx<'_>, members: &Members, from: RunId) -> Change {
        let change = self.lose(cx, from);
        if change.down.is_some() {
            self.remember(cx, members, from);
        }
        change
    }

    /// It speaks to us as to a neighbour. If it is none, it is told: what it missed was our DISCONNECT.
    pub fn on_word(&mut self, cx: &mut Cx<'_>, members: &Members, from: RunId) {
        if self.is_neighbour(from) {
            self.trust(from);
        } else {
            self.part(cx, members, from);
        }
    }

    /// It is there.
    pub fn on_sign(&mut self, from: RunId) {
        self.trust(from);
    }

    /// A member is gone: dead, left, or replaced by its next run.
    pub fn on_gone(&mut self, cx: &mut Cx<'_>, run: RunId) -> Change {
        self.passive.retain(|&r| r != run);
        self.asked.retain(|asked| asked.run != run);
        self.lose(cx, run)
    }

    /// The link with it has ended: idle, or broken. It has some time to show that it is there; whether that is asked for is
    /// up to the caller, who has more to ask. `false`: it is no neighbour, or was asked just before.
    pub fn on_severed(&mut self, cx: &mut Cx<'_>, run: RunId) -> bool {
        if !self.is_neighbour(run) {
            return false;
        }
        let now = cx.now.mono;
        if let Some(doubt) = self.doubted.iter_mut().find(|doubt| doubt.run == run) {
            // The link ends as soon as anything is sent: it does so no faster than we ask.
            doubt.again = true;
            return false;
        }
        self.doubted.push(Doubt {
            run,
            until: now + patience(cx),
            next: now + cx.config.gossip_interval,
            again: false,
        });
        true
    }

    /// The next neighbour whose link has ended once more, and that may be asked once more.
    pub fn asks_again(&mut self, cx: &mut Cx<'_>) -> Option<RunId> {
        let now = cx.now.mono;
        let doubt = self.doubted.iter_mut().find(|doubt| doubt.again && doubt.next <= now)?;
        (doubt.again, doubt.next) = (false, now + cx.config.gossip_interval);
        Some(doubt.run)
    }

    /// Nobody listens at the address of any of these.
    pub fn on_unreachable(&mut self, cx: &mut Cx<'_>, members: &Members, addr: core::net::SocketAddr) -> Change {
        let is_there = |run: RunId| members.find(run).and_then(|p| members.get(p)).is_some_and(|e| e.is_at(addr));
        if let Some(at) = self.asked.iter().position(|asked| is_there(asked.run)) {
            let Asked { run, .. } = self.asked.swap_remove(at);
            self.fail(run);
            self.look_around(cx);
        }
        match self.active.iter().copied().find(|&run| is_there(run)) {
            Some(run) => {
                self.fail(run);
                self.lose(cx, run)
            }
            None => Change::default(),
        }
    }

    /// We leave.
    pub fn disband(&mut self, cx: &mut Cx<'_>, members: &Members) {
        for run in core::mem::take(&mut self.active) {
            self.part(cx, members, run);
        }
        *self = Hyparview::default();
    }

    fn take(&mut self, cx: &mut Cx<'_>, members: &Members, run: RunId) -> Change {
        self.asked.retain(|asked| asked.run != run);
        if self.is_neighbour(run) || run == members.local().run || entry(members, run).is_none() {
            return Change::default();
        }
        let mut change = Change { up: Some(run), down: None };
        if !self.has_room(cx) {
            let dropped = self.active.swap_remove(cx.rng.index(self.active.len()));
            self.doubted.retain(|doubt| doubt.run != dropped);
            self.part(cx, members, dropped);
            self.remember(cx, members, dropped);
            change.down = Some(dropped);
        }
        self.active.push(run);
        self.passive.retain(|&r| r != run);
        self.pause = Duration::ZERO;
        change
    }

    fn lose(&mut self, cx: &mut Cx<'_>, run: RunId) -> Change {
        let Some(at) = self.active.iter().position(|&r| r == run) else { return Change::default() };
        self.active.swap_remove(at);
        self.doubted.retain(|doubt| doubt.run != run);
        // §4.4: it is replaced at once.
        self.look_around(cx);
        self.fill = Some(cx.now.mono);
        Change { up: None, down: Some(run) }
    }

    fn part(&mut self, cx: &mut Cx<'_>, members: &Members, run: RunId) {
        if let Some(to) = stream(members, run) {
            cx.out.send(to, &Frame::Disconnect);
        }
    }

    fn trust(&mut self, run: RunId) {
        self.doubted.retain(|doubt| doubt.run != run);
    }

    fn has_room(&self, cx: &Cx<'_>) -> bool {
        self.active.len() < cx.config.active_view
    }

    // --- looking for neighbours ---

    /// How many more there should be.
    fn missing(&self, cx: &Cx<'_>, members: &Members) -> usize {
        let aim = cx.config.active_view.min(members.live_len() - 1);
        aim.saturating_sub(self.active.len())
    }

    /// Something has changed: it may be worth another try, and soon.
    fn look_around(&mut self, cx: &Cx<'_>) {
        if self.awake {
            let soon = cx.now.mono + self.pause;
            self.fill = Some(self.fill.map_or(soon, |at| at.min(soon)));
        }
    }

    fn fill(&mut self, cx: &mut Cx<'_>, members: &Members) {
        self.fill = None;
        let missing = self.missing(cx, members);
        let wanted = missing.saturating_sub(self.asked.len());
        if wanted == 0 {
            return;
        }
        // §4.4: only who has nobody may press. Departure: and, now and then, who misses two and finds nobody with room: the last
        // two that miss some may be each other's neighbours already.
        let nobody = self.active.is_empty();
        let mut presses = nobody || missing > 1 && self.pause >= cx.config.gossip_interval;
        for _ in 0..wanted {
            let Some(run) = self.candidate(cx, members) else { break };
            self.ask(cx, members, run, presses, false);
            presses = nobody;
        }
        let few = self.pause >= cx.config.gossip_interval * 10;
        if self.refusals >= if few { 2 } else { REFUSALS } || self.asked.is_empty() {
            // Where all others are full there is none to be had: that is no reason to ask for ever more.
            self.refusals = 0;
            let least = cx.config.gossip_flush.max(Duration::from_millis(1));
            self.pause = (self.pause * 2).clamp(least, cx.config.shuffle_interval.max(least));
            // Who did not answer, or had no room, is tried again then.
            self.failed.clear();
        }
        self.fill = Some(cx.now.mono + self.pause.max(patience(cx)));
    }

    /// Are they there, and do they think so, too? That also keeps the links open.
    fn ask_after(&mut self, cx: &mut Cx<'_>, members: &Members) {
        for at in 0..self.active.len() {
            let run = self.active[at];
            if let Some(to) = stream(members, run) {
                cx.out.send(to, &Frame::Neighbor { urgent: false });
                self.on_severed(cx, run);
            }
        }
    }

    fn ask(&mut self, cx: &mut Cx<'_>, members: &Members, run: RunId, urgent: bool, insists: bool) {
        // A flood of FORWARD_JOINs costs the joiners their links, not us our memory.
        let is_asked = self.asked.iter().any(|asked| asked.run == run);
        if let Some(to) = stream(members, run).filter(|_| !is_asked && self.asked.len() < ASKED_MAX) {
            self.asked.push(Asked { run, until: cx.now.mono + patience(cx), insists });
            cx.out.send(to, &Frame::Neighbor { urgent });
        }
    }

    /// Somebody of the passive view, or else of the table.
    fn candidate(&mut self, cx: &mut Cx<'_>, members: &Members) -> Option<RunId> {
        let (mut found, this) = (None, &*self);
        let fit =
            || this.passive.iter().copied().filter(|&run| !this.is_busy_with(run) && entry(members, run).is_some());
        let n = fit().count();
        if let Some(run) = fit().nth(cx.rng.index(n)) {
            return Some(run);
        }
        members.draw(cx.rng, 1, |e| this.is_busy_with(e.run), |_, e| found = Some(e.run));
        found
    }

    fn is_busy_with(&self, run: RunId) -> bool {
        self.is_neighbour(run) || self.asked.iter().any(|asked| asked.run == run) || self.failed.contains(&run)
    }

    fn fail(&mut self, run: RunId) {
        self.passive.retain(|&r| r != run);
        self.avoid(run);
    }

    fn avoid(&mut self, run: RunId) {
        if self.failed.len() == FAILED_MAX {
            self.failed.remove(0);
        }
        self.failed.push(run);
    }

    fn draw(&self, cx: &mut Cx<'_>, members: &Members) -> Option<Destination> {
        let mut drawn = None;
        members.draw(cx.rng, 1, |_| false, |_, e| drawn = Some(e.to()));
        drawn
    }

    fn pick(&self, cx: &mut Cx<'_>, suits: impl Fn(RunId) -> bool) -> Option<RunId> {
        let fit = || self.active.iter().copied().filter(|&run| suits(run));
        let n = fit().count();
        fit().nth(cx.rng.index(n))
    }

    // --- the passive view ---

    fn remember(&mut self, cx: &mut Cx<'_>, members: &Members, run: RunId) {
        let most = cx.config.passive_view;
        if run == members.local().run || self.is_neighbour(run) || self.passive.contains(&run) || most == 0 {
            return;
        }
        while self.passive.len() >= most {
            // §4.5: first what the other side was given in exchange.
            let given = self.passive.iter().position(|r| self.shuffled.contains(r));
            let at = given.unwrap_or_else(|| cx.rng.index(self.passive.len()));
            self.passive.swap_remove(at);
        }
        self.passive.push(run);
    }

    /// §4.5: a part of both views goes for a walk. Departure: another goes straight to a member by lot, which keeps parts of
    /// an overlay from drifting apart and wakes who has slept through all.
    fn shuffle(&mut self, cx: &mut Cx<'_>, members: &Members) {
        if members.live_len() <= cx.config.active_view + 1 {
            return;
        }
        let node = Contact { run: members.local().run, addr: members.local().addr() };
        let (mut active, mut passive) = (self.active.clone(), self.passive.clone());
        for (list, n) in [(&mut active, SHUFFLED_ACTIVE), (&mut passive, SHUFFLED_PASSIVE)] {
            cx.rng.shuffle(list);
            list.truncate(n);
        }
        self.shuffled = active.into_iter().chain(passive).collect();
        let contacts = pack(&mut self.scratch, members, &self.shuffled);
        let walk = self.active.get(cx.rng.index(self.active.len())).and_then(|&run| datagram(members, run));
        walk.into_iter().for_each(|to| cx.out.send(to, &Frame::Shuffle { ttl: ACTIVE_WALK, node, contacts }));
        members.draw(
            cx.rng,
            1,
            |e| self.active.contains(&e.run),
            |_, e| {
                cx.out.send(e.to(), &Frame::Shuffle { ttl: 0, node, contacts });
            },
        );
    }

    pub fn on_shuffle(
        &mut self,
        cx: &mut Cx<'_>,
        members: &Members,
        from: RunId,
        ttl: u32,
        node: Contact,
        contacts: Contacts<'_>,
    ) {
        if node.run == members.local().run {
            return;
        }
        let next = self.pick(cx, |run| run != from && run != node.run).and_then(|run| datagram(members, run));
        if let Some(next) = next.filter(|_| ttl > 0 && self.active.len() > 1) {
            cx.out.send(next, &Frame::Shuffle { ttl: ttl.min(ACTIVE_WALK) - 1, node, contacts });
            return;
        }
        // As many of ours as came.
        let mut ours = self.passive.clone();
        cx.rng.shuffle(&mut ours);
        ours.truncate(contacts.iter().count());
        if let Some(to) = datagram(members, node.run) {
            let contacts = pack(&mut self.scratch, members, &ours);
            cx.out.send(to, &Frame::ShuffleReply { contacts });
        }
        self.shuffled = ours;
        self.learn(cx, members, core::iter::once(node).chain(contacts.iter()));
    }

    pub fn on_shuffle_reply(&mut self, cx: &mut Cx<'_>, members: &Members, contacts: Contacts<'_>) {
        self.learn(cx, members, contacts.iter());
    }

    /// With a member table, only who is in it counts.
    fn learn(&mut self, cx: &mut Cx<'_>, members: &Members, contacts: impl Iterator<Item = Contact>) {
        for contact in contacts {
            if entry(members, contact.run).is_some() {
                self.remember(cx, members, contact.run);
            }
        }
        self.shuffled.clear();
    }
}

/// A neighbour, or one to be, that says nothing for so long is not there.
fn patience(cx: &Cx<'_>) -> Duration {
    cx.config.probe_timeout + cx.config.probe_indirect_timeout
}

/// A quarter less or more: nodes that woke together shall not shuffle together for ever.
fn jittered(cx: &mut Cx<'_>, time: Duration) -> Duration {
    let quarter = nanos(time) / 4;
    Duration::from_nanos(nanos(time) - quarter + cx.rng.below(2 * quarter + 1))
}

fn entry(members: &Members, run: RunId) -> Option<&Entry> {
    members.get(members.find(run)?).filter(|e| e.is_live())
}

fn datagram(members: &Members, run: RunId) -> Option<Destination> {
    entry(members, run).map(Entry::to)
}

/// On the link that broadcasts take, so that none of these overtakes one.
fn stream(members: &Members, run: RunId) -> Option<Destination> {
    datagram(members, run).map(|to| Destination { via: Via::Stream, ..to })
}

fn pack<'a>(scratch: &'a mut Vec<u8>, members: &Members, runs: &[RunId]) -> Contacts<'a> {
    scratch.clear();
    for &run in runs {
        if let Some(entry) = entry(members, run) {
            Contacts::push(scratch, Contact { run, addr: entry.addr() });
        }
    }
    Contacts(scratch)
}
