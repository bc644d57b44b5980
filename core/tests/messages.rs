//! Messages between real nodes on real loopback sockets: what an application is promised.

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::*};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::{Duration, Instant};

use bruit_core::engine::Sending::{BestEffort, Receipt, Reliable};
use bruit_core::error::Code;
use bruit_core::message::{Body, Manner, ToAll};
use bruit_core::runtime::{Heard, Message, Parcel, To, Wait};
use bruit_core::view::EventKind;
use support::{LIMIT, Witness, all_list, calm, cluster, config, eventually, set};

const LONG: Wait = Wait::For(LIMIT);

/// What a node hears under a topic.
fn hear(witness: &Witness, topic: &str) -> mpsc::Receiver<Message> {
    let (tell, told) = mpsc::channel();
    witness.node.on_message(topic, Box::new(move |message| _ = tell.send(message.clone()))).unwrap();
    told
}

fn next(told: &mpsc::Receiver<Message>) -> Message {
    told.recv_timeout(LIMIT).expect("a message comes")
}

/// Two that know each other, on timers that nobody misses.
fn pair(change: impl Fn(&mut bruit_core::Config)) -> [Witness; 2] {
    let nodes = cluster(2, |config| {
        calm(config);
        change(config);
    });
    nodes.try_into().unwrap_or_else(|_| unreachable!("there are two"))
}

#[test]
fn a_message_arrives_as_it_was_sent_and_with_its_sender() {
    let [a, b] = pair(|_| {});
    let told = hear(&b, "chat");
    let all: Vec<u8> = (0..=255).collect();
    for (data, how) in [(&all[..], BestEffort), (&all, Reliable), (b"", Reliable), (&[7; 5_000], BestEffort)] {
        a.node.send("n001", "chat", data, how, Wait::Now).unwrap();
        let message = next(&told);
        assert_eq!((message.topic(), message.data()), ("chat", data));
        assert_eq!((&**message.sender(), message.run()), ("n000", a.view().local().run));
        assert_eq!(message.epoch(), a.view().local().epoch);
        assert!(!message.is_request());
    }
    assert_eq!(a.stat("messages_sent"), 4);
    assert_eq!(b.stat("messages_received"), 4);
}

#[test]
fn handlers_hear_their_topic_in_the_order_of_their_registration() {
    let [a, b] = pair(|_| {});
    let heard = Arc::new(Mutex::new(Vec::new()));
    for (who, topic) in [("first", "x"), ("all", "*"), ("second", "x"), ("other", "y"), ("default", "")] {
        let heard = heard.clone();
        let note = move |m: &Message| heard.lock().unwrap().push(format!("{who} {}", m.topic()));
        b.node.on_message(topic, Box::new(note)).unwrap();
    }
    for topic in ["x", "", "unheard of", "y"] {
        a.node.send("n001", topic, b"!", Reliable, Wait::Now).unwrap();
    }
    let expected = ["first x", "all x", "second x", "all ", "default ", "all unheard of", "all y", "other y"];
    eventually("all are heard", || heard.lock().unwrap().len() == 8, || format!("{:?}", heard.lock().unwrap()));
    assert_eq!(*heard.lock().unwrap(), expected);
}

#[test]
fn a_handler_can_be_removed_inside_itself() {
    let [a, b] = pair(|_| {});
    let (own, count) = (Arc::new(OnceLock::new()), Arc::new(AtomicUsize::new(0)));
    let (node, id, heard) = (b.node.clone(), own.clone(), count.clone());
    let once = move |_: &Message| {
        heard.fetch_add(1, SeqCst);
        node.unsubscribe(*id.get().unwrap()).unwrap();
    };
    own.set(b.node.on_message("x", Box::new(once)).unwrap()).unwrap();
    let rest = hear(&b, "end");
    for topic in ["x", "x", "x", "end"] {
        a.node.send("n001", topic, b"", Reliable, Wait::Now).unwrap();
    }
    next(&rest);
    assert_eq!(count.load(SeqCst), 1);
    assert_eq!(b.stat("messages_unheard") + count.load(SeqCst) as u64, 3);
}

