//! Streams: links that are kept and used in both directions, not a connection for each message.
//!
//! ```text
//! dialed    Connecting ──connected──▶ Open { run: None } ──first valid record──▶ Open { run }
//! accepted  Stranger ──first valid record──▶ Open { run }
//! ```
//! A link belongs to the run that its first valid record came from; a record of another run ends it. Packets wait
//! unsealed in a queue that is bounded in bytes, and are sealed in the order in which they leave. All links are the
//! driver's own and need no lock.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSlice};
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};

use super::fork::Listed;
use super::udp::{local, unmapped};
use crate::id::RunId;
use crate::outbox::Packet;
use crate::time::{Duration, Instant};
use crate::wire::envelope::Envelope;
use crate::wire::stream::{PREFIX, StreamReader, prefix_of};

/// Accepted connections without a valid record yet. One more is closed at once: a flood costs the flooder its
/// connection, not us our memory.
pub(crate) const STRANGERS_MAX: usize = 256;

/// Sealed bytes made ready for one write, about.
const WRITE_AHEAD: usize = 64 << 10;

/// Records in one write, at most.
const AT_ONCE: usize = 32;

#[cfg(any(target_os = "linux", target_os = "android"))]
const NO_SIGNAL: libc::c_int = libc::MSG_NOSIGNAL;
/// There the socket has an option for it, which socket2 sets.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const NO_SIGNAL: libc::c_int = 0;

/// What the configuration says about links.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkLimits {
    pub links: usize,
    pub queue: usize,
    pub idle: Duration,
    pub timeout: Duration,
}

pub(crate) fn listen(addr: SocketAddr) -> io::Result<Listed<Socket>> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of an earlier run that linger in TIME_WAIT must not keep us from our port.
    socket.set_reuse_address(true)?;
    if addr.is_ipv6() && addr.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&addr.into())?;
    adopt(socket)
}

/// `socket` is bound, and perhaps listens already.
pub(crate) fn adopt(socket: Socket) -> io::Result<Listed<Socket>> {
    socket.set_nonblocking(true)?;
    local(&socket)?;
    socket.listen(128)?;
    Ok(Listed::new(socket))
}

/// What a kernel refuses is done without.
fn prepare(socket: &Socket, timeout: Duration) {
    let _ = socket.set_tcp_nodelay(true);
    // A peer that has vanished acknowledges nothing; by our own writes alone the link would never look idle.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = socket.set_tcp_user_timeout(Some(timeout));
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = timeout;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Connecting {
        until: Instant,
    },
    /// Accepted; has not proven that it belongs to the cluster.
    Stranger {
        until: Instant,
    },
    Open {
        run: Option<RunId>,
    },
}

pub(crate) struct Link {
    pub node: usize,
    pub socket: Listed<Socket>,
    pub peer: SocketAddr,
    pub stage: Stage,
    pub reader: StreamReader,
    /// The poller tells us when it can be written.
    pub awaits_room: bool,
    /// The run that packets were queued for: it may break before that run says a word.
    meant: Option<RunId>,
    /// The last traffic in either direction.
    pub last: Instant,
    /// When the driver looks after it. Never later than its deadline, and moved only then.
    pub armed: Instant,
    queue: VecDeque<Packet>,
    /// Bytes in the queue.
    queued: usize,
    /// Sealed, and not or not wholly written.
    records: VecDeque<Sealed>,
    /// Bytes of them that are not written.
    unwritten: usize,
    /// Bytes of the first one that are.
    written: usize,
}

struct Sealed {
    prefix: [u8; PREFIX],
    envelope: Vec<u8>,
}

/// How far a write came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    Drained,
    Blocked,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Written {
    pub records: u64,
    pub bytes: u64,
}

impl Link {
    fn new(node: usize, socket: Socket, peer: SocketAddr, stage: Stage, now: Instant) -> Link {
        Link {
            node,
            socket: Listed::new(socket),
            peer,
            stage,
            reader: StreamReader::new(),
            awaits_room: matches!(stage, Stage::Connecting { .. }),
            meant: None,
            last: now,
            armed: now,
            queue: VecDeque::new(),
            queued: 0,
            records: VecDeque::new(),
            unwritten: 0,
            written: 0,
        }
    }

