//! Messages to one member, questions and their answers.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::frames::Speaker;
use super::mutant::Mutant;
use super::{Engine, cx};
use crate::error::{Code, Error, Result};
use crate::id::RunId;
use crate::message::{Body, Delivery, Manner, Weight};
use crate::outbox::{Completion, Destination, Outbox};
use crate::protocol::Cx;
use crate::protocol::lane::{Arrived, Fate, Letter};
use crate::time::{Duration, Now};
use crate::view::{Event, EventKind};
use crate::wire::frame::{Frame, Item, ItemKind, Lane};

/// What a message in a datagram takes besides its topic and its data: envelope, frame header, lengths.
const AROUND: usize = 64;

/// Room is given to each member by itself, so all together may fill `inbox_bytes` and more. Beyond so many times as much
/// nothing is taken, whatever room was given.
const OVERDRAFT: usize = 2;

/// How a message is sent to a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sending {
    /// In a datagram, if it fits in one; it may be lost. What is larger goes as with `Reliable`.
    BestEffort,
    /// In the order of its topic, once, also where links break, as long as both runs live and know each other.
    Reliable,
    /// The same, and [`Completion::Received`] says when it has arrived.
    Receipt,
}

impl Engine {
    /// Sends a message to a member, or to ourselves. With [`Sending::Receipt`] the answer is the receipt's number.
    ///
    /// `E_NOT_FOUND` for an unknown name, `E_UNREACHABLE` for the dead and those who left, `E_TOO_BIG` above `max_message`,
    /// `E_BUSY` where `send_queue` is full, or to ourselves `inbox_bytes`: [`Completion::Writable`] says when it is not any more. In all of them
    /// nothing is sent.
    pub fn send(&mut self, now: Now, to: &str, body: Body, how: Sending, out: &mut Outbox) -> Result<Option<u64>> {
        let to = self.correspondent(to, &body)?;
        let receipt = (how == Sending::Receipt).then(|| {
            self.receipts += 1;
            self.receipts
        });
        if let Some(run) = to.run.filter(|&run| run == self.members.local().run) {
            self.must_have_room_for_us(run)?;
            self.counters.messages_sent += 1;
            self.deliver_to_us(Manner::Reliable, body, out);
            let before = out.completions.len();
            out.completions.extend(receipt.map(|id| Completion::Received { id, status: 0 }));
            self.report_receipts(run, before, out);
            return Ok(receipt);
        }
        if how == Sending::BestEffort && body.len() + AROUND <= self.config.max_datagram {
            out.send(to, &Frame::Message { topic: body.topic(), data: body.data() });
        } else {
            self.post(now, to, Letter { kind: ItemKind::MESSAGE, id: 0, status: 0, body, receipt }, out)?;
        }
        self.counters.messages_sent += 1;
        self.finish(now, out);
        Ok(receipt)
    }

    /// Asks a member, or ourselves. The answer is the number of the [`Completion::Replied`] that follows: with the reply,
    /// or with E_TIMEOUT after `timeout`, or with E_UNREACHABLE as soon as the member is dead or has left. Refuses as
    /// `send` does; `E_LIMIT` where `max_requests` wait.
    pub fn request(
        &mut self,
        now: Now,
        to: &str,
        body: Body,
        timeout: Option<Duration>,
        out: &mut Outbox,
    ) -> Result<u64> {
        let to = self.correspondent(to, &body)?;
        let Some(run) = to.run else { return Err(Error::new(Code::NotFound, "no such member")) };
        if self.requests.len() >= self.config.max_requests {
            let text = format!("{} requests wait for answers (max_requests); nothing was sent", self.requests.len());
            return Err(Error::new(Code::Limit, text));
        }
        let is_to_us = run == self.members.local().run;
        if is_to_us {
            self.must_have_room_for_us(run)?;
        }
        let id = self.requests.ask(run, timeout.map(|timeout| now.mono + timeout));
        if is_to_us {
            self.counters.requests += 1;
            self.deliver_to_us(Manner::Request { id }, body, out);
            return Ok(id);
        }
        let letter = Letter { kind: ItemKind::REQUEST, id, status: 0, body, receipt: None };
        if let Err(e) = self.post(now, to, letter, out) {
            self.requests.end(id, None);
            return Err(e);
        }
        self.counters.requests += 1;
        self.finish(now, out);
        Ok(id)
    }

    /// Answers what `run` asked with this number. `E_UNREACHABLE` where it is gone, `E_BUSY` and `E_TOO_BIG` as in `send`.
    pub fn reply(
        &mut self,
        now: Now,
        run: RunId,
        id: u64,
        answer: core::result::Result<&[u8], (Code, &str)>,
        out: &mut Outbox,
    ) -> Result<()> {
        self.must_be_member()?;
        let (status, data) = match answer {
            Ok(data) => (0, data),
            Err((code, text)) => ((code as i32).unsigned_abs(), text.as_bytes()),
        };
        let body = Body::read("", data);
        if run == self.members.local().run {
            self.on_reply(run, id, status, body, out);
            return Ok(());
        }
        let gone = || Error::new(Code::Unreachable, "who asked is dead or has left");
        let entry = self.members.find(run).and_then(|peer| self.members.get(peer)).filter(|e| e.is_live());
        let to = entry.ok_or_else(gone)?.to();
        self.check_size(&body)?;
        self.post(now, to, Letter { kind: ItemKind::REPLY, id, status, body, receipt: None }, out)?;
        self.finish(now, out);
        Ok(())
    }

