//! A member is killed, in a process of its own; the others are looked at until they know.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::at;
use crate::cluster::Cluster;
use crate::{Figures, Options, PATIENCE, Peer};

const LOOK: Duration = Duration::from_millis(10);

pub fn detect<P: Peer>(options: &Options) -> Result<String, String> {
    let quickly = Options { settle: 0.0, ..options.clone() };
    let cluster = Cluster::<P>::form(options.nodes - 1, &quickly)?;
    let (mut first, mut all, mut untold) = (Vec::new(), Vec::new(), 0);
    for trial in 0..options.trials {
        let mut victim = Victim::start(&cluster.nodes[0].address(), trial, options)?;
        cluster.all_list(options.nodes, Instant::now() + PATIENCE)?;
        // Another moment of the probe interval each time.
        sleep(Duration::from_secs_f64(options.settle + 0.37 * trial as f64));
        let began = Instant::now();
        victim.kill();
        let mut told = vec![None; cluster.nodes.len()];
        while told.iter().any(Option::is_none) && began.elapsed() < PATIENCE {
            for (node, told) in cluster.nodes.iter().zip(&mut told).filter(|(_, told)| told.is_none()) {
                *told = (node.live() < options.nodes).then(|| began.elapsed().as_secs_f64());
            }
            sleep(LOOK);
        }
        untold += told.iter().filter(|told| told.is_none()).count();
        first.extend(told.iter().flatten().copied().min_by(f64::total_cmp));
        if told.iter().all(Option::is_some) {
            all.extend(told.into_iter().flatten().max_by(f64::total_cmp));
        }
        if trial + 1 < options.trials {
            cluster.all_list(options.nodes - 1, Instant::now() + PATIENCE)?;
        }
    }
    let mut figures = Figures::default();
    for (name, values) in [("first_s", &mut first), ("all_s", &mut all)] {
        values.sort_by(f64::total_cmp);
        figures.put(name, at(values, 50));
    }
    figures.put("worst_s", all.last().copied());
    figures.put("untold", untold as f64);
    Ok(figures.line())
}

/// This program as `member`. Killed where it is dropped.
struct Victim(Child);

impl Victim {
    fn start(seed: &str, trial: usize, options: &Options) -> Result<Victim, String> {
        let trouble = |error: std::io::Error| format!("a process for the victim: {error}");
        let mut child = Command::new(std::env::current_exe().map_err(trouble)?)
            .args(["member".to_owned(), format!("seed={seed}"), format!("name=victim{trial}")])
            .args([format!("variant={}", options.variant), format!("nodes={}", options.nodes)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(trouble)?;
        if let Some(stdout) = child.stdout.take() {
            // Its lines are read, so that it never waits for us.
            std::thread::spawn(move || BufReader::new(stdout).lines().for_each(drop));
        }
        Ok(Victim(child))
    }

    fn kill(&mut self) {
        // Already gone is gone.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        self.kill();
    }
}
