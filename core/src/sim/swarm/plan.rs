//! What a seed draws: a configuration, machines, and a schedule of faults.
//!
//! Swarm testing (Groce et al., ISSTA 2012): each seed takes few kinds of faults out of many, because a run with a
//! little of everything never goes deep into anything. Actions name members by a number that wraps around, and do
//! nothing where they make no sense, so that a schedule from which actions were taken away is a schedule.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use super::ears::Tone;
use super::mail::How;
use super::polls::{Of, Poll};
use crate::config::Config;
use crate::engine::Sending;
use crate::rng::Rng;
use crate::sim::{Clock, Delay, Loss};
use crate::time::Duration;

/// Which of our nodes, counted round.
pub type Who = usize;

#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub seed: u64,
    /// Members at the start.
    pub n: usize,
    /// Options of all, as `Config::set` takes them.
    pub options: Vec<(&'static str, String)>,
    /// Options of single members: not everybody is configured alike.
    pub odd: Vec<(Who, &'static str, String)>,
    pub sealing: Sealing,
    /// Seeds beside the first member, and whether that one is known by its host name and may move.
    pub seeds: usize,
    pub named: bool,
    pub clocks: Clocks,
    /// When the faults end.
    pub chaos: Duration,
    /// Kinds of faults in it.
    pub faults: Vec<Fault>,
    pub actions: Vec<(Duration, Action)>,
    pub heal: Heal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sealing {
    /// The world refuses what the envelope would.
    None,
    Checksum,
    Key,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clocks {
    Right,
    /// Up to 5 % fast or slow, up for years, days ahead or behind.
    Wrong,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heal {
    /// Everything is mended; who was down is restarted, or (`false`) stays away.
    All { restart: bool },
    /// Only the members whose bit is set are well; each other has a fault that stays.
    Core { members: u64, plights: Vec<Plight> },
}

/// What stays wrong with a member outside the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plight {
    Down,
    Paused,
    Blocked,
    /// Nothing of it arrives anywhere.
    Mute,
    /// Nothing arrives at it.
    Deaf,
    /// It and every second member are cut off from each other.
    Half,
    /// Four of five datagrams to it, or from it, are lost.
    LosesIn,
    LosesOut,
    /// Slower than its work.
    Slow,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Action {
    Net(Net),
    /// One way.
    Cut(Who, Who),
    /// Both ways; all others reach both.
    Split(Who, Who),
    /// Those whose bit is set, and the others.
    Part(u64),
    /// Each reaches its two neighbours only.
    Ring,
    /// Two halves, and one member that both reach.
    Bridge(Who),
    LoseIn(Who, Loss),
    LoseOut(Who, Loss),
    /// Cuts, partitions and members' own losses end.
    Heal,
    Kill(Who),
    PowerOff(Who),
    Restart(Who),
    /// Restart at another address.
    Move(Who),
    /// Another name at its address.
    Rename(Who),
    StepWall(Who, i64),
    /// A second node of its name.
    Twin(Who),
    /// Its address goes to a node of another cluster, which has our seeds.
    Tenant(Who),
    /// Somebody too old for the application.
    Outdated,
    Pause(Who),
    Block(Who),
    Resume(Who),
    /// Milliseconds that each input takes it.
    Slow(Who, u64),
    /// Datagrams that wait to be read, on all machines.
    Buffer(usize),
    /// Newcomers, all at once.
    Herd(usize),
    Leave(Who, Duration),
    /// The application joins by the address of another.
    JoinBy(Who, Who),
    /// A key of that many bytes.
    Meta(Who, usize),
    /// So many small changes, one after another.
    Storm(Who, usize),
    Unset(Who),
    /// So many broadcasts of that many bytes, one after another.
    Say(Who, usize, usize, Tone),
    /// So many messages of that many bytes.
    Send {
        from: Who,
        to: Who,
        how: How,
        len: usize,
        times: usize,
    },
    /// A question to many.
    Ask(Who, Poll),
    /// A byte stream, with so many bytes each way.
    Flow {
        from: Who,
        to: Who,
        lengths: [usize; 2],
    },
}

/// One thing that the network does, or (`Calm`) does no more.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Net {
    Loss(Loss),
    Duplicate(f64),
    Reorder(f64),
    Delay(Delay),
    Corrupt(f64),
    Truncate(f64),
    Replay(f64),
    Mtu(usize),
    Bandwidth(u64, usize),
    UdpBlocked,
    TcpBlocked,
    Calm,
}

macro_rules! faults {
    ($($fault:ident = $name:literal;)*) => {
        /// Kinds of faults. A seed takes some.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault { $($fault,)* }

        impl Fault {
            pub const ALL: &'static [Fault] = &[$(Fault::$fault),*];

            pub const fn name(self) -> &'static str {
                match self { $(Fault::$fault => $name,)* }
            }
        }
    };
}

faults! {
    Loss = "loss";
    Bursts = "bursts of loss";
    Duplicates = "duplicates";
    Reordering = "reordering";
    Delays = "long delays";
    Damage = "damage";
    Replays = "replays";
    BlackHole = "black hole for large datagrams";
    Bandwidth = "narrow lines";
    NoUdp = "UDP blocked";
    NoTcp = "TCP blocked";
    OneWay = "one-way cuts";
    NonTransitive = "pairs cut";
    Partition = "partition";
    Ring = "ring";
    Bridge = "bridge";
    FlipFlop = "flip-flop";
    BadLink = "one bad link";
    Crash = "crash";
    PowerCut = "power cut";
    Restart = "restart";
    Rolling = "rolling restart";
    Move = "new address";
    Rename = "new name at an address";
    ClockBack = "clock set back";
    Twin = "two nodes of one name";
    Tenant = "another cluster at an address";
    Outdated = "old application";
    Pause = "pauses in lock-step";
    Sleep = "a long sleep";
    Block = "blocked sends and receives";
    Slow = "slow node";
    Overflow = "short receive queue";
    MassCrash = "mass crash";
    MassRestart = "mass restart";
    Herd = "herd of newcomers";
    Churn = "churn";
    Leave = "leaves";
    Join = "joins by the application";
    Meta = "metadata";
    BigMeta = "large metadata";
    Storm = "metadata storm";
    Mail = "messages";
    Polls = "questions to many";
    Flow = "byte streams";
}

impl Plan {
    pub fn draw(seed: u64) -> Plan {
        let rng = &mut Rng::new(seed ^ 0x6272_7569_7420_7377);
        let n = match rng.index(20) {
            0..3 => 2 + rng.index(2),
            3..15 => 4 + rng.index(9),
            _ => 13 + rng.index(28),
        };
        let mut faults = draw_faults(rng);
        let sealing = match rng.index(10) {
            // What an open world would let pass, and an envelope does not.
            _ if [Fault::Replays, Fault::Damage, Fault::Tenant].iter().any(|fault| faults.contains(fault)) => {
                if rng.chance(1, 3) { Sealing::Checksum } else { Sealing::Key }
            }
            0 => Sealing::Checksum,
            1 => Sealing::Key,
            _ => Sealing::None,
        };
        let clocks = if rng.chance(1, 4) { Clocks::Wrong } else { Clocks::Right };
        let sleeps = faults.contains(&Fault::Sleep);
        let least = if sleeps { 30_000 } else { 5_000 };
        let chaos = Duration::from_millis(least + rng.below(45_000 - least));
        let mut odd = if rng.chance(1, 4) { draw_odd(rng, n) } else { Vec::new() };
        let (seeds, named) = (rng.index(3), rng.chance(1, 4));
        let mut actions = Vec::new();
        for &fault in &faults {
            Episode { rng, n, chaos, actions: &mut actions }.schedule(fault);
        }
        // By a die of its own: what else a seed is does not depend on it.
        let mut die = Rng::new(seed ^ 0x6d61_696c);
        if die.chance(1, 3) {
            faults.push(Fault::Mail);
            Episode { rng: &mut die, n, chaos, actions: &mut actions }.schedule(Fault::Mail);
        }
        let mut other = Rng::new(seed ^ 0x0071_7565_7279);
        if other.chance(1, 3) {
            faults.push(Fault::Polls);
            Episode { rng: &mut other, n, chaos, actions: &mut actions }.schedule(Fault::Polls);
        }
        let mut third = Rng::new(seed ^ 0x0066_6c6f_7773);
        if third.chance(1, 4) {
            faults.push(Fault::Flow);
            Episode { rng: &mut third, n, chaos, actions: &mut actions }.schedule(Fault::Flow);
        }
        // Equal times stay in the order in which they were drawn.
        actions.sort_by_key(|(at, _)| *at);
        let heal = draw_heal(rng, n);
        let newcomers = actions.iter().map(|(_, action)| match action {
            Action::Herd(size) => *size,
            // It has the name for itself when the other is given a new one.
            Action::Twin(_) => 1,
            _ => 0,
        });
        let names = n + newcomers.sum::<usize>();
        let tight = rng.chance(1, if faults.contains(&Fault::Rename) || faults.contains(&Fault::Herd) { 2 } else { 8 });
        let mut options = draw_options(rng, names, tight, sleeps);
        if faults.contains(&Fault::Mail) && die.chance(1, 3) {
            options.extend(["send_queue", "lane_window", "inbox_bytes"].map(|key| (key, "64KiB".to_string())));
        }
        if faults.contains(&Fault::Polls) && other.chance(1, 3) {
            // A few large answers fill it.
            options.push(("send_queue", "64KiB".to_string()));
        }
        if faults.contains(&Fault::Flow) && third.chance(1, 2) {
            options.extend(["stream_window", "lane_window"].map(|key| (key, "64KiB".to_string())));
            options.push(("max_member_streams", (1 + third.index(4)).to_string()));
            options.push(("max_streams", (1 + third.index(8)).to_string()));
        }
        if options.iter().any(|(key, _)| *key == "detector") && rng.chance(1, 2) {
            odd.extend((0..n).filter(|i| i % 3 > 0).map(|i| (i, "detector", "swim".to_string())));
        }
        // Drawn last: a seed in which nobody talks is what it was before anybody could.
        if rng.chance(1, 2) {
            draw_talk(rng, n, chaos, &mut actions, &mut options);
            // By a die of its own, too.
            draw_tones(&mut Rng::new(seed ^ 0x746f_6e65), &mut actions, &mut options);
        }
        let mut plan = Plan { seed, n, options, odd, sealing, seeds, named, clocks, chaos, faults, actions, heal };
        // By another die, for the same reason.
        let mut die = Rng::new(seed ^ 0x0070_6172_7469_616c);
        if die.chance(1, 5) {
            plan.know_neighbours_only(&mut die);
        }
        let mut die = Rng::new(seed ^ 0x0072_756d_6f72);
        if die.chance(1, 4) {
            plan.tell_by_lot(&mut die);
        }
        plan
    }

    /// `broadcast = rumor`, for all or for some.
    fn tell_by_lot(&mut self, die: &mut Rng) {
        let rumor = || "rumor".to_string();
        match die.chance(1, 4) {
            true => self.odd.extend((0..self.n).filter(|_| die.chance(1, 2)).map(|i| (i, "broadcast", rumor()))),
            false => self.options.push(("broadcast", rumor())),
        }
        for (key, least, most) in [("rumor_fanout", 1, 5), ("rumor_mult", 1, 6)] {
            if die.chance(1, 3) {
                self.options.push((key, (least + die.below(most + 1 - least)).to_string()));
            }
        }
        if die.chance(1, 3) {
            self.options.push(("rumor_batch", ["1KiB", "4KiB"][die.index(2)].into()));
        }
    }

    /// `membership = partial`. Left out is what only who lists all can notice (two nodes of one name) or agree on (a core).
    fn know_neighbours_only(&mut self, die: &mut Rng) {
        let keys = ["active_view", "passive_view", "shuffle_interval", "max_members", "detector"];
        self.options.retain(|(key, _)| !keys.contains(key) && !key.starts_with("phi_"));
        self.odd.retain(|(_, key, _)| *key != "detector");
        self.faults.retain(|&fault| fault != Fault::Twin);
        self.actions.retain(|(_, action)| !matches!(action, Action::Twin(_)));
        if let Heal::Core { .. } = self.heal {
            self.heal = Heal::All { restart: die.chance(3, 4) };
        }
        self.options.push(("membership", "partial".into()));
        self.options.push(("active_view", ["3", "4", "5", "5", "6"][die.index(5)].into()));
        self.options.push(("passive_view", ["4", "10", "30"][die.index(3)].into()));
        self.options.push(("shuffle_interval", format!("{}ms", 500 + die.below(10_000))));
        if die.chance(1, 2) {
            draw_talk(die, self.n, self.chaos, &mut self.actions, &mut Vec::new());
        }
    }

    pub fn is_partial(&self) -> bool {
        self.options.contains(&("membership", "partial".to_string()))
    }

    /// What all members share.
    pub fn config(&self) -> Config {
        let mut config = Config::new();
        config.insecure_plaintext = true;
        for (key, value) in &self.options {
            config.set(key, value).expect("drawn within the bounds");
        }
        if self.sealing == Sealing::Key {
            config.keys = alloc::vec![[7; 32]];
        }
        config
    }

    /// How the clocks of the i-th machine run.
    pub fn clock(&self, i: usize) -> Clock {
        if self.clocks == Clocks::Right {
            return Clock::default();
        }
        let rng = &mut Rng::new(self.seed ^ i as u64);
        Clock {
            uptime: Duration::from_secs(rng.below(5 * 365 * 86_400)),
            drift_ppm: rng.below(100_001) as i64 - 50_000,
            wall_ms: rng.below(4 * 86_400_000) as i64 - 2 * 86_400_000,
        }
    }
}

/// Few of them, most often; and now and then many.
fn draw_faults(rng: &mut Rng) -> Vec<Fault> {
    let most = if rng.chance(1, 10) { 20 } else { 5 };
    let mut all: Vec<Fault> = Fault::ALL
        .iter()
        .copied()
        .filter(|&fault| !matches!(fault, Fault::Mail | Fault::Polls | Fault::Flow))
        .collect();
    rng.shuffle(&mut all);
    all.truncate(1 + rng.index(most));
    all
}

/// `names`: all that there will ever be at once. `tight`: there is room for them and for no more. `sleeps`: the dead are
/// forgotten while somebody does.
fn draw_options(rng: &mut Rng, names: usize, tight: bool, sleeps: bool) -> Vec<(&'static str, String)> {
    let mut options: Vec<(&'static str, String)> = Vec::new();
    let profile = ["lan", "lan", "lan", "local", "wan"][rng.index(5)];
    options.push(("profile", profile.to_string()));
    // Each lever is touched by every third seed or so.
    let mut lever = |rng: &mut Rng, key: &'static str, value: String| {
        if rng.chance(1, 3) {
            options.push((key, value));
        }
    };
    let ms = |ms: u64| format!("{ms}ms");
    let coin = |rng: &mut Rng| rng.chance(1, 2).to_string();
    let value = coin(rng);
    lever(rng, "probe_adaptive", value);
    let value = if rng.chance(1, 2) { "robin" } else { "permutation" };
    lever(rng, "probe_order", value.into());
    for key in ["stream_ping", "nacks", "buddy", "sync_on_mismatch"] {
        let value = coin(rng);
        lever(rng, key, value);
    }
    for (key, most) in [
        ("indirect_checks", 5),
        ("suspicion_confirmations", 7),
        ("suspicion_probes", 8),
        ("local_health_max", 8),
        ("max_remembered", 3),
    ] {
        let value = rng.below(most + 1).to_string();
        lever(rng, key, value);
    }
    for (key, least, most) in
        [("gossip_fanout", 1, 6), ("retransmit_mult", 2, 6), ("leave_fanout", 1, 5), ("sync_packets", 1, 8)]
    {
        let value = (least + rng.below(most + 1 - least)).to_string();
        lever(rng, key, value);
    }
    for (key, least, most) in [("suspicion_mult", 5, 40), ("suspicion_max_mult", 10, 60)] {
        let tenths = least + rng.below(most + 1 - least);
        lever(rng, key, format!("{}.{}", tenths / 10, tenths % 10));
    }
    for (key, least, most) in [
        ("gossip_flush", 0, 20),
        ("gossip_interval", 20, 300),
        ("gossip_to_dead", 0, 30_000),
        ("flap_half_life", 0, 20_000),
        ("forget_dead", 1_000, 30_000),
        ("forget_left", 1_000, 30_000),
        ("seed_retry_max", 2_000, 15_000),
    ] {
        let value = ms(least + rng.below(most + 1 - least));
        lever(rng, key, value);
    }
    for (key, values) in [
        ("gossip_budget", ["16KiB", "32KiB", "128KiB"]),
        ("meta_inline", ["0", "64B", "4KiB"]),
        ("max_datagram", ["576B", "1200B", "8900B"]),
        ("max_sessions", ["16", "16", "64"]),
        ("derive_rate", ["10", "20", "100"]),
    ] {
        let value = values[rng.index(3)].to_string();
        lever(rng, key, value);
    }
    if rng.chance(1, 10) {
        options.push(("transport", "tcp".into()));
    }
    // With φ each finds out for itself, and who forgets before the last one does is told of the dead again.
    if rng.chance(1, 4) && !options.iter().any(|(key, _)| *key == "forget_dead") && !sleeps {
        options.push(("detector", "phi".into()));
        options.push(("phi_threshold", format!("{}.0", 8 + rng.below(5))));
        // For where heartbeats come straight from their sender.
        let straight = names <= 3 && !options.contains(&("gossip_fanout", "1".into()));
        options.push(("phi_model", if straight { "normal" } else { "exponential" }.into()));
    }
    if sleeps {
        options.push(("forget_dead", "3s".into()));
    }
    if tight {
        options.push(("max_members", names.to_string()));
    }
    // Healing is waited for: most seeds make it quick.
    options.push(("heal_interval", ms(1_000 + rng.below(9_000))));
    options.push(("sync_interval", ms(2_000 + rng.below(18_000))));
    options.push(("app_version", "2".into()));
    options.push(("app_version_min", "2".into()));
    options
}

/// Who broadcasts, when, and how much.
fn draw_talk(
    rng: &mut Rng,
    n: usize,
    chaos: Duration,
    actions: &mut Vec<(Duration, Action)>,
    options: &mut Vec<(&'static str, String)>,
) {
    let (talkers, chatty) = (1 + rng.index(n), rng.chance(1, 4));
    for _ in 0..1 + rng.index(40) {
        let at = Duration::from_millis(rng.below(chaos.as_millis() as u64));
        let bytes = if rng.chance(1, 5) { 1_000 + rng.index(20_000) } else { rng.index(300) };
        let times = if chatty { 1 + rng.index(60) } else { 1 + rng.index(4) };
        actions.push((at, Action::Say(rng.index(talkers), bytes, times, Tone::Plain)));
    }
    actions.sort_by_key(|(at, _)| *at);
    for (key, values) in [
        ("active_view", ["3", "4", "6"]),
        ("passive_view", ["0", "3", "10"]),
        ("broadcast_window", ["64KiB", "64KiB", "256KiB"]),
        ("broadcast_keep", ["2s", "10s", "40s"]),
        ("link_queue", ["128KiB", "128KiB", "1MiB"]),
    ] {
        if rng.chance(1, 3) {
            options.push((key, values[rng.index(3)].to_string()));
        }
    }
    options.push(("shuffle_interval", format!("{}ms", 500 + rng.below(10_000))));
}

/// How it is said.
fn draw_tones(rng: &mut Rng, actions: &mut [(Duration, Action)], options: &mut Vec<(&'static str, String)>) {
    let (ordered, judged) = (rng.chance(1, 3), rng.chance(1, 3));
    for (_, action) in actions {
        let Action::Say(.., tone) = action else { continue };
        *tone = match rng.index(6) {
            0..3 if ordered => Tone::Ordered(rng.index(2)),
            3 if judged => Tone::Judged,
            4 if judged => Tone::JudgedInOrder,
            _ => Tone::Plain,
        };
    }
    if judged {
        options.push(("validation_timeout", ["10ms", "500ms", "5s"][rng.index(3)].to_string()));
        options.push(("validation_bytes", ["64KiB", "64KiB", "1MiB"][rng.index(3)].to_string()));
    }
}

/// Levers in which members may differ.
fn draw_odd(rng: &mut Rng, n: usize) -> Vec<(Who, &'static str, String)> {
    let levers: [(&'static str, &[&str]); 8] = [
        ("probe_order", &["robin"]),
        ("nacks", &["false"]),
        ("buddy", &["false"]),
        ("stream_ping", &["false"]),
        ("sync_on_mismatch", &["false"]),
        ("indirect_checks", &["0", "1", "5"]),
        ("suspicion_confirmations", &["0", "5"]),
        ("meta_inline", &["0", "1KiB"]),
    ];
    let one = |rng: &mut Rng| {
        let (key, values) = levers[rng.index(levers.len())];
        (rng.index(n), key, values[rng.index(values.len())].to_string())
    };
    (0..1 + rng.index(n)).map(|_| one(rng)).collect()
}

fn draw_heal(rng: &mut Rng, n: usize) -> Heal {
    if n < 5 || rng.chance(2, 3) {
        return Heal::All { restart: rng.chance(3, 4) };
    }
    // The first is the seed of all. Where more than a fifth have half a link, who is well is anybody's opinion.
    let mut members = (1u64 << n) - 1;
    for _ in 0..1 + rng.index(n / 5) {
        members &= !(1 << (1 + rng.index(n - 1)));
    }
    let plights = [
        Plight::Down,
        Plight::Paused,
        Plight::Blocked,
        Plight::Mute,
        Plight::Deaf,
        Plight::Half,
        Plight::LosesIn,
        Plight::LosesOut,
        Plight::Slow,
    ];
    // Few kinds at a time.
    let kinds: Vec<Plight> = (0..1 + rng.index(3)).map(|_| plights[rng.index(plights.len())]).collect();
    Heal::Core { members, plights: (0..n).map(|_| kinds[rng.index(kinds.len())]).collect() }
}

/// Writes faults into a schedule.
struct Episode<'a> {
    rng: &'a mut Rng,
    n: usize,
    chaos: Duration,
    actions: &'a mut Vec<(Duration, Action)>,
}

impl Episode<'_> {
    fn schedule(&mut self, fault: Fault) {
        match fault {
            Fault::Loss => {
                let p = self.rng.below(801) as f64 / 1000.0;
                self.weather(Net::Loss(Loss::Iid(p)));
            }
            Fault::Bursts => {
                let (begin, end, bad) = (0.001 + self.share(100), 0.002 + self.share(300), 0.5 + self.share(500));
                self.weather(Net::Loss(Loss::Bursts { begin, end, good: 0.0, bad }));
            }
            Fault::Duplicates => {
                let p = self.share(500);
                self.weather(Net::Duplicate(p));
            }
            Fault::Reordering => {
                let p = self.share(500);
                self.weather(Net::Reorder(p));
            }
            Fault::Delays => {
                let ms = Duration::from_millis;
                let delay = match self.rng.index(4) {
                    0 => Delay::Exponential { least: ms(1), mean: ms(1 + self.rng.below(300)) },
                    1 => Delay::LogNormal { median: ms(1 + self.rng.below(150)), factor: 1.0 + self.share(2_000) },
                    2 => Delay::Normal { mean: ms(1 + self.rng.below(400)), deviation: ms(self.rng.below(100)) },
                    _ => Delay::Pareto { least: ms(1 + self.rng.below(20)), alpha: 1.2 + self.share(1_500) },
                };
                self.weather(Net::Delay(delay));
            }
            Fault::Damage => {
                let (corrupt, truncate) = (self.share(300), self.share(300));
                self.weather(Net::Corrupt(corrupt));
                self.weather(Net::Truncate(truncate));
            }
            Fault::Replays => {
                let p = self.share(500);
                self.weather(Net::Replay(p));
            }
            Fault::BlackHole => {
                let mtu = 200 + self.rng.index(1_200);
                self.weather(Net::Mtu(mtu));
            }
            Fault::Bandwidth => {
                let (rate, queue) = (1_000 + self.rng.below(50_000), 2_000 + self.rng.index(60_000));
                self.weather(Net::Bandwidth(rate, queue));
            }
            Fault::NoUdp => self.weather(Net::UdpBlocked),
            Fault::NoTcp => self.weather(Net::TcpBlocked),
            Fault::OneWay => self.cuts(|e| Action::Cut(e.who(), e.who())),
            Fault::NonTransitive => self.cuts(|e| Action::Split(e.who(), e.who())),
            Fault::Partition => {
                for _ in 0..1 + self.rng.index(2) {
                    let sides = self.rng.next_u64();
                    let (from, to) = self.span();
                    self.at(from, Action::Part(sides));
                    self.at(to, Action::Heal);
                }
            }
            Fault::Ring => self.cuts(|_| Action::Ring),
            Fault::Bridge => self.cuts(|e| Action::Bridge(e.who())),
            Fault::FlipFlop => self.flip_flop(),
            Fault::BadLink => self.cuts(|e| {
                let (who, loss) = (e.who(), Loss::Iid(0.3 + e.share(600)));
                if e.rng.chance(1, 2) { Action::LoseIn(who, loss) } else { Action::LoseOut(who, loss) }
            }),
            Fault::Crash => self.some(3, |e| Action::Kill(e.who())),
            Fault::PowerCut => self.some(3, |e| Action::PowerOff(e.who())),
            Fault::Restart => self.some(4, |e| Action::Restart(e.who())),
            Fault::Rolling => {
                let (from, to) = self.span();
                for i in 0..self.n {
                    self.at(from + (to - from) * i as u32 / self.n as u32, Action::Restart(i));
                }
            }
            Fault::Move => self.some(3, |e| Action::Move(e.who())),
            Fault::Rename => self.some(2, |e| Action::Rename(e.who())),
            Fault::ClockBack => {
                for _ in 0..1 + self.rng.index(2) {
                    let (who, (at, to)) = (self.who(), self.span());
                    let ms = self.rng.below(7_200_000) as i64 - 6_000_000;
                    self.at(at, Action::StepWall(who, ms));
                    self.at(to, Action::Restart(who));
                }
            }
            Fault::Twin => {
                let (who, (from, to)) = (self.who(), self.span());
                self.at(from, Action::Twin(who));
                if self.rng.chance(1, 2) {
                    // Nobody who knows the one is there to refuse the other.
                    self.at(from, Action::Part(1 << who));
                    self.at(to, Action::Heal);
                }
            }
            Fault::Tenant => self.some(2, |e| Action::Tenant(e.who())),
            Fault::Outdated => self.some(1, |_| Action::Outdated),
            Fault::Pause => self.stops(Action::Pause),
            Fault::Sleep => {
                // It holds for alive who died meanwhile and was forgotten by the others.
                let (sleeper, dead, second) = (self.who(), self.who(), Duration::from_secs(1));
                self.at(second * 3, Action::Pause(sleeper));
                self.at(second * 4, Action::Kill(dead));
                self.at(self.chaos, Action::Resume(sleeper));
            }
            Fault::Block => self.stops(Action::Block),
            Fault::Slow => {
                let (who, (from, to)) = (self.who(), self.span());
                let most = if self.rng.chance(1, 3) { 2_000 } else { 50 };
                let ms = 1 + self.rng.below(most);
                self.at(from, Action::Slow(who, ms));
                self.at(to, Action::Slow(who, 0));
            }
            Fault::Overflow => {
                let (from, len) = (self.time(), 1 + self.rng.index(20));
                self.at(from, Action::Buffer(len));
            }
            Fault::MassCrash => {
                let (at, share) = (self.time(), 1 + self.rng.below(10));
                for i in 0..self.n {
                    if self.rng.chance(share, 10) {
                        self.at(at, Action::Kill(i));
                    }
                }
            }
            Fault::MassRestart => {
                let at = self.time();
                (0..self.n).for_each(|i| self.at(at, Action::Restart(i)));
            }
            Fault::Herd => {
                let (at, size) = (self.time(), 1 + self.rng.index(self.n.min(10)));
                self.at(at, Action::Herd(size));
            }
            Fault::Churn => self.some(12, |e| match e.rng.index(4) {
                0 => Action::Kill(e.who()),
                1 => Action::Herd(1),
                2 => Action::Leave(e.who(), Duration::from_secs(2)),
                _ => Action::Restart(e.who()),
            }),
            Fault::Leave => self.some(3, |e| {
                let patience = if e.rng.chance(1, 3) { 0 } else { e.rng.below(5_000) };
                Action::Leave(e.who(), Duration::from_millis(patience))
            }),
            Fault::Join => self.some(3, |e| Action::JoinBy(e.who(), e.who())),
            Fault::Meta => self.some(20, |e| match e.rng.index(4) {
                0 => Action::Unset(e.who()),
                _ => Action::Meta(e.who(), e.rng.index(300)),
            }),
            Fault::BigMeta => self.some(6, |e| match e.rng.index(4) {
                0 => Action::Unset(e.who()),
                _ => Action::Meta(e.who(), 1 << e.rng.index(16)),
            }),
            Fault::Mail => self.some(30, |e| {
                let how = match e.rng.index(5) {
                    0 => How::Send(Sending::BestEffort),
                    1 => How::Send(Sending::Reliable),
                    2 => How::Send(Sending::Receipt),
                    _ => How::Request(20 + e.rng.below(8_000)),
                };
                // Some need parts, and a few of them fill the smallest queue.
                let len = if e.rng.chance(1, 5) { e.rng.index(60_000) } else { e.rng.index(1_500) };
                Action::Send { from: e.who(), to: e.who(), how, len, times: 1 + e.rng.index(8) }
            }),
            Fault::Polls => self.some(20, |e| {
                let of = match e.rng.index(5) {
                    0 => Of::Some,
                    1 => Of::Holders(e.rng.index(5)),
                    _ => Of::All,
                };
                let relay = if e.rng.chance(1, 2) { e.rng.index(9) } else { 0 };
                let patience = if e.rng.chance(1, 3) { 0 } else { 20 + e.rng.below(8_000) };
                let (acks, loopback) = (e.rng.chance(1, 2), e.rng.chance(1, 4));
                // Some need parts on their way back.
                let len = if e.rng.chance(1, 8) { e.rng.index(30_000) } else { e.rng.index(1_000) };
                Action::Ask(e.who(), Poll { len, patience, relay, acks, loopback, of })
            }),
            Fault::Flow => self.some(20, |e| {
                let mut length = || 1 << e.rng.index(18);
                let lengths = [length() - 1, length() - 1];
                Action::Flow { from: e.who(), to: e.who(), lengths }
            }),
            Fault::Storm => self.some(20, |e| Action::Storm(e.who(), 1 + e.rng.index(8))),
        }
    }

    fn at(&mut self, at: Duration, action: Action) {
        self.actions.push((at, action));
    }

    fn who(&mut self) -> Who {
        self.rng.index(self.n)
    }

    /// Up to so many thousandths.
    fn share(&mut self, most: u64) -> f64 {
        self.rng.below(most + 1) as f64 / 1000.0
    }

    fn time(&mut self) -> Duration {
        Duration::from_millis(self.rng.below(self.chaos.as_millis() as u64))
    }

    fn span(&mut self) -> (Duration, Duration) {
        let (a, b) = (self.time(), self.time());
        (a.min(b), a.max(b))
    }

    /// At some times, once up to `most` times.
    fn some(&mut self, most: usize, mut action: impl FnMut(&mut Self) -> Action) {
        for _ in 0..1 + self.rng.index(most) {
            let (at, action) = (self.time(), action(self));
            self.at(at, action);
        }
    }

    /// Half of the time it ends before the chaos does.
    fn weather(&mut self, net: Net) {
        let (from, to) = self.span();
        self.at(from, Action::Net(net));
        if self.rng.chance(1, 2) {
            self.at(to, Action::Net(Net::Calm));
        }
    }

    /// A few of them for a while.
    fn cuts(&mut self, mut cut: impl FnMut(&mut Self) -> Action) {
        let (from, to) = self.span();
        for _ in 0..1 + self.rng.index(self.n) {
            let cut = cut(self);
            self.at(from, cut);
        }
        self.at(to, Action::Heal);
    }

    /// Rapid §7: a link works for a while and fails for a while, here 1 to 20 s each.
    fn flip_flop(&mut self) {
        let (from, to) = self.span();
        let (who, half) = (self.who(), Duration::from_millis(1_000 + self.rng.below(19_000)));
        let incoming = self.rng.chance(1, 2);
        let mut at = from;
        while at < to {
            let loss = Loss::Iid(1.0);
            self.at(at, if incoming { Action::LoseIn(who, loss) } else { Action::LoseOut(who, loss) });
            self.at(at + half, Action::Heal);
            at += half * 2;
        }
    }

    /// Lifeguard §V: several stop at once, and go on at once; some of them again and again.
    fn stops(&mut self, stop: impl Fn(Who) -> Action) {
        let first = self.time();
        let (down, up) = (50 + self.rng.below(8_000), 50 + self.rng.below(4_000));
        let who: Vec<Who> = (0..1 + self.rng.index(self.n.div_ceil(2))).map(|_| self.who()).collect();
        for round in 0..1 + self.rng.index(4) as u32 {
            let at = first + Duration::from_millis(down + up) * round;
            who.iter().for_each(|&i| self.at(at, stop(i)));
            who.iter().for_each(|&i| self.at(at + Duration::from_millis(down), Action::Resume(i)));
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} members, {} seeds{}, sealing {:?}, clocks {:?}, {:.1} s of chaos",
            self.n,
            self.seeds + 1,
            if self.named { " by name" } else { "" },
            self.sealing,
            self.clocks,
            self.chaos.as_secs_f64()
        )?;
        let faults: Vec<&str> = self.faults.iter().map(|fault| fault.name()).collect();
        writeln!(f, "  faults: {}", faults.join(", "))?;
        for (key, value) in &self.options {
            writeln!(f, "  {key} = {value}")?;
        }
        for (who, key, value) in &self.odd {
            writeln!(f, "  n{who}: {key} = {value}")?;
        }
        for (at, action) in &self.actions {
            writeln!(f, "  {:>7.3} s  {action:?}", at.as_secs_f64())?;
        }
        writeln!(f, "  then heal: {:?}", self.heal)
    }
}
