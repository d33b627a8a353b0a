//! The format that tcpdump and Wireshark read (draft-ietf-opsawg-pcap): a header, then packets, each with its time.

use std::time::{Duration, SystemTime};

/// Big end last, times in microseconds.
const MAGIC: u32 = 0xa1b2_c3d4;

/// No packet is longer.
const SNAPLEN: u32 = 0xffff;

/// `LINKTYPE_RAW`: packets begin with the IP header.
const RAW: u32 = 101;

/// What a file begins with.
pub(super) fn file_header() -> Vec<u8> {
    let mut bytes = MAGIC.to_le_bytes().to_vec();
    // Version 2.4.
    bytes.extend([2, 0, 4, 0]);
    // Time zone and accuracy: nobody uses them.
    bytes.extend([0; 8]);
    bytes.extend(SNAPLEN.to_le_bytes());
    bytes.extend(RAW.to_le_bytes());
    bytes
}

/// A packet with its header. `copied` is as much of it as there is, of which `kept` bytes are written.
pub(super) fn packet(copied: &[u8], kept: usize, time: SystemTime) -> Vec<u8> {
    let since_1970 = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let kept = copied.get(..kept).unwrap_or(copied);
    let seconds = u32::try_from(since_1970.as_secs()).unwrap_or(u32::MAX);
    let length = |it: usize| u32::try_from(it).unwrap_or(u32::MAX).to_le_bytes();
    let mut bytes = Vec::with_capacity(16 + kept.len());
    bytes.extend(seconds.to_le_bytes());
    bytes.extend(since_1970.subsec_micros().to_le_bytes());
    bytes.extend(length(kept.len()));
    bytes.extend(length(length_on_the_wire(copied)));
    bytes.extend(kept);
    bytes
}

/// As the IP header says it; as much as was copied where that is more, or the header does not say it (BIG TCP).
fn length_on_the_wire(copied: &[u8]) -> usize {
    let number = |at: usize| {
        let bytes = copied.get(at..).and_then(<[u8]>::first_chunk::<2>);
        bytes.map_or(0, |bytes| usize::from(u16::from_be_bytes(*bytes)))
    };
    let told = match copied.first().map(|first| first >> 4) {
        Some(4) => number(2),
        Some(6) => number(4) + 40,
        _ => 0,
    };
    told.max(copied.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_has_its_time_and_both_lengths() {
        let mut ipv4 = vec![0; 40];
        ipv4[0] = 0x45;
        ipv4[2..4].copy_from_slice(&1500_u16.to_be_bytes());
        let time = SystemTime::UNIX_EPOCH + Duration::new(3, 7000);
        let bytes = packet(&ipv4, 28, time);
        let number = |at: usize| u32::from_le_bytes(*bytes[at..].first_chunk::<4>().unwrap());
        assert_eq!([0, 4, 8, 12].map(number), [3, 7, 28, 1500]);
        assert_eq!(&bytes[16..], &ipv4[..28]);
        let mut ipv6 = vec![0; 48];
        ipv6[0] = 0x60;
        ipv6[5] = 100;
        assert_eq!(length_on_the_wire(&ipv6), 140);
        assert_eq!(length_on_the_wire(&[0x45, 0, 0]), 3, "cut short");
    }

    #[test]
    fn the_file_says_that_packets_begin_with_the_ip_header() {
        let header = file_header();
        assert_eq!((header.len(), &header[..4], header[20]), (24, &[0xd4, 0xc3, 0xb2, 0xa1][..], 101));
    }
}
