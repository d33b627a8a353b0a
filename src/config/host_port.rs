//! Ports of the node that lead to a pod (capability `portMappings`).
//!
//! The keys are those of the reference plugin `portmap`: `hostPort`, `containerPort`, `protocol` (tcp if unsaid) and
//! `hostIP`.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::values::parse_ip;
use crate::cni::json::{Node, Noted};
use crate::cni::problem::quote;

/// A transport protocol that hostPorts exist for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// A port of the node that leads to a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostPort {
    /// The node's address; every one of both families if absent, every one of its family if it is 0.0.0.0 or `::`.
    #[serde(rename = "hostIP", default, skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
    /// The node's port. With 0 there is nothing to redirect.
    pub host_port: u16,
    pub container_port: u16,
    pub protocol: Protocol,
}

impl Protocol {
    /// Its number (IANA).
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// In any case: Kubernetes writes `TCP`, its runtimes `tcp`.
    fn parse(text: &str) -> Result<Self, String> {
        let all = [Self::Tcp, Self::Udp, Self::Sctp];
        let found = all.into_iter().find(|it| it.to_string().eq_ignore_ascii_case(text));
        found.ok_or_else(|| format!("is {}; ports are of tcp, udp or sctp", quote(text)))
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// Reads `runtimeConfig.portMappings`. Those with hostPort 0 ask for nothing (a containerPort that Kubernetes merely
/// declares), and are left out.
pub(super) fn read_host_ports(root: &Node<'_, '_>) -> Vec<HostPort> {
    let Some(runtime) = root.object("runtimeConfig") else { return Vec::new() };
    let Some(list) = runtime.list("portMappings") else { return Vec::new() };
    let mut ports: Vec<HostPort> = Vec::new();
    let mut seen: HashSet<HostPort> = HashSet::new();
    // To tell at once that two of a pod's own clash: the kernel would refuse the second without saying why.
    let mut places: HashMap<(Option<IpAddr>, Protocol, u16), (usize, u16)> = HashMap::new();
    for (at, item) in list.items().enumerate() {
        let Ok(Some(port)) = read_host_port(&item) else { continue };
        let place = (port.host_ip.filter(|ip| !ip.is_unspecified()), port.protocol, port.host_port);
        let (first, leads_to) = *places.entry(place).or_insert((at, port.container_port));
        if leads_to != port.container_port {
            let text = format!(
                "is {} {}, which portMappings[{first}] leads to containerPort {leads_to}; one hostPort leads to one \
                 port",
                port.protocol, port.host_port
            );
            item.refuse_member("hostPort", text);
        } else if seen.insert(port) {
            ports.push(port);
        }
    }
    ports
}

fn read_host_port(node: &Node<'_, '_>) -> Result<Option<HostPort>, Noted> {
    if !node.is_object() {
        return Err(Noted);
    }
    let number = |key: &str, range| match node.member(key) {
        None => Ok(0),
        Some(member) => member.as_number::<u16>(range).ok_or(Noted),
    };
    let host_port = number("hostPort", 0..=u16::MAX);
    let container_port = number("containerPort", 1..=u16::MAX);
    let protocol = node.try_parsed("protocol", Protocol::parse);
    let host_ip = node.try_parsed("hostIP", parse_ip);
    if container_port == Ok(0) {
        node.refuse_member("containerPort", "is missing; say which port of the pod is meant");
    }
    let (host_port, container_port) = (host_port?, container_port?);
    let (protocol, host_ip) = (protocol?.unwrap_or(Protocol::Tcp), host_ip?);
    let is_asked_for = host_port != 0 && container_port != 0;
    Ok(is_asked_for.then_some(HostPort { host_ip, host_port, container_port, protocol }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cni::json::Document;
    use serde_json::{Value, json};

    fn read(mappings: Value) -> (Vec<HostPort>, String) {
        let conf = json!({ "runtimeConfig": { "portMappings": mappings } });
        let document = Document::new(&conf);
        let read = read_host_ports(&document.root());
        (read, document.into_problems().to_string())
    }

    fn port(host_ip: &str, host_port: u16, container_port: u16, protocol: Protocol) -> HostPort {
        let host_ip = (!host_ip.is_empty()).then(|| host_ip.parse().unwrap());
        HostPort { host_ip, host_port, container_port, protocol }
    }

    #[test]
    fn ports_are_read_as_each_runtime_writes_them() {
        let (ports, problems) = read(json!([
            // containerd
            { "HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": "" },
            // CRI-O
            { "hostPort": 53, "containerPort": 5353, "protocol": "UDP", "hostIP": "192.168.1.11" },
            { "hostPort": 9, "containerPort": 9, "protocol": "sctp", "hostIP": "::" },
            { "hostPort": 10, "containerPort": 10 },
            // Kubernetes' conformance, on a cluster of IPv6.
            { "hostPort": 11, "containerPort": 11, "protocol": "TCP", "hostIP": "::1" },
            // Declared, and not asked for.
            { "HostPort": 0, "ContainerPort": 81, "Protocol": "tcp", "HostIP": "" },
            // Twice the same.
            { "HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp" },
        ]));
        assert_eq!(problems, "");
        assert_eq!(
            ports,
            [
                port("", 8080, 80, Protocol::Tcp),
                port("192.168.1.11", 53, 5353, Protocol::Udp),
                port("::", 9, 9, Protocol::Sctp),
                port("", 10, 10, Protocol::Tcp),
                port("::1", 11, 11, Protocol::Tcp),
            ]
        );
    }

    #[test]
    fn every_problem_names_its_place() {
        for (mapping, at, why) in [
            (json!(7), "", "an object is needed"),
            (json!({ "hostPort": 70000, "containerPort": 1 }), ".hostPort", "65535"),
            (json!({ "hostPort": -1, "containerPort": 1 }), ".hostPort", "65535"),
            (json!({ "hostPort": "80", "containerPort": 1 }), ".hostPort", "a number is needed"),
            (json!({ "hostPort": 1 }), ".containerPort", "is missing"),
            (json!({ "hostPort": 1, "containerPort": 0 }), ".containerPort", "1"),
            (json!({ "hostPort": 1, "containerPort": 1, "protocol": "icmp" }), ".protocol", "sctp"),
            (json!({ "hostPort": 1, "containerPort": 1, "hostIP": "node-a" }), ".hostIP", "no address"),
        ] {
            let (ports, problems) = read(json!([mapping]));
            assert_eq!(ports, [], "{mapping}");
            assert!(
                problems.starts_with(&format!("runtimeConfig.portMappings[0]{at}: "))
                    && problems.contains(why),
                "{mapping}: {problems}"
            );
        }
    }

    #[test]
    fn host_ports_of_one_pod_that_clash_are_found() {
        let mapping = |ip: &str, to: u16| json!({ "hostIP": ip, "hostPort": 80, "containerPort": to });
        let (_, problems) = read(json!([mapping("", 1), mapping("0.0.0.0", 2)]));
        assert!(problems.starts_with("runtimeConfig.portMappings[1].hostPort: "), "{problems}");
        let (ports, problems) = read(json!([mapping("", 1), mapping("10.0.0.1", 2), mapping("10.0.0.2", 3)]));
        assert_eq!((ports.len(), problems.as_str()), (3, ""));
    }
}
