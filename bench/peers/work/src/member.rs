//! One node in a process of its own, until standard input ends: what is killed, and what has to live beside busy neighbours.
//!
//! Prints `{"address": …}` once it runs, and `{"live": …}` whenever the number of members that it lists has changed.

use std::io::{Read, stdin};
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use crate::heard::Tally;
use crate::report::{failed, quoted};
use crate::{Heard, Options, Peer, Plan};

/// Nobody starts more than that.
const OWN_NUMBER: usize = 65_000;

pub fn run<P: Peer>(options: &Options) -> ExitCode {
    let plan = Plan {
        name: options.name.clone(),
        seed: options.seed.clone(),
        nodes: options.nodes,
        variant: options.variant.clone(),
        heard: Heard::new(OWN_NUMBER, &Tally::new()),
    };
    let node = match P::start(plan) {
        Ok(node) => node,
        Err(trouble) => return failed(&trouble),
    };
    println!("{{\"address\": {}}}", quoted(&node.address()));
    let (tell, told) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        // Until its end, or an error, which is one.
        let _ = stdin().read_to_end(&mut Vec::new());
        drop(tell);
    });
    let mut listed = 0;
    // The first other member is what a cold start waits for.
    let pause = |listed| Duration::from_millis(if listed < 2 { 1 } else { 5 });
    while told.recv_timeout(pause(listed)) == Err(mpsc::RecvTimeoutError::Timeout) {
        let live = node.live();
        if live != listed {
            println!("{{\"live\": {live}}}");
            listed = live;
        }
    }
    ExitCode::SUCCESS
}
