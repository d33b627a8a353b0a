//! Frames as a privileged process in a pod may write them, byte by byte: what no socket would let it send.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::netns::Namespace;
use crate::process::run_in;

/// Protocol numbers (IANA).
pub const ICMP: u8 = 1;
/// Protocol numbers (IANA).
pub const TCP: u8 = 6;
/// Protocol numbers (IANA).
pub const UDP: u8 = 17;
/// Protocol numbers (IANA).
pub const ICMP6: u8 = 58;

/// The header of a fragment (IANA).
const FRAGMENT: u8 = 44;

/// A hardware address.
pub type Mac = [u8; 6];

/// What everybody on a link hears.
pub const BROADCAST: Mac = [0xff; 6];

/// A hardware address from its text.
pub fn mac(text: &str) -> Mac {
    let octets: Vec<u8> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    octets.try_into().expect("six octets")
}

/// Writes frames to the pod's `eth0`, one after another.
pub fn send(pod: &Namespace, frames: &[Vec<u8>]) {
    send_by(pod, "eth0", frames);
}

/// Writes frames to a link, one after another.
pub fn send_by(namespace: &Namespace, link: &str, frames: &[Vec<u8>]) {
    let script = "import socket, sys\ns = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)\n\
                  s.bind((sys.argv[1], 0))\nfor line in sys.stdin: s.send(bytes.fromhex(line))\n";
    let hex = |frame: &Vec<u8>| frame.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n";
    let lines: String = frames.iter().map(hex).collect();
    run_in(namespace, "python3", ["-c", script, link], &lines).unwrap_or_else(|failed| panic!("{failed}"));
}

/// An Ethernet frame; `kind` is the EtherType.
pub fn ethernet(to: Mac, from: Mac, kind: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from[..], &kind.to_be_bytes()[..], payload].concat()
}

/// A packet of IP in a frame (RFC 791, RFC 8200), with the hop limit 255 that neighbour discovery wants.
pub fn packet(to: Mac, from: Mac, source: IpAddr, target: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u16;
    match (source, target) {
        (IpAddr::V4(source), IpAddr::V4(target)) => {
            let mut header = vec![0x45, 0];
            header.extend((20 + length).to_be_bytes());
            header.extend([0, 0, 0, 0, 255, protocol, 0, 0]);
            header.extend(source.octets());
            header.extend(target.octets());
            let sum = checksum(&[&header]);
            header[10..12].copy_from_slice(&sum);
            ethernet(to, from, 0x0800, &[&header[..], payload].concat())
        }
        (IpAddr::V6(source), IpAddr::V6(target)) => {
            let mut header = vec![0x60, 0, 0, 0];
            header.extend(length.to_be_bytes());
            header.extend([protocol, 255]);
            header.extend(source.octets());
            header.extend(target.octets());
            ethernet(to, from, 0x86dd, &[&header[..], payload].concat())
        }
        _ => panic!("{source} and {target} are of two families"),
    }
}

/// Two fragments of a packet of IP, in frames: up to byte `at` of its payload, a multiple of eight, and the rest. Who
/// puts together what belongs together goes by addresses, protocol and `id`.
pub fn fragments(
    (to, from): (Mac, Mac),
    (source, target): (IpAddr, IpAddr),
    (protocol, payload): (u8, &[u8]),
    (id, at): (u16, usize),
) -> [Vec<u8>; 2] {
    let parts = payload.split_at(at);
    [(parts.0, 0, true), (parts.1, at as u16, false)].map(|(part, offset, has_more)| {
        if source.is_ipv4() {
            let mut frame = packet(to, from, source, target, protocol, part);
            let header = &mut frame[14..34];
            header[4..6].copy_from_slice(&id.to_be_bytes());
            header[6..8].copy_from_slice(&((offset / 8) | (u16::from(has_more) << 13)).to_be_bytes());
            header[10..12].fill(0);
            let sum = checksum(&[header]);
            header[10..12].copy_from_slice(&sum);
            return frame;
        }
        // RFC 8200, section 4.5.
        let mut message = vec![protocol, 0];
        message.extend((offset | u16::from(has_more)).to_be_bytes());
        message.extend(u32::from(id).to_be_bytes());
        message.extend(part);
        packet(to, from, source, target, FRAGMENT, &message)
    })
}

/// A datagram of UDP (RFC 768).
pub fn udp(source: IpAddr, target: IpAddr, port: u16, data: &[u8]) -> Vec<u8> {
    let mut message = [port.to_be_bytes(), port.to_be_bytes()].concat();
    message.extend((8 + data.len() as u16).to_be_bytes());
    message.extend([0, 0]);
    message.extend(data);
    with_checksum(source, target, UDP, message, 6)
}

