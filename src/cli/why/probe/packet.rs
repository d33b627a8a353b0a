//! The packet that is sent, and which answers belong to it. Pure.
//!
//! It is told from all others by numbers drawn by lot: of TCP the sequence number, which the answer acknowledges; of UDP and
//! ICMP eight bytes of payload, which an echo reply repeats. Translation of addresses leaves them as they are.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::IpAddr;

use crate::connectivity::probe::{AnswerKind, ProbeAnswer};
use crate::connectivity::question::{ICMP, ICMPV6};
use crate::linux::raw::Received;
use crate::policy::evaluate::Flow;
use crate::policy::names::{TCP, UDP};

/// Flags of TCP (RFC 9293).
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// `ICMP_ECHO`, `ICMP_ECHOREPLY`, and those of ICMPv6.
const ECHO_V4: u8 = 8;
const ECHO_REPLY_V4: u8 = 0;
const ECHO_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;

/// Errors of ICMP that quote a packet: unreachable, source quench, redirect, time exceeded, parameter problem. Redirects are
/// no errors.
const ERRORS_V4: [u8; 3] = [3, 11, 12];
/// Unreachable, too big, time exceeded, parameter problem.
const ERRORS_V6: [u8; 4] = [1, 2, 3, 4];

/// Headers, in bytes.
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
pub(super) const ICMP_HEADER: usize = 8;

/// A packet that can be sent.
#[derive(Debug, Clone)]
pub(super) struct ProbePacket {
    flow: Flow,
    /// Tells it from others.
    token: u64,
    source_port: u16,
}

/// Bytes at a place behind the IP header by which a packet is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    /// Bytes before them.
    pub offset: usize,
    /// They.
    pub value: Vec<u8>,
}

impl ProbePacket {
    /// The first packet of `flow`; `None` of a protocol of which none can be made.
    pub(super) fn new(flow: Flow) -> Option<Self> {
        let is_known = [TCP, UDP, ICMP, ICMPV6].contains(&flow.protocol);
        let token = RandomState::new().build_hasher().finish();
        is_known.then_some(Self { flow, token, source_port: 0 })
    }

