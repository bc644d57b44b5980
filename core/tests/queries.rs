//! Questions to many, and messages to several, between real nodes on real loopback sockets.

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::*};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bruit_core::config::Config;
use bruit_core::engine::Question;
use bruit_core::engine::Sending::{Receipt, Reliable};
use bruit_core::error::Code;
use bruit_core::message::{Body, Gathered};
use bruit_core::runtime::{Each, Message, Parcel, Progress, Query, Sent, To, Wait};
use bruit_core::view::EventKind;
use support::{LIMIT, Witness, calm, cluster, eventually, set};

const LONG: Wait = Wait::For(LIMIT);

/// Everybody is asked, and has time.
fn all<'a>(topic: &'a str, data: &'a [u8]) -> Question<'a> {
    Question { topic, data, timeout: Some(LIMIT), ..Question::default() }
}

fn calm_cluster(n: usize) -> Vec<Witness> {
    cluster(n, calm)
}

/// All but the first answer with their name, by a handler.
fn answer_with_names(nodes: &[Witness], topic: &str) {
    for witness in nodes {
        let name = witness.name();
        witness.node.on_message(topic, Box::new(move |m| m.reply(name.as_bytes()).unwrap())).unwrap();
    }
}

/// What each answered; and how it ended.
fn gather(mut query: Query) -> (BTreeMap<String, Result<String, Code>>, Gathered) {
    let mut answers = BTreeMap::new();
    for reply in query.by_ref() {
        let text = |body: &Body| String::from_utf8_lossy(body.data()).into_owned();
        let before = answers.insert(reply.sender().to_string(), reply.result().map(text).map_err(|e| e.code));
        assert_eq!(before, None, "{} answers once", reply.sender());
    }
    (answers, query.gathered().expect("it has ended"))
}

fn names(answers: &BTreeMap<String, Result<String, Code>>) -> Vec<&str> {
    answers.keys().map(|name| &**name).collect()
}

fn keep(witness: &Witness, topic: &str) -> mpsc::Receiver<Message> {
    let (tell, told) = mpsc::channel();
    witness.node.on_message(topic, Box::new(move |message| _ = tell.send(message.clone()))).unwrap();
    told
}

fn next(told: &mpsc::Receiver<Message>) -> Message {
    told.recv_timeout(LIMIT).expect("a message comes")
}

#[test]
fn all_are_asked_and_the_last_answer_ends_it() {
    let nodes = calm_cluster(5);
    answer_with_names(&nodes, "name");
    let (answers, gathered) = gather(nodes[0].node.query(&all("name", b"?"), Wait::Now).unwrap());
    assert_eq!(names(&answers), ["n001", "n002", "n003", "n004"]);
    assert!(answers.iter().all(|(name, said)| said.as_ref() == Ok(name)));
    assert_eq!(gathered, Gathered { asked: 4, answered: 4, ..Gathered::default() });
    // And oneself; and others ask as well.
    let question = Question { loopback: true, ..all("name", b"?") };
    let (answers, _) = gather(nodes[3].node.query(&question, Wait::Now).unwrap());
    assert_eq!(names(&answers), ["n000", "n001", "n002", "n003", "n004"]);
    assert_eq!((nodes[0].stat("queries"), nodes[0].stat("answers_in")), (1, 4));
}

#[test]
fn names_and_tags_say_who_is_asked() {
    let nodes = cluster(5, |config| {
        calm(config);
        let role = if config.name.ends_with(['1', '3']) { "db" } else { "web" };
        config.set_meta("role", Some(role.as_bytes())).unwrap();
    });
    answer_with_names(&nodes, "name");
    let ask = |names: &[&str], tags: &[&str]| {
        let question = Question { names, tags, ..all("name", b"?") };
        gather(nodes[0].node.query(&question, Wait::Now).unwrap())
    };
    assert_eq!(names(&ask(&[], &["role=db"]).0), ["n001", "n003"]);
    assert_eq!(names(&ask(&["n002", "n003"], &[]).0), ["n002", "n003"]);
    assert_eq!(names(&ask(&["n002", "n003"], &["role=db"]).0), ["n003"]);
    let (answers, gathered) = ask(&[], &["role=none"]);
    assert_eq!((answers.len(), gathered), (0, Gathered::default()), "at once");
}

