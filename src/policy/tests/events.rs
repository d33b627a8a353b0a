//! Events in any order give the plan of their last state, and `touched` names all that changed on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use proptest::prelude::*;
use proptest::sample::select;

use super::cluster::{NAMESPACES, list, namespace, pod, policy};
use super::tiers::cluster_policy;
use crate::policy::cluster::object::*;
use crate::policy::object::*;
use crate::policy::plan::*;
use crate::policy::planner::Planner;

#[derive(Debug, Clone)]
enum Step {
    Policy(Policy),
    PolicyGone(ObjectName),
    Namespace(Namespace),
    NamespaceGone(String),
    /// Heard by the watch of this node's pods, by that of all, or by both.
    Pod(Pod, bool, bool),
    PodGone(usize, bool, bool),
    Recorded(u8, Vec<IpAddr>),
    /// A list that lacks each object whose turn it is.
    Relist(u8, usize),
    ForgetAny,
    Cluster(ClusterPolicy),
    ClusterGone(u8),
}

/// What all events amount to.
#[derive(Debug, Default)]
struct State {
    policies: BTreeMap<ObjectName, Policy>,
    cluster: BTreeMap<String, ClusterPolicy>,
    namespaces: BTreeMap<String, Namespace>,
    own: BTreeMap<ObjectName, Pod>,
    any: BTreeMap<ObjectName, Pod>,
    recorded: BTreeMap<String, Vec<IpAddr>>,
}

fn step() -> impl Strategy<Value = Step> {
    let name = || (select(NAMESPACES), 0_u8..4);
    // Addresses are few: the next pod has that of one that is not gone yet.
    let pod = (0_u8..6, 0_u8..6, any::<bool>()).prop_flat_map(|(n, at, other)| {
        pod(at).prop_map(move |mut it| {
            it.name.name = format!("pod-{n}");
            it.uid = if other { format!("uid-{n}") } else { format!("new-{n}") };
            it.name.namespace = NAMESPACES[usize::from(n) % NAMESPACES.len()].to_owned();
            it
        })
    });
    prop_oneof![
        6 => policy(true).prop_map(Step::Policy),
        2 => name().prop_map(|(namespace, n)| Step::PolicyGone(ObjectName {
            namespace: namespace.into(), name: format!("np{n}"),
        })),
        3 => namespace().prop_map(Step::Namespace),
        1 => select(NAMESPACES).prop_map(|it| Step::NamespaceGone(it.into())),
        10 => (pod, any::<bool>(), any::<bool>()).prop_map(|(pod, own, any)| Step::Pod(pod, own, any)),
        3 => (0_usize..6, any::<bool>(), any::<bool>()).prop_map(|(n, own, any)| Step::PodGone(n, own, any)),
        2 => (0_u8..6, prop::collection::vec(0_u8..6, 0..2)).prop_map(|(n, at)| {
            Step::Recorded(n, at.into_iter().map(|it| IpAddr::from([10, 0, 0, it])).collect())
        }),
        1 => (0_u8..5, 1_usize..4).prop_map(|(kind, each)| Step::Relist(kind, each)),
        1 => Just(Step::ForgetAny),
        3 => cluster_policy().prop_map(Step::Cluster),
        1 => (0_u8..3).prop_map(Step::ClusterGone),
    ]
}

impl State {
    fn planner(&self) -> Planner {
        let mut planner = Planner::new();
        list(&mut planner, Event::AnyPod, self.any.values().cloned().collect());
        list(&mut planner, Event::OwnPod, self.own.values().cloned().collect());
        list(&mut planner, Event::Namespace, self.namespaces.values().cloned().collect());
        list(&mut planner, Event::Policy, self.policies.values().cloned().collect());
        list(&mut planner, Event::ClusterPolicy, self.cluster.values().cloned().collect());
        for (uid, addresses) in &self.recorded {
            planner.set_own_addresses(uid, addresses);
        }
        planner
    }

