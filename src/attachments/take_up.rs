//! Running pods without a record: somebody removed the store under them (`rm -rf /var/lib/cni` is a usual advice). What
//! the kernel has of them tells whose they are, so they get a record again, which holds their addresses and by which the
//! table, DEL and everything else know them.
//!
//! | of the record | from                                                                                     |
//! |---------------|------------------------------------------------------------------------------------------|
//! | key, pod      | the host link's alias, and the link's group and name, which follow from the key          |
//! | addresses     | the routes of ferrule's to single addresses by that link, and its permanent neighbours   |
//! | MAC           | those neighbours                                                                         |
//! | namespace     | that of /var/run/netns with the id which the link names for its other end                |
//! | masquerade, hostPorts | the nftables table, where it still has the link; else the conf, and none          |
//!
//! What nothing tells any more is left out: limits of bandwidth, which stay in the kernel as they are. With the pod's uid
//! its NetworkPolicies hold as before.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::path::Path;

use crate::attachments::{LOCK_DEADLINE, pod_rules};
use crate::cni::args::PodName;
use crate::cni::error::CniError;
use crate::cni::ids::{AttachmentKey, IfName, NetnsPath, NetworkName};
use crate::config::bandwidth::Bandwidth;
use crate::config::host_port::HostPort;
use crate::datapath::error::DatapathError;
use crate::datapath::nftables;
use crate::desired::names;
use crate::linux::link::{self, Link};
use crate::linux::netlink::Netlink;
use crate::linux::netns::Netns;
use crate::linux::route::{Family, RouteFilter};
use crate::mac::MacAddr;
use crate::store::{BootId, Claim, Record, RecordedNetns, Store, StoreError};

/// Where runtimes keep the namespaces of pods.
const NAMESPACES: &str = "/var/run/netns";

/// What was found.
#[derive(Debug, Default)]
pub struct TakenUp {
    /// Records of pods that had none.
    pub records: Vec<Record>,
    /// Pods that have none, and get none.
    pub left: Vec<Unrecorded>,
}

/// A pod without a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unrecorded {
    /// Its host link.
    pub link: String,
    /// `namespace/name`, else its attachment.
    pub pod: String,
    /// Why it gets no record.
    pub reason: String,
}

/// What the kernel tells of one of them.
struct Lost {
    key: AttachmentKey,
    pod: Option<PodName>,
    link: Link,
    addresses: Vec<IpAddr>,
    mac: Option<MacAddr>,
    table: Option<(bool, Vec<HostPort>)>,
}

