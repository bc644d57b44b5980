//! The bytes of a frame: each field as it is written, and as it is read and checked.

use alloc::vec::Vec;

use super::super::cursor::{Malformed, Read, Reader, Writer, cut};
use super::super::question::Terms;
use super::kind::*;
use super::list::{Beats, Contacts, Entries, Marks, Runs, Spans, StateEntry, SummaryEntry};
use super::{
    ACCUSERS_MAX, BUCKET_BITS_MAX, COOKIE_LEN, Contact, Frame, Gossip, Graft, HELLO_LEN, Ihave, Item, ItemKind, Lane,
    REFUSED_TEXT_MAX, Record, STATE_ENTRIES_MAX, SUMMARY_MAX, Way,
};
use crate::id::{Epoch, Incarnation, NodeName, Version};
use crate::message::is_topic;

impl<'a> Frame<'a> {
    /// Appends the frame to `buf`.
    #[inline]
    pub fn write(&self, buf: &mut Vec<u8>) {
        let mut w = Writer(buf);
        w.byte(self.kind());
        w.prefixed(|w| self.write_body(w));
    }

    #[inline]
    fn write_body(&self, w: &mut Writer<'_>) {
        match *self {
            Frame::Hello { protocol, app, name, epoch } => {
                let start = w.0.len();
                [protocol.0, protocol.1, app.0, app.1].iter().for_each(|&v| w.varint(v.into()));
                w.text(name);
                w.varint(epoch.0);
                let len = (w.0.len() - start).max(HELLO_LEN);
                w.0.resize(start + len, 0);
            }
            Frame::Cookie { cookie, observed } => {
                w.0.extend_from_slice(&cookie);
                w.addr(observed);
            }
            Frame::Refused { reason, text } => {
                w.varint(reason.into());
                w.text(cut(text, REFUSED_TEXT_MAX));
            }
            Frame::Join { cookie, record, seeks } => {
                w.0.extend_from_slice(&cookie);
                record.write(w);
                w.varint(seeks.map_or(0, |n| 1 + u64::from(n)));
            }
            Frame::Welcome { known_epoch, live, fingerprint } => {
                w.varint(known_epoch.0);
                w.varint(live);
                w.0.extend_from_slice(&fingerprint.to_le_bytes());
            }
            Frame::Ping { seq, beat, fingerprint } | Frame::Ack { seq, beat, fingerprint } => {
                w.varint(seq);
                w.varint(beat);
                // Left out only because nothing follows it; a field added after it brings it back.
                if fingerprint != 0 {
                    w.0.extend_from_slice(&fingerprint.to_le_bytes());
                }
            }
            Frame::PingReq { seq, target, addr } => {
                w.varint(seq);
                w.run(target);
                w.addr(addr);
            }
            Frame::Nack { seq } => w.varint(seq),
            Frame::Heartbeats { idle, fingerprint, beats } => {
                w.varint(idle);
                w.0.extend_from_slice(&fingerprint.to_le_bytes());
                w.bytes(beats.0);
            }
            Frame::Record(record) => record.write(w),
            Frame::Alive { run, incarnation } => {
                w.run(run);
                w.varint(incarnation.0);
            }
            Frame::Suspect { run, incarnation, accusers } => {
                w.run(run);
                w.varint(incarnation.0);
                w.bytes(accusers.0);
            }
            Frame::Dead { run, incarnation, age } | Frame::Left { run, incarnation, age } => {
                w.run(run);
                w.varint(incarnation.0);
                w.varint(age);
            }
            Frame::Stalled { run, left } => {
                w.run(run);
                w.varint(left);
            }
            Frame::State { run, base, to, reset, entries } => {
                w.run(run);
                w.varint(base.0);
                w.varint(to.0);
                w.byte(reset.into());
                w.bytes(entries.0);
            }
            Frame::StateNews { run, version } | Frame::StatePull { run, have: version } => {
                w.run(run);
                w.varint(version.0);
            }
            Frame::Digest { sums } => w.bytes(sums),
            Frame::Summary { bits, bucket, entries } => {
                w.varint(bits.into());
                w.varint(bucket.into());
                w.bytes(entries.0);
            }
            Frame::Want { runs } => w.bytes(runs.0),
            Frame::TablePull { cursor } | Frame::TableNext { cursor } => w.varint(cursor.into()),
            Frame::Message { topic, data } => {
                w.text(topic);
                w.bytes(data);
            }
            Frame::Item(item) => item.write(w),
            Frame::ItemAck { lane, session, upto, room } => {
                w.byte(lane.flags());
                [session, upto, room].into_iter().for_each(|v| w.varint(v));
            }
            Frame::OverlayJoin => {}
            Frame::Disconnect { instead } => {
                w.byte(instead.is_some().into());
                instead.iter().for_each(|node| node.write(w));
            }
            Frame::ForwardJoin { ttl, node } => {
                w.varint(ttl.into());
                node.write(w);
            }
            Frame::Neighbor { urgent: yes, record } | Frame::NeighborReply { accepted: yes, record } => {
                w.byte(flags(yes, record.is_some()));
                record.iter().for_each(|record| record.write(w));
            }
            Frame::Shuffle { ttl, node, contacts } => {
                w.varint(ttl.into());
                node.write(w);
                w.bytes(contacts.0);
            }
            Frame::ShuffleReply { contacts } => w.bytes(contacts.0),
            Frame::Gossip(gossip) => gossip.write(w),
            Frame::Ihave(Ihave { origin, first, last, hops, own }) => {
                w.run(origin);
                w.varint(first);
                w.varint(last);
                w.varint(hops.into());
                w.byte(own.into());
            }
            Frame::Graft(Graft { origin, grow, own, here, spans }) => {
                w.run(origin);
                w.byte(flags(grow, own));
                w.varint(here);
                w.bytes(spans.0);
            }
            Frame::Prune { origin, own } => {
                w.run(origin);
                w.byte(own.into());
            }
            Frame::Idontwant { origin, seq } => {
                w.run(origin);
                w.varint(seq);
            }
            Frame::Vector { ask, neighbour, marks } => {
                w.byte(flags(ask, neighbour));
                w.bytes(marks.0);
            }
            Frame::Gone { origin, upto, before, age } => {
                w.run(origin);
                w.varint(upto);
                w.byte(before.into());
                w.varint(age);
            }
        }
    }

