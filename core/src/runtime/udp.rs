//! Datagrams: sockets with the options that tell us what the kernel knows, and batches in both directions.
//!
//! The kernel tells us two things that cost nothing to hear: that nobody listens at an address (ICMP port unreachable,
//! by the error queue, with the address), and that it dropped datagrams because we did not read (`SO_RXQ_OVFL`).

use std::io;
use std::mem::{self, MaybeUninit};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::fork::Listed;
use crate::outbox::{Packet, Via};

/// Datagrams taken or given in one system call. Nobody derived it; at 32 the call's own cost has vanished.
pub(crate) const BATCH: usize = 32;

/// Datagrams asked for when nothing says that there are many.
const FEW: usize = 4;

/// Room for one datagram: the upper bound of `max_datagram`, and some.
const DATAGRAM_MAX: usize = 9216;

/// Room for the control messages of one datagram.
#[cfg(target_os = "linux")]
const CONTROL: usize = 128;

/// Errors taken from a socket's queue at once.
#[cfg(target_os = "linux")]
const ERRORS_MAX: usize = 64;

#[derive(Debug)]
pub(crate) struct Udp {
    socket: Listed<Socket>,
    /// Sends to IPv4 addresses as ::ffff:a.b.c.d.
    is_v6: bool,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sent {
    pub datagrams: u64,
    pub bytes: u64,
    pub failed: u64,
}

impl Udp {
    pub(crate) fn bind(addr: SocketAddr) -> io::Result<Udp> {
        let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
        if addr.is_ipv6() && addr.ip().is_unspecified() {
            socket.set_only_v6(false)?;
        }
        socket.bind(&addr.into())?;
        Udp::adopt(socket)
    }

    /// `socket` is bound already. Options that a kernel refuses are done without.
    pub(crate) fn adopt(socket: Socket) -> io::Result<Udp> {
        socket.set_nonblocking(true)?;
        let is_v6 = local(&socket)?.is_ipv6();
        let udp = Udp { socket: Listed::new(socket), is_v6 };
        #[cfg(target_os = "linux")]
        {
            udp.turn_on(libc::SOL_SOCKET, libc::SO_RXQ_OVFL);
            udp.turn_on(libc::SOL_IP, libc::IP_RECVERR);
            if is_v6 {
                udp.turn_on(libc::SOL_IPV6, libc::IPV6_RECVERR);
            }
        }
        Ok(udp)
    }

    pub(crate) fn set_recv_buffer(&self, size: usize) -> io::Result<()> {
        self.socket.set_recv_buffer_size(size)
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        local(&self.socket)
    }

    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }

