//! The engine: the only place where protocols meet.
//!
//! Inputs come by [`Engine::handle`], which cannot fail; the application comes by methods, which may refuse
//! (`calls`). What a frame means is in `frames`, what time brings in `tick`, what news does to the table in
//! `news`, whom the table lists in `membership`, what the application gets to see in `picture`. Protocols return what they concluded, and it is
//! handed on here, in sight: no queue, no inner event.

mod broadcast;
mod calls;
mod counters;
mod direct;
mod foreign;
mod frames;
mod load;
mod membership;
mod mutant;
mod news;
mod picture;
mod query;
mod stream;
mod tick;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::SocketAddr;

pub use counters::Counters;
pub use direct::Sending;
pub use load::Load;
use membership::Neighbourhood;
#[cfg(feature = "sim")]
pub use mutant::Mutant;
use picture::Pictures;
pub use query::{Question, Said};
pub use stream::FIRST_ROOM;

use crate::config::{Config, Detector};
use crate::id::{Epoch, Incarnation, NodeName, Peer, RunId, Version};
use crate::members::{self, Members};
use crate::outbox::{Outbox, Via};
use crate::protocol::Cx;
use crate::protocol::antientropy::AntiEntropy;
use crate::protocol::contact::Contacts;
use crate::protocol::contest::Contests;
use crate::protocol::damping::Damping;
use crate::protocol::doubt::Doubts;
use crate::protocol::hearing::{Hearing, Pace};
use crate::protocol::hyparview::Hyparview;
use crate::protocol::lane::{Arrived, Lanes};
use crate::protocol::phi::heartbeats::Heartbeats;
use crate::protocol::plumtree::Plumtree;
use crate::protocol::probe::Probe;
use crate::protocol::query::Queries;
use crate::protocol::request::Requests;
use crate::protocol::rumor::Rumors;
use crate::protocol::stall::Stalls;
use crate::protocol::stream::Streams;
use crate::protocol::suspicion::Suspicions;
use crate::rng::Rng;
use crate::telling::Telling;
use crate::time::{Instant, Now};
use crate::view::{MemberState, View};
use crate::wire::PROTOCOL_MAX;
use crate::wire::envelope::CookieJar;
use crate::wire::frame::{Entries, Record};

/// Who we are in this run.
#[derive(Clone, Debug)]
pub struct Identity {
    pub name: NodeName,
    pub epoch: Epoch,
    pub run: RunId,
    /// Where others reach us: UDP and TCP.
    pub address: SocketAddr,
}

/// What the world brings.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// The frames of one sealed packet, opened and verified.
    Packet(Inbound<'a>),
    /// The system says that nobody listens there: ICMP port unreachable, or a refused connection.
    Unreachable { addr: SocketAddr, via: Via },
    /// A link with that run has ended; what was on its way there may be lost. `last`: no other leads there.
    Severed { run: RunId, last: bool },
    /// The answer to `Outbox::resolve`; empty where the name does not resolve.
    Resolved { seed: usize, addrs: &'a [SocketAddr] },
    /// The deadline has come.
    Tick,
}

#[derive(Clone, Copy, Debug)]
pub struct Inbound<'a> {
    pub from: SocketAddr,
    /// The sender's run, vouched for by the envelope.
    pub run: RunId,
    /// It was sealed for nobody in particular: only HELLO may be in it.
    pub stranger: bool,
    pub via: Via,
    pub frames: &'a [u8],
}