    #[inline]
    fn read_body(kind: u8, r: &mut Reader<'a>) -> Read<Option<Frame<'a>>> {
        Ok(Some(match kind {
            // One without its padding has not paid for an answer.
            HELLO if r.len() < HELLO_LEN => return Err(Malformed),
            HELLO => Frame::Hello {
                protocol: (r.short()?, r.short()?),
                app: (r.short()?, r.short()?),
                name: name(r)?,
                epoch: Epoch(r.counter()?),
            },
            COOKIE => Frame::Cookie { cookie: cookie(r)?, observed: r.addr()? },
            REFUSED => Frame::Refused { reason: r.short()?, text: r.text()? },
            JOIN => {
                let (cookie, record) = (cookie(r)?, Record::read(r)?);
                Frame::Join { cookie, record, seeks: r.short()?.checked_sub(1) }
            }
            WELCOME => Frame::Welcome { known_epoch: Epoch(r.counter()?), live: r.varint()?, fingerprint: fixed(r)? },
            PING => Frame::Ping { seq: r.varint()?, beat: r.counter()?, fingerprint: fixed(r)? },
            ACK => Frame::Ack { seq: r.varint()?, beat: r.counter()?, fingerprint: fixed(r)? },
            PING_REQ => Frame::PingReq { seq: r.varint()?, target: r.run()?, addr: r.addr()? },
            NACK => Frame::Nack { seq: r.varint()? },
            HEARTBEATS => Frame::Heartbeats { idle: r.counter()?, fingerprint: fixed(r)?, beats: Beats::read(r)? },
            RECORD => Frame::Record(Record::read(r)?),
            ALIVE => Frame::Alive { run: r.run()?, incarnation: Incarnation(r.counter()?) },
            SUSPECT => Frame::Suspect {
                run: r.run()?,
                incarnation: Incarnation(r.counter()?),
                accusers: Runs::read(r, ACCUSERS_MAX)?,
            },
            DEAD => Frame::Dead { run: r.run()?, incarnation: Incarnation(r.counter()?), age: r.counter()? },
            LEFT => Frame::Left { run: r.run()?, incarnation: Incarnation(r.counter()?), age: r.counter()? },
            STALLED => Frame::Stalled { run: r.run()?, left: r.counter()? },
            STATE => Frame::State {
                run: r.run()?,
                base: Version(r.counter()?),
                to: Version(r.counter()?),
                reset: r.byte()? != 0,
                entries: Entries::read::<StateEntry<'_>>(r, STATE_ENTRIES_MAX)?,
            },
            STATE_NEWS => Frame::StateNews { run: r.run()?, version: Version(r.counter()?) },
            STATE_PULL => Frame::StatePull { run: r.run()?, have: Version(r.counter()?) },
            DIGEST => {
                let sums = r.bytes()?;
                let buckets = sums.len() / 4;
                if sums.len() % 4 != 0 || !buckets.is_power_of_two() || buckets > 1 << BUCKET_BITS_MAX {
                    return Err(Malformed);
                }
                Frame::Digest { sums }
            }
            SUMMARY => {
                let (bits, bucket) = (r.short()?, r.short()?);
                if bits > BUCKET_BITS_MAX || bucket >> bits != 0 {
                    return Err(Malformed);
                }
                Frame::Summary { bits, bucket, entries: Entries::read::<SummaryEntry>(r, SUMMARY_MAX)? }
            }
            WANT => Frame::Want { runs: Runs::read(r, usize::MAX)? },
            TABLE_PULL => Frame::TablePull { cursor: r.short()? },
            TABLE_NEXT => Frame::TableNext { cursor: r.short()? },
            MESSAGE => Frame::Message { topic: topic(r)?, data: r.bytes()? },
            ITEM => Frame::Item(Item::read(r)?),
            ITEM_ACK => Frame::ItemAck {
                lane: Lane::of(r.byte()?),
                session: r.counter()?,
                upto: r.counter()?,
                room: r.varint()?,
            },
            OVERLAY_JOIN => Frame::OverlayJoin,
            FORWARD_JOIN => Frame::ForwardJoin { ttl: r.short()?, node: Contact::read(r)? },
            NEIGHBOR => {
                let (urgent, record) = with_record(r)?;
                Frame::Neighbor { urgent, record }
            }
            NEIGHBOR_REPLY => {
                let (accepted, record) = with_record(r)?;
                Frame::NeighborReply { accepted, record }
            }
            DISCONNECT => {
                let (instead, _) = bits(r)?;
                Frame::Disconnect { instead: instead.then(|| Contact::read(r)).transpose()? }
            }
            SHUFFLE => Frame::Shuffle { ttl: r.short()?, node: Contact::read(r)?, contacts: Contacts::read(r)? },
            SHUFFLE_REPLY => Frame::ShuffleReply { contacts: Contacts::read(r)? },
            GOSSIP => Frame::Gossip(Gossip::read(r)?),
            IHAVE => {
                let (origin, first, last) = (r.run()?, r.counter()?, r.counter()?);
                if first > last {
                    return Err(Malformed);
                }
                Frame::Ihave(Ihave { origin, first, last, hops: r.short()?, own: bits(r)?.0 })
            }
            GRAFT => {
                let (origin, (grow, own)) = (r.run()?, bits(r)?);
                Frame::Graft(Graft { origin, grow, own, here: r.varint()?, spans: Spans::read(r)? })
            }
            PRUNE => Frame::Prune { origin: r.run()?, own: bits(r)?.0 },
            IDONTWANT => Frame::Idontwant { origin: r.run()?, seq: r.counter()? },
            VECTOR => {
                let (ask, neighbour) = bits(r)?;
                Frame::Vector { ask, neighbour, marks: Marks::read(r)? }
            }
            GONE => Frame::Gone { origin: r.run()?, upto: r.counter()?, before: bits(r)?.0, age: r.varint()? },
            _ => return Ok(None),
        }))
    }
}

/// A whole packet's frames. Checked to the last byte before the first frame is handed out, so that no
/// packet is ever half applied.
#[derive(Clone, Copy, Debug)]
pub struct Frames<'a>(Reader<'a>);

