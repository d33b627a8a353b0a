//! Single cases: what the specification says in one sentence each, and the field's known pains.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::cluster::{list, object_name};
use crate::policy::evaluate::*;
use crate::policy::names::{TCP, UDP};
use crate::policy::object::*;
use crate::policy::plan::*;
use crate::policy::planner::{Planner, What};

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn policy(name: &str, spec: Value) -> Policy {
    Policy { name: object_name("shop", name), spec: serde_json::from_value(spec).unwrap() }
}

fn pod(name: &str, at: &str, app: &str) -> Pod {
    let pod = json!({"namespace": "shop", "name": name, "uid": name, "labels": {"app": app}});
    let pod: Pod = serde_json::from_value(pod).unwrap();
    Pod { addresses: (!at.is_empty()).then(|| address(at)).into_iter().collect(), ..pod }
}

fn port(name: &str, protocol: u8, port: u16) -> NamedPort {
    NamedPort { name: name.into(), protocol, port }
}

/// A planner of a node with a web server, in a cluster with a client and a database elsewhere.
fn planner(policies: Vec<Policy>) -> Planner {
    let mut planner = Planner::new();
    let namespaces = ["shop", "dev"].map(|name| Namespace {
        name: name.into(),
        labels: [("kubernetes.io/metadata.name".to_owned(), name.to_owned())].into(),
    });
    let web = Pod { ports: vec![port("http", TCP, 8080)], ..pod("web", "10.0.0.1", "web") };
    let db = Pod { ports: vec![port("sql", TCP, 5432)], ..pod("db", "10.0.1.2", "db") };
    list(&mut planner, Event::Namespace, namespaces.to_vec());
    list(&mut planner, Event::Policy, policies);
    list(&mut planner, Event::OwnPod, vec![web.clone()]);
    list(&mut planner, Event::AnyPod, vec![web, pod("client", "10.0.1.1", "client"), db]);
    planner
}

/// From and to which of those, by TCP.
fn flow(source: &str, destination: &str, port: u16) -> Flow {
    Flow { source: address(source), destination: address(destination), protocol: TCP, port }
}

const WEB: &str = "10.0.0.1";
const CLIENT: &str = "10.0.1.1";
const DB: &str = "10.0.1.2";

fn change(planner: &mut Planner, pod: Pod) {
    planner.apply(Event::AnyPod(Feed::Changed(pod)));
}

fn gone(planner: &mut Planner, name: &str) {
    planner.apply(Event::AnyPod(Feed::Gone(object_name("shop", name))));
}

/// One peer: the pods of the policy's namespace with this label.
fn app(app: &str) -> Value {
    json!([{"podSelector": {"matchLabels": {"app": app}}}])
}

fn from_app(app: &str) -> Value {
    json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": app}}}]}]})
}

#[test]
fn without_a_policy_there_is_nothing() {
    let mut planner = planner(vec![]);
    assert!(planner.is_complete() && !planner.needs_any_pods());
    assert_eq!(planner.plan(), &Plan::default());
    planner.apply(Event::Policy(Feed::Changed(policy("p", json!({"podSelector": {}})))));
    assert_ne!(planner.plan(), &Plan::default());
    planner.apply(Event::Policy(Feed::Gone(object_name("shop", "p"))));
    assert_eq!(planner.plan(), &Plan::default());
}

/// The plan of before stands until the pods that the first policy speaks of are known.
#[test]
fn the_first_policy_waits_for_the_pods_of_all_nodes() {
    let mut planner = planner(vec![]);
    planner.forget_any_pods();
    assert!(planner.is_complete());
    planner.take_touched();
    planner.apply(Event::Policy(Feed::Changed(policy("p", from_app("client")))));
    assert!(!planner.is_complete() && planner.needs_any_pods());
    assert_eq!(planner.take_touched(), Touched::default());
    assert_eq!(planner.plan(), &Plan::default());
    list(&mut planner, Event::AnyPod, vec![pod("client", CLIENT, "client")]);
    assert!(planner.is_complete() && planner.take_touched().all);
    assert!(planner.judge(&flow(CLIENT, WEB, 80)).allowed() && !planner.judge(&flow(DB, WEB, 80)).allowed());
}

