//! `ferrulectl policy why`: whether a connection is allowed, by which rule, or what the policies lack; and whether the
//! kernel does the same.

use std::fmt::Write;
use std::net::IpAddr;

use serde::Serialize;

use crate::attachments::node_view::NodeView;
use crate::attachments::pod_rules;
use crate::cli::arguments::Common;
use crate::cli::policy::known::Known;
use crate::cli::policy::side::{Place, Side};
use crate::cli::policy::target::{Door, Target};
use crate::cli::policy::words::{of_cluster, sentences};
use crate::cli::policy::{DIRECTIONS, protocol_word, word};
use crate::cli::{Report, STATUS_BLIND};
use crate::cni::error::{CniError, Code};
use crate::datapath::policy::{self, Bound, End, Packet, Tracer};
use crate::policy::evaluate::{Flow, Verdict};
use crate::policy::plan::{Direction, HoldPlan};
use crate::policy::planner::Planner;
use crate::policy::walk::Walked;
use crate::text_table::{Cell, Table, Tone, escape, show_age};

/// `IPPROTO_ICMP` and `IPPROTO_ICMPV6`: what is asked about without a port.
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// The answer.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WhyReport {
    version: u32,
    source: Side,
    destination: Side,
    protocol: String,
    /// 0 of what has none.
    port: u16,
    /// Null where policies and kernel do not agree, or one of them is not known.
    allowed: Option<bool>,
    /// How long ago the agent wrote what this goes by.
    objects_age_seconds: Option<u64>,
    /// One for each family that both ends have.
    flows: Vec<FlowReport>,
    notes: Vec<String>,
}

/// The answer for one family.
#[derive(Serialize)]
struct FlowReport {
    source: IpAddr,
    destination: IpAddr,
    allowed: Option<bool>,
    directions: Vec<DirectionReport>,
}

/// The answer for one direction.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DirectionReport {
    direction: Direction,
    /// Null: policies do not know.
    allowed: Option<bool>,
    why: Vec<String>,
    /// The same for programs.
    verdict: Option<Verdict>,
    /// Null: another node's kernel, or none, judges it.
    kernel: Option<KernelReport>,
}

/// What the kernel of this node does.
#[derive(Serialize)]
struct KernelReport {
    /// Null: by rules that somebody else made.
    allowed: Option<bool>,
    agrees: bool,
    chains: Vec<String>,
    /// The comment of the rule that accepts it, or what is not understood.
    rule: Option<String>,
}

/// What is asked by.
struct Asking<'a> {
    known: &'a Known,
    planner: &'a Planner,
    bound: Vec<Bound>,
    tracer: &'a Tracer<'a>,
    source: &'a Side,
    destination: &'a Side,
}

/// Answers.
///
/// # Errors
/// If one of the two is not known, or nothing can be read.
pub async fn why(common: &Common, from: &Target, to: &Door) -> Result<WhyReport, CniError> {
    let networks = common.find_networks(None)?;
    let node = NodeView::read().await?;
    let known = Known::read(&networks, &node).await?;
    let mut objects = known.objects();
    let source = Side::find(from, &known, &objects)?;
    let destination = Side::find(&to.target, &known, &objects)?;
    // Another node's pod is judged as if it were here: its own node goes by the same objects.
    let guests: Vec<_> = [&source, &destination].into_iter().filter_map(|it| it.as_own(&objects)).collect();
    objects.own_pods.extend(guests);
    let planner = known.planner(&objects);
    let nft = pod_rules::open()?;
    let (tracer, bound) = (Tracer::read(&nft).await?, policy::bound(&nft).await?);
    let asking = Asking {
        known: &known,
        planner: &planner,
        bound,
        tracer: &tracer,
        source: &source,
        destination: &destination,
    };
    let mut flows = Vec::new();
    for ipv4 in [true, false] {
        let (Some(source), Some(destination)) = (source.address(ipv4), destination.address(ipv4)) else {
            continue;
        };
        let (protocol, port) = to.port.unwrap_or((if ipv4 { ICMP } else { ICMPV6 }, 0));
        flows.push(asking.ask(&Flow { source, destination, protocol, port }).await?);
    }
    if flows.is_empty() {
        let show = |side: &Side| {
            let addresses: Vec<String> = side.addresses.iter().map(ToString::to_string).collect();
            format!(
                "{} has {}",
                side.name(),
                if addresses.is_empty() { "none".into() } else { addresses.join(", ") }
            )
        };
        let details = format!("{}; {}", show(&source), show(&destination));
        let message = "the two have no addresses of the same family";
        return Err(CniError::new(Code::InvalidConf, message).with_details(details));
    }
    let all = |wanted| flows.iter().all(|it| it.allowed == Some(wanted));
    let allowed = match (all(true), flows.iter().any(|it| it.allowed.is_none())) {
        (true, _) => Some(true),
        (false, true) => None,
        (false, false) => Some(false),
    };
    let notes = asking.notes(&flows);
    let (protocol, port) = to.port.unwrap_or((ICMP, 0));
    Ok(WhyReport {
        version: 1,
        protocol: protocol_word(protocol),
        port,
        allowed,
        objects_age_seconds: known.age(),
        flows,
        notes,
        source,
        destination,
    })
}

