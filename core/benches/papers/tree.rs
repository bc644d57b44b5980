//! HyParView (DSN 2007) and Plumtree (SRDS 2007), both by Leitão, Pereira, Rodrigues: the overlay, the tree on it, and what both
//! are worth after a mass failure.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use bruit_core::config::Config;
use bruit_core::engine::Counters;
use bruit_core::id::RunId;
use bruit_core::message::Manner;
use bruit_core::rng::Rng;
use bruit_core::sim::{Duration, NodeIndex, World};

use super::lab::{Size, cluster, each, mean, ms, secs, world};
use super::table::{Better, Paper, Row, Slack, Table};

/// IHAVE, GRAFT, PRUNE and IDONTWANT, as in `wire/frame.rs`.
const CONTROL: [usize; 4] = [57, 58, 59, 60];
const GRAFT: usize = 58;

/// How often each message was delivered.
type Tally = Arc<Mutex<HashMap<(RunId, u64), usize>>>;

pub struct Net {
    pub world: World,
    pub nodes: Vec<NodeIndex>,
    rng: Rng,
    tally: Tally,
}

impl Net {
    fn new(seed: u64, n: usize) -> Net {
        let mut world = world(seed);
        let nodes = cluster(&mut world, n, &Config::new());
        Net::of(seed, world, nodes)
    }

    pub fn of(seed: u64, mut world: World, nodes: Vec<NodeIndex>) -> Net {
        let tally: Tally = Arc::default();
        let count = tally.clone();
        world.listener = Some(Box::new(move |_, _, message| {
            if let Manner::Broadcast { seq } = message.manner {
                *count.lock().expect("nobody panics here").entry((message.run, seq)).or_default() += 1;
            }
        }));
        Net { world, nodes, rng: Rng::new(seed), tally }
    }

    /// The overlay wakes, and comes to rest.
    fn woken(seed: u64, n: usize) -> Net {
        let mut net = Net::new(seed, n);
        net.say(0);
        net.world.run_for(secs(60));
        net
    }

    pub fn say(&mut self, by: usize) -> (RunId, u64) {
        let by = self.nodes[by];
        let seq = self.world.broadcast(by, "papers", &[7; 64]).expect("it is small, and the first for a while");
        (self.world.run_id(by), seq)
    }

    fn any(&mut self) -> usize {
        self.rng.index(self.nodes.len())
    }

    pub fn delivered(&self, message: (RunId, u64)) -> usize {
        self.tally.lock().expect("nobody panics here").get(&message).copied().unwrap_or(0)
    }

    pub fn sum(&self, count: impl Fn(&Counters) -> u64) -> f64 {
        self.nodes.iter().map(|&i| count(self.world.engine(i).counters())).sum::<u64>() as f64
    }

    pub fn control(&self) -> f64 {
        CONTROL.iter().map(|&kind| self.world.traffic().packets[kind]).sum::<u64>() as f64
    }

    /// The hops of the last delivery.
    pub fn last_hop(&self, (run, seq): (RunId, u64)) -> f64 {
        let hops = self.nodes.iter().filter_map(|&i| self.world.engine(i).hops(run, seq));
        hops.max().unwrap_or(0).into()
    }

    /// Neighbours by index, of those that are up.
    pub fn graph(&self) -> Vec<Vec<usize>> {
        let by_run: BTreeMap<RunId, usize> =
            self.nodes.iter().enumerate().map(|(at, &i)| (self.world.run_id(i), at)).collect();
        let known = |run: &RunId| by_run.get(run).copied();
        self.nodes.iter().map(|&i| self.world.engine(i).neighbours().iter().filter_map(known).collect()).collect()
    }
}

/// Of a node's neighbours, how many pairs are neighbours; the mean of all nodes.
pub fn clustering(graph: &[Vec<usize>]) -> f64 {
    let of = |neighbours: &Vec<usize>| {
        let k = neighbours.len();
        let pairs = neighbours.iter().flat_map(|&a| neighbours.iter().map(move |&b| (a, b)));
        let linked = pairs.filter(|(a, b)| a < b && graph[*a].contains(b)).count();
        if k < 2 { 0.0 } else { 2.0 * linked as f64 / (k * (k - 1)) as f64 }
    };
    mean(&graph.iter().map(of).collect::<Vec<_>>())
}

