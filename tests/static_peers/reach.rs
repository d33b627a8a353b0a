//! Every pod reaches every pod on every node, and the routes for that say whose they are.

use serde_json::{Value, json};

use super::{OURS, conf, peer, peer_routes};
use kit::ip;
use kit::packets::{answers_ping, source_seen_over_tcp};
use kit::pod::{Pod, addresses_of};
use kit::underlay::Underlay;

/// Three nodes with the same list of peers, themselves in it (docs/design.md, promises 1 to 3).
#[test]
fn pods_of_three_nodes_reach_each_other_with_their_own_address() {
    let underlay = Underlay::new(3);
    let all: Vec<Value> = (0..3).map(peer).collect();
    let mut pods = Vec::new();
    for (n, node) in underlay.nodes.iter().enumerate() {
        for copy in 0..2 {
            let pod = Pod::with_container(&format!("pod-{n}-{copy}"));
            let result = node.add(&pod, &conf(node, "podnet", n, all.clone()));
            pods.push((n, addresses_of(&result), pod));
        }
    }
    for (n, from_addresses, from) in &pods {
        for (_, to_addresses, to) in &pods {
            for (source, target) in from_addresses.iter().zip(to_addresses) {
                let seen =
                    source_seen_over_tcp(from.namespace(), to.namespace(), target).unwrap_or_else(|error| {
                        panic!(
                            "{source} to {target}: {error}; node {n} has {:#?}",
                            peer_routes(&underlay.nodes[*n])
                        )
                    });
                assert_eq!(seen.to_string(), *source, "to {target}");
            }
        }
    }
    // A node's own processes reach the pods of the other nodes, and pods reach the other nodes.
    for target in &pods[5].1 {
        assert!(answers_ping(underlay.nodes[0].namespace(), target), "node 0 to {target}");
    }
    for target in ["192.168.77.12", "fd77::12"] {
        assert!(answers_ping(pods[0].2.namespace(), target), "a pod of node 0 to node 2 at {target}");
    }
}

/// On a node with several addresses kubelet's probes must not leave with another's (calico#2271, kr#549).
#[test]
fn each_peer_route_has_our_protocol_a_metric_and_the_source() {
    let underlay = Underlay::new(1);
    let node = &underlay.nodes[0];
    node.namespace()
        .ip_batch("address add 192.168.77.99/24 dev up0\naddress add fd77::99/64 dev up0 nodad\n");
    let mut conf = conf(node, "podnet", 0, vec![peer(1), peer(2)]);
    conf["nodeIPs"] = json!(["192.168.77.99", "fd77::99"]);
    super::add_one(node, &conf, "c1");
    let mut metrics = Vec::new();
    for (family, source) in [("-4", "192.168.77.99"), ("-6", "fd77::99")] {
        let mut routes = ip::routes(node.namespace(), &format!("{family} {OURS}"));
        routes.retain(|route| route.get("gateway").is_some());
        assert_eq!(routes.len(), 2, "{routes:#?}");
        for route in &routes {
            assert_eq!((&route["prefsrc"], &route["dev"]), (&json!(source), &json!("up0")));
            metrics.push(route["metric"].as_u64().expect("a metric of its own"));
        }
    }
    metrics.dedup();
    assert_eq!(metrics.len(), 1, "one metric for all routes of a network: {metrics:?}");
}

/// All nodes may have one list. The entry of the node itself makes no route, and no trouble.
#[test]
fn a_list_may_have_this_node_anywhere() {
    let underlay = Underlay::new(1);
    let node = &underlay.nodes[0];
    // As on a tunnel: the MTU is not everybody's default.
    node.namespace().ip("link set up0 mtu 1400");
    for (at, order) in [[0, 1, 2], [1, 0, 2], [1, 2, 0]].into_iter().enumerate() {
        let conf = conf(node, "podnet", 0, order.map(peer).to_vec());
        let pod = Pod::with_container(&format!("c{at}"));
        let answer = node.try_add(&pod, &conf);
        answer.result();
        assert_eq!(answer.stderr, "", "{order:?}");
        assert_eq!(
            peer_routes(node),
            [
                "10.244.1.0/24 via 192.168.77.11",
                "10.244.2.0/24 via 192.168.77.12",
                "fd00:244:1::/64 via fd77::11",
                "fd00:244:2::/64 via fd77::12"
            ]
        );
        // The MTU is that of the link to the others, not of the node's way to itself.
        assert_eq!(ip::link(pod.namespace(), "eth0").unwrap()["mtu"], 1400, "{order:?}");
    }
}
