//! A [`Scenario`] as text, the same for files, the shell and Python.
//!
//! ```text
//! title = three of fifty die while a tenth of all datagrams gets lost
//! nodes = 50                      # first the scenario: who, how many, which network,
//! topology = one
//! loss = 0.1
//! delay = uniform 200us 2ms
//! probe_interval = 500ms          # and any option of the nodes
//!
//! [phase crash]                   # then what happens, in this order
//! for = 60s
//! until = agree
//! kill = 3
//! ```
//!
//! Lines are those of a configuration file ([`Config::load`](crate::Config::load)). What a phase says of the network holds
//! as long as it lasts, on top of what stands above.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Display;

use super::net::{Delay, Loss, Network};
use super::scenario::{Fault, Phase, Scenario, Topology, Until, Who};
use crate::config::{self, Config, values};
use crate::error::{Code, Error, Result};

/// Options that the simulator gives.
const GIVEN: &[&str] = &["name", "bind", "advertise", "seeds"];

const OWN: &[&str] = &["title", "nodes", "names", "topology", "sealed", "form", "sample", "payload", "trials", "seed"];

const NETWORK: &[&str] = &[
    "delay",
    "loss",
    "duplicate",
    "reorder",
    "corrupt",
    "truncate",
    "replay",
    "mtu",
    "bandwidth",
    "queue",
    "udp_blocked",
    "tcp_blocked",
];

const PHASE: &[&str] = &[
    "for",
    "until",
    "updates",
    "tell",
    "kill",
    "power_off",
    "restart",
    "leave",
    "join",
    "pause",
    "block",
    "slow",
    "ingress_loss",
    "egress_loss",
    "flip_flop",
    "cut",
    "partition",
];

/// Whether a line with this key belongs into a phase, and not above all of them.
pub fn is_of_phase(key: &str) -> bool {
    PHASE.contains(&key)
}

impl Scenario {
    /// Reads a scenario, and checks it. Errors name the line; `E_INVALID` and `E_NOT_FOUND`, or what an option's value says.
    pub fn parse(text: &str) -> Result<Scenario> {
        let mut scenario = Scenario::new("", 10);
        for (number, line) in text.lines().enumerate() {
            scenario.line(line).map_err(|e| Error { text: format!("line {}: {}", number + 1, e.text), ..e })?;
        }
        scenario.validate()?;
        Ok(scenario)
    }

    fn line(&mut self, line: &str) -> Result<()> {
        if let Some(name) = section(line)? {
            self.phases
                .push(Phase { duration: crate::time::Duration::from_secs(60), ..Phase::new(name, Default::default()) });
            return Ok(());
        }
        let Some((key, value)) = config::assignment(line)? else { return Ok(()) };
        match self.phases.last_mut() {
            None if OWN.contains(&key) => self.own(key, value),
            None if NETWORK.contains(&key) => self.network.set(key, value),
            None if PHASE.contains(&key) => {
                Err(Error::new(Code::Invalid, format!("{key} belongs into a phase: put it below a line [phase NAME]")))
            }
            None if GIVEN.contains(&key) => Err(Error::new(
                Code::Invalid,
                format!("{key} is given by the simulator; see nodes, names and topology"),
            )),
            // Its error texts say "line 1", of the one that it was given.
            None => self.config.load(line).map_err(|e| without_line(key, e)),
            Some(phase) if NETWORK.contains(&key) => {
                let mut changed = phase.network.unwrap_or(self.network);
                changed.set(key, value)?;
                phase.network = Some(changed);
                Ok(())
            }
            Some(phase) => phase.key(key, value),
        }
    }

    fn own(&mut self, key: &str, value: &str) -> Result<()> {
        match key {
            "title" => self.title = value.to_owned(),
            "nodes" => self.nodes = values::count(key, value)?,
            "names" => self.names = list(value),
            "topology" => self.topology = topology(value)?,
            "sealed" => self.sealed = values::flag(key, value)?,
            "form" => self.form = values::duration(key, value)?,
            "sample" => self.sample = values::duration(key, value)?,
            "payload" => self.payload = values::size(key, value)?,
            "trials" => self.trials = values::count(key, value)?,
            _ => self.seed = values::count(key, value)? as u64,
        }
        Ok(())
    }
}

