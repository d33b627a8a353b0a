//! What must be told to the API server is told until it is there.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use super::access::Access;
use super::node::{AgentNode, other, own};
use kit::call::Call;
use kit::pod::Pod;

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
    assert_eq!(node.log().matches("events not written").count(), 1, "the reason is told once");
}

/// A ClusterRole of another version, or none.
#[test]
fn a_role_that_allows_nothing_is_told_and_the_next_one_heard() {
    let mut node = AgentNode::new("role");
    node.api.put(other(11));
    node.api.allow(BTreeSet::new());
    node.start();
    node.wait("the reason", || node.log().contains("API server not reachable"));
    assert!(node.log().contains("forbidden"), "{}", node.log());
    assert!(node.page("/readyz").unwrap().contains(" 503 "));
    node.api.allow_all();
    node.wait_for_routes_to(&[11]);
}

fn reasons(node: &AgentNode) -> Vec<String> {
    node.api
        .written("/events")
        .iter()
        .map(|event| format!("{}: {}", event["reason"], event["note"]))
        .collect()
}

/// Where ferrule's own STATUS says no, the runtime says what it says of a conf that it has not loaded.
#[test]
fn why_no_pod_can_be_added_is_told_and_not_the_runtime_blamed() {
    for (role, is_full) in [("full", true), ("ignored", false)] {
        let mut node = AgentNode::new(role);
        let mut small = own();
        small.pod_cidrs = vec!["10.244.1.0/30".into()];
        (small.ready, small.awaits_network) = (false, true);
        node.api.put(small);
        node.start_ready();
        let pod = Pod::new("pod");
        if is_full {
            let call = Call::ferrule("ADD").on(&node.namespace).conf(&node.conf());
            call.attachment(pod.container(), pod.namespace().path()).run().result();
        }
        let (reason, other) = match is_full {
            true => ("\"NoPodCanBeAdded\"", "\"RuntimeIgnoresConf\""),
            false => ("\"RuntimeIgnoresConf\"", "\"NoPodCanBeAdded\""),
        };
        node.wait_within(Duration::from_secs(60), reason, || {
            reasons(&node).iter().any(|it| it.starts_with(reason))
        });
        let told = reasons(&node);
        assert!(!told.iter().any(|it| it.starts_with(other)), "{told:?}");
        assert!(
            !is_full || told.iter().any(|it| it.contains("no free address in 10.244.1.0/30")),
            "{told:?}"
        );
    }
}

/// The client has the certificate authority of when it was made. The token is a file that it reads again.
#[test]
fn it_ends_where_the_certificate_authority_was_replaced() {
    let mut node = AgentNode::new("rotated");
    let files = node.path("serviceaccount");
    fs::create_dir_all(&files).unwrap();
    for (name, text) in [("ca.crt", CA), ("token", "t"), ("namespace", "kube-system")] {
        fs::write(files.join(name), text).unwrap();
    }
    // As kubelet mounts it; the rest of the machine keeps what it has.
    let place = "/var/run/secrets/kubernetes.io/serviceaccount";
    let script = format!(
        "mount -t tmpfs none /run && mkdir -p {place} && mount --bind {} {place} && exec env KUBERNETES_SERVICE_HOST=127.0.0.1 KUBERNETES_SERVICE_PORT=1 \"$@\"",
        files.display()
    );
    node.through = ["unshare", "--mount", "sh", "-c", &script, "sh"].map(str::to_owned).to_vec();
    node.start_ready();
    fs::write(files.join("ca.crt"), format!("{CA}\n")).unwrap();
    node.api.cut();
    node.api.put(other(11));
    node.wait_for_routes_to(&[11]);
    node.api.be_away(true);
    assert!(!node.wait_for_end(), "it says that something is wrong");
    assert!(node.log().contains("certificate authority was replaced"), "{}", node.log());
    node.api.be_away(false);
    node.start_ready();
}

/// A certificate of nobody's.
const CA: &str = "-----BEGIN CERTIFICATE-----
MIIBODCB66ADAgECAhRv1mfjpPI++tbjNq9hxiBO2TKE4DAFBgMrZXAwETEPMA0G
A1UEAwwGbm9ib2R5MCAXDTI2MTEzMDE3MTIwMloYDzIxMjYxMTA2MTcxMjAyWjAR
MQ8wDQYDVQQDDAZub2JvZHkwKjAFBgMrZXADIQDQjxezcMnW9W+dFgKy8r96mjcH
dRCk7QUFcccivkRcFaNTMFEwHQYDVR0OBBYEFFMUn4Q5Bc8TJGLbj6f3eCMZ5F1E
MB8GA1UdIwQYMBaAFFMUn4Q5Bc8TJGLbj6f3eCMZ5F1EMA8GA1UdEwEB/wQFMAMB
Af8wBQYDK2VwA0EALGABlHzrvTNC4+F1PegYBwhTX2gWp63e88U+tfUaVDU54BSc
ufSIUgnZe09pUTXDak2yQzZt94AcBc/Jre+mCQ==
-----END CERTIFICATE-----
";
