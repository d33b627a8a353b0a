//! `ipMasq` and `nonMasqueradeCIDRs`: who is seen as whom.

use serde_json::json;

use kit::node::{NODE_V4, NODE_V6, Node, OUTSIDE_V4, OUTSIDE_V6};
use kit::pod::{Pod, addresses_of};
use kit::traffic::{Server, reply, tcp};

const PORT: u16 = 9000;

#[test]
fn the_world_sees_the_node_and_a_peer_its_pods_and_what_is_exempt_see_the_pod() {
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
    for gone in [&pod, &other] {
        node.del(gone, &conf);
    }
    node.expect_nothing_left();
}

#[test]
fn without_the_option_the_world_sees_the_pod() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let own = addresses_of(&node.add(&pod, &node.conf()));
    let _server = Server::tcp(node.outside(), PORT, "outside");
    for (to, own) in [OUTSIDE_V4, OUTSIDE_V6].iter().zip(&own) {
        assert_eq!(tcp(pod.namespace(), to, PORT), reply(own, "outside"));
    }
}

/// The exemptions follow the conf: here a peer that came, and one that left.
#[test]
fn a_conf_with_other_peers_counts_from_the_next_add_on_for_the_older_pods_too() {
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
