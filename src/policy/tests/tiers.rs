//! ClusterNetworkPolicies: random ones, and what each tier, action and order means.

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::cluster::{list, object_name, selector};
use crate::policy::cluster::build::too_large;
use crate::policy::cluster::compile::{CompiledCluster, Consequence};
use crate::policy::cluster::object::*;
use crate::policy::evaluate::{Flow, Verdict};
use crate::policy::names::{TCP, UDP};
use crate::policy::object::*;
use crate::policy::plan::{Direction, Isolation, Tier};
use crate::policy::planner::{Planner, What};
use crate::policy::walk::Walked;

fn pods() -> impl Strategy<Value = NamespacedPods> {
    (selector(), selector())
        .prop_map(|(namespace_selector, pod_selector)| NamespacedPods { namespace_selector, pod_selector })
}

fn subject() -> impl Strategy<Value = Subject> {
    prop_oneof![
        selector().prop_map(|it| Subject { namespaces: Some(it), ..Subject::default() }),
        pods().prop_map(|it| Subject { pods: Some(it), ..Subject::default() }),
    ]
}

fn peer(egress: bool) -> impl Strategy<Value = ClusterPeer> {
    let networks = prop::collection::vec(
        select(vec!["0.0.0.0/0", "::/0", "10.0.0.0/29", "10.0.0.4/30", "192.0.2.0/24", "fd00::4/126"]),
        1..3,
    );
    let networks = networks.prop_map(|it| it.into_iter().map(str::to_owned).collect());
    let others = Others::from([("nodes".to_owned(), json!({}))]);
    prop_oneof![
        6 => selector().prop_map(|it| ClusterPeer { namespaces: Some(it), ..ClusterPeer::default() }),
        6 => pods().prop_map(|it| ClusterPeer { pods: Some(it), ..ClusterPeer::default() }),
        6 => (Just(egress), networks, selector()).prop_map(|(egress, networks, other)| if egress {
            ClusterPeer { networks: Some(networks), ..ClusterPeer::default() }
        } else {
            ClusterPeer { namespaces: Some(other), ..ClusterPeer::default() }
        }),
        // Of the experimental channel.
        1 => Just(ClusterPeer { others, ..ClusterPeer::default() }),
    ]
}

fn protocol() -> impl Strategy<Value = Protocol> {
    let port = prop_oneof![
        select(vec![53, 80, 8080]).prop_map(|it| ClusterPort { number: Some(it), ..ClusterPort::default() }),
        (select(vec![1, 53, 79]), select(vec![80, 81, 8080, 65535])).prop_map(|(start, end)| ClusterPort {
            range: Some(ClusterRange { start, end }),
            ..ClusterPort::default()
        }),
    ];
    (0_u8..3, port).prop_map(|(which, port)| {
        let ports = Some(Ports { destination_port: Some(port), others: Others::new() });
        match which {
            0 => Protocol { tcp: ports, ..Protocol::default() },
            1 => Protocol { udp: ports, ..Protocol::default() },
            _ => Protocol { sctp: ports, ..Protocol::default() },
        }
    })
}

fn rules(egress: bool) -> impl Strategy<Value = Vec<ClusterRule>> {
    let protocols = prop_oneof![Just(Vec::new()), prop::collection::vec(protocol(), 1..4)];
    let rule = (select(vec!["Accept", "Deny", "Pass"]), prop::collection::vec(peer(egress), 1..3), protocols);
    let rule = rule.prop_map(|(action, peers, protocols)| ClusterRule {
        action: action.into(),
        peers,
        protocols,
        ..ClusterRule::default()
    });
    prop::collection::vec(rule, 0..4)
}

/// One of three names, tiers and priorities that meet.
pub fn cluster_policy() -> impl Strategy<Value = ClusterPolicy> {
    let tier = select(vec!["Admin", "Baseline"]);
    (0_u8..3, tier, 0_i64..3, subject(), rules(false), rules(true)).prop_map(
        |(n, tier, priority, subject, ingress, egress)| ClusterPolicy {
            name: format!("cnp{n}"),
            spec: Box::new(ClusterSpec { tier: tier.into(), priority, subject, ingress, egress }),
        },
    )
}

const WEB: &str = "10.0.0.1";
const DB: &str = "10.0.0.2";
const CLIENT: &str = "10.0.1.1";

fn read(name: &str, spec: Value) -> ClusterPolicy {
    serde_json::from_value(json!({ "name": name, "spec": spec })).unwrap()
}