/// Gives a record to each running pod of `network` that lacks one. `masquerade` is what the conf says now. Where every
/// link has its record, this lists links and names of records, and no more.
///
/// # Errors
/// What kernel or store refuse.
pub async fn take_up(
    node: &Netlink,
    data_dir: &Path,
    network: &NetworkName,
    boot: &BootId,
    masquerade: bool,
) -> Result<TakenUp, CniError> {
    let mut lost = find_lost(node, data_dir, network).await?;
    if lost.is_empty() {
        return Ok(TakenUp::default());
    }
    describe(node, &mut lost).await?;
    let mut namespaces = find_namespaces(node).await;
    let store = Store::open(data_dir, network)?;
    // A DEL removes the link before the record, so a link that is still there without one is no DEL's at work.
    lost.retain(|it| link::index_of(&it.link.name).is_ok_and(|index| index == Some(it.link.index)));
    let mut locked = store.lock(boot, LOCK_DEADLINE)?;
    // A record that is only listed by its addresses is one.
    locked.repair()?;
    let mut taken_up = TakenUp::default();
    for it in lost {
        let left = |reason: String| Unrecorded { link: it.link.name.clone(), pod: it.name(), reason };
        if it.addresses.is_empty() {
            taken_up
                .left
                .push(left("the node has no route and no neighbour that tells its address".to_owned()));
            continue;
        }
        let netns = it.link.peer_netns_id.and_then(|id| namespaces.remove(&id));
        match locked.adopt(it.claim(netns, masquerade), &it.addresses) {
            Ok((record, _lock)) => taken_up.records.push(record),
            Err(StoreError::AlreadyAttached { .. }) => {}
            Err(error @ StoreError::Taken { .. }) => taken_up.left.push(left(error.to_string())),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(taken_up)
}

/// The whole links of the network that belong to no record. Links first: an ADD writes its record before it makes one.
async fn find_lost(node: &Netlink, data_dir: &Path, network: &NetworkName) -> Result<Vec<Lost>, CniError> {
    let links = node.links().await.map_err(DatapathError::from)?;
    let recorded: HashSet<AttachmentKey> = match Store::open_existing(data_dir, network)? {
        Some(store) => store.keys()?.into_iter().collect(),
        None => HashSet::new(),
    };
    let group = names::link_group(network);
    let of_network =
        links.into_iter().filter(|link| link.group == group && link.kind.as_deref() == Some("veth"));
    let lost = of_network.filter_map(|link| {
        let (key, pod, uid) = names::read_alias(link.alias.as_deref()?, network)?;
        if recorded.contains(&key) || names::host_link(&key) != link.name {
            return None;
        }
        let pod = pod.and_then(|pod| {
            let (namespace, name) = pod.split_once('/')?;
            let pod = PodName {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                uid: uid.map(str::to_owned),
            };
            pod.has_plain_words().then_some(pod)
        });
        Some(Lost { key, pod, link, addresses: Vec::new(), mac: None, table: None })
    });
    Ok(lost.collect())
}

/// Reads addresses, MAC and what the table has.
async fn describe(node: &Netlink, lost: &mut [Lost]) -> Result<(), CniError> {
    let neighbours = node.all_neighbours().await.map_err(DatapathError::from)?;
    let nft = pod_rules::open()?;
    for it in lost {
        // In order, IPv4 first, each once.
        let mut addresses: BTreeMap<IpAddr, ()> = BTreeMap::new();
        for family in [Family::V4, Family::V6] {
            let (protocol, device) = (Some(names::ROUTE_PROTOCOL), Some(it.link.index));
            let filter = RouteFilter { protocol, device, ..RouteFilter::all(family) };
            for route in node.routes(filter).await.map_err(DatapathError::from)? {
                let destination = route.destination;
                if destination.prefix() == if destination.is_ipv4() { 32 } else { 128 } {
                    addresses.insert(destination.ip(), ());
                }
            }
        }
        for neighbour in
            neighbours.iter().filter(|found| found.index == it.link.index && found.is_permanent())
        {
            addresses.insert(neighbour.address, ());
            it.mac = neighbour.mac.filter(|mac| *mac != names::pod_mac(&it.key)).or(it.mac);
        }
        it.addresses = addresses.into_keys().collect();
        it.table = nftables::find_link(&nft, &it.key.network, &it.link.name).await?;
    }
    Ok(())
}

/// Namespaces of pods by the id that the node has for them. What cannot be read is not there: a record needs none.
async fn find_namespaces(node: &Netlink) -> HashMap<i32, RecordedNetns> {
    let mut found = HashMap::new();
    for entry in std::fs::read_dir(NAMESPACES).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(netns) = Netns::open(&path) else { continue };
        let Some(path) = path.to_str().and_then(|path| NetnsPath::parse(path).ok()) else { continue };
        if let Ok(Some(id)) = node.netns_id(&netns).await {
            let identity = netns.identity();
            found.insert(id, RecordedNetns { path, dev: identity.dev, ino: identity.ino });
        }
    }
    found
}

impl Lost {
    fn name(&self) -> String {
        self.pod.as_ref().map_or_else(|| self.key.to_string(), ToString::to_string)
    }

    fn claim(&self, netns: Option<RecordedNetns>, masquerade: bool) -> Claim {
        let (masquerade, host_ports) = self.table.clone().unwrap_or((masquerade, Vec::new()));
        Claim {
            key: self.key.clone(),
            netns,
            host_link: IfName::parse(&self.link.name).ok(),
            pod: self.pod.clone(),
            masquerade,
            host_ports,
            mac: self.mac,
            bandwidth: Bandwidth::default(),
            imported_from: None,
        }
    }
}
