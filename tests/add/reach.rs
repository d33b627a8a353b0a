//! Who reaches whom: real packets, the first of which must not be lost.

use serde_json::{Value, json};

use kit::ip;
use kit::netns::Namespace;
use kit::nft;
use kit::node::{NODE_V4, NODE_V6, Node, OUTSIDE_V4, OUTSIDE_V6};
use kit::packets::{answers_ping, first_sender, ping, source_seen_over_tcp};
use kit::pod::{Pod, addresses_of, host_link_of};

/// A ping and a TCP connection, which must come from `source`.
fn expect_reached(from: &Namespace, to: &Namespace, address: &str, source: &str) {
    assert!(answers_ping(from, address), "the first packet to {address} was lost");
    let seen = source_seen_over_tcp(from, to, address).unwrap_or_else(|error| panic!("{address}: {error}"));
    assert_eq!(seen.to_string(), source, "source address seen at {address}");
}

/// kubelet's probes: http, tcp and grpc, from the node's own address (calico#2271, #8916).
#[test]
fn the_node_reaches_its_pod_from_its_own_address() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    // Another address that the kernel might choose as well.
    node.namespace().ip("address add 198.18.7.7/24 dev uplink");
    let addresses = addresses_of(&node.add(&pod, &node.conf()));
    expect_reached(node.namespace(), pod.namespace(), &addresses[0], NODE_V4);
    expect_reached(node.namespace(), pod.namespace(), &addresses[1], NODE_V6);
}

#[test]
fn a_pod_reaches_its_node() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let addresses = addresses_of(&node.add(&pod, &node.conf()));
    expect_reached(pod.namespace(), node.namespace(), NODE_V4, &addresses[0]);
    expect_reached(pod.namespace(), node.namespace(), NODE_V6, &addresses[1]);
}

#[test]
fn pods_of_a_node_reach_each_other() {
    let (node, one, other) = (Node::new(), Pod::new("one"), Pod::new("other"));
    let ones = addresses_of(&node.add(&one, &node.conf()));
    let others = addresses_of(&node.add(&other, &node.conf()));
    for family in 0..2 {
        expect_reached(one.namespace(), other.namespace(), &others[family], &ones[family]);
        expect_reached(other.namespace(), one.namespace(), &ones[family], &others[family]);
    }
}

#[test]
fn a_pod_reaches_itself_at_its_own_address() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    for address in addresses_of(&node.add(&pod, &node.conf())) {
        expect_reached(pod.namespace(), pod.namespace(), &address, &address);
    }
}

#[test]
fn the_world_sees_a_pod_under_the_pods_own_address() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let addresses = addresses_of(&node.add(&pod, &node.conf()));
    for (outside, address) in [OUTSIDE_V4, OUTSIDE_V6].iter().zip(&addresses) {
        expect_reached(pod.namespace(), node.outside(), outside, address);
        expect_reached(node.outside(), pod.namespace(), address, outside);
    }
}

/// A packet to an address that no pod has went back and forth between node and router until its time to live was
/// over: "cyber storm" (projectcalico/canal#137).
#[test]
fn an_address_that_no_pod_has_is_unreachable_at_once() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    node.add(&pod, &node.conf());
    for free in ["10.88.0.77", "fd00:88::77"] {
        for from in [pod.namespace(), node.outside()] {
            let (answered, said) = ping(from, free);
            assert!(!answered);
            assert!(said.contains("nreachable"), "{said}");
            assert!(!said.contains("exceeded"), "{said}");
        }
    }
}

/// The effective value is the greater one of `all` and the link's own (cilium#10645), so Ubuntu's `all` of 2 makes the
/// filter a loose one. It is strict all the same for a link that has no address (fib_validate_source,
/// net/ipv4/fib_frontend.c), as the node's ends have none.
#[test]
fn a_pod_cannot_send_with_an_address_that_is_not_its_own() {
    let node = Node::new();
    for all in ["0", "1", "2"] {
        node.namespace().set_sysctl("net/ipv4/conf/all/rp_filter", all);
        let result = expect_no_forgery(&node, &node.conf());
        // Either of the two that prevent it is enough: the kernel's filter, and ferrule's table. The proof that the
        // test can fail: without both, the forged packet is the first.
        let (pod, own) = (&result.0, &result.1);
        let first = || first_sender(pod.namespace(), node.outside(), OUTSIDE_V4, "203.0.113.5", own);
        node.namespace().set_sysctl("net/ipv4/conf/all/rp_filter", "0");
        let filter = format!("net/ipv4/conf/{}/rp_filter", result.2);
        node.namespace().set_sysctl(&filter, "0");
        assert_eq!(first(), *own, "by the table alone");
        nft::run(node.namespace(), "delete table inet ferrule").unwrap();
        node.namespace().set_sysctl(&filter, "1");
        assert_eq!(first(), *own, "by rp_filter alone");
        node.namespace().set_sysctl(&filter, "0");
        assert_eq!(first(), "203.0.113.5");
    }
}

