//! Whatever is written is read back; whatever else arrives is refused or harmless.

mod samples;

use bruit_core::id::{COUNTER_MAX, Epoch, Incarnation, RunId, Version};
use bruit_core::rng::Rng;
use bruit_core::wire::cursor::{Reader, Writer};
use bruit_core::wire::frame::{
    Beats, Contact, Contacts, Entries, Frame, Frames, Gossip, Graft, HELLO_LEN, Ihave, Item, ItemKind, Lane, Marks,
    Record, Runs, Spans, StateEntry, SummaryEntry, Way,
};
use bruit_core::wire::question::{COPIES_MAX, Terms, Texts};
use core::net::SocketAddr;
use proptest::prelude::*;
use samples::{KINDS, Stock, encoded, kind};

/// All that a frame may be made of.
#[derive(Clone, Debug)]
struct Parts {
    kind: usize,
    counters: [u64; 4],
    numbers: [u64; 2],
    shorts: [u32; 4],
    run: RunId,
    addr: SocketAddr,
    name: String,
    text: String,
    runs: Vec<u8>,
    beats: Vec<u8>,
    contacts: Vec<u8>,
    spans: Vec<u8>,
    marks: Vec<u8>,
    terms: Vec<u8>,
    state: Vec<u8>,
    summary: Vec<u8>,
    sums: Vec<u8>,
    bits: u32,
    yes: bool,
}

/// Small and large alike, as varints have them.
fn number(most: u64) -> impl Strategy<Value = u64> {
    prop_oneof![0..=127u64, 0..=most, Just(most)]
}

fn run() -> impl Strategy<Value = RunId> {
    (1..=u64::MAX).prop_map(|id| RunId::new(id).unwrap())
}

fn addr() -> impl Strategy<Value = SocketAddr> {
    let v4 = (any::<[u8; 4]>(), 1..=u16::MAX).prop_map(|(ip, port)| SocketAddr::new(ip.into(), port));
    let v6 = (any::<[u8; 16]>(), 1..=u16::MAX).prop_map(|(ip, port)| SocketAddr::new(ip.into(), port));
    prop_oneof![v4, v6]
}

fn runs() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(run(), 0..=8).prop_map(|runs| {
        let mut bytes = Vec::new();
        runs.into_iter().for_each(|run| Runs::push(&mut bytes, run));
        bytes
    })
}

fn beats() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec((run(), number(COUNTER_MAX)), 0..20).prop_map(|counts| {
        let mut bytes = Vec::new();
        counts.into_iter().for_each(|(run, count)| Beats::push(&mut bytes, run, count));
        bytes
    })
}

fn contacts() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec((run(), addr()), 0..=8).prop_map(|contacts| {
        let mut bytes = Vec::new();
        contacts.into_iter().for_each(|(run, addr)| Contacts::push(&mut bytes, Contact { run, addr }));
        bytes
    })
}

fn spans() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec((number(COUNTER_MAX), number(COUNTER_MAX)), 0..=8).prop_map(|spans| {
        let mut bytes = Vec::new();
        spans.into_iter().for_each(|(a, b)| Spans::push(&mut bytes, a.min(b), a.max(b)));
        bytes
    })
}

fn marks() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec((run(), number(COUNTER_MAX)), 0..20).prop_map(|marks| {
        let mut bytes = Vec::new();
        marks.into_iter().for_each(|(run, seq)| Marks::push(&mut bytes, run, seq));
        bytes
    })
}

/// Of a question, or of none.
fn terms() -> impl Strategy<Value = Vec<u8>> {
    let texts = |pattern| prop::collection::vec(pattern, 0..4);
    let numbers = (number(COUNTER_MAX), any::<u32>(), any::<bool>(), 0..=COPIES_MAX);
    prop::option::of((numbers, texts("[a-z字.-]{1,80}"), texts("[a-zé]{1,80}(=\\PC{0,16})?"))).prop_map(|terms| {
        let (mut bytes, mut lists) = (Vec::new(), [Vec::new(), Vec::new()]);
        let Some(((id, patience, acks, relay), names, tags)) = terms else { return bytes };
        names.iter().for_each(|text| Texts::push(&mut lists[0], text));
        tags.iter().for_each(|text| Texts::push(&mut lists[1], text));
        let terms = Terms { id, patience, acks, relay, names: Texts(&lists[0]), tags: Texts(&lists[1]) };
        terms.write(&mut bytes);
        bytes
    })
}

