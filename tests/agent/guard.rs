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
