//! Two runs of one name. A joiner whose name is alive at another address is not let in before the holder
//! had as long as a probe takes to answer: an answer refuses the joiner, silence replaces the holder. The same question
//! is asked when we hear of a run of *our* name with a higher epoch: an answer means that we lost the name. There nobody
//! waits for the decision, so that a holder who is slow has as long as a suspect has: a name must not be lost to load.

use alloc::vec::Vec;

use crate::id::RunId;
use crate::time::{Duration, Instant};

/// Questions open at once; a joiner beyond that waits for its next try.
pub const CONTESTS_MAX: usize = 64;

#[derive(Debug, Default)]
pub struct Contests(Vec<Contest>);

#[derive(Debug)]
struct Contest {
    holder: RunId,
    answered: bool,
    decided: Instant,
    /// Then the answer is forgotten.
    until: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Not asked yet: ping the holder now.
    Ask,
    Waiting,
    Answered,
    Silent,
}

impl Contests {
    /// Questions open.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn standing(&mut self, now: Instant, holder: RunId, patience: Duration) -> Standing {
        self.0.retain(|c| now < c.until);
        match self.0.iter().find(|c| c.holder == holder) {
            Some(c) if c.answered => Standing::Answered,
            Some(c) if now < c.decided => Standing::Waiting,
            Some(_) => Standing::Silent,
            None if self.0.len() == CONTESTS_MAX => Standing::Waiting,
            None => {
                let decided = now + patience;
                self.0.push(Contest { holder, answered: false, decided, until: decided + patience * 4 });
                Standing::Ask
            }
        }
    }

    /// We lost `lost` while others may have answered.
    pub fn give_back(&mut self, lost: Duration) {
        for contest in &mut self.0 {
            contest.decided = contest.decided + lost;
            contest.until = contest.until + lost;
        }
    }

    /// It answered a ping.
    pub fn on_answer(&mut self, run: RunId) {
        self.0.iter_mut().filter(|c| c.holder == run).for_each(|c| c.answered = true);
    }
}
