//! The node's side of running pods: what ADD made there, made again where it is gone or wrong.
//!
//! The kernel drops much of it by itself. With an address of the node go all IPv4 routes that have it as `src`, those to
//! pods included, without an event (fib_sync_down_addr, net/ipv4/fib_semantics.c), and IPv6 routes lose the source. With a
//! link that goes down go its routes and neighbours. What others remove, or change, is repaired likewise.

use crate::datapath::attach::write_sysctl;
use crate::datapath::changes::{changes_for, link_settings, set_alias, token_bucket};
use crate::datapath::compare::faulty_on_node;
use crate::datapath::detach::is_whole;
use crate::datapath::error::DatapathError;
use crate::datapath::observe::{Snapshot, read_shaping, read_sysctls};
use crate::desired::attachment::Attachment;
use crate::desired::names::ROUTE_PROTOCOL;
use crate::desired::object::{Object, Place};
use crate::linux::change::Change;
use crate::linux::error::KernelError;
use crate::linux::link::{Ifb, LinkRef};
use crate::linux::netlink::Netlink;
use crate::linux::qdisc::Qdisc;
use crate::linux::route::{AddMode, Family, RouteFilter};

/// How many changes are asked for at once.
const AT_ONCE: usize = 512;

/// How much is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// What the kernel drops with an address or a link: links, neighbours, routes.
    Droppable,
    /// Sysctls and queues as well, which are read link by link.
    All,
}

/// Makes the node's side of the pods what it should be; returns how many objects were missing or wrong. Idempotent. A
/// pod whose ADD or DEL is under way, or whose link is gone, is left alone. The MTU of an attachment is taken to be its
/// link's.
///
/// To be called in the node's namespace: some settings have no message.
///
/// # Errors
/// What the kernel refused.
pub async fn repair(
    node: &Netlink,
    attachments: Vec<Attachment>,
    depth: Depth,
) -> Result<usize, DatapathError> {
    if attachments.is_empty() {
        return Ok(0);
    }
    let mut snapshot = Snapshot::default();
    snapshot.links.extend(node.links().await?.into_iter().map(|link| (link.name.clone(), link)));
    let (mut objects, mut fresh) = (Vec::new(), Vec::new());
    for mut attachment in attachments {
        let Some(link) = snapshot.links.get(&attachment.host_link()) else { continue };
        if !is_whole(link, &attachment.key) {
            continue;
        }
        attachment.mtu = link.mtu;
        for object in attachment.objects() {
            if let Object::Ifb(ifb) = &object
                && !snapshot.links.contains_key(&ifb.name)
            {
                fresh.push(Fresh { host: attachment.host_link(), ifb: ifb.clone() });
            }
            objects.push(object);
        }
    }
    make_ifbs(node, &fresh, &mut snapshot).await?;
    // What hangs on a link that was just made is missing.
    let is_of_fresh = |object: &Object| match object {
        Object::Shaper(shaper) => fresh.iter().any(|it| it.ifb.name == shaper.link),
        Object::Redirect(redirect) => fresh.iter().any(|it| it.ifb.name == redirect.to),
        _ => false,
    };
    let is_droppable = |object: &Object| {
        matches!(object, Object::Link(_) | Object::Neighbour(_) | Object::Route(..)) || is_of_fresh(object)
    };
    objects.retain(|it| it.place() == Place::Node && (depth == Depth::All || is_droppable(it)));
    observe(node, &objects, &mut snapshot).await?;
    // A link may lack IPv6, and its settings with it.
    objects.retain(|it| !matches!(it, Object::Sysctl(it) if !snapshot.sysctls.contains_key(&it.path)));
    let faulty = faulty_on_node(&objects, &snapshot);
    write_settings(&faulty)?;
    let index = |name: &str| snapshot.links.get(name).map_or(0, |link| link.index);
    // What stands in their place is in the way; that nothing does is no failure.
    let in_the_way = faulty.iter().filter_map(|object| match object {
        Object::Shaper(shaper) => {
            Some(Change::DeleteQdisc { index: index(&shaper.link), qdisc: Qdisc::Tbf(token_bucket(shaper)) })
        }
        Object::Redirect(it) => Some(Change::DeleteQdisc { index: index(&it.from), qdisc: Qdisc::Ingress }),
        _ => None,
    });
    node.submit(in_the_way.collect::<Vec<_>>()).await;
    let changes: Vec<Change> = faulty.iter().flat_map(|object| changes_to_repair(object, index)).collect();
    for some in changes.chunks(AT_ONCE) {
        let mut outcomes = node.submit(some.iter().cloned()).await;
        // A pod may go while this is at work.
        let is_gone = |it: &KernelError| it.is_of_gone_link() || it.is_not_found() || it.is_exists();
        outcomes.retain(|it| !it.as_ref().is_err_and(is_gone));
        DatapathError::check(Place::Node, outcomes)?;
    }
    Ok(fresh.len() + faulty.len())
}

/// Writes the sysctls that have no message.
fn write_settings(faulty: &[&Object]) -> Result<(), DatapathError> {
    for object in faulty {
        let Object::Sysctl(wanted) = object else { continue };
        if link_settings(wanted).is_some() {
            continue;
        }
        match write_sysctl(wanted) {
            // Its link went meanwhile.
            Err(refused) if refused.is_not_found() => {}
            written => written.map_err(DatapathError::Sysctl)?,
        }
    }
    Ok(())
}

/// A link that what a pod sends goes through, which is missing; and the pod's host link.
struct Fresh {
    host: String,
    ifb: Ifb,
}

/// Makes them. One whose pod went meanwhile is removed again: its DEL has looked for it before.
async fn make_ifbs(node: &Netlink, fresh: &[Fresh], snapshot: &mut Snapshot) -> Result<(), DatapathError> {
    let outcomes = node.submit(fresh.iter().map(|it| Change::CreateIfb(it.ifb.clone()))).await;
    let is_there = |it: &Result<(), KernelError>| it.as_ref().is_err_and(KernelError::is_exists);
    DatapathError::check(Place::Node, outcomes.into_iter().filter(|outcome| !is_there(outcome)))?;
    for it in fresh {
        let Some(made) = node.link(LinkRef::Name(it.ifb.name.clone())).await? else { continue };
        if node.link(LinkRef::Name(it.host.clone())).await?.is_none() {
            // Whoever else has removed it is welcome.
            node.submit([Change::DeleteLink(LinkRef::Index(made.index))]).await;
            continue;
        }
        snapshot.links.insert(it.ifb.name.clone(), made);
    }
    Ok(())
}

/// Reads what the objects are compared with, all pods' at once where that can be.
async fn observe(node: &Netlink, objects: &[Object], snapshot: &mut Snapshot) -> Result<(), DatapathError> {
    for family in [Family::V4, Family::V6] {
        let filter = RouteFilter { protocol: Some(ROUTE_PROTOCOL), ..RouteFilter::all(family) };
        snapshot.routes.extend(node.routes(filter).await?);
    }
    snapshot.neighbours = node.all_neighbours().await?;
    snapshot.sysctls = read_sysctls(objects, Place::Node);
    read_shaping(node, objects, Place::Node, snapshot).await
}

fn changes_to_repair(object: &Object, index: impl Fn(&str) -> u32) -> Vec<Change> {
    let mut changes = changes_for(object, index);
    for change in &mut changes {
        if let Change::AddRoute { mode, .. } = change {
            *mode = AddMode::Replace;
        }
    }
    if let Object::Link(link) = object {
        changes.extend(set_alias(link));
    }
    changes
}
