//! `ferrulectl import` takes over a node from ptp or bridge with host-local while its pods run: the real plugins, real
//! packets, and what stays as it was.

mod migrating;
mod moving;
mod oddities;

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::{conf_dir, document, install, text, verb};
use kit::answer::Answer;
use kit::binaries::{FERRULECTL, REFERENCE_PLUGINS};
use kit::call::Call;
use kit::files::{listing, names_in};
use kit::ip;
use kit::netns::Namespace;
use kit::node::{Node, SUBNET_V4, SUBNET_V6};
use kit::packets::{answers_ping, answers_ping_in_time, source_seen_over_tcp};
use kit::pod::{Pod, addresses_of, host_link_of};

/// A node that another plugin serves, with host-local and a runtime that remembers results as libcni does.
struct OldNode {
    node: Node,
    conf: Value,
}

impl OldNode {
    fn new(conf: Value) -> Self {
        let node = Node::new();
        let mut conf = conf;
        conf["ipam"]["dataDir"] = json!(node.scratch().path().join("networks"));
        Self { node, conf }
    }

    fn with_ptp() -> Self {
        Self::new(conf_of("ptp", json!([[{ "subnet": SUBNET_V4 }], [{ "subnet": SUBNET_V6 }]])))
    }

    fn with_bridge() -> Self {
        let mut conf = conf_of("bridge", json!([[{ "subnet": SUBNET_V4 }], [{ "subnet": SUBNET_V6 }]]));
        conf["bridge"] = json!("cni0");
        conf["isGateway"] = json!(true);
        conf["hairpinMode"] = json!(true);
        Self::new(conf)
    }

    /// host-local's directory.
    fn networks(&self) -> PathBuf {
        self.node.scratch().path().join("networks/podnet")
    }

    /// Where the runtime keeps its results.
    fn results(&self) -> PathBuf {
        self.node.scratch().path().join("results")
    }

    fn call(&self, command: &str, pod: &Pod) -> Call {
        let call = Call::reference(self.conf["type"].as_str().unwrap(), command).on(self.node.namespace());
        let call = call.env("CNI_PATH", REFERENCE_PLUGINS).conf(&self.conf);
        call.attachment(pod.container(), pod.namespace().path())
    }

    /// ADD by the old plugin, without a runtime that remembers it.
    fn add_in_secret(&self, pod: &Pod) -> Value {
        self.call("ADD", pod).run().result()
    }

    /// ADD by the old plugin, remembered as libcni does (`cacheAdd`, libcni/api.go).
    fn add(&self, pod: &Pod, name: &str) -> Value {
        let result = self.add_in_secret(pod);
        let cached = json!({
            "kind": "cniCacheV1", "containerId": pod.container(), "config": "e30=", "ifName": "eth0",
            "networkName": "podnet", "netns": pod.namespace().path(),
            "cniArgs": [["IgnoreUnknown", "1"], ["K8S_POD_NAMESPACE", "default"], ["K8S_POD_NAME", name]],
            "capabilityArgs": { "portMappings": [{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "" }] },
            "result": result,
        });
        fs::create_dir_all(self.results()).unwrap();
        fs::write(self.result_path(pod), cached.to_string()).unwrap();
        result
    }

    fn result_path(&self, pod: &Pod) -> PathBuf {
        self.results().join(format!("podnet-{}-eth0", pod.container()))
    }

    /// The conflist of ferrule takes the place of the old one. Returns the conf.
    fn install_ferrule(&self) -> Value {
        let conf = self.node.conf();
        install(&self.node, "10-ferrule.conflist", &conf);
        conf
    }

    /// The words of an import.
    fn words(&self) -> String {
        format!("import --from {} --results {}", self.networks().display(), self.results().display())
    }

    /// The document of an import that must end with `status`.
    fn import(&self, status: i32) -> Value {
        document(&self.node, &self.words(), status)
    }

    fn import_as_text(&self) -> Answer {
        verb(&self.node, &self.words()).run()
    }

    /// Runs a command that import told a person to.
    fn follow(&self, step: &Value) {
        self.node.namespace().sh(step["command"].as_str().unwrap());
    }
}

fn conf_of(plugin: &str, ranges: Value) -> Value {
    json!({
        "cniVersion": "1.0.0", "name": "podnet", "type": plugin,
        "ipam": {
            "type": "host-local", "ranges": ranges,
            "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
        },
    })
}

/// The states that a document tells of the pods, in order.
fn states(document: &Value) -> Vec<&str> {
    document["pods"].as_array().unwrap().iter().map(|it| it["state"].as_str().unwrap()).collect()
}

/// Both reach each other by both families, and the source address is the sender's own.
fn expect_to_reach_each_other(one: (&Pod, &Value), other: (&Pod, &Value)) {
    for ((from, sender), (to, receiver)) in [(one, other), (other, one)] {
        for (source, address) in addresses_of(sender).iter().zip(addresses_of(receiver)) {
            assert!(answers_ping_in_time(from.namespace(), &address), "{source} -> {address}");
            let seen = source_seen_over_tcp(from.namespace(), to.namespace(), &address).unwrap();
            assert_eq!(seen, source.parse::<IpAddr>().unwrap());
        }
    }
}

/// From the node, and from beyond it.
fn expect_to_be_reached(node: &Node, result: &Value) {
    for address in addresses_of(result) {
        assert!(answers_ping_in_time(node.namespace(), &address), "node -> {address}");
        assert!(answers_ping_in_time(node.outside(), &address), "outside -> {address}");
    }
}

/// What a person may look at, and nothing of it is a fault.
fn expect_all_is_well(node: &Node) {
    let answer = verb(node, "doctor").run();
    assert!(answer.status.success(), "{}", text(&answer));
}