#[test]
fn types_that_are_missing_follow_from_the_rules() {
    let has = |spec: Value| {
        let planner = planner(vec![policy("p", spec)]);
        let pod = planner.plan().pods["web"].clone();
        [pod.ingress, pod.egress].map(|it| it != Isolation::None)
    };
    assert_eq!(has(json!({"podSelector": {}})), [true, false]);
    assert_eq!(has(json!({"podSelector": {}, "policyTypes": []})), [true, false]);
    assert_eq!(has(json!({"podSelector": {}, "egress": []})), [true, false]);
    assert_eq!(has(json!({"podSelector": {}, "egress": [{}]})), [true, true]);
    assert_eq!(has(json!({"podSelector": {}, "policyTypes": ["Egress"]})), [false, true]);
    assert_eq!(has(json!({"podSelector": {}, "policyTypes": ["Egress"], "ingress": [{}]})), [false, true]);
    assert_eq!(has(json!({"podSelector": {}, "policyTypes": ["Ingress"], "egress": [{}]})), [true, false]);
}

#[test]
fn from_may_be_missing_or_empty_or_all_pods() {
    let outside = "192.0.2.1";
    for (rule, client, world) in [
        (json!({}), true, true),
        (json!({"from": []}), true, true),
        (json!({"from": [], "ports": []}), true, true),
        (json!({"from": [{"podSelector": {}}]}), true, false),
        (json!({"from": [{"namespaceSelector": {}}]}), true, false),
        (json!({"from": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}), false, true),
    ] {
        let planner = planner(vec![policy("p", json!({"podSelector": {}, "ingress": [rule]}))]);
        assert_eq!(planner.judge(&flow(CLIENT, WEB, 80)).allowed(), client, "{rule}");
        assert_eq!(planner.judge(&flow(outside, WEB, 80)).allowed(), world, "{rule}");
    }
}

#[test]
fn a_named_port_is_that_of_the_pod_that_is_meant() {
    let spec = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"ports": [{"port": "http"}]}],
        "egress": [{"to": [{"ipBlock": {"cidr": "10.0.1.2/31"}}], "ports": [{"port": "sql"}, {"port": "http"}]}]});
    let mut planner = planner(vec![policy("p", spec)]);
    let allows = |planner: &Planner, from, to, port| planner.judge(&flow(from, to, port)).allowed();
    assert!(allows(&planner, CLIENT, WEB, 8080) && !allows(&planner, CLIENT, WEB, 80));
    assert!(allows(&planner, WEB, DB, 5432) && !allows(&planner, WEB, DB, 8080));
    assert!(!allows(&planner, WEB, "10.0.1.3", 5432));
    // Another pod of the same name for the port has another number, and another chain.
    let before = planner.plan().pods["web"].ingress.clone();
    let web = Pod { ports: vec![port("http", TCP, 9090)], ..pod("web", WEB, "web") };
    planner.apply(Event::OwnPod(Feed::Changed(web.clone())));
    assert!(allows(&planner, CLIENT, WEB, 9090) && !allows(&planner, CLIENT, WEB, 8080));
    assert_ne!(planner.plan().pods["web"].ingress, before);
    // The protocol belongs to it.
    planner.apply(Event::OwnPod(Feed::Changed(Pod { ports: vec![port("http", UDP, 9090)], ..web })));
    assert!(!allows(&planner, CLIENT, WEB, 9090));
}

#[test]
fn an_address_is_where_its_pods_are() {
    let mut planner = planner(vec![policy("p", from_app("client"))]);
    let sees = |planner: &Planner| planner.judge(&flow(CLIENT, WEB, 80)).allowed();
    let set = |planner: &Planner| planner.plan().sets.values().cloned().collect::<Vec<_>>();
    assert!(sees(&planner));
    let first = set(&planner);
    // The next owner comes before the one of now is gone; either order leaves what is true.
    planner.take_touched();
    change(&mut planner, pod("next", CLIENT, "client"));
    assert_eq!(planner.take_touched(), Touched::default());
    gone(&mut planner, "client");
    assert_eq!((set(&planner), sees(&planner)), (first.clone(), true));
    change(&mut planner, pod("other", CLIENT, "db"));
    assert!(sees(&planner));
    gone(&mut planner, "next");
    assert!(!sees(&planner));
    let moved: Vec<_> = planner.take_touched().moved.into_values().flatten().collect();
    assert_eq!(moved, [address(CLIENT)]);
    assert_ne!(set(&planner), first);
    change(&mut planner, pod("other", CLIENT, "client"));
    assert!(sees(&planner));
    gone(&mut planner, "other");
    change(&mut planner, pod("late", CLIENT, "db"));
    assert!(!sees(&planner));
    // Twice gone is gone.
    gone(&mut planner, "other");
    gone(&mut planner, "late");
    assert!(!sees(&planner));
}

