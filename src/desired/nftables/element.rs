//! Elements: what one pod and one network have in the sets of the table.
//!
//! Each bears the name of its network as the first word of its comment, for people and so that networks on a node tell
//! their elements apart.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

use crate::cni::ids::NetworkName;
pub use crate::config::host_port::{HostPort, Protocol};
use crate::desired::attachment::{GATEWAY_V4, GATEWAY_V6, covers};
use crate::desired::names::{link_group, stable_hash};
use crate::desired::nftables::table::set;
use crate::linux::nft::element::Bytes;
pub use crate::linux::nft::element::Element;

/// What a pod needs in the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodRules {
    /// Its network.
    pub network: NetworkName,
    /// Name of the node's end of its pair.
    pub host_link: String,
    /// `namespace/name` where the runtime told it, else what tells people which pod it is.
    pub name: Option<String>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Whether it is to be masqueraded outside of its network.
    pub masquerade: bool,
    /// Its hostPorts. One of a family that the pod has no address of is passed over.
    pub host_ports: Vec<HostPort>,
}

/// Where the pods of a network keep their source address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoMasquerade {
    /// Which network.
    pub network: NetworkName,
    /// Subnets of the network's pods on all nodes, addresses of the nodes, and what the conf exempts
    /// (`nonMasqueradeCIDRs`). They may overlap.
    pub networks: Vec<IpNetwork>,
}

/// The comment of an element of `network`; `note` says of which pod it is, or what else there is to say.
pub fn owner(network: &NetworkName, note: Option<&str>) -> String {
    match note {
        Some(note) => format!("{network} {note}"),
        None => network.to_string(),
    }
}

/// Whether the element's comment says that it belongs to one of `networks`.
pub fn belongs_to(element: &Element, networks: &[NetworkName]) -> bool {
    let name = element.comment.as_deref().and_then(|comment| comment.split(' ').next());
    name.is_some_and(|name| networks.iter().any(|network| network.as_str() == name))
}

impl PodRules {
    /// Its elements, each once.
    pub fn elements(&self) -> Vec<Element> {
        let link = Bytes::default().link_name(&self.host_link);
        let mut elements = vec![self.element(set::PODS, link.clone())];
        for &address in &self.addresses {
            let [sources, masquerade] = match address {
                IpAddr::V4(_) => [set::SOURCES4, set::MASQUERADE4],
                IpAddr::V6(_) => [set::SOURCES6, set::MASQUERADE6],
            };
            let key = link.clone().address(address);
            elements.push(self.element(sources, key.clone()));
            if self.masquerade {
                elements.push(self.element(masquerade, key));
            }
        }
        // Of 0.0.0.0 and of no address it may be the same.
        let mut seen: HashSet<Element> = HashSet::new();
        for port in self.host_ports.iter().filter(|port| port.host_port != 0) {
            for is_ipv4 in [true, false] {
                let element = self.host_port(port, is_ipv4);
                elements.extend(element.filter(|element| seen.insert(element.clone())));
            }
        }
        elements
    }

    /// The element of a hostPort in a family, where both have it. [`read_host_port`] reads it.
    fn host_port(&self, port: &HostPort, is_ipv4: bool) -> Option<Element> {
        let pod = self.addresses.iter().find(|address| address.is_ipv4() == is_ipv4)?;
        if port.host_ip.is_some_and(|host_ip| host_ip.is_ipv4() != is_ipv4) {
            return None;
        }
        let [of_one, of_every] = match is_ipv4 {
            true => [set::HOSTPORTS4, set::ANY_HOSTPORTS4],
            false => [set::HOSTPORTS6, set::ANY_HOSTPORTS6],
        };
        let (map, key) = match port.host_ip.filter(|host_ip| !host_ip.is_unspecified()) {
            Some(host_ip) => (of_one, Bytes::default().address(host_ip)),
            None => (of_every, Bytes::default()),
        };
        let key = key.protocol(port.protocol.number()).port(port.host_port);
        let data = Bytes::default().address(*pod).port(port.container_port);
        Some(Element { data: Some(data), ..self.element(map, key) })
    }

    fn element(&self, set: &str, key: Bytes) -> Element {
        Element::new(set, key).with_comment(owner(&self.network, self.name.as_deref()))
    }
}

/// The hostPort that an element of a map stands for, and the pod's address; `None` for an element of a set.
pub fn read_host_port(element: &Element) -> Option<(HostPort, IpAddr)> {
    let (pod, container_port) = element.data.as_ref()?.to_address_and_port()?;
    let key = element.key.0.as_slice();
    // Protocol and port take four bytes each, whether or not an address comes before them.
    let (address, rest) = key.split_at_checked(key.len().checked_sub(8)?)?;
    let (protocol, port) = rest.split_at_checked(4)?;
    let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    let host_ip = match address.len() {
        4 => Some(Ipv4Addr::from(*address.first_chunk()?).into()),
        16 => Some(Ipv6Addr::from(*address.first_chunk()?).into()),
        _ => None,
    };
    let host_port = HostPort {
        host_ip,
        host_port: u16::from_be_bytes(*port.first_chunk()?),
        container_port,
        protocol: protocols.into_iter().find(|it| Some(&it.number()) == protocol.first())?,
    };
    Some((host_port, pod))
}

