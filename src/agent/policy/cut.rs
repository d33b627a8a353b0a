//! Flows that exist and that no rule allows any more: the kernel is told to forget them, so that their next packet is judged
//! as a new one's.
//!
//! A flow is judged as the table would judge its first packet: who began, who answers, by which port of his (a Service's
//! address and port are rewritten before policies look). What stays allowed is left alone.
//!
//! The next packet may be of whoever is not isolated: the chains of a pod that is, in whichever direction, let no TCP
//! connection begin in its middle (`datapath/policy/layout`).

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use crate::attachments::block_on;
use crate::cni::error::CniError;
use crate::datapath::error::DatapathError;
use crate::datapath::policy::{Attached, Unknown};
use crate::linux::conntrack::{Flow, FlowFilter};
use crate::linux::error::KernelError;
use crate::linux::netlink::Netlink;
use crate::linux::nfnetlink::Nfnetlink;
use crate::policy::plan::{Direction, Plan, Way};

/// Pods of this node by their addresses, as far as something isolates them.
#[derive(Debug, Default)]
pub struct Isolated<'a>(HashMap<IpAddr, One<'a>>);

#[derive(Debug)]
struct One<'a> {
    uid: &'a str,
    ingress: Way<'a>,
    egress: Way<'a>,
}

impl<'a> Isolated<'a> {
    /// Those of a plan; where `unknown` pods are held, those among them.
    pub fn of(plan: &'a Plan, attached: &'a [Attached], unknown: Unknown) -> Self {
        let mut isolated = HashMap::new();
        for it in attached {
            let both = [Direction::Ingress, Direction::Egress];
            let [ingress, egress] = match (plan.pods.get(&it.uid), plan.holds.get(it.namespace())) {
                (Some(pod), _) => both.map(|direction| pod.way(direction)),
                (None, Some(hold)) if unknown == Unknown::Hold => both.map(|direction| hold.way(direction)),
                (None, _) => continue,
            };
            if ingress.isolates() || egress.isolates() {
                let one = |address: &IpAddr| (*address, One { uid: &it.uid, ingress, egress });
                isolated.extend(it.addresses.iter().map(one));
            }
        }
        Self(isolated)
    }

    /// Whether a flow would be denied if it began now. `local` are the node's own addresses: what its processes send to its
    /// pods is never judged.
    pub fn is_denied(&self, plan: &Plan, flow: &Flow, local: &HashSet<IpAddr>) -> bool {
        let (from, to) = (self.0.get(&flow.source), self.0.get(&flow.answerer));
        let itself = matches!((from, to), (Some(from), Some(to)) if from.uid == to.uid);
        let port = flow.answering_port.unwrap_or(0);
        let is_denied = |one: &One<'_>, direction, peer| {
            let way = match direction {
                Direction::Ingress => &one.ingress,
                Direction::Egress => &one.egress,
            };
            !plan.walk_way(way, peer, flow.protocol, port, itself).allowed()
        };
        from.is_some_and(|one| is_denied(one, Direction::Egress, flow.answerer))
            || to.is_some_and(|one| {
                !local.contains(&flow.source) && is_denied(one, Direction::Ingress, flow.source)
            })
    }
}

/// What is judged by. A copy: it takes a moment, in which the plan may change.
#[derive(Debug)]
pub struct Cut {
    /// What is in force.
    pub plan: Plan,
    /// Whose flows.
    pub attached: Vec<Attached>,
    /// What pods have that are not in the plan.
    pub unknown: Unknown,
}

impl Cut {
    /// Has the flows forgotten that are denied now; returns how many there were. A node may track a hundred thousand, and
    /// reading them waits for nothing but the kernel: for a thread of its own, with sockets of its own.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn carry_out(&self) -> Result<usize, CniError> {
        let isolated = Isolated::of(&self.plan, &self.attached, self.unknown);
        if isolated.0.is_empty() {
            return Ok(0);
        }
        block_on(async {
            let refuse = |source| DatapathError::Socket { place: "node", source };
            let netlink = Netlink::open_here().map_err(refuse)?;
            let nft = Nfnetlink::open_here().map_err(refuse)?;
            Ok(cut(&netlink, &nft, &self.plan, &isolated).await.map_err(DatapathError::from)?)
        })
    }
}

async fn cut(
    netlink: &Netlink,
    nft: &Nfnetlink,
    plan: &Plan,
    isolated: &Isolated<'_>,
) -> Result<usize, KernelError> {
    let local: HashSet<IpAddr> = netlink.addresses(None).await?.iter().map(|it| it.network.ip()).collect();
    let mut forgotten = 0;
    for ipv4 in [true, false] {
        if isolated.0.keys().any(|address| address.is_ipv4() == ipv4) {
            let is_denied = |flow: &Flow| isolated.is_denied(plan, flow, &local);
            let denied = nft.flows_where(FlowFilter::All { ipv4 }, is_denied).await?;
            forgotten += nft.forget_flows(&denied).await?;
        }
    }
    Ok(forgotten)
}
