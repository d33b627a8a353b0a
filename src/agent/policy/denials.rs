//! Packets that no rule allows, as the table tells of them: a log line with the pod's name and its policies, and a count by
//! namespace.
//!
//! The kernel tells of ten a second and direction at most. So beyond that the counts are too small; the table's own counters
//! of `denied_in` and `denied_out` are exact.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use crate::agent::serve::metrics::Metrics;
use crate::datapath::policy::{Attached, LOG_GROUP, log_prefix};
use crate::linux::nflog::{LoggedPacket, PacketLog};
use crate::policy::plan::{Direction, Isolation, Plan};

/// Most lines in a second.
const LINES: u32 = 10;

const SECOND: Duration = Duration::from_secs(1);

/// Hears of them.
#[derive(Default)]
pub struct Denials {
    log: Option<PacketLog>,
    /// Why the log was not opened, as it was said.
    reason: Option<String>,
    second: Option<Instant>,
    lines: u32,
    left_out: u32,
}

impl Denials {
    /// Listens from now on, where nobody does yet.
    pub fn open(&mut self) {
        if self.log.is_some() {
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

    /// Listens no longer.
    pub fn close(&mut self) {
        self.log = None;
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
    pub fn tell(&mut self, packet: &LoggedPacket, plan: &Plan, attached: &[Attached], metrics: &Metrics) {
        let is_of = |direction: &Direction| packet.prefix == log_prefix(*direction);
        let Some(direction) = [Direction::Ingress, Direction::Egress].into_iter().find(is_of) else { return };
        let (own, peer) = match direction {
            Direction::Ingress => (packet.destination, packet.source),
            Direction::Egress => (packet.source, packet.destination),
        };
        let find = |address: IpAddr| attached.iter().find(|it| it.addresses.contains(&address));
        let pod = find(own);
        let word = match direction {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        };
        metrics.policy.denied(pod.map_or("", |it| it.namespace()), word);
        if !self.may_log(Instant::now()) {
            return;
        }
        let name = |found: Option<&Attached>, address: IpAddr| {
            found.map_or_else(|| address.to_string(), |it| it.name.clone())
        };
        let (port, protocol) = (packet.ports.map_or(0, |(_, to)| to), protocol(packet.protocol));
        let policies = pod.map(|pod| policies(plan, pod, direction)).unwrap_or_default();
        info!(
            direction = word,
            pod = name(pod, own),
            peer = name(find(peer), peer),
            address = %peer,
            port,
            protocol,
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

/// The policies that isolate a pod, or why it is closed.
fn policies(plan: &Plan, pod: &Attached, direction: Direction) -> String {
    let (isolation, held) = match (plan.pods.get(&pod.uid), plan.holds.get(pod.namespace())) {
        (Some(pod), _) => (pod.of(direction), false),
        (None, Some(hold)) => (hold.of(direction), true),
        (None, None) => return String::new(),
    };
    if held {
        return "pod not known yet".to_owned();
    }
    match isolation {
        Isolation::Rules(chain) => plan.chains.get(chain).map(|it| it.policies.join(",")).unwrap_or_default(),
        Isolation::Closed => "one that cannot be compiled".to_owned(),
        Isolation::None | Isolation::Open => String::new(),
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
