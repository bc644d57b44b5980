//! What thinking left for the links, on its way to the driver.
//!
//! Whoever thinks puts packets here while the engine's lock is held, so they keep the order in which they were thought; the
//! driver takes them all at once. Many small messages to one destination become one packet, which is sealed once. Buffers
//! go round: those that the driver has written come back here, and from here into the outboxes.

use crate::id::RunId;
use crate::outbox::{Packet, TOGETHER_MAX};

/// Bytes that wait for the driver. Protocols repeat what does not fit, lanes send it again.
const OUTGOING_MAX: usize = 4 << 20;

/// How far back a packet to the same destination is looked for: among so many different ones a larger neighbourhood sends
/// small packets, and nothing worse.
const LOOK_BACK: usize = 16;

/// Buffers kept for those to come.
const SPARE_MAX: usize = 8;

#[derive(Default)]
pub(crate) struct Outgoing {
    packets: Vec<Packet>,
    bytes: usize,
    /// Runs that have become members, or ceased to be.
    pub marks: Vec<(RunId, bool)>,
    spare: Vec<Vec<u8>>,
}

impl Outgoing {
    /// Takes the packet, or appends its frames to the last one that waits for the same destination. It has some buffer
    /// afterwards. False: there is no room.
    pub(crate) fn add(&mut self, packet: &mut Packet) -> bool {
        let len = packet.frames().len();
        if self.bytes + len > OUTGOING_MAX {
            return false;
        }
        self.bytes += len;
        let last = self.packets.iter_mut().rev().take(LOOK_BACK).find(|last| last.to == packet.to);
        match last.filter(|last| last.buf.len() + len <= TOGETHER_MAX) {
            Some(last) => last.buf.extend_from_slice(packet.frames()),
            None => {
                let buf = std::mem::replace(&mut packet.buf, self.spare.pop().unwrap_or_default());
                self.packets.push(Packet { to: packet.to, buf });
            }
        }
        true
    }

    /// In the order in which they were thought. Nothing of them is left, however far the iterator gets.
    pub(crate) fn packets(&mut self) -> impl Iterator<Item = Packet> {
        self.bytes = 0;
        self.packets.drain(..)
    }

    /// A buffer that is done with.
    pub(crate) fn keep(&mut self, buf: Vec<u8>) {
        if self.spare.len() < SPARE_MAX && buf.capacity() <= 2 * TOGETHER_MAX {
            self.spare.push(buf);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::{Destination, Via};
    use crate::wire::envelope::HEADER;

    fn packet(to: u64, frames: &[u8]) -> Packet {
        let addr = "127.0.0.1:1".parse().unwrap();
        let to = Destination { addr, run: RunId::new(to), via: Via::Stream };
        Packet { to, buf: [&[0; HEADER], frames].concat() }
    }

    #[test]
    fn what_is_for_one_destination_goes_together_and_in_order() {
        let mut outgoing = Outgoing::default();
        for (to, frames) in [(1, b"a"), (2, b"b"), (1, b"c"), (3, b"d"), (2, b"e")] {
            assert!(outgoing.add(&mut packet(to, frames)));
        }
        let large = vec![7; TOGETHER_MAX - HEADER];
        assert!(outgoing.add(&mut packet(1, &large)) && outgoing.add(&mut packet(1, b"f")));
        let all: Vec<(u64, Vec<u8>)> =
            outgoing.packets().map(|p| (p.to.run.unwrap().get(), p.frames().to_vec())).collect();
        let expected: [(u64, &[u8]); 5] = [(1, b"ac"), (2, b"be"), (3, b"d"), (1, &large), (1, b"f")];
        assert_eq!(all, expected.map(|(to, frames)| (to, frames.to_vec())));
    }

    #[test]
    fn what_does_not_fit_is_refused_until_the_rest_is_taken() {
        let (mut outgoing, half) = (Outgoing::default(), vec![7; OUTGOING_MAX / 2]);
        assert!(outgoing.add(&mut packet(1, &half)) && outgoing.add(&mut packet(2, &half)));
        assert!(!outgoing.add(&mut packet(3, b"x")));
        assert_eq!(outgoing.packets().count(), 2);
        assert!(outgoing.add(&mut packet(3, b"x")));
    }

    #[test]
    fn buffers_go_round() {
        let mut outgoing = Outgoing::default();
        for _ in 0..2 * SPARE_MAX {
            outgoing.keep(Vec::with_capacity(100));
        }
        assert_eq!(outgoing.spare.len(), SPARE_MAX);
        let mut taken = packet(1, b"x");
        assert!(outgoing.add(&mut taken));
        assert_eq!((taken.buf.capacity(), outgoing.spare.len()), (100, SPARE_MAX - 1));
    }
}
