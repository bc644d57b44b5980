//! Lanes: messages to one member that arrive in order, and once, however often links break.
//!
//! ```text
//! push ──▶ queue [base … sent … ) ──ITEM──▶ next == seq: handed out;  later: held;  earlier: seen
//!           ▲ forgotten up to upto ◀──ITEM_ACK(upto, room)──┘
//! ```
//! Two lanes lead to a member, so that a small message never waits for a large one: small ones in one, those above
//! [`SMALL_MAX`] in parts in the other. What is said under one topic stays in order all the same: a topic goes on in the
//! bulk lane until what it has there is acknowledged, and a bulk message says how many small ones come before it.
//!
//! A third lane is that of byte streams. It waits for neither of the others, nor they for it: what is in it goes into the
//! buffers of its streams, whose own windows bound it on both sides (see `protocol::stream`), so there is always room for a
//! `lane_window` of it, however much of an application's messages is unread.
//!
//! Nothing is sent that the receiver has not made room for. What a link took with it is sent again when the link has
//! ended, or when nothing was acknowledged for a while. A single item with nothing ahead of it may go by
//! datagram, which is quicker and may be lost: whatever follows it takes it along.
//!
//! Who is forgotten may only have been cut off, and comes back in the same run: how far its lanes had come is remembered,
//! so that nothing arrives twice. Each item says how many before it are not acknowledged, so that who remembers nothing begins there.
//! A message in parts is kept until all of it is acknowledged, and begun anew where the other side has lost the beginning.
//!
//! Who holds the other for dead drops what is queued for it, and what links still carry may arrive much later: after what is
//! sent next, by another lane. So the lanes to a member begin together, in one session, and with the first item of a
//! session everything of those before it is over.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use super::Cx;
use crate::config::Config;
use crate::error::Code;
use crate::id::RunId;
use crate::members::Members;
use crate::message::{Body, WEIGHT};
use crate::outbox::{Completion, Destination, Outbox, Via};
use crate::time::{Duration, Instant};
use crate::wire::frame::{Frame, Item, ItemKind, Lane};

/// A larger message goes by the bulk lane, in parts of this size.
pub const SMALL_MAX: usize = 16 << 10;

/// What may be on its way before the receiver has said how much it takes.
const ROOM_FIRST: u64 = 64 << 10;

/// Runs that were forgotten, and how far their lanes had come. Beyond that the oldest: what is under way from there when it
/// returns may arrive twice.
const PAST_MAX: usize = 256;

/// Unanswered resends double the pause this often.
const DOUBLINGS: u32 = 3;

/// A message on its way out.
#[derive(Clone, Debug)]
pub struct Letter {
    pub kind: ItemKind,
    pub id: u64,
    pub status: u32,
    pub body: Body,
    /// A [`Completion::Received`] with this number is wanted.
    pub receipt: Option<u64>,
}

/// A message that has come, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrived {
    pub kind: ItemKind,
    pub id: u64,
    pub status: u32,
    /// Of what a stream says.
    pub after: u64,
    pub body: Body,
}

/// What became of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Taken,
    /// It had come before.
    Seen,
    /// Ahead of its time and beyond the room that was given, or larger than a message may be.
    Refused,
}

#[derive(Debug, Default)]
pub struct Lanes {
    of: BTreeMap<RunId, Pair>,
    due: BTreeSet<(Instant, RunId)>,
    past: VecDeque<Past>,
    sessions: u64,
    /// Bytes in the lanes of streams.
    streaming: usize,
}

/// How far the lanes from a run had come that is forgotten: all before these items have been handed out.
#[derive(Clone, Copy, Debug)]
struct Past {
    run: RunId,
    session: u64,
    next: [u64; LANES],
}

/// Both directions of all lanes.
#[derive(Debug, Default)]
struct Pair {
    /// The session that lanes are begun in, and the one that those from there are.
    session: u64,
    theirs: u64,
    out: [Option<Out>; LANES],
    inbound: [In; LANES],
    due: Option<Instant>,
    /// Its part of [`Lanes::streaming`].
    streaming: usize,
}

const LANES: usize = Lane::ALL.len();
const SMALL: usize = Lane::Small as usize;
const BULK: usize = Lane::Bulk as usize;
const STREAM: usize = Lane::Stream as usize;

#[derive(Debug)]
struct Out {
    /// Of `queue[0]`, the first of a message.
    base: u64,
    /// All before it are acknowledged, as the other side said last.
    acked: u64,
    /// The next to be sent.
    sent: u64,
    queue: VecDeque<Queued>,
    bytes: usize,
    /// Bytes from `acked` to `sent`.
    flying: usize,
    room: u64,
    /// The one item under way went by datagram.
    loose: bool,
    tries: u32,
    /// Links that ended since anything was acknowledged.
    severed: u32,
    again: Option<Instant>,
}

#[derive(Debug)]
struct Queued {
    letter: Letter,
    from: usize,
    to: usize,
    after: u64,
}

impl Queued {
    fn len(&self) -> usize {
        self.to - self.from + WEIGHT
    }

    fn is_last(&self) -> bool {
        self.to == self.letter.body.data().len()
    }

    /// Of the message that this is the first part of.
    fn parts(&self) -> usize {
        if self.is_last() { 1 } else { self.letter.body.data().len().div_ceil(self.to) }
    }

