//! Modules stand on floors, and a module uses only floors below its own. Siblings meet on the floor above them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Path prefixes and their floor; the longest that fits counts.
const FLOORS: &[(&str, u32)] = &[
    ("time", 0),
    ("rng", 0),
    ("id", 0),
    ("error", 0),
    ("config", 0),
    ("message", 0),
    ("wire", 1),
    ("view", 2),
    ("outbox", 2),
    ("members", 2),
    ("telling", 2),
    ("rhythm", 2),
    ("collection", 2),
    // The context that every protocol gets; each protocol is a module of its own below it.
    ("protocol", 3),
    ("engine", 4),
    ("runtime", 5),
    ("sim", 5),
];

/// Within a floor, what may use what all the same.
const WITHIN: &[(&str, &str, &str)] = &[
    ("id", "error", "a name may be refused"),
    ("config", "error", "a value may be refused"),
    ("config", "time", "durations"),
    ("config", "id", "names have one rule"),
    ("message", "error", "a topic may be refused"),
    ("message", "id", "who said it"),
    ("message", "time", "for how long answers are gathered"),
    ("outbox", "view", "events"),
    ("members", "view", "states, pictures"),
    ("members", "outbox", "destinations"),
    ("members", "collection", "the member's own state travels in the member table"),
    ("collection", "view", "metadata as applications see it"),
    ("telling", "members", "what it puts into frames"),
    ("telling", "view", "states"),
];

/// What runtime may use of the floors below: sockets and threads, and no protocol.
const RUNTIME: &[&str] = &["time", "rng", "id", "error", "config", "message", "wire", "view", "outbox", "engine"];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("the sources are there") {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found.sort();
}

/// `src/protocol/probe.rs` is `protocol::probe`.
fn module(file: &Path) -> Vec<String> {
    let relative = file.strip_prefix(source()).unwrap().with_extension("");
    let mut parts: Vec<String> = relative.iter().map(|p| p.to_str().unwrap().to_owned()).collect();
    if parts.last().is_some_and(|last| last == "mod" || last == "lib") {
        parts.pop();
    }
    parts
}

/// The code alone: no comments, no test module at the end, no line breaks.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    let lines = text.lines().map(|line| line.split("//").next().unwrap().trim());
    lines.collect::<Vec<_>>().join(" ")
}

/// Every path that begins with `crate::` or `super::`, written out: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn paths(module: &[String], code: &str) -> BTreeSet<Vec<String>> {
    let mut found = BTreeSet::new();
    for (root, base) in [("crate::", &[][..]), ("super::", &module[..module.len().saturating_sub(1)])] {
        for (at, _) in code.match_indices(root) {
            let before = code[..at].chars().next_back().unwrap_or(' ');
            if !before.is_alphanumeric() && before != '_' && before != ':' {
                expand(base, &code[at + root.len()..], &mut found);
            }
        }
    }
    found
}

fn expand(base: &[String], rest: &str, found: &mut BTreeSet<Vec<String>>) {
    let mut path = base.to_vec();
    let mut rest = rest.trim_start();
    loop {
        if let Some(list) = rest.strip_prefix('{') {
            return split(list).for_each(|item| expand(&path, item, found));
        }
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        match &rest[..end] {
            "super" => drop(path.pop()),
            "" | "self" => {}
            word => path.push(word.to_owned()),
        }
        match rest[end..].strip_prefix("::") {
            Some(more) => rest = more,
            None => break,
        }
    }
    found.insert(path);
}

/// The items of a list up to its closing brace.
fn split(list: &str) -> impl Iterator<Item = &str> {
    let (mut depth, mut start, mut items) = (0, 0, Vec::new());
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                items.push(&list[start..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    items.into_iter().map(str::trim).filter(|item| !item.is_empty())
}

fn floor(module: &str) -> u32 {
    let found = FLOORS.iter().find(|(name, _)| *name == module);
    found.unwrap_or_else(|| panic!("{module} stands on no floor: add it to FLOORS")).1
}

/// Why `user` must not use `path`, if so.
fn violation(user: &[String], path: &[String]) -> Option<String> {
    let (from, to) = (user.first()?.as_str(), path.first()?.as_str());
    let says = |why: &str| Some(format!("{} uses {}: {why}", user.join("::"), path.join("::")));
    if !FLOORS.iter().any(|(name, _)| *name == to) {
        return None; // A re-export or a macro at the root.
    }
    if from == to {
        let siblings = from == "protocol" && user.len() > 1 && path.len() > 1;
        let is_module = path.get(1).is_some_and(|name| source().join("protocol").join(format!("{name}.rs")).exists());
        if siblings && is_module && user[1] != path[1] {
            return says("protocols do not name each other; the engine introduces them");
        }
        return None;
    }
    if floor(to) > floor(from) {
        return says("upward");
    }
    if floor(to) == floor(from) && !WITHIN.iter().any(|&(a, b, _)| (a, b) == (from, to)) {
        return says("a sibling");
    }
    if from == "runtime" && !RUNTIME.contains(&to) {
        return says("the runtime knows no protocol");
    }
    None
}

#[test]
fn no_module_uses_a_floor_above_its_own() {
    let mut sources = Vec::new();
    files(&source(), &mut sources);
    let mut violations = Vec::new();
    let mut looked_at = 0;
    for file in sources {
        let user = module(&file);
        if user.is_empty() {
            continue; // lib.rs names them all.
        }
        let text = fs::read_to_string(&file).unwrap();
        let used = paths(&user, &code(&text));
        looked_at += used.len();
        violations.extend(used.iter().filter_map(|path| violation(&user, path)));
    }
    assert!(looked_at > 100, "{looked_at} paths");
    assert!(violations.is_empty(), "{violations:#?}");
}

#[test]
fn the_reader_of_paths_reads_them() {
    let user = ["protocol".to_owned(), "probe".to_owned()];
    let code = code(
        "use super::Cx; // crate::engine\nuse crate::{time, wire::frame::{Frame,\n self}};\nlet x = crate::engine::Engine::new();",
    );
    let found: Vec<String> = paths(&user, &code).iter().map(|path| path.join("::")).collect();
    assert_eq!(found, ["engine::Engine::new", "protocol::Cx", "time", "wire::frame", "wire::frame::Frame"]);

    let path = |text: &str| text.split("::").map(str::to_owned).collect::<Vec<_>>();
    assert!(violation(&user, &path("engine::Engine")).is_some());
    assert!(violation(&user, &path("protocol::rumor::Rumors")).is_some());
    assert!(violation(&user, &path("protocol::Cx")).is_none());
    assert!(violation(&path("runtime::node"), &path("members::Members")).is_some());
    assert!(violation(&path("sim::world"), &path("runtime::Node")).is_some());
}
