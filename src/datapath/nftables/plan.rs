//! Which changes make what there is what there should be. Decides; asks and does nothing.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use crate::cni::ids::NetworkName;
use crate::desired::nftables::element::{Element, belongs_to};
use crate::desired::nftables::table::{sets, table, whole_table};
use crate::linux::nft::change::Change;
use crate::linux::nft::element::Bytes;
use crate::linux::nft::expr::Counted;
use crate::linux::nft::rule::{PlacedRule, Rule};
use crate::linux::nft::set::Set;
use crate::linux::nft::table::Table;

/// What there is of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Present {
    /// Nothing.
    Nothing,
    /// One of another version, or one that somebody has changed.
    Other,
    /// The table as it should be, but for its elements.
    Table,
}

/// What the records ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// What must be there.
    pub settled: Vec<Element>,
    /// What an ADD or a DEL that is at work right now may have added or removed already: where there is a table, it is
    /// left as it is found. Where there is none it is wanted, because an ADD does not look again.
    pub busy: Vec<Element>,
    /// What a DEL is about to remove, or has removed: it is left as it is found, and nobody makes it again.
    pub leaving: Vec<Element>,
}

impl Wanted {
    /// All that may have to be made.
    fn all(self) -> Vec<Element> {
        let mut all = self.settled;
        all.extend(self.busy);
        all
    }
}

impl From<Vec<Element>> for Wanted {
    fn from(settled: Vec<Element>) -> Self {
        Self { settled, ..Self::default() }
    }
}

/// The changes, and what they amount to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// To be made at once.
    pub changes: Vec<Change>,
    /// How many elements they add to a table that stays.
    pub added: usize,
    /// How many elements they remove from a table that stays.
    pub removed: usize,
    /// Elements whose place another one has.
    pub passed_over: Vec<Element>,
}

impl Plan {
    /// Plans how the elements of `networks` become `wanted`. What is not theirs stays.
    pub fn new(
        present: Present,
        actual: &[Element],
        networks: &[NetworkName],
        wanted: impl Into<Wanted>,
    ) -> Self {
        let wanted = wanted.into();
        let busy: HashSet<Element> = match present {
            Present::Table | Present::Other => wanted.busy.iter().chain(&wanted.leaving).cloned().collect(),
            Present::Nothing => HashSet::new(),
        };
        let is_busy = |element: &Element| busy.contains(element);
        let wanted: Vec<Element> = wanted.all().into_iter().filter(|element| !is_busy(element)).collect();
        let (own, others): (Vec<&Element>, Vec<&Element>) =
            actual.iter().partition(|it| belongs_to(it, networks));
        let in_work = identities(&busy);
        let (busy_there, own): (Vec<&Element>, Vec<&Element>) =
            own.into_iter().partition(|it| in_work.contains(&identity(it)));
        // A table of another version may have other keys under the same name.
        let sets = sets();
        let fits = |it: &&Element| sets.iter().any(|set: &Set| set.name == it.set && set.fits(it));
        let staying: Vec<&Element> = others.into_iter().chain(busy_there).filter(fits).collect();
        let (wanted, passed_over) = without_clashes(&staying, wanted);
        let mut changes = Vec::new();
        if present == Present::Table {
            let (wanted_now, there) = (identities(&wanted), identities(own.iter().copied()));
            let is_stale = |it: &&Element| !wanted_now.contains(&identity(it));
            let stale: Vec<Element> = own.into_iter().filter(is_stale).cloned().collect();
            let missing: Vec<Element> =
                wanted.iter().filter(|it| !there.contains(&identity(it))).cloned().collect();
            let (added, removed) = (missing.len(), stale.len());
            changes.extend(deletions(stale));
            changes.extend(additions(missing));
            return Self { changes, added, removed, passed_over };
        }
        if present == Present::Other {
            changes.push(Change::DeleteTable(table()));
        }
        changes.extend(whole_table());
        changes.extend(additions(wanted.into_iter().chain(staying.into_iter().cloned())));
        Self { changes, added: 0, removed: 0, passed_over }
    }
}

impl Plan {
    /// Lets the rules of a table that is made anew count on from what those have counted that are there.
    pub fn counting_on(mut self, there: &[PlacedRule]) -> Self {
        let place = |rule: &Rule| (rule.chain.clone(), rule.exprs.clone());
        let counted: HashMap<_, Counted> =
            there.iter().filter_map(|it| Some((place(&it.rule), it.counted?))).collect();
        for change in &mut self.changes {
            if let Change::AddRule(table, rule) = change
                && let Some(&counted) = counted.get(&place(rule))
            {
                *change = Change::AddCountedRule(table.clone(), rule.clone(), counted);
            }
        }
        self
    }
}

