//! `ferrulectl doctor` finds what was broken, one thing at a time, and nothing on a node that is well.

use std::fs;

use serde_json::{Value, json};

use super::{add_named, conf_dir, install, text, verb};
use ferrule::desired::names::{OVERLAY_DEVICE, OVERLAY_GROUP};
use kit::files::listing;
use kit::ip;
use kit::nft;
use kit::node::{NODE_V6, Node};
use kit::pod::{Pod, addresses_of, host_link_of};

/// What a machine that runs the tests may have in its root directory is none of their business.
const OF_THE_MACHINE: &str = "networkd-foreign-routes";

/// A node with a peer and a running pod.
struct Patient {
    node: Node,
    conf: Value,
    pod: Pod,
    result: Value,
}

impl Patient {
    fn new() -> Self {
        let node = Node::new();
        node.namespace().set_sysctl("net/ipv4/conf/all/rp_filter", "0");
        // The peer, which answers.
        node.outside().ip("address add 198.18.0.11/24 dev down");
        let mut conf = node.conf();
        conf["peers"] =
            json!([{ "node": "node-b", "podCIDRs": ["10.89.1.0/24"], "nodeIPs": ["198.18.0.11"] }]);
        install(&node, "10-ferrule.conflist", &conf);
        let pod = Pod::new("pod");
        let result = add_named(&node, &conf, &pod, "web");
        Self { node, conf, pod, result }
    }

