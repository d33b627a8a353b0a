//! ClusterNetworkPolicies in the kernel: objects, planned and applied, by real packets of both families.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use ferrule::datapath::policy::{self, Unknown};
use ferrule::policy::evaluate::Flow;
use ferrule::policy::objects::Objects;
use ferrule::policy::plan::Plan;
use ferrule::policy::planner::Planner;
use serde_json::{Value, json};

use super::scene::{Scene, TCP, all, connects, denied, uid};
use kit::netns::{Namespace, inside};
use kit::packets::{answers_ping, answers_ping_at_once};
use kit::traffic::{PATIENT, Server};

const A: [&str; 2] = ["10.244.1.10", "fd00:1::10"];
const B: [&str; 2] = ["10.244.1.11", "fd00:1::11"];
const C: [&str; 2] = ["10.244.1.12", "fd00:1::12"];
const OUTSIDE: [&str; 2] = ["192.0.2.1", "fd00:aa::1"];
const NODE: [&str; 2] = ["192.0.2.10", "fd00:aa::10"];
/// A pod of another node.
const FAR: [&str; 2] = ["10.244.2.5", "fd00:2::5"];

/// What `nft` must print of [`everything`].
const GOLDEN: &str = include_str!("tiers.nft");

/// The planner of the pods of a scene, and of `far`, which is on another node and in the namespace `bank`.
fn planner(policies: Value, cluster: Value) -> Planner {
    let pod = |name: &str, addresses: [&str; 2]| json!({ "namespace": "shop", "name": name, "uid": uid(name), "labels": { "app": name }, "addresses": addresses });
    let objects: Objects = serde_json::from_value(json!({
        "policies": policies,
        "clusterPolicies": cluster,
        "namespaces": [{ "name": "shop", "labels": { "name": "shop" } }, { "name": "bank", "labels": { "name": "bank" } }],
        "ownPods": [pod("a", A), pod("b", B), pod("c", C)],
        "workloads": [{ "namespace": "bank", "labels": { "app": "far" }, "pods": { "far": FAR } },
            { "namespace": "shop", "labels": { "app": "a" }, "pods": { "a": A } },
            { "namespace": "shop", "labels": { "app": "b" }, "pods": { "b": B } },
            { "namespace": "shop", "labels": { "app": "c" }, "pods": { "c": C } }],
    }))
    .unwrap();
    objects.planner()
}

pub fn plan(policies: Value, cluster: Value) -> Plan {
    planner(policies, cluster).plan().clone()
}

/// A ClusterNetworkPolicy about `b`.
pub fn about_b(name: &str, tier: &str, priority: u16, rules: Value) -> Value {
    about(name, tier, priority, "b", rules)
}

fn about(name: &str, tier: &str, priority: u16, app: &str, rules: Value) -> Value {
    let subject = json!({ "pods": { "namespaceSelector": { "matchLabels": { "name": "shop" } },
        "podSelector": { "matchLabels": { "app": app } } } });
    let mut spec = json!({ "tier": tier, "priority": priority, "subject": subject });
    spec.as_object_mut().unwrap().extend(rules.as_object().unwrap().clone());
    json!({ "name": name, "spec": spec })
}

pub fn pods(app: &str) -> Value {
    json!({ "pods": { "namespaceSelector": {}, "podSelector": { "matchLabels": { "app": app } } } })
}

fn everybody() -> Value {
    json!({ "namespaces": {} })
}

pub fn tcp(port: u16) -> Value {
    json!([{ "tcp": { "destinationPort": { "number": port } } }])
}

/// A NetworkPolicy of `b` that lets this pod come in.
fn let_in(app: &str) -> Value {
    let peers = json!([{ "podSelector": { "matchLabels": { "app": app } } }]);
    json!({ "namespace": "shop", "name": "np", "spec": {
        "podSelector": { "matchLabels": { "app": "b" } }, "ingress": [{ "peers": peers }] } })
}

pub fn from(action: &str, peer: Value, protocols: Value) -> Value {
    json!({ "action": action, "from": [peer], "protocols": protocols })
}

/// Who reaches port 80 and port 81 of `b`: `a`, `c` on this node, and `far` on another.
fn is_as_said(scene: &Scene, planner: &Planner, what: &str, expected: [[bool; 3]; 2]) {
    let clients = [(&scene.a.namespace, A), (&scene.c.namespace, C), (&scene.world.outside, FAR)];
    for (port, expected) in [80, 81].into_iter().zip(expected) {
        for ((client, source), expected) in clients.iter().zip(expected) {
            for family in [0, 1] {
                let what = format!("{what}: {} to {}", source[family], port);
                let flow = Flow {
                    source: source[family].parse().unwrap(),
                    destination: B[family].parse().unwrap(),
                    protocol: TCP,
                    port,
                };
                assert_eq!(planner.judge(&flow).allowed(), expected, "{what}");
                assert_eq!(reaches(client, source[family], B[family], port), expected, "{what}");
            }
        }
    }
}