fn state() -> impl Strategy<Value = Vec<u8>> {
    let value = prop::option::of(prop::collection::vec(any::<u8>(), 0..200));
    prop::collection::vec(("[a-zé]{1,80}", number(COUNTER_MAX), value), 0..6).prop_map(|entries| {
        let mut bytes = Vec::new();
        for (key, version, value) in &entries {
            Entries::push(&mut bytes, &StateEntry { key, version: Version(*version), value: value.as_deref() });
        }
        bytes
    })
}

fn summary() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec((run(), [number(COUNTER_MAX), number(COUNTER_MAX), number(COUNTER_MAX)]), 0..20).prop_map(
        |entries| {
            let mut bytes = Vec::new();
            for (run, [e, i, v]) in entries {
                Entries::push(
                    &mut bytes,
                    &SummaryEntry { run, epoch: Epoch(e), incarnation: Incarnation(i), version: Version(v) },
                );
            }
            bytes
        },
    )
}

fn parts() -> impl Strategy<Value = Parts> {
    let counter = || number(COUNTER_MAX);
    let plain = (0..KINDS, [counter(), counter(), counter(), counter()], [number(u64::MAX), number(u64::MAX)]);
    let shorts = any::<[u32; 4]>();
    let words = (run(), addr(), "[a-z字.-]{1,80}", "\\PC{0,16}");
    let lists = (runs(), state(), summary(), 0..=7u32, beats());
    let more = (contacts(), spans(), marks(), terms());
    (plain, shorts, words, lists, any::<bool>(), more).prop_map(|(plain, shorts, words, lists, yes, more)| Parts {
        kind: plain.0,
        counters: plain.1,
        numbers: plain.2,
        shorts,
        run: words.0,
        addr: words.1,
        name: words.2,
        text: words.3,
        runs: lists.0,
        beats: lists.4,
        state: lists.1,
        summary: lists.2,
        sums: (0..4usize << lists.3).map(|i| (i * 37) as u8).collect(),
        bits: lists.3,
        yes,
        contacts: more.0,
        spans: more.1,
        marks: more.2,
        terms: more.3,
    })
}

