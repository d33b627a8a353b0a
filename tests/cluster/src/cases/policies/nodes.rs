//! Nodes: their own processes reach their own pods whatever a policy says; another node is an address like any other.

use serde_json::json;

use super::STARTS;
use super::manifest::{Policy, blocks, deny_all, pods};
use super::ways::Ways;
use crate::cluster::Node;
use crate::ensure;
use crate::fetch::Asker;
use crate::pod::{HTTP, Pod, container};
use crate::process::{Result, pause};
use crate::space::Space;

/// Where `agnhost grpc-health-checking` listens for gRPC.
const GRPC: u16 = 5000;

/// A process of a node that is not root's.
struct Nobody<'n>(&'n Node);

impl Asker for Nobody<'_> {
    fn run(&self, words: &[&str]) -> Result<String> {
        let mut all = vec!["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"];
        all.extend(words);
        self.0.run(&all)
    }
}

/// Those of HTTP, TCP and gRPC, from the first one on, of a pod that may do nothing; other users of its node reach it too.
pub fn probes_of_an_isolated_pod_pass(space: &Space<'_>) -> Result {
    let node = space.worker(0)?;
    let probes = [
        json!({ "httpGet": { "path": "/hostname", "port": HTTP } }),
        json!({ "tcpSocket": { "port": HTTP } }),
        json!({ "grpc": { "port": GRPC } }),
    ];
    let health = container("grpc", &space.agnhost, &["grpc-health-checking", "--http-port=8090"]);
    let mut pod = Pod::server("isolated", &space.agnhost).beside(health);
    for (place, probe) in probes.iter().enumerate() {
        let mut waiting = container(&format!("probe-{place}"), &space.agnhost, &["pause"]);
        for (kind, failures) in [("readinessProbe", 1), ("livenessProbe", 3)] {
            waiting[kind] = probe.clone();
            waiting[kind]["periodSeconds"] = json!(1);
            waiting[kind]["timeoutSeconds"] = json!(3);
            waiting[kind]["failureThreshold"] = json!(failures);
            // The servers beside it start at the same time.
            waiting[kind]["initialDelaySeconds"] = json!(2);
        }
        pod = pod.beside(waiting);
    }
    let other = Pod::running("other", &space.agnhost, &["pause"]).on(space.worker(1)?);
    space.create([deny_all("nothing"), pod.on(node).manifest(), other.manifest()])?;
    space.all_ready(STARTS)?;
    let addresses = space.addresses("isolated")?;
    Ways::among(&[space])?
        .shut("other", "isolated", HTTP)
        .from(node, "root", "isolated", &addresses, HTTP, true)
        .from(Nobody(node), "nobody", "isolated", &addresses, HTTP, true)
        .hold()?;
    pause(std::time::Duration::from_secs(4));
    space.all_ready(STARTS)?;
    for status in
        space.get(&["pod", "isolated"])?["status"]["containerStatuses"].as_array().into_iter().flatten()
    {
        ensure!(status["restartCount"] == 0, "{} was restarted", status["name"]);
    }
    Ok(())
}

/// By a block, and not before; root and others alike. The pod's own node is let in anyway.
pub fn other_nodes_are_let_in_by_their_addresses(space: &Space<'_>) -> Result {
    let (own, other) = (space.worker(0)?, space.worker(1)?);
    ensure!(own.name != other.name, "needs two nodes");
    space.create([
        deny_all("nothing"),
        Pod::server("shut", &space.agnhost).on(own).manifest(),
        Pod::server("open", &space.agnhost).on(own).manifest(),
        Policy::of("node", json!({ "app": "open" }))
            .ingress(json!({ "from": blocks(&other.addresses), "ports": [{ "port": HTTP }] }))
            .manifest(),
    ])?;
    space.all_ready(STARTS)?;
    let mut ways = Ways::among(&[space])?;
    for (pod, is_open) in [("shut", false), ("open", true)] {
        let addresses = space.addresses(pod)?;
        ways = ways
            .from(own, "its node", pod, &addresses, HTTP, true)
            .from(other, "another node", pod, &addresses, HTTP, is_open)
            .from(Nobody(other), "nobody on another node", pod, &addresses, HTTP, is_open);
    }
    ways.hold()
}

/// No policy isolates it, and none lets it in by its labels: it has its node's address.
pub fn a_pod_on_the_hosts_network_is_a_node(space: &Space<'_>) -> Result {
    let port = 18280;
    let (near, far) = (space.worker(0)?, space.worker(1)?);
    ensure!(near.name != far.name, "needs two nodes");
    let serve = format!("--http-port={port}");
    let host = Pod::running("host", &space.agnhost, &["netexec", &serve, "--udp-port=-1"]);
    space.create([
        host.on(far).on_the_hosts_network().manifest(),
        Pod::server("by-label", &space.agnhost).on(near).manifest(),
        Pod::server("by-block", &space.agnhost).on(near).manifest(),
        Pod::server("neighbour", &space.agnhost).on(far).manifest(),
        Pod::running("client", &space.agnhost, &["pause"]).on(near).manifest(),
    ])?;
    space.all_ready(STARTS)?;
    let of = |name: &str| Policy::of(name, json!({ "app": name }));
    space.create([
        of("host").isolating("Ingress").isolating("Egress").manifest(),
        of("by-label").ingress(json!({ "from": [pods(&json!({ "app": "host" }))] })).manifest(),
        of("by-block").ingress(json!({ "from": blocks(&far.addresses) })).manifest(),
        of("neighbour").isolating("Ingress").manifest(),
    ])?;
    let hosts: Vec<_> = far
        .addresses
        .iter()
        .copied()
        .filter(|address| space.families.contains(&crate::cluster::Family::of(address)))
        .collect();
    Ways::among(&[space])?
        .to("client", "host", &hosts, port, true)
        .shut("host", "by-label", HTTP)
        .open("host", "by-block", HTTP)
        .open("host", "neighbour", HTTP)
        .shut("client", "neighbour", HTTP)
        .hold()
}
