//! Writes the C header to `OUT_DIR` (never into the source tree: `tests/header.rs` compares it with
//! `include/bruit.h` and rewrites that on request), and names the shared library.

use std::path::PathBuf;
use std::{env, fs};

/// Raised together with the SONAME when a release breaks the ABI; see `docs/ABI.md`.
const SONAME: &str = "libbruit.so.0";

fn main() {
    for path in ["build.rs", "ffi", "Cargo.toml"] {
        println!("cargo::rerun-if-changed={path}");
    }
    write_header();
    name_the_library();
}

fn write_header() {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets it"));
    let mut config = cbindgen::Config::from_file(root.join("ffi/cbindgen.toml")).expect("ffi/cbindgen.toml is valid");
    let number = |part: &str| env::var(format!("CARGO_PKG_VERSION_{part}")).expect("cargo sets it");
    let (major, minor, patch) = (number("MAJOR"), number("MINOR"), number("PATCH"));
    config.after_includes = Some(format!(
        "\n/** The version that this header belongs to; bruit_version() tells that of the library. */\n\
         #define BRUIT_VERSION_MAJOR {major}\n\
         #define BRUIT_VERSION_MINOR {minor}\n\
         #define BRUIT_VERSION_PATCH {patch}\n\
         #define BRUIT_VERSION \"{major}.{minor}.{patch}\"\n\
         /** For comparisons: `#if BRUIT_VERSION_NUM >= 0x000200` is \"0.2.0 or later\". */\n\
         #define BRUIT_VERSION_NUM ((BRUIT_VERSION_MAJOR << 16) | (BRUIT_VERSION_MINOR << 8) | BRUIT_VERSION_PATCH)"
    ));
    // `with_src` follows `mod` lines and needs no `cargo metadata`, so it works from a packaged crate and offline.
    let bindings = cbindgen::Builder::new().with_config(config).with_src(root.join("ffi/lib.rs")).generate();
    let mut header = Vec::new();
    bindings.expect("the header can be generated from ffi/lib.rs").write(&mut header);
    let header = String::from_utf8(header).expect("cbindgen writes UTF-8");
    fs::write(out.join("bruit.h"), tidy(&header)).expect("OUT_DIR can be written");
}

/// Comments of one line on one line, negative numbers in parentheses, and types by the names that the comments use, for
/// which cbindgen has no settings.
fn tidy(header: &str) -> String {
    let lines: Vec<&str> = header.lines().collect();
    let mut tidied = String::new();
    let mut at = 0;
    while at < lines.len() {
        let line = lines[at];
        let comment = match &lines[at..] {
            [open, text, close, ..] if open.trim() == "/**" && close.trim() == "*/" => text.trim().strip_prefix("* "),
            _ => None,
        };
        if let Some(text) = comment {
            let indent = &line[..line.len() - line.trim_start().len()];
            tidied += &format!("{indent}/** {text} */\n");
            at += 3;
            continue;
        }
        match line.strip_prefix("#define ").and_then(|define| define.split_once(" -")) {
            Some((name, number)) => tidied += &format!("#define {name} (-{number})\n"),
            None if line.starts_with("typedef struct") => tidied += &format!("{line}\n"),
            None => tidied += &format!("{}\n", line.replace("struct bruit_", "bruit_")),
        }
        at += 1;
    }
    tidied
}

fn name_the_library() {
    if env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux" || os == "android") {
        // cargo-c names the library itself.
        if env::var_os("CARGO_FEATURE_CAPI").is_none() {
            println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,{SONAME}");
        }
        // Its threads and thread-local destructors run code of the library: unloading it would pull that from under them.
        println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    }
}
