//! Writes a result. Each struct is the wire form of something; optional fields that a version does not
//! have are `None` before they get here.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::Serialize;

use super::{AddResult, Interface, IpConfig};
use crate::cni::dns::Dns;
use crate::cni::route::{Route, serialize_prefix};
use crate::cni::version::SpecVersion;

/// 0.3.0 and later.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Lists<'a> {
    cni_version: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    interfaces: Vec<InterfaceForm<'a>>,
    ips: Vec<IpForm>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    routes: Vec<Route>,
    #[serde(skip_serializing_if = "Dns::is_empty")]
    dns: &'a Dns,
}

#[derive(Serialize)]
struct InterfaceForm<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    mac: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sandbox: Option<&'a str>,
    #[serde(rename = "socketPath", skip_serializing_if = "Option::is_none")]
    socket_path: Option<&'a str>,
    #[serde(rename = "pciID", skip_serializing_if = "Option::is_none")]
    pci_id: Option<&'a str>,
}

#[derive(Serialize)]
struct IpForm {
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interface: Option<usize>,
    #[serde(serialize_with = "serialize_prefix")]
    address: IpNetwork,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<IpAddr>,
}

/// 0.1.0 and 0.2.0.
#[derive(Serialize)]
struct Families<'a> {
    #[serde(rename = "cniVersion")]
    cni_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip4: Option<Family>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip6: Option<Family>,
    #[serde(skip_serializing_if = "Dns::is_empty")]
    dns: &'a Dns,
}

#[derive(Serialize)]
struct Family {
    #[serde(serialize_with = "serialize_prefix")]
    ip: IpNetwork,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<IpAddr>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    routes: Vec<Route>,
}

impl AddResult {
    /// The document for stdout in the form of `version`, with a final newline.
    pub fn to_json(&self, version: SpecVersion) -> String {
        // Structs of texts, numbers and addresses: serialising them cannot fail.
        let json = if version < SpecVersion::V0_3_0 {
            serde_json::to_string_pretty(&self.as_families(version))
        } else {
            serde_json::to_string_pretty(&self.as_lists(version))
        };
        json.map(|json| json + "\n").unwrap_or_default()
    }

    fn as_lists(&self, version: SpecVersion) -> Lists<'_> {
        Lists {
            cni_version: version.as_str(),
            interfaces: self.interfaces.iter().map(|interface| interface.as_of(version)).collect(),
            ips: self.ips.iter().map(|ip| ip.as_of(version)).collect(),
            routes: self.routes.iter().map(|route| route.as_of(version)).collect(),
            dns: &self.dns,
        }
    }

    fn as_families(&self, version: SpecVersion) -> Families<'_> {
        Families {
            cni_version: version.as_str(),
            ip4: self.family(version, |address| address.is_ipv4()),
            ip6: self.family(version, |address| address.is_ipv6()),
            dns: &self.dns,
        }
    }

    /// The first address of a family, with all of that family's routes.
    fn family(&self, version: SpecVersion, belongs: impl Fn(&IpNetwork) -> bool) -> Option<Family> {
        let ip = self.ips.iter().find(|ip| belongs(&ip.address))?;
        let routes = self.routes.iter().filter(|route| belongs(&route.dst));
        Some(Family {
            ip: ip.address,
            gateway: ip.gateway,
            routes: routes.map(|route| route.as_of(version)).collect(),
        })
    }
}

impl Interface {
    fn as_of(&self, version: SpecVersion) -> InterfaceForm<'_> {
        let is_new = version >= SpecVersion::V1_1_0;
        InterfaceForm {
            name: &self.name,
            mac: self.mac.as_deref(),
            mtu: self.mtu.filter(|_| is_new),
            sandbox: self.sandbox.as_deref(),
            socket_path: self.socket_path.as_deref().filter(|_| is_new),
            pci_id: self.pci_id.as_deref().filter(|_| is_new),
        }
    }
}

impl IpConfig {
    fn as_of(&self, version: SpecVersion) -> IpForm {
        let family = if self.address.is_ipv4() { "4" } else { "6" };
        IpForm {
            version: (version < SpecVersion::V1_0_0).then_some(family),
            interface: self.interface,
            address: self.address,
            gateway: self.gateway,
        }
    }
}
