//! Bytes and times of a large cluster. By hand, optimised:
//! `cargo test --profile agent --lib -- --ignored --nocapture policy::tests::measure`

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::json;

use super::cluster::{list, object_name};
use crate::policy::object::*;
use crate::policy::planner::Planner;

const PODS: usize = 30_000;
const OWN: usize = 110;
const SPACES: usize = 100;

/// Five labels, five pods of a workload, and names as a ReplicaSet gives them.
fn pod(n: usize) -> Pod {
    let workload = n / 5;
    let hash = format!("{:010x}", workload * 7_919_777);
    let app = format!("service-{workload}");
    let labels = [
        ("app.kubernetes.io/name", app.as_str()),
        ("app.kubernetes.io/part-of", "shop"),
        ("app.kubernetes.io/managed-by", "Helm"),
        ("pod-template-hash", hash.as_str()),
        ("tier", ["front", "back", "data"][workload % 3]),
    ];
    let v6 = format!("fd00:10::{:x}:{:x}", n >> 16, n & 0xffff);
    Pod {
        name: object_name(&format!("team-{}", workload % SPACES), &format!("{app}-{hash}-{n:05x}")),
        uid: format!("{n:08x}-0000-4000-8000-000000000000"),
        labels: labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        addresses: vec![
            IpAddr::from([10, 1 + (n >> 16) as u8, (n >> 8) as u8, n as u8]),
            v6.parse().unwrap(),
        ],
        ports: vec![NamedPort { name: "http".into(), protocol: 6, port: 8080 }],
        host_network: false,
    }
}