    /// Nobody waits for that answer any more, or for those answers: [`Completion::Replied`], or [`Completion::Gathered`], with
    /// E_CANCELED. False where it has ended already.
    pub fn cancel(&mut self, id: u64, out: &mut Outbox) -> bool {
        let ended = self.requests.end(id, None);
        if ended {
            self.replied(id, Code::Canceled, "canceled by the caller", out);
        }
        ended || self.cancel_query(id, out)
    }

    /// The application is done with messages of that weight, as [`Delivery::weight`] counts it: members may send more, and
    /// broadcasts that waited are in `out`.
    pub fn consumed(&mut self, now: Now, weight: Weight, out: &mut Outbox) {
        self.backlog = self.backlog.saturating_sub(weight.direct);
        self.tree.consumed(weight.broadcasts);
        let room = self.room();
        self.lanes.on_room(cx!(self, now, out), room);
        let me = self.members.local().run;
        if self.backlog <= self.config.inbox_bytes / 2 && self.refused.remove(&me) {
            self.report_writable(me, out);
        }
        self.finish(now, out);
    }

    /// Bytes of messages that the application has been given and is not done with.
    pub fn backlog(&self) -> usize {
        self.backlog
    }

    // --- what comes ---

    pub(super) fn on_message(&mut self, by: &Speaker, topic: &str, data: &[u8], out: &mut Outbox) {
        self.deliver(by.run, Manner::BestEffort, Body::read(topic, data), out);
    }

    pub(super) fn on_item(&mut self, now: Now, by: &Speaker, item: Item<'_>, out: &mut Outbox) {
        let lane = item.lane;
        if lane != Lane::Stream && self.backlog > OVERDRAFT * self.config.inbox_bytes {
            // It, or many, sent more than there was room for. Whoever keeps to the rules sends it again.
            self.counters.items_refused += 1;
            return;
        }
        let (room, mut arrived) = (self.room(), core::mem::take(&mut self.arrived));
        match self.lanes.on_item(cx!(self, now, out), by.run, by.back.via, item, room, &mut arrived) {
            Fate::Taken => {}
            Fate::Seen => self.counters.items_seen += 1,
            Fate::Refused => self.counters.items_refused += 1,
        }
        for said in arrived.drain(..) {
            if lane == Lane::Stream {
                self.on_stream_item(now, by.run, said, out);
                continue;
            }
            let Arrived { kind, id, status, body, .. } = said;
            match kind {
                ItemKind::MESSAGE => self.deliver(by.run, Manner::Reliable, body, out),
                ItemKind::REQUEST => self.deliver(by.run, Manner::Request { id }, body, out),
                ItemKind::REPLY => self.on_reply(by.run, id, status, body, out),
                ItemKind::ANSWER => self.on_answer(by.run, id, status, body, out),
                ItemKind::HEARD => self.on_heard(by.run, id, out),
                ItemKind::RELAY => self.on_relay(now, by.run, id, status, body, out),
                _ => self.counters.unexpected += 1,
            }
        }
        self.arrived = arrived;
    }

    pub(super) fn on_item_ack(&mut self, now: Now, home: Destination, ack: (Lane, u64, u64, u64), out: &mut Outbox) {
        let (lane, session, upto, room) = ack;
        let before = out.completions.len();
        let roomy = self.lanes.on_ack(cx!(self, now, out), home, lane, session, upto, room);
        let Some(run) = home.run else { return };
        self.report_receipts(run, before, out);
        if roomy && self.refused.remove(&run) {
            self.report_writable(run, out);
        }
    }

    fn on_reply(&mut self, by: RunId, id: u64, status: u32, body: Body, out: &mut Outbox) {
        if !self.requests.end(id, Some(by)) {
            self.counters.replies_late += 1;
            return;
        }
        out.completions.push(Completion::Replied { id, answer: said(status, body) });
    }

    // --- what time and members bring ---

    pub(super) fn direct_tick(&mut self, now: Now, out: &mut Outbox) {
        while let Some(id) = self.requests.on_deadline(now.mono) {
            self.counters.requests_timed_out += 1;
            self.replied(id, Code::Timeout, "no answer in time", out);
        }
    }

    /// Acknowledgements and resends that are due.
    pub(super) fn lane_tick(&mut self, now: Now, out: &mut Outbox) {
        if self.lanes.deadline().is_some_and(|at| at <= now.mono) {
            let room = self.room();
            self.lanes.on_deadline(cx!(self, now, out), &self.members, room);
        }
    }

    pub(super) fn on_severed(&mut self, now: Now, run: RunId, out: &mut Outbox) {
        self.lanes.on_severed(cx!(self, now, out), run);
    }

