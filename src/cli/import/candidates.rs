//! Which pods are to be taken over: what host-local's directory says, what the runtime remembers, what the kernel has.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::attachments::node_view::NodeView;
use crate::cli::import::results::{Cached, HostPort};
use crate::cni::args::PodName;
use crate::cni::error::CniError;
use crate::cni::ids::{AttachmentKey, ContainerId, IfName, NetnsPath, NetworkName};
use crate::config::bandwidth::Bandwidth;
use crate::config::range::RangeSet;
use crate::linux::link::LinkRef;
use crate::linux::netlink::Netlink;
use crate::linux::netns::{Netns, NetnsError, NetnsIdentity};
use crate::store::{Claim, RecordedNetns, Reservation, Skipped};

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
    /// Its namespace is there, and has an address of its.
    Stands(RecordedNetns),
    /// Its namespace is not at its path, or not where this process looks; but the node's end of its pair is there.
    LinkStands(NetnsPath),
    /// Its namespace is gone, and its link.
    Gone,
    /// Nobody says where its namespace is, or what is there is not certainly its.
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
    node: &NodeView,
    network: &NetworkName,
    sets: &[RangeSet],
    held: &[Reservation],
    odd: &mut Vec<Skipped>,
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
        let evidence = look_for_namespace(node, it.cached)?;
        let evidence = it.complete(evidence, &key.ifname, odd).await;
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
    /// Adds the addresses that host-local's directory has lost and the pod still uses, and says what the evidence is
    /// worth: a namespace without any of the addresses may be another pod's by now, as paths below /proc are.
    async fn complete(&mut self, evidence: Evidence, ifname: &IfName, odd: &mut Vec<Skipped>) -> Evidence {
        let remembered = self.cached.map(|it| it.addresses.as_slice()).unwrap_or_default();
        let found = match &evidence {
            Evidence::Stands(netns) => addresses_in(netns, ifname).await,
            Evidence::LinkStands(_) => Some(remembered.to_vec()),
            Evidence::Gone | Evidence::Unknown => return evidence,
        };
        let has = |address: &IpAddr| found.as_ref().is_some_and(|found| found.contains(address));
        for address in remembered.iter().filter(|address| has(address)) {
            if !self.addresses.contains(address) {
                self.addresses.push(*address);
                self.notes.push(format!(
                    "{address} is not in host-local's directory; the runtime remembers it as this pod's, and the pod has it"
                ));
                odd.retain(|it| it.address != Some(*address));
            }
        }
        if self.addresses.iter().any(has) || matches!(evidence, Evidence::LinkStands(_)) {
            return evidence;
        }
        self.notes.push(
            "the namespace that the runtime remembers has none of its addresses; it may be another pod's by now"
                .to_owned(),
        );
        Evidence::Unknown
    }

    fn into_candidate(
        self,
        node: &NodeView,
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
                "{address} is outside of this network's ranges; it is reserved all the same, and its routes stay as the \
                 old plugin made them"
            ));
        }
        if evidence == Evidence::Unknown {
            notes.push(format!(
                "its namespace is not known, so it counts as running until its DEL, GC or a reboot; if the runtime \
                 does not know {0} (crictl pods): remove all names of its record, in the network's directory below \
                 dataDir: find . -samefile by-id/{0}@{1} -delete",
                key.container, key.ifname
            ));
        }
        let host_link = cached.and_then(|it| find_host_link(node, it));
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
            // No namespace has such an identity: it counts as gone from its path, and the link decides.
            Evidence::LinkStands(path) => Some(RecordedNetns { path: path.clone(), dev: 0, ino: 0 }),
            Evidence::Gone | Evidence::Unknown => None,
        };
        Claim {
            key: self.key.clone(),
            netns,
            host_link: self.host_link.clone(),
            pod: self.pod.clone(),
            // Both are, and stay, the old plugin's.
            imported_from: Some(from.to_owned()),
            // Whatever the old plugin made of the kind is its own, and goes on working.
            masquerade: false,
            host_ports: Vec::new(),
            mac: None,
            bandwidth: Bandwidth::default(),
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

/// The node's end of the pod's pair, if it is there.
fn find_host_link<'a>(node: &NodeView, cached: &'a Cached) -> Option<&'a String> {
    cached.node_links.iter().find(|name| {
        node.links.iter().any(|link| link.name == **name && link.kind.as_deref() == Some("veth"))
    })
}

/// Whether the namespace that the runtime remembers is there.
fn look_for_namespace(node: &NodeView, cached: Option<&Cached>) -> Result<Evidence, CniError> {
    let Some(cached) = cached else { return Ok(Evidence::Unknown) };
    let Some(path) = &cached.netns else { return Ok(Evidence::Unknown) };
    match Netns::open(path.as_path()) {
        // The node's own: no pod's, whoever wrote that.
        Ok(netns) if netns.identity() == NetnsIdentity::current()? => Ok(Evidence::Unknown),
        Ok(netns) => {
            let NetnsIdentity { dev, ino } = netns.identity();
            Ok(Evidence::Stands(RecordedNetns { path: path.clone(), dev, ino }))
        }
        // In a container that does not see the node's /run every path is gone.
        Err(NetnsError::NotFound { .. } | NetnsError::NotNetns { .. }) => {
            let has_link = find_host_link(node, cached).is_some();
            Ok(if has_link { Evidence::LinkStands(path.clone()) } else { Evidence::Gone })
        }
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
