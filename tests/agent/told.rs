//! What must be told to the API server is told until it is there.

use std::collections::BTreeSet;

use super::access::Access;
use super::node::{AgentNode, other};

/// A node whose agent may read Nodes, and write nothing; another Node claims what it cannot have.
fn mute(role: &str) -> AgentNode {
    let node = AgentNode::new(role);
    let access = |verb: &str| Access { group: String::new(), resource: "nodes".into(), verb: verb.into() };
    node.api.allow(BTreeSet::from([access("list"), access("watch")]));
    let mut wrong = other(11);
    wrong.pod_cidrs = vec!["169.254.7.0/24".into()];
    node.api.put(wrong);
    node
}

#[test]
fn a_condition_that_is_refused_is_set_when_it_is_allowed() {
    let mut node = mute("condition");
    node.start_ready();
    node.wait("five refusals", || node.api.refused("/nodes/node-a/status") >= 5);
    node.api.allow_all();
    node.wait("the condition", || !node.api.written("/nodes/node-a/status").is_empty());
    assert_eq!(node.log().matches("node condition not set").count(), 1, "the reason is told once");
}

#[test]
fn an_event_that_is_refused_is_written_when_it_is_allowed() {
    let mut node = mute("event");
    node.start_ready();
    node.wait("a refusal", || node.api.refused("/events") > 0);
    node.api.allow_all();
    node.wait("the event", || {
        let events = node.api.written("/events");
        events
            .iter()
            .any(|it| it["reason"] == "ClaimRefused" && it["note"].to_string().contains("169.254.7.0/24"))
    });
    assert_eq!(node.api.written("/events").len(), 1, "once");
}