impl<'a> Frames<'a> {
    pub fn parse(bytes: &'a [u8]) -> Read<Frames<'a>> {
        let mut r = Reader::new(bytes);
        while !r.is_empty() {
            read_frame(&mut r)?;
        }
        Ok(Frames(Reader::new(bytes)))
    }

    /// `parse` that keeps the first frames as it reads them, so that they need not be read again: as many as `kept` has
    /// room for. The rest of the packet is checked, too, and is the second part.
    pub fn parse_into<'b>(bytes: &'a [u8], kept: &'b mut [Frame<'a>]) -> Read<(&'b [Frame<'a>], Frames<'a>)> {
        let (mut r, mut n) = (Reader::new(bytes), 0);
        while n < kept.len() && !r.is_empty() {
            if let Some(frame) = read_frame(&mut r)? {
                kept[n] = frame;
                n += 1;
            }
        }
        Ok((&kept[..n], Frames::parse(r.rest())?))
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Frame<'a>;

    fn next(&mut self) -> Option<Frame<'a>> {
        while !self.0.is_empty() {
            if let Some(frame) = read_frame(&mut self.0).expect("checked by parse") {
                return Some(frame);
            }
        }
        None
    }
}

/// `None` is a kind that we do not know.
#[inline]
fn read_frame<'a>(r: &mut Reader<'a>) -> Read<Option<Frame<'a>>> {
    let kind = r.byte()?;
    if r.is_empty() {
        return Err(Malformed);
    }
    Frame::read_body(kind, &mut Reader::new(r.bytes()?))
}

