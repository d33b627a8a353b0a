//! ClusterNetworkPolicies that the agent follows, where the API server has them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::world::{Flows, PORT, World, only, reaches};
use crate::agent::access::Access;
use crate::agent::objects::Kind;

/// About all pods of `shop`: what comes from `bank` meets this action.
fn from_bank(tier: &str, action: &str) -> Value {
    json!({
        "tier": tier, "priority": 10,
        "subject": { "namespaces": { "matchLabels": { "kubernetes.io/metadata.name": "shop" } } },
        "ingress": [{ "name": "bank", "action": action, "from": [
            { "namespaces": { "matchLabels": { "kubernetes.io/metadata.name": "bank" } } }] }],
    })
}

/// As a rule it is never there, and who installs it does so while agents run.
#[test]
fn a_resource_that_is_defined_later_is_taken_up() {
    let world = World::new("tiers");
    let (a, b) =
        (world.pod("shop", "a", json!({ "app": "a" })), world.pod("bank", "b", json!({ "app": "b" })));
    let c = world.pod("shop", "c", json!({ "app": "c" }));
    world.expect("without it", &b, &a, true);
    let absent = "msg=\"API server has no such resource, asking again now and then\"";
    world.node.wait("word of it", || world.node.log().contains(absent));
    // A NetworkPolicy needs nothing of it.
    world.policy("shop", "np", only("c", "a"));
    world.expect("a NetworkPolicy", &b, &c, false);
    world.remove_policy("shop", "np");
    world.node.wait("the table's end", || !world.has_table());
    world.node.api.define_cluster_policies(true);
    world.cluster_policy("deny", from_bank("Admin", "Deny"));
    world.node.wait("the policy", || world.has_table());
    world.expect("Admin denies", &b, &a, false);
    world.expect("others go on", &c, &a, true);
    world.node.wait_for_metric("ferrule_cluster_network_policies", 1.0);
    let denied = "msg=\"policy denied\" direction=ingress pod=shop/a peer=bank/b";
    world.node.wait("the denial", || {
        reaches(b.pod.namespace(), &a.addresses[0], PORT, true);
        world
            .node
            .log()
            .lines()
            .any(|it| it.contains(denied) && it.contains("policies=\"Admin deny ingress[0] (bank)\""))
    });
    // A NetworkPolicy that allows it does not help, and Baseline would be asked where there is none.
    world.policy("shop", "np", json!({ "podSelector": {}, "ingress": [{}] }));
    world.wait_for_chains(&a);
    world.expect("still denied", &b, &a, false);
    world.cluster_policy("deny", from_bank("Baseline", "Deny"));
    world.expect("the NetworkPolicy overrules", &b, &a, true);
    world.remove_policy("shop", "np");
    world.expect("Baseline denies", &b, &a, false);
    // Who removes the resource removes its objects first.
    world.remove_cluster_policy("deny");
    world.node.api.define_cluster_policies(false);
    world.node.wait("the table's end", || !world.has_table());
    world.expect("without it again", &b, &a, true);
    assert_eq!(world.node.log().matches(absent).count(), 1, "once");
}

/// An API server that has just started may not know the resource yet.
#[test]
fn a_404_of_a_moment_opens_nothing() {
    let world = World::new("moment");
    world.node.api.define_cluster_policies(true);
    let (a, b) =
        (world.pod("shop", "a", json!({ "app": "a" })), world.pod("bank", "b", json!({ "app": "b" })));
    world.cluster_policy("deny", from_bank("Admin", "Deny"));
    world.expect("Admin denies", &b, &a, false);
    let flows = Flows::start(b.pod.namespace(), &a.addresses[0], PORT, false);
    world.node.api.define_cluster_policies(false);
    world.node.wait("word of it", || world.node.log().contains("API server has no such resource"));
    world.node.api.define_cluster_policies(true);
    world.node.wait("the watch", || !world.node.api.watched(Kind::ClusterPolicy).is_empty());
    let begun = flows.begun();
    world.node.wait("flows", || flows.begun() > begun + 50);
    let (begun, answered) = flows.end();
    assert_eq!(answered, 0, "of {begun}");
}

/// What answers 404 for all that there is is no API server: policies in force stay, however often it does.
#[test]
fn a_proxy_without_servers_opens_nothing() {
    let world = World::new("proxy");
    world.node.api.define_cluster_policies(true);
    let (a, b) =
        (world.pod("shop", "a", json!({ "app": "a" })), world.pod("bank", "b", json!({ "app": "b" })));
    world.cluster_policy("deny", from_bank("Admin", "Deny"));
    world.expect("Admin denies", &b, &a, false);
    let flows = Flows::start(b.pod.namespace(), &a.addresses[0], PORT, false);
    world.node.api.know_nothing(true);
    // Longer than one resource alone is asked for.
    std::thread::sleep(std::time::Duration::from_secs(15));
    world.node.api.know_nothing(false);
    world.node.wait("the watch", || !world.node.api.watched(Kind::ClusterPolicy).is_empty());
    let (begun, answered) = flows.end();
    assert_eq!(answered, 0, "of {begun}");
    world.expect("Admin denies still", &b, &a, false);
}

