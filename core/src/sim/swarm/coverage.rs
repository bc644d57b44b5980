//! What the seeds together must have met: a run in which nothing happened shows nothing.
//!
//! Points are hit by a seed or not; a seed range of the usual size must hit every one. Which are left out, and why, is
//! in [`EXEMPT`].

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::plan::Fault;
use crate::engine::Counters;
use crate::id::RunId;
use crate::sim::world::Letter;
use crate::view::{Event, EventKind, MemberState, changed};
use crate::wire::envelope::Reject;
use crate::wire::frame::{Frame, Frames, ItemKind, kind_name};

/// Something that a run may come across.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Point {
    Fault(Fault),
    Event(EventKind),
    /// By its kind.
    Frame(u8),
    /// By the number of its kind.
    Item(u32),
    /// By its reason.
    Refused(u32),
    /// By its place in `Reject::ALL`.
    Reject(usize),
    /// By its place in `Counters::ALL`: it is not zero.
    Counter(usize),
    Moment(Moment),
}

macro_rules! moments {
    ($($moment:ident = $name:literal;)*) => {
        /// What is no event, frame or counter by itself.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Moment { $($moment,)* }

        impl Moment {
            const ALL: &'static [Moment] = &[$(Moment::$moment),*];

            const fn name(self) -> &'static str {
                match self { $(Moment::$moment => $name,)* }
            }
        }
    };
}

moments! {
    SuspicionRefuted = "a suspicion was refuted";
    DeathRefuted = "a death was refuted";
    NewRun = "a name came back in a new run";
    NewAddress = "a name came back at a new address";
    BackFromOblivion = "a run that was forgotten was listed again";
    RelayedAck = "a relay passed an answer on";
    Buddy = "the accused was told in a ping";
    MetaGone = "a key of metadata was deleted";
    LeaveTold = "a leave was acknowledged";
    LeaveUntold = "a leave reached nobody";
    JoinAnswered = "an application's join was answered";
    JoinInVain = "an application's join was not answered";
    Overflowed = "a receive queue overflowed";
    HealedAll = "everything was healed";
    HealedCore = "only a core was healed";
    StreamWhole = "a byte stream was read to its end, and ended both ways";
    Silenced = "a second node of a name fell silent, or was kept out";
}

/// Points that no seed can hit, or hardly any.
pub const EXEMPT: &[(&str, &str)] = &[
    ("event OVERFLOW", "an inbox's, and there is none here"),
    ("event FATAL", "the runtime's"),
    ("refused 1", "there is one protocol version only"),
    ("reject session", "a run id is never 0, and no single bit makes it so"),
    ("counter state_refused", "nobody can set more than all others accept"),
    ("counter outbox_dropped", "no turn has so much to say in so small a cluster"),
    ("counter answers_cut", "one seed in 500: floods ask for so much, and tests/bounds.rs is about them"),
    ("counter malformed", "no node writes such frames, and what damage makes of them the envelope refuses"),
    ("counter broadcasts_stale", "nothing is on its way for ten minutes"),
    ("counter broadcasts_unlisted", "one seed in 200: a record comes within five seconds, or its member is gone"),
    ("counter broadcasts_refused", "max_origins is large, and nobody sees 256 gaps of one sequence"),
    ("counter origins_forgotten", "max_origins is large"),
    ("counter broadcasts_waiting", "here all is read at once; core/tests/messages.rs has a slow reader"),
    ("counter broadcasts_overrun", "the same"),
    ("counter queries_refused", "an inbox's, and here all is read at once"),
    (
        "counter relays_refused",
        "one seed in 150: who asks has died where it is relayed; core/tests/questions.rs is about them",
    ),
    ("counter answers_refused", "nobody gives a larger answer than it would take"),
    ("counter streams_broken", "nobody leaves anything out, or sends more of a stream than there is room for"),
    ("counter items_refused", "nobody sends more than its receiver has made room for"),
];

impl Point {
    pub fn name(self) -> String {
        match self {
            Point::Fault(fault) => format!("fault {}", fault.name()),
            Point::Event(kind) => format!("event {}", kind.name()),
            Point::Frame(kind) => format!("frame {}", kind_name(kind).unwrap_or("?")),
            Point::Item(kind) => format!("item {kind}"),
            Point::Refused(reason) => format!("refused {reason}"),
            Point::Reject(i) => format!("reject {}", Reject::ALL[i].name()),
            Point::Counter(i) => format!("counter {}", Counters::ALL[i].0),
            Point::Moment(moment) => moment.name().to_string(),
        }
    }

