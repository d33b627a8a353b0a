//! `ferrulectl sync` makes again what the node has lost, or never knew; doctor says that it is missing.

use serde_json::{Value, json};

use super::{install, text, verb};
use kit::node::Node;
use kit::pod::Pod;
use kit::traffic::{Server, tcp};

/// An address that comes to the node when its pods run.
const LATER: &str = "198.18.0.102";

/// The node's conf, installed.
fn installed(node: &Node) -> Value {
    node.namespace().set_sysctl("net/ipv4/conf/all/rp_filter", "0");
    let conf = node.conf();
    install(node, "10-ferrule.conflist", &conf);
    conf
}

#[test]
fn an_address_that_came_later_answers_on_hostports() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let mut conf = installed(&node);
    conf["runtimeConfig"] = json!({ "portMappings": [{ "hostPort": 443, "containerPort": 8080 }] });
    node.add(&pod, &conf);
    let (_of_node, _of_pod) =
        (Server::tcp(node.namespace(), 443, "node"), Server::tcp(pod.namespace(), 8080, "pod"));
    node.namespace().ip(&format!("address add {LATER}/24 dev uplink"));
    let asked = || tcp(pod.namespace(), LATER, 443).map(|it| it.server);
    assert_eq!(asked().as_deref(), Some("node"));
    let doctor = verb(&node, "doctor").run();
    assert!(text(&doctor).contains(LATER) && !doctor.status.success(), "{doctor:?}");
    verb(&node, "sync").run();
    assert_eq!(asked().as_deref(), Some("pod"));
    let doctor = verb(&node, "doctor").run();
    assert!(!text(&doctor).contains(LATER), "{doctor:?}");
}
