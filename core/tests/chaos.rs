//! Seeds of chaos: random faults, then peace, then everybody must agree within a bound.

#![cfg(feature = "sim")]

use core::time::Duration;

use bruit_core::config::{Config, Detector};
use bruit_core::rng::Rng;
use bruit_core::sim::{Network, World};
use bruit_core::view::{EventKind, MemberState};

/// A failing seed replays with `BRUIT_SEED=n`, more of them run with `BRUIT_SEEDS=n`: cargo test -p bruit-core --features sim --test chaos`.
#[test]
fn after_any_chaos_all_agree_again() {
    match number("BRUIT_SEED") {
        Some(seed) => chaos(seed, |_| Detector::Swim),
        None => {
            (0..number("BRUIT_SEEDS").unwrap_or(60)).chain(LESSONS).for_each(|seed| chaos(seed, |_| Detector::Swim))
        }
    }
}

#[test]
fn after_any_chaos_all_agree_again_with_phi_and_with_both_detectors() {
    let phi: fn(usize) -> Detector = |_| Detector::Phi;
    let both: fn(usize) -> Detector = |i| [Detector::Phi, Detector::Swim, Detector::Swim][i % 3];
    let sorts = |seed| [phi, both].into_iter().for_each(|sort| chaos(seed, sort));
    match number("BRUIT_SEED") {
        Some(seed) => sorts(seed),
        None => (0..number("BRUIT_SEEDS").unwrap_or(25)).chain(LESSONS_WITH_PHI).for_each(sorts),
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Seeds that found a bug once.
/// 553: metadata that was heard of but lost on its way counted as known in the fingerprint, so nobody asked again.
const LESSONS: [u64; 1] = [553];

/// Likewise, with phi.
/// 250: who began to beat again after a while looked late by all that time, and gave a probe under way as much more.
const LESSONS_WITH_PHI: [u64; 1] = [250];

fn chaos(seed: u64, detector: impl Fn(usize) -> Detector) {
    let mut rng = Rng::new(seed);
    let n = 3 + rng.index(20);
    let mut config = Config::new();
    config.forget_dead = Duration::from_secs(5 + rng.below(200));
    config.forget_left = config.forget_dead;
    let mut world = World::new(seed);
    let (loss, duplicate) = (rng.below(300) as f64 / 1000.0, rng.below(100) as f64 / 1000.0);
    world.set_network(Network { duplicate, ..Network::lossy(loss) }).unwrap();
    let first = bruit_core::sim::world::address(0).to_string();
    let nodes: Vec<usize> = (0..n)
        .map(|i| {
            let mut config = config.clone();
            config.seeds = if i == 0 { Vec::new() } else { vec![first.clone()] };
            config.detector = detector(i);
            world.add(&format!("n{i}"), config)
        })
        .collect();
    let mut down = vec![false; n];
    let mut paused = vec![false; n];
    for step in 0..12 {
        let i = rng.index(n);
        match rng.below(7) {
            0 if !down[i] => {
                world.kill(nodes[i]);
                (down[i], paused[i]) = (true, false);
            }
            1 if down[i] => {
                world.restart(nodes[i], None);
                down[i] = false;
            }
            2 if !down[i] && !paused[i] => {
                world.pause(nodes[i]);
                paused[i] = true;
            }
            3 if paused[i] => {
                world.resume(nodes[i]);
                paused[i] = false;
            }
            4 => {
                let at = 1 + rng.index(n - 1);
                let (left, right): (Vec<_>, Vec<_>) = (nodes[..at].to_vec(), nodes[at..].to_vec());
                world.part(&left, &right);
            }
            5 => world.cut(nodes[i], nodes[rng.index(n)]),
            6 if !down[i] && !paused[i] => {
                let value = format!("{step}");
                world.call(nodes[i], |e, now, out| e.set_meta(now, &[("step", Some(value.as_bytes()))], out)).unwrap();
            }
            _ => world.heal(),
        }
        world.run_for(Duration::from_millis(200 + rng.below(12_000)));
        safety(seed, &mut world, &nodes);
    }
    world.heal();
    world.set_network(Network::default()).unwrap();
    for i in 0..n {
        if down[i] {
            world.restart(nodes[i], None);
        }
        if paused[i] {
            world.resume(nodes[i]);
        }
    }
    let agree = |w: &mut World| w.all_list(&nodes, n) && same_pictures(w, &nodes);
    if world.run_until(Duration::from_secs(180), agree).is_none() {
        for &i in &nodes {
            let view = world.view(i);
            let seen: Vec<String> = view
                .members
                .iter()
                .map(|m| {
                    format!(
                        "{}:{:?}/{} {:?} {} {:?}",
                        m.name,
                        m.state,
                        m.incarnation.0,
                        m.run,
                        m.epoch.0 % 1_000_000,
                        m.meta
                    )
                })
                .collect();
            println!("n{i}: {}", seen.join(" "));
        }
        panic!("seed {seed}: {n} nodes do not agree 180 s after the chaos");
    }
    // Probes and suspicions of the bad times may still end.
    world.run_for(Duration::from_secs(20));
    let before: Vec<usize> = nodes.iter().map(|&i| world.events(i).len()).collect();
    world.run_for(Duration::from_secs(60));
    for (&i, before) in nodes.iter().zip(before) {
        let later: Vec<_> = world.events(i)[before..].iter().map(|(_, e)| e.kind).collect();
        let calm = later.iter().all(|k| matches!(k, EventKind::Settled | EventKind::Joined | EventKind::Warning));
        assert!(calm, "seed {seed}: n{i} is not at peace: {later:?}");
    }
}

/// What must hold at every moment: one entry a name, and our own is alive.
fn safety(seed: u64, world: &mut World, nodes: &[usize]) {
    for &i in nodes {
        let view = world.view(i);
        assert!(view.members.windows(2).all(|w| w[0].name < w[1].name), "seed {seed}: a name twice");
        assert_eq!(view.local().state, MemberState::Alive, "seed {seed}");
        assert!(view.members.len() <= nodes.len(), "seed {seed}: somebody from nowhere");
    }
}

fn same_pictures(world: &mut World, nodes: &[usize]) -> bool {
    let first = world.view(nodes[0]);
    nodes.iter().all(|&i| {
        let view = world.view(i);
        view.members.iter().zip(first.members.iter()).all(|(a, b)| {
            (a.run, a.epoch, a.incarnation, a.address) == (b.run, b.epoch, b.incarnation, b.address) && a.meta == b.meta
        })
    })
}
