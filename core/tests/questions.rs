//! Questions to many in the simulated world: one fact a test.

#![cfg(feature = "sim")]

use std::collections::BTreeSet;

use bruit_core::config::Config;
use bruit_core::engine::{Counters, Question};
use bruit_core::error::{Code, Result};
use bruit_core::message::{Gathered, Manner};
use bruit_core::outbox::Completion;
use bruit_core::sim::{Network, NodeIndex, World};
use bruit_core::time::Duration;
use bruit_core::view::MemberState;
use bruit_core::wire::frame::{Frame, Item, ItemKind, Lane};
use bruit_core::wire::question::Relayed;

fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn formed(seed: u64, n: usize) -> (World, Vec<NodeIndex>) {
    let mut world = World::new(seed);
    let nodes: Vec<NodeIndex> = (0..n).map(|i| world.add(&format!("n{i}"), Config::new())).collect();
    world.acquaint(&nodes);
    world.run_for(secs(1));
    (world, nodes)
}

/// A question of everybody, about nothing in particular.
const ALL: Question<'_> = Question {
    topic: "load",
    data: b"?",
    names: &[],
    tags: &[],
    timeout: None,
    relay: 0,
    acks: false,
    loopback: false,
};

fn ask(world: &mut World, i: NodeIndex, question: &Question<'_>) -> Result<u64> {
    world.call(i, |engine, now, out| engine.query(now, question, out))
}

/// Who has answered that question of `i`, each once.
fn answered(world: &World, i: NodeIndex, id: u64) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for completion in world.completions(i) {
        let Completion::Answered { id: of, answer } = completion else { continue };
        if *of == id {
            assert_eq!(answer.said.as_ref().map(|body| body.data()), Ok(&b"?"[..]), "the applications here repeat");
            assert!(names.insert(answer.from.to_string()), "{} has answered twice", answer.from);
        }
    }
    names
}

fn heard(world: &World, i: NodeIndex, id: u64) -> BTreeSet<String> {
    let heard = |c: &Completion| match c {
        Completion::Heard { id: of, by } if *of == id => Some(by.to_string()),
        _ => None,
    };
    world.completions(i).iter().filter_map(heard).collect()
}

/// How it ended, if it has; once.
fn end(world: &World, i: NodeIndex, id: u64) -> Option<Gathered> {
    let ends = world.completions(i).iter().filter_map(|c| match c {
        Completion::Gathered { id: of, gathered } if *of == id => Some(*gathered),
        _ => None,
    });
    let ends: Vec<Gathered> = ends.collect();
    assert!(ends.len() <= 1, "question {id} ends {} times", ends.len());
    ends.first().copied()
}

/// Runs until the question has ended.
fn gather(world: &mut World, i: NodeIndex, id: u64) -> Gathered {
    world.run_until(secs(120), |w| end(w, i, id).is_some()).expect("every question ends");
    end(world, i, id).expect("it has")
}

fn sum(world: &World, nodes: &[NodeIndex], count: impl Fn(&Counters) -> u64) -> u64 {
    nodes.iter().map(|&i| count(world.engine(i).counters())).sum()
}

fn tag(world: &mut World, i: NodeIndex, key: &str, value: &[u8]) {
    world.call(i, |e, now, out| e.set_meta(now, &[(key, Some(value))], out)).expect("it fits");
}

#[test]
fn a_question_to_all_ends_with_the_last_answer() {
    for (n, limit) in [(2, 100), (3, 100), (10, 250), (50, 400), (300, 700)] {
        for seed in 0..3 {
            let (mut world, nodes) = formed(seed, n);
            let before = world.now().mono;
            let id = ask(&mut world, nodes[0], &ALL).unwrap();
            let gathered = gather(&mut world, nodes[0], id);
            let took = world.now().mono.since(before);
            let all = Gathered { asked: n - 1, answered: n - 1, ..Gathered::default() };
            assert_eq!(gathered, all, "{n} nodes, seed {seed}");
            assert!(took < ms(limit), "{n} nodes, seed {seed}: {took:?}");
            assert_eq!(answered(&world, nodes[0], id).len(), n - 1);
            world.run_for(secs(10));
            assert_eq!(sum(&world, &nodes, |c| c.answers_unasked + c.answer_copies + c.queries_late), 0);
        }
    }
}

