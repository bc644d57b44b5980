//! Cookies, by which a stranger shows that it is where it says.

use core::net::{IpAddr, SocketAddr};

use ring::hmac;

use crate::id::RunId;
use crate::time::{Duration, Now, nanos};

/// Makes and checks cookies: proof that who asks receives what is sent to its address. Nothing is stored for it.
///
/// A cookie is HMAC-SHA-256 (period, IP address, run id) under a secret of this run, cut to 16 bytes, as in RFC 6347
/// §4.2.1 and RFC 7296 §2.6. The port is left out: a joiner goes on by stream where datagrams are lost. It holds in its period of 10 s and in the next: a joiner has at least 10 s to answer.
#[derive(Clone)]
pub struct CookieJar {
    key: hmac::Key,
}

/// Length of a cookie.
pub const COOKIE: usize = 16;

const COOKIE_PERIOD: Duration = Duration::from_secs(10);

impl CookieJar {
    /// `secret`: 32 random bytes. May be the one that the envelope has.
    pub fn new(secret: [u8; 32]) -> CookieJar {
        CookieJar { key: hmac::Key::new(hmac::HMAC_SHA256, &secret) }
    }

    /// For `run`, which claims to be at `addr`.
    pub fn cookie(&self, now: Now, addr: SocketAddr, run: RunId) -> [u8; COOKIE] {
        self.made_in(period(now), addr, run)
    }

    pub fn accepts(&self, now: Now, addr: SocketAddr, run: RunId, cookie: &[u8]) -> bool {
        let this = period(now);
        // Compared by their own authentication codes, which takes the same time whatever the cookie.
        let given = hmac::sign(&self.key, cookie);
        cookie.len() == COOKIE
            && [Some(this), this.checked_sub(1)]
                .into_iter()
                .flatten()
                .any(|period| hmac::verify(&self.key, &self.made_in(period, addr, run), given.as_ref()).is_ok())
    }

    fn made_in(&self, period: u64, addr: SocketAddr, run: RunId) -> [u8; COOKIE] {
        // A dual-stack socket sees the IPv4 address a.b.c.d as ::ffff:a.b.c.d.
        let ip = match addr.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let mut mac = hmac::Context::with_key(&self.key);
        mac.update(b"bruit cookie");
        mac.update(&period.to_le_bytes());
        mac.update(&ip.octets());
        mac.update(&run.get().to_le_bytes());
        let mut cookie = [0; COOKIE];
        cookie.copy_from_slice(&mac.sign().as_ref()[..COOKIE]);
        cookie
    }
}

fn period(now: Now) -> u64 {
    now.mono.as_nanos() / nanos(COOKIE_PERIOD)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{Instant, Wall};

    fn run(id: u64) -> RunId {
        RunId::new(id).unwrap()
    }

    fn at(seconds: u64) -> Now {
        Now { mono: Instant::ZERO + Duration::from_secs(seconds), wall: Wall(0) }
    }

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn hold_in_their_period_and_the_next() {
        let jar = CookieJar::new([1; 32]);
        let a = addr("192.0.2.1:7");
        for (made, first_refused) in [(0, 20), (9, 20), (10, 30), (19, 30)] {
            let cookie = jar.cookie(at(made), a, run(1));
            assert!((made..first_refused).all(|t| jar.accepts(at(t), a, run(1), &cookie)), "{made}");
            assert!(!jar.accepts(at(first_refused), a, run(1), &cookie));
            assert!(!jar.accepts(at(3600), a, run(1), &cookie));
        }
        let early = jar.cookie(at(10), a, run(1));
        assert!(!jar.accepts(at(9), a, run(1), &early), "made in the future");
    }

    #[test]
    fn are_refused_at_another_address_for_another_run_and_by_another_node() {
        let (jar, other) = (CookieJar::new([1; 32]), CookieJar::new([2; 32]));
        let a = addr("192.0.2.1:7");
        let cookie = jar.cookie(at(5), a, run(1));
        assert!(jar.clone().accepts(at(5), a, run(1), &cookie));
        assert!(jar.accepts(at(5), addr("192.0.2.1:8"), run(1), &cookie), "the same host by stream");
        assert!(!jar.accepts(at(5), addr("192.0.2.2:7"), run(1), &cookie));
        assert!(!jar.accepts(at(5), addr("[2001:db8::1]:7"), run(1), &cookie));
        assert!(!jar.accepts(at(5), a, run(2), &cookie));
        assert!(!other.accepts(at(5), a, run(1), &cookie));
    }

    #[test]
    fn know_an_ipv4_address_in_its_ipv6_form() {
        let jar = CookieJar::new([1; 32]);
        let cookie = jar.cookie(at(5), addr("192.0.2.1:7"), run(1));
        assert!(jar.accepts(at(5), addr("[::ffff:192.0.2.1]:7"), run(1), &cookie));
    }

    #[test]
    fn of_another_length_or_with_any_bit_flipped_are_refused() {
        let jar = CookieJar::new([1; 32]);
        let a = addr("192.0.2.1:7");
        let cookie = jar.cookie(at(5), a, run(1));
        for len in 0..COOKIE {
            assert!(!jar.accepts(at(5), a, run(1), &cookie[..len]));
        }
        assert!(!jar.accepts(at(5), a, run(1), &[&cookie[..], &[0]].concat()));
        for bit in 0..COOKIE * 8 {
            let mut bent = cookie;
            bent[bit / 8] ^= 1 << (bit % 8);
            assert!(!jar.accepts(at(5), a, run(1), &bent));
        }
    }
}
