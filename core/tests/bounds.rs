//! Where a node's runtime says no: bounds that are reached on purpose, names that resolve to nothing, peers that do
//! not answer; and what it says then. On real loopback sockets, but for what only a stage can show.

mod stage;
mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bruit_core::config::Config;
use bruit_core::error::Code;
use bruit_core::id::{Epoch, Incarnation, RunId, Version};
use bruit_core::runtime::{NodeState, Wait};
use bruit_core::time::Instant;
use bruit_core::view::{EventKind, MemberState};
use bruit_core::wire::envelope::{Envelope, HEADER, Limits, Sessions};
use bruit_core::wire::frame::{Entries, Frame, Frames, Record};
use bruit_core::wire::stream::{StreamReader, write_record};
use stage::{Stage, ms};
use support::{LIMIT, Witness, all_list, cluster, config, eventually, free_address, set, until_all};

const FOR: Wait = Wait::For(LIMIT);

/// Too large for a datagram: whoever wants it gets it by stream.
fn large() -> Vec<u8> {
    vec![0xab; 20_000]
}

// ---- links

#[test]
fn more_links_than_max_links_cost_the_least_recently_used_ones_and_nobody_their_data() {
    let nodes = cluster(6, |config| {
        if config.name == "n000" {
            set(config, "max_links", "2");
        }
    });
    nodes[0].node.set_meta(&[("blob", Some(&large()))]).unwrap();
    until_all(&nodes, "all have it", |w| w.view().find("n000").is_some_and(|m| m.meta.contains_key("blob")));
    for w in &nodes[1..] {
        // Each of them asks n000, and is answered by stream.
        w.node.set_meta(&[("blob", Some(&large()))]).unwrap();
    }
    until_all(&nodes, "all have all", |w| w.view().with("blob").count() == 6);
    let w = &nodes[0];
    w.until("two are left", |w| w.stat("links") <= 2);
    assert!(w.stat("links_evicted") > 0, "{} dialed, {} accepted", w.stat("links_dialed"), w.stat("links_accepted"));
}

#[test]
fn a_link_that_nobody_uses_is_closed_after_link_idle() {
    let nodes = cluster(2, |config| set(config, "link_idle", "1s"));
    nodes[0].node.set_meta(&[("blob", Some(&large()))]).unwrap();
    nodes[1].until("it has arrived", |w| w.view().with("blob").count() == 1);
    for w in &nodes {
        assert!(w.stat("links_dialed") + w.stat("links_accepted") > 0, "by stream");
        w.until("the link is closed", |w| w.stat("links") == 0);
        assert_eq!(w.stat("links_timed_out"), 0, "that is for links that never came to be");
    }
    all_list(&nodes, 2);
}

#[test]
fn what_cannot_be_sent_by_stream_is_dropped_and_counted() {
    let mut config = config("a", &[]);
    set(&mut config, "transport", "tcp");
    let a = Witness::start(&config);
    let nobody = free_address().to_string();
    let error = a.node.join(&[&nobody], FOR).expect_err("nobody is there");
    assert_eq!(error.code, Code::Timeout, "{error}");
    a.until("it was dropped", |w| w.stat("records_dropped") > 0 && w.stat("links_refused") > 0);
    assert_eq!(a.stat("links"), 0);
}

/// A member that only the test's own words keep: it says what it likes, and reads when it likes.
struct Forged {
    stream: TcpStream,
    envelope: Envelope,
    sessions: Sessions,
    reader: StreamReader,
    run: RunId,
}

impl Forged {
    /// Joins the node there, which must have no key.
    fn joined(at: SocketAddr, name: &str) -> (Forged, RunId) {
        let run = RunId::new(0x1234_5678_9abc_def1).unwrap();
        let envelope = Envelope::new("", &[], run, [3; 32], Limits { max_sessions: 16, derive_rate: 1000 });
        let stream = TcpStream::connect(at).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let mut own = Forged { sessions: envelope.sessions(), stream, envelope, reader: StreamReader::new(), run };
        own.say(None, &Frame::Hello { protocol: (1, 1), app: (0, 0), name, epoch: Epoch(1) });
        let (host, cookie) = own.hear(|frame| match frame {
            Frame::Cookie { cookie, .. } => Some(cookie),
            _ => None,
        });
        let record = Record {
            name,
            run: own.run,
            epoch: Epoch(1),
            incarnation: Incarnation(0),
            addr: own.stream.local_addr().unwrap(),
            protocol: 1,
            app_version: 0,
            version: Version(0),
            age: 0,
            state: Entries(&[]),
        };
        own.say(Some(host), &Frame::Join { cookie, record, seeks: None });
        own.hear(|frame| matches!(frame, Frame::Welcome { .. }).then_some(()));
        (own, host)
    }

