//! What a frame has many of: one after another in its bytes, checked when the frame is read, and read again as they are used.

use alloc::vec::Vec;

use super::super::cursor::{Malformed, Read, Reader, Writer};
use super::{BEATS_MAX, CONTACTS_MAX, Contact, MARKS_MAX, SPANS_MAX};
use crate::config::is_meta_key;
use crate::id::{COUNTER_MAX, Epoch, Incarnation, RunId, Version};

/// Length-prefixed records one after another, checked when the frame was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Entries<'a>(pub &'a [u8]);

/// Run ids one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Runs<'a>(pub &'a [u8]);

/// How far members have counted, one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Beats<'a>(pub &'a [u8]);

/// One key of a member's metadata; `None` is a deleted one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateEntry<'a> {
    pub key: &'a str,
    pub version: Version,
    pub value: Option<&'a [u8]>,
}

/// What one member's bucket holds about another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SummaryEntry {
    pub run: RunId,
    pub epoch: Epoch,
    pub incarnation: Incarnation,
    pub version: Version,
}

/// Contacts one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Contacts<'a>(pub &'a [u8]);

/// Stretches of a sequence, (first, last), one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Spans<'a>(pub &'a [u8]);

/// How far sequences have been heard, one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Marks<'a>(pub &'a [u8]);

/// Reads one element of [`Entries`].
pub trait Entry<'a>: Sized {
    fn read(r: &mut Reader<'a>) -> Read<Self>;
    fn write(&self, w: &mut Writer<'_>);
}

impl<'a> Entry<'a> for StateEntry<'a> {
    fn read(r: &mut Reader<'a>) -> Read<StateEntry<'a>> {
        let (key, version) = (r.text()?, Version(r.counter()?));
        if !is_meta_key(key) {
            return Err(Malformed);
        }
        let value = if r.value::<bool>()? { Some(r.bytes()?) } else { None };
        Ok(StateEntry { key, version, value })
    }

    fn write(&self, w: &mut Writer<'_>) {
        w.text(self.key);
        w.varint(self.version.0);
        w.byte(self.value.is_some().into());
        if let Some(value) = self.value {
            w.bytes(value);
        }
    }
}

impl<'a> Entry<'a> for SummaryEntry {
    fn read(r: &mut Reader<'a>) -> Read<SummaryEntry> {
        Ok(SummaryEntry {
            run: r.run()?,
            epoch: Epoch(r.counter()?),
            incarnation: Incarnation(r.counter()?),
            version: Version(r.counter()?),
        })
    }

    fn write(&self, w: &mut Writer<'_>) {
        w.run(self.run);
        w.varint(self.epoch.0);
        w.varint(self.incarnation.0);
        w.varint(self.version.0);
    }
}

impl<'a> Entries<'a> {
    pub(super) fn read<E: Entry<'a>>(r: &mut Reader<'a>, max: usize) -> Read<Entries<'a>> {
        let entries = Entries(r.bytes()?);
        let mut rest = Reader::new(entries.0);
        let mut count = 0;
        while !rest.is_empty() {
            E::read(&mut Reader::new(rest.bytes()?))?;
            count += 1;
        }
        if count > max { Err(Malformed) } else { Ok(entries) }
    }

    /// Appends one entry to a buffer that will become `Entries`.
    pub fn push<E: Entry<'a>>(buf: &mut Vec<u8>, entry: &E) {
        Writer(buf).prefixed(|w| entry.write(w));
    }

    pub fn iter<E: Entry<'a>>(self) -> impl Iterator<Item = E> {
        let mut rest = Reader::new(self.0);
        core::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let body = rest.bytes().expect("checked when the frame was read");
            Some(E::read(&mut Reader::new(body)).expect("checked when the frame was read"))
        })
    }
}