    /// Begins to connect. An error is the system's, at once.
    pub(crate) fn dial(node: usize, peer: SocketAddr, now: Instant, until: Instant) -> io::Result<Link> {
        let socket = Socket::new(Domain::for_address(peer), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        match socket.connect(&peer.into()) {
            Ok(()) => {}
            Err(e) if e.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(e) => return Err(e),
        }
        prepare(&socket, until.since(now));
        Ok(Link::new(node, socket, peer, Stage::Connecting { until }, now))
    }

    /// `None`: nobody waits.
    pub(crate) fn accept(node: usize, listener: &Socket, now: Instant, until: Instant) -> io::Result<Option<Link>> {
        let (socket, peer) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(e) => return Err(e),
        };
        socket.set_nonblocking(true)?;
        prepare(&socket, until.since(now));
        let Some(peer) = peer.as_socket().map(unmapped) else { return Ok(None) };
        Ok(Some(Link::new(node, socket, peer, Stage::Stranger { until }, now)))
    }

    /// Who misses it when it ends.
    pub(crate) fn leads_to(&self) -> Option<RunId> {
        self.run().or(self.meant)
    }

    pub(crate) fn run(&self) -> Option<RunId> {
        match self.stage {
            Stage::Open { run } => run,
            _ => None,
        }
    }

    /// When something must be done about it, if nothing happens.
    pub(crate) fn deadline(&self, idle: Duration) -> Instant {
        match self.stage {
            Stage::Connecting { until } | Stage::Stranger { until } => until,
            Stage::Open { .. } => self.last + idle,
        }
    }

    /// False where the queue is full. An empty queue takes any packet, however large.
    pub(crate) fn enqueue(&mut self, packet: Packet, max: usize) -> bool {
        let size = packet.buf.len();
        let waiting = self.queued + self.unwritten;
        if waiting > 0 && waiting + size > max {
            return false;
        }
        self.queued += size;
        self.meant = packet.to.run.or(self.meant);
        self.queue.push_back(packet);
        true
    }

    pub(crate) fn has_work(&self) -> bool {
        !self.queue.is_empty() || !self.records.is_empty()
    }

    /// Records that have not been written, or not whole.
    pub(crate) fn unsent(&self) -> usize {
        self.queue.len() + self.records.len()
    }

    /// Seals and writes until nothing is left or the socket is full. `spare` gets the buffers of what is written.
    pub(crate) fn write(
        &mut self,
        envelope: &Envelope,
        done: &mut Written,
        mut spare: impl FnMut(Vec<u8>),
    ) -> io::Result<Flow> {
        loop {
            self.seal_ahead(envelope);
            if self.records.is_empty() {
                return Ok(Flow::Drained);
            }
            match self.write_once() {
                Ok(n) => {
                    done.bytes += n as u64;
                    self.wrote(n, done, &mut spare);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Flow::Blocked),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    fn seal_ahead(&mut self, envelope: &Envelope) {
        while self.unwritten < WRITE_AHEAD
            && let Some(Packet { to, buf: mut sealed }) = self.queue.pop_front()
        {
            self.queued -= sealed.len();
            envelope.seal_record(to.run, &mut sealed);
            if !sealed.is_empty() {
                self.unwritten += PREFIX + sealed.len();
                self.records.push_back(Sealed { prefix: prefix_of(&sealed), envelope: sealed });
            }
        }
    }

    /// One system call. Answers with the bytes that the socket took.
    fn write_once(&self) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); 2 * AT_ONCE];
        let pairs = self.records.iter().flat_map(|record| [&record.prefix[..], &record.envelope]);
        let count = slices.iter_mut().zip(pairs).map(|(slice, bytes)| *slice = IoSlice::new(bytes)).count();
        let mut slices = &mut slices[..count];
        IoSlice::advance_slices(&mut slices, self.written);
        self.socket.send_vectored_with_flags(slices, NO_SIGNAL)
    }

    fn wrote(&mut self, n: usize, done: &mut Written, spare: &mut impl FnMut(Vec<u8>)) {
        self.unwritten -= n;
        self.written += n;
        while let Some(first) = self.records.front()
            && let whole = PREFIX + first.envelope.len()
            && self.written >= whole
        {
            self.written -= whole;
            done.records += 1;
            self.records.pop_front().into_iter().for_each(|record| spare(record.envelope));
        }
        if self.records.is_empty() {
            self.records.shrink_to(AT_ONCE);
        }
    }
}

/// All links of a driver, by number, so that the poller can name them.
#[derive(Default)]
pub(crate) struct Links {
    slab: Vec<Option<Link>>,
    free: Vec<usize>,
    /// Closed in this turn: events that the poller has reported already must not meet a new tenant.
    resting: Vec<usize>,
}

impl Links {
    pub(crate) fn get(&mut self, id: usize) -> Option<&mut Link> {
        self.slab.get_mut(id)?.as_mut()
    }

    /// The number that `put` will use.
    pub(crate) fn next_id(&self) -> usize {
        self.free.last().copied().unwrap_or(self.slab.len())
    }