    fn item(&self, lane: Lane, session: u64, seq: u64, behind: u64) -> Item<'_> {
        let Letter { kind, id, status, body, receipt } = &self.letter;
        Item {
            lane,
            prompt: receipt.is_some() && self.is_last(),
            session,
            seq,
            behind,
            kind: *kind,
            id: *id,
            status: *status,
            rest: (body.data().len() - self.to) as u64,
            after: self.after,
            topic: if self.from == 0 { body.topic() } else { "" },
            data: &body.data()[self.from..self.to],
        }
    }
}

#[derive(Debug, Default)]
struct In {
    /// Anything has come.
    begun: bool,
    next: u64,
    held: BTreeMap<u64, Held>,
    held_bytes: usize,
    partial: Option<Partial>,
    /// Bytes taken since the last acknowledgement.
    owed: usize,
    ack: Option<Instant>,
    /// The room that was told last.
    told: u64,
    /// The last item came by stream, and so the acknowledgement goes.
    by_stream: bool,
}

#[derive(Debug)]
struct Held {
    arrived: Arrived,
    rest: u64,
}

/// The parts of a message so far. Without `data` it is larger than a message may be, and only counted through.
#[derive(Debug)]
struct Partial {
    first: u64,
    topic: Body,
    data: Option<Vec<u8>>,
}

impl Lanes {
    /// Lanes with anything in them, in either direction.
    pub fn len(&self) -> usize {
        self.of.len()
    }

    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// Bytes of messages that wait for that member's acknowledgement.
    pub fn waiting(&self, run: RunId) -> usize {
        self.of.get(&run).map_or(0, Pair::waiting)
    }

    /// Bytes of streams that wait for members' acknowledgement, all together.
    pub fn streaming(&self) -> usize {
        self.streaming
    }

    /// Queues a message and sends what there is room for. False, and nothing is queued, where `send_queue` bytes wait
    /// already; an empty queue takes any message.
    pub fn push(&mut self, cx: &mut Cx<'_>, to: Destination, letter: Letter, room: u64) -> bool {
        let Some(run) = to.run else { return false };
        let size = letter.body.len() + WEIGHT;
        let pair = Lanes::pair(&mut self.of, &mut self.past, run);
        let goes_on = |out: &Out| out.queue.iter().any(|q| q.letter.body.is_under_topic_of(&letter.body));
        let which = match letter.body.len() > SMALL_MAX || pair.out[BULK].as_ref().is_some_and(goes_on) {
            true => BULK,
            false => SMALL,
        };
        // Each lane by itself: small messages find room beside a large one.
        let waiting = pair.out[which].as_ref().map_or(0, |out| out.bytes);
        if waiting > 0 && waiting + size > cx.config.send_queue {
            return false;
        }
        let after = match (which, &pair.out[SMALL]) {
            (BULK, Some(small)) => small.base + small.queue.len() as u64,
            _ => 0,
        };
        pair.out(which, &mut self.sessions).push(letter, after, SMALL_MAX);
        let via = pair.flush(cx, to);
        // On what goes there anyway.
        pair.acknowledge(cx, to, room, Some(via));
        self.rearm(run);
        true
    }

    /// Queues what a stream says, each whole. [`Lanes::flush`] follows. Its own window bounds it.
    pub fn push_of_stream(&mut self, run: RunId, letter: Letter, after: u64) {
        let pair = Lanes::pair(&mut self.of, &mut self.past, run);
        pair.out(STREAM, &mut self.sessions).push(letter, after, usize::MAX);
    }

    /// Sends what there is room for.
    pub fn flush(&mut self, cx: &mut Cx<'_>, to: Destination, room: u64) {
        let Some((run, pair)) = to.run.and_then(|run| Some((run, self.of.get_mut(&run)?))) else { return };
        let via = pair.flush(cx, to);
        pair.acknowledge(cx, to, room, Some(via));
        self.rearm(run);
    }

    /// Takes an item. What is complete with it is appended to `arrived`, in order. `room`: what may come in each lane of
    /// messages.
    pub fn on_item(
        &mut self,
        cx: &mut Cx<'_>,
        by: RunId,
        via: Via,
        item: Item<'_>,
        room: u64,
        arrived: &mut Vec<Arrived>,
    ) -> Fate {
        let pair = Lanes::pair(&mut self.of, &mut self.past, by);
        let which = item.lane as usize;
        let limits = (cx.config.lane_window, cx.config.max_message);
        if item.session < pair.theirs {
            return Fate::Seen;
        }
        if item.session > pair.theirs {
            (pair.theirs, pair.inbound) = (item.session, Default::default());
        }
        let inbound = &mut pair.inbound[which];
        inbound.begun = true;
        inbound.begin_at(item.seq - item.behind);
        let waits = which == BULK && item.after > 0;
        let fate = match item.seq == inbound.next && inbound.held.is_empty() && !waits {
            true => {
                inbound.take(&item, limits.1, arrived);
                Fate::Taken
            }
            false => inbound.hold(&item, limits.0),
        };
        pair.take_held(which, limits.1, arrived);
        if which == SMALL {
            pair.take_held(BULK, limits.1, arrived);
        }
        let inbound = &mut pair.inbound[which];
        let soon = match item.prompt || fate == Fate::Seen || inbound.owed >= cx.config.lane_window / 4 {
            true => cx.now.mono,
            false => cx.now.mono + cx.config.gossip_flush,
        };
        inbound.ack = Some(inbound.ack.map_or(soon, |at| at.min(soon)));
        inbound.told = inbound.told.min(room_in(which, room, cx.config));
        inbound.by_stream = via == Via::Stream;
        self.rearm(by);
        fate
    }

