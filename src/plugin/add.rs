//! ADD: a pod gets its network, whole or not at all.

use std::io::Write;

use futures_util::future::join4;
use tokio::sync::oneshot;

use crate::attachments::claim::{AddressRequest, Claimed, give_back};
use crate::attachments::pod_rules;
use crate::attachments::pod_rules::Admission;
use crate::attachments::{ADD_DEADLINE, Progress, describe, node as node_state, static_peers};
use crate::cni::error::{CniError, Code};
use crate::cni::ids::{AttachmentKey, NetnsPath};
use crate::cni::request::Request;
use crate::cni::result::AddResult;
use crate::config::peer::Peers;
use crate::config::sysctl::judge_beside_ipv6;
use crate::config::{AddressManagement, Network, Role};
use crate::datapath::error::DatapathError;
use crate::datapath::{attach, detach, node};
use crate::desired::attachment::Attachment;
use crate::desired::node::NodeState;
use crate::linux::netlink::Netlink;
use crate::linux::netns::{Netns, NetnsIdentity};
use crate::log;
use crate::plugin::result;
use crate::store::{BootId, Record, Store, current_boot_id};

/// Attaches the pod and writes the result.
///
/// # Errors
/// The reason; nothing that was made remains.
pub async fn add(request: &Request, progress: &Progress, stdout: &mut dyn Write) -> Result<(), CniError> {
    let network = Network::read(&request.conf, &request.environment)?;
    let key = request.environment.attachment(network.name.clone())?;
    let boot = current_boot_id()?;
    match network.role {
        Role::Main => {
            let add = MainAdd::prepare(request, &network, &key, boot)?;
            add.run(progress, stdout).await
        }
        Role::Ipam => add_addresses(request, progress, &network, &key, &boot, stdout).await,
    }
}

/// The IPAM plugin's ADD: addresses, and no links.
async fn add_addresses(
    request: &Request,
    progress: &Progress,
    network: &Network,
    key: &AttachmentKey,
    boot: &BootId,
    stdout: &mut dyn Write,
) -> Result<(), CniError> {
    // Without the namespace there is no telling later whether the attachment is alive; it is still served.
    let netns = request.environment.netns.as_ref().and_then(|path| Netns::open(path.as_path()).ok());
    let claimant =
        AddressRequest { request, network, key, netns: netns.as_ref(), steps: &progress.steps, node: None };
    let claimed = claimant.claim(boot).await?;
    progress.mark_claimed();
    progress.steps.note("ips", claimed.acquired.list());
    let result = result::ipam_result(network, &claimed.acquired);
    let written = result::write(stdout, &result.to_json(network.version));
    let Err(failure) = written else { return Ok(()) };
    let store = Store::open_existing(&network.data_dir, &network.name)?;
    let undone = give_back(request, None, store.as_ref(), key, boot).await;
    Err(with_undo_failure(failure, undone))
}

/// What the main plugin's ADD works on, all of it checked.
struct MainAdd<'a> {
    request: &'a Request,
    network: &'a Network,
    key: &'a AttachmentKey,
    boot: BootId,
    netns_path: &'a NetnsPath,
    netns: Netns,
    node: Netlink,
}

impl<'a> MainAdd<'a> {
    fn prepare(
        request: &'a Request,
        network: &'a Network,
        key: &'a AttachmentKey,
        boot: BootId,
    ) -> Result<Self, CniError> {
        let netns_path = request.environment.required_netns()?;
        let netns = Netns::open(netns_path.as_path())?;
        if netns.identity() == NetnsIdentity::current()? {
            let message = format!("CNI_NETNS {netns_path} is the node's own network namespace");
            let details =
                "a pod with hostNetwork needs no plugin; anything else needs a namespace of its own";
            return Err(CniError::new(Code::NetnsUnusable, message).with_details(details));
        }
        let socket = Netlink::open_here();
        let node = socket.map_err(|source| DatapathError::Socket { place: "node", source })?;
        Ok(Self { request, network, key, boot, netns_path, netns, node })
    }

    async fn run(&self, progress: &Progress, stdout: &mut dyn Write) -> Result<(), CniError> {
        let (request, network, key) = (self.request, self.network, self.key);
        let claimant = AddressRequest {
            request,
            network,
            key,
            netns: Some(&self.netns),
            steps: &progress.steps,
            node: Some(&self.node),
        };
        let claimed = claimant.claim(&self.boot).await?;
        progress.mark_claimed();
        progress.steps.note("ips", claimed.acquired.list());
        let outcome = match tokio::time::timeout(ADD_DEADLINE, self.plumb(&claimed, progress)).await {
            Ok(Ok((described, result))) => {
                let written = result::write(stdout, &result.to_json(network.version));
                if written.is_ok() {
                    self.mark_complete(&described).await;
                }
                written
            }
            Ok(Err(failure)) => Err(failure),
            Err(_) => {
                let message = format!("ADD of {key} did not finish within {ADD_DEADLINE:?}");
                Err(CniError::new(Code::TryAgain, message).with_details("it was taken back; try again"))
            }
        };
        match outcome {
            Ok(()) => Ok(()),
            Err(failure) => Err(with_undo_failure(failure, self.undo(&claimed.record).await)),
        }
    }

