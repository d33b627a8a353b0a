//! ADD's verb: makes an attachment's objects.
//!
//! Five stages, since each needs what the one before it made:
//!
//! 1. [`make_links`]: the pair, one message from the node, and the link that a limit of what the pod sends needs;
//! 2. the caller's: what the pod has in the nftables tables, its policies among it. A link that is down carries nothing, so
//!    all of it is there before the pod's first packet;
//! 3. [`bring_up`]: the sysctls that netlink cannot set, which must stand before a link goes up. One visit to the pod's
//!    namespace writes those of the pod and opens the socket for the next stage;
//! 4. everything else: one batch for each namespace, the node's first;
//!    In a pod that has another interface, rules by which each address answers by its own follow
//!    ([`crate::datapath::interfaces`]);
//! 5. [`mark_complete`]: the alias of the host link, by which an attachment that is whole is told from one that was cut
//!    short.
//!
//! A failure leaves what was made so far. The caller takes it back with [`crate::datapath::detach::detach`], the same
//! verb that DEL uses.

use crate::datapath::detach::is_marked;
use crate::datapath::error::DatapathError;
use crate::datapath::{changes, interfaces};
use crate::desired::attachment::Attachment;
use crate::desired::object::{Object, Pair, Place, Sysctl};
use crate::linux::change::Change;
use crate::linux::error::KernelError;
use crate::linux::link::{self, Ifb, LinkRef};
use crate::linux::netlink::{Netlink, Socket};
use crate::linux::netns::Netns;
use crate::linux::route::{AddMode, Route, RouteKind};
use crate::linux::sysctl::{self, SysctlError};

/// Makes the links that `attachment` describes, between the node of `node` and `sandbox`. Nothing passes them: they are
/// down.
///
/// # Errors
/// What the kernel refused. What was made stays, for the caller to remove.
pub async fn make_links(
    node: &Netlink,
    sandbox: &Netns,
    attachment: &Attachment,
) -> Result<(), DatapathError> {
    for object in &attachment.objects() {
        match object {
            Object::Pair(pair) => create_pair(node, sandbox, attachment, pair).await?,
            Object::Ifb(ifb) => create_ifb(node, attachment, ifb).await?,
            _ => {}
        }
    }
    Ok(())
}

/// Makes everything else that `attachment` describes, and sets its links up; all but the last step, [`mark_complete`].
///
/// # Errors
/// All that the kernel refused. What was made stays, for the caller to remove.
pub async fn bring_up(node: &Netlink, sandbox: &Netns, attachment: &Attachment) -> Result<(), DatapathError> {
    let objects = attachment.objects();
    write_sysctls(&objects, Place::Node)?;
    let ends = Ends::on_node(attachment, &objects)?;
    let (socket, pod_end) = sandbox.run(|| {
        write_sysctls(&objects, Place::Sandbox)?;
        let socket = Socket::open_here();
        let socket = socket.map_err(|source| DatapathError::Socket { place: "pod", source })?;
        Ok::<_, DatapathError>((socket, index_of(attachment.key.ifname.as_str())?))
    })??;
    let pod = Netlink::start(socket);

    DatapathError::check(Place::Node, node.submit(batch(&objects, Place::Node, &ends)).await)?;
    let in_pod = Ends { pair: pod_end, ifb: None };
    let others = interfaces::of_others(pod.addresses(None).await?, pod_end);
    make_in_pod(&pod, batch(&objects, Place::Sandbox, &in_pod), pod_end, !others.is_empty()).await?;
    if !others.is_empty() {
        interfaces::part(&pod, attachment, pod_end, &others).await?;
    }
    await_carrier(node, ends.pair).await
}

/// A route that the pod has by another of its interfaces stays, and the new one comes behind it: a second network with a
/// default route of its own finds the first one's, say. So it is with the reference plugins, which leave it out.
async fn make_in_pod(
    pod: &Netlink,
    changes: Vec<Change>,
    pod_end: u32,
    has_others: bool,
) -> Result<(), DatapathError> {
    let routes: Vec<Option<Route>> = changes
        .iter()
        .map(|change| match change {
            Change::AddRoute { route, .. } => Some(route.clone()),
            _ => None,
        })
        .collect();
    let (mut outcomes, mut behind) = (Vec::new(), Vec::new());
    for (outcome, route) in pod.submit(changes).await.into_iter().zip(routes) {
        match route.filter(|_| outcome.as_ref().is_err_and(KernelError::is_exists)) {
            Some(route) if has_others && route.kind == RouteKind::Unicast => {
                let route = interfaces::behind_others(&route, pod_end);
                behind.push(Change::AddRoute { route, mode: AddMode::Exclusive });
            }
            Some(_) => {}
            None => outcomes.push(outcome),
        }
    }
    // Of two routes of one conf to the same destination the first counts.
    let is_there = |outcome: &Result<(), KernelError>| outcome.as_ref().is_err_and(KernelError::is_exists);
    outcomes.extend(pod.submit(behind).await.into_iter().filter(|outcome| !is_there(outcome)));
    DatapathError::check(Place::Sandbox, outcomes)
}

