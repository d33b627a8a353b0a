//! What is found on nodes that have been in use: leaks, junk, missing files, a runtime that remembers nothing.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use serde_json::{Value, json};

use super::*;

#[test]
fn what_host_local_leaked_is_not_taken_over() {
    let old = OldNode::with_ptp();
    let (node, pods) = (&old.node, [Pod::new("dead"), Pod::new("alive")]);
    let results = [old.add(&pods[0], "dead"), old.add(&pods[1], "alive")];
    pods[0].die();
    node.wait_for_end(&host_link_of(&results[0]));
    old.install_ferrule();
    let done = old.import(0);
    assert_eq!(states(&done), ["imported"]);
    assert_eq!(done["dead"][0]["addresses"], json!(addresses_of(&results[0])));
    assert_eq!(node.known_attachments(), [format!("{}@eth0", pods[1].container())]);
    assert!(text(&old.import_as_text()).contains("dead: its namespace is gone; not imported"));
}

/// No results: a pod that may be running is taken over, and only its DEL tells that it is not.
#[test]
fn a_pod_unknown_to_the_runtime_is_held_until_its_del() {
    let old = OldNode::with_ptp();
    let (node, pod) = (&old.node, Pod::new("pod"));
    let result = old.add_in_secret(&pod);
    let conf = old.install_ferrule();
    let done = old.import(0);
    assert_eq!((states(&done), &done["pods"][0]["netns"]), (vec!["imported"], &json!(null)));
    assert!(done["pods"][0]["notes"][0].as_str().unwrap().contains("crictl pods"), "{done}");
    assert!(done["leftAlone"].to_string().contains("--results"), "{done}");
    let inspected = document(node, "inspect", 0);
    assert_eq!(inspected["networks"][0]["attachments"][0]["state"], "alive");
    node.check(&pod, &conf, &result).success();
    node.del(&pod, &conf);
    node.store().expect_empty();
    // Whose link it is nobody knows, so it goes with its namespace.
    assert!(ip::link(pod.namespace(), "eth0").is_some());
}

#[test]
fn junk_is_named_and_never_followed() {
    let old = OldNode::with_ptp();
    let (node, pod) = (&old.node, Pod::new("pod"));
    let result = old.add(&pod, "web");
    let at = |name: &str| old.networks().join(name);
    let secret = node.scratch().path().join("secret");
    fs::write(&secret, "c0ffee\r\neth0").unwrap();
    fs::write(at("10.88.0.40"), "").unwrap();
    fs::write(at("10.88.0.41"), "\0\0\0\0").unwrap();
    symlink(&secret, at("10.88.0.42")).unwrap();
    fs::create_dir(at("10.88.0.43")).unwrap();
    assert!(Command::new("mkfifo").arg(at("10.88.0.44")).status().unwrap().success());
    fs::write(at("notes.txt"), "mine").unwrap();
    fs::write(old.results().join("podnet-torn-eth0"), "{").unwrap();
    symlink(&secret, old.results().join("podnet-link-eth0")).unwrap();
    let before = (listing(&old.networks()), listing(&old.results()));
    old.install_ferrule();
    let done = old.import(0);
    assert_eq!(states(&done), ["imported"]);
    let left = done["leftAlone"].to_string();
    for word in [
        "10.88.0.40",
        "is empty",
        "10.88.0.41",
        "10.88.0.42",
        "a symbolic link",
        "10.88.0.43",
        "a directory",
        "10.88.0.44",
        "a FIFO",
        "notes.txt",
        "2 files of podnet",
    ] {
        assert!(left.contains(word), "{word}: {left}");
    }
    let mut held = addresses_of(&result);
    held.sort();
    assert_eq!(node.held_addresses(), held);
    assert_eq!((listing(&old.networks()), listing(&old.results())), before);
}