pub struct Engine {
    config: Arc<Config>,
    rng: Rng,
    cookies: CookieJar,
    members: Members,
    probe: Probe,
    heartbeats: Heartbeats,
    suspicions: Suspicions,
    doubts: Doubts,
    stalls: Stalls,
    hearing: Hearing,
    rumors: Rumors,
    antientropy: AntiEntropy,
    contacts: Contacts,
    contests: Contests,
    damping: Damping,
    lanes: Lanes,
    requests: Requests,
    queries: Queries,
    streams: Streams,
    overlay: Hyparview,
    neighbourhood: Neighbourhood,
    tree: Plumtree,
    /// A broadcast of ours was refused, because too much was on its way.
    broadcaster_waits: bool,
    telling: Telling,
    counters: Counters,
    life: Life,
    settled: bool,
    /// When somebody new was last listed.
    newcomer: Instant,
    /// Who died a short while ago, and when: they are still told the news.
    graves: VecDeque<(Instant, Peer)>,
    /// The next look for entries to forget.
    forget: Option<Instant>,
    /// When a warning of each sort was last given.
    warned: [Option<Instant>; picture::WARNINGS],
    version: u64,
    view: Option<Arc<View>>,
    pictures: Pictures,
    /// Pulls of metadata under way, and until when they may be.
    pulls: BTreeMap<Peer, Instant>,
    /// Numbers of receipts, so far.
    receipts: u64,
    /// Whose `send_queue` was full: there will be a [`Completion::Writable`](crate::outbox::Completion).
    refused: BTreeSet<RunId>,
    /// Bytes of messages that the application is not done with.
    backlog: usize,
    /// Room for what one item completes.
    arrived: Vec<Arrived>,
    #[cfg(feature = "sim")]
    mutant: Option<Mutant>,
    #[cfg(feature = "sim")]
    imitates_memberlist: bool,
}

/// Our own way through the cluster.
#[derive(Debug)]
enum Life {
    New,
    Member,
    /// Peers are being told; who has acknowledged, by ping.
    Leaving {
        until: Instant,
        again: Instant,
        told: Vec<RunId>,
    },
    /// Left, or lost the name to a higher epoch: no packet goes out any more.
    Silent,
}

/// Lends the engine's parts to a protocol call.
macro_rules! cx {
    ($engine:ident, $now:expr, $out:expr) => {
        &mut Cx { now: $now, rng: &mut $engine.rng, config: &$engine.config, out: $out }
    };
}
use cx;

impl Engine {
    /// `seed` decides every choice of chance and keys the cookies; it must be unpredictable outside tests.
    pub fn new(config: Arc<Config>, me: Identity, now: Now, seed: [u8; 32]) -> Engine {
        let mut rng = Rng::new(
            seed.chunks_exact(8)
                .fold(0, |all, c| crate::rng::mix(all ^ u64::from_le_bytes(c.try_into().expect("eight bytes")))),
        );
        let record = Record {
            name: &me.name,
            run: me.run,
            epoch: me.epoch,
            incarnation: Incarnation(0),
            addr: me.address,
            protocol: PROTOCOL_MAX,
            app_version: config.app_version,
            version: Version(0),
            age: 0,
            state: Entries(&[]),
        };
        let local = members::entry(&record, me.name.clone(), MemberState::Alive, now.mono);
        let members = Members::new(local, (rng.next_u64(), rng.next_u64()), membership::table_max(&config));
        let mut engine = Engine {
            cookies: CookieJar::new(seed),
            probe: Probe::new(rng.below(1 << 20)),
            heartbeats: Heartbeats::new(&config, now.mono),
            suspicions: Suspicions::default(),
            doubts: Doubts::default(),
            stalls: Stalls::default(),
            hearing: Hearing::new(now.mono),
            rumors: Rumors::default(),
            antientropy: AntiEntropy::new(now.mono, config.sync_interval, config.membership),
            contacts: Contacts::new(now.mono, config.seeds.len(), config.heal_interval, config.seed_retry_min),
            contests: Contests::default(),
            damping: Damping::default(),
            lanes: Lanes::default(),
            requests: Requests::default(),
            queries: Queries::default(),
            streams: Streams::default(),
            overlay: Hyparview::default(),
            neighbourhood: Neighbourhood::new(now.mono, me.run),
            tree: Plumtree::new(now.mono),
            broadcaster_waits: false,
            telling: Telling::new(now.mono),
            counters: Counters::default(),
            life: Life::New,
            settled: false,
            newcomer: now.mono,
            graves: VecDeque::new(),
            forget: None,
            warned: Default::default(),
            version: 1,
            view: None,
            pictures: Pictures::default(),
            pulls: BTreeMap::new(),
            receipts: 0,
            refused: BTreeSet::new(),
            backlog: 0,
            arrived: Vec::new(),
            #[cfg(feature = "sim")]
            mutant: None,
            #[cfg(feature = "sim")]
            imitates_memberlist: false,
            config,
            rng,
            members,
        };
        engine.tell_own_state();
        engine
    }