/// All pods of `shop`, or all of the cluster.
fn of_shop() -> Value {
    json!({ "namespaces": { "matchLabels": { "name": "shop" } } })
}

fn everybody() -> Value {
    json!([{ "namespaces": {} }])
}

fn pod(namespace: &str, name: &str, address: &str) -> Pod {
    Pod {
        name: object_name(namespace, name),
        uid: name.into(),
        labels: [("app".to_owned(), name.to_owned())].into(),
        addresses: vec![address.parse().unwrap()],
        ports: vec![],
        host_network: false,
    }
}

/// The pods `web` and `db` of `shop` on this node, and `client` of `bank` on another.
fn planner(policies: &[ClusterPolicy]) -> Planner {
    let mut planner = Planner::new();
    planner.await_cluster_policies();
    let namespace =
        |name: &str| Namespace { name: name.into(), labels: [("name".to_owned(), name.to_owned())].into() };
    let own = vec![pod("shop", "web", WEB), pod("shop", "db", DB)];
    let any = [own.clone(), vec![pod("bank", "client", CLIENT)]].concat();
    list(&mut planner, Event::Namespace, vec![namespace("shop"), namespace("bank")]);
    list(&mut planner, Event::Policy, vec![]);
    list(&mut planner, Event::OwnPod, own);
    assert!(!planner.is_complete());
    list(&mut planner, Event::ClusterPolicy, policies.to_vec());
    list(&mut planner, Event::AnyPod, any);
    assert!(planner.is_complete());
    planner
}

/// A NetworkPolicy of `web`, for nobody.
fn isolate_web(planner: &mut Planner) {
    let spec =
        json!({ "podSelector": { "matchLabels": { "app": "web" } }, "policyTypes": ["Ingress", "Egress"] });
    let policy = Policy { name: object_name("shop", "np"), spec: serde_json::from_value(spec).unwrap() };
    planner.apply(Event::Policy(Feed::Changed(policy)));
}

fn flow(from: &str, to: &str, port: u16) -> Flow {
    Flow { source: from.parse().unwrap(), destination: to.parse().unwrap(), protocol: TCP, port }
}

fn ingress(planner: &Planner, from: &str, to: &str, port: u16) -> Verdict {
    let flow = flow(from, to, port);
    let verdict = planner.judge(&flow).ingress;
    let pod = planner.plan().pods.values().find(|it| it.name.ends_with(if to == WEB { "web" } else { "db" }));
    let walked = pod.map(|pod| {
        let way = pod.way(Direction::Ingress);
        planner.plan().walk_way(&way, flow.source, TCP, port, from == to).allowed()
    });
    assert_eq!(walked.unwrap_or(true), verdict.allowed(), "{verdict:?}");
    verdict
}

#[test]
fn what_a_tier_decides_is_final() {
    let rule = |action: &str| json!([{ "name": "all", "action": action, "from": everybody() }]);
    let policy = |tier: &str, action: &str| {
        read("p", json!({ "tier": tier, "priority": 5, "subject": of_shop(), "ingress": rule(action) }))
    };
    for (tier, action, of_isolated, of_open) in [
        ("Admin", "Accept", true, true),
        ("Admin", "Deny", false, false),
        ("Admin", "Pass", false, true),
        ("Baseline", "Accept", false, true),
        ("Baseline", "Deny", false, false),
        ("Baseline", "Pass", false, true),
    ] {
        let mut planner = planner(&[policy(tier, action)]);
        isolate_web(&mut planner);
        assert_eq!(ingress(&planner, CLIENT, WEB, 80).allowed(), of_isolated, "{tier} {action}");
        assert_eq!(ingress(&planner, CLIENT, DB, 80).allowed(), of_open, "{tier} {action}");
        // From where no pod is, nobody says anything.
        assert!(ingress(&planner, "192.0.2.1", DB, 80).allowed(), "{tier} {action}");
    }
    let said = match ingress(&planner(&[policy("Admin", "Deny")]), CLIENT, DB, 80) {
        Verdict::Forbidden(rule) => (rule.tier, rule.to_string()),
        other => panic!("{other:?}"),
    };
    assert_eq!(said, (Tier::Admin, "Admin p ingress[0] (all)".to_owned()));
    let passed = planner(&[policy("Admin", "Pass")]).judge(&flow(CLIENT, DB, 80)).passed;
    assert_eq!(passed.len(), 1);
}

