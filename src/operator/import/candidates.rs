//! Which pods are to be taken over: what host-local's directory says, what the runtime remembers, what the kernel has.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::results::{Cached, HostPort};
use crate::cni::args::PodName;
use crate::cni::error::CniError;
use crate::cni::ids::{AttachmentKey, ContainerId, IfName, NetworkName};
use crate::config::range::RangeSet;
use crate::ipam::{Claim, Oddity, RecordedNetns, Reservation};
use crate::kernel::link::LinkRef;
use crate::kernel::netlink::Netlink;
use crate::kernel::netns::{Netns, NetnsError, NetnsIdentity};
use crate::operator::node::Node;

/// The interface of a pod by every runtime of Kubernetes; where nobody wrote it down.
const USUAL_IFNAME: &str = "eth0";

/// A pod that may be running.
#[derive(Debug)]
pub struct Candidate {
    /// Who it is to be.
    pub key: AttachmentKey,
    /// Its addresses, in the order of the network's range sets, then those that are in none.
    pub addresses: Vec<IpAddr>,
    /// Whether it runs.
    pub evidence: Evidence,
    /// The pod, where the runtime told it.
    pub pod: Option<PodName>,
    /// The node's end of its pair, where that is known and there.
    pub host_link: Option<IfName>,
    /// The ports of the node that lead to it.
    pub host_ports: Vec<HostPort>,
    /// What a person should know of it.
    pub notes: Vec<String>,
}

/// What tells whether a pod runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evidence {
    /// Its namespace is there.
    Stands(RecordedNetns),
    /// Its namespace is certainly gone.
    Gone,
    /// Nobody says where its namespace is, or it cannot be looked at.
    Unknown,
}

/// What is known of one attachment before it is looked at.
#[derive(Debug, Default)]
struct Gathered<'a> {
    addresses: Vec<IpAddr>,
    cached: Option<&'a Cached>,
    notes: Vec<String>,
}

/// Puts together who holds what. What of `odd` belongs to a pod after all, by the runtime's results, is moved to it.
///
/// # Errors
/// Where the kernel cannot be asked.
pub async fn find(
    node: &Node,
    network: &NetworkName,
    sets: &[RangeSet],
    held: &[Reservation],
    odd: &mut Vec<Oddity>,
    cached: &[Cached],
) -> Result<Vec<Candidate>, CniError> {
    let mut gathered: BTreeMap<(ContainerId, IfName), Gathered<'_>> = BTreeMap::new();
    for it in cached {
        let key = (it.container.clone(), it.ifname.clone());
        gathered.entry(key).or_default().cached = Some(it);
    }
    for reservation in held {
        let Some((ifname, note)) = name_interface(reservation, cached) else { continue };
        let it = gathered.entry((reservation.container.clone(), ifname)).or_default();
        it.addresses.push(reservation.address);
        it.notes.extend(note.filter(|note| !it.notes.contains(note)));
    }
    let mut candidates = Vec::new();
    for ((container, ifname), mut it) in gathered {
        let key = AttachmentKey { network: network.clone(), container, ifname };
        let evidence = look_for_namespace(it.cached)?;
        let found = match &evidence {
            Evidence::Stands(netns) => addresses_in(netns, &key.ifname).await,
            _ => None,
        };
        it.complete(found.as_deref(), odd);
        // What nobody holds for it and it does not have, is none of its.
        if it.addresses.is_empty() {
            continue;
        }
        candidates.push(it.into_candidate(node, key, evidence, sets));
    }
    candidates.sort_by(|one, other| one.addresses.cmp(&other.addresses));
    Ok(candidates)
}