    /// That run is over, or counts as over: who waits for it is told.
    pub(super) fn part_with(&mut self, run: RunId, out: &mut Outbox) {
        let before = out.completions.len();
        self.lanes.fail(run, Code::Unreachable, out);
        self.report_receipts(run, before, out);
        for id in self.requests.fail(run) {
            self.replied(id, Code::Unreachable, "the member is dead or has left", out);
        }
        self.forgo_answers(run, out);
        self.end_streams(run, out);
        if self.refused.remove(&run) {
            // Who waits for room finds out that it is gone.
            self.report_writable(run, out);
        }
    }

    /// We have left: nobody will answer any more.
    pub(super) fn part_with_all(&mut self, out: &mut Outbox) {
        self.cancel_queries(out);
        let runs: Vec<RunId> = self.members.iter().map(|(_, e)| e.run).collect();
        runs.into_iter().for_each(|run| self.part_with(run, out));
    }

    // --- the parts ---

    /// Where a member is reached, if that message may go there.
    pub(super) fn correspondent(&self, name: &str, body: &Body) -> Result<Destination> {
        self.must_be_member()?;
        self.check_size(body)?;
        let Some(entry) = self.members.find_name(name).and_then(|peer| self.members.get(peer)) else {
            return Err(Error::new(Code::NotFound, format!("no member is called {name:?}; nothing was sent")));
        };
        if !entry.is_live() {
            return Err(Error::new(Code::Unreachable, format!("{name} is dead or has left; nothing was sent")));
        }
        Ok(entry.to())
    }

    /// What we say to ourselves waits for nobody's acknowledgement, and is bounded where it waits for the application.
    fn must_have_room_for_us(&mut self, run: RunId) -> Result<()> {
        if self.backlog < self.config.inbox_bytes {
            return Ok(());
        }
        self.refused.insert(run);
        self.counters.messages_refused += 1;
        let text =
            format!("{} bytes wait for this node's application already (inbox_bytes); nothing was sent", self.backlog);
        Err(Error::new(Code::Busy, text))
    }

    fn check_size(&self, body: &Body) -> Result<()> {
        let (len, max) = (body.data().len(), self.config.max_message);
        if len > max {
            let text = format!("a message of {len} bytes, max_message is {max}; nothing was sent");
            return Err(Error::new(Code::TooBig, text));
        }
        Ok(())
    }

    pub(super) fn post(&mut self, now: Now, to: Destination, letter: Letter, out: &mut Outbox) -> Result<()> {
        let room = self.room();
        if self.lanes.push(cx!(self, now, out), to, letter, room) {
            return Ok(());
        }
        self.refused.extend(to.run);
        self.counters.messages_refused += 1;
        let text =
            format!("{} bytes wait for this member already (send_queue); nothing was sent", self.config.send_queue);
        Err(Error::new(Code::Busy, text))
    }

    /// What may come in one lane.
    pub(super) fn room(&self) -> u64 {
        self.config.inbox_bytes.saturating_sub(self.backlog).min(self.config.lane_window) as u64
    }

    fn deliver(&mut self, run: RunId, manner: Manner, body: Body, out: &mut Outbox) {
        let Some(entry) = self.members.find(run).and_then(|peer| self.members.get(peer)) else { return };
        let (from, epoch) = (entry.name.clone(), entry.epoch);
        self.counters.messages_received += 1;
        let delivery = Delivery { from, epoch, run, manner, body };
        self.backlog += delivery.weight().direct;
        if self.is(Mutant::Stammerer) {
            out.messages.push(delivery.clone());
        }
        out.messages.push(delivery);
    }

    fn deliver_to_us(&mut self, manner: Manner, body: Body, out: &mut Outbox) {
        self.deliver(self.members.local().run, manner, body, out);
    }

    /// Of the receipts among the completions from `first` on.
    fn report_receipts(&mut self, run: RunId, first: usize, out: &mut Outbox) {
        if out.completions.len() == first {
            return;
        }
        let member = self.members.find(run).and_then(|peer| self.picture(peer));
        for completion in &out.completions[first..] {
            if let Completion::Received { id, status } = *completion {
                let mut event = Event::new(EventKind::Receipt, self.version);
                (event.id, event.status, event.member) = (id, status, member.clone());
                out.events.push(event);
            }
        }
    }

    pub(super) fn report_writable(&mut self, run: RunId, out: &mut Outbox) {
        let Some(peer) = self.members.find(run) else { return };
        let Some(to) = self.members.get(peer).map(|e| e.name.clone()) else { return };
        out.completions.push(Completion::Writable { to });
        let mut event = Event::new(EventKind::Writable, self.version);
        event.member = self.picture(peer);
        out.events.push(event);
    }

    fn replied(&self, id: u64, code: Code, text: &str, out: &mut Outbox) {
        out.completions.push(Completion::Replied { id, answer: Err(Error::new(code, text)) });
    }
}

/// What a reply says.
pub(super) fn said(status: u32, body: Body) -> Result<Body> {
    if status == 0 {
        return Ok(body);
    }
    Err(Error::new(Code::of_answer(-i64::from(status)), String::from_utf8_lossy(body.data())))
}
