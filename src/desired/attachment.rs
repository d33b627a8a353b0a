//! One pod's network, described once.
//!
//! ```text
//!          pod's namespace                           node's namespace
//!   +-----------------------------+       +--------------------------------------+
//!   | eth0  10.244.1.7/32         |       | veth1a2b3c4d5e6     (no address)     |
//!   |       default via 169.254.1.1 ======= 10.244.1.7 dev veth..  src <node>    |  -> uplink
//!   | 169.254.1.1 is at <host mac> |       | 10.244.1.7 is at <pod mac>           |
//!   +-----------------------------+       +--------------------------------------+
//! ```
//!
//! Routed, without a bridge: the pod's only neighbour is its node. Both neighbour entries are permanent,
//! so nobody asks by ARP or neighbour discovery, the first packet has nothing to wait for, and a reused
//! address cannot meet a stale entry (kind#3880, plugins#858).

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

use crate::cni::ids::AttachmentKey;
use crate::cni::route;
use crate::config::MTU_MIN_IPV6;
use crate::config::bandwidth::Bandwidth;
use crate::config::host_port::HostPort;
use crate::config::sysctl::Setting;
use crate::desired::names;
use crate::desired::object::{Address, Link, Neighbour, Object, Pair, Place, Route, Sysctl, route_to};
use crate::desired::shaping;
use crate::linux::link::LinkEnd;
use crate::linux::route::RouteKind;
use crate::mac::MacAddr;

/// Next hop of a pod for IPv4. Link-local (RFC 3927): it is no address of the cluster, every pod may
/// have the same, and nothing ever asks for it, because its neighbour entry is permanent.
pub const GATEWAY_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1));

/// Next hop of a pod for IPv6.
pub const GATEWAY_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));

/// `RT_TABLE_LOCAL`: which addresses are the namespace's own (include/uapi/linux/rtnetlink.h).
pub const LOCAL_TABLE: u32 = 255;

/// All that tells one pod's network from another's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Whose.
    pub key: AttachmentKey,
    /// `namespace/name` of the pod and its uid, where the runtime told them: for people, and for who loses the record.
    pub pod: Option<String>,
    /// Hardware address of the pod's end.
    pub pod_mac: MacAddr,
    /// Of both ends, in bytes.
    pub mtu: u32,
    /// Whether the node's kernel has IPv6 at all.
    pub node_has_ipv6: bool,
    /// How much the pod may send and receive.
    pub bandwidth: Bandwidth,
    /// Ports of the node that lead to the pod.
    pub host_ports: Vec<HostPort>,
    /// What was asked for below /proc/sys/net of the pod's namespace, in the order in which it is written.
    pub sysctls: Vec<Setting>,
    /// The pod's addresses, in the order of the range sets.
    pub addresses: Vec<PodAddress>,
    /// The pod's routes, as conf or delegate ask for them. One without a next hop goes through the gateway.
    pub routes: Vec<route::Route>,
}

/// An address of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodAddress {
    /// The address; it stands alone on its link (/32, /128).
    pub address: IpAddr,
    /// The subnet that it was taken from: reached through the gateway even where the conf has no route.
    pub subnet: Option<IpNetwork>,
    /// Next hop that the conf names instead of the link-local one.
    pub named_gateway: Option<IpAddr>,
    /// The node's address of the same family: what the node's own packets to the pod come from.
    /// Else a node with several may probe its pods from the wrong one (calico#10750, kube-router#549).
    pub node_address: Option<IpAddr>,
}

impl PodAddress {
    /// The pod's next hop in this address' family.
    pub fn gateway(&self) -> IpAddr {
        self.named_gateway.unwrap_or(match self.address {
            IpAddr::V4(_) => GATEWAY_V4,
            IpAddr::V6(_) => GATEWAY_V6,
        })
    }

    /// The address as it stands on the link: alone.
    pub fn host_prefix(&self) -> IpNetwork {
        IpNetwork::from(self.address)
    }
}

impl Attachment {
    /// Name of the node's end.
    pub fn host_link(&self) -> String {
        names::host_link(&self.key)
    }

    /// Hardware address of the node's end.
    pub fn host_mac(&self) -> MacAddr {
        names::host_mac(&self.key)
    }

    /// Everything that must exist, in the order in which it can be made.
    pub fn objects(&self) -> Vec<Object> {
        let mut objects = vec![Object::Pair(Pair {
            host: LinkEnd { name: self.host_link(), mac: self.host_mac() },
            pod: LinkEnd { name: self.pod_link(), mac: self.pod_mac },
            mtu: self.mtu,
            group: names::link_group(&self.key.network),
        })];
        let shaped = shaping::Links {
            host: self.host_link(),
            ifb: names::ifb_link(&self.key),
            mtu: self.mtu,
            group: names::link_group(&self.key.network),
        };
        objects.extend(shaping::ifb(&self.bandwidth, &shaped).map(Object::Ifb));
        self.push_sysctls(&mut objects);
        self.push_asked_sysctls(&mut objects);
        self.push_links(&mut objects);
        shaping::push_limits(&self.bandwidth, &shaped, &mut objects);
        for address in &self.addresses {
            self.push_address(address, &mut objects);
        }
        self.push_pod_routes(&mut objects);
        objects
    }

