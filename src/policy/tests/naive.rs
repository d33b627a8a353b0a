//! A second reading of the specification, from its text and on the objects as they are written. It shares nothing with
//! what it is compared with.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::cluster::Cluster;
use crate::policy::cluster::object::*;
use crate::policy::evaluate::Flow;
use crate::policy::object::*;

/// Whether egress of the source, and ingress of the destination, is allowed.
pub fn allowed(cluster: &Cluster, flow: &Flow) -> (bool, bool) {
    let own = |address: IpAddr| {
        let pods = cluster.pods.iter().filter(|(is_own, pod)| *is_own && !pod.host_network);
        pods.map(|(_, pod)| pod).find(|pod| pod.addresses.contains(&address))
    };
    let (source, destination) = (own(flow.source), own(flow.destination));
    let itself = matches!((source, destination), (Some(a), Some(b)) if a.name == b.name);
    (
        source.is_none_or(|pod| all_tiers(cluster, flow, pod, "Egress", itself)),
        destination.is_none_or(|pod| all_tiers(cluster, flow, pod, "Ingress", itself)),
    )
}

/// "Policy tiers are evaluated in the following order: Admin tier, NetworkPolicy tier, Baseline tier"
fn all_tiers(cluster: &Cluster, flow: &Flow, pod: &Pod, direction: &str, itself: bool) -> bool {
    if let Some(decided) = tier(cluster, flow, pod, direction, "Admin") {
        return decided;
    }
    match one_way(cluster, flow, pod, direction) {
        // "A Pod cannot block access to itself."
        Some(allowed) => allowed || itself,
        None => tier(cluster, flow, pod, direction, "Baseline").unwrap_or(true),
    }
}

/// Whether a tier accepts or denies; none where it passes, or has nothing to say.
fn tier(cluster: &Cluster, flow: &Flow, pod: &Pod, direction: &str, tier: &str) -> Option<bool> {
    let mut policies: Vec<&ClusterPolicy> =
        cluster.cluster_policies.iter().filter(|it| it.spec.tier == tier).collect();
    policies.sort_by(|a, b| (a.spec.priority, &a.name).cmp(&(b.spec.priority, &b.name)));
    for policy in policies {
        let is_subject = match (&policy.spec.subject.namespaces, &policy.spec.subject.pods) {
            (Some(namespaces), _) => in_namespaces(cluster, namespaces, pod),
            (None, Some(pods)) => is_one_of(cluster, pods, pod),
            (None, None) => false,
        };
        if !is_subject {
            continue;
        }
        let rules = if direction == "Ingress" { &policy.spec.ingress } else { &policy.spec.egress };
        for rule in rules {
            // "If an implementation sees no fields are set ... For "Accept" rules, "fail closed" means: "treat the rule as
            // matching no traffic". For "Deny" and "Pass" rules ... as a 'Deny all' rule"
            if rule.peers.iter().any(|peer| !peer.others.is_empty()) {
                if rule.action == "Accept" {
                    continue;
                }
                return Some(false);
            }
            if !tier_rule_matches(cluster, flow, rule, direction) {
                continue;
            }
            match rule.action.as_str() {
                "Accept" => return Some(true),
                "Deny" => return Some(false),
                _ => return None,
            }
        }
    }
    None
}

fn tier_rule_matches(cluster: &Cluster, flow: &Flow, rule: &ClusterRule, direction: &str) -> bool {
    let other = if direction == "Ingress" { flow.source } else { flow.destination };
    let is_peer = rule.peers.iter().any(|peer| {
        let mut pods = cluster.pods.iter().map(|(_, pod)| pod);
        let in_networks = peer.networks.iter().flatten();
        let in_networks = in_networks.map(|it| it.parse::<ipnetwork::IpNetwork>().unwrap());
        in_networks.into_iter().any(|it| it.contains(other))
            || pods.any(|pod| {
                let has = !pod.host_network && pod.addresses.contains(&other);
                let is_named = match (&peer.namespaces, &peer.pods) {
                    (Some(namespaces), _) => in_namespaces(cluster, namespaces, pod),
                    (None, Some(pods)) => is_one_of(cluster, pods, pod),
                    (None, None) => false,
                };
                has && is_named
            })
    });
    let is_port = rule.protocols.is_empty()
        || rule.protocols.iter().any(|it| {
            let of = [(6, &it.tcp), (17, &it.udp), (132, &it.sctp)];
            let port = of.iter().find(|(number, _)| *number == flow.protocol).and_then(|(_, it)| it.as_ref());
            port.and_then(|it| it.destination_port.as_ref()).is_some_and(|it| match (&it.number, &it.range) {
                (Some(number), _) => *number == i64::from(flow.port),
                (None, Some(range)) => {
                    range.start <= i64::from(flow.port) && i64::from(flow.port) <= range.end
                }
                (None, None) => false,
            })
        });
    is_peer && is_port
}

