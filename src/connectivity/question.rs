//! Who wants to reach whom.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::policy::evaluate::Flow;
use crate::policy::names::{SCTP, TCP, UDP};

/// `IPPROTO_ICMP` and `IPPROTO_ICMPV6`.
pub const ICMP: u8 = 1;
pub const ICMPV6: u8 = 58;

/// One connection, with what is known of both ends. Whoever asks the API server first fills in what a node cannot know:
/// where pods are, and which endpoints a Service has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Question {
    /// Who begins.
    pub source: End,
    /// Who is meant.
    pub destination: End,
    /// How; `icmp` of both families.
    pub protocol: Protocol,
    /// The destination's port; 0 of ICMP. Of a Service its own port, not that of its endpoints.
    #[serde(default)]
    pub port: u16,
    /// What is behind the destination, if that is a Service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<Endpoint>,
}

/// One end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct End {
    /// As people know it: `shop/web`, the node's name, an address.
    pub name: String,
    /// What it is.
    pub kind: EndKind,
    /// At most one of each family counts, the first.
    pub addresses: Vec<IpAddr>,
    /// Where it is, if that is known. Of a node: itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeRef>,
}

/// What an end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndKind {
    /// A pod with an address of its own.
    Pod,
    /// A node, or a pod in its network.
    Node,
    /// A Service: its endpoints are what is reached.
    Service,
    /// An address outside of the cluster, or of which nothing is known.
    Address,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRef {
    /// `metadata.name` of its Node.
    pub name: String,
    /// Its addresses (`InternalIP`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
}

/// What a Service sends connections to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Whether it is ready, so that the Service uses it.
    pub ready: bool,
    /// The pod, `NAMESPACE/NAME`, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeRef>,
}

/// The protocol of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// An echo request, of either family.
    Icmp,
}

impl Protocol {
    /// That of a number (`IPPROTO_*`).
    pub fn of(number: u8) -> Option<Self> {
        match number {
            TCP => Some(Self::Tcp),
            UDP => Some(Self::Udp),
            SCTP => Some(Self::Sctp),
            ICMP | ICMPV6 => Some(Self::Icmp),
            _ => None,
        }
    }

    /// Its `IPPROTO_*` in a family.
    pub fn number(self, ipv4: bool) -> u8 {
        match self {
            Self::Tcp => TCP,
            Self::Udp => UDP,
            Self::Sctp => SCTP,
            Self::Icmp if ipv4 => ICMP,
            Self::Icmp => ICMPV6,
        }
    }

    /// Behind a port.
    fn suffix(self) -> &'static str {
        match self {
            Self::Tcp | Self::Icmp => "",
            Self::Udp => "/udp",
            Self::Sctp => "/sctp",
        }
    }
}

impl End {
    /// Its address of a family.
    pub fn address(&self, ipv4: bool) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|it| it.is_ipv4() == ipv4)
    }

    /// Whether a node can say anything of it.
    pub fn is_of_a_node(&self) -> bool {
        matches!(self.kind, EndKind::Pod | EndKind::Node)
    }
}

impl Question {
    /// The connections that are meant: one for each family that both ends have; to a Service one for each endpoint that is
    /// ready.
    pub fn flows(&self) -> Vec<Flow> {
        let flow = |source: IpAddr, destination: IpAddr, port| Flow {
            source,
            destination,
            protocol: self.protocol.number(source.is_ipv4()),
            port: if self.protocol == Protocol::Icmp { 0 } else { port },
        };
        if self.destination.kind == EndKind::Service {
            let ready = self.endpoints.iter().filter(|it| it.ready);
            let flows = ready.filter_map(|it| {
                let source = self.source.address(it.address.is_ipv4())?;
                Some(flow(source, it.address, it.port))
            });
            return flows.collect();
        }
        let both = [true, false].into_iter().filter_map(|ipv4| {
            let ends = (self.source.address(ipv4)?, self.destination.address(ipv4)?);
            Some(flow(ends.0, ends.1, self.port))
        });
        both.collect()
    }

