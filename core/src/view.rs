//! What an application sees of the cluster: immutable members, views of all of them, and events.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::SocketAddr;

use crate::id::{Epoch, Incarnation, NodeName, RunId};
use crate::time::{Duration, Instant};

/// How a member fares. SWIM §4.2, with leaving kept apart from dying.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum MemberState {
    Alive = 1,
    /// Did not answer; may yet refute it.
    Suspect = 2,
    Dead = 3,
    /// Said good-bye.
    Left = 4,
}

/// Keys and values that a member tells about itself. Tags are such keys.
pub type Meta = BTreeMap<Arc<str>, Arc<[u8]>>;

/// One member as it was when the view or event was made.
#[derive(Clone, Debug)]
pub struct Member {
    pub name: NodeName,
    pub state: MemberState,
    /// Where it is reached: UDP and TCP.
    pub address: SocketAddr,
    pub epoch: Epoch,
    pub run: RunId,
    pub incarnation: Incarnation,
    /// When it came into `state`, on this node's monotonic clock.
    pub since: Instant,
    /// The protocol version that it speaks.
    pub protocol: u32,
    /// What its application said in `app_version`.
    pub app_version: u32,
    pub meta: Arc<Meta>,
    /// This node itself.
    pub is_local: bool,
    /// A neighbour of this node in the overlay.
    pub is_neighbour: bool,
}

impl Member {
    /// `key` alone asks whether the key is there; `key=value` compares its value.
    pub fn has(&self, key_or_key_value: &str) -> bool {
        match key_or_key_value.split_once('=') {
            None => self.meta.contains_key(key_or_key_value),
            Some((key, value)) => self.meta.get(key).is_some_and(|v| **v == *value.as_bytes()),
        }
    }
}

/// All members at one version, sorted by name. Shared and immutable; costs a pointer to take.
#[derive(Clone, Debug)]
pub struct View {
    /// Counts every change that an event reports: an event with `event.view <= view.version` is already in here.
    pub version: u64,
    pub taken: Instant,
    /// In the order of their names.
    pub members: Arc<[Arc<Member>]>,
    /// Round-trip times, in the order of `members`; zero where unknown.
    pub rtt: Vec<Duration>,
    /// Index of this node in `members`.
    pub local: usize,
}

impl View {
    pub fn local(&self) -> &Arc<Member> {
        &self.members[self.local]
    }

    pub fn position(&self, name: &str) -> Option<usize> {
        self.members.binary_search_by(|m| (*m.name).cmp(name)).ok()
    }

    pub fn find(&self, name: &str) -> Option<&Arc<Member>> {
        self.position(name).map(|i| &self.members[i])
    }

    /// Members that are alive or suspect: those worth talking to.
    pub fn live(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.members.iter().filter(|m| m.state <= MemberState::Suspect)
    }

    /// Live members that carry a tag: `key` or `key=value`.
    pub fn with<'a>(&'a self, key_or_key_value: &'a str) -> impl Iterator<Item = &'a Arc<Member>> {
        self.live().filter(move |m| m.has(key_or_key_value))
    }
}

macro_rules! event_kinds {
    ($($variant:ident = $bit:literal, $name:literal, $text:literal;)*) => {
        /// What happened. The values are bits, for subscription masks.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        pub enum EventKind { $(#[doc = $text] $variant = 1 << $bit,)* }

        impl EventKind {
            pub const ALL: &'static [EventKind] = &[$(EventKind::$variant),*];

            pub const fn bit(self) -> u32 {
                self as u32
            }

            pub const fn name(self) -> &'static str {
                match self { $(EventKind::$variant => $name,)* }
            }
        }
    };
}

event_kinds! {
    Join = 0, "JOIN", "A name that was not listed is alive; with `membership = partial`: it is a neighbour of this node now.";
    Update = 1, "UPDATE", "Metadata or the address changed; `changed` says which.";
    Suspect = 2, "SUSPECT", "Does not answer; others are asked.";
    Alive = 3, "ALIVE", "Refuted a suspicion, or is back: from death, or as a new run with a higher epoch (`changed` has EPOCH).";
    Dead = 4, "DEAD", "A suspicion ran out; with `membership = partial`: a neighbour of this node does not answer.";
    Left = 5, "LEFT", "Left gracefully.";
    Forgotten = 6, "FORGOTTEN", "Dead or left for so long that it is listed no more; with `membership = partial` also: well, and no neighbour any more.";
    Conflict = 7, "CONFLICT", "Another run with a higher epoch holds this node's name; this node has stopped announcing itself.";
    Settled = 8, "SETTLED", "The first view is complete: a seed's table is applied, or every seed failed once, and three gossip intervals brought nobody new.";
    Joined = 9, "JOINED", "A join ended; `count` seeds answered.";
    LeaveDone = 10, "LEAVE_DONE", "Peers know that this node left, or the time for telling them is over (`status`).";
    Overflow = 11, "OVERFLOW", "The inbox was full; `count` items were dropped.";
    Warning = 12, "WARNING", "Something is wrong around this node; `text` says what.";
    Fatal = 13, "FATAL", "The node has failed; every call answers E_FAILED.";
    Receipt = 14, "RECEIPT", "The member has the message with that receipt (`id`), or will not have it (`status`).";
    Writable = 15, "WRITABLE", "After E_BUSY there is room again for messages to that member.";
    Gap = 16, "GAP", "Broadcasts of `member` that nobody has any more were missed: `count` of them, the first with the sequence `id`.";
}

/// Bits of `Event::changed`: in what the member differs from `before`.
pub mod changed {
    pub const STATE: u32 = 1;
    pub const META: u32 = 2;
    pub const ADDRESS: u32 = 4;
    pub const EPOCH: u32 = 8;
    pub const INCARNATION: u32 = 16;
}

/// Something that the application may want to know. Fields that do not apply are zero or `None`.
#[derive(Clone, Debug)]
pub struct Event {
    pub kind: EventKind,
    pub changed: u32,
    pub view: u64,
    pub member: Option<Arc<Member>>,
    pub before: Option<Arc<Member>>,
    /// Which call this completes (JOINED, LEAVE_DONE), which receipt it is, or the first that was missed (GAP).
    pub id: u64,
    pub count: u64,
    /// 0, or an error code.
    pub status: i32,
    pub text: Option<Arc<str>>,
}

impl Event {
    pub fn new(kind: EventKind, view: u64) -> Event {
        Event { kind, changed: 0, view, member: None, before: None, id: 0, count: 0, status: 0, text: None }
    }

    pub fn text(mut self, text: impl Into<String>) -> Event {
        self.text = Some(text.into().into());
        self
    }
}
