//! Addresses as people write them, and the one that we tell others.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use crate::error::{Code, Error, Result};

/// Where a contact without a port is called: the default port of `bind`.
pub(crate) const DEFAULT_PORT: u16 = 18946;

/// `host:port`, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Never touches the resolver.
    Literal(SocketAddr),
    Name {
        host: String,
        port: u16,
    },
}

impl Target {
    pub(crate) fn parse(text: &str, default_port: u16) -> Result<Target> {
        let text = text.trim();
        if let Ok(addr) = text.parse::<SocketAddr>() {
            return Ok(Target::Literal(addr));
        }
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return Ok(Target::Literal(SocketAddr::new(ip, default_port)));
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().map_err(|_| malformed(text))?),
            None => (text, default_port),
        };
        let is_host_char = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
        if host.is_empty() || host.len() > 255 || !host.chars().all(is_host_char) {
            return Err(malformed(text));
        }
        Ok(Target::Name { host: host.into(), port })
    }
}

fn malformed(text: &str) -> Error {
    Error::new(Code::Address, format!("{text:?}: expected host:port, 192.0.2.1:port or [2001:db8::1]:port"))
}

/// Where others reach a node that is bound to `bound` and was not told what to advertise. A socket bound to all
/// addresses tells none; then it is the address from which the default route would be taken, if that is a private one,
/// else one from which a private network would be reached, else whatever the default route has, else loopback.
/// Connecting a UDP socket sends nothing.
pub(crate) fn advertised(bound: SocketAddr) -> SocketAddr {
    if !bound.ip().is_unspecified() {
        return bound;
    }
    const PROBES_4: [Ipv4Addr; 4] = [
        Ipv4Addr::new(198, 51, 100, 1),
        Ipv4Addr::new(10, 255, 255, 254),
        Ipv4Addr::new(192, 168, 255, 254),
        Ipv4Addr::new(172, 31, 255, 254),
    ];
    const PROBES_6: [Ipv6Addr; 2] =
        [Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1)];
    let sources: Vec<IpAddr> = if bound.is_ipv4() {
        PROBES_4.iter().filter_map(|&ip| source_towards(ip.into())).collect()
    } else {
        let four = PROBES_4.iter().map(|&ip| IpAddr::V4(ip));
        PROBES_6.iter().map(|&ip| IpAddr::V6(ip)).chain(four).filter_map(source_towards).collect()
    };
    let loopback = if bound.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { IpAddr::V6(Ipv6Addr::LOCALHOST) };
    let best = sources.iter().find(|ip| is_private(**ip)).or(sources.first());
    SocketAddr::new(best.copied().unwrap_or(loopback), bound.port())
}

fn source_towards(ip: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let probe = UdpSocket::bind((any, 0)).ok()?;
    probe.connect((ip, 9)).ok()?;
    let source = probe.local_addr().ok()?.ip();
    (!source.is_unspecified() && !source.is_loopback()).then_some(source)
}

fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private(),
        IpAddr::V6(ip) => ip.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_names_are_told_apart() {
        let literal = |text: &str| match Target::parse(text, 7).unwrap() {
            Target::Literal(addr) => addr.to_string(),
            name => panic!("{name:?}"),
        };
        assert_eq!(literal("192.0.2.1:80"), "192.0.2.1:80");
        assert_eq!(literal("192.0.2.1"), "192.0.2.1:7");
        assert_eq!(literal("[2001:db8::1]:80"), "[2001:db8::1]:80");
        assert_eq!(literal("[2001:db8::1]"), "[2001:db8::1]:7");
        assert_eq!(literal("2001:db8::1"), "[2001:db8::1]:7");
        assert_eq!(Target::parse("db.example:80", 7).unwrap(), Target::Name { host: "db.example".into(), port: 80 });
        assert_eq!(Target::parse("db", 7).unwrap(), Target::Name { host: "db".into(), port: 7 });
        for text in ["", ":80", "db:", "db:x", "db:65536", "d b:1", "db/x:1", "192.0.2.1:80:90"] {
            assert_eq!(Target::parse(text, 7).unwrap_err().code, Code::Address, "{text:?}");
        }
    }

    #[test]
    fn a_bound_address_is_advertised_as_it_is() {
        let bound: SocketAddr = "127.0.0.1:9".parse().unwrap();
        assert_eq!(advertised(bound), bound);
        let open = advertised("0.0.0.0:9".parse().unwrap());
        assert!(!open.ip().is_unspecified() && open.port() == 9);
    }
}
