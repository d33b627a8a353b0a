//! `ipMasq` and `nonMasqueradeCIDRs`: who is seen as whom.

use serde_json::json;

use kit::netns::Namespace;
use kit::nft;
use kit::node::{NODE_V4, NODE_V6, Node, OUTSIDE_V4, OUTSIDE_V6};
use kit::pod::{Pod, addresses_of};
use kit::traffic::{Server, reply, tcp};

const PORT: u16 = 9000;

#[test]
fn the_world_sees_the_node_and_the_cluster_sees_the_pod() {
    let (node, pod, other) = (Node::new(), Pod::new("pod"), Pod::new("other"));
    // The host outside is the world, a peer, one of that peer's pods, and something that is exempt.
    let outside = node.outside();
    outside.ip_batch(
        "address add 198.18.0.77/32 dev down\naddress add 10.88.7.7/32 dev down\naddress add 203.0.113.9/32 dev down\n\
         address add fd00:18::77/128 dev down nodad\naddress add fd00:88:7::7/128 dev down nodad\n",
    );
    let mut conf = node.conf();
    conf["ipMasq"] = json!(true);
    conf["nonMasqueradeCIDRs"] = json!(["203.0.113.0/24"]);
    conf["peers"] = json!([{
        "node": "peer", "podCIDRs": ["10.88.7.0/24", "fd00:88:7::/64"], "nodeIPs": ["198.18.0.77", "fd00:18::77"],
    }]);
    let own = addresses_of(&node.add(&pod, &conf));
    let others = addresses_of(&node.add(&other, &conf));
    let _servers = [
        Server::tcp(outside, PORT, "outside"),
        Server::tcp(other.namespace(), PORT, "other"),
        Server::tcp(node.namespace(), PORT, "node"),
    ];
    let seen = |to: &str| tcp(pod.namespace(), to, PORT);
    assert_eq!(seen(OUTSIDE_V4), reply(NODE_V4, "outside"));
    assert_eq!(seen(OUTSIDE_V6), reply(NODE_V6, "outside"));
    for to in ["198.18.0.77", "10.88.7.7", "203.0.113.9"] {
        assert_eq!(seen(to), reply(&own[0], "outside"), "{to}");
    }
    for to in ["fd00:18::77", "fd00:88:7::7"] {
        assert_eq!(seen(to), reply(&own[1], "outside"), "{to}");
    }
    for (to, own) in others.iter().zip(&own) {
        assert_eq!(seen(to), reply(own, "other"));
    }
    for (to, own) in [NODE_V4, NODE_V6].iter().zip(&own) {
        assert_eq!(seen(to), reply(own, "node"));
    }
    let listed = nft::run(node.namespace(), "list table inet ferrule").unwrap();
    assert_eq!(listed.matches("masquerade fully-random").count(), 2, "{listed}");
    for gone in [&pod, &other] {
        node.del(gone, &conf);
    }
    node.expect_nothing_left();
}

/// Also beside a pod that has it.
#[test]
fn without_the_option_the_world_sees_the_pod() {
    let (node, pod, other) = (Node::new(), Pod::new("pod"), Pod::new("other"));
    let mut conf = node.conf();
    conf["ipMasq"] = json!(true);
    node.add(&other, &conf);
    let own = addresses_of(&node.add(&pod, &node.conf()));
    let _server = Server::tcp(node.outside(), PORT, "outside");
    for (to, own) in [OUTSIDE_V4, OUTSIDE_V6].iter().zip(&own) {
        assert_eq!(tcp(pod.namespace(), to, PORT), reply(own, "outside"));
    }
    assert_eq!(tcp(other.namespace(), OUTSIDE_V4, PORT), reply(NODE_V4, "outside"));
}

/// A node may be a router for others too: what it forwards is theirs.
#[test]
fn foreign_traffic_that_the_node_forwards_keeps_its_source() {
    let (node, pod, foreign) = (Node::new(), Pod::new("pod"), Namespace::new("foreign"));
    let mut conf = node.conf();
    conf["ipMasq"] = json!(true);
    node.add(&pod, &conf);
    node.namespace().ip(&format!("link add lan0 type veth peer eth0 netns {}", foreign.name()));
    node.namespace().ip_batch("address add 10.50.0.1/24 dev lan0\nlink set lan0 up\n");
    foreign
        .ip_batch("address add 10.50.0.2/24 dev eth0\nlink set eth0 up\nroute add default via 10.50.0.1\n");
    node.outside().ip(&format!("route add 10.50.0.0/24 via {NODE_V4}"));
    let _server = Server::tcp(node.outside(), PORT, "outside");
    assert_eq!(tcp(&foreign, OUTSIDE_V4, PORT), reply("10.50.0.2", "outside"));
}

/// kube-proxy marks what it masquerades itself, with an address of its own choice.
#[test]
fn what_kube_proxy_has_marked_is_left_to_it() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    node.namespace().ip("address add 198.18.0.102/24 dev uplink");
    let mut conf = node.conf();
    conf["ipMasq"] = json!(true);
    node.add(&pod, &conf);
    nft::load(
        node.namespace(),
        "table ip kube-proxy {
            chain services {
                type filter hook prerouting priority mangle;
                tcp dport 9000 meta mark set mark or 0x4000
            }
            chain leaving {
                type nat hook postrouting priority srcnat + 5;
                mark and 0x4000 != 0 snat to 198.18.0.102
            }
        }",
    );
    let _servers = [PORT, PORT + 1].map(|port| Server::tcp(node.outside(), port, "outside"));
    assert_eq!(tcp(pod.namespace(), OUTSIDE_V4, PORT), reply("198.18.0.102", "outside"));
    assert_eq!(tcp(pod.namespace(), OUTSIDE_V4, PORT + 1), reply(NODE_V4, "outside"));
}

/// The exemptions follow the conf: here a peer that came, and one that left.
#[test]
fn a_change_of_peers_counts_for_older_pods_from_the_next_add_on() {
    let (node, pod, later) = (Node::new(), Pod::new("pod"), Pod::new("later"));
    node.outside().ip("address add 198.18.0.77/32 dev down");
    let _server = Server::tcp(node.outside(), PORT, "outside");
    let mut conf = node.conf();
    conf["ipMasq"] = json!(true);
    let own = &addresses_of(&node.add(&pod, &conf))[0];
    assert_eq!(tcp(pod.namespace(), "198.18.0.77", PORT), reply(NODE_V4, "outside"));
    let peer = json!([{ "node": "peer", "podCIDRs": ["10.88.7.0/24"], "nodeIPs": ["198.18.0.77"] }]);
    for (peers, seen) in [(peer, own.as_str()), (json!([]), NODE_V4)] {
        conf["peers"] = peers;
        node.add(&later, &conf);
        assert_eq!(tcp(pod.namespace(), "198.18.0.77", PORT), reply(seen, "outside"));
        node.del(&later, &conf);
    }
}
