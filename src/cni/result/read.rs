//! Reads a result that ferrule or another plugin wrote.

use serde_json::Value;

use super::{AddResult, Interface, IpConfig};
use crate::cni::dns::Dns;
use crate::cni::json::{Document, Node};
use crate::cni::problem::{Problems, quote};
use crate::cni::route::{Route, parse_address, parse_prefix};
use crate::cni::version::SpecVersion;

impl AddResult {
    /// Reads a result: in the version that it names, or else in `version`, the conf's.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with its path inside the result.
    pub fn parse(version: SpecVersion, value: &Value) -> Result<Self, Problems> {
        let document = Document::new(value);
        let result = Self::read(&document.root(), version);
        let problems = document.into_problems();
        if problems.is_empty() { Ok(result) } else { Err(problems) }
    }

    /// Reads a result that is part of a larger document. What is wrong with it is left out, and a
    /// problem of that document.
    pub fn read(node: &Node<'_, '_>, version: SpecVersion) -> Self {
        if !node.is_object() {
            return Self::default();
        }
        let own = node.parsed("cniVersion", |text| {
            SpecVersion::parse(text)
                .ok_or_else(|| format!("is {}, a version that ferrule does not speak", quote(text)))
        });
        let version = own.unwrap_or(version);
        if version < SpecVersion::V0_3_0 { read_families(node, version) } else { read_lists(node, version) }
    }
}

fn read_lists(node: &Node<'_, '_>, version: SpecVersion) -> AddResult {
    let interfaces: Vec<Interface> = match node.list("interfaces") {
        // An element that is no interface keeps its place: the indices of `ips` count it.
        Some(list) => list.items().map(|item| read_interface(&item, version)).collect(),
        None => Vec::new(),
    };
    let ips = match node.list("ips") {
        Some(list) => list.items().filter_map(|item| read_ip(&item, interfaces.len())).collect(),
        None => Vec::new(),
    };
    AddResult { interfaces, ips, routes: Route::read_list(node, version), dns: Dns::read_member(node) }
}

fn read_interface(node: &Node<'_, '_>, version: SpecVersion) -> Interface {
    if !node.is_object() {
        return Interface::default();
    }
    let text = |key| node.text(key).map(str::to_owned);
    let mut interface = Interface {
        name: text("name").unwrap_or_default(),
        mac: text("mac"),
        sandbox: text("sandbox"),
        ..Default::default()
    };
    if node.member("name").is_none() {
        node.refuse_member("name", "is missing");
    }
    if version >= SpecVersion::V1_1_0 {
        interface.mtu = node.number("mtu", 0..=u32::MAX).filter(|mtu| *mtu != 0);
        interface.socket_path = text("socketPath");
        interface.pci_id = text("pciID");
    }
    interface
}

fn read_ip(node: &Node<'_, '_>, interfaces: usize) -> Option<IpConfig> {
    if !node.is_object() {
        return None;
    }
    let gateway = node.parsed("gateway", parse_address);
    let interface = node.member("interface").and_then(|index| read_index(&index, interfaces));
    let Some(address) = node.member("address") else {
        node.refuse_member("address", "is missing");
        return None;
    };
    Some(IpConfig { address: address.parse(parse_prefix)?, gateway, interface })
}

fn read_index(node: &Node<'_, '_>, interfaces: usize) -> Option<usize> {
    let index = usize::try_from(node.as_number(0..=u32::MAX)?).ok()?;
    if index >= interfaces {
        node.refuse(format!("is {index}, and there are {interfaces} interfaces (counted from 0)"));
        return None;
    }
    Some(index)
}

fn read_families(node: &Node<'_, '_>, version: SpecVersion) -> AddResult {
    let mut result = AddResult { dns: Dns::read_member(node), ..AddResult::default() };
    for (key, is_ipv4) in [("ip4", true), ("ip6", false)] {
        let Some(family) = node.object(key) else { continue };
        result.routes.extend(Route::read_list(&family, version));
        let gateway = family.parsed("gateway", parse_address);
        let Some(ip) = family.member("ip") else {
            family.refuse_member("ip", "is missing");
            continue;
        };
        let Some(address) = ip.parse(parse_prefix) else { continue };
        if address.is_ipv4() != is_ipv4 {
            ip.refuse(format!("{address} is of the other family"));
            continue;
        }
        result.ips.push(IpConfig { address, gateway, interface: None });
    }
    result
}