/// The mean of the shortest paths from some nodes to all that they reach, and whether that is everybody.
pub fn paths(graph: &[Vec<usize>], sources: usize) -> (f64, bool) {
    let (mut sum, mut count, mut whole) = (0usize, 0usize, true);
    for source in (0..graph.len()).step_by((graph.len() / sources).max(1)) {
        let mut far = vec![usize::MAX; graph.len()];
        let mut queue = VecDeque::from([source]);
        far[source] = 0;
        while let Some(at) = queue.pop_front() {
            for &next in &graph[at] {
                if far[next] == usize::MAX {
                    far[next] = far[at] + 1;
                    queue.push_back(next);
                }
            }
        }
        whole &= far.iter().all(|&f| f != usize::MAX);
        sum += far.iter().filter(|&&f| f != usize::MAX).sum::<usize>();
        count += far.iter().filter(|&&f| f != usize::MAX).count() - 1;
    }
    (sum as f64 / count.max(1) as f64, whole)
}

/// HyParView Table 1. `slack`: so much another seed may change of the first.
pub fn shape(size: Size, graph: &[Vec<usize>], path: f64, slack: f64) -> [Row; 2] {
    let paper = |figure: f64| (size == Size::Full).then_some(Paper { figure, give: figure * 0.001 });
    let clustered = Row {
        paper: paper(0.000_92),
        reach: (size == Size::Full).then_some(0.000_5),
        slack: Slack::By(slack),
        note: "a random graph of degree 5 has 0.00027 at 10,000".into(),
        ..Row::ours("clustering coefficient", "", clustering(graph))
    };
    let far = Row {
        paper: paper(6.385_42),
        reach: (size == Size::Full).then_some(6.40),
        note: "a random graph of degree 5 has 6.357 at 10,000".into(),
        ..Row::ours("average shortest path", "hops", path)
    };
    [clustered, far]
}

