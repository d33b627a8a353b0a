//! GC: what is not valid goes, what is stays, and so does everything that is nobody's business.

use std::fs;

use serde_json::{Value, json};

use kit::ip;
use kit::node::Node;
use kit::packets::answers_ping;
use kit::pod::{Pod, addresses_of, host_link_of};

/// Adds `count` pods.
fn add_pods(node: &Node, conf: &Value, count: usize) -> Vec<(Pod, Value)> {
    let add = |_| {
        let pod = Pod::new("pod");
        let result = node.add(&pod, conf);
        (pod, result)
    };
    (0..count).map(add).collect()
}

#[test]
fn what_is_not_valid_goes_and_what_is_stays() {
    let node = Node::new();
    let conf = node.conf();
    let pods = add_pods(&node, &conf, 5);
    let valid = [&pods[1].0, &pods[3].0];
    let answer = node.gc(&conf, &valid);
    answer.success();
    assert_eq!(answer.document(), None);
    let mut links = [1, 3].map(|n| host_link_of(&pods[n].1));
    let mut found = node.host_links();
    links.sort();
    found.sort();
    assert_eq!(found, links);
    assert_eq!(node.known_attachments(), valid.map(|pod| format!("{}@eth0", pod.container())));
    for n in [1, 3] {
        node.check(&pods[n].0, &conf, &pods[n].1).success();
    }
    for n in [0, 2, 4] {
        assert!(ip::link(pods[n].0.namespace(), "eth0").is_none());
    }
}

#[test]
fn an_empty_list_means_that_nothing_is_valid() {
    let node = Node::new();
    let conf = node.conf();
    let _pods = add_pods(&node, &conf, 2);
    node.gc(&conf, &[]).success();
    node.expect_nothing_left();
    // Go writes an empty list as null.
    let _pods = add_pods(&node, &conf, 2);
    let mut with_null = conf.clone();
    with_null["cni.dev/valid-attachments"] = Value::Null;
    node.call("GC", &with_null).run().success();
    node.expect_nothing_left();
}

#[test]
fn nothing_was_ever_added() {
    let node = Node::new();
    node.gc(&node.conf(), &[]).success();
    assert!(!node.data_dir().exists());
}

/// The same container may have two interfaces, of which one is valid.
#[test]
fn interfaces_of_one_container_are_told_apart() {
    let node = Node::new();
    let mut conf = node.conf();
    let pod = Pod::new("pod");
    let result = node.add(&pod, &conf);
    conf["ipam"]["routes"] = json!([]);
    node.call_for("ADD", &pod, &conf).ifname("net1").run().success();
    node.gc(&conf, &[&pod]).success();
    assert_eq!(node.host_links(), [host_link_of(&result)]);
    assert!(ip::link(pod.namespace(), "net1").is_none());
}

/// A node on which nobody sent a DEL for a day. There are more of them than a process may have files open by default.
#[test]
fn a_hundred_dead_pods_go_in_one_call() {
    let node = Node::new();
    let conf = node.conf();
    let pods = add_pods(&node, &conf, 100);
    for (pod, _) in &pods[..50] {
        pod.die();
    }
    let stays = Pod::new("stays");
    let result = node.add(&stays, &conf);
    let mut valid = conf.clone();
    valid["cni.dev/valid-attachments"] = json!([{ "containerID": stays.container(), "ifname": "eth0" }]);
    node.call("GC", &valid).through(["prlimit", "--nofile=64:4096"]).run().success();
    assert_eq!(node.host_links(), [host_link_of(&result)]);
    assert_eq!(node.held_addresses(), addresses_of(&result));
    for address in addresses_of(&result) {
        assert!(answers_ping(node.namespace(), &address), "{address}");
    }
}

/// The record went with a wiped data directory, the link did not (calico#7554: leftover links).
#[test]
fn a_link_of_ours_without_a_record_goes() {
    let node = Node::new();
    let conf = node.conf();
    let pods = add_pods(&node, &conf, 3);
    fs::remove_dir_all(node.data_dir()).unwrap();
    node.gc(&conf, &[&pods[0].0]).success();
    assert_eq!(node.host_links(), [host_link_of(&pods[0].1)]);
}

/// A kill after the very first message: a link with nothing but its group.
#[test]
fn a_link_that_died_before_it_had_an_alias_goes() {
    let node = Node::new();
    let conf = node.conf();
    let (pod, result) = add_pods(&node, &conf, 1).remove(0);
    let host = host_link_of(&result);
    // iproute2 cannot set an empty alias; a link without one, in the same group, is what such a kill leaves.
    let group = ip::link(node.namespace(), &host).unwrap()["group"].as_str().unwrap().to_owned();
    node.del(&pod, &conf);
    node.namespace().ip(&format!("link add {host} group {group} type veth peer name peer0 group default"));
    node.gc(&conf, &[]).success();
    node.expect_nothing_left();
}