#[test]
fn pods_without_address_or_in_the_nodes_network_are_no_peers() {
    let mut planner = planner(vec![policy("p", from_app("client"))]);
    change(&mut planner, Pod { host_network: true, ..pod("client", CLIENT, "client") });
    assert!(!planner.judge(&flow(CLIENT, WEB, 80)).allowed());
    change(&mut planner, pod("client", CLIENT, "client"));
    change(&mut planner, pod("client", "", "client"));
    assert!(!planner.judge(&flow(CLIENT, WEB, 80)).allowed());
    // A pod of this node in the node's network is not isolated either.
    let web = Pod { host_network: true, ..pod("web", WEB, "web") };
    planner.apply(Event::OwnPod(Feed::Changed(web)));
    assert!(planner.plan().pods.is_empty());
    assert_eq!(planner.judge(&flow(CLIENT, WEB, 80)).ingress, Verdict::NotOfThisNode);
}

#[test]
fn own_addresses_count_before_the_api_has_them() {
    let mut planner = planner(vec![policy("p", from_app("client"))]);
    planner.set_own_addresses("new", &[address("10.0.0.9")]);
    assert!(!planner.judge(&flow("10.0.0.9", WEB, 80)).allowed());
    planner.apply(Event::OwnPod(Feed::Changed(pod("new", "", "client"))));
    assert!(planner.judge(&flow("10.0.0.9", WEB, 80)).allowed());
    // Without a record any more it has no address, whatever the API still says.
    planner.apply(Event::OwnPod(Feed::Changed(pod("new", "10.0.0.9", "client"))));
    planner.set_own_addresses("new", &[]);
    assert!(!planner.judge(&flow("10.0.0.9", WEB, 80)).allowed());
    planner.apply(Event::OwnPod(Feed::Gone(object_name("shop", "new"))));
    planner.apply(Event::OwnPod(Feed::Changed(pod("new", "10.0.0.9", "client"))));
    assert!(planner.judge(&flow("10.0.0.9", WEB, 80)).allowed());
}

#[test]
fn nothing_goes_before_a_list_ends() {
    let mut planner = planner(vec![policy("p", from_app("client")), policy("q", from_app("db"))]);
    let before = planner.plan().clone();
    planner.apply(Event::AnyPod(Feed::ListBegins));
    planner.apply(Event::Policy(Feed::ListBegins));
    planner.apply(Event::OwnPod(Feed::ListBegins));
    planner.apply(Event::Namespace(Feed::ListBegins));
    planner.apply(Event::AnyPod(Feed::Listed(pod("client", CLIENT, "client"))));
    planner.apply(Event::Policy(Feed::Listed(policy("p", from_app("client")))));
    assert_eq!(planner.plan(), &before);
    planner.apply(Event::AnyPod(Feed::ListEnds));
    assert!(!planner.judge(&flow(DB, WEB, 80)).allowed());
    planner.apply(Event::Policy(Feed::ListEnds));
    assert_eq!(planner.plan().chains.len(), 1);
    assert!(planner.plan().pods.contains_key("web"));
    planner.apply(Event::OwnPod(Feed::ListEnds));
    assert!(planner.plan().pods.is_empty());
}

