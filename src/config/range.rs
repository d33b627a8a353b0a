//! Ranges of addresses: which addresses a conf's `subnet`, `rangeStart`, `rangeEnd` and `gateway` let
//! ferrule hand out.
//!
//! The field names and the rules are those of host-local, so that a conf moves over as it is. Ranges are
//! intervals of numbers and are never enumerated: a /64 costs what a /30 costs.

mod hosts;
mod set;

use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

pub use hosts::why_no_host;
pub use set::{InvalidRangeSet, RangeSet, Standing};

/// An interval of addresses inside one subnet.
///
/// Its bounds already leave out what can never be a host: the network address (in IPv6 the
/// subnet-router anycast address, RFC 4291, section 2.6.1) and the IPv4 broadcast address. A /31 and a
/// /127 (RFC 3021, RFC 6164) have neither, nor have a /32 and a /128: all of their addresses are hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    subnet: IpNetwork,
    first: u128,
    last: u128,
    named_gateway: Option<IpAddr>,
}

/// Why four fields of a conf are no range, and what would be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRange {
    /// The text is no address with a prefix length.
    #[error("{text:?} is not a subnet ({reason}); write it like 10.244.1.0/24 or fd00:10:244:1::/64")]
    NotASubnet {
        /// As it was written.
        text: String,
        /// What the parser had against it.
        reason: String,
    },
    /// The address part reaches into the host part: a typing error in one of the two.
    #[error("{address}/{prefix} has host bits set; the subnet with this prefix length is {subnet}")]
    HostBits {
        address: IpAddr,
        /// The prefix length as it was written.
        prefix: u8,
        /// The subnet in which the address lies.
        subnet: IpNetwork,
    },
    /// IPv4 beside IPv6.
    #[error("{address} is not of the family of the subnet {subnet}; give each family a range set of its own")]
    OtherFamily {
        /// `rangeStart`, `rangeEnd` or `gateway`.
        field: &'static str,
        /// The address there.
        address: IpAddr,
        subnet: IpNetwork,
    },
    /// A bound that is no address of the subnet.
    #[error(
        "{address} lies outside the subnet {subnet}; choose an address inside it, or leave the field out"
    )]
    OutsideSubnet {
        field: &'static str,
        /// The address there.
        address: IpAddr,
        subnet: IpNetwork,
    },
    /// The end comes before the start.
    #[error("{end} comes before rangeStart {start}; exchange the two")]
    Inverted { start: IpAddr, end: IpAddr },
    /// No router can have this address.
    #[error("{gateway} cannot be a gateway: it is {what}; name an address that a router has")]
    NoRouter {
        /// The gateway that was named.
        gateway: IpAddr,
        /// What the address is instead.
        what: &'static str,
    },
    /// The bounds take in addresses that no host can have.
    #[error(
        "{range} has an address that no host can have ({what}); choose another subnet, or narrow the bounds"
    )]
    NoHosts { range: String, what: &'static str },
    /// The bounds leave only addresses that are never handed out.
    #[error(
        "no address of {subnet} could be handed out: network, broadcast and gateway address take all \
         that the bounds leave; widen them or choose a larger subnet"
    )]
    HandsOutNothing { subnet: IpNetwork },
}

impl InvalidRange {
    /// The conf's field that is to blame: `subnet`, `rangeStart`, `rangeEnd` or `gateway`.
    pub fn field(&self) -> &'static str {
        match self {
            Self::NotASubnet { .. }
            | Self::HostBits { .. }
            | Self::NoHosts { .. }
            | Self::HandsOutNothing { .. } => "subnet",
            Self::OtherFamily { field, .. } | Self::OutsideSubnet { field, .. } => field,
            Self::Inverted { .. } => "rangeEnd",
            Self::NoRouter { .. } => "gateway",
        }
    }
}

/// Reads a subnet as a conf writes it: address, `/`, prefix length, no host bits.
///
/// # Errors
/// Says what is wrong, and for host bits which subnet was probably meant.
pub fn parse_subnet(text: &str) -> Result<IpNetwork, InvalidRange> {
    let refuse = |reason: String| InvalidRange::NotASubnet { text: text.to_owned(), reason };
    // IpNetwork takes an address alone for a /32: too easily a slip to be let through.
    if !text.contains('/') {
        return Err(refuse("the prefix length is missing".to_owned()));
    }
    let subnet: IpNetwork =
        text.parse().map_err(|error: ipnetwork::IpNetworkError| refuse(error.to_string()))?;
    refuse_host_bits(subnet)?;
    Ok(subnet)
}

impl Range {
    /// The range that the four fields describe. Without `start` and `end` it is the whole subnet; a
    /// `gateway` may lie outside both.
    ///
    /// # Errors
    /// Says the first thing that is wrong; [`InvalidRange::field`] names where.
    pub fn new(
        subnet: IpNetwork,
        start: Option<IpAddr>,
        end: Option<IpAddr>,
        gateway: Option<IpAddr>,
    ) -> Result<Self, InvalidRange> {
        refuse_host_bits(subnet)?;
        for (field, bound) in [("rangeStart", start), ("rangeEnd", end)] {
            let Some(address) = bound else { continue };
            refuse_other_family(field, address, subnet)?;
            if !subnet.contains(address) {
                return Err(InvalidRange::OutsideSubnet { field, address, subnet });
            }
        }
        if let (Some(start), Some(end)) = (start, end)
            && end < start
        {
            return Err(InvalidRange::Inverted { start, end });
        }
        if let Some(gateway) = gateway {
            refuse_other_family("gateway", gateway, subnet)?;
            refuse_what_no_router_has(gateway, subnet)?;
        }
        let (lowest, highest) = host_bounds(subnet);
        let first = start.map_or(lowest, |start| number(start).max(lowest));
        let last = end.map_or(highest, |end| number(end).min(highest));
        let range = Self { subnet, first, last, named_gateway: gateway };
        let only_gateway = first == last && range.gateway().map(number) == Some(first);
        if first > last || only_gateway {
            return Err(InvalidRange::HandsOutNothing { subnet });
        }
        Ok(range)
    }