    fn say(&mut self, to: Option<RunId>, frame: &Frame<'_>) {
        let mut packet = vec![0; HEADER];
        frame.write(&mut packet);
        self.envelope.seal_record(to, &mut packet);
        let mut record = Vec::new();
        write_record(&mut record, &packet);
        self.stream.write_all(&record).unwrap();
    }

    /// The first frame that is wanted, and who said it.
    fn hear<T>(&mut self, wanted: impl Fn(Frame<'_>) -> Option<T>) -> (RunId, T) {
        let mut buf = [0; 4096];
        loop {
            let n = self.stream.read(&mut buf).unwrap();
            assert!(n > 0, "the node hung up");
            let (mut found, envelope, sessions) = (None, &self.envelope, &mut self.sessions);
            let record = |record: &mut [u8]| {
                let opened = envelope.open(sessions, Instant::ZERO, record).unwrap();
                let mut frames = Frames::parse(opened.frames).unwrap();
                found = found.take().or(frames.find_map(&wanted).map(|t| (opened.from, t)));
                true
            };
            self.reader.push(&mut buf[..n], record).unwrap();
            if let Some(found) = found {
                return found;
            }
        }
    }
}

/// It asks for much and reads nothing. What waits for it is bounded by `link_queue`, and others are served meanwhile.
#[test]
fn a_peer_that_does_not_read_loses_what_its_queue_cannot_hold() {
    let mut config_a = config("a", &[]);
    config_a.keys.clear();
    // Nobody shall miss the answers to probes.
    set(&mut config_a, "probe_interval", "10m");
    set(&mut config_a, "link_queue", "128KiB");
    let a = Witness::start(&config_a);
    a.node.set_meta(&[("blob", Some(&[1; 60_000]))]).unwrap();
    let (mut forged, host) = Forged::joined(a.node.address().unwrap(), "deaf");
    assert_eq!(a.state_of("deaf"), Some(MemberState::Alive));
    a.until("more is asked for than the kernel and the queue hold", |w| {
        forged.say(Some(host), &Frame::StatePull { run: host, have: Version(0) });
        w.stat("records_dropped") > 0
    });
    let mut config_b = config("b", &[]);
    config_b.keys.clear();
    let b = Witness::start(&config_b);
    assert_eq!(b.node.join(&[&a.address()], FOR), Ok(1));
    b.until("it is served", |w| w.view().find("a").is_some_and(|m| m.meta.contains_key("blob")));
}

// ---- names

/// A label of a host name has 63 letters at most: this one resolves nowhere, and no server needs to be asked.
const NOWHERE: &str = "aaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbccccccccccccccccdddddddddddddddd.invalid:7";

#[test]
fn a_name_that_does_not_resolve_is_an_error_of_the_address_and_counted() {
    let a = Witness::start(&config("a", &[]));
    let b = Witness::start(&config("b", &[]));
    let error = b.node.join(&[NOWHERE], FOR).expect_err("it is nobody's name");
    assert_eq!(error.code, Code::Address, "{error}");
    assert!(error.text.contains(NOWHERE), "{error}");
    assert_eq!(b.stat("names_unresolved"), 1);
    assert_eq!(b.node.join(&[NOWHERE, &a.address()], FOR), Ok(1), "one that answers is enough");
    assert_eq!(b.stat("names_unresolved"), 2);
    b.forget_events();
    assert_eq!(b.node.join(&[NOWHERE], Wait::Now), Ok(0));
    b.until("that join ends too", |w| w.events().iter().any(|e| e.kind == EventKind::Joined && e.count == 0));
}

#[test]
fn a_seed_that_does_not_resolve_is_tried_again_and_again() {
    let mut config = config("a", &[NOWHERE]);
    set(&mut config, "seed_retry_max", "100ms");
    let a = Witness::start(&config);
    a.until("it is asked for anew each time", |w| w.stat("names_unresolved") >= 4);
    a.until("its first picture is complete all the same", |w| w.events().iter().any(|e| e.kind == EventKind::Settled));
}

// ---- time

#[test]
fn a_farewell_that_nobody_answers_ends_in_time() {
    let mut nodes = cluster(2, |config| set(config, "probe_interval", "10m"));
    // It is not known to be dead: nobody has probed it.
    nodes.pop().unwrap().crash();
    let error = nodes[0].node.leave(Wait::For(Duration::from_millis(300))).expect_err("nobody is there");
    assert_eq!(error.code, Code::Timeout, "{error}");
    eventually("it has left all the same", || nodes[0].node.state() == NodeState::Left, String::new);
    assert_eq!(nodes[0].node.leave(FOR), Ok(()));
}

#[test]
fn a_live_option_takes_effect_at_once() {
    let mut nodes = cluster(2, |config| set(config, "forget_dead", "720h"));
    nodes.pop().unwrap().crash();
    let a = &nodes[0];
    a.until("n001 is dead", |w| w.told(EventKind::Dead, "n001"));
    a.node.set("forget_dead", "1s").unwrap();
    a.until("and forgotten", |w| w.told(EventKind::Forgotten, "n001"));
    assert_eq!(a.view().members.len(), 1);
    let error = a.node.set("forget_dead", "1ms").expect_err("out of bounds");
    assert_eq!(error.code, Code::Invalid, "{error}");
}

#[test]
fn who_gets_the_place_of_a_forgotten_member_is_seen_as_itself() {
    let mut config = Config::new();
    config.max_members = 4;
    let mut stage = Stage::among(3, config);
    assert_eq!(stage.state(2), Some(MemberState::Alive));
    stage.hear(2, &[Frame::Left { run: stage::run(2), incarnation: Incarnation(0), age: 0 }]);
    assert_eq!(stage.state(2), Some(MemberState::Left));

    stage.hear(9, &[Frame::Record(stage::record(9, "p9"))]);
    assert_eq!((stage.told(EventKind::Forgotten, 2), stage.told(EventKind::Join, 9)), (1, 1));
    assert_eq!((stage.state(2), stage.state(9)), (None, Some(MemberState::Alive)));
    let view = stage.engine.view(stage.now());
    assert_eq!(view.find("p9").map(|m| m.address), Some(stage::addr(9)));
}

// ---- warnings

#[test]
fn who_is_seen_elsewhere_than_it_advertises_is_warned_once_a_minute() {
    let mut stage = Stage::among(2, Config::new());
    let warnings = |stage: &Stage| -> Vec<String> {
        let warnings = stage.events.iter().filter(|e| e.kind == EventKind::Warning);
        warnings.map(|e| e.text.as_ref().unwrap().to_string()).collect()
    };
    let seen_at = |stage: &mut Stage, observed: &str| {
        stage.hear(1, &[Frame::Cookie { cookie: [0; 16], observed: observed.parse().unwrap() }]);
    };
    // A loopback address tells nothing about how the world sees us; nor does another port, as NAT makes them.
    seen_at(&mut stage, "127.0.0.1:7000");
    seen_at(&mut stage, &format!("{}:9", stage::addr(0).ip()));
    assert_eq!(warnings(&stage), Vec::<String>::new());
    seen_at(&mut stage, "203.0.113.9:7000");
    seen_at(&mut stage, "203.0.113.9:7000");
    let [warning] = &warnings(&stage)[..] else { panic!("{:?}", warnings(&stage)) };
    assert!(warning.contains("203.0.113.9") && warning.contains(&stage::addr(0).to_string()), "{warning}");
    stage.answering(ms(61_000), |_, _| true);
    seen_at(&mut stage, "203.0.113.9:7000");
    assert_eq!(warnings(&stage).len(), 2);
}
