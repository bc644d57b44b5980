//! What the application gets to see: members, views, events.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{Engine, news};
use crate::id::Peer;
use crate::members::Entry;
use crate::outbox::Outbox;
use crate::time::{Duration, Now};
use crate::view::{Event, EventKind, Member, Meta, View};

/// A warning of one sort is given at most once in this time: it is a state of the network, not news.
const WARN_AGAIN: Duration = Duration::from_secs(60);

/// Sorts of warnings.
#[derive(Clone, Copy, Debug)]
pub(super) enum Warning {
    UdpBlocked,
    Address,
    Refused,
}

pub(super) const WARNINGS: usize = 3;

impl Engine {
    /// Counts every change that an event reports.
    pub fn view_version(&self) -> u64 {
        self.version
    }

    /// All members now. The same until something changes, but for round trips, which may be a second old.
    pub fn view(&mut self, now: Now) -> Arc<View> {
        let view = match self.view.take().filter(|v| v.version == self.version) {
            Some(view) if now.mono.since(view.taken) < Duration::from_secs(1) => view,
            Some(view) => self.with_round_trips(now, &view),
            None => self.survey(now),
        };
        self.view = Some(view.clone());
        view
    }

    fn with_round_trips(&self, now: Now, view: &View) -> Arc<View> {
        let entry = |run| self.members.find(run).and_then(|peer| self.members.get(peer));
        let rtt = view.members.iter().map(|m| entry(m.run).map_or(Duration::ZERO, |e| e.rtt.mean())).collect();
        Arc::new(View { version: view.version, taken: now.mono, members: view.members.clone(), rtt, local: view.local })
    }

    fn survey(&mut self, now: Now) -> Arc<View> {
        let peers: Vec<Peer> = self.members.iter().map(|(peer, _)| peer).collect();
        let mut rows: Vec<(Arc<Member>, Duration)> = peers
            .into_iter()
            .filter_map(|peer| Some((self.picture(peer)?, self.members.get(peer)?.rtt.mean())))
            .collect();
        rows.sort_unstable_by(|a, b| a.0.name.cmp(&b.0.name));
        let local = rows.iter().position(|(m, _)| m.is_local).expect("we are always in our own table");
        let (members, rtt): (Vec<_>, _) = rows.into_iter().unzip();
        Arc::new(View { version: self.version, taken: now.mono, members: members.into(), rtt, local })
    }

    /// One member as the application sees it. Kept with the entry until that changes.
    pub(super) fn picture(&mut self, peer: Peer) -> Option<Arc<Member>> {
        let is_local = peer == self.members.me();
        let entry = self.members.note(peer)?;
        if entry.picture.is_none() {
            entry.picture = Some(Arc::new(paint(entry, is_local, &self.no_meta)));
        }
        entry.picture.clone()
    }

    /// The table changed in a way that an application sees.
    pub(super) fn touched(&mut self) {
        self.version += 1;
        self.view = None;
    }

    pub(super) fn report(&mut self, kind: EventKind, peer: Peer, before: Option<Arc<Member>>, out: &mut Outbox) {
        self.touched();
        let member = self.picture(peer);
        let mut event = Event::new(kind, self.version);
        if let (Some(before), Some(member)) = (&before, &member) {
            event.changed = news::difference(before, member);
        }
        event.member = member;
        event.before = before;
        out.events.push(event);
    }

    pub(super) fn conflict(&mut self, winner: &Entry, out: &mut Outbox) {
        let mut event = Event::new(EventKind::Conflict, self.version);
        let text =
            alloc::format!("{} runs at {} with a higher epoch; this node is silent now", winner.name, winner.addr);
        event.member = Some(Arc::new(paint(winner, false, &self.no_meta)));
        out.events.push(event.text(text));
    }

    pub(super) fn warn(&mut self, now: Now, sort: Warning, text: impl FnOnce() -> String, out: &mut Outbox) {
        let last = &mut self.warned[sort as usize];
        if last.is_some_and(|at| now.mono.since(at) < WARN_AGAIN) {
            return;
        }
        *last = Some(now.mono);
        out.events.push(Event::new(EventKind::Warning, self.version).text(text()));
    }
}

fn paint(entry: &Entry, is_local: bool, no_meta: &Arc<Meta>) -> Member {
    let meta = entry.state.meta();
    Member {
        name: entry.name.clone(),
        state: entry.status,
        address: entry.addr,
        epoch: entry.epoch,
        run: entry.run,
        incarnation: entry.incarnation,
        since: entry.since,
        protocol: entry.protocol,
        app_version: entry.app_version,
        meta: if meta.is_empty() { no_meta.clone() } else { Arc::new(meta) },
        is_local,
    }
}