impl Asking<'_> {
    async fn ask(&self, flow: &Flow) -> Result<FlowReport, CniError> {
        let judgement = self.planner.judge(flow);
        let mut directions = Vec::new();
        for direction in DIRECTIONS {
            let (allowed, mut why, verdict) = self.judge(direction, flow, judgement.of(direction));
            if verdict.is_some() {
                let passed = judgement.passed.iter().filter(|it| it.direction == direction);
                let passed: Vec<String> =
                    passed.map(|it| format!("{} passes it on", of_cluster(it))).collect();
                why.splice(0..0, passed);
            }
            let kernel = match self.packet(direction, flow) {
                Some(packet) => Some(self.trace(direction, &packet, allowed).await?),
                None => None,
            };
            directions.push(DirectionReport { direction, allowed, why, verdict, kernel });
        }
        let answer = |it: &DirectionReport| match &it.kernel {
            Some(kernel) if !kernel.agrees => None,
            _ => it.allowed,
        };
        let answers: Vec<Option<bool>> = directions.iter().map(answer).collect();
        let allowed = match (answers.contains(&Some(false)), answers.contains(&None)) {
            // What one direction denies is denied, whatever the other says.
            (true, _) => Some(false),
            (false, true) => None,
            (false, false) => Some(true),
        };
        Ok(FlowReport { source: flow.source, destination: flow.destination, allowed, directions })
    }

    /// The pod whose policies decide about a direction, and the other end.
    fn sides(&self, direction: Direction) -> (&Side, &Side) {
        match direction {
            Direction::Egress => (self.source, self.destination),
            Direction::Ingress => (self.destination, self.source),
        }
    }

    /// What policies say.
    fn judge(
        &self,
        direction: Direction,
        flow: &Flow,
        verdict: &Verdict,
    ) -> (Option<bool>, Vec<String>, Option<Verdict>) {
        let (own, other) = self.sides(direction);
        let name = own.name();
        let say = |allowed, text: String| (Some(allowed), vec![text], None);
        let is_pod = matches!(own.place, Place::ThisNode | Place::OtherNode | Place::Held);
        if !is_pod {
            return say(true, format!("{name} is no pod, so no NetworkPolicy isolates it"));
        }
        if direction == Direction::Ingress && other.place == Place::Node && own.is_of_this_node() {
            return say(true, "what a node sends to its own pods always passes".to_owned());
        }
        if let Some(problem) = self.known.problem().filter(|_| self.known.objects.is_none()) {
            return (None, vec![format!("what the agent knew cannot be read: {problem}")], None);
        }
        if self.known.objects.is_none() {
            return if self.tracer.exists() {
                let text = "there is a table of policies, and the agent has not left the objects that it was made from";
                (None, vec![text.to_owned()], None)
            } else {
                say(true, "no NetworkPolicy is known on this node".to_owned())
            };
        }
        if own.place == Place::Held {
            return self.judge_held(direction, own, flow, own.uid == other.uid);
        }
        let mut why = sentences(direction, &name, &other.name(), verdict);
        if own.place == Place::OtherNode {
            why.push(format!("{name} is on another node, which decides about its {}", word(direction)));
        }
        (Some(verdict.allowed()), why, Some(verdict.clone()))
    }

    /// What holds for a pod that the agent has not seen.
    fn judge_held(
        &self,
        direction: Direction,
        own: &Side,
        flow: &Flow,
        itself: bool,
    ) -> (Option<bool>, Vec<String>, Option<Verdict>) {
        let (name, namespace) = (own.name(), own.namespace().unwrap_or_default());
        let leads = |it: &&Bound| Some(&it.link) == own.link.as_ref() && it.direction == direction;
        let bound = self.bound.iter().find(leads);
        if bound.is_some_and(|it| !it.is_held()) {
            let text =
                format!("{name} is newer than what the agent has left on disk: ask again in some seconds");
            return (None, vec![text], None);
        }
        let plan = self.planner.plan();
        let nothing = HoldPlan::default();
        let hold = plan.holds.get(namespace).unwrap_or(&nothing).way(direction);
        let peer = match direction {
            Direction::Egress => flow.destination,
            Direction::Ingress => flow.source,
        };
        let not_seen = format!("the agent has not seen {name} yet");
        let walked = plan.walk_way(&hold, peer, flow.protocol, flow.port, itself);
        let (allowed, why) = match (hold.isolates(), walked) {
            (false, _) => {
                (true, format!("no policy isolates anybody of {namespace} for {}", word(direction)))
            }
            _ if self.known.unknown_is_open => (true, format!("{not_seen}, and policyUnknown is open")),
            (_, Walked::Allowed(rule)) => {
                (true, format!("{not_seen}; whatever its labels are, {} allows it", rule.comment))
            }
            (_, Walked::NotIsolated) => (true, format!("{not_seen}, and nothing holds it")),
            (_, Walked::Forbidden(rule)) => (
                false,
                format!("{not_seen}; until then, {} denies it, as it may be about the pod", rule.comment),
            ),
            (_, Walked::Denied) => (
                false,
                format!(
                    "{not_seen}: until then, nothing is allowed but what policies for all pods of {namespace} allow"
                ),
            ),
        };
        (Some(allowed), vec![why], None)
    }

    /// The packet of a direction that this node's kernel judges.
    fn packet(&self, direction: Direction, flow: &Flow) -> Option<Packet> {
        let (own, _) = self.sides(direction);
        // What the node itself sends takes another hook.
        if !own.is_of_this_node() || own.link.is_none() || self.source.place == Place::Node {
            return None;
        }
        Some(Packet {
            input: self.source.link.clone(),
            output: self.destination.link.clone(),
            to_node: self.destination.place == Place::Node,
            source: flow.source,
            destination: flow.destination,
            protocol: flow.protocol,
            port: flow.port,
            answers: false,
        })
    }

    async fn trace(
        &self,
        direction: Direction,
        packet: &Packet,
        wanted: Option<bool>,
    ) -> Result<KernelReport, CniError> {
        let traced = self.tracer.trace(direction, packet).await?;
        let allowed = traced.allowed();
        let rule = match traced.end {
            End::Accepted(comment) => Some(comment),
            End::Unclear(what) => Some(what),
            End::Passed | End::Dropped => None,
        };
        Ok(KernelReport {
            allowed,
            agrees: allowed.is_some() && allowed == wanted,
            chains: traced.chains,
            rule,
        })
    }

    fn notes(&self, flows: &[FlowReport]) -> Vec<String> {
        let mut notes = Vec::new();
        let mut kernels = flows.iter().flat_map(|it| &it.directions).filter_map(|it| {
            let kernel = it.kernel.as_ref()?;
            it.allowed.map(|_| kernel)
        });
        if kernels.any(|kernel| !kernel.agrees) {
            let age = self.known.age().map(show_age).unwrap_or_default();
            notes.push(format!(
                "The kernel does not do what the policies say. They are as the agent wrote them {age} ago: ask again in some \
                 seconds. If it stays so, somebody has changed table inet ferrule-policy: a running ferruled repairs it, and \
                 otherwise starting it again does; ferrulectl doctor says what differs."
            ));
        }
        if self.known.objects.as_ref().is_some_and(|it| !it.is_of_boot) {
            notes.push(
                "What the agent has left on disk is from before the node was rebooted: pods may have other addresses now."
                    .to_owned(),
            );
        }
        notes
    }
}

