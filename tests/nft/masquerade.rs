//! Who is seen where.

use ferrule::datapath::nftables::add_pod;

use super::world::{World, run_nft};
use crate::harness::block_on;
use crate::harness::netns::Namespace;
use crate::harness::traffic::{Server, reply, tcp};

const PORT: u16 = 9000;

/// The world and the addresses of what is inside: a node, a pod of another node.
const OUTSIDE: [&str; 2] = ["192.0.2.1", "fd00:aa::1"];
const INSIDE: [&str; 4] = ["192.0.2.11", "10.244.2.5", "fd00:aa::11", "fd00:2::5"];

/// flannel#734, flannel#964, kubernetes#56903
#[test]
fn the_world_sees_the_node_and_the_cluster_sees_the_pod() {
    let world = World::new();
    let (pod, other) = (world.pod("a", 10), world.pod("b", 11));
    block_on(async {
        let nft = world.prepare().await;
        for pod in [&pod, &other] {
            add_pod(&nft, &pod.rules(true, &[]).elements()).await.unwrap();
        }
    });
    let _servers = [
        Server::tcp(&world.outside, PORT, "outside"),
        Server::tcp(&other.namespace, PORT, "other"),
        Server::tcp(&world.node, PORT, "node"),
    ];
    let own = |to: &str| if to.contains(':') { "fd00:1::10" } else { "10.244.1.10" };
    for (to, node) in OUTSIDE.into_iter().zip(["192.0.2.10", "fd00:aa::10"]) {
        assert_eq!(tcp(&pod.namespace, to, PORT), reply(node, "outside"), "{to}");
    }
    for to in INSIDE {
        assert_eq!(tcp(&pod.namespace, to, PORT), reply(own(to), "outside"), "{to}");
    }
    for to in ["10.244.1.11", "fd00:1::11"] {
        assert_eq!(tcp(&pod.namespace, to, PORT), reply(own(to), "other"), "{to}");
    }
    for to in ["192.0.2.10", "192.0.2.110", "fd00:aa::10"] {
        assert_eq!(tcp(&pod.namespace, to, PORT), reply(own(to), "node"), "{to}");
    }
    let listed = world.list("list chain inet ferrule postrouting");
    assert_eq!(listed.matches("masquerade fully-random").count(), 2, "{listed}");
}

#[test]
fn a_network_without_the_option_is_seen_as_it_is_beside_one_with_it() {
    let world = World::new();
    let (with, without) = (world.pod("a", 10), world.pod("b", 11));
    block_on(async {
        let nft = world.prepare().await;
        add_pod(&nft, &with.rules(true, &[]).elements()).await.unwrap();
        add_pod(&nft, &without.rules(false, &[]).elements()).await.unwrap();
    });
    let _server = Server::tcp(&world.outside, PORT, "outside");
    assert_eq!(tcp(&with.namespace, "192.0.2.1", PORT), reply("192.0.2.10", "outside"));
    assert_eq!(tcp(&without.namespace, "192.0.2.1", PORT), reply("10.244.1.11", "outside"));
    assert_eq!(tcp(&without.namespace, "fd00:aa::1", PORT), reply("fd00:1::11", "outside"));
}

/// A node may be a router for others too: what it forwards is theirs.
#[test]
fn foreign_traffic_that_the_node_forwards_keeps_its_source() {
    let world = World::new();
    let pod = world.pod("a", 10);
    block_on(async {
        let nft = world.prepare().await;
        add_pod(&nft, &pod.rules(true, &[]).elements()).await.unwrap();
    });
    let foreign = Namespace::new("foreign");
    world.node.ip(&format!("link add lan0 type veth peer eth0 netns {}", foreign.name()));
    world.node.ip_batch("address add 10.50.0.1/24 dev lan0\nlink set lan0 up\n");
    super::world::set(&world.node, &["ipv4/conf/lan0/rp_filter=0"]);
    foreign
        .ip_batch("address add 10.50.0.2/24 dev eth0\nlink set eth0 up\nroute add default via 10.50.0.1\n");
    world.outside.ip("route add 10.50.0.0/24 via 192.0.2.10");
    let _server = Server::tcp(&world.outside, PORT, "outside");
    assert_eq!(tcp(&foreign, "192.0.2.1", PORT), reply("10.50.0.2", "outside"));
}

/// kube-proxy marks what it masquerades itself, with an address of its own choice.
#[test]
fn what_kube_proxy_has_marked_is_left_to_it() {
    let world = World::new();
    let pod = world.pod("a", 10);
    block_on(async {
        let nft = world.prepare().await;
        add_pod(&nft, &pod.rules(true, &[]).elements()).await.unwrap();
    });
    run_nft(
        &world.node,
        ["-f", "-"],
        "table ip kube-proxy {
            chain services {
                type filter hook prerouting priority mangle;
                tcp dport 9000 meta mark set mark or 0x4000
            }
            chain leaving {
                type nat hook postrouting priority srcnat + 5;
                mark and 0x4000 != 0 snat to 192.0.2.110
            }
        }",
    );
    let _servers =
        [Server::tcp(&world.outside, PORT, "outside"), Server::tcp(&world.outside, PORT + 1, "outside")];
    assert_eq!(tcp(&pod.namespace, "192.0.2.1", PORT), reply("192.0.2.110", "outside"));
    assert_eq!(tcp(&pod.namespace, "192.0.2.1", PORT + 1), reply("192.0.2.10", "outside"));
}
