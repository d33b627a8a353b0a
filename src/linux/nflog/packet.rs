//! One packet, and reading it from the kernel's message.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rtnetlink::packet_core::NetlinkBuffer;

use super::MSG_PACKET;
use crate::linux::attributes::Attributes;

/// `NFULA_IFINDEX_INDEV`, `NFULA_IFINDEX_OUTDEV`, `NFULA_PAYLOAD`, `NFULA_PREFIX`, `NFULA_SEQ`.
const IN_DEVICE: u16 = 4;
const OUT_DEVICE: u16 = 5;
const PAYLOAD: u16 = 9;
const PREFIX: u16 = 10;
const SEQUENCE: u16 = 12;

/// Protocols that begin with two ports: TCP, UDP, DCCP, SCTP, UDP-Lite.
const WITH_PORTS: [u8; 5] = [6, 17, 33, 132, 136];

/// What may stand between the header of IPv6 and the packet's protocol: hop-by-hop, routing, fragment, destination options.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const OPTIONS: u8 = 60;

/// How many of them are passed over.
const EXTENSIONS: usize = 8;

/// A packet that a rule told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedPacket {
    /// The rule's.
    pub prefix: String,
    /// Index of the link that it came in by, if any.
    pub in_device: Option<u32>,
    /// Index of the link that it would leave by, if any.
    pub out_device: Option<u32>,
    /// Who sent it.
    pub source: IpAddr,
    /// Whom it is for.
    pub destination: IpAddr,
    /// Number of its IP protocol.
    pub protocol: u8,
    /// Its ports, where the protocol has them and they were copied.
    pub ports: Option<(u16, u16)>,
    /// As much of it as was copied, from the IP header on.
    pub bytes: Vec<u8>,
    /// How many of `bytes` are the IP header and what may stand between it and that of `protocol`.
    pub headers: usize,
    /// Whether it is a fragment and not the first, so that no header of `protocol` follows.
    pub is_later_fragment: bool,
    /// Its number among those that the kernel told of.
    pub sequence: Option<u32>,
}

/// Takes a datagram apart.
pub(in crate::linux) fn read_packets(datagram: &[u8], packets: &mut VecDeque<LoggedPacket>) {
    let mut rest = datagram;
    while let Ok(message) = NetlinkBuffer::new_checked(rest) {
        if message.message_type() == MSG_PACKET {
            // After struct nfgenmsg.
            packets.extend(message.payload().get(4..).and_then(|body| read(Attributes(body))));
        }
        let length = (message.length() as usize).max(1).next_multiple_of(4);
        rest = rest.get(length..).unwrap_or_default();
    }
}

fn read(found: Attributes<'_>) -> Option<LoggedPacket> {
    let payload = found.value(PAYLOAD)?;
    let Headers { source, destination, protocol, length, is_later_fragment } = match payload.first()? >> 4 {
        4 => of_ipv4(payload)?,
        6 => of_ipv6(payload)?,
        _ => return None,
    };
    let has_ports = WITH_PORTS.contains(&protocol) && !is_later_fragment;
    let ports = payload.get(length..).and_then(|rest| rest.first_chunk::<4>()).filter(|_| has_ports);
    Some(LoggedPacket {
        prefix: found.text(PREFIX).unwrap_or_default(),
        in_device: found.number(IN_DEVICE),
        out_device: found.number(OUT_DEVICE),
        source,
        destination,
        protocol,
        ports: ports.map(|[a, b, c, d]| (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]))),
        bytes: payload.to_vec(),
        headers: length.min(payload.len()),
        is_later_fragment,
        sequence: found.number(SEQUENCE),
    })
}

/// What stands before the protocol's own header.
struct Headers {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    /// As the headers say; the packet may have been cut short.
    length: usize,
    is_later_fragment: bool,
}

fn of_ipv4(packet: &[u8]) -> Option<Headers> {
    let header = packet.first_chunk::<20>()?;
    let [first, _, _, _, _, _, fragment_high, fragment_low, _, protocol, _, _, addresses @ ..] = *header;
    let [a, b, c, d, e, f, g, h] = addresses;
    Some(Headers {
        source: Ipv4Addr::new(a, b, c, d).into(),
        destination: Ipv4Addr::new(e, f, g, h).into(),
        protocol,
        length: (usize::from(first & 0xf) * 4).max(20),
        is_later_fragment: u16::from_be_bytes([fragment_high, fragment_low]) & 0x1fff != 0,
    })
}

