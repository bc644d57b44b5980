//! Many trials of a scenario, in figures: distributions that say how often something never came true, and comparisons.
//!
//! A percentile is by nearest rank: a value that was measured. What never happened is later than all that did: it counts
//! in percentiles and in the maximum, which are then "never"; the mean is over what there is, and the number of those that
//! are missing stands beside it.

use alloc::borrow::ToOwned;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::scenario::Scenario;
use super::trial::{self, Detection, Passed, Staleness, Tell, Trial};
use super::world::{KINDS, Traffic};
use crate::error::{Code, Error, Result};
use crate::time::Duration;
use crate::wire::frame::kind_name;

/// How to run a scenario.
#[derive(Clone, Copy, Debug, Default)]
pub struct Run<'a> {
    /// `None`: as many as the scenario says. Trial number `t` has seed `seed + t`.
    pub trials: Option<usize>,
    pub seed: Option<u64>,
    /// Threads; 0: as many as the machine has cores. Without `std` there is one.
    pub jobs: usize,
    /// Set from another thread, it ends the run.
    pub stop: Option<&'a AtomicBool>,
    /// Counts the trials that are done.
    pub done: Option<&'a AtomicUsize>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    pub title: String,
    pub nodes: usize,
    pub seed: u64,
    pub gossip_interval: Duration,
    pub probe_interval: Duration,
    pub trials: Vec<Trial>,
    /// All that is measured, in the order of the table.
    pub measures: Vec<Measure>,
    /// What was sent, by the kind of a packet's first frame; `form` left out.
    pub kinds: Vec<Kind>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Measure {
    pub name: String,
    pub unit: &'static str,
    pub spread: Spread,
}

/// Packets and bytes of one kind, a node and second.
#[derive(Clone, Debug, PartialEq)]
pub struct Kind {
    pub name: String,
    pub packets: f64,
    pub bytes: f64,
}

/// A distribution. `None` in a percentile or in the maximum: never.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Values, and those that never came among them.
    pub n: usize,
    pub missing: usize,
    /// Of those that came.
    pub mean: Option<f64>,
    pub min: Option<f64>,
    pub p50: Option<f64>,
    pub p95: Option<f64>,
    pub p99: Option<f64>,
    pub max: Option<f64>,
}

impl Spread {
    pub fn of(values: impl IntoIterator<Item = Option<f64>>) -> Spread {
        let all: Vec<Option<f64>> = values.into_iter().collect();
        let mut came: Vec<f64> = all.iter().flatten().copied().collect();
        came.sort_unstable_by(f64::total_cmp);
        let (n, missing) = (all.len(), all.len() - came.len());
        let rank = |p: f64| came.get((libm::ceil(p * n as f64) as usize).max(1) - 1).copied();
        Spread {
            n,
            missing,
            mean: (!came.is_empty()).then(|| came.iter().sum::<f64>() / came.len() as f64),
            min: came.first().copied(),
            p50: rank(0.5),
            p95: rank(0.95),
            p99: rank(0.99),
            max: rank(1.0),
        }
    }

    fn statistics(&self) -> [(&'static str, Option<f64>); 6] {
        [
            ("mean", self.mean),
            ("min", self.min),
            ("p50", self.p50),
            ("p95", self.p95),
            ("p99", self.p99),
            ("max", self.max),
        ]
    }
}

impl Scenario {
    /// Runs all its trials. `E_CANCELED` where `stop` was set; else what [`Scenario::validate`] says.
    pub fn run(&self, run: &Run<'_>) -> Result<Report> {
        self.validate()?;
        let trials = run.trials.unwrap_or(self.trials);
        if trials == 0 {
            return Err(Error::new(Code::Invalid, "trials = 0: expected at least 1"));
        }
        let seed = run.seed.unwrap_or(self.seed);
        let never = AtomicBool::new(false);
        let stop = run.stop.unwrap_or(&never);
        let one = |t: usize| {
            let trial = trial::run(self, seed.wrapping_add(t as u64), stop).ok();
            if let Some(done) = run.done {
                done.fetch_add(usize::from(trial.is_some()), Ordering::Relaxed);
            }
            trial
        };
        let seen = in_parallel(trials, run.jobs, one);
        let Some(seen) = seen.into_iter().collect::<Option<Vec<Trial>>>() else {
            return Err(Error::new(Code::Canceled, "the run was stopped before all trials were done"));
        };
        Ok(Report::of(self, seed, seen))
    }
}

#[cfg(feature = "std")]
fn in_parallel<T: Send>(n: usize, jobs: usize, one: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let jobs = (if jobs == 0 { cores } else { jobs }).min(n);
    if jobs <= 1 {
        return (0..n).map(one).collect();
    }
    let next = AtomicUsize::new(0);
    let work = || {
        let taken = core::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed)).take_while(|t| *t < n);
        taken.map(|t| (t, one(t))).collect::<Vec<_>>()
    };
    let mut all: Vec<(usize, T)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a trial does not panic")).collect()
    });
    all.sort_unstable_by_key(|(t, _)| *t);
    all.into_iter().map(|(_, trial)| trial).collect()
}

