//! A move from beginning to end, with real packets before, during and after; and the way back.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use super::*;

#[test]
fn a_node_moves_from_ptp_with_its_pods_running() {
    let old = OldNode::with_ptp();
    let (node, pods) = (&old.node, [Pod::new("a"), Pod::new("b")]);
    let results = [old.add(&pods[0], "web-0"), old.add(&pods[1], "web-1")];
    expect_to_reach_each_other((&pods[0], &results[0]), (&pods[1], &results[1]));
    let (host_local, links) = (listing(&old.networks()), node.host_links());
    let conf = old.install_ferrule();
    let done = old.import(0);
    assert_eq!(states(&done), ["imported", "imported"]);
    assert_eq!((&done["dead"], &done["problems"], &done["steps"]), (&json!([]), &json!([]), &json!([])));
    for (n, name) in [(0, "default/web-0"), (1, "default/web-1")] {
        let told = &done["pods"][n];
        assert_eq!(told["pod"], name);
        assert_eq!(told["addresses"], json!(addresses_of(&results[n])));
        assert_eq!(told["netns"], json!(pods[n].namespace().path()));
        assert_eq!(told["hostLink"], host_link_of(&results[n]));
        assert_eq!(told["hostPorts"][0]["hostPort"], 8080);
        assert_eq!(told["notes"], json!([]));
        // One record for both families.
        let record = node.store().record(pods[n].container());
        assert_eq!(record["addresses"], told["addresses"]);
        assert_eq!(record["importedFrom"], json!(old.networks()));
    }
    assert_eq!((listing(&old.networks()), node.host_links()), (host_local, links));
    // A new pod has an address of its own, and everybody reaches everybody.
    let new = Pod::new("new");
    let result = node.add(&new, &conf);
    for (pod, old_result) in pods.iter().zip(&results) {
        assert!(addresses_of(old_result).iter().all(|it| !addresses_of(&result).contains(it)));
        expect_to_reach_each_other((pod, old_result), (&new, &result));
        expect_to_be_reached(node, old_result);
    }
    expect_to_reach_each_other((&pods[0], &results[0]), (&pods[1], &results[1]));
    // Whoever looks finds the old pods, and nothing wrong with them.
    let inspected = &document(node, "inspect", 0)["networks"][0]["attachments"];
    assert_eq!(inspected[0]["importedFrom"], json!(old.networks()));
    assert_eq!(
        (&inspected[0]["state"], &inspected[0]["hostLink"]),
        (&json!("alive"), &json!(host_link_of(&results[0])))
    );
    assert!(text(&verb(node, "inspect").run()).contains("alive, imported"));
    expect_all_is_well(node);
    for (pod, result) in pods.iter().zip(&results) {
        node.check(pod, &conf, result).success();
        assert!(node.try_add(pod, &conf).complaint(101).contains("attached already"));
    }
    // A second import has nothing to do, and does not take a pod of ferrule's for an old one.
    let before = listing(&node.data_dir());
    let again = old.import(0);
    assert_eq!(states(&again), ["already", "already"]);
    assert_eq!(listing(&node.data_dir()).len(), before.len());
    // They go as pods do: one by DEL, the other by GC.
    node.del(&pods[0], &conf);
    node.del(&pods[0], &conf);
    assert!(ip::link(pods[0].namespace(), "eth0").is_none());
    assert!(ip::link(node.namespace(), &host_link_of(&results[0])).is_none());
    node.gc(&conf, &[&new]).success();
    assert_eq!(node.known_attachments(), [format!("{}@eth0", new.container())]);
    assert_eq!(node.host_links(), [host_link_of(&result)]);
    assert_eq!(node.held_addresses().len(), 2);
    for address in results.iter().flat_map(addresses_of) {
        let family = if address.contains(':') { "-6" } else { "-4" };
        assert_eq!(ip::routes(node.namespace(), &format!("{family} exact {address}")), Vec::<Value>::new());
    }
    expect_all_is_well(node);
}

