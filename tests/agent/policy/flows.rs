//! Flows that exist when a policy comes: those that it forbids are cut, those that it allows lose nothing.

use serde_json::json;

use super::world::{PORT, World, nothing, only};
use kit::traffic::UdpClient;

#[test]
fn existing_flows_are_cut_and_allowed_ones_are_not() {
    let world = World::new("cut");
    let pod = |name: &str| world.pod("shop", name, json!({ "app": name }));
    let (a, b, c) = (pod("a"), pod("b"), pod("c"));
    let client = |from: &super::world::Member, family: usize| {
        UdpClient::new(from.pod.namespace(), &from.addresses[family])
    };
    let flow = |client: &UdpClient, to: &str| client.asks_in_vain(to, PORT);
    for family in [0, 1] {
        let (allowed, forbidden) = (client(&b, family), client(&c, family));
        let (out_allowed, out_forbidden) = (client(&a, family), client(&a, family));
        let from_node = UdpClient::new(&world.node.namespace, if family == 0 { "0.0.0.0" } else { "::" });
        let to = |member: &super::world::Member| member.addresses[family].clone();
        for (client, to) in [
            (&allowed, to(&a)),
            (&forbidden, to(&a)),
            (&out_allowed, to(&b)),
            (&out_forbidden, to(&c)),
            (&from_node, to(&a)),
        ] {
            assert!(!flow(client, &to), "{to}: before any policy");
        }
        let cut = || world.node.metric("ferrule_policy_flows_cut_total").unwrap_or_default();
        let before = cut();
        world.policy("shop", "some", only("a", "b"));
        world.node.wait("two flows cut", || cut() >= before + 2.0);
        assert!(flow(&forbidden, &to(&a)) && flow(&out_forbidden, &to(&c)), "cut");
        assert!(!flow(&allowed, &to(&a)) && !flow(&out_allowed, &to(&b)) && !flow(&from_node, &to(&a)));
        assert_eq!(cut(), before + 2.0, "no other flow");
        world.remove_policy("shop", "some");
        world.node.wait("the table's end", || !world.has_table());
    }
}

#[test]
fn existing_flows_stay_where_the_setting_says_so() {
    let mut world = World::without_agent("uncut");
    world.node.words = vec!["--policy-cut".into(), "false".into()];
    world.node.start_ready();
    let (a, b) =
        (world.pod("shop", "a", json!({ "app": "a" })), world.pod("shop", "b", json!({ "app": "b" })));
    let client = UdpClient::new(b.pod.namespace(), &b.addresses[0]);
    assert!(client.ask(&a.addresses[0], PORT).is_some());
    world.policy("shop", "closed", nothing("a"));
    world.expect("a new flow", &b, &a, false);
    assert!(client.ask(&a.addresses[0], PORT).is_some(), "the flow that was there");
}
