//! `ferrule inspect` shows what is there, says why something is dead, and changes nothing.

use std::fs;
use std::process::Command;

use serde_json::json;

use super::{add_named, conf_dir, document, install, text, verb};
use kit::binaries::FERRULECTL;
use kit::files::listing;
use kit::node::Node;
use kit::pod::{Pod, addresses_of, host_link_of};

#[test]
fn pods_are_told_with_all_that_belongs_to_them_sorted_by_name() {
    let node = Node::new();
    let conf = node.conf();
    install(&node, "10-ferrule.conflist", &conf);
    let pods = [Pod::new("z"), Pod::new("a"), Pod::new("m")];
    let results = [
        add_named(&node, &conf, &pods[0], "web-2"),
        node.add(&pods[1], &conf),
        add_named(&node, &conf, &pods[2], "web-1"),
    ];
    let before = listing(&node.data_dir());
    let document = document(&node, "inspect", 0);
    let network = &document["networks"][0];
    assert_eq!(document["networks"].as_array().unwrap().len(), 1);
    assert_eq!((&network["name"], &network["role"]), (&json!("podnet"), &json!("main")));
    assert_eq!(network["conf"], json!(conf_dir(&node).join("10-ferrule.conflist")));
    for (at, n, name) in [(0, 2, json!("default/web-1")), (1, 0, json!("default/web-2")), (2, 1, json!(null))]
    {
        let told = &network["attachments"][at];
        assert_eq!(told["pod"], name);
        assert_eq!(told["container"], pods[n].container());
        assert_eq!(told["addresses"], json!(addresses_of(&results[n])));
        assert_eq!(told["hostLink"], host_link_of(&results[n]));
        assert_eq!(told["state"], "alive");
        assert!(told["ageSeconds"].as_u64().unwrap() < 60, "{told}");
    }
    let ranges = &network["ranges"];
    assert_eq!(ranges[0], json!({ "ranges": ["10.88.0.0/24"], "used": 3, "free": 250 }));
    assert_eq!((&ranges[1]["ranges"], &ranges[1]["used"]), (&json!(["fd00:88::/64"]), &json!(3)));
    assert_eq!(listing(&node.data_dir()), before, "inspect wrote");
}

#[test]
fn the_table_is_aligned_and_has_no_colour_in_a_pipe() {
    let node = Node::new();
    let conf = node.conf();
    install(&node, "10-ferrule.conflist", &conf);
    let (short, long) = (Pod::new("short"), Pod::new("long"));
    add_named(&node, &conf, &short, "a");
    add_named(&node, &conf, &long, "a-much-longer-name");
    let answer = verb(&node, "inspect podnet").run();
    assert!(answer.status.success(), "{answer:?}");
    let shown = text(&answer);
    assert!(!shown.contains('\u{1b}'), "{shown}");
    assert!(shown.lines().all(|line| line.trim_end() == line), "{shown}");
    let lines: Vec<&str> = shown.lines().collect();
    let heading = lines.iter().position(|line| line.starts_with("POD ")).expect("a heading");
    let column = lines[heading].find("STATE").unwrap();
    for (at, name) in [(1, "default/a "), (2, "default/a-much-longer-name ")] {
        let line = lines[heading + at];
        assert!(line.starts_with(name), "{shown}");
        assert_eq!(&line[column..], "alive", "{shown}");
    }
    assert!(shown.contains("~2^64"), "{shown}");
}

/// What is dead is red, on a terminal only, and not where the person does not want it.
#[test]
fn a_terminal_gets_colour_unless_no_color_is_set() {
    let node = Node::new();
    let conf = node.conf();
    install(&node, "10-ferrule.conflist", &conf);
    let pod = Pod::new("pod");
    add_named(&node, &conf, &pod, "web");
    pod.die();
    node.wait_for_host_links(0);
    let on_terminal = |no_color: &str| {
        let command = format!(
            "{no_color} nsenter --net={} {} inspect --conf-dir {} --data-dir {}",
            node.namespace().path().display(),
            FERRULECTL.display(),
            conf_dir(&node).display(),
            node.data_dir().display()
        );
        let run =
            Command::new("script").args(["-qec", &command, "/dev/null"]).env_remove("NO_COLOR").output();
        String::from_utf8(run.expect("script is installed").stdout).unwrap()
    };
    let shown = on_terminal("env");
    assert!(shown.contains("\u{1b}[31mdead: its namespace is gone\u{1b}[0m"), "{shown}");
    let shown = on_terminal("env NO_COLOR=1");
    assert!(shown.contains("dead: its namespace is gone") && !shown.contains('\u{1b}'), "{shown}");
}

