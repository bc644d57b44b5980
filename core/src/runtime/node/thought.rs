//! Asking the engine, under its lock, and carrying out what it concluded, after it: on the thread that has asked, be it who
//! drives or one of the application's.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::*;

use crossbeam_channel::Sender;

use super::super::callbacks::panic_text;
use super::super::driver::Wire;
use super::super::inbox::Inbox;
use super::super::outgoing::Outgoing;
use super::super::stream::Pipe;
use super::super::team::{Command, Resolved, Threads};
use super::super::wheel::Awaited;
use super::super::{clock, threads};
use super::{Answered, Gatherer, Live, NodeState, Shared, Told};
use crate::engine::Input;
use crate::error::Result;
use crate::id::RunId;
use crate::message::Body;
use crate::outbox::{Completion, Outbox, Packet, Via};
use crate::time::{Instant, Now};
use crate::view::{Event, EventKind};

/// The answer of a call on the engine, and what is to be done about it.
pub(crate) struct Thought<T> {
    pub value: T,
    pub after: After,
}

pub(crate) struct After {
    wire: Arc<Wire>,
    deadline: Option<Instant>,
    poke: bool,
    /// Something was queued for readers.
    tell: bool,
    wakes: Vec<Wake>,
}

pub(super) enum Wake {
    Joined(Sender<Answered>, Answered),
    Left(Sender<bool>, bool),
    Replied(threads::Id, Sender<Result<Body>>, Result<Body>),
    Writable(Sender<()>),
    /// Of a question to many.
    Reader(Arc<Inbox>),
    /// It is over, and its queue closes.
    Gathered(Gatherer),
    Stream(Arc<Pipe>),
}

/// Who thinks: the driver sees to timers and links itself, others must tell it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    Driver,
    Application,
}

impl Shared {
    /// For who drives. None: there is no engine any more.
    pub(crate) fn think<T>(
        self: &Arc<Self>,
        out: &mut Outbox,
        now: Now,
        f: impl FnOnce(&mut Live, &mut Outbox) -> T,
    ) -> Option<Thought<T>> {
        self.think_as(Who::Driver, out, now, f)
    }

    /// An application's call, with an outbox from the pool; what follows is done here.
    pub(super) fn call<T>(self: &Arc<Self>, f: impl FnOnce(&mut Live, &mut Outbox, Now) -> T) -> Result<T> {
        let now = clock::now();
        let mut out = self.runtime.outbox(self.datagram_max);
        let thought = self.think_as(Who::Application, &mut out, now, |live, out| f(live, out, now));
        let value = thought.map(|Thought { value, after }| {
            self.act_as(Who::Application, &mut out, now, after);
            value
        });
        self.runtime.put_back(out);
        value.ok_or_else(|| self.why_not())
    }

    /// A look at the engine that sends nothing.
    pub(super) fn peek<T>(self: &Arc<Self>, f: impl FnOnce(&mut Live) -> T) -> Option<T> {
        let mut guard = self.live.lock();
        let live = guard.as_mut()?;
        match catch_unwind(AssertUnwindSafe(|| f(live))) {
            Ok(value) => Some(value),
            Err(panic) => {
                let live = guard.take();
                self.set_state(NodeState::Failed);
                drop(guard);
                self.fail(live, &panic_text(&*panic));
                None
            }
        }
    }

    fn think_as<T>(
        self: &Arc<Self>,
        who: Who,
        out: &mut Outbox,
        now: Now,
        f: impl FnOnce(&mut Live, &mut Outbox) -> T,
    ) -> Option<Thought<T>> {
        out.clear();
        self.peek(|live| {
            if let Some(weight) = self.take_freed() {
                live.engine.consumed(now, weight, out);
            }
            let value = f(live, out);
            self.sift_questions(live, now, out);
            self.sift(live, now, out);
            self.sift_streams(live, now, out);
            let (mut wakes, answers) = self.complete(live, out);
            let opened = self.hand_out_streams(live, out, &mut wakes);
            let asked = !out.messages.is_empty() || !out.questions.is_empty();
            let tell = answers || opened || !out.events.is_empty() || asked;
            let has_outgoing = self.hand_over(live, out);
            self.version.store(live.engine.view_version(), Release);
            let deadline = live.engine.deadline(now.mono);
            let poke = match who {
                Who::Driver => {
                    live.armed = deadline;
                    false
                }
                Who::Application => {
                    has_outgoing || deadline.is_some_and(|at| live.armed.is_none_or(|armed| at < armed))
                }
            };
            Thought { value, after: After { wire: live.wire.clone(), deadline, poke, tell, wakes } }
        })
    }

    /// Finds those who wait for what has ended. They are woken after the lock. True: answers were queued for handlers.
    fn complete(self: &Arc<Self>, live: &mut Live, out: &mut Outbox) -> (Vec<Wake>, bool) {
        let (mut wakes, mut answers) = (Vec::new(), false);
        for completion in out.completions.drain(..) {
            match completion {
                Completion::Joined { id, answered, refused } => {
                    if let Some(waiter) = live.joins.remove(&id) {
                        wakes.push(Wake::Joined(waiter, Answered { count: answered, refused }));
                    }
                }
                Completion::LeaveDone { told } => {
                    self.set_state(NodeState::Left);
                    wakes.extend(live.leavers.drain(..).map(|waiter| Wake::Left(waiter, told)));
                }
                Completion::Replied { id, answer } => answers |= self.wake_asker(live, id, answer, &mut wakes),
                Completion::Answered { id, answer } => {
                    answers |= self.gather(live, id, Told::Answer(answer), &mut wakes);
                }
                Completion::Heard { id, by } => answers |= self.gather(live, id, Told::Heard(by), &mut wakes),
                Completion::Gathered { id, gathered } => {
                    answers |= self.gather(live, id, Told::End(gathered), &mut wakes);
                }
                Completion::Writable { to } => self.wake_writers(live, &to, &mut wakes),
                // An event says it.
                Completion::Received { .. } => {}
            }
        }
        (wakes, answers)
    }

