//! What was broadcast, and who heard it: once, as it was said, and in order where that was wanted; and in the end all of it, or a
//! GAP.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::id::RunId;
use crate::message::{Delivery, Manner, ToAll, Verdict};
use crate::sim::{Judges, NodeIndex, World};
use crate::time::{Duration, Instant};
use crate::view::EventKind;

/// How something is said to all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    Plain,
    /// In order, under one of two topics.
    Ordered(usize),
    /// Every application judges it first.
    Judged,
    JudgedInOrder,
}

impl Tone {
    fn topic(self) -> &'static str {
        match self {
            Tone::Plain => "swarm",
            Tone::Ordered(0) => "a",
            Tone::Ordered(_) => "b",
            Tone::Judged => "j",
            Tone::JudgedInOrder => "k",
        }
    }

    fn is_ordered(self) -> bool {
        matches!(self, Tone::Ordered(_) | Tone::JudgedInOrder)
    }

    fn is_judged(self) -> bool {
        matches!(self, Tone::Judged | Tone::JudgedInOrder)
    }
}

/// All applications think the same, and some take long to.
pub(super) fn judges() -> Judges {
    let verdict = |question: &Delivery| {
        let Manner::Broadcast { seq } = question.manner else { return None };
        let after = Duration::from_millis(if seq % 7 == 1 { 3_000 } else { seq % 4 * 20 });
        Some((if is_bad(seq) { Verdict::Reject } else { Verdict::Accept }, after))
    };
    Judges { topics: [Tone::Judged, Tone::JudgedInOrder].map(|tone| tone.topic().into()).into(), verdict }
}

fn is_bad(seq: u64) -> bool {
    seq % 5 == 2
}

impl Said {
    fn is_bad(&self, seq: u64) -> bool {
        self.tone.is_judged() && is_bad(seq)
    }
}

struct Said {
    at: Instant,
    by: NodeIndex,
    bytes: usize,
    tone: Tone,
    /// Where order is wanted: the one of its topic before it.
    after: Option<u64>,
}

#[derive(Default)]
pub(super) struct Ears {
    /// By origin and sequence.
    said: BTreeMap<(RunId, u64), Said>,
    /// The last that was said in order, by origin and topic.
    last: BTreeMap<(RunId, &'static str), u64>,
    /// By listener, origin and sequence.
    heard: BTreeSet<(RunId, RunId, u64)>,
    /// By listener and origin: first and last.
    gaps: BTreeMap<(RunId, RunId), Vec<(u64, u64)>>,
    /// When each run began, as far as we looked.
    began: BTreeMap<RunId, Instant>,
    /// Messages and events read, by node.
    read: Vec<(usize, usize)>,
    /// Found while a node was stopped.
    wrong: Option<String>,
}

impl Ears {
    pub fn is_used(&self) -> bool {
        !self.said.is_empty()
    }

    pub fn say(&mut self, world: &mut World, by: NodeIndex, bytes: usize, tone: Tone) {
        let data = alloc::vec![self.said.len() as u8; bytes];
        let (run, ordered) = (world.run_id(by), tone.is_ordered());
        if let Ok(seq) = world.say(by, tone.topic(), &data, ToAll { ordered, ..ToAll::default() }) {
            let after = ordered.then(|| self.last.insert((run, tone.topic()), seq)).flatten();
            self.said.insert((run, seq), Said { at: world.now().mono, by, bytes, tone, after });
        }
    }

    pub fn stop(&mut self, world: &World, i: NodeIndex) {
        let wrong = self.listen(world, i);
        self.wrong = self.wrong.take().or(wrong);
    }

