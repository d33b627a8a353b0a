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

use std::process::{Command, Output, Stdio};

use ferrule::cni::ids::NetworkName;
use ferrule::datapath::nftables::{self as nft, NftError};
use ferrule::desired::nftables::element::{Element, HostPort, NoMasquerade, PodRules, Protocol};
use ferrule::linux::netlink::Netlink;
use ferrule::linux::netns::Netns;
use ferrule::linux::nfnetlink::Nfnetlink;

use crate::harness::netns::Namespace;

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
pub struct Pod {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its link on the node.
    pub host_link: String,
    /// Its addresses.
    pub addresses: [String; 2],
}

impl World {
    /// Makes node and outside.
    pub fn new() -> Self {
        let world = Self { node: Namespace::new("node"), outside: Namespace::new("outside") };
        forward(&world.node);
        forward(&world.outside);
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
        let namespace = Namespace::new(name);
        let host_link = format!("veth{name}");
        let [four, six] = [format!("10.244.1.{host}"), format!("fd00:1::{host}")];
        let (host_mac, pod_mac) = (format!("02:00:00:00:01:{host}"), format!("02:00:00:00:02:{host}"));
        self.node.ip(&format!(
            "link add {host_link} address {host_mac} group {GROUP} type veth peer eth0 address {pod_mac} netns {}",
            namespace.name()
        ));
        self.node.ip_batch(&format!(
            "link set {host_link} addrgenmode none\nlink set {host_link} up\n\
             neighbour add {four} lladdr {pod_mac} dev {host_link} nud permanent\n\
             neighbour add {six} lladdr {pod_mac} dev {host_link} nud permanent\n\
             route add {four}/32 dev {host_link} src 192.0.2.10\nroute add {six}/128 dev {host_link}\n"
        ));
        set(&self.node, &[&format!("ipv4/conf/{host_link}/rp_filter=0")]);
        namespace.ip_batch(&format!(
            "link set eth0 up\naddress add {four}/32 dev eth0\naddress add {six}/128 dev eth0 nodad\n\
             neighbour add 169.254.1.1 lladdr {host_mac} dev eth0 nud permanent\n\
             neighbour add fe80::1 lladdr {host_mac} dev eth0 nud permanent\n\
             route add default via 169.254.1.1 dev eth0 onlink\nroute add default via fe80::1 dev eth0 onlink\n"
        ));
        Pod { namespace, host_link, addresses: [four, six] }
    }

    /// A way to the node's nf_tables.
    pub fn nft(&self) -> Nfnetlink {
        Nfnetlink::open_in(&Netns::open(self.node.path()).unwrap()).unwrap()
    }

    /// A way to the node's routes.
    pub fn netlink(&self) -> Netlink {
        Netlink::open_in(&Netns::open(self.node.path()).unwrap()).unwrap()
    }

    /// Makes the table, and the places where the network's pods keep their source.
    pub async fn prepare(&self) -> Nfnetlink {
        let nft = self.nft();
        assert!(ensure(&nft).await.unwrap().is_some());
        assert!(nft::ensure_no_masquerade(&nft, &inside()).await.unwrap());
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
    use std::io::Write;
    let mut nft = Command::new("nsenter");
    nft.arg(format!("--net={}", namespace.path().display())).args(["timeout", "10", "nft"]).args(words);
    nft.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = nft.spawn().expect("nsenter is installed");
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    assert!(status.success(), "{nft:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

/// Sets sysctls below net of a namespace: "path=value".
pub fn set(namespace: &Namespace, values: &[&str]) {
    let script: Vec<String> = values
        .iter()
        .map(|text| text.split_once('=').unwrap())
        .map(|(path, value)| format!("echo {value} > /proc/sys/net/{path}"))
        .collect();
    let net = format!("--net={}", namespace.path().display());
    let run = Command::new("nsenter").args([&net, "sh", "-ec", &script.join("; ")]).status();
    assert!(run.unwrap().success(), "{values:?}");
}

fn forward(namespace: &Namespace) {
    set(
        namespace,
        &[
            "ipv4/ip_forward=1",
            "ipv6/conf/all/forwarding=1",
            "ipv4/conf/all/rp_filter=0",
            "ipv4/conf/default/rp_filter=0",
        ],
    );
}