#[test]
fn what_cannot_be_compiled_closes_its_pods_alone() {
    let bad = json!({"podSelector": {"matchLabels": {"app": "web"}},
        "ingress": [{}, {"from": [{}, {"ipBlock": {"cidr": "10.0.0.0/40"}}]}]});
    let mut planner = planner(vec![policy("bad", bad), policy("good", from_app("client"))]);
    planner.apply(Event::OwnPod(Feed::Changed(pod("other", "10.0.0.2", "other"))));
    let plan = planner.plan();
    assert_eq!(plan.pods["web"].ingress, Isolation::Closed);
    assert_eq!(plan.pods["web"].egress, Isolation::None);
    assert!(matches!(plan.pods["other"].ingress, Isolation::Rules(_)));
    assert!(matches!(plan.holds["shop"].ingress, Isolation::Rules(_)));
    let judgement = planner.judge(&flow(CLIENT, WEB, 80));
    let Verdict::Denied(refusals) = &judgement.ingress else { panic!("{judgement:?}") };
    assert_eq!(refusals[0].policy.name, "bad");
    assert!(refusals[0].invalid.as_ref().unwrap().starts_with("spec.ingress[1].from[0]: "));
    let problems = planner.problems();
    let What::Invalid(invalid) = &problems[0].what else { panic!("{problems:?}") };
    assert_eq!((problems.len(), invalid.field.as_str()), (1, "spec.ingress[1].from[0]"));
}

#[test]
fn an_invalid_field_is_named() {
    let peers = |peer: Value| json!({"podSelector": {}, "egress": [{}, {"to": [{"podSelector": {}}, peer]}]});
    let ports = |port: Value| json!({"podSelector": {}, "ingress": [{"ports": [port]}]});
    let operator = json!({"matchExpressions": [{"key": "a", "operator": "Is"}]});
    for (spec, field) in [
        (json!({"podSelector": operator}), "podSelector.matchExpressions[0].operator"),
        (json!({"podSelector": {}, "policyTypes": ["Ingress", "Both"]}), "policyTypes[1]"),
        (peers(json!({"podSelector": operator})), "egress[1].to[1].podSelector.matchExpressions[0].operator"),
        (
            peers(json!({"namespaceSelector": operator, "podSelector": {}})),
            "egress[1].to[1].namespaceSelector.matchExpressions[0].operator",
        ),
        (peers(json!({"ipBlock": {"cidr": "x"}, "podSelector": {}})), "egress[1].to[1]"),
        (
            peers(json!({"ipBlock": {"cidr": "::/0", "except": ["::/0"]}})),
            "egress[1].to[1].ipBlock.except[0]",
        ),
        (peers(json!({})), "egress[1].to[1]"),
        (ports(json!({"protocol": "ICMP"})), "ingress[0].ports[0].protocol"),
        (ports(json!({"port": 0})), "ingress[0].ports[0].port"),
        (ports(json!({"port": 65536})), "ingress[0].ports[0].port"),
        (ports(json!({"port": "no_name"})), "ingress[0].ports[0].port"),
        (ports(json!({"port": "80"})), "ingress[0].ports[0].port"),
        (ports(json!({"port": 80, "endPort": 79})), "ingress[0].ports[0].endPort"),
        (ports(json!({"port": 80, "endPort": 65536})), "ingress[0].ports[0].endPort"),
        (ports(json!({"port": "http", "endPort": 80})), "ingress[0].ports[0].endPort"),
        (ports(json!({"endPort": 80})), "ingress[0].ports[0].endPort"),
    ] {
        let planner = planner(vec![policy("p", spec.clone())]);
        let problems = planner.problems();
        let What::Invalid(invalid) = &problems[0].what else { panic!("{problems:?}") };
        assert_eq!(invalid.field, format!("spec.{field}"), "{spec}");
        let pod = &planner.plan().pods["web"];
        assert!(pod.ingress == Isolation::Closed || pod.egress == Isolation::Closed);
    }
}

/// Nested ranges with a peer each: the author of a few kilobytes must not keep the agent busy.
#[test]
fn what_is_too_large_closes_its_pods_and_is_named() {
    let nested = |count: usize| {
        let peer = |n: usize| json!({"podSelector": {"matchLabels": {"n": n.to_string()}}});
        let rule = |n: usize| json!({"from": [peer(n)], "ports": [{"port": 1 + 3 * n, "endPort": 60_000}]});
        json!({"podSelector": {}, "ingress": (0..count).map(rule).collect::<Vec<_>>()})
    };
    let mut planner = planner(vec![policy("nested", nested(100))]);
    assert!(matches!(planner.plan().pods["web"].ingress, Isolation::Rules(_)));
    // Two that are small by themselves add up.
    planner.apply(Event::Policy(Feed::Changed(policy("more", nested(1_000)))));
    let plan = planner.plan();
    assert_eq!(
        (&plan.pods["web"].ingress, &plan.holds["shop"].ingress),
        (&Isolation::Closed, &Isolation::Closed)
    );
    let Verdict::Denied(refusals) = planner.judge(&flow(CLIENT, WEB, 80)).ingress else { panic!() };
    assert!(refusals.iter().all(|it| it.invalid.as_ref().is_some_and(|why| why.starts_with("spec.ingress"))));
    let named: Vec<String> = planner.problems().into_iter().map(|it| it.policy.name).collect();
    assert_eq!(named, ["more", "nested"]);
    planner.apply(Event::Policy(Feed::Gone(refusals[0].policy.clone())));
    assert!(matches!(planner.plan().pods["web"].ingress, Isolation::Rules(_)));
    assert_eq!(planner.problems(), []);
}

