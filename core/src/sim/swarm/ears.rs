//! What was broadcast, and who heard it: once, as it was said; and in the end all of it, or a GAP.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::id::RunId;
use crate::message::Manner;
use crate::sim::{NodeIndex, World};
use crate::time::{Duration, Instant};
use crate::view::EventKind;

#[derive(Default)]
pub(super) struct Ears {
    /// By origin and sequence: when, by whom, and how many bytes.
    said: BTreeMap<(RunId, u64), (Instant, NodeIndex, usize)>,
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

    pub fn say(&mut self, world: &mut World, i: NodeIndex, bytes: usize) {
        let data = alloc::vec![self.said.len() as u8; bytes];
        if let Ok(seq) = world.broadcast(i, "swarm", &data) {
            self.said.insert((world.run_id(i), seq), (world.now().mono, i, bytes));
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
        let run = world.run_id(i);
        self.began.entry(run).or_insert(world.now().mono);
        let mut wrong = self.wrong.take();
        let (messages, events) = self.read[i];
        for (_, message) in &world.messages(i)[messages..] {
            let Manner::Broadcast { seq } = message.manner else { continue };
            let (from, len) = (&message.from, message.body.data().len());
            match self.said.get(&(message.run, seq)) {
                Some(&(_, by, bytes)) if *world.name(by) == *from && bytes == len => {}
                _ => wrong = Some(format!("hears {seq} of {from}, {len} bytes, which was not said like that")),
            }
            if !self.heard.insert((run, message.run, seq)) {
                wrong = Some(format!("hears {seq} of {from} twice"));
            }
        }
        for (_, event) in &world.events(i)[events..] {
            let Some(member) = event.member.as_ref().filter(|_| event.kind == EventKind::Gap) else { continue };
            let last = event.text.as_ref().and_then(|text| text.rsplit(' ').next()?.parse().ok());
            self.gaps.entry((run, member.run)).or_default().push((event.id, last.unwrap_or(event.id)));
        }
        self.read[i] = (world.messages(i).len(), world.events(i).len());
        wrong
    }

    /// What one of `core` was not told of another, though it was there when it was said, and no GAP said so.
    pub fn missed(&self, world: &World, core: &[NodeIndex], clocks_are_wrong: bool) -> Option<(NodeIndex, String)> {
        let now = world.now().mono;
        for (&(origin, seq), &(at, by, _)) in &self.said {
            if !core.contains(&by) || world.run_id(by) != origin {
                continue;
            }
            // Its age is what those who kept it thought; with clocks that are fast it seems to be older.
            let doubt = if clocks_are_wrong { now.since(at) / 8 } else { Duration::ZERO };
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
