//! Byte streams between real nodes on real loopback sockets.

mod support;

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use bruit_core::engine::Sending::Reliable;
use bruit_core::error::Code;
use bruit_core::runtime::{FAIL_TEXT_MAX, Heard, Stream, Wait};
use bruit_core::view::EventKind;
use support::{LIMIT, Witness, calm, cluster, config, eventually, set};

const LONG: Wait = Wait::For(LIMIT);
const MIB: usize = 1 << 20;

fn pair(change: impl Fn(&mut bruit_core::Config)) -> [Witness; 2] {
    let nodes = cluster(2, |config| {
        calm(config);
        change(config);
    });
    nodes.try_into().unwrap_or_else(|_| unreachable!("there are two"))
}

/// The streams that members open there.
fn accept(witness: &Witness, topic: &str) -> mpsc::Receiver<Stream> {
    let (tell, told) = mpsc::channel();
    witness.node.on_stream(topic, Box::new(move |stream| _ = tell.send(stream))).unwrap();
    told
}

/// Both ends of a new stream.
fn open(a: &Witness, b: &Witness, topic: &str) -> (Stream, Stream) {
    let accepted = accept(b, topic);
    let near = a.node.open_stream(&b.name(), topic, false).unwrap();
    (near, accepted.recv_timeout(LIMIT).expect("it is opened there"))
}

fn code<T: std::fmt::Debug>(result: bruit_core::Result<T>) -> Code {
    result.expect_err("it fails").code
}

/// Bytes that are known by their place, and that lz4 finds nothing in.
fn byte_at(at: usize) -> u8 {
    bruit_core::rng::mix(at as u64) as u8
}

fn noise(from: usize, len: usize) -> Vec<u8> {
    (from..from + len).map(byte_at).collect()
}

fn write_all(stream: &Stream, mut data: &[u8]) {
    while !data.is_empty() {
        let count = stream.write(data, LONG).expect("it is read at the other end");
        data = &data[count..];
    }
}

fn read_all(stream: &Stream) -> bruit_core::Result<Vec<u8>> {
    let (mut all, mut buf) = (Vec::new(), vec![0; 100_000]);
    loop {
        match stream.read(&mut buf, LONG)? {
            0 => return Ok(all),
            n => all.extend_from_slice(&buf[..n]),
        }
    }
}

/// Waits until a read would not wait, without one.
fn poll(fd: i32) -> bool {
    let mut one = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one element, as said.
    unsafe { libc::poll(&mut one, 1, 0) == 1 }
}

#[test]
fn what_is_written_is_read_at_the_other_end_both_ways_and_in_both_compressions() {
    let [a, b] = pair(|_| {});
    let echo = |mut stream: Stream| {
        assert_eq!((&**stream.peer(), stream.topic()), ("n000", "echo"));
        thread::spawn(move || {
            let mut buf = vec![0; 10_000];
            loop {
                match stream.read(&mut buf, LONG).expect("it is written to") {
                    0 => break,
                    n => stream.write_all(&buf[..n]).expect("it is read"),
                }
            }
        });
    };
    b.node.on_stream("echo", Box::new(echo)).unwrap();
    let (plain, repeated) = (noise(0, 500_000), vec![7; 500_000]);
    for (data, compress) in [(&plain, false), (&plain, true), (&repeated, true), (&repeated, false)] {
        let (before, stream) = (a.stat("stream_bytes_sent"), a.node.open_stream("n001", "echo", compress).unwrap());
        assert_eq!((stream.is_compressed(), &**stream.peer()), (compress, "n001"));
        let heard = thread::scope(|scope| {
            let reader = scope.spawn(|| read_all(&stream));
            write_all(&stream, data);
            stream.shutdown().unwrap();
            reader.join().unwrap()
        });
        assert!(heard.unwrap() == *data, "as it was written");
        let sent = a.stat("stream_bytes_sent") - before;
        let shrinks = compress && data[0] == data[1];
        assert!(if shrinks { sent < 50_000 } else { sent == 500_000 }, "{sent} bytes, compressed: {compress}");
    }
    eventually("none is left", || a.stat("streams") + b.stat("streams") == 0, String::new);
    assert_eq!((a.stat("streams_opened"), b.stat("streams_accepted")), (4, 4));
    assert_eq!((a.stat("streams_done"), b.stat("streams_done")), (4, 4));
    assert_eq!(b.stat("stream_bytes_unread"), 0);
    eventually("all is acknowledged", || a.stat("stream_bytes_waiting") == 0, String::new);
}

