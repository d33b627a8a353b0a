//! What cannot be had, and that it stops nothing else.

use ferrule::desired::overlay::{Routing, Way};

use super::world::{DEVICE, World, ways};
use kit::ip;
use kit::packets::answers_ping;

/// kindnet#46, liqo#314: one bad node must not stop the routes to all others.
#[test]
fn a_peer_without_a_tunnel_is_named() {
    let world = World::new();
    let mut peers = world.peers_of(1);
    let mut six_only = world.node(2).as_peer();
    six_only.node = "six-only".into();
    six_only.node_ips = vec!["fd02::66".parse().unwrap()];
    six_only.pod_cidrs = vec!["10.244.66.0/24".parse().unwrap()];
    let mut homeless = six_only.clone();
    homeless.node = "homeless".into();
    homeless.node_ips = vec![];
    homeless.pod_cidrs = vec!["10.244.67.0/24".parse().unwrap()];
    peers.extend([six_only, homeless]);
    let round = world.node(1).round(Routing::Auto, peers).unwrap();
    world.node(2).round(Routing::Auto, world.peers_of(2)).unwrap();
    let failures = round.failures();
    assert_eq!(failures.len(), 2, "{failures:?}");
    assert!(
        failures[0].starts_with("peer six-only: its pods in 10.244.66.0/24 cannot be reached"),
        "{failures:?}"
    );
    assert!(failures[1].starts_with("peer homeless: "), "{failures:?}");
    assert!(answers_ping(&world.node(1).pod, "10.244.2.10"));
}

#[test]
fn a_peer_without_any_way_to_it_stays_direct_and_says_so() {
    let world = World::new();
    world.node(1).namespace.ip_batch("route delete default\nroute delete default via fd01::1\n");
    let round = world.node(1).round(Routing::Auto, world.peers_of(1)).unwrap();
    assert_eq!(round.ways.ways, ways([Way::Direct; 4]));
    let failures = round.failures();
    assert!(
        failures.iter().all(|it| it.contains("peer node-2: this node has no route to its address")),
        "{failures:?}"
    );
    assert_eq!(failures.len(), 2);
}

#[test]
fn a_link_of_somebody_else_with_that_name_is_left_alone() {
    let world = World::new();
    let node = world.node(1);
    node.namespace.ip("link add ferrule-vxlan type vxlan id 9 dstport 4789 local 192.168.1.11");
    let before = ip::link(&node.namespace, DEVICE);
    let error = node.round(Routing::Auto, world.peers_of(1)).unwrap_err().to_string();
    assert!(error.contains("which ferrule did not make; rename or remove it"), "{error}");
    // Nor is it removed where no overlay is needed.
    node.round(Routing::Auto, vec![]).unwrap();
    assert_eq!(ip::link(&node.namespace, DEVICE), before);
}

/// Another plugin's, with the same identifier at the same port.
#[test]
fn an_identifier_that_is_taken_is_told_with_the_remedy() {
    let world = World::new();
    let node = world.node(1);
    node.namespace.ip("link add other type vxlan id 4096 dstport 8472 local 192.168.1.11 nolearning");
    let error = node.round(Routing::Auto, world.peers_of(1)).unwrap_err().to_string();
    assert!(error.contains("choose another identifier"), "{error}");
    // Beside flannel's, at the same port, there is room.
    node.namespace.ip("link delete other");
    node.namespace.ip("link add flannel.1 type vxlan id 1 dstport 8472 local 192.168.1.11 nolearning");
    world.settle(Routing::Auto);
    assert!(answers_ping(&node.pod, "10.244.2.10"));
}

/// As many as the largest clusters have; what stands costs a comparison, and one that changes costs what is its own.
#[test]
fn of_five_thousand_peers_one_changes_alone() {
    let world = World::new();
    let node = world.node(1);
    let mut peers: Vec<_> = (0..5000_u32)
        .map(|n| {
            let (high, low) = (n / 250, n % 250);
            let mut peer = world.node(2).as_peer();
            peer.node = format!("far-{n}");
            peer.node_ips = [format!("172.16.{high}.{}", low + 1), format!("fd10::{n:x}")]
                .iter()
                .map(|text| text.parse().unwrap())
                .collect();
            peer.pod_cidrs = [format!("11.{high}.{low}.0/24"), format!("fd11:0:{high:x}:{low:x}::/64")]
                .iter()
                .map(|text| text.parse().unwrap())
                .collect();
            peer
        })
        .collect();
    let round = node.round(Routing::Auto, peers.clone()).unwrap();
    assert_eq!(round.failures(), [""; 0]);
    // Entry, two neighbours, two routes to the node; and two rules.
    assert_eq!((round.overlay.unwrap().set, round.routes.set), (25_002, 10_000));
    assert_eq!(node.forwarding_entries().len(), 5000);
    assert!(node.round(Routing::Auto, peers.clone()).unwrap().changed_nothing());
    peers[4321].node_ips[0] = "172.17.1.1".parse().unwrap();
    let round = node.round(Routing::Auto, peers).unwrap();
    assert_eq!(round.failures(), [""; 0]);
    let done = round.overlay.unwrap();
    // IPv6's next hop is another too, since the hardware address is.
    assert_eq!((done.set, done.removed, round.routes.set), (5, 4, 2));
}
