//! Addresses that the node has, on whatever link: a pod that got one would cut off the node from itself, and by IPv6
//! would speak as the node.

use serde_json::{Value, json};

use kit::netns::Namespace;
use kit::network::Network;
use kit::node::{NODE_V4, NODE_V6, Node, OUTSIDE_V4, OUTSIDE_V6};
use kit::packets::answers_ping;
use kit::pod::{Pod, addresses_of};

/// What the node has in the ranges of pods: on lo, as the address and broadcast or anycast address of a link, and as a
/// local route to many.
fn take(node: &Namespace, four: &str, six: &str) {
    node.set_sysctl("net/ipv6/conf/all/forwarding", "1");
    node.ip_batch(&format!(
        "address add {four}.2/32 dev lo\naddress add {six}2/128 dev lo\n\
         link add vip type veth peer name vip2\nlink set vip up\nlink set vip2 up\n\
         address add {four}.4/31 dev vip\n\
         address add {four}.33/27 brd + dev vip noprefixroute\n\
         address add {six}41/124 dev vip nodad noprefixroute\n\
         route add local {four}.8/30 dev lo\nroute add local {six}8/125 dev lo\n"
    ));
}

#[test]
fn no_pod_gets_an_address_of_the_node_by_turn() {
    let node = Node::new();
    take(node.namespace(), "10.88.0", "fd00:88::");
    let mut given = Vec::new();
    let pods: Vec<Pod> = (0..12).map(|n| Pod::new(&format!("pod{n}"))).collect();
    for pod in &pods {
        given.push(addresses_of(&node.add(pod, &node.conf())));
    }
    let of = |family: usize| {
        given.iter().map(|it| it[family].rsplit(['.', ':']).next().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(of(0), ["3", "5", "6", "7", "12", "13", "14", "15", "16", "17", "18", "19"]);
    // The second pod gave ::4 back beside the .4 that is the node's; it is in its cooldown.
    assert_eq!(of(1), ["3", "5", "6", "7", "10", "11", "12", "13", "14", "15", "16", "17"]);
    assert!(answers_ping(pods[4].namespace(), &given[0][0]), "pods reach each other");
    assert_eq!(node.held_addresses().len(), 24, "and nothing else is held");
}

#[test]
fn a_request_for_an_address_of_the_node_is_told_whose_it_is() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    take(node.namespace(), "10.88.0", "fd00:88::");
    let ask = |address: &str| {
        let mut conf = node.conf();
        conf["runtimeConfig"] = json!({ "ips": [address] });
        node.try_add(&pod, &conf)
    };
    for (address, whose) in [
        ("10.88.0.2", "lo"),
        ("10.88.0.4", "vip"),
        ("10.88.0.9", "lo"),
        ("10.88.0.63", "broadcast"),
        ("fd00:88::2", "lo"),
        ("fd00:88::40", "anycast"),
        ("fd00:88::41", "vip"),
        ("fd00:88::9", "lo"),
    ] {
        let complaint = ask(address).complaint(101);
        let told = ["this node", address, whose].iter().all(|word| complaint.contains(word));
        assert!(told, "{address}, {whose}: {complaint}");
        assert_eq!((node.held_addresses(), node.known_attachments()), (vec![], vec![]), "{address}");
    }
    ask("10.88.0.3").success();
}

/// Where another main plugin makes the links, the node is the same.
#[test]
fn as_ipam_plugin_it_hands_out_no_address_of_the_node() {
    let mut network = Network::for_ipam("ptp");
    take(network.node.namespace(), "10.77.1", "fd00:77:1::");
    let pod = Namespace::new("pod");
    let result = network.call_for("ADD", "c1", &pod).run().success();
    assert_eq!(addresses_of(&result), ["10.77.1.3", "fd00:77:1::3"]);
    network.conf["runtimeConfig"] = json!({ "ips": ["fd00:77:1::2"] });
    let complaint = network.call_for("ADD", "c2", &pod).run().complaint(101);
    assert!(complaint.contains("this node"), "{complaint}");
    assert_eq!(network.known(), ["c1@eth0"]);
}

#[test]
fn a_range_in_which_all_is_the_nodes_says_so() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    node.namespace().ip("route add local 10.88.0.0/24 dev lo");
    let complaint = node.try_add(&pod, &node.conf()).complaint(100);
    assert!(complaint.contains("this node"), "{complaint}");
    node.expect_nothing_left();
}

