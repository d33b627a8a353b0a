//! What the agent asks the API server for, and what it does where that is refused.

use std::collections::BTreeSet;

use serde_json::json;

use super::world::{World, nothing};
use crate::agent::access::Access;
use crate::agent::objects::Kind;

const OF_ALL: &str = "status.phase!=Succeeded,status.phase!=Failed";
const OF_THIS_NODE: &str = "spec.nodeName=node-a,status.phase!=Succeeded,status.phase!=Failed";

#[test]
fn pods_of_all_nodes_are_followed_while_there_are_policies() {
    let world = World::new("asked");
    let watched = || world.node.api.watched(Kind::Pod);
    world.node.wait("this node's pods", || watched() == [OF_THIS_NODE]);
    assert_eq!(world.node.api.watched(Kind::Policy), [""]);
    assert_eq!(world.node.api.watched(Kind::Namespace), [""]);
    world.policy("shop", "closed", nothing("a"));
    world.node.wait("all pods", || watched() == [OF_THIS_NODE, OF_ALL]);
    world.remove_policy("shop", "closed");
    world.node.wait("no longer all pods", || watched() == [OF_THIS_NODE]);
}

#[test]
fn a_server_that_streams_no_lists_is_read_by_pages() {
    let mut world = World::without_agent("pages");
    world.node.api.refuse_streams();
    let object = |number: u32| {
        let labels = json!({ "app": if number.is_multiple_of(2) { "b" } else { "x" } });
        json!({ "metadata": { "namespace": "shop", "name": format!("far-{number}"), "uid": format!("far-{number}"),
            "labels": labels }, "spec": { "nodeName": "node-b" },
            "status": { "phase": "Running", "podIPs": [{ "ip": format!("10.245.{}.{}", number / 200, number % 200 + 1) }] } })
    };
    world.node.api.preload_objects(Kind::Pod, (0..350).map(object));
    world.node.start_ready();
    let a = world.pod("shop", "a", json!({ "app": "a" }));
    world.policy("shop", "some", super::world::only("a", "b"));
    world.wait_for_chains(&a);
    let members = || world.node.nft("list table inet ferrule-policy");
    world
        .node
        .wait("the last page", || members().contains("10.245.1.149") && members().contains("10.245.0.1"));
    assert!(!members().contains("10.245.0.2,"));
}

/// An upgrade that came before its role: all else goes on, and policies stay as they are.
#[test]
fn without_its_role_policies_stay_as_they_are() {
    let mut world = World::new("role");
    let (a, b) =
        (world.pod("shop", "a", json!({ "app": "a" })), world.pod("shop", "b", json!({ "app": "b" })));
    world.policy("shop", "closed", nothing("a"));
    world.expect("closed", &b, &a, false);
    world.node.end(rustix::process::Signal::KILL);
    let access = |verb: &str| Access { group: String::new(), resource: "nodes".into(), verb: verb.into() };
    world.node.api.allow(BTreeSet::from([access("list"), access("watch")]));
    world.node.start_ready();
    let refusal = "API server refuses what NetworkPolicy needs";
    world.node.wait("word of it", || world.node.log().matches(refusal).count() == 4);
    world.expect("closed as before", &b, &a, false);
    world.expect("closed as before", &a, &b, false);
    assert_eq!(world.node.metric("ferrule_api_up"), Some(1.0));
    world.remove_policy("shop", "closed");
    world.node.api.allow_all();
    world.node.wait("the table's end", || !world.has_table());
}

/// A watch goes on from where it was, and of objects that do not change it says nothing.
#[test]
fn rights_that_are_given_back_are_told() {
    let mut world = World::new("rights");
    world.node.wait("all lists", || world.node.api.watched(Kind::Namespace) == [""]);
    world.node.api.allow(BTreeSet::new());
    world.node.api.cut();
    let told = |words: &str| world.node.log().matches(words).count();
    world.node.wait("refusals", || told("API server refuses what NetworkPolicy needs") == 4);
    world.node.api.allow_all();
    world.node.wait("word of it", || told("API server allows what NetworkPolicy needs") == 4);
    assert!(world.node.end(rustix::process::Signal::TERM));
}
