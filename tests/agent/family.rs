//! A family that a node does not have takes nothing from the other.

use super::node::{AgentNode, other, own};

const IPV4: &str = "10.244.11.0/24 via 192.0.2.11 src 192.0.2.10";

#[test]
fn a_node_with_one_family_reaches_others_as_they_reach_it() {
    let mut node = AgentNode::new("single");
    node.namespace.ip("address delete fd00:aa::10/64 dev eth0");
    let mut single = own();
    single.internal_ips.pop();
    node.api.put(single);
    node.api.put(other(11));
    node.start_ready();
    node.wait("IPv4 by the link", || node.peer_routes() == [IPV4]);
    assert_eq!(node.namespace.ip("link show type vxlan"), "", "the others have no such device");
    assert_eq!(node.metric("ferrule_routes_desired"), Some(1.0));
    assert_eq!(node.metric("ferrule_routes_programmed"), Some(1.0));
    assert!(node.log().contains("node=node-a problem=\"has no InternalIP of IPv6"), "{}", node.log());
}

#[test]
fn a_node_that_loses_a_family_keeps_the_other() {
    let mut node = AgentNode::new("loses");
    node.api.put(other(11));
    node.start_ready();
    node.wait_for_routes_to(&[11]);
    node.namespace.ip("address delete fd00:aa::10/64 dev eth0");
    node.wait_for_metric("ferrule_address_families_lost", 1.0);
    node.wait("IPv4 by the link", || node.peer_routes() == [IPV4]);
    assert_eq!(node.namespace.ip("link show type vxlan"), "");
    node.wait_for_metric("ferrule_routes_programmed", 1.0);
    assert_eq!(node.metric("ferrule_routes_desired"), Some(2.0));
    node.api.put(other(12));
    node.wait("nor by the next", || node.peer_routes().len() == 2);
    node.wait("the event", || {
        node.api.written("/events").iter().any(|event| event["reason"] == "AddressFamilyLost")
    });
    node.namespace.ip("address add fd00:aa::10/64 dev eth0 nodad");
    node.wait_for_routes_to(&[11, 12]);
    node.wait_for_metric("ferrule_address_families_lost", 0.0);
    node.wait_for_metric("ferrule_routes_programmed", 4.0);
}