/// A kill of whoever was about to remove it: the link is in that process' group by then, not in the network's.
#[test]
fn a_link_whose_remover_was_killed_goes_by_gc_and_by_del() {
    let node = Node::new();
    let conf = node.conf();
    let (pod, result) = add_pods(&node, &conf, 1).remove(0);
    let host = host_link_of(&result);
    node.del(&pod, &conf);
    // 0x46, and the id of a process that is no more.
    let leave = || {
        let group = 0x4600_0000 | 4_194_303;
        node.namespace()
            .ip(&format!("link add {host} group {group} type veth peer name peer0 group default"));
    };
    leave();
    node.gc(&conf, &[]).success();
    node.expect_nothing_left();
    leave();
    node.del(&pod, &conf);
    node.expect_nothing_left();
}

#[test]
fn a_damaged_record_goes() {
    let node = Node::new();
    let conf = node.conf();
    let pods = add_pods(&node, &conf, 2);
    fs::write(node.record_path(&pods[0].0), "\0\0\0").unwrap();
    node.gc(&conf, &[&pods[1].0]).success();
    assert_eq!(node.host_links(), [host_link_of(&pods[1].1)]);
    assert_eq!(node.held_addresses(), addresses_of(&pods[1].1));
}

#[test]
fn other_networks_and_other_peoples_links_are_left_alone() {
    let node = Node::new();
    let conf = node.conf();
    let mut other_network = node.conf_with(json!([[{ "subnet": "10.88.1.0/24" }]]));
    other_network["name"] = json!("podnet2");
    let ours = add_pods(&node, &conf, 1);
    let theirs = add_pods(&node, &other_network, 1);
    node.namespace().ip_batch(
        "link add veth00000000001 type veth peer name veth00000000002\n\
         link set veth00000000001 alias mine\n\
         link add cni0 type bridge\n\
         route add 203.0.113.0/24 dev uplink proto 102\n",
    );
    node.gc(&conf, &[]).success();
    let mut left = node.host_links();
    left.sort();
    let mut expected = vec![
        "cni0".to_owned(),
        host_link_of(&theirs[0].1),
        "veth00000000001".into(),
        "veth00000000002".into(),
    ];
    expected.sort();
    assert_eq!(left, expected);
    assert!(ip::link(ours[0].0.namespace(), "eth0").is_none());
    node.check(&theirs[0].0, &other_network, &theirs[0].1).success();
    assert_eq!(ip::routes(node.namespace(), "-4 203.0.113.0/24").len(), 1);
}

/// A list that cannot be understood must not be taken for a shorter one: that would remove running pods.
#[test]
fn a_list_that_cannot_be_understood_removes_nothing() {
    let node = Node::new();
    let conf = node.conf();
    let pods = add_pods(&node, &conf, 2);
    let good = json!({ "containerID": pods[0].0.container(), "ifname": "eth0" });
    for list in [
        json!([good, { "containerID": "../x", "ifname": "eth0" }]),
        json!([good, { "ifname": "eth0" }]),
        json!([good, { "containerID": "x" }]),
        json!([good, "x"]),
        json!({ "containerID": "x" }),
        json!("all"),
        json!(""),
    ] {
        let mut conf = conf.clone();
        conf["cni.dev/valid-attachments"] = list.clone();
        let said = node.call("GC", &conf).run().complaint(7);
        assert!(said.contains("cni.dev/valid-attachments"), "{list}: {said}");
    }
    let said = node.call("GC", &conf).run().complaint(7);
    assert!(said.contains("is missing"), "{said}");
    assert_eq!(node.known_attachments().len(), 2);
    for (pod, result) in &pods {
        node.check(pod, &conf, result).success();
    }
}

/// While GC runs, pods start: neither their addresses nor their links are leftovers. GC is slowed down at each of
/// its steps in turn, so that the ADD falls between any two of them.
#[test]
fn an_add_in_flight_survives() {
    for step in 1..=6 {
        let node = Node::new();
        let conf = node.conf();
        let dead = Pod::new("dead");
        node.add(&dead, &conf);
        let mut gc_conf = conf.clone();
        gc_conf["cni.dev/valid-attachments"] = json!([]);
        let calls = "openat,sendto,sendmsg,flock,renameat,getdents64";
        // The first calls are the loader's.
        let slow = format!("inject={calls}:delay_enter=60000:when={}+8", 6 + step);
        let trace = node.scratch().path().join("trace");
        let wrapper = ["strace", "-f", "-qq", "-o", trace.to_str().unwrap(), "-e", &slow];
        let mut gc = node.call("GC", &gc_conf).through(wrapper).spawn();
        let mut pods = Vec::new();
        while gc.is_running() {
            let pod = Pod::new("pod");
            let before_gc_ended = node.add(&pod, &conf);
            pods.push((pod, before_gc_ended));
        }
        gc.wait().success();
        // What was whole when GC looked is not on its list and may go; what was not, must not be torn: a pod has
        // its link, its record and its addresses, or nothing at all.
        for (pod, result) in &pods {
            let has_record = node.record_path(pod).exists();
            let has_link = ip::link(node.namespace(), &host_link_of(result)).is_some();
            assert_eq!(has_record, has_link, "step {step}: record {has_record}, link {has_link}");
            if has_record {
                node.check(pod, &conf, result).success();
            }
        }
        let last = pods.last().expect("GC took long enough");
        assert!(node.record_path(&last.0).exists(), "step {step}");
    }
}
