//! Questions to all, or to those that match: asking, being asked, and passing answers on.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::vec::Vec;

use super::mutant::Mutant;
use super::{Engine, cx};
use crate::config::Membership;
use crate::error::{Code, Error, Result};
use crate::id::{NodeName, RunId};
use crate::members::Entry;
use crate::message::{Answer, Body, Delivery, Gathered, Manner, Query, ToAll};
use crate::outbox::{Completion, Destination, Outbox};
use crate::protocol::Cx;
use crate::protocol::lane::Letter;
use crate::protocol::query::Word;
use crate::time::{Duration, Now};
use crate::wire::frame::ItemKind;
use crate::wire::question::{AROUND_ANSWER, COPIES_MAX, Relayed, TERMS_MAX, Terms, Texts, is_tag};

/// What to ask, and whom. [`Question::default`] asks all others, and waits for the usual time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Question<'a> {
    pub topic: &'a str,
    pub data: &'a [u8],
    /// Only these members; empty: all.
    pub names: &'a [&'a str],
    /// Of them only those with all of this metadata: `key`, or `key=value`.
    pub tags: &'a [&'a str],
    /// How long answers are gathered; `None`: [`Engine::query_timeout`].
    pub timeout: Option<Duration>,
    /// Members through which each answer comes once more, against links that are lame in one direction: 0 to 8.
    pub relay: usize,
    /// Who has heard it is to say so, whether it answers or not.
    pub acks: bool,
    /// This node is asked, too, where it matches.
    pub loopback: bool,
}