/// What is said of one direction, for whoever asks about more than policies.
pub struct Said {
    /// By policies; `None`: they do not know.
    pub allowed: Option<bool>,
    /// By the kernel of this node; `None`: it does not judge it, or by rules that somebody else made.
    pub kernel: Option<bool>,
    /// Why.
    pub why: Vec<String>,
}

impl WhyReport {
    /// Of the first family.
    pub fn said(&self, direction: Direction) -> Option<Said> {
        let found = self.flows.first()?.directions.iter().find(|it| it.direction == direction)?;
        let kernel = found.kernel.as_ref().and_then(|kernel| kernel.allowed);
        Some(Said { allowed: found.allowed, kernel, why: found.why.clone() })
    }
}

impl Report for WhyReport {
    fn status(&self) -> u8 {
        match self.allowed {
            Some(true) => 0,
            Some(false) => 1,
            None => STATUS_BLIND,
        }
    }

    fn to_text(&self, colour: bool) -> String {
        let mut text = String::new();
        for (at, flow) in self.flows.iter().enumerate() {
            text.push_str(if at > 0 { "\n" } else { "" });
            let end = |side: &Side, address: IpAddr| match (&side.pod, side.place) {
                (None, Place::Elsewhere) => address.to_string(),
                _ => format!("{} ({address})", side.name()),
            };
            let (from, to) = (end(&self.source, flow.source), end(&self.destination, flow.destination));
            let port = if self.port > 0 { format!(" {}", self.port) } else { String::new() };
            let line = format!("{from} to {to}, {}{port}: {}", self.protocol, answer(flow.allowed));
            let _ = writeln!(text, "{}\n\n{}", escape(&line), flow.to_text(colour));
            // `writeln` ends the table's last line once more.
            text.pop();
        }
        for note in &self.notes {
            let _ = writeln!(text, "\n{}", escape(note));
        }
        text
    }
}

