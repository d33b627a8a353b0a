//! Whoever can send to a node's VXLAN port can send to its pods as anyone: what comes out of the tunnel is taken for
//! what it says it is. Only nodes may.
//!
//! The attacker needs no privileges: it is an ordinary UDP packet. Number and port are flannel's or Linux' own, and
//! the hardware address follows from the node's address.

use std::net::{Ipv4Addr, UdpSocket};

use ferrule::datapath::nftables::{
    add_pod, ensure_no_masquerade, ensure_node_addresses, ensure_table, ensure_vxlan_peers,
};
use ferrule::desired::names::vtep_mac;
use ferrule::desired::nftables::element::{Element, HostPort, NoMasquerade, PodRules, Protocol};
use ferrule::desired::nftables::node_addresses::NodeAddresses;
use ferrule::desired::nftables::vxlan::VxlanPeers;
use ferrule::desired::overlay::{DEFAULT_ID, DEFAULT_PORT, Routing};
use ferrule::linux::netns::Netns;
use ferrule::linux::nfnetlink::Nfnetlink;

use super::world::{DEVICE, Node, World};
use kit::block_on;
use kit::netns::{Namespace, inside};
use kit::nft;
use kit::packets::source_seen_over_tcp;
use kit::traffic::{BRIEF, PATIENT, receives_udp, send_udp};

const PORT: u16 = 9000;

/// What an agent and the ADD of the node's pod put into the table, without the tunnel.
pub(super) fn admit(node: &Node, host_ports: &[HostPort]) {
    let state = node.state(vec![]);
    let pod = PodRules {
        network: state.network.clone(),
        host_link: "vethpod".into(),
        name: None,
        addresses: node.pod_addresses().iter().map(|text| text.parse().unwrap()).collect(),
        masquerade: true,
        host_ports: host_ports.to_vec(),
    };
    let places = ["10.244.0.0/16", "192.168.0.0/16", "fd00::/16", "fd01::/64", "fd02::/64"];
    let places = places.iter().map(|text| text.parse().unwrap()).collect();
    let network = NoMasquerade { network: state.network.clone(), networks: places };
    node.namespace.ip(&format!("link set vethpod group {}", network.group()));
    block_on(async {
        let nft = nft_of(node);
        ensure_table(&nft, &[], || Ok::<_, ferrule::datapath::nftables::NftError>(Vec::<Element>::new()))
            .await
            .unwrap();
        ensure_no_masquerade(&nft, &network).await.unwrap();
        let own = node.addresses.iter().map(|text| text.parse().unwrap()).collect();
        ensure_node_addresses(&nft, &state.network, &NodeAddresses::new(Vec::new(), own)).await.unwrap();
        add_pod(&nft, &pod.elements()).await.unwrap();
    });
}

fn nft_of(node: &Node) -> Nfnetlink {
    Nfnetlink::open_in(&Netns::open(node.namespace.path()).unwrap()).unwrap()
}

/// What the agent adds where there is a tunnel.
pub(super) fn guard(world: &World, node: &Node) {
    let ends = world.nodes.iter().flat_map(|node| &node.addresses).map(|text| text.parse().unwrap());
    let tunnel = VxlanPeers::new(DEFAULT_PORT, ends.collect());
    let network = node.state(vec![]).network;
    block_on(async {
        let nft = nft_of(node);
        assert!(ensure_vxlan_peers(&nft, &network, Some(&tunnel)).await.unwrap());
        assert!(!ensure_vxlan_peers(&nft, &network, Some(&tunnel)).await.unwrap(), "nothing to do");
    });
}

/// Sends to the VXLAN port of a node, at `address`, what says that it comes from the pod `as_whom` and is for the pod of
/// that node.
fn forge(sender: &Namespace, to: &Node, address: &str, as_whom: &str) {
    let packet = forgery(to, as_whom);
    inside(sender, || {
        UdpSocket::bind("0.0.0.0:0").unwrap().send_to(&packet, (address, DEFAULT_PORT)).unwrap()
    });
}

/// What follows the header of UDP.
pub(super) fn forgery(to: &Node, as_whom: &str) -> Vec<u8> {
    let (source, target): (Ipv4Addr, Ipv4Addr) =
        (as_whom.parse().unwrap(), to.pod_addresses()[0].parse().unwrap());
    let mac = vtep_mac(to.addresses[0].parse().unwrap()).to_string();
    let mac: Vec<u8> = mac.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    let mut packet = vec![0x08, 0, 0, 0];
    packet.extend((DEFAULT_ID << 8).to_be_bytes());
    packet.extend(mac);
    packet.extend([2, 0, 0, 0, 6, 66, 0x08, 0x00]);
    packet.extend(udp_packet(source, target));
    packet
}

/// RFC 791 and RFC 768, without a checksum of the latter, which IPv4 allows.
fn udp_packet(source: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut header = vec![0x45, 0, 0, 29, 0, 0, 0, 0, 64, 17, 0, 0];
    header.extend(source.octets());
    header.extend(target.octets());
    let sum: u32 = header.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header.extend(PORT.to_be_bytes());
    header.extend(PORT.to_be_bytes());
    header.extend([0, 9, 0, 0, b'?']);
    header
}

pub(super) fn arrives(patience: std::time::Duration, to: &Node, send: impl Fn()) -> bool {
    receives_udp(patience, &to.pod, &to.pod_addresses()[0], PORT, send)
}