    /// The subnet, whose prefix length a result carries.
    pub fn subnet(&self) -> IpNetwork {
        self.subnet
    }

    /// The lowest address that the bounds allow. It may be the gateway.
    pub fn first(&self) -> IpAddr {
        address(self.first, self.subnet.is_ipv4())
    }

    /// The highest address that the bounds allow. It may be the gateway.
    pub fn last(&self) -> IpAddr {
        address(self.last, self.subnet.is_ipv4())
    }

    /// The gateway by host-local's rule: the one that the conf names, or else the subnet's first host
    /// address. `None` where the prefix leaves no room for one that nobody named (/31, /32, /127, /128).
    pub fn gateway(&self) -> Option<IpAddr> {
        let lowest = || address(host_bounds(self.subnet).0, self.subnet.is_ipv4());
        self.named_gateway.or_else(|| leaves_room(self.subnet).then(lowest))
    }

    /// The gateway, only if the conf named it.
    pub fn names_gateway(&self) -> Option<IpAddr> {
        self.named_gateway
    }

    /// Refuses bounds that take in what no host can have.
    ///
    /// # Errors
    /// [`InvalidRange::NoHosts`].
    pub fn of_hosts(self) -> Result<Self, InvalidRange> {
        match hosts::why_none_between(self.first(), self.last()) {
            Some(what) => Err(InvalidRange::NoHosts { range: self.to_string(), what }),
            None => Ok(self),
        }
    }

    /// What of the range lies outside of `networks`, in order.
    fn without(&self, networks: &[IpNetwork]) -> Vec<Self> {
        let of_family = networks.iter().filter(|network| network.is_ipv4() == self.subnet.is_ipv4());
        let mut holes: Vec<_> = of_family.map(|it| (number(it.network()), number(it.broadcast()))).collect();
        holes.sort_unstable();
        let (mut pieces, mut next) = (Vec::new(), Some(self.first));
        for (begin, end) in holes {
            let Some(first) = next else { break };
            if begin > first && first <= self.last {
                let last = self.last.min(begin.saturating_sub(1));
                pieces.push(Self { first, last, ..self.clone() });
            }
            next = end.checked_add(1).map(|after| after.max(first));
        }
        let rest = next.filter(|first| *first <= self.last);
        pieces.extend(rest.map(|first| Self { first, ..self.clone() }));
        pieces
    }

    /// The address lies within the bounds.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.subnet.is_ipv4() && (self.first..=self.last).contains(&number(address))
    }

    /// Some address lies within the bounds of both.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.subnet.is_ipv4() == other.subnet.is_ipv4()
            && self.first <= other.last
            && other.first <= self.last
    }
}

/// `10.1.2.0/24`, or `10.1.2.10-10.1.2.20 of 10.1.2.0/24` where the bounds are narrower.
impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if (self.first, self.last) != host_bounds(self.subnet) {
            write!(f, "{}-{} of ", self.first(), self.last())?;
        }
        self.subnet.fmt(f)
    }
}

fn refuse_host_bits(subnet: IpNetwork) -> Result<(), InvalidRange> {
    let (address, prefix) = (subnet.ip(), subnet.prefix());
    if address == subnet.network() {
        return Ok(());
    }
    let subnet = IpNetwork::new(subnet.network(), prefix).unwrap_or(subnet);
    Err(InvalidRange::HostBits { address, prefix, subnet })
}

fn refuse_other_family(field: &'static str, address: IpAddr, subnet: IpNetwork) -> Result<(), InvalidRange> {
    if address.is_ipv4() == subnet.is_ipv4() {
        return Ok(());
    }
    Err(InvalidRange::OtherFamily { field, address, subnet })
}

fn refuse_what_no_router_has(gateway: IpAddr, subnet: IpNetwork) -> Result<(), InvalidRange> {
    let is_end_of_ipv4 = |end: IpAddr| subnet.is_ipv4() && leaves_room(subnet) && gateway == end;
    let what = if gateway.is_unspecified() {
        "the unspecified address"
    } else if gateway.is_multicast() {
        "a multicast address"
    } else if is_end_of_ipv4(subnet.network()) {
        "the network address"
    } else if is_end_of_ipv4(subnet.broadcast()) {
        "the broadcast address"
    } else {
        return Ok(());
    };
    Err(InvalidRange::NoRouter { gateway, what })
}

/// The subnet has a network address, and room for a router beside a host.
fn leaves_room(subnet: IpNetwork) -> bool {
    subnet.prefix() < if subnet.is_ipv4() { 31 } else { 127 }
}

/// The lowest and the highest number that a host of the subnet can have.
fn host_bounds(subnet: IpNetwork) -> (u128, u128) {
    let (lowest, highest) = (number(subnet.network()), number(subnet.broadcast()));
    match (leaves_room(subnet), subnet.is_ipv4()) {
        (false, _) => (lowest, highest),
        (true, true) => (lowest + 1, highest - 1),
        (true, false) => (lowest + 1, highest),
    }
}

/// The address as a number; of use only beside numbers of the same family.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The inverse of [`number`].
fn address(number: u128, is_ipv4: bool) -> IpAddr {
    match u32::try_from(number) {
        Ok(number) if is_ipv4 => IpAddr::V4(number.into()),
        _ => IpAddr::V6(number.into()),
    }
}

#[cfg(test)]
mod tests;
