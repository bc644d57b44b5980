//! A bounded queue of events and messages between the protocol and whoever listens, in one order.
//!
//! Membership events tell a story that ends in the present, so they are not dropped: when the reader is behind they
//! coalesce, per member, into the way from the first `before` to the last state. Two things are never folded away: a
//! change of epoch (the application must learn that it talks to another run) and the first and last word about a
//! member (JOIN, FORGOTTEN). Everything else drops its oldest when it outgrows the capacity, and one OVERFLOW says
//! how many went.
//!
//! Messages are bounded in bytes. Those that their sender was given room for are never dropped: it is given no more
//! until they are read. Nor are broadcasts: the engine hands out no more. Best effort drops its oldest.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Instant;

use super::lock::{Condvar, Mutex};

use super::message::{AnswerFn, Message};
use super::node::{Progress, QueryHandler};
use super::signal::Level;
use super::stream::Stream;
use crate::error::Result;
use crate::id::NodeName;
use crate::message::{Body, Manner, WEIGHT};
use crate::view::{Event, EventKind, changed};

/// With fewer items than this the reader is not behind, and sees every step.
const BEHIND: usize = 64;

/// Places that an empty queue keeps. With hundreds of nodes in a process, more is felt.
const KEPT: usize = 8;

/// The same for messages, which come in bursts.
const KEPT_MESSAGES: usize = 1024;

/// How many membership items are kept at least, whatever `capacity` says (see [`Inbox::new`]).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Items of every other kind; with `members` zero, all items.
    pub capacity: usize,
    pub members: usize,
    /// Of best-effort messages, all together.
    pub bytes: usize,
}

/// What waits for the reader.
pub(crate) enum Item {
    Event(Event),
    Message(Message),
    /// It wants a verdict. It is never dropped: what waits for one is bounded by the engine.
    Question(Message),
    /// The answer to a question, for who asked it.
    Answer(AnswerFn, Result<Body>),
    /// What becomes of a question to many; for a handler, or for the queue's own reader.
    Progress(Option<Arc<QueryHandler>>, Progress),
    /// A member has opened it.
    Stream(Stream),
}

#[derive(Debug)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    ready: Condvar,
    level: Level,
}

#[derive(Debug)]
struct State {
    queue: Queue,
    messages: Messages,
    /// Something besides the queue wants the reader: log lines.
    poked: bool,
    /// `wakeup` was called, and nobody has noticed yet.
    woken: bool,
    closed: bool,
    /// A closed queue stays readable, so that its reader notices the end.
    ends_readable: bool,
}

/// What `wait` saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woke {
    Items,
    Wakeup,
    Closed,
    Timeout,
}

impl Inbox {
    pub(crate) fn new(bounds: Bounds, ends_readable: bool) -> Inbox {
        let state = State {
            queue: Queue::new(bounds),
            messages: Messages { items: VecDeque::new(), loose: 0, max: bounds.bytes },
            poked: false,
            woken: false,
            closed: false,
            ends_readable,
        };
        Inbox { state: Mutex::new(state), ready: Condvar::new(), level: Level::default() }
    }

    /// Queues without waking anybody, so that it can be done under the engine's lock. [`Inbox::announce`] follows.
    pub(crate) fn push(&self, event: &Event) {
        let mut state = self.state.lock();
        if !state.closed {
            state.queue.push(event.clone());
        }
    }

    /// The same for messages.
    pub(crate) fn push_messages(&self, new: impl IntoIterator<Item = Message>) {
        let mut state = self.state.lock();
        let State { queue, messages, closed, .. } = &mut *state;
        for message in new {
            if *closed {
                message.settle();
                continue;
            }
            let dropped = messages.push(queue.take_number(), message);
            queue.dropped += dropped;
            queue.dropped_total += dropped;
        }
    }

    pub(crate) fn push_question(&self, message: Message) {
        let mut state = self.state.lock();
        if !state.closed {
            let number = state.queue.take_number();
            state.messages.items.push_back((number, Item::Question(message)));
        } else {
            message.settle();
        }
    }

