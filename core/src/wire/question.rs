//! What a broadcast carries when it is a question to many; and an answer on its way through another member.

use alloc::vec::Vec;

use super::cursor::{Malformed, Read, Reader, Writer};
use super::frame::ItemKind;
use crate::config::is_meta_key;
use crate::id::{NodeName, RunId};
use crate::message::Query;
use crate::time::{Duration, Instant};

/// Names and tags of one question, in bytes, with all else that its terms are.
pub const TERMS_MAX: usize = 16 << 10;

/// Copies of one answer that may be asked for: what one question makes others send is bounded by it.
pub const COPIES_MAX: u32 = 8;

/// A relayed answer is larger than the answer by this.
pub const AROUND_ANSWER: usize = 8 + 8 + 1;

/// Whom a question is for, and what its asker wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms<'a> {
    /// The asker's number for it.
    pub id: u64,
    /// Answers are gathered for so many milliseconds after it was said.
    pub patience: u32,
    /// Who has heard it says so.
    pub acks: bool,
    /// Members through which each answer goes once more.
    pub relay: u32,
    /// One of these; of none: everybody.
    pub names: Texts<'a>,
    /// All of these: `key`, or `key=value`.
    pub tags: Texts<'a>,
}

/// Texts one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Texts<'a>(pub &'a [u8]);

/// An answer, or an acknowledgement, by `by`, that somebody else hands to `to`. Its number and status are those of its item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relayed<'a> {
    pub to: RunId,
    pub by: RunId,
    pub kind: ItemKind,
    pub data: &'a [u8],
}

impl<'a> Terms<'a> {
    pub fn write(&self, buf: &mut Vec<u8>) {
        let mut w = Writer(buf);
        w.varint(self.id);
        w.varint(self.patience.into());
        w.byte(self.acks.into());
        w.varint(self.relay.into());
        w.bytes(self.names.0);
        w.bytes(self.tags.0);
    }

    /// What an answer needs of it, where it was said at that time.
    pub fn query(&self, sent: Instant) -> Query {
        let until = sent + Duration::from_millis(self.patience.into());
        Query { id: self.id, until, relay: self.relay }
    }

    pub fn read(bytes: &'a [u8]) -> Read<Terms<'a>> {
        if bytes.len() > TERMS_MAX {
            return Err(Malformed);
        }
        let r = &mut Reader::new(bytes);
        let (id, patience, acks, relay) = (r.counter()?, r.short()?, r.byte()? & 1 != 0, r.short()?);
        let (names, tags) = (Texts::read(r, NodeName::is_valid)?, Texts::read(r, is_tag)?);
        if relay > COPIES_MAX { Err(Malformed) } else { Ok(Terms { id, patience, acks, relay, names, tags }) }
    }
}

impl<'a> Texts<'a> {
    fn read(r: &mut Reader<'a>, is_valid: impl Fn(&str) -> bool) -> Read<Texts<'a>> {
        let texts = Texts(r.bytes()?);
        let mut rest = Reader::new(texts.0);
        while !rest.is_empty() {
            if !is_valid(rest.text()?) {
                return Err(Malformed);
            }
        }
        Ok(texts)
    }

    pub fn push(buf: &mut Vec<u8>, text: &str) {
        Writer(buf).text(text);
    }

    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(self) -> impl Iterator<Item = &'a str> {
        let mut rest = Reader::new(self.0);
        core::iter::from_fn(move || (!rest.is_empty()).then(|| rest.text().expect("checked when it was read")))
    }
}

impl<'a> Relayed<'a> {
    pub fn write(&self, buf: &mut Vec<u8>) {
        let mut w = Writer(buf);
        w.run(self.to);
        w.run(self.by);
        w.varint(self.kind.0.into());
        w.0.extend_from_slice(self.data);
    }

    pub fn read(bytes: &'a [u8]) -> Read<Relayed<'a>> {
        let r = &mut Reader::new(bytes);
        Ok(Relayed { to: r.run()?, by: r.run()?, kind: ItemKind(r.short()?), data: r.rest() })
    }
}

/// `key`, or `key=value`.
pub fn is_tag(tag: &str) -> bool {
    is_meta_key(tag.split_once('=').map_or(tag, |(key, _)| key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(all: &[&str]) -> Vec<u8> {
        let mut buf = Vec::new();
        all.iter().for_each(|text| Texts::push(&mut buf, text));
        buf
    }

    fn written(terms: &Terms<'_>) -> Vec<u8> {
        let mut buf = Vec::new();
        terms.write(&mut buf);
        buf
    }

    #[test]
    fn terms_are_read_as_they_were_written() {
        let (names, tags) = (texts(&["a", "b"]), texts(&["db", "zone=eu=1"]));
        let (names, tags) = (Texts(&names), Texts(&tags));
        let terms = Terms { id: 300, patience: 1_600, acks: true, relay: COPIES_MAX, names, tags };
        let bytes = written(&terms);
        assert_eq!(Terms::read(&bytes), Ok(terms));
        assert!(terms.names.iter().eq(["a", "b"]) && terms.tags.iter().eq(["db", "zone=eu=1"]));
        let longer = [&bytes[..], b"of another age"].concat();
        assert_eq!(Terms::read(&longer), Ok(terms));
    }

    #[test]
    fn what_no_asker_says_is_malformed() {
        let good = Terms { id: 1, patience: 1, acks: false, relay: 0, names: Texts(&[]), tags: Texts(&[]) };
        let (nobody, line, no_key) = (texts(&[""]), texts(&["a\nb"]), texts(&["=value"]));
        let many = texts(&["a"; TERMS_MAX]);
        for (what, bad) in [
            ("more copies than may be", Terms { relay: COPIES_MAX + 1, ..good }),
            ("nobody's name", Terms { names: Texts(&nobody), ..good }),
            ("a name with a line in it", Terms { names: Texts(&line), ..good }),
            ("a tag without a key", Terms { tags: Texts(&no_key), ..good }),
            ("half a name", Terms { names: Texts(&[5, b'a']), ..good }),
            ("more names than fit", Terms { names: Texts(&many), ..good }),
        ] {
            assert_eq!(Terms::read(&written(&bad)), Err(Malformed), "{what}");
        }
    }
}
