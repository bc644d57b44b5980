//! Anti-entropy over the live members: what rumors missed is found and mended.
//!
//! Every PING and ACK carries the fingerprint of the sender's live table (8 bytes). Equal: nothing more to
//! say. Different, and no news is under way that would explain it:
//!
//! ```text
//!   A ── DIGEST: sums of 2^b buckets ──► B     B compares them with its own
//!   A ◄─ SUMMARY of each unequal bucket ─ B     (run, incarnation, state version) of B's members in it
//!   A ── WANT what B has newer ─────────► B     and at once: RECORD, DEAD, LEFT where A knows better
//!   A ◄─ RECORD … ─────────────────────── B
//! ```
//!
//! So the cost follows the number of differing members and not the size of the table. When a burst of news has
//! died down, each member also compares notes with one other, without waiting for its next probe.
//! A newcomer, which differs in everything, pulls the table part by part (TABLE_PULL): the receiver sets the pace.

use super::Cx;
use crate::members::{Members, bucket};
use crate::outbox::Destination;
use crate::telling::Telling;
use crate::time::{Duration, Instant};
use crate::view::MemberState;
use crate::wire::frame::{BUCKET_BITS_MAX, Entries, Frame, SummaryEntry};

/// Members in a bucket that we aim at.
const BUCKET_AIM: usize = 8;

#[derive(Debug)]
pub struct AntiEntropy {
    /// The fingerprint we knew last, and when it came to be.
    seen: u64,
    changed: Instant,
    /// When to compare notes after news.
    compare: Option<Instant>,
    compared: Option<Instant>,
    /// When to exchange digests whatever the fingerprints say.
    periodic: Instant,
    asked: Option<Instant>,
}

/// What its time has come for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Ping somebody, to see whether the fingerprints agree.
    Compare,
    /// Exchange digests with somebody.
    Exchange,
}

impl AntiEntropy {
    pub fn new(now: Instant, periodic: Duration) -> AntiEntropy {
        AntiEntropy { seen: 0, changed: now, compare: None, compared: None, periodic: now + periodic, asked: None }
    }

    /// When the live table last changed.
    pub fn changed(&self) -> Instant {
        self.changed
    }

    /// Called at the end of every turn.
    pub fn watch(&mut self, cx: &mut Cx<'_>, members: &Members) {
        if self.seen == members.fingerprint() {
            return;
        }
        self.seen = members.fingerprint();
        self.changed = cx.now.mono;
        // Once a period is enough in a cluster that always changes; a newcomer does not wait for that.
        let quiet = cx.now.mono + cx.config.gossip_interval;
        let spaced = self.compared.map_or(quiet, |at| at + cx.config.gossip_interval * 2);
        self.compare = Some(quiet.max(spaced));
    }

    pub fn deadline(&self, members: &Members) -> Option<Instant> {
        if members.live_len() < 2 {
            return None;
        }
        Some(self.compare.map_or(self.periodic, |at| at.min(self.periodic)))
    }

    pub fn on_deadline(&mut self, cx: &mut Cx<'_>, members: &Members) -> Option<Due> {
        if members.live_len() < 2 {
            return None;
        }
        let now = cx.now.mono;
        if self.compare.is_some_and(|at| at <= now) {
            self.compare = None;
            self.compared = Some(now);
            return Some(Due::Compare);
        }
        if self.periodic <= now {
            let interval = cx.config.sync_interval;
            // A quarter of jitter, or nodes that began together would exchange together for ever.
            let jitter = cx.rng.below(crate::time::nanos(interval) / 4 + 1);
            self.periodic = now + interval - Duration::from_nanos(jitter);
            return Some(Due::Exchange);
        }
        None
    }

    /// A member's fingerprint came with its ACK.
    pub fn on_fingerprint(&mut self, cx: &mut Cx<'_>, members: &Members, from: Destination, theirs: u64) {
        let now = cx.now.mono;
        let rest = cx.config.gossip_interval;
        let explained = now.since(self.changed) < rest || self.asked.is_some_and(|at| now.since(at) < rest);
        if theirs != members.fingerprint() && theirs != 0 && cx.config.sync_on_mismatch && !explained {
            self.exchange(cx, members, from);
        }
    }

