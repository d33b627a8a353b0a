//! NetworkPolicies, Namespaces and Pods as the API server writes them, with the fields that are needed. A Pod, which has
//! five kilobytes as a rule, is read for some two hundred bytes.

use std::borrow::Cow;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Namespace as ApiNamespace, Pod as ApiPod};
use k8s_openapi::api::networking::v1::NetworkPolicy as ApiPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::{ClusterResourceScope, NamespaceResourceScope};
use serde::Deserialize;

use crate::agent::k8s::metadata::{stands_for, with_labels, without_labels};
use crate::agent::k8s::watch::Watched;
use crate::policy::cluster::object::{ClusterPolicy, ClusterSpec};
use crate::policy::object::{NamedPort, Namespace, ObjectName, Pod, Policy, PolicySpec};

/// `IPPROTO_*` by what the API calls them.
const PROTOCOLS: [(&str, u8); 3] = [("TCP", 6), ("UDP", 17), ("SCTP", 132)];

/// A NetworkPolicy.
#[derive(Debug, Clone, Deserialize)]
pub struct WatchedPolicy {
    #[serde(default, deserialize_with = "without_labels")]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: PolicySpec,
}

/// A ClusterNetworkPolicy. Its resource is defined by whoever installs it, so nobody else has a type for it.
#[derive(Debug, Clone, Deserialize)]
pub struct WatchedClusterPolicy {
    #[serde(default, deserialize_with = "without_labels")]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Box<ClusterSpec>,
}

/// A Namespace.
#[derive(Debug, Clone, Deserialize)]
pub struct WatchedNamespace {
    #[serde(default, deserialize_with = "with_labels")]
    metadata: ObjectMeta,
}