/// 100 MB, and never more than a window of it anywhere.
#[test]
fn a_hundred_megabytes_go_through_within_the_window() {
    const ALL: usize = 100_000_000;
    let [a, b] = pair(|_| {});
    let accepted = accept(&b, "big");
    for compress in [false, true] {
        let stream = a.node.open_stream("n001", "big", compress).unwrap();
        let (far, over) = (accepted.recv_timeout(LIMIT).unwrap(), AtomicBool::new(false));
        let (mut unread, mut waiting) = (0, 0);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut at = 0;
                while at < ALL {
                    let len = 300_000.min(ALL - at);
                    write_all(&stream, &noise(at, len));
                    at += len;
                }
                stream.shutdown().unwrap();
            });
            scope.spawn(|| {
                let (mut at, mut buf) = (0, vec![0; 70_000]);
                loop {
                    let n = far.read(&mut buf, LONG).unwrap();
                    if n == 0 {
                        break;
                    }
                    assert!(buf[..n].iter().enumerate().all(|(i, &byte)| byte == byte_at(at + i)), "at {at}");
                    at += n;
                }
                assert_eq!(at, ALL);
                over.store(true, Release);
            });
            while !over.load(Acquire) {
                unread = unread.max(b.stat("stream_bytes_unread"));
                waiting = waiting.max(a.stat("stream_bytes_waiting"));
                thread::yield_now();
            }
        });
        let window = MIB as u64;
        assert!((1..=window).contains(&unread), "{unread} bytes were unread at once");
        // What is read makes room at once, and is acknowledged a little later.
        assert!((1..=2 * window).contains(&waiting), "{waiting} bytes waited at once");
    }
}

#[test]
fn each_way_ends_by_itself() {
    let [a, b] = pair(|_| {});
    let (near, far) = open(&a, &b, "sum");
    write_all(&near, &[1, 2, 3]);
    near.shutdown().unwrap();
    assert_eq!(code(near.write(b"more", Wait::Now)), Code::State);
    assert_eq!(read_all(&far).unwrap(), [1, 2, 3]);
    // The way back is still open.
    write_all(&far, &[6]);
    let mut sum = [0; 8];
    assert_eq!(near.read(&mut sum, LONG), Ok(1));
    assert_eq!(code(near.read(&mut sum, Wait::Now)), Code::Busy);
    assert_eq!(code(near.read(&mut sum, Wait::For(Duration::from_millis(10)))), Code::Timeout);
    far.close();
    assert_eq!((near.read(&mut sum, LONG), near.read(&mut sum, LONG)), (Ok(0), Ok(0)));
    assert_eq!(code(far.read(&mut sum, LONG)), Code::State);
    eventually("both know", || a.stat("streams") + b.stat("streams") == 0, String::new);
}

#[test]
fn who_does_not_read_stops_its_own_writer_and_nobody_else() {
    let [a, b] = pair(|config| set(config, "stream_window", "256KiB"));
    let (near, far) = open(&a, &b, "slow");
    let mut written = 0;
    eventually(
        "there is no room for more",
        || {
            while let Ok(n) = near.write(&noise(written, 10_000), Wait::Now) {
                written += n;
            }
            // Before that, the other side's first word and its acknowledgements may still be under way.
            written > 200 << 10 && !poll(near.write_fd().unwrap()) && poll(far.read_fd().unwrap())
        },
        String::new,
    );
    assert!(written < 256 << 10, "{written}");
    // Messages, large ones as well, and other streams pass it by.
    let (tell, told) = mpsc::channel();
    b.node.on_message("", Box::new(move |m| _ = tell.send(m.data().len()))).unwrap();
    for len in [10, 1_000_000, 20] {
        a.node.send("n001", "", &vec![0; len], Reliable, LONG).unwrap();
    }
    let mut sizes: Vec<usize> = (0..3).map(|_| told.recv_timeout(LIMIT).unwrap()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [10, 20, 1_000_000]);
    let (other, there) = open(&a, &b, "other");
    let data = noise(0, 3 * MIB);
    thread::scope(|scope| {
        let reader = scope.spawn(|| read_all(&there));
        write_all(&other, &data);
        other.shutdown().unwrap();
        assert!(reader.join().unwrap().unwrap() == data);
    });
    // And what has waited is all there.
    near.shutdown().unwrap();
    assert!(read_all(&far).unwrap() == noise(0, written));
}

