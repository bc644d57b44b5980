//! What the simulator needs in order to reproduce others' measurements: the engine behaving as memberlist does, above all
//! in Lifeguard §V's anomaly. Only a build with the feature `sim` has it.

use super::Engine;

impl Engine {
    #[inline]
    pub(super) fn imitates_memberlist(&self) -> bool {
        #[cfg(feature = "sim")]
        return self.imitates_memberlist;
        #[cfg(not(feature = "sim"))]
        return false;
    }
}

#[cfg(feature = "sim")]
mod imitation {
    use crate::engine::{Engine, cx};
    use crate::outbox::Outbox;
    use crate::protocol::Cx;
    use crate::time::{Duration, Instant, Now, nanos};

    impl Engine {
        /// From now on, as in memberlist, news waits for the next stroke of a clock that beats each `gossip_interval`,
        /// stale news is dropped without a word, and a verdict is believed at once.
        pub fn imitate_memberlist(&mut self) {
            self.imitates_memberlist = true;
            self.rumors.by_the_clock(Duration::from_nanos(self.rng.below(nanos(self.config.gossip_interval))));
        }

        /// When [`Engine::tick_while_hung`] wants to be called.
        pub fn deadline_while_hung(&self) -> Option<Instant> {
            self.suspicions.deadline().map(|at| self.hearing.when(at, self.pace()))
        }

        /// memberlist's prober waits in a send; its suspicions have timers of their own.
        pub fn tick_while_hung(&mut self, now: Now, out: &mut Outbox) {
            let pace = self.pace();
            let heard = self.hearing.tick(now.mono, pace);
            while let Some(ended) = self.suspicions.on_deadline(heard) {
                self.declare_dead(now, ended.peer, out);
            }
        }

        /// memberlist's prober comes back from its send and finds that the time for all answers is over.
        pub fn unhang(&mut self, now: Now, out: &mut Outbox) {
            while let Some(peer) = self.probe.give_up(cx!(self, now, out), &self.members) {
                self.suspect(now, peer, out);
            }
        }
    }
}