/// What the calm overlay looks like, and what a broadcast costs on it.
pub fn stable(size: Size) -> Table {
    let n = size.pick(500, 10_000);
    // A copy more now and then is not what is compared.
    let paper = |figure: f64| (size == Size::Full).then_some(Paper { figure, give: figure * 0.001 });
    // Where a paper's figure grows with n, what we reach for does.
    let of_all = |share: f64| Some(share * (n - 1) as f64);
    let mut net = Net::woken(1, n);
    let first = net.sum(|c| c.broadcast_pushes + c.broadcast_answers);
    let (graph, mut rows) = (net.graph(), Vec::new());
    let full = graph.iter().filter(|neighbours| neighbours.len() == 5).count() as f64 / n as f64;
    let (path, whole) = paths(&graph, size.pick(500, 200));
    assert!(whole, "the overlay is connected");
    rows.push(Row { better: Better::More, ..Row::ours("members with exactly 5 neighbours", "share", full) });
    rows.extend(shape(size, &graph, path, 0.000_2));
    rows.push(Row {
        note: "it wakes the overlay; the paper's overlay is there, and its first message is flooded: 39,984 at 10,000"
            .into(),
        ..Row::ours("payloads of the very first broadcast", "copies", first)
    });

    // One sender: the paper's s-s.
    let measure = |net: &mut Net, senders: &[usize], rounds: usize, pause: Duration| {
        let (pushes, control, grafts) =
            (net.sum(|c| c.broadcast_pushes + c.broadcast_answers), net.control(), net.world.traffic().packets[GRAFT]);
        let mut said = Vec::new();
        for _ in 0..rounds {
            for &by in senders {
                said.push(net.say(by));
                net.world.run_for(pause);
            }
        }
        net.world.run_for(secs(2));
        let count = said.len() as f64;
        let missed: usize = said.iter().map(|&message| n - 1 - net.delivered(message)).sum();
        assert_eq!(missed, 0, "all are delivered to all");
        let hops: Vec<f64> = said.iter().map(|&message| net.last_hop(message)).collect();
        (
            (net.sum(|c| c.broadcast_pushes + c.broadcast_answers) - pushes) / count,
            (net.control() - control) / count,
            mean(&hops),
            (net.world.traffic().packets[GRAFT] - grafts) as f64 / count,
        )
    };
    let warm = size.pick(30, 30);
    measure(&mut net, &[0], warm, ms(500));
    let (payload, control, hop, _) = measure(&mut net, &[0], size.pick(20, 20), secs(1));
    rows.push(Row {
        paper: paper(9_999.0),
        reach: of_all(1.010_1),
        note: "Plumtree Table 1; flooding takes 39,984".into(),
        ..Row::ours("one sender, one broadcast a second: payloads", "copies each", payload)
    });
    rows.push(Row {
        paper: paper(29_989.33),
        reach: of_all(1.0),
        note: "packets that begin with IHAVE, GRAFT, PRUNE or IDONTWANT; the paper batches nothing".into(),
        ..Row::ours("one sender, one broadcast a second: control", "packets each", control)
    });
    rows.push(Row {
        paper: paper(9.0),
        reach: (size == Size::Full).then_some(9.0),
        note: "HyParView Table 1 (flooding), Plumtree Figure 2c: 8 to 9".into(),
        ..Row::ours("one sender: last delivery hop", "hops", hop)
    });
    let (_, control, ..) = measure(&mut net, &[0], size.pick(100, 50), ms(50));
    rows.push(Row {
        reach: of_all(1.0),
        ..Row::ours("one sender, 20 broadcasts a second: control", "packets each", control)
    });

    // Many senders, again and again.
    let senders: Vec<usize> = (0..size.pick(20, 50)).map(|k| k * (n / 50) + 1).collect();
    measure(&mut net, &senders, 12, ms(20));
    let (payload, control, hop, _) = measure(&mut net, &senders, size.pick(3, 2), ms(20));
    rows.push(Row {
        paper: paper(9_999.0),
        reach: of_all(1.010_1),
        ..Row::ours(format!("{} senders in turn: payloads", senders.len()), "copies each", payload)
    });
    rows.push(Row {
        paper: paper(38_976.0),
        reach: of_all(1.0),
        note: "with its optimisation; 29,990 without, whose last hop is 50 to 77".into(),
        ..Row::ours(format!("{} senders in turn: control", senders.len()), "packets each", control)
    });
    rows.push(Row {
        paper: paper(17.0),
        reach: Some(10.0),
        note: "Plumtree Figure 2c, read off: one tree for all".into(),
        ..Row::ours(format!("{} senders in turn: last delivery hop", senders.len()), "hops", hop)
    });

    // Everybody once: there is no tree but the shared one. As the paper's, it had fifty messages to form.
    let strangers: Vec<usize> = (0..80).map(|k| k * (n / 100) + 3).collect();
    measure(&mut net, &strangers[..50], 1, ms(200));
    let (payload, _, hop, _) = measure(&mut net, &strangers[50..], 1, ms(200));
    rows.push(Row {
        paper: paper(9_999.0),
        reach: of_all(1.010_1),
        ..Row::ours("senders that never spoke before: payloads", "copies each", payload)
    });
    rows.push(Row {
        reach: (size == Size::Full).then_some(17.0),
        note:
            "Plumtree Figure 2c, read off: 17 with its optimisation, 50 to 77 without; here as there one tree for all"
                .into(),
        ..Row::ours("senders that never spoke before: last delivery hop", "hops", hop)
    });
    let about = format!(
        "HyParView Table 1; Plumtree Table 1 and Figure 2: {n} members, active view 5, passive view 30. The member table is there; \
         broadcasts carry 64 bytes. The papers' figures are for 10,000."
    );
    Table { name: "tree", about, rows }
}

/// The share of those who are left that one message reached, at once and in the end.
struct After {
    first_at_once: f64,
    first: f64,
    mean: f64,
    whole_after: Option<Duration>,
}

/// How they end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Their systems say so: connections are reset.
    Killed,
    /// Nothing is heard of them any more.
    PowerCut,
}

/// `spared`: one that is not among them.
fn fail(mut net: Net, share: usize, end: End, messages: usize, spared: Option<usize>) -> After {
    let n = net.nodes.len();
    for _ in 0..10 {
        net.say(0);
        net.world.run_for(ms(300));
    }
    let mut doomed: Vec<usize> = (0..n).collect();
    net.rng.shuffle(&mut doomed);
    if let Some(at) = spared.and_then(|spared| doomed.iter().position(|&at| at == spared)) {
        doomed.swap(0, at);
    }
    let left = n - n * share / 100;
    for &at in &doomed[left..] {
        match end {
            End::Killed => net.world.kill(net.nodes[at]),
            End::PowerCut => net.world.power_off(net.nodes[at]),
        }
    }
    let survivors = doomed[..left].iter().map(|&at| net.nodes[at]).collect::<Vec<_>>();
    net.nodes = survivors;
    let failed = net.world.now().mono;
    let mut said = Vec::new();
    let (mut first_at_once, mut whole_after) = (0.0, None);
    for k in 0..messages {
        let by = net.any();
        said.push(net.say(by));
        net.world.run_for(ms(20));
        if k == 0 {
            first_at_once = net.delivered(said[0]) as f64 / (left - 1) as f64;
        }
        if k % 5 == 0 && whole_after.is_none() && paths(&net.graph(), 1).1 {
            whole_after = Some(net.world.now().mono.since(failed));
        }
    }
    while whole_after.is_none() && net.world.now().mono.since(failed) < secs(120) {
        net.world.run_for(ms(500));
        whole_after = paths(&net.graph(), 1).1.then(|| net.world.now().mono.since(failed));
    }
    net.world.run_for(secs(30));
    let reached: Vec<f64> = said.iter().map(|&m| net.delivered(m) as f64 / (left - 1) as f64).collect();
    After { first_at_once, first: reached[0], mean: mean(&reached), whole_after }
}

