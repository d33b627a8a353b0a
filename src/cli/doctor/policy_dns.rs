//! Pods that policies keep from DNS, most often against their author's will.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use crate::attachments::node_view::NodeView;
use crate::cli::doctor::{Finding, name_some};
use crate::policy::names::{TCP, UDP};
use crate::policy::plan::{ChainRule, Isolation, Members, PeerMatch, Plan};

const DNS: u16 = 53;

/// The link of NodeLocal DNSCache (Kubernetes, cluster/addons/dns/nodelocaldns), and the address that it has unless it
/// is told otherwise.
const NODE_LOCAL_LINK: &str = "nodelocaldns";
const NODE_LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 20, 10));

/// Looks at every chain of egress. `local`: where a DNS cache of this node answers.
pub fn examine(plan: &Plan, local: &[IpAddr]) -> Vec<Finding> {
    let mut without: Vec<String> = Vec::new();
    let mut without_local: Vec<String> = Vec::new();
    for (chain, pods) in isolated(plan) {
        let isolation = Isolation::Rules(chain.to_owned());
        let policies = plan.chains.get(chain).map(|it| it.policies.join(", ")).unwrap_or_default();
        let shown = format!("{} (policies {policies})", name_some(&pods));
        if !may(plan, chain, UDP) && !may(plan, chain, TCP) {
            without.push(shown);
        } else if local.iter().any(|address| !plan.walk(&isolation, *address, UDP, DNS).allowed()) {
            without_local.push(shown);
        }
    }
    let mut findings = Vec::new();
    if !without.is_empty() {
        findings.push(
            Finding::warning("egress-without-dns", format!("pods that cannot ask DNS: {}", without.join("; ")))
                .because("policies isolate them for egress, and no rule allows port 53 of UDP or TCP, to whomever")
                .remedy(
                    "if they are to resolve names, add an egress rule with ports 53/UDP and 53/TCP; if not, all is well",
                ),
        );
    }
    if !without_local.is_empty() {
        let addresses: Vec<String> = local.iter().map(ToString::to_string).collect();
        findings.push(
            Finding::warning(
                "egress-without-local-dns",
                format!("pods that cannot ask the DNS cache of this node: {}", without_local.join("; ")),
            )
            .because(format!(
                "NodeLocal DNSCache answers at {}, an address of the node; their rules allow port 53 to others only, such as \
                 the pods of kube-dns, and a selector of pods does not select the node",
                addresses.join(" and ")
            ))
            .remedy(format!(
                "add to the egress rule a peer with ipBlock {}, or leave out its peers",
                local.iter().map(|it| format!("{it}/{}", if it.is_ipv4() { 32 } else { 128 })).collect::<Vec<_>>().join(", ")
            )),
        );
    }
    findings
}

/// Where NodeLocal DNSCache answers on this node.
pub fn local_addresses(node: &NodeView, addresses: &[(u32, IpAddr)]) -> Vec<IpAddr> {
    let link = node.links.iter().find(|link| link.name == NODE_LOCAL_LINK).map(|link| link.index);
    let is_of_cache = |it: &&(u32, IpAddr)| Some(it.0) == link || it.1 == NODE_LOCAL;
    let is_link_local = |address: &IpAddr| matches!(address, IpAddr::V6(it) if it.is_unicast_link_local());
    addresses.iter().filter(is_of_cache).map(|it| it.1).filter(|it| !is_link_local(it)).collect()
}

/// Pods by the chain that their egress has.
fn isolated(plan: &Plan) -> BTreeMap<&str, Vec<&str>> {
    let mut isolated: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    // Whoever administers the cluster may have said about DNS what it takes.
    for pod in plan.pods.values().filter(|it| !it.tiers.egress.admin.isolates()) {
        if let Isolation::Rules(chain) = &pod.egress {
            isolated.entry(chain).or_default().push(&pod.name);
        }
    }
    isolated
}

/// Whether some rule of a chain allows DNS to somebody.
fn may(plan: &Plan, chain: &str, protocol: u8) -> bool {
    let Some(chain) = plan.chains.get(chain) else { return false };
    let has_port = |rule: &ChainRule| {
        match &rule.peer {
        PeerMatch::Any | PeerMatch::Address(_) => true,
        PeerMatch::AddressAndPort(set) => ['4', '6'].iter().any(|family| {
            let members = plan.sets.get(&format!("{set}{family}"));
            matches!(members, Some(Members::Ports(ports)) if ports.iter().any(|it| (it.1, it.2) == (protocol, DNS)))
        }),
    }
    };
    let of_port =
        chain.ports.iter().filter(|it| it.protocol == protocol && (it.first..=it.last).contains(&DNS));
    of_port.flat_map(|it| it.rules.iter()).chain(&chain.rules).any(has_port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::objects::Objects;
    use serde_json::{Value, json};

    /// A pod whose egress is isolated by one policy with these rules.
    fn plan(egress: &Value) -> Plan {
        let pod = |name: &str, uid: &str, app: &str, address: &str| {
            json!({ "namespace": "shop", "name": name, "uid": uid, "labels": { "app": app }, "addresses": [address],
                    "ports": [{ "name": "dns", "protocol": 17, "port": 53 }] })
        };
        let objects: Objects = serde_json::from_value(json!({
            "namespaces": [{ "name": "shop" }],
            "policies": [{ "namespace": "shop", "name": "out", "spec": {
                "podSelector": { "matchLabels": { "app": "web" } }, "policyTypes": ["Egress"], "egress": egress } }],
            "ownPods": [pod("web", "u1", "web", "10.0.0.1"), pod("dns", "u2", "dns", "10.0.0.2")],
        }))
        .unwrap();
        objects.planner().plan().clone()
    }

    fn ids(egress: &Value, local: &[IpAddr]) -> Vec<&'static str> {
        examine(&plan(egress), local).iter().map(|it| it.id).collect()
    }

    #[test]
    fn egress_rules_are_looked_through_for_dns() {
        let to_dns = json!([{ "podSelector": { "matchLabels": { "app": "dns" } } }]);
        let port = |protocol: &str, port: Value| json!([{ "protocol": protocol, "port": port }]);
        for (egress, without, without_local) in [
            (json!([]), true, false),
            (json!([{}]), false, false),
            (json!([{ "ports": port("TCP", json!(443)) }]), true, false),
            (json!([{ "ports": port("UDP", json!(53)) }]), false, false),
            (json!([{ "peers": to_dns }]), false, true),
            (json!([{ "peers": to_dns, "ports": port("UDP", json!(53)) }]), false, true),
            (json!([{ "peers": to_dns, "ports": port("UDP", json!("dns")) }]), false, true),
            (json!([{ "peers": to_dns, "ports": port("UDP", json!("web")) }]), true, false),
            (json!([{ "ports": [{ "protocol": "UDP", "port": 1, "endPort": 100 }] }]), false, false),
            (json!([{ "peers": [{ "ipBlock": { "cidr": "169.254.20.10/32" } }] }]), false, false),
        ] {
            let expected = |local: bool| -> Vec<&str> {
                let mut expected = Vec::new();
                expected.extend(without.then_some("egress-without-dns"));
                expected.extend((local && without_local).then_some("egress-without-local-dns"));
                expected
            };
            assert_eq!(ids(&egress, &[]), expected(false), "{egress}");
            assert_eq!(ids(&egress, &[NODE_LOCAL]), expected(true), "{egress}");
        }
        let named = examine(&plan(&json!([])), &[]);
        assert!(named[0].found.contains("shop/web (policies shop/out)"), "{named:?}");
    }
}