#[test]
fn each_is_asked_once_however_the_question_came() {
    let (mut world, nodes) = formed(1, 20);
    world.set_network(Network { duplicate: 0.5, ..Network::lossy(0.2) }).unwrap();
    let id = ask(&mut world, nodes[3], &Question { timeout: Some(secs(10)), ..ALL }).unwrap();
    gather(&mut world, nodes[3], id);
    world.run_for(secs(20));
    for &i in nodes.iter().filter(|&&i| i != nodes[3]) {
        let asked = world.messages(i).iter().filter(|(_, m)| matches!(m.manner, Manner::Query(_))).count();
        assert_eq!(asked, 1, "{}", world.name(i));
    }
}

#[test]
fn only_those_answer_whom_it_is_for_and_the_others_pass_it_on() {
    let (mut world, nodes) = formed(2, 40);
    for (k, &i) in nodes[..8].iter().enumerate() {
        tag(&mut world, i, "role", if k % 2 == 0 { b"db" } else { b"web" });
    }
    tag(&mut world, nodes[2], "zone", b"eu");
    world.run_for(secs(5));
    let asker = nodes[39];
    for (names, tags, expected) in [
        (&[][..], &["role"][..], &["n0", "n1", "n2", "n3", "n4", "n5", "n6", "n7"][..]),
        (&[], &["role=db"], &["n0", "n2", "n4", "n6"]),
        (&[], &["role=db", "zone"], &["n2"]),
        (&["n1", "n2", "n20"], &[], &["n1", "n2", "n20"]),
        (&["n1", "n2", "n20"], &["role"], &["n1", "n2"]),
    ] {
        let id = ask(&mut world, asker, &Question { names, tags, ..ALL }).unwrap();
        let gathered = gather(&mut world, asker, id);
        assert_eq!((gathered.asked, gathered.why), (expected.len(), None), "{names:?} {tags:?}");
        assert!(answered(&world, asker, id).iter().eq(expected), "{names:?} {tags:?}");
        world.run_for(secs(1));
    }
    let others = sum(&world, &nodes, |c| c.queries_unmatched);
    assert_eq!(others, (39 - 8) + (39 - 4) + (39 - 1) + (39 - 3) + (39 - 2));
}

#[test]
fn a_question_for_nobody_ends_at_once_and_is_not_told() {
    let (mut world, nodes) = formed(3, 5);
    for question in [Question { tags: &["role"], ..ALL }, Question { names: &["nobody"], ..ALL }] {
        let id = ask(&mut world, nodes[0], &question).unwrap();
        assert_eq!(end(&world, nodes[0], id), Some(Gathered::default()));
    }
    assert_eq!(world.engine(nodes[0]).counters().broadcasts, 0);
}

#[test]
fn who_asks_is_asked_too_where_it_wants_to_be() {
    let (mut world, nodes) = formed(4, 5);
    let id = ask(&mut world, nodes[0], &Question { loopback: true, acks: true, ..ALL }).unwrap();
    let gathered = gather(&mut world, nodes[0], id);
    assert_eq!((gathered.asked, gathered.answered), (5, 5));
    assert!(answered(&world, nodes[0], id).contains("n0"));
    // Alone.
    let id = ask(&mut world, nodes[0], &Question { loopback: true, names: &["n0"], ..ALL }).unwrap();
    assert_eq!(end(&world, nodes[0], id).map(|g| (g.asked, g.answered)), Some((1, 1)));
}

/// What a datagram loses goes again by stream; of many losses in a row a stream makes seconds, and then another way is quicker.
#[test]
fn with_loss_all_answer_in_time() {
    for (loss, relay) in [(0.1, 0), (0.3, 2)] {
        for seed in 0..30 {
            let (mut world, nodes) = formed(seed, 30);
            world.set_network(Network::lossy(loss)).unwrap();
            let id = ask(&mut world, nodes[0], &Question { timeout: Some(secs(8)), relay, ..ALL }).unwrap();
            let gathered = gather(&mut world, nodes[0], id);
            assert_eq!(gathered.answered, 29, "loss {loss}, seed {seed}: {gathered:?}");
        }
    }
}

