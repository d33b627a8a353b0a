//! A range that has run out, and pods that start all at once.

use std::path::Path;

use serde_json::json;

use kit::call::{Call, Running};
use kit::files::{Scratch, wait_for_words};
use kit::netns::Namespace;
use kit::node::Node;
use kit::pod::Pod;
use kit::store::Store;

/// A /28 without network, broadcast and gateway.
const CAPACITY: usize = 13;

/// After a restart of the node all pods start together, and the first of them to find the range full makes
/// room for all: none may be told that there is none because another one is at it (k8s#57280).
#[test]
fn many_pods_that_find_a_full_range_all_get_an_address() {
    let alive = Namespace::new("alive");
    for round in 0..8 {
        let data_dir = Scratch::new("full");
        let gone = Namespace::new("gone");
        let refused = add_at_once(data_dir.path(), &format!("gone-{round}"), &gone);
        assert_eq!(refused, Vec::<String>::new());
        drop(gone);
        // An hour: young records are not yet judged.
        let store = Store::of(data_dir.path(), "podnet");
        store.rewrite_records(|record| record["created"] = json!(record["created"].as_u64().unwrap() - 3600));
        let refused = add_at_once(data_dir.path(), &format!("alive-{round}"), &alive);
        assert_eq!(refused, Vec::<String>::new(), "round {round}");
        let names = store.known();
        assert_eq!(names.len(), CAPACITY);
        assert!(names.iter().all(|name| name.starts_with("alive-")), "{names:?}");
    }
}

/// A pod whose ADD finds the range full takes down what the dead have on the node. One of them came again meanwhile,
/// under its old id, and it was the link of the new pod that went.
#[test]
fn a_pod_added_again_while_it_is_reclaimed_keeps_its_address() {
    let node = Node::new();
    let conf = node.conf_with(json!([[{ "subnet": "10.88.0.7/32" }]]));
    let (dead, other) = (Pod::new("dead"), Pod::new("other"));
    node.add(&dead, &conf);
    dead.die();
    node.wait_for_host_links(0);
    let again = Pod::with_container(dead.container());
    // The first message of this ADD asks for the dead one's link. It is slow to send the next.
    let trace = node.scratch().path().join("trace");
    let slow = "inject=sendto:delay_enter=1000000:when=2";
    let strace = ["strace", "-f", "-qq", "-o", trace.to_str().unwrap(), "-e", "trace=sendto", "-e", slow];
    let reclaiming = node.call_for("ADD", &other, &conf).through(strace).spawn();
    wait_for_words(&trace, "sendto(");
    let answers = [(&again, node.try_add(&again, &conf)), (&other, reclaiming.wait())];
    let mut given = 0;
    for (pod, answer) in answers {
        if answer.status.success() {
            given += 1;
            node.check(pod, &conf, &answer.result()).success();
        } else {
            answer.failure(100);
        }
    }
    assert_eq!(given, 1);
}

/// The DEL of a dead pod is at work when another pod needs its address: there is room, as soon as that is done.
#[test]
fn an_add_waits_for_the_del_that_makes_room_for_it() {
    let node = Node::new();
    let conf = node.conf_with(json!([[{ "subnet": "10.88.0.7/32" }]]));
    let dead = Pod::new("dead");
    node.add(&dead, &conf);
    dead.die();
    node.wait_for_host_links(0);
    let trace = node.scratch().path().join("trace");
    let slow = "inject=flock:delay_enter=1000000:when=2";
    let strace = ["strace", "-f", "-qq", "-o", trace.to_str().unwrap(), "-e", "trace=flock", "-e", slow];
    let del = node.call_for("DEL", &dead, &conf).through(strace).spawn();
    wait_for_words(&trace, "= 0");
    node.add(&Pod::new("next"), &conf);
    del.wait().success();
}

/// Asks for an address for as many containers as the range has addresses, all at the same time, as the main
/// plugin `bridge` would; gives the refusals.
fn add_at_once(data_dir: &Path, word: &str, netns: &Namespace) -> Vec<String> {
    let conf = json!({ "cniVersion": "1.0.0", "name": "podnet", "type": "bridge", "ipam": {
        "type": "ferrule", "dataDir": data_dir, "ranges": [[{ "subnet": "10.244.1.0/28" }]] } });
    let add = Call::ferrule("ADD").env("CNI_PATH", "/opt/cni/bin").silent_stdin();
    let call = |number| add.clone().attachment(&format!("{word}-{number}"), netns.path());
    let mut running: Vec<_> = (0..CAPACITY).map(|number| call(number).spawn()).collect();
    running.iter_mut().for_each(|one| one.send_conf(&conf));
    let answers = running.into_iter().map(Running::wait);
    answers.filter(|answer| !answer.status.success()).map(|answer| answer.text()).collect()
}
