//! Chains and sets that something refers to, in the plan, with who is in the sets.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use crate::policy::build::Built;
use crate::policy::index::{Index, Member};
use crate::policy::plan::{Members, Plan, Touched};
use crate::policy::set_spec::{Content, Element, Namespaces, PortOwners, SetSpec};

/// What a pod is in: sets, and what it adds to each.
pub type Claims = BTreeSet<(Arc<SetSpec>, Element)>;

/// The chains and sets of the plan.
#[derive(Debug, Default)]
pub struct Live {
    chains: HashMap<String, LiveChain>,
    sets: HashMap<String, LiveSet>,
    anchored: Anchored,
}

#[derive(Debug)]
struct LiveChain {
    users: usize,
    sets: Vec<Arc<SetSpec>>,
}

#[derive(Debug, Default)]
struct LiveSet {
    users: usize,
    /// How many pods more than one claim an element: the old owner of an address may not be gone yet.
    more: BTreeMap<Element, usize>,
}

/// Where to look for the sets that a pod may be in: under a label or the namespace that all of a set's pods have.
#[derive(Debug, Default)]
struct Anchored {
    by_label: HashMap<String, BTreeSet<Arc<SetSpec>>>,
    by_namespace: HashMap<String, BTreeSet<Arc<SetSpec>>>,
    anywhere: BTreeSet<Arc<SetSpec>>,
}

impl Live {
    /// One user more of a chain. If the index is given, its pods are put into sets that are new.
    pub fn acquire(&mut self, plan: &mut Plan, touched: &mut Touched, built: &Built, index: Option<&Index>) {
        if let Some(chain) = self.chains.get_mut(&built.name) {
            chain.users += 1;
            return;
        }
        for spec in &built.sets {
            let set = self.sets.entry(spec.name.clone()).or_default();
            set.users += 1;
            if set.users > 1 {
                continue;
            }
            put_sets(plan, touched, spec);
            self.anchored.change(spec, true);
            if let Some(index) = index {
                for_candidates(index, spec, |member| {
                    let mut claims = Vec::new();
                    spec.elements(member, |element| claims.push(element));
                    // A pod claims an element once, however often parts of the set select it.
                    claims.sort_unstable();
                    claims.dedup();
                    claims.into_iter().for_each(|element| self.claim(plan, touched, spec, element));
                });
            }
        }
        plan.chains.insert(built.name.clone(), built.chain.clone());
        self.chains.insert(built.name.clone(), LiveChain { users: 1, sets: built.sets.clone() });
    }

    /// One user less of a chain.
    pub fn release(&mut self, plan: &mut Plan, touched: &mut Touched, name: &str) {
        let Some(chain) = self.chains.get_mut(name) else { return };
        chain.users -= 1;
        if chain.users > 0 {
            return;
        }
        plan.chains.remove(name);
        for spec in self.chains.remove(name).map(|chain| chain.sets).unwrap_or_default() {
            let Some(set) = self.sets.get_mut(&spec.name) else { continue };
            set.users -= 1;
            if set.users > 0 {
                continue;
            }
            self.sets.remove(&spec.name);
            self.anchored.change(&spec, false);
            for name in [&spec.name4, &spec.name6] {
                if plan.sets.remove(name).is_some() {
                    came_or_went(touched, name);
                }
            }
        }
    }

    /// What a pod is in, of the sets in use.
    pub fn claims(&self, member: &Member<'_>) -> Claims {
        let mut claims = Claims::new();
        let by_label = member.labels.iter().filter_map(|label| self.anchored.by_label.get(&**label));
        let by_namespace = self.anchored.by_namespace.get(member.namespace);
        for spec in by_label.chain(by_namespace).chain([&self.anchored.anywhere]).flatten() {
            spec.elements(member, |element| {
                claims.insert((spec.clone(), element));
            });
        }
        claims
    }

    /// A pod is in other sets now.
    pub fn change(&mut self, plan: &mut Plan, touched: &mut Touched, before: &Claims, after: &Claims) {
        for (spec, element) in after.difference(before) {
            self.claim(plan, touched, spec, *element);
        }
        for (spec, element) in before.difference(after) {
            self.unclaim(plan, touched, spec, *element);
        }
    }

    fn claim(&mut self, plan: &mut Plan, touched: &mut Touched, spec: &SetSpec, element: Element) {
        let name = spec.name_of(element.0);
        let is_new = match plan.sets.get_mut(name) {
            Some(Members::Pods(addresses)) => addresses.insert(element.0),
            Some(Members::Ports(ports)) => ports.insert(element),
            Some(Members::Blocks(_)) | None => return,
        };
        if is_new {
            moved(touched, spec, element.0);
        } else if let Some(set) = self.sets.get_mut(&spec.name) {
            *set.more.entry(element).or_default() += 1;
        }
    }