/// A disk that was full, or somebody's rm: the pods run all the same.
#[test]
fn a_pod_without_a_file_is_found_by_the_runtimes_cache() {
    let old = OldNode::with_ptp();
    let (node, pods) = (&old.node, [Pod::new("empty"), Pod::new("gone")]);
    let results = [old.add(&pods[0], "empty"), old.add(&pods[1], "gone")];
    for address in addresses_of(&results[0]) {
        fs::write(old.networks().join(address), "").unwrap();
    }
    for address in addresses_of(&results[1]) {
        fs::remove_file(old.networks().join(address)).unwrap();
    }
    old.install_ferrule();
    let done = old.import(0);
    assert_eq!((states(&done), &done["leftAlone"]), (vec!["imported", "imported"], &json!([])));
    for (pod, result) in pods.iter().zip(&results) {
        assert_eq!(node.store().record(pod.container())["addresses"], json!(addresses_of(result)));
    }
    assert!(
        done["pods"][0]["notes"][0].as_str().unwrap().contains("not in host-local's directory"),
        "{done}"
    );
}

#[test]
fn a_dry_run_says_all_of_it_and_changes_nothing() {
    let old = OldNode::with_bridge();
    let (node, pods) = (&old.node, [Pod::new("a"), Pod::new("b")]);
    old.add(&pods[0], "web-0");
    let dead = old.add(&pods[1], "web-1");
    pods[1].die();
    node.wait_for_end(dead["interfaces"][1]["name"].as_str().unwrap());
    old.install_ferrule();
    let picture = || {
        let proxy_arp = node.namespace().sysctl("net/ipv4/conf/cni0/proxy_arp");
        (listing(node.scratch().path()), proxy_arp, node.host_links(), node.namespace().ip("route"))
    };
    let before = picture();
    let mut foreseen = document(node, &format!("{} --dry-run", old.words()), 0);
    assert_eq!(picture(), before);
    assert_eq!(foreseen["dryRun"], true);
    assert!(!node.data_dir().exists());
    foreseen["dryRun"] = json!(false);
    assert_eq!(foreseen, old.import(0));
}

/// ferrule was switched on first, and gave away what an old pod has.
#[test]
fn an_address_of_two_pods_is_told_and_the_rest_imported() {
    let ranges = json!([[{ "subnet": SUBNET_V4 }]]);
    let old = OldNode::new(conf_of("ptp", ranges.clone()));
    let (node, pods) = (&old.node, [Pod::new("a"), Pod::new("b")]);
    let results = [old.add(&pods[0], "a"), old.add(&pods[1], "b")];
    let conf = node.conf_with(ranges);
    install(node, "10-ferrule.conflist", &conf);
    // As the IPAM plugin of another it does not look for routes, so it gives what it thinks is free.
    let mut as_ipam = conf.clone();
    as_ipam["type"] = json!("ptp");
    let other = Pod::new("other");
    let given = node.call_for("ADD", &other, &as_ipam).run().result();
    assert_eq!(addresses_of(&given), addresses_of(&results[0]));
    for words in [format!("{} --dry-run", old.words()), old.words()] {
        let done = document(node, &words, 1);
        assert_eq!(states(&done), ["imported"], "{done}");
        let problem = done["problems"][0].as_str().unwrap();
        assert!(
            problem.contains(&addresses_of(&results[0])[0]) && problem.contains(other.container()),
            "{problem}"
        );
    }
    assert_eq!(node.held_addresses().len(), 2);
}

/// The path that was recorded is another pod's namespace by now.
#[test]
fn a_del_never_touches_a_namespace_that_is_not_the_recorded_one() {
    let old = OldNode::with_ptp();
    let (node, pod) = (&old.node, Pod::new("pod"));
    old.add(&pod, "web");
    let conf = old.install_ferrule();
    old.import(0);
    node.store().rewrite_records(|record| record["netns"]["ino"] = json!(1));
    node.del(&pod, &conf);
    node.store().expect_empty();
    assert!(ip::link(pod.namespace(), "eth0").is_some());
}

