//! Policies, namespaces and pods as a document: what the agent knows, kept on disk for whoever asks why a connection is
//! allowed or denied ([`Planner::objects`]).
//!
//! Pods of all nodes are written by workload: those that follow one another and have the same labels and ports share
//! one entry. So a pod takes some 100 bytes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::policy::cluster::object::ClusterPolicy;
use crate::policy::object::{Event, Feed, NamedPort, Namespace, ObjectName, Pod, Policy};
use crate::policy::planner::Planner;

/// All that was known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Objects {
    /// Of all namespaces.
    #[serde(default)]
    pub policies: Vec<Policy>,
    /// ClusterNetworkPolicies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cluster_policies: Vec<ClusterPolicy>,
    /// All of them.
    #[serde(default)]
    pub namespaces: Vec<Namespace>,
    /// Pods of this node, but those in its network. Their addresses are those of the records, where there are some.
    #[serde(default)]
    pub own_pods: Vec<Pod>,
    /// Pods of all nodes that have an address, but those in a node's network.
    #[serde(default)]
    pub workloads: Vec<Workload>,
}

/// Pods that differ in nothing but names and addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// Their namespace.
    pub namespace: String,
    /// Their labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Ports of their containers that have a name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<NamedPort>,
    /// Addresses by name.
    pub pods: BTreeMap<String, Vec<IpAddr>>,
}

impl Workload {
    /// Its pods, each by itself. Nobody keeps the uids of other nodes' pods.
    pub fn pods(&self) -> impl Iterator<Item = Pod> + '_ {
        self.pods.iter().map(|(name, addresses)| Pod {
            name: ObjectName { namespace: self.namespace.clone(), name: name.clone() },
            uid: String::new(),
            labels: self.labels.clone(),
            addresses: addresses.clone(),
            ports: self.ports.clone(),
            host_network: false,
        })
    }
}

impl Objects {
    /// A pod of this node.
    pub fn own_pod(&self, name: &ObjectName) -> Option<&Pod> {
        self.own_pods.iter().find(|pod| pod.name == *name)
    }

    /// A pod of any node.
    pub fn any_pod(&self, name: &ObjectName) -> Option<Pod> {
        let in_namespace = self.workloads.iter().filter(|it| it.namespace == name.namespace);
        let mut having = in_namespace.filter(|it| it.pods.contains_key(&name.name));
        having.next()?.pods().find(|pod| pod.name == *name)
    }

    /// The pod that has an address: of this node first.
    pub fn with_address(&self, address: IpAddr) -> Option<Pod> {
        let own = self.own_pods.iter().find(|pod| pod.addresses.contains(&address)).cloned();
        own.or_else(|| {
            self.workloads.iter().flat_map(Workload::pods).find(|it| it.addresses.contains(&address))
        })
    }

    /// Somebody who knows all of it.
    pub fn planner(&self) -> Planner {
        let mut planner = Planner::new();
        feed(&mut planner, Event::Policy, self.policies.iter().cloned());
        feed(&mut planner, Event::ClusterPolicy, self.cluster_policies.iter().cloned());
        feed(&mut planner, Event::Namespace, self.namespaces.iter().cloned());
        feed(&mut planner, Event::OwnPod, self.own_pods.iter().cloned());
        feed(&mut planner, Event::AnyPod, self.workloads.iter().flat_map(Workload::pods));
        planner
    }
}

fn feed<T>(planner: &mut Planner, event: fn(Feed<T>) -> Event, list: impl Iterator<Item = T>) {
    planner.apply(event(Feed::ListBegins));
    list.for_each(|it| planner.apply(event(Feed::Listed(it))));
    planner.apply(event(Feed::ListEnds));
}
