//! What an attachment was given, and what the conf says of it.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::cni::dns::Dns;
use crate::cni::error::{CniError, Code};
use crate::cni::route::Route;
use crate::config::range::{Range, RangeSet};

/// What an attachment was given.
#[derive(Debug, Default)]
pub struct Allocation {
    /// One address for each range set.
    pub addresses: Vec<AllocatedAddress>,
    /// Routes of the conf, or of the other IPAM plugin.
    pub routes: Vec<Route>,
    /// DNS of `resolvConf`, or of the other IPAM plugin.
    pub dns: Dns,
}

impl Allocation {
    /// The gateways that the conf gives a name to: the node answers for them.
    pub fn named_gateways(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().filter_map(|it| it.named_gateway)
    }

    /// The addresses, parted by commas.
    pub fn list(&self) -> String {
        self.addresses.iter().map(|it| it.address.to_string()).collect::<Vec<_>>().join(",")
    }
}

/// An address with what its range says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllocatedAddress {
    /// The address.
    pub address: IpAddr,
    /// The subnet of its range, where it is still known.
    pub subnet: Option<IpNetwork>,
    /// The gateway of its range, by name or by default.
    pub gateway: Option<IpAddr>,
    /// The gateway, only where the conf names it.
    pub named_gateway: Option<IpAddr>,
}

impl AllocatedAddress {
    /// An address of that range.
    pub fn of(address: IpAddr, range: Option<&Range>) -> Self {
        Self {
            address,
            subnet: range.map(Range::subnet),
            gateway: range.and_then(Range::gateway),
            named_gateway: range.and_then(Range::names_gateway),
        }
    }

    /// The address with its subnet's prefix, as an IPAM plugin answers.
    pub fn with_subnet_prefix(&self) -> IpNetwork {
        let prefix = self.subnet.map(|subnet| subnet.prefix());
        prefix.and_then(|prefix| IpNetwork::new(self.address, prefix).ok()).unwrap_or(self.address.into())
    }
}

/// The range sets that this node can use: on a kernel without IPv6, those of IPv4.
///
/// # Errors
/// Code 7 where none is left.
pub fn usable_sets(sets: &[RangeSet], has_ipv6: bool) -> Result<Vec<RangeSet>, CniError> {
    let usable: Vec<RangeSet> = sets.iter().filter(|set| set.is_ipv4() || has_ipv6).cloned().collect();
    if usable.is_empty() {
        let message = "ipam.ranges: only IPv6 addresses are configured, and this node's kernel has no IPv6";
        let remedy = "remove ipv6.disable=1 from the kernel's command line, or add a range of IPv4";
        return Err(CniError::new(Code::InvalidConf, message).with_details(remedy));
    }
    Ok(usable)
}

/// What the conf says of an address that a record holds: the conf may be another since, so its ranges are searched.
pub fn locate(address: IpAddr, sets: &[RangeSet]) -> AllocatedAddress {
    let mut ranges = sets.iter().flat_map(|set| set.ranges());
    AllocatedAddress::of(address, ranges.find(|range| range.subnet().contains(address)))
}
