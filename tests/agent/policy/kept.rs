//! What the agent leaves on disk, and what `ferrulectl` says by it.

use serde_json::{Value, json};

use super::world::{Member, PORT, World, only};
use kit::call::Call;

fn ask(world: &World, words: &str) -> (Option<i32>, Value) {
    let call = Call::ferrulectl(&format!("{words} --output json")).on(&world.node.namespace);
    let call = call.argument("--conf-dir").argument(world.node.path("net.d"));
    let answer = call.argument("--data-dir").argument(world.node.path("data")).run();
    (answer.status.code(), answer.document().unwrap_or_default())
}

/// Whether policies and kernel say the same of a connection, and this.
fn says(world: &World, from: &Member, to: &Member, status: i32) -> bool {
    let target = |member: &Member| format!("{}/{}", member.namespace, member.name);
    let (code, answer) = ask(world, &format!("policy why {} {}:{PORT}/udp", target(from), target(to)));
    println!("{code:?} {answer:#}");
    code == Some(status)
}

#[test]
fn ferrulectl_says_why_by_what_the_agent_leaves() {
    let world = World::new("kept");
    let pod = |name: &str| world.pod("shop", name, json!({ "app": name }));
    let (a, b, c) = (pod("a"), pod("b"), pod("c"));
    assert!(says(&world, &c, &a, 0), "without policies");
    assert!(!world.node.has("data/podnet/policy-objects"));
    world.elsewhere("shop", "far", json!({ "app": "b" }), &["10.244.11.9", "fd00:10:11::9"]);
    world.policy("shop", "some", only("a", "b"));
    world.expect("allowed", &b, &a, true);
    world.expect("forbidden", &c, &a, false);
    world.node.wait("the objects", || world.node.has("data/podnet/policy-objects"));
    world.node.wait("allowed", || says(&world, &b, &a, 0));
    world.node.wait("denied", || says(&world, &c, &a, 1));
    let from_afar = format!("policy why shop/far shop/a:{PORT}/udp");
    world.node.wait("another node's pod", || ask(&world, &from_afar).0 == Some(0));
    // A change is there some seconds later.
    world.label("shop", "c", json!({ "app": "b" }));
    world.node.wait("another label", || says(&world, &c, &a, 0));
    let (status, shown) = ask(&world, "policy show shop/a");
    assert_eq!(
        (status, &shown["directions"][1]["policies"][0]["name"]),
        (Some(0), &json!("shop/some")),
        "{shown:#}"
    );
    let findings = |answer: &Value| -> Vec<String> {
        let ids =
            answer["findings"].as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap().to_owned());
        ids.filter(|id| id.contains("polic") || id == "pods-held").collect()
    };
    assert_eq!(findings(&ask(&world, "doctor").1), Vec::<String>::new());
    world.remove_policy("shop", "some");
    world.node.wait("no objects", || !world.node.has("data/podnet/policy-objects"));
    assert!(says(&world, &b, &a, 0));
}