    pub fn exchange(&mut self, cx: &mut Cx<'_>, members: &Members, with: Destination) {
        self.asked = Some(cx.now.mono);
        let bits = (members.live_len() / BUCKET_AIM).next_power_of_two().ilog2().min(BUCKET_BITS_MAX);
        let (mut sums, mut bytes) = ([0u32; 1 << BUCKET_BITS_MAX], [0u8; 4 << BUCKET_BITS_MAX]);
        let n = 1 << bits;
        members.sums(bits, &mut sums[..n]);
        for (sum, bytes) in sums[..n].iter().zip(bytes.chunks_exact_mut(4)) {
            bytes.copy_from_slice(&sum.to_le_bytes());
        }
        cx.out.send(with, &Frame::Digest { live: members.live_len() as u64, sums: &bytes[..4 * n] });
    }

    /// Answers with our members of each bucket that differs, from a random one on, within the byte budget:
    /// what does not fit is found the next time.
    pub fn on_digest(
        &mut self,
        cx: &mut Cx<'_>,
        members: &Members,
        telling: &mut Telling,
        from: Destination,
        sums: &[u8],
    ) {
        let n = sums.len() / 4;
        let bits = n.ilog2();
        let mut ours = [0u32; 1 << BUCKET_BITS_MAX];
        members.sums(bits, &mut ours[..n]);
        let first = cx.rng.index(n);
        let mut budget = cx.config.sync_packets * cx.config.max_datagram;
        for i in (0..n).map(|i| (first + i) % n) {
            if sums[4 * i..4 * i + 4] == ours[i].to_le_bytes() {
                continue;
            }
            let buf = telling.scratch();
            for (_, e) in members.live().filter(|(_, e)| bucket(e.run, bits) == i as u32) {
                Entries::push(
                    buf,
                    &SummaryEntry { run: e.run, incarnation: e.incarnation, version: e.state.version() },
                );
            }
            if buf.len() > budget {
                return;
            }
            budget -= buf.len();
            cx.out.send(from, &Frame::Summary { bits, bucket: i as u32, entries: Entries(buf) });
        }
    }

    /// Their members of one bucket: we ask for what they know better and tell what we know better.
    #[allow(clippy::too_many_arguments)] // A frame's fields, not a design.
    pub fn on_summary(
        &mut self,
        cx: &mut Cx<'_>,
        members: &Members,
        telling: &mut Telling,
        from: Destination,
        bits: u32,
        which: u32,
        entries: Entries<'_>,
    ) {
        let mut budget = (cx.config.sync_packets * cx.config.max_datagram) as isize;
        let newer = |t: &SummaryEntry| match members.find(t.run).and_then(|p| members.get(p)) {
            None => true,
            Some(e) => t.incarnation > e.incarnation || e.is_live() && t.version > e.state.version(),
        };
        let runs = telling.runs(entries.iter::<SummaryEntry>().filter(newer).map(|t| t.run));
        if !runs.0.is_empty() {
            cx.out.send(from, &Frame::Want { runs });
        }
        let now = cx.now.mono;
        let theirs = |run| entries.iter::<SummaryEntry>().find(|t| t.run == run);
        for (_, e) in members.live().filter(|(_, e)| bucket(e.run, bits) == which) {
            let better = theirs(e.run).is_none_or(|t| e.incarnation > t.incarnation || e.state.version() > t.version);
            if better && budget > 0 {
                let record = telling.record(now, cx.config, e);
                budget -= 64 + record.state.0.len() as isize;
                cx.out.send(from, &Frame::Record(record));
            }
        }
        for t in entries.iter::<SummaryEntry>() {
            let gone = members.find(t.run).and_then(|p| members.get(p));
            if let Some(e) = gone.filter(|e| e.status >= MemberState::Dead && t.incarnation <= e.incarnation) {
                cx.out.send(from, &telling.status(now, e, core::iter::empty()));
            }
        }
    }

    /// A newcomer's pull: records from its cursor on, then where to go on.
    pub fn on_table_pull(
        &self,
        cx: &mut Cx<'_>,
        members: &Members,
        telling: &mut Telling,
        from: Destination,
        cursor: u32,
    ) {
        let mut budget = (cx.config.sync_packets * cx.config.max_datagram) as isize;
        for (peer, e) in members.from_slot(cursor) {
            if budget <= 0 {
                cx.out.send(from, &Frame::TableNext { cursor: peer.slot });
                return;
            }
            if !e.is_live() || Some(e.run) == from.run {
                continue;
            }
            let record = telling.record(cx.now.mono, cx.config, e);
            budget -= 64 + record.state.0.len() as isize;
            cx.out.send(from, &Frame::Record(record));
        }
        cx.out.send(from, &Frame::TableNext { cursor: 0 });
    }
}