#[test]
fn who_does_not_answer_says_why() {
    let nodes = calm_cluster(5);
    answer_with_names(&nodes[1..2], "q");
    nodes[2].node.on_message("q", Box::new(|m| m.fail(Code::Remote, "no such table").unwrap())).unwrap();
    nodes[3].node.on_message("q", Box::new(|_| {})).unwrap();
    let mut errors = BTreeMap::new();
    for reply in nodes[0].node.query(&all("q", b"?"), Wait::Now).unwrap() {
        errors.insert(reply.sender().to_string(), reply.result().map(|_| ()).map_err(|e| (e.code, e.text.clone())));
    }
    assert_eq!(errors["n001"], Ok(()));
    assert_eq!(errors["n002"], Err((Code::Remote, "no such table".into())));
    assert_eq!(errors["n003"].as_ref().map_err(|e| e.0), Err(Code::NoReply));
    assert_eq!(errors["n004"].as_ref().map_err(|e| e.0), Err(Code::NoHandler));
}

#[test]
fn a_question_is_answered_once_later_from_any_thread_and_in_time() {
    let nodes = calm_cluster(2);
    let kept = keep(&nodes[1], "q");
    let query = nodes[0].node.query(&all("q", b"?"), Wait::Now).unwrap();
    let message = next(&kept);
    assert!(message.is_request() && message.is_query());
    let copy = message.clone();
    std::thread::spawn(move || copy.reply(b"from elsewhere").unwrap()).join().unwrap();
    assert_eq!(message.reply(b"again").unwrap_err().code, Code::State);
    assert_eq!(gather(query).0["n001"], Ok("from elsewhere".to_string()));
    // Beyond its size, and beyond its time, which is over there a little later than here.
    let soon = Question { timeout: Some(Duration::from_millis(300)), ..all("q", b"?") };
    let refused = || {
        let query = nodes[0].node.query(&soon, Wait::Now).unwrap();
        let message = next(&kept);
        assert_eq!(message.reply(&vec![0; (64 << 10) + 1]).unwrap_err().code, Code::TooBig);
        let (answers, gathered) = gather(query);
        assert_eq!((answers.len(), gathered.why), (0, Some(Code::Timeout)));
        message.reply(b"late").is_err_and(|e| e.code == Code::Timeout)
    };
    eventually("an answer whose time is over is refused", refused, || "it is not".into());
}

#[test]
fn acknowledgements_say_who_has_heard_it() {
    let nodes = calm_cluster(4);
    let kept: Vec<_> = nodes[1..].iter().map(|witness| keep(witness, "q")).collect();
    let question = Question { acks: true, relay: 2, ..all("q", b"?") };
    let query = nodes[0].node.query(&question, Wait::Now).unwrap();
    while query.heard().len() < 3 {
        assert!(matches!(query.progress(LONG), Some(Progress::Heard(_))), "nobody answers yet");
    }
    for told in &kept {
        next(told).reply(b"now").unwrap();
    }
    let mut heard: Vec<String> = query.heard().iter().map(|name| name.to_string()).collect();
    heard.sort();
    assert_eq!(heard, ["n001", "n002", "n003"]);
    let (answers, gathered) = gather(query);
    assert_eq!((answers.len(), gathered.heard, gathered.why), (3, 3, None));
}

