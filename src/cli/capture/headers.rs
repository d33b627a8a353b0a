//! Where a packet's headers end. What follows is an application's, and nobody else's business.

use crate::linux::nflog::LoggedPacket;

/// `IPPROTO_*`
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const DCCP: u8 = 33;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;
const UDP_LITE: u8 = 136;

/// Length of the header of ICMP, and of what all its messages have.
const OF_ICMP: usize = 8;

/// Messages of ICMP that quote the packet they are about: unreachable, redirect, time exceeded, parameter problem; of
/// ICMPv6: unreachable, too big, time exceeded, parameter problem.
const QUOTING: [u8; 4] = [3, 5, 11, 12];
const QUOTING_V6: [u8; 4] = [1, 2, 3, 4];

/// Bytes of a quoted packet that are kept: a header of IPv6, and of TCP without its options.
const QUOTED: usize = 60;

/// Messages of ICMPv6 about the link, which have nothing but headers: groups and neighbours (RFC 2710, 4861).
const OF_LINK: [std::ops::RangeInclusive<u8>; 2] = [130..=137, 143..=143];

/// Bytes of a packet that are headers; all of them where it was cut shorter.
pub(super) fn length(packet: &LoggedPacket) -> usize {
    let rest = packet.bytes.get(packet.headers..).unwrap_or_default();
    let of_protocol = if packet.is_later_fragment { 0 } else { of_protocol(packet.protocol, rest) };
    (packet.headers + of_protocol).min(packet.bytes.len())
}

/// Length of the header of that protocol.
fn of_protocol(protocol: u8, rest: &[u8]) -> usize {
    let byte = |at: usize| rest.get(at).copied().unwrap_or_default();
    match protocol {
        TCP => usize::from(byte(12) >> 4).max(5) * 4,
        UDP | UDP_LITE => 8,
        DCCP => usize::from(byte(4)).max(3) * 4,
        // With the header of its first chunk: the type and its flags.
        SCTP => 16,
        ICMP if QUOTING.contains(&byte(0)) => OF_ICMP + QUOTED,
        ICMPV6 if QUOTING_V6.contains(&byte(0)) => OF_ICMP + QUOTED,
        ICMPV6 if OF_LINK.iter().any(|it| it.contains(&byte(0))) => rest.len(),
        ICMP | ICMPV6 => OF_ICMP,
        // Of others it is not known where the header ends.
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_applications_say_is_behind_the_headers() {
        let mut tcp = vec![0; 60];
        tcp[12] = 0x80;
        for (protocol, rest, length) in [
            (TCP, tcp.clone(), 32),
            (TCP, vec![0; 30], 20),
            (UDP, vec![0; 30], 8),
            (SCTP, vec![0; 30], 16),
            (ICMP, [vec![8], vec![0; 63]].concat(), 8),
            (ICMP, [vec![3], vec![0; 99]].concat(), 68),
            (ICMPV6, [vec![128], vec![0; 63]].concat(), 8),
            (ICMPV6, [vec![135], vec![0; 31]].concat(), 32),
            (99, vec![0; 30], 0),
        ] {
            assert_eq!(of_protocol(protocol, &rest), length, "{protocol}");
        }
    }

    #[test]
    fn neither_a_fragment_nor_a_short_packet_gives_more_than_it_has() {
        let packet = |headers, length, is_later_fragment| LoggedPacket {
            prefix: String::new(),
            in_device: None,
            out_device: None,
            source: [10, 0, 0, 1].into(),
            destination: [10, 0, 0, 2].into(),
            protocol: TCP,
            ports: None,
            bytes: vec![0; length],
            headers,
            is_later_fragment,
            sequence: None,
        };
        assert_eq!(super::length(&packet(20, 100, false)), 40);
        assert_eq!(super::length(&packet(20, 30, false)), 30);
        assert_eq!(super::length(&packet(48, 100, true)), 48);
    }
}
