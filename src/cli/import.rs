//! `ferrule import`: takes over the running pods of a plugin that had its addresses from host-local, so that a node
//! moves to ferrule without draining.
//!
//! What moves is the knowledge of who has which address. The pods' links, addresses and routes stay as the old plugin
//! made them, and so does host-local's directory: to go back, the old conflist is put back. See docs/OPERATE.md.
//!
//! host-local's lock is held from reading until all is written. It may be run again at any time: what is held for the
//! right pod already is left as it is.

mod candidates;
mod report;
mod results;

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;

use crate::attachments::LOCK_DEADLINE;
use crate::cli::arguments::Arguments;
use crate::cli::bridges;
use crate::cli::networks::{KnownNetwork, Networks};
use crate::cli::node::Node;
use crate::cli::{Outcome, to_json};
use crate::cni::error::{CniError, Code};
use crate::cni::ids::{AttachmentKey, NetworkName};
use crate::config::range::RangeSet;
use crate::config::{AddressManagement, Network};
use crate::store::{HostLocal, Record, Store, StoreError, StoreGuard};
use candidates::{Candidate, Evidence};
use report::{Document, ToldPod};

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
pub async fn import(arguments: &Arguments, colour: bool) -> Result<Outcome, CniError> {
    // The command line is refused without it.
    let from = arguments.from.as_deref().unwrap_or(Path::new(""));
    let old_name = name_of(from)?;
    let (network, meaning, sets) = choose_network(arguments, &old_name)?;
    let node = Node::look().await?;
    let source = HostLocal::open(from, LOCK_DEADLINE)?.ok_or_else(|| {
        CniError::new(Code::Io, format!("there is no directory {}", from.display())).with_details(
            "host-local's is <dataDir>/<network>, by default below /var/lib/cni/networks; kind has /run/cni-ipam-state",
        )
    })?;
    let mut document = Document {
        version: 1,
        dry_run: arguments.dry_run,
        from: from.display().to_string(),
        network: network.name.to_string(),
        pods: Vec::new(),
        dead: Vec::new(),
        left_alone: Vec::new(),
        steps: Vec::new(),
        problems: Vec::new(),
    };
    let (held, mut odd) = source.read()?;
    let cached = read_results(&mut document, &arguments.results, &old_name)?;
    let candidates = candidates::find(&node, &network.name, &sets, &held, &mut odd, &cached).await?;
    for it in odd {
        let given = it.address.map(|_| "; the address is free for ferrule to give").unwrap_or_default();
        document.leave(it.path.display().to_string(), format!("{}{given}", it.reason));
    }
    let (dead, running): (Vec<Candidate>, Vec<Candidate>) =
        candidates.into_iter().partition(|it| it.evidence == Evidence::Gone);
    document.dead = dead.iter().map(|it| ToldPod::of(it, "dead")).collect();
    let verdicts = if arguments.dry_run {
        foresee(&meaning, &running, &document.from, &node)?
    } else {
        take_over(&meaning, &running, &document.from, &node)?
    };
    let mut records = Vec::new();
    for (candidate, verdict) in running.iter().zip(verdicts) {
        let (state, record) = match verdict {
            Verdict::Imported(record) => ("imported", record),
            Verdict::Already(record) => ("already", record),
            Verdict::Own => continue,
            Verdict::Refused(problem) => {
                document.problems.push(problem);
                continue;
            }
        };
        document.pods.push(ToldPod::of(candidate, state));
        records.push(record);
    }
    document.steps = bridges::remaining_steps(&node, &records).await?;
    let status = u8::from(!document.problems.is_empty());
    let text = if arguments.json { to_json(&document) } else { document.render(colour) };
    Ok(Outcome { text, status, ..Outcome::default() })
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

/// The network that the pods are to be part of, with its range sets.
fn choose_network(
    arguments: &Arguments,
    old_name: &NetworkName,
) -> Result<(KnownNetwork, Network, Vec<RangeSet>), CniError> {
    let name = arguments.network.as_ref().unwrap_or(old_name);
    let mut networks = Networks::find(&Arguments { network: None, ..arguments.clone() })?;
    let at = networks.known.iter().position(|it| it.name == *name && it.meaning.is_some());
    let refuse = |message: String, details: &str| {
        Err(CniError::new(Code::InvalidConf, message).with_details(details.to_owned()))
    };
    let Some(known) = at.map(|at| networks.known.swap_remove(at)) else {
        let problems: Vec<String> =
            networks.problems.iter().map(|it| format!("{}: {}", it.path.display(), it.text)).collect();
        let usable =
            format!("no usable conf of a network {:?} is in {}", name.as_str(), arguments.conf_dir.display());
        let details = if problems.is_empty() {
            "write the conflist first, best with the old network's name, else say which one with --network"
                .to_owned()
        } else {
            problems.join("; ")
        };
        return refuse(usable, &details);
    };
    // It is there: the position was looked for with it.
    let Some(meaning) = known.meaning.clone() else {
        return refuse(format!("network {name} has no usable conf"), "see ferrule doctor");
    };
    match &meaning.address_management {
        AddressManagement::Ranges(sets) => {
            let sets = sets.clone();
            Ok((known, meaning, sets))
        }
        AddressManagement::Delegate(plugin) => refuse(
            format!("network {name} has its addresses from {plugin}, so there is nothing to take over"),
            "give its ipam the type ferrule",
        ),
    }
}

/// Writes the records, each all or nothing.
fn take_over(
    network: &Network,
    running: &[Candidate],
    from: &str,
    node: &Node,
) -> Result<Vec<Verdict>, CniError> {
    let store = Store::open(&network.data_dir, &network.name)?;
    let mut locked = store.lock(&node.boot, LOCK_DEADLINE)?;
    running.iter().map(|candidate| take_over_one(&store, &mut locked, candidate, from)).collect()
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
    node: &Node,
) -> Result<Vec<Verdict>, CniError> {
    let store = Store::open_existing(&network.data_dir, &network.name)?;
    let mut holders: HashMap<IpAddr, AttachmentKey> = HashMap::new();
    if let Some(store) = &store {
        for entry in store.attachments()? {
            // What an earlier boot left is swept away before anything is written.
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
            "{} has a record already, without {}; delete its pod: it comes back with an address of ferrule's",
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
    document: &mut Document,
    directory: &Path,
    old_name: &NetworkName,
) -> Result<Vec<results::Cached>, CniError> {
    let Some((cached, unread)) = results::read(directory, old_name)? else {
        document.leave(
            directory.display().to_string(),
            "there is no such directory, so nobody says which pods run; say with --results where the runtime keeps its \
             results"
                .to_owned(),
        );
        return Ok(Vec::new());
    };
    if unread > 0 {
        let what = format!("{unread} files of {} in {}", old_name, directory.display());
        document.leave(what, "they are no results that libcni wrote".to_owned());
    }
    Ok(cached)
}
