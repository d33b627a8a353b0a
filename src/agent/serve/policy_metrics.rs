//! Metrics of NetworkPolicy.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

type Labels<const N: usize> = [(&'static str, String); N];

/// Bounds of the time from the API server's word to the table, in seconds.
const BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// All of them.
#[derive(Debug)]
pub struct PolicyMetrics {
    /// Policies of the cluster.
    pub policies: Gauge,
    /// ClusterNetworkPolicies.
    pub cluster_policies: Gauge,
    problems: Family<Labels<1>, Gauge>,
    /// Pods of this node that a policy isolates.
    pub isolated: Gauge,
    /// Pods of this node that the agent does not know yet.
    pub held: Gauge,
    /// From the API server's word to the table.
    pub programmed: Histogram,
    /// Times that the table was repaired.
    pub repaired: Counter,
    /// Existing flows that were cut.
    pub cut: Counter,
    denied: Family<Labels<2>, Counter>,
    denied_exactly: Family<Labels<1>, Counter>,
    /// Whether the kernel cannot tell of denied packets.
    pub log_missing: Gauge,
}

impl Default for PolicyMetrics {
    fn default() -> Self {
        Self {
            policies: Gauge::default(),
            cluster_policies: Gauge::default(),
            problems: Family::default(),
            isolated: Gauge::default(),
            held: Gauge::default(),
            programmed: Histogram::new(BUCKETS),
            repaired: Counter::default(),
            cut: Counter::default(),
            denied: Family::default(),
            denied_exactly: Family::default(),
            log_missing: Gauge::default(),
        }
    }
}

impl PolicyMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "network_policies",
            "NetworkPolicies of the cluster that the agent knows",
            self.policies.clone(),
        );
        registry.register(
            "cluster_network_policies",
            "ClusterNetworkPolicies that the agent knows",
            self.cluster_policies.clone(),
        );
        let help = "Policies with a problem: invalid (a part of them cannot be understood, what they allow then is closed), \
                    selects_nobody";
        registry.register("policy_problems", help, self.problems.clone());
        registry.register(
            "policy_pods_isolated",
            "Pods of this node that a NetworkPolicy isolates, or about which a ClusterNetworkPolicy has rules",
            self.isolated.clone(),
        );
        let help =
            "Pods of this node that have only what is certain, because the agent does not know them yet";
        registry.register("policy_pods_held", help, self.held.clone());
        let help = "From what the API server says to the table";
        let programmed = self.programmed.clone();
        registry.register_with_unit("policy_programming_duration", help, Unit::Seconds, programmed);
        registry.register(
            "policy_tables_repaired",
            "Times that the table of policies was repaired",
            self.repaired.clone(),
        );
        let help = "Existing flows that were cut because no rule allows them any more";
        registry.register("policy_flows_cut", help, self.cut.clone());
        let help = "Packets that no rule allows, by the pod's namespace; ten a second of a direction are counted at most";
        registry.register("policy_denied_packets", help, self.denied.clone());
        let help = "Packets that no rule allows, all of them, as the table counts them";
        registry.register("policy_denied", help, self.denied_exactly.clone());
        let help =
            "1 where the kernel has no log for nf_tables: policies hold, and nobody is told what they deny";
        registry.register("policy_log_missing", help, self.log_missing.clone());
    }

    /// So many policies have that problem.
    pub fn problems(&self, problem: &'static str, count: usize) {
        let gauge = self.problems.get_or_create(&[("problem", problem.to_owned())]);
        gauge.set(count.try_into().unwrap_or(i64::MAX));
    }

    /// A packet from or to a pod of that namespace was denied.
    pub fn denied(&self, namespace: &str, direction: &'static str) {
        let labels = [("namespace", namespace.to_owned()), ("direction", direction.to_owned())];
        self.denied.get_or_create(&labels).inc();
    }

    /// So many packets more were denied.
    pub fn denied_exactly(&self, direction: &'static str, packets: u64) {
        self.denied_exactly.get_or_create(&[("direction", direction.to_owned())]).inc_by(packets);
    }
}
