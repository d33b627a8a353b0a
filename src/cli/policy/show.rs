//! `ferrulectl policy show`: the policies of a pod, their chains in the kernel, and what those have counted.

use std::fmt::Write;

use serde::Serialize;

use crate::attachments::node_view::NodeView;
use crate::attachments::pod_rules;
use crate::cli::Report;
use crate::cli::arguments::Common;
use crate::cli::policy::known::Known;
use crate::cli::policy::side::{Place, Side};
use crate::cli::policy::target::Target;
use crate::cli::policy::{DIRECTIONS, protocol_word, word};
use crate::cni::error::CniError;
use crate::datapath::policy::{self, Bound, CountedRule, Tracer};
use crate::linux::nft::expr::Counted;
use crate::policy::cluster::compile::CompiledCluster;
use crate::policy::compile::Compiled;
use crate::policy::names::denied_chain;
use crate::policy::object::ObjectName;
use crate::policy::objects::Objects;
use crate::policy::plan::{Direction, Isolation, Way};
use crate::policy::selector::label;
use crate::text_table::{Cell, Table, Tone, escape, show_age};

/// What was found.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ShowReport {
    version: u32,
    pod: Side,
    uid: String,
    /// How long it has been attached.
    age_seconds: Option<u64>,
    /// How long ago the agent wrote what this goes by.
    objects_age_seconds: Option<u64>,
    directions: Vec<DirectionReport>,
    notes: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DirectionReport {
    direction: Direction,
    state: State,
    policies: Vec<PolicyReport>,
    /// The chain that the pod's packets are led to, and where that sends them.
    chains: Vec<String>,
    /// Whether the kernel does what the policies say; null where that is not known.
    as_planned: Option<bool>,
    rules: Vec<RuleReport>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    /// Nothing restricts it.
    Open,
    /// By rules.
    Isolated,
    /// By a policy that cannot be compiled.
    Closed,
    /// Until the agent sees the pod.
    Held,
    /// Another node decides.
    OtherNode,
}

#[derive(Serialize)]
struct PolicyReport {
    name: String,
    /// Why it cannot be compiled.
    invalid: Option<String>,
}

#[derive(Serialize)]
struct RuleReport {
    /// `TCP 80`, `any`
    port: String,
    /// `namespace/policy ingress[0]`
    rule: String,
    packets: u64,
    bytes: u64,
}

/// Looks.
///
/// # Errors
/// If there is no such pod, as far as is known here, or nothing can be read.
pub async fn show(common: &Common, name: &ObjectName) -> Result<ShowReport, CniError> {
    let networks = common.find_networks(None)?;
    let node = NodeView::read().await?;
    let known = Known::read(&networks, &node).await?;
    let objects = known.objects();
    let pod = Side::find(&Target::Pod(name.clone()), &known, &objects)?;
    let planner = known.planner(&objects);
    let plan = planner.plan();
    let nft = pod_rules::open()?;
    let (tracer, bound) = (Tracer::read(&nft).await?, policy::bound(&nft).await?);
    let mut directions = Vec::new();
    for direction in DIRECTIONS {
        let led = bound.iter().find(|it| Some(&it.link) == pod.link.as_ref() && it.direction == direction);
        let hold = || plan.holds.get(&name.namespace).map(|hold| hold.way(direction));
        let planned = match plan.pods.get(&pod.uid) {
            Some(pod) => Some(pod.way(direction)),
            None if pod.place == Place::Held && !known.unknown_is_open => hold(),
            None => None,
        };
        let is_planned = known.objects.is_some() && pod.link.is_some();
        let mut report = DirectionReport::new(direction, &pod, led, &tracer, is_planned.then_some(planned));
        report.policies = policies(&objects, name, direction);
        if report.state == State::Isolated {
            let mut counted = Vec::new();
            for chain in report.chains.iter().skip(1) {
                // What all pods are denied is told once, behind the last chain.
                counted.retain(|it: &CountedRule| it.chain != denied_chain(direction));
                counted.extend(policy::counted(&nft, direction, chain).await?);
            }
            report.rules = count(direction, &counted);
        }
        directions.push(report);
    }
    let age = known.attached.iter().filter(|it| it.attached.uid == pod.uid).map(|it| it.age).max();
    let mut notes = Vec::new();
    match (&known.objects, known.problem()) {
        (_, Some(problem)) => notes.push(format!("What the agent knew cannot be read: {problem}")),
        (None, None) => notes.push("No NetworkPolicy is known on this node.".to_owned()),
        (Some(_), None) => {}
    }
    if directions.iter().any(|it| it.state == State::Held) {
        notes.push(
            "The agent has not seen the pod yet: until then, nothing is allowed but what policies for all pods of its \
             namespace allow. If that lasts, see ferrulectl doctor."
                .to_owned(),
        );
    }
    if directions.iter().any(|it| it.as_planned == Some(false)) {
        notes.push(
            "The kernel does not do what the policies say: ask again in some seconds, then see ferrulectl doctor.".to_owned(),
        );
    }
    if pod.place == Place::OtherNode {
        notes.push("The pod is on another node, which decides about it.".to_owned());
    }
    let uid = if pod.place == Place::OtherNode { String::new() } else { pod.uid.clone() };
    Ok(ShowReport {
        version: 1,
        uid,
        age_seconds: age,
        objects_age_seconds: known.age(),
        directions,
        notes,
        pod,
    })
}