    /// The destination of one of the flows: the end itself, or the endpoint that has the flow's address.
    pub fn destination_of(&self, flow: &Flow) -> End {
        let endpoint =
            self.endpoints.iter().find(|it| (it.address, it.port) == (flow.destination, flow.port));
        match endpoint {
            Some(it) if self.destination.kind == EndKind::Service => End {
                name: it.pod.clone().unwrap_or_else(|| it.address.to_string()),
                kind: match (&it.pod, &it.node) {
                    (_, Some(node)) if node.addresses.contains(&it.address) => EndKind::Node,
                    (Some(_), _) => EndKind::Pod,
                    (None, _) => EndKind::Address,
                },
                addresses: vec![it.address],
                node: it.node.clone(),
            },
            _ => End { addresses: vec![flow.destination], ..self.destination.clone() },
        }
    }

    /// The question for a node: a connection to each endpoint of a Service is one to a pod, and asked about by itself.
    pub fn for_nodes(&self) -> Vec<Self> {
        if self.destination.kind != EndKind::Service {
            return vec![self.clone()];
        }
        let to = |flow: &Flow| Self {
            source: End { addresses: vec![flow.source], ..self.source.clone() },
            destination: self.destination_of(flow),
            protocol: self.protocol,
            port: flow.port,
            endpoints: Vec::new(),
        };
        self.flows().iter().map(to).collect()
    }

    /// `10.244.1.7:8080`, `[fd00::7]:53/udp`, or the address alone.
    pub fn door(&self, flow: &Flow) -> String {
        match (flow.port, flow.destination) {
            (0, address) => address.to_string(),
            (port, IpAddr::V4(address)) => format!("{address}:{port}{}", self.protocol.suffix()),
            (port, IpAddr::V6(address)) => format!("[{address}]:{port}{}", self.protocol.suffix()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connectivity::join::tests::{end, question};

    #[test]
    fn each_family_that_both_have_is_a_connection() {
        let mut asked = question();
        asked.source.addresses.push("fd00:1::2".parse().unwrap());
        assert_eq!(asked.flows().len(), 1);
        asked.destination.addresses.push("fd00:2::7".parse().unwrap());
        let flows = asked.flows();
        assert_eq!(flows.len(), 2);
        assert_eq!(asked.door(&flows[0]), "10.244.2.7:8080");
        assert_eq!(asked.door(&flows[1]), "[fd00:2::7]:8080");
        asked.protocol = Protocol::Icmp;
        let numbers: Vec<(u8, u16)> = asked.flows().iter().map(|it| (it.protocol, it.port)).collect();
        assert_eq!(numbers, [(ICMP, 0), (ICMPV6, 0)]);
        assert_eq!(asked.door(&asked.flows()[1]), "fd00:2::7");
    }

    #[test]
    fn to_a_service_each_endpoint_that_is_ready_is_a_connection() {
        let mut asked = question();
        asked.destination = end("shop/web", EndKind::Service, "10.96.0.9", None);
        let endpoint = |address: &str, ready| Endpoint {
            address: address.parse().unwrap(),
            port: 9090,
            ready,
            pod: Some("shop/web-0".into()),
            node: Some(NodeRef { name: "node-2".into(), addresses: vec!["192.168.1.12".parse().unwrap()] }),
        };
        asked.endpoints =
            vec![endpoint("10.244.2.7", true), endpoint("10.244.2.8", false), endpoint("192.168.1.12", true)];
        let flows = asked.flows();
        assert_eq!(
            flows.iter().map(|it| asked.door(it)).collect::<Vec<_>>(),
            ["10.244.2.7:9090", "192.168.1.12:9090"]
        );
        assert_eq!(asked.destination_of(&flows[0]).kind, EndKind::Pod);
        assert_eq!(asked.destination_of(&flows[1]).kind, EndKind::Node);
        let asked = asked.for_nodes();
        assert_eq!((asked.len(), asked[0].port, asked[0].destination.name.as_str()), (2, 9090, "shop/web-0"));
        assert!(asked[0].endpoints.is_empty());
    }

    #[test]
    fn a_question_reads_as_it_was_written() {
        let asked = question();
        let text = serde_json::to_string(&asked).unwrap();
        assert_eq!(serde_json::from_str::<Question>(&text).unwrap(), asked);
    }
}
