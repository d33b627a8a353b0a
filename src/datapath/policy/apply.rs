//! Makes the table what a plan says, in pieces of which each leaves a right state.
//!
//! Sets are filled before a chain looks into them, chains are complete before one rule or element leads to them, and what
//! leads to something else by then goes last:
//!
//! ```text
//! skeleton -> sets: new members -> chains of ports -> of groups, with their maps -> of rules, with theirs
//!          -> chains of pods and holds: the switch -> elements of pods -> sets: members that went
//!          -> chains of pods and holds -> of rules, with their maps -> of groups, with theirs -> of ports -> sets
//! ```

use std::net::IpAddr;
use std::ops::RangeInclusive;

use crate::datapath::nftables::{Attempts, NftError};
use crate::datapath::policy::bindings::{Attached, Unknown, is_passing};
use crate::datapath::policy::compare::{Differences, is_leading};
use crate::datapath::policy::layout::{
    Made, Part, content_of, elements_of, pod_element, port_element, set, table,
};
use crate::datapath::policy::lead::Leading;
use crate::datapath::policy::mirror::{Mirror, read};
use crate::datapath::policy::skeleton;
use crate::datapath::policy::write::{RULES, Writer};
use crate::linux::error::KernelError;
use crate::linux::nfnetlink::Nfnetlink;
use crate::linux::nft::change::Change;
use crate::linux::nft::element::Element;
use crate::policy::plan::{Isolation, Members, Plan, Touched};

/// What [`apply`] did.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Transactions that changed something.
    pub transactions: usize,
    /// Whether something that was allowed may be denied now: flows that exist are to be judged again.
    pub taken_away: bool,
    /// Whether something that nothing needs any more could not be removed yet, because an element that leads to it has
    /// expired and is not freed yet: apply again in a second, touched or not.
    pub left_over: bool,
}

/// Makes the table what `plan` says, as far as `touched` says that it may differ, and leads the packets of `attached` pods
/// to their chains. Idempotent. A plan without pods and holds is no table.
///
/// A pod that is in the plan is led to its own chains. One that is not stays in the hold, and `unknown` says whether one is
/// held that is led nowhere: somebody may have taken its elements away. Records are to be read before
/// this, and again after it: an ADD that came in between found no chains; apply again if there is a new one.
///
/// # Errors
/// What the kernel refused. What was done until then stays, and is right by itself.
pub async fn apply(
    nft: &Nfnetlink,
    mirror: &mut Mirror,
    plan: &Plan,
    touched: &Touched,
    attached: &[Attached],
    unknown: Unknown,
) -> Result<Applied, NftError> {
    let all = Touched::everything();
    let mut attempts = Attempts::default();
    loop {
        let touched = if mirror.known { touched } else { &all };
        match attempt(nft, mirror, plan, touched, attached, unknown).await {
            // Somebody else changed the table: it is read again.
            Err(NftError::Rejected(rejection)) if is_passing(&rejection) => attempts.count(rejection)?,
            outcome => return outcome,
        }
    }
}

/// Makes the table from `plan`, which was on disk, if there is none; returns whether it did. Pods of the plan are led to
/// their chains, others to the hold of their namespace, as `unknown` says. Without `with_members` sets of pods are empty:
/// addresses of before a reboot are nobody's.
///
/// At first all are closed: an ADD that finds the table half made finds its chains.
///
/// # Errors
/// What the kernel refused.
pub async fn restore(
    nft: &Nfnetlink,
    plan: &Plan,
    attached: &[Attached],
    unknown: Unknown,
    with_members: bool,
) -> Result<bool, NftError> {
    if is_empty(plan) || nft.has_table(&table()).await? {
        return Ok(false);
    }
    let mut mirror = Mirror::of_no_table();
    let all = Touched::everything();
    match attempt(nft, &mut mirror, &closed(plan), &all, attached, unknown).await {
        Ok(_) => {}
        // Somebody else makes it.
        Err(NftError::Rejected(rejection)) if rejection.is_because(KernelError::is_exists) => {
            return Ok(false);
        }
        Err(error) => return Err(error),
    }
    let mut plan = plan.clone();
    for members in plan.sets.values_mut().filter(|_| !with_members) {
        match members {
            Members::Pods(pods) => pods.clear(),
            Members::Ports(ports) => ports.clear(),
            Members::Blocks(_) => {}
        }
    }
    apply(nft, &mut mirror, &plan, &all, attached, unknown).await?;
    Ok(true)
}

