//! What ferrule needs of a Kubernetes Node, without Kubernetes' types.
//!
//! A Node is written every few seconds (heartbeats, images, conditions). [`NodeInfo`] holds nothing of that, so two
//! versions of a Node that mean the same to ferrule are equal.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::agent::cluster::reserved::check_pod_cidr;

/// Values of a Node object, not checked yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RawNode {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.creationTimestamp` in seconds since 1970; 0 where it has none.
    pub created: i64,
    /// `spec.podCIDRs`, or `spec.podCIDR` alone where a server knows only that.
    pub pod_cidrs: Vec<String>,
    /// The entries of `status.addresses` whose type is `InternalIP`.
    pub internal_ips: Vec<String>,
    /// Its conditions.
    pub condition: Condition,
}

/// A Node's conditions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Condition {
    /// `Ready` is `True`.
    pub ready: bool,
    /// `Ready` is `False` because the runtime has no network configuration (`NetworkPluginNotReady`).
    pub awaits_network: bool,
    /// `NetworkUnavailable` is there and is not `False`.
    pub network_unavailable: bool,
    /// Place of the startup taint among its taints.
    pub startup_taint: Option<usize>,
}

/// A node of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeInfo {
    /// Its name.
    pub name: String,
    /// When it was created, in seconds since 1970.
    pub created: i64,
    /// The subnets of its pods, each once, without host bits.
    pub pod_cidrs: Vec<IpNetwork>,
    /// Its addresses, each once, in the order of the Node. The first of each family is used.
    pub node_ips: Vec<IpAddr>,
    /// Values of its Node that cannot be used, in words.
    pub unusable: Vec<String>,
    /// Its conditions.
    pub condition: Condition,
}

impl NodeInfo {
    /// Checks the values. Those that cannot be used are in [`NodeInfo::unusable`], and do not hide the rest.
    pub fn read(given: RawNode) -> Self {
        let RawNode { name, created, pod_cidrs, internal_ips, condition } = given;
        let mut info = Self { name, created, condition, ..Self::default() };
        for text in &pod_cidrs {
            match read_pod_cidr(text) {
                Ok(cidr) if info.pod_cidrs.contains(&cidr) => {}
                Ok(cidr) => info.pod_cidrs.push(cidr),
                Err(why) => info.unusable.push(format!("podCIDR {text:?} {why}")),
            }
        }
        for text in &internal_ips {
            match read_node_ip(text) {
                Ok(address) if info.node_ips.contains(&address) => {}
                Ok(address) => info.node_ips.push(address),
                Err(why) => info.unusable.push(format!("InternalIP {text:?} {why}")),
            }
        }
        info
    }

    /// The address at which the node is reached in the family of `cidr`.
    pub fn address_for(&self, cidr: &IpNetwork) -> Option<IpAddr> {
        self.node_ips.iter().copied().find(|address| address.is_ipv4() == cidr.is_ipv4())
    }

    /// The first address of each family, in the order of the Node: `nodeIPs` in a conf.
    pub fn main_addresses(&self) -> Vec<IpAddr> {
        let mut main: Vec<IpAddr> = Vec::new();
        for address in &self.node_ips {
            if !main.iter().any(|known| known.is_ipv4() == address.is_ipv4()) {
                main.push(*address);
            }
        }
        main
    }
}

fn read_pod_cidr(text: &str) -> Result<IpNetwork, String> {
    let cidr: IpNetwork = text.parse().map_err(|_| "is no subnet")?;
    if cidr.network() != cidr.ip() {
        return Err("has host bits set".to_owned());
    }
    check_pod_cidr(cidr)?;
    Ok(cidr)
}

fn read_node_ip(text: &str) -> Result<IpAddr, &'static str> {
    let address: IpAddr = text.parse().map_err(|_| "is no address")?;
    let is_link_local = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
    if address.is_unspecified() || address.is_loopback() || address.is_multicast() || is_link_local {
        return Err("is no address by which other nodes reach it");
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pod_cidrs: &[&str], internal_ips: &[&str]) -> NodeInfo {
        let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        let given =
            RawNode { pod_cidrs: texts(pod_cidrs), internal_ips: texts(internal_ips), ..RawNode::default() };
        NodeInfo::read(given)
    }

    #[test]
    fn what_cannot_be_used_is_named_and_does_not_hide_the_rest() {
        let info = read(
            &["10.244.1.0/24", "10.244.1.5/24", "nonsense", "0.0.0.0/0", "fd00:1::/64", "10.244.1.0/24"],
            &["fe80::1", "172.18.0.2", "127.0.0.1", "x", "fd00::2", "172.18.0.9"],
        );
        assert_eq!(info.pod_cidrs, ["10.244.1.0/24".parse().unwrap(), "fd00:1::/64".parse().unwrap()]);
        let shown: Vec<String> = info.main_addresses().iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["172.18.0.2", "fd00::2"]);
        assert_eq!(
            info.unusable,
            [
                "podCIDR \"10.244.1.5/24\" has host bits set",
                "podCIDR \"nonsense\" is no subnet",
                "podCIDR \"0.0.0.0/0\" is too wide for the pods of a node; /8 is the widest",
                "InternalIP \"fe80::1\" is no address by which other nodes reach it",
                "InternalIP \"127.0.0.1\" is no address by which other nodes reach it",
                "InternalIP \"x\" is no address",
            ]
        );
    }
}