    #[cfg(target_os = "linux")]
    fn turn_on(&self, level: libc::c_int, option: libc::c_int) {
        let on: libc::c_int = 1;
        // SAFETY: the option is an int, and `on` is one.
        unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                level,
                option,
                (&raw const on).cast(),
                mem::size_of_val(&on) as libc::socklen_t,
            )
        };
    }

    /// Our own socket's idea of an address.
    fn native(&self, addr: SocketAddr) -> SocketAddr {
        match addr {
            SocketAddr::V4(v4) if self.is_v6 => SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into(),
            _ => addr,
        }
    }

    /// Sends those of the packets that are sealed datagrams. What the kernel does not take is lost, as datagrams may
    /// be: every protocol repeats itself.
    pub(crate) fn send(&self, packets: &[Packet]) -> Sent {
        let mut sent = Sent::default();
        let mut due = packets.iter().filter(|p| p.to.via == Via::Datagram && !p.buf.is_empty()).peekable();
        while let Some(&first) = due.peek() {
            let (mut batch, mut n) = ([first; BATCH], 0);
            for (place, packet) in batch.iter_mut().zip(&mut due) {
                *place = packet;
                n += 1;
            }
            self.send_batch(&batch[..n], &mut sent);
        }
        sent
    }

    fn send_one(&self, packet: &Packet, sent: &mut Sent) {
        let to = SockAddr::from(self.native(packet.to.addr));
        // An ICMP error of an earlier packet is reported to whoever comes next, instead of its own result.
        for _ in 0..3 {
            match self.socket.send_to(&packet.buf, &to) {
                Ok(n) => {
                    sent.datagrams += 1;
                    sent.bytes += n as u64;
                    return;
                }
                Err(e) if is_passing(&e) => {}
                Err(_) => break,
            }
        }
        sent.failed += 1;
    }

    #[cfg(not(target_os = "linux"))]
    fn send_batch(&self, batch: &[&Packet], sent: &mut Sent) {
        batch.iter().for_each(|packet| self.send_one(packet, sent));
    }

    #[cfg(target_os = "linux")]
    fn send_batch(&self, batch: &[&Packet], sent: &mut Sent) {
        if let [packet] = batch {
            return self.send_one(packet, sent);
        }
        let mut names: [MaybeUninit<SockAddr>; BATCH] = [const { MaybeUninit::uninit() }; BATCH];
        let mut parts: [MaybeUninit<libc::iovec>; BATCH] = [const { MaybeUninit::uninit() }; BATCH];
        let mut heads: [MaybeUninit<libc::mmsghdr>; BATCH] = [const { MaybeUninit::uninit() }; BATCH];
        for (i, packet) in batch.iter().enumerate() {
            let name = names[i].write(SockAddr::from(self.native(packet.to.addr)));
            let part = parts[i]
                .write(libc::iovec { iov_base: packet.buf.as_ptr().cast_mut().cast(), iov_len: packet.buf.len() });
            // SAFETY: all-zero is a valid mmsghdr (on musl it has padding fields that cannot be named).
            let mut head: libc::mmsghdr = unsafe { mem::zeroed() };
            head.msg_hdr.msg_name = name.as_ptr().cast_mut().cast();
            head.msg_hdr.msg_namelen = name.len();
            head.msg_hdr.msg_iov = part;
            head.msg_hdr.msg_iovlen = 1;
            heads[i].write(head);
        }
        let (mut at, mut tries) = (0, 0);
        while at < batch.len() {
            // SAFETY: heads at..len were written above; names, parts and packets outlive the call and are only read.
            let n = unsafe {
                libc::sendmmsg(
                    self.socket.as_raw_fd(),
                    heads[at].as_mut_ptr(),
                    (batch.len() - at) as libc::c_uint,
                    libc::MSG_NOSIGNAL,
                )
            };
            if n > 0 {
                let done = &batch[at..at + n as usize];
                sent.datagrams += done.len() as u64;
                sent.bytes += done.iter().map(|p| p.buf.len() as u64).sum::<u64>();
                at += done.len();
                tries = 0;
            } else if tries < 3 && is_passing(&io::Error::last_os_error()) {
                tries += 1;
            } else {
                sent.failed += 1;
                at += 1;
                tries = 0;
            }
        }
    }

    /// What the kernel has learned about earlier packets: for each, the address it was sent to. True: nobody listens
    /// there; false: some other trouble.
    #[cfg(target_os = "linux")]
    pub(crate) fn errors(&self, mut each: impl FnMut(SocketAddr, bool)) {
        for _ in 0..ERRORS_MAX {
            let mut name: libc::sockaddr_storage = zeroed_storage();
            let mut control = [0u64; 64];
            // SAFETY: all-zero is a valid msghdr.
            let mut head: libc::msghdr = unsafe { mem::zeroed() };
            head.msg_name = (&raw mut name).cast();
            head.msg_namelen = mem::size_of_val(&name) as libc::socklen_t;
            head.msg_control = control.as_mut_ptr().cast();
            head.msg_controllen = mem::size_of_val(&control) as _;
            // SAFETY: the buffers in `head` live through the call and have the lengths given.
            let n =
                unsafe { libc::recvmsg(self.socket.as_raw_fd(), &mut head, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT) };
            if n < 0 {
                return;
            }
            let Some(to) = read_addr(&name) else { continue };
            // SAFETY: the kernel has filled `control` and set msg_controllen; the macros stay within both.
            let mut message = unsafe { libc::CMSG_FIRSTHDR(&head) };
            while !message.is_null() {
                // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR give null or a whole header inside `control`.
                let kind = unsafe { ((*message).cmsg_level, (*message).cmsg_type) };
                if matches!(kind, (libc::SOL_IP, libc::IP_RECVERR) | (libc::SOL_IPV6, libc::IPV6_RECVERR)) {
                    // SAFETY: such a message carries a sock_extended_err.
                    let err: libc::sock_extended_err =
                        unsafe { libc::CMSG_DATA(message).cast::<libc::sock_extended_err>().read_unaligned() };
                    each(to, err.ee_errno as i32 == libc::ECONNREFUSED);
                }
                // SAFETY: as above.
                message = unsafe { libc::CMSG_NXTHDR(&head, message) };
            }
        }
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn errors(&self, _each: impl FnMut(SocketAddr, bool)) {}
}

