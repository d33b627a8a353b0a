//! As much as a large cluster has.

use std::net::{IpAddr, Ipv4Addr};

use ferrule::policy::plan::{Members, Plan, Touched};

use super::scene::{Planning, Scene, TCP, peers, port};

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
    assert!(printed.contains("pi-999-tcp-443"));
    // And all go again.
    assert_eq!(scene.apply(&Planning::default().0).transactions, 1);
    assert_eq!(scene.list(""), "");
}
