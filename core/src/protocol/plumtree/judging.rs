//! Validation, for who wants it: under some topics a message waits for a verdict before it goes anywhere.
//!
//! | | until there is a verdict | after `validation_timeout` | accepted | rejected |
//! |---|---|---|---|---|
//! | pushed on | no | no, and never | at once, if it was in time | no |
//! | announced, and given to who asks | no | yes | yes | no |
//! | handed out | no | no | yes | no |
//!
//! Whatever the verdict is, the message counts as seen. What there is no room for counts as not seen: it is asked for later.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use super::window::Kept;
use super::{Cx, Plumtree};
use crate::id::RunId;
use crate::message::{ALL_TOPICS, Delivery, Verdict, WEIGHT};
use crate::time::Instant;
use crate::wire::frame::{Frame, Ihave, Way};

#[derive(Debug, Default)]
pub(super) struct Judging {
    topics: BTreeSet<String>,
    cases: BTreeMap<(RunId, u64), Case>,
    /// When those that are neither judged nor late will be late.
    due: BTreeSet<(Instant, RunId, u64)>,
    bytes: usize,
    /// What is to be judged, and was not yet said so.
    questions: Vec<Delivery>,
}

#[derive(Debug)]
struct Case {
    delivery: Delivery,
    after: u64,
    /// Until it is late: what is to be passed on, and how.
    kept: Option<(Kept, Way, Instant)>,
}

impl Judging {
    pub fn concerns(&self, topic: &str) -> bool {
        !self.topics.is_empty() && (self.topics.contains(topic) || self.topics.contains(ALL_TOPICS))
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn concerns_any_of(&self, origin: RunId) -> bool {
        self.cases.range((origin, 0)..=(origin, u64::MAX)).next().is_some()
    }

    /// The first of that origin that is offered to nobody yet.
    pub fn first_of(&self, origin: RunId) -> Option<u64> {
        let mut all = self.cases.range((origin, 0)..=(origin, u64::MAX));
        all.find(|(_, case)| case.kept.is_some()).map(|(&(_, seq), _)| seq)
    }

    /// A neighbour has it as well.
    pub fn note(&mut self, origin: RunId, seq: u64, bit: u16) {
        if let Some((kept, ..)) = self.cases.get_mut(&(origin, seq)).and_then(|case| case.kept.as_mut()) {
            kept.had |= bit;
        }
    }

    pub fn ask(&mut self, id: (RunId, u64), delivery: Delivery, kept: Kept, way: Way, until: Instant) {
        self.bytes += delivery.body.len() + WEIGHT;
        self.questions.push(delivery.clone());
        self.due.insert((until, id.0, id.1));
        self.cases.insert(id, Case { delivery, after: kept.after, kept: Some((kept, way, until)) });
    }

    fn close(&mut self, id: (RunId, u64)) -> Option<Case> {
        let case = self.cases.remove(&id)?;
        self.bytes -= case.delivery.body.len() + WEIGHT;
        if let Some((.., until)) = case.kept {
            self.due.remove(&(until, id.0, id.1));
        }
        Some(case)
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.due.first().map(|&(until, ..)| until)
    }
}

impl Plumtree {
    /// What waits for a verdict, and was not asked about before: whoever asks takes it out.
    pub fn questions(&mut self) -> &mut Vec<Delivery> {
        &mut self.judging.questions
    }

    pub fn judged_topics(&self) -> BTreeSet<String> {
        self.judging.topics.clone()
    }

    /// Only messages under these topics are judged from now on; all others that wait go on.
    pub fn judge(&mut self, cx: &mut Cx<'_>, topics: BTreeSet<String>) {
        self.judging.topics = topics;
        let judging = &self.judging;
        let free = judging.cases.iter().filter(|(_, case)| !judging.concerns(case.delivery.body.topic()));
        let free: Vec<(RunId, u64)> = free.map(|(&id, _)| id).collect();
        free.into_iter().for_each(|(run, seq)| self.on_verdict(cx, run, seq, Verdict::Accept));
    }

    /// Nothing happens where nobody asked for it, or it came before.
    pub fn on_verdict(&mut self, cx: &mut Cx<'_>, run: RunId, seq: u64, verdict: Verdict) {
        let Some(Case { delivery, after, kept }) = self.judging.close((run, seq)) else { return };
        match verdict {
            Verdict::Accept => {
                if let Some((kept, way, _)) = kept {
                    self.pass_on(cx, run, seq, way, kept);
                }
                self.hand_out(run, seq, after, delivery);
            }
            Verdict::Reject => {
                self.counts.rejected += 1;
                self.window.discard(run, seq);
                self.hold_back(run, seq, after);
            }
        }
    }

    /// Those that are late are offered to all who may not have them, and pushed to nobody.
    pub(super) fn offer_late(&mut self, cx: &mut Cx<'_>) {
        while let Some(&(until, run, seq)) = self.judging.due.first().filter(|due| due.0 <= cx.now.mono) {
            self.judging.due.remove(&(until, run, seq));
            let case = self.judging.cases.get_mut(&(run, seq));
            let Some((kept, way, _)) = case.and_then(|case| case.kept.take()) else { continue };
            self.counts.late += 1;
            let (hops, own) = (kept.hops, way.own);
            for (_, link) in self.links.iter().enumerate().filter(|(slot, _)| kept.had >> slot & 1 == 0) {
                let Some(link) = link else { continue };
                cx.out.send(link.to, &Frame::Ihave(Ihave { origin: run, first: seq, last: seq, hops, own }));
            }
            self.window.keep(cx.now.mono, run, seq, kept);
            self.window.trim(cx.now.mono, cx.config.broadcast_window, cx.config.broadcast_keep);
        }
    }
}