/// The policies that select a pod in a direction.
fn policies(objects: &Objects, name: &ObjectName, direction: Direction) -> Vec<PolicyReport> {
    let pod = objects.own_pod(name).cloned().or_else(|| objects.any_pod(name));
    let Some(pod) = pod else { return Vec::new() };
    let labels: Vec<String> = pod.labels.iter().map(|(key, value)| label(key, value)).collect();
    let of_namespace = objects.policies.iter().filter(|it| it.name.namespace == name.namespace);
    let selecting = of_namespace.filter_map(|policy| {
        let compiled = Compiled::new(policy);
        let selects = compiled.isolates(direction) && compiled.selector.matches(&labels);
        selects.then(|| PolicyReport {
            name: format!("{}/{}", policy.name.namespace, policy.name.name),
            invalid: compiled.rules.err().map(|invalid| invalid.to_string()),
        })
    });
    let of_cluster = objects.cluster_policies.iter().filter_map(|policy| {
        let compiled = CompiledCluster::new(policy);
        let is_about = compiled.covers(namespace_labels(objects, name).as_deref())
            && compiled.subject.pods.matches(&labels)
            && !compiled.rules(direction).is_empty();
        is_about.then(|| PolicyReport {
            name: format!("{} {}", compiled.tier.as_str(), policy.name),
            invalid: compiled
                .unclear
                .first()
                .map(|(invalid, consequence)| format!("{invalid}; {consequence}")),
        })
    });
    of_cluster.chain(selecting).collect()
}

fn namespace_labels(objects: &Objects, name: &ObjectName) -> Option<Vec<String>> {
    let namespace = objects.namespaces.iter().find(|it| it.name == name.namespace)?;
    Some(namespace.labels.iter().map(|(key, value)| label(key, value)).collect())
}

impl DirectionReport {
    fn new(
        direction: Direction,
        pod: &Side,
        led: Option<&Bound>,
        tracer: &Tracer<'_>,
        planned: Option<Option<Way<'_>>>,
    ) -> Self {
        let to = led.map(|it| tracer.leads_to(&it.chain)).unwrap_or_default();
        let denied = denied_chain(direction);
        let state = match (led, to.last().copied()) {
            _ if pod.place == Place::OtherNode => State::OtherNode,
            (None, _) | (Some(_), None) => State::Open,
            (Some(led), _) if led.is_held() => State::Held,
            (Some(_), Some(to)) if to == denied => State::Closed,
            (Some(_), Some(_)) => State::Isolated,
        };
        let as_planned = planned.map(|planned| match planned {
            None => led.is_none(),
            Some(way) => led.is_some() && to == chains_of(&way, denied),
        });
        let to = to.into_iter().map(str::to_owned);
        let chains = led.map(|it| it.chain.clone()).into_iter().chain(to).collect();
        Self { direction, state, policies: Vec::new(), chains, as_planned, rules: Vec::new() }
    }
}

/// The chains that a pod's own leads to, in order.
fn chains_of<'p>(way: &Way<'p>, denied: &'p str) -> Vec<&'p str> {
    let mut chains = Vec::new();
    for isolation in [way.admin, way.policies, way.baseline] {
        match isolation {
            Isolation::None | Isolation::Open => {}
            Isolation::Rules(chain) => chains.push(chain.as_str()),
            Isolation::Closed => {
                chains.push(denied);
                break;
            }
        }
    }
    chains
}

