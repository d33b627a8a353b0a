//! Whether a recorded attachment can still be using its addresses.
//!
//! Alive means: recorded in this boot, and its netns path still names that very namespace. The boot id alone
//! is not enough (restarting a kind node keeps it), nor is the inode alone (inode numbers return), nor the
//! path. Where in doubt, an attachment is alive: an address that rests too long costs less than one that two
//! pods have.

use std::time::{Duration, SystemTime};

use crate::desired::names;
use crate::ipam::{BootId, Record};
use crate::kernel::link::LinkRef;
use crate::kernel::netlink::Netlink;
use crate::kernel::netns::{Netns, NetnsError};
use crate::kernel::refusal::Refusal;

/// Youngest age at which an attachment without a link of ours may be found dead: the main plugin that asked for
/// its addresses may still be at work, and nothing but the namespace's path could show that it is.
const GRACE: Duration = Duration::from_secs(60);

/// Whether the attachment cannot be using its addresses any more.
///
/// `node` is asked for the host link: as long as that exists, the pod's namespace does too, whatever
/// became of its path. Where both are gone there is nothing to wait for: an ADD that is still at work has the
/// attachment's hold, and the path was there when it wrote the record. So a node that restarts within seconds
/// of its last pod, and keeps its boot id, has its addresses at once.
///
/// Without a link (as a mere IPAM plugin) the namespace decides, once the attachment is a minute old.
///
/// # Errors
/// Where the kernel cannot be asked.
pub async fn is_dead(record: &Record, boot: &BootId, node: Option<&Netlink>) -> Result<bool, Refusal> {
    if !record.is_from(boot) {
        return Ok(true);
    }
    if !is_namespace_gone(record) {
        return Ok(false);
    }
    match (node, &record.host_link) {
        (Some(node), Some(_)) => {
            let name = names::host_link(&record.key());
            Ok(node.link(LinkRef::Name(name)).await?.is_none())
        }
        _ => Ok(!record.is_younger_than(GRACE, now())),
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
fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |age| age.as_secs())
}