/// Whether a connection from an address of one's own is made; what is neither made nor dropped is a failure.
fn reaches(client: &Namespace, source: &str, to: &str, port: u16) -> bool {
    let (source, to): (SocketAddr, SocketAddr) =
        (SocketAddr::new(source.parse().unwrap(), 0), SocketAddr::new(to.parse().unwrap(), port));
    inside(client, || {
        kit::block_on(async {
            let socket = match source {
                SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4().unwrap(),
                SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6().unwrap(),
            };
            socket.bind(source).unwrap();
            match tokio::time::timeout(Duration::from_millis(150), socket.connect(to)).await {
                Ok(made) => made.map(|_| true).unwrap(),
                Err(_) => false,
            }
        })
    })
}

#[test]
fn tiers_decide_in_their_order_on_one_node_and_on_two() {
    let mut scene = Scene::new();
    let _servers = [80, 81].map(|port| Server::tcp(&scene.b.namespace, port, "b"));
    let admin = |priority, rules: Value| {
        about_b(&format!("admin-{priority}"), "Admin", priority, json!({ "ingress": rules }))
    };
    let baseline = |rules: Value| about_b("base", "Baseline", 7, json!({ "ingress": rules }));
    let none = || json!([]);
    let (every, nobody) = ([true; 3], [false; 3]);
    for (what, policies, cluster, expected) in [
        ("nothing", none(), none(), [every, every]),
        (
            "Admin denies what a NetworkPolicy allows",
            json!([let_in("a")]),
            json!([admin(1, json!([from("Deny", pods("a"), tcp(80))]))]),
            [nobody, [true, false, false]],
        ),
        (
            "Admin accepts what a NetworkPolicy does not",
            json!([let_in("a")]),
            json!([admin(1, json!([from("Accept", pods("far"), tcp(80))]))]),
            [[true, false, true], [true, false, false]],
        ),
        (
            "Admin passes, and a NetworkPolicy decides",
            json!([let_in("a")]),
            json!([admin(
                1,
                json!([from("Pass", everybody(), tcp(80)), from("Deny", everybody(), json!([]))])
            )]),
            [[true, false, false], nobody],
        ),
        (
            "Admin passes, and nobody decides",
            none(),
            json!([admin(
                1,
                json!([from("Pass", everybody(), tcp(80)), from("Deny", everybody(), json!([]))])
            )]),
            [every, nobody],
        ),
        (
            "the lower priority comes first",
            none(),
            json!([
                admin(2, json!([from("Deny", everybody(), json!([]))])),
                admin(1, json!([from("Accept", pods("c"), tcp(81))]))
            ]),
            [nobody, [false, true, false]],
        ),
        (
            "Baseline denies where no NetworkPolicy isolates",
            none(),
            json!([baseline(json!([
                from("Accept", pods("far"), json!([])),
                from("Deny", everybody(), tcp(80))
            ]))]),
            [[false, false, true], every],
        ),
        (
            "a NetworkPolicy overrules Baseline",
            json!([let_in("a")]),
            json!([baseline(json!([from("Deny", everybody(), json!([])),]))]),
            [[true, false, false], [true, false, false]],
        ),
        (
            "Admin accepts what Baseline denies",
            none(),
            json!([
                admin(1, json!([from("Accept", pods("a"), json!([]))])),
                baseline(json!([from("Deny", everybody(), json!([]))]))
            ]),
            [[true, false, false], [true, false, false]],
        ),
        (
            "what nobody understands denies",
            none(),
            json!([admin(1, json!([from("Deny", json!({ "nodes": {} }), tcp(80))]))]),
            [nobody, nobody],
        ),
    ] {
        let planner = planner(policies, cluster);
        scene.apply(planner.plan());
        assert_eq!(scene.differences(planner.plan()), [""; 0], "{what}");
        is_as_said(&scene, &planner, what, expected);
        // Other pods, and what the node sends to its own, are nobody's business here.
        assert!(connects(scene.node(), B[0], 80) && answers_ping(&scene.b.namespace, A[0]), "{what}");
    }
}

