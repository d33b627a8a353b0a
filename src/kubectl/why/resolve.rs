//! Who is meant: from names and addresses to a question with all that the API server knows of both ends.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Node, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

use crate::connectivity::question::{End, EndKind, Endpoint, NodeRef, Protocol, Question};
use crate::kubectl::cluster::{full_name, has_ended, is_on_hosts_network, node_of};
use crate::kubectl::target::{self, Who};

/// What tells the slices of a Service.
const OF_SERVICE: &str = "kubernetes.io/service-name";

/// What the API server said.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub nodes: Vec<Node>,
    /// Those that were asked for.
    pub pods: Vec<Pod>,
    pub services: Vec<Service>,
    /// Of the Services that were asked for.
    pub slices: Vec<EndpointSlice>,
}

/// The Services among the ends, by namespace and name.
pub(super) fn services_of(facts: &Facts, ends: [&target::End; 2]) -> Vec<(String, String)> {
    let found = ends.into_iter().filter_map(|end| facts.service(end));
    found.map(|it| (it.namespace().unwrap_or_default(), it.name_any())).collect()
}

/// The question.
///
/// # Errors
/// If an end is not there, or cannot be one.
pub(super) fn question(facts: &Facts, from: &target::End, to: &target::End) -> Result<Question, String> {
    if from.port.is_some() {
        return Err(format!("{from}: who begins has a port of its own choice; name one for whom it asks"));
    }
    let (protocol, port) = port_of(to)?;
    let source = facts.end(from)?;
    if source.kind == EndKind::Service {
        return Err(format!("{from} is a Service, and begins no connection: name one of its pods"));
    }
    let destination = facts.end(to)?;
    let mut question = Question { source, destination, protocol, port, endpoints: Vec::new() };
    if let Some(service) = facts.service(to) {
        question.endpoints = facts.endpoints(service, protocol, port)?;
    }
    Ok(question)
}

/// `PORT` and `PORT/PROTOCOL` as [`target`] has read them; no port is ICMP.
fn port_of(end: &target::End) -> Result<(Protocol, u16), String> {
    let Some(text) = &end.port else { return Ok((Protocol::Icmp, 0)) };
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol {
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => Protocol::Tcp,
    };
    Ok((protocol, number.parse().map_err(|_| format!("{number:?} is no port"))?))
}

impl Facts {
    fn end(&self, asked: &target::End) -> Result<End, String> {
        match &asked.who {
            Who::Node(name) => {
                let node = self.nodes.iter().find(|it| it.name_any() == *name);
                node.map(|node| self.node_end(node)).ok_or_else(|| format!("there is no node {name:?}"))
            }
            Who::Pod { namespace, name } => {
                let is_meant =
                    |pod: &&Pod| pod.namespace().as_ref() == namespace.as_ref() && pod.name_any() == *name;
                let pod =
                    self.pods.iter().find(is_meant).ok_or_else(|| format!("there is no pod {asked}"))?;
                self.pod_end(pod)
            }
            Who::Service { .. } => {
                let service = self.service(asked).ok_or_else(|| format!("there is no Service {asked}"))?;
                Ok(service_end(service))
            }
            Who::Address(address) => {
                if let Some(service) = self.service(asked) {
                    return Ok(service_end(service));
                }
                let node = self.nodes.iter().find(|node| addresses_of(node).contains(address));
                let pod =
                    self.pods.iter().find(|pod| pod_addresses(pod).contains(address) && !has_ended(pod));
                let mut end = match (node, pod) {
                    (Some(node), _) => self.node_end(node),
                    (None, Some(pod)) => self.pod_end(pod)?,
                    (None, None) => End {
                        name: address.to_string(),
                        kind: EndKind::Address,
                        addresses: Vec::new(),
                        node: None,
                    },
                };
                // This one is asked about, and no other of its addresses.
                end.addresses = vec![*address];
                Ok(end)
            }
        }
    }

    fn node_end(&self, node: &Node) -> End {
        let node = reference(node);
        let addresses = node.addresses.clone();
        End { name: node.name.clone(), kind: EndKind::Node, addresses, node: Some(node) }
    }

    fn pod_end(&self, pod: &Pod) -> Result<End, String> {
        let name = full_name(pod);
        if has_ended(pod) {
            return Err(format!("{name} has ended"));
        }
        let node = node_of(pod).ok_or_else(|| format!("{name} has not been put on a node yet"))?;
        let addresses = pod_addresses(pod);
        if addresses.is_empty() {
            return Err(format!(
                "{name} has no address yet: see its events, and `kubectl ferrule doctor --node {node}`"
            ));
        }
        let kind = if is_on_hosts_network(pod) { EndKind::Node } else { EndKind::Pod };
        Ok(End { name, kind, addresses, node: Some(self.node(node)) })
    }

    fn node(&self, name: &str) -> NodeRef {
        let node = self.nodes.iter().find(|node| node.name_any() == name);
        node.map_or_else(|| NodeRef { name: name.to_owned(), addresses: Vec::new() }, reference)
    }