    pub(crate) fn push_answer(&self, f: AnswerFn, answer: Result<Body>) {
        let mut state = self.state.lock();
        if !state.closed {
            let number = state.queue.take_number();
            state.messages.items.push_back((number, Item::Answer(f, answer)));
        }
    }

    pub(crate) fn push_progress(&self, f: Option<Arc<QueryHandler>>, progress: Progress) {
        let mut state = self.state.lock();
        if !state.closed {
            let number = state.queue.take_number();
            state.messages.items.push_back((number, Item::Progress(f, progress)));
        }
    }

    /// The next of a question's own queue.
    pub(crate) fn pop_progress(&self) -> Option<Progress> {
        let mut state = self.state.lock();
        let (_, item) = state.messages.pop()?;
        let is_empty = state.is_empty();
        drop(state);
        if is_empty {
            self.level();
        }
        match item {
            Item::Progress(_, progress) => Some(progress),
            Item::Event(_) | Item::Message(_) | Item::Question(_) | Item::Answer(..) | Item::Stream(_) => None,
        }
    }

    /// Comes back where the inbox is closed.
    pub(crate) fn push_stream(&self, stream: Stream) -> Option<Stream> {
        let mut state = self.state.lock();
        if state.closed {
            return Some(stream);
        }
        let number = state.queue.take_number();
        state.messages.items.push_back((number, Item::Stream(stream)));
        None
    }

    /// Wakes the reader where something waits for it.
    pub(crate) fn announce(&self) {
        self.level();
        if self.state.lock().wants_reader() {
            self.ready.notify_all();
        }
    }

    /// The next event; messages stay.
    pub(crate) fn pop(&self) -> Option<Event> {
        let mut state = self.state.lock();
        let (_, event) = state.queue.pop()?;
        let is_empty = state.is_empty();
        drop(state);
        if is_empty {
            self.level();
        }
        Some(event)
    }

    /// The next message; events and answers stay.
    pub(crate) fn pop_message(&self) -> Option<Message> {
        let mut state = self.state.lock();
        let message = state.messages.pop_message()?;
        let is_empty = state.is_empty();
        drop(state);
        if is_empty {
            self.level();
        }
        Some(message)
    }

    /// Pops one event, or at most `max` messages and answers, and an event after them, that were queued before `mark`
    /// was taken, with their numbers; an OVERFLOW has the greatest of all.
    pub(crate) fn pop_before(&self, mark: u64, max: usize, into: &mut Vec<(u64, Item)>) {
        let mut state = self.state.lock();
        let before = into.len();
        while into.len() - before < max
            && let Some(item) = state.pop_before(mark)
        {
            let is_event = matches!(item.1, Item::Event(_));
            into.push(item);
            if is_event {
                break;
            }
        }
        let is_empty = state.is_empty();
        drop(state);
        if is_empty {
            self.level();
        }
    }

    /// The number that the next event will have.
    pub(crate) fn mark(&self) -> u64 {
        self.state.lock().queue.next
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.state.lock().is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        let state = self.state.lock();
        state.queue.live + state.messages.items.len()
    }

    /// How many items were dropped so far, and how many folded into later ones.
    pub(crate) fn losses(&self) -> (u64, u64) {
        let queue = &self.state.lock().queue;
        (queue.dropped_total, queue.coalesced)
    }

    pub(crate) fn poke(&self) {
        {
            let mut state = self.state.lock();
            if state.poked || state.closed {
                return;
            }
            state.poked = true;
        }
        self.announce();
    }

    /// The reader is here: pokes and wakeups have done their work.
    pub(crate) fn noticed(&self) {
        {
            let mut state = self.state.lock();
            (state.poked, state.woken) = (false, false);
        }
        self.level();
    }