/// Removes the table. Not there is a success.
///
/// # Errors
/// What the kernel refused.
pub async fn remove(nft: &Nfnetlink) -> Result<(), NftError> {
    if !nft.has_table(&table()).await? {
        return Ok(());
    }
    match nft.commit(None, &[Change::DeleteTable(table())]).await {
        Err(rejection) if rejection.is_because(KernelError::is_not_found) => Ok(()),
        outcome => Ok(outcome?),
    }
}

impl Mirror {
    /// Where the table is not what `plan` says, in `nft`'s words; the elements of pods aside.
    pub fn differences(&self, plan: &Plan) -> Vec<String> {
        match (is_empty(plan), self.exists) {
            (true, false) => Vec::new(),
            (true, true) => vec!["the table, which nothing needs".to_owned()],
            (false, false) => vec!["the table, which is missing".to_owned()],
            (false, true) => {
                let all = Touched::everything();
                Differences::between(self, plan, &all).in_words()
            }
        }
    }
}

fn is_empty(plan: &Plan) -> bool {
    plan.pods.is_empty() && plan.holds.is_empty()
}

/// The plan in which all are closed that some rule restricts.
fn closed(plan: &Plan) -> Plan {
    let close = |isolation: &mut Isolation| {
        if matches!(isolation, Isolation::Rules(_)) {
            *isolation = Isolation::Closed;
        }
    };
    let mut closed = Plan { pods: plan.pods.clone(), holds: plan.holds.clone(), ..Plan::default() };
    closed.pods.values_mut().for_each(|pod| [&mut pod.ingress, &mut pod.egress].into_iter().for_each(close));
    closed.holds.values_mut().for_each(|it| [&mut it.ingress, &mut it.egress].into_iter().for_each(close));
    let tiers = closed.pods.values_mut().map(|it| &mut it.tiers);
    for tiers in tiers.chain(closed.holds.values_mut().map(|it| &mut it.tiers)) {
        tiers.all_mut().into_iter().for_each(close);
    }
    closed
}

async fn attempt(
    nft: &Nfnetlink,
    mirror: &mut Mirror,
    plan: &Plan,
    touched: &Touched,
    attached: &[Attached],
    unknown: Unknown,
) -> Result<Applied, NftError> {
    if !mirror.known {
        *mirror = read(nft).await?;
    }
    if is_empty(plan) {
        let transactions = usize::from(mirror.exists);
        if mirror.exists {
            remove(nft).await?;
            *mirror = Mirror::of_no_table();
        }
        return Ok(Applied { transactions, ..Applied::default() });
    }
    let mut differences = Differences::between(mirror, plan, touched);
    // To compare all of a large plan takes a while, and its first transaction too.
    tokio::task::yield_now().await;
    // Until all is done it is not known what was.
    mirror.known = false;
    if differences.hopeless {
        nft.commit(None, &[Change::DeleteTable(table())]).await?;
        *mirror = Mirror::default();
        differences = Differences::between(mirror, plan, touched);
    }
    let all = Touched::everything();
    let touched = if differences.skeleton { &all } else { touched };
    let mut applying = Applying { mirror, plan, writer: Writer::new(nft), applied: Applied::default() };
    applying.make(&differences).await?;
    let any_goes = differences.stale_chains.iter().any(|name| is_leading(name));
    let led = Leading { plan, attached, touched, any_goes, unknown }.lead(nft).await?;
    applying.remove_members(&differences).await?;
    applying.remove_chains(nft, &differences).await?;
    applying.remove_sets(&differences.stale_sets).await?;
    let mut applied = applying.applied;
    applied.transactions = applying.writer.transactions + led.transactions;
    applied.taken_away |= led.taken_away;
    if differences.skeleton {
        mirror.is_untold = applying.writer.is_untold;
    }
    mirror.known = true;
    Ok(applied)
}