#[test]
fn a_policy_that_selects_nobody_is_named() {
    let spec = |app: &str| json!({"podSelector": {"matchLabels": {"app": app}}});
    let planner = planner(vec![policy("some", spec("db")), policy("nobody", spec("nobody"))]);
    let problems = planner.problems();
    assert_eq!(problems.len(), 1);
    assert_eq!((problems[0].policy.name.as_str(), &problems[0].what), ("nobody", &What::SelectsNobody));
}

/// What of a chain of policies would lead to as many look-ups.
#[test]
fn more_than_eight_peer_sets_at_a_port_are_one() {
    let rule = |n: usize| json!({"from": app(&format!("a{n}")), "ports": [{"port": 80}]});
    let spec = |n: usize| json!({"podSelector": {}, "ingress": (0..n).map(rule).collect::<Vec<_>>()});
    for (n, sets) in [(8, 8), (9, 1), (300, 1)] {
        let mut planner = planner(vec![policy("p", spec(n))]);
        change(&mut planner, pod("last", "10.0.1.9", &format!("a{}", n - 1)));
        let chain = planner.plan().chains.values().next().unwrap();
        assert_eq!((chain.ports.len(), chain.ports[0].rules.len()), (1, sets));
        assert!(planner.judge(&flow("10.0.1.9", WEB, 80)).allowed());
        let isolation = &planner.plan().pods["web"].ingress;
        assert!(planner.plan().walk(isolation, address("10.0.1.9"), TCP, 80).allowed());
        assert!(chain.ports[0].rules[0].comment.len() < 128, "{}", chain.ports[0].rules[0].comment);
    }
}

#[test]
fn ranges_that_overlap_are_cut() {
    let rule = |from: &str, first: u16, last: u16| json!({"from": app(from), "ports": [{"port": first, "endPort": last}]});
    let rules = [rule("a", 80, 90), rule("b", 85, 95), rule("a", 65535, 65535), rule("b", 1, 79)];
    let planner = planner(vec![policy("p", json!({"podSelector": {}, "ingress": rules}))]);
    let chain = planner.plan().chains.values().next().unwrap();
    let segments: Vec<_> = chain.ports.iter().map(|it| (it.first, it.last, it.rules.len())).collect();
    assert_eq!(segments, [(1, 79, 1), (80, 84, 1), (85, 90, 2), (91, 95, 1), (65535, 65535, 1)]);
}

/// Each piece is looked at with the rules around it, and not with the ranges around it, which are thousands.
#[test]
fn ranges_of_one_rule_are_one_range_however_many_they_are() {
    let ranges: Vec<_> = (1..9_000).map(|n| json!({"port": n, "endPort": 65_535 - n})).collect();
    let spec = json!({"podSelector": {}, "ingress": [{"from": app("client"), "ports": ranges}]});
    let planner = planner(vec![policy("p", spec)]);
    let chain = planner.plan().chains.values().next().unwrap();
    let segments: Vec<_> = chain.ports.iter().map(|it| (it.first, it.last, it.rules.len())).collect();
    assert_eq!(segments, [(1, 65_534, 1)]);
}

#[test]
fn rules_share_the_set_of_the_same_selectors() {
    let spec = |port: u16| {
        json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {"matchExpressions": [
            {"key": "app", "operator": "In", "values": ["client"]}]}}], "ports": [{"port": port}]}]})
    };
    let planner =
        planner(vec![policy("p", spec(80)), policy("q", spec(81)), policy("r", from_app("client"))]);
    let names: Vec<&String> = planner.plan().sets.keys().collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[test]
