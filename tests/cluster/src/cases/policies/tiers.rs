//! ClusterNetworkPolicies around NetworkPolicies, where their resource is defined: it is when these cases begin, and is
//! not when they end.
//!
//! `CNP_DIR` may name a directory with `clusternetworkpolicies.yaml`, the definition that network-policy-api releases. Without
//! it the resource is defined by these lines, and takes whatever has the form of a policy.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::STARTS;
use super::manifest::{Policy, pods};
use super::ways::Ways;
use crate::pod::{HTTP, Pod};
use crate::process::{Result, eventually};
use crate::space::Space;

const RESOURCE: &str = "clusternetworkpolicies.policy.networking.k8s.io";

/// How long agents may take to ask for a resource again that was not defined.
const ASKED_AGAIN: Duration = Duration::from_secs(90);

/// The directory with what network-policy-api releases.
pub fn directory() -> Option<PathBuf> {
    std::env::var_os("CNP_DIR").filter(|directory| !directory.is_empty()).map(PathBuf::from)
}

/// The resource, for as long as this lives. With it all of its objects go.
pub struct Defined<'s, 'c>(&'s Space<'c>);

impl<'s, 'c> Defined<'s, 'c> {
    /// Defines it.
    pub fn new(space: &'s Space<'c>) -> Result<Self> {
        let defined = Self(space);
        let file = directory().map(|directory| directory.join("clusternetworkpolicies.yaml"));
        match file.filter(|file| file.exists()) {
            Some(file) => space
                .kubectl(&["apply", "--server-side", "--filename", &file.display().to_string()])
                .map(|_| ()),
            None => space.apply([definition()]),
        }?;
        space.kubectl(&[
            "wait",
            "--for=condition=Established",
            "customresourcedefinition",
            RESOURCE,
            "--timeout=60s",
        ])?;
        Ok(defined)
    }
}

impl Drop for Defined<'_, '_> {
    fn drop(&mut self) {
        // What stays is found by the next run.
        let _ = self.0.kubectl(&[
            "delete",
            "customresourcedefinition",
            RESOURCE,
            "--ignore-not-found",
            "--timeout=120s",
        ]);
    }
}

fn definition() -> Value {
    let anything = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    let schema = json!({ "type": "object", "properties": { "spec": anything, "status": anything } });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": RESOURCE, "annotations": { "api-approved.kubernetes.io": "unapproved, a test" } },
        "spec": {
            "group": "policy.networking.k8s.io", "scope": "Cluster",
            "names": { "kind": "ClusterNetworkPolicy", "listKind": "ClusterNetworkPolicyList",
                "plural": "clusternetworkpolicies", "singular": "clusternetworkpolicy" },
            "versions": [{ "name": "v1beta1", "served": true, "storage": true, "schema": { "openAPIV3Schema": schema } }],
        },
    })
}

/// About the pods `app` of this namespace.
fn about(space: &Space<'_>, name: &str, tier: &str, priority: u16, app: &str, rules: Value) -> Value {
    let namespace = json!({ "matchLabels": { "kubernetes.io/metadata.name": space.name() } });
    let pods = json!({ "namespaceSelector": namespace, "podSelector": { "matchLabels": { "app": app } } });
    let mut spec = json!({ "tier": tier, "priority": priority, "subject": { "pods": pods } });
    if let (Some(spec), Some(rules)) = (spec.as_object_mut(), rules.as_object()) {
        spec.extend(rules.clone());
    }
    json!({ "apiVersion": "policy.networking.k8s.io/v1beta1", "kind": "ClusterNetworkPolicy",
        "metadata": { "name": name }, "spec": spec })
}

fn with_role(role: &str) -> Value {
    json!([{ "pods": { "namespaceSelector": {}, "podSelector": { "matchLabels": { "role": role } } } }])
}

