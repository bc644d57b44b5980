//! What a cluster is put through: who knows whom at the start, and then phases with their network, faults and work.
//!
//! ```text
//!  nodes start          form                  phase 1            phase 2
//!  ├──────────────────────┼───────────────────────┼──────────────────┤
//!   topology: whom each    until all agree          network, faults and work of a phase begin with it and end with it;
//!   has for its seeds      (or not at all)          who was killed stays so, until it is restarted
//! ```
//!
//! A [`Scenario`] is plain data, checked by [`Scenario::validate`]. It can be written as text ([`Scenario::parse`]), and
//! is run by [`Scenario::run`]: one trial a seed, all trials in one [`Report`](super::Report).
//!
//! ```
//! use bruit_core::sim::{Fault, Network, Phase, Run, Scenario, Until, Who};
//! use core::time::Duration;
//!
//! let mut scenario = Scenario::new("a crash under loss", 20);
//! scenario.network = Network::lossy(0.1);
//! scenario.phases.push(Phase {
//!     faults: vec![Fault::Kill(Who::Some(1))],
//!     until: Some(Until::Agree),
//!     ..Phase::new("crash", Duration::from_secs(60))
//! });
//! let report = scenario.run(&Run { trials: Some(3), ..Run::default() })?;
//! assert_eq!(report.success_rate(), 1.0);
//! println!("{report}");
//! # Ok::<(), bruit_core::Error>(())
//! ```

use alloc::borrow::ToOwned;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::net::{Loss, Network};
use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::id::NodeName;
use crate::rng::Rng;
use crate::time::Duration;

/// Nodes of one scenario, those included that join later: as many as there are addresses.
const NODES_MAX: usize = 1_000_000;

/// Metadata updates a second. Virtual time is free, but not for nothing.
const UPDATES_MAX: f64 = 1e6;

#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    pub title: String,
    /// How many there are at the start.
    pub nodes: usize,
    /// Names of the first ones; the others are `n` and their index.
    pub names: Vec<String>,
    /// Of every node. Its name, address and seeds are not for it to say.
    pub config: Config,
    pub topology: Topology,
    pub network: Network,
    /// Packets go through the real envelope, at some ten times the cost.
    pub sealed: bool,
    /// How long they may take to find each other before the first phase begins. Zero: it begins at once.
    pub form: Duration,
    /// Time between two looks at how stale tables are. Zero: nobody looks.
    pub sample: Duration,
    /// Bytes of a value that `tell` and `updates` write.
    pub payload: usize,
    pub phases: Vec<Phase>,
    /// Of a run that says nothing else.
    pub trials: usize,
    pub seed: u64,
}

