//! Makes the kernel what a pod and its node need: the node's settings and routes, the pair, the elements of the nftables
//! table.

use std::time::Instant;

use crate::attachments::claim::Claimed;
use crate::attachments::node::NodeFacts;
use crate::attachments::pod_rules::{InstallError, Installation};
use crate::attachments::timing::{Phase, Steps};
use crate::attachments::{describe, node, pod_repair, reclaim, static_peers};
use crate::cni::error::{CniError, Code};
use crate::cni::ids::{AttachmentKey, NetnsPath};
use crate::config::peer::Peers;
use crate::config::sysctl::judge_beside_ipv6;
use crate::config::{AddressManagement, MTU_MIN_IPV6, Network};
use crate::datapath::attach;
use crate::datapath::node::{Uplink, find_uplink};
use crate::desired::attachment::Attachment;
use crate::desired::node::NodeState;
use crate::linux::netlink::Netlink;
use crate::linux::netns::{Netns, NetnsIdentity};
use crate::log;
use crate::store::{BootId, Store};

/// What setting up works on.
pub struct SetUp<'a> {
    /// The pod's network.
    pub network: &'a Network,
    /// The network's store.
    pub store: &'a Store,
    /// Whose attachment.
    pub key: &'a AttachmentKey,
    /// The pod's namespace.
    pub netns: &'a Netns,
    /// The node's links.
    pub node: &'a Netlink,
    /// What was asked of the node.
    pub facts: &'a NodeFacts,
    /// Where the steps are noted.
    pub steps: &'a Steps,
}

/// Opens the pod's namespace, which must be another than the node's.
///
/// # Errors
/// Code 102.
pub fn open_sandbox(path: &NetnsPath) -> Result<Netns, CniError> {
    let netns = Netns::open(path.as_path())?;
    if netns.identity() == NetnsIdentity::current()? {
        let message = format!("CNI_NETNS {path} is the node's own network namespace");
        let details = "a pod with hostNetwork needs no plugin; anything else needs a namespace of its own";
        return Err(CniError::new(Code::NetnsUnusable, message).with_details(details));
    }
    Ok(netns)
}

impl SetUp<'_> {
    /// Makes all of it; all but [`SetUp::mark_complete`].
    ///
    /// # Errors
    /// The first of what failed. What was made stays, for a teardown.
    pub async fn run(&self, claimed: &Claimed) -> Result<Attachment, CniError> {
        let allocation = &claimed.allocation;
        if allocation.addresses.iter().any(|it| it.address.is_ipv6()) {
            // Known from the ranges when the conf was read; that another IPAM plugin gives one is news.
            judge_beside_ipv6(&self.network.sysctls, self.key.ifname.as_str())
                .map_err(|why| CniError::new(Code::InvalidConf, why))?;
            if let Some(mtu) = self.network.mtu.filter(|&mtu| mtu < MTU_MIN_IPV6) {
                let message = format!("mtu is {mtu}, and IPv6 needs {MTU_MIN_IPV6} at least");
                let details =
                    "the IPAM plugin gave the pod an IPv6 address; 0 takes the MTU of the node's link";
                return Err(CniError::new(Code::InvalidConf, message).with_details(details));
            }
        }
        let mut state = NodeState::of(self.network, self.facts.has_ipv6);
        state.gateways = allocation.named_gateways().collect();
        let mut standing = state.clone();
        if let AddressManagement::Delegate(_) = self.network.address_management {
            // Which subnet is the node's, the other plugin does not say: it gets no `unreachable` route. That of the
            // address tells where the node's pods are looked for.
            standing.delegated = allocation.addresses.iter().filter_map(|it| it.subnet).collect();
        }
        let uplink = self.steps.wait(Phase::Look, find_uplink(self.node, &state, self.network.mtu)).await?;
        let pod = claimed.record.pod.as_ref();
        let described = describe::describe(self.network, self.key, pod, self.facts, &uplink, allocation);
        let installation = Installation {
            node: self.node,
            network: self.network,
            uplink: &uplink,
            record: &claimed.record,
            boot: self.boot(),
        };
        let prepared = node::prepare(self.node, self.store, &standing, self.boot());
        self.steps.wait(Phase::Node, prepared).await?;
        let made = attach::make_links(self.node, self.netns, &described);
        self.steps.time_async(Phase::MakeLinks, made).await?;
        // Before the links are up: no packet of the pod passes before its policies are there.
        self.steps.time_async(Phase::Nftables, self.install(&installation)).await?;
        let began = Instant::now();
        let up = attach::bring_up(self.node, self.netns, &described);
        self.steps.wait(Phase::MakeLinks, up).await?;
        self.steps.record("addresses", began.elapsed());
        // The pod is there. That some other node cannot be reached is no reason to take it away.
        let routed = self.steps.wait(Phase::PeerRoutes, self.keep_routes(&state, &uplink, claimed)).await;
        if let Err(error) = routed {
            log::warn(&self.network.log, &format!("routes to peers and pods: {error}"));
        }
        Ok(described)
    }

    fn boot(&self) -> &BootId {
        &self.facts.boot
    }

    /// Installs the pod's elements. Where pods that are dead have its hostPorts, for the runtime never told of their
    /// end, these are reclaimed first.
    async fn install(&self, installation: &Installation<'_>) -> Result<(), CniError> {
        let clashes = match installation.install().await {
            Err(InstallError::Clash(clashes)) => clashes,
            installed => return Ok(installed?),
        };
        let holders: Vec<_> = clashes.iter().map(|clash| clash.holder).collect();
        let data_dir = &self.network.data_dir;
        if !reclaim::release_dead_holders(data_dir, &holders, self.key, self.boot(), self.node).await? {
            return Err(InstallError::Clash(clashes).into());
        }
        installation.rebuild().await?;
        Ok(installation.install().await?)
    }

    /// Makes the routes to listed peers true, and looks whether other pods have theirs. Where the agent keeps them, both
    /// are none of ADD's.
    async fn keep_routes(
        &self,
        state: &NodeState,
        uplink: &Uplink,
        claimed: &Claimed,
    ) -> Result<(), CniError> {
        let Peers::Listed(_) = &self.network.peers else { return Ok(()) };
        let standing = static_peers::keep_routes(self.node, self.network, state).await?;
        let (network, own) = ((self.network, self.store), &claimed.record.addresses);
        let repaired =
            pod_repair::repair_if_noticed(self.node, network, self.facts, uplink, &standing, own).await?;
        if repaired > 0 {
            log::warn(&self.network.log, &format!("repaired of other pods on this node: {repaired}"));
        }
        Ok(())
    }

    /// From here on a second ADD is refused; before, it starts over. The runtime has its answer, so a failure is
    /// for the log: CHECK names it, and DEL does not need what is missing.
    pub async fn mark_complete(&self, described: &Attachment) {
        if attach::mark_complete(self.node, described).await.is_ok() {
            return;
        }
        // That the first socket failed may be why.
        let node = node::open().unwrap_or_else(|_| self.node.clone());
        if let Err(error) = attach::mark_complete(&node, described).await {
            log::warn(&self.network.log, &format!("{} cannot be marked as complete: {error}", self.key));
        }
    }
}