#[test]
fn a_node_moves_from_a_bridge_with_the_steps_that_import_names() {
    let old = OldNode::with_bridge();
    let (node, pods) = (&old.node, [Pod::new("a"), Pod::new("b")]);
    let results = [old.add(&pods[0], "web-0"), old.add(&pods[1], "web-1")];
    expect_to_reach_each_other((&pods[0], &results[0]), (&pods[1], &results[1]));
    let conf = old.install_ferrule();
    let done = old.import(0);
    assert_eq!(states(&done), ["imported", "imported"]);
    assert_eq!(done["pods"][0]["hostLink"], results[0]["interfaces"][1]["name"], "not the bridge");
    let new = Pod::new("new");
    let result = node.add(&new, &conf);
    // Without the steps they do not reach each other, which is why they are named.
    let steps = done["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 3, "one for IPv4, one for each pod's IPv6: {steps:?}");
    for (one, other) in [(&pods[0], &result), (&new, &results[0])] {
        for address in addresses_of(other) {
            assert!(!answers_ping(one.namespace(), &address), "the step for {address} is not needed");
        }
    }
    assert!(text(&old.import_as_text()).contains("sysctl -w net.ipv4.conf.cni0.proxy_arp=1"));
    let findings = document(node, "doctor", 1)["findings"].clone();
    assert_eq!(findings.as_array().unwrap().len(), 1, "{findings}");
    assert_eq!(findings[0]["id"], "imported-cut-off");
    steps.iter().for_each(|step| old.follow(step));
    for (pod, old_result) in pods.iter().zip(&results) {
        expect_to_reach_each_other((pod, old_result), (&new, &result));
        expect_to_be_reached(node, old_result);
    }
    expect_to_reach_each_other((&pods[0], &results[0]), (&pods[1], &results[1]));
    expect_to_be_reached(node, &result);
    expect_all_is_well(node);
    assert_eq!(old.import(0)["steps"], json!([]));
    for (pod, result) in pods.iter().zip(&results) {
        node.check(pod, &conf, result).success();
        node.del(pod, &conf);
    }
    let mut left = node.host_links();
    left.sort();
    let mut wanted = ["cni0".to_owned(), host_link_of(&result)];
    wanted.sort();
    assert_eq!(left, wanted);
    assert_eq!(node.held_addresses().len(), 2);
    // And without imported pods the bridge is a leftover again.
    assert_eq!(document(node, "doctor", 1)["findings"][0]["id"], "foreign-route");
}

/// The bridge has the gateway's addresses, and the conf of ferrule names the same: both answer for them.
#[test]
fn a_gateway_with_a_name_serves_old_and_new_pods() {
    let old = OldNode::with_bridge();
    let (node, pod) = (&old.node, Pod::new("old"));
    let old_result = old.add(&pod, "web");
    let conf = node.conf_with(json!([
        [{ "subnet": SUBNET_V4, "gateway": "10.88.0.1" }],
        [{ "subnet": SUBNET_V6, "gateway": "fd00:88::1" }],
    ]));
    install(node, "10-ferrule.conflist", &conf);
    old.import(0)["steps"].as_array().unwrap().iter().for_each(|step| old.follow(step));
    let new = Pod::new("new");
    let result = node.add(&new, &conf);
    expect_to_reach_each_other((&pod, &old_result), (&new, &result));
    for namespace in [pod.namespace(), new.namespace()] {
        for gateway in ["10.88.0.1", "fd00:88::1"] {
            assert!(answers_ping_in_time(namespace, gateway), "{gateway}");
        }
    }
    expect_to_be_reached(node, &old_result);
    expect_all_is_well(node);
}

/// Three of the five addresses are old pods'.
#[test]
fn the_address_of_a_running_old_pod_is_never_given_away() {
    let ranges = json!([[{ "subnet": "10.88.0.0/29" }]]);
    let old = OldNode::new(conf_of("ptp", ranges.clone()));
    let (node, pods) = (&old.node, ["a", "b", "c"].map(Pod::new));
    let results = [old.add(&pods[0], "a"), old.add(&pods[1], "b"), old.add_in_secret(&pods[2])];
    let conf = node.conf_with(ranges);
    install(node, "10-ferrule.conflist", &conf);
    assert_eq!(states(&old.import(0)), ["imported", "imported", "imported"]);
    let olds: Vec<String> = results.iter().flat_map(addresses_of).collect();
    let news = ["d", "e"].map(Pod::new);
    for pod in &news {
        let given = addresses_of(&node.add(pod, &conf));
        assert!(!olds.contains(&given[0]), "{given:?} of {olds:?}");
    }
    let late = Pod::new("late");
    node.try_add(&late, &conf).failure(100);
    // One that dies without a word makes room, as every pod does. Of the one that nobody knows it cannot be told.
    pods[2].die();
    node.try_add(&late, &conf).failure(100);
    pods[0].die();
    node.wait_for_end(&host_link_of(&results[0]));
    assert_eq!(addresses_of(&node.add(&late, &conf)), addresses_of(&results[0]));
}

/// The text of docs/OPERATE.md, as a person would paste it.
fn way_back() -> String {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/OPERATE.md")).unwrap();
    let (_, rest) = text.split_once("import/moving.rs -->\n```sh\n").expect("the snippet");
    rest.split_once("\n```").expect("its end").0.to_owned()
}

#[test]
fn the_way_back_is_the_old_conflist_and_the_documented_lines() {
    let old = OldNode::with_ptp();
    let (node, pods) = (&old.node, [Pod::new("stays"), Pod::new("goes")]);
    let results = [old.add(&pods[0], "stays"), old.add(&pods[1], "goes")];
    let conf = old.install_ferrule();
    old.import(0);
    let new = Pod::new("new");
    let new_result = node.add(&new, &conf);
    node.del(&pods[1], &conf);
    fs::write(old.networks().join("notes.txt"), "mine").unwrap();
    // The snippet says `ferrule`, as on a node whose directories are the usual ones.
    let wrapper = node.scratch().path().join("ferrule");
    let program = format!(
        "#!/bin/sh\nexec {} \"$@\" --conf-dir {} --data-dir {}\n",
        FERRULECTL.display(),
        conf_dir(node).display(),
        node.data_dir().display()
    );
    fs::write(&wrapper, program).unwrap();
    assert!(Command::new("chmod").arg("+x").arg(&wrapper).status().unwrap().success());
    for _ in 0..2 {
        let path = format!("{}:{}", node.scratch().path().display(), std::env::var("PATH").unwrap());
        let mut shell = node.namespace().command("sh");
        shell.args(["-c", &way_back()]).env("PATH", path);
        let output = shell.env("network", "podnet").env("dir", old.networks()).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }
    let mut wanted: Vec<String> = [&results[0], &new_result].into_iter().flat_map(addresses_of).collect();
    wanted.extend(["last_reserved_ip.0", "last_reserved_ip.1", "lock", "notes.txt"].map(str::to_owned));
    wanted.sort();
    assert_eq!(names_in(&old.networks()), wanted);
    // The old plugin gives none of them away, and takes ferrule's pod down as its own.
    fs::remove_file(conf_dir(node).join("10-ferrule.conflist")).unwrap();
    let newest = Pod::new("newest");
    let newest_result = old.add(&newest, "newest");
    assert!(addresses_of(&newest_result).iter().all(|address| !wanted.contains(address)));
    expect_to_reach_each_other((&newest, &newest_result), (&new, &new_result));
    expect_to_reach_each_other((&pods[0], &results[0]), (&new, &new_result));
    old.call("DEL", &new).run().success();
    assert!(ip::link(new.namespace(), "eth0").is_none());
    assert!(ip::link(node.namespace(), &host_link_of(&new_result)).is_none());
    assert!(addresses_of(&new_result).iter().all(|address| !old.networks().join(address).exists()));
}
