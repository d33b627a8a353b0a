//! Taking down what another plugin made for a pod that `ferrulectl import` took over.
//!
//! A veth pair dies with either of its ends. The node's end bears no mark, and its name may be another's by now; the
//! pod's end is provably the pod's, because it is in the very namespace that the record names. So this is the one place
//! where a pod's namespace is entered to remove something, and only after device and inode have shown that it is that
//! one, within the boot in which it was recorded.

use crate::attachments::liveness::is_namespace_gone;
use crate::cni::error::CniError;
use crate::datapath::detach;
use crate::linux::netns::{Netns, NetnsError};
use crate::store::{BootId, Record};

/// Removes the pod's link, if the attachment was imported and its namespace still stands. Anything else is a success:
/// what is not there is gone, and what ferrule made is for [`detach::detach`].
///
/// The caller has the attachment's lock.
///
/// # Errors
/// Where the kernel refuses. The link may still be using its addresses then.
pub async fn detach(record: &Record, boot: &BootId) -> Result<(), CniError> {
    let Some(sandbox) = open_sandbox(record, boot)? else { return Ok(()) };
    Ok(detach::detach_imported(&sandbox, record.ifname.as_str()).await?)
}

/// The namespace of an imported attachment, where it certainly is the one that was recorded.
fn open_sandbox(record: &Record, boot: &BootId) -> Result<Option<Netns>, CniError> {
    let (Some(_), Some(netns)) = (&record.imported_from, &record.netns) else { return Ok(None) };
    if !record.is_from(boot) || is_namespace_gone(record) {
        return Ok(None);
    }
    match Netns::open(netns.path.as_path()) {
        // Opened once more, so looked at once more.
        Ok(sandbox) => {
            let identity = sandbox.identity();
            Ok(((identity.dev, identity.ino) == (netns.dev, netns.ino)).then_some(sandbox))
        }
        Err(NetnsError::NotFound { .. } | NetnsError::NotNetns { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
