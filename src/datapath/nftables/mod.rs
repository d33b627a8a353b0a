//! The nftables table: makes it what [`crate::desired::nftables`] says, and tells where it differs.
//!
//! | verb                       | what it does                                                                      |
//! |----------------------------|-----------------------------------------------------------------------------------|
//! | [`has_network_as`]         | tells by look-ups whether the table is there and has a network; see `presence.rs` |
//! | [`ensure_table`]           | makes the table where it is not there                                             |
//! | [`rebuild`]                | makes table and elements what the store says                                      |
//! | [`ensure_no_masquerade`]   | makes a network's exemptions from masquerade what they should be                  |
//! | [`ensure_node_addresses`]  | says which addresses are the node's, where hostPorts answer                       |
//! | [`ensure_vxlan_peers`]     | lets only nodes send to this node's VXLAN port                                    |
//! | [`add_pod`]                | adds a pod's elements; tells which pod has a hostPort already                     |
//! | [`expire_pod`]             | lets those expire that are still the pod's                                        |
//! | [`remove_rest`]            | removes those that did not expire, or have come back                              |
//! | [`remove_pod`]             | removes those that are still the pod's; what is not there is a success            |
//! | [`sweep`]                  | removes what no record asks for                                                   |
//! | [`remove_link`]            | removes a pod's elements where only its link is known                             |
//! | [`find_link`]              | reads what a link has, for a pod whose record is lost                             |
//! | [`differences`]            | says what is missing or wrong                                                     |
//! | [`remove_table`]           | removes all of it                                                                 |
//! | [`flows`]                  | deletes conntrack entries that bypass a change of hostPorts                       |
//!
//! Every change is one transaction. What is decided on what was read is committed only if nobody changed anything
//! meanwhile, so several ADDs that all find no table make one, and a rebuild never takes away what an ADD
//! has just put there.

mod error;
pub mod flows;
mod no_masquerade;
mod node_addresses;
mod plan;
mod presence;
mod replace;
mod search;
mod vxlan;

use std::time::Duration;

use crate::cni::ids::NetworkName;
use crate::datapath::policy;
use crate::desired::nftables::element::{Element, read_host_port};
use crate::desired::nftables::table::{is_of_pods, sets, show, table};
use crate::linux::error::KernelError;
use crate::linux::nfnetlink::Nfnetlink;
use crate::linux::nft::change::{Change, Rejection};
use crate::linux::nft::table::Table;

pub use error::{Clash, NftError};
pub use no_masquerade::{ensure_no_masquerade, no_masquerade_matches, remove_no_masquerade};
pub use node_addresses::{ensure_node_addresses, node_address_differences};
pub use plan::Wanted;
use plan::{Plan, Present, additions, deletions, deletions_in, expirations_in};
use presence::{exists, look_up, table_differences};
pub use presence::{has_network, has_network_as};
pub use search::{find_link, remove_link};
pub use vxlan::ensure_vxlan_peers;

/// How often a decision is made anew because somebody was faster. kube-proxy may write every second, and eighty ADDs
/// at once.
const ATTEMPTS: usize = 32;

/// How long elements stay that were told to expire: one tick of the slowest kernels (HZ=100), the least that each of
/// them can count. The kernel needs longer to remove a pod's link.
const MOMENT: Duration = Duration::from_millis(10);

/// What a rebuild found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Rebuilt {
    /// Whether the table had to be made.
    pub made: bool,
    /// Elements that were missing or wrong, in a table that was there.
    pub added: usize,
    /// Elements that nothing asks for any more.
    pub removed: usize,
    /// Elements whose place another one has, which came first in the list: two records claim the same hostPort.
    pub passed_over: Vec<Element>,
}

/// Makes the table with all that belongs in it, unless it is there and has all `networks`. `None` if it is: then its
/// elements are not looked at, and the cost does not depend on how many there are.
///
/// `read` as for [`rebuild`].
///
/// # Errors
/// What the kernel refused, and what `read` says.
pub async fn ensure_table<E: From<NftError>, W: Into<Wanted>>(
    nft: &Nfnetlink,
    networks: &[NetworkName],
    read: impl FnMut() -> Result<W, E>,
) -> Result<Option<Rebuilt>, E> {
    if has_network(nft, networks).await? {
        return Ok(None);
    }
    rebuild(nft, networks, read).await.map(Some)
}

