//! CHECK: record, prevResult and kernel must agree. Every difference is named, not only the first.

use crate::attachments::check::{compare_addresses, compare_kernel};
use crate::attachments::node::NodeFacts;
use crate::attachments::timing::{Phase, Steps};
use crate::attachments::{delegate, liveness};
use crate::cni::env::Command;
use crate::cni::error::{CniError, Code};
use crate::cni::ids::AttachmentKey;
use crate::cni::request::Request;
use crate::config::{AddressManagement, Network, Role};
use crate::store::Store;

/// Compares what is with what must be. Changes nothing.
///
/// # Errors
/// Code 105 with all differences; code 7 without a prevResult (SPEC: the runtime must give it).
pub async fn check(request: &Request, steps: &Steps) -> Result<(), CniError> {
    let network = Network::read(&request.conf, &request.environment)?;
    let key = request.environment.attachment(network.name.clone())?;
    let facts = NodeFacts::ask()?;
    let Some(previous) = &network.prev_result else {
        let message = "CHECK without prevResult: the runtime must pass the result of ADD";
        return Err(CniError::new(Code::InvalidConf, message));
    };
    let record = match Store::open_existing(&network.data_dir, &network.name)? {
        Some(store) => store.find(&key)?,
        None => None,
    };
    let mut found = match &record {
        Some(record) => compare_addresses(record, previous),
        None => vec![format!("the store has no record of {key}")],
    };
    if let AddressManagement::Delegate(plugin) = &network.address_management {
        steps.wait(Phase::Delegate, delegate::execute(plugin, request, Command::Check)).await?;
    }
    if let (Role::Main, Some(record)) = (network.role, &record) {
        // What another plugin made is not what we describe. That the addresses agree is all that can be asked.
        if record.imported_from.is_none() {
            let netns = request.environment.required_netns()?;
            let compared = compare_kernel(&facts, &network, record, netns, previous);
            found.extend(steps.wait(Phase::Look, compared).await?);
        } else if liveness::is_namespace_gone(record) {
            found.push("its namespace is not the one that was imported".to_owned());
        }
    }
    answer(&key, &found)
}

fn answer(key: &AttachmentKey, found: &[String]) -> Result<(), CniError> {
    if found.is_empty() {
        return Ok(());
    }
    let message = format!("{key} is not as ADD left it: {} difference(s)", found.len());
    Err(CniError::new(Code::DifferencesFound, message).with_details(found.join("; ")))
}