impl<'a> Runs<'a> {
    pub(super) fn read(r: &mut Reader<'a>, max: usize) -> Read<Runs<'a>> {
        let bytes = r.bytes()?;
        if bytes.len() % 8 != 0 || bytes.len() / 8 > max {
            return Err(Malformed);
        }
        Ok(Runs(bytes))
    }

    pub fn push(buf: &mut Vec<u8>, run: RunId) {
        Writer(buf).run(run);
    }

    /// Zero is nobody, and is left out.
    pub fn iter(self) -> impl Iterator<Item = RunId> + 'a {
        self.0.chunks_exact(8).filter_map(|c| RunId::new(u64::from_le_bytes(c.try_into().expect("eight bytes"))))
    }
}

impl<'a> Beats<'a> {
    pub(super) fn read(r: &mut Reader<'a>) -> Read<Beats<'a>> {
        let beats = Beats(r.bytes()?);
        let (mut rest, mut count) = (Reader::new(beats.0), 0);
        while !rest.is_empty() {
            rest.run()?;
            rest.counter()?;
            count += 1;
        }
        if count > BEATS_MAX { Err(Malformed) } else { Ok(beats) }
    }

    pub fn push(buf: &mut Vec<u8>, run: RunId, count: u64) {
        Writer(buf).run(run);
        Writer(buf).varint(count);
    }

    pub fn iter(self) -> impl Iterator<Item = (RunId, u64)> + 'a {
        let mut rest = Reader::new(self.0);
        core::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let checked = "checked when the frame was read";
            Some((rest.run().expect(checked), rest.counter().expect(checked)))
        })
    }
}

impl<'a> Contacts<'a> {
    pub(super) fn read(r: &mut Reader<'a>) -> Read<Contacts<'a>> {
        let bytes = r.bytes()?;
        count(bytes, CONTACTS_MAX, Contact::read).map(|()| Contacts(bytes))
    }

    pub fn push(buf: &mut Vec<u8>, contact: Contact) {
        contact.write(&mut Writer(buf));
    }

    pub fn iter(self) -> impl Iterator<Item = Contact> + 'a {
        each(self.0, Contact::read)
    }
}

impl<'a> Spans<'a> {
    pub(super) fn read(r: &mut Reader<'a>) -> Read<Spans<'a>> {
        let bytes = r.bytes()?;
        count(bytes, SPANS_MAX, span).map(|()| Spans(bytes))
    }

    pub fn push(buf: &mut Vec<u8>, first: u64, last: u64) {
        Writer(buf).varint(first);
        Writer(buf).varint(last - first);
    }

    pub fn iter(self) -> impl Iterator<Item = (u64, u64)> + 'a {
        each(self.0, span)
    }
}

fn span(r: &mut Reader<'_>) -> Read<(u64, u64)> {
    let (first, more) = (r.counter()?, r.counter()?);
    let last = first + more;
    if last <= COUNTER_MAX { Ok((first, last)) } else { Err(Malformed) }
}

impl<'a> Marks<'a> {
    pub(super) fn read(r: &mut Reader<'a>) -> Read<Marks<'a>> {
        let bytes = r.bytes()?;
        count(bytes, MARKS_MAX, mark).map(|()| Marks(bytes))
    }

    pub fn push(buf: &mut Vec<u8>, run: RunId, seq: u64) {
        Writer(buf).run(run);
        Writer(buf).varint(seq);
    }

    pub fn iter(self) -> impl Iterator<Item = (RunId, u64)> + 'a {
        each(self.0, mark)
    }
}

fn mark(r: &mut Reader<'_>) -> Read<(RunId, u64)> {
    Ok((r.run()?, r.counter()?))
}

/// Checks elements that are one after another.
fn count<'a, T>(bytes: &'a [u8], max: usize, read: impl Fn(&mut Reader<'a>) -> Read<T>) -> Read<()> {
    let (mut rest, mut count) = (Reader::new(bytes), 0);
    while !rest.is_empty() {
        read(&mut rest)?;
        count += 1;
    }
    if count > max { Err(Malformed) } else { Ok(()) }
}

fn each<'a, T>(bytes: &'a [u8], read: impl Fn(&mut Reader<'a>) -> Read<T>) -> impl Iterator<Item = T> {
    let mut rest = Reader::new(bytes);
    core::iter::from_fn(move || (!rest.is_empty()).then(|| read(&mut rest).expect("checked when the frame was read")))
}
