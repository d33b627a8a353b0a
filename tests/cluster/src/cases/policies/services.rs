//! Services: policies are about the pods behind them.

use std::time::Duration;

use serde_json::json;

use super::STARTS;
use super::manifest::{Policy, blocks, deny_all, pods};
use super::ways::{Ways, udp};
use crate::cluster::Family;
use crate::ensure;
use crate::fetch::Outsider;
use crate::pod::{HTTP, Pod, UDP, service};
use crate::process::{Result, eventually};
use crate::space::Space;

use super::super::services::node_port;

/// And not by the Service's own port, which no pod listens on.
pub fn egress_to_a_service_is_judged_by_the_pods_port(space: &Space<'_>) -> Result {
    let client = |name: &str| Pod::running(name, &space.agnhost, &["pause"]);
    space.create([
        Pod::server("server", &space.agnhost).on(space.worker(1)?).manifest(),
        service("server", "server", json!([{ "port": 80, "targetPort": HTTP }])),
        client("by-pod").on(space.worker(0)?).manifest(),
        client("by-service").on(space.worker(1)?).manifest(),
        client("free").on(space.worker(0)?).manifest(),
    ])?;
    space.all_ready(STARTS)?;
    let server = json!([pods(&json!({ "app": "server" }))]);
    let to = |name: &str, port: u16| {
        let rule = json!({ "to": server, "ports": [{ "port": port }] });
        Policy::of(name, json!({ "app": name })).egress(rule).manifest()
    };
    space.create([to("by-pod", HTTP), to("by-service", 80)])?;
    let addresses = space.service_addresses("server")?;
    Ways::among(&[space])?
        .to("free", "the service", &addresses, 80, true)
        .to("by-pod", "the service", &addresses, 80, true)
        .to("by-service", "the service", &addresses, 80, false)
        .shut("by-service", "server", HTTP)
        .hold()
}

/// A pod cannot be kept from itself, not even by way of the node.
pub fn an_isolated_pod_reaches_itself_by_its_service(space: &Space<'_>) -> Result {
    space.create([
        deny_all("nothing"),
        Pod::server("self", &space.agnhost).on(space.worker(0)?).manifest(),
        service("self", "self", json!([{ "port": 80, "targetPort": HTTP }])),
        Pod::server("other", &space.agnhost).on(space.worker(0)?).manifest(),
        service("other", "other", json!([{ "port": 80, "targetPort": HTTP }])),
    ])?;
    space.all_ready(STARTS)?;
    Ways::among(&[space])?
        .to("self", "its service", &space.service_addresses("self")?, 80, true)
        .to("other", "its service", &space.service_addresses("other")?, 80, true)
        .to("other", "another's service", &space.service_addresses("self")?, 80, false)
        .open("self", "self", HTTP)
        .hold()
}

/// With `externalTrafficPolicy: Local` a block lets in the client that it names, and no other.
pub fn a_node_port_with_policy_local_shows_its_client(space: &Space<'_>) -> Result {
    let node = space.worker(0)?;
    let mut local = service("local", "local", json!([{ "port": 80, "targetPort": HTTP }]));
    local["spec"]["type"] = json!("NodePort");
    local["spec"]["externalTrafficPolicy"] = json!("Local");
    space.create([Pod::server("local", &space.agnhost).on(node).manifest(), local])?;
    let (named, other) = (Outsider::start(space)?, Outsider::start(space)?);
    let from = blocks(&named.addresses);
    space.create([Policy::of("named", json!({ "app": "local" }))
        .ingress(json!({ "from": from }))
        .manifest()])?;
    space.all_ready(STARTS)?;
    let port = node_port(space, "local")?;
    let families = space.families.iter();
    let addresses = families.map(|family| node.address(*family)).collect::<Result<Vec<_>>>()?;
    Ways::among(&[space])?
        .from(&named, "whom the block names", "the node's port", &addresses, port, true)
        .from(&other, "another", "the node's port", &addresses, port, false)
        .hold()
}

/// Egress to the DNS server's port alone, as in every introduction.
pub fn with_dns_allowed_names_resolve_and_nothing_else(space: &Space<'_>) -> Result {
    let client = Pod::running("client", &space.agnhost, &["pause"]);
    let free = Pod::running("free", &space.agnhost, &["pause"]);
    space.create([
        Pod::server("server", &space.agnhost).on(space.worker(1)?).manifest(),
        service("server", "server", json!([{ "port": 80, "targetPort": HTTP }])),
        client.on(space.worker(0)?).manifest(),
        free.on(space.worker(0)?).manifest(),
    ])?;
    let dns = json!({
        "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "kube-system" } },
        "podSelector": { "matchLabels": { "k8s-app": "kube-dns" } },
    });
    let ports = json!([{ "protocol": "UDP", "port": 53 }, { "protocol": "TCP", "port": 53 }]);
    let rule = json!({ "to": [dns], "ports": ports });
    space.create([Policy::of("dns", json!({ "app": "client" })).egress(rule).manifest()])?;
    space.all_ready(STARTS)?;
    let addresses = space.service_addresses("server")?;
    for family in &space.families {
        let kind = if *family == Family::V4 { "A" } else { "AAAA" };
        for by in ["+notcp", "+tcp"] {
            eventually(&format!("the name has {kind}, {by}"), Duration::from_secs(30), || {
                let words = ["dig", "+short", "+search", "+tries=1", "+time=3", by, "server", kind];
                let found = space.exec("client", &words)?;
                let is_one = |line: &str| line.parse().is_ok_and(|address| addresses.contains(&address));
                ensure!(found.lines().any(is_one), "{found:?}, not of {addresses:?}");
                Ok(())
            })?;
        }
    }
    Ways::among(&[space])?
        .to("free", "the service", &addresses, 80, true)
        .to("client", "the service", &addresses, 80, false)
        .shut("client", "server", HTTP)
        .hold()
}

/// Who may be asked may answer, and who may ask is answered, whatever isolates them in the other direction.
pub fn replies_of_isolated_pods_pass(space: &Space<'_>) -> Result {
    space.create([
        Pod::server("silent", &space.agnhost).on(space.worker(0)?).manifest(),
        Pod::server("deaf", &space.agnhost).on(space.worker(1)?).manifest(),
        Pod::server("deaf-too", &space.agnhost).labelled("app", "deaf").on(space.worker(0)?).manifest(),
    ])?;
    space.all_ready(STARTS)?;
    space.create([
        Policy::of("silent", json!({ "app": "silent" })).isolating("Egress").manifest(),
        Policy::of("deaf", json!({ "app": "deaf" })).isolating("Ingress").manifest(),
    ])?;
    let mut ways = Ways::among(&[space])?;
    for deaf in ["deaf", "deaf-too"] {
        ways = ways
            .open(deaf, "silent", HTTP)
            .open(deaf, "silent", udp(UDP))
            .shut("silent", deaf, HTTP)
            .shut("silent", deaf, udp(UDP));
    }
    ways.hold()
}