    /// All before `upto` have arrived. True: there is room again for who was refused.
    pub fn on_ack(
        &mut self,
        cx: &mut Cx<'_>,
        from: Destination,
        lane: Lane,
        session: u64,
        upto: u64,
        room: u64,
    ) -> bool {
        let Some(run) = from.run else { return false };
        let Some(pair) = self.of.get_mut(&run).filter(|pair| pair.session == session) else { return false };
        let Some(out) = pair.out[lane as usize].as_mut().filter(|out| out.base <= upto) else { return false };
        // Whatever it offers, no more than our own option is on its way.
        out.room = room.min(cx.config.lane_window as u64);
        if out.forget(upto, |id| cx.out.completions.push(Completion::Received { id, status: 0 })) {
            (out.tries, out.severed) = (0, 0);
            out.arm(cx.now.mono, cx.config.probe_interval);
        }
        pair.flush(cx, from);
        let is_roomy = pair.out[..=BULK].iter().flatten().all(|out| out.bytes <= cx.config.send_queue / 2);
        self.rearm(run);
        is_roomy
    }

    /// The application has made room: tells those who were given little.
    pub fn on_room(&mut self, cx: &mut Cx<'_>, room: u64) {
        let half = cx.config.lane_window as u64 / 2;
        if room < half {
            return;
        }
        let starved = |pair: &Pair| pair.inbound[..STREAM].iter().any(|i| i.begun && i.told < half);
        let runs: Vec<RunId> = self.of.iter().filter(|(_, pair)| starved(pair)).map(|(&run, _)| run).collect();
        for run in runs {
            if let Some(pair) = self.of.get_mut(&run) {
                for inbound in pair.inbound[..STREAM].iter_mut().filter(|i| i.begun && i.told < half) {
                    inbound.ack = Some(cx.now.mono);
                }
            }
            self.rearm(run);
        }
    }

    /// A link has ended: what was on it goes again, after a pause.
    pub fn on_severed(&mut self, cx: &mut Cx<'_>, run: RunId) {
        let Some(pair) = self.of.get_mut(&run) else { return };
        for out in pair.out.iter_mut().flatten().filter(|out| out.flying > 0) {
            out.rewind();
            out.again = Some(cx.now.mono + cx.config.gossip_interval * (1 << out.severed.min(DOUBLINGS)));
            out.severed += 1;
        }
        self.rearm(run);
    }

    /// It is gone: nothing more is sent to it.
    pub fn fail(&mut self, run: RunId, code: Code, out: &mut Outbox) {
        let Some(pair) = self.of.get_mut(&run) else { return };
        for lane in pair.out.iter_mut().filter_map(Option::take) {
            let status = code as i32;
            let receipts = lane.queue.iter().filter(|q| q.is_last()).filter_map(|q| q.letter.receipt);
            out.completions.extend(receipts.map(|id| Completion::Received { id, status }));
        }
        self.rearm(run);
    }

    /// Its run is listed no more.
    pub fn forget(&mut self, run: RunId) {
        let Some(pair) = self.of.remove(&run) else { return };
        self.streaming -= pair.streaming;
        if let Some(due) = pair.due {
            self.due.remove(&(due, run));
        }
        if pair.theirs > 0 {
            if self.past.len() == PAST_MAX {
                self.past.pop_front();
            }
            self.past.push_back(Past { run, session: pair.theirs, next: pair.inbound.map(|inbound| inbound.mark()) });
        }
    }

    fn pair<'a>(of: &'a mut BTreeMap<RunId, Pair>, past: &mut VecDeque<Past>, run: RunId) -> &'a mut Pair {
        of.entry(run).or_insert_with(|| {
            let known = past.iter().position(|known| known.run == run).and_then(|i| past.remove(i));
            let Some(Past { session, next, .. }) = known else { return Pair::default() };
            Pair { theirs: session, inbound: next.map(|next| In { next, ..In::default() }), ..Pair::default() }
        })
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.due.first().map(|&(at, _)| at)
    }

    /// Acknowledges and resends what is due.
    pub fn on_deadline(&mut self, cx: &mut Cx<'_>, members: &Members, room: u64) {
        while let Some(&(at, run)) = self.due.first() {
            if at > cx.now.mono {
                return;
            }
            let to = members.find(run).and_then(|peer| members.get(peer)).filter(|e| e.is_live()).map(|e| e.to());
            if let (Some(to), Some(pair)) = (to, self.of.get_mut(&run)) {
                pair.acknowledge(cx, to, room, None);
                pair.resend(cx, to);
            } else if let Some(pair) = self.of.get_mut(&run) {
                // Until it lives again.
                pair.inbound.iter_mut().for_each(|inbound| inbound.ack = None);
                pair.out.iter_mut().flatten().for_each(|out| out.arm(cx.now.mono, cx.config.probe_interval));
            }
            self.rearm(run);
        }
    }

    fn rearm(&mut self, run: RunId) {
        let Some(pair) = self.of.get_mut(&run) else { return };
        let acks = pair.inbound.iter().filter_map(|inbound| inbound.ack);
        let next = acks.chain(pair.out.iter().flatten().filter_map(|out| out.again)).min();
        if next != pair.due {
            if let Some(at) = pair.due {
                self.due.remove(&(at, run));
            }
            if let Some(at) = next {
                self.due.insert((at, run));
            }
            pair.due = next;
        }
        let streaming = pair.out[STREAM].as_ref().map_or(0, |out| out.bytes);
        self.streaming = self.streaming + streaming - pair.streaming;
        pair.streaming = streaming;
    }
}

