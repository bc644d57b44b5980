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
//!   A ── DISCONNECT ──► D             D had to make room for another, of whom it is told
//!   A ── SHUFFLE ──► … ── SHUFFLE_REPLY ──► A
//! ```
//!
//! With `membership = full` it sleeps until it is wanted: the first broadcast wakes its sender, and every frame of these its receiver, and so all
//! within some round trips. A cluster that broadcasts nothing has no overlay and pays nothing for it.
//!
//! Departures. A neighbour that has to go for a newcomer is told of it, for the newcomer has room: so a link becomes two, and
//! nobody is left with one less. The others, all because there is a member table behind the views then: a neighbour that the table loses is gone at once. A new
//! one is drawn from the table and not from the passive view, so that any loss is survived and links do not stay nearby. A newcomer is taken in by
//! whoever let it into the cluster, with no word of its own; and each of the others asks it with a chance of 1 in n, which
//! also links the halves of a cluster that finds together again: views that are full on both sides would never try.
//!
//! With `membership = partial` the views are all there is ([`reach`] and [`Hyparview::others`] are where it differs), and
//! records of their senders ride on NEIGHBOR and its reply. A contact whose view is full drops nobody for a newcomer: it sends it for as many
//! walks as fill half of its view, each bringing two links, and tells it of others ([`Hyparview::admit`]).

use alloc::vec::Vec;

use super::Cx;
use crate::config::{Config, Membership};
use crate::id::RunId;
use crate::members::{Entry, Members};
use crate::outbox::{Destination, Via};
use crate::telling;
use crate::time::{Duration, Instant, nanos};
use crate::wire::frame::{Contact, Contacts, Frame, Record};

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

/// The longest pause between two walks of one that lacks a single neighbour, in shuffles. Nobody derived it.
const STROLL_MAX: u32 = 64;