impl Parts {
    fn frame(&self) -> Frame<'_> {
        let [a, b, c, d] = self.counters;
        let [seq, fingerprint] = self.numbers;
        let [s, t, u, v] = self.shorts;
        let (run, incarnation, runs) = (self.run, Incarnation(a), Runs(&self.runs));
        let (cookie, observed) = ([s as u8; 16], self.addr);
        let (name, entries) = (&*self.name, Entries(&self.state));
        let node = Contact { run, addr: self.addr };
        let record = Record {
            name,
            run,
            epoch: Epoch(b),
            incarnation,
            addr: self.addr,
            protocol: s,
            app_version: t,
            version: Version(c),
            age: d,
            state: entries,
        };
        match self.kind {
            0 => Frame::Hello { protocol: (s, t), app: (u, v), name, epoch: Epoch(a) },
            1 => Frame::Cookie { cookie, observed },
            2 => Frame::Refused { reason: s, text: &self.text },
            3 => Frame::Join { cookie, record, seeks: self.yes.then_some(t / 2) },
            4 => Frame::Welcome { known_epoch: Epoch(a), live: seq, fingerprint },
            5 => Frame::Ping { seq, beat: a, fingerprint },
            6 => Frame::Ack { seq, beat: a, fingerprint },
            7 => Frame::PingReq { seq, target: run, addr: self.addr },
            8 => Frame::Nack { seq },
            9 => Frame::Record(record),
            10 => Frame::Alive { run, incarnation },
            11 => Frame::Suspect { run, incarnation, accusers: runs },
            12 => Frame::Dead { run, incarnation, age: b },
            13 => Frame::Left { run, incarnation, age: b },
            14 => Frame::State { run, base: Version(a), to: Version(b), reset: self.yes, entries },
            15 => Frame::StateNews { run, version: Version(a) },
            16 => Frame::StatePull { run, have: Version(a) },
            17 => Frame::Digest { sums: &self.sums },
            18 => Frame::Summary { bits: self.bits, bucket: s % (1 << self.bits), entries: Entries(&self.summary) },
            19 => Frame::Want { runs },
            20 => Frame::TablePull { cursor: s },
            21 => Frame::TableNext { cursor: s },
            22 => Frame::Heartbeats { idle: a, fingerprint, beats: Beats(&self.beats) },
            23 => Frame::Message { topic: &self.text, data: &self.state },
            24 => Frame::Item(Item {
                lane: Lane::ALL[s as usize % 3],
                prompt: !self.yes,
                session: a,
                seq: b,
                behind: b / 3,
                kind: ItemKind(s),
                id: seq,
                status: t,
                rest: fingerprint,
                after: c,
                topic: &self.text,
                data: &self.summary,
            }),
            25 => Frame::ItemAck { lane: Lane::ALL[s as usize % 3], session: a, upto: b, room: seq },
            26 => Frame::OverlayJoin,
            27 => Frame::ForwardJoin { ttl: s, node },
            28 => Frame::Neighbor { urgent: self.yes, record: (a % 2 == 0).then_some(record) },
            29 => Frame::NeighborReply { accepted: self.yes, record: (a % 2 == 0).then_some(record) },
            30 => Frame::Disconnect { instead: self.yes.then_some(node) },
            31 => Frame::Shuffle { ttl: s, node, contacts: Contacts(&self.contacts) },
            32 => Frame::ShuffleReply { contacts: Contacts(&self.contacts) },
            33 => Frame::Gossip(Gossip {
                origin: run,
                seq: a,
                hops: s,
                age: seq,
                way: Way { repair: self.yes, own: b % 2 == 0, lot: b % 3 == 0 },
                topic: &self.text,
                data: &self.state,
                after: a / 2,
                terms: &self.terms,
                by: (c % 2 == 0).then_some((name, Epoch(b))),
            }),
            34 => Frame::Ihave(Ihave { origin: run, first: a.min(b), last: a.max(b), hops: s, own: self.yes }),
            35 => Frame::Graft(Graft {
                origin: run,
                grow: self.yes,
                own: b % 2 == 0,
                here: seq,
                spans: Spans(&self.spans),
            }),
            36 => Frame::Prune { origin: run, own: self.yes },
            37 => Frame::Idontwant { origin: run, seq: a },
            38 => Frame::Vector { ask: self.yes, neighbour: b % 2 == 0, marks: Marks(&self.marks) },
            39 => Frame::Gone { origin: run, upto: a, before: self.yes, age: seq },
            _ => Frame::Stalled { run, left: b },
        }
    }
}

/// Reads all of it, to the last entry. None of it may panic, and nothing read is larger than what it was read from.
fn read_all(bytes: &[u8]) -> Option<usize> {
    let frames = Frames::parse(bytes).ok()?;
    Some(frames.inspect(|frame| assert!(entries(frame) <= bytes.len())).count())
}