    /// The Service that is meant, by name or by one of its addresses.
    fn service(&self, asked: &target::End) -> Option<&Service> {
        self.services.iter().find(|service| match &asked.who {
            Who::Service { namespace, name } => {
                service.namespace() == *namespace && service.name_any() == *name
            }
            Who::Address(address) => service_addresses(service).contains(address),
            _ => false,
        })
    }

    /// What is behind a port of it.
    fn endpoints(&self, service: &Service, protocol: Protocol, port: u16) -> Result<Vec<Endpoint>, String> {
        let name = format!("{}/{}", service.namespace().unwrap_or_default(), service.name_any());
        let ports = service.spec.as_ref().and_then(|spec| spec.ports.clone()).unwrap_or_default();
        if protocol == Protocol::Icmp {
            let shown = show_ports(&ports);
            return Err(format!("Service {name} is asked about with a port: it has {shown}"));
        }
        let is_meant = |it: &&ServicePort| {
            i64::from(it.port) == i64::from(port) && protocol_of(it.protocol.as_deref()) == protocol
        };
        let Some(meant) = ports.iter().find(is_meant) else {
            return Err(format!("Service {name} has no such port: it has {}", show_ports(&ports)));
        };
        let (namespace, own_name) = (service.namespace(), service.name_any());
        let of_service = self.slices.iter().filter(|slice| {
            slice.namespace() == namespace && slice.labels().get(OF_SERVICE) == Some(&own_name)
        });
        let mut found = Vec::new();
        for slice in of_service {
            let ports = slice.ports.iter().flatten();
            let mut numbers = ports.filter(|it| {
                let is_named = it.name.clone().unwrap_or_default() == meant.name.clone().unwrap_or_default();
                is_named && protocol_of(it.protocol.as_deref()) == protocol
            });
            let Some(number) = numbers.find_map(|it| u16::try_from(it.port?).ok()) else { continue };
            for it in &slice.endpoints {
                let pod = it.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"));
                let pod = pod
                    .and_then(|pod| Some(format!("{}/{}", pod.namespace.as_deref()?, pod.name.as_deref()?)));
                // Without a word it counts as ready.
                let ready = it.conditions.as_ref().and_then(|it| it.ready).unwrap_or(true);
                let node = it.node_name.as_deref().map(|node| self.node(node));
                // All addresses of an endpoint are equal; kube-proxy takes the first.
                let address = it.addresses.first().and_then(|address| address.parse().ok());
                found.extend(address.map(|address| Endpoint { address, port: number, ready, pod, node }));
            }
        }
        Ok(found)
    }
}

fn service_end(service: &Service) -> End {
    let name = format!("{}/{}", service.namespace().unwrap_or_default(), service.name_any());
    End { name, kind: EndKind::Service, addresses: service_addresses(service), node: None }
}

