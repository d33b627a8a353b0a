//! What no node's pods may have as long as this node needs it: its own networks and addresses, its way out, the API
//! server, the Services. Read from the kernel and the API server elsewhere; plain data here.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

use crate::agent::cluster::overlaps::{Overlaps, cut};

/// Whose a network or an address is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Holder {
    /// The API server's.
    ApiServer,
    /// This node's way out.
    Gateway,
    /// The cluster's Services.
    Services,
    /// A link's own network.
    Link(String),
    /// An address of this node, on that link.
    Address(String),
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ApiServer => f.write_str("the API server's address"),
            Self::Gateway => f.write_str("a gateway of this node"),
            Self::Services => f.write_str("the cluster's Service range"),
            Self::Link(name) => write!(f, "the network of this node's link {name}"),
            Self::Address(name) => write!(f, "this node's address on {name}"),
        }
    }
}

/// Networks and addresses, each with its holder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reserved(Overlaps<Holder>);

impl Reserved {
    /// Adds one. Where two hold the same, the first of [`Holder`]'s order names it.
    pub fn add(&mut self, network: IpNetwork, holder: Holder) {
        let Some(network) = cut(network, network.prefix()).filter(|it| it.prefix() > 0) else { return };
        let known = self.0.map_mut().entry(network).or_insert_with(|| holder.clone());
        if holder < *known {
            *known = holder;
        }
    }

    /// What of it a podCIDR of another node overlaps.
    pub fn refusal(&self, cidr: IpNetwork) -> Option<(IpNetwork, &Holder)> {
        self.0.of(cidr).min_by_key(|(_, holder)| *holder)
    }

    /// The same for a podCIDR of this node, which may well have an address or a bridge in it (of the plugin that was
    /// here before, for example): only the networks of the node's own addresses count.
    pub fn refusal_of_own(&self, cidr: IpNetwork, node_ips: &[IpAddr]) -> Option<(IpNetwork, &Holder)> {
        let counts = |network: IpNetwork, holder: &Holder| match holder {
            Holder::Address(_) => node_ips.iter().any(|address| network.ip() == *address),
            Holder::Link(_) => node_ips.iter().any(|address| network.contains(*address)),
            _ => true,
        };
        self.0.of(cidr).filter(|(network, holder)| counts(*network, holder)).min_by_key(|(_, holder)| *holder)
    }
}

/// Why no pod anywhere can have addresses of this network, in words.
///
/// # Errors
/// The reason.
pub fn check_pod_cidr(cidr: IpNetwork) -> Result<(), String> {
    let (widest, special): (u8, Vec<IpNetwork>) = match cidr {
        IpNetwork::V4(_) => {
            let of = |a, b, c, d, prefix| IpNetwork::new(Ipv4Addr::new(a, b, c, d).into(), prefix);
            let all = [of(0, 0, 0, 0, 8), of(127, 0, 0, 0, 8), of(169, 254, 0, 0, 16), of(224, 0, 0, 0, 3)];
            (8, all.into_iter().flatten().collect())
        }
        IpNetwork::V6(_) => {
            let of = |high: u16, low: u16, prefix| {
                IpNetwork::new(Ipv6Addr::new(high, 0, 0, 0, 0, low, 0, 0).into(), prefix)
            };
            let all = [of(0, 0, 96), of(0, 0xffff, 96), of(0xfe80, 0, 10), of(0xff00, 0, 8)];
            (16, all.into_iter().flatten().collect())
        }
    };
    if cidr.prefix() < widest {
        return Err(format!("is too wide for the pods of a node; /{widest} is the widest"));
    }
    let overlaps = |it: &&IpNetwork| it.contains(cidr.network()) || cidr.contains(it.network());
    match special.iter().find(overlaps) {
        Some(special) => Err(format!("overlaps {special}, in which no pod can have an address")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reserved() -> Reserved {
        let mut reserved = Reserved::default();
        for (network, holder) in [
            ("172.18.0.2/16", Holder::Link("eth0".into())),
            ("172.18.0.2/32", Holder::Address("eth0".into())),
            ("10.244.1.1/24", Holder::Link("cni0".into())),
            ("10.244.1.1/32", Holder::Address("cni0".into())),
            ("192.0.2.1/32", Holder::Gateway),
            ("10.96.0.0/16", Holder::Services),
            ("10.96.0.1/32", Holder::ApiServer),
        ] {
            reserved.add(network.parse().unwrap(), holder);
        }
        reserved
    }

    #[test]
    fn what_the_node_needs_is_refused_wider_equal_or_within() {
        let reserved = reserved();
        for (cidr, told) in [
            ("172.18.0.0/24", "172.18.0.0/16: the network of this node's link eth0"),
            ("172.16.0.0/12", "172.18.0.0/16: the network of this node's link eth0"),
            ("192.0.2.0/24", "192.0.2.1/32: a gateway of this node"),
            ("10.96.0.0/24", "10.96.0.1/32: the API server's address"),
            ("10.96.7.0/24", "10.96.0.0/16: the cluster's Service range"),
        ] {
            let (network, holder) = reserved.refusal(cidr.parse().unwrap()).unwrap();
            assert_eq!(format!("{network}: {holder}"), told);
        }
        assert_eq!(reserved.refusal("10.244.2.0/24".parse().unwrap()), None);
        assert_eq!(reserved.refusal("fd00::/64".parse().unwrap()), None);
    }

    #[test]
    fn an_old_bridge_does_not_take_this_nodes_range() {
        let (reserved, node_ips) = (reserved(), ["172.18.0.2".parse().unwrap()]);
        assert_eq!(reserved.refusal_of_own("10.244.1.0/24".parse().unwrap(), &node_ips), None);
        for cidr in ["172.18.0.0/24", "172.0.0.0/8", "10.96.0.0/24", "192.0.2.0/24"] {
            assert!(reserved.refusal_of_own(cidr.parse().unwrap(), &node_ips).is_some(), "{cidr}");
        }
    }

    #[test]
    fn no_pod_has_an_address_that_is_no_hosts() {
        for bad in [
            "0.0.0.0/0",
            "0.0.0.0/1",
            "128.0.0.0/2",
            "10.0.0.0/7",
            "127.1.0.0/16",
            "169.254.0.0/16",
            "169.254.7.0/24",
            "224.0.0.0/4",
            "239.1.0.0/16",
            "240.0.0.0/8",
            "0.1.0.0/16",
            "::/0",
            "8000::/1",
            "::1/128",
            "::/64",
            "::ffff:10.0.0.0/104",
            "fe80::/64",
            "fe00::/8",
            "fe00::/16",
            "ff02::/64",
        ] {
            let is_refused = check_pod_cidr(bad.parse().unwrap()).is_err();
            assert_eq!(is_refused, bad != "fe00::/16", "{bad}");
        }
        for good in
            ["10.0.0.0/8", "100.64.0.0/10", "172.18.0.0/24", "198.18.0.0/15", "2001:db8::/32", "fd00::/48"]
        {
            assert_eq!(check_pod_cidr(good.parse().unwrap()), Ok(()), "{good}");
        }
    }
}