#[test]
fn what_nobody_listens_to_is_counted_and_holds_nothing_up() {
    let [a, b] = pair(|config| set(config, "inbox_bytes", "64KiB"));
    for _ in 0..100 {
        a.node.send("n001", "nobody", &[0; 10_000], Reliable, LONG).unwrap();
    }
    eventually("all are counted", || b.stat("messages_unheard") == 100, String::new);
}

#[test]
fn what_cannot_be_sent_is_said_at_once() {
    let [a, b] = pair(|config| set(config, "max_message", "10KiB"));
    let send =
        |to: &str, topic: &str, len: usize| a.node.send(to, topic, &vec![0; len], Reliable, Wait::Now).unwrap_err();
    let too_big = send("n001", "", 10_241);
    assert_eq!(too_big.code, Code::TooBig);
    assert!(too_big.text.contains("10241") && too_big.text.contains("10240"), "{too_big}");
    assert_eq!(send("nobody", "", 1).code, Code::NotFound);
    assert_eq!(send("n001", &"t".repeat(65), 1).code, Code::Invalid);
    assert_eq!(send("n001", "a\nb", 1).code, Code::Invalid);
    assert_eq!(a.node.send("n001", "", &[0; 10_240], Reliable, Wait::Now).map(|_| ()), Ok(()));
    b.node.leave(LONG).unwrap();
    a.until("it has left", |w| w.told(EventKind::Left, "n001"));
    assert_eq!(send("n001", "", 1).code, Code::Unreachable);
    assert_eq!(b.node.send("n000", "", b"", Reliable, Wait::Now).unwrap_err().code, Code::State);
}

#[test]
fn reliable_messages_come_in_order_and_each_once() {
    let [a, b] = pair(|_| {});
    let told = hear(&b, "*");
    let senders = 4u64;
    std::thread::scope(|scope| {
        for sender in 0..senders {
            let node = a.node.clone();
            scope.spawn(move || {
                for i in 0..5_000u64 {
                    let len = if i % 500 == 0 { 100_000 } else { (i % 300) as usize };
                    let data = [&i.to_le_bytes()[..], &vec![i as u8; len]].concat();
                    node.send("n001", &format!("t{sender}"), &data, Reliable, LONG).unwrap();
                }
            });
        }
    });
    let mut heard: BTreeMap<String, u64> = BTreeMap::new();
    for _ in 0..5_000 * senders {
        let message = next(&told);
        let (number, fill) = message.data().split_first_chunk().unwrap();
        let (i, next) = (u64::from_le_bytes(*number), heard.entry(message.topic().into()).or_default());
        assert_eq!(i, *next, "{}", message.topic());
        assert!(fill.iter().all(|&b| b == i as u8));
        *next += 1;
    }
    assert!(told.try_recv().is_err());
}

#[test]
fn a_receipt_says_that_the_other_node_has_it() {
    let [a, b] = pair(|_| {});
    let told = hear(&b, "");
    let first = a.node.send("n001", "", b"1", Receipt, Wait::Now).unwrap().expect("a number");
    let second = a.node.send("n001", "", &[2; 300_000], Receipt, Wait::Now).unwrap().expect("a number");
    assert_eq!((next(&told).data().len(), next(&told).data().len()), (1, 300_000));
    for id in [first, second] {
        a.until("a receipt", |w| {
            let receipts = w.events();
            receipts.iter().any(|e| {
                e.kind == EventKind::Receipt
                    && (e.id, e.status) == (id, 0)
                    && &*e.member.as_ref().unwrap().name == "n001"
            })
        });
    }
}

