//! What a record says against the kernel. For CHECK, and for `ferrulectl doctor`, which asks it of every pod.

use std::net::IpAddr;

use crate::attachments::allocation::{AllocatedAddress, Allocation, locate, usable_sets};
use crate::attachments::node::{self, NodeFacts};
use crate::attachments::{describe, pod_rules};
use crate::cni::error::CniError;
use crate::cni::ids::{AttachmentKey, NetnsPath};
use crate::cni::result::AddResult;
use crate::config::{AddressManagement, Network};
use crate::datapath::compare::{Sandbox, differences};
use crate::datapath::node::find_uplink;
use crate::datapath::observe;
use crate::desired::node::NodeState;
use crate::desired::object::{Object, Place};
use crate::linux::link::{Link, LinkRef};
use crate::linux::netlink::Netlink;
use crate::linux::netns::Netns;
use crate::mac::MacAddr;
use crate::store::Record;

/// The record's addresses against those that the runtime was told, both ways. Addresses of other plugins of a
/// chain may stand in prevResult as well; those are none of ours.
pub fn compare_addresses(record: &Record, previous: &AddResult) -> Vec<String> {
    let told = |address: &&IpAddr| !previous.ips.iter().any(|ip| ip.address.ip() == **address);
    let missing = record.addresses.iter().filter(told);
    missing.map(|address| format!("prevResult lacks {address}, which the store holds for it")).collect()
}

/// CHECK's comparison of an attachment that ferrule made with the kernel: what is wrong or missing, in the node's
/// namespace and in the pod's, and in the nftables table. `previous` is the result that the runtime was told.
///
/// # Errors
/// Where the kernel cannot be asked.
pub async fn compare_kernel(
    facts: &NodeFacts,
    network: &Network,
    record: &Record,
    netns: &NetnsPath,
    previous: &AddResult,
) -> Result<Vec<String>, CniError> {
    let netlink = node::open()?;
    let key = record.key();
    let allocation = recall(facts, network, record, previous)?;
    let uplink = find_uplink(&netlink, &NodeState::of(network, facts.has_ipv6), network.mtu).await?;
    let described = describe::describe(network, &key, record.pod.as_ref(), facts, &uplink, &allocation);
    let mut objects = described.objects();
    if let Some(mac) = told_mac(previous, &key) {
        set_pod_mac(&mut objects, mac);
    }
    let mut found = compare_objects(&netlink, &objects, record, netns, true).await?;
    found.extend(pod_rules::differences(network, &uplink, std::slice::from_ref(record)).await?);
    Ok(found)
}

/// The hardware address of the pod's interface in the result of the whole chain. A plugin behind ferrule (tuning) may
/// have set another than ADD did, and says so there.
fn told_mac(previous: &AddResult, key: &AttachmentKey) -> Option<MacAddr> {
    let mut interfaces = previous.interfaces.iter();
    let ours = interfaces.find(|it| it.sandbox.is_some() && it.name == key.ifname.as_str())?;
    MacAddr::parse(ours.mac.as_deref()?)
}

/// The objects of a pod whose interface got another hardware address after ADD: the node must reach it there. Its
/// link-local address is still that of the first one.
fn set_pod_mac(objects: &mut [Object], mac: MacAddr) {
    for object in objects {
        match object {
            Object::Pair(pair) => pair.pod.mac = mac,
            Object::Neighbour(it) if it.place == Place::Node => it.mac = mac,
            _ => {}
        }
    }
}

