//! An address lives exactly as long as its pod: it comes back, late, and whatever became of the pod.

use std::fs;

use serde_json::{Value, json};

use kit::files::wait_for_words;
use kit::node::Node;
use kit::pod::{Pod, addresses_of, host_link_of};

/// Room for four pods.
fn four(node: &Node) -> Value {
    node.conf_with(
        json!([[{ "subnet": "10.88.0.0/24", "rangeStart": "10.88.0.10", "rangeEnd": "10.88.0.13" }]]),
    )
}

fn last_part(result: &Value) -> String {
    addresses_of(result)[0].rsplit('.').next().unwrap().to_owned()
}

/// A reboot takes links and namespaces, and leaves the store with another boot's id.
fn reboot(node: &Node) {
    for link in node.host_links() {
        node.namespace().ip(&format!("link delete {link}"));
    }
    let earlier = "11111111-2222-3333-4444-555555555555";
    node.store().rewrite_records(|record| record["bootId"] = json!(earlier));
    fs::write(node.store().path().join("boot"), format!("{earlier}\n")).unwrap();
}

/// Peers, proxies and caches still have the old pod in mind (plugins#858, moby#36069).
#[test]
fn an_address_just_freed_comes_back_last() {
    let node = Node::new();
    let conf = four(&node);
    let add = || {
        let pod = Pod::new("pod");
        let given = last_part(&node.add(&pod, &conf));
        (pod, given)
    };
    let (first, given) = add();
    assert_eq!(given, "10");
    node.del(&first, &conf);
    let (second, given) = add();
    assert_eq!(given, "11");
    node.del(&second, &conf);
    let rest: Vec<_> = (0..2).map(|_| add()).collect();
    assert_eq!(rest.iter().map(|it| it.1.as_str()).collect::<Vec<_>>(), ["12", "13"]);
    // Now all others are taken or rest: what is left is given, the oldest first.
    let (_third, given) = add();
    assert_eq!(given, "10");
    let (_fourth, given) = add();
    assert_eq!(given, "11");
    node.try_add(&Pod::new("one-too-many"), &conf).failure(100);
}

/// Rest must not exhaust a small range (aws#1602, aws#1160).
#[test]
fn a_range_of_one_address_can_be_used_again_at_once() {
    let node = Node::new();
    let conf = node.conf_with(json!([[{ "subnet": "10.88.0.7/32" }]]));
    for _ in 0..5 {
        let pod = Pod::new("pod");
        assert_eq!(addresses_of(&node.add(&pod, &conf)), ["10.88.0.7"]);
        node.del(&pod, &conf);
    }
}

/// "no IP addresses available in range set": nobody sent a DEL, and people ran rm on the store (plugins#252,
/// plugins#332, plugins#697, containerd/cri#948).
#[test]
fn a_full_range_gives_out_the_addresses_of_dead_pods() {
    let node = Node::new();
    let conf = four(&node);
    let lives = Pod::new("lives");
    assert_eq!(last_part(&node.add(&lives, &conf)), "10");
    for _ in 0..3 {
        let pod = Pod::new("dies");
        node.add(&pod, &conf);
        pod.die();
    }
    node.wait_for_host_links(1);
    let pods: Vec<Pod> = (0..3).map(|_| Pod::new("pod")).collect();
    let mut given: Vec<String> = pods.iter().map(|pod| last_part(&node.add(pod, &conf))).collect();
    given.sort();
    assert_eq!(given, ["11", "12", "13"]);
    node.try_add(&Pod::new("one-too-many"), &conf).failure(100);
}

/// A namespace whose path is gone but in which a process still lives uses its address.
#[test]
fn a_pod_whose_namespace_lost_its_name_keeps_its_address() {
    let node = Node::new();
    let conf = node.conf_with(json!([[{ "subnet": "10.88.0.7/32" }]]));
    let pod = Pod::new("pod");
    let held = fs::File::open(pod.namespace().path()).unwrap();
    node.add(&pod, &conf);
    pod.die();
    node.store().rewrite_records(|record| record["created"] = json!(1));
    node.try_add(&Pod::new("next"), &conf).failure(100);
    drop(held);
    node.wait_for_host_links(0);
    node.add(&Pod::new("next"), &conf);
}