impl Network {
    /// Sets one property from text, as a line of a scenario does. `E_NOT_FOUND` where there is none of that name; on failure
    /// nothing changed.
    pub fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let mut changed = *self;
        match key {
            "delay" => changed.delay = delay(value)?,
            "loss" => changed.loss = loss(key, value)?,
            "duplicate" => changed.duplicate = number(key, value)?,
            "reorder" => changed.reorder = number(key, value)?,
            "corrupt" => changed.corrupt = number(key, value)?,
            "truncate" => changed.truncate = number(key, value)?,
            "replay" => changed.replay = number(key, value)?,
            "mtu" => changed.mtu = Some(values::size(key, value)?),
            "bandwidth" => changed.bandwidth = Some(values::size(key, value)? as u64),
            "queue" => changed.queue = values::size(key, value)?,
            "udp_blocked" => changed.udp_blocked = values::flag(key, value)?,
            "tcp_blocked" => changed.tcp_blocked = values::flag(key, value)?,
            _ => {
                let hint = values::hint(key, NETWORK.iter().copied());
                return Err(Error::new(Code::NotFound, format!("a network has no {key:?}{hint}")));
            }
        }
        changed.validate()?;
        *self = changed;
        Ok(())
    }
}

impl Phase {
    fn key(&mut self, key: &str, value: &str) -> Result<()> {
        let who = |text: &str| who(key, text);
        let fault = match key {
            "for" => {
                self.duration = values::duration(key, value)?;
                return Ok(());
            }
            "until" => {
                self.until = Some(until(value)?);
                return Ok(());
            }
            "updates" => {
                self.updates = number(key, value)?;
                return Ok(());
            }
            "tell" => {
                self.tell = Some(who(value)?);
                return Ok(());
            }
            "kill" => Fault::Kill(who(value)?),
            "power_off" => Fault::PowerOff(who(value)?),
            "restart" => Fault::Restart(who(value)?),
            "leave" => Fault::Leave(who(value)?),
            "join" => Fault::Join(values::count(key, value)?),
            "pause" => Fault::Pause(who(value)?),
            "block" => Fault::Block(who(value)?),
            "slow" => {
                let (whom, time) = before_last(key, value, "who and how long an input takes, such as 2 5ms")?;
                Fault::Slow(who(whom)?, values::duration(key, time)?)
            }
            "ingress_loss" | "egress_loss" => {
                let (whom, rest) = split(key, value, ' ', "who and a loss, such as 10% 0.8")?;
                let loss = loss(key, rest)?;
                if key == "ingress_loss" { Fault::Ingress(who(whom)?, loss) } else { Fault::Egress(who(whom)?, loss) }
            }
            "flip_flop" => {
                const EXPECTED: &str = "who, and how long it is deaf and then well, such as 1% 20s 20s";
                let (rest, well) = before_last(key, value, EXPECTED)?;
                let (whom, deaf) = before_last(key, rest, EXPECTED)?;
                Fault::FlipFlop {
                    who: who(whom)?,
                    deaf: values::duration(key, deaf)?,
                    well: values::duration(key, well)?,
                }
            }
            "cut" => {
                let (from, to) = split(key, value, '>', "from whom to whom nothing passes, such as n1 > all")?;
                Fault::Cut { from: who(from)?, to: who(to)? }
            }
            "partition" => Fault::Partition(value.split('|').map(|side| who(side.trim())).collect::<Result<_>>()?),
            _ => {
                let hint = values::hint(key, PHASE.iter().chain(NETWORK).copied());
                let known = Config::descs().iter().any(|desc| desc.key == key) || OWN.contains(&key);
                let hint = if known { "; it belongs above the phases".to_owned() } else { hint };
                return Err(Error::new(Code::NotFound, format!("a phase has no {key:?}{hint}")));
            }
        };
        self.faults.push(fault);
        Ok(())
    }
}

/// The name in `[phase NAME]`.
fn section(line: &str) -> Result<Option<&str>> {
    let Some(rest) = line.trim().strip_prefix('[') else { return Ok(None) };
    let inside = rest.split_once(']').filter(|(_, after)| after.trim().is_empty() || after.trim().starts_with('#'));
    let name = inside.and_then(|(inside, _)| inside.trim().strip_prefix("phase ")).map(str::trim);
    match name.filter(|name| !name.is_empty()) {
        Some(name) => Ok(Some(name)),
        None => Err(Error::new(Code::Invalid, format!("{:?}: expected [phase NAME]", line.trim()))),
    }
}

