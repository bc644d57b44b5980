//! What the machine itself can do, in the same run: datagrams, round trips, copies, sealing. Nobody's figures can be better.

use std::hint::black_box;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use std::io::{Read, Write};
use work::{Figures, Usage};

const TIME: Duration = Duration::from_millis(700);

fn main() -> ExitCode {
    let mut figures = Figures::default();
    match measure(&mut figures) {
        Ok(()) => {
            println!("{}", figures.line());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(figures: &mut Figures) -> std::io::Result<()> {
    for (size, rate, cpu) in
        [(256, "udp_256_per_second", "udp_256_cpu_us"), (1400, "udp_1400_per_second", "udp_1400_cpu_us")]
    {
        let usage = Usage::begin();
        let heard = datagrams(size)?;
        figures.put(rate, heard / usage.elapsed().as_secs_f64());
        figures.put(cpu, usage.cpu_seconds() * 1e6 / heard);
    }
    figures.put("udp_round_trip_us", round_trip()?);
    figures.put("tcp_bytes_per_second", stream()?);
    let (source, mut target) = (vec![1_u8; 1400], vec![0_u8; 1400]);
    figures.put("copy_1400_ns", ns(|| black_box(&mut target).copy_from_slice(black_box(&source))));
    for (size, name) in [(256, "seal_and_open_256_ns"), (1400, "seal_and_open_1400_ns")] {
        figures.put(name, seal(size));
    }
    Ok(())
}

fn pair() -> std::io::Result<[UdpSocket; 2]> {
    let [a, b] = [UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?];
    a.connect(b.local_addr()?)?;
    b.connect(a.local_addr()?)?;
    Ok([a, b])
}

/// Sent by one thread as fast as it can: how many another one has received. One system call each.
fn datagrams(size: usize) -> std::io::Result<f64> {
    let [a, b] = pair()?;
    b.set_read_timeout(Some(Duration::from_millis(50)))?;
    let reader = thread::spawn(move || {
        let (mut buf, mut heard) = (vec![0; 2048], 0);
        while b.recv(&mut buf).is_ok() {
            heard += 1;
        }
        heard
    });
    let (data, began) = (vec![7; size], Instant::now());
    while began.elapsed() < TIME {
        for _ in 0..64 {
            // What does not fit is lost, as everywhere.
            let _ = a.send(&data);
        }
    }
    Ok(f64::from(reader.join().unwrap_or(0)))
}

fn round_trip() -> std::io::Result<f64> {
    let [a, b] = pair()?;
    let echo = thread::spawn(move || {
        let mut buf = [0; 64];
        while let Ok(size) = b.recv(&mut buf) {
            if size == 0 || b.send(&buf[..size]).is_err() {
                return;
            }
        }
    });
    let (mut times, mut buf, began) = (Vec::new(), [1; 64], Instant::now());
    while began.elapsed() < TIME {
        let at = Instant::now();
        a.send(&buf)?;
        a.recv(&mut buf)?;
        times.push(at.elapsed().as_secs_f64() * 1e6);
    }
    a.send(&[])?;
    let _ = echo.join();
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

fn stream() -> std::io::Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut out = TcpStream::connect(listener.local_addr()?)?;
    let (mut from, _) = listener.accept()?;
    let reader = thread::spawn(move || {
        let (mut buf, mut bytes) = (vec![0; 64 << 10], 0);
        while let Ok(size @ 1..) = from.read(&mut buf) {
            bytes += size;
        }
        bytes
    });
    let (data, began) = (vec![7; 64 << 10], Instant::now());
    while began.elapsed() < TIME {
        out.write_all(&data)?;
    }
    drop(out);
    Ok(reader.join().unwrap_or(0) as f64 / began.elapsed().as_secs_f64())
}

fn seal(size: usize) -> f64 {
    use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
    let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &[7; 32]).expect("a key is 32 bytes"));
    let mut number = 0_u32;
    ns(|| {
        number += 1;
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(&number.to_le_bytes());
        let mut data = vec![7; size];
        let [seal, open] = [nonce, nonce].map(Nonce::assume_unique_for_key);
        key.seal_in_place_append_tag(seal, Aad::empty(), &mut data).expect("it is short");
        black_box(key.open_in_place(open, Aad::empty(), &mut data).expect("it is whole"));
    })
}

/// Of one call.
fn ns(mut f: impl FnMut()) -> f64 {
    let (began, mut calls) = (Instant::now(), 0_u64);
    while began.elapsed() < TIME / 4 {
        (0..100).for_each(|_| f());
        calls += 100;
    }
    began.elapsed().as_nanos() as f64 / calls as f64
}