#[cfg(not(feature = "std"))]
fn in_parallel<T>(n: usize, _jobs: usize, one: impl Fn(usize) -> T) -> Vec<T> {
    (0..n).map(one).collect()
}

impl Report {
    fn of(scenario: &Scenario, seed: u64, trials: Vec<Trial>) -> Report {
        let mut report = Report {
            title: scenario.title.clone(),
            nodes: scenario.nodes,
            seed,
            gossip_interval: scenario.config.gossip_interval,
            probe_interval: scenario.config.probe_interval,
            measures: Vec::new(),
            kinds: Vec::new(),
            trials,
        };
        report.measure_all(scenario);
        report.kinds = report.by_kind();
        report
    }

    /// The share of trials in which all came true that a phase waited for.
    pub fn success_rate(&self) -> f64 {
        self.trials.iter().filter(|trial| trial.failed.is_none()).count() as f64 / self.trials.len() as f64
    }

    /// By its name in the table, such as `reach 100 %`.
    pub fn measure(&self, name: &str) -> Option<&Spread> {
        self.measures.iter().find(|measure| measure.name == name).map(|measure| &measure.spread)
    }

    /// Everything that was told, in all trials.
    pub fn tells(&self) -> impl Iterator<Item = &Tell> {
        self.trials.iter().flat_map(|trial| &trial.tells)
    }

    /// `E_TIMEOUT` unless each rumor of each trial reached that share of the nodes within that time. The text names the
    /// first that did not, by its seed.
    pub fn assert_reaches(&self, share: f64, within: Duration) -> Result<()> {
        if self.tells().next().is_none() {
            return Err(Error::new(Code::Invalid, "nothing was told: a phase needs tell = 1"));
        }
        for trial in &self.trials {
            for tell in &trial.tells {
                let took = tell.reached(share);
                if took.is_none_or(|took| took > within) {
                    let known = 1 + tell.known.len();
                    let (of, late) = (known + tell.unknown.len(), if took.is_some() { "later" } else { "never" });
                    let text = format!(
                        "seed {}: what {} told should have reached {} of all within {} ms; it did {late}, and {known} of {of} knew in the end",
                        trial.seed,
                        tell.by,
                        percent(share),
                        ms(within),
                    );
                    return Err(Error::new(Code::Timeout, text));
                }
            }
        }
        Ok(())
    }