/// How many entries it has, with a look at each of them.
fn entries(frame: &Frame<'_>) -> usize {
    let state = |entries: Entries<'_>| {
        entries
            .iter::<StateEntry<'_>>()
            .inspect(|e| assert!(!e.key.is_empty() && e.version.0 <= COUNTER_MAX))
            .map(|e| 1 + e.value.map_or(0, <[u8]>::len).min(1))
            .sum()
    };
    match frame {
        Frame::Record(record) | Frame::Join { record, .. } => state(record.state),
        Frame::State { entries, .. } => state(*entries),
        Frame::Summary { entries, .. } => {
            entries.iter::<SummaryEntry>().inspect(|e| assert!(e.epoch.0 <= COUNTER_MAX)).count()
        }
        Frame::Heartbeats { beats, .. } => beats.iter().inspect(|(_, n)| assert!(*n <= COUNTER_MAX)).count(),
        Frame::Suspect { accusers: runs, .. } | Frame::Want { runs } => runs.iter().count(),
        Frame::Shuffle { contacts, .. } | Frame::ShuffleReply { contacts } => contacts.iter().count(),
        Frame::Graft(Graft { spans, .. }) => {
            spans.iter().inspect(|(first, last)| assert!(first <= last && *last <= COUNTER_MAX)).count()
        }
        Frame::Gossip(gossip) if !gossip.terms.is_empty() => {
            let terms = Terms::read(gossip.terms).expect("checked when the frame was read");
            terms.names.iter().chain(terms.tags.iter()).inspect(|text| assert!(!text.is_empty())).count()
        }
        Frame::Vector { marks, .. } => marks.iter().inspect(|(_, seq)| assert!(*seq <= COUNTER_MAX)).count(),
        _ => 0,
    }
}

/// The body of one encoded frame.
fn body(bytes: &[u8]) -> &[u8] {
    Reader::new(&bytes[1..]).bytes().unwrap()
}

fn with_body(bytes: &[u8], body: &[u8]) -> Vec<u8> {
    let mut other = vec![bytes[0]];
    Writer(&mut other).bytes(body);
    other
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read(parts in parts()) {
        let frame = parts.frame();
        prop_assert_eq!(kind(&frame), parts.kind);
        let bytes = encoded(&frame);
        let read: Vec<Frame<'_>> = Frames::parse(&bytes).unwrap().collect();
        prop_assert_eq!(read, vec![frame]);
    }

    #[test]
    fn a_packet_holds_its_frames_in_order(many in prop::collection::vec(parts(), 0..12)) {
        let frames: Vec<Frame<'_>> = many.iter().map(Parts::frame).collect();
        let packet: Vec<u8> = frames.iter().flat_map(encoded).collect();
        prop_assert!(Frames::parse(&packet).unwrap().eq(frames));
    }

    /// What a newer version adds to the end of a body does not disturb an older reader.
    #[test]
    fn more_at_the_end_of_a_body_is_ignored(parts in parts(), more in prop::collection::vec(any::<u8>(), 1..40)) {
        let frame = parts.frame();
        // A last field of 0 is left out, as long as nothing follows it.
        prop_assume!(!matches!(frame, Frame::Ping { fingerprint: 0, .. } | Frame::Ack { fingerprint: 0, .. }));
        let bytes = encoded(&frame);
        let longer = with_body(&bytes, &[body(&bytes), &more].concat());
        prop_assert!(Frames::parse(&longer).unwrap().eq([frame]));
    }

    /// The body of an older version, which knows fewer fields: defaults, or refused; and what follows is read all the same.
    #[test]
    fn less_at_the_end_of_a_body_is_a_default_or_refused(parts in parts(), keep in 0.0..1.0f64) {
        let (bytes, next) = (encoded(&parts.frame()), Frame::Nack { seq: 77 });
        let whole = body(&bytes);
        let shorter = with_body(&bytes, &whole[..(whole.len() as f64 * keep) as usize]);
        let packet = [shorter, encoded(&next)].concat();
        if let Ok(frames) = Frames::parse(&packet) {
            let read: Vec<Frame<'_>> = frames.collect();
            prop_assert_eq!(read.len(), 2);
            prop_assert_eq!(kind(&read[0]), parts.kind);
            prop_assert_eq!(read[1], next);
        }
    }

    /// Cut off on the way, a packet's last frame is missed: it is never taken for a shorter one.
    #[test]
    fn a_packet_cut_short_is_refused(parts in parts(), keep in 0.0..1.0f64) {
        let bytes = encoded(&parts.frame());
        let cut = ((bytes.len() as f64 * keep) as usize).max(1);
        prop_assert!(cut == bytes.len() || Frames::parse(&bytes[..cut]).is_err());
    }

    /// A frame never reaches into the next one, whatever its body says.
    #[test]
    fn a_flipped_bit_in_a_body_leaves_the_next_frame_alone(parts in parts(), at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let (bytes, next) = (encoded(&parts.frame()), Frame::Nack { seq: 77 });
        let mut bent = body(&bytes).to_vec();
        if !bent.is_empty() {
            let at = at.index(bent.len());
            bent[at] ^= 1u8 << bit;
        }
        let packet = [with_body(&bytes, &bent), encoded(&next)].concat();
        if let Ok(frames) = Frames::parse(&packet) {
            prop_assert_eq!(frames.last(), Some(next));
        }
    }
}