fn service_addresses(service: &Service) -> Vec<IpAddr> {
    let texts = service.spec.as_ref().and_then(|spec| spec.cluster_ips.clone()).unwrap_or_default();
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

fn pod_addresses(pod: &Pod) -> Vec<IpAddr> {
    let texts = pod.status.as_ref().and_then(|status| status.pod_ips.clone()).unwrap_or_default();
    texts.iter().filter_map(|it| it.ip.parse().ok()).collect()
}

fn reference(node: &Node) -> NodeRef {
    NodeRef { name: node.name_any(), addresses: addresses_of(node) }
}

fn addresses_of(node: &Node) -> Vec<IpAddr> {
    let addresses = node.status.as_ref().and_then(|status| status.addresses.clone()).unwrap_or_default();
    let internal = addresses.iter().filter(|it| it.type_ == "InternalIP");
    internal.filter_map(|it| it.address.parse().ok()).collect()
}

fn protocol_of(text: Option<&str>) -> Protocol {
    match text {
        Some("UDP") => Protocol::Udp,
        Some("SCTP") => Protocol::Sctp,
        _ => Protocol::Tcp,
    }
}

fn show_ports(ports: &[ServicePort]) -> String {
    let show = |it: &ServicePort| {
        let protocol = it.protocol.as_deref().unwrap_or("TCP").to_lowercase();
        let target = match &it.target_port {
            Some(IntOrString::String(name)) => format!(" (to {name})"),
            _ => String::new(),
        };
        format!("{}/{protocol}{target}", it.port)
    };
    match ports {
        [] => "none".to_owned(),
        ports => ports.iter().map(show).collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubectl::target::parse_any;
    use serde_json::{Value, json};

    fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    fn facts() -> Facts {
        let node = |name: &str, address: &str| {
            read(json!({ "metadata": { "name": name },
                         "status": { "addresses": [{ "type": "InternalIP", "address": address }] } }))
        };
        let pod = |name: &str, addresses: &[&str], spec: Value, phase: &str| -> Pod {
            let ips: Vec<Value> = addresses.iter().map(|ip| json!({ "ip": ip })).collect();
            let mut spec = spec;
            spec["containers"] = json!([]);
            read(json!({ "metadata": { "name": name, "namespace": "shop" }, "spec": spec,
                         "status": { "phase": phase, "podIPs": ips } }))
        };
        Facts {
            nodes: vec![node("node-1", "192.168.1.11"), node("node-2", "192.168.1.12")],
            pods: vec![
                pod("client", &["10.244.1.2", "fd00:1::2"], json!({ "nodeName": "node-1" }), "Running"),
                pod("web", &["10.244.2.7"], json!({ "nodeName": "node-2" }), "Running"),
                pod(
                    "host",
                    &["192.168.1.12"],
                    json!({ "nodeName": "node-2", "hostNetwork": true }),
                    "Running",
                ),
                pod("new", &[], json!({ "nodeName": "node-2" }), "Pending"),
                pod("done", &["10.244.2.8"], json!({ "nodeName": "node-2" }), "Succeeded"),
            ],
            services: vec![read(json!({
                "metadata": { "name": "web", "namespace": "shop" },
                "spec": { "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"],
                          "ports": [{ "name": "http", "port": 80, "protocol": "TCP", "targetPort": "www" },
                                    { "name": "dns", "port": 53, "protocol": "UDP" }] },
            }))],
            slices: vec![read(json!({
                "metadata": { "name": "web-x", "namespace": "shop", "labels": { OF_SERVICE: "web" } },
                "addressType": "IPv4",
                "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" },
                          { "name": "dns", "port": 5353, "protocol": "UDP" }],
                "endpoints": [
                    { "addresses": ["10.244.2.7"], "conditions": { "ready": true }, "nodeName": "node-2",
                      "targetRef": { "kind": "Pod", "namespace": "shop", "name": "web" } },
                    { "addresses": ["10.244.2.9"], "conditions": { "ready": false }, "nodeName": "node-2",
                      "targetRef": { "kind": "Pod", "namespace": "shop", "name": "web-2" } },
                    { "addresses": ["203.0.113.5"] },
                ],
            }))],
        }
    }

    fn ask(from: &str, to: &str) -> Result<Question, String> {
        let [from, to] = [from, to].map(|text| parse_any(text).unwrap().in_namespace("shop"));
        question(&facts(), &from, &to)
    }

    #[test]
    fn names_and_addresses_are_the_same_ends() {
        let asked = ask("client", "web:8080").unwrap();
        assert_eq!((asked.source.name.as_str(), asked.source.kind), ("shop/client", EndKind::Pod));
        assert_eq!(
            asked.source.node.as_ref().unwrap().addresses,
            ["192.168.1.11".parse::<IpAddr>().unwrap()]
        );
        assert_eq!((asked.protocol, asked.port, asked.flows().len()), (Protocol::Tcp, 8080, 1));
        let by_address = ask("fd00:1::2", "10.244.2.7:8080").unwrap();
        assert_eq!(by_address.source.name, "shop/client");
        assert_eq!(by_address.source.addresses, ["fd00:1::2".parse::<IpAddr>().unwrap()]);
        assert_eq!(by_address.destination.name, "shop/web");
        let node = ask("node/node-1", "192.168.1.12").unwrap();
        assert_eq!((node.destination.name.as_str(), node.destination.kind), ("node-2", EndKind::Node));
        assert_eq!(node.protocol, Protocol::Icmp);
        assert_eq!(ask("client", "host:9690").unwrap().destination.kind, EndKind::Node);
        let beyond = ask("client", "1.1.1.1:53/udp").unwrap().destination;
        assert_eq!((beyond.kind, beyond.node), (EndKind::Address, None));
    }

    #[test]
    fn a_service_is_its_endpoints_by_name_and_by_address() {
        for to in ["svc/web:80", "shop/svc/web:80/tcp", "10.96.0.9:80"] {
            let asked = ask("client", to).unwrap();
            assert_eq!(
                (asked.destination.name.as_str(), asked.destination.kind),
                ("shop/web", EndKind::Service)
            );
            let told: Vec<_> = asked
                .endpoints
                .iter()
                .map(|it| (it.address.to_string(), it.port, it.ready, it.pod.as_deref().unwrap_or("-")))
                .collect();
            assert_eq!(
                told,
                [
                    ("10.244.2.7".to_owned(), 8080, true, "shop/web"),
                    ("10.244.2.9".to_owned(), 8080, false, "shop/web-2"),
                    ("203.0.113.5".to_owned(), 8080, true, "-"),
                ]
            );
            assert_eq!(asked.flows().len(), 2, "{to}");
        }
        assert_eq!(ask("client", "svc/web:53/udp").unwrap().endpoints[0].port, 5353);
    }

    #[test]
    fn what_cannot_be_an_end_is_refused_with_words() {
        for (from, to, why) in [
            ("client", "svc/web", "with a port: it has 80/tcp (to www), 53/udp"),
            ("client", "svc/web:81", "no such port: it has 80/tcp"),
            ("client", "svc/db:80", "there is no Service shop/svc/db"),
            ("svc/web", "client:80", "begins no connection"),
            ("client:80", "web:80", "a port of its own choice"),
            ("client", "new:80", "has no address yet"),
            ("done", "web:80", "has ended"),
            ("node/x", "web:80", "there is no node \"x\""),
        ] {
            let error = ask(from, to).unwrap_err();
            assert!(error.contains(why), "{from} {to}: {error}");
        }
    }
}