    fn unclaim(&mut self, plan: &mut Plan, touched: &mut Touched, spec: &SetSpec, element: Element) {
        if let Some(set) = self.sets.get_mut(&spec.name)
            && let Some(more) = set.more.get_mut(&element)
        {
            *more -= 1;
            if *more == 0 {
                set.more.remove(&element);
            }
            return;
        }
        let name = spec.name_of(element.0);
        let was_there = match plan.sets.get_mut(name) {
            Some(Members::Pods(addresses)) => addresses.remove(&element.0),
            Some(Members::Ports(ports)) => ports.remove(&element),
            Some(Members::Blocks(_)) | None => false,
        };
        if was_there {
            moved(touched, spec, element.0);
        }
    }
}

/// An address came into a set, or left it. Of one that is touched as a whole it stays so.
fn moved(touched: &mut Touched, spec: &SetSpec, address: IpAddr) {
    let name = spec.name_of(address);
    if let Some(addresses) = touched.moved.get_mut(name) {
        addresses.insert(address);
    } else if touched.sets.insert(name.to_owned()) && matches!(spec.content, Content::Pods(_)) {
        touched.moved.insert(name.to_owned(), BTreeSet::from([address]));
    }
}

fn came_or_went(touched: &mut Touched, name: &str) {
    touched.moved.remove(name);
    touched.sets.insert(name.to_owned());
}

/// Sets of pods are there in both families, also if empty: who comes must not need another chain.
fn put_sets(plan: &mut Plan, touched: &mut Touched, spec: &SetSpec) {
    let halves: [Option<Members>; 2] = match &spec.content {
        Content::Pods(_) => [Some(Members::Pods(BTreeSet::new())), Some(Members::Pods(BTreeSet::new()))],
        Content::Ports(_) => [Some(Members::Ports(BTreeSet::new())), Some(Members::Ports(BTreeSet::new()))],
        Content::Blocks(blocks) => [blocks.v4(), blocks.v6()].map(|half| {
            // The kernel needs no empty set of what never changes.
            (!half.is_empty()).then_some(Members::Blocks(half))
        }),
    };
    for (name, half) in [&spec.name4, &spec.name6].into_iter().zip(halves) {
        if let Some(half) = half {
            plan.sets.insert(name.clone(), half);
            came_or_went(touched, name);
        }
    }
}

/// The pods that may be in a set.
fn for_candidates(index: &Index, spec: &SetSpec, mut each: impl FnMut(&Member<'_>)) {
    if let Content::Blocks(_) = &spec.content {
        return;
    }
    match only_namespace(spec) {
        Some(namespace) => {
            index.any_of(namespace).for_each(|member| each(&member));
            index.own_of(namespace).for_each(|own| each(&own.member));
        }
        None => {
            index.all_any().for_each(|member| each(&member));
            index.all_own().for_each(|own| each(&own.member));
        }
    }
}

/// The one namespace that a set is about.
fn only_namespace(spec: &SetSpec) -> Option<&str> {
    let group = match &spec.content {
        Content::Pods(groups) if groups.len() == 1 => groups.first(),
        Content::Ports(ports) if ports.len() == 1 => ports.first().and_then(|it| match &it.of {
            PortOwners::Pods(group) => Some(group),
            PortOwners::Blocks(_) => None,
        }),
        _ => None,
    };
    match group.map(|group| &group.namespaces) {
        Some(Namespaces::Only(name)) => Some(name),
        _ => None,
    }
}

impl Anchored {
    fn change(&mut self, spec: &Arc<SetSpec>, is_there: bool) {
        let groups = match &spec.content {
            Content::Pods(groups) => groups.iter().map(Some).collect::<Vec<_>>(),
            Content::Ports(ports) => {
                let owners = ports.iter().map(|it| match &it.of {
                    PortOwners::Pods(group) => Some(group),
                    PortOwners::Blocks(_) => None,
                });
                owners.collect()
            }
            Content::Blocks(_) => return,
        };
        for group in groups {
            let labels = group.and_then(|group| group.pods.anchors());
            let namespaces = group.map(|group| &group.namespaces);
            match (labels, namespaces) {
                (Some(labels), _) => {
                    labels.iter().for_each(|label| put(&mut self.by_label, label, spec, is_there));
                }
                (None, Some(Namespaces::Only(name))) => put(&mut self.by_namespace, name, spec, is_there),
                (None, _) if is_there => {
                    self.anywhere.insert(spec.clone());
                }
                (None, _) => {
                    self.anywhere.remove(spec);
                }
            }
        }
    }
}

fn put(map: &mut HashMap<String, BTreeSet<Arc<SetSpec>>>, key: &str, spec: &Arc<SetSpec>, is_there: bool) {
    let specs = map.entry(key.to_owned()).or_default();
    if is_there {
        specs.insert(spec.clone());
    } else {
        specs.remove(spec);
        if specs.is_empty() {
            map.remove(key);
        }
    }
}