/// What an answer says: the bytes, or why there are none.
pub type Said<'a> = core::result::Result<&'a [u8], (Code, &'a str)>;

impl Engine {
    /// Asks. The number is that of the [`Completion::Answered`] and [`Completion::Heard`] that follow, and of the
    /// [`Completion::Gathered`] that ends them: when all who match in our table have answered or are gone, or after the timeout.
    ///
    /// Refuses as `broadcast` does; `E_STATE` with `membership = partial`; `E_INVALID` for what is no name or no tag, and for more copies than there may be; `E_TOO_BIG` for names
    /// and tags of more than 16 KiB; `E_LIMIT` where `max_queries` wait. Nothing is said then.
    pub fn query(&mut self, now: Now, question: &Question<'_>, out: &mut Outbox) -> Result<u64> {
        self.must_be_member()?;
        if self.config.membership == Membership::Partial {
            let text = "a question to many wants to know them all: membership = full; nothing was sent";
            return Err(Error::new(Code::State, text));
        }
        if self.queries.len() >= self.config.max_queries {
            let text = format!("{} questions gather answers (max_queries); nothing was sent", self.queries.len());
            return Err(Error::new(Code::Limit, text));
        }
        let timeout = question.timeout.unwrap_or_else(|| self.query_timeout());
        let id = self.requests.number();
        let body = put(question, id, timeout)?;
        let me = self.members.local().run;
        let terms = terms_of(&body);
        let asked: BTreeSet<RunId> = self
            .members
            .iter()
            .map(|(_, entry)| entry)
            .filter(|e| e.is_live() && (e.run != me || question.loopback) && is_meant(&terms, e))
            .map(|e| e.run)
            .collect();
        let includes_us = asked.contains(&me);
        if asked.len() > usize::from(includes_us) {
            self.broadcast(now, body.clone(), ToAll::default(), out)?;
        }
        self.counters.queries += 1;
        let until = now.mono + timeout;
        self.queries.ask(id, body.clone(), until, asked);
        if includes_us {
            let (from, epoch) = (self.members.local().name.clone(), self.members.local().epoch);
            let manner = Manner::Query(terms_of(&body).query(now.mono));
            self.hear_question(now, Delivery { from, epoch, run: me, manner, body }, out);
        }
        self.end_if_complete(id, out);
        Ok(id)
    }

    /// How long answers are gathered where the asker does not say: Serf's gossip interval × multiplier × ⌈log10(n + 1)⌉.
    pub fn query_timeout(&self) -> Duration {
        let digits = self.members.live_len().max(1).ilog10() + 1;
        self.config.gossip_interval * (self.config.query_timeout_mult as u32) * digits
    }

    /// Answers a question to many that `run` asked. `E_TIMEOUT` where its time is over, `E_TOO_BIG` beyond `query_answer_max`, `E_UNREACHABLE`
    /// where the asker is gone, `E_BUSY` as in `send`.
    pub fn answer_query(&mut self, now: Now, run: RunId, query: Query, said: Said<'_>, out: &mut Outbox) -> Result<()> {
        self.must_be_member()?;
        self.give_answer(now, run, query, said, out)?;
        self.finish(now, out);
        Ok(())
    }

    fn give_answer(&mut self, now: Now, run: RunId, query: Query, said: Said<'_>, out: &mut Outbox) -> Result<()> {
        if query.until <= now.mono {
            return Err(Error::new(Code::Timeout, "who asked does not wait any more; nothing was sent"));
        }
        let (status, data) = match said {
            Ok(data) => (0, data),
            Err((code, text)) => ((code as i32).unsigned_abs(), text.as_bytes()),
        };
        if data.len() > self.config.query_answer_max {
            let text = format!(
                "an answer of {} bytes, query_answer_max is {}; nothing was sent",
                data.len(),
                self.config.query_answer_max
            );
            return Err(Error::new(Code::TooBig, text));
        }
        let body = Body::read("", data);
        if run == self.members.local().run {
            self.on_answer(run, query.id, status, body, out);
            return Ok(());
        }
        let gone = || Error::new(Code::Unreachable, "who asked is dead or has left");
        let to = self.members.find(run).and_then(|peer| self.members.get(peer)).filter(|e| e.is_live());
        let to = to.ok_or_else(gone)?.to();
        let letter = Letter { kind: ItemKind::ANSWER, id: query.id, status, body, receipt: None };
        self.post(now, to, letter.clone(), out)?;
        self.send_copies(now, run, query.relay, &letter, out);
        Ok(())
    }

    /// The same by way of others, drawn by lot: who does not hear us may hear them.
    fn send_copies(&mut self, now: Now, to: RunId, copies: u32, letter: &Letter, out: &mut Outbox) {
        if copies == 0 {
            return;
        }
        let mut data = Vec::with_capacity(AROUND_ANSWER + letter.body.len());
        Relayed { to, by: self.members.local().run, kind: letter.kind, data: letter.body.data() }.write(&mut data);
        let copy = Letter { kind: ItemKind::RELAY, body: Body::read("", &data), ..letter.clone() };
        let mut relays = [None; COPIES_MAX as usize];
        let mut n = 0;
        self.members.draw(
            &mut self.rng,
            copies as usize,
            |e| e.run == to,
            |_, e| {
                relays[n] = Some(e.to());
                n += 1;
            },
        );
        for relay in relays.into_iter().flatten() {
            self.slip(now, relay, copy.clone(), out);
        }
    }

    /// Sends what nobody in the application waits for; where there is no room for it, it is counted and not sent.
    fn slip(&mut self, now: Now, to: Destination, letter: Letter, out: &mut Outbox) -> bool {
        let room = self.room();
        let has_room = self.lanes.push(cx!(self, now, out), to, letter, room);
        self.counters.answers_unsent += u64::from(!has_room);
        has_room
    }

    // --- what comes ---

    /// A question is for some, and for a while.
    pub(super) fn hear_question(&mut self, now: Now, said: Delivery, out: &mut Outbox) {
        let (Ok(terms), Manner::Query(query)) = (Terms::read(said.body.terms()), said.manner) else {
            out.messages.push(said);
            return;
        };
        if query.until <= now.mono {
            self.counters.queries_late += 1;
            return;
        }
        if !is_meant(&terms, self.members.local()) {
            self.counters.queries_unmatched += 1;
            return;
        }
        if terms.acks {
            self.acknowledge(now, said.run, query, out);
        }
        if self.backlog >= self.config.inbox_bytes {
            // A flood costs its askers their answers, not us our memory.
            self.counters.queries_refused += 1;
            let no = Err((Code::Busy, "its application is behind (inbox_bytes)"));
            let _ = self.give_answer(now, said.run, query, no, out);
            return;
        }
        self.counters.queries_in += 1;
        self.backlog += said.weight().direct;
        out.messages.push(said);
    }

    fn acknowledge(&mut self, now: Now, run: RunId, query: Query, out: &mut Outbox) {
        if run == self.members.local().run {
            self.on_heard(run, query.id, out);
            return;
        }
        let entry = self.members.find(run).and_then(|peer| self.members.get(peer)).filter(|e| e.is_live());
        let Some(to) = entry.map(Entry::to) else { return };
        let letter =
            Letter { kind: ItemKind::HEARD, id: query.id, status: 0, body: Body::read("", &[]), receipt: None };
        self.slip(now, to, letter.clone(), out);
        self.send_copies(now, run, query.relay, &letter, out);
    }

    pub(super) fn on_answer(&mut self, by: RunId, id: u64, status: u32, body: Body, out: &mut Outbox) {
        let Some((from, epoch)) = self.is_asked(by, id) else {
            self.counters.answers_unasked += 1;
            return;
        };
        if body.data().len() > self.config.query_answer_max {
            self.counters.answers_refused += 1;
            return;
        }
        match self.queries.on_answer(id, by) {
            Word::First => {}
            Word::Copy if self.is(Mutant::Credulous) => {}
            Word::Copy => {
                self.counters.answer_copies += 1;
                return;
            }
            Word::Unasked => unreachable!("it is open: its question was just looked up"),
        }
        self.counters.answers_in += 1;
        let answer = Answer { from, epoch, run: by, said: super::direct::said(status, body) };
        self.backlog += answer.weight().direct;
        out.completions.push(Completion::Answered { id, answer });
        self.end_if_complete(id, out);
    }

    pub(super) fn on_heard(&mut self, by: RunId, id: u64, out: &mut Outbox) {
        let Some((from, _)) = self.is_asked(by, id) else {
            self.counters.answers_unasked += 1;
            return;
        };
        match self.queries.on_heard(id, by) {
            Word::First => out.completions.push(Completion::Heard { id, by: from }),
            Word::Copy | Word::Unasked => self.counters.answer_copies += 1,
        }
    }

    /// An answer for somebody else, by who gives it; or for us, by whoever passes it on. It goes one step and no further, and is no larger
    /// there.
    pub(super) fn on_relay(&mut self, now: Now, from: RunId, id: u64, status: u32, body: Body, out: &mut Outbox) {
        let refused = &mut self.counters.relays_refused;
        let Ok(Relayed { to, by, kind, data }) = Relayed::read(body.data()) else {
            *refused += 1;
            return;
        };
        if to == self.members.local().run {
            match kind {
                ItemKind::ANSWER => self.on_answer(by, id, status, Body::read("", data), out),
                ItemKind::HEARD => self.on_heard(by, id, out),
                _ => *refused += 1,
            }
            return;
        }
        let entry = self.members.find(to).and_then(|peer| self.members.get(peer)).filter(|e| e.is_live());
        let entry = entry.filter(|_| by == from && data.len() <= self.config.query_answer_max);
        let Some(to) = entry.map(Entry::to) else {
            *refused += 1;
            return;
        };
        let letter = Letter { kind: ItemKind::RELAY, id, status, body, receipt: None };
        if self.slip(now, to, letter, out) {
            self.counters.answers_relayed += 1;
        }
    }

    /// A member that may answer that question: it is open, and not for others by name. Tags may have changed since.
    fn is_asked(&self, by: RunId, id: u64) -> Option<(NodeName, crate::id::Epoch)> {
        let entry = self.members.find(by).and_then(|peer| self.members.get(peer))?;
        let terms = terms_of(self.queries.question(id)?);
        is_named(&terms, entry).then(|| (entry.name.clone(), entry.epoch))
    }

    // --- how it ends ---

    fn end_if_complete(&mut self, id: u64, out: &mut Outbox) {
        if let Some(gathered) = self.queries.end_if_complete(id) {
            out.completions.push(Completion::Gathered { id, gathered });
        }
    }

    pub(super) fn query_tick(&mut self, now: Now, out: &mut Outbox) {
        while let Some((id, gathered)) = self.queries.on_deadline(now.mono) {
            self.counters.queries_timed_out += 1;
            out.completions.push(Completion::Gathered { id, gathered });
        }
    }

    pub(super) fn cancel_query(&mut self, id: u64, out: &mut Outbox) -> bool {
        let ended: Option<Gathered> = self.queries.end(id, Some(Code::Canceled));
        out.completions.extend(ended.map(|gathered| Completion::Gathered { id, gathered }));
        ended.is_some()
    }

    pub(super) fn cancel_queries(&mut self, out: &mut Outbox) {
        self.queries.ids().into_iter().for_each(|id| _ = self.cancel_query(id, out));
    }

    /// That run is over, or counts as over.
    pub(super) fn forgo_answers(&mut self, run: RunId, out: &mut Outbox) {
        self.queries.fail(run).into_iter().for_each(|id| self.end_if_complete(id, out));
    }
}

/// Of a question of ours.
fn terms_of(body: &Body) -> Terms<'_> {
    Terms::read(body.terms()).expect("we wrote it")
}