pub(super) struct Applying<'m, 'n> {
    pub(super) mirror: &'m mut Mirror,
    pub(super) plan: &'m Plan,
    pub(super) writer: Writer<'n>,
    pub(super) applied: Applied,
}

impl Applying<'_, '_> {
    /// All that is added or switched over.
    async fn make(&mut self, differences: &Differences) -> Result<(), NftError> {
        let judges_own = differences.judges_own;
        if differences.skeleton {
            // Of a table that was there, the chains of pods may not let through yet what it leaves to them.
            let judges_own = judges_own && !self.mirror.exists;
            let changes =
                if self.mirror.exists { self.mend_skeleton() } else { skeleton::changes(judges_own) };
            self.writer.add(changes).await?;
            self.mirror.exists = true;
            self.mirror.skeleton_differs = false;
            self.mirror.judges_own = judges_own;
        }
        if !judges_own && self.mirror.judges_own {
            self.switch_own(judges_own).await?;
        }
        for set in &differences.sets {
            let Some(wanted) = set.wanted(self.plan) else { continue };
            self.fill(&set.name, wanted, set.moved.as_deref()).await?;
        }
        for part in &differences.chains {
            self.make_part(part).await?;
        }
        // A map of ranges is filled for packets only after the rules of its transaction hold: it comes before the switch.
        if !differences.chains.is_empty() {
            self.writer.flush().await?;
        }
        for made in &differences.leading {
            self.writer.add(made.changes()).await?;
        }
        self.made(&differences.leading);
        self.writer.flush().await?;
        if judges_own && !self.mirror.judges_own {
            self.switch_own(judges_own).await?;
        }
        Ok(())
    }

    /// Has a pod's packets to itself judged in the chains of pods, or let through before: the chains of pods let through what
    /// policies allow either way, so this comes after them in one case and before in the other.
    async fn switch_own(&mut self, judges_own: bool) -> Result<(), NftError> {
        self.writer.add(skeleton::switch_own(judges_own)).await?;
        self.mirror.judges_own = judges_own;
        self.applied.taken_away |= judges_own;
        Ok(self.writer.flush().await?)
    }

    /// Makes a chain, with its map before it. Its elements are as many as the author of a policy likes, so they go in pieces:
    /// nothing leads there yet.
    async fn make_part(&mut self, Part { made, map }: &Part) -> Result<(), NftError> {
        let mut changes = Vec::new();
        if let Some((set, elements)) = map {
            let is_there = self.mirror.maps.contains_key(&set.name);
            let is_used = self.mirror.chains.contains_key(&made.chain.name);
            let mut map = Vec::new();
            // Of a map that somebody has changed nothing stays, so that no ranges overlap.
            if is_there {
                map.extend(is_used.then(|| Change::FlushChain(table(), made.chain.name.clone())));
                map.push(Change::DeleteSet(table(), set.name.clone()));
            }
            map.push(Change::AddSet(table(), set.clone()));
            if is_there && is_used {
                // At one moment with the chain, which leads nowhere meanwhile.
                map.push(Change::AddElements(table(), elements.clone()));
                changes = map;
            } else {
                self.writer.add(map).await?;
                self.writer.add_elements(elements.iter().cloned()).await?;
            }
            self.mirror.maps.insert(set.name.clone(), content_of(elements));
        }
        let is_there = self.mirror.chains.contains_key(&made.chain.name);
        self.made(std::slice::from_ref(made));
        if made.rules.len() > RULES {
            self.writer.add(changes).await?;
            return self.writer.add_long_chain(made, is_there).await;
        }
        changes.extend(made.changes());
        Ok(self.writer.add(changes).await?)
    }

    fn made(&mut self, chains: &[Made]) {
        for made in chains {
            // One that was there led elsewhere, or was changed by somebody.
            let before = self.mirror.chains.insert(made.chain.name.clone(), made.content());
            self.applied.taken_away |= before.is_some();
        }
    }

