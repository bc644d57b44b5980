//! Questions that wait for their answers.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::id::RunId;
use crate::time::Instant;

#[derive(Debug, Default)]
pub struct Requests {
    last: u64,
    of: BTreeMap<u64, Asked>,
    due: BTreeSet<(Instant, u64)>,
    by_run: BTreeSet<(RunId, u64)>,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    run: RunId,
    deadline: Option<Instant>,
}

impl Requests {
    pub fn len(&self) -> usize {
        self.of.len()
    }

    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// A number that no other question of this run has: those to many are counted with them.
    pub fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Without a deadline it waits until its member is gone.
    pub fn ask(&mut self, run: RunId, deadline: Option<Instant>) -> u64 {
        let id = self.number();
        self.of.insert(id, Asked { run, deadline });
        self.by_run.insert((run, id));
        self.due.extend(deadline.map(|at| (at, id)));
        id
    }

    /// It has ended. False where it had already, or `by` is not who was asked.
    pub fn end(&mut self, id: u64, by: Option<RunId>) -> bool {
        let Some(&Asked { run, deadline }) = self.of.get(&id) else { return false };
        if by.is_some_and(|by| by != run) {
            return false;
        }
        self.of.remove(&id);
        self.by_run.remove(&(run, id));
        if let Some(at) = deadline {
            self.due.remove(&(at, id));
        }
        true
    }

    /// Who was asked is gone: ends all that it was asked.
    pub fn fail(&mut self, run: RunId) -> Vec<u64> {
        let ids: Vec<u64> = self.by_run.range((run, 0)..=(run, u64::MAX)).map(|&(_, id)| id).collect();
        ids.iter().for_each(|&id| _ = self.end(id, None));
        ids
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.due.first().map(|&(at, _)| at)
    }

    /// Ends one whose time is over.
    pub fn on_deadline(&mut self, now: Instant) -> Option<u64> {
        let &(at, id) = self.due.first()?;
        (at <= now && self.end(id, None)).then_some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_ends_once_by_who_was_asked_by_time_or_with_its_member() {
        let (a, b) = (RunId::new(1).unwrap(), RunId::new(2).unwrap());
        let at = |ns| Instant::from_nanos(ns);
        let mut requests = Requests::default();
        let ids =
            [(a, Some(at(5))), (b, Some(at(3))), (a, None), (b, Some(at(9)))].map(|(run, d)| requests.ask(run, d));
        assert!(!requests.end(ids[0], Some(b)), "an answer of somebody else");
        assert!(requests.end(ids[0], Some(a)) && !requests.end(ids[0], Some(a)));
        assert_eq!(requests.deadline(), Some(at(3)));
        assert_eq!(requests.on_deadline(at(2)), None);
        assert_eq!((requests.on_deadline(at(4)), requests.on_deadline(at(4))), (Some(ids[1]), None));
        assert_eq!(requests.fail(a), [ids[2]]);
        assert_eq!(requests.fail(b), [ids[3]]);
        assert!(requests.is_empty() && requests.due.is_empty() && requests.by_run.is_empty());
    }
}
