//! Which parts of the node to compare after an event of the kernel.

use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::cni::ids::NetworkName;
use crate::desired::names;
use crate::linux::monitor::{Event, NetconfOf};

/// `NFPROTO_*` (include/uapi/linux/netfilter.h).
const FAMILY_INET: u8 = 1;
const FAMILY_IPV4: u8 = 2;
const FAMILY_IPV6: u8 = 10;

/// Parts of the node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Parts {
    /// Forwarding and catch-all routes.
    pub node: bool,
    /// Routes to peers.
    pub routes: bool,
    /// The node's side of its own pods.
    pub pods: bool,
    /// The nftables table.
    pub table: bool,
    /// Other people's firewalls.
    pub forward: bool,
    /// The conflist and the plugin.
    pub files: bool,
}

impl Parts {
    /// All of them.
    pub const ALL: Self =
        Self { node: true, routes: true, pods: true, table: true, forward: true, files: true };

    /// All that are in the kernel.
    const KERNEL: Self = Self { files: false, ..Self::ALL };

    /// Whether it is none of them.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// Those of both.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            node: self.node || other.node,
            routes: self.routes || other.routes,
            pods: self.pods || other.pods,
            table: self.table || other.table,
            forward: self.forward || other.forward,
            files: self.files || other.files,
        }
    }
}

/// As `routes,table`.
impl fmt::Display for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            ("node", self.node),
            ("routes", self.routes),
            ("pods", self.pods),
            ("table", self.table),
            ("forward", self.forward),
            ("files", self.files),
        ];
        let named: Vec<&str> = names.iter().filter(|(_, is_in)| *is_in).map(|(name, _)| *name).collect();
        f.write_str(&named.join(","))
    }
}

/// By what the agent's own changes are told from others'.
#[derive(Debug, Clone)]
pub struct Ownership {
    /// The network.
    pub network: NetworkName,
    /// Ports of the agent's own sockets: its own changes are no drift.
    pub ports: Vec<u32>,
    /// Index of the overlay's device, where there is one.
    pub overlay: Option<u32>,
    /// Subnets of this node's pods.
    pub pod_cidrs: Vec<IpNetwork>,
}