#[test]
fn who_does_not_read_makes_the_sender_wait_and_loses_nothing() {
    let [a, b] = pair(|config| {
        set(config, "inbox_bytes", "64KiB");
        set(config, "send_queue", "64KiB");
    });
    let (go, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let heard = Arc::new(AtomicU64::new(0));
    let count = heard.clone();
    let slow = move |_: &Message| {
        if count.fetch_add(1, SeqCst) == 0 {
            gate.lock().unwrap().recv_timeout(LIMIT).unwrap();
        }
    };
    b.node.on_message("", Box::new(slow)).unwrap();
    let mut sent = 0;
    let busy = loop {
        match a.node.send("n001", "", &[0; 10_000], Reliable, Wait::Now) {
            Ok(_) => sent += 1,
            Err(e) => break e,
        }
        assert!(sent < 1_000, "an unbounded queue");
    };
    assert_eq!(busy.code, Code::Busy, "{busy}");
    assert!(a.stat("messages_refused") == 1);
    let node = a.node.clone();
    let waits = std::thread::spawn(move || node.send("n001", "", &[0; 10_000], Reliable, LONG));
    go.send(()).unwrap();
    waits.join().unwrap().unwrap();
    a.until("it is told of room", |w| w.told(EventKind::Writable, "n001"));
    eventually("all are heard", || heard.load(SeqCst) == sent + 1, || format!("{heard:?} of {sent}"));
}

/// Empty messages, and those to oneself: nothing is so small that it is bounded by nothing.
#[test]
fn the_smallest_messages_are_bounded_too() {
    let [a, b] = pair(|config| {
        set(config, "inbox_bytes", "64KiB");
        set(config, "send_queue", "64KiB");
    });
    let queues = [&a, &b].map(|w| w.node.message_queue("").unwrap());
    for to in ["n000", "n001"] {
        let patient = Wait::For(Duration::from_millis(300));
        let refused = (0..100_000).find_map(|_| a.node.send(to, "", b"", Reliable, patient).err());
        assert_eq!(refused.expect("an unbounded queue").code, Code::Busy, "{to}");
    }
    assert!(a.stat("messages_refused") >= 2);
    let (mut own, mut sent) = (0, a.stat("messages_sent"));
    eventually(
        "all are heard, and there is room again",
        || {
            own += queues.iter().map(|queue| std::iter::from_fn(|| queue.try_next()).count() as u64).sum::<u64>();
            let roomy = ["n000", "n001"].iter().all(|name| a.told(EventKind::Writable, name));
            sent = a.stat("messages_sent");
            own == sent && roomy
        },
        || a.describe(),
    );
}

#[test]
fn best_effort_that_nobody_reads_drops_its_oldest_and_says_so() {
    let [a, b] = pair(|config| set(config, "inbox_bytes", "64KiB"));
    let queue = b.node.message_queue("").unwrap();
    for i in 0..1_000u32 {
        a.node.send("n001", "", &[&i.to_le_bytes()[..], &[0; 1_000]].concat(), BestEffort, Wait::Now).unwrap();
        // A burst would be lost in the socket already.
        eventually("it arrives", || b.stat("messages_received") > u64::from(i), String::new);
    }
    let kept: Vec<u32> =
        std::iter::from_fn(|| queue.try_next()).map(|m| u32::from_le_bytes(*m.data().first_chunk().unwrap())).collect();
    assert_eq!(kept, (1_000 - kept.len() as u32..1_000).collect::<Vec<_>>(), "the newest, in order");
    assert!((60..=65).contains(&kept.len()), "{}", kept.len());
    assert_eq!(b.stat("events_dropped"), 1_000 - kept.len() as u64);
}

#[test]
fn broadcasts_wait_for_a_slow_reader_and_a_gap_says_what_there_is_no_room_for() {
    let [a, b] = pair(|config| {
        set(config, "inbox_bytes", "64KiB");
        set(config, "broadcast_window", "1MiB");
    });
    let queue = b.node.message_queue("").unwrap();
    let ordered = ToAll { ordered: true, ..ToAll::default() };
    let say = |numbers: std::ops::Range<u32>| {
        let end = u64::from(numbers.end);
        for i in numbers {
            a.node.broadcast("", &[&i.to_le_bytes()[..], &[0; 1_000]].concat(), ordered, LONG).unwrap();
        }
        eventually("they arrive", || b.stat("broadcasts_in") == end, || b.describe());
    };
    let read = |wanted: &dyn Fn(u64) -> u64| {
        let mut heard: Vec<u32> = Vec::new();
        eventually(
            "what is there is read",
            || {
                let new = std::iter::from_fn(|| queue.try_next());
                heard.extend(new.map(|m| u32::from_le_bytes(*m.data().first_chunk().unwrap())));
                heard.len() as u64 == wanted(b.stat("broadcasts_overrun"))
            },
            || b.describe(),
        );
        heard
    };
    say(0..500);
    assert!(b.stat("broadcasts_waiting") > 400_000, "the reader has 64 KiB of them");
    assert_eq!(read(&|_| 500), (0..500).collect::<Vec<_>>());
    say(500..2_500);
    let lost = b.stat("broadcasts_overrun");
    assert!(lost >= 800, "{lost}");
    let heard = read(&|lost| 2_000 - lost);
    assert!(heard.is_sorted() && heard.last() == Some(&2_499));
    let gaps: Vec<_> = b.events().into_iter().filter(|e| e.kind == EventKind::Gap).collect();
    assert_eq!(gaps.iter().map(|gap| gap.count).sum::<u64>(), lost);
    assert!(gaps.len() < 20, "few large ones: {}", gaps.len());
    assert_eq!((b.stat("events_dropped"), b.stat("broadcasts_waiting")), (0, 0));
}

#[test]
fn a_question_gets_its_answer() {
    let [a, b] = pair(|_| {});
    b.node.on_message("add", Box::new(|m| m.reply(&[m.data()[0] + m.data()[1]]).unwrap())).unwrap();
    assert_eq!(a.node.request("n001", "add", &[2, 3], LONG).unwrap().data(), [5]);
    // Large ones, too.
    b.node.on_message("echo", Box::new(|m| m.reply(m.data()).unwrap())).unwrap();
    let large: Vec<u8> = (0..1_000_000u32).map(|i| (i % 251) as u8).collect();
    assert_eq!(a.node.request("n001", "echo", &large, LONG).unwrap().data(), large);
    // And to oneself.
    assert_eq!(b.node.request("n001", "add", &[4, 5], LONG).unwrap().data(), [9]);
}

#[test]
fn a_question_without_an_answer_says_why_at_once() {
    let [a, b] = pair(|_| {});
    b.node.on_message("fails", Box::new(|m| m.fail(Code::Remote, "no such table").unwrap())).unwrap();
    b.node.on_message("silent", Box::new(|_| {})).unwrap();
    b.node.on_message("panics", Box::new(|_| std::panic::resume_unwind(Box::new("on purpose")))).unwrap();
    let kept = hear(&b, "later");
    let ask = |topic: &str, wait| a.node.request("n001", topic, b"?", wait).unwrap_err();
    let failed = ask("fails", LONG);
    assert_eq!((failed.code, &*failed.text), (Code::Remote, "no such table"));
    b.node
        .on_message("code", Box::new(|m| m.fail(Code::from_number(-i64::from(m.data()[0])).unwrap(), "so").unwrap()))
        .unwrap();
    for &code in Code::ALL {
        use Code::{Buffer, Deadlock, Failed, Forked, Handle, Panic, State};
        let of_its_own = matches!(code, Handle | State | Deadlock | Forked | Buffer | Failed | Panic);
        let heard = a.node.request("n001", "code", &[(-(code as i64)) as u8], LONG).unwrap_err();
        assert_eq!(heard.code, if of_its_own { Code::Remote } else { code }, "no member speaks of another's own node");
        assert_eq!(&*heard.text, "so");
    }
    let unheard = ask("nobody", LONG);
    assert_eq!(unheard.code, Code::NoHandler);
    assert!(unheard.text.contains("nobody"), "{unheard}");
    assert_eq!(ask("silent", LONG).code, Code::NoReply);
    assert_eq!(ask("panics", LONG).code, Code::NoReply);
    assert_eq!(ask("later", Wait::For(Duration::from_millis(50))).code, Code::Timeout);
    // Too late: counted, and nobody is confused by it.
    next(&kept).reply(b"late").unwrap();
    eventually("it came late", || a.stat("replies_late") == 1, String::new);
    assert_eq!(a.node.request("nobody", "", b"", LONG).unwrap_err().code, Code::NotFound);
    assert_eq!(a.node.request("n001", "", b"", Wait::Now).unwrap_err().code, Code::Invalid);
}

#[test]
fn a_question_is_answered_once_and_later_from_any_thread() {
    let [a, b] = pair(|_| {});
    let kept = hear(&b, "q");
    let (tell, told) = mpsc::channel();
    let id = a.node.request_start("n001", "q", b"1", None, Box::new(move |answer| _ = tell.send(answer))).unwrap();
    let question = next(&kept);
    assert!(matches!(question.manner(), Manner::Request { .. }));
    let copy = question.clone();
    std::thread::spawn(move || copy.reply(b"from elsewhere").unwrap()).join().unwrap();
    assert_eq!(told.recv_timeout(LIMIT).unwrap().unwrap().data(), b"from elsewhere");
    assert_eq!(question.reply(b"again").unwrap_err().code, Code::State);
    assert_eq!(a.node.cancel(id).unwrap_err().code, Code::NotFound);
}

#[test]
fn a_canceled_question_ends_at_once() {
    let [a, b] = pair(|_| {});
    let _kept = hear(&b, "q");
    let (tell, told) = mpsc::channel();
    let id = a.node.request_start("n001", "q", b"1", None, Box::new(move |answer| _ = tell.send(answer))).unwrap();
    a.node.cancel(id).unwrap();
    assert_eq!(told.recv_timeout(LIMIT).unwrap().unwrap_err().code, Code::Canceled);
}

#[test]
fn who_leaves_or_dies_midway_ends_what_it_was_asked() {
    for leaves in [true, false] {
        let [a, b] = <[Witness; 2]>::try_from(cluster(2, |_| {})).unwrap_or_else(|_| unreachable!());
        let kept = hear(&b, "q");
        let (tell, told) = mpsc::channel();
        a.node.request_start("n001", "q", b"1", None, Box::new(move |answer| _ = tell.send(answer))).unwrap();
        let _first = next(&kept);
        let waiting = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| a.node.request("n001", "q", b"2", Wait::Forever));
            let _second = next(&kept);
            if leaves {
                b.node.leave(LONG).unwrap();
            } else {
                b.node.stop(LONG).unwrap();
            }
            waiting.join().unwrap()
        });
        assert_eq!(waiting.unwrap_err().code, Code::Unreachable);
        assert_eq!(told.recv_timeout(LIMIT).unwrap().unwrap_err().code, Code::Unreachable);
    }
}

