//! Packets made by hand: sent by a raw socket, with the kernel's own IP header, and what comes back to them.
//!
//! Raw sockets have copies of what arrives; the kernel deals with it as if they were not there. What comes back for a
//! port without a socket is refused by it, with a reset.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::pin::pin;

use futures_util::future::select;
use rustix::net::{
    AddressFamily, Protocol, SendFlags, SocketFlags, SocketType, bind, connect, getsockname, send,
    socket_with, sockopt,
};
use tokio::net::UdpSocket;

/// `IPPROTO_*` (include/uapi/linux/in.h, in6.h).
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// Asked for, in bytes: a busy pod has other packets of the same host.
const BUFFER: usize = 4 << 20;

/// Longest packet that is looked at, in bytes.
const LONGEST: usize = 2048;

/// Sockets that are not part of a runtime yet: they may be opened by a thread inside of another namespace.
pub struct Opened {
    source: IpAddr,
    sender: OwnedFd,
    errors: OwnedFd,
    port: Option<(OwnedFd, u16)>,
}

/// Sends packets of one protocol from one address to another, and hears what comes back.
pub struct RawSocket {
    source: IpAddr,
    /// Hears the destination only.
    sender: UdpSocket,
    /// Hears ICMP, of whomever.
    errors: UdpSocket,
    port: Option<(OwnedFd, u16)>,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Who sent it.
    pub from: IpAddr,
    /// Number of its IP protocol.
    pub protocol: u8,
    /// From the header of that protocol on.
    pub bytes: Vec<u8>,
}

/// Opens the sockets in the namespace of the calling thread. `hops`: how many hosts the packets may go through, if not as
/// many as others. Of TCP and UDP a port is taken that nobody else has, and held as long as the sockets are.
///
/// # Errors
/// The kernel's: CAP_NET_RAW is missing (EPERM), `source` is no address of the namespace (EADDRNOTAVAIL), or it has no way
/// to `destination`.
pub fn open_here(protocol: u8, source: IpAddr, destination: IpAddr, hops: Option<u8>) -> io::Result<Opened> {
    let sender = open(SocketType::RAW, protocol, source)?;
    connect(&sender, &SocketAddr::new(destination, 0))?;
    if let Some(hops) = hops {
        if source.is_ipv4() {
            sockopt::set_ip_ttl(&sender, hops.into())?;
        } else {
            sockopt::set_ipv6_unicast_hops(&sender, Some(hops))?;
        }
    }
    let errors = open(SocketType::RAW, if source.is_ipv4() { ICMP } else { ICMPV6 }, source)?;
    let kind = match protocol {
        TCP => Some(SocketType::STREAM),
        UDP => Some(SocketType::DGRAM),
        _ => None,
    };
    let port = kind.map(|kind| -> io::Result<_> {
        let holder = open(kind, protocol, source)?;
        let port = SocketAddr::try_from(getsockname(&holder)?)?.port();
        Ok((holder, port))
    });
    Ok(Opened { source, sender, errors, port: port.transpose()? })
}

fn open(kind: SocketType, protocol: u8, source: IpAddr) -> io::Result<OwnedFd> {
    let family = if source.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let protocol = std::num::NonZeroU32::new(protocol.into()).map(Protocol::from_raw);
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, protocol)?;
    // Without CAP_NET_ADMIN, what the limit grants.
    if sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER).is_err() {
        sockopt::set_socket_recv_buffer_size(&socket, BUFFER)?;
    }
    bind(&socket, &SocketAddr::new(source, 0))?;
    Ok(socket)
}

impl Opened {
    /// Makes the sockets part of the runtime.
    ///
    /// # Errors
    /// The kernel's: no descriptors are left.
    ///
    /// # Panics
    /// Outside a tokio runtime with its drivers.
    pub fn start(self) -> io::Result<RawSocket> {
        let Self { source, sender, errors, port } = self;
        // By the type for sockets that send and receive datagrams, which these do.
        let start = |socket: OwnedFd| UdpSocket::from_std(socket.into());
        Ok(RawSocket { source, sender: start(sender)?, errors: start(errors)?, port })
    }
}

impl RawSocket {
    /// The port that is held.
    pub fn port(&self) -> Option<u16> {
        self.port.as_ref().map(|(_, port)| *port)
    }

    /// Sends a packet, given from the header of its protocol on.
    ///
    /// # Errors
    /// Why it did not leave the namespace: no route (ENETUNREACH), or a firewall there (EPERM).
    pub fn send(&self, bytes: &[u8]) -> io::Result<()> {
        send(&self.sender, bytes, SendFlags::empty())?;
        Ok(())
    }

    /// What comes back next; waits for it. Cancel safe.
    pub async fn next(&self, protocol: u8) -> Received {
        let icmp = if self.source.is_ipv4() { ICMP } else { ICMPV6 };
        let (answer, error) = (self.read(&self.sender, protocol), self.read(&self.errors, icmp));
        select(pin!(answer), pin!(error)).await.factor_first().0
    }

    async fn read(&self, socket: &UdpSocket, protocol: u8) -> Received {
        let mut bytes = [0; LONGEST];
        loop {
            // An error is what ICMP has said, which is read from the other socket as it was said.
            let Ok((length, from)) = socket.recv_from(&mut bytes).await else { continue };
            if let Some(packet) = bytes.get(..length).and_then(|bytes| received(from.ip(), protocol, bytes)) {
                return packet;
            }
        }
    }
}

/// Of IPv4 the kernel hands out the IP header as well.
fn received(from: IpAddr, protocol: u8, bytes: &[u8]) -> Option<Received> {
    let header = if from.is_ipv4() { usize::from(bytes.first()? & 0xf) * 4 } else { 0 };
    Some(Received { from, protocol, bytes: bytes.get(header..)?.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_of_ipv4_is_passed_over_and_a_torn_packet_is_none() {
        let mut packet = vec![0x46; 24];
        packet.push(7);
        let (four, six) = ("10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap());
        assert_eq!(received(four, TCP, &packet).unwrap().bytes, [7]);
        assert_eq!(received(four, TCP, &packet[..20]), None);
        assert_eq!(received(four, TCP, &[]), None);
        assert_eq!(received(six, TCP, &[1, 2]).unwrap().bytes, [1, 2]);
    }
}
