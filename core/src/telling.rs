//! How we put what we know into frames.

use alloc::vec::Vec;

use crate::config::Config;
use crate::id::{NAME_MAX, RunId, Version};
use crate::members::Entry;
use crate::time::{Duration, Instant};
use crate::view::MemberState;
use crate::wire::envelope::OVERHEAD;
use crate::wire::frame::{Entries, Frame, Record, Runs};

/// The most that a record's fields but name and state take: run, epoch, incarnation, address, versions, age, lengths.
const RECORD_FIELDS: usize = 90;

/// Room to write a frame's variable parts, kept between uses, and how old our own knowledge is.
#[derive(Debug)]
pub struct Telling {
    scratch: Vec<u8>,
    /// When somebody in the cluster last answered us. Until then our picture was watched over by all; since then it ages.
    contact: Instant,
    /// The last time that we were out of touch for longer than a death takes: from, to.
    lapse: (Instant, Instant),
}

impl Telling {
    pub fn new(now: Instant) -> Telling {
        Telling { scratch: Vec::new(), contact: now, lapse: (now, now) }
    }

    /// How long nobody has answered.
    pub fn quiet(&self, now: Instant) -> Duration {
        now.since(self.contact)
    }

    /// Somebody in the cluster answered; after so long that we were out of touch?
    pub fn touch(&mut self, now: Instant, long: bool) {
        if long {
            self.lapse = (self.contact, now);
        }
        self.contact = now;
    }

    /// How old our knowledge is that a member lives: we would have heard of its death while in touch.
    fn age(&self, now: Instant, entry: &Entry) -> u64 {
        let known = if entry.is_unheard_since(self.lapse.1) { self.lapse.0 } else { self.contact };
        now.since(known).as_secs()
    }

    /// A member with all that we know of it: see [`record`].
    pub fn record<'a>(&'a mut self, now: Instant, config: &Config, entry: &'a Entry) -> Record<'a> {
        let age = self.age(now, entry);
        record(&mut self.scratch, config, entry, age)
    }

    /// How it fares.
    pub fn status<'a>(&'a mut self, now: Instant, entry: &Entry, accusers: impl Iterator<Item = RunId>) -> Frame<'a> {
        let (run, incarnation, age) = (entry.run, entry.incarnation, now.since(entry.since).as_secs());
        match entry.status {
            MemberState::Alive => Frame::Alive { run, incarnation },
            MemberState::Dead => Frame::Dead { run, incarnation, age },
            MemberState::Left => Frame::Left { run, incarnation, age },
            MemberState::Suspect => {
                self.scratch.clear();
                accusers.for_each(|accuser| Runs::push(&mut self.scratch, accuser));
                Frame::Suspect { run, incarnation, accusers: Runs(&self.scratch) }
            }
        }
    }

    /// What a replica at `have` lacks of a member's metadata.
    pub fn state<'a>(&'a mut self, entry: &Entry, have: Version) -> Frame<'a> {
        let reset = entry.state.delta(have, &mut self.scratch);
        let (run, to) = (entry.run, entry.state.version());
        Frame::State { run, base: have, to, reset, entries: Entries(&self.scratch) }
    }

    /// The last change of a member's metadata if it is small, else only that there is one.
    pub fn state_news<'a>(&'a mut self, config: &Config, entry: &Entry) -> Frame<'a> {
        let (run, base, to) = (entry.run, entry.state.base(), entry.state.version());
        let reset = entry.state.delta(base, &mut self.scratch);
        if self.scratch.len() > config.meta_inline {
            return Frame::StateNews { run, version: to };
        }
        Frame::State { run, base, to, reset, entries: Entries(&self.scratch) }
    }

    pub fn runs<'a>(&'a mut self, runs: impl Iterator<Item = RunId>) -> Runs<'a> {
        self.scratch.clear();
        runs.for_each(|run| Runs::push(&mut self.scratch, run));
        Runs(&self.scratch)
    }

    pub fn scratch(&mut self) -> &mut Vec<u8> {
        self.scratch.clear();
        &mut self.scratch
    }
}

/// What is known of a member for so many seconds. Metadata comes along where it is small enough.
pub fn record<'a>(scratch: &'a mut Vec<u8>, config: &Config, entry: &'a Entry, age: u64) -> Record<'a> {
    scratch.clear();
    if entry.state.size() <= config.meta_inline {
        entry.state.delta(Version(0), scratch);
        // Many tiny keys, or tiny datagrams: a record must fit in one beside its other fields.
        let room = config.max_datagram.saturating_sub(OVERHEAD + NAME_MAX + RECORD_FIELDS);
        if scratch.len() > room.min(2 * config.meta_inline) {
            scratch.clear();
        }
    }
    Record {
        name: &entry.name,
        run: entry.run,
        epoch: entry.epoch,
        incarnation: entry.incarnation,
        addr: entry.addr(),
        protocol: entry.protocol.into(),
        app_version: entry.app_version,
        version: entry.state.version(),
        age,
        state: Entries(scratch),
    }
}