    /// Reads what `i` was told since. What is wrong with it?
    pub fn listen(&mut self, world: &World, i: NodeIndex) -> Option<String> {
        while self.read.len() <= i {
            self.read.push((0, 0));
        }
        let (run, now) = (world.run_id(i), world.now().mono);
        self.began.entry(run).or_insert(now);
        let mut wrong = self.wrong.take();
        let (messages, events) = self.read[i];
        for (_, event) in &world.events(i)[events..] {
            let Some(text) = event.text.as_ref().filter(|_| event.kind == EventKind::Gap) else { continue };
            let last = text.rsplit(' ').next().and_then(|last| last.parse().ok()).unwrap_or(event.id);
            // With `membership = partial` it is known by its name only, or its run.
            let name = text.split(' ').next().unwrap_or("");
            let is_it = |run: RunId, by: NodeIndex| **world.name(by) == *name || format!("{run:?}") == name;
            let runs = self.said.iter().filter(|(id, said)| is_it(id.0, said.by)).map(|(id, _)| id.0);
            let runs: BTreeSet<RunId> = match &event.member {
                Some(member) => BTreeSet::from([member.run]),
                None => runs.collect(),
            };
            runs.into_iter().for_each(|of| self.gaps.entry((run, of)).or_default().push((event.id, last)));
        }
        for (_, message) in &world.messages(i)[messages..] {
            let Manner::Broadcast { seq } = message.manner else { continue };
            let (from, body) = (&message.from, &message.body);
            let said = self.said.get(&(message.run, seq)).filter(|said| {
                let as_it_was = (said.bytes, said.tone.topic()) == (body.data().len(), body.topic());
                as_it_was && *world.name(said.by) == *from
            });
            if said.is_none() {
                wrong = Some(format!("hears {seq} of {from}, {} bytes, which was not said like that", body.len()));
            }
            if said.is_some_and(|said| said.is_bad(seq)) {
                wrong = Some(format!("hears {seq} of {from}, which it rejected"));
            }
            let after =
                said.and_then(|said| said.after).filter(|&after| !self.is_settled(now, run, message.run, after));
            if let Some(after) = after {
                wrong = Some(format!("hears {seq} of {from}, which comes after {after}, and that is still to come"));
            }
            if !self.heard.insert((run, message.run, seq)) {
                wrong = Some(format!("hears {seq} of {from} twice"));
            }
        }
        self.read[i] = (world.messages(i).len(), world.events(i).len());
        wrong
    }

    /// Heard, or lost; or it was said before that run was there, as far as can be told.
    fn is_settled(&self, now: Instant, run: RunId, origin: RunId, seq: u64) -> bool {
        let mut gaps = self.gaps.get(&(run, origin)).into_iter().flatten();
        // How old it is, is what those who kept it thought.
        let (at, doubt) = (self.said[&(origin, seq)].at, now.since(self.said[&(origin, seq)].at) / 8);
        let was_there = self.began.get(&run).is_some_and(|&began| began + doubt < at);
        self.heard.contains(&(run, origin, seq))
            || self.said[&(origin, seq)].is_bad(seq)
            || gaps.any(|&(first, last)| (first..=last).contains(&seq))
            || !was_there
    }

    /// What one of `core` was not told of another, though it was there when it was said, and no GAP said so.
    pub fn missed(&self, world: &World, core: &[NodeIndex], clocks_are_wrong: bool) -> Option<(NodeIndex, String)> {
        let now = world.now().mono;
        for (&(origin, seq), said) in &self.said {
            let (&Said { at, by, .. }, is_bad) = (said, said.is_bad(seq));
            if !core.contains(&by) || world.run_id(by) != origin {
                continue;
            }
            // Its age is what those who kept it thought; with clocks that are fast it seems to be older.
            let doubt = if clocks_are_wrong { now.since(at) / 8 } else { Duration::ZERO };
            if is_bad {
                continue;
            }
            for &i in core.iter().filter(|&&i| i != by) {
                let run = world.run_id(i);
                let was_there = self.began.get(&run).is_some_and(|&began| began + doubt < at);
                let mut gaps = self.gaps.get(&(run, origin)).into_iter().flatten();
                let is_said = gaps.any(|&(first, last)| (first..=last).contains(&seq));
                if was_there && !is_said && !self.heard.contains(&(run, origin, seq)) {
                    return Some((i, format!("misses broadcast {seq} of {} and does not say so", world.name(by))));
                }
            }
        }
        None
    }
}
