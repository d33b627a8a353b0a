//! `ferrulectl import`: takes over the running pods of a plugin that has its addresses from host-local, so that a node
//! moves to ferrule without being drained.
//!
//! It writes records of who has which address. The pods' links, addresses and routes stay as the old plugin made them,
//! and so does host-local's directory: to go back, put the old conflist back.
//!
//! It holds host-local's lock from reading until all is written. It may be run again at any time: a pod that has its
//! record already is left as it is.

mod candidates;
pub(super) mod report;
mod results;

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;

use crate::attachments::LOCK_DEADLINE;
use crate::attachments::node_view::NodeView;
use crate::cli::arguments::Common;
use crate::cli::bridges;
use crate::cni::error::{CniError, Code};
use crate::cni::ids::{AttachmentKey, NetworkName};
use crate::config::range::RangeSet;
use crate::config::{AddressManagement, Network};
use crate::store::{HostLocal, Record, Store, StoreError, StoreGuard};
use candidates::{Candidate, Evidence};
use report::{ImportReport, ImportedPod};

/// What is to be imported, and into which network.
pub struct ImportRequest<'a> {
    /// host-local's directory of the old network.
    pub from: &'a Path,
    /// The network that the pods become part of; `None`: the one with the old network's name.
    pub network: Option<&'a NetworkName>,
    /// libcni's cache of results.
    pub results: &'a Path,
    /// Change nothing.
    pub dry_run: bool,
}

/// What the store says of a pod that is to be taken over.
enum Verdict {
    /// It is taken over, or would be.
    Imported(Record),
    /// It was taken over before.
    Already(Record),
    /// ferrule attached it.
    Own,
    /// It cannot be.
    Refused(String),
}

/// Takes over the pods.
///
/// # Errors
/// Where a directory, a lock or the kernel cannot be had, or the network is none to take pods over. What fails with
/// one pod does not stop the others.
pub async fn import(common: &Common, request: &ImportRequest<'_>) -> Result<ImportReport, CniError> {
    let old_name = name_of(request.from)?;
    let target = choose_network(common, request.network.unwrap_or(&old_name))?;
    import_into(&target, request, None).await
}