#[test]
fn ten_thousand_questions_at_once_are_matched_right() {
    let [a, b] = pair(|_| {});
    let kept = hear(&b, "q");
    let (tell, told) = mpsc::channel();
    for i in 0..10_000u32 {
        let tell = tell.clone();
        let f = move |answer: bruit_core::Result<bruit_core::message::Body>| {
            tell.send((i, answer.map(|body| body.data().to_vec()))).unwrap();
        };
        let started = a.node.request_start("n001", "q", &i.to_le_bytes(), Some(LIMIT), Box::new(f));
        started.unwrap();
    }
    let questions: Vec<Message> = (0..10_000).map(|_| next(&kept)).collect();
    assert_eq!(a.stat("requests"), 10_000);
    // In another order than they came.
    for question in questions.iter().rev() {
        question.reply(question.data()).unwrap();
    }
    for _ in 0..10_000 {
        let (i, answer) = told.recv_timeout(LIMIT).unwrap();
        assert_eq!(answer.unwrap(), i.to_le_bytes());
    }
}

#[test]
fn a_question_inside_a_handler_is_no_deadlock_unless_it_is_to_oneself() {
    let [a, b] = pair(|_| {});
    b.node.on_message("add", Box::new(|m| m.reply(&[m.data()[0] + 1]).unwrap())).unwrap();
    let (node, (tell, told)) = (a.node.clone(), mpsc::channel());
    let ask = move |_: &Message| {
        let other = node.request("n001", "add", &[1], LONG).map(|body| body.data().to_vec());
        let own = node.request("n000", "add", &[1], LONG).map(|body| body.data().to_vec());
        tell.send((other, own)).unwrap();
    };
    a.node.on_message("go", Box::new(ask)).unwrap();
    b.node.send("n000", "go", b"", Reliable, Wait::Now).unwrap();
    let (other, own) = told.recv_timeout(LIMIT).unwrap();
    assert_eq!(other.unwrap(), [2]);
    assert_eq!(own.unwrap_err().code, Code::Deadlock);
}

