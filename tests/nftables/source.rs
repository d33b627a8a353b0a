//! A pod speaks for itself only. (That it teaches its node nothing is in `security`.)

use serde_json::json;

use kit::netns::Namespace;
use kit::nft;
use kit::node::{NODE_V4, Node, OUTSIDE_V4, OUTSIDE_V6};
use kit::packets::first_sender;
use kit::pod::{Pod, addresses_of};
use kit::traffic::{BRIEF, PATIENT, receives_udp, send_udp};

/// IPv6 has no rp_filter.
#[test]
fn a_pod_cannot_send_with_an_ipv6_address_that_is_not_its_own() {
    let (node, pod, victim) = (Node::new(), Pod::new("pod"), Pod::new("victim"));
    let own = addresses_of(&node.add(&pod, &node.conf())).remove(1);
    let victims = addresses_of(&node.add(&victim, &node.conf())).remove(1);
    let send = |forged: &str| first_sender(pod.namespace(), node.outside(), OUTSIDE_V6, forged, &own);
    for forged in [victims.as_str(), "fd00:88::99", "2001:db8::5"] {
        pod.namespace().ip(&format!("address add {forged}/128 dev eth0 nodad"));
        assert_eq!(send(forged), own, "a packet from {forged} got through");
    }
    // The proof that the test can fail.
    nft::run(node.namespace(), "delete table inet ferrule").unwrap();
    assert_eq!(send("2001:db8::5"), "2001:db8::5");
}

#[test]
fn a_link_that_is_no_pods_is_not_looked_at() {
    let (node, pod, foreign) = (Node::new(), Pod::new("pod"), Namespace::new("foreign"));
    node.add(&pod, &node.conf());
    node.namespace().ip(&format!("link add lan0 type veth peer eth0 netns {}", foreign.name()));
    node.namespace().ip_batch("link set lan0 up\nroute add 10.77.0.1/32 dev lan0\n");
    foreign.ip_batch("link set eth0 up\naddress add 10.77.0.1/32 dev eth0\nroute add default dev eth0\n");
    let send = || send_udp(&foreign, "10.77.0.1", NODE_V4, 9000);
    assert!(receives_udp(PATIENT, node.namespace(), NODE_V4, 9000, send));
}

/// CVE-2020-8558: kube-proxy switches route_localnet on for all links.
#[test]
fn the_nodes_loopback_is_not_reached_from_the_wire() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    node.namespace().set_sysctl("net/ipv4/conf/uplink/route_localnet", "1");
    // 127/8 is nobody's there, and may be sent to the node.
    node.outside().ip("link set lo down");
    node.outside().set_sysctl("net/ipv4/conf/down/route_localnet", "1");
    node.outside().ip(&format!("route add 127.0.0.2/32 via {NODE_V4}"));
    let arrives = |patience, from: &Namespace, source: &str| {
        receives_udp(patience, node.namespace(), "127.0.0.2", 9000, || {
            send_udp(from, source, "127.0.0.2", 9000)
        })
    };
    assert!(arrives(PATIENT, node.outside(), OUTSIDE_V4), "before");
    let mut conf = node.conf();
    conf["runtimeConfig"] = json!({ "portMappings": [{ "hostPort": 80, "containerPort": 8080 }] });
    node.add(&pod, &conf);
    assert!(!arrives(BRIEF, node.outside(), OUTSIDE_V4));
    // The node itself goes on.
    assert!(arrives(PATIENT, node.namespace(), "127.0.0.1"));
}