/// CHECK's comparison for an attachment of which only the record is known: what is wrong or missing, in the node's
/// namespace and in the pod's; but for the nftables table
/// ([`pod_rules::differences`]). `node` speaks for the node, `host_link` is its host link.
///
/// What only the runtime knows of the ADD cannot be compared, and is taken as it is found: the pod's hardware address,
/// which it may have asked for, and the sysctls asked for, of which the pod may have chosen some. The MTU, which was the
/// uplink's of that day, must fit at both ends. Without `can_enter` only the node's side is compared.
///
/// # Errors
/// Where the kernel cannot be asked.
pub async fn compare_recorded(
    node: &Netlink,
    facts: &NodeFacts,
    network: &Network,
    record: &Record,
    host_link: &Link,
    can_enter: bool,
) -> Result<Vec<String>, CniError> {
    let Some(netns) = record.netns.as_ref().map(|netns| &netns.path) else { return Ok(Vec::new()) };
    let mut network = network.clone();
    network.mtu = Some(host_link.mtu);
    network.host_ports.clone_from(&record.host_ports);
    network.bandwidth = record.bandwidth;
    network.sysctls.clear();
    if can_enter
        && let Ok(sandbox) = Netns::open(netns.as_path())
        && let Ok(sandbox) = Netlink::open_in(&sandbox)
        && let Some(link) = sandbox.link(LinkRef::Name(record.ifname.to_string())).await?
    {
        network.mac = link.mac.map(|mac| MacAddr(mac.0));
    }
    let allocation = recall(facts, &network, record, &AddResult::default())?;
    let uplink = find_uplink(node, &NodeState::of(&network, facts.has_ipv6), network.mtu).await?;
    let pod = record.pod.as_ref();
    let described = describe::describe(&network, &record.key(), pod, facts, &uplink, &allocation);
    let mut objects = described.objects();
    // The node's neighbour entry is all that can be seen of it from here.
    if !can_enter
        && let Some(mac) = node
            .neighbours(host_link.index)
            .await?
            .iter()
            .filter(|it| it.is_permanent())
            .find_map(|it| it.mac)
    {
        set_pod_mac(&mut objects, mac);
    }
    compare_objects(node, &objects, record, netns, can_enter).await
}

async fn compare_objects(
    netlink: &Netlink,
    objects: &[Object],
    record: &Record,
    netns: &NetnsPath,
    can_enter: bool,
) -> Result<Vec<String>, CniError> {
    let mut found = Vec::new();
    let seen;
    let sandbox = match Netns::open(netns.as_path()) {
        Ok(sandbox) => {
            let is_recorded = record
                .netns
                .as_ref()
                .is_none_or(|it| (it.dev, it.ino) == (sandbox.identity().dev, sandbox.identity().ino));
            if !is_recorded {
                found.push(format!("{netns} is another namespace than the one that ADD was given"));
            }
            if can_enter {
                seen = observe::observe_sandbox(&sandbox, objects).await?;
                Sandbox::Seen(&seen)
            } else {
                Sandbox::Unseen
            }
        }
        // A path below another process's /proc is none in a container.
        Err(_) if !can_enter => Sandbox::Unseen,
        Err(error) => {
            found.push(error.to_string());
            Sandbox::Gone
        }
    };
    let on_node = observe::observe(netlink, objects).await?;
    found.extend(differences(objects, &on_node, sandbox).iter().map(ToString::to_string));
    Ok(found)
}

/// What the attachment was given, from the record and the conf; where another plugin chose, from what the
/// runtime was told.
fn recall(
    facts: &NodeFacts,
    network: &Network,
    record: &Record,
    previous: &AddResult,
) -> Result<Allocation, CniError> {
    let addresses = record.addresses.iter();
    let (addresses, routes) = match &network.address_management {
        AddressManagement::Ranges(sets) => {
            let sets = usable_sets(sets, facts.has_ipv6)?;
            let located = addresses.map(|&address| locate(address, &sets)).collect();
            (located, network.with_pod_routes(&network.routes))
        }
        AddressManagement::Delegate(_) => {
            let told = |address| previous.ips.iter().find(|ip| ip.address.ip() == address);
            let located = addresses.map(|&address| AllocatedAddress {
                named_gateway: told(address).and_then(|ip| ip.gateway),
                ..locate(address, &[])
            });
            (located.collect(), previous.routes.clone())
        }
    };
    Ok(Allocation { addresses, routes, ..Allocation::default() })
}
