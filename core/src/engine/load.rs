//! How full everything is that has a bound.

use super::Engine;
use super::frames::PULLS_MAX;
use super::membership::{ACQUAINTANCES_MAX, table_max};
use super::tick::GRAVES_MAX;
use crate::message::WEIGHT;
use crate::protocol::contact::CALLS_MAX;
use crate::protocol::contest::CONTESTS_MAX;
use crate::protocol::doubt::DOUBTS_MAX;
use crate::protocol::hyparview::{ASKED_MAX, NEIGHBOURS_MAX};
use crate::protocol::plumtree::{HOT_MAX, WAITING_MAX};
use crate::protocol::probe::{FLIGHTS_MAX, RELAYS_MAX};
use crate::protocol::rumor::{Aspect, RUMORS_MAX};

/// One table, queue or list of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    pub name: &'static str,
    pub len: usize,
    /// It is never longer, whatever peers do.
    pub max: usize,
}

impl Engine {
    /// All that grows with what peers send.
    pub fn loads(&self) -> [Load; 27] {
        let (listed, live) = (self.members.listed(), self.members.live_len());
        let (flights, relays, robin) = self.probe.load();
        let (calls, remembered) = self.contacts.load();
        let (neighbours, passive, questions) = self.overlay.load();
        let (origins, waiting, hot) = self.tree.load();
        // The last one that came may be more than all that is kept.
        let window = self.config.broadcast_window + self.config.max_broadcast + 1024;
        let judged = self.config.validation_bytes + WEIGHT;
        [
            ("members", listed, table_max(&self.config)),
            ("acquaintances", self.neighbourhood.acquaintances(), ACQUAINTANCES_MAX),
            ("suspicions", self.suspicions.len(), live),
            ("doubts", self.doubts.len(), DOUBTS_MAX),
            ("stalls", self.stalls.len(), listed),
            ("rumors", self.rumors.len(), RUMORS_MAX.min(Aspect::ALL.len() * listed)),
            ("probes", flights, FLIGHTS_MAX),
            ("relays", relays, RELAYS_MAX),
            ("members to probe", robin, self.config.max_members),
            ("contests", self.contests.len(), CONTESTS_MAX),
            ("pulls of metadata", self.pulls.len(), PULLS_MAX),
            ("calls", calls, CALLS_MAX),
            ("remembered addresses", remembered, self.config.max_remembered),
            ("lanes", self.lanes.len(), listed),
            ("requests", self.requests.len(), self.config.max_requests),
            ("questions to many", self.queries.len(), self.config.max_queries),
            ("byte streams", self.streams.len(), self.config.max_streams),
            ("graves", self.graves.len(), GRAVES_MAX),
            ("neighbours", neighbours, self.config.active_view),
            ("passive view", passive, self.config.passive_view),
            ("questions to neighbours", questions, ASKED_MAX + NEIGHBOURS_MAX),
            // Those of others, and ourselves.
            ("origins", origins, self.config.max_origins + 1),
            ("broadcasts without a record", waiting, WAITING_MAX),
            ("broadcasts still told", hot, HOT_MAX),
            ("bytes of broadcasts", self.tree.window_bytes(), window),
            ("bytes of broadcasts held back", self.tree.held_bytes(), window + judged),
            ("bytes of broadcasts to be judged", self.tree.judged_bytes(), judged),
        ]
        .map(|(name, len, max)| Load { name, len, max })
    }
}
