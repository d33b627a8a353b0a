//! A node with pods, and a host outside.
//!
//! ```text
//!   pod a   10.244.1.10, fd00:1::10  ── vetha ┐                     ┌ 192.0.2.1,  fd00:aa::1    the world
//!   pod b   10.244.1.11, fd00:1::11  ── vethb ┼ node ── up0 ── eth0 ┼ 192.0.2.11, fd00:aa::11   a peer
//!                                             │                     └ 10.244.2.5, fd00:2::5     the peer's pod
//!                                             └ 192.0.2.10, 192.0.2.110, fd00:aa::10
//! ```
//!
//! Made with `ip`, and without rp_filter, so that what is seen is the table's doing alone. Neighbours of IPv6 are
//! told: the kernel takes up to a second before it asks over a new link.

use std::ops::Deref;

use ferrule::cni::ids::NetworkName;
use ferrule::datapath::nftables::{self as nft, NftError};
use ferrule::desired::nftables::element::{Element, HostPort, NoMasquerade, PodRules, Protocol};
use ferrule::desired::nftables::node_addresses::NodeAddresses;
use ferrule::linux::netlink::Netlink;
use ferrule::linux::netns::Netns;
use ferrule::linux::nfnetlink::Nfnetlink;

use kit::netns::Namespace;
use kit::process::run_in;
use kit::wired::{WiredPod, Wiring};

/// The group of the network's links: what [`NoMasquerade::group`] says, read off once.
const GROUP: u32 = 1_711_677_270;

/// A node and the host outside.
pub struct World {
    /// The node.
    pub node: Namespace,
    /// The world, a peer and its pod, all on one host.
    pub outside: Namespace,
}

/// A pod of the node.
pub struct Pod(WiredPod);

impl Deref for Pod {
    type Target = WiredPod;

    fn deref(&self) -> &WiredPod {
        &self.0
    }
}

impl World {
    /// Makes node and outside.
    pub fn new() -> Self {
        let world = Self { node: Namespace::new("node"), outside: Namespace::new("outside") };
        world.node.forward(0);
        world.outside.forward(0);
        world.node.ip(&format!(
            "link add up0 address 02:00:00:00:03:0a type veth peer eth0 address 02:00:00:00:03:01 netns {}",
            world.outside.name()
        ));
        world.node.ip_batch(
            "link set lo up\n\
             address add 192.0.2.10/24 dev up0\naddress add 192.0.2.110/24 dev up0\n\
             address add fd00:aa::10/64 dev up0 nodad\nlink set up0 up\n\
             route add 10.244.2.0/24 via 192.0.2.11\nroute add default via 192.0.2.1\n\
             route add fd00:2::/64 via fd00:aa::11\nroute add default via fd00:aa::1\n\
             neighbour add fd00:aa::1 lladdr 02:00:00:00:03:01 dev up0 nud permanent\n\
             neighbour add fd00:aa::11 lladdr 02:00:00:00:03:01 dev up0 nud permanent\n",
        );
        // lo stays down: 127/8 is nobody's here, and may be sent to the node.
        world.outside.ip_batch(
            "address add 192.0.2.1/24 dev eth0\naddress add 192.0.2.11/24 dev eth0\n\
             address add 10.244.2.5/32 dev eth0\naddress add fd00:aa::1/64 dev eth0 nodad\n\
             address add fd00:aa::11/64 dev eth0 nodad\naddress add fd00:2::5/128 dev eth0 nodad\n\
             link set eth0 up\n\
             neighbour add fd00:aa::10 lladdr 02:00:00:00:03:0a dev eth0 nud permanent\n\
             route add 10.244.1.0/24 via 192.0.2.10\nroute add fd00:1::/64 via fd00:aa::10\n",
        );
        world
    }

