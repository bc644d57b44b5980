//! Runs scenarios of the simulator, and prints what was measured.
//!
//!     make sim ARGS='examples/sim/crash.scn'                    one scenario
//!     make sim ARGS='a.scn b.scn trials=50'                     several, side by side
//!     make sim ARGS='nodes=100 loss=0.1 kill=3 trials=20'       without a file: form, five calm seconds, and then this
//!
//! `key=value` sets what stands above the phases of every file, as a line there would; `jobs=2` the number of threads (default:
//! all cores), and `json=FILE` writes everything that was measured. Without a file, keys of a phase make up its phase `run`.

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bruit_core::sim::{Report, Run, Scenario, compare, script};

struct Wanted {
    files: Vec<String>,
    above: Vec<String>,
    phase: Vec<String>,
    jobs: usize,
    json: Option<String>,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match wanted(&words).and_then(|wanted| go(&wanted)) {
        Ok(all_succeeded) => ExitCode::from(u8::from(!all_succeeded)),
        Err(text) => {
            eprintln!("sim: {text}");
            ExitCode::from(2)
        }
    }
}

fn wanted(words: &[String]) -> Result<Wanted, String> {
    let mut wanted = Wanted { files: Vec::new(), above: Vec::new(), phase: Vec::new(), jobs: 0, json: None };
    for word in words {
        match word.split_once('=') {
            None => wanted.files.push(word.clone()),
            Some(("jobs", jobs)) => {
                wanted.jobs =
                    jobs.parse().map_err(|_| format!("{word}: expected a number of threads, or 0 for all cores"))?;
            }
            Some(("json", file)) => wanted.json = Some(file.to_owned()),
            Some((key, value)) if script::is_of_phase(key) => wanted.phase.push(format!("{key} = {value}")),
            Some((key, value)) => wanted.above.push(format!("{key} = {value}")),
        }
    }
    if !wanted.files.is_empty() && !wanted.phase.is_empty() {
        return Err(format!("{}: belongs into a phase of the file", wanted.phase[0]));
    }
    if words.is_empty() {
        return Err("expected scenario files, or options such as nodes=100 loss=0.1 kill=3 trials=20".into());
    }
    Ok(wanted)
}

/// Whether all trials of all scenarios succeeded.
fn go(wanted: &Wanted) -> Result<bool, String> {
    let mut reports = Vec::new();
    for (name, scenario) in scenarios(wanted)? {
        let (began, done) = (Instant::now(), AtomicUsize::new(0));
        let run = Run { jobs: wanted.jobs, done: Some(&done), ..Run::default() };
        let report = scenario.run(&run).map_err(|e| format!("{name}: {e}"))?;
        println!("{report}");
        println!("({} trials in {:.1} s)\n", done.load(Ordering::Relaxed), began.elapsed().as_secs_f64());
        reports.push((name, report));
    }
    let named: Vec<(&str, &Report)> = reports.iter().map(|(name, report)| (&**name, report)).collect();
    let comparison = (named.len() > 1).then(|| compare(&named));
    if let Some(comparison) = &comparison {
        println!("{comparison}");
    }
    if let Some(file) = &wanted.json {
        let all: Vec<String> = named.iter().map(|(name, report)| format!("{name:?}:{}", report.to_json())).collect();
        let text = match &comparison {
            None => named[0].1.to_json(),
            Some(c) => format!("{{\"comparison\":{},\"reports\":{{{}}}}}", c.to_json(), all.join(",")),
        };
        std::fs::write(file, text + "\n").map_err(|e| format!("{file}: {e}"))?;
    }
    Ok(named.iter().all(|(_, report)| report.success_rate() == 1.0))
}

fn scenarios(wanted: &Wanted) -> Result<Vec<(String, Scenario)>, String> {
    let above = wanted.above.join("\n");
    if wanted.files.is_empty() {
        let text =
            format!("title = options\n{above}\n[phase calm]\nfor = 5s\n[phase run]\n{}\n", wanted.phase.join("\n"));
        return Ok(vec![("options".into(), Scenario::parse(&text).map_err(|e| e.text)?)]);
    }
    let mut scenarios = Vec::new();
    for file in &wanted.files {
        let text = std::fs::read_to_string(file).map_err(|e| format!("{file}: {e}"))?;
        Scenario::parse(&text).map_err(|e| format!("{file}: {}", e.text))?;
        let at = text.lines().position(|line| line.trim_start().starts_with('[')).unwrap_or(usize::MAX);
        let (head, phases): (Vec<_>, Vec<_>) = text.lines().enumerate().partition(|(number, _)| *number < at);
        let lines = |part: Vec<(usize, &str)>| part.into_iter().map(|(_, line)| line).collect::<Vec<_>>().join("\n");
        let text = format!("{}\n{above}\n{}\n", lines(head), lines(phases));
        let scenario =
            Scenario::parse(&text).map_err(|e| format!("{file} with {}: {}", wanted.above.join(" "), e.text))?;
        let stem =
            std::path::Path::new(file).file_stem().map_or(file.clone(), |stem| stem.to_string_lossy().into_owned());
        scenarios.push((stem, scenario));
    }
    Ok(scenarios)
}
