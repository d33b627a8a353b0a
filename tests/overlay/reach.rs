//! Who reaches whom, from which address.

use ferrule::desired::overlay::{Routing, Way};

use super::world::{DEVICE, Node, World, ways};
use kit::ip;
use kit::netns::Namespace;
use kit::packets::{answers_ping, answers_ping_at_once, source_seen_over_tcp};

/// Pod to pod, node to pod, pod to node: both families, real TCP, and nobody sees another address than the sender's own.
fn assert_reach(from: &Node, to: &Node) {
    let (pod, node) = (from.pod_addresses(), &from.addresses);
    for family in [0, 1] {
        let ways: [(&Namespace, &String, &Namespace, &String); 3] = [
            (&from.pod, &pod[family], &to.pod, &to.pod_addresses()[family]),
            (&from.namespace, &node[family], &to.pod, &to.pod_addresses()[family]),
            (&from.pod, &pod[family], &to.namespace, &to.addresses[family]),
        ];
        for (client, own, server, address) in ways {
            let seen = source_seen_over_tcp(client, server, address);
            let seen = seen.unwrap_or_else(|error| panic!("{own} to {address}: {error}"));
            assert_eq!(seen.to_string(), *own, "as {address} saw it");
        }
    }
}

fn assert_all_reach_all(world: &World) {
    for from in &world.nodes {
        for to in world.nodes.iter().filter(|to| to.n != from.n) {
            assert_reach(from, to);
        }
    }
}

fn device_of_route(node: &Node, destination: &str) -> String {
    let route = node.namespace.ip(&format!("-j route get {destination}"));
    let route: serde_json::Value = serde_json::from_str(&route).unwrap();
    route[0]["dev"].as_str().unwrap().to_owned()
}

#[test]
fn on_link_nodes_are_direct_and_routed_ones_by_vxlan() {
    let world = World::new();
    world.settle(Routing::Auto);
    let round = world.node(1).round(Routing::Auto, world.peers_of(1)).unwrap();
    assert_eq!(round.ways.ways, ways([Way::Overlay, Way::Overlay, Way::Direct, Way::Direct]));
    for (n, to, device) in [
        (1, "10.244.2.10", DEVICE),
        (1, "10.244.3.10", "up0"),
        (1, "fd00:2::10", DEVICE),
        (1, "fd00:3::10", "up0"),
        (2, "10.244.1.10", DEVICE),
        (2, "fd00:3::10", DEVICE),
        // Nodes among each other: as before.
        (1, "192.168.2.12", "up0"),
        (1, "fd02::12", "up0"),
    ] {
        assert_eq!(device_of_route(world.node(n), to), device, "node {n} to {to}");
    }
    assert_all_reach_all(&world);
}

/// Each family has a way of its own, on both ends: node 1 has IPv6 on the other link as well.
#[test]
fn one_family_goes_directly_and_the_other_by_vxlan() {
    let world = World::new();
    world.router.ip("link set port2 master br0");
    world.router.ip("address flush dev port2");
    world.router.ip("address add 192.168.2.1/24 dev br0");
    for (n, other) in [(1, "fd02::/64"), (2, "fd01::/64"), (3, "fd02::/64")] {
        world.node(n).namespace.ip(&format!("-6 route add {other} dev up0"));
    }
    world.settle(Routing::Auto);
    for (n, to, device) in [
        (1, "10.244.2.10", DEVICE),
        (1, "fd00:2::10", "up0"),
        (2, "10.244.1.10", DEVICE),
        (2, "fd00:1::10", "up0"),
        (3, "10.244.1.10", "up0"),
    ] {
        assert_eq!(device_of_route(world.node(n), to), device, "node {n} to {to}");
    }
    assert_all_reach_all(&world);
}

/// The control: it is VXLAN, and not the router, that carries pods' packets.
#[test]
fn without_vxlan_pods_behind_the_router_are_not_reached() {
    let world = World::new();
    for node in &world.nodes {
        let round = node.round(Routing::Direct, world.peers_of(node.n)).unwrap();
        let failures = round.failures();
        assert!(failures.iter().all(|failure| failure.contains("not on-link")), "{failures:?}");
        assert_eq!(failures.len(), if node.n == 2 { 4 } else { 2 });
        assert_eq!(ip::link(&node.namespace, DEVICE), None);
    }
    assert!(!answers_ping_at_once(&world.node(1).pod, "10.244.2.10"));
    assert!(answers_ping(&world.node(1).pod, "10.244.3.10"));
}

