//! Which chains the pods of this node have, and those that are held.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use crate::policy::build::{Built, Named, build};
use crate::policy::cluster::build::BuiltTier;
use crate::policy::index::OwnPod;
use crate::policy::object::{NamedPort, ObjectName};
use crate::policy::plan::{self, Chain, Direction, HoldPlan, Isolation, PodPlan, Tiers};
use crate::policy::planner::Planner;
use crate::policy::planner::tiers::Around;

pub(super) const BOTH: [Direction; 2] = [Direction::Ingress, Direction::Egress];

/// What a pod has in one direction, with the chain.
enum Way {
    Plain(Isolation),
    Rules(Rc<Built>),
}

/// Of ingress and egress.
type Ways = [Way; 2];

/// All that a pod has, or one that is held.
struct Planned {
    ways: Ways,
    /// What ClusterNetworkPolicies have around that.
    around: [Around; 2],
}

/// What of a namespace is to be planned again.
#[derive(Debug, Default)]
pub(super) struct Again {
    /// All of it.
    pub(super) all: bool,
    /// Pods by their name, with the uids that they had.
    pub(super) pods: BTreeMap<String, BTreeSet<String>>,
    /// Its hold.
    pub(super) hold: bool,
}

/// Chains that were built already: by direction, the policies' places, and what the pod calls its ports.
type Memo<'a> = HashMap<(Direction, Vec<usize>, &'a [NamedPort]), Option<Rc<Built>>>;

impl Way {
    fn isolation(&self) -> Isolation {
        match self {
            Self::Plain(isolation) => isolation.clone(),
            Self::Rules(built) => Isolation::Rules(built.name.clone()),
        }
    }
}

impl Planned {
    /// None where nobody has a say about pods of the namespace.
    fn new(ways: Option<Ways>, around: [Around; 2], is_covered: bool) -> Option<Self> {
        let nothing = || [Way::Plain(Isolation::None), Way::Plain(Isolation::None)];
        (ways.is_some() || is_covered).then(|| Self { ways: ways.unwrap_or_else(nothing), around })
    }

    fn tiers(&self) -> Tiers {
        let isolation = |built: &BuiltTier| match built {
            BuiltTier::Nothing => Isolation::None,
            BuiltTier::Chain(built) => Isolation::Rules(built.name.clone()),
            BuiltTier::TooLarge => Isolation::Closed,
        };
        let of = |[admin, baseline]: &Around| plan::Around {
            admin: isolation(admin),
            baseline: isolation(baseline),
        };
        let [ingress, egress] = &self.around;
        Tiers { ingress: of(ingress), egress: of(egress) }
    }
}

impl Planner {
    /// In which directions a policy of the namespace isolates somebody.
    pub(super) fn directions(&self, namespace: &str) -> [bool; 2] {
        BOTH.map(|direction| self.policies_of(namespace).any(|(_, it)| it.isolates(direction)))
    }

