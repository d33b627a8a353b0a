//! What an ADD answers, in the form of every version of the specification.
//!
//! Inside ferrule there is one [`AddResult`]; what a version cannot say is left out when it is written.
//!
//! | version       | form                                                                          |
//! |---------------|-------------------------------------------------------------------------------|
//! | 0.1.0, 0.2.0  | `ip4` and `ip6`: one address of each family, each with its routes             |
//! | 0.3.0 - 0.4.0 | `interfaces`, `ips` (each with its `version`, "4" or "6"), `routes`           |
//! | 1.0.0         | `ips` without `version`                                                       |
//! | 1.1.0         | `mtu`, `socketPath`, `pciID` of interfaces; `mtu`, `advmss` ... of routes     |
//!
//! Reading is for `prevResult` and for the answer of another IPAM plugin.

mod read;
mod write;

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::dns::Dns;
use super::route::Route;

/// An attachment as ADD leaves it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddResult {
    /// The interfaces. An IPAM plugin makes none.
    pub interfaces: Vec<Interface>,
    /// The addresses, in the order of the range sets.
    pub ips: Vec<IpConfig>,
    /// The routes inside the sandbox.
    pub routes: Vec<Route>,
    /// What the resolver is to use.
    pub dns: Dns,
}

/// An interface that exists after ADD.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its hardware address, in the words of the plugin that made it.
    pub mac: Option<String>,
    /// Its MTU in bytes. Since 1.1.0.
    pub mtu: Option<u32>,
    /// The netns path it is in; `None` for the host.
    pub sandbox: Option<String>,
    /// A socket to reach it by. Since 1.1.0; ferrule only passes it on.
    pub socket_path: Option<String>,
    /// The PCI device behind it. Since 1.1.0; ferrule only passes it on.
    pub pci_id: Option<String>,
}

/// An address that the sandbox has after ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpConfig {
    /// The address with its prefix length.
    pub address: IpNetwork,
    /// The default gateway of its subnet.
    pub gateway: Option<IpAddr>,
    /// Index into [`AddResult::interfaces`], never past its end in a result that was read.
    pub interface: Option<usize>,
}

#[cfg(test)]
mod tests;
