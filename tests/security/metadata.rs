//! The cloud's metadata service gives whoever asks from a node that node's credentials.

use serde_json::{Value, json};

use kit::netns::Namespace;
use kit::node::{Node, OUTSIDE_V4, OUTSIDE_V6};
use kit::pod::Pod;
use kit::traffic::{Server, tcp};

/// As clouds have them.
const SERVICES: [&str; 3] = ["169.254.169.254", "fd00:ec2::254", "fd20:ce::254"];

/// Port of the service, and of a resolver at the same address.
const PORTS: [u16; 2] = [80, 53];

/// A node whose way out leads to the service.
fn in_a_cloud() -> (Node, [Server; 2], Value) {
    let node = Node::new();
    node.outside().ip("link set lo up");
    for address in SERVICES {
        node.outside().ip(&format!("address add {address} dev lo"));
        let router = if address.contains(':') { OUTSIDE_V6 } else { OUTSIDE_V4 };
        node.namespace().ip(&format!("route add {address} via {router}"));
    }
    let servers = PORTS.map(|port| Server::tcp(node.outside(), port, "cloud"));
    let mut conf = node.conf();
    conf["ipMasq"] = json!(true);
    (node, servers, conf)
}

/// Which of the services and ports are reached.
fn reached(from: &Namespace) -> Vec<(&'static str, u16)> {
    let all = SERVICES.into_iter().flat_map(|address| PORTS.map(|port| (address, port)));
    all.filter(|(address, port)| tcp(from, address, *port).is_some()).collect()
}

#[test]
fn pods_reach_the_metadata_service_unless_the_conf_says_no() {
    let (node, _servers, mut conf) = in_a_cloud();
    let (before, after) = (Pod::new("before"), Pod::new("after"));
    node.add(&before, &conf);
    assert_eq!(reached(before.namespace()).len(), 6);
    conf["blockInstanceMetadata"] = json!(true);
    node.add(&after, &conf);
    // What else is at that address, a resolver for one, is not meant; nor is the node.
    let resolvers: Vec<(&str, u16)> = SERVICES.into_iter().map(|address| (address, 53)).collect();
    for pod in [&before, &after] {
        assert_eq!(reached(pod.namespace()), resolvers);
    }
    assert_eq!(reached(node.namespace()).len(), 6);
    assert_eq!(node.namespace().ip("-4 rule show pref 8").matches("unreachable").count(), 1);
    assert_eq!(node.namespace().ip("-6 rule show pref 8").matches("unreachable").count(), 2);
}

#[test]
fn sync_opens_the_metadata_service_again() {
    let (node, _servers, mut conf) = in_a_cloud();
    let pod = Pod::new("pod");
    conf["blockInstanceMetadata"] = json!(true);
    node.add(&pod, &conf);
    assert_eq!(reached(pod.namespace()).len(), 3);
    let directory = node.scratch().path().join("net.d");
    std::fs::create_dir_all(&directory).unwrap();
    for (blocks, count) in [(true, 3), (false, 6), (true, 3)] {
        conf["blockInstanceMetadata"] = json!(blocks);
        let mut plugin = conf.clone();
        plugin.as_object_mut().unwrap().remove("name");
        let list = json!({ "name": conf["name"], "cniVersion": "1.0.0", "plugins": [plugin] });
        std::fs::write(directory.join("10-ferrule.conflist"), list.to_string()).unwrap();
        let sync = kit::call::Call::ferrulectl("sync").on(node.namespace()).argument("--conf-dir");
        let answer = sync.argument(&directory).argument("--data-dir").argument(node.data_dir()).run();
        assert!(answer.status.success(), "{answer:?}");
        assert_eq!(reached(pod.namespace()).len(), count);
    }
    node.del(&pod, &conf);
}

/// A conf that says nothing of it costs nothing.
#[test]
fn without_the_key_there_is_no_rule_for_it() {
    let (node, _servers, conf) = in_a_cloud();
    node.add(&Pod::new("pod"), &conf);
    for family in ["-4", "-6"] {
        let rules = node.namespace().ip(&format!("{family} rule show"));
        assert!(!rules.contains("unreachable"), "{rules}");
    }
}