    pub(super) fn policies_of(&self, namespace: &str) -> impl Iterator<Item = Named<'_>> {
        let first = ObjectName { namespace: namespace.to_owned(), name: String::new() };
        let range = self.policies.range(first..).take_while(move |(name, _)| name.namespace == namespace);
        range.map(|(name, (compiled, _))| (name, compiled))
    }

    /// Plans the hold of a namespace and its pods, as far as they are to be planned again. `fill`: sets that are new get
    /// their members now.
    pub(super) fn plan_namespace(&mut self, namespace: &str, fill: bool, again: &Again) {
        let policies: Vec<Named<'_>> = self.policies_of(namespace).collect();
        let mut memo = Memo::new();
        let concerned =
            self.index.own_of(namespace).filter(|own| again.all || again.pods.contains_key(&own.name.name));
        let pods = concerned.map(|own| {
            let before = self.plan.pods.get(own.uid).map(|it| [&it.ingress, &it.egress]);
            let before = self.chains_of(before);
            let ways = pod_ways(&own, &policies, before, &mut memo);
            (own.uid.to_owned(), format!("{namespace}/{}", own.name.name), ways, self.tiers_of(&own))
        });
        let pods: Vec<_> = pods.collect();
        let before = self.plan.holds.get(namespace).map(|it| [&it.ingress, &it.egress]);
        let before = self.chains_of(before);
        let hold = (again.all || again.hold).then(|| hold_ways(&policies, before, &mut memo));
        let is_covered = self.is_covered(namespace);
        let hold_tiers = self.tiers_of_hold(namespace);
        for (uid, name, ways, chosen) in pods {
            let around = self.build_tiers(chosen);
            self.put_pod(&uid, name, Planned::new(ways, around, is_covered), fill);
        }
        if let Some(ways) = hold {
            let around = self.build_tiers(hold_tiers);
            self.put_hold(namespace, Planned::new(ways, around, is_covered), fill);
        }
        let gone = again.pods.iter().flat_map(|(name, uids)| {
            let name = ObjectName { namespace: namespace.to_owned(), name: name.clone() };
            let now = self.index.own(&name).map(|own| own.uid);
            uids.iter().filter(move |uid| Some(uid.as_str()) != now)
        });
        for uid in gone.collect::<Vec<_>>() {
            self.put_pod(uid, String::new(), None, fill);
        }
    }

    fn chains_of(&self, isolations: Option<[&Isolation; 2]>) -> [Option<&Chain>; 2] {
        isolations.map_or([None; 2], |both| {
            both.map(|isolation| match isolation {
                Isolation::Rules(name) => self.plan.chains.get(name),
                _ => None,
            })
        })
    }

    fn put_pod(&mut self, uid: &str, name: String, planned: Option<Planned>, fill: bool) {
        let after = planned.as_ref().map(|it| PodPlan {
            name,
            ingress: it.ways[0].isolation(),
            egress: it.ways[1].isolation(),
            tiers: it.tiers(),
        });
        if self.plan.pods.get(uid) == after.as_ref() {
            return;
        }
        self.acquire(planned, fill);
        let before = match after {
            Some(after) => self.plan.pods.insert(uid.to_owned(), after),
            None => self.plan.pods.remove(uid),
        };
        if let Some(before) = before {
            self.release([before.ingress, before.egress], before.tiers);
        }
        self.touched.pods.insert(uid.to_owned());
    }

    fn put_hold(&mut self, namespace: &str, planned: Option<Planned>, fill: bool) {
        let after = planned.as_ref().map(|it| HoldPlan {
            ingress: it.ways[0].isolation(),
            egress: it.ways[1].isolation(),
            tiers: it.tiers(),
        });
        if self.plan.holds.get(namespace) == after.as_ref() {
            return;
        }
        self.acquire(planned, fill);
        let before = match after {
            Some(after) => self.plan.holds.insert(namespace.to_owned(), after),
            None => self.plan.holds.remove(namespace),
        };
        if let Some(before) = before {
            self.release([before.ingress, before.egress], before.tiers);
        }
        self.touched.holds.insert(namespace.to_owned());
    }

    fn acquire(&mut self, planned: Option<Planned>, fill: bool) {
        let Some(Planned { ways, around }) = planned else { return };
        let index = fill.then_some(&self.index);
        let mut acquire = |built: &Built| self.live.acquire(&mut self.plan, &mut self.touched, built, index);
        for way in &ways {
            if let Way::Rules(built) = way {
                acquire(built);
            }
        }
        for built in around.iter().flatten() {
            if let BuiltTier::Chain(built) = built {
                acquire(built);
            }
        }
    }

    fn release(&mut self, before: [Isolation; 2], tiers: Tiers) {
        for isolation in before.iter().chain(tiers.all()) {
            if let Isolation::Rules(name) = isolation {
                self.live.release(&mut self.plan, &mut self.touched, name);
            }
        }
    }
}

fn of<T>(direction: Direction, [ingress, egress]: [T; 2]) -> T {
    match direction {
        Direction::Ingress => ingress,
        Direction::Egress => egress,
    }
}

/// None where no policy isolates anybody. `before`: what it has now.
fn pod_ways<'a>(
    own: &OwnPod<'a>,
    policies: &[Named<'_>],
    before: [Option<&Chain>; 2],
    memo: &mut Memo<'a>,
) -> Option<Ways> {
    if policies.is_empty() {
        return None;
    }
    let selecting = policies.iter().enumerate().filter(|(_, (_, it))| it.selector.matches(own.member.labels));
    let selecting: Vec<usize> = selecting.map(|(place, _)| place).collect();
    Some(BOTH.map(|direction| {
        if !policies.iter().any(|(_, it)| it.isolates(direction)) {
            return Way::Plain(Isolation::None);
        }
        let places = selecting.iter().copied().filter(|place| policies[*place].1.isolates(direction));
        let places: Vec<usize> = places.collect();
        if places.is_empty() {
            return Way::Plain(Isolation::Open);
        }
        // Of egress the destinations' names count.
        let ports = if direction == Direction::Ingress { own.member.ports } else { &[] };
        way(direction, places, policies, ports, of(direction, before), memo)
    }))
}

/// What those of the policies that are in these places do to a pod.
fn way<'a>(
    direction: Direction,
    places: Vec<usize>,
    policies: &[Named<'_>],
    ports: &'a [NamedPort],
    before: Option<&Chain>,
    memo: &mut Memo<'a>,
) -> Way {
    let isolating: Vec<Named<'_>> = places.iter().map(|place| policies[*place]).collect();
    if isolating.iter().any(|(_, it)| it.rules.is_err()) {
        return Way::Plain(Isolation::Closed);
    }
    let built = memo.entry((direction, places, ports));
    let built = built.or_insert_with(|| build(direction, &isolating, ports, before).map(Rc::new));
    built.clone().map_or(Way::Plain(Isolation::Closed), Way::Rules)
}

/// What is certain of a pod that is not known yet: policies that select all pods select it.
fn hold_ways(policies: &[Named<'_>], before: [Option<&Chain>; 2], memo: &mut Memo<'_>) -> Option<Ways> {
    if policies.is_empty() {
        return None;
    }
    Some(BOTH.map(|direction| {
        if !policies.iter().any(|(_, it)| it.isolates(direction)) {
            return Way::Plain(Isolation::None);
        }
        let certain = policies.iter().enumerate();
        let certain = certain.filter(|(_, (_, it))| it.isolates(direction) && it.selector.is_empty());
        let places = certain.map(|(place, _)| place).collect();
        way(direction, places, policies, &[], of(direction, before), memo)
    }))
}
