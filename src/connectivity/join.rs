//! Halves joined to an answer.
//!
//! The first step of a packet's way that is broken is the reason: forth through the source's node and the
//! destination's, then back. What neither node says a word of, the sizes that their links take, is compared here.

use crate::connectivity::answer::{Answer, FlowAnswer, PlacedStep, Verdict};
use crate::connectivity::half::{Direction, Half, Kind, Other, Role, State, Step};
use crate::connectivity::question::{End, EndKind, Protocol, Question};
use crate::policy::evaluate::Flow;

/// The answer to `question`, from what nodes have said: of each flow the half of the source and the half of the
/// destination, as far as they were asked, in any order. Names and endpoints are those of the question.
pub fn join(question: &Question, halves: &[Half]) -> Answer {
    let flows: Vec<FlowAnswer> =
        question.flows().into_iter().map(|flow| join_flow(question, flow, halves)).collect();
    let ask = unasked(question, &flows, halves);
    if flows.is_empty() {
        let (verdict, step) = without_flow(question);
        return Answer { verdict, remedy: step.remedy, sentence: step.sentence, flows, ask };
    }
    let broken: Vec<&FlowAnswer> = flows.iter().filter(|it| it.verdict == Verdict::Broken).collect();
    let unknown = flows.iter().find(|it| it.verdict == Verdict::Unknown);
    let first = broken.first().copied().or(unknown).unwrap_or(&flows[0]);
    let mut sentence = first.sentence.clone();
    if !broken.is_empty() && broken.len() < flows.len() {
        let (few, all) = (broken.len(), flows.len());
        sentence = match question.destination.kind {
            EndKind::Service => {
                format!("{few} of {all} endpoints of {}: {sentence}", question.destination.name)
            }
            _ => format!("by {}: {sentence}", if first.flow.source.is_ipv4() { "IPv4" } else { "IPv6" }),
        };
    }
    Answer { verdict: first.verdict, sentence, remedy: first.remedy.clone(), flows, ask }
}

/// Why there is no flow to speak of.
fn without_flow(question: &Question) -> (Verdict, Step) {
    let (source, destination) = (&question.source, &question.destination);
    if destination.kind == EndKind::Service && !question.endpoints.iter().any(|it| it.ready) {
        let found = match question.endpoints.len() {
            0 => "has no endpoints".to_owned(),
            count => format!("has {count} endpoints, and none of them is ready"),
        };
        let sentence = format!("{} does not reach Service {}: it {found}", source.name, destination.name);
        let remedy = "compare the Service's selector with the pods' labels (kubectl get pods --show-labels), and see whether \
                      their readiness probes succeed";
        return (Verdict::Broken, Step::broken(Kind::Endpoints, sentence, remedy));
    }
    let show = |end: &End| {
        let addresses: Vec<String> = end.addresses.iter().map(ToString::to_string).collect();
        format!(
            "{} has {}",
            end.name,
            if addresses.is_empty() { "none".into() } else { addresses.join(", ") }
        )
    };
    let sentence =
        format!("the two have no addresses of the same family: {}; {}", show(source), show(destination));
    let remedy = "give both an address of one family";
    (Verdict::Broken, Step::broken(Kind::SourceAddress, sentence, remedy))
}

fn join_flow(question: &Question, flow: Flow, halves: &[Half]) -> FlowAnswer {
    let of = |role| halves.iter().find(|it| it.flow == flow && it.role == role);
    let (source, destination) = (of(Role::Source), of(Role::Destination));
    let end = question.destination_of(&flow);
    let mut steps = Vec::new();
    let mut take = |half: Option<&Half>, direction: Direction| {
        let Some(half) = half else { return };
        // What the destination's policies say is for its own node to say.
        let is_hearsay = |step: &Step| {
            half.role == Role::Source && step.kind == Kind::IngressPolicy && destination.is_some()
                || half.role == Role::Destination && step.kind == Kind::EgressPolicy && source.is_some()
        };
        let of_direction = half.steps.iter().filter(|it| it.direction == direction && !is_hearsay(it));
        steps.extend(of_direction.map(|step| PlacedStep { node: half.node.clone(), step: step.clone() }));
    };
    take(source, Direction::Forth);
    take(destination, Direction::Forth);
    take(destination, Direction::Back);
    take(source, Direction::Back);
    steps.extend(source.zip(destination).and_then(|(from, to)| compare_sizes(question, from, to)));
    steps.extend(missing(&question.source, source, destination).map(placed_nowhere));
    steps.extend(missing(&end, destination, source).map(placed_nowhere));
    let door = question.door(&flow);
    let whom = if end.kind == EndKind::Address { door } else { format!("{} ({door})", end.name) };
    let asker = &question.source.name;
    let broken = steps.iter().find(|it| it.step.state == State::Broken);
    let unknown: Vec<String> = steps
        .iter()
        .filter(|it| it.step.state == State::Unknown)
        .map(PlacedStep::place_and_sentence)
        .collect();
    let (verdict, sentence) = match broken {
        Some(it) => (Verdict::Broken, format!("{asker} does not reach {whom}: {}", it.place_and_sentence())),
        None if unknown.is_empty() => {
            (Verdict::Works, format!("{asker} reaches {whom}: nothing on the way is broken"))
        }
        None => (
            Verdict::Unknown,
            format!(
                "{asker} to {whom}: nothing that could be looked at is broken; not known: {}",
                unknown.join("; ")
            ),
        ),
    };
    let remedy = broken.and_then(|it| it.step.remedy.clone());
    FlowAnswer { flow, verdict, sentence, remedy, steps }
}