/// As in kind, where the nodes share a subnet: strict rp_filter on the uplink, and next hops that are on-link elsewhere.
#[test]
fn vxlan_that_is_forced_works_between_nodes_of_one_subnet_too() {
    let world = World::new();
    world.settle(Routing::Vxlan);
    assert_eq!(device_of_route(world.node(1), "10.244.3.10"), DEVICE);
    assert_eq!(device_of_route(world.node(1), "fd00:3::10"), DEVICE);
    assert_all_reach_all(&world);
}

/// Nodes that have IPv6 alone, with pods of both families.
#[test]
fn the_tunnel_is_of_the_nodes_family_and_the_pods_have_both() {
    let mut world = World::new();
    for node in &mut world.nodes {
        node.namespace.ip("-4 address flush dev up0");
        // Its source went with the address.
        node.namespace.ip(&format!("route add 10.244.{}.10/32 dev vethpod proto 102", node.n));
        node.addresses.remove(0);
    }
    world.settle(Routing::Auto);
    for from in &world.nodes {
        for to in world.nodes.iter().filter(|to| to.n != from.n) {
            for (own, address) in from.pod_addresses().iter().zip(to.pod_addresses()) {
                let seen = source_seen_over_tcp(&from.pod, &to.pod, &address).unwrap();
                assert_eq!(seen.to_string(), *own);
            }
            for (client, own, server, address) in [
                (&from.namespace, &from.addresses[0], &to.pod, &to.pod_addresses()[1]),
                (&from.pod, &from.pod_addresses()[1], &to.namespace, &to.addresses[0]),
            ] {
                assert_eq!(source_seen_over_tcp(client, server, address).unwrap().to_string(), *own);
            }
        }
    }
    let device = ip::link(&world.node(1).namespace, DEVICE).unwrap();
    assert_eq!(device["linkinfo"]["info_data"]["local6"], "fd01::11");
    assert_eq!(device["mtu"], 1430);
}

/// A node that moves into the subnet, or out of it, changes its way without anybody's help.
#[test]
fn a_node_that_moves_changes_its_way() {
    let mut world = World::new();
    world.settle(Routing::Auto);
    // Node 3 moves behind the router, to node 2.
    world.router.ip_batch("link add br2 type bridge\nlink set br2 up\nlink set port3 nomaster\n");
    world.router.ip_batch(
        "address flush dev port2\nlink set port2 master br2\nlink set port3 master br2\n\
         address add 192.168.2.1/24 dev br2\naddress add fd02::1/64 dev br2 nodad\n",
    );
    let node = &mut world.nodes[2];
    node.namespace.ip("address flush dev up0 scope global");
    node.addresses = vec!["192.168.2.13".into(), "fd02::13".into()];
    node.namespace.ip_batch(
        "address add 192.168.2.13/24 dev up0\naddress add fd02::13/64 dev up0 nodad\n\
         route replace default via 192.168.2.1\nroute replace default via fd02::1\n\
         route replace 10.244.3.10/32 dev vethpod src 192.168.2.13\n\
         route replace fd00:3::10/128 dev vethpod src fd02::13\n",
    );
    world.settle(Routing::Auto);
    assert_eq!(device_of_route(world.node(3), "10.244.2.10"), "up0");
    assert_eq!(device_of_route(world.node(1), "10.244.3.10"), DEVICE);
    assert_all_reach_all(&world);
}

/// One end has found that the two are on one link, and the other has not yet.
#[test]
fn who_sends_directly_takes_vxlan_from_the_other_end() {
    let world = World::new();
    world.settle(Routing::Vxlan);
    world.node(1).round(Routing::Auto, world.peers_of(1)).unwrap();
    assert_eq!(device_of_route(world.node(1), "10.244.3.10"), "up0");
    assert_eq!(device_of_route(world.node(3), "10.244.1.10"), DEVICE);
    // What is sent directly comes in at the other end with any but a strict check.
    for link in ["all", "up0"] {
        world.node(3).namespace.set_sysctl(&format!("net/ipv4/conf/{link}/rp_filter"), "2");
    }
    assert_reach(world.node(1), world.node(3));
    assert_reach(world.node(3), world.node(1));
}
