//! Which pod's packets go where: the elements of a pod in the two maps, by its link, and what it sends to itself.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::datapath::nftables::{Attempts, NftError};
use crate::datapath::policy::layout::table;
use crate::linux::error::KernelError;
use crate::linux::nfnetlink::Nfnetlink;
use crate::linux::nft::change::{Change, Rejection};
use crate::linux::nft::element::{Bytes, Element};
use crate::linux::nft::expr::Verdict;
use crate::policy::names::{OWN4, OWN6, hold_chain, map, pod_chain};
use crate::policy::plan::Direction;

pub(super) const DIRECTIONS: [Direction; 2] = [Direction::Ingress, Direction::Egress];

/// How many bytes of a key a link's name takes (IFNAMSIZ).
const LINK_NAME: usize = 16;

/// A pod's attachment on this node, as its record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// Uid of the pod.
    pub uid: String,
    /// `namespace/name`
    pub name: String,
    /// Name of the node's end of its pair.
    pub link: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// What a pod has that the agent does not know yet, in a namespace in which a policy isolates somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unknown {
    /// No policy, until the agent sees it.
    Open,
    /// What is certain whatever its labels are, and nothing else.
    #[default]
    Hold,
}

/// The chains that a pod's packets are led to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bindings {
    /// Those to it; `None`: nobody restricts them.
    pub ingress: Option<String>,
    /// Those from it, likewise.
    pub egress: Option<String>,
}

/// A pod's packets of one direction, as the table leads them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// The node's end of its pair.
    pub link: String,
    /// Which.
    pub direction: Direction,
    /// The chain that they are led to.
    pub chain: String,
    /// Uid of the pod, by the element's comment.
    pub uid: String,
    /// `namespace/name`, likewise; cut short where both are long.
    pub name: String,
}

impl Attached {
    /// The namespace of the pod.
    pub fn namespace(&self) -> &str {
        self.name.split_once('/').map_or("", |(namespace, _)| namespace)
    }

    fn comment(&self) -> String {
        format!("{} {}", self.uid, self.name)
    }

    /// The elements that say which addresses are behind the link.
    pub(super) fn own(&self) -> impl Iterator<Item = Element> {
        self.addresses.iter().map(|address| {
            let set = if address.is_ipv4() { OWN4 } else { OWN6 };
            let key = Bytes::default().link_name(&self.link).address(*address);
            Element::new(set, key).with_comment(self.comment())
        })
    }

    /// The element that leads the packets of one direction to a chain.
    pub(super) fn leading(&self, direction: Direction, chain: &str) -> Element {
        let verdict = Verdict::Goto(chain.to_owned());
        let key = Bytes::default().link_name(&self.link);
        Element::with_verdict(map(direction), key, verdict).with_comment(self.comment())
    }
}

impl Bindings {
    /// Of one direction.
    pub fn of(&self, direction: Direction) -> Option<&str> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }

    /// Whether nobody restricts the pod.
    pub fn is_empty(&self) -> bool {
        self.ingress.is_none() && self.egress.is_none()
    }
}

impl Bound {
    /// Reads an element of one of the two maps.
    pub(super) fn read(element: &Element) -> Option<Self> {
        let direction = DIRECTIONS.into_iter().find(|it| map(*it) == element.set)?;
        let Some(Verdict::Goto(chain)) = &element.verdict else { return None };
        let comment = element.comment.as_deref().unwrap_or_default();
        let (uid, name) = comment.split_once(' ').unwrap_or((comment, ""));
        let (chain, uid, name) = (chain.clone(), uid.to_owned(), name.to_owned());
        Some(Self { link: link_of(&element.key), direction, chain, uid, name })
    }

    /// Whether the agent has not seen the pod yet.
    pub fn is_held(&self) -> bool {
        self.chain != pod_chain(self.direction, &self.uid)
    }
}

/// The link's name that a key begins with.
pub(super) fn link_of(key: &Bytes) -> String {
    let name = key.0.get(..LINK_NAME).unwrap_or(&key.0).split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}

/// The chains that are there for the pod now: its own, else those that hold pods of its namespace. Four questions in one
/// datagram; none of them fails where there is no table.
///
/// # Errors
/// What the kernel refused.
pub async fn chains_of(
    nft: &Nfnetlink,
    uid: &str,
    namespace: &str,
    unknown: Unknown,
) -> Result<Bindings, KernelError> {
    chains_now(nft, uid, namespace, unknown).await.map(|(_, bindings)| bindings)
}