impl PlacedStep {
    fn place_and_sentence(&self) -> String {
        match self.node.as_str() {
            "" => self.step.sentence.clone(),
            node => format!("{node}: {}", self.step.sentence),
        }
    }
}

fn placed_nowhere(step: Step) -> PlacedStep {
    PlacedStep { node: String::new(), step }
}

/// An end whose node has said nothing, though there is one; `half` is what it said, `other` what the other node said.
fn missing(end: &End, half: Option<&Half>, other: Option<&Half>) -> Option<Step> {
    if half.is_some() {
        return None;
    }
    if !end.is_of_a_node() {
        // What the node of the other end sees of it is all there is.
        let is_told = other.is_some_and(|it| it.steps.iter().any(|step| step.kind == Kind::Beyond));
        return (!is_told).then(|| Step::unknown(Kind::Beyond, format!("nothing is known of {}", end.name)));
    }
    let told = other.and_then(|it| it.other.as_ref());
    let node = match (&end.node, told) {
        (Some(node), _) => node.name.clone(),
        (None, Some(Other { node: Some(node), .. })) => node.clone(),
        (None, Some(Other { address: Some(address), .. })) => format!("the node with address {address}"),
        (None, _) => format!("the node of {}", end.name),
    };
    Some(Step::unknown(Kind::Node, format!("{node} has not been asked")).fact("node", node))
}

/// The nodes that have not been asked, each once.
fn unasked(question: &Question, flows: &[FlowAnswer], halves: &[Half]) -> Vec<Other> {
    let mut ask: Vec<Other> = Vec::new();
    for answer in flows {
        let flow = &answer.flow;
        for (role, end) in
            [(Role::Source, question.source.clone()), (Role::Destination, question.destination_of(flow))]
        {
            let is_asked = halves.iter().any(|it| it.flow == *flow && it.role == role);
            if is_asked || !end.is_of_a_node() {
                continue;
            }
            let told = halves.iter().filter(|it| it.flow == *flow).find_map(|it| it.other.clone());
            let of_end = end
                .node
                .map(|node| Other { node: Some(node.name), address: node.addresses.first().copied() });
            let other = of_end.or(told).unwrap_or(Other { node: None, address: None });
            let is_known = |it: &Other| it.node.is_some() && it.node == other.node || *it == other;
            if !ask.iter().any(is_known) {
                ask.push(other);
            }
        }
    }
    ask
}

