//! Every tunable in one [table](table), and what makes a configuration valid.
//!
//! An option has a string key for files and other languages, and is a typed field for Rust. Values are text with
//! their unit (`200ms`, `64KiB`), are checked one by one when they are set and together by [`Config::validate`];
//! the engine relies on that and checks nothing again. `docs/CONFIGURATION.md` is made from the same rows.

mod table;
mod text;

pub use table::Config;

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;

use crate::error::{Code, Error, Result};
use table::{ACCESS, DESCS};

/// The port of `bind`, and of seeds that name none.
pub const DEFAULT_PORT: u16 = 18946;

/// Longest key of metadata, in bytes.
pub const META_KEY_MAX: usize = 255;

const _: () = assert!(DESCS.len() <= 128, "Config::explicit has a bit for each row");

/// What is known of one option.
#[derive(Clone, Copy, Debug)]
pub struct OptionDesc {
    pub key: &'static str,
    pub kind: OptionKind,
    /// `time`, `bytes`, `members`, …; empty where there is none.
    pub unit: &'static str,
    /// Default in each profile, as [`Config::get`] writes it.
    pub lan: &'static str,
    pub wan: &'static str,
    pub local: &'static str,
    /// What is accepted, for people.
    pub bounds: &'static str,
    /// May be changed while the node runs.
    pub live: bool,
    /// All values of a choice; empty for other kinds.
    pub choices: &'static [&'static str],
    /// Where the default comes from.
    pub source: &'static str,
    pub doc: &'static str,
    /// Heading in the documentation.
    pub group: &'static str,
}

impl OptionDesc {
    pub fn default(&self, profile: Profile) -> &'static str {
        match profile {
            Profile::Lan => self.lan,
            Profile::Wan => self.wan,
            Profile::Local => self.local,
        }
    }
}

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum OptionKind {
    Text = 1,
    /// `true`, `false`.
    Bool = 2,
    /// A whole number.
    Count = 3,
    /// Bytes: `1400B`, `64KiB`, `1MiB`, `1GiB`, or a plain number of bytes.
    Size = 4,
    /// `200ms`, `1.5s`, `2m`, `1h`; also `us` and `ns`. A plain number is refused, but for `0`.
    Duration = 5,
    /// A factor with at most three decimals: `1.5`.
    Ratio = 6,
    /// One of `OptionDesc::choices`.
    Choice = 7,
}

macro_rules! choices {
    ($($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal),+ } expected $expected:literal)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant),+ }

        impl text::Codec for $name {
            type Value = $name;
            const KIND: OptionKind = OptionKind::Choice;
            const EXPECTED: &'static str = $expected;
            const CHOICES: &'static [&'static str] = &[$($text),+];

            fn parse(text: &str) -> Option<$name> {
                match text {
                    $($text => Some($name::$variant),)+
                    _ => None,
                }
            }

            fn print(value: &$name) -> String {
                match value { $($name::$variant => $text),+ }.to_owned()
            }
        }
    )*};
}

choices! {
    /// A column of defaults.
    Profile {
        /// One data centre: round trips of a few milliseconds.
        Lan = "lan",
        /// Between places: round trips up to a second, loss.
        Wan = "wan",
        /// One machine: tests, worker processes.
        Local = "local"
    } expected "lan, wan or local"
    /// By what to send.
    Transport {
        Both = "both",
        Tcp = "tcp"
    } expected "both or tcp"
    /// Who calls the handlers.
    Dispatch {
        Thread = "thread",
        Manual = "manual"
    } expected "thread or manual"
    /// Whom a member knows.
    Membership {
        /// Everybody.
        Full = "full",
        /// Its neighbours in the overlay.
        Partial = "partial"
    } expected "full or partial"
    /// How broadcasts go on.
    Broadcast {
        /// Along a tree that they find.
        Tree = "tree",
        /// To some members by lot, a few times.
        Rumor = "rumor"
    } expected "tree or rumor"
    /// How the dead are found.
    Detector {
        /// Members probe one another.
        Swim = "swim",
        /// Members send heartbeats, and silence is judged by the intervals so far.
        Phi = "phi"
    } expected "swim or phi"
    /// Who is probed next.
    ProbeOrder {
        Permutation = "permutation",
        /// SWIM §4.3.
        Robin = "robin"
    } expected "permutation or robin"
    /// How the intervals between heartbeats are taken to be distributed.
    PhiModel {
        /// Heartbeats that come straight, at regular times.
        Normal = "normal",
        /// Heartbeats that others pass on when it falls to them.
        Exponential = "exponential"
    } expected "normal or exponential"
}

/// A factor in thousandths, because floating point differs between machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Milli(pub u32);

