//! The C and C++ side: header, symbols, layout, behaviour, examples. Compiles with $CC and $CXX (cc, c++) against the library that
//! this build made, or against $BRUIT_LIB_DIR (libbruit.so, libbruit.a).
//!
//! The tests themselves are in `tests/c`: one program, of which each test here runs a part. What it takes for a test and is not
//! installed is said on stderr, past the test harness, and in CI all of it is installed.

#[path = "support/c.rs"]
mod c;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use c::{Process, compiler, library, root, run, say};

macro_rules! suite {
    ($($name:ident)*) => {
        $(#[test] fn $name() { silent(run(c::suite(), &[stringify!($name)])); })*

        const SUITE: &[&str] = &[$(stringify!($name)),*];
    };
}

suite! {
    null_pointers tokens racing_free tables options option_files adopted_sockets
    life rounds stopped_waits exit_while_running waiting statistics
    cluster_threads cluster_manual cluster_pull metadata snapshots deaths keys refused unheard overflow
    calls_in_callbacks release_in_callback user_data subscriptions one_dispatcher logging shared_runtime
    messages broadcasts neighbours validation requests pulled_messages queries streams
    forked_child daemons manners
}

#[test]
fn every_test_of_the_suite_is_run() {
    let listed = run(c::suite(), &["--list"]).passed();
    let listed: BTreeSet<&str> = listed.lines().collect();
    assert_eq!(listed, SUITE.iter().copied().collect());
}

/// A test says nothing unless it fails; so what is said, the library said.
fn silent(done: c::Done) {
    assert!(done.ok && done.stdout.is_empty() && done.stderr.is_empty(), "{done:?}");
}

#[test]
fn the_header_compiles_in_every_dialect_without_a_warning() {
    for cc in c::compilers("CC", &["cc", "gcc", "clang"]) {
        let pointers = if cc.contains("clang") { "-Wstrict-prototypes" } else { "-Wc++-compat" };
        for standard in ["c99", "c11", "c17"] {
            compiles(&cc, &format!("-x c -std={standard} {pointers}"), "include/bruit.h");
        }
        compiles(&cc, "-std=c11", "tests/c/abi_layout.c");
    }
    let all_cxx = c::compilers("CXX", &["c++", "g++", "clang++"]);
    if all_cxx.is_empty() {
        say("there is no C++ compiler: the headers are not compiled as C++");
    }
    for cxx in all_cxx {
        for standard in ["c++11", "c++14", "c++17", "c++20"] {
            compiles(&cxx, &format!("-x c++ -std={standard}"), "include/bruit.h");
            compiles(&cxx, &format!("-x c++ -std={standard}"), "tests/c/abi_layout.c");
        }
        for standard in ["c++17", "c++20"] {
            compiles(&cxx, &format!("-x c++ -std={standard}"), "include/bruit.hpp");
        }
    }
}

fn compiles(compiler: &str, flags: &str, file: &str) {
    let strict = "-Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror -fsyntax-only";
    let (include, file) = (c::include(), root().join(file));
    let flags = flags.split(' ').chain(strict.split(' '));
    let args: Vec<&str> = flags.chain([&*include, file.to_str().unwrap()]).collect();
    run(compiler, &args).passed();
}

#[test]
fn every_name_in_the_header_has_the_prefix() {
    let header = header();
    for line in header.lines().filter_map(|line| line.strip_prefix("#define ")) {
        assert!(line.starts_with("BRUIT_"), "#define {line}");
    }
    let declared = declarations(&header);
    assert!(declared.len() > 60, "{declared:?}");
    for name in declared {
        assert!(name.starts_with("bruit_"), "{name}");
    }
}

/// Says so where a program that a test takes is not here.
fn lacks(program: &str, untested: &str) -> bool {
    let lacks = !c::has(program);
    if lacks {
        say(&format!("{program} is not here: {untested}"));
    }
    lacks
}

/// `BRUIT_UPDATE=1` rewrites the list. A name that goes is a broken ABI: see docs/ABI.md.
#[test]
fn exactly_the_listed_symbols_are_exported() {
    if lacks("nm", "the names that the library exports are not compared with tests/abi/symbols.txt") {
        return;
    }
    let list = root().join("tests/abi/symbols.txt");
    let table = run("nm", &["--dynamic", "--defined-only", library("libbruit.so").to_str().unwrap()]).passed();
    let exported: BTreeSet<&str> = table.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
    if std::env::var_os("BRUIT_UPDATE").is_some() {
        let text: String = exported.iter().map(|name| format!("{name}\n")).collect();
        fs::write(&list, text).unwrap();
    }
    let listed = fs::read_to_string(&list).unwrap();
    assert_eq!(exported, listed.lines().collect());
    let header = header();
    let functions = functions(&header);
    assert_eq!(exported, functions.keys().copied().collect(), "the header and the library disagree");
}

#[test]
fn every_pointer_of_every_function_is_tested_with_null() {
    let header = header();
    let tests = fs::read_to_string(root().join("tests/c/null.c")).unwrap();
    let rows: Vec<(&str, Vec<&str>)> = tests.lines().filter_map(row).collect();
    for (name, parameters) in functions(&header) {
        for (at, parameter) in parameters.trim_end_matches(')').split(',').map(str::trim).enumerate() {
            // User data is anything, and a function that frees it may be missing: neither has to be tried.
            let is_pointer = parameter.contains('*') && !parameter.contains("*user");
            let is_callback =
                ["bruit_event_fn", "bruit_log_fn", "bruit_message_fn", "bruit_reply_fn", "bruit_stream_fn"]
                    .iter()
                    .any(|callback| parameter.contains(callback));
            let tried = rows.iter().any(|(call, arguments)| *call == name && arguments.get(at) == Some(&"NULL"));
            assert!(
                !(is_pointer || is_callback) || tried,
                "no row of tests/c/null.c has NULL for {parameter} of {name}"
            );
        }
    }
}

/// `    ROW(bruit_f(a, NULL), …);` and its like, or a call alone: the function and its arguments.
fn row(line: &str) -> Option<(&str, Vec<&str>)> {
    let line = line.strip_prefix("    ")?;
    let call = ["ROW(", "NONE(", "OK(", "EQ("].iter().find_map(|kind| line.strip_prefix(kind)).unwrap_or(line);
    let (name, rest) = call.split_once('(').filter(|(name, _)| name.starts_with("bruit_"))?;
    let (arguments, _) = rest.split_once(')')?;
    Some((name, arguments.split(',').map(str::trim).collect()))
}

#[test]
fn the_shared_library_has_its_name_and_stays_loaded() {
    if lacks("readelf", "the shared library's own name and what it needs are not looked at") {
        return;
    }
    let dynamic = run("readelf", &["--dynamic", "--wide", library("libbruit.so").to_str().unwrap()]).passed();
    assert!(dynamic.contains("Library soname: [libbruit.so.0]"), "{dynamic}");
    assert!(dynamic.contains("NODELETE"), "{dynamic}");
    for needed in dynamic.lines().filter(|line| line.contains("(NEEDED)")) {
        let name = needed.split(['[', ']']).nth(1).unwrap();
        let common = ["libc.so", "libgcc_s.so", "libm.so", "ld-linux", "ld-musl", "libpthread.so"];
        assert!(common.iter().any(|prefix| name.starts_with(prefix)), "needs {name}");
    }
}

#[test]
fn a_plugin_can_load_and_close_it_while_it_runs() {
    let program = c::compile("unload", &["tests/c/unload.c"], c::Link::Not, &["-std=c11", "-ldl"]);
    silent(run(program, &[c::linked().join("libbruit.so.0").to_str().unwrap()]));
}

#[test]
fn the_static_library_links_and_works() {
    let program = c::compile_suite("suite-static", c::Link::Static, &[]);
    if !lacks("readelf", "that the static library is really used is not looked at") {
        let dynamic = run("readelf", &["--dynamic", program.to_str().unwrap()]).passed();
        assert!(!dynamic.contains("libbruit"), "{dynamic}");
    }
    for name in ["options", "cluster_manual", "forked_child"] {
        silent(run(&program, &[name]));
    }
}

#[test]
fn the_cxx_wrapper_works() {
    if let Some(cxx) = compiler("CXX", &["c++", "g++"]) {
        for standard in ["c++17", "c++20"] {
            let program = c::compile_with(
                &cxx,
                standard,
                &["tests/c/wrapper.cpp"],
                c::Link::Shared,
                &[&*format!("-std={standard}")],
            );
            silent(run(program, &[]));
        }
    }
}

/// Definite leaks and invalid accesses, of the C side and of ours.
#[test]
fn valgrind_finds_nothing() {
    if lacks("valgrind", "the C tests are not run under it") {
        return;
    }
    // To files: what it has to say of itself is no output of ours.
    let log = c::out().join("valgrind.log");
    let suite = c::suite();
    for name in SUITE {
        // About memory, or the process itself, which are valgrind's there.
        if ["rounds", "forked_child", "daemons", "manners", "unheard"].contains(name) {
            continue;
        }
        let log_file = format!("--log-file={}", log.display());
        let options = "--quiet --error-exitcode=9 --leak-check=full --errors-for-leak-kinds=definite \
                       --show-leak-kinds=definite --fair-sched=yes";
        let options = options.split(' ').chain([&*log_file, suite.to_str().unwrap(), name, "--few"]);
        let done = run("valgrind", &options.collect::<Vec<_>>());
        let complaints = fs::read_to_string(&log).unwrap();
        assert!(done.ok, "{complaints}\n{done:#?}");
        silent(done);
    }
}

/// The C side is instrumented; malloc and free of ours are watched, too, leaks included.
#[test]
fn address_and_undefined_behaviour_sanitizers_find_nothing() {
    if !c::has_sanitizers() {
        return say("this compiler has no sanitizers: the C tests are not run with them");
    }
    let suite = c::compile_suite("suite-asan", c::Link::Shared, c::SANITIZERS);
    for name in SUITE {
        // Its memory limit is about ours, not the sanitizer's.
        if *name != "rounds" {
            silent(run(&suite, &[name]));
        }
    }
}

#[test]
fn sanitizers_find_nothing_in_the_cxx_wrapper() {
    let Some(cxx) = compiler("CXX", &["c++", "g++"]) else { return };
    if !c::has_sanitizers() {
        return say("this compiler has no sanitizers: the C++ wrapper is not run with them");
    }
    let flags = [&["-std=c++17"], c::SANITIZERS].concat();
    silent(run(c::compile_with(&cxx, "asan", &["tests/c/wrapper.cpp"], c::Link::Shared, &flags), &[]));
}

#[test]
fn example_hello() {
    let hello = c::example("hello.c");
    let mut first = Process::start(&hello, &["first", "127.0.0.1:0"]);
    let address = first.line_after("first is at ");
    let mut second = Process::start(&hello, &["second", "127.0.0.1:0", &address]);
    second.line_after("1 of 1 answered");
    second.line_after("  first ");
    second.end_input();
    second.passed();
    first.end_input();
    first.passed();
    let failed = run(&hello, &["a", "not an address"]);
    assert!(!failed.ok && failed.stderr.contains("E_ADDRESS"), "{failed:?}");
}

#[test]
fn example_epoll_service() {
    let service = c::example("epoll_service.c");
    let file = |name: &str, seed: &str| {
        let path = c::out().join(format!("{name}.conf"));
        let key = "key = 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
        fs::write(&path, format!("profile = local\nname = {name}\nbind = 127.0.0.1:0\n{key}\n{seed}")).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let mut first = Process::start(&service, &["--foreground", &file("one", "")]);
    let at = first.line_after("at ");
    let seed = format!("seed = {}\n", at.split(',').next().unwrap());

    // This one becomes a daemon: what was started ends at once, its output goes on.
    let mut daemon = Process::start(&service, &["--until", "3", &file("two", &seed)]);
    let pid = daemon.line_after(", process ");
    daemon.left_behind(pid.parse().unwrap());
    let mut third = Process::start(&service, &["--foreground", &file("three", &seed)]);
    daemon.passed();
    first.line_after("LEFT two");
    for process in [&mut first, &mut third] {
        process.terminate();
        process.passed();
    }
    // Not of the second: it may be gone before the third hears of it.
    assert!(third.seen().contains("JOIN one"), "{}", third.seen());

    let broken = c::out().join("broken.conf");
    fs::write(&broken, "name = a\nprobe_interval = often\n").unwrap();
    let failed = run(&service, &[broken.to_str().unwrap()]);
    assert!(!failed.ok && failed.stderr.contains("line 2"), "{failed:?}");
}

#[test]
fn example_thread_callbacks() {
    let program = c::example("thread_callbacks.c");
    let mut first = Process::start(&program, &["first", "127.0.0.1:0"]);
    let address = first.line_after("first is at ");
    let mut second = Process::start(&program, &["second", "127.0.0.1:0", &address]);
    second.line_after("second is at ");
    first.send("wait 2\n");
    first.line_after("2 are here");
    second.send("set role db\n");
    first.line_after("UPDATE second db");
    first.send("with role=db\n");
    first.line_after("1 with role=db");
    second.send("quit\n");
    second.passed();
    first.line_after("LEFT second");
    first.end_input();
    first.passed();
}

#[test]
fn example_watch() {
    if compiler("CXX", &["c++", "g++"]).is_none() {
        return;
    }
    let mut watch = Process::start(c::example("watch.cpp"), &["127.0.0.1:0"]);
    let address = watch.line_after(" is at ");
    let mut hello = Process::start(c::example("hello.c"), &["guest", "127.0.0.1:0", &address]);
    watch.line_after("JOIN guest ");
    hello.end_input();
    hello.passed();
    watch.line_after("LEFT guest ");
    watch.end_input();
    watch.line_after("  guest LEFT");
    watch.passed();
}

#[test]
fn example_chat() {
    if compiler("CXX", &["c++", "g++"]).is_none() {
        return;
    }
    let program = c::example("chat.cpp");
    let mut ann = Process::start(&program, &["ann", "127.0.0.1:0"]);
    let address = ann.line_after("ann is at ");
    let mut ben = Process::start(&program, &["ben", "127.0.0.1:0", &address]);
    ben.line_after("* ann is here");
    ann.line_after("* ben is here");
    ben.send("good morning\n");
    ann.line_after("ben: good morning");
    ann.send("@ben hello\n");
    ben.line_after("ann: hello");
    ann.send("@carl hello\n");
    ann.line_after("* no member is called");
    ben.send("?\n");
    ben.line_after("* 1 of 1 say that they are here");
    ben.end_input();
    ben.passed();
    ann.line_after("* ben is gone");
    ann.end_input();
    ann.passed();
}

#[test]
fn example_request_reply() {
    let program = c::example("request_reply.c");
    let mut store = Process::start(&program, &["store", "127.0.0.1:0"]);
    let address = store.line_after("store is at ");
    let ask = |topic, text| run(&program, &["ask", &address, topic, text]);
    assert_eq!(ask("set", "color=blue").passed().trim(), "ok");
    assert_eq!(ask("get", "color").passed().trim(), "blue");
    for (topic, text, why) in [
        ("get", "size", "E_NOT_FOUND: no such key"),
        ("set", "nothing", "E_INVALID: expected key=value"),
        ("drop", "color", "E_NO_HANDLER"),
    ] {
        let refused = ask(topic, text);
        assert!(!refused.ok && refused.stderr.contains(why), "{refused:?}");
    }
    store.end_input();
    store.passed();
}

#[test]
fn every_example_has_its_test() {
    let tests = include_str!("c.rs");
    for entry in fs::read_dir(root().join("examples/c")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".c") || name.ends_with(".cpp") {
            assert!(tests.contains(&format!("c::example({name:?})")), "{name}");
        }
    }
}

/// The header without comments and without what only C++ sees.
fn header() -> String {
    let text = fs::read_to_string(root().join("include/bruit.h")).unwrap();
    let mut bare = String::new();
    let mut rest = &*text;
    while let Some((before, after)) = rest.split_once("/*") {
        bare += before;
        rest = after.split_once("*/").expect("comments end").1;
    }
    bare += rest;
    let (mut kept, mut cxx) = (String::new(), false);
    for line in bare.lines() {
        cxx |= line.starts_with("#ifdef __cplusplus");
        if !cxx {
            kept += &format!("{line}\n");
        }
        cxx &= !line.starts_with("#endif");
    }
    kept
}

/// Names that the header declares: functions, types and tags.
fn declarations(header: &str) -> Vec<&str> {
    let code = header.lines().filter(|line| !line.starts_with('#'));
    let mut names = Vec::new();
    let mut depth = 0;
    let known = ["typedef", "struct", "const", "void", "int", "char", "uint32_t", "uint64_t", "size_t", "unsigned"];
    for line in code {
        let mut start = None;
        for (at, byte) in line.bytes().chain(std::iter::once(b' ')).enumerate() {
            if byte.is_ascii_alphanumeric() || byte == b'_' {
                start.get_or_insert(at);
                continue;
            }
            if let Some(word) = start.take().map(|from| &line[from..at])
                && depth == 0
                && !known.contains(&word)
            {
                names.push(word);
            }
            match byte {
                b'(' | b'{' => depth += 1,
                b')' | b'}' => depth -= 1,
                _ => {}
            }
        }
    }
    names
}

/// Functions and their parameters.
fn functions(header: &str) -> BTreeMap<&str, &str> {
    let statements = header.split(';');
    statements
        .filter(|statement| !statement.contains("typedef") && !statement.contains('{'))
        .filter_map(|statement| {
            let (before, parameters) = statement.split_once('(')?;
            let name = before.rsplit([' ', '*', '\n']).next()?;
            name.starts_with("bruit_").then_some((name, parameters))
        })
        .collect()
}

/// A program of ours that has not answered by then has failed.
const PATIENCE: Duration = Duration::from_secs(120);
