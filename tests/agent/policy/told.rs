//! What is denied is told, with names.

use std::time::Duration;

use serde_json::json;

use super::world::{Flows, PORT, World, nothing, reaches};

#[test]
fn a_denial_names_pod_peer_port_and_policies() {
    let world = World::new("denied");
    let (a, b) =
        (world.pod("shop", "a", json!({ "app": "a" })), world.pod("bank", "b", json!({ "app": "b" })));
    world.policy("shop", "closed", nothing("a"));
    world.expect("closed", &b, &a, false);
    world.expect("closed", &a, &b, false);
    for words in [
        format!("msg=\"policy denied\" direction=ingress pod=shop/a peer=bank/b address={}", b.addresses[0]),
        format!("msg=\"policy denied\" direction=egress pod=shop/a peer=bank/b address={}", b.addresses[1]),
        format!("port={PORT} protocol=udp policies=shop/closed"),
    ] {
        // The flow by which it was seen may have begun before the policy held: then its answers alone were denied.
        world.node.wait(&words, || {
            for (family, address) in a.addresses.iter().enumerate() {
                assert!(!reaches(b.pod.namespace(), address, PORT, true));
                assert!(!reaches(a.pod.namespace(), &b.addresses[family], PORT, true));
            }
            world.node.log().contains(&words)
        });
    }
    let count = |direction: &str| {
        let name = format!("namespace=\"shop\",direction=\"{direction}\"");
        world.node.metric(&format!("ferrule_policy_denied_packets_total{{{name}}}"))
    };
    assert!(count("ingress").is_some_and(|count| count >= 1.0) && count("egress").is_some());
    // A peer of another node is named by what the API server says.
    world.elsewhere("bank", "far-6d5f9c7b8d-x2x4z", json!({}), &["192.0.2.77"]);
    let words = "pod=shop/a peer=bank/far-6d5f9c7b8d-x2x4z address=192.0.2.77";
    world.node.wait(words, || {
        assert!(!reaches(a.pod.namespace(), "192.0.2.77", PORT, true));
        world.node.log().contains(words)
    });
    // Thousands of packets are no thousands of lines.
    let lines = || world.node.log().matches("msg=\"policy denied\"").count();
    let before = lines();
    let flows = Flows::start(b.pod.namespace(), &a.addresses[0], PORT, false);
    world.node.wait("a thousand packets", || flows.begun() > 1000);
    let (begun, passed) = flows.end();
    let told = lines() - before;
    println!("of {begun} denied packets {told} were told");
    assert!(passed == 0 && told < 400, "{told} of {begun}");
    // They are counted, all of them.
    let exactly = || world.node.metric("ferrule_policy_denied_total{direction=\"ingress\"}").unwrap_or(0.0);
    let in_table = || world.node.nft("list chain inet ferrule-policy denied_in");
    world
        .node
        .wait("all of them counted", || in_table().contains(&format!("counter packets {} ", exactly())));
    assert!(exactly() >= f64::from(u32::try_from(begun).unwrap()));
    assert_eq!(world.node.metric("ferrule_policy_log_missing"), Some(0.0));
}

/// Whom a policy selects changes without it.
#[test]
fn a_policy_that_selects_a_pod_at_last_is_no_longer_said_to_select_nobody() {
    let world = World::new("nobody");
    let idle = "ferrule_policy_problems{problem=\"selects_nobody\"}";
    world.policy("shop", "closed", nothing("a"));
    world.node.wait_for_metric(idle, 1.0);
    world.elsewhere("shop", "far", json!({ "app": "a" }), &["192.0.2.77"]);
    // It looks once a minute.
    world.node.wait_within(Duration::from_secs(90), "another word", || world.node.metric(idle) == Some(0.0));
}