    /// Makes the kernel what the attachment and its node need.
    async fn plumb(
        &self,
        claimed: &Claimed,
        progress: &Progress,
    ) -> Result<(Attachment, AddResult), CniError> {
        if claimed.acquired.addresses.iter().any(|it| it.address.is_ipv6()) {
            // Known from the ranges when the conf was read; that another IPAM plugin gives one is news.
            judge_beside_ipv6(&self.network.sysctls, self.key.ifname.as_str())
                .map_err(|why| CniError::new(Code::InvalidConf, why))?;
        }
        let state = describe::describe_node(self.network, &claimed.acquired);
        let uplink = node::find_uplink(&self.node, &state).await?;
        let described = describe::describe(
            self.network,
            self.key,
            self.request.environment.args.pod.as_ref(),
            &uplink,
            &claimed.acquired,
        );
        let admission = Admission {
            node: &self.node,
            network: self.network,
            uplink: &uplink,
            record: &claimed.record,
            boot: &self.boot,
        };
        // None of the four waits for another's answers, but for the pod's elements, which come after its link.
        let (link_made, link) = oneshot::channel();
        let prepared = node_state::prepare(&self.node, self.network, &state, &self.boot);
        let attached = attach::attach(&self.node, &self.netns, &described, link_made);
        let admitted = progress.steps.time_async("nft", admission.admit(link));
        let (prepared, attached, admitted, routed) =
            join4(prepared, attached, admitted, self.keep_routes(&state)).await;
        let timing = attached?;
        admitted?;
        progress.steps.record("link", timing.link);
        progress.steps.record("addresses", timing.addresses);
        prepared?;
        // The pod is there. That some other node cannot be reached is no reason to take it away.
        if let Err(error) = routed {
            log::warn(&self.network.log, &format!("routes to peers: {error}"));
        }
        let result = result::main_result(self.network, self.netns_path, &described, &claimed.acquired);
        Ok((described, result))
    }

    /// Makes the routes to listed peers true. Those that the agent keeps are none of ADD's.
    async fn keep_routes(&self, state: &NodeState) -> Result<(), CniError> {
        match &self.network.peers {
            Peers::Listed(_) => static_peers::keep_routes(&self.node, self.network, state).await,
            Peers::KeptByAgent => Ok(()),
        }
    }

    /// From here on a second ADD is refused; before, it starts over. The runtime has its answer, so a failure is
    /// for the log: CHECK names it, and DEL does not need what is missing.
    async fn mark_complete(&self, described: &Attachment) {
        if attach::mark_complete(&self.node, described).await.is_ok() {
            return;
        }
        if let Err(error) = attach::mark_complete(&self.another_socket(), described).await {
            log::warn(&self.network.log, &format!("{} cannot be declared whole: {error}", self.key));
        }
    }

    /// For what must be done after a failure: that the first socket failed may be why. That one, where no other can be
    /// had.
    fn another_socket(&self) -> Netlink {
        Netlink::open_here().unwrap_or_else(|_| self.node.clone())
    }

    /// Takes back what was made, in reverse order: links first, the address last.
    async fn undo(&self, record: &Record) -> Result<(), CniError> {
        let node = self.another_socket();
        let detached = detach::detach(&node, self.key).await.map_err(CniError::from);
        let dismissed = pod_rules::remove_elements(&node, std::slice::from_ref(record)).await;
        let delegate = match &self.network.address_management {
            AddressManagement::Delegate(plugin) => Some(plugin.as_str()),
            AddressManagement::Ranges(_) => None,
        };
        // A link that stays may still use the address, and a hostPort may still lead to it: then the address stays too,
        // and DEL or GC tries again.
        detached?;
        dismissed?;
        let store = Store::open_existing(&self.network.data_dir, &self.network.name)?;
        give_back(self.request, delegate, store.as_ref(), self.key, &self.boot).await
    }
}

/// The failure, and that it could not be taken back, where that is so: neither may hide the other.
fn with_undo_failure(mut failure: CniError, undone: Result<(), CniError>) -> CniError {
    if let Err(error) = undone {
        let separator = if failure.details.is_empty() { "" } else { "; " };
        failure.details.push_str(separator);
        failure.details.push_str(&format!("and it could not be taken back, which DEL will do: {error}"));
    }
    failure
}
