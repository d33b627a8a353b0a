//! The agent's memory with a large cluster's pods, through the real watch. By hand, optimised:
//! `cargo test --profile agent --features agent,cli --test integration -- --ignored --nocapture policy::memory`

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::agent::node::AgentNode;
use crate::agent::objects::Kind;

const PODS: usize = 30_000;
const OWN: usize = 110;
const POLICIES: usize = 100;
const SPACES: usize = 100;

/// What policies may take: 20 MiB, and 160 bytes for each pod, in KiB.
const BUDGET: u64 = (20 << 10) + ((160 * PODS as u64) >> 10);

/// Five labels, five pods of a workload, names as a ReplicaSet gives them, and as much as no agent needs.
fn pod(n: usize) -> Value {
    let workload = n / 5;
    let (hash, app) = (format!("{:010x}", workload * 7_919_777), format!("service-{workload}"));
    let tier = ["front", "back", "data"][workload % 3];
    let node = if n.is_multiple_of(PODS / OWN) { "node-a".to_owned() } else { format!("node-{}", n % 300) };
    let (v4, v6) = (
        format!("10.{}.{}.{}", 100 + (n >> 16), (n >> 8) & 255, n & 255),
        format!("fd00:10::{:x}:{:x}", n >> 16, n & 0xffff),
    );
    let variables: Vec<Value> =
        (0..20).map(|n| json!({ "name": format!("VARIABLE_{n}"), "value": "x".repeat(40) })).collect();
    json!({
        "metadata": {
            "namespace": format!("team-{}", workload % SPACES), "name": format!("{app}-{hash}-{n:05x}"),
            "uid": format!("{n:08x}-0000-4000-8000-000000000000"),
            "labels": {
                "app.kubernetes.io/name": app, "app.kubernetes.io/part-of": "shop",
                "app.kubernetes.io/managed-by": "Helm", "pod-template-hash": hash,
                "tier": tier,
            },
            "annotations": { "checksum/config": "0".repeat(64) },
            "managedFields": [{ "manager": "kubelet", "fieldsType": "FieldsV1",
                "fieldsV1": { "f:status": { "f:conditions": { "k:{}": { "f:type": "x".repeat(600) } } } } }],
        },
        "spec": { "nodeName": node, "containers": [{ "name": "main", "image": "registry.example/x",
            "env": variables, "ports": [{ "name": "http", "containerPort": 8080, "protocol": "TCP" }] }] },
        "status": { "phase": "Running", "podIP": v4, "podIPs": [{ "ip": v4 }, { "ip": v6 }] },
    })
}

fn policy(n: usize) -> Value {
    let app = |n: usize| json!({ "matchLabels": { "app.kubernetes.io/name": format!("service-{n}") } });
    json!({
        "metadata": { "namespace": format!("team-{}", n % SPACES), "name": format!("policy-{n}") },
        "spec": {
            "podSelector": {}, "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                { "from": [{ "podSelector": app(n + SPACES) }], "ports": [{ "port": 8080 }] },
                { "from": [{ "namespaceSelector": { "matchLabels": { "team": "shop" } },
                             "podSelector": { "matchLabels": { "tier": "front" } } }],
                  "ports": [{ "port": "http" }] },
            ],
            "egress": [
                { "to": [{ "ipBlock": { "cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"] } }], "ports": [{ "port": 443 }] },
                { "to": [{ "namespaceSelector": {} }], "ports": [{ "protocol": "UDP", "port": 53 }] },
            ],
        },
    })
}

/// Of the agent's memory, in KiB: what is resident now, what of it belongs to no file, and the most there ever was.
fn memory(node: &AgentNode) -> [u64; 3] {
    let status = fs::read_to_string(format!("/proc/{}/status", node.id())).unwrap();
    ["VmRSS:", "RssAnon:", "VmHWM:"].map(|key| {
        let line = status.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    })
}

fn measure(refuses_streams: bool) {
    let mut node = AgentNode::new("memory");
    if refuses_streams {
        node.api.refuse_streams();
    }
    node.api.preload_objects(Kind::Pod, (0..PODS).map(pod));
    node.api.preload_objects(
        Kind::Namespace,
        (0..SPACES).map(|n| {
            let team = if n.is_multiple_of(10) { "shop" } else { "other" };
            json!({ "metadata": { "name": format!("team-{n}"), "labels": { "team": team } } })
        }),
    );
    node.start_ready();
    node.wait("no policies", || node.log().contains("network policies applied"));
    std::thread::sleep(Duration::from_secs(1));
    let before = memory(&node);
    println!("pages: {refuses_streams}; without policies: {before:?} KiB (resident, anonymous, most)");
    let begin = Instant::now();
    for n in 0..POLICIES {
        node.api.put_object(Kind::Policy, policy(n));
    }
    let isolated = || node.metric("ferrule_policy_pods_isolated").unwrap_or(0.0);
    while isolated() < 100.0 {
        assert!(begin.elapsed() < Duration::from_secs(120), "{}", node.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("{PODS} pods and {POLICIES} policies are in force after {:?}", begin.elapsed());
    println!("then: {:?} KiB", memory(&node));
    node.wait("what is kept", || node.has("data/podnet/policy-objects"));
    println!("when plan and objects were written: {:?} KiB", memory(&node));
    // And written once more.
    node.api.put_object(Kind::Policy, policy(7));
    std::thread::sleep(Duration::from_secs(8));
    let after = memory(&node);
    println!("some seconds later: {after:?} KiB");
    let (now, most) = (after[0].saturating_sub(before[0]), after[2].saturating_sub(before[0]));
    println!("policies take {now} KiB, at most {most} KiB, of {BUDGET} KiB");
    assert!(cfg!(debug_assertions) || most <= BUDGET, "{most} KiB");
}

#[test]
#[ignore = "measures; asserts little without optimisation"]
fn thirty_thousand_pods_fit_the_budget_streamed() {
    measure(false);
}

#[test]
#[ignore = "measures; asserts little without optimisation"]
fn thirty_thousand_pods_fit_the_budget_in_pages() {
    measure(true);
}