    fn measure_all(&mut self, scenario: &Scenario) {
        let mut measures = Vec::new();
        let mut add = |name: String, unit, values: Vec<Option<f64>>| {
            if !values.is_empty() {
                measures.push(Measure { name, unit, spread: Spread::of(values) });
            }
        };
        let form = (!scenario.form.is_zero()).then_some(super::scenario::FORM);
        let waiting = scenario.phases.iter().filter(|phase| phase.until.is_some()).map(|phase| &*phase.name);
        for name in form.into_iter().chain(waiting) {
            let took = |trial: &Trial| {
                let passed = trial.phases.iter().find(|passed| passed.name == name)?;
                passed.fulfilled.unwrap_or(false).then_some(ms(passed.took))
            };
            add(name.to_owned(), "ms", self.trials.iter().map(took).collect());
        }
        for share in [0.5, 0.9, 0.99, 1.0] {
            let reached = |tell: &Tell| tell.reached(share).map(ms);
            add(format!("reach {}", percent(share)), "ms", self.tells().map(reached).collect());
        }
        for share in [0.5, 0.99, 1.0] {
            let rounds = |tell: &Tell| tell.rounds(share, self.gossip_interval).map(|n| n as f64);
            add(format!("rounds to {}", percent(share)), "intervals", self.tells().map(rounds).collect());
        }
        let faults: BTreeSet<&str> = self.detections().map(|detection| detection.fault).collect();
        for fault in faults {
            let noticed = |when: fn(&Detection) -> Option<Duration>| {
                self.detections().filter(|d| d.fault == fault).map(|d| when(d).map(ms)).collect::<Vec<_>>()
            };
            add(format!("{fault}: suspected"), "ms", noticed(|d| d.suspected));
            add(format!("{fault}: first dead"), "ms", noticed(|d| d.first));
            add(format!("{fault}: all know"), "ms", noticed(|d| d.all));
        }
        let mut each = |name: &str, unit, value: &dyn Fn(&Trial) -> f64| {
            add(name.to_owned(), unit, self.trials.iter().map(|trial| Some(value(trial))).collect());
        };
        each("false suspicions", "events", &|trial| trial.false_suspicions as f64);
        each("false deaths", "events", &|trial| trial.false_deaths as f64);
        each("false deaths at healthy", "events", &|trial| trial.false_deaths_at_healthy as f64);
        if !scenario.sample.is_zero() {
            each("stale members", "%", &|trial| 100.0 * mean(&trial.staleness, |s| s.members));
            each("stale metadata", "%", &|trial| 100.0 * mean(&trial.staleness, |s| s.meta));
            each("age of metadata", "ms", &|trial| 1000.0 * mean(&trial.staleness, |s| s.age));
        }
        let per_node = |count: u64, seconds: f64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        each("packets", "/node/s", &|trial| {
            let (sent, seconds) = trial.sent();
            per_node(sent.all_packets(), seconds)
        });
        each("bytes", "/node/s", &|trial| {
            let (sent, seconds) = trial.sent();
            per_node(sent.all_bytes(), seconds)
        });
        let share = |of: fn(&Passed) -> u64| {
            move |trial: &Trial| {
                let (part, all) = trial.passed().fold((0, 0), |(a, b), passed| (a + of(passed), b + passed.fates.sent));
                if all == 0 { 0.0 } else { 100.0 * part as f64 / all as f64 }
            }
        };
        each("lost on the way", "% of packets", &share(|passed| passed.fates.lost));
        each("duplicated", "% of packets", &share(|passed| passed.fates.duplicated));
        self.measures = measures;
    }

    fn detections(&self) -> impl Iterator<Item = &Detection> {
        self.trials.iter().flat_map(|trial| &trial.detections)
    }

    fn by_kind(&self) -> Vec<Kind> {
        let (mut sent, mut seconds) = (Traffic::default(), 0.0);
        for trial in &self.trials {
            let (traffic, time) = trial.sent();
            sent.add(&traffic);
            seconds += time;
        }
        kinds(&sent, seconds)
    }

    /// Everything, for other programs. What never happened is `null`.
    pub fn to_json(&self) -> String {
        let mut json = Json::default();
        json.object(|json| {
            json.text("title", &self.title);
            json.number("nodes", self.nodes as f64);
            json.raw("seed", self.seed);
            json.number("trials", self.trials.len() as f64);
            json.number("success_rate", self.success_rate());
            json.number("gossip_interval_ms", ms(self.gossip_interval));
            json.number("probe_interval_ms", ms(self.probe_interval));
            json.list("measures", &self.measures, |json, measure| {
                json.text("name", &measure.name);
                json.text("unit", measure.unit);
                json.number("n", measure.spread.n as f64);
                json.number("missing", measure.spread.missing as f64);
                measure.spread.statistics().into_iter().for_each(|(name, value)| json.maybe(name, value));
            });
            json.list("kinds", &self.kinds, write_kind);
            json.list("rows", &self.trials, write_trial);
        });
        json.text
    }
}

