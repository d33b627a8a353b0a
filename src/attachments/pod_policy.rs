//! What records say about the table of NetworkPolicies: which chains a pod's packets are led to, by its links.
//!
//! | command  | does                                                                                               |
//! |----------|----------------------------------------------------------------------------------------------------|
//! | ADD      | [`add_pod`]: asks which chains are there for the pod, and leads its packets there before it has a link that is up |
//! | teardown | [`places`]: what may be there of a pod                                                              |
//! | GC       | [`sweep`]: removes what is there of links that are gone                                             |
//! | CHECK    | [`differences`]                                                                                    |
//! | `sync`   | [`repair`]                                                                                         |
//!
//! The chains are the agent's. Where the whole table is gone and the agent has left its plan of it, whoever notices makes it
//! again, for all pods of the node: nobody else may be there to do so.

use std::path::Path;

use crate::config::Network;
use crate::config::policy::PolicyUnknown;
use crate::datapath::nftables::{self, Attempts, NftError};
use crate::datapath::policy::{self, Attached, Bindings, Unknown};
use crate::linux::error::KernelError;
use crate::linux::link;
use crate::linux::nfnetlink::Nfnetlink;
use crate::linux::nft::change::{Change, Rejection};
use crate::linux::nft::element::Element;
use crate::log;
use crate::policy::names::own_uid;
use crate::policy::plan::{HoldPlan, Isolation, Plan};
use crate::store::{BootId, Record, Store, StoreError};

/// Longest uid and longest name of a namespace that a chain is named by. Those of Kubernetes have 36 and 63 at most.
const WORD_MAX: usize = 128;

/// Whose elements are to be right.
pub struct PodPolicy<'a> {
    /// The node's nf_tables.
    pub nft: &'a Nfnetlink,
    /// The network, which says what unknown pods have and where records are.
    pub network: &'a Network,
    /// This boot.
    pub boot: &'a BootId,
}

/// The attachment as the table knows it; `None` where the runtime did not say which pod it is, or where it has no link.
pub fn attached(record: &Record) -> Option<Attached> {
    let pod = record.pod.as_ref()?;
    let uid = pod.uid.as_ref().filter(|uid| uid.len().max(pod.namespace.len()) <= WORD_MAX)?;
    Some(Attached {
        uid: own_uid(uid, &pod.namespace, &pod.name),
        name: pod.to_string(),
        link: record.host_link.as_ref()?.to_string(),
        addresses: record.addresses.clone(),
    })
}

/// All that pods may have in the table, whichever chains their packets are led to.
pub fn places(records: &[Record]) -> Vec<Element> {
    records.iter().filter_map(attached).flat_map(|attached| policy::places(&attached)).collect()
}

/// Removes what is there of links that are gone.
///
/// # Errors
/// What the kernel refused. That there is no table is none.
pub async fn sweep(nft: &Nfnetlink) -> Result<(), NftError> {
    policy::sweep(nft, is_gone).await
}

/// What is missing or wrong in the table, for the pods of these records.
///
/// # Errors
/// What the kernel refused. That there is no table is none: then no policy isolates anybody.
pub async fn differences(
    nft: &Nfnetlink,
    network: &Network,
    records: &[Record],
) -> Result<Vec<String>, NftError> {
    let mut found = Vec::new();
    for attached in records.iter().filter_map(attached) {
        let (_, bindings) = chains_of(nft, network, &attached).await?;
        let (wrong, missing) = policy::corrections(nft, &attached, &bindings).await?;
        let place = |it: &Element| format!("nft: {} {}", policy::table(), policy::show(it));
        found.extend(wrong.iter().map(|it| format!("{} leads past the pod's policies", place(it))));
        let is_wrong = |it: &&Element| wrong.iter().any(|one| one.set == it.set && one.key == it.key);
        let missing = missing.iter().filter(|it| !is_wrong(it));
        found.extend(missing.map(|it| format!("{} is missing", place(it))));
    }
    Ok(found)
}

