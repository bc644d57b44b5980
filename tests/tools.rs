//! `tests/tools.sh` names what is missing, with a word on how to get it, before anything is built: each of the tools is taken
//! away in turn.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// Tools as they should be: stand-ins of which `tests/tools.sh` asks nothing more.
const GOOD: &[(&str, &str)] = &[("cargo", "echo 'cargo 1.88.0 (of a test)'"), ("cc", "exit 0"), ("python3", "exit 0")];

#[test]
fn nothing_is_said_where_all_is_here() {
    assert_eq!(said("all", |_| {}), (true, String::new()));
}

#[test]
fn a_missing_tool_is_named() {
    for (tool, named) in
        [("cargo", "cargo (Rust 1.88"), ("cc", "a C compiler (cc)"), ("python3", "Python 3.9 or later")]
    {
        let (ok, text) = said(&format!("no-{tool}"), |path| fs::remove_file(path.join(tool)).unwrap());
        let missing: Vec<&str> = text.lines().filter(|line| line.starts_with("missing: ")).collect();
        assert!(!ok && missing.len() == 1 && missing[0].contains(named), "without {tool}: {text}");
        assert!(text.lines().count() == 2, "and how to get it: {text}");
    }
}

#[test]
fn all_that_is_missing_is_named_at_once() {
    let (ok, text) = said("none", |path| GOOD.iter().for_each(|(tool, _)| fs::remove_file(path.join(tool)).unwrap()));
    assert!(!ok && text.matches("missing: ").count() == GOOD.len(), "{text}");
}

#[test]
fn a_tool_that_is_too_old_is_named_with_its_version() {
    let (ok, text) = said("old-cargo", |path| tool(path, "cargo", "echo 'cargo 1.87.0 (of a test)'"));
    assert!(!ok && text.contains("missing: cargo 1.88 or later (found 1.87)"), "{text}");
    let old = "case $1 in --version) echo Python 3.8.1;; *) exit 1;; esac";
    let (ok, text) = said("old-python", |path| tool(path, "python3", old));
    assert!(!ok && text.contains("missing: Python 3.9 or later (found Python 3.8.1)"), "{text}");
    let without_venv = "case $2 in *ensurepip*) exit 1;; esac";
    let (ok, text) = said("no-venv", |path| tool(path, "python3", without_venv));
    assert!(!ok && text.contains("missing: the venv module of python3"), "{text}");
}

/// Whether `tests/tools.sh` is content with a PATH that `change` has made its changes to, and what it says.
fn said(name: &str, change: impl FnOnce(&Path)) -> (bool, String) {
    // One at a time: what a child of another thread has inherited open for writing cannot be run.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("tools").join(name);
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    symlink(real("sed"), path.join("sed")).unwrap();
    GOOD.iter().for_each(|(name, script)| tool(&path, name, script));
    change(&path);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools.sh");
    let mut command = Command::new("/bin/sh");
    command.arg(script).env_clear().env("PATH", &path);
    command.envs([("CARGO", "cargo"), ("CC", "cc"), ("PYTHON", "python3"), ("VENV", "/nonexistent")]);
    let output = command.output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

fn tool(path: &Path, name: &str, script: &str) {
    let file = path.join(name);
    fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
}

fn real(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").expect("tests run with a PATH");
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file()).expect("sed is everywhere")
}