/// Makes the table, and the elements of `networks` in it, what they should be. Idempotent.
///
/// `read` is asked for all elements of these networks, those of [`NoMasquerade`](crate::desired::nftables::element::NoMasquerade) among them, each time that the kernel's state was looked at afresh; an ADD
/// must have written its record before it adds its elements. Elements of other networks stay, even where
/// the table is made anew.
///
/// # Errors
/// What the kernel refused, and what `read` says.
pub async fn rebuild<E: From<NftError>, W: Into<Wanted>>(
    nft: &Nfnetlink,
    networks: &[NetworkName],
    mut read: impl FnMut() -> Result<W, E>,
) -> Result<Rebuilt, E> {
    let mut attempts = Attempts::default();
    loop {
        let generation = nft.generation().await.map_err(NftError::from)?;
        let actual = read_elements(nft).await.map_err(NftError::from)?;
        let made = !table_differences(nft).await.map_err(NftError::from)?.is_empty();
        let exists = made && nft.has_table(&table()).await.map_err(NftError::from)?;
        let present = if exists {
            Present::Other
        } else if made {
            Present::Nothing
        } else {
            Present::Table
        };
        let counting =
            if exists { nft.placed_rules(&table()).await.map_err(NftError::from)? } else { Vec::new() };
        let plan = Plan::new(present, &actual, networks, read()?).counting_on(&counting);
        match nft.commit(Some(generation), &plan.changes).await {
            Ok(()) => {
                let Plan { added, removed, passed_over, .. } = plan;
                return Ok(Rebuilt { made, added, removed, passed_over });
            }
            Err(rejection) if is_outrun(&rejection) => attempts.count(rejection)?,
            Err(rejection) => return Err(NftError::from(rejection).into()),
        }
    }
}

/// Adds elements of a pod. Those that are there already are a success. All of them or none.
///
/// # Errors
/// [`NftError::HostPortTaken`] if a hostPort leads to another pod; else what the kernel refused, for example that
/// there is no table.
pub async fn add_pod(nft: &Nfnetlink, elements: &[Element]) -> Result<(), NftError> {
    add_pod_with(nft, None, Vec::new(), elements).await
}

/// The same, and `first` with them, which was decided on in `generation`, and changes another table.
///
/// # Errors
/// As [`add_pod`]; and if somebody changed anything since that generation.
pub async fn add_pod_with(
    nft: &Nfnetlink,
    generation: Option<u32>,
    first: Vec<Change>,
    elements: &[Element],
) -> Result<(), NftError> {
    let mut changes = first;
    changes.extend(additions(elements.iter().cloned()));
    let mut attempts = Attempts::default();
    loop {
        match nft.commit(generation, &changes).await {
            Ok(()) => return Ok(()),
            Err(rejection) if rejection.is_because(|refusal| refusal.is_exists() || refusal.is_taken()) => {
                let clashes = find_clashes(nft, elements).await?;
                if !clashes.is_empty() {
                    return Err(NftError::HostPortTaken(clashes));
                }
                if generation.is_some() {
                    return Err(rejection.into());
                }
                // The holder let go of it in between.
                attempts.count(rejection)?;
            }
            Err(rejection) => return Err(rejection.into()),
        }
    }
}

/// Lets those of a pod's elements expire within a moment that are there and still its own. [`remove_rest`], asked when
/// that moment is over, finds nothing to remove, and nobody waits for the kernel (docs/design/nftables.md). Where the kernel
/// cannot do this (before Linux 6.12) they stay, and [`remove_rest`] removes them.
///
/// `places` are those of the pod in the table of policies: whatever stands there is its own.
///
/// The generation changes in any case, as by [`remove_pod`].
///
/// # Errors
/// What the kernel refused. That an element, or a table, is not there is none.
pub async fn expire_pod(nft: &Nfnetlink, elements: &[Element], places: &[Element]) -> Result<(), NftError> {
    let expire = |table: &Table, own| expirations_in(table, own, MOMENT);
    change_own(nft, elements, places, !elements.is_empty(), expire).await
}

