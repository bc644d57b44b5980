//! Rules that a simulated engine can be made to break, so that the checks of `sim` can show that they would notice.
//!
//! Only a build with the feature `sim` has them, and no node that runs on sockets can be given one.

use super::Engine;
use crate::id::Incarnation;
use crate::members::{Ruling, ruling};
use crate::view::MemberState;

macro_rules! mutants {
    ($($(#[$doc:meta])* $mutant:ident,)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Mutant { $($(#[$doc])* $mutant,)* }

        #[cfg(feature = "sim")]
        impl Mutant {
            pub const ALL: &'static [Mutant] = &[$(Mutant::$mutant),*];
        }
    };
}

mutants! {
    /// The dead return when an old word of their life is heard.
    DeadReturn,
    /// And those who left.
    LeftReturn,
    /// A verdict is believed of whom nobody accused.
    Hasty,
    /// A lower incarnation counts as news.
    Forgetful,
    /// An accuser raises the incarnation of the accused.
    Usurper,
    /// A newcomer is listed under a run of the listener's invention.
    Dreamer,
    /// Who is accused believes it.
    Gullible,
    /// Nobody refutes.
    Resigned,
    /// Suspicions are not reported.
    Secretive,
    /// Addresses are remembered beyond `max_remembered`.
    Hoarder,
    /// A ping is answered by an answer and a ping.
    Babbler,
    /// Differences are not looked into, and metadata is not told.
    Incurious,
    /// Whoever answers is suspected now and then.
    Nervous,
    /// A broadcast is told twice, now and then.
    Parrot,
    /// What was missed is not listened to when it is told again.
    Careless,
    /// What it is told it hands out twice.
    Stammerer,
    /// An answer to many counts as often as it comes.
    Credulous,
}

impl Engine {
    /// From now on it breaks that rule.
    #[cfg(feature = "sim")]
    pub(crate) fn mutate(&mut self, mutant: Option<Mutant>) {
        self.mutant = mutant;
    }

    #[inline]
    pub(super) fn is(&self, mutant: Mutant) -> bool {
        #[cfg(feature = "sim")]
        return self.mutant == Some(mutant);
        #[cfg(not(feature = "sim"))]
        return mutant as u8 == u8::MAX;
    }

    pub(super) fn rule(&self, known: (MemberState, Incarnation), told: (MemberState, Incarnation)) -> Ruling {
        use MemberState::{Alive, Dead, Left};
        match (known.0, told.0) {
            (Dead, Alive) if self.is(Mutant::DeadReturn) => Ruling::News,
            (Left, Alive) if self.is(Mutant::LeftReturn) => Ruling::News,
            (Alive, Alive) if self.is(Mutant::Forgetful) && told.1 < known.1 => Ruling::News,
            _ => ruling(known, told),
        }
    }
}
