//! HyParView (DSN 2007) as the whole membership: `membership = partial`. What the views look like, what they cost, and what is left of
//! the overlay after a mass failure, with nobody who lists all.

use bruit_core::config::{Config, Membership};
use bruit_core::sim::{Duration, NodeIndex};

use super::lab::{Meter, Size, mean, ms, secs, world};
use super::speed::resident_gib;
use super::table::{Better, Paper, Row, Slack, Table};
use super::tree::{Net, after_failures, paths, shape};

fn config() -> Config {
    let mut config = Config::new();
    (config.membership, config.shuffle_interval) = (Membership::Partial, CYCLE);
    config
}

/// A cycle of the paper's: one shuffle. It names no time.
const CYCLE: Duration = secs(10);

/// `n` members that joined one by one, each by the first, `cycles` later.
fn grown(seed: u64, n: usize, cycles: u32) -> Net {
    let mut world = world(seed);
    let mut nodes: Vec<NodeIndex> = Vec::new();
    for i in 0..n {
        let mut config = config();
        config.seeds = nodes.first().map(|&first| world.address(first).to_string()).into_iter().collect();
        nodes.push(world.add(&format!("n{i}"), config));
        world.run_for(ms(2));
    }
    world.run_for(CYCLE * cycles);
    Net::of(seed, world, nodes)
}

/// What the views look like, and what a broadcast costs on them.
pub fn views(size: Size) -> Table {
    let n = size.pick(1_000, 10_000);
    let paper = |figure: f64| (size == Size::Full).then_some(Paper { figure, give: figure * 0.001 });
    let before = resident_gib();
    let mut net = grown(1, n, size.pick(5, 10));
    let mut rows = Vec::new();
    let graph = net.graph();
    let (path, whole) = paths(&graph, size.pick(1_000, 200));
    assert!(whole, "the overlay is connected");
    let full = graph.iter().filter(|neighbours| neighbours.len() == 5).count() as f64 / n as f64;
    rows.push(Row {
        better: Better::More,
        note: "Figure 5: nearly all".into(),
        ..Row::ours("members with exactly 5 neighbours", "share", full)
    });
    rows.extend(shape(size, &graph, path, 0.000_5));
    let contact = net.world.engine(net.nodes[0]).counters().neighbours_lost as f64 / n as f64;
    rows.push(Row {
        note: "all joined by one contact; the paper's changes one for each, or more".into(),
        ..Row::ours("neighbours that the contact exchanged", "for each joiner", contact)
    });
    let listed = net.nodes.iter().map(|&i| net.world.engine(i).live() as f64).collect::<Vec<_>>();
    rows.push(Row::ours("members that one lists", "members", mean(&listed)));
    if let (Size::Full, Some(before), Some(now)) = (size, before, resident_gib()) {
        let kib = (now - before) * 1024.0 * 1024.0 / n as f64;
        rows.push(Row {
            slack: Slack::Machine,
            reach: Some(64.0),
            note: "the simulated world's own included; with a list of all it is 1,200 at 10,000, and grows with n"
                .into(),
            ..Row::ours("memory", "KiB a member", kib)
        });
    }
    let meter = Meter::start(&net.world);
    net.world.run_for(CYCLE);
    let cost = meter.cost(&net.world, n);
    rows.push(Row::ours("at rest", "packets/s each", cost.packets));

    // One sender: the paper's s-s.
    for _ in 0..30 {
        net.say(0);
        net.world.run_for(ms(500));
    }
    let (pushes, control) = (net.sum(|c| c.broadcast_pushes + c.broadcast_answers), net.control());
    let mut said = Vec::new();
    for _ in 0..20 {
        said.push(net.say(0));
        net.world.run_for(secs(1));
    }
    net.world.run_for(secs(2));
    let missed: usize = said.iter().map(|&message| n - 1 - net.delivered(message)).sum();
    assert_eq!(missed, 0, "all are delivered to all");
    let each = |sum: f64| sum / said.len() as f64;
    let hops: Vec<f64> = said.iter().map(|&message| net.last_hop(message)).collect();
    rows.push(Row {
        paper: paper(9_999.0),
        reach: Some(1.010_1 * (n - 1) as f64),
        note: "Plumtree Table 1; flooding takes 39,984".into(),
        ..Row::ours(
            "one sender, one broadcast a second: payloads",
            "copies each",
            each(net.sum(|c| c.broadcast_pushes + c.broadcast_answers) - pushes),
        )
    });
    rows.push(Row {
        paper: paper(29_989.33),
        reach: Some((n - 1) as f64),
        ..Row::ours("one sender, one broadcast a second: control", "packets each", each(net.control() - control))
    });
    rows.push(Row {
        paper: paper(9.0),
        reach: (size == Size::Full).then_some(9.0),
        note: "HyParView Table 1 (flooding), Plumtree Figure 2c: 8 to 9".into(),
        ..Row::ours("one sender: last delivery hop", "hops", mean(&hops))
    });
    let about = format!(
        "HyParView Table 1 and Figure 5; Plumtree Table 1: {n} members with `membership = partial`, which joined one after the other by one contact, \
         2 ms apart; a cycle is a shuffle ({CYCLE:?}). Nobody lists all. The papers' figures are for 10,000."
    );
    Table { name: "partial", about, rows }
}

/// HyParView Figures 2 and 4.
pub fn failures(size: Size) -> Table {
    let n = size.pick(1_000, 10_000);
    let rows = after_failures(size, &|| grown(7, n, size.pick(3, 5)), Some(0));
    let about = format!(
        "HyParView Figures 2 and 4: of {n} members with `membership = partial` so many end at the same moment, and the others broadcast, one after \
         another and 20 ms apart. All have one seed, which is among those who are left; a cycle is {CYCLE:?}. At 95 % every sixth has nobody left that it knows \
         of (0.95^35), which is what the paper's figure comes from: here it calls its seed."
    );
    Table { name: "partial-failures", about, rows }
}
