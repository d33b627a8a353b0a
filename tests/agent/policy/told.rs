//! What is denied is told, with names.

use serde_json::json;

use super::world::{Flows, PORT, World, nothing};

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
        world.node.wait(&words, || world.node.log().contains(&words));
    }
    let count = |direction: &str| {
        let name = format!("namespace=\"shop\",direction=\"{direction}\"");
        world.node.metric(&format!("ferrule_policy_denied_packets_total{{{name}}}"))
    };
    assert!(count("ingress").is_some_and(|count| count >= 1.0) && count("egress").is_some());
    // Thousands of packets are no thousands of lines.
    let lines = || world.node.log().matches("msg=\"policy denied\"").count();
    let before = lines();
    let flows = Flows::start(b.pod.namespace(), &a.addresses[0], PORT, false);
    world.node.wait("a thousand packets", || flows.begun() > 1000);
    let (begun, passed) = flows.end();
    let told = lines() - before;
    println!("of {begun} denied packets {told} were told");
    assert!(passed == 0 && told < 400, "{told} of {begun}");
}
