//! The bytes: frames, packed into sealed packets, sent as datagrams or as records of a stream.
//!
//! ```text
//! datagram = envelope( frame frame frame … )            ≤ max_datagram
//! stream   = ( length u32 · envelope( frame … ) ) …     ≤ ENVELOPE_MAX each
//! ```

pub mod cursor;
pub mod envelope;
pub mod frame;
pub mod question;
pub mod stream;

/// Versions of the protocol that this build speaks: the range is offered in HELLO, the highest common one is used.
pub const PROTOCOL_MIN: u32 = 1;
pub const PROTOCOL_MAX: u32 = 1;