#[test]
fn egress_goes_to_networks_nodes_and_pods_as_rules_say() {
    let mut scene = Scene::new();
    let servers = [&scene.b.namespace, scene.node(), &scene.world.outside];
    let _servers = servers.map(|at| [80, 9000].map(|port| Server::tcp(at, port, "server")));
    let to = |action: &str, peer: Value, protocols: Value| json!({ "action": action, "to": [peer], "protocols": protocols });
    let rules = json!([
        to("Accept", json!({ "networks": ["192.0.2.10/32", "fd00:aa::10/128"] }), tcp(9000)),
        to(
            "Pass",
            everybody(),
            json!([{ "tcp": { "destinationPort": { "range": { "start": 1, "end": 100 } } } }])
        ),
        to("Deny", json!({ "networks": ["0.0.0.0/0", "::/0"] }), json!([])),
    ]);
    scene.apply(&plan(json!([]), json!([about("out", "Admin", 5, "a", json!({ "egress": rules }))])));
    let a = &scene.a.namespace;
    for family in [0, 1] {
        assert!(
            connects(a, NODE[family], 9000) && denied(a, NODE[family], 80),
            "the node, at the input hook"
        );
        assert!(connects(a, B[family], 80) && denied(a, B[family], 9000), "a pod");
        assert!(denied(a, OUTSIDE[family], 80) && denied(a, OUTSIDE[family], 9000), "the world");
        assert!(!answers_ping_at_once(a, B[family]), "rules without protocols are about all of them");
        assert!(connects(&scene.c.namespace, OUTSIDE[family], 80), "c is no subject");
        // A pod that has tiers in one direction gets no connection that begins in its middle in either.
        assert!(answers_ping(&scene.c.namespace, A[family]));
    }
}

/// By its own Service: NetworkPolicies cannot keep a pod from itself, tiers can.
#[test]
fn a_pod_to_itself_is_judged_by_tiers() {
    let mut scene = Scene::new();
    kit::nft::load(
        scene.node(),
        "table inet service {
            chain to { type nat hook prerouting priority dstnat;
                ip daddr 10.96.0.2 tcp dport 80 dnat ip to 10.244.1.11:80
                ip6 daddr fd00:96::2 tcp dport 80 dnat ip6 to [fd00:1::11]:80; }
            chain from { type nat hook postrouting priority srcnat;
                oifname vethb ip saddr 10.244.1.11 masquerade
                oifname vethb ip6 saddr fd00:1::11 masquerade; }
        }",
    );
    let _server = Server::tcp(&scene.b.namespace, 80, "b");
    let deny = |tier: &str| {
        json!([about_b("p", tier, 5, json!({ "ingress": [from("Deny", everybody(), json!([]))] }))])
    };
    let of_c =
        json!([about("p", "Admin", 5, "c", json!({ "ingress": [from("Deny", everybody(), json!([]))] }))]);
    let isolated = || json!([let_in("nobody")]);
    for (what, policies, cluster, allowed) in [
        ("isolated", isolated(), json!([]), true),
        ("Admin denies", json!([]), deny("Admin"), false),
        ("Admin denies, and isolated", isolated(), deny("Admin"), false),
        ("Baseline denies", json!([]), deny("Baseline"), false),
        ("Baseline denies, and isolated", isolated(), deny("Baseline"), true),
        ("tiers are about another pod, and isolated", isolated(), of_c, true),
        ("isolated again", isolated(), json!([]), true),
    ] {
        scene.apply(&plan(policies, cluster));
        for service in ["10.96.0.2", "fd00:96::2"] {
            let is = if allowed { connects } else { denied };
            assert!(is(&scene.b.namespace, service, 80), "{what}: {service}");
        }
    }
}

/// All that tiers have: ports, ranges, both kinds of sets, each action, and pods with and without NetworkPolicies.
fn everything() -> Plan {
    let range = json!([{ "udp": { "destinationPort": { "range": { "start": 5000, "end": 5099 } } } }]);
    let networks = json!({ "action": "Deny", "to": [{ "networks": ["192.0.2.0/24", "fd00:aa::/64"] }] });
    let rules = json!([
        { "name": "web \"for all\"", "action": "Accept", "from": [everybody()], "protocols": tcp(80) },
        from("Pass", pods("far"), range),
        from("Deny", everybody(), json!([])),
    ]);
    let both = json!({ "ingress": rules, "egress": [networks] });
    plan(
        json!([let_in("a")]),
        json!([
            about_b("admin", "Admin", 5, both),
            about("base", "Baseline", 5, "c", json!({ "ingress": [from("Deny", pods("far"), json!([]))] }))
        ]),
    )
}

