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
//!
//! Here are all lanes, and the pair of them to each member; one lane as it goes out, and as it comes in, has a file of its own.

mod inbound;
mod out;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use self::inbound::{Held, In};
use self::out::Out;
use super::Cx;
use crate::config::Config;
use crate::error::Code;
use crate::id::RunId;
use crate::members::Members;
use crate::message::{Body, WEIGHT};
use crate::outbox::{Completion, Destination, Outbox, Via};
use crate::time::Instant;
use crate::wire::frame::{Frame, Item, ItemKind, Lane};

/// A larger message goes by the bulk lane, in parts of this size.
pub const SMALL_MAX: usize = 16 << 10;

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
            Pair { theirs: session, inbound: next.map(In::from), ..Pair::default() }
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

#[cfg(test)]
mod tests;