    pub(crate) fn put(&mut self, link: Link) -> usize {
        let id = self.next_id();
        match self.free.pop() {
            Some(id) => self.slab[id] = Some(link),
            None => self.slab.push(Some(link)),
        }
        id
    }

    pub(crate) fn take(&mut self, id: usize) -> Option<Link> {
        let link = self.slab.get_mut(id)?.take()?;
        self.resting.push(id);
        Some(link)
    }

    pub(crate) fn end_turn(&mut self) {
        self.free.append(&mut self.resting);
    }
}

/// One node's links: where they lead.
#[derive(Default)]
pub(crate) struct Peers {
    /// All of them. Inbound ones are known by the peer's socket address.
    pub by_addr: BTreeMap<SocketAddr, usize>,
    /// The one to use for a run.
    pub by_run: BTreeMap<RunId, usize>,
    pub strangers: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::{Destination, Via};
    use crate::wire::envelope::{HEADER, Limits};

    fn packet(to: SocketAddr, len: usize) -> Packet {
        let to = Destination { addr: to, run: RunId::new(2), via: Via::Stream };
        Packet { to, buf: vec![0; HEADER + len] }
    }

    fn envelope(run: u64) -> Envelope {
        let limits = Limits { max_sessions: 10, derive_rate: 10 };
        Envelope::new("", &[[7; 32]], RunId::new(run).unwrap(), [0; 32], limits)
    }

    /// A link from run 1 to run 2, connected.
    fn pair() -> (Link, Link) {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let (now, until) = (Instant::ZERO, Instant::from_nanos(1));
        let mut near = Link::dial(0, local(&listener).unwrap(), now, until).unwrap();
        let far = loop {
            if let Some(link) = Link::accept(0, &listener, now, until).unwrap() {
                break link;
            }
            std::thread::yield_now();
        };
        near.stage = Stage::Open { run: None };
        (near, far)
    }

    #[test]
    fn a_full_queue_refuses_but_an_empty_one_takes_anything() {
        let (mut near, _far) = pair();
        let to = near.peer;
        assert!(near.enqueue(packet(to, 5000), 1000), "larger than the queue, and alone");
        assert!(!near.enqueue(packet(to, 1), 1000));
        let mut done = Written::default();
        assert_eq!(near.unsent(), 1);
        assert_eq!(near.write(&envelope(1), &mut done, drop).unwrap(), Flow::Drained);
        assert_eq!((done.records, near.unsent()), (1, 0));
        assert!(near.enqueue(packet(to, 400), 1000) && near.enqueue(packet(to, 400), 1000));
        assert!(!near.enqueue(packet(to, 400), 1000));
    }

    #[test]
    fn what_a_slow_reader_does_not_take_stays_and_arrives_in_order() {
        let (mut near, far) = pair();
        let to = near.peer;
        let (one, two) = (envelope(1), envelope(2));
        let mut done = Written::default();
        let mut sent = 0;
        // Until the socket is full, then some.
        while near.enqueue(packet(to, 60_000 + sent), 4 << 20) {
            sent += 1;
            if near.write(&one, &mut done, drop).unwrap() == Flow::Blocked && near.unsent() > 3 {
                break;
            }
        }
        assert!(near.has_work());
        let (mut reader, mut sessions, mut sizes) = (StreamReader::new(), two.sessions(), Vec::new());
        let mut buf = vec![0; 100_000];
        while sizes.len() < sent {
            if let Ok(n) = io::Read::read(&mut &*far.socket, &mut buf) {
                let open = |record: &mut [u8]| {
                    let opened = two.open(&mut sessions, Instant::ZERO, record).expect("in order, so in the window");
                    sizes.push(opened.frames.len());
                    true
                };
                reader.push(&mut buf[..n], open).unwrap();
            }
            near.write(&one, &mut done, drop).unwrap();
        }
        assert_eq!(sizes, (0..sent).map(|i| 60_000 + i).collect::<Vec<_>>());
        assert!(!near.has_work() && done.records == sent as u64);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_link_whose_peer_acknowledges_nothing_ends_in_time() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let (now, time) = (Instant::ZERO, Duration::from_secs(7));
        let near = Link::dial(0, local(&listener).unwrap(), now, now + time).unwrap();
        assert_eq!(near.socket.tcp_user_timeout().unwrap(), Some(time), "the kernel sees to it");
    }

    #[test]
    fn a_closed_links_number_rests_until_the_turn_ends() {
        let (near, far) = pair();
        let mut links = Links::default();
        let id = links.put(near);
        assert!(links.take(id).is_some() && links.get(id).is_none());
        let other = links.put(far);
        assert_ne!(id, other);
        links.end_turn();
        assert_eq!(links.next_id(), id);
    }
}
