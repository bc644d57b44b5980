//! A network that misbehaves on request: every node advertises a port of the relay, and the relay carries each
//! packet on to the port where that node really listens, or does not.
//!
//! A datagram from node i to node j arrives at front j from i's real port and leaves from front i to j's real
//! port, so the nodes see nothing but advertised addresses. Streams are carried as they are: who opened one
//! cannot be told from its port, so they are all let through or all refused.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use bruit_core::config::Config;

use super::{free_address, set};

/// Number of a node in the relay, in the order of [`Relay::add`].
pub type Place = usize;

/// One datagram as it arrived at the relay.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub from: Place,
    pub to: Place,
    pub bytes: Vec<u8>,
}

#[derive(Default)]
struct Rules {
    /// Datagrams from .0 to .1 vanish.
    cut: HashSet<(Place, Place)>,
    /// They wait in `held` for `release`.
    hold: HashSet<(Place, Place)>,
    held: Vec<Recorded>,
    /// The next so many datagrams from .0 to .1 vanish.
    drop_next: Option<(Place, Place, usize)>,
    /// So many of a hundred vanish, by lot.
    loss_percent: u64,
    lot: u64,
    no_streams: bool,
    recording: Option<Vec<Recorded>>,
    dropped: u64,
}

struct Front {
    udp: UdpSocket,
    /// Where the node really listens.
    real: SocketAddr,
}

struct Shared {
    rules: Mutex<Rules>,
    fronts: Mutex<Vec<Arc<Front>>>,
    over: AtomicBool,
}

pub struct Relay {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// How long a relay thread waits before it looks whether the relay is over.
const LOOK: Duration = Duration::from_millis(50);

impl Relay {
    pub fn new() -> Relay {
        let rules = Rules { lot: 0x9e37_79b9_7f4a_7c15, ..Rules::default() };
        let shared = Shared { rules: Mutex::new(rules), fronts: Mutex::default(), over: AtomicBool::new(false) };
        Relay { shared: Arc::new(shared), threads: Vec::new() }
    }