    pub(crate) fn wakeup(&self) {
        self.state.lock().woken = true;
        self.announce();
    }

    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.level();
        self.ready.notify_all();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Waits until `deadline` (`None`: for ever).
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> Woke {
        let mut state = self.state.lock();
        let woke = loop {
            if let Some(woke) = state.look() {
                break woke;
            }
            match deadline {
                None => self.ready.wait(&mut state),
                Some(at) => {
                    if self.ready.wait_until(&mut state, at).timed_out() && !state.wants_reader() {
                        break Woke::Timeout;
                    }
                }
            }
        };
        drop(state);
        if woke == Woke::Wakeup {
            self.level();
        }
        woke
    }

    /// The same without waiting.
    pub(crate) fn look(&self) -> Option<Woke> {
        let woke = self.state.lock().look();
        if woke == Some(Woke::Wakeup) {
            self.level();
        }
        woke
    }

    /// A descriptor that is readable while the reader is wanted.
    pub(crate) fn fd(&self) -> io::Result<RawFd> {
        self.level.fd(|| self.state.lock().wants_reader())
    }

    /// Makes the descriptor say what is so.
    fn level(&self) {
        self.level.set(|| self.state.lock().wants_reader());
    }
}

impl State {
    fn look(&mut self) -> Option<Woke> {
        if !self.is_empty() || self.poked {
            Some(Woke::Items)
        } else if std::mem::take(&mut self.woken) {
            Some(Woke::Wakeup)
        } else {
            self.closed.then_some(Woke::Closed)
        }
    }

    fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.messages.items.is_empty()
    }

    fn pop_before(&mut self, mark: u64) -> Option<(u64, Item)> {
        let said = self.messages.items.front().map(|&(number, _)| number);
        let is_first = said.is_some_and(|number| self.queue.front().is_none_or(|event| number < event));
        if is_first && !self.queue.must_say() {
            return if said.is_some_and(|number| number < mark) { self.messages.pop() } else { None };
        }
        if !self.queue.has_before(mark) {
            return None;
        }
        self.queue.pop().map(|(number, event)| (number, Item::Event(event)))
    }

    fn wants_reader(&self) -> bool {
        !self.is_empty() || self.poked || self.woken || (self.closed && self.ends_readable)
    }
}

/// Messages and answers in order.
#[derive(Debug)]
struct Messages {
    items: VecDeque<(u64, Item)>,
    /// Bytes of those that may be dropped.
    loose: usize,
    max: usize,
}

impl Messages {
    /// Answers with how many were dropped for it.
    fn push(&mut self, number: u64, message: Message) -> u64 {
        let mut dropped = 0;
        self.loose += loose(&message);
        self.items.push_back((number, Item::Message(message)));
        while self.loose > self.max {
            let may_go = |(_, item): &(u64, Item)| matches!(item, Item::Message(m) if loose(m) > 0);
            let Some(oldest) = self.items.iter().position(may_go) else { break };
            if let Some((_, Item::Message(message))) = self.items.remove(oldest) {
                self.loose -= loose(&message);
                dropped += 1;
            }
        }
        dropped
    }

    fn pop(&mut self) -> Option<(u64, Item)> {
        let item = self.items.pop_front()?;
        if let Item::Message(message) = &item.1 {
            self.loose -= loose(message);
        }
        if self.items.is_empty() && self.items.capacity() > KEPT_MESSAGES {
            self.items = VecDeque::new();
        }
        Some(item)
    }

    fn pop_message(&mut self) -> Option<Message> {
        let at = self.items.iter().position(|(_, item)| matches!(item, Item::Message(_)))?;
        match self.items.remove(at)? {
            (_, Item::Message(message)) => {
                self.loose -= loose(&message);
                Some(message)
            }
            _ => None,
        }
    }
}

/// What a message weighs if it may be dropped; never 0 then.
fn loose(message: &Message) -> usize {
    match message.manner() {
        Manner::BestEffort => message.body().len() + WEIGHT,
        Manner::Reliable | Manner::Request { .. } | Manner::Query(_) | Manner::Broadcast { .. } => 0,
    }
}

impl std::fmt::Debug for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Item::Event(event) => event.fmt(f),
            Item::Message(message) | Item::Question(message) => message.fmt(f),
            Item::Answer(_, answer) => answer.fmt(f),
            Item::Progress(_, progress) => progress.fmt(f),
            Item::Stream(stream) => stream.fmt(f),
        }
    }
}

