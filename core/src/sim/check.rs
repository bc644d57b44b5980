//! What must hold of a cluster at every moment, whatever happens to it: small checks that look at a node after its turn.
//!
//! | rule | what it promises |
//! |---|---|
//! | monotone | at one observer a name never goes back: not to an earlier life, not to a lower epoch or incarnation |
//! | owner | nobody knows a run in a higher incarnation than it ever gave itself; nor epoch, but for the one that a namesake's earlier life earned it |
//! | transition | within a run, nobody dies unsuspected; who is suspected or dead is alive again only in a higher incarnation, and who left never is |
//! | foreign | who is listed is, or was, a node of this world and cluster, of that name and at that address |
//! | twice | no name is listed twice |
//! | own | a node lists itself, alive until it leaves |
//! | story | what the events said adds up to what the view says |
//! | memory | nothing that has a bound exceeds it |
//! | traffic | what a node sends stays within what its configuration and what it hears allow |
//! | queue | what waits in the world does not pile up |
//! | once | a broadcast is told once, as it was said, and only if it was |
//!
//! They see every event, and so also what was true for a moment inside one turn. [`swarm`](super::swarm) adds what must
//! hold in the end.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;

use super::{NodeIndex, World};
use crate::collection::state::STATE_MAX;
use crate::config::{Config, Membership};
use crate::id::{Epoch, Incarnation, NodeName, RunId};
use crate::protocol::hyparview::ASKED_MAX;
use crate::protocol::probe::FLIGHTS_MAX;
use crate::time::{Duration, Instant, nanos};
use crate::view::{Event, EventKind, Member, MemberState, View};

macro_rules! rules {
    ($($rule:ident = $name:literal;)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Rule { $($rule,)* }

        impl Rule {
            pub const ALL: &'static [Rule] = &[$(Rule::$rule),*];

            pub const fn name(self) -> &'static str {
                match self { $(Rule::$rule => $name,)* }
            }
        }
    };
}

rules! {
    Monotone = "monotone";
    Owner = "owner";
    Transition = "transition";
    Foreign = "foreign";
    Twice = "twice";
    Own = "own";
    Story = "story";
    Memory = "memory";
    Traffic = "traffic";
    Queue = "queue";
    Once = "once";
    // See `swarm::mail`.
    Mail = "mail";
    // See `swarm::polls`.
    Polls = "polls";
    // See `swarm::flow`.
    Flow = "flow";
    // In the end: see `swarm`.
    Agreement = "agreement";
    Delivered = "delivered";
    FalseDeath = "false death";
    Peace = "peace";
    Repeatable = "repeatable";
}

/// A rule that was broken: where, when, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub rule: Rule,
    /// Since the world began.
    pub at: Duration,
    pub node: Option<NodeName>,
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = self.node.as_ref().map_or("", |name| &**name);
        write!(f, "{} broken at {:.3} s by {node}: {}", self.rule.name(), self.at.as_secs_f64(), self.what)
    }
}

/// A rule and how it was broken, before it is known where.
type Check = Result<(), (Rule, String)>;

/// All checks, and what they remember. [`after`](Checks::after) each turn.
#[derive(Default)]
pub struct Checks {
    register: Register,
    watches: Vec<Watch>,
    storm: Storm,
    began: Option<Instant>,
}

/// What is remembered of one observer in its present run.
struct Watch {
    run: RunId,
    /// Events read.
    read: usize,
    version: Option<u64>,
    sights: Sights,
    rate: Rate,
}

impl Checks {
    /// The most packets that were sent in a second, for each node.
    pub fn busiest(&self) -> u64 {
        self.storm.most
    }

    /// After `i` had a turn, and after it was started.
    pub fn after(&mut self, world: &mut World, i: NodeIndex) -> Result<(), Violation> {
        let began = *self.began.get_or_insert(world.now().mono);
        self.look(world, i).map_err(|(rule, what)| {
            let at = world.now().mono.since(began);
            Violation { rule, at, node: Some(world.name(i).clone()), what }
        })
    }