    /// What must be set before the links go up.
    fn push_sysctls(&self, objects: &mut Vec<Object>) {
        let mut push = |place, path: &[&str], value| {
            let path = path.iter().map(|&part| part.to_owned()).collect();
            objects.push(Object::Sysctl(Sysctl { place, path, value: Cow::Borrowed(value) }));
        };
        let (host, pod) = (self.host_link(), self.pod_link());
        // Strict: what comes from the pod must have an address whose route leads back to the pod.
        push(Place::Node, &["net", "ipv4", "conf", &host, "rp_filter"], "1");
        let has_ipv4 = self.addresses.iter().any(|address| address.address.is_ipv4());
        if has_ipv4 {
            // A new link has what `conf.default` says, which may be 0 though the node forwards.
            push(Place::Node, &["net", "ipv4", "conf", &host, "forwarding"], "1");
        }
        if has_ipv4 && !self.host_ports.is_empty() {
            // So that 127.0.0.1 reaches its hostPorts: a packet from there may leave by this link, and by this link
            // only. The table drops what comes back by it to 127/8 (`desired::nft`).
            push(Place::Node, &["net", "ipv4", "conf", &host, "route_localnet"], "1");
        }
        // The kernel gives a link no IPv6 part if it has no IPv6 at all, or if the link is too small for it.
        if !self.has_ipv6() && (!self.node_has_ipv6 || self.mtu < MTU_MIN_IPV6) {
            return;
        }
        if self.has_ipv6() {
            push(Place::Node, &["net", "ipv6", "conf", &host, "disable_ipv6"], "0");
        }
        // The pod must not teach its node anything: no router advertisements, no redirects. (Who forwards IPv6 does
        // not listen to redirects anyhow: rt6_do_redirect, net/ipv6/route.c.)
        // No link-local address made up by the kernel (addr_gen_mode 1): it would start by asking
        // whether somebody else has it, and nobody needs it. The same where the network has no IPv6:
        // `disable_ipv6` would say more, but a write of 1 spins while another process has the RTNL lock, and
        // a burst of pods then starves the very process that has it.
        for (name, value) in [("accept_ra", "0"), ("addr_gen_mode", "1")] {
            push(Place::Node, &["net", "ipv6", "conf", &host, name], value);
        }
        if self.bandwidth.egress.is_some() {
            let ifb = names::ifb_link(&self.key);
            push(Place::Node, &["net", "ipv6", "conf", &ifb, "addr_gen_mode"], "1");
        }
        if !self.has_ipv6() {
            push(Place::Node, &["net", "ipv6", "conf", &host, "accept_redirects"], "0");
            return;
        }
        // Some runtimes hand over a namespace with IPv6 switched off; `all` reaches every link in it.
        push(Place::Sandbox, &["net", "ipv6", "conf", "all", "disable_ipv6"], "0");
        for (name, value) in [("disable_ipv6", "0"), ("accept_ra", "0"), ("addr_gen_mode", "1")] {
            push(Place::Sandbox, &["net", "ipv6", "conf", &pod, name], value);
        }
    }

    /// Behind ours, which some of them change: `net.ipv6.conf.all.forwarding` reaches every link.
    fn push_asked_sysctls(&self, objects: &mut Vec<Object>) {
        objects.extend(self.sysctls.iter().map(|it| {
            let value = Cow::Owned(it.value.clone());
            Object::Sysctl(Sysctl { place: Place::Sandbox, path: it.path.clone(), value })
        }));
    }

    fn push_links(&self, objects: &mut Vec<Object>) {
        let alias = names::alias(&self.key, self.pod.as_deref());
        let mut push = |name| {
            objects.push(Object::Link(Link { place: Place::Node, name, alias: Some(alias.clone()) }));
        };
        if self.bandwidth.egress.is_some() {
            push(names::ifb_link(&self.key));
        }
        // Last of the node's: its alias says that the whole attachment is there.
        push(self.host_link());
        for name in ["lo".to_owned(), self.pod_link()] {
            objects.push(Object::Link(Link { place: Place::Sandbox, name, alias: None }));
        }
        if self.has_ipv6() {
            // IPv6 wants every interface to have one (RFC 4291, section 2.1). Ours is known to be free.
            let address = IpNetwork::new(IpAddr::V6(self.pod_mac.link_local()), 64)
                .unwrap_or(IpNetwork::from(GATEWAY_V6));
            objects.push(Object::Address(Place::Sandbox, Address::at_once(self.pod_link(), address)));
        }
    }