/// The same into a network that is known. `held`: the network's store, where the caller has it locked already.
///
/// # Errors
/// As [`import`].
pub(super) async fn import_into(
    target: &Target,
    request: &ImportRequest<'_>,
    held: Option<(&Store, &mut StoreGuard<'_>)>,
) -> Result<ImportReport, CniError> {
    let old_name = name_of(request.from)?;
    let Target { network, sets } = target;
    let node = NodeView::read().await?;
    let from = request.from.display().to_string();
    let source = HostLocal::open(request.from, LOCK_DEADLINE)?.ok_or_else(|| {
        CniError::new(Code::Io, format!("there is no directory {from}")).with_details(
            "host-local's is <dataDir>/<network>, by default below /var/lib/cni/networks; kind has /run/cni-ipam-state",
        )
    })?;
    let mut report = ImportReport::new(request.dry_run, from, network.name.to_string());
    let (reserved, mut odd) = source.read()?;
    let cached = read_results(&mut report, request.results, &old_name)?;
    let candidates = candidates::find(&node, &network.name, sets, &reserved, &mut odd, &cached).await?;
    for it in odd {
        let given = it.address.map(|_| "; ferrule may give the address to a pod").unwrap_or_default();
        report.skip(it.path.display().to_string(), format!("{}{given}", it.reason));
    }
    let (dead, running): (Vec<Candidate>, Vec<Candidate>) =
        candidates.into_iter().partition(|it| it.evidence == Evidence::Gone);
    report.dead = dead.iter().map(|it| ImportedPod::of(it, "dead")).collect();
    let verdicts = match held {
        _ if request.dry_run => foresee(network, &running, &report.from, &node)?,
        Some((store, locked)) => take_over(store, locked, &running, &report.from)?,
        None => {
            let store = Store::open(&network.data_dir, &network.name)?;
            let mut locked = store.lock(&node.boot, LOCK_DEADLINE)?;
            take_over(&store, &mut locked, &running, &report.from)?
        }
    };
    let mut records = Vec::new();
    for (candidate, verdict) in running.iter().zip(verdicts) {
        let (state, record) = match verdict {
            Verdict::Imported(record) => ("imported", record),
            Verdict::Already(record) => ("already", record),
            Verdict::Own => continue,
            Verdict::Refused(problem) => {
                report.problems.push(problem);
                continue;
            }
        };
        report.pods.push(ImportedPod::of(candidate, state));
        records.push(record);
    }
    report.steps = bridges::remaining_steps(&node, &records).await?;
    Ok(report)
}

/// The name of the network that host-local's directory is of: its last component.
fn name_of(from: &Path) -> Result<NetworkName, CniError> {
    let name = from.file_name().and_then(|name| NetworkName::parse(name.to_str()?).ok());
    name.ok_or_else(|| {
        CniError::new(
            Code::InvalidConf,
            format!("--from {}: it does not end in a network's name", from.display()),
        )
        .with_details("name the network's own directory, such as /var/lib/cni/networks/podnet")
    })
}

/// The network that pods are to be part of.
pub(super) struct Target {
    pub network: Network,
    sets: Vec<RangeSet>,
}

impl Target {
    /// It, if its addresses are ferrule's own.
    ///
    /// # Errors
    /// Names the plugin that has them.
    pub fn new(network: Network) -> Result<Self, CniError> {
        match &network.address_management {
            AddressManagement::Ranges(sets) => Ok(Self { sets: sets.clone(), network }),
            AddressManagement::Delegate(plugin) => {
                let name = &network.name;
                let message = format!(
                    "network {name} has its addresses from {plugin}, so ferrule cannot take them over"
                );
                Err(CniError::new(Code::InvalidConf, message).with_details("set its ipam.type to ferrule"))
            }
        }
    }
}

/// The network of that name, by its conf.
///
/// # Errors
/// If no usable conf has it.
pub(super) fn choose_network(common: &Common, name: &NetworkName) -> Result<Target, CniError> {
    let mut networks = common.find_networks(None)?;
    let at = networks.known.iter().position(|it| it.name == *name && it.meaning.is_some());
    let refuse = |message: String, details: &str| {
        Err(CniError::new(Code::InvalidConf, message).with_details(details.to_owned()))
    };
    let Some(known) = at.map(|at| networks.known.swap_remove(at)) else {
        let problems: Vec<String> =
            networks.problems.iter().map(|it| format!("{}: {}", it.path.display(), it.text)).collect();
        let usable =
            format!("no usable conf of a network {:?} is in {}", name.as_str(), common.conf_dir.display());
        let details = if problems.is_empty() {
            "write the conflist first, best with the old network's name, else say which one with --network"
                .to_owned()
        } else {
            problems.join("; ")
        };
        return refuse(usable, &details);
    };
    // It is there: the position was looked for with it.
    match known.meaning {
        Some(meaning) => Target::new(meaning),
        None => refuse(format!("network {name} has no usable conf"), "see ferrulectl doctor"),
    }
}

/// Writes the records, each all or nothing.
fn take_over(
    store: &Store,
    locked: &mut StoreGuard<'_>,
    running: &[Candidate],
    from: &str,
) -> Result<Vec<Verdict>, CniError> {
    running.iter().map(|candidate| take_over_one(store, locked, candidate, from)).collect()
}

fn take_over_one(
    store: &Store,
    locked: &mut StoreGuard<'_>,
    candidate: &Candidate,
    from: &str,
) -> Result<Verdict, CniError> {
    if let Some(verdict) = judge_known(candidate, store.find(&candidate.key)) {
        return Ok(verdict);
    }
    match locked.adopt(candidate.claim(from), &candidate.addresses) {
        Ok((record, _hold)) => Ok(Verdict::Imported(record)),
        Err(error @ StoreError::Taken { .. }) => {
            Ok(Verdict::Refused(refuse_taken(&candidate.key, &error.to_string())))
        }
        Err(error) => Err(error.into()),
    }
}

/// Says what [`take_over`] would do.
fn foresee(
    network: &Network,
    running: &[Candidate],
    from: &str,
    node: &NodeView,
) -> Result<Vec<Verdict>, CniError> {
    let store = Store::open_existing(&network.data_dir, &network.name)?;
    let mut holders: HashMap<IpAddr, AttachmentKey> = HashMap::new();
    if let Some(store) = &store {
        for entry in store.attachments()? {
            // What an earlier boot left is removed before anything is written.
            let record = entry.record.ok().filter(|record| record.is_from(&node.boot));
            holders.extend(
                record.iter().flat_map(|it| &it.addresses).map(|&address| (address, entry.key.clone())),
            );
        }
    }
    let judge = |candidate: &Candidate| {
        let known = store.as_ref().map_or(Ok(None), |store| store.find(&candidate.key));
        let known = known.map(|record| record.filter(|record| record.is_from(&node.boot)));
        if let Some(verdict) = judge_known(candidate, known) {
            return verdict;
        }
        let taken = candidate.addresses.iter().find_map(|address| Some((address, holders.get(address)?)));
        match taken {
            Some((address, holder)) => {
                Verdict::Refused(refuse_taken(&candidate.key, &format!("{address} is taken by {holder}")))
            }
            None => Verdict::Imported(Record::foreseen(
                candidate.claim(from),
                candidate.addresses.clone(),
                node.boot.clone(),
            )),
        }
    };
    Ok(running.iter().map(judge).collect())
}

/// What the pod's record says, if it has one.
fn judge_known(candidate: &Candidate, known: Result<Option<Record>, StoreError>) -> Option<Verdict> {
    let record = match known {
        Ok(record) => record?,
        Err(error) => return Some(Verdict::Refused(format!("{}: {error}", candidate.key))),
    };
    let lacking: Vec<String> = candidate
        .addresses
        .iter()
        .filter(|address| !record.addresses.contains(address))
        .map(IpAddr::to_string)
        .collect();
    Some(match (lacking.is_empty(), &record.imported_from) {
        (true, Some(_)) => Verdict::Already(record),
        (true, None) => Verdict::Own,
        (false, _) => Verdict::Refused(format!(
            "{} has a record already, without {}; delete its pod: it gets a new address when it is created again",
            candidate.key,
            lacking.join(", ")
        )),
    })
}

fn refuse_taken(key: &AttachmentKey, why: &str) -> String {
    format!(
        "{key} was not taken over: {why}. Both may be using the address; delete one of the two pods, then run this again"
    )
}

/// What the runtime remembers of the old network.
fn read_results(
    report: &mut ImportReport,
    directory: &Path,
    old_name: &NetworkName,
) -> Result<Vec<results::Cached>, CniError> {
    let Some((cached, unread)) = results::read(directory, old_name)? else {
        report.skip(
            directory.display().to_string(),
            "there is no such directory, so it is not known which pods run; name the runtime's directory with --results"
                .to_owned(),
        );
        return Ok(Vec::new());
    };
    if unread > 0 {
        let what = format!("{unread} files of {} in {}", old_name, directory.display());
        report.skip(what, "libcni did not write them".to_owned());
    }
    Ok(cached)
}
