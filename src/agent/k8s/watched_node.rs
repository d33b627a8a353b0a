//! A Node as the API server writes it, with the fields that are needed: of a Node, which may have twenty kilobytes
//! (images, managed fields), some hundred bytes are ever kept.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::core::ClusterResourceScope;
use serde::{Deserialize, Deserializer};

use crate::agent::k8s::metadata::{stands_for, without_labels};
use crate::agent::k8s::node_info::{Condition, NodeInfo, RawNode};
use crate::agent::k8s::watch::Watched;

/// Key of a taint that keeps pods from a new node until the agent removes it, if kubelet registers the node with it.
pub const STARTUP_TAINT: &str = "ferrule.dev/agent-not-ready";

/// A Node with the fields that are needed.
#[derive(Debug, Clone, Deserialize)]
pub struct WatchedNode {
    #[serde(default, deserialize_with = "without_labels")]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(rename = "podCIDR")]
    pod_cidr: Option<String>,
    #[serde(default, rename = "podCIDRs")]
    pod_cidrs: Vec<String>,
    #[serde(default)]
    taints: Vec<Taint>,
}

#[derive(Debug, Clone, Deserialize)]
struct Taint {
    #[serde(default, rename = "key", deserialize_with = "is_startup_taint")]
    is_startup: bool,
}

/// Whether a taint is the one that keeps pods away until the agent has set up the node.
fn is_startup_taint<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let key = Option::<Cow<'_, str>>::deserialize(deserializer)?;
    Ok(key.is_some_and(|key| key == STARTUP_TAINT))
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Status {
    #[serde(default)]
    addresses: Vec<Address>,
    #[serde(default)]
    conditions: Vec<NodeCondition>,
}

#[derive(Debug, Clone, Deserialize)]
struct Address {
    #[serde(rename = "type")]
    kind: String,
    address: String,
}

#[derive(Debug, Clone, Deserialize)]
struct NodeCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    #[serde(default, deserialize_with = "awaits_network")]
    message: bool,
}

/// Whether a message says that the runtime has no network configuration (kubelet repeats the runtime's reason).
fn awaits_network<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let message = Option::<Cow<'_, str>>::deserialize(deserializer)?;
    Ok(message.is_some_and(|message| message.contains("NetworkPluginNotReady")))
}

stands_for!(WatchedNode, Node, ClusterResourceScope);

impl Watched for WatchedNode {
    type Read = NodeInfo;

    fn read(self) -> NodeInfo {
        self.into_info()
    }
}

impl WatchedNode {
    fn into_info(self) -> NodeInfo {
        let Self { metadata, spec, status } = self;
        let mut condition = Condition::default();
        for it in &status.conditions {
            match it.kind.as_str() {
                "Ready" => {
                    condition.ready = it.status == "True";
                    condition.awaits_network = it.status != "True" && it.message;
                }
                "NetworkUnavailable" => condition.network_unavailable = it.status != "False",
                _ => {}
            }
        }
        condition.startup_taint = spec.taints.iter().position(|taint| taint.is_startup);
        let is_internal = |it: &Address| it.kind == "InternalIP";
        let pod_cidrs = if spec.pod_cidrs.is_empty() {
            spec.pod_cidr.into_iter().filter(|text| !text.is_empty()).collect()
        } else {
            spec.pod_cidrs
        };
        NodeInfo::read(RawNode {
            name: metadata.name.unwrap_or_default(),
            created: metadata.creation_timestamp.map_or(0, |Time(time)| time.as_second()),
            pod_cidrs,
            internal_ips: status.addresses.into_iter().filter(is_internal).map(|it| it.address).collect(),
            condition,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_read_for_what_matters() {
        let node: WatchedNode = serde_json::from_value(serde_json::json!({
            "metadata": {
                "name": "worker", "uid": "u", "resourceVersion": "7",
                "creationTimestamp": "2026-11-23T16:04:05Z", "managedFields": [{ "fieldsV1": { "f:x": {} } }],
            },
            "spec": { "podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24", "fd00:1::/64"], "taints": [
                { "key": "node.kubernetes.io/not-ready", "effect": "NoSchedule" },
                { "key": "ferrule.dev/agent-not-ready", "effect": "NoSchedule" },
            ] },
            "status": {
                "addresses": [
                    { "type": "Hostname", "address": "worker" },
                    { "type": "ExternalIP", "address": "203.0.113.7" },
                    { "type": "InternalIP", "address": "172.18.0.2" },
                    { "type": "InternalIP", "address": "fc00::2" },
                ],
                "conditions": [
                    { "type": "MemoryPressure", "status": "False" },
                    { "type": "NetworkUnavailable", "status": "True" },
                    { "type": "Ready", "status": "False", "reason": "KubeletNotReady", "message":
                        "container runtime network not ready: NetworkReady=false \
                         reason:NetworkPluginNotReady message:Network plugin returns error: \"x\"" },
                ],
            },
        }))
        .unwrap();
        let info = node.into_info();
        assert_eq!((info.name.as_str(), info.created), ("worker", 1_795_449_845));
        assert_eq!((info.pod_cidrs.len(), info.node_ips.len(), info.unusable.len()), (2, 2, 0));
        let expected = Condition {
            ready: false,
            awaits_network: true,
            network_unavailable: true,
            startup_taint: Some(1),
        };
        assert_eq!(info.condition, expected);
    }

    #[test]
    fn a_node_that_says_nothing_is_a_node() {
        let node: WatchedNode = serde_json::from_str(r#"{"metadata": {"name": "new"}}"#).unwrap();
        let info = node.into_info();
        assert_eq!((info.name.as_str(), info.pod_cidrs.len()), ("new", 0));
    }
}
