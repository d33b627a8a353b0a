//! Whether a recorded attachment can still be using its addresses.
//!
//! Alive means: recorded in this boot, and its netns path still names that very namespace. The boot id alone
//! is not enough (restarting a kind node keeps it), nor is the inode alone (inode numbers return), nor the
//! path. Where in doubt, an attachment is alive: an address that waits too long costs less than one that two
//! pods have.

use std::time::{Duration, SystemTime};

use crate::linux::error::KernelError;
use crate::linux::link::LinkRef;
use crate::linux::netlink::Netlink;
use crate::linux::netns::{Netns, NetnsError};
use crate::store::{BootId, Record};

/// Youngest age at which an attachment without a link of ours may be found dead: the main plugin that asked for
/// its addresses may still be at work, and nothing but the namespace's path could show that it is.
const GRACE: Duration = Duration::from_secs(60);

/// What tells that an attachment is alive, or dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// Alive: its namespace is where it was.
    NamespaceStands,
    /// Alive, as far as anybody can know: the runtime named no namespace.
    NamespaceUnknown,
    /// Alive: its namespace is not at its path any more, or that was never known, but the host link shows that it exists.
    LinkStands,
    /// Alive, because it is too young to be found dead.
    Young,
    /// Dead: no namespace outlives a boot.
    EarlierBoot,
    /// Dead: its namespace is gone, and its link, if it had one.
    NamespaceGone,
}

impl Life {
    /// Whether the attachment cannot be using its addresses any more.
    pub fn is_dead(self) -> bool {
        matches!(self, Self::EarlierBoot | Self::NamespaceGone)
    }

    /// The evidence, in words that follow "because".
    pub fn reason(self) -> &'static str {
        match self {
            Self::NamespaceStands => "its namespace is there",
            Self::NamespaceUnknown => "the runtime named no namespace",
            Self::LinkStands => "its namespace is at no known path, its link is there",
            Self::Young => "younger than a minute",
            Self::EarlierBoot => "from an earlier boot",
            Self::NamespaceGone => "its namespace is gone",
        }
    }
}

/// Whether the attachment cannot be using its addresses any more. See [`judge`].
///
/// # Errors
/// Where the kernel cannot be asked.
pub async fn is_dead(record: &Record, boot: &BootId, node: Option<&Netlink>) -> Result<bool, KernelError> {
    Ok(judge(record, boot, node).await?.is_dead())
}

/// Whether the attachment can still be using its addresses, and what tells so.
///
/// `node` is asked for the host link: as long as that exists, the pod's namespace does too, whatever
/// became of its path. Where both are gone there is nothing to wait for: an ADD that is still at work has the
/// attachment's lock, and the path was there when it wrote the record. So a node that restarts within seconds
/// of its last pod, and keeps its boot id, has its addresses at once.
///
/// Without a link (as a mere IPAM plugin) the namespace decides, once the attachment is a minute old.
///
/// # Errors
/// Where the kernel cannot be asked.
pub async fn judge(record: &Record, boot: &BootId, node: Option<&Netlink>) -> Result<Life, KernelError> {
    if !record.is_from(boot) {
        return Ok(Life::EarlierBoot);
    }
    // Of one that lost its record the link is known, and perhaps not the namespace.
    if record.netns.is_none() && (record.host_link.is_none() || node.is_none()) {
        return Ok(Life::NamespaceUnknown);
    }
    if record.netns.is_some() && !is_namespace_gone(record) {
        return Ok(Life::NamespaceStands);
    }
    match (node, &record.host_link) {
        (Some(node), Some(link)) => {
            let link = node.link(LinkRef::Name(link.to_string())).await?;
            Ok(if link.is_some() { Life::LinkStands } else { Life::NamespaceGone })
        }
        _ if record.is_younger_than(GRACE, now()) => Ok(Life::Young),
        _ => Ok(Life::NamespaceGone),
    }
}

/// Whether the namespace of the record is certainly gone from where it was. A record without one (a runtime
/// that names none to its IPAM plugin) never is.
pub fn is_namespace_gone(record: &Record) -> bool {
    let Some(recorded) = &record.netns else { return false };
    match Netns::open(recorded.path.as_path()) {
        Ok(netns) => (netns.identity().dev, netns.identity().ino) != (recorded.dev, recorded.ino),
        Err(NetnsError::NotFound { .. } | NetnsError::NotNetns { .. }) => true,
        Err(_) => false,
    }
}

/// Seconds since 1970; 0 before that, which makes every record old.
pub fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |age| age.as_secs())
}
