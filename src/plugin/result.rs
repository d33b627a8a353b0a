//! What goes to stdout: ADD's result, in one write.

use std::io::Write;

use crate::attachments::allocation::Allocation;
use crate::cni::dns::Dns;
use crate::cni::error::{CniError, Code};
use crate::cni::ids::NetnsPath;
use crate::cni::result::{AddResult, Interface, IpConfig};
use crate::config::Network;
use crate::desired::attachment::Attachment;

/// Writes one document. A reader that went away is an error like any other: it means that the runtime will
/// never know of the attachment, which must then be taken back.
///
/// # Errors
/// Code 5.
pub fn write(stdout: &mut dyn Write, document: &str) -> Result<(), CniError> {
    stdout.write_all(document.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| {
        CniError::new(Code::Io, "cannot write the answer to stdout").with_details(error.to_string())
    })
}

/// The result of the main plugin: both ends of the pair, and the addresses as they stand on the pod's.
///
/// What an earlier plugin of a chain made (`prevResult`) is kept with its place, which addresses refer to; ours comes
/// behind it.
pub fn main_result(
    network: &Network,
    netns: &NetnsPath,
    attachment: &Attachment,
    acquired: &Allocation,
) -> AddResult {
    let mut result = network.prev_result.clone().unwrap_or_default();
    result.interfaces.push(Interface {
        name: attachment.host_link(),
        mac: Some(attachment.host_mac().to_string()),
        mtu: Some(attachment.mtu),
        ..Interface::default()
    });
    let pod_end = result.interfaces.len();
    result.interfaces.push(Interface {
        name: attachment.key.ifname.to_string(),
        mac: Some(attachment.pod_mac.to_string()),
        mtu: Some(attachment.mtu),
        sandbox: Some(netns.to_string()),
        ..Interface::default()
    });
    result.ips.extend(attachment.addresses.iter().map(|address| IpConfig {
        address: address.host_prefix(),
        gateway: Some(address.gateway()),
        interface: Some(pod_end),
    }));
    result.routes.extend(acquired.routes.iter().cloned());
    result.dns = choose_dns(&network.dns, &acquired.dns).followed_by(result.dns);
    result
}

/// The result of an IPAM plugin: addresses with their subnet's prefix, and no interfaces.
pub fn ipam_result(network: &Network, acquired: &Allocation) -> AddResult {
    let ips = acquired.addresses.iter().map(|it| IpConfig {
        address: it.with_subnet_prefix(),
        gateway: it.gateway,
        interface: None,
    });
    AddResult {
        ips: ips.collect(),
        routes: acquired.routes.clone(),
        dns: choose_dns(&network.dns, &acquired.dns),
        ..AddResult::default()
    }
}

/// The conf's own `dns` comes before what address management found (`resolvConf`, a delegate), as with the reference
/// plugins (ptp, host-local).
fn choose_dns(conf: &Dns, acquired: &Dns) -> Dns {
    [conf, acquired].into_iter().find(|dns| !dns.is_empty()).cloned().unwrap_or_default()
}
