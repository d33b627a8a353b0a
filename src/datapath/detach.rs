//! DEL's verb, and GC's, and the rollback of ADD: removes what an attachment has in the kernel.
//!
//! One deletion is enough: a veth pair dies as one, and with each end die its addresses, neighbours,
//! routes and queues. Where what the pod sends is limited, there is one more link, which goes in the same message. The
//! kernel then waits for RCU grace periods (about 20 ms, docs/design/decisions.md); several processes
//! overlap there by themselves, and one process that removes many pays once, see [`detach_all`].

use std::collections::HashSet;

use crate::cni::ids::{AttachmentKey, NetworkName};
use crate::datapath::error::DatapathError;
use crate::desired::names;
use crate::desired::object::Place;
use crate::linux::change::Change;
use crate::linux::error::KernelError;
use crate::linux::link::{Link, LinkRef, LinkSettings};
use crate::linux::netlink::Netlink;
use crate::linux::netns::Netns;

/// Removes the attachment's links from the node. Not there is a success, and so is a link of the same name
/// that does not bear the attachment's marks: it is not ours to touch.
///
/// # Errors
/// What the kernel refused.
pub async fn detach(node: &Netlink, key: &AttachmentKey) -> Result<(), DatapathError> {
    let mut links: Vec<Link> = Vec::new();
    for name in names::node_links(key) {
        links.extend(node.link(LinkRef::Name(name)).await?.filter(|link| is_marked(link, key)));
    }
    let outcome = match links.as_slice() {
        [] => return Ok(()),
        [link] => node.submit([Change::DeleteLink(LinkRef::Index(link.index))]).await,
        // Not by `detach_all`, which lists the node's links: a DEL must not cost more the more pods there are.
        links => {
            let group = names::doomed_group(std::process::id());
            let removal = links.iter().map(|link| doom(link, group)).chain([Change::DeleteLinkGroup(group)]);
            node.submit(removal).await
        }
    };
    DatapathError::check(Place::Node, outcome.into_iter().filter(|outcome| !is_gone(outcome)))
}

/// Removes the link `ifname` from the namespace of a pod that another plugin attached, if it is one end of a pair whose
/// other end is elsewhere; what else a plugin may have put there goes with the namespace. Not there is a success.
///
/// # Errors
/// What the kernel refused.
pub async fn detach_imported(sandbox: &Netns, ifname: &str) -> Result<(), DatapathError> {
    let inside = Netlink::open_in(sandbox)?;
    let refuse = |refusal| DatapathError::Refused { place: Place::Sandbox, refusals: vec![refusal] };
    let link = inside.link(LinkRef::Name(ifname.to_owned())).await.map_err(refuse)?;
    let is_pods = |link: &Link| link.kind.as_deref() == Some("veth") && link.peer_netns_id.is_some();
    let Some(link) = link.filter(is_pods) else { return Ok(()) };
    let outcome = inside.submit([Change::DeleteLink(LinkRef::Index(link.index))]).await;
    DatapathError::check(Place::Sandbox, outcome.into_iter().filter(|outcome| !is_gone(outcome)))
}

/// Removes many links of one network in one message, so that they share the kernel's grace periods.
///
/// They are first moved into a link group of this process alone. If another link is found in that group,
/// they are deleted one by one instead: nothing without our mark is ever removed.
///
/// # Errors
/// What the kernel refused. Links that vanish meanwhile are a success.
pub async fn detach_all(node: &Netlink, links: &[Link]) -> Result<(), DatapathError> {
    if links.is_empty() {
        return Ok(());
    }
    let group = names::doomed_group(std::process::id());
    let indexes: HashSet<u32> = links.iter().map(|link| link.index).collect();
    let marked = node.submit(links.iter().map(|link| doom(link, group))).await;
    DatapathError::check(Place::Node, marked.into_iter().filter(|outcome| !is_gone(outcome)))?;
    let in_group: Vec<Link> = node.links().await?.into_iter().filter(|link| link.group == group).collect();
    let outcome = if in_group.iter().all(|link| indexes.contains(&link.index)) {
        node.submit([Change::DeleteLinkGroup(group)]).await
    } else {
        node.submit(links.iter().map(|link| Change::DeleteLink(LinkRef::Index(link.index)))).await
    };
    DatapathError::check(Place::Node, outcome.into_iter().filter(|outcome| !is_gone(outcome)))
}

/// Moves a link into the group of those that this process removes. Who else is in there bears the mark of a process that
/// died on the way, and was to go as well.
fn doom(link: &Link, group: u32) -> Change {
    let settings = LinkSettings { group: Some(group), ..LinkSettings::default() };
    Change::SetLink { link: LinkRef::Index(link.index), settings }
}

/// Whether a link of the node bears this attachment's marks: its alias, or, where a kill came before the alias,
/// the network's link group (or the group of a process that was about to remove it).
pub fn is_marked(link: &Link, key: &AttachmentKey) -> bool {
    match &link.alias {
        Some(alias) => names::alias_names(alias, key),
        None => bears_group(link, &key.network),
    }
}

/// Whether a link was made for this network by ferrule: by the alias, or by the link group that it has from
/// the first moment. One in the group of a process that was about to remove it counts as well: whosever it was, it
/// was to go.
pub fn bears_mark_of(link: &Link, network: &NetworkName) -> bool {
    match &link.alias {
        Some(alias) => alias.starts_with(&format!("{}{network}/", names::ALIAS_PREFIX)),
        None => bears_group(link, network),
    }
}

fn bears_group(link: &Link, network: &NetworkName) -> bool {
    let was_doomed = names::is_doomed_group(link.group) && names::is_node_link(&link.name);
    link.group == names::link_group(network) || was_doomed
}

/// Whether the ADD that made this link lived to answer: the alias is its last step.
pub fn is_whole(link: &Link, key: &AttachmentKey) -> bool {
    link.alias.as_ref().is_some_and(|alias| names::alias_names(alias, key))
}

fn is_gone(outcome: &Result<(), KernelError>) -> bool {
    outcome.as_ref().is_err_and(KernelError::is_not_found)
}