#[test]
fn what_is_wrong_with_an_attachment_is_said() {
    let node = Node::new();
    let conf = node.conf();
    install(&node, "10-ferrule.conflist", &conf);
    let pods: Vec<Pod> = ["dead", "torn", "unlinked", "rebooted"].map(Pod::new).into();
    let results: Vec<_> =
        pods.iter().map(|pod| add_named(&node, &conf, pod, &pod.container()[12..])).collect();
    pods[0].die();
    fs::write(node.record_path(&pods[1]), "torn").unwrap();
    node.namespace().ip(&format!("link delete {}", host_link_of(&results[2])));
    node.store().rewrite(pods[3].container(), |record| record["bootId"] = json!("an-earlier-boot"));
    node.wait_for_host_links(2);
    let document = document(&node, "inspect", 0);
    let attachments = document["networks"][0]["attachments"].as_array().unwrap();
    for (pod, state, reason) in [
        (&pods[0], "dead", "its namespace is gone"),
        (&pods[1], "unknown", "is damaged"),
        (&pods[2], "alive", "its host link is gone"),
        (&pods[3], "dead", "from an earlier boot"),
    ] {
        let told = attachments.iter().find(|it| it["container"] == pod.container()).unwrap();
        assert_eq!(told["state"], state, "{told}");
        assert!(told["reason"].as_str().unwrap().contains(reason), "{told}");
    }
}

#[test]
fn routes_to_peers_are_told_with_their_state() {
    let node = Node::new();
    let mut conf = node.conf();
    let peer = |n: u8| json!({ "node": format!("node-{n}"), "podCIDRs": [format!("10.89.{n}.0/24")], "nodeIPs": [format!("198.18.0.1{n}")] });
    conf["peers"] = json!([peer(1), peer(2), peer(3)]);
    install(&node, "10-ferrule.conflist", &conf);
    node.add(&Pod::new("pod"), &conf);
    node.namespace().ip("route delete 10.89.2.0/24 proto 102");
    let metric = kit::ip::routes(node.namespace(), "-4 10.89.3.0/24")[0]["metric"].clone();
    node.namespace().ip(&format!("route replace 10.89.3.0/24 via 198.18.0.99 proto 102 metric {metric}"));
    let document = document(&node, "inspect", 0);
    let peers = &document["networks"][0]["peers"];
    let states: Vec<&str> =
        peers.as_array().unwrap().iter().map(|it| it["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["standing", "missing", "other"], "{peers}");
    assert_eq!((&peers[0]["node"], &peers[0]["podCidr"]), (&json!("node-1"), &json!("10.89.1.0/24")));
    assert_eq!(peers[0]["nextHop"], "198.18.0.11");
    assert!(peers[2]["found"].as_str().unwrap().contains("via 198.18.0.99"), "{peers}");
    let shown = verb(&node, "inspect").run();
    let line = text(&shown).lines().find(|line| line.starts_with("node-2 ")).unwrap().to_owned();
    assert!(line.ends_with("missing"), "{line}");
}

#[test]
fn networks_are_found_by_conf_and_by_store() {
    let node = Node::new();
    // Its conf is gone, its pods are not.
    let mut forgotten = node.conf();
    forgotten["name"] = json!("forgotten");
    let pod = Pod::new("pod");
    node.add(&pod, &forgotten);
    // ferrule as the IPAM plugin of another, with a store elsewhere.
    let mut ipam = node.conf();
    ipam["name"] = json!("bridged");
    ipam["type"] = json!("bridge");
    ipam["ipam"]["dataDir"] = json!(node.scratch().path().join("elsewhere"));
    install(&node, "20-bridge.conflist", &ipam);
    node.call_for("ADD", &Pod::new("bridged"), &ipam).run().result();
    // None of ours, broken or not; and one of ours that is broken.
    fs::write(conf_dir(&node).join("30-other.conflist"), r#"{"name":"x","plugins":[{"type":"ptp"}]}"#)
        .unwrap();
    fs::write(conf_dir(&node).join("31-other.conf"), "{").unwrap();
    fs::write(conf_dir(&node).join("40-broken.conflist"), r#"{"plugins":[{"type":"ferrule""#).unwrap();
    fs::write(conf_dir(&node).join("50-ignored.txt"), r#"{"type":"ferrule""#).unwrap();
    let found = document(&node, "inspect", 0);
    let networks = found["networks"].as_array().unwrap();
    let names: Vec<&str> = networks.iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["bridged", "forgotten"]);
    assert_eq!(
        (&networks[0]["role"], &networks[0]["attachments"][0]["hostLink"]),
        (&json!("ipam"), &json!(null))
    );
    assert_eq!((&networks[1]["role"], &networks[1]["conf"]), (&json!(null), &json!(null)));
    assert_eq!(networks[1]["attachments"][0]["container"], pod.container());
    let problems = found["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].as_str().unwrap().contains("40-broken.conflist: is not JSON"), "{problems:?}");
    let one = document(&node, "inspect forgotten", 0);
    assert_eq!(one["networks"].as_array().unwrap().len(), 1);
    let none = verb(&node, "inspect nowhere").run();
    assert_eq!(none.status.code(), Some(1));
    assert!(none.stderr.contains("no network \"nowhere\" is known here"), "{none:?}");
}

#[test]
fn a_node_without_a_network_of_ours_is_told_so() {
    let node = Node::new();
    let answer = verb(&node, "inspect").run();
    assert!(answer.status.success() && text(&answer).starts_with("no network of ferrule"), "{answer:?}");
    assert_eq!(document(&node, "inspect", 0)["networks"], json!([]));
    let answer = verb(&node, "inspect --frobnicate").run();
    assert_eq!((answer.status.code(), text(&answer)), (Some(2), ""));
    assert!(answer.stderr.contains("--frobnicate") && answer.stderr.contains("--json"), "{answer:?}");
}