#[test]
fn a_range_of_what_no_host_can_have_is_refused() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    for subnet in [
        "127.0.0.0/8",
        "0.0.0.0/8",
        "224.0.0.0/24",
        "169.254.0.0/16",
        "128.0.0.0/1",
        "fe80::/64",
        "ff05::/64",
        "::ffff:10.0.0.0/120",
        "::/64",
    ] {
        let conf = node.conf_with(json!([[{ "subnet": subnet }]]));
        let complaint = node.try_add(&pod, &conf).complaint(7);
        assert!(complaint.contains("ipam.ranges[0][0].subnet"), "{subnet}: {complaint}");
    }
    let fine = json!([[{ "subnet": "100.64.0.0/10" }], [{ "subnet": "64:ff9b:1::/64" }]]);
    let conf: Value = node.conf_with(fine);
    node.add(&pod, &conf);
}

/// What another IPAM plugin gives: an address of the node's, its router's, or one that no host can have.
const NO_PODS: [(&str, &str); 18] = [
    (NODE_V4, "this node"),
    (NODE_V6, "this node"),
    (OUTSIDE_V4, "router"),
    (OUTSIDE_V6, "router"),
    ("10.77.9.1", "gateway"),
    ("127.0.0.1", "loopback"),
    ("127.99.0.1", "loopback"),
    ("::1", "loopback"),
    ("224.0.0.5", "multicast"),
    ("ff02::1", "multicast"),
    ("0.0.0.0", "unspecified"),
    ("::", "unspecified"),
    ("255.255.255.255", "broadcast"),
    ("169.254.169.254", "link-local"),
    ("fe80::5", "link-local"),
    ("::ffff:10.77.9.5", "IPv4-mapped"),
    ("10.77.9.255", "broadcast"),
    ("10.77.9.0", "network"),
];

#[test]
fn an_ipam_plugin_cannot_give_what_is_no_pods_to_have() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let directory = node.scratch().path();
    let program = directory.join("giver");
    node.namespace().sh(&format!(
        "printf '#!/bin/sh\\necho $CNI_COMMAND >>{0}/commands\\n[ $CNI_COMMAND = ADD ] || exit 0\\ncat {0}/answer\\n' \
         >{1}; chmod +x {1}",
        directory.display(),
        program.display()
    ));
    let mut conf = node.conf();
    conf["ipam"] = json!({ "type": "giver" });
    conf["dataDir"] = json!(node.data_dir());
    let call = |command: &str| node.call_for(command, &pod, &conf).env("CNI_PATH", directory);
    let give = |ips: Value| {
        let answer = json!({ "cniVersion": "1.1.0", "ips": ips });
        std::fs::write(directory.join("answer"), answer.to_string()).unwrap();
        std::fs::write(directory.join("commands"), "").unwrap();
    };
    for (address, why) in NO_PODS {
        let gateway = if address.contains(':') { "fd00:77:9::1" } else { "10.77.9.1" };
        let prefix = if address.contains(':') { 64 } else { 24 };
        give(json!([{ "address": format!("{address}/{prefix}"), "gateway": gateway }]));
        let answer = call("ADD").run();
        let complaint = answer.text();
        assert!(!answer.status.success(), "{address}: {complaint}");
        for word in ["giver", address, why] {
            assert!(complaint.contains(word), "{address}, {why}: {complaint}");
        }
        let commands = std::fs::read_to_string(directory.join("commands")).unwrap();
        assert_eq!(commands, "ADD\nDEL\n", "{address} is taken back");
        node.expect_nothing_left();
    }
    give(json!([{ "address": "10.77.9.2/24", "gateway": "10.77.9.1" }]));
    call("ADD").run().success();
}
