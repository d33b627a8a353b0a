//! Packets that no rule allows, as the table tells of them: a log line with the pod's name and its policies, and a count by
//! namespace.
//!
//! The kernel tells of ten a second and direction at most. So beyond that the counts by namespace are too small. The table's
//! own counters of `denied_in` and `denied_out` are exact, and are read every two seconds.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use crate::agent::serve::metrics::Metrics;
use crate::datapath::policy::{self, Attached, LOG_GROUP, log_prefix};
use crate::linux::nflog::{LoggedPacket, PacketLog};
use crate::linux::nfnetlink::Nfnetlink;
use crate::policy::plan::{Direction, Isolation, Plan};
use crate::policy::planner::Planner;
use crate::policy::walk::Walked;

/// Most lines in a second.
const LINES: u32 = 10;

const DIRECTIONS: [Direction; 2] = [Direction::Ingress, Direction::Egress];

const SECOND: Duration = Duration::from_secs(1);

/// Hears of them.
#[derive(Default)]
pub struct Denials {
    log: Option<PacketLog>,
    /// Why the log was not opened, as it was said.
    reason: Option<String>,
    /// Whether the kernel cannot tell of them.
    is_untold: bool,
    /// What the table has counted, as it was read last.
    counted: [u64; 2],
    second: Option<Instant>,
    lines: u32,
    left_out: u32,
}

impl Denials {
    /// Listens from now on, where nobody does yet.
    pub fn open(&mut self) {
        if self.log.is_some() || self.is_untold {
            return;
        }
        match PacketLog::open_here(LOG_GROUP) {
            Ok(log) => {
                self.log = Some(log);
                self.reason = None;
            }
            Err(error) => {
                let reason = match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
                    // Who lacks CAP_NET_ADMIN has no table to tell of denials.
                    Some(rustix::io::Errno::PERM) => "another program listens to this group".to_owned(),
                    _ => error.to_string(),
                };
                if self.reason.as_ref() != Some(&reason) {
                    warn!(group = LOG_GROUP, reason, "denied packets cannot be told");
                    self.reason = Some(reason);
                }
            }
        }
    }

    /// Whether the table of policies is that of a kernel which cannot tell of denied packets.
    pub fn know(&mut self, is_untold: bool, metrics: &Metrics) {
        metrics.policy.log_missing.set(is_untold.into());
        if is_untold && !self.is_untold {
            let missing = "nft_log, nft_limit or nfnetlink_log";
            let remedy = "load these modules and start the agent again";
            warn!(missing, remedy, "kernel cannot tell of denied packets; policies hold all the same");
            self.log = None;
        }
        self.is_untold = is_untold;
    }

    /// Reads how many packets were denied.
    pub async fn count(&mut self, nft: &Nfnetlink, metrics: &Metrics) {
        for (direction, before) in DIRECTIONS.into_iter().zip(&mut self.counted) {
            // What fails here fails elsewhere too, where it is said.
            let Ok(now) = policy::denied(nft, direction).await else { continue };
            // A table that was made anew counts from nothing.
            let more = now.checked_sub(*before).unwrap_or(now);
            *before = now;
            metrics.policy.denied_exactly(word(direction), more);
        }
    }

    /// Listens no longer: the table is gone, and what it has counted.
    pub fn close(&mut self) {
        (self.log, self.counted) = (None, [0; 2]);
    }

    /// The next packet; waits for it, for ever where nobody listens. Cancel safe.
    pub async fn next(&mut self) -> Option<LoggedPacket> {
        let heard: io::Result<LoggedPacket> = match &mut self.log {
            Some(log) => log.next().await,
            None => std::future::pending().await,
        };
        heard.inspect_err(|_| self.log = None).ok()
    }

    /// Tells of a packet.
    pub fn tell(
        &mut self,
        packet: &LoggedPacket,
        planner: &Planner,
        attached: &[Attached],
        metrics: &Metrics,
    ) {
        let is_of = |direction: &Direction| packet.prefix == log_prefix(*direction);
        let Some(direction) = DIRECTIONS.into_iter().find(is_of) else { return };
        let (own, peer) = match direction {
            Direction::Ingress => (packet.destination, packet.source),
            Direction::Egress => (packet.source, packet.destination),
        };
        let find = |address: IpAddr| attached.iter().find(|it| it.addresses.contains(&address));
        let pod = find(own);
        metrics.policy.denied(pod.map_or("", |it| it.namespace()), word(direction));
        if !self.may_log(Instant::now()) {
            return;
        }
        // Of pods of other nodes the planner knows: a look at all, which ten lines a second can pay for.
        let name = |found: Option<&Attached>, address: IpAddr| {
            let known = found.map(|it| it.name.clone()).or_else(|| planner.name_of(address));
            known.unwrap_or_else(|| address.to_string())
        };
        let port = packet.ports.map_or(0, |(_, to)| to);
        let itself = find(peer).is_some_and(|it| pod.is_some_and(|pod| pod.uid == it.uid));
        let asked = Asked { direction, peer, protocol: packet.protocol, port, itself };
        let policies = pod.map(|pod| policies(planner.plan(), pod, &asked)).unwrap_or_default();
        info!(
            direction = word(direction),
            pod = name(pod, own),
            peer = name(find(peer), peer),
            address = %peer,
            port,
            protocol = protocol(packet.protocol),
            policies,
            "policy denied"
        );
    }

    fn may_log(&mut self, now: Instant) -> bool {
        if self.second.is_none_or(|began| now.duration_since(began) >= SECOND) {
            let left_out = std::mem::take(&mut self.left_out);
            if left_out > 0 {
                info!(packets = left_out, "policy denied more");
            }
            (self.second, self.lines) = (Some(now), 0);
        }
        self.lines += 1;
        let may = self.lines <= LINES;
        self.left_out += u32::from(!may);
        may
    }
}

/// A packet, seen from the pod.
struct Asked {
    direction: Direction,
    peer: IpAddr,
    protocol: u8,
    port: u16,
    /// Whether the pod is the peer as well.
    itself: bool,
}

/// The rule that denies a packet, or the policies that isolate a pod, or why it is closed.
fn policies(plan: &Plan, pod: &Attached, asked: &Asked) -> String {
    let Asked { direction, peer, protocol, port, itself } = *asked;
    let (way, held) = match (plan.pods.get(&pod.uid), plan.holds.get(pod.namespace())) {
        (Some(pod), _) => (pod.way(direction), false),
        (None, Some(hold)) => (hold.way(direction), true),
        (None, None) => return String::new(),
    };
    if held {
        return "pod not known yet".to_owned();
    }
    // Policies may be others by now: then what isolates the pod is told.
    if let Walked::Forbidden(rule) = plan.walk_way(&way, peer, protocol, port, itself) {
        return rule.comment.clone();
    }
    match way.policies {
        Isolation::Rules(chain) => plan.chains.get(chain).map(|it| it.policies.join(",")).unwrap_or_default(),
        Isolation::Closed => "one that cannot be compiled".to_owned(),
        Isolation::None | Isolation::Open if way.has_tiers() => "ClusterNetworkPolicies".to_owned(),
        Isolation::None | Isolation::Open => String::new(),
    }
}

fn word(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    }
}

fn protocol(number: u8) -> String {
    match number {
        1 | 58 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        132 => "sctp".to_owned(),
        other => other.to_string(),
    }
}
