//! CHECK: every difference between what ADD made and what is there now has a name; nothing is changed.

use std::fs;

use serde_json::{Value, json};

use kit::files::listing;
use kit::node::Node;
use kit::pod::{Pod, host_link_of};

struct Attached {
    node: Node,
    pod: Pod,
    conf: Value,
    result: Value,
}

impl Attached {
    fn new() -> Self {
        let node = Node::new();
        let conf = node.conf();
        Self::with(node, conf)
    }

    fn with(node: Node, conf: Value) -> Self {
        let pod = Pod::new("pod");
        let result = node.add(&pod, &conf);
        Self { node, pod, conf, result }
    }

    fn host(&self) -> String {
        host_link_of(&self.result)
    }

    fn mac(&self, end: usize) -> String {
        self.result["interfaces"][end]["mac"].as_str().unwrap().to_owned()
    }

    fn check(&self) -> kit::answer::Answer {
        self.node.check(&self.pod, &self.conf, &self.result)
    }

    /// What CHECK says against it.
    fn differences(&self) -> String {
        self.check().complaint(105)
    }

    fn on_node(&self, words: &str) {
        self.node.namespace().ip(&words.replace("HOST", &self.host()));
    }

    fn in_pod(&self, words: &str) {
        self.pod.namespace().ip(words);
    }
}

#[test]
fn what_add_made_passes_in_every_version() {
    for version in ["0.4.0", "1.0.0", "1.1.0"] {
        let node = Node::new();
        let mut conf = node.conf();
        conf["cniVersion"] = json!(version);
        let answer = Attached::with(node, conf).check();
        answer.success();
        assert_eq!(answer.document(), None, "{version}");
    }
}

#[test]
fn what_add_made_passes_with_all_that_a_conf_may_ask_for() {
    let node = Node::new();
    let mut conf = node.conf_with(json!([
        [{ "subnet": "10.88.0.0/24", "gateway": "10.88.0.1" }],
        [{ "subnet": "fd00:88::/64", "gateway": "fd00:88::1" }],
    ]));
    conf["mtu"] = json!(1380);
    conf["runtimeConfig"] = json!({ "mac": "02:11:22:33:44:55" });
    conf["ipam"]["routes"] = json!([
        { "dst": "0.0.0.0/0", "priority": 300 },
        { "dst": "203.0.113.0/24", "gw": "10.88.0.200", "mtu": 1300, "advmss": 1260 },
        { "dst": "198.51.100.0/24", "table": 77 },
        { "dst": "::/0", "mtu": 1300 },
    ]);
    Attached::with(node, conf).check().success();
}

/// The pod's name is in the alias; a runtime that does not repeat it at CHECK has changed nothing.
#[test]
fn the_pods_name_need_not_be_told_again() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let conf = node.conf();
    let args = "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0";
    let result = node.call_for("ADD", &pod, &conf).args(args).run().result();
    node.check(&pod, &conf, &result).success();
}

/// Traffic leaves its traces: learned neighbours, cached routes.
#[test]
fn what_the_pod_did_meanwhile_is_no_difference() {
    let attached = Attached::new();
    use kit::node::{OUTSIDE_V4, OUTSIDE_V6};
    for to in [OUTSIDE_V4, OUTSIDE_V6, "10.88.0.77"] {
        kit::packets::answers_ping(attached.pod.namespace(), to);
    }
    attached.in_pod("link add tun0 type bridge");
    attached.in_pod("route add 203.0.113.0/24 via 169.254.1.1 dev eth0 onlink");
    attached.check().success();
}

