//! What the table keeps of a member, in little room.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::collection::state::SparseState;
use crate::id::{Epoch, Incarnation, NodeName, RunId};
use crate::outbox::{Destination, Via};
use crate::time::{Duration, Instant};
use crate::view::MemberState;
use crate::wire::frame::Record;

/// One member. The table is most of a node's memory, and a simulated cluster of 10,000 has 10^8 of these: what is not
/// needed of every member at every time is elsewhere (pictures, pulls under way).
#[derive(Debug)]
pub struct Entry {
    pub name: NodeName,
    pub run: RunId,
    pub epoch: Epoch,
    pub incarnation: Incarnation,
    pub since: Instant,
    /// What it tells about itself, as far as we have it.
    pub state: SparseState,
    pub rtt: Rtt,
    /// The second in which we last knew it alive, at first hand or by somebody who was in touch.
    heard: u32,
    pub app_version: u32,
    /// The protocol that it speaks; `u16::MAX` stands for whatever is above it, too.
    pub protocol: u16,
    pub(super) generation: u16,
    pub status: MemberState,
    pub(super) addr: Packed,
}

// 16 bytes of it are the name; where addresses have 64 bits and their high ones first, it takes 24.
const _: () = assert!(size_of::<Entry>() <= 80 + size_of::<NodeName>() && size_of::<NodeName>() <= 24);
const _: () = assert!(size_of::<Option<Entry>>() == size_of::<Entry>(), "an empty slot is told by a run of zero");

impl Entry {
    pub fn is_live(&self) -> bool {
        self.status <= MemberState::Suspect
    }

    pub fn to(&self) -> Destination {
        Destination { addr: self.addr(), run: Some(self.run), via: Via::Datagram }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr.unpack()
    }

    /// It is reached at `addr`; a scope or flow label there does not count.
    pub fn is_at(&self, addr: SocketAddr) -> bool {
        self.addr == Packed::from(addr)
    }

    pub fn move_to(&mut self, addr: SocketAddr) {
        self.addr = addr.into();
    }

    /// It is alive.
    pub fn hear(&mut self, now: Instant) {
        self.heard = second(now);
    }

    /// We have not heard of it since `at`. Whole seconds are compared: who was heard in the very second of `at` may
    /// be thought younger by a second than it is, but nobody is thought older.
    pub fn is_unheard_since(&self, at: Instant) -> bool {
        self.heard < second(at)
    }

    /// Another life of the same name begins: all that is known of it is in the record, but for its metadata.
    pub fn begin(&mut self, record: &Record<'_>, now: Instant) {
        let name = self.name.clone();
        *self = Entry { generation: self.generation, ..entry(record, name, MemberState::Alive, now) };
    }
}

/// An entry for a member that we have just heard of.
pub fn entry(record: &Record<'_>, name: NodeName, status: MemberState, since: Instant) -> Entry {
    Entry {
        name,
        run: record.run,
        epoch: record.epoch,
        incarnation: record.incarnation,
        since,
        state: SparseState::default(),
        rtt: Rtt::default(),
        heard: second(since),
        app_version: record.app_version,
        protocol: u16::try_from(record.protocol).unwrap_or(u16::MAX),
        generation: 0,
        status,
        addr: record.addr.into(),
    }
}

/// An address as the wire has it: without scope and flow label, in 19 bytes and not 32.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Packed {
    ip: [u8; 16],
    port: [u8; 2],
    is_v4: bool,
}

impl From<SocketAddr> for Packed {
    fn from(addr: SocketAddr) -> Packed {
        let (ip, is_v4) = match addr.ip() {
            // As a mapped one, but told from it.
            IpAddr::V4(ip) => (ip.to_ipv6_mapped(), true),
            IpAddr::V6(ip) => (ip, false),
        };
        Packed { ip: ip.octets(), port: addr.port().to_ne_bytes(), is_v4 }
    }
}

impl Packed {
    fn unpack(self) -> SocketAddr {
        let ip = match self.ip {
            [.., a, b, c, d] if self.is_v4 => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
            ip => IpAddr::V6(Ipv6Addr::from(ip)),
        };
        SocketAddr::new(ip, u16::from_ne_bytes(self.port))
    }
}

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.unpack().fmt(f)
    }
}

/// The second of an instant: 136 years of them.
fn second(at: Instant) -> u32 {
    u32::try_from(at.as_nanos() / 1_000_000_000).unwrap_or(u32::MAX)
}

/// Smoothed round-trip time, RFC 6298 §2: mean and mean deviation, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rtt {
    mean: u32,
    deviation: u32,
}

impl Rtt {
    pub fn sample(&mut self, rtt: Duration) {
        let r = u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX).max(1);
        if self.mean == 0 {
            *self = Rtt { mean: r, deviation: r / 2 };
            return;
        }
        let (m, d, r) = (u64::from(self.mean), u64::from(self.deviation), u64::from(r));
        self.deviation = ((3 * d + m.abs_diff(r)) / 4) as u32;
        self.mean = ((7 * m + r) / 8).max(1) as u32;
    }

    pub fn mean(self) -> Duration {
        Duration::from_micros(self.mean.into())
    }

    /// RFC 6298: mean + 4 deviations. `None` before the first sample.
    pub fn timeout(self) -> Option<Duration> {
        (self.mean != 0).then(|| Duration::from_micros(u64::from(self.mean) + 4 * u64::from(self.deviation)))
    }
}