    fn push_address(&self, address: &PodAddress, objects: &mut Vec<Object>) {
        let own = address.host_prefix();
        objects.push(Object::Address(Place::Sandbox, Address::at_once(self.pod_link(), own)));
        if own.is_ipv6() {
            // The kernel makes this route by itself, but on a work queue, after the request for the address was
            // answered (addrconf_dad_work, net/ipv6/addrconf.c; without DAD as well). On a busy node a pod's first
            // packets came before that and were dropped. The kernel's has a better metric, and goes on from there.
            let route = Route {
                kind: RouteKind::Local,
                device: Some(self.pod_link()),
                table: Some(LOCAL_TABLE),
                ..route_to(own)
            };
            objects.push(Object::Route(Place::Sandbox, route));
        }
        objects.push(Object::Neighbour(Neighbour {
            place: Place::Node,
            link: self.host_link(),
            address: address.address,
            mac: self.pod_mac,
        }));
        let route = Route {
            device: Some(self.host_link()),
            // A node without any other address still has the gateway's, where that has a name.
            source: address.node_address.or(address.named_gateway),
            ..route_to(address.host_prefix())
        };
        objects.push(Object::Route(Place::Node, route));
    }

    /// The conf's routes, then each subnet that none of them covers; and who their next hops are.
    fn push_pod_routes(&self, objects: &mut Vec<Object>) {
        let mut hops: Vec<IpAddr> = Vec::new();
        let mut routes: Vec<Route> = Vec::new();
        for route in &self.routes {
            let gateway = self.gateway_for(route.dst);
            let Some(hop) = route.gw.or(gateway) else { continue };
            hops.push(hop);
            routes.push(Route {
                metric: route.priority,
                table: route.table,
                mtu: route.mtu,
                advmss: route.advmss,
                ..self.route_via(hop, route.dst)
            });
        }
        for address in &self.addresses {
            hops.push(address.gateway());
            let Some(subnet) = address.subnet else { continue };
            let covered = |route: &Route| route.table.is_none() && covers(route.destination, subnet);
            if !routes.iter().any(covered) {
                routes.push(self.route_via(address.gateway(), subnet));
            }
        }
        hops.sort();
        hops.dedup();
        objects.extend(hops.iter().map(|&address| {
            let (place, link) = (Place::Sandbox, self.pod_link());
            Object::Neighbour(Neighbour { place, link, address, mac: self.host_mac() })
        }));
        let on_link = hops.into_iter().filter(|&hop| !is_link_local_v6(hop));
        let on_link: Vec<Route> = on_link.map(|hop| self.route_to_hop(hop)).collect();
        // A conf may have a route to its gateway, which leads there already.
        let leads_to_hop = |route: &Route| {
            route.table.is_none() && on_link.iter().any(|it| it.destination == route.destination)
        };
        routes.retain(|route| !leads_to_hop(route));
        objects.extend(on_link.into_iter().chain(routes).map(|route| Object::Route(Place::Sandbox, route)));
    }

    /// Who else adds a route through a next hop of ours (a VPN client, sbr) does not say `onlink`, and is refused unless a
    /// route says that the hop is on the link. Link-local ones of IPv6 have that of their prefix already.
    fn route_to_hop(&self, hop: IpAddr) -> Route {
        Route { device: Some(self.pod_link()), ..route_to(IpNetwork::from(hop)) }
    }

    /// A route of the pod through a next hop that no route needs to lead to.
    fn route_via(&self, hop: IpAddr, destination: IpNetwork) -> Route {
        Route { device: Some(self.pod_link()), gateway: Some(hop), onlink: true, ..route_to(destination) }
    }

    /// The gateway of the first address in the destination's family; none where the pod has no such
    /// address, and then the route could not be used.
    fn gateway_for(&self, destination: IpNetwork) -> Option<IpAddr> {
        let same_family = |address: &&PodAddress| address.address.is_ipv4() == destination.is_ipv4();
        self.addresses.iter().find(same_family).map(PodAddress::gateway)
    }

    fn has_ipv6(&self) -> bool {
        self.addresses.iter().any(|address| address.address.is_ipv6())
    }

    fn pod_link(&self) -> String {
        self.key.ifname.to_string()
    }
}

fn is_link_local_v6(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

/// Whether every address of `inner` is in `outer`.
pub fn covers(outer: IpNetwork, inner: IpNetwork) -> bool {
    outer.prefix() <= inner.prefix() && outer.contains(inner.network())
}