/// Events in order, with holes where one was folded into a later one.
#[derive(Debug)]
struct Queue {
    items: VecDeque<Option<(u64, Event)>>,
    /// Sequence number of `items[0]`. It is the place, and moves when holes are filled; what an event keeps is the
    /// number beside it.
    head: u64,
    next: u64,
    live: usize,
    bounds: Bounds,
    members: usize,
    /// Not yet said in an OVERFLOW.
    dropped: u64,
    /// The last that was read was an OVERFLOW. It is followed by an event: a flood must not leave the reader with
    /// nothing but the news of it.
    said: bool,
    dropped_total: u64,
    coalesced: u64,
    /// Where each member's foldable items are. Only kept while the reader is behind.
    pending: Option<BTreeMap<NodeName, Pending>>,
}

/// A member's last change of epoch, and what came after it.
#[derive(Clone, Copy, Debug, Default)]
struct Pending {
    epoch: Option<u64>,
    state: Option<u64>,
}

impl Queue {
    fn new(bounds: Bounds) -> Queue {
        Queue {
            items: VecDeque::new(),
            head: 0,
            next: 0,
            live: 0,
            bounds,
            members: 0,
            dropped: 0,
            said: false,
            dropped_total: 0,
            coalesced: 0,
            pending: None,
        }
    }

    fn is_empty(&self) -> bool {
        self.live == 0 && self.dropped == 0
    }

    fn tail(&self) -> u64 {
        self.head + self.items.len() as u64
    }

    fn has_before(&self, mark: u64) -> bool {
        self.must_say() || self.front().is_some_and(|number| number < mark)
    }

    /// The number of the next event.
    fn front(&self) -> Option<u64> {
        self.items.iter().flatten().next().map(|&(number, _)| number)
    }

    fn take_number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    fn must_say(&self) -> bool {
        self.dropped > 0 && (!self.said || self.live == 0)
    }

    fn push(&mut self, event: Event) {
        if is_about_member(event.kind) && self.live >= BEHIND.min(self.bounds.capacity) {
            self.push_folding(event);
        } else {
            self.append(event);
        }
        self.keep_bounds();
    }

    fn append(&mut self, event: Event) -> u64 {
        let seq = self.tail();
        self.members += usize::from(is_about_member(event.kind));
        self.live += 1;
        if let Some(pending) = &mut self.pending {
            note(pending, &event, seq);
        }
        self.items.push_back(Some((self.next, event)));
        self.next += 1;
        seq
    }

    fn push_folding(&mut self, mut event: Event) {
        if self.pending.is_none() {
            let mut pending = BTreeMap::new();
            for (i, item) in self.items.iter().enumerate() {
                if let Some((_, item)) = item {
                    note(&mut pending, item, self.head + i as u64);
                }
            }
            self.pending = Some(pending);
        }
        let known = event
            .member
            .as_ref()
            .and_then(|m| self.pending.as_ref().and_then(|p| p.get(&m.name)))
            .copied()
            .unwrap_or_default();
        match event.kind {
            EventKind::Join | EventKind::Forgotten => {}
            _ if event.changed & changed::EPOCH != 0 => {
                // From one epoch to the next but one: still a change of epoch.
                if let Some(old) = known.epoch.and_then(|seq| self.take(seq)) {
                    if let Some(state) = known.state.and_then(|seq| self.take(seq)) {
                        event.changed |= state.changed;
                        self.coalesced += 1;
                    }
                    fold(&old, &mut event);
                    self.coalesced += 1;
                }
            }
            _ => {
                if let Some(old) = known.state.and_then(|seq| self.take_if(seq, |old| same_run(old, &event))) {
                    fold(&old, &mut event);
                    self.coalesced += 1;
                }
            }
        }
        // At the end, not in the old place: versions of the view must rise along the queue.
        self.append(event);
    }