fn delay(value: &str) -> Result<Delay> {
    const EXPECTED: &str = "fixed TIME, uniform LEAST MOST, normal MEAN DEVIATION, exponential LEAST MEAN, \
                            lognormal MEDIAN FACTOR or pareto LEAST ALPHA";
    let words: Vec<&str> = value.split_whitespace().collect();
    let time = |text: &str| values::duration("delay", text);
    Ok(match words[..] {
        ["fixed", d] => Delay::Fixed(time(d)?),
        ["uniform", least, most] => Delay::Uniform { least: time(least)?, most: time(most)? },
        ["normal", mean, deviation] => Delay::Normal { mean: time(mean)?, deviation: time(deviation)? },
        ["exponential", least, mean] => Delay::Exponential { least: time(least)?, mean: time(mean)? },
        ["lognormal", median, factor] => Delay::LogNormal { median: time(median)?, factor: number("delay", factor)? },
        ["pareto", least, alpha] => Delay::Pareto { least: time(least)?, alpha: number("delay", alpha)? },
        _ => return Err(expected("delay", value, EXPECTED)),
    })
}

fn loss(key: &str, value: &str) -> Result<Loss> {
    let words: Vec<&str> = value.split_whitespace().collect();
    let loss = match words[..] {
        [p] => Loss::Iid(number(key, p)?),
        ["bursts", begin, end, good, bad] => Loss::Bursts {
            begin: number(key, begin)?,
            end: number(key, end)?,
            good: number(key, good)?,
            bad: number(key, bad)?,
        },
        _ => return Err(expected(key, value, "a probability, or bursts BEGIN END GOOD BAD")),
    };
    loss.validate()?;
    Ok(loss)
}

fn topology(value: &str) -> Result<Topology> {
    let words: Vec<&str> = value.split_whitespace().collect();
    Ok(match words[..] {
        ["full"] => Topology::Full,
        ["one"] => Topology::One,
        ["star"] => Topology::Star,
        ["line"] => Topology::Line,
        ["ring"] => Topology::Ring,
        ["none"] => Topology::None,
        ["random", k] => Topology::Random(values::count("topology", k)?),
        _ => return Err(expected("topology", value, "full, one, star, line, ring, none or random DEGREE")),
    })
}

fn until(value: &str) -> Result<Until> {
    let words: Vec<&str> = value.split_whitespace().collect();
    Ok(match words[..] {
        ["agree"] => Until::Agree,
        ["reach", share] => Until::Reach(number("until", share)?),
        ["reach"] => Until::Reach(1.0),
        _ => return Err(expected("until", value, "agree or reach SHARE")),
    })
}

/// `3`, `10%`, `all`, or names.
fn who(key: &str, value: &str) -> Result<Who> {
    Ok(match value {
        "" => return Err(expected(key, value, "how many nodes, which share of them, all, or their names")),
        "all" => Who::All,
        _ if value.ends_with('%') => Who::Share(number(key, value)?),
        _ if value.bytes().all(|b| b.is_ascii_digit()) => Who::Some(values::count(key, value)?),
        _ if value.starts_with(|c: char| c.is_ascii_digit() || c == '-') => {
            return Err(expected(key, value, "how many nodes, which share of them (10%), all, or their names"));
        }
        _ => Who::Named(list(value)),
    })
}

/// `0.1` or `10%`.
fn number(key: &str, value: &str) -> Result<f64> {
    let (digits, scale) = match value.strip_suffix('%') {
        Some(percent) => (percent, 100.0),
        None => (value, 1.0),
    };
    let number = digits.parse::<f64>().ok().map(|n| n / scale);
    number.ok_or_else(|| expected(key, value, "a number, such as 0.1 or 10%"))
}

fn list(value: &str) -> Vec<String> {
    value.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn split<'a>(key: &str, value: &'a str, at: char, what: &str) -> Result<(&'a str, &'a str)> {
    let (a, b) = value.split_once(at).ok_or_else(|| expected(key, value, what))?;
    Ok((a.trim(), b.trim()))
}

fn before_last<'a>(key: &str, value: &'a str, what: &str) -> Result<(&'a str, &'a str)> {
    let (a, b) = value.trim().rsplit_once(' ').ok_or_else(|| expected(key, value, what))?;
    Ok((a.trim(), b.trim()))
}

