//! One line of JSON for each work.

use std::process::ExitCode;

use crate::About;

/// Names and values in the order in which they were put.
#[derive(Debug, Default)]
pub struct Figures(Vec<(&'static str, Option<f64>)>);

impl Figures {
    pub fn put(&mut self, name: &'static str, value: impl Into<Option<f64>>) {
        self.0.push((name, value.into().filter(|value| value.is_finite())));
    }

    pub fn line(&self) -> String {
        let value = |value: &Option<f64>| value.map_or("null".to_owned(), |value| value.to_string());
        let pairs: Vec<String> = self.0.iter().map(|(name, v)| format!("{}: {}", quoted(name), value(v))).collect();
        format!("{{\"figures\": {{{}}}}}", pairs.join(", "))
    }
}

pub fn about(about: &About) -> String {
    let variants: Vec<String> =
        about.variants.iter().map(|(name, what)| format!("{}: {}", quoted(name), quoted(what))).collect();
    let texts: Vec<String> = [
        ("name", about.name),
        ("sealed", about.sealed),
        ("joined", about.joined),
        ("broadcast", about.broadcast),
        ("reliable", about.reliable),
        ("best_effort", about.best_effort),
        ("request", about.request),
    ]
    .iter()
    .map(|(key, text)| format!("{}: {}", quoted(key), quoted(text)))
    .collect();
    format!("{{{}, \"detects\": {}, \"variants\": {{{}}}}}", texts.join(", "), about.detects, variants.join(", "))
}

pub fn said(line: &str) -> ExitCode {
    println!("{line}");
    ExitCode::SUCCESS
}

pub fn failed(trouble: &str) -> ExitCode {
    println!("{{\"error\": {}}}", quoted(trouble));
    ExitCode::FAILURE
}

pub fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c < ' ' => quoted.push(' '),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