/// A role of before.
#[test]
fn without_the_right_to_ask_for_them_all_else_goes_on() {
    let mut world = World::without_agent("norights");
    let all = ["nodes", "namespaces", "pods"].map(|it| ("", it));
    let all = all
        .into_iter()
        .chain([("networking.k8s.io", "networkpolicies"), ("networking.k8s.io", "servicecidrs")]);
    let allowed: BTreeSet<Access> = all
        .flat_map(|(group, resource)| {
            ["list", "watch"].map(|verb| Access {
                group: group.into(),
                resource: resource.into(),
                verb: verb.into(),
            })
        })
        .collect();
    world.node.api.define_cluster_policies(true);
    world.cluster_policy("deny", from_bank("Admin", "Deny"));
    world.node.api.allow(allowed);
    world.node.start_ready();
    let (a, b) =
        (world.pod("shop", "a", json!({ "app": "a" })), world.pod("bank", "b", json!({ "app": "b" })));
    world.policy("shop", "np", only("a", "c"));
    world.expect("a NetworkPolicy", &b, &a, false);
    let refused = "msg=\"API server refuses what NetworkPolicy needs\" resource=clusternetworkpolicies.policy.networking.k8s.io";
    world.node.wait("word of it", || world.node.log().contains(refused));
    world.remove_policy("shop", "np");
    world.expect("what cannot be heard is not in force", &b, &a, true);
    // With the right they are.
    world.node.api.allow_all();
    world.expect("Admin denies", &b, &a, false);
    assert_eq!(world.node.log().matches(refused).count(), 1, "once");
}

/// Flushed while the agent is away: the next ADD makes it again. A pod that nobody knows has what is certain.
#[test]
fn an_add_makes_them_again_and_holds_who_is_not_known() {
    let mut world = World::new("again");
    world.node.api.define_cluster_policies(true);
    world.cluster_policy("deny", from_bank("Admin", "Deny"));
    let (a, b) =
        (world.pod("shop", "a", json!({ "app": "a" })), world.pod("bank", "b", json!({ "app": "b" })));
    world.expect("Admin denies", &b, &a, false);
    let uid = "7f4f8a66-0b4f-4f0e-8f7c-999999999999";
    let held = world.attach("shop", "held", uid);
    world.expect("it is about all pods of the namespace", &b, &held, false);
    world.expect("and nobody denies that", &a, &held, true);
    // The file follows the table within a second or so.
    let file = world.node.path("data/podnet/policy");
    let has_all =
        |text: String| [&b.addresses[0], &b.addresses[1], &a.uid].into_iter().all(|it| text.contains(it));
    world.node.wait("the file", || std::fs::read_to_string(&file).is_ok_and(has_all));
    world.node.end(rustix::process::Signal::KILL);
    world.node.nft("delete table inet ferrule-policy");
    world.expect("the table is gone", &b, &a, true);
    let late = world.attach("shop", "late", "7f4f8a66-0b4f-4f0e-8f7c-888888888888");
    assert!(world.has_table());
    for to in [&a, &held, &late] {
        world.expect("made again", &b, to, false);
    }
    world.expect("made again", &a, &late, true);
}

/// What stands when a policy comes, and is not allowed by it, ends.
#[test]
fn what_is_not_understood_is_named_and_closed() {
    let world = World::new("unclear");
    world.node.api.define_cluster_policies(true);
    let (a, b) =
        (world.pod("shop", "a", json!({ "app": "a" })), world.pod("bank", "b", json!({ "app": "b" })));
    let mut spec = from_bank("Admin", "Deny");
    spec["ingress"][0]["from"][0] = json!({ "nodes": {} });
    world.cluster_policy("odd", spec);
    world.expect("denies all", &b, &a, false);
    let log = "policy=odd field=spec.ingress[0].from[0].nodes";
    world.node.wait("word of it", || {
        world.node.log().lines().any(|it| it.contains(log) && it.contains("the rule denies everything"))
    });
    world.node.wait_for_metric("ferrule_policy_problems{problem=\"invalid\"}", 1.0);
    world.cluster_policy("odd", from_bank("Admin", "Pass"));
    world.expect("mended", &b, &a, true);
    world
        .node
        .api
        .edit_object(Kind::ClusterPolicy, "", "odd", |it| it["spec"]["ingress"][0]["action"] = json!("Deny"));
    world.expect("changed", &b, &a, false);
}
