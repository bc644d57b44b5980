//! Instructions of the hot paths, counted by callgrind: the same figures on a busy machine as on a quiet one.
//!
//!     cargo bench --package bruit-core --features sim --bench counts
//!
//! This program runs itself under valgrind once for each path, so that none depends on the others; what happens in
//! [`counted`] is counted. A path that takes a tenth more than docs/BENCHMARKS.md has is a failure; `BRUIT_UPDATE=1` puts this
//! run's figures there.
//!
//! Exit code 1: a path takes more. 2: there is no answer, for want of valgrind, or because the kept figures were made by
//! another compiler or another C library; with `--if-comparable` that is no failure.

mod paths;
#[path = "../report/mod.rs"]
mod report;
mod table;

use std::hint::black_box;
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::{env, fs, thread};

use paths::PATHS;
use table::{Answer, Table};

/// The argument that makes this program the one that is counted.
const COUNTED: &str = "--counted";

/// There may be no answer.
const IF_COMPARABLE: &str = "--if-comparable";

const NO_ANSWER: u8 = 2;

fn main() -> ExitCode {
    let args: Vec<String> = env::args().collect();
    if let Some(i) = args.iter().position(|arg| arg == COUNTED) {
        return walk(args[i + 1].parse().expect("a path's number"));
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("counts");
    let answer = count(&folder).map_or_else(|why_not| why_not, |table| judge(&table, &folder));
    match answer {
        Answer::Holds => ExitCode::SUCCESS,
        Answer::None if args.iter().any(|arg| arg == IF_COMPARABLE) => ExitCode::SUCCESS,
        Answer::None => ExitCode::from(NO_ANSWER),
        Answer::Fails => ExitCode::FAILURE,
    }
}

fn judge(table: &Table, folder: &Path) -> Answer {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/BENCHMARKS.md");
    let page = fs::read_to_string(&path).expect("docs/BENCHMARKS.md is there");
    let (text, answer) = table.beside(&Table::read(&page));
    println!("{text}Where they are spent: callgrind_annotate {}/…", folder.display());
    if env::var("BRUIT_UPDATE").is_ok_and(|v| v == "1") {
        fs::write(path, table.put_into(&page)).expect("docs/BENCHMARKS.md can be written");
        println!("docs/BENCHMARKS.md has these counts now");
        return Answer::Holds;
    }
    answer
}

/// Callgrind collects while this runs.
#[inline(never)]
pub fn counted(work: &mut dyn FnMut()) {
    work();
    // Or else it would end where the work begins: with a jump.
    black_box(());
}

/// Under callgrind: says what decides about counts besides the compiler, and how many operations were counted.
fn walk(path: usize) -> ExitCode {
    let (_, path) = PATHS[path];
    // In a thread, whose stack and heap begin at a page. The main thread's stack lies below the environment, and how memcpy
    // does its work depends on where its bytes are.
    match thread::spawn(path).join() {
        Ok(operations) => {
            println!("{operations}\n{}", paths::surroundings());
            ExitCode::SUCCESS
        }
        Err(_) => ExitCode::FAILURE,
    }
}

/// Has all paths counted. Callgrind's files stay in `folder`.
fn count(folder: &Path) -> Result<Table, Answer> {
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder).expect("a folder of our own");
    let mut table = Table { made: String::new(), rows: Vec::new() };
    for (i, (what, _)) in PATHS.iter().enumerate() {
        let words = what.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
        let file = folder.join(words.collect::<Vec<_>>().join("-"));
        let told = under_callgrind(i, &file)?;
        let (operations, surroundings) = told.split_once('\n').expect("two lines");
        let operations: u64 = operations.parse().expect("a number");
        let total = total_of(&file).filter(|total| *total > 0);
        let total = total.ok_or_else(|| fails(&format!("{what}: callgrind has counted nothing")))?;
        table.rows.push((what.to_string(), (total + operations / 2) / operations));
        table.made = surroundings.trim().to_owned();
    }
    table.made = format!("{}, {}", compiler()?, table.made);
    Ok(table)
}

/// What the path's [`walk`] said.
fn under_callgrind(path: usize, file: &Path) -> Result<String, Answer> {
    let output = Command::new("valgrind")
        .args(["-q", "--tool=callgrind", "--toggle-collect=counts*::counted*"])
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(env::current_exe().expect("our own path"))
        .args([COUNTED.to_owned(), path.to_string()])
        .output();
    let output = match output {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            println!("NOT COUNTED: there is no valgrind here. apt-get install valgrind");
            return Err(Answer::None);
        }
        output => output.map_err(|e| fails(&format!("valgrind: {e}")))?,
    };
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.success() {
        true => Ok(told),
        false => Err(fails(&format!("{told}{}", String::from_utf8_lossy(&output.stderr)))),
    }
}

fn total_of(dump: &Path) -> Option<u64> {
    let text = fs::read_to_string(dump).ok()?;
    text.lines().find_map(|line| line.strip_prefix("totals: ")?.parse().ok())
}

fn compiler() -> Result<String, Answer> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("--version").output();
    let output = output.map_err(|e| fails(&format!("rustc --version: {e}")))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn fails(why: &str) -> Answer {
    println!("{why}");
    Answer::Fails
}
