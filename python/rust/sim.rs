//! The simulator: scenarios on a thread of their own, and a world that the caller moves.
//!
//! A scenario comes as text, which the core reads and checks; a report goes out as JSON, from which Python makes what it
//! shows. Both run without the interpreter's lock, and end when a signal comes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bruit_core::config::Config;
use bruit_core::error::Code;
use bruit_core::id::NodeName;
use bruit_core::sim::{self, Network, NodeIndex, Run, Scenario, compare};
use bruit_core::wire::frame::kind_name;
use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::SLICE;
use crate::errors::{OrRaise, error};
use crate::members::Members;
use crate::node::seconds;
use crate::queue::{Raw, raw};

/// Steps between two looks at the clock: a fraction of a millisecond's work.
const STEPS: u32 = 256;

#[pyclass(frozen, module = "bruit._native")]
pub struct SimReport(sim::Report);

#[pymethods]
impl SimReport {
    fn to_json(&self, py: Python<'_>) -> String {
        py.detach(|| self.0.to_json())
    }

    fn assert_reaches(&self, share: f64, within: f64) -> PyResult<()> {
        let within = seconds(Some(within))?.unwrap_or(Duration::MAX);
        self.0.assert_reaches(share, within).or_raise()
    }

    fn __str__(&self) -> String {
        self.0.to_string()
    }
}

/// Whether the text of a scenario is one.
#[pyfunction]
pub fn sim_check(text: &str) -> PyResult<()> {
    Scenario::parse(text).map(drop).or_raise()
}

/// Run a scenario. Ctrl-C ends it.
#[pyfunction]
pub fn sim_run(
    py: Python<'_>,
    text: &str,
    trials: Option<usize>,
    seed: Option<u64>,
    jobs: usize,
) -> PyResult<SimReport> {
    let scenario = Scenario::parse(text).or_raise()?;
    let stop = Arc::new(AtomicBool::new(false));
    let (sender, receiver) = channel();
    let flag = stop.clone();
    let work = move || {
        let report = scenario.run(&Run { trials, seed, jobs, stop: Some(&flag), done: None });
        // Who waited may have given up.
        let _ = sender.send(report);
    };
    let thread = std::thread::Builder::new().name("bruit-sim".into()).spawn(work);
    let thread = thread.map_err(|e| error(Code::Io, &format!("cannot start a thread: {e}")))?;
    // A channel's end cannot be shared; here it is only lent.
    let receiver = Mutex::new(receiver);
    loop {
        let told = py.detach(|| receiver.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(SLICE));
        match told {
            Ok(report) => return report.map(SimReport).or_raise(),
            Err(RecvTimeoutError::Timeout) => {
                if let Err(signal) = py.check_signals() {
                    stop.store(true, Ordering::Relaxed);
                    py.detach(|| drop(thread.join()));
                    return Err(signal);
                }
            }
            Err(RecvTimeoutError::Disconnected) => return Err(error(Code::Panic, "a trial of the simulator panicked")),
        }
    }
}