    fn take(&mut self, step: Step, planner: &mut Planner) {
        match step {
            Step::Policy(it) => {
                self.policies.insert(it.name.clone(), it.clone());
                planner.hear(Event::Policy(Feed::Changed(it)));
            }
            Step::PolicyGone(name) => {
                self.policies.remove(&name);
                planner.hear(Event::Policy(Feed::Gone(name)));
            }
            Step::Namespace(it) => {
                self.namespaces.insert(it.name.clone(), it.clone());
                planner.hear(Event::Namespace(Feed::Changed(it)));
            }
            Step::NamespaceGone(name) => {
                self.namespaces.remove(&name);
                let name = ObjectName { namespace: String::new(), name };
                planner.hear(Event::Namespace(Feed::Gone(name)));
            }
            Step::Pod(pod, own, any) => {
                if own {
                    let before = self.own.insert(pod.name.clone(), pod.clone());
                    self.forget(before, Some(&pod));
                    planner.hear(Event::OwnPod(Feed::Changed(pod.clone())));
                }
                if any {
                    self.any.insert(pod.name.clone(), pod.clone());
                    planner.hear(Event::AnyPod(Feed::Changed(pod)));
                }
            }
            Step::PodGone(n, own, any) => {
                let namespace = NAMESPACES[n % NAMESPACES.len()].to_owned();
                let name = ObjectName { namespace, name: format!("pod-{n}") };
                if own {
                    let before = self.own.remove(&name);
                    self.forget(before, None);
                    planner.hear(Event::OwnPod(Feed::Gone(name.clone())));
                }
                if any {
                    self.any.remove(&name);
                    planner.hear(Event::AnyPod(Feed::Gone(name)));
                }
            }
            Step::Recorded(n, addresses) => {
                let uid = format!("uid-{n}");
                let is_known = self.own.values().any(|pod| pod.uid == uid && !pod.host_network);
                planner.set_own_addresses(&uid, &addresses);
                if addresses.is_empty() && !is_known {
                    self.recorded.remove(&uid);
                } else {
                    self.recorded.insert(uid, addresses);
                }
            }
            Step::Cluster(it) => {
                self.cluster.insert(it.name.clone(), it.clone());
                planner.hear(Event::ClusterPolicy(Feed::Changed(it)));
            }
            Step::ClusterGone(n) => {
                let name = ObjectName { namespace: String::new(), name: format!("cnp{n}") };
                self.cluster.remove(&name.name);
                planner.hear(Event::ClusterPolicy(Feed::Gone(name)));
            }
            Step::Relist(kind, each) => self.relist(kind, each, planner),
            Step::ForgetAny => {
                self.any.clear();
                planner.forget_any_pods();
                list(planner, Event::AnyPod, vec![]);
            }
        }
    }

    /// The record of a pod that is gone is no longer asked for.
    fn forget(&mut self, before: Option<Pod>, after: Option<&Pod>) {
        if let Some(before) = before.filter(|it| !it.host_network)
            && after.is_none_or(|after| after.host_network || after.uid != before.uid)
        {
            self.recorded.remove(&before.uid);
        }
    }

    fn relist(&mut self, kind: u8, each: usize, planner: &mut Planner) {
        fn part<K: Clone + Ord, T: Clone>(map: &mut BTreeMap<K, T>, each: usize) -> Vec<T> {
            let mut n = 0_usize;
            map.retain(|_, _| {
                n += 1;
                !n.is_multiple_of(each + 1)
            });
            map.values().cloned().collect()
        }
        match kind {
            0 => {
                // Nothing goes before the list ends, and one that begins again is whole only then.
                let left = part(&mut self.policies, each);
                planner.apply(Event::Policy(Feed::ListBegins));
                left.iter().take(1).for_each(|it| planner.apply(Event::Policy(Feed::Listed(it.clone()))));
                list(planner, Event::Policy, left);
            }
            1 => list(planner, Event::Namespace, part(&mut self.namespaces, each)),
            2 => {
                let before = self.own.clone();
                list(planner, Event::OwnPod, part(&mut self.own, each));
                for (name, pod) in before {
                    if !self.own.contains_key(&name) {
                        self.forget(Some(pod), None);
                    }
                }
            }
            3 => list(planner, Event::AnyPod, part(&mut self.any, each)),
            _ => list(planner, Event::ClusterPolicy, part(&mut self.cluster, each)),
        }
    }
}

fn differing<V: PartialEq>(before: &BTreeMap<String, V>, after: &BTreeMap<String, V>) -> BTreeSet<String> {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    names.into_iter().filter(|name| before.get(*name) != after.get(*name)).cloned().collect()
}

