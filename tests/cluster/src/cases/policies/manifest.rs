//! Manifests of NetworkPolicies, and of the pods that they are about.

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::pod::{Pod, container};

/// A policy in the making.
pub struct Policy(Value);

impl Policy {
    /// Of the pods with all of these labels: `{"app": "server"}`. It isolates in no direction yet.
    pub fn of(name: &str, labels: Value) -> Self {
        Self::selecting(name, json!({ "matchLabels": labels }))
    }

    /// Of the pods that a selector selects, as in a manifest.
    pub fn selecting(name: &str, selector: Value) -> Self {
        Self(json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": { "name": name },
            "spec": { "podSelector": selector, "policyTypes": [] },
        }))
    }

    /// One more rule of ingress, which isolates in that direction.
    pub fn ingress(self, rule: Value) -> Self {
        self.isolating("Ingress").rule("ingress", rule)
    }

    /// One more rule of egress, which isolates in that direction.
    pub fn egress(self, rule: Value) -> Self {
        self.isolating("Egress").rule("egress", rule)
    }

    /// Isolates in that direction, `Ingress` or `Egress`.
    pub fn isolating(mut self, direction: &str) -> Self {
        if let Some(types) = self.0["spec"]["policyTypes"].as_array_mut()
            && !types.iter().any(|it| it == direction)
        {
            types.push(json!(direction));
        }
        self
    }

    /// Adds a rule to `ingress` or `egress` and leaves `policyTypes` as they are.
    pub fn rule(mut self, field: &str, rule: Value) -> Self {
        let rules = &mut self.0["spec"][field];
        match rules.as_array_mut() {
            Some(rules) => rules.push(rule),
            None => *rules = json!([rule]),
        }
        self
    }

    /// Without `policyTypes`: the API server fills them in.
    pub fn without_types(mut self) -> Self {
        if let Some(spec) = self.0["spec"].as_object_mut() {
            spec.remove("policyTypes");
        }
        self
    }

    /// The manifest.
    pub fn manifest(self) -> Value {
        self.0
    }
}

/// Nobody may do anything with anybody, but for what other policies allow.
pub fn deny_all(name: &str) -> Value {
    Policy::of(name, json!({})).isolating("Ingress").isolating("Egress").manifest()
}

/// The peer: pods of the policy's namespace with all of these labels.
pub fn pods(labels: &Value) -> Value {
    json!({ "podSelector": { "matchLabels": labels } })
}

/// Peers: these addresses.
pub fn blocks(addresses: &[IpAddr]) -> Vec<Value> {
    addresses.iter().map(|address| json!({ "ipBlock": { "cidr": single(address) } })).collect()
}

/// The range that has this address and no other.
pub fn single(address: &IpAddr) -> String {
    format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 })
}

/// A pod that serves at two ports over HTTP, from two containers.
pub fn two_ports(name: &str, agnhost: &str, [first, second]: [u16; 2]) -> Pod {
    let serve = |port: u16| format!("--http-port={port}");
    let beside = container("second", agnhost, &["netexec", &serve(second), "--udp-port=-1"]);
    Pod::running(name, agnhost, &["netexec", &serve(first), "--udp-port=-1"]).beside(beside)
}
