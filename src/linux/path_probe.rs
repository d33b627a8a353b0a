//! Whether a packet of a given length reaches another host unfragmented.
//!
//! A datagram of UDP to a port that nobody has is answered by the host itself: ICMP, port unreachable. So nothing has to
//! listen there, and no capability is needed here. It is sent with "do not fragment" and without regard to what the kernel
//! remembers of the path (IP_PMTUDISC_PROBE). What a host in between has to say of it, that it is too long, comes to the
//! socket as an error as well.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};
use tokio::time::timeout;

/// Where traceroute begins: nobody is to listen there.
const PORT: u16 = 33434;

/// Headers of IPv4 and UDP, of IPv6 and UDP, in bytes.
const HEADERS_V4: usize = 20 + 8;
const HEADERS_V6: usize = 40 + 8;

/// What came of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probed {
    /// It has arrived: its receiver says that nobody has the port.
    Arrived,
    /// It is too long for a link on the way, of which this is known.
    TooLong {
        /// The MTU that the kernel was told, in bytes.
        mtu: u32,
    },
    /// Nobody has said anything.
    Silent,
}

/// Sends a packet of `length` bytes, from the IP header on, and waits for an answer.
///
/// # Errors
/// It cannot be sent: there is no way there.
///
/// # Panics
/// Outside a tokio runtime with its drivers.
pub async fn probe(to: IpAddr, length: usize, patience: Duration) -> io::Result<Probed> {
    let socket = open(to)?;
    let headers = if to.is_ipv4() { HEADERS_V4 } else { HEADERS_V6 };
    let too_long = || known_mtu(&socket, to).map(|mtu| Probed::TooLong { mtu });
    match socket.send(&vec![0; length.saturating_sub(headers)]) {
        Err(error) if is(&error, Errno::MSGSIZE) => return too_long(),
        sent => sent?,
    };
    let waiting = tokio::net::UdpSocket::from_std(socket.try_clone()?)?;
    match timeout(patience, waiting.recv(&mut [0; 1])).await {
        Err(_) => Ok(Probed::Silent),
        // Somebody listens there after all.
        Ok(Ok(_)) => Ok(Probed::Arrived),
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => Ok(Probed::Arrived),
        Ok(Err(error)) if is(&error, Errno::MSGSIZE) => too_long(),
        Ok(Err(error)) => Err(error),
    }
}

fn open(to: IpAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    if to.is_ipv4() {
        sockopt::set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::PROBE)?;
    } else {
        sockopt::set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::PROBE)?;
    }
    socket.connect(SocketAddr::new(to, PORT))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn known_mtu(socket: &UdpSocket, to: IpAddr) -> io::Result<u32> {
    Ok(if to.is_ipv4() { sockopt::ip_mtu(socket)? } else { sockopt::ipv6_mtu(socket)? })
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}