/// The same, and the generation in which it was so.
///
/// # Errors
/// What the kernel refused.
pub async fn chains_now(
    nft: &Nfnetlink,
    uid: &str,
    namespace: &str,
    unknown: Unknown,
) -> Result<(u32, Bindings), KernelError> {
    let names = DIRECTIONS.map(|it| [pod_chain(it, uid), hold_chain(it, namespace)]).concat();
    let (generation, found) = nft.find_chains_now(&table(), &names).await?;
    let mut there = names.into_iter().zip(found).map(|(name, found)| found.map(|_| name));
    let mut of_direction = || {
        let (pod, hold) = (there.next().flatten(), there.next().flatten());
        pod.or(hold.filter(|_| unknown == Unknown::Hold))
    };
    Ok((generation, Bindings { ingress: of_direction(), egress: of_direction() }))
}

/// The elements of a pod that is led to these chains; none where nobody restricts it.
pub fn elements(attached: &Attached, bindings: &Bindings) -> Vec<Element> {
    let leading = |it| bindings.of(it).map(|chain| attached.leading(it, chain));
    let mut elements: Vec<Element> = DIRECTIONS.into_iter().filter_map(leading).collect();
    if !elements.is_empty() {
        elements.extend(attached.own());
    }
    elements
}

/// All elements that a pod may have, whichever chains they lead to: what a DEL looks for. Those of the maps have no
/// verdict.
pub fn places(attached: &Attached) -> Vec<Element> {
    let link = Bytes::default().link_name(&attached.link);
    let leading = DIRECTIONS.into_iter().map(|it| Element::new(map(it), link.clone()));
    leading.chain(attached.own()).collect()
}

/// Leads a new pod's packets to the chains that are there for it, in a transaction of its own.
///
/// # Errors
/// What the kernel refused.
pub async fn bind(
    nft: &Nfnetlink,
    attached: &Attached,
    namespace: &str,
    unknown: Unknown,
) -> Result<Bindings, NftError> {
    let mut attempts = Attempts::default();
    loop {
        let (generation, bindings) = chains_now(nft, &attached.uid, namespace, unknown).await?;
        let elements = elements(attached, &bindings);
        if elements.is_empty() {
            return Ok(bindings);
        }
        match nft.commit(Some(generation), &[Change::AddElements(table(), elements)]).await {
            Ok(()) => return Ok(bindings),
            Err(rejection) if is_passing(&rejection) => attempts.count(rejection)?,
            Err(rejection) => return Err(rejection.into()),
        }
    }
}

/// Where the table leads the packets of each pod that has a policy, or is held.
///
/// # Errors
/// What the kernel refused.
pub async fn bound(nft: &Nfnetlink) -> Result<Vec<Bound>, NftError> {
    let mut found = Vec::new();
    for direction in DIRECTIONS {
        found.extend(nft.elements(&table(), map(direction)).await?.iter().filter_map(Bound::read));
    }
    Ok(found)
}

/// Which addresses the table has as a pod's own, each with the pod's link.
///
/// # Errors
/// What the kernel refused.
pub async fn own(nft: &Nfnetlink) -> Result<BTreeSet<(String, IpAddr)>, NftError> {
    let mut found = BTreeSet::new();
    for set in [OWN4, OWN6] {
        found.extend(nft.elements(&table(), set).await?.iter().filter_map(read_own));
    }
    Ok(found)
}

fn read_own(element: &Element) -> Option<(String, IpAddr)> {
    let address = element.key.0.get(LINK_NAME..)?;
    let four = <[u8; 4]>::try_from(address).ok().map(IpAddr::from);
    let address = four.or_else(|| <[u8; 16]>::try_from(address).ok().map(IpAddr::from))?;
    Some((link_of(&element.key), address))
}

/// Whether somebody changed something first.
pub(super) fn is_passing(rejection: &Rejection) -> bool {
    rejection.is_because(|refusal| {
        refusal.is_outrun() || refusal.is_exists() || refusal.is_not_found() || refusal.is_taken()
    })
}