    /// Takes one input and does all that follows from it. What is to be sent and told is in `out`.
    pub fn handle(&mut self, now: Now, input: Input<'_>, out: &mut Outbox) {
        if matches!(self.life, Life::New | Life::Silent) {
            return;
        }
        // What they bring forward is due now. Only a tick acts on time, because the driver tells first how late it is.
        match input {
            Input::Packet(packet) => self.packet(now, packet, out),
            Input::Unreachable { addr, via } => {
                if via == Via::Datagram {
                    self.probe.on_unreachable(cx!(self, now, out), &self.members, addr);
                }
                self.contacts.on_unreachable(cx!(self, now, out), addr, via);
                if via == Via::Stream {
                    self.on_stream_unreachable(now, addr, out);
                }
            }
            Input::Severed { run, .. } => {
                self.on_severed(now, run, out);
                self.on_link_severed(now, run, out);
            }
            Input::Resolved { seed, addrs } => {
                self.contacts.on_resolved(cx!(self, now, out), &self.members, seed, addrs);
            }
            Input::Tick => self.tick(now, out),
        }
        self.finish(now, out);
    }

    /// When to send [`Input::Tick`].
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        match &self.life {
            Life::New | Life::Silent => return None,
            Life::Leaving { until, again, .. } => return Some(*until.min(again)),
            Life::Member => {}
        }
        [
            self.probe.deadline(&self.config, &self.members, now),
            self.heartbeats.deadline(&self.config, &self.members, now),
            self.suspicions.deadline().map(|at| self.hearing.when(at, self.pace())),
            self.doubts.deadline(),
            self.rumors.deadline().filter(|_| self.members.live_len() > 1),
            self.antientropy.deadline(&self.members),
            self.contacts.deadline(&self.members),
            self.lanes.deadline(),
            self.requests.deadline(),
            self.queries.deadline(),
            self.streams.deadline(),
            self.broadcast_deadline(),
            self.membership_deadline(),
            self.settling(),
            self.forget,
        ]
        .iter()
        .flatten()
        .min()
        .copied()
    }

    /// The driver was away for `lost` and could not hear answers: that is our fault and nobody else's.
    pub fn stalled(&mut self, lost: crate::time::Duration) {
        self.counters.stalls += 1;
        self.stalls.note(lost);
        self.probe.give_back(lost);
        self.heartbeats.give_back(lost);
        self.doubts.give_back(lost);
        self.hearing.stand();
        self.contests.give_back(lost);
        self.probe.doubt_ourselves(1, &self.config);
    }

    /// How time runs for the accused.
    fn pace(&self) -> Pace {
        match self.imitates_memberlist() {
            true => Pace::plain(),
            false => Pace::among(self.members.live_len(), &self.config),
        }
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Lifeguard's local health: 0 is healthy.
    pub fn health(&self) -> u32 {
        self.probe.health()
    }

    /// φ of a member's silence, where φ is what decides: `detector = phi`, and it is listed as live.
    pub fn phi(&self, now: Now, name: &str) -> Option<f64> {
        let peer = self.members.find_name(name).filter(|_| self.watches())?;
        self.heartbeats.phi(now.mono, peer)
    }

    /// Silence is judged by heartbeats, and not by probes.
    fn watches(&self) -> bool {
        self.config.detector == Detector::Phi
    }

    /// Live members, ourselves included: those alive or suspect.
    pub fn live(&self) -> usize {
        self.members.live_len()
    }

    /// Those of them that are suspected.
    pub fn suspects(&self) -> usize {
        self.suspicions.len()
    }

    /// Of the live members: who agrees with us has the same.
    pub fn fingerprint(&self) -> u64 {
        self.members.fingerprint()
    }

    /// Reads what a packet of that run, or else the next tick, will look for: for who drives so many engines that no cache
    /// holds them. What it returns means nothing.
    pub fn warm(&self, sender: Option<RunId>) -> u64 {
        match sender {
            Some(run) => self.members.find(run).and_then(|peer| self.members.get(peer)).map_or(0, |e| e.epoch.0),
            None => self.probe.warm(&self.members),
        }
    }

    /// Whether packets of that run come from a member.
    pub fn is_member(&self, run: RunId) -> bool {
        self.members.find(run).is_some()
    }
}
