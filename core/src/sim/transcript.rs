//! A run as text: who said what to whom, and what each told its application.
//!
//! ```text
//!    3.202  b → c      PING 71 · SUSPECT c 0 by 1
//!    3.203  c → b      ACK 71 · ALIVE c 1
//!    3.203  b        ! ALIVE c 1, was suspect
//! ```
//!
//! Seconds since it began; → is a datagram, ⇒ a stream; `(lost)`: it never arrives; `!` an event; `--` what
//! befell the world. Runs and addresses go by the name of their node: `c` in its first life, `c/2` in its second. The
//! incarnation follows the name. Epochs are in seconds since the world began, as a right clock shows them.

use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::SocketAddr;

use super::World;
use super::world::{BIRTH, Happening, Letter};
use crate::id::RunId;
use crate::outbox::Via;
use crate::time::Instant;
use crate::view::{Event, EventKind, MemberState, changed};
use crate::wire::frame::{Frame, Frames};

/// What happened, so far.
pub struct Transcript {
    began: Instant,
    lines: Vec<(Instant, Line)>,
    /// What each run is called, and each address by who was there last.
    runs: BTreeMap<RunId, String>,
    addresses: BTreeMap<SocketAddr, String>,
}

enum Line {
    Happening(Happening),
    Note(String),
}

/// A line as it is read.
enum Row {
    Skipped(u32),
    Text(Instant, String),
    Said { at: Instant, from: String, to: String, what: String },
}

impl Line {
    fn is_idle(&self) -> bool {
        let Line::Happening(Happening::Packet(Letter { frames, lost: false, .. })) = self else { return false };
        let probes = |frame| matches!(frame, Frame::Ping { .. } | Frame::Ack { .. } | Frame::Heartbeats { .. });
        parse(frames).all(probes)
    }
}

impl Transcript {
    /// Takes down all that happens in `world` from now on.
    pub fn of(world: &mut World) -> Transcript {
        world.log = Some(Vec::new());
        let mut transcript = Transcript {
            began: world.now().mono,
            lines: Vec::new(),
            runs: BTreeMap::new(),
            addresses: BTreeMap::new(),
        };
        for i in 0..world.len() {
            transcript.meet(world.name(i), world.run_id(i), world.address(i));
        }
        transcript
    }

    /// What befalls the world.
    pub fn note(&mut self, world: &mut World, text: &str) {
        self.catch_up(world);
        self.lines.push((world.now().mono, Line::Note(text.to_owned())));
    }

    /// One thing that happened.
    pub fn add(&mut self, world: &World, at: Instant, happening: Happening) {
        if let Happening::Packet(letter) = &happening {
            self.meet(world.name(letter.from), letter.run, letter.addr);
        }
        self.lines.push((at, Line::Happening(happening)));
    }

    /// All of it; or without packets that do no more than probe, and arrive: those are counted. What one says to several
    /// at once is one line.
    pub fn text(&mut self, world: &mut World, all: bool) -> String {
        self.catch_up(world);
        let mut rows: Vec<Row> = Vec::new();
        for (at, line) in &self.lines {
            let skip = !all && line.is_idle();
            let row = match line {
                _ if skip => Row::Skipped(1),
                Line::Happening(Happening::Packet(letter)) => self.said(*at, letter),
                Line::Happening(Happening::Event(i, run, event)) => {
                    Row::Text(*at, self.event(world.name(*i), *run, event))
                }
                Line::Note(text) => Row::Text(*at, format!("-- {text}")),
            };
            match (rows.last_mut(), row) {
                (Some(Row::Skipped(n)), Row::Skipped(_)) => *n += 1,
                (Some(Row::Said { at, from, to, what }), Row::Said { at: then, from: by, to: also, what: that })
                    if self.clock(*at) == self.clock(then) && *from == by && *what == that =>
                {
                    to.push(' ');
                    to.push_str(&also);
                }
                (_, row) => rows.push(row),
            }
        }
        rows.iter().map(|row| self.row(row)).collect()
    }