/// What an input did to the active view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    pub up: Option<RunId>,
    pub down: Option<RunId>,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    node: Contact,
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
    passive: Vec<Contact>,
    /// NEIGHBORs without a reply.
    asked: Vec<Asked>,
    /// Neighbours whose link has ended, or who are asked how they are.
    doubted: Vec<Doubt>,
    failed: Vec<RunId>,
    /// What the last SHUFFLE took along: it makes room for what comes back.
    shuffled: Vec<Contact>,
    /// Until when one more is taken though all places are: we look for a link with another part of the cluster.
    open: Option<Instant>,
    /// When to look for neighbours again. Refusals make the pauses longer.
    fill: Option<Instant>,
    pause: Duration,
    refusals: u32,
    shuffle: Option<Instant>,
    /// When we may go for a walk again, though we lack only one, and the pause before that.
    stroll: (Instant, Duration),
    /// There was nobody left to ask.
    is_stuck: bool,
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

    /// The passive view.
    pub fn remembered(&self) -> impl Iterator<Item = RunId> + '_ {
        self.passive.iter().map(|node| node.run)
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
            let Asked { node, .. } = self.asked.swap_remove(at);
            self.fail(node.run);
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
        let Some(node) = listed(members, joiner) else { return Change::default() };
        for &run in self.active.iter().filter(|run| **run != joiner) {
            if let Some(to) = datagram(members, run) {
                cx.out.send(to, &Frame::ForwardJoin { ttl: ACTIVE_WALK, node });
            }
        }
        self.court(cx, members, node)
    }

    /// Somebody was let in who looks for so many neighbours. Departure from §4.3, where it is taken in any case: a thousand who
    /// come at once would push each other out. Who is full sends it on.
    pub fn admit(&mut self, cx: &mut Cx<'_>, members: &Members, node: Contact, seeks: u32) -> Change {
        if node.run == members.local().run || self.is_neighbour(node.run) {
            return Change::default();
        }
        let (mut ours, mut known) = (self.active.clone(), self.passive.clone());
        cx.rng.shuffle(&mut ours);
        cx.rng.shuffle(&mut known);
        known.retain(|other| other.run != node.run);
        known.truncate(SHUFFLED_PASSIVE);
        known.extend(ours.iter().filter_map(|&run| listed(members, run)));
        let mut seeks = (seeks as usize).min(cx.config.active_view);
        let change = match seeks > 0 && self.has_room(cx) {
            true => self.court(cx, members, node),
            false => Change::default(),
        };
        seeks = seeks.saturating_sub(usize::from(change.up.is_some()));
        // Each walk brings two links: to whom it ends at, and to whom that one drops.
        for to in ours.iter().filter_map(|&run| datagram(members, run)).take(seeks.div_ceil(2)) {
            cx.out.send(to, &Frame::ForwardJoin { ttl: ACTIVE_WALK, node });
        }
        let to = Destination { addr: node.addr, run: Some(node.run), via: Via::Datagram };
        cx.out.send(
            to,
            &Frame::ShuffleReply { contacts: pack(&mut self.scratch, members, &known, cx.config.membership) },
        );
        self.remember(cx, members, node);
        change
    }

    /// One more link is wanted, though there may be enough of them.
    pub fn open_up(&mut self, until: Instant) {
        self.open = Some(until);
    }

    /// Whether nobody was left to ask, since this was asked last, and fewer than half of our places are taken.
    pub fn was_stuck(&mut self, config: &Config) -> bool {
        core::mem::take(&mut self.is_stuck) && self.active.len() < config.active_view.div_ceil(2)
    }

    /// How many neighbours we would take.
    pub fn seeks(&self, now: Instant, config: &Config) -> u32 {
        let open = self.open.is_some_and(|until| now < until);
        (config.active_view.saturating_sub(self.active.len()) as u32).max(open.into())
    }

    /// Somebody is known from elsewhere: it may become a neighbour.
    pub fn suggest(&mut self, cx: &mut Cx<'_>, members: &Members, node: Contact) {
        self.remember(cx, members, node);
        self.look_around(cx);
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
        let is_known = reach(cx, members, node).is_some();
        if joiner == members.local().run || !is_known {
            return Change::default();
        }
        let is_ours = self.is_neighbour(joiner);
        let next = self.pick(cx, |run| run != from && run != joiner);
        let goes_on = ttl > 0 && (is_ours || !self.has_room(cx) || ttl > PASSIVE_WALK);
        match next.and_then(|next| datagram(members, next)) {
            // Departure: in the second half of its way it ends where there is room. In the first it would end among those who
            // joined just before, who have room because they are new: links would stay local while the cluster grows.
            Some(next) if goes_on && self.active.len() > 1 => {
                if ttl == PASSIVE_WALK {
                    self.remember(cx, members, node);
                }
                cx.out.send(next, &Frame::ForwardJoin { ttl: ttl.min(ACTIVE_WALK) - 1, node });
                Change::default()
            }
            // Departure: it is asked first. When many join at once it may have found others meanwhile, and none of ours
            // shall have to go for that.
            _ if is_ours => Change::default(),
            _ => {
                self.ask(cx, members, node, false, true);
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
            return listed(members, run).map_or(Change::default(), |node| self.court(cx, members, node));
        }
        Change::default()
    }

    /// Takes it at once and tells it so: it has no choice.
    fn court(&mut self, cx: &mut Cx<'_>, members: &Members, node: Contact) -> Change {
        let change = self.take(cx, members, node);
        if let (Some(_), Some(to)) = (change.up, reach(cx, members, node)) {
            self.call(cx, members, to, true);
        }
        change
    }

    // --- neighbours ---

    /// `back`: where the answer goes.
    pub fn on_neighbor(
        &mut self,
        cx: &mut Cx<'_>,
        members: &Members,
        node: Contact,
        back: Destination,
        urgent: bool,
    ) -> Change {
        self.trust(node.run);
        let open = self.open.is_some_and(|until| cx.now.mono < until);
        let has_place = self.is_neighbour(node.run) || self.has_room(cx);
        let accepted = has_place || urgent || open;
        let change = if accepted { self.take(cx, members, node) } else { Change::default() };
        if accepted && !has_place {
            self.open = None;
        }
        self.answer(cx, members, back, accepted);
        change
    }

    /// Answers NEIGHBOR.
    pub fn answer(&mut self, cx: &mut Cx<'_>, members: &Members, to: Destination, accepted: bool) {
        let record = card(&mut self.scratch, cx, members);
        cx.out.send(to, &Frame::NeighborReply { accepted, record });
    }

    pub fn on_reply(&mut self, cx: &mut Cx<'_>, members: &Members, node: Contact, accepted: bool) -> Change {
        let from = node.run;
        self.trust(from);
        let asked = self.asked.iter().position(|asked| asked.node.run == from).map(|at| self.asked.swap_remove(at));
        if self.is_neighbour(from) {
            if accepted {
                return Change::default();
            }
            // Words of two conversations have crossed: it is none of ours, and we are none of its.
            self.part(cx, members, node, None);
            return self.lose(cx, from);
        }
        if !accepted {
            self.remember(cx, members, node);
            self.refusals += 1;
            self.avoid(from);
            self.look_around(cx);
            return Change::default();
        }
        if asked.is_some_and(|asked| asked.insists || self.has_room(cx)) {
            return self.take(cx, members, node);
        }
        // Others were quicker; or we have asked too long ago, or have parted from it since.
        self.part(cx, members, node, None);
        Change::default()
    }

    /// `instead`: who has its place now. It has room, most likely.
    pub fn on_disconnect(
        &mut self,
        cx: &mut Cx<'_>,
        members: &Members,
        from: RunId,
        instead: Option<Contact>,
    ) -> Change {
        let change = self.lose(cx, from);
        if change.down.is_some() {
            listed(members, from).into_iter().for_each(|node| self.remember(cx, members, node));
            let fits = |node: &Contact| node.run != members.local().run && !self.is_busy_with(node.run);
            if let Some(node) = instead.filter(fits) {
                self.ask(cx, members, node, self.active.is_empty(), false);
            }
        }
        change
    }

    /// It speaks to us as to a neighbour. If it is none, it is told: what it missed was our DISCONNECT.
    pub fn on_word(&mut self, cx: &mut Cx<'_>, members: &Members, from: RunId) {
        if self.is_neighbour(from) {
            self.trust(from);
        } else if let Some(node) = listed(members, from) {
            self.part(cx, members, node, None);
        }
    }

    /// It is there.
    pub fn on_sign(&mut self, from: RunId) {
        self.trust(from);
    }

    /// A member is gone: dead, left, or replaced by its next run.
    pub fn on_gone(&mut self, cx: &mut Cx<'_>, run: RunId) -> Change {
        self.passive.retain(|node| node.run != run);
        self.asked.retain(|asked| asked.node.run != run);
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
        if let Some(at) = self.asked.iter().position(|asked| asked.node.addr == addr || is_there(asked.node.run)) {
            let Asked { node, .. } = self.asked.swap_remove(at);
            self.fail(node.run);
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
            listed(members, run).into_iter().for_each(|node| self.part(cx, members, node, None));
        }
        *self = Hyparview::default();
    }

    fn take(&mut self, cx: &mut Cx<'_>, members: &Members, node: Contact) -> Change {
        let run = node.run;
        self.asked.retain(|asked| asked.node.run != run);
        if self.is_neighbour(run) || run == members.local().run || reach(cx, members, node).is_none() {
            return Change::default();
        }
        let mut change = Change { up: Some(run), down: None };
        if !self.has_room(cx) {
            let dropped = self.active.swap_remove(cx.rng.index(self.active.len()));
            self.doubted.retain(|doubt| doubt.run != dropped);
            if let Some(dropped) = listed(members, dropped) {
                self.part(cx, members, dropped, Some(node));
                self.remember(cx, members, dropped);
            }
            change.down = Some(dropped);
        }
        self.active.push(run);
        self.passive.retain(|other| other.run != run);
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

    fn part(&mut self, cx: &mut Cx<'_>, members: &Members, node: Contact, instead: Option<Contact>) {
        if let Some(to) = reach(cx, members, node) {
            cx.out.send(to, &Frame::Disconnect { instead });
        }
    }

    /// Asks it to be our neighbour, or whether it thinks that it is.
    fn call(&mut self, cx: &mut Cx<'_>, members: &Members, to: Destination, urgent: bool) {
        let record = card(&mut self.scratch, cx, members);
        cx.out.send(to, &Frame::Neighbor { urgent, record });
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
        let aim = cx.config.active_view.min(self.others(cx, members));
        aim.saturating_sub(self.active.len())
    }

    /// How many there may be beside us.
    fn others(&self, cx: &Cx<'_>, members: &Members) -> usize {
        match cx.config.membership {
            Membership::Full => members.live_len() - 1,
            Membership::Partial => usize::MAX,
        }
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
            let Some(node) = self.candidate(cx, members) else {
                self.is_stuck = true;
                break;
            };
            self.ask(cx, members, node, presses, false);
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
            self.stroll(cx, members);
        }
        self.fill = Some(cx.now.mono + self.pause.max(patience(cx)));
    }

    /// Nobody that we know has room. Departure: where there is no table to find others in we go for a walk as who is new does. It ends
    /// at who has room; or else somebody else lacks one neighbour then, and goes for a walk. Two that lack one meet soon; a
    /// single one never does, and so each walks less and less often.
    fn stroll(&mut self, cx: &mut Cx<'_>, members: &Members) {
        let is_free = self.missing(cx, members) > 1 || self.stroll.0 <= cx.now.mono;
        if is_free && self.others(cx, members) == usize::MAX {
            let pause =
                (self.stroll.1 * 4).clamp(cx.config.gossip_interval * 20, cx.config.shuffle_interval * STROLL_MAX);
            self.stroll = (cx.now.mono + pause, pause);
            let node = Contact { run: members.local().run, addr: members.local().addr() };
            let next = self.pick(cx, |_| true).and_then(|run| datagram(members, run));
            next.into_iter().for_each(|to| cx.out.send(to, &Frame::ForwardJoin { ttl: ACTIVE_WALK, node }));
        }
    }

    /// Are they there, and do they think so, too? That also keeps the links open.
    fn ask_after(&mut self, cx: &mut Cx<'_>, members: &Members) {
        for at in 0..self.active.len() {
            let run = self.active[at];
            if let Some(to) = stream(members, run) {
                self.call(cx, members, to, false);
                self.on_severed(cx, run);
            }
        }
    }

    fn ask(&mut self, cx: &mut Cx<'_>, members: &Members, node: Contact, urgent: bool, insists: bool) {
        // A flood of FORWARD_JOINs costs the joiners their links, not us our memory.
        let is_asked = self.asked.iter().any(|asked| asked.node.run == node.run);
        if let Some(to) = reach(cx, members, node).filter(|_| !is_asked && self.asked.len() < ASKED_MAX) {
            self.asked.push(Asked { node, until: cx.now.mono + patience(cx), insists });
            self.call(cx, members, to, urgent);
        }
    }

    /// Somebody of the table. Departure: what shuffles bring is from nearby, and links to there close triangles. Only where the table does
    /// not list all it is the passive view that comes first.
    fn candidate(&mut self, cx: &mut Cx<'_>, members: &Members) -> Option<Contact> {
        let this = &*self;
        let fits = |node: &Contact| !this.is_busy_with(node.run) && reach(cx, members, *node).is_some();
        if cx.config.membership == Membership::Partial {
            let fit: Vec<Contact> = this.passive.iter().copied().filter(fits).collect();
            if let Some(&node) = fit.get(cx.rng.index(fit.len())) {
                return Some(node);
            }
        }
        let mut found = None;
        let mut offer = |e: &Entry| found = Some(Contact { run: e.run, addr: e.addr() });
        members.draw(cx.rng, 1, |e| this.is_busy_with(e.run), |_, e| offer(e));
        found
    }

    fn is_busy_with(&self, run: RunId) -> bool {
        self.is_neighbour(run) || self.asked.iter().any(|asked| asked.node.run == run) || self.failed.contains(&run)
    }

    fn fail(&mut self, run: RunId) {
        self.passive.retain(|node| node.run != run);
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

    fn remember(&mut self, cx: &mut Cx<'_>, members: &Members, node: Contact) {
        let (most, run) = (cx.config.passive_view, node.run);
        if run == members.local().run || self.is_neighbour(run) || self.remembered().any(|r| r == run) || most == 0 {
            return;
        }
        while self.passive.len() >= most {
            // §4.5: first what the other side was given in exchange.
            let given = self.passive.iter().position(|other| self.shuffled.iter().any(|given| given.run == other.run));
            let at = given.unwrap_or_else(|| cx.rng.index(self.passive.len()));
            self.passive.swap_remove(at);
        }
        self.passive.push(node);
    }

    /// §4.5: a part of both views goes for a walk. Departure: another goes straight to a member by lot, which keeps parts of
    /// an overlay from drifting apart and wakes who has slept through all.
    fn shuffle(&mut self, cx: &mut Cx<'_>, members: &Members) {
        if self.others(cx, members) <= cx.config.active_view {
            return;
        }
        let node = Contact { run: members.local().run, addr: members.local().addr() };
        let mut active: Vec<Contact> = self.active.iter().filter_map(|&run| listed(members, run)).collect();
        let mut passive = self.passive.clone();
        for (list, n) in [(&mut active, SHUFFLED_ACTIVE), (&mut passive, SHUFFLED_PASSIVE)] {
            cx.rng.shuffle(list);
            list.truncate(n);
        }
        self.shuffled = active.into_iter().chain(passive).collect();
        let contacts = pack(&mut self.scratch, members, &self.shuffled, cx.config.membership);
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
        if let Some(to) = reach(cx, members, node).map(|to| Destination { via: Via::Datagram, ..to }) {
            let contacts = pack(&mut self.scratch, members, &ours, cx.config.membership);
            cx.out.send(to, &Frame::ShuffleReply { contacts });
        }
        self.shuffled = ours;
        self.learn(cx, members, core::iter::once(node).chain(contacts.iter()));
    }

    pub fn on_shuffle_reply(&mut self, cx: &mut Cx<'_>, members: &Members, contacts: Contacts<'_>) {
        self.learn(cx, members, contacts.iter());
    }

    fn learn(&mut self, cx: &mut Cx<'_>, members: &Members, contacts: impl Iterator<Item = Contact>) {
        for node in contacts {
            if reach(cx, members, node).is_some() {
                self.remember(cx, members, node);
            }
        }
        self.shuffled.clear();
        if self.others(cx, members) == usize::MAX && self.awake && self.missing(cx, members) > 0 {
            // Who is new is called upon soon, by those who have a place for it, and need not ask.
            let wait = if self.active.is_empty() { patience(cx) } else { self.pause };
            let at = cx.now.mono + wait;
            self.fill = Some(self.fill.map_or(at, |fill| fill.min(at)));
        }
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

fn listed(members: &Members, run: RunId) -> Option<Contact> {
    entry(members, run).map(|e| Contact { run, addr: e.addr() })
}

fn datagram(members: &Members, run: RunId) -> Option<Destination> {
    entry(members, run).map(Entry::to)
}

/// On the link that broadcasts take, so that none of these overtakes one.
fn stream(members: &Members, run: RunId) -> Option<Destination> {
    datagram(members, run).map(|to| Destination { via: Via::Stream, ..to })
}

/// The same, where it may be no neighbour yet. With a table of all, only who is in it counts, and where that has it.
fn reach(cx: &Cx<'_>, members: &Members, node: Contact) -> Option<Destination> {
    match cx.config.membership {
        Membership::Full => stream(members, node.run),
        Membership::Partial => Some(Destination { addr: node.addr, run: Some(node.run), via: Via::Stream }),
    }
}

/// Our own record, for who does not list us yet.
fn card<'a>(scratch: &'a mut Vec<u8>, cx: &Cx<'_>, members: &'a Members) -> Option<Record<'a>> {
    match cx.config.membership {
        Membership::Full => None,
        Membership::Partial => Some(telling::record(scratch, cx.config, members.local(), 0)),
    }
}

fn pack<'a>(scratch: &'a mut Vec<u8>, members: &Members, nodes: &[Contact], membership: Membership) -> Contacts<'a> {
    scratch.clear();
    for &node in nodes {
        let node = match membership {
            Membership::Full => listed(members, node.run),
            Membership::Partial => Some(node),
        };
        node.into_iter().for_each(|node| Contacts::push(scratch, node));
    }
    Contacts(scratch)
}