impl FlowReport {
    fn to_text(&self, colour: bool) -> String {
        let mut table = Table::new(["DIRECTION", "ANSWER", "WHY"]);
        let tone = |allowed| match allowed {
            Some(true) => Tone::Plain,
            Some(false) => Tone::Bad,
            None => Tone::Odd,
        };
        for it in &self.directions {
            for (at, why) in it.why.iter().enumerate() {
                let (direction, cell) = if at == 0 {
                    (word(it.direction), Cell::toned(answer(it.allowed), tone(it.allowed)))
                } else {
                    ("", "".into())
                };
                table.push([direction.into(), cell, why.into()]);
            }
        }
        for it in &self.directions {
            let Some(kernel) = &it.kernel else { continue };
            let (verdict, tone) = match (kernel.agrees, it.allowed, kernel.allowed) {
                (true, ..) => ("agrees", Tone::Plain),
                (false, _, None) => ("unclear", Tone::Odd),
                (false, None, Some(_)) => (answer(kernel.allowed), Tone::Odd),
                (false, Some(_), Some(true)) => ("allows it", Tone::Bad),
                (false, Some(_), Some(false)) => ("denies it", Tone::Bad),
            };
            let way =
                if kernel.chains.is_empty() { "no chain".to_owned() } else { kernel.chains.join(" > ") };
            let rule = kernel.rule.as_ref().map(|rule| format!(": {rule}")).unwrap_or_default();
            let kernel = if it.direction == DIRECTIONS[0] { "kernel out" } else { "kernel in" };
            table.push([kernel.into(), Cell::toned(verdict, tone), format!("{way}{rule}").into()]);
        }
        table.render(colour)
    }
}

fn answer(allowed: Option<bool>) -> &'static str {
    match allowed {
        Some(true) => "allowed",
        Some(false) => "denied",
        None => "cannot tell",
    }
}
