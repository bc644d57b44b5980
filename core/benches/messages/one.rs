//! From one to another: messages, questions, bytes.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use bruit_core::config::Config;
use bruit_core::engine::Sending;
use bruit_core::runtime::{Message, Node, Stream, Wait};

use crate::kernel::PingPong;
use crate::nodes::{Count, LONG, cpu, pair};
use crate::{Flow, TIME};

/// One thread sends as fast as it may; what the other node's handler hears is counted.
pub fn send(size: usize, how: Sending) -> Flow {
    let [a, b] = pair(|_| {});
    let heard = Arc::new(Count::default());
    let count = heard.clone();
    b.on_message("", Box::new(move |_| count.add())).expect("running");
    let data = vec![7; size];
    let (began, cpu_began, mut sent) = (Instant::now(), cpu(), 0);
    while began.elapsed() < TIME {
        for _ in 0..64 {
            a.send("n1", "", &data, how, LONG).expect("there is room in time");
            sent += 1;
        }
    }
    // Best effort is over now: what still comes is counted, but not in its time.
    let (in_time, mut time) = (heard.now(), began.elapsed());
    let all = heard.reach(sent, Duration::from_millis(200));
    let timed = if how == Sending::BestEffort {
        in_time
    } else {
        time = began.elapsed();
        all
    };
    Flow {
        per_second: timed as f64 / time.as_secs_f64(),
        cpu_us: (cpu() - cpu_began).as_secs_f64() * 1e6 / all as f64,
        sent,
        received: all,
    }
}

/// Who asked may be gone, at the end.
fn echo(question: &Message) {
    let _ = question.reply(question.data());
}

/// Runs a node's callbacks, in manual mode, until the node stops.
fn drive(node: &Node) -> thread::JoinHandle<()> {
    let node = node.clone();
    thread::spawn(move || {
        while node.wait(Wait::Forever).is_ok() {
            let _ = node.dispatch(0);
        }
    })
}

pub fn manual(config: &mut Config) {
    config.set("dispatch", "manual").expect("an option");
}

/// Microseconds, sorted: of a question and its answer, and of the kernel's ping-pong, by turns: what else the machine does, and
/// on which cores the scheduler puts things, is the same for both.
pub fn round_trips(is_manual: bool) -> [Vec<f64>; 2] {
    let [a, b] = pair(|config| {
        if is_manual {
            manual(config)
        }
    });
    b.on_message("", Box::new(echo)).expect("running");
    let driver = is_manual.then(|| drive(&b));
    let kernel = PingPong::new();
    let (mut ours, mut kernels) = (Vec::new(), Vec::new());
    let began = Instant::now();
    while began.elapsed() < TIME {
        timed(&mut kernels, || kernel.trip());
        timed(&mut ours, || _ = a.request("n1", "", b"ping", LONG).expect("an answer"));
    }
    b.stop(LONG).expect("it stops");
    driver.into_iter().for_each(|driver| driver.join().expect("it ends"));
    ours.sort_by(f64::total_cmp);
    kernels.sort_by(f64::total_cmp);
    [ours, kernels]
}

fn timed(times: &mut Vec<f64>, mut trip: impl FnMut()) {
    let began = Instant::now();
    while began.elapsed() < TIME / 30 {
        let at = Instant::now();
        trip();
        times.push(at.elapsed().as_secs_f64() * 1e6);
    }
}

/// Answers a second with so many questions under way.
pub fn questions(at_once: u64) -> f64 {
    let [a, b] = pair(|_| {});
    b.on_message("", Box::new(echo)).expect("running");
    let (done, began, mut asked) = (Arc::new(Count::default()), Instant::now(), 0);
    while began.elapsed() < TIME {
        // Half of them at a time: who waits for each sleeps for each.
        let free = at_once - (asked - done.now());
        for _ in 0..free {
            let done = done.clone();
            let hear = move |answer: bruit_core::Result<_>| {
                answer.expect("an answer");
                done.add();
            };
            a.request_start("n1", "", b"ping", None, Box::new(hear)).expect("there is room");
            asked += 1;
        }
        done.reach(asked - at_once / 2, Duration::from_secs(10));
    }
    let rate = done.now() as f64 / began.elapsed().as_secs_f64();
    assert_eq!(done.reach(asked, Duration::from_secs(10)), asked, "each has its answer");
    rate
}

/// Bytes a second through one stream, written 64 KiB at a time.
pub fn stream(data: &[u8], compress: bool) -> f64 {
    let [a, b] = pair(|_| {});
    let (tell, told) = mpsc::channel::<Stream>();
    b.on_stream("", Box::new(move |stream| _ = tell.send(stream))).expect("running");
    let near = a.open_stream("n1", "", compress).expect("it is there");
    let far = told.recv().expect("it is opened");
    let began = Instant::now();
    let reader = thread::spawn(move || {
        let (mut buf, mut bytes) = (vec![0; 64 << 10], 0);
        loop {
            match far.read(&mut buf, LONG).expect("it is written") {
                0 => return bytes,
                n => bytes += n,
            }
        }
    });
    while began.elapsed() < TIME {
        let mut rest = data;
        while !rest.is_empty() {
            rest = &rest[near.write(rest, LONG).expect("it is read")..];
        }
    }
    near.shutdown().expect("open");
    let bytes = reader.join().expect("it ends");
    bytes as f64 / began.elapsed().as_secs_f64()
}
