//! A pod speaks for itself alone.

use ferrule::datapath::nftables::{add_pod, ensure_no_masquerade};
use ferrule::desired::nftables::element::Protocol::Tcp;

use super::world::{Pod, World, host_port, inside, set};
use crate::harness::traffic::{BRIEF, PATIENT, Server, UdpClient, receives_udp, reply, send_udp, tcp};
use crate::harness::{block_on, ip};

const PORT: u16 = 9000;

fn add(world: &World, pod: &Pod) {
    block_on(async {
        let nft = world.nft();
        super::world::ensure(&nft).await.unwrap();
        ensure_no_masquerade(&nft, &inside()).await.unwrap();
        add_pod(&nft, &pod.elements(&[])).await.unwrap();
    });
}

/// Without the table the packet arrives, so it is the table that stops it.
#[test]
fn a_packet_with_a_source_that_is_not_the_pods_is_dropped_in_both_families() {
    let world = World::new();
    let (pod, neighbour) = (world.pod("a", 10), world.pod("b", 11));
    pod.namespace.ip("address add 10.244.1.99/32 dev eth0");
    pod.namespace.ip("address add fd00:1::99/128 dev eth0 nodad");
    // Of another pod of the node.
    pod.namespace.ip("address add 10.244.1.11/32 dev eth0");
    pod.namespace.ip("address add fd00:1::11/128 dev eth0 nodad");
    let forgeries = [
        ("10.244.1.99", "192.0.2.10"),
        ("fd00:1::99", "fd00:aa::10"),
        ("10.244.1.11", "192.0.2.10"),
        ("fd00:1::11", "fd00:aa::10"),
    ];
    let arrives = |patience, (source, to): (&str, &str)| {
        let send = || send_udp(&pod.namespace, source, to, PORT);
        receives_udp(patience, &world.node, to, PORT, send)
    };
    for forgery in forgeries {
        assert!(arrives(PATIENT, forgery), "{forgery:?} before");
    }
    add(&world, &pod);
    add(&world, &neighbour);
    for forgery in forgeries {
        assert!(!arrives(BRIEF, forgery), "{forgery:?}");
    }
    // Its own go on, to the node and outward.
    for own in [("10.244.1.10", "192.0.2.10"), ("fd00:1::10", "fd00:aa::10")] {
        assert!(arrives(PATIENT, own), "{own:?}");
    }
    let _server = Server::tcp(&world.outside, PORT, "outside");
    assert_eq!(tcp(&pod.namespace, "192.0.2.11", PORT), reply("10.244.1.10", "outside"));
}

#[test]
fn a_link_that_is_no_pods_is_not_looked_at() {
    let world = World::new();
    add(&world, &world.pod("a", 10));
    let foreign = world.pod("b", 11);
    foreign.namespace.ip("address add 10.77.0.1/32 dev eth0");
    let send = || send_udp(&foreign.namespace, "10.77.0.1", "192.0.2.10", PORT);
    assert!(receives_udp(PATIENT, &world.node, "192.0.2.10", PORT, send));
}

#[test]
fn link_local_reaches_the_gateway_and_nobody_else() {
    let world = World::new();
    let pod = world.pod("a", 10);
    // The node has these, on the pod's link: what arrives is seen.
    world.node.ip("address add fe80::1/64 dev vetha nodad");
    world.node.ip("address add fe80::2/64 dev vetha nodad");
    add(&world, &pod);
    pod.namespace.ip("address add fe80::aa/64 dev eth0 nodad");
    pod.namespace.ip("neighbour replace fe80::2 lladdr 02:00:00:00:01:10 dev eth0 nud permanent");
    let (inside_index, outside_index) = (ip::index(&pod.namespace, "eth0"), ip::index(&world.node, "vetha"));
    for (to, arrives) in [("fe80::1", true), ("fe80::2", false)] {
        let send = || {
            send_udp(
                &pod.namespace,
                &format!("fe80::aa%{inside_index}"),
                &format!("{to}%{inside_index}"),
                PORT,
            );
        };
        let patience = if arrives { PATIENT } else { BRIEF };
        let at = format!("{to}%{outside_index}");
        assert_eq!(receives_udp(patience, &world.node, &at, PORT, send), arrives, "{to}");
    }
}

/// Router advertisements (134), redirects (137) and neighbour advertisements (136): the reference is what they do
/// without the table.
#[test]
fn what_a_pod_claims_by_neighbour_discovery_changes_nothing_on_the_node() {
    let world = World::new();
    let pod = world.pod("a", 10);
    set(&world.node, &["ipv6/conf/vetha/accept_ra=2", "ipv6/conf/vetha/accept_ra_defrtr=1"]);
    world.node.ip("address add fe80::1/64 dev vetha nodad");
    pod.namespace.ip("address add fe80::aa/64 dev eth0 nodad");
    pod.namespace.ip("address add fd00:66::1/128 dev eth0 nodad");
    world.node.ip("route add fd00:66::1/128 dev vetha");
    // The node asks who has an address; the pod answers, by its kernel.
    let ask = || send_udp(&world.node, "fd00:aa::10", "fd00:66::1", PORT);
    let learned = || {
        ip::neighbours(&world.node)
            .iter()
            .any(|it| it["dst"] == "fd00:66::1" && it["lladdr"] == "02:00:00:00:02:10")
    };
    add(&world, &pod);
    // A question to nobody is a wait.
    let waits = || UdpClient::new(&pod.namespace, "fd00:1::10").asks_in_vain("fd00:aa::10", PORT);
    ask();
    assert!(waits());
    assert!(!learned(), "{:?}", ip::neighbours(&world.node));
    block_on(async { ferrule::datapath::nftables::remove_table(&world.nft()).await.unwrap() });
    world.node.ip("neighbour flush dev vetha");
    ask();
    let believed = (0..20).any(|_| learned() || !waits());
    assert!(
        believed && learned(),
        "without the table the claim is believed: {:?}",
        ip::neighbours(&world.node)
    );
}

/// CVE-2020-8558: kube-proxy switches route_localnet on for all links.
#[test]
fn the_nodes_loopback_is_reached_neither_from_the_wire_nor_from_a_pod() {
    let world = World::new();
    let pod = world.pod("a", 10);
    set(&world.node, &["ipv4/conf/up0/route_localnet=1", "ipv4/conf/vetha/route_localnet=1"]);
    set(&world.outside, &["ipv4/conf/eth0/route_localnet=1"]);
    set(&pod.namespace, &["ipv4/conf/eth0/route_localnet=1"]);
    world.outside.ip("route add 127.0.0.2/32 via 192.0.2.10");
    pod.namespace.ip("route add 127.0.0.2/32 via 169.254.1.1 dev eth0 onlink");
    let senders = [(&world.outside, "192.0.2.1"), (&pod.namespace, "10.244.1.10")];
    let arrives = |patience, (from, source)| {
        receives_udp(patience, &world.node, "127.0.0.2", PORT, || send_udp(from, source, "127.0.0.2", PORT))
    };
    for sender in senders {
        assert!(arrives(PATIENT, sender), "{} before", sender.1);
    }
    block_on(async {
        let nft = world.prepare().await;
        add_pod(&nft, &pod.elements(&[host_port("", 80, Tcp)])).await.unwrap();
    });
    for sender in senders {
        assert!(!arrives(BRIEF, sender), "{}", sender.1);
    }
    // The node itself goes on.
    assert!(receives_udp(PATIENT, &world.node, "127.0.0.2", PORT, || send_udp(
        &world.node,
        "127.0.0.1",
        "127.0.0.2",
        PORT
    )));
}
