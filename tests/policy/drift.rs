//! What others change in the table is found by reading it, and is as it was after the next apply.

use ferrule::datapath::policy::{self, Unknown};

use super::content::everything;
use super::scene::{Planning, Scene, TCP, attached, connects, denied, peers, port, port_chain, uid};
use kit::block_on;
use kit::traffic::Server;

/// Edits of each kind of object, as a person at the node might make them.
const EDITS: [&str; 22] = [
    "flush chain inet ferrule-policy pi-1",
    "flush chain inet ferrule-policy PORT_80",
    "flush chain inet ferrule-policy policy_in",
    "flush chain inet ferrule-policy denied_in",
    "flush chain inet ferrule-policy hold-in-shop",
    "insert rule inet ferrule-policy pi-2 accept",
    "add rule inet ferrule-policy policy_out counter",
    "insert rule inet ferrule-policy policy_node accept",
    "add element inet ferrule-policy peers-14 { 10.9.9.9 }",
    "delete element inet ferrule-policy peers-14 { 10.244.1.11 }",
    "flush set inet ferrule-policy peers-16",
    "add element inet ferrule-policy blocks-14 { 10.0.0.0/8 }",
    "delete element inet ferrule-policy blocks-14 { 192.0.2.0/24 }",
    "flush set inet ferrule-policy blocks-16",
    "add element inet ferrule-policy named-14 { 10.9.9.9 . tcp . 80 }",
    "delete element inet ferrule-policy pi-1-ports { tcp . 80 }",
    "add element inet ferrule-policy pi-2-ports { tcp . 1-65535 : jump PORT_80 }",
    "flush map inet ferrule-policy pi-2-ports",
    "add chain inet ferrule-policy evil { type filter hook forward priority 20; policy drop; }",
    "add set inet ferrule-policy evil { type mark; }",
    "flush table inet ferrule-policy",
    "delete table inet ferrule-policy",
];

/// Edits that leave the table as it is, and lead a pod's packets elsewhere.
const EDITS_OF_ELEMENTS: [&str; 4] = [
    "flush map inet ferrule-policy from_pod",
    "delete element inet ferrule-policy to_pod { vetha }",
    "flush set inet ferrule-policy own4",
    "delete element inet ferrule-policy own6 { vethb . fd00:1::11 }",
];

#[test]
fn edits_of_others_are_found_and_undone() {
    let mut scene = Scene::new();
    let plan = everything().0;
    scene.apply(&plan);
    let printed = scene.list("-s");
    let of_80 = port_chain(TCP, 80, &[peers("peers-1"), peers("peers-2")]);
    for edit in EDITS {
        scene.nft(&edit.replace("PORT_80", &of_80));
        assert_ne!(scene.differences(&plan), [""; 0], "{edit}");
        scene.read();
        let applied = scene.apply(&plan);
        assert!(applied.transactions > 0 && !applied.left_over, "{edit}: {applied:?}");
        assert_eq!(scene.differences(&plan), [""; 0], "{edit}");
        assert_eq!(sorted(&scene.list("-s")), sorted(&printed), "{edit}");
    }
    for edit in EDITS_OF_ELEMENTS {
        scene.nft(edit);
        scene.read();
        assert!(scene.apply(&plan).transactions > 0, "{edit}");
        assert_eq!(sorted(&scene.list("-s")), sorted(&printed), "{edit}");
    }
}

/// Chains and sets that are made again come at the end.
fn sorted(printed: &str) -> Vec<&str> {
    let mut blocks: Vec<&str> = printed.trim_end_matches("}\n").split("\n\n").collect();
    if let Some(first) = blocks.first_mut() {
        *first = first.trim_start_matches("table inet ferrule-policy {\n");
    }
    let mut blocks: Vec<&str> = blocks.into_iter().map(str::trim).collect();
    blocks.sort_unstable();
    blocks
}