/// Scenario 33, and what is ten times as large as a link's queue.
#[test]
fn the_largest_message_arrives_and_small_ones_need_not_wait_for_it() {
    let [a, b] = pair(|config| set(config, "max_message", "64MiB"));
    let told = hear(&b, "*");
    let large: Vec<u8> = (0..64usize << 20).map(|i| ((i * 31) >> 7) as u8).collect();
    // Under one lock: the large one cannot be there before the small one is sent.
    let parcels = [("large", &large[..]), ("small", b"first")].map(|(topic, data)| Parcel {
        to: To::Member("n001"),
        body: Body::new(topic, data).unwrap(),
        how: Reliable,
    });
    let sent = a.node.submit(&parcels).unwrap();
    assert!(sent.iter().all(Result::is_ok), "{sent:?}");
    assert_eq!(next(&told).topic(), "small");
    let message = next(&told);
    assert!(message.topic() == "large" && message.data() == large);
    assert!(a.rejected() + b.rejected() == 0);
}

#[test]
fn messages_go_by_stream_alone_where_datagrams_are_not_wanted() {
    let [a, b] = pair(|config| set(config, "transport", "tcp"));
    b.node.on_message("q", Box::new(|m| m.reply(m.data()).unwrap())).unwrap();
    let told = hear(&b, "m");
    a.node.send("n001", "m", b"1", BestEffort, Wait::Now).unwrap();
    assert_eq!(next(&told).data(), b"1");
    assert_eq!(a.node.request("n001", "q", b"2", LONG).unwrap().data(), b"2");
    assert_eq!((a.stat("datagrams_out"), b.stat("datagrams_out")), (0, 0));
}

