//! A route as confs and results write it.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Serialize, Serializer};

use super::json::Node;
use super::problem::quote;
use super::version::SpecVersion;

/// Where the pod's packets for `dst` go (SPEC, "Success"). Fields from `mtu` on are of version 1.1.0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Route {
    /// The destination. No bit is set beyond its prefix: the kernel refuses that for IPv4.
    #[serde(serialize_with = "serialize_prefix")]
    pub dst: IpNetwork,
    /// The next hop, of the destination's family.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
    /// MTU along the path, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The segment size that TCP announces, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advmss: Option<u32>,
    /// The metric: of two routes to one destination the lower wins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// The routing table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
    /// The scope, as rtnetlink numbers them (0 universe, 253 link, 254 host).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<u8>,
}

impl Route {
    /// A route with nothing but destination and next hop.
    pub fn new(dst: IpNetwork, gw: Option<IpAddr>) -> Self {
        Self { dst, gw, mtu: None, advmss: None, priority: None, table: None, scope: None }
    }

    /// The same route with no more fields than `version` has.
    #[must_use]
    pub fn as_of(&self, version: SpecVersion) -> Self {
        match version {
            SpecVersion::V1_1_0 => self.clone(),
            _ => Self::new(self.dst, self.gw),
        }
    }

    /// Reads the list under `routes` in `parent`, with the fields that `version` has. Elements that are
    /// no routes are problems and left out.
    pub fn read_list(parent: &Node<'_, '_>, version: SpecVersion) -> Vec<Self> {
        parent.list("routes").map(|list| Self::read_items(&list, version)).unwrap_or_default()
    }

    /// The same where the node is the list; one that is none is a problem.
    pub fn read_items(list: &Node<'_, '_>, version: SpecVersion) -> Vec<Self> {
        if !list.is_list() {
            return Vec::new();
        }
        list.items().filter_map(|item| Self::read(&item, version)).collect()
    }

    fn read(node: &Node<'_, '_>, version: SpecVersion) -> Option<Self> {
        if !node.is_object() {
            return None;
        }
        let gw = node.parsed("gw", parse_address);
        let Some(dst) = node.member("dst") else {
            node.refuse_member(
                "dst",
                "is missing; give the destination, 0.0.0.0/0 or ::/0 for the default route",
            );
            return None;
        };
        let dst = dst.parse(parse_destination)?;
        if let Some(gw) = gw.filter(|gw| gw.is_ipv4() != dst.is_ipv4()) {
            node.refuse_member(
                "gw",
                format!("{gw} is not of the family of {dst}; leave it out for the pod's own next hop"),
            );
            return None;
        }
        let mut route = Self::new(dst, gw);
        if version >= SpecVersion::V1_1_0 {
            // Zero is how Go plugins write "not said" for these three.
            let number = |key| node.number(key, 0..=u32::MAX).filter(|number| *number != 0);
            route.mtu = number("mtu");
            route.advmss = number("advmss");
            route.priority = number("priority");
            route.table = node.number("table", 0..=u32::MAX);
            route.scope = node.number("scope", 0..=u8::MAX);
        }
        Some(route)
    }
}

/// An address on its own, without a prefix length. An IPv4 address written as an IPv6 one
/// (`::ffff:10.0.0.5`) is the IPv4 address.
///
/// # Errors
/// The text is to follow the path of what was read.
pub fn parse_address(text: &str) -> Result<IpAddr, String> {
    let address: Result<IpAddr, _> = text.parse();
    address
        .map(|address| address.to_canonical())
        .map_err(|_| format!("{} is no address; write it like 10.244.1.1 or fd00:10:244:1::1", quote(text)))
}

fn parse_destination(text: &str) -> Result<IpNetwork, String> {
    let dst = parse_prefix(text)?;
    if dst.ip() == dst.network() {
        return Ok(dst);
    }
    Err(format!("{dst} has bits set beyond its prefix; write {}/{}", dst.network(), dst.prefix()))
}

/// An address with its prefix length.
///
/// # Errors
/// The text is to follow the path of what was read.
pub fn parse_prefix(text: &str) -> Result<IpNetwork, String> {
    // IpNetwork alone would take an address for a /32.
    let network = text.contains('/').then(|| text.parse().ok()).flatten();
    network.ok_or_else(|| {
        let text = quote(text);
        format!(
            "{text} is no address with a prefix length; write it like 10.244.1.0/24 or fd00:10:244:1::/64"
        )
    })
}

/// `10.244.1.5/24`, as confs and results write it.
pub(super) fn serialize_prefix<S: Serializer>(prefix: &IpNetwork, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(prefix)
}