/// Its lane is its own: a full inbox holds messages up, and a handler that reads a stream to its end still gets there.
#[test]
fn a_handler_may_read_a_stream_while_messages_wait_for_it() {
    let [a, b] = pair(|config| set(config, "inbox_bytes", "64KiB"));
    let (tell, told) = mpsc::channel();
    b.node.on_message("", Box::new(|_| {})).unwrap();
    b.node.on_stream("", Box::new(move |stream| _ = tell.send(read_all(&stream).map(|all| all.len())))).unwrap();
    let stream = a.node.open_stream("n001", "", false).unwrap();
    write_all(&stream, &noise(0, 1000));
    for _ in 0..300 {
        a.node.send("n001", "", &[0; 1000], Reliable, Wait::Now).unwrap();
    }
    a.until("there is no room for more", |_| b.stat("messages_received") >= 60);
    write_all(&stream, &noise(0, 3 * MIB));
    stream.shutdown().unwrap();
    assert_eq!(told.recv_timeout(LIMIT).unwrap(), Ok(3 * MIB + 1000));
    a.until("and then the messages", |_| b.stat("messages_received") == 300);
}

#[test]
fn what_cannot_be_opened_is_said() {
    let [a, b] = pair(|config| set(config, "max_member_streams", "2"));
    assert_eq!(code(a.node.open_stream("nobody", "", false)), Code::NotFound);
    assert_eq!(code(a.node.open_stream("n001", "a\nb", false)), Code::Invalid);
    let deaf = a.node.open_stream("n001", "deaf", false).unwrap();
    let error = deaf.read(&mut [0; 8], LONG).unwrap_err();
    assert_eq!(error.code, Code::NoHandler, "{error}");
    assert!(error.text.contains("deaf"), "{error}");
    assert_eq!(code(deaf.write(b"x", LONG)), Code::NoHandler);
    assert_eq!(b.stat("streams_unheard"), 1);
    let (first, first_there) = open(&a, &b, "one");
    let _second = open(&a, &b, "two");
    assert_eq!(code(a.node.open_stream("n001", "one", false)), Code::Limit);
    // The other side counts for itself: it has these two as well.
    assert_eq!(code(b.node.open_stream("n000", "one", false)), Code::Limit);
    assert_eq!((a.stat("streams_refused"), b.stat("streams_refused")), (1, 1));
    drop((first, first_there));
    eventually("there is room again", || a.node.open_stream("n001", "one", false).is_ok(), String::new);
    // Who has more than its share is refused by the other side.
    let mut third = config("n002", &[&b.address()]);
    calm(&mut third);
    let c = Witness::start(&third);
    c.until("it is in", |c| c.alive() == 3);
    b.until("it is known", |b| b.alive() == 3);
    // Held there: one that is dropped makes room.
    let _held = accept(&b, "held");
    let streams: Vec<Stream> = (0..5).map(|_| c.node.open_stream("n001", "held", false).unwrap()).collect();
    let refused = || streams.iter().filter(|s| s.read(&mut [0; 1], Wait::Now).is_err_and(|e| e.code == Code::Limit));
    eventually(
        "three are refused",
        || refused().count() == 3,
        || {
            let errors: Vec<_> = streams.iter().map(|s| s.read(&mut [0; 1], Wait::Now)).collect();
            format!("{errors:?}")
        },
    );
}

#[test]
fn who_closes_early_tells_the_writer() {
    let [a, b] = pair(|_| {});
    let (near, far) = open(&a, &b, "early");
    write_all(&far, b"good-bye");
    drop(far);
    assert_eq!(read_all(&near).unwrap(), b"good-bye", "what was written before is read");
    let mut error = None;
    eventually(
        "it hears",
        || {
            error = near.write(&[0; 1000], LONG).err();
            error.is_some()
        },
        String::new,
    );
    assert_eq!(error.map(|e| e.code), Some(Code::Canceled));
    assert_eq!(a.stat("streams_reset"), 1);
    // A writer that waits hears of it, too.
    let (near, far) = open(&a, &b, "late");
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            loop {
                if let Err(error) = near.write(&[0; 100_000], LONG) {
                    break error.code;
                }
            }
        });
        b.until("it waits to be read", |b| b.stat("stream_bytes_unread") > 800_000);
        drop(far);
        assert_eq!(writer.join().unwrap(), Code::Canceled);
    });
    assert_eq!(b.stat("stream_bytes_unread"), 0, "what nobody reads is let go");
}