impl Trial {
    /// The phases but for `form`.
    pub fn passed(&self) -> impl Iterator<Item = &Passed> {
        self.phases.iter().filter(|passed| passed.name != super::scenario::FORM)
    }

    /// What was sent in them, and the seconds that nodes ran in them.
    fn sent(&self) -> (Traffic, f64) {
        self.passed().fold(Default::default(), |(mut sent, seconds): (Traffic, f64), passed| {
            sent.add(&passed.sent);
            (sent, seconds + passed.node_seconds)
        })
    }
}

fn kinds(sent: &Traffic, seconds: f64) -> Vec<Kind> {
    let used = (0..KINDS).filter(|&kind| sent.packets[kind] > 0 && seconds > 0.0);
    used.map(|kind| Kind {
        name: kind_name(kind as u8).map_or_else(|| format!("kind {kind}"), str::to_owned),
        packets: sent.packets[kind] as f64 / seconds,
        bytes: sent.bytes[kind] as f64 / seconds,
    })
    .collect()
}

fn write_kind(json: &mut Json, kind: &Kind) {
    json.text("name", &kind.name);
    json.number("packets", kind.packets);
    json.number("bytes", kind.bytes);
}

fn write_trial(json: &mut Json, trial: &Trial) {
    json.raw("seed", trial.seed);
    match &trial.failed {
        Some(phase) => json.text("failed", phase),
        None => json.maybe("failed", None),
    }
    json.number("false_suspicions", trial.false_suspicions as f64);
    json.number("false_deaths", trial.false_deaths as f64);
    json.number("false_deaths_at_healthy", trial.false_deaths_at_healthy as f64);
    json.text("trace", &format!("{:016x}", trial.trace));
    json.list("phases", &trial.phases, |json, passed| {
        json.text("name", &passed.name);
        json.number("took_ms", ms(passed.took));
        match passed.fulfilled {
            Some(fulfilled) => json.raw("fulfilled", fulfilled),
            None => json.maybe("fulfilled", None),
        }
        json.number("node_seconds", passed.node_seconds);
        json.raw("sent", passed.fates.sent);
        json.raw("lost", passed.fates.lost);
        json.raw("duplicated", passed.fates.duplicated);
        json.raw("damaged", passed.fates.damaged);
        json.raw("received", passed.fates.received);
        json.list("kinds", &kinds(&passed.sent, passed.node_seconds), write_kind);
    });
    json.list("tells", &trial.tells, |json, tell| {
        json.text("by", &tell.by);
        json.number("at_ms", ms(tell.at));
        json.number("first_sent_ms", ms(tell.first_sent));
        json.key("known");
        json.nested('{', '}', |json| tell.known.iter().for_each(|(name, at)| json.number(name, ms(*at))));
        json.key("unknown");
        json.nested('[', ']', |json| tell.unknown.iter().for_each(|name| json.item(|json| json.string(name))));
    });
    json.list("detections", &trial.detections, |json, d| {
        json.text("fault", d.fault);
        json.text("node", &d.node);
        json.number("at_ms", ms(d.at));
        json.maybe("suspected_ms", d.suspected.map(ms));
        json.maybe("first_ms", d.first.map(ms));
        json.maybe("all_ms", d.all.map(ms));
        json.number("knew", d.knew as f64);
        json.number("of", d.of as f64);
    });
    json.list("staleness", &trial.staleness, |json, s| {
        json.number("at_ms", ms(s.at));
        json.number("members", s.members);
        json.number("meta", s.meta);
        json.number("age_ms", 1000.0 * s.age);
    });
}

fn mean(samples: &[Staleness], value: impl Fn(&Staleness) -> f64) -> f64 {
    if samples.is_empty() { 0.0 } else { samples.iter().map(value).sum::<f64>() / samples.len() as f64 }
}

fn ms(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1e6
}

fn percent(share: f64) -> String {
    format!("{} %", libm::round(share * 1e4) / 1e2)
}

