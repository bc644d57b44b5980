//! Compiling C against the library that cargo has just built, and running it.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Instant;
use std::{env, fs, io};

use super::PATIENCE;

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where programs go.
pub fn out() -> &'static Path {
    static OUT: OnceLock<PathBuf> = OnceLock::new();
    OUT.get_or_init(|| {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("c");
        fs::create_dir_all(&path).expect("cargo's folder for tests can be written");
        path
    })
}

pub fn include() -> String {
    format!("-I{}", root().join("include").display())
}

/// A library of this build. `cargo test` leaves it beside the test programs, and nowhere else.
pub fn library(name: &str) -> PathBuf {
    let dir = env::var_os("BRUIT_LIB_DIR").map(PathBuf::from).unwrap_or_else(|| {
        let this = env::current_exe().expect("a running program has a path");
        this.parent().expect("and is in a folder").to_owned()
    });
    let path = dir.join(name);
    assert!(path.exists(), "{} is missing: cargo builds it, or set BRUIT_LIB_DIR", path.display());
    path
}

/// A folder with the library under the names that programs look for.
pub fn linked() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let dir = out().join("lib");
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        for name in ["libbruit.so", "libbruit.so.0"] {
            symlink(library("libbruit.so"), dir.join(name)).unwrap();
        }
        dir
    })
}

/// $CC or $CXX, or the first of `names` that is here.
pub fn compiler(variable: &str, names: &[&str]) -> Option<String> {
    let found = compilers(variable, names).into_iter().next();
    if found.is_none() {
        say(&format!("no compiler ({variable}, {}): what needs it is not tested", names.join(", ")));
    }
    found
}

/// Every one of them that is here; names for one and the same count once.
pub fn compilers(variable: &str, names: &[&str]) -> Vec<String> {
    let mut found: Vec<(PathBuf, String)> = Vec::new();
    for name in env::var(variable).iter().map(String::as_str).chain(names.iter().copied()) {
        let Some(path) = which(name) else {
            if name.starts_with("clang") {
                say(&format!("{name} is not here: the headers are not compiled with it"));
            }
            continue;
        };
        let path = path.canonicalize().unwrap_or(path);
        if !found.iter().any(|(other, _)| *other == path) {
            found.push((path, name.to_owned()));
        }
    }
    found.into_iter().map(|(_, name)| name).collect()
}

pub fn has(program: &str) -> bool {
    which(program).is_some()
}

fn which(program: &str) -> Option<PathBuf> {
    let dirs = env::var_os("PATH")?;
    env::split_paths(&dirs).map(|dir| dir.join(program)).find(|path| path.is_file())
}

/// Past the test harness, which keeps to itself what a passing test prints.
pub fn say(text: &str) {
    let _ = writeln!(io::stderr(), "\nnote: {text}");
}

#[derive(Clone, Copy, PartialEq)]
pub enum Link {
    Shared,
    Static,
    Not,
}

/// What `rustc --print native-static-libs` names for Linux.
const NATIVE: &[&str] = &["-lgcc_s", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl", "-lc"];

pub fn compile(name: &str, sources: &[&str], link: Link, flags: &[&str]) -> PathBuf {
    let cc = compiler("CC", &["cc", "gcc", "clang"]).expect("a C compiler is needed");
    compile_with(&cc, name, sources, link, flags)
}

pub fn compile_with(compiler: &str, name: &str, sources: &[&str], link: Link, flags: &[&str]) -> PathBuf {
    let stem = Path::new(sources[0]).file_stem().unwrap().to_str().unwrap();
    let program = out().join(format!("{stem}-{name}"));
    let mut command = Command::new(compiler);
    command.current_dir(root()).args(["-g", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]);
    command.args(sources).arg(include()).arg("-o").arg(&program);
    match link {
        Link::Shared => {
            let dir = linked().display().to_string();
            command.args([format!("-L{dir}"), format!("-Wl,-rpath,{dir}"), "-lbruit".into(), "-pthread".into()]);
        }
        Link::Static => {
            command.arg(library("libbruit.a")).args(NATIVE);
        }
        Link::Not => {}
    }
    finish(command.args(flags)).passed();
    program
}

pub fn compile_suite(name: &str, link: Link, flags: &[&str]) -> PathBuf {
    let sources = [
        "main",
        "support",
        "null",
        "tokens",
        "config",
        "life",
        "cluster",
        "callbacks",
        "messages",
        "queries",
        "streams",
        "process",
    ];
    let sources = sources.map(|source| format!("tests/c/{source}.c"));
    let flags = [&["-std=c11", "-D_GNU_SOURCE"], flags].concat();
    compile(name, &sources.each_ref().map(String::as_str), link, &flags)
}

/// All tests of `tests/c` in one program, compiled once.
pub fn suite() -> &'static Path {
    static SUITE: OnceLock<PathBuf> = OnceLock::new();
    SUITE.get_or_init(|| compile_suite("suite", Link::Shared, &[]))
}

