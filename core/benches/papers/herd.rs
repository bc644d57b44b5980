//! Rapid §7, Figure 5 and Table 1: all join at once, through one.

use std::collections::BTreeSet;

use bruit_core::config::Config;
use bruit_core::sim::{Duration, Network};

use super::lab::{Meter, Size, all_list, each, memberlist, ms, secs, world};
use super::table::{Baseline, Better, Cost, Paper, Row, Slack, Table};

struct Outcome {
    took: Option<Duration>,
    sizes: usize,
    cost: Cost,
    /// Bytes of the one through which all join.
    seed_bytes: f64,
}

/// What the machines are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Machines {
    /// What is sent arrives, and is read at once.
    Perfect,
    /// Lines of 1 Gbit/s with Linux's 1,000 packets of queue, and 10 µs for each packet that is read.
    Ordinary,
}

fn run(seed: u64, n: usize, machines: Machines, config: &Config) -> Outcome {
    let mut world = world(seed);
    let began = world.now().mono;
    let meter = Meter::start(&world);
    if machines == Machines::Ordinary {
        let network = Network { bandwidth: Some(125_000_000), queue: 1_000 * 1_400, ..Network::default() };
        world.set_network(network).expect("a bandwidth");
    }
    let nodes = world.cluster(n, config);
    if machines == Machines::Ordinary {
        nodes.iter().for_each(|&i| world.slow(i, Duration::from_micros(10)));
    }
    let (mut sizes, mut took) = (BTreeSet::new(), None);
    while took.is_none() && world.now().mono.since(began) < secs(120) {
        world.run_for(ms(100));
        sizes.extend(nodes.iter().map(|&i| world.engine(i).live()));
        if all_list(&world, &nodes, n) {
            took = Some(world.now().mono.since(began));
        }
    }
    Outcome { took, sizes: sizes.len(), cost: meter.cost(&world, n), seed_bytes: world.sent_by(nodes[0]).1 as f64 }
}

pub fn herd(size: Size) -> Table {
    let n = size.pick(500, 2_000);
    let outcomes = each(4, |i| {
        let machines = if i < 2 { Machines::Ordinary } else { Machines::Perfect };
        run(7, n, machines, &if i % 2 == 0 { memberlist() } else { Config::new() })
    });
    let mut rows = Vec::new();
    for (pair, machines) in outcomes.chunks(2).zip(["ordinary machines", "perfect machines"]) {
        rows.extend(pair_rows(size, machines, &pair[0], &pair[1]));
    }
    let about = format!(
        "Rapid §7, Figure 5 and Table 1: {n} members start at once and know one. Ordinary machines have lines of 1 Gbit/s \
         with queues of 1,000 packets and need 10 µs for each packet that they read. The paper's figures are Rapid's; \
         the algorithm here is the engine with memberlist's options."
    );
    Table { name: "herd", about, rows }
}

fn pair_rows(size: Size, machines: &str, theirs: &Outcome, ours: &Outcome) -> Vec<Row> {
    let seconds = |took: Option<Duration>| took.map_or(f64::INFINITY, |t| t.as_secs_f64());
    let row = |what: &str, unit, theirs, ours| Row {
        what: format!("{machines}: {what}"),
        unit,
        better: Better::Neither,
        paper: None,
        baseline: Baseline::told(theirs),
        ours: Some(ours),
        reach: None,
        slack: Slack::By(0.0),
        cost: None,
        note: String::new(),
    };
    let paper = |figure| (size == Size::Full).then_some(Paper { figure, give: 0.0 });
    vec![
        Row {
            better: Better::Less,
            paper: paper(53.0),
            baseline: Some(Baseline { value: seconds(theirs.took), within: None, cost: Some(theirs.cost) }),
            reach: Some(10.0),
            slack: Slack::By(0.5),
            cost: Some(ours.cost),
            note: "Figure 5, read off: Rapid 53 s, memberlist 97 s at 2,000; costs are until then".to_owned(),
            ..row("until all list all", "s", seconds(theirs.took), seconds(ours.took))
        },
        Row {
            paper: paper(4.0),
            note: "Table 1: Rapid 4, memberlist 1,858 at 2,000".to_owned(),
            ..row("different sizes seen, every 100 ms", "sizes", theirs.sizes as f64, ours.sizes as f64)
        },
        row("sent by the one through which all join", "MB", theirs.seed_bytes / 1e6, ours.seed_bytes / 1e6),
    ]
}