/// One change each, and the words that must be in the answer.
#[test]
fn each_change_is_named() {
    type Change = (fn(&Attached), &'static [&'static str]);
    let changes: [Change; 17] = [
        (|it| it.on_node("link delete HOST"), &["node's end is missing"]),
        (|it| it.on_node("link set HOST down"), &["node: link veth", "it is down"]),
        (|it| it.on_node("link set HOST alias other"), &["alias", "other"]),
        (|it| it.on_node("link set HOST mtu 1300"), &["the node's end has mtu 1300"]),
        (|it| it.on_node("link set HOST address 02:00:00:00:00:09"), &["02:00:00:00:00:09"]),
        (|it| it.on_node("route delete 10.88.0.2/32"), &["node: route 10.88.0.2/32", "missing"]),
        (|it| it.on_node("-6 route delete fd00:88::2/128"), &["node: route fd00:88::2/128", "missing"]),
        (
            |it| it.on_node("route replace 10.88.0.2/32 dev HOST proto static"),
            &["node: route 10.88.0.2/32", "another route"],
        ),
        (|it| it.on_node("neighbour delete 10.88.0.2 dev HOST"), &["node: neighbour 10.88.0.2", "missing"]),
        (
            |it| it.on_node(&format!("neighbour replace fd00:88::2 lladdr {} dev HOST nud stale", it.mac(1))),
            &["node: neighbour fd00:88::2", "not permanent"],
        ),
        (
            |it| it.on_node("neighbour replace 10.88.0.2 lladdr 02:00:00:00:00:09 dev HOST nud permanent"),
            &["node: neighbour 10.88.0.2", "02:00:00:00:00:09"],
        ),
        (|it| it.in_pod("address delete 10.88.0.2/32 dev eth0"), &["pod: address 10.88.0.2/32", "missing"]),
        (
            |it| it.in_pod("address delete fd00:88::2/128 dev eth0"),
            &["pod: address fd00:88::2/128", "missing"],
        ),
        (|it| it.in_pod("route delete default via 169.254.1.1"), &["pod: route 0.0.0.0/0", "missing"]),
        (|it| it.in_pod("neighbour delete 169.254.1.1 dev eth0"), &["pod: neighbour 169.254.1.1", "missing"]),
        (|it| it.in_pod("link set lo down"), &["pod: link lo", "it is down"]),
        (
            |it| it.node.namespace().set_sysctl(&format!("net/ipv4/conf/{}/rp_filter", it.host()), "0"),
            &["rp_filter = 1", "it is 0"],
        ),
    ];
    for (change, words) in changes {
        let attached = Attached::new();
        change(&attached);
        let said = attached.differences();
        for word in words {
            assert!(said.contains(word), "{word:?} is not in: {said}");
        }
    }
}

#[test]
fn several_differences_are_all_named() {
    let attached = Attached::new();
    attached.on_node("route delete 10.88.0.2/32");
    attached.in_pod("address delete fd00:88::2/128 dev eth0");
    attached.in_pod("neighbour delete 169.254.1.1 dev eth0");
    let said = attached.differences();
    for word in ["10.88.0.2/32", "fd00:88::2/128", "169.254.1.1"] {
        assert!(said.contains(word), "{word} is not in: {said}");
    }
}

#[test]
fn a_missing_record_is_a_difference() {
    let attached = Attached::new();
    fs::remove_file(attached.node.record_path(&attached.pod)).unwrap();
    let said = attached.differences();
    assert!(said.contains("no record"), "{said}");
}

#[test]
fn a_damaged_record_is_told_as_such() {
    let attached = Attached::new();
    fs::write(attached.node.record_path(&attached.pod), "{").unwrap();
    let said = attached.check().complaint(104);
    assert!(said.contains("by-id"), "{said}");
}

#[test]
fn an_address_that_the_runtime_was_not_told_is_a_difference() {
    let mut attached = Attached::new();
    attached.result["ips"][0]["address"] = json!("10.88.0.66/32");
    let said = attached.differences();
    assert!(said.contains("10.88.0.2"), "{said}");
}

#[test]
fn a_namespace_that_is_gone_or_another_one_is_a_difference() {
    let attached = Attached::new();
    let other = Pod::new("other");
    let mut conf = attached.conf.clone();
    conf["prevResult"] = attached.result.clone();
    let elsewhere = attached.node.call_for("CHECK", &attached.pod, &conf).netns(other.namespace().path());
    let said = elsewhere.run().complaint(105);
    assert!(said.contains("another namespace"), "{said}");
    attached.pod.die();
    attached.differences();
}

#[test]
fn without_a_prev_result_there_is_nothing_to_compare_with() {
    let attached = Attached::new();
    let said = attached.node.call_for("CHECK", &attached.pod, &attached.conf).run().complaint(7);
    assert!(said.contains("prevResult"), "{said}");
}

#[test]
fn check_changes_nothing() {
    let attached = Attached::new();
    attached.on_node("route delete 10.88.0.2/32");
    attached.in_pod("address delete fd00:88::2/128 dev eth0");
    let state = || {
        let node = attached.node.namespace();
        let pod = attached.pod.namespace();
        let shown = [
            "link show",
            "address show",
            "route show table all",
            "-6 route show table all",
            "neighbour show",
        ];
        let of = |namespace: &kit::netns::Namespace| shown.map(|words| namespace.ip(words));
        (of(node), of(pod), listing(&attached.node.data_dir()))
    };
    let before = state();
    attached.differences();
    assert_eq!(before, state());
}