/// What the rules of a chain have counted. Those of both families are one rule of a policy.
fn count(direction: Direction, rules: &[CountedRule]) -> Vec<RuleReport> {
    let mut counted: Vec<RuleReport> = Vec::new();
    for it in rules {
        let is_of_chain = it.chain != denied_chain(direction);
        let port = port_of(&it.chain);
        let rule = match (is_of_chain, it.comment.as_str()) {
            (false, _) => "denied to all pods, by whatever policy",
            (true, "") => "somebody else's rule",
            (true, comment) => comment,
        };
        let of_one = counted.iter_mut().find(|known| known.port == port && known.rule == rule);
        let Counted { packets, bytes } = it.counted;
        match of_one {
            Some(known) => (known.packets, known.bytes) = (known.packets + packets, known.bytes + bytes),
            None => counted.push(RuleReport { port, rule: rule.to_owned(), packets, bytes }),
        }
    }
    counted
}

/// `TCP 80-90` of `pp-<hash>-tcp-80-90`.
fn port_of(chain: &str) -> String {
    let Some((_, rest)) = chain.strip_prefix("pp-").and_then(|rest| rest.split_once('-')) else {
        return "any".to_owned();
    };
    if rest == "many" {
        return "several".to_owned();
    }
    let (protocol, ports) = rest.split_once('-').unwrap_or((rest, ""));
    let protocol = protocol.parse().map_or_else(|_| protocol.to_ascii_uppercase(), protocol_word);
    if ports.is_empty() { protocol } else { format!("{protocol} {ports}") }
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Isolated => "isolated",
            Self::Closed => "closed",
            Self::Held => "held",
            Self::OtherNode => "-",
        }
    }
}

impl Report for ShowReport {
    /// 1 if it is held, or the kernel does something else than the policies say.
    fn is_success(&self) -> bool {
        let is_well = |it: &DirectionReport| it.state != State::Held && it.as_planned != Some(false);
        self.directions.iter().all(is_well)
    }

    fn to_text(&self, colour: bool) -> String {
        let addresses: Vec<String> = self.pod.addresses.iter().map(ToString::to_string).collect();
        let link = self.pod.link.as_ref().map(|link| format!(", link {link}")).unwrap_or_default();
        let age = self.age_seconds.map(|age| format!(", attached {} ago", show_age(age))).unwrap_or_default();
        let line = format!("pod {}  ({}{link}{age})", self.pod.name(), addresses.join(" "));
        let mut text = format!("{}\n\n", escape(&line));
        let mut table = Table::new(["DIRECTION", "STATE", "POLICIES", "CHAINS"]);
        for it in &self.directions {
            let tone = match (it.state, it.as_planned) {
                (_, Some(false)) | (State::Closed, _) => Tone::Bad,
                (State::Held, _) => Tone::Odd,
                _ => Tone::Plain,
            };
            let policies: Vec<String> = it.policies.iter().map(PolicyReport::show).collect();
            let dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
            table.push([
                word(it.direction).into(),
                Cell::toned(it.state.as_str(), tone),
                dash(policies.join(", ")).into(),
                dash(it.chains.join(" > ")).into(),
            ]);
        }
        text.push_str(&table.render(colour));
        let mut table = Table::new(["DIRECTION", "PORT", "RULE", "PACKETS", "BYTES"]);
        for it in &self.directions {
            for rule in &it.rules {
                let (packets, bytes) = (rule.packets.to_string(), rule.bytes.to_string());
                let port = rule.port.as_str();
                table.push([
                    word(it.direction).into(),
                    port.into(),
                    rule.rule.as_str().into(),
                    packets.into(),
                    bytes.into(),
                ]);
            }
        }
        let rules = table.render(colour);
        if !rules.is_empty() {
            let _ = write!(text, "\n{rules}");
        }
        for note in &self.notes {
            let _ = writeln!(text, "\n{}", escape(note));
        }
        text
    }
}

impl PolicyReport {
    fn show(&self) -> String {
        match &self.invalid {
            Some(reason) => format!("{} (cannot be compiled: {reason})", self.name),
            None => self.name.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_from_the_names_of_chains() {
        for (chain, shown) in [
            ("pi-1", "any"),
            ("denied_in", "any"),
            ("pp-1-many", "several"),
            ("pp-1-tcp", "TCP"),
            ("pp-1-udp-53", "UDP 53"),
            ("pp-1-sctp-80-90", "SCTP 80-90"),
            ("pp-1-33-7", "protocol 33 7"),
        ] {
            assert_eq!(port_of(chain), shown);
        }
    }
}
