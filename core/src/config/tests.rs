use super::*;
use crate::time::Duration;
use alloc::vec;
use proptest::prelude::*;

const BASE64: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const HEX: &str = "000102030405060708090a0b0c0d0e0F101112131415161718191a1b1c1d1e1f";

fn key() -> [u8; 32] {
    core::array::from_fn(|i| i as u8)
}

/// Valid, and reachable from this machine only.
fn local() -> Config {
    let mut config = Config::new();
    config.bind = "127.0.0.1:0".into();
    config
}

fn refused(code: Code, words: &str, result: Result<impl fmt::Debug>) {
    let e = result.expect_err(words);
    assert_eq!(e.code, code, "{e}");
    assert!(e.text.contains(words), "{e}");
}

#[test]
fn every_default_is_accepted_and_written_as_it_is_read() {
    for desc in Config::descs() {
        for profile in [Profile::Lan, Profile::Wan, Profile::Local] {
            let text = desc.default(profile);
            let mut config = Config::new();
            config.set(desc.key, text).unwrap();
            assert_eq!(config.get(desc.key).unwrap(), text, "{}", desc.key);
        }
        assert_eq!(Config::new().get(desc.key).unwrap(), desc.lan);
        assert!(desc.doc.ends_with('.') && !desc.doc.contains("  "), "{}: {}", desc.key, desc.doc);
        assert!(!desc.source.is_empty() && !desc.bounds.is_empty() && !desc.group.is_empty());
        assert_eq!(desc.kind == OptionKind::Bool || desc.kind == OptionKind::Choice, !desc.choices.is_empty());
    }
}

#[test]
fn every_profile_is_valid() {
    for profile in ["lan", "wan", "local"] {
        let mut config = local();
        config.set("profile", profile).unwrap();
        config.validate().unwrap();
    }
}

#[test]
fn the_bounds_are_accepted_and_nothing_beyond_them() {
    let mut bounded = 0;
    for desc in Config::descs() {
        let Some((low, high)) = desc.bounds.split_once(" to ") else { continue };
        bounded += 1;
        let mut config = Config::new();
        for edge in [low, high] {
            config.set(desc.key, edge).unwrap();
            let text = config.get(desc.key).unwrap();
            config.set(desc.key, &text).unwrap();
        }
        let before = config.clone();
        let (below, above) = match desc.kind {
            OptionKind::Duration => (less(low, TIMES), more(high, TIMES)),
            OptionKind::Size => (less(low, SIZES), more(high, SIZES)),
            OptionKind::Ratio => {
                let milli = |text: &str| (text.parse::<f64>().unwrap() * 1000.0) as u32;
                (milli(low).checked_sub(1).map(|below| Milli(below).to_string()), Milli(milli(high) + 1).to_string())
            }
            _ => (less(low, &[]), more(high, &[])),
        };
        for outside in below.iter().chain([&above, &"99999999999999999999".into()]) {
            let e = config.set(desc.key, outside).unwrap_err();
            assert_eq!(e.code, Code::Invalid);
            assert!(e.text.contains(desc.key) && e.text.ends_with("nothing changed"), "{e}");
            assert_eq!(config, before);
        }
    }
    assert!(bounded > 30);
}

const TIMES: &[&str] = &["ms", "s", "m", "h"];
const SIZES: &[&str] = &["KiB", "MiB", "GiB", "B"];

fn split<'a>(text: &'a str, units: &[&'a str]) -> (u64, &'a str) {
    let unit = units.iter().find(|unit| text.ends_with(**unit)).copied().unwrap_or("");
    (text.strip_suffix(unit).unwrap().parse().unwrap(), unit)
}

fn less(text: &str, units: &[&str]) -> Option<String> {
    let (number, unit) = split(text, units);
    (number > 0).then(|| match unit {
        "" => format!("{}", number - 1),
        "B" => format!("{}B", number - 1),
        _ => format!("{}.999{unit}", number - 1),
    })
}

fn more(text: &str, units: &[&str]) -> String {
    let (number, unit) = split(text, units);
    format!("{}{unit}", number + 1)
}