/// What begins a connection of TCP (RFC 9293).
pub fn syn(source: IpAddr, target: IpAddr, port: u16) -> Vec<u8> {
    tcp(source, target, port, 0x02)
}

/// A segment of TCP without data, with these flags.
pub fn tcp(source: IpAddr, target: IpAddr, port: u16, flags: u8) -> Vec<u8> {
    let mut message = [port.to_be_bytes(), port.to_be_bytes()].concat();
    message.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    with_checksum(source, target, TCP, message, 16)
}

/// A message of ICMP of either family (RFC 792, RFC 4443), its checksum filled in.
pub fn icmp(source: IpAddr, target: IpAddr, mut message: Vec<u8>) -> Vec<u8> {
    if source.is_ipv4() {
        let sum = checksum(&[&message]);
        message[2..4].copy_from_slice(&sum);
        return message;
    }
    with_checksum(source, target, ICMP6, message, 2)
}

/// An echo request of either family.
pub fn echo(source: IpAddr, target: IpAddr) -> Vec<u8> {
    let kind = if source.is_ipv4() { 8 } else { 128 };
    icmp(source, target, vec![kind, 0, 0, 0, 0x66, 0x66, 0, 1])
}

/// ARP (RFC 826): 1 asks, 2 answers.
pub fn arp(from: Mac, operation: u16, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut message = vec![0, 1, 8, 0, 6, 4];
    message.extend(operation.to_be_bytes());
    message.extend(from);
    message.extend(sender.octets());
    message.extend(BROADCAST);
    message.extend(target.octets());
    ethernet(BROADCAST, from, 0x0806, &message)
}

/// RFC 4861, section 4.2: a router with the highest preference for half an hour, a prefix to make addresses of, and a
/// smaller MTU.
pub fn router_advertisement(from: Mac, prefix: Ipv6Addr) -> Vec<u8> {
    let mut message = vec![134, 0, 0, 0, 64, 0x08, 0x07, 0x08];
    message.extend([0; 8]);
    message.extend([1, 1]);
    message.extend(from);
    message.extend([3, 4, 64, 0xc0, 0, 0, 0x0e, 0x10, 0, 0, 0x0e, 0x10, 0, 0, 0, 0]);
    message.extend(prefix.octets());
    message.extend([5, 1, 0, 0, 0, 0, 5, 0]);
    to_all_nodes(from, message)
}

/// RFC 4861, section 4.4, with the override flag.
pub fn neighbour_advertisement(from: Mac, target: Ipv6Addr) -> Vec<u8> {
    let mut message = vec![136, 0, 0, 0, 0x20, 0, 0, 0];
    message.extend(target.octets());
    message.extend([2, 1]);
    message.extend(from);
    to_all_nodes(from, message)
}

/// RFC 4861, section 4.3, which teaches the sender's own hardware address.
pub fn neighbour_solicitation(from: Mac, target: Ipv6Addr) -> Vec<u8> {
    let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target.octets());
    message.extend([1, 1]);
    message.extend(from);
    to_all_nodes(from, message)
}

/// RFC 4861, section 4.5: `destination` is better reached by the sender.
pub fn redirect6(from: Mac, destination: Ipv6Addr) -> Vec<u8> {
    let mut message = vec![137, 0, 0, 0, 0, 0, 0, 0];
    message.extend(FORGER.octets());
    message.extend(destination.octets());
    to_all_nodes(from, message)
}

/// RFC 792: who sent `about` does better by way of `gateway`.
pub fn redirect4(source: Ipv4Addr, target: Ipv4Addr, gateway: Ipv4Addr, about: &[u8]) -> Vec<u8> {
    let mut message = vec![5, 1, 0, 0];
    message.extend(gateway.octets());
    message.extend(about);
    icmp(source.into(), target.into(), message)
}

/// Who says all this.
const FORGER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x666);

fn to_all_nodes(from: Mac, message: Vec<u8>) -> Vec<u8> {
    let all: Ipv6Addr = "ff02::1".parse().unwrap();
    let message = icmp(FORGER.into(), all.into(), message);
    packet([0x33, 0x33, 0, 0, 0, 1], from, FORGER.into(), all.into(), ICMP6, &message)
}

/// With the checksum at `place`, over a pseudo header of either family.
fn with_checksum(
    source: IpAddr,
    target: IpAddr,
    protocol: u8,
    mut message: Vec<u8>,
    place: usize,
) -> Vec<u8> {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let rest = [&[0, protocol][..], &(message.len() as u16).to_be_bytes()[..]].concat();
    let sum = checksum(&[&octets(source), &octets(target), &rest, &message]);
    message[place..place + 2].copy_from_slice(&sum);
    message
}

/// RFC 1071. All but the last part have an even length.
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let pairs = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u32 =
        pairs.map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}
