//! Packets that are too large for the tunnel.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use ferrule::desired::overlay::{Routing, local_end, pod_mtu};

use super::world::{DEVICE, World};
use kit::ip;
use kit::netns::{Namespace, inside};
use kit::packets::ping_whole;

const PATIENCE: Duration = Duration::from_secs(20);

/// Sends a megabyte and returns how much came.
fn transfer(from: &Namespace, to: &Namespace, address: &str) -> usize {
    let listener = inside(to, || TcpListener::bind(SocketAddr::new(address.parse().unwrap(), 0)).unwrap());
    let target = listener.local_addr().unwrap();
    let mut client = inside(from, || TcpStream::connect_timeout(&target, PATIENCE).unwrap());
    let (mut server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    client.set_write_timeout(Some(PATIENCE)).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || client.write_all(&[7; 1 << 20]).unwrap());
        let mut came = Vec::new();
        server.read_to_end(&mut came).map(|_| came.len()).unwrap_or(0)
    })
}

/// Pods that are older than the first off-link node have the uplink's MTU. Both ends here: a SYN tells nothing of the
/// tunnel.
#[test]
fn a_pod_with_the_uplinks_mtu_is_told_and_its_tcp_goes_on() {
    let world = World::new();
    world.settle(Routing::Auto);
    let (here, there) = (world.node(1), world.node(2));
    for address in there.pod_addresses() {
        assert_eq!(transfer(&here.pod, &there.pod, &address), 1 << 20, "{address}");
    }
    // From the node itself, and to it.
    for (address, node) in there.pod_addresses().iter().zip(&there.addresses) {
        assert_eq!(transfer(&here.namespace, &there.pod, address), 1 << 20, "{address}");
        assert_eq!(transfer(&here.pod, &there.namespace, node), 1 << 20, "{node}");
    }
}

#[test]
fn the_node_answers_with_the_size_that_fits() {
    let world = World::new();
    world.settle(Routing::Auto);
    let pod = &world.node(1).pod;
    // Headers of ICMP 8, of IPv4 20, of IPv6 40.
    for (to, headers, words) in [("10.244.2.10", 28, "mtu = 1450"), ("fd00:2::10", 48, "mtu=1450")] {
        let (answered, text) = ping_whole(pod, 1500 - headers, to);
        assert!(!answered && text.contains(words), "{to}: {text}");
        let (answered, text) = ping_whole(pod, 1450 - headers, to);
        assert!(answered, "{to}: {text}");
    }
    for (to, headers) in [("10.244.3.10", 28), ("fd00:3::10", 48)] {
        assert!(ping_whole(pod, 1500 - headers, to).0, "{to} is on-link, and has the uplink's");
    }
}

/// What [`pod_mtu`] gives goes through whole, without anybody being told.
#[test]
fn a_new_pods_mtu_fits_the_device() {
    let world = World::new();
    let node = world.node(1);
    let local = local_end(&node.state(vec![])).unwrap();
    let overlay = node.overlay(Routing::Auto, world.peers_of(1)).unwrap();
    assert_eq!(pod_mtu(1500, local, true, Routing::Auto, true), overlay.mtu);
    assert_eq!(node.overlay(Routing::Auto, vec![world.node(3).as_peer()]), None);
    assert_eq!(node.overlay(Routing::Vxlan, vec![world.node(3).as_peer()]).unwrap().mtu, overlay.mtu);
}

/// What the tunnel leaves would be too little for IPv6: then its largest packets go in fragments.
#[test]
fn a_small_underlay_leaves_ipv6_what_it_needs() {
    let world = World::new();
    for namespace in world.nodes.iter().map(|node| &node.namespace).chain([&world.router]) {
        namespace.sh("ip -o link show up | cut -d: -f2 | cut -d@ -f1 | grep -v lo | while read -r link; do
                 case $link in veth*|pod*) ;; *) ip link set \"$link\" mtu 1300 ;; esac
             done");
    }
    world.settle(Routing::Auto);
    let (here, there) = (world.node(1), world.node(2));
    assert_eq!(ip::link(&here.namespace, DEVICE).unwrap()["mtu"], 1280);
    for address in there.pod_addresses() {
        assert_eq!(transfer(&here.pod, &there.pod, &address), 1 << 20, "{address}");
    }
}
