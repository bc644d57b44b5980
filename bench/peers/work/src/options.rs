//! `name=value` words of the command line.

/// How large, how long, and between which processes.
#[derive(Clone, Debug)]
pub struct Options {
    pub nodes: usize,
    pub bytes: usize,
    pub seconds: f64,
    /// Before anything is measured.
    pub settle: f64,
    /// Of [`detect`](crate::works::detect): members that are killed, one after the other.
    pub trials: usize,
    pub messages: u64,
    pub reliable: bool,
    /// Of `member`: through whom it joins.
    pub seed: Option<String>,
    pub name: String,
    pub variant: String,
}

impl Options {
    pub fn parse(words: impl Iterator<Item = String>) -> Result<Options, String> {
        let mut options = Options {
            nodes: 10,
            bytes: 256,
            seconds: 3.0,
            settle: 1.0,
            trials: 1,
            messages: 100_000,
            reliable: true,
            seed: None,
            name: "n0".into(),
            variant: String::new(),
        };
        for word in words {
            let (key, value) = word.split_once('=').ok_or_else(|| format!("{word:?} is not of the form name=value"))?;
            match key {
                "nodes" => options.nodes = number(key, value)?,
                "bytes" => options.bytes = number(key, value)?,
                "seconds" => options.seconds = number(key, value)?,
                "settle" => options.settle = number(key, value)?,
                "trials" => options.trials = number(key, value)?,
                "messages" => options.messages = number(key, value)?,
                "reliable" => options.reliable = number(key, value)?,
                "seed" => options.seed = Some(value.to_owned()),
                "name" => options.name = value.to_owned(),
                "variant" => options.variant = value.to_owned(),
                _ => return Err(format!("no option is called {key:?}")),
            }
        }
        Ok(options)
    }
}

fn number<T: std::str::FromStr>(key: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{key}={value}: not understood"))
}
