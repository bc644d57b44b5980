//! Option values as text: `"200ms"`, `"64KiB"`, `"1.5"`, `"lan"`. What `print` writes, `parse` reads back exactly.

use alloc::format;
use alloc::string::{String, ToString};
use core::net::{Ipv4Addr, Ipv6Addr};

use super::{Milli, OptionKind};
use crate::error::{Code, Error, Result};
use crate::id::NodeName;
use crate::time::Duration;

/// How one kind of value is written. `range` of `read` is in the same notation.
pub(super) trait Codec {
    type Value;
    const KIND: OptionKind;
    const UNIT: &'static str = "";
    /// What a reader needs to know to write such a value; ends an error text.
    const EXPECTED: &'static str;
    /// Shown where the row gives no range.
    const BOUNDS: &'static str = Self::EXPECTED;
    const CHOICES: &'static [&'static str] = &[];
    const CODE: Code = Code::Invalid;

    fn parse(text: &str) -> Option<Self::Value>;
    fn print(value: &Self::Value) -> String;

    fn within(_value: &Self::Value, _low: &Self::Value, _high: &Self::Value) -> bool {
        true
    }

    fn read(key: &str, text: &str, range: Option<(&str, &str)>) -> Result<Self::Value> {
        let refuse = |expected: &str| Error::new(Self::CODE, format!("{key} = {text:?}: expected {expected}"));
        let value = Self::parse(text).ok_or_else(|| refuse(Self::EXPECTED))?;
        if let Some((low, high)) = range
            && let (Some(least), Some(most)) = (Self::parse(low), Self::parse(high))
            && !Self::within(&value, &least, &most)
        {
            return Err(refuse(&format!("{low} to {high}")));
        }
        Ok(value)
    }
}

macro_rules! ordered {
    () => {
        fn within(value: &Self::Value, low: &Self::Value, high: &Self::Value) -> bool {
            (low..=high).contains(&value)
        }
    };
}

pub(super) struct Bool;

impl Codec for Bool {
    type Value = bool;
    const KIND: OptionKind = OptionKind::Bool;
    const EXPECTED: &'static str = "true or false";
    const CHOICES: &'static [&'static str] = &["true", "false"];

    fn parse(text: &str) -> Option<bool> {
        text.parse().ok()
    }

    fn print(value: &bool) -> String {
        value.to_string()
    }
}

pub(super) struct Count;

impl Codec for Count {
    type Value = usize;
    const KIND: OptionKind = OptionKind::Count;
    const EXPECTED: &'static str = "a whole number";

    fn parse(text: &str) -> Option<usize> {
        usize::try_from(digits(text)?).ok()
    }

    fn print(value: &usize) -> String {
        value.to_string()
    }

    ordered!();
}

/// A number that goes over the wire in 32 bits.
pub(super) struct Number;

impl Codec for Number {
    type Value = u32;
    const KIND: OptionKind = OptionKind::Count;
    const EXPECTED: &'static str = "a whole number below 2^32";

    fn parse(text: &str) -> Option<u32> {
        u32::try_from(digits(text)?).ok()
    }

    fn print(value: &u32) -> String {
        value.to_string()
    }

    ordered!();
}

pub(super) struct Size;

