//! What records say that the nftables table must hold, and the table made so.
//!
//! | command  | does                                                                                              |
//! |----------|---------------------------------------------------------------------------------------------------|
//! | ADD      | [`Installation::install`]: the table, where it is not there; then the pod's elements              |
//! | teardown | [`expire_elements`]: what the records say expires, while the links go; then [`remove_leftover_elements`] |
//! | GC       | [`sweep`]: removes what no record asks for                                                        |
//! | CHECK    | [`differences`]                                                                                   |
//!
//! Every element follows from a record, or from the list of networks without masquerade that the store keeps. So whoever
//! finds that somebody has flushed the table makes it again for all pods of all networks of the data directory, their
//! hostPorts too.

use std::path::Path;

use ipnetwork::IpNetwork;

use crate::attachments::pod_policy::{self, PodPolicy};
use crate::attachments::{LOCK_DEADLINE, liveness};
use crate::cni::error::CniError;
use crate::cni::ids::NetworkName;
use crate::config::Network;
use crate::config::peer::Peers;
use crate::datapath::error::DatapathError;
use crate::datapath::nftables;
use crate::datapath::nftables::{Attempts, Clash, NftError, Wanted};
use crate::datapath::node::Uplink;
use crate::datapath::node_addresses::find_node_addresses;
use crate::datapath::policy;
use crate::desired::nftables::element::{Element, NoMasquerade, PodRules};
use crate::desired::nftables::node_addresses::NodeAddresses;
use crate::linux::link;
use crate::linux::netlink::Netlink;
use crate::linux::nfnetlink::Nfnetlink;
use crate::linux::nft::change::Rejection;
use crate::store::{BootId, Record, Store, StoreError};

/// What lets a pod's packets through.
pub struct Installation<'a> {
    /// The node's links and routes.
    pub node: &'a Netlink,
    /// The pod's network.
    pub network: &'a Network,
    /// How the node is reached.
    pub uplink: &'a Uplink,
    /// What the pod was given.
    pub record: &'a Record,
    /// This boot.
    pub boot: &'a BootId,
}

/// Why a pod's elements are not there.
#[derive(Debug)]
pub enum InstallError {
    /// Other pods have hostPorts of this one. Those that are dead can be reclaimed, and it be tried again.
    Clash(Vec<Clash>),
    /// Anything else.
    Failed(CniError),
}

impl From<CniError> for InstallError {
    fn from(error: CniError) -> Self {
        Self::Failed(error)
    }
}

impl From<NftError> for InstallError {
    fn from(error: NftError) -> Self {
        match error {
            NftError::HostPortTaken(clashes) => Self::Clash(clashes),
            error => Self::Failed(error.into()),
        }
    }
}

impl From<InstallError> for CniError {
    fn from(error: InstallError) -> Self {
        match error {
            InstallError::Clash(clashes) => NftError::HostPortTaken(clashes).into(),
            InstallError::Failed(error) => error,
        }
    }
}

