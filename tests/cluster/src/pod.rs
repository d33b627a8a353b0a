//! Manifests, as few lines as possible: a pod that answers, a pod that waits, and what a case changes about them.

use serde_json::{Value, json};

use crate::cluster::Node;

/// Where the containers of [`Pod::server`] listen, over HTTP and over UDP.
pub const HTTP: u16 = 8080;
/// See [`HTTP`].
pub const UDP: u16 = 8081;

/// A pod's manifest in the making.
#[derive(Clone)]
pub struct Pod(Value);

impl Pod {
    /// Kubernetes' own test server: `/clientip` says whom it sees, `/hostname` who it is; UDP knows the same words.
    pub fn server(name: &str, agnhost: &str) -> Self {
        let command = format!("netexec --http-port={HTTP} --udp-port={UDP}");
        Self::running(name, agnhost, &command.split(' ').collect::<Vec<_>>())
    }

    /// A small server: the file /hostname over HTTP, on port 80. For where pods are many.
    pub fn small(name: &str) -> Self {
        let mut pod = Self::running(name, "busybox", &[]);
        pod.0["spec"]["containers"][0]["command"] = json!(["httpd", "-f", "-p", "80", "-h", "/etc"]);
        pod
    }

    /// A pod of one container, which is given these arguments.
    pub fn running(name: &str, image: &str, arguments: &[&str]) -> Self {
        Self(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "labels": { "app": name }, "annotations": {} },
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "containers": [container("main", image, arguments)],
            },
        }))
    }

    /// On this node, whatever a scheduler would say.
    pub fn on(self, node: &Node) -> Self {
        self.with("/spec/nodeName", json!(node.name))
    }

    /// In the node's own network.
    pub fn on_the_hosts_network(self) -> Self {
        self.with("/spec/hostNetwork", json!(true))
    }

    /// With this label.
    pub fn labelled(self, key: &str, value: &str) -> Self {
        self.with(&format!("/metadata/labels/{key}"), json!(value))
    }

    /// With this annotation.
    pub fn annotated(mut self, key: &str, value: &str) -> Self {
        self.0["metadata"]["annotations"][key] = json!(value);
        self
    }

    /// One more container beside the first.
    pub fn beside(mut self, container: Value) -> Self {
        if let Some(containers) = self.0["spec"]["containers"].as_array_mut() {
            containers.push(container);
        }
        self
    }

    /// With a value at this place, whose parent exists.
    pub fn with(mut self, pointer: &str, value: Value) -> Self {
        if let Some((parent, key)) = pointer.rsplit_once('/')
            && let Some(parent) = self.0.pointer_mut(parent)
        {
            match (parent, key.parse::<usize>()) {
                (Value::Array(items), Ok(index)) if index < items.len() => items[index] = value,
                (parent, _) => parent[key] = value,
            }
        }
        self
    }

    /// With these ports of the first container, each as in a manifest.
    pub fn with_ports(self, ports: Value) -> Self {
        self.with("/spec/containers/0/ports", ports)
    }

    /// The manifest.
    pub fn manifest(self) -> Value {
        self.0
    }

    /// What a Deployment, StatefulSet or Job takes for its pods.
    pub fn template(mut self) -> Value {
        json!({ "metadata": { "labels": self.0["metadata"]["labels"].take() }, "spec": self.0["spec"].take() })
    }
}

/// A container of a pod.
pub fn container(name: &str, image: &str, arguments: &[&str]) -> Value {
    json!({ "name": name, "image": image, "imagePullPolicy": "IfNotPresent", "args": arguments })
}

/// A Service for the pods with the label `app`; both families where the cluster has both.
pub fn service(name: &str, app: &str, ports: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": name },
        "spec": { "selector": { "app": app }, "ports": ports, "ipFamilyPolicy": "PreferDualStack" },
    })
}

/// A Deployment of small servers.
pub fn deployment(name: &str, replicas: usize, pod: Pod) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name },
        "spec": {
            "replicas": replicas, "selector": { "matchLabels": { "app": name } },
            "template": pod.labelled("app", name).template(),
        },
    })
}