fn policy(n: usize, port: usize) -> Policy {
    let spec = json!({
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": format!("service-{n}")}},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [
            {"from": [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": format!("service-{}", n + SPACES)}}}],
             "ports": [{"port": port}]},
            {"from": [{"namespaceSelector": {"matchLabels": {"team": "shop"}},
                       "podSelector": {"matchLabels": {"tier": "front"}}}],
             "ports": [{"port": "http"}]},
        ],
        "egress": [
            {"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}], "ports": [{"port": 443}]},
            {"to": [{"namespaceSelector": {}}], "ports": [{"protocol": "UDP", "port": 53}]},
        ],
    });
    Policy {
        name: object_name(&format!("team-{}", n % SPACES), &format!("policy-{n}")),
        spec: serde_json::from_value(spec).unwrap(),
    }
}

/// Bytes that are resident, as the kernel counts them.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Nanoseconds for which this thread has had a processor: others may be at work on the machine.
fn busy() -> f64 {
    let times = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    times.split(' ').next().unwrap().parse().unwrap()
}

fn time(what: &str, times: usize, mut each: impl FnMut(usize)) {
    let begin = busy();
    (0..times).for_each(&mut each);
    println!("{what}: {:.1} us each", (busy() - begin) / 1e3 / times as f64);
}

#[test]
#[ignore = "measures; asserts little"]
fn thirty_thousand_pods_and_a_thousand_policies() {
    let mut planner = Planner::new();
    let namespaces = (0..SPACES).map(|n| Namespace {
        name: format!("team-{n}"),
        labels: BTreeMap::from([(
            "team".to_owned(),
            if n.is_multiple_of(10) { "shop" } else { "other" }.to_owned(),
        )]),
    });
    list(&mut planner, Event::Namespace, namespaces.collect());
    let (before, begin) = (resident(), busy());
    planner.apply(Event::AnyPod(Feed::ListBegins));
    // As the API server lists them: in order of their keys.
    let mut order: Vec<usize> = (0..PODS).collect();
    order.sort_by_key(|n| pod(*n).name);
    let sorted = resident();
    order.into_iter().for_each(|n| planner.apply(Event::AnyPod(Feed::Listed(pod(n)))));
    planner.apply(Event::AnyPod(Feed::ListEnds));
    println!(
        "{PODS} pods of other nodes: {} bytes each resident, {} counted; {:.1} us each, with the making of it",
        (resident() - sorted) / PODS,
        planner.index_bytes() / PODS,
        (busy() - begin) / 1e3 / PODS as f64
    );
    // Of this node: two pods for each of the first services, each of which has a policy.
    list(&mut planner, Event::OwnPod, (0..OWN).map(|n| pod(n * 5)).collect());
    let begin = busy();
    list(&mut planner, Event::Policy, (0..1000).map(|n| policy(n, 8080)).collect());
    let plan = planner.plan();
    println!(
        "first plan: {:.1} ms; {} sets, {} chains, {} pods, {} holds; {} MiB more",
        (busy() - begin) / 1e6,
        plan.sets.len(),
        plan.chains.len(),
        plan.pods.len(),
        plan.holds.len(),
        (resident() - before) >> 20
    );
    assert_eq!((plan.pods.len(), plan.holds.len()), (OWN, SPACES));
    planner.take_touched();
    time("a pod of another node, as it was", 2000, |n| {
        planner.apply(Event::AnyPod(Feed::Changed(pod(n * 7))))
    });
    assert!(planner.take_touched().sets.is_empty());
    time("a pod of another node goes and comes", 2000, |n| {
        let pod = pod(n * 7);
        planner.apply(Event::AnyPod(Feed::Gone(pod.name.clone())));
        planner.apply(Event::AnyPod(Feed::Changed(pod)));
    });
    time("a pod of this node goes and comes", 1000, |n| {
        let pod = pod((n % OWN) * 5);
        planner.apply(Event::OwnPod(Feed::Gone(pod.name.clone())));
        planner.apply(Event::OwnPod(Feed::Changed(pod)));
    });
    time("another policy's port", 1000, |n| planner.apply(Event::Policy(Feed::Changed(policy(n, 9090)))));
    time("another policy of a pod of this node", 100, |n| {
        planner.apply(Event::Policy(Feed::Changed(policy(n, 7070 + n))));
    });
    time("the name of an address that nobody has", 100, |_| {
        assert_eq!(planner.name_of(IpAddr::from([192, 0, 2, 1])), None);
    });
    let labels = |n: usize| {
        BTreeMap::from([("team".to_owned(), if n.is_multiple_of(2) { "shop" } else { "no" }.to_owned())])
    };
    time("labels of a namespace of 300 pods", 20, |n| {
        let namespace = Namespace { name: "team-7".into(), labels: labels(n) };
        planner.apply(Event::Namespace(Feed::Changed(namespace)));
    });
    // All of them on one pod: each selects it, with a peer and a port of its own.
    time("the 1,000 policies of one pod, one by one", 1000, |n| {
        let mut policy = policy(n, 1000 + n);
        policy.name.namespace = "team-0".into();
        policy.spec.pod_selector = LabelSelector::default();
        planner.apply(Event::Policy(Feed::Changed(policy)));
    });
    time("one of them changes", 20, |n| {
        let mut policy = policy(n, 10_000 + n);
        policy.name.namespace = "team-0".into();
        policy.spec.pod_selector = LabelSelector::default();
        planner.apply(Event::Policy(Feed::Changed(policy)));
    });
    // A policy against the planner: a peer and a range of its own in each rule, each range inside the one before.
    time("a policy of 1,000 nested ranges, which is refused", 20, |n| {
        let rule = |it: usize| {
            let peer = json!({"podSelector": {"matchLabels": {"app": format!("a{it}-{n}")}}});
            json!({"from": [peer], "ports": [{"port": 1 + it, "endPort": 60_000 - it}]})
        };
        let rules: Vec<_> = (0..1000).map(rule).collect();
        let spec = serde_json::from_value(json!({"podSelector": {}, "ingress": rules})).unwrap();
        let policy = Policy { name: object_name("team-1", "nested"), spec };
        planner.apply(Event::Policy(Feed::Changed(policy)));
    });
    planner.apply(Event::Policy(Feed::Gone(object_name("team-1", "nested"))));
    let begin = busy();
    let content = vec![b'a'; 1 << 20];
    std::hint::black_box(crate::policy::digest::digest(&content));
    println!("digest of 1 MiB: {:.1} ms", (busy() - begin) / 1e6);
    let chain = planner.plan().chains.values().max_by_key(|it| it.ports.len()).unwrap();
    let begin = busy();
    let text = crate::policy::set_spec::json(chain);
    println!("the longest chain: {} bytes of JSON in {:.1} ms", text.len(), (busy() - begin) / 1e6);
}