/// Makes sure that both ends carry packets.
///
/// The node's end went up first, and had no carrier then. That it has one since is put into effect by the kernel's
/// link watch, a little later, on a busy node by milliseconds; until then what is sent through it is dropped in
/// silence. Looking at a link has its link watch done first (linkwatch_sync_dev in rtnl_getlink,
/// net/core/rtnetlink.c, since Linux 6.8; before that, the window stays).
async fn await_carrier(node: &Netlink, host: u32) -> Result<(), DatapathError> {
    node.link(LinkRef::Index(host)).await?;
    Ok(())
}

/// Index of a link of this thread's namespace that was just made.
fn index_of(name: &str) -> Result<u32, DatapathError> {
    match link::index_of(name) {
        Ok(Some(index)) => Ok(index),
        Ok(None) => Err(DatapathError::LinkVanished(name.to_owned())),
        Err(source) => Err(DatapathError::Index { name: name.to_owned(), source }),
    }
}

/// Declares an attachment whole, once the runtime has its answer: gives the host link its alias. A link without one
/// was left by an ADD that did not live to answer ([`crate::datapath::detach::is_whole`]).
///
/// # Errors
/// What the kernel refused.
pub async fn mark_complete(node: &Netlink, attachment: &Attachment) -> Result<(), DatapathError> {
    let declarations = attachment.objects().into_iter().filter_map(|object| match object {
        Object::Link(link) => changes::set_alias(&link),
        _ => None,
    });
    DatapathError::check(Place::Node, node.submit(declarations).await)
}

/// Interface indexes of an attachment's links in one namespace.
struct Ends {
    /// Of the end of the pair.
    pair: u32,
    /// Name and index of the ifb link, if there is one.
    ifb: Option<(String, u32)>,
}

impl Ends {
    /// Those on the node, which is where the calling thread is.
    fn on_node(attachment: &Attachment, objects: &[Object]) -> Result<Self, DatapathError> {
        let ifb = objects.iter().find_map(|object| match object {
            Object::Ifb(ifb) => Some(index_of(&ifb.name).map(|index| (ifb.name.clone(), index))),
            _ => None,
        });
        Ok(Self { pair: index_of(&attachment.host_link())?, ifb: ifb.transpose()? })
    }

    /// Index of the link of that name.
    fn index(&self, link: &str) -> u32 {
        match &self.ifb {
            Some((name, index)) if name == link => *index,
            _ => self.pair,
        }
    }
}

/// Makes the pair. If a killed ADD of the same attachment left one, that is removed first.
async fn create_pair(
    node: &Netlink,
    sandbox: &Netns,
    attachment: &Attachment,
    pair: &Pair,
) -> Result<(), DatapathError> {
    if try_create(node, sandbox, pair).await? == Created::Exists {
        remove_leftover(node, sandbox, attachment, pair).await?;
        if try_create(node, sandbox, pair).await? == Created::Exists {
            return Err(DatapathError::LinkVanished(pair.host.name.clone()));
        }
    }
    Ok(())
}

#[derive(PartialEq, Eq)]
enum Created {
    Pair,
    Exists,
}

async fn try_create(node: &Netlink, sandbox: &Netns, pair: &Pair) -> Result<Created, DatapathError> {
    for outcome in node.submit([changes::create_pair(pair, sandbox)]).await {
        match outcome {
            Err(refusal) if refusal.is_exists() => return Ok(Created::Exists),
            Err(refusal) => {
                // So the kernel refuses a namespace that is none of the network: entering it says it better.
                if refusal.is_invalid() {
                    sandbox.run(|| ())?;
                }
                return Err(refusal.into());
            }
            Ok(()) => {}
        }
    }
    Ok(Created::Pair)
}

