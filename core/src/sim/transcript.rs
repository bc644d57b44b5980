//! A run as text: who said what to whom, and what each told its application.
//!
//! ```text
//!    3.202  b → c     PING 71 · SUSPECT c 0 by 1
//!    3.203  c → b     ACK 71 · ALIVE c 1
//!    3.203  b       ! ALIVE c, was suspect
//! ```
//!
//! Seconds since the world began; → is a datagram, ⇒ a stream; `(lost)`: it never arrives; `!` an event; `--` what
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
#[derive(Default)]
pub struct Transcript {
    lines: Vec<(Instant, Line)>,
    /// How many runs each node had, and what each run is called.
    lives: Vec<u32>,
    runs: BTreeMap<RunId, String>,
    addresses: BTreeMap<SocketAddr, String>,
}

enum Line {
    Happening(Happening),
    Note(String),
}

impl Transcript {
    /// Takes down all that happens in `world` from now on.
    pub fn of(world: &mut World) -> Transcript {
        world.log = Some(Vec::new());
        Transcript::default()
    }

    /// What befalls the world.
    pub fn note(&mut self, world: &mut World, text: &str) {
        self.catch_up(world);
        self.lines.push((world.now().mono, Line::Note(text.to_owned())));
    }

    fn catch_up(&mut self, world: &mut World) {
        let log = world.log.as_mut().map(core::mem::take).unwrap_or_default();
        log.into_iter().for_each(|(at, happening)| self.add(world, at, happening));
    }

    /// One thing that happened.
    pub fn add(&mut self, world: &World, at: Instant, happening: Happening) {
        if let Happening::Packet(letter) = &happening {
            self.meet(world.name(letter.from), letter);
        }
        self.lines.push((at, Line::Happening(happening)));
    }

    /// All of it; or without packets that only probe and arrive: those are counted.
    pub fn text(&mut self, world: &mut World, all: bool) -> String {
        self.catch_up(world);
        let mut text = String::new();
        let mut skipped = 0;
        for (at, line) in &self.lines {
            if let (Line::Happening(Happening::Packet(Letter { frames, lost: false, .. })), false) = (line, all) {
                if parse(frames).all(|frame| matches!(frame, Frame::Ping { .. } | Frame::Ack { .. })) {
                    skipped += 1;
                    continue;
                }
            }
            if core::mem::take(&mut skipped) > 0 {
                text.push_str("          ·\n");
            }
            let at = at.as_nanos() / 1_000_000 - 1_000;
            text.push_str(&format!("{:>4}.{:03}  ", at / 1000, at % 1000));
            text.push_str(&self.line(world, line));
            text.push('\n');
        }
        text
    }

    fn meet(&mut self, name: &str, letter: &Letter) {
        if self.runs.contains_key(&letter.run) {
            return;
        }
        if self.lives.len() <= letter.from {
            self.lives.resize(letter.from + 1, 0);
        }
        self.lives[letter.from] += 1;
        let name = match self.lives[letter.from] {
            1 => name.to_owned(),
            life => format!("{name}/{life}"),
        };
        self.addresses.insert(letter.addr, name.clone());
        self.runs.insert(letter.run, name);
    }

    fn line(&self, world: &World, line: &Line) -> String {
        match line {
            Line::Note(text) => format!("-- {text}"),
            Line::Happening(Happening::Packet(Letter { run, to, frames, lost, .. })) => {
                let arrow = if to.via == Via::Stream { '⇒' } else { '→' };
                let to = to.run.and_then(|run| self.runs.get(&run)).or_else(|| self.addresses.get(&to.addr));
                let way = format!("{} {arrow} {}", self.runs[run], to.map_or("nobody", |name| name));
                let said: Vec<String> = parse(frames).map(|frame| self.named(&frame.to_string())).collect();
                format!("{way:<9}  {}{}", said.join(" · "), if *lost { "  (lost)" } else { "" })
            }
            Line::Happening(Happening::Event(i, event)) => self.event(world.name(*i), event),
        }
    }

    fn event(&self, name: &str, event: &Event) -> String {
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
                if let Some(ms) = words[i].parse().ok().and_then(|ms: u64| ms.checked_sub(BIRTH + 1_000)) {
                    words[i] = format!("{}.{:03}", ms / 1000, ms % 1000);
                }
            }
        }
        words.join(" ")
    }
}

fn parse(frames: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    Frames::parse(frames).expect("we wrote it")
}