#[test]
fn the_lowest_priority_comes_first_and_then_the_name() {
    let policy = |name: &str, priority: i64, action: &str| {
        let rule = json!([{ "action": action, "from": everybody() }]);
        read(name, json!({ "tier": "Admin", "priority": priority, "subject": of_shop(), "ingress": rule }))
    };
    for (policies, allowed) in [
        ([policy("b", 5, "Accept"), policy("a", 6, "Deny")], true),
        ([policy("b", 7, "Accept"), policy("a", 6, "Deny")], false),
        ([policy("b", 6, "Accept"), policy("a", 6, "Deny")], false),
        ([policy("a", 6, "Accept"), policy("b", 6, "Deny")], true),
        ([policy("a", 100, "Deny"), policy("b", 20, "Accept")], true),
    ] {
        assert_eq!(ingress(&planner(&policies), CLIENT, WEB, 80).allowed(), allowed, "{policies:?}");
    }
}

/// A port's chain has the rules for all ports among its own, in their order.
#[test]
fn the_first_rule_that_matches_decides_at_each_port() {
    let tcp = |port: Value| json!([{ "tcp": { "destinationPort": port } }]);
    let policy = read(
        "p",
        json!({ "tier": "Admin", "priority": 0, "subject": of_shop(), "ingress": [
            { "action": "Pass", "from": everybody(), "protocols": tcp(json!({ "number": 80 })) },
            { "action": "Accept", "from": [{ "pods": { "podSelector": { "matchLabels": { "app": "web" } } } }] },
            { "action": "Deny", "from": everybody(), "protocols": tcp(json!({ "range": { "start": 50, "end": 100 } })) },
            { "action": "Accept", "from": everybody(), "protocols": tcp(json!({ "number": 90 })) },
        ] }),
    );
    let mut planner = planner(&[policy]);
    isolate_web(&mut planner);
    for (from, to, port, allowed) in [
        (CLIENT, WEB, 80, false),
        (CLIENT, DB, 80, true),
        (WEB, DB, 81, true),
        (WEB, DB, 7, true),
        (CLIENT, DB, 81, false),
        (CLIENT, DB, 90, false),
        (CLIENT, DB, 101, true),
        (CLIENT, WEB, 101, false),
    ] {
        assert_eq!(ingress(&planner, from, to, port).allowed(), allowed, "{from} {to} {port}");
    }
    let Isolation::Rules(name) = &planner.plan().pods["db"].tiers.ingress.admin else { panic!() };
    let chain = &planner.plan().chains[name];
    assert_eq!((chain.ports.len(), chain.rules.len()), (5, 1), "{chain:#?}");
}

/// A NetworkPolicy cannot keep a pod from itself. Whoever administers the cluster can.
#[test]
fn a_pod_to_itself_is_judged_by_tiers_alone() {
    let rule = json!([{ "action": "Deny", "from": everybody() }]);
    let of =
        |tier: &str| read("p", json!({ "tier": tier, "priority": 5, "subject": of_shop(), "ingress": rule }));
    let mut baseline = planner(&[of("Baseline")]);
    assert!(!ingress(&baseline, WEB, WEB, 80).allowed());
    isolate_web(&mut baseline);
    assert_eq!(ingress(&baseline, WEB, WEB, 80), Verdict::Itself);
    let mut admin = planner(&[of("Admin")]);
    isolate_web(&mut admin);
    assert!(!ingress(&admin, WEB, WEB, 80).allowed());
}

