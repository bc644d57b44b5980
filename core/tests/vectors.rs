//! The bytes of every frame, as other versions of bruit read them. They freeze at the first release.
//!
//! `BRUIT_UPDATE=1 cargo test -p bruit-core --test vectors` writes them anew; until the release that is a change of
//! the protocol's version, and afterwards it must not happen.

mod samples;

use bruit_core::wire::frame::Frames;
use samples::{KINDS, Stock, encoded, kind};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/frames.txt");

const HEAD: &str = "# Frames and their bytes: name, what it says, hex. Checked and written by core/tests/vectors.rs.\n";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).expect("hex")).collect()
}

/// What is kept, written anew first where that is wanted.
fn kept(now: &str) -> String {
    static WRITTEN: std::sync::Once = std::sync::Once::new();
    if std::env::var_os("BRUIT_UPDATE").is_some() {
        WRITTEN.call_once(|| std::fs::write(FILE, now).expect("the vectors can be written"));
    }
    std::fs::read_to_string(FILE).expect("the vectors are there")
}

fn written(stock: &Stock) -> String {
    let paragraph = |(name, frame)| format!("\n{name}\n{frame}\n{}\n", hex(&encoded(&frame)));
    HEAD.to_owned() + &stock.frames().into_iter().map(paragraph).collect::<String>()
}

#[test]
fn every_frame_has_the_bytes_that_it_always_had() {
    let now = written(&Stock::new());
    let kept = kept(&now);
    for (kept, now) in kept.split("\n\n").zip(now.split("\n\n")) {
        assert_eq!(kept, now);
    }
    assert_eq!(kept, now);
}

#[test]
fn the_kept_bytes_read_as_the_same_frames() {
    let stock = Stock::new();
    let (kept, frames) = (kept(&written(&stock)), stock.frames());
    let paragraphs: Vec<&str> = kept.split("\n\n").skip(1).collect();
    assert_eq!(paragraphs.len(), frames.len());
    for (paragraph, (name, frame)) in paragraphs.iter().zip(&frames) {
        let bytes = unhex(paragraph.trim_end().lines().last().expect("a line of hex"));
        assert!(Frames::parse(&bytes).expect("well formed").eq([*frame]), "{name}");
    }
}

#[test]
fn every_kind_has_a_vector() {
    let stock = Stock::new();
    let mut seen = [false; KINDS];
    stock.frames().iter().for_each(|(_, frame)| seen[kind(frame)] = true);
    assert_eq!(seen, [true; KINDS]);
}
