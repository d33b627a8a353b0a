//! Elements: what one pod and one network have in the sets of the table.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

use crate::cni::ids::NetworkName;
pub use crate::config::host_port::{HostPort, Protocol};
use crate::desired::attachment::{GATEWAY_V4, GATEWAY_V6, covers};
use crate::desired::names::{link_group, stable_hash};
use crate::desired::nftables::table::SetName;

/// A field of a key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Value {
    /// A link's name.
    Link(String),
    /// A link's group.
    Group(u32),
    /// An address.
    Address(IpAddr),
    /// All addresses of a network.
    Network(IpNetwork),
    /// A transport protocol.
    Protocol(Protocol),
    /// A port.
    Port(u16),
}

/// An element of a set or map.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Element {
    /// Of which.
    pub set: SetName,
    /// Its key.
    pub key: Vec<Value>,
    /// Of a map: where to.
    pub target: Option<(IpAddr, u16)>,
    /// Whose.
    pub owner: Owner,
}

/// Whose an element is. Stands as its comment in the table, for people and so that networks on a node tell
/// their elements apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Owner {
    /// Of this network,
    pub network: NetworkName,
    /// and in it of this pod, or what else there is to say.
    pub note: Option<String>,
}

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

impl Owner {
    /// Whether a comment in the table says that its element belongs to `network`.
    pub fn names(comment: &str, network: &NetworkName) -> bool {
        comment.split(' ').next() == Some(network.as_str())
    }
}

impl PodRules {
    /// Its elements, each once.
    pub fn elements(&self) -> Vec<Element> {
        let link = || Value::Link(self.host_link.clone());
        let mut elements = vec![self.element(SetName::Pods, vec![link()], None)];
        for &address in &self.addresses {
            let pick = |four, six| if address.is_ipv4() { four } else { six };
            let key = vec![link(), Value::Address(address)];
            elements.push(self.element(pick(SetName::Sources4, SetName::Sources6), key.clone(), None));
            if self.masquerade {
                elements.push(self.element(pick(SetName::Masquerade4, SetName::Masquerade6), key, None));
            }
        }
        for port in self.host_ports.iter().filter(|port| port.host_port != 0) {
            for ipv4 in [true, false] {
                let element = self.host_port(port, ipv4);
                elements.extend(element.filter(|element| !elements.contains(element)));
            }
        }
        elements
    }

    /// The element of a hostPort in a family, where both have it.
    fn host_port(&self, port: &HostPort, ipv4: bool) -> Option<Element> {
        let pod = self.addresses.iter().find(|address| address.is_ipv4() == ipv4)?;
        if port.host_ip.is_some_and(|host_ip| host_ip.is_ipv4() != ipv4) {
            return None;
        }
        let mut key = vec![Value::Protocol(port.protocol), Value::Port(port.host_port)];
        let pick = |four, six| if ipv4 { four } else { six };
        let set = match port.host_ip.filter(|host_ip| !host_ip.is_unspecified()) {
            Some(host_ip) => {
                key.insert(0, Value::Address(host_ip));
                pick(SetName::HostPorts4, SetName::HostPorts6)
            }
            None => pick(SetName::AnyHostPorts4, SetName::AnyHostPorts6),
        };
        Some(self.element(set, key, Some((*pod, port.container_port))))
    }

    fn element(&self, set: SetName, key: Vec<Value>, target: Option<(IpAddr, u16)>) -> Element {
        let owner = Owner { network: self.network.clone(), note: self.name.clone() };
        Element { set, key, target, owner }
    }
}

impl NoMasquerade {
    /// Its elements: no two overlap, which the kernel would refuse.
    ///
    /// Among them is the pods' link-local gateway, which is certainly inside. So each network has an element in either
    /// family whatever else it has, and at a place that is known: by it one look-up tells whether the table knows the
    /// network at all. Its comment holds a number that is another when any of the elements is, so the same look-up
    /// tells whether all are as they should be.
    pub fn elements(&self) -> Vec<Element> {
        let mut elements = Vec::new();
        for (set, gateway) in Self::MARKS {
            let gateway = IpNetwork::from(gateway);
            let of_family = self.networks.iter().filter(|it| it.is_ipv4() == gateway.is_ipv4());
            let networks = without_overlaps(of_family.chain([&gateway]));
            let words: Vec<String> = networks.iter().map(ToString::to_string).collect();
            let mark = format!("{:016x}", stable_hash(words.iter().map(String::as_str)));
            elements.extend(networks.into_iter().map(|network| {
                let note = covers(network, gateway).then(|| mark.clone());
                self.element(set, network, note)
            }));
        }
        elements
    }