fn of_ipv6(packet: &[u8]) -> Option<Headers> {
    let header = packet.first_chunk::<40>()?;
    let address =
        |at: usize| header.get(at..).and_then(<[u8]>::first_chunk::<16>).map(|it| Ipv6Addr::from(*it));
    let (source, destination) = (address(8)?.into(), address(24)?.into());
    let (mut protocol, mut at, mut is_later_fragment) = (*header.get(6)?, header.len(), false);
    for _ in 0..EXTENSIONS {
        let extension = packet.get(at..).and_then(|rest| rest.first_chunk::<4>());
        let Some([next, length, high, low]) = extension.copied().filter(|_| !is_later_fragment) else {
            break;
        };
        at += match protocol {
            HOP_BY_HOP | ROUTING | OPTIONS => (usize::from(length) + 1) * 8,
            FRAGMENT => 8,
            _ => break,
        };
        is_later_fragment = protocol == FRAGMENT && u16::from_be_bytes([high, low]) & 0xfff8 != 0;
        protocol = next;
    }
    Some(Headers { source, destination, protocol, length: at, is_later_fragment })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(payload: &[u8]) -> Vec<u8> {
        let mut body = vec![2, 0, 0, 7];
        for (kind, value) in [(PREFIX, &b"denied in\0"[..]), (IN_DEVICE, &[0, 0, 0, 5]), (PAYLOAD, payload)] {
            super::super::attribute(&mut body, kind, value);
        }
        let mut bytes = Vec::new();
        let request = crate::linux::message::Request { kind: MSG_PACKET, flags: 0, body, held: None };
        crate::linux::exchange::write(&mut bytes, &request, 0);
        bytes
    }

    fn read_one(payload: &[u8]) -> Option<LoggedPacket> {
        let mut packets = VecDeque::new();
        read_packets(&message(payload), &mut packets);
        packets.pop_front()
    }

    fn ipv4(protocol: u8, fragment: [u8; 2], rest: &[u8]) -> Vec<u8> {
        let [high, low] = fragment;
        let header = [0x45, 0, 0, 40, 0, 0, high, low, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        [&header, rest].concat()
    }

    fn ipv6(next: u8, rest: &[u8]) -> Vec<u8> {
        let mut header = vec![0x60, 0, 0, 0, 0, 8, next, 64];
        header.extend("fd00::1".parse::<Ipv6Addr>().unwrap().octets());
        header.extend("fd00::2".parse::<Ipv6Addr>().unwrap().octets());
        [&header, rest].concat()
    }

    #[test]
    fn a_packet_tells_who_asked_whom_for_what() {
        let packet = read_one(&ipv4(6, [0x40, 0], &[0x9c, 0x40, 0, 80])).unwrap();
        let [source, destination] = ["10.0.0.1", "10.0.0.2"].map(|text| text.parse::<IpAddr>().unwrap());
        assert_eq!((packet.source, packet.destination, packet.protocol), (source, destination, 6));
        assert_eq!((packet.ports, packet.in_device, packet.out_device), (Some((40_000, 80)), Some(5), None));
        assert_eq!(packet.prefix, "denied in");
        let packet = read_one(&ipv6(17, &[0, 1, 0, 53])).unwrap();
        assert_eq!((packet.ports, packet.protocol), (Some((1, 53)), 17));
        // Behind a header of options, and behind one of a first fragment.
        let options = [17, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 53];
        assert_eq!(read_one(&ipv6(OPTIONS, &options)).unwrap().ports, Some((1, 53)));
        assert_eq!(read_one(&ipv6(FRAGMENT, &options)).unwrap().ports, Some((1, 53)));
        let packet = read_one(&ipv6(OPTIONS, &options)).unwrap();
        assert_eq!((packet.headers, packet.bytes.len(), packet.is_later_fragment), (48, 52, false));
    }

    #[test]
    fn what_has_no_ports_has_none() {
        assert_eq!(read_one(&ipv4(1, [0, 0], &[8, 0, 0, 0])).unwrap().ports, None);
        assert_eq!(read_one(&ipv4(6, [0, 9], &[1, 2, 3, 4])).unwrap().ports, None, "a later fragment");
        let later = read_one(&ipv6(FRAGMENT, &[6, 0, 0, 8, 0, 0, 0, 0, 1, 2, 3, 4])).unwrap();
        assert_eq!((later.ports, later.protocol), (None, 6));
        assert_eq!((later.headers, later.is_later_fragment), (48, true));
        assert_eq!(read_one(&ipv4(6, [0, 0], &[1, 2])).unwrap().ports, None, "cut short");
        assert_eq!(read_one(&[0x45, 0, 0]), None);
        assert_eq!(read_one(&[]), None);
    }
}
