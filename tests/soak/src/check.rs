//! The check at a quiet moment: whether kernel, store and the runtime's memory say the same. It reads with other tools
//! than ferrule's, and works out by itself what must be there.
//!
//! 1. As the storm left it: no address twice, none lost, every pod that stands is whole, and whatever the kernel has
//!    bears the name of a record. There may be records of attachments that the runtime has forgotten; those are dead.
//! 2. After one ADD and DEL, which repair what vandals broke, and one GC, which takes the dead: exactly what the
//!    runtime knows is there, nothing less and nothing more. CHECK has to agree.

use crate::Failure;
use crate::beside::collect_once;
use crate::call::{Call, Outcome, Verb, attachment};
use crate::kernel::{Kernel, Link, addresses_in};
use crate::node::{NETWORK, NODE_IPS};
use crate::random::Random;
use crate::runtime::Pod;
use crate::soak::Soak;
use crate::store::{Record, Store};
use crate::system::remove_namespace;
use kit::at_once;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How long the kernel may take to remove namespaces that have no name any more, with the links in them. It does that by
/// itself, and tells nobody.
const DEMOLITION: Duration = Duration::from_secs(60);

/// How many pods CHECK is asked about.
const CHECKED: usize = 12;

/// How many contradictions are told.
const TOLD: usize = 12;

/// Looks at quiet moments.
pub struct Checker {
    /// What stands whatever pods there are, as the first ADD made it.
    standing: BTreeSet<String>,
    /// The group of the network's links.
    group: String,
    random: Random,
}

/// How much is certain of a moment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// Just after the storm.
    AsLeft,
    /// After repair and GC.
    Repaired,
}

impl Checker {
    /// Has a first pod made and removed, and so the node's part of the network.
    pub fn begin(soak: &Soak) -> Result<Self, Failure> {
        let (pod, group) = visit(soak)?;
        let kernel = Kernel::read();
        let mut checker = Self { standing: kernel.standing, group, random: Random::new(soak.seed, 3 << 32) };
        if checker.standing.len() < 10 {
            return Err(format!("an ADD of {pod} left too little: {:?}", checker.standing).into());
        }
        checker.look(soak)?;
        Ok(checker)
    }

    /// Looks at everything, in both steps.
    pub fn look(&mut self, soak: &Soak) -> Result<(), Failure> {
        let pods = soak.runtime.pods();
        self.nobody_shares_an_address(&pods)?;
        self.eventually(soak, &pods, Moment::AsLeft)?;
        visit(soak)?;
        collect_once(soak, true, None)?;
        self.eventually(soak, &pods, Moment::Repaired)?;
        self.check_agrees(soak, &pods)
    }

    /// Once more what must be there, when all pods are gone.
    pub fn expect_nothing(&self, soak: &Soak) -> Result<(), Failure> {
        self.eventually(soak, &[], Moment::Repaired)
    }

    /// Read from the pods, whatever the store thinks.
    fn nobody_shares_an_address(&self, pods: &[Pod]) -> Result<(), Failure> {
        let living: Vec<&Pod> = pods.iter().filter(|pod| pod.has_namespace).collect();
        let mut owners: BTreeMap<String, String> = BTreeMap::new();
        let found = at_once(living.len(), 4, |n| addresses_in(&living[n].netns));
        for (addresses, pod) in found.into_iter().zip(&living) {
            let id = &pod.id;
            let ips = pod.result["ips"].as_array().cloned().unwrap_or_default();
            let told =
                ips.iter().filter_map(|ip| ip["address"].as_str()?.split('/').next().map(str::to_owned));
            let mut told: Vec<String> = told.collect();
            told.sort();
            if addresses != told {
                return Err(format!("{id} was told {told:?}, and its eth0 has {addresses:?}").into());
            }
            for address in addresses {
                if let Some(other) = owners.insert(address.clone(), id.clone()) {
                    return Err(format!("{address} is on eth0 of {other} and of {id}").into());
                }
            }
        }
        Ok(())
    }

