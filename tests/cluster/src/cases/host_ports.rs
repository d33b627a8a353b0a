//! Ports of the node: none leads to a pod unless the pod asks for it, and then from everywhere.

use std::time::Duration;

use serde_json::json;

use crate::cluster::Family;
use crate::ensure;
use crate::fetch::{Asker, In, Outsider};
use crate::pod::{HTTP, Pod, UDP};
use crate::process::{Result, eventually};
use crate::space::Space;

/// `containerPort` is a word for people: at the node's address nobody listens.
pub fn a_containers_port_is_not_the_nodes(space: &Space<'_>) -> Result {
    let node = space.worker(0)?;
    let ports = json!([{ "containerPort": HTTP }]);
    space.create([Pod::server("pod", &space.agnhost).on(node).with_ports(ports).manifest()])?;
    space.all_ready(Duration::from_secs(120))?;
    let outsider = Outsider::start(space)?;
    for family in &space.families {
        let address = node.address(*family)?;
        outsider.is_refused(address, HTTP)?;
        space.worker(1)?.is_refused(address, HTTP)?;
        node.is_refused(address, HTTP)?;
        In(space, "pod").is_refused(address, HTTP)?;
    }
    Ok(())
}

/// From a host beside the nodes, whose address the pod sees; from another node; from a pod there; from the node
/// itself, at localhost too; and from the pod itself.
pub fn a_host_port_is_reached_from_everywhere(space: &Space<'_>) -> Result {
    let (node, elsewhere) = (space.worker(0)?, space.worker(1)?);
    let port = 18280;
    let ports = json!([{ "containerPort": HTTP, "hostPort": port }]);
    space.create([
        Pod::server("pod", &space.agnhost).on(node).with_ports(ports).manifest(),
        Pod::running("near", &space.agnhost, &["pause"]).on(node).manifest(),
        Pod::running("far", &space.agnhost, &["pause"]).on(elsewhere).manifest(),
    ])?;
    space.all_ready(Duration::from_secs(120))?;
    let outsider = Outsider::start(space)?;
    for family in &space.families {
        let address = node.address(*family)?;
        let seen = outsider.seen_as(address, port)?;
        ensure!(seen == outsider.address(*family)?, "the pod sees the client as {seen}");
        let (pod, near, far) = (In(space, "pod"), In(space, "near"), In(space, "far"));
        let askers: [(&str, &dyn Asker); 5] = [
            ("another node", elsewhere),
            ("the node", node),
            ("the pod", &pod),
            ("near", &near),
            ("far", &far),
        ];
        for (name, asker) in askers {
            asker.ask(address, port, "hostname").map_err(|failure| format!("from {name}: {failure}"))?;
        }
    }
    if space.families.contains(&Family::V4) {
        node.ask([127, 0, 0, 1].into(), port, "hostname")
            .map_err(|failure| format!("localhost: {failure}"))?;
    }
    Ok(())
}

/// As Kubernetes' conformance asks: the same port on one node, for 127.0.0.1, for the node's address, and for UDP.
pub fn one_port_leads_to_three_pods_by_address_and_protocol(space: &Space<'_>) -> Result {
    let node = space.worker(0)?;
    let Some(family) = space.families.first() else { return Err("no family".into()) };
    let address = node.address(*family)?;
    let port = 54323;
    let local = if *family == Family::V4 { "127.0.0.1" } else { "::1" };
    let pod = |name: &str, host_ip: &str, protocol: &str, container_port: u16| {
        let ports = json!([{ "containerPort": container_port, "hostPort": port, "hostIP": host_ip, "protocol": protocol }]);
        Pod::server(name, &space.agnhost).on(node).with_ports(ports).manifest()
    };
    let asker = Pod::running("asker", &space.agnhost, &["pause"]).on(node).on_the_hosts_network();
    let mut pods = vec![
        pod("by-address", &address.to_string(), "TCP", HTTP),
        pod("by-protocol", &address.to_string(), "UDP", UDP),
        asker.manifest(),
    ];
    // Nothing can be sent on from ::1: the kernel has no route_localnet for IPv6.
    if *family == Family::V4 {
        pods.push(pod("by-localhost", local, "TCP", HTTP));
    }
    space.create(pods)?;
    space.all_ready(Duration::from_secs(120))?;
    let host = In(space, "asker");
    if *family == Family::V4 {
        let answer = host.ask([127, 0, 0, 1].into(), port, "hostname")?;
        ensure!(answer.trim() == "by-localhost", "127.0.0.1 is {answer}");
    }
    let answer = host.ask(address, port, "hostname")?;
    ensure!(answer.trim() == "by-address", "{address} is {answer}");
    let answer = ask_udp(&host, &address.to_string(), port, "hostname", None)?;
    ensure!(answer.trim() == "by-protocol", "{address} over UDP is {answer}");
    let outsider = Outsider::start(space)?;
    let answer = outsider.ask(address, port, "hostname")?;
    ensure!(answer.trim() == "by-address", "from outside, {address} is {answer}");
    Ok(())
}

/// A client that goes on asking from the same port of its own reaches the next pod when the first is gone, although
/// the kernel has a connection to the first one on its books.
pub fn a_host_port_over_udp_follows_the_pod_that_has_it(space: &Space<'_>) -> Result {
    let node = space.worker(0)?;
    let Some(family) = space.families.first() else { return Err("no family".into()) };
    let address = node.address(*family)?.to_string();
    let port = 18380;
    let outsider = Outsider::start(space)?;
    let from = Some(40123);
    for name in ["first", "second"] {
        let ports = json!([{ "containerPort": UDP, "hostPort": port, "protocol": "UDP" }]);
        space.create([Pod::server(name, &space.agnhost).on(node).with_ports(ports).manifest()])?;
        space.all_ready(Duration::from_secs(120))?;
        let answer = ask_udp(&outsider, &address, port, "hostname", from)?;
        ensure!(answer.trim() == name, "with {name} there, {address}:{port} is {answer:?}");
        space.kubectl(&["delete", "pod", name, "--timeout=60s"])?;
        // While nobody is there the client asks on, and so keeps the connection on the books.
        let _ = ask_udp(&outsider, &address, port, "hostname", from);
    }
    Ok(())
}

/// One question over UDP, and the answer if it comes within two seconds; `from`: the client's own port.
fn ask_udp(asker: &dyn Asker, address: &str, port: u16, question: &str, from: Option<u16>) -> Result<String> {
    let source = from.map(|port| format!("-p {port}")).unwrap_or_default();
    let script = format!("echo {question} | nc -u -w 2 {source} {address} {port}");
    eventually(&format!("UDP to {address}:{port}"), Duration::from_secs(5), || {
        let answer = asker.run(&["sh", "-c", &script])?;
        ensure!(!answer.trim().is_empty(), "no answer");
        Ok(answer)
    })
}