#[test]
fn a_manual_node_hears_where_it_dispatches_and_keeps_the_order_of_events_and_messages() {
    let seed = Witness::start(&config("seed", &[]));
    let mut manual = config("manual", &[&seed.address()]);
    calm(&mut manual);
    set(&mut manual, "dispatch", "manual");
    let node = bruit_core::Node::new(&manual, None).unwrap();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let (events, messages) = (heard.clone(), heard.clone());
    let note = move |e: &bruit_core::Event| {
        events.lock().unwrap().push(format!("{} {}", e.kind.name(), e.member.as_ref().unwrap().name))
    };
    node.on_event(EventKind::Join.bit(), Box::new(note)).unwrap();
    node.on_message(
        "*",
        Box::new(move |m| messages.lock().unwrap().push(format!("{} from {}", m.topic(), m.sender()))),
    )
    .unwrap();
    node.start().unwrap();
    seed.until("it is there", |w| w.told(EventKind::Join, "manual"));
    seed.node.send("manual", "hello", b"", Receipt, Wait::Now).unwrap();
    seed.until("it has it", |w| w.events().iter().any(|e| e.kind == EventKind::Receipt));
    assert!(heard.lock().unwrap().is_empty(), "nobody has dispatched");
    while heard.lock().unwrap().len() < 2 {
        assert!(node.wait(LONG).unwrap());
        node.dispatch(0).unwrap();
    }
    assert_eq!(*heard.lock().unwrap(), ["JOIN seed", "hello from seed"]);
    node.free().unwrap();
}

