//! Are we all still connected? Nodes that know their neighbours only cannot count who is missing; but they can agree on who is
//! the smallest of all that they are connected with.
//!
//! Each tells its neighbours the smallest run id that it has heard of, the *root*, and how often that one has beaten. Only
//! the root itself beats, so a root that is gone, or on the other side of a cut, beats no more, and is given up after a while.
//! Whoever is connected names the same root; two nodes that name different ones, for longer than news takes to get around, are on two
//! islands. (As the root bridge of IEEE 802.1D is found, and its age limited, though there are no ports to choose here.)

use alloc::collections::VecDeque;

use crate::id::RunId;
use crate::time::{Duration, Instant};

/// A root that has not beaten for so many intervals is none any more. Beats follow each other at an interval however far they
/// have to go; nobody derived more than that it has to be a multiple of it.
const PATIENCE: u32 = 20;

/// Roots that are remembered as given up. More must go within the time that news takes to get around for one to be believed in again.
const OVER_MAX: usize = 16;

#[derive(Debug)]
pub struct Island {
    me: RunId,
    root: RunId,
    beat: u64,
    heard: Instant,
    /// Roots that were given up, and their last beats, the latest last: others may go on telling of them for a while, and where
    /// several have gone, of one after the other.
    over: VecDeque<(RunId, u64)>,
}

impl Island {
    pub fn new(now: Instant, me: RunId) -> Island {
        Island { me, root: me, beat: 0, heard: now, over: VecDeque::new() }
    }

    pub fn root(&self) -> RunId {
        self.root
    }

    /// Root and beat, to be told to neighbours.
    pub fn word(&mut self, now: Instant, interval: Duration) -> (RunId, u64) {
        if self.root != self.me && now.since(self.heard) > interval * PATIENCE {
            self.over.retain(|&(over, _)| over != self.root);
            self.over.push_back((self.root, self.beat));
            if self.over.len() > OVER_MAX {
                self.over.pop_front();
            }
            (self.root, self.beat) = (self.me, 0);
        }
        if self.root == self.me {
            // Any number will do that only grows.
            self.beat = self.beat.max(now.as_nanos() / 1_000_000);
        }
        (self.root, self.beat)
    }

    /// A neighbour's word.
    pub fn hear(&mut self, now: Instant, root: RunId, beat: u64) {
        let is_over = self.over.iter().any(|&(over, last)| root == over && beat <= last);
        if root != self.me && !is_over && (root < self.root || root == self.root && beat > self.beat) {
            (self.root, self.beat, self.heard) = (root, beat, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn run(id: u64) -> RunId {
        RunId::new(id).unwrap()
    }

    fn at(s: u64) -> Instant {
        Instant::ZERO + SECOND * s as u32
    }

    /// Nodes in a line, `1` at its end, each telling its neighbours once a second; from `cut` on the first is gone.
    fn line(n: u64, seconds: u64, cut: u64) -> Vec<RunId> {
        let mut nodes: Vec<Island> = (1..=n).map(|id| Island::new(at(0), run(id))).collect();
        for s in 0..seconds {
            let first = usize::from(s >= cut);
            for i in first..nodes.len() {
                let (root, beat) = nodes[i].word(at(s), SECOND);
                for j in [i.wrapping_sub(1), i + 1] {
                    if j >= first && j < nodes.len() {
                        nodes[j].hear(at(s), root, beat);
                    }
                }
            }
        }
        nodes.iter().map(Island::root).collect()
    }

    use alloc::vec::Vec;

    /// Seed 400922 of the swarm.
    #[test]
    fn two_roots_that_are_gone_do_not_keep_each_other_alive() {
        let mut nodes = [Island::new(at(0), run(8)), Island::new(at(0), run(9))];
        // Each has heard of another one that is gone.
        nodes[0].hear(at(0), run(1), 5);
        nodes[1].hear(at(10), run(2), 5);
        for s in 10..200 {
            let words = [nodes[0].word(at(s), SECOND), nodes[1].word(at(s), SECOND)];
            nodes[0].hear(at(s), words[1].0, words[1].1);
            nodes[1].hear(at(s), words[0].0, words[0].1);
        }
        assert_eq!(nodes.map(|node| node.root()), [run(8); 2]);
    }

    #[test]
    fn who_is_connected_agrees_on_the_smallest() {
        assert!(line(30, 40, 1_000).iter().all(|&root| root == run(1)));
    }

    #[test]
    fn a_root_that_is_gone_is_given_up_by_all_though_they_tell_each_other_of_it() {
        let roots = line(30, 200, 60);
        assert!(roots[1..].iter().all(|&root| root == run(2)), "{roots:?}");
    }
}