impl NoMasquerade {
    /// Its elements: no two overlap, which the kernel would refuse.
    ///
    /// Among them is the pods' link-local gateway, which keeps its source in any case. So each network has an element in
    /// either family whatever else it has, and at a place that is known: one look-up by it tells whether the table has the
    /// network at all. Its comment holds a hash of all elements of its family, so the same look-up tells whether all are
    /// as they should be.
    pub fn elements(&self) -> Vec<Element> {
        let mut elements = Vec::new();
        for (set, gateway) in Self::MARKS {
            let gateway = IpNetwork::from(gateway);
            let of_family = self.networks.iter().filter(|it| it.is_ipv4() == gateway.is_ipv4());
            let networks = without_overlaps(of_family.chain([&gateway]));
            let words: Vec<String> = networks.iter().map(ToString::to_string).collect();
            let mark = format!("{:016x}", stable_hash(words.iter().map(String::as_str)));
            elements.extend(networks.into_iter().map(|network| {
                let note = covers(network, gateway).then_some(mark.as_str());
                self.element(set, network, note)
            }));
        }
        elements
    }

    /// Those of the elements whose comments tell of all others: one in each family.
    pub fn marks(&self) -> Vec<Element> {
        let mut elements = self.elements();
        elements.retain(|element| element.comment.as_deref() != Some(self.network.as_str()));
        elements
    }

    /// Where a network's marks are: what is found there belongs to [`NoMasquerade::marks`].
    pub fn places_of_marks(network: &NetworkName) -> [Element; 2] {
        let bare = Self { network: network.clone(), networks: Vec::new() };
        Self::MARKS.map(|(set, gateway)| bare.element(set, gateway.into(), None))
    }

    const MARKS: [(&str, IpAddr); 2] = [(set::NO_MASQUERADE4, GATEWAY_V4), (set::NO_MASQUERADE6, GATEWAY_V6)];

    fn element(&self, set: &str, network: IpNetwork, note: Option<&str>) -> Element {
        let key = |address| Bytes::default().link_group(self.group()).address(address);
        Element {
            key_end: Some(key(last_address(network))),
            ..Element::new(set, key(network.network())).with_comment(owner(&self.network, note))
        }
    }

    /// The link group of the network's pods, by which its elements are told from other networks'.
    pub fn group(&self) -> u32 {
        link_group(&self.network)
    }
}

/// The networks that no other of them covers, in order, each once.
fn without_overlaps<'a>(networks: impl Iterator<Item = &'a IpNetwork>) -> Vec<IpNetwork> {
    let mut sorted: Vec<IpNetwork> =
        networks.filter_map(|network| IpNetwork::new(network.network(), network.prefix()).ok()).collect();
    sorted.sort_by_key(|network| (network.ip(), network.prefix()));
    let mut kept: Vec<IpNetwork> = Vec::new();
    for network in sorted {
        // Two networks are apart, or one covers the other; and what covers comes first.
        if !kept.last().is_some_and(|last| covers(*last, network)) {
            kept.push(network);
        }
    }
    kept
}