impl PodPolicy<'_> {
    /// Adds the pod's `elements`, and with them those that lead its packets to its policies: to its own chains where the
    /// agent knows it, else to those that hold pods of its namespace. Where neither is, no policy isolates anybody there.
    ///
    /// The kernel is asked before: a transaction that fails costs milliseconds. What was asked is committed only if nobody
    /// changed anything since.
    ///
    /// # Errors
    /// As [`nftables::add_pod`].
    pub async fn add_pod(&self, record: &Record, elements: &[Element]) -> Result<(), NftError> {
        let Some(attached) = attached(record) else {
            return nftables::add_pod(self.nft, elements).await;
        };
        let mut attempts = Attempts::of_many();
        let mut has_leftovers = false;
        loop {
            let (generation, bindings) = chains_of(self.nft, self.network, &attached).await?;
            if bindings.is_empty() && self.restore(Some(&attached)).await? {
                continue;
            }
            let first = if has_leftovers {
                self.corrections(&attached, &bindings).await?
            } else {
                additions(policy::elements(&attached, &bindings))
            };
            let of_policy = first.len();
            match nftables::add_pod_with(self.nft, Some(generation), first, elements).await {
                Err(NftError::Rejected(rejection)) if rejection.is_because(KernelError::is_outrun) => {
                    attempts.count(rejection)?;
                }
                Err(NftError::Rejected(rejection)) => {
                    let refusal = refusal_of_first(&rejection, of_policy);
                    // Its link led elsewhere: an ADD before it did not live to take that back.
                    let leads_elsewhere =
                        |it: &KernelError| !has_leftovers && (it.is_exists() || it.is_taken());
                    match refusal {
                        Some(refusal) if leads_elsewhere(refusal) => has_leftovers = true,
                        // Not as that of the table of pods, which is looked for again.
                        Some(refusal) => return Err(NftError::Refused(refusal.clone())),
                        None => return Err(NftError::Rejected(rejection)),
                    }
                }
                outcome => return outcome,
            }
        }
    }

    /// Leads the packets of all pods of the node to where they should be led; returns how many elements were missing or
    /// wrong. Makes the table where it is gone.
    ///
    /// # Errors
    /// What the kernel refused.
    pub async fn repair(&self) -> Result<usize, NftError> {
        self.restore(None).await?;
        if !self.nft.has_table(&policy::table()).await? {
            return Ok(0);
        }
        let mut attempts = Attempts::default();
        loop {
            let generation = self.nft.generation().await?;
            let (mut wrong, mut missing) = (Vec::new(), Vec::new());
            for attached in attached_pods(&self.network.data_dir, self.boot) {
                let (_, bindings) = chains_of(self.nft, self.network, &attached).await?;
                let (more_wrong, more_missing) = policy::corrections(self.nft, &attached, &bindings).await?;
                wrong.extend(more_wrong);
                missing.extend(more_missing);
            }
            let count = wrong.len().max(missing.len());
            match self.nft.commit(Some(generation), &corrections(wrong, missing)).await {
                Ok(()) => return Ok(count),
                Err(rejection) if rejection.is_because(KernelError::is_outrun) => {
                    attempts.count(rejection)?
                }
                Err(rejection) => return Err(rejection.into()),
            }
        }
    }

    async fn corrections(
        &self,
        attached: &Attached,
        bindings: &Bindings,
    ) -> Result<Vec<Change>, KernelError> {
        let (wrong, missing) = policy::corrections(self.nft, attached, bindings).await?;
        Ok(corrections(wrong, missing))
    }

    /// Where the agent left a plan and there is no table, makes it, for all pods of this boot; returns whether it was made,
    /// be it by somebody else. `own` is the pod of an ADD. Without a plan this is one system call.
    async fn restore(&self, own: Option<&Attached>) -> Result<bool, NftError> {
        let Network { data_dir, name, .. } = self.network;
        if !Store::has_policy(data_dir, name) || self.nft.has_table(&policy::table()).await? {
            return Ok(false);
        }
        let pods = attached_pods(data_dir, self.boot);
        let (plan, has_members) = match self.read_plan() {
            Ok(Some(remembered)) => remembered,
            // The last policy has gone in between.
            Ok(None) => return Ok(false),
            Err(error) => {
                let text = "the policies of this node are not known until the agent is back";
                log::warn(&self.network.log, &format!("{text}: {error}"));
                (closed(pods.iter().chain(own)), true)
            }
        };
        policy::restore(self.nft, &plan, &pods, unknown(self.network), has_members).await?;
        // A DEL that saw no table does not look for what was made here: it has removed its links by now, or will look.
        if pods.iter().any(|it| is_gone(&it.link)) {
            sweep(self.nft).await?;
        }
        Ok(self.nft.has_table(&policy::table()).await?)
    }

    fn read_plan(&self) -> Result<Option<(Plan, bool)>, StoreError> {
        let store = Store::open_existing(&self.network.data_dir, &self.network.name)?;
        let file = store.map(|store| store.policy(self.boot)).transpose()?.flatten();
        Ok(file.map(|file| (file.plan, file.has_members)))
    }
}

async fn chains_of(
    nft: &Nfnetlink,
    network: &Network,
    attached: &Attached,
) -> Result<(u32, Bindings), KernelError> {
    policy::chains_now(nft, &attached.uid, attached.namespace(), unknown(network)).await
}

fn unknown(network: &Network) -> Unknown {
    match network.policy_unknown {
        PolicyUnknown::Hold => Unknown::Hold,
        PolicyUnknown::Open => Unknown::Open,
    }
}

/// The pods of all networks that were attached in this boot and have their links. A record that cannot be read is passed
/// over: its pod stays as it is.
fn attached_pods(data_dir: &Path, boot: &BootId) -> Vec<Attached> {
    let mut pods = Vec::new();
    for network in Store::networks(data_dir).unwrap_or_default() {
        let Ok(Some(store)) = Store::open_existing(data_dir, &network) else { continue };
        let records = store.attachments().unwrap_or_default().into_iter().filter_map(|it| it.record.ok());
        let records = records.filter(|record| record.is_from(boot));
        pods.extend(records.filter_map(|record| attached(&record)).filter(|it| !is_gone(&it.link)));
    }
    pods
}

/// A plan in which nobody is known, and everybody is closed.
fn closed<'a>(pods: impl Iterator<Item = &'a Attached>) -> Plan {
    let hold = HoldPlan { ingress: Isolation::Closed, egress: Isolation::Closed, ..HoldPlan::default() };
    Plan { holds: pods.map(|it| (it.namespace().to_owned(), hold.clone())).collect(), ..Plan::default() }
}

fn is_gone(link: &str) -> bool {
    matches!(link::index_of(link), Ok(None))
}

fn additions(elements: Vec<Element>) -> Vec<Change> {
    corrections(Vec::new(), elements)
}

fn corrections(wrong: Vec<Element>, missing: Vec<Element>) -> Vec<Change> {
    let mut changes = Vec::new();
    changes.extend((!wrong.is_empty()).then(|| Change::DeleteElements(policy::table(), wrong)));
    changes.extend((!missing.is_empty()).then(|| Change::AddElements(policy::table(), missing)));
    changes
}

/// Why one of the first changes was refused, if one of them was.
fn refusal_of_first(rejection: &Rejection, first: usize) -> Option<&KernelError> {
    let is_first = |place: Option<usize>| place.is_some_and(|place| place < first);
    rejection.0.iter().find(|blame| is_first(blame.change)).map(|blame| &blame.refusal)
}
