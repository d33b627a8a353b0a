//! `ferrulectl uninstall` leaves a node as if ferrule had never been there, but for what it names.

use std::fs;

use serde_json::{Value, json};

use super::{add_named, conf_dir, document, install, text, verb};
use kit::files::listing;
use kit::ip;
use kit::nft;
use kit::node::Node;
use kit::pod::{Pod, addresses_of, host_link_of};

const FLAG: &str = "--yes-pods-lose-their-network";

/// Two networks, one with a route to a peer, each with a running pod.
fn node_with_two_networks() -> (Node, Vec<(Pod, Value)>) {
    let node = Node::new();
    let mut conf = node.conf();
    conf["peers"] = json!([{ "node": "node-b", "podCIDRs": ["10.89.1.0/24"], "nodeIPs": ["198.18.0.11"] }]);
    install(&node, "10-ferrule.conflist", &conf);
    let mut other = node.conf_with(json!([[{ "subnet": "10.90.0.0/24" }]]));
    other["name"] = json!("other");
    install(&node, "20-other.conflist", &other);
    let pods = [("web", &conf), ("db", &other)].map(|(name, conf)| {
        let pod = Pod::new(name);
        let result = add_named(&node, conf, &pod, name);
        (pod, result)
    });
    (node, pods.into())
}

/// Links and routes of the node, without those that the kernel makes and takes away by itself.
fn picture(node: &Node) -> Vec<Value> {
    let mut found = ip::links(node.namespace());
    found.retain(|link| link["ifname"] != "lo");
    for link in &mut found {
        *link = json!([link["ifname"], link["ifalias"], link["group"]]);
    }
    for family in ["-4", "-6"] {
        let routes = ip::routes(node.namespace(), &format!("{family} table all"));
        found.extend(routes.into_iter().filter(|route| route["protocol"] != "kernel"));
        found.extend(node.namespace().ip(&format!("{family} rule show")).lines().map(Value::from));
    }
    found.push(nft::run(node.namespace(), "list tables").unwrap().into());
    for path in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
        found.push(json!([path, node.namespace().sysctl(path)]));
    }
    found
}

#[test]
fn everything_that_bears_our_mark_goes_and_nothing_else() {
    let node = Node::new();
    // Of others, and each with half a mark.
    node.namespace().ip_batch(
        "link add veth00000000001 type veth peer name veth00000000002\n\
         link set veth00000000001 alias mine\n\
         link add cni0 type bridge\n\
         link set cni0 group 1717986918\n\
         route add 203.0.113.0/24 dev uplink proto 99\n",
    );
    // IPv4 was off, and somebody else has switched IPv6 on.
    node.namespace().set_sysctl("net/ipv4/ip_forward", "0");
    node.namespace().set_sysctl("net/ipv6/conf/all/forwarding", "1");
    nft::run(node.namespace(), "add table inet theirs").unwrap();
    let conf = node.conf();
    let before = picture(&node);
    let mut with_peer = conf.clone();
    with_peer["peers"] = json!([{ "node": "b", "podCIDRs": ["10.89.1.0/24"], "nodeIPs": ["198.18.0.11"] }]);
    install(&node, "10-ferrule.conflist", &with_peer);
    let pods = [Pod::new("a"), Pod::new("b")];
    pods.iter().for_each(|pod| drop(node.add(pod, &with_peer)));
    // Killed before it had an alias, and without a record.
    let group = ip::links(node.namespace())
        .iter()
        .find(|link| link["ifalias"].as_str().is_some_and(|alias| alias.starts_with("ferrule:")))
        .map(|link| link["group"].as_str().unwrap().to_owned())
        .unwrap();
    node.namespace()
        .ip(&format!("link add veth0123456789a group {group} type veth peer name peer0 group default"));
    assert_ne!(picture(&node), before);
    let answer = verb(&node, &format!("uninstall {FLAG}")).run();
    assert!(answer.status.success(), "{answer:?}");
    assert_eq!(picture(&node), before);
    assert!(!node.data_dir().exists(), "{:?}", listing(&node.data_dir()));
    assert!(pods.iter().all(|pod| ip::link(pod.namespace(), "eth0").is_none()));
    // And what is left is named with the way to remove it.
    assert!(conf_dir(&node).join("10-ferrule.conflist").exists());
    for word in [
        "10-ferrule.conflist",
        "rm ",
        "net/ipv4/ip_forward is 0 again",
        "sysctl -w net.ipv6.conf.all.forwarding=0",
        "inet ferrule",
    ] {
        assert!(text(&answer).contains(word), "{word}: {}", text(&answer));
    }
    let again = verb(&node, "uninstall").run();
    assert!(
        again.status.success() && text(&again).starts_with("ferrule made nothing on this node"),
        "{again:?}"
    );
}

/// A node that forwarded before ferrule does so after it, whatever somebody did to it in between.
#[test]
fn what_somebody_switched_off_and_ferrule_on_again_stays_on() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    node.namespace().set_sysctl("net/ipv4/ip_forward", "1");
    let conf = node.conf();
    install(&node, "10-ferrule.conflist", &conf);
    node.add(&pod, &conf);
    node.namespace().set_sysctl("net/ipv4/ip_forward", "0");
    node.del(&pod, &conf);
    node.add(&pod, &conf);
    assert_eq!(node.namespace().sysctl("net/ipv4/ip_forward"), "1");
    assert!(verb(&node, &format!("uninstall {FLAG}")).run().status.success());
    assert_eq!(node.namespace().sysctl("net/ipv4/ip_forward"), "1");
}

