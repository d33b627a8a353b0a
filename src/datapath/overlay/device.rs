//! The VXLAN device itself.

use crate::datapath::error::DatapathError;
use crate::desired::names::{OVERLAY_ALIAS, OVERLAY_DEVICE, OVERLAY_GROUP};
use crate::desired::object::Place;
use crate::desired::overlay::Device;
use crate::linux::addr::Address;
use crate::linux::change::Change;
use crate::linux::error::KernelError;
use crate::linux::link::{Ipv4Conf, Link, LinkRef, LinkSettings};
use crate::linux::netlink::Netlink;
use crate::linux::sysctl;
use crate::linux::vxlan::{Tunnel, Vxlan};

/// What became of the device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Made {
    /// It stands as it must.
    #[default]
    Nothing,
    /// A setting was corrected; what hangs on it stayed.
    Corrected,
    /// It was missing.
    Created,
    /// It was another, and went with all that hung on it.
    Replaced,
}

/// Whether a link is the overlay's: by the name together with the group that it has from the first moment, since anybody
/// may use a group.
pub fn is_overlay(link: &Link) -> bool {
    link.name == OVERLAY_DEVICE && link.group == OVERLAY_GROUP && link.kind.as_deref() == Some("vxlan")
}

/// Makes the device what it must be. Returns its index.
pub(super) async fn ensure(node: &Netlink, device: &Device) -> Result<(u32, Made), DatapathError> {
    let wanted =
        Tunnel { id: device.id, port: device.port, local: Some(device.local), learning: false, remote: None };
    let mac = device.mac;
    let mut made = Made::Created;
    if let Some((link, tunnel)) = node.vxlan(OVERLAY_DEVICE).await? {
        if !is_overlay(&link) {
            let kind = link.kind.as_deref().unwrap_or("no kind");
            let found = format!("{kind}, group {}", link.group);
            return Err(DatapathError::OverlayTaken { name: OVERLAY_DEVICE, found });
        }
        if tunnel == Some(wanted) && link.mac == Some(mac) {
            let is_corrected =
                correct(node, &link, device).await? | keep_address(node, &link, device).await?;
            return Ok((link.index, if is_corrected { Made::Corrected } else { Made::Nothing }));
        }
        // What these are, a link is for ever.
        let outcome = node.submit([Change::DeleteLink(LinkRef::Index(link.index))]).await;
        DatapathError::check(Place::Node, outcome)?;
        made = Made::Replaced;
    }
    let create = Change::CreateVxlan(Vxlan {
        name: OVERLAY_DEVICE.into(),
        mac,
        mtu: device.mtu,
        group: OVERLAY_GROUP,
        tunnel: wanted,
    });
    for outcome in node.submit([create]).await {
        outcome.map_err(|refusal| explain(refusal, device))?;
    }
    let link = node.link(LinkRef::Name(OVERLAY_DEVICE.into())).await?;
    let link = link.ok_or_else(|| DatapathError::LinkVanished(OVERLAY_DEVICE.into()))?;
    correct(node, &link, device).await?;
    keep_address(node, &link, device).await?;
    Ok((link.index, made))
}

/// Gives the device its address of IPv4, and takes those away that are of other subnets; returns whether there was anything
/// to do.
async fn keep_address(node: &Netlink, link: &Link, device: &Device) -> Result<bool, DatapathError> {
    let wanted = device.address.map(|it| Address { of_link_only: true, ..Address::at_once(link.index, it) });
    let there = node.addresses(Some(link.index)).await?;
    let mut stale: Vec<Address> = there.into_iter().filter(|it| it.network.is_ipv4()).collect();
    let missing = wanted.clone().filter(|wanted| !stale.contains(wanted));
    stale.retain(|it| Some(it) != wanted.as_ref());
    let changes: Vec<Change> =
        stale.into_iter().map(Change::DeleteAddress).chain(missing.map(Change::AddAddress)).collect();
    let has_any = !changes.is_empty();
    DatapathError::check(Place::Node, node.submit(changes).await)?;
    Ok(has_any)
}

/// Corrects what can be corrected; returns whether anything had to be. Writes nothing otherwise: each write is an event
/// to whoever watches the links.
async fn correct(node: &Netlink, link: &Link, device: &Device) -> Result<bool, DatapathError> {
    let mut changes = Vec::new();
    let mut set = |settings| {
        changes.push(Change::SetLink { link: LinkRef::Index(link.index), settings });
    };
    if link.mtu != device.mtu {
        set(LinkSettings { mtu: Some(device.mtu), ..LinkSettings::default() });
    }
    if link.alias.as_deref() != Some(OVERLAY_ALIAS) {
        set(LinkSettings { alias: Some(OVERLAY_ALIAS.into()), ..LinkSettings::default() });
    }
    // Loose: what comes in by it need not be answered by it (see `desired::overlay`).
    if sysctl::read(&["net", "ipv4", "conf", OVERLAY_DEVICE, "rp_filter"]).ok().as_deref() != Some("2") {
        set(LinkSettings { ipv4_conf: vec![(Ipv4Conf::RpFilter, 2)], ..LinkSettings::default() });
    }
    let is_up = link.up;
    if !is_up {
        // Before it goes up: nobody asks whether somebody else has an address that nobody needs.
        set(LinkSettings { no_ipv6_link_local: true, ..LinkSettings::default() });
        set(LinkSettings { up: Some(true), ..LinkSettings::default() });
    }
    let has_any = !changes.is_empty();
    let outcomes = node.submit(changes).await;
    // Where the kernel has no IPv6 there is no address of it to be kept away.
    DatapathError::check(
        Place::Node,
        outcomes.into_iter().filter(|it| !it.as_ref().is_err_and(KernelError::is_unsupported_family)),
    )?;
    match sysctl::write_if_different(&["net", "ipv6", "conf", OVERLAY_DEVICE, "disable_ipv6"], "0") {
        Ok(has_written) => Ok(has_any || has_written),
        Err(error) if error.is_not_found() => Ok(has_any),
        Err(error) => Err(error.into()),
    }
}

fn explain(refusal: KernelError, device: &Device) -> DatapathError {
    let remedy = if refusal.is_exists() {
        ". Another VXLAN device has the same identifier and port; choose another identifier (--vxlan-id)"
    } else if refusal.is_unknown_kind() {
        ". The kernel has no VXLAN; load the module vxlan, or route directly (--routing direct)"
    } else if refusal.is_in_use() {
        ". Another program has the port; choose another (--vxlan-port)"
    } else if device.mtu < 68 {
        ". The uplink's MTU leaves no room for VXLAN"
    } else {
        ""
    };
    DatapathError::Overlay { refusal, remedy }
}