/// Six of twenty hear the asker, and it does not hear them. Without relays their answers are lost; with three relays for each they
/// come, unless all three are among the six themselves: once in 80.
#[test]
fn relays_bring_the_answers_of_those_whose_packets_do_not_arrive() {
    let (mut answered_by, mut heard_by) = (0, 0);
    for seed in 0..10 {
        let run = |relay, answers| {
            let (mut world, nodes) = formed(seed, 20);
            // Awake before, so that the cut hits a tree that stands.
            world.broadcast(nodes[5], "news", b"good morning").unwrap();
            world.run_for(secs(2));
            nodes[1..7].iter().for_each(|&i| world.cut(i, nodes[0]));
            world.answers = answers;
            let question = Question { relay, timeout: Some(secs(3)), acks: true, ..ALL };
            let id = ask(&mut world, nodes[0], &question).unwrap();
            let gathered = gather(&mut world, nodes[0], id);
            (gathered, answered(&world, nodes[0], id), heard(&world, nodes[0], id), world)
        };
        let lame = |names: &BTreeSet<String>| (1..7).filter(|i| names.contains(&format!("n{i}"))).count();
        let (gathered, names, acks, _) = run(0, true);
        assert_eq!((lame(&names), lame(&acks)), (0, 0), "seed {seed}");
        assert_eq!((gathered.answered, gathered.why), (13, Some(Code::Timeout)), "seed {seed}");
        let (gathered, names, _, world) = run(3, true);
        assert_eq!(gathered.answered, 13 + lame(&names), "seed {seed}");
        answered_by += lame(&names);
        let (_, _, acks, _) = run(3, false);
        heard_by += lame(&acks);
        let nodes: Vec<NodeIndex> = (0..20).collect();
        // Two words of each by way of three; not one more.
        assert!(sum(&world, &nodes, |c| c.answers_relayed) <= 19 * 2 * 3);
        assert_eq!(sum(&world, &nodes, |c| c.relays_refused), 0);
    }
    assert!(answered_by >= 57 && heard_by >= 57, "of 60: {answered_by}, {heard_by}");
}

#[test]
fn beyond_a_partition_nobody_is_heard_and_who_hears_it_later_does_not_answer() {
    let (mut world, nodes) = formed(5, 10);
    world.broadcast(nodes[5], "news", b"good morning").unwrap();
    world.run_for(secs(2));
    world.part(&nodes[..5], &nodes[5..]);
    let id = ask(&mut world, nodes[0], &Question { timeout: Some(secs(2)), ..ALL }).unwrap();
    let gathered = gather(&mut world, nodes[0], id);
    assert_eq!((gathered.asked, gathered.answered, gathered.why), (9, 4, Some(Code::Timeout)));
    world.heal();
    world.run_for(secs(60));
    assert_eq!(sum(&world, &nodes, |c| c.queries_late), 5, "they have heard it");
    assert_eq!(sum(&world, &nodes, |c| c.answers_unasked), 0, "and said nothing");
}

#[test]
fn the_dead_are_not_waited_for() {
    let (mut world, nodes) = formed(6, 10);
    world.kill(nodes[3]);
    world.power_off(nodes[4]);
    let id = ask(&mut world, nodes[0], &Question { timeout: Some(secs(100)), ..ALL }).unwrap();
    let before = world.now().mono;
    let gathered = gather(&mut world, nodes[0], id);
    let counts = (gathered.asked, gathered.answered, gathered.gone, gathered.why);
    assert_eq!(counts, (9, 7, 2, None));
    assert!(world.now().mono.since(before) < secs(30), "as soon as they are declared dead");
    assert_eq!(world.state(nodes[0], nodes[3]), Some(MemberState::Dead));
}

#[test]
fn who_joins_afterwards_is_not_asked() {
    let (mut world, nodes) = formed(7, 5);
    world.answers = false;
    let id = ask(&mut world, nodes[0], &Question { timeout: Some(secs(20)), ..ALL }).unwrap();
    world.run_for(secs(2));
    world.answers = true;
    let seed = world.address(nodes[1]).to_string();
    let mut config = Config::new();
    config.seeds = vec![seed];
    let late = world.add("late", config);
    let gathered = gather(&mut world, nodes[0], id);
    assert_eq!((gathered.asked, gathered.answered), (4, 0));
    assert_eq!(world.live(nodes[0]), 6);
    assert!(world.messages(late).is_empty(), "it was said before it was there");
}

#[test]
fn acknowledgements_say_who_has_heard_a_question_that_nobody_answers() {
    let (mut world, nodes) = formed(8, 12);
    world.answers = false;
    let id = ask(&mut world, nodes[0], &Question { acks: true, relay: 2, ..ALL }).unwrap();
    let gathered = gather(&mut world, nodes[0], id);
    assert_eq!((gathered.heard, gathered.answered, gathered.why), (11, 0, Some(Code::Timeout)));
    assert_eq!(heard(&world, nodes[0], id).len(), 11);
    assert_eq!(world.engine(nodes[0]).counters().answer_copies, 22, "each came by way of two others as well");
}

