//! DEL: whatever had become of the attachment, nothing of it remains, and the answer is success.
//!
//! Pods that stay Terminating for ever, drains that hang: k8s#57465, k8s#72044, cilium#40459.
//! Each test here is a state in which a DEL arrives on real nodes.

use std::fs;

use serde_json::{Value, json};

use kit::ip;
use kit::node::Node;
use kit::packets::answers_ping;
use kit::pod::{Pod, addresses_of, host_link_of};

/// A node with one pod of both families, the only one that its ranges have room for: an address that a DEL does
/// not free is one that the next ADD misses.
struct Attached {
    node: Node,
    pod: Pod,
    conf: Value,
    result: Value,
}

impl Attached {
    fn new() -> Self {
        let (node, pod) = (Node::new(), Pod::new("pod"));
        let conf = node.conf_with(json!([[{ "subnet": "10.88.0.7/32" }], [{ "subnet": "fd00:88::7/128" }]]));
        let result = node.add(&pod, &conf);
        Self { node, pod, conf, result }
    }

    fn host_link(&self) -> String {
        host_link_of(&self.result)
    }

    /// DEL; then nothing is left, and the addresses can be had again.
    fn del_leaves_nothing(&self) {
        self.node.del(&self.pod, &self.conf);
        self.expect_gone();
    }

    fn expect_gone(&self) {
        self.node.expect_nothing_left();
        let next = Pod::new("next");
        assert_eq!(addresses_of(&self.node.add(&next, &self.conf)), ["10.88.0.7", "fd00:88::7"]);
    }
}

#[test]
fn a_running_pod_is_removed_on_both_sides() {
    let attached = Attached::new();
    attached.node.del(&attached.pod, &attached.conf);
    assert!(ip::link(attached.pod.namespace(), "eth0").is_none());
    for family in ["-4", "-6"] {
        let to_pods = ip::routes(attached.node.namespace(), &format!("{family} proto 102"));
        assert!(to_pods.iter().all(|route| route["type"] == "unreachable"), "{to_pods:?}");
    }
    attached.expect_gone();
}

#[test]
fn no_add_before() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    node.del(&pod, &node.conf());
    // Not even a directory is made for it.
    assert!(!node.data_dir().exists());
}

#[test]
fn a_second_time() {
    let attached = Attached::new();
    attached.node.del(&attached.pod, &attached.conf);
    attached.del_leaves_nothing();
}

#[test]
fn the_namespace_is_gone() {
    let attached = Attached::new();
    attached.pod.die();
    attached.del_leaves_nothing();
}

/// After a reboot a runtime has no namespace to name: empty in containerd, unset in others.
#[test]
fn the_namespace_is_empty_or_unset() {
    for netns in [Some(""), None] {
        let attached = Attached::new();
        let call = attached.node.call_for("DEL", &attached.pod, &attached.conf).without("CNI_NETNS");
        let call = match netns {
            Some(netns) => call.netns(netns),
            None => call,
        };
        call.run().success();
        attached.expect_gone();
    }
}

#[test]
fn the_namespace_is_nonsense() {
    for netns in ["relative/path", "/dev/null", "/proc/self/ns/net", "/a/\n/b"] {
        let attached = Attached::new();
        attached.node.call_for("DEL", &attached.pod, &attached.conf).netns(netns).run().success();
        attached.expect_gone();
    }
}

/// CRI-O tore a pod down through a stale path that led to another pod's namespace (cri-o#2849).
#[test]
fn the_path_is_now_another_containers_namespace() {
    let node = Node::new();
    let conf = node.conf();
    let (old, other) = (Pod::new("old"), Pod::new("other"));
    node.add(&old, &conf);
    let others = node.add(&other, &conf);
    node.call_for("DEL", &old, &conf).netns(other.namespace().path()).run().success();
    assert_eq!(node.host_links(), [host_link_of(&others)]);
    assert_eq!(node.held_addresses().len(), 2);
    for address in addresses_of(&others) {
        assert!(answers_ping(node.namespace(), &address), "{address} of the other pod");
    }
    node.check(&other, &conf, &others).success();
}

#[test]
fn the_host_link_was_removed_by_hand() {
    let attached = Attached::new();
    attached.node.namespace().ip(&format!("link delete {}", attached.host_link()));
    attached.del_leaves_nothing();
}

#[test]
fn the_pods_link_was_removed_by_hand() {
    let attached = Attached::new();
    attached.pod.namespace().ip("link delete eth0");
    attached.del_leaves_nothing();
}

