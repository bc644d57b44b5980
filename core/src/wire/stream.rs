//! The same envelopes on a TCP stream: a record is its length (u32, little-endian), then the sealed envelope.
//!
//! The reader takes whatever pieces the socket gives. Records that arrive whole are handed on where they lie; only what
//! is cut off at the end of a piece is copied, into a buffer that grows with the bytes that came, never with the length
//! that was promised.
//!
//! The length is not authenticated, so it is all that a stranger can lie about: until a first record proves that the
//! peer has a key, it may promise [`RECORD_MAX_STRANGER`], afterwards [`ENVELOPE_MAX`].

use alloc::vec::Vec;
use core::fmt;

use super::envelope::{ENVELOPE_MAX, OVERHEAD};

/// Longest record before the first valid one.
pub const RECORD_MAX_STRANGER: usize = 128 << 10;

/// Bytes before each record.
pub const PREFIX: usize = 4;

/// What an idle reader keeps allocated; nobody derived it. A usual record fits, so that usual traffic never allocates.
const KEPT: usize = 4 << 10;

const _: () = assert!(OVERHEAD < RECORD_MAX_STRANGER && RECORD_MAX_STRANGER <= ENVELOPE_MAX);
const _: () = assert!(ENVELOPE_MAX <= u32::MAX as usize, "the prefix can hold every length");

/// A record too long for this peer, or too short to be an envelope. The place in the stream is lost: close the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadLength {
    pub length: usize,
    pub limit: usize,
}

impl fmt::Display for BadLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a record of {} bytes, expected {OVERHEAD} to {}", self.length, self.limit)
    }
}

impl core::error::Error for BadLength {}

/// Puts the records of one link back together.
#[derive(Debug, Default)]
pub struct StreamReader {
    /// The record under way with its prefix, or nothing.
    held: Vec<u8>,
    trusted: bool,
}

impl StreamReader {
    pub fn new() -> StreamReader {
        StreamReader::default()
    }

    /// Takes what the socket gave and hands each record that it completes to `record`, which says whether the record
    /// was valid (it may be opened in place; `bytes` is scratch afterwards).
    ///
    /// After `Err` every further call fails too. The records before the bad length have been handed out.
    pub fn push(&mut self, mut bytes: &mut [u8], mut record: impl FnMut(&mut [u8]) -> bool) -> Result<(), BadLength> {
        loop {
            if self.held.is_empty()
                && let Ok(Some(length)) = self.length_of(bytes)
                && bytes.len() >= PREFIX + length
            {
                let (whole, rest) = bytes.split_at_mut(PREFIX + length);
                self.trusted |= record(&mut whole[PREFIX..]);
                bytes = rest;
                continue;
            }
            // A bad length is held like any other, and found here: now, and in every later call.
            let wanted = self.length_of(&self.held)?.map_or(PREFIX, |length| PREFIX + length);
            if bytes.is_empty() {
                return Ok(());
            }
            let (part, rest) = bytes.split_at_mut(bytes.len().min(wanted - self.held.len()));
            self.hold(part, wanted);
            bytes = rest;
            if wanted > PREFIX && self.held.len() == wanted {
                self.trusted |= record(&mut self.held[PREFIX..]);
                self.held.clear();
                self.held.shrink_to(KEPT);
            }
        }
    }

    /// None while the prefix is not all there.
    fn length_of(&self, bytes: &[u8]) -> Result<Option<usize>, BadLength> {
        let Some(prefix) = bytes.first_chunk() else { return Ok(None) };
        let length = u32::from_le_bytes(*prefix) as usize;
        let limit = if self.trusted { ENVELOPE_MAX } else { RECORD_MAX_STRANGER };
        if (OVERHEAD..=limit).contains(&length) { Ok(Some(length)) } else { Err(BadLength { length, limit }) }
    }

    /// Doubles the buffer when it is full, but never beyond the record.
    fn hold(&mut self, part: &[u8], wanted: usize) {
        let len = self.held.len() + part.len();
        if len > self.held.capacity() {
            let room = len.max(2 * self.held.capacity()).min(wanted).max(KEPT);
            self.held.reserve_exact(room - self.held.len());
        }
        self.held.extend_from_slice(part);
    }
}

/// What comes before a sealed envelope and makes it a record.
pub fn prefix_of(sealed: &[u8]) -> [u8; PREFIX] {
    debug_assert!((OVERHEAD..=ENVELOPE_MAX).contains(&sealed.len()), "the outbox bounds its packets");
    (sealed.len() as u32).to_le_bytes()
}

