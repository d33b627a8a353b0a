//! What a node needs besides its pods, and what its pods need to know of it.

mod uplink;

use crate::datapath::error::DatapathError;
use crate::desired::names::{POD_RULE_PRIORITY, ROUTE_PROTOCOL};
use crate::desired::node::NodeState;
use crate::desired::object::{Place, Route};
use crate::linux::change::Change;
use crate::linux::error::KernelError;
use crate::linux::link::LinkRef;
use crate::linux::netlink::Netlink;
use crate::linux::route::{AddMode, Family, RouteFilter};
use crate::linux::rule::Rule;
use crate::linux::sysctl;
pub use uplink::{Uplink, find_uplink, missing_addresses};

/// Index of `lo` in every namespace (`LOOPBACK_IFINDEX`, include/net/flow.h).
pub(super) const LOOPBACK: u32 = 1;

/// `RTPROT_RA`: a route that a router advertisement made (include/uapi/linux/rtnetlink.h).
const PROTOCOL_RA: u8 = 9;

/// A setting that the node needs, and what it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switch {
    /// Components below /proc/sys.
    pub path: Vec<String>,
    /// Its value now.
    pub before: String,
    /// The value that is needed.
    pub after: String,
}

impl Switch {
    /// Whether it has to be written.
    pub fn is_due(&self) -> bool {
        self.before != self.after
    }
}

/// The settings that the node needs, in the order in which they are to be written. Changes nothing, so that the caller
/// can remember what was before.
///
/// # Errors
/// What the kernel refused.
pub async fn find_switches(node: &Netlink, state: &NodeState) -> Result<Vec<Switch>, DatapathError> {
    let mut switches = Vec::new();
    for wanted in state.forwarding() {
        let before = sysctl::read(&parts(&wanted.path))?;
        let is_ipv6 = wanted.path.iter().any(|part| part == "ipv6");
        let switch = Switch { path: wanted.path, before, after: wanted.value.to_string() };
        if is_ipv6 && switch.is_due() {
            switches.extend(listening_uplinks(node).await?);
        }
        switches.push(switch);
    }
    Ok(switches)
}

/// Writes those of the settings found by [`find_switches`] that differ, and adds the node's standing routes, rules
/// and addresses. Idempotent.
///
/// # Errors
/// What the kernel refused.
pub async fn prepare(node: &Netlink, state: &NodeState, switches: &[Switch]) -> Result<(), DatapathError> {
    for switch in switches.iter().filter(|switch| switch.is_due()) {
        sysctl::write(&parts(&switch.path), &switch.after)?;
    }
    let add =
        |route: &Route| Change::AddRoute { route: route.by_index(Some(LOOPBACK)), mode: AddMode::Exclusive };
    let mut changes: Vec<Change> = state.standing_routes().iter().map(add).collect();
    changes.extend(state.standing_addresses().iter().map(|it| Change::AddAddress(it.by_index(LOOPBACK))));
    let others = changes.len();
    changes.extend(state.pod_rules().into_iter().map(Change::AddRule));
    let mut outcomes = node.submit(changes).await;
    let ruled = outcomes.split_off(others);
    // A kernel without policy routing has no rules of others either.
    let ruled = ruled.into_iter().filter(|it| !it.as_ref().is_err_and(KernelError::is_unsupported));
    DatapathError::check(
        Place::Node,
        outcomes.into_iter().chain(ruled).filter(|it| !it.as_ref().is_err_and(|refusal| refusal.is_exists())),
    )
}

/// Removes the rules that keep pods from the metadata service where the conf asks for them no longer. An ADD does not look.
///
/// # Errors
/// What the kernel refused.
pub async fn allow_metadata(node: &Netlink, state: &NodeState) -> Result<(), DatapathError> {
    let stale = state.stale_refusals(pod_rules_of_node(node).await?);
    let outcomes = node.submit(stale.into_iter().map(Change::DeleteRule)).await;
    let is_gone = |it: &Result<(), KernelError>| it.as_ref().is_err_and(KernelError::is_not_found);
    DatapathError::check(Place::Node, outcomes.into_iter().filter(|it| !is_gone(it)))
}

/// The rules for this node's pods that are there, of whatever network.
///
/// # Errors
/// Where the kernel cannot be asked.
pub async fn pod_rules_of_node(node: &Netlink) -> Result<Vec<Rule>, KernelError> {
    let mut rules = node.rules(Family::V4, ROUTE_PROTOCOL).await?;
    rules.extend(node.rules(Family::V6, ROUTE_PROTOCOL).await?);
    rules.retain(|rule| rule.priority == POD_RULE_PRIORITY);
    Ok(rules)
}

/// A host that forwards no longer listens to router advertisements, and the kernel drops the default route
/// that came from one at that moment; unless the link says `accept_ra` 2 (Documentation/networking/ip-sysctl).
/// So links that live on such a route are told so first (cilium#21819, k3s#5019).
async fn listening_uplinks(node: &Netlink) -> Result<Vec<Switch>, DatapathError> {
    let filter = RouteFilter { protocol: Some(PROTOCOL_RA), ..RouteFilter::all(Family::V6) };
    let mut switches: Vec<Switch> = Vec::new();
    for route in node.routes(filter).await? {
        let Some(device) = route.device.filter(|_| route.destination.prefix() == 0) else { continue };
        if let Some(link) = node.link(LinkRef::Index(device)).await? {
            let path = ["net", "ipv6", "conf", &link.name, "accept_ra"].map(str::to_owned).to_vec();
            let before = sysctl::read(&parts(&path))?;
            if before != "2" && !switches.iter().any(|switch| switch.path == path) {
                switches.push(Switch { path, before, after: "2".to_owned() });
            }
        }
    }
    Ok(switches)
}

fn parts(path: &[String]) -> Vec<&str> {
    path.iter().map(String::as_str).collect()
}