#[test]
fn garbage_changes_nothing() {
    let mut config = Config::new();
    let before = config.clone();
    for desc in Config::descs() {
        for garbage in
            ["\0", "1 s", "-1", "+1", "1e3", "NaN", "½", "0x10", "1..5s", ".5s", "5.s", "s", "1KB", "1S", "host:99999"]
        {
            if desc.kind == OptionKind::Text && Config::new().set(desc.key, garbage).is_ok() {
                continue; // a name may be almost anything
            }
            let e = config.set(desc.key, garbage).unwrap_err();
            assert!(e.text.starts_with(desc.key) && e.text.ends_with("nothing changed"), "{e}");
            assert_eq!(config, before);
        }
    }
}

#[test]
fn values_carry_their_unit() {
    let mut config = Config::new();
    for (text, millis) in
        [("200ms", 200), ("1.5s", 1500), ("0.02m", 1200), ("60s", 60_000), ("2m", 120_000), ("250000us", 250)]
    {
        config.set("probe_interval", text).unwrap();
        assert_eq!(config.probe_interval, Duration::from_millis(millis));
    }
    assert_eq!(config.get("probe_interval").unwrap(), "250ms");
    config.set("gossip_flush", "0").unwrap();
    assert_eq!(config.gossip_flush, Duration::ZERO);
    refused(Code::Invalid, "with its unit", config.set("probe_interval", "1"));
    refused(Code::Invalid, "10ms to 10m", config.set("probe_interval", "11m"));
    for (text, size) in [("1MiB", 1 << 20), ("0.5MiB", 1 << 19), ("300000", 300_000), ("262144B", 1 << 18)] {
        config.set("link_queue", text).unwrap();
        assert_eq!(config.link_queue, size);
    }
    assert_eq!(config.get("link_queue").unwrap(), "256KiB");
    refused(Code::Invalid, "64KiB or 1MiB", config.set("link_queue", "1MB"));
    for (text, milli, canonical) in
        [("2", 2000, "2.0"), ("1.25", 1250, "1.25"), ("0.125", 125, "0.125"), ("1.500", 1500, "1.5")]
    {
        config.set("suspicion_mult", text).unwrap();
        assert_eq!(config.suspicion_mult, Milli(milli));
        assert_eq!(config.get("suspicion_mult").unwrap(), canonical);
    }
    refused(Code::Invalid, "three decimals", config.set("suspicion_mult", "1.0001"));
}

#[test]
fn a_profile_moves_only_what_nobody_set() {
    let mut config = Config::new();
    config.set("probe_interval", "1s").unwrap(); // as its default, but meant
    config.gossip_interval = Duration::from_millis(77);
    config.set("profile", "wan").unwrap();
    assert_eq!(config.profile, Profile::Wan);
    assert_eq!(config.probe_interval, Duration::from_secs(1));
    assert_eq!(config.gossip_interval, Duration::from_millis(77));
    assert_eq!(config.probe_timeout, Duration::from_millis(1500));
    assert_eq!(config.max_datagram, 1200);
    assert_eq!(config.suspicion_mult, Milli(1500));
    config.set("profile", "local").unwrap();
    assert_eq!(config.probe_interval, Duration::from_secs(1));
    assert_eq!(config.probe_timeout, Duration::from_millis(100));
    config.set("profile", "lan").unwrap();
    let mut expected = Config::new();
    expected.gossip_interval = Duration::from_millis(77);
    expected.explicit = config.explicit;
    assert_eq!(config, expected);
}

#[test]
fn a_wrong_key_gets_the_nearest_one() {
    let mut config = Config::new();
    refused(Code::NotFound, "is \"probe_interval\" meant?", config.set("probe-intervall", "1s"));
    refused(Code::NotFound, "is \"gossip_fanout\" meant?", config.set("gossip_fan_out", "3"));
    refused(Code::NotFound, "is \"bind\" meant?", config.get("bnid"));
    refused(Code::NotFound, "no option \"frobnicate\"", config.set("frobnicate", "3"));
    refused(Code::NotFound, "added, not set", config.set("seeds", "a"));
    let e = config.set(BASE64, "1").unwrap_err();
    assert!(!e.text.contains("AAECAw"), "{e}");
    assert!(!config.set("frobnicate", "3").unwrap_err().text.contains("meant"));
}