/// The last address of a network.
pub fn last_address(network: IpNetwork) -> IpAddr {
    match network {
        IpNetwork::V4(network) => {
            let hosts = u32::MAX.checked_shr(network.prefix().into()).unwrap_or(0);
            Ipv4Addr::from_bits(network.network().to_bits() | hosts).into()
        }
        IpNetwork::V6(network) => {
            let hosts = u128::MAX.checked_shr(network.prefix().into()).unwrap_or(0);
            Ipv6Addr::from_bits(network.network().to_bits() | hosts).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::nftables::table::show;

    fn pod(addresses: &[&str], host_ports: &[(&str, u16, Protocol)]) -> PodRules {
        PodRules {
            network: NetworkName::parse("podnet").unwrap(),
            host_link: "veth0".into(),
            name: Some("default/web".into()),
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            masquerade: true,
            host_ports: host_ports
                .iter()
                .map(|&(host_ip, host_port, protocol)| HostPort {
                    host_ip: (!host_ip.is_empty()).then(|| host_ip.parse().unwrap()),
                    host_port,
                    container_port: 80,
                    protocol,
                })
                .collect(),
        }
    }

    #[test]
    fn an_owner_is_told_by_the_first_word_of_the_comment() {
        let podnet = NetworkName::parse("podnet").unwrap();
        assert_eq!(owner(&podnet, Some("default/web")), "podnet default/web");
        let is_own = |comment: &str| {
            let element = Element::new("pods", Bytes::default()).with_comment(comment.to_owned());
            belongs_to(&element, std::slice::from_ref(&podnet))
        };
        assert!(is_own("podnet default/web") && is_own("podnet"));
        assert!(!is_own("podnet2 default/web") && !is_own(""));
    }

    fn shown(elements: &[Element]) -> Vec<String> {
        elements.iter().map(show).collect()
    }

    #[test]
    fn each_address_of_a_pod_is_in_the_sets_of_its_family() {
        assert_eq!(
            shown(&pod(&["10.244.1.7", "fd00:1::7"], &[]).elements()),
            [
                "pods { \"veth0\" }",
                "sources4 { \"veth0\" . 10.244.1.7 }",
                "masquerade4 { \"veth0\" . 10.244.1.7 }",
                "sources6 { \"veth0\" . fd00:1::7 }",
                "masquerade6 { \"veth0\" . fd00:1::7 }",
            ]
        );
    }

    #[test]
    fn a_host_port_is_of_the_addresses_that_its_host_ip_means() {
        use Protocol::{Sctp, Tcp, Udp};
        let ports = [
            ("", 1, Tcp),
            ("0.0.0.0", 2, Udp),
            ("::", 3, Sctp),
            ("127.0.0.1", 4, Tcp),
            ("fd00::10", 5, Tcp),
            // Twice the same, and no port at all.
            ("", 1, Tcp),
            ("", 0, Tcp),
        ];
        let both = pod(&["10.244.1.7", "fd00:1::7"], &ports).elements();
        assert_eq!(
            shown(&both)[5..],
            [
                "any_hostports4 { tcp . 1 : 10.244.1.7 . 80 }",
                "any_hostports6 { tcp . 1 : fd00:1::7 . 80 }",
                "any_hostports4 { udp . 2 : 10.244.1.7 . 80 }",
                "any_hostports6 { sctp . 3 : fd00:1::7 . 80 }",
                "hostports4 { 127.0.0.1 . tcp . 4 : 10.244.1.7 . 80 }",
                "hostports6 { fd00::10 . tcp . 5 : fd00:1::7 . 80 }",
            ]
        );
        let four = pod(&["10.244.1.7"], &ports).elements();
        assert_eq!(four.iter().filter(|element| element.data.is_some()).count(), 3);
    }

    #[test]
    fn a_host_port_reads_as_it_was_written() {
        let ports =
            [("127.0.0.1", 4, Protocol::Tcp), ("fd00::10", 5, Protocol::Sctp), ("", 6, Protocol::Udp)];
        let pod = pod(&["10.244.1.7", "fd00:1::7"], &ports);
        let read: Vec<_> = pod.elements().iter().filter_map(read_host_port).collect();
        let [four, six, both] = [0, 1, 2].map(|at| pod.host_ports[at]);
        let to = |at: usize| pod.addresses[at];
        assert_eq!(read, [(four, to(0)), (six, to(1)), (both, to(0)), (both, to(1))]);
    }

    #[test]
    fn networks_that_overlap_become_those_that_do_not() {
        let inside = |networks: &[&str]| NoMasquerade {
            network: NetworkName::parse("podnet").unwrap(),
            networks: networks.iter().map(|text| text.parse().unwrap()).collect(),
        };
        let one = inside(&["10.244.1.0/24", "fd00:1::/64", "10.0.0.0/8", "192.168.1.10/32", "10.244.0.0/16"]);
        assert_eq!(
            shown(&one.elements()),
            [
                "no_masquerade4 { 1711677270 . 10.0.0.0-10.255.255.255 }",
                "no_masquerade4 { 1711677270 . 169.254.1.1 }",
                "no_masquerade4 { 1711677270 . 192.168.1.10 }",
                "no_masquerade6 { 1711677270 . fd00:1::-fd00:1::ffff:ffff:ffff:ffff }",
                "no_masquerade6 { 1711677270 . fe80::1 }",
            ]
        );
        assert_eq!(
            shown(&one.marks()),
            [shown(&one.elements())[1].clone(), shown(&one.elements())[4].clone()]
        );
        let same = inside(&["10.0.0.0/8", "fd00:1::/64", "192.168.1.10/32"]);
        assert_eq!(same.elements(), one.elements());
        let other = inside(&["10.0.0.0/8", "fd00:1::/64", "192.168.1.11/32"]);
        assert_ne!(other.marks()[0].comment, one.marks()[0].comment);
        assert_eq!(other.marks()[1].comment, one.marks()[1].comment);
    }

    #[test]
    fn every_network_has_its_marks_whatever_its_exemptions() {
        let network = NetworkName::parse("podnet").unwrap();
        let bare = NoMasquerade { network: network.clone(), networks: Vec::new() };
        assert_eq!(shown(&bare.elements()), shown(&NoMasquerade::places_of_marks(&network)));
        let wide = NoMasquerade { network, networks: vec!["169.254.0.0/16".parse().unwrap()] };
        assert_eq!(shown(&wide.marks())[0], "no_masquerade4 { 1711677270 . 169.254.0.0-169.254.255.255 }");
    }

    #[test]
    fn the_last_address_of_a_network_is_in_it_and_the_next_is_not() {
        for (network, last) in [
            ("10.0.0.0/8", "10.255.255.255"),
            ("0.0.0.0/0", "255.255.255.255"),
            ("10.1.2.3/32", "10.1.2.3"),
            ("fd00::/64", "fd00::ffff:ffff:ffff:ffff"),
            ("::/0", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("fd00::1/128", "fd00::1"),
        ] {
            assert_eq!(last_address(network.parse().unwrap()).to_string(), last);
        }
    }
}