#[test]
fn where_pods_are_running_it_refuses_and_names_them() {
    let (node, pods) = node_with_two_networks();
    let (before, store) = (picture(&node), listing(&node.data_dir()));
    let refused = document(&node, "uninstall", 1);
    assert_eq!((&refused["refused"], &refused["removed"]), (&json!(true), &json!([])));
    let names: Vec<&str> =
        refused["inUse"].as_array().unwrap().iter().map(|it| it["pod"].as_str().unwrap()).collect();
    assert_eq!(names, ["default/web", "default/db"]);
    let shown = verb(&node, "uninstall").run();
    assert_eq!(shown.status.code(), Some(1));
    for word in ["default/web", "default/db", "kubectl drain", FLAG] {
        assert!(text(&shown).contains(word), "{word}: {}", text(&shown));
    }
    assert_eq!((picture(&node), listing(&node.data_dir())), (before, store));
    // One is enough.
    pods[0].0.die();
    node.wait_for_host_links(1);
    assert_eq!(document(&node, "uninstall", 1)["inUse"].as_array().unwrap().len(), 1);
    // Dead pods are no reason.
    pods[1].0.die();
    node.wait_for_host_links(0);
    let done = document(&node, "uninstall", 0);
    assert_eq!(done["inUse"], json!([]));
    assert!(!node.data_dir().exists());
    assert_eq!(ip::routes(node.namespace(), "-4 table all proto 102"), Vec::<Value>::new());
}

/// Its record is lost, but its link shows that its namespace exists.
#[test]
fn a_link_without_a_record_counts_as_a_running_pod() {
    let (node, pods) = node_with_two_networks();
    fs::remove_dir_all(node.data_dir()).unwrap();
    let refused = document(&node, "uninstall", 1);
    let links = refused["linksInUse"].to_string();
    for (_, result) in &pods {
        assert!(links.contains(&host_link_of(result)), "{links}");
        assert!(ip::link(node.namespace(), &host_link_of(result)).is_some());
    }
}

#[test]
fn a_record_that_cannot_be_read_counts_as_a_running_pod() {
    let node = Node::new();
    let conf = node.conf();
    let pod = Pod::new("pod");
    node.add(&pod, &conf);
    fs::write(node.record_path(&pod), "torn").unwrap();
    let refused = document(&node, "uninstall", 1);
    assert_eq!(refused["inUse"][0]["state"], "unknown", "{refused}");
}

#[test]
fn a_dry_run_names_all_of_it_and_changes_nothing() {
    let (node, pods) = node_with_two_networks();
    let (before, store) = (picture(&node), listing(&node.data_dir()));
    assert_eq!(document(&node, "uninstall --dry-run", 1)["refused"], true);
    let foreseen = document(&node, &format!("uninstall --dry-run {FLAG}"), 0);
    assert_eq!((picture(&node), listing(&node.data_dir())), (before, store));
    let done = document(&node, &format!("uninstall {FLAG}"), 0);
    let sorted = |document: &Value| {
        let mut removed: Vec<String> =
            document["removed"].as_array().unwrap().iter().map(Value::to_string).collect();
        removed.sort();
        removed
    };
    assert_eq!(sorted(&foreseen), sorted(&done));
    let all = done["removed"].to_string();
    for (_, result) in &pods {
        assert!(all.contains(&host_link_of(result)), "{all}");
        assert!(!all.contains(&addresses_of(result)[0]), "a pod's route goes with its link: {all}");
    }
    for word in ["10.89.1.0/24", "unreachable 10.88.0.0/24", "data/podnet", "data/other"] {
        assert!(all.contains(word), "{word}: {all}");
    }
}

/// What a person keeps beside the stores is theirs.
#[test]
fn what_is_in_the_data_directory_and_no_store_stays() {
    let node = Node::new();
    let conf = node.conf();
    let pod = Pod::new("pod");
    node.add(&pod, &conf);
    node.del(&pod, &conf);
    fs::create_dir(node.data_dir().join("notes")).unwrap();
    assert!(verb(&node, "uninstall").run().status.success());
    assert!(node.data_dir().join("notes").is_dir() && !node.store().path().exists());
}

/// The node's address that a named gateway is on bears no mark, so a person is told of it.
#[test]
fn the_address_of_a_named_gateway_is_named() {
    let node = Node::new();
    let conf = node.conf_with(json!([[{ "subnet": "fd00:92::/64", "gateway": "fd00:92::9" }]]));
    install(&node, "10-ferrule.conflist", &conf);
    let pod = Pod::new("pod");
    node.add(&pod, &conf);
    node.del(&pod, &conf);
    let left = document(&node, "uninstall", 0)["left"].to_string();
    assert!(left.contains("ip address delete fd00:92::9/128 dev lo"), "{left}");
    node.namespace().ip("address delete fd00:92::9/128 dev lo");
    let left = document(&node, "uninstall", 0)["left"].to_string();
    assert!(!left.contains("fd00:92::9"), "{left}");
}
