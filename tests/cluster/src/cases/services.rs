//! Services, which kube-proxy makes out of what the network carries.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::{Family, Node};
use crate::ensure;
use crate::fetch::{Asker, In, Outsider};
use crate::pod::{HTTP, Pod, service};
use crate::process::{Result, eventually};
use crate::space::Space;

/// How long kube-proxy may take to hear of a Service; once it answers, it has to go on.
const SOON: Duration = Duration::from_secs(30);

/// A pod on each worker behind the Service `web`, and one that asks, on the first.
fn two_behind_a_service(space: &Space<'_>) -> Result {
    let agnhost = &space.agnhost;
    let behind = |number: usize| -> Result<Value> {
        let pod = Pod::server(&format!("web-{number}"), agnhost).labelled("app", "web");
        Ok(pod.on(space.worker(number)?).manifest())
    };
    space.create([
        behind(0)?,
        behind(1)?,
        Pod::running("asker", agnhost, &["pause"]).on(space.worker(0)?).manifest(),
        service("web", "web", json!([{ "port": 80, "targetPort": HTTP }])),
    ])?;
    space.all_ready(Duration::from_secs(120))
}

/// Asks until somebody answers, then until each of the names has; every ask after the first answer must succeed.
fn all_answer(asker: &dyn Asker, address: IpAddr, port: u16, names: &[&str]) -> Result {
    eventually("a first answer", SOON, || asker.ask(address, port, "hostname"))?;
    let mut seen = BTreeSet::new();
    for _ in 0..60 {
        seen.insert(asker.ask(address, port, "hostname")?.trim().to_owned());
        if names.iter().all(|name| seen.contains(*name)) {
            return Ok(());
        }
    }
    Err(format!("only {seen:?} of {names:?} have answered at {address}").into())
}

/// At its ClusterIP, of each family; both pods get their share; each sees the asking pod's own address.
pub fn a_service_is_reached_from_pods_and_nodes(space: &Space<'_>) -> Result {
    two_behind_a_service(space)?;
    let own = space.addresses("asker")?;
    for address in space.service_addresses("web")? {
        all_answer(&In(space, "asker"), address, 80, &["web-0", "web-1"])?;
        let seen = In(space, "asker").seen_as(address, 80)?;
        ensure!(own.contains(&seen), "the asker is {own:?}, and is seen as {seen} at {address}");
        for node in &space.nodes {
            eventually(&node.name, SOON, || node.ask(address, 80, "hostname"))?;
        }
    }
    Ok(())
}

/// A pod's packet to its Service comes back to the pod itself.
pub fn a_pod_reaches_itself_behind_its_own_service(space: &Space<'_>) -> Result {
    space.create([
        Pod::server("self", &space.agnhost).on(space.worker(0)?).manifest(),
        service("self", "self", json!([{ "port": 80, "targetPort": HTTP }])),
    ])?;
    space.all_ready(Duration::from_secs(120))?;
    for address in space.service_addresses("self")? {
        eventually("itself", SOON, || In(space, "self").ask(address, 80, "hostname"))?;
        for _ in 0..5 {
            In(space, "self").ask(address, 80, "hostname")?;
        }
    }
    Ok(())
}

/// Its name has the addresses of its pods, and no other.
pub fn a_headless_service_names_its_pods(space: &Space<'_>) -> Result {
    let agnhost = &space.agnhost;
    let mut headless = service("pods", "pods", json!([{ "port": HTTP }]));
    headless["spec"]["clusterIP"] = json!("None");
    space.create([
        Pod::server("one", agnhost).labelled("app", "pods").on(space.worker(0)?).manifest(),
        Pod::server("two", agnhost).labelled("app", "pods").on(space.worker(1)?).manifest(),
        headless,
    ])?;
    space.all_ready(Duration::from_secs(120))?;
    for family in &space.families {
        let kind = if *family == Family::V4 { "A" } else { "AAAA" };
        let expected = BTreeSet::from([space.address("one", *family)?, space.address("two", *family)?]);
        eventually("the name", SOON, || {
            let answer = space.exec("one", &["dig", "+short", "+search", "pods", kind])?;
            let found: BTreeSet<IpAddr> = answer.lines().filter_map(|line| line.parse().ok()).collect();
            ensure!(found == expected, "{found:?}, not {expected:?}");
            Ok(())
        })?;
    }
    Ok(())
}

/// The port on which a Service is reached at each node.
pub fn node_port(space: &Space<'_>, name: &str) -> Result<u16> {
    let answer = space.get(&["service", name])?;
    let port = answer.pointer("/spec/ports/0/nodePort").and_then(Value::as_u64);
    port.and_then(|port| u16::try_from(port).ok()).ok_or_else(|| format!("{name} has no node port").into())
}

