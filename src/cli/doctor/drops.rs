//! Packets that are dropped while doctor looks. What was counted before is no finding: nobody knows how long ago it was.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::attachments::networks::Networks;
use crate::attachments::pod_rules;
use crate::cli::doctor::Finding;
use crate::cli::drops::is_dropped;
use crate::cni::error::CniError;
use crate::datapath::drops::{self, Drops};
use crate::desired::nftables::reason::Reason;

/// How long doctor looks at least, where something was counted before. A TCP that gets no answer tries again after that.
const LOOK: Duration = Duration::from_millis(1100);

/// What was counted when doctor began.
pub struct Begun {
    before: Drops,
    at: Instant,
}

/// Begins to look.
pub async fn begin() -> Result<Begun, CniError> {
    Ok(Begun { before: drops::read(&pod_rules::open()?).await?, at: Instant::now() })
}

impl Begun {
    /// Tells of what was counted meanwhile.
    pub async fn examine(self, networks: &Networks) -> Result<Vec<Finding>, CniError> {
        let is_told = |reason: &Reason| !reason.is_usual() && is_dropped(*reason, networks);
        if self.before.iter().any(|(reason, packets)| *packets > 0 && is_told(reason)) {
            sleep_until(self.at + LOOK).await;
        }
        let now = drops::read(&pod_rules::open()?).await?;
        let more = drops::between(&self.before, &now);
        let rising = more.into_iter().filter(|(reason, packets)| *packets > 0 && is_told(reason));
        Ok(rising.map(|(reason, packets)| tell(reason, packets)).collect())
    }
}

fn tell(reason: Reason, packets: u64) -> Finding {
    let (name, meaning) = (reason.name(), reason.meaning());
    Finding::warning("packets-dropped", format!("{packets} packets dropped while doctor looked: {name}"))
        .because(format!("they are {meaning}"))
        .remedy(remedy(reason))
}

fn remedy(reason: Reason) -> &'static str {
    match reason {
        Reason::SpoofedSource | Reason::LinkLocal | Reason::NeighbourDiscovery | Reason::Loopback => {
            "find the sender (tcpdump on the pods' host links); a program that forwards for others, such as a VPN in a pod, \
             must masquerade what it sends"
        }
        Reason::Invalid => {
            "if connections hang, see conntrack -S (invalid) and whether their answers come by another way than by this node"
        }
        Reason::ForeignError => "find the pod that sends them; no connection of its own needs them",
        Reason::VxlanStranger => {
            "if it comes from a node of the cluster, that Node's addresses lack the one it sends from: kubectl get nodes -o wide"
        }
        Reason::VxlanFromPod => "find the pod; nothing that a pod may do needs this port",
        Reason::NoRoute => {
            "somebody goes on asking for a pod that is gone: see the EndpointSlices of its Service, and the clients' caches"
        }
        Reason::Metadata => "if the pods need the service, take blockInstanceMetadata out of the conf",
        Reason::PolicyIngress | Reason::PolicyEgress => {
            "ferrulectl policy why FROM TO:PORT says what the policies lack; the agent's log names pods and peers"
        }
        Reason::ReversePath => {
            "the way back to the sender leaves by another link: see ip route get ADDRESS, or set rp_filter of that link to 2"
        }
    }
}
