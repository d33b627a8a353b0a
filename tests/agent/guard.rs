//! Where other nodes are reached by a tunnel, its end hears nodes alone.

use rustix::process::Signal;

use super::node::{AgentNode, other};
use kit::call::Call;
use kit::pod::Pod;

fn hears(node: &AgentNode, numbers: &[u8]) -> bool {
    let ends = ["vxlan_peers4", "vxlan_peers6"].map(|set| node.nft(&format!("list set inet ferrule {set}")));
    let count = |text: &str| text.matches("comment \"podnet\"").count();
    node.nft("list set inet ferrule vxlan_ports").contains("udp . 8472")
        && ends.iter().all(|ends| count(ends) == numbers.len())
        && numbers.iter().all(|n| {
            ends[0].contains(&format!("192.0.2.{n} comment"))
                && ends[1].contains(&format!("fd00:aa::{n} comment"))
        })
}

fn is_open(node: &AgentNode) -> bool {
    ["vxlan_ports", "vxlan_peers4", "vxlan_peers6"]
        .iter()
        .all(|set| !node.nft(&format!("list set inet ferrule {set}")).contains("elements"))
}

#[test]
fn the_tunnel_hears_known_nodes_also_after_a_flush() {
    let mut node = AgentNode::new("guard");
    node.words = vec!["--routing".into(), "vxlan".into()];
    node.api.put(other(11));
    node.start_ready();
    node.wait("the first nodes", || hears(&node, &[10, 11]));
    node.api.put(other(12));
    node.wait("one more", || hears(&node, &[10, 11, 12]));
    node.api.delete("node-11");
    node.wait("one less", || hears(&node, &[10, 12]));
    node.nft("flush ruleset");
    node.wait("all of it again", || hears(&node, &[10, 12]));
    node.end(Signal::TERM);
    node.nft("flush ruleset");
    let pod = Pod::new("pod");
    let call = Call::ferrule("ADD").on(&node.namespace).conf(&node.conf());
    call.attachment(pod.container(), pod.namespace().path()).run().result();
    assert!(hears(&node, &[10, 12]), "{}", node.nft("list table inet ferrule"));
    // A runtime's GC takes what is a pod's, and nothing of the network as a whole.
    let mut conf = node.conf();
    conf["cni.dev/valid-attachments"] = serde_json::json!([]);
    Call::ferrule("GC").on(&node.namespace).conf(&conf).run().success();
    assert!(hears(&node, &[10, 12]), "{}", node.nft("list table inet ferrule"));
    assert!(node.nft("list set inet ferrule node_addresses4").contains("192.0.2.10"));
    // The tunnel goes, and with it who may send to it.
    node.words = vec!["--routing".into(), "direct".into()];
    node.start_ready();
    node.wait("nothing of a tunnel", || is_open(&node));
    assert!(!node.has("data/podnet/vxlan_peers"));
}

#[test]
fn without_a_tunnel_nothing_is_kept_from_anybody() {
    let mut node = AgentNode::new("open");
    node.api.put(other(11));
    node.start_ready();
    node.wait_for_routes_to(&[11]);
    assert!(is_open(&node));
}

/// The other end may find out later that the two are on one link, and sends by VXLAN until then.
#[test]
fn a_tunnel_that_no_node_needs_any_more_stays_for_a_while() {
    let mut node = AgentNode::new("idle");
    node.namespace.ip("route add 198.51.100.0/24 via 192.0.2.1");
    let mut away = other(11);
    away.internal_ips = vec!["198.51.100.11".into()];
    away.pod_cidrs = vec!["10.244.11.0/24".into()];
    node.api.put(away.clone());
    node.start_ready();
    let has_device = || !node.namespace.ip("link show type vxlan").is_empty();
    let route = || node.namespace.ip("route show 10.244.11.0/24");
    node.wait("a tunnel", || has_device() && route().contains("dev ferrule-vxlan"));
    away.internal_ips = vec!["192.0.2.11".into()];
    node.api.put(away);
    node.wait("the direct way", || route().contains("via 192.0.2.11 dev eth0"));
    node.wait("who may send to it", || node.nft("list set inet ferrule vxlan_peers4").contains("192.0.2.11"));
    assert!(has_device());
    assert!(node.nft("list set inet ferrule vxlan_ports").contains("udp . 8472"));
    assert_eq!(node.namespace.sh("bridge fdb show dev ferrule-vxlan"), "", "it leads nowhere");
    assert!(!node.log().contains("step failed"), "{}", node.log());
    node.end(Signal::TERM);
    node.words = vec!["--routing".into(), "direct".into()];
    node.start_ready();
    node.wait("its end", || node.namespace.ip("link show type vxlan").is_empty());
}
