//! What the application gets to see: members, views, events.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{Engine, news};
use crate::id::{Peer, RunId};
use crate::members::{Entry, Members};
use crate::outbox::Outbox;
use crate::protocol::hyparview::Hyparview;
use crate::time::{Duration, Now};
use crate::view::{Event, EventKind, Member, MemberState, Meta, View};

/// A warning of one sort is given at most once in this time: it is a state of the network, not news.
const WARN_AGAIN: Duration = Duration::from_secs(60);

/// Sorts of warnings.
#[derive(Clone, Copy, Debug)]
pub(super) enum Warning {
    UdpBlocked,
    Address,
    Refused,
    Held,
}

pub(super) const WARNINGS: usize = 4;

/// What somebody is to this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Is {
    Local,
    Neighbour,
    Other,
}

impl Is {
    fn of(members: &Members, overlay: &Hyparview, entry: &Entry) -> Is {
        match () {
            () if entry.run == members.local().run => Is::Local,
            () if overlay.is_neighbour(entry.run) => Is::Neighbour,
            () => Is::Other,
        }
    }
}

/// The application's pictures of members, by slot, each kept until its member changes. As long as no view was
/// asked for, nothing is: what events show is painted for them.
#[derive(Debug, Default)]
pub(super) struct Pictures {
    kept: Vec<Option<Arc<Member>>>,
    are_kept: bool,
    /// Shared by the pictures of all who have none.
    no_meta: Arc<Meta>,
}

impl Pictures {
    fn of(&mut self, peer: Peer, entry: &Entry, is: Is) -> Arc<Member> {
        let slot = peer.slot as usize;
        if let Some(Some(kept)) = self.kept.get(slot) {
            return kept.clone();
        }
        let picture = Arc::new(paint(entry, is, &self.no_meta));
        if self.are_kept {
            self.make_room(slot + 1);
            self.kept[slot] = Some(picture.clone());
        }
        picture
    }

    fn keep(&mut self, slots: usize) {
        self.are_kept = true;
        self.make_room(slots);
    }

    fn make_room(&mut self, slots: usize) {
        if self.kept.len() < slots {
            self.kept.reserve_exact((slots - self.kept.len()).max(self.kept.len() / 8));
            self.kept.resize(slots, None);
        }
    }

    /// It changed, or somebody else has its slot.
    pub fn forget(&mut self, peer: Peer) {
        if let Some(kept) = self.kept.get_mut(peer.slot as usize) {
            *kept = None;
        }
    }
}

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

    /// This node alone. The first view makes and keeps a picture of each member: who has thousands of nodes with as many
    /// members asks for no view, but for this, for [`Engine::state`] and for [`Engine::live`].
    pub fn local(&self) -> Member {
        paint(self.members.local(), Is::Local, &self.pictures.no_meta)
    }

    /// How one member fares; `None` where it is not listed.
    pub fn state(&self, name: &str) -> Option<MemberState> {
        self.members.get(self.members.find_name(name)?).map(|e| e.status)
    }

    fn with_round_trips(&self, now: Now, view: &View) -> Arc<View> {
        let entry = |run| self.members.find(run).and_then(|peer| self.members.get(peer));
        let rtt = view.members.iter().map(|m| entry(m.run).map_or(Duration::ZERO, |e| e.rtt.mean())).collect();
        Arc::new(View { version: view.version, taken: now.mono, members: view.members.clone(), rtt, local: view.local })
    }

    fn survey(&mut self, now: Now) -> Arc<View> {
        let Engine { members, pictures, overlay, .. } = self;
        pictures.keep(members.slots());
        let mut rows: Vec<(Arc<Member>, Duration)> = members
            .iter()
            .map(|(peer, entry)| (pictures.of(peer, entry, Is::of(members, overlay, entry)), entry.rtt.mean()))
            .collect();
        rows.sort_unstable_by(|a, b| a.0.name.cmp(&b.0.name));
        let local = rows.iter().position(|(m, _)| m.is_local).expect("we are always in our own table");
        let (members, rtt): (Vec<_>, _) = rows.into_iter().unzip();
        Arc::new(View { version: self.version, taken: now.mono, members: members.into(), rtt, local })
    }

    /// One member as the application sees it.
    pub(super) fn picture(&mut self, peer: Peer) -> Option<Arc<Member>> {
        let entry = self.members.get(peer)?;
        Some(self.pictures.of(peer, entry, Is::of(&self.members, &self.overlay, entry)))
    }

    /// Changes an entry in something that its picture shows.
    pub(super) fn change<T>(&mut self, peer: Peer, change: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        self.pictures.forget(peer);
        self.members.update(peer, change)
    }

    /// The table changed in a way that an application sees.
    pub(super) fn touched(&mut self) {
        self.version += 1;
        self.view = None;
    }

    /// A link to it is new, or has ended.
    pub(super) fn repaint(&mut self, run: RunId) {
        self.members.find(run).into_iter().for_each(|peer| self.pictures.forget(peer));
        self.touched();
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
            alloc::format!("{} runs at {} with a higher epoch; this node is silent now", winner.name, winner.addr());
        event.member = Some(Arc::new(paint(winner, Is::Other, &self.pictures.no_meta)));
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

fn paint(entry: &Entry, is: Is, no_meta: &Arc<Meta>) -> Member {
    let meta = entry.state.meta();
    Member {
        name: entry.name.clone(),
        state: entry.status,
        address: entry.addr(),
        epoch: entry.epoch,
        run: entry.run,
        incarnation: entry.incarnation,
        since: entry.since,
        protocol: entry.protocol.into(),
        app_version: entry.app_version,
        meta: if meta.is_empty() { no_meta.clone() } else { Arc::new(meta) },
        is_local: is == Is::Local,
        is_neighbour: is == Is::Neighbour,
    }
}