/// In the role of an IPAM plugin there is no link to look at; the main plugin may be slow.
#[test]
fn an_address_just_given_to_another_plugin_is_kept() {
    let node = Node::new();
    let mut conf = node.conf_with(json!([[{ "subnet": "10.88.0.7/32" }]]));
    conf["type"] = json!("bridge");
    let (pod, next) = (Pod::new("pod"), Pod::new("next"));
    node.add(&pod, &conf);
    pod.die();
    node.try_add(&next, &conf).failure(100);
    node.store().rewrite_records(|record| {
        let created = record["created"].as_u64().unwrap();
        record["created"] = json!(created - 61);
    });
    assert_eq!(addresses_of(&node.add(&next, &conf)), ["10.88.0.7"]);
}

/// After a reboot nothing needs anybody's help: every record is of an earlier boot (kubernetes#57280,
/// plugins#252).
#[test]
fn after_a_reboot_all_addresses_are_free() {
    let node = Node::new();
    let conf = four(&node);
    let before: Vec<Pod> = (0..4).map(|_| Pod::new("before")).collect();
    before.iter().for_each(|pod| drop(node.add(pod, &conf)));
    reboot(&node);
    node.status(&conf).success();
    let after: Vec<Pod> = (0..4).map(|_| Pod::new("after")).collect();
    let mut given: Vec<String> = after.iter().map(|pod| last_part(&node.add(pod, &conf))).collect();
    given.sort();
    assert_eq!(given, ["10", "11", "12", "13"]);
    // The runtime's late DELs for the old sandboxes do no harm to the new ones.
    before.iter().for_each(|pod| node.del(pod, &conf));
    assert_eq!(node.held_addresses().len(), 4);
    assert_eq!(node.host_links().len(), 4);
}

/// A record of before the boot goes with the next ADD, also while another command is at work on it. A DEL or GC that was
/// freed the address of what this ADD had made under the same id, as podman does that keeps its containers' ids.
#[test]
fn a_command_from_before_a_reboot_frees_nothing_newer() {
    for command in ["DEL", "GC"] {
        let (node, pod) = (Node::new(), Pod::new("pod"));
        let mut conf = four(&node);
        conf["cni.dev/valid-attachments"] = json!([]);
        node.add(&pod, &conf);
        reboot(&node);
        // It is slow where it has looked at the record, and has the store's lock to take.
        let trace = node.scratch().path().join("trace");
        let slow = "inject=flock:delay_enter=1000000:when=2";
        let strace = ["strace", "-f", "-qq", "-o", trace.to_str().unwrap(), "-e", "trace=flock", "-e", slow];
        let late = node.call_for(command, &pod, &conf).through(strace).spawn();
        wait_for_words(&trace, "= 0");
        let result = node.add(&pod, &conf);
        late.wait().success();
        let has_link = node.host_links() == [host_link_of(&result)];
        assert_eq!(has_link, node.record_path(&pod).exists(), "{command}: the pod has a link: {has_link}");
        if has_link {
            assert_eq!(node.held_addresses(), addresses_of(&result));
            node.check(&pod, &conf, &result).success();
        }
    }
}

/// What a power loss tore is from an earlier boot as well.
#[test]
fn records_torn_by_a_power_loss_are_gone_after_the_reboot() {
    let node = Node::new();
    let conf = four(&node);
    let pods: Vec<Pod> = (0..4).map(|_| Pod::new("before")).collect();
    pods.iter().for_each(|pod| drop(node.add(pod, &conf)));
    pods.iter().for_each(|pod| fs::write(node.record_path(pod), "").unwrap());
    fs::write(node.store().path().join("boot"), "").unwrap();
    for link in node.host_links() {
        node.namespace().ip(&format!("link delete {link}"));
    }
    let after: Vec<Pod> = (0..4).map(|_| Pod::new("after")).collect();
    after.iter().for_each(|pod| drop(node.add(pod, &conf)));
    assert_eq!(node.held_addresses().len(), 4);
}
