//! Rapid (Suresh et al., ATC 2018) §7: what a few members that hear or are heard badly do to all the others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use bruit_core::config::Config;
use bruit_core::sim::{Loss, NodeIndex, World};
use bruit_core::time::Instant;
use bruit_core::view::{Event, EventKind};

use super::lab::{Meter, Size, cluster, each, mean_cost, memberlist, quantile, secs, world};
use super::table::{Baseline, Better, Cost, Paper, Row, Slack, Table};

const FAULTY: usize = 10;

/// §7, Figures 9 and 10.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// What they send is lost, four of five.
    Egress,
    Ingress,
    Both,
    /// Nothing reaches them for 20 s, all does for 20 s, and so on.
    FlipFlop,
    Crash,
}

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Fault::Egress => "80 % loss, egress",
            Fault::Ingress => "80 % loss, ingress",
            Fault::Both => "80 % loss, both ways",
            Fault::FlipFlop => "one-way flip-flop 20 s/20 s",
            Fault::Crash => "crashes",
        }
    }

    /// What happens in that second after it began.
    fn at(self, second: u64, world: &mut World, faulty: &[NodeIndex]) {
        let most = Some(Loss::Iid(0.8));
        for &i in faulty {
            let changed = match self {
                Fault::Egress if second == 0 => world.lose_egress(i, most),
                Fault::Ingress if second == 0 => world.lose_ingress(i, most),
                Fault::Both if second == 0 => world.lose_ingress(i, most).and_then(|()| world.lose_egress(i, most)),
                Fault::FlipFlop if second.is_multiple_of(20) => {
                    world.lose_ingress(i, second.is_multiple_of(40).then_some(Loss::Iid(1.0)))
                }
                Fault::Crash if second == 0 => {
                    world.power_off(i);
                    Ok(())
                }
                _ => Ok(()),
            };
            changed.expect("these are probabilities");
        }
    }
}

/// What the healthy members saw.
#[derive(Debug)]
struct Outcome {
    /// Deaths of healthy members, as told by healthy ones.
    healthy_dead: usize,
    /// Faulty members that no healthy one lists at the end.
    removed: usize,
    /// When the last healthy member removed the last faulty one for good, seconds after the fault began, or never.
    removed_after: f64,
    /// How often a healthy member took back a faulty one, for each of these.
    returns: f64,
    /// How often a healthy member's list changed.
    changes: f64,
    /// How often a healthy member suspected a faulty one, and a healthy one, a minute.
    suspected: (f64, f64),
    /// Different sizes of lists that were seen at whole seconds.
    sizes: usize,
    /// The shortest and the longest list of the last minute.
    swing: (usize, usize),
    /// The greatest number of different lists at one whole second.
    lists: usize,
    /// Share of the seconds in which not all healthy members had the same list.
    divided: f64,
    cost: Cost,
    /// Bytes that one healthy member sent in one second.
    bytes_p99: f64,
    bytes_max: f64,
}

/// Who is gone from whose list.
#[derive(Default)]
struct Lists {
    gone: BTreeMap<NodeIndex, BTreeSet<NodeIndex>>,
    began: Option<Instant>,
    healthy_dead: usize,
    returns: usize,
    changes: usize,
    /// Of faulty members, of healthy ones.
    suspicions: (usize, usize),
    /// The last time that any list changed.
    changed: f64,
}

impl Lists {
    fn hear(&mut self, at: Instant, by: NodeIndex, event: &Event, faulty: &[NodeIndex]) {
        let (Some(began), Some(member)) = (self.began, &event.member) else { return };
        let about: NodeIndex = member.name[1..].parse().expect("names are n and the node's index");
        if faulty.contains(&by) {
            return;
        }
        if event.kind == EventKind::Suspect {
            match faulty.contains(&about) {
                true => self.suspicions.0 += 1,
                false => self.suspicions.1 += 1,
            }
        }
        let gone = self.gone.entry(by).or_default();
        let changed = match event.kind {
            EventKind::Dead | EventKind::Left => gone.insert(about),
            EventKind::Alive | EventKind::Join => gone.remove(&about),
            _ => false,
        };
        if !changed {
            return;
        }
        self.changes += 1;
        self.changed = at.since(began).as_secs_f64();
        match event.kind {
            EventKind::Dead => self.healthy_dead += usize::from(!faulty.contains(&about)),
            _ => self.returns += usize::from(faulty.contains(&about)),
        }
    }
}