impl<'a> Record<'a> {
    fn write(&self, w: &mut Writer<'_>) {
        w.prefixed(|w| {
            w.text(self.name);
            w.run(self.run);
            w.varint(self.epoch.0);
            w.varint(self.incarnation.0);
            w.addr(self.addr);
            w.varint(self.protocol.into());
            w.varint(self.app_version.into());
            w.varint(self.version.0);
            w.varint(self.age);
            w.bytes(self.state.0);
        });
    }

    fn read(r: &mut Reader<'a>) -> Read<Record<'a>> {
        let r = &mut Reader::new(r.bytes()?);
        Ok(Record {
            name: name(r)?,
            run: r.run()?,
            epoch: Epoch(r.counter()?),
            incarnation: Incarnation(r.counter()?),
            addr: r.addr()?,
            protocol: r.short()?,
            app_version: r.short()?,
            version: Version(r.counter()?),
            age: r.counter()?,
            state: Entries::read::<StateEntry<'_>>(r, STATE_ENTRIES_MAX)?,
        })
    }
}

impl<'a> Item<'a> {
    #[inline]
    fn write(&self, w: &mut Writer<'_>) {
        w.byte(self.lane.flags() | (u8::from(self.prompt) * PROMPT));
        [self.session, self.seq, self.behind, self.kind.0.into(), self.id, self.status.into(), self.rest, self.after]
            .into_iter()
            .for_each(|v| w.varint(v));
        w.text(self.topic);
        w.bytes(self.data);
    }

    #[inline]
    fn read(r: &mut Reader<'a>) -> Read<Item<'a>> {
        let flags = r.byte()?;
        let (session, seq, behind) = (r.counter()?, r.counter()?, r.varint()?);
        if behind > seq {
            return Err(Malformed);
        }
        Ok(Item {
            lane: Lane::of(flags),
            prompt: flags & PROMPT != 0,
            session,
            seq,
            behind,
            kind: ItemKind(r.short()?),
            id: r.varint()?,
            status: r.short()?,
            rest: r.varint()?,
            after: r.counter()?,
            topic: topic(r)?,
            data: r.bytes()?,
        })
    }
}

const BULK: u8 = 1;
const PROMPT: u8 = 2;
const STREAM: u8 = 4;

impl Lane {
    fn of(flags: u8) -> Lane {
        match (flags & STREAM != 0, flags & BULK != 0) {
            (true, _) => Lane::Stream,
            (false, true) => Lane::Bulk,
            (false, false) => Lane::Small,
        }
    }