impl Installation<'_> {
    /// Makes the table what the pod needs of it. Idempotent; its cost does not grow with pods, hostPorts or nodes
    /// as long as the table is there.
    ///
    /// For after the pod's host link is there, since whoever makes a flushed table again takes a record without a link for
    /// one that a DEL is about to release; and before it is up, so that no packet passes that this forbids.
    ///
    /// # Errors
    /// [`InstallError::Clash`] if other pods have hostPorts of this one; else what kernel or store refuse. What was made
    /// stays, for a teardown.
    pub async fn install(&self) -> Result<(), InstallError> {
        let nft = open()?;
        let elements = elements_of(self.record);
        let no_masquerade = matches!(self.network.peers, Peers::Listed(_))
            .then(|| describe_no_masquerade(self.network, self.uplink));
        let mut attempts = Attempts::default();
        while let Err(gone) = self.try_to_install(&nft, no_masquerade.as_ref(), &elements).await? {
            attempts.count(gone)?;
        }
        nftables::flows::forget_redirected(&nft, self.node, &elements).await?;
        Ok(())
    }

    /// Once. The inner error: the table was there, and was taken away before it could be used. So it is with a firewall
    /// that is loaded anew just then.
    async fn try_to_install(
        &self,
        nft: &Nfnetlink,
        no_masquerade: Option<&NoMasquerade>,
        elements: &[Element],
    ) -> Result<Result<(), Rejection>, InstallError> {
        let exists = match no_masquerade {
            Some(wanted) => nftables::has_network_as(nft, wanted).await?,
            None => nftables::has_network(nft, std::slice::from_ref(&self.network.name)).await?,
        };
        if !exists && let Err(gone) = self.prepare(nft, no_masquerade).await? {
            return Ok(Err(gone));
        }
        // An ADD that makes the node's part of the table looks for the other pods as well.
        if (!exists || asks_for_any_address(self.record))
            && let Err(gone) = self.keep_node_addresses(nft).await?
        {
            return Ok(Err(gone));
        }
        let policy = PodPolicy { nft, network: self.network, boot: self.boot };
        unless_taken_away(policy.add_pod(self.record, elements).await).map_err(InstallError::from)
    }

    /// Makes the table with what it must know of the network. The inner error as for [`Self::try_to_install`].
    async fn prepare(
        &self,
        nft: &Nfnetlink,
        no_masquerade: Option<&NoMasquerade>,
    ) -> Result<Result<(), Rejection>, CniError> {
        let (data_dir, own) = (&self.network.data_dir, &self.network.name);
        if let Some(wanted) = no_masquerade {
            // Before the table has it: who finds it there takes it for remembered.
            let store = Store::open(data_dir, own)?;
            store.lock(self.boot, LOCK_DEADLINE)?.remember_no_masquerade(&wanted.networks)?;
        }
        if !nftables::has_network(nft, std::slice::from_ref(own)).await? {
            rebuild(nft, data_dir, own, self.boot).await?;
        }
        match no_masquerade {
            Some(wanted) => {
                Ok(unless_taken_away(nftables::ensure_no_masquerade(nft, wanted).await.map(drop))?)
            }
            None => Ok(Ok(())),
        }
    }

    /// Makes the table know the node's addresses. The inner error as for [`Self::try_to_install`].
    async fn keep_node_addresses(&self, nft: &Nfnetlink) -> Result<Result<(), Rejection>, CniError> {
        let found = find_node_addresses(self.node, self.uplink, &self.network.node_ips).await?;
        let own = &self.network.name;
        if nftables::node_address_differences(nft, own, &found).await?.is_empty() {
            return Ok(Ok(()));
        }
        // Before the table has them, as with the exemptions from masquerade.
        remember_node_addresses(&self.network.data_dir, own, self.boot, &found)?;
        Ok(unless_taken_away(nftables::ensure_node_addresses(nft, own, &found).await.map(drop))?)
    }

    /// Removes what no record asks for, such as the hostPorts of pods that were reclaimed, and makes what is missing.
    ///
    /// # Errors
    /// What kernel or store refuse.
    pub async fn rebuild(&self) -> Result<(), CniError> {
        rebuild(&open()?, &self.network.data_dir, &self.network.name, self.boot).await.map(drop)
    }
}

/// The inner error: a transaction failed for want of the table, or came too late to see that there is none.
fn unless_taken_away(outcome: Result<(), NftError>) -> Result<Result<(), Rejection>, NftError> {
    match outcome {
        Err(NftError::Rejected(rejection))
            if rejection.is_because(|refusal| refusal.is_not_found() || refusal.is_outrun()) =>
        {
            Ok(Err(rejection))
        }
        outcome => Ok(Ok(outcome?)),
    }
}

/// Ends what the pods of these records have in the table: nothing of them gets through from here on. Then, once their
/// links are gone, [`remove_leftover_elements`] finds nothing to remove and waits for nothing. Where this fails, for it
/// is a matter of time only, all is left to [`remove_leftover_elements`]. Idempotent.
pub async fn expire_elements(records: &[Record]) {
    let elements: Vec<Element> = records.iter().flat_map(elements_of).collect();
    let places = pod_policy::places(records);
    if !(elements.is_empty() && places.is_empty())
        && let Ok(nft) = open()
    {
        drop(nftables::expire_pod(&nft, &elements, &places).await);
    }
}

/// Removes what the pods of these records still have in the table after [`expire_elements`], as far as it is theirs.
/// Idempotent. For after their links are gone, and before their addresses are free.
///
/// # Errors
/// What the kernel refused. That there is no table is none.
pub async fn remove_leftover_elements(node: &Netlink, records: &[Record]) -> Result<(), CniError> {
    let elements: Vec<Element> = records.iter().flat_map(elements_of).collect();
    let places = pod_policy::places(records);
    if elements.is_empty() && places.is_empty() {
        return Ok(());
    }
    let nft = open()?;
    nftables::remove_rest(&nft, &elements, &places).await?;
    nftables::flows::forget_redirected(&nft, node, &elements).await?;
    Ok(())
}

/// [`remove_leftover_elements`] for an attachment of which nothing is known but its host link.
///
/// # Errors
/// As [`remove_leftover_elements`].
pub async fn remove_elements_of_link(network: &NetworkName, link: &str) -> Result<(), CniError> {
    let nft = open()?;
    nftables::remove_link(&nft, network, link).await?;
    Ok(policy::remove_link(&nft, link).await?)
}