    fn look(&mut self, world: &mut World, i: NodeIndex) -> Check {
        while self.watches.len() <= i {
            let next = self.watches.len();
            self.watches.push(Watch::new(world, next));
        }
        if self.watches[i].run != world.run_id(i) || self.watches[i].version.is_none() {
            self.register.enter(world, i);
            self.watches[i] = Watch::new(world, i);
        }
        let watch = &mut self.watches[i];
        let version = world.engine(i).view_version();
        if watch.version != Some(version) || watch.read != world.events(i).len() {
            watch.version = Some(version);
            let view = world.view(i);
            self.register.own(view.local())?;
            for (_, event) in &world.events(i)[watch.read..] {
                watch.sights.hear(&mut self.register, world.config(i), event)?;
            }
            watch.read = world.events(i).len();
            watch.sights.look(&mut self.register, world.config(i), &view)?;
        }
        loads(world, i)?;
        watch.rate.look(world, i)?;
        self.storm.look(world)?;
        queues(world, i)
    }
}

impl Watch {
    fn new(world: &World, i: NodeIndex) -> Watch {
        Watch {
            run: world.run_id(i),
            read: world.events(i).len(),
            version: None,
            sights: Sights::default(),
            rate: Rate::new(world, i),
        }
    }
}

/// Every run there ever was, with the truth about it.
#[derive(Default)]
struct Register(BTreeMap<RunId, Life>);

struct Life {
    name: NodeName,
    address: SocketAddr,
    cluster: Arc<Config>,
    /// The highest that its owner ever had.
    incarnation: Incarnation,
    /// The same, or the one that it was given when it joined and may not know of yet.
    epoch: Epoch,
}

impl Register {
    fn enter(&mut self, world: &World, i: NodeIndex) {
        let life = Life {
            name: world.name(i).clone(),
            address: world.address(i),
            cluster: world.config(i).clone(),
            incarnation: Incarnation(0),
            epoch: Epoch(0),
        };
        self.0.insert(world.run_id(i), life);
    }

    /// What a node says of itself is the truth.
    fn own(&mut self, me: &Member) -> Check {
        if let Some(life) = self.0.get_mut(&me.run) {
            if me.incarnation < life.incarnation {
                return Err((Rule::Monotone, format!("its own incarnation fell to {}", me.incarnation.0)));
            }
            life.incarnation = me.incarnation;
            life.epoch = life.epoch.max(me.epoch);
        }
        Ok(())
    }

    /// Whether what is said of `member` in `cluster` can be true.
    fn vouch(&mut self, cluster: &Config, member: &Member) -> Check {
        let name = &member.name;
        let Some(life) = self.0.get(&member.run) else {
            return Err((Rule::Foreign, format!("lists {name} {:?}, which never was", member.run)));
        };
        if life.name != *name || life.address != member.address {
            let text = format!(
                "lists {:?} as {name} at {}, it is {} at {}",
                member.run, member.address, life.name, life.address
            );
            return Err((Rule::Foreign, text));
        }
        if (&life.cluster.cluster, life.cluster.keys.first()) != (&cluster.cluster, cluster.keys.first()) {
            return Err((Rule::Foreign, format!("lists {name}, which is of another cluster")));
        }
        if member.incarnation > life.incarnation {
            let text =
                format!("knows {name} in incarnation {}, its own is {}", member.incarnation.0, life.incarnation.0);
            return Err((Rule::Owner, text));
        }
        if member.epoch > life.epoch {
            // Whoever lets a run in whose namesake was ahead of it gives it the next epoch.
            let mut others = self.0.iter().filter(|(run, other)| **run != member.run && other.name == *name);
            if !others.any(|(_, other)| other.epoch.next() >= member.epoch) {
                let text = format!("knows {name} in epoch {}, its own is {}", member.epoch.0, life.epoch.0);
                return Err((Rule::Owner, text));
            }
            self.0.get_mut(&member.run).into_iter().for_each(|life| life.epoch = member.epoch);
        }
        Ok(())
    }
}

