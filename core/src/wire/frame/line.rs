//! One line for traces and transcripts.

use core::fmt;

use super::super::question::Terms;
use super::list::{StateEntry, SummaryEntry};
use super::{Frame, Gossip, Graft, Ihave, Item, ItemKind, Lane, Record};

impl fmt::Display for Frame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Frame::Hello { protocol, app, name, epoch } => {
                write!(
                    f,
                    "HELLO {name} epoch {} protocol {}-{} app {}>={}",
                    epoch.0, protocol.0, protocol.1, app.0, app.1
                )
            }
            Frame::Cookie { observed, .. } => write!(f, "COOKIE seen-as {observed}"),
            Frame::Refused { reason, text } => write!(f, "REFUSED {reason} {text:?}"),
            Frame::Join { record, seeks: None, .. } => write!(f, "JOIN {record}"),
            Frame::Join { record, seeks: Some(n), .. } => write!(f, "JOIN {record} seeks {n}"),
            Frame::Welcome { known_epoch, live, .. } => write!(f, "WELCOME live {live} known-epoch {}", known_epoch.0),
            Frame::Ping { seq, .. } => write!(f, "PING {seq}"),
            Frame::Ack { seq, .. } => write!(f, "ACK {seq}"),
            Frame::PingReq { seq, target, addr } => write!(f, "PING_REQ {seq} {target:?} {addr}"),
            Frame::Nack { seq } => write!(f, "NACK {seq}"),
            Frame::Heartbeats { idle, beats, .. } => write!(f, "HEARTBEATS of {} idle {idle}ms", beats.iter().count()),
            Frame::Record(record) => write!(f, "RECORD {record}"),
            Frame::Alive { run, incarnation } => write!(f, "ALIVE {run:?} {}", incarnation.0),
            Frame::Suspect { run, incarnation, accusers } => {
                write!(f, "SUSPECT {run:?} {} by {}", incarnation.0, accusers.iter().count())
            }
            Frame::Dead { run, incarnation, age } => write!(f, "DEAD {run:?} {} age {age}s", incarnation.0),
            Frame::Left { run, incarnation, age } => write!(f, "LEFT {run:?} {} age {age}s", incarnation.0),
            Frame::Stalled { run, left } => write!(f, "STALLED {run:?} for {left}s"),
            Frame::State { run, base, to, reset, entries } => {
                let n = entries.iter::<StateEntry<'_>>().count();
                write!(f, "STATE {run:?} {}..{} {n} keys{}", base.0, to.0, if reset { " reset" } else { "" })
            }
            Frame::StateNews { run, version } => write!(f, "STATE_NEWS {run:?} {}", version.0),
            Frame::StatePull { run, have } => write!(f, "STATE_PULL {run:?} {}", have.0),
            Frame::Digest { sums } => write!(f, "DIGEST of {} buckets", sums.len() / 4),
            Frame::Summary { bits, bucket, entries } => {
                write!(f, "SUMMARY {bucket}/{} {} members", 1u32 << bits, entries.iter::<SummaryEntry>().count())
            }
            Frame::Want { runs } => write!(f, "WANT {}", runs.iter().count()),
            Frame::TablePull { cursor } => write!(f, "TABLE_PULL {cursor}"),
            Frame::TableNext { cursor } => write!(f, "TABLE_NEXT {cursor}"),
            Frame::Message { topic, data } => write!(f, "MESSAGE {topic:?} {} B", data.len()),
            Frame::Item(item) => write!(f, "{item}"),
            Frame::ItemAck { lane, session, upto, room } => {
                write!(f, "ITEM_ACK {} {session} upto {upto} room {room}", lane_name(lane))
            }
            Frame::OverlayJoin => write!(f, "OVERLAY_JOIN"),
            Frame::ForwardJoin { ttl, node } => write!(f, "FORWARD_JOIN {:?} ttl {ttl}", node.run),
            Frame::Neighbor { urgent, .. } => write!(f, "NEIGHBOR{}", if urgent { " urgent" } else { "" }),
            Frame::NeighborReply { accepted, .. } => {
                write!(f, "NEIGHBOR_REPLY {}", if accepted { "yes" } else { "no" })
            }
            Frame::Disconnect { instead: None } => write!(f, "DISCONNECT"),
            Frame::Disconnect { instead: Some(node) } => write!(f, "DISCONNECT instead {:?}", node.run),
            Frame::Shuffle { ttl, node, contacts } => {
                write!(f, "SHUFFLE of {:?} ttl {ttl} {} contacts", node.run, contacts.iter().count())
            }
            Frame::ShuffleReply { contacts } => write!(f, "SHUFFLE_REPLY {} contacts", contacts.iter().count()),
            Frame::Gossip(Gossip { origin, seq, hops, way, topic, data, after, terms, .. }) => {
                let how = [(way.repair, " repair"), (way.lot, " by lot")].map(|(is, how)| if is { how } else { "" });
                write!(f, "GOSSIP {origin:?} {seq} hops {hops}{} {topic:?} {} B", how.concat(), data.len())?;
                if after > 0 {
                    write!(f, " after {after}")?;
                }
                Terms::read(terms).map_or(Ok(()), |terms| write!(f, ", question {}", terms.id))
            }
            Frame::Ihave(Ihave { origin, first, last, hops, .. }) => {
                write!(f, "IHAVE {origin:?} {first}..{last} hops {hops}")
            }
            Frame::Graft(Graft { origin, grow, spans, .. }) => {
                write!(f, "GRAFT {origin:?}{}", if grow { " grow" } else { "" })?;
                spans.iter().try_for_each(|(first, last)| write!(f, " {first}..{last}"))
            }
            Frame::Prune { origin, own } => write!(f, "PRUNE {origin:?}{}", if own { " own" } else { "" }),
            Frame::Idontwant { origin, seq } => write!(f, "IDONTWANT {origin:?} {seq}"),
            Frame::Vector { ask, marks, .. } => {
                write!(f, "VECTOR of {}{}", marks.iter().count(), if ask { " ask" } else { "" })
            }
            Frame::Gone { origin, upto, before, .. } => {
                write!(f, "GONE {origin:?} up to {upto}{}", if before { " before" } else { "" })
            }
        }
    }
}

impl fmt::Display for Item<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Item { kind, id, rest, topic, data, .. } = self;
        write!(f, "ITEM {} {} {}: ", lane_name(self.lane), self.session, self.seq)?;
        match *kind {
            ItemKind::MESSAGE => write!(f, "message")?,
            ItemKind::REQUEST => write!(f, "request {id}")?,
            ItemKind::REPLY => write!(f, "reply {id} status {}", self.status)?,
            ItemKind::ANSWER => write!(f, "answer {id} status {}", self.status)?,
            ItemKind::HEARD => write!(f, "heard {id}")?,
            ItemKind::RELAY => write!(f, "relay {id}")?,
            ItemKind(other) => match ItemKind::OF_STREAMS.iter().find(|(known, _)| known == kind) {
                Some((_, name)) => write!(f, "{name} {id} status {} at {}", self.status, self.after)?,
                None => write!(f, "kind {other}")?,
            },
        }
        write!(f, " {topic:?} {} B", data.len())?;
        if *rest > 0 { write!(f, ", {rest} B follow") } else { Ok(()) }
    }
}

impl fmt::Display for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} epoch {} inc {} at {}", self.name, self.run, self.epoch.0, self.incarnation.0, self.addr)
    }
}

fn lane_name(lane: Lane) -> &'static str {
    match lane {
        Lane::Small => "small",
        Lane::Bulk => "bulk",
        Lane::Stream => "stream",
    }
}