impl fmt::Display for Milli {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.0 / 1000, self.0 % 1000);
        match part {
            _ if part % 100 == 0 => write!(f, "{whole}.{}", part / 100),
            _ if part % 10 == 0 => write!(f, "{whole}.{:02}", part / 10),
            _ => write!(f, "{whole}.{part:03}"),
        }
    }
}

impl Default for Config {
    fn default() -> Config {
        Config::new()
    }
}

impl Config {
    /// All options, in the order of the documentation.
    pub fn descs() -> &'static [OptionDesc] {
        DESCS
    }

    /// Sets one option from text. `E_NOT_FOUND` for an unknown key; `E_INVALID`, or `E_ADDRESS` for an address, if the
    /// value is malformed or out of bounds. On failure nothing changed.
    ///
    /// A new `profile` brings its defaults to all options that still have those of the old one and were never set.
    pub fn set(&mut self, key: &str, value: &str) -> Result<()> {
        self.assign(key, value).map_err(unchanged)
    }

    /// The option's value as text that `set` accepts again. `E_NOT_FOUND` for an unknown key.
    pub fn get(&self, key: &str) -> Result<String> {
        Ok((ACCESS[row(key)?].get)(self))
    }

    /// A copy in which one option of a running node is changed: `E_STATE` unless it is live, otherwise as [`Config::set`]
    /// and [`Config::validate`]. `self` never changes.
    pub fn set_live(&self, key: &str, value: &str) -> Result<Config> {
        if !DESCS[row(key).map_err(unchanged)?].live {
            let text = format!("{key} cannot change while the node runs: set it before the start; nothing changed");
            return Err(Error::new(Code::State, text));
        }
        let mut changed = self.clone();
        changed.set(key, value)?;
        changed.validate().map_err(unchanged)?;
        Ok(changed)
    }

    /// Reads a configuration file's text: a `key = value` a line, where a value in double quotes is taken as it is, and
    /// `#` at the start of a line or after a blank begins a comment. Beside the options there may be any number of
    /// `seed = host[:port]`, `key = base64 or hex` and `meta.KEY = text`.
    ///
    /// Errors name the line. On failure nothing changed.
    pub fn load(&mut self, text: &str) -> Result<()> {
        let mut loaded = self.clone();
        for (number, line) in text.lines().enumerate() {
            loaded.load_line(line).map_err(|mut e| {
                e.text = format!("line {}: {}", number + 1, e.text);
                unchanged(e)
            })?;
        }
        *self = loaded;
        Ok(())
    }

    /// Adds somebody to contact first, `host[:port]`. `E_ADDRESS` where it is malformed; whether it exists is found
    /// out later, again and again.
    pub fn add_seed(&mut self, address: &str) -> Result<()> {
        contact(address).map_err(unchanged)?;
        if !self.seeds.iter().any(|seed| seed == address) {
            self.seeds.push(address.to_owned());
        }
        Ok(())
    }

    /// Adds a key of 32 bytes. The first one seals, all open; one that is there already keeps its place.
    /// `E_INVALID` for another length.
    pub fn add_key(&mut self, key: &[u8]) -> Result<()> {
        let Ok(key) = <[u8; 32]>::try_from(key) else {
            let text = format!("a key of {} bytes: expected 32; nothing changed", key.len());
            return Err(Error::new(Code::Invalid, text));
        };
        if !self.keys.contains(&key) {
            self.keys.push(key);
        }
        Ok(())
    }

    /// [`Config::add_key`] of a key in base64 (44 characters, as `openssl rand -base64 32` makes one) or hex (64).
    pub fn add_key_text(&mut self, text: &str) -> Result<()> {
        let Some(key) = text::key_bytes(text.trim()) else {
            let text = format!(
                "a key of {} characters: expected 32 bytes as base64 (44 characters) or hex (64); nothing changed",
                text.trim().len()
            );
            return Err(Error::new(Code::Invalid, text));
        };
        self.add_key(&key)
    }

    /// Sets a key of this node's metadata, or removes it. `E_INVALID` for a key that [`check_meta_key`] refuses; the
    /// total size is for [`Config::validate`].
    pub fn set_meta(&mut self, key: &str, value: Option<&[u8]>) -> Result<()> {
        check_meta_key(key).map_err(unchanged)?;
        self.meta.retain(|(k, _)| k != key);
        if let Some(value) = value {
            self.meta.push((key.to_owned(), value.to_owned()));
        }
        Ok(())
    }

    /// Whether a node can run with it: every option within its bounds, options that fit together, addresses that are
    /// well-formed, keys where they are needed. The error names what to change: `E_INVALID`, `E_ADDRESS`, `E_TOO_BIG`
    /// (metadata) or `E_AUTH`.
    pub fn validate(&self) -> Result<()> {
        let mut copy = Config::new();
        for row in ACCESS {
            (row.set)(&mut copy, &(row.get)(self))?;
        }

        self.at_most("probe_timeout_min", self.probe_timeout_min <= self.probe_timeout, "probe_timeout")?;
        if self.probe_timeout >= self.probe_interval {
            // Else the direct stage would end with the period, and nobody would ever be asked indirectly.
            return Err(self.disagree("probe_timeout", "less than", "probe_interval"));
        }
        if self.detector == Detector::Phi {
            for (key, time) in
                [("phi_first_interval", self.phi_first_interval), ("phi_max_interval", self.phi_max_interval)]
            {
                // Else every heartbeat would come later than it may.
                if !time.is_zero() && time < self.probe_interval {
                    return Err(self.disagree(key, "0, or at least", "probe_interval"));
                }
            }
        }
        if self.membership == Membership::Partial && self.detector == Detector::Phi {
            return Err(self.disagree("detector", "swim beside", "membership"));
        }
        self.at_most("seed_retry_min", self.seed_retry_min <= self.seed_retry_max, "seed_retry_max")?;
        self.at_most("gossip_flush", self.gossip_flush <= self.gossip_interval, "gossip_interval")?;
        self.at_most("app_version_min", self.app_version_min <= self.app_version, "app_version")?;
        if self.meta_inline > self.max_datagram / 2 {
            return Err(self.disagree("meta_inline", "at most half of", "max_datagram"));
        }

        for seed in &self.seeds {
            contact(seed)?;
        }
        for (key, _) in &self.meta {
            check_meta_key(key)?;
        }
        let total: usize = self.meta.iter().map(|(key, value)| key.len() + value.len()).sum();
        if total > self.meta_max {
            let text = format!("metadata of {total} bytes: expected at most meta_max = {} bytes", self.meta_max);
            return Err(Error::new(Code::TooBig, text));
        }
        if self.keys.is_empty() && !self.insecure_plaintext && !is_loopback(&self.bind) {
            let text = format!(
                "bind = {:?} can be reached from outside and there is no key: add one (32 random bytes, the same at all \
                 members), or bind to 127.0.0.1, or set insecure_plaintext = true",
                self.bind
            );
            return Err(Error::new(Code::Auth, text));
        }
        Ok(())
    }

    fn at_most(&self, small: &str, holds: bool, large: &str) -> Result<()> {
        if holds { Ok(()) } else { Err(self.disagree(small, "at most", large)) }
    }

    fn disagree(&self, key: &str, relation: &str, other: &str) -> Error {
        let value = |key| self.get(key).unwrap_or_default();
        let text = format!("{key} = {}: expected {relation} {other} = {}", value(key), value(other));
        Error::new(Code::Invalid, text)
    }

    fn assign(&mut self, key: &str, value: &str) -> Result<()> {
        let row = row(key)?;
        let old = self.profile;
        (ACCESS[row].set)(self, value)?;
        self.explicit |= 1 << row;
        if self.profile != old {
            self.follow_profile(old);
        }
        Ok(())
    }

    /// Fields that were written directly have no bit in `explicit`; they show by their value.
    fn follow_profile(&mut self, old: Profile) {
        for (row, (desc, access)) in DESCS.iter().zip(ACCESS).enumerate() {
            if self.explicit >> row & 1 == 0 && (access.get)(self) == desc.default(old) {
                (access.set)(self, desc.default(self.profile)).expect("a test reads every default");
            }
        }
    }

    fn load_line(&mut self, line: &str) -> Result<()> {
        let Some((key, value)) = assignment(line)? else { return Ok(()) };
        match key {
            "seed" => self.add_seed(value),
            "key" => self.add_key_text(value),
            _ => match key.strip_prefix("meta.") {
                Some(key) => self.set_meta(key, Some(value.as_bytes())),
                None => self.assign(key, value),
            },
        }
    }
}