/// What is missing or wrong in the table, for the pods of these records.
///
/// # Errors
/// What the kernel refused.
pub async fn differences(
    network: &Network,
    uplink: &Uplink,
    records: &[Record],
) -> Result<Vec<String>, CniError> {
    let nft = open()?;
    let elements: Vec<Element> = records.iter().flat_map(elements_of).collect();
    let mut found = nftables::differences(&nft, &elements).await?;
    found.extend(pod_policy::differences(&nft, network, records).await?);
    let stands = match &network.peers {
        Peers::Listed(_) => {
            nftables::no_masquerade_matches(&nft, &describe_no_masquerade(network, uplink)).await?
        }
        Peers::KeptByAgent => nftables::has_network(&nft, std::slice::from_ref(&network.name)).await?,
    };
    if !stands {
        let text = "nft: the exemptions from masquerade of network";
        found.push(format!(
            "{text} {} are not what they should be (no_masquerade4, no_masquerade6)",
            network.name
        ));
    }
    Ok(found)
}

/// Makes the whole table what the stores below the conf's data directory and the conf itself ask for.
///
/// # Errors
/// What kernel or store refuse.
pub async fn sync(
    node: &Netlink,
    network: &Network,
    uplink: &Uplink,
    boot: &BootId,
) -> Result<nftables::Rebuilt, CniError> {
    let (nft, own) = (open()?, &network.name);
    let found = find_node_addresses(node, uplink, &network.node_ips).await?;
    remember_node_addresses(&network.data_dir, own, boot, &found)?;
    // Where the agent keeps the peers it keeps this list as well.
    let no_masquerade = matches!(network.peers, Peers::Listed(_));
    let no_masquerade = no_masquerade.then(|| describe_no_masquerade(network, uplink));
    if let Some(wanted) = &no_masquerade {
        let store = Store::open(&network.data_dir, own)?;
        store.lock(boot, LOCK_DEADLINE)?.remember_no_masquerade(&wanted.networks)?;
    }
    let mut rebuilt = rebuild(&nft, &network.data_dir, own, boot).await?;
    rebuilt.added += PodPolicy { nft: &nft, network, boot }.repair().await?;
    if let Some(wanted) = &no_masquerade {
        // The marks' comments as well, by which an ADD tells that nothing is to be done.
        nftables::ensure_no_masquerade(&nft, wanted).await?;
    }
    Ok(rebuilt)
}

/// Removes what pods of `network` have in the table and no record asks for.
///
/// # Errors
/// What kernel or store refuse.
pub async fn sweep(data_dir: &Path, network: &NetworkName, boot: &BootId) -> Result<(), CniError> {
    let nft = open()?;
    let read = || recorded_elements(data_dir, network, boot);
    nftables::sweep(&nft, std::slice::from_ref(network), read).await?;
    Ok(pod_policy::sweep(&nft).await?)
}

