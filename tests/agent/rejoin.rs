//! A machine that joins again has the files of before, and another range.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;

use super::api::NodeSpec;
use super::node::{AgentNode, other, own};
use kit::call::Call;
use kit::pod::Pod;

const CONF: &str = "net.d/10-ferrule.conflist";

/// A node that ran an agent, and whose files are as `kubeadm reset` leaves them to people: no conf, but all else.
fn left(role: &str) -> AgentNode {
    let mut node = AgentNode::new(role);
    node.api.put(other(11));
    node.start_ready();
    node.wait_for_routes_to(&[11]);
    node.wait("its memory", || node.has("data/podnet/agent.json"));
    node.end(Signal::TERM);
    fs::remove_file(node.path(CONF)).unwrap();
    node
}

/// Its Node, with a range of these.
fn again(pod_cidrs: &[&str]) -> NodeSpec {
    NodeSpec::new("node-a", pod_cidrs, &["192.0.2.10", "fd00:aa::10"])
}

/// Waits for the conf; no conf before that may name the range of before.
fn first_conf(node: &AgentNode) -> String {
    node.wait("the conf", || node.has(CONF));
    node.conf()["ipam"]["ranges"].to_string()
}

/// The range of before is another node's by now.
#[test]
fn its_first_pod_has_an_address_of_the_new_range() {
    let mut node = left("again");
    node.namespace.ip("route flush proto 102");
    let mut another = other(12);
    another.pod_cidrs = own().pod_cidrs;
    node.api.delete("node-a");
    node.api.put(another);
    node.api.put(again(&["10.244.7.0/24"]));
    node.api.be_away(true);
    node.start();
    // Nothing else waits for the API server.
    let is_routed = || node.peer_routes().iter().any(|it| it.starts_with("10.244.11.0/24 via 192.0.2.11"));
    node.wait_within(Duration::from_secs(5), "what it last knew", is_routed);
    node.wait("the table", || node.nft("list table inet ferrule").contains("fully-random"));
    std::thread::sleep(Duration::from_secs(1));
    assert!(!node.has(CONF), "{}", node.log());
    node.api.be_away(false);
    assert_eq!(first_conf(&node), r#"[[{"subnet":"10.244.7.0/24"}]]"#);
    let pod = Pod::new("pod");
    let call = Call::ferrule("ADD").on(&node.namespace).conf(&node.conf());
    let result = call.attachment(pod.container(), pod.namespace().path()).run().result();
    assert_eq!(result["ips"][0]["address"], "10.244.7.2/32");
    assert_eq!(node.log().matches("conf written").count(), 2, "once in each life: {}", node.log());
}

/// Its Node gets its range after the agent has heard of it.
#[test]
fn it_waits_for_its_range_and_so_does_its_taint() {
    let mut node = left("late");
    let mut without = again(&[]);
    without.taints = vec!["ferrule.dev/agent-not-ready".to_owned()];
    node.api.put(without);
    node.start();
    node.wait("word of it", || node.log().contains("has no podCIDR"));
    // Longer than it waits for an API server, which it has heard.
    std::thread::sleep(Duration::from_secs(12));
    assert!(!node.has(CONF), "{}", node.log());
    assert!(node.page("/readyz").unwrap().contains(" 503 "));
    assert!(!node.log().contains("startup taint removed"), "{}", node.log());
    node.api.put(again(&["10.244.7.0/24"]));
    assert_eq!(first_conf(&node), r#"[[{"subnet":"10.244.7.0/24"}]]"#);
    node.wait("ready", || node.page("/readyz").is_some_and(|page| page.contains(" 200 ")));
}

/// With a conf of before, its pods start all the same; the taint is what keeps them away.
#[test]
fn a_node_without_its_range_is_not_said_to_be_ready() {
    let mut node = AgentNode::new("stale");
    node.start_ready();
    node.end(Signal::TERM);
    let mut without = again(&[]);
    without.taints = vec!["ferrule.dev/agent-not-ready".to_owned()];
    node.api.put(without);
    node.start();
    node.wait("word of it", || node.log().contains("has no podCIDR"));
    // The taint would go within two seconds.
    std::thread::sleep(Duration::from_secs(5));
    assert!(node.page("/readyz").unwrap().contains(" 503 "));
    assert!(!node.log().contains("startup taint removed"), "{}", node.log());
    assert!(node.has(CONF), "pods that end need it");
    let mut ready = again(&["10.244.7.0/24"]);
    ready.taints = vec!["ferrule.dev/agent-not-ready".to_owned()];
    node.api.put(ready);
    node.wait("the taint is gone", || node.log().contains("startup taint removed"));
    assert!(node.conf().to_string().contains("10.244.7.0/24"));
}

/// A restart of the agent, or of a node whose conf is on disk, waits for nobody.
#[test]
fn a_conf_that_is_there_is_kept_without_the_api_server() {
    let mut node = AgentNode::new("present");
    node.start_ready();
    node.wait("its memory", || node.has("data/podnet/agent.json"));
    node.end(Signal::TERM);
    let first = node.conf();
    node.api.be_away(true);
    node.words = vec!["--mtu".into(), "1380".into()];
    node.start();
    node.wait_within(Duration::from_secs(5), "the conf", || node.conf()["mtu"] == 1380);
    assert_eq!(node.conf()["ipam"], first["ipam"]);
}