#[test]
fn every_truncation_and_every_flipped_bit_is_refused_or_harmless() {
    let stock = Stock::new();
    for (name, frame) in stock.frames() {
        let bytes = encoded(&frame);
        assert_eq!(read_all(&bytes), Some(1), "{name}");
        for cut in 1..bytes.len() {
            assert_eq!(read_all(&bytes[..cut]), None, "{name} cut at {cut}");
        }
        for bit in 0..8 * bytes.len() {
            let mut bent = bytes.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            if read_all(&bent).is_some() {
                // Nor may a transcript of it.
                Frames::parse(&bent).into_iter().flatten().for_each(|frame| assert!(!frame.to_string().is_empty()));
            }
        }
    }
}

/// A random datagram: noise, or samples with some of their bytes changed, cut or repeated.
fn datagram(rng: &mut Rng, samples: &[Vec<u8>], bytes: &mut Vec<u8>) {
    bytes.clear();
    if rng.chance(1, 3) {
        let len = rng.index(64);
        bytes.extend((0..len).map(|_| rng.next_u64() as u8));
        return;
    }
    for _ in 0..=rng.index(3) {
        bytes.extend_from_slice(&samples[rng.index(samples.len())]);
    }
    for _ in 0..rng.index(4) {
        let at = rng.index(bytes.len());
        bytes[at] = [rng.next_u64() as u8, 0, 0x7f, 0x80, 0xff, bytes[at] ^ 1][rng.index(6)];
    }
    if rng.chance(1, 4) {
        bytes.truncate(rng.index(bytes.len() + 1));
    }
}

fn parse_random(seed: u64, count: u32) -> (u32, u32) {
    let (stock, mut rng, mut bytes) = (Stock::new(), Rng::new(seed), Vec::new());
    let samples: Vec<Vec<u8>> = stock.frames().iter().map(|(_, frame)| encoded(frame)).collect();
    let (mut good, mut bad) = (0, 0);
    for _ in 0..count {
        datagram(&mut rng, &samples, &mut bytes);
        match read_all(&bytes) {
            Some(frames) => good += frames.min(1) as u32,
            None => bad += 1,
        }
    }
    (good, bad)
}

#[test]
fn a_million_random_datagrams_are_read_without_a_panic() {
    let (good, bad) = parse_random(1, 1_000_000);
    assert!(good > 100_000 && bad > 100_000, "a test that exercises both: {good} well formed, {bad} not");
}

#[test]
#[ignore = "minutes: for a soak"]
fn a_hundred_million_random_datagrams_are_read_without_a_panic() {
    for seed in 0..100 {
        parse_random(seed, 1_000_000);
    }
}

#[test]
fn a_hello_is_never_shorter_than_its_answers() {
    let stock = Stock::new();
    let len = |wanted: usize| {
        let frames = stock.frames();
        let lens = frames.iter().filter(|(_, f)| kind(f) == wanted).map(|(_, f)| encoded(f).len());
        (lens.clone().min().unwrap(), lens.max().unwrap())
    };
    let (hello, cookie, refused) = (len(0).0, len(1).1, len(2).1);
    assert!(hello > HELLO_LEN && cookie <= hello && refused <= hello);
}
