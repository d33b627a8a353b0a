//! The node for whoever looks at many attachments at once: one socket, one list of links, one boot.

use std::collections::HashSet;

use crate::attachments::node::NodeFacts;
use crate::cni::error::CniError;
use crate::cni::ids::{AttachmentKey, NetworkName};
use crate::datapath::detach::{bears_mark_of, is_marked};
use crate::datapath::error::DatapathError;
use crate::desired::names;
use crate::linux::link::Link;
use crate::linux::netlink::Netlink;
use crate::linux::route::Route;
use crate::store::BootId;

/// The node as it was when somebody began to look.
pub struct NodeView {
    /// Its namespace's socket.
    pub netlink: Netlink,
    /// Which boot this is.
    pub boot: BootId,
    /// What else is asked of the node once.
    pub facts: NodeFacts,
    /// Its links, read before any record: a link without a record was left behind, and is not that of an ADD that
    /// began in between.
    pub links: Vec<Link>,
}

impl NodeView {
    /// Reads the node whose network namespace the calling thread is in.
    ///
    /// # Errors
    /// Where the kernel cannot be asked.
    pub async fn read() -> Result<Self, CniError> {
        let netlink = Netlink::open_here();
        let netlink = netlink.map_err(|source| DatapathError::Socket { place: "node", source })?;
        let links = netlink.links().await?;
        let facts = NodeFacts::ask()?;
        Ok(Self { netlink, boot: facts.boot.clone(), facts, links })
    }

    /// The attachment's host link, if there is one with its marks.
    pub fn host_link(&self, key: &AttachmentKey) -> Option<&Link> {
        let name = names::host_link(key);
        self.links.iter().find(|link| link.name == name && is_marked(link, key))
    }

    /// A route with its link by name, as far as that is known.
    pub fn show_route(&self, route: &Route) -> String {
        let shown = route.to_string();
        let link = self.links.iter().find(|link| Some(link.index) == route.device);
        match link {
            Some(link) => shown.replacen(&format!(" dev {}", link.index), &format!(" dev {}", link.name), 1),
            None => shown,
        }
    }

    /// Every link that bears a mark of ferrule, of whatever network.
    pub fn marked_links(&self) -> impl Iterator<Item = &Link> {
        let is_of_our_kinds = |link: &Link| matches!(link.kind.as_deref(), Some("veth" | "ifb"));
        self.links.iter().filter(move |link| is_of_our_kinds(link) && bears_a_mark(link))
    }

    /// The network's links that belong to none of `recorded`: their records were lost, their pods may live.
    pub fn unrecorded_links<'a>(
        &'a self,
        network: &'a NetworkName,
        recorded: &'a HashSet<String>,
    ) -> impl Iterator<Item = &'a Link> {
        self.links.iter().filter(|link| bears_mark_of(link, network) && !recorded.contains(&link.name))
    }
}

/// Whether ferrule made this link: by the alias, or, where a kill came before the alias, by the link group together
/// with the form of the name, since anybody may use a group.
fn bears_a_mark(link: &Link) -> bool {
    match &link.alias {
        Some(alias) => alias.starts_with(names::ALIAS_PREFIX),
        None => {
            let is_ours = names::is_link_group(link.group) || names::is_doomed_group(link.group);
            is_ours && names::is_node_link(&link.name)
        }
    }
}