/// A host beside the nodes, a node and a pod, each of them at every node's address.
pub fn a_node_port_is_reached_from_outside_on_every_node(space: &Space<'_>) -> Result {
    two_behind_a_service(space)?;
    space.kubectl(&["patch", "service", "web", "--patch", r#"{"spec": {"type": "NodePort"}}"#])?;
    let port = node_port(space, "web")?;
    let outsider = Outsider::start(space)?;
    for (node, family) in every_address(space) {
        let address = node.address(family)?;
        all_answer(&outsider, address, port, &["web-0", "web-1"])?;
        eventually("from a pod", SOON, || In(space, "asker").ask(address, port, "hostname"))?;
        eventually("from a node", SOON, || space.worker(0)?.ask(address, port, "hostname"))?;
    }
    Ok(())
}

/// Where the pod is on the node that was asked. Elsewhere nobody answers, which is what the policy means.
pub fn external_traffic_policy_local_keeps_the_clients_address(space: &Space<'_>) -> Result {
    let with = space.worker(0)?;
    let mut local = service("local", "local", json!([{ "port": 80, "targetPort": HTTP }]));
    local["spec"]["type"] = json!("NodePort");
    local["spec"]["externalTrafficPolicy"] = json!("Local");
    space.create([Pod::server("local", &space.agnhost).on(with).manifest(), local])?;
    space.all_ready(Duration::from_secs(120))?;
    let port = node_port(space, "local")?;
    let outsider = Outsider::start(space)?;
    for (node, family) in every_address(space) {
        let address = node.address(family)?;
        if node.name == with.name {
            let seen = eventually("the node with the pod", SOON, || outsider.seen_as(address, port))?;
            ensure!(outsider.addresses.contains(&seen), "the client is seen as {seen}");
        } else {
            let url = crate::fetch::url(address, port, "hostname");
            let answer = outsider.run(&["curl", "--silent", "--max-time", "2", &url]);
            ensure!(answer.is_err(), "{} has no pod, and answers", node.name);
        }
    }
    Ok(())
}

fn every_address<'s>(space: &'s Space<'_>) -> Vec<(&'s Node, Family)> {
    space.nodes.iter().flat_map(|node| space.families.iter().map(move |family| (node, *family))).collect()
}

/// kube-proxy tells clients apart by their addresses, so they must be the pods' own.
pub fn session_affinity_keeps_a_client_with_its_pod(space: &Space<'_>) -> Result {
    two_behind_a_service(space)?;
    space.create([Pod::running("other", &space.agnhost, &["pause"]).on(space.worker(1)?).manifest()])?;
    space.kubectl(&["patch", "service", "web", "--patch", r#"{"spec": {"sessionAffinity": "ClientIP"}}"#])?;
    space.all_ready(Duration::from_secs(120))?;
    for address in space.service_addresses("web")? {
        for asker in ["asker", "other"] {
            let ask = || In(space, asker).ask(address, 80, "hostname");
            // What kube-proxy did before it heard of the affinity may be the first answer.
            eventually("affinity", SOON, || {
                let first = ask()?;
                for _ in 0..8 {
                    let next = ask()?;
                    ensure!(next == first, "{asker} was at {first}, now at {next}");
                }
                Ok(())
            })?;
        }
    }
    Ok(())
}

/// As for what runs with `hostNetwork`, from pods of its own node and of another.
pub fn endpoints_may_be_on_the_hosts_network(space: &Space<'_>) -> Result {
    let port = 18180;
    let serve = format!("--http-port={port}");
    let agnhost = &space.agnhost;
    let host = Pod::running("host", agnhost, &["netexec", &serve, "--udp-port=-1"]);
    space.create([
        host.on(space.worker(0)?).on_the_hosts_network().manifest(),
        Pod::running("same", agnhost, &["pause"]).on(space.worker(0)?).manifest(),
        Pod::running("other", agnhost, &["pause"]).on(space.worker(1)?).manifest(),
        service("host", "host", json!([{ "port": 80, "targetPort": port }])),
    ])?;
    space.all_ready(Duration::from_secs(120))?;
    for address in space.service_addresses("host")? {
        for asker in ["same", "other"] {
            let asked = In(space, asker);
            eventually(asker, SOON, || asked.ask(address, 80, "hostname"))?;
        }
        for node in &space.nodes {
            eventually(&node.name, SOON, || node.ask(address, 80, "hostname"))?;
        }
    }
    Ok(())
}
