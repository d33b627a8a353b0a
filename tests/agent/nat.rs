//! A Node's InternalIP need not be on an interface (1:1 NAT, cloud controllers): then it is no source.

use super::node::{AgentNode, other, own};
use kit::call::Call;
use kit::pod::Pod;

fn adds_a_pod(node: &AgentNode) {
    let conf = node.conf();
    Call::ferrule("STATUS").on(&node.namespace).conf(&conf).run().success();
    let pod = Pod::new("pod");
    let call = |command: &str| Call::ferrule(command).on(&node.namespace).conf(&conf);
    call("ADD").attachment(pod.container(), pod.namespace().path()).run().result();
    call("DEL").attachment(pod.container(), pod.namespace().path()).run().success();
}

#[test]
fn an_internal_ip_on_no_interface_is_no_source() {
    let mut node = AgentNode::new("nat");
    node.namespace.ip("route add default via 192.0.2.1");
    let mut translated = own();
    translated.internal_ips[0] = "203.0.113.10".into();
    node.api.put(translated);
    node.api.put(other(11));
    node.start_ready();
    node.wait_for_routes_to(&[11]);
    assert_eq!(node.conf()["nodeIPs"], serde_json::json!(["192.0.2.10", "fd00:aa::10"]));
    // To the others and to pods it is this node all the same.
    assert!(node.nft("list set inet ferrule no_masquerade4").contains("203.0.113.10"));
    adds_a_pod(&node);
    // It comes to an interface.
    node.namespace.ip("address add 203.0.113.10/32 dev eth0");
    node.wait("the conf", || node.conf()["nodeIPs"][0] == "203.0.113.10");
    node.wait("the source", || {
        node.peer_routes().contains(&"10.244.11.0/24 via 192.0.2.11 src 203.0.113.10".to_owned())
    });
    adds_a_pod(&node);
}

#[test]
fn pods_come_to_a_node_that_has_lost_a_family() {
    let mut node = AgentNode::new("lost");
    node.api.put(other(11));
    node.start_ready();
    node.namespace.ip("address delete fd00:aa::10/64 dev eth0");
    node.wait("the conf", || node.conf()["nodeIPs"] == serde_json::json!(["192.0.2.10"]));
    adds_a_pod(&node);
}