/// What may come in that lane.
fn room_in(which: usize, room: u64, config: &Config) -> u64 {
    if which == STREAM { config.lane_window as u64 } else { room }
}

impl Pair {
    /// The first begins a session.
    fn out(&mut self, which: usize, sessions: &mut u64) -> &mut Out {
        if self.out.iter().all(Option::is_none) {
            *sessions += 1;
            self.session = *sessions;
        }
        self.out[which].get_or_insert_with(Out::new)
    }

    /// Bytes of messages that wait for an acknowledgement.
    fn waiting(&self) -> usize {
        self.out[..STREAM].iter().flatten().map(|out| out.bytes).sum()
    }

    /// Items of the small lane that need not be waited for any more: who has lost what it knew would wait in vain.
    fn settled(&self) -> u64 {
        self.out[SMALL].as_ref().map_or(0, |small| small.base)
    }

    /// By what it went.
    fn flush(&mut self, cx: &mut Cx<'_>, to: Destination) -> Via {
        let (mut via, session, settled) = (to.via, self.session, self.settled());
        for (which, out) in self.out.iter_mut().enumerate() {
            let went = out.as_mut().and_then(|out| out.flush(cx, to, Lane::ALL[which], session, settled));
            via = went.unwrap_or(via);
        }
        via
    }

    fn resend(&mut self, cx: &mut Cx<'_>, to: Destination) {
        let (session, settled) = (self.session, self.settled());
        for (which, out) in self.out.iter_mut().enumerate() {
            let Some(out) = out.as_mut().filter(|out| out.again.is_some_and(|at| at <= cx.now.mono)) else { continue };
            out.rewind();
            out.tries += 1;
            out.again = None;
            // With no room at all one item asks whether there is some.
            out.room = out.room.max(out.queue.get((out.acked - out.base) as usize).map_or(0, |q| q.len() as u64));
            out.flush(cx, to, Lane::ALL[which], session, settled);
        }
    }

    /// What is due; or all that is owed, on what goes there `via` that way.
    fn acknowledge(&mut self, cx: &mut Cx<'_>, to: Destination, room: u64, via: Option<Via>) {
        for (which, inbound) in self.inbound.iter_mut().enumerate() {
            if inbound.ack.is_none_or(|at| via.is_none() && at > cx.now.mono) {
                continue;
            }
            let room = room_in(which, room, cx.config).saturating_sub(inbound.held_bytes as u64);
            (inbound.ack, inbound.owed, inbound.told) = (None, 0, room);
            let lane = Lane::ALL[which];
            let ack = Frame::ItemAck { lane, session: self.theirs, upto: inbound.next, room };
            let back = if inbound.by_stream { Via::Stream } else { to.via };
            cx.out.send(Destination { via: via.unwrap_or(back), ..to }, &ack);
        }
    }

    /// Hands out what was held and is next.
    fn take_held(&mut self, which: usize, max: usize, arrived: &mut Vec<Arrived>) {
        let small = self.inbound[SMALL].next;
        let inbound = &mut self.inbound[which];
        while let Some(first) = inbound.held.first_entry() {
            if *first.key() != inbound.next || (which == BULK && first.get().arrived.after > small) {
                return;
            }
            let Held { arrived: Arrived { kind, id, status, after, body }, rest } = first.remove();
            inbound.held_bytes -= body.len() + WEIGHT;
            let (topic, data, seq) = (body.topic(), body.data(), inbound.next);
            let item = Item {
                lane: Lane::ALL[which],
                prompt: false,
                session: 0,
                seq,
                behind: 0,
                kind,
                id,
                status,
                rest,
                after,
                topic,
                data,
            };
            inbound.take(&item, max, arrived);
        }
    }
}

impl Out {
    fn new() -> Out {
        Out {
            base: 0,
            acked: 0,
            sent: 0,
            queue: VecDeque::new(),
            bytes: 0,
            flying: 0,
            room: ROOM_FIRST,
            loose: false,
            tries: 0,
            severed: 0,
            again: None,
        }
    }

    /// In parts of at most so many bytes.
    fn push(&mut self, letter: Letter, after: u64, part: usize) {
        let len = letter.body.data().len();
        let mut from = 0usize;
        loop {
            let to = len.min(from.saturating_add(part));
            let part = Queued { letter: letter.clone(), from, to, after };
            self.bytes += part.len();
            self.queue.push_back(part);
            from = to;
            if from == len {
                return;
            }
        }
    }

    /// `settled`: see [`Pair::settled`].
    fn flush(&mut self, cx: &mut Cx<'_>, to: Destination, lane: Lane, session: u64, settled: u64) -> Option<Via> {
        let unsent = self.queue.len() - (self.sent - self.base) as usize;
        if unsent == 0 {
            return None;
        }
        let alone = self.flying == 0 && unsent == 1 && lane == Lane::Small && self.tries == 0;
        if self.loose {
            self.rewind();
        }
        self.loose = alone;
        let via = if alone { Via::Datagram } else { Via::Stream };
        while let Some(item) = self.queue.get((self.sent - self.base) as usize) {
            let len = item.len();
            if (self.flying + len) as u64 > self.room {
                break;
            }
            let mut frame = item.item(lane, session, self.sent, self.sent - self.base);
            if lane == Lane::Bulk && frame.after <= settled {
                frame.after = 0;
            }
            cx.out.send(Destination { via, ..to }, &Frame::Item(frame));
            self.flying += len;
            self.sent += 1;
        }
        if self.again.is_none() {
            self.arm(cx.now.mono, if self.loose { cx.config.gossip_interval } else { cx.config.probe_interval });
        }
        Some(via)
    }