#[test]
fn only_live_options_change_while_running() {
    let config = local();
    let changed = config.set_live("probe_interval", "2s").unwrap();
    assert_eq!((config.probe_interval.as_secs(), changed.probe_interval.as_secs()), (1, 2));
    refused(Code::State, "before the start", config.set_live("bind", "127.0.0.1:1"));
    refused(Code::State, "before the start", config.set_live("profile", "wan"));
    refused(Code::NotFound, "probe_interval", config.set_live("probe_intervall", "2s"));
    refused(Code::Invalid, "duration", config.set_live("probe_interval", "2"));
    refused(Code::Invalid, "less than probe_interval", config.set_live("probe_timeout", "1s"));
    let live: Vec<_> = Config::descs().iter().filter(|desc| desc.live).map(|desc| desc.key).collect();
    let named = [
        "heal_interval",
        "indirect_checks",
        "local_health_max",
        "stream_ping",
        "buddy",
        "nacks",
        "flap_half_life",
        "stall_patience",
        "send_queue",
        "stream_window",
        "max_streams",
        "max_member_streams",
        "shuffle_interval",
        "broadcast_window",
        "broadcast_keep",
        "validation_timeout",
    ];
    let phi = ["phi_threshold", "phi_first_interval", "phi_min_deviation", "phi_max_interval"];
    for desc in Config::descs() {
        let family =
            ["probe_", "suspicion_", "gossip_", "rumor_", "sync_", "forget_"].iter().any(|p| desc.key.starts_with(p));
        assert_eq!(
            live.contains(&desc.key),
            family || named.contains(&desc.key) || phi.contains(&desc.key),
            "{}",
            desc.key
        );
    }
}

#[test]
fn options_must_fit_together() {
    local().validate().unwrap();
    let with = |change: fn(&mut Config)| {
        let mut config = local();
        change(&mut config);
        config.validate()
    };
    refused(Code::Invalid, "at most probe_timeout", with(|c| c.probe_timeout_min = Duration::from_millis(301)));
    let short = |c: &mut Config| c.phi_max_interval = Duration::from_millis(999);
    with(short).unwrap();
    refused(Code::Invalid, "0, or at least probe_interval", {
        let mut config = local();
        short(&mut config);
        config.detector = Detector::Phi;
        config.validate()
    });
    refused(Code::Invalid, "less than probe_interval", with(|c| c.probe_timeout = c.probe_interval));
    refused(Code::Invalid, "at most seed_retry_max", with(|c| c.seed_retry_max = Duration::from_millis(100)));
    refused(Code::Invalid, "at most gossip_interval", with(|c| c.gossip_flush = Duration::from_millis(101)));
    refused(Code::Invalid, "at most app_version", with(|c| c.app_version_min = 1));
    refused(Code::Invalid, "half of max_datagram", with(|c| c.meta_inline = 701));
    refused(Code::Invalid, "1 to 16", with(|c| c.gossip_fanout = 0));
    refused(Code::Invalid, "255 bytes", with(|c| c.name = "x".repeat(256)));
    refused(Code::Invalid, "255 bytes", with(|c| c.cluster = "a\nb".into()));
    refused(Code::Address, "host:port", with(|c| c.bind = "::1:5".into()));
    refused(Code::Address, "above 0", with(|c| c.advertise = "10.0.0.1:0".into()));
    refused(Code::Address, "10.0.0.7", with(|c| c.seeds.push("a b".into())));
    refused(Code::Invalid, "metadata key", with(|c| c.meta.push(("a=b".into(), vec![]))));
    refused(Code::TooBig, "at most meta_max", with(|c| c.set_meta("k", Some(&[0; 65536])).unwrap()));
    with(|c| c.set_meta("k", Some(&[0; 65535])).unwrap()).unwrap();
}

#[test]
fn beyond_loopback_a_key_is_needed_or_the_wish_to_do_without() {
    refused(Code::Auth, "insecure_plaintext = true", Config::new().validate());
    for bind in ["[::]:0", "10.0.0.1:18946", "node.example:1", "[::ffff:10.0.0.1]:1"] {
        let mut config = Config::new();
        config.set("bind", bind).unwrap();
        refused(Code::Auth, bind, config.validate());
        config.add_key(&key()).unwrap();
        config.validate().unwrap();
    }
    for bind in ["127.0.0.1:0", "127.8.8.8:1", "[::1]:0", "localhost:0", "[::ffff:127.0.0.1]:1"] {
        let mut config = Config::new();
        config.set("bind", bind).unwrap();
        config.validate().unwrap();
    }
    let mut config = Config::new();
    config.set("insecure_plaintext", "true").unwrap();
    config.validate().unwrap();
}

