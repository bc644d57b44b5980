//! What the kernel does with the same bytes.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use crate::TIME;

/// A TCP connection, writes of 64 KiB, in bytes a second.
pub fn tcp() -> f64 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = listener.local_addr().expect("bound");
    let sender = thread::spawn(move || {
        let mut socket = TcpStream::connect(address).expect("listening");
        let (data, began) = (vec![7; 64 << 10], Instant::now());
        while began.elapsed() < TIME {
            socket.write_all(&data).expect("it is read");
        }
    });
    let (mut socket, _) = listener.accept().expect("it connects");
    let (mut data, mut bytes, began) = (vec![0; 64 << 10], 0, Instant::now());
    loop {
        match socket.read(&mut data).expect("open") {
            0 => break,
            n => bytes += n,
        }
    }
    sender.join().expect("it ends");
    bytes as f64 / began.elapsed().as_secs_f64()
}

/// A datagram of 64 bytes there and back between two threads.
pub struct PingPong(UdpSocket);

impl PingPong {
    pub fn new() -> PingPong {
        let socket = || UdpSocket::bind("127.0.0.1:0").expect("loopback");
        let (here, there) = (socket(), socket());
        here.connect(there.local_addr().expect("bound")).expect("loopback");
        there.connect(here.local_addr().expect("bound")).expect("loopback");
        thread::spawn(move || {
            let mut data = [0; 64];
            // An empty one ends it.
            while there.recv(&mut data).is_ok_and(|n| n > 0) {
                there.send(&data).expect("loopback");
            }
        });
        PingPong(here)
    }

    pub fn trip(&self) {
        let mut data = [0; 64];
        self.0.send(&data).expect("loopback");
        self.0.recv(&mut data).expect("loopback");
    }
}

impl Drop for PingPong {
    fn drop(&mut self) {
        let _ = self.0.send(&[]);
    }
}

/// Datagrams of that size, one call each way for each, received a second.
pub fn udp(size: usize) -> f64 {
    let to = UdpSocket::bind("127.0.0.1:0").expect("loopback");
    let from = UdpSocket::bind("127.0.0.1:0").expect("loopback");
    from.connect(to.local_addr().expect("bound")).expect("loopback");
    to.set_read_timeout(Some(Duration::from_millis(200))).expect("an option");
    let sender = thread::spawn(move || {
        let (data, began) = (vec![7; size], Instant::now());
        while began.elapsed() < TIME {
            for _ in 0..64 {
                let _ = from.send(&data);
            }
        }
    });
    let (mut data, mut received, began) = (vec![0; 2048], 0u64, Instant::now());
    while to.recv(&mut data).is_ok() {
        received += 1;
    }
    let time = began.elapsed() - Duration::from_millis(200);
    sender.join().expect("it ends");
    received as f64 / time.as_secs_f64()
}