/// Buffers for received datagrams, shared by all sockets of one driver. Only touched pages cost.
pub(crate) struct Receiver {
    data: Box<[u8]>,
    #[cfg(target_os = "linux")]
    names: Box<[libc::sockaddr_storage; BATCH]>,
    #[cfg(target_os = "linux")]
    controls: Box<[[u64; CONTROL / 8]; BATCH]>,
    got: [Got; BATCH],
    count: usize,
    /// How many are asked for. Preparing all places costs more than a lone datagram does, so it begins with a few.
    asked: usize,
}

#[derive(Clone, Copy)]
struct Got {
    from: SocketAddr,
    /// None: larger than any datagram of ours.
    len: Option<usize>,
}

const NOWHERE: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));

impl Receiver {
    pub(crate) fn new() -> Receiver {
        Receiver {
            data: vec![0; BATCH * DATAGRAM_MAX].into_boxed_slice(),
            #[cfg(target_os = "linux")]
            names: Box::new([zeroed_storage(); BATCH]),
            #[cfg(target_os = "linux")]
            controls: Box::new([[0; CONTROL / 8]; BATCH]),
            got: [Got { from: NOWHERE, len: None }; BATCH],
            count: 0,
            asked: FEW,
        }
    }

    /// The last batch was all that waited.
    pub(crate) fn drained(&self) -> bool {
        self.count < self.asked
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// The datagrams of the last batch: who sent them, and their bytes (`None`: too large).
    pub(crate) fn datagrams(&mut self) -> impl Iterator<Item = (SocketAddr, Option<&mut [u8]>)> {
        self.data
            .chunks_mut(DATAGRAM_MAX)
            .zip(&self.got[..self.count])
            .map(|(data, got)| (got.from, got.len.map(|len| &mut data[..len])))
    }

    /// Takes some datagrams. Fewer than it asked for mean that the socket is drained (see [`Receiver::drained`]).
    /// `overflow` follows the kernel's count of datagrams that it dropped because the buffer was full.
    #[cfg(target_os = "linux")]
    pub(crate) fn receive(&mut self, udp: &Udp, overflow: &mut u32) -> io::Result<()> {
        self.asked = if self.count == self.asked { BATCH } else { FEW };
        self.count = 0;
        let mut parts: [MaybeUninit<libc::iovec>; BATCH] = [const { MaybeUninit::uninit() }; BATCH];
        let mut heads: [MaybeUninit<libc::mmsghdr>; BATCH] = [const { MaybeUninit::uninit() }; BATCH];
        for (i, data) in self.data.chunks_mut(DATAGRAM_MAX).take(self.asked).enumerate() {
            let part = parts[i].write(libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: data.len() });
            // SAFETY: all-zero is a valid mmsghdr.
            let mut head: libc::mmsghdr = unsafe { mem::zeroed() };
            head.msg_hdr.msg_name = (&raw mut self.names[i]).cast();
            head.msg_hdr.msg_namelen = mem::size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            head.msg_hdr.msg_iov = part;
            head.msg_hdr.msg_iovlen = 1;
            head.msg_hdr.msg_control = self.controls[i].as_mut_ptr().cast();
            head.msg_hdr.msg_controllen = CONTROL as _;
            heads[i].write(head);
        }
        // SAFETY: the first `asked` heads were written; what they point to lives in `self` and `parts`, with the lengths given.
        let n = unsafe {
            libc::recvmmsg(
                udp.socket.as_raw_fd(),
                heads.as_mut_ptr().cast(),
                self.asked as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        if n < 0 {
            return Err(io::Error::last_os_error());
        }
        for (i, head) in heads.iter().enumerate().take(n as usize) {
            // SAFETY: written above, and filled in by the kernel.
            let head = unsafe { head.assume_init_ref() };
            let truncated = head.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
            self.got[i] = Got {
                from: read_addr(&self.names[i]).unwrap_or(NOWHERE),
                len: (!truncated).then_some(head.msg_len as usize),
            };
            if let Some(count) = read_overflow(&head.msg_hdr) {
                *overflow = count;
            }
        }
        self.count = n as usize;
        Ok(())
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn receive(&mut self, udp: &Udp, _overflow: &mut u32) -> io::Result<()> {
        (self.asked, self.count) = (BATCH, 0);
        while self.count < BATCH {
            let data = &mut self.data[self.count * DATAGRAM_MAX..][..DATAGRAM_MAX];
            // SAFETY: initialised bytes are valid as possibly uninitialised ones; recv_from only writes initialised ones.
            let room = unsafe { &mut *(data as *mut [u8] as *mut [MaybeUninit<u8>]) };
            match udp.socket.recv_from(room) {
                Ok((len, from)) => {
                    let from = from.as_socket().map_or(NOWHERE, unmapped);
                    self.got[self.count] = Got { from, len: (len < DATAGRAM_MAX).then_some(len) };
                    self.count += 1;
                }
                Err(e) if self.count == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(())
    }
}

/// Reported once, about something else: the call itself can be repeated.
pub(crate) fn is_passing(e: &io::Error) -> bool {
    matches!(
        e.raw_os_error(),
        Some(
            libc::ECONNREFUSED
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::ENETDOWN
                | libc::EPROTO
                | libc::ENOPROTOOPT
                | libc::EOPNOTSUPP
                | libc::EINTR
        )
    )
}

pub(crate) fn local(socket: &Socket) -> io::Result<SocketAddr> {
    socket.local_addr()?.as_socket().ok_or_else(|| io::Error::other("not an IP socket"))
}

/// ::ffff:a.b.c.d is a.b.c.d that came through a socket for both.
pub(crate) fn unmapped(addr: SocketAddr) -> SocketAddr {
    match addr.ip() {
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(v4.into(), addr.port()),
            None => addr,
        },
        IpAddr::V4(_) => addr,
    }
}

#[cfg(target_os = "linux")]
fn zeroed_storage() -> libc::sockaddr_storage {
    // SAFETY: all-zero is a valid sockaddr_storage.
    unsafe { mem::zeroed() }
}

#[cfg(target_os = "linux")]
fn read_addr(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match libc::c_int::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says which it is, and storage is large and aligned enough for both.
            let v4 = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let v6 = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            Some(unmapped(SocketAddrV6::new(ip, u16::from_be(v6.sin6_port), 0, v6.sin6_scope_id).into()))
        }
        _ => None,
    }
}

#[cfg(target_os = "linux")]
fn read_overflow(head: &libc::msghdr) -> Option<u32> {
    // SAFETY: the kernel has filled the control buffer and set its length.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(head) };
    while !message.is_null() {
        // SAFETY: a whole header inside the buffer.
        let kind = unsafe { ((*message).cmsg_level, (*message).cmsg_type) };
        if kind == (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) {
            // SAFETY: such a message carries a u32.
            return Some(unsafe { libc::CMSG_DATA(message).cast::<u32>().read_unaligned() });
        }
        // SAFETY: as above.
        message = unsafe { libc::CMSG_NXTHDR(head, message) };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::Destination;

    fn packet(to: SocketAddr, len: usize) -> Packet {
        Packet { to: Destination { addr: to, run: None, via: Via::Datagram }, buf: vec![7; len] }
    }

    fn loopback() -> Udp {
        Udp::bind("127.0.0.1:0".parse().unwrap()).unwrap()
    }

    /// On loopback what was sent is there.
    fn drain(receiver: &mut Receiver, udp: &Udp, overflow: &mut u32) -> Vec<(SocketAddr, Option<usize>)> {
        let mut all = Vec::new();
        loop {
            match receiver.receive(udp, overflow) {
                Ok(()) => all.extend(receiver.datagrams().map(|(from, bytes)| (from, bytes.map(|b| b.len())))),
                Err(e) if is_passing(&e) => continue,
                Err(_) => return all,
            }
            if receiver.drained() {
                return all;
            }
        }
    }

    #[test]
    fn batches_arrive_whole_and_in_order() {
        let (a, b, mut receiver) = (loopback(), loopback(), Receiver::new());
        let to = b.local_addr().unwrap();
        for count in [1, FEW, FEW + 1, BATCH, BATCH + 1, 3 * BATCH] {
            let packets: Vec<Packet> = (0..count).map(|i| packet(to, 100 + i)).collect();
            let sent = a.send(&packets);
            assert_eq!((sent.datagrams, sent.failed), (count as u64, 0));
            let from = a.local_addr().unwrap();
            let expected: Vec<_> = (0..count).map(|i| (from, Some(100 + i))).collect();
            assert_eq!(drain(&mut receiver, &b, &mut 0), expected);
        }
    }

    #[test]
    fn streams_and_empty_packets_are_left_out() {
        let (a, b, mut receiver) = (loopback(), loopback(), Receiver::new());
        let to = b.local_addr().unwrap();
        let mut packets = [packet(to, 10), packet(to, 0), packet(to, 20)];
        packets[2].to.via = Via::Stream;
        assert_eq!(a.send(&packets).datagrams, 1);
        assert_eq!(drain(&mut receiver, &b, &mut 0).len(), 1);
    }

    #[test]
    fn a_datagram_larger_than_any_of_ours_is_told_apart() {
        let (a, b, mut receiver) = (loopback(), loopback(), Receiver::new());
        a.send(&[packet(b.local_addr().unwrap(), DATAGRAM_MAX + 1)]);
        assert_eq!(drain(&mut receiver, &b, &mut 0), [(a.local_addr().unwrap(), None)]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_kernel_says_where_nobody_listens() {
        let a = loopback();
        let nobody = loopback().local_addr().unwrap();
        let b = loopback();
        let packets = [packet(nobody, 10), packet(b.local_addr().unwrap(), 10)];
        let sent = a.send(&packets);
        assert_eq!(sent.datagrams, 2, "the refusal of the first is not held against the second");
        let mut refused = Vec::new();
        a.errors(|to, is_refused| refused.push((to, is_refused)));
        assert_eq!(refused, [(nobody, true)]);
        assert_eq!(a.send(&packets[1..]).datagrams, 1);
        assert_eq!(drain(&mut Receiver::new(), &b, &mut 0).len(), 2);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_kernel_says_what_it_dropped() {
        let (a, b, mut receiver) = (loopback(), loopback(), Receiver::new());
        b.set_recv_buffer(4096).unwrap();
        let packets: Vec<Packet> = (0..100).map(|_| packet(b.local_addr().unwrap(), 1000)).collect();
        a.send(&packets);
        let mut overflow = 0;
        let first = drain(&mut receiver, &b, &mut overflow).len();
        // The count comes with the next datagram that is let in.
        a.send(&packets[..1]);
        assert_eq!(drain(&mut receiver, &b, &mut overflow).len(), 1);
        assert_eq!(first + overflow as usize, 100);
    }

    #[test]
    fn one_socket_speaks_to_both_families() {
        let Ok(both) = Udp::bind("[::]:0".parse().unwrap()) else { return };
        let (four, mut receiver) = (loopback(), Receiver::new());
        assert_eq!(both.send(&[packet(four.local_addr().unwrap(), 10)]).datagrams, 1);
        let got = drain(&mut receiver, &four, &mut 0);
        let back = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), both.local_addr().unwrap().port());
        assert_eq!(got, [(back, Some(10))]);
        assert_eq!(four.send(&[packet(back, 10)]).datagrams, 1);
        assert_eq!(
            drain(&mut receiver, &both, &mut 0),
            [(four.local_addr().unwrap(), Some(10))],
            "not ::ffff:127.0.0.1"
        );
    }
}