/// Removes what [`expire_pod`] could not end, and what has come back since: whoever makes a flushed table again reads
/// records, and those of pods that are going may be among them.
///
/// # Errors
/// What the kernel refused. That an element, or a table, is not there is none.
pub async fn remove_rest(nft: &Nfnetlink, elements: &[Element], places: &[Element]) -> Result<(), NftError> {
    let Some(left) = look_up(nft, elements).await? else {
        // Somebody may be making it again, from what was there before.
        return remove_pod(nft, elements, places).await;
    };
    let bound = find_in(nft, &policy::table(), places).await?;
    if left.iter().chain(&bound).all(Option::is_none) {
        return Ok(());
    }
    change_own(nft, elements, places, false, deletions_in).await
}

/// Removes those of a pod's elements that are there and still its own: a hostPort that leads to another pod by
/// now stays.
///
/// Where none is, the table was flushed, and whoever makes it again may have read the pod's record before this
/// command had its lock. What was decided on that must come to nothing, so the generation changes in any case.
///
/// # Errors
/// What the kernel refused. That an element, or a table, is not there is none.
pub async fn remove_pod(nft: &Nfnetlink, elements: &[Element], places: &[Element]) -> Result<(), NftError> {
    change_own(nft, elements, places, !elements.is_empty(), deletions_in).await?;
    // Whoever was faster than the change of the generation has brought them back.
    change_own(nft, elements, places, false, deletions_in).await
}

/// Changes those of a pod's elements that are there and still its own. Where none is, the generation at least if
/// `passes`.
async fn change_own(
    nft: &Nfnetlink,
    elements: &[Element],
    places: &[Element],
    passes: bool,
    change: impl Fn(&Table, Vec<Element>) -> Vec<Change>,
) -> Result<(), NftError> {
    let is_changed =
        |refusal: &KernelError| refusal.is_not_found() || refusal.is_exists() || refusal.is_taken();
    let mut attempts = Attempts::default();
    loop {
        let found = find(nft, elements).await?;
        let own = elements
            .iter()
            .zip(found)
            .filter(|(wanted, found)| found.as_ref().is_some_and(|found| found.data == wanted.data));
        let mut changes = change(&table(), own.map(|(wanted, _)| wanted.clone()).collect());
        let bound = find_in(nft, &policy::table(), places).await?;
        changes.extend(change(&policy::table(), bound.into_iter().flatten().collect()));
        if changes.is_empty() && passes {
            changes = passing_change();
        }
        match nft.commit(None, &changes).await {
            Ok(()) => return Ok(()),
            // Somebody flushed the table in between, gave a hostPort to another pod, or led the pod to another chain.
            Err(rejection) if rejection.is_because(is_changed) => attempts.count(rejection)?,
            Err(rejection) => return Err(rejection.into()),
        }
    }
}

/// A change after which nothing is different but the generation: in one transaction, nobody ever sees the table.
fn passing_change() -> Vec<Change> {
    let passing = Table { name: format!("{}-passing", table().name), ..table() };
    vec![Change::AddTable(passing.clone(), None), Change::DeleteTable(passing)]
}

/// What is missing or wrong in the table and among `elements`, in `nft`'s words; empty if nothing.
///
/// # Errors
/// What the kernel refused.
pub async fn differences(nft: &Nfnetlink, elements: &[Element]) -> Result<Vec<String>, NftError> {
    let mut differences = table_differences(nft).await?;
    for (wanted, found) in elements.iter().zip(find(nft, elements).await?) {
        match found {
            None => differences.push(format!("nft: element {} is missing", show(wanted))),
            Some(found) if found.data != wanted.data => {
                differences.push(format!("nft: element {} leads elsewhere", show(wanted)));
            }
            Some(_) => {}
        }
    }
    Ok(differences)
}

