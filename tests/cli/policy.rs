//! `ferrulectl policy` and doctor's findings of policies: objects as the agent leaves them, a table made of them, and
//! real pods that connect.

mod doctor;
mod show;
mod tiers;
mod why;

use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use ferrule::attachments::pod_policy::attached;
use ferrule::cni::ids::NetworkName;
use ferrule::datapath::policy::{self, Attached, Mirror};
use ferrule::linux::netns::Netns;
use ferrule::linux::nfnetlink::Nfnetlink;
use ferrule::policy::objects::Objects;
use ferrule::policy::plan::{Plan, Touched};
use ferrule::store::{Store, current_boot_id};
use serde_json::{Value, json};

use super::{document, install, text, verb};
use kit::node::Node;
use kit::pod::{Pod, addresses_of, host_link_of};
use kit::{block_on, nft};

/// A node with pods of the namespace `shop`, and what an agent would have left there.
pub struct Shop {
    pub node: Node,
    pub conf: Value,
    pods: Vec<(String, Pod, Value)>,
}

impl Shop {
    /// With pods of these names.
    pub fn new(names: &[&str]) -> Self {
        let node = Node::new();
        node.namespace().set_sysctl("net/ipv4/conf/all/rp_filter", "0");
        let conf = node.conf();
        install(&node, "10-ferrule.conflist", &conf);
        let mut shop = Self { node, conf, pods: Vec::new() };
        names.iter().for_each(|name| shop.add(name));
        shop
    }

    pub fn add(&mut self, name: &str) {
        let pod = Pod::new(name);
        let args = format!("K8S_POD_NAMESPACE=shop;K8S_POD_NAME={name};K8S_POD_UID={}", uid(name));
        let result = self.node.call_for("ADD", &pod, &self.conf).args(args).run().result();
        self.pods.push((name.to_owned(), pod, result));
    }

    fn find(&self, name: &str) -> &(String, Pod, Value) {
        self.pods.iter().find(|it| it.0 == name).expect("a pod of the shop")
    }

    pub fn pod(&self, name: &str) -> &Pod {
        &self.find(name).1
    }

    pub fn address(&self, name: &str, ipv4: bool) -> String {
        let addresses = addresses_of(&self.find(name).2);
        addresses.into_iter().find(|it| it.parse::<IpAddr>().unwrap().is_ipv4() == ipv4).unwrap()
    }

    pub fn link(&self, name: &str) -> String {
        host_link_of(&self.find(name).2)
    }

    /// The objects: all pods with a label `app` and ports of these names, but those that the agent has not seen; and
    /// one of another node.
    pub fn objects(&self, policies: &Value, unseen: &[&str]) -> Value {
        let pods = self.pods.iter().filter(|it| !unseen.contains(&it.0.as_str()));
        let own_pods: Vec<Value> = pods
            .map(|(name, _, result)| {
                json!({ "namespace": "shop", "name": name, "uid": uid(name), "labels": { "app": name },
                        "addresses": addresses_of(result),
                        "ports": [{ "name": "http", "protocol": 6, "port": 8080 }] })
            })
            .collect();
        json!({
            "policies": policies,
            "namespaces": [{ "name": "shop", "labels": { "team": "a" } }, { "name": "far", "labels": { "team": "b" } }],
            "ownPods": own_pods,
            "workloads": [{ "namespace": "far", "labels": { "app": "remote" },
                            "pods": { "remote-0": ["10.89.0.9", "fd00:89::9"] } }],
        })
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.node.data_dir().join("podnet").join(name)
    }

    /// Leaves the objects as the agent does.
    pub fn leave_objects(&self, objects: &Value) {
        let boot = current_boot_id().unwrap();
        let written = json!({ "version": 1, "bootId": boot.as_str(), "objects": objects });
        fs::write(self.file("policy-objects"), written.to_string()).unwrap();
    }

    /// Makes the table of these objects, and leaves both as the agent does.
    pub fn enforce(&self, objects: &Value) -> Plan {
        self.leave_objects(objects);
        let objects: Objects = serde_json::from_value(objects.clone()).unwrap();
        let plan = objects.planner().plan().clone();
        let name = NetworkName::parse("podnet").unwrap();
        let store = Store::open_existing(&self.node.data_dir(), &name).unwrap().unwrap();
        let boot = current_boot_id().unwrap();
        store.lock(&boot, Duration::from_secs(5)).unwrap().remember_policy(Some(&plan)).unwrap();
        let records = store.attachments().unwrap().into_iter().map(|it| it.record.unwrap());
        let attached: Vec<Attached> = records.filter_map(|record| attached(&record)).collect();
        let nft = Nfnetlink::open_in(&Netns::open(self.node.namespace().path()).unwrap()).unwrap();
        let touched = Touched::everything();
        block_on(async {
            let mut mirror = Mirror::default();
            policy::apply(
                &nft,
                &mut mirror,
                &plan,
                &touched,
                &attached,
                ferrule::datapath::policy::Unknown::Open,
            )
            .await
            .unwrap();
        });
        plan
    }

    pub fn nft(&self, words: &str) {
        nft::run(self.node.namespace(), words).unwrap();
    }

    /// The answer to `policy why`, which must end with `status`.
    pub fn why(&self, from: &str, to: &str, status: i32) -> Value {
        document(&self.node, &format!("policy why {from} {to}"), status)
    }

    pub fn text(&self, words: &str) -> String {
        text(&verb(&self.node, words).run()).to_owned()
    }
}

pub fn uid(name: &str) -> String {
    format!("00000000-0000-4000-8000-{:0>12}", name.len() * 1000 + usize::from(name.as_bytes()[0]))
}

/// A policy of the namespace `shop` for the pods of one app.
pub fn policy(name: &str, app: &str, spec: &Value) -> Value {
    let mut spec = spec.clone();
    spec["podSelector"] = json!({ "matchLabels": { "app": app } });
    json!({ "namespace": "shop", "name": name, "spec": spec })
}
