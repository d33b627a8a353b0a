//! Values of which some bits are known: what a rule compares a packet with, when only part of the packet is given.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::linux::nft::expr::Comparison;

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bits(
    /// Byte by byte: the bits, and which of them are known. One that is not is 0.
    Vec<(u8, u8)>,
);

impl Bits {
    /// One that is known.
    pub fn exactly(bytes: &[u8]) -> Self {
        Self(bytes.iter().map(|&byte| (byte, 0xff)).collect())
    }

    /// One of which nothing is known but how many bytes it has.
    pub fn unknown(length: usize) -> Self {
        Self(vec![(0, 0); length])
    }

    /// An address that is in one of `networks`, which are of one family.
    pub fn within(networks: &[IpNetwork], ipv4: bool) -> Self {
        let prefix = |network: &IpNetwork| {
            let (bytes, mask) = (octets(network.network()), octets(network.mask()));
            Self(bytes.into_iter().zip(mask).map(|(byte, mask)| (byte & mask, mask)).collect())
        };
        let common = networks.iter().filter(|network| network.is_ipv4() == ipv4).map(prefix);
        common.reduce(|one, other| one.common(&other)).unwrap_or(Self::unknown(if ipv4 { 4 } else { 16 }))
    }

    /// A name that begins so and goes on in `rest` unknown bytes, filled up with NULs.
    pub fn name(prefix: &str, rest: usize, length: usize) -> Self {
        let mut bits = Self::exactly(prefix.as_bytes());
        bits.0.extend(vec![(0, 0); rest]);
        bits.0.resize(length, (0, 0xff));
        bits
    }

    /// How many bytes it has.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The same with what `other` says in the place of its bytes from `offset` on.
    pub fn with(mut self, offset: usize, other: &Self) -> Self {
        for (place, byte) in self.0.iter_mut().skip(offset).zip(&other.0) {
            *place = *byte;
        }
        self
    }

    /// Some of its bytes; unknown where it has none.
    pub fn part(&self, offset: usize, length: usize) -> Self {
        let mut part: Vec<(u8, u8)> = self.0.iter().skip(offset).take(length).copied().collect();
        part.resize(length, (0, 0));
        Self(part)
    }

    /// The bits of the mask, the others 0.
    pub fn masked(mut self, mask: &[u8]) -> Self {
        for ((bits, known), mask) in self.0.iter_mut().zip(mask) {
            (*bits, *known) = (*bits & mask, *known | !mask);
        }
        self
    }

    /// Whether it stands so to `value`; `None` if what is not known decides.
    pub fn stands(&self, comparison: Comparison, value: &[u8]) -> Option<bool> {
        let own = self.part(0, value.len());
        let least: Vec<u8> = own.0.iter().map(|(bits, _)| *bits).collect();
        let most: Vec<u8> = own.0.iter().map(|(bits, known)| bits | !known).collect();
        let decide = |always: bool, never: bool| (always || never).then_some(always);
        let differs = own.0.iter().zip(value).any(|((bits, known), value)| (bits ^ value) & known != 0);
        match comparison {
            Comparison::Equal => decide(least == most && !differs, differs),
            Comparison::NotEqual => decide(differs, least == most && !differs),
            Comparison::AtLeast => decide(least.as_slice() >= value, most.as_slice() < value),
            Comparison::AtMost => decide(most.as_slice() <= value, least.as_slice() > value),
        }
    }

    /// What is known of both, and the same.
    fn common(&self, other: &Self) -> Self {
        let both = self.0.iter().zip(&other.0).map(|((a, known_a), (b, known_b))| {
            let known = known_a & known_b & !(a ^ b);
            (a & known, known)
        });
        Self(both.collect())
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Comparison::{AtLeast, AtMost, Equal, NotEqual};

    fn within(networks: &[&str]) -> Bits {
        let networks: Vec<IpNetwork> = networks.iter().map(|text| text.parse().unwrap()).collect();
        Bits::within(&networks, true)
    }

    #[test]
    fn an_address_of_a_subnet_is_compared_by_its_known_bits() {
        let address = within(&["10.244.1.0/24"]);
        for (comparison, value, expected) in [
            (Equal, vec![10, 244, 1], Some(true)),
            (Equal, vec![10, 244, 1, 7], None),
            (Equal, vec![10, 244, 2, 7], Some(false)),
            (NotEqual, vec![10, 244, 2, 7], Some(true)),
            (NotEqual, vec![10, 244], Some(false)),
            (AtLeast, vec![10, 244, 1, 0], Some(true)),
            (AtLeast, vec![10, 244, 1, 1], None),
            (AtLeast, vec![10, 244, 2, 0], Some(false)),
            (AtMost, vec![10, 244, 1, 255], Some(true)),
            (AtMost, vec![10, 244, 1, 254], None),
            (AtMost, vec![10, 244, 0, 255], Some(false)),
        ] {
            assert_eq!(address.stands(comparison, &value), expected, "{comparison:?} {value:?}");
        }
        let masked = address.masked(&[255, 255, 254, 0]);
        assert_eq!(masked.stands(Equal, &[10, 244, 0, 0]), Some(true));
    }

    #[test]
    fn of_several_subnets_what_they_share_is_known() {
        let address = within(&["10.244.1.0/24", "10.244.2.0/24"]);
        assert_eq!(address.stands(Equal, &[10, 244]), Some(true));
        assert_eq!(address.stands(Equal, &[10, 244, 1]), None);
        assert_eq!(address.clone().masked(&[255, 255, 252, 0]).stands(Equal, &[10, 244, 0, 0]), Some(true));
        assert_eq!(within(&[]), Bits::unknown(4));
    }

    #[test]
    fn a_name_is_known_as_far_as_it_is_said() {
        let name = Bits::name("veth", 11, 16);
        assert_eq!(name.stands(Equal, b"veth"), Some(true));
        assert_eq!(name.stands(Equal, b"docker0\0"), Some(false));
        assert_eq!(name.stands(Equal, b"veth0123456789a\0"), None);
        assert_eq!(Bits::name("eth0", 0, 16).stands(Equal, b"eth0\0\0\0\0\0\0\0\0\0\0\0\0"), Some(true));
    }
}