fn run(seed: u64, n: usize, seconds: u64, fault: Fault, config: &Config) -> Outcome {
    let mut world = world(seed);
    let nodes = cluster(&mut world, n, config);
    // Not the seed, and not neighbours in any order.
    let faulty: Vec<NodeIndex> = (0..FAULTY).map(|i| nodes[7 + i * (n - 7) / FAULTY]).collect();
    let healthy: Vec<NodeIndex> = nodes.iter().copied().filter(|i| !faulty.contains(i)).collect();
    let lists = Arc::new(Mutex::new(Lists::default()));
    lists.lock().expect("one thread uses it").began = Some(world.now().mono);
    let (ear, deaf) = (lists.clone(), faulty.clone());
    world.watcher =
        Some(Box::new(move |at, by, event| ear.lock().expect("one thread uses it").hear(at, by, event, &deaf)));

    let meter = Meter::start(&world);
    let (mut sizes, mut late_sizes, mut most_lists, mut divided) = (BTreeSet::new(), BTreeSet::new(), 0, 0);
    let mut bytes = Vec::new();
    for second in 0..seconds {
        fault.at(second, &mut world, &faulty);
        let before: Vec<u64> = healthy.iter().map(|&i| world.sent_by(i).1).collect();
        world.run_for(secs(1));
        bytes.extend(healthy.iter().zip(before).map(|(&i, before)| (world.sent_by(i).1 - before) as f64));
        let seen = healthy.iter().map(|&i| world.engine(i).live());
        if second + 60 >= seconds {
            late_sizes.extend(seen.clone())
        }
        sizes.extend(seen);
        let lists = lists.lock().expect("one thread uses it");
        let none = BTreeSet::new();
        let different: BTreeSet<_> = healthy.iter().map(|i| lists.gone.get(i).unwrap_or(&none)).collect();
        most_lists = most_lists.max(different.len());
        divided += usize::from(different.len() > 1);
    }
    let lists = lists.lock().expect("one thread uses it");
    let is_gone = |f: &NodeIndex| healthy.iter().all(|i| lists.gone.get(i).is_some_and(|gone| gone.contains(f)));
    let removed = faulty.iter().filter(|f| is_gone(f)).count();
    let exact = removed == FAULTY && healthy.iter().all(|i| lists.gone[i].len() == FAULTY);
    let share = |count: usize, of: usize| count as f64 / (of * healthy.len()) as f64 * 60.0 / seconds as f64;
    Outcome {
        healthy_dead: lists.healthy_dead,
        removed,
        removed_after: if exact { lists.changed } else { f64::INFINITY },
        returns: lists.returns as f64 / (FAULTY * healthy.len()) as f64,
        changes: lists.changes as f64 / healthy.len() as f64,
        suspected: (share(lists.suspicions.0, FAULTY), share(lists.suspicions.1, healthy.len())),
        sizes: sizes.len(),
        swing: (late_sizes.first().copied().unwrap_or(0), late_sizes.last().copied().unwrap_or(0)),
        lists: most_lists,
        divided: divided as f64 / seconds as f64,
        cost: meter.cost(&world, n),
        bytes_p99: quantile(&mut bytes, 0.99),
        bytes_max: *bytes.last().expect("sorted, and there are some"),
    }
}

pub fn faults(size: Size) -> Table {
    let (n, seconds) = size.pick((300, 120), (1_000, 400));
    let faults = [Fault::Egress, Fault::Ingress, Fault::Both, Fault::FlipFlop];
    let outcomes = each(faults.len() * (1 + SEEDS), |i| {
        let config = if i % (1 + SEEDS) == 0 { memberlist() } else { Config::new() };
        run(9 + (i % (1 + SEEDS)) as u64, n, seconds, faults[i / (1 + SEEDS)], &config)
    });
    let mut rows = Vec::new();
    for (fault, outcomes) in faults.iter().zip(outcomes.chunks(1 + SEEDS)) {
        rows.extend(fault_rows(*fault, &outcomes[0], &worst(&outcomes[1..])));
    }
    let (shortest, longest) = outcomes[3 * (1 + SEEDS)].swing;
    for (what, expected, size) in [("shortest", n - FAULTY, shortest), ("longest", n, longest)] {
        rows.push(Row {
            what: format!("{}: memberlist's {what} list of the last minute", Fault::FlipFlop.name()),
            paper: Paper::exactly(expected as f64),
            baseline: Baseline::about(size as f64, 2.0),
            ..row("", "members", Better::Neither, None, 0.0, None)
        });
    }
    let about = format!(
        "Rapid §7, Figures 9 and 10: {n} members, {FAULTY} of them faulty for {seconds} s. The paper's figures are Rapid's; \
         the algorithm here is the engine with memberlist's options, which oscillates as the paper says. Ours: the worst of \
         {SEEDS} runs."
    );
    Table { name: "rapid-faults", about, rows }
}