/// What cannot be understood accepts nothing, and denies everything where it would deny or pass on.
#[test]
fn what_is_not_understood_fails_closed_and_is_named() {
    let policy = |action: &str, peer: Value, protocols: Value| {
        let rule = json!([{ "action": action, "to": [peer], "protocols": protocols }]);
        read("p", json!({ "tier": "Admin", "priority": 5, "subject": of_shop(), "egress": rule }))
    };
    let tcp = |port: Value| json!([{ "tcp": port }]);
    for (peer, protocols, field) in [
        (json!({ "nodes": {} }), json!([]), "to[0].nodes"),
        (json!({ "domainNames": ["example.com"] }), json!([]), "to[0].domainNames"),
        (json!({}), json!([]), "to[0]"),
        (json!({ "namespaces": {}, "networks": ["::/0"] }), json!([]), "to[0]"),
        (json!({ "networks": ["10.0.0.0/99"] }), json!([]), "to[0].networks[0]"),
        (
            json!({ "namespaces": { "matchExpressions": [{ "key": "a", "operator": "Is" }] } }),
            json!([]),
            "to[0].namespaces.matchExpressions[0].operator",
        ),
        (
            json!({ "namespaces": {} }),
            json!([{ "destinationNamedPort": "web" }]),
            "protocols[0].destinationNamedPort",
        ),
        (json!({ "namespaces": {} }), json!([{}]), "protocols[0]"),
        (json!({ "namespaces": {} }), tcp(json!({})), "protocols[0].tcp"),
        (
            json!({ "namespaces": {} }),
            tcp(json!({ "destinationPort": { "number": 0 } })),
            "protocols[0].tcp.destinationPort.number",
        ),
        (json!({ "namespaces": {} }), tcp(json!({ "sourcePort": {} })), "protocols[0].tcp.sourcePort"),
    ] {
        for (action, consequence, allowed) in [
            ("Accept", Consequence::AcceptsNothing, true),
            ("Deny", Consequence::DeniesAll, false),
            ("Pass", Consequence::DeniesAll, false),
            ("Log", Consequence::DeniesAll, false),
        ] {
            let planner = planner(&[policy(action, peer.clone(), protocols.clone())]);
            let verdict = planner.judge(&flow(WEB, "192.0.2.1", 443)).egress;
            assert_eq!(verdict.allowed(), allowed, "{action} {peer} {protocols}");
            let [problem] = &planner.problems()[..] else { panic!("{:?}", planner.problems()) };
            let What::Unclear(invalid, found) = &problem.what else { panic!("{problem:?}") };
            assert_eq!(*found, consequence);
            if action != "Log" {
                assert_eq!(invalid.field, format!("spec.egress[0].{field}"), "{peer} {protocols}");
            }
        }
    }
    // Networks are peers of egress only.
    let rule = json!([{ "action": "Deny", "from": [{ "networks": ["::/0"] }] }]);
    let wrong = read("p", json!({ "tier": "Admin", "subject": of_shop(), "ingress": rule }));
    assert_eq!(CompiledCluster::new(&wrong).unclear[0].0.field, "spec.ingress[0].from[0].networks");
}

#[test]
fn a_policy_about_nobody_can_tell_whom_is_not_in_force() {
    let rule = json!([{ "action": "Deny", "from": everybody() }]);
    for (tier, subject, field) in [
        ("Admin", json!({}), "spec.subject"),
        ("Admin", json!({ "nodes": {} }), "spec.subject.nodes"),
        ("Admin", json!({ "namespaces": {}, "pods": { "podSelector": {} } }), "spec.subject"),
        ("Middle", of_shop(), "spec.tier"),
    ] {
        let policy = read("p", json!({ "tier": tier, "priority": 5, "subject": subject, "ingress": rule }));
        let planner = planner(&[policy]);
        assert_eq!(ingress(&planner, CLIENT, WEB, 80), Verdict::NotIsolated);
        let [problem] = &planner.problems()[..] else { panic!("{:?}", planner.problems()) };
        let What::Unclear(invalid, Consequence::NotInForce) = &problem.what else { panic!("{problem:?}") };
        assert_eq!(invalid.field, field);
    }
}

/// Of a pod that is not known yet it is not known which policies are about it.
#[test]
fn a_held_pod_has_what_is_certain_and_nothing_that_may_be_denied() {
    let some = |app: &str| {
        json!({ "pods": { "namespaceSelector": { "matchLabels": { "name": "shop" } },
        "podSelector": { "matchLabels": { "app": app } } } })
    };
    let rule = |action: &str, port: u16| {
        json!({ "action": action, "from": everybody(),
            "protocols": [{ "tcp": { "destinationPort": { "number": port } } }] })
    };
    let policy = |name: &str, priority: i64, subject: Value, rules: Value| {
        read(name, json!({ "tier": "Admin", "priority": priority, "subject": subject, "ingress": rules }))
    };
    let mut planner = planner(&[
        policy("some", 1, some("db"), json!([rule("Accept", 1), rule("Deny", 2), rule("Pass", 3)])),
        policy("all", 2, of_shop(), json!([rule("Accept", 4), rule("Accept", 2), rule("Deny", 5)])),
    ]);
    let held = |planner: &Planner, port: u16| {
        let hold = &planner.plan().holds["shop"];
        let way = hold.way(Direction::Ingress);
        let walked = planner.plan().walk_way(&way, CLIENT.parse().unwrap(), TCP, port, false);
        (walked.allowed(), matches!(walked, Walked::Denied))
    };
    let all = |planner: &Planner| [1, 2, 3, 4, 5, 6].map(|port| held(planner, port).0);
    // Nothing but what may be denied is denied to a pod that no NetworkPolicy holds.
    assert_eq!(all(&planner), [true, false, false, true, false, true]);
    assert!(!planner.plan().holds.contains_key("bank"));
    isolate_web(&mut planner);
    assert_eq!(all(&planner), [false, false, false, true, false, false]);
    assert!(held(&planner, 6).1);
}

