//! Order, for who wants it: of one origin's broadcasts under one topic, those that were said as ordered are handed out as they
//! were said.
//!
//! Such a message names the one before it. It is passed on like any other; to the application it goes once that other one has
//! gone there, or is given up (GAP). What is held meanwhile is bounded: what there is no room for counts as not seen, and is
//! asked for again later. Nobody waits for ever, since what is missing is repaired or given up after `broadcast_keep`.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use core::ops::RangeInclusive;

use super::ready::Ready;
use super::seen::Seen;
use crate::id::RunId;
use crate::message::{Delivery, WEIGHT};

/// Topics of our own whose last ordered message is remembered. What is said in others comes after everything that was said in
/// those that had to go.
const TOPICS_MAX: usize = 1024;

/// The last ordered message that we said under each topic.
#[derive(Debug, Default)]
pub(super) struct Topics {
    last: BTreeMap<String, u64>,
    /// Of a topic that is not listed it is not after this one; 0 is none.
    others: u64,
}

impl Topics {
    /// `seq` is said under that topic. After which one?
    pub fn say(&mut self, topic: &str, seq: u64) -> u64 {
        if let Some(last) = self.last.get_mut(topic) {
            return core::mem::replace(last, seq);
        }
        if self.last.len() == TOPICS_MAX
            && let Some((&last, oldest)) = self.last.iter().map(|(topic, last)| (last, topic)).min()
        {
            let oldest = oldest.clone();
            self.last.remove(&oldest);
            self.others = self.others.max(last);
        }
        self.last.insert(topic.into(), seq);
        self.others
    }
}

/// What others said, and has to wait.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// `None`: it was rejected, and keeps its place: what comes after it comes after all that is before it.
    held: BTreeMap<(RunId, u64), Option<Delivery>>,
    /// Those that wait for something else: they are not handed out yet, either.
    blocked: BTreeSet<(RunId, u64)>,
    /// By origin: which one is waited for, and who waits.
    after: BTreeSet<(RunId, u64, u64)>,
    bytes: usize,
}

impl Order {
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether what comes after that one may be handed out.
    pub fn is_open(&self, origin: RunId, seen: &Seen, after: u64) -> bool {
        seen.contains(after) && !self.held.contains_key(&(origin, after)) && !self.blocked.contains(&(origin, after))
    }

    /// Until [`Order::unblock`] it counts as not handed out.
    pub fn block(&mut self, origin: RunId, seq: u64) {
        self.blocked.insert((origin, seq));
    }

    pub fn unblock(&mut self, origin: RunId, seq: u64) {
        self.blocked.remove(&(origin, seq));
    }

    pub fn hold(&mut self, origin: RunId, seq: u64, after: u64, delivery: Option<Delivery>) {
        self.bytes += weight(delivery.as_ref());
        self.held.insert((origin, seq), delivery);
        self.after.insert((origin, after, seq));
    }

    /// What is not held of these was handed out, or is given up: what waited for it goes now.
    pub fn release(&mut self, origin: RunId, seen: &Seen, open: RangeInclusive<u64>, ready: &mut Ready) {
        let waits = self.after.range((origin, *open.start(), 0)..=(origin, *open.end(), u64::MAX));
        let mut next: BTreeSet<(u64, u64)> = waits.map(|&(_, after, seq)| (after, seq)).collect();
        // In the order of what they wait for: so that of a chain the first comes first.
        while let Some((after, seq)) = next.pop_first() {
            if !self.is_open(origin, seen, after) {
                continue;
            }
            self.after.remove(&(origin, after, seq));
            let Some(delivery) = self.held.remove(&(origin, seq)) else { continue };
            self.bytes -= weight(delivery.as_ref());
            delivery.into_iter().for_each(|delivery| ready.push(delivery));
            let then = self.after.range((origin, seq, 0)..=(origin, seq, u64::MAX));
            next.extend(then.map(|&(_, after, seq)| (after, seq)));
        }
    }
}

fn weight(delivery: Option<&Delivery>) -> usize {
    delivery.map_or(0, |delivery| delivery.body.len()) + WEIGHT
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Epoch, NodeName};
    use crate::message::{Body, Manner};
    use crate::rng::Rng;

    fn run() -> RunId {
        RunId::new(7).unwrap()
    }

    fn delivery(seq: u64) -> Delivery {
        let from = NodeName::new("a").unwrap();
        Delivery { from, epoch: Epoch(1), run: run(), manner: Manner::Broadcast { seq }, body: Body::read("", b"x") }
    }

    #[test]
    fn in_whatever_order_they_come_they_go_as_they_were_said_and_nothing_stays() {
        for seed in 0..200 {
            let rng = &mut Rng::new(seed);
            // Three topics, some that nobody has any more, and some that are rejected.
            let mut last = [0; 3];
            let mut all: Vec<(u64, u64, usize)> = (1..=30)
                .map(|seq| {
                    let topic = rng.index(3);
                    (seq, core::mem::replace(&mut last[topic], seq), topic)
                })
                .collect();
            let (lost, rest): (Vec<u64>, Vec<u64>) = (1..=30).partition(|_| rng.chance(1, 8));
            let rejected: Vec<u64> = rest.into_iter().filter(|_| rng.chance(1, 8)).collect();
            rng.shuffle(&mut all);
            let (mut order, mut seen, mut ready) = (Order::default(), Seen::default(), Ready::default());
            for &(seq, after, _) in all.iter().filter(|(seq, ..)| !lost.contains(seq)) {
                seen.insert(seq);
                if after == 0 || order.is_open(run(), &seen, after) {
                    if !rejected.contains(&seq) {
                        ready.push(delivery(seq));
                    }
                    order.release(run(), &seen, seq..=seq, &mut ready);
                } else {
                    order.hold(run(), seq, after, (!rejected.contains(&seq)).then(|| delivery(seq)));
                }
            }
            seen.skip(30);
            order.release(run(), &seen, 0..=30, &mut ready);
            let went: Vec<u64> = core::iter::from_fn(|| ready.next(usize::MAX))
                .map(|delivery| match delivery.manner {
                    Manner::Broadcast { seq } => seq,
                    _ => unreachable!(),
                })
                .collect();
            assert_eq!((went.len(), order.bytes()), (30 - lost.len() - rejected.len(), 0), "seed {seed}");
            for topic in 0..3 {
                let of_it = |seq: &&u64| all.iter().any(|&(s, _, t)| (s, t) == (**seq, topic));
                assert!(went.iter().filter(of_it).is_sorted(), "seed {seed}, topic {topic}: {went:?}");
            }
        }
    }

    #[test]
    fn a_topic_that_was_forgotten_comes_after_all_that_was_said_in_it() {
        let mut topics = Topics::default();
        assert_eq!((topics.say("a", 1), topics.say("b", 2), topics.say("a", 3)), (0, 0, 1));
        for i in 0..TOPICS_MAX as u64 {
            topics.say(&alloc::format!("{i}"), 10 + i);
        }
        assert!(topics.say("b", 5_000) >= 2 && topics.say("a", 5_001) >= 3);
        assert_eq!(topics.say("b", 5_002), 5_000);
    }
}