#[test]
fn the_table_is_what_nft_prints_and_is_mended() {
    let mut scene = Scene::new();
    let plan = everything();
    scene.apply(&plan);
    let printed = scene.list("--stateless");
    if std::env::var_os("WRITE_GOLDEN").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/policy/tiers.nft"), &printed).unwrap();
    }
    assert_eq!(printed, GOLDEN);
    // An agent that starts finds nothing to do.
    scene.read();
    let before = scene.generation();
    assert_eq!(scene.apply(&plan).transactions, 0);
    assert_eq!(scene.generation(), before);
    for edit in [
        "flush chain inet ferrule-policy policy_in",
        "insert rule inet ferrule-policy policy_out accept",
        "flush chain inet ferrule-policy in-00000000-0000-4000-8000-00000000000b",
    ] {
        scene.nft(edit);
        assert_ne!(scene.differences(&plan), [""; 0], "{edit}");
        scene.read();
        scene.apply(&plan);
        assert_eq!(scene.list("--stateless"), GOLDEN, "{edit}");
    }
    // The last ClusterNetworkPolicy leaves what there would be without.
    let without = self::plan(json!([let_in("a")]), json!([]));
    scene.apply(&without);
    let left = scene.list("--stateless");
    let mut fresh = Scene::new();
    fresh.apply(&without);
    assert_eq!(left, fresh.list("--stateless"));
}

const SWITCHES: usize = 120;

/// Between a NetworkPolicy alone, and tiers that say the same: who may always may, the pod itself too, and who may not never.
#[test]
fn tiers_that_come_and_go_under_load_open_and_cut_nothing() {
    let mut scene = Scene::new();
    kit::nft::load(
        scene.node(),
        "table inet service {
            chain to { type nat hook prerouting priority dstnat; ip daddr 10.96.0.2 tcp dport 80 dnat ip to 10.244.1.11:80; }
            chain from { type nat hook postrouting priority srcnat; oifname vethb ip saddr 10.244.1.11 masquerade; }
        }",
    );
    let one = plan(json!([let_in("a")]), json!([]));
    let accept_some = json!([
        from("Accept", pods("a"), json!([])),
        from("Accept", pods("b"), json!([])),
        from("Deny", everybody(), json!([]))
    ]);
    let two = plan(json!([]), json!([about_b("admin", "Admin", 5, json!({ "ingress": accept_some }))]));
    let passing = json!([from("Accept", pods("a"), tcp(80)), from("Pass", everybody(), json!([]))]);
    let three =
        plan(json!([let_in("a")]), json!([about_b("admin", "Admin", 5, json!({ "ingress": passing }))]));
    let plans = [one, two, three];
    scene.apply(&plans[0]);
    let listener = inside(&scene.b.namespace, || TcpListener::bind("[::]:80").unwrap());
    let _accepting = thread::spawn(move || listener.incoming().for_each(drop));
    let done = AtomicBool::new(false);
    let (allowed, lost, own, own_lost, forbidden, passed) =
        <(AtomicU32, AtomicU32, AtomicU32, AtomicU32, AtomicU32, AtomicU32)>::default();
    let connecting = |from: &Path, to: &[&str], patience: Duration, made: &AtomicU32, not: &AtomicU32| {
        inside(from, || {
            while !done.load(Ordering::Relaxed) {
                for address in to {
                    let to: SocketAddr = address.parse().unwrap();
                    let stream = TcpStream::connect_timeout(&to, patience);
                    let is_made = stream.and_then(|mut stream| stream.read(&mut [0])).is_ok();
                    if is_made { made } else { not }.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    };
    let paths = [&scene.a, &scene.b, &scene.c].map(|pod| pod.namespace.path().to_owned());
    let (node, attached) = (scene.world.nft(), scene.attached());
    let both = ["10.244.1.11:80", "[fd00:1::11]:80"];
    thread::scope(|scope| {
        scope.spawn(|| connecting(&paths[0], &both, PATIENT, &allowed, &lost));
        scope.spawn(|| connecting(&paths[1], &["10.96.0.2:80"], PATIENT, &own, &own_lost));
        scope.spawn(|| connecting(&paths[2], &both, Duration::from_millis(2), &passed, &forbidden));
        let mut mirror = kit::block_on(policy::read(&node)).unwrap();
        let touched = all();
        for round in 1..=SWITCHES {
            let plan = &plans[round % plans.len()];
            let applied = policy::apply(&node, &mut mirror, plan, &touched, &attached, Unknown::Open);
            let applied = kit::block_on(applied);
            if applied.is_err() {
                done.store(true, Ordering::Relaxed);
            }
            assert!(applied.unwrap().transactions > 0);
        }
        done.store(true, Ordering::Relaxed);
    });
    let count = |it: AtomicU32| it.into_inner();
    let [allowed, lost, own, own_lost, forbidden, passed] =
        [allowed, lost, own, own_lost, forbidden, passed].map(count);
    assert_eq!((lost, own_lost, passed), (0, 0, 0), "of {allowed}, {own} and {forbidden}");
    assert!(allowed > 50 && own > 20 && forbidden > 50, "{allowed} {own} {forbidden}");
}