    /// What it is called.
    pub(super) fn word(&self) -> &'static str {
        match self.flow.protocol {
            TCP => "a TCP SYN",
            UDP => "a UDP datagram",
            _ => "an ICMP echo request",
        }
    }

    /// A name that nothing else has.
    pub(super) fn name(&self) -> String {
        format!("{:016x}", self.token)
    }

    /// Has it sent from this port.
    pub(super) fn set_source_port(&mut self, port: u16) {
        self.source_port = port;
    }

    fn sequence(&self) -> u32 {
        u32::from_be_bytes([0, 1, 2, 3].map(|at| self.payload()[at]))
    }

    fn payload(&self) -> [u8; 8] {
        self.token.to_be_bytes()
    }

    fn is_ipv4(&self) -> bool {
        self.flow.source.is_ipv4()
    }

    /// The bytes by which it is known.
    pub(super) fn marks(&self) -> Vec<Mark> {
        match self.flow.protocol {
            TCP => vec![Mark { offset: 4, value: self.sequence().to_be_bytes().to_vec() }],
            UDP => vec![Mark { offset: 8, value: self.payload().to_vec() }],
            _ => self.echo(if self.is_ipv4() { ECHO_V4 } else { ECHO_V6 }),
        }
    }

    /// Those by which an answer is known; none if its protocol has no answers.
    pub(super) fn answer_marks(&self) -> Vec<Mark> {
        match self.flow.protocol {
            TCP => {
                let acknowledged = self.sequence().wrapping_add(1);
                vec![Mark { offset: 8, value: acknowledged.to_be_bytes().to_vec() }]
            }
            UDP => Vec::new(),
            _ => self.echo(if self.is_ipv4() { ECHO_REPLY_V4 } else { ECHO_REPLY_V6 }),
        }
    }

    /// Type and payload, which masquerade leaves as they are, unlike the identifier.
    fn echo(&self, kind: u8) -> Vec<Mark> {
        let payload = Mark { offset: ICMP_HEADER, value: self.payload().to_vec() };
        vec![Mark { offset: 0, value: vec![kind] }, payload]
    }

    /// The marks of a packet that is inside of another, behind an IP header without options and `before` that.
    pub(super) fn quoted(&self, marks: Vec<Mark>, before: usize) -> Vec<Mark> {
        let header = if self.is_ipv4() { IPV4_HEADER } else { IPV6_HEADER };
        marks.into_iter().map(|it| Mark { offset: before + header + it.offset, ..it }).collect()
    }

    /// From the header of its protocol on.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let Flow { protocol, port, .. } = self.flow;
        let (mut bytes, checksum_at) = match protocol {
            TCP => {
                let mut bytes = [self.source_port.to_be_bytes(), port.to_be_bytes()].concat();
                bytes.extend(self.sequence().to_be_bytes());
                // No acknowledgement, 24 bytes of header, SYN, the window that Linux begins with, no checksum yet, nothing urgent.
                bytes.extend([0, 0, 0, 0, 6 << 4, SYN, 0xfa, 0xf0, 0, 0, 0, 0]);
                // The option of the largest segment, of 1,220 bytes, which fits everywhere.
                bytes.extend([2, 4, 0x04, 0xc4]);
                (bytes, 16)
            }
            UDP => {
                let mut bytes = [self.source_port.to_be_bytes(), port.to_be_bytes()].concat();
                bytes.extend([0, 16, 0, 0]);
                bytes.extend(self.payload());
                (bytes, 6)
            }
            _ => {
                let [id_high, id_low, ..] = self.payload();
                let kind = if self.is_ipv4() { ECHO_V4 } else { ECHO_V6 };
                let mut bytes = vec![kind, 0, 0, 0, id_high, id_low, 0, 1];
                bytes.extend(self.payload());
                (bytes, 2)
            }
        };
        let sum = self.checksum(&bytes).to_be_bytes();
        if let Some(field) = bytes.get_mut(checksum_at..checksum_at + 2) {
            field.copy_from_slice(&sum);
        }
        bytes
    }

    /// RFC 1071, over the pseudo header as well, which ICMP of IPv4 does not have.
    fn checksum(&self, bytes: &[u8]) -> u16 {
        let mut all = Vec::new();
        if self.flow.protocol != ICMP {
            for address in [self.flow.source, self.flow.destination] {
                match address {
                    IpAddr::V4(it) => all.extend(it.octets()),
                    IpAddr::V6(it) => all.extend(it.octets()),
                }
            }
            all.extend([0, self.flow.protocol]);
            all.extend(u16::try_from(bytes.len()).unwrap_or_default().to_be_bytes());
        }
        all.extend(bytes);
        let pairs = all.chunks(2).map(|it| match *it {
            [high, low] => u32::from(u16::from_be_bytes([high, low])),
            [high] => u32::from(high) << 8,
            _ => 0,
        });
        let mut sum: u32 = pairs.sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        // 0 says of UDP that there is none.
        match !u16::try_from(sum).unwrap_or_default() {
            0 if self.flow.protocol == UDP => 0xffff,
            sum => sum,
        }
    }

    /// What a packet says of this one; nothing if it is no answer to it.
    pub(super) fn judge(&self, received: &Received) -> Option<ProbeAnswer> {
        let Received { from, protocol, bytes } = received;
        let answer = |kind| Some(ProbeAnswer { kind, from: *from, icmp: None });
        if *protocol == TCP && self.flow.protocol == TCP {
            let (ports, acknowledged) = (bytes.get(..4)?, bytes.get(8..12)?);
            let own = [self.flow.port.to_be_bytes(), self.source_port.to_be_bytes()].concat();
            if ports != own || acknowledged != self.sequence().wrapping_add(1).to_be_bytes() {
                return None;
            }
            return match bytes.get(13)? {
                flags if flags & RST != 0 => answer(AnswerKind::Reset),
                flags if flags & (SYN | ACK) == SYN | ACK => answer(AnswerKind::SynAck),
                _ => None,
            };
        }
        let (kind, code) = (*bytes.first()?, *bytes.get(1)?);
        let (reply, errors) = match *protocol {
            ICMP => (ECHO_REPLY_V4, ERRORS_V4.as_slice()),
            ICMPV6 => (ECHO_REPLY_V6, ERRORS_V6.as_slice()),
            _ => return None,
        };
        if errors.contains(&kind) {
            return self.is_quoted(bytes.get(ICMP_HEADER..)?).then_some(ProbeAnswer {
                kind: AnswerKind::IcmpError,
                from: *from,
                icmp: Some((kind, code)),
            });
        }
        let is_echo = self.flow.protocol == *protocol && kind == reply;
        let is_own = is_echo && bytes.get(ICMP_HEADER..)?.starts_with(&self.payload());
        if is_own { answer(AnswerKind::EchoReply) } else { None }
    }

    /// Whether an error is about this packet: it quotes the IP header and eight bytes, or more.
    fn is_quoted(&self, quote: &[u8]) -> bool {
        let header = match quote.first() {
            Some(first) if first >> 4 == 4 => usize::from(first & 0xf) * 4,
            Some(first) if first >> 4 == 6 => IPV6_HEADER,
            _ => return false,
        };
        let Some(start) = quote.get(header..).and_then(<[u8]>::first_chunk::<8>) else { return false };
        let own = self.bytes();
        match self.flow.protocol {
            // Ports and sequence number; ports and length.
            TCP => own.starts_with(start),
            UDP => own.get(..6) == start.get(..6),
            // Type, code, identifier and number; the kernel has its own idea of the checksum.
            _ => own.get(..2) == start.get(..2) && own.get(4..8) == start.get(4..8),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(protocol: u8, source: &str, destination: &str) -> ProbePacket {
        let [source, destination] = [source, destination].map(|it| it.parse().unwrap());
        let flow = Flow { source, destination, protocol, port: 80 };
        ProbePacket { source_port: 40_000, ..ProbePacket::new(flow).unwrap() }
    }

    fn received(protocol: u8, bytes: Vec<u8>) -> Received {
        Received { from: "10.0.0.9".parse().unwrap(), protocol, bytes }
    }

    /// A sum over all of it, the checksum included, is complete.
    #[test]
    fn checksums_are_right() {
        for (protocol, a, b) in [
            (TCP, "10.0.0.1", "10.0.0.2"),
            (UDP, "10.0.0.1", "10.0.0.2"),
            (ICMP, "10.0.0.1", "10.0.0.2"),
            (TCP, "fd00::1", "fd00::2"),
            (UDP, "fd00::1", "fd00::2"),
            (ICMPV6, "fd00::1", "fd00::2"),
        ] {
            let packet = packet(protocol, a, b);
            let bytes = packet.bytes();
            assert!([0, 0xffff].contains(&packet.checksum(&bytes)), "{protocol}");
            for Mark { offset, value } in packet.marks() {
                assert!(bytes[offset..].starts_with(&value), "{protocol}");
            }
        }
        let [source, destination] = ["10.0.0.1", "10.0.0.2"].map(|it| it.parse().unwrap());
        assert!(ProbePacket::new(Flow { source, destination, protocol: 132, port: 1 }).is_none());
    }

    #[test]
    fn only_an_answer_to_this_syn_is_one() {
        let packet = packet(TCP, "10.0.0.1", "10.0.0.2");
        let reply = |flags: u8, acknowledged: u32, port: u16| {
            let mut bytes = [80_u16.to_be_bytes(), port.to_be_bytes()].concat();
            bytes.extend([0, 0, 0, 5]);
            bytes.extend(acknowledged.to_be_bytes());
            bytes.extend([5 << 4, flags, 0, 0, 0, 0, 0, 0]);
            packet.judge(&received(TCP, bytes)).map(|it| it.kind)
        };
        let next = packet.sequence().wrapping_add(1);
        assert_eq!(reply(SYN | ACK, next, 40_000), Some(AnswerKind::SynAck));
        assert_eq!(reply(RST | ACK, next, 40_000), Some(AnswerKind::Reset));
        assert_eq!(reply(ACK, next, 40_000), None);
        assert_eq!(reply(SYN | ACK, next.wrapping_add(1), 40_000), None);
        assert_eq!(reply(SYN | ACK, next, 40_001), None);
        assert_eq!(packet.judge(&received(TCP, vec![0; 7])), None);
    }

    #[test]
    fn an_error_is_about_the_packet_that_it_quotes() {
        for protocol in [TCP, UDP, ICMP] {
            let packet = packet(protocol, "10.0.0.1", "10.0.0.2");
            let error = |inner: &[u8]| {
                let mut bytes = vec![3, 13, 0, 0, 0, 0, 0, 0, 0x45];
                bytes.resize(ICMP_HEADER + IPV4_HEADER, 0);
                bytes.extend(inner);
                received(ICMP, bytes)
            };
            let own = packet.bytes();
            let answer = packet.judge(&error(&own[..8])).unwrap();
            assert_eq!((answer.kind, answer.icmp), (AnswerKind::IcmpError, Some((3, 13))), "{protocol}");
            for Mark { offset, value } in packet.quoted(packet.marks(), ICMP_HEADER) {
                assert!(error(&own).bytes[offset..].starts_with(&value), "{protocol}");
            }
            let mut other = own.clone();
            other[if protocol == ICMP { 5 } else { 1 }] ^= 1;
            assert_eq!(packet.judge(&error(&other)), None, "{protocol}");
            assert_eq!(packet.judge(&error(&own[..7])), None, "{protocol}");
        }
    }

    #[test]
    fn an_echo_reply_repeats_the_payload() {
        let packet = packet(ICMPV6, "fd00::1", "fd00::2");
        let mut bytes = packet.bytes();
        bytes[0] = ECHO_REPLY_V6;
        assert_eq!(packet.judge(&received(ICMPV6, bytes.clone())).unwrap().kind, AnswerKind::EchoReply);
        assert_eq!(packet.judge(&received(ICMPV6, packet.bytes())), None, "the request itself");
        bytes[9] ^= 1;
        assert_eq!(packet.judge(&received(ICMPV6, bytes)), None);
    }
}
