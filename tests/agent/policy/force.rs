//! A policy is in force, and goes.

use serde_json::json;

use super::world::{PORT, World, nothing, only, reaches};
use crate::agent::objects::Kind;
use kit::packets::answers_ping;

#[test]
fn a_policy_closes_a_pod_both_ways_and_goes_again() {
    let world = World::new("force");
    let (a, b) =
        (world.pod("shop", "a", json!({ "app": "a" })), world.pod("shop", "b", json!({ "app": "b" })));
    world.expect("before any policy", &a, &b, true);
    assert!(!world.has_table(), "who uses none has none");
    world.policy("shop", "closed", nothing("a"));
    world.expect("closed", &a, &b, false);
    world.expect("closed", &b, &a, false);
    // The node reaches its pods, and a pod itself.
    for address in &a.addresses {
        assert!(answers_ping(&world.node.namespace, address), "{address}");
        assert!(reaches(a.pod.namespace(), address, PORT, false), "{address}");
    }
    assert!(!reaches(a.pod.namespace(), "192.0.2.10", 1, true));
    world.policy("shop", "closed", only("a", "b"));
    world.expect("allowed", &a, &b, true);
    world.expect("allowed", &b, &a, true);
    world.remove_policy("shop", "closed");
    world.node.wait("the table's end", || !world.has_table());
    world.expect("after the last policy", &b, &a, true);
    assert!(!world.node.has("data/podnet/policy"));
}

#[test]
fn labels_that_change_select_and_allow_others() {
    let world = World::new("labels");
    let (a, b) =
        (world.pod("shop", "a", json!({ "app": "a" })), world.pod("shop", "b", json!({ "app": "x" })));
    let c = world.pod("bank", "c", json!({ "app": "c" }));
    let from_bank = json!({ "podSelector": { "matchLabels": { "app": "a" } }, "ingress": [
        { "from": [{ "podSelector": { "matchLabels": { "app": "b" } } },
            { "namespaceSelector": { "matchLabels": { "team": "money" } } }] },
    ] });
    world.policy("shop", "some", from_bank);
    world.expect("another label", &b, &a, false);
    world.label("shop", "b", json!({ "app": "b" }));
    world.expect("the right label", &b, &a, true);
    world.expect("a namespace without the label", &c, &a, false);
    world
        .node
        .api
        .edit_object(Kind::Namespace, "", "bank", |it| it["metadata"]["labels"]["team"] = json!("money"));
    world.expect("a namespace with the label", &c, &a, true);
    world.label("shop", "b", json!({}));
    world.expect("the label is gone", &b, &a, false);
    world.label("shop", "a", json!({ "app": "z" }));
    world.expect("not selected any more", &b, &a, true);
}

/// kube-router#1056, antrea#6507: its address may be another's at once.
#[test]
fn a_finished_pods_address_is_nobodys() {
    let world = World::new("finished");
    let a = world.pod("shop", "a", json!({ "app": "a" }));
    world.elsewhere("shop", "job", json!({ "app": "b" }), &["10.244.11.9", "fd00:10:11::9"]);
    world.elsewhere("shop", "late", json!({ "app": "b" }), &["10.244.11.8", "fd00:10:11::8"]);
    world.policy("shop", "some", only("a", "b"));
    world.wait_for_chains(&a);
    let has = |address: &str| world.node.nft("list table inet ferrule-policy").contains(address);
    world.node.wait("the members", || ["10.244.11.9", "fd00:10:11::9", "10.244.11.8"].into_iter().all(has));
    for (name, phase) in [("job", "Succeeded"), ("late", "Failed")] {
        let finish = |object: &mut serde_json::Value| object["status"]["phase"] = json!(phase);
        world.node.api.edit_object(Kind::Pod, "shop", name, finish);
    }
    world.node.wait("no members", || !["10.244.11.", "fd00:10:11::"].into_iter().any(has));
    // One that comes back under the same name has other addresses.
    world.elsewhere("shop", "job", json!({ "app": "b" }), &["10.244.11.7"]);
    world.node.wait("the new one", || has("10.244.11.7"));
}

#[test]
fn a_policy_that_cannot_be_compiled_closes_its_pods_alone() {
    let world = World::new("invalid");
    let (a, b) =
        (world.pod("shop", "a", json!({ "app": "a" })), world.pod("shop", "b", json!({ "app": "b" })));
    let c = world.pod("shop", "c", json!({ "app": "c" }));
    let wrong = json!({ "podSelector": { "matchLabels": { "app": "a" } }, "ingress": [
        { "from": [{ "ipBlock": { "cidr": "10.0.0.0/99" } }] }, {},
    ] });
    world.policy("shop", "wrong", wrong);
    world.policy("shop", "right", only("c", "b"));
    world.expect("closed by a policy that is wrong", &b, &a, false);
    world.expect("all others go on", &b, &c, true);
    world.expect("all others go on", &a, &c, false);
    world.node.wait("word of it", || world.node.log().contains("policy=shop/wrong field=spec.ingress[0]"));
    world.node.wait_for_metric("ferrule_policy_problems{problem=\"invalid\"}", 1.0);
    world.node.wait_for_metric("ferrule_network_policies", 2.0);
    world.policy("shop", "wrong", only("a", "b"));
    world.expect("put right", &b, &a, true);
    world.node.wait_for_metric("ferrule_policy_problems{problem=\"invalid\"}", 0.0);
    assert_eq!(world.node.log().matches("msg=\"policy invalid\"").count(), 1, "once");
}

/// A pod that is attached before the agent hears of it has what is certain, and its own policies soon after.
#[test]
fn a_pod_that_is_not_known_yet_is_held_until_it_is() {
    let world = World::new("held");
    let b = world.pod("shop", "b", json!({ "app": "b" }));
    world.policy("shop", "some", only("a", "b"));
    world.node.wait("the hold", || world.node.nft("list table inet ferrule-policy").contains("hold-in-shop"));
    let uid = "7f4f8a66-0b4f-4f0e-8f7c-999999999999";
    let late = world.attach("shop", "late", uid);
    world.node.wait_for_metric("ferrule_policy_pods_held", 1.0);
    world.expect("held", &b, &late, false);
    world.expect("held", &late, &b, false);
    let object = json!({ "metadata": { "namespace": "shop", "name": "late", "uid": uid, "labels": { "app": "z" } },
        "spec": { "nodeName": "node-a" }, "status": { "phase": "Pending" } });
    world.node.api.put_object(Kind::Pod, object);
    world.expect("known, and not isolated", &b, &late, true);
    world.expect("known, and not isolated", &late, &b, true);
    world.node.wait_for_metric("ferrule_policy_pods_held", 0.0);
}

#[test]
fn uninstalling_removes_the_table_of_policies() {
    let mut world = World::new("leave");
    let a = world.pod("shop", "a", json!({ "app": "a" }));
    world.policy("shop", "closed", nothing("a"));
    world.wait_for_chains(&a);
    world.remove(a);
    world.node.end(rustix::process::Signal::TERM);
    assert!(world.has_table());
    assert!(world.node.uninstall(&[]));
    assert_eq!(world.node.nft("list tables"), "");
}