#[test]
fn who_has_enough_gives_the_question_up() {
    let nodes = calm_cluster(3);
    answer_with_names(&nodes[1..2], "q");
    let kept = keep(&nodes[2], "q");
    let mut query = nodes[0].node.query(&all("q", b"?"), Wait::Now).unwrap();
    assert_eq!(query.next().map(|reply| reply.data().to_vec()), Some(b"n001".to_vec()));
    query.cancel();
    assert!(query.next().is_none());
    assert_eq!(query.gathered().and_then(|gathered| gathered.why), Some(Code::Canceled));
    next(&kept).reply(b"too late").unwrap();
    eventually("it is counted", || nodes[0].stat("answers_unasked") == 1, String::new);
    // Dropping one does the same.
    let query = nodes[0].node.query(&all("q", b"?"), Wait::Now).unwrap();
    let id = query.id();
    let _still = next(&kept);
    drop(query);
    assert_eq!(nodes[0].node.cancel(id).unwrap_err().code, Code::NotFound);
}

#[test]
fn a_handler_hears_all_of_it_and_is_dropped_once() {
    struct Dropped(Arc<AtomicUsize>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.fetch_add(1, SeqCst);
        }
    }
    let nodes = calm_cluster(4);
    answer_with_names(&nodes, "q");
    let (tell, told) = mpsc::channel();
    let drops = Arc::new(AtomicUsize::new(0));
    let guard = Dropped(drops.clone());
    let hear = move |progress: Progress| {
        let _guard = &guard;
        let text = match &progress {
            Progress::Answer(reply) => reply.sender().to_string(),
            Progress::Heard(_) => return,
            Progress::End(gathered) => format!("end of {}", gathered.answered),
        };
        tell.send(text).unwrap();
    };
    let question = Question { acks: true, ..all("q", b"?") };
    nodes[0].node.query_start(&question, Box::new(hear)).unwrap();
    let mut heard: Vec<String> = told.iter().collect();
    assert_eq!(heard.pop().as_deref(), Some("end of 3"));
    heard.sort();
    assert_eq!(heard, ["n001", "n002", "n003"]);
    eventually("the box is gone", || drops.load(SeqCst) == 1, String::new);
    // Canceled, or refused: it goes as well.
    let _kept: Vec<_> = nodes[1..].iter().map(|witness| keep(witness, "r")).collect();
    for topic in ["r", "a\nb"] {
        let guard = Dropped(drops.clone());
        let started = nodes[0].node.query_start(&all(topic, b"?"), Box::new(move |_| _ = &guard));
        match started {
            Ok(id) => nodes[0].node.cancel(id).unwrap(),
            Err(e) => assert_eq!(e.code, Code::Invalid),
        }
    }
    eventually("all are gone", || drops.load(SeqCst) == 3, || format!("{drops:?}"));
}

#[test]
fn a_question_ends_with_its_node_and_does_not_wait_for_the_dead() {
    let mut nodes = cluster(3, |_| {});
    let kept = keep(&nodes[1], "q");
    answer_with_names(&nodes[2..], "q");
    let query = nodes[0].node.query(&all("q", b"?"), Wait::Now).unwrap();
    let _unanswered = next(&kept);
    nodes.remove(1).node.stop(LONG).unwrap();
    let (answers, gathered) = gather(query);
    assert_eq!((names(&answers), gathered.gone), (vec!["n002"], 1));
    // The asker's own end.
    let kept = keep(&nodes[1], "later");
    let mut query = nodes[0].node.query(&all("later", b"?"), Wait::Now).unwrap();
    let _unanswered = next(&kept);
    nodes[0].node.stop(LONG).unwrap();
    assert!(query.next().is_none() && query.is_over());
    assert_eq!(query.gathered(), None);
}

#[test]
fn answers_are_gathered_inside_a_handler() {
    let nodes = calm_cluster(3);
    answer_with_names(&nodes, "name");
    let asker = nodes[1].node.clone();
    let relay = move |m: &Message| {
        let count = asker.query(&all("name", b"?"), Wait::Now).unwrap().count();
        m.reply(&[count as u8]).unwrap();
    };
    nodes[1].node.on_message("count", Box::new(relay)).unwrap();
    assert_eq!(nodes[0].node.request("n001", "count", b"", LONG).unwrap().data(), [2]);
}