fn in_namespaces(cluster: &Cluster, selector: &LabelSelector, pod: &Pod) -> bool {
    let mut namespaces = cluster.namespaces.iter();
    namespaces.any(|it| it.name == pod.name.namespace && selects(selector, &it.labels))
}

fn is_one_of(cluster: &Cluster, pods: &NamespacedPods, pod: &Pod) -> bool {
    in_namespaces(cluster, &pods.namespace_selector, pod) && selects(&pods.pod_selector, &pod.labels)
}

/// None: no policy isolates the pod.
fn one_way(cluster: &Cluster, flow: &Flow, pod: &Pod, direction: &str) -> Option<bool> {
    // "isolated ... if there is any NetworkPolicy that both selects the pod and has [the direction] in its policyTypes"
    let mut isolated = false;
    for policy in &cluster.policies {
        if policy.name.namespace != pod.name.namespace || !selects(&policy.spec.pod_selector, &pod.labels) {
            continue;
        }
        // "If no policyTypes are specified on a NetworkPolicy then by default Ingress will always be set and Egress
        // will be set if the NetworkPolicy has any egress rules."
        let has_type = match policy.spec.policy_types.len() {
            0 => direction == "Ingress" || !policy.spec.egress.is_empty(),
            _ => policy.spec.policy_types.iter().any(|it| it == direction),
        };
        if !has_type {
            continue;
        }
        isolated = true;
        let rules = if direction == "Ingress" { &policy.spec.ingress } else { &policy.spec.egress };
        if rules.iter().any(|rule| rule_allows(cluster, flow, pod, rule, direction, &policy.name.namespace)) {
            return Some(true);
        }
    }
    isolated.then_some(false)
}

fn rule_allows(
    cluster: &Cluster,
    flow: &Flow,
    pod: &Pod,
    rule: &Rule,
    direction: &str,
    namespace: &str,
) -> bool {
    let other = if direction == "Ingress" { flow.source } else { flow.destination };
    // Whoever may have the address: no pod, or one of these.
    let mut candidates: Vec<Option<&Pod>> = vec![None];
    for (_, it) in &cluster.pods {
        if !it.host_network && it.addresses.contains(&other) {
            candidates.push(Some(it));
        }
    }
    for candidate in candidates {
        // "This field ... If this field is empty or missing, this rule matches all sources"
        let mut is_peer = rule.peers.is_empty();
        for peer in &rule.peers {
            is_peer |= match (&peer.ip_block, candidate) {
                (Some(block), _) => in_block(block, other),
                (None, None) => false,
                (None, Some(it)) => {
                    let in_namespace = match &peer.namespace_selector {
                        None => it.name.namespace == namespace,
                        Some(selector) => cluster.namespaces.iter().any(|namespace| {
                            namespace.name == it.name.namespace && selects(selector, &namespace.labels)
                        }),
                    };
                    in_namespace
                        && peer.pod_selector.as_ref().is_none_or(|selector| selects(selector, &it.labels))
                }
            };
        }
        // "If this field is empty or missing, this rule matches all ports"
        let mut is_port = rule.ports.is_empty();
        for port in &rule.ports {
            let protocol = match port.protocol.as_deref().unwrap_or("TCP") {
                "TCP" => 6,
                "UDP" => 17,
                _ => 132,
            };
            is_port |= protocol == flow.protocol
                && match (&port.port, port.end_port) {
                    (None, _) => true,
                    (Some(NumberOrName::Number(first)), None) => *first == i64::from(flow.port),
                    (Some(NumberOrName::Number(first)), Some(last)) => {
                        *first <= i64::from(flow.port) && i64::from(flow.port) <= last
                    }
                    // The name is the destination's.
                    (Some(NumberOrName::Name(name)), _) => {
                        let destination = if direction == "Ingress" { Some(pod) } else { candidate };
                        destination.is_some_and(|it| {
                            let mut ports = it.ports.iter();
                            ports
                                .any(|it| it.name == *name && it.protocol == protocol && it.port == flow.port)
                        })
                    }
                };
        }
        if is_peer && is_port {
            return true;
        }
    }
    false
}

fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let exact = selector.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value));
    exact
        && selector.match_expressions.iter().all(|it| {
            let value = labels.get(&it.key);
            match it.operator.as_str() {
                "In" => value.is_some_and(|value| it.values.contains(value)),
                "NotIn" => value.is_none_or(|value| !it.values.contains(value)),
                "Exists" => value.is_some(),
                _ => value.is_none(),
            }
        })
}

fn in_block(block: &IpBlock, address: IpAddr) -> bool {
    let inside = |cidr: &String| cidr.parse::<ipnetwork::IpNetwork>().unwrap().contains(address);
    inside(&block.cidr) && !block.except.iter().any(inside)
}
