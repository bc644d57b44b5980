//! What is to be seen of a world, and counted.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::SocketAddr;

use super::machine::Machine;
use super::{NodeIndex, World};
use crate::config::Config;
use crate::engine::Engine;
use crate::id::{NodeName, RunId};
use crate::message::Delivery;
use crate::outbox::{Completion, Streamed};
use crate::rng::mix;
use crate::time::Instant;
use crate::view::{Event, EventKind, MemberState, View};
use crate::wire::envelope::Reject;

/// Packets and bytes as they left, by the kind of their first frame; headers and envelopes counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traffic {
    pub packets: [u64; KINDS],
    pub bytes: [u64; KINDS],
}

/// Frame kinds are below this.
pub const KINDS: usize = 64;

impl Default for Traffic {
    fn default() -> Traffic {
        Traffic { packets: [0; KINDS], bytes: [0; KINDS] }
    }
}

impl Traffic {
    pub fn all_packets(&self) -> u64 {
        self.packets.iter().sum()
    }

    pub fn all_bytes(&self) -> u64 {
        self.bytes.iter().sum()
    }

    pub fn add(&mut self, more: &Traffic) {
        for kind in 0..KINDS {
            self.packets[kind] += more.packets[kind];
            self.bytes[kind] += more.bytes[kind];
        }
    }

    /// What was added since `before`.
    pub fn since(&self, before: &Traffic) -> Traffic {
        let less = |now: &[u64; KINDS], then: &[u64; KINDS]| core::array::from_fn(|kind| now[kind] - then[kind]);
        Traffic { packets: less(&self.packets, &before.packets), bytes: less(&self.bytes, &before.bytes) }
    }
}

/// What became of packets: how many were sent, and what the network did to them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fates {
    pub sent: u64,
    /// By chance, by cuts, by what is blocked and by what is too large or too much.
    pub lost: u64,
    pub duplicated: u64,
    pub damaged: u64,
    /// Handed to a node that was there to take it.
    pub received: u64,
}

impl Fates {
    /// What was added since `before`.
    pub fn since(&self, before: &Fates) -> Fates {
        Fates {
            sent: self.sent - before.sent,
            lost: self.lost - before.lost,
            duplicated: self.duplicated - before.duplicated,
            damaged: self.damaged - before.damaged,
            received: self.received - before.received,
        }
    }
}

impl World {
    pub fn view(&mut self, i: NodeIndex) -> Arc<View> {
        let now = self.nodes[i].clock.now(self.now);
        self.nodes[i].engine.view(now)
    }

    pub fn engine(&self, i: NodeIndex) -> &Engine {
        &self.nodes[i].engine
    }