    fn row(&self, row: &Row) -> String {
        match row {
            Row::Skipped(n) => format!("          · {n} that only probe\n"),
            Row::Text(at, text) => format!("{}  {text}\n", self.clock(*at)),
            Row::Said { at, from, to, what } => format!("{}  {:<9}  {what}\n", self.clock(*at), format!("{from} {to}")),
        }
    }

    fn clock(&self, at: Instant) -> String {
        let ms = at.since(self.began).as_millis();
        format!("{:>4}.{:03}", ms / 1000, ms % 1000)
    }

    fn catch_up(&mut self, world: &mut World) {
        let log = world.log.as_mut().map(core::mem::take).unwrap_or_default();
        log.into_iter().for_each(|(at, happening)| self.add(world, at, happening));
    }

    fn meet(&mut self, name: &str, run: RunId, addr: SocketAddr) {
        if self.runs.contains_key(&run) {
            return;
        }
        // Two nodes of one name are told apart, too.
        let life = 1 + self.runs.values().filter(|known| known.split('/').next() == Some(name)).count();
        let name = if life == 1 { name.to_owned() } else { format!("{name}/{life}") };
        self.addresses.insert(addr, name.clone());
        self.runs.insert(run, name);
    }

    fn said(&self, at: Instant, letter: &Letter) -> Row {
        let Letter { run, to, frames, lost, .. } = letter;
        let arrow = if to.via == Via::Stream { '⇒' } else { '→' };
        let to = to.run.and_then(|run| self.runs.get(&run)).or_else(|| self.addresses.get(&to.addr));
        let what: Vec<String> = parse(frames).map(|frame| self.named(&frame.to_string())).collect();
        Row::Said {
            at,
            from: format!("{} {arrow}", self.runs[run]),
            to: to.map_or("nobody", |name| name).to_owned(),
            what: format!("{}{}", what.join(" · "), if *lost { "  (lost)" } else { "" }),
        }
    }

    fn event(&self, name: &str, run: RunId, event: &Event) -> String {
        let name = self.runs.get(&run).map_or(name, |name| name);
        let mut text = format!("{name:<9}! {}", event.kind.name());
        if let Some(member) = &event.member {
            let run = self.runs.get(&member.run).map_or(&*member.name, |name| name);
            text.push_str(&format!(" {run}"));
            if event.changed & changed::INCARNATION != 0 {
                text.push_str(&format!(" {}", member.incarnation.0));
            }
        }
        if let Some(before) = event.before.as_ref().filter(|_| event.changed & changed::STATE != 0) {
            text.push_str(match before.state {
                MemberState::Alive => ", was alive",
                MemberState::Suspect => ", was suspect",
                MemberState::Dead => ", was dead",
                MemberState::Left => ", had left",
            });
        }
        for (bit, what) in [(changed::META, "metadata"), (changed::ADDRESS, "address"), (changed::EPOCH, "epoch")] {
            if event.changed & bit != 0 {
                text.push_str(&format!(", other {what}"));
            }
        }
        match event.kind {
            EventKind::Joined => text.push_str(&format!(": {} answered", event.count)),
            EventKind::LeaveDone if event.status != 0 => text.push_str(": nobody answered in time"),
            _ => {}
        }
        if let Some(said) = &event.text {
            text.push_str(&format!(": {}", self.named(said)));
        }
        text
    }

    /// With names where there were run ids, addresses and epochs.
    fn named(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (run, name) in &self.runs {
            text = text.replace(&format!("{run:?}"), name);
        }
        for (addr, name) in &self.addresses {
            text = text.replace(&addr.to_string(), &format!("@{name}"));
        }
        let mut words: Vec<String> = text.split(' ').map(ToOwned::to_owned).collect();
        for i in 1..words.len() {
            if words[i - 1].ends_with("epoch") {
                // Zero is none.
                if let Some(ms) = words[i].parse().ok().filter(|&ms: &u64| ms >= BIRTH) {
                    let ms = ms as i64 - (BIRTH + 1_000) as i64;
                    words[i] = format!("{}{}.{:03}", if ms < 0 { "-" } else { "" }, ms.abs() / 1000, ms.abs() % 1000);
                }
            }
        }
        words.join(" ")
    }
}

fn parse(frames: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    Frames::parse(frames).expect("we wrote it")
}