    /// Under the lock: events and messages to their queues, and packets for streams to the driver, each in its order.
    fn hand_over(self: &Arc<Self>, live: &Live, out: &mut Outbox) -> bool {
        let mut marks = Vec::new();
        for event in &out.events {
            self.queue_event(event);
            note_runs(event, &mut marks);
        }
        self.queue_questions(out);
        self.queue_messages(out);
        let by_stream = |p: &Packet| p.to.via == Via::Stream || live.wire.udp.is_none();
        if marks.is_empty() && !out.packets().iter().any(by_stream) {
            return false;
        }
        let mut outgoing = self.outgoing.lock();
        outgoing.marks.append(&mut marks);
        for packet in out.packets().iter_mut().filter(|p| by_stream(p)) {
            if !outgoing.add(packet) {
                self.tally.records_dropped.fetch_add(1, Relaxed);
            }
        }
        self.has_outgoing.store(true, Release);
        true
    }

    /// Carries out what the engine concluded, for who drives. Answers with the engine's deadline.
    pub(crate) fn act(self: &Arc<Self>, out: &mut Outbox, now: Now, after: After) -> Option<Instant> {
        self.act_as(Who::Driver, out, now, after)
    }

    fn act_as(self: &Arc<Self>, who: Who, out: &mut Outbox, now: Now, mut after: After) -> Option<Instant> {
        loop {
            for wake in std::mem::take(&mut after.wakes) {
                // Who has given up waiting is not missed.
                let _ = match wake {
                    Wake::Joined(waiter, answered) => waiter.try_send(answered).is_ok(),
                    Wake::Left(waiter, told) => waiter.try_send(told).is_ok(),
                    Wake::Replied(thread, waiter, answer) => {
                        let told = waiter.try_send(answer).is_ok();
                        self.with_threads(|threads| threads.call(Awaited::Answer(thread)));
                        told
                    }
                    Wake::Writable(waiter) => waiter.try_send(()).is_ok(),
                    Wake::Reader(inbox) => {
                        inbox.announce();
                        true
                    }
                    Wake::Gathered(gatherer) => {
                        drop(gatherer);
                        true
                    }
                    Wake::Stream(pipe) => {
                        pipe.announce();
                        true
                    }
                };
            }
            self.send(&after.wire, out);
            out.events.iter().for_each(|event| self.log_event(event));
            if after.tell {
                self.announce();
            }
            if after.poke {
                self.poke_driver();
            }
            if out.resolve.is_empty() {
                return after.deadline;
            }
            let literals = self.resolve_seeds(&std::mem::take(&mut out.resolve));
            if literals.is_empty() {
                return after.deadline;
            }
            let thought = self.think_as(who, out, now, |live, out| {
                for (seed, addrs) in &literals {
                    live.engine.handle(now, Input::Resolved { seed: *seed, addrs }, out);
                }
            });
            match thought {
                Some(thought) => after = thought.after,
                None => return None,
            }
        }
    }

    pub(super) fn send(&self, wire: &Wire, out: &mut Outbox) {
        let Some(udp) = &wire.udp else { return };
        let mut any = false;
        for packet in out.packets().iter_mut().filter(|p| p.to.via == Via::Datagram && !p.buf.is_empty()) {
            wire.envelope.seal(packet.to.run, &mut packet.buf);
            any = true;
        }
        if any {
            let sent = udp.send(out.packets());
            self.tally.datagrams_out.fetch_add(sent.datagrams, Relaxed);
            self.tally.datagram_bytes_out.fetch_add(sent.bytes, Relaxed);
            self.tally.datagrams_failed.fetch_add(sent.failed, Relaxed);
        }
    }

    // --- the driver's side ---

    pub(crate) fn slot(&self) -> Option<usize> {
        Some(self.slot.load(Acquire)).filter(|&slot| slot != usize::MAX)
    }

    pub(crate) fn peek_deadline(self: &Arc<Self>) -> Option<Instant> {
        let now = clock::mono();
        self.peek(|live| {
            live.armed = live.engine.deadline(now);
            live.armed
        })
        .flatten()
    }

    /// For what waits for links; `empty` stays in its place. False: nothing does.
    pub(crate) fn take_outgoing(&self, empty: &mut Outgoing) -> bool {
        let has_some = self.has_outgoing.swap(false, AcqRel);
        if has_some {
            std::mem::swap(&mut *self.outgoing.lock(), empty);
        }
        has_some
    }

    pub(super) fn poke_driver(self: &Arc<Self>) {
        if let Some(slot) = self.slot()
            && !self.poked.swap(true, SeqCst)
        {
            self.with_threads(|threads| _ = threads.command(Command::Poke { slot, node: self.clone() }));
        }
    }

    pub(super) fn tell_driver(self: &Arc<Self>, what: Resolved) {
        self.with_threads(|threads| _ = threads.command(Command::Resolved { node: self.clone(), what }));
    }

    pub(super) fn with_threads(&self, f: impl FnOnce(&Arc<Threads>)) {
        let threads = self.control.lock().threads.clone();
        if let Some(threads) = threads {
            f(&threads);
        }
    }
}

/// Sessions of members are kept; so the driver must know who is one.
fn note_runs(event: &Event, marks: &mut Vec<(RunId, bool)>) {
    let Some(member) = &event.member else { return };
    if let Some(before) = event.before.as_ref().filter(|b| b.run != member.run) {
        marks.push((before.run, false));
    }
    marks.push((member.run, event.kind != EventKind::Forgotten));
}