/// Whether a NetworkPolicy isolates it, so that Baseline says nothing, is not known yet.
#[test]
fn a_held_pod_reaches_itself_only_if_that_is_certain() {
    let rule = json!([{ "action": "Deny", "from": everybody() }]);
    let policy =
        read("p", json!({ "tier": "Baseline", "priority": 5, "subject": of_shop(), "ingress": rule }));
    let mut planner = planner(&[policy]);
    isolate_web(&mut planner);
    let way = planner.plan().holds["shop"].way(Direction::Ingress);
    assert!(!planner.plan().walk_way(&way, WEB.parse().unwrap(), TCP, 80, true).allowed());
    let way = planner.plan().pods["web"].way(Direction::Ingress);
    assert!(planner.plan().walk_way(&way, WEB.parse().unwrap(), TCP, 80, true).allowed());
}

/// What a namespace's labels say decides, and a namespace that is new.
#[test]
fn namespaces_come_into_a_subject_and_leave_it() {
    let rule = json!([{ "action": "Deny", "from": everybody() }]);
    let subject = json!({ "namespaces": { "matchLabels": { "guarded": "yes" } } });
    let policy = read("p", json!({ "tier": "Baseline", "priority": 5, "subject": subject, "ingress": rule }));
    let mut planner = planner(std::slice::from_ref(&policy));
    let label = |planner: &mut Planner, name: &str, guarded: bool| {
        let labels = guarded.then(|| ("guarded".to_owned(), "yes".to_owned()));
        let namespace = Namespace { name: name.into(), labels: labels.into_iter().collect() };
        planner.apply(Event::Namespace(Feed::Changed(namespace)));
    };
    assert!(planner.plan().pods.is_empty());
    assert!(ingress(&planner, CLIENT, WEB, 80).allowed());
    label(&mut planner, "shop", true);
    assert!(!ingress(&planner, CLIENT, WEB, 80).allowed());
    label(&mut planner, "new", true);
    assert_eq!(planner.plan().holds.keys().collect::<Vec<_>>(), ["new", "shop"]);
    label(&mut planner, "shop", false);
    assert!(ingress(&planner, CLIENT, WEB, 80).allowed());
    planner.apply(Event::ClusterPolicy(Feed::Gone(object_name("", "p"))));
    assert_eq!(planner.plan(), &crate::policy::plan::Plan::default());
    assert!(!planner.needs_any_pods() && planner.knows_no_cluster_policy());
}

/// Many ranges that overlap are quadratic.
#[test]
fn rules_that_are_too_many_close_their_pods_and_are_named() {
    let range =
        |n: u16| json!({ "udp": { "destinationPort": { "range": { "start": n, "end": 60_000 - n } } } });
    let policy = |p: u16| {
        let rules: Vec<Value> = (0..25)
            .map(|r| {
                let ports: Vec<Value> = (0..25).map(|n| range(1 + p * 1000 + r * 25 + n)).collect();
                json!({ "action": "Accept", "from": everybody(), "protocols": ports })
            })
            .collect();
        let name = format!("p{p}");
        read(&name, json!({ "tier": "Admin", "priority": p, "subject": of_shop(), "ingress": rules }))
    };
    let planner = planner(&(0..8).map(policy).collect::<Vec<_>>());
    assert_eq!(planner.plan().pods["web"].tiers.ingress.admin, Isolation::Closed);
    let flow = Flow { protocol: UDP, ..flow(CLIENT, WEB, 70) };
    let Verdict::Denied(refusals) = planner.judge(&flow).ingress else { panic!() };
    assert_eq!(refusals.len(), 8);
    assert!(planner.judge(&flow).egress.allowed());
    let wanted = What::Invalid(too_large(Direction::Ingress));
    assert_eq!(planner.problems().iter().filter(|it| it.what == wanted).count(), 8);
}
