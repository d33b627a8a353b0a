//! Neighbours' tools, odd pods and hostile authors of policies.

use serde_json::{Value, json};

use super::world::{PORT, World, nothing, only};
use kit::traffic::UdpClient;

/// The API server has not told of it yet, so nothing but its record says that it is there.
#[test]
fn a_held_pod_stays_held_when_somebody_flushes_the_table() {
    let world = World::new("heldflush");
    let b = world.pod("shop", "b", json!({ "app": "b" }));
    world.policy("shop", "some", only("a", "b"));
    world.node.wait("the hold", || world.node.nft("list table inet ferrule-policy").contains("hold-in-shop"));
    let late = world.attach("shop", "late", "7f4f8a66-0b4f-4f0e-8f7c-999999999999");
    let is_held = || {
        ["to_pod", "from_pod"].into_iter().all(|map| {
            let chain = if map == "to_pod" { "goto hold-in-shop" } else { "goto hold-out-shop" };
            world.node.nft(&format!("list map inet ferrule-policy {map}")).contains(chain)
        })
    };
    world.node.wait("held", is_held);
    world.expect("held", &b, &late, false);
    world.node.nft("flush ruleset");
    world.node.wait("the table", || world.has_table());
    world.node.wait("held again after a flush", is_held);
    world.expect("held again", &b, &late, false);
    let name = world.node.nft("list map inet ferrule-policy to_pod");
    let name = name.lines().find(|line| line.contains("hold-in-shop")).unwrap();
    let name = name.split('"').nth(1).unwrap().to_owned();
    world.node.nft(&format!("delete element inet ferrule-policy to_pod {{ \"{name}\" }}"));
    world.node.wait("held again after its element was removed", is_held);
}

/// Each port with a chain of its own, and no two of them beside each other.
#[test]
fn a_policy_of_very_many_ports_stops_no_other() {
    let world = World::new("ports");
    let pod = |name: &str| world.pod("shop", name, json!({ "app": name }));
    let (a, b, c) = (pod("a"), pod("b"), pod("c"));
    let ports: Vec<Value> = (0..32_000).map(|n| json!({ "port": 2 * n + 1, "protocol": "UDP" })).collect();
    let spec = json!({ "podSelector": { "matchLabels": { "app": "a" } }, "ingress": [{ "ports": ports }] });
    world.policy("shop", "many", spec);
    world.expect("no such port", &b, &a, false);
    world.policy("shop", "other", only("c", "a"));
    world.expect("another policy", &b, &c, false);
    world.expect("another policy", &a, &c, true);
    assert_eq!(PORT % 2, 0);
}

/// With `policyUnknown: open` nobody holds it, so its flows are not to be cut either.
#[test]
fn flows_of_an_unknown_pod_stay_where_the_setting_is_open() {
    let mut world = World::without_agent("openflows");
    world.node.words = vec!["--policy-unknown".into(), "open".into()];
    world.node.start_ready();
    let b = world.pod("shop", "b", json!({ "app": "b" }));
    let c = world.pod("shop", "c", json!({ "app": "c" }));
    let late = world.attach("shop", "late", "7f4f8a66-0b4f-4f0e-8f7c-999999999999");
    let client = UdpClient::new(b.pod.namespace(), &b.addresses[0]);
    let other = UdpClient::new(b.pod.namespace(), &b.addresses[0]);
    assert!(client.ask(&late.addresses[0], PORT).is_some());
    assert!(other.ask(&c.addresses[0], PORT).is_some());
    world.policy("shop", "closed", nothing("c"));
    let cut = || world.node.metric("ferrule_policy_flows_cut_total").unwrap_or_default();
    world.node.wait("flows cut", || cut() >= 1.0);
    assert!(other.asks_in_vain(&c.addresses[0], PORT));
    assert!(!client.asks_in_vain(&late.addresses[0], PORT), "nobody forbids it");
    assert!(cut() < 1.5, "{}", cut());
}
