//! What the planner knows, as a document.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use crate::policy::cluster::object::ClusterPolicy;
use crate::policy::index::Member;
use crate::policy::object::{NamedPort, Namespace, Pod, Policy};
use crate::policy::objects::{Objects, Workload};
use crate::policy::planner::Planner;

/// What a planner knows, object by object. Serialised it is [`Objects`], without all of them in memory at once.
#[derive(Debug, Clone, Copy)]
pub struct View<'a>(&'a Planner);

impl Planner {
    /// What is known. Fed to another planner it gives the same plan.
    pub fn objects(&self) -> View<'_> {
        View(self)
    }
}

impl<'a> View<'a> {
    /// Whether there is no NetworkPolicy and no ClusterNetworkPolicy.
    pub fn is_without_policies(&self) -> bool {
        !self.0.needs_any_pods()
    }

    /// All of it at once.
    pub fn collect(self) -> Objects {
        Objects {
            policies: self.policies().collect(),
            cluster_policies: self.cluster_policies().collect(),
            namespaces: self.namespaces().collect(),
            own_pods: self.own_pods().collect(),
            workloads: self.workloads().collect(),
        }
    }

    fn policies(self) -> impl Iterator<Item = Policy> + 'a {
        // It was written by serde_json.
        self.0.written.values().filter_map(|text| serde_json::from_str(text).ok())
    }

    fn cluster_policies(self) -> impl Iterator<Item = ClusterPolicy> + 'a {
        self.0.cluster.written().filter_map(|text| serde_json::from_str(text).ok())
    }

    fn namespaces(self) -> impl Iterator<Item = Namespace> + 'a {
        let all = self.0.index.all_namespaces();
        all.map(|(name, labels)| Namespace { name: name.to_owned(), labels: read_labels(labels) })
    }

    fn own_pods(self) -> impl Iterator<Item = Pod> + 'a {
        self.0.index.all_own().map(|own| Pod {
            name: own.name.clone(),
            uid: own.uid.to_owned(),
            labels: read_labels(own.member.labels),
            addresses: own.member.addresses().collect(),
            ports: own.member.ports.to_vec(),
            host_network: false,
        })
    }

    fn workloads(self) -> impl Iterator<Item = Workload> + 'a {
        let mut rows = self.0.index.named_rows().peekable();
        std::iter::from_fn(move || {
            let (name, kind, member) = rows.next()?;
            let mut pods = BTreeMap::from([(name, addresses(&member))]);
            while let Some((name, _, member)) = rows.next_if(|(_, next, _)| *next == kind) {
                pods.insert(name, addresses(&member));
            }
            let ports: Vec<NamedPort> = member.ports.to_vec();
            Some(Workload {
                namespace: member.namespace.to_owned(),
                labels: read_labels(member.labels),
                ports,
                pods,
            })
        })
    }
}

impl Serialize for View<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut document = serializer.serialize_struct("Objects", 5)?;
        document.serialize_field("policies", &Each(|| self.policies()))?;
        document.serialize_field("clusterPolicies", &Each(|| self.cluster_policies()))?;
        document.serialize_field("namespaces", &Each(|| self.namespaces()))?;
        document.serialize_field("ownPods", &Each(|| self.own_pods()))?;
        document.serialize_field("workloads", &Each(|| self.workloads()))?;
        document.end()
    }
}

/// A list whose items are made one by one.
struct Each<F>(F);

impl<F: Fn() -> I, I: Iterator<Item: Serialize>> Serialize for Each<F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((self.0)())
    }
}

fn addresses(member: &Member<'_>) -> Vec<IpAddr> {
    member.addresses().collect()
}

