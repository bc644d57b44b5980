//! Sockets, threads and the handle that an application holds.
//!
//! `node` is the way in; `driver` moves bytes and fires timers, with `udp` and `tcp` below it; `team` has the threads, and
//! `wheel` says which of them drives;
//! `inbox`, `callbacks` and `dispatcher` the way out to the application; `fork` what a forked child finds.

mod address;
mod callbacks;
#[allow(unsafe_code)]
mod clock;
mod dispatcher;
mod driver;
#[allow(unsafe_code)]
mod fork;
mod inbox;
mod lock;
mod log;
mod message;
mod node;
mod open;
mod outgoing;
#[allow(unsafe_code)]
mod poll;
#[allow(unsafe_code)]
mod resolver;
mod share;
#[allow(unsafe_code)]
mod signal;
mod stats;
mod stream;
mod tcp;
mod team;
#[allow(unsafe_code)]
mod threads;
#[allow(unsafe_code)]
mod udp;
mod wheel;

pub use callbacks::LogSink;
pub use message::Message;
pub use node::{
    Adopt, Each, EventQueue, Heard, MessageQueue, MixedQueue, Node, NodeState, Parcel, Progress, Query, Reader, Reply,
    Sent, To, Wait,
};
pub use share::Runtime;
pub use stats::{RuntimeCounters, StatDesc, Stats};
pub use stream::{FAIL_TEXT_MAX, Stream};
