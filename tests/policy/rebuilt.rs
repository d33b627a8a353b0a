//! The table made again by an ADD, where somebody has flushed it, or the node was rebooted, and no agent is there.

use std::collections::BTreeMap;
use std::fs;

use ferrule::cni::ids::NetworkName;
use ferrule::policy::plan::Plan;
use ferrule::store::{Store, current_boot_id};
use kit::at_once;
use kit::nft;
use kit::node::{Node, OUTSIDE_V4};
use kit::pod::{Pod, addresses_of};
use kit::traffic::{PATIENT, Server, reply, tcp};
use serde_json::{Value, json};

use super::binding::{add, call, led};
use super::scene::{Planning, denied, peers, port, uid};

/// What an agent leaves on the disk.
fn remember(node: &Node, plan: &Plan) {
    let store = Store::open(&node.data_dir(), &NetworkName::parse("podnet").unwrap()).unwrap();
    store.lock(&current_boot_id().unwrap(), PATIENT).unwrap().remember_policy(Some(plan)).unwrap();
}

/// Whom the pods `a` and `b` of `shop` hear: at port 80 the members of a set, at port 81 the host outside. Others of the
/// namespace are held closed.
fn plan(members: &[&str]) -> Plan {
    let (pods, blocks) = (peers("peers-1"), peers("blocks-1"));
    let planning = Planning::default()
        .pods("peers-1", members)
        .blocks("blocks-14", &[(OUTSIDE_V4, OUTSIDE_V4)])
        .chain("pi-1", &[port(6, 80, &[pods]), port(6, 81, &[blocks])], &[])
        .pod("a", "pi-1", "none")
        .pod("b", "pi-1", "none");
    planning.hold("closed", "none").0
}

fn chains(node: &Node) -> Vec<String> {
    let mut chains: Vec<String> =
        led(node.namespace()).into_iter().filter(|(key, _)| key.contains("_pod ")).map(|it| it.1).collect();
    chains.sort();
    chains
}

fn flush(node: &Node) {
    nft::run(node.namespace(), "flush ruleset").unwrap();
    assert_eq!(led(node.namespace()), BTreeMap::new());
}

#[test]
fn an_add_makes_a_flushed_table_again_for_all_pods() {
    let (node, conf) = (Node::new(), Node::conf);
    let conf = conf(&node);
    let pods: BTreeMap<&str, Pod> = ["a", "b", "c"].into_iter().map(|name| (name, Pod::new(name))).collect();
    let a = add(&node, &pods["a"], &conf, "a");
    remember(&node, &plan(&[OUTSIDE_V4]));
    flush(&node);
    add(&node, &pods["c"], &conf, "c");
    let of_pods = |names: &[&str]| {
        let own = |word: &'static str| names.iter().map(move |name| format!("{word}-{}", uid(name)));
        let holds = ["hold-in-shop", "hold-out-shop"].map(str::to_owned).into_iter();
        holds.chain(own("in")).chain(own("out")).collect::<Vec<String>>()
    };
    assert_eq!(chains(&node), of_pods(&["a"]));
    let _servers = [80, 81, 82].map(|port| Server::tcp(pods["a"].namespace(), port, "a"));
    let address = &addresses_of(&a)[0];
    for port in [80, 81] {
        assert_eq!(tcp(node.outside(), address, port), reply(OUTSIDE_V4, "a"), "{port}");
    }
    assert!(denied(node.outside(), address, 82));
    // Once more, by two at once; the second one's record is there for the first, or the other way round.
    node.del(&pods["c"], &conf);
    flush(&node);
    let names = ["b", "c"];
    let answers = at_once(2, 2, |n| call(&node, "ADD", &pods[names[n]], &conf, names[n]).run());
    answers.iter().for_each(|answer| drop(answer.result()));
    assert_eq!(chains(&node), of_pods(&["a", "b"]));
    assert_eq!(tcp(node.outside(), address, 80), reply(OUTSIDE_V4, "a"));
    assert!(denied(node.outside(), address, 82));
    for pod in pods.values() {
        node.del(pod, &conf);
    }
    assert_eq!(led(node.namespace()), BTreeMap::new());
}

#[test]
fn sixteen_adds_that_find_no_table_make_one() {
    let node = Node::new();
    let pods: Vec<Pod> = (0..16).map(|_| Pod::new("pod")).collect();
    add(&node, &Pod::new("first"), &node.conf(), "d");
    remember(&node, &plan(&[]));
    let names = ["a", "b", "c"];
    let answers = at_once(16, 16, |n| call(&node, "ADD", &pods[n], &node.conf(), names[n % 3]).run());
    answers.iter().for_each(|answer| drop(answer.result()));
    let known = |name: &str| format!("in-{}", uid(name));
    let led: Vec<String> = chains(&node).into_iter().filter(|chain| chain.starts_with("in-")).collect();
    assert_eq!(led, [vec![known("a"); 6], vec![known("b"); 5]].concat());
}

/// Addresses of before the boot are nobody's.
#[test]
fn after_a_reboot_no_pod_is_a_peer_until_it_is_known() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let conf = node.conf();
    // The first ADD of all makes the store.
    let first = Pod::new("first");
    node.add(&first, &conf);
    node.del(&first, &conf);
    remember(&node, &plan(&[OUTSIDE_V4]));
    let file = node.store().path().join("policy");
    let mut kept: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    kept["bootId"] = json!("11111111-2222-4333-8444-555555555555");
    kept.as_object_mut().unwrap().remove("sum");
    fs::write(&file, kept.to_string()).unwrap();
    let address = &addresses_of(&add(&node, &pod, &conf, "a"))[0];
    assert_eq!(chains(&node), ["in", "out"].map(|word| format!("{word}-{}", uid("a"))));
    let _servers = [80, 81].map(|port| Server::tcp(pod.namespace(), port, "a"));
    assert_eq!(tcp(node.outside(), address, 81), reply(OUTSIDE_V4, "a"), "blocks are as true as before");
    assert!(denied(node.outside(), address, 80));
}

#[test]
fn a_damaged_plan_closes_and_fails_nothing() {
    let (node, pod, before) = (Node::new(), Pod::new("pod"), Pod::new("before"));
    let (conf, mut open) = (node.conf(), node.conf());
    open["policyUnknown"] = json!("open");
    add(&node, &before, &conf, "b");
    fs::write(node.store().path().join("policy"), "{\"version\":1,\"pl").unwrap();
    node.status(&conf).success();
    let answer = call(&node, "ADD", &pod, &open, "a").run();
    answer.result();
    assert!(answer.stderr.contains("the policies of this node are not known"), "{}", answer.stderr);
    assert_eq!(led(node.namespace()), BTreeMap::new());
    call(&node, "DEL", &pod, &open, "a").run().success();
    flush(&node);
    add(&node, &pod, &conf, "a");
    let held = ["hold-in-shop", "hold-in-shop", "hold-out-shop", "hold-out-shop"];
    assert_eq!(chains(&node), held);
    assert!(denied(pod.namespace(), OUTSIDE_V4, 80));
    node.status(&conf).success();
    node.gc(&conf, &[]).success();
    assert_eq!(led(node.namespace()), BTreeMap::new());
    node.expect_nothing_left();
}
