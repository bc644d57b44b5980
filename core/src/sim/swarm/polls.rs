//! Questions to many: who was told them, and what came of them.
//!
//! A question is told to a run at most once, as it was asked, and to nobody whom it names others for. An answer is of a run that
//! was told, as that one gave it, and counts once; so does an acknowledgement. A question ends once, with a count of what came,
//! and nothing comes afterwards. Nobody waits for ever.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::engine::Question;
use crate::id::{NodeName, RunId};
use crate::message::{Body, Gathered, Manner};
use crate::outbox::Completion;
use crate::sim::{NodeIndex, World};
use crate::time::Duration;

/// What is asked, and of whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Poll {
    pub len: usize,
    /// Milliseconds; of 0 the usual time.
    pub patience: u64,
    pub relay: usize,
    pub acks: bool,
    pub loopback: bool,
    pub of: Of,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    All,
    /// Every third member.
    Some,
    /// Who has this key of metadata.
    Holders(usize),
}

#[derive(Default)]
pub(super) struct Polls {
    asked: BTreeMap<(RunId, u64), Asked>,
    /// What each node was told, and has heard of its questions, as far as it was read.
    read: Vec<(Option<RunId>, usize, usize)>,
}

struct Asked {
    body: Body,
    names: Vec<String>,
    told: BTreeMap<RunId, NodeName>,
    answered: BTreeSet<RunId>,
    /// Two runs may have one name, for a while.
    heard: Vec<NodeName>,
    ended: bool,
}

impl Polls {
    pub fn is_used(&self) -> bool {
        !self.asked.is_empty()
    }

    pub fn ask(&mut self, world: &mut World, i: NodeIndex, poll: Poll) {
        let names: Vec<String> = match poll.of {
            Of::Some => (0..world.len()).step_by(3).map(|i| world.name(i).to_string()).collect(),
            Of::All | Of::Holders(_) => Vec::new(),
        };
        let key = if let Of::Holders(key) = poll.of { format!("k{key}") } else { String::new() };
        let (names_of, tags) = (names.iter().map(|n| &**n).collect::<Vec<_>>(), [&*key]);
        let data = alloc::vec![self.asked.len() as u8; poll.len];
        let question = Question {
            topic: "poll",
            data: &data,
            names: &names_of,
            tags: if key.is_empty() { &[] } else { &tags },
            timeout: (poll.patience > 0).then(|| Duration::from_millis(poll.patience)),
            relay: poll.relay,
            acks: poll.acks,
            loopback: poll.loopback,
        };
        let body = Body::new("poll", &data).expect("a valid topic");
        if let Ok(id) = world.call(i, |engine, now, out| engine.query(now, &question, out)) {
            let (told, answered, heard) = Default::default();
            let asked = Asked { body, names, told, answered, heard, ended: false };
            self.asked.insert((world.run_id(i), id), asked);
        }
    }

    /// What `i` was told, and what it heard of its own.
    pub fn look(&mut self, world: &World, i: NodeIndex) -> Result<(), String> {
        let me = world.run_id(i);
        if self.read.len() <= i {
            self.read.resize(i + 1, (None, 0, 0));
        }
        if self.read[i].0 != Some(me) {
            (self.read[i].0, self.read[i].2) = (Some(me), 0);
        }
        let (_, messages, completions) = self.read[i];
        (self.read[i].1, self.read[i].2) = (world.messages(i).len(), world.completions(i).len());
        for (_, message) in &world.messages(i)[messages..] {
            let Manner::Query(query) = message.manner else { continue };
            let asked = self
                .asked
                .get_mut(&(message.run, query.id))
                .filter(|asked| asked.body.data() == message.body.data() && asked.body.topic() == message.body.topic());
            let asked = asked.ok_or(format!("is asked {} by {}, who did not ask that", query.id, message.from))?;
            if !asked.names.is_empty() && !asked.names.iter().any(|name| **name == **world.name(i)) {
                return Err(format!("is asked {} by {}, who asks others", query.id, message.from));
            }
            if asked.told.insert(me, world.name(i).clone()).is_some() {
                return Err(format!("is asked {} by {} twice", query.id, message.from));
            }
        }
        for completion in &world.completions(i)[completions..] {
            self.hear(me, completion)?;
        }
        Ok(())
    }

    fn hear(&mut self, me: RunId, completion: &Completion) -> Result<(), String> {
        let (Completion::Answered { id, .. } | Completion::Heard { id, .. } | Completion::Gathered { id, .. }) =
            completion
        else {
            return Ok(());
        };
        let asked = self.asked.get_mut(&(me, *id)).filter(|asked| !asked.ended);
        let asked = asked.ok_or(format!("hears of question {id}, which has ended or never was"))?;
        match completion {
            Completion::Answered { answer, .. } => {
                let by = &answer.from;
                if !asked.told.contains_key(&answer.run) {
                    return Err(format!("{by} answers question {id} without having heard it"));
                }
                if answer.said.as_ref().is_ok_and(|said| said.data() != asked.body.data()) {
                    return Err(format!("{by} answers question {id} otherwise than it did"));
                }
                if !asked.answered.insert(answer.run) {
                    return Err(format!("{by} answers question {id} twice"));
                }
            }
            Completion::Heard { by, .. } => {
                asked.heard.push(by.clone());
                let heard = asked.heard.iter().filter(|name| *name == by).count();
                if heard > asked.told.values().filter(|name| *name == by).count() {
                    return Err(format!("{by} has heard question {id} twice"));
                }
            }
            Completion::Gathered { gathered, .. } => {
                asked.ended = true;
                let &Gathered { answered, heard, gone, why, asked: of } = gathered;
                if (answered, heard) != (asked.answered.len(), asked.heard.len())
                    || why.is_none() && answered + gone < of
                {
                    return Err(format!("question {id} ends with {gathered:?}, {} came", asked.answered.len()));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// What `i` still waits for.
    pub fn waits(&self, world: &World, i: NodeIndex) -> Option<String> {
        let me = world.run_id(i);
        let mut open = self.asked.range((me, 0)..=(me, u64::MAX)).filter(|(_, asked)| !asked.ended);
        open.next().map(|((_, id), _)| format!("waits for answers to question {id}"))
    }
}