/// Those of `actual` that belong to `networks`, and are not `wanted`.
pub fn stale(actual: &[Element], networks: &[NetworkName], wanted: Wanted) -> Vec<Element> {
    let leaving = wanted.leaving.clone();
    let wanted: Vec<Element> = wanted.all().into_iter().chain(leaving).collect();
    let wanted = identities(&wanted);
    let is_stale = |it: &&Element| belongs_to(it, networks) && !wanted.contains(&identity(it));
    actual.iter().filter(is_stale).cloned().collect()
}

/// Adds elements, with one change a set.
pub fn additions(elements: impl IntoIterator<Item = Element>) -> Vec<Change> {
    by_set(elements).map(|elements| Change::AddElements(table(), elements)).collect()
}

/// Removes elements, with one change a set.
pub fn deletions(elements: impl IntoIterator<Item = Element>) -> Vec<Change> {
    deletions_in(&table(), elements)
}

/// The same in any table.
pub fn deletions_in(table: &Table, elements: impl IntoIterator<Item = Element>) -> Vec<Change> {
    by_set(elements).map(|elements| Change::DeleteElements(table.clone(), elements)).collect()
}

/// Lets elements of a table expire, with one change a set.
pub fn expirations_in(
    table: &Table,
    elements: impl IntoIterator<Item = Element>,
    after: Duration,
) -> Vec<Change> {
    by_set(elements)
        .map(|elements| Change::ExpireElements { table: table.clone(), elements, after })
        .collect()
}

fn by_set(elements: impl IntoIterator<Item = Element>) -> impl Iterator<Item = Vec<Element>> {
    let mut sets: BTreeMap<String, Vec<Element>> = BTreeMap::new();
    for element in elements {
        sets.entry(element.set.clone()).or_default().push(element);
    }
    sets.into_values()
}

/// Two records may claim a hostPort after a crash; the kernel would refuse all for the sake of one. The first has
/// it, and what another network has stays.
fn without_clashes(others: &[&Element], wanted: Vec<Element>) -> (Vec<Element>, Vec<Element>) {
    let mut places: HashMap<(String, Bytes), Option<Bytes>> =
        others.iter().map(|it| (place(it), it.data.clone())).collect();
    let (mut kept, mut passed_over) = (Vec::new(), Vec::new());
    for element in wanted {
        match places.get(&place(&element)) {
            None => {
                places.insert(place(&element), element.data.clone());
                kept.push(element);
            }
            Some(data) if *data == element.data => {}
            Some(_) => passed_over.push(element),
        }
    }
    (kept, passed_over)
}

fn place(element: &Element) -> (String, Bytes) {
    (element.set.clone(), element.key.clone())
}

/// All of an element but its comment, which is for people.
type Identity<'a> = (&'a str, &'a Bytes, Option<&'a Bytes>, Option<&'a Bytes>);

fn identity(element: &Element) -> Identity<'_> {
    (&element.set, &element.key, element.key_end.as_ref(), element.data.as_ref())
}