/// Whether one node sends what the other one's link does not take. Nobody tells a sender of that.
fn compare_sizes(question: &Question, from: &Half, to: &Half) -> Option<PlacedStep> {
    let size = |sender: &Half, receiver: &Half| {
        // With TCP both ends say what they take.
        let said = receiver.pod_mtu.filter(|_| question.protocol == Protocol::Tcp);
        let sent = [sender.pod_mtu, sender.link_mtu, said].into_iter().flatten().min()?;
        sender.link_mtu.zip(receiver.link_mtu).and_then(|(_, takes)| (sent > takes).then_some((sent, takes)))
    };
    let (sender, receiver, (sent, takes)) = match (size(from, to), size(to, from)) {
        (Some(found), _) => (from, to, found),
        (None, Some(found)) => (to, from, found),
        (None, None) => return None,
    };
    let sentence = format!(
        "its link takes packets of {takes} bytes, and {} sends up to {sent}: small packets pass, large ones are dropped \
         without a word",
        sender.node
    );
    let remedy = format!(
        "give the links between both nodes one MTU; or set mtu in the conf (FERRULE_MTU of the agent) to {takes} at most, \
         and delete the pods, so that they are created again"
    );
    let step = Step::broken(Kind::Mtu, sentence, remedy).fact("sent", sent).fact("taken", takes);
    Some(PlacedStep { node: receiver.node.clone(), step })
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::connectivity::question::{Endpoint, NodeRef};

    pub fn end(name: &str, kind: EndKind, address: &str, node: Option<&str>) -> End {
        let node = node.map(|name| NodeRef { name: name.into(), addresses: vec![] });
        End { name: name.into(), kind, addresses: vec![address.parse().unwrap()], node }
    }

    pub fn question() -> Question {
        Question {
            source: end("shop/client", EndKind::Pod, "10.244.1.2", Some("node-1")),
            destination: end("shop/web", EndKind::Pod, "10.244.2.7", Some("node-2")),
            protocol: Protocol::Tcp,
            port: 8080,
            endpoints: vec![],
        }
    }

    fn half(role: Role, steps: Vec<Step>) -> Half {
        let node = if role == Role::Source { "node-1" } else { "node-2" };
        let flow = question().flows()[0];
        Half { node: node.into(), role, flow, steps, link_mtu: Some(1500), pod_mtu: Some(1500), other: None }
    }

    #[test]
    fn the_first_that_is_broken_on_the_way_is_the_reason() {
        let source = half(
            Role::Source,
            vec![
                Step::ok(Kind::Route, "there is a route"),
                Step::broken(Kind::Firewall, "the answers are dropped", "let them pass").back(),
            ],
        );
        let destination = half(
            Role::Destination,
            vec![
                Step::broken(Kind::Route, "no route back", "make one").back(),
                Step::broken(Kind::Firewall, "table inet firewalld drops it", "configure it"),
            ],
        );
        let answer = join(&question(), &[destination.clone(), source.clone()]);
        assert_eq!(answer.verdict, Verdict::Broken);
        assert_eq!(
            answer.sentence,
            "shop/client does not reach shop/web (10.244.2.7:8080): node-2: table inet firewalld drops it"
        );
        assert_eq!(answer.remedy.as_deref(), Some("configure it"));
        assert_eq!(answer, join(&question(), &[source, destination]));
        let kinds: Vec<Kind> = answer.flows[0].steps.iter().map(|it| it.step.kind).collect();
        assert_eq!(kinds, [Kind::Route, Kind::Firewall, Kind::Route, Kind::Firewall]);
    }

    #[test]
    fn it_works_only_if_both_nodes_know_of_nothing() {
        let (source, destination) = (half(Role::Source, vec![]), half(Role::Destination, vec![]));
        let answer = join(&question(), &[source.clone(), destination.clone()]);
        assert_eq!((answer.verdict, answer.ask.len()), (Verdict::Works, 0), "{answer:?}");
        let answer = join(&question(), std::slice::from_ref(&source));
        assert_eq!(answer.verdict, Verdict::Unknown);
        assert!(answer.sentence.ends_with("not known: node-2 has not been asked"), "{}", answer.sentence);
        assert_eq!(answer.ask, [Other { node: Some("node-2".into()), address: None }]);
        let blind = half(Role::Destination, vec![Step::unknown(Kind::Listener, "whether somebody listens")]);
        let answer = join(&question(), &[source, blind]);
        assert_eq!(answer.verdict, Verdict::Unknown);
        assert!(
            answer.sentence.ends_with("not known: node-2: whether somebody listens"),
            "{}",
            answer.sentence
        );
    }

    /// A node that knows no names knows whom it sends to.
    #[test]
    fn a_node_that_is_to_be_asked_is_named_as_well_as_can_be() {
        let mut asked = question();
        asked.destination.node = None;
        let mut source = half(Role::Source, vec![]);
        let other = Other { node: None, address: Some("192.168.1.12".parse().unwrap()) };
        source.other = Some(other.clone());
        let answer = join(&asked, &[source]);
        assert!(
            answer.sentence.contains("the node with address 192.168.1.12 has not been asked"),
            "{answer:?}"
        );
        assert_eq!(answer.ask, [other]);
    }

    #[test]
    fn what_one_node_says_of_the_other_ones_policies_gives_way() {
        let stale = Step::broken(Kind::IngressPolicy, "as was known then", "wait");
        let source = half(Role::Source, vec![stale]);
        assert_eq!(join(&question(), std::slice::from_ref(&source)).verdict, Verdict::Broken);
        let destination = half(Role::Destination, vec![Step::ok(Kind::IngressPolicy, "allowed")]);
        assert_eq!(join(&question(), &[source, destination]).verdict, Verdict::Works);
    }

    #[test]
    fn a_link_that_takes_less_than_is_sent_is_found_in_both_directions() {
        for (from, to, protocol, broken) in [
            ((1500, 1500), (1500, 1300), Protocol::Udp, Some("node-2")),
            ((1500, 1300), (1500, 1500), Protocol::Udp, Some("node-1")),
            ((1500, 9000), (1500, 1500), Protocol::Udp, None),
            // Both pods say in TCP that they take 1300.
            ((1300, 1500), (1300, 1300), Protocol::Udp, None),
            ((1500, 1500), (1300, 1300), Protocol::Tcp, None),
            ((1500, 1500), (1300, 1300), Protocol::Udp, Some("node-2")),
        ] {
            let mut asked = question();
            asked.protocol = protocol;
            let sized = |role, (pod, link)| Half {
                pod_mtu: Some(pod),
                link_mtu: Some(link),
                flow: asked.flows()[0],
                ..half(role, vec![])
            };
            let answer = join(&asked, &[sized(Role::Source, from), sized(Role::Destination, to)]);
            let found = answer.flows[0].steps.iter().find(|it| it.step.kind == Kind::Mtu);
            assert_eq!(found.map(|it| it.node.as_str()), broken, "{from:?} {to:?}");
        }
    }

    #[test]
    fn a_service_is_reached_by_all_of_its_endpoints() {
        let mut asked = question();
        asked.destination = end("shop/web", EndKind::Service, "10.96.0.9", None);
        let answer = join(&asked, &[]);
        assert_eq!(answer.verdict, Verdict::Broken);
        assert_eq!(answer.sentence, "shop/client does not reach Service shop/web: it has no endpoints");
        let endpoint = |address: &str| Endpoint {
            address: address.parse().unwrap(),
            port: 8080,
            ready: true,
            pod: Some(format!("shop/{address}")),
            node: Some(NodeRef { name: "node-2".into(), addresses: vec![] }),
        };
        asked.endpoints = vec![endpoint("10.244.2.7"), endpoint("10.244.2.8")];
        let halves = |steps: Vec<Step>| {
            let flows = asked.flows();
            let of = |flow, role, steps| Half { flow, ..half(role, steps) };
            [
                of(flows[0], Role::Source, vec![]),
                of(flows[0], Role::Destination, vec![]),
                of(flows[1], Role::Source, vec![]),
                of(flows[1], Role::Destination, steps),
            ]
        };
        assert_eq!(join(&asked, &halves(vec![])).verdict, Verdict::Works);
        let answer = join(&asked, &halves(vec![Step::broken(Kind::Listener, "nobody listens", "start it")]));
        assert_eq!(
            answer.sentence,
            "1 of 2 endpoints of shop/web: shop/client does not reach shop/10.244.2.8 (10.244.2.8:8080): node-2: nobody \
             listens"
        );
        asked.endpoints.iter_mut().for_each(|it| it.ready = false);
        assert!(join(&asked, &[]).sentence.ends_with("it has 2 endpoints, and none of them is ready"));
    }

    #[test]
    fn two_without_a_common_family_have_no_connection() {
        let mut asked = question();
        asked.destination.addresses = vec!["fd00:2::7".parse().unwrap()];
        let answer = join(&asked, &[]);
        assert_eq!((answer.verdict, answer.flows.len()), (Verdict::Broken, 0));
        assert!(answer.sentence.contains("shop/client has 10.244.1.2; shop/web has fd00:2::7"), "{answer:?}");
    }

    #[test]
    fn of_two_families_the_broken_one_is_named() {
        let mut asked = question();
        asked.source.addresses.push("fd00:1::2".parse().unwrap());
        asked.destination.addresses.push("fd00:2::7".parse().unwrap());
        let flows = asked.flows();
        let of = |flow, role, steps| Half { flow, ..half(role, steps) };
        let halves = [
            of(flows[0], Role::Source, vec![]),
            of(flows[0], Role::Destination, vec![]),
            of(flows[1], Role::Source, vec![Step::broken(Kind::Route, "no route", "make one")]),
            of(flows[1], Role::Destination, vec![]),
        ];
        let answer = join(&asked, &halves);
        assert!(answer.sentence.starts_with("by IPv6: shop/client does not reach"), "{}", answer.sentence);
    }

    /// A pod that speaks to the world: its own node says how far that can be seen.
    #[test]
    fn an_address_outside_needs_one_node_only() {
        let mut asked = question();
        asked.destination = end("192.0.2.1", EndKind::Address, "192.0.2.1", None);
        let flow = asked.flows()[0];
        let beyond = Step::unknown(Kind::Beyond, "what becomes of it beyond 10.0.0.1 cannot be seen");
        let answer = join(&asked, &[Half { flow, ..half(Role::Source, vec![beyond]) }]);
        assert_eq!((answer.verdict, answer.ask.len()), (Verdict::Unknown, 0));
        assert_eq!(answer.flows[0].steps.len(), 1);
        assert!(answer.sentence.starts_with("shop/client to 192.0.2.1:8080: nothing"), "{}", answer.sentence);
    }
}
