//! What is known on this node about pods and policies: what the agent has kept, and the records.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::SystemTime;

use crate::attachments::judged::judge_network;
use crate::attachments::liveness;
use crate::attachments::networks::{KnownNetwork, Networks};
use crate::attachments::node_view::NodeView;
use crate::attachments::pod_policy::attached;
use crate::cni::error::CniError;
use crate::config::policy::PolicyUnknown;
use crate::datapath::policy::Attached;
use crate::policy::object::ObjectName;
use crate::policy::objects::Objects;
use crate::policy::planner::Planner;
use crate::store::{PolicyFile, PolicyObjects, StoreError};

/// All of it.
#[derive(Debug, Default)]
pub struct Known {
    /// What the agent knew of policies, namespaces and pods; `None`: it has left nothing.
    pub objects: Option<PolicyObjects>,
    /// What it made of the table; `None`: no policy isolates anybody.
    pub plan: Option<PolicyFile>,
    /// What of that cannot be read.
    pub problems: Vec<StoreError>,
    /// Pods of this node that live, as their records say.
    pub attached: Vec<AttachedPod>,
    /// The node's addresses.
    pub node: Vec<IpAddr>,
    /// Whether pods that the agent does not know yet are open (`policyUnknown`).
    pub unknown_is_open: bool,
}

/// A pod of this node.
#[derive(Debug, Clone)]
pub struct AttachedPod {
    /// As its record says.
    pub attached: Attached,
    /// How long it has been attached, in seconds.
    pub age: u64,
}

impl AttachedPod {
    /// Whether it is this pod.
    pub fn is(&self, name: &ObjectName) -> bool {
        self.attached.name.split_once('/') == Some((&name.namespace, &name.name))
    }
}

impl Known {
    /// Reads it, of all networks of the node. What cannot be read of the agent's is among the problems.
    ///
    /// # Errors
    /// Where store or kernel cannot be read.
    pub async fn read(networks: &Networks, node: &NodeView) -> Result<Self, CniError> {
        let mut known = Self::default();
        let addresses = node.netlink.addresses(None).await?;
        known.node = addresses.iter().map(|it| it.network.ip()).collect();
        for network in &networks.known {
            known.read_network(network, node).await?;
        }
        Ok(known)
    }

    async fn read_network(&mut self, network: &KnownNetwork, node: &NodeView) -> Result<(), CniError> {
        self.unknown_is_open |=
            network.meaning.as_ref().is_some_and(|it| it.policy_unknown == PolicyUnknown::Open);
        let (Some(store), judged) = judge_network(network, node).await? else { return Ok(()) };
        for it in judged.iter().filter(|it| !it.is_dead()) {
            let Ok((record, _)) = &it.state else { continue };
            let age = liveness::now().saturating_sub(record.created);
            self.attached.extend(attached(record).map(|attached| AttachedPod { attached, age }));
        }
        match store.policy_objects(&node.boot) {
            Ok(Some(found)) if self.objects.as_ref().is_none_or(|it| it.written < found.written) => {
                self.objects = Some(found);
            }
            Ok(_) => {}
            Err(error) => self.problems.push(error),
        }
        match store.policy(&node.boot) {
            Ok(Some(found)) => self.plan = Some(found),
            Ok(None) => {}
            Err(error) => self.problems.push(error),
        }
        Ok(())
    }

    /// What the agent knew, or nothing.
    pub fn objects(&self) -> Objects {
        self.objects.as_ref().map(|it| it.objects.clone()).unwrap_or_default()
    }

    /// How old what the agent knew is, in seconds.
    pub fn age(&self) -> Option<u64> {
        let written = self.objects.as_ref()?.written;
        Some(SystemTime::now().duration_since(written).unwrap_or_default().as_secs())
    }

    /// Somebody who knows these objects, and this node's records.
    pub fn planner(&self, objects: &Objects) -> Planner {
        let mut addresses: BTreeMap<&str, Vec<IpAddr>> = BTreeMap::new();
        for it in &self.attached {
            addresses.entry(&it.attached.uid).or_default().extend(&it.attached.addresses);
        }
        let mut planner = objects.planner();
        for (uid, addresses) in addresses {
            planner.set_own_addresses(uid, &addresses);
        }
        planner
    }

    /// Why nothing can be said of policies, if that is so.
    pub fn problem(&self) -> Option<String> {
        (!self.problems.is_empty()).then(|| {
            let problems: Vec<String> = self.problems.iter().map(ToString::to_string).collect();
            problems.join("; ")
        })
    }
}
