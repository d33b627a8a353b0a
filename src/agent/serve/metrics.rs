//! What is counted and measured, in Prometheus' text form.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::foreign_firewall::DropChain;

/// One label and its value.
type Label = [(&'static str, String); 1];

/// Bounds of what takes milliseconds, in seconds.
const FINE: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// All that is told at /metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Nodes known, this one included.
    pub nodes: Gauge,
    /// Nodes that have no route, or not all of them, for a reason of their own.
    pub nodes_with_problems: Gauge,
    /// Routes to peers that there should be.
    pub routes_desired: Gauge,
    /// Those that stand as they should.
    pub routes_programmed: Gauge,
    /// Routes that were put back because somebody took them away.
    pub routes_repaired: Counter,
    /// Failures to set a peer's routes.
    peer_errors: Family<Label, Counter>,
    /// Failures of a step.
    errors: Family<Label, Counter>,
    /// How long a step took.
    steps: Family<Label, Histogram>,
    /// From an event of the kernel to its repair.
    pub repair_seconds: Histogram,
    /// Times that the table was made again.
    pub tables_repaired: Counter,
    /// Sysctls that were switched on again.
    pub sysctls_repaired: Counter,
    /// Attachments that were freed because their pods are dead.
    pub reclaimed: Counter,
    addresses_used: Family<Label, Gauge>,
    addresses_free: Family<Label, Gauge<f64, std::sync::atomic::AtomicU64>>,
    forward_drops: Family<[(&'static str, String); 3], Gauge>,
    commands: Family<[(&'static str, String); 2], Counter>,
    add_phases: Family<Label, Histogram>,
    /// Whether the API server answers.
    pub api_answers: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Everything at zero.
    pub fn new() -> Self {
        let histogram = || Histogram::new(FINE);
        let mut metrics = Self {
            registry: Registry::with_prefix("ferrule"),
            nodes: Gauge::default(),
            nodes_with_problems: Gauge::default(),
            routes_desired: Gauge::default(),
            routes_programmed: Gauge::default(),
            routes_repaired: Counter::default(),
            peer_errors: Family::default(),
            errors: Family::default(),
            steps: Family::new_with_constructor(histogram),
            repair_seconds: histogram(),
            tables_repaired: Counter::default(),
            sysctls_repaired: Counter::default(),
            reclaimed: Counter::default(),
            addresses_used: Family::default(),
            addresses_free: Family::default(),
            forward_drops: Family::default(),
            commands: Family::default(),
            add_phases: Family::new_with_constructor(histogram),
            api_answers: Gauge::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "build",
            "Version of the agent",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        let mut gauge = |name, help, gauge: &Gauge| registry.register(name, help, gauge.clone());
        gauge("nodes", "Nodes of the cluster that the agent knows, this one included", &self.nodes);
        gauge(
            "nodes_with_problems",
            "Nodes that lack routes for a reason of their own",
            &self.nodes_with_problems,
        );
        gauge("routes_desired", "Routes to other nodes that there should be", &self.routes_desired);
        gauge(
            "routes_programmed",
            "Routes to other nodes that stand as they should",
            &self.routes_programmed,
        );
        gauge("api_answers", "1 if the watch of the API server works", &self.api_answers);
        let mut counter = |name, help, counter: &Counter| registry.register(name, help, counter.clone());
        counter("routes_repaired", "Routes put back after somebody took them away", &self.routes_repaired);
        counter("tables_repaired", "Times that the nftables table was mended", &self.tables_repaired);
        counter("sysctls_repaired", "Times that forwarding was switched on again", &self.sysctls_repaired);
        counter("reclaimed_attachments", "Attachments of dead pods that were freed", &self.reclaimed);
        registry.register("peer_errors", "Failures to set the routes to a node", self.peer_errors.clone());
        registry.register("errors", "Failures of a step of the agent", self.errors.clone());
        let seconds = || Unit::Seconds;
        let steps = self.steps.clone();
        registry.register_with_unit("step", "How long a step of the agent took", seconds(), steps);
        let repair = self.repair_seconds.clone();
        registry.register_with_unit("repair", "From an event of the kernel to its repair", seconds(), repair);
        let used = self.addresses_used.clone();
        registry.register("addresses_used", "Addresses of a podCIDR that pods have", used);
        let free = self.addresses_free.clone();
        registry.register("addresses_free", "Addresses of a podCIDR that pods can get", free);
        let help =
            "1 for each chain of the forward hook that ends in a drop and has no accept rules for pods";
        registry.register("forward_drop_chains", help, self.forward_drops.clone());
        let commands = self.commands.clone();
        registry.register("commands", "Commands of the plugin, from its log", commands);
        let phases = self.add_phases.clone();
        registry.register_with_unit("add_phase", "How long an ADD took, and its phases", seconds(), phases);
    }

    /// A step took so long.
    pub fn step_took(&self, step: &str, time: Duration) {
        self.steps.get_or_create(&[("step", step.to_owned())]).observe(time.as_secs_f64());
    }

    /// A step failed.
    pub fn step_failed(&self, step: &str) {
        self.errors.get_or_create(&[("step", step.to_owned())]).inc();
    }

    /// A route to that peer could not be set.
    pub fn peer_failed(&self, peer: &str) {
        self.peer_errors.get_or_create(&[("peer", peer.to_owned())]).inc();
    }

    /// Forgets the counters of a peer that is gone, so that their number does not grow for ever.
    pub fn forget_peer(&self, peer: &str) {
        self.peer_errors.remove(&[("peer", peer.to_owned())]);
    }

    /// The addresses of a subnet.
    #[expect(clippy::cast_precision_loss, reason = "an IPv6 subnet has more addresses than any counter")]
    pub fn addresses(&self, subnet: &str, used: u128, free: u128) {
        let label = [("subnet", subnet.to_owned())];
        self.addresses_used.get_or_create(&label).set(i64::try_from(used).unwrap_or(i64::MAX));
        self.addresses_free.get_or_create(&label).set(free as f64);
    }

    /// Forgets subnets that this node has no longer.
    pub fn forget_addresses(&self) {
        self.addresses_used.clear();
        self.addresses_free.clear();
    }

    /// The chains of other people's firewalls that may drop forwarded packets, and no others.
    pub fn forward_drops<'a>(&self, chains: impl Iterator<Item = &'a DropChain>) {
        self.forward_drops.clear();
        for DropChain { table, chain, .. } in chains {
            let family = table.family.to_string();
            let labels = [("family", family), ("table", table.name.clone()), ("chain", chain.clone())];
            self.forward_drops.get_or_create(&labels).set(1);
        }
    }

    /// A command of the plugin.
    pub fn command(&self, command: &str, is_error: bool) {
        let outcome = if is_error { "error" } else { "success" };
        let labels = [("command", command.to_owned()), ("outcome", outcome.to_owned())];
        self.commands.get_or_create(&labels).inc();
    }

    /// A phase of an ADD.
    pub fn add_phase(&self, phase: &str, seconds: f64) {
        self.add_phases.get_or_create(&[("phase", phase.to_owned())]).observe(seconds);
    }

    /// Everything as text (OpenMetrics 1.0).
    ///
    /// # Errors
    /// None of the outside world.
    pub fn render(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_told_under_names_that_dashboards_know() {
        let metrics = Metrics::new();
        metrics.routes_desired.set(4);
        metrics.routes_repaired.inc();
        metrics.peer_failed("b");
        metrics.step_took("routes", Duration::from_millis(3));
        metrics.addresses("10.244.1.0/24", 3, 250);
        metrics.command("ADD", false);
        metrics.add_phase("ipam", 0.0003);
        let text = metrics.render().unwrap();
        for line in [
            "ferrule_routes_desired 4",
            "ferrule_routes_repaired_total 1",
            "ferrule_peer_errors_total{peer=\"b\"} 1",
            "ferrule_step_seconds_count{step=\"routes\"} 1",
            "ferrule_addresses_used{subnet=\"10.244.1.0/24\"} 3",
            "ferrule_addresses_free{subnet=\"10.244.1.0/24\"} 250.0",
            "ferrule_commands_total{command=\"ADD\",outcome=\"success\"} 1",
            "ferrule_add_phase_seconds_bucket{le=\"0.0005\",phase=\"ipam\"} 1",
            concat!("ferrule_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        ] {
            assert!(text.lines().any(|it| it == line), "{line}\n{text}");
        }
        metrics.forget_peer("b");
        assert!(!metrics.render().unwrap().contains("peer=\"b\""));
    }
}
