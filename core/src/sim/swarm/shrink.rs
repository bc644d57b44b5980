//! Takes a plan that fails apart, until what is left is needed.
//!
//! Delta debugging (Zeller and Hildebrandt, 2002) over the schedule, then over everything else that was drawn. The runs
//! are deterministic, and a plan without some of its actions is a plan; so whatever still fails is a smaller failure,
//! though it need not be the same one.

use alloc::vec::Vec;

use super::plan::{Clocks, Heal, Plan, Sealing};

/// The smallest plan that still fails and was found within `effort` runs.
pub fn shrink(plan: &Plan, effort: usize, fails: &mut dyn FnMut(&Plan) -> bool) -> Plan {
    let mut search = Search { best: plan.clone(), left: effort, fails };
    loop {
        let before = search.best.clone();
        search.fewer_actions();
        search.fewer_members();
        search.simpler();
        if search.best == before || search.left == 0 {
            return search.best;
        }
    }
}

struct Search<'a> {
    best: Plan,
    left: usize,
    fails: &'a mut dyn FnMut(&Plan) -> bool,
}

impl Search<'_> {
    /// Whether it fails with `change` too: then it is the best.
    fn attempt(&mut self, change: impl FnOnce(&mut Plan)) -> bool {
        let mut plan = self.best.clone();
        change(&mut plan);
        if self.left == 0 || plan == self.best {
            return false;
        }
        self.left -= 1;
        let fails = (self.fails)(&plan);
        if fails {
            self.best = plan;
        }
        fails
    }

    /// Halves, quarters, … one by one.
    fn fewer_actions(&mut self) {
        let mut size = self.best.actions.len().next_power_of_two();
        while size > 0 {
            let mut from = 0;
            while from < self.best.actions.len() {
                let to = (from + size).min(self.best.actions.len());
                if !self.attempt(|plan| drop(plan.actions.drain(from..to))) {
                    from = to;
                }
            }
            size /= 2;
        }
    }

    fn fewer_members(&mut self) {
        for n in [2, self.best.n / 2, self.best.n - 1] {
            while n >= 2 && n < self.best.n && self.attempt(|plan| plan.n = n) {}
        }
    }

    fn simpler(&mut self) {
        self.attempt(|plan| plan.odd = Vec::new());
        self.attempt(|plan| plan.clocks = Clocks::Right);
        self.attempt(|plan| plan.sealing = Sealing::None);
        self.attempt(|plan| (plan.seeds, plan.named) = (0, false));
        self.attempt(|plan| plan.heal = Heal::All { restart: true });
        let mut i = 0;
        while i < self.best.options.len() {
            if !self.attempt(|plan| drop(plan.options.remove(i))) {
                i += 1;
            }
        }
    }
}