    pub fn all() -> Vec<Point> {
        let mut all: Vec<Point> = Fault::ALL.iter().map(|&fault| Point::Fault(fault)).collect();
        all.extend(EventKind::ALL.iter().map(|&kind| Point::Event(kind)));
        all.extend((0..=u8::MAX).filter(|&kind| kind_name(kind).is_some()).map(Point::Frame));
        all.extend((ItemKind::MESSAGE.0..=ItemKind::RELAY.0).map(Point::Item));
        all.extend(ItemKind::OF_STREAMS.map(|(kind, _)| Point::Item(kind.0)));
        all.extend((1..=5).map(Point::Refused));
        all.extend((0..Reject::ALL.len()).map(Point::Reject));
        all.extend((0..Counters::ALL.len()).map(Point::Counter));
        all.extend(Moment::ALL.iter().map(|&moment| Point::Moment(moment)));
        all
    }
}

/// How many seeds hit each point.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage(BTreeMap<Point, u64>);

impl Coverage {
    pub fn hit(&mut self, point: Point) {
        self.0.insert(point, 1);
    }

    /// Another seed's.
    pub fn add(&mut self, other: &Coverage) {
        for (point, n) in &other.0 {
            *self.0.entry(*point).or_default() += n;
        }
    }

    /// Every point with the number of seeds that hit it, and why it cannot be hit.
    pub fn table(&self) -> Vec<(String, u64, Option<&'static str>)> {
        let row = |point: Point| {
            let name = point.name();
            let exempt = EXEMPT.iter().find(|(exempt, _)| *exempt == name).map(|(_, why)| *why);
            (name, self.0.get(&point).copied().unwrap_or(0), exempt)
        };
        Point::all().into_iter().map(row).collect()
    }

    /// Those that must be hit and were not.
    pub fn missed(&self) -> Vec<String> {
        self.table().into_iter().filter(|(_, n, exempt)| *n == 0 && exempt.is_none()).map(|(name, ..)| name).collect()
    }

    /// What leaves a node.
    pub(super) fn on_packet(&mut self, letter: &Letter) {
        let to = letter.to;
        for frame in Frames::parse(&letter.frames).expect("we wrote it") {
            self.hit(Point::Frame(frame.kind()));
            let about_receiver = |run: RunId| to.run == Some(run);
            match frame {
                Frame::Item(item) => self.hit(Point::Item(item.kind.0)),
                Frame::Refused { reason, .. } => self.hit(Point::Refused(reason)),
                Frame::Suspect { run, .. } if about_receiver(run) => self.hit(Point::Moment(Moment::Buddy)),
                // Only a relay has the target's beat and no fingerprint.
                Frame::Ack { beat: 1.., fingerprint: 0, .. } => self.hit(Point::Moment(Moment::RelayedAck)),
                _ => {}
            }
        }
    }

    /// What a node reports. `forgotten`: runs that it had forgotten before.
    pub(super) fn on_event(&mut self, event: &Event, forgotten: &[RunId]) {
        self.hit(Point::Event(event.kind));
        let mut moment = |moment| self.hit(Point::Moment(moment));
        let before = event.before.as_ref().map(|m| m.state);
        let run = event.member.as_ref().map(|m| m.run);
        match event.kind {
            EventKind::Alive if event.changed & changed::EPOCH != 0 => {
                moment(Moment::NewRun);
                if event.changed & changed::ADDRESS != 0 {
                    moment(Moment::NewAddress);
                }
            }
            EventKind::Alive if before == Some(MemberState::Suspect) => moment(Moment::SuspicionRefuted),
            EventKind::Alive if before == Some(MemberState::Dead) => moment(Moment::DeathRefuted),
            EventKind::Join if run.is_some_and(|run| forgotten.contains(&run)) => moment(Moment::BackFromOblivion),
            EventKind::LeaveDone if event.status == 0 => moment(Moment::LeaveTold),
            EventKind::LeaveDone => moment(Moment::LeaveUntold),
            EventKind::Joined if event.count > 0 => moment(Moment::JoinAnswered),
            EventKind::Joined => moment(Moment::JoinInVain),
            EventKind::Update => {
                let (before, after) = (event.before.as_ref(), event.member.as_ref());
                if before.zip(after).is_some_and(|(b, a)| b.meta.keys().any(|key| !a.meta.contains_key(key))) {
                    moment(Moment::MetaGone);
                }
            }
            _ => {}
        }
    }

    pub(super) fn on_counters(&mut self, counters: &Counters) {
        for (i, (_, _, value)) in Counters::ALL.iter().enumerate() {
            if value(counters) > 0 {
                self.hit(Point::Counter(i));
            }
        }
    }
}