impl Gathered<'_> {
    /// Adds the addresses that host-local's directory has lost and the pod still uses, as `found` shows.
    fn complete(&mut self, found: Option<&[IpAddr]>, odd: &mut Vec<Oddity>) {
        let has = |address: &IpAddr| found.is_some_and(|found| found.contains(address));
        if let Some(cached) = self.cached {
            for address in cached.addresses.iter().filter(|address| has(address)) {
                if self.addresses.contains(address) {
                    continue;
                }
                self.addresses.push(*address);
                self.notes.push(format!(
                    "{address} is not in host-local's directory; by the runtime's results, and in its namespace, it is \
                     this pod's"
                ));
                odd.retain(|it| it.address != Some(*address));
            }
        }
        if found.is_some() && !self.addresses.iter().any(has) {
            self.notes.push(
                "none of its addresses is in its namespace: it is being added or removed, or changed by hand"
                    .to_owned(),
            );
        }
    }

    fn into_candidate(
        self,
        node: &Node,
        key: AttachmentKey,
        evidence: Evidence,
        sets: &[RangeSet],
    ) -> Candidate {
        let Self { mut addresses, cached, mut notes, .. } = self;
        let place = |address: &IpAddr| sets.iter().position(|set| set.hands_out(*address));
        addresses.sort_by_key(|address| (place(address).unwrap_or(usize::MAX), *address));
        addresses.dedup();
        for address in addresses.iter().filter(|address| place(address).is_none()) {
            notes.push(format!(
                "{address} is none that this network gives to pods; it is held all the same, and routed as the old \
                 plugin left it"
            ));
        }
        if evidence == Evidence::Unknown {
            notes.push(format!(
                "nobody says where its namespace is, so it counts as running until its DEL, GC or a reboot; if the \
                 runtime does not know {} (crictl pods): remove its record from by-id, then ferrule reclaim",
                key.container
            ));
        }
        let is_veth = |name: &&String| {
            node.links.iter().any(|link| link.name == **name && link.kind.as_deref() == Some("veth"))
        };
        let host_link = cached.and_then(|it| it.node_links.iter().find(is_veth));
        Candidate {
            key,
            addresses,
            evidence,
            pod: cached.and_then(|it| it.pod.clone()),
            host_link: host_link.and_then(|name| IfName::parse(name).ok()),
            host_ports: cached.map(|it| it.host_ports.clone()).unwrap_or_default(),
            notes,
        }
    }
}

impl Candidate {
    /// What the store is to remember.
    pub fn claim(&self, from: &str) -> Claim {
        let netns = match &self.evidence {
            Evidence::Stands(netns) => Some(netns.clone()),
            _ => None,
        };
        Claim {
            key: self.key.clone(),
            netns,
            host_link: self.host_link.clone(),
            pod: self.pod.clone(),
            imported_from: Some(from.to_owned()),
        }
    }
}

/// The interface that an address belongs to, and what to say where that is a guess.
fn name_interface(reservation: &Reservation, cached: &[Cached]) -> Option<(IfName, Option<String>)> {
    if let Some(ifname) = &reservation.ifname {
        return Some((ifname.clone(), None));
    }
    let mut known = cached.iter().filter(|it| it.container == reservation.container);
    match (known.next(), known.next()) {
        (Some(one), None) => Some((one.ifname.clone(), None)),
        _ => {
            let note =
                format!("host-local did not write down its interface; it is taken to be {USUAL_IFNAME}");
            Some((IfName::parse(USUAL_IFNAME).ok()?, Some(note)))
        }
    }
}

/// Whether the namespace that the runtime remembers is there.
fn look_for_namespace(cached: Option<&Cached>) -> Result<Evidence, CniError> {
    let Some(path) = cached.and_then(|it| it.netns.as_ref()) else { return Ok(Evidence::Unknown) };
    match Netns::open(path.as_path()) {
        // The node's own: no pod's, whoever wrote that.
        Ok(netns) if netns.identity() == NetnsIdentity::current()? => Ok(Evidence::Unknown),
        Ok(netns) => {
            let NetnsIdentity { dev, ino } = netns.identity();
            Ok(Evidence::Stands(RecordedNetns { path: path.clone(), dev, ino }))
        }
        Err(NetnsError::NotFound { .. } | NetnsError::NotNetns { .. }) => Ok(Evidence::Gone),
        Err(_) => Ok(Evidence::Unknown),
    }
}

/// The addresses of the pod's interface; `None` if the namespace cannot be looked into.
async fn addresses_in(netns: &RecordedNetns, ifname: &IfName) -> Option<Vec<IpAddr>> {
    let sandbox = Netns::open(netns.path.as_path()).ok()?;
    let inside = Netlink::open_in(&sandbox).ok()?;
    let Some(link) = inside.link(LinkRef::Name(ifname.to_string())).await.ok()? else {
        return Some(Vec::new());
    };
    let addresses = inside.addresses(Some(link.index)).await.ok()?;
    Some(addresses.iter().map(|address| address.network.ip()).collect())
}