fn identities<'a>(elements: impl IntoIterator<Item = &'a Element>) -> HashSet<Identity<'a>> {
    elements.into_iter().map(identity).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::nftables::element::{HostPort, PodRules, Protocol};

    fn network(name: &str) -> NetworkName {
        NetworkName::parse(name).unwrap()
    }

    /// A pod of a network, with hostPort tcp 80.
    fn pod(network_name: &str, link: &str, address: &str) -> Vec<Element> {
        let pod = PodRules {
            network: network(network_name),
            host_link: link.to_owned(),
            name: Some(format!("default/{link}")),
            addresses: vec![address.parse().unwrap()],
            masquerade: false,
            host_ports: vec![HostPort {
                host_ip: None,
                host_port: 80,
                container_port: 8080,
                protocol: Protocol::Tcp,
            }],
        };
        pod.elements()
    }

    fn count(plan: &Plan) -> (usize, usize, usize) {
        (plan.added, plan.removed, plan.passed_over.len())
    }

    #[test]
    fn nothing_is_done_where_all_is_as_it_should_be() {
        let web = pod("podnet", "veth0", "10.244.1.7");
        let plan = Plan::new(Present::Table, &web, &[network("podnet")], web.clone());
        assert_eq!(plan, Plan::default());
    }

    #[test]
    fn what_nothing_asks_for_goes_but_not_another_networks() {
        let (web, dns) = (pod("podnet", "veth0", "10.244.1.7"), pod("other", "veth1", "10.9.0.3"));
        let actual = [&web[..], &dns[..2]].concat();
        let plan = Plan::new(Present::Table, &actual, &[network("podnet")], Vec::new());
        assert_eq!(count(&plan), (0, 3, 0));
        assert!(plan.changes.iter().all(|change| matches!(change, Change::DeleteElements(..))));
        let both = [network("podnet"), network("other")];
        assert_eq!(count(&Plan::new(Present::Table, &actual, &both, Vec::new())), (0, 5, 0));
    }

    #[test]
    fn a_host_port_that_leads_to_a_dead_pod_is_led_to_the_living() {
        let (dead, alive) = (pod("podnet", "veth0", "10.244.1.7"), pod("podnet", "veth1", "10.244.1.8"));
        let plan = Plan::new(Present::Table, &dead, &[network("podnet")], alive);
        assert_eq!(count(&plan), (3, 3, 0));
    }

    #[test]
    fn what_a_busy_command_has_stays_unless_all_is_made_anew() {
        let (web, coming) = (pod("podnet", "veth0", "10.244.1.7"), pod("podnet", "veth1", "10.244.1.8"));
        let wanted =
            || Wanted { settled: web[..2].to_vec(), busy: coming[..2].to_vec(), ..Wanted::default() };
        // An ADD that has not added, or a DEL that has removed: nothing; one that has: nothing.
        for there in [&[][..], &coming[..1], &coming[..2]] {
            let actual = [&web[..2], there].concat();
            let plan = Plan::new(Present::Table, &actual, &[network("podnet")], wanted());
            assert_eq!(plan, Plan::default(), "{there:?}");
            assert_eq!(stale(&actual, &[network("podnet")], wanted()), []);
        }
        // A table that is replaced has of it what was found.
        let actual = [&web[..2], &coming[..1]].concat();
        let plan = Plan::new(Present::Other, &actual, &[network("podnet")], wanted());
        let kept: Vec<&Element> = plan
            .changes
            .iter()
            .flat_map(
                |change| if let Change::AddElements(_, elements) = change { &elements[..] } else { &[] },
            )
            .collect();
        assert_eq!(kept.len(), 3);
        assert!(kept.contains(&&coming[0]) && !kept.contains(&&coming[1]), "{kept:?}");
        let plan = Plan::new(Present::Nothing, &[], &[network("podnet")], wanted());
        let anew: usize = plan
            .changes
            .iter()
            .map(|change| if let Change::AddElements(_, elements) = change { elements.len() } else { 0 })
            .sum();
        assert_eq!(anew, 4);
    }

    #[test]
    fn of_two_records_with_one_host_port_the_first_has_it() {
        let (a, b) = (pod("podnet", "veth0", "10.244.1.7"), pod("podnet", "veth1", "10.244.1.8"));
        let plan = Plan::new(Present::Table, &[], &[network("podnet")], [a, b.clone()].concat());
        assert_eq!(plan.passed_over, b[2..]);
        assert_eq!(plan.added, 5);
    }

    #[test]
    fn a_host_port_of_another_network_is_not_taken_from_it() {
        let (theirs, ours) = (pod("other", "veth0", "10.9.0.3"), pod("podnet", "veth1", "10.244.1.8"));
        for state in [Present::Table, Present::Other] {
            let plan = Plan::new(state, &theirs, &[network("podnet")], ours.clone());
            assert_eq!(plan.passed_over, ours[2..]);
        }
    }

    #[test]
    fn a_table_made_anew_keeps_what_other_networks_have_in_it() {
        let (theirs, ours) = (pod("other", "veth0", "10.9.0.3"), pod("podnet", "veth1", "10.244.1.8"));
        let mut actual = theirs.clone();
        // Of a table of another version.
        actual.push(Element::new("pods", Bytes(vec![1, 2, 3, 4])));
        let plan = Plan::new(Present::Other, &actual, &[network("podnet")], ours[..2].to_vec());
        assert_eq!(plan.changes[0], Change::DeleteTable(table()));
        let added: usize = plan
            .changes
            .iter()
            .map(|change| if let Change::AddElements(_, elements) = change { elements.len() } else { 0 })
            .sum();
        assert_eq!(added, 5);
    }
}