    fn flags(self) -> u8 {
        match self {
            Lane::Small => 0,
            Lane::Bulk => BULK,
            Lane::Stream => STREAM,
        }
    }
}

impl<'a> Gossip<'a> {
    fn write(&self, w: &mut Writer<'_>) {
        w.run(self.origin);
        w.varint(self.seq);
        w.varint(self.hops.into());
        w.varint(self.age);
        let Way { repair, own, lot } = self.way;
        w.byte(flags(repair, own) | u8::from(self.by.is_some()) << 2 | u8::from(lot) << 3);
        w.text(self.topic);
        w.bytes(self.data);
        w.varint(if self.after > 0 { self.seq - self.after } else { 0 });
        w.bytes(self.terms);
        if let Some((name, epoch)) = self.by {
            w.text(name);
            w.varint(epoch.0);
        }
    }

    fn read(r: &mut Reader<'a>) -> Read<Gossip<'a>> {
        let (origin, seq, hops, age) = (r.run()?, r.counter()?, r.short()?, r.varint()?);
        let (flags, topic) = (r.byte()?, r.text()?);
        let way = Way { repair: flags & 1 != 0, own: flags & 2 != 0, lot: flags & 8 != 0 };
        if !is_topic(topic) {
            return Err(Malformed);
        }
        let (data, back, terms) = (r.bytes()?, r.varint()?, r.bytes()?);
        let after = match back {
            0 => 0,
            back => seq.checked_sub(back).filter(|&after| after > 0).ok_or(Malformed)?,
        };
        if !terms.is_empty() {
            Terms::read(terms)?;
        }
        let by = if flags & 4 != 0 { Some((name(r)?, Epoch(r.counter()?))) } else { None };
        Ok(Gossip { origin, seq, hops, age, way, topic, data, after, terms, by })
    }
}

impl Contact {
    pub(super) fn write(&self, w: &mut Writer<'_>) {
        w.run(self.run);
        w.addr(self.addr);
    }

    pub(super) fn read(r: &mut Reader<'_>) -> Read<Contact> {
        Ok(Contact { run: r.run()?, addr: r.addr()? })
    }
}

fn flags(first: bool, second: bool) -> u8 {
    u8::from(first) | u8::from(second) << 1
}

/// None where the body has ended.
fn bits(r: &mut Reader<'_>) -> Read<(bool, bool)> {
    let flags = if r.is_empty() { 0 } else { r.byte()? };
    Ok((flags & 1 != 0, flags & 2 != 0))
}

/// Yes or no, and the sender's record where it brings one.
fn with_record<'a>(r: &mut Reader<'a>) -> Read<(bool, Option<Record<'a>>)> {
    let (yes, has_record) = bits(r)?;
    Ok((yes, has_record.then(|| Record::read(r)).transpose()?))
}

fn name<'a>(r: &mut Reader<'a>) -> Read<&'a str> {
    let name = r.text()?;
    if NodeName::is_valid(name) { Ok(name) } else { Err(Malformed) }
}

fn topic<'a>(r: &mut Reader<'a>) -> Read<&'a str> {
    let topic = r.text()?;
    if is_topic(topic) { Ok(topic) } else { Err(Malformed) }
}

fn cookie(r: &mut Reader<'_>) -> Read<[u8; COOKIE_LEN]> {
    r.take(COOKIE_LEN)?.try_into().map_err(|_| Malformed)
}

fn fixed(r: &mut Reader<'_>) -> Read<u64> {
    if r.is_empty() {
        return Ok(0);
    }
    Ok(u64::from_le_bytes(r.take(8)?.try_into().map_err(|_| Malformed)?))
}
