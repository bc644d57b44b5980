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

use alloc::vec::Vec;

use super::Cx;
use crate::config::Membership;
use crate::members::{Entry, Members};
use crate::outbox::Destination;
use crate::telling::Telling;
use crate::time::{Duration, Instant};
use crate::view::MemberState;
use crate::wire::frame::{BUCKET_BITS_MAX, Entries, Frame, SUMMARY_MAX, SummaryEntry};

/// Notes are compared after so many gossip intervals of news without a pause.
const RESTLESS: u32 = 10;

/// Members in a bucket that we aim at.
const BUCKET_AIM: usize = 8;

impl SummaryEntry {
    fn of(e: &Entry) -> SummaryEntry {
        SummaryEntry { run: e.run, epoch: e.epoch, incarnation: e.incarnation, version: e.state.version() }
    }

    /// In something it is ahead of what another knows of the same run.
    fn surpasses(&self, other: &SummaryEntry) -> bool {
        self.epoch > other.epoch || self.incarnation > other.incarnation || self.version > other.version
    }
}

#[derive(Debug)]
pub struct AntiEntropy {
    /// Who lists neighbours only has nothing to compare.
    lists_all: bool,
    /// The fingerprint we knew last, and when it came to be.
    seen: u64,
    changed: Instant,
    /// The first change since notes were compared: in a cluster that never rests, quiet is not waited for.
    restless: Option<Instant>,
    /// When to compare notes after news.
    compare: Option<Instant>,
    compared: Option<Instant>,
    /// The next difference counts though there is news: there always is.
    overdue: bool,
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
    pub fn new(now: Instant, periodic: Duration, membership: Membership) -> AntiEntropy {
        AntiEntropy {
            lists_all: membership == Membership::Full,
            seen: 0,
            changed: now,
            restless: None,
            compare: None,
            compared: None,
            overdue: false,
            periodic: now + periodic,
            asked: None,
        }
    }

    /// When the live table last changed.
    pub fn changed(&self) -> Instant {
        self.changed
    }

    /// Called at the end of every turn.
    pub fn watch(&mut self, cx: &mut Cx<'_>, members: &Members) {
        if self.seen == members.fingerprint() || !self.lists_all {
            return;
        }
        self.seen = members.fingerprint();
        self.changed = cx.now.mono;
        if members.live_len() < 2 {
            // Nobody to compare with: what was due is not overdue when somebody comes.
            (self.restless, self.compare) = (None, None);
            return;
        }
        self.periodic = self.periodic.max(cx.now.mono);
        let since = *self.restless.get_or_insert(cx.now.mono);
        let quiet = cx.now.mono + cx.config.gossip_interval;
        let spaced = self.compared.map_or(quiet, |at| at + cx.config.gossip_interval * 2);
        let compare = quiet.max(spaced).min(since + cx.config.gossip_interval * RESTLESS);
        self.compare = cx.config.sync_on_mismatch.then_some(compare);
    }

    pub fn deadline(&self, members: &Members) -> Option<Instant> {
        if members.live_len() < 2 || !self.lists_all {
            return None;
        }
        Some(self.compare.map_or(self.periodic, |at| at.min(self.periodic)))
    }

    pub fn on_deadline(&mut self, cx: &mut Cx<'_>, members: &Members) -> Option<Due> {
        if members.live_len() < 2 || !self.lists_all {
            return None;
        }
        let now = cx.now.mono;
        if self.compare.is_some_and(|at| at <= now) {
            self.compare = None;
            self.compared = Some(now);
            self.overdue = self.restless.take().is_some_and(|at| now.since(at) >= cx.config.gossip_interval * RESTLESS);
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
        let fresh = now.since(self.changed) < rest && !core::mem::take(&mut self.overdue);
        let explained = fresh || self.asked.is_some_and(|at| now.since(at) < rest);
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
        cx.out.send(with, &Frame::Digest { sums: &bytes[..4 * n] });
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
            for (_, e) in members.in_bucket(bits, i as u32).take(SUMMARY_MAX) {
                Entries::push(buf, &SummaryEntry::of(e));
            }
            if budget == 0 {
                return;
            }
            budget = budget.saturating_sub(buf.len());
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
        let mut theirs: Vec<SummaryEntry> = entries.iter().collect();
        theirs.sort_unstable_by_key(|t| t.run);
        let newer = |t: &&SummaryEntry| match members.find(t.run).and_then(|p| members.get(p)) {
            None => true,
            Some(e) => t.incarnation > e.incarnation || e.is_live() && t.surpasses(&SummaryEntry::of(e)),
        };
        let runs = telling.runs(theirs.iter().filter(newer).map(|t| t.run));
        if !runs.0.is_empty() {
            cx.out.send(from, &Frame::Want { runs });
        }
        let now = cx.now.mono;
        for (_, e) in members.in_bucket(bits, which) {
            let told = theirs.binary_search_by_key(&e.run, |t| t.run).map(|i| &theirs[i]);
            let better = told.map_or(true, |t| SummaryEntry::of(e).surpasses(t));
            if better && budget > 0 {
                let record = telling.record(now, cx.config, e);
                budget -= 64 + record.state.0.len() as isize;
                cx.out.send(from, &Frame::Record(record));
            }
        }
        for t in &theirs {
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
