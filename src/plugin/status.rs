//! STATUS: can the next ADD succeed? See [`readiness`].

use crate::attachments::readiness;
use crate::attachments::timing::Steps;
use crate::cni::error::CniError;
use crate::cni::request::Request;
use crate::config::Network;

/// Whether ADD would work.
///
/// # Errors
/// Code 7 where the conf is wrong; else as [`readiness::judge`].
pub async fn status(request: &Request, steps: &Steps) -> Result<(), CniError> {
    let network = Network::read(&request.conf, &request.environment)?;
    readiness::judge(&network, Some(request), steps).await
}
