//! Neighbours' tools, odd pods and hostile authors of policies.

use serde_json::{Value, json};

use super::world::{PORT, World, nothing, only, reaches};
use crate::agent::objects::Kind;
use kit::call::Call;
use kit::packets::{answers_ping, answers_ping_at_once};
use kit::pod::addresses_of;
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

/// By a meta plugin: another network of ferrule, with another subnet.
#[test]
fn a_policy_that_comes_later_is_about_every_interface() {
    let world = World::new("second");
    let pod = |name: &str| world.pod("shop", name, json!({ "app": name }));
    let (a, b) = (pod("a"), pod("b"));
    let mut conf = world.node.conf();
    conf["name"] = "othernet".into();
    conf["ipam"]["ranges"] = json!([[{ "subnet": "10.77.0.0/24" }]]);
    conf["ipam"]["routes"] = json!([]);
    let words = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=a;K8S_POD_UID={}", a.uid);
    let call = Call::ferrule("ADD").on(&world.node.namespace).conf(&conf);
    let call = call.attachment(a.pod.container(), a.pod.namespace().path()).ifname("eth1").args(&words);
    let second = addresses_of(&call.run().result()).remove(0);
    let ping = |to: &str| answers_ping(b.pod.namespace(), to);
    assert!(ping(&second), "before any policy");
    world.policy("shop", "closed", nothing("a"));
    world.expect("closed", &b, &a, false);
    world.node.wait("closed on its second interface", || !answers_ping_at_once(b.pod.namespace(), &second));
    world.node.nft("flush ruleset");
    world.node.wait("the table", || world.has_table());
    world.expect("closed", &b, &a, false);
    world.node.wait("closed there again", || !answers_ping_at_once(b.pod.namespace(), &second));
    let own = world.node.nft("list set inet ferrule-policy own4");
    assert!(own.contains(&second), "{own}");
}

/// Anybody may write annotations: one that says it mirrors a static pod of another namespace is not that pod.
#[test]
fn a_pod_that_claims_a_static_pods_uid_opens_nothing() {
    let world = World::new("mirror");
    let hash = "0123456789abcdef0123456789abcdef";
    let annotations = json!({ "kubernetes.io/config.hash": hash, "kubernetes.io/config.mirror": hash });
    let mirror = |namespace: &str, name: &str| {
        json!({ "metadata": { "namespace": namespace, "name": name, "uid": format!("7f4f8a66-0b4f-4f0e-8f7c-00000000{}", name.len() + 1000),
                "labels": { "app": "a" }, "annotations": annotations },
            "spec": { "nodeName": "node-a" }, "status": { "phase": "Pending" } })
    };
    world.node.api.put_object(Kind::Pod, mirror("shop", "static-node-a"));
    let a = world.attach("shop", "static-node-a", hash);
    let b = world.pod("shop", "b", json!({ "app": "b" }));
    world.policy("shop", "closed", nothing("a"));
    world.expect("closed", &b, &a, false);
    world.policy("bank", "open", json!({ "podSelector": {}, "ingress": [{}], "egress": [{}] }));
    world.node.api.put_object(Kind::Pod, mirror("bank", "evil"));
    let c = world.pod("bank", "c", json!({ "app": "c" }));
    world.wait_for_chains(&c);
    assert!(!reaches(b.pod.namespace(), &a.addresses[0], PORT, true), "opened by another's pod");
    world.node.api.delete_object(Kind::Pod, "bank", "evil");
    world.remove_policy("bank", "open");
    world.policy("bank", "more", nothing("c"));
    world.expect("the end of it was heard", &b, &c, false);
    assert!(!reaches(b.pod.namespace(), &a.addresses[0], PORT, true), "opened when that went");
    let map = world.node.nft("list map inet ferrule-policy to_pod");
    assert!(map.contains("goto in-") && !map.contains("goto hold-"), "{map}");
}

#[test]
fn a_table_that_somebody_made_dormant_works_again() {
    let world = World::new("dormant");
    let pod = |name: &str| world.pod("shop", name, json!({ "app": name }));
    let (a, b) = (pod("a"), pod("b"));
    world.policy("shop", "closed", nothing("a"));
    world.expect("closed", &b, &a, false);
    world.node.nft("add table inet ferrule-policy { flags dormant; }");
    world.expect("closed again", &b, &a, false);
}

/// Without these a pod cannot reach itself by its own Service.
#[test]
fn addresses_of_pods_own_that_somebody_removed_are_back() {
    let world = World::new("own");
    let pod = |name: &str| world.pod("shop", name, json!({ "app": name }));
    let (a, b) = (pod("a"), pod("b"));
    world.policy("shop", "closed", nothing("a"));
    world.expect("closed", &b, &a, false);
    let own = |set: &str| world.node.nft(&format!("list set inet ferrule-policy {set}"));
    for (set, address) in [("own4", &a.addresses[0]), ("own6", &a.addresses[1])] {
        assert!(own(set).contains(address.as_str()), "{}", own(set));
        world.node.nft(&format!("flush set inet ferrule-policy {set}"));
        // Sooner than all is compared in any case.
        world.node.wait(set, || own(set).contains(address.as_str()));
    }
}

/// Neighbour discovery is judged in `inet ferrule`, before any policy: a pod that may send nothing but to its peer loses
/// neither node nor peer when neighbour entries go.
#[test]
fn an_isolated_pod_keeps_ipv6_when_neighbours_are_flushed() {
    let world = World::new("neighbours");
    let pod = |name: &str| world.pod("shop", name, json!({ "app": name }));
    let (a, b, c) = (pod("a"), pod("b"), pod("c"));
    world.policy("shop", "some", only("a", "b"));
    world.expect("allowed", &a, &b, true);
    world.expect("forbidden", &a, &c, false);
    let node_reaches_a = || answers_ping(&world.node.namespace, &a.addresses[1]);
    for (what, flush) in [
        ("flushed on the node", "-6 neigh flush all"),
        ("flushed on the node, permanent ones too", "-6 neigh flush all nud permanent"),
    ] {
        world.node.namespace.ip(flush);
        world.node.wait(what, node_reaches_a);
        world.expect(what, &a, &b, true);
        world.expect(what, &a, &c, false);
    }
    a.pod.namespace().ip("-6 neigh flush all");
    assert!(node_reaches_a(), "flushed in the pod");
    world.expect("flushed in the pod", &a, &b, true);
}