/// For handlers that run where only the application can run them.
#[test]
fn a_mixed_queue_has_events_and_messages_in_the_order_in_which_they_came() {
    let a = Witness::start(&config("a", &[]));
    let queue = a.node.mixed_queue(EventKind::Join.bit(), 16).unwrap();
    queue.listen("x").unwrap();
    queue.listen("x").unwrap();
    assert_eq!(queue.listen("a\nb").unwrap_err().code, Code::Invalid);
    let mut heard = Vec::new();
    for name in ["b", "c"] {
        let mut config = config(name, &[&a.address()]);
        calm(&mut config);
        let other = Witness::start(&config);
        other.until("it knows", |w| w.told(EventKind::Join, "a"));
        other.node.send("a", "y", b"unheard", Reliable, Wait::Now).unwrap();
        other.node.send("a", "x", b"", Receipt, Wait::Now).unwrap();
        other.until("it has it", |w| w.events().iter().any(|e| e.kind == EventKind::Receipt));
        heard.extend(std::iter::from_fn(|| queue.try_next()).map(|heard| match heard {
            Heard::Event(event) => format!("{} {}", event.kind.name(), event.member.unwrap().name),
            Heard::Message(message) | Heard::Question(message) => {
                format!("{} from {}", message.topic(), message.sender())
            }
            Heard::Stream(stream) => format!("{stream:?}"),
        }));
        queue.ignore("x");
    }
    assert_eq!(heard, ["JOIN b", "x from b", "JOIN c", "x from c"], "one that is listened to twice is ignored twice");
    let asked = a.node.request("a", "x", b"", LONG).unwrap_err();
    assert_eq!(asked.code, Code::NoHandler);
}

#[test]
fn a_reader_that_is_closed_listens_no_more_and_lets_go_of_what_waits() {
    let [a, b] = pair(|_| {});
    let queue = b.node.message_queue("q").unwrap();
    let (tell, told) = mpsc::channel();
    a.node.request_start("n001", "q", b"", None, Box::new(move |answer| _ = tell.send(answer))).unwrap();
    assert!(queue.wait(LONG));
    queue.close();
    assert!(queue.is_closed() && queue.is_empty() && queue.wait(LONG));
    assert_eq!(told.recv_timeout(LIMIT).unwrap().unwrap_err().code, Code::NoReply);
    assert_eq!(a.node.request("n001", "q", b"", LONG).unwrap_err().code, Code::NoHandler);
}

#[test]
fn a_message_may_outlive_its_node() {
    let [a, b] = pair(|_| {});
    let kept = hear(&b, "*");
    a.node.send("n001", "x", b"kept", Reliable, Wait::Now).unwrap();
    a.node.request_start("n001", "q", b"kept, too", None, Box::new(|_| {})).unwrap();
    let (message, question) = (next(&kept), next(&kept));
    drop(b);
    assert_eq!(message.data(), b"kept");
    assert_eq!(question.reply(b"").unwrap_err().code, Code::State);
}

