//! What `start` opens: sockets on one port, the envelope, and who we are in this run.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::Instant as Clock;

use crossbeam_channel::bounded;
use socket2::Socket;

use super::address::{DEFAULT_PORT, Target, advertised};
use super::driver::Wire;
use super::node::Adopt;
use super::tcp::{self, LinkLimits};
use super::udp::{Udp, local};
use super::{clock, resolver};
use crate::config::{Config, Transport};
use crate::engine::{Engine, Identity};
use crate::error::{Code, Error, Result};
use crate::id::{Epoch, NodeName, RunId};
use crate::time::Duration;
use crate::wire::envelope::{Envelope, Limits};

/// Port 0: how many ports are tried until UDP and TCP agree.
const PORTS_TRIED: usize = 64;

/// How long `bind` and `advertise` may take to resolve, where they are names.
const RESOLVE_TIME: Duration = Duration::from_secs(5);

pub(crate) struct Opened {
    pub wire: Wire,
    pub engine: Engine,
    pub address: SocketAddr,
    /// No key: anybody can join, read and forge.
    pub is_open_to_all: bool,
}

pub(crate) fn open(config: &Arc<Config>, adopt: Adopt, name: &NodeName) -> Result<Opened> {
    let bind = address(&config.bind, DEFAULT_PORT, "bind")?;
    let (udp, listener) = sockets(config, adopt, bind)?;
    let bound = local(&listener).map_err(|e| Error::io("cannot read the bound address", &e))?;
    if config.keys.is_empty() && !config.insecure_plaintext && !bound.ip().is_loopback() {
        return Err(Error::new(
            Code::Auth,
            format!(
                "no key is configured, and {bound} can be reached from outside: add a key, bind to 127.0.0.1, \
                 or set insecure_plaintext = true"
            ),
        ));
    }
    if let Some(udp) = udp.as_ref().filter(|_| config.recv_buffer > 0) {
        udp.set_recv_buffer(config.recv_buffer).map_err(|e| Error::io("cannot set recv_buffer", &e))?;
    }
    let address = match config.advertise.as_str() {
        "" => advertised(bound),
        text => {
            let told = address(text, bound.port(), "advertise")?;
            SocketAddr::new(told.ip(), if told.port() == 0 { bound.port() } else { told.port() })
        }
    };
    let now = clock::now();
    let run = loop {
        if let Some(run) = RunId::new(u64::from_le_bytes(random()?)) {
            break run;
        }
    };
    let limits = Limits { max_sessions: config.max_sessions, derive_rate: config.derive_rate };
    let me = Identity { name: name.clone(), epoch: Epoch(now.wall.0), run, address };
    let wire = Wire {
        envelope: Envelope::new(&config.cluster, &config.keys, run, random()?, limits),
        udp,
        listener,
        links: LinkLimits {
            links: config.max_links,
            queue: config.link_queue,
            idle: config.link_idle,
            timeout: config.link_timeout,
        },
        datagram_max: config.max_datagram,
        stall_threshold: config.stall_threshold,
    };
    let engine = Engine::new(config.clone(), me, now, random()?);
    Ok(Opened { wire, engine, address, is_open_to_all: config.keys.is_empty() })
}

type Sockets = (Option<Udp>, super::fork::Listed<Socket>);

/// UDP and TCP on one port.
fn sockets(config: &Config, adopt: Adopt, bind: SocketAddr) -> Result<Sockets> {
    let wants_udp = config.transport == Transport::Both;
    let adopted_udp = match adopt.udp {
        Some(fd) if wants_udp => {
            Some(duplicate(fd).and_then(Udp::adopt).map_err(|e| Error::io("cannot use the UDP socket", &e))?)
        }
        _ => None,
    };
    let adopted_tcp = match adopt.tcp {
        Some(fd) => Some(duplicate(fd).and_then(tcp::adopt).map_err(|e| Error::io("cannot use the TCP socket", &e))?),
        None => None,
    };
    let cannot = |what: &str, at: SocketAddr, e: &io::Error| Error::io(format!("cannot bind {what} to {at}"), e);
    match (adopted_udp, adopted_tcp) {
        (Some(udp), Some(tcp)) => Ok((Some(udp), tcp)),
        (Some(udp), None) => {
            let at = udp.local_addr().map_err(|e| Error::io("cannot use the UDP socket", &e))?;
            Ok((Some(udp), tcp::listen(at).map_err(|e| cannot("TCP", at, &e))?))
        }
        (None, Some(tcp)) if wants_udp => {
            let at = local(&tcp).map_err(|e| Error::io("cannot use the TCP socket", &e))?;
            Ok((Some(Udp::bind(at).map_err(|e| cannot("UDP", at, &e))?), tcp))
        }
        (None, Some(tcp)) => Ok((None, tcp)),
        (None, None) if !wants_udp => Ok((None, tcp::listen(bind).map_err(|e| cannot("TCP", bind, &e))?)),
        (None, None) => {
            let mut tries = 0;
            loop {
                let udp = Udp::bind(bind).map_err(|e| cannot("UDP", bind, &e))?;
                let at = udp.local_addr().map_err(|e| cannot("UDP", bind, &e))?;
                match tcp::listen(at) {
                    Ok(tcp) => return Ok((Some(udp), tcp)),
                    // The system chose a port that is taken for TCP. It will choose another one next time.
                    Err(e) if bind.port() == 0 && e.kind() == io::ErrorKind::AddrInUse && tries < PORTS_TRIED => {
                        tries += 1;
                    }
                    Err(e) => return Err(cannot("TCP", at, &e)),
                }
            }
        }
    }
}

#[allow(unsafe_code)]
fn duplicate(fd: RawFd) -> io::Result<Socket> {
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: borrowed for this call; the application promised an open descriptor. Where it is not one, dup fails.
    let own = unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned()?;
    Ok(Socket::from(own))
}

fn address(text: &str, default_port: u16, what: &str) -> Result<SocketAddr> {
    match Target::parse(text, default_port)? {
        Target::Literal(addr) => Ok(addr),
        Target::Name { host, port } => {
            let (tell, told) = bounded(1);
            resolver::resolve(host, port, move |found| {
                let _ = tell.try_send(found);
            });
            let no = |why: String| Error::new(Code::Address, format!("{what} = {text:?} does not resolve: {why}"));
            match told.recv_deadline(Clock::now() + RESOLVE_TIME) {
                Ok(Ok(found)) => found.first().copied().ok_or_else(|| no("no address".into())),
                Ok(Err(e)) => Err(no(e.to_string())),
                Err(_) => Err(no(format!("no answer within {RESOLVE_TIME:?}"))),
            }
        }
    }
}

pub(crate) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| Error::new(Code::Io, format!("the system has no random numbers: {e}")))?;
    Ok(bytes)
}
