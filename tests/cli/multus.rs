//! Multus comes first on purpose, and hands pods on to ferrule. The verbs find the network, wherever multus has it from.

use std::fs;

use serde_json::{Value, json};

use super::{add_named, conf_dir, document, install, verb};
use kit::node::Node;
use kit::pod::Pod;

const OF_THE_MACHINE: &str = "networkd-foreign-routes";

/// A node with a running pod, whose conf is where the test puts it.
struct Multus {
    node: Node,
    conf: Value,
    _pod: Pod,
}

impl Multus {
    fn new() -> Self {
        let node = Node::new();
        node.namespace().set_sysctl("net/ipv4/conf/all/rp_filter", "0");
        let conf = node.conf();
        let pod = Pod::new("pod");
        add_named(&node, &conf, &pod, "web");
        fs::create_dir_all(conf_dir(&node)).unwrap();
        Self { node, conf, _pod: pod }
    }

    /// With the agent's conflist, or one by hand, beside it.
    fn with_conflist(self) -> Self {
        install(&self.node, "10-ferrule.conflist", &self.conf);
        self
    }

    fn multus(&self, members: &Value) {
        let mut conf = json!({ "cniVersion": "0.3.1", "name": "multus-cni-network", "type": "multus-shim",
            "confDir": self.node.scratch().path().join("multus") });
        conf.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        fs::write(conf_dir(&self.node).join("00-multus.conf"), conf.to_string()).unwrap();
    }

    fn findings(&self) -> Vec<Value> {
        let answer = verb(&self.node, "doctor --output json").run();
        let findings = answer.document().expect("a document")["findings"].as_array().unwrap().clone();
        findings.into_iter().filter(|finding| finding["id"] != OF_THE_MACHINE).collect()
    }

    fn pods(&self) -> Vec<Value> {
        let inspected = document(&self.node, "inspect", 0);
        let networks = inspected["networks"].as_array().unwrap().iter();
        let with_conf = networks.filter(|network| network["role"] == "main");
        with_conf.flat_map(|it| it["attachments"].as_array().unwrap()).map(|it| it["pod"].clone()).collect()
    }

    #[track_caller]
    fn expect_well(&self) {
        assert_eq!(self.pods(), ["default/web"]);
        assert_eq!(self.findings(), Vec::<Value>::new());
    }
}

/// As the thin plugin's daemon writes it: a copy of the conflist, or of a conf of one plugin.
#[test]
fn a_network_inside_of_multus_is_found() {
    let multus = Multus::new();
    let mut plugin = multus.conf.clone();
    let name = plugin.as_object_mut().unwrap().remove("name").unwrap();
    let list = json!({ "cniVersion": "1.0.0", "name": name, "plugins": [plugin, { "type": "portmap" }] });
    multus.multus(&json!({ "type": "multus", "delegates": [list] }));
    multus.expect_well();
    multus.multus(&json!({ "type": "multus", "delegates": [multus.conf] }));
    multus.expect_well();
    let mut alone = multus.conf.clone();
    alone.as_object_mut().unwrap().remove("cniVersion");
    multus.multus(&json!({ "type": "multus", "delegates": [alone] }));
    multus.expect_well();
    // The uninstaller does not have it removed.
    let left = document(&multus.node, "uninstall --dry-run", 1)["left"].to_string();
    assert!(left.contains("00-multus.conf") && !left.contains("rm /"), "{left}");
}

#[test]
fn a_network_that_multus_refers_to_is_found() {
    let multus = Multus::new().with_conflist();
    for reference in
        ["podnet", "10-ferrule", "10-ferrule.conflist", "/host/etc/cni/net.d/10-ferrule.conflist"]
    {
        multus.multus(&json!({ "clusterNetwork": reference }));
        multus.expect_well();
    }
    // In the directory that multus has for it, and by a path.
    let directory = multus.node.scratch().path().join("multus");
    fs::create_dir(&directory).unwrap();
    let elsewhere = directory.join("podnet.conflist");
    fs::rename(conf_dir(&multus.node).join("10-ferrule.conflist"), &elsewhere).unwrap();
    for reference in ["podnet", elsewhere.to_str().unwrap(), directory.to_str().unwrap()] {
        multus.multus(&json!({ "clusterNetwork": reference }));
        multus.expect_well();
    }
    multus
        .multus(&json!({ "delegates": [{ "type": "flannel", "name": "f" }], "defaultNetworks": ["podnet"] }));
    multus.expect_well();
}

/// A list with the meta plugin in it, as some distributions write it.
#[test]
fn multus_in_a_list_is_multus() {
    let multus = Multus::new().with_conflist();
    let list = json!({ "cniVersion": "1.0.0", "name": "multus-cni-network",
        "plugins": [{ "type": "multus-shim", "clusterNetwork": "podnet" }] });
    fs::write(conf_dir(&multus.node).join("00-multus.conflist"), list.to_string()).unwrap();
    multus.expect_well();
}

#[test]
fn multus_that_leads_elsewhere_is_told_where_to_lead() {
    let multus = Multus::new().with_conflist();
    let other = json!({ "cniVersion": "1.0.0", "name": "cbr0", "plugins": [{ "type": "flannel" }] });
    fs::write(conf_dir(&multus.node).join("20-flannel.conflist"), other.to_string()).unwrap();
    for members in [json!({ "delegates": [other] }), json!({ "clusterNetwork": "cbr0" })] {
        multus.multus(&members);
        let findings = multus.findings();
        assert_eq!(findings.len(), 1, "{findings:#?}");
        assert_eq!(findings[0]["id"], "conf-order");
        let remedy = findings[0]["remedy"].as_str().unwrap();
        assert!(remedy.contains("clusterNetwork") && remedy.contains("podnet"), "{remedy}");
        assert!(!remedy.contains("remove"), "{remedy}");
    }
}

/// A NetworkAttachmentDefinition is in the API, which doctor does not ask.
#[test]
fn what_multus_has_from_the_api_is_no_fault() {
    let multus = Multus::new().with_conflist();
    for members in [json!({ "clusterNetwork": "kube-system/main" }), json!({})] {
        multus.multus(&members);
        assert_eq!(multus.findings(), Vec::<Value>::new());
        let skipped = document(&multus.node, "doctor", 3)["skipped"].to_string();
        assert!(skipped.contains("00-multus.conf"), "{skipped}");
        assert_eq!(multus.pods(), ["default/web"]);
    }
}

#[test]
fn a_stale_copy_in_multus_is_a_warning() {
    let multus = Multus::new().with_conflist();
    let mut copy = multus.conf.clone();
    multus.multus(&json!({ "delegates": [copy] }));
    multus.expect_well();
    copy["nodeIPs"] = json!(["198.18.0.99"]);
    multus.multus(&json!({ "delegates": [copy] }));
    let findings = multus.findings();
    let of_copy: Vec<&Value> = findings.iter().filter(|it| it["id"] == "conf-copy-differs").collect();
    assert_eq!(of_copy.len(), 1, "{findings:#?}");
    assert_eq!(of_copy[0]["severity"], "warning");
    assert!(of_copy[0].to_string().contains("10-ferrule.conflist"));
}