    /// Those of the elements that tell of all others.
    pub fn marks(&self) -> Vec<Element> {
        let mut elements = self.elements();
        elements.retain(|element| element.owner.note.is_some());
        elements
    }

    /// Where a network's marks are: what is found there belongs to [`NoMasquerade::marks`].
    pub fn places_of_marks(network: &NetworkName) -> [Element; 2] {
        let inside = Self { network: network.clone(), networks: Vec::new() };
        Self::MARKS.map(|(set, gateway)| inside.element(set, gateway.into(), None))
    }

    const MARKS: [(SetName, IpAddr); 2] = [(SetName::Inside4, GATEWAY_V4), (SetName::Inside6, GATEWAY_V6)];

    fn element(&self, set: SetName, network: IpNetwork, note: Option<String>) -> Element {
        let key = vec![Value::Group(self.group()), Value::Network(network)];
        Element { set, key, target: None, owner: Owner { network: self.network.clone(), note } }
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

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.network.as_str())?;
        self.note.iter().try_for_each(|note| write!(f, " {note}"))
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(link) => write!(f, "\"{link}\""),
            Self::Group(group) => write!(f, "{group}"),
            Self::Address(address) => address.fmt(f),
            Self::Network(network) => network.fmt(f),
            Self::Protocol(protocol) => protocol.fmt(f),
            Self::Port(port) => port.fmt(f),
        }
    }
}

/// As one can give it to `nft get element inet ferrule`.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {{ ", self.set)?;
        for (place, value) in self.key.iter().enumerate() {
            let dot = if place == 0 { "" } else { " . " };
            write!(f, "{dot}{value}")?;
        }
        if let Some((address, port)) = self.target {
            write!(f, " : {address} . {port}")?;
        }
        f.write_str(" }")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let network = |name: &str| NetworkName::parse(name).unwrap();
        let owner = Owner { network: network("podnet"), note: Some("default/web".into()) };
        assert_eq!(owner.to_string(), "podnet default/web");
        assert!(Owner::names("podnet default/web", &network("podnet")));
        assert!(Owner::names("podnet", &network("podnet")));
        assert!(!Owner::names("podnet2 default/web", &network("podnet")));
        assert!(!Owner::names("", &network("podnet")));
    }

    fn shown(elements: &[Element]) -> Vec<String> {
        elements.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_pod_of_two_families_has_each_of_its_addresses_in_the_sets_of_its_family() {
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
        assert_eq!(four.iter().filter(|element| element.target.is_some()).count(), 3);
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
                "no_masquerade4 { 1711677270 . 10.0.0.0/8 }",
                "no_masquerade4 { 1711677270 . 169.254.1.1/32 }",
                "no_masquerade4 { 1711677270 . 192.168.1.10/32 }",
                "no_masquerade6 { 1711677270 . fd00:1::/64 }",
                "no_masquerade6 { 1711677270 . fe80::1/128 }",
            ]
        );
        assert_eq!(
            shown(&one.marks()),
            [shown(&one.elements())[1].clone(), shown(&one.elements())[4].clone()]
        );
        let same = inside(&["10.0.0.0/8", "fd00:1::/64", "192.168.1.10/32"]);
        assert_eq!(same.elements(), one.elements());
        let other = inside(&["10.0.0.0/8", "fd00:1::/64", "192.168.1.11/32"]);
        assert_ne!(other.marks()[0].owner, one.marks()[0].owner);
        assert_eq!(other.marks()[1].owner, one.marks()[1].owner);
    }

    #[test]
    fn a_network_with_nothing_inside_is_known_by_its_marks_and_one_that_covers_them_bears_them() {
        let network = NetworkName::parse("podnet").unwrap();
        let bare = NoMasquerade { network: network.clone(), networks: Vec::new() };
        assert_eq!(shown(&bare.elements()), shown(&NoMasquerade::places_of_marks(&network)));
        let wide = NoMasquerade { network, networks: vec!["169.254.0.0/16".parse().unwrap()] };
        assert_eq!(shown(&wide.marks())[0], "no_masquerade4 { 1711677270 . 169.254.0.0/16 }");
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