/// What one observer said last of each name.
#[derive(Default)]
struct Sights(BTreeMap<NodeName, Sight>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sight {
    run: RunId,
    epoch: Epoch,
    incarnation: Incarnation,
    state: MemberState,
}

impl Sight {
    fn of(member: &Member) -> Sight {
        let Member { run, epoch, incarnation, state, .. } = *member;
        Sight { run, epoch, incarnation, state }
    }

    /// Whether one may follow the other, whatever was true in between.
    fn follows(&self, before: &Sight, membership: Membership) -> Check {
        let fell = |what, from, to| Err((Rule::Monotone, format!("{what} fell from {from} to {to}")));
        if self.run != before.run {
            if (self.epoch, self.run) < (before.epoch, before.run) {
                return fell("its epoch", before.epoch.0, self.epoch.0);
            }
            return Ok(());
        }
        if self.epoch < before.epoch {
            return fell("its epoch", before.epoch.0, self.epoch.0);
        }
        if self.incarnation < before.incarnation {
            return fell("its incarnation", before.incarnation.0, self.incarnation.0);
        }
        // Who knows its neighbours only finds by itself that one is gone, and back.
        let raised = self.incarnation > before.incarnation || membership == Membership::Partial;
        let fine = match (before.state, self.state) {
            (MemberState::Left, after) => after == MemberState::Left,
            (MemberState::Suspect, MemberState::Alive) => raised,
            (MemberState::Dead, MemberState::Alive | MemberState::Suspect) => raised,
            (MemberState::Alive, MemberState::Dead) => membership == Membership::Partial,
            _ => true,
        };
        if fine {
            return Ok(());
        }
        let at = |s: &Sight| format!("{:?} {}", s.state, s.incarnation.0);
        Err((Rule::Transition, format!("went from {} to {} in one run", at(before), at(self))))
    }
}

impl Sights {
    fn hear(&mut self, register: &mut Register, cluster: &Config, event: &Event) -> Check {
        let Some(member) = event.member.as_ref().filter(|m| !m.is_local) else { return Ok(()) };
        match event.kind {
            // Of our own name, and listed nowhere.
            EventKind::Conflict => return Ok(()),
            EventKind::Forgotten => {
                self.0.remove(&member.name);
                return Ok(());
            }
            _ => {}
        }
        let known = self.0.contains_key(&member.name);
        if known == (event.kind == EventKind::Join) {
            let text = format!(
                "{} of {}, which was {}listed",
                event.kind.name(),
                member.name,
                if known { "" } else { "not " }
            );
            return Err((Rule::Story, text));
        }
        self.see(register, cluster, member)
    }

    fn look(&mut self, register: &mut Register, cluster: &Config, view: &View) -> Check {
        if let Some(pair) = view.members.windows(2).find(|pair| pair[0].name >= pair[1].name) {
            return Err((Rule::Twice, format!("lists {} twice, or out of order", pair[0].name)));
        }
        let me = view.local();
        if !me.is_local || !matches!(me.state, MemberState::Alive | MemberState::Left) {
            return Err((Rule::Own, format!("lists itself as {:?}", me.state)));
        }
        for member in view.members.iter().filter(|m| !m.is_local) {
            match self.0.get(&member.name).map(|sight| sight.state) {
                Some(said) if said == member.state => {}
                said => {
                    let text = format!("lists {} as {:?}, its events said {said:?}", member.name, member.state);
                    return Err((Rule::Story, text));
                }
            }
            self.see(register, cluster, member)?;
        }
        if self.0.len() + 1 != view.members.len() {
            let gone = self.0.keys().find(|name| view.find(name).is_none());
            return Err((Rule::Story, format!("lists {gone:?} no more, and no event said so")));
        }
        Ok(())
    }

    fn see(&mut self, register: &mut Register, cluster: &Config, member: &Member) -> Check {
        register.vouch(cluster, member)?;
        let sight = Sight::of(member);
        if let Some(before) = self.0.insert(member.name.clone(), sight) {
            sight
                .follows(&before, cluster.membership)
                .map_err(|(rule, what)| (rule, format!("{}: {what}", member.name)))?;
        }
        Ok(())
    }
}

/// Everything in an engine that has a bound is within it.
fn loads(world: &World, i: NodeIndex) -> Check {
    match world.engine(i).loads().into_iter().find(|load| load.len > load.max) {
        Some(load) => Err((Rule::Memory, format!("{} {}, at most {} are allowed", load.len, load.name, load.max))),
        None => Ok(()),
    }
}

/// Entries of the queue for each node, and packets that wait to be read from each. Nobody derived them: the most in 20,000
/// seeds is a tenth, and four hundred where all talk by stream to one that is stopped.
const PENDING_MAX: usize = 2_000;
const HELD_MAX: usize = 1_000;

fn queues(world: &World, i: NodeIndex) -> Check {
    let pending = world.pending();
    if pending > PENDING_MAX * world.len() {
        return Err((Rule::Queue, format!("{pending} entries wait in the world's queue")));
    }
    let (held, most) = (world.held(i), world.receive_queue + HELD_MAX * world.len());
    if held > most {
        return Err((Rule::Queue, format!("{held} packets wait to be read")));
    }
    Ok(())
}

/// What one node sent since a moment.
struct Rate {
    since: Instant,
    sent: (u64, u64),
    heard: u64,
    calls: usize,
    pushed: u64,
}

/// Bytes of the largest broadcast that is said here.
const PUSH_MAX: u64 = 22_000;

const WINDOW: Duration = Duration::from_secs(1);

impl Rate {
    fn new(world: &World, i: NodeIndex) -> Rate {
        let engine = world.engine(i);
        let calls = engine.loads().iter().find(|load| load.name == "calls").map_or(0, |load| load.len);
        Rate {
            since: world.now().mono,
            sent: world.sent_by(i),
            heard: engine.counters().packets_in,
            calls,
            pushed: engine.counters().broadcast_pushes,
        }
    }

    fn look(&mut self, world: &World, i: NodeIndex) -> Check {
        let window = world.now().mono.since(self.since);
        if window < WINDOW {
            return Ok(());
        }
        let next = Rate::new(world, i);
        let (packets, bytes) = (next.sent.0 - self.sent.0, next.sent.1 - self.sent.1);
        let (heard, calls) = (next.heard - self.heard, self.calls + next.calls);
        let pushed = next.pushed - self.pushed;
        *self = next;
        let most = allowed(world.config(i), window, heard, calls as u64);
        let most = (most.0 + pushed, most.1 + pushed * PUSH_MAX);
        if packets <= most.0 && bytes <= most.1 {
            return Ok(());
        }
        let text = format!(
            "sent {packets} packets and {bytes} bytes in {:.1} s, having heard {heard}; allowed are {} and {}",
            window.as_secs_f64(),
            most.0,
            most.1
        );
        Err((Rule::Traffic, text))
    }
}

/// What all nodes together send: answers that call forth answers would stay within each one's own bound.
#[derive(Default)]
struct Storm {
    since: Option<Instant>,
    sent: u64,
    /// The most in a second, for each node.
    most: u64,
}

/// Packets a second for each node. Nobody derived it: the most in 20,000 seeds is a third of it.
const STORM_MAX: u64 = 2_000;

impl Storm {
    fn look(&mut self, world: &World) -> Check {
        let now = world.now().mono;
        let window = now.since(self.since.unwrap_or_default());
        if window < WINDOW {
            return Ok(());
        }
        let sent = world.traffic().all_packets();
        let nodes = (0..world.len()).filter(|&i| world.is_up(i)).count().max(1);
        // Before the first look nothing was sent.
        let rate = (sent - self.sent) * 1_000 / (window.as_millis() as u64).max(1) / nodes as u64;
        (self.since, self.sent, self.most) = (Some(now), sent, self.most.max(rate));
        if rate <= STORM_MAX {
            return Ok(());
        }
        Err((Rule::Traffic, format!("{nodes} nodes send {rate} packets a second each")))
    }
}

/// What a node may send in `window`, in packets and bytes, having heard so many packets, with so many calls open:
///
/// - news: `gossip_budget`, and the second's worth that its bucket holds; each packet is charged a whole datagram;
/// - probes: one each period, and those that suspicions ask for, `FLIGHTS_MAX` at once; each ends by an answer, which is
///   heard, or lasts for `probe_indirect_timeout`; it takes a ping, k requests and a ping by stream;
/// - heartbeats, with `detector = phi`: `gossip_fanout` a period;
/// - notes: one is compared every second gossip interval;
/// - farewells: two packets to `leave_fanout` members every `probe_timeout_min`;
/// - broadcasts: what is new to it, to each neighbour; announcements, twice a `gossip_interval` at most, and as many questions;
/// - calls: a packet each `probe_timeout` at most;
/// - answers: `sync_packets` and a handful to each packet heard, one of them as large as metadata gets.
pub fn allowed(config: &Config, window: Duration, heard: u64, calls: u64) -> (u64, u64) {
    const HANDFUL: u64 = 4;
    let times = |interval: Duration| nanos(window) / nanos(interval).max(1) + 1;
    let datagram = config.max_datagram as u64 + 28;
    let news = config.gossip_budget as u64 * (window.as_secs() + 2);
    let flights = times(config.probe_interval) + FLIGHTS_MAX as u64 * times(config.probe_indirect_timeout) + heard;
    let own = flights * (2 + config.indirect_checks as u64)
        + config.gossip_fanout as u64 * times(config.probe_interval)
        + times(config.gossip_interval * 2)
        + 4 * config.active_view as u64 * (times(config.gossip_interval) + ASKED_MAX as u64)
        + 2 * config.leave_fanout as u64 * times(config.probe_timeout_min)
        + (calls + config.seeds.len() as u64 + 1) * times(config.probe_timeout);
    let answers = heard * (config.sync_packets as u64 + HANDFUL);
    let packets = news / config.max_datagram as u64 + own + answers;
    let bytes = news + (own + answers) * datagram + heard * 2 * STATE_MAX as u64;
    (packets, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::Meta;

    fn run(id: u64) -> RunId {
        RunId::new(id).unwrap()
    }

    /// What somebody says of the member `a`: its run, epoch, incarnation and state.
    fn said(id: u64, epoch: u64, incarnation: u64, state: MemberState) -> Member {
        Member {
            name: NodeName::new("a").unwrap(),
            state,
            address: "10.0.0.1:1".parse().unwrap(),
            epoch: Epoch(epoch),
            run: run(id),
            incarnation: Incarnation(incarnation),
            since: Instant::ZERO,
            protocol: 1,
            app_version: 0,
            meta: Arc::new(Meta::new()),
            is_local: false,
            is_neighbour: false,
        }
    }

    /// A world in which `a` had the runs 1 and 2, in the epochs 10 and 20, and raised its incarnation to 3 each time.
    fn register() -> Register {
        let life = |epoch| Life {
            name: NodeName::new("a").unwrap(),
            address: "10.0.0.1:1".parse().unwrap(),
            cluster: Arc::new(Config::new()),
            incarnation: Incarnation(3),
            epoch: Epoch(epoch),
        };
        Register([(run(1), life(10)), (run(2), life(20))].into())
    }

    /// What is wrong with hearing one after the other.
    fn after(first: Member, second: Member) -> Option<Rule> {
        let (mut sights, mut register, config) = (Sights::default(), register(), Config::new());
        sights.see(&mut register, &config, &first).expect("the first may be");
        sights.see(&mut register, &config, &second).err().map(|(rule, _)| rule)
    }

    use MemberState::{Alive, Dead, Left, Suspect};

    #[test]
    fn what_may_follow_on_what_in_one_run() {
        let states = [Alive, Suspect, Dead, Left];
        // In the same incarnation, to: alive, suspect, dead, left.
        let rows = [
            (Alive, [true, true, false, true]),
            (Suspect, [false, true, true, true]),
            (Dead, [false, false, true, true]),
            (Left, [false, false, false, true]),
        ];
        for (before, fine) in rows {
            for (state, fine) in states.into_iter().zip(fine) {
                let got = after(said(1, 10, 2, before), said(1, 10, 2, state));
                assert_eq!(got, (!fine).then_some(Rule::Transition), "{before:?} to {state:?}");
                let raised = after(said(1, 10, 2, before), said(1, 10, 3, state));
                let back = before != Left && state != Dead;
                assert_eq!(raised.is_none(), fine || back, "{before:?} to {state:?}, raised");
            }
        }
    }

    #[test]
    fn nothing_goes_back() {
        assert_eq!(after(said(1, 10, 2, Alive), said(1, 10, 1, Alive)), Some(Rule::Monotone));
        assert_eq!(after(said(1, 10, 0, Alive), said(1, 9, 0, Alive)), Some(Rule::Monotone));
        assert_eq!(after(said(2, 20, 0, Dead), said(1, 10, 3, Alive)), Some(Rule::Monotone), "an earlier life");
        assert_eq!(after(said(1, 10, 3, Left), said(2, 20, 0, Alive)), None, "a later one");
    }

    #[test]
    fn only_the_owner_raises_what_is_its_own() {
        let of = |member: Member| register().vouch(&Config::new(), &member).err().map(|(rule, _)| rule);
        assert_eq!(of(said(1, 10, 3, Alive)), None);
        assert_eq!(of(said(1, 10, 4, Alive)), Some(Rule::Owner));
        assert_eq!(of(said(2, 21, 0, Alive)), Some(Rule::Owner));
        assert_eq!(of(said(1, 21, 0, Alive)), None, "it was told that its namesake was at 20");
        assert_eq!(of(said(1, 22, 0, Alive)), Some(Rule::Owner));
    }

    #[test]
    fn who_never_was_or_is_of_another_cluster_is_foreign() {
        let mut register = register();
        let mut of = |config: &Config, member: &Member| register.vouch(config, member).err().map(|(rule, _)| rule);
        let (here, mut there) = (Config::new(), Config::new());
        there.cluster = "there".into();
        assert_eq!(of(&here, &said(3, 10, 0, Alive)), Some(Rule::Foreign));
        assert_eq!(of(&there, &said(1, 10, 0, Alive)), Some(Rule::Foreign));
        let mut elsewhere = said(1, 10, 0, Alive);
        elsewhere.address.set_port(2);
        assert_eq!(of(&here, &elsewhere), Some(Rule::Foreign));
        assert_eq!(of(&here, &said(1, 10, 0, Alive)), None);
    }

    #[test]
    fn the_view_is_what_the_events_said() {
        let (config, mut sights, mut register) = (Config::new(), Sights::default(), register());
        let me = Member { is_local: true, name: NodeName::new("me").unwrap(), ..said(9, 1, 0, Alive) };
        let view = |members: &[Member]| View {
            version: 1,
            taken: Instant::ZERO,
            members: members.iter().cloned().map(Arc::new).collect(),
            rtt: alloc::vec![Duration::ZERO; members.len()],
            local: members.len() - 1,
        };
        let mut look = |sights: &mut Sights, members: &[Member]| {
            sights.look(&mut register, &config, &view(members)).err().map(|(rule, _)| rule)
        };
        let a = said(1, 10, 0, Alive);
        assert_eq!(look(&mut sights, &[a.clone(), me.clone()]), Some(Rule::Story), "no JOIN");
        sights.0.insert(a.name.clone(), Sight::of(&a));
        assert_eq!(look(&mut sights, &[a.clone(), me.clone()]), None);
        assert_eq!(look(&mut sights, &[said(1, 10, 0, Suspect), me.clone()]), Some(Rule::Story), "no SUSPECT");
        assert_eq!(look(&mut sights, core::slice::from_ref(&me)), Some(Rule::Story), "no FORGOTTEN");
        assert_eq!(look(&mut sights, &[a.clone(), a.clone(), me.clone()]), Some(Rule::Twice));
        let dead = Member { state: Dead, ..me };
        assert_eq!(look(&mut sights, &[a, dead]), Some(Rule::Own));
    }
}