const SIZES: &[(&str, u64)] = &[("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl Codec for Size {
    type Value = usize;
    const KIND: OptionKind = OptionKind::Size;
    const UNIT: &'static str = "bytes";
    const EXPECTED: &'static str = "a size such as 1400B, 64KiB or 1MiB";

    fn parse(text: &str) -> Option<usize> {
        match digits(text) {
            Some(bytes) => usize::try_from(bytes).ok(),
            None => usize::try_from(scaled(text, SIZES)?).ok(),
        }
    }

    fn print(value: &usize) -> String {
        in_largest_unit(*value as u64, SIZES)
    }

    ordered!();
}

/// Durations never come as plain numbers: one reader's seconds are another's milliseconds.
pub(super) struct Time;

const TIMES: &[(&str, u64)] = &[
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

impl Codec for Time {
    type Value = Duration;
    const KIND: OptionKind = OptionKind::Duration;
    const UNIT: &'static str = "time";
    const EXPECTED: &'static str = "a duration with its unit, such as 200ms, 1.5s, 2m or 1h";

    fn parse(text: &str) -> Option<Duration> {
        if text == "0" {
            return Some(Duration::ZERO);
        }
        scaled(text, TIMES).map(Duration::from_nanos)
    }

    fn print(value: &Duration) -> String {
        in_largest_unit(crate::time::nanos(*value), TIMES)
    }

    ordered!();
}

pub(super) struct Ratio;

impl Codec for Ratio {
    type Value = Milli;
    const KIND: OptionKind = OptionKind::Ratio;
    const EXPECTED: &'static str = "a factor with at most three decimals, such as 1.5";

    fn parse(text: &str) -> Option<Milli> {
        u32::try_from(decimal(text, 1000)?).ok().map(Milli)
    }

    fn print(value: &Milli) -> String {
        value.to_string()
    }

    ordered!();
}

/// Node name; empty: the runtime makes one.
pub(super) struct Name;

impl Codec for Name {
    type Value = String;
    const KIND: OptionKind = OptionKind::Text;
    const EXPECTED: &'static str = "at most 255 bytes without control characters";

    fn parse(text: &str) -> Option<String> {
        (text.is_empty() || NodeName::is_valid(text)).then(|| text.into())
    }

    fn print(value: &String) -> String {
        value.clone()
    }
}

/// Address to listen at; port 0: any that is free.
pub(super) struct Listen;

impl Codec for Listen {
    type Value = String;
    const KIND: OptionKind = OptionKind::Text;
    const EXPECTED: &'static str = "host:port, such as 0.0.0.0:18946 or [::]:18946";
    const CODE: Code = Code::Address;

    fn parse(text: &str) -> Option<String> {
        split_host_port(text, None).map(|_| text.into())
    }

    fn print(value: &String) -> String {
        value.clone()
    }
}

/// Address that others are told; empty: found out.
pub(super) struct Advertised;

impl Codec for Advertised {
    type Value = String;
    const KIND: OptionKind = OptionKind::Text;
    const EXPECTED: &'static str = "host:port with a port above 0, such as 203.0.113.7:18946, or nothing";
    const CODE: Code = Code::Address;

    fn parse(text: &str) -> Option<String> {
        (text.is_empty() || split_host_port(text, None).is_some_and(|(_, port)| port > 0)).then(|| text.into())
    }

    fn print(value: &String) -> String {
        value.clone()
    }
}

/// `host:port`, `[v6]:port` and, where there is a default port, `host` and `[v6]`. The host comes back without brackets.
pub(super) fn split_host_port(text: &str, default_port: Option<u16>) -> Option<(&str, u16)> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        let (address, zone) = host.split_once('%').unwrap_or((host, "0"));
        address.parse::<Ipv6Addr>().ok()?;
        if zone.is_empty() || !zone.bytes().all(is_host_byte) {
            return None;
        }
        (host, if after.is_empty() { None } else { Some(after.strip_prefix(':')?) })
    } else {
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        };
        if !is_host(host) {
            return None;
        }
        (host, port)
    };
    match port {
        Some(port) => Some((host, u16::try_from(digits(port)?).ok()?)),
        None => Some((host, default_port?)),
    }
}

/// An IPv4 address or a host name; underscores are allowed because container names have them.
fn is_host(host: &str) -> bool {
    let numeric = host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    match numeric {
        true => host.parse::<Ipv4Addr>().is_ok(),
        false => host.len() <= 253 && !host.starts_with('.') && !host.contains("..") && host.bytes().all(is_host_byte),
    }
}

fn is_host_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')
}

/// A key as people pass it around: base64 (44 characters) or hex (64). `None` says only that it is neither: a key
/// must not find its way into an error text.
pub(super) fn key_bytes(text: &str) -> Option<[u8; 32]> {
    let mut key = [0; 32];
    match text.len() {
        64 => {
            for (byte, pair) in key.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
                let digit = |b: u8| char::from(b).to_digit(16);
                *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
            }
        }
        44 => {
            let text = text.strip_suffix('=')?.as_bytes();
            let (mut bits, mut count, mut at) = (0u32, 0, 0);
            for &b in text {
                bits = bits << 6 | u32::from(sextet(b)?);
                count += 6;
                if count >= 8 {
                    count -= 8;
                    key[at] = (bits >> count) as u8;
                    at += 1;
                    bits &= (1 << count) - 1;
                }
            }
            if bits != 0 {
                return None;
            }
        }
        _ => return None,
    }
    Some(key)
}

fn sextet(b: u8) -> Option<u8> {
    Some(match b {
        b'A'..=b'Z' => b - b'A',
        b'a'..=b'z' => b - b'a' + 26,
        b'0'..=b'9' => b - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    })
}

fn digits(text: &str) -> Option<u64> {
    match !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        true => text.parse().ok(),
        false => None,
    }
}

/// `12`, `1.5`: as a multiple of `1 / scale`; `None` where that is not whole or does not fit.
fn decimal(text: &str, scale: u64) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let whole = digits(whole)?.checked_mul(scale)?;
    let tenths = 10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let part = u128::from(digits(fraction)?).checked_mul(u128::from(scale))?;
    if part % tenths != 0 {
        return None;
    }
    whole.checked_add(u64::try_from(part / tenths).ok()?)
}

fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(unit_at);
    let (_, scale) = units.iter().find(|(name, _)| *name == unit)?;
    decimal(number, *scale)
}

fn in_largest_unit(value: u64, units: &[(&str, u64)]) -> String {
    match units.iter().find(|(_, scale)| value.is_multiple_of(*scale)) {
        Some((name, scale)) if value > 0 => format!("{}{name}", value / scale),
        _ => value.to_string(),
    }
}

/// The option that was probably meant.
pub(super) fn nearest<'a>(wrong: &str, keys: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let wrong = wrong.to_ascii_lowercase().replace('-', "_");
    if wrong.len() > 40 {
        return None;
    }
    keys.map(|key| (edits(&wrong, key), key))
        .min()
        .filter(|(edits, key)| *edits <= key.len().min(wrong.len()) / 3 + 1)
        .map(|(_, key)| key)
}

/// Levenshtein's distance.
fn edits(a: &str, b: &str) -> usize {
    let mut row: alloc::vec::Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let change = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
