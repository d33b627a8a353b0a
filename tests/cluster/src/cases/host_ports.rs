//! Ports of the node: none leads to a pod unless the pod asks for it, and then from everywhere.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use serde_json::json;

use crate::cluster::Family;
use crate::ensure;
use crate::fetch::{Asker, In, Outsider, url};
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

/// As Kubernetes' conformance asks: the same port on one node, for the loopback's address, for the node's, and for UDP.
pub fn one_port_leads_to_three_pods_by_address_and_protocol(space: &Space<'_>) -> Result {
    let node = space.worker(0)?;
    let asker = Pod::running("asker", &space.agnhost, &["pause"]).on(node).on_the_hosts_network();
    let mut pods = vec![asker.manifest()];
    for family in &space.families {
        let (address, (loopback, port)) = (node.address(*family)?.to_string(), loopback_and_port(*family));
        let asked_for = [
            ("by-loopback", loopback.to_string(), "TCP", HTTP),
            ("by-address", address.clone(), "TCP", HTTP),
            ("by-protocol", address, "UDP", UDP),
        ];
        for (name, host_ip, protocol, container_port) in asked_for {
            let ports = json!([{ "containerPort": container_port, "hostPort": port, "hostIP": host_ip, "protocol": protocol }]);
            let pod = Pod::server(&format!("{name}-{port}"), &space.agnhost).on(node).with_ports(ports);
            pods.push(pod.manifest());
        }
    }
    space.create(pods)?;
    space.all_ready(Duration::from_secs(120))?;
    let (host, outsider) = (In(space, "asker"), Outsider::start(space)?);
    for family in &space.families {
        let (address, (loopback, port)) = (node.address(*family)?, loopback_and_port(*family));
        let answered = |what: &str, answer: &str, name: &str| -> Result {
            ensure!(answer.trim() == format!("{name}-{port}"), "{what} is {answer}");
            Ok(())
        };
        // From the node's address, as conformance does: nothing can be sent on from ::1.
        let url = url(loopback, port, "hostname");
        let answer =
            host.run(&["curl", "--silent", "--max-time", "5", "--interface", &address.to_string(), &url])?;
        answered(&url, &answer, "by-loopback")?;
        answered(&address.to_string(), &host.ask(address, port, "hostname")?, "by-address")?;
        let answer = ask_udp(&host, &address.to_string(), port, "hostname", None)?;
        answered("the node over UDP", &answer, "by-protocol")?;
        answered("the node from outside", &outsider.ask(address, port, "hostname")?, "by-address")?;
        match family {
            Family::V4 => answered("localhost", &host.ask(loopback, port, "hostname")?, "by-loopback")?,
            Family::V6 => host.is_refused(loopback, port)?,
        }
    }
    Ok(())
}

/// The loopback's address of a family, and a port for its pods.
fn loopback_and_port(family: Family) -> (IpAddr, u16) {
    match family {
        Family::V4 => (Ipv4Addr::LOCALHOST.into(), 54323),
        Family::V6 => (Ipv6Addr::LOCALHOST.into(), 54326),
    }
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
