//! STATUS: would the next ADD work? A node whose STATUS fails is NotReady, so it fails for nothing less.

use std::fs;

use serde_json::{Value, json};

use kit::files::listing;
use kit::node::{Node, OUTSIDE_V4, OUTSIDE_V6};
use kit::pod::Pod;

/// Room for two pods.
fn small(node: &Node) -> Value {
    node.conf_with(json!([[{ "subnet": "10.88.0.4/31" }], [{ "subnet": "fd00:88::/64" }]]))
}

#[test]
fn a_new_node_is_ready_and_nothing_is_written() {
    let node = Node::new();
    // A new namespace takes it over from that of the machine.
    node.namespace().set_sysctl("net/ipv4/ip_forward", "0");
    let answer = node.status(&node.conf());
    answer.success();
    assert_eq!(answer.document(), None);
    assert!(!node.data_dir().exists());
    assert_eq!(node.namespace().sysctl("net/ipv4/ip_forward"), "0");
}

/// containerd asks every five seconds.
#[test]
fn a_node_with_pods_is_ready_and_nothing_is_written() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let conf = node.conf();
    node.add(&pod, &conf);
    let before = (listing(&node.data_dir()), node.namespace().ip("route show table all"));
    node.status(&conf).success();
    assert_eq!((listing(&node.data_dir()), node.namespace().ip("route show table all")), before);
}

#[test]
fn a_range_full_of_running_pods_is_told_with_the_range() {
    let node = Node::new();
    let conf = small(&node);
    let pods = [Pod::new("one"), Pod::new("other")];
    node.add(&pods[0], &conf);
    node.status(&conf).success();
    node.add(&pods[1], &conf);
    let before = listing(&node.data_dir());
    let said = node.status(&conf).complaint(50);
    assert!(said.contains("10.88.0.4/31"), "{said}");
    assert!(!said.contains("fd00:88::"), "the range that has room: {said}");
    assert_eq!(listing(&node.data_dir()), before);
    node.del(&pods[0], &conf);
    node.status(&conf).success();
}

/// The next ADD reclaims them by itself.
#[test]
fn a_range_full_of_dead_pods_is_not_full() {
    let node = Node::new();
    let conf = small(&node);
    for _ in 0..2 {
        let pod = Pod::new("pod");
        node.add(&pod, &conf);
        pod.die();
    }
    node.wait_for_host_links(0);
    node.status(&conf).success();
}

#[test]
fn a_data_dir_that_cannot_be_used_is_told_with_its_path() {
    let node = Node::new();
    let conf = node.conf();
    fs::write(node.data_dir(), "").unwrap();
    let said = node.status(&conf).complaint(50);
    assert!(said.contains(node.data_dir().to_str().unwrap()), "{said}");
    fs::remove_file(node.data_dir()).unwrap();
    fs::create_dir(node.data_dir()).unwrap();
    fs::write(node.store().path(), "").unwrap();
    node.status(&conf).failure(50);
    fs::remove_file(node.store().path()).unwrap();
    node.status(&conf).success();
}

#[test]
fn a_read_only_data_dir_is_told_with_its_path() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let conf = node.conf();
    node.add(&pod, &conf);
    let data_dir = node.data_dir().display().to_string();
    let mount = format!(
        "mount --bind {data_dir} {data_dir} && mount -o remount,bind,ro {data_dir} && exec \"$0\" \"$@\""
    );
    let read_only = ["unshare", "--mount", "sh", "-c", &mount];
    let said = node.call("STATUS", &conf).through(read_only).run().complaint(50);
    assert!(said.contains(&data_dir) && said.contains("ead-only"), "{said}");
    // ADD says the same, and leaves nothing.
    let other = Pod::new("other");
    let said = node.call_for("ADD", &other, &conf).through(read_only).run().complaint(5);
    assert!(said.contains(&data_dir) && said.contains("ead-only"), "{said}");
    assert_eq!(node.host_links().len(), 1);
}

/// The uplink is down, or was never configured.
#[test]
fn not_one_peer_can_be_reached() {
    let node = Node::new();
    let mut conf = node.conf();
    conf["peers"] = json!([
        { "node": "b", "podCIDRs": ["10.89.0.0/24"], "nodeIPs": ["198.51.100.7"] },
        { "node": "c", "podCIDRs": ["10.90.0.0/24"], "nodeIPs": ["198.51.100.8"] },
    ]);
    node.namespace().ip("link set uplink down");
    let said = node.status(&conf).complaint(51);
    assert!(said.contains(": b, c"), "{said}");
}

/// One bad peer must not make the node NotReady (kindnet#46).
#[test]
fn one_peer_of_several_can_be_reached() {
    let node = Node::new();
    let mut conf = node.conf();
    conf["peers"] = json!([
        { "node": "off", "podCIDRs": ["10.89.0.0/24"], "nodeIPs": ["203.0.113.7"] },
        { "node": "b", "podCIDRs": ["10.90.0.0/24", "fd00:90::/64"], "nodeIPs": [OUTSIDE_V4, OUTSIDE_V6] },
    ]);
    node.namespace().ip_batch(&format!("route delete default\nroute delete default via {OUTSIDE_V6}\n"));
    node.status(&conf).success();
}

/// DHCP gave it another, or the conf was made for another node: no ADD works until then.
#[test]
fn an_address_in_the_conf_that_the_node_lacks_is_told() {
    for (missing, there, link) in
        [("198.19.0.7", OUTSIDE_V4, "10.88.0.2"), ("fd00:19::7", OUTSIDE_V6, "fd00:88::2")]
    {
        let (node, pod) = (Node::new(), Pod::new("pod"));
        let mut conf = node.conf();
        conf["nodeIPs"] = json!([missing]);
        let said = node.status(&conf).complaint(50);
        assert!(said.contains("nodeIPs") && said.contains(missing), "{said}");
        let said = node.try_add(&pod, &conf).complaint(103);
        assert!(said.contains(missing) && said.contains(link), "{said}");
        node.expect_nothing_left();
        // A network that has no pods of the family does not need it.
        let family = if there.contains(':') { 0 } else { 1 };
        let mut other = node.conf_with(json!([node.conf()["ipam"]["ranges"][family]]));
        other["nodeIPs"] = json!([missing]);
        node.status(&other).success();
        node.add(&pod, &other);
        node.namespace()
            .ip(&format!("address add {missing} dev uplink{}", if family == 0 { " nodad" } else { "" }));
        node.status(&conf).success();
    }
}

#[test]
fn a_conf_that_is_wrong_is_told_as_such() {
    let node = Node::new();
    let mut conf = node.conf();
    conf["ipam"]["ranges"][0][0]["subnet"] = json!("10.88.0.1/24");
    conf["mtu"] = json!(-1);
    let said = node.status(&conf).complaint(7);
    assert!(said.contains("ipam.ranges[0][0].subnet") && said.contains("mtu"), "{said}");
}

#[test]
fn status_does_not_fail_for_what_the_next_add_repairs() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let conf = node.conf();
    node.add(&pod, &conf);
    node.namespace().set_sysctl("net/ipv4/ip_forward", "0");
    node.namespace().ip("route delete unreachable 10.88.0.0/24");
    node.status(&conf).success();
}
