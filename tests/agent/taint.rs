//! The startup taint: kubelet registers a node with it, and no pod comes before its network works.

use super::node::{AgentNode, own};
use crate::agent::access::Access;

const TAINT: &str = "ferrule.dev/agent-not-ready";

fn tainted(role: &str) -> AgentNode {
    let node = AgentNode::new(role);
    let mut own = own();
    own.taints = ["node.cloudprovider.kubernetes.io/uninitialized", TAINT, "example.com/gpu"]
        .map(str::to_owned)
        .to_vec();
    node.api.put(own);
    node
}

#[test]
fn the_startup_taint_goes_when_pods_can_have_a_network() {
    let mut node = tainted("taint");
    node.start_ready();
    node.wait("the taint is gone", || node.log().contains("startup taint removed"));
    assert!(node.has("net.d/10-ferrule.conflist"));
    let patches: Vec<_> =
        node.api.written("/api/v1/nodes/node-a").into_iter().filter(|it| it.is_array()).collect();
    assert_eq!(patches.len(), 1, "{patches:?}");
    assert_eq!(patches[0][0]["value"], TAINT);
    assert_eq!(patches[0][1]["path"], "/spec/taints/1");
    // Somebody puts it back, at another place.
    let mut own = own();
    own.taints = vec![TAINT.to_owned()];
    node.api.put(own);
    node.wait("it is gone again", || node.log().matches("startup taint removed").count() == 2);
}

#[test]
fn without_the_right_to_patch_nodes_the_remedy_is_told_once() {
    let mut node = tainted("denied");
    let may = |resource: &str, verb: &str| Access {
        group: String::new(),
        resource: resource.into(),
        verb: verb.into(),
    };
    let mut all: std::collections::BTreeSet<Access> = ["nodes", "pods", "namespaces"]
        .iter()
        .flat_map(|resource| ["list", "watch"].map(|verb| may(resource, verb)))
        .collect();
    all.insert(may("nodes/status", "patch"));
    node.api.allow(all);
    node.start_ready();
    let told = || node.log().matches("deploy/components/startup-taint").count();
    node.wait("the remedy", || told() == 1);
    node.wait("refused again", || node.api.refused("/nodes/node-a") > 1);
    assert_eq!(told(), 1);
}
