//! `docs/CONFIGURATION.md` is made from the table of options; this test keeps it so. `BRUIT_UPDATE=1` rewrites it.

use bruit_core::config::{Config, DEFAULT_PORT, META_KEY_MAX, OptionDesc};
use std::fmt::Write;

#[test]
fn the_page_shows_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/CONFIGURATION.md");
    let page = page();
    if std::env::var_os("BRUIT_UPDATE").is_some_and(|v| v == "1") {
        std::fs::write(path, &page).unwrap();
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert!(found == page, "docs/CONFIGURATION.md is not what the table says: run this test with BRUIT_UPDATE=1");
}

fn page() -> String {
    let mut page = introduction();
    let mut group = "";
    for desc in Config::descs() {
        if desc.group != group {
            group = desc.group;
            write!(page, "\n## {group}\n\n{HEAD}").unwrap();
        }
        page += &row(desc);
    }
    page
}

/// No real key is shown: somebody would copy it.
const KEY: &str = "<what openssl rand -base64 32 printed>";

const HEAD: &str = "| option | lan | wan | local | accepted | live | what it does | where the default comes from |\n\
                    |---|---|---|---|---|---|---|---|\n";

fn row(desc: &OptionDesc) -> String {
    let OptionDesc { key, lan, wan, local, doc, source, .. } = desc;
    let live = if desc.live { "yes" } else { "" };
    format!(
        "| `{key}` | {} | {} | {} | {} | {live} | {} | {} |\n",
        value(lan),
        value(wan),
        value(local),
        accepted(desc),
        cell(doc),
        cell(source)
    )
}

fn value(text: &str) -> String {
    if text.is_empty() { "(empty)".into() } else { format!("`{text}`") }
}

fn accepted(desc: &OptionDesc) -> String {
    if !desc.choices.is_empty() {
        return desc.choices.iter().map(|choice| format!("`{choice}`")).collect::<Vec<_>>().join(", ");
    }
    // Durations and sizes show their unit in the numbers.
    let shown = match desc.unit {
        "time" | "bytes" => "",
        "bytes/s" => "per second",
        unit => unit,
    };
    format!("{} {shown}", cell(desc.bounds)).trim_end().into()
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn introduction() -> String {
    let live = Config::descs().iter().filter(|desc| desc.live).count();
    format!(
        r#"# Configuration

<!-- Made from the table in core/src/config/table.rs by core/tests/configuration_doc.rs. Change it there. -->

Every option has a key. C sets it with `bruit_config_set(config, "probe_interval", "2s")`, Python with
`bruit.Node(probe_interval="2s")`, Rust with `config.set("probe_interval", "2s")` or as the typed field
`config.probe_interval`; a file has a line `probe_interval = 2s`. None of them needs to be touched: a node that is given
a key and a seed runs on the defaults.

## How to read the tables

**Profiles.** `profile` picks a column of defaults: `lan` for one data centre, `wan` for members that are far apart or
behind lossy links, `local` for one machine (tests, worker processes). An option that was set keeps its value, whether
the profile is chosen before or after it.

**Values** are text with their unit, and what is read back is accepted again.

| kind | is written as |
|---|---|
| duration | `200ms`, `1.5s`, `2m`, `1h`; also `us` and `ns`. A plain number is refused, because one reader's seconds are another's milliseconds; only `0` needs no unit |
| size | `1400B`, `64KiB`, `1MiB`, `1GiB`, or a plain number of bytes. `KB` and `MB` are refused: they mean two things |
| count | a whole number |
| factor | at most three decimals: `3`, `1.5` |
| choice | one of the words in the column *accepted* |
| address | `host:port` or `[IPv6]:port`. Seeds may leave out the port, which is then {DEFAULT_PORT} |

**Live** options ({live} of {all}) may also be changed while the node runs: `bruit_node_set` in C, `Node::set` in Rust.
The others are fixed by the start and answer E_STATE.

**Errors.** A value that is malformed or out of bounds is refused at once, and nothing changes. Whether options fit
together is checked when the node is made:
`probe_timeout_min` ≤ `probe_timeout` < `probe_interval`; `gossip_flush` ≤ `gossip_interval`;
`seed_retry_min` ≤ `seed_retry_max`; `app_version_min` ≤ `app_version`; `meta_inline` at most half of `max_datagram`;
the initial metadata within `meta_max`; and a key, unless `bind` is a loopback address or `insecure_plaintext` is set.

**Where a default comes from.** SWIM is Das, Gupta, Motivala (DSN 2002); Lifeguard is Dadgar, Phillips, Currey (2017);
memberlist and Serf are HashiCorp's libraries, and their LAN, WAN and local profiles are meant where three numbers stand.
"Chosen by feel" means what it says: nobody derived the number, and a better reason may change it. A number that is
less cautious than its model's is marked as a departure, or names the model's beside it.

## Seeds, keys and metadata

These come in any number and have calls of their own (`bruit_config_add_seed`, `_add_key`, `_set_meta`; in Python the
arguments `seeds`, `keys` and `meta`).

| in a file | what it is |
|---|---|
| `seed = host[:port]` | Whom to contact first. Names are resolved again at each try, and trying never stops. One live member is enough; a node may name itself |
| `key = …` | 32 random bytes, the same at all members, as base64 (44 characters: `openssl rand -base64 32`) or hex (64). The first one seals, all open: so keys are exchanged without a pause |
| `meta.NAME = text` | What this node tells about itself. NAME has 1 to {META_KEY_MAX} bytes, without `=` and control characters |

## A file

```
# node1.conf: blank lines and comments are skipped; a later line overrides an earlier one.
name           = node1
bind           = 0.0.0.0:{DEFAULT_PORT}
cluster        = "shop, north"          # in double quotes a value is taken as it is
profile        = wan
probe_interval = 3s
seed           = node2.example
seed           = [fd00::7]:{DEFAULT_PORT}
key            = {KEY}
meta.role      = db
```

An error names its line, and a file with an error changes nothing.
"#,
        all = Config::descs().len(),
    )
}

#[test]
fn the_file_on_the_page_is_accepted() {
    let page = page();
    let file = page.split("```").nth(1).expect("the page has one block of code");
    let mut config = Config::new();
    config.load(&file.replace(KEY, &"07".repeat(32))).unwrap();
    config.validate().unwrap();
    assert_eq!((config.seeds.len(), config.keys.len(), config.meta.len()), (2, 1, 1));
}
