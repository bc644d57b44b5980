//! `include/bruit.h` is what the sources say. `BRUIT_UPDATE=1 cargo test --test header` writes it anew.

use std::{env, fs, path::Path};

#[test]
fn the_header_is_that_of_the_sources() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/bruit.h");
    let made = fs::read_to_string(concat!(env!("OUT_DIR"), "/bruit.h")).expect("build.rs wrote it");
    if env::var_os("BRUIT_UPDATE").is_some() {
        fs::write(&path, &made).expect("include/bruit.h can be written");
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    let difference = kept.lines().zip(made.lines()).position(|(a, b)| a != b);
    assert!(
        kept == made,
        "include/bruit.h differs from ffi/, first in line {}: run BRUIT_UPDATE=1 cargo test --test header",
        difference.map_or(kept.lines().count().min(made.lines().count()) + 1, |line| line + 1)
    );
}
