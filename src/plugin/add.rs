//! ADD: a pod gets its network, whole or not at all.

use std::io::Write;

use crate::attachments::claim::{AddressRequest, Claimed};
use crate::attachments::node::{self, NodeFacts};
use crate::attachments::set_up::{SetUp, open_sandbox};
use crate::attachments::teardown::{self, Leaving, Mode, Teardown};
use crate::attachments::timing::Progress;
use crate::cni::error::CniError;
use crate::cni::ids::AttachmentKey;
use crate::cni::request::Request;
use crate::config::{AddressManagement, Network, Role};
use crate::linux::netlink::Netlink;
use crate::linux::netns::Netns;
use crate::plugin::result;
use crate::store::Store;

/// What an ADD works on.
struct Add<'a> {
    request: &'a Request,
    network: &'a Network,
    key: &'a AttachmentKey,
    facts: NodeFacts,
    progress: &'a Progress,
}

/// Attaches the pod and writes the result.
///
/// # Errors
/// The reason; nothing that was made remains.
pub async fn add(request: &Request, progress: &Progress, stdout: &mut dyn Write) -> Result<(), CniError> {
    let network = Network::read(&request.conf, &request.environment)?;
    let key = request.environment.attachment(network.name.clone())?;
    let add = Add { request, network: &network, key: &key, facts: NodeFacts::ask()?, progress };
    match network.role {
        Role::Main => add.pod(stdout).await,
        Role::Ipam => add.addresses(stdout).await,
    }
}

impl Add<'_> {
    /// The main plugin's: addresses, links, and what lets packets through.
    async fn pod(&self, stdout: &mut dyn Write) -> Result<(), CniError> {
        let path = self.request.environment.required_netns()?;
        let netns = open_sandbox(path)?;
        let node = node::open()?;
        let store = Store::open(&self.network.data_dir, &self.network.name)?;
        let claimed = self.claim(&store, Some(&netns), Some(&node)).await?;
        let set_up = SetUp {
            network: self.network,
            store: &store,
            key: self.key,
            netns: &netns,
            node: &node,
            facts: &self.facts,
            steps: &self.progress.steps,
        };
        let made = self.progress.steps.until_deadline("ADD", set_up.run(&claimed)).await;
        let written = made.and_then(|described| {
            let result = result::main_result(self.network, path, &described, &claimed.allocation);
            result::write(stdout, &result.to_json(self.network.version)).map(|()| described)
        });
        match written {
            Ok(described) => {
                set_up.mark_complete(&described).await;
                Ok(())
            }
            // That this socket failed may be why.
            Err(failure) => {
                Err(Box::pin(self.undo(failure, claimed, Some(node::open().unwrap_or(node)))).await)
            }
        }
    }

    /// The IPAM plugin's: addresses, and no links.
    async fn addresses(&self, stdout: &mut dyn Write) -> Result<(), CniError> {
        // Without the namespace there is no telling later whether the attachment is alive; it is still served.
        let path = self.request.environment.netns.as_ref();
        let netns = path.and_then(|path| Netns::open(path.as_path()).ok());
        let store = Store::open(&self.network.data_dir, &self.network.name)?;
        let claimed = self.claim(&store, netns.as_ref(), None).await?;
        let result = result::ipam_result(self.network, &claimed.allocation);
        match result::write(stdout, &result.to_json(self.network.version)) {
            Ok(()) => Ok(()),
            Err(failure) => Err(Box::pin(self.undo(failure, claimed, None)).await),
        }
    }

    async fn claim(
        &self,
        store: &Store,
        netns: Option<&Netns>,
        node: Option<&Netlink>,
    ) -> Result<Claimed, CniError> {
        let address_request = AddressRequest {
            request: self.request,
            network: self.network,
            store,
            key: self.key,
            netns,
            steps: &self.progress.steps,
            node,
            facts: &self.facts,
        };
        let claimed = address_request.claim().await?;
        self.progress.mark_claimed();
        self.progress.steps.note("ips", claimed.allocation.list());
        Ok(claimed)
    }

    /// Takes back what was made. The failure; and that it could not be taken back, where that is so: neither may hide
    /// the other.
    async fn undo(&self, mut failure: CniError, claimed: Claimed, node: Option<Netlink>) -> CniError {
        let delegate = match &self.network.address_management {
            AddressManagement::Delegate(plugin) => Some((plugin.as_str(), self.request)),
            AddressManagement::Ranges(_) => None,
        };
        let (boot, steps) = (&self.facts.boot, &self.progress.steps);
        let teardown = Teardown { mode: Mode::Undo, node: node.as_ref(), delegate, boot, steps };
        let leaving = Leaving::new(claimed.record, claimed.lock);
        if let Err(error) = teardown::undo(&teardown, &self.network.data_dir, leaving).await {
            failure.add_failed_undo(&error);
        }
        failure
    }
}