#[test]
fn addresses_are_hosts_with_ports() {
    assert_eq!(contact("10.0.0.7").unwrap(), ("10.0.0.7", DEFAULT_PORT));
    assert_eq!(contact("node_1.example.:7").unwrap(), ("node_1.example.", 7));
    assert_eq!(contact("[fd00::7]").unwrap(), ("fd00::7", DEFAULT_PORT));
    assert_eq!(contact("[fe80::1%eth0]:7").unwrap(), ("fe80::1%eth0", 7));
    assert_eq!(host_port("0.0.0.0:0").unwrap(), ("0.0.0.0", 0));
    for bad in [
        "",
        ":7",
        "a:",
        "a:0",
        "a:b",
        "a:65536",
        "a:+1",
        "a:1:2",
        "::1",
        "[::1",
        "[::1]7",
        "[::g]:7",
        "[fe80::1%]:7",
        "[fe80::1% ]:7",
        "10.0.0.256",
        "1.2.3",
        ".a",
        "a..b",
        "a b",
        "a/b",
        "ä",
        "[10.0.0.1]:7",
    ] {
        assert_eq!(contact(bad).unwrap_err().code, Code::Address, "{bad}");
    }
    assert!(host_port("10.0.0.1").is_err());
}

#[test]
fn seeds_and_keys_are_kept_once_and_in_order() {
    let mut config = Config::new();
    for seed in ["b", "a:1", "b"] {
        config.add_seed(seed).unwrap();
    }
    assert_eq!(config.seeds, ["b", "a:1"]);
    refused(Code::Address, "nothing changed", config.add_seed("a:"));
    config.add_key(&[9; 32]).unwrap();
    config.add_key_text(BASE64).unwrap();
    config.add_key_text(HEX).unwrap();
    config.add_key_text(&format!(" {BASE64}\n")).unwrap();
    assert_eq!(config.keys, [[9; 32], key()]);
    refused(Code::Invalid, "16 bytes: expected 32", config.add_key(&[0; 16]));
    for bad in [
        &BASE64[1..],
        &HEX[1..],
        &BASE64.replace('=', "A"),
        &BASE64.replace("8=", "9="),
        &HEX.replace('f', "g"),
        &BASE64.replace('D', "-"),
        "",
    ] {
        let e = config.add_key_text(bad).unwrap_err();
        assert!(bad.is_empty() || !e.text.contains(bad), "{e}");
    }
    assert_eq!(config.keys.len(), 2);
}

#[test]
fn metadata_is_set_replaced_and_removed() {
    let mut config = Config::new();
    config.set_meta("role", Some(b"db")).unwrap();
    config.set_meta("zone", Some(b"")).unwrap();
    config.set_meta("role", Some(b"web")).unwrap();
    assert_eq!(config.meta, [("zone".into(), b"".to_vec()), ("role".into(), b"web".to_vec())]);
    config.set_meta("role", None).unwrap();
    assert_eq!(config.meta.len(), 1);
    for bad in ["", "a=b", "a\tb", &*"k".repeat(256)] {
        refused(Code::Invalid, "metadata key", config.set_meta(bad, Some(b"")));
    }
}