    fn take(&mut self, seq: u64) -> Option<Event> {
        self.take_if(seq, |_| true)
    }

    fn take_if(&mut self, seq: u64, cond: impl Fn(&Event) -> bool) -> Option<Event> {
        let slot = self.items.get_mut(usize::try_from(seq.checked_sub(self.head)?).ok()?)?;
        if !slot.as_ref().is_some_and(|(_, event)| cond(event)) {
            return None;
        }
        let (_, event) = slot.take()?;
        self.live -= 1;
        self.members -= usize::from(is_about_member(event.kind));
        Some(event)
    }

    fn pop(&mut self) -> Option<(u64, Event)> {
        self.said = self.must_say();
        if self.said {
            let mut event = Event::new(EventKind::Overflow, 0);
            event.count = std::mem::take(&mut self.dropped);
            return Some((u64::MAX, event));
        }
        while let Some(item) = self.items.pop_front() {
            self.head += 1;
            if let Some((number, event)) = item {
                self.live -= 1;
                self.members -= usize::from(is_about_member(event.kind));
                if self.live == 0 {
                    self.relax();
                }
                return Some((number, event));
            }
        }
        None
    }

    /// The reader has caught up: give back what being behind took.
    fn relax(&mut self) {
        self.pending = None;
        self.head = self.tail();
        self.items.clear();
        if self.items.capacity() > KEPT {
            self.items = VecDeque::new();
        }
    }

    fn keep_bounds(&mut self) {
        if self.bounds.members == 0 {
            if self.live > self.bounds.capacity {
                self.drop_oldest(|_| true);
            }
        } else if self.live - self.members > self.bounds.capacity {
            self.drop_oldest(|e| !is_about_member(e.kind));
        } else if self.members > self.bounds.members {
            self.drop_oldest(|e| is_about_member(e.kind));
        }
        // Holes are bounded too.
        if self.items.len() > 2 * self.live + 4 * BEHIND {
            let tail = self.tail();
            self.items.retain(Option::is_some);
            self.head = tail - self.items.len() as u64;
            self.pending = None;
        }
    }

    fn drop_oldest(&mut self, class: impl Fn(&Event) -> bool) {
        // FATAL is the last word; there is one.
        let may_go = |e: &Event| class(e) && e.kind != EventKind::Fatal;
        let oldest = self.items.iter().position(|item| item.as_ref().is_some_and(|(_, event)| may_go(event)));
        if let Some(i) = oldest {
            self.take(self.head + i as u64);
            self.dropped += 1;
            self.dropped_total += 1;
        }
        while matches!(self.items.front(), Some(None)) {
            self.items.pop_front();
            self.head += 1;
        }
    }
}

fn note(pending: &mut BTreeMap<NodeName, Pending>, event: &Event, seq: u64) {
    let Some(member) = &event.member else { return };
    match event.kind {
        EventKind::Join | EventKind::Forgotten => {
            pending.remove(&member.name);
        }
        kind if !is_about_member(kind) => {}
        _ if event.changed & changed::EPOCH != 0 => {
            pending.insert(member.name.clone(), Pending { epoch: Some(seq), state: None });
        }
        _ => pending.entry(member.name.clone()).or_default().state = Some(seq),
    }
}

/// `new` takes over where `old` began.
fn fold(old: &Event, new: &mut Event) {
    new.changed |= old.changed;
    new.before = old.before.clone();
    // An update of a member that has also changed its state is news of the state.
    if new.kind == EventKind::Update {
        new.kind = old.kind;
    }
}

fn same_run(old: &Event, new: &Event) -> bool {
    matches!((&old.member, &new.member), (Some(a), Some(b)) if a.epoch == b.epoch)
}

