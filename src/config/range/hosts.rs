//! Addresses that no host can have, whatever a conf or another IPAM plugin says.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::{host_bounds, number};

/// Blocks without hosts (RFC 6890, RFC 4291): the first and the last address, and what an address there is. What comes
/// first is the narrower. 240.0.0.0/4 is not among them: clouds give it to pods.
const BLOCKS: [([&str; 2], &str); 12] = [
    (["0.0.0.0", "0.0.0.0"], "the unspecified address"),
    (["0.0.0.0", "0.255.255.255"], "an address of \"this network\""),
    (["127.0.0.0", "127.255.255.255"], "a loopback address"),
    (["169.254.0.0", "169.254.255.255"], "a link-local address"),
    (["224.0.0.0", "239.255.255.255"], "a multicast address"),
    (["255.255.255.255", "255.255.255.255"], "the broadcast address"),
    (["::", "::"], "the unspecified address"),
    (["::1", "::1"], "the loopback address"),
    (["::", "::ffff:ffff"], "an IPv4-compatible address"),
    (["::ffff:0:0", "::ffff:ffff:ffff"], "an IPv4-mapped address"),
    (["fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff"], "a link-local address"),
    (["ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"], "a multicast address"),
];

/// What the address is instead of a host's, in its subnet or anywhere; `None` if a host can have it.
pub fn why_no_host(address: IpNetwork) -> Option<&'static str> {
    let (ip, at) = (address.ip(), number(address.ip()));
    let (lowest, highest) = host_bounds(address);
    why_none_between(ip, ip).or_else(|| match ip {
        _ if at < lowest && ip.is_ipv4() => Some("the network address of its subnet"),
        _ if at < lowest => Some("the subnet-router anycast address of its subnet"),
        _ if at > highest => Some("the broadcast address of its subnet"),
        _ => None,
    })
}

/// What some address from `first` to `last` is instead of a host's.
pub(super) fn why_none_between(first: IpAddr, last: IpAddr) -> Option<&'static str> {
    BLOCKS.iter().find_map(|([lowest, highest], what)| {
        let (lowest, highest): (IpAddr, IpAddr) = (lowest.parse().ok()?, highest.parse().ok()?);
        let is_hit = lowest.is_ipv4() == first.is_ipv4()
            && number(first) <= number(highest)
            && number(lowest) <= number(last);
        is_hit.then_some(*what)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_host_can_have_is_named() {
        for (address, what) in [
            ("10.1.2.3/24", None),
            ("10.1.2.0/24", Some("network")),
            ("10.1.2.255/24", Some("broadcast")),
            ("10.1.2.0/31", None),
            ("10.1.2.255/32", None),
            ("240.1.2.3/8", None),
            ("0.0.0.0/24", Some("unspecified")),
            ("0.1.2.3/8", Some("this network")),
            ("127.0.0.1/32", Some("loopback")),
            ("169.254.169.254/32", Some("link-local")),
            ("224.0.0.5/4", Some("multicast")),
            ("255.255.255.255/32", Some("broadcast")),
            ("fd00::/64", Some("anycast")),
            ("fd00::1/64", None),
            ("fd00::/128", None),
            ("::/64", Some("unspecified")),
            ("::1/128", Some("loopback")),
            ("::10.1.2.3/128", Some("IPv4-compatible")),
            ("::ffff:10.1.2.3/128", Some("IPv4-mapped")),
            ("fe80::1/64", Some("link-local")),
            ("febf::1/64", Some("link-local")),
            ("fec0::1/64", None),
            ("ff02::1/128", Some("multicast")),
        ] {
            let found = why_no_host(address.parse().unwrap());
            let is_right = match (found, what) {
                (Some(found), Some(what)) => found.contains(what),
                (found, what) => found.is_none() && what.is_none(),
            };
            assert!(is_right, "{address}: {found:?}");
        }
    }
}