fn is_named(terms: &Terms<'_>, entry: &Entry) -> bool {
    terms.names.is_empty() || terms.names.iter().any(|name| *name == *entry.name)
}

fn is_meant(terms: &Terms<'_>, entry: &Entry) -> bool {
    is_named(terms, entry) && terms.tags.iter().all(|tag| entry.state.has(tag))
}

/// A question as it goes over the wire.
fn put(question: &Question<'_>, id: u64, timeout: Duration) -> Result<Body> {
    let invalid = |text| Err(Error::new(Code::Invalid, text));
    // Refuses what is no topic.
    let _ = Body::new(question.topic, &[])?;
    if let Some(name) = question.names.iter().find(|name| !NodeName::is_valid(name)) {
        return invalid(format!("{name:?} is no name; nothing was sent"));
    }
    if let Some(tag) = question.tags.iter().find(|tag| !is_tag(tag)) {
        return invalid(format!("tag {tag:?}: expected key or key=value; nothing was sent"));
    }
    let relay = u32::try_from(question.relay).ok().filter(|&relay| relay <= COPIES_MAX);
    let Some(relay) = relay else {
        return invalid(format!("relay is {}: expected 0 to {COPIES_MAX}; nothing was sent", question.relay));
    };
    let (mut names, mut tags, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
    question.names.iter().for_each(|name| Texts::push(&mut names, name));
    question.tags.iter().for_each(|tag| Texts::push(&mut tags, tag));
    let patience = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
    let terms = Terms { id, patience, acks: question.acks, relay, names: Texts(&names), tags: Texts(&tags) };
    terms.write(&mut bytes);
    if bytes.len() > TERMS_MAX {
        let text = format!("names and tags of {} bytes, {TERMS_MAX} are the most; nothing was sent", bytes.len());
        return Err(Error::new(Code::TooBig, text));
    }
    Ok(Body::asking(question.topic, &bytes, question.data))
}