/// Somebody who comes between reading and writing is no reason to fail.
#[test]
fn a_table_that_goes_meanwhile_is_made_again() {
    let mut scene = Scene::new();
    let (plan, other) = (everything().0, everything().pods("peers-2", &["10.244.1.12"]).0);
    scene.apply(&plan);
    scene.nft("delete table inet ferrule-policy");
    // It is not read again before.
    let touched = ferrule::policy::plan::Touched { sets: ["peers-24".into()].into(), ..Default::default() };
    scene.apply_touched(&other, &touched);
    assert_eq!(scene.differences(&other), [""; 0]);
    scene.nft("delete chain inet ferrule-policy policy_in");
    scene.nft("add chain inet ferrule-policy policy_in { type filter hook forward priority 500; }");
    scene.read();
    scene.apply(&other);
    assert_eq!(scene.differences(&other), [""; 0]);
    // A set of another kind cannot be mended in its place.
    let of_80 = port_chain(TCP, 80, &[peers("peers-1"), peers("peers-2")]);
    scene.nft(&format!("flush chain inet ferrule-policy {of_80}"));
    scene.nft("delete set inet ferrule-policy peers-24");
    scene.nft("add set inet ferrule-policy peers-24 { type ipv4_addr; flags interval; }");
    scene.read();
    scene.apply(&other);
    assert_eq!(scene.differences(&other), [""; 0]);
}

/// Repair lets nothing pass that is forbidden, and cuts nothing: the chain is changed at one moment.
#[test]
fn what_is_mended_holds_at_once() {
    let mut scene = Scene::new();
    let _server = Server::tcp(&scene.b.namespace, 80, "b");
    let plan = Planning::default()
        .pods("peers-1", &["10.244.1.10"])
        .chain("pi-1", &[port(TCP, 80, &[peers("peers-1")])], &[])
        .pod("b", "pi-1", "")
        .0;
    scene.apply(&plan);
    scene.nft("insert rule inet ferrule-policy pi-1 accept");
    assert!(connects(&scene.c.namespace, "10.244.1.11", 80), "the edit lets all in");
    scene.read();
    scene.apply(&plan);
    assert!(denied(&scene.c.namespace, "10.244.1.11", 80));
    assert!(connects(&scene.a.namespace, "10.244.1.11", 80));
}

/// What an ADD does where the agent is dead and the table gone, and what happens at a reboot.
#[test]
fn a_table_is_restored_with_and_without_members() {
    let mut scene = Scene::new();
    let _server = Server::tcp(&scene.b.namespace, 80, "b");
    let _open = Server::tcp(&scene.c.namespace, 80, "c");
    let plan = Planning::default()
        .pods("peers-1", &["10.244.1.10"])
        .chain("pi-1", &[port(TCP, 80, &[peers("peers-1")])], &[])
        .pod("b", "pi-1", "none")
        .hold("closed", "none")
        .0;
    for with_members in [true, false] {
        let attached = scene.attached();
        let restored = policy::restore(&scene.nft, &plan, &attached, Unknown::Hold, with_members);
        assert!(block_on(restored).unwrap());
        let is = if with_members { connects } else { denied };
        assert!(is(&scene.a.namespace, "10.244.1.11", 80), "a to b");
        assert!(denied(&scene.c.namespace, "10.244.1.11", 80), "c to b");
        assert!(denied(&scene.a.namespace, "10.244.1.12", 80), "c is not in the plan: held");
        let chains = block_on(policy::chains_of(&scene.nft, &uid("c"), "shop", Unknown::Hold)).unwrap();
        assert_eq!(chains.ingress.as_deref(), Some("hold-in-shop"));
        // Once is enough, and what the agent has made since stays.
        let again = policy::restore(&scene.nft, &plan, &attached, Unknown::Hold, with_members);
        assert!(!block_on(again).unwrap());
        block_on(policy::remove(&scene.nft)).unwrap();
        block_on(policy::remove(&scene.nft)).unwrap();
    }
    let attached = [attached(&scene.c)];
    let open = policy::restore(&scene.nft, &plan, &attached, Unknown::Open, true);
    assert!(block_on(open).unwrap());
    assert!(connects(&scene.a.namespace, "10.244.1.12", 80), "unknown pods are open where that was chosen");
    scene.read();
    scene.apply(&plan);
    assert_eq!(scene.differences(&plan), [""; 0]);
}
