//! As much as a large cluster has.

use std::net::{IpAddr, Ipv4Addr};

use ferrule::datapath::policy;
use ferrule::policy::content::digest_of;
use ferrule::policy::names::shared_port_chain;
use ferrule::policy::plan::{ChainRule, Direction, Isolation, Members, Plan, Touched};
use kit::block_on;
use kit::traffic::Server;
use serde_json::{Value, json};

use super::scene::{Planning, Scene, TCP, connects, denied, peers, port, uid};
use super::tiers::{about_b, from, plan as plan_of, pods, tcp};

const POLICIES: usize = 1000;
const ADDRESSES: u32 = 150_000;

fn address(number: u32) -> IpAddr {
    Ipv4Addr::from(0x0a80_0000 + number).into()
}

/// A thousand policies, of which all look into one large set, and a small one each.
fn plan() -> Plan {
    let mut planning = Planning::default().pods("peers-all", &[]);
    for number in 0..POLICIES {
        let (set, chain) = (format!("peers-{number}-"), format!("pi-{number}"));
        let ports = [port(TCP, 80, &[peers("peers-all"), peers(&set)]), port(TCP, 443, &[peers(&set)])];
        planning = planning.pods(&set, &["10.244.1.10"]).chain(&chain, &ports, &[]);
    }
    let mut plan = planning.pod("a", "pi-0", "").pod("b", "pi-1", "").hold("pi-0", "none").0;
    plan.sets.insert("peers-all4".into(), Members::Pods((0..ADDRESSES).map(address).collect()));
    plan
}

#[test]
fn a_thousand_policies_and_a_large_set_are_written_and_read() {
    let mut scene = Scene::new();
    let mut plan = plan();
    // The agent has one thread: routes must not wait for all of it.
    let (applied, turns, longest) = scene.apply_beside_others(&plan);
    println!("{} transactions in {turns} turns, the longest of {longest:?}", applied.transactions);
    assert!(applied.transactions > 10 && turns > applied.transactions, "{applied:?} in {turns} turns");
    assert_eq!(scene.differences(&plan), [""; 0]);
    let before = scene.generation();
    scene.read();
    assert_eq!(scene.apply(&plan).transactions, 0);
    assert_eq!(scene.generation(), before);
    // One comes, one goes: what is sent does not depend on how many there are.
    let Some(Members::Pods(all)) = plan.sets.get_mut("peers-all4") else { panic!("a set of pods") };
    let (comes, goes) = (address(ADDRESSES), address(7));
    assert!(all.insert(comes) && all.remove(&goes));
    let touched = Touched {
        sets: ["peers-all4".into()].into(),
        moved: [("peers-all4".into(), [comes, goes, address(8)].into())].into(),
        ..Touched::default()
    };
    let sent = scene.nft.messages_sent();
    let applied = scene.apply_touched(&plan, &touched);
    assert_eq!((applied.transactions, scene.nft.messages_sent() - sent, applied.taken_away), (2, 6, true));
    assert_eq!(scene.differences(&plan), [""; 0]);
    let printed = scene.world.list("-j list chains");
    assert!(printed.contains("pi-999") && printed.contains("-tcp-443"));
    // And all go again.
    assert_eq!(scene.apply(&Planning::default().0).transactions, 1);
    assert_eq!(scene.list(""), "");
}

const PORTS: std::ops::Range<u16> = 1000..2000;

/// Each is of a policy of its own.
fn rule_at(port: u16) -> ChainRule {
    ChainRule { comment: format!("shop/at-{port} ingress[0]"), ..peers("peers-1") }
}

fn chain_at(port: u16) -> String {
    shared_port_chain(&digest_of(Direction::Ingress, &[rule_at(port)]))
}

/// A thousand ports at which `b` hears `a`, but one.
fn ports(chain: &str, without: u16) -> Plan {
    let ports: Vec<_> = PORTS.filter(|it| *it != without).map(|it| port(TCP, it, &[rule_at(it)])).collect();
    Planning::default()
        .pods("peers-1", &["10.244.1.10"])
        .chain(chain, &ports, &[])
        .pod("b", chain, "none")
        .hold("closed", "none")
        .0
}

