//! One bad peer, and other people's routes.

use serde_json::json;

use super::{add_one, conf, peer, peer_routes};
use kit::ip;
use kit::pod::Pod;
use kit::underlay::Underlay;

/// Node 9, reached through a router, and known to that as a host only.
fn far_peer() -> serde_json::Value {
    json!({ "node": "far-away", "podCIDRs": ["10.244.9.0/24"], "nodeIPs": ["172.20.0.9"] })
}

/// One bad node stops all others (kindnet#46, liqo#314); silently unreachable (cilium#24618, #7853).
#[test]
fn a_peer_that_is_not_on_link_is_named_with_the_remedy() {
    let underlay = Underlay::new(1);
    let node = &underlay.nodes[0];
    node.namespace().ip("route add 172.20.0.0/16 via 192.168.77.254");
    let nowhere = json!({ "node": "nowhere", "podCIDRs": ["10.244.8.0/24"], "nodeIPs": ["172.30.0.8"] });
    let conf = conf(node, "podnet", 0, vec![far_peer(), peer(1), nowhere, peer(2)]);
    let stderr = add_one(node, &conf, "c1");
    let said = |words: &[&str]| stderr.lines().any(|line| words.iter().all(|word| line.contains(word)));
    assert!(said(&["far-away", "172.20.0.9", "192.168.77.254", "not on-link", "Give a nodeIP"]), "{stderr}");
    assert!(said(&["nowhere", "172.30.0.8", "no route"]), "{stderr}");
    assert_eq!(stderr.lines().count(), 2, "one line for each bad peer and none for the good: {stderr}");
    assert_eq!(peer_routes(node).len(), 4);
    // A node with one bad neighbour is in service.
    node.status(&conf).success();
}

/// With a log file the line goes there, where an administrator looks.
#[test]
fn a_bad_peer_is_told_in_the_log_file_where_the_conf_names_one() {
    let underlay = Underlay::new(1);
    let node = &underlay.nodes[0];
    let mut conf = conf(node, "podnet", 0, vec![far_peer(), peer(1)]);
    let log = node.scratch().path().join("ferrule.log");
    conf["log"] = json!({ "file": log });
    assert_eq!(add_one(node, &conf, "c1"), "");
    let told = std::fs::read_to_string(&log).unwrap();
    assert!(told.contains(" level=warn ") && told.contains("far-away"), "{told}");
}

/// A node whose uplink is down or whose list is wrong altogether says so (code 51).
#[test]
fn status_is_limited_only_if_no_peer_can_be_reached() {
    let underlay = Underlay::new(1);
    let node = &underlay.nodes[0];
    let conf = conf(node, "podnet", 0, vec![peer(0), peer(1), peer(2)]);
    add_one(node, &conf, "c1");
    node.status(&conf).success();
    node.namespace().ip("link set up0 down");
    let error = node.status(&conf).failure(51);
    assert!(error["details"].as_str().unwrap().contains("node-2"), "{error}");
}

/// A peer that cannot be routed to is tried again by each ADD; nobody needs to restart anything.
#[test]
fn a_bad_peer_is_tried_again_by_the_next_add() {
    let underlay = Underlay::new(1);
    let node = &underlay.nodes[0];
    let conf = conf(node, "podnet", 0, vec![far_peer(), peer(1)]);
    assert!(add_one(node, &conf, "c1").contains("far-away"));
    // Meanwhile the good ones are looked after as ever.
    super::delete(node, &["10.244.1.0/24 via 192.168.77.11".to_owned()]);
    assert!(add_one(node, &conf, "c2").contains("far-away"), "still bad");
    assert_eq!(peer_routes(node).len(), 2);
    node.namespace().ip("address add 172.20.0.1/16 dev up0");
    assert_eq!(add_one(node, &conf, "c3"), "");
    assert!(peer_routes(node).contains(&"10.244.9.0/24 via 172.20.0.9".to_owned()));
}

/// "ferrule removed my route" must never be said.
#[test]
fn foreign_routes_are_untouched_be_it_to_the_same_subnet() {
    let underlay = Underlay::new(1);
    let node = &underlay.nodes[0];
    node.namespace().ip_batch(
        "route add 10.244.1.0/24 via 192.168.77.200 proto 186\n\
         route add 10.244.2.0/24 via 192.168.77.200 metric 50 proto static\n\
         route add 10.66.0.0/16 via 192.168.77.200\n\
         route add 10.67.0.0/16 via 192.168.77.200 proto 102\n\
         route add fd00:244:1::/64 via fd77::200 proto 186\n\
         route add fd00:66::/64 via fd77::200\n",
    );
    let foreign = || {
        let both = ["-4", "-6"].map(|family| ip::routes(node.namespace(), family)).concat();
        let hop = |route: &serde_json::Value| route["gateway"].as_str().unwrap_or_default().ends_with("200");
        both.into_iter().filter(hop).collect::<Vec<_>>()
    };
    let before = foreign();
    assert_eq!(before.len(), 6);
    let with_peers = conf(node, "podnet", 0, vec![peer(1), peer(2)]);
    let ours = || peer_routes(node).into_iter().filter(|route| !route.ends_with("200")).count();
    add_one(node, &with_peers, "c1");
    assert_eq!((foreign(), ours()), (before.clone(), 4));
    add_one(node, &with_peers, "c2");
    assert_eq!((foreign(), ours()), (before.clone(), 4));
    add_one(node, &conf(node, "podnet", 0, vec![]), "c3");
    assert_eq!((foreign(), ours()), (before, 0));
}

/// Multus and podman make several networks on one node.
#[test]
fn two_networks_on_a_node_do_not_remove_each_others_routes() {
    let underlay = Underlay::new(1);
    let node = &underlay.nodes[0];
    let blue = conf(node, "blue", 0, vec![peer(1)]);
    let red = conf(node, "red", 3, vec![peer(2)]);
    // nodeIPs of the second are the node's as well.
    let red = {
        let mut red = red;
        red["nodeIPs"] = blue["nodeIPs"].clone();
        red
    };
    for round in 0..3 {
        add_one(node, &blue, &format!("blue-{round}"));
        add_one(node, &red, &format!("red-{round}"));
    }
    assert_eq!(peer_routes(node).len(), 4);
    // Even with the same peer in both, the one that is left keeps its route.
    let red = {
        let mut red = red;
        red["peers"] = json!([peer(1)]);
        red
    };
    add_one(node, &red, "red-same");
    assert_eq!(peer_routes(node).len(), 4);
    let blue = {
        let mut blue = blue;
        blue["peers"] = json!([]);
        blue
    };
    add_one(node, &blue, "blue-none");
    assert_eq!(peer_routes(node), ["10.244.1.0/24 via 192.168.77.11", "fd00:244:1::/64 via fd77::11"]);
}

/// Each `Namespace` is its own; the node's namespace made anew has no routes, though the store survived.
#[test]
fn a_node_whose_namespace_was_made_anew_gets_its_routes() {
    let before = Underlay::new(1);
    let conf = conf(&before.nodes[0], "podnet", 0, vec![peer(1)]);
    add_one(&before.nodes[0], &conf, "c1");
    let after = Underlay::new(1);
    after.nodes[0].add(&Pod::with_container("c2"), &conf);
    assert_eq!(peer_routes(&after.nodes[0]).len(), 2);
}