/// Runs of ours of each case.
const SEEDS: usize = 3;

/// Of several runs whatever is worst.
fn worst(runs: &[Outcome]) -> Outcome {
    let most = |of: fn(&Outcome) -> f64| runs.iter().map(of).fold(0.0, f64::max);
    Outcome {
        healthy_dead: most(|o| o.healthy_dead as f64) as usize,
        removed: runs.iter().map(|o| o.removed).min().unwrap_or(0),
        removed_after: most(|o| o.removed_after),
        returns: most(|o| o.returns),
        changes: most(|o| o.changes),
        suspected: (most(|o| o.suspected.0), most(|o| o.suspected.1)),
        sizes: most(|o| o.sizes as f64) as usize,
        swing: (0, 0),
        lists: most(|o| o.lists as f64) as usize,
        divided: most(|o| o.divided),
        cost: mean_cost(runs.iter().map(|o| o.cost)),
        bytes_p99: most(|o| o.bytes_p99),
        bytes_max: most(|o| o.bytes_max),
    }
}

fn row(fault: &str, unit: &'static str, better: Better, paper: Option<f64>, theirs: f64, ours: Option<f64>) -> Row {
    let (paper, baseline) = (paper.and_then(Paper::exactly), Baseline::told(theirs));
    Row { better, paper, baseline, ours, ..Row::new(fault, unit) }
}

fn fault_rows(fault: Fault, theirs: &Outcome, ours: &Outcome) -> Vec<Row> {
    use Better::{Less, More, Neither};
    let of = |what: &str, unit, better, paper, figure: fn(&Outcome) -> f64| {
        let what = format!("{}: {what}", fault.name());
        row(&what, unit, better, paper, figure(theirs), Some(figure(ours)))
    };
    let all = FAULTY as f64;
    vec![
        Row {
            baseline: Some(Baseline { value: theirs.healthy_dead as f64, within: None, cost: Some(theirs.cost) }),
            reach: Some(0.0),
            cost: Some(ours.cost),
            ..of("deaths of healthy members", "deaths", Less, Some(0.0), |o| o.healthy_dead as f64)
        },
        Row {
            reach: Some(all),
            ..of("removed everywhere at the end", "members", More, Some(all), |o| o.removed as f64)
        },
        Row {
            reach: Some(if fault == Fault::FlipFlop { 1.0 } else { 0.0 }),
            slack: Slack::By(if fault == Fault::FlipFlop { 0.5 } else { 0.0 }),
            note: match fault {
                Fault::FlipFlop => {
                    "a first return is free by design: who was cut off once is back at once; Rapid takes \
                                    nobody back but by a new join"
                        .to_owned()
                }
                _ => String::new(),
            },
            ..of("returns of each, per healthy member", "times", Less, None, |o| o.returns)
        },
        Row { slack: Slack::By(15.0), ..of("removed for good after", "s", Less, None, |o| o.removed_after) },
        of("changes of a healthy member's list", "changes", Neither, Some(1.0), |o| o.changes),
        of("a faulty member is suspected", "a minute", Neither, None, |o| o.suspected.0),
        of("a healthy member is suspected", "a minute", Neither, None, |o| o.suspected.1),
        of("different sizes seen", "sizes", Neither, Some(2.0), |o| o.sizes as f64),
        of("most different lists at once", "lists", Neither, None, |o| o.lists as f64),
        of("seconds in which lists differ", "% of all", Neither, None, |o| o.divided * 100.0),
        of("sent by a healthy member in a second, p99", "bytes", Neither, None, |o| o.bytes_p99),
        of("sent by a healthy member in a second, most", "bytes", Neither, None, |o| o.bytes_max),
    ]
}

pub fn crashes(size: Size) -> Table {
    let n = size.pick(300, 1_000);
    let outcomes = each(1 + SEEDS, |i| {
        let config = if i == 0 { memberlist() } else { Config::new() };
        run(8 + i as u64, n, 60, Fault::Crash, &config)
    });
    let rows = fault_rows(Fault::Crash, &outcomes[0], &worst(&outcomes[1..]));
    let about = format!(
        "Rapid §7, Figure 8: {FAULTY} of {n} members lose their power at once. The paper's figures are Rapid's, which \
         removes all in one step about 10 s after memberlist; the algorithm here is memberlist's. Ours: the worst of {SEEDS} runs."
    );
    Table { name: "rapid-crashes", about, rows }
}