/// Appends `sealed` as a record.
pub fn write_record(buf: &mut Vec<u8>, sealed: &[u8]) {
    buf.extend_from_slice(&prefix_of(sealed));
    buf.extend_from_slice(sealed);
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;

    fn stream(records: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for record in records {
            write_record(&mut bytes, record);
        }
        bytes
    }

    /// Pushes `bytes` in pieces of these lengths, over and over.
    fn read(
        reader: &mut StreamReader,
        mut bytes: &[u8],
        pieces: &[usize],
        valid: bool,
    ) -> (Vec<Vec<u8>>, Result<(), BadLength>) {
        let mut records = Vec::new();
        for &piece in pieces.iter().cycle() {
            let (part, rest) = bytes.split_at(piece.min(bytes.len()));
            let pushed = reader.push(&mut part.to_vec(), |record| {
                records.push(record.to_vec());
                valid
            });
            if pushed.is_err() || rest.is_empty() {
                return (records, pushed);
            }
            bytes = rest;
        }
        unreachable!()
    }

    #[test]
    fn a_record_is_its_length_and_its_bytes() {
        assert_eq!(stream(&[vec![7; 258]]), [&[2, 1, 0, 0][..], &[7; 258]].concat());
    }

    #[test]
    fn a_length_above_the_limit_is_refused_before_anything_is_allocated_for_it() {
        for (trusted, limit) in [(false, RECORD_MAX_STRANGER), (true, ENVELOPE_MAX)] {
            for length in [limit + 1, u32::MAX as usize] {
                for pieces in [&[1][..], &[3, 1000], &[1000]] {
                    let mut reader = StreamReader { trusted, ..StreamReader::new() };
                    let bytes = [&(length as u32).to_le_bytes()[..], &[0; 100]].concat();
                    let (records, refused) = read(&mut reader, &bytes, pieces, true);
                    assert_eq!((records, refused), (vec![], Err(BadLength { length, limit })));
                    assert!(reader.held.capacity() <= KEPT);
                }
            }
        }
    }

    #[test]
    fn what_is_too_short_for_an_envelope_is_refused() {
        for length in [0, OVERHEAD - 1] {
            let bytes = [&(length as u32).to_le_bytes()[..], &[0; 100]].concat();
            let (records, refused) = read(&mut StreamReader::new(), &bytes, &[1000], true);
            assert_eq!((records, refused), (vec![], Err(BadLength { length, limit: RECORD_MAX_STRANGER })));
        }
    }

    #[test]
    fn after_a_bad_length_nothing_is_read_any_more() {
        let mut reader = StreamReader::new();
        let good = stream(&[vec![1; 50]]);
        let (records, refused) = read(&mut reader, &[&good[..], &[0xff; 4], &good].concat(), &[1000], false);
        assert_eq!((records.len(), refused.is_err()), (1, true));
        let (records, again) = read(&mut reader, &good, &[1000], true);
        assert_eq!((records.len(), again), (0, refused));
    }

    #[test]
    fn a_first_valid_record_raises_the_limit_and_an_invalid_one_does_not() {
        let bytes = stream(&[vec![1; 50], vec![2; ENVELOPE_MAX]]);
        for pieces in [&[54][..], &[1400], &[2 * ENVELOPE_MAX]] {
            let (records, read_all) = read(&mut StreamReader::new(), &bytes, pieces, true);
            assert_eq!((records.len(), read_all), (2, Ok(())));
            let (records, refused) = read(&mut StreamReader::new(), &bytes, pieces, false);
            assert_eq!(records.len(), 1);
            assert_eq!(refused, Err(BadLength { length: ENVELOPE_MAX, limit: RECORD_MAX_STRANGER }));
        }
    }

    #[test]
    fn the_buffer_grows_with_what_came_and_shrinks_after_a_big_record() {
        let mut reader = StreamReader { trusted: true, ..StreamReader::new() };
        let bytes = stream(&[vec![1; ENVELOPE_MAX]]);
        reader.push(&mut bytes[..10_000].to_vec(), |_| true).unwrap();
        assert!(reader.held.capacity() <= 20_000);
        reader.push(&mut bytes[10_000..bytes.len() - 1].to_vec(), |_| true).unwrap();
        assert!(reader.held.capacity() <= PREFIX + ENVELOPE_MAX);
        let mut seen = 0;
        reader
            .push(&mut bytes[bytes.len() - 1..].to_vec(), |record| {
                seen += record.len();
                true
            })
            .unwrap();
        assert_eq!(seen, ENVELOPE_MAX);
        assert!(reader.held.capacity() <= KEPT);
    }

    #[test]
    fn whole_records_are_handed_on_where_they_lie() {
        let mut reader = StreamReader::new();
        let mut bytes = stream(&[vec![1; 50], vec![2; 60]]);
        let mut places = Vec::new();
        let start = bytes.as_ptr() as usize;
        reader
            .push(&mut bytes, |record| {
                places.push(record.as_ptr() as usize - start);
                true
            })
            .unwrap();
        assert_eq!(places, [4, 58]);
        assert_eq!(reader.held.capacity(), 0);
    }

    proptest! {
        #[test]
        fn any_chunking_yields_the_same_records(
            lengths in proptest::collection::vec(prop_oneof![OVERHEAD..200, OVERHEAD..6000], 0..12),
            pieces in proptest::collection::vec(prop_oneof![1usize..8, 1usize..3000], 1..12),
        ) {
            let records: Vec<Vec<u8>> = lengths.iter().enumerate().map(|(i, &len)| vec![i as u8; len]).collect();
            let mut reader = StreamReader::new();
            let (read, ended) = read(&mut reader, &stream(&records), &pieces, true);
            prop_assert_eq!(ended, Ok(()));
            prop_assert_eq!(read, records);
            prop_assert!(reader.held.is_empty() && reader.held.capacity() <= KEPT);
        }

        #[test]
        fn any_bytes_are_read_or_refused_in_bounded_memory(
            bytes in proptest::collection::vec(prop_oneof![3 => Just(0u8), 1 => any::<u8>()], 0..5000),
            pieces in proptest::collection::vec(1usize..500, 1..5),
        ) {
            let mut reader = StreamReader::new();
            let _ = read(&mut reader, &bytes, &pieces, false);
            prop_assert!(reader.held.capacity() <= (2 * bytes.len()).max(KEPT));
        }
    }
}
