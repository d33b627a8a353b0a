//! What of a plan the table is not. Pure.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;

use crate::datapath::policy::bindings::DIRECTIONS;
use crate::datapath::policy::layout::{
    Below, Leading, Made, Part, content_of, part_names, parts, port_map_name, sets_of,
};
use crate::datapath::policy::mirror::Mirror;
use crate::policy::names::{hold_chain, pod_chain};
use crate::policy::plan::{Direction, Isolation, Members, Plan, Touched, Way};

/// What is missing, wrong, or needed no more.
#[derive(Debug, Default)]
pub(super) struct Differences {
    /// Something that no rule and no policy decides about.
    pub(super) skeleton: bool,
    /// Whether a pod's packets to itself are judged in the chains of pods, because ClusterNetworkPolicies judge them.
    pub(super) judges_own: bool,
    /// Whether that is not so in the table, or is and should not be.
    pub(super) switches_own: bool,
    /// A set has the name of one of the plan and another kind, or the table is dormant: nothing but a new one helps.
    pub(super) hopeless: bool,
    /// Sets.
    pub(super) sets: Vec<SetDifference>,
    /// Chains of the plan with all that they lead to, which comes before them.
    pub(super) chains: Vec<Part>,
    /// Chains of pods and of holds.
    pub(super) leading: Vec<Made>,
    /// Chains that nothing needs.
    pub(super) stale_chains: Vec<String>,
    /// Sets and maps that nothing needs.
    pub(super) stale_sets: Vec<String>,
}

/// A set that is missing or wrong.
#[derive(Debug)]
pub(super) struct SetDifference {
    pub(super) name: String,
    /// What should be in one that the plan does not have, which is nothing.
    nothing: Option<Members>,
    /// The addresses of pods that may be missing or wrong; `None`: any.
    pub(super) moved: Option<Vec<IpAddr>>,
}

impl SetDifference {
    /// What should be in it.
    pub(super) fn wanted<'w>(&'w self, plan: &'w Plan) -> Option<&'w Members> {
        plan.sets.get(&self.name).or(self.nothing.as_ref())
    }
}