    /// Nobody does anything, so what is wrong once stays wrong; but for namespaces that are being demolished.
    fn eventually(&self, soak: &Soak, pods: &[Pod], moment: Moment) -> Result<(), Failure> {
        let began = Instant::now();
        loop {
            let found = self.contradictions(&Kernel::read(), &Store::read(&soak.node.store)?, pods, moment);
            if found.is_empty() {
                return Ok(());
            }
            if began.elapsed() > DEMOLITION {
                let told = found.get(..TOLD.min(found.len())).unwrap_or_default().join("\n");
                return Err(format!("{} contradictions, of which:\n{told}", found.len()).into());
            }
            soak.end.wait(Duration::from_millis(100));
        }
    }

    fn contradictions(&self, kernel: &Kernel, store: &Store, pods: &[Pod], moment: Moment) -> Vec<String> {
        let mut found = store.contradictions();
        let mut allowed = Expected::default();
        for pod in pods {
            let Some(record) = store.records.get(&pod.id) else {
                found.push(format!("{} stands, and has no record: its addresses are anybody's", pod.id));
                continue;
            };
            let expected = Expected::of(&pod.id, record, pod);
            if pod.has_namespace {
                // Before the repair, a vandal may have had the last word.
                if moment == Moment::Repaired {
                    found.extend(missing("element", &expected.elements, &kernel.elements, &pod.id));
                }
                found.extend(missing("route", &expected.routes, &kernel.pod_routes, &pod.id));
                found.extend(missing("neighbour", &expected.neighbours, &kernel.neighbours, &pod.id));
                found.extend(
                    expected
                        .links
                        .iter()
                        .filter_map(|name| self.fault_of(name, kernel.links.get(name), &pod.id)),
                );
            } else if moment == Moment::Repaired {
                // The namespace is gone, and the pair went with it. What does not go with it is DEL's.
                allowed.elements.extend(expected.elements);
                allowed.links.extend(expected.links.into_iter().filter(|name| name.starts_with("ifb")));
                continue;
            }
            allowed.extend(expected);
        }
        for (id, record) in store.records.iter().filter(|(id, _)| pods.iter().all(|pod| pod.id != **id)) {
            match moment {
                Moment::AsLeft => allowed.extend(Expected::of_dead(id, record)),
                Moment::Repaired => found.push(format!("{id} was forgotten, and GC has left its record")),
            }
        }
        let links: BTreeSet<String> = kernel.links.keys().cloned().collect();
        found.extend(surplus("link", &allowed.links, &links));
        found.extend(surplus("route", &allowed.routes, &kernel.pod_routes));
        found.extend(surplus("neighbour", &allowed.neighbours, &kernel.neighbours));
        found.extend(surplus("element", &allowed.elements, &kernel.elements));
        if moment == Moment::Repaired {
            found.extend(store.unfinished.keys().map(|name| format!("{name} is unfinished still")));
            found.extend(missing("the node's", &self.standing, &kernel.standing, "no pod"));
            found.extend(surplus("the node's", &self.standing, &kernel.standing));
        }
        found
    }

    fn fault_of(&self, name: &str, link: Option<&Link>, id: &str) -> Option<String> {
        let Some(link) = link else { return Some(format!("{id} has no link {name}")) };
        let key = format!("ferrule:{NETWORK}/{id}/eth0 ");
        let is_well =
            link.alias.starts_with(&key) && link.group == self.group && link.is_up && link.is_carrying;
        (!is_well).then(|| format!("{name} of {id} is {link:?}"))
    }

