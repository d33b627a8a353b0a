//! Pods of this node that are not as they should be.

use ipnetwork::IpNetwork;
use tracing::{info, warn};

use super::{Reported, SHOWN, gauge};
use crate::agent::apply::lost::OutsidePod;
use crate::attachments::take_up::{TakenUp, Unrecorded};

/// What was reported of them.
#[derive(Debug, Default)]
pub struct OddPods {
    without_record: Vec<Unrecorded>,
    outside: Vec<OutsidePod>,
    /// The podCIDRs of this node, in words.
    pod_cidrs: String,
}

impl Reported {
    /// Pods without a record were looked for.
    pub fn taken_up(&mut self, found: TakenUp) {
        for record in found.records.iter().take(SHOWN) {
            let pod = record.pod.as_ref().map_or_else(|| record.key().to_string(), ToString::to_string);
            let addresses: Vec<String> = record.addresses.iter().map(ToString::to_string).collect();
            let addresses = addresses.join(",");
            warn!(pod, addresses, "running pod had no record, it has one again");
            let note = format!(
                "pod {pod} ({addresses}) had no record and has one again: somebody removed the store"
            );
            self.event("PodRecordRestored", note);
        }
        if let Some(count) = found.records.len().checked_sub(SHOWN).filter(|count| *count > 0) {
            warn!(count, "more running pods had no record");
        }
        self.metrics.records_restored.inc_by(found.records.len().try_into().unwrap_or(u64::MAX));
        for it in found.left.iter().filter(|it| !self.odd_pods.without_record.contains(it)).take(SHOWN) {
            warn!(pod = it.pod, link = it.link, reason = it.reason, "running pod has no record");
            self.event("PodWithoutRecord", it.note());
        }
        self.metrics.pods_without_record.set(gauge(found.left.len()));
        self.odd_pods.without_record = found.left;
    }

    /// Pods were looked for whose address is in none of the node's podCIDRs.
    pub fn outside(&mut self, found: Vec<OutsidePod>, pod_cidrs: &[IpNetwork]) {
        self.odd_pods.pod_cidrs = pod_cidrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        for it in found.iter().filter(|it| !self.odd_pods.outside.contains(it)).take(SHOWN) {
            let pod_cidrs = self.odd_pods.pod_cidrs.as_str();
            warn!(pod = it.pod, address = %it.address, pod_cidrs, "pod has an address outside of the node's podCIDRs");
            self.event("PodOutsideNodeRange", it.note(pod_cidrs));
        }
        if found.is_empty() && !self.odd_pods.outside.is_empty() {
            info!("no pod outside of the node's podCIDRs any more");
        }
        self.metrics.pods_outside_pod_cidrs.set(gauge(found.len()));
        self.odd_pods.outside = found;
    }

    /// What goes on being wrong, for events.
    pub(super) fn odd_pods(&self) -> impl Iterator<Item = (&'static str, String)> {
        let OddPods { without_record, outside, pod_cidrs } = &self.odd_pods;
        let without_record = without_record.iter().map(|it| ("PodWithoutRecord", it.note()));
        without_record.chain(outside.iter().map(|it| ("PodOutsideNodeRange", it.note(pod_cidrs))))
    }
}

impl Unrecorded {
    fn note(&self) -> String {
        let Self { link, pod, reason } = self;
        format!(
            "pod {pod} (link {link}) runs without a record: {reason}; delete it, so that it is created again"
        )
    }
}

impl OutsidePod {
    fn note(&self, pod_cidrs: &str) -> String {
        let Self { pod, address } = self;
        format!(
            "pod {pod} has {address}, which is in no podCIDR of this node ({pod_cidrs}): other nodes do not reach it, and \
             may reach another pod there; delete it, so that it is created again"
        )
    }
}
