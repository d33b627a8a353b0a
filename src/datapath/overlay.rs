//! The overlay: which nodes need it, and keeping what leads to them.
//!
//! Desired against actual, like the peers' routes: [`keep`] may be called after any event and at any time, changes what
//! differs and nothing else. So it repairs a device, an entry or a rule that somebody removed, follows a node whose
//! address changed, and takes away what belongs to a node that left. One bad peer never stops the others.
//!
//! The pods' routes are not made here but by [`crate::datapath::peers::synchronise_with`], to be called after [`keep`]: beside the
//! direct ones, so that a peer's route changes its way in one step.

mod checksums;
mod device;
mod fdb;
mod reachability;

use crate::datapath::error::DatapathError;
use crate::datapath::peers::PeerFailure;
use crate::desired::names::{self, OVERLAY_DEVICE, ROUTE_PROTOCOL};
use crate::desired::object::Place;
use crate::desired::overlay::Overlay;
use crate::linux::change::Change;
use crate::linux::error::KernelError;
use crate::linux::link::{Link, LinkRef};
use crate::linux::netlink::Netlink;
use crate::linux::route::Family;
use crate::linux::rule::{Packets, Rule};
pub use checksums::keep_checksum_offload;
pub use device::{Made, is_overlay};
pub use reachability::{Settings, Ways, describe, ways};

/// What [`keep`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OverlayDone {
    /// What became of the device.
    pub device: Made,
    /// Entries, routes and rules that were missing or wrong and now stand.
    pub set: usize,
    /// Those of ours that nothing asks for any more.
    pub removed: usize,
    /// What could not be done, peer by peer.
    pub failures: Vec<PeerFailure>,
}

/// Makes device, forwarding entries, neighbours, rules and the nodes' routes what `overlay` says. Idempotent.
///
/// To be called in the node's namespace: one setting of the device has no message.
///
/// # Errors
/// Where the device cannot be had, the rules cannot be set, or the kernel cannot be read. A peer's own trouble is in
/// the answer.
pub async fn keep(node: &Netlink, overlay: &Overlay) -> Result<OverlayDone, DatapathError> {
    let (index, device) = device::ensure(node, &overlay.device()).await?;
    let mut done = OverlayDone { device, ..OverlayDone::default() };
    fdb::keep(node, overlay, index, &mut done).await?;
    keep_rules(node, overlay, &mut done).await?;
    Ok(done)
}

/// What there is of an overlay, besides what hangs on its device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// The device.
    pub device: Option<Link>,
    /// The rules.
    pub rules: Vec<Rule>,
}

/// Finds what [`keep`] made, whichever its settings were. A link of that name that is not ours is none of it.
///
/// # Errors
/// Where the kernel cannot be read.
pub async fn find(node: &Netlink) -> Result<Leftovers, DatapathError> {
    let device = node.link(LinkRef::Name(OVERLAY_DEVICE.into())).await?.filter(is_overlay);
    Ok(Leftovers { device, rules: own_rules(node).await? })
}

/// Removes all of it; returns what there was. The routes by the device go with it. What is not there is a success.
///
/// # Errors
/// What the kernel refused.
pub async fn remove(node: &Netlink) -> Result<Leftovers, DatapathError> {
    let remains = find(node).await?;
    let rules = remains.rules.iter().map(|&rule| Change::DeleteRule(rule));
    let device = remains.device.iter().map(|link| Change::DeleteLink(LinkRef::Index(link.index)));
    let outcomes = node.submit(rules.chain(device)).await;
    DatapathError::check(Place::Node, outcomes.into_iter().filter(|outcome| !is_gone(outcome)))?;
    Ok(remains)
}

/// Rules last: before, they would lead to a table without routes, which does no harm either.
async fn keep_rules(node: &Netlink, overlay: &Overlay, done: &mut OverlayDone) -> Result<(), DatapathError> {
    let wanted: Vec<Rule> = overlay
        .rules()
        .into_iter()
        .map(|rule| Rule {
            packets: Packets::From(rule.source),
            table: rule.table,
            priority: names::RULE_PRIORITY,
            protocol: ROUTE_PROTOCOL,
            suppress: None,
        })
        .collect();
    let actual = own_rules(node).await?;
    let stale = actual.iter().filter(|rule| !wanted.contains(rule)).map(|&rule| Change::DeleteRule(rule));
    let missing = wanted.iter().filter(|rule| !actual.contains(rule)).map(|&rule| Change::AddRule(rule));
    let (stale, missing): (Vec<Change>, Vec<Change>) = (stale.collect(), missing.collect());
    let (removed, set) = (stale.len(), missing.len());
    let outcomes = node.submit(stale.into_iter().chain(missing)).await;
    let is_settled = |outcome: &Result<(), KernelError>| {
        is_gone(outcome) || outcome.as_ref().is_err_and(KernelError::is_exists)
    };
    DatapathError::check(Place::Node, outcomes.into_iter().filter(|outcome| !is_settled(outcome)))?;
    done.removed += removed;
    done.set += set;
    Ok(())
}

/// Rules that are ours, of whatever network and whatever version: the node has one overlay.
async fn own_rules(node: &Netlink) -> Result<Vec<Rule>, DatapathError> {
    let mut rules = node.rules(Family::V4, ROUTE_PROTOCOL).await?;
    rules.extend(node.rules(Family::V6, ROUTE_PROTOCOL).await?);
    rules.retain(|rule| rule.priority == names::RULE_PRIORITY);
    Ok(rules)
}

fn is_gone(outcome: &Result<(), KernelError>) -> bool {
    outcome.as_ref().is_err_and(KernelError::is_not_found)
}