/// The parts to compare after an event. Events of pods that come and go cost nothing, or little.
pub fn concerned(event: &Event, own: &Ownership) -> Parts {
    let none = Parts::default();
    let network = &own.network;
    match event {
        Event::Route { port, .. } | Event::Nftables { port, .. } if own.ports.contains(port) => none,
        Event::Route { removed, protocol, metric, .. } => {
            let is_ours = *protocol == names::ROUTE_PROTOCOL;
            let is_to_peer = *metric == Some(names::route_metric(network));
            match (removed, is_ours) {
                (true, true) if is_to_peer => Parts { routes: true, ..none },
                (true, true) if *metric == Some(u32::MAX) => Parts { node: true, ..none },
                // A pod's, or the gateway's.
                (true, true) => Parts { node: true, pods: true, ..none },
                // It replaced ferrule's.
                (false, false) if is_to_peer => Parts { routes: true, ..none },
                _ => none,
            }
        }
        Event::Link { name, .. } if names::is_node_link(name) => Parts { pods: true, ..none },
        Event::Neighbour { index, .. } if Some(*index) == own.overlay => Parts { routes: true, ..none },
        Event::Neighbour { removed: true, address: Some(address), .. }
            if own.pod_cidrs.iter().any(|cidr| cidr.contains(*address)) =>
        {
            Parts { pods: true, ..none }
        }
        Event::Rule { removed: true, protocol, priority, .. } if *protocol == names::ROUTE_PROTOCOL => {
            let is_of_pods = *priority == names::POD_RULE_PRIORITY;
            Parts { node: is_of_pods, routes: !is_of_pods, ..none }
        }
        // The kernel's own, which ferrule does not use.
        Event::Address { address: IpAddr::V6(address), .. } if address.is_unicast_link_local() => none,
        // With a link, or with an address that is a source, the kernel deletes IPv4 routes without an event.
        Event::Link { .. } => Parts { node: true, routes: true, pods: true, ..none },
        // And hostPorts answer on the node's addresses.
        Event::Address { .. } => Parts { node: true, routes: true, pods: true, table: true, ..none },
        Event::Netconf { of: NetconfOf::All, forwarding: Some(false), .. } => Parts { node: true, ..none },
        // An ADD adds elements, and nothing else to a table that is there.
        Event::Nftables { family: FAMILY_INET, table: Some(table), set, removed, .. }
            if table == "ferrule" && (*removed || !set.as_ref().is_some_and(|it| it.is_element)) =>
        {
            Parts { table: true, ..none }
        }
        // docker, when it starts, makes FORWARD drop and puts its own chains first.
        Event::Nftables {
            family: FAMILY_IPV4 | FAMILY_IPV6, table: Some(table), chain: Some(chain), ..
        } if table == "filter" && ["FORWARD", "DOCKER-USER"].contains(&chain.as_str()) => {
            Parts { forward: true, ..none }
        }
        Event::Missed => Parts::KERNEL,
        _ => none,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::monitor::SetEvent;

    fn own() -> Ownership {
        Ownership {
            network: NetworkName::parse("podnet").unwrap(),
            ports: vec![7],
            overlay: Some(9),
            pod_cidrs: vec!["10.244.1.0/24".parse().unwrap()],
        }
    }

    fn route(removed: bool, protocol: u8, metric: Option<u32>) -> Event {
        let destination = "10.244.2.0/24".parse().unwrap();
        Event::Route { removed, protocol, table: 254, destination, metric, port: 0 }
    }

    #[test]
    fn only_what_is_ours_makes_work() {
        let ours = Some(names::route_metric(&own().network));
        let parts = |event: &Event| concerned(event, &own());
        let none = Parts::default();
        assert_eq!(parts(&route(true, 102, ours)), Parts { routes: true, ..none });
        assert_eq!(parts(&route(false, 102, ours)), none, "we set it");
        assert_eq!(parts(&route(true, 4, None)), none);
        assert_eq!(parts(&route(false, 4, ours)), Parts { routes: true, ..none }, "it took our place");
        assert_eq!(parts(&route(true, 102, Some(u32::MAX))), Parts { node: true, ..none });
        let table = |table: &str, removed| Event::Nftables {
            family: 1,
            table: Some(table.to_owned()),
            chain: None,
            set: None,
            removed,
            port: 0,
        };
        assert_eq!(parts(&table("ferrule", true)), Parts { table: true, ..none });
        assert_eq!(
            parts(&table("ferrule", false)),
            Parts { table: true, ..none },
            "a rule, or flags of the table"
        );
        let element = |removed| Event::Nftables {
            family: 1,
            table: Some("ferrule".to_owned()),
            chain: None,
            set: Some(SetEvent { name: "sources4".to_owned(), is_element: true }),
            removed,
            port: 0,
        };
        assert_eq!(parts(&element(false)), none, "a pod that comes");
        assert_eq!(parts(&element(true)), Parts { table: true, ..none });
        let by_us = Event::Nftables {
            family: 1,
            table: Some("ferrule".to_owned()),
            chain: None,
            set: None,
            removed: true,
            port: 7,
        };
        assert_eq!(parts(&by_us), none);
        let iptables = |table: &str, chain: &str| Event::Nftables {
            family: 2,
            table: Some(table.to_owned()),
            chain: Some(chain.to_owned()),
            set: None,
            removed: false,
            port: 0,
        };
        assert_eq!(parts(&iptables("filter", "FORWARD")), Parts { forward: true, ..none });
        assert_eq!(parts(&iptables("filter", "DOCKER-USER")), Parts { forward: true, ..none });
        assert_eq!(parts(&iptables("filter", "KUBE-FORWARD")), none, "kube-proxy writes there all the time");
        assert_eq!(parts(&iptables("nat", "FORWARD")), none);
        let neighbour = |index| Event::Neighbour { removed: true, index, address: None };
        assert_eq!(parts(&neighbour(9)), Parts { routes: true, ..none });
        assert_eq!(parts(&neighbour(8)), none);
        let of = |address: &str| Event::Neighbour {
            removed: true,
            index: 8,
            address: Some(address.parse().unwrap()),
        };
        assert_eq!(parts(&of("10.244.1.7")), Parts { pods: true, ..none });
        assert_eq!(parts(&of("192.0.2.7")), none);
        assert_eq!(parts(&table("kube-proxy", true)), none);
        let rule = |priority, protocol| Event::Rule { removed: true, ipv4: true, protocol, priority };
        assert_eq!(parts(&rule(names::POD_RULE_PRIORITY, 102)), Parts { node: true, ..none });
        assert_eq!(parts(&rule(names::RULE_PRIORITY, 102)), Parts { routes: true, ..none });
        assert_eq!(parts(&rule(names::POD_RULE_PRIORITY, 3)), none);
        let forwarding = |value| Event::Netconf {
            ipv4: true,
            of: NetconfOf::All,
            forwarding: Some(value),
            rp_filter: None,
        };
        assert_eq!(parts(&forwarding(false)), Parts { node: true, ..none });
        assert_eq!(parts(&forwarding(true)), none);
        assert_eq!(parts(&Event::Missed), Parts::KERNEL);
    }
}
