//! A turn of an engine: when it is time for one, and what becomes of all that it says.

use super::machine::Machine;
use super::packets::Unsent;
use super::{Happening, NodeIndex, What, World};
use crate::config::Transport;
use crate::engine::{Engine, Input};
use crate::id::RunId;
use crate::message::{Manner, Verdict};
use crate::outbox::{Completion, Destination, Outbox, Via};
use crate::rng::mix;
use crate::time::{Duration, Instant, Now};
use crate::view::EventKind;
use crate::wire::envelope;
use crate::wire::frame::{Frame, Frames};

impl World {
    /// A tick, if it is time for one. Whether it was.
    pub(super) fn on_time(&mut self, i: NodeIndex) -> bool {
        let node = &mut self.nodes[i];
        let Some(deadline) = node.deadline.filter(|_| node.up) else { return false };
        if deadline > self.now {
            self.set_timer(i, deadline);
            return false;
        }
        // As the driver does: it tells first how late it is.
        let late = self.now.since(deadline);
        let stalled = self.candid && late > node.config.stall_threshold;
        if !node.service.is_zero() {
            node.busy = self.now + node.service;
        }
        let (held, stuck) = (node.unsent.len(), node.state == Machine::Hung { stuck: true });
        self.turn(i, |engine, now, out| {
            if stuck {
                return engine.tick_while_hung(now, out);
            }
            if stalled {
                engine.stalled(late);
            }
            engine.handle(now, Input::Tick, out);
        });
        if matches!(self.nodes[i].state, Machine::Hung { stuck: false }) {
            let probes = |u: &Unsent| {
                let frames =
                    Frames::parse(&self.parcels[u.parcel as usize].bytes[envelope::HEADER..]).expect("we wrote it");
                frames.into_iter().any(|f| matches!(f, Frame::Ping { .. } | Frame::PingReq { .. }))
            };
            if self.nodes[i].unsent[held..].iter().any(probes) {
                self.nodes[i].state = Machine::Hung { stuck: true };
                self.set_deadline(i);
            }
        }
        true
    }

    /// One call into an engine, and all that comes of it.
    pub(super) fn turn(&mut self, i: NodeIndex, call: impl FnOnce(&mut Engine, Now, &mut Outbox)) {
        let now = self.nodes[i].clock.now(self.now);
        let mut out = core::mem::replace(&mut self.out, Outbox::new(0));
        out.clear();
        out.set_datagram_max(self.nodes[i].config.max_datagram);
        call(&mut self.nodes[i].engine, now, &mut out);
        self.read_mail(i, now, &mut out);
        let resolve = core::mem::take(&mut out.resolve);
        for seed in resolve {
            let name = &self.nodes[i].config.seeds[seed];
            let addrs = self.names.get(name).cloned().unwrap_or_else(|| name.parse().into_iter().collect());
            self.nodes[i].engine.handle(now, Input::Resolved { seed, addrs: &addrs }, &mut out);
        }
        for event in out.events.drain(..) {
            self.trace = mix(self.trace ^ event.kind as u64 ^ event.view.rotate_left(17) ^ self.now.as_nanos());
            if let Some(watcher) = &mut self.watcher {
                watcher(self.now, i, &event);
            }
            if let Some(log) = &mut self.log {
                log.push((self.now, Happening::Event(i, self.nodes[i].run, event.clone())));
            }
            if let (Some(sessions), Some(member)) = (&mut self.nodes[i].sessions, &event.member) {
                // As the driver does: sessions of members are kept.
                event.before.iter().filter(|b| b.run != member.run).for_each(|b| sessions.set_member(b.run, false));
                sessions.set_member(member.run, event.kind != EventKind::Forgotten);
            }
            if self.keep_events {
                self.nodes[i].events.push((self.now, event));
            }
        }
        for message in out.messages.drain(..) {
            if let Manner::Broadcast { seq } = message.manner {
                self.trace = mix(self.trace ^ message.run.get() ^ seq.rotate_left(32) ^ self.now.as_nanos());
            }
            if let Manner::Query(query) = message.manner {
                self.trace = mix(self.trace ^ message.run.get() ^ !query.id ^ self.now.as_nanos());
            }
            if let Some(listener) = &mut self.listener {
                listener(self.now, i, &message);
            }
            if self.keep_events {
                self.nodes[i].messages.push((self.now, message));
            }
        }
        self.nodes[i].completions.append(&mut out.completions);
        self.nodes[i].streams.append(&mut out.streams);
        for question in out.questions.drain(..) {
            let verdict = self.judges.as_ref().and_then(|judges| (judges.verdict)(&question));
            if let (Some((verdict, after)), Manner::Broadcast { seq }) = (verdict, question.manner) {
                self.give_verdict(i, self.nodes[i].run, (question.run, seq), verdict, after);
            }
        }
        for p in 0..out.len() {
            let to = out.destination(p);
            let via = if self.nodes[i].config.transport == Transport::Tcp { Via::Stream } else { to.via };
            self.send(i, Destination { via, ..to }, &out.packets()[p].buf);
        }
        self.out = out;
        self.set_deadline(i);
    }

    /// An application that is done at once with what it is told, and answers with what it was asked.
    fn read_mail(&mut self, i: NodeIndex, now: Now, out: &mut Outbox) {
        let mut messages = core::mem::take(&mut out.messages);
        let (mut read, mut answers_read) = (0, 0);
        loop {
            let engine = &mut self.nodes[i].engine;
            if let Some(message) = messages.get(read) {
                read += 1;
                engine.consumed(now, message.weight(), out);
                // Where the asker is gone, nobody waits for it.
                let _ = match message.manner {
                    Manner::Request { id } => engine.reply(now, message.run, id, Ok(message.body.data()), out),
                    Manner::Query(query) if self.answers => {
                        engine.answer_query(now, message.run, query, Ok(message.body.data()), out)
                    }
                    _ => Ok(()),
                };
            } else if let Some(completion) = out.completions.get(answers_read) {
                answers_read += 1;
                if let Completion::Answered { answer, .. } = completion {
                    engine.consumed(now, answer.weight(), out);
                }
            } else {
                break;
            }
            // What there was no room for.
            messages.append(&mut out.messages);
        }
        out.messages = messages;
    }

    /// An application that stands still says it later.
    fn give_verdict(&mut self, i: NodeIndex, judge: RunId, id: (RunId, u64), verdict: Verdict, after: Duration) {
        self.after(after, move |world| {
            let node = &world.nodes[i];
            match node.state {
                _ if !node.up || node.run != judge => {}
                Machine::Running => world.turn(i, |e, now, out| e.validated(now, id.0, id.1, verdict, out)),
                _ => world.give_verdict(i, judge, id, verdict, Duration::from_millis(100)),
            }
        });
    }

    fn set_deadline(&mut self, i: NodeIndex) {
        let node = &mut self.nodes[i];
        let deadline = match node.state {
            Machine::Hung { stuck: true } => node.engine.deadline_while_hung(),
            _ => node.engine.deadline(node.clock.mono(self.now)),
        };
        node.deadline = deadline.map(|at| node.clock.world(at));
        if let Some(at) = node.deadline {
            self.set_timer(i, at);
        }
    }

    /// A timer that is set for an earlier time serves as well: it looks again.
    pub(super) fn set_timer(&mut self, i: NodeIndex, at: Instant) {
        // A deadline that a tick does not move must not stop the world.
        let at = at.max(self.now + Duration::from_nanos(1));
        if self.nodes[i].timer.is_none_or(|timer| at < timer) {
            self.nodes[i].timer = Some(at);
            self.post(at, What::Timer(i as u32));
        }
    }
}