/// A Pod.
#[derive(Debug, Clone, Deserialize)]
pub struct WatchedPod {
    #[serde(default, deserialize_with = "with_labels")]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: PodSpec,
    #[serde(default)]
    status: PodStatus,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodSpec {
    #[serde(default)]
    host_network: Option<bool>,
    #[serde(default)]
    containers: Vec<Container>,
    #[serde(default)]
    init_containers: Vec<Container>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    #[serde(default)]
    ports: Vec<ContainerPort>,
    #[serde(default)]
    restart_policy: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContainerPort {
    name: Option<String>,
    #[serde(default)]
    container_port: u16,
    protocol: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodStatus {
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(default, rename = "podIPs")]
    pod_ips: Vec<PodIp>,
}

#[derive(Debug, Clone, Deserialize)]
struct PodIp {
    #[serde(default)]
    ip: String,
}

stands_for!(WatchedPolicy, ApiPolicy, NamespaceResourceScope);
stands_for!(WatchedNamespace, ApiNamespace, ClusterResourceScope);
stands_for!(WatchedPod, ApiPod, NamespaceResourceScope);

impl kube::Resource for WatchedClusterPolicy {
    type DynamicType = ();
    type Scope = ClusterResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "ClusterNetworkPolicy".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "policy.networking.k8s.io".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1beta1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "clusternetworkpolicies".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Watched for WatchedClusterPolicy {
    type Read = ClusterPolicy;

    fn read(self) -> ClusterPolicy {
        ClusterPolicy { name: self.metadata.name.unwrap_or_default(), spec: self.spec }
    }
}

impl Watched for WatchedPolicy {
    type Read = Policy;

    fn read(self) -> Policy {
        Policy { name: name_of(&self.metadata), spec: self.spec }
    }
}

impl Watched for WatchedNamespace {
    type Read = Namespace;

    fn read(self) -> Namespace {
        let Self { metadata } = self;
        Namespace { name: metadata.name.unwrap_or_default(), labels: metadata.labels.unwrap_or_default() }
    }
}

impl Watched for WatchedPod {
    type Read = Pod;

    fn read(self) -> Pod {
        let Self { metadata, spec, status } = self;
        let host_network = spec.host_network.unwrap_or(false);
        let name = name_of(&metadata);
        let uid = metadata.uid.unwrap_or_default();
        let labels = metadata.labels.unwrap_or_default();
        if host_network {
            // Its addresses are the node's, and no policy is about them.
            return Pod { name, uid, labels, addresses: Vec::new(), ports: Vec::new(), host_network };
        }
        let mut addresses: Vec<IpAddr> = status.pod_ips.iter().filter_map(|it| it.ip.parse().ok()).collect();
        if addresses.is_empty() {
            addresses.extend(status.pod_ip.and_then(|text| text.parse::<IpAddr>().ok()));
        }
        // A container for initialisation that goes on running serves as any other.
        let sidecars =
            spec.init_containers.into_iter().filter(|it| it.restart_policy.as_deref() == Some("Always"));
        let ports = spec.containers.into_iter().chain(sidecars).flat_map(|container| container.ports);
        let ports = ports.filter_map(ContainerPort::read).collect();
        Pod { name, uid, labels, addresses, ports, host_network }
    }
}

impl ContainerPort {
    fn read(self) -> Option<NamedPort> {
        let protocol = self.protocol.as_deref().unwrap_or("TCP");
        let (_, protocol) = PROTOCOLS.iter().find(|(name, _)| *name == protocol)?;
        Some(NamedPort { name: self.name?, protocol: *protocol, port: self.container_port })
    }
}

fn name_of(metadata: &ObjectMeta) -> ObjectName {
    ObjectName {
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::names::own_uid;
    use serde_json::{Value, json};

    fn pod(metadata: Value, spec: Value, status: Value) -> Pod {
        let whole = json!({ "metadata": metadata, "spec": spec, "status": status });
        serde_json::from_value::<WatchedPod>(whole).unwrap().read()
    }

    #[test]
    fn a_pod_is_read_for_what_matters() {
        let read = pod(
            json!({ "namespace": "shop", "name": "web-1", "uid": "0-1", "resourceVersion": "7",
                "labels": { "app": "web" }, "annotations": { "x": "y" }, "managedFields": [{ "fieldsV1": {} }] }),
            json!({ "nodeName": "a", "containers": [
                { "name": "web", "ports": [{ "containerPort": 80, "name": "http", "protocol": "TCP" },
                    { "containerPort": 81 }] },
                { "name": "dns", "ports": [{ "containerPort": 53, "name": "dns", "protocol": "UDP" }] },
            ], "initContainers": [
                { "name": "proxy", "restartPolicy": "Always", "ports": [{ "containerPort": 9, "name": "proxy" }] },
                { "name": "once", "ports": [{ "containerPort": 8, "name": "once" }] },
            ] }),
            json!({ "phase": "Running", "podIP": "10.0.0.7", "podIPs": [{ "ip": "10.0.0.7" }, { "ip": "fd00::7" }] }),
        );
        let port = |name: &str, protocol, port| NamedPort { name: name.to_owned(), protocol, port };
        assert_eq!(read.name, ObjectName { namespace: "shop".into(), name: "web-1".into() });
        assert_eq!((read.uid.as_str(), read.labels["app"].as_str()), ("0-1", "web"));
        assert_eq!(read.addresses, ["10.0.0.7".parse::<IpAddr>().unwrap(), "fd00::7".parse().unwrap()]);
        assert_eq!(read.ports, [port("http", 6, 80), port("dns", 17, 53), port("proxy", 6, 9)]);
        let waiting = pod(json!({ "name": "new" }), json!({}), json!({ "podIPs": [{ "ip": "" }] }));
        assert_eq!(waiting.addresses, [] as [IpAddr; 0]);
    }

    #[test]
    fn a_static_pods_uid_is_what_the_runtime_is_told() {
        let hash = "0123456789abcdef0123456789abcdef";
        let uid = |annotations: Value| {
            pod(json!({ "name": "static-a", "uid": "1-2", "annotations": annotations }), json!({}), json!({}))
                .uid
        };
        let mirror = |hash: &str, mirror: &str| {
            uid(json!({ "kubernetes.io/config.hash": hash, "kubernetes.io/config.mirror": mirror }))
        };
        assert_eq!(mirror(hash, hash), own_uid(hash, "", "static-a"));
        let of = |namespace, name| own_uid(hash, namespace, name);
        assert!(
            of("kube-system", "a") != of("evil", "a") && of("kube-system", "a") != of("kube-system", "b")
        );
        // What anybody may write must not name another pod.
        let victim = "7f4f8a66-0b4f-4f0e-8f7c-111111111111";
        assert_eq!(mirror(victim, victim), "1-2");
        assert_eq!(mirror(hash, victim), "1-2");
        assert_eq!(uid(json!({ "kubernetes.io/config.hash": hash })), "1-2");
    }

    #[test]
    fn a_pod_of_the_nodes_network_has_no_address_of_its_own() {
        let status = json!({ "podIPs": [{ "ip": "192.0.2.1" }] });
        let read = pod(json!({ "name": "proxy" }), json!({ "hostNetwork": true }), status);
        assert!(read.host_network && read.addresses.is_empty());
    }

    #[test]
    fn a_policy_and_a_namespace_are_read_as_they_are_written() {
        let policy: WatchedPolicy = serde_json::from_value(json!({
            "metadata": { "namespace": "shop", "name": "web", "labels": { "x": "y" } },
            "spec": { "podSelector": { "matchLabels": { "app": "web" } }, "policyTypes": ["Ingress"], "ingress": [
                { "from": [{ "namespaceSelector": {} }], "ports": [{ "port": "http" }, { "port": 80, "endPort": 90 }] },
            ] },
        }))
        .unwrap();
        let policy = policy.read();
        assert_eq!(policy.name, ObjectName { namespace: "shop".into(), name: "web".into() });
        assert_eq!((policy.spec.ingress[0].peers.len(), policy.spec.ingress[0].ports.len()), (1, 2));
        let namespace: WatchedNamespace =
            serde_json::from_value(json!({ "metadata": { "name": "shop", "labels": { "team": "a" } } }))
                .unwrap();
        assert_eq!(namespace.read().labels["team"], "a");
    }
}