#[test]
fn one_of_a_thousand_ports_changes_and_the_others_stay() {
    let mut scene = Scene::new();
    let _servers = [1007, 1008, 1999].map(|port| Server::tcp(&scene.b.namespace, port, "b"));
    let (first, second) = (ports("pi-1", 1007), ports("pi-2", 1008));
    let b = "10.244.1.11";
    scene.apply(&first);
    assert_eq!(scene.differences(&first), [""; 0]);
    assert!(first.chains["pi-1"].groups.len() > 10);
    assert!(connects(&scene.a.namespace, b, 1008) && connects(&scene.a.namespace, b, 1999));
    assert!(denied(&scene.a.namespace, b, 1007) && denied(&scene.c.namespace, b, 1008));
    scene.read();
    assert_eq!(scene.apply(&first).transactions, 0);
    let counted = |chain: &str, port: u16| {
        let counted = block_on(policy::counted(&scene.nft, Direction::Ingress, chain)).unwrap();
        let chain = chain_at(port);
        counted.iter().filter(|it| it.chain == chain).map(|it| it.counted.packets).sum::<u64>()
    };
    assert_eq!((counted("pi-1", 1999), counted("pi-1", 1007)), (1, 0));
    // A group's map, the map of groups, and the chain of the port that came.
    let touched = Touched { pods: [uid("b")].into(), ..Touched::default() };
    let sent = scene.nft.messages_sent();
    let applied = scene.apply_touched(&second, &touched);
    assert!(scene.nft.messages_sent() - sent < 100, "{}", scene.nft.messages_sent() - sent);
    assert!(!applied.left_over);
    assert_eq!(scene.differences(&second), [""; 0]);
    assert!(connects(&scene.a.namespace, b, 1007) && connects(&scene.a.namespace, b, 1999));
    assert!(denied(&scene.a.namespace, b, 1008));
    // The chain of a port that stays has counted on.
    let counted = block_on(policy::counted(&scene.nft, Direction::Ingress, "pi-2")).unwrap();
    let of_1999 = chain_at(1999);
    assert_eq!(counted.iter().filter(|it| it.chain == of_1999).map(|it| it.counted.packets).sum::<u64>(), 2);
    // An element of a group's map that somebody takes away comes back.
    let group = &second.chains["pi-2"].groups[0].chain;
    scene.nft(&format!("flush map inet ferrule-policy {group}-ports"));
    assert_eq!(scene.differences(&second), [format!("chain {group}")]);
    scene.read();
    scene.apply(&second);
    assert_eq!(scene.differences(&second), [""; 0]);
}

/// So many ClusterNetworkPolicies with 24 rules each about `b`, of which the last lets `a` in, and nobody else.
fn tiers(policies: usize, protocols: &Value) -> Plan {
    let rule = |action, app| {
        let mut rule = from(action, pods(app), protocols.clone());
        if protocols.is_null() {
            rule.as_object_mut().unwrap().remove("protocols");
        }
        rule
    };
    let nobody: Vec<Value> = (0..24).map(|_| rule("Deny", "nobody")).collect();
    let of = |number: usize| match policies - number {
        1 => json!({ "ingress": [rule("Accept", "a"), rule("Deny", "c")] }),
        _ => json!({ "ingress": nobody }),
    };
    let all = (0..policies).map(|number| about_b(&format!("cnp-{number:04}"), "Admin", 7, of(number)));
    plan_of(json!([]), all.collect())
}

/// What is written at once is bounded by the socket's buffer, and a chain may have more rules than that.
#[test]
fn a_port_of_many_tier_rules_is_written_and_mended() {
    let mut scene = Scene::new();
    let _server = Server::tcp(&scene.b.namespace, 80, "b");
    let plan = tiers(800, &tcp(80));
    let Isolation::Rules(name) = &plan.pods[&uid("b")].tiers.ingress.admin else { panic!("a chain") };
    let chain = plan.chains[name].ports[0].chain.to_string();
    assert!(plan.chains[name].ports[0].rules.len() > 19_000);
    let (_, _, longest) = scene.apply_beside_others(&plan);
    println!("the longest turn took {longest:?}");
    assert_eq!(scene.differences(&plan), [""; 0]);
    let b = "10.244.1.11";
    assert!(connects(&scene.a.namespace, b, 80) && denied(&scene.c.namespace, b, 80));
    // Somebody takes a rule away, and puts one there.
    scene.nft(&format!("insert rule inet ferrule-policy {chain} accept"));
    assert!(connects(&scene.c.namespace, b, 80));
    scene.read();
    scene.apply(&plan);
    assert_eq!(scene.differences(&plan), [""; 0]);
    assert!(connects(&scene.a.namespace, b, 80) && denied(&scene.c.namespace, b, 80));
}

/// More than that is more than a packet should meet, at one port or at all.
#[test]
fn too_many_rules_of_a_tier_close_the_pods() {
    for protocols in [tcp(80), Value::Null] {
        let plan = tiers(900, &protocols);
        assert_eq!(plan.pods[&uid("b")].tiers.ingress.admin, Isolation::Closed, "{protocols}");
    }
}
