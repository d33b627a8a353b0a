//! Every attachment of a store, each with whether it lives.

use std::cmp::Ordering;

use crate::attachments::liveness::{self, Life};
use crate::attachments::networks::KnownNetwork;
use crate::attachments::node_view::NodeView;
use crate::cni::error::CniError;
use crate::cni::ids::AttachmentKey;
use crate::config::Role;
use crate::store::{Record, Store, StoreError};

/// An attachment, judged.
#[derive(Debug)]
pub struct JudgedAttachment {
    /// Network, container and interface.
    pub key: AttachmentKey,
    /// Its record, and whether it lives; or why that cannot be known.
    pub state: Result<(Record, Life), StoreError>,
    /// Whether its host link is there. Of an imported attachment: the host link of the old plugin.
    pub has_link: bool,
}

impl JudgedAttachment {
    /// `namespace/name` of the pod, where it is known.
    pub fn pod(&self) -> Option<String> {
        let (record, _) = self.state.as_ref().ok()?;
        record.pod.as_ref().map(ToString::to_string)
    }

    /// Whether it cannot be using its addresses any more.
    pub fn is_dead(&self) -> bool {
        matches!(self.state, Ok((_, life)) if life.is_dead())
    }

    /// Whether another plugin attached it.
    pub fn is_imported(&self) -> bool {
        matches!(&self.state, Ok((record, _)) if record.imported_from.is_some())
    }

    fn by_pod(&self, other: &Self) -> Ordering {
        let order = |it: &Self| (it.pod().is_none(), it.pod(), it.key.to_string());
        order(self).cmp(&order(other))
    }
}

/// Judges every attachment of the network; none where it has no store. Sorted by pod name, those without one last.
///
/// # Errors
/// Where store or kernel cannot be read.
pub async fn judge_network(
    network: &KnownNetwork,
    node: &NodeView,
) -> Result<(Option<Store>, Vec<JudgedAttachment>), CniError> {
    let store = Store::open_existing(&network.data_dir, &network.name)?;
    let judged = match &store {
        Some(store) => judge_all(store, node, network).await?,
        None => Vec::new(),
    };
    Ok((store, judged))
}

async fn judge_all(
    store: &Store,
    node: &NodeView,
    network: &KnownNetwork,
) -> Result<Vec<JudgedAttachment>, CniError> {
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
        judged.push(JudgedAttachment { key: entry.key, state, has_link });
    }
    judged.sort_by(JudgedAttachment::by_pod);
    Ok(judged)
}