/// HyParView Figures 2 and 4, Plumtree Figure 6.
pub fn failures(size: Size) -> Table {
    let n = size.pick(500, 10_000);
    let rows = after_failures(size, &|| Net::woken(7, n), None);
    let about = format!(
        "HyParView Figures 2 and 4, Plumtree Figure 6a: of {n} members so many end at the same moment, and the others broadcast, one after another \
         and 20 ms apart. The paper counts what arrives without any repair, so its figures and ours mean the same only for who uses them; \
         healing there is counted in cycles of its shuffle."
    );
    Table { name: "tree-failures", about, rows }
}

/// The rows of that, for clusters made by `make`.
pub fn after_failures(size: Size, make: &(impl Fn() -> Net + Sync), spared: Option<usize>) -> Vec<Row> {
    // The paper's mean reliability in per cent, and what its first message reached.
    let cases = [
        (50, End::Killed, 100.0, 95.0, 99.99),
        (80, End::Killed, 100.0, 0.0, 99.99),
        (90, End::Killed, 99.7, 0.0, 99.99),
        (95, End::Killed, 91.0, 0.0, 99.0),
        (50, End::PowerCut, 100.0, 95.0, 99.99),
        (80, End::PowerCut, 100.0, 0.0, 99.99),
    ];
    // Each of the large ones takes half of the memory of a usual machine.
    let run = |&(share, end, ..): &(usize, End, f64, f64, f64)| {
        let began = std::time::Instant::now();
        let after = fail(make(), share, end, size.pick(100, 1_000), spared);
        if size == Size::Full {
            let (mean, first, took) = (after.mean * 100.0, after.first * 100.0, began.elapsed().as_secs_f64());
            eprintln!(
                "(of {share} %, {end:?}: mean {mean:.3} %, first {first:.3} %, whole after {:?}; {took:.0} s)",
                after.whole_after
            );
        }
        after
    };
    let afters: Vec<After> = match size {
        Size::Short => each(cases.len(), |i| run(&cases[i])),
        Size::Full => cases.iter().map(run).collect(),
    };
    let mut rows = Vec::new();
    for (&(share, end, reliability, first, reach), after) in cases.iter().zip(&afters) {
        let what = match end {
            End::Killed => format!("{share} % fail at once"),
            End::PowerCut => format!("{share} % lose power"),
        };
        let paper = |figure| (size == Size::Full).then_some(Paper { figure, give: 0.0 });
        let more = |row: Row| Row { better: Better::More, slack: Slack::By(0.05), ..row };
        rows.push(more(Row {
            paper: paper(reliability),
            reach: Some(reach),
            ..Row::ours(format!("{what}: mean delivery"), "%", after.mean * 100.0)
        }));
        rows.push(more(Row {
            paper: paper(first),
            reach: Some(100.0),
            ..Row::ours(format!("{what}: first message, in the end"), "%", after.first * 100.0)
        }));
        rows.push(Row {
            better: Better::Neither,
            ..Row::ours(format!("{what}: first message, within 20 ms"), "%", after.first_at_once * 100.0)
        });
        rows.push(Row {
            better: Better::Neither,
            note: if end == End::PowerCut {
                "nothing tells but silence: by the failure detector"
            } else if share < 90 {
                "the paper: 1 to 2 cycles"
            } else {
                "the paper: 4 cycles at 90 %"
            }
            .into(),
            ..Row::ours(
                format!("{what}: connected again after"),
                "s",
                after.whole_after.map_or(f64::INFINITY, |t| t.as_secs_f64()),
            )
        });
    }
    rows
}
