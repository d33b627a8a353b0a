//! CHECK: record, prevResult and kernel must agree. Every difference is named, not only the first.

use crate::attachments::claim::{Allocation, locate, usable_sets};
use crate::attachments::delegate::Delegate;
use crate::attachments::{describe, liveness, pod_rules};
use crate::cni::env::Command;
use crate::cni::error::{CniError, Code};
use crate::cni::ids::{AttachmentKey, NetnsPath};
use crate::cni::request::Request;
use crate::cni::result::AddResult;
use crate::config::{AddressManagement, Network, Role};
use crate::datapath::compare::differences;
use crate::datapath::error::DatapathError;
use crate::datapath::{node, observe};
use crate::desired::object::{Object, Place};
use crate::linux::link::LinkRef;
use crate::linux::netlink::Netlink;
use crate::linux::netns::Netns;
use crate::mac::MacAddr;
use crate::store::{Record, Store};

/// Compares what is with what must be. Changes nothing.
///
/// # Errors
/// Code 105 with all differences; code 7 without a prevResult (SPEC: the runtime must give it).
pub async fn check(request: &Request) -> Result<(), CniError> {
    let network = Network::read(&request.conf, &request.environment)?;
    let key = request.environment.attachment(network.name.clone())?;
    let Some(previous) = &network.prev_result else {
        let message = "CHECK without prevResult: the runtime must pass the result of ADD";
        return Err(CniError::new(Code::InvalidConf, message));
    };
    let mut found = Vec::new();
    let record = match Store::open_existing(&network.data_dir, &network.name)? {
        Some(store) => store.find(&key)?,
        None => None,
    };
    match &record {
        Some(record) => found.extend(compare_addresses(record, previous)),
        None => found.push(format!("the store has no record of {key}")),
    }
    if let AddressManagement::Delegate(plugin) = &network.address_management {
        let delegate = Delegate::find(plugin, &request.environment.path)?;
        delegate.execute(Command::Check, &request.conf, crate::attachments::DELEGATE_DEADLINE).await?;
    }
    if let (Role::Main, Some(record)) = (network.role, &record) {
        // What another plugin made is not what we describe. That the addresses agree is all that can be asked.
        if record.imported_from.is_some() {
            if liveness::is_namespace_gone(record) {
                found.push("its namespace is not the one that was imported".to_owned());
            }
            return answer(&key, &found);
        }
        found.extend(compare_kernel(request, &network, &key, record, previous).await?);
    }
    answer(&key, &found)
}

fn answer(key: &AttachmentKey, found: &[String]) -> Result<(), CniError> {
    if found.is_empty() {
        return Ok(());
    }
    let message = format!("{key} is not as ADD left it: {} difference(s)", found.len());
    Err(CniError::new(Code::DifferencesFound, message).with_details(found.join("; ")))
}

/// The record's addresses against those that the runtime was told, both ways. Addresses of other plugins of a
/// chain may stand in prevResult as well; those are none of ours.
fn compare_addresses(record: &Record, previous: &AddResult) -> Vec<String> {
    let told = |address: &&std::net::IpAddr| !previous.ips.iter().any(|ip| ip.address.ip() == **address);
    let missing = record.addresses.iter().filter(told);
    missing.map(|address| format!("prevResult lacks {address}, which the store holds for it")).collect()
}

async fn compare_kernel(
    request: &Request,
    network: &Network,
    key: &AttachmentKey,
    record: &Record,
    previous: &AddResult,
) -> Result<Vec<String>, CniError> {
    let socket = Netlink::open_here();
    let netlink = socket.map_err(|source| DatapathError::Socket { place: "node", source })?;
    let acquired = recall(network, record, previous)?;
    let uplink = node::find_uplink(&netlink, &describe::describe_node(network, &acquired)).await?;
    let described = describe::describe(network, key, record.pod.as_ref(), &uplink, &acquired);
    let mut objects = described.objects();
    if let Some(mac) = told_mac(previous, key) {
        set_pod_mac(&mut objects, mac);
    }
    let mut found =
        compare_objects(&netlink, &objects, record, request.environment.required_netns()?).await?;
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
/// namespace and in the pod's; but for the nftables table ([`pod_rules::differences`]). `node` speaks for the node, `mtu` is that of the host link.
///
/// What only the runtime knows of the ADD cannot be compared, and is taken as it is found: the pod's hardware address,
/// which it may have asked for, and the sysctls asked for, of which the pod may have chosen some. The MTU, which was the
/// uplink's of that day, must fit at both ends.
///
/// # Errors
/// Where the kernel cannot be asked.
pub async fn compare_recorded(
    node: &Netlink,
    network: &Network,
    record: &Record,
    mtu: u32,
) -> Result<Vec<String>, CniError> {
    let Some(netns) = record.netns.as_ref().map(|netns| &netns.path) else { return Ok(Vec::new()) };
    let mut network = network.clone();
    network.mtu = Some(mtu);
    network.host_ports.clone_from(&record.host_ports);
    network.sysctls.clear();
    if let Ok(sandbox) = Netns::open(netns.as_path())
        && let Ok(sandbox) = Netlink::open_in(&sandbox)
        && let Some(link) = sandbox.link(LinkRef::Name(record.ifname.to_string())).await?
    {
        network.mac = link.mac.map(|mac| MacAddr(mac.0));
    }
    let acquired = recall(&network, record, &AddResult::default())?;
    let uplink = node::find_uplink(node, &describe::describe_node(&network, &acquired)).await?;
    let described = describe::describe(&network, &record.key(), record.pod.as_ref(), &uplink, &acquired);
    compare_objects(node, &described.objects(), record, netns).await
}

async fn compare_objects(
    netlink: &Netlink,
    objects: &[Object],
    record: &Record,
    netns: &NetnsPath,
) -> Result<Vec<String>, CniError> {
    let mut found = Vec::new();
    let sandbox = match Netns::open(netns.as_path()) {
        Ok(sandbox) => {
            let is_recorded = record
                .netns
                .as_ref()
                .is_none_or(|it| (it.dev, it.ino) == (sandbox.identity().dev, sandbox.identity().ino));
            if !is_recorded {
                found.push(format!("{netns} is another namespace than the one that ADD was given"));
            }
            Some(observe::observe_sandbox(&sandbox, objects).await?)
        }
        Err(error) => {
            found.push(error.to_string());
            None
        }
    };
    let on_node = observe::observe(netlink, objects).await?;
    found.extend(differences(objects, &on_node, sandbox.as_ref()).iter().map(ToString::to_string));
    Ok(found)
}

/// What the attachment was given, from the record and the conf; where another plugin chose, from what the
/// runtime was told.
fn recall(network: &Network, record: &Record, previous: &AddResult) -> Result<Allocation, CniError> {
    let sets = match &network.address_management {
        AddressManagement::Ranges(sets) => usable_sets(sets)?,
        AddressManagement::Delegate(_) => {
            let addresses =
                record.addresses.iter().map(|&address| crate::attachments::claim::AllocatedAddress {
                    named_gateway: previous
                        .ips
                        .iter()
                        .find(|ip| ip.address.ip() == address)
                        .and_then(|ip| ip.gateway),
                    ..locate(address, &[])
                });
            return Ok(Allocation {
                addresses: addresses.collect(),
                routes: previous.routes.clone(),
                ..Allocation::default()
            });
        }
    };
    let addresses = record.addresses.iter().map(|&address| locate(address, &sets)).collect();
    let routes = network.with_pod_routes(&network.routes);
    Ok(Allocation { addresses, routes, ..Allocation::default() })
}