/// All that the records of `network` ask for, whoever is working on them.
fn recorded_elements(
    data_dir: &Path,
    network: &NetworkName,
    boot: &BootId,
) -> Result<Vec<Element>, CniError> {
    let Some(store) = Store::open_existing(data_dir, network)? else { return Ok(Vec::new()) };
    let mut elements = Vec::new();
    for entry in store.attachments()? {
        match entry.record {
            Ok(record) if record.is_from(boot) => elements.extend(elements_of(&record)),
            // What it holds is not known now, and must not go for that.
            Err(error @ StoreError::Io { .. }) => return Err(error.into()),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(elements)
}

/// A way to the nftables of the namespace of the calling thread.
///
/// # Errors
/// The kernel has no netfilter, or no descriptors are left.
pub fn open() -> Result<Nfnetlink, CniError> {
    let nft = Nfnetlink::open_here();
    Ok(nft.map_err(|source| DatapathError::Socket { place: "node", source })?)
}

/// Makes the table with all that the stores below `data_dir` remember, those of `own` even if it has no store yet.
///
/// # Errors
/// What kernel or stores refuse.
pub async fn rebuild(
    nft: &Nfnetlink,
    data_dir: &Path,
    own: &NetworkName,
    boot: &BootId,
) -> Result<nftables::Rebuilt, CniError> {
    let mut networks = Store::networks(data_dir)?;
    if !networks.contains(own) {
        networks.push(own.clone());
    }
    nftables::rebuild(nft, &networks, || read_elements(data_dir, &networks, boot)).await
}

/// All that the stores of `networks` say should be in the table. Of two records that claim one hostPort, one whose
/// namespace stands comes first.
///
/// Whoever has a record's lock is making, or removing, what it asks for. A lock that is free is taken and released: a DEL
/// that begins after that changes the table after it was read, which the transaction notices.
fn read_elements(data_dir: &Path, networks: &[NetworkName], boot: &BootId) -> Result<Wanted, CniError> {
    let (mut elements, mut doubtful) = (Vec::new(), Vec::new());
    let (mut busy, mut leaving) = (Vec::new(), Vec::new());
    for network in networks {
        let store = Store::open_existing(data_dir, network)?;
        let inside = match &store {
            // What stands there is none of ours to interpret; who knows the list writes it again.
            Some(store) => store.no_masquerade().or_else(|error| match error {
                StoreError::Damaged(_) => Ok(Vec::new()),
                error => Err(error),
            })?,
            None => Vec::new(),
        };
        elements.extend(NoMasquerade { network: network.clone(), networks: inside }.elements());
        let known = store.as_ref().map(Store::node_addresses).transpose()?;
        elements.extend(known.iter().flat_map(|known| known.elements(network)));
        let tunnel = store.as_ref().map(Store::vxlan_peers).transpose()?.flatten();
        elements.extend(tunnel.iter().flat_map(|tunnel| tunnel.elements(network)));
        for entry in
            store.iter().map(Store::attachments).collect::<Result<Vec<_>, _>>()?.into_iter().flatten()
        {
            let record = match entry.record {
                Ok(record) => record,
                // It may be that of a pod that runs: what nothing asks for goes.
                Err(error @ StoreError::Io { .. }) => return Err(error.into()),
                Err(_) => continue,
            };
            if !record.is_from(boot) {
                continue;
            }
            let is_at_rest = store.as_ref().is_some_and(|store| is_at_rest(store, &record));
            let place = match (is_at_rest, liveness::is_namespace_gone(&record)) {
                (true, false) => &mut elements,
                // Links go first: it is dead, or a DEL has come so far. An ADD adds its elements after the link.
                _ if !has_link(&record) => &mut leaving,
                (true, true) => &mut doubtful,
                (false, _) => &mut busy,
            };
            place.extend(elements_of(&record));
        }
    }
    elements.append(&mut doubtful);
    Ok(Wanted { settled: elements, busy, leaving })
}

/// Whether one of its hostPorts is of every address of the node.
pub fn asks_for_any_address(record: &Record) -> bool {
    record.host_ports.iter().any(|port| port.host_ip.is_none_or(|host_ip| host_ip.is_unspecified()))
}

/// Remembers which addresses are the node's: for whoever finds the table flushed.
///
/// # Errors
/// What the store refuses.
pub fn remember_node_addresses(
    data_dir: &Path,
    network: &NetworkName,
    boot: &BootId,
    found: &NodeAddresses,
) -> Result<(), CniError> {
    let store = Store::open(data_dir, network)?;
    Ok(store.lock(boot, LOCK_DEADLINE)?.remember_node_addresses(found)?)
}

/// Whether the host link is there, as far as can be told.
fn has_link(record: &Record) -> bool {
    record.host_link.as_ref().is_some_and(|link| !matches!(link::index_of(link.as_str()), Ok(None)))
}

/// Whether no command is working on the attachment, and its record is still this one.
fn is_at_rest(store: &Store, record: &Record) -> bool {
    let key = record.key();
    let lock = store.try_hold(&key);
    lock.is_ok_and(|lock| lock.is_some())
        && store.find(&key).is_ok_and(|found| found.as_ref() == Some(record))
}

fn elements_of(record: &Record) -> Vec<Element> {
    record.rules().as_ref().map(PodRules::elements).unwrap_or_default()
}

/// Describes where the network's pods keep their source address, as far as a conf tells: among all pods and nodes that
/// it knows, and where it says so.
fn describe_no_masquerade(network: &Network, uplink: &Uplink) -> NoMasquerade {
    let ranges = network.range_sets().iter().flat_map(|set| set.ranges());
    let mut networks: Vec<IpNetwork> = ranges.map(|range| range.subnet()).collect();
    for peer in network.peers.listed() {
        networks.extend(&peer.pod_cidrs);
        networks.extend(peer.node_ips.iter().map(|&address| IpNetwork::from(address)));
    }
    let own = network.node_ips.iter().copied().chain(uplink.ipv4).chain(uplink.ipv6);
    networks.extend(own.map(IpNetwork::from));
    networks.extend(&network.masquerade.exempt);
    NoMasquerade { network: network.name.clone(), networks }
}
