//! What applications of the swarm say to each other, and what must hold of it.
//!
//! Every message carries its number, and numbers only grow. What goes by lane arrives once, and under each topic in the
//! order of the numbers, with holes where the one counted as dead for the other; what goes by datagram may be lost and
//! come twice. A receipt says that a message has arrived, or will not; a request ends with what was asked, or without.
//! Where all are well again, neither is still waited for.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::engine::Sending;
use crate::id::RunId;
use crate::message::{Body, Delivery, Manner};
use crate::outbox::Completion;
use crate::sim::{NodeIndex, World};
use crate::time::Duration;

/// How something is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Send(Sending),
    /// And who waits for the answer gives up after so many milliseconds.
    Request(u64),
}

const TOPICS: [&str; 3] = ["", "a", "b"];

#[derive(Default)]
pub(super) struct Mail {
    numbers: u64,
    sent: BTreeMap<u64, Said>,
    /// The latest that was handed out in order, by sender, receiver and topic.
    latest: BTreeMap<(RunId, RunId, usize), u64>,
    /// What its sender waits for.
    receipts: BTreeMap<(RunId, u64), u64>,
    requests: BTreeMap<(RunId, u64), u64>,
    /// By node.
    read: Vec<Read>,
}

/// How much was read of what a node was told: of its completions those of its present run.
#[derive(Clone, Copy, Default)]
struct Read {
    run: Option<RunId>,
    messages: usize,
    completions: usize,
}

struct Said {
    by: RunId,
    body: Body,
    /// In order, by whom.
    arrived: BTreeSet<RunId>,
}

impl Mail {
    pub fn say(&mut self, world: &mut World, from: NodeIndex, to: NodeIndex, how: How, len: usize) {
        self.numbers += 1;
        let (number, by, name) = (self.numbers, world.run_id(from), world.name(to).clone());
        let mut data = number.to_le_bytes().to_vec();
        data.resize(8 + len, number as u8);
        let body = Body::new(topic(number), &data).expect("a valid topic");
        self.sent.insert(number, Said { by, body: body.clone(), arrived: BTreeSet::new() });
        match how {
            How::Send(how) => {
                let sent = world.call(from, |e, now, out| e.send(now, &name, body, how, out));
                if let Ok(Some(receipt)) = sent {
                    self.receipts.insert((by, receipt), number);
                }
            }
            How::Request(ms) => {
                let patience = Some(Duration::from_millis(ms));
                if let Ok(id) = world.call(from, |e, now, out| e.request(now, &name, body, patience, out)) {
                    self.requests.insert((by, id), number);
                }
            }
        }
    }

    /// What `i` was handed out, and what ended for it.
    pub fn look(&mut self, world: &World, i: NodeIndex) -> Result<(), String> {
        let me = world.run_id(i);
        if self.read.len() <= i {
            self.read.resize(i + 1, Read::default());
        }
        if self.read[i].run != Some(me) {
            (self.read[i].run, self.read[i].completions) = (Some(me), 0);
        }
        let Read { messages, completions, .. } = self.read[i];
        (self.read[i].messages, self.read[i].completions) = (world.messages(i).len(), world.completions(i).len());
        for (_, message) in &world.messages(i)[messages..] {
            if !matches!(message.manner, Manner::Broadcast { .. } | Manner::Query(_)) {
                self.take(me, message)?;
            }
        }
        for completion in &world.completions(i)[completions..] {
            match completion {
                Completion::Received { id, status } => {
                    let number =
                        self.receipts.remove(&(me, *id)).ok_or(format!("receipt {id} ends, and did before"))?;
                    if *status == 0 && self.sent[&number].arrived.is_empty() {
                        return Err(format!("a receipt for message {number}, which has not arrived"));
                    }
                }
                Completion::Replied { id, answer } => {
                    let number =
                        self.requests.remove(&(me, *id)).ok_or(format!("request {id} ends, and did before"))?;
                    if answer.as_ref().is_ok_and(|answer| answer.data() != self.sent[&number].body.data()) {
                        return Err(format!("another answer to request {number} than was given"));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn take(&mut self, me: RunId, message: &Delivery) -> Result<(), String> {
        let data = message.body.data();
        let number = data.first_chunk().map_or(0, |number| u64::from_le_bytes(*number));
        let said = self.sent.get_mut(&number).filter(|said| said.by == message.run && said.body == message.body);
        let said = said.ok_or(format!("a message that nobody sent: {:?} by {:?}", message.body, message.run))?;
        if message.manner == Manner::BestEffort {
            return Ok(());
        }
        if !said.arrived.insert(me) {
            return Err(format!("message {number} for the second time"));
        }
        let latest = self.latest.entry((message.run, me, number as usize % TOPICS.len())).or_default();
        if number < *latest {
            return Err(format!("message {number} after message {latest}, under the topic {:?}", topic(number)));
        }
        *latest = number;
        Ok(())
    }

    /// What `i` still waits for.
    pub fn waits(&self, world: &World, i: NodeIndex) -> Option<String> {
        let of = |waiting: &BTreeMap<(RunId, u64), u64>| {
            let me = world.run_id(i);
            waiting.range((me, 0)..=(me, u64::MAX)).next().map(|(_, number)| *number)
        };
        let receipt = of(&self.receipts).map(|number| format!("waits for a receipt of message {number}"));
        receipt.or_else(|| of(&self.requests).map(|number| format!("waits for an answer to request {number}")))
    }
}

fn topic(number: u64) -> &'static str {
    TOPICS[number as usize % TOPICS.len()]
}