impl Differences {
    pub(super) fn between(mirror: &Mirror, plan: &Plan, touched: &Touched) -> Self {
        let judges_own = plan.has_tiers();
        let switches_own = mirror.exists && mirror.judges_own != judges_own;
        let all = touched.all || !mirror.exists || switches_own;
        let skeleton = mirror.skeleton_differs || !mirror.exists;
        let mut found =
            Self { skeleton, hopeless: mirror.is_dormant, judges_own, switches_own, ..Self::default() };
        let mut looked_at = BTreeSet::new();
        let mut needed_chains = BTreeSet::new();
        let mut lead = |direction, name: String, who: &str, way: Way<'_>, is_isolated| {
            for isolation in [way.admin, way.policies, way.baseline] {
                if let Isolation::Rules(chain) = isolation {
                    needed_chains.insert(chain.clone());
                }
            }
            let made = Leading { direction, who, way, is_isolated, judges_own }.made(&name);
            (mirror.chains.get(&name) != Some(&made.content())).then_some(made)
        };
        for (uid, pod) in plan.pods.iter().filter(|(uid, _)| all || touched.pods.contains(*uid)) {
            let of = |it| lead(it, pod_chain(it, uid), &pod.name, pod.way(it), pod.is_isolated());
            found.leading.extend(DIRECTIONS.into_iter().filter_map(of));
        }
        for (namespace, hold) in plan.holds.iter().filter(|(it, _)| all || touched.holds.contains(*it)) {
            let who = format!("{namespace}, pods that are not known yet");
            let of = |it| lead(it, hold_chain(it, namespace), &who, hold.way(it), hold.is_isolated());
            found.leading.extend(DIRECTIONS.into_iter().filter_map(of));
        }
        let needed: Vec<&String> =
            if all { plan.chains.keys().collect() } else { needed_chains.iter().collect() };
        let mut looked_for = HashSet::new();
        for name in needed {
            let Some(planned) = plan.chains.get(name) else { continue };
            if !all && mirror.chains.contains_key(name) {
                continue;
            }
            // Whole ones have what they are named by, unless somebody else is at work.
            let is_wanted = |part| (all || !mirror.chains.contains_key(part)) && looked_for.insert(part);
            let below = Below::of(planned, is_wanted);
            for (set, nothing) in sets_of(planned, &below, &plan.sets) {
                found.look_at_set(&set, Some(nothing), None, mirror, plan, &mut looked_at);
            }
            let parts = parts(name, planned, &below, &plan.sets);
            found.chains.extend(parts.into_iter().filter(|part| !part.is_in(mirror)));
        }
        let sets: Vec<&String> = if all { plan.sets.keys().collect() } else { touched.sets.iter().collect() };
        for set in sets {
            let moved = touched.moved.get(set).filter(|_| !all);
            found.look_at_set(set, None, moved, mirror, plan, &mut looked_at);
        }
        let went = touched.sets.iter().any(|set| !plan.sets.contains_key(set));
        if all || went || !touched.pods.is_empty() || !touched.holds.is_empty() {
            found.look_for_stale(mirror, plan);
        }
        found
    }

    /// What differs, in `nft`'s words.
    pub(super) fn in_words(&self) -> Vec<String> {
        let mut words = Vec::new();
        if self.skeleton || self.hopeless || self.switches_own {
            words.push("the table or one of its own chains and maps".to_owned());
        }
        words.extend(self.sets.iter().map(|set| format!("set {}", set.name)));
        let made = self.chains.iter().map(|part| &part.made).chain(&self.leading);
        words.extend(made.map(|made| format!("chain {}", made.chain.name)));
        words.extend(self.stale_chains.iter().map(|name| format!("chain {name}, which nothing needs")));
        words.extend(self.stale_sets.iter().map(|name| format!("set {name}, which nothing needs")));
        words
    }

    fn look_at_set(
        &mut self,
        name: &str,
        nothing: Option<Members>,
        moved: Option<&BTreeSet<IpAddr>>,
        mirror: &Mirror,
        plan: &Plan,
        looked_at: &mut BTreeSet<String>,
    ) {
        let Some(wanted) = plan.sets.get(name).or(nothing.as_ref()) else { return };
        if !looked_at.insert(name.to_owned()) {
            return;
        }
        let there = mirror.sets.get(name);
        let same_kind = there.is_none_or(|it| std::mem::discriminant(it) == std::mem::discriminant(wanted));
        self.hopeless |= !same_kind || mirror.strange_sets.iter().any(|it| it == name);
        let name = name.to_owned();
        if let (Some(moved), Some(Members::Pods(there)), Members::Pods(wanted)) = (moved, there, wanted) {
            let differs = |it: &&IpAddr| there.contains(*it) != wanted.contains(*it);
            let moved: Vec<IpAddr> = moved.iter().filter(differs).copied().collect();
            if !moved.is_empty() {
                self.sets.push(SetDifference { name, nothing, moved: Some(moved) });
            }
        } else if there != Some(wanted) {
            self.sets.push(SetDifference { name, nothing, moved: None });
        }
    }

    fn look_for_stale(&mut self, mirror: &Mirror, plan: &Plan) {
        let parts = part_names(plan);
        let stale =
            mirror.chains.keys().filter(|name| !parts.contains_key(name.as_str()) && !is_wanted(name, plan));
        self.stale_chains.extend(stale.cloned());
        let has_map = |name: &String| {
            let of = name.strip_suffix(port_map_name("").as_str());
            of.is_some_and(|chain| parts.get(chain) == Some(&true))
        };
        self.stale_sets.extend(mirror.maps.keys().filter(|name| !has_map(name)).cloned());
        self.stale_sets.extend(mirror.strange_sets.iter().cloned());
        let mut unplanned = mirror.sets.keys().filter(|name| !plan.sets.contains_key(*name)).peekable();
        if unplanned.peek().is_some() {
            let sets_of = |chain| sets_of(chain, &Below::of(chain, |_| true), &plan.sets);
            let looked_into: HashSet<String> =
                plan.chains.values().flat_map(sets_of).map(|(name, _)| name).collect();
            self.stale_sets.extend(unplanned.filter(|name| !looked_into.contains(*name)).cloned());
        }
    }
}

impl Part {
    fn is_in(&self, mirror: &Mirror) -> bool {
        let map = self.map.as_ref();
        mirror.chains.get(&self.made.chain.name) == Some(&self.made.content())
            && map.is_none_or(|(set, elements)| mirror.maps.get(&set.name) == Some(&content_of(elements)))
    }
}

/// Whether the chain of a pod or a hold belongs into the table.
pub(super) fn is_wanted(name: &str, plan: &Plan) -> bool {
    if let Some(uid) = rest_of(name, pod_chain) {
        return plan.pods.contains_key(uid);
    }
    rest_of(name, hold_chain).is_some_and(|namespace| plan.holds.contains_key(namespace))
}

/// Whether a chain is that of a pod or a hold.
pub(super) fn is_leading(name: &str) -> bool {
    rest_of(name, pod_chain).is_some() || rest_of(name, hold_chain).is_some()
}

/// What a name was made of by `form`, besides the direction.
fn rest_of(name: &str, form: fn(Direction, &str) -> String) -> Option<&str> {
    DIRECTIONS.into_iter().find_map(|it| name.strip_prefix(form(it, "").as_str()))
}