fn chains_of(plan: &Plan, touched: &Touched) -> BTreeSet<String> {
    let all = |ingress, egress, tiers: &Tiers| -> Vec<Isolation> {
        [ingress, egress].into_iter().chain(tiers.all()).cloned().collect()
    };
    let pods = touched.pods.iter().filter_map(|uid| plan.pods.get(uid));
    let pods = pods.flat_map(|it| all(&it.ingress, &it.egress, &it.tiers));
    let holds = touched.holds.iter().filter_map(|it| plan.holds.get(it));
    let holds = holds.flat_map(|it| all(&it.ingress, &it.egress, &it.tiers));
    let names = pods.chain(holds).filter_map(|it| match it {
        Isolation::Rules(name) => Some(name),
        _ => None,
    });
    names.collect()
}

fn check_touched(before: &Plan, after: &Plan, touched: &Touched) {
    if touched.all {
        return;
    }
    assert!(differing(&before.sets, &after.sets).is_subset(&touched.sets));
    // What is said of the addresses that moved must be all of them, and of a set that was there and is there.
    assert!(touched.moved.keys().all(|name| touched.sets.contains(name)));
    for (name, moved) in &touched.moved {
        let (Some(Members::Pods(before)), Some(Members::Pods(after))) =
            (before.sets.get(name), after.sets.get(name))
        else {
            panic!("{name} is no set of pods, or came, or went: {moved:?}");
        };
        assert!(before.symmetric_difference(after).all(|address| moved.contains(address)));
    }
    assert!(differing(&before.pods, &after.pods).is_subset(&touched.pods));
    assert!(differing(&before.holds, &after.holds).is_subset(&touched.holds));
    let chains: BTreeSet<String> =
        chains_of(before, touched).union(&chains_of(after, touched)).cloned().collect();
    assert!(differing(&before.chains, &after.chains).is_subset(&chains));
}

/// What is there is referred to, and what is referred to is there.
fn check_references(plan: &Plan) {
    let everything = Touched {
        pods: plan.pods.keys().cloned().collect(),
        holds: plan.holds.keys().cloned().collect(),
        ..Touched::default()
    };
    assert_eq!(chains_of(plan, &everything), plan.chains.keys().cloned().collect());
    let rules =
        plan.chains.values().flat_map(|it| it.ports.iter().flat_map(|it| it.rules.iter()).chain(&it.rules));
    let named: BTreeSet<&str> = rules
        .filter_map(|rule| match &rule.peer {
            PeerMatch::Any => None,
            PeerMatch::Address(name) | PeerMatch::AddressAndPort(name) => Some(name.as_str()),
        })
        .collect();
    for name in &named {
        assert!(plan.sets.contains_key(&format!("{name}4")) || plan.sets.contains_key(&format!("{name}6")));
    }
    assert!(plan.sets.keys().all(|name| named.contains(&name[..name.len() - 1])));
}

/// A case has many steps. `PROPTEST_CASES` counts as elsewhere, by the quarter.
fn config() -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig { cases: usual.cases / 4, max_shrink_iters: 20_000, ..usual }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn events_give_the_plan_of_their_last_state(
        steps in prop::collection::vec((step(), any::<bool>()), 1..40), listed_at in 0_usize..20
    ) {
        let (mut state, mut planner) = (State::default(), Planner::new());
        let mut before = Plan::default();
        for (n, (step, waits)) in steps.into_iter().enumerate() {
            if n == listed_at {
                // Lists among the steps may have made it whole before.
                prop_assert!(planner.is_complete() || *planner.plan() == Plan::default());
                list(&mut planner, Event::Policy, state.policies.values().cloned().collect());
                list(&mut planner, Event::ClusterPolicy, state.cluster.values().cloned().collect());
                list(&mut planner, Event::Namespace, state.namespaces.values().cloned().collect());
                list(&mut planner, Event::OwnPod, state.own.values().cloned().collect());
                list(&mut planner, Event::AnyPod, state.any.values().cloned().collect());
            }
            state.take(step, &mut planner);
            // Several events, planned at once.
            if waits {
                continue;
            }
            planner.settle();
            check_references(planner.plan());
            // Of one step, or of several.
            if n % 3 != 1 {
                let touched = planner.take_touched();
                check_touched(&before, planner.plan(), &touched);
                before = planner.plan().clone();
            }
            if planner.is_complete() {
                let has_none = state.policies.is_empty() && state.cluster.is_empty();
                prop_assert_eq!(planner.needs_any_pods(), !has_none);
                let fresh = state.planner();
                prop_assert_eq!(planner.plan(), fresh.plan());
                if has_none {
                    prop_assert_eq!(planner.plan(), &Plan::default());
                }
            }
        }
    }
}