    /// In one transaction, so that no packet sees it without a chain.
    fn mend_skeleton(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        let (wrong_sets, wrong_chains) =
            (std::mem::take(&mut self.mirror.wrong_sets), std::mem::take(&mut self.mirror.wrong_chains));
        for made in skeleton::chains(false).iter().rev() {
            changes.push(Change::AddChain(table(), made.chain.clone()));
            changes.push(Change::FlushChain(table(), made.chain.name.clone()));
        }
        // Those were of another kind, so that nothing was added to them.
        changes.retain(
            |change| !matches!(change, Change::AddChain(_, chain) if wrong_chains.contains(&chain.name)),
        );
        changes.extend(wrong_chains.into_iter().map(|name| Change::DeleteChain(table(), name)));
        changes.extend(wrong_sets.into_iter().map(|name| Change::DeleteSet(table(), name)));
        changes.extend(skeleton::sets().into_iter().map(|set| Change::AddSet(table(), set)));
        changes.extend(skeleton::chains(false).iter().flat_map(Made::changes));
        changes
    }

    /// Makes a set, and adds what is missing in it.
    async fn fill(&mut self, name: &str, wanted: &Members, moved: Option<&[IpAddr]>) -> Result<(), NftError> {
        let there = self.mirror.sets.get(name);
        if there.is_none() {
            self.writer.add(vec![Change::AddSet(table(), set(name, wanted))]).await?;
        }
        if let (Some(Members::Blocks(there)), Members::Blocks(wanted)) = (there, wanted) {
            // Somebody has changed it. What is wrong may overlap with what is missing, so it goes before.
            self.writer.delete_elements(&ranges_of(name, &without(there, wanted))).await?;
            self.writer.flush().await?;
            self.writer.add_elements(ranges_of(name, &without(wanted, there))).await?;
            self.mirror.sets.insert(name.to_owned(), Members::Blocks(wanted.clone()));
            return Ok(());
        }
        let Some(there) = there else {
            self.writer.add_elements(elements_of(name, wanted)).await?;
            self.mirror.sets.insert(name.to_owned(), wanted.clone());
            return Ok(());
        };
        self.writer.add_elements(added(name, there, wanted, moved)).await?;
        match (self.mirror.sets.get_mut(name), wanted, moved) {
            (Some(Members::Pods(there)), Members::Pods(wanted), Some(moved)) => {
                there.extend(moved.iter().filter(|it| wanted.contains(*it)));
            }
            (Some(Members::Pods(there)), Members::Pods(wanted), None) => there.extend(wanted),
            (Some(Members::Ports(there)), Members::Ports(wanted), _) => there.extend(wanted),
            _ => {}
        }
        Ok(())
    }
}

/// The elements of what `there` has more than `base`, as far as that is known to be among `moved`.
pub(super) fn added(name: &str, base: &Members, there: &Members, moved: Option<&[IpAddr]>) -> Vec<Element> {
    match (base, there, moved) {
        (Members::Pods(base), Members::Pods(there), Some(moved)) => {
            let more = moved.iter().filter(|it| there.contains(*it) && !base.contains(*it));
            more.map(|it| pod_element(name, *it)).collect()
        }
        (Members::Pods(base), Members::Pods(there), None) => {
            there.difference(base).map(|it| pod_element(name, *it)).collect()
        }
        (Members::Ports(base), Members::Ports(there), _) => {
            there.difference(base).map(|it| port_element(name, *it)).collect()
        }
        _ => Vec::new(),
    }
}

type Block = RangeInclusive<IpAddr>;

fn without(blocks: &[Block], others: &[Block]) -> Vec<Block> {
    blocks.iter().filter(|block| !others.contains(block)).cloned().collect()
}

fn ranges_of(name: &str, blocks: &[Block]) -> Vec<Element> {
    blocks.iter().flat_map(|block| Element::range(name, *block.start(), *block.end())).collect()
}