#[test]
fn who_fails_tells_the_reader_that_what_it_has_is_not_all() {
    let [a, b] = pair(|_| {});
    let (near, far) = open(&a, &b, "half");
    write_all(&far, b"the first half");
    a.until("it is there", |a| a.stat("stream_bytes_unread") == 14);
    far.fail(Code::Remote, &"disk full ".repeat(1_000));
    let mut half = [0; 64];
    assert_eq!(near.read(&mut half, LONG).unwrap(), 14, "what has come is read");
    let error = near.read(&mut half, LONG).unwrap_err();
    assert_eq!((error.code, error.text.len()), (Code::Remote, FAIL_TEXT_MAX));
    assert!(error.text.starts_with("disk full disk full"), "{error}");
    assert_eq!(code(near.write(b"x", LONG)), Code::Remote);
    assert_eq!(code(far.read(&mut half, LONG)), Code::State, "it is closed");
    far.fail(Code::Remote, "again");
    assert_eq!((a.stat("streams_reset"), b.stat("streams")), (1, 0));
    // What would make a reader try again is no end.
    for busy in [Code::Busy, Code::Timeout] {
        let (near, far) = open(&a, &b, busy.name());
        far.fail(busy, "try again");
        assert_eq!(code(near.read(&mut half, LONG)), Code::Remote);
    }
    // A panic is no end of a file.
    let (near, far) = open(&a, &b, "panic");
    let panics = thread::spawn(move || {
        write_all(&far, b"half");
        panic!("as planned");
    });
    assert!(panics.join().is_err());
    let mut read = Ok(4);
    while matches!(read, Ok(1..)) {
        read = near.read(&mut half, LONG);
    }
    assert_eq!(read.unwrap_err().code, Code::Remote);
}

#[test]
fn who_leaves_or_dies_or_is_stopped_ends_its_streams() {
    for how in ["leave", "crash"] {
        let [a, b] =
            cluster(2, |config| set(config, "inbox_bytes", "1MiB")).try_into().unwrap_or_else(|_| unreachable!());
        let (near, far) = open(&a, &b, "x");
        write_all(&far, b"last words");
        let mut buf = [0; 100];
        a.until("they have come", |a| a.stat("stream_bytes_received") == 10);
        thread::scope(|scope| {
            let reader = scope.spawn(|| {
                assert_eq!(near.read(&mut buf, LONG), Ok(10));
                near.read(&mut buf, LONG)
            });
            match how {
                "leave" => b.node.leave(LONG).unwrap(),
                _ => b.node.stop(LONG).unwrap(),
            }
            assert_eq!(code(reader.join().unwrap()), Code::Unreachable, "{how}");
        });
        assert_eq!(code(near.write(b"x", LONG)), Code::Unreachable);
        a.until("it is gone", |a| a.told(EventKind::Left, "n001") || a.told(EventKind::Dead, "n001"));
        let here = code(far.read(&mut buf, LONG));
        assert_eq!(here, if how == "leave" { Code::Unreachable } else { Code::Canceled });
        assert_eq!(a.stat("streams_unreachable"), 1);
        // And where our own node stops, whoever waits is told.
        let (own, _there) = open(&a, &a, "self");
        thread::scope(|scope| {
            let reader = scope.spawn(|| own.read(&mut [0; 1], LONG));
            a.node.stop(LONG).unwrap();
            assert_eq!(code(reader.join().unwrap()), Code::Canceled);
        });
        assert_eq!(code(own.write(b"x", LONG)), Code::Canceled);
        assert_eq!(code(a.node.open_stream("n000", "self", false)), Code::State);
    }
}

#[test]
fn a_stream_to_oneself_is_a_stream() {
    let [a, _b] = pair(|_| {});
    let (near, far) = open(&a, &a, "self");
    let data = noise(0, 3 * MIB);
    thread::scope(|scope| {
        let reader = scope.spawn(|| read_all(&far));
        write_all(&near, &data);
        near.shutdown().unwrap();
        assert!(reader.join().unwrap().unwrap() == data);
    });
    far.close();
    assert_eq!(near.read(&mut [0; 1], LONG), Ok(0));
    assert_eq!(a.stat("streams"), 0);
}

#[test]
fn a_stream_may_be_closed_anywhere() {
    let [a, b] = pair(|_| {});
    // Unread, in the callback that it is given to.
    b.node.on_stream("closed", Box::new(|stream| stream.close())).unwrap();
    b.node.on_stream("dropped", Box::new(drop)).unwrap();
    b.node.on_stream("panics", Box::new(|_| std::panic::resume_unwind(Box::new("on purpose")))).unwrap();
    for topic in ["closed", "dropped"] {
        let stream = a.node.open_stream("n001", topic, false).unwrap();
        assert_eq!(read_all(&stream), Ok(vec![]), "{topic}");
    }
    let stream = a.node.open_stream("n001", "panics", false).unwrap();
    assert_eq!(code(read_all(&stream)), Code::Remote, "that is no end of a file");
    // Its stream ends before the handler has.
    eventually("the panic is counted", || b.stat("handler_panics") == 1, || b.describe());
    // While another thread waits in it.
    let (near, _far) = open(&a, &b, "waited for");
    thread::scope(|scope| {
        let reader = scope.spawn(|| near.read(&mut [0; 1], LONG));
        a.until("it may well wait", |a| a.stat("streams") > 0);
        near.close();
        assert_eq!(code(reader.join().unwrap()), Code::State);
    });
}