impl fmt::Debug for Config {
    /// Keys show only their number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Config");
        for (desc, access) in DESCS.iter().zip(ACCESS) {
            out.field(desc.key, &format_args!("{}", (access.get)(self)));
        }
        let meta: Vec<(&str, usize)> = self.meta.iter().map(|(key, value)| (&**key, value.len())).collect();
        out.field("seeds", &self.seeds).field("keys", &self.keys.len()).field("meta", &meta).finish()
    }
}

/// Splits `host[:port]` of a seed or a member to join into host (an IPv6 address without its brackets) and port.
/// `E_ADDRESS` where it is neither.
pub fn contact(address: &str) -> Result<(&str, u16)> {
    text::split_host_port(address, Some(DEFAULT_PORT)).filter(|(_, port)| *port > 0).ok_or_else(|| {
        let expected = "expected host or host:port, such as node1.example:18946, 10.0.0.7 or [fd00::7]:18946";
        Error::new(Code::Address, format!("address {address:?}: {expected}"))
    })
}

/// Splits `host:port` of [`Config::bind`] or [`Config::advertise`]. `E_ADDRESS` where it is not that.
pub fn host_port(address: &str) -> Result<(&str, u16)> {
    text::split_host_port(address, None)
        .ok_or_else(|| Error::new(Code::Address, format!("address {address:?}: expected host:port")))
}