#[test]
fn only_nodes_speak_through_the_tunnel() {
    let world = World::new();
    world.settle(Routing::Vxlan);
    let (here, there) = (world.node(1), world.node(2));
    admit(here, &[]);
    admit(there, &[]);
    // Somebody in the network of nodes, who is none; and another address of a node, to which pods are masqueraded.
    world.router.ip("route add 203.0.113.2/32 via 192.168.2.12");
    there.namespace.ip("address add 203.0.113.2/32 dev lo");
    let victim = &world.node(3).pod_addresses()[0];
    // Who sends where, and to the pod of which node.
    let forgeries = [
        ("a pod of another node", &here.pod, there, there.addresses[0].as_str()),
        ("a pod of another node, masqueraded", &here.pod, there, "203.0.113.2"),
        ("a pod of the node itself", &there.pod, there, there.addresses[0].as_str()),
        ("a pod to its gateway", &there.pod, there, "203.0.113.2"),
        ("a stranger", &world.router, there, there.addresses[0].as_str()),
    ];
    let forged = |patience, (_, sender, to, address): (&str, &Namespace, &Node, &str)| {
        arrives(patience, to, || forge(sender, to, address, victim))
    };
    for forgery in forgeries {
        assert!(forged(PATIENT, forgery), "the test cannot fail: {} is not heard without a guard", forgery.0);
    }
    guard(&world, here);
    guard(&world, there);
    for forgery in forgeries {
        assert!(!forged(BRIEF, forgery), "{} is believed", forgery.0);
    }
    // The same of an end of IPv6: what listens there is the test's, as the tunnel's is of IPv4.
    for (sender, source, heard) in [
        (&here.namespace, here.addresses[1].as_str(), true),
        (&here.pod, "fd00:1::10", false),
        (&world.router, "fd02::1", false),
    ] {
        let send = || send_udp(sender, source, &there.addresses[1], DEFAULT_PORT);
        let patience = if heard { PATIENT } else { BRIEF };
        let is_heard = receives_udp(patience, &there.namespace, &there.addresses[1], DEFAULT_PORT, send);
        assert_eq!(is_heard, heard, "{source}");
    }
    // Nodes go on, and so does what pods send each other to that very port: they may be nodes of another cluster.
    for (from, to) in [(here, there), (there, here), (world.node(3), there)] {
        for family in [0, 1] {
            let seen = source_seen_over_tcp(&from.pod, &to.pod, &to.pod_addresses()[family]).unwrap();
            assert_eq!(seen.to_string(), from.pod_addresses()[family]);
        }
    }
    let own_overlay = || send_udp(&here.pod, "0.0.0.0", &there.pod_addresses()[0], DEFAULT_PORT);
    assert!(receives_udp(PATIENT, &there.pod, &there.pod_addresses()[0], DEFAULT_PORT, own_overlay));
}

/// By a Service that leads to the port, which somebody may have made for it: kube-proxy gives what a pod sends there the
/// address of the pod's node.
#[test]
fn a_pod_does_not_speak_as_its_node_by_a_service_either() {
    let world = World::new();
    world.settle(Routing::Vxlan);
    let (here, there) = (world.node(1), world.node(2));
    admit(here, &[]);
    admit(there, &[]);
    let service = format!(
        "table ip kube-proxy {{
            chain services {{
                type nat hook prerouting priority dstnat;
                ip daddr 10.96.0.1 udp dport 80 meta mark set 0x4000 dnat to {}:{DEFAULT_PORT}
            }}
            chain leaving {{
                type nat hook postrouting priority srcnat + 1;
                meta mark & 0x4000 == 0x4000 snat to {}
            }}
        }}",
        there.addresses[0], here.addresses[0]
    );
    nft::load(&here.namespace, &service);
    // Else it drops what comes by the tunnel from a node's own address. Many a node has none.
    for link in ["all", DEVICE] {
        there.namespace.set_sysctl(&format!("net/ipv4/conf/{link}/rp_filter"), "0");
    }
    let packet = forgery(there, &world.node(3).pod_addresses()[0]);
    let send = || {
        inside(&here.pod, || {
            UdpSocket::bind("0.0.0.0:0").unwrap().send_to(&packet, ("10.96.0.1", 80)).unwrap()
        });
    };
    guard(&world, there);
    assert!(arrives(PATIENT, there, send), "the test cannot fail: who is at the other end cannot tell");
    guard(&world, here);
    assert!(!arrives(BRIEF, there, send));
}

/// A pod that asks for the port as its hostPort would get all that nodes send each other's pods.
#[test]
fn the_tunnels_port_is_no_pods_to_take() {
    let world = World::new();
    world.settle(Routing::Vxlan);
    let (here, there) = (world.node(1), world.node(2));
    let greedy =
        HostPort { host_ip: None, host_port: DEFAULT_PORT, container_port: 8080, protocol: Protocol::Udp };
    admit(there, &[greedy]);
    let ask = || send_udp(&here.pod, "0.0.0.0", &there.pod_addresses()[0], PORT);
    assert!(!arrives(BRIEF, there, ask), "the test cannot fail: the hostPort takes nothing");
    guard(&world, there);
    assert!(arrives(PATIENT, there, ask));
}
