//! A map whose keys are networks, asked for all that share an address with one. Two networks are disjoint, or one of
//! them lies in the other. What lies inside is one range of keys; what is outside is found by a few look-ups.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::desired::attachment::covers;

/// Values by network. The keys have no host bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlaps<V>(BTreeMap<IpNetwork, V>);

impl<V> Default for Overlaps<V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<V> Overlaps<V> {
    /// All of them, to be changed.
    pub fn map_mut(&mut self) -> &mut BTreeMap<IpNetwork, V> {
        &mut self.0
    }

    /// Those that share an address with `network`.
    pub fn of(&self, network: IpNetwork) -> impl Iterator<Item = (IpNetwork, &V)> {
        let first = cut(network, network.prefix()).unwrap_or(network);
        let bits = if network.is_ipv4() { 32 } else { 128 };
        let last = IpNetwork::new(network.broadcast(), bits).unwrap_or(first);
        let inside = self.0.range(first..=last).map(|(key, value)| (*key, value));
        self.around(first).into_iter().chain(inside)
    }

    /// Those that `network` lies in, but for itself. They are not after its parent in the order of the keys. Where the key
    /// that is there or before does not cover it, none does with more bits than the two have in common.
    fn around(&self, network: IpNetwork) -> Vec<(IpNetwork, &V)> {
        let mut found = Vec::new();
        let mut prefix = network.prefix().checked_sub(1);
        while let Some(bound) = prefix.and_then(|prefix| cut(network, prefix)) {
            let Some((&key, value)) = self.0.range(..=bound).next_back() else { break };
            prefix = if key.is_ipv4() != network.is_ipv4() {
                None
            } else if covers(key, network) {
                found.push((key, value));
                key.prefix().checked_sub(1)
            } else {
                Some(bits_in_common(key, network))
            };
        }
        found
    }
}

/// Leading bits that the addresses of two networks of one family have in common.
fn bits_in_common(a: IpNetwork, b: IpNetwork) -> u8 {
    let zeros = match (a.ip(), b.ip()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        _ => 0,
    };
    // At most 128.
    u8::try_from(zeros).unwrap_or(u8::MAX)
}

/// The network of that prefix length that `network` lies in.
pub fn cut(network: IpNetwork, prefix: u8) -> Option<IpNetwork> {
    let cut = IpNetwork::new(network.ip(), prefix).ok()?;
    IpNetwork::new(cut.network(), prefix).ok()
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    /// Few addresses, so that many overlap.
    fn network() -> impl Strategy<Value = IpNetwork> {
        let ipv4 = (0u32..64, 24u8..=32).prop_map(|(low, prefix)| (Ipv4Addr::from(low << 2).into(), prefix));
        let ipv6 =
            (0u128..64, 118u8..=128).prop_map(|(low, prefix)| (Ipv6Addr::from(low << 3).into(), prefix));
        prop_oneof![ipv4, ipv6]
            .prop_map(|(ip, prefix)| cut(IpNetwork::new(ip, prefix).unwrap(), prefix).unwrap())
    }

    proptest! {
        #[test]
        fn it_finds_what_overlaps_and_nothing_else(
            networks in prop::collection::btree_set(network(), 0..40),
            asked in network(),
        ) {
            let mut map = Overlaps::default();
            map.map_mut().extend(networks.iter().map(|network| (*network, ())));
            let mut found: Vec<IpNetwork> = map.of(asked).map(|(network, ())| network).collect();
            found.sort_unstable();
            let overlap = |it: &&IpNetwork| covers(**it, asked) || covers(asked, **it);
            let expected: Vec<IpNetwork> = networks.iter().filter(overlap).copied().collect();
            prop_assert_eq!(found, expected);
        }
    }
}