#[test]
fn an_answer_after_the_time_is_refused_where_it_is_given() {
    let (mut world, nodes) = formed(9, 3);
    world.answers = false;
    ask(&mut world, nodes[0], &Question { timeout: Some(ms(500)), ..ALL }).unwrap();
    world.run_for(ms(300));
    let (_, asked) = &world.messages(nodes[1])[0];
    let (Manner::Query(query), run) = (asked.manner, asked.run) else { panic!("it was asked") };
    let answer = |world: &mut World| {
        world.call(nodes[1], |e, now, out| e.answer_query(now, run, query, Ok(b"?"), out)).map_err(|e| e.code)
    };
    let large = vec![0; world.config(nodes[1]).query_answer_max + 1];
    let too_big = world.call(nodes[1], |e, now, out| e.answer_query(now, run, query, Ok(&large), out));
    assert_eq!(too_big.map_err(|e| e.code), Err(Code::TooBig));
    assert_eq!(answer(&mut world), Ok(()));
    world.run_for(ms(300));
    assert_eq!(answer(&mut world), Err(Code::Timeout));
}

#[test]
fn who_gives_a_question_up_hears_no_more_of_it() {
    let (mut world, nodes) = formed(10, 10);
    let id = ask(&mut world, nodes[0], &ALL).unwrap();
    assert!(world.call(nodes[0], |e, _, out| e.cancel(id, out)));
    assert!(!world.call(nodes[0], |e, _, out| e.cancel(id, out)));
    assert_eq!(end(&world, nodes[0], id).and_then(|g| g.why), Some(Code::Canceled));
    world.run_for(secs(5));
    assert_eq!(answered(&world, nodes[0], id).len(), 0);
    assert_eq!(world.engine(nodes[0]).counters().answers_unasked, 9);
}

#[test]
fn questions_end_when_their_asker_leaves() {
    let (mut world, nodes) = formed(11, 5);
    world.answers = false;
    let id = ask(&mut world, nodes[0], &ALL).unwrap();
    world.call(nodes[0], |e, now, out| e.leave(now, secs(1), out)).unwrap();
    world.run_for(secs(2));
    assert_eq!(end(&world, nodes[0], id).and_then(|g| g.why), Some(Code::Canceled));
}

/// An item of a member that keeps to no rule.
fn item(kind: ItemKind, seq: u64, id: u64, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let session = 1_000;
    let item = Item {
        lane: Lane::Small,
        prompt: false,
        session,
        seq,
        behind: 0,
        kind,
        id,
        status: 0,
        rest: 0,
        after: 0,
        topic: "",
        data,
    };
    Frame::Item(item).write(&mut bytes);
    bytes
}

#[test]
fn forged_answers_are_dropped_and_counted() {
    let (mut world, nodes) = formed(12, 6);
    world.answers = false;
    let id = ask(&mut world, nodes[0], &Question { names: &["n1", "n2"], ..ALL }).unwrap();
    world.run_for(ms(200));
    let run = |world: &World, i: usize| world.run_id(nodes[i]);
    let relayed = |world: &World, to: usize, by: usize, kind: ItemKind| {
        let mut data = Vec::new();
        Relayed { to: run(world, to), by: run(world, by), kind, data: b"?" }.write(&mut data);
        data
    };
    // By whom it was not for; of a question that nobody asked; too large.
    world.inject(nodes[3], nodes[0], &item(ItemKind::ANSWER, 0, id, b"?"));
    world.inject(nodes[1], nodes[0], &item(ItemKind::ANSWER, 0, id + 7, b"?"));
    world.inject(nodes[1], nodes[0], &item(ItemKind::HEARD, 1, id + 7, b"?"));
    assert_eq!(world.engine(nodes[0]).counters().answers_unasked, 3);
    world.inject(nodes[1], nodes[0], &item(ItemKind::ANSWER, 2, id, &vec![0; (64 << 10) + 1]));
    assert_eq!(world.engine(nodes[0]).counters().answers_refused, 1);
    // To be passed on for somebody else, to nobody, as what is no answer, or as nothing.
    let foreign = relayed(&world, 0, 2, ItemKind::ANSWER);
    world.inject(nodes[3], nodes[4], &item(ItemKind::RELAY, 0, id, &foreign));
    world.inject(nodes[3], nodes[4], &item(ItemKind::RELAY, 1, id, &foreign[..9]));
    assert_eq!(world.engine(nodes[4]).counters().relays_refused, 2);
    let odd = relayed(&world, 0, 4, ItemKind::MESSAGE);
    world.inject(nodes[4], nodes[0], &item(ItemKind::RELAY, 0, id, &odd));
    assert_eq!(world.engine(nodes[0]).counters().relays_refused, 1);
    assert_eq!(answered(&world, nodes[0], id).len(), 0);
    // And as it ought to be: twice, which counts once.
    let right = relayed(&world, 0, 1, ItemKind::ANSWER);
    world.inject(nodes[4], nodes[0], &item(ItemKind::RELAY, 1, id, &right));
    world.inject(nodes[1], nodes[0], &item(ItemKind::ANSWER, 3, id, b"?"));
    assert_eq!(answered(&world, nodes[0], id).len(), 1);
    assert_eq!(world.engine(nodes[0]).counters().answer_copies, 1);
}

