//! Who is to show that it is there: one that said nothing for a `probe_interval` is asked.
//!
//! For members that a node has a link with and watches by itself. A question of its own shows that it lives, as well as its
//! answer to ours; so where both sides watch each other, one question and its answer each interval serve both. An open
//! connection shows nothing.

use alloc::vec::Vec;

use crate::id::RunId;
use crate::time::{Duration, Instant};

#[derive(Debug, Default)]
pub struct Keepalive {
    /// Whom we watch, and when they are asked.
    watched: Vec<(RunId, Instant)>,
}

impl Keepalive {
    pub fn watch(&mut self, now: Instant, run: RunId, interval: Duration) {
        if !self.watched.iter().any(|&(watched, _)| watched == run) {
            self.watched.push((run, now + interval));
        }
    }

    pub fn forget(&mut self, run: RunId) {
        self.watched.retain(|&(watched, _)| watched != run);
    }

    /// It asks, or answers.
    pub fn hear(&mut self, now: Instant, run: RunId, interval: Duration) {
        if let Some((_, due)) = self.watched.iter_mut().find(|(watched, _)| *watched == run) {
            *due = now + interval;
        }
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.watched.iter().map(|&(_, due)| due).min()
    }

    /// Call until it returns `None`: who is to be asked now.
    pub fn on_deadline(&mut self, now: Instant, interval: Duration) -> Option<RunId> {
        let (run, due) = self.watched.iter_mut().find(|(_, due)| *due <= now)?;
        *due = now + interval;
        Some(*run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_heard_is_not_asked_and_who_is_silent_is_asked_once_an_interval() {
        let (mut keepalive, second) = (Keepalive::default(), Duration::from_secs(1));
        let (run, at) = (|id| RunId::new(id).unwrap(), |s: u64| Instant::ZERO + second * s as u32);
        keepalive.watch(at(0), run(1), second);
        keepalive.watch(at(0), run(2), second);
        keepalive.hear(at(1), run(1), second);
        keepalive.hear(at(1), run(3), second);
        assert_eq!(keepalive.deadline(), Some(at(1)));
        assert_eq!(keepalive.on_deadline(at(1), second), Some(run(2)));
        assert_eq!(keepalive.on_deadline(at(1), second), None);
        assert_eq!(keepalive.deadline(), Some(at(2)));
        keepalive.forget(run(1));
        assert_eq!(keepalive.on_deadline(at(2), second), Some(run(2)));
        assert_eq!(keepalive.on_deadline(at(2), second), None);
    }
}
