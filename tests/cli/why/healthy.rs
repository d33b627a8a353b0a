//! Pairs that reach each other, of which nothing else may be said.

use ferrule::connectivity::answer::Verdict;
use ferrule::connectivity::half::Kind;
use ferrule::connectivity::question::Protocol;
use ferrule::desired::overlay::Routing;

use super::scene::Scene;
use crate::cli::{document, text, verb};

/// From whom to whom, of every kind.
const PAIRS: [(&str, &str); 14] = [
    ("client", "near"),
    ("near", "client"),
    ("client", "web"),
    ("web", "near"),
    ("client", "node-0"),
    ("client", "node-1"),
    ("web", "node-0"),
    ("node-0", "client"),
    ("node-0", "web"),
    ("node-1", "web"),
    ("node-0", "node-1"),
    ("client", "outside"),
    ("web", "outside"),
    ("outside", "node-0"),
];

fn all_are_well(scene: &Scene) {
    for (from, to) in PAIRS {
        for ipv4 in [true, false] {
            scene.expect_well(from, to, ipv4);
        }
    }
}

#[test]
fn pairs_that_are_routed_directly_are_well() {
    all_are_well(&Scene::new(Routing::Direct));
}

#[test]
fn pairs_by_vxlan_are_well() {
    all_are_well(&Scene::new(Routing::Vxlan));
}

/// Without the API server: one node knows its own pods, and by its routes which node has the others.
#[test]
fn a_node_alone_says_what_it_knows_and_whom_to_ask() {
    let scene = Scene::new(Routing::Direct);
    let node = scene.node(0);
    let near = document(node, "why shop/client shop/near:8080", 0);
    assert_eq!(near["answer"]["verdict"], "works");
    // Both families.
    assert_eq!(near["halves"].as_array().unwrap().len(), 4, "{near:#}");
    let web = scene.end("web").address(true).unwrap();
    let far = document(node, &format!("why shop/client {web}:8080"), 3);
    assert_eq!(far["answer"]["verdict"], "unknown");
    assert_eq!(far["answer"]["ask"][0]["node"], "node-1", "{far:#}");
    let shown = verb(node, &format!("why shop/client {web}:8080")).run();
    for words in
        ["nothing that could be looked at is broken", "node-1 has not been asked", "STEP", "neighbour"]
    {
        assert!(text(&shown).contains(words), "{words}: {}", text(&shown));
    }
    let [other, free] = ["192.168.77.11", "10.88.0.99"].map(|it| format!("why shop/client {it}:8080"));
    let other = document(node, &other, 3);
    assert_eq!(other["question"]["destination"]["kind"], "node", "{other:#}");
    let free = document(node, &free, 1);
    assert!(
        free["answer"]["sentence"].to_string().contains("is of this node's range, and no pod here has it")
    );
    let nobody = verb(node, "why shop/nobody shop/client:8080").run();
    assert_eq!(nobody.status.code(), Some(3), "{nobody:?}");
    assert!(nobody.stderr.contains("pod shop/nobody is not known on this node"), "{nobody:?}");
    let other = verb(scene.node(1), "why --question nonsense").run();
    assert_eq!(other.status.code(), Some(3), "{other:?}");
}

/// An echo request needs no listener, and of UDP a socket is looked for.
#[test]
fn other_protocols_are_looked_at_as_they_are() {
    let scene = Scene::new(Routing::Direct);
    let mut question = scene.question("client", "web", true);
    question.protocol = Protocol::Icmp;
    let answer = ferrule::connectivity::join::join(&question, &scene.halves(&question));
    assert_eq!(answer.verdict, Verdict::Works, "{answer:#?}");
    assert!(answer.flows[0].steps.iter().all(|it| it.step.kind != Kind::Listener));
    question.protocol = Protocol::Udp;
    let answer = ferrule::connectivity::join::join(&question, &scene.halves(&question));
    assert!(answer.sentence.contains("nobody in the pod listens at UDP 8080"), "{answer:#?}");
}