#[test]
fn a_question_that_cannot_be_is_refused_and_not_told() {
    let (mut world, nodes) = formed(13, 3);
    world.answers = false;
    let me = nodes[0];
    let code = |world: &mut World, question: &Question<'_>| ask(world, me, question).map_err(|e| e.code);
    let large = vec![0; world.config(me).max_broadcast + 1];
    let names: Vec<String> = (0..2_000).map(|i| format!("member-{i:04}")).collect();
    let names: Vec<&str> = names.iter().map(|n| &**n).collect();
    for (question, expected) in [
        (Question { topic: "a\nb", ..ALL }, Code::Invalid),
        (Question { relay: 9, ..ALL }, Code::Invalid),
        (Question { names: &[""], ..ALL }, Code::Invalid),
        (Question { tags: &["=value"], ..ALL }, Code::Invalid),
        (Question { names: &names, ..ALL }, Code::TooBig),
        (Question { data: &large, ..ALL }, Code::TooBig),
    ] {
        assert_eq!(code(&mut world, &question), Err(expected), "{:?}", question.names.len());
    }
    let most = world.config(me).max_queries;
    for _ in 0..most {
        assert!(code(&mut world, &ALL).is_ok());
    }
    assert_eq!(code(&mut world, &ALL), Err(Code::Limit));
    assert_eq!(world.engine(me).counters().broadcasts, most as u64);
    world.run_for(secs(5));
    assert!(code(&mut world, &ALL).is_ok(), "there is room again");
}

/// gossip_interval × query_timeout_mult × ⌈log10(n + 1)⌉, with Serf's 16.
#[test]
fn the_usual_time_grows_with_the_digits_of_the_cluster() {
    for (n, digits) in [(1, 1), (9, 1), (10, 2), (99, 2), (100, 3)] {
        let (world, nodes) = formed(14, n);
        assert_eq!(world.engine(nodes[0]).query_timeout(), ms(100) * 16 * digits, "{n} nodes");
    }
}

/// A question goes to each member once, as any broadcast; an answer is one datagram, with its acknowledgement.
#[test]
fn a_question_costs_a_broadcast_and_an_answer_each() {
    let (mut world, nodes) = formed(15, 100);
    for _ in 0..20 {
        world.broadcast(nodes[0], "news", b"good morning").unwrap();
        world.run_for(ms(200));
    }
    world.run_for(secs(5));
    let items = |world: &World| sum(world, &nodes, |c| c.answers_in);
    let pushes = sum(&world, &nodes, |c| c.broadcast_pushes);
    let id = ask(&mut world, nodes[0], &ALL).unwrap();
    gather(&mut world, nodes[0], id);
    world.run_for(secs(2));
    assert_eq!(items(&world), 99);
    assert!(sum(&world, &nodes, |c| c.broadcast_pushes) - pushes <= 110);
    assert_eq!(sum(&world, &nodes, |c| c.items_seen + c.answers_unsent), 0);
}

#[test]
fn with_neighbours_only_there_are_no_questions_to_all() {
    let mut world = World::new(16);
    let mut config = Config::new();
    config.set("membership", "partial").unwrap();
    let node = world.add("n0", config);
    world.run_for(secs(1));
    assert_eq!(ask(&mut world, node, &ALL).map_err(|e| e.code), Err(Code::State));
}
