//! Planner, walked plan and naive reading say the same of each flow.

use std::net::IpAddr;

use proptest::prelude::*;
use proptest::sample::select;

use super::cluster::{Cluster, cluster};
use super::naive;
use crate::policy::evaluate::{Flow, Verdict};
use crate::policy::plan::{Direction, Plan, Tier};

fn flow() -> impl Strategy<Value = Flow> {
    let address = || {
        prop_oneof![
            4 => (0_u8..8).prop_map(|n| IpAddr::from([10, 0, 0, n])),
            4 => (0_u8..8).prop_map(|n| format!("fd00::{n}").parse().unwrap()),
            1 => select(vec!["192.0.2.7", "192.0.2.200", "255.255.255.255", "2001:db8::7", "ffff::1"])
                .prop_map(|it| it.parse().unwrap()),
        ]
    };
    let port = select(vec![1, 53, 80, 81, 8080, 65535]);
    (address(), address(), select(vec![6, 6, 17, 132, 1]), port).prop_map(|it| {
        let (source, destination, protocol, port) = it;
        Flow { source, destination, protocol, port: if protocol == 1 { 0 } else { port } }
    })
}

/// The pod of this node behind an address, as the table finds it by the link.
fn uid(cluster: &Cluster, address: IpAddr) -> Option<&str> {
    let own = cluster.pods.iter().find(|(is_own, pod)| *is_own && pod.addresses.contains(&address));
    own.map(|(_, pod)| pod.uid.as_str())
}

fn walk(cluster: &Cluster, plan: &Plan, own: Option<&str>, direction: Direction, flow: &Flow) -> bool {
    let Some(pod) = own.and_then(|uid| plan.pods.get(uid)) else { return true };
    let peer = if direction == Direction::Ingress { flow.source } else { flow.destination };
    let itself =
        uid(cluster, flow.source).is_some() && uid(cluster, flow.source) == uid(cluster, flow.destination);
    plan.walk_way(&pod.way(direction), peer, flow.protocol, flow.port, itself).allowed()
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn three_readings_agree(cluster in cluster(), flows in prop::collection::vec(flow(), 40)) {
        let planner = cluster.planner();
        let plan = planner.plan();
        prop_assert!(!cluster.policies.is_empty() <= !plan.holds.is_empty());
        let has_none = cluster.policies.is_empty() && cluster.cluster_policies.is_empty();
        prop_assert!(!has_none || *plan == Plan::default());
        for flow in flows {
            let judgement = planner.judge(&flow);
            let judged = (judgement.egress.allowed(), judgement.ingress.allowed());
            prop_assert_eq!(judged, naive::allowed(&cluster, &flow), "{:?} {:#?}", flow, judgement);
            let (source, destination) = (uid(&cluster, flow.source), uid(&cluster, flow.destination));
            let walked = (
                walk(&cluster, plan, source, Direction::Egress, &flow),
                walk(&cluster, plan, destination, Direction::Ingress, &flow),
            );
            prop_assert_eq!(judged, walked, "{:?} {:#?} {:#?}", flow, judgement, plan);
            // Who denies says why.
            for verdict in [&judgement.egress, &judgement.ingress] {
                if let Verdict::Denied(refusals) = verdict {
                    prop_assert!(!refusals.is_empty());
                    for refusal in refusals {
                        let lack = refusal.nearest.as_ref();
                        prop_assert!(lack.is_none_or(|it| it.port.is_some() || it.peer.is_some()));
                    }
                }
            }
            // What a held pod may do, it may do as a known one.
            for (direction, uid, peer) in
                [(Direction::Ingress, destination, flow.source), (Direction::Egress, source, flow.destination)]
            {
                let own = uid.and_then(|uid| cluster.pods.iter().find(|(_, pod)| pod.uid == uid));
                let Some(hold) = own.and_then(|(_, pod)| plan.holds.get(&pod.name.namespace)) else { continue };
                let itself = source.is_some() && source == destination;
                if plan.walk_way(&hold.way(direction), peer, flow.protocol, flow.port, itself).allowed() {
                    prop_assert!(walk(&cluster, plan, uid, direction, &flow), "{:?} {:#?}", flow, plan);
                }
            }
        }
    }

    #[test]
    fn ports_of_a_chain_are_disjoint_and_sets_few(cluster in cluster()) {
        for chain in cluster.planner().plan().chains.values() {
            for (before, after) in chain.ports.iter().zip(chain.ports.iter().skip(1)) {
                let order = (before.protocol, before.last) < (after.protocol, after.first);
                prop_assert!(before.first <= before.last && order, "{:#?}", chain);
            }
            // Whose rules are in order, and each has two sets at most.
            if chain.tier != Tier::NetworkPolicy {
                continue;
            }
            for rules in chain.ports.iter().map(|it| &*it.rules).chain([&*chain.rules]) {
                prop_assert!(rules.len() <= crate::policy::build::MOST_SETS, "{:#?}", chain);
            }
        }
    }
}
