//! GC: DEL for everything that is known and not valid, then for what nobody knows any more.

use crate::attachments::gc::Gc;
use crate::attachments::timing::Steps;
use crate::cni::error::CniError;
use crate::cni::request::Request;
use crate::config::Network;
use crate::store::current_boot_id;

/// Removes every attachment of the network that `cni.dev/valid-attachments` does not name.
///
/// # Errors
/// All of them, in one answer.
pub async fn gc(request: &Request, steps: &Steps) -> Result<(), CniError> {
    let network = Network::read(&request.conf, &request.environment)?;
    let boot = current_boot_id()?;
    Gc { request, network: &network, boot: &boot, steps }.run().await
}