/// Removes the pods' elements of `networks` that `read` does not name. Adds nothing, and leaves alone what belongs to the
/// networks as a whole. Nothing to do where the table does not stand.
///
/// `read` is asked after the kernel: an ADD writes its record before its elements, and a DEL removes it after them, so
/// what is in the table by then and is in no record was left behind. Hence this needs no moment in which nobody
/// else changes anything, which [`rebuild`] has to wait for.
///
/// # Errors
/// What the kernel refused, and what `read` says.
pub async fn sweep<E: From<NftError>, W: Into<Wanted>>(
    nft: &Nfnetlink,
    networks: &[NetworkName],
    mut read: impl FnMut() -> Result<W, E>,
) -> Result<(), E> {
    let mut attempts = Attempts::default();
    loop {
        if !exists(nft).await.map_err(NftError::from)? {
            return Ok(());
        }
        let mut actual = read_elements(nft).await.map_err(NftError::from)?;
        actual.retain(|it| is_of_pods(&it.set));
        let stale = plan::stale(&actual, networks, read()?.into());
        match nft.commit(None, &deletions(stale)).await {
            Ok(()) => return Ok(()),
            // Somebody was faster.
            Err(rejection) if rejection.is_because(KernelError::is_not_found) => attempts.count(rejection)?,
            Err(rejection) => return Err(NftError::from(rejection).into()),
        }
    }
}

/// Whether there is a table of ours, be it as it should be or not.
///
/// # Errors
/// What the kernel refused.
pub async fn is_there(nft: &Nfnetlink) -> Result<bool, NftError> {
    Ok(nft.has_table(&table()).await?)
}

/// Removes the table with all that is in it. Not there is a success.
///
/// # Errors
/// What the kernel refused.
pub async fn remove_table(nft: &Nfnetlink) -> Result<(), NftError> {
    match nft.commit(None, &[Change::DeleteTable(table())]).await {
        Err(rejection) if rejection.is_because(KernelError::is_not_found) => Ok(()),
        outcome => Ok(outcome?),
    }
}

async fn read_elements(nft: &Nfnetlink) -> Result<Vec<Element>, KernelError> {
    let mut all = Vec::new();
    for set in sets() {
        all.extend(nft.elements(&table(), &set.name).await?);
    }
    Ok(all)
}

/// Those of `elements` that are hostPorts which lead elsewhere, and where to.
async fn find_clashes(nft: &Nfnetlink, elements: &[Element]) -> Result<Vec<Clash>, NftError> {
    let found = find(nft, elements).await?;
    let clashes = elements.iter().zip(found).filter_map(|(element, found)| {
        let (host_port, _) = read_host_port(element)?;
        let found = found.filter(|found| found.data != element.data)?;
        let (holder, holder_port) = found.data?.to_address_and_port()?;
        Some(Clash { host_port, holder, holder_port, comment: found.comment })
    });
    Ok(clashes.collect())
}

async fn find(nft: &Nfnetlink, wanted: &[Element]) -> Result<Vec<Option<Element>>, KernelError> {
    find_in(nft, &table(), wanted).await
}

async fn find_in(
    nft: &Nfnetlink,
    table: &Table,
    wanted: &[Element],
) -> Result<Vec<Option<Element>>, KernelError> {
    if wanted.is_empty() { Ok(Vec::new()) } else { nft.find_elements(table, wanted).await }
}

/// Decisions that somebody was faster than.
pub struct Attempts {
    made: usize,
    most: usize,
}

impl Default for Attempts {
    fn default() -> Self {
        Self { made: 0, most: ATTEMPTS }
    }
}

impl Attempts {
    /// For what every ADD does: of all that are at it at once one gets on each time, and an attempt that comes to nothing
    /// costs microseconds.
    pub fn of_many() -> Self {
        Self { made: 0, most: 32 * ATTEMPTS }
    }

    /// Counts one more.
    ///
    /// # Errors
    /// When it is the last, and why it came to nothing.
    pub fn count(&mut self, rejection: Rejection) -> Result<(), NftError> {
        self.made += 1;
        if self.made < self.most { Ok(()) } else { Err(NftError::Outrun(rejection)) }
    }
}

/// Whether somebody changed something first: by the generation, or by making the table.
fn is_outrun(rejection: &Rejection) -> bool {
    rejection.is_because(|refusal| refusal.is_outrun() || refusal.is_exists() || refusal.is_not_found())
}