/// As precise as anybody reads it.
fn figure(value: Option<f64>) -> String {
    match value {
        None => "never".to_owned(),
        Some(0.0) => "0".to_owned(),
        Some(v) if v.abs() >= 100.0 => format!("{v:.0}"),
        Some(v) if v.abs() >= 10.0 => format!("{v:.1}"),
        Some(v) if v.abs() >= 0.1 => format!("{v:.2}"),
        Some(v) => format!("{v:.4}"),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failed: Vec<&Trial> = self.trials.iter().filter(|trial| trial.failed.is_some()).collect();
        let trials = self.trials.len();
        write!(f, "{}: {} nodes, {trials} trials from seed {}", title(&self.title), self.nodes, self.seed)?;
        writeln!(f, ", {} succeeded", percent(self.success_rate()))?;
        for trial in failed.iter().take(5) {
            writeln!(f, "  seed {} failed in phase {:?}", trial.seed, trial.failed.as_deref().unwrap_or_default())?;
        }
        if failed.len() > 5 {
            writeln!(f, "  and {} more", failed.len() - 5)?;
        }
        let mut table = Table::new(["", "", "mean", "p50", "p95", "p99", "max", "never"]);
        for Measure { name, unit, spread: s } in &self.measures {
            let missing = if s.missing == 0 { String::new() } else { format!("{} of {}", s.missing, s.n) };
            let [p50, p95, p99, max] = [s.p50, s.p95, s.p99, s.max].map(figure);
            table.row([name.clone(), (*unit).to_owned(), figure(s.mean), p50, p95, p99, max, missing]);
        }
        write!(f, "\n{table}")?;
        let mut table = Table::new(["packets by first frame", "", "packets", "bytes"]);
        for Kind { name, packets, bytes } in &self.kinds {
            table.row([name.clone(), "/node/s".to_owned(), figure(Some(*packets)), figure(Some(*bytes))]);
        }
        write!(f, "\n{table}")
    }
}

fn title(title: &str) -> &str {
    if title.is_empty() { "scenario" } else { title }
}

/// Reports side by side.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    pub runs: Vec<String>,
    pub rows: Vec<Row>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub measure: String,
    pub unit: &'static str,
    /// `mean`, `p50`, `p99` or `max`.
    pub statistic: &'static str,
    /// Of each run. `None`: never, or not measured.
    pub values: Vec<Option<f64>>,
    /// To the first run's value, where both have one that is not zero.
    pub ratios: Vec<Option<f64>>,
}