#[test]
fn what_is_no_use_is_refused_with_the_remedy() {
    let old = OldNode::with_ptp();
    old.add(&Pod::new("pod"), "web");
    let node = &old.node;
    let complaint = |words: &str| {
        let answer = verb(node, words).run();
        assert_eq!(answer.status.code(), Some(1), "{answer:?}");
        assert!(!node.data_dir().exists());
        answer.stderr
    };
    assert!(complaint(&old.words()).contains("no usable conf of a network \"podnet\""));
    let mut conf = node.conf();
    conf["ipam"] = json!({ "type": "host-local", "ranges": [[{ "subnet": SUBNET_V4 }]] });
    install(node, "10-ferrule.conflist", &conf);
    assert!(complaint(&old.words()).contains("addresses from host-local"));
    old.install_ferrule();
    assert!(complaint("import --from /nonexistent/podnet").contains("/var/lib/cni/networks"));
    assert!(complaint("import --from /nonexistent/podnet --network other").contains("\"other\""));
}

/// As from a container that does not see the node's /run: no path is there, but the links are.
#[test]
fn a_pod_with_a_hidden_namespace_lives_as_long_as_its_link() {
    let old = OldNode::with_ptp();
    let (node, pod) = (&old.node, Pod::new("pod"));
    let result = old.add(&pod, "web");
    let text = fs::read_to_string(old.result_path(&pod)).unwrap();
    fs::write(old.result_path(&pod), text.replace("/run/netns/", "/nonexistent/")).unwrap();
    let conf = old.install_ferrule();
    assert_eq!(states(&old.import(0)), ["imported"]);
    let state = |document: &Value| document["networks"][0]["attachments"][0]["state"].clone();
    assert_eq!(state(&document(node, "inspect", 0)), "alive");
    expect_all_is_well(node);
    pod.die();
    node.wait_for_end(&host_link_of(&result));
    assert_eq!(state(&document(node, "inspect", 0)), "dead");
    node.del(&pod, &conf);
    node.store().expect_empty();
}

/// The runtime's path is a living pod's, but not that of the pod whose address it is: paths below /proc come again.
#[test]
fn another_pods_namespace_is_never_taken_for_the_old_pods() {
    let old = OldNode::with_ptp();
    let (node, pods) = (&old.node, [Pod::new("gone"), Pod::new("alive")]);
    let results = [old.add(&pods[0], "gone"), old.add(&pods[1], "alive")];
    let of = |pod: &Pod| pod.namespace().path().to_str().unwrap().to_owned();
    let text = fs::read_to_string(old.result_path(&pods[0])).unwrap();
    fs::write(old.result_path(&pods[0]), text.replace(&of(&pods[0]), &of(&pods[1]))).unwrap();
    let conf = old.install_ferrule();
    let done = old.import(0);
    assert_eq!(done["pods"][0]["netns"], json!(null));
    assert!(done["pods"][0]["notes"][0].as_str().unwrap().contains("another pod's by now"), "{done}");
    node.del(&pods[0], &conf);
    expect_to_be_reached(node, &results[1]);
}

/// Not a pod's: a namespace that only has the name of one.
#[test]
fn the_nodes_own_namespace_is_no_pods() {
    let old = OldNode::with_ptp();
    let (node, pod) = (&old.node, Pod::new("pod"));
    old.add(&pod, "web");
    let text = fs::read_to_string(old.result_path(&pod)).unwrap();
    let of = |namespace: &Namespace| namespace.path().to_str().unwrap().to_owned();
    fs::write(old.result_path(&pod), text.replace(&of(pod.namespace()), &of(node.namespace()))).unwrap();
    old.install_ferrule();
    let done = old.import(0);
    assert_eq!((states(&done), &done["pods"][0]["netns"]), (vec!["imported"], &json!(null)));
}
