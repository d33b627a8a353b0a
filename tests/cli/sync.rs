//! `ferrulectl sync` makes again what the node has lost, or never knew; doctor says that it is missing.

use serde_json::{Value, json};

use super::{install, text, verb};
use kit::node::{NODE_V4, NODE_V6, Node, OUTSIDE_V4};
use kit::packets::answers_ping;
use kit::pod::{Pod, addresses_of};
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

fn own_rules(node: &Node) -> usize {
    let rules = ["-4", "-6"].map(|family| node.namespace().ip(&format!("-d {family} rule show")));
    rules.concat().matches("proto 102").count()
}

/// The ids of the findings of doctor.
fn findings(node: &Node) -> Vec<String> {
    let report = verb(node, "doctor --output json").run().document().unwrap();
    let ids = report["findings"].as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap().to_owned());
    ids.filter(|id| id != "networkd-foreign-routes").collect()
}

#[test]
fn a_rule_for_pods_that_somebody_removed_comes_back() {
    let (node, pod, next) = (Node::new(), Pod::new("pod"), Pod::new("next"));
    let conf = installed(&node);
    node.add(&pod, &conf);
    assert_eq!((own_rules(&node), findings(&node)), (2, vec![]));
    for mend in [true, false] {
        node.namespace().ip("rule delete pref 8");
        node.namespace().ip("-6 rule delete pref 8");
        assert_eq!((own_rules(&node), findings(&node)), (0, vec!["pod-rule-missing".to_owned()]));
        if mend {
            verb(&node, "sync").run();
        } else {
            node.add(&next, &conf);
        }
        assert_eq!((own_rules(&node), findings(&node)), (2, vec![]));
    }
}

#[test]
fn doctor_names_rules_that_come_before_ours() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let conf = installed(&node);
    let result = node.add(&pod, &conf);
    node.namespace().ip(&format!("route add default via {OUTSIDE_V4} table 100"));
    // One that comes after it is no finding, one of the kernel's own tables neither.
    node.namespace().ip(&format!("rule add from {NODE_V4} lookup 100 pref 1000"));
    node.namespace().ip("rule add from 10.0.0.0/8 lookup main pref 3");
    assert_eq!(findings(&node), Vec::<String>::new());
    // One that comes before it and does no harm is a warning.
    node.namespace().ip("rule add fwmark 0x77 lookup 100 pref 5");
    let doctor = verb(&node, "doctor").run();
    assert!(text(&doctor).contains("5: fwmark 0x77 lookup 100") && doctor.status.success(), "{doctor:?}");
    node.namespace().ip("-6 rule add unreachable from fd00:18::2 pref 6");
    node.namespace().ip(&format!("rule add from {NODE_V4} lookup 100 pref 7"));
    let address = &addresses_of(&result)[0];
    assert!(!answers_ping(node.namespace(), address));
    let doctor = verb(&node, "doctor").run();
    for words in [
        format!("7: from {NODE_V4}/32 lookup 100"),
        format!("what goes from {NODE_V4} to pod {address} leaves by uplink"),
        format!("6: from {NODE_V6}/128 unreachable"),
        format!("what goes from {NODE_V6} to pod fd00:88::2 is refused"),
    ] {
        assert!(text(&doctor).contains(&words) && !doctor.status.success(), "{words}: {doctor:?}");
    }
}
