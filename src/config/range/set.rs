//! A set of ranges of one family, from which a pod gets one address.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::{Range, address, number};

/// Ranges that are tried in the order of the conf. Never empty, of one family, without overlaps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeSet {
    ranges: Vec<Range>,
    /// The gateways of all ranges: a gateway of one may lie within the bounds of another.
    gateways: BTreeSet<IpAddr>,
}

/// Why some ranges are no set, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRangeSet {
    /// There is no range in it.
    #[error("has no range; give it at least one with a subnet, or leave the set out")]
    Empty,
    /// IPv4 beside IPv6: the set would not say which of the two a pod gets.
    #[error("has IPv4 and IPv6 ranges ({first} and {second}); give each family a range set of its own")]
    MixedFamilies {
        /// The set's first range.
        first: String,
        /// A range of the other family.
        second: String,
        /// Where the second one stands in the set, from 0.
        index: usize,
    },
    /// An address would belong to two ranges.
    #[error("has ranges that overlap ({first} and {second}); narrow one of them")]
    Overlap {
        first: String,
        second: String,
        /// Where the later one stands in the set, from 0.
        index: usize,
    },
}

/// What an address is to a range set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// A pod may have it.
    HandedOut,
    /// It lies in one of the subnets, but no pod may have it.
    Reserved(&'static str),
    /// It lies outside the bounds of every range.
    Outside,
}

impl RangeSet {
    /// The set of `ranges`, in their order.
    ///
    /// # Errors
    /// Says the first thing that is wrong.
    pub fn new(ranges: Vec<Range>) -> Result<Self, InvalidRangeSet> {
        let Some(first) = ranges.first() else {
            return Err(InvalidRangeSet::Empty);
        };
        for (index, range) in ranges.iter().enumerate() {
            if range.subnet().is_ipv4() != first.subnet().is_ipv4() {
                let (first, second) = (first.to_string(), range.to_string());
                return Err(InvalidRangeSet::MixedFamilies { first, second, index });
            }
            if let Some(earlier) = ranges.iter().take(index).find(|earlier| earlier.overlaps(range)) {
                let (first, second) = (earlier.to_string(), range.to_string());
                return Err(InvalidRangeSet::Overlap { first, second, index });
            }
        }
        let gateways = ranges.iter().filter_map(Range::gateway).collect();
        Ok(Self { ranges, gateways })
    }

    /// The same set without the addresses of `networks`; `None` if that leaves nothing to hand out.
    pub fn without(&self, networks: &[IpNetwork]) -> Option<Self> {
        let ranges = self.ranges.iter().flat_map(|range| range.without(networks)).collect();
        let set = Self { ranges, gateways: self.gateways.clone() };
        (set.capacity() > 0).then_some(set)
    }

    /// The ranges, in the order of the conf.
    pub fn ranges(&self) -> &[Range] {
        &self.ranges
    }

    /// The set hands out IPv4 addresses, not IPv6 ones.
    pub fn is_ipv4(&self) -> bool {
        self.ranges.first().is_some_and(|range| range.subnet().is_ipv4())
    }

    /// The range within whose bounds the address lies: its prefix length and gateway go with it.
    pub fn range_of(&self, address: IpAddr) -> Option<&Range> {
        self.ranges.iter().find(|range| range.contains(address))
    }

    /// Some address lies within the bounds of both. Two sets that overlap would share their addresses
    /// unevenly; a conf with such sets is better refused.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.ranges.iter().any(|range| other.ranges.iter().any(|foreign| range.overlaps(foreign)))
    }

    /// A pod may get the address.
    pub fn hands_out(&self, address: IpAddr) -> bool {
        self.range_of(address).is_some() && !self.gateways.contains(&address)
    }

    /// Says whether a pod may get the address, and if not, why.
    pub fn standing(&self, address: IpAddr) -> Standing {
        if self.hands_out(address) {
            return Standing::HandedOut;
        }
        if self.gateways.contains(&address) {
            return Standing::Reserved("a gateway");
        }
        let Some(range) = self.ranges.iter().find(|range| range.subnet().contains(address)) else {
            return Standing::Outside;
        };
        let subnet = range.subnet();
        if address == subnet.network() && subnet.is_ipv4() {
            Standing::Reserved("the network address")
        } else if address == subnet.network() {
            Standing::Reserved("the subnet-router anycast address")
        } else if address == subnet.broadcast() && subnet.is_ipv4() {
            Standing::Reserved("the broadcast address")
        } else {
            Standing::Outside
        }
    }

    /// How many addresses the set can hand out, at most `u128::MAX`.
    pub fn capacity(&self) -> u128 {
        let within_bounds = self
            .ranges
            .iter()
            .map(|range| (range.last - range.first).saturating_add(1))
            .fold(0, u128::saturating_add);
        let gateways = self.gateways.iter().filter(|gateway| self.range_of(**gateway).is_some()).count();
        within_bounds - gateways as u128
    }

    /// Every address that the set hands out, each once, beginning after `last` and going round over the
    /// ranges in their order, `last` itself at the end. If `last` lies in no range, the beginning is what comes behind it
    /// in its subnet; where that is nothing, or without `last`, the first range's first address. Lazy: what is not taken
    /// costs nothing.
    pub fn addresses_after(&self, last: Option<IpAddr>) -> impl Iterator<Item = IpAddr> + '_ {
        let is_ipv4 = self.is_ipv4();
        let begin = last.and_then(|last| {
            if let Some(at) = self.ranges.iter().position(|range| range.contains(last)) {
                return Some((at, Some(number(last))));
            }
            let is_behind = |range: &Range| range.subnet.contains(last) && range.first > number(last);
            self.ranges.iter().position(is_behind).map(|at| (at, None))
        });
        let (at, last) = begin.unwrap_or((0, None));
        let (before, from) = self.ranges.split_at(at.min(self.ranges.len()));
        // The range of `last` comes twice: what follows `last` at the beginning, the rest at the end.
        let head = from.first().and_then(|range| {
            let begin = last.map_or(Some(range.first), |last| last.checked_add(1))?;
            Some(begin..=range.last)
        });
        let middle = from.iter().skip(1).chain(before).map(|range| range.first..=range.last);
        let tail = from.first().zip(last).map(|(range, last)| range.first..=last);
        head.into_iter()
            .chain(middle)
            .chain(tail)
            .flatten()
            .map(move |number| address(number, is_ipv4))
            .filter(|address| !self.gateways.contains(address))
    }
}

/// The ranges, joined by commas.
impl fmt::Display for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, range) in self.ranges.iter().enumerate() {
            f.write_str(if at == 0 { "" } else { ", " })?;
            range.fmt(f)?;
        }
        Ok(())
    }
}