    /// All findings; whether there are any is what the exit status must tell.
    fn findings(&self) -> Vec<Value> {
        let answer = verb(&self.node, "doctor --output json").run();
        let findings = answer.document().expect("a document")["findings"].as_array().unwrap().clone();
        assert_eq!(answer.status.code(), Some(i32::from(!findings.is_empty())), "{answer:?}");
        for finding in &findings {
            for field in ["id", "severity", "found", "cause", "remedy"] {
                assert!(finding[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {finding}");
            }
        }
        findings.into_iter().filter(|finding| finding["id"] != OF_THE_MACHINE).collect()
    }

    /// The one finding, which must be of that kind and contain the words.
    fn expect_one(&self, id: &str, words: &[&str]) {
        let findings = self.findings();
        let ids: Vec<&str> = findings.iter().map(|it| it["id"].as_str().unwrap()).collect();
        assert_eq!(ids, [id], "{findings:#?}");
        for word in words {
            assert!(findings[0].to_string().contains(word), "{word}: {}", findings[0]);
        }
    }

    fn host_link(&self) -> String {
        host_link_of(&self.result)
    }
}

/// IPv6 needs 1280, whatever the uplink has: that is no fault of the pods, but worth a word.
#[test]
fn an_uplink_too_small_for_ipv6_is_a_warning_alone() {
    let node = Node::new();
    node.namespace().set_sysctl("net/ipv4/conf/all/rp_filter", "0");
    node.namespace().ip("link set uplink mtu 1200");
    let conf = node.conf();
    install(&node, "10-ferrule.conflist", &conf);
    let pod = Pod::new("pod");
    add_named(&node, &conf, &pod, "web");
    let answer = verb(&node, "doctor --output json").run();
    let mut findings = answer.document().expect("a document")["findings"].as_array().unwrap().clone();
    findings.retain(|it| it["id"] != OF_THE_MACHINE);
    let kinds: Vec<_> = findings.iter().map(|it| (&it["id"], &it["severity"])).collect();
    assert_eq!(kinds, [(&json!("uplink-without-ipv6"), &json!("warning"))], "{findings:#?}");
    assert!(findings[0]["found"].to_string().contains("1200"), "{findings:#?}");
}

#[test]
fn an_address_of_the_node_that_it_lacks_is_found() {
    let node = Node::new();
    node.namespace().set_sysctl("net/ipv4/conf/all/rp_filter", "0");
    let mut conf = node.conf();
    conf["nodeIPs"] = json!(["198.19.0.7", NODE_V6]);
    install(&node, "10-ferrule.conflist", &conf);
    let answer = verb(&node, "doctor --output json").run();
    let findings = answer.document().expect("a document")["findings"].as_array().unwrap().clone();
    let missing: Vec<_> = findings.iter().filter(|it| it["id"] == "node-address-missing").collect();
    assert!(missing.len() == 1 && missing[0]["found"].to_string().contains("198.19.0.7"), "{findings:#?}");
}

#[test]
fn a_node_that_is_well_has_no_finding_and_stays_as_it_is() {
    let patient = Patient::new();
    let asked = |namespace: &_| (ip::links(namespace).len(), ip::routes(namespace, "-4 table all"));
    let before = (listing(&patient.node.data_dir()), asked(patient.node.namespace()));
    assert_eq!(patient.findings(), Vec::<Value>::new());
    let after = (listing(&patient.node.data_dir()), asked(patient.node.namespace()));
    assert_eq!(before, after);
}

#[test]
fn a_changed_table_is_one_finding_and_sync_mends_it() {
    let patient = Patient::new();
    let namespace = patient.node.namespace();
    for (ruin, word) in [
        ("flush ruleset", "chain inet ferrule prerouting is missing"),
        ("flush set inet ferrule sources6", "element sources6 { "),
        ("flush set inet ferrule no_masquerade4", "exemptions from masquerade"),
        ("flush chain inet ferrule antispoof", "rules of chain inet ferrule antispoof differ"),
        ("insert rule inet ferrule postrouting accept", "rules of chain inet ferrule postrouting differ"),
        ("add table inet ferrule { flags dormant; }", "table inet ferrule is dormant"),
    ] {
        nft::run(namespace, ruin).unwrap();
        patient.expect_one("table-differs", &[word, "ferrulectl sync"]);
        let synchronised = verb(&patient.node, "sync").run();
        assert!(synchronised.status.success(), "{synchronised:?}");
        assert_eq!(patient.findings(), Vec::<Value>::new(), "{ruin}");
    }
}

#[test]
fn a_strict_check_of_sources_beside_vxlan_is_a_warning() {
    let patient = Patient::new();
    let node = patient.node.namespace();
    let found = || {
        let findings =
            verb(&patient.node, "doctor --output json").run().document().unwrap()["findings"].clone();
        let found = findings.as_array().unwrap().iter().filter(|it| it["id"] == "rp-filter-strict").cloned();
        found.collect::<Vec<Value>>()
    };
    node.set_sysctl("net/ipv4/conf/uplink/rp_filter", "1");
    assert_eq!(found(), Vec::<Value>::new(), "no tunnel");
    node.ip(&format!(
        "link add {OVERLAY_DEVICE} group {OVERLAY_GROUP} type vxlan id 4096 dstport 8472 local 198.18.0.2 nolearning"
    ));
    let findings = found();
    assert_eq!((findings.len(), &findings[0]["severity"]), (1, &json!("warning")), "{findings:#?}");
    let remedy = findings[0]["remedy"].as_str().unwrap();
    assert!(remedy.contains("sysctl -w net/ipv4/conf/uplink/rp_filter=2"), "{remedy}");
    node.set_sysctl("net/ipv4/conf/uplink/rp_filter", "2");
    assert_eq!(found(), Vec::<Value>::new());
    node.set_sysctl("net/ipv4/conf/uplink/rp_filter", "0");
    node.set_sysctl("net/ipv4/conf/all/rp_filter", "1");
    assert_eq!(found().len(), 1, "the larger value counts");
}

/// An address and a hardware address that were asked for are no difference.
#[test]
fn a_pod_with_wishes_is_well() {
    let patient = Patient::new();
    let mut conf = patient.conf.clone();
    conf["runtimeConfig"] = json!({ "mac": "02:11:22:33:44:55", "ips": ["10.88.0.77"] });
    let pod = Pod::new("wishes");
    patient.node.add(&pod, &conf);
    assert_eq!(patient.findings(), Vec::<Value>::new());
    pod.namespace().ip("link set eth0 address 02:11:22:33:44:66");
    patient.expect_one("attachment-differs", &["neighbour"]);
}

#[test]
fn what_was_changed_in_the_kernel_is_found() {
    let patient = Patient::new();
    let address = &addresses_of(&patient.result)[0];
    patient.node.namespace().ip(&format!("route delete {address}"));
    patient.expect_one("attachment-differs", &["default/web", address, "missing"]);
    let shown = verb(&patient.node, "doctor").run();
    assert_eq!(shown.status.code(), Some(1));
    for word in ["network podnet: pod default/web", "\n  cause   ", "\n  remedy  "] {
        assert!(text(&shown).contains(word), "{}", text(&shown));
    }
    assert!(!text(&shown).contains('\u{1b}'));

    let patient = Patient::new();
    patient.pod.namespace().ip("route delete default");
    patient.expect_one("attachment-differs", &["0.0.0.0/0"]);

    let patient = Patient::new();
    patient.node.namespace().ip(&format!("link delete {}", patient.host_link()));
    patient.expect_one("attachment-differs", &["its host link is gone"]);
}

#[test]
fn settings_of_the_node_are_found() {
    let patient = Patient::new();
    patient.node.namespace().set_sysctl("net/ipv4/ip_forward", "0");
    patient.expect_one("forwarding-off", &["sysctl -w net.ipv4.ip_forward=1"]);

    let patient = Patient::new();
    patient.node.namespace().set_sysctl("net/ipv4/conf/all/rp_filter", "2");
    patient.expect_one("rp-filter-loose", &["loose"]);

    let patient = Patient::new();
    patient.node.namespace().ip("route delete unreachable 10.88.0.0/24");
    patient.expect_one("catch-all-missing", &["10.88.0.0/24"]);
}

#[test]
fn an_mtu_that_is_not_the_uplinks_is_found() {
    let patient = Patient::new();
    patient.node.namespace().ip("link set uplink mtu 1400");
    patient.expect_one("mtu-too-large", &["1400", &patient.host_link(), "1500"]);
    patient.node.outside().ip("link set dev down mtu 2000");
    patient.node.namespace().ip("link set uplink mtu 2000");
    patient.expect_one("mtu-too-small", &["2000"]);
}

#[test]
fn unreachable_peers_and_missing_routes_are_found() {
    let patient = Patient::new();
    patient.node.namespace().ip("route delete 10.89.1.0/24");
    patient.expect_one("peer-route-wrong", &["node-b", "10.89.1.0/24", "missing"]);
    patient.node.namespace().ip("route delete 198.18.0.0/24 dev uplink");
    patient.expect_one("peer-unreachable", &["node-b", "only through 198.18.0.1"]);
}

/// Small packets pass, large ones are lost without a word: a link on the way carries less than the pods send.
#[test]
fn doctor_names_the_node_that_large_packets_do_not_reach() {
    let patient = Patient::new();
    let outside = patient.node.outside();
    assert_eq!(patient.findings(), Vec::<Value>::new());
    let chain = "type filter hook prerouting priority -500;";
    nft::load(
        outside,
        &format!("table inet lose {{\nchain lost {{\n{chain}\nmeta length > 1300 drop\n}}\n}}\n"),
    );
    patient.expect_one("path-mtu-lost", &["198.18.0.11", "1500"]);
    nft::run(outside, "delete table inet lose").unwrap();
    assert_eq!(patient.findings(), Vec::<Value>::new());
}

#[test]
fn the_store_is_looked_at() {
    let patient = Patient::new();
    fs::write(patient.node.record_path(&patient.pod), "torn").unwrap();
    let ids: Vec<String> = patient.findings().iter().map(|it| it["id"].to_string()).collect();
    assert_eq!(ids, ["\"record-damaged\""]);

    let patient = Patient::new();
    let [first, second] =
        [0, 1].map(|at| patient.node.store().path().join("by-ip").join(&addresses_of(&patient.result)[at]));
    fs::remove_file(&first).unwrap();
    patient.expect_one("address-unheld", &["10.88.0.2"]);
    // In its place the file of another, which does not list the address: that may be replaced.
    let other = Pod::new("other");
    let taken = addresses_of(&patient.node.add(&other, &patient.conf));
    fs::hard_link(patient.node.store().path().join("by-ip").join(&taken[0]), &first).unwrap();
    patient.expect_one("address-unheld", &["10.88.0.2"]);
    // It lists the address as well: two pods may be using it.
    let file = patient.node.record_path(&other);
    let original = fs::read(&file).unwrap();
    let mut record: Value = serde_json::from_slice(&original).unwrap();
    record["addresses"].as_array_mut().unwrap().push(json!("10.88.0.2"));
    record.as_object_mut().unwrap().remove("sum");
    fs::write(&file, record.to_string()).unwrap();
    let contested =
        |it: &Value| it["id"] == "address-contested" && it["found"].to_string().contains("10.88.0.2");
    assert!(patient.findings().iter().any(contested), "{:#?}", patient.findings());
    fs::write(&file, original).unwrap();
    fs::remove_file(&first).unwrap();
    fs::hard_link(&second, &first).unwrap();
    assert_eq!(patient.findings(), Vec::<Value>::new());

    fs::remove_file(patient.node.record_path(&patient.pod)).unwrap();
    let findings = patient.findings();
    let ids: Vec<&str> = findings.iter().map(|it| it["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["record-unlisted", "link-unrecorded"], "{findings:#?}");
    assert!(findings[1]["found"].to_string().contains(&patient.host_link()));
}

#[test]
fn dead_attachments_and_full_ranges_are_found() {
    let patient = Patient::new();
    patient.pod.die();
    patient.node.wait_for_host_links(0);
    patient.expect_one("dead-attachments", &["ferrulectl reclaim", "default/web"]);

    let patient = Patient::new();
    let mut full = patient.node.conf_with(json!([[{ "subnet": "10.91.0.0/30" }]]));
    full["name"] = json!("small");
    install(&patient.node, "20-small.conflist", &full);
    patient.node.add(&Pod::new("only"), &full);
    let findings = patient.findings();
    // Its namespace went with its guard; what counts is the range.
    assert!(findings.iter().any(|it| it["id"] == "range-full" && it["network"] == "small"), "{findings:#?}");
}

#[test]
fn what_others_left_is_found() {
    let patient = Patient::new();
    patient.node.namespace().ip("link add cni0 type bridge");
    patient.expect_one("foreign-link", &["cni0", "flannel"]);

    let patient = Patient::new();
    patient.node.namespace().ip("route add 10.89.1.0/25 via 198.18.0.1 proto static");
    patient.expect_one("foreign-route", &["10.89.1.0/25", "dev uplink"]);
    patient.node.namespace().ip("route delete 10.89.1.0/25");
    patient.node.namespace().ip("address add 10.88.0.1/24 dev uplink");
    patient.expect_one("foreign-route", &["10.88.0.0/24"]);
}

#[test]
fn the_confs_are_looked_at() {
    let patient = Patient::new();
    let other = conf_dir(&patient.node).join("05-other.conflist");
    fs::write(&other, r#"{"name":"x","cniVersion":"1.0.0","plugins":[{"type":"bridge"}]}"#).unwrap();
    patient.expect_one("conf-order", &["05-other.conflist", "10-ferrule.conflist"]);
    fs::rename(&other, conf_dir(&patient.node).join("99-other.conflist")).unwrap();
    assert_eq!(patient.findings(), Vec::<Value>::new());
    fs::write(conf_dir(&patient.node).join("50-broken.conflist"), r#"{"plugins":[{"type":"ferrule""#)
        .unwrap();
    patient.expect_one("conf-unusable", &["50-broken.conflist", "is not JSON"]);

    let node = Node::new();
    let answer = verb(&node, "doctor").run();
    assert_eq!(answer.status.code(), Some(1));
    assert!(text(&answer).contains("names ferrule"), "{answer:?}");
}

/// As long as an ADD or DEL has the attachment's hold, what is missing may be on its way.
#[test]
fn an_attachment_in_flight_is_no_finding() {
    let patient = Patient::new();
    patient.node.namespace().ip(&format!("link delete {}", patient.host_link()));
    let held = fs::File::open(patient.node.record_path(&patient.pod)).unwrap();
    held.lock().unwrap();
    assert_eq!(patient.findings(), Vec::<Value>::new());
    drop(held);
    patient.expect_one("attachment-differs", &["its host link is gone"]);
}

/// Of a named gateway the kernel makes routes of its own; those are nobody else's.
#[test]
fn a_named_gateway_is_no_finding() {
    let patient = Patient::new();
    let mut conf = patient.node.conf_with(
        json!([[{ "subnet": "10.92.0.0/24", "gateway": "10.92.0.9" }], [{ "subnet": "fd00:92::/64", "gateway": "fd00:92::9" }]]),
    );
    conf["name"] = json!("named");
    install(&patient.node, "20-named.conflist", &conf);
    let pod = Pod::new("named");
    patient.node.add(&pod, &conf);
    assert_eq!(patient.findings(), Vec::<Value>::new());
}

/// Another plugin gives the addresses: what it chose is not compared, that the link is there is.
#[test]
fn a_network_with_another_ipam_plugin_is_judged_by_its_links() {
    let patient = Patient::new();
    let conf = json!({
        "cniVersion": "1.0.0", "name": "delegated", "type": "ferrule", "dataDir": patient.node.data_dir(),
        "ipam": { "type": "host-local", "dataDir": patient.node.scratch().path().join("host-local"),
                  "subnet": "10.93.0.0/24", "routes": [{ "dst": "0.0.0.0/0" }] },
    });
    install(&patient.node, "20-delegated.conflist", &conf);
    let pod = Pod::new("delegated");
    let result = patient.node.add(&pod, &conf);
    assert_eq!(patient.findings(), Vec::<Value>::new());
    patient.node.namespace().ip(&format!("link delete {}", host_link_of(&result)));
    patient.expect_one("attachment-differs", &["delegated", "its host link is gone"]);
}