#[test]
fn descriptors_say_what_would_not_wait() {
    let [a, b] = pair(|_| {});
    let (near, far) = open(&a, &b, "fd");
    let (read, write) = (near.read_fd().unwrap(), near.write_fd().unwrap());
    assert_eq!((poll(read), poll(write)), (false, true));
    write_all(&far, b"xy");
    eventually("there is something", || poll(read), String::new);
    assert_eq!(near.read(&mut [0; 1], Wait::Now), Ok(1));
    assert!(poll(read), "one byte is left");
    assert_eq!(near.read(&mut [0; 1], Wait::Now), Ok(1));
    assert!(!poll(read));
    far.shutdown().unwrap();
    eventually("there is the end", || poll(read), String::new);
    assert_eq!(near.read(&mut [0; 1], Wait::Now), Ok(0));
    assert!(poll(read), "which stays");
}

#[test]
fn a_stream_goes_on_where_its_links_end() {
    let [a, b] = pair(|config| {
        set(config, "link_idle", "1s");
        set(config, "max_links", "1");
    });
    let relays: Vec<Witness> = (0..2)
        .map(|i| {
            let mut config = config(&format!("m{i}"), &[&a.address()]);
            calm(&mut config);
            Witness::start(&config)
        })
        .collect();
    relays.iter().for_each(|w| a.until("all are there", |a| a.told(EventKind::Join, &w.name())));
    let (near, far) = open(&a, &b, "through");
    let data = noise(0, 4 * MIB);
    thread::scope(|scope| {
        let reader = scope.spawn(|| read_all(&far));
        for (i, part) in data.chunks(MIB / 16).enumerate() {
            // One link at a time: each other member takes it away.
            a.node.send(&format!("m{}", i % 2), "x", &[0; 3_000], Reliable, LONG).unwrap();
            write_all(&near, part);
        }
        near.shutdown().unwrap();
        assert!(reader.join().unwrap().unwrap() == data);
    });
    assert!(a.stat("links_evicted") > 10, "{}", a.stat("links_evicted"));
}

#[test]
fn many_streams_share_the_way_and_keep_their_bytes_apart() {
    let [a, b] = pair(|_| {});
    let total = Arc::new(AtomicU64::new(0));
    let sum = total.clone();
    let count = move |mut stream: Stream| {
        let sum = sum.clone();
        thread::spawn(move || {
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            let (number, rest) = all.split_first_chunk::<8>().unwrap();
            let number = u64::from_le_bytes(*number) as usize;
            assert!(rest.iter().enumerate().all(|(i, &byte)| byte == byte_at(number + i)));
            sum.fetch_add(rest.len() as u64, SeqCst);
        });
    };
    b.node.on_stream("*", Box::new(count)).unwrap();
    thread::scope(|scope| {
        for i in 0..32usize {
            let node = a.node.clone();
            scope.spawn(move || {
                let stream = node.open_stream("n001", &format!("t{i}"), i % 2 == 0).unwrap();
                write_all(&stream, &(i as u64).to_le_bytes());
                write_all(&stream, &noise(i, 300_000));
            });
        }
    });
    eventually("all is read", || total.load(SeqCst) == 32 * 300_000, || format!("{}", total.load(SeqCst)));
}

#[test]
fn a_mixed_queue_takes_streams_as_well() {
    let [a, b] = pair(|_| {});
    let queue = b.node.mixed_queue(0, 16).unwrap();
    queue.listen_to_streams("q").unwrap();
    let near = a.node.open_stream("n001", "q", false).unwrap();
    assert!(queue.wait(LONG));
    let Some(Heard::Stream(far)) = queue.try_next() else { panic!("a stream was opened") };
    write_all(&near, b"hello");
    near.close();
    assert_eq!(read_all(&far).unwrap(), b"hello");
    queue.ignore_streams("q");
    let late = a.node.open_stream("n001", "q", false).unwrap();
    assert_eq!(code(late.read(&mut [0; 1], LONG)), Code::NoHandler);
}