/// Links that end, again and again, cost no message and double none.
#[test]
fn links_that_end_lose_nothing() {
    let [a, b] = pair(|config| {
        set(config, "link_idle", "1s");
        set(config, "max_links", "1");
    });
    let told = hear(&b, "*");
    let relays: Vec<Witness> = (0..3)
        .map(|i| {
            let mut config = config(&format!("m{i}"), &[&a.address()]);
            calm(&mut config);
            Witness::start(&config)
        })
        .collect();
    relays.iter().for_each(|w| a.until("all are there", |a| a.told(EventKind::Join, &w.name())));
    // One link at a time: each other member takes it away.
    let began = Instant::now();
    let mut sent = 0u64;
    while (sent < 400 || a.stat("links_evicted") <= 10) && began.elapsed() < LIMIT {
        a.node.send("n001", "x", &[&sent.to_le_bytes()[..], &[0; 3_000]].concat(), Reliable, LONG).unwrap();
        a.node.send(&format!("m{}", sent % 3), "x", &[0; 3_000], Reliable, LONG).unwrap();
        sent += 1;
    }
    for i in 0..sent {
        let message = next(&told);
        assert_eq!(u64::from_le_bytes(*message.data().first_chunk().unwrap()), i);
    }
    assert!(a.stat("links_evicted") > 10, "{}", a.stat("links_evicted"));
    assert!(told.try_recv().is_err());
}

// --- to all

/// All hear all, each once: scenarios 2, 22 and 27.
#[test]
fn what_is_said_to_all_is_heard_by_all_and_once() {
    let nodes = cluster(10, calm);
    all_list(&nodes, 10);
    let ears: Vec<_> = nodes.iter().map(|w| hear(w, "news")).collect();
    std::thread::scope(|scope| {
        for witness in &nodes {
            scope.spawn(move || {
                for i in 0..200u32 {
                    witness
                        .node
                        .broadcast("news", &i.to_le_bytes(), ToAll { loopback: i == 7, ..ToAll::default() }, LONG)
                        .unwrap();
                }
            });
        }
    });
    for (witness, ear) in nodes.iter().zip(&ears) {
        let mut heard: BTreeMap<(String, u32), u32> = BTreeMap::new();
        for _ in 0..9 * 200 + 1 {
            let message = next(ear);
            assert!(matches!(message.manner(), Manner::Broadcast { .. }));
            let number = u32::from_le_bytes(*message.data().first_chunk().unwrap());
            *heard.entry((message.sender().to_string(), number)).or_default() += 1;
        }
        assert!(heard.values().all(|&n| n == 1), "{}", witness.name());
        assert_eq!(heard.keys().filter(|(from, _)| *from == witness.name()).count(), 1, "itself, where it wanted to");
        assert!(ear.try_recv().is_err());
    }
}

#[test]
fn what_is_too_large_for_all_is_said_at_once() {
    let [a, _b] = pair(|config| set(config, "max_broadcast", "10KiB"));
    let refused = a.node.broadcast("", &[0; 10_241], ToAll::default(), Wait::Now).unwrap_err();
    assert_eq!(refused.code, Code::TooBig, "{refused}");
}

/// One that says more than the others can take is made to wait, and nobody misses anything.
#[test]
fn a_flood_to_all_is_held_back_and_loses_nothing() {
    let nodes = cluster(5, |config| {
        calm(config);
        // A handler that is slower than the flood loses its oldest, and is told so; this is about the way there.
        set(config, "inbox_bytes", "64MiB");
    });
    all_list(&nodes, 5);
    let counts: Vec<_> = nodes.iter().map(|_| Arc::new(AtomicU64::new(0))).collect();
    for (witness, count) in nodes.iter().zip(&counts) {
        let count = count.clone();
        witness.node.on_message("", Box::new(move |_| _ = count.fetch_add(1, SeqCst))).unwrap();
    }
    for _ in 0..3_000 {
        nodes[0].node.broadcast("", &[7; 10_000], ToAll::default(), LONG).unwrap();
    }
    for count in &counts[1..] {
        eventually("all are heard", || count.load(SeqCst) == 3_000, || format!("{counts:?}"));
    }
    assert!(nodes.iter().all(|w| !w.events().iter().any(|e| e.kind == EventKind::Gap)));
}
