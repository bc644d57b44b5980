//! What happens, on its way to the application: events and log lines to queues and handlers, and those who wait for them.

use std::sync::Arc;
use std::sync::atomic::Ordering::*;
use std::time::Instant as Clock;

use super::super::callbacks::{EventFn, Pass, Shut};
use super::super::dispatcher::Dispatcher;
use super::super::inbox::Woke;
use super::super::log::level;
use super::super::wheel::Awaited;
use super::{NodeState, Queue, Shared};
use crate::error::{Code, Error, Result};
use crate::view::{Event, EventKind};

/// Items that `dispatch` takes from the inbox at once.
const AT_ONCE: usize = 64;

impl Shared {
    // --- waiting ---

    /// Until the inbox has something.
    pub(super) fn wait(&self, deadline: Option<Clock>) -> Result<Woke> {
        self.readers.fetch_add(1, SeqCst);
        let woke = self.attend(self.items(), deadline, || self.inbox.look(), || self.inbox.wait(deadline));
        self.readers.fetch_sub(1, SeqCst);
        woke
    }

    pub(super) fn attend<T>(
        &self,
        awaited: Awaited,
        deadline: Option<Clock>,
        look: impl FnMut() -> Option<T>,
        sleep: impl FnOnce() -> T,
    ) -> Result<T> {
        let threads = self.control.lock().threads.clone();
        match threads {
            Some(threads) => threads.attend(awaited, deadline, look, sleep),
            // Not started, or stopped.
            None => Ok(sleep()),
        }
    }

    fn items(&self) -> Awaited {
        Awaited::Items(&raw const *self as usize)
    }

    /// After the inbox has got something: who drives while it waits for that has to look. (The inbox's lock lies between
    /// what it gets and this look at the number, as between the number and a reader's look: one of both sees the other.)
    pub(super) fn call_readers(&self) {
        if self.readers.load(SeqCst) > 0 {
            self.with_threads(|threads| threads.call(self.items()));
        }
    }

    pub(super) fn poke_reader(&self) {
        self.inbox.poke();
        self.call_readers();
    }

    // --- events ---

    /// Queues an event of the runtime's own, and wakes its readers.
    pub(super) fn tell(self: &Arc<Self>, event: &Event) {
        {
            // Under the engine's lock like all events, so that the order is one.
            let _live = self.live.lock();
            self.queue_event(event);
        }
        self.announce();
    }

    pub(super) fn queue_event(&self, event: &Event) {
        let kind = event.kind.bit();
        // Somebody who has no handlers pulls.
        if self.callbacks.wants(kind) || (self.is_manual && self.callbacks.wants_nothing()) {
            self.inbox.push(event);
            self.tally.events.fetch_add(1, Relaxed);
        }
        for queue in self.queues.lock().iter().filter(|q| q.mask & kind != 0) {
            queue.inbox.push(event);
            self.tally.events.fetch_add(1, Relaxed);
        }
    }

    /// After the lock: wakes those for whom something was queued.
    pub(super) fn announce(self: &Arc<Self>) {
        if self.is_manual {
            self.inbox.announce();
            self.call_readers();
        } else if !self.inbox.is_empty() {
            self.post();
        }
        // Not under their lock, which events are queued under.
        let queues = self.queues.lock().clone();
        for queue in queues {
            queue.inbox.announce();
        }
    }

    pub(super) fn close_queues(&self) {
        let queues = {
            let mut queues = self.queues.lock();
            queues.iter().for_each(|queue| self.keep_losses(queue));
            std::mem::take(&mut *queues)
        };
        for queue in queues {
            queue.inbox.close();
        }
    }

    /// Of a queue that ends. Under the lock of the queues, so that nobody counts it twice.
    pub(super) fn keep_losses(&self, queue: &Queue) {
        let (dropped, coalesced) = queue.inbox.losses();
        self.tally.events_dropped.fetch_add(dropped, Relaxed);
        self.tally.events_coalesced.fetch_add(coalesced, Relaxed);
    }

    fn post(self: &Arc<Self>) {
        if !self.posted.load(Acquire) {
            self.with_threads(|threads| {
                self.post_to(&threads.dispatcher);
                threads.call(Awaited::Callbacks);
            });
        }
    }

    pub(crate) fn post_to(self: &Arc<Self>, dispatcher: &Dispatcher) {
        if !self.posted.swap(true, SeqCst) {
            dispatcher.post(self.clone());
        }
    }