    /// When it is sent again, if nothing is acknowledged.
    fn arm(&mut self, now: Instant, pause: Duration) {
        self.again = (!self.queue.is_empty()).then(|| now + pause * (1 << self.tries.min(DOUBLINGS)));
    }

    /// What was on its way is sent again.
    fn rewind(&mut self) {
        (self.sent, self.flying, self.loose) = (self.acked, 0, false);
    }

    /// True where anything more is acknowledged than was.
    fn forget(&mut self, upto: u64, mut receipt: impl FnMut(u64)) -> bool {
        let before = self.acked;
        let upto = upto.min(self.base + self.queue.len() as u64);
        let len = |seq: u64| self.queue[(seq - self.base) as usize].len();
        if upto < before {
            // An old word, or it has lost the beginning of a message.
            self.flying += (upto..before).map(len).sum::<usize>();
        } else {
            self.flying -= (before..upto.min(self.sent)).map(len).sum::<usize>();
            self.sent = self.sent.max(upto);
        }
        self.acked = upto;
        while let Some(parts) = self.queue.front().map(Queued::parts) {
            if self.base + parts as u64 > upto {
                break;
            }
            for part in self.queue.drain(..parts) {
                self.bytes -= part.len();
                part.letter.receipt.filter(|_| part.is_last()).into_iter().for_each(&mut receipt);
            }
            self.base += parts as u64;
        }
        self.loose &= self.flying > 0;
        if self.queue.is_empty() {
            self.again = None;
        }
        upto > before
    }
}

impl In {
    /// What is held, and the part of a message, would come again.
    fn mark(&self) -> u64 {
        self.partial.as_ref().map_or(self.next, |partial| partial.first)
    }

    /// All before it have arrived, whether we know of them or not.
    fn begin_at(&mut self, base: u64) {
        if self.next < base {
            (self.next, self.partial) = (base, None);
            while let Some(first) = self.held.first_entry().filter(|first| *first.key() < base) {
                self.held_bytes -= first.remove().arrived.body.len() + WEIGHT;
            }
        }
    }

    fn hold(&mut self, item: &Item<'_>, window: usize) -> Fate {
        let len = item.topic.len() + item.data.len() + WEIGHT;
        if item.seq < self.next || self.held.contains_key(&item.seq) {
            return Fate::Seen;
        }
        // The next one always finds room: else nothing would move any more.
        if item.seq > self.next && self.held_bytes + len > window {
            return Fate::Refused;
        }
        let body = Body::read(item.topic, item.data);
        let arrived = Arrived { kind: item.kind, id: item.id, status: item.status, after: item.after, body };
        self.held_bytes += len;
        self.held.insert(item.seq, Held { arrived, rest: item.rest });
        Fate::Taken
    }

