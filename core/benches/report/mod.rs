//! How the benchmarks print: what was measured, beside what we reach for, a figure of this machine, and others.

// Each benchmark uses its own part of this.
#![allow(dead_code)]

use std::net::UdpSocket;
use std::time::{Duration, Instant};

/// One result. Time never fails a benchmark: `behind` is for people to look at.
pub struct Row<'a> {
    pub what: &'a str,
    pub value: f64,
    pub unit: &'a str,
    /// At most so much is what we reach for; with [`Row::print_more`] at least.
    pub reach: Option<f64>,
    /// Further figures of the same measurement.
    pub detail: String,
    /// What others need for the same work, where they were measured. On a machine of 2 vCPUs, November 2026.
    pub others: &'a str,
}

impl Row<'_> {
    pub fn print(&self) {
        self.print_where(|reach| self.value <= reach);
    }

    /// Where more is better.
    pub fn print_more(&self) {
        self.print_where(|reach| self.value >= reach);
    }

    fn print_where(&self, is_reached: impl Fn(f64) -> bool) {
        let verdict = match self.reach {
            None => String::new(),
            Some(reach) if is_reached(reach) => format!("reach {} {}: OK", number(reach), self.unit),
            Some(reach) => format!("reach {} {}: behind", number(reach), self.unit),
        };
        println!("{:<58} {:>9} {:<10} {verdict}", self.what, number(self.value), self.unit);
        for line in [&self.detail, self.others].into_iter().filter(|line| !line.is_empty()) {
            println!("    {line}");
        }
    }
}

pub fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        v if v < 0.1 => format!("{value:.4}"),
        v if v < 10.0 => format!("{value:.2}"),
        v if v < 1000.0 => format!("{value:.0}"),
        _ => {
            let digits = format!("{value:.0}");
            let head = digits.len() % 3;
            let mut text = digits[..head].to_owned();
            for (i, digit) in digits[head..].chars().enumerate() {
                if i % 3 == 0 && !text.is_empty() {
                    text.push(',');
                }
                text.push(digit);
            }
            text
        }
    }
}

pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

pub fn spread(values: &mut [f64], unit: &str) -> String {
    values.sort_by(f64::total_cmp);
    let (min, max) = (values[0], values[values.len() - 1]);
    format!(
        "min {}, median {}, max {} {unit} of {}",
        number(min),
        number(values[values.len() / 2]),
        number(max),
        values.len()
    )
}

/// Figures of the machine, taken in the same run: a ratio against them says more than a figure of ours alone.
pub struct Machine {
    /// One datagram of 64 bytes there and back over loopback, between two threads.
    pub udp_round_trip: Duration,
    /// Copying 1,400 bytes, in nanoseconds.
    pub copy_ns: f64,
}

impl Machine {
    pub fn measure() -> Machine {
        Machine { udp_round_trip: udp_round_trip(), copy_ns: copy_ns() }
    }

    pub fn print(&self) {
        println!(
            "this machine: {} raw UDP round trips/s over loopback ({:.1} us each), {:.0} ns to copy 1,400 B\n",
            number(1.0 / self.udp_round_trip.as_secs_f64()),
            self.udp_round_trip.as_secs_f64() * 1e6,
            self.copy_ns,
        );
    }

    pub fn in_round_trips(&self, seconds: f64) -> String {
        format!("{} raw UDP round trips of this machine", number(seconds / self.udp_round_trip.as_secs_f64()))
    }

    pub fn in_copies(&self, ns: f64) -> String {
        format!("{} copies of 1,400 B on this machine", number(ns / self.copy_ns))
    }
}

fn udp_round_trip() -> Duration {
    const ROUNDS: u32 = 20_000;
    let socket = || UdpSocket::bind("127.0.0.1:0").expect("loopback has a free port");
    let (here, there) = (socket(), socket());
    here.connect(there.local_addr().unwrap()).unwrap();
    there.connect(here.local_addr().unwrap()).unwrap();
    let echo = std::thread::spawn(move || {
        let mut buf = [0; 64];
        for _ in 0..ROUNDS {
            there.recv(&mut buf).unwrap();
            there.send(&buf).unwrap();
        }
    });
    let (begin, mut buf) = (Instant::now(), [0; 64]);
    for _ in 0..ROUNDS {
        here.send(&buf).unwrap();
        here.recv(&mut buf).unwrap();
    }
    let took = begin.elapsed();
    echo.join().unwrap();
    took / ROUNDS
}

fn copy_ns() -> f64 {
    const ROUNDS: u32 = 1_000_000;
    let (source, mut target) = (vec![1_u8; 1400], vec![0_u8; 1400]);
    let begin = Instant::now();
    for _ in 0..ROUNDS {
        std::hint::black_box(&mut target).copy_from_slice(std::hint::black_box(&source));
    }
    begin.elapsed().as_nanos() as f64 / f64::from(ROUNDS)
}
