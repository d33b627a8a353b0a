//! Whether the kernel does with packets to other nodes' pods what ferrule's routes say. A route of somebody else with a
//! lower metric or a longer prefix, or one in a table that a rule asks first, wins in silence.
//!
//! One look-up for each route: for the address that the first pod of a range has as a rule.

use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::cni::ids::NetworkName;
use crate::datapath::error::DatapathError;
use crate::datapath::peers::own_routes;
use crate::desired::names::{ROUTE_PROTOCOL, route_metric};
use crate::linux::netlink::Netlink;
use crate::linux::route::Route;

/// A route of ferrule's that packets do not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overruled {
    /// Where the route leads.
    pub destination: IpNetwork,
    /// The address that was looked up.
    pub address: IpAddr,
    /// The route that packets take; `None` if they are turned away.
    pub by: Option<Route>,
}

impl Overruled {
    /// What to do about it.
    pub fn remedy(&self) -> String {
        match &self.by {
            Some(route) => format!("find out what made it; if nothing needs it any more: {}", delete(route)),
            None => format!(
                "ip route show to match {0} type blackhole (or prohibit, unreachable, throw) and ip rule show what turns \
                 packets to {0} away; remove that",
                self.address
            ),
        }
    }
}

/// `route 10.244.2.0/24 via 192.0.2.9 dev 3 proto 3 wins over ferrule's to 10.244.2.0/24`.
impl fmt::Display for Overruled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.by {
            Some(route) => write!(f, "route {route}")?,
            None => write!(f, "a route or rule that turns packets away")?,
        }
        write!(f, " wins over ferrule's to {}", self.destination)
    }
}

/// The command that removes a route of somebody else, and cannot remove ferrule's to the same destination.
pub fn delete(route: &Route) -> String {
    let family = if route.destination.is_ipv6() { "-6 " } else { "" };
    let mut command = format!("ip {family}route delete {} proto {}", route.destination, route.protocol);
    for (name, number) in [("metric", route.metric), ("table", route.table)] {
        if let Some(number) = number {
            command.push_str(&format!(" {name} {number}"));
        }
    }
    command
}

/// Looks up at most `count` of the network's routes to other nodes, from the place `from` on. Returns those that are
/// overruled, and how many routes there are.
///
/// # Errors
/// Where the kernel cannot be asked.
pub async fn find(
    node: &Netlink,
    network: &NetworkName,
    from: usize,
    count: usize,
) -> Result<(Vec<Overruled>, usize), DatapathError> {
    let routes = own_routes(node, network).await?;
    let mut overruled = Vec::new();
    for route in routes.iter().skip(from).take(count) {
        let address = pods_address(route.destination);
        let by = node.route_taken(address).await?;
        let is_ours = |by: &Route| {
            (by.protocol, by.metric, by.destination)
                == (ROUTE_PROTOCOL, Some(route_metric(network)), route.destination)
        };
        if !by.as_ref().is_some_and(is_ours) {
            overruled.push(Overruled { destination: route.destination, address, by });
        }
    }
    Ok((overruled, routes.len()))
}

/// The second host address, which is the first that pods get, or the last of a smaller range.
fn pods_address(range: IpNetwork) -> IpAddr {
    match (range.network(), range.broadcast()) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            let second = first.to_bits().saturating_add(2).min(last.to_bits());
            std::net::Ipv4Addr::from_bits(second).into()
        }
        (IpAddr::V6(first), IpAddr::V6(last)) => {
            let second = first.to_bits().saturating_add(2).min(last.to_bits());
            std::net::Ipv6Addr::from_bits(second).into()
        }
        (first, _) => first,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_names_the_route_that_is_to_go() {
        let route = Route { metric: Some(20), ..Route::to("10.244.2.0/24".parse().unwrap(), 4) };
        assert_eq!(delete(&route), "ip route delete 10.244.2.0/24 proto 4 metric 20");
        let route = Route { table: Some(200), ..Route::to("fd00:2::/64".parse().unwrap(), 3) };
        assert_eq!(delete(&route), "ip -6 route delete fd00:2::/64 proto 3 table 200");
    }

    #[test]
    fn an_address_of_the_range_is_looked_up() {
        for (range, address) in [
            ("10.244.2.0/24", "10.244.2.2"),
            ("10.0.0.4/32", "10.0.0.4"),
            ("10.0.0.4/31", "10.0.0.5"),
            ("fd00:2::/64", "fd00:2::2"),
        ] {
            assert_eq!(pods_address(range.parse().unwrap()), address.parse::<IpAddr>().unwrap());
        }
    }
}