/// All that the first of some runs measured, beside the others.
pub fn compare(runs: &[(&str, &Report)]) -> Comparison {
    let mut rows = Vec::new();
    let mut add = |measure: &str, unit, statistic, values: Vec<Option<f64>>| {
        let first = values.first().copied().flatten().filter(|first| *first != 0.0);
        let ratios = values.iter().map(|value| Some((*value)? / first?)).collect();
        rows.push(Row { measure: measure.to_owned(), unit, statistic, values, ratios });
    };
    add("success", "%", "mean", runs.iter().map(|(_, report)| Some(100.0 * report.success_rate())).collect());
    let mut names: Vec<(&str, &'static str)> = Vec::new();
    for (_, report) in runs {
        for measure in report.measures.iter().filter(|m| m.spread.n > 0) {
            if !names.iter().any(|(name, _)| *name == measure.name) {
                names.push((&measure.name, measure.unit));
            }
        }
    }
    for (name, unit) in names {
        let spreads: Vec<Option<&Spread>> = runs.iter().map(|(_, report)| report.measure(name)).collect();
        // What is one figure a trial needs no tail beside it.
        let timed = matches!(unit, "ms" | "intervals");
        let statistics: &[usize] = if timed { &[0, 2, 4, 5] } else { &[0, 5] };
        for &at in statistics {
            let values = spreads.iter().map(|spread| spread.and_then(|s| s.statistics()[at].1)).collect();
            let statistic = ["mean", "min", "p50", "p95", "p99", "max"][at];
            add(name, unit, statistic, values);
        }
    }
    let kinds: BTreeSet<&str> = runs.iter().flat_map(|(_, report)| &report.kinds).map(|kind| &*kind.name).collect();
    for kind in kinds {
        let of =
            |report: &Report, value: fn(&Kind) -> f64| report.kinds.iter().find(|k| k.name == kind).map_or(0.0, value);
        let values = |value: fn(&Kind) -> f64| runs.iter().map(|(_, report)| Some(of(report, value))).collect();
        add(&format!("{kind} packets"), "/node/s", "mean", values(|k| k.packets));
        add(&format!("{kind} bytes"), "/node/s", "mean", values(|k| k.bytes));
    }
    Comparison { runs: runs.iter().map(|(name, _)| (*name).to_owned()).collect(), rows }
}

impl Comparison {
    pub fn to_json(&self) -> String {
        let mut json = Json::default();
        json.object(|json| {
            json.key("runs");
            json.nested('[', ']', |json| self.runs.iter().for_each(|run| json.item(|json| json.string(run))));
            json.list("rows", &self.rows, |json, row| {
                json.text("measure", &row.measure);
                json.text("unit", row.unit);
                json.text("statistic", row.statistic);
                for (key, values) in [("values", &row.values), ("ratios", &row.ratios)] {
                    json.key(key);
                    json.nested('[', ']', |json| values.iter().for_each(|value| json.item(|json| json.value(*value))));
                }
            });
        });
        json.text
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heads = ["", "", ""].into_iter().map(str::to_owned);
        let mut table = Table { rows: alloc::vec![heads.chain(self.runs.iter().cloned()).collect()] };
        let mut last = "";
        for row in &self.rows {
            let name = if row.measure == last { String::new() } else { row.measure.clone() };
            let unit = if row.measure == last { "" } else { row.unit };
            last = &row.measure;
            let cell = |(at, (value, ratio)): (usize, (&Option<f64>, &Option<f64>))| match ratio {
                Some(ratio) if at > 0 => format!("{} (x{ratio:.2})", figure(*value)),
                _ => figure(*value),
            };
            let cells = row.values.iter().zip(&row.ratios).enumerate().map(cell);
            table.rows.push([name, unit.to_owned(), row.statistic.to_owned()].into_iter().chain(cells).collect());
        }
        write!(f, "{table}")
    }
}

/// Columns as wide as they must be: the first two to the left, figures to the right.
struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new<const N: usize>(heads: [&str; N]) -> Table {
        Table { rows: alloc::vec![heads.map(str::to_owned).to_vec()] }
    }

    fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.rows.iter().map(Vec::len).max().unwrap_or(0)).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let width = widths[column];
                if column < 2 {
                    write!(line, "{cell:<width$}  ")?;
                } else {
                    write!(line, "{cell:>width$}  ")?;
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Writes JSON, which needs no reader here.
#[derive(Default)]
struct Json {
    text: String,
}

impl Json {
    fn object(&mut self, fill: impl FnOnce(&mut Json)) {
        self.nested('{', '}', fill);
    }

    fn nested(&mut self, open: char, close: char, fill: impl FnOnce(&mut Json)) {
        self.text.push(open);
        fill(self);
        self.text.push(close);
    }

    fn comma(&mut self) {
        if !self.text.ends_with(['{', '[', ':']) {
            self.text.push(',');
        }
    }

    fn key(&mut self, key: &str) {
        self.comma();
        self.string(key);
        self.text.push(':');
    }

    fn item(&mut self, write: impl FnOnce(&mut Json)) {
        self.comma();
        write(self);
    }

    fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        self.string(value);
    }

    fn number(&mut self, key: &str, value: f64) {
        self.maybe(key, Some(value));
    }

    fn maybe(&mut self, key: &str, value: Option<f64>) {
        self.key(key);
        self.value(value);
    }

    fn value(&mut self, value: Option<f64>) {
        match value.filter(|value| value.is_finite()) {
            Some(value) => self.text += &value.to_string(),
            None => self.text += "null",
        }
    }

    /// What is a JSON value as it prints itself: numbers that a float cannot hold, and truth.
    fn raw(&mut self, key: &str, value: impl fmt::Display) {
        self.key(key);
        self.text += &value.to_string();
    }

    fn list<T>(&mut self, key: &str, items: &[T], mut write: impl FnMut(&mut Json, &T)) {
        self.key(key);
        self.nested('[', ']', |json| {
            items.iter().for_each(|item| json.item(|json| json.object(|json| write(json, item))));
        });
    }

    fn string(&mut self, text: &str) {
        self.text.push('"');
        for c in text.chars() {
            match c {
                '"' | '\\' => self.text.extend(['\\', c]),
                c if c.is_control() => self.text += &format!("\\u{:04x}", u32::from(c)),
                c => self.text.push(c),
            }
        }
        self.text.push('"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(values: &[f64]) -> Vec<Option<f64>> {
        values.iter().copied().map(Some).collect()
    }

    /// A mean that was a minimum made another project's averages the best of their seeds.
    #[test]
    fn a_mean_is_a_mean_and_a_maximum_a_maximum() {
        let spread = Spread::of(some(&[4.0, 1.0, 10.0, 5.0]));
        assert_eq!((spread.mean, spread.min, spread.max), (Some(5.0), Some(1.0), Some(10.0)));
        assert_eq!((spread.n, spread.missing), (4, 0));
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        let spread = Spread::of(some(&hundred));
        assert_eq!((spread.p50, spread.p95, spread.p99, spread.max), (Some(50.0), Some(95.0), Some(99.0), Some(100.0)));
        let spread = Spread::of(some(&[7.0]));
        assert_eq!((spread.p50, spread.p99, spread.max), (Some(7.0), Some(7.0), Some(7.0)));
        let spread = Spread::of(some(&[1.0, 2.0]));
        assert_eq!((spread.p50, spread.p95), (Some(1.0), Some(2.0)));
    }

    #[test]
    fn what_never_came_is_later_than_all_that_did() {
        let mut values = some(&[1.0, 2.0, 3.0]);
        values.push(None);
        let spread = Spread::of(values);
        assert_eq!((spread.n, spread.missing, spread.mean), (4, 1, Some(2.0)));
        assert_eq!((spread.p50, spread.p95, spread.max), (Some(2.0), None, None));
        let spread = Spread::of([None, None]);
        assert_eq!((spread.mean, spread.min, spread.p50), (None, None, None));
        let spread = Spread::of([]);
        assert_eq!((spread.n, spread.mean, spread.max), (0, None, None));
    }

    #[test]
    fn reach_counts_the_teller_and_rounds_begin_with_its_first_packet() {
        let ms = Duration::from_millis;
        let known = [("b", 20), ("c", 120), ("d", 320)].map(|(name, at)| (name.to_owned(), ms(at))).to_vec();
        let tell = Tell { by: "a".into(), at: ms(0), first_sent: ms(20), known, unknown: alloc::vec!["e".into()] };
        assert_eq!(tell.reached(0.2), Some(Duration::ZERO));
        assert_eq!(tell.reached(0.5), Some(ms(120)), "three of five");
        assert_eq!((tell.reached(0.8), tell.reached(1.0)), (Some(ms(320)), None));
        assert_eq!((tell.rounds(0.4, ms(100)), tell.rounds(0.6, ms(100))), (Some(1), Some(1)));
        assert_eq!((tell.rounds(0.8, ms(100)), tell.rounds(1.0, ms(100))), (Some(3), None));
    }

    #[test]
    fn json_says_what_it_was_told_and_escapes_it() {
        let mut json = Json::default();
        json.object(|json| {
            json.text("a\"b", "line\nend\\");
            json.number("n", f64::NAN);
            json.raw("big", u64::MAX);
            json.list("l", &[1.5, 2.0], |json, value| json.number("v", *value));
            json.key("e");
            json.nested('[', ']', |_| {});
        });
        let expected =
            r#"{"a\"b":"line\u000aend\\","n":null,"big":18446744073709551615,"l":[{"v":1.5},{"v":2}],"e":[]}"#;
        assert_eq!(json.text, expected);
    }
}