    fn check_agrees(&mut self, soak: &Soak, pods: &[Pod]) -> Result<(), Failure> {
        let living: Vec<&Pod> = pods.iter().filter(|pod| pod.has_namespace).collect();
        for _ in 0..CHECKED.min(living.len()) {
            let Some(pod) = living.get(self.random.place(living.len())) else { break };
            let conf = soak.node.conf_for(pod);
            let attachment = attachment(&pod.id, &pod.netns);
            let call = Call { verb: Verb::Check, attachment, conf, blow: None, is_weighed: false };
            match soak.run(&call)?.outcome {
                Outcome::Success(Value::Null) => {}
                other => return Err(format!("CHECK of {}, which is whole: {other}", pod.id).into()),
            }
        }
        Ok(())
    }
}

/// What must be there for a pod, or may be.
#[derive(Default)]
struct Expected {
    links: BTreeSet<String>,
    routes: BTreeSet<String>,
    neighbours: BTreeSet<String>,
    elements: BTreeSet<String>,
}

impl Expected {
    fn of(id: &str, record: &Record, pod: &Pod) -> Self {
        let mut all = Self::of_dead(id, record);
        if pod.wishes["bandwidth"].is_null() {
            all.links.retain(|name| !name.starts_with("ifb"));
        }
        all
    }

    /// Of an attachment of which nothing is known but its record: all that it may have.
    fn of_dead(_id: &str, record: &Record) -> Self {
        let (mut all, link) = (Self::default(), &record.link);
        all.links.insert(link.clone());
        all.links.insert(link.replacen("veth", "ifb", 1));
        all.elements.insert(format!("pods: {link}"));
        for address in &record.addresses {
            let (family, node_ip) = if address.contains(':') { (6, NODE_IPS[1]) } else { (4, NODE_IPS[0]) };
            all.routes.insert(format!("{address} {link} {node_ip}"));
            all.neighbours.insert(format!("{address} {link}"));
            all.elements.insert(format!("sources{family}: {link} {address}"));
            all.elements.insert(format!("masquerade{family}: {link} {address}"));
            let port =
                |(node, pod): &(String, String)| format!("any_hostports{family}: {node} -> {address} {pod}");
            all.elements.extend(record.ports.iter().map(port));
        }
        all
    }

    fn extend(&mut self, more: Self) {
        self.links.extend(more.links);
        self.routes.extend(more.routes);
        self.neighbours.extend(more.neighbours);
        self.elements.extend(more.elements);
    }
}

fn missing<'a>(
    what: &'a str,
    wanted: &'a BTreeSet<String>,
    actual: &'a BTreeSet<String>,
    id: &'a str,
) -> impl Iterator<Item = String> + 'a {
    wanted.difference(actual).map(move |it| format!("{id}: {what} {it:?} is missing"))
}

fn surplus<'a>(
    what: &'a str,
    allowed: &'a BTreeSet<String>,
    actual: &'a BTreeSet<String>,
) -> impl Iterator<Item = String> + 'a {
    actual.difference(allowed).map(move |it| format!("{what} {it:?} is nobody's"))
}

/// A pod that comes and goes: its ADD repairs what vandals broke. Its id, and the group of its link.
fn visit(soak: &Soak) -> Result<(String, String), Failure> {
    let netns = soak.namespaces.take()?;
    let id = soak.runtime.begin();
    let pod = Pod { id, netns, has_namespace: true, wishes: json!({}), result: Value::Null };
    let call = |verb| {
        let (conf, attachment) = (soak.node.conf_for(&pod), attachment(&pod.id, &pod.netns));
        match soak.run(&Call { verb, attachment, conf, blow: None, is_weighed: false })?.outcome {
            Outcome::Success(_) => Ok(()),
            other => Err(Failure::from(format!("{} of {}: {other}", verb.name(), pod.id))),
        }
    };
    call(Verb::Add)?;
    let record = Store::read(&soak.node.store)?.records.get(&pod.id).map(|record| record.link.clone());
    let group = Kernel::read().links.get(&record.unwrap_or_default()).map(|link| link.group.clone());
    call(Verb::Del)?;
    soak.runtime.forget(&pod.id);
    remove_namespace(&pod.netns)?;
    group.map(|group| (pod.id, group)).ok_or_else(|| "an ADD that succeeded has made no link".into())
}
