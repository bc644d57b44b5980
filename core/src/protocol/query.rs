//! Questions to many, whose answers are gathered for a while.
//!
//! Serf's query: the question goes to all by broadcast, each member that it is for answers its asker, and an answer may come
//! several times, straight and by way of others, where links are lame in one direction.
//!
//! | of who was asked | then |
//! |---|---|
//! | silent | waited for, until the deadline |
//! | has answered | its other copies are known as such |
//! | gone: dead, or left | not waited for; an answer of it that comes all the same counts |
//!
//! A question ends when nobody is silent any more, at its deadline, or when it is given up. Who answers without having been
//! in our table when we asked is counted with the others: it has heard the question.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::error::Code;
use crate::id::RunId;
use crate::message::{Body, Gathered};
use crate::time::Instant;

#[derive(Debug, Default)]
pub struct Queries {
    of: BTreeMap<u64, Open>,
    due: BTreeSet<(Instant, u64)>,
}

#[derive(Debug)]
struct Open {
    /// The question, with its terms.
    body: Body,
    until: Instant,
    silent: BTreeSet<RunId>,
    answered: BTreeSet<RunId>,
    heard: BTreeSet<RunId>,
    tally: Gathered,
}

/// What an answer, or an acknowledgement, was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    First,
    /// It had come by another way.
    Copy,
    /// Nobody asks that, or any more.
    Unasked,
}

impl Queries {
    /// That have not ended.
    pub fn len(&self) -> usize {
        self.of.len()
    }

    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// Begins to wait for these.
    pub fn ask(&mut self, id: u64, body: Body, until: Instant, asked: BTreeSet<RunId>) {
        let tally = Gathered { asked: asked.len(), ..Gathered::default() };
        let open = Open { body, until, silent: asked, answered: BTreeSet::new(), heard: BTreeSet::new(), tally };
        self.of.insert(id, open);
        self.due.insert((until, id));
    }

    /// The question of that number, while it is open.
    pub fn question(&self, id: u64) -> Option<&Body> {
        self.of.get(&id).map(|open| &open.body)
    }

    pub fn on_answer(&mut self, id: u64, by: RunId) -> Word {
        let Some(open) = self.of.get_mut(&id) else { return Word::Unasked };
        if !open.answered.insert(by) {
            return Word::Copy;
        }
        open.silent.remove(&by);
        open.tally.answered += 1;
        Word::First
    }

    pub fn on_heard(&mut self, id: u64, by: RunId) -> Word {
        let Some(open) = self.of.get_mut(&id) else { return Word::Unasked };
        if !open.heard.insert(by) {
            return Word::Copy;
        }
        open.tally.heard += 1;
        Word::First
    }

    /// That run is over, or counts as over. Which questions may have ended with it?
    pub fn fail(&mut self, run: RunId) -> Vec<u64> {
        let mut ids = Vec::new();
        for (&id, open) in &mut self.of {
            if open.silent.remove(&run) {
                open.tally.gone += 1;
                ids.push(id);
            }
        }
        ids
    }

    /// Ends it if there is nobody to wait for.
    pub fn end_if_complete(&mut self, id: u64) -> Option<Gathered> {
        let is_complete = self.of.get(&id).is_some_and(|open| open.silent.is_empty());
        if is_complete { self.end(id, None) } else { None }
    }

    /// Ends it, for that reason. `None`: it had ended already.
    pub fn end(&mut self, id: u64, why: Option<Code>) -> Option<Gathered> {
        let open = self.of.remove(&id)?;
        self.due.remove(&(open.until, id));
        Some(Gathered { why, ..open.tally })
    }

    /// All that are open.
    pub fn ids(&self) -> Vec<u64> {
        self.of.keys().copied().collect()
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.due.first().map(|&(at, _)| at)
    }

    /// Ends one whose time is over.
    pub fn on_deadline(&mut self, now: Instant) -> Option<(u64, Gathered)> {
        let &(_, id) = self.due.first().filter(|(at, _)| *at <= now)?;
        self.end(id, Some(Code::Timeout)).map(|tally| (id, tally))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(id: u64) -> RunId {
        RunId::new(id).unwrap()
    }

    fn at(ns: u64) -> Instant {
        Instant::from_nanos(ns)
    }

    fn asked(queries: &mut Queries, id: u64, until: u64, runs: &[u64]) {
        let body = Body::new("", b"?").unwrap();
        queries.ask(id, body, at(until), runs.iter().map(|&id| run(id)).collect());
    }

    #[test]
    fn a_question_ends_with_the_last_of_its_answers() {
        let mut queries = Queries::default();
        asked(&mut queries, 1, 10, &[1, 2]);
        assert_eq!(queries.on_answer(1, run(1)), Word::First);
        assert_eq!(queries.on_answer(1, run(1)), Word::Copy);
        assert_eq!(queries.end_if_complete(1), None);
        assert_eq!(queries.on_answer(1, run(2)), Word::First);
        let tally = Gathered { asked: 2, answered: 2, ..Gathered::default() };
        assert_eq!(queries.end_if_complete(1), Some(tally));
        assert_eq!(queries.on_answer(1, run(2)), Word::Unasked);
        assert!(queries.is_empty() && queries.due.is_empty());
    }

    #[test]
    fn who_is_gone_is_not_waited_for_and_counts_once() {
        let mut queries = Queries::default();
        asked(&mut queries, 1, 10, &[1, 2]);
        asked(&mut queries, 2, 10, &[2]);
        assert_eq!(queries.on_answer(1, run(1)), Word::First);
        assert_eq!(queries.fail(run(2)), [1, 2]);
        assert_eq!(queries.fail(run(2)), []);
        let tally = queries.end_if_complete(1).expect("it ends");
        assert_eq!((tally.asked, tally.answered, tally.gone, tally.why), (2, 1, 1, None));
        assert_eq!(queries.on_answer(2, run(2)), Word::First, "it was not dead after all");
    }

    #[test]
    fn a_deadline_ends_what_is_due_and_nothing_else() {
        let mut queries = Queries::default();
        asked(&mut queries, 1, 10, &[1]);
        asked(&mut queries, 2, 5, &[1]);
        assert_eq!(queries.on_heard(2, run(1)), Word::First);
        assert_eq!(queries.on_heard(2, run(1)), Word::Copy);
        assert_eq!(queries.deadline(), Some(at(5)));
        assert_eq!(queries.on_deadline(at(4)), None);
        let (id, tally) = queries.on_deadline(at(5)).expect("it is due");
        assert_eq!((id, tally.heard, tally.why), (2, 1, Some(Code::Timeout)));
        assert_eq!(queries.on_deadline(at(9)), None);
        assert_eq!(queries.end(1, Some(Code::Canceled)).and_then(|tally| tally.why), Some(Code::Canceled));
        assert_eq!(queries.end(1, Some(Code::Canceled)), None);
    }
}