    /// Gives the node a front: sets `bind` and `advertise` in its configuration.
    pub fn add(&mut self, config: &mut Config) -> Place {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").expect("loopback has a free port");
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().expect("it is bound")) {
                break (udp, tcp);
            }
        };
        let real = free_address();
        set(config, "bind", &real.to_string());
        set(config, "advertise", &udp.local_addr().expect("it is bound").to_string());
        udp.set_read_timeout(Some(LOOK)).expect("a timeout above zero");
        tcp.set_nonblocking(true).expect("a listener can be nonblocking");
        let front = Arc::new(Front { udp, real });
        let mut fronts = self.shared.fronts.lock().unwrap();
        let place = fronts.len();
        fronts.push(front.clone());
        let (datagrams, streams) = (self.shared.clone(), self.shared.clone());
        self.threads.push(std::thread::spawn(move || datagrams.carry_datagrams(place, &front)));
        self.threads.push(std::thread::spawn(move || streams.carry_streams(&tcp, real)));
        place
    }

    /// The address that the node at that place advertises.
    pub fn front(&self, place: Place) -> String {
        self.shared.fronts.lock().unwrap()[place].udp.local_addr().expect("it is bound").to_string()
    }

    /// Datagrams from `from` to `to` vanish from now on; the other direction is not touched.
    pub fn cut(&self, from: Place, to: Place) {
        self.rules(|r| r.cut.insert((from, to)));
    }

    /// Datagrams across the two sides vanish, both ways.
    pub fn part(&self, one: &[Place], other: &[Place]) {
        for &a in one {
            for &b in other {
                self.cut(a, b);
                self.cut(b, a);
            }
        }
    }

    pub fn heal(&self) {
        self.rules(|r| r.cut.clear());
    }

    pub fn lose(&self, percent: u64) {
        self.rules(|r| r.loss_percent = percent);
    }

    pub fn drop_next(&self, from: Place, to: Place, count: usize) {
        self.rules(|r| r.drop_next = Some((from, to, count)));
    }

    /// Keeps what `from` sends to `to` until [`Relay::release`].
    pub fn hold(&self, from: Place, to: Place) {
        self.rules(|r| r.hold.insert((from, to)));
    }

    /// What comes from now on is carried again; what is held stays.
    pub fn hold_no_more(&self) {
        self.rules(|r| r.hold.clear());
    }

    /// Delivers what was held back; returns how many datagrams that were.
    pub fn release(&self) -> usize {
        let held = self.rules(|r| std::mem::take(&mut r.held));
        held.iter().for_each(|packet| self.inject(packet.from, packet.to, &packet.bytes));
        held.len()
    }

    /// How many datagrams are held back.
    pub fn held(&self) -> usize {
        self.rules(|r| r.held.len())
    }

    /// Every stream is closed as soon as it is opened.
    pub fn refuse_streams(&self) {
        self.rules(|r| r.no_streams = true);
    }

    pub fn record(&self) {
        self.rules(|r| r.recording = Some(Vec::new()));
    }

    pub fn recorded(&self) -> Vec<Recorded> {
        self.rules(|r| r.recording.clone().unwrap_or_default())
    }

    pub fn dropped(&self) -> u64 {
        self.rules(|r| r.dropped)
    }

    /// Sends these bytes to `to` as if `from` had sent them.
    pub fn inject(&self, from: Place, to: Place, bytes: &[u8]) {
        self.shared.deliver(from, to, bytes);
    }

    fn rules<T>(&self, f: impl FnOnce(&mut Rules) -> T) -> T {
        f(&mut self.shared.rules.lock().unwrap())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn carry_datagrams(&self, to: Place, front: &Front) {
        let mut buf = [0; 65536];
        while !self.over() {
            let Ok((len, source)) = front.udp.recv_from(&mut buf) else { continue };
            let from = self.fronts.lock().unwrap().iter().position(|f| f.real == source);
            // A stranger to the relay, such as a port that a node used before, has no way back: not carried.
            let Some(from) = from else { continue };
            if self.rules.lock().unwrap().pass(from, to, &buf[..len]) {
                self.deliver(from, to, &buf[..len]);
            }
        }
    }

    fn deliver(&self, from: Place, to: Place, bytes: &[u8]) {
        let (source, target) = {
            let fronts = self.fronts.lock().unwrap();
            (fronts[from].clone(), fronts[to].real)
        };
        // A target that has crashed refuses it; that is the network's ordinary life.
        let _ = source.udp.send_to(bytes, target);
    }

    fn carry_streams(self: &Arc<Self>, listener: &TcpListener, real: SocketAddr) {
        while !self.over() {
            let Ok((near, _)) = listener.accept() else {
                std::thread::sleep(LOOK / 10);
                continue;
            };
            if self.rules.lock().unwrap().no_streams {
                continue;
            }
            let Ok(far) = TcpStream::connect_timeout(&real, Duration::from_secs(1)) else { continue };
            for (mut source, mut sink) in [
                (near.try_clone().expect("a socket can be cloned"), far.try_clone().expect("a socket can be cloned")),
                (far, near),
            ] {
                let shared = self.clone();
                std::thread::spawn(move || shared.pump(&mut source, &mut sink));
            }
        }
    }

    fn pump(&self, source: &mut TcpStream, sink: &mut TcpStream) {
        let mut buf = [0; 16384];
        source.set_nonblocking(false).expect("a stream can block");
        source.set_read_timeout(Some(LOOK)).expect("a timeout above zero");
        while !self.over() {
            match source.read(&mut buf) {
                Ok(0) => break,
                Ok(len) => {
                    if sink.write_all(&buf[..len]).is_err() {
                        break;
                    }
                }
                Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
                Err(_) => break,
            }
        }
        let _ = sink.shutdown(Shutdown::Write);
        let _ = source.shutdown(Shutdown::Read);
    }
}

impl Rules {
    fn pass(&mut self, from: Place, to: Place, bytes: &[u8]) -> bool {
        let packet = || Recorded { from, to, bytes: bytes.to_vec() };
        if let Some(recording) = &mut self.recording {
            recording.push(packet());
        }
        if self.hold.contains(&(from, to)) {
            self.held.push(packet());
            return false;
        }
        let mut lost = self.cut.contains(&(from, to)) || self.draw() % 100 < self.loss_percent;
        if let Some((a, b, left)) = &mut self.drop_next
            && (*a, *b) == (from, to)
            && *left > 0
        {
            *left -= 1;
            lost = true;
        }
        self.dropped += u64::from(lost);
        !lost
    }

    /// Xorshift64: the same losses in the same order of packets.
    fn draw(&mut self) -> u64 {
        self.lot ^= self.lot << 13;
        self.lot ^= self.lot >> 7;
        self.lot ^= self.lot << 17;
        self.lot
    }
}