fn expected(key: &str, value: &str, what: impl Display) -> Error {
    Error::new(Code::Invalid, format!("{key} = {value:?}: expected {what}"))
}

fn without_line(key: &str, mut e: Error) -> Error {
    let text = e.text.strip_prefix("line 1: ").unwrap_or(&e.text);
    e.text = text.strip_suffix("; nothing changed").unwrap_or(text).to_owned();
    if e.code == Code::NotFound && !e.text.contains("meant") {
        e.text += &values::hint(key, OWN.iter().chain(NETWORK).copied());
    }
    e
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;
    use alloc::vec;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_is_written_is_what_happens() {
        let text = "
            # A comment.
            title = all at once   # and another
            nodes = 12
            names = a, b
            topology = random 3
            sealed = true
            form = 5s
            sample = 0
            payload = 1KiB
            trials = 4
            seed = 99
            loss = 10%
            delay = lognormal 80ms 1.5
            bandwidth = 1MiB
            probe_interval = 500ms
            meta.role = db

            [phase first]
            for = 10s
            until = reach 0.9
            tell = a
            updates = 2.5
            loss = bursts 0.01 0.1 0 1
            kill = 2
            power_off = 10%
            pause = n3, n4
            slow = 2 5ms
            ingress_loss = 1 0.8
            egress_loss = n5 bursts 0.1 0.1 0 1
            flip_flop = 1% 20s 10s
            cut = n2 > all
            partition = 30% | a, b
            join = 3
            [phase second] # the network is as before
            restart = all
            until = agree
            leave = 1
            block = b";
        let scenario = Scenario::parse(text).unwrap();
        assert_eq!((&*scenario.title, scenario.nodes, scenario.trials, scenario.seed), ("all at once", 12, 4, 99));
        assert_eq!((scenario.topology, scenario.sealed, scenario.payload), (Topology::Random(3), true, 1024));
        assert_eq!((scenario.form, scenario.sample), (5 * SECOND, Duration::ZERO));
        assert_eq!(scenario.network.loss, Loss::Iid(0.1));
        assert_eq!(scenario.network.delay, Delay::LogNormal { median: Duration::from_millis(80), factor: 1.5 });
        assert_eq!(scenario.config.probe_interval, Duration::from_millis(500));
        assert_eq!(scenario.config.meta, [("role".into(), b"db".to_vec())]);
        let [first, second] = &scenario.phases[..] else { panic!("{:?}", scenario.phases) };
        let bursts = Loss::Bursts { begin: 0.01, end: 0.1, good: 0.0, bad: 1.0 };
        assert_eq!(first.network, Some(Network { loss: bursts, ..scenario.network }));
        assert_eq!((first.duration, first.until, first.updates), (10 * SECOND, Some(Until::Reach(0.9)), 2.5));
        let named = |names: &[&str]| Who::Named(names.iter().map(|&name| name.to_owned()).collect());
        assert_eq!(first.tell, Some(named(&["a"])));
        assert_eq!(
            first.faults,
            [
                Fault::Kill(Who::Some(2)),
                Fault::PowerOff(Who::Share(0.1)),
                Fault::Pause(named(&["n3", "n4"])),
                Fault::Slow(Who::Some(2), Duration::from_millis(5)),
                Fault::Ingress(Who::Some(1), Loss::Iid(0.8)),
                Fault::Egress(named(&["n5"]), Loss::Bursts { begin: 0.1, end: 0.1, good: 0.0, bad: 1.0 }),
                Fault::FlipFlop { who: Who::Share(0.01), deaf: 20 * SECOND, well: 10 * SECOND },
                Fault::Cut { from: named(&["n2"]), to: Who::All },
                Fault::Partition(vec![Who::Share(0.3), named(&["a", "b"])]),
                Fault::Join(3),
            ]
        );
        assert_eq!((&*second.name, second.duration, second.network), ("second", 60 * SECOND, None));
        assert_eq!(second.faults, [Fault::Restart(Who::All), Fault::Leave(Who::Some(1)), Fault::Block(named(&["b"]))]);
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        for (text, words) in [
            ("nodes = 0", "nodes = 0: expected at least 1"),
            ("nodes = many", "line 1: nodes = \"many\": expected a whole number"),
            ("nodes = -3", "line 1: nodes = \"-3\""),
            ("trials = 0", "trials = 0"),
            ("\n\nloss = 1.1", "line 3: loss = 1.1: expected a probability from 0 to 1"),
            ("loss = NaN", "line 1: loss = NaN"),
            ("loss = -0.1", "line 1: loss = -0.1"),
            ("loss = 101%", "from 0 to 1"),
            ("duplicate = inf", "line 1: duplicate = inf"),
            ("loss = bursts 0.1 0.1 2 1", "loss.good = 2"),
            ("loss = bursts 0.1", "bursts BEGIN END GOOD BAD"),
            ("delay = 5ms", "expected fixed TIME"),
            ("delay = uniform 5ms 1ms", "least <= most"),
            ("delay = uniform 5 1ms", "a duration with its unit"),
            ("bandwidth = 0", "at least 1 byte"),
            ("topology = mesh", "line 1: topology = \"mesh\": expected full, one"),
            ("topology = random 0", "at least 1 node"),
            ("names = a, a\nnodes = 2", "two nodes are called \"a\""),
            ("names = a, b\nnodes = 1", "2 names for 1 nodes"),
            ("names = n1\nnodes = 2", "two nodes are called \"n1\""),
            ("los = 0.1", "line 1: no option \"los\"; is \"loss\" meant?"),
            ("probe_intervall = 1s", "is \"probe_interval\" meant?"),
            ("probe_interval = 1", "line 1: probe_interval = \"1\": expected a duration"),
            ("probe_timeout = 2s", "probe_timeout = 2s: expected less than probe_interval"),
            ("bind = 127.0.0.1:0", "line 1: bind is given by the simulator"),
            ("kill = 1", "line 1: kill belongs into a phase"),
            ("[phase]", "line 1: \"[phase]\": expected [phase NAME]"),
            ("[fase a]", "expected [phase NAME]"),
            ("[phase form]", "another one of that name"),
            ("[phase a]\n[phase a]", "phase \"a\": there is another one"),
            ("[phase a]\nfor = 0", "for = 0"),
            ("[phase a]\nkill = 11", "phase \"a\": 11 nodes: there are 10"),
            ("[phase a]\nkill = 0", "phase \"a\": 0 nodes"),
            ("[phase a]\nkill = 1.5", "line 2: kill = \"1.5\": expected how many nodes"),
            ("[phase a]\nkill = 200%", "expected a share"),
            ("[phase a]\nkill = NaN%", "expected a share"),
            ("[phase a]\nkill = n10", "no node is called \"n10\""),
            ("[phase a]\nkil = 1", "line 2: a phase has no \"kil\"; is \"kill\" meant?"),
            ("[phase a]\nnodes = 4", "it belongs above the phases"),
            ("[phase a]\nprobe_interval = 1s", "it belongs above the phases"),
            ("[phase a]\nslow = 3", "such as 2 5ms"),
            ("[phase a]\nslow = 3 5", "a duration"),
            ("[phase a]\ncut = n1", "from whom to whom"),
            ("[phase a]\ningress_loss = 1 7", "from 0 to 1"),
            ("[phase a]\nflip_flop = 1 20s", "deaf"),
            ("[phase a]\nflip_flop = 1 0 20s", "two times above 0"),
            ("[phase a]\njoin = 0", "join = 0"),
            ("[phase a]\nupdates = -1", "updates = -1"),
            ("[phase a]\nupdates = NaN", "updates = NaN"),
            ("[phase a]\nuntil = reach 0", "a share above 0"),
            ("[phase a]\nuntil = reach NaN\ntell = 1", "a share above 0"),
            ("[phase a]\nuntil = reach 1", "nothing is told"),
            ("[phase a]\nuntil = peace", "expected agree or reach SHARE"),
            ("[phase a]\nkill", "line 2: expected key = value"),
            ("payload = 1MiB", "a quarter of meta_max"),
        ] {
            let e = Scenario::parse(text).expect_err(text);
            assert!(e.text.contains(words), "{text:?}: {e}");
            assert!(!e.text.contains("nothing changed"), "{e}");
        }
    }

    #[test]
    fn no_key_of_a_scenario_is_an_options_key() {
        for key in OWN.iter().chain(NETWORK).chain(PHASE) {
            assert!(Config::descs().iter().all(|desc| desc.key != *key), "{key}");
        }
        assert!(GIVEN.iter().filter(|key| Config::descs().iter().any(|desc| desc.key == **key)).count() >= 3);
    }
}