/// Keys of metadata have 1 to 255 bytes, no control characters, and no `=`, which parts key and value in a tag.
pub fn check_meta_key(key: &str) -> Result<()> {
    if is_meta_key(key) {
        return Ok(());
    }
    let text = format!("metadata key {key:?}: expected 1 to {META_KEY_MAX} bytes without '=' and control characters");
    Err(Error::new(Code::Invalid, text))
}

/// 1 to `META_KEY_MAX` bytes without '=' and control characters: what a tag query and a C string can name.
pub fn is_meta_key(key: &str) -> bool {
    (1..=META_KEY_MAX).contains(&key.len()) && !key.chars().any(|c| c.is_control() || c == '=')
}

/// Key and value of a `key = value` line, without comment and quotes; `None` where there is nothing in it.
pub(crate) fn assignment(line: &str) -> Result<Option<(&str, &str)>> {
    let malformed = |expected: &str| Err(Error::new(Code::Invalid, format!("expected {expected}")));
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    // Texts here quote nothing of the line: what is in the wrong place may be a key.
    let Some((key, rest)) = line.split_once('=') else { return malformed("key = value") };
    let (key, rest) = (key.trim_end(), rest.trim_start());
    let value = match rest.strip_prefix('"') {
        None => uncommented(rest),
        Some(quoted) => match quoted.split_once('"') {
            Some((value, after)) if uncommented(after).is_empty() => value,
            _ => return malformed("one value in double quotes, and after it at most a comment"),
        },
    };
    Ok(Some((key, value)))
}

/// Values of what is no option, in the options' notation and with their error texts.
#[cfg(feature = "sim")]
pub(crate) mod values {
    use super::text::{Bool, Codec, Count, Size, Time, nearest};
    use crate::error::Result;
    use crate::time::Duration;
    use alloc::format;
    use alloc::string::String;

    pub fn flag(key: &str, text: &str) -> Result<bool> {
        Bool::read(key, text, None)
    }

    pub fn count(key: &str, text: &str) -> Result<usize> {
        Count::read(key, text, None)
    }

    pub fn size(key: &str, text: &str) -> Result<usize> {
        Size::read(key, text, None)
    }

    pub fn duration(key: &str, text: &str) -> Result<Duration> {
        Time::read(key, text, None)
    }

    /// Ends an error text about a word that is none of `known`.
    pub fn hint<'a>(wrong: &str, known: impl Iterator<Item = &'a str>) -> String {
        nearest(wrong, known).map_or_else(String::new, |near| format!("; is {near:?} meant?"))
    }
}

fn is_loopback(bind: &str) -> bool {
    text::split_host_port(bind, None).is_some_and(|(host, _)| match host.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => host == "localhost",
    })
}

fn uncommented(text: &str) -> &str {
    let comment =
        text.char_indices().find(|&(at, c)| c == '#' && text[..at].chars().next_back().is_none_or(char::is_whitespace));
    comment.map_or(text, |(at, _)| &text[..at]).trim()
}

fn row(key: &str) -> Result<usize> {
    if let Some(row) = DESCS.iter().position(|desc| desc.key == key) {
        return Ok(row);
    }
    // What does not look like an option's key is not repeated: it may be a secret that lost its place.
    let plausible = key.len() <= 40 && key.bytes().all(|b| b.is_ascii_lowercase() || matches!(b, b'_' | b'-' | b'.'));
    let what = if plausible { format!("no option {key:?}") } else { "no such option".to_owned() };
    let hint = match key {
        "seed" | "seeds" => "; seeds are added, not set".to_owned(),
        "key" | "keys" => "; keys are added, not set".to_owned(),
        _ if key == "meta" || key.starts_with("meta.") => "; metadata has a call of its own".to_owned(),
        _ => match text::nearest(key, DESCS.iter().map(|desc| desc.key)) {
            Some(near) => format!("; is {near:?} meant?"),
            None => String::new(),
        },
    };
    Err(Error::new(Code::NotFound, what + &hint))
}

fn unchanged(mut e: Error) -> Error {
    if !e.text.ends_with("nothing changed") {
        e.text += "; nothing changed";
    }
    e
}

#[cfg(test)]
mod tests;