    /// Makes a pod, with the last part of its addresses. Nothing of it is in the table.
    pub fn pod(&self, name: &str, host: u8) -> Pod {
        let wiring = Wiring {
            host_link: &format!("veth{name}"),
            more: &format!("group {GROUP}"),
            number: host,
            addresses: [format!("10.244.1.{host}"), format!("fd00:1::{host}")],
            node: ["192.0.2.10", "fd00:aa::10"],
        };
        Pod(WiredPod::new(name, &self.node, wiring))
    }

    /// A way to the node's nf_tables.
    pub fn nft(&self) -> Nfnetlink {
        Nfnetlink::open_in(&Netns::open(self.node.path()).unwrap()).unwrap()
    }

    /// A way to the node's routes.
    pub fn netlink(&self) -> Netlink {
        Netlink::open_in(&Netns::open(self.node.path()).unwrap()).unwrap()
    }

    /// Makes the table, with the places where the network's pods keep their source, and the node's addresses.
    pub async fn prepare(&self) -> Nfnetlink {
        let nft = self.nft();
        assert!(ensure(&nft).await.unwrap().is_some());
        assert!(nft::ensure_no_masquerade(&nft, &inside()).await.unwrap());
        assert!(nft::ensure_node_addresses(&nft, &network(), &node_addresses()).await.unwrap());
        nft
    }

    /// What `nft` prints on the node.
    pub fn list(&self, words: &str) -> String {
        run_nft(&self.node, words.split(' '), "")
    }
}

impl Pod {
    /// What it needs in the table.
    pub fn rules(&self, masquerade: bool, host_ports: &[HostPort]) -> PodRules {
        PodRules {
            network: network(),
            host_link: self.host_link.clone(),
            name: Some(format!("default/{}", self.host_link)),
            addresses: self.addresses.iter().map(|address| address.parse().unwrap()).collect(),
            masquerade,
            host_ports: host_ports.to_vec(),
        }
    }

    /// Its elements, with hostPorts.
    pub fn elements(&self, host_ports: &[HostPort]) -> Vec<Element> {
        self.rules(false, host_ports).elements()
    }
}

/// The network.
pub fn network() -> NetworkName {
    NetworkName::parse("podnet").unwrap()
}

/// Where its pods keep their source: pods and nodes.
pub fn inside() -> NoMasquerade {
    let networks =
        ["10.244.0.0/16", "192.0.2.10/32", "192.0.2.11/32", "fd00:1::/64", "fd00:2::/64", "fd00:aa::11/128"];
    let inside = NoMasquerade {
        network: network(),
        networks: networks.iter().map(|text| text.parse().unwrap()).collect(),
    };
    assert_eq!(inside.group(), GROUP);
    inside
}

/// The node's addresses, and its uplink.
pub fn node_addresses() -> NodeAddresses {
    let addresses = ["192.0.2.10", "192.0.2.110", "fd00:aa::10"];
    NodeAddresses::new(vec!["up0".into()], addresses.iter().map(|text| text.parse().unwrap()).collect())
}

/// All that the network has in the table as a whole.
pub fn elements_of_network() -> Vec<Element> {
    [inside().elements(), node_addresses().elements(&network())].concat()
}

/// A hostPort that leads to port 8080 of the pod.
pub fn host_port(host_ip: &str, host_port: u16, protocol: Protocol) -> HostPort {
    let host_ip = (!host_ip.is_empty()).then(|| host_ip.parse().unwrap());
    HostPort { host_ip, host_port, container_port: 8080, protocol }
}

/// Has the table made where it does not stand, for a store that remembers nothing.
pub async fn ensure(nft: &Nfnetlink) -> Result<Option<nft::Rebuilt>, NftError> {
    nft::ensure_table(nft, &[], || Ok::<_, NftError>(Vec::<Element>::new())).await
}

/// Runs `nft` in a namespace, with `script` on stdin.
pub fn run_nft<'a>(namespace: &Namespace, words: impl IntoIterator<Item = &'a str>, script: &str) -> String {
    run_in(namespace, "nft", words, script).unwrap_or_else(|failed| panic!("{failed}"))
}