#[test]
fn a_file_is_read_whole_or_not_at_all() {
    let mut config = Config::new();
    let text = format!(
        "# a comment\n\n  name = n1   # ours\r\nprofile=wan\nprobe_interval = \"4s\"\ncluster = \" a # b \" # kept\nadvertise =\n\
         seed = 10.0.0.7\nseed = [fd00::7]:7\nkey = {BASE64}\nkey = \"{HEX}\"\nmeta.role = db\nmeta.note = a#b = c\n"
    );
    config.load(&text).unwrap();
    assert_eq!((&*config.name, &*config.cluster, config.profile), ("n1", " a # b ", Profile::Wan));
    assert_eq!((config.probe_interval.as_secs(), config.probe_timeout.as_millis()), (4, 1500));
    assert_eq!((config.seeds.len(), &*config.keys), (2, &[key()][..]));
    assert_eq!(config.meta, [("role".into(), b"db".to_vec()), ("note".into(), b"a#b = c".to_vec())]);
    config.validate().unwrap();

    let before = config.clone();
    for (text, code, words) in [
        ("name = x\nbind", Code::Invalid, "line 2: expected key = value"),
        ("\n\nnames = x", Code::NotFound, "line 3: no option \"names\"; is \"name\" meant?"),
        ("name = x\nprobe_timeout = 5", Code::Invalid, "line 2: probe_timeout = \"5\": expected a duration"),
        ("seed = a:", Code::Address, "line 1: address \"a:\""),
        ("name = \"a\" b", Code::Invalid, "double quotes"),
        ("name = \"a", Code::Invalid, "double quotes"),
        ("meta. = a", Code::Invalid, "metadata key"),
        ("key = abc", Code::Invalid, "line 1: a key of 3 characters"),
        ("[node]", Code::Invalid, "key = value"),
    ] {
        let e = config.load(text).unwrap_err();
        assert!(e.text.ends_with("; nothing changed") && e.text.matches("nothing changed").count() == 1, "{e}");
        refused(code, words, Err::<(), _>(e));
        assert_eq!(config, before);
    }
    for lost in [
        BASE64.into(),
        format!("= {BASE64}"),
        format!("kye = {BASE64}"),
        format!("key = \"{BASE64}"),
        format!("key {BASE64}"),
    ] {
        assert!(!config.load(&lost).unwrap_err().text.contains("AAECAw"), "{lost}");
    }
}

#[test]
fn nothing_shows_a_key() {
    let mut config = Config::new();
    config.add_key(&[201; 32]).unwrap();
    config.set_meta("role", Some(b"db")).unwrap();
    let text = format!("{config:?} {config:#?}");
    assert!(!text.contains("201") && text.contains("keys: 1") && text.contains("probe_interval: 1s"), "{text}");
}

proptest! {
    #[test]
    fn no_text_panics(key in ".{0,50}", value in ".{0,50}", row in 0..DESCS.len()) {
        let mut config = Config::new();
        let _ = config.set(&key, &value);
        let _ = config.load(&format!("{key}={value}\n{key} {value}\n\"{value}"));
        let _ = config.add_seed(&value);
        let _ = config.add_key_text(&value);
        let _ = config.set_meta(&key, Some(value.as_bytes()));
        if config.set(DESCS[row].key, &value).is_ok() {
            let text = config.get(DESCS[row].key).unwrap();
            config.set(DESCS[row].key, &text).unwrap();
            prop_assert_eq!(config.get(DESCS[row].key).unwrap(), text);
        }
        let _ = config.validate();
    }

    #[test]
    fn what_is_accepted_comes_back(value in "[0-9]{1,4}([.][0-9]{1,3})?(|ns|us|ms|s|m|h|B|KiB|MiB|GiB)", row in 0..DESCS.len()) {
        let mut config = Config::new();
        if config.set(DESCS[row].key, &value).is_ok() {
            let text = config.get(DESCS[row].key).unwrap();
            let mut again = Config::new();
            again.set(DESCS[row].key, &text).unwrap();
            prop_assert_eq!(config, again);
        }
    }

    #[test]
    fn every_key_is_read_as_base64_and_as_hex(key: [u8; 32]) {
        let hex: String = key.iter().map(|b| format!("{b:02x}")).collect();
        let mut base64 = String::new();
        for three in key.chunks(3) {
            let bits = three.iter().fold(0u32, |bits, b| bits << 8 | u32::from(*b)) << (8 * (3 - three.len()));
            for i in 0..=three.len() {
                let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
                base64.push(char::from(alphabet[(bits >> (18 - 6 * i) & 63) as usize]));
            }
        }
        base64.push('=');
        let mut config = Config::new();
        config.add_key_text(&base64).unwrap();
        config.add_key_text(&hex).unwrap();
        prop_assert_eq!(config.keys, [key]);
    }
}
