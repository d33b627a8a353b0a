//! A node that lacks what the cluster has to give it. The agent says what, and who can put it right.

use rustix::process::Signal;
use serde_json::Value;

use super::api::NodeSpec;
use super::node::{AgentNode, own};

/// What the agent wrote as the condition NetworkUnavailable, in order.
fn conditions(node: &AgentNode) -> Vec<Value> {
    let patches = node.api.written("/nodes/node-a/status");
    let all = patches.iter().flat_map(|body| body["status"]["conditions"].as_array().unwrap().clone());
    all.filter(|it| it["type"] == "NetworkUnavailable").collect()
}

fn has_event(node: &AgentNode, reason: &str, word: &str) -> bool {
    node.api.written("/events").iter().any(|event| {
        event["reason"] == reason
            && event["type"] == "Warning"
            && event["regarding"]["name"] == "node-a"
            && event["note"].as_str().is_some_and(|note| note.contains(word))
    })
}

fn waiting(pod_cidrs: &[&str], addresses: &[&str]) -> NodeSpec {
    let mut node = NodeSpec::new("node-a", pod_cidrs, addresses);
    (node.ready, node.awaits_network) = (false, true);
    node
}

#[test]
fn without_a_podcidr_log_event_and_condition_say_so() {
    let mut node = AgentNode::new("no-range");
    node.api.put(waiting(&[], &["192.0.2.10", "fd00:aa::10"]));
    node.start();
    for who in ["--allocate-node-cidrs", "node-ipam-controller", "docs/install.md"] {
        node.wait(&format!("an event that names {who}"), || has_event(&node, "NoPodCIDR", who));
    }
    node.wait("the condition", || !conditions(&node).is_empty());
    let condition = &conditions(&node)[0];
    assert_eq!((&condition["status"], &condition["reason"]), (&"True".into(), &"NoPodCIDR".into()));
    assert!(condition["message"].as_str().unwrap().contains("node-ipam-controller"), "{condition}");
    let log = node.log();
    assert!(log.contains("no pod can start on this node") && log.contains("node-ipam-controller"), "{log}");
    // Somebody fills it in.
    let mut filled = own();
    (filled.ready, filled.awaits_network) = (false, true);
    node.api.put(filled);
    node.wait("the condition to be over", || {
        conditions(&node).last().is_some_and(|it| it["status"] == "False")
    });
    node.wait("word of it", || node.log().contains("own Node has what pods need"));
    assert!(node.has("net.d/10-ferrule.conflist"));
}

#[test]
fn without_an_address_of_its_family_it_says_so() {
    let mut node = AgentNode::new("no-address");
    node.api.put(waiting(&["fd00:10:1::/64"], &["192.0.2.10"]));
    node.start();
    node.wait("the event", || has_event(&node, "NodeLacksNetwork", "no InternalIP of IPv6"));
    node.wait("the condition", || conditions(&node).iter().any(|it| it["reason"] == "NodeLacksNetwork"));
}

#[test]
fn a_podcidr_that_is_none_is_named() {
    let mut node = AgentNode::new("no-cidr");
    node.api.put(waiting(&["10.244.1.7/24x"], &["192.0.2.10"]));
    node.start();
    node.wait("the event", || has_event(&node, "NoPodCIDR", "10.244.1.7/24x"));
}

#[test]
fn where_there_is_no_such_node_it_says_what_it_looks_for() {
    let mut node = AgentNode::new("nameless");
    node.api.delete("node-a");
    node.start();
    node.wait("the event", || has_event(&node, "NodeNotFound", "FERRULE_NODE_NAME"));
    assert!(conditions(&node).is_empty());
}

/// Another network serves the node: its pods must not lose their place for it.
#[test]
fn a_node_that_is_ready_without_ferrule_keeps_its_condition() {
    let mut node = AgentNode::new("served");
    node.api.put(NodeSpec::new("node-a", &[], &["192.0.2.10"]));
    node.start();
    node.wait("the event", || has_event(&node, "NoPodCIDR", "no podCIDR"));
    assert!(conditions(&node).is_empty());
    // It was not, and becomes so.
    node.api.put(waiting(&[], &["192.0.2.10"]));
    node.wait("the condition", || conditions(&node).last().is_some_and(|it| it["status"] == "True"));
    node.api.put(NodeSpec::new("node-a", &[], &["192.0.2.10"]));
    node.wait("the condition to be over", || {
        conditions(&node).last().is_some_and(|it| it["status"] == "False")
    });
    assert!(node.end(Signal::TERM));
}