/// Who comes in, on one node and from another, is what the tiers say in their order; and a NetworkPolicy has its say between
/// them.
pub fn tiers_stand_around_network_policies(space: &Space<'_>) -> Result {
    let (near, far) = (space.worker(0)?, space.worker(1)?);
    let client =
        |name: &str, role: &str| Pod::running(name, &space.agnhost, &["pause"]).labelled("role", role);
    space.create([
        Pod::server("server", &space.agnhost).on(near).manifest(),
        Pod::server("free", &space.agnhost).on(far).manifest(),
        client("good", "good").on(near).manifest(),
        client("far-good", "good").on(far).manifest(),
        client("bad", "bad").on(near).manifest(),
        client("far-bad", "bad").on(far).manifest(),
    ])?;
    space.all_ready(STARTS)?;
    let defined = Defined::new(space)?;
    let ways = |good: bool, bad: bool| -> Result<Ways<'_>> {
        let mut ways = Ways::among(&[space])?;
        for (client, is_open) in [("good", good), ("far-good", good), ("bad", bad), ("far-bad", bad)] {
            ways =
                if is_open { ways.open(client, "server", HTTP) } else { ways.shut(client, "server", HTTP) };
            ways = ways.open(client, "free", HTTP);
        }
        Ok(ways)
    };
    let ingress = |action: &str, from: Value| json!({ "action": action, "from": from });
    let everybody = || json!([{ "namespaces": {} }]);
    let name = |what: &str| format!("{}-{what}", space.name());
    // By then the agents have asked for the resource in vain.
    let baseline = json!({ "ingress": [ingress("Deny", with_role("bad"))] });
    space.apply([about(space, &name("base"), "Baseline", 5, "server", baseline)])?;
    eventually("the policy in force", ASKED_AGAIN, || ways(true, false)?.hold())?;
    space.apply([Policy::of("np", json!({ "app": "server" }))
        .ingress(json!({ "from": [pods(&json!({ "role": "bad" }))] }))
        .manifest()])?;
    ways(false, true)?.hold()?;
    let admin =
        |rules: Value| about(space, &name("admin"), "Admin", 5, "server", json!({ "ingress": rules }));
    space.apply([admin(json!([ingress("Deny", with_role("bad"))]))])?;
    ways(false, false)?.hold()?;
    space.apply([admin(json!([ingress("Accept", with_role("good"))]))])?;
    ways(true, true)?.hold()?;
    space.apply([admin(json!([ingress("Pass", with_role("bad")), ingress("Deny", everybody())]))])?;
    ways(false, true)?.hold()?;
    let first = json!({ "ingress": [ingress("Accept", with_role("good"))] });
    space.apply([about(space, &name("first"), "Admin", 1, "server", first)])?;
    ways(true, true)?.hold()?;
    drop(defined);
    // What is left is the NetworkPolicy.
    ways(false, true)?.hold()
}

/// The world, other nodes and pods are told apart by addresses and labels.
pub fn tiers_of_egress_go_by_networks_and_pods(space: &Space<'_>) -> Result {
    let (near, far) = (space.worker(0)?, space.worker(1)?);
    space.create([
        Pod::running("client", &space.agnhost, &["pause"]).labelled("app", "client").on(near).manifest(),
        Pod::server("server", &space.agnhost).on(far).manifest(),
        Pod::server("other", &space.agnhost).on(near).manifest(),
    ])?;
    space.all_ready(STARTS)?;
    let _defined = Defined::new(space)?;
    let networks: Vec<String> = space.addresses("server")?.iter().map(super::manifest::single).collect();
    let rules = json!({ "egress": [
        { "action": "Accept", "to": [{ "networks": networks }], "protocols": [{ "tcp": { "destinationPort": { "number": HTTP } } }] },
        { "action": "Deny", "to": [{ "networks": ["0.0.0.0/0", "::/0"] }] },
    ] });
    space.apply([about(space, &format!("{}-out", space.name()), "Admin", 5, "client", rules)])?;
    eventually("the policy in force", ASKED_AGAIN, || {
        let ways = Ways::among(&[space])?.open("client", "server", HTTP).shut("client", "other", HTTP);
        ways.open("server", "other", HTTP).hold()
    })
}
