//! For peers that want to be told where to listen.

use std::net::{SocketAddr, TcpListener, UdpSocket};

/// On loopback, free for UDP and TCP a moment ago.
pub fn free_port() -> Result<SocketAddr, String> {
    // Another process may have the other half of a port.
    for _ in 0..100 {
        let udp = UdpSocket::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
        let address = udp.local_addr().map_err(|error| error.to_string())?;
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    Err("no port is free for both UDP and TCP".into())
}