fn is_about_member(kind: EventKind) -> bool {
    use EventKind::*;
    matches!(kind, Join | Update | Suspect | Alive | Dead | Left | Forgotten)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Epoch, Incarnation, RunId};
    use crate::view::{Member, MemberState};
    use std::sync::Arc;

    fn member(name: &str, epoch: u64, state: MemberState) -> Arc<Member> {
        Arc::new(Member {
            name: NodeName::new(name).unwrap(),
            state,
            address: "127.0.0.1:1".parse().unwrap(),
            epoch: Epoch(epoch),
            run: RunId::new(epoch + 1).unwrap(),
            incarnation: Incarnation(0),
            since: crate::time::Instant::ZERO,
            protocol: 1,
            app_version: 0,
            meta: Arc::default(),
            is_local: false,
            is_neighbour: false,
        })
    }

    fn event(kind: EventKind, name: &str, epoch: u64, view: u64) -> Event {
        let state = match kind {
            EventKind::Suspect => MemberState::Suspect,
            EventKind::Dead => MemberState::Dead,
            EventKind::Left => MemberState::Left,
            _ => MemberState::Alive,
        };
        let mut event = Event::new(kind, view);
        event.member = Some(member(name, epoch, state));
        event.changed = changed::STATE;
        event
    }

    /// `before` is the same member one epoch earlier.
    fn reborn(name: &str, epoch: u64, view: u64) -> Event {
        let mut event = event(EventKind::Alive, name, epoch, view);
        event.before = Some(member(name, epoch - 1, MemberState::Alive));
        event.changed |= changed::EPOCH;
        event
    }

    fn pop_before(inbox: &Inbox, mark: u64) -> Option<Event> {
        let mut items = Vec::new();
        inbox.pop_before(mark, 1, &mut items);
        items.pop().map(|(_, item)| match item {
            Item::Event(event) => event,
            other => panic!("{other:?}"),
        })
    }

    fn inbox(capacity: usize, members: usize) -> Inbox {
        Inbox::new(Bounds { capacity, members, bytes: 0 }, false)
    }

    /// A reader who is behind.
    fn behind() -> Inbox {
        let inbox = inbox(1000, 1000);
        (0..BEHIND).for_each(|_| inbox.push(&Event::new(EventKind::Joined, 0)));
        inbox
    }

    fn told(inbox: &Inbox, name: &str) -> Vec<(EventKind, u64)> {
        let all: Vec<Event> = std::iter::from_fn(|| inbox.pop()).collect();
        let views: Vec<u64> = all.iter().filter(|e| e.view > 0).map(|e| e.view).collect();
        assert!(views.is_sorted(), "{views:?}");
        all.iter()
            .filter(|e| e.member.as_ref().is_some_and(|m| &*m.name == name))
            .map(|e| (e.kind, e.member.as_ref().unwrap().epoch.0))
            .collect()
    }

    #[test]
    fn a_reader_who_keeps_up_sees_every_step() {
        let inbox = inbox(100, 100);
        for (i, kind) in [EventKind::Join, EventKind::Suspect, EventKind::Alive].into_iter().enumerate() {
            inbox.push(&event(kind, "a", 1, i as u64 + 1));
        }
        assert_eq!(told(&inbox, "a"), [(EventKind::Join, 1), (EventKind::Suspect, 1), (EventKind::Alive, 1)]);
    }

    #[test]
    fn a_reader_who_is_behind_sees_where_it_led() {
        let inbox = behind();
        let mut first = event(EventKind::Suspect, "a", 1, 1);
        first.before = Some(member("a", 1, MemberState::Alive));
        inbox.push(&first);
        inbox.push(&event(EventKind::Suspect, "b", 1, 2));
        for view in 3..100 {
            inbox.push(&event(if view % 2 == 0 { EventKind::Suspect } else { EventKind::Alive }, "a", 1, view));
        }
        let mut update = event(EventKind::Update, "a", 1, 100);
        update.changed = changed::META;
        inbox.push(&update);
        let last = std::iter::from_fn(|| inbox.pop()).last().unwrap();
        assert_eq!((last.kind, last.view), (EventKind::Alive, 100), "an update does not hide a change of state");
        assert_eq!(last.changed, changed::STATE | changed::META);
        assert_eq!(last.before.unwrap().state, MemberState::Alive);
        assert_eq!(inbox.losses(), (0, 98));
    }

    #[test]
    fn joins_and_the_forgotten_and_epochs_are_never_folded_away() {
        let inbox = behind();
        inbox.push(&event(EventKind::Join, "a", 1, 1));
        inbox.push(&event(EventKind::Suspect, "a", 1, 2));
        inbox.push(&event(EventKind::Dead, "a", 1, 3));
        inbox.push(&reborn("a", 2, 4));
        inbox.push(&event(EventKind::Suspect, "a", 2, 5));
        inbox.push(&event(EventKind::Left, "a", 2, 6));
        inbox.push(&event(EventKind::Forgotten, "a", 2, 7));
        inbox.push(&event(EventKind::Join, "a", 3, 8));
        use EventKind::*;
        assert_eq!(told(&inbox, "a"), [(Join, 1), (Dead, 1), (Alive, 2), (Left, 2), (Forgotten, 2), (Join, 3)]);
    }

    #[test]
    fn a_member_that_restarts_for_ever_costs_two_places() {
        let inbox = behind();
        let len = inbox.len();
        for epoch in 2..500 {
            inbox.push(&reborn("a", epoch, 2 * epoch));
            inbox.push(&event(EventKind::Suspect, "a", epoch, 2 * epoch + 1));
        }
        assert_eq!(inbox.len(), len + 2);
        assert!(inbox.state.lock().queue.items.len() < 10 * BEHIND, "holes are filled");
        let all: Vec<Event> = std::iter::from_fn(|| inbox.pop()).collect();
        let reborn = &all[all.len() - 2];
        assert_eq!(reborn.before.as_ref().unwrap().epoch, Epoch(1), "from where the reader knows it");
        assert_eq!(reborn.member.as_ref().unwrap().epoch, Epoch(499));
    }

    #[test]
    fn other_events_drop_the_oldest_and_say_so_but_never_the_last_word() {
        let inbox = inbox(10, 100);
        inbox.push(&event(EventKind::Join, "a", 1, 1));
        inbox.push(&Event::new(EventKind::Fatal, 0));
        for id in 0..30 {
            let mut event = Event::new(EventKind::Joined, 0);
            event.id = id;
            inbox.push(&event);
        }
        let all: Vec<Event> = std::iter::from_fn(|| inbox.pop()).collect();
        assert_eq!((all[0].kind, all[0].count), (EventKind::Overflow, 21));
        assert_eq!((all[1].kind, all[2].kind), (EventKind::Join, EventKind::Fatal));
        assert_eq!(all[3..].iter().map(|e| e.id).collect::<Vec<_>>(), (21..30).collect::<Vec<_>>());
        assert!(inbox.is_empty());
    }

    #[test]
    fn a_flood_leaves_room_for_events_between_the_news_of_it() {
        let inbox = inbox(10, 100);
        let flood = || (0..30).for_each(|_| inbox.push(&Event::new(EventKind::Joined, 0)));
        let mut told = Vec::new();
        for _ in 0..4 {
            flood();
            told.push(inbox.pop().map(|e| e.kind));
        }
        let (overflow, joined) = (Some(EventKind::Overflow), Some(EventKind::Joined));
        assert_eq!(told, [overflow, joined, overflow, joined]);
        // And a reader who wants no more than what was there when it came gets no more.
        flood();
        let mark = inbox.mark();
        assert_eq!(pop_before(&inbox, mark).map(|e| e.kind), overflow);
        flood();
        assert!(pop_before(&inbox, mark).is_none() && !inbox.is_empty());
    }

    #[test]
    fn a_mark_ends_where_the_queue_was() {
        let inbox = inbox(100, 100);
        inbox.push(&event(EventKind::Join, "a", 1, 1));
        let mark = inbox.mark();
        inbox.push(&event(EventKind::Join, "b", 1, 2));
        assert!(pop_before(&inbox, mark).is_some());
        assert!(pop_before(&inbox, mark).is_none());
        assert!(pop_before(&inbox, inbox.mark()).is_some());
        assert!(pop_before(&inbox, inbox.mark()).is_none());
    }
}