/// The link is found by its name and its mark.
#[test]
fn the_record_is_missing() {
    let attached = Attached::new();
    fs::remove_file(attached.node.record_path(&attached.pod)).unwrap();
    attached.node.del(&attached.pod, &attached.conf);
    assert_eq!(attached.node.host_links(), Vec::<String>::new());
    // The by-ip names are the same file, and say whose the addresses were.
    let next = Pod::new("next");
    assert_eq!(addresses_of(&attached.node.add(&next, &attached.conf)), ["10.88.0.7", "fd00:88::7"]);
}

#[test]
fn the_record_is_damaged() {
    let cut_off = |whole: &[u8]| whole[..whole.len() / 2].to_vec();
    let zeroed = |whole: &[u8]| vec![0; whole.len()];
    let garbage = |_: &[u8]| b"\xff\xfe{]".to_vec();
    let empty = |_: &[u8]| Vec::new();
    type Damage = fn(&[u8]) -> Vec<u8>;
    let damages: [Damage; 4] = [cut_off, zeroed, garbage, empty];
    for damage in damages {
        let attached = Attached::new();
        let path = attached.node.record_path(&attached.pod);
        let damaged = damage(&fs::read(&path).unwrap());
        fs::write(&path, damaged).unwrap();
        attached.del_leaves_nothing();
    }
}

/// A runtime replays the conf of the ADD, but what it replays may have been edited since, or be wrong by now.
#[test]
fn the_conf_has_changed_since() {
    let changes: [fn(&mut Value); 6] = [
        |conf| conf["ipam"]["ranges"] = json!([[{ "subnet": "10.99.0.0/24" }]]),
        |conf| conf["ipam"]["ranges"] = json!([[{ "subnet": "10.99.0.1/24", "rangeStart": "x" }], 7]),
        |conf| conf["ipam"]["ranges"] = json!([]),
        |conf| conf["mtu"] = json!("large"),
        |conf| conf["cniVersion"] = json!("0.3.1"),
        |conf| conf["prevResult"] = json!({ "nonsense": true }),
    ];
    for change in changes {
        let attached = Attached::new();
        let mut conf = attached.conf.clone();
        change(&mut conf);
        attached.node.call_for("DEL", &attached.pod, &conf).run().success();
        attached.expect_gone();
    }
}

#[test]
fn the_store_is_missing() {
    let attached = Attached::new();
    fs::remove_dir_all(attached.node.data_dir()).unwrap();
    attached.del_leaves_nothing();
}

/// Nothing without our mark is ever removed.
#[test]
fn a_foreign_link_has_the_host_links_name() {
    let attached = Attached::new();
    let host = attached.host_link();
    attached.node.namespace().ip(&format!("link delete {host}"));
    attached.node.namespace().ip(&format!("link add {host} type bridge"));
    attached.node.del(&attached.pod, &attached.conf);
    assert_eq!(attached.node.host_links(), [host]);
    assert_eq!(attached.node.held_addresses(), Vec::<String>::new());
}

/// Marked, but another network's or another container's: a link that was renamed.
#[test]
fn a_link_of_another_attachment_has_the_host_links_name() {
    let node = Node::new();
    let conf = node.conf();
    let (one, other) = (Pod::new("one"), Pod::new("other"));
    let ones = host_link_of(&node.add(&one, &conf));
    let others = host_link_of(&node.add(&other, &conf));
    node.namespace().ip(&format!("link delete {ones}"));
    node.namespace().ip(&format!("link set {others} name {ones}"));
    node.del(&one, &conf);
    assert_eq!(node.host_links(), [ones]);
}

/// Deleting one pod does not wait for, or disturb, the others.
#[test]
fn many_at_once() {
    let node = Node::new();
    let conf = node.conf();
    let pods: Vec<Pod> = (0..16).map(|_| Pod::new("pod")).collect();
    let stays = Pod::new("stays");
    for pod in &pods {
        node.add(pod, &conf);
    }
    let result = node.add(&stays, &conf);
    std::thread::scope(|scope| {
        for pod in &pods {
            scope.spawn(|| node.del(pod, &conf));
        }
    });
    assert_eq!(node.host_links(), [host_link_of(&result)]);
    assert_eq!(node.held_addresses(), addresses_of(&result));
    node.check(&stays, &conf, &result).success();
}

/// The DEL of an old sandbox came late and freed the address of the pod's new one, because it was matched by the
/// pod's name (azure-container-networking#885).
#[test]
fn a_late_del_of_an_old_sandbox_leaves_the_new_one_alone() {
    let node = Node::new();
    let conf = node.conf();
    let args = "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0";
    let (old, new) = (Pod::new("old"), Pod::new("new"));
    node.call_for("ADD", &old, &conf).args(args).run().success();
    let result = node.call_for("ADD", &new, &conf).args(args).run().result();
    node.call_for("DEL", &old, &conf).args(args).run().success();
    assert_eq!(node.held_addresses(), addresses_of(&result));
    node.check(&new, &conf, &result).success();
}
