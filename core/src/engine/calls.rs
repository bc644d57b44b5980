//! What an application asks for. A refused call changes nothing.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::SocketAddr;

use super::{Engine, Life, cx};
use crate::config::{Config, Membership};
use crate::error::{Code, Error, Result};
use crate::id::{NodeName, Version};
use crate::members;
use crate::outbox::{Destination, Outbox, Via};
use crate::protocol::Cx;
use crate::protocol::plumtree::Plumtree;
use crate::protocol::rumor::Aspect;
use crate::time::{Duration, Instant, Now};
use crate::view::MemberState;
use crate::wire::frame::Record;

impl Engine {
    /// Begins to be a member: calls the seeds, and never stops trying.
    pub fn start(&mut self, now: Now, out: &mut Outbox) {
        if matches!(self.life, Life::New) {
            self.life = Life::Member;
            self.newcomer = now.mono;
            let judged = self.tree.judged_topics();
            self.tree = Plumtree::new(now.mono);
            self.tree.judge(cx!(self, now, out), judged);
            self.contacts.call_seeds(cx!(self, now, out));
            self.start_membership(now, out);
            self.finish(now, out);
        }
    }

    /// Knows members from the start, as after a restart or in a cluster that a simulation begins with. They count as
    /// alive until probes find otherwise; no rumor is started of them, and no event reported. What is listed already,
    /// by run or by name, stays as it is, and beyond `max_members` nobody is listed. Returns how many are new.
    ///
    /// A table that is filled at once takes no more memory than it needs: give an iterator that knows its length. With
    /// `membership = partial` nobody is listed: these are whom neighbours are looked for among.
    pub fn acquaint<'a>(&mut self, now: Now, records: impl Iterator<Item = Record<'a>>) -> usize {
        if self.config.membership == Membership::Partial {
            return self.keep_in_mind(now, records);
        }
        let least = records.size_hint().0;
        let entries = records.filter_map(|record| {
            let name = NodeName::new(record.name).ok()?;
            let mut entry = members::entry(&record, name, MemberState::Alive, now.mono);
            entry.hear(now.mono - Duration::from_secs(record.age));
            if !record.state.0.is_empty() {
                entry.state.apply(Version(0), record.version, true, record.state);
            }
            Some(entry)
        });
        let listed = self.members.insert_all(least, entries);
        self.newcomer = now.mono;
        self.touched();
        listed
    }

    /// Calls all addresses of all names in parallel. The id is that of the [`Completion::Joined`](crate::outbox::Completion)
    /// that follows within `join_timeout`. `E_STATE` unless the node is a member.
    pub fn join(&mut self, now: Now, names: &[Vec<SocketAddr>], out: &mut Outbox) -> Result<u64> {
        self.must_be_member()?;
        let id = self.contacts.join(cx!(self, now, out), &self.members, names);
        self.contact_tick(now, out);
        self.finish(now, out);
        Ok(id)
    }

    /// Tells peers that we leave, until enough have acknowledged or `timeout` has passed; then
    /// [`Completion::LeaveDone`](crate::outbox::Completion), and silence. `E_STATE` unless the node is a member.
    pub fn leave(&mut self, now: Now, timeout: Duration, out: &mut Outbox) -> Result<()> {
        self.must_be_member()?;
        let me = self.members.me();
        self.change(me, |e| {
            e.status = MemberState::Left;
            e.since = now.mono;
        });
        self.touched();
        let left = self.telling.status(now.mono, self.members.local(), core::iter::empty());
        for to in self.contacts.knocking() {
            // By stream as well: a datagram may overtake the one that asks to be let in.
            out.send(to, &left);
            out.send(Destination { via: Via::Stream, ..to }, &left);
        }
        self.contacts.abandon(out);
        self.overlay.disband(cx!(self, now, out), &self.members);
        self.life = Life::Leaving { until: now.mono + timeout, again: now.mono, told: Vec::new() };
        self.spread(now, me, Aspect::Status);
        self.tick(now, out);
        self.finish(now, out);
        Ok(())
    }

    /// Changes keys of our metadata, all at once; `None` deletes. `E_TOO_BIG` beyond `meta_max`.
    pub fn set_meta(&mut self, now: Now, changes: &[(&str, Option<&[u8]>)], out: &mut Outbox) -> Result<()> {
        if matches!(self.life, Life::Leaving { .. } | Life::Silent) {
            return Err(Error::new(Code::State, "the node has left; nothing changed"));
        }
        let (me, max) = (self.members.me(), self.config.meta_max);
        let changed = self.change(me, |e| e.state.set(changes, max));
        if changed.expect("we are always in our own table")? {
            self.touched();
            self.spread(now, me, Aspect::State);
            if !matches!(self.life, Life::New) {
                self.finish(now, out);
            }
        }
        Ok(())
    }

    /// Takes new values of the live options.
    pub fn reconfigure(&mut self, now: Instant, config: Arc<Config>) {
        self.config = config;
        // Their time may be over sooner now.
        self.forget = Some(now);
    }

    /// Our record goes to everybody, though our incarnation is the same.
    pub(super) fn announce(&mut self, now: Now) {
        let me = self.members.me();
        self.touched();
        self.spread(now, me, Aspect::Record);
    }

    /// The metadata that the configuration gives us.
    pub(super) fn tell_own_state(&mut self) {
        let config = self.config.clone();
        let changes: Vec<(&str, Option<&[u8]>)> =
            config.meta.iter().map(|(k, v)| (k.as_str(), Some(v.as_slice()))).collect();
        let me = self.members.me();
        self.change(me, |e| {
            // Checked by `Config::validate`; what is too large all the same is left out whole.
            let _ = e.state.set(&changes, config.meta_max);
        });
    }

    pub(super) fn must_be_member(&self) -> Result<()> {
        match self.life {
            Life::Member => Ok(()),
            Life::New => Err(Error::new(Code::State, "the node is not started; nothing changed")),
            Life::Leaving { .. } | Life::Silent => Err(Error::new(Code::State, "the node has left; nothing changed")),
        }
    }
}