/// Labels as the API has them.
fn read_labels<L: AsRef<str>>(labels: &[L]) -> BTreeMap<String, String> {
    let each = labels.iter().filter_map(|label| label.as_ref().split_once('='));
    each.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Two namespaces; a policy with everything in it, and one that cannot be compiled; own pods and others.
    fn objects() -> Objects {
        let document = json!({
            "policies": [
                { "namespace": "shop", "name": "web", "spec": {
                    "podSelector": { "matchLabels": { "app": "web" } },
                    "policyTypes": ["Ingress", "Egress"],
                    "ingress": [
                        { "peers": [{ "podSelector": { "matchExpressions": [
                            { "key": "app", "operator": "NotIn", "values": ["db"] }] } }],
                          "ports": [{ "port": "http" }, { "protocol": "UDP", "port": 5000, "endPort": 5010 }] },
                        { "peers": [{ "ipBlock": { "cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"] } }] }
                    ],
                    "egress": [{ "peers": [{ "namespaceSelector": { "matchLabels": { "team": "a" } } }] }]
                } },
                { "namespace": "shop", "name": "wrong", "spec": {
                    "podSelector": { "matchLabels": { "app": "db" } },
                    "ingress": [{ "ports": [{ "port": 70000 }] }]
                } }
            ],
            "namespaces": [{ "name": "other", "labels": { "team": "a" } }, { "name": "shop" }],
            "ownPods": [
                { "namespace": "shop", "name": "db-0", "uid": "u2", "labels": { "app": "db" }, "addresses": ["10.2.0.3"] },
                { "namespace": "shop", "name": "web-7d9c-x2x8q", "uid": "u1", "labels": { "app": "web" },
                  "addresses": ["10.2.0.2", "fd00::2"], "ports": [{ "name": "http", "protocol": 6, "port": 8080 }] }
            ],
            "workloads": [
                { "namespace": "shop", "pods": { "bare": ["10.2.1.9"] } },
                { "namespace": "shop", "labels": { "app": "web" },
                  "ports": [{ "name": "http", "protocol": 6, "port": 8081 }],
                  "pods": { "web-7d9c-aaaaa": ["10.2.1.2", "fd00:1::2"], "web-7d9c-bbbbb": ["10.2.1.3"] } },
                { "namespace": "other", "labels": { "app": "web", "empty": "" }, "pods": { "web": ["10.2.1.4"] } }
            ]
        });
        serde_json::from_value(document).unwrap()
    }

    #[test]
    fn what_is_known_gives_the_same_plan_again() {
        let first = objects().planner();
        assert!(first.is_complete() && first.plan().pods.len() == 2, "{:?}", first.plan());
        let collected = first.objects().collect();
        let streamed: Objects = serde_json::from_value(json!(first.objects())).unwrap();
        assert_eq!(collected, streamed);
        assert_eq!(collected.policies, objects().policies);
        assert_eq!(collected.namespaces, objects().namespaces);
        assert_eq!(collected.own_pods, objects().own_pods);
        assert_eq!(collected.workloads.iter().map(|it| it.pods.len()).sum::<usize>(), 4);
        let second = collected.planner();
        assert_eq!(second.plan(), first.plan());
        assert_eq!(second.objects().collect(), collected);
    }

    /// Five pods a workload, with five labels each, two families: a big cluster's document is small, and made piece by
    /// piece.
    #[test]
    fn many_pods_take_little() {
        let workload = |n: u16| {
            let labels = (0..5).map(|it| (format!("app.kubernetes.io/key-{it}"), format!("value-{it}-{n}")));
            let [high, low] = n.to_be_bytes();
            let pods = (0..5_u8).map(|it| {
                let addresses = [format!("10.{high}.{low}.{it}"), format!("fd00:{n:x}::{it:x}")];
                (format!("workload-{n}-7d9c4b6f5-x2x{it}q"), addresses.map(|it| it.parse().unwrap()).to_vec())
            });
            Workload {
                namespace: format!("namespace-{}", n % 100),
                labels: labels.collect(),
                ports: Vec::new(),
                pods: pods.collect(),
            }
        };
        let objects = Objects { workloads: (0..2000).map(workload).collect(), ..objects() };
        let planner = objects.planner();
        let begin = std::time::Instant::now();
        let bytes = serde_json::to_vec(&planner.objects()).unwrap().len() / 10_000;
        println!("{bytes} bytes a pod; 10,000 pods took {:?}", begin.elapsed());
        assert!(bytes < 130, "{bytes}");
    }

    /// They count instead of what the API says; and who is gone is in no document.
    #[test]
    fn recorded_addresses_and_removals_are_told() {
        use crate::policy::object::{Event, Feed};
        let mut planner = objects().planner();
        planner.set_own_addresses("u1", &["10.2.0.77".parse().unwrap()]);
        planner.apply(Event::Policy(Feed::Gone(objects().policies[1].name.clone())));
        planner.apply(Event::AnyPod(Feed::Gone(objects().workloads[0].pods().next().unwrap().name)));
        let told = planner.objects().collect();
        assert_eq!(told.own_pods[1].addresses, ["10.2.0.77".parse::<IpAddr>().unwrap()]);
        assert_eq!((told.policies.len(), told.workloads.len()), (1, 2));
        assert_eq!(told.planner().plan(), planner.plan());
    }
}