/// Makes the ifb link. One that bears the attachment's marks was left by an ADD that did not live to take it back, and
/// is replaced.
async fn create_ifb(node: &Netlink, attachment: &Attachment, ifb: &Ifb) -> Result<(), DatapathError> {
    let created = node.submit([Change::CreateIfb(ifb.clone())]).await;
    if !created.iter().any(|outcome| outcome.as_ref().is_err_and(KernelError::is_exists)) {
        return DatapathError::check(Place::Node, created);
    }
    if let Some(link) = node.link(LinkRef::Name(ifb.name.clone())).await? {
        if !is_marked(&link, &attachment.key) {
            let found = link.alias.or(link.kind).unwrap_or_default();
            return Err(DatapathError::HostLinkTaken { name: ifb.name.clone(), found });
        }
        let removed = node.submit([Change::DeleteLink(LinkRef::Index(link.index))]).await;
        DatapathError::check(Place::Node, removed)?;
    }
    DatapathError::check(Place::Node, node.submit([Change::CreateIfb(ifb.clone())]).await)
}

/// Clears the way for a pair whose names are taken, if it is our own dead that takes them.
///
/// The caller holds the attachment's record alone, so whatever bears its marks was left by an ADD that did
/// not live to take it back (containerd#7010).
async fn remove_leftover(
    node: &Netlink,
    sandbox: &Netns,
    attachment: &Attachment,
    pair: &Pair,
) -> Result<(), DatapathError> {
    if let Some(link) = node.link(LinkRef::Name(pair.host.name.clone())).await? {
        if !is_marked(&link, &attachment.key) {
            let found = link.alias.or(link.kind).unwrap_or_default();
            return Err(DatapathError::HostLinkTaken { name: link.name, found });
        }
        return DatapathError::check(
            Place::Node,
            node.submit([Change::DeleteLink(LinkRef::Index(link.index))]).await,
        );
    }
    let pod = Netlink::open_in(sandbox)?;
    let Some(link) = pod.link(LinkRef::Name(pair.pod.name.clone())).await? else { return Ok(()) };
    if link.kind.as_deref() == Some("veth") && link.mac == Some(pair.pod.mac) {
        return DatapathError::check(
            Place::Sandbox,
            pod.submit([Change::DeleteLink(LinkRef::Index(link.index))]).await,
        );
    }
    let found = link.kind.unwrap_or_else(|| "no kind".into());
    Err(DatapathError::InterfaceTaken { name: pair.pod.name.clone(), found })
}

/// Writes the sysctls that netlink cannot set ([`changes::link_settings`] has the others).
fn write_sysctls(objects: &[Object], place: Place) -> Result<(), DatapathError> {
    for object in objects.iter().filter(|object| object.place() == place) {
        match object {
            Object::Sysctl(wanted) if changes::link_settings(wanted).is_none() => {
                write_sysctl(wanted).map_err(|refused| match place {
                    Place::Node => DatapathError::Sysctl(refused),
                    Place::Sandbox => DatapathError::PodSysctl(refused),
                })?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// A write to `disable_ipv6` tries the RTNL lock and, where another ADD has it, starts over without sleeping:
/// eighty ADDs at once spend most of their time so. It is 0 nearly always, and looking takes no lock.
pub(super) fn write_sysctl(wanted: &Sysctl) -> Result<(), SysctlError> {
    let path: Vec<&str> = wanted.path.iter().map(String::as_str).collect();
    if path.last() == Some(&"disable_ipv6") {
        sysctl::write_if_different(&path, &wanted.value)?;
    } else {
        sysctl::write(&path, &wanted.value)?;
    }
    Ok(())
}

/// The changes that make the objects of a place, where the links have these indexes.
fn batch(objects: &[Object], place: Place, ends: &Ends) -> Vec<Change> {
    let mut changes: Vec<Change> = Vec::new();
    for change in objects
        .iter()
        .filter(|object| object.place() == place)
        .flat_map(|object| changes::changes_for(object, |link| ends.index(link)))
    {
        match (changes.last_mut(), change) {
            // Each message is a turn at the RTNL lock: settings of one link share it. What sets the link up stays
            // behind them.
            (Some(Change::SetLink { link, settings }), Change::SetLink { link: same, settings: more })
                if *link == same && settings.up.is_none() && more.up.is_none() =>
            {
                settings.merge(more);
            }
            (_, change) => changes.push(change),
        }
    }
    changes
}
