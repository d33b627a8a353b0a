//! DEL: nothing of the attachment remains, whatever had become of it.
//!
//! Needs the container id and the interface name, and of the conf the network's name and the store's place.
//! No namespace, another's namespace at the path, no link, no record, a damaged record, a conf that changed
//! since: all of these are a success, because what DEL promises holds (k8s#57465, cilium#40459). It never enters
//! the pod's namespace, so a stale path that leads to another pod's cannot mislead it (cri-o#2849). The one exception
//! are pods that another plugin made (`attachments::imported`).

use crate::attachments::node;
use crate::attachments::teardown::{self, Mode, Teardown};
use crate::attachments::timing::Steps;
use crate::cni::error::CniError;
use crate::cni::request::Request;
use crate::config::{Removal, Role};
use crate::store::current_boot_id;

/// Removes the attachment. Idempotent.
///
/// # Errors
/// Only what a second attempt can repair: a lock held too long, a kernel that refuses, another IPAM plugin's
/// own error.
pub async fn del(request: &Request, steps: &Steps) -> Result<(), CniError> {
    let removal = Removal::read(&request.conf)?;
    let key = request.environment.attachment(removal.name.clone())?;
    let boot = current_boot_id()?;
    let node = match removal.role {
        Role::Main => Some(node::open()?),
        Role::Ipam => None,
    };
    let teardown = Teardown {
        mode: Mode::Del,
        node: node.as_ref(),
        delegate: removal.delegate.as_deref().map(|plugin| (plugin, request)),
        boot: &boot,
        steps,
    };
    teardown::remove_one(&teardown, &removal.data_dir, &key).await
}
