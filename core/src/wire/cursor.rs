//! Values on one cursor. A body is postcard-encoded values one after another.
//!
//! A reader that finds the body ended takes the default for what is missing, and ignores what follows
//! the fields that it knows. So a frame can grow at its end, and old and new nodes read each other.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use postcard::ser_flavors::Flavor;
use serde::{Deserialize, Serialize};

use crate::id::{COUNTER_MAX, RunId};

/// The bytes are not what they claim to be. The packet is dropped whole and counted; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

pub type Read<T> = Result<T, Malformed>;

#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader(bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// What is not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// The next value, or its type's default where the body has ended.
    #[inline]
    pub fn value<T: Deserialize<'a> + Default>(&mut self) -> Read<T> {
        if self.0.is_empty() {
            return Ok(T::default());
        }
        let (value, rest) = postcard::take_from_bytes(self.0).map_err(|_| Malformed)?;
        self.0 = rest;
        Ok(value)
    }

    #[inline]
    pub fn byte(&mut self) -> Read<u8> {
        let (&first, rest) = self.0.split_first().ok_or(Malformed)?;
        self.0 = rest;
        Ok(first)
    }

    #[inline]
    pub fn take(&mut self, n: usize) -> Read<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n).ok_or(Malformed)?;
        self.0 = rest;
        Ok(head)
    }

    /// A varint as postcard writes it: seven bits a byte, low ones first. Decoded here and not by serde's way
    /// because every record has seven of them: it halves the cost of reading one.
    #[inline]
    pub fn varint(&mut self) -> Read<u64> {
        let mut value = 0u64;
        for (i, &byte) in self.0.iter().enumerate() {
            // The tenth byte holds the 64th bit alone.
            if i == 9 && byte > 1 {
                return Err(Malformed);
            }
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                self.0 = &self.0[i + 1..];
                return Ok(value);
            }
        }
        if self.0.is_empty() { Ok(0) } else { Err(Malformed) }
    }

    /// A counter that peers raise: an epoch, an incarnation, a version. Values above 2^62 are refused.
    #[inline]
    pub fn counter(&mut self) -> Read<u64> {
        let value = self.varint()?;
        if value <= COUNTER_MAX { Ok(value) } else { Err(Malformed) }
    }

    #[inline]
    pub fn short(&mut self) -> Read<u32> {
        u32::try_from(self.varint()?).map_err(|_| Malformed)
    }

    /// A length and that many bytes.
    #[inline]
    pub fn bytes(&mut self) -> Read<&'a [u8]> {
        let len = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
        self.take(len)
    }

    pub fn text(&mut self) -> Read<&'a str> {
        core::str::from_utf8(self.bytes()?).map_err(|_| Malformed)
    }

    /// Eight bytes, little-endian, never zero: random numbers do not shrink as varints.
    #[inline]
    pub fn run(&mut self) -> Read<RunId> {
        let bytes = self.take(8)?.try_into().map_err(|_| Malformed)?;
        RunId::new(u64::from_le_bytes(bytes)).ok_or(Malformed)
    }

    /// 4 or 6, the address, the port (little-endian).
    pub fn addr(&mut self) -> Read<SocketAddr> {
        let ip = match self.byte()? {
            4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(self.take(4)?).map_err(|_| Malformed)?)),
            6 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(self.take(16)?).map_err(|_| Malformed)?)),
            _ => return Err(Malformed),
        };
        let port = u16::from_le_bytes(self.take(2)?.try_into().map_err(|_| Malformed)?);
        if port == 0 { Err(Malformed) } else { Ok(SocketAddr::new(ip, port)) }
    }
}

/// The writing half: appends to a buffer that the caller sized.
#[derive(Debug)]
pub struct Writer<'a>(pub &'a mut Vec<u8>);

impl Writer<'_> {
    pub fn value<T: Serialize + ?Sized>(&mut self, value: &T) {
        postcard::serialize_with_flavor(value, Tail(self.0)).expect("a growing buffer takes every plain value");
    }

    #[inline]
    pub fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    #[inline]
    pub fn varint(&mut self, value: u64) {
        if value < 0x80 { self.0.push(value as u8) } else { self.value(&value) }
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    pub fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    #[inline]
    pub fn run(&mut self, run: RunId) {
        self.0.extend_from_slice(&run.get().to_le_bytes());
    }

    pub fn addr(&mut self, addr: SocketAddr) {
        match addr.ip() {
            IpAddr::V4(ip) => {
                self.0.push(4);
                self.0.extend_from_slice(&ip.octets());
            }
            IpAddr::V6(ip) => {
                self.0.push(6);
                self.0.extend_from_slice(&ip.octets());
            }
        }
        self.0.extend_from_slice(&addr.port().to_le_bytes());
    }

    /// Appends `body` with its length in front. The length is nearly always one byte: room for that is
    /// left, and only a longer body moves.
    #[inline]
    pub fn prefixed(&mut self, body: impl FnOnce(&mut Writer<'_>)) {
        let at = self.0.len();
        self.0.push(0);
        body(&mut Writer(self.0));
        let len = self.0.len() - at - 1;
        if len < 0x80 {
            self.0[at] = len as u8;
            return;
        }
        let mut prefix = [0u8; 10];
        let prefix = postcard::to_slice(&(len as u64), &mut prefix).expect("ten bytes hold any varint");
        self.0.splice(at..=at, prefix.iter().copied());
    }
}

struct Tail<'a>(&'a mut Vec<u8>);

impl Flavor for Tail<'_> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// The longest part of `text` that fits in `max` bytes.
pub fn cut(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_at_the_end_is_the_default() {
        let mut buf = Vec::new();
        Writer(&mut buf).varint(300);
        let mut r = Reader::new(&buf);

        assert_eq!(r.varint(), Ok(300));
        assert_eq!(r.varint(), Ok(0));
        assert_eq!(r.text(), Ok(""));
        assert_eq!(r.value::<Option<u8>>(), Ok(None));
        assert_eq!(r.run(), Err(Malformed), "a run id has no default");
    }

    #[test]
    fn varints_are_postcards() {
        for value in (0..64).flat_map(|bit| [1u64 << bit, (1 << bit) - 1, u64::MAX >> bit]) {
            let mut buf = Vec::new();
            Writer(&mut buf).value(&value);
            assert_eq!(Reader::new(&buf).varint(), Ok(value));
            assert_eq!(
                Reader::new(&buf[..buf.len() - 1]).varint(),
                if buf.len() == 1 { Ok(0) } else { Err(Malformed) }
            );
        }
        assert_eq!(Reader::new(&[0xff; 10]).varint(), Err(Malformed));
    }

    #[test]
    fn a_long_body_makes_room_for_its_length() {
        for len in [0usize, 1, 127, 128, 300, 20_000] {
            let mut buf = Vec::from([9]);
            Writer(&mut buf).prefixed(|w| (0..len).for_each(|i| w.byte(i as u8)));
            let mut r = Reader::new(&buf[1..]);
            let body = r.bytes().unwrap();

            assert_eq!(body.len(), len);
            assert!(body.iter().enumerate().all(|(i, &b)| b == i as u8));
            assert!(r.is_empty());
        }
    }

    #[test]
    fn counters_nobody_can_reach_are_malformed() {
        let mut buf = Vec::new();
        Writer(&mut buf).varint(COUNTER_MAX + 1);
        assert_eq!(Reader::new(&buf).counter(), Err(Malformed));
    }
}