/// An application that keeps what it is told is asked no more, and those who ask are told so.
#[test]
fn who_is_behind_says_that_it_is_busy() {
    let nodes = cluster(2, |config: &mut Config| {
        calm(config);
        set(config, "inbox_bytes", "64KiB");
    });
    let kept = keep(&nodes[1], "q");
    let data = vec![0; 20_000];
    let mut open = Vec::new();
    let mut held = Vec::new();
    let refused = loop {
        let query = nodes[0].node.query(&all("q", &data), LONG).unwrap();
        // Either it is kept there, or it is refused.
        let outcome = loop {
            if let Ok(message) = kept.try_recv() {
                break Some(message);
            }
            if let Some(Progress::Answer(reply)) = query.progress(Wait::For(Duration::from_millis(10))) {
                assert_eq!(reply.code(), Some(Code::Busy));
                break None;
            }
        };
        match outcome {
            Some(message) => held.push(message),
            None => break held.len(),
        }
        open.push(query);
    };
    assert_eq!(refused, 4, "as many as fill 64 KiB");
    assert_eq!(nodes[1].stat("queries_refused"), 1);
    held.clear();
    // What was dropped unanswered is E_NO_REPLY.
    for query in open {
        assert_eq!(gather(query).0["n001"], Err(Code::NoReply));
    }
    let _query = nodes[0].node.query(&all("q", &data), LONG).unwrap();
    next(&kept).reply(b"again").unwrap();
}

/// Replies that are not read yet hold others back, and none is lost.
#[test]
fn answers_wait_for_who_does_not_read_them() {
    let nodes = cluster(4, |config: &mut Config| {
        calm(config);
        set(config, "inbox_bytes", "64KiB");
    });
    let large = |m: &Message| m.reply(&[7; 60_000]).unwrap();
    nodes.iter().for_each(|witness| _ = witness.node.on_message("q", Box::new(large)).unwrap());
    for _ in 0..5 {
        let mut replies = Vec::new();
        let mut query = nodes[0].node.query(&all("q", b"?"), LONG).unwrap();
        replies.extend(query.next());
        assert_eq!(replies[0].data().len(), 60_000);
        replies.clear();
        assert_eq!(query.count(), 2);
    }
}

#[test]
fn one_message_goes_to_several_members_or_to_the_holders_of_a_tag() {
    let nodes = cluster(4, |config| {
        calm(config);
        if config.name.ends_with(['1', '2']) {
            config.set_meta("role", Some(b"db")).unwrap();
        }
    });
    let told: Vec<_> = nodes.iter().map(|witness| keep(witness, "x")).collect();
    let body = Body::new("x", b"hello").unwrap();
    let send = |to: To<'_>, how| {
        let sent = nodes[0].node.submit(&[Parcel { to, body: body.clone(), how }]).unwrap().remove(0);
        let Ok(Sent::ToMany(each)) = sent else { panic!("{sent:?}") };
        each
    };
    let each = send(To::Members(&["n003", "nobody", "n000"]), Receipt);
    let results: Vec<(&str, Result<bool, Code>)> = each
        .iter()
        .map(|Each { member, result }| (&**member, result.as_ref().map(Option::is_some).map_err(|e| e.code)))
        .collect();
    assert_eq!(results, [("n003", Ok(true)), ("nobody", Err(Code::NotFound)), ("n000", Ok(true))]);
    next(&told[3]);
    next(&told[0]);
    nodes[0].until("receipts", |w| w.events().iter().filter(|e| e.kind == EventKind::Receipt).count() == 2);
    let each = send(To::Holders("role=db"), Reliable);
    assert_eq!(each.iter().map(|each| &*each.member).collect::<Vec<_>>(), ["n001", "n002"]);
    next(&told[1]);
    next(&told[2]);
    assert_eq!(send(To::Holders("nothing"), Reliable), []);
}