pub const SANITIZERS: &[&str] =
    &["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"];

/// Whether a program with them can be made and run.
pub fn has_sanitizers() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| {
        let source = out().join("empty.c");
        fs::write(&source, "int main(void) { return 0; }\n").unwrap();
        let program = out().join("empty");
        let cc = compiler("CC", &["cc", "gcc", "clang"]).expect("a C compiler is needed");
        let made = finish(Command::new(cc).arg(&source).arg("-o").arg(&program).args(SANITIZERS));
        made.ok && run(&program, &[]).ok
    })
}

/// One of `examples/c`, as its Makefile builds it, but with every warning an error.
pub fn example(file: &str) -> PathBuf {
    let source = format!("examples/c/{file}");
    if file.ends_with(".cpp") {
        let cxx = compiler("CXX", &["c++", "g++"]).expect("the caller has looked");
        compile_with(&cxx, &format!("for-{}", thread_name()), &[&source], Link::Shared, &["-std=c++17"])
    } else {
        compile(&format!("for-{}", thread_name()), &[&source], Link::Shared, &["-std=c11"])
    }
}

/// Tests run side by side: each compiles a program of its own.
fn thread_name() -> String {
    thread::current().name().unwrap_or("main").replace("::", "-")
}

/// What a program did.
#[derive(Debug)]
pub struct Done {
    pub ok: bool,
    pub stdout: String,
    pub stderr: String,
    // Read by Debug, where a test fails.
    #[allow(dead_code)]
    what: String,
}

impl Done {
    /// Its output.
    #[track_caller]
    pub fn passed(self) -> String {
        assert!(self.ok, "{self:#?}");
        self.stdout
    }
}

pub fn run(program: impl AsRef<OsStr>, args: &[&str]) -> Done {
    finish(Command::new(program).args(args).stdin(Stdio::null()))
}

fn finish(command: &mut Command) -> Done {
    let what = format!("{command:?}");
    match command.output() {
        Ok(output) => Done {
            ok: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            what: format!("{what}: {}", output.status),
        },
        Err(e) => panic!("{what}: {e}"),
    }
}

/// A program that is talked to while it runs.
pub struct Process {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    seen: String,
    daemon: Option<i32>,
}

impl Process {
    pub fn start(program: impl AsRef<OsStr>, args: &[&str]) -> Process {
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (sender, lines) = channel();
        let forward = |from: Box<dyn Read + Send>| {
            let sender = sender.clone();
            thread::spawn(move || {
                for line in BufReader::new(from).lines().map_while(Result::ok) {
                    let _ = sender.send(line);
                }
            });
        };
        forward(Box::new(child.stdout.take().unwrap()));
        forward(Box::new(child.stderr.take().unwrap()));
        let input = child.stdin.take();
        Process { child, input, lines, seen: String::new(), daemon: None }
    }

    /// Waits for a line with `text` in it; what follows the text.
    #[track_caller]
    pub fn line_after(&mut self, text: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    writeln!(self.seen, "{line}").unwrap();
                    if let Some((_, after)) = line.split_once(text) {
                        return after.to_owned();
                    }
                }
                Err(e) => panic!("no line with {text:?} ({e}) in\n{}", self.seen),
            }
        }
    }

    pub fn send(&mut self, text: &str) {
        self.input.as_mut().expect("its input has not ended").write_all(text.as_bytes()).unwrap();
    }

    pub fn end_input(&mut self) {
        self.input = None;
    }

    /// SIGTERM.
    pub fn terminate(&mut self) {
        // SAFETY: the process is ours and not waited for yet, so the number is not somebody else's.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) };
    }

    /// A daemon that came of it: killed with it, should the test fail.
    pub fn left_behind(&mut self, daemon: i32) {
        self.daemon = Some(daemon);
    }

    /// Waits until its output ends, and that of what it left behind; it must have succeeded.
    #[track_caller]
    pub fn passed(&mut self) {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => writeln!(self.seen, "{line}").unwrap(),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(e) => panic!("it does not end ({e}):\n{}", self.seen),
            }
        }
        self.daemon = None;
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}:\n{}", self.seen);
    }

    pub fn seen(&self) -> &str {
        &self.seen
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.input = None;
        if let Some(daemon) = self.daemon {
            // SAFETY: it has not closed its output yet, so it runs.
            unsafe { libc::kill(daemon, libc::SIGKILL) };
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