/// A comparison, and its table: (JSON, text).
#[pyfunction]
pub fn sim_compare(runs: Vec<(String, Bound<'_, SimReport>)>) -> (String, String) {
    let runs: Vec<(&str, &sim::Report)> = runs.iter().map(|(name, report)| (&**name, &report.get().0)).collect();
    let comparison = compare(&runs);
    (comparison.to_json(), comparison.to_string())
}

#[pyclass(frozen, module = "bruit._native")]
pub struct SimWorld(Mutex<sim::World>);

impl SimWorld {
    /// Never waits for the lock with the interpreter's in hand.
    fn with<T: Send>(&self, py: Python<'_>, call: impl FnOnce(&mut sim::World) -> T + Send) -> T {
        py.detach(|| call(&mut self.lock()))
    }

    fn lock(&self) -> MutexGuard<'_, sim::World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `with`, for a node that has to be there.
    fn at<T: Send>(
        &self,
        py: Python<'_>,
        i: usize,
        call: impl FnOnce(&mut sim::World, NodeIndex) -> T + Send,
    ) -> PyResult<T> {
        self.with(py, |world| if i < world.len() { Ok(call(world, i)) } else { Err(world.len()) })
            .map_err(|len| PyIndexError::new_err(format!("node {i} of {len}")))
    }

    fn all_there(&self, py: Python<'_>, nodes: &[usize]) -> PyResult<()> {
        nodes.iter().try_for_each(|&i| self.at(py, i, |_, _| ()))
    }

    /// Runs until `end`, or until `done` is true, in slices. How long it took, if it came true.
    fn run(
        &self,
        py: Python<'_>,
        time: Duration,
        mut done: impl FnMut(&mut sim::World) -> bool + Send,
    ) -> PyResult<Option<Duration>> {
        const LOOK: Duration = Duration::from_millis(1);
        let start = self.with(py, |world| world.now().mono);
        let end = start + time;
        loop {
            let over = self.with(py, |world| {
                let slice = Instant::now() + SLICE;
                loop {
                    if done(world) {
                        return Some(true);
                    }
                    if world.now().mono >= end {
                        return Some(false);
                    }
                    let until = (world.now().mono + LOOK).min(end);
                    let mut steps = 0;
                    while world.step(until).is_some() {
                        steps += 1;
                        if steps % STEPS == 0 && Instant::now() >= slice {
                            return None;
                        }
                    }
                    if Instant::now() >= slice {
                        return None;
                    }
                }
            });
            if let Some(came_true) = over {
                return Ok(came_true.then(|| self.with(py, |world| world.now().mono.since(start))));
            }
            py.check_signals()?;
        }
    }
}

fn config(options: &[(String, String)], seeds: Vec<String>) -> PyResult<Config> {
    let mut config = Config::new();
    config.insecure_plaintext = true;
    for (key, value) in options {
        config.set(key, value).or_raise()?;
    }
    config.seeds = seeds;
    config.validate().or_raise()?;
    Ok(config)
}

#[pymethods]
impl SimWorld {
    #[new]
    fn new(seed: u64, sealed: bool) -> SimWorld {
        let mut world = sim::World::new(seed);
        world.sealed = sealed;
        SimWorld(Mutex::new(world))
    }

    fn add(&self, py: Python<'_>, name: &str, options: Vec<(String, String)>, seeds: Vec<usize>) -> PyResult<usize> {
        NodeName::new(name).or_raise()?;
        self.all_there(py, &seeds)?;
        let addresses = self.with(py, |world| seeds.iter().map(|&i| world.address(i).to_string()).collect());
        let config = config(&options, addresses)?;
        Ok(self.with(py, |world| world.add(name, config)))
    }

    fn kill(&self, py: Python<'_>, i: usize) -> PyResult<()> {
        self.at(py, i, |world, i| world.kill(i))
    }

    fn power_off(&self, py: Python<'_>, i: usize) -> PyResult<()> {
        self.at(py, i, |world, i| world.power_off(i))
    }

    fn restart(&self, py: Python<'_>, i: usize) -> PyResult<()> {
        self.at(py, i, |world, i| world.restart(i, None))
    }

    fn pause(&self, py: Python<'_>, i: usize) -> PyResult<()> {
        self.at(py, i, |world, i| world.pause(i))
    }

    fn block(&self, py: Python<'_>, i: usize) -> PyResult<()> {
        self.at(py, i, |world, i| world.block(i))
    }

    fn resume(&self, py: Python<'_>, i: usize) -> PyResult<()> {
        self.at(py, i, |world, i| world.resume(i))
    }

    fn slow(&self, py: Python<'_>, i: usize, service: f64) -> PyResult<()> {
        let service = seconds(Some(service))?.unwrap_or_default();
        self.at(py, i, |world, i| world.slow(i, service))
    }

    fn leave(&self, py: Python<'_>, i: usize, timeout: f64) -> PyResult<()> {
        let timeout = seconds(Some(timeout))?.unwrap_or_default();
        self.at(py, i, |world, i| world.call(i, |engine, now, out| engine.leave(now, timeout, out)))?.or_raise()
    }

    fn set_meta(&self, py: Python<'_>, i: usize, changes: Vec<(String, Option<Bound<'_, PyBytes>>)>) -> PyResult<()> {
        let changes: Vec<(String, Option<Vec<u8>>)> =
            changes.into_iter().map(|(key, value)| (key, value.map(|v| v.as_bytes().to_vec()))).collect();
        let changes: Vec<(&str, Option<&[u8]>)> = changes.iter().map(|(k, v)| (&**k, v.as_deref())).collect();
        self.at(py, i, |world, i| world.call(i, |engine, now, out| engine.set_meta(now, &changes, out)))?.or_raise()
    }

    /// Properties of the network, as a scenario has them; those that are not named are as they are by default.
    fn network(&self, py: Python<'_>, lines: Vec<(String, String)>) -> PyResult<()> {
        let mut network = Network::default();
        for (key, value) in &lines {
            network.set(key, value).or_raise()?;
        }
        self.with(py, |world| world.set_network(network)).or_raise()
    }

    fn partition(&self, py: Python<'_>, left: Vec<usize>, right: Vec<usize>) -> PyResult<()> {
        self.all_there(py, &left)?;
        self.all_there(py, &right)?;
        self.with(py, |world| world.part(&left, &right));
        Ok(())
    }

    fn cut(&self, py: Python<'_>, a: usize, b: usize) -> PyResult<()> {
        self.all_there(py, &[a, b])?;
        self.with(py, |world| world.cut(a, b));
        Ok(())
    }

    fn heal(&self, py: Python<'_>) {
        self.with(py, |world| world.heal());
    }

    fn run_for(&self, py: Python<'_>, time: f64) -> PyResult<()> {
        let time = seconds(Some(time))?.unwrap_or_default();
        self.run(py, time, |_| false).map(drop)
    }

    /// How many seconds it took until all agree; None where they did not within that time.
    fn run_until_agree(&self, py: Python<'_>, time: f64) -> PyResult<Option<f64>> {
        let time = seconds(Some(time))?.unwrap_or_default();
        Ok(self.run(py, time, sim::World::agree)?.map(|took| took.as_secs_f64()))
    }

    fn agree(&self, py: Python<'_>) -> bool {
        self.with(py, sim::World::agree)
    }

    fn members(&self, py: Python<'_>, i: usize) -> PyResult<Members> {
        Ok(Members(self.at(py, i, |world, i| world.view(i))?))
    }

    fn events(&self, py: Python<'_>, i: usize) -> PyResult<Vec<(f64, Raw)>> {
        let events = self.at(py, i, |world, i| world.events(i).to_vec())?;
        Ok(events.into_iter().map(|(at, event)| (at.as_nanos() as f64 / 1e9, raw(event))).collect())
    }

    fn name(&self, py: Python<'_>, i: usize) -> PyResult<String> {
        self.at(py, i, |world, i| world.name(i).to_string())
    }

    fn address(&self, py: Python<'_>, i: usize) -> PyResult<String> {
        self.at(py, i, |world, i| world.address(i).to_string())
    }

    fn is_running(&self, py: Python<'_>, i: usize) -> PyResult<bool> {
        self.at(py, i, |world, i| world.is_running(i))
    }

    #[getter]
    fn now(&self, py: Python<'_>) -> f64 {
        self.with(py, |world| world.now().mono.as_nanos() as f64 / 1e9)
    }

    #[getter]
    fn trace(&self, py: Python<'_>) -> u64 {
        self.with(py, |world| world.trace())
    }

    /// Packets and bytes by the kind of a packet's first frame.
    fn traffic<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let traffic = self.with(py, |world| world.traffic().clone());
        let found = PyDict::new(py);
        for (kind, (&packets, &bytes)) in traffic.packets.iter().zip(&traffic.bytes).enumerate() {
            if packets > 0 {
                found.set_item(kind_name(kind as u8).unwrap_or("?"), (packets, bytes))?;
            }
        }
        Ok(found)
    }

    /// One line a frame from now on.
    fn record(&self, py: Python<'_>) {
        self.with(py, |world| world.transcript = Some(Vec::new()));
    }

    fn transcript(&self, py: Python<'_>) -> Vec<String> {
        self.with(py, |world| world.transcript.clone().unwrap_or_default())
    }

    fn __len__(&self, py: Python<'_>) -> usize {
        self.with(py, |world| world.len())
    }
}
