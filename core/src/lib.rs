//! bruit: a program calls a few functions and is a member of a cluster.
//!
//! This page is the architecture. It says what lies where, which way things depend on each other, and what
//! is *not* there.
//!
//! # The way of a packet
//!
//! ```text
//! runtime/udp, tcp   a batch of datagrams, or a record of a stream
//! wire/envelope      open(bytes): who sealed it, for us, not seen before            outside the lock
//! engine             handle(now, Packet, &mut outbox)                               ── lock ──
//!   wire/frame         Frames::parse: the whole packet is checked before a frame is acted on
//!   engine/frames      match frame { Ping → …, Record → …, Digest → … }
//!   protocol/…         changes its own state, says what to send by cx.out, returns what it concluded
//!   engine/news        applies it to the member table, starts rumors, reports events
//!   engine/membership  whom the table lists, and by whose word: all, or neighbours only
//!   engine/broadcast   brings overlay and tree together; what is new to us goes to the application and on to neighbours
//!   engine/tick        finish: news that is due leaves, and rides on what leaves anyway
//!                                                                                   ── unlock ──
//! wire/envelope      seal each packet in place
//! runtime/udp, tcp   send the batch          runtime/inbox   events → application
//! ```
//!
//! No queue lies between the socket and the engine, and none between protocols.
//!
//! # Floors
//!
//! A module uses only floors below its own; `tests/floors.rs` fails on an import that runs upward.
//!
//! | floor | modules | |
//! |---|---|---|
//! | 0 words | [`time`] [`rng`] [`id`] [`error`] [`config`] [`message`] | numbers, names, every tunable in one table, and what applications say to each other |
//! | 1 bytes | [`wire`]: [`frame`](wire::frame) [`cursor`](wire::cursor) [`envelope`](wire::envelope) [`stream`](wire::stream) | every message there is; sealing; records on a stream |
//! | 2 contact | [`view`] [`outbox`] [`collection::state`] [`members`] [`telling`] [`rhythm`] | what applications see; what one call wants done; who exists and how they fare; how it is put into frames, and when gossip leaves |
//! | 3 protocols | [`protocol`]: [`probe`](protocol::probe) [`doubt`](protocol::doubt) [`suspicion`](protocol::suspicion) [`rumor`](protocol::rumor) [`antientropy`](protocol::antientropy) [`contact`](protocol::contact) [`contest`](protocol::contest) [`damping`](protocol::damping) [`hearing`](protocol::hearing) [`phi`](protocol::phi) [`hyparview`](protocol::hyparview) [`keepalive`](protocol::keepalive) [`island`](protocol::island) [`plumtree`](protocol::plumtree) [`lane`](protocol::lane) [`request`](protocol::request) [`stream`](protocol::stream) | one idea a file; none names another |
//! | 4 engine | [`engine`] | the only place where protocols meet |
//! | 5 drivers | `runtime` (feature `std`), `sim` (feature `sim`) | sockets, threads, the handle an application holds · many engines under one virtual clock |
//! | 6 skins | the C library, the Python package | check, convert, call, report |
//!
//! # What is not there
//!
//! - No module below floor 5 reads a clock, opens a socket, starts a thread or draws from the system's randomness: the
//!   engine builds with `no_std`, where these do not exist. Time and chance are arguments, so a seed is a run.
//! - Nothing iterates a hash map. Order never depends on hashing.
//! - No protocol calls another, and no protocol's output is another's input by way of a queue.
//! - No effect fails half-way: a turn writes into an outbox, and sending is somebody else's affair, after the lock.
//! - The engine does not log. It counts ([`engine::Counters`]) and reports events ([`view::Event`]).
//! - Nothing that a peer sends can make us panic, or hold memory that no constant bounds.
//!
//! # Identity
//!
//! A member is a *name*. Its lives are told apart by an *epoch* (which orders them: a higher one always wins) and a
//! *run id* (random; sealed packets, rumors and digests refer to it; it is also the sender's session in the envelope).
//! Inside a life SWIM's *incarnation* orders what is said of it. An address is an attribute.
//!
//! # Where the tests are
//!
//! Beside the code: what one file promises. `core/tests/membership.rs`: whole clusters in the simulated world.
//! `core/tests/swarm.rs`: random ones with random faults, and rules that always hold (docs/SWARM.md, `make swarm`);
//! `core/tests/lessons.rs`: what was found so. `tests/transcripts/`: runs to be read, kept by `core/tests/transcripts.rs`.
//! `core/tests/scenarios.rs`, `core/tests/node.rs`: real sockets. `tests/`: the C library. `python/tests/`: the package.

#![cfg_attr(not(feature = "std"), no_std)]
#![deny(unsafe_code)]

extern crate alloc;

pub mod collection;
pub mod config;
pub mod engine;
pub mod error;
pub mod id;
pub mod members;
pub mod message;
pub mod outbox;
pub mod protocol;
pub mod rhythm;
pub mod rng;
pub mod telling;
pub mod time;
pub mod view;
pub mod wire;

#[cfg(feature = "std")]
pub mod runtime;
#[cfg(feature = "sim")]
pub mod sim;

pub use config::Config;
pub use error::{Code, Error, Result};
#[cfg(feature = "std")]
pub use runtime::{Node, Runtime};
pub use view::{Event, EventKind, Member, MemberState, View};
