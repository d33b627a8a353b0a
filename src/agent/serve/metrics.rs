//! Metrics in Prometheus' text form. Those of the process have the names that every exporter uses.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::agent::serve::policy_metrics::PolicyMetrics;
use crate::agent::serve::process::Process;
use crate::cni::ids::NetworkName;
use crate::config::range::RangeSet;
use crate::foreign_firewall::DropChain;
use crate::store::Usage;

/// Labels and their values.
type Labels<const N: usize> = [(&'static str, String); N];
type Label = Labels<1>;

/// A gauge whose values an `i64` cannot hold: an IPv6 subnet has more addresses.
type LargeGauge = Gauge<f64, AtomicU64>;

/// Bounds of durations, in seconds: from what a step usually takes to the deadline of an ADD and of its undo.
const BUCKETS: [f64; 17] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0];

/// All that /metrics serves.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Nodes known, this one included.
    pub nodes: Gauge,
    /// Nodes that have no route, or not all of them, for a reason of their own.
    pub nodes_with_problems: Gauge,
    claims_refused: Family<Label, Gauge>,
    /// Families of the Node's addresses that the node has lost.
    pub families_lost: Gauge,
    /// Routes to peers that packets do not take.
    pub routes_overruled: Gauge,
    /// Nodes that packets as large as the pods' do not reach.
    pub paths_too_small: Gauge,
    /// Routes to peers that are desired.
    pub routes_desired: Gauge,
    /// Those that the kernel has.
    pub routes_programmed: Gauge,
    /// Routes that were set again after somebody deleted them.
    pub routes_repaired: Counter,
    /// Failures to set a peer's routes.
    peer_errors: Family<Label, Counter>,
    /// Failures of a step.
    errors: Family<Label, Counter>,
    /// How long a step took.
    steps: Family<Label, Histogram>,
    /// From an event of the kernel to its repair.
    pub repair_duration: Histogram,
    /// Times that the table was repaired.
    pub tables_repaired: Counter,
    /// Times that forwarding was enabled again.
    pub sysctls_repaired: Counter,
    /// Dead attachments whose addresses were released.
    pub reclaimed: Counter,
    /// Running pods that got a record again.
    pub records_restored: Counter,
    /// Running pods that have none.
    pub pods_without_record: Gauge,
    /// Running pods whose address is in none of the node's podCIDRs.
    pub pods_outside_pod_cidrs: Gauge,
    addresses_used: Family<Labels<3>, LargeGauge>,
    addresses_free: Family<Labels<3>, LargeGauge>,
    addresses_capacity: Family<Labels<3>, LargeGauge>,
    forward_drops: Family<Labels<3>, Gauge>,
    dropped: Family<Label, Counter>,
    commands: Family<Labels<3>, Counter>,
    add_phases: Family<Label, Histogram>,
    /// Whether the API server answers.
    pub api_up: Gauge,
    /// Those of NetworkPolicy.
    pub policy: PolicyMetrics,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Everything at zero.
    pub fn new() -> Self {
        let histogram = || Histogram::new(BUCKETS);
        let mut metrics = Self {
            registry: Registry::default(),
            nodes: Gauge::default(),
            nodes_with_problems: Gauge::default(),
            claims_refused: Family::default(),
            families_lost: Gauge::default(),
            routes_overruled: Gauge::default(),
            paths_too_small: Gauge::default(),
            routes_desired: Gauge::default(),
            routes_programmed: Gauge::default(),
            routes_repaired: Counter::default(),
            peer_errors: Family::default(),
            errors: Family::default(),
            steps: Family::new_with_constructor(histogram),
            repair_duration: histogram(),
            tables_repaired: Counter::default(),
            sysctls_repaired: Counter::default(),
            reclaimed: Counter::default(),
            records_restored: Counter::default(),
            pods_without_record: Gauge::default(),
            pods_outside_pod_cidrs: Gauge::default(),
            addresses_used: Family::default(),
            addresses_free: Family::default(),
            addresses_capacity: Family::default(),
            forward_drops: Family::default(),
            dropped: Family::default(),
            commands: Family::default(),
            add_phases: Family::new_with_constructor(histogram),
            api_up: Gauge::default(),
            policy: PolicyMetrics::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        self.registry.register_collector(Box::new(Process));
        let registry = self.registry.sub_registry_with_prefix("ferrule");
        registry.register(
            "build",
            "Version of the agent",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        let mut gauge = |name, help, gauge: &Gauge| registry.register(name, help, gauge.clone());
        gauge("nodes", "Nodes of the cluster that the agent knows, this one included", &self.nodes);
        gauge(
            "nodes_with_problems",
            "Nodes that lack routes because of what their Node says",
            &self.nodes_with_problems,
        );
        gauge("routes_desired", "Routes to other nodes that are desired", &self.routes_desired);
        gauge(
            "routes_programmed",
            "Routes to other nodes that the kernel has and takes",
            &self.routes_programmed,
        );
        gauge(
            "address_families_lost",
            "Address families that this node's Node names and the node does not have",
            &self.families_lost,
        );
        gauge(
            "routes_overruled",
            "Routes to other nodes that packets do not take, because somebody else's route or rule wins",
            &self.routes_overruled,
        );
        let help = "Other nodes that packets as large as the pods' do not reach, of those that were tried";
        gauge("paths_too_small", help, &self.paths_too_small);
        let help = "Running pods that have no record, and got none";
        gauge("pods_without_record", help, &self.pods_without_record);
        let help = "Running pods whose address is in none of this node's podCIDRs";
        gauge("pods_outside_pod_cidrs", help, &self.pods_outside_pod_cidrs);
        gauge("api_up", "1 if the watch of the API server works", &self.api_up);
        let mut counter = |name, help, counter: &Counter| registry.register(name, help, counter.clone());
        counter("routes_repaired", "Routes set again after somebody deleted them", &self.routes_repaired);
        counter("tables_repaired", "Times that the nftables table was repaired", &self.tables_repaired);
        counter("sysctls_repaired", "Times that forwarding was enabled again", &self.sysctls_repaired);
        counter("reclaimed_attachments", "Dead attachments whose addresses were released", &self.reclaimed);
        let help = "Running pods whose record was lost, and that got one again";
        counter("records_restored", help, &self.records_restored);
        let help = "podCIDRs and addresses of a Node that this node refuses";
        registry.register("claims_refused", help, self.claims_refused.clone());
        registry.register("peer_errors", "Failures to set the routes to a node", self.peer_errors.clone());
        registry.register("errors", "Failures of a step of the agent", self.errors.clone());
        let seconds = || Unit::Seconds;
        let steps = self.steps.clone();
        registry.register_with_unit("step_duration", "Duration of a step of the agent", seconds(), steps);
        let repair = self.repair_duration.clone();
        registry.register_with_unit("repair_duration", "From drift to its repair", seconds(), repair);
        let used = self.addresses_used.clone();
        registry.register("addresses_used", "Addresses of a podCIDR that pods have", used);
        let free = self.addresses_free.clone();
        registry.register("addresses_free", "Addresses of a podCIDR that pods can get", free);
        let capacity = self.addresses_capacity.clone();
        registry.register("addresses_capacity", "Addresses of a podCIDR that pods have or can get", capacity);
        let help =
            "1 for each chain of the forward hook that ends in a drop and has no accept rules for pods";
        registry.register("forward_drop_chains", help, self.forward_drops.clone());
        let help = "Packets that were dropped on this node, by reason, since the nftables table was made";
        registry.register("dropped_packets", help, self.dropped.clone());
        let commands = self.commands.clone();
        registry.register(
            "commands",
            "Commands of the plugin, from its log, of one network; code is 0 for a success",
            commands,
        );
        let phases = self.add_phases.clone();
        let help = "Duration of an ADD, and of its phases; from the plugin's log, of one network";
        registry.register_with_unit("add_phase_duration", help, seconds(), phases);
        self.policy.register(registry);
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

    /// So many of what that Node claims is refused.
    pub fn claims_refused(&self, node: &str, count: usize) {
        let label = [("node", node.to_owned())];
        if count == 0 {
            self.claims_refused.remove(&label);
        } else {
            self.claims_refused.get_or_create(&label).set(count.try_into().unwrap_or(i64::MAX));
        }
    }

    /// Forgets the counters of a peer that is gone, so that their number does not grow for ever.
    pub fn forget_peer(&self, peer: &str) {
        self.peer_errors.remove(&[("peer", peer.to_owned())]);
    }

    /// The addresses of a range set.
    #[expect(clippy::cast_precision_loss, reason = "an IPv6 subnet has more addresses than any counter")]
    pub fn addresses(&self, network: &NetworkName, set: &RangeSet, usage: Usage) {
        let family = if set.is_ipv4() { "ipv4" } else { "ipv6" };
        let labels =
            [("network", network.to_string()), ("subnet", set.to_string()), ("family", family.to_owned())];
        let Usage { held, free } = usage;
        self.addresses_used.get_or_create(&labels).set(held as f64);
        self.addresses_free.get_or_create(&labels).set(free as f64);
        self.addresses_capacity.get_or_create(&labels).set(held.saturating_add(free) as f64);
    }

    /// Forgets subnets that this node has no longer.
    pub fn forget_addresses(&self) {
        self.addresses_used.clear();
        self.addresses_free.clear();
        self.addresses_capacity.clear();
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

    /// So many packets more were dropped for that reason.
    pub fn dropped(&self, reason: &'static str, packets: u64) {
        self.dropped.get_or_create(&[("reason", reason.to_owned())]).inc_by(packets);
    }

    /// A command of the plugin; `code` is that of its error.
    pub fn command(&self, command: &str, code: Option<&str>) {
        let outcome = if code.is_some() { "error" } else { "success" };
        let code = code.unwrap_or("0").to_owned();
        let labels = [("command", command.to_owned()), ("outcome", outcome.to_owned()), ("code", code)];
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
    use crate::config::range::Range;
    use crate::linux::nft::table::{Family, Hook, Table};

    #[test]
    fn what_was_counted_is_told_under_names_that_dashboards_know() {
        let metrics = Metrics::new();
        metrics.routes_desired.set(4);
        metrics.routes_repaired.inc();
        metrics.peer_failed("b");
        metrics.step_took("routes", Duration::from_millis(3));
        let network = NetworkName::parse("podnet").unwrap();
        let range = Range::new("10.244.1.0/24".parse().unwrap(), None, None, None).unwrap();
        metrics.addresses(&network, &RangeSet::new(vec![range]).unwrap(), Usage { held: 3, free: 250 });
        metrics.command("ADD", None);
        metrics.command("ADD", Some("100"));
        metrics.add_phase("ipam", 0.0003);
        let text = metrics.render().unwrap();
        for line in [
            "ferrule_routes_desired 4",
            "ferrule_routes_repaired_total 1",
            "ferrule_peer_errors_total{peer=\"b\"} 1",
            "ferrule_step_duration_seconds_count{step=\"routes\"} 1",
            "ferrule_addresses_used{network=\"podnet\",subnet=\"10.244.1.0/24\",family=\"ipv4\"} 3.0",
            "ferrule_addresses_capacity{network=\"podnet\",subnet=\"10.244.1.0/24\",family=\"ipv4\"} 253.0",
            "ferrule_commands_total{command=\"ADD\",outcome=\"success\",code=\"0\"} 1",
            "ferrule_commands_total{command=\"ADD\",outcome=\"error\",code=\"100\"} 1",
            "ferrule_add_phase_duration_seconds_bucket{le=\"0.0005\",phase=\"ipam\"} 1",
            concat!("ferrule_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        ] {
            assert!(text.lines().any(|it| it == line), "{line}\n{text}");
        }
        for name in
            ["cpu_seconds_total", "resident_memory_bytes", "open_fds", "max_fds", "start_time_seconds"]
        {
            assert!(text.lines().any(|line| line.starts_with(&format!("process_{name} "))), "{name}\n{text}");
        }
        metrics.forget_peer("b");
        assert!(!metrics.render().unwrap().contains("peer=\"b\""));
    }

    /// Every metric, each with a value.
    fn all() -> String {
        let metrics = Metrics::new();
        metrics.command("ADD", None);
        metrics.add_phase("ipam", 0.0003);
        metrics.peer_failed("b");
        metrics.step_took("routes", Duration::from_millis(3));
        metrics.step_failed("routes");
        metrics.dropped("spoofed_source", 1);
        metrics.policy.problems("invalid", 1);
        metrics.policy.denied("shop", "ingress");
        metrics.policy.denied_exactly("ingress", 1);
        let range = Range::new("10.244.1.0/24".parse().unwrap(), None, None, None).unwrap();
        let (network, set) = (NetworkName::parse("podnet").unwrap(), RangeSet::new(vec![range]).unwrap());
        metrics.addresses(&network, &set, Usage { held: 3, free: 250 });
        let table = Table { family: Family::Ipv4, name: "filter".to_owned() };
        let chain = "FORWARD".to_owned();
        let (hook, policy_drops) = (Hook::Forward, true);
        let chain = DropChain { table, chain, hook, legacy: false, policy_drops, has_docker_user: false };
        metrics.forward_drops(std::iter::once(&chain));
        metrics.render().unwrap()
    }

    /// Whoever renames a metric has to look at the dashboard and at the alerts.
    #[test]
    fn dashboard_and_alerts_ask_for_metrics_that_exist() {
        let text = all();
        for (file, least) in [
            (include_str!("../../../deploy/grafana-dashboard.json"), 10),
            (include_str!("../../../deploy/prometheus/rules.yaml"), 6),
        ] {
            let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
            let words = file.split(|letter| !is_part(letter));
            let names: Vec<&str> =
                words.filter(|it| it.starts_with("ferrule_") || it.starts_with("process_")).collect();
            assert!(names.len() >= least, "{names:?}");
            for name in names {
                let is_it =
                    |line: &str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
                assert!(text.lines().any(is_it), "{name}\n{text}");
            }
        }
    }

    /// https://prometheus.io/docs/practices/naming: counters end in `_total`, nothing else does; a prefix; base units.
    #[test]
    fn names_are_as_prometheus_wants_them() {
        let text = all();
        let types: Vec<(&str, &str)> =
            text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
        assert!(types.len() > 20, "{types:?}");
        for (name, kind) in types {
            assert!(name.starts_with("ferrule_") || name.starts_with("process_"), "{name}");
            assert!(text.contains(&format!("# HELP {name} ")), "{name} has no help");
            let samples: Vec<&str> = text
                .lines()
                .filter(|line| !line.starts_with('#'))
                .filter_map(|line| line.split(['{', ' ']).next())
                .filter(|sample| {
                    sample.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
                })
                .collect();
            match kind {
                "counter" => {
                    assert!(samples.iter().any(|it| *it == format!("{name}_total")), "{name}: {samples:?}")
                }
                "histogram" => assert!(name.ends_with("_seconds"), "{name}"),
                _ => assert!(
                    !name.ends_with("_total") && !samples.contains(&&*format!("{name}_total")),
                    "{name}"
                ),
            }
            for unit in ["_milliseconds", "_ms", "_minutes", "_kib", "_mb", "_percent"] {
                assert!(!name.contains(unit), "{name}");
            }
        }
        // Beyond five seconds an ADD is what somebody looks for.
        let bounds: Vec<f64> = text
            .lines()
            .filter_map(|line| {
                line.strip_prefix("ferrule_add_phase_duration_seconds_bucket{le=\"")?.split('"').next()
            })
            .filter_map(|bound| bound.parse().ok())
            .filter(|bound: &f64| bound.is_finite() && *bound > 5.0)
            .collect();
        assert_eq!(bounds, [10.0, 20.0, 30.0, 60.0]);
    }
}
