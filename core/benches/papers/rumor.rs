//! deeborania/gossiper (0.1.0): what its simulator prints for a rumor that is pushed to `fanout` members a round, and ours with
//! `broadcast = rumor`. Its members push a rumor for eight rounds, to three each; ours tell it `rumor_mult` · ⌈log10(n + 1)⌉ times.

use bruit_core::config::{Broadcast, Config};
use bruit_core::sim::{Delay, Network, World};

use super::lab::{Size, cluster, each, mean, ms, secs, world};
use super::model;
use super::table::{Baseline, Paper, Row, Slack, Table};

/// Members, its mean of rounds and its messages until then, and how many trials are enough.
const CASES: [(usize, f64, f64, usize); 4] =
    [(25, 4.15, 128.0, 200), (100, 5.65, 653.0, 100), (250, 6.7, 1_887.0, 60), (1_000, 7.65, 7_558.0, 40)];

/// Of one broadcast: when the last member heard it, and how often it was sent in all.
struct Trial {
    took: f64,
    copies: f64,
}

fn trial(seed: u64, n: usize, config: &Config, network: &Network) -> Trial {
    let mut world = world(seed);
    let nodes = cluster(&mut world, n, config);
    world.set_network(*network).expect("it makes sense");
    let began = world.now().mono;
    world.broadcast(nodes[0], "papers", &[7; 64]).expect("it is small, and the first");
    let all = |world: &mut World| nodes[1..].iter().all(|&i| world.engine(i).counters().broadcasts_in == 1);
    world.run_until(secs(30), all).expect("all hear it");
    let took = world.now().mono.since(began).as_secs_f64();
    world.run_for(secs(5));
    let copies = nodes.iter().map(|&i| world.engine(i).counters().broadcast_pushes).sum::<u64>() as f64;
    Trial { took, copies }
}

/// Its means are of few trials: most end in one of two rounds.
const GIVE: f64 = 0.5;

pub fn rounds(size: Size) -> Table {
    let mut rows = Vec::new();
    let mut lan = Config::new();
    lan.broadcast = Broadcast::Rumor;
    // A packet takes a round, as there.
    let (mut config, mut network) = (lan.clone(), Network::default());
    config.gossip_flush = ms(0);
    network.delay = Delay::Fixed(config.gossip_interval);
    let mut as_often = config.clone();
    as_often.rumor_mult = 12;
    for (n, theirs, messages, trials) in CASES {
        let trials = size.pick(trials, 4 * trials);
        let run = |config: &Config, network: &Network| -> (f64, f64) {
            let all = each(trials, |seed| trial(seed as u64, n, config, network));
            let of = |figure: fn(&Trial) -> f64| mean(&all.iter().map(figure).collect::<Vec<_>>());
            (of(|trial| trial.took), of(|trial| trial.copies))
        };
        let rounds = |took: f64| took / config.gossip_interval.as_secs_f64();
        let model = each(2_000, |seed| model::rounds_until_all_know(seed as u64, n, config.rumor_fanout));
        rows.push(Row {
            paper: Some(Paper { figure: theirs, give: GIVE }),
            slack: Slack::By(0.2),
            baseline: Baseline::told(mean(&model)),
            note: if n == 1_000 {
                "it counts only those of its trials that end within eight rounds".into()
            } else {
                String::new()
            },
            ..Row::ours(
                format!("{n} members, told for eight rounds: all have heard after"),
                "rounds",
                rounds(run(&as_often, &network).0),
            )
        });
        let (took, copies) = run(&config, &network);
        rows.push(Row {
            slack: Slack::By(0.2),
            ..Row::ours(format!("{n} members: all have heard after"), "rounds", rounds(took))
        });
        rows.push(Row {
            note: format!("there {messages} until all have heard"),
            ..Row::ours(format!("{n} members: copies in all"), "copies", copies)
        });
        let (took, _) = run(&lan, &Network::default());
        rows.push(Row::ours(format!("{n} members, lan: all have heard after"), "ms", 1e3 * took));
    }
    let about = "deeborania/gossiper 0.1.0: one rumor in a cluster in which each knows all, fan-out 3, no loss. In rounds: a packet takes one \
                 `gossip_interval`. Its algorithm: the same push in lock step, the mean of 2,000 trials. `lan` is the default network, 0.2 to 2 ms."
        .into();
    Table { name: "rumor", about, rows }
}