    /// Nodes that ever were.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub fn is_up(&self, i: NodeIndex) -> bool {
        self.nodes[i].up
    }

    pub fn is_running(&self, i: NodeIndex) -> bool {
        self.nodes[i].up && self.nodes[i].state == Machine::Running
    }

    pub fn name(&self, i: NodeIndex) -> &NodeName {
        &self.nodes[i].name
    }

    pub fn config(&self, i: NodeIndex) -> &Arc<Config> {
        &self.nodes[i].config
    }

    pub fn address(&self, i: NodeIndex) -> SocketAddr {
        self.nodes[i].addr
    }

    pub fn run_id(&self, i: NodeIndex) -> RunId {
        self.nodes[i].run
    }

    pub fn events(&self, i: NodeIndex) -> &[(Instant, Event)] {
        &self.nodes[i].events
    }

    /// The same, and they are kept no longer.
    pub fn take_events(&mut self, i: NodeIndex) -> Vec<(Instant, Event)> {
        core::mem::take(&mut self.nodes[i].events)
    }

    /// What `i` was told, in all its runs.
    pub fn messages(&self, i: NodeIndex) -> &[(Instant, Delivery)] {
        &self.nodes[i].messages
    }

    /// The same, and they are kept no longer.
    pub fn take_messages(&mut self, i: NodeIndex) -> Vec<(Instant, Delivery)> {
        core::mem::take(&mut self.nodes[i].messages)
    }

    pub fn completions(&self, i: NodeIndex) -> &[Completion] {
        &self.nodes[i].completions
    }

    /// What became of byte streams of its present run.
    pub fn streams(&self, i: NodeIndex) -> &[Streamed] {
        &self.nodes[i].streams
    }

    /// Packets and bytes that `i` sent, in all its runs.
    pub fn sent_by(&self, i: NodeIndex) -> (u64, u64) {
        self.nodes[i].sent
    }

    /// What all sent since the world began.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// What became of it.
    pub fn fates(&self) -> Fates {
        self.fates
    }

    /// Entries of the queue that were worked off.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Entries that wait in the queue.
    pub fn pending(&self) -> usize {
        self.queue.len()
    }

    /// Packets that the envelope refused, or would have.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// The same by the envelope's reasons, in the order of `Reject::ALL`: of nodes that seal.
    pub fn rejects(&self) -> &[u64; Reject::ALL.len()] {
        &self.rejects
    }

    /// When the last packet that is on its way now will have arrived.
    pub fn last_arrival(&self) -> Instant {
        self.last_arrival
    }

    /// Packets that `i` has yet to read.
    pub fn held(&self, i: NodeIndex) -> usize {
        self.nodes[i].held.len()
    }

    /// Datagrams that were lost because a machine did not read them.
    pub fn overflowed(&self) -> u64 {
        self.overflowed
    }

    /// A hash over all that happened: equal runs have equal traces.
    pub fn trace(&self) -> u64 {
        mix(self.trace ^ mix(self.traffic.all_packets() ^ self.traffic.all_bytes().rotate_left(32)))
    }

    /// Members that `i` lists as alive, itself included.
    pub fn live(&mut self, i: NodeIndex) -> usize {
        self.view(i).members.iter().filter(|m| m.state == MemberState::Alive).count()
    }

    /// What `i` thinks of `of`.
    pub fn state(&mut self, i: NodeIndex, of: NodeIndex) -> Option<MemberState> {
        let name = self.nodes[of].name.clone();
        self.view(i).find(&name).map(|m| m.state)
    }

    /// Every node of `nodes` lists exactly `n` members as alive.
    pub fn all_list(&mut self, nodes: &[NodeIndex], n: usize) -> bool {
        nodes.iter().all(|&i| self.live(i) == n)
    }

    /// Every node that runs, and has not left, lists exactly those, and suspects nobody.
    pub fn agree(&mut self) -> bool {
        let stays = |i: &NodeIndex| self.is_running(*i) && self.nodes[*i].engine.local().state == MemberState::Alive;
        let nodes: Vec<NodeIndex> = (0..self.nodes.len()).filter(stays).collect();
        let mut right = None;
        nodes.iter().all(|&i| self.lists_exactly(i, &nodes, &mut right))
    }

    /// It lists exactly `nodes`, and suspects none of them. `right` is the fingerprint of one that did, if any: names need not
    /// be looked up again.
    pub fn lists_exactly(&self, i: NodeIndex, nodes: &[NodeIndex], right: &mut Option<u64>) -> bool {
        let engine = &self.nodes[i].engine;
        if engine.live() != nodes.len() || engine.suspects() > 0 {
            return false;
        }
        let fingerprint = Some(engine.fingerprint());
        let alive = |&j: &NodeIndex| engine.state(&self.nodes[j].name) == Some(MemberState::Alive);
        if fingerprint != *right && !nodes.iter().all(alive) {
            return false;
        }
        *right = fingerprint;
        true
    }

    /// Events of one kind about one member that `i` saw.
    pub fn count(&self, i: NodeIndex, kind: EventKind, about: NodeIndex) -> usize {
        let name = &self.nodes[about].name;
        let about = |e: &Event| e.kind == kind && e.member.as_ref().is_some_and(|m| m.name == *name);
        self.nodes[i].events.iter().filter(|(_, e)| about(e)).count()
    }
}