fn a_hold_allows_what_is_certain() {
    let dns = json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"ports": [{"port": 53}]}]});
    let named = json!({"podSelector": {}, "ingress": [{"ports": [{"port": "http"}]}]});
    let some = json!({"podSelector": {"matchLabels": {"app": "web"}}, "egress": [{}]});
    let planner = planner(vec![policy("dns", dns), policy("named", named), policy("some", some)]);
    let hold = &planner.plan().holds["shop"];
    let walk = |isolation, port| planner.plan().walk(isolation, address(DB), TCP, port).allowed();
    assert!(walk(&hold.egress, 53) && !walk(&hold.egress, 80));
    assert!(!walk(&hold.ingress, 8080));
    assert!(!planner.plan().holds.contains_key("dev"));
    let pod = &planner.plan().pods["web"];
    assert!(walk(&pod.egress, 80) && walk(&pod.ingress, 8080));
}

#[test]
fn a_denial_says_what_the_nearest_rule_lacks() {
    let spec = json!({"podSelector": {}, "ingress": [
        {"from": app("client"), "ports": [{"port": 80}, {"port": 90, "endPort": 99, "protocol": "UDP"}]},
        {"from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "dev"}}}],
         "ports": [{"port": 22}]},
        {"from": [{"ipBlock": {"cidr": "192.0.2.0/24"}}], "ports": [{"port": "http"}]},
    ]});
    let planner = planner(vec![policy("p", spec)]);
    let nearest = |source: &str, port| match planner.judge(&flow(source, WEB, port)).ingress {
        Verdict::Denied(refusals) => refusals[0].nearest.clone().unwrap(),
        other => panic!("{other:?}"),
    };
    let lack = |index, port: Option<&str>, peer| Lack { index, port: port.map(str::to_owned), peer };
    assert_eq!(nearest(CLIENT, 81), lack(0, Some("TCP 80, UDP 90-99"), None));
    assert_eq!(nearest(DB, 80), lack(0, None, Some(PeerLack::Label("app=client".into()))));
    let namespace = PeerLack::Namespace("kubernetes.io/metadata.name=dev".into());
    assert_eq!(nearest(DB, 22), lack(1, None, Some(namespace)));
    assert_eq!(nearest(DB, 8080), lack(2, None, Some(PeerLack::Address)));
    assert_eq!(nearest("203.0.113.1", 80), lack(0, None, Some(PeerLack::NoPod)));
    let allowed = RuleName { policy: object_name("shop", "p"), direction: Direction::Ingress, index: 0 };
    assert_eq!(planner.judge(&flow(CLIENT, WEB, 80)).ingress, Verdict::Allowed(allowed.clone()));
    assert_eq!(allowed.to_string(), "shop/p ingress[0]");
    assert_eq!(planner.judge(&flow(WEB, WEB, 1)).ingress, Verdict::Itself);
    assert_eq!(planner.judge(&flow(WEB, DB, 1)).egress, Verdict::NotIsolated);
}

/// Until its labels are known, a namespace is only one of all.
#[test]
fn an_unknown_namespace_has_no_missing_labels() {
    let spec = json!({"podSelector": {}, "ingress": [{"from": [{"namespaceSelector": {"matchExpressions": [
        {"key": "restricted", "operator": "DoesNotExist"}]}}]}]});
    let mut planner = planner(vec![policy("p", spec)]);
    let mut stranger = pod("stranger", "10.0.1.9", "x");
    stranger.name.namespace = "new".into();
    change(&mut planner, stranger);
    assert!(!planner.judge(&flow("10.0.1.9", WEB, 80)).allowed());
    let new = |labels: &[&str]| Namespace {
        name: "new".into(),
        labels: labels.iter().map(|it| ((*it).to_owned(), String::new())).collect(),
    };
    planner.apply(Event::Namespace(Feed::Changed(new(&[]))));
    assert!(planner.judge(&flow("10.0.1.9", WEB, 80)).allowed());
    planner.apply(Event::Namespace(Feed::Changed(new(&["restricted"]))));
    assert!(!planner.judge(&flow("10.0.1.9", WEB, 80)).allowed());
}
