//! The attachments of a network, each with whether it lives, in a form for people and programs.

use std::cmp::Ordering;
use std::net::IpAddr;

use serde::Serialize;

use crate::attachments::liveness::{self, Life};
use crate::cli::networks::KnownNetwork;
use crate::cli::node::Node;
use crate::cni::error::CniError;
use crate::cni::ids::AttachmentKey;
use crate::config::Role;
use crate::desired::names;
use crate::store::{Record, Store, StoreError};

/// An attachment, judged.
#[derive(Debug)]
pub struct Judged {
    /// Whose.
    pub key: AttachmentKey,
    /// Its record, and whether it lives; or why that cannot be known.
    pub state: Result<(Record, Life), StoreError>,
    /// Whether its host link is there; that of the old plugin, where it was imported.
    pub has_link: bool,
}

/// How an attachment is told of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Told {
    /// `namespace/name` of the pod, where the runtime told it.
    pub pod: Option<String>,
    /// The container's id.
    pub container: String,
    /// The interface's name in the container.
    pub ifname: String,
    /// Its addresses; none where the record cannot be read.
    pub addresses: Vec<IpAddr>,
    /// The node's end of its pair, where ferrule made one, or the old plugin and it is known.
    pub host_link: Option<String>,
    /// host-local's directory that it was taken over from; null for what ferrule attached.
    pub imported_from: Option<String>,
    /// When it was attached, in seconds since 1970.
    pub created: Option<u64>,
    /// How long ago that was; 0 for a time to come.
    pub age_seconds: Option<u64>,
    /// `alive`, `dead` or `unknown`.
    pub state: &'static str,
    /// What tells so.
    pub reason: String,
}

/// Judges every attachment of the store. Sorted by pod name, those without one last.
///
/// # Errors
/// Where store or kernel cannot be read.
pub async fn judge_all(store: &Store, node: &Node, network: &KnownNetwork) -> Result<Vec<Judged>, CniError> {
    // An IPAM plugin's attachments have no link of ours.
    let netlink = (network.role != Some(Role::Ipam)).then_some(&node.netlink);
    let mut judged = Vec::new();
    for entry in store.attachments()? {
        let imported_link = entry.record.as_ref().ok().filter(|record| record.imported_from.is_some());
        let has_link = match imported_link.and_then(|record| record.host_link.as_ref()) {
            Some(name) => node.links.iter().any(|link| link.name == name.as_str()),
            None => node.host_link(&entry.key).is_some(),
        };
        let state = match entry.record {
            Ok(record) => {
                let life = liveness::judge(&record, &node.boot, netlink).await?;
                Ok((record, life))
            }
            Err(error) => Err(error),
        };
        judged.push(Judged { key: entry.key, state, has_link });
    }
    judged.sort_by(Judged::by_pod);
    Ok(judged)
}

impl Judged {
    /// The pod's name, where it is known.
    fn pod(&self) -> Option<String> {
        let (record, _) = self.state.as_ref().ok()?;
        record.pod.as_ref().map(ToString::to_string)
    }

    fn by_pod(&self, other: &Self) -> Ordering {
        let order = |it: &Self| (it.pod().is_none(), it.pod(), it.key.to_string());
        order(self).cmp(&order(other))
    }

    /// Whether it cannot be using its addresses any more.
    pub fn is_dead(&self) -> bool {
        matches!(self.state, Ok((_, life)) if life.is_dead())
    }

    /// Whether another plugin attached it.
    pub fn is_imported(&self) -> bool {
        matches!(&self.state, Ok((record, _)) if record.imported_from.is_some())
    }

    /// The attachment, as it is told of.
    pub fn tell(&self) -> Told {
        let mut told = Told {
            pod: self.pod(),
            container: self.key.container.to_string(),
            ifname: self.key.ifname.to_string(),
            addresses: Vec::new(),
            host_link: self.has_link.then(|| names::host_link(&self.key)),
            imported_from: None,
            created: None,
            age_seconds: None,
            state: "unknown",
            reason: String::new(),
        };
        match &self.state {
            Ok((record, life)) => {
                told.addresses.clone_from(&record.addresses);
                told.host_link = record.host_link.as_ref().map(ToString::to_string);
                told.imported_from.clone_from(&record.imported_from);
                told.created = Some(record.created);
                told.age_seconds = Some(liveness::now().saturating_sub(record.created));
                told.state = if life.is_dead() { "dead" } else { "alive" };
                let has_lost_link =
                    *life == Life::NamespaceStands && record.host_link.is_some() && !self.has_link;
                told.reason = if has_lost_link { "its host link is gone" } else { life.reason() }.to_owned();
            }
            Err(error) => told.reason = error.to_string(),
        }
        told
    }
}

impl Told {
    /// Whether there is nothing to say but that it lives.
    pub fn is_well(&self) -> bool {
        self.state == "alive" && self.reason == Life::NamespaceStands.reason()
    }

    /// The container's id as `crictl pods` shows it.
    pub fn short_container(&self) -> String {
        self.container.chars().take(13).collect()
    }

    /// The addresses, with spaces between them.
    pub fn addresses(&self) -> String {
        self.addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" ")
    }
}