/// The node answers for a named gateway, and its end of the pair stays without an address: with one, a loose filter
/// would be loose.
#[test]
fn nor_where_the_gateway_has_a_name() {
    let node = Node::new();
    let conf = node.conf_with(json!([[{ "subnet": "10.88.0.0/24", "gateway": "10.88.0.1" }]]));
    for all in ["0", "1", "2"] {
        node.namespace().set_sysctl("net/ipv4/conf/all/rp_filter", all);
        expect_no_forgery(&node, &conf);
    }
}

/// Has a new pod send under several addresses; none but its own arrives. The pod, its address and its host link.
fn expect_no_forgery(node: &Node, conf: &Value) -> (Pod, String, String) {
    let (pod, victim) = (Pod::new("pod"), Pod::new("victim"));
    let result = node.add(&pod, conf);
    let own = addresses_of(&result).remove(0);
    let victims = &addresses_of(&node.add(&victim, conf))[0];
    let all = node.namespace().sysctl("net/ipv4/conf/all/rp_filter");
    // Another pod's, one of the pod subnet that is free, one of the world, the node's own.
    for forged in [victims, "10.88.0.99", "203.0.113.5", NODE_V4] {
        pod.namespace().ip(&format!("address add {forged}/32 dev eth0"));
        let first = first_sender(pod.namespace(), node.outside(), OUTSIDE_V4, forged, &own);
        assert_eq!(first, own, "a packet from {forged} got through (all.rp_filter={all})");
    }
    (pod, own, host_link_of(&result))
}

/// A gateway that has a name in the conf is expected to be one: pods have it as next hop, and it answers.
#[test]
fn a_gateway_that_the_conf_names_is_the_next_hop_and_answers() {
    let (node, one, other) = (Node::new(), Pod::new("one"), Pod::new("other"));
    let conf = node.conf_with(json!([
        [{ "subnet": "10.88.0.0/24", "gateway": "10.88.0.1" }],
        [{ "subnet": "fd00:88::/64", "gateway": "fd00:88::1" }],
    ]));
    let result = node.add(&one, &conf);
    let others = addresses_of(&node.add(&other, &conf));
    let gateways = ["10.88.0.1", "fd00:88::1"];
    for (family, gateway) in gateways.iter().enumerate() {
        assert_eq!(result["ips"][family]["gateway"], *gateway);
        let family_flag = ["-4", "-6"][family];
        let default = ip::routes(one.namespace(), &format!("{family_flag} default"));
        assert_eq!(default[0]["gateway"], *gateway);
        for pod in [&one, &other] {
            assert!(answers_ping(pod.namespace(), gateway), "{gateway}");
        }
        assert!(answers_ping(one.namespace(), &others[family]));
        assert!(answers_ping(one.namespace(), [OUTSIDE_V4, OUTSIDE_V6][family]));
    }
    // One of the two goes; the other still has its gateway.
    node.del(&one, &conf);
    for gateway in gateways {
        assert!(answers_ping(other.namespace(), gateway), "{gateway} after the other pod was removed");
    }
}

/// A gateway outside rangeStart..rangeEnd, or outside the subnet's usual place.
#[test]
fn the_gateway_may_be_any_address_of_the_subnet() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let range = json!({ "subnet": "10.88.0.0/24", "rangeStart": "10.88.0.10", "rangeEnd": "10.88.0.11",
                        "gateway": "10.88.0.254" });
    node.add(&pod, &node.conf_with(json!([[range]])));
    assert_eq!(pod.addresses(), ["10.88.0.10/32"]);
    assert!(answers_ping(pod.namespace(), "10.88.0.254"));
    assert!(answers_ping(pod.namespace(), OUTSIDE_V4));
}

/// Subnets that consist of pods' addresses alone: no network address, no broadcast, no gateway.
#[test]
fn the_smallest_subnets_give_out_each_of_their_addresses() {
    let node = Node::new();
    for (subnet, expected) in [
        ("10.88.0.4/31", vec!["10.88.0.4", "10.88.0.5"]),
        ("10.88.0.9/32", vec!["10.88.0.9"]),
        ("fd00:88::4/127", vec!["fd00:88::4", "fd00:88::5"]),
        ("fd00:88::9/128", vec!["fd00:88::9"]),
    ] {
        let conf = node.conf_with(json!([[{ "subnet": subnet }]]));
        let pods: Vec<Pod> = expected.iter().map(|_| Pod::new("pod")).collect();
        let mut given: Vec<String> =
            pods.iter().flat_map(|pod| addresses_of(&node.add(pod, &conf))).collect();
        given.sort();
        assert_eq!(given, expected, "{subnet}");
        for (pod, address) in pods.iter().zip(pods.iter().flat_map(Pod::addresses)) {
            let address = address.split('/').next().unwrap();
            assert!(answers_ping(node.namespace(), address), "{address} of {subnet}");
            assert!(answers_ping(pods[0].namespace(), address), "{address} of {subnet} from its neighbour");
            let outside = if address.contains(':') { OUTSIDE_V6 } else { OUTSIDE_V4 };
            assert!(answers_ping(pod.namespace(), outside), "{outside} from {address}");
        }
        let one_more = Pod::new("pod");
        node.try_add(&one_more, &conf).failure(100);
        pods.iter().for_each(|pod| node.del(pod, &conf));
        node.expect_nothing_left();
    }
}