    fn take(&mut self, item: &Item<'_>, max: usize, arrived: &mut Vec<Arrived>) {
        let first = self.next;
        self.next += 1;
        self.owed += item.topic.len() + item.data.len() + WEIGHT;
        let body = match self.partial.take() {
            None if item.rest == 0 => Body::read(item.topic, item.data),
            begun => {
                let topic = || Partial { first, topic: Body::read(item.topic, &[]), data: Some(Vec::new()) };
                let mut partial = begun.unwrap_or_else(topic);
                let fits = |have: usize| ((have + item.data.len()) as u64).saturating_add(item.rest) <= max as u64;
                partial.data = partial.data.filter(|data| fits(data.len()));
                if let Some(data) = &mut partial.data {
                    data.extend_from_slice(item.data);
                }
                if item.rest > 0 {
                    self.partial = Some(partial);
                    return;
                }
                let Some(data) = partial.data else { return };
                Body::read(partial.topic.topic(), &data)
            }
        };
        arrived.push(Arrived { kind: item.kind, id: item.id, status: item.status, after: item.after, body });
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::String;
    use alloc::vec;
    use core::net::SocketAddr;

    use super::*;
    use crate::config::Config;
    use crate::id::{Epoch, Incarnation, NodeName, Version};
    use crate::members;
    use crate::rng::Rng;
    use crate::time::{Now, Wall};
    use crate::view::MemberState;
    use crate::wire::frame::{Entries, Frames, Record};

    fn run(side: usize) -> RunId {
        RunId::new(side as u64 + 1).unwrap()
    }

    fn to(side: usize) -> Destination {
        let addr = SocketAddr::new([10, 0, 0, side as u8 + 1].into(), 7000);
        Destination { addr, run: Some(run(side)), via: Via::Datagram }
    }

    fn entry(side: usize) -> members::Entry {
        let name = format!("n{side}");
        let record = Record {
            name: &name,
            run: run(side),
            epoch: Epoch(1),
            incarnation: Incarnation(0),
            addr: to(side).addr,
            protocol: 1,
            app_version: 0,
            version: Version(0),
            age: 0,
            state: Entries(&[]),
        };
        members::entry(&record, NodeName::new(&name).unwrap(), MemberState::Alive, Instant::ZERO)
    }

    fn message(topic: &str, data: &[u8], receipt: Option<u64>) -> Letter {
        Letter { kind: ItemKind::MESSAGE, id: 0, status: 0, body: Body::new(topic, data).unwrap(), receipt }
    }

    /// Two members, and what is on its way between them.
    struct Two {
        lanes: [Lanes; 2],
        members: [Members; 2],
        got: [Vec<Arrived>; 2],
        receipts: Vec<(u64, i32)>,
        /// (when, to whom, by what, frames), in no order.
        wire: Vec<(Instant, usize, Via, Vec<u8>)>,
        /// When the last bytes of the stream to each side arrive.
        stream: [Instant; 2],
        /// Of 100 datagrams.
        lost: u64,
        room: [u64; 2],
        fates: Vec<Fate>,
        sent_by: Vec<Via>,
        config: Config,
        rng: Rng,
        now: Instant,
    }

    impl Two {
        fn new(seed: u64) -> Two {
            let table = |side: usize| {
                let mut members = Members::new(entry(side), (1, 2), 10);
                members.insert(entry(1 - side)).unwrap();
                members
            };
            let config = Config::new();
            Two {
                lanes: [Lanes::default(), Lanes::default()],
                members: [table(0), table(1)],
                got: [vec![], vec![]],
                receipts: vec![],
                wire: vec![],
                stream: [Instant::ZERO; 2],
                lost: 0,
                room: [config.lane_window as u64; 2],
                fates: vec![],
                sent_by: vec![],
                config,
                rng: Rng::new(seed),
                now: Instant::from_nanos(1_000_000_000),
            }
        }

        fn at<T>(&mut self, side: usize, f: impl FnOnce(&mut Lanes, &mut Cx<'_>, &Members) -> T) -> T {
            let mut out = Outbox::new(1400);
            let now = Now { mono: self.now, wall: Wall(0) };
            let cx = &mut Cx { now, rng: &mut self.rng, config: &self.config, out: &mut out };
            let value = f(&mut self.lanes[side], cx, &self.members[side]);
            for packet in out.packets() {
                let (via, frames) = (packet.to.via, packet.frames().to_vec());
                self.sent_by.push(via);
                let delay = Duration::from_micros(100 + self.rng.below(20_000));
                if via == Via::Stream {
                    self.stream[1 - side] = (self.now + delay).max(self.stream[1 - side] + Duration::from_nanos(1));
                    self.wire.push((self.stream[1 - side], 1 - side, via, frames));
                } else if self.rng.below(100) >= self.lost {
                    if self.rng.below(100) < self.lost {
                        self.wire.push((self.now + delay * 3, 1 - side, via, frames.clone()));
                    }
                    self.wire.push((self.now + delay, 1 - side, via, frames));
                }
            }
            self.receipts.extend(out.completions.into_iter().map(|completion| match completion {
                Completion::Received { id, status } => (id, status),
                other => panic!("{other:?}"),
            }));
            value
        }

        fn push(&mut self, side: usize, letter: Letter) -> bool {
            let room = self.room[side];
            self.at(side, |lanes, cx, _| lanes.push(cx, to(1 - side), letter, room))
        }

        /// The next thing that happens, unless it is later than `until`.
        fn step(&mut self, until: Instant) -> bool {
            let next = self.wire.iter().enumerate().min_by_key(|(_, w)| w.0).map(|(i, w)| (w.0, i));
            let timer = (0..2).filter_map(|side| self.lanes[side].deadline().map(|at| (at, side))).min();
            let at = [next.map(|n| n.0), timer.map(|t| t.0)].into_iter().flatten().min();
            let Some(at) = at.filter(|&at| at <= until) else {
                self.now = self.now.max(until);
                return false;
            };
            self.now = self.now.max(at);
            if let Some((_, i)) = next.filter(|n| n.0 == at) {
                let (_, side, via, frames) = self.wire.swap_remove(i);
                self.hear(side, via, &frames);
            } else if let Some((_, side)) = timer {
                let room = self.room[side];
                self.at(side, |lanes, cx, members| lanes.on_deadline(cx, members, room));
            }
            true
        }

        fn hear(&mut self, side: usize, via: Via, frames: &[u8]) {
            for frame in Frames::parse(frames).unwrap() {
                let (by, room) = (to(1 - side), self.room[side]);
                let mut arrived = core::mem::take(&mut self.got[side]);
                match frame {
                    Frame::Item(item) => {
                        let fate =
                            self.at(side, |l, cx, _| l.on_item(cx, run(1 - side), via, item, room, &mut arrived));
                        self.fates.push(fate);
                    }
                    Frame::ItemAck { lane, session, upto, room } => {
                        self.at(side, |l, cx, _| l.on_ack(cx, by, lane, session, upto, room));
                    }
                    other => panic!("{other}"),
                }
                self.got[side] = arrived;
                // What is due at once goes with this turn.
                self.at(side, |lanes, cx, members| lanes.on_deadline(cx, members, room));
            }
        }

        fn run(&mut self, time: Duration) {
            let until = self.now + time;
            while self.step(until) {}
        }

        /// The connection breaks, with all that is on it.
        fn sever(&mut self) {
            self.wire.retain(|w| w.2 != Via::Stream);
            for side in 0..2 {
                self.stream[side] = self.now;
                self.at(side, |lanes, cx, _| lanes.on_severed(cx, run(1 - side)));
            }
        }

        fn data(&self, side: usize) -> Vec<String> {
            self.got[side].iter().map(|a| String::from_utf8_lossy(a.body.data()).into_owned()).collect()
        }
    }

    const LONG: Duration = Duration::from_secs(600);

    /// Whatever becomes of links and datagrams: each once, in the order of its topic, and whole.
    #[test]
    fn everything_arrives_once_and_in_the_order_of_its_topic() {
        for seed in 0..60 {
            let mut two = Two::new(seed);
            two.lost = [0, 30, 100][seed as usize % 3];
            let mut said: [BTreeMap<String, Vec<usize>>; 2] = Default::default();
            for i in 0..120u64 {
                let side = two.rng.index(2);
                let topic = format!("t{}", two.rng.below(3));
                let size = [0, 10, 300, 5_000, 20_000, 150_000][two.rng.index(6)];
                let mut data = vec![i as u8; size];
                data.extend_from_slice(&i.to_le_bytes());
                if two.push(side, message(&topic, &data, Some(i))) {
                    said[side].entry(topic).or_default().push(i as usize);
                }
                let pause = Duration::from_micros(two.rng.below(8_000));
                two.run(pause);
                if two.rng.chance(1, 20) {
                    two.sever();
                }
            }
            two.run(LONG);
            for (side, said) in said.iter().enumerate() {
                let mut heard: BTreeMap<String, Vec<usize>> = BTreeMap::new();
                for Arrived { body, .. } in &two.got[1 - side] {
                    let (fill, number) = body.data().split_at(body.data().len() - 8);
                    let i = u64::from_le_bytes(number.try_into().unwrap());
                    assert!(fill.iter().all(|&b| b == i as u8));
                    heard.entry(body.topic().into()).or_default().push(i as usize);
                }
                assert_eq!(heard, *said, "seed {seed}");
            }
            let mut receipts: Vec<u64> = two.receipts.iter().map(|r| r.0).collect();
            receipts.sort_unstable();
            let mut all: Vec<u64> = said.iter().flat_map(|s| s.values().flatten()).map(|&i| i as u64).collect();
            all.sort_unstable();
            assert_eq!(receipts, all, "one receipt for each");
            assert_eq!(two.lanes.each_ref().map(|l| l.deadline()), [None, None], "nothing is left to do");
            assert_eq!(two.lanes[0].waiting(run(1)), 0);
        }
    }

    /// Who was cut off for long is forgotten, and never knew: it goes on where it was.
    #[test]
    fn nothing_arrives_twice_or_in_pieces_where_one_forgets_the_other_now_and_then() {
        let mut lost = 0;
        for seed in 0..200 {
            let mut two = Two::new(seed);
            two.lost = [0, 30, 100][seed as usize % 3];
            for i in 0..60u64 {
                let size = [0, 10, 300, 20_000, 150_000][two.rng.index(5)];
                let mut data = vec![i as u8; size];
                data.extend_from_slice(&i.to_le_bytes());
                let topic = format!("t{}", two.rng.below(3));
                assert!(two.push(0, message(&topic, &data, Some(i))));
                let pause = Duration::from_micros(two.rng.below(8_000));
                two.run(pause);
                if two.rng.chance(1, 12) {
                    two.lanes[1].forget(run(0));
                }
            }
            two.run(LONG);
            let mut heard: BTreeMap<String, Vec<u64>> = BTreeMap::new();
            for Arrived { body, .. } in &two.got[1] {
                let (fill, number) = body.data().split_at(body.data().len() - 8);
                let i = u64::from_le_bytes(number.try_into().unwrap());
                assert!(fill.iter().all(|&b| b == i as u8), "seed {seed}: {i} is broken");
                heard.entry(body.topic().into()).or_default().push(i);
            }
            assert!(heard.values().all(|numbers| numbers.is_sorted_by(|a, b| a < b)), "seed {seed}: {heard:?}");
            two.receipts.sort_unstable();
            assert_eq!(two.receipts.len(), 60, "seed {seed}: one receipt for each");
            for (i, &(id, status)) in two.receipts.iter().enumerate() {
                lost += u32::from(status != 0);
                let arrived = heard.values().any(|numbers| numbers.contains(&id));
                assert_eq!((id, arrived), (i as u64, status == 0), "seed {seed}: status {status}");
            }
        }
        assert_eq!(lost, 0, "nor is anything lost");
    }

    #[test]
    fn one_small_message_goes_by_datagram_and_what_follows_it_takes_it_along() {
        let mut two = Two::new(1);
        two.lost = 100;
        assert!(two.push(0, message("", b"first", None)));
        assert_eq!(two.sent_by, [Via::Datagram]);
        assert!(two.push(0, message("", b"second", None)));
        assert_eq!(two.sent_by, [Via::Datagram, Via::Stream]);
        two.run(Duration::from_millis(90));
        assert_eq!(two.data(1), ["first", "second"], "long before anything is sent again for want of an answer");
    }

    #[test]
    fn a_small_message_overtakes_a_large_one_of_another_topic_only() {
        let mut two = Two::new(1);
        two.push(0, message("a", &[7; 1 << 20], None));
        two.push(0, message("a", b"after the large one", None));
        two.push(0, message("b", b"small", None));
        two.run(LONG);
        let order: Vec<(&str, usize)> = two.got[1].iter().map(|a| (a.body.topic(), a.body.data().len())).collect();
        assert_eq!(order, [("b", 5), ("a", 1 << 20), ("a", 19)]);
    }

    #[test]
    fn a_full_queue_refuses_and_an_empty_one_takes_anything() {
        let mut two = Two::new(1);
        two.config.send_queue = 100_000;
        assert!(two.push(0, message("", &[0; 300_000], None)));
        assert!(!two.push(0, message("", b"x", None)));
        assert!(two.push(0, message("another topic", b"x", None)), "beside it");
        two.run(LONG);
        assert!(two.push(0, message("", b"x", None)));
    }

    #[test]
    fn nothing_is_sent_that_there_is_no_room_for() {
        let mut two = Two::new(1);
        two.room = [0; 2];
        for i in 0..200u32 {
            two.push(0, message("", &[i as u8; 1000], None));
        }
        two.run(Duration::from_secs(20));
        let before = two.got[1].len();
        assert!((1..120).contains(&before), "the first room, and then one at a time to ask for more: {before}");
        assert!(!two.fates.contains(&Fate::Refused));
        two.room = [two.config.lane_window as u64; 2];
        let room = two.room[1];
        two.at(1, |lanes, cx, _| lanes.on_room(cx, room));
        two.run(Duration::from_secs(2));
        assert_eq!(two.got[1].len(), 200, "as soon as it is told of room");
    }

    #[test]
    fn what_is_larger_than_a_message_may_be_is_counted_through() {
        let mut two = Two::new(1);
        two.push(0, message("", &[0; 100_000], None));
        two.push(0, message("", b"next", None));
        two.config.max_message = 50_000;
        two.run(LONG);
        assert_eq!(two.data(1), ["next"]);
    }

    #[test]
    fn who_is_gone_has_not_received() {
        let mut two = Two::new(1);
        two.push(0, message("", b"x", Some(5)));
        let mut out = Outbox::new(1400);
        two.lanes[0].fail(run(1), Code::Unreachable, &mut out);
        assert_eq!(out.completions, [Completion::Received { id: 5, status: Code::Unreachable as i32 }]);
        assert_eq!((two.lanes[0].deadline(), two.lanes[0].waiting(run(1))), (None, 0));
        // And what is sent when it is back is not taken for what it has had.
        two.wire.clear();
        two.push(0, message("", b"y", None));
        two.run(LONG);
        assert_eq!(two.data(1), ["y"]);
    }

    /// Seed 600044 of the swarm.
    #[test]
    fn what_was_under_way_to_who_was_held_for_dead_does_not_come_after_what_is_sent_next() {
        let mut two = Two::new(1);
        two.push(0, message("t", &vec![1; SMALL_MAX + 1], None));
        let late = core::mem::take(&mut two.wire);
        two.lanes[0].fail(run(1), Code::Unreachable, &mut Outbox::new(1400));
        two.push(0, message("t", b"next", None));
        two.run(LONG);
        two.wire = late;
        two.run(LONG);
        assert_eq!(two.data(1), ["next"]);
    }

    /// Seed 703537 of the swarm.
    #[test]
    fn an_old_acknowledgement_says_nothing() {
        let mut two = Two::new(1);
        for i in 0..3u8 {
            two.push(0, message("", &[b'a' + i], None));
            two.run(LONG);
        }
        two.room[1] = 0;
        two.push(0, message("", b"d", None));
        two.run(Duration::from_millis(60));
        assert_eq!(two.data(1), ["a", "b", "c", "d"]);
        two.wire.clear();
        for _ in 0..20 {
            let old = Frame::ItemAck { lane: Lane::Small, session: 1, upto: 1, room: 1 << 16 };
            let mut bytes = vec![];
            old.write(&mut bytes);
            two.hear(0, Via::Stream, &bytes);
            two.wire.clear();
            two.run(Duration::from_secs(5));
        }
        two.run(LONG);
        assert_eq!((two.data(1), two.lanes[0].waiting(run(1))), (["a", "b", "c", "d"].map(String::from).to_vec(), 0));
    }

    /// Nothing is left of what it knew, not even how far it had come.
    #[test]
    fn who_remembers_nothing_gets_what_was_under_way_whole() {
        let mut two = Two::new(1);
        two.push(0, message("a", b"small", None));
        two.run(LONG);
        two.push(0, message("b", &vec![b'x'; 10 * SMALL_MAX], Some(1)));
        two.push(0, message("c", &vec![b'y'; 2 * SMALL_MAX], Some(2)));
        while two.got[1].is_empty() || two.lanes[1].of[&run(0)].inbound[BULK].next < 5 {
            assert!(two.step(Instant::from_nanos(u64::MAX)));
        }
        two.lanes[1] = Lanes::default();
        two.run(LONG);
        assert_eq!(two.data(1), ["small".into(), "x".repeat(10 * SMALL_MAX), "y".repeat(2 * SMALL_MAX)]);
        assert_eq!(two.receipts, [(1, 0), (2, 0)]);
    }

    #[test]
    fn who_has_forgotten_us_is_written_to_anew() {
        let mut two = Two::new(1);
        two.push(0, message("", b"x", None));
        two.run(LONG);
        two.lanes[1].forget(run(0));
        two.push(0, message("", b"y", None));
        two.run(LONG);
        assert_eq!(two.data(1), ["x", "y"]);
    }
}