/// Who knows whom at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topology {
    /// Everybody has everybody in its table already.
    Full,
    /// All have the first one for their seed; it has none.
    One,
    /// All have the first one for their seed, and it has all of them.
    Star,
    /// Each has its neighbours in a row.
    Line,
    /// And the last one is a neighbour of the first.
    Ring,
    /// Each has so many others, chosen by chance.
    Random(usize),
    /// Nobody knows anybody.
    None,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Phase {
    pub name: String,
    /// It lasts so long; or until what `until` says, and then the trial fails if that does not come true in time.
    pub duration: Duration,
    pub until: Option<Until>,
    /// Instead of the scenario's.
    pub network: Option<Network>,
    /// They begin with the phase, in this order.
    pub faults: Vec<Fault>,
    /// Updates of metadata in a second, all nodes together, at random moments by random nodes.
    pub updates: f64,
    /// These change a key of their metadata at the beginning: a rumor, whose spreading is measured.
    pub tell: Option<Who>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Until {
    /// All that run list exactly those that run, and suspect nobody.
    Agree,
    /// What was told, in this phase or before, is known to that share of the nodes that run.
    Reach(f64),
}

/// Which nodes. Chosen by chance from those that the fault can befall and that have none yet.
#[derive(Clone, Debug, PartialEq)]
pub enum Who {
    Some(usize),
    /// Of those that run; rounded up.
    Share(f64),
    Named(Vec<String>),
    All,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// kill -9: closed ports answer.
    Kill(Who),
    /// The machine is gone: nothing answers.
    PowerOff(Who),
    /// Who is down starts again under its old name, with nothing remembered.
    Restart(Who),
    Leave(Who),
    /// New nodes; each has three that run for its seeds.
    Join(usize),
    /// SIGSTOP. Until the phase ends, like all that follows.
    Pause(Who),
    /// Its sends and receives hang; its timers run (Lifeguard §V).
    Block(Who),
    /// Each input takes so long.
    Slow(Who, Duration),
    /// Datagrams to it, or from it, get lost on top of what the network loses.
    Ingress(Who, Loss),
    Egress(Who, Loss),
    /// Nothing reaches it for a while, then all for a while, and so on (Rapid §7).
    FlipFlop {
        who: Who,
        deaf: Duration,
        well: Duration,
    },
    /// Nothing from those reaches these.
    Cut {
        from: Who,
        to: Who,
    },
    /// Nothing passes between sides. Who is on none of them is on one more.
    Partition(Vec<Who>),
}

impl Scenario {
    /// Nodes with default options that find each other through the first one, and no phase.
    pub fn new(title: &str, nodes: usize) -> Scenario {
        Scenario {
            title: title.to_owned(),
            nodes,
            names: Vec::new(),
            config: Config::new(),
            topology: Topology::One,
            network: Network::default(),
            sealed: false,
            form: Duration::from_secs(60),
            sample: Duration::from_secs(1),
            payload: 16,
            phases: Vec::new(),
            trials: 10,
            seed: 1,
        }
    }

    /// `E_INVALID`, or what [`Config::validate`] says; the text names what to change.
    pub fn validate(&self) -> Result<()> {
        let invalid = |text: String| Err(Error::new(Code::Invalid, text));
        if self.nodes == 0 {
            return invalid("nodes = 0: expected at least 1".into());
        }
        if self.all() > NODES_MAX {
            return invalid(format!("{} nodes, those included that join: expected at most {NODES_MAX}", self.all()));
        }
        if self.trials == 0 {
            return invalid("trials = 0: expected at least 1".into());
        }
        if self.names.len() > self.nodes {
            return invalid(format!("{} names for {} nodes", self.names.len(), self.nodes));
        }
        let mut names = BTreeSet::new();
        for i in 0..self.all() {
            let name = self.name(i);
            NodeName::new(&name)?;
            if let Some(twice) = names.replace(name) {
                return invalid(format!("two nodes are called {twice:?}"));
            }
        }
        if let Topology::Random(0) = self.topology {
            return invalid("topology = random 0: expected at least 1 node that each knows".into());
        }
        self.network.validate()?;
        // They are on no interface that anybody could reach.
        let mut config = self.config.clone();
        config.insecure_plaintext = true;
        config.validate()?;
        let meta_max = config.meta_max;
        if self.payload > meta_max / 4 {
            return invalid(format!("payload = {}: expected at most a quarter of meta_max = {meta_max}", self.payload));
        }
        let (mut phases, mut told) = (BTreeSet::new(), false);
        for phase in &self.phases {
            let refuse = |e: Error| Error { text: format!("phase {:?}: {}", phase.name, e.text), ..e };
            if !phases.insert(&phase.name) || phase.name == FORM {
                return invalid(format!("phase {:?}: there is another one of that name", phase.name));
            }
            told |= phase.tell.is_some();
            self.check(phase, told, &names).map_err(refuse)?;
        }
        Ok(())
    }

    fn check(&self, phase: &Phase, told: bool, names: &BTreeSet<String>) -> Result<()> {
        let invalid = |text: String| Err(Error::new(Code::Invalid, text));
        if phase.name.is_empty() || phase.name.chars().any(char::is_control) {
            return invalid("expected a name".into());
        }
        if phase.duration.is_zero() {
            return invalid("for = 0: expected how long it lasts".into());
        }
        if !(0.0..=UPDATES_MAX).contains(&phase.updates) {
            return invalid(format!("updates = {}: expected 0 to {UPDATES_MAX} a second", phase.updates));
        }
        phase.network.map_or(Ok(()), |network| network.validate())?;
        if let Some(Until::Reach(share)) = phase.until {
            if !(share > 0.0 && share <= 1.0) {
                return invalid(format!("until = reach {share}: expected a share above 0, up to 1"));
            }
            if !told {
                return invalid(format!(
                    "until = reach {share}: nothing is told in this phase or before; tell = 1 does"
                ));
            }
        }
        let (whos, losses): (Vec<&Who>, Vec<Loss>) =
            phase.faults.iter().fold(Default::default(), |(mut w, mut l), f| {
                w.extend(f.whos());
                l.extend(f.loss());
                (w, l)
            });
        losses.iter().try_for_each(Loss::validate)?;
        for who in whos.into_iter().chain(&phase.tell) {
            match who {
                Who::Some(0) => return invalid("0 nodes: leave it out".into()),
                Who::Some(n) if *n > names.len() => {
                    return invalid(format!("{n} nodes: there are {}", names.len()));
                }
                Who::Share(share) if !(*share > 0.0 && *share <= 1.0) => {
                    return invalid(format!("{share}: expected a share above 0, up to 1"));
                }
                Who::Named(named) => {
                    if let Some(nobody) = named.iter().find(|name| !names.contains(*name)) {
                        return invalid(format!("no node is called {nobody:?}"));
                    }
                }
                _ => {}
            }
        }
        for fault in &phase.faults {
            match fault {
                Fault::Join(0) => return invalid("join = 0: leave it out".into()),
                Fault::FlipFlop { deaf, well, .. } if deaf.is_zero() || well.is_zero() => {
                    return invalid("flip_flop: expected two times above 0".into());
                }
                Fault::Partition(sides) if sides.is_empty() => return invalid("partition: expected a side".into()),
                _ => {}
            }
        }
        Ok(())
    }

    /// All nodes that there ever are.
    pub(super) fn all(&self) -> usize {
        let joins = self.phases.iter().flat_map(|phase| &phase.faults);
        joins.fold(self.nodes, |n, fault| n.saturating_add(if let Fault::Join(more) = fault { *more } else { 0 }))
    }

    pub(super) fn name(&self, i: usize) -> String {
        self.names.get(i).cloned().unwrap_or_else(|| format!("n{i}"))
    }

    /// Whom the i-th node has for its seeds.
    pub(super) fn known(&self, i: usize, rng: &mut Rng) -> Vec<usize> {
        let n = self.nodes;
        match self.topology {
            Topology::Full | Topology::None => Vec::new(),
            Topology::One => {
                if i == 0 {
                    Vec::new()
                } else {
                    alloc::vec![0]
                }
            }
            Topology::Star => {
                if i == 0 {
                    (1..n).collect()
                } else {
                    alloc::vec![0]
                }
            }
            Topology::Line => [i.checked_sub(1), Some(i + 1).filter(|&next| next < n)].into_iter().flatten().collect(),
            Topology::Ring => {
                let both = BTreeSet::from([(i + n - 1) % n, (i + 1) % n]);
                both.into_iter().filter(|&j| j != i).collect()
            }
            Topology::Random(k) => {
                let mut known = BTreeSet::new();
                while known.len() < k.min(n - 1) {
                    let j = rng.index(n);
                    if j != i {
                        known.insert(j);
                    }
                }
                known.into_iter().collect()
            }
        }
    }
}

/// What the time before the first phase is called.
pub(super) const FORM: &str = "form";

impl Phase {
    /// Nothing happens for so long.
    pub fn new(name: &str, duration: Duration) -> Phase {
        Phase {
            name: name.to_string(),
            duration,
            until: None,
            network: None,
            faults: Vec::new(),
            updates: 0.0,
            tell: None,
        }
    }
}

impl Fault {
    fn whos(&self) -> Vec<&Who> {
        match self {
            Fault::Kill(who)
            | Fault::PowerOff(who)
            | Fault::Restart(who)
            | Fault::Leave(who)
            | Fault::Pause(who)
            | Fault::Block(who)
            | Fault::Slow(who, _)
            | Fault::Ingress(who, _)
            | Fault::Egress(who, _)
            | Fault::FlipFlop { who, .. } => alloc::vec![who],
            Fault::Cut { from, to } => alloc::vec![from, to],
            Fault::Partition(sides) => sides.iter().collect(),
            Fault::Join(_) => Vec::new(),
        }
    }

    fn loss(&self) -> Option<Loss> {
        match self {
            Fault::Ingress(_, loss) | Fault::Egress(_, loss) => Some(*loss),
            _ => None,
        }
    }
}
