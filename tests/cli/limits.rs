//! A pod whose bandwidth is limited has a link on the node that does not go with its pair. The verbs know it.

use serde_json::{Value, json};

use super::{document, install, text, verb};
use kit::ip;
use kit::node::Node;
use kit::pod::{Pod, host_link_of};

/// A node with a pod that lives, and one that died and left the link that its pair did not take along; the names of
/// the living one's links, and of the dead one's.
fn node_with_limits() -> (Node, Pod, [String; 2], String) {
    let node = Node::new();
    let mut conf = node.conf();
    install(&node, "10-ferrule.conflist", &conf);
    conf["runtimeConfig"]["bandwidth"] = json!({ "ingressRate": 8_000_000, "ingressBurst": 80_000, "egressRate": 8_000_000, "egressBurst": 80_000 });
    let (alive, dead) = (Pod::new("alive"), Pod::new("dead"));
    let (host, left) = (host_link_of(&node.add(&alive, &conf)), host_link_of(&node.add(&dead, &conf)));
    node.namespace().ip(&format!("link delete {left}"));
    dead.die();
    let links = [host.replace("veth", "ifb"), host];
    let left = left.replace("veth", "ifb");
    assert_eq!(sorted(node.host_links()), sorted([&links[..], std::slice::from_ref(&left)].concat()));
    (node, alive, links, left)
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names
}

#[test]
fn reclaim_takes_the_links_of_dead_pods_alone() {
    let (node, _alive, links, left) = node_with_limits();
    document(&node, "reclaim --dry-run", 0);
    assert!(node.host_links().contains(&left), "a dry run");
    let done = document(&node, "reclaim", 0);
    assert_eq!(done["networks"][0]["dead"].as_array().unwrap().len(), 1, "{done}");
    assert_eq!(done["networks"][0]["leftAlone"], json!([]), "{done}");
    assert_eq!(sorted(node.host_links()), sorted(links.to_vec()));
}

#[test]
fn doctor_finds_nothing_in_a_pod_with_limits() {
    let (node, ..) = node_with_limits();
    document(&node, "reclaim", 0);
    let found = verb(&node, "doctor --json").run();
    let findings = found.document().unwrap()["findings"].clone();
    let of_pods = findings.as_array().unwrap().iter();
    let of_pods: Vec<&Value> = of_pods
        .filter(|it| ["link-unrecorded", "attachment-differs"].contains(&it["id"].as_str().unwrap()))
        .collect();
    assert_eq!(of_pods, Vec::<&Value>::new());
}

#[test]
fn uninstall_removes_links_with_and_without_an_alias() {
    let (node, _alive, links, _left) = node_with_limits();
    // The last word is an empty one: no alias.
    node.namespace().ip(&format!("link set {} alias ", links[0]));
    assert_eq!(ip::link(node.namespace(), &links[0]).unwrap()["ifalias"], Value::Null);
    let answer = verb(&node, "uninstall --yes-pods-lose-their-network").run();
    assert!(answer.status.success(), "{}", text(&answer));
    assert_eq!(node.host_links(), Vec::<String>::new());
}
