//! Hardware addresses of Ethernet links.

use std::fmt;
use std::net::Ipv6Addr;

/// Six bytes that name an Ethernet interface. Written in lower case with colons, as `ip link` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// Reads six pairs of hexadecimal digits, parted by `:` or by `-`. Anything else is `None`.
    pub fn parse(text: &str) -> Option<Self> {
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut bytes = [0; 6];
        let mut parts = text.split(separator);
        for byte in &mut bytes {
            let part = parts.next()?;
            // from_str_radix alone would take "+1".
            if part.len() != 2 || !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return None;
            }
            *byte = u8::from_str_radix(part, 16).ok()?;
        }
        parts.next().is_none().then_some(Self(bytes))
    }

    /// True if one interface can have this address: neither a group's nor all zeroes. The kernel refuses
    /// the others (`is_valid_ether_addr`, include/linux/etherdevice.h).
    pub fn is_unicast(self) -> bool {
        let [first, ..] = self.0;
        first & 1 == 0 && self.0 != [0; 6]
    }

    /// The link-local address that belongs to it: fe80::/64 and the modified EUI-64 (RFC 4291, appendix A).
    pub fn link_local(self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.0;
        Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 0x02, b, c, 0xff, 0xfe, d, e, f])
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_ways_of_writing_are_read() {
        let mac = MacAddr([0x0a, 0x58, 0x0a, 0xf4, 0x01, 0xff]);
        assert_eq!(MacAddr::parse("0A:58:0a:f4:01:ff"), Some(mac));
        assert_eq!(MacAddr::parse("0a-58-0a-f4-01-ff"), Some(mac));
        assert_eq!(mac.to_string(), "0a:58:0a:f4:01:ff");
    }

    #[test]
    fn the_link_local_address_is_the_kernels_choice() {
        let mac = MacAddr::parse("0a:58:0a:f4:01:ff").unwrap();
        assert_eq!(mac.link_local().to_string(), "fe80::858:aff:fef4:1ff");
    }

    #[test]
    fn what_is_not_six_pairs_is_refused() {
        for text in [
            "",
            ":",
            "0a:58:0a:f4:01",
            "0a:58:0a:f4:01:ff:",
            "0a:58:0a:f4:01:ff:00",
            "a:58:0a:f4:01:ff",
            "+a:58:0a:f4:01:ff",
            "0a58.0af4.01ff",
            "0a-58:0a-f4:01:ff",
            "zz:58:0a:f4:01:ff",
            " 0a:58:0a:f4:01:ff",
        ] {
            assert_eq!(MacAddr::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn an_address_of_a_group_or_of_nobody_is_not_unicast() {
        assert!(MacAddr([2, 0, 0, 0, 0, 1]).is_unicast());
        assert!(!MacAddr([1, 0, 0x5e, 0, 0, 1]).is_unicast());
        assert!(!MacAddr([0xff; 6]).is_unicast());
        assert!(!MacAddr([0; 6]).is_unicast());
    }

    proptest! {
        #[test]
        fn every_address_is_read_as_it_is_written(bytes in any::<[u8; 6]>()) {
            prop_assert_eq!(MacAddr::parse(&MacAddr(bytes).to_string()), Some(MacAddr(bytes)));
        }

        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            let _ = MacAddr::parse(&text);
        }
    }
}