    /// On the dispatcher's thread. True: there is more.
    pub(crate) fn run_callbacks(self: &Arc<Self>, max: usize) -> bool {
        self.posted.store(false, SeqCst);
        let Ok(pass) = self.callbacks.enter() else { return false };
        let mut has_lines = self.drain_log(&pass);
        let (mut left, mut batch) = (max, Vec::new());
        while left > 0 {
            if !pass.is_open() {
                return false;
            }
            let count = self.run_some(&pass, u64::MAX, left, &mut batch);
            if count == 0 {
                return has_lines;
            }
            has_lines = self.drain_log(&pass);
            left -= count;
        }
        true
    }

    pub(super) fn dispatch(self: &Arc<Self>, max: i32) -> Result<usize> {
        self.check_manual()?;
        self.check_outside()?;
        let pass = match self.callbacks.enter() {
            Ok(pass) => pass,
            Err(Shut::Busy) => return Err(Error::new(Code::Busy, "another thread is dispatching")),
            Err(Shut::Closed) => return Err(self.why_not()),
        };
        self.inbox.noticed();
        let mark = self.inbox.mark();
        let max = if max <= 0 { usize::MAX } else { max as usize };
        let mut count = 0;
        let mut has_lines = self.drain_log(&pass);
        let mut batch = Vec::new();
        while count < max && pass.is_open() {
            match self.run_some(&pass, mark, (max - count).min(AT_ONCE), &mut batch) {
                0 => break,
                some => count += some,
            }
            has_lines = self.drain_log(&pass);
        }
        if has_lines {
            self.poke_reader();
        }
        Ok(count)
    }

    pub(super) fn run_handlers(self: &Arc<Self>, pass: &Pass<'_>, number: u64, event: &Event) {
        for text in pass.run(number, event) {
            self.handler_panicked(event.kind.name(), &text);
        }
    }

    pub(super) fn on_event(self: &Arc<Self>, mask: u32, f: EventFn) -> Result<u64> {
        self.check()?;
        let known = EventKind::ALL.iter().fold(0, |all, kind| all | kind.bit());
        if mask & !known != 0 && mask != u32::MAX {
            return Err(Error::new(Code::Invalid, format!("unknown event bits {:#x}", mask & !known)));
        }
        if self.state() == NodeState::Failed {
            return Err(self.why_not());
        }
        let id = self.callbacks.add(mask, self.inbox.mark(), f).ok_or_else(|| self.why_not())?;
        // After it was added: a start that goes on meanwhile sees either the handler or nothing of the threads.
        self.ready_to_call().map(|()| id).inspect_err(|_| _ = self.callbacks.remove(id))
    }

    /// There is a thread to call handlers on, once the node is started.
    pub(super) fn ready_to_call(&self) -> Result<()> {
        let mut ready = Ok(());
        if !self.is_manual {
            self.with_threads(|threads| ready = threads.start_dispatcher());
        }
        ready.map_err(|e| Error::io("cannot start a thread", &e))
    }

    // --- log lines ---

    pub(crate) fn log(self: &Arc<Self>, level: i32, target: &'static str, text: impl FnOnce() -> String) {
        if self.log.wants(level) && self.log.push(level, target, text()) {
            if self.is_manual {
                self.poke_reader();
            } else {
                self.post();
            }
        }
    }

    /// What waits now, and not what is written meanwhile: a sink may cause lines itself. True: there are more.
    pub(super) fn drain_log(&self, pass: &Pass<'_>) -> bool {
        for _ in 0..self.log.len() {
            let Some(line) = self.log.pop() else { break };
            pass.log(line.level, line.target, &line.text);
        }
        self.log.len() > 0
    }

    pub(super) fn log_event(self: &Arc<Self>, event: &Event) {
        let level = match event.kind {
            EventKind::Warning | EventKind::Conflict => level::WARNING,
            EventKind::Update => level::DEBUG,
            _ => level::INFO,
        };
        self.log(level, "bruit::member", || describe(event));
    }
}

fn describe(event: &Event) -> String {
    let kind = event.kind.name();
    let text = event.text.as_deref().unwrap_or("");
    match &event.member {
        Some(member) => format!("{kind} {} at {} {text}", member.name, member.address),
        None if event.kind == EventKind::Joined => format!("{kind} by {} contacts {text}", event.count),
        None => format!("{kind} {text}"),
    }
    .trim_end()
    .into()
}
